/* Scrubbing: of an erased row nothing is left in the files, and of the others nothing is another. */
#include "f16.h"
#include "project.h"
#include "scrub_files.h"

static const char *const tables[] = {
    "table = { metric = \"ip\"; nlist = 20; " ATTRIBUTES,
    "table = { metric = \"cosine\"; nlist = 20; source = \"f16\"; " ATTRIBUTES,
    "table = { metric = \"l2\"; nlist = 20; code = \"f16\"; " ATTRIBUTES,
    "table = { metric = \"l2\"; nlist = 20; code = \"f32\"; refine = \"f16\"; " ATTRIBUTES,
    "table = { metric = \"ip\"; nlist = 20; code_dim = 8; refine = \"f32\"; " ATTRIBUTES,
    "table = { metric = \"l2\"; index = \"none\"; " ATTRIBUTES,
};
enum { TABLES = sizeof tables / sizeof *tables };

static uint32_t scrub(world *w, const uint64_t *ids, uint32_t n, pd_version *open)
{
    pd_error err;
    uint32_t found = UINT32_MAX;
    ok(pd_version_scrub(w->version, ids, n, open, &found, &err), &err);
    assert_false(there(w->fresh));
    return found;
}

/* How often bytes stand anywhere in the files of a version. */
static uint32_t occurrences(const char *folder, const void *bytes, size_t length)
{
    uint32_t count = 0;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (entry->d_name[0] == '.') continue;
        size_t size;
        char *all = file_bytes(path_in(folder, entry->d_name), &size);
        for (char *at = all; (at = memmem(at, size - (size_t)(at - all), bytes, length)); at++)
            count++;
        free(all);
    }
    closedir(dir);
    return count;
}

/* What a row is told by in the files: its id, its key, four dimensions of it as f32 and as f16. */
static uint32_t traces(const world *w, uint32_t row)
{
    uint64_t id = w->ids[row], key = 1000000007u + row;
    pd_f16 half[4];
    for (int d = 0; d < 4; d++)
        half[d] = pd_f32_to_f16(w->rows[row * DIM + (uint32_t)d]);
    return occurrences(w->version, &id, 8) + occurrences(w->version, &key, 8) +
           occurrences(w->version, w->rows + row * DIM, 16) + occurrences(w->version, half, 8);
}

static void test_nothing_of_an_erased_row_is_left_in_any_file(void **state)
{
    (void)state;
    for (int t = 0; t < TABLES; t++) {
        world *w = world_make(tables[t]);
        const uint32_t gone[] = {LONER, 0, N - 1, 77};
        uint64_t ids[4];
        for (int i = 0; i < 4; i++) {
            if (traces(w, gone[i]) < 3)
                fail_msg("table %d, row %u is not where it is looked for", t, gone[i]);
            ids[i] = w->ids[gone[i]];
        }
        assert_true(traces(w, 78) >= 3);
        assert_int_equal(scrub(w, ids, 4, NULL), 4);
        for (int i = 0; i < 4; i++)
            if (traces(w, gone[i])) fail_msg("table %d, row %u left traces", t, gone[i]);
        assert_true(traces(w, 78) >= 3);
        assert_int_equal(load(w), N - 4);
        world_free(w);
    }
}

/* Every byte of a slot, by page file. */
/* Two rows beside each other and far from all others: their list's centroid is as good as either. */
static void twins(world *w, const char *schema_text)
{
    pd_error err;
    pd_schema *schema = schema_make(schema_text);
    w->rows = rows_make(N, DIM, 6, 2);
    for (uint32_t i = 0; i < N; i++)
        w->ids[i] = ID_OF(i);
    for (uint32_t d = 0; d < DIM; d++) {
        w->rows[LONER * DIM + d] = (d % 2 ? -40.0f : 40.0f) + (float)d * 0.37f;
        w->rows[(LONER + 1) * DIM + d] = w->rows[LONER * DIM + d] * (d % 3 ? 1.0005f : 0.9996f);
    }
    pd_build_input in = input_make(schema, w->rows, N, DIM);
    in.ids = w->ids;
    ok(pd_build(&in, w->version, w->device, NULL, NULL, &err), &err);
    pd_schema_free(schema);
}

static void test_a_centroid_that_is_an_erased_row_moves_and_takes_its_list_along(void **state)
{
    (void)state;
    static const char *const texts[] = {"table = { metric = \"l2\"; nlist = 16; };",
                                        "table = { metric = \"ip\"; nlist = 16; code_dim = 8; };"};
    for (int t = 0; t < 2; t++) {
        world *w = world_empty();
        pd_version *version;
        pd_error err;
        uint32_t slot;
        twins(w, texts[t]);
        scrub(w, &w->ids[LONER], 1, NULL);
        const pd_version_info *info = opened(w->version, &version);
        const float *twin = w->rows + (LONER + 1) * DIM;
        ok(pd_version_find(version, &w->ids[LONER + 1], 1, &slot, &err), &err);
        uint32_t list = info->page_list[slot / PD_PAGE_ROWS];
        const float *centroid = info->lists.centroids + list * DIM;
        assert_int_equal(info->lists.rows[list], 1);
        assert_memory_equal(centroid, twin, DIM * sizeof(float)); /* the mean of one */
        pd_projection *projection = NULL;
        if (info->lists.projection)
            ok(pd_projection_open(info->lists.projection, info->shape.code_dim, info->lists.centroids,
                                  info->shape.nlist, DIM, &projection, &err),
               &err);
        unsigned char *page = aligned_alloc(64, info->layout.page_bytes),
                      *want = aligned_alloc(64, info->layout.page_bytes);
        assert_true(page && want);
        pd_page_clear(&info->shape, &info->layout, want);
        pd_page_encode(&info->shape, &info->layout, projection, centroid, twin, slot % PD_PAGE_ROWS, 1, want,
                       NULL);
        ok(pd_page_file_read(&version->files[PD_FILE_PAGES], slot / PD_PAGE_ROWS, 1, page, &err), &err);
        assert_memory_equal(page, want, info->layout.ids); /* codes, scales and terms */
        free(page);
        free(want);
        pd_projection_close(projection);
        pd_version_close(version);
        assert_int_equal(load(w), N - 1);
        world_free(w);
    }
}

static void test_the_centroid_of_a_list_that_is_empty_now_is_that_of_the_nearest(void **state)
{
    (void)state;
    world *w = world_make(tables[0]);
    pd_version *version;
    pd_error err;
    uint32_t slot, nearest = 0;
    const pd_version_info *info = opened(w->version, &version);
    ok(pd_version_find(version, &w->ids[LONER], 1, &slot, &err), &err);
    uint32_t list = info->page_list[slot / PD_PAGE_ROWS];
    assert_int_equal(info->lists.rows[list], 1);
    const float *row = w->rows + LONER * DIM;
    for (uint32_t i = 0; i < info->shape.nlist; i++)
        if (i != list && (nearest == list || pd_l2(row, info->lists.centroids + i * DIM, DIM) <
                                                 pd_l2(row, info->lists.centroids + nearest * DIM, DIM)))
            nearest = i;
    pd_version_close(version);
    scrub(w, &w->ids[LONER], 1, NULL);
    info = opened(w->version, &version);
    assert_int_equal(info->lists.rows[list], 0);
    assert_memory_equal(info->lists.centroids + list * DIM, info->lists.centroids + nearest * DIM,
                        DIM * sizeof(float));
    pd_version_close(version);
    world_free(w);
}

static void test_an_erased_slot_is_as_if_it_had_never_been_filled(void **state)
{
    (void)state;
    for (int t = 0; t < TABLES; t++) {
        world *w = world_make(tables[t]);
        pd_version *version;
        pd_error err;
        uint32_t slot;
        const pd_version_info *info = opened(w->version, &version);
        ok(pd_version_find(version, &w->ids[77], 1, &slot, &err), &err);
        pd_version_close(version);
        scrub(w, &w->ids[77], 1, NULL);
        info = opened(w->version, &version);
        size_t bytes = info->layout.page_bytes;
        unsigned char *page = aligned_alloc(64, bytes), *clear = aligned_alloc(64, bytes);
        assert_true(page && clear);
        /* All other rows of the page away: the page is then a clear one, or the slot was not. */
        ok(pd_page_file_read(&version->files[PD_FILE_PAGES], slot / PD_PAGE_ROWS, 1, page, &err), &err);
        pd_page_clear(&info->shape, &info->layout, clear);
        uint32_t r = slot % PD_PAGE_ROWS;
        size_t units[][3] = {
            {info->layout.codes, info->shape.code == PD_CODE_F16 ? 2 : 4, info->layout.scale},
            {info->layout.scale, 4, info->layout.term},
            {info->layout.term, 4, info->layout.ids},
            {info->layout.ids, 8, info->layout.bytes},
            {info->layout.bytes, 1, info->layout.floats},
            {info->layout.floats, 4, info->layout.keys},
            {info->layout.keys, 8, info->layout.keys + info->shape.nkeys * 8 * PD_PAGE_ROWS}};
        for (size_t u = 0; u < sizeof units / sizeof *units; u++)
            for (size_t at = units[u][0] + r * units[u][1]; at < units[u][2];
                 at += units[u][1] * PD_PAGE_ROWS)
                assert_memory_equal(page + at, clear + at, units[u][1]);
        free(page);
        free(clear);
        float row[DIM];
        ok(pd_version_source(version, &slot, 1, row, &err), &err);
        for (int d = 0; d < DIM; d++)
            assert_true(row[d] == 0);
        pd_rows rows = {.vectors = row};
        assert_int_equal(pd_version_rows(version, &slot, 1, &rows, &err), PD_OUT_OF_RANGE);
        pd_version_close(version);
        world_free(w);
    }
}

static void test_the_other_rows_keep_their_slots_and_their_bytes(void **state)
{
    (void)state;
    for (int t = 0; t < TABLES; t++) {
        world *w = world_make(tables[t]);
        pd_version *before, *after;
        pd_error err;
        static uint32_t was[N], is[N];
        const pd_version_info *info = opened(w->version, &before);
        rows_held(w, before, was);
        const uint64_t ids[] = {w->ids[5], w->ids[600]};
        scrub(w, ids, 2, NULL);
        opened(w->version, &after);
        assert_int_equal(rows_held(w, after, is), N - 2);
        for (uint32_t i = 0; i < N; i++) {
            assert_int_equal(is[i], i == 5 || i == 600 ? PD_NO_SLOT : was[i]);
            if (i == 5 || i == 600) continue;
            float old[DIM], now[DIM];
            ok(pd_version_source(before, &was[i], 1, old, &err), &err);
            ok(pd_version_source(after, &is[i], 1, now, &err), &err);
            assert_memory_equal(old, now, sizeof old);
        }
        unsigned char *pages[2] = {malloc(info->layout.page_bytes), malloc(info->layout.page_bytes)};
        for (uint32_t p = 0; p < info->npages; p++) {
            if (p == was[5] / PD_PAGE_ROWS || p == was[600] / PD_PAGE_ROWS) continue;
            ok(pd_page_file_read(&before->files[PD_FILE_PAGES], p, 1, pages[0], &err), &err);
            ok(pd_page_file_read(&after->files[PD_FILE_PAGES], p, 1, pages[1], &err), &err);
            assert_memory_equal(pages[0], pages[1], info->layout.page_bytes);
        }
        free(pages[0]);
        free(pages[1]);
        pd_version_close(before);
        pd_version_close(after);
        world_free(w);
    }
}

static void test_answers_are_those_of_before_without_the_erased(void **state)
{
    (void)state;
    for (int t = 0; t < TABLES; t++) {
        world *w = world_make(tables[t]);
        pd_version *version;
        pd_hit before[K], after[K];
        opened(w->version, &version);
        assert_int_equal(ask(w, version, w->device, 12, before), K);
        pd_version_close(version);
        const uint64_t ids[] = {before[0].id, before[3].id};
        assert_int_equal(scrub(w, ids, 2, NULL), 2);
        opened(w->version, &version);
        assert_int_equal(ask(w, version, w->device, 12, after), K);
        for (uint32_t i = 0, at = 0; i < K; i++) {
            if (i == 0 || i == 3) continue;
            assert_int_equal(after[at].id, before[i].id);
            assert_int_equal(after[at].slot, before[i].slot);
            assert_memory_equal(&after[at++].score, &before[i].score, sizeof(float));
        }
        pd_version_close(version);
        world_free(w);
    }
}

/* Lists and segments against what the pages say, added up here. */
static void check_lists(const pd_version *version)
{
    const pd_version_info *info = pd_version_info_of(version);
    const pd_shape *shape = &info->shape;
    pd_error err;
    void *page = aligned_alloc(64, info->layout.page_bytes);
    assert_non_null(page);
    for (uint32_t list = 0; list < shape->nlist; list++) {
        uint32_t rows = 0, counts[PD_MAX_BYTES][256] = {{0}};
        for (uint32_t at = info->lists.offsets[list]; at < info->lists.offsets[list + 1]; at++) {
            ok(pd_page_file_read(&version->files[PD_FILE_PAGES], info->lists.pages[at], 1, page, &err), &err);
            for (uint32_t r = 0; r < PD_PAGE_ROWS; r++) {
                if (isinf(pd_page_term(&info->layout, page)[r])) continue;
                rows++;
                for (uint32_t c = 0; c < shape->nbytes; c++)
                    counts[c][pd_page_bytes(&info->layout, page, c)[r]]++;
            }
        }
        assert_int_equal(info->lists.rows[list], rows);
        for (uint32_t c = 0; c < shape->nbytes; c++)
            for (uint32_t v = 0; v < shape->sizes[c]; v++) {
                float share =
                    info->lists.histograms[(size_t)(info->layout.weight_at[c] + v) * shape->nlist + list];
                assert_true(share == (rows ? (float)counts[c][v] / (float)rows : v == 0 ? 1.0f : 0.0f));
            }
    }
    free(page);
}

static void test_lists_and_their_shares_count_what_is_left(void **state)
{
    (void)state;
    for (int t = 0; t < TABLES; t++) {
        world *w = world_make(tables[t]);
        pd_version *version;
        uint64_t ids[60];
        for (uint32_t i = 0; i < 60; i++)
            ids[i] = w->ids[i * 11];
        ids[59] = w->ids[LONER];
        opened(w->version, &version);
        check_lists(version);
        pd_version_close(version);
        assert_int_equal(scrub(w, ids, 60, NULL), 60);
        opened(w->version, &version);
        check_lists(version);
        pd_version_close(version);
        world_free(w);
    }
}

/* The mean of the rows of a kind but those erased, as the build makes it. Returns how many there are. */
static uint32_t mean_of(const world *w, uint32_t kind, const uint8_t *gone, int cosine, float *mean)
{
    double sum[DIM] = {0};
    uint32_t count = 0;
    for (uint32_t i = 0; i < N; i++) {
        if (gone[i] || kind_of(i) != kind) continue;
        count++;
        for (uint32_t d = 0; d < DIM; d++)
            sum[d] += (double)w->rows[i * DIM + d];
    }
    for (uint32_t d = 0; d < DIM; d++)
        mean[d] = (float)(sum[d] / count);
    if (cosine && count) pd_normalise(mean, DIM);
    return count;
}

static void test_segments_have_the_means_of_who_is_left(void **state)
{
    (void)state;
    for (int t = 0; t < TABLES; t++) {
        world *w = world_make(tables[t]);
        pd_version *version;
        uint8_t gone[N] = {0};
        const uint64_t ids[] = {w->ids[LONER], w->ids[10], w->ids[15]}; /* of the kinds 9, 0, 0 */
        gone[LONER] = gone[10] = gone[15] = 1;
        scrub(w, ids, 3, NULL);
        const pd_version_info *info = opened(w->version, &version);
        for (uint32_t kind = 0; kind < 5; kind++) {
            char name[8];
            float mean[DIM], want[DIM];
            snprintf(name, sizeof name, "k%u", kind);
            uint32_t value = (uint32_t)pd_attribute_value(&info->schema->attributes[0], name);
            uint32_t count = mean_of(w, kind, gone, info->shape.metric == PD_COSINE, want);
            assert_int_equal(pd_version_segment(version, 0, value, mean), count);
            for (uint32_t d = 0; d < DIM; d++)
                assert_true(fabsf(mean[d] - want[d]) < 2e-4f);
        }
        float none[DIM];
        int loner = pd_attribute_value(&info->schema->attributes[0], "k9");
        assert_true(loner > 0); /* the name stays, nobody has it */
        assert_int_equal(pd_version_segment(version, 0, (uint32_t)loner, none), 0);
        pd_version_close(version);
        world_free(w);
    }
}

static void test_a_table_may_lose_all_of_its_rows(void **state)
{
    (void)state;
    for (int t = 0; t < TABLES; t++) {
        world *w = world_make(tables[t]);
        assert_int_equal(scrub(w, w->ids, N, NULL), N);
        assert_int_equal(load(w), 0);
        pd_version *version;
        pd_error err;
        pd_hit hits[K];
        uint32_t slot = 3;
        opened(w->version, &version);
        assert_int_equal(ask(w, version, w->device, 0, hits), 0);
        assert_int_equal(pd_version_settle(version, &slot, 1, &err), PD_FAILED_PRECONDITION);
        pd_version_close(version);
        for (uint32_t i = 0; i < N; i += 50)
            assert_int_equal(traces(w, i), 0);
        world_free(w);
    }
}

static void test_ids_that_are_not_there_or_there_twice_are_passed_over(void **state)
{
    (void)state;
    world *w = world_make(tables[0]);
    const uint64_t ids[] = {5, w->ids[9], UINT64_MAX, w->ids[9], 0, w->ids[3]};
    assert_int_equal(scrub(w, ids, 6, NULL), 2);
    assert_int_equal(scrub(w, ids, 6, NULL), 0);
    assert_int_equal(load(w), N - 2);
    world_free(w);
}

static void test_where_nothing_is_found_nothing_is_written(void **state)
{
    (void)state;
    world *w = world_make(tables[0]);
    struct stat before, after;
    assert_int_equal(stat(path_in(w->version, "pages.bin"), &before), 0);
    assert_int_equal(mkdir(w->fresh, 0755), 0); /* what an interrupted one left goes in any case */
    file_write(path_in(w->fresh, "pages.bin"), "rows that were to be erased");
    const uint64_t id = 5;
    assert_int_equal(scrub(w, &id, 1, NULL), 0);
    assert_int_equal(scrub(w, NULL, 0, NULL), 0);
    assert_int_equal(stat(path_in(w->version, "pages.bin"), &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    world_free(w);
}

static void test_what_does_not_change_is_shared_and_the_rest_is_told(void **state)
{
    (void)state;
    world *w = world_make(tables[0]);
    pd_error err;
    pd_calibration calibration = {.measured = 1, .queries = 9, .source = "file", .similarity_sd = 0.25f};
    ok(pd_version_set_calibration(w->version, &calibration, &err), &err);
    struct stat before, after;
    assert_int_equal(stat(path_in(w->version, "schema.conf"), &before), 0);
    scrub(w, &w->ids[4], 1, NULL);
    assert_int_equal(stat(path_in(w->version, "schema.conf"), &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    pd_version *version;
    const pd_version_info *info = opened(w->version, &version);
    assert_int_equal(info->rows, N - 1);
    assert_int_equal(info->version, 7);
    assert_true(info->calibration->similarity_sd == 0.25f);
    for (uint32_t i = 0; i < version->manifest.nfiles; i++) {
        size_t length;
        void *bytes = file_bytes(path_in(w->version, version->manifest.files[i].name), &length);
        assert_int_equal(length, version->manifest.files[i].bytes);
        assert_true(pd_sum_of(bytes, length) == version->manifest.files[i].sum);
        free(bytes);
    }
    pd_version_close(version);
    world_free(w);
}

static void test_an_opened_version_goes_over_to_the_new_files(void **state)
{
    (void)state;
    world *w = world_make(tables[0]);
    pd_version *open, *other;
    pd_error err;
    uint32_t slots[N], slot;
    pd_hit hits[K];
    float mean[DIM];
    const pd_version_info *info = opened(w->version, &open);
    uint32_t loner = (uint32_t)pd_attribute_value(&info->schema->attributes[0], "k9");
    opened(w->version, &other);
    ok(pd_version_find(open, &w->ids[LONER], 1, &slot, &err), &err);
    assert_int_equal(pd_version_segment(open, 0, loner, mean), 1);
    assert_int_equal(scrub(w, &w->ids[LONER], 1, open), 1);
    assert_int_equal(rows_held(w, open, slots), N - 1);
    assert_int_equal(ask(w, open, w->device, LONER, hits), K);
    for (uint32_t i = 0; i < K; i++)
        assert_true(hits[i].id != w->ids[LONER]);
    ok(pd_version_source(open, &slot, 1, mean, &err), &err);
    assert_true(mean[0] == 0 && mean[DIM - 1] == 0);
    assert_int_equal(pd_version_segment(open, 0, loner, mean), 0);
    assert_int_equal(info->rows, N); /* as it was opened */
    pd_resident *resident;
    assert_int_equal(pd_resident_open(open, w->device, 0, &resident, &err), PD_FAILED_PRECONDITION);
    assert_non_null(strstr(err.message, "scrubbed"));
    /* One that was opened beside it follows when it is asked for. */
    assert_int_equal(rows_held(w, other, slots), N);
    assert_int_equal(scrub(w, &w->ids[LONER], 1, other), 0);
    assert_int_equal(rows_held(w, other, slots), N - 1);
    pd_version_close(open);
    pd_version_close(other);
    world_free(w);
}

static void test_another_version_that_is_open_is_refused(void **state)
{
    (void)state;
    world *w = world_make(tables[0]), *v = world_make(tables[2]);
    pd_version *open;
    pd_error err;
    uint32_t found;
    opened(v->version, &open);
    assert_int_equal(pd_version_scrub(w->version, w->ids, 1, open, &found, &err), PD_INVALID_ARGUMENT);
    assert_int_equal(found, 0);
    assert_int_equal(load(w), N);
    pd_version_close(open);
    world_free(v);
    world_free(w);
}

static void test_a_damaged_version_is_refused_by_file_and_page(void **state)
{
    (void)state;
    static const char *const names[] = {"pages.bin", "refine.bin", "source.bin"};
    for (int i = 0; i < 3; i++) {
        world *w = world_make(tables[0]);
        pd_error err;
        uint32_t found;
        FILE *file = fopen(path_in(w->version, names[i]), "r+b");
        assert_non_null(file);
        assert_int_equal(fseek(file, 9, SEEK_SET), 0);
        int was = fgetc(file);
        assert_int_equal(fseek(file, 9, SEEK_SET), 0);
        fputc(was ^ 1, file);
        assert_int_equal(fclose(file), 0);
        assert_int_equal(pd_version_scrub(w->version, w->ids, 1, NULL, &found, &err), PD_DATA_LOSS);
        assert_non_null(strstr(err.message, names[i]));
        assert_non_null(strstr(err.message, "page 0"));
        assert_false(there(w->fresh));
        world_free(w);
    }
}

static void test_rows_are_found_by_id_and_read_by_slot(void **state)
{
    (void)state;
    world *w = world_make(tables[0]);
    pd_version *version;
    pd_error err;
    uint32_t slots[4];
    const pd_version_info *info = opened(w->version, &version);
    const uint64_t ids[] = {w->ids[20], 1, w->ids[20], w->ids[699]};
    ok(pd_version_find(version, ids, 4, slots, &err), &err);
    assert_int_equal(slots[1], PD_NO_SLOT);
    assert_int_equal(slots[0], slots[2]);
    slots[1] = slots[3];
    uint64_t back[2], keys[2];
    float vectors[2 * DIM], prices[2];
    uint8_t *bytes = calloc(2, info->shape.nbytes);
    assert_non_null(bytes);
    pd_rows rows = {.vectors = vectors, .ids = back, .bytes = bytes, .floats = prices, .keys = keys};
    ok(pd_version_rows(version, slots, 2, &rows, &err), &err);
    assert_int_equal(back[0], w->ids[20]);
    assert_int_equal(back[1], w->ids[699]);
    assert_memory_equal(vectors + DIM, w->rows + 699 * DIM, DIM * sizeof(float));
    assert_true(prices[0] == 20.5f && prices[1] == 19.5f);
    assert_int_equal(keys[1], 1000000007u + 699);
    assert_string_equal(info->schema->attributes[0].values[bytes[info->shape.nbytes]], "k4");
    uint32_t outside = info->npages * PD_PAGE_ROWS;
    assert_int_equal(pd_version_rows(version, &outside, 1, &rows, &err), PD_OUT_OF_RANGE);
    free(bytes);
    pd_version_close(version);
    world_free(w);
}

static void test_a_slot_without_a_row_settles_on_the_next_with_one(void **state)
{
    (void)state;
    world *w = world_make(tables[5]); /* row i is slot i */
    const uint64_t ids[] = {w->ids[40], w->ids[41], w->ids[N - 1]};
    scrub(w, ids, 3, NULL);
    pd_version *version;
    pd_error err;
    uint32_t slots[] = {39, 40, 41, 42, N - 1};
    const uint32_t want[] = {39, 42, 42, 42, 0};
    opened(w->version, &version);
    ok(pd_version_settle(version, slots, 5, &err), &err);
    assert_memory_equal(slots, want, sizeof want);
    pd_version_close(version);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_of_an_erased_row_is_left_in_any_file),
        cmocka_unit_test(test_a_centroid_that_is_an_erased_row_moves_and_takes_its_list_along),
        cmocka_unit_test(test_the_centroid_of_a_list_that_is_empty_now_is_that_of_the_nearest),
        cmocka_unit_test(test_an_erased_slot_is_as_if_it_had_never_been_filled),
        cmocka_unit_test(test_the_other_rows_keep_their_slots_and_their_bytes),
        cmocka_unit_test(test_answers_are_those_of_before_without_the_erased),
        cmocka_unit_test(test_lists_and_their_shares_count_what_is_left),
        cmocka_unit_test(test_segments_have_the_means_of_who_is_left),
        cmocka_unit_test(test_a_table_may_lose_all_of_its_rows),
        cmocka_unit_test(test_ids_that_are_not_there_or_there_twice_are_passed_over),
        cmocka_unit_test(test_where_nothing_is_found_nothing_is_written),
        cmocka_unit_test(test_what_does_not_change_is_shared_and_the_rest_is_told),
        cmocka_unit_test(test_an_opened_version_goes_over_to_the_new_files),
        cmocka_unit_test(test_another_version_that_is_open_is_refused),
        cmocka_unit_test(test_a_damaged_version_is_refused_by_file_and_page),
        cmocka_unit_test(test_rows_are_found_by_id_and_read_by_slot),
        cmocka_unit_test(test_a_slot_without_a_row_settles_on_the_next_with_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
