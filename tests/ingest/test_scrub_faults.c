/* Scrubbing when something fails: a crash before any of its calls, each call failing once, readers while the folders change places,
 * and a file system that cannot exchange names. The calls are wrapped by the linker (store.cmake). */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "scrub_files.h"
#include "snapshot.h"

/* ------------------------------------------------------------------------------------------------ wrapped calls --- */

enum { COUNT, CRASH, FAIL };
#define CRASHED 42

static int armed;               /* calls are counted at all */
static int mode;                /* what becomes of call number `at` */
static unsigned long calls, at; /* from 1 */
static int no_exchange, no_links;

/* Whether this call is the one that fails. */
static int strikes(int code)
{
    if (!armed || ++calls != at || mode == COUNT) return 0;
    if (mode == CRASH) _exit(CRASHED);
    errno = code;
    return 1;
}

#define WRAP(type, name, parameters, arguments, code)                                                        \
    type __real_##name parameters;                                                                           \
    type __wrap_##name parameters;                                                                           \
    type __wrap_##name parameters                                                                            \
    {                                                                                                        \
        return strikes(code) ? (type)-1 : __real_##name arguments;                                           \
    }
#define WRAP_MEMORY(name, parameters, arguments)                                                             \
    void *__real_##name parameters;                                                                          \
    void *__wrap_##name parameters;                                                                          \
    void *__wrap_##name parameters                                                                           \
    {                                                                                                        \
        return strikes(ENOMEM) ? NULL : __real_##name arguments;                                             \
    }

WRAP(ssize_t, write, (int fd, const void *bytes, size_t length), (fd, bytes, length), ENOSPC)
WRAP(ssize_t, pread, (int fd, void *bytes, size_t length, off_t from), (fd, bytes, length, from), EIO)
WRAP(int, mkdir, (const char *path, mode_t how), (path, how), ENOSPC)
WRAP(int, rmdir, (const char *path), (path), EIO)
WRAP(int, unlinkat, (int fd, const char *path, int how), (fd, path, how), EIO)
WRAP_MEMORY(malloc, (size_t bytes), (bytes))
WRAP_MEMORY(calloc, (size_t count, size_t bytes), (count, bytes))
WRAP_MEMORY(aligned_alloc, (size_t to, size_t bytes), (to, bytes))

/* No power is cut here: what matters is that a sync that fails is looked at. */
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    (void)fd;
    return strikes(EIO) ? -1 : 0;
}

int __real_link(const char *from, const char *to);
int __wrap_link(const char *from, const char *to);
int __wrap_link(const char *from, const char *to)
{
    if (no_links) errno = EXDEV;
    return no_links || strikes(EIO) ? -1 : __real_link(from, to);
}

int __real_renameat2(int a, const char *from, int b, const char *to, unsigned how);
int __wrap_renameat2(int a, const char *from, int b, const char *to, unsigned how);
int __wrap_renameat2(int a, const char *from, int b, const char *to, unsigned how)
{
    if (no_exchange) errno = EINVAL;
    return no_exchange || strikes(EIO) ? -1 : __real_renameat2(a, from, b, to, how);
}

/* ------------------------------------------------------------------------------------------------ one after another --- */

static const char *const text = "table = { metric = \"ip\"; nlist = 20; " ATTRIBUTES;
static const uint32_t gone[] = {LONER, 12, 690};
enum { GONE = sizeof gone / sizeof *gone };

static pd_status scrub(world *w, pd_version *open, uint32_t *found, pd_error *err)
{
    uint64_t ids[GONE];
    for (int i = 0; i < GONE; i++)
        ids[i] = w->ids[gone[i]];
    return pd_version_scrub(w->version, ids, GONE, open, found, err);
}

/* The folder is whole, with the rows or without them. */
static int is_scrubbed(const world *w)
{
    uint64_t rows = load(w);
    assert_true(rows == N || rows == N - GONE);
    return rows != N;
}

/* Makes the folder what it was before, from the copy beside it. */
static void restore(const world *w)
{
    char command[512];
    snprintf(command, sizeof command, "rm -rf %s %s && cp -r %s/copy %s", w->version, w->fresh, w->folder,
             w->version);
    assert_int_equal(system(command), 0);
}

static void keep_copy(const world *w)
{
    char command[512];
    snprintf(command, sizeof command, "cp -r %s %s/copy", w->version, w->folder);
    assert_int_equal(system(command), 0);
}

static unsigned long calls_of_one(world *w)
{
    pd_error err;
    uint32_t found;
    mode = COUNT;
    calls = 0;
    armed = 1;
    pd_status status = scrub(w, NULL, &found, &err);
    armed = 0;
    ok(status, &err);
    assert_int_equal(found, GONE);
    restore(w);
    return calls;
}

static void crash_before(world *w, unsigned long call)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        pd_error err;
        uint32_t found;
        mode = CRASH;
        at = call;
        calls = 0;
        armed = 1;
        scrub(w, NULL, &found, &err);
        _exit(0);
    }
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how));
    assert_int_equal(WEXITSTATUS(how), CRASHED);
}

static void test_a_crash_at_any_step_leaves_the_old_version_or_the_new(void **state)
{
    (void)state;
    world *w = world_make(text);
    keep_copy(w);
    unsigned long all = calls_of_one(w);
    int before = 0, after = 0;
    assert_true(all > 60);
    for (unsigned long call = 1; call <= all; call++) {
        pd_error err;
        uint32_t found;
        crash_before(w, call);
        int done = is_scrubbed(w);
        before += !done;
        after += done;
        /* Again, as the next start does, until it is done: the rows go and nothing is left beside the folder. */
        ok(scrub(w, NULL, &found, &err), &err);
        assert_int_equal(found, done ? 0 : GONE);
        assert_int_equal(is_scrubbed(w), 1);
        assert_false(there(w->fresh));
        restore(w);
    }
    assert_true(before > 50 && after > 5);
    world_free(w);
}

static void test_each_call_that_fails_is_told_and_a_second_try_finishes(void **state)
{
    (void)state;
    world *w = world_make(text);
    keep_copy(w);
    unsigned long all = calls_of_one(w);
    for (unsigned long call = 1; call <= all; call++) {
        pd_error err = {0};
        pd_version *open;
        uint32_t found, again, slots[N];
        opened(w->version, &open);
        mode = FAIL;
        at = call;
        calls = 0;
        armed = 1;
        pd_status status = scrub(w, open, &found, &err);
        armed = 0;
        if (!status || !err.message[0]) fail_msg("call %lu of %lu failed and nobody said so", call, all);
        int done = is_scrubbed(w);
        assert_int_equal(found, done ? GONE : 0);
        assert_int_equal(rows_held(w, open, slots), done ? N - GONE : N); /* what is open is what is there */
        ok(scrub(w, open, &again, &err), &err);
        assert_int_equal(found + again, GONE);
        assert_int_equal(rows_held(w, open, slots), N - GONE);
        assert_int_equal(is_scrubbed(w), 1);
        assert_false(there(w->fresh));
        pd_version_close(open);
        restore(w);
    }
    world_free(w);
}

static void test_where_names_cannot_be_exchanged_a_scrub_is_refused(void **state)
{
    (void)state;
    world *w = world_make(text);
    pd_error err;
    uint32_t found;
    no_exchange = 1;
    pd_status status = scrub(w, NULL, &found, &err);
    no_exchange = 0;
    assert_int_equal(status, PD_FAILED_PRECONDITION);
    assert_non_null(strstr(err.message, "cannot exchange"));
    assert_int_equal(found, 0);
    assert_int_equal(is_scrubbed(w), 0);
    assert_false(there(w->fresh));
    world_free(w);
}

static void test_without_hard_links_the_rest_is_copied(void **state)
{
    (void)state;
    world *w = world_make(text);
    pd_error err;
    uint32_t found;
    no_links = 1;
    pd_status status = scrub(w, NULL, &found, &err);
    no_links = 0;
    ok(status, &err);
    assert_int_equal(is_scrubbed(w), 1);
    world_free(w);
}

/* ------------------------------------------------------------------------------------------------ readers --- */

enum { MORE = 12 };

static uint32_t more(uint32_t i)
{
    return 100 + 3 * i;
}

static int goes(uint32_t row)
{
    for (int i = 0; i < GONE; i++)
        if (row == gone[i]) return 1;
    return row >= 100 && row < more(MORE) && row % 3 == 1;
}

typedef struct reader {
    const world *w;
    const pd_version *version;
    uint32_t slots[N];
    atomic_int *stop;
    pthread_t thread;
    uint32_t rounds;
    int wrong;
    int seen; /* sources: of the rows that go: zeros; exact: answers without them */
} reader;

static void *read_sources(void *context)
{
    reader *r = context;
    pd_error err;
    float row[DIM], mean[DIM];
    static const float zeros[DIM];
    for (uint32_t i = 0; !atomic_load(r->stop) || i < N; i++, r->rounds++) {
        uint32_t which = i % 3 ? i * 37 % N : gone[i / 3 % GONE];
        if (pd_version_source(r->version, &r->slots[which], 1, row, &err)) r->wrong = 1;
        int same = !memcmp(row, r->w->rows + which * DIM, sizeof row),
            empty = !memcmp(row, zeros, sizeof row);
        if (!same && !(goes(which) && empty)) r->wrong = 1;
        r->seen |= goes(which) && empty;
        if (i % 64 == 0) pd_version_segment(r->version, 0, i / 64 % 7, mean);
    }
    return NULL;
}

/* Each answer is of one moment: with all of the rows or, once they went, without. */
static void *search_exactly(void *context)
{
    reader *r = context;
    pd_device *device = device_make("cpu", 8u << 20);
    pd_hit hits[K];
    for (uint32_t i = 0; !atomic_load(r->stop) || i < 4; i++, r->rounds++) {
        if (ask(r->w, r->version, device, LONER, hits) != K) r->wrong = 1;
        int with = hits[0].id == r->w->ids[LONER];
        if (r->seen && with) r->wrong = 1; /* it came back */
        r->seen |= !with;
        for (uint32_t h = 0; h < K; h++)
            if (hits[h].score == 0) r->wrong = 1; /* a row whose source row was gone already */
    }
    pd_device_close(device);
    return NULL;
}

static void test_others_read_on_while_the_folders_change_places(void **state)
{
    (void)state;
    world *w = world_make(text);
    pd_version *open;
    pd_error err;
    atomic_int stop = 0;
    reader readers[4];
    opened(w->version, &open);
    for (int i = 0; i < 4; i++) {
        readers[i] = (reader){.w = w, .version = open, .stop = &stop};
        rows_held(w, open, readers[i].slots);
    }
    for (int i = 0; i < 4; i++)
        assert_int_equal(
            pthread_create(&readers[i].thread, NULL, i < 2 ? read_sources : search_exactly, &readers[i]), 0);
    uint32_t found;
    pd_status status = scrub(w, open, &found, &err);
    for (uint32_t i = 0; !status && i < MORE; i++) { /* each takes the files away under the readers */
        status = pd_version_scrub(w->version, &w->ids[more(i)], 1, open, &found, &err);
        if (found != 1) status = PD_INTERNAL;
    }
    atomic_store(&stop, 1);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(readers[i].thread, NULL), 0);
        assert_false(readers[i].wrong);
        assert_true(readers[i].seen);
    }
    ok(status, &err);
    pd_version_close(open);
    assert_int_equal(load(w), N - GONE - MORE);
    world_free(w);
}

/* ------------------------------------------------------------------------------------------------ copies --- */

static ino_t inode_of(const char *folder, const char *name)
{
    struct stat about;
    assert_int_equal(stat(path_in(folder, name), &about), 0);
    return about.st_ino;
}

static void test_a_version_is_shared_by_links_or_copied(void **state)
{
    (void)state;
    world *w = world_make(text);
    pd_error err;
    char to[2][96];
    file_write(path_in(w->version, "calibration.json.tmp"), "what a crash left");
    for (int copied = 0; copied < 2; copied++) {
        snprintf(to[copied], sizeof to[copied], "%s/to%d", w->folder, copied);
        no_links = copied;
        pd_status status = pd_folder_copy(w->version, to[copied], &err);
        no_links = 0;
        ok(status, &err);
        assert_int_equal(inode_of(to[copied], "pages.bin") == inode_of(w->version, "pages.bin"), !copied);
        assert_false(there(path_in(to[copied], "calibration.json.tmp")));
        assert_int_equal(pd_folder_copy(w->version, to[copied], &err), PD_ALREADY_EXISTS);
    }
    assert_int_equal(pd_folder_copy(path_in(w->folder, "none"), path_in(w->folder, "x"), &err), PD_NOT_FOUND);
    assert_false(there(path_in(w->folder, "x")));
    /* What is scrubbed here stays there: a snapshot's erasures are applied when it is restored. */
    uint32_t found;
    ok(scrub(w, NULL, &found, &err), &err);
    for (int copied = 0; copied < 2; copied++) {
        strcpy(w->version, to[copied]);
        assert_int_equal(load(w), N);
    }
    world_free(w);
}

static void test_a_copy_that_fails_leaves_nothing(void **state)
{
    (void)state;
    world *w = world_make(text);
    pd_error err;
    char to[96];
    snprintf(to, sizeof to, "%s/to", w->folder);
    for (int copied = 0; copied < 2; copied++) {
        for (at = 1;; at++) {
            no_links = copied;
            mode = FAIL;
            calls = 0;
            armed = 1;
            pd_status status = pd_folder_copy(w->version, to, &err);
            armed = no_links = 0;
            if (calls < at) {
                ok(status, &err);
                assert_int_equal(pd_folder_remove(to, &err), PD_OK);
                break;
            }
            assert_int_not_equal(status, PD_OK);
            assert_false(there(to));
        }
        assert_true(at > 5);
    }
    assert_int_equal(is_scrubbed(w), 0);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_crash_at_any_step_leaves_the_old_version_or_the_new),
        cmocka_unit_test(test_each_call_that_fails_is_told_and_a_second_try_finishes),
        cmocka_unit_test(test_where_names_cannot_be_exchanged_a_scrub_is_refused),
        cmocka_unit_test(test_without_hard_links_the_rest_is_copied),
        cmocka_unit_test(test_others_read_on_while_the_folders_change_places),
        cmocka_unit_test(test_a_version_is_shared_by_links_or_copied),
        cmocka_unit_test(test_a_copy_that_fails_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
