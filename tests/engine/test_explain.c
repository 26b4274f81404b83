/* Explanations: their terms sum to the score that kernels/score.h writes down, and name the row's values. */
#include "profile_fixture.h"

#include <math.h>
#include <stdio.h>

typedef struct row {
    uint8_t bytes[20];
    float floats[2];
    uint64_t keys[2];
} row;

/* score.h, word by word. */
static float score_of(const shop *s, const pd_compiled *c, float similarity, const row *r)
{
    float score = c->similarity * similarity + 0.0f;
    for (uint32_t column = 0; c->weights && column < 20; column++) {
        uint32_t at = s->layout.weight_at[column],
                 end = column < 19 ? s->layout.weight_at[column + 1] : s->layout.weights;
        if (end > at) score = score + c->weights[at + r->bytes[column]];
    }
    for (uint32_t i = 0; i < c->nkey_weights; i++)
        if (r->keys[c->key_weights[i].column] == c->key_weights[i].value)
            score = score + c->key_weights[i].weight;
    return score;
}

static const pd_term *term_of(const pd_term *terms, uint32_t count, const char *attribute)
{
    for (uint32_t i = 0; i < count; i++)
        if (!strcmp(terms[i].attribute, attribute)) return &terms[i];
    return NULL;
}

static const char body[] =
    "context = ( \"lang\" ); similarity = 0.8; terms = ("
    " { attribute = \"department\"; weights = ( (\"SWEETS\", 0.3) ); },"
    " { attribute = \"language\"; matches = \"lang\"; weight = 0.15; },"
    " { attribute = \"price\"; curve = ( (0.0, 0.2), (5.0, 0.05), (20.0, -0.3) ); },"
    " { attribute = \"tags\"; weights = ( (\"t1\", 0.1), (\"t8\", 0.2), (\"t9\", -0.7) ); },"
    " { attribute = \"brand\"; weights = ( (7, 0.4), (8, 0.5) ); } );";

static void test_the_terms_are_named_and_weighed(void **state)
{
    shop *s = *state;
    pd_compiled c;
    compile(s, body, CONTEXT1("lang", "hi"), &c);
    row r = {.bytes = {2, 2, 3, 3}, .floats = {6.25f, 20740.5f}, .keys = {7, 99}};
    r.bytes[12] = 1 << 1; /* t1 */
    r.bytes[13] = 1 << 0; /* t8 */
    pd_term terms[9];
    uint32_t count;
    float score = score_of(s, &c, 0.5f, &r);
    pd_explain(s->schema, &s->layout, &c, score, r.bytes, r.floats, r.keys, terms, &count);
    assert_int_equal(count, 6); /* zones, added and seller are not weighed */
    assert_string_equal(terms[0].attribute, "similarity");
    assert_string_equal(terms[0].value, "");
    assert_true(fabsf(terms[0].weight - 0.4f) < 1e-6f);
    assert_string_equal(term_of(terms, count, "department")->value, "SWEETS");
    assert_weight(term_of(terms, count, "department")->weight, 0.3f);
    assert_string_equal(term_of(terms, count, "language")->value, "en");
    assert_weight(term_of(terms, count, "language")->weight, 0);
    assert_string_equal(term_of(terms, count, "price")->value, "6.25");
    assert_string_equal(term_of(terms, count, "tags")->value, "t1|t8");
    assert_weight(term_of(terms, count, "tags")->weight, 0.1f + 0.2f);
    assert_string_equal(term_of(terms, count, "brand")->value, "7");
    assert_weight(term_of(terms, count, "brand")->weight, 0.4f);
    pd_compiled_free(&c);
}

static void test_the_terms_of_any_row_sum_to_its_score(void **state)
{
    shop *s = *state;
    pd_compiled c;
    compile(s, body, CONTEXT1("lang", "hi|ta"), &c);
    uint32_t seed = 12345;
    for (int i = 0; i < 2000; i++) {
        row r = {.floats = {NAN, NAN}};
#define DRAW(n) ((seed = seed * 1664525u + 1013904223u) >> 16) % (n)
        r.bytes[0] = (uint8_t)(DRAW(4));
        r.bytes[1] = (uint8_t)(DRAW(4));
        r.bytes[2] = (uint8_t)(DRAW(5));
        r.bytes[12] = (uint8_t)(DRAW(256));
        r.bytes[13] = (uint8_t)(DRAW(4));
        r.keys[0] = DRAW(10);
        float similarity = ((float)(DRAW(2001)) - 1000.0f) * (i % 7 ? 0.001f : 3.7f);
#undef DRAW
        pd_term terms[9];
        uint32_t count;
        float score = score_of(s, &c, similarity, &r);
        pd_explain(s->schema, &s->layout, &c, score, r.bytes, r.floats, r.keys, terms, &count);
        double sum = 0;
        for (uint32_t t = 0; t < count; t++)
            sum += (double)terms[t].weight;
        assert_true(fabs(sum - (double)score) <= 1e-5 * (1 + fabs((double)score)));
        assert_true(fabs((double)terms[0].weight - (double)(0.8f * similarity)) <=
                    1e-5 * (1 + fabs((double)score)));
    }
    pd_compiled_free(&c);
}

static void test_without_weights_there_is_similarity_alone(void **state)
{
    shop *s = *state;
    pd_compiled c;
    compile(s, NULL, NULL, &c);
    row r = {.bytes = {1}};
    pd_term terms[9];
    uint32_t count;
    pd_explain(s->schema, &s->layout, &c, -3.5f, r.bytes, r.floats, r.keys, terms, &count);
    assert_int_equal(count, 1);
    assert_weight(terms[0].weight, -3.5);
    pd_compiled_free(&c);
}

static void assert_text(const shop *s, const char *name, const row *r, const char *expected)
{
    char text[PD_MAX_VALUE * 8];
    pd_attribute_text(pd_schema_find(s->schema, name), r->bytes, r->floats, r->keys, text, sizeof text);
    assert_string_equal(text, expected);
}

static void test_values_are_written_for_people(void **state)
{
    shop *s = *state;
    row unknown = {.floats = {NAN, NAN}};
    static const char *const names[] = {"department", "language", "price", "added",
                                        "zones",      "tags",     "brand", "seller"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        assert_text(s, names[i], &unknown, "");
    row r = {.bytes = {3, 200, 1, 1, 0x0f}, .floats = {0.1f, 20746}, .keys = {UINT64_MAX, 1}};
    assert_text(s, "department", &r, "TOBACCO");
    assert_text(s, "language", &r, "#200"); /* newer than this dictionary */
    assert_text(s, "price", &r, "0.1");
    assert_text(s, "added", &r, "2026-10-20");
    assert_text(s, "zones", &r, "n|s|e|w");
    assert_text(s, "brand", &r, "18446744073709551615");
    r.floats[0] = 16777216.0f;
    assert_text(s, "price", &r, "16777216");
    r.floats[1] = 19782.25f;
    assert_text(s, "added", &r, "2024-02-29T06:00Z");
    r.floats[1] = -0.5f;
    assert_text(s, "added", &r, "1969-12-31T12:00Z");
}

static void test_a_value_is_cut_between_characters(void **state)
{
    (void)state;
    shop s;
    uint32_t value;
    pd_error err;
    shop_open(&s);
    assert_int_equal(pd_attribute_intern(&s.schema->attributes[1], "पड़ोस", &value, &err), PD_OK);
    row r = {.bytes = {0, (uint8_t)value}};
    char text[8];
    pd_attribute_text(&s.schema->attributes[1], r.bytes, r.floats, r.keys, text, sizeof text);
    assert_string_equal(text, "पड"); /* two characters of three bytes; the third does not fit */
    shop_close(&s);
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
        cmocka_unit_test(test_the_terms_are_named_and_weighed),
        cmocka_unit_test(test_the_terms_of_any_row_sum_to_its_score),
        cmocka_unit_test(test_without_weights_there_is_similarity_alone),
        cmocka_unit_test(test_values_are_written_for_people),
        cmocka_unit_test(test_a_value_is_cut_between_characters),
    };
    return cmocka_run_group_tests(tests, open_shop, close_shop);
}
