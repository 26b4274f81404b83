/* Schemas: their text, their dictionaries, their buckets and the columns they map to. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "schema.h"

static pd_schema *parse(const char *text)
{
    pd_schema *schema;
    pd_error err;
    if (pd_schema_parse("a.conf", text, strlen(text), &schema, &err) != PD_OK) fail_msg("%s", err.message);
    return schema;
}

static void assert_refused(const char *text, const char *message)
{
    pd_schema *schema;
    pd_error err;
    assert_int_equal(pd_schema_parse("a.conf", text, strlen(text), &schema, &err), PD_INVALID_ARGUMENT);
    assert_string_equal(err.message, message);
    assert_null(schema);
}

static const char whole[] =
    "table = { metric = \"l2\"; dim = 64; code = \"f16\"; refine = \"f32\"; source = \"f16\"; nlist = 512;\n"
    "  queries = \"households\"; space = \"cj64\"; order_by = \"department\"; policy = \"drain\"; keep = 5;\n"
    "  fallback = ( \"given\", \"segment:department\", \"attributes\" );\n"
    "  attributes = ( { name = \"department\"; type = \"category\"; values = ( \"GROCERY\", \"MEAT\" ); },\n"
    "                 { name = \"price\"; type = \"number\"; knots = ( 1, 2.5, 4.0 ); },\n"
    "                 { name = \"added\"; type = \"number\"; age = true; knots = ( \"2026-01-01\", 21000 ); "
    "},\n"
    "                 { name = \"zones\"; type = \"set\"; values = ( \"n\", \"s\", \"w\" ); open = true; },\n"
    "                 { name = \"language\"; type = \"category\"; },\n"
    "                 { name = \"brand\"; type = \"key\"; } ); };";

static void test_an_empty_table_has_the_defaults(void **state)
{
    (void)state;
    pd_schema *schema = parse("table = { };");
    assert_int_equal(schema->metric, PD_COSINE);
    assert_int_equal(schema->dim, 0);
    assert_int_equal(schema->index, 1);
    assert_int_equal(schema->code, PD_CODE_I8);
    assert_int_equal(schema->refine, PD_REFINE_F16);
    assert_int_equal(schema->refine_said, 0);
    assert_int_equal(schema->source, PD_REFINE_F32);
    assert_int_equal(schema->nlist, 0);
    assert_int_equal(schema->code_dim, 0);
    assert_int_equal(schema->keep, PD_KEEP_UNSAID);
    assert_int_equal(schema->policy, PD_POLICY_DOUBLE);
    assert_int_equal(schema->nattributes, 0);
    assert_string_equal(schema->queries, "");
    pd_schema_free(schema);
    schema = parse("table = { index = \"none\"; };");
    assert_int_equal(schema->index, 0);
    assert_int_equal(schema->code, PD_CODE_NONE);
    assert_int_equal(schema->refine, PD_REFINE_F16);
    pd_schema_free(schema);
}

static void test_codes_that_are_the_row_itself_need_no_refine_rows(void **state)
{
    (void)state;
    pd_schema *schema = parse("table = { code = \"f32\"; };");
    assert_int_equal(schema->refine, PD_REFINE_NONE);
    pd_schema_free(schema);
}

static void test_every_key_is_read(void **state)
{
    (void)state;
    pd_schema *schema = parse(whole);
    assert_int_equal(schema->metric, PD_L2);
    assert_int_equal(schema->dim, 64);
    assert_int_equal(schema->code, PD_CODE_F16);
    assert_int_equal(schema->refine, PD_REFINE_F32);
    assert_int_equal(schema->source, PD_REFINE_F16);
    assert_int_equal(schema->nlist, 512);
    assert_int_equal(schema->keep, 5);
    assert_int_equal(schema->policy, PD_POLICY_DRAIN);
    assert_string_equal(schema->queries, "households");
    assert_string_equal(schema->space, "cj64");
    assert_string_equal(schema->order_by, "department");
    assert_int_equal(schema->nfallback, 3);
    assert_int_equal(schema->fallback[0].kind, PD_RUNG_GIVEN);
    assert_int_equal(schema->fallback[1].kind, PD_RUNG_SEGMENT);
    assert_string_equal(schema->fallback[1].attribute, "department");
    assert_int_equal(schema->fallback[2].kind, PD_RUNG_ATTRIBUTES);
    assert_int_equal(schema->nattributes, 6);
    const pd_attribute *department = pd_schema_find(schema, "department");
    assert_int_equal(department->nvalues, 3); /* and the unknown */
    assert_string_equal(department->values[0], "");
    assert_string_equal(department->values[2], "MEAT");
    assert_true(department->closed);
    assert_false(pd_schema_find(schema, "zones")->closed);
    assert_false(pd_schema_find(schema, "language")->closed);
    const pd_attribute *added = pd_schema_find(schema, "added");
    assert_true(added->age);
    assert_true(added->knots[0] == 20454.0f && added->knots[1] == 21000.0f);
    assert_null(pd_schema_find(schema, "nothing"));
    pd_schema_free(schema);
}

static void test_attributes_map_to_columns_in_their_order(void **state)
{
    (void)state;
    pd_schema *schema = parse(whole);
    pd_shape shape;
    pd_schema_shape(schema, 512, &shape);
    assert_int_equal(shape.metric, PD_L2);
    assert_int_equal(shape.nlist, 512);
    assert_int_equal(shape.nbytes, 1 + 1 + 1 + 8 + 1);
    assert_int_equal(shape.nfloats, 2);
    assert_int_equal(shape.nkeys, 1);
    assert_int_equal(pd_schema_find(schema, "zones")->byte_column, 3);
    assert_int_equal(pd_schema_find(schema, "language")->byte_column, 11);
    assert_int_equal(pd_schema_find(schema, "added")->float_column, 1);
    assert_int_equal(shape.sizes[0], 3);     /* closed: unknown and two values */
    assert_int_equal(shape.sizes[1], 3 + 2); /* knots + 2 */
    assert_int_equal(shape.sizes[2], 2 + 2);
    assert_int_equal(shape.sizes[3], 1 << 3); /* three members */
    for (int plane = 4; plane < 11; plane++)
        assert_int_equal(shape.sizes[plane], 0);
    assert_int_equal(shape.sizes[11], 256); /* open */
    pd_schema_free(schema);
}

static void test_a_set_of_twelve_members_takes_a_plane_and_a_half(void **state)
{
    (void)state;
    pd_schema *schema = parse("table = { attributes = ( { name = \"s\"; type = \"set\"; } ); };");
    pd_error err;
    uint32_t value;
    for (int i = 0; i < 12; i++) {
        char name[8];
        snprintf(name, sizeof name, "m%d", i);
        assert_int_equal(pd_attribute_intern(&schema->attributes[0], name, &value, &err), PD_OK);
        assert_int_equal(value, i);
    }
    pd_shape shape;
    pd_schema_shape(schema, 1, &shape);
    assert_int_equal(shape.sizes[0], 256);
    assert_int_equal(shape.sizes[1], 16);
    assert_int_equal(shape.sizes[2], 0);
    pd_schema_free(schema);
}

static void test_a_look_up_table_has_neither_codes_nor_lists(void **state)
{
    (void)state;
    pd_schema *schema = parse("table = { index = \"none\"; dim = 8; };");
    pd_shape shape;
    pd_schema_shape(schema, 99, &shape);
    assert_int_equal(shape.code, PD_CODE_NONE);
    assert_int_equal(shape.nlist, 0);
    assert_int_equal(shape.refine, PD_REFINE_F16);
    pd_schema_free(schema);
}

static void assert_same(const pd_schema *a, const pd_schema *b)
{
    assert_int_equal(a->nattributes, b->nattributes);
    assert_int_equal(a->metric, b->metric);
    assert_int_equal(a->dim, b->dim);
    assert_int_equal(a->index, b->index);
    assert_int_equal(a->code, b->code);
    assert_int_equal(a->code_dim, b->code_dim);
    assert_int_equal(a->refine, b->refine);
    assert_int_equal(a->refine_said, b->refine_said);
    assert_int_equal(a->source, b->source);
    assert_int_equal(a->nlist, b->nlist);
    assert_int_equal(a->keep, b->keep);
    assert_int_equal(a->policy, b->policy);
    assert_string_equal(a->queries, b->queries);
    assert_string_equal(a->space, b->space);
    assert_string_equal(a->order_by, b->order_by);
    assert_string_equal(a->consent, b->consent);
    assert_int_equal(a->nfallback, b->nfallback);
    for (uint32_t i = 0; i < a->nfallback; i++) {
        assert_int_equal(a->fallback[i].kind, b->fallback[i].kind);
        assert_string_equal(a->fallback[i].attribute, b->fallback[i].attribute);
    }
    assert_int_equal(a->nbytes, b->nbytes);
    for (uint32_t i = 0; i < a->nattributes; i++) {
        const pd_attribute *x = &a->attributes[i], *y = &b->attributes[i];
        assert_string_equal(x->name, y->name);
        assert_int_equal(x->type, y->type);
        assert_int_equal(x->age, y->age);
        assert_int_equal(x->counts, y->counts);
        assert_true(x->half_life == y->half_life);
        assert_int_equal(x->nevents, y->nevents);
        for (uint32_t v = 0; v < x->nevents; v++) {
            assert_string_equal(x->events[v].name, y->events[v].name);
            assert_true(x->events[v].weight == y->events[v].weight);
        }
        assert_int_equal(x->closed, y->closed);
        assert_int_equal(x->nknots, y->nknots);
        assert_memory_equal(x->knots, y->knots, sizeof x->knots);
        assert_memory_equal(x->representatives, y->representatives, sizeof x->representatives);
        assert_int_equal(x->nvalues, y->nvalues);
        for (uint32_t v = 0; v < x->nvalues; v++)
            assert_string_equal(x->values[v], y->values[v]);
        assert_int_equal(x->byte_column, y->byte_column);
        assert_int_equal(x->float_column, y->float_column);
        assert_int_equal(x->key_column, y->key_column);
    }
}

static void test_a_complete_schema_comes_back_from_its_text(void **state)
{
    (void)state;
    static const char *const names[] = {"plain",    "with \"quotes\" and \\", "line\nfeed\x7f\x01", "पड़ोस",
                                        "a = 1; }", "@include \"x\""};
    pd_schema *schema = parse(whole), *back, *copy;
    pd_error err;
    uint32_t value;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        assert_int_equal(pd_attribute_intern(&schema->attributes[4], names[i], &value, &err), PD_OK);
        assert_int_equal(value, i + 1);
        assert_int_equal(pd_attribute_intern(&schema->attributes[3], names[i], &value, &err), PD_OK);
    }
    pd_attribute *price = &schema->attributes[1];
    price->knots[0] = 0.1f;
    price->knots[1] = nextafterf(0.1f, 1);
    price->knots[2] = 3e20f;
    for (uint32_t b = 1; b <= 4; b++)
        price->representatives[b] = 1.0f / 3.0f * (float)b - 1e-30f;
    char *text, *again;
    assert_int_equal(pd_schema_text(schema, &text, &err), PD_OK);
    if (pd_schema_parse("text", text, strlen(text), &back, &err) != PD_OK)
        fail_msg("%s\n%s", err.message, text);
    assert_same(schema, back);
    assert_int_equal(pd_schema_text(back, &again, &err), PD_OK);
    assert_string_equal(text, again);
    assert_int_equal(pd_schema_copy(schema, &copy, &err), PD_OK);
    assert_same(schema, copy);
    pd_schema_free(schema);
    assert_int_equal(pd_attribute_value(&copy->attributes[4], "पड़ोस"), 4);
    pd_schema_free(copy);
    pd_schema_free(back);
    free(text);
    free(again);
}

static const char counted[] =
    "table = { attributes = ( { name = \"popularity\"; type = \"number\"; knots = ( 1.0, 8.0 );\n"
    "    feedback = { half_life_hours = 36; events = ( (\"view\", 0.1), (\"put \\\"in\\\" cart\", 1), "
    "(\"दान\", "
    "3.3333333333333335) ); }; },\n"
    "  { name = \"trend\"; type = \"number\"; feedback = { half_life_hours = 0.1; }; },\n"
    "  { name = \"price\"; type = \"number\"; } ); };";

static void test_a_counter_has_a_half_life_and_weighs_its_events(void **state)
{
    (void)state;
    pd_schema *schema = parse(counted);
    const pd_attribute *popularity = &schema->attributes[0], *trend = &schema->attributes[1];
    double weight;
    assert_true(popularity->counts && trend->counts && !schema->attributes[2].counts);
    assert_true(popularity->half_life == 1.5);
    assert_true(fabs(trend->half_life - 0.1 / 24) < 1e-9);
    assert_int_equal(popularity->nknots, 2);
    assert_true(pd_attribute_event(popularity, "view", &weight) && weight == 0.1);
    assert_true(pd_attribute_event(popularity, "put \"in\" cart", &weight) && weight == 1);
    assert_true(pd_attribute_event(popularity, "दान", &weight) && weight == 3.3333333333333335);
    assert_false(pd_attribute_event(popularity, "sale", &weight));
    assert_true(pd_attribute_event(trend, "sale", &weight) && weight == 1);
    assert_false(pd_attribute_event(&schema->attributes[2], "view", &weight));
    pd_schema_free(schema);
}

static void test_counters_and_consent_come_back_from_their_text(void **state)
{
    (void)state;
    static const char asked[] =
        "table = { consent = \"may\"; attributes = ( { name = \"may\"; type = \"category\"; },"
        " { name = \"consent\"; type = \"category\"; } ); };";
    const char *const texts[] = {counted, asked};
    for (int i = 0; i < 2; i++) {
        pd_schema *schema = parse(texts[i]), *copy;
        pd_error err;
        char *text, *again;
        assert_int_equal(pd_schema_copy(schema, &copy, &err), PD_OK);
        assert_same(schema, copy);
        pd_schema_free(schema); /* the copy owns its events */
        assert_int_equal(pd_schema_text(copy, &text, &err), PD_OK);
        pd_schema *back = parse(text);
        assert_same(copy, back);
        assert_int_equal(pd_schema_text(back, &again, &err), PD_OK);
        assert_string_equal(text, again);
        free(text);
        free(again);
        pd_schema_free(copy);
        pd_schema_free(back);
    }
}

static void test_consent_is_a_category_named_or_called_so(void **state)
{
    (void)state;
    static const struct {
        const char *text, *consent;
    } cases[] = {
        {"table = { };", ""},
        {"table = { attributes = ( { name = \"consent\"; type = \"category\"; } ); };", "consent"},
        {"table = { attributes = ( { name = \"consent\"; type = \"number\"; } ); };", ""},
        {"table = { consent = \"may\"; attributes = ( { name = \"may\"; type = \"category\"; } ); };", "may"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pd_schema *schema = parse(cases[i].text);
        assert_string_equal(schema->consent, cases[i].consent);
        pd_schema_free(schema);
    }
}

/* A counter of so many events, declared by `many` of them. */
static void assert_events(int many, int fits)
{
    char text[4096];
    int at = snprintf(text, sizeof text,
                      "table = { attributes = ( { name = \"x\"; type = \"number\"; feedback = { "
                      "half_life_hours = 1; events = ( ");
    for (int i = 0; i < many; i++)
        at += snprintf(text + at, sizeof text - (size_t)at, "%s(\"e%d\", %d)", i ? ", " : "", i, i);
    snprintf(text + at, sizeof text - (size_t)at, " ); }; } ); };");
    if (!fits) {
        assert_refused(text,
                       "a.conf:1: key \"table.attributes[0].feedback.events\": 33 events, more than 32");
        return;
    }
    pd_schema *schema = parse(text);
    assert_int_equal(schema->attributes[0].nevents, many);
    pd_schema_free(schema);
}

static void test_a_counter_has_at_most_32_events(void **state)
{
    (void)state;
    assert_events(32, 1);
    assert_events(33, 0);
}

#define COUNTER "table = { attributes = ( { name = \"x\"; type = \"number\"; "
#define AT      "a.conf:1: key \"table.attributes[0].feedback"

static void test_a_counter_that_is_wrong_names_file_line_and_key(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {COUNTER "feedback = 3; } ); };", AT "\": must be a group { }"},
        {COUNTER "feedback = { }; } ); };", AT "\": half_life_hours is missing"},
        {COUNTER "age = true; feedback = { half_life_hours = 1; }; } ); };", AT "\": an age is not counted"},
        {COUNTER "feedback = { half_life_hours = 0; }; } ); };",
         AT ".half_life_hours\": must be from 0.01 to 1e+06, not 0"},
        {COUNTER "feedback = { half_life_hours = 1; half_life = 2; }; } ); };",
         "a.conf:1: unknown key \"table.attributes[0].feedback.half_life\""},
        {COUNTER "feedback = { half_life_hours = 1; events = ( ); }; } ); };",
         AT ".events\": is empty: without the key, every event counts"},
        {COUNTER "feedback = { half_life_hours = 1; events = ( \"view\" ); }; } ); };",
         AT ".events[0]\": must be an event's name and its weight, (\"view\", 0.1)"},
        {COUNTER "feedback = { half_life_hours = 1; events = ( (\"view\", 1, 2) ); }; } ); };",
         AT ".events[0]\": must be an event's name and its weight, (\"view\", 0.1)"},
        {COUNTER "feedback = { half_life_hours = 1; events = ( (\"\", 1) ); }; } ); };",
         AT ".events[0][0]\": an event's name has 1 to 256 bytes, this one 0"},
        {COUNTER "feedback = { half_life_hours = 1; events = ( (\"\\xff\", 1) ); }; } ); };",
         AT ".events[0][0]\": is not UTF-8"},
        {COUNTER "feedback = { half_life_hours = 1; events = ( (\"a\", 1),\n (\"b\", -0.5) ); }; } ); };",
         "a.conf:2: key \"table.attributes[0].feedback.events[1][1]\": -0.5 is below 0: a counter only "
         "rises"},
        {COUNTER "feedback = { half_life_hours = 1; events = ( (\"a\", 1), (\"a\", 2) ); }; } ); };",
         AT ".events[1][0]\": \"a\" stands twice"},
        {COUNTER "feedback = { half_life_hours = 1; events = ( (\"a\", \"b\") ); }; } ); };",
         AT ".events[0][1]\": must be a number"},
        {"table = { attributes = ( { name = \"x\"; type = \"key\"; feedback = { half_life_hours = 1; }; } ); "
         "};",
         "a.conf:1: unknown key \"table.attributes[0].feedback\""},
        {"table = { consent = \"may\"; };",
         "a.conf:1: key \"table.consent\": \"may\" is not a category of this table"},
        {"table = { consent = \"may\"; attributes = ( { name = \"may\"; type = \"set\"; } ); };",
         "a.conf:1: key \"table.consent\": \"may\" is not a category of this table"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_refused(cases[i].text, cases[i].message);
}

static void test_a_counter_does_not_begin_below_zero(void **state)
{
    (void)state;
    pd_schema *schema = parse(counted);
    pd_error err;
    float value;
    assert_int_equal(pd_attribute_number(&schema->attributes[0], "0", &value, &err), PD_OK);
    assert_int_equal(pd_attribute_number(&schema->attributes[0], "-1", &value, &err), PD_INVALID_ARGUMENT);
    assert_string_equal(err.message, "attribute \"popularity\": -1 is below 0, which no counter is");
    assert_int_equal(pd_attribute_number(&schema->attributes[2], "-1", &value, &err), PD_OK);
    pd_schema_free(schema);
}

static void test_the_default_schema_comes_back_from_its_text(void **state)
{
    (void)state;
    pd_schema *schema, *back;
    pd_error err;
    char *text;
    assert_int_equal(pd_schema_default(PD_IP, 32, &schema, &err), PD_OK);
    schema->code_dim = 7;
    assert_int_equal(pd_schema_text(schema, &text, &err), PD_OK);
    assert_int_equal(pd_schema_parse("text", text, strlen(text), &back, &err), PD_OK);
    assert_same(schema, back);
    free(text);
    pd_schema_free(schema);
    pd_schema_free(back);
}

static void test_a_schema_with_nan_has_no_text(void **state)
{
    (void)state;
    pd_schema *schema = parse("table = { attributes = ( { name = \"n\"; type = \"number\"; } ); };");
    pd_error err;
    char *text;
    schema->attributes[0].representatives[1] = NAN;
    assert_int_equal(pd_schema_text(schema, &text, &err), PD_INVALID_ARGUMENT);
    assert_string_equal(err.message,
                        "attribute \"n\" has a knot, representative or weight that is not finite");
    assert_null(text);
    pd_schema_free(schema);
}

static void test_what_is_wrong_names_file_line_and_key(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"tabel = { };", "a.conf:1: there is no table = { ... }"},
        {"table = {\n metrc = \"ip\"; };",
         "a.conf:2: unknown key \"table.metrc\" (did you mean \"metric\"?)"},
        {"table = { metric = \"dot\"; };",
         "a.conf:1: key \"table.metric\": \"dot\" is none of ip, cosine, l2"},
        {"table = { code = \"i4\"; };", "a.conf:1: key \"table.code\": \"i4\" is none of i8, f16, f32"},
        {"table = { refine = \"none\";\n code_dim = 8; };",
         "a.conf:2: key \"table.code_dim\": only i8 codes with refine rows can have fewer dimensions than "
         "the "
         "rows"},
        {"table = { dim = 6; code_dim = 8; };",
         "a.conf:1: key \"table.code_dim\": codes of 8 dimensions for rows of 6"},
        {"table = { source = \"none\"; };", "a.conf:1: key \"table.source\": \"none\" is none of f16, f32"},
        {"table = { dim = 9000; };", "a.conf:1: key \"table.dim\": must be from 0 to 8192, not 9000"},
        {"table = { index = \"none\";\n code = \"i8\"; };",
         "a.conf:2: key \"table.code\": a table without an index has no codes"},
        {"table = { index = \"none\"; nlist = 4; };",
         "a.conf:1: key \"table.nlist\": a table without an index has no lists"},
        {"table = { index = \"none\"; refine = \"none\"; };",
         "a.conf:1: key \"table.refine\": a table without an index needs its rows: f16, f32, i8 or u8"},
        {"table = { refine = \"u8\"; };",
         "a.conf:1: key \"table.refine\": under cosine rows are normalised, and no whole numbers"},
        {"table = { queries = \"a b\"; };",
         "a.conf:1: key \"table.queries\": \"a b\" cannot name a table: letters, "
         "digits, _ and -, a letter or _ first"},
        {"table = { order_by = \"x\"; };", "a.conf:1: key \"table.order_by\": there is no attribute \"x\""},
        {"table = { order_by = \"x\"; attributes = ( { name = \"x\"; type = \"key\"; } ); };",
         "a.conf:1: key \"table.order_by\": \"x\" is a key: rows are ordered by a category or a number"},
        {"table = { fallback = ( \"any\" ); };",
         "a.conf:1: key \"table.fallback[0]\": \"any\" is none of given, segment:ATTRIBUTE, attributes"},
        {"table = { fallback = ( \"segment:age\" ); };",
         "a.conf:1: key \"table.fallback[0]\": \"age\" is not a category of this table"},
        {"table = { fallback = ( \"given\", \"given\" ); };",
         "a.conf:1: key \"table.fallback[1]\": \"given\" stands twice"},
        {"table = { attributes = ( 5 ); };", "a.conf:1: key \"table.attributes[0]\": must be a group { }"},
        {"table = { attributes = ( { type = \"key\"; } ); };",
         "a.conf:1: key \"table.attributes[0].name\": is missing"},
        {"table = { attributes = ( { name = \"x\"; } ); };",
         "a.conf:1: key \"table.attributes[0].type\": is missing"},
        {"table = { attributes = ( { name = \"id\"; type = \"key\"; } ); };",
         "a.conf:1: key \"table.attributes[0].name\": \"id\" has a meaning of its own and cannot name an "
         "attribute"},
        {"table = { attributes = ( { name = \"x\"; type = \"key\"; },\n { name = \"x\"; type = \"set\"; } ); "
         "};",
         "a.conf:2: key \"table.attributes[1].name\": a second attribute \"x\""},
        {"table = { attributes = ( { name = \"x\"; type = \"enum\"; } ); };",
         "a.conf:1: key \"table.attributes[0].type\": \"enum\" is none of category, number, set, key"},
        {"table = { attributes = ( { name = \"x\"; type = \"key\"; values = ( \"a\" ); } ); };",
         "a.conf:1: unknown key \"table.attributes[0].values\""},
        {"table = { attributes = ( { name = \"x\"; type = \"number\";\n knots = ( 2.0,\n 1.0 ); } ); };",
         "a.conf:3: key \"table.attributes[0].knots[1]\": knots must rise: 1 after 2"},
        {"table = { attributes = ( { name = \"x\"; type = \"number\"; knots = ( 1e60 ); } ); };",
         "a.conf:1: key \"table.attributes[0].knots[0]\": does not fit in 32-bit floating point"},
        {"table = { attributes = ( { name = \"x\"; type = \"number\"; knots = ( 1.0 ); representatives = ( "
         "1.0 ); } ); };",
         "a.conf:1: key \"table.attributes[0].representatives\": 1 representatives for 2 buckets"},
        {"table = { attributes = ( { name = \"x\"; type = \"number\"; age = true; knots = ( \"soon\" ); } ); "
         "};",
         "a.conf:1: key \"table.attributes[0].knots[0]\": \"soon\" is not a date or time"},
        {"table = { attributes = ( { name = \"x\"; type = \"category\"; values = ( \"a\", \"a\" ); } ); };",
         "a.conf:1: key \"table.attributes[0].values[1]\": \"a\" stands twice"},
        {"table = { attributes = ( { name = \"x\"; type = \"category\"; values = ( \"\" ); } ); };",
         "a.conf:1: key \"table.attributes[0].values[0]\": a value needs a name: the empty one stands for "
         "unknown"},
        {"table = { attributes = ( { name = \"x\"; type = \"set\"; values = ( \"a|b\" ); } ); };",
         "a.conf:1: key \"table.attributes[0].values[0]\": attribute \"x\": \"a|b\" cannot name a member"},
        {"table = { attributes = ( { name = \"x\"; type = \"set\"; open = false; } ); };",
         "a.conf:1: key \"table.attributes[0].open\": is false, but no values are declared"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_refused(cases[i].text, cases[i].message);
}

static void test_seventeen_keys_are_one_too_many(void **state)
{
    (void)state;
    char text[4096] = "table = { attributes = (";
    for (int i = 0; i < 17; i++)
        sprintf(text + strlen(text), "%s { name = \"k%d\"; type = \"key\"; }", i ? "," : "", i);
    strcat(text, " ); };");
    assert_refused(
        text,
        "a.conf:1: key \"table.attributes\": 17 key attributes, more than the 16 that a table may have");
}

static void test_a_dictionary_numbers_names_as_they_come(void **state)
{
    (void)state;
    pd_schema *schema = parse(
        "table = { attributes = ( { name = \"c\"; type = \"category\"; },"
        " { name = \"s\"; type = \"set\"; values = ( \"a\" ); }, { name = \"k\"; type = \"key\"; } ); };");
    pd_attribute *c = &schema->attributes[0];
    pd_error err;
    uint32_t value;
    for (int i = 1; i <= 255; i++) {
        char name[16];
        snprintf(name, sizeof name, "value %d", i);
        assert_int_equal(pd_attribute_value(c, name), -1);
        assert_int_equal(pd_attribute_intern(c, name, &value, &err), PD_OK);
        assert_int_equal(value, i);
    }
    assert_int_equal(pd_attribute_intern(c, "value 77", &value, &err), PD_OK);
    assert_int_equal(value, 77);
    assert_int_equal(pd_attribute_intern(c, "", &value, &err), PD_OK);
    assert_int_equal(value, 0);
    assert_int_equal(pd_attribute_intern(c, "one more", &value, &err), PD_RESOURCE_EXHAUSTED);
    assert_string_equal(err.message, "attribute \"c\": no room for \"one more\", it has 255 values already");
    pd_attribute *s = &schema->attributes[1];
    assert_int_equal(pd_attribute_intern(s, "b", &value, &err), PD_INVALID_ARGUMENT);
    assert_string_equal(err.message, "attribute \"s\": \"b\" is not one of its values");
    s->closed = 0;
    for (int i = 1; i < 64; i++) {
        char name[16];
        snprintf(name, sizeof name, "m%d", i);
        assert_int_equal(pd_attribute_intern(s, name, &value, &err), PD_OK);
    }
    assert_int_equal(pd_attribute_intern(s, "m64", &value, &err), PD_RESOURCE_EXHAUSTED);
    assert_string_equal(err.message, "attribute \"s\": no room for \"m64\", it has 64 members already");
    assert_int_equal(pd_attribute_intern(&schema->attributes[2], "x", &value, &err), PD_INVALID_ARGUMENT);
    pd_schema_free(schema);
}

static void test_names_that_are_too_long_or_not_utf8_are_refused(void **state)
{
    (void)state;
    pd_schema *schema = parse("table = { attributes = ( { name = \"c\"; type = \"category\"; } ); };");
    pd_error err;
    uint32_t value;
    char name[PD_MAX_VALUE + 2];
    memset(name, 'x', sizeof name);
    name[PD_MAX_VALUE + 1] = 0;
    assert_int_equal(pd_attribute_intern(&schema->attributes[0], name, &value, &err), PD_INVALID_ARGUMENT);
    name[PD_MAX_VALUE] = 0;
    assert_int_equal(pd_attribute_intern(&schema->attributes[0], name, &value, &err), PD_OK);
    static const char *const bad[] = {"\xff", "a\xc3", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(pd_attribute_intern(&schema->attributes[0], bad[i], &value, &err),
                         PD_INVALID_ARGUMENT);
        assert_string_equal(err.message, "attribute \"c\": a value is not UTF-8");
    }
    pd_schema_free(schema);
}

static void test_a_bucket_holds_from_its_knot_to_below_the_next(void **state)
{
    (void)state;
    pd_attribute a = {.type = PD_NUMBER, .nknots = 3, .knots = {1, 2, 4}};
    assert_int_equal(pd_attribute_bucket(&a, NAN), 0);
    assert_int_equal(pd_attribute_bucket(&a, -INFINITY), 1);
    assert_int_equal(pd_attribute_bucket(&a, 0.999f), 1);
    assert_int_equal(pd_attribute_bucket(&a, 1), 2);
    assert_int_equal(pd_attribute_bucket(&a, 1.5f), 2);
    assert_int_equal(pd_attribute_bucket(&a, 2), 3);
    assert_int_equal(pd_attribute_bucket(&a, 4), 4);
    assert_int_equal(pd_attribute_bucket(&a, INFINITY), 4);
    a.nknots = 0;
    assert_int_equal(pd_attribute_bucket(&a, 7), 1);
}

static void test_number_cells_are_decimal_and_finite(void **state)
{
    (void)state;
    pd_attribute a = {.name = "price", .type = PD_NUMBER};
    pd_error err;
    float value;
    static const struct {
        const char *cell;
        float value;
    } good[] = {{"1", 1},     {"-2.5", -2.5f}, {"+3e2", 300},
                {".5", 0.5f}, {"0.1", 0.1f},   {"16777217", 16777216.0f}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(pd_attribute_number(&a, good[i].cell, &value, &err), PD_OK);
        assert_true(value == good[i].value);
    }
    static const char *const bad[] = {"",     " 1",   "1 ",  "1,5", "nan",   "inf",
                                      "0x10", "1e99", "--1", "e",   "1.2.3", "$5"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(pd_attribute_number(&a, bad[i], &value, &err), PD_INVALID_ARGUMENT);
    assert_string_equal(err.message, "attribute \"price\": \"$5\" is not a finite decimal number");
}

static void test_times_are_days_since_1970(void **state)
{
    (void)state;
    pd_attribute a = {.name = "added", .type = PD_NUMBER, .age = 1};
    pd_error err;
    float value;
    double days;
    assert_int_equal(pd_attribute_number(&a, "1970-01-02", &value, &err), PD_OK);
    assert_true(value == 1);
    assert_int_equal(pd_attribute_number(&a, "86400", &value, &err), PD_OK);
    assert_true(value == 1);
    assert_true(pd_days_parse("2026-10-20T12:00:00Z", &days) && days == 20746.5);
    assert_true(pd_days_parse("2026-10-20T12:00Z", &days) && days == 20746.5);
    assert_true(pd_days_parse("2026-10-20 18:00:00.0Z", &days) && days == 20746.75);
    assert_true(pd_days_parse("2024-02-29", &days) && days == 19782);
    assert_true(pd_days_parse("1969-12-31", &days) && days == -1);
    assert_true(pd_days_parse("-43200.0", &days) && days == -0.5);
    static const char *const bad[] = {"",
                                      "2026-13-01",
                                      "2026-02-29",
                                      "2026-1-1",
                                      "2026-10-20T",
                                      "2026-10-20x",
                                      "2026-10-20T25:00:00Z",
                                      "2026-10-20T12:00:00",
                                      "yesterday",
                                      "2026-00-10",
                                      "2026-04-31",
                                      "1e13"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (pd_days_parse(bad[i], &days)) fail_msg("\"%s\" was taken for a time", bad[i]);
    assert_int_equal(pd_attribute_number(&a, "yesterday", &value, &err), PD_INVALID_ARGUMENT);
    assert_string_equal(err.message,
                        "attribute \"added\": \"yesterday\" is not a date, a time or unix seconds");
    assert_true(pd_days_now() > 20000 && pd_days_now() < 100000);
}

static void test_names_and_metrics_are_checked(void **state)
{
    (void)state;
    pd_error err;
    pd_metric metric;
    static const char *const good[] = {"a", "_a", "Products-2_x", "z9"};
    static const char *const bad[] = {"", "9a", "-a", "a b", "a.b", "a/../b", "naïve"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_int_equal(pd_name_check("table", good[i], &err), PD_OK);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(pd_name_check("table", bad[i], &err), PD_INVALID_ARGUMENT);
    char name[PD_MAX_NAME + 2];
    memset(name, 'x', sizeof name);
    name[PD_MAX_NAME + 1] = 0;
    assert_int_equal(pd_name_check("table", name, &err), PD_INVALID_ARGUMENT);
    name[PD_MAX_NAME] = 0;
    assert_int_equal(pd_name_check("table", name, &err), PD_OK);
    for (int m = PD_IP; m <= PD_L2; m++) {
        assert_int_equal(pd_metric_parse(pd_metric_name((pd_metric)m), &metric, &err), PD_OK);
        assert_int_equal(metric, m);
    }
    assert_int_equal(pd_metric_parse("L2", &metric, &err), PD_INVALID_ARGUMENT);
}

static void test_the_commented_schema_says_what_it_shows(void **state)
{
    (void)state;
    static char text[16384];
    FILE *file = fopen(PADOS_CONFIGS "/schemas/products.conf", "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    pd_schema *schema = parse(text);
    assert_int_equal(schema->nattributes, 7);
    assert_int_equal(schema->metric, PD_COSINE);
    assert_int_equal(pd_schema_find(schema, "popularity")->nevents, 3);
    assert_string_equal(schema->queries, "households");
    assert_true(pd_schema_find(schema, "tier")->closed);
    assert_true(pd_schema_find(schema, "added")->age);
    pd_schema_free(schema);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_empty_table_has_the_defaults),
        cmocka_unit_test(test_codes_that_are_the_row_itself_need_no_refine_rows),
        cmocka_unit_test(test_every_key_is_read),
        cmocka_unit_test(test_attributes_map_to_columns_in_their_order),
        cmocka_unit_test(test_a_set_of_twelve_members_takes_a_plane_and_a_half),
        cmocka_unit_test(test_a_look_up_table_has_neither_codes_nor_lists),
        cmocka_unit_test(test_a_complete_schema_comes_back_from_its_text),
        cmocka_unit_test(test_a_counter_has_a_half_life_and_weighs_its_events),
        cmocka_unit_test(test_counters_and_consent_come_back_from_their_text),
        cmocka_unit_test(test_consent_is_a_category_named_or_called_so),
        cmocka_unit_test(test_a_counter_has_at_most_32_events),
        cmocka_unit_test(test_a_counter_that_is_wrong_names_file_line_and_key),
        cmocka_unit_test(test_a_counter_does_not_begin_below_zero),
        cmocka_unit_test(test_the_default_schema_comes_back_from_its_text),
        cmocka_unit_test(test_a_schema_with_nan_has_no_text),
        cmocka_unit_test(test_what_is_wrong_names_file_line_and_key),
        cmocka_unit_test(test_seventeen_keys_are_one_too_many),
        cmocka_unit_test(test_a_dictionary_numbers_names_as_they_come),
        cmocka_unit_test(test_names_that_are_too_long_or_not_utf8_are_refused),
        cmocka_unit_test(test_a_bucket_holds_from_its_knot_to_below_the_next),
        cmocka_unit_test(test_number_cells_are_decimal_and_finite),
        cmocka_unit_test(test_times_are_days_since_1970),
        cmocka_unit_test(test_names_and_metrics_are_checked),
        cmocka_unit_test(test_the_commented_schema_says_what_it_shows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
