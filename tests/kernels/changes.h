/* A world that changes: the same changes go to indexes on every device and, row by row, to pages of the test's own. What those pages
 * say, loaded afresh, is what a changed index must answer. */
#ifndef PD_TEST_CHANGES_H
#define PD_TEST_CHANGES_H

#include <stdio.h>

#include "host.h"
#include "queries.h"
#include "tested.h"

#define IN_NO_LIST   UINT32_MAX
#define MOST_DEVICES 6u
#define MOST_WRITTEN 90u
#define CHANGES_SLAB ((uint64_t)64 << 20)

/* Devices by name: the reference, the cpu backend (which the others are held to), and what is tested. */
typedef struct tested_devices {
    pd_device *devices[MOST_DEVICES];
    const char *names[MOST_DEVICES];
    uint32_t n;
} tested_devices;

typedef struct changing {
    world *w; /* its pages are the truth */
    const tested_devices *d;
    pd_index *indexes[MOST_DEVICES];
    float beta;
    uint32_t page_list[WORLD_PAGES]; /* IN_NO_LIST; a look-up table's are all in list 0 */
    uint8_t picked[WORLD_PAGES * PD_PAGE_ROWS];
    uint64_t next_id;
} changing;

static inline int open_tested(void **state)
{
    static tested_devices d;
    static const char *const cpu[] = {"portable", "avx2", "avx512", "amx", NULL};
    static const char *const cuda[] = {"row", "tile", "row",
                                       NULL}; /* the second "row": refine rows in the host's memory */
    pd_error err = {0};
    pd_device_options options = {.memory = CHANGES_SLAB, .threads = 2};
    memset(&d, 0, sizeof d);
    for (uint32_t i = 0; i < 2; i++) {
        d.names[i] = i ? "portable" : "reference";
        options.isa = i ? "portable" : NULL;
        if (pd_device_open(i ? "cpu" : "reference", &options, &d.devices[i], &err) != PD_OK) {
            print_error("%s\n", err.message);
            return -1;
        }
    }
    d.n = 2;
    int on_cpu = strcmp(TESTED, "cpu") == 0;
    for (const char *const *isa = on_cpu ? cpu + 1 : cuda; *isa; isa++) {
        options.isa = *isa;
        options.host_memory = !on_cpu && isa == cuda + 2 ? CHANGES_SLAB : 0;
        pd_status status = pd_device_open(TESTED, &options, &d.devices[d.n], &err);
        if (status == PD_OK) d.names[d.n++] = options.host_memory ? "row, refine rows in the host's" : *isa;
        /* Not an instruction set of this machine. */
        if (status != PD_OK && (!on_cpu || status != PD_INVALID_ARGUMENT)) {
            print_error("%s\n", err.message);
            return -1;
        }
    }
    *state = &d;
    return 0;
}

static inline int close_tested(void **state)
{
    tested_devices *d = *state;
    for (uint32_t i = 0; i < d->n; i++)
        pd_device_close(d->devices[i]);
    return 0;
}

static inline unsigned char *page_of(const world *w, uint32_t slot)
{
    return w->pages + slot / PD_PAGE_ROWS * w->layout.page_bytes;
}

static inline unsigned char *refine_of(const world *w, uint32_t slot)
{
    return w->refines ? w->refines + slot / PD_PAGE_ROWS * w->layout.refine_bytes : NULL;
}

static inline int has_row(const changing *c, uint32_t slot)
{
    return c->page_list[slot / PD_PAGE_ROWS] != IN_NO_LIST &&
           pd_page_term(&c->w->layout, page_of(c->w, slot))[slot % PD_PAGE_ROWS] > -INFINITY;
}

/* Nothing of a row is left, as in a page that was cleared. */
static inline void wipe(const world *w, uint32_t slot)
{
    const pd_layout *l = &w->layout;
    unsigned char *page = page_of(w, slot), *refine = refine_of(w, slot);
    uint32_t row = slot % PD_PAGE_ROWS;
    for (uint32_t d = 0; w->shape.code == PD_CODE_I8 && d < l->dim4; d++)
        page[l->codes + ((size_t)(d / 4) * PD_PAGE_ROWS + row) * 4 + d % 4] = 0;
    for (uint32_t d = 0; w->shape.code == PD_CODE_F16 && d < w->shape.dim; d++)
        ((uint16_t *)(void *)(page + l->codes))[d * PD_PAGE_ROWS + row] = 0;
    for (uint32_t d = 0; w->shape.code == PD_CODE_F32 && d < w->shape.dim; d++)
        ((float *)(void *)(page + l->codes))[d * PD_PAGE_ROWS + row] = 0.0f;
    pd_page_scale(l, page)[row] = 0.0f;
    pd_page_term(l, page)[row] = -INFINITY;
    pd_page_ids(l, page)[row] = 0;
    for (uint32_t b = 0; b < WORLD_BYTES; b++)
        pd_page_bytes(l, page, b)[row] = 0;
    for (uint32_t f = 0; f < 2; f++)
        pd_page_floats(l, page, f)[row] = NAN;
    pd_page_keys(l, page, 0)[row] = 0;
    if (refine) memset(refine + row * pd_refine_row(l), 0, pd_refine_row(l));
}

/* The lists as the pages have them now. */
static inline void count_lists(changing *c)
{
    world *w = c->w;
    uint32_t used = 0;
    for (uint32_t l = 0; l < w->nlist; l++) {
        w->counts[l] = 0;
        for (uint32_t p = 0; p < w->npages; p++) {
            if (c->page_list[p] != l) continue;
            w->page_numbers[used++] = p;
            for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
                w->counts[l] += (uint32_t)has_row(c, p * PD_PAGE_ROWS + r);
        }
        w->offsets[l + 1] = used;
    }
}

/* Takes w over. Returns NULL where what is tested cannot change indexes. */
static inline changing *changing_make(const tested_devices *d, world *w, float beta)
{
    changing *c = calloc(1, sizeof *c);
    pd_error err = {0};
    *c = (changing){.w = w, .d = d, .beta = beta, .next_id = 1000000000001u};
    for (uint32_t p = 0; p < w->npages; p++)
        c->page_list[p] = w->shape.nlist ? IN_NO_LIST : 0;
    for (uint32_t l = 0; w->shape.nlist && l < w->nlist; l++)
        for (uint32_t i = w->offsets[l]; i < w->offsets[l + 1]; i++)
            c->page_list[w->page_numbers[i]] = l;
    for (uint32_t r = 0; r < WORLD_ROWS; r++)
        if (w->deleted[r]) wipe(w, w->slot[r]);
    int can = 1;
    for (uint32_t i = 0; i < d->n; i++) {
        if (world_load(w, d->devices[i], beta, &c->indexes[i], &err) != PD_OK) fail_msg("%s", err.message);
        can &= pd_index_write_columns(c->indexes[i], NULL, 0, NULL, 0, NULL) != PD_UNIMPLEMENTED;
    }
    if (can) return c;
    for (uint32_t i = 0; i < d->n; i++)
        pd_index_close(c->indexes[i]);
    world_free(w);
    free(c);
    return NULL;
}

static inline void changing_free(changing *c)
{
    for (uint32_t i = 0; i < c->d->n; i++)
        pd_index_close(c->indexes[i]);
    world_free(c->w);
    free(c);
}

static inline void must_change(const changing *c, uint32_t i, pd_status status, const pd_error *err)
{
    if (status != PD_OK) fail_msg("%s: %s", c->d->names[i], err->message);
}

/* ------------------------------------------------------------------------------------------------ changes --- */

/* Up to most distinct slots of pages in lists (anywhere where everywhere is set), with rows where they must have some: runs of
 * neighbours and single ones. Returns how many. */
static inline uint32_t pick_slots(changing *c, uint32_t most, int with_rows, int everywhere, uint32_t *slots)
{
    uint32_t n = 0, all = c->w->npages * PD_PAGE_ROWS;
    memset(c->picked, 0, sizeof c->picked);
    for (uint32_t tries = 0; n < most && tries < 40 * most; tries++) {
        uint32_t slot = world_below(all), run = world_below(3) ? 1 : 1 + world_below(40);
        for (; run-- > 0 && n < most && slot < all; slot++) {
            if (c->picked[slot] || (with_rows && !has_row(c, slot)) ||
                (!everywhere && c->page_list[slot / PD_PAGE_ROWS] == IN_NO_LIST))
                continue;
            c->picked[slot] = 1;
            slots[n++] = slot;
        }
    }
    return n;
}

static inline void grow(changing *c, const uint32_t *lists, const uint32_t *pages, uint32_t n)
{
    pd_error err = {0};
    for (uint32_t i = 0; i < c->d->n; i++)
        must_change(c, i, pd_index_grow(c->indexes[i], lists, pages, n, &err), &err);
    for (uint32_t i = 0; i < n; i++)
        c->page_list[pages[i]] = lists[i];
}

static inline void grow_some(changing *c)
{
    uint32_t lists[3], pages[3], n = 0;
    for (uint32_t tries = 0; n < 3 && tries < 20; tries++) {
        uint32_t page = world_below(c->w->npages);
        int taken = c->page_list[page] != IN_NO_LIST;
        for (uint32_t i = 0; i < n; i++)
            taken |= pages[i] == page;
        if (taken) continue;
        lists[n] = world_below(c->w->nlist);
        pages[n++] = page;
    }
    if (c->w->shape.nlist) grow(c, lists, pages, n);
}

/* A row at one place of a page, with columns of its own. */
static inline void put_row(const world *w, const float *centroid, const float *row, uint64_t id,
                           uint64_t random, uint32_t place, void *page, void *refine)
{
    const pd_layout *l = &w->layout;
    pd_page_encode(&w->shape, l, w->projection, centroid, row, place, 1, page, refine);
    pd_page_ids(l, page)[place] = id;
    for (uint32_t b = 0; b < WORLD_BYTES; b++)
        pd_page_bytes(l, page, b)[place] = b == 0 ? (uint8_t)(random % 5) : (uint8_t)(random >> (6 * b));
    pd_page_floats(l, page, 0)[place] = random % 9 ? (float)(random % 41) - 20.0f : NAN;
    pd_page_floats(l, page, 1)[place] = (float)(random >> 60);
    pd_page_keys(l, page, 0)[place] = random >> 33 & 7;
}

static inline const float *centroid_of(const changing *c, uint32_t slot)
{
    return c->w->shape.nlist ? c->w->centroids + (size_t)c->page_list[slot / PD_PAGE_ROWS] * c->w->shape.dim
                             : NULL;
}

/* Rows like those of the world, sometimes the same; near: NULL, or the vector of all of them. */
static inline void write_at(changing *c, const uint32_t *slots, uint32_t n, const float *near)
{
    const world *w = c->w;
    const pd_layout *l = &w->layout;
    pd_error err = {0};
    uint32_t npages = pd_pages_for(n), dim = w->shape.dim;
    float *row = malloc(dim * sizeof *row);
    unsigned char *pages = aligned_alloc(64, npages * l->page_bytes + 64);
    unsigned char *refines = l->refine_bytes ? calloc(npages, l->refine_bytes) : NULL;
    for (uint32_t p = 0; p < npages; p++)
        pd_page_clear(&w->shape, l, pages + p * l->page_bytes);
    for (uint32_t i = 0; i < n; i++) {
        const float *like = near ? near : w->rows + (size_t)world_below(WORLD_ROWS) * dim;
        uint32_t moved = near ? 0 : world_below(4);
        for (uint32_t d = 0; d < dim; d++)
            row[d] = like[d] + (moved ? 0.3f * w->unit * world_normal() : 0.0f);
        if (w->shape.metric == PD_COSINE) pd_normalise(row, dim);
        int stays = has_row(c, slots[i]) && world_below(2);
        uint64_t random = world_random(),
                 id = stays ? pd_page_ids(l, page_of(w, slots[i]))[slots[i] % PD_PAGE_ROWS] : c->next_id++;
        put_row(w, centroid_of(c, slots[i]), row, id, random, i % PD_PAGE_ROWS,
                pages + i / PD_PAGE_ROWS * l->page_bytes,
                refines ? refines + i / PD_PAGE_ROWS * l->refine_bytes : NULL);
        put_row(w, centroid_of(c, slots[i]), row, id, random, slots[i] % PD_PAGE_ROWS, page_of(w, slots[i]),
                refine_of(w, slots[i]));
    }
    pd_row_writes writes = {.n = n, .slots = slots, .pages = pages, .refine = refines};
    for (uint32_t i = 0; i < c->d->n; i++)
        must_change(c, i, pd_index_write_rows(c->indexes[i], &writes, &err), &err);
    free(row);
    free(pages);
    free(refines);
}

static inline void write_some(changing *c)
{
    uint32_t slots[MOST_WRITTEN], n = pick_slots(c, 1 + world_below(MOST_WRITTEN), 0, 0, slots);
    write_at(c, slots, n, NULL);
}

static inline void write_some_columns(changing *c)
{
    const pd_layout *l = &c->w->layout;
    uint32_t slots[MOST_WRITTEN], n = pick_slots(c, 1 + world_below(MOST_WRITTEN), 1, 0, slots);
    uint8_t bytes[3][MOST_WRITTEN];
    float floats[MOST_WRITTEN];
    uint64_t keys[MOST_WRITTEN], random = world_random();
    pd_column_write all[] = {{PD_COLUMN_BYTE, 0, bytes[0]},
                             {PD_COLUMN_FLOAT, (uint32_t)(random % 2), floats},
                             {PD_COLUMN_BYTE, 1, bytes[1]},
                             {PD_COLUMN_KEY, 0, keys},
                             {PD_COLUMN_BYTE, WORLD_SET + (uint32_t)(random >> 8) % 8, bytes[2]}};
    uint32_t first = (uint32_t)(random >> 16) % 5, count = 1 + (uint32_t)(random >> 24) % (5 - first);
    for (uint32_t i = 0; i < n; i++) {
        bytes[0][i] = (uint8_t)world_below(5);
        bytes[1][i] = (uint8_t)world_below(256);
        bytes[2][i] = (uint8_t)world_below(256);
        floats[i] = world_below(8) ? 12.0f * world_normal() : NAN;
        keys[i] = world_below(8);
    }
    pd_error err = {0};
    for (uint32_t i = 0; i < c->d->n; i++)
        must_change(c, i, pd_index_write_columns(c->indexes[i], slots, n, all + first, count, &err), &err);
    for (uint32_t i = 0; i < n; i++) {
        unsigned char *page = page_of(c->w, slots[i]);
        uint32_t row = slots[i] % PD_PAGE_ROWS;
        for (const pd_column_write *of = all + first; of < all + first + count; of++) {
            if (of->kind == PD_COLUMN_BYTE)
                pd_page_bytes(l, page, of->column)[row] = ((const uint8_t *)of->values)[i];
            else if (of->kind == PD_COLUMN_FLOAT)
                pd_page_floats(l, page, of->column)[row] = floats[i];
            else
                pd_page_keys(l, page, 0)[row] = keys[i];
        }
    }
}

static inline void empty_at(changing *c, const uint32_t *slots, uint32_t n)
{
    pd_error err = {0};
    for (uint32_t i = 0; i < c->d->n; i++)
        must_change(c, i, pd_index_empty_rows(c->indexes[i], slots, n, &err), &err);
    for (uint32_t i = 0; i < n; i++)
        if (has_row(c, slots[i])) wipe(c->w, slots[i]);
}

/* Rows, places without one and pages of no list alike; now and then all rows of a list. */
static inline void empty_some(changing *c)
{
    uint32_t slots[WORLD_PAGES * PD_PAGE_ROWS], list = world_below(c->w->nlist), n = 0;
    if (world_below(4))
        n = pick_slots(c, 1 + world_below(60), 0, 1, slots);
    else
        for (uint32_t slot = 0; slot < c->w->npages * PD_PAGE_ROWS; slot++)
            if (c->w->shape.nlist && c->page_list[slot / PD_PAGE_ROWS] == list) slots[n++] = slot;
    empty_at(c, slots, n);
}

/* ----------------------------------------------------------------------------------------------- comparing --- */

static inline const char *changing_name(const changing *c, uint32_t i)
{
    static char name[160];
    const pd_shape *s = &c->w->shape;
    snprintf(name, sizeof name, "%s: metric %d, code %d, refine %d, dim %u, nlist %u, %u groups",
             c->d->names[i], (int)s->metric, (int)s->code, (int)s->refine, s->dim, s->nlist, c->w->ngroups);
    return name;
}

static inline void ask_index(const changing *c, uint32_t i, pd_index *index, const pd_query *queries,
                             answer_set *answers)
{
    pd_error err = {0};
    if (pd_index_search(index, queries, NQUERIES, answers->answers, NULL, &err) != PD_OK)
        fail_msg("%s: %s", changing_name(c, i), err.message);
}

static inline void same_answers(const changing *c, uint32_t i, const query_set *s, const pd_query *queries,
                                const answer_set *a, const answer_set *b, const char *whose)
{
    for (uint32_t q = 0; q < NQUERIES; q++) {
        const pd_answer *x = &a->answers[q], *y = &b->answers[q];
        int same = x->count == y->count && x->nprobe == y->nprobe && x->scanned == y->scanned;
        for (uint32_t h = 0; same && h < x->count; h++)
            same = x->hits[h].id == y->hits[h].id && x->hits[h].slot == y->hits[h].slot &&
                   memcmp(&x->hits[h].score, &y->hits[h].score, sizeof(float)) == 0;
        for (uint32_t p = 0; same && queries[q].vector && p < x->nprobe; p++)
            same = x->probes[p] == y->probes[p];
        if (!same)
            fail_msg("%s: query %u (%s) differs from %s: %u and %u hits, %lu and %lu scanned",
                     changing_name(c, i), q, s->cases[q]->what, whose, x->count, y->count,
                     (unsigned long)x->scanned, (unsigned long)y->scanned);
    }
}

static inline void same_pages(const changing *c, uint32_t i, pd_index *index)
{
    pd_error err = {0};
    for (int kind = 0; kind < (c->w->refines ? 2 : 1); kind++) {
        size_t bytes = kind ? c->w->layout.refine_bytes : c->w->layout.page_bytes;
        const unsigned char *want = kind ? c->w->refines : c->w->pages;
        unsigned char *got = malloc(c->w->npages * bytes);
        /* In two pieces, of which the second is most. */
        must_change(c, i, pd_index_read_pages(index, (pd_page_kind)kind, 0, 3, got, &err), &err);
        must_change(
            c, i, pd_index_read_pages(index, (pd_page_kind)kind, 3, c->w->npages - 3, got + 3 * bytes, &err),
            &err);
        for (uint32_t p = 0; p < c->w->npages; p++)
            if (memcmp(got + p * bytes, want + p * bytes, bytes) != 0)
                fail_msg("%s: page %u of kind %d is not what was written", changing_name(c, i), p, kind);
        free(got);
    }
}

/* What the backends of host memory know of pages, lists and groups: no less than there is, and of pages and of what is live no more. */
static inline void same_books(const changing *c, uint32_t i, const pd_index *changed, const pd_index *loaded)
{
    const pd_host_index *a = (const pd_host_index *)changed, *b = (const pd_host_index *)loaded;
    uint32_t columns = a->blocks.columns, nlist = c->w->shape.nlist, bad = 0;
    if (strcmp(changed->backend->name, "reference") != 0 && strcmp(changed->backend->name, "cpu") != 0)
        return;
    for (uint32_t p = 0; p < c->w->npages; p++)
        bad += c->page_list[p] != IN_NO_LIST &&
               memcmp(a->blocks.pages + (size_t)p * columns, b->blocks.pages + (size_t)p * columns,
                      columns * sizeof(uint64_t)) != 0;
    for (uint32_t w = 0; w < nlist * columns; w++)
        bad += (b->blocks.lists[w] & ~a->blocks.lists[w]) != 0;
    for (uint32_t l = 0; l < nlist; l++)
        bad += a->rows[l] != b->rows[l] || pd_host_list_pages(a, l) != pd_host_list_pages(b, l);
    for (uint32_t g = 0; g < a->upper.ngroups; g++) {
        bad += a->upper.lists[g] != b->upper.lists[g];
        for (uint32_t w = g * columns; w < (g + 1) * columns; w++)
            bad += (b->upper.blocks[w] & ~a->upper.blocks[w]) != 0;
    }
    bad += a->upper.live != b->upper.live;
    if (bad) fail_msg("%s: %u entries of its books are wrong", changing_name(c, i), bad);
}

/* Every index holds the pages that it should, and answers as one that was loaded with them: bit for bit, and all but the reference
 * as the cpu backend does. A list's summary may say more than the list has, which moves probes of queries with filters, and groups
 * lie where set_lists put them: those queries are asked for the same lists. */
static inline void check_changes(changing *c, const query_set *s)
{
    answer_set *first = answers_make(), *got = answers_make(), *truth = answers_make();
    pd_query queries[NQUERIES];
    memcpy(queries, s->queries, sizeof queries);
    count_lists(c);
    ask_index(c, 1, c->indexes[1], queries, first);
    for (uint32_t q = 0; c->w->shape.nlist && q < NQUERIES; q++) {
        if (!queries[q].vector || (!queries[q].filter && c->w->ngroups <= 8)) continue;
        queries[q].probes = first->probes[q];
        queries[q].nprobe = first->answers[q].nprobe;
    }
    for (uint32_t i = 0; i < c->d->n; i++) {
        pd_index *fresh = NULL;
        pd_error err = {0};
        same_pages(c, i, c->indexes[i]);
        must_change(c, i, world_load(c->w, c->d->devices[i], c->beta, &fresh, &err), &err);
        same_books(c, i, c->indexes[i], fresh);
        ask_index(c, i, c->indexes[i], queries, got);
        ask_index(c, i, fresh, queries, truth);
        same_answers(c, i, s, queries, got, truth, "an index that was loaded");
        if (i > 0) same_answers(c, i, s, queries, got, first, "the cpu backend");
        pd_index_close(fresh);
    }
    answers_free(first);
    answers_free(got);
    answers_free(truth);
}

#endif
