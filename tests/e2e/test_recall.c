/* Recall in production: what a server that repeats every query exactly says of its recall is what the test finds by asking
 * for exact answers itself. */
#include "admin.h"

#include <time.h>

enum { ROWS = 6000, USERS = 600, DIM = 16, K = 10, ASKED = 80 };

static server host;
static pados_client *client;
static float rows[ROWS * DIM], users[USERS * DIM];
static float strangers[USERS * DIM]; /* in no cluster */

static const char goods_schema[] =
    "table = { metric = \"cosine\"; dim = 16; queries = \"users\"; space = \"demo\"; nlist = 64;"
    " attributes = ( { name = \"department\"; type = \"category\"; }, { name = \"brand\"; type = \"key\"; } "
    "); };";
static const char users_schema[] =
    "table = { metric = \"cosine\"; dim = 16; index = \"none\"; space = \"demo\"; };";
static const char festive[] =
    "profile = { name = \"festive\"; table = \"goods\"; similarity = 1.0; context = ( \"festival\" );"
    " terms = ( { attribute = \"department\"; when = { festival = \"diwali\"; }; weights = ( (\"SWEETS\", "
    "0.2) ); } );"
    " diversity = ( { attribute = \"brand\"; at_most = 2; } ); };";

static int start(void **state)
{
    (void)state;
    pados_error error;
    static const char *const sets[] = {"recall_sample=1", "calibration_queries=200", NULL};
    static char csv[ROWS * 24];
    server_start(&host, sets);
    client = server_client(&host);
    make_rows(1, ROWS, DIM, 60, rows);
    make_rows(5, USERS, DIM, 60, users);
    for (int i = 0; i < USERS * DIM; i++) {
        uint64_t x = (uint64_t)(i + 1) * 0x9e3779b97f4a7c15u;
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
        strangers[i] = (float)((double)(x >> 11) * 0x1p-53 - 0.5);
    }
    char *at = csv + sprintf(csv, "id,department,brand\n");
    for (int i = 0; i < ROWS; i++)
        at += sprintf(at, "%d,%s,%d\n", i, i % 4 ? "GROCERY" : "SWEETS", 1 + i % 7);
    must(push_rows(client, "users", users_schema, USERS, DIM, users, NULL, NULL, false, NULL, &error), error);
    must(push_rows(client, "goods", goods_schema, ROWS, DIM, rows, NULL, csv, false, NULL, &error), error);
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__ProfilePut put = PADOS__V1__PROFILE_PUT__INIT;
    Pados__V1__Reply *reply;
    put.text = (char *)festive;
    put.file = "festive.conf";
    request.body_case = PADOS__V1__REQUEST__BODY_PROFILE_PUT;
    request.profile_put = &put;
    must(pados_admin(client, &request, &reply, &error), error);
    pados_reply_free(reply);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    pados_close(client);
    int status = server_stop(&host);
    server_remove(&host);
    return status;
}

/* -1: there is no such metric. */
static double metric(const char *name, const char *labels)
{
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__Stats stats = PADOS__V1__STATS__INIT;
    Pados__V1__Reply *reply;
    pados_error error;
    char whole[256];
    request.body_case = PADOS__V1__REQUEST__BODY_STATS;
    request.stats = &stats;
    must(pados_admin(client, &request, &reply, &error), error);
    double value = -1;
    snprintf(whole, sizeof whole, "%s{%s}", name, labels);
    for (size_t i = 0; i < reply->stats->n_names; i++)
        if (!strcmp(reply->stats->names[i], whole)) value = reply->stats->values[i];
    pados_reply_free(reply);
    return value;
}

static void wait_until(const char *name, const char *labels, double least)
{
    double value = -1;
    for (int i = 0; i < 3000 && value < least; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        value = metric(name, labels);
    }
    if (value < least) fail_msg("%s{%s} is %g, it should come to %g", name, labels, value, least);
}

typedef struct found {
    uint64_t hits, wanted;
} found;

/* Asks each query alone, as it is and exactly. */
static found ask(pados_search search, const float *vectors)
{
    pados_error error;
    pados_result *r, *exact;
    found out = {0};
    search.count = 1;
    search.k = K;
    search.dim = DIM;
    for (int i = 0; i < ASKED; i++) {
        search.vectors = vectors + i * DIM;
        must(pados_search_run(client, &search, &r, &error), error);
        pados_search same = search;
        same.nprobe = 0;
        same.recall = 0;
        same.exact = true;
        must(pados_search_run(client, &same, &exact, &error), error);
        out.wanted += exact->hits;
        for (size_t h = 0; h < exact->hits; h++)
            for (size_t j = 0; j < r->hits; j++)
                out.hits += exact->ids[h] == r->ids[j];
        pados_result_free(exact);
        pados_result_free(r);
    }
    return out;
}

static const char plain[] = "table=\"goods\",profile=\"\",score=\"similarity\"";
static const char weighed[] = "table=\"goods\",profile=\"\",score=\"fused\"";
static const char profiled[] = "table=\"goods\",profile=\"festive\",score=\"fused\"";

static void measured(found f, const char *labels)
{
    wait_until("pados_recall_queries_total", labels, ASKED);
    assert_true(metric("pados_recall_queries_total", labels) == ASKED); /* and no exact one of them */
    assert_true(metric("pados_recall_wanted_total", labels) == (double)f.wanted);
    assert_true(metric("pados_recall_hits_total", labels) == (double)f.hits);
}

static void test_probes_that_miss_are_seen(void **state)
{
    (void)state;
    pados_search search = {.table = "goods", .nprobe = 1};
    found f = ask(search, strangers);
    assert_true(f.wanted == ASKED * K);
    assert_true(f.hits < f.wanted * 95 / 100);
    measured(f, plain);
    double recall = (double)f.hits / (double)f.wanted;
    double recent = metric("pados_recall_recent", plain);
    assert_true(recent > recall - 1e-5 && recent < recall + 1e-5);
    assert_true(metric("pados_recall_recent_lower", plain) < recall);
    assert_true(metric("pados_recall_promised", plain) == -1); /* a given nprobe promises nothing */
    assert_true(metric("pados_recall_broken", plain) == 0);
}

static void test_weights_filters_and_exclusions_are_repeated(void **state)
{
    (void)state;
    static const char *const three[] = {"3"};
    pados_override boost = {"department", "SWEETS", 0.05f};
    pados_condition filter = {"brand", PADOS_IS_NOT, three, 1};
    uint64_t ids[50];
    for (uint64_t i = 0; i < 50; i++)
        ids[i] = i * 7;
    pados_ids exclude = {ids, 50};
    pados_search search = {.table = "goods",
                           .nprobe = 2,
                           .overrides = &boost,
                           .noverrides = 1,
                           .filters = &filter,
                           .nfilters = 1,
                           .exclude = &exclude,
                           .nexclude = 1};
    found f = ask(search, strangers);
    assert_true(f.hits < f.wanted);
    measured(f, weighed);
}

static void test_a_profile_with_caps_is_measured_under_its_caps(void **state)
{
    (void)state;
    pados_pair pair = {"festival", "diwali"};
    pados_context context = {&pair, 1};
    pados_search search = {
        .table = "goods", .nprobe = 2, .profile = "festive", .contexts = &context, .ncontexts = 1};
    found f = ask(search, strangers);
    assert_true(f.hits < f.wanted);
    measured(f, profiled);
}

/* Another version, so that the window is new. */
static void push_again(void)
{
    pados_error error;
    must(push_rows(client, "goods", NULL, ROWS, DIM, rows, NULL, NULL, false, NULL, &error), error);
}

static void test_a_promise_that_holds_is_kept(void **state)
{
    (void)state;
    push_again();
    pados_search search = {.table = "goods", .count = USERS, .k = K, .vectors = users, .dim = DIM};
    pados_error error;
    pados_result *r;
    double before = metric("pados_recall_queries_total", plain);
    /* Not all at once: what is more than can wait is dropped. */
    search.count = 200;
    for (int i = 0; i < 3; i++) {
        must(pados_search_run(client, &search, &r, &error), error);
        assert_true(r->recall > 0.94f);
        pados_result_free(r);
        before += 200;
        wait_until("pados_recall_queries_total", plain, before);
    }
    double promised = metric("pados_recall_promised", plain);
    assert_true(promised > 0.949 && promised < 0.951);
    assert_true(metric("pados_recall_recent", plain) >= 0.95);
    assert_true(metric("pados_recall_broken", plain) == 0);
    assert_int_equal(server_says(&host, "below the promised"), 0);
}

static void test_a_promise_that_does_not_hold_is_said(void **state)
{
    (void)state;
    /* Calibrated with users who look where rows lie close; asked from everywhere else. */
    pados_search search = {
        .table = "goods", .count = 200, .k = K, .vectors = strangers, .dim = DIM, .recall = 0.9f};
    pados_error error;
    pados_result *r;
    push_again();
    double before = metric("pados_recall_queries_total", plain);
    for (int i = 0; i < 3; i++) {
        search.vectors = strangers + i * 200 * DIM;
        must(pados_search_run(client, &search, &r, &error), error);
        pados_result_free(r);
        before += 200;
        wait_until("pados_recall_queries_total", plain, before);
    }
    assert_true(metric("pados_recall_recent", plain) < 0.9);
    assert_true(metric("pados_recall_broken", plain) == 1);
    assert_int_equal(server_says(&host, "below the promised"), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_probes_that_miss_are_seen),
        cmocka_unit_test(test_weights_filters_and_exclusions_are_repeated),
        cmocka_unit_test(test_a_profile_with_caps_is_measured_under_its_caps),
        cmocka_unit_test(test_a_promise_that_holds_is_kept),
        cmocka_unit_test(test_a_promise_that_does_not_hold_is_said),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
