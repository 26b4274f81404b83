/* Sorting by radix: 11 bits a pass over keys that order as the floats do, so that a table of hundreds of millions of rows
 * is ordered in seconds. */
#include "ranges.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DIGIT  11u
#define DIGITS (1u << DIGIT)

pd_status pd_ranges_open(pd_ranges *r, uint64_t nslots, pd_error *err)
{
    memset(r, 0, sizeof *r);
    r->nslots = nslots;
    r->values = malloc(((size_t)nslots + 1) * sizeof *r->values);
    if (!r->values)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the numbers of %llu rows",
                       (unsigned long long)nslots);
    for (uint64_t i = 0; i < nslots; i++)
        r->values[i] = NAN;
    return PD_OK;
}

/* Unsigned numbers in the order of the floats. */
static uint32_t key_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

/* One stable pass over a digit of the upper half. */
static void pass(const uint64_t *from, uint64_t *to, uint64_t n, uint32_t shift)
{
    uint64_t starts[DIGITS] = {0}, sum = 0;
    for (uint64_t i = 0; i < n; i++)
        starts[from[i] >> shift & (DIGITS - 1)]++;
    for (uint32_t d = 0; d < DIGITS; d++) {
        uint64_t here = starts[d];
        starts[d] = sum;
        sum += here;
    }
    for (uint64_t i = 0; i < n; i++)
        to[starts[from[i] >> shift & (DIGITS - 1)]++] = from[i];
}

pd_status pd_ranges_finish(pd_ranges *r, pd_error *err)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < r->nslots; i++)
        n += !isnan(r->values[i]);
    uint64_t *items = calloc((size_t)n + 1, sizeof *items), *other = calloc((size_t)n + 1, sizeof *other);
    r->slots = malloc((size_t)n * sizeof *r->slots + 1);
    r->fences = malloc(((size_t)n / PD_FENCE + 1) * sizeof *r->fences);
    pd_status status = PD_OK;
    if (!items || !other || !r->slots || !r->fences) {
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to order the numbers of %llu rows",
                         (unsigned long long)n);
        goto done;
    }
    for (uint64_t i = 0, at = 0; i < r->nslots; i++)
        if (!isnan(r->values[i])) items[at++] = (uint64_t)key_of(r->values[i]) << 32 | i;
    pass(items, other, n, 32);
    pass(other, items, n, 32 + DIGIT);
    pass(items, other, n, 32 + 2 * DIGIT);
    for (uint64_t i = 0; i < n; i++) {
        r->slots[i] = (uint32_t)other[i];
        if (i % PD_FENCE == 0) r->fences[i / PD_FENCE] = r->values[r->slots[i]];
    }
    r->count = n;
    free(r->values);
    r->values = NULL;
done:
    free(items);
    free(other);
    return status;
}

void pd_ranges_close(pd_ranges *r)
{
    free(r->slots);
    free(r->fences);
    free(r->values);
    memset(r, 0, sizeof *r);
}

/* Fences under value, or up to it where equal ones count. */
static uint64_t fences_under(const pd_ranges *r, float value, int equal)
{
    uint64_t low = 0, high = (r->count + PD_FENCE - 1) / PD_FENCE;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (r->fences[middle] < value || (equal && r->fences[middle] == value))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void pd_ranges_get(const pd_ranges *r, float low, float high, const uint32_t **slots, uint64_t *count)
{
    *slots = r->slots;
    *count = 0;
    if (!(low <= high)) return;
    /* The first row in the range follows the last fence under it, and may be before the next. */
    uint64_t first = fences_under(r, low, 0), end = fences_under(r, high, 1) * PD_FENCE;
    first = first > 0 ? (first - 1) * PD_FENCE : 0;
    if (end > r->count) end = r->count;
    if (end <= first) return;
    *slots = r->slots + first;
    *count = end - first;
}

uint64_t pd_ranges_memory(const pd_ranges *r)
{
    return r->count * sizeof *r->slots + (r->count / PD_FENCE + 1) * sizeof *r->fences;
}
