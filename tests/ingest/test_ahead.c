/* Loading a version of many pieces: what arrives is what was written, in order, and damage anywhere is told by file and page. */
#include <fcntl.h>
#include <sys/stat.h>

#include "ahead.h"
#include "store_files.h"

enum { N = 60000, DIM = 192, LISTS = 16 };

typedef struct world {
    char folder[64], path[80];
    pd_device *device;
    float *rows;
} world;

static int up(void **state)
{
    world *w = calloc(1, sizeof *w);
    pd_error err;
    assert_non_null(w);
    folder_make(w->folder);
    snprintf(w->path, sizeof w->path, "%s/v", w->folder);
    w->device = device_make("cpu", 128u << 20);
    w->rows = rows_make(N, DIM, 20, 2);
    pd_schema *schema = schema_make("table = { metric = \"l2\"; refine = \"f16\"; };");
    pd_build_input in = input_make(schema, w->rows, N, DIM);
    in.nlist = LISTS;
    ok(pd_build(&in, w->path, w->device, NULL, NULL, &err), &err);
    pd_schema_free(schema);
    *state = w;
    return 0;
}

static int down(void **state)
{
    world *w = *state;
    pd_device_close(w->device);
    folder_drop(w->folder);
    free(w->rows);
    free(w);
    return 0;
}

static pd_version *version_of(const world *w)
{
    pd_version *version = NULL;
    pd_error err;
    ok(pd_version_open(w->path, &version, &err), &err);
    return version;
}

/* Drops a file from the page cache, so that it is read from the disk; a file system that cannot is read from its memory. */
static void drop(const world *w, const char *name)
{
    int fd = open(path_in(w->path, name), O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(fsync(fd), 0);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
}

typedef struct seen {
    const pd_version_info *info;
    uint32_t next;
    uint64_t ids;
} seen;

static pd_status see(void *context, uint32_t page, const void *bytes, pd_error *err)
{
    seen *s = context;
    (void)err;
    assert_int_equal(page, s->next++);
    s->ids += pd_page_ids(&s->info->layout, (void *)bytes)[0];
    return PD_OK;
}

static void check_load(const world *w)
{
    pd_version *version = version_of(w);
    const pd_version_info *info = pd_version_info_of(version);
    pd_index_spec spec = {.shape = info->shape, .npages = info->npages, .name = "ahead"};
    pd_index *index = NULL;
    pd_error err;
    seen s = {.info = info};
    assert_true((uint64_t)info->npages * info->layout.page_bytes > (8u << 20)); /* many pieces */
    ok(pd_index_open(w->device, &spec, &index, &err), &err);
    ok(pd_version_load(version, index, see, &s, &err), &err);
    assert_int_equal(s.next, info->npages);
    /* Both kinds of page are, byte for byte, the files'. */
    static const char *const names[] = {"pages.bin", "refine.bin"};
    for (int kind = 0; kind < 2; kind++) {
        size_t length, each = kind ? info->layout.refine_bytes : info->layout.page_bytes;
        unsigned char *file = file_bytes(path_in(w->path, names[kind]), &length), *page = malloc(each);
        assert_non_null(page);
        assert_int_equal(length, each * info->npages);
        for (uint32_t p = 0; p < info->npages; p++) {
            ok(pd_index_read_pages(index, (pd_page_kind)kind, p, 1, page, &err), &err);
            assert_memory_equal(page, file + p * each, each);
        }
        free(file);
        free(page);
    }
    pd_index_close(index);
    pd_version_close(version);
}

static void test_what_is_loaded_is_what_the_files_hold(void **state)
{
    const world *w = *state;
    drop(w, "pages.bin");
    drop(w, "refine.bin");
    check_load(w);
    check_load(w); /* from the page cache */
    drop(w, "refine.bin");
    check_load(w); /* from both */
}

static pd_status load(const world *w, pd_error *err)
{
    pd_version *version = version_of(w);
    pd_resident *resident = NULL;
    pd_status status = pd_resident_open(version, w->device, 0, &resident, err);
    pd_resident_close(resident);
    pd_version_close(version);
    return status;
}

/* Flips a bit of a page, and back again in a second call. */
static void flip(const world *w, const char *name, size_t at)
{
    unsigned char byte;
    int fd = open(path_in(w->path, name), O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
    byte ^= 4;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
    close(fd);
}

static void test_damage_is_told_by_file_and_page(void **state)
{
    const world *w = *state;
    pd_version *version = version_of(w);
    pd_layout layout = pd_version_info_of(version)->layout;
    uint32_t npages = pd_version_info_of(version)->npages;
    pd_version_close(version);
    const uint32_t pages[] = {0, 1, npages / 3, npages / 2 + 7, npages - 1};
    pd_error err;
    ok(load(w, &err), &err);
    for (int kind = 0; kind < 2; kind++)
        for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
            const char *name = kind ? "refine.bin" : "pages.bin";
            size_t each = kind ? layout.refine_bytes : layout.page_bytes;
            char wanted[64];
            flip(w, name, pages[i] * each + each / 2);
            drop(w, name);
            snprintf(wanted, sizeof wanted, "%s: page %u does not match", name, pages[i]);
            assert_int_equal(load(w, &err), PD_DATA_LOSS);
            if (!strstr(err.message, wanted)) fail_msg("\"%s\" does not say \"%s\"", err.message, wanted);
            flip(w, name, pages[i] * each + each / 2);
        }
    ok(load(w, &err), &err);
}

/* Of several damaged pages the first is told, whichever reader comes first. */
static void test_the_first_damage_is_told(void **state)
{
    const world *w = *state;
    pd_error err;
    pd_version *version = version_of(w);
    size_t each = pd_version_info_of(version)->layout.page_bytes;
    uint32_t npages = pd_version_info_of(version)->npages;
    pd_version_close(version);
    for (uint32_t page = 5; page < npages; page += 40)
        flip(w, "pages.bin", page * each + 9);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(load(w, &err), PD_DATA_LOSS);
        if (!strstr(err.message, "page 5 does")) fail_msg("\"%s\"", err.message);
    }
    for (uint32_t page = 5; page < npages; page += 40)
        flip(w, "pages.bin", page * each + 9);
    ok(load(w, &err), &err);
}

static void test_a_file_cut_short_after_it_was_opened_is_told(void **state)
{
    const world *w = *state;
    const char *path = path_in(w->path, "refine.bin");
    pd_error err;
    struct stat about;
    size_t length;
    void *whole = file_bytes(path, &length);
    pd_version *version = version_of(w);
    pd_resident *resident = NULL;
    for (size_t cut = 1; cut < length; cut = cut * 7 + 3000) {
        assert_int_equal(truncate(path, (off_t)(length - cut)), 0);
        assert_int_equal(pd_resident_open(version, w->device, 0, &resident, &err), PD_DATA_LOSS);
        assert_non_null(strstr(err.message, "refine.bin ends"));
        assert_null(resident);
        FILE *file = fopen(path, "wb");
        assert_non_null(file);
        assert_int_equal(fwrite(whole, 1, length, file), length);
        assert_int_equal(fclose(file), 0);
    }
    assert_int_equal(stat(path, &about), 0);
    ok(pd_resident_open(version, w->device, 0, &resident, &err), &err);
    pd_resident_close(resident);
    pd_version_close(version);
    free(whole);
}

static pd_status stop_at(void *context, uint32_t page, const void *bytes, pd_error *err)
{
    (void)bytes;
    return page == *(uint32_t *)context ? pd_fail(err, PD_CANCELLED, "stopped at page %u", page) : PD_OK;
}

static void test_a_load_stops_where_its_visitor_does(void **state)
{
    const world *w = *state;
    pd_version *version = version_of(w);
    const pd_version_info *info = pd_version_info_of(version);
    pd_index_spec spec = {.shape = info->shape, .npages = info->npages, .name = "ahead"};
    pd_error err;
    for (uint32_t page = 0; page < info->npages; page += info->npages / 5) {
        pd_index *index = NULL;
        ok(pd_index_open(w->device, &spec, &index, &err), &err);
        assert_int_equal(pd_version_load(version, index, stop_at, &page, &err), PD_CANCELLED);
        pd_index_close(index);
    }
    pd_version_close(version);
}

static void test_every_file_can_be_verified(void **state)
{
    const world *w = *state;
    pd_version *version = version_of(w);
    const pd_version_info *info = pd_version_info_of(version);
    size_t each = (size_t)PD_PAGE_ROWS * DIM * (info->schema->source == PD_REFINE_F16 ? 2 : 4);
    char wanted[64];
    pd_error err;
    ok(pd_version_verify(version, &err), &err);
    flip(w, "source.bin", (info->npages - 2) * each);
    snprintf(wanted, sizeof wanted, "source.bin: page %u does not match", info->npages - 2);
    assert_int_equal(pd_version_verify(version, &err), PD_DATA_LOSS);
    if (!strstr(err.message, wanted)) fail_msg("\"%s\" does not say \"%s\"", err.message, wanted);
    flip(w, "source.bin", (info->npages - 2) * each);
    pd_version_close(version);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_loaded_is_what_the_files_hold),
        cmocka_unit_test(test_damage_is_told_by_file_and_page),
        cmocka_unit_test(test_the_first_damage_is_told),
        cmocka_unit_test(test_a_file_cut_short_after_it_was_opened_is_told),
        cmocka_unit_test(test_a_load_stops_where_its_visitor_does),
        cmocka_unit_test(test_every_file_can_be_verified),
    };
    return cmocka_run_group_tests(tests, up, down);
}
