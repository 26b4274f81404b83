/* Bad input over the wire: a status, a sentence that names the thing, and a server that goes on. */
#include "admin.h"

#include <math.h>

enum { ROWS = 800, DIM = 8 };

static server host;
static pados_client *client;
static float rows[ROWS * DIM];

static int start(void **state)
{
    (void)state;
    pados_error error;
    const char *sets[] = {"memory_mib=4", NULL};
    server_start(&host, sets);
    client = server_client(&host);
    make_rows(1, ROWS, DIM, 10, rows);
    must(push_rows(client, "t",
                   "table = { metric = \"cosine\"; dim = 8; attributes = ( { name = \"kind\"; type = "
                   "\"category\"; } ); };",
                   ROWS, DIM, rows, NULL, "id,kind\n1,A\n2,B\n", false, NULL, &error),
         error);
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

static pados_status run(pados_search search, pados_error *error)
{
    pados_result *r;
    pados_status status = pados_search_run(client, &search, &r, error);
    if (!status) pados_result_free(r);
    return status;
}

#define GOOD .table = "t", .count = 1, .k = 5, .vectors = rows, .dim = DIM
#define refused(status, word, ...)                                                                           \
    do {                                                                                                     \
        pados_error error_ = {0};                                                                            \
        must_fail(run((pados_search){__VA_ARGS__}, &error_), error_, status, word);                          \
    } while (0)

static void test_each_wrong_request_is_named(void **state)
{
    (void)state;
    refused(NOT_FOUND, "nowhere", .table = "nowhere", .count = 1, .k = 5, .vectors = rows, .dim = DIM);
    refused(NOT_FOUND, "9", .table = "t@9", .count = 1, .k = 5, .vectors = rows, .dim = DIM);
    refused(INVALID_ARGUMENT, "k", .table = "t", .count = 1, .k = 0, .vectors = rows, .dim = DIM);
    refused(INVALID_ARGUMENT, "1000", .table = "t", .count = 1, .k = 1001, .vectors = rows, .dim = DIM);
    refused(INVALID_ARGUMENT, "8", .table = "t", .count = 1, .k = 5, .vectors = rows, .dim = 7);
    refused(INVALID_ARGUMENT, "recall", GOOD, .recall = 1.5f);
    refused(INVALID_ARGUMENT, "nprobe", GOOD, .recall = 0.9f, .nprobe = 3);
    refused(NOT_FOUND, "absent", GOOD, .profile = "absent");
    float nothing[DIM] = {0}, broken[DIM] = {1, NAN};
    refused(INVALID_ARGUMENT, "zero", .table = "t", .count = 1, .k = 5, .vectors = nothing, .dim = DIM);
    refused(INVALID_ARGUMENT, "query 0", .table = "t", .count = 1, .k = 5, .vectors = broken, .dim = DIM);
    uint64_t missing = 424242;
    refused(NOT_FOUND, "424242", .table = "t", .count = 1, .k = 5, .from_ids = &missing);
    const char *red[] = {"RED"};
    pados_condition colour = {"colour", PADOS_IS, red, 1}, kind = {"kind", PADOS_AT_MOST, red, 1};
    refused(INVALID_ARGUMENT, "colour", GOOD, .filters = &colour, .nfilters = 1);
    refused(INVALID_ARGUMENT, "kind", GOOD, .filters = &kind, .nfilters = 1);
    pados_override weight = {"colour", "RED", 1};
    refused(INVALID_ARGUMENT, "colour", GOOD, .overrides = &weight, .noverrides = 1);
    const char *wanted[] = {"colour"};
    refused(INVALID_ARGUMENT, "colour", GOOD, .attributes = wanted, .nattributes = 1);
}

static void test_a_batch_over_the_limit_is_refused_before_it_is_sent(void **state)
{
    (void)state;
    float *many = calloc((size_t)5000 * DIM, sizeof *many);
    refused(INVALID_ARGUMENT, "4096", .table = "t", .count = 5000, .k = 5, .vectors = many, .dim = DIM);
    refused(INVALID_ARGUMENT, "hits", .table = "t", .count = 4096, .k = 1000, .vectors = many, .dim = DIM);
    free(many);
}

static void test_a_table_that_does_not_fit_says_what_it_needs(void **state)
{
    (void)state;
    enum { BIG = 40000, WIDE = 128 };
    float *big = malloc(sizeof(float) * BIG * WIDE);
    make_rows(3, BIG, WIDE, 50, big);
    pados_error error;
    must_fail(push_rows(client, "big", NULL, BIG, WIDE, big, NULL, NULL, false, NULL, &error), error,
              RESOURCE_EXHAUSTED, "MiB");
    free(big);
    assert_int_equal(run((pados_search){GOOD}, &error), 0);
}

static void test_bad_names_and_schemas_are_refused(void **state)
{
    (void)state;
    pados_error error;
    must_fail(push_rows(client, "../etc", NULL, 10, DIM, rows, NULL, NULL, false, NULL, &error), error,
              INVALID_ARGUMENT, "../etc");
    must_fail(push_rows(client, "u", "table = { metrik = \"ip\"; };", 10, DIM, rows, NULL, NULL, false, NULL,
                        &error),
              error, INVALID_ARGUMENT, "metrik");
    must_fail(push_rows(client, "u", "table = { metric = \"ip\"; dim = 9; };", 10, DIM, rows, NULL, NULL,
                        false, NULL, &error),
              error, INVALID_ARGUMENT, "9");
    must_fail(push_rows(client, "t", NULL, ROWS, DIM, rows, NULL, "id,kind\n99999,A\n", false, NULL, &error),
              error, INVALID_ARGUMENT, "99999");
    must_fail(push_rows(client, "t", NULL, ROWS, DIM, rows, NULL, "id,kind\n1\n", false, NULL, &error), error,
              INVALID_ARGUMENT, "attributes.csv");
}

static void test_the_server_still_answers(void **state)
{
    (void)state;
    pados_error error;
    must(run((pados_search){GOOD}, &error), error);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_wrong_request_is_named),
        cmocka_unit_test(test_a_batch_over_the_limit_is_refused_before_it_is_sent),
        cmocka_unit_test(test_a_table_that_does_not_fit_says_what_it_needs),
        cmocka_unit_test(test_bad_names_and_schemas_are_refused),
        cmocka_unit_test(test_the_server_still_answers),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
