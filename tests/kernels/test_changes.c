/* Indexes that change answer as if they had been loaded that way: random changes on every backend that can make them, for every
 * kind of table, and lists that fill. test_emptied.c: what is gone, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#ifdef PD_PARITY_SIMT
#define NQUERIES 32u /* each case at least once */
#endif
#include "changes.h"

#ifdef PD_PARITY_SIMT
#define ROUNDS     1u
#define STEPS      8u
#define APART      2 /* metrics: cosine is left out, which differs from ip in how rows were made */
#define MORE_KINDS 0
#else
#define ROUNDS     5u
#define STEPS      8u
#define APART      1
#define MORE_KINDS 1
#endif

static void change_some(changing *c)
{
    switch (world_below(4)) {
    case 0:
        grow_some(c);
        break;
    case 1:
        write_some_columns(c);
        break;
    case 2:
        empty_some(c);
        break;
    default:
        write_some(c);
    }
}

/* Takes w over. */
static void check_world(const tested_devices *d, world *w, float beta)
{
    assert_non_null(w);
    changing *c = changing_make(d, w, beta);
    if (!c) skip();
    query_set *s = queries_make(w);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (uint32_t step = 0; step < STEPS; step++)
            change_some(c);
        check_changes(c, s);
    }
    queries_free(s);
    changing_free(c);
}

static void test_i8_tables_change_as_if_they_were_loaded(void **state)
{
    for (int metric = PD_IP; metric <= PD_L2; metric += APART) {
        check_world(*state, world_make((pd_metric)metric, PD_CODE_I8, PD_REFINE_F16, 17, WORLD_LISTS), 0.0f);
        check_world(*state, world_make((pd_metric)metric, PD_CODE_I8, PD_REFINE_NONE, 100, WORLD_LISTS),
                    0.0f);
        if (MORE_KINDS)
            check_world(*state, world_make((pd_metric)metric, PD_CODE_I8, PD_REFINE_F32, 3, 70), 0.0f);
    }
}

static void test_tables_of_whole_rows_change_as_if_they_were_loaded(void **state)
{
    check_world(*state, world_make(PD_L2, PD_CODE_F16, PD_REFINE_NONE, 17, WORLD_LISTS), 0.0f);
    check_world(*state, world_make(PD_COSINE, PD_CODE_F32, PD_REFINE_F16, 5, WORLD_LISTS), 0.0f);
    if (MORE_KINDS)
        check_world(*state, world_make(PD_IP, PD_CODE_F32, PD_REFINE_NONE, 33, WORLD_LISTS), 0.0f);
    check_world(*state, world_make(PD_IP, PD_CODE_NONE, PD_REFINE_F16, 17, WORLD_LISTS), 0.0f);
}

static void test_rows_of_whole_numbers_change_as_if_they_were_loaded(void **state)
{
    for (int metric = PD_IP; metric <= PD_L2; metric += 2) {
        check_world(*state,
                    world_make_of(WORLD_WHOLE, (pd_metric)metric, PD_CODE_I8, PD_REFINE_U8, 17, WORLD_LISTS),
                    0.0f);
        if (MORE_KINDS)
            check_world(
                *state,
                world_make_of(WORLD_WHOLE, (pd_metric)metric, PD_CODE_I8, PD_REFINE_I8, 64, WORLD_LISTS),
                0.0f);
    }
}

static void test_projected_tables_change_as_if_they_were_loaded(void **state)
{
    for (int metric = PD_IP; metric <= PD_L2; metric += APART)
        check_world(*state,
                    world_make_projected(WORLD_PLAIN, (pd_metric)metric, PD_CODE_I8, PD_REFINE_F16, 40, 14,
                                         WORLD_LISTS),
                    0.0f);
}

static void test_look_up_tables_change_as_if_they_were_loaded(void **state)
{
    check_world(*state, world_make(PD_L2, PD_CODE_NONE, PD_REFINE_F16, 17, 0), 0.0f);
    check_world(*state, world_make(PD_IP, PD_CODE_F32, PD_REFINE_NONE, 17, 0), 0.0f);
    check_world(*state, world_make(PD_COSINE, PD_CODE_F16, PD_REFINE_F32, 6, 0), 0.0f);
}

static void test_tables_whose_lists_begin_empty_change_as_if_they_were_loaded(void **state)
{
    check_world(*state, world_make_of(WORLD_ONE_LIST, PD_L2, PD_CODE_I8, PD_REFINE_F16, 17, WORLD_LISTS),
                0.0f);
    check_world(*state, world_make_of(WORLD_EQUAL, PD_IP, PD_CODE_I8, PD_REFINE_NONE, 17, WORLD_LISTS), 0.0f);
}

static void test_what_weights_promise_of_lists_stays_what_was_told(void **state)
{
    for (int metric = PD_IP; metric <= PD_L2; metric += APART)
        check_world(*state,
                    world_make_of(WORLD_TIED, (pd_metric)metric, PD_CODE_I8, PD_REFINE_F16, 19, WORLD_LISTS),
                    2.0f);
}

/* Up to eight groups are all looked at; of more, some. */
static void test_tables_with_groups_of_lists_change_as_if_they_were_loaded(void **state)
{
    static const uint32_t ngroups[] = {1, 5, 8, 25};
    for (size_t i = 0; i < sizeof ngroups / sizeof *ngroups; i++) {
        world *w = world_make(i % 2 ? PD_L2 : PD_IP, PD_CODE_I8, PD_REFINE_F16, 17, 70);
        world_group(w, ngroups[i]);
        check_world(*state, w, 0.0f);
    }
    world *w = world_make_of(WORLD_ONE_LIST, PD_L2, PD_CODE_I8, PD_REFINE_NONE, 17, 70);
    world_group(w, 7);
    check_world(*state, w, 0.0f);
}

/* ------------------------------------------------------------------------------------------- lists that fill --- */

/* The list that is nearest to list l's centroid, with rows. */
static uint32_t chosen(const changing *c, uint32_t i, uint32_t l, pd_answer *answer)
{
    pd_error err = {0};
    uint32_t probe = IN_NO_LIST;
    pd_query query = {.vector = c->w->centroids + (size_t)l * c->w->shape.dim,
                      .similarity = 1.0f,
                      .nprobe = 1,
                      .k = 1,
                      .min_score = -INFINITY};
    answer->probes = &probe;
    must_change(c, i, pd_index_search(c->indexes[i], &query, 1, answer, NULL, &err), &err);
    assert_int_equal(answer->nprobe, 1);
    return probe;
}

static void test_a_list_is_chosen_from_its_first_row_to_its_last(void **state)
{
    changing *c = changing_make(*state, world_make(PD_L2, PD_CODE_I8, PD_REFINE_F16, 17, WORLD_LISTS), 0.0f);
    if (!c) skip();
    const uint32_t list = 3; /* has no page */
    uint32_t page = 0;
    pd_hit hit;
    pd_answer answer = {.hits = &hit};
    while (c->page_list[page] != IN_NO_LIST)
        page++;
    uint32_t slots[2] = {page * PD_PAGE_ROWS + 7, page * PD_PAGE_ROWS + 31};
    for (uint32_t i = 0; i < c->d->n; i++)
        assert_int_not_equal(chosen(c, i, list, &answer), list);
    grow(c, &list, &page, 1);
    for (uint32_t i = 0; i < c->d->n; i++)
        assert_int_not_equal(chosen(c, i, list, &answer), list);
    write_at(c, slots, 2, c->w->centroids + (size_t)list * 17);
    empty_at(c, slots, 1);
    for (uint32_t i = 0; i < c->d->n; i++) {
        assert_int_equal(chosen(c, i, list, &answer), list);
        assert_true(answer.count == 1 && hit.slot == slots[1]);
    }
    empty_at(c, slots + 1, 1);
    for (uint32_t i = 0; i < c->d->n; i++)
        assert_int_not_equal(chosen(c, i, list, &answer), list);
    changing_free(c);
}

/* All rows were in one list, so that 23 of 24 groups had none; then fifty lists get rows. A group that never had any must lie among
 * its lists to be found. */
static void test_a_group_of_lists_is_found_once_it_has_rows(void **state)
{
    world *w = world_make_of(WORLD_ONE_LIST, PD_L2, PD_CODE_I8, PD_REFINE_NONE, 17, 70);
    world_group(w, 25);
    changing *c = changing_make(*state, w, 0.0f);
    if (!c) skip();
    pd_hit hit;
    pd_answer answer = {.hits = &hit};
    uint32_t slots[50], n = 0;
    for (uint32_t page = 0; page < w->npages && n < 50; page++) {
        if (c->page_list[page] != IN_NO_LIST) continue;
        uint32_t list = 20 + n;
        grow(c, &list, &page, 1);
        slots[n] = page * PD_PAGE_ROWS + n % PD_PAGE_ROWS;
        write_at(c, &slots[n], 1, w->centroids + (size_t)list * 17);
        n++;
    }
    assert_int_equal(n, 50);
    for (uint32_t i = 0; i < c->d->n; i++) {
        for (uint32_t l = 20; l < 70; l++) {
            if (chosen(c, i, l, &answer) != l) fail_msg("%s: list %u is not found", changing_name(c, i), l);
            assert_true(answer.count == 1 && hit.slot == slots[l - 20]);
        }
    }
    empty_at(c, slots, n);
    for (uint32_t i = 0; i < c->d->n; i++)
        for (uint32_t l = 20; l < 70; l++)
            assert_int_equal(chosen(c, i, l, &answer), 5);
    changing_free(c);
}

/* The one hit of a query that is far from it and asks for a value which no other row has, in one list. */
static void check_found(const changing *c, uint32_t i, uint32_t value, uint32_t slot)
{
    pd_error err = {0};
    pd_hit hits[3];
    pd_answer answer = {.hits = hits};
    pd_byte_test test = {.column = 0, .allow = {1ull << value}};
    pd_filter filter = {.nbytes = 1, .bytes = &test};
    pd_query query = {.similarity = 1.0f, .filter = &filter, .nprobe = 1, .k = 3, .min_score = -INFINITY};
    for (uint32_t l = 0; l < c->w->nlist; l++) {
        query.vector = c->w->centroids + (size_t)l * c->w->shape.dim;
        must_change(c, i, pd_index_search(c->indexes[i], &query, 1, &answer, NULL, &err), &err);
        if (answer.count != 1 || hits[0].slot != slot)
            fail_msg("%s: the row with value %u is not found from list %u", changing_name(c, i), value, l);
    }
}

/* All rows held one value, so that lists were known to hold no other. */
static void test_a_value_that_is_new_to_a_list_is_found(void **state)
{
    static const uint32_t ngroups[] = {0, 25};
    for (size_t t = 0; t < 2; t++) {
        world *w = world_make(PD_L2, PD_CODE_I8, PD_REFINE_NONE, 17, 70);
        world_group(w, ngroups[t]);
        for (uint32_t p = 0; p < w->npages; p++)
            memset(pd_page_bytes(&w->layout, w->pages + p * w->layout.page_bytes, 0), 1, PD_PAGE_ROWS);
        changing *c = changing_make(*state, w, 0.0f);
        if (!c) skip();
        uint32_t slots[2] = {0, 0}, n = 0;
        for (uint32_t slot = 0; n < 2; slot += PD_PAGE_ROWS)
            if (has_row(c, slot)) slots[n++] = slot;
        const uint8_t value = 3;
        const pd_column_write column = {PD_COLUMN_BYTE, 0, &value};
        for (uint32_t i = 0; i < c->d->n; i++) {
            pd_error err = {0};
            must_change(c, i, pd_index_write_columns(c->indexes[i], slots, 1, &column, 1, &err), &err);
            check_found(c, i, value, slots[0]);
        }
        /* Row upon row, until one has another value than 1. */
        uint8_t *bytes = pd_page_bytes(&w->layout, page_of(w, slots[1]), 0);
        do
            write_at(c, slots + 1, 1, NULL);
        while (bytes[0] == 1 || bytes[0] == value);
        for (uint32_t i = 0; i < c->d->n; i++)
            check_found(c, i, bytes[0], slots[1]);
        changing_free(c);
    }
}

/* Page by page, so that lists move whenever they are full. */
static void test_every_page_finds_a_place_in_some_list(void **state)
{
    changing *c = changing_make(*state, world_make(PD_IP, PD_CODE_F16, PD_REFINE_NONE, 5, WORLD_LISTS), 0.0f);
    if (!c) skip();
    query_set *s = queries_make(c->w);
    for (uint32_t page = 0; page < c->w->npages; page++) {
        if (c->page_list[page] != IN_NO_LIST) continue;
        uint32_t list = world_below(3) ? 12 : world_below(WORLD_LISTS),
                 slot = page * PD_PAGE_ROWS + page % 32;
        grow(c, &list, &page, 1);
        write_at(c, &slot, 1, NULL);
    }
    check_changes(c, s);
    queries_free(s);
    changing_free(c);
}

/* A page that was filled through a window and is in no list yet brings its rows along. */
static void test_a_page_that_was_loaded_joins_a_list_with_its_rows(void **state)
{
    changing *c = changing_make(*state, world_make(PD_L2, PD_CODE_I8, PD_REFINE_NONE, 17, WORLD_LISTS), 0.0f);
    if (!c) skip();
    query_set *s = queries_make(c->w);
    uint32_t page = 0, from = 0, list = 12, got;
    size_t bytes = c->w->layout.page_bytes;
    while (c->page_list[page] != IN_NO_LIST)
        page++;
    while (c->page_list[from] == IN_NO_LIST)
        from++;
    unsigned char *own = c->w->pages + page * bytes;
    memcpy(own, c->w->pages + from * bytes, bytes);
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++) {
        pd_page_ids(&c->w->layout, own)[r] += 7000000000u;
        if (!(pd_page_term(&c->w->layout, own)[r] > -INFINITY)) wipe(c->w, page * PD_PAGE_ROWS + r);
    }
    for (uint32_t i = 0; i < c->d->n; i++) {
        pd_error err = {0};
        void *window;
        must_change(c, i, pd_index_window(c->indexes[i], PD_PAGES_MAIN, page, 1, &window, &got, &err), &err);
        memcpy(window, own, bytes);
        must_change(c, i, pd_index_commit(c->indexes[i], &err), &err);
        /* Until then nobody sees it. */
        uint32_t slots[PD_PAGE_ROWS];
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            slots[r] = page * PD_PAGE_ROWS + r;
        pd_hit hits[PD_PAGE_ROWS];
        pd_answer answer = {.hits = hits};
        pd_query query = {.vector = c->w->rows,
                          .similarity = 1.0f,
                          .slots = slots,
                          .nslots = PD_PAGE_ROWS,
                          .k = PD_PAGE_ROWS,
                          .min_score = -INFINITY};
        must_change(c, i, pd_index_search(c->indexes[i], &query, 1, &answer, NULL, &err), &err);
        assert_int_equal(answer.count, 0);
    }
    grow(c, &list, &page, 1);
    check_changes(c, s);
    queries_free(s);
    changing_free(c);
}

static void test_lists_that_are_set_again_replace_those_that_grew(void **state)
{
    changing *c = changing_make(*state, world_make(PD_L2, PD_CODE_I8, PD_REFINE_NONE, 17, WORLD_LISTS), 0.0f);
    if (!c) skip();
    query_set *s = queries_make(c->w);
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t step = 0; step < STEPS; step++)
            change_some(c);
        count_lists(c);
        pd_lists lists = {.centroids = c->w->centroids,
                          .offsets = c->w->offsets,
                          .pages = c->w->page_numbers,
                          .rows = c->w->counts};
        for (uint32_t i = 0; i < c->d->n; i++) {
            pd_error err = {0};
            must_change(c, i, pd_index_set_lists(c->indexes[i], &lists, &err), &err);
        }
        check_changes(c, s);
    }
    queries_free(s);
    changing_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_i8_tables_change_as_if_they_were_loaded),
        cmocka_unit_test(test_tables_of_whole_rows_change_as_if_they_were_loaded),
        cmocka_unit_test(test_rows_of_whole_numbers_change_as_if_they_were_loaded),
        cmocka_unit_test(test_projected_tables_change_as_if_they_were_loaded),
        cmocka_unit_test(test_look_up_tables_change_as_if_they_were_loaded),
        cmocka_unit_test(test_tables_whose_lists_begin_empty_change_as_if_they_were_loaded),
        cmocka_unit_test(test_what_weights_promise_of_lists_stays_what_was_told),
        cmocka_unit_test(test_tables_with_groups_of_lists_change_as_if_they_were_loaded),
        cmocka_unit_test(test_a_list_is_chosen_from_its_first_row_to_its_last),
        cmocka_unit_test(test_a_group_of_lists_is_found_once_it_has_rows),
        cmocka_unit_test(test_a_value_that_is_new_to_a_list_is_found),
        cmocka_unit_test(test_every_page_finds_a_place_in_some_list),
        cmocka_unit_test(test_a_page_that_was_loaded_joins_a_list_with_its_rows),
        cmocka_unit_test(test_lists_that_are_set_again_replace_those_that_grew),
    };
    return cmocka_run_group_tests(tests, open_tested, close_tested);
}
