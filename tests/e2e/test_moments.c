/* Searches of many slices while their table changes: each hit, its attributes and its explanation are of one moment, and no request
 * fails because a row went. A row's vector and attributes all say which writing of it they are of. */
#include "admin.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

enum { ROWS = 3000, DIM = 16, K = 8, QUERIES = 800, SEARCHES = 20, BATCH = 40 };

static server host;
static float vectors[2][ROWS * DIM], queries[QUERIES * DIM];
static atomic_int over;

static const char schema[] =
    "table = { metric = \"cosine\"; dim = 16; consent = \"agrees\"; attributes = ("
    " { name = \"parity\"; type = \"category\"; values = ( \"even\", \"odd\" ); }, { name = \"stamp\"; type "
    "= \"number\"; },"
    " { name = \"mark\"; type = \"key\"; }, { name = \"agrees\"; type = \"category\"; } ); };";

static int start(void **state)
{
    (void)state;
    static const char *const sets[] = {"slice_us=100",      "batch_queries=1",         "spare_percent=100",
                                       "rebuild_percent=0", "changes.durability=none", NULL};
    static char csv[ROWS * 40];
    pados_error error;
    server_start(&host, sets);
    pados_client *client = server_client(&host);
    make_rows(1, ROWS, DIM, 30, vectors[0]);
    make_rows(2, ROWS, DIM, 17, vectors[1]);
    make_rows(3, QUERIES, DIM, 30, queries);
    char *at = csv + sprintf(csv, "id,parity,stamp,mark,agrees\n");
    for (int i = 0; i < ROWS; i++)
        at += sprintf(at, "%d,even,2,2,yes\n", i);
    must(push_rows(client, "t", schema, ROWS, DIM, vectors[0], NULL, csv, false, NULL, &error), error);
    pados_close(client);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    int status = server_stop(&host);
    server_remove(&host);
    return status;
}

/* --------------------------------------------------------------------------------------------------- writing --- */

static pados_status write_rows(pados_client *client, const uint64_t *ids, uint32_t stamp, pados_error *error)
{
    static const char *const parities[] = {"even", "odd"};
    const char *parity[BATCH], *agrees[BATCH];
    float own[BATCH * DIM], stamps[BATCH];
    uint64_t marks[BATCH];
    for (int i = 0; i < BATCH; i++) {
        memcpy(own + i * DIM, vectors[stamp % 2] + ids[i] * DIM, DIM * sizeof(float));
        parity[i] = parities[stamp % 2];
        agrees[i] = "yes";
        stamps[i] = (float)stamp;
        marks[i] = stamp;
    }
    pados_values values[] = {{.attribute = "parity", .texts = parity, .ntexts = BATCH},
                             {.attribute = "agrees", .texts = agrees, .ntexts = BATCH},
                             {.attribute = "stamp", .numbers = stamps},
                             {.attribute = "mark", .keys = marks}};
    pados_upsert upsert = {.table = "t",
                           .ids = ids,
                           .count = BATCH,
                           .vectors = own,
                           .dim = DIM,
                           .attributes = values,
                           .nattributes = 4};
    pados_written written;
    return pados_upsert_run(client, &upsert, &written, error);
}

/* Writes and deletes until it is told to end; the number of batches, or what went wrong. */
typedef struct writing {
    uint32_t batches;
    char failed[512];
} writing;

static void *write_on(void *context)
{
    writing *w = context;
    pados_client *client = server_client(&host);
    pados_error error;
    pados_status status = 0;
    for (uint32_t n = 0; !status && !atomic_load(&over); n++, w->batches++) {
        uint64_t ids[BATCH];
        for (uint64_t i = 0; i < BATCH; i++)
            ids[i] = (n * 797u + i * 71u) % ROWS;
        pados_written written;
        pados_delete gone = {.table = "t", .ids = ids, .count = BATCH};
        status = n % 3 == 2 ? pados_delete_run(client, &gone, &written, &error)
                            : write_rows(client, ids, 3 + n, &error);
    }
    if (status) snprintf(w->failed, sizeof w->failed, "%s", error.message);
    pados_close(client);
    return NULL;
}

/* -------------------------------------------------------------------------------------------------- checking --- */

static const char *value_of(const pados_result *r, const char *attribute, size_t hit)
{
    for (size_t c = 0; c < r->ncolumns; c++)
        if (!strcmp(r->columns[c].attribute, attribute)) return r->columns[c].values[hit];
    fail_msg("no column %s", attribute);
    return NULL;
}

static float cosine(const float *a, const float *b)
{
    double dot = 0, x = 0, y = 0;
    for (int d = 0; d < DIM; d++) {
        dot += (double)a[d] * b[d];
        x += (double)a[d] * a[d];
        y += (double)b[d] * b[d];
    }
    return (float)(dot / sqrt(x * y));
}

static void check_hit(const pados_result *r, const float *query, size_t hit)
{
    unsigned stamp = (unsigned)atoi(value_of(r, "stamp", hit));
    unsigned mark = (unsigned)atoi(value_of(r, "mark", hit));
    assert_int_equal(stamp, mark);
    assert_string_equal(value_of(r, "parity", hit), stamp % 2 ? "odd" : "even");
    const pados_explanation *e = &r->explanations[hit];
    double sum = 0, similarity = 0;
    for (size_t t = 0; t < e->count; t++) {
        sum += (double)e->terms[t].weight;
        if (!strcmp(e->terms[t].attribute, "similarity")) similarity = (double)e->terms[t].weight;
    }
    assert_true(fabs(sum - (double)r->scores[hit]) < 1e-5);
    assert_true(fabs((double)r->scores[hit] - similarity - (stamp % 2 ? 0.25 : 0)) < 1e-5);
    assert_true(fabs(similarity - (double)cosine(query, vectors[stamp % 2] + r->ids[hit] * DIM)) < 0.02);
}

static void test_a_hit_and_its_attributes_are_of_one_moment(void **state)
{
    (void)state;
    static const char *const all[] = {"*"};
    pados_override odd = {"parity", "odd", 0.25f};
    pados_search search = {.table = "t",
                           .count = QUERIES,
                           .k = K,
                           .vectors = queries,
                           .dim = DIM,
                           .nprobe = 64,
                           .overrides = &odd,
                           .noverrides = 1,
                           .explain = true,
                           .attributes = all,
                           .nattributes = 1};
    writing w = {0};
    pthread_t thread;
    pados_error error;
    pados_client *client = server_client(&host);
    atomic_store(&over, 0);
    assert_int_equal(pthread_create(&thread, NULL, write_on, &w), 0);
    size_t checked = 0, later = 0;
    for (int i = 0; i < SEARCHES; i++) {
        pados_result *r;
        /* Every tenth one exactly, which only must not fail: its rows are looked up when it comes back. */
        search.exact = i % 10 == 9;
        search.nprobe = search.exact ? 0 : 64;
        must(pados_search_run(client, &search, &r, &error), error);
        for (uint32_t q = 0; q < QUERIES && !search.exact; q++)
            for (size_t h = r->first[q]; h < r->first[q + 1]; h++, checked++) {
                check_hit(r, queries + q * DIM, h);
                later += atoi(value_of(r, "stamp", h)) > 2;
            }
        pados_result_free(r);
    }
    atomic_store(&over, 1);
    pthread_join(thread, NULL);
    if (*w.failed) fail_msg("%s", w.failed);
    assert_true(w.batches > 10);
    assert_true(checked > SEARCHES * QUERIES * K / 2);
    assert_true(later > 0);
    pados_close(client);
}

/* --------------------------------------------------------------------------------------------------- consent --- */

static void say(pados_client *client, uint64_t id, const char *word)
{
    pados_error error;
    pados_written written;
    pados_values value = {.attribute = "agrees", .texts = &word, .ntexts = 1};
    pados_update update = {.table = "t", .ids = &id, .count = 1, .attributes = &value, .nattributes = 1};
    must(pados_update_run(client, &update, &written, &error), error);
    assert_int_equal(written.changed, 1);
}

static void test_consent_that_is_withdrawn_holds_from_then_on(void **state)
{
    (void)state;
    pados_error error;
    pados_client *client = server_client(&host);
    uint64_t ids[BATCH], id = 1;
    for (uint64_t i = 0; i < BATCH; i++)
        ids[i] = i;
    must(write_rows(client, ids, 2, &error), error);
    pados_search search = {.table = "t", .count = 1, .k = K, .from_ids = &id};
    for (int round = 0; round < 3; round++) {
        pados_result *r;
        must(pados_search_run(client, &search, &r, &error), error);
        assert_string_equal(pados_rung_name(r->rung[0]), "row");
        pados_result_free(r);
        say(client, id, "no");
        assert_int_equal(pados_search_run(client, &search, &r, &error), 5);
        assert_non_null(strstr(error.message, "row 1 does not consent"));
        say(client, id, round % 2 ? "" : "yes");
    }
    pados_close(client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_hit_and_its_attributes_are_of_one_moment),
        cmocka_unit_test(test_consent_that_is_withdrawn_holds_from_then_on),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
