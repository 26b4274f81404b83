/* Profiles as text: what is read, what is refused and how it is named, and whether one fits a table. */
#include "profile_fixture.h"

#include <stdio.h>

static void assert_refused(const char *body, const char *message)
{
    pd_profile *profile;
    pd_error err;
    char *text = profile_text(body);
    if (pd_profile_parse("p.conf", text, strlen(text), &profile, &err) == PD_OK) fail_msg("passed: %s", text);
    assert_int_equal(err.status, PD_INVALID_ARGUMENT);
    assert_string_equal(err.message, message);
    assert_null(profile);
    free(text);
}

static void assert_unfit(const char *body, const char *message)
{
    shop s;
    pd_error err;
    shop_open(&s);
    pd_profile *profile = profile_of(body);
    if (pd_profile_check(profile, s.schema, &err) == PD_OK) fail_msg("fits: %s", body);
    assert_int_equal(err.status, PD_INVALID_ARGUMENT);
    assert_string_equal(err.message, message);
    pd_profile_release(profile);
    shop_close(&s);
}

static char *slurp(const char *path, size_t *length)
{
    FILE *file = fopen(path, "rb");
    if (!file) fail_msg("cannot open %s", path);
    char *text = malloc(1 << 16);
    assert_non_null(text);
    *length = fread(text, 1, 1 << 16, file);
    fclose(file);
    return text;
}

static void test_the_example_profile_is_read_and_fits_its_table(void **state)
{
    (void)state;
    static const char schema_text[] =
        "table = { metric = \"cosine\"; dim = 64; attributes = ( { name = \"department\"; type = "
        "\"category\"; },"
        " { name = \"language\"; type = \"category\"; },"
        " { name = \"price\"; type = \"number\"; knots = ( 1.0, 2.0, 3.0, 5.0, 8.0, 13.0 ); },"
        " { name = \"added\"; type = \"number\"; age = true; }, { name = \"zones\"; type = \"set\"; },"
        " { name = \"brand\"; type = \"key\"; } ); };";
    size_t length;
    char *text = slurp(PADOS_CONFIGS "/profiles/festive.conf", &length);
    pd_profile *profile;
    pd_schema *schema;
    pd_error err;
    if (pd_profile_parse("festive.conf", text, length, &profile, &err) != PD_OK) fail_msg("%s", err.message);
    assert_int_equal(pd_schema_parse("s", schema_text, strlen(schema_text), &schema, &err), PD_OK);
    assert_int_equal(pd_profile_check(profile, schema, &err), PD_OK);
    assert_string_equal(pd_profile_name(profile), "festive");
    assert_string_equal(pd_profile_table(profile), "products");
    assert_int_equal(strlen(pd_profile_text(profile)), length);
    assert_memory_equal(pd_profile_text(profile), text, length);
    pd_profile_set_version(profile, 12);
    assert_int_equal(pd_profile_version(profile), 12);
    pd_profile_release(profile);
    pd_schema_free(schema);
    free(text);
}

static void test_a_held_profile_outlives_its_first_owner(void **state)
{
    (void)state;
    pd_profile *profile = profile_of("");
    assert_ptr_equal(pd_profile_hold(profile), profile);
    pd_profile_release(profile);
    assert_string_equal(pd_profile_name(profile), "p");
    pd_profile_release(profile);
    pd_profile_release(NULL);
}

static void test_what_is_wrong_names_file_line_and_key(void **state)
{
    (void)state;
    static const struct {
        const char *body, *message;
    } cases[] = {
        {"\nterm = ( );", "p.conf:2: unknown key \"profile.term\" (did you mean \"terms\"?)"},
        {"similarity = -1.0;", "p.conf:1: key \"profile.similarity\": must be from 0 to 1e+09, not -1"},
        {"similarity = \"1\";", "p.conf:1: key \"profile.similarity\": must be a number"},
        {"context = ( \"a b\" );",
         "p.conf:1: key \"profile.context[0]\": \"a b\" cannot name a context key: letters, "
         "digits, _ and -, a letter or _ first"},
        {"context = ( \"a\", \"a\" );", "p.conf:1: key \"profile.context[1]\": \"a\" stands twice"},
        {"valid = { from = \"2026-10-20\";\n until = \"2026-10-19\"; };",
         "p.conf:1: key \"profile.valid\": ends before it starts"},
        {"valid = { from = \"20 Oct\"; };",
         "p.conf:1: key \"profile.valid.from\": \"20 Oct\" is not a date such as 2026-10-20"},
        {"valid = { until = \"1790000000\"; };",
         "p.conf:1: key \"profile.valid.until\": \"1790000000\" is not a date such as 2026-10-20"},
        {"terms = ( 1 );", "p.conf:1: key \"profile.terms[0]\": must be a group { }"},
        {"terms = ( { } );", "p.conf:1: key \"profile.terms[0].attribute\": is missing"},
        {"terms = ( { attribute = \"x\"; } );",
         "p.conf:1: key \"profile.terms[0]\": needs exactly one of weights, matches, curve"},
        {"terms = ( { attribute = \"x\"; weights = ( ); curve = ( (0, 0) ); } );",
         "p.conf:1: key \"profile.terms[0]\": needs exactly one of weights, matches, curve"},
        {"terms = (\n { attribute = \"x\";\n weights = ( \"a\", 0.1 ); } );",
         "p.conf:3: key \"profile.terms[0].weights[0]\": must be a pair ( VALUE, WEIGHT )"},
        {"terms = ( { attribute = \"x\"; weights = ( (\"a\", \"b\") ); } );",
         "p.conf:1: key \"profile.terms[0].weights[0][1]\": must be a number"},
        {"terms = ( { attribute = \"x\"; weights = ( (\"a\", 1e999) ); } );",
         "p.conf:1: key \"profile.terms[0].weights[0][1]\": must be a finite number"},
        {"terms = ( { attribute = \"x\"; weights = ( (\"a\", -1e10) ); } );",
         "p.conf:1: key \"profile.terms[0].weights[0][1]\": a weight must be from -1e+09 to 1e+09, not "
         "-1e+10"},
        {"terms = ( { attribute = \"x\"; weights = ( (\"\", 1) ); } );",
         "p.conf:1: key \"profile.terms[0].weights[0][0]\": unknown values have no weight"},
        {"terms = ( { attribute = \"x\"; weights = ( (5000000000, 1) ); } );",
         "p.conf:1: the integer 5000000000 is over 31 bits: write 5000000000L"},
        {"terms = ( { attribute = \"x\"; weights = ( (-5, 1) ); } );",
         "p.conf:1: key \"profile.terms[0].weights[0][0]\": must not be negative"},
        {"context = ( \"k\" ); terms = ( { attribute = \"x\"; matches = \"k\"; } );",
         "p.conf:1: key \"profile.terms[0].matches\": needs a weight beside it"},
        {"terms = ( { attribute = \"x\"; weights = ( ); weight = 1.0; } );",
         "p.conf:1: unknown key \"profile.terms[0].weight\""},
        {"terms = ( { attribute = \"x\"; matches = \"k\"; weight = 1.0; } );",
         "p.conf:1: key \"profile.terms[0].matches\": \"k\" is not declared in context"},
        {"terms = ( { attribute = \"x\"; when = { k = \"v\"; }; weights = ( ); } );",
         "p.conf:1: key \"profile.terms[0].when.k\": \"k\" is not declared in context"},
        {"context = ( \"k\" ); terms = ( { attribute = \"x\"; when = { k = \"a|b\"; }; weights = ( ); } );",
         "p.conf:1: key \"profile.terms[0].when.k\": \"a|b\" cannot be a context's value: | separates "
         "several, and an "
         "empty one is not given"},
        {"context = ( \"k\" ); terms = ( { attribute = \"x\"; when = { k = 5; }; weights = ( ); } );",
         "p.conf:1: key \"profile.terms[0].when.k\": must be a string"},
        {"context = ( \"k\" ); terms = ( { attribute = \"x\"; when = { k = ( ); }; weights = ( ); } );",
         "p.conf:1: key \"profile.terms[0].when.k\": needs a value"},
        {"terms = ( { attribute = \"x\"; curve = ( (1, 0),\n (1, 2) ); } );",
         "p.conf:2: key \"profile.terms[0].curve[1]\": a curve's values must rise: 1 after 1"},
        {"terms = ( { attribute = \"x\"; curve = ( ); } );",
         "p.conf:1: key \"profile.terms[0].curve\": a curve has from 1 to 1024 points, not 0"},
        {"filters = ( { attribute = \"x\"; } );", "p.conf:1: key \"profile.filters[0]\": needs exactly one "
                                                  "of is, is_not, at_least, at_most, any_of, all_of, "
                                                  "none_of"},
        {"filters = ( { attribute = \"x\"; is = \"a\"; is_not = \"b\"; } );",
         "p.conf:1: key \"profile.filters[0]\": needs exactly one of is, is_not, at_least, at_most, any_of, "
         "all_of, "
         "none_of"},
        {"filters = ( { attribute = \"x\"; any_of = \"$zone\"; } );",
         "p.conf:1: key \"profile.filters[0].any_of\": \"zone\" is not declared in context"},
        {"filters = ( { attribute = \"x\"; is = ( ); } );",
         "p.conf:1: key \"profile.filters[0].is\": needs from 1 to 65536 values"},
        {"filters = ( { attribute = \"x\"; is = \"\"; } );",
         "p.conf:1: key \"profile.filters[0].is\": needs a value"},
        {"filters = ( { attribute = \"x\"; is = 0; } );",
         "p.conf:1: key \"profile.filters[0].is\": the key 0 stands for unknown"},
        {"filters = ( { attribute = \"x\"; at_most = ( 1, 2 ); } );",
         "p.conf:1: key \"profile.filters[0].at_most\": must be a number"},
        {"diversity = ( { attribute = \"x\"; } );",
         "p.conf:1: key \"profile.diversity[0]\": needs an at_most"},
        {"diversity = ( { attribute = \"x\"; at_most = 0; } );",
         "p.conf:1: key \"profile.diversity[0].at_most\": must be from 1 to 1000, not 0"},
        {"diversity = ( { attribute = \"x\"; at_most = 1; }, { attribute = \"x\"; at_most = 2; } );",
         "p.conf:1: key \"profile.diversity[1]\": a second cap on \"x\""},
        {"@include \"/etc/passwd\"", "p.conf:1: @include is refused"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_refused(cases[i].body, cases[i].message);
}

static void test_a_profile_needs_a_name_and_a_table(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "p.conf:1: there is no profile = { ... }"},
        {"profile = { table = \"t\"; };", "p.conf:1: key \"profile.name\": is missing"},
        {"profile = { name = \"n\"; };", "p.conf:1: key \"profile.table\": is missing"},
        {"profile = { name = \"a/b\"; table = \"t\"; };",
         "p.conf:1: key \"profile.name\": \"a/b\" cannot name a profile: letters, digits, _ and -, a letter "
         "or _ first"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pd_profile *profile;
        pd_error err;
        assert_int_equal(pd_profile_parse("p.conf", cases[i].text, strlen(cases[i].text), &profile, &err),
                         PD_INVALID_ARGUMENT);
        assert_string_equal(err.message, cases[i].message);
    }
}

static void test_what_does_not_fit_the_table_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *body, *message;
    } cases[] = {
        {"terms = (\n { attribute = \"colour\"; weights = ( ); } );",
         "p.conf:2: key \"profile.terms[0]\": the table has no attribute \"colour\""},
        {"terms = ( { attribute = \"department\"; curve = ( (0, 0) ); } );",
         "p.conf:1: key \"profile.terms[0]\": attribute \"department\" is no number: it cannot have a curve"},
        {"terms = ( { attribute = \"price\"; weights = ( ); } );",
         "p.conf:1: key \"profile.terms[0]\": attribute \"price\" is a number: it is weighed by a curve"},
        {"context = ( \"k\" ); terms = ( { attribute = \"price\"; matches = \"k\"; weight = 1.0; } );",
         "p.conf:1: key \"profile.terms[0]\": attribute \"price\" is a number: it is weighed by a curve"},
        {"terms = ( { attribute = \"department\"; weights = ( (\"SWEETS\", 1),\n (\"SWEATS\", 1) ); } );",
         "p.conf:2: key \"profile.terms[0].weights[1]\": attribute \"department\" has no value \"SWEATS\""},
        {"terms = ( { attribute = \"department\"; weights = ( (5, 1) ); } );",
         "p.conf:1: key \"profile.terms[0].weights[0]\": attribute \"department\": its values are names in "
         "quotes, not "
         "numbers"},
        {"terms = ( { attribute = \"brand\"; weights = ( (7, 1), (0, 1) ); } );",
         "p.conf:1: key \"profile.terms[0].weights[1]\": attribute \"brand\" is a key: \"0\" is not an "
         "integer over 0"},
        {"terms = ( { attribute = \"brand\"; weights = ( (\"acme\", 1) ); } );",
         "p.conf:1: key \"profile.terms[0].weights[0]\": attribute \"brand\" is a key: \"acme\" is not an "
         "integer over "
         "0"},
        {"filters = ( { attribute = \"colour\"; is = \"red\"; } );",
         "p.conf:1: key \"profile.filters[0]\": the table has no attribute \"colour\""},
        {"filters = ( { attribute = \"price\"; is = 5; } );",
         "p.conf:1: key \"profile.filters[0]\": attribute \"price\" is a number: its filters are at_least "
         "and at_most, "
         "not is"},
        {"filters = ( { attribute = \"zones\"; is = \"n\"; } );",
         "p.conf:1: key \"profile.filters[0]\": attribute \"zones\" is a set: its filters are any_of, all_of "
         "and "
         "none_of, not is"},
        {"filters = ( { attribute = \"brand\"; at_most = 5; } );",
         "p.conf:1: key \"profile.filters[0]\": attribute \"brand\" is a key: its filters are is and is_not, "
         "not "
         "at_most"},
        {"filters = ( { attribute = \"zones\"; any_of = \"nw\"; } );",
         "p.conf:1: key \"profile.filters[0]\": attribute \"zones\" has no value \"nw\""},
        {"filters = ( { attribute = \"department\"; is = 4; } );",
         "p.conf:1: key \"profile.filters[0]\": attribute \"department\": its values are names in quotes, "
         "not numbers"},
        {"filters = ( { attribute = \"brand\"; is = \"acme\"; } );",
         "p.conf:1: key \"profile.filters[0]\": attribute \"brand\": \"acme\" is not an integer over 0"},
        {"filters = ( { attribute = \"price\"; at_most = \"cheap\"; } );",
         "p.conf:1: key \"profile.filters[0]\": attribute \"price\": \"cheap\" is not a number"},
        {"diversity = ( { attribute = \"zones\"; at_most = 2; } );",
         "p.conf:1: key \"profile.diversity[0]\": attribute \"zones\" is neither a category nor a key: it "
         "cannot be "
         "capped"},
        {"diversity = ( { attribute = \"colour\"; at_most = 2; } );",
         "p.conf:1: key \"profile.diversity[0]\": the table has no attribute \"colour\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_unfit(cases[i].body, cases[i].message);
}

static void test_a_value_that_an_open_dictionary_may_yet_learn_fits(void **state)
{
    (void)state;
    shop s;
    pd_error err;
    shop_open(&s);
    pd_profile *profile = profile_of("terms = ( { attribute = \"language\"; weights = ( (\"bn\", 0.1) ); } );"
                                     "filters = ( { attribute = \"tags\"; any_of = ( \"t77\" ); } );");
    assert_int_equal(pd_profile_check(profile, s.schema, &err), PD_OK);
    pd_profile_release(profile);
    shop_close(&s);
}

static void test_a_profile_of_too_many_weights_is_refused(void **state)
{
    (void)state;
    size_t room = 65537 * 8 + 256;
    char *body = malloc(room), *at = body;
    assert_non_null(body);
    at = stpcpy(at, "terms = ( { attribute = \"brand\"; weights = ( ");
    for (int i = 0; i < 65537; i++)
        at = stpcpy(at, i ? ",(7,.1)" : "(7,.1)");
    strcpy(at, " ); } );");
    assert_refused(body,
                   "p.conf:1: key \"profile.terms[0].weights\": more than 65536 weights in one profile");
    free(body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_example_profile_is_read_and_fits_its_table),
        cmocka_unit_test(test_a_held_profile_outlives_its_first_owner),
        cmocka_unit_test(test_what_is_wrong_names_file_line_and_key),
        cmocka_unit_test(test_a_profile_needs_a_name_and_a_table),
        cmocka_unit_test(test_what_does_not_fit_the_table_is_named),
        cmocka_unit_test(test_a_value_that_an_open_dictionary_may_yet_learn_fits),
        cmocka_unit_test(test_a_profile_of_too_many_weights_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
