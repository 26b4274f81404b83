/* Rows in the order of a number: the slots of all rows that know a number attribute, ascending by value, with the value of
 * every PD_FENCE-th. A range is a piece of that order, found by its fences and so with up to a fence of rows too many at
 * either end, which the filter itself removes. 4 bytes a row. */
#ifndef PD_RANGES_H
#define PD_RANGES_H

#include <stdint.h>

#include "status.h"

#define PD_FENCE 64u

typedef struct pd_ranges {
    uint32_t *slots; /* [count] */
    float *fences;   /* [count / PD_FENCE + 1] */
    uint64_t count;
    float *values; /* [nslots] while it is filled, NaN: unknown or no row */
    uint64_t nslots;
} pd_ranges;

/* RESOURCE_EXHAUSTED. */
pd_status pd_ranges_open(pd_ranges *ranges, uint64_t nslots, pd_error *err);
/* After values are filled: sorts, and gives values back. */
pd_status pd_ranges_finish(pd_ranges *ranges, pd_error *err);
void pd_ranges_close(pd_ranges *ranges); /* a zeroed one is allowed */
/* Every slot whose value lies in [low, high], and fewer than 2 * PD_FENCE others, by value. *slots is borrowed. */
void pd_ranges_get(const pd_ranges *ranges, float low, float high, const uint32_t **slots, uint64_t *count);
uint64_t pd_ranges_memory(const pd_ranges *ranges);

#endif
