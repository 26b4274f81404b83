/* The fused score: attributes made or given, what each query asks for, and what over-fetching would have found.
 *
 * Over-fetching is what engines without weights in the scan must do: take the N most similar rows, add the weights, sort.
 * It is given Pados's own scan, so that the comparison is of the idea and not of the code.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "csv.h"
#include "system_pados.h"

/* splitmix64: one independent number for each (seed, a, b). */
static uint64_t mixed(uint64_t seed, uint64_t a, uint64_t b)
{
    uint64_t x = seed + 0x9e3779b97f4a7c15u * (a + 1) + 0xbf58476d1ce4e5b9u * (b + 1);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

pd_status bench_attributes(bench_pados *p, const uint32_t *row_list, char *path, size_t room, pd_error *err)
{
    const bench_options *o = p->options;
    if (o->attributes) {
        snprintf(path, room, "%s", o->attributes);
        return PD_OK;
    }
    if (!o->fused_attributes) return PD_OK;
    snprintf(path, room, "%s/attributes.csv", p->folder);
    FILE *file = fopen(path, "w");
    if (!file) return pd_fail(err, PD_UNAVAILABLE, "%s: %s", path, strerror(errno));
    fprintf(file, "id");
    for (uint32_t f = 0; f < o->fused_attributes; f++)
        fprintf(file, ",a%u", f);
    for (uint64_t i = 0; i < p->data->rows; i++) {
        fprintf(file, "\n%llu", (unsigned long long)(p->data->ids ? p->data->ids[i] : i));
        for (uint32_t f = 0; f < o->fused_attributes; f++) {
            uint64_t dice = mixed(o->seed, i, f);
            int tied = row_list && (double)(dice >> 11) * 0x1p-53 < o->fused_tie;
            uint64_t value = tied ? mixed(o->seed ^ 1, row_list[i], f) : mixed(o->seed ^ 2, i, f);
            fprintf(file, ",v%u", (unsigned)(value % o->fused_values));
        }
    }
    fputc('\n', file);
    int bad = ferror(file);
    if (fclose(file) || bad) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s could not be written", path);
    return PD_OK;
}

static pd_status random_weights(bench_pados *p, pd_error *err)
{
    const pd_version_info *info = pd_version_info_of(p->version);
    float sd = p->options->fused_spread * info->calibration->similarity_sd;
    for (uint32_t q = 0; q < p->data->nqueries; q++) {
        pd_compiled *c = &p->compiled[q];
        c->similarity = 1;
        c->weights = malloc((info->layout.weights ? info->layout.weights : 1) * sizeof(float));
        if (!c->weights) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the weights");
        /* Not the seeds that calibration drew. */
        pd_random_weights(p->resident, mixed(p->options->seed, q, 77), sd, c->weights);
    }
    return PD_OK;
}

static pd_status read_text(const char *path, char **out, size_t *length, pd_error *err)
{
    FILE *file = fopen(path, "r");
    if (!file) return pd_fail(err, PD_NOT_FOUND, "%s: %s", path, strerror(errno));
    size_t room = 1 << 20;
    char *text = malloc(room);
    *length = text ? fread(text, 1, room, file) : 0;
    fclose(file);
    if (!text || *length == room) {
        free(text);
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s: a profile of over 1 MiB", path);
    }
    *out = text;
    return PD_OK;
}

/* One context a line of the CSV; its header names the keys. */
static pd_status compile_contexts(bench_pados *p, pd_error *err)
{
    const bench_options *o = p->options;
    const pd_version_info *info = pd_version_info_of(p->version);
    pd_csv *csv = NULL;
    pd_status status = o->contexts ? pd_csv_open(o->contexts, &csv, err) : PD_OK;
    if (status) return status;
    char **cells, *keys[64] = {0};
    size_t n = 0, nkeys = 0;
    if (csv && !(status = pd_csv_next(csv, &cells, &n, err)))
        for (nkeys = 0; nkeys < n && nkeys < 64; nkeys++)
            keys[nkeys] = strdup(cells[nkeys]);
    /* Contexts belong to the query file's lines, so those of the calibration's queries are passed over. */
    for (uint32_t skip = 0; csv && !status && !o->calibration && skip < p->data->ncalibration; skip++)
        status = pd_csv_next(csv, &cells, &n, err);
    for (uint32_t q = 0; !status && q < p->ncompiled; q++) {
        const char *have_keys[64], *have_values[64];
        pd_context context = {.keys = have_keys, .values = have_values};
        if (csv) {
            if ((status = pd_csv_next(csv, &cells, &n, err))) break;
            if (n != nkeys) {
                status = pd_fail(err, PD_INVALID_ARGUMENT, "%s: %zu cells for query %u, %zu are wanted",
                                 o->contexts, n, q, nkeys);
                break;
            }
            for (size_t i = 0; i < n; i++)
                if (*cells[i]) {
                    have_keys[context.count] = keys[i];
                    have_values[context.count++] = cells[i];
                }
        }
        pd_ask ask = {.context = context.count ? &context : NULL, .now = pd_days_now()};
        status = pd_compile(info->schema, &info->layout, p->profile, &ask, &p->compiled[q], err);
    }
    for (size_t i = 0; i < nkeys; i++)
        free(keys[i]);
    pd_csv_close(csv);
    return status;
}

pd_status bench_compile(bench_pados *p, pd_error *err)
{
    const bench_options *o = p->options;
    if (!o->fused_attributes && !o->profile) return PD_OK;
    p->fused = 1;
    p->ncompiled = o->fused_attributes || o->contexts ? p->data->nqueries : 1;
    p->compiled = calloc(p->ncompiled, sizeof *p->compiled);
    if (!p->compiled) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the contexts");
    if (o->fused_attributes) return random_weights(p, err);
    char *text = NULL;
    size_t length = 0;
    pd_status status = read_text(o->profile, &text, &length, err);
    if (status) return status;
    status = pd_profile_parse(o->profile, text, length, &p->profile, err);
    free(text);
    if (!status) status = pd_profile_check(p->profile, pd_version_info_of(p->version)->schema, err);
    return status ? status : compile_contexts(p, err);
}

/* ----------------------------------------------------------------------------------------- over-fetching --- */

static int better(const void *a, const void *b)
{
    const pd_hit *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* Adds each query's weights to its hits and sorts them: what a caller without a fused scan does. */
static pd_status rerank(bench_pados *p, bench_ask *ask, uint32_t first, uint32_t n, pd_error *err)
{
    const pd_version_info *info = pd_version_info_of(p->version);
    uint32_t *slots = malloc((size_t)ask->k * sizeof *slots);
    uint8_t *bytes = malloc((size_t)ask->k * info->shape.nbytes + 1);
    pd_status status = slots && bytes ? PD_OK : pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to re-rank");
    for (uint32_t q = first; !status && q < first + n; q++) {
        pd_answer *answer = &ask->answers[q];
        const pd_compiled *c = &p->compiled[p->ncompiled > 1 ? q : 0];
        for (uint32_t i = 0; i < answer->count; i++)
            slots[i] = answer->hits[i].slot;
        pd_rows rows = {.bytes = bytes};
        status = pd_index_gather(pd_resident_index(p->resident), slots, answer->count, &rows, err);
        for (uint32_t i = 0; !status && c->weights && i < answer->count; i++)
            for (uint32_t b = 0; b < info->shape.nbytes; b++)
                if (info->shape.sizes[b])
                    answer->hits[i].score +=
                        c->weights[info->layout.weight_at[b] + bytes[(size_t)i * info->shape.nbytes + b]];
        qsort(answer->hits, answer->count, sizeof *answer->hits, better);
    }
    free(bytes);
    free(slots);
    return status;
}

static pd_status overfetch(bench_pados *p, uint32_t fetch, const int64_t *truth, bench_report *report,
                           pd_error *err)
{
    bench_data sample = *p->data;
    /* Ten thousand hits a query are dear; a thousand queries tell as much. */
    if (sample.nqueries > 1000) sample.nqueries = 1000;
    const pd_version_info *info = pd_version_info_of(p->version);
    uint32_t depth = fetch > info->rows ? (uint32_t)info->rows : fetch, batch = fetch > 1000 ? 64 : 256;
    bench_ask ask;
    pd_status status = bench_ask_open(p, sample.nqueries, depth, 0, 1, &ask, err);
    if (status) return status;
    int reached;
    uint32_t nlist = info->shape.nlist, band = depth < PD_MAX_K ? depth : PD_MAX_K;
    uint32_t nprobe = pd_calibrated_nprobe(info->calibration, nlist, band, 0, 0.95f, &reached);
    /* As many lists as hold three times what is fetched. */
    uint64_t need = 3ull * depth * nlist / (info->rows ? info->rows : 1) + 1;
    if (nprobe < need) nprobe = need < nlist ? (uint32_t)need : nlist;
    for (uint32_t q = 0; q < ask.count; q++)
        ask.queries[q].nprobe = nprobe;
    double start = bench_now();
    for (uint32_t at = 0; !status && at < ask.count; at += batch) {
        uint32_t n = ask.count - at < batch ? ask.count - at : batch;
        status =
            pd_index_search(pd_resident_index(p->resident), ask.queries + at, n, ask.answers + at, NULL, err);
        if (!status) status = rerank(p, &ask, at, n, err);
    }
    double seconds = bench_now() - start;
    int64_t *ids = malloc((size_t)sample.nqueries * sample.k * sizeof *ids);
    if (!ids && !status) status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the answers");
    if (!status) {
        for (uint32_t q = 0; q < ask.count; q++)
            for (uint32_t i = 0; i < sample.k; i++)
                ids[(size_t)q * sample.k + i] =
                    i < ask.answers[q].count ? bench_row_of(p, ask.answers[q].hits[i].id) : -1;
        char name[40], setting[48];
        snprintf(name, sizeof name, "pados-overfetch-%u", fetch);
        snprintf(setting, sizeof setting, "nprobe %u", nprobe);
        bench_row row = {.system = name,
                         .setting = setting,
                         .recall = -1,
                         .p50_us = -1,
                         .p99_us = -1,
                         .build_s = -1,
                         .bytes_per_row = -1,
                         .reached = 1,
                         .qps = ask.count / seconds};
        row.fused_recall = bench_recall(&sample, truth, ids, sample.k);
        row.scanned = bench_ask_scanned(&ask);
        bench_report_row(report, &row);
    }
    free(ids);
    bench_ask_close(&ask);
    return status;
}

static pd_status one_target(bench_pados *p, float target, const int64_t *truth, int64_t *ids,
                            bench_report *report, pd_error *err)
{
    const bench_data *d = p->data;
    bench_ask ask;
    pd_status status = bench_ask_open(p, d->nqueries, d->k, target, 0, &ask, err);
    if (status) return status;
    double nprobe = 0, spread = 0;
    for (uint32_t i = 0; i < ask.nplans; i++) {
        nprobe += (double)ask.plans[i].nprobe / ask.nplans;
        spread += (double)ask.plans[i].spread / ask.nplans;
    }
    char setting[48];
    snprintf(setting, sizeof setting, "nprobe %.0f s %.2f", nprobe, spread);
    bench_row row = {.system = "pados",
                     .setting = setting,
                     .target = target,
                     .recall = -1,
                     .build_s = p->build_s,
                     .bytes_per_row = -1};
    status = bench_ask_time(p, &ask, &row, err);
    if (!status) {
        bench_ask_ids(p, &ask, ids);
        row.fused_recall = bench_recall(d, truth, ids, d->k);
        row.scanned = bench_ask_scanned(&ask);
        row.reached = row.fused_recall >= target;
        bench_report_row(report, &row);
    }
    bench_ask_close(&ask);
    return status;
}

pd_status bench_fused_run(bench_pados *p, bench_report *report, pd_error *err)
{
    if (!p->fused) return PD_OK;
    const bench_data *d = p->data;
    const bench_options *o = p->options;
    int64_t *truth = NULL, *ids = malloc((size_t)d->nqueries * d->k * sizeof *ids);
    pd_status status = ids ? PD_OK : pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the answers");
    if (!status) status = bench_exact(p, d->nqueries, 0, &truth, err);
    if (!status) {
        if (o->fused_attributes)
            bench_report_title(
                report,
                "fused: %u attributes of %u values, spread %.2f, tie %.2f (recall of the exact fused top-%u)",
                o->fused_attributes, o->fused_values, o->fused_spread, o->fused_tie, d->k);
        else
            bench_report_title(report, "fused: profile %s (recall of the exact fused top-%u)",
                               pd_profile_name(p->profile), d->k);
    }
    for (uint32_t t = 0; !status && t < o->nrecalls; t++)
        status = one_target(p, o->recalls[t], truth, ids, report, err);
    static const uint32_t fetches[] = {100, 1000, 10000};
    for (int i = 0; !status && i < 3; i++)
        status = overfetch(p, fetches[i], truth, report, err);
    free(truth);
    free(ids);
    return status;
}
