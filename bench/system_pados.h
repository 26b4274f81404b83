/* What the Pados side of the bench shares between its files. */
#ifndef BENCH_PADOS_H
#define BENCH_PADOS_H

#include "bench.h"
#include "build.h"
#include "calibrate.h"
#include "plan.h"
#include "profile.h"
#include "resident.h"
#include "version.h"

#define BENCH_MAX_DEPTH 10000u /* of over-fetching */

/* What the queries ask for besides their vectors, and the exact answers to that. */
typedef struct bench_context {
    float spread; /* negative: a profile's */
    pd_compiled *compiled;
    uint32_t ncompiled; /* one for all queries, or one a query */
    int64_t *truth;     /* [nqueries][k] */
} bench_context;

/* Queries as the backend takes them, planned once. */
typedef struct bench_ask {
    const bench_context *context; /* NULL: similarity alone */
    uint32_t count, k;            /* k: what is fetched */
    pd_query *queries;            /* [count] */
    pd_plan *plans;
    uint32_t nplans;
    double plan_s; /* of planning one query */
} bench_ask;

/* One batch on its way: copies of its queries, room for its answers. */
typedef struct bench_batch {
    uint32_t size, first, of; /* query i of the batch is the ask's number (first + i) % of */
    pd_query *queries;
    pd_answer *answers;
    pd_hit *hits;
} bench_batch;

/* Something to be measured in every round. */
typedef struct bench_case {
    bench_row row; /* all but the timings, once it is prepared */
    char system[40], setting[48];
    bench_ask *ask; /* several cases (batch sizes) may share one */
    int rerank;     /* weights are added to what was fetched, and it is sorted: over-fetching */
    uint32_t at;    /* the next query in rotation */
    double qps[BENCH_MAX_ROUNDS], p50_us[BENCH_MAX_ROUNDS], p99_us[BENCH_MAX_ROUNDS];
    double coarse_us[BENCH_MAX_ROUNDS], scan_us[BENCH_MAX_ROUNDS], refine_us[BENCH_MAX_ROUNDS];
} bench_case;

#define BENCH_MAX_ASKS  ((BENCH_MAX_SPREADS + 1) * (BENCH_MAX_TARGETS + 4))
#define BENCH_MAX_CASES (BENCH_MAX_ASKS * BENCH_MAX_BATCHES)

struct bench_pados {
    const bench_options *options;
    bench_data *data;
    char folder[256];   /* version files */
    int own_folder;     /* made here, removed at the end */
    pd_device *builder; /* assigns, computes truths */
    pd_device *device;
    pd_schema *schema;
    pd_version *version;
    pd_resident *resident;
    pd_profile *profile;
    bench_context contexts[BENCH_MAX_SPREADS];
    uint32_t ncontexts;
    bench_ask *asks[BENCH_MAX_ASKS];
    uint32_t nasks;
    bench_case *cases[BENCH_MAX_CASES];
    uint32_t ncases;
    uint32_t *by_id; /* [rows] row numbers in the order of their ids; NULL without ids */
    double build_s, calibrate_s, truth_s;
    char isa[48];
};

/* context NULL: similarity alone. recall 0: no plan (exact search, or the caller sets the probes). */
pd_status bench_ask_open(bench_pados *pados, const bench_context *context, uint32_t count, uint32_t k,
                         float recall, bench_ask **out, pd_error *err);
void bench_ask_close(bench_ask *ask);          /* NULL is allowed */
double bench_ask_nprobe(const bench_ask *ask); /* mean of the queries */

pd_status bench_batch_open(const bench_ask *ask, uint32_t size, bench_batch *out, pd_error *err);
/* Queries first, first + 1, ... in rotation; n <= the size it was opened with. */
void bench_batch_fill(bench_batch *batch, const bench_ask *ask, uint32_t first, uint32_t n);
void bench_batch_close(bench_batch *batch);
/* The k best hits' ids as rows, -1 past the end: [size][k]. */
void bench_batch_rows(const bench_pados *pados, const bench_batch *batch, uint32_t k, int64_t *rows);

/* The row number of a row id. */
int64_t bench_row_of(const bench_pados *pados, uint64_t id);
/* Exact top-k of all queries: [nqueries][k], -1 past the end. Freed by the caller. */
pd_status bench_exact(bench_pados *pados, const bench_context *context, int64_t **out, pd_error *err);

/* The table's attributes: files made or named, read by the build. */
pd_status bench_attributes(bench_pados *pados, const uint32_t *row_list, char *path, size_t room,
                           pd_error *err);
/* Fills contexts with what each query asks for, once the table stands, and their exact answers. */
pd_status bench_contexts_open(bench_pados *pados, pd_error *err);
void bench_contexts_close(bench_pados *pados);
/* Adds each query's weights to its hits and sorts them: what a caller without a fused scan does. */
pd_status bench_rerank(bench_pados *pados, const bench_context *context, bench_batch *batch, pd_error *err);

/* Where the build's attribute bytes come from again: [rows][nbytes] in row order. Freed by the caller. */
pd_status bench_row_bytes(bench_pados *pados, uint8_t **out, pd_error *err);

#endif
