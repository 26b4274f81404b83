/* Postings: the rows that hold a value, for category values, set members and keys; the rows in the order of each number;
 * and histograms of byte columns.
 *
 * What is made of a version's pages stays as it is. Where rows change afterwards, each list has a second array of the slots that it
 * lacks (more), in no order and some twice; it is made anew without repeats when it is full, so that rows whose values go to and
 * fro do not make it grow. Slots that hold the value no longer stay in both: the kernels score whatever row is there, and
 * test filters on it. Numbers have one such array a column, of all slots whose number changed. Counters change all the time
 * and have no order at all.
 */
#ifndef PD_POSTINGS_H
#define PD_POSTINGS_H

#include <pthread.h>
#include <stdint.h>

#include "idmap.h"
#include "matches.h"
#include "ranges.h"
#include "schema.h"
#include "status.h"

/* Slots that a list lacks. */
typedef struct pd_more {
    uint32_t *slots;
    uint64_t count, room;
    uint64_t promised; /* places that staged changes may take, at most */
} pd_more;

typedef struct pd_posting {
    uint32_t *slots;       /* ascending; NULL: too frequent, or no rows */
    uint64_t length, room; /* of slots */
    uint64_t count;        /* rows now */
    int frequent;          /* it has no list */
    pd_more more;
} pd_posting;

/* A key that rows were given since the version was built. */
typedef struct pd_fresh_key {
    uint64_t key;
    uint64_t count; /* rows now, where the version has no such key */
    int frequent;
    pd_more more;
} pd_fresh_key;

/* Keys of one column: the posting of key number n is slots[offsets[n] .. offsets[n + 1]); empty: too frequent. */
typedef struct pd_key_postings {
    pd_idmap numbers;  /* key -> number */
    uint64_t *counts;  /* [keys] rows of each now, frequent ones too */
    uint64_t *offsets; /* [keys + 1] */
    uint32_t *slots;
    uint32_t *number_of; /* [slots] while it is filled */
    pd_idmap fresh_of;   /* key -> place in fresh */
    pd_fresh_key *fresh;
    uint32_t nfresh, fresh_room;
} pd_key_postings;

typedef struct pd_postings {
    const pd_schema *schema;
    const pd_layout *layout;
    uint64_t frequent; /* a value of more rows has no list */
    uint64_t nslots;
    pd_posting *values[PD_MAX_ATTRIBUTES]; /* category: [256], set: [64] */
    pd_key_postings keys[PD_MAX_KEYS];
    pd_ranges numbers[PD_MAX_FLOATS];    /* by float column; of number attributes that are not counted */
    pd_more moved[PD_MAX_FLOATS];        /* slots whose number changed, each once */
    uint64_t *moved_bits[PD_MAX_FLOATS]; /* [nslots] bits: it is in moved; NULL: none is */
    uint64_t *marks;                     /* [nslots] bits, all 0 between calls: the writer's */
    uint64_t *histograms;        /* [layout.weights], by weight_at; columns without weights have none */
    uint16_t used[PD_MAX_BYTES]; /* by byte column: no row holds this value or a larger one */
} pd_postings;

/* rows: of the table; npages: its pages, spare ones included. RESOURCE_EXHAUSTED. */
pd_status pd_postings_open(pd_postings *postings, const pd_schema *schema, const pd_layout *layout,
                           uint64_t rows, uint32_t npages, pd_error *err);
/* Takes in one row; slots come in ascending order. */
pd_status pd_postings_add(pd_postings *postings, const void *page, uint32_t slot, pd_error *err);
/* After the last row. */
pd_status pd_postings_finish(pd_postings *postings, pd_error *err);
void pd_postings_close(pd_postings *postings); /* a zeroed one is allowed */
void pd_postings_get(const pd_postings *postings, const pd_attribute *attribute, uint64_t value,
                     pd_matches *out);
/* Every slot whose number lies in [low, high], and others: see ranges.h. */
void pd_postings_range(const pd_postings *postings, const pd_attribute *attribute, float low, float high,
                       pd_matches *out);
uint64_t pd_postings_memory(const pd_postings *postings);

/* ---------------------------------------------------------------------------------------- changes (live_postings.c) --- */

/* What a row holds of one attribute: word: category value, bucket, mask or key; number: NaN where it has none. */
typedef struct pd_cell {
    uint64_t word;
    float number;
} pd_cell;

/* Makes room for rows that will hold a cell; released once they do, or will not. The writer; lock is taken for writing where
 * readers could see an array move. RESOURCE_EXHAUSTED: nothing was promised. */
pd_status pd_postings_promise(pd_postings *postings, pthread_rwlock_t *lock, uint32_t attribute,
                              const pd_cell *cells, uint32_t n, pd_error *err);
void pd_postings_release(pd_postings *postings, uint32_t attribute, const pd_cell *cells, uint32_t n);
/* A row leaves slot `from` with what it held there and is in slot `to` with what it holds now. NULL: it was not there before, or is
 * gone. Under the lock. */
void pd_postings_change(pd_postings *postings, uint32_t attribute, uint32_t from, const pd_cell *before,
                        uint32_t to, const pd_cell *now);
void pd_postings_close_changes(pd_postings *postings);
uint64_t pd_postings_changes_memory(const pd_postings *postings);
/* NULL: rows have not been given this key since the version was built. */
const pd_fresh_key *pd_postings_fresh(const pd_key_postings *keys, uint64_t key);

#endif
