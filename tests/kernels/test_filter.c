/* Filters over a page against their words in backend.h, row by row; and that summaries of pages and lists never exclude a
 * row that passes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tested.h"
#include "blocks.h"
#include "filter.h"
#include "host.h"
#include "world.h"

enum { PAGES = 40, TESTS = 400 };

/* Byte columns: 0 of 5 values, 1 of 200, 2 of one value, 3 .. 10 the planes of a set, of which the last is never used. */
typedef struct table {
    pd_shape shape;
    pd_layout layout;
    unsigned char *pages;
} table;

static unsigned char *page_of(const table *t, uint32_t p)
{
    return t->pages + p * t->layout.page_bytes;
}

static int up(void **state)
{
    table *t = calloc(1, sizeof *t);
    assert_non_null(t);
    t->shape = (pd_shape){
        .metric = PD_IP, .code = PD_CODE_I8, .dim = 4, .nlist = 4, .nbytes = 11, .nfloats = 2, .nkeys = 1};
    t->shape.sizes[0] = 5;
    t->shape.sizes[1] = 200;
    t->shape.sizes[2] = 1;
    for (uint32_t j = 0; j < 7; j++)
        t->shape.sizes[3 + j] = 256;
    pd_error err;
    assert_int_equal(pd_layout_of(&t->shape, &t->layout, &err), PD_OK);
    t->pages = aligned_alloc(64, PAGES * t->layout.page_bytes);
    assert_non_null(t->pages);
    world_state = 4711;
    for (uint32_t p = 0; p < PAGES; p++) {
        pd_page_clear(&t->shape, &t->layout, page_of(t, p));
        uint32_t rows = p % 7 == 3 ? 0 : p % 5 == 1 ? 9 : PD_PAGE_ROWS, few = world_below(4);
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++) {
            /* What an empty slot holds must not matter. */
            if (r < rows && world_below(10)) pd_page_term(&t->layout, page_of(t, p))[r] = 0;
            pd_page_bytes(&t->layout, page_of(t, p), 0)[r] = (uint8_t)world_below(few ? 2 : 5);
            pd_page_bytes(&t->layout, page_of(t, p), 1)[r] =
                (uint8_t)(few == 1 ? 64 + world_below(4) : world_below(200));
            for (uint32_t j = 0; j < 7; j++)
                pd_page_bytes(&t->layout, page_of(t, p), 3 + j)[r] =
                    (uint8_t)(world_random() & world_random() & world_random() & (few ? 0xff : 0x41));
            pd_page_floats(&t->layout, page_of(t, p), 0)[r] = world_below(6) ? world_normal() : NAN;
            pd_page_floats(&t->layout, page_of(t, p), 1)[r] = world_below(2) ? 0.0f : -0.0f;
            pd_page_keys(&t->layout, page_of(t, p), 0)[r] = world_below(5);
        }
    }
    *state = t;
    return 0;
}

static int down(void **state)
{
    table *t = *state;
    free(t->pages);
    free(t);
    return 0;
}

/* ------------------------------------------------------------------------------------------------- by words --- */

static int among(const pd_key_test *test, uint64_t key)
{
    for (uint32_t i = 0; i < test->count; i++)
        if (test->values[i] == key) return 1;
    return 0;
}

static int passes(const table *t, const pd_filter *f, unsigned char *page, uint32_t row)
{
    const pd_layout *l = &t->layout;
    for (uint32_t i = 0; i < f->nbytes; i++) {
        uint8_t value = pd_page_bytes(l, page, f->bytes[i].column)[row];
        if (!(f->bytes[i].allow[value / 64] >> value % 64 & 1)) return 0;
    }
    for (uint32_t i = 0; i < f->nranges; i++) {
        float value = pd_page_floats(l, page, f->ranges[i].column)[row];
        if (!(value >= f->ranges[i].low && value <= f->ranges[i].high)) return 0;
    }
    for (uint32_t i = 0; i < f->nsets; i++) {
        uint64_t mask = 0;
        for (uint32_t j = 0; j < 8; j++)
            mask |= (uint64_t)pd_page_bytes(l, page, f->sets[i].column + j)[row] << 8 * j;
        if (f->sets[i].any && !(mask & f->sets[i].any)) return 0;
        if ((mask & f->sets[i].all) != f->sets[i].all || (mask & f->sets[i].none)) return 0;
    }
    for (uint32_t i = 0; i < f->nkeys; i++) {
        uint64_t key = pd_page_keys(l, page, f->keys[i].column)[row];
        int found = key != 0 && among(&f->keys[i], key);
        if (found == f->keys[i].negate) return 0;
    }
    return 1;
}

typedef struct drawn {
    pd_filter filter;
    pd_byte_test bytes[2];
    pd_range_test range;
    pd_set_test set;
    pd_key_test key;
    uint64_t keys[3];
} drawn;

static void draw_bytes(pd_byte_test *test, uint32_t column, uint32_t size)
{
    uint32_t value = world_below(size), kind = world_below(4);
    *test = (pd_byte_test){.column = column};
    for (uint32_t v = 0; v < 256; v++) {
        int in = kind == 0   ? v == value                                        /* is */
                 : kind == 1 ? v != value                                        /* is not */
                 : kind == 2 ? v >= value && v <= value + size / 8               /* a run */
                             : (int)(world_below(size > 8 ? size / 4 : 2) == 0); /* some, or none */
        if (in) test->allow[v / 64] |= 1ull << v % 64;
    }
}

static uint64_t draw_members(void)
{
    return world_below(3) ? 1ull << world_below(56) : world_random() & world_random() & world_random();
}

static void draw(drawn *d)
{
    memset(d, 0, sizeof *d);
    d->filter = (pd_filter){.bytes = d->bytes, .ranges = &d->range, .sets = &d->set, .keys = &d->key};
    if (world_below(2)) draw_bytes(&d->bytes[d->filter.nbytes++], 0, 5);
    if (world_below(2)) draw_bytes(&d->bytes[d->filter.nbytes++], 1, 200);
    float low = world_normal(), width = world_normal();
    if (world_below(3) == 0) {
        d->range = (pd_range_test){.column = world_below(2), .low = low, .high = low + width};
        if (world_below(3) == 0) d->range.low = -INFINITY;
        if (world_below(3) == 0) d->range.high = world_below(2) ? INFINITY : 0.0f;
        d->filter.nranges = 1;
    }
    if (world_below(2)) {
        d->set.column = 3;
        if (world_below(2)) d->set.any = draw_members();
        if (world_below(3) == 0) d->set.all = draw_members();
        if (world_below(3) == 0) d->set.none = draw_members();
        d->filter.nsets = 1;
    }
    if (world_below(4) == 0) {
        d->key = (pd_key_test){.negate = (int)world_below(2), .count = 1 + world_below(3), .values = d->keys};
        for (uint32_t i = 0; i < 3; i++)
            d->keys[i] = 1 + i + (i == 2 ? world_below(3) : 0);
        d->filter.nkeys = 1;
    }
}

static uint32_t passing(const table *t, const pd_filter *f, uint32_t p)
{
    uint32_t mask = 0;
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
        mask |= (uint32_t)passes(t, f, page_of(t, p), r) << r;
    return mask;
}

static void test_a_filtered_page_is_what_its_words_say(void **state)
{
    const table *t = *state;
    uint32_t some = 0;
    for (uint32_t i = 0; i < TESTS; i++) {
        drawn d;
        draw(&d);
        for (uint32_t p = 0; p < PAGES; p++) {
            uint32_t right = passing(t, &d.filter, p), among_these = (uint32_t)world_random() | 1u;
            assert_int_equal(pd_filter_page(&t->layout, &d.filter, page_of(t, p), 0xffffffffu), right);
            assert_int_equal(pd_filter_page(&t->layout, &d.filter, page_of(t, p), among_these),
                             right & among_these);
            some += right != 0 && right != 0xffffffffu;
        }
    }
    assert_true(some > TESTS); /* the filters are not all one way */
}

/* ------------------------------------------------------------------------------------------------- summaries --- */

static void test_summaries_exclude_no_row_that_passes_and_many_that_do_not(void **state)
{
    const table *t = *state;
    static const uint32_t offsets[] = {0, 10, 10, 26,
                                       38}; /* the second list is empty, two pages are nobody's */
    uint32_t pages[PAGES], excluded = 0, empty = 0;
    pd_blocks blocks;
    pd_error err;
    for (uint32_t i = 0; i < PAGES; i++)
        pages[i] = (i * 7 + 3) % PAGES;
    assert_int_equal(pd_blocks_open(&blocks, &t->shape, PAGES, &err), PD_OK);
    assert_int_equal(blocks.columns, 9); /* one value, or a plane without members, tells nothing */
    for (uint32_t p = 0; p < PAGES; p++)
        pd_blocks_page(&blocks, &t->layout, p, page_of(t, p));
    blocks.lists = pd_blocks_lists(&blocks, 4, offsets, pages);
    assert_non_null(blocks.lists);
    for (uint32_t i = 0; i < TESTS; i++) {
        drawn d;
        pd_block_filter folded;
        draw(&d);
        int tells = pd_block_filter_of(&blocks, &d.filter, &folded);
        assert_int_equal(tells, folded.ntests + folded.ngroups > 0);
        for (uint32_t list = 0; list < 4; list++) {
            int list_may = pd_blocks_list_may(&blocks, &folded, list), some = 0;
            for (uint32_t at = offsets[list]; at < offsets[list + 1]; at++) {
                uint32_t p = pages[at];
                uint32_t right = passing(t, &d.filter, p) & pd_page_live(&t->layout, page_of(t, p));
                int page_may = pd_blocks_page_may(&blocks, &folded, p);
                assert_true(page_may || right == 0);
                assert_true(list_may || !page_may);
                some |= right != 0;
                empty += right == 0;
                excluded += !page_may;
            }
            assert_true(list_may || !some);
        }
        if (tells) assert_false(pd_blocks_list_may(&blocks, &folded, 1));
    }
    assert_true(excluded > empty / 3); /* of the pages without a match, a good part is seen as such */
    pd_blocks_close(&blocks);
}

static void test_more_tests_than_there_is_room_for_weaken_a_summary_only(void **state)
{
    const table *t = *state;
    pd_blocks blocks;
    pd_error err;
    pd_byte_test bytes[3 * PD_BLOCK_TESTS];
    pd_set_test sets[3 * PD_BLOCK_GROUPS];
    pd_block_filter folded;
    for (uint32_t i = 0; i < 3 * PD_BLOCK_TESTS; i++)
        bytes[i] = (pd_byte_test){.column = i % 2, .allow = {1}};
    for (uint32_t i = 0; i < 3 * PD_BLOCK_GROUPS; i++)
        sets[i] = (pd_set_test){.column = 3, .any = 1ull << 8 | 1};
    assert_int_equal(pd_blocks_open(&blocks, &t->shape, PAGES, &err), PD_OK);
    pd_filter filter = {
        .nbytes = 3 * PD_BLOCK_TESTS, .bytes = bytes, .nsets = 3 * PD_BLOCK_GROUPS, .sets = sets};
    assert_true(pd_block_filter_of(&blocks, &filter, &folded));
    assert_int_equal(folded.ntests, PD_BLOCK_TESTS);
    assert_int_equal(folded.ngroups, PD_BLOCK_GROUPS);
    pd_blocks_page(&blocks, &t->layout, 0, page_of(t, 0));
    filter.nsets = 0;
    assert_false(pd_block_filter_of(&blocks, NULL, &folded));
    assert_true(pd_blocks_page_may(&blocks, &folded, 0)); /* nothing said, nothing excluded */
    pd_blocks_close(&blocks);
}

static void test_a_value_written_after_the_lists_were_set_is_found(void **state)
{
    (void)state;
    static const char *const backends[] = {"reference", TESTED};
    world *w = world_make(PD_IP, PD_CODE_I8, PD_REFINE_NONE, 16, WORLD_LISTS);
    assert_non_null(w);
    for (uint32_t p = 0; p < w->npages; p++) /* nobody holds 4 */
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            pd_page_bytes(&w->layout, w->pages + p * w->layout.page_bytes, 0)[r] %= 4;
    uint32_t row = 17;
    while (w->deleted[row])
        row++;
    for (int b = 0; b < 4; b++) { /* on one level and on two */
        pd_device *device;
        pd_index *index;
        pd_error err;
        pd_device_options options = {.memory = 8u << 20, .threads = 1};
        world_group(w, b < 2 ? 0 : 5);
        assert_int_equal(pd_device_open(backends[b % 2], &options, &device, &err), PD_OK);
        assert_int_equal(world_load(w, device, 0, &index, &err), PD_OK);
        pd_byte_test four = {.column = 0, .allow = {1u << 4}};
        pd_filter filter = {.nbytes = 1, .bytes = &four};
        pd_query query = {.vector = w->rows,
                          .similarity = 1,
                          .filter = &filter,
                          .nprobe = WORLD_LISTS,
                          .k = 5,
                          .min_score = -INFINITY};
        pd_hit hits[5];
        pd_answer answer = {.hits = hits};
        assert_int_equal(pd_index_search(index, &query, 1, &answer, NULL, &err), PD_OK);
        assert_int_equal(answer.count, 0);
        assert_int_equal(answer.scanned, 0);
        void *page;
        uint32_t got;
        assert_int_equal(
            pd_index_window(index, PD_PAGES_MAIN, w->slot[row] / PD_PAGE_ROWS, 1, &page, &got, &err), PD_OK);
        pd_page_bytes(&w->layout, page, 0)[w->slot[row] % PD_PAGE_ROWS] = 4;
        assert_int_equal(pd_index_commit(index, &err), PD_OK);
        assert_int_equal(pd_index_search(index, &query, 1, &answer, NULL, &err), PD_OK);
        assert_int_equal(answer.count, 1);
        assert_int_equal(hits[0].id, w->ids[row]);
        const pd_host_index *host = (const pd_host_index *)index;
        pd_block_filter fold;
        assert_true(pd_block_filter_of(&host->blocks, &filter, &fold));
        for (uint32_t g = 0; g < w->ngroups; g++) {
            int holds = w->list[row] >= w->group_first[g] && w->list[row] < w->group_first[g + 1];
            assert_int_equal(pd_level_may(&host->upper, &host->blocks, &fold, g), holds);
        }
        pd_index_close(index);
        pd_device_close(device);
    }
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_filtered_page_is_what_its_words_say),
        cmocka_unit_test(test_summaries_exclude_no_row_that_passes_and_many_that_do_not),
        cmocka_unit_test(test_a_value_written_after_the_lists_were_set_is_found),
        cmocka_unit_test(test_more_tests_than_there_is_room_for_weaken_a_summary_only),
    };
    return cmocka_run_group_tests(tests, up, down);
}
