/* Tables that change while they serve: what a write promises, over real sockets and restarts. */
#include "admin.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

#include "on_disk.h"

enum { ROWS = 1000, DIM = 16, K = 5 };
#define SECRET 0x5ec2e7f00dabcdefu /* an id whose bytes are nowhere by chance */

static float rows[ROWS * DIM];

static const char schema[] =
    "table = { metric = \"cosine\"; dim = 16; keep = 2; attributes = ("
    " { name = \"dept\"; type = \"category\"; },"
    " { name = \"price\"; type = \"number\"; knots = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0); },"
    " { name = \"zones\"; type = \"set\"; },"
    " { name = \"brand\"; type = \"key\"; },"
    " { name = \"heat\"; type = \"number\"; feedback = { half_life_hours = 24.0;"
    "   events = ((\"view\", 1.0), (\"buy\", 10.0)); }; knots = (0.5, 2.0, 8.0, 32.0); } ); };";

static char *csv(void)
{
    char *text = malloc(ROWS * 64), *at = text + sprintf(text, "id,dept,price,zones,brand\n");
    for (int i = 0; i < ROWS; i++)
        at += sprintf(at, "%d,d%d,%d.5,%s,%d\n", i, i % 7, i % 60, i % 3 ? "north" : "north|south",
                      100 + i % 50);
    return text;
}

static pados_client *open_shop(server *host, const char *const *sets)
{
    pados_error error;
    static const char *const quick[] = {"calibration_queries=100", NULL};
    server_start(host, sets ? sets : quick);
    pados_client *client = server_client(host);
    char *text = csv();
    must(push_rows(client, "t", schema, ROWS, DIM, rows, NULL, text, false, NULL, &error), error);
    free(text);
    return client;
}

static void close_shop(server *host, pados_client *client)
{
    pados_close(client);
    assert_int_equal(server_stop(host), 0);
    server_remove(host);
}

static int setup(void **state)
{
    (void)state;
    make_rows(7, ROWS, DIM, 20, rows);
    return 0;
}

/* A direction that no row has. */
static void lonely(uint32_t which, float *out)
{
    for (uint32_t d = 0; d < DIM; d++)
        out[d] = d == which ? -40.0f : 0.01f * (float)d;
}

static pados_result *nearest(pados_client *client, const float *query, uint64_t at_least, bool exact)
{
    static const char *const all[] = {"*"};
    pados_search search = {.table = "t",
                           .count = 1,
                           .k = K,
                           .vectors = query,
                           .dim = DIM,
                           .exact = exact,
                           .nprobe = exact ? 0 : 4096,
                           .attributes = all,
                           .nattributes = 1,
                           .at_least = at_least};
    pados_result *r;
    pados_error error;
    must(pados_search_run(client, &search, &r, &error), error);
    return r;
}

static const char *value_of(const pados_result *r, const char *attribute, size_t hit)
{
    for (size_t c = 0; c < r->ncolumns; c++)
        if (!strcmp(r->columns[c].attribute, attribute)) return r->columns[c].values[hit];
    return NULL;
}

static uint64_t put(pados_client *client, uint64_t id, const float *vector, const char *dept, float price,
                    pados_written *written)
{
    pados_error error;
    pados_values values[] = {{.attribute = "dept", .texts = &dept, .ntexts = 1},
                             {.attribute = "price", .numbers = &price}};
    pados_upsert upsert = {.table = "t",
                           .ids = &id,
                           .count = 1,
                           .vectors = vector,
                           .dim = DIM,
                           .attributes = values,
                           .nattributes = 2};
    must(pados_upsert_run(client, &upsert, written, &error), error);
    return written->sequence;
}

static void test_a_row_that_is_upserted_is_found_by_the_next_search(void **state)
{
    (void)state;
    server host = {0};
    pados_client *client = open_shop(&host, NULL);
    pados_written written;
    float query[DIM];
    lonely(3, query);
    uint64_t sequence = put(client, 9000, query, "a new one", 3.25f, &written);
    assert_true(written.durable);
    assert_int_equal(written.changed, 1);
    assert_int_equal(written.fresh, 1);
    for (int exact = 0; exact < 2; exact++) {
        pados_result *r = nearest(client, query, sequence, exact);
        assert_int_equal(r->ids[0], 9000);
        assert_true(fabsf(r->scores[0] - 1) < 0.02f);
        assert_string_equal(value_of(r, "dept", 0), "a new one");
        assert_string_equal(value_of(r, "price", 0), "3.25");
        assert_string_equal(value_of(r, "brand", 0), "");
        assert_true(r->sequence >= sequence);
        pados_result_free(r);
    }
    close_shop(&host, client);
}

static void test_an_upsert_replaces_the_row_wherever_it_lay(void **state)
{
    (void)state;
    server host = {0};
    pados_client *client = open_shop(&host, NULL);
    pados_written written;
    float query[DIM];
    lonely(5, query);
    put(client, 17, query, "d1", 1.5f, &written);
    assert_int_equal(written.fresh, 0);
    for (int exact = 0; exact < 2; exact++) {
        pados_result *r = nearest(client, query, 0, exact);
        assert_int_equal(r->ids[0], 17);
        pados_result_free(r);
        r = nearest(client, rows + 17 * DIM, 0, exact);
        for (size_t i = 0; i < r->hits; i++)
            assert_int_not_equal(r->ids[i], 17);
        pados_result_free(r);
    }
    close_shop(&host, client);
}

static void test_a_deleted_row_never_comes_back(void **state)
{
    (void)state;
    server host = {0};
    pados_client *client = open_shop(&host, NULL);
    pados_error error;
    pados_written written;
    uint64_t ids[] = {40, 41, 999999};
    pados_delete gone = {.table = "t", .ids = ids, .count = 3};
    must(pados_delete_run(client, &gone, &written, &error), error);
    assert_int_equal(written.changed, 2);
    assert_int_equal(written.missing, 1);
    for (int life = 0; life < 2; life++) {
        for (int exact = 0; exact < 2; exact++) {
            pados_result *r = nearest(client, rows + 40 * DIM, 0, exact);
            assert_int_equal(r->hits, K);
            for (size_t i = 0; i < r->hits; i++)
                assert_true(r->ids[i] != 40 && r->ids[i] != 41);
            pados_result_free(r);
        }
        pados_search search = {.table = "t", .count = 1, .k = K, .from_ids = ids, .nprobe = 4096};
        pados_result *r;
        must_fail(pados_search_run(client, &search, &r, &error), error, NOT_FOUND, "40");
        if (life) break;
        server_kill(&host);
        server_start(&host, NULL);
    }
    close_shop(&host, client);
}

static void test_attributes_change_without_the_vector(void **state)
{
    (void)state;
    server host = {0};
    pados_client *client = open_shop(&host, NULL);
    pados_error error;
    pados_written written;
    uint64_t ids[ROWS];
    float prices[ROWS];
    const char *zones[] = {"south"};
    static const uint32_t all[ROWS];
    for (uint64_t i = 0; i < ROWS; i++) {
        ids[i] = i;
        prices[i] = i == 123 ? 1000.0f : 4.0f;
    }
    pados_values values[] = {{.attribute = "price", .numbers = prices},
                             {.attribute = "zones", .texts = zones, .ntexts = 1, .text_of = all}};
    pados_update update = {.table = "t", .ids = ids, .count = ROWS, .attributes = values, .nattributes = 2};
    must(pados_update_run(client, &update, &written, &error), error);
    assert_int_equal(written.changed, ROWS);
    const char *most[] = {"900"};
    pados_condition dear = {.attribute = "price", .kind = PADOS_AT_LEAST, .values = most, .count = 1};
    pados_search search = {
        .table = "t", .count = 1, .k = K, .vectors = rows, .dim = DIM, .filters = &dear, .nfilters = 1};
    for (int life = 0; life < 2; life++) {
        pados_result *r;
        must(pados_search_run(client, &search, &r, &error), error);
        assert_int_equal(r->hits, 1);
        assert_int_equal(r->ids[0], 123);
        pados_result_free(r);
        r = nearest(client, rows + 5 * DIM, 0, false);
        assert_int_equal(r->ids[0], 5);
        assert_string_equal(value_of(r, "zones", 0), "south");
        assert_string_equal(value_of(r, "dept", 0), "d5");
        pados_result_free(r);
        if (life) break;
        assert_int_equal(server_stop(&host), 0);
        server_start(&host, NULL);
    }
    close_shop(&host, client);
}

static void test_a_key_does_a_write_once(void **state)
{
    (void)state;
    server host = {0};
    pados_client *client = open_shop(&host, NULL);
    pados_error error;
    pados_written first, again;
    uint64_t id = 5000;
    float query[DIM];
    lonely(1, query);
    pados_upsert upsert = {
        .table = "t", .ids = &id, .count = 1, .vectors = query, .dim = DIM, .key = "order-7"};
    must(pados_upsert_run(client, &upsert, &first, &error), error);
    pados_delete gone = {.table = "t", .ids = &id, .count = 1};
    must(pados_delete_run(client, &gone, &again, &error), error);
    for (int life = 0; life < 2; life++) {
        must(pados_upsert_run(client, &upsert, &again, &error), error);
        assert_true(again.repeated);
        assert_int_equal(again.sequence, first.sequence);
        pados_result *r = nearest(client, query, 0, false);
        assert_int_not_equal(r->ids[0], id); /* it was deleted after the first */
        pados_result_free(r);
        if (life) break;
        server_kill(&host);
        server_start(&host, NULL);
    }
    close_shop(&host, client);
}

static void test_a_key_is_its_tables_own(void **state)
{
    (void)state;
    server host = {0};
    pados_client *client = open_shop(&host, NULL);
    pados_error error;
    pados_written written;
    uint64_t id = 5000;
    float query[DIM];
    lonely(1, query);
    must(push_rows(client, "u", NULL, 100, DIM, rows, NULL, NULL, false, NULL, &error), error);
    pados_upsert upsert = {.ids = &id, .count = 1, .vectors = query, .dim = DIM, .key = "k1"};
    for (int i = 0; i < 2; i++) {
        upsert.table = i ? "u" : "t";
        must(pados_upsert_run(client, &upsert, &written, &error), error);
        assert_false(written.repeated);
        assert_int_equal(written.fresh, 1);
    }
    must(pados_upsert_run(client, &upsert, &written, &error), error);
    assert_true(written.repeated);
    close_shop(&host, client);
}

static void test_a_rollback_goes_back_to_another_width(void **state)
{
    (void)state;
    enum { NARROW = 8 };
    server host = {0};
    pados_client *client = open_shop(&host, NULL);
    pados_error error;
    pados_written written;
    pados_upsert upsert = {
        .table = "t", .ids = (const uint64_t[]){4000}, .count = 1, .vectors = rows, .dim = NARROW};
    must(push_rows(client, "t", "table = { metric = \"cosine\"; dim = 8; };", ROWS, NARROW, rows, NULL, NULL,
                   false, NULL, &error),
         error);
    must(pados_upsert_run(client, &upsert, &written, &error), error);
    must(rollback(client, "t", &error), error);
    for (int life = 0; life < 2; life++) {
        pados_result *r = nearest(client, rows, 0, false);
        assert_int_equal(r->version, 1);
        assert_int_equal(r->ids[0], 0);
        pados_result_free(r);
        Pados__V1__Reply *reply;
        must(table_get(client, "t", &reply, &error), error);
        if (!life) assert_non_null(strstr(reply->table->info->problem, "another width"));
        pados_reply_free(reply);
        if (life) break;
        server_kill(&host);
        server_start(&host, NULL);
    }
    close_shop(&host, client);
}

static void test_bad_batches_are_refused_whole_and_by_name(void **state)
{
    (void)state;
    server host = {0};
    pados_client *client = open_shop(&host, NULL);
    pados_error error;
    pados_written written;
    uint64_t ids[] = {1, 2, 1};
    float vectors[3 * DIM];
    for (int i = 0; i < 3 * DIM; i++)
        vectors[i] = 1;
    pados_upsert upsert = {.table = "t", .ids = ids, .count = 3, .vectors = vectors, .dim = DIM};
    must_fail(pados_upsert_run(client, &upsert, &written, &error), error, INVALID_ARGUMENT, "rows 0 and 2");
    ids[2] = 3;
    vectors[2 * DIM + 4] = NAN;
    must_fail(pados_upsert_run(client, &upsert, &written, &error), error, INVALID_ARGUMENT,
              "dimension 4 is NaN");
    for (int d = 0; d < DIM; d++)
        vectors[2 * DIM + d] = 0;
    must_fail(pados_upsert_run(client, &upsert, &written, &error), error, INVALID_ARGUMENT, "no direction");
    vectors[2 * DIM] = 1;
    upsert.dim = 8;
    must_fail(pados_upsert_run(client, &upsert, &written, &error), error, INVALID_ARGUMENT, "has 16");
    upsert.dim = DIM;
    upsert.table = "nowhere";
    must_fail(pados_upsert_run(client, &upsert, &written, &error), error, NOT_FOUND, "nowhere");
    upsert.table = "t";
    const char *cell[] = {"x", "y", "z"};
    pados_values values = {.attribute = "colour", .texts = cell, .ntexts = 3};
    upsert.attributes = &values;
    upsert.nattributes = 1;
    must_fail(pados_upsert_run(client, &upsert, &written, &error), error, INVALID_ARGUMENT, "colour");
    values.attribute = "price";
    must_fail(pados_upsert_run(client, &upsert, &written, &error), error, INVALID_ARGUMENT, "\"x\"");
    values.attribute = "zones";
    must_fail(pados_upsert_run(client, &upsert, &written, &error), error, INVALID_ARGUMENT, "zones");
    values.attribute = "heat";
    must_fail(pados_upsert_run(client, &upsert, &written, &error), error, INVALID_ARGUMENT, "feedback");
    /* Nothing of all that was done. */
    for (int i = 1; i < 4; i++) {
        pados_result *r = nearest(client, rows + i * DIM, 0, false);
        assert_int_equal(r->ids[0], i);
        pados_result_free(r);
    }
    close_shop(&host, client);
}

static void test_what_is_bought_now_trends_at_once_and_after_a_restart(void **state)
{
    (void)state;
    server host = {0};
    pados_client *client = open_shop(&host, NULL);
    pados_error error;
    pados_written written;
    uint64_t items[] = {77, 77, 88, 123456};
    const char *events[] = {"buy", "view"};
    uint32_t event_of[] = {0, 0, 1, 1};
    pados_feedback feedback = {
        .table = "t", .items = items, .count = 4, .events = events, .nevents = 2, .event_of = event_of};
    must(pados_feedback_run(client, &feedback, &written, &error), error);
    assert_int_equal(written.changed, 2);
    assert_int_equal(written.missing, 1);
    const char *least[] = {"0.5"};
    pados_condition hot = {.attribute = "heat", .kind = PADOS_AT_LEAST, .values = least, .count = 1};
    static const char *const all[] = {"*"};
    pados_search search = {.table = "t",
                           .count = 1,
                           .k = K,
                           .vectors = rows,
                           .dim = DIM,
                           .filters = &hot,
                           .nfilters = 1,
                           .attributes = all,
                           .nattributes = 1};
    for (int life = 0; life < 2; life++) {
        pados_result *r;
        must(pados_search_run(client, &search, &r, &error), error);
        assert_int_equal(r->hits, 2);
        size_t at = r->ids[0] == 77 ? 0 : 1;
        assert_int_equal(r->ids[at], 77);
        assert_int_equal(r->ids[1 - at], 88);
        assert_true(fabs(atof(value_of(r, "heat", at)) - 20) < 0.5);
        assert_true(fabs(atof(value_of(r, "heat", 1 - at)) - 1) < 0.1);
        pados_result_free(r);
        if (life) break;
        server_kill(&host);
        server_start(&host, NULL);
    }
    feedback.events = (const char *const[]){"steal", "view"};
    must_fail(pados_feedback_run(client, &feedback, &written, &error), error, INVALID_ARGUMENT, "steal");
    close_shop(&host, client);
}

static void test_a_rebuild_holds_what_was_changed_and_frees_the_log(void **state)
{
    (void)state;
    server host = {0};
    pados_client *client = open_shop(&host, NULL);
    pados_error error;
    pados_written written;
    float query[DIM];
    uint64_t gone = 3, version = 0, item = 9;
    lonely(2, query);
    put(client, 7777, query, "fresh", 2.0f, &written);
    pados_delete away = {.table = "t", .ids = &gone, .count = 1};
    must(pados_delete_run(client, &away, &written, &error), error);
    pados_feedback feedback = {
        .table = "t", .items = &item, .count = 1, .events = (const char *const[]){"buy"}, .nevents = 1};
    must(pados_feedback_run(client, &feedback, &written, &error), error);
    must(pados_rebuild(client, "t", NULL, NULL, &version, &error), error);
    assert_int_equal(version, 2);
    put(client, 7778, query, "later", 2.0f, &written);
    for (int life = 0; life < 2; life++) {
        for (int exact = 0; exact < 2; exact++) {
            pados_result *r = nearest(client, query, 0, exact);
            assert_int_equal(r->version, 2);
            assert_int_equal(r->ids[0], 7777);
            assert_int_equal(r->ids[1], 7778);
            assert_string_equal(value_of(r, "dept", 0), "fresh");
            pados_result_free(r);
            r = nearest(client, rows + 3 * DIM, 0, exact);
            assert_int_not_equal(r->ids[0], 3);
            pados_result_free(r);
            r = nearest(client, rows + 9 * DIM, 0, exact);
            assert_int_equal(r->ids[0], 9);
            assert_true(fabs(atof(value_of(r, "heat", 0)) - 10) < 0.5);
            pados_result_free(r);
        }
        if (life) break;
        server_kill(&host);
        server_start(&host, NULL);
    }
    Pados__V1__Reply *reply;
    must(table_get(client, "t", &reply, &error), error);
    assert_int_equal(reply->table->n_versions, 1); /* the version that it was made of is gone */
    assert_int_equal(reply->table->info->rows, ROWS + 1);
    assert_int_equal(reply->table->info->changed, 1);
    pados_reply_free(reply);
    close_shop(&host, client);
}

static void test_a_push_keeps_what_was_changed_while_it_was_made_and_rollback_what_came_after(void **state)
{
    (void)state;
    server host = {0};
    pados_client *client = open_shop(&host, NULL);
    pados_error error;
    pados_written written;
    float query[DIM], other[DIM];
    lonely(2, query);
    lonely(4, other);
    put(client, 7001, query, "before", 2.0f, &written);
    must(push_rows(client, "t", NULL, ROWS, DIM, rows, NULL, NULL, false, NULL, &error), error);
    pados_result *r = nearest(client, query, 0, false);
    assert_int_not_equal(r->ids[0], 7001); /* the push replaces the table */
    assert_int_equal(r->version, 2);
    pados_result_free(r);
    put(client, 7002, other, "after", 2.0f, &written);
    must(rollback(client, "t", &error), error);
    for (int exact = 0; exact < 2; exact++) {
        r = nearest(client, query, 0, exact);
        assert_int_equal(r->version, 1);
        assert_int_equal(r->ids[0], 7001);
        pados_result_free(r);
        r = nearest(client, other, 0, exact);
        assert_int_equal(r->ids[0], 7002);
        pados_result_free(r);
    }
    close_shop(&host, client);
}

static void test_counters_outlive_a_push(void **state)
{
    (void)state;
    server host = {0};
    pados_client *client = open_shop(&host, NULL);
    pados_error error;
    pados_written written;
    uint64_t items[] = {5, 6};
    pados_feedback feedback = {
        .table = "t", .items = items, .count = 2, .events = (const char *const[]){"buy"}, .nevents = 1};
    feedback.event_of = (const uint32_t[]){0, 0};
    must(pados_feedback_run(client, &feedback, &written, &error), error);
    /* The push says itself how hot row 6 is. */
    must(push_rows(client, "t", schema, ROWS, DIM, rows, NULL, "id,heat\n6,3.0\n", false, NULL, &error),
         error);
    for (int life = 0; life < 2; life++) {
        pados_result *r = nearest(client, rows + 5 * DIM, 0, false);
        assert_int_equal(r->version, 2);
        assert_int_equal(r->ids[0], 5);
        assert_true(fabs(atof(value_of(r, "heat", 0)) - 10) < 0.5);
        pados_result_free(r);
        r = nearest(client, rows + 6 * DIM, 0, false);
        assert_int_equal(r->ids[0], 6);
        assert_true(fabs(atof(value_of(r, "heat", 0)) - 3) < 0.2);
        pados_result_free(r);
        if (life) break;
        server_kill(&host);
        server_start(&host, NULL);
    }
    close_shop(&host, client);
}

static void wait_until_erased(pados_client *client, size_t wanted)
{
    pados_error error;
    /* The job has what other processes leave of the machine. */
    for (int tries = 0; tries < 2000; tries++) {
        pados_erasures *list;
        must(pados_erasures_list(client, false, &list, &error), error);
        size_t finished = 0;
        for (size_t i = 0; i < list->count; i++)
            finished += *list->at[i].finished != 0;
        pados_erasures_free(list);
        if (finished == wanted) return;
        usleep(100000);
    }
    fail_msg("the erasures are not finished");
}

static void test_an_erased_row_is_nowhere(void **state)
{
    (void)state;
    server host = {0};
    pados_client *client = open_shop(&host, NULL);
    pados_error error;
    pados_written written;
    float query[DIM];
    lonely(6, query);
    put(client, SECRET, query, "secretive", 2.0f, &written);
    uint64_t version;
    must(pados_rebuild(client, "t", NULL, NULL, &version, &error), error);
    query[3] += 0.5f;
    put(client, SECRET, query, "secretive", 3.0f, &written);
    char *json;
    must(pados_export(client, "t", SECRET, &json, &error), error);
    assert_non_null(strstr(json, "secretive"));
    assert_non_null(strstr(json, "\"upsert\""));
    free(json);
    uint64_t ids[] = {SECRET};
    assert_true(on_disk(&host, "tables", ids, sizeof ids));
    assert_true(on_disk(&host, "changes", query, sizeof query));
    assert_true(on_disk(&host, "changes", "secretive", 9));
    pados_erasures *receipts;
    must(pados_erase(client, "t", ids, 1, &receipts, &error), error);
    assert_int_equal(receipts->count, 1);
    assert_int_equal(receipts->at[0].id, SECRET);
    assert_string_equal(receipts->at[0].done[0], "memory");
    pados_erasures_free(receipts);
    pados_result *r = nearest(client, query, 0, false);
    assert_int_not_equal(r->ids[0], SECRET);
    pados_result_free(r);
    wait_until_erased(client, 1);
    assert_false(on_disk(&host, "tables", ids, sizeof ids));
    assert_false(on_disk(&host, "changes", query, sizeof query));
    assert_false(on_disk(&host, "changes", "secretive", 9));
    must(pados_export(client, "t", SECRET, &json, &error), error); /* the receipt is all that is left */
    assert_null(strstr(json, "secretive"));
    assert_null(strstr(json, "serving"));
    free(json);
    server_kill(&host);
    server_start(&host, NULL);
    for (int exact = 0; exact < 2; exact++) {
        r = nearest(client, query, 0, exact);
        assert_int_not_equal(r->ids[0], SECRET);
        pados_result_free(r);
    }
    close_shop(&host, client);
}

/* More than one reply has. */
static void test_all_receipts_are_listed_however_many(void **state)
{
    (void)state;
    enum { MANY = 1024 };
    server host = {0};
    pados_client *client = open_shop(&host, NULL);
    pados_error error;
    pados_erasures *receipts;
    uint64_t ids[MANY];
    for (uint64_t i = 0; i < MANY; i++)
        ids[i] = 100000 + i;
    must(pados_erase(client, "t", ids, MANY, &receipts, &error), error);
    pados_erasures_free(receipts);
    must(pados_erasures_list(client, false, &receipts, &error), error);
    assert_int_equal(receipts->count, MANY);
    for (uint32_t i = 0; i < MANY; i++) {
        assert_int_equal(receipts->at[i].number, i + 1);
        assert_int_equal(receipts->at[i].id, ids[i]);
        assert_string_equal(receipts->at[i].table, "t");
    }
    pados_erasures_free(receipts);
    close_shop(&host, client);
}

/* Its record was trimmed from the log before, and lies in a page that is free. */
static void test_an_erased_row_is_gone_from_the_free_pages_of_the_log(void **state)
{
    (void)state;
    server host = {0};
    pados_client *client = open_shop(&host, NULL);
    pados_error error;
    pados_written written;
    pados_erasures *receipts;
    float query[DIM];
    uint64_t version, id = SECRET;
    for (size_t erased = 1; erased < 3; erased++) {
        lonely(6, query);
        query[4] += (float)erased / 8;
        put(client, SECRET, query, "secretive", 2.0f, &written);
        must(pados_rebuild(client, "t", NULL, NULL, &version, &error), error);
        must(pados_erase(client, "t", &id, 1, &receipts, &error), error);
        pados_erasures_free(receipts);
        wait_until_erased(client, erased);
        assert_false(on_disk(&host, "changes", query, sizeof query));
    }
    close_shop(&host, client);
}

/* Rows go to and fro between two far corners, so that they change lists all the time, until they are told to stop. */
typedef struct moving {
    const server *host;
    atomic_int stop;
    uint32_t rounds;
    float last[ROWS * DIM];
    char wrong[300];
} moving;

static void *move_rows(void *argument)
{
    moving *m = argument;
    pados_client *client = server_client(m->host);
    pados_error error;
    pados_written written;
    uint64_t ids[ROWS];
    for (uint64_t i = 0; i < ROWS; i++)
        ids[i] = i;
    while (!atomic_load(&m->stop) && !*m->wrong) {
        uint32_t shift = ++m->rounds;
        for (uint32_t i = 0; i < ROWS; i++)
            memcpy(m->last + i * DIM, rows + (i + shift * 37) % ROWS * DIM, DIM * sizeof *rows);
        for (uint32_t at = 0; at < ROWS && !*m->wrong; at += 100) {
            pados_upsert upsert = {.table = "t",
                                   .ids = ids + at,
                                   .count = 100,
                                   .vectors = m->last + at * DIM,
                                   .dim = DIM,
                                   .timeout_ms = 60000};
            if (pados_upsert_run(client, &upsert, &written, &error))
                snprintf(m->wrong, sizeof m->wrong, "an upsert: %.280s", error.message);
        }
    }
    pados_close(client);
    return NULL;
}

/* Large enough that a rebuild gathers it in several pieces, between which rows move; with sanitizers half as large, as they take several
 * times as long. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MOVING_ROWS 30000
#else
#define MOVING_ROWS 60000
#endif

static void test_a_table_is_rebuilt_while_its_rows_move(void **state)
{
    (void)state;
    enum { MANY = MOVING_ROWS, REBUILDS = 2 };
    static const char *const sets[] = {"calibration_queries=100", "rebuild_percent=0", NULL};
    static moving m;
    static float many[MANY * DIM];
    server host = {0};
    pados_error error;
    pthread_t thread;
    make_rows(9, MANY, DIM, 50, many);
    memcpy(rows, many, sizeof rows);
    server_start(&host, sets);
    pados_client *client = server_client(&host);
    must(push_rows(client, "t", schema, MANY, DIM, many, NULL, NULL, false, NULL, &error), error);
    m.host = &host;
    assert_int_equal(pthread_create(&thread, NULL, move_rows, &m), 0);
    for (int i = 0; i < REBUILDS; i++) {
        uint64_t version;
        must(pados_rebuild(client, "t", NULL, NULL, &version, &error), error);
        assert_int_equal(version, i + 2);
    }
    atomic_store(&m.stop, 1);
    pthread_join(thread, NULL);
    assert_string_equal(m.wrong, "");
    assert_true(m.rounds > REBUILDS);
    for (int life = 0; life < 2; life++) {
        for (uint32_t i = 0; i < ROWS; i += 50) {
            pados_result *r = nearest(client, m.last + i * DIM, 0, i % 100 == 0);
            assert_true(r->ids[0] == i || r->ids[1] == i); /* its twin of the push lies in the same place */
            pados_result_free(r);
        }
        if (life) break;
        server_kill(&host);
        server_start(&host, NULL);
    }
    Pados__V1__Reply *reply;
    must(table_get(client, "t", &reply, &error), error);
    assert_int_equal(reply->table->info->rows, MANY);
    pados_reply_free(reply);
    close_shop(&host, client);
}

static void test_a_search_waits_for_the_change_that_it_must_see(void **state)
{
    (void)state;
    server host = {0};
    pados_client *client = open_shop(&host, NULL);
    pados_error error;
    pados_search search = {.table = "t",
                           .count = 1,
                           .k = K,
                           .vectors = rows,
                           .dim = DIM,
                           .nprobe = 4096,
                           .at_least = 1000000,
                           .timeout_ms = 300};
    pados_result *r;
    must_fail(pados_search_run(client, &search, &r, &error), error, DEADLINE_EXCEEDED, "");
    close_shop(&host, client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_row_that_is_upserted_is_found_by_the_next_search),
        cmocka_unit_test(test_an_upsert_replaces_the_row_wherever_it_lay),
        cmocka_unit_test(test_a_deleted_row_never_comes_back),
        cmocka_unit_test(test_attributes_change_without_the_vector),
        cmocka_unit_test(test_a_key_does_a_write_once),
        cmocka_unit_test(test_a_key_is_its_tables_own),
        cmocka_unit_test(test_a_rollback_goes_back_to_another_width),
        cmocka_unit_test(test_bad_batches_are_refused_whole_and_by_name),
        cmocka_unit_test(test_what_is_bought_now_trends_at_once_and_after_a_restart),
        cmocka_unit_test(test_a_rebuild_holds_what_was_changed_and_frees_the_log),
        cmocka_unit_test(test_a_push_keeps_what_was_changed_while_it_was_made_and_rollback_what_came_after),
        cmocka_unit_test(test_counters_outlive_a_push),
        cmocka_unit_test(test_an_erased_row_is_nowhere),
        cmocka_unit_test(test_an_erased_row_is_gone_from_the_free_pages_of_the_log),
        cmocka_unit_test(test_all_receipts_are_listed_however_many),
        cmocka_unit_test(test_a_search_waits_for_the_change_that_it_must_see),
        cmocka_unit_test(test_a_table_is_rebuilt_while_its_rows_move),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
