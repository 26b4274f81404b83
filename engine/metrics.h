/* What the process counts, and how /metrics tells it (Prometheus text format 0.0.4). Counters are atomic and never locked. */
#ifndef PD_METRICS_H
#define PD_METRICS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* A growing text. Once memory is short it stays as it is and failed is set. */
typedef struct pd_text {
    char *bytes; /* terminated; NULL while empty. The owner frees it */
    size_t length, room;
    int failed;
} pd_text;
void pd_text_add(pd_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

typedef enum pd_stage {
    PD_STAGE_DECODE,
    PD_STAGE_QUEUE,
    PD_STAGE_RESOLVE,
    PD_STAGE_COARSE,
    PD_STAGE_SCAN,
    PD_STAGE_REFINE,
    PD_STAGE_FINISH,
    PD_STAGE_ENCODE,
    PD_STAGE_TOTAL,
    PD_STAGES
} pd_stage;

/* Why a request was turned away before any search. */
typedef enum pd_reject {
    PD_REJECT_QUEUE,     /* the queue is full */
    PD_REJECT_MEMORY,    /* waiting requests hold too much memory */
    PD_REJECT_PIPE,      /* too many in flight from one connection */
    PD_REJECT_TOKEN,     /* no valid token */
    PD_REJECT_MALFORMED, /* not a Request, or one that unpacks to too much */
    PD_REJECT_STOPPING,
    PD_REJECTS
} pd_reject;

typedef enum pd_reload_result { PD_RELOAD_DONE, PD_RELOAD_REFUSED, PD_RELOADS } pd_reload_result;

#define PD_HISTOGRAM_BOUNDS 16
typedef struct pd_histogram {
    atomic_uint_fast64_t counts[PD_HISTOGRAM_BOUNDS + 1]; /* the last: above every bound */
    atomic_uint_fast64_t sum;
} pd_histogram;

typedef enum pd_port { PD_PORT_DATA, PD_PORT_ADMIN, PD_PORTS } pd_port;

typedef struct pd_metrics {
    atomic_uint_fast64_t requests[PD_PORTS][17]; /* by status */
    atomic_uint_fast64_t queries, hits, scanned;
    atomic_uint_fast64_t rejected[PD_REJECTS];
    pd_histogram stages[PD_STAGES]; /* microseconds, a search each */
    pd_histogram batches;           /* queries of a slice */
    atomic_uint_fast64_t slices, background_slices;
    atomic_uint_fast64_t pipes[PD_PORTS];        /* open connections */
    atomic_uint_fast64_t pipes_closed[PD_PORTS]; /* by the server: replies not read, or too many in flight */
    atomic_uint_fast64_t bytes_in[PD_PORTS], bytes_out[PD_PORTS];
    atomic_uint_fast64_t rungs[4];            /* queries by fallback rung */
    atomic_uint_fast64_t reloads[PD_RELOADS]; /* of the configuration */
    pd_histogram write_time;                  /* microseconds, a batch of changes each, to its answer */
    atomic_uint_fast64_t written_rows;
} pd_metrics;

void pd_count(atomic_uint_fast64_t *counter, uint64_t more);
void pd_observe_us(pd_histogram *histogram, uint64_t us);
void pd_observe_size(pd_histogram *histogram, uint64_t size);

/* The counters above, and the process's memory. */
void pd_metrics_text(pd_metrics *metrics, pd_text *text);

#endif
