/* What was changed and what was erased, across everything that puts another version in memory: a staged version, a drain that does not
 * come to its end, a push that began before, a start. */
#include "catalog_fixture.h"

#include <fcntl.h>
#include <ftw.h>
#include <unistd.h>

#include "batch.h"
#include "erase.h"
#include "erase_impl.h"
#include "live.h"
#include "writer.h"

enum { ROWS = 200, DIM = 8, BIG = 3000, WIDE = 256 };

static float *rows;
static pd_device *device; /* encodes: the builder has its own, and only the builder may use that */

static int setup(void **state)
{
    (void)state;
    pd_error err;
    pd_device_options options = {.threads = 1};
    must(pd_device_open("cpu", &options, &device, &err), err);
    rows = make_rows(3, ROWS, DIM);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(rows);
    pd_device_close(device);
    return 0;
}

static push_plan plan(void)
{
    return (push_plan){.table = "t", .metric = "l2", .rows = rows, .n = ROWS, .dim = DIM};
}

/* -------------------------------------------------------------------------------------------------- changing --- */

typedef struct writing {
    fixture *f;
    Pados__V1__Request *request;
    pd_written written;
} writing;

static pd_status write_now(void *argument, pd_error *err)
{
    writing *w = argument;
    pd_batch *batch = NULL;
    pd_served *served = NULL;
    pd_status status = pd_batch_of_request(w->request, &batch, err);
    if (!status) status = pd_catalog_hold(w->f->catalog, "t", &served, err);
    if (!status) status = pd_batch_bind(batch, served->version, device, NULL, err);
    if (!status) status = pd_writer_now(w->f->catalog->writer, batch, served, &w->written, err);
    if (served) pd_catalog_release(served);
    pd_batch_free(batch);
    return status;
}

static uint64_t change(fixture *f, Pados__V1__Request *request)
{
    pd_error err;
    writing w = {.f = f, .request = request};
    must(pd_writer_run(f->catalog->writer, write_now, &w, &err), err);
    return w.written.sequence;
}

static uint64_t upsert_some(fixture *f, const uint64_t *ids, uint32_t n, const float *vectors, uint32_t dim)
{
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__Upsert body = PADOS__V1__UPSERT__INIT;
    Pados__V1__Matrix matrix = PADOS__V1__MATRIX__INIT;
    matrix.rows = n;
    matrix.dim = dim;
    matrix.dtype = PADOS__V1__DTYPE__F32;
    matrix.data = (ProtobufCBinaryData){(size_t)n * dim * sizeof *vectors, (uint8_t *)(uintptr_t)vectors};
    body.table = "t";
    body.ids = (uint64_t *)(uintptr_t)ids;
    body.n_ids = n;
    body.vectors = &matrix;
    request.body_case = PADOS__V1__REQUEST__BODY_UPSERT;
    request.upsert = &body;
    return change(f, &request);
}

static uint64_t upsert(fixture *f, uint64_t id, const float *vector, uint32_t dim)
{
    return upsert_some(f, &id, 1, vector, dim);
}

static void take_out(fixture *f, uint64_t id)
{
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__Delete body = PADOS__V1__DELETE__INIT;
    body.table = "t";
    body.ids = &id;
    body.n_ids = 1;
    request.body_case = PADOS__V1__REQUEST__BODY_DELETE;
    request.delete_ = &body;
    change(f, &request);
}

static void erase(fixture *f, uint64_t id)
{
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__Erase body = PADOS__V1__ERASE__INIT;
    Pados__V1__Reply *reply;
    pd_error err;
    body.table = "t";
    body.ids = &id;
    body.n_ids = 1;
    request.body_case = PADOS__V1__REQUEST__BODY_ERASE;
    request.erase = &body;
    must(ask(f, &request, &reply, &err), err);
    reply_free(reply);
}

static void wait_until_erased(fixture *f)
{
    pd_erase_stats stats;
    for (int tries = 0; tries < 600; tries++) {
        pd_erase_stats_of(f->catalog, &stats);
        if (!stats.pending) return;
        usleep(20000);
    }
    fail_msg("%u erasures are not finished", (unsigned)stats.pending);
}

static uint64_t nearest_in(fixture *f, const char *name, const float *vector)
{
    pd_error err;
    uint64_t id = UINT64_MAX;
    must(nearest(f, name, vector, &id, &err), err);
    return id;
}

/* ---------------------------------------------------------------------------------------------------- erasing --- */

static void test_a_row_that_comes_again_after_its_erasure_stays(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    push_plan p = plan();
    float other[DIM] = {-9, 9, -9, 9};
    uint64_t hold;
    fixture_make(&f, 16);
    must(push(&f, &p, 1, NULL, &err), err);
    /* The erasure's job waits behind this push, so that the row is there again when it comes to the files. */
    hold = upload(&f, &p);
    erase(&f, 5);
    upsert(&f, 5, other, DIM);
    wait_job(&f, hold, NULL, &err);
    wait_until_erased(&f);
    for (int life = 0; life < 2; life++) {
        assert_int_equal(nearest_in(&f, "t", other), 5);
        assert_int_not_equal(nearest_in(&f, "t", rows + 5 * DIM), 5);
        if (life) break;
        fixture_close(&f);
        fixture_open(&f);
    }
    fixture_remove(&f);
}

static void test_a_version_built_after_an_erasure_keeps_what_came_after_it(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    push_plan p = plan();
    fixture_make(&f, 16);
    must(push(&f, &p, 1, NULL, &err), err);
    erase(&f, 5);
    /* A push that begins after the erasure may have the row: it is another's. */
    uint64_t hold = upload(&f, &p);
    must(wait_job(&f, hold, NULL, &err), err);
    wait_until_erased(&f);
    assert_int_equal(nearest_in(&f, "t", rows + 5 * DIM), 5);
    fixture_close(&f);
    fixture_open(&f);
    assert_int_equal(serving(&f, "t"), 2);
    assert_int_equal(nearest_in(&f, "t", rows + 5 * DIM), 5);
    fixture_remove(&f);
}

static void test_an_erased_row_leaves_a_staged_version_too(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    push_plan p = plan();
    fixture_make(&f, 16);
    must(push(&f, &p, 1, NULL, &err), err);
    must(push(&f, &p, 0, NULL, &err), err);
    assert_int_equal(nearest_in(&f, "t@2", rows + 5 * DIM), 5);
    erase(&f, 5);
    wait_until_erased(&f);
    assert_string_equal(state_of(&f, "t", 2, NULL), "staged");
    assert_int_not_equal(nearest_in(&f, "t@2", rows + 5 * DIM), 5);
    assert_int_equal(nearest_in(&f, "t@2", rows + 6 * DIM), 6);
    must(publish(&f, "t", 2, &err), err);
    assert_int_not_equal(nearest_in(&f, "t", rows + 5 * DIM), 5);
    fixture_remove(&f);
}

static void test_a_push_that_began_before_an_erasure_is_staged_without_the_row(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    push_plan p = plan();
    Pados__V1__PushBeginReply begun;
    uint64_t job;
    fixture_make(&f, 16);
    must(push(&f, &p, 1, NULL, &err), err);
    Pados__V1__PushBegin body = plan_begin(&p);
    must(begin(&f, &body, &begun, &err), err);
    erase(&f, 5);
    wait_until_erased(&f);
    must(chunk(&f, begun.push, PADOS__V1__PUSH_CHUNK__PART__ROWS, 0, rows, ROWS * DIM * sizeof *rows, NULL,
               &err),
         err);
    must(commit(&f, begun.push, 0, &job, &err), err);
    must(wait_job(&f, job, NULL, &err), err);
    assert_int_not_equal(nearest_in(&f, "t@2", rows + 5 * DIM), 5);
    assert_int_equal(nearest_in(&f, "t@2", rows + 6 * DIM), 6);
    fixture_remove(&f);
}

/* -------------------------------------------------------------------------------------------------- switching --- */

static void flip(const fixture *f, const char *file, off_t at)
{
    char path[512], byte;
    fixture_path(f, path, "%s", file);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static void test_what_was_drained_in_vain_comes_back_with_its_changes(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    float *big = make_rows(5, BIG, WIDE), other[WIDE] = {7, -7, 7};
    push_plan p = {.table = "t",
                   .schema =
                       "table = { code = \"f32\"; refine = \"f32\"; metric = \"l2\"; nlist = 8; policy = "
                       "\"drain\"; };",
                   .rows = big,
                   .n = BIG,
                   .dim = WIDE,
                   .queries = big,
                   .nqueries = 20};
    fixture_make(&f, 12);
    must(push(&f, &p, 1, NULL, &err), err);
    must(push(&f, &p, 1, NULL, &err), err);
    take_out(&f, 3);
    uint64_t sequence = upsert(&f, 70000, other, WIDE);
    flip(&f, "tables/t/v00000001/pages.bin", 300);
    must_fail(publish(&f, "t", 1, &err), err, PD_DATA_LOSS, "pages.bin");
    assert_int_equal(serving(&f, "t"), 2);
    assert_int_not_equal(nearest_in(&f, "t", big + 3 * WIDE), 3);
    assert_int_equal(nearest_in(&f, "t", other), 70000);
    assert_int_equal(upsert(&f, 70001, big + 3 * WIDE, WIDE), sequence + 1);
    assert_int_equal(nearest_in(&f, "t", big + 3 * WIDE), 70001);
    free(big);
    fixture_remove(&f);
}

static void test_a_table_that_is_used_all_the_time_is_rebuilt(void **state)
{
    (void)state;
    enum { CHANGED = 600 };
    fixture f;
    pd_error err;
    push_plan p = plan();
    float *changed = make_rows(8, CHANGED, DIM);
    uint64_t ids[CHANGED];
    for (uint64_t i = 0; i < CHANGED; i++)
        ids[i] = 1000 + i;
    fixture_make(&f, 16);
    must(push(&f, &p, 1, NULL, &err), err);
    upsert_some(&f, ids, CHANGED, changed, DIM);
    int tries = 0;
    for (; tries < 2000 && serving(&f, "t") == 1; tries++) {
        pd_served *served;
        must(pd_catalog_hold(f.catalog, "t", &served, &err), err);
        pd_catalog_release(served); /* which the builder is told of */
        usleep(10000);
    }
    assert_int_equal(serving(&f, "t"), 2);
    assert_int_equal(nearest_in(&f, "t", changed), 1000);
    free(changed);
    fixture_remove(&f);
}

static void test_a_version_that_is_held_finds_its_rows_after_a_rebuild(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    push_plan p = plan();
    pd_served *served;
    pd_job *job;
    float other[DIM] = {-9, 9, -9, 9};
    uint64_t floor = 0;
    fixture_make(&f, 16);
    must(push(&f, &p, 1, NULL, &err), err);
    uint64_t sequence = upsert(&f, 7000, other, DIM);
    must(pd_catalog_hold(f.catalog, "t", &served, &err), err);
    pthread_mutex_lock(&f.catalog->mutex);
    must(pd_job_add(f.catalog, PD_JOB_REBUILD, "t", &job, &err), err);
    uint64_t number = job->number;
    pthread_mutex_unlock(&f.catalog->mutex);
    must(wait_job(&f, number, NULL, &err), err);
    assert_int_equal(serving(&f, "t"), 2);
    /* Row 7000 of the version before is in the log alone. */
    pd_hit hit = {0};
    pd_answer answer = {.hits = &hit};
    pd_query query = {.vector = other, .similarity = 1, .k = 1, .min_score = -__builtin_inff()};
    must(pd_resident_exact(served->resident, pd_served_source(served), device, &query, 1, &answer, NULL, NULL,
                           &err),
         err);
    assert_int_equal(hit.id, 7000);
    pd_catalog_release(served);
    for (int tries = 0; tries < 500 && floor < sequence; tries++) {
        usleep(20000);
        must(pd_changes_floor(f.catalog->changes, "t", &floor, &err), err);
    }
    assert_int_equal(floor, sequence);
    fixture_remove(&f);
}

/* -------------------------------------------------------------------------------------------------- starting --- */

static int remove_one(const char *path, const struct stat *about, int kind, struct FTW *where)
{
    (void)about, (void)kind, (void)where;
    return remove(path);
}

static void test_a_log_that_is_lost_does_not_take_later_changes_with_it(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    char path[512];
    push_plan p = plan();
    float other[DIM] = {9, -9, 9, -9};
    uint64_t last = 0;
    fixture_make(&f, 16);
    must(push(&f, &p, 1, NULL, &err), err);
    for (uint64_t i = 0; i < 5; i++)
        last = upsert(&f, 1000 + i, rows, DIM);
    must(push(&f, &p, 1, NULL, &err), err); /* holds the changes up to the last */
    fixture_close(&f);
    fixture_path(&f, path, "changes");
    assert_int_equal(nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
    fixture_open(&f);
    assert_true(upsert(&f, 7777, other, DIM) > last);
    assert_int_equal(nearest_in(&f, "t", other), 7777);
    fixture_close(&f);
    fixture_open(&f);
    assert_int_equal(nearest_in(&f, "t", other), 7777);
    fixture_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_row_that_comes_again_after_its_erasure_stays),
        cmocka_unit_test(test_a_version_built_after_an_erasure_keeps_what_came_after_it),
        cmocka_unit_test(test_an_erased_row_leaves_a_staged_version_too),
        cmocka_unit_test(test_a_push_that_began_before_an_erasure_is_staged_without_the_row),
        cmocka_unit_test(test_what_was_drained_in_vain_comes_back_with_its_changes),
        cmocka_unit_test(test_a_table_that_is_used_all_the_time_is_rebuilt),
        cmocka_unit_test(test_a_version_that_is_held_finds_its_rows_after_a_rebuild),
        cmocka_unit_test(test_a_log_that_is_lost_does_not_take_later_changes_with_it),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
