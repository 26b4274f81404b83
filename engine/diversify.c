/* Diversity caps: at most so many hits of one value, in the order of the hits.
 *
 * Counting is exact. Small counters by hash say when a value cannot have reached its cap yet, which is nearly always; only
 * when a counter says that it may have (it did, or another value shares the counter) are the kept hits looked through.
 */
#include <string.h>

#include "plan.h"

#define COUNTERS 1024u

typedef struct tally {
    uint16_t seen[COUNTERS];
} tally;

static uint32_t counter_of(uint64_t value)
{
    return (uint32_t)((value * 0x9e3779b97f4a7c15ull) >> 54); /* 10 bits */
}

/* The value that a cap counts; 0: unknown, not capped. */
static uint64_t value_of(const pd_schema *schema, const pd_cap *cap, const uint8_t *bytes,
                         const uint64_t *keys, uint32_t row)
{
    if (cap->attribute->type == PD_KEY) return keys[(size_t)row * schema->nkeys + cap->attribute->key_column];
    if (cap->attribute->type == PD_CATEGORY)
        return bytes[(size_t)row * schema->nbytes + cap->attribute->byte_column];
    return 0;
}

uint32_t pd_diversify(const pd_schema *schema, const pd_cap *caps, uint32_t ncaps, const uint8_t *bytes,
                      const uint64_t *keys, pd_hit *hits, uint32_t n)
{
    tally tallies[PD_MAX_ATTRIBUTES];
    uint16_t kept[PD_MAX_DEPTH]; /* rows of the hits that stay */
    uint32_t left = 0;
    if (ncaps > PD_MAX_ATTRIBUTES) ncaps = PD_MAX_ATTRIBUTES;
    if (n > PD_MAX_DEPTH) n = PD_MAX_DEPTH;
    memset(tallies, 0, ncaps * sizeof *tallies);
    for (uint32_t i = 0; i < n; i++) {
        int passes = 1;
        for (uint32_t c = 0; passes && c < ncaps; c++) {
            uint64_t value = value_of(schema, &caps[c], bytes, keys, i);
            if (value == 0 || tallies[c].seen[counter_of(value)] < caps[c].at_most) continue;
            uint32_t held = 0;
            for (uint32_t h = 0; h < left && held < caps[c].at_most; h++)
                held += value_of(schema, &caps[c], bytes, keys, kept[h]) == value;
            passes = held < caps[c].at_most;
        }
        if (!passes) continue;
        for (uint32_t c = 0; c < ncaps; c++) {
            uint64_t value = value_of(schema, &caps[c], bytes, keys, i);
            if (value) tallies[c].seen[counter_of(value)]++;
        }
        kept[left] = (uint16_t)i;
        hits[left++] = hits[i];
    }
    return left;
}
