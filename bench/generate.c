/* The rows and queries of pados-bench --generate, made on every processor of the host (law.h tells what they are). */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "calibrate.h"
#include "law.h"

typedef struct share {
    pthread_t thread;
    const law *law;
    uint64_t stream, first, end;
    float *noise; /* [dim] */
    float *rows;  /* of the whole stream: [..][dim] */
} share;

static void *work(void *context)
{
    share *s = context;
    for (uint64_t i = s->first; i < s->end; i++)
        law_row(s->law, s->stream, i, s->noise, s->rows + i * s->law->dim);
    return NULL;
}

/* Rows 0..n-1 of a stream, on threads: [n][dim], freed by the caller. */
static pd_status make(const law *l, uint64_t stream, uint64_t n, uint32_t threads, float **out, pd_error *err)
{
    if (threads > n) threads = (uint32_t)n;
    float *rows = malloc(n * l->dim * sizeof *rows),
          *noise = malloc((size_t)threads * l->dim * sizeof *noise);
    share *shares = calloc(threads, sizeof *shares);
    pd_status status = PD_OK;
    if (!rows || !noise || !shares)
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %llu x %u generated values",
                         (unsigned long long)n, l->dim);
    uint32_t started = 0;
    for (; !status && started < threads; started++) {
        shares[started] = (share){.law = l,
                                  .stream = stream,
                                  .first = n * started / threads,
                                  .end = n * (started + 1) / threads,
                                  .noise = noise + (size_t)started * l->dim,
                                  .rows = rows};
        if (pthread_create(&shares[started].thread, NULL, work, &shares[started])) {
            status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "a thread to generate rows could not be started");
            break;
        }
    }
    for (uint32_t t = 0; t < started; t++)
        pthread_join(shares[t].thread, NULL);
    free(shares);
    free(noise);
    if (status)
        free(rows);
    else
        *out = rows;
    return status;
}

pd_status bench_generate(const bench_options *o, bench_data *data, pd_error *err)
{
    law l;
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    uint32_t threads = processors > 0 ? (uint32_t)processors : 1;
    uint32_t measured = o->queries ? o->queries : BENCH_GENERATED_QUERIES;
    pd_status status = law_open(o->generate_seed, o->generate_dim, &l, err);
    if (status) return status;
    data->rows = o->generate_rows;
    data->dim = o->generate_dim;
    data->nqueries = measured;
    data->ncalibration = PD_CALIBRATION_QUERIES;
    snprintf(data->calibration_name, sizeof data->calibration_name, "%u queries of the same law",
             data->ncalibration);
    status = make(&l, LAW_ROWS, data->rows, threads, &data->base, err);
    if (!status) status = make(&l, LAW_QUERIES, measured, threads, &data->queries, err);
    if (!status) status = make(&l, LAW_CALIBRATION, data->ncalibration, threads, &data->calibration, err);
    law_close(&l);
    return status;
}
