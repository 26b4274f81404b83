/* Queries and their answers: planned once, searched in batches, timed. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "system_pados.h"

static pd_status plan(bench_pados *p, bench_ask *ask, float recall, int plain, pd_error *err)
{
    static const pd_compiled nothing = {.similarity = 1};
    pd_want want = {.k = ask->k, .recall = recall, .min_score = -INFINITY};
    uint32_t n = plain || p->ncompiled < 2 ? 1 : ask->count;
    ask->plans = calloc(n, sizeof *ask->plans);
    if (!ask->plans) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the plans");
    for (uint32_t i = 0; i < n; i++) {
        pd_status status =
            pd_plan_make(p->resident, plain ? &nothing : &p->compiled[i], &want, 1, &ask->plans[i], err);
        if (status) return status;
        ask->nplans = i + 1;
    }
    return PD_OK;
}

pd_status bench_ask_open(bench_pados *p, uint32_t count, uint32_t k, float recall, int plain, bench_ask *out,
                         pd_error *err)
{
    bench_ask ask = {.count = count, .k = k};
    pd_status status = PD_OK;
    ask.queries = calloc(count, sizeof *ask.queries);
    ask.answers = calloc(count, sizeof *ask.answers);
    ask.hits = malloc((size_t)count * k * sizeof *ask.hits);
    if (!ask.queries || !ask.answers || !ask.hits)
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u queries", count);
    if (!status && recall > 0) status = plan(p, &ask, recall, plain, err);
    if (status) {
        bench_ask_close(&ask);
        return status;
    }
    for (uint32_t q = 0; q < count; q++) {
        pd_query *query = &ask.queries[q];
        *query = (pd_query){.vector = p->data->queries + (size_t)q * p->data->dim,
                            .similarity = 1,
                            .k = k,
                            .min_score = -INFINITY};
        if (!plain && p->ncompiled) {
            const pd_compiled *c = &p->compiled[p->ncompiled > 1 ? q : 0];
            query->similarity = c->similarity;
            query->weights = c->weights;
            query->key_weights = c->key_weights;
            query->nkey_weights = c->nkey_weights;
            query->filter = c->has_filter ? &c->filter : NULL;
        }
        if (ask.nplans) {
            const pd_plan *chosen = &ask.plans[ask.nplans > 1 ? q : 0];
            query->nprobe = chosen->nprobe;
            query->slots = chosen->slots;
            query->nslots = chosen->nslots;
        }
        ask.answers[q].hits = ask.hits + (size_t)q * k;
    }
    *out = ask;
    return PD_OK;
}

void bench_ask_close(bench_ask *ask)
{
    for (uint32_t i = 0; i < ask->nplans; i++)
        pd_plan_free(&ask->plans[i]);
    free(ask->plans);
    free(ask->queries);
    free(ask->answers);
    free(ask->hits);
    *ask = (bench_ask){0};
}

pd_status bench_ask_search(bench_pados *p, bench_ask *ask, uint32_t batch, double *times, uint32_t *ntimes,
                           pd_error *err)
{
    uint32_t n = 0;
    for (uint32_t at = 0; at < ask->count;) {
        uint32_t now = ask->count - at < batch ? ask->count - at : batch;
        double start = bench_now();
        /* A batch over the backend's bound goes in as many calls as it takes, timed as one. */
        for (uint32_t done = 0; done < now;) {
            uint32_t part = now - done < PD_MAX_QUERIES ? now - done : PD_MAX_QUERIES;
            pd_status status = pd_index_search(pd_resident_index(p->resident), ask->queries + at + done, part,
                                               ask->answers + at + done, NULL, err);
            if (status) return status;
            done += part;
        }
        if (times) times[n++] = bench_now() - start;
        at += now;
    }
    if (ntimes) *ntimes = n;
    return PD_OK;
}

int64_t bench_row_of(const bench_pados *p, uint64_t id)
{
    if (!p->data->ids) return (int64_t)id;
    uint64_t low = 0, high = p->data->rows;
    while (low + 1 < high) {
        uint64_t middle = low + (high - low) / 2;
        if (p->data->ids[p->by_id[middle]] <= id)
            low = middle;
        else
            high = middle;
    }
    return p->by_id[low];
}

void bench_ask_ids(const bench_pados *p, const bench_ask *ask, int64_t *ids)
{
    for (uint32_t q = 0; q < ask->count; q++)
        for (uint32_t i = 0; i < ask->k; i++)
            ids[(size_t)q * ask->k + i] =
                i < ask->answers[q].count ? bench_row_of(p, ask->answers[q].hits[i].id) : -1;
}

double bench_ask_scanned(const bench_ask *ask)
{
    uint64_t all = 0;
    for (uint32_t q = 0; q < ask->count; q++)
        all += ask->answers[q].scanned;
    return (double)all / ask->count;
}

pd_status bench_exact(bench_pados *p, uint32_t count, int plain, int64_t **out, pd_error *err)
{
    bench_ask ask;
    pd_status status = bench_ask_open(p, count, p->data->k, 0, plain, &ask, err);
    if (status) return status;
    int64_t *ids = malloc((size_t)count * p->data->k * sizeof *ids);
    if (!ids) status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the truth");
    for (uint32_t at = 0; !status && at < count; at += PD_MAX_QUERIES) {
        uint32_t n = count - at < PD_MAX_QUERIES ? count - at : PD_MAX_QUERIES;
        status =
            pd_version_exact(p->version, p->builder, ask.queries + at, n, ask.answers + at, NULL, NULL, err);
    }
    if (status) {
        free(ids);
    } else {
        bench_ask_ids(p, &ask, ids);
        *out = ids;
    }
    bench_ask_close(&ask);
    return status;
}

pd_status bench_ask_time(bench_pados *p, bench_ask *ask, bench_row *row, pd_error *err)
{
    uint32_t batches = (ask->count + p->options->batch - 1) / p->options->batch, n = 0, passes = 0;
    double *times = malloc((size_t)batches * 65 * sizeof *times), totals[64], spent = 0;
    if (!times) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the times");
    /* One pass warms caches and scratch memory, as the peers' sweep does for them. */
    pd_status status = bench_ask_search(p, ask, p->options->batch, NULL, NULL, err);
    while (!status && passes < 64 && (passes < 3 || spent < p->options->seconds)) {
        uint32_t got = 0;
        status = bench_ask_search(p, ask, p->options->batch, times + n, &got, err);
        totals[passes] = 0;
        for (uint32_t i = 0; i < got; i++)
            totals[passes] += times[n + i];
        spent += totals[passes++];
        n += got;
    }
    if (!status) {
        qsort(totals, passes, sizeof *totals, bench_compare_doubles);
        qsort(times, n, sizeof *times, bench_compare_doubles);
        row->qps = ask->count / totals[passes / 2];
        row->p50_us = 1e6 * times[n / 2];
        row->p99_us = 1e6 * times[(size_t)(0.99 * (n - 1))];
    }
    free(times);
    return status;
}
