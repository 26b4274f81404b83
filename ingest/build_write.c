/* Writing a version: pages in slot order, once, sequentially; then what summarises them; the manifest last. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "build_impl.h"
#include "f16.h"
#include "score.h"

#define TICK_PAGES 256u

/* The page files on their way, with their sums. */
typedef struct sink {
    pd_out out;
    const char *name, *sums_name;
    uint64_t *sums;    /* [npages] */
    void *page;        /* one page of this file */
    size_t page_bytes; /* 0: no such file */
} sink;

enum { PAGES, REFINE, SOURCE, SINKS };

typedef struct writer {
    pd_builder *b;
    const char *folder;
    sink sinks[SINKS];
    float *rows;                             /* [PD_PAGE_ROWS][dim] */
    double *segment_sums[PD_MAX_ATTRIBUTES]; /* [nvalues][dim] */
    pd_segments segments;
    pd_manifest manifest;
} writer;

static pd_status note_file(writer *w, pd_out *out, const char *name, pd_error *err)
{
    pd_file_entry *entry = &w->manifest.files[w->manifest.nfiles++];
    memcpy(entry->name, name, strlen(name) + 1);
    return pd_out_finish(out, &entry->bytes, &entry->sum, err);
}

/* ------------------------------------------------------------------------------------------------ pages --- */

static pd_status sink_open(writer *w, sink *s, const char *name, const char *sums, size_t page_bytes,
                           pd_error *err)
{
    s->name = name;
    s->sums_name = sums;
    s->page_bytes = page_bytes;
    if (!page_bytes) return PD_OK;
    s->sums = malloc(((size_t)w->b->npages + 1) * sizeof *s->sums);
    s->page = aligned_alloc(64, (page_bytes + 63) / 64 * 64);
    if (!s->sums || !s->page) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to write %s", name);
    return pd_out_open(&s->out, w->folder, name, err);
}

static pd_status sink_page(sink *s, uint32_t page, pd_error *err)
{
    if (!s->page_bytes) return PD_OK;
    s->sums[page] = pd_sum_of(s->page, s->page_bytes);
    return pd_out_write(&s->out, s->page, s->page_bytes, err);
}

static pd_status sink_finish(writer *w, sink *s, pd_error *err)
{
    if (!s->page_bytes) return PD_OK;
    pd_status status = note_file(w, &s->out, s->name, err);
    if (!status) status = pd_out_open(&s->out, w->folder, s->sums_name, err);
    if (!status) status = pd_out_write(&s->out, s->sums, (size_t)w->b->npages * sizeof *s->sums, err);
    return status ? status : note_file(w, &s->out, s->sums_name, err);
}

static void put_columns(const writer *w, uint64_t row, uint32_t place)
{
    const pd_builder *b = w->b;
    void *page = w->sinks[PAGES].page;
    pd_page_ids(&b->layout, page)[place] = pd_builder_id(b, row);
    for (uint32_t c = 0; c < b->shape.nbytes; c++)
        pd_page_bytes(&b->layout, page, c)[place] = b->bytes[(size_t)c * b->count + row];
    for (uint32_t c = 0; c < b->shape.nfloats; c++)
        pd_page_floats(&b->layout, page, c)[place] = b->floats[(size_t)c * b->count + row];
    for (uint32_t c = 0; c < b->shape.nkeys; c++)
        pd_page_keys(&b->layout, page, c)[place] = b->keys[(size_t)c * b->count + row];
}

static void put_source(const writer *w, const float *row, uint32_t place)
{
    uint32_t dim = w->b->dim;
    if (w->b->schema->source == PD_REFINE_F16) {
        pd_f16 *out = (pd_f16 *)w->sinks[SOURCE].page + (size_t)place * dim;
        for (uint32_t d = 0; d < dim; d++)
            out[d] = pd_f32_to_f16(row[d]);
    } else {
        memcpy((float *)w->sinks[SOURCE].page + (size_t)place * dim, row, (size_t)dim * sizeof *row);
    }
}

static void add_to_segments(writer *w, uint64_t row, const float *values)
{
    const pd_builder *b = w->b;
    for (uint32_t i = 0; i < b->schema->nattributes; i++) {
        if (!w->segment_sums[i]) continue;
        uint8_t value = b->bytes[(size_t)b->schema->attributes[i].byte_column * b->count + row];
        double *sums = w->segment_sums[i] + (size_t)value * b->dim;
        w->segments.counts[i][value]++;
        for (uint32_t d = 0; d < b->dim; d++)
            sums[d] += (double)values[d];
    }
}

/* Writes one page of rows [at, at + n) of the slot order, all of one list. */
static pd_status write_page(writer *w, uint32_t page, uint32_t list, uint64_t at, uint32_t n, pd_error *err)
{
    const pd_builder *b = w->b;
    sink *sinks = w->sinks;
    pd_page_clear(&b->shape, &b->layout, sinks[PAGES].page);
    if (sinks[REFINE].page) memset(sinks[REFINE].page, 0, sinks[REFINE].page_bytes);
    memset(sinks[SOURCE].page, 0, sinks[SOURCE].page_bytes);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t row = b->order ? b->order[at + i] : at + i;
        float *values = w->rows + (size_t)i * b->dim;
        pd_builder_row(b, row, values);
        put_columns(w, row, i);
        put_source(w, values, i);
        add_to_segments(w, row, values);
    }
    const float *centroid = b->nlist ? b->centroids + (size_t)list * b->dim : NULL;
    pd_page_encode(&b->shape, &b->layout, centroid, w->rows, 0, n, sinks[PAGES].page, sinks[REFINE].page);
    pd_status status = sink_page(&sinks[PAGES], page, err);
    if (!status) status = sink_page(&sinks[REFINE], page, err);
    if (!status) status = sink_page(&sinks[SOURCE], page, err);
    return status;
}

static pd_status write_pages(writer *w, pd_error *err)
{
    const pd_builder *b = w->b;
    pd_status status = PD_OK;
    uint32_t page = 0;
    uint64_t at = 0;
    for (uint32_t list = 0; list < (b->nlist ? b->nlist : 1); list++) {
        uint64_t left = b->nlist ? b->list_rows[list] : b->count;
        while (!status && left) {
            uint32_t n = left < PD_PAGE_ROWS ? (uint32_t)left : PD_PAGE_ROWS;
            if (page % TICK_PAGES == 0) status = pd_builder_tick(b, "write", page, b->npages, err);
            if (!status) status = write_page(w, page++, list, at, n, err);
            at += n;
            left -= n;
        }
    }
    for (int i = 0; !status && i < SINKS; i++)
        status = sink_finish(w, &w->sinks[i], err);
    return status ? status : pd_builder_tick(b, "write", b->npages, b->npages, err);
}

/* ------------------------------------------------------------------------------------------------ summaries --- */

/* The share of each list's rows that hold each value. An empty list counts as unknown in everything. */
static void fill_histograms(const pd_builder *b, float *histograms)
{
    uint64_t at = 0;
    for (uint32_t list = 0; list < b->nlist; list++) {
        uint32_t n = b->list_rows[list];
        for (uint32_t c = 0; c < b->shape.nbytes; c++) {
            if (!b->shape.sizes[c]) continue;
            uint32_t counts[256] = {0};
            for (uint32_t i = 0; i < n; i++)
                counts[b->bytes[(size_t)c * b->count + b->order[at + i]]]++;
            if (!n) counts[0] = 1;
            float *out = histograms + (size_t)b->layout.weight_at[c] * b->nlist + list;
            for (uint32_t v = 0; v < b->shape.sizes[c]; v++)
                out[(size_t)v * b->nlist] = (float)counts[v] / (float)(n ? n : 1);
        }
        at += n;
    }
}

static pd_status write_lists(writer *w, pd_error *err)
{
    const pd_builder *b = w->b;
    size_t cells = b->nlist ? (size_t)b->layout.weights * b->nlist : 0;
    float *histograms = calloc(cells + 1, sizeof *histograms);
    uint32_t *pages = malloc(((size_t)b->npages + 1) * sizeof *pages);
    pd_out out = {0};
    pd_status status = PD_OK;
    if (!histograms || !pages) {
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the summaries of %u lists", b->nlist);
        goto out;
    }
    if (b->nlist) fill_histograms(b, histograms);
    for (uint32_t p = 0; p < b->npages; p++)
        pages[p] = p;
    pd_lists lists = {.centroids = b->centroids,
                      .offsets = b->offsets,
                      .pages = pages,
                      .rows = b->list_rows,
                      .histograms = histograms};
    status = pd_out_open(&out, w->folder, "lists.bin", err);
    if (!status) status = pd_lists_write(&out, &lists, b->nlist, b->dim, b->npages, b->layout.weights, err);
    if (!status) status = note_file(w, &out, "lists.bin", err);
out:
    pd_out_abandon(&out);
    free(histograms);
    free(pages);
    return status;
}

static pd_status open_segments(writer *w, pd_error *err)
{
    const pd_schema *s = w->b->schema;
    for (uint32_t i = 0; i < s->nattributes; i++) {
        if (!pd_segment_wanted(s, i)) continue;
        size_t values = s->attributes[i].nvalues, cells = values * w->b->dim;
        w->segment_sums[i] = calloc(cells + 1, sizeof(double));
        w->segments.means[i] = calloc(cells + 1, sizeof(float));
        w->segments.counts[i] = calloc(values + 1, sizeof(uint64_t));
        if (!w->segment_sums[i] || !w->segments.means[i] || !w->segments.counts[i])
            return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the means of \"%s\"",
                           s->attributes[i].name);
    }
    return PD_OK;
}

/* A mean of opposite vectors has no direction: under cosine such a segment counts as empty. */
static void finish_mean(const writer *w, uint32_t attribute, uint32_t value)
{
    const pd_builder *b = w->b;
    uint64_t *count = &w->segments.counts[attribute][value];
    float *mean = w->segments.means[attribute] + (size_t)value * b->dim;
    const double *sums = w->segment_sums[attribute] + (size_t)value * b->dim;
    for (uint32_t d = 0; *count && d < b->dim; d++)
        mean[d] = (float)(sums[d] / (double)*count);
    if (b->shape.metric == PD_COSINE && *count && !pd_normalise(mean, b->dim)) *count = 0;
}

static pd_status write_segments(writer *w, pd_error *err)
{
    const pd_schema *s = w->b->schema;
    int any = 0;
    for (uint32_t i = 0; i < s->nattributes; i++) {
        for (uint32_t v = 0; w->segment_sums[i] && v < s->attributes[i].nvalues; v++)
            finish_mean(w, i, v);
        any |= w->segment_sums[i] != NULL;
    }
    if (!any) return PD_OK;
    pd_out out;
    pd_status status = pd_out_open(&out, w->folder, "segments.bin", err);
    if (!status) status = pd_segments_write(&out, &w->segments, s, w->b->dim, err);
    if (!status) status = note_file(w, &out, "segments.bin", err);
    pd_out_abandon(&out);
    return status;
}

static pd_status write_schema(writer *w, pd_error *err)
{
    char *text = NULL;
    pd_status status = pd_schema_text(w->b->schema, &text, err);
    if (status) return status;
    pd_out out;
    status = pd_out_open(&out, w->folder, "schema.conf", err);
    if (!status) status = pd_out_write(&out, text, strlen(text), err);
    if (!status) status = note_file(w, &out, "schema.conf", err);
    pd_out_abandon(&out);
    free(text);
    return status;
}

static pd_status write_manifest(writer *w, pd_error *err)
{
    const pd_builder *b = w->b;
    pd_manifest *m = &w->manifest;
    memcpy(m->table, b->in->table, strlen(b->in->table) + 1);
    m->version = b->in->version;
    m->created = b->now;
    m->rows = b->count;
    m->seed = b->in->seed;
    m->dim = b->dim;
    m->nlist = b->nlist;
    m->npages = b->npages;
    m->page_bytes = w->sinks[PAGES].page_bytes;
    m->refine_bytes = w->sinks[REFINE].page_bytes;
    m->source_bytes = w->sinks[SOURCE].page_bytes;
    m->beta = b->beta;
    m->similarity_sd = b->similarity_sd;
    m->residual_sd = b->residual_sd;
    char *text = NULL;
    size_t length = 0;
    pd_status status = pd_manifest_text(m, &text, &length, err);
    if (status) return status;
    pd_out out;
    status = pd_out_open(&out, w->folder, "manifest.json", err);
    if (!status) status = pd_out_write(&out, text, length, err);
    if (!status) status = pd_out_finish(&out, NULL, NULL, err);
    pd_out_abandon(&out);
    free(text);
    return status;
}

/* ------------------------------------------------------------------------------------------------ the stage --- */

static pd_status write_all(writer *w, pd_error *err)
{
    const pd_builder *b = w->b;
    size_t source = (size_t)PD_PAGE_ROWS * b->dim * (b->schema->source == PD_REFINE_F16 ? 2 : 4);
    w->rows = malloc((size_t)PD_PAGE_ROWS * b->dim * sizeof *w->rows);
    if (!w->rows) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a page of rows");
    pd_status status = sink_open(w, &w->sinks[PAGES], "pages.bin", "pages.sum", b->layout.page_bytes, err);
    if (!status)
        status = sink_open(w, &w->sinks[REFINE], "refine.bin", "refine.sum", b->layout.refine_bytes, err);
    if (!status) status = sink_open(w, &w->sinks[SOURCE], "source.bin", "source.sum", source, err);
    if (!status) status = open_segments(w, err);
    if (!status) status = write_pages(w, err);
    if (!status) status = write_lists(w, err);
    if (!status) status = write_segments(w, err);
    if (!status) status = write_schema(w, err);
    if (!status) status = write_manifest(w, err);
    return status;
}

pd_status pd_builder_write(pd_builder *b, const char *folder, pd_error *err)
{
    writer *w = calloc(1, sizeof *w);
    if (!w) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to write a version");
    w->b = b;
    w->folder = folder;
    pd_status status = write_all(w, err);
    for (int i = 0; i < SINKS; i++) {
        pd_out_abandon(&w->sinks[i].out);
        free(w->sinks[i].sums);
        free(w->sinks[i].page);
    }
    for (uint32_t i = 0; i < PD_MAX_ATTRIBUTES; i++) {
        free(w->segment_sums[i]);
        free(w->segments.means[i]);
        free(w->segments.counts[i]);
    }
    free(w->rows);
    free(w);
    return status;
}
