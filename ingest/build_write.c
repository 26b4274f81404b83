/* Writing a version: pages in slot order, once, sequentially; then what summarises them; the manifest last.
 *
 * Pages are made in batches of a few MiB, in two sets of buffers: while the pool makes the pages of one batch, those of the
 * batch before are written, each file by one of the pool's own tasks, so that neither waits for the other while the disk keeps
 * up. What is added up over rows (the means of segments) is added up by the same tasks in the order of the slots, a slice of
 * dimensions each: the bytes do not depend on the number of threads.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "build_impl.h"
#include "f16.h"
#include "score.h"

#define BATCH_BYTES (4u << 20)
#define BATCH_MOST  1024u /* pages */
#define TASK_PAGES  8u
#define SLICE       16u /* dimensions: 64 bytes of a row */

/* The page files on their way, with their sums. */
typedef struct sink {
    pd_out out;
    const char *name, *sums_name;
    uint64_t *sums;          /* [npages] */
    unsigned char *pages[2]; /* [batch] pages of this file, by the batch's parity */
    size_t page_bytes;       /* 0: no such file */
    pd_status status;        /* of the last batch's writing */
    pd_error err;
} sink;

enum { PAGES, REFINE, SOURCE, SINKS };

typedef struct writer {
    pd_builder *b;
    const char *folder;
    sink sinks[SINKS];
    uint32_t batch;      /* pages of one */
    uint64_t *first_row; /* [nlist + 1]: where a list's rows begin in slot order */
    float *rows[2];      /* [batch][PD_PAGE_ROWS][dim], by parity; pages that are not full leave gaps */
    double *segment_sums[PD_MAX_ATTRIBUTES]; /* [nvalues][dim] */
    uint32_t slices;                         /* tasks that add up segments: 0 without any */
    pd_segments segments;
    pd_manifest manifest;
    uint32_t first, end;     /* pages of the batch that is made */
    uint32_t made, made_end; /* of the one before, which is written */
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
    for (int i = 0; i < 2; i++)
        s->pages[i] = aligned_alloc(64, (w->batch * page_bytes + 63) / 64 * 64);
    if (!s->sums || !s->pages[0] || !s->pages[1])
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to write %s", name);
    return pd_out_open(&s->out, w->folder, name, err);
}

static pd_status sink_finish(writer *w, sink *s, pd_error *err)
{
    if (!s->page_bytes) return PD_OK;
    pd_status status = note_file(w, &s->out, s->name, err);
    if (!status) status = pd_out_open(&s->out, w->folder, s->sums_name, err);
    if (!status) status = pd_out_write(&s->out, s->sums, (size_t)w->b->npages * sizeof *s->sums, err);
    return status ? status : note_file(w, &s->out, s->sums_name, err);
}

static void put_columns(const writer *w, uint64_t row, uint32_t place, void *page)
{
    const pd_builder *b = w->b;
    pd_page_ids(&b->layout, page)[place] = pd_builder_id(b, row);
    for (uint32_t c = 0; c < b->shape.nbytes; c++)
        pd_page_bytes(&b->layout, page, c)[place] = b->bytes[(size_t)c * b->count + row];
    for (uint32_t c = 0; c < b->shape.nfloats; c++)
        pd_page_floats(&b->layout, page, c)[place] = b->floats[(size_t)c * b->count + row];
    for (uint32_t c = 0; c < b->shape.nkeys; c++)
        pd_page_keys(&b->layout, page, c)[place] = b->keys[(size_t)c * b->count + row];
}

static void put_source(const writer *w, const float *row, uint32_t place, void *page)
{
    uint32_t dim = w->b->dim;
    if (w->b->schema->source == PD_REFINE_F16) {
        pd_f16 *out = (pd_f16 *)page + (size_t)place * dim;
        for (uint32_t d = 0; d < dim; d++)
            out[d] = pd_f32_to_f16(row[d]);
    } else {
        memcpy((float *)page + (size_t)place * dim, row, (size_t)dim * sizeof *row);
    }
}

/* The list of a page: the last that begins at it or before and is not empty. */
static uint32_t list_of_page(const pd_builder *b, uint32_t page)
{
    uint32_t low = 0, high = b->nlist; /* offsets[low] <= page < offsets[high] */
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (b->offsets[middle] <= page)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Where a page's rows begin in slot order. Returns how many there are. */
static uint32_t rows_of_page(const writer *w, uint32_t page, uint32_t *list, uint64_t *at)
{
    const pd_builder *b = w->b;
    *list = b->nlist ? list_of_page(b, page) : 0;
    uint64_t before = (uint64_t)(page - (b->nlist ? b->offsets[*list] : 0)) * PD_PAGE_ROWS;
    uint64_t left = (b->nlist ? b->list_rows[*list] : b->count) - before;
    *at = (b->nlist ? w->first_row[*list] : 0) + before;
    return left < PD_PAGE_ROWS ? (uint32_t)left : PD_PAGE_ROWS;
}

static void make_page(writer *w, uint32_t page)
{
    const pd_builder *b = w->b;
    uint32_t place = page - w->first, parity = page / w->batch % 2, list;
    uint64_t at;
    uint32_t n = rows_of_page(w, page, &list, &at);
    unsigned char *to[SINKS];
    for (int i = 0; i < SINKS; i++) {
        const sink *s = &w->sinks[i];
        to[i] = s->page_bytes ? s->pages[parity] + place * s->page_bytes : NULL;
        if (to[i] && i != PAGES) memset(to[i], 0, s->page_bytes);
    }
    pd_page_clear(&b->shape, &b->layout, to[PAGES]);
    float *rows = w->rows[parity] + (size_t)place * PD_PAGE_ROWS * b->dim;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t row = b->order ? b->order[at + i] : at + i;
        pd_builder_row(b, row, rows + (size_t)i * b->dim);
        put_columns(w, row, i, to[PAGES]);
        put_source(w, rows + (size_t)i * b->dim, i, to[SOURCE]);
    }
    const float *centroid = b->nlist ? b->centroids + (size_t)list * b->dim : NULL;
    pd_page_encode(&b->shape, &b->layout, b->projection, centroid, rows, 0, n, to[PAGES], to[REFINE]);
    for (int i = 0; i < SINKS; i++)
        if (to[i]) w->sinks[i].sums[page] = pd_sum_of(to[i], w->sinks[i].page_bytes);
}

/* The rows of the batch before, in slot order, into the sums of some dimensions; the first slice counts too. */
static void add_to_segments(writer *w, uint32_t slice)
{
    const pd_builder *b = w->b;
    uint32_t from = slice * SLICE, to = b->dim - from < SLICE ? b->dim : from + SLICE;
    for (uint32_t page = w->made; page < w->made_end; page++) {
        uint32_t list;
        uint64_t at;
        uint32_t n = rows_of_page(w, page, &list, &at);
        const float *rows = w->rows[page / w->batch % 2] + (size_t)(page - w->made) * PD_PAGE_ROWS * b->dim;
        for (uint32_t k = 0; k < n; k++) {
            uint64_t row = b->order ? b->order[at + k] : at + k;
            const float *values = rows + (size_t)k * b->dim;
            for (uint32_t i = 0; i < b->schema->nattributes; i++) {
                if (!w->segment_sums[i]) continue;
                uint8_t value = b->bytes[(size_t)b->schema->attributes[i].byte_column * b->count + row];
                double *sums = w->segment_sums[i] + (size_t)value * b->dim;
                if (slice == 0) w->segments.counts[i][value]++;
                for (uint32_t d = from; d < to; d++)
                    sums[d] += (double)values[d];
            }
        }
    }
}

/* The pages of the batch before, to one file. */
static void write_made(writer *w, sink *s)
{
    uint32_t n = w->made_end - w->made;
    if (!s->page_bytes || !n) return;
    const unsigned char *pages = s->pages[w->made / w->batch % 2];
    s->status = pd_out_write(&s->out, pages, n * s->page_bytes, &s->err);
}

static void batch_task(void *context, uint32_t task, uint32_t worker)
{
    (void)worker;
    writer *w = context;
    if (task < SINKS) {
        write_made(w, &w->sinks[task]);
        return;
    }
    task -= SINKS;
    if (task < w->slices) {
        add_to_segments(w, task);
        return;
    }
    uint32_t page = w->first + (task - w->slices) * TASK_PAGES;
    for (uint32_t i = 0; i < TASK_PAGES && page + i < w->end; i++)
        make_page(w, page + i);
}

/* One batch more than there are, so that the last is written. */
static pd_status write_pages(writer *w, pd_error *err)
{
    const pd_builder *b = w->b;
    pd_status status = PD_OK;
    while (!status && (w->first < b->npages || w->made_end > w->made)) {
        w->end = b->npages - w->first < w->batch ? b->npages : w->first + w->batch;
        status = pd_builder_tick(b, "write", w->made_end, b->npages, err);
        if (status) break;
        uint32_t pages = (w->end - w->first + TASK_PAGES - 1) / TASK_PAGES;
        pd_pool_run(b->pool, SINKS + w->slices + pages, batch_task, w);
        for (int i = 0; !status && i < SINKS; i++) {
            status = w->sinks[i].status;
            if (status && err) *err = w->sinks[i].err;
        }
        w->made = w->first;
        w->made_end = w->first = w->end;
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
                      .histograms = histograms,
                      .projection = b->projection ? b->directions : NULL,
                      .ngroups = b->ngroups,
                      .group_first = b->group_first};
    uint32_t code_dim = b->projection ? b->layout.code_dim : 0;
    status = pd_out_open(&out, w->folder, "lists.bin", err);
    if (!status)
        status = pd_lists_write(&out, &lists, b->nlist, b->dim, code_dim, b->npages, b->layout.weights, err);
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
        w->slices = (w->b->dim + SLICE - 1) / SLICE;
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
    m->sequence = b->in->sequence;
    m->parent = b->in->parent;
    m->dim = b->dim;
    m->code_dim = b->layout.code_dim;
    m->refine = b->shape.refine;
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

static pd_status open_batches(writer *w, size_t source, pd_error *err)
{
    const pd_builder *b = w->b;
    size_t rows = (size_t)PD_PAGE_ROWS * b->dim * sizeof(float);
    size_t page = b->layout.page_bytes + b->layout.refine_bytes + source + rows;
    size_t batch = BATCH_BYTES / page, least = (size_t)TASK_PAGES * b->threads;
    if (batch < least) batch = least;
    if (batch > BATCH_MOST) batch = BATCH_MOST;
    if (batch > b->npages) batch = b->npages ? b->npages : 1;
    w->batch = (uint32_t)batch;
    w->first_row = malloc(((size_t)b->nlist + 1) * sizeof *w->first_row);
    for (int i = 0; i < 2; i++)
        w->rows[i] = malloc(batch * rows);
    if (!w->first_row || !w->rows[0] || !w->rows[1])
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %zu pages of rows", 2 * batch);
    w->first_row[0] = 0;
    for (uint32_t i = 0; i < b->nlist; i++)
        w->first_row[i + 1] = w->first_row[i] + b->list_rows[i];
    return PD_OK;
}

static pd_status write_all(writer *w, pd_error *err)
{
    const pd_builder *b = w->b;
    size_t source = (size_t)PD_PAGE_ROWS * b->dim * (b->schema->source == PD_REFINE_F16 ? 2 : 4);
    pd_status status = open_batches(w, source, err);
    if (!status) status = sink_open(w, &w->sinks[PAGES], "pages.bin", "pages.sum", b->layout.page_bytes, err);
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
        free(w->sinks[i].pages[0]);
        free(w->sinks[i].pages[1]);
    }
    for (uint32_t i = 0; i < PD_MAX_ATTRIBUTES; i++) {
        free(w->segment_sums[i]);
        free(w->segments.means[i]);
        free(w->segments.counts[i]);
    }
    free(w->first_row);
    free(w->rows[0]);
    free(w->rows[1]);
    free(w);
    return status;
}
