/* HDF5 and FAISS files: the formats that are read by somebody else's library. */
#include "reader_files.h"

#include <faiss/c_api/IndexIVF_c.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/error_c.h>
#include <faiss/c_api/index_factory_c.h>
#include <faiss/c_api/index_io_c.h>
#include <hdf5.h>
#include <sys/stat.h>

#define ROWS 640 /* enough to train a product quantizer of 16 centroids without a complaint */
#define DIM  8

static float numbers[ROWS * DIM]; /* in [0, 1) */

static int make_numbers(void **state)
{
    uint32_t seed = 1;
    for (int i = 0; i < ROWS * DIM; i++) {
        seed = seed * 1664525u + 1013904223u;
        numbers[i] = (float)(seed >> 8) / 0x1p24f;
    }
    return make_folder(state);
}

/* FAISS loses what it has read of an index when the file ends early. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:faiss::read_\n";
}

/* ---- HDF5 ---- */

static void add_set(hid_t file, const char *name, hid_t stored, int dims, hsize_t rows, hsize_t columns,
                    int chunked, hid_t memory, const void *data)
{
    hsize_t shape[3] = {rows, columns, 1}, chunk[3] = {7, columns, 1};
    hid_t space = H5Screate_simple(dims, shape, NULL), creation = H5Pcreate(H5P_DATASET_CREATE);
    if (chunked) assert_true(H5Pset_chunk(creation, dims, chunk) >= 0 && H5Pset_deflate(creation, 1) >= 0);
    hid_t set = H5Dcreate2(file, name, stored, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    assert_true(set >= 0 && H5Dwrite(set, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    H5Dclose(set);
    H5Pclose(creation);
    H5Sclose(space);
}

static hid_t new_hdf5(const char *name)
{
    hid_t file = H5Fcreate(in_folder(name), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(file >= 0);
    return file;
}

static void test_members_of_an_hdf5_file_are_picked_by_name(void **state)
{
    (void)state;
    const int32_t neighbors[4] = {5, 6, 7, -1};
    hid_t file = new_hdf5("ann.hdf5");
    add_set(file, "test", H5T_IEEE_F32LE, 2, 3, DIM, 0, H5T_NATIVE_FLOAT, numbers);
    add_set(file, "train", H5T_IEEE_F32LE, 2, ROWS, DIM, 1, H5T_NATIVE_FLOAT, numbers);
    add_set(file, "neighbors", H5T_STD_I32LE, 2, 2, 2, 0, H5T_NATIVE_INT32, neighbors);
    add_set(file, "line", H5T_IEEE_F32BE, 1, 9, 1, 0, H5T_NATIVE_FLOAT, numbers);
    H5Fclose(file);

    pd_reader *reader = open_good(in_folder("ann.hdf5"), PD_FORMAT_AUTO);
    pd_reader_info info;
    pd_reader_info_of(reader, &info);
    assert_int_equal(info.format, PD_FORMAT_HDF5);
    assert_string_equal(info.how, "by content");
    assert_rows(reader, ROWS, DIM, numbers);
    pd_reader_close(reader);

    reader = open_good(in_folder("ann.hdf5#test"), PD_FORMAT_AUTO);
    assert_rows(reader, 3, DIM, numbers);
    pd_reader_close(reader);

    reader = open_good(in_folder("ann.hdf5#line"), PD_FORMAT_AUTO);
    assert_rows(reader, 9, 1, numbers);
    pd_reader_close(reader);

    reader = open_good(in_folder("ann.hdf5#neighbors"), PD_FORMAT_AUTO);
    int64_t rows[4];
    uint64_t got;
    pd_error err = {0};
    assert_int_equal(pd_reader_read_i64(reader, 2, rows, &got, &err), PD_OK);
    assert_int_equal(rows[0], 5);
    assert_int_equal(rows[3], -1);
    pd_reader_close(reader);

    assert_refused(in_folder("ann.hdf5#base"), PD_FORMAT_AUTO, PD_NOT_FOUND,
                   "no data set \"base\"; it has \"line\", \"neighbors\", \"test\", \"train\"");
}

static void test_without_a_train_set_the_only_matrix_is_taken(void **state)
{
    (void)state;
    hid_t file = new_hdf5("one.h5");
    add_set(file, "line", H5T_IEEE_F32LE, 1, 9, 1, 0, H5T_NATIVE_FLOAT, numbers);
    assert_refused(in_folder("one.h5"), PD_FORMAT_AUTO, PD_NOT_FOUND,
                   "none of two dimensions; it has \"line\"");
    add_set(file, "emb", H5T_IEEE_F32LE, 2, 4, DIM, 0, H5T_NATIVE_FLOAT, numbers);
    H5Fclose(file);
    pd_reader *reader = open_good(in_folder("one.h5"), PD_FORMAT_AUTO);
    assert_rows(reader, 4, DIM, numbers);
    pd_reader_close(reader);
    file = H5Fopen(in_folder("one.h5"), H5F_ACC_RDWR, H5P_DEFAULT);
    add_set(file, "more", H5T_IEEE_F32LE, 2, 4, DIM, 0, H5T_NATIVE_FLOAT, numbers);
    H5Fclose(file);
    assert_refused(in_folder("one.h5"), PD_FORMAT_AUTO, PD_NOT_FOUND, "more than one of two dimensions");
}

static void test_hdf5_types_and_shapes_that_we_do_not_read_are_named(void **state)
{
    (void)state;
    double doubles[4] = {0};
    hid_t file = new_hdf5("odd.h5");
    add_set(file, "doubles", H5T_IEEE_F64LE, 2, 2, 2, 0, H5T_NATIVE_DOUBLE, doubles);
    add_set(file, "cube", H5T_IEEE_F32LE, 3, 2, 2, 0, H5T_NATIVE_FLOAT, numbers);
    H5Fclose(file);
    assert_refused(in_folder("odd.h5#doubles"), PD_FORMAT_AUTO, PD_INVALID_ARGUMENT, "floats of 8 bytes");
    assert_refused(in_folder("odd.h5#cube"), PD_FORMAT_AUTO, PD_INVALID_ARGUMENT, "3 dimensions");
}

static void test_halves_and_odd_integers_of_hdf5_are_widened(void **state)
{
    (void)state;
    /* As h5py stores float16: an IEEE layout that HDF5 has no name for. */
    hid_t half = H5Tcopy(H5T_IEEE_F32LE);
    assert_true(H5Tset_fields(half, 15, 10, 5, 0, 10) >= 0 && H5Tset_size(half, 2) >= 0 &&
                H5Tset_ebias(half, 15) >= 0);
    const float exact[4] = {0.5f, -2, 1024, 0x1p-14f};
    const uint32_t counts[2] = {7, UINT32_MAX};
    hid_t file = new_hdf5("wide.h5");
    add_set(file, "halves", half, 2, 2, 2, 0, H5T_NATIVE_FLOAT, exact);
    add_set(file, "counts", H5T_STD_U32BE, 2, 1, 2, 0, H5T_NATIVE_UINT32, counts);
    H5Fclose(file);
    H5Tclose(half);
    pd_reader *reader = open_good(in_folder("wide.h5#halves"), PD_FORMAT_AUTO);
    assert_rows(reader, 2, 2, exact);
    pd_reader_close(reader);
    reader = open_good(in_folder("wide.h5#counts"), PD_FORMAT_AUTO);
    int64_t row[2];
    uint64_t got;
    pd_error err = {0};
    assert_int_equal(pd_reader_read_i64(reader, 1, row, &got, &err), PD_OK);
    assert_true(row[0] == 7 && row[1] == UINT32_MAX);
    pd_reader_close(reader);
}

static void test_a_cut_hdf5_file_is_refused_in_silence(void **state)
{
    (void)state;
    hid_t file = new_hdf5("cut.h5");
    add_set(file, "train", H5T_IEEE_F32LE, 2, ROWS, DIM, 0, H5T_NATIVE_FLOAT, numbers);
    H5Fclose(file);
    assert_int_equal(truncate(in_folder("cut.h5"), 3000), 0);
    int pipes[2], kept = dup(2);
    assert_true(kept >= 0 && pipe(pipes) == 0);
    assert_true(dup2(pipes[1], 2) == 2 && close(pipes[1]) == 0);
    assert_refused(in_folder("cut.h5"), PD_FORMAT_AUTO, PD_DATA_LOSS, "cut.h5: cannot open: HDF5 says: ");
    assert_true(dup2(kept, 2) == 2 && close(kept) == 0);
    char said[256];
    assert_int_equal(read(pipes[0], said, sizeof said), 0);
    close(pipes[0]);
}

/* ---- FAISS ---- */

static const int64_t *step_ids(void)
{
    static int64_t ids[ROWS];
    for (int i = 0; i < ROWS; i++)
        ids[i] = 1000 + (int64_t)(ROWS - i) * 10;
    return ids;
}

/* An index of numbers by this description; with ids of our own where given. */
static const char *put_index(const char *name, const char *description, const int64_t *ids)
{
    FaissIndex *index = NULL;
    if (faiss_index_factory(&index, DIM, description, METRIC_L2) || faiss_Index_train(index, ROWS, numbers) ||
        (ids ? faiss_Index_add_with_ids(index, ROWS, numbers, ids) : faiss_Index_add(index, ROWS, numbers)) ||
        faiss_write_index_fname(index, in_folder(name)))
        fail_msg("%s: %s", description, faiss_get_last_error());
    faiss_Index_free(index);
    return in_folder(name);
}

static void test_every_kind_of_faiss_index_gives_its_rows_in_order(void **state)
{
    (void)state;
    static const struct {
        const char *description;
        float tolerance; /* of a value in [0, 1) */
    } cases[] = {
        {"Flat", 0},         {"SQfp16", 1e-3f}, {"SQ8", 5e-3f},        {"IVF4,Flat", 1e-6f},
        {"IVF4,SQ8", 5e-3f}, {"HNSW8", 0},      {"PCAR8,Flat", 1e-5f}, {"PCAR8,IVF4,Flat", 1e-5f},
        {"PCA6,Flat", 0.9f}, {"PQ4x4", 0.6f},   {"IVF4,PQ4x4", 0.6f},  {"IVF4,Flat,Refine(Flat)", 0},
        {"NSG8,Flat", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pd_reader *reader = open_good(put_index("an-index", cases[i].description, NULL), PD_FORMAT_AUTO);
        pd_reader_info info;
        pd_reader_info_of(reader, &info);
        assert_int_equal(info.format, PD_FORMAT_FAISS);
        assert_string_equal(info.how, "by content");
        assert_int_equal(info.dtype, PD_DTYPE_F32);
        assert_null(pd_reader_ids(reader)); /* 0 .. n - 1, in that order */
        float rows[ROWS * DIM];
        uint64_t got;
        pd_error err = {0};
        if (pd_reader_read_f32(reader, ROWS + 1, rows, &got, &err)) fail_msg("%s", err.message);
        assert_int_equal(got, ROWS);
        for (int j = 0; j < ROWS * DIM; j++)
            if (!(rows[j] - numbers[j] <= cases[i].tolerance && numbers[j] - rows[j] <= cases[i].tolerance))
                fail_msg("%s: value %d is %g, not %g", cases[i].description, j, (double)rows[j],
                         (double)numbers[j]);
        assert_rows(reader, ROWS, DIM, rows);
        pd_reader_close(reader);
    }
}

static void test_ids_inside_a_faiss_index_come_with_their_rows(void **state)
{
    (void)state;
    static const char *const descriptions[] = {"IDMap,Flat", "IDMap2,Flat", "IVF4,Flat", "IDMap,IVF4,Flat"};
    const int64_t *ids = step_ids();
    for (size_t i = 0; i < sizeof descriptions / sizeof descriptions[0]; i++) {
        pd_reader *reader = open_good(put_index("ids.index", descriptions[i], ids), PD_FORMAT_AUTO);
        const int64_t *held = pd_reader_ids(reader);
        assert_non_null(held);
        float rows[ROWS * DIM];
        uint64_t got;
        pd_error err = {0};
        assert_int_equal(pd_reader_read_f32(reader, ROWS, rows, &got, &err), PD_OK);
        int seen[ROWS] = {0};
        for (int j = 0; j < ROWS; j++) {
            int64_t row = ROWS - (held[j] - 1000) / 10;
            assert_true(row >= 0 && row < ROWS && ids[row] == held[j] && !seen[row]);
            seen[row] = 1;
            assert_memory_equal(rows + j * DIM, numbers + row * DIM, DIM * sizeof *rows);
        }
        assert_rows(reader, ROWS, DIM, rows);
        pd_reader_close(reader);
    }
}

static void test_negative_ids_in_a_faiss_index_are_refused_by_row(void **state)
{
    (void)state;
    int64_t ids[ROWS];
    memcpy(ids, step_ids(), sizeof ids);
    ids[17] = -5;
    assert_refused(put_index("neg.index", "IDMap,Flat", ids), PD_FORMAT_AUTO, PD_INVALID_ARGUMENT,
                   "row 17 has the id -5");
}

static void test_an_index_that_cannot_give_its_vectors_says_so(void **state)
{
    (void)state;
    static const struct {
        const char *description;
        const char *words;
    } cases[] = {
        {"PCAW8,Flat", "its transform is no rotation and cannot be undone"},
        {"L2norm,Flat", "it transforms its vectors in a way that is not linear"},
        {"LSH", "an index of kind faiss::IndexLSH"},
        {"IVF4,PQ4x4fs", "its lists are not in the file, or packed"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_refused(put_index("odd.index", cases[i].description, NULL), PD_FORMAT_AUTO,
                       PD_INVALID_ARGUMENT, cases[i].words);
}

static size_t file_bytes(const char *path, unsigned char **bytes)
{
    FILE *file = fopen(path, "rb");
    struct stat stat_of;
    assert_true(file && fstat(fileno(file), &stat_of) == 0);
    *bytes = malloc((size_t)stat_of.st_size);
    assert_non_null(*bytes);
    assert_int_equal(fread(*bytes, 1, (size_t)stat_of.st_size, file), stat_of.st_size);
    fclose(file);
    return (size_t)stat_of.st_size;
}

static void test_cut_faiss_files_are_refused_at_any_length(void **state)
{
    (void)state;
    static const char *const descriptions[] = {"Flat",  "IVF4,SQ8",   "IDMap,Flat",
                                               "HNSW8", "PCAR8,Flat", "IVF4,PQ4x4"};
    for (size_t i = 0; i < sizeof descriptions / sizeof descriptions[0]; i++) {
        unsigned char *bytes;
        size_t length =
            file_bytes(put_index("whole.index", descriptions[i], i == 2 ? step_ids() : NULL), &bytes);
        for (size_t cut = 0; cut < length; cut += 1 + cut / 8) {
            pd_reader *reader = NULL;
            pd_error err = {0};
            const char *path = put_file("cut.index", bytes, cut);
            pd_status status = pd_reader_open(path, PD_FORMAT_AUTO, &reader, &err);
            assert_true(status == PD_DATA_LOSS || status == PD_INVALID_ARGUMENT);
            assert_non_null(strstr(err.message, "cut.index"));
        }
        free(bytes);
    }
}

static void test_faiss_files_that_contradict_themselves_are_refused(void **state)
{
    (void)state;
    unsigned char *bytes;
    size_t length = file_bytes(put_index("whole.index", "Flat", NULL), &bytes);
    int64_t rows = (int64_t)1 << 50;
    memcpy(bytes + 8, &rows, sizeof rows);
    assert_refused(put_file("bad.index", bytes, length), PD_FORMAT_AUTO, PD_DATA_LOSS,
                   "1125899906842624 rows");
    rows = ROWS + 1;
    memcpy(bytes + 8, &rows, sizeof rows);
    assert_refused(put_file("bad.index", bytes, length), PD_FORMAT_AUTO, PD_INVALID_ARGUMENT, "bad.index: ");
    memcpy(bytes, "IxZZ", 4);
    assert_refused(put_file("bad.index", bytes, length), PD_FORMAT_AUTO, PD_INVALID_ARGUMENT,
                   "FAISS cannot read it");
    memcpy(bytes, "IBxF", 4);
    assert_refused(put_file("bad.index", bytes, length), PD_FORMAT_FAISS, PD_INVALID_ARGUMENT,
                   "binary vectors");
    free(bytes);

    /* A scalar quantizer with one row more than codes: FAISS itself reads it without a word. */
    length = file_bytes(put_index("whole.index", "SQ8", NULL), &bytes);
    memcpy(bytes + 8, &rows, sizeof rows);
    assert_refused(put_file("bad.index", bytes, length), PD_FORMAT_AUTO, PD_INVALID_ARGUMENT,
                   "fewer codes than rows");
    free(bytes);
    length = file_bytes(put_index("whole.index", "IVF4,Flat", NULL), &bytes);
    memcpy(bytes + 8, &rows, sizeof rows);
    assert_refused(put_file("bad.index", bytes, length), PD_FORMAT_AUTO, PD_INVALID_ARGUMENT, "fewer rows");
    rows = ROWS - 1;
    memcpy(bytes + 8, &rows, sizeof rows);
    assert_refused(put_file("bad.index", bytes, length), PD_FORMAT_AUTO, PD_INVALID_ARGUMENT, "more rows");
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_members_of_an_hdf5_file_are_picked_by_name),
        cmocka_unit_test(test_without_a_train_set_the_only_matrix_is_taken),
        cmocka_unit_test(test_hdf5_types_and_shapes_that_we_do_not_read_are_named),
        cmocka_unit_test(test_halves_and_odd_integers_of_hdf5_are_widened),
        cmocka_unit_test(test_a_cut_hdf5_file_is_refused_in_silence),
        cmocka_unit_test(test_every_kind_of_faiss_index_gives_its_rows_in_order),
        cmocka_unit_test(test_ids_inside_a_faiss_index_come_with_their_rows),
        cmocka_unit_test(test_negative_ids_in_a_faiss_index_are_refused_by_row),
        cmocka_unit_test(test_an_index_that_cannot_give_its_vectors_says_so),
        cmocka_unit_test(test_cut_faiss_files_are_refused_at_any_length),
        cmocka_unit_test(test_faiss_files_that_contradict_themselves_are_refused),
    };
    return cmocka_run_group_tests(tests, make_numbers, remove_folder);
}
