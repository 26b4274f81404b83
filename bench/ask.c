/* Queries and their answers: planned once, searched in batches, compared with the truth. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "system_pados.h"

static pd_status plan(bench_pados *p, bench_ask *ask, float recall, pd_error *err)
{
    static const pd_compiled nothing = {.similarity = 1};
    pd_want want = {.k = ask->k, .recall = recall, .min_score = -INFINITY};
    const bench_context *c = ask->context;
    uint32_t n = !c || c->ncompiled < 2 ? 1 : ask->count;
    ask->plans = calloc(n, sizeof *ask->plans);
    if (!ask->plans) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the plans");
    double start = bench_now();
    for (uint32_t i = 0; i < n; i++) {
        pd_status status =
            pd_plan_make(p->resident, c ? &c->compiled[i] : &nothing, &want, 1, &ask->plans[i], err);
        if (status) return status;
        ask->nplans = i + 1;
    }
    /* One plan for all queries is made once a request: it costs a query nothing that can be told. */
    ask->plan_s = n > 1 ? (bench_now() - start) / n : 0;
    return PD_OK;
}

pd_status bench_ask_open(bench_pados *p, const bench_context *context, uint32_t count, uint32_t k,
                         float recall, bench_ask **out, pd_error *err)
{
    bench_ask *ask = calloc(1, sizeof *ask);
    if (ask) *ask = (bench_ask){.context = context, .count = count, .k = k};
    if (ask) ask->queries = calloc(count, sizeof *ask->queries);
    pd_status status = PD_OK;
    if (!ask || !ask->queries)
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u queries", count);
    if (!status && recall > 0) status = plan(p, ask, recall, err);
    if (status) {
        bench_ask_close(ask);
        return status;
    }
    for (uint32_t q = 0; q < count; q++) {
        pd_query *query = &ask->queries[q];
        *query = (pd_query){.vector = p->data->queries + (size_t)q * p->data->dim,
                            .similarity = 1,
                            .k = k,
                            .min_score = -INFINITY};
        if (context) {
            const pd_compiled *c = &context->compiled[context->ncompiled > 1 ? q : 0];
            query->similarity = c->similarity;
            query->weights = c->weights;
            query->key_weights = c->key_weights;
            query->nkey_weights = c->nkey_weights;
            query->filter = c->has_filter ? &c->filter : NULL;
        }
        if (ask->nplans) {
            const pd_plan *chosen = &ask->plans[ask->nplans > 1 ? q : 0];
            query->nprobe = chosen->nprobe;
            query->depth = chosen->depth;
            query->slots = chosen->slots;
            query->nslots = chosen->nslots;
        }
    }
    *out = ask;
    return PD_OK;
}

void bench_ask_close(bench_ask *ask)
{
    if (!ask) return;
    for (uint32_t i = 0; i < ask->nplans; i++)
        pd_plan_free(&ask->plans[i]);
    free(ask->plans);
    free(ask->queries);
    free(ask);
}

double bench_ask_nprobe(const bench_ask *ask)
{
    double sum = 0;
    for (uint32_t q = 0; q < ask->count; q++)
        sum += ask->queries[q].nprobe;
    return sum / ask->count;
}

pd_status bench_batch_open(const bench_ask *ask, uint32_t size, bench_batch *out, pd_error *err)
{
    bench_batch batch = {.queries = calloc(size, sizeof *batch.queries),
                         .answers = calloc(size, sizeof *batch.answers),
                         .hits = malloc((size_t)size * ask->k * sizeof *batch.hits)};
    if (!batch.queries || !batch.answers || !batch.hits) {
        bench_batch_close(&batch);
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a batch of %u", size);
    }
    *out = batch;
    return PD_OK;
}

void bench_batch_fill(bench_batch *batch, const bench_ask *ask, uint32_t first, uint32_t n)
{
    batch->first = first;
    batch->size = n;
    batch->of = ask->count;
    for (uint32_t i = 0; i < n; i++) {
        batch->queries[i] = ask->queries[(first + i) % ask->count];
        batch->answers[i] = (pd_answer){.hits = batch->hits + (size_t)i * ask->k};
    }
}

void bench_batch_close(bench_batch *batch)
{
    free(batch->queries);
    free(batch->answers);
    free(batch->hits);
    *batch = (bench_batch){0};
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

void bench_batch_rows(const bench_pados *p, const bench_batch *batch, uint32_t k, int64_t *rows)
{
    for (uint32_t q = 0; q < batch->size; q++)
        for (uint32_t i = 0; i < k; i++)
            rows[(size_t)q * k + i] =
                i < batch->answers[q].count ? bench_row_of(p, batch->answers[q].hits[i].id) : -1;
}

pd_status bench_exact(bench_pados *p, const bench_context *context, int64_t **out, pd_error *err)
{
    const bench_data *d = p->data;
    bench_ask *ask;
    bench_batch batch;
    pd_status status = bench_ask_open(p, context, d->nqueries, d->k, 0, &ask, err);
    if (status) return status;
    uint32_t most = ask->count < 4096 ? ask->count : 4096;
    if ((status = bench_batch_open(ask, most, &batch, err))) goto done_after_ask;
    int64_t *rows = malloc((size_t)d->nqueries * d->k * sizeof *rows);
    if (!rows) status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the truth");
    for (uint32_t at = 0; !status && at < ask->count; at += batch.size) {
        bench_batch_fill(&batch, ask, at, ask->count - at < most ? ask->count - at : most);
        status = pd_version_exact(p->version, p->builder, batch.queries, batch.size, batch.answers, NULL,
                                  NULL, err);
        if (!status) bench_batch_rows(p, &batch, d->k, rows + (size_t)at * d->k);
    }
    if (status)
        free(rows);
    else
        *out = rows;
    bench_batch_close(&batch);
done_after_ask:
    bench_ask_close(ask);
    return status;
}
