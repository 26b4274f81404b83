/* What a table holds now, a piece at a time: exact search over it, and its rows in a stream.
 *
 * The executor hands out a copy of some pages and of what says where their rows' sources are; everything else happens on the caller's
 * thread. Rows that came with the version are read from its files, a run of pages at once, as pd_version_exact() does; others are
 * asked for one by one.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "f16.h"
#include "filter.h"
#include "live_impl.h"

#define PAGES_BYTES  (1u << 20)  /* of one visit to the executor */
#define SOURCE_BYTES (16u << 20) /* of source rows held */
#define LATE_PAGES   64u         /* that hold rows written during an exact search, at first */
#define MORE_HITS    32u         /* asked for beyond k, since rows that move may be met twice */

typedef struct piece {
    pd_resident *r;
    const pd_live_source *source;
    uint32_t room; /* pages */
    uint32_t first, count;
    unsigned char *pages; /* [room][page_bytes] */
    unsigned char *rows;  /* [room] source pages */
    uint64_t *refs;       /* [room][PD_PAGE_ROWS] */
    double *counters;     /* [ncounters][room * PD_PAGE_ROWS]; NULL: not wanted */
    float *vector;        /* [dim] */
} piece;

static void piece_close(piece *p)
{
    free(p->pages);
    free(p->rows);
    free(p->refs);
    free(p->counters);
    free(p->vector);
}

static pd_status piece_open(piece *p, pd_resident *r, const pd_live_source *source, int counters,
                            pd_error *err)
{
    size_t page = r->info->layout.page_bytes, rows = r->version->files[PD_FILE_SOURCE].page_bytes;
    size_t room = PAGES_BYTES / page < SOURCE_BYTES / rows ? PAGES_BYTES / page : SOURCE_BYTES / rows;
    *p = (piece){.r = r, .source = source, .room = room ? (uint32_t)room : 1};
    p->pages = aligned_alloc(64, p->room * page);
    /* A multiple of 64 in any case: 32 rows of at least 2 bytes. */
    p->rows = aligned_alloc(64, p->room * rows);
    p->refs = malloc((size_t)p->room * PD_PAGE_ROWS * sizeof *p->refs);
    if (counters) p->counters = malloc((size_t)p->room * PD_PAGE_ROWS * r->ncounters * sizeof(double) + 1);
    p->vector = malloc(r->info->shape.dim * sizeof *p->vector);
    if (p->pages && p->rows && p->refs && p->vector && (p->counters || !counters)) return PD_OK;
    return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a piece of %u pages", p->room);
}

/* On the executor. Pages at the end of the piece that hold nothing are left out. */
static pd_status copy_piece(void *argument, pd_error *err)
{
    piece *p = argument;
    pd_resident *r = p->r;
    while (p->count && !r->places.live[p->first + p->count - 1])
        p->count--;
    if (!p->count) return PD_OK;
    for (uint32_t i = 0; i < p->count; i++) {
        const uint64_t *refs = __atomic_load_n(&r->refs[p->first + i], __ATOMIC_ACQUIRE);
        uint64_t *to = p->refs + (size_t)i * PD_PAGE_ROWS;
        if (refs)
            memcpy(to, refs, PD_PAGE_ROWS * sizeof *to);
        else
            memset(to, 0, PD_PAGE_ROWS * sizeof *to);
    }
    for (uint32_t c = 0; p->counters && c < r->ncounters; c++)
        memcpy(p->counters + (size_t)c * p->room * PD_PAGE_ROWS,
               r->counters[c] + (size_t)p->first * PD_PAGE_ROWS,
               (size_t)p->count * PD_PAGE_ROWS * sizeof *p->counters);
    return pd_index_read_pages(r->index, PD_PAGES_MAIN, p->first, p->count, p->pages, err);
}

static uint32_t live_of(const piece *p, uint32_t i)
{
    const pd_layout *layout = &p->r->info->layout;
    return pd_page_live(layout, p->pages + i * layout->page_bytes);
}

static int from_files(const piece *p)
{
    for (uint32_t i = 0; i < p->count; i++)
        for (uint32_t live = live_of(p, i); live; live &= live - 1)
            if (!p->refs[(size_t)i * PD_PAGE_ROWS + (uint32_t)__builtin_ctz(live)]) return 1;
    return 0;
}

static pd_status put_change(piece *p, size_t at, pd_error *err)
{
    const pd_version_info *info = p->r->info;
    uint32_t dim = info->shape.dim;
    uint64_t ref = p->refs[at];
    pd_status status = p->source->source_row(p->source->context, pd_ref_sequence(ref),
                                             (uint32_t)(ref & 0xffff), p->vector, err);
    if (status) return status;
    if (info->schema->source == PD_REFINE_F16)
        for (uint32_t d = 0; d < dim; d++)
            ((pd_f16 *)p->rows)[at * dim + d] = pd_f32_to_f16(p->vector[d]);
    else
        memcpy((float *)p->rows + at * dim, p->vector, dim * sizeof *p->vector);
    return PD_OK;
}

/* The source rows of what the pages hold. */
static pd_status fill_rows(piece *p, pd_error *err)
{
    const pd_page_file *file = &p->r->version->files[PD_FILE_SOURCE];
    uint32_t built = p->r->places.built, files = 0;
    pd_status status = PD_OK;
    if (p->first < built) files = built - p->first < p->count ? built - p->first : p->count;
    if (files && from_files(p))
        status = pd_page_file_read(file, p->first, files, p->rows, err);
    else
        files = 0;
    memset(p->rows + files * file->page_bytes, 0, (p->count - files) * file->page_bytes);
    for (uint32_t i = 0; !status && i < p->count; i++)
        for (uint32_t live = live_of(p, i); !status && live; live &= live - 1) {
            size_t at = (size_t)i * PD_PAGE_ROWS + (uint32_t)__builtin_ctz(live);
            if (p->refs[at]) status = put_change(p, at, err);
        }
    return status;
}

/* Calls use for each piece that holds something. */
static pd_status each_piece(piece *p, pd_status (*use)(piece *p, void *context, pd_error *err), void *context,
                            const char *stage, pd_progress progress, void *progress_context, pd_error *err)
{
    uint32_t npages = p->r->places.npages;
    pd_status status = PD_OK;
    for (uint32_t first = 0; !status && first < npages; first += p->room) {
        uint32_t count = npages - first < p->room ? npages - first : p->room;
        p->first = first;
        p->count = count;
        status = p->source->on_executor(p->source->context, copy_piece, p, err);
        if (!status && p->count) status = fill_rows(p, err);
        if (!status && p->count) status = use(p, context, err);
        if (!status && progress && progress(progress_context, stage, first + count, npages))
            status = pd_fail(err, PD_CANCELLED, "\"%s\" was stopped", stage);
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ exact --- */

typedef struct search {
    pd_device *device;
    pd_exact *exact;
} search;

static pd_status search_piece(piece *p, void *context, pd_error *err)
{
    const search *s = context;
    pd_block block = {.npages = p->count,
                      .pages = p->pages,
                      .rows = p->rows,
                      .dtype = p->r->info->schema->source,
                      .first_page = p->first};
    return pd_exact_block(s->device, s->exact, &block, err);
}

/* Pages that hold rows written since the search began, as they are at one moment: one that moved to a page that had gone by already is
 * found there. */
typedef struct late {
    pd_resident *r;
    uint64_t since;
    uint32_t room, n, found;
    uint32_t *numbers;    /* [room] */
    unsigned char *pages; /* [room][page_bytes] */
    uint64_t *refs;       /* [room][PD_PAGE_ROWS] */
} late;

static void late_close(late *l)
{
    free(l->numbers);
    free(l->pages);
    free(l->refs);
}

static pd_status late_open(late *l, uint32_t room, pd_error *err)
{
    late_close(l);
    l->room = room;
    l->numbers = malloc(room * sizeof *l->numbers);
    l->pages = aligned_alloc(64, room * l->r->info->layout.page_bytes);
    l->refs = malloc((size_t)room * PD_PAGE_ROWS * sizeof *l->refs);
    if (l->numbers && l->pages && l->refs) return PD_OK;
    return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u pages", room);
}

static int is_late(const uint64_t *refs, uint64_t since)
{
    int some = 0;
    for (uint32_t i = 0; i < PD_PAGE_ROWS; i++)
        some |= pd_ref_sequence(refs[i]) > since;
    return some;
}

/* On the executor. */
static pd_status copy_late(void *argument, pd_error *err)
{
    late *l = argument;
    pd_resident *r = l->r;
    pd_status status = PD_OK;
    l->n = l->found = 0;
    for (uint32_t page = 0; !status && page < r->places.npages; page++) {
        const uint64_t *refs = __atomic_load_n(&r->refs[page], __ATOMIC_ACQUIRE);
        if (!refs || !r->places.live[page] || !is_late(refs, l->since)) continue;
        if (l->found++ >= l->room) continue;
        l->numbers[l->n] = page;
        memcpy(l->refs + (size_t)l->n * PD_PAGE_ROWS, refs, PD_PAGE_ROWS * sizeof *refs);
        status = pd_index_read_pages(r->index, PD_PAGES_MAIN, page, 1,
                                     l->pages + l->n * r->info->layout.page_bytes, err);
        l->n++;
    }
    return status;
}

static pd_status find_late(late *l, const pd_live_source *source, pd_error *err)
{
    pd_status status = late_open(l, LATE_PAGES, err);
    if (!status) status = source->on_executor(source->context, copy_late, l, err);
    while (!status && l->found > l->n) { /* there were more than there is room for */
        status = late_open(l, l->found + l->found / 2, err);
        if (!status) status = source->on_executor(source->context, copy_late, l, err);
    }
    return status;
}

static pd_status search_late(piece *p, search *s, uint64_t since, pd_error *err)
{
    const pd_layout *layout = &p->r->info->layout;
    late l = {.r = p->r, .since = since};
    pd_status status = find_late(&l, p->source, err);
    for (uint32_t i = 0; !status && i < l.n; i++) {
        p->first = l.numbers[i];
        p->count = 1;
        memcpy(p->pages, l.pages + i * layout->page_bytes, layout->page_bytes);
        memcpy(p->refs, l.refs + (size_t)i * PD_PAGE_ROWS, PD_PAGE_ROWS * sizeof *p->refs);
        float *term = pd_page_term(layout, p->pages);
        for (uint32_t row = 0; row < PD_PAGE_ROWS; row++)
            if (pd_ref_sequence(p->refs[row]) <= since) term[row] = -INFINITY;
        status = fill_rows(p, err);
        if (!status) status = search_piece(p, s, err);
    }
    late_close(&l);
    return status;
}

/* Hits into the caller's k. A row that was written while the pages went by may have been met twice: the one where it is now stays. */
static pd_status keep_once(const pd_resident *r, const pd_answer *found, pd_answer *answer, uint32_t k,
                           pd_error *err)
{
    pd_idmap met;
    pd_status status = pd_idmap_open(&met, found->count, err);
    if (status) return status;
    for (uint32_t i = 0; i < found->count; i++)
        if (pd_resident_slot(r, found->hits[i].id) == found->hits[i].slot)
            pd_idmap_set(&met, found->hits[i].id, i);
    answer->count = 0;
    answer->scanned = found->scanned;
    for (uint32_t i = 0; i < found->count && answer->count < k; i++) {
        uint32_t best = pd_idmap_put(&met, found->hits[i].id, i);
        if (best == PD_IDMAP_NONE || best == i) answer->hits[answer->count++] = found->hits[i];
    }
    pd_idmap_close(&met);
    return PD_OK;
}

/* The same queries for a few hits more, into room of their own. */
typedef struct asking {
    pd_query *queries;
    pd_answer *answers;
    pd_hit *hits;
} asking;

static void asking_close(asking *a)
{
    free(a->queries);
    free(a->answers);
    free(a->hits);
}

static pd_status asking_open(asking *a, const pd_query *queries, uint32_t count, pd_error *err)
{
    size_t room = 0, at = 0;
    a->queries = malloc((count + 1) * sizeof *a->queries);
    a->answers = calloc(count + 1, sizeof *a->answers);
    for (uint32_t q = 0; a->queries && q < count; q++) {
        a->queries[q] = queries[q];
        a->queries[q].k = queries[q].k + MORE_HITS < PD_MAX_DEPTH ? queries[q].k + MORE_HITS : PD_MAX_DEPTH;
        room += a->queries[q].k;
    }
    a->hits = malloc((room + 1) * sizeof *a->hits);
    if (!a->queries || !a->answers || !a->hits)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the hits of %u queries", count);
    for (uint32_t q = 0; q < count; at += a->queries[q++].k)
        a->answers[q].hits = a->hits + at;
    return PD_OK;
}

pd_status pd_resident_exact(pd_resident *r, const pd_live_source *source, pd_device *device,
                            const pd_query *queries, uint32_t count, pd_answer *answers, pd_progress progress,
                            void *context, pd_error *err)
{
    piece p = {0};
    asking a = {0};
    search s = {.device = device};
    uint64_t applied = __atomic_load_n(&r->applied, __ATOMIC_ACQUIRE);
    pd_status status = asking_open(&a, queries, count, err);
    if (!status) status = piece_open(&p, r, source, 0, err);
    if (!status) status = pd_exact_begin(device, &r->info->shape, a.queries, count, &s.exact, err);
    if (!status) {
        status = each_piece(&p, search_piece, &s, "exact", progress, context, err);
        if (!status) status = search_late(&p, &s, applied, err);
        if (status)
            pd_exact_end(device, s.exact, NULL, NULL);
        else
            status = pd_exact_end(device, s.exact, a.answers, err);
    }
    for (uint32_t q = 0; !status && q < count; q++)
        status = keep_once(r, &a.answers[q], &answers[q], queries[q].k, err);
    piece_close(&p);
    asking_close(&a);
    return status;
}

/* ------------------------------------------------------------------------------------------------ stream --- */

/* Rows of one piece without gaps. */
typedef struct stream {
    pd_live_visit visit;
    void *context;
    float *vectors;
    uint64_t *ids, *keys;
    uint8_t *bytes;
    float *floats;
    double *counters;
} stream;

static void put_row(const piece *p, const stream *s, uint32_t i, uint32_t row, uint32_t n)
{
    const pd_version_info *info = p->r->info;
    const pd_shape *shape = &info->shape;
    void *page = p->pages + i * info->layout.page_bytes;
    size_t at = (size_t)i * PD_PAGE_ROWS + row;
    float *vector = s->vectors + (size_t)n * shape->dim;
    if (info->schema->source == PD_REFINE_F16)
        for (uint32_t d = 0; d < shape->dim; d++)
            vector[d] = pd_f16_to_f32(((const pd_f16 *)p->rows)[at * shape->dim + d]);
    else
        memcpy(vector, (const float *)p->rows + at * shape->dim, shape->dim * sizeof *vector);
    s->ids[n] = pd_page_ids(&info->layout, page)[row];
    for (uint32_t c = 0; c < shape->nbytes; c++)
        s->bytes[(size_t)n * shape->nbytes + c] = pd_page_bytes(&info->layout, page, c)[row];
    for (uint32_t c = 0; c < shape->nfloats; c++)
        s->floats[(size_t)n * shape->nfloats + c] = pd_page_floats(&info->layout, page, c)[row];
    for (uint32_t c = 0; c < shape->nkeys; c++)
        s->keys[(size_t)n * shape->nkeys + c] = pd_page_keys(&info->layout, page, c)[row];
    for (uint32_t c = 0; c < p->r->ncounters; c++)
        s->counters[(size_t)n * p->r->ncounters + c] = p->counters[(size_t)c * p->room * PD_PAGE_ROWS + at];
}

static pd_status stream_piece(piece *p, void *context, pd_error *err)
{
    const stream *s = context;
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->count; i++)
        for (uint32_t live = live_of(p, i); live; live &= live - 1)
            put_row(p, s, i, (uint32_t)__builtin_ctz(live), n++);
    if (!n) return PD_OK;
    return s->visit(s->context, n, s->vectors, s->ids, s->bytes, s->floats, s->keys, s->counters, err);
}

static pd_status stream_open(stream *s, const piece *p, pd_error *err)
{
    const pd_shape *shape = &p->r->info->shape;
    size_t rows = (size_t)p->room * PD_PAGE_ROWS;
    /* One more byte than needed, so that no size is zero. */
    s->vectors = malloc(rows * shape->dim * sizeof *s->vectors);
    s->ids = malloc(rows * sizeof *s->ids);
    s->bytes = malloc(rows * shape->nbytes + 1);
    s->floats = malloc(rows * shape->nfloats * sizeof *s->floats + 1);
    s->keys = malloc(rows * shape->nkeys * sizeof *s->keys + 1);
    s->counters = malloc(rows * p->r->ncounters * sizeof *s->counters + 1);
    if (s->vectors && s->ids && s->bytes && s->floats && s->keys && s->counters) return PD_OK;
    return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %zu rows", rows);
}

pd_status pd_resident_stream(pd_resident *r, const pd_live_source *source, pd_live_visit visit, void *context,
                             pd_progress progress, void *progress_context, pd_error *err)
{
    piece p;
    stream s = {.visit = visit, .context = context};
    pd_status status = piece_open(&p, r, source, 1, err);
    if (!status) status = stream_open(&s, &p, err);
    if (!status) status = each_piece(&p, stream_piece, &s, "rows", progress, progress_context, err);
    free(s.vectors);
    free(s.ids);
    free(s.bytes);
    free(s.floats);
    free(s.keys);
    free(s.counters);
    piece_close(&p);
    return status;
}
