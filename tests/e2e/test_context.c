/* The shopper's context inside the search: profiles, filters, caps, explanations, fallback rungs. */
#include "expect.h"

#include <math.h>

#include "pados.pb-c.h"

enum { ROWS = 2000, DIM = 16, USERS = 50, K = 10 };

static server host;
static pados_client *client;
static float rows[ROWS * DIM], users[USERS * DIM];
static const char *const departments[] = {"GROCERY", "SWEETS", "TOYS", "TOBACCO"};

static const char products_schema[] =
    "table = { metric = \"cosine\"; dim = 16; queries = \"users\"; space = \"demo\";"
    " attributes = ( { name = \"department\"; type = \"category\"; },"
    "  { name = \"price\"; type = \"number\"; knots = ( 1.0, 2.0, 5.0, 10.0 ); },"
    "  { name = \"zones\"; type = \"set\"; }, { name = \"brand\"; type = \"key\"; } ); };";
static const char users_schema[] =
    "table = { metric = \"cosine\"; dim = 16; index = \"none\"; space = \"demo\";"
    " fallback = ( \"given\", \"segment:age\", \"attributes\" );"
    " attributes = ( { name = \"age\"; type = \"category\"; } ); };";
static const char festive[] =
    "profile = { name = \"festive\"; table = \"products\"; similarity = 1.0;"
    " context = ( \"festival\", \"zone\", \"price_band\" );"
    " terms = ( { attribute = \"department\"; when = { festival = \"diwali\"; }; weights = ( (\"SWEETS\", "
    "2.0) ); },"
    "  { attribute = \"zones\"; matches = \"zone\"; weight = 0.5; },"
    "  { attribute = \"price\"; when = { price_band = \"value\"; }; curve = ( (0.0, 0.4), (20.0, -0.4) ); },"
    "  { attribute = \"brand\"; weights = ( (7L, 0.1) ); } );"
    " filters = ( { attribute = \"department\"; is_not = ( \"TOBACCO\" ); } );"
    " diversity = ( { attribute = \"brand\"; at_most = 3; } ); };";

/* Row i: department i % 4, price i % 17, zone by i % 3, brand 1 + i % 9; every tenth row knows nothing. */
static char *attributes(void)
{
    char *text = malloc(ROWS * 64), *at = text;
    at += sprintf(at, "id,department,price,zones,brand\n");
    for (int i = 0; i < ROWS; i++) {
        if (i % 10 == 9)
            at += sprintf(at, "%d,,,,\n", i);
        else
            at += sprintf(at, "%d,%s,%d.5,%s,%d\n", i, departments[i % 4], i % 17,
                          i % 3 ? "north|east" : "south", 1 + i % 9);
    }
    return text;
}

static pados_status put_profile(const char *text, pados_error *error)
{
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__ProfilePut put = PADOS__V1__PROFILE_PUT__INIT;
    put.text = (char *)text;
    put.file = "festive.conf";
    request.body_case = PADOS__V1__REQUEST__BODY_PROFILE_PUT;
    request.profile_put = &put;
    Pados__V1__Reply *reply = NULL;
    pados_status status = pados_admin(client, &request, &reply, error);
    if (!status) pados_reply_free(reply);
    return status;
}

static int start(void **state)
{
    (void)state;
    pados_error error;
    server_start(&host, NULL);
    client = server_client(&host);
    make_rows(1, ROWS, DIM, 20, rows);
    make_rows(5, USERS, DIM, 20, users);
    char *csv = attributes(), ages[2048] = "id,age\n", *at = ages + strlen(ages);
    for (int i = 0; i < USERS; i++)
        at += sprintf(at, "%d,%s\n", i, i % 2 ? "young" : "old");
    must(push_rows(client, "users", users_schema, USERS, DIM, users, NULL, ages, false, NULL, &error), error);
    must(push_rows(client, "products", products_schema, ROWS, DIM, rows, NULL, csv, false, NULL, &error),
         error);
    free(csv);
    must(put_profile(festive, &error), error);
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

static const char *value_of(const pados_result *r, const char *attribute, size_t hit)
{
    for (size_t c = 0; c < r->ncolumns; c++)
        if (!strcmp(r->columns[c].attribute, attribute)) return r->columns[c].values[hit];
    fail_msg("no column %s", attribute);
    return NULL;
}

static const char *const all[] = {"*"};

static void test_a_festival_brings_its_department(void **state)
{
    (void)state;
    pados_error error;
    pados_pair pair = {"festival", "diwali"};
    pados_context context = {&pair, 1};
    pados_search search = {.table = "products",
                           .count = 1,
                           .k = K,
                           .vectors = rows,
                           .dim = DIM,
                           .profile = "festive",
                           .contexts = &context,
                           .ncontexts = 1,
                           .attributes = all,
                           .nattributes = 1};
    pados_result *r;
    must(pados_search_run(client, &search, &r, &error), error);
    assert_int_equal(r->hits, K);
    assert_int_equal(r->profile_version, 1);
    for (size_t h = 0; h < r->hits; h++)
        assert_string_equal(value_of(r, "department", h), "SWEETS");
    pados_result_free(r);
    search.ncontexts = 0;
    must(pados_search_run(client, &search, &r, &error), error);
    int sweets = 0;
    for (size_t h = 0; h < r->hits; h++)
        sweets += !strcmp(value_of(r, "department", h), "SWEETS");
    assert_true(sweets < K);
    pados_result_free(r);
}

static void test_fused_search_agrees_with_exact(void **state)
{
    (void)state;
    pados_error error;
    pados_pair pairs[] = {{"festival", "diwali"}, {"zone", "north"}, {"price_band", "value"}};
    pados_context context = {pairs, 3};
    pados_search search = {.table = "products",
                           .count = USERS,
                           .k = K,
                           .vectors = users,
                           .dim = DIM,
                           .profile = "festive",
                           .contexts = &context,
                           .ncontexts = 1,
                           .recall = 0.99f};
    pados_result *fast, *exact;
    must(pados_search_run(client, &search, &fast, &error), error);
    search.recall = 0;
    search.exact = true;
    must(pados_search_run(client, &search, &exact, &error), error);
    assert_true(exact->complete);
    int right = 0;
    for (uint32_t q = 0; q < USERS; q++)
        for (size_t i = exact->first[q]; i < exact->first[q + 1]; i++)
            for (size_t j = fast->first[q]; j < fast->first[q + 1]; j++)
                right += exact->ids[i] == fast->ids[j];
    assert_true(right >= 0.97 * (double)exact->hits);
    pados_result_free(fast);
    pados_result_free(exact);
}

static void test_explained_terms_sum_to_the_score(void **state)
{
    (void)state;
    pados_error error;
    pados_pair pairs[] = {{"festival", "diwali"}, {"zone", "south"}, {"price_band", "value"}};
    pados_context context = {pairs, 3};
    pados_search search = {.table = "products",
                           .count = 3,
                           .k = K,
                           .vectors = users,
                           .dim = DIM,
                           .profile = "festive",
                           .contexts = &context,
                           .ncontexts = 1,
                           .explain = true,
                           .attributes = all,
                           .nattributes = 1};
    pados_result *r;
    must(pados_search_run(client, &search, &r, &error), error);
    assert_non_null(r->explanations);
    for (size_t h = 0; h < r->hits; h++) {
        double sum = 0;
        for (size_t t = 0; t < r->explanations[h].count; t++) {
            const pados_term *term = &r->explanations[h].terms[t];
            sum += (double)term->weight;
            if (!strcmp(term->attribute, "department") && !strcmp(term->value, "SWEETS"))
                assert_true(fabsf(term->weight - 2.0f) < 1e-6f);
            /* The similarity that is named is a cosine of this very pair. */
            if (!strcmp(term->attribute, "similarity")) {
                const float *q = users + (h / K) * DIM, *x = rows + r->ids[h] * DIM;
                double dot = 0, qq = 0, xx = 0;
                for (int d = 0; d < DIM; d++) {
                    dot += (double)q[d] * x[d];
                    qq += (double)q[d] * q[d];
                    xx += (double)x[d] * x[d];
                }
                assert_true(fabs(dot / sqrt(qq * xx) - (double)term->weight) < 2e-3);
            }
        }
        assert_true(fabs(sum - (double)r->scores[h]) < 1e-4);
    }
    pados_result_free(r);
}

static void test_filters_and_caps_are_hard(void **state)
{
    (void)state;
    pados_error error;
    const char *toys[] = {"TOYS"}, *five[] = {"5"}, *north[] = {"north"};
    pados_condition filters[] = {{"department", PADOS_IS, toys, 1},
                                 {"price", PADOS_AT_MOST, five, 1},
                                 {"zones", PADOS_ANY_OF, north, 1}};
    pados_cap cap = {"brand", 2};
    pados_search search = {.table = "products",
                           .count = 1,
                           .k = K,
                           .vectors = rows,
                           .dim = DIM,
                           .filters = filters,
                           .nfilters = 3,
                           .diversity = &cap,
                           .ndiversity = 1,
                           .attributes = all,
                           .nattributes = 1};
    pados_result *r;
    must(pados_search_run(client, &search, &r, &error), error);
    assert_true(r->hits > 0);
    int brands[32] = {0};
    for (size_t h = 0; h < r->hits; h++) {
        assert_string_equal(value_of(r, "department", h), "TOYS");
        assert_true(atof(value_of(r, "price", h)) <= 5);
        assert_non_null(strstr(value_of(r, "zones", h), "north"));
        assert_true(++brands[atoi(value_of(r, "brand", h))] <= 2);
    }
    pados_result_free(r);
}

static void test_what_a_profile_forbids_never_appears(void **state)
{
    (void)state;
    pados_error error;
    pados_search search = {.table = "products",
                           .count = USERS,
                           .k = 100,
                           .vectors = users,
                           .dim = DIM,
                           .profile = "festive",
                           .attributes = all,
                           .nattributes = 1};
    pados_result *r;
    must(pados_search_run(client, &search, &r, &error), error);
    for (size_t h = 0; h < r->hits; h++)
        assert_string_not_equal(value_of(r, "department", h), "TOBACCO");
    pados_result_free(r);
}

static void test_an_override_changes_one_weight(void **state)
{
    (void)state;
    pados_error error;
    pados_override toys = {"department", "TOYS", 5.0f};
    pados_search search = {.table = "products",
                           .count = 1,
                           .k = K,
                           .vectors = rows,
                           .dim = DIM,
                           .profile = "festive",
                           .overrides = &toys,
                           .noverrides = 1,
                           .attributes = all,
                           .nattributes = 1};
    pados_result *r;
    must(pados_search_run(client, &search, &r, &error), error);
    assert_int_equal(r->hits, K);
    for (size_t h = 0; h < r->hits; h++)
        assert_string_equal(value_of(r, "department", h), "TOYS");
    pados_result_free(r);
}

static void test_an_undeclared_context_key_is_named(void **state)
{
    (void)state;
    pados_error error;
    pados_pair pair = {"moon", "full"};
    pados_context context = {&pair, 1};
    pados_search search = {.table = "products",
                           .count = 1,
                           .k = K,
                           .vectors = rows,
                           .dim = DIM,
                           .profile = "festive",
                           .contexts = &context,
                           .ncontexts = 1};
    pados_result *r;
    must(pados_search_run(client, &search, &r, &error), error);
    int named = 0;
    for (size_t w = 0; w < r->nwarnings; w++)
        named |= strstr(r->warnings[w], "moon") != NULL;
    assert_true(named);
    pados_result_free(r);
}

static void test_an_unknown_user_falls_down_the_rungs(void **state)
{
    (void)state;
    pados_error error;
    uint64_t known[] = {3, 999, 999, 999};
    pados_pair young = {"age", "young"}, none = {"zone", "north"};
    pados_context contexts[] = {{NULL, 0}, {&young, 1}, {&none, 1}, {NULL, 0}};
    pados_search search = {.table = "products",
                           .count = 4,
                           .k = K,
                           .from_table = "users",
                           .from_ids = known,
                           .contexts = contexts,
                           .ncontexts = 4,
                           .profile = "festive"};
    pados_result *r;
    must(pados_search_run(client, &search, &r, &error), error);
    assert_string_equal(pados_rung_name(r->rung[0]), "row");
    assert_string_equal(pados_rung_name(r->rung[1]), "segment");
    assert_string_equal(r->rung_segment[1], "age=young");
    assert_string_equal(pados_rung_name(r->rung[2]), "attributes");
    assert_string_equal(pados_rung_name(r->rung[3]), "attributes");
    for (int q = 0; q < 4; q++)
        assert_int_equal(r->counts[q], K);
    pados_result_free(r);
    uint64_t lost = 999;
    search = (pados_search){.table = "products",
                            .count = 1,
                            .k = K,
                            .from_table = "users",
                            .from_ids = &lost,
                            .vectors = rows,
                            .dim = DIM};
    must(pados_search_run(client, &search, &r, &error), error);
    assert_string_equal(pados_rung_name(r->rung[0]), "given");
    assert_int_equal(r->ids[0], 0);
    pados_result_free(r);
}

static void test_without_a_vector_attributes_decide(void **state)
{
    (void)state;
    pados_error error;
    pados_pair pair = {"festival", "diwali"};
    pados_context context = {&pair, 1};
    pados_search search = {.table = "products",
                           .count = 1,
                           .k = K,
                           .profile = "festive",
                           .contexts = &context,
                           .ncontexts = 1,
                           .attributes = all,
                           .nattributes = 1};
    pados_result *r;
    must(pados_search_run(client, &search, &r, &error), error);
    assert_string_equal(pados_path_name(r->path[0]), "attributes");
    assert_int_equal(r->hits, K);
    /* Brand 7 adds a tenth to a sweet; ties go to the smaller id; at most three of a brand. */
    assert_string_equal(value_of(r, "brand", 0), "7");
    assert_true(fabsf(r->scores[0] - 2.1f) < 1e-5f);
    for (size_t h = 0; h < r->hits; h++)
        assert_string_equal(value_of(r, "department", h), "SWEETS");
    pados_result_free(r);
}

/* The warnings of a profile that is put, joined. */
static void put_warnings(const char *text, char *out, size_t room)
{
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__ProfilePut put = PADOS__V1__PROFILE_PUT__INIT;
    Pados__V1__Reply *reply;
    pados_error error;
    put.text = (char *)text;
    put.file = "x.conf";
    request.body_case = PADOS__V1__REQUEST__BODY_PROFILE_PUT;
    request.profile_put = &put;
    must(pados_admin(client, &request, &reply, &error), error);
    *out = 0;
    for (size_t i = 0; i < reply->n_warnings; i++) {
        strncat(out, reply->warnings[i], room - strlen(out) - 1);
        strncat(out, "\n", room - strlen(out) - 1);
    }
    pados_reply_free(reply);
}

static void test_what_a_profile_says_in_vain_is_said_when_it_is_put(void **state)
{
    (void)state;
    char said[4096];
    put_warnings("profile = { name = \"typo\"; table = \"products\"; context = ( \"festival\" );"
                 " terms = ( { attribute = \"department\"; when = { festival = \"diwali\"; };"
                 " weights = ( (\"SWETS\", 1.0) ); } ); };",
                 said, sizeof said);
    assert_non_null(strstr(said, "SWETS"));
    put_warnings("profile = { name = \"early\"; table = \"later\"; };", said, sizeof said);
    assert_non_null(strstr(said, "later"));
    put_warnings("profile = { name = \"plain\"; table = \"products\"; };", said, sizeof said);
    assert_string_equal(said, "");
}

static void test_bad_profiles_are_refused_by_name(void **state)
{
    (void)state;
    pados_error error;
    must_fail(put_profile("@include \"/etc/passwd\"\n", &error), error, INVALID_ARGUMENT, "@include");
    must_fail(
        put_profile("profile = { name = \"x\"; table = \"products\"; terms = ( { attribute = \"colour\";"
                    " weights = ( (\"RED\", 1.0) ); } ); };",
                    &error),
        error, INVALID_ARGUMENT, "colour");
    must_fail(put_profile("profile = { name = \"x\"; table = \"products\"; wieghts = 3; };", &error), error,
              INVALID_ARGUMENT, "wieghts");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_festival_brings_its_department),
        cmocka_unit_test(test_fused_search_agrees_with_exact),
        cmocka_unit_test(test_explained_terms_sum_to_the_score),
        cmocka_unit_test(test_filters_and_caps_are_hard),
        cmocka_unit_test(test_what_a_profile_forbids_never_appears),
        cmocka_unit_test(test_an_override_changes_one_weight),
        cmocka_unit_test(test_an_undeclared_context_key_is_named),
        cmocka_unit_test(test_an_unknown_user_falls_down_the_rungs),
        cmocka_unit_test(test_without_a_vector_attributes_decide),
        cmocka_unit_test(test_what_a_profile_says_in_vain_is_said_when_it_is_put),
        cmocka_unit_test(test_bad_profiles_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
