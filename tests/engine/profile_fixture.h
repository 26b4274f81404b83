/* A shop's schema and short ways to ask of it, for the tests of profiles. */
#ifndef PROFILE_FIXTURE_H
#define PROFILE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "profile.h"

#define NOW 20750.0 /* 2026-10-24 */

/* Byte columns: department 0, language 1, price 2, added 3, zones 4..11, tags 12..19. Float columns: price, added.
 * Key columns: brand, seller. */
static const char shop_text[] =
    "table = { dim = 4; attributes = (\n"
    "  { name = \"department\"; type = \"category\"; values = ( \"GROCERY\", \"SWEETS\", \"TOBACCO\" ); },\n"
    "  { name = \"language\"; type = \"category\"; values = ( \"hi\", \"en\", \"ta\" ); open = true; },\n"
    "  { name = \"price\"; type = \"number\"; knots = ( 2.0, 5.0, 10.0 ); representatives = ( 1.0, 3.0, 7.0, "
    "40.0 ); },\n"
    "  { name = \"added\"; type = \"number\"; age = true; knots = ( 20700, 20740 ); "
    "    representatives = ( 20600, 20735, 20760 ); },\n"
    "  { name = \"zones\"; type = \"set\"; values = ( \"n\", \"s\", \"e\", \"w\" ); },\n"
    "  { name = \"tags\"; type = \"set\"; values = ( \"t0\", \"t1\", \"t2\", \"t3\", \"t4\", \"t5\", \"t6\", "
    "\"t7\", \"t8\", "
    "\"t9\" ); open = true; },\n"
    "  { name = \"brand\"; type = \"key\"; },\n"
    "  { name = \"seller\"; type = \"key\"; } ); };\n";

typedef struct shop {
    pd_schema *schema;
    pd_layout layout;
} shop;

static inline void shop_open(shop *s)
{
    pd_error err;
    pd_shape shape;
    if (pd_schema_parse("shop", shop_text, strlen(shop_text), &s->schema, &err) != PD_OK)
        fail_msg("%s", err.message);
    pd_schema_shape(s->schema, 8, &shape);
    if (pd_layout_of(&shape, &s->layout, &err) != PD_OK) fail_msg("%s", err.message);
}

static inline void shop_close(shop *s)
{
    pd_schema_free(s->schema);
}

/* body: what stands in profile = { name = "p"; table = "products"; ... }, on line 1. */
static inline char *profile_text(const char *body)
{
    static const char before[] = "profile = { name = \"p\"; table = \"products\"; ", after[] = " };";
    char *text = malloc(sizeof before + sizeof after + strlen(body));
    assert_non_null(text);
    stpcpy(stpcpy(stpcpy(text, before), body), after);
    return text;
}

static inline pd_profile *profile_of(const char *body)
{
    pd_profile *profile;
    pd_error err;
    char *text = profile_text(body);
    if (pd_profile_parse("p.conf", text, strlen(text), &profile, &err) != PD_OK) fail_msg("%s", err.message);
    free(text);
    pd_profile_set_version(profile, 3);
    return profile;
}

#define TEXTS(...)           ((const char *const[]){__VA_ARGS__})
#define CONTEXT1(k, v)       (&(pd_context){1, TEXTS(k), TEXTS(v)})
#define CONTEXT2(k, v, l, w) (&(pd_context){2, TEXTS(k, l), TEXTS(v, w)})

static inline void compile_ask(const shop *s, const char *body, const pd_ask *ask, pd_compiled *out)
{
    pd_error err;
    pd_profile *profile = body ? profile_of(body) : NULL;
    if (pd_compile(s->schema, &s->layout, profile, ask, out, &err) != PD_OK) fail_msg("%s", err.message);
    pd_profile_release(profile);
}

static inline void compile(const shop *s, const char *body, const pd_context *context, pd_compiled *out)
{
    compile_ask(s, body, &(pd_ask){.context = context, .now = NOW}, out);
}

static inline void assert_ask_refused(const shop *s, const char *body, const pd_ask *ask, pd_status status,
                                      const char *message)
{
    pd_compiled out;
    pd_error err;
    pd_profile *profile = body ? profile_of(body) : NULL;
    assert_int_equal(pd_compile(s->schema, &s->layout, profile, ask, &out, &err), status);
    assert_string_equal(err.message, message);
    assert_null(out.memory);
    pd_profile_release(profile);
}

static inline void assert_warned(const pd_compiled *c, const char *warning)
{
    for (uint32_t i = 0; i < c->nwarnings; i++)
        if (!strcmp(c->warnings[i], warning)) return;
    fail_msg("no warning: %s (but %s)", warning, c->nwarnings ? c->warnings[0] : "none at all");
}

static inline float weight_at(const shop *s, const pd_compiled *c, uint32_t column, uint32_t value)
{
    return c->weights ? c->weights[s->layout.weight_at[column] + value] : 0;
}

static inline float key_weight(const pd_compiled *c, uint32_t column, uint64_t value)
{
    for (uint32_t i = 0; i < c->nkey_weights; i++)
        if (c->key_weights[i].column == column && c->key_weights[i].value == value)
            return c->key_weights[i].weight;
    return 0;
}

/* A float is the one that is written. */
#define assert_weight(got, want) assert_true((got) == (float)(want))

#endif
