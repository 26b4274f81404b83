/* pados-bench: recall against throughput, for Pados and its peers, on the same data, truth, batches and threads.
 *
 * A system is built once, then asked for each recall target. Pados is asked for recall (its own promise chooses nprobe);
 * a peer is swept over its one search parameter and the smallest value that reaches the target on these very queries is
 * timed: a peer is tuned on the test, Pados is not. Where a system cannot reach a target, its best is shown and marked.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdint.h>
#include <stdio.h>

#include "backend.h"
#include "reader.h"
#include "schema.h"
#include "status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define BENCH_MAX_TARGETS 16
#define BENCH_MAX_PEERS   16

typedef struct bench_options {
    const char *base, *query, *truth, *calibration, *ids;
    const char *base_format;
    const char *dataset; /* name in reports; NULL: the base file's */
    pd_metric metric;
    uint32_t k, batch, threads, nlist, queries; /* queries: at most; 0: all */
    const char *backend, *isa, *code, *refine;
    float recalls[BENCH_MAX_TARGETS];
    uint32_t nrecalls;
    const char *attributes, *schema, *profile, *contexts;
    uint32_t fused_attributes, fused_values; /* --fused FxV:SPREAD[:TIE] */
    float fused_spread, fused_tie;
    const char *peers[BENCH_MAX_PEERS];
    uint32_t npeers;
    const char *json; /* path; NULL: none */
    uint64_t seed;
    double seconds;   /* timed for at least this long */
    const char *work; /* folder for the version files; NULL: a temporary one */
    int check;        /* results must not depend on batch size or threads: say so, exit 1 otherwise */
} bench_options;

/* Parses argv; prints help and exits where asked. INVALID_ARGUMENT naming the argument. */
pd_status bench_options_parse(int argc, char **argv, bench_options *options, pd_error *err);

typedef struct bench_data {
    char name[64];
    pd_metric metric;
    uint64_t rows;
    uint32_t dim, k;
    float *base;   /* [rows][dim], normalised for cosine */
    uint64_t *ids; /* [rows]; NULL: 0..rows-1 */
    uint32_t nqueries;
    float *queries; /* [nqueries][dim], normalised for cosine */
    uint32_t ncalibration;
    float *calibration; /* [ncalibration][dim]: unseen by the measurement */
    char calibration_name[96];
    int64_t *truth; /* [nqueries][k] row numbers, -1 past the end; NULL until known */
} bench_data;

/* Reads base and queries; splits off the calibration queries. */
pd_status bench_data_open(const bench_options *options, bench_data *data, pd_error *err);
/* The truth file's first nqueries rows, where one is given. */
pd_status bench_truth_read(const bench_options *options, bench_data *data, pd_error *err);
void bench_data_close(bench_data *data);

/* Mean share of truth that is in got: [nqueries][k] each; -1 stands for nothing. */
double bench_recall(const bench_data *data, const int64_t *truth, const int64_t *got, uint32_t k);

typedef struct bench_row {
    const char *system;          /* "pados", "faiss-ivf", ... */
    const char *setting;         /* "nprobe 12", "efSearch 64" */
    float target;                /* 0: none */
    double recall, fused_recall; /* negative: not measured */
    double qps, p50_us, p99_us, build_s, bytes_per_row;
    double scanned; /* rows looked at a query; negative: not known */
    int reached;
} bench_row;

/* Prints for people, and one JSON object a line to the file. */
typedef struct bench_report bench_report;
pd_status bench_report_open(const bench_options *options, const bench_data *data, const char *isa,
                            bench_report **out, pd_error *err);
void bench_report_title(bench_report *report, const char *format, ...) __attribute__((format(printf, 2, 3)));
void bench_report_row(bench_report *report, const bench_row *row);
pd_status bench_report_close(bench_report *report,
                             pd_error *err); /* DATA_LOSS when the file could not be written */

/* Seconds on the monotonic clock; bytes that malloc holds. */
double bench_now(void);
uint64_t bench_heap(void);
int bench_compare_doubles(const void *a, const void *b);

/* ------------------------------------------------------------------------------------------------- peers --- */

/* One search parameter (nprobe, efSearch), a growing grid of values. Functions return 0, or not and a sentence in why. */
typedef struct bench_peer {
    const char *name;
    const char *parameter;
    const char *about; /* version, build, configuration: stated in the report */
    int (*build)(const bench_data *data, uint32_t threads, uint32_t nlist, uint64_t seed, void **state,
                 char *why, size_t room);
    /* The grid: [*n], ascending. */
    const uint32_t *(*grid)(void *state, uint32_t *n);
    int (*set)(void *state, uint32_t value, char *why, size_t room);
    /* ids: [count][k], -1 past the end. */
    int (*search)(void *state, const float *queries, uint32_t count, uint32_t k, int64_t *ids, char *why,
                  size_t room);
    void (*close)(void *state);
} bench_peer;
extern const bench_peer bench_faiss_ivf, bench_faiss_ivfsq8, bench_faiss_hnsw, bench_hnswlib;

/* Measures one peer at every target. */
pd_status bench_peer_run(const bench_peer *peer, const bench_options *options, const bench_data *data,
                         bench_report *report, pd_error *err);

/* ------------------------------------------------------------------------------------------------- pados --- */

typedef struct bench_pados bench_pados;
/* Builds, loads and calibrates. The exact truth is computed where data has none. */
pd_status bench_pados_open(const bench_options *options, bench_data *data, bench_pados **out, pd_error *err);
const char *bench_pados_isa(const bench_pados *pados);
pd_status bench_pados_run(bench_pados *pados, bench_report *report, pd_error *err);
/* Fused: the exact fused top-k, Pados at every target, and over-fetching with re-ranking. */
pd_status bench_fused_run(bench_pados *pados, bench_report *report, pd_error *err);
/* Same hits at batch sizes 1, 7 and the whole, one thread and two. INTERNAL naming the first query that differs. */
pd_status bench_pados_check(bench_pados *pados, bench_report *report, pd_error *err);
void bench_pados_close(bench_pados *pados);

#ifdef __cplusplus
}
#endif

#endif
