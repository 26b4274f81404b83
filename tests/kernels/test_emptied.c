/* Rows that are emptied or written over are gone by every path, memory that was another table's stays unseen, and changes that
 * cannot be are refused and leave everything as it was. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#ifdef PD_PARITY_SIMT
#define NQUERIES 32u /* each case at least once */
#endif
#include "changes.h"

/* --------------------------------------------------------------------------------------------- deleted rows --- */

static int comes_back(const pd_answer *a, const uint64_t *gone, uint32_t n)
{
    for (uint32_t h = 0; h < a->count; h++)
        for (uint32_t i = 0; i < n; i++)
            if (a->hits[h].id == gone[i]) return 1;
    return 0;
}

/* Every row as a block for exact search: its vectors are those that are left. */
static void ask_exactly(const changing *c, uint32_t i, const pd_query *query, pd_answer *answer)
{
    const world *w = c->w;
    pd_error err = {0};
    pd_exact *exact = NULL;
    unsigned char *pages = aligned_alloc(64, w->npages * w->layout.page_bytes);
    float *rows = calloc((size_t)w->npages * PD_PAGE_ROWS * w->shape.dim, sizeof *rows);
    must_change(c, i, pd_index_read_pages(c->indexes[i], PD_PAGES_MAIN, 0, w->npages, pages, &err), &err);
    pd_block block = {.npages = w->npages, .pages = pages, .rows = rows, .dtype = PD_REFINE_F32};
    must_change(c, i, pd_exact_begin(c->d->devices[i], &w->shape, query, 1, &exact, &err), &err);
    must_change(c, i, pd_exact_block(c->d->devices[i], exact, &block, &err), &err);
    must_change(c, i, pd_exact_end(c->d->devices[i], exact, answer, &err), &err);
    free(pages);
    free(rows);
}

static void check_gone(changing *c, const uint32_t *slots, const uint64_t *gone, uint32_t n)
{
    static pd_hit hits[MOST_K];
    const world *w = c->w;
    uint32_t all = w->npages * PD_PAGE_ROWS, *every = malloc(all * sizeof *every), live = 0;
    for (uint32_t slot = 0; slot < all; slot++) {
        every[slot] = slot;
        live += (uint32_t)has_row(c, slot);
    }
    for (uint32_t i = 0; i < c->d->n; i++) {
        pd_error err = {0};
        pd_answer answer = {.hits = hits};
        const pd_query whole = {
            .vector = w->rows, .similarity = 1.0f, .nprobe = w->nlist, .k = MOST_K, .min_score = -INFINITY};
        for (int way = 0; way < 5; way++) {
            pd_query query = whole;
            if (way == 1) query.vector = NULL;
            if (way == 2 || way == 3) query.nprobe = 0;
            if (way == 2 || way == 3) query.slots = way == 2 ? every : slots;
            if (way == 2 || way == 3) query.nslots = way == 2 ? all : n;
            if (way == 4)
                ask_exactly(c, i, &query, &answer);
            else
                must_change(c, i, pd_index_search(c->indexes[i], &query, 1, &answer, NULL, &err), &err);
            if (comes_back(&answer, gone, n))
                fail_msg("%s: a deleted row comes back by way %d", changing_name(c, i), way);
            /* All others do. */
            assert_int_equal(answer.count, way == 3 ? 0 : live);
        }
        uint64_t id;
        pd_rows rows = {.ids = &id};
        for (uint32_t r = 0; r < n; r++)
            assert_int_equal(pd_index_gather(c->indexes[i], &slots[r], 1, &rows, NULL), PD_OUT_OF_RANGE);
    }
    free(every);
}

/* By probing, by attributes, by naming its slot, by exact search, by gathering. Slots of pages that no list has are passed over. */
static void test_a_deleted_row_never_comes_back(void **state)
{
    static const uint32_t nlists[] = {WORLD_LISTS, 0};
    for (size_t t = 0; t < 2; t++) {
        changing *c = changing_make(*state,
                                    world_make(PD_L2, nlists[t] ? PD_CODE_I8 : PD_CODE_F32,
                                               nlists[t] ? PD_REFINE_F16 : PD_REFINE_NONE, 17, nlists[t]),
                                    0.0f);
        if (!c) skip();
        uint32_t slots[60], n = 0;
        uint64_t gone[60];
        for (uint32_t slot = 0; slot < c->w->npages * PD_PAGE_ROWS && n < 60; slot += 1 + slot % 7) {
            if (!has_row(c, slot)) continue;
            gone[n] = pd_page_ids(&c->w->layout, page_of(c->w, slot))[slot % PD_PAGE_ROWS];
            slots[n++] = slot;
        }
        assert_int_equal(n, 60);
        empty_at(c, slots, n);
        check_gone(c, slots, gone, n);
        /* Once more does nothing. */
        empty_at(c, slots, n);
        check_gone(c, slots, gone, n);
        changing_free(c);
    }
}

static void test_a_row_that_is_written_over_is_gone(void **state)
{
    changing *c = changing_make(*state, world_make(PD_L2, PD_CODE_I8, PD_REFINE_F16, 17, WORLD_LISTS), 0.0f);
    if (!c) skip();
    uint32_t slot = c->w->slot[0];
    uint64_t old = c->w->ids[0], id = old;
    pd_rows rows = {.ids = &id};
    while (id == old) {
        write_at(c, &slot, 1, NULL);
        id = pd_page_ids(&c->w->layout, page_of(c->w, slot))[slot % PD_PAGE_ROWS];
    }
    for (uint32_t i = 0; i < c->d->n; i++) {
        uint64_t want = id;
        must_change(c, i, pd_index_gather(c->indexes[i], &slot, 1, &rows, NULL), NULL);
        assert_int_equal(id, want);
        same_pages(c, i, c->indexes[i]);
    }
    changing_free(c);
}

/* A table was there before, and its rows still lie in memory where the next one has none yet: the first row of a page brings none of
 * them along, and pages without rows read as empty ones. */
static void test_what_memory_held_before_does_not_come_out(void **state)
{
    const tested_devices *d = *state;
    changing *c = changing_make(d, world_make(PD_L2, PD_CODE_I8, PD_REFINE_F16, 17, WORLD_LISTS), 0.0f);
    if (!c) skip();
    world *w = c->w;
    const uint32_t list = 12, page = 40, slot = page * PD_PAGE_ROWS + 9;
    /* Everywhere rows of list 12, then nothing. */
    for (uint32_t p = 0; p < w->npages; p++) {
        c->page_list[p] = list;
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            put_row(w, NULL, w->rows, 77, 0x5555555555555555u, r, w->pages + p * w->layout.page_bytes,
                    w->refines + p * w->layout.refine_bytes);
    }
    count_lists(c);
    for (uint32_t i = 0; i < d->n; i++) {
        pd_error err = {0};
        pd_index_close(c->indexes[i]);
        must_change(c, i, world_load(w, d->devices[i], 0.0f, &c->indexes[i], &err), &err);
        pd_index_close(c->indexes[i]);
    }
    for (uint32_t p = 0; p < w->npages; p++) {
        c->page_list[p] = IN_NO_LIST;
        pd_page_clear(&w->shape, &w->layout, w->pages + p * w->layout.page_bytes);
    }
    memset(w->refines, 0, w->npages * w->layout.refine_bytes);
    count_lists(c);
    pd_lists lists = {
        .centroids = w->centroids, .offsets = w->offsets, .pages = w->page_numbers, .rows = w->counts};
    for (uint32_t i = 0; i < d->n; i++) {
        pd_index_spec spec = {.shape = w->shape, .npages = w->npages, .name = "world@2"};
        pd_error err = {0};
        must_change(c, i, pd_index_open(d->devices[i], &spec, &c->indexes[i], &err), &err);
        must_change(c, i, pd_index_set_lists(c->indexes[i], &lists, &err), &err);
    }
    grow(c, &list, &page, 1);
    write_at(c, &slot, 1, NULL);
    for (uint32_t i = 0; i < d->n; i++)
        same_pages(c, i, c->indexes[i]);
    changing_free(c);
}

/* ---------------------------------------------------------------------------------------------- what is refused --- */

static void refused(pd_status status, pd_status want, const pd_error *err, const char *word)
{
    if (status != want || !strstr(err->message, word))
        fail_msg("%d, \"%s\" is not %d and does not say \"%s\"", (int)status, err->message, (int)want, word);
}

static void check_refused(changing *c, pd_index *index, uint32_t live, uint32_t empty, uint32_t spare)
{
    pd_error err = {0};
    unsigned char *page = aligned_alloc(64, c->w->layout.page_bytes);
    float value[2] = {0};
    uint32_t lists[2] = {4, 4}, pages[2] = {spare, spare};
    uint32_t beyond = c->w->npages * PD_PAGE_ROWS, slots[2] = {live, empty};
    pd_page_clear(&c->w->shape, &c->w->layout, page);
    refused(pd_index_grow(index, lists, pages, 2, &err), PD_FAILED_PRECONDITION, &err, "list 4");
    pages[1] = live / PD_PAGE_ROWS;
    refused(pd_index_grow(index, lists, pages, 2, &err), PD_FAILED_PRECONDITION, &err, "page");
    pages[1] = c->w->npages;
    refused(pd_index_grow(index, lists, pages, 2, &err), PD_OUT_OF_RANGE, &err, "page 64");
    lists[0] = WORLD_LISTS;
    refused(pd_index_grow(index, lists, pages, 1, &err), PD_OUT_OF_RANGE, &err, "list 13");
    uint32_t unlisted = spare * PD_PAGE_ROWS;
    pd_row_writes writes = {.n = 2, .slots = (uint32_t[]){live, unlisted}, .pages = page, .refine = page};
    refused(pd_index_write_rows(index, &writes, &err), PD_OUT_OF_RANGE, &err, "no list");
    writes.slots = (uint32_t[]){live, beyond};
    refused(pd_index_write_rows(index, &writes, &err), PD_OUT_OF_RANGE, &err, "slot 2048");
    writes.slots = slots;
    writes.refine = NULL;
    refused(pd_index_write_rows(index, &writes, &err), PD_INVALID_ARGUMENT, &err, "refine");
    pd_column_write column = {PD_COLUMN_FLOAT, 1, value};
    refused(pd_index_write_columns(index, slots, 2, &column, 1, &err), PD_OUT_OF_RANGE, &err, "no row");
    refused(pd_index_write_columns(index, &beyond, 1, &column, 1, &err), PD_OUT_OF_RANGE, &err, "slot 2048");
    column.column = 2;
    refused(pd_index_write_columns(index, slots, 1, &column, 1, &err), PD_INVALID_ARGUMENT, &err,
            "float column 2");
    column = (pd_column_write){PD_COLUMN_BYTE, WORLD_BYTES, value};
    refused(pd_index_write_columns(index, slots, 1, &column, 1, &err), PD_INVALID_ARGUMENT, &err,
            "byte column 10");
    refused(pd_index_empty_rows(index, &beyond, 1, &err), PD_OUT_OF_RANGE, &err, "slot 2048");
    refused(pd_index_read_pages(index, PD_PAGES_MAIN, 60, 5, page, &err), PD_OUT_OF_RANGE, &err, "5 pages");
    free(page);
}

/* While a window is open nothing changes, and nothing did when all is over. */
static void check_window(const changing *c, pd_index *index, uint32_t live)
{
    pd_error err = {0};
    void *window;
    uint32_t got, list = 4, page = live / PD_PAGE_ROWS;
    unsigned char *bytes = aligned_alloc(64, c->w->layout.page_bytes);
    pd_row_writes writes = {.n = 1, .slots = &live, .pages = bytes, .refine = bytes};
    float value = 0;
    pd_column_write column = {PD_COLUMN_FLOAT, 1, &value};
    assert_int_equal(pd_index_window(index, PD_PAGES_REFINE, page, 1, &window, &got, &err), PD_OK);
    refused(pd_index_grow(index, &list, &page, 1, &err), PD_FAILED_PRECONDITION, &err, "window");
    refused(pd_index_write_rows(index, &writes, &err), PD_FAILED_PRECONDITION, &err, "window");
    refused(pd_index_write_columns(index, &live, 1, &column, 1, &err), PD_FAILED_PRECONDITION, &err,
            "window");
    refused(pd_index_empty_rows(index, &live, 1, &err), PD_FAILED_PRECONDITION, &err, "window");
    refused(pd_index_read_pages(index, PD_PAGES_MAIN, 0, 1, bytes, &err), PD_FAILED_PRECONDITION, &err,
            "window");
    memcpy(window, c->w->refines + page * c->w->layout.refine_bytes, c->w->layout.refine_bytes);
    assert_int_equal(pd_index_commit(index, &err), PD_OK);
    free(bytes);
}

static void test_impossible_changes_are_refused_and_change_nothing(void **state)
{
    changing *c = changing_make(*state, world_make(PD_L2, PD_CODE_I8, PD_REFINE_F16, 17, WORLD_LISTS), 0.0f);
    if (!c) skip();
    query_set *s = queries_make(c->w);
    uint32_t live = 0, empty = 0, spare = 0;
    while (!has_row(c, live))
        live++;
    while (has_row(c, empty) || c->page_list[empty / PD_PAGE_ROWS] == IN_NO_LIST)
        empty++;
    while (c->page_list[spare] != IN_NO_LIST)
        spare++;
    for (uint32_t i = 0; i < c->d->n; i++) {
        check_refused(c, c->indexes[i], live, empty, spare);
        check_window(c, c->indexes[i], live);
    }
    check_changes(c, s);
    uint32_t list = 4;
    grow(c, &list, &spare, 1); /* what was refused left no mark on it */
    check_changes(c, s);
    queries_free(s);
    changing_free(c);
}

static void test_what_a_table_has_not_cannot_change(void **state)
{
    pd_error err = {0};
    unsigned char byte[1];
    refused(pd_index_empty_rows(NULL, NULL, 0, &err), PD_INVALID_ARGUMENT, &err, "no index");
    changing *c = changing_make(*state, world_make(PD_IP, PD_CODE_F32, PD_REFINE_NONE, 17, 0), 0.0f);
    if (!c) skip();
    uint32_t list = 0, page = 1;
    for (uint32_t i = 0; i < c->d->n; i++) {
        refused(pd_index_grow(c->indexes[i], &list, &page, 1, &err), PD_FAILED_PRECONDITION, &err, "look-up");
        refused(pd_index_read_pages(c->indexes[i], PD_PAGES_REFINE, 0, 1, byte, &err), PD_INVALID_ARGUMENT,
                &err, "kind 1");
    }
    changing_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_deleted_row_never_comes_back),
        cmocka_unit_test(test_a_row_that_is_written_over_is_gone),
        cmocka_unit_test(test_what_memory_held_before_does_not_come_out),
        cmocka_unit_test(test_impossible_changes_are_refused_and_change_nothing),
        cmocka_unit_test(test_what_a_table_has_not_cannot_change),
    };
    return cmocka_run_group_tests(tests, open_tested, close_tested);
}
