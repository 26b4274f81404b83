/* The registry of profiles. */
#include "catalog_fixture.h"

#include <fcntl.h>
#include <unistd.h>

enum { N = 200, DIM = 8 };
#define SCHEMA                                                                                               \
    "table = { metric = \"l2\"; attributes = ( { name = \"colour\"; type = \"category\"; values = ( "        \
    "\"red\", "                                                                                              \
    "\"blue\" ); } ); };"

static void push_table(fixture *f, const char *schema)
{
    float *rows = make_rows(1, N, DIM);
    push_plan p = {.table = "t", .schema = schema, .rows = rows, .n = N, .dim = DIM};
    pd_error err;
    must(push(f, &p, 1, NULL, &err), err);
    free(rows);
}

static const char *text_of(const char *name, const char *value, double weight)
{
    static char text[400];
    snprintf(text, sizeof text,
             "profile = { name = \"%s\"; table = \"t\"; valid = { from = \"2026-10-20\"; };\n"
             "  terms = ( { attribute = \"colour\"; weights = ( (\"%s\", %.2f) ); } ); };",
             name, value, weight);
    return text;
}

static pd_status put(fixture *f, const char *text, uint64_t *version, pd_error *err)
{
    pd_profile *profile;
    pd_status status = pd_profiles_put(f->catalog, "p.conf", text, &profile, err);
    if (!status && version) *version = pd_profile_version(profile);
    if (!status) pd_profile_release(profile);
    return status;
}

static void assert_newest(fixture *f, const char *name, uint64_t version, const char *text)
{
    pd_profile *profile;
    pd_error err;
    must(pd_catalog_profile(f->catalog, name, &profile, &err), err);
    assert_int_equal(pd_profile_version(profile), version);
    if (text) assert_string_equal(pd_profile_text(profile), text);
    pd_profile_release(profile);
}

static void test_versions_of_a_profile_count_up_and_outlive_a_restart(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    uint64_t version;
    fixture_make(&f, 16);
    push_table(&f, SCHEMA);
    must(put(&f, text_of("warm", "red", 0.3), &version, &err), err);
    assert_int_equal(version, 1);
    must(put(&f, text_of("warm", "red", 0.4), &version, &err), err);
    assert_int_equal(version, 2);
    must(put(&f, text_of("cold", "blue", 0.1), &version, &err), err);
    assert_int_equal(version, 1);
    assert_newest(&f, "warm", 2, text_of("warm", "red", 0.4));
    assert_true(fixture_exists(&f, "profiles/warm/v00000001.conf"));
    fixture_close(&f);
    fixture_open(&f);
    assert_newest(&f, "warm", 2, text_of("warm", "red", 0.4));
    assert_newest(&f, "cold", 1, NULL);
    must(put(&f, text_of("warm", "red", 0.5), &version, &err), err);
    assert_int_equal(version, 3);
    pd_profile *profile;
    must_fail(pd_catalog_profile(f.catalog, "hot", &profile, &err), err, PD_NOT_FOUND, "hot");
    fixture_remove(&f);
}

static void test_the_same_text_again_is_the_same_version(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    uint64_t version;
    fixture_make(&f, 16);
    must(put(&f, text_of("warm", "red", 0.3), NULL, &err), err); /* before there is a table */
    must(put(&f, text_of("warm", "red", 0.3), &version, &err), err);
    assert_int_equal(version, 1);
    assert_false(fixture_exists(&f, "profiles/warm/v00000002.conf"));
    fixture_remove(&f);
}

static void test_an_include_in_a_profile_is_refused(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    pd_profile *profile;
    fixture_make(&f, 16);
    must_fail(put(&f, "@include \"/etc/hostname\"\n", NULL, &err), err, PD_INVALID_ARGUMENT, "@include");
    must_fail(put(&f, "profile = { name = \"warm\"; table = \"t\";\n  @include \"x\"\n};", NULL, &err), err,
              PD_INVALID_ARGUMENT, "@include");
    must_fail(pd_catalog_profile(f.catalog, "warm", &profile, &err), err, PD_NOT_FOUND, "warm");
    assert_false(fixture_exists(&f, "profiles/warm"));
    fixture_remove(&f);
}

static void test_a_profile_that_does_not_fit_its_table_is_refused(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    fixture_make(&f, 16);
    push_table(&f, SCHEMA);
    must(put(&f, text_of("warm", "red", 0.3), NULL, &err), err);
    must_fail(put(&f, text_of("warm", "purple", 0.3), NULL, &err), err, PD_INVALID_ARGUMENT, "purple");
    assert_newest(&f, "warm", 1, NULL);
    must_fail(put(&f, "profile = { name = \"../x\"; table = \"t\"; };", NULL, &err), err, PD_INVALID_ARGUMENT,
              "../x");
    must_fail(put(&f, "profile = { name = ", NULL, &err), err, PD_INVALID_ARGUMENT, "p.conf");
    char *long_text = malloc(PD_PROFILE_TEXT + 2);
    memset(long_text, ' ', PD_PROFILE_TEXT + 1);
    long_text[PD_PROFILE_TEXT + 1] = 0;
    must_fail(put(&f, long_text, NULL, &err), err, PD_INVALID_ARGUMENT, "bytes long");
    free(long_text);
    fixture_remove(&f);
}

static void test_a_push_names_the_profiles_that_no_longer_fit(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    fixture_make(&f, 16);
    push_table(&f, SCHEMA);
    must(put(&f, text_of("warm", "red", 0.3), NULL, &err), err);
    float *rows = make_rows(2, N, DIM);
    push_plan p = {.table = "t", .schema = "table = { metric = \"l2\"; };", .rows = rows, .n = N, .dim = DIM};
    must(push(&f, &p, 1, NULL, &err), err);
    assert_non_null(strstr(err.message, "profile \"warm\" does not fit"));
    assert_non_null(strstr(err.message, "colour"));
    free(rows);
    fixture_remove(&f);
}

static void test_a_profile_that_cannot_be_read_yields_to_the_one_before(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    uint64_t version;
    char path[512];
    fixture_make(&f, 16);
    must(put(&f, text_of("warm", "red", 0.3), NULL, &err), err);
    must(put(&f, text_of("warm", "red", 0.4), NULL, &err), err);
    fixture_close(&f);
    fixture_path(&f, path, "profiles/warm/v00000002.conf");
    int fd = open(path, O_WRONLY | O_TRUNC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "profile = {", 11), 11);
    close(fd);
    fixture_open(&f);
    assert_newest(&f, "warm", 1, NULL);
    must(put(&f, text_of("warm", "red", 0.5), &version, &err), err);
    assert_int_equal(version, 3);
    fixture_remove(&f);
}

static void test_the_wire_lists_and_shows_profiles(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    fixture_make(&f, 16);
    must(put(&f, text_of("warm", "red", 0.3), NULL, &err), err);
    must(put(&f, text_of("cold", "red", 0.3), NULL, &err), err);
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__ProfileList list = PADOS__V1__PROFILE_LIST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_PROFILE_LIST;
    request.profile_list = &list;
    Pados__V1__Reply *reply;
    must(ask(&f, &request, &reply, &err), err);
    assert_int_equal(reply->profile_list->n_profiles, 2);
    assert_string_equal(reply->profile_list->profiles[0]->name, "cold");
    assert_string_equal(reply->profile_list->profiles[1]->name, "warm");
    assert_string_equal(reply->profile_list->profiles[1]->text, "");
    reply_free(reply);
    Pados__V1__ProfileGet get = PADOS__V1__PROFILE_GET__INIT;
    get.name = "warm";
    request.body_case = PADOS__V1__REQUEST__BODY_PROFILE_GET;
    request.profile_get = &get;
    must(ask(&f, &request, &reply, &err), err);
    assert_string_equal(reply->profile->text, text_of("warm", "red", 0.3));
    assert_string_equal(reply->profile->table, "t");
    assert_string_equal(reply->profile->valid_from, "2026-10-20");
    assert_string_equal(reply->profile->valid_until, "");
    reply_free(reply);
    fixture_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_versions_of_a_profile_count_up_and_outlive_a_restart),
        cmocka_unit_test(test_the_same_text_again_is_the_same_version),
        cmocka_unit_test(test_an_include_in_a_profile_is_refused),
        cmocka_unit_test(test_a_profile_that_does_not_fit_its_table_is_refused),
        cmocka_unit_test(test_a_push_names_the_profiles_that_no_longer_fit),
        cmocka_unit_test(test_a_profile_that_cannot_be_read_yields_to_the_one_before),
        cmocka_unit_test(test_the_wire_lists_and_shows_profiles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
