/* The drill: a snapshot under writes, a restore from it, and what each refuses. */
#include "admin.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    ROWS = 1500,
    DIM = 16,
    K = 5,
    BATCH = 40,
    MOST = 4000,
    FIRST_ID = 100000,
    PUSHES = 4,
    ALREADY_EXISTS = 6
};

static float rows[ROWS * DIM], others[ROWS * DIM];

static int make(void **state)
{
    (void)state;
    make_rows(1, ROWS, DIM, 10, rows);
    make_rows(2, ROWS, DIM, 10, others);
    return 0;
}

/* A folder for snapshots, beside no server. */
static void place_make(char *place)
{
    strcpy(place, "/tmp/pados-snapshot-XXXXXX");
    assert_non_null(mkdtemp(place));
}

static int remove_one(const char *path, const struct stat *info, int flag, struct FTW *ftw)
{
    (void)info;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static void place_remove(const char *place)
{
    nftw(place, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static pados_status take(pados_client *client, const char *folder, pados_snapshot_made *made,
                         pados_error *error)
{
    pados_snapshot snapshot = {.folder = folder, .timeout_ms = 60000};
    return pados_snapshot_run(client, &snapshot, made, error);
}

/* The nearest row of each vector now, looked at exactly. */
static void nearest(pados_client *client, const char *table, const float *vectors, uint32_t count,
                    uint64_t *ids)
{
    pados_search search = {
        .table = table, .count = count, .k = 1, .vectors = vectors, .dim = DIM, .exact = true};
    pados_result *r;
    pados_error error;
    must(pados_search_run(client, &search, &r, &error), error);
    assert_int_equal(r->hits, count);
    memcpy(ids, r->ids, count * sizeof *ids);
    pados_result_free(r);
}

static void answers(pados_client *client, const char *table, uint64_t *ids, float *scores)
{
    pados_search search = {.table = table, .count = 64, .k = K, .vectors = rows, .dim = DIM, .recall = 0.95f};
    pados_result *r;
    pados_error error;
    must(pados_search_run(client, &search, &r, &error), error);
    assert_int_equal(r->hits, 64 * K);
    memcpy(ids, r->ids, 64 * K * sizeof *ids);
    memcpy(scores, r->scores, 64 * K * sizeof *scores);
    pados_result_free(r);
}

static void upsert(pados_client *client, const char *table, uint64_t id, const float *vector,
                   uint64_t *sequence)
{
    pados_upsert one = {.table = table, .ids = &id, .count = 1, .vectors = vector, .dim = DIM};
    pados_written written;
    pados_error error;
    must(pados_upsert_run(client, &one, &written, &error), error);
    if (sequence) *sequence = written.sequence;
}

/* Runs padosd with --restore to its end. */
static int refused(const char *snapshot, const char *data, int check, char *log, size_t room)
{
    char set[512];
    snprintf(set, sizeof set, "data_folder=\"%s\"", data);
    const char *args[] = {"--restore", snapshot, "--set", set, check ? "--check" : NULL, NULL};
    return server_refused(args, log, room);
}

/* ------------------------------------------------------------------------------------------------- under writes --- */

typedef struct writer {
    const server *host;
    atomic_int stop;
    atomic_uint batches; /* acknowledged */
    uint64_t sequence[MOST];
} writer;

/* Batch b's rows; the same whenever they are made. */
static void batch_of(uint32_t b, uint64_t *ids, float *vectors)
{
    make_rows(1000 + b, BATCH, DIM, BATCH, vectors);
    for (uint32_t i = 0; i < BATCH; i++)
        ids[i] = FIRST_ID + b * BATCH + i;
}

static void *write_on(void *context)
{
    writer *w = context;
    pados_client *client = server_client(w->host);
    for (uint32_t b = 0; b < MOST && !atomic_load(&w->stop); b++) {
        uint64_t ids[BATCH];
        float vectors[BATCH * DIM];
        batch_of(b, ids, vectors);
        pados_upsert upserted = {.table = "t", .ids = ids, .count = BATCH, .vectors = vectors, .dim = DIM};
        pados_written written;
        pados_error error;
        if (pados_upsert_run(client, &upserted, &written, &error))
            break; /* the count stays behind: told by the test */
        w->sequence[b] = written.sequence;
        atomic_store(&w->batches, b + 1);
        usleep(8000);
    }
    pados_close(client);
    return NULL;
}

static void wait_for_batches(writer *w, uint32_t count)
{
    for (int i = 0; i < 6000 && atomic_load(&w->batches) < count; i++)
        usleep(10000);
    assert_true(atomic_load(&w->batches) >= count);
}

/* Whether all of a batch's rows are there, or none. */
static int has_batch(pados_client *client, uint32_t b)
{
    uint64_t ids[BATCH], found[BATCH];
    float vectors[BATCH * DIM];
    uint32_t there = 0;
    batch_of(b, ids, vectors);
    nearest(client, "t", vectors, BATCH, found);
    for (uint32_t i = 0; i < BATCH; i++)
        there += found[i] == ids[i];
    assert_true(there == 0 || there == BATCH);
    return there > 0;
}

static void put_profile(pados_client *client)
{
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__ProfilePut put = PADOS__V1__PROFILE_PUT__INIT;
    put.text = (char *)"profile = { name = \"plain\"; table = \"t\"; };";
    request.body_case = PADOS__V1__REQUEST__BODY_PROFILE_PUT;
    request.profile_put = &put;
    Pados__V1__Reply *reply;
    pados_error error;
    must(pados_admin(client, &request, &reply, &error), error);
    pados_reply_free(reply);
}

static int has_profile(pados_client *client)
{
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__ProfileGet get = PADOS__V1__PROFILE_GET__INIT;
    get.name = (char *)"plain";
    request.body_case = PADOS__V1__REQUEST__BODY_PROFILE_GET;
    request.profile_get = &get;
    Pados__V1__Reply *reply = NULL;
    pados_error error;
    pados_status status = pados_admin(client, &request, &reply, &error);
    pados_reply_free(reply);
    return status == 0;
}

static void test_a_snapshot_under_writes_holds_every_write_before_it(void **state)
{
    (void)state;
    char place[64], snapshot[96];
    server host = {0}, again = {0};
    pados_error error;
    pados_snapshot_made made;
    place_make(place);
    snprintf(snapshot, sizeof snapshot, "%s/s", place);
    server_start(&host, NULL);
    pados_client *client = server_client(&host);
    must(push_rows(client, "t", NULL, ROWS, DIM, rows, NULL, NULL, false, NULL, &error), error);
    must(push_rows(client, "quiet", NULL, ROWS, DIM, rows, NULL, NULL, false, NULL, &error), error);
    must(push_rows(client, "quiet", NULL, ROWS, DIM, others, NULL, NULL, false, NULL, &error), error);
    must(push_rows(client, "unseen", NULL, ROWS, DIM, rows, NULL, NULL, true, NULL, &error), error);
    put_profile(client);

    static writer w;
    pthread_t thread;
    w.host = &host;
    assert_int_equal(pthread_create(&thread, NULL, write_on, &w), 0);
    wait_for_batches(&w, 20);
    uint32_t before = atomic_load(&w.batches);
    must(take(client, snapshot, &made, &error), error);
    uint32_t during = atomic_load(&w.batches);
    wait_for_batches(&w, during + 20);
    atomic_store(&w.stop, 1);
    pthread_join(thread, NULL);
    uint32_t after = atomic_load(&w.batches);
    assert_int_equal(made.tables, 3);
    assert_true(made.bytes > ROWS * DIM * 4);
    assert_true(made.sequence >= w.sequence[before - 1]);

    uint64_t ids[2][64 * K];
    float scores[2][64 * K];
    snprintf(again.restore, sizeof again.restore, "%s", snapshot);
    server_start(&again, NULL);
    pados_client *other = server_client(&again);
    for (uint32_t b = 0; b < after; b++) {
        int there = has_batch(other, b);
        assert_int_equal(there, w.sequence[b] <= made.sequence);
        if (b < before) assert_true(there);
        assert_true(has_batch(client, b)); /* the one that went on has all of them */
    }
    assert_false(has_batch(other, after - 1));
    answers(client, "quiet", ids[0], scores[0]);
    answers(other, "quiet", ids[1], scores[1]);
    assert_memory_equal(ids[0], ids[1], sizeof ids[0]);
    assert_memory_equal(scores[0], scores[1], sizeof scores[0]);
    assert_int_equal(serving(other, "quiet"), 2);
    must(rollback(other, "quiet", &error), error);
    assert_int_equal(serving(other, "quiet"), 1);
    assert_int_equal(serving(other, "unseen"), 0);
    assert_true(has_profile(other));
    /* The restored one takes writes, numbered on from what it holds. */
    uint64_t sequence;
    upsert(other, "t", 7000000, others, &sequence);
    assert_true(sequence == made.sequence + 1);
    pados_close(other);
    pados_close(client);
    assert_int_equal(server_stop(&again), 0);
    assert_int_equal(server_stop(&host), 0);
    server_remove(&again);
    server_remove(&host);
    place_remove(place);
}

typedef struct pusher {
    const server *host;
    atomic_uint pushed;
} pusher;

static void *push_on(void *context)
{
    pusher *p = context;
    pados_client *client = server_client(p->host);
    for (int i = 0; i < PUSHES; i++) {
        pados_error error;
        if (push_rows(client, "t", NULL, ROWS, DIM, i % 2 ? rows : others, NULL, NULL, false, NULL, &error))
            break;
        atomic_fetch_add(&p->pushed, 1);
    }
    pados_close(client);
    return NULL;
}

/* A folder on another file system than /tmp's, so that files are copied. 0: there is none here. */
static int place_elsewhere(char *place)
{
    struct stat here, there;
    strcpy(place, "/dev/shm/pados-snapshot-XXXXXX");
    return stat("/tmp", &here) == 0 && stat("/dev/shm", &there) == 0 && here.st_dev != there.st_dev &&
           mkdtemp(place) != NULL;
}

/* A large table is copied before the one whose versions are switched and removed, so that those would often be gone when their turn
 * comes, were they not held still. */
static void test_snapshots_are_whole_while_versions_come_and_go(void **state)
{
    (void)state;
    enum { LARGE = 20000 };
    char place[64], snapshot[96], data[96], log[4096];
    server host = {0};
    pados_error error;
    if (!place_elsewhere(place)) place_make(place);
    snprintf(data, sizeof data, "%s/data", place);
    snprintf(snapshot, sizeof snapshot, "%s/s", place);
    server_start(&host, (const char *[]){"keep=0", "calibration_queries=100", NULL});
    pados_client *client = server_client(&host);
    float *large = malloc((size_t)LARGE * DIM * sizeof *large);
    assert_non_null(large);
    make_rows(3, LARGE, DIM, 10, large);
    must(push_rows(client, "large", NULL, LARGE, DIM, large, NULL, NULL, false, NULL, &error), error);
    free(large);
    must(push_rows(client, "t", NULL, ROWS, DIM, rows, NULL, NULL, false, NULL, &error), error);
    pusher p = {.host = &host};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, push_on, &p), 0);
    uint32_t taken = 0;
    do {
        must(take(client, snapshot, NULL, &error), error);
        if (taken++ % 8 == 0 && refused(snapshot, data, 1, log, sizeof log)) fail_msg("%s", log);
        place_remove(snapshot);
        usleep(20000); /* the builder waits for the end of each, and must come to its turn */
    } while (atomic_load(&p.pushed) < PUSHES && taken < 20000);
    pthread_join(thread, NULL);
    assert_int_equal(atomic_load(&p.pushed), PUSHES);
    assert_true(taken > 1);
    pados_close(client);
    assert_int_equal(server_stop(&host), 0);
    server_remove(&host);
    place_remove(place);
}

/* Where links cannot reach, files are copied, both ways. */
static void test_a_snapshot_may_lie_on_another_file_system(void **state)
{
    (void)state;
    char place[64], snapshot[96];
    if (!place_elsewhere(place)) skip();
    server host = {0}, again = {0};
    pados_error error;
    uint64_t ids[2][64 * K];
    float scores[2][64 * K];
    snprintf(snapshot, sizeof snapshot, "%s/s", place);
    server_start(&host, NULL);
    pados_client *client = server_client(&host);
    must(push_rows(client, "t", NULL, ROWS, DIM, rows, NULL, NULL, false, NULL, &error), error);
    upsert(client, "t", FIRST_ID, others, NULL);
    must(take(client, snapshot, NULL, &error), error);
    answers(client, "t", ids[0], scores[0]);
    pados_close(client);
    assert_int_equal(server_stop(&host), 0);
    server_remove(&host);
    snprintf(again.restore, sizeof again.restore, "%s", snapshot);
    server_start(&again, NULL);
    place_remove(place); /* the restored server needs nothing of it */
    client = server_client(&again);
    answers(client, "t", ids[1], scores[1]);
    assert_memory_equal(ids[0], ids[1], sizeof ids[0]);
    assert_memory_equal(scores[0], scores[1], sizeof scores[0]);
    pados_close(client);
    assert_int_equal(server_stop(&again), 0);
    server_remove(&again);
}

/* ------------------------------------------------------------------------------------------------------ damage --- */

/* The file becomes one of its own with another byte in its middle; what it was linked to is left alone. */
static void damage(const char *path, const char *kept)
{
    char command[512];
    struct stat about;
    unsigned char byte;
    assert_int_equal(rename(path, kept), 0);
    snprintf(command, sizeof command, "cp %s %s", kept, path);
    assert_int_equal(system(command), 0);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0 && fstat(fd, &about) == 0);
    assert_int_equal(pread(fd, &byte, 1, about.st_size / 2), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, about.st_size / 2), 1);
    close(fd);
}

static void test_a_damaged_byte_is_refused_by_its_file(void **state)
{
    (void)state;
    static const char *const files[] = {"snapshot.json",
                                        "changes/data.mdb",
                                        "tables/t/CURRENT",
                                        "tables/t/v00000001/manifest.json",
                                        "tables/t/v00000001/schema.conf",
                                        "tables/t/v00000001/pages.bin",
                                        "tables/t/v00000001/refine.bin",
                                        "tables/t/v00000001/source.bin",
                                        "tables/t/v00000001/lists.bin"};
    char place[64], snapshot[96], data[96], kept[96], path[256], log[4096];
    server host = {0};
    pados_error error;
    struct stat about;
    place_make(place);
    snprintf(snapshot, sizeof snapshot, "%s/s", place);
    snprintf(data, sizeof data, "%s/data", place);
    snprintf(kept, sizeof kept, "%s/kept", place);
    server_start(&host, NULL);
    pados_client *client = server_client(&host);
    must(push_rows(client, "t", NULL, ROWS, DIM, rows, NULL, NULL, false, NULL, &error), error);
    upsert(client, "t", FIRST_ID, others, NULL);
    must(take(client, snapshot, NULL, &error), error);
    pados_close(client);
    assert_int_equal(server_stop(&host), 0);
    assert_int_equal(refused(snapshot, data, 1, log, sizeof log), 0);
    assert_non_null(strstr(log, "the snapshot is whole"));
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", snapshot, files[i]);
        damage(path, kept);
        assert_int_not_equal(refused(snapshot, data, 1, log, sizeof log), 0);
        if (!strstr(log, path)) fail_msg("\"%s\" does not name %s", log, path);
        assert_int_not_equal(refused(snapshot, data, 0, log, sizeof log), 0);
        if (!strstr(log, path)) fail_msg("\"%s\" does not name %s", log, path);
        assert_int_not_equal(stat(data, &about), 0);
        assert_int_equal(rename(kept, path), 0);
    }
    snprintf(path, sizeof path, "%s/tables/t/v00000001/source.bin", snapshot);
    assert_int_equal(rename(path, kept), 0);
    assert_int_not_equal(refused(snapshot, data, 0, log, sizeof log), 0);
    if (!strstr(log, path)) fail_msg("\"%s\" does not name %s", log, path);
    assert_int_equal(rename(kept, path), 0);
    /* Whole again, and the server's own files were never touched. */
    assert_int_equal(refused(snapshot, data, 1, log, sizeof log), 0);
    uint64_t found;
    server_start(&host, NULL);
    client = server_client(&host);
    nearest(client, "t", others, 1, &found);
    assert_int_equal(found, FIRST_ID);
    pados_close(client);
    assert_int_equal(server_stop(&host), 0);
    server_remove(&host);
    place_remove(place);
}

/* -------------------------------------------------------------------------------------------- over a data folder --- */

/* The one entry of the folder that begins so; 0: none. */
static int find_entry(const char *folder, const char *begins, char *path, size_t room)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    int found = 0;
    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL)
        if (!strncmp(entry->d_name, begins, strlen(begins))) {
            snprintf(path, room, "%s/%s", folder, entry->d_name);
            found++;
        }
    closedir(dir);
    assert_true(found <= 1);
    return found;
}

static void wait_for_erasures(pados_client *client)
{
    for (int i = 0; i < 10000; i++) {
        pados_erasures *pending;
        pados_error error;
        must(pados_erasures_list(client, true, &pending, &error), error);
        size_t left = pending->count;
        pados_erasures_free(pending);
        if (!left) return;
        usleep(20000);
    }
    fail_msg("the erasure stays pending");
}

static void test_a_restore_over_a_data_folder_keeps_it_aside_and_erases_again(void **state)
{
    (void)state;
    char place[64], snapshot[96], aside[512], path[512], log[4096];
    server host = {0};
    pados_error error;
    pados_erasures *receipts;
    uint64_t found, early = 3, late = 5;
    place_make(place);
    snprintf(snapshot, sizeof snapshot, "%s/s", place);
    server_start(&host, NULL);
    pados_client *client = server_client(&host);
    must(push_rows(client, "t", NULL, ROWS, DIM, rows, NULL, NULL, false, NULL, &error), error);
    must(pados_erase(client, "t", &early, 1, &receipts, &error), error);
    pados_erasures_free(receipts);
    must(take(client, snapshot, NULL, &error), error);
    must(pados_erase(client, "t", &late, 1, &receipts, &error), error);
    pados_erasures_free(receipts);
    wait_for_erasures(client);
    upsert(client, "t", FIRST_ID, others, NULL);
    char data[160];
    snprintf(data, sizeof data, "%s/data", host.folder);
    assert_int_not_equal(refused(snapshot, data, 0, log, sizeof log), 0);
    assert_non_null(strstr(log, "in use"));
    assert_int_equal(server_stop(&host), 0);

    snprintf(host.restore, sizeof host.restore, "%s", snapshot);
    server_start(&host, NULL);
    nearest(client, "t", others, 1, &found); /* the change after the snapshot is gone */
    assert_int_not_equal(found, FIRST_ID);
    nearest(client, "t", rows + 9 * DIM, 1, &found);
    assert_int_equal(found, 9);
    nearest(client, "t", rows + early * DIM, 1, &found);
    assert_int_not_equal(found, early);
    nearest(client, "t", rows + late * DIM, 1, &found); /* and what was erased after it, too */
    assert_int_not_equal(found, late);
    wait_for_erasures(client);
    must(pados_erasures_list(client, false, &receipts, &error), error);
    assert_int_equal(receipts->count, 2);
    assert_int_equal(receipts->at[0].id, early);
    assert_int_equal(receipts->at[1].id, late);
    assert_true(*receipts->at[1].finished);
    pados_erasures_free(receipts);
    assert_int_equal(find_entry(host.folder, "data.before-restore-", aside, sizeof aside), 1);
    assert_int_equal(find_entry(host.folder, "data.restore-", path, sizeof path), 0);
    snprintf(path, sizeof path, "%.400s/tables/t/CURRENT", aside);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(refused(snapshot, data, 1, log, sizeof log), 0); /* the snapshot is what it was */
    pados_close(client);
    assert_int_equal(server_stop(&host), 0);

    host.restore[0] = 0;
    server_start(&host, NULL);
    client = server_client(&host);
    nearest(client, "t", rows + late * DIM, 1, &found);
    assert_int_not_equal(found, late);
    pados_close(client);
    assert_int_equal(server_stop(&host), 0);

    /* One that is older than receipts get is restored with a warning. */
    static const char *const forgetful[] = {"receipt_days=0", NULL};
    assert_false(server_says(&host, "rows that were erased soon after it may be back"));
    snprintf(host.restore, sizeof host.restore, "%s", snapshot);
    server_start(&host, forgetful);
    assert_true(server_says(&host, "rows that were erased soon after it may be back"));
    assert_int_equal(server_stop(&host), 0);
    server_remove(&host);
    place_remove(place);
}

/* ------------------------------------------------------------------------------------------------------ refusals --- */

static void test_a_snapshot_goes_to_a_new_folder_outside_the_data(void **state)
{
    (void)state;
    char place[64], path[256], log[4096];
    server host = {0};
    pados_error error;
    place_make(place);
    server_start(&host, NULL);
    pados_client *client = server_client(&host);
    must(push_rows(client, "t", NULL, ROWS, DIM, rows, NULL, NULL, false, NULL, &error), error);
    must_fail(take(client, "s", NULL, &error), error, INVALID_ARGUMENT, "absolute");
    must_fail(take(client, place, NULL, &error), error, ALREADY_EXISTS, place);
    snprintf(path, sizeof path, "%s/data/s", host.folder);
    must_fail(take(client, path, NULL, &error), error, INVALID_ARGUMENT, "data folder");
    snprintf(path, sizeof path, "%s/data/tables/../s", host.folder);
    must_fail(take(client, path, NULL, &error), error, INVALID_ARGUMENT, "data folder");
    snprintf(path, sizeof path, "%s/none/s", place);
    must_fail(take(client, path, NULL, &error), error, NOT_FOUND, "none");
    snprintf(path, sizeof path, "%s/s.tmp", place);
    assert_int_equal(mkdir(path, 0755), 0);
    snprintf(path, sizeof path, "%s/s", place);
    must_fail(take(client, path, NULL, &error), error, ALREADY_EXISTS, "s.tmp");
    snprintf(path, sizeof path, "%s/s.tmp", place);
    assert_int_equal(rmdir(path), 0); /* nothing was put there */
    /* What cannot be copied is named, and nothing is left of the rest. */
    snprintf(path, sizeof path, "mkdir -p %s/data/profiles/odd/sub", host.folder);
    assert_int_equal(system(path), 0);
    snprintf(path, sizeof path, "%s/s", place);
    pados_status status = take(client, path, NULL, &error);
    assert_int_not_equal(status, 0);
    if (!strstr(error.message, "odd/sub")) fail_msg("\"%s\" does not name it", error.message);
    char left[256];
    assert_int_equal(find_entry(place, "s", left, sizeof left), 0);
    snprintf(path, sizeof path, "rmdir %s/data/profiles/odd/sub", host.folder);
    assert_int_equal(system(path), 0);

    snprintf(path, sizeof path, "%s/s", place);
    must(take(client, path, NULL, &error), error);
    must_fail(take(client, path, NULL, &error), error, ALREADY_EXISTS, "s");
    snprintf(path, sizeof path, "%s/s/", place);
    must_fail(take(client, path, NULL, &error), error, ALREADY_EXISTS, "s");
    pados_close(client);
    assert_int_equal(server_stop(&host), 0);
    snprintf(path, sizeof path, "%s/data", place);
    assert_int_not_equal(refused(place, path, 0, log, sizeof log), 0);
    assert_non_null(strstr(log, "snapshot.json"));
    server_remove(&host);
    place_remove(place);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_snapshot_under_writes_holds_every_write_before_it),
        cmocka_unit_test(test_snapshots_are_whole_while_versions_come_and_go),
        cmocka_unit_test(test_a_snapshot_may_lie_on_another_file_system),
        cmocka_unit_test(test_a_damaged_byte_is_refused_by_its_file),
        cmocka_unit_test(test_a_restore_over_a_data_folder_keeps_it_aside_and_erases_again),
        cmocka_unit_test(test_a_snapshot_goes_to_a_new_folder_outside_the_data),
    };
    return cmocka_run_group_tests(tests, make, NULL);
}
