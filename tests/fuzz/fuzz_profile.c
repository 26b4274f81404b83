/* Profiles from arbitrary text, checked against a shop's schema and compiled with a context. Whatever compiles must have
 * finite weights, keys in order, a weight of zero for what is unknown, and an explanation that sums to the score. */
#include "fuzz_seeds.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "profile.h"

static const char shop[] =
    "table = { dim = 4; attributes = ( { name = \"department\"; type = \"category\"; values = ( \"A\", "
    "\"B\", \"C\" ); },"
    " { name = \"language\"; type = \"category\"; values = ( \"hi\", \"en\" ); open = true; },"
    " { name = \"price\"; type = \"number\"; knots = ( 2.0, 5.0, 10.0 ); },"
    " { name = \"added\"; type = \"number\"; age = true; knots = ( 20700, 20740 ); },"
    " { name = \"zones\"; type = \"set\"; values = ( \"n\", \"s\", \"e\", \"w\" ); },"
    " { name = \"brand\"; type = \"key\"; } ); };";

static pd_schema *schema;
static pd_layout layout;

static void make_seeds(int argc, char **argv)
{
    static const char ages[] = "profile = { name = \"a\"; table = \"b\"; terms = ( { attribute = \"added\";"
                               " curve = ( (-1, 1), (1e9, 2) ); } ); };";
    static const char *const seeds[] = {
        "profile = { name = \"festive\"; table = \"products\"; similarity = 0.9; strict = false;\n"
        " context = ( \"festival\", \"language\", \"zone\", \"budget\" );\n"
        " valid = { from = \"2026-10-20\"; until = \"2026-11-15\"; };\n"
        " terms = ( { attribute = \"department\"; when = { festival = ( \"diwali\", \"holi\" ); };\n"
        "   weights = ( (\"A\", 0.30), (\"B\", -0.25) ); },\n"
        "  { attribute = \"language\"; matches = \"language\"; weight = 0.15; },\n"
        "  { attribute = \"zones\"; matches = \"zone\"; weight = 1; },\n"
        "  { attribute = \"price\"; curve = ( (0.0, 0.20), (5.0, 0.05), (20.0, -0.30) ); },\n"
        "  { attribute = \"brand\"; weights = ( (1042L, 0.4), (7, 1e8) ); } );\n"
        " filters = ( { attribute = \"department\"; is_not = ( \"C\" ); }, { attribute = \"price\"; at_most "
        "= \"$budget\"; },\n"
        "  { attribute = \"zones\"; any_of = \"$zone\"; }, { attribute = \"added\"; at_least = 3; },\n"
        "  { attribute = \"brand\"; is = ( 5, 4L ); } );\n"
        " diversity = ( { attribute = \"brand\"; at_most = 3; } ); };\n",
        "profile = { name = \"a\"; table = \"b\"; filters = ( { attribute = \"zones\"; all_of = \"n\"; },"
        " { attribute = \"language\"; is = \"$$x\"; }, { attribute = \"added\"; at_most = \"2026-10-20\"; } "
        "); };",
        ages,
    };
    for (size_t i = 0; i < sizeof seeds / sizeof seeds[0]; i++) {
        char name[2] = {(char)('a' + i), 0};
        fuzz_seed(argc, argv, name, seeds[i], strlen(seeds[i]));
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    pd_shape shape;
    if (pd_schema_parse("shop", shop, strlen(shop), &schema, NULL) != PD_OK) abort();
    pd_schema_shape(schema, 4, &shape);
    if (pd_layout_of(&shape, &layout, NULL) != PD_OK) abort();
    make_seeds(*argc, *argv);
    return 0;
}

static void check_weights(const pd_compiled *c)
{
    for (uint32_t i = 0; c->weights && i < layout.weights; i++)
        if (!isfinite(c->weights[i])) abort();
    for (uint32_t column = 0; c->weights && column < schema->nbytes; column++) {
        int stored = layout.weight_at[column] < layout.weights;
        if (stored && c->weights[layout.weight_at[column]] != 0) abort();
    }
    for (uint32_t i = 0; i < c->nkey_weights; i++) {
        const pd_key_weight *key = &c->key_weights[i];
        if (!isfinite(key->weight) || key->value == 0 || key->column >= schema->nkeys) abort();
        if (i > 0 &&
            (key[-1].column > key->column || (key[-1].column == key->column && key[-1].value >= key->value)))
            abort();
    }
    for (uint32_t i = 0; i < c->filter.nkeys; i++)
        for (uint32_t v = 1; v < c->filter.keys[i].count; v++)
            if (c->filter.keys[i].values[v - 1] >= c->filter.keys[i].values[v]) abort();
    if (!(c->similarity >= 0)) abort();
}

/* One row, scored as kernels/score.h says. */
static void check_explanation(const pd_compiled *c)
{
    const uint8_t bytes[12] = {1, 2, 3, 2, 5};
    const float floats[2] = {7, 20730};
    const uint64_t keys[1] = {7};
    pd_term terms[PD_MAX_ATTRIBUTES + 1];
    uint32_t count;
    float score = c->similarity * 0.5f + 0.0f;
    for (uint32_t column = 0; c->weights && column < 5; column++)
        score = score + c->weights[layout.weight_at[column] + bytes[column]];
    for (uint32_t i = 0; i < c->nkey_weights; i++)
        if (c->key_weights[i].value == keys[0]) score = score + c->key_weights[i].weight;
    pd_explain(schema, &layout, c, score, bytes, floats, keys, terms, &count);
    double sum = 0;
    for (uint32_t i = 0; i < count; i++)
        sum += (double)terms[i].weight;
    double largest = 0;
    for (uint32_t i = 0; i < count; i++)
        largest = fmax(largest, fabs((double)terms[i].weight));
    if (fabs(sum - (double)score) > 1e-5 * (1 + fabs((double)score)) + 1e-6 * largest) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"festival", "language", "zone", "budget"};
    static const char *const values[] = {"diwali|x", "en", "n|w", "12.5"};
    static const pd_override overrides[] = {{"department", "B", 0.5f}, {"price", "", 2}, {"brand", "7", 1}};
    static const char *const departments[] = {"A", "B"};
    static const pd_condition condition = {"department", PD_IS, 2, departments};
    const pd_context context = {4, names, values};
    const pd_ask asks[2] = {
        {.context = &context, .now = 20750},
        {.overrides = overrides, .noverrides = 3, .conditions = &condition, .nconditions = 1, .now = 20000}};
    pd_profile *profile;
    pd_error err;
    pd_status status = pd_profile_parse("fuzz", (const char *)data, size, &profile, &err);
    if (status != PD_OK) {
        if (status != PD_INVALID_ARGUMENT || profile || !err.message[0]) abort();
        return 0;
    }
    int fits = pd_profile_check(profile, schema, &err) == PD_OK;
    for (int i = 0; i < 2; i++) {
        pd_compiled c;
        status = pd_compile(schema, &layout, profile, &asks[i], &c, &err);
        if (status == PD_OK) {
            check_weights(&c);
            check_explanation(&c);
            pd_compiled_free(&c);
        } else if (c.memory ||
                   (i == 1 && fits && status != PD_FAILED_PRECONDITION && status != PD_INVALID_ARGUMENT)) {
            abort();
        }
    }
    pd_profile_release(profile);
    return 0;
}
