/* The fused score: attributes made or given, what each query asks for, and re-ranking for those who over-fetch. */
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

static pd_status random_weights(bench_pados *p, bench_context *context, pd_error *err)
{
    const pd_version_info *info = pd_version_info_of(p->version);
    float sd = context->spread * info->calibration->similarity_sd;
    for (uint32_t q = 0; q < context->ncompiled; q++) {
        pd_compiled *c = &context->compiled[q];
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
static pd_status compile_contexts(bench_pados *p, bench_context *context, pd_error *err)
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
    for (uint32_t q = 0; !status && q < context->ncompiled; q++) {
        const char *have_keys[64], *have_values[64];
        pd_context given = {.keys = have_keys, .values = have_values};
        if (csv) {
            if ((status = pd_csv_next(csv, &cells, &n, err))) break;
            if (n != nkeys) {
                status = pd_fail(err, PD_INVALID_ARGUMENT, "%s: %zu cells for query %u, %zu are wanted",
                                 o->contexts, n, q, nkeys);
                break;
            }
            for (size_t i = 0; i < n; i++)
                if (*cells[i]) {
                    have_keys[given.count] = keys[i];
                    have_values[given.count++] = cells[i];
                }
        }
        pd_ask ask = {.context = given.count ? &given : NULL, .now = pd_days_now()};
        status = pd_compile(info->schema, &info->layout, p->profile, &ask, &context->compiled[q], err);
    }
    for (size_t i = 0; i < nkeys; i++)
        free(keys[i]);
    pd_csv_close(csv);
    return status;
}

static pd_status open_profile(bench_pados *p, bench_context *context, pd_error *err)
{
    char *text = NULL;
    size_t length = 0;
    pd_status status = read_text(p->options->profile, &text, &length, err);
    if (status) return status;
    status = pd_profile_parse(p->options->profile, text, length, &p->profile, err);
    free(text);
    if (!status) status = pd_profile_check(p->profile, pd_version_info_of(p->version)->schema, err);
    return status ? status : compile_contexts(p, context, err);
}

pd_status bench_contexts_open(bench_pados *p, pd_error *err)
{
    const bench_options *o = p->options;
    uint32_t n = o->fused_attributes ? o->nspreads : o->profile ? 1 : 0;
    for (uint32_t i = 0; i < n; i++) {
        bench_context *context = &p->contexts[i];
        context->spread = o->fused_attributes ? o->fused_spreads[i] : -1;
        context->ncompiled = o->fused_attributes || o->contexts ? p->data->nqueries : 1;
        context->compiled = calloc(context->ncompiled, sizeof *context->compiled);
        if (!context->compiled) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the contexts");
        p->ncontexts = i + 1;
        pd_status status =
            o->fused_attributes ? random_weights(p, context, err) : open_profile(p, context, err);
        if (!status) status = bench_exact(p, context, &context->truth, err);
        if (status) return status;
    }
    return PD_OK;
}

void bench_contexts_close(bench_pados *p)
{
    for (uint32_t i = 0; i < p->ncontexts; i++) {
        bench_context *context = &p->contexts[i];
        for (uint32_t q = 0; q < context->ncompiled; q++) {
            /* Drawn weights are the bench's own; compiled ones belong to their profile's memory. */
            if (!p->profile) free(context->compiled[q].weights);
            if (p->profile) pd_compiled_free(&context->compiled[q]);
        }
        free(context->compiled);
        free(context->truth);
    }
    p->ncontexts = 0;
    pd_profile_release(p->profile);
    p->profile = NULL;
}

/* -------------------------------------------------------------------------------------------- re-ranking --- */

static int better(const void *a, const void *b)
{
    const pd_hit *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

pd_status bench_rerank(bench_pados *p, const bench_context *context, bench_batch *batch, pd_error *err)
{
    const pd_version_info *info = pd_version_info_of(p->version);
    uint32_t most = 0;
    for (uint32_t q = 0; q < batch->size; q++)
        if (batch->answers[q].count > most) most = batch->answers[q].count;
    uint32_t *slots = malloc((size_t)(most + 1) * sizeof *slots);
    uint8_t *bytes = malloc((size_t)(most + 1) * (info->shape.nbytes + 1));
    pd_status status = slots && bytes ? PD_OK : pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to re-rank");
    for (uint32_t q = 0; !status && q < batch->size; q++) {
        pd_answer *answer = &batch->answers[q];
        uint32_t of = (batch->first + q) % batch->of;
        const pd_compiled *c = &context->compiled[context->ncompiled > 1 ? of : 0];
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

pd_status bench_row_bytes(bench_pados *p, uint8_t **out, pd_error *err)
{
    const pd_version_info *info = pd_version_info_of(p->version);
    uint32_t nbytes = info->shape.nbytes;
    uint8_t *all = malloc((p->data->rows + 1) * (nbytes + 1));
    if (!all) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the attributes' bytes");
    pd_status status = PD_OK;
    for (uint64_t i = 0; !status && i < p->data->rows; i++) {
        uint32_t slot = pd_resident_slot(p->resident, p->data->ids ? p->data->ids[i] : i);
        pd_rows rows = {.bytes = all + i * nbytes};
        status = pd_index_gather(pd_resident_index(p->resident), &slot, 1, &rows, err);
    }
    if (status)
        free(all);
    else
        *out = all;
    return status;
}
