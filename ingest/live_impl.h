/* A resident's insides, shared by resident.c and live_*.c.
 *
 * Who touches what: the executor's thread changes what searches and plans see, under lock (for writing); plans read it under lock. What the
 * writer keeps for what is staged is under staging, which applying takes too. staging is taken before lock.
 */
#ifndef PD_LIVE_IMPL_H
#define PD_LIVE_IMPL_H

#include <pthread.h>

#include "idmap.h"
#include "live.h"
#include "live_places.h"
#include "postings.h"
#include "version_impl.h"

/* Where a row's source is: 0: in the version's files; else the sequence of its change, its place in it, and whether the
 * version had a row of that id. */
#define PD_REF_BUILT (UINT64_C(1) << 63)
static inline uint64_t pd_ref_sequence(uint64_t ref)
{
    return (ref & ~PD_REF_BUILT) >> 16;
}

#define PD_ID_GONE (UINT32_MAX - 1) /* in staged_ids: it will not be there */

struct pd_resident {
    const pd_version *version;
    const pd_version_info *info;
    pd_index *index;

    /* Under lock. */
    pthread_rwlock_t lock;
    pd_idmap slots; /* id -> slot */
    pd_postings postings;
    pd_places places;       /* free, next, heads and spare under staging alone */
    uint64_t written, gone; /* rows with a reference; of the version's rows those that are not there */
    double imbalance_built;
    uint64_t **
        refs; /* [pages] of PD_PAGE_ROWS, NULL: all 0. The writer sets pointers, the executor what they point at */
    uint64_t rows, applied; /* read by any thread (__atomic) */

    /* Counters, by number among the schema's. */
    uint32_t ncounters;
    uint32_t counted[PD_MAX_FLOATS]; /* their attributes */
    double *counters[PD_MAX_FLOATS]; /* [slots] */

    /* Under staging. */
    pthread_mutex_t staging;
    uint32_t nstaged;        /* changes, not yet applied */
    uint64_t staged_fresh;   /* ids that they bring */
    pd_idmap staged_ids;     /* id -> slot or PD_ID_GONE, as it will be */
    pd_idmap staged_slots;   /* slot -> place in staged_counters */
    double *staged_counters; /* [staged_room][ncounters] */
    uint32_t staged_room;
};

struct pd_encoded {
    uint32_t n;
    uint32_t *lists;      /* [n] */
    void *pages, *refine; /* as pd_row_writes wants them */
};

struct pd_staged {
    const pd_change *change;
    const pd_encoded *encoded;
    uint32_t n;      /* rows */
    int crowded;     /* no page was left */
    uint32_t done;   /* of these, applied */
    uint32_t *rows;  /* [n] their places in the change */
    uint32_t *slots; /* [n] where they will be; of a delete where they are */
    uint32_t *olds;  /* [n] where they are, PD_NO_SLOT */
    uint32_t fresh;
    uint32_t npages; /* that lists get */
    uint32_t *pages, *lists;
    pd_cell *cells; /* [attributes][n] what the rows will hold; of attributes that are not touched nothing */
    uint32_t touched; /* a bit an attribute */
    double *counters; /* [ncounters][n] as they will be */
    int recounts;     /* some counter is touched */
    /* Columns to write into rows that are there. */
    pd_column_write *writes;
    uint32_t nwrites;
    /* For what applying reads: the slots, and what is in them. */
    uint32_t *were;
    pd_rows was;
    void *memory; /* behind all of these */
};

/* INVALID_ARGUMENT: a change that is not well formed. */
pd_status pd_change_check(const pd_version_info *info, const pd_change *change, pd_error *err);
/* The change's column of an attribute, NULL. */
const pd_change_column *pd_change_column_of(const pd_change *change, uint32_t attribute);
pd_cell pd_change_cell(const pd_attribute *attribute, const pd_change_column *column, uint32_t row);

/* Under staging: nothing staged is left to apply. */
void pd_live_settle(pd_resident *resident);
/* The number of an attribute among the counters, PD_MAX_FLOATS. */
uint32_t pd_live_counter_of(const pd_resident *resident, uint32_t attribute);

#endif
