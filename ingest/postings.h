/* Postings: the rows that hold a value, for category values, set members and keys; the rows in the order of each number;
 * and histograms of byte columns. */
#ifndef PD_POSTINGS_H
#define PD_POSTINGS_H

#include <stdint.h>

#include "idmap.h"
#include "ranges.h"
#include "schema.h"
#include "status.h"

typedef struct pd_posting {
    uint32_t *slots; /* ascending; NULL: too frequent, or no rows */
    uint64_t count, room;
} pd_posting;

/* Keys of one column: the posting of key number n is slots[offsets[n] .. offsets[n + 1]). */
typedef struct pd_key_postings {
    pd_idmap numbers;  /* key -> number */
    uint64_t *counts;  /* [keys] rows of each, frequent ones too */
    uint64_t *offsets; /* [keys + 1] */
    uint32_t *slots;
    uint32_t *number_of; /* [slots] while it is filled */
} pd_key_postings;

typedef struct pd_postings {
    const pd_schema *schema;
    const pd_layout *layout;
    uint64_t frequent; /* a value of more rows has no list */
    uint64_t nslots;
    pd_posting *values[PD_MAX_ATTRIBUTES]; /* category: [256], set: [64] */
    pd_key_postings keys[PD_MAX_KEYS];
    pd_ranges numbers[PD_MAX_FLOATS]; /* by float column; of number attributes */
    uint64_t *histograms;             /* [layout.weights], by weight_at; columns without weights have none */
    uint16_t used[PD_MAX_BYTES];      /* by byte column: no row holds this value or a larger one */
} pd_postings;

/* rows: of the table; npages: its pages. RESOURCE_EXHAUSTED. */
pd_status pd_postings_open(pd_postings *postings, const pd_schema *schema, const pd_layout *layout,
                           uint64_t rows, uint32_t npages, pd_error *err);
/* Takes in one row; slots come in ascending order. */
pd_status pd_postings_add(pd_postings *postings, const void *page, uint32_t slot, pd_error *err);
/* After the last row. */
pd_status pd_postings_finish(pd_postings *postings, pd_error *err);
void pd_postings_close(pd_postings *postings); /* a zeroed one is allowed */
void pd_postings_get(const pd_postings *postings, const pd_attribute *attribute, uint64_t value,
                     const uint32_t **slots, uint64_t *count);
/* Every slot whose number lies in [low, high], and a few others: see ranges.h. */
void pd_postings_range(const pd_postings *postings, const pd_attribute *attribute, float low, float high,
                       const uint32_t **slots, uint64_t *count);
uint64_t pd_postings_memory(const pd_postings *postings);

#endif
