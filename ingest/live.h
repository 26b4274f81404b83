/* A table that changes while it serves: rows and attributes written into a resident version, between two searches.
 *
 * A change goes through three hands:
 *   encode   any thread     the list of each row (nearest centroid) and its codes; needs the version only
 *   stage    the writer     which slot each row gets; takes whatever memory and pages it needs, and changes nothing that a
 *                           search can see. What is staged can be dropped again (the log could not be written)
 *   apply    the executor   the slots, the id map, postings and histograms. It cannot fail, but with the device
 * There is one writer at a time (whoever catches up, restores or serves writes); changes are applied in the order in which they
 * were staged. The executor waits for a stage that is under way (at most the time that growing the id map takes). Rows never move: a replaced row whose list stays keeps its slot; else its old slot is emptied and joins its
 * list's free ones once the change is applied.
 *
 * The source rows of changed rows are in the log of changes, not here: for each row written since the version was built the
 * resident remembers the sequence of its change and its place in it.
 */
#ifndef PD_LIVE_H
#define PD_LIVE_H

#include <stdint.h>

#include "backend.h"
#include "resident.h"
#include "schema.h"
#include "status.h"
#include "version.h"

#define PD_CHANGE_ROWS 65536u /* of one change, at most */

typedef enum pd_change_kind {
    PD_CHANGE_UPSERT =
        1, /* whole rows: an attribute that is not named becomes unknown; counters stay (see below) */
    PD_CHANGE_UPDATE = 2, /* named attributes of rows that are there; the vector is not touched */
    PD_CHANGE_DELETE = 3,
    PD_CHANGE_COUNT = 4, /* counters: one number attribute with feedback, see pd_counter in schema.h */
} pd_change_kind;

/* One attribute's values, a row each. */
typedef struct pd_change_column {
    uint32_t attribute;     /* its number in the schema */
    const uint8_t *values;  /* category: [n] value numbers, 0 unknown */
    const float *numbers;   /* number: [n], NaN unknown; times as days since 1970-01-01 */
    const uint64_t *words;  /* set: [n] masks; key: [n], 0 unknown */
    const double *counters; /* PD_CHANGE_COUNT: [n] log2 of the decayed sum, see pd_counter_value() */
} pd_change_column;

typedef struct pd_change {
    pd_change_kind kind;
    uint64_t sequence; /* its place in the log of changes; over 0 */
    double time;       /* when it was made, days since 1970-01-01 */
    uint32_t n;
    const uint64_t *ids;  /* [n], distinct */
    const float *vectors; /* upsert: [n][dim]; normalised under cosine */
    uint32_t ncolumns;
    const pd_change_column *columns; /* distinct attributes */
} pd_change;

/* ---------------------------------------------------------------------------------------------------- encode --- */

typedef struct pd_encoded pd_encoded;
/* Of an upsert. device: assigns; not searched by another thread meanwhile. INVALID_ARGUMENT naming the row: a norm that
 * overflows, a value that the table's refine rows (u8, i8) cannot keep. RESOURCE_EXHAUSTED. */
pd_status pd_change_encode(const pd_version *version, pd_device *device, const pd_change *change,
                           pd_encoded **out, pd_error *err);
void pd_encoded_free(pd_encoded *encoded); /* NULL is allowed */

/* ----------------------------------------------------------------------------------------------------- stage --- */

typedef struct pd_staged pd_staged;
typedef struct pd_stage_counts {
    uint32_t changed; /* rows that the change touches */
    uint32_t fresh;   /* of these, ids that were not there */
    uint32_t crowded; /* it was refused, since no page is left for a list */
    uint32_t missing; /* ids of an update, delete or count that are not there; they are passed over */
} pd_stage_counts;

/* encoded: of an upsert, for the resident's version, else NULL; read until apply or drop. change likewise. A later change sees
 * what was staged before it. RESOURCE_EXHAUSTED: no memory, or no page is left for a list (crowded; the message says how many the table
 * was given, and that a rebuild makes room). */
pd_status pd_resident_stage(pd_resident *resident, const pd_change *change, const pd_encoded *encoded,
                            pd_staged **out, pd_stage_counts *counts, pd_error *err);
/* Takes back all that is staged and not applied, of this resident, and frees it: `staged` are all of them. */
void pd_staged_drop(pd_resident *resident, pd_staged **staged, uint32_t n);

/* ----------------------------------------------------------------------------------------------------- apply --- */

/* On the thread that searches, oldest first. Frees staged in any case. UNAVAILABLE: the device is lost. */
pd_status pd_resident_apply(pd_resident *resident, pd_staged *staged, pd_error *err);
/* The same in pieces of a fraction of a millisecond, so that searches can come between them: *over says whether this was the last one (or
 * failed); staged is freed then. A search between two pieces sees some rows of the change as they will be and others as they were,
 * each row whole; applied (below) moves with the last piece. Nothing of the resident is staged, dropped or applied meanwhile. */
pd_status pd_resident_apply_some(pd_resident *resident, pd_staged *staged, int *over, pd_error *err);

typedef struct pd_live_stats {
    uint64_t rows; /* now */
    uint64_t
        applied; /* the sequence of the last change applied; what the version was built with before any */
    uint64_t
        changed; /* rows written (upserted) or gone since the version was built, each counted once while it stays so; a row
                          that went and came back counts for both */
    uint32_t pages;      /* reserved beyond the version's */
    uint32_t pages_free; /* of these, in no list yet */
    double
        imbalance; /* nlist * sum(rows_l^2) / rows^2: 1 when lists are all alike; of the version when it was loaded
                          beside it: */
    double imbalance_built;
} pd_live_stats;
/* Any thread. */
void pd_resident_live(const pd_resident *resident, pd_live_stats *stats);
/* Says that everything up to sequence is in the resident, though nothing of it was for this table. Any thread. */
void pd_resident_reached(pd_resident *resident, uint64_t sequence);

/* While a plan is made of a resident's postings and histograms, by a thread that is not the executor: what it was handed stays
 * as it is until unlock. Short. */
void pd_resident_lock(const pd_resident *resident);
void pd_resident_unlock(const pd_resident *resident);

/* ---------------------------------------------------------------------------------------------------- counters --- */

/* A counter is a sum of weights that halve every half_life days, kept as log2(sum of weight * 2^(time / half_life)), so that
 * it needs no rewriting as time passes; minus infinity: nothing yet. What profiles weigh is the float column, counters as
 * they were worth at a moment: written with every count, and for all rows by pd_resident_recount. */
double pd_counter_add(double counter, double weight, double time, double half_life);
float pd_counter_value(double counter, double time, double half_life); /* 0 where nothing was counted */
/* The counter of a slot that holds a row or will, what is staged included, for the writer to add to. attribute: of the version's schema, a
 * number with feedback. */
double pd_resident_counter(const pd_resident *resident, const pd_attribute *attribute, uint32_t slot);
/* The slot as the writer sees it, what is staged included. PD_NO_SLOT. */
uint32_t pd_resident_staged_slot(const pd_resident *resident, uint64_t id);
/* On the thread that searches: the float and byte columns of the counters of pages first .. first + count - 1 as they are worth
 * at time. */
pd_status pd_resident_recount(pd_resident *resident, uint32_t first, uint32_t count, double time,
                              pd_error *err);

/* --------------------------------------------------------------------------------------------- what is there --- */

/* How rows that are not in the version's files are found, and how the resident is looked at while it serves. */
typedef struct pd_live_source {
    void *context;
    /* Runs fn on the thread that searches, between two searches, and waits for it. */
    pd_status (*on_executor)(void *context, pd_status (*fn)(void *argument, pd_error *err), void *argument,
                             pd_error *err);
    /* The source row at place `row` of the change `sequence`: vector [dim]. */
    pd_status (*source_row)(void *context, uint64_t sequence, uint32_t row, float *vector, pd_error *err);
} pd_live_source;

/* Exact search over what the table holds now, page by page as the stream passes: pd_version_exact() with changes. Any thread but the
 * one that searches. Rows written while the pages pass are looked at once more at the end, all at one moment: none is missed, and none
 * answered twice. One that goes meanwhile may be answered as it was. */
pd_status pd_resident_exact(pd_resident *resident, const pd_live_source *source, pd_device *device,
                            const pd_query *queries, uint32_t count, pd_answer *answers, pd_progress progress,
                            void *context, pd_error *err);

/* The rows that the table holds now, in slot order, some at a time: vectors [n][dim] of full precision, columns as pd_rows (bytes of
 * [n][nbytes] and so on), counters [n][numbers with feedback, in the schema's order]. Each piece is what the table held at one moment; pieces are not of the same moment, and changes made
 * meanwhile are in some of them: applying them again makes it whole. */
typedef pd_status (*pd_live_visit)(void *context, uint32_t n, const float *vectors, const uint64_t *ids,
                                   const uint8_t *bytes, const float *floats, const uint64_t *keys,
                                   const double *counters, pd_error *err);
pd_status pd_resident_stream(pd_resident *resident, const pd_live_source *source, pd_live_visit visit,
                             void *context, pd_progress progress, void *progress_context, pd_error *err);

#endif
