/* pados-bench: recall against throughput, for Pados, on data that a file or the generator gives.
 *
 * The table is built once and asked for every recall target (its own promise chooses nprobe, from queries that are not
 * measured), at every batch size, for similarity and for every spread of context weights: each combination is a case. Cases
 * are measured in rounds, all of them once a round, so that a slow minute of the machine falls on all alike; a case's figure
 * is the median of its rounds. With --turns each round waits for a line on stdin: bench/compare.py gives turns to this program
 * and to the peers (bench/peers.py), which read the same rows, queries and truth from the folder that --export fills.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdint.h>
#include <stdio.h>

#include "backend.h"
#include "reader.h"
#include "schema.h"
#include "status.h"

#define BENCH_MAX_TARGETS       16
#define BENCH_MAX_BATCHES       8
#define BENCH_MAX_SPREADS       8
#define BENCH_MAX_ROUNDS        99
#define BENCH_GENERATED_QUERIES 5000u

typedef struct bench_options {
    const char *base, *query, *truth, *calibration, *ids;
    const char *base_format;
    const char *dataset;    /* name in reports; NULL: the base file's */
    uint64_t generate_rows; /* --generate ROWSxDIM[:SEED] instead of files; 0: files */
    uint32_t generate_dim;
    uint64_t generate_seed;
    pd_metric metric;
    uint32_t k, threads, build_threads, nlist, code_dim, queries; /* queries: at most; 0: all */
    uint32_t batches[BENCH_MAX_BATCHES], nbatches;
    uint32_t fused_batches[BENCH_MAX_BATCHES], nfused_batches; /* with context; 0: as batches */
    const char *backend, *isa, *code, *refine;
    float recalls[BENCH_MAX_TARGETS];
    uint32_t nrecalls;
    const char *attributes, *schema, *profile, *contexts;
    uint32_t fused_attributes, fused_values; /* --fused FxV:SPREAD,...[:TIE] */
    float fused_spreads[BENCH_MAX_SPREADS], fused_tie;
    uint32_t nspreads;
    const char *json;   /* path; NULL: none */
    const char *export; /* folder for what peers read; NULL: none */
    uint64_t seed;
    double seconds; /* a case is timed for at least this long a round */
    uint32_t rounds;
    int turns;        /* each round waits for a line on stdin */
    const char *work; /* folder for the version files; NULL: a temporary one */
    int check;        /* results must not depend on batch size or threads: say so, exit 1 otherwise */
    int ceilings;     /* measure the machine's ceilings too */
    int plan;         /* print what memory such a table takes, and nothing else */
} bench_options;

/* Parses argv; prints help and exits where asked. INVALID_ARGUMENT naming the argument. */
pd_status bench_options_parse(int argc, char **argv, bench_options *options, pd_error *err);
/* Prints bytes a row and rows a card of the table that the options describe. INVALID_ARGUMENT. */
pd_status bench_plan(const bench_options *options, pd_error *err);

typedef struct bench_data {
    char name[64];
    pd_metric metric;
    uint64_t rows;
    uint32_t dim, k;
    pd_dtype dtype; /* of the base file: rows of i8 or u8 are kept as such where a push of it would */
    float *base;    /* [rows][dim], normalised for cosine; NULL once built, unless they are exported */
    uint64_t *ids;  /* [rows]; NULL: 0..rows-1 */
    uint32_t nqueries;
    float *queries; /* [nqueries][dim], normalised for cosine */
    uint32_t ncalibration;
    float *calibration; /* [ncalibration][dim]: unseen by the measurement */
    char calibration_name[96];
    int64_t *truth; /* [nqueries][k] row numbers, -1 past the end; NULL until known */
} bench_data;

/* Reads or generates base and queries; splits off the calibration queries. */
pd_status bench_data_open(const bench_options *options, bench_data *data, pd_error *err);
/* Fills rows, queries and calibration queries by the law of law.h, before any normalisation. */
pd_status bench_generate(const bench_options *options, bench_data *data, pd_error *err);
/* The truth file's first nqueries rows, where one is given. */
pd_status bench_truth_read(const bench_options *options, bench_data *data, pd_error *err);
void bench_data_close(bench_data *data);

/* Mean share of truth that is in got: [nqueries][k] each; -1 stands for nothing. */
double bench_recall(const bench_data *data, const int64_t *truth, const int64_t *got, uint32_t k);

/* One line of the report: a case in one round (JSON), or the median of its rounds (the table). Negative: not known. */
typedef struct bench_row {
    const char *system;  /* "pados", "pados-overfetch-100", ... */
    const char *setting; /* "nprobe 12" */
    uint32_t batch, nlist, code_dim;
    const char *refine;
    double nprobe; /* mean of the queries */
    float target;  /* 0: none */
    float spread;  /* of the context weights; negative: similarity alone, or a profile */
    double recall, fused_recall;
    double qps, p50_us, p99_us;           /* p50, p99: of whole batches */
    double scanned;                       /* rows looked at a query */
    double plan_us;                       /* of planning, a query; part of qps */
    double coarse_us, scan_us, refine_us; /* of the backend's stages, a query */
    double build_s, bytes_per_row;
    int reached;
} bench_row;

typedef struct bench_report bench_report;
pd_status bench_report_open(const bench_options *options, bench_report **out, pd_error *err);
/* data and isa are of the rows that follow; borrowed until close. */
void bench_report_subject(bench_report *report, const bench_data *data, const char *isa);
void bench_report_title(bench_report *report, const char *format, ...) __attribute__((format(printf, 2, 3)));
void bench_report_row(bench_report *report, const bench_row *row);
void bench_report_json(bench_report *report, const bench_row *row, uint32_t round);
/* A ceiling of the machine: what is measured, how, on how many threads, and how much of unit. */
void bench_report_ceiling(bench_report *report, const char *what, const char *how, uint32_t threads,
                          double value, const char *unit);
/* DATA_LOSS when the file could not be written */
pd_status bench_report_close(bench_report *report, pd_error *err);

/* Seconds on the monotonic clock. */
double bench_now(void);
int bench_compare_doubles(const void *a, const void *b);
double bench_median(const double *values, uint32_t n); /* n >= 1 */

/* The first threads processors that this process may use; every thread started afterwards stays on them. */
pd_status bench_pin(uint32_t threads, pd_error *err);

/* Read bandwidth of memory and of the second-level cache, multiply-adds a second in registers: on one thread and on all. */
pd_status bench_ceilings(bench_report *report, pd_error *err);

typedef struct bench_pados bench_pados;
/* Builds, loads and calibrates. The exact truth is computed where data has none. */
pd_status bench_pados_open(const bench_options *options, bench_data *data, bench_pados **out, pd_error *err);
const char *bench_pados_isa(const bench_pados *pados);
/* Cases for similarity alone and for every context. */
pd_status bench_pados_prepare(bench_pados *pados, pd_error *err);
/* All rounds, then the table of medians. */
pd_status bench_pados_measure(bench_pados *pados, bench_report *report, pd_error *err);
/* What a peer needs: base.fbin, query.fbin, calibration.fbin, truth.npy, meta.json; with contexts the attributes' bytes, and
 * each context's weights and exact answers. Rows and queries are as measured (normalised for cosine). */
pd_status bench_pados_export(bench_pados *pados, const char *folder, pd_error *err);
/* Same hits at batch sizes 1, 7 and the whole, one thread and two. INTERNAL naming the first query that differs. */
pd_status bench_pados_check(bench_pados *pados, pd_error *err);
void bench_pados_close(bench_pados *pados);

#endif
