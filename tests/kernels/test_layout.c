/* The page: where columns lie, what encoding keeps and what it refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "f16.h"
#include "world.h"

static const uint32_t dims[] = {1, 3, 4, 17, 100, 784, PD_MAX_DIM};

static pd_shape shape_of(pd_code code, pd_refine refine, uint32_t dim)
{
    pd_shape shape = {.metric = PD_L2, .code = code, .refine = refine, .dim = dim, .nlist = 1};
    shape.nbytes = 3;
    shape.nfloats = 2;
    shape.nkeys = 1;
    shape.sizes[0] = 5;
    shape.sizes[2] = 256;
    return shape;
}

static void test_columns_follow_one_another_aligned(void **state)
{
    (void)state;
    for (int code = PD_CODE_NONE; code <= PD_CODE_F32; code++) {
        for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
            uint32_t dim = dims[i];
            pd_shape shape = shape_of((pd_code)code, PD_REFINE_F16, dim);
            pd_layout l;
            assert_int_equal(pd_layout_of(&shape, &l, NULL), PD_OK);
            const size_t widths[] = {0, 1, 2, 4};
            size_t codes = (code == PD_CODE_I8 ? (dim + 3) / 4 * 4 : dim) * 32 * widths[code];
            assert_int_equal(l.codes, 0);
            assert_int_equal(l.scale, codes);
            assert_int_equal(l.term, codes + 128);
            assert_int_equal(l.ids, codes + 256);
            assert_int_equal(l.bytes, codes + 512);
            assert_int_equal(l.floats, codes + 512 + 3 * 32);
            assert_int_equal(l.keys, codes + 512 + 3 * 32 + 2 * 128);
            assert_true(l.page_bytes >= l.keys + 256 && l.page_bytes < l.keys + 256 + 64);
            assert_int_equal(l.page_bytes % 64, 0);
            assert_int_equal(l.refine_bytes, 64 * (size_t)dim);
            assert_int_equal(l.scale % 32, 0);
            assert_int_equal(l.floats % 32, 0);
            assert_int_equal(l.dim4 % 4, 0);
            assert_true(l.dim4 >= dim && l.dim4 < dim + 4);
        }
    }
}

static void test_a_weight_table_holds_the_columns_that_are_weighed(void **state)
{
    (void)state;
    pd_shape shape = shape_of(PD_CODE_I8, PD_REFINE_NONE, 8);
    pd_layout l;
    assert_int_equal(pd_layout_of(&shape, &l, NULL), PD_OK);
    assert_int_equal(l.weights, 5 + 256);
    assert_int_equal(l.weight_at[0], 0);
    assert_int_equal(l.weight_at[2], 5);
    assert_int_equal(l.refine_bytes, 0);
}

static void refused(pd_shape shape, const char *word)
{
    pd_layout l;
    pd_error err;
    assert_int_equal(pd_layout_of(&shape, &l, &err), PD_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, word));
}

static void test_impossible_shapes_are_refused_by_name(void **state)
{
    (void)state;
    pd_shape good = shape_of(PD_CODE_I8, PD_REFINE_NONE, 8), bad = good;
    bad.dim = 0;
    refused(bad, "dim");
    bad.dim = PD_MAX_DIM + 1;
    refused(bad, "dim");
    bad = good;
    bad.nbytes = PD_MAX_BYTES + 1;
    refused(bad, "byte columns");
    bad = good;
    bad.nfloats = PD_MAX_FLOATS + 1;
    refused(bad, "float columns");
    bad = good;
    bad.nkeys = PD_MAX_KEYS + 1;
    refused(bad, "key columns");
    bad = good;
    bad.sizes[1] = 257;
    refused(bad, "byte column 1");
    bad = good;
    bad.code = PD_CODE_NONE;
    refused(bad, "neither");
    bad = good;
    bad.code_dim = 9;
    refused(bad, "codes of 9 dimensions");
    bad.code_dim = 4; /* without refine rows */
    refused(bad, "refine rows");
}

static void test_a_cleared_page_is_empty(void **state)
{
    (void)state;
    pd_shape shape = shape_of(PD_CODE_I8, PD_REFINE_NONE, 17);
    pd_layout l;
    assert_int_equal(pd_layout_of(&shape, &l, NULL), PD_OK);
    unsigned char *page = aligned_alloc(64, l.page_bytes);
    assert_non_null(page);
    memset(page, 0x5a, l.page_bytes);
    pd_page_clear(&shape, &l, page);
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++) {
        assert_true(pd_page_term(&l, page)[r] == -INFINITY);
        assert_int_equal(pd_page_ids(&l, page)[r], 0);
        assert_int_equal(pd_page_bytes(&l, page, 2)[r], 0);
        assert_true(isnan(pd_page_floats(&l, page, 0)[r]) && isnan(pd_page_floats(&l, page, 1)[r]));
        assert_int_equal(pd_page_keys(&l, page, 0)[r], 0);
    }
    free(page);
}

/* A page of random rows round a random centroid, and what is needed to look at it. */
typedef struct filled {
    pd_shape shape;
    pd_layout l;
    float *centroid, *rows, *out;
    unsigned char *page, *refine;
} filled;

static filled fill(pd_code code, pd_refine refine, uint32_t dim)
{
    filled f = {.shape = shape_of(code, refine, dim)};
    assert_int_equal(pd_layout_of(&f.shape, &f.l, NULL), PD_OK);
    f.centroid = malloc(dim * sizeof(float));
    f.rows = malloc(PD_PAGE_ROWS * dim * sizeof(float));
    f.out = malloc(dim * sizeof(float));
    f.page = aligned_alloc(64, f.l.page_bytes);
    f.refine = f.l.refine_bytes ? aligned_alloc(64, f.l.refine_bytes) : NULL;
    assert_true(f.centroid && f.rows && f.out && f.page);
    for (uint32_t d = 0; d < dim; d++)
        f.centroid[d] = world_normal();
    for (uint32_t i = 0; i < PD_PAGE_ROWS * dim; i++)
        f.rows[i] = f.centroid[i % dim] + world_normal();
    memcpy(f.rows + 7 * dim, f.centroid, dim * sizeof(float)); /* row 7 is the centroid itself */
    pd_page_clear(&f.shape, &f.l, f.page);
    pd_page_encode(&f.shape, &f.l, NULL, f.centroid, f.rows, 0, 5, f.page, f.refine);
    pd_page_encode(&f.shape, &f.l, NULL, f.centroid, f.rows + 5 * dim, 5, 27, f.page, f.refine);
    return f;
}

static void unfill(filled *f)
{
    free(f->centroid);
    free(f->rows);
    free(f->out);
    free(f->page);
    free(f->refine);
}

static void test_i8_codes_stay_in_range_and_near(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        filled f = fill(PD_CODE_I8, PD_REFINE_NONE, dims[i]);
        const int8_t *codes = (const int8_t *)f.page + f.l.codes;
        for (uint32_t at = 0; at < f.l.dim4 * PD_PAGE_ROWS; at++)
            assert_true(codes[at] >= -127);
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++) {
            float scale = pd_page_scale(&f.l, f.page)[r];
            int largest = 0;
            for (uint32_t d = 0; d < f.l.dim4; d++) {
                int code = codes[(d / 4 * PD_PAGE_ROWS + r) * 4 + d % 4];
                largest = abs(code) > largest ? abs(code) : largest;
                if (d >= dims[i]) assert_int_equal(code, 0);
            }
            assert_int_equal(largest, r == 7 ? 0 : 127);
            pd_page_decode(&f.shape, &f.l, f.centroid, r, f.page, NULL, f.out);
            for (uint32_t d = 0; d < dims[i]; d++)
                assert_true(fabsf(f.out[d] - f.rows[r * dims[i] + d]) <= 0.5001f * scale + 1e-6f);
        }
        assert_true(pd_page_scale(&f.l, f.page)[7] == 0.0f);
        unfill(&f);
    }
}

static void test_the_l2_term_makes_the_score_the_distance_to_the_decoded_row(void **state)
{
    (void)state;
    filled f = fill(PD_CODE_I8, PD_REFINE_NONE, 100);
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++) {
        double squares = 0, cross = 0;
        for (uint32_t d = 0; d < 100; d++) {
            int code = ((const int8_t *)f.page)[(d / 4 * PD_PAGE_ROWS + r) * 4 + d % 4];
            double residual = (double)pd_page_scale(&f.l, f.page)[r] * code;
            squares += residual * residual;
            cross += (double)f.centroid[d] * residual;
        }
        double want = -(squares + 2.0 * cross), got = (double)pd_page_term(&f.l, f.page)[r];
        assert_true(fabs(want - got) <= 1e-6 * (fabs(want) + squares));
    }
    unfill(&f);
    filled ip = fill(PD_CODE_I8, PD_REFINE_NONE, 8);
    ip.shape.metric = PD_IP;
    pd_page_encode(&ip.shape, &ip.l, NULL, ip.centroid, ip.rows, 0, 1, ip.page, NULL);
    assert_true(pd_page_term(&ip.l, ip.page)[0] == 0.0f);
    unfill(&ip);
}

static void test_whole_codes_and_refine_rows_come_back(void **state)
{
    (void)state;
    const pd_code codes[] = {PD_CODE_F32, PD_CODE_F16, PD_CODE_I8, PD_CODE_NONE};
    for (size_t c = 0; c < 4; c++) {
        for (int refine = PD_REFINE_NONE; refine <= PD_REFINE_F32; refine++) {
            if (codes[c] != PD_CODE_F32 && codes[c] != PD_CODE_F16 && refine == PD_REFINE_NONE) continue;
            filled f = fill(codes[c], (pd_refine)refine, 17);
            int half = refine == PD_REFINE_F16 || (refine == PD_REFINE_NONE && codes[c] == PD_CODE_F16);
            for (uint32_t r = 0; r < PD_PAGE_ROWS; r++) {
                pd_page_decode(&f.shape, &f.l, f.centroid, r, f.page, f.refine, f.out);
                for (uint32_t d = 0; d < 17; d++) {
                    float want = f.rows[r * 17 + d];
                    if (half) want = pd_f16_to_f32(pd_f32_to_f16(want));
                    assert_true(f.out[d] == want);
                }
                assert_true(pd_page_term(&f.l, f.page)[r] > -INFINITY);
            }
            unfill(&f);
        }
    }
}

static void test_whole_numbers_come_back_from_a_byte_each(void **state)
{
    (void)state;
    for (uint32_t dim = 1; dim <= 70; dim += 23) {
        for (int refine = PD_REFINE_I8; refine <= PD_REFINE_U8; refine++) {
            filled f = fill(PD_CODE_I8, (pd_refine)refine, dim);
            float low = refine == PD_REFINE_I8 ? -128.0f : 0.0f;
            assert_int_equal(f.l.refine_bytes, 32 * ((dim + 1) / 2 * 2));
            for (uint32_t i = 0; i < PD_PAGE_ROWS * dim; i++)
                f.rows[i] = low + (float)(i * 37 % 256);
            pd_page_encode(&f.shape, &f.l, NULL, f.centroid, f.rows, 0, PD_PAGE_ROWS, f.page, f.refine);
            for (uint32_t r = 0; r < PD_PAGE_ROWS; r++) {
                pd_page_decode(&f.shape, &f.l, f.centroid, r, f.page, f.refine, f.out);
                assert_memory_equal(f.out, f.rows + r * dim, dim * sizeof(float));
            }
            unfill(&f);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_columns_follow_one_another_aligned),
        cmocka_unit_test(test_a_weight_table_holds_the_columns_that_are_weighed),
        cmocka_unit_test(test_impossible_shapes_are_refused_by_name),
        cmocka_unit_test(test_a_cleared_page_is_empty),
        cmocka_unit_test(test_i8_codes_stay_in_range_and_near),
        cmocka_unit_test(test_the_l2_term_makes_the_score_the_distance_to_the_decoded_row),
        cmocka_unit_test(test_whole_codes_and_refine_rows_come_back),
        cmocka_unit_test(test_whole_numbers_come_back_from_a_byte_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
