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
    /* What the queries ask for besides their vectors: one for all, or one a query. */
    pd_compiled *compiled;
    uint32_t ncompiled;
    int fused;       /* weights or filters are at work: truth is of the fused score */
    uint32_t *by_id; /* [rows] row numbers in the order of their ids; NULL without ids */
    double build_s, calibrate_s, truth_s;
    char isa[48];
};

/* A reusable set of queries with room for their answers. */
typedef struct bench_ask {
    uint32_t count, k;
    pd_query *queries;
    pd_answer *answers;
    pd_hit *hits;
    pd_plan *plans;
    uint32_t nplans;
} bench_ask;

/* plain: similarity alone, whatever the bench's context is. recall 0: no plan (exact search). */
pd_status bench_ask_open(bench_pados *pados, uint32_t count, uint32_t k, float recall, int plain,
                         bench_ask *out, pd_error *err);
void bench_ask_close(bench_ask *ask);
/* Searches all of it in batches. times: one a batch, [count / batch + 1]; NULL: not wanted. */
pd_status bench_ask_search(bench_pados *pados, bench_ask *ask, uint32_t batch, double *times,
                           uint32_t *ntimes, pd_error *err);
/* The hits' ids as rows, -1 past the end: [count][k]. */
void bench_ask_ids(const bench_pados *pados, const bench_ask *ask, int64_t *ids);
/* The row number of a row id. */
int64_t bench_row_of(const bench_pados *pados, uint64_t id);
double bench_ask_scanned(const bench_ask *ask); /* rows a query */
/* Exact top-k of the first count queries: [count][k], -1 past the end. Freed by the caller. */
pd_status bench_exact(bench_pados *pados, uint32_t count, int plain, int64_t **out, pd_error *err);
/* Passes of bench_ask_search until the asked seconds are over (at least 3): fills qps and percentiles. */
pd_status bench_ask_time(bench_pados *pados, bench_ask *ask, bench_row *row, pd_error *err);

/* The table's attributes: files made or named, read by the build. */
pd_status bench_attributes(bench_pados *pados, const uint32_t *row_list, char *path, size_t room,
                           pd_error *err);
/* Compiles what each query asks for, once the table stands. */
pd_status bench_compile(bench_pados *pados, pd_error *err);

#endif
