/* Slots of the rows that hold a value, or whose number lies in a range. */
#ifndef PD_MATCHES_H
#define PD_MATCHES_H

#include <stdint.h>
#include <string.h>

/* Every such row's slot is in one of two arrays, and other slots are in them too: of rows that held the value once. slots: as the
 * version was built; more: since, in no order, some of them twice or in both. */
typedef struct pd_matches {
    uint64_t rows; /* that hold the value now, known in any case; of a range about so many */
    int listed;    /* 0: too frequent to be worth a list, there are no slots */
    const uint32_t *slots, *more;
    uint64_t nslots, nmore;
} pd_matches;

/* Both arrays, one behind the other. out: [nslots + nmore]. Returns how many. */
static inline uint64_t pd_matches_copy(const pd_matches *matches, uint32_t *out)
{
    if (matches->nslots) memcpy(out, matches->slots, matches->nslots * sizeof *out);
    if (matches->nmore) memcpy(out + matches->nslots, matches->more, matches->nmore * sizeof *out);
    return matches->nslots + matches->nmore;
}

#endif
