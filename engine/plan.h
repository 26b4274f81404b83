/* Planning: from what was asked to what the kernels do.
 *
 * Chooses, for each query, the path and the probes: IVF with nprobe (given, or from the calibration at the spread that
 * the weights make), extra rows from postings (boosted keys; rare values with heavy weights), rows only (a selective
 * filter: its matching rows are scored exactly), every row (attributes alone), or exact (source rows on disk).
 */
#ifndef PD_PLAN_H
#define PD_PLAN_H

#include "profile.h"
#include "resident.h"

typedef enum pd_path {
    PD_PATH_IVF = 0,        /* lists, and postings' rows besides */
    PD_PATH_ROWS = 1,       /* only the rows that a selective filter leaves */
    PD_PATH_ATTRIBUTES = 2, /* no vector: every row by its attributes */
    PD_PATH_EXACT = 3,      /* source rows on disk */
    PD_PATH_ALL = 4,        /* every list, or a table without lists */
} pd_path;
const char *pd_path_name(pd_path path); /* "ivf", "rows", "attributes", "exact", "all" */

typedef struct pd_want {
    uint32_t k;
    float recall;    /* 0: not asked for */
    uint32_t nprobe; /* 0: not asked for; neither: recall 0.95 */
    int exact;
    float min_score; /* -infinity: none */
} pd_want;

/* The plan shared by all queries of one compiled context. */
typedef struct pd_plan {
    pd_path path;
    uint32_t nprobe;
    uint32_t depth; /* candidates to re-score for want.k hits, see pd_query.depth */
    float spread;   /* estimated: sd of the weights / (a * sd of the similarity) */
    float recall; /* that the calibration promises; 0: none (given nprobe, not calibrated, under a filter) */
    uint32_t *slots; /* rows from postings, sorted; NULL: none */
    uint32_t nslots;
    char note
        [200]; /* a warning for the reply, "" when none: probes widened for a filter, target not reached ... */
} pd_plan;

/* INVALID_ARGUMENT: k 0 or over PD_MAX_K, recall outside (0, 1], recall and nprobe both. has_vector: 0 plans attributes
 * alone. Freed with pd_plan_free. */
pd_status pd_plan_make(const pd_resident *resident, const pd_compiled *compiled, const pd_want *want,
                       int has_vector, pd_plan *out, pd_error *err);
void pd_plan_free(pd_plan *plan);
/* What a query of this plan that asks for so many hits gives as its depth: calibrated where probes were, else 0. hits: up
 * to PD_MAX_DEPTH. */
uint32_t pd_plan_depth(const pd_resident *resident, const pd_plan *plan, uint32_t hits);

/* Applies diversity caps to hits in order: keeps at most cap.at_most of each value. In place; returns how many are left.
 * slots' columns come from gather. bytes: [n][nbytes], keys: [n][nkeys]. */
uint32_t pd_diversify(const pd_schema *schema, const pd_cap *caps, uint32_t ncaps, const uint8_t *bytes,
                      const uint64_t *keys, pd_hit *hits, uint32_t n);

#endif
