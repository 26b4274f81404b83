/* Consent: a row that says "no" is never a query, wherever queries come from, and the reply says so. */
#include "admin.h"

enum { ROWS = 1500, USERS = 200, DIM = 8, K = 5 };

static server host;
static pados_client *client;
static float rows[ROWS * DIM], users[USERS * DIM];

static const char goods_schema[] =
    "table = { metric = \"cosine\"; dim = 8; queries = \"users\"; space = \"demo\";"
    " attributes = ( { name = \"consent\"; type = \"category\"; } ); };";
static const char users_schema[] =
    "table = { metric = \"cosine\"; dim = 8; index = \"none\"; space = \"demo\"; consent = \"agrees\";"
    " fallback = ( \"given\", \"segment:age\" );"
    " attributes = ( { name = \"age\"; type = \"category\"; }, { name = \"agrees\"; type = \"category\"; } "
    "); };";

/* Two of five users refuse. */
static int refuses(uint64_t user)
{
    return user % 5 < 2;
}

static int start(void **state)
{
    (void)state;
    pados_error error;
    static char csv[USERS * 32], own[ROWS * 16];
    server_start(&host, NULL);
    client = server_client(&host);
    make_rows(1, ROWS, DIM, 20, rows);
    make_rows(5, USERS, DIM, 20, users);
    char *at = csv + sprintf(csv, "id,age,agrees\n");
    for (uint64_t i = 0; i < USERS; i++)
        at += sprintf(at, "%d,%s,%s\n", (int)i, i % 2 ? "young" : "old",
                      refuses(i) ? "no"
                      : i % 7    ? "yes"
                                 : "");
    at = own + sprintf(own, "id,consent\n");
    for (int i = 0; i < ROWS; i++)
        at += sprintf(at, "%d,%s\n", i, i % 3 ? "yes" : "no");
    must(push_rows(client, "users", users_schema, USERS, DIM, users, NULL, csv, false, NULL, &error), error);
    must(push_rows(client, "goods", goods_schema, ROWS, DIM, rows, NULL, own, false, NULL, &error), error);
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

static int warned(const pados_result *r, const char *word, const char *other)
{
    for (size_t i = 0; i < r->nwarnings; i++)
        if (strstr(r->warnings[i], word) && strstr(r->warnings[i], other)) return 1;
    return 0;
}

static void test_a_user_who_refuses_falls_down_the_chain(void **state)
{
    (void)state;
    pados_error error;
    pados_pair young = {"age", "young"};
    pados_context context = {&young, 1};
    uint64_t ids[] = {1, 2, 3, 9999};
    pados_search search = {.table = "goods",
                           .count = 4,
                           .k = K,
                           .from_ids = ids,
                           .from_table = "users",
                           .contexts = &context,
                           .ncontexts = 1};
    pados_result *r, *mean;
    must(pados_search_run(client, &search, &r, &error), error);
    assert_string_equal(pados_rung_name(r->rung[0]), "segment");
    assert_string_equal(pados_rung_name(r->rung[1]), "row");
    assert_string_equal(pados_rung_name(r->rung[2]), "row");
    assert_string_equal(pados_rung_name(r->rung[3]), "segment");
    assert_true(warned(r, "from_ids[0]: row 1 does not consent", "segment"));
    assert_false(warned(r, "from_ids[2]", ""));
    assert_false(warned(r, "from_ids[3]", ""));
    /* What serves in its stead is what serves a stranger. */
    assert_memory_equal(r->ids + r->first[0], r->ids + r->first[3], K * sizeof *r->ids);
    pados_result_free(r);

    /* The given vector goes first in this chain. */
    search.vectors = users + 1 * DIM;
    search.dim = DIM;
    search.count = 1;
    must(pados_search_run(client, &search, &r, &error), error);
    assert_string_equal(pados_rung_name(r->rung[0]), "given");
    assert_true(warned(r, "from_ids[0]: row 1 does not consent", "given"));
    search.from_ids = NULL;
    search.from_table = NULL;
    must(pados_search_run(client, &search, &mean, &error), error);
    assert_memory_equal(r->ids, mean->ids, K * sizeof *r->ids);
    pados_result_free(mean);
    pados_result_free(r);
}

static void test_where_the_chain_ends_the_error_names_consent(void **state)
{
    (void)state;
    pados_error error;
    uint64_t id = 5;
    pados_search search = {.table = "goods", .count = 1, .k = K, .from_ids = &id, .from_table = "users"};
    pados_result *r;
    assert_int_equal(pados_search_run(client, &search, &r, &error), 5);
    assert_non_null(strstr(error.message, "row 5 does not consent"));
    /* "More like this" of a row of the table itself. */
    id = 6;
    search.from_table = NULL;
    assert_int_equal(pados_search_run(client, &search, &r, &error), 5);
    assert_non_null(strstr(error.message, "row 6 does not consent"));
    id = 7;
    must(pados_search_run(client, &search, &r, &error), error);
    assert_int_equal(r->nwarnings, 0);
    pados_result_free(r);
}

static void test_many_refusals_do_not_drown_the_reply(void **state)
{
    (void)state;
    pados_error error;
    static uint64_t ids[USERS];
    for (uint64_t i = 0; i < USERS; i++)
        ids[i] = i;
    pados_search search = {.table = "goods",
                           .count = USERS,
                           .k = 1,
                           .vectors = users,
                           .dim = DIM,
                           .from_ids = ids,
                           .from_table = "users"};
    pados_result *r;
    must(pados_search_run(client, &search, &r, &error), error);
    for (uint64_t i = 0; i < USERS; i++)
        assert_string_equal(pados_rung_name(r->rung[i]), refuses(i) ? "given" : "row");
    assert_int_equal(r->nwarnings, 17);
    assert_true(warned(r, "more rows than these", ""));
    pados_result_free(r);
}

static void test_a_mix_leaves_out_who_refuses(void **state)
{
    (void)state;
    pados_error error;
    uint64_t ids[] = {0, 2, 6}, alone[] = {2}, refused[] = {0, 1, 4242};
    float weights[] = {1, 2, -1};
    pados_mix mix = {.ids = ids, .weights = weights, .count = 3, .table = "users"};
    pados_search search = {.table = "goods", .count = 1, .k = K, .mixes = &mix};
    pados_result *r, *one;
    must(pados_search_run(client, &search, &r, &error), error);
    assert_true(warned(r, "mixes[0]: 2 of 3 rows do not consent", "left out"));
    mix.ids = alone;
    mix.count = 1;
    must(pados_search_run(client, &search, &one, &error), error);
    assert_int_equal(one->nwarnings, 0);
    assert_memory_equal(r->ids, one->ids, K * sizeof *r->ids);
    pados_result_free(one);
    pados_result_free(r);
    mix.ids = refused;
    mix.count = 3;
    assert_int_equal(pados_search_run(client, &search, &r, &error), 5);
    assert_non_null(strstr(error.message, "consents"));
}

static void calibrated(const char *table, const char *source, uint32_t queries)
{
    Pados__V1__Reply *reply;
    pados_error error;
    must(table_get(client, table, &reply, &error), error);
    assert_string_equal(reply->table->calibration_source, source);
    assert_int_equal(reply->table->calibration_queries, queries);
    pados_reply_free(reply);
}

static void test_calibration_asks_with_nobody_who_refuses(void **state)
{
    (void)state;
    pados_error error;
    calibrated("goods", "users", USERS * 3 / 5);
    /* A table that asks with rows of its own. */
    static char csv[ROWS * 16];
    char *at = csv + sprintf(csv, "id,consent\n");
    for (int i = 0; i < 600; i++)
        at += sprintf(at, "%d,%s\n", i, i % 3 ? "yes" : "no");
    static const char own[] = "table = { metric = \"cosine\"; dim = 8;"
                              " attributes = ( { name = \"consent\"; type = \"category\"; } ); };";
    must(push_rows(client, "people", own, 600, DIM, rows, NULL, csv, false, NULL, &error), error);
    calibrated("people", "held-out rows", 400);
    /* Nobody may be asked with: nothing is promised, and it serves. */
    at = csv + sprintf(csv, "id,consent\n");
    for (int i = 0; i < 600; i++)
        at += sprintf(at, "%d,no\n", i);
    must(push_rows(client, "silent", own, 600, DIM, rows, NULL, csv, false, NULL, &error), error);
    calibrated("silent", "", 0);
    pados_search search = {.table = "silent", .count = 1, .k = K, .vectors = rows, .dim = DIM};
    pados_result *r;
    must(pados_search_run(client, &search, &r, &error), error);
    assert_int_equal(r->hits, K);
    pados_result_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_user_who_refuses_falls_down_the_chain),
        cmocka_unit_test(test_where_the_chain_ends_the_error_names_consent),
        cmocka_unit_test(test_many_refusals_do_not_drown_the_reply),
        cmocka_unit_test(test_a_mix_leaves_out_who_refuses),
        cmocka_unit_test(test_calibration_asks_with_nobody_who_refuses),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
