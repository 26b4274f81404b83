/* Cases and rounds: what is measured, and how.
 *
 * A case is prepared once: its queries are planned, searched once (which also warms caches and scratch memory) and compared
 * with the truth. In each round it is then timed: batches go out one after another, queries in rotation (so every batch is
 * full, and one larger than the set repeats queries), until the asked seconds are over, at least two. Queries/s are queries
 * over the time that the batches took, planning included where every query has a plan of its own.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "system_pados.h"

#define MAX_TIMES 65536u /* batches of one case and round */

static pd_status search(bench_pados *p, const bench_case *c, bench_batch *batch, pd_timing *timing,
                        pd_error *err)
{
    pd_status status = pd_index_search(pd_resident_index(p->resident), batch->queries, batch->size,
                                       batch->answers, timing, err);
    return status || !c->rerank ? status : bench_rerank(p, c->ask->context, batch, err);
}

/* One untimed pass over the case's queries: recall and rows scanned. */
static pd_status check_recall(bench_pados *p, bench_case *c, pd_error *err)
{
    bench_data asked = *p->data;
    asked.nqueries = c->ask->count;
    uint32_t most = c->ask->count < c->row.batch ? c->ask->count : c->row.batch;
    if (most < 256 && c->ask->k <= 1000) most = c->ask->count < 256 ? c->ask->count : 256;
    bench_batch batch;
    pd_status status = bench_batch_open(c->ask, most, &batch, err);
    if (status) return status;
    double scanned = 0;
    int64_t *rows = malloc((size_t)asked.nqueries * asked.k * sizeof *rows);
    if (!rows) status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the answers");
    for (uint32_t at = 0; !status && at < asked.nqueries; at += batch.size) {
        bench_batch_fill(&batch, c->ask, at, asked.nqueries - at < most ? asked.nqueries - at : most);
        status = search(p, c, &batch, NULL, err);
        if (status) break;
        bench_batch_rows(p, &batch, asked.k, rows + (size_t)at * asked.k);
        for (uint32_t i = 0; i < batch.size; i++)
            scanned += (double)batch.answers[i].scanned / asked.nqueries;
    }
    if (!status) {
        const bench_context *context = c->ask->context;
        double recall = bench_recall(&asked, context ? context->truth : asked.truth, rows, asked.k);
        if (context)
            c->row.fused_recall = recall;
        else
            c->row.recall = recall;
        c->row.scanned = scanned;
        c->row.reached = recall >= c->row.target;
    }
    free(rows);
    bench_batch_close(&batch);
    return status;
}

/* Takes ask over, whatever happens. One case for each of nbatches; system and setting are copied. */
static pd_status add_cases(bench_pados *p, bench_ask *ask, const char *system, const char *setting,
                           float target, int rerank, const uint32_t *batches, uint32_t nbatches,
                           pd_error *err)
{
    if (p->nasks == BENCH_MAX_ASKS || p->ncases + nbatches > BENCH_MAX_CASES) {
        bench_ask_close(ask);
        return pd_fail(err, PD_INVALID_ARGUMENT, "too many cases: fewer targets, batches or spreads, please");
    }
    p->asks[p->nasks++] = ask;
    const bench_case *first = NULL;
    for (uint32_t b = 0; b < nbatches; b++) {
        bench_case *c = calloc(1, sizeof *c);
        if (!c) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a case");
        p->cases[p->ncases++] = c;
        snprintf(c->system, sizeof c->system, "%s", system);
        snprintf(c->setting, sizeof c->setting, "%s", setting);
        c->ask = ask;
        c->rerank = rerank;
        pd_device_info info;
        pd_device_info_of(p->device, &info);
        c->row = (bench_row){.system = c->system,
                             .setting = c->setting,
                             .batch = batches[b],
                             .nlist = pd_version_info_of(p->version)->shape.nlist,
                             .refine = pd_refine_name(pd_version_info_of(p->version)->shape.refine),
                             .code_dim = pd_version_info_of(p->version)->layout.code_dim,
                             .nprobe = bench_ask_nprobe(ask),
                             .target = target,
                             .spread = ask->context ? ask->context->spread : -1,
                             .recall = -1,
                             .fused_recall = -1,
                             .plan_us = 1e6 * ask->plan_s,
                             .build_s = p->build_s};
        c->row.bytes_per_row =
            (double)(info.used + pd_resident_host_bytes(p->resident)) / (double)p->data->rows;
        if (first) { /* Answers do not depend on the batch (--check): neither does recall. */
            c->row.recall = first->row.recall;
            c->row.fused_recall = first->row.fused_recall;
            c->row.scanned = first->row.scanned;
            c->row.reached = first->row.reached;
        } else {
            pd_status status = check_recall(p, c, err);
            if (status) return status;
            first = c;
        }
    }
    return PD_OK;
}

/* With context or without. */
static const uint32_t *batches_of(const bench_pados *p, const bench_context *context, uint32_t *count)
{
    const bench_options *o = p->options;
    int own = context && o->nfused_batches;
    *count = own ? o->nfused_batches : o->nbatches;
    return own ? o->fused_batches : o->batches;
}

static pd_status prepare_targets(bench_pados *p, const bench_context *context, pd_error *err)
{
    const bench_options *o = p->options;
    uint32_t nbatches;
    const uint32_t *batches = batches_of(p, context, &nbatches);
    pd_status status = PD_OK;
    for (uint32_t t = 0; !status && t < o->nrecalls; t++) {
        bench_ask *ask;
        status = bench_ask_open(p, context, p->data->nqueries, p->data->k, o->recalls[t], &ask, err);
        if (status) break;
        double spread = 0;
        for (uint32_t i = 0; i < ask->nplans; i++)
            spread += (double)ask->plans[i].spread / ask->nplans;
        char setting[48];
        if (context)
            snprintf(setting, sizeof setting, "nprobe %.0f s %.2f", bench_ask_nprobe(ask), spread);
        else
            snprintf(setting, sizeof setting, "nprobe %.0f", bench_ask_nprobe(ask));
        status = add_cases(p, ask, "pados", setting, o->recalls[t], 0, batches, nbatches, err);
    }
    return status;
}

/* The context's price: weights at work, with the probes and the depth that similarity alone is given for 0.95. */
static pd_status prepare_equal_probes(bench_pados *p, const bench_context *context, pd_error *err)
{
    bench_ask *plain, *ask;
    pd_status status = bench_ask_open(p, NULL, 1, p->data->k, 0.95f, &plain, err);
    if (status) return status;
    uint32_t nprobe = plain->queries[0].nprobe, depth = plain->queries[0].depth, nbatches;
    const uint32_t *batches = batches_of(p, context, &nbatches);
    bench_ask_close(plain);
    status = bench_ask_open(p, context, p->data->nqueries, p->data->k, 0, &ask, err);
    if (status) return status;
    for (uint32_t q = 0; q < ask->count; q++) {
        ask->queries[q].nprobe = nprobe;
        ask->queries[q].depth = depth;
    }
    char setting[48];
    snprintf(setting, sizeof setting, "nprobe %u", nprobe);
    return add_cases(p, ask, "pados-equal-probes", setting, 0, 0, batches, nbatches, err);
}

/* Over-fetching is what engines without weights in the scan must do: take the most similar rows, add the weights, sort. It
 * is given Pados's own scan, so that the comparison is of the idea and not of the code. */
static pd_status prepare_overfetch(bench_pados *p, const bench_context *context, uint32_t fetch,
                                   pd_error *err)
{
    const pd_version_info *info = pd_version_info_of(p->version);
    uint32_t depth = fetch > info->rows ? (uint32_t)info->rows : fetch;
    /* Ten thousand hits a query are dear; some hundred queries, in batches as the peers have them, tell as much. */
    uint32_t most = fetch > 1000 ? 200 : 500, batch = fetch > 1000 ? 64 : fetch > 500 ? 500 : 1024;
    uint32_t count = p->data->nqueries < most ? p->data->nqueries : most;
    bench_ask *ask;
    pd_status status = bench_ask_open(p, context, count, depth, 0, &ask, err);
    if (status) return status;
    int reached;
    uint32_t nlist = info->shape.nlist, band = depth < PD_MAX_K ? depth : PD_MAX_K;
    uint32_t nprobe = pd_calibrated_nprobe(info->calibration, nlist, band, 0, 0.95f, &reached);
    /* As many lists as hold three times what is fetched. */
    uint64_t need = 3ull * depth * nlist / (info->rows ? info->rows : 1) + 1;
    if (nprobe < need) nprobe = need < nlist ? (uint32_t)need : nlist;
    for (uint32_t q = 0; q < ask->count; q++) {
        ask->queries[q].nprobe = nprobe;
        ask->queries[q].depth = pd_calibrated_depth(info->calibration, depth, 0.0f, nprobe);
        ask->queries[q].weights = NULL;
        ask->queries[q].similarity = 1;
    }
    char name[40], setting[48];
    snprintf(name, sizeof name, "pados-overfetch-%u", fetch);
    snprintf(setting, sizeof setting, "nprobe %u", nprobe);
    return add_cases(p, ask, name, setting, 0, 1, &batch, 1, err);
}

pd_status bench_pados_prepare(bench_pados *p, pd_error *err)
{
    static const uint32_t fetches[] = {100, 1000, BENCH_MAX_DEPTH};
    pd_status status = prepare_targets(p, NULL, err);
    for (uint32_t i = 0; !status && i < p->ncontexts; i++) {
        const bench_context *context = &p->contexts[i];
        status = prepare_targets(p, context, err);
        if (!status && p->options->fused_attributes) status = prepare_equal_probes(p, context, err);
        for (int f = 0; !status && p->options->fused_attributes && f < 3; f++)
            status = prepare_overfetch(p, context, fetches[f], err);
    }
    return status;
}

static pd_status time_case(bench_pados *p, bench_case *c, uint32_t round, pd_error *err)
{
    bench_batch batch;
    uint32_t n = 0;
    double *times = malloc(MAX_TIMES * sizeof *times), spent = 0;
    if (!times) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the times");
    pd_status status = bench_batch_open(c->ask, c->row.batch, &batch, err);
    if (status) goto done_after_times;
    pd_timing sum = {0};
    while (n < MAX_TIMES && (n < 3 || spent < p->options->seconds)) {
        pd_timing timing = {0};
        bench_batch_fill(&batch, c->ask, c->at, c->row.batch);
        c->at = (uint32_t)(((uint64_t)c->at + c->row.batch) % c->ask->count);
        double start = bench_now();
        if ((status = search(p, c, &batch, &timing, err))) goto done_after_batch;
        double took = bench_now() - start;
        if (n++ == 0) continue; /* the first one warms what the case before it left cold */
        times[n - 2] = took;
        spent += took;
        sum.coarse_ns += timing.coarse_ns;
        sum.scan_ns += timing.scan_ns;
        sum.refine_ns += timing.refine_ns;
    }
    n--;
    double asked = (double)n * c->row.batch;
    qsort(times, n, sizeof *times, bench_compare_doubles);
    c->qps[round] = asked / (spent + asked * c->ask->plan_s);
    c->p50_us[round] = 1e6 * times[n / 2];
    c->p99_us[round] = 1e6 * times[n - 1 - n / 100];
    c->coarse_us[round] = 1e-3 * (double)sum.coarse_ns / asked;
    c->scan_us[round] = 1e-3 * (double)sum.scan_ns / asked;
    c->refine_us[round] = 1e-3 * (double)sum.refine_ns / asked;
done_after_batch:
    bench_batch_close(&batch);
done_after_times:
    free(times);
    return status;
}

/* The case's line for rounds first..first + n - 1: their medians. */
static bench_row summary(const bench_case *c, uint32_t first, uint32_t n)
{
    bench_row row = c->row;
    row.qps = bench_median(c->qps + first, n);
    row.p50_us = bench_median(c->p50_us + first, n);
    row.p99_us = bench_median(c->p99_us + first, n);
    row.coarse_us = bench_median(c->coarse_us + first, n);
    row.scan_us = bench_median(c->scan_us + first, n);
    row.refine_us = bench_median(c->refine_us + first, n);
    return row;
}

static pd_status wait_for_turn(uint32_t round, pd_error *err)
{
    char line[16];
    printf("turn %u\n", round + 1);
    fflush(stdout);
    return fgets(line, sizeof line, stdin)
               ? PD_OK
               : pd_fail(err, PD_CANCELLED, "stdin ended before round %u: --turns wants a line for each",
                         round + 1);
}

pd_status bench_pados_measure(bench_pados *p, bench_report *report, pd_error *err)
{
    const bench_options *o = p->options;
    pd_status status = PD_OK;
    for (uint32_t round = 0; round < o->rounds; round++) {
        if (o->turns && (status = wait_for_turn(round, err))) return status;
        for (uint32_t i = 0; i < p->ncases; i++) {
            if ((status = time_case(p, p->cases[i], round, err))) return status;
            bench_row row = summary(p->cases[i], round, 1);
            bench_report_json(report, &row, round + 1);
        }
    }
    pd_device_info about;
    pd_device_info_of(p->device, &about);
    bench_report_title(report,
                       "pados: %s %s (%s), nlist %u, code %s of %u dimensions, refine %s; calibrated in %.1f "
                       "s on %s; truth in %.1f s",
                       about.backend, about.isa, about.about, pd_version_info_of(p->version)->shape.nlist,
                       o->code, pd_version_info_of(p->version)->layout.code_dim,
                       pd_refine_name(pd_version_info_of(p->version)->shape.refine), p->calibrate_s,
                       p->data->calibration_name, p->truth_s);
    for (uint32_t i = 0; i < p->ncases; i++) {
        bench_row row = summary(p->cases[i], 0, o->rounds);
        bench_report_row(report, &row);
    }
    return PD_OK;
}
