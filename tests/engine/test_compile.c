/* What a profile, a context and overrides compile to: every weight of the table is checked by its value. */
#include "profile_fixture.h"

#include <math.h>
#include <stdio.h>

static void test_nothing_compiles_to_nothing(void **state)
{
    shop *s = *state;
    pd_compiled c;
    compile(s, NULL, NULL, &c);
    assert_weight(c.similarity, 1);
    assert_null(c.weights);
    assert_int_equal(c.nkey_weights, 0);
    assert_false(c.has_filter);
    assert_int_equal(c.ncaps, 0);
    assert_int_equal(c.nwarnings, 0);
    pd_compiled_free(&c);
    compile(s, "similarity = 0.5;", NULL, &c);
    assert_weight(c.similarity, 0.5);
    assert_null(c.weights);
    pd_compiled_free(&c);
}

static void test_weights_by_value_lie_at_their_values(void **state)
{
    shop *s = *state;
    pd_compiled c;
    compile(
        s, "terms = ( { attribute = \"department\"; weights = ( (\"SWEETS\", 0.3), (\"TOBACCO\", -2) ); } );",
        NULL, &c);
    assert_weight(weight_at(s, &c, 0, 0), 0); /* unknown */
    assert_weight(weight_at(s, &c, 0, 1), 0);
    assert_weight(weight_at(s, &c, 0, 2), 0.3f);
    assert_weight(weight_at(s, &c, 0, 3), -2);
    float sum = 0;
    for (uint32_t i = 0; i < s->layout.weights; i++)
        sum += fabsf(c.weights[i]);
    assert_weight(sum, 0.3f + 2.0f); /* and nowhere else */
    pd_compiled_free(&c);
}

static void test_terms_on_one_attribute_add_up(void **state)
{
    shop *s = *state;
    pd_compiled c;
    compile(s,
            "context = ( \"lang\" ); terms = ( { attribute = \"language\"; weights = ( (\"hi\", 0.1), "
            "(\"en\", 0.2) ); },"
            " { attribute = \"language\"; matches = \"lang\"; weight = 0.7; } );",
            CONTEXT1("lang", "en"), &c);
    assert_weight(weight_at(s, &c, 1, 1), 0.1f);
    assert_weight(weight_at(s, &c, 1, 2), 0.2f + 0.7f);
    assert_weight(weight_at(s, &c, 1, 3), 0);
    pd_compiled_free(&c);
}

static void test_a_term_is_in_force_when_all_its_keys_hold(void **state)
{
    shop *s = *state;
    static const char body[] =
        "context = ( \"festival\", \"city\" ); terms = ( { attribute = \"department\"; "
        "when = { festival = ( \"diwali\", \"holi\" ); city = \"pune\"; }; "
        "weights = ( (\"SWEETS\", 1.0) ); } );";
    static const struct {
        const char *festival, *city;
        float weight;
    } cases[] = {
        {"diwali", "pune", 1}, {"holi", "pune", 1},      {"eid", "pune", 0},
        {"diwali", "agra", 0}, {"eid|holi", "pune", 1},  {"eid|holi", "agra|pune", 1},
        {"diwali", "", 0},     {"", "pune", 0},          {"diwali2", "pune", 0},
        {"diwal", "pune", 0},  {"|diwali||", "pune", 1}, {"DIWALI", "pune", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pd_compiled c;
        compile(s, body, CONTEXT2("festival", cases[i].festival, "city", cases[i].city), &c);
        assert_weight(weight_at(s, &c, 0, 2), cases[i].weight);
        assert_int_equal(c.nwarnings, 0);
        pd_compiled_free(&c);
    }
    pd_compiled c;
    compile(s, body, CONTEXT1("festival", "diwali"), &c); /* the city is not given */
    assert_null(c.weights);
    pd_compiled_free(&c);
}

static void test_matches_weighs_what_the_context_says(void **state)
{
    shop *s = *state;
    static const char body[] = "context = ( \"lang\", \"zone\", \"shop\" ); terms = ( "
                               "{ attribute = \"language\"; matches = \"lang\"; weight = 0.5; },"
                               "{ attribute = \"zones\"; matches = \"zone\"; weight = 0.25; },"
                               "{ attribute = \"seller\"; matches = \"shop\"; weight = 2; } );";
    pd_compiled c;
    compile(s, body, CONTEXT2("lang", "hi|ta|hi|xx", "zone", "w|n"), &c);
    assert_weight(weight_at(s, &c, 1, 1), 0.5); /* once, though it stands twice */
    assert_weight(weight_at(s, &c, 1, 2), 0);
    assert_weight(weight_at(s, &c, 1, 3), 0.5);
    assert_weight(weight_at(s, &c, 4, 1), 0.25);    /* n */
    assert_weight(weight_at(s, &c, 4, 2), 0);       /* s */
    assert_weight(weight_at(s, &c, 4, 8 + 1), 0.5); /* n and w */
    assert_int_equal(c.nwarnings, 0);               /* "xx" is no matter */
    pd_compiled_free(&c);
    compile(s, body, CONTEXT1("shop", "77|5|77|no"), &c);
    assert_int_equal(c.nkey_weights, 2);
    assert_int_equal(c.key_weights[0].value, 5);
    assert_weight(key_weight(&c, 1, 77), 2);
    pd_compiled_free(&c);
    compile(s, body, CONTEXT1("lang", "klingon"), &c);
    assert_null(c.weights);
    assert_int_equal(c.nwarnings, 0);
    pd_compiled_free(&c);
}

static void test_a_curve_is_straight_between_points_and_constant_outside(void **state)
{
    shop *s = *state;
    pd_compiled c;
    /* Buckets stand for 1, 3, 7 and 40. */
    compile(s, "terms = ( { attribute = \"price\"; curve = ( (2.0, 0.2), (4.0, 0.1), (8.0, -0.3) ); } );",
            NULL, &c);
    assert_weight(weight_at(s, &c, 2, 0), 0);
    assert_weight(weight_at(s, &c, 2, 1), 0.2f);
    assert_true(fabsf(weight_at(s, &c, 2, 2) - 0.15f) < 1e-7f);
    assert_true(fabsf(weight_at(s, &c, 2, 3) - -0.2f) < 1e-7f);
    assert_weight(weight_at(s, &c, 2, 4), -0.3f);
    pd_compiled_free(&c);
    compile(s, "terms = ( { attribute = \"price\"; curve = ( (7.0, 0.5) ); } );", NULL, &c);
    for (uint32_t b = 1; b <= 4; b++)
        assert_weight(weight_at(s, &c, 2, b), 0.5);
    pd_compiled_free(&c);
}

static void test_a_time_is_weighed_by_its_age_and_the_future_is_new(void **state)
{
    shop *s = *state;
    pd_compiled c;
    /* Buckets stand for 150, 15 and -10 days of age. */
    compile(s, "terms = ( { attribute = \"added\"; curve = ( (-5.0, 9.0), (0.0, 0.1), (30.0, 0.0) ); } );",
            NULL, &c);
    assert_weight(weight_at(s, &c, 3, 1), 0);
    assert_true(fabsf(weight_at(s, &c, 3, 2) - 0.05f) < 1e-7f);
    assert_weight(weight_at(s, &c, 3, 3), 0.1f);
    pd_compiled_free(&c);
}

static void test_a_sets_planes_hold_sums_of_members_ascending(void **state)
{
    shop *s = *state;
    static const float weights[] = {0.1f, -0.25f, 1e-8f, 3.0f, 0.7f, 1e7f, -0.3f, 0.9f, 0.6f, 0};
    char body[512] = "terms = ( { attribute = \"tags\"; weights = ( ", pair[48];
    for (int m = 0; m < 9; m++) {
        snprintf(pair, sizeof pair, "%s(\"t%d\", %.9g)", m ? ", " : "", m, (double)weights[m]);
        strcat(body, pair);
    }
    strcat(body, " ); } );");
    pd_compiled c;
    compile(s, body, NULL, &c);
    for (uint32_t plane = 0; plane < 2; plane++) {
        for (uint32_t v = 0; v < (plane ? 4 : 256); v++) {
            float sum = 0;
            for (uint32_t m = 0; m < 8; m++)
                if (v >> m & 1) sum += weights[8 * plane + m];
            assert_weight(weight_at(s, &c, 12 + plane, v), sum);
        }
    }
    pd_compiled_free(&c);
}

static void test_keys_are_grouped_sorted_and_merged(void **state)
{
    shop *s = *state;
    pd_compiled c;
    compile(
        s,
        "terms = ( { attribute = \"seller\"; weights = ( (9, 0.5) ); },"
        " { attribute = \"brand\"; weights = ( (1042L, 0.4), (7, 0.1), (\"18446744073709551615\", 1) ); },"
        " { attribute = \"brand\"; weights = ( (7, 0.2), (8, 0.5) ); },"
        " { attribute = \"brand\"; weights = ( (8, -0.5) ); } );",
        NULL, &c);
    assert_null(c.weights);
    assert_int_equal(c.nkey_weights, 4); /* what sums to zero is left out */
    assert_int_equal(c.key_weights[0].column, 0);
    assert_true(c.key_weights[0].value == 7);
    assert_weight(c.key_weights[0].weight, 0.1f + 0.2f);
    assert_true(c.key_weights[1].value == 1042);
    assert_true(c.key_weights[2].value == UINT64_MAX);
    assert_int_equal(c.key_weights[3].column, 1);
    assert_weight(key_weight(&c, 1, 9), 0.5);
    pd_compiled_free(&c);
}

static void test_weights_that_cancel_leave_no_table(void **state)
{
    shop *s = *state;
    pd_compiled c;
    compile(s,
            "terms = ( { attribute = \"department\"; weights = ( (\"SWEETS\", 0.3) ); },"
            " { attribute = \"department\"; weights = ( (\"SWEETS\", -0.3) ); } );",
            NULL, &c);
    assert_null(c.weights);
    pd_compiled_free(&c);
}

static void test_a_value_that_the_dictionary_lacks_is_a_warning(void **state)
{
    shop *s = *state;
    pd_compiled c;
    compile(s, "terms = ( { attribute = \"language\"; weights = ( (\"bn\", 0.3), (\"en\", 0.1) ); } );", NULL,
            &c);
    assert_int_equal(c.nwarnings, 1);
    assert_warned(&c, "profile \"p\" version 3: attribute \"language\" has no value \"bn\"");
    assert_weight(weight_at(s, &c, 1, 2), 0.1f);
    pd_compiled_free(&c);
}

static void test_a_member_newer_than_the_versions_columns_weighs_nothing(void **state)
{
    (void)state;
    shop s;
    shop_open(&s);
    uint32_t value;
    pd_error err;
    /* The layout knows ten members in two planes; then the dictionary learns more. */
    for (int i = 0; i < 20; i++) {
        char name[16];
        snprintf(name, sizeof name, "new%d", i);
        assert_int_equal(pd_attribute_intern(&s.schema->attributes[5], name, &value, &err), PD_OK);
    }
    pd_compiled c;
    compile(
        &s,
        "terms = ( { attribute = \"tags\"; weights = ( (\"t9\", 1), (\"new0\", 1), (\"new15\", 1) ); } );",
        NULL, &c);
    assert_weight(weight_at(&s, &c, 13, 2), 1);
    assert_int_equal(c.nwarnings, 2);
    pd_compiled_free(&c);
    shop_close(&s);
}

static void test_undeclared_context_keys_are_named_or_refused(void **state)
{
    shop *s = *state;
    pd_compiled c;
    compile(s, "context = ( \"a\" );", CONTEXT2("a", "1", "x", "2"), &c);
    assert_int_equal(c.nwarnings, 1);
    assert_warned(&c, "context key \"x\" is not declared by profile \"p\" version 3");
    pd_compiled_free(&c);
    assert_ask_refused(s, "strict = true; context = ( \"a\" );",
                       &(pd_ask){.context = CONTEXT2("a", "1", "x", "2"), .now = NOW}, PD_INVALID_ARGUMENT,
                       "context key \"x\" is not declared by profile \"p\" version 3");
    compile(s, NULL, CONTEXT1("x", "2"), &c);
    assert_int_equal(c.nwarnings, 1);
    assert_warned(&c, "no profile: context is not used");
    pd_compiled_free(&c);
    compile(s, NULL, &(pd_context){0, NULL, NULL}, &c);
    assert_int_equal(c.nwarnings, 0);
    pd_compiled_free(&c);
}

static void test_a_context_key_given_twice_is_refused(void **state)
{
    shop *s = *state;
    assert_ask_refused(s, NULL, &(pd_ask){.context = CONTEXT2("a", "1", "a", "1")}, PD_INVALID_ARGUMENT,
                       "context key \"a\" is given twice");
    assert_ask_refused(s, "context = ( \"a\" );",
                       &(pd_ask){.context = CONTEXT2("a", "1", "a", "2"), .now = NOW}, PD_INVALID_ARGUMENT,
                       "context key \"a\" is given twice");
}

static void test_outside_its_time_a_profiles_terms_are_off(void **state)
{
    shop *s = *state;
    static const char body[] = "valid = { from = \"2026-10-20\"; until = \"2026-11-15\"; };"
                               "terms = ( { attribute = \"department\"; weights = ( (\"SWEETS\", 1) ); } );"
                               "filters = ( { attribute = \"department\"; is_not = \"TOBACCO\"; } );"
                               "diversity = ( { attribute = \"brand\"; at_most = 3; } );";
    static const struct {
        double now;
        int on;
    } cases[] = {{20745.999, 0}, {20746, 1}, {20772.999, 1}, {20773, 0}}; /* the last day counts to its end */
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pd_compiled c;
        compile_ask(s, body, &(pd_ask){.now = cases[i].now}, &c);
        assert_weight(weight_at(s, &c, 0, 2), cases[i].on);
        assert_int_equal(c.nwarnings, !cases[i].on);
        if (!cases[i].on)
            assert_warned(
                &c, "profile \"p\" version 3 is valid from 2026-10-20 to 2026-11-15: its terms are off");
        assert_true(c.has_filter);
        assert_int_equal(c.ncaps, 1);
        pd_compiled_free(&c);
    }
    assert_ask_refused(s, "strict = true; valid = { until = \"2026-01-01\"; };", &(pd_ask){.now = NOW},
                       PD_FAILED_PRECONDITION, "profile \"p\" version 3 is valid until 2026-01-01");
}

static void test_overrides_replace_single_weights(void **state)
{
    shop *s = *state;
    static const pd_override overrides[] = {
        {"similarity", NULL, 0.5f}, {"department", "SWEETS", 0.9f}, {"language", "ta", -1},
        {"price", NULL, 2},         {"zones", "w", 0.125f},         {"brand", "7", 3},
        {"brand", "8", 0},
    };
    pd_compiled c;
    compile_ask(
        s,
        "terms = ( { attribute = \"department\"; weights = ( (\"SWEETS\", 0.3), (\"GROCERY\", 0.2) ); },"
        " { attribute = \"price\"; curve = ( (1.0, 0.25) ); },"
        " { attribute = \"zones\"; weights = ( (\"n\", 1), (\"w\", 1) ); },"
        " { attribute = \"brand\"; weights = ( (7, 0.1), (8, 0.1), (9, 0.1) ); } );",
        &(pd_ask){.overrides = overrides, .noverrides = 7, .now = NOW}, &c);
    assert_weight(c.similarity, 0.5);
    assert_weight(weight_at(s, &c, 0, 2), 0.9f);
    assert_weight(weight_at(s, &c, 0, 1), 0.2f);
    assert_weight(weight_at(s, &c, 1, 3), -1);
    assert_weight(weight_at(s, &c, 2, 4), 0.5);
    assert_weight(weight_at(s, &c, 4, 8 + 1), 1.125);
    assert_weight(key_weight(&c, 0, 7), 3);
    assert_weight(key_weight(&c, 0, 9), 0.1f);
    assert_int_equal(c.nkey_weights, 2); /* 8 was set to nothing */
    pd_compiled_free(&c);
    compile_ask(s, NULL, &(pd_ask){.overrides = overrides + 1, .noverrides = 1}, &c);
    assert_weight(weight_at(s, &c, 0, 2), 0.9f); /* with no profile too */
    pd_compiled_free(&c);
}

static void test_overrides_that_make_no_sense_are_refused(void **state)
{
    shop *s = *state;
    static const struct {
        pd_override first, second; /* second: not used where it has no attribute */
        const char *message;
    } cases[] = {
        {{"colour", "red", 1}, {0}, "override: the table has no attribute \"colour\""},
        {{"department", "SWEATS", 1}, {0}, "override: attribute \"department\" has no value \"SWEATS\""},
        {{"department", NULL, 1}, {0}, "override: attribute \"department\" has no value \"\""},
        {{"zones", "", 1}, {0}, "override: attribute \"zones\" has no value \"\""},
        {{"brand", "acme", 1},
         {0},
         "override: attribute \"brand\" is a key: \"acme\" is not an integer over 0"},
        {{"brand", "0", 1}, {0}, "override: attribute \"brand\" is a key: \"0\" is not an integer over 0"},
        {{"price", "5", 1},
         {0},
         "override: attribute \"price\" is a number, its curve is scaled as a whole, not at \"5\""},
        {{"similarity", NULL, -1}, {0}, "override: similarity must not be negative, as -1 is"},
        {{"similarity", "x", 1}, {0}, "override: similarity has no value \"x\""},
        {{"zones", "n", NAN}, {0}, "override of \"zones\": a weight must be from -1e+09 to 1e+09"},
        {{"zones", "n", INFINITY}, {0}, "override of \"zones\": a weight must be from -1e+09 to 1e+09"},
        {{"zones", "n", 1}, {"zones", "n", 1}, "override: \"zones\" is given twice"},
        {{"department", "SWEETS", 1},
         {"department", "SWEETS", 2},
         "override: \"department\" SWEETS is given twice"},
        {{"price", NULL, 1}, {"price", NULL, 2}, "override: \"price\" is given twice"},
        {{"similarity", NULL, 1}, {"similarity", NULL, 1}, "override: \"similarity\" is given twice"},
        {{"brand", "7", 1}, {"brand", "007", 2}, "override: the key 7 is given twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pd_override both[2] = {cases[i].first, cases[i].second};
        assert_ask_refused(s, NULL, &(pd_ask){.overrides = both, .noverrides = both[1].attribute ? 2 : 1},
                           PD_INVALID_ARGUMENT, cases[i].message);
    }
}

static void test_caps_of_the_request_replace_the_profiles(void **state)
{
    shop *s = *state;
    static const char body[] = "diversity = ( { attribute = \"brand\"; at_most = 3; } );";
    pd_compiled c;
    compile(s, body, NULL, &c);
    assert_int_equal(c.ncaps, 1);
    assert_ptr_equal(c.caps[0].attribute, pd_schema_find(s->schema, "brand"));
    assert_int_equal(c.caps[0].at_most, 3);
    pd_compiled_free(&c);
    pd_cap cap = {pd_schema_find(s->schema, "department"), 1};
    compile_ask(s, body, &(pd_ask){.caps = &cap, .ncaps = 1, .now = NOW}, &c);
    assert_int_equal(c.ncaps, 1);
    assert_string_equal(c.caps[0].attribute->name, "department");
    pd_compiled_free(&c);
    cap.at_most = 0;
    assert_ask_refused(s, NULL, &(pd_ask){.caps = &cap, .ncaps = 1}, PD_INVALID_ARGUMENT,
                       "diversity: \"department\" at most 0 of each leaves nothing");
    cap = (pd_cap){pd_schema_find(s->schema, "zones"), 1};
    assert_ask_refused(s, NULL, &(pd_ask){.caps = &cap, .ncaps = 1}, PD_INVALID_ARGUMENT,
                       "diversity: attribute \"zones\" is neither a category nor a key: it cannot be capped");
}

static void test_a_profile_of_another_table_is_refused_by_name(void **state)
{
    shop *s = *state;
    assert_ask_refused(s, "terms = ( { attribute = \"colour\"; weights = ( (\"red\", 1) ); } );",
                       &(pd_ask){.now = NOW}, PD_INVALID_ARGUMENT,
                       "profile \"p\" version 3: the table has no attribute \"colour\"");
    assert_ask_refused(s, "diversity = ( { attribute = \"colour\"; at_most = 1; } );", &(pd_ask){.now = NOW},
                       PD_INVALID_ARGUMENT, "profile \"p\" version 3: the table has no attribute \"colour\"");
}

static void test_a_request_without_measure_is_refused(void **state)
{
    shop *s = *state;
    static const char *keys[65], *values[65];
    static char names[65][8];
    static pd_override overrides[1025];
    for (int i = 0; i < 65; i++) {
        snprintf(names[i], sizeof names[i], "k%d", i);
        keys[i] = names[i];
        values[i] = "v";
    }
    pd_context context = {65, keys, values};
    assert_ask_refused(s, NULL, &(pd_ask){.context = &context}, PD_INVALID_ARGUMENT,
                       "a context of 65 keys, more than 64");
    assert_ask_refused(s, NULL, &(pd_ask){.overrides = overrides, .noverrides = 1025}, PD_INVALID_ARGUMENT,
                       "1025 overrides, more than 1024");
    char joined[2 * 1025 + 1];
    for (int i = 0; i < 1025; i++)
        memcpy(joined + 2 * i, "a|", 3);
    joined[2 * 1025 - 1] = 0;
    assert_ask_refused(s, "context = ( \"a\" );", &(pd_ask){.context = CONTEXT1("a", joined), .now = NOW},
                       PD_INVALID_ARGUMENT, "context key \"a\" holds more than 1024 values");
}

static void test_many_warnings_are_counted(void **state)
{
    shop *s = *state;
    char *body = malloc(100 * 24 + 128), *at = body;
    assert_non_null(body);
    at = stpcpy(at, "terms = ( { attribute = \"language\"; weights = ( ");
    for (int i = 0; i < 100; i++)
        at += sprintf(at, "%s(\"x%d\", 1)", i ? ", " : "", i);
    strcpy(at, " ); } );");
    pd_compiled c;
    compile(s, body, NULL, &c);
    assert_int_equal(c.nwarnings, 65);
    assert_string_equal(c.warnings[64], "and 36 more warnings");
    pd_compiled_free(&c);
    free(body);
}

static int open_shop(void **state)
{
    static shop s;
    shop_open(&s);
    *state = &s;
    return 0;
}

static int close_shop(void **state)
{
    shop_close(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_compiles_to_nothing),
        cmocka_unit_test(test_weights_by_value_lie_at_their_values),
        cmocka_unit_test(test_terms_on_one_attribute_add_up),
        cmocka_unit_test(test_a_term_is_in_force_when_all_its_keys_hold),
        cmocka_unit_test(test_matches_weighs_what_the_context_says),
        cmocka_unit_test(test_a_curve_is_straight_between_points_and_constant_outside),
        cmocka_unit_test(test_a_time_is_weighed_by_its_age_and_the_future_is_new),
        cmocka_unit_test(test_a_sets_planes_hold_sums_of_members_ascending),
        cmocka_unit_test(test_keys_are_grouped_sorted_and_merged),
        cmocka_unit_test(test_weights_that_cancel_leave_no_table),
        cmocka_unit_test(test_a_value_that_the_dictionary_lacks_is_a_warning),
        cmocka_unit_test(test_a_member_newer_than_the_versions_columns_weighs_nothing),
        cmocka_unit_test(test_undeclared_context_keys_are_named_or_refused),
        cmocka_unit_test(test_a_context_key_given_twice_is_refused),
        cmocka_unit_test(test_outside_its_time_a_profiles_terms_are_off),
        cmocka_unit_test(test_overrides_replace_single_weights),
        cmocka_unit_test(test_overrides_that_make_no_sense_are_refused),
        cmocka_unit_test(test_caps_of_the_request_replace_the_profiles),
        cmocka_unit_test(test_a_profile_of_another_table_is_refused_by_name),
        cmocka_unit_test(test_a_request_without_measure_is_refused),
        cmocka_unit_test(test_many_warnings_are_counted),
    };
    return cmocka_run_group_tests(tests, open_shop, close_shop);
}
