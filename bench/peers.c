/* A peer at every target: its grid is swept upwards with recall measured on the very queries that are timed, and the first
 * value that reaches a target is timed again, batch by batch, for as long as asked. */
#include <stdlib.h>
#include <string.h>

#include "bench.h"

typedef struct sweep {
    const bench_peer *peer;
    const bench_options *options;
    const bench_data *data;
    void *state;
    int64_t *ids; /* [nqueries][k] */
    char why[256];
} sweep;

static int pass(sweep *s, double *times, uint32_t *ntimes)
{
    const bench_data *d = s->data;
    *ntimes = 0;
    for (uint32_t at = 0; at < d->nqueries; at += s->options->batch) {
        uint32_t n = d->nqueries - at < s->options->batch ? d->nqueries - at : s->options->batch;
        double start = bench_now();
        if (s->peer->search(s->state, d->queries + (size_t)at * d->dim, n, d->k, s->ids + (size_t)at * d->k,
                            s->why, sizeof s->why))
            return 1;
        times[(*ntimes)++] = bench_now() - start;
    }
    return 0;
}

/* Passes until the asked seconds are over, at least 3: the median pass gives queries/s, all batches the percentiles. */
static int timed(sweep *s, bench_row *row)
{
    uint32_t batches = (s->data->nqueries + s->options->batch - 1) / s->options->batch, n = 0, passes = 0;
    double *times = malloc((size_t)batches * 64 * sizeof *times), totals[64], spent = 0;
    if (!times) return 1;
    while (passes < 64 && (passes < 3 || spent < s->options->seconds)) {
        uint32_t got;
        if (pass(s, times + n, &got)) {
            free(times);
            return 1;
        }
        totals[passes] = 0;
        for (uint32_t i = 0; i < got; i++)
            totals[passes] += times[n + i];
        spent += totals[passes++];
        n += got;
    }
    qsort(totals, passes, sizeof *totals, bench_compare_doubles);
    qsort(times, n, sizeof *times, bench_compare_doubles);
    row->qps = s->data->nqueries / totals[passes / 2];
    row->p50_us = 1e6 * times[n / 2];
    row->p99_us = 1e6 * times[(size_t)(0.99 * (n - 1))];
    free(times);
    return 0;
}

static int targets(sweep *s, bench_row *row, bench_report *report)
{
    const bench_options *o = s->options;
    uint32_t n, at = 0, done = 0;
    const uint32_t *grid = s->peer->grid(s->state, &n);
    double recall = -1, *times = malloc(((size_t)s->data->nqueries / o->batch + 1) * sizeof *times);
    if (!times) return 1;
    float order[BENCH_MAX_TARGETS];
    memcpy(order, o->recalls, sizeof order);
    for (uint32_t i = 1; i < o->nrecalls; i++)
        for (uint32_t j = i; j > 0 && order[j] < order[j - 1]; j--) {
            float swap = order[j];
            order[j] = order[j - 1];
            order[j - 1] = swap;
        }
    for (uint32_t t = 0; t < o->nrecalls; t++) {
        while ((recall < order[t] && done < n) || !done) {
            uint32_t got;
            at = done++;
            if (s->peer->set(s->state, grid[at], s->why, sizeof s->why) || pass(s, times, &got)) goto failed;
            recall = bench_recall(s->data, s->data->truth, s->ids, s->data->k);
        }
        char setting[48];
        snprintf(setting, sizeof setting, "%s %u", s->peer->parameter, grid[at]);
        row->setting = setting;
        row->target = order[t];
        row->recall = recall;
        row->reached = recall >= order[t];
        if (timed(s, row)) goto failed;
        bench_report_row(report, row);
    }
    free(times);
    return 0;
failed:
    free(times);
    return 1;
}

pd_status bench_peer_run(const bench_peer *peer, const bench_options *options, const bench_data *data,
                         bench_report *report, pd_error *err)
{
    sweep s = {.peer = peer, .options = options, .data = data};
    pd_status status = PD_OK;
    s.ids = malloc((size_t)data->nqueries * data->k * sizeof *s.ids);
    if (!s.ids) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %s's answers", peer->name);
    uint64_t before = bench_heap();
    double start = bench_now();
    if (peer->build(data, options->threads, options->nlist, options->seed, &s.state, s.why, sizeof s.why)) {
        status = pd_fail(err, PD_INTERNAL, "%s: %s", peer->name, s.why);
        goto done;
    }
    bench_row row = {.system = peer->name, .fused_recall = -1, .scanned = -1, .build_s = bench_now() - start};
    row.bytes_per_row = (double)(bench_heap() - before) / (double)(data->rows ? data->rows : 1);
    bench_report_title(report, "%s: %s", peer->name, peer->about);
    if (targets(&s, &row, report)) status = pd_fail(err, PD_INTERNAL, "%s: %s", peer->name, s.why);
    peer->close(s.state);
done:
    free(s.ids);
    return status;
}
