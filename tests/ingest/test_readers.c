/* .npy, big-ann and TexMex files, the choice of a format, ids, and what each kind of bad file is told. */
#include "reader_files.h"

#include <math.h>
#include <sys/stat.h>

#include "f16.h"

#define ROWS 23
#define DIM  5

static float numbers[ROWS * DIM]; /* small integers: exact in every type */

static int make_numbers(void **state)
{
    for (int i = 0; i < ROWS * DIM; i++)
        numbers[i] = (float)(i % 100);
    return make_folder(state);
}

/* header, then numbers as dtype, with a prefix of four bytes before each row where prefix is given. */
static const char *put_numbers(const char *name, const void *header, size_t header_bytes, pd_dtype dtype,
                               const int32_t *prefix)
{
    static unsigned char bytes[64 + ROWS * (4 + DIM * 8)];
    memcpy(bytes, header, header_bytes);
    unsigned char *to = bytes + header_bytes;
    size_t size = pd_dtype_size(dtype);
    for (int i = 0; i < ROWS * DIM; i++, to += size) {
        if (prefix && i % DIM == 0) {
            memcpy(to, prefix, 4);
            to += 4;
        }
        int64_t value = (int64_t)numbers[i];
        pd_f16 half = pd_f32_to_f16(numbers[i]);
        memcpy(to,
               dtype == PD_DTYPE_F32   ? (void *)&numbers[i]
               : dtype == PD_DTYPE_F16 ? (void *)&half
                                       : (void *)&value,
               size);
    }
    return put_file(name, bytes, (size_t)(to - bytes));
}

/* A .npy with this dictionary, followed by count zero bytes. */
static const char *put_npy(const char *dictionary, size_t count)
{
    unsigned char bytes[4096] = "\x93NUMPY\x01";
    size_t length = strlen(dictionary);
    bytes[8] = (unsigned char)length;
    memcpy(bytes + 10, dictionary, length);
    return put_file("made.npy", bytes, 10 + length + count);
}

static void test_every_format_gives_its_rows_in_any_pieces(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        pd_format format;
        pd_dtype dtype;
        int prefixed;
    } cases[] = {
        {"a.fbin", PD_FORMAT_FBIN, PD_DTYPE_F32, 0},   {"a.u8bin", PD_FORMAT_U8BIN, PD_DTYPE_U8, 0},
        {"a.i8bin", PD_FORMAT_I8BIN, PD_DTYPE_I8, 0},  {"a.ibin", PD_FORMAT_IBIN, PD_DTYPE_I32, 0},
        {"a.fvecs", PD_FORMAT_FVECS, PD_DTYPE_F32, 1}, {"a.bvecs", PD_FORMAT_BVECS, PD_DTYPE_U8, 1},
        {"a.ivecs", PD_FORMAT_IVECS, PD_DTYPE_I32, 1},
    };
    const int32_t shape[2] = {ROWS, DIM}, prefix = DIM;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *path = put_numbers(cases[i].name, shape, cases[i].prefixed ? 0 : 8, cases[i].dtype,
                                       cases[i].prefixed ? &prefix : NULL);
        pd_reader *reader = open_good(path, PD_FORMAT_AUTO);
        pd_reader_info info;
        pd_reader_info_of(reader, &info);
        assert_int_equal(info.format, cases[i].format);
        assert_int_equal(info.dtype, cases[i].dtype);
        assert_string_equal(info.how, "by extension");
        assert_null(pd_reader_ids(reader));
        assert_rows(reader, ROWS, DIM, numbers);
        pd_reader_close(reader);
    }
}

static void test_npy_comes_back_as_it_was_written(void **state)
{
    (void)state;
    static const pd_dtype all[] = {PD_DTYPE_F32, PD_DTYPE_F16, PD_DTYPE_I8, PD_DTYPE_U8,
                                   PD_DTYPE_I32, PD_DTYPE_I64, PD_DTYPE_U64};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        unsigned char data[ROWS * DIM * 8], back[sizeof data];
        size_t size = pd_dtype_size(all[i]);
        for (int j = 0; j < ROWS * DIM; j++) {
            int64_t value = (int64_t)numbers[j];
            pd_f16 half = pd_f32_to_f16(numbers[j]);
            const void *from = all[i] == PD_DTYPE_F32   ? (void *)&numbers[j]
                               : all[i] == PD_DTYPE_F16 ? (void *)&half
                                                        : (void *)&value;
            memcpy(data + (size_t)j * size, from, size);
        }
        pd_error err = {0};
        const char *path = in_folder("written"); /* no extension: told by content */
        assert_int_equal(pd_write_npy(path, all[i], ROWS, DIM, data, &err), PD_OK);
        pd_reader *reader = open_good(path, PD_FORMAT_AUTO);
        pd_reader_info info;
        pd_reader_info_of(reader, &info);
        assert_int_equal(info.dtype, all[i]);
        assert_string_equal(info.how, "by content");
        assert_rows(reader, ROWS, DIM, numbers);
        uint64_t got;
        pd_reader_rewind(reader, &err);
        assert_int_equal(pd_reader_read_raw(reader, 1000, back, &got, &err), PD_OK);
        assert_int_equal(got, ROWS);
        assert_memory_equal(back, data, ROWS * DIM * size);
        pd_reader_close(reader);
    }
}

static void test_npy_headers_are_aligned_and_one_dimension_is_a_column(void **state)
{
    (void)state;
    pd_error err = {0};
    const char *path = in_folder("column.npy");
    assert_int_equal(pd_write_npy(path, PD_DTYPE_F32, ROWS, 0, numbers, &err), PD_OK);
    struct stat stat_of;
    assert_int_equal(stat(path, &stat_of), 0);
    assert_int_equal(stat_of.st_size % 64, ROWS * 4 % 64);
    pd_reader *reader = open_good(path, PD_FORMAT_AUTO);
    assert_rows(reader, ROWS, 1, numbers);
    pd_reader_close(reader);
}

static void test_npy_versions_2_and_3_are_read(void **state)
{
    (void)state;
    static const char dictionary[] = "{'shape': (2L, 1L), 'fortran_order': False, 'descr': '<f4'}\n";
    for (char version = 2; version <= 3; version++) {
        unsigned char bytes[12 + sizeof dictionary - 1 + 8] = "\x93NUMPY";
        bytes[6] = (unsigned char)version;
        bytes[8] = sizeof dictionary - 1;
        memcpy(bytes + 12, dictionary, sizeof dictionary - 1);
        memcpy(bytes + sizeof bytes - 8, numbers + 1, 8);
        pd_reader *reader = open_good(put_file("v.npy", bytes, sizeof bytes), PD_FORMAT_AUTO);
        assert_rows(reader, 2, 1, numbers + 1);
        pd_reader_close(reader);
    }
}

static void test_npy_that_we_cannot_read_is_refused_by_what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *dictionary;
        size_t bytes;
        pd_status status;
        const char *words;
    } cases[] = {
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }", 24, PD_INVALID_ARGUMENT,
         "Fortran order"},
        {"{'descr': '>f4', 'fortran_order': False, 'shape': (2, 3), }", 24, PD_INVALID_ARGUMENT,
         "big-endian"},
        {"{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }", 24, PD_INVALID_ARGUMENT,
         "Python objects"},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }", 48, PD_INVALID_ARGUMENT,
         "'<f8'; float32"},
        {"{'descr': '|f4', 'fortran_order': False, 'shape': (2, 3), }", 24, PD_INVALID_ARGUMENT, "'|f4'"},
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }", 8, PD_INVALID_ARGUMENT,
         "structured"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 4), }", 96, PD_INVALID_ARGUMENT,
         "3 dimensions"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (), }", 4, PD_INVALID_ARGUMENT, "0 dimensions"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 0), }", 0, PD_INVALID_ARGUMENT,
         "rows of 0 values"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 3), }", 24,
         PD_INVALID_ARGUMENT, "larger than any file"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 3), }", 24,
         PD_INVALID_ARGUMENT, "malformed"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)", 24, PD_INVALID_ARGUMENT, "malformed"},
        {"{'descr': '<f4', 'shape': (2, 3), }", 24, PD_INVALID_ARGUMENT, "malformed"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), } x", 24, PD_INVALID_ARGUMENT,
         "malformed"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2 3), }", 24, PD_INVALID_ARGUMENT, "malformed"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_refused(put_npy(cases[i].dictionary, cases[i].bytes), PD_FORMAT_AUTO, cases[i].status,
                       cases[i].words);
    assert_refused(put_file("v9.npy", "\x93NUMPY\x09\x00\x00\x00", 10), PD_FORMAT_AUTO, PD_INVALID_ARGUMENT,
                   "version 9.0");
    assert_refused(put_file("cut.npy", "\x93NUMPY\x01\x00\x76\x00{'descr", 17), PD_FORMAT_AUTO, PD_DATA_LOSS,
                   "short");
}

static void test_a_wrong_length_says_the_bytes_needed_and_present(void **state)
{
    (void)state;
    static const char good[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
    char words[64];
    snprintf(words, sizeof words, "need %zu bytes and %zu are present", sizeof good - 1 + 34,
             sizeof good - 1 + 33);
    assert_refused(put_npy(good, 23), PD_FORMAT_AUTO, PD_DATA_LOSS, words);
    assert_refused(put_npy(good, 25), PD_FORMAT_AUTO, PD_INVALID_ARGUMENT, "longer than its header says");

    uint32_t fbin[2 + 6] = {2, 3};
    assert_refused(put_file("a.fbin", fbin, 31), PD_FORMAT_AUTO, PD_DATA_LOSS,
                   "need 32 bytes and 31 are present");
    assert_refused(put_file("a.i8bin", fbin, 31), PD_FORMAT_AUTO, PD_INVALID_ARGUMENT,
                   "need 14 bytes and 31 are");
    assert_refused(put_file("a.fbin", fbin, 7), PD_FORMAT_AUTO, PD_DATA_LOSS, "no header of 8 bytes");
    uint32_t huge[2] = {UINT32_MAX, UINT32_MAX};
    assert_refused(put_file("a.fbin", huge, 8), PD_FORMAT_AUTO, PD_INVALID_ARGUMENT, "larger than any file");
    uint32_t flat[2] = {5, 0};
    assert_refused(put_file("a.fbin", flat, 8), PD_FORMAT_AUTO, PD_INVALID_ARGUMENT, "dim 0");
}

static void test_a_truth_file_with_distances_gives_its_neighbours(void **state)
{
    (void)state;
    uint32_t bytes[2 + 4 + 4] = {2, 2, 7, 8, 9, 10, 0x3f800000, 0x3f800000, 0x3f800000, 0x3f800000};
    int64_t rows[4];
    uint64_t got;
    pd_error err = {0};
    pd_reader *reader = open_good(put_file("truth.ibin", bytes, sizeof bytes), PD_FORMAT_AUTO);
    assert_int_equal(pd_reader_read_i64(reader, 9, rows, &got, &err), PD_OK);
    assert_int_equal(got, 2);
    for (int i = 0; i < 4; i++)
        assert_int_equal(rows[i], 7 + i);
    pd_reader_close(reader);
}

static void test_vecs_with_a_cut_or_another_width_name_the_row(void **state)
{
    (void)state;
    int32_t rows[] = {2, 1, 1, 2, 1, 1, 2, 1, 1};
    assert_refused(put_file("a.ivecs", rows, sizeof rows - 1), PD_FORMAT_AUTO, PD_DATA_LOSS,
                   "row 2 of width 2 needs 12 bytes and 11 are present");
    assert_refused(put_file("a.ivecs", rows, 0), PD_FORMAT_AUTO, PD_INVALID_ARGUMENT, "empty");
    assert_refused(put_file("a.ivecs", rows, 3), PD_FORMAT_AUTO, PD_DATA_LOSS, "row 0");
    int32_t minus = -1;
    assert_refused(put_file("a.ivecs", &minus, 4), PD_FORMAT_AUTO, PD_INVALID_ARGUMENT,
                   "row 0 says that it is -1 wide");
    rows[3] = 3;
    pd_reader *reader = open_good(put_file("a.ivecs", rows, sizeof rows), PD_FORMAT_AUTO);
    int64_t out[6];
    uint64_t got;
    pd_error err = {0};
    assert_int_equal(pd_reader_read_i64(reader, 3, out, &got, &err), PD_INVALID_ARGUMENT);
    assert_says(&err, PD_INVALID_ARGUMENT, "row 1 says that it is 3 wide, the rows before are 2");
    assert_int_equal(got, 0);
    pd_reader_close(reader);
}

static void test_a_file_cut_behind_our_back_is_an_error_not_a_crash(void **state)
{
    (void)state;
    const int32_t shape[2] = {ROWS, DIM};
    const char *path = put_numbers("a.fbin", shape, 8, PD_DTYPE_F32, NULL);
    pd_reader *reader = open_good(path, PD_FORMAT_AUTO);
    assert_int_equal(truncate(path, 100), 0);
    float out[ROWS * DIM];
    uint64_t got;
    pd_error err = {0};
    assert_int_equal(pd_reader_read_f32(reader, ROWS, out, &got, &err), PD_DATA_LOSS);
    assert_says(&err, PD_DATA_LOSS, "ends at byte 100");
    pd_reader_close(reader);
}

static void test_nan_and_infinity_are_refused_by_row_and_column(void **state)
{
    (void)state;
    float rows[6] = {0, 1, 2, 3, NAN, 5};
    pd_f16 halves[6] = {0, 0, 0xfc00, 0, 0, 0};
    float out[6];
    uint64_t got;
    pd_error err = {0};
    assert_int_equal(pd_write_npy(in_folder("n.npy"), PD_DTYPE_F32, 2, 3, rows, &err), PD_OK);
    assert_int_equal(pd_write_npy(in_folder("h.npy"), PD_DTYPE_F16, 2, 3, halves, &err), PD_OK);
    pd_reader *reader = open_good(in_folder("n.npy"), PD_FORMAT_AUTO);
    assert_int_equal(pd_reader_read_f32(reader, 1, out, &got, &err), PD_OK);
    assert_int_equal(pd_reader_read_f32(reader, 1, out, &got, &err), PD_INVALID_ARGUMENT);
    assert_says(&err, PD_INVALID_ARGUMENT, "NaN at row 1, column 1");
    pd_reader_close(reader);
    reader = open_good(in_folder("h.npy"), PD_FORMAT_AUTO);
    assert_int_equal(pd_reader_read_f32(reader, 2, out, &got, &err), PD_INVALID_ARGUMENT);
    assert_says(&err, PD_INVALID_ARGUMENT, "infinity at row 0, column 2");
    assert_int_equal(pd_reader_read_raw(reader, 2, out, &got, &err), PD_OK);
    assert_int_equal(got, 2);
    pd_reader_close(reader);
}

static void test_integers_are_given_exactly_or_not_at_all(void **state)
{
    (void)state;
    uint64_t big[2] = {1, UINT64_MAX};
    int32_t odd[2] = {1 << 24, (1 << 24) + 1};
    float out[2];
    int64_t whole[2];
    uint64_t got;
    pd_error err = {0};
    assert_int_equal(pd_write_npy(in_folder("big.npy"), PD_DTYPE_U64, 2, 1, big, &err), PD_OK);
    assert_int_equal(pd_write_npy(in_folder("odd.npy"), PD_DTYPE_I32, 1, 2, odd, &err), PD_OK);
    pd_reader *reader = open_good(in_folder("big.npy"), PD_FORMAT_AUTO);
    assert_int_equal(pd_reader_read_i64(reader, 2, whole, &got, &err), PD_INVALID_ARGUMENT);
    assert_says(&err, PD_INVALID_ARGUMENT, "u64 value at row 1, column 0 does not fit an i64");
    pd_reader_close(reader);
    reader = open_good(in_folder("odd.npy"), PD_FORMAT_AUTO);
    assert_int_equal(pd_reader_read_f32(reader, 1, out, &got, &err), PD_INVALID_ARGUMENT);
    assert_says(&err, PD_INVALID_ARGUMENT, "row 0, column 1 does not fit an f32 exactly");
    assert_int_equal(pd_reader_read_i64(reader, 1, whole, &got, &err), PD_OK);
    assert_int_equal(whole[1], (1 << 24) + 1);
    pd_reader_close(reader);
    assert_int_equal(pd_write_npy(in_folder("f.npy"), PD_DTYPE_F32, 1, 2, numbers, &err), PD_OK);
    reader = open_good(in_folder("f.npy"), PD_FORMAT_AUTO);
    assert_int_equal(pd_reader_read_i64(reader, 1, whole, &got, &err), PD_INVALID_ARGUMENT);
    assert_says(&err, PD_INVALID_ARGUMENT, "holds f32 values, not integers");
    pd_reader_close(reader);
}

static void test_a_format_is_told_by_content_then_name_and_our_word_is_over_both(void **state)
{
    (void)state;
    pd_error err = {0};
    const char *path = in_folder("really-npy.fbin");
    assert_int_equal(pd_write_npy(path, PD_DTYPE_F32, ROWS, DIM, numbers, &err), PD_OK);
    pd_reader *reader = open_good(path, PD_FORMAT_AUTO);
    pd_reader_info info;
    pd_reader_info_of(reader, &info);
    assert_int_equal(info.format, PD_FORMAT_NPY);
    assert_string_equal(info.how, "by content");
    pd_reader_close(reader);
    assert_refused(path, PD_FORMAT_FBIN, PD_DATA_LOSS, "truncated");

    const int32_t shape[2] = {ROWS, DIM};
    path = put_numbers("plain.bin", shape, 8, PD_DTYPE_F32, NULL);
    assert_refused(path, PD_FORMAT_AUTO, PD_INVALID_ARGUMENT, "say which it is");
    assert_refused(path, PD_FORMAT_NPY, PD_INVALID_ARGUMENT, "not a .npy file");
    assert_refused(path, PD_FORMAT_HDF5, PD_INVALID_ARGUMENT, "not an HDF5 file");
    assert_refused(path, PD_FORMAT_FAISS, PD_INVALID_ARGUMENT, "not a FAISS index");
    reader = open_good(path, PD_FORMAT_FBIN);
    pd_reader_info_of(reader, &info);
    assert_string_equal(info.how, "as told");
    assert_rows(reader, ROWS, DIM, numbers);
    pd_reader_close(reader);

    pd_format format;
    assert_int_equal(pd_format_parse("u8bin", &format, &err), PD_OK);
    assert_int_equal(format, PD_FORMAT_U8BIN);
    assert_string_equal(pd_format_name(format), "u8bin");
    assert_int_equal(pd_format_parse("parquet", &format, &err), PD_INVALID_ARGUMENT);
    assert_says(&err, PD_INVALID_ARGUMENT, "\"parquet\" is not a format");
}

static void test_what_is_no_plain_file_is_refused_by_name(void **state)
{
    (void)state;
    assert_refused(in_folder("none.npy"), PD_FORMAT_AUTO, PD_NOT_FOUND, "none.npy: No such file");
    assert_refused(in_folder("none.h5#train"), PD_FORMAT_AUTO, PD_NOT_FOUND, "none.h5: No such file");
    assert_refused(folder, PD_FORMAT_NPY, PD_INVALID_ARGUMENT, "not a regular file");
    const char *pipe = in_folder("pipe.npy");
    assert_int_equal(mkfifo(pipe, 0600), 0);
    assert_refused(pipe, PD_FORMAT_AUTO, PD_INVALID_ARGUMENT, "not a regular file");
    assert_refused(put_file("x.fvecs.gz", "\x1f\x8b\x08xxxx", 7), PD_FORMAT_AUTO, PD_INVALID_ARGUMENT,
                   "gzip");
    pd_error err = {0};
    assert_int_equal(pd_write_npy(in_folder("m.npy"), PD_DTYPE_F32, 1, 2, numbers, &err), PD_OK);
    assert_refused(in_folder("m.npy#train"), PD_FORMAT_AUTO, PD_INVALID_ARGUMENT, "has no members");
    assert_int_equal(pd_write_npy(in_folder("no/such.npy"), PD_DTYPE_F32, 1, 2, numbers, &err), PD_NOT_FOUND);
    assert_says(&err, PD_NOT_FOUND, "no/such.npy");
}

static void test_rows_wider_than_the_working_buffer_are_read(void **state)
{
    (void)state;
    enum { WIDE = 3 << 20 };
    int8_t *wide = malloc(2 * WIDE);
    float *out = malloc(2 * WIDE * sizeof *out);
    assert_true(wide && out);
    for (int i = 0; i < 2 * WIDE; i++)
        wide[i] = (int8_t)(i % 251 - 125);
    pd_error err = {0};
    assert_int_equal(pd_write_npy(in_folder("wide.npy"), PD_DTYPE_I8, 2, WIDE, wide, &err), PD_OK);
    pd_reader *reader = open_good(in_folder("wide.npy"), PD_FORMAT_AUTO);
    uint64_t got;
    assert_int_equal(pd_reader_read_f32(reader, 5, out, &got, &err), PD_OK);
    assert_int_equal(got, 2);
    for (int i = 0; i < 2 * WIDE; i++)
        if (out[i] != (float)wide[i]) fail_msg("value %d is %g", i, (double)out[i]);
    pd_reader_close(reader);
    free(wide);
    free(out);
}

/* ---- ids ---- */

static void assert_ids(const char *path, uint64_t count, const uint64_t *expected)
{
    uint64_t *ids, got;
    pd_error err = {0};
    if (pd_read_ids(path, &ids, &got, &err)) fail_msg("%s", err.message);
    assert_int_equal(got, count);
    assert_non_null(ids);
    assert_memory_equal(ids, expected, count * sizeof *expected);
    free(ids);
}

static void assert_ids_refused(const char *path, pd_status status, const char *words)
{
    uint64_t *ids, got;
    pd_error err = {0};
    assert_int_equal(pd_read_ids(path, &ids, &got, &err), status);
    assert_null(ids);
    assert_says(&err, status, words);
}

static void test_ids_are_read_from_text_and_npy(void **state)
{
    (void)state;
    const uint64_t ids[3] = {7, 0, UINT64_MAX}, small[3] = {7, 0, INT64_MAX};
    static const char text[] = "7\r\n 0\t\n18446744073709551615";
    assert_ids(put_file("ids.txt", text, sizeof text - 1), 3, ids);
    static const char marked[] = "\xef\xbb\xbf"
                                 "7\n";
    assert_ids(put_file("ids.txt", marked, sizeof marked - 1), 1, ids);
    assert_ids(put_file("ids.txt", "", 0), 0, ids);
    pd_error err = {0};
    assert_int_equal(pd_write_npy(in_folder("ids.npy"), PD_DTYPE_U64, 3, 0, ids, &err), PD_OK);
    assert_ids(in_folder("ids.npy"), 3, ids);
    assert_int_equal(pd_write_npy(in_folder("ids.npy"), PD_DTYPE_I64, 3, 1, small, &err), PD_OK);
    assert_ids(in_folder("ids.npy"), 3, small);
}

static void test_ids_that_are_none_are_refused_by_line_or_row(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t length;
        const char *words;
    } cases[] = {
        {"1\n-2\n", 5, "line 2: \"-2\" is negative"},
        {"1\n2\n3x\n", 7, "line 3: \"3x\" is not an id"},
        {"1\n\n2\n", 5, "line 2: \"\" is not an id"},
        {"18446744073709551616\n", 21, "line 1:"},
        {"1 2\n", 4, "line 1: \"1 2\""},
        {"1\n2\0x", 5, "line 2: \"2?x\""},
        {"\x80\x01\n", 3, "line 1: \"??\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_ids_refused(put_file("ids.txt", cases[i].text, cases[i].length), PD_INVALID_ARGUMENT,
                           cases[i].words);
    char line[300];
    memset(line, '1', sizeof line);
    assert_ids_refused(put_file("ids.txt", line, sizeof line), PD_INVALID_ARGUMENT, "line 1:");
    const int64_t minus[2] = {4, -4};
    pd_error err = {0};
    assert_int_equal(pd_write_npy(in_folder("ids.npy"), PD_DTYPE_I64, 2, 0, minus, &err), PD_OK);
    assert_ids_refused(in_folder("ids.npy"), PD_INVALID_ARGUMENT, "row 1: -4 is negative");
    assert_int_equal(pd_write_npy(in_folder("ids.npy"), PD_DTYPE_I32, 2, 1, minus, &err), PD_OK);
    assert_ids_refused(in_folder("ids.npy"), PD_INVALID_ARGUMENT, "int64 or uint64");
    assert_int_equal(pd_write_npy(in_folder("ids.npy"), PD_DTYPE_I64, 1, 2, minus, &err), PD_OK);
    assert_ids_refused(in_folder("ids.npy"), PD_INVALID_ARGUMENT, "in 2");
    assert_ids_refused(in_folder("no-ids"), PD_NOT_FOUND, "no-ids");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_format_gives_its_rows_in_any_pieces),
        cmocka_unit_test(test_npy_comes_back_as_it_was_written),
        cmocka_unit_test(test_npy_headers_are_aligned_and_one_dimension_is_a_column),
        cmocka_unit_test(test_npy_versions_2_and_3_are_read),
        cmocka_unit_test(test_npy_that_we_cannot_read_is_refused_by_what_is_wrong),
        cmocka_unit_test(test_a_wrong_length_says_the_bytes_needed_and_present),
        cmocka_unit_test(test_a_truth_file_with_distances_gives_its_neighbours),
        cmocka_unit_test(test_vecs_with_a_cut_or_another_width_name_the_row),
        cmocka_unit_test(test_a_file_cut_behind_our_back_is_an_error_not_a_crash),
        cmocka_unit_test(test_nan_and_infinity_are_refused_by_row_and_column),
        cmocka_unit_test(test_integers_are_given_exactly_or_not_at_all),
        cmocka_unit_test(test_a_format_is_told_by_content_then_name_and_our_word_is_over_both),
        cmocka_unit_test(test_what_is_no_plain_file_is_refused_by_name),
        cmocka_unit_test(test_rows_wider_than_the_working_buffer_are_read),
        cmocka_unit_test(test_ids_are_read_from_text_and_npy),
        cmocka_unit_test(test_ids_that_are_none_are_refused_by_line_or_row),
    };
    return cmocka_run_group_tests(tests, make_numbers, remove_folder);
}
