/* Filters as rows meet them: each test asks which of a few rows pass. */
#include "profile_fixture.h"

#include <math.h>
#include <stdio.h>

/* A row: department, language, price, added (days), zones, brand. */
typedef struct row {
    uint8_t department, language;
    float price, added;
    uint8_t zones;
    uint64_t brand;
} row;

/* GROCERY hi; SWEETS en; TOBACCO; all unknown. */
static const row rows[4] = {
    {1, 1, 5.0f, 20740, 1, 7},
    {2, 2, 10.0f, 20600, 1 | 8, 8},
    {3, 3, 0.5f, 20760, 2, 9},
    {0, 0, NAN, NAN, 0, 0},
};

static uint8_t bucket(float value, const float *knots, int n)
{
    int under = 0;
    while (under < n && knots[under] <= value)
        under++;
    return isnan(value) ? 0 : (uint8_t)(under + 1);
}

/* What backend.h says of a filter, word by word. */
static int passes(const pd_filter *f, const row *r)
{
    static const float prices[] = {2, 5, 10}, days[] = {20700, 20740};
    uint8_t bytes[20] = {r->department, r->language, bucket(r->price, prices, 3), bucket(r->added, days, 2),
                         r->zones};
    float floats[2] = {r->price, r->added};
    uint64_t keys[2] = {r->brand, 0};
    for (uint32_t i = 0; i < f->nbytes; i++) {
        uint8_t value = bytes[f->bytes[i].column];
        if (!(f->bytes[i].allow[value / 64] >> value % 64 & 1)) return 0;
    }
    for (uint32_t i = 0; i < f->nranges; i++) {
        float value = floats[f->ranges[i].column];
        if (!(value >= f->ranges[i].low && value <= f->ranges[i].high)) return 0;
    }
    for (uint32_t i = 0; i < f->nsets; i++) {
        uint64_t mask = 0;
        for (int plane = 0; plane < 8; plane++)
            mask |= (uint64_t)bytes[f->sets[i].column + (uint32_t)plane] << 8 * plane;
        if (f->sets[i].any && !(mask & f->sets[i].any)) return 0;
        if ((mask & f->sets[i].all) != f->sets[i].all || (mask & f->sets[i].none)) return 0;
    }
    for (uint32_t i = 0; i < f->nkeys; i++) {
        const pd_key_test *test = &f->keys[i];
        int found = 0;
        for (uint32_t v = 0; v < test->count; v++) {
            assert_true(v == 0 || test->values[v] > test->values[v - 1]); /* sorted, distinct */
            found |= keys[test->column] != 0 && test->values[v] == keys[test->column];
        }
        if (found == test->negate) return 0;
    }
    return 1;
}

/* which: "0123" less those that do not pass. */
static void assert_passing(const pd_compiled *c, const char *which)
{
    char got[5] = "", *at = got;
    for (int i = 0; i < 4; i++)
        if (!c->has_filter || passes(&c->filter, &rows[i])) *at++ = (char)('0' + i);
    *at = 0;
    assert_string_equal(got, which);
}

/* A range says its buckets too, and no others: that is what lets the kernels skip. */
static void test_a_range_implies_the_buckets_that_it_touches(void **state)
{
    shop *s = *state;
    static const struct {
        const char *filters;
        uint64_t buckets; /* under 2, 2 to 5, 5 to 10, from 10: 1 to 4 */
    } cases[] = {
        {"{ attribute = \"price\"; at_most = 1.0; }", 1u << 1},
        {"{ attribute = \"price\"; at_most = 2.0; }", 1u << 1 | 1u << 2},
        {"{ attribute = \"price\"; at_least = 5.0; }", 1u << 3 | 1u << 4},
        {"{ attribute = \"price\"; at_least = 3.0; }, { attribute = \"price\"; at_most = 4.0; }", 1u << 2},
        {"{ attribute = \"price\"; at_least = 11.0; }, { attribute = \"price\"; at_most = 4.0; }", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[256];
        snprintf(body, sizeof body, "filters = ( %s );", cases[i].filters);
        pd_compiled c;
        compile(s, body, NULL, &c);
        assert_int_equal(c.filter.nbytes, 1);
        assert_int_equal(c.filter.nranges, 1);
        assert_int_equal(c.filter.bytes[0].column, 2);
        assert_int_equal(c.filter.bytes[0].allow[0], cases[i].buckets);
        assert_int_equal(c.filter.bytes[0].allow[1] | c.filter.bytes[0].allow[2] | c.filter.bytes[0].allow[3],
                         0);
        pd_compiled_free(&c);
    }
}

static void test_filters_of_a_profile_keep_the_right_rows(void **state)
{
    shop *s = *state;
    static const struct {
        const char *filters, *passing;
    } cases[] = {
        {"{ attribute = \"department\"; is = \"SWEETS\"; }", "1"},
        {"{ attribute = \"department\"; is = ( \"SWEETS\", \"GROCERY\" ); }", "01"},
        {"{ attribute = \"department\"; is_not = ( \"TOBACCO\" ); }", "013"},
        {"{ attribute = \"department\"; is_not = \"TOBACCO\"; }, { attribute = \"department\"; is_not = "
         "\"SWEETS\"; }",
         "03"},
        {"{ attribute = \"department\"; is = \"TOBACCO\"; }, { attribute = \"department\"; is = \"SWEETS\"; "
         "}",
         ""},
        {"{ attribute = \"price\"; at_most = 5; }", "02"},
        {"{ attribute = \"price\"; at_least = 5.0; }", "01"},
        {"{ attribute = \"price\"; at_least = 1.0; }, { attribute = \"price\"; at_most = 9.5; }", "0"},
        {"{ attribute = \"price\"; at_least = 6; }, { attribute = \"price\"; at_most = 4; }", ""},
        {"{ attribute = \"price\"; at_least = -1; }", "012"},
        {"{ attribute = \"added\"; at_most = 30; }", "02"}, /* days of age; the future has none */
        {"{ attribute = \"added\"; at_least = 30; }", "1"},
        {"{ attribute = \"added\"; at_least = 0; }", "012"},
        {"{ attribute = \"added\"; at_most = -1; }", ""},
        {"{ attribute = \"added\"; at_least = \"2026-10-14\"; }", "02"}, /* a date: from then on */
        {"{ attribute = \"added\"; at_most = \"2026-10-14\"; }", "01"},  /* and with that day */
        {"{ attribute = \"added\"; at_most = \"2026-10-13\"; }", "1"},
        {"{ attribute = \"zones\"; any_of = ( \"w\", \"s\" ); }", "12"},
        {"{ attribute = \"zones\"; all_of = ( \"w\", \"n\" ); }", "1"},
        {"{ attribute = \"zones\"; none_of = \"n\"; }", "23"},
        {"{ attribute = \"zones\"; any_of = \"n\"; }, { attribute = \"zones\"; any_of = \"w\"; }", "1"},
        {"{ attribute = \"brand\"; is = ( 9, 7, 9 ); }", "02"},
        {"{ attribute = \"brand\"; is_not = ( 9, \"7\" ); }", "13"},
        {"{ attribute = \"brand\"; is = ( 9, 7 ); }, { attribute = \"department\"; is_not = \"TOBACCO\"; }",
         "0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char body[256];
        snprintf(body, sizeof body, "filters = ( %s );", cases[i].filters);
        pd_compiled c;
        compile(s, body, NULL, &c);
        assert_true(c.has_filter);
        assert_int_equal(c.nwarnings, 0);
        assert_passing(&c, cases[i].passing);
        pd_compiled_free(&c);
    }
}

static void test_a_value_that_no_row_has_passes_nothing_and_is_none_of_it(void **state)
{
    shop *s = *state;
    static const struct {
        const char *filter, *passing;
    } cases[] = {
        {"{ attribute = \"language\"; is = \"bn\"; }", ""},
        {"{ attribute = \"language\"; is = ( \"bn\", \"hi\" ); }", "0"},
        {"{ attribute = \"language\"; is_not = \"bn\"; }", "0123"},
        {"{ attribute = \"tags\"; any_of = \"bn\"; }", ""},
        {"{ attribute = \"tags\"; all_of = ( \"bn\" ); }", ""},
        {"{ attribute = \"tags\"; none_of = \"bn\"; }", "0123"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char body[256];
        snprintf(body, sizeof body, "filters = ( %s );", cases[i].filter);
        pd_compiled c;
        compile(s, body, NULL, &c);
        assert_int_equal(c.nwarnings, 1);
        assert_non_null(strstr(c.warnings[0], "has no value \"bn\""));
        assert_passing(&c, cases[i].passing);
        pd_compiled_free(&c);
    }
}

static void test_a_dollar_takes_the_value_from_the_context(void **state)
{
    shop *s = *state;
    static const char body[] = "context = ( \"zone\", \"budget\", \"brand\", \"dep\" ); filters = ( { "
                               "attribute = \"zones\"; any_of = \"$zone\"; },"
                               " { attribute = \"price\"; at_most = \"$budget\"; }, { attribute = \"brand\"; "
                               "is = ( \"$brand\", 9 ); },"
                               " { attribute = \"department\"; is = \"$dep\"; } );";
    static const struct {
        const char *key, *value, *passing;
    } cases[] = {
        {"zone", "w", "1"},   {"zone", "w|s", "12"},   {"budget", "7.5", "02"},
        {"brand", "8", "12"}, {"brand", "7|8", "012"}, {"dep", "GROCERY|SWEETS", "01"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pd_compiled c;
        compile(s, body, CONTEXT1(cases[i].key, cases[i].value), &c);
        assert_int_equal(c.nwarnings, 3); /* the other three are off */
        assert_passing(&c, cases[i].passing);
        pd_compiled_free(&c);
    }
    pd_compiled c;
    compile(s, body, CONTEXT1("zone", ""), &c);
    assert_false(c.has_filter);
    assert_warned(&c,
                  "the context lacks \"zone\": the filter on \"zones\" of profile \"p\" version 3 is off");
    assert_warned(&c,
                  "the context lacks \"brand\": the filter on \"brand\" of profile \"p\" version 3 is off");
    pd_compiled_free(&c);
    compile(s, body, CONTEXT1("zone", "nowhere"), &c);
    assert_warned(&c, "profile \"p\" version 3: filter: attribute \"zones\" has no value \"nowhere\"");
    assert_passing(&c, "");
    pd_compiled_free(&c);
}

static void test_a_dollar_that_cannot_be_filled_is_refused_where_strict(void **state)
{
    shop *s = *state;
    static const char strict[] = "strict = true; context = ( \"zone\" ); filters = ( { attribute = "
                                 "\"zones\"; any_of = \"$zone\"; } );";
    assert_ask_refused(
        s, strict, &(pd_ask){.now = NOW}, PD_INVALID_ARGUMENT,
        "the context lacks \"zone\", which the filter on \"zones\" of profile \"p\" version 3 needs");
    assert_ask_refused(s, strict, &(pd_ask){.context = CONTEXT1("zone", "nowhere"), .now = NOW},
                       PD_INVALID_ARGUMENT,
                       "profile \"p\" version 3: filter: attribute \"zones\" has no value \"nowhere\"");
    static const char budget[] =
        "context = ( \"budget\" ); filters = ( { attribute = \"price\"; at_most = \"$budget\"; } );";
    assert_ask_refused(s, budget, &(pd_ask){.context = CONTEXT1("budget", "little"), .now = NOW},
                       PD_INVALID_ARGUMENT,
                       "profile \"p\" version 3: filter: attribute \"price\": \"little\" is not a number");
    assert_ask_refused(
        s, budget, &(pd_ask){.context = CONTEXT1("budget", "1|2"), .now = NOW}, PD_INVALID_ARGUMENT,
        "profile \"p\" version 3: filter: attribute \"price\": at_most takes one number, not 2");
    static const char brand[] = "context = ( \"b\" ); filters = ( { attribute = \"brand\"; is = \"$b\"; } );";
    assert_ask_refused(
        s, brand, &(pd_ask){.context = CONTEXT1("b", "acme"), .now = NOW}, PD_INVALID_ARGUMENT,
        "profile \"p\" version 3: filter: attribute \"brand\" is a key: \"acme\" is not an integer over 0");
}

static void test_two_dollars_stand_for_one_in_a_name(void **state)
{
    (void)state;
    shop s;
    uint32_t value;
    pd_error err;
    shop_open(&s);
    assert_int_equal(pd_attribute_intern(&s.schema->attributes[1], "$zone", &value, &err), PD_OK);
    pd_compiled c;
    compile(&s, "filters = ( { attribute = \"language\"; is = \"$$zone\"; } );", NULL, &c);
    assert_int_equal(c.nwarnings, 0);
    assert_int_equal(c.filter.bytes[0].allow[0], 1u << value);
    pd_compiled_free(&c);
    shop_close(&s);
}

static void test_conditions_of_the_request_hold_besides_the_profiles(void **state)
{
    shop *s = *state;
    static const char body[] = "filters = ( { attribute = \"department\"; is_not = \"TOBACCO\"; } );";
    pd_condition conditions[] = {
        {"price", PD_AT_LEAST, 1, TEXTS("5")},
        {"brand", PD_IS_NOT, 2, TEXTS("99", "8")},
    };
    pd_compiled c;
    compile_ask(s, body, &(pd_ask){.conditions = conditions, .nconditions = 1, .now = NOW}, &c);
    assert_passing(&c, "01");
    pd_compiled_free(&c);
    compile_ask(s, body, &(pd_ask){.conditions = conditions, .nconditions = 2, .now = NOW}, &c);
    assert_passing(&c, "0");
    pd_compiled_free(&c);
    compile_ask(s, NULL, &(pd_ask){.conditions = conditions + 1, .nconditions = 1, .now = NOW}, &c);
    assert_passing(&c, "023");
    pd_compiled_free(&c);
    pd_condition age = {"added", PD_AT_MOST, 1, TEXTS("30")};
    compile_ask(s, NULL, &(pd_ask){.conditions = &age, .nconditions = 1, .now = NOW}, &c);
    assert_passing(&c, "02");
    pd_compiled_free(&c);
}

static void test_conditions_that_make_no_sense_are_refused(void **state)
{
    shop *s = *state;
    static const char *const none[1] = {"x"};
    const struct {
        pd_condition condition;
        const char *message;
    } cases[] = {
        {{"colour", PD_IS, 1, TEXTS("red")}, "filter: the table has no attribute \"colour\""},
        {{"language", PD_IS, 1, TEXTS("bn")}, "filter: attribute \"language\" has no value \"bn\""},
        {{"department", PD_IS, 1, TEXTS("")}, "filter: attribute \"department\" has no value \"\""},
        {{"department", PD_AT_MOST, 1, TEXTS("1")},
         "filter: attribute \"department\" is a category: its filters are is and is_not, not at_most"},
        {{"price", PD_ANY_OF, 1, TEXTS("1")},
         "filter: attribute \"price\" is a number: its filters are at_least and at_most, not any_of"},
        {{"price", PD_AT_MOST, 1, TEXTS("nan")}, "filter: attribute \"price\": \"nan\" is not a number"},
        {{"price", PD_AT_MOST, 2, TEXTS("1", "2")},
         "filter: attribute \"price\": at_most takes one number, not 2"},
        {{"added", PD_AT_MOST, 1, TEXTS("soon")},
         "filter: attribute \"added\": \"soon\" is not a date or a number of days"},
        {{"brand", PD_IS, 1, TEXTS("0")},
         "filter: attribute \"brand\" is a key: \"0\" is not an integer over 0"},
        {{"brand", PD_IS, 1, TEXTS("18446744073709551616")},
         "filter: attribute \"brand\" is a key: \"18446744073709551616\" is not an integer over 0"},
        {{"brand", PD_IS, 0, none}, "filter: attribute \"brand\": is needs a value"},
        {{"zones", (pd_condition_kind)99, 1, none}, "filter: attribute \"zones\": an unknown condition"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_ask_refused(s, NULL,
                           &(pd_ask){.conditions = &cases[i].condition, .nconditions = 1, .now = NOW},
                           PD_INVALID_ARGUMENT, cases[i].message);
    static pd_condition many[1025];
    assert_ask_refused(s, NULL, &(pd_ask){.conditions = many, .nconditions = 1025}, PD_INVALID_ARGUMENT,
                       "1025 conditions, more than 1024");
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
        cmocka_unit_test(test_a_range_implies_the_buckets_that_it_touches),
        cmocka_unit_test(test_filters_of_a_profile_keep_the_right_rows),
        cmocka_unit_test(test_a_value_that_no_row_has_passes_nothing_and_is_none_of_it),
        cmocka_unit_test(test_a_dollar_takes_the_value_from_the_context),
        cmocka_unit_test(test_a_dollar_that_cannot_be_filled_is_refused_where_strict),
        cmocka_unit_test(test_two_dollars_stand_for_one_in_a_name),
        cmocka_unit_test(test_conditions_of_the_request_hold_besides_the_profiles),
        cmocka_unit_test(test_conditions_that_make_no_sense_are_refused),
    };
    return cmocka_run_group_tests(tests, open_shop, close_shop);
}
