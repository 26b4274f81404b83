/* Integer dots: every table that this machine has, and the tile code over a model of the instructions, against plain
 * sums. Where this machine has tiles, the same cases run on them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "cpu/ops.h"

/* ------------------------------------------------------------------------- the tile code over the model --- */

static void small_pack(const int8_t *codes, uint32_t dim64, void *out)
{
    memcpy(out, codes, dim64);
}

static void small_dots(const int8_t *codes, uint32_t groups, uint32_t dim64, const void *queries, uint32_t n,
                       int32_t *out)
{
    const int8_t *query = queries;
    for (uint32_t i = 0; i < n; i++, query += dim64 + 64)
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++) {
            int32_t sum = 0;
            for (uint32_t d = 0; d < 4 * groups; d++)
                sum += query[d] * codes[(d / 4 * PD_PAGE_ROWS + r) * 4 + d % 4];
            out[i * PD_PAGE_ROWS + r] = sum;
        }
}

static const pd_cpu_i8 small_groups = {.isa = "plain", .width = 1, .pack = small_pack, .dots = small_dots};

#define PD_TILE_MODEL
#define AMX_SMALL     small_groups
#define pd_cpu_i8_amx modelled
extern const pd_cpu_i8 modelled;
#include "cpu/tile.h"
#include "amx_model.h"
#include "cpu/i8_amx.c"
#undef pd_cpu_i8_amx

/* ------------------------------------------------------------------------------------- memory with edges --- */

/* Memory of whole pages of the system's between two that nobody may touch. */
typedef struct arena {
    unsigned char *base, *low, *high; /* what may be used */
    size_t mapped;
} arena;

static arena arena_of(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t room = (bytes + page - 1) / page * page;
    arena a = {.mapped = room + 2 * page};
    a.base = mmap(NULL, a.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(a.base, MAP_FAILED);
    a.low = a.base + page;
    a.high = a.low + room;
    assert_int_equal(mprotect(a.low, room, PROT_READ | PROT_WRITE), 0);
    return a;
}

static void arena_free(arena *a)
{
    assert_int_equal(munmap(a->base, a->mapped), 0);
}

/* ------------------------------------------------------------------------------------------ a page's case --- */

#define MOST_DIM64 PD_MAX_DIM
#define MOST_PAGE  ((size_t)PD_MAX_DIM * PD_PAGE_ROWS)

typedef enum fill { FILL_RANDOM, FILL_MOST, FILL_LEAST, FILL_ZERO, FILL_SIGNS } fill;

static uint64_t random_state = 88172645463325252ull;

static uint32_t random_below(uint32_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)((random_state >> 32) * n >> 32);
}

static int8_t code_of(fill kind)
{
    switch (kind) {
    case FILL_MOST:
        return 127;
    case FILL_LEAST:
        return -127;
    case FILL_ZERO:
        return 0;
    case FILL_SIGNS:
        return random_below(2) ? 127 : -127;
    default:
        return (int8_t)((int)random_below(255) - 127);
    }
}

static const pd_cpu_i8 *tables[5];
static size_t ntables;

static int8_t *queries;       /* [PD_GROUP][MOST_DIM64] */
static int8_t *page;          /* [groups][32][4] */
static int32_t *right;        /* [PD_GROUP][32] */
static unsigned char *packed; /* [PD_GROUP][pd_packed_bytes], as one table wants it */

static uint32_t groups_of(uint32_t dim)
{
    return (dim + 3) / 4;
}

/* Fills queries and page, and sums plainly. Behind dim the page holds anything, as padding may. */
static void make(uint32_t dim, fill of_queries, fill of_rows)
{
    uint32_t dim64 = pd_dim64(dim);
    memset(queries, 0, (size_t)PD_GROUP * dim64);
    for (uint32_t i = 0; i < PD_GROUP; i++)
        for (uint32_t d = 0; d < dim; d++)
            queries[i * dim64 + d] = code_of(of_queries);
    for (size_t at = 0; at < (size_t)groups_of(dim) * PD_PAGE_ROWS * 4; at++)
        page[at] = code_of(of_rows);
    memset(right, 0, sizeof *right * PD_GROUP * PD_PAGE_ROWS);
    for (uint32_t i = 0; i < PD_GROUP; i++)
        for (uint32_t d = 0; d < dim; d++)
            for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
                right[i * PD_PAGE_ROWS + r] +=
                    queries[i * dim64 + d] * page[(d / 4 * PD_PAGE_ROWS + r) * 4 + d % 4];
}

static void pack_all(const pd_cpu_i8 *table, uint32_t dim64)
{
    for (uint32_t i = 0; i < PD_GROUP; i++)
        table->pack(queries + (size_t)i * dim64, dim64, packed + i * pd_packed_bytes(table, dim64));
}

/* rows: a bit for each row that must be right. */
static void compare(const pd_cpu_i8 *table, uint32_t dim, uint32_t n, const int32_t *out, uint32_t rows)
{
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            if ((rows >> r & 1) && out[i * PD_PAGE_ROWS + r] != right[i * PD_PAGE_ROWS + r])
                fail_msg("%s, dim %u, group of %u: query %u, row %u is %d, not %d", table->isa, dim, n, i, r,
                         out[i * PD_PAGE_ROWS + r], right[i * PD_PAGE_ROWS + r]);
}

static void check_groups(uint32_t dim, const uint32_t *sizes, size_t nsizes)
{
    int32_t out[PD_GROUP * PD_PAGE_ROWS];
    for (size_t t = 0; t < ntables; t++) {
        pack_all(tables[t], pd_dim64(dim));
        for (size_t s = 0; s < nsizes; s++) {
            memset(out, 0x55, sizeof out);
            tables[t]->dots(page, groups_of(dim), pd_dim64(dim), packed, sizes[s], out);
            compare(tables[t], dim, sizes[s], out, UINT32_MAX);
            for (size_t at = (size_t)sizes[s] * PD_PAGE_ROWS; at < PD_GROUP * PD_PAGE_ROWS; at++)
                assert_int_equal(out[at], 0x55555555);
        }
    }
}

static const uint32_t all_sizes[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16,
                                     17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32};
/* What a table treats apart: one query, blocks just filled and just over. */
static const uint32_t some_sizes[] = {1, 3, 7, 8, 9, 12, 13, 16, 17, 25, 31, 32};

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ------------------------------------------------------------------------------------------------- tests --- */

static void test_every_group_size_gives_plain_sums(void **state)
{
    static const uint32_t dims[] = {1, 4, 63, 64, 65, 100, 128, 192, 300, 784, 1024, 8192};
    (void)state;
    for (size_t d = 0; d < COUNT(dims); d++) {
        make(dims[d], FILL_RANDOM, FILL_RANDOM);
        check_groups(dims[d], all_sizes, COUNT(all_sizes));
    }
}

static void test_every_dimension_gives_plain_sums(void **state)
{
    (void)state;
    for (uint32_t dim = 1; dim <= 300; dim++) {
        make(dim, FILL_RANDOM, FILL_RANDOM);
        check_groups(dim, some_sizes, COUNT(some_sizes));
    }
}

static void test_the_largest_codes_do_not_saturate(void **state)
{
    static const uint32_t dims[] = {3, 64, 784, 8192};
    static const fill kinds[] = {FILL_MOST, FILL_LEAST, FILL_ZERO, FILL_SIGNS};
    (void)state;
    for (size_t d = 0; d < COUNT(dims); d++)
        for (size_t q = 0; q < COUNT(kinds); q++)
            for (size_t r = 0; r < COUNT(kinds); r++) {
                make(dims[d], kinds[q], kinds[r]);
                check_groups(dims[d], some_sizes, COUNT(some_sizes));
            }
}

static void test_a_slot_without_a_row_disturbs_no_other(void **state)
{
    static const uint32_t dims[] = {5, 64, 200, 784};
    int32_t out[PD_GROUP * PD_PAGE_ROWS];
    (void)state;
    for (size_t d = 0; d < COUNT(dims); d++) {
        uint32_t groups = groups_of(dims[d]), dim64 = pd_dim64(dims[d]), live = 0x5a3c0ff1u;
        make(dims[d], FILL_SIGNS, FILL_RANDOM);
        for (size_t at = 0; at < (size_t)groups * PD_PAGE_ROWS * 4; at++)
            if (!(live >> at / 4 % PD_PAGE_ROWS & 1)) page[at] = random_below(2) ? INT8_MIN : INT8_MAX;
        for (size_t t = 0; t < ntables; t++) {
            pack_all(tables[t], dim64);
            for (size_t s = 0; s < COUNT(some_sizes); s++) {
                tables[t]->dots(page, groups, dim64, packed, some_sizes[s], out);
                compare(tables[t], dims[d], some_sizes[s], out, live);
            }
        }
    }
}

/* Codes, queries and sums each begin right behind, or end right before, memory that cannot be touched. */
static void check_edges(const pd_cpu_i8 *table, uint32_t dim, arena *codes, arena *group, arena *sums)
{
    uint32_t dim64 = pd_dim64(dim);
    size_t page_bytes = (size_t)groups_of(dim) * PD_PAGE_ROWS * 4, one = pd_packed_bytes(table, dim64);
    pack_all(table, dim64);
    for (size_t s = 0; s < COUNT(some_sizes); s++)
        for (int at_end = 0; at_end < 2; at_end++) {
            uint32_t n = some_sizes[s];
            size_t out_bytes = n * PD_PAGE_ROWS * sizeof(int32_t);
            unsigned char *c = at_end ? codes->high - page_bytes : codes->low;
            unsigned char *q = at_end ? group->high - n * one : group->low;
            unsigned char *o = at_end ? sums->high - out_bytes : sums->low;
            memcpy(c, page, page_bytes);
            memcpy(q, packed, n * one);
            table->dots((const int8_t *)c, groups_of(dim), dim64, q, n, (int32_t *)(void *)o);
            compare(table, dim, n, (const int32_t *)(const void *)o, UINT32_MAX);
        }
}

static void test_nothing_outside_the_page_the_queries_and_the_sums_is_touched(void **state)
{
    static const uint32_t dims[] = {1, 4, 17, 60, 63, 64, 65, 68, 100, 128, 129, 191, 192, 256, 300, 784};
    (void)state;
    arena codes = arena_of(784 * PD_PAGE_ROWS), sums = arena_of(PD_GROUP * PD_PAGE_ROWS * sizeof(int32_t));
    arena group = arena_of(PD_GROUP * (2 * (size_t)pd_dim64(784) + 64));
    for (size_t d = 0; d < COUNT(dims); d++) {
        make(dims[d], FILL_RANDOM, FILL_RANDOM);
        for (size_t t = 0; t < ntables; t++)
            check_edges(tables[t], dims[d], &codes, &group, &sums);
    }
    arena_free(&codes);
    arena_free(&sums);
    arena_free(&group);
}

static void test_codes_need_the_alignment_of_a_column_only(void **state)
{
    static const uint32_t dims[] = {64, 100, 784};
    int32_t out[PD_GROUP * PD_PAGE_ROWS];
    (void)state;
    for (size_t d = 0; d < COUNT(dims); d++) {
        size_t bytes = (size_t)groups_of(dims[d]) * PD_PAGE_ROWS * 4;
        unsigned char *memory = NULL;
        assert_int_equal(posix_memalign((void **)&memory, 64, 32 + bytes), 0);
        make(dims[d], FILL_RANDOM, FILL_RANDOM);
        memcpy(memory + 32, page, bytes);
        for (size_t t = 0; t < ntables; t++) {
            pack_all(tables[t], pd_dim64(dims[d]));
            for (size_t s = 0; s < COUNT(some_sizes); s++) {
                tables[t]->dots((const int8_t *)memory + 32, groups_of(dims[d]), pd_dim64(dims[d]), packed,
                                some_sizes[s], out);
                compare(tables[t], dims[d], some_sizes[s], out, UINT32_MAX);
            }
        }
        free(memory);
    }
}

static void test_large_groups_go_through_tiles_and_small_ones_do_not(void **state)
{
    uint32_t dim = 784;
    int32_t out[PD_GROUP * PD_PAGE_ROWS];
    (void)state;
    make(dim, FILL_RANDOM, FILL_RANDOM);
    pack_all(&modelled, pd_dim64(dim));
    for (uint32_t n = 1; n <= PD_GROUP; n++) {
        uint64_t before = model.dots;
        modelled.dots(page, groups_of(dim), pd_dim64(dim), packed, n, out);
        assert_int_equal(model.dots - before, n < AMX_LEAST ? 0 : 4 * 13);
    }
}

static void test_tiles_are_shaped_anew_only_when_the_shape_changes(void **state)
{
    int32_t out[PD_GROUP * PD_PAGE_ROWS];
    (void)state;
    make(128, FILL_RANDOM, FILL_RANDOM);
    pack_all(&modelled, 128);
    tile_release();
    uint64_t before = model.configured;
    for (uint32_t n = 17; n <= 32; n++)
        modelled.dots(page, 32, 128, packed, n, out);
    assert_int_equal(model.configured - before, 1);
    for (uint32_t n = AMX_LEAST; n <= 16; n++)
        modelled.dots(page, 32, 128, packed, n, out);
    assert_int_equal(model.configured - before, 2);
}

/* What another library may leave behind on the same thread. */
static void test_tiles_that_others_shaped_or_released_do_no_harm(void **state)
{
    tile_config foreign = {.palette = 1, .colsb = {[2] = 4, [6] = 64}, .rows = {[2] = 3, [6] = 16}};
    int32_t out[PD_GROUP * PD_PAGE_ROWS];
    (void)state;
    make(200, FILL_RANDOM, FILL_RANDOM);
    pack_all(&modelled, 256);
    for (uint32_t n = 1; n <= PD_GROUP; n++) {
        tile_configure(&foreign);
        modelled.dots(page, 50, 256, packed, n, out);
        compare(&modelled, 200, n, out, UINT32_MAX);
        tile_release();
        modelled.dots(page, 50, 256, packed, n, out);
        compare(&modelled, 200, n, out, UINT32_MAX);
    }
}

static void test_a_thread_that_rests_holds_no_tiles(void **state)
{
    static const tile_config released;
    int32_t out[PD_GROUP * PD_PAGE_ROWS];
    (void)state;
    make(64, FILL_RANDOM, FILL_RANDOM);
    for (size_t t = 0; t < ntables; t++) {
        pack_all(tables[t], 64);
        tables[t]->dots(page, 16, 64, packed, 32, out);
        if (tables[t] == &modelled) assert_memory_not_equal(&model.config, &released, sizeof released);
        if (tables[t]->rest) tables[t]->rest();
        if (tables[t] == &modelled) assert_memory_equal(&model.config, &released, sizeof released);
        tables[t]->dots(page, 16, 64, packed, 32, out);
        compare(tables[t], 64, 32, out, UINT32_MAX);
    }
    assert_non_null(modelled.rest);
}

/* The model must object, or the tests above show nothing. */
static void test_the_model_faults_where_the_processor_would(void **state)
{
    static const tile_config too_tall = {.palette = 1, .colsb = {64}, .rows = {17}},
                             too_wide = {.palette = 1, .colsb = {65}, .rows = {16}},
                             ninth = {.palette = 1, .colsb = {[8] = 64}, .rows = {[8] = 16}},
                             half = {.palette = 1, .colsb = {64}, .rows = {0}}, unknown = {.palette = 2},
                             good = {.palette = 1, .colsb = {64, 64, 64, 32}, .rows = {8, 8, 16, 8}};
    int32_t memory[256] = {0};
    (void)state;
    tile_release();
    expect_assert_failure(tile_configure(&too_tall));
    expect_assert_failure(tile_configure(&too_wide));
    expect_assert_failure(tile_configure(&ninth));
    expect_assert_failure(tile_configure(&half));
    expect_assert_failure(tile_configure(&unknown));
    expect_assert_failure(tile_zero(0)); /* nothing is configured */
    expect_assert_failure(tile_load(0, memory, 64));
    tile_configure(&good);
    expect_assert_failure(tile_store(4, memory, 64)); /* tile 4 is not */
    expect_assert_failure(tile_dots(0, 2, 1));        /* 16 rows into 8 */
    expect_assert_failure(tile_dots(0, 3, 2));        /* 32 bytes a row meet 16 lines */
    expect_assert_failure(tile_dots(0, 1, 1));        /* one tile twice */
    tile_dots(0, 1, 2);
    tile_release();
}

static int set_up(void **state)
{
    static const char *const isas[] = {"portable", "avx2", "avx512", "amx"};
    (void)state;
    for (size_t i = 0; i < COUNT(isas); i++) {
        const pd_cpu_ops *ops;
        const pd_cpu_i8 *i8;
        if (pd_cpu_ops_find(isas[i], &ops, &i8))
            tables[ntables++] = i8;
        else
            print_message("%s is not on this machine\n", isas[i]);
    }
    tables[ntables++] = &modelled;
    queries = malloc((size_t)PD_GROUP * MOST_DIM64);
    page = malloc(MOST_PAGE);
    right = malloc(sizeof *right * PD_GROUP * PD_PAGE_ROWS);
    if (posix_memalign((void **)&packed, 64, PD_GROUP * (2 * (size_t)MOST_DIM64 + 64)) != 0) packed = NULL;
    return queries && page && right && packed ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    free(queries);
    free(page);
    free(right);
    free(packed);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_group_size_gives_plain_sums),
        cmocka_unit_test(test_every_dimension_gives_plain_sums),
        cmocka_unit_test(test_the_largest_codes_do_not_saturate),
        cmocka_unit_test(test_a_slot_without_a_row_disturbs_no_other),
        cmocka_unit_test(test_nothing_outside_the_page_the_queries_and_the_sums_is_touched),
        cmocka_unit_test(test_codes_need_the_alignment_of_a_column_only),
        cmocka_unit_test(test_large_groups_go_through_tiles_and_small_ones_do_not),
        cmocka_unit_test(test_tiles_are_shaped_anew_only_when_the_shape_changes),
        cmocka_unit_test(test_tiles_that_others_shaped_or_released_do_no_harm),
        cmocka_unit_test(test_a_thread_that_rests_holds_no_tiles),
        cmocka_unit_test(test_the_model_faults_where_the_processor_would),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
