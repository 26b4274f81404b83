/* Searching a served table: what was pushed is found, every metric and way to ask, over a real socket. */
#include "expect.h"

#include <dirent.h>
#include <math.h>
#include <sched.h>
#include <unistd.h>

enum { ROWS = 3000, DIM = 24, QUERIES = 40, K = 10 };

static server host;
static pados_client *client;
static float *rows;
static uint64_t ids[ROWS];

static int start(void **state)
{
    (void)state;
    server_start(&host, NULL);
    client = server_client(&host);
    rows = malloc(sizeof(float) * ROWS * DIM);
    make_rows(1, ROWS, DIM, 30, rows);
    for (int i = 0; i < ROWS; i++)
        ids[i] = 1000 + (uint64_t)i * 3;
    return 0;
}

static int stop(void **state)
{
    (void)state;
    pados_close(client);
    free(rows);
    int status = server_stop(&host);
    server_remove(&host);
    return status;
}

static double score_of(const char *metric, const float *q, const float *x)
{
    double dot = 0, qq = 0, xx = 0, l2 = 0;
    for (int d = 0; d < DIM; d++) {
        dot += (double)q[d] * x[d];
        qq += (double)q[d] * q[d];
        xx += (double)x[d] * x[d];
        l2 += ((double)q[d] - x[d]) * ((double)q[d] - x[d]);
    }
    return !strcmp(metric, "ip") ? dot : !strcmp(metric, "l2") ? -l2 : dot / sqrt(qq * xx);
}

/* The share of the true top-k (by this test's own arithmetic) that came back. */
static double recall_of(const char *metric, const float *queries, const pados_result *r)
{
    int right = 0;
    double *scores = malloc(sizeof *scores * ROWS);
    for (uint32_t q = 0; q < r->count; q++) {
        for (int i = 0; i < ROWS; i++)
            scores[i] = score_of(metric, queries + q * DIM, rows + i * DIM);
        for (size_t h = r->first[q]; h < r->first[q + 1]; h++) {
            double mine = scores[(r->ids[h] - 1000) / 3];
            int better = 0;
            for (int i = 0; i < ROWS; i++)
                better += scores[i] > mine + 1e-9;
            right += better < K;
        }
    }
    free(scores);
    return (double)right / (r->count * K);
}

static void every_metric(const char *metric)
{
    pados_error error;
    char schema[160];
    snprintf(schema, sizeof schema, "table = { metric = \"%s\"; dim = %d; };", metric, DIM);
    must(push_rows(client, metric, schema, ROWS, DIM, rows, ids, NULL, false, NULL, &error), error);
    float queries[QUERIES * DIM];
    make_rows(2, QUERIES, DIM, 30, queries);
    pados_search search = {
        .table = metric, .count = QUERIES, .k = K, .vectors = queries, .dim = DIM, .exact = true};
    pados_result *r;
    must(pados_search_run(client, &search, &r, &error), error);
    assert_int_equal(r->count, QUERIES);
    assert_true(r->complete);
    assert_true(recall_of(metric, queries, r) > 0.999);
    for (uint32_t q = 0; q < r->count; q++)
        for (size_t h = r->first[q]; h < r->first[q + 1]; h++) {
            double want = score_of(metric, queries + q * DIM, rows + (r->ids[h] - 1000) / 3 * DIM);
            assert_true(fabs(want - (double)r->scores[h]) < 1e-4 * (1 + fabs(want)));
            if (h > r->first[q]) assert_true(r->scores[h] <= r->scores[h - 1]);
        }
    pados_result_free(r);
    search.exact = false;
    search.recall = 0.99f;
    must(pados_search_run(client, &search, &r, &error), error);
    assert_true(recall_of(metric, queries, r) > 0.95);
    assert_true(r->version == 1 && r->nprobe[0] >= 1 && r->scanned > 0 && r->timing.total > 0);
    pados_result_free(r);
}

static void test_cosine_finds_what_was_pushed(void **state)
{
    (void)state;
    every_metric("cosine");
}

static void test_ip_finds_what_was_pushed(void **state)
{
    (void)state;
    every_metric("ip");
}

static void test_l2_finds_what_was_pushed(void **state)
{
    (void)state;
    every_metric("l2");
}

static void test_a_row_asked_about_does_not_find_itself(void **state)
{
    (void)state;
    pados_error error;
    uint64_t id = ids[17];
    pados_search search = {.table = "cosine", .count = 1, .k = K, .from_ids = &id};
    pados_result *r;
    must(pados_search_run(client, &search, &r, &error), error);
    assert_int_equal(r->hits, K);
    for (size_t h = 0; h < r->hits; h++)
        assert_true(r->ids[h] != id);
    assert_string_equal(pados_rung_name(r->rung[0]), "row");
    pados_result_free(r);
}

static void test_a_mix_of_one_row_is_that_row(void **state)
{
    (void)state;
    pados_error error;
    uint64_t id = ids[99];
    float one = 2.0f;
    pados_mix mix = {&id, &one, 1, NULL};
    pados_search by_mix = {.table = "cosine", .count = 1, .k = K, .mixes = &mix};
    pados_search by_id = {.table = "cosine", .count = 1, .k = K, .from_ids = &id};
    pados_result *a, *b;
    must(pados_search_run(client, &by_mix, &a, &error), error);
    must(pados_search_run(client, &by_id, &b, &error), error);
    assert_int_equal(a->hits, b->hits);
    assert_memory_equal(a->ids, b->ids, a->hits * sizeof *a->ids);
    pados_result_free(a);
    pados_result_free(b);
}

static void test_a_negative_example_pushes_away(void **state)
{
    (void)state;
    pados_error error;
    uint64_t both[2] = {ids[5], ids[6]};
    float weights[2] = {1, -1};
    pados_mix mix = {both, weights, 2, NULL};
    pados_search search = {.table = "cosine", .count = 1, .k = K, .mixes = &mix, .exact = true};
    pados_result *r;
    must(pados_search_run(client, &search, &r, &error), error);
    /* The best hit is nearer to the wanted row than to the unwanted one. */
    const float *hit = rows + (r->ids[0] - 1000) / 3 * DIM;
    assert_true(score_of("cosine", rows + 5 * DIM, hit) > score_of("cosine", rows + 6 * DIM, hit));
    pados_result_free(r);
}

static void test_excluded_rows_do_not_come_back(void **state)
{
    (void)state;
    pados_error error;
    pados_search search = {.table = "cosine", .count = 1, .k = K, .vectors = rows, .dim = DIM, .exact = true};
    pados_result *a, *b;
    must(pados_search_run(client, &search, &a, &error), error);
    pados_ids exclude = {a->ids, 5};
    search.exclude = &exclude;
    search.nexclude = 1;
    must(pados_search_run(client, &search, &b, &error), error);
    for (size_t h = 0; h < b->hits; h++)
        for (size_t x = 0; x < 5; x++)
            assert_true(b->ids[h] != a->ids[x]);
    assert_memory_equal(b->ids, a->ids + 5, 5 * sizeof *a->ids);
    pados_result_free(a);
    pados_result_free(b);
}

static void test_k_over_the_rows_returns_all_of_them(void **state)
{
    (void)state;
    pados_error error;
    must(push_rows(client, "tiny", NULL, 7, DIM, rows, NULL, NULL, false, NULL, &error), error);
    pados_search search = {.table = "tiny", .count = 1, .k = 1000, .vectors = rows, .dim = DIM};
    pados_result *r;
    must(pados_search_run(client, &search, &r, &error), error);
    assert_int_equal(r->hits, 7);
    assert_int_equal(r->ids[0], 0);
    pados_result_free(r);
}

static void test_min_score_cuts_the_tail(void **state)
{
    (void)state;
    pados_error error;
    float floor = 0.999f;
    pados_search search = {
        .table = "cosine", .count = 1, .k = K, .vectors = rows, .dim = DIM, .min_score = &floor};
    pados_result *r;
    must(pados_search_run(client, &search, &r, &error), error);
    assert_true(r->hits >= 1 && r->hits < K);
    assert_int_equal(r->ids[0], 1000);
    for (size_t h = 0; h < r->hits; h++)
        assert_true(r->scores[h] >= floor);
    pados_result_free(r);
}

static void test_a_batch_answers_as_its_queries_do_alone(void **state)
{
    (void)state;
    pados_error error;
    float queries[QUERIES * DIM];
    make_rows(3, QUERIES, DIM, 30, queries);
    pados_search all = {.table = "ip", .count = QUERIES, .k = K, .vectors = queries, .dim = DIM, .nprobe = 5};
    pados_result *batch;
    must(pados_search_run(client, &all, &batch, &error), error);
    for (uint32_t q = 0; q < QUERIES; q++) {
        pados_search one = {
            .table = "ip", .count = 1, .k = K, .vectors = queries + q * DIM, .dim = DIM, .nprobe = 5};
        pados_result *alone;
        must(pados_search_run(client, &one, &alone, &error), error);
        assert_int_equal(alone->hits, batch->counts[q]);
        assert_memory_equal(alone->ids, batch->ids + batch->first[q], alone->hits * sizeof *alone->ids);
        assert_memory_equal(alone->scores, batch->scores + batch->first[q],
                            alone->hits * sizeof *alone->scores);
        pados_result_free(alone);
    }
    pados_result_free(batch);
}

/* ------------------------------------------------------------------------------------------------ priority --- */

/* How many of the server's threads have the idle policy. */
static int idle_threads(const server *s)
{
    char path[300];
    struct sched_param none;
    int idle = 0;
    snprintf(path, sizeof path, "/proc/%d/task", (int)s->pid);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (const struct dirent *e; (e = readdir(dir)) != NULL;) {
        pid_t thread = (pid_t)strtol(e->d_name, NULL, 10);
        idle += thread > 0 && sched_getparam(thread, &none) == 0 && sched_getscheduler(thread) == SCHED_IDLE;
    }
    closedir(dir);
    return idle;
}

static void test_builders_are_idle_where_the_configuration_says_so(void **state)
{
    (void)state;
    static const char *const sets[] = {"builder_priority=\"idle\"", "builder_threads=2", NULL};
    server other = {0};
    assert_int_equal(idle_threads(&host), 0);
    server_start(&other, sets);
    int idle = idle_threads(&other); /* the builder, and two workers of its own and of exact searches each */
    for (int i = 0; i < 100 && idle < 5; i++) { /* a thread says so itself once it runs */
        usleep(20000);
        idle = idle_threads(&other);
    }
    assert_int_equal(server_stop(&other), 0);
    server_remove(&other);
    assert_int_equal(idle, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cosine_finds_what_was_pushed),
        cmocka_unit_test(test_ip_finds_what_was_pushed),
        cmocka_unit_test(test_l2_finds_what_was_pushed),
        cmocka_unit_test(test_a_row_asked_about_does_not_find_itself),
        cmocka_unit_test(test_a_mix_of_one_row_is_that_row),
        cmocka_unit_test(test_a_negative_example_pushes_away),
        cmocka_unit_test(test_excluded_rows_do_not_come_back),
        cmocka_unit_test(test_k_over_the_rows_returns_all_of_them),
        cmocka_unit_test(test_min_score_cuts_the_tail),
        cmocka_unit_test(test_a_batch_answers_as_its_queries_do_alone),
        cmocka_unit_test(test_builders_are_idle_where_the_configuration_says_so),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
