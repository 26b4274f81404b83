/* A schema's text, read. Every key is checked where it stands, so that an error names file, line and key. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "conf.h"
#include "schema_impl.h"

#define SHORTEST_HALF_LIFE 0.01 /* hours */
#define LONGEST_HALF_LIFE  1e6

/* One word of several; the place of the word in words, fallback where the key is absent. */
static int one_of(pd_conf *conf, pd_setting *in, const char *key, const char *const *words, int count,
                  int fallback)
{
    pd_setting *setting = pd_conf_get(conf, in, key);
    if (!setting) return fallback;
    const char *word = pd_conf_as_string(conf, setting);
    if (pd_conf_failed(conf)) return fallback;
    char all[128] = "";
    for (int i = 0; i < count; i++) {
        if (!words[i]) continue;
        if (!strcmp(words[i], word)) return i;
        if (all[0]) strcat(all, ", ");
        strcat(all, words[i]);
    }
    pd_conf_fail(conf, setting, "\"%.64s\" is none of %s", word, all);
    return fallback;
}

/* An optional name into room of PD_MAX_NAME + 1. */
static void name_at(pd_conf *conf, pd_setting *in, const char *key, const char *what, char *name)
{
    pd_error error;
    pd_setting *setting = pd_conf_get(conf, in, key);
    if (!setting) return;
    const char *text = pd_conf_as_string(conf, setting);
    if (pd_conf_failed(conf)) return;
    if (pd_name_check(what, text, &error) != PD_OK)
        pd_conf_fail(conf, setting, "%s", error.message);
    else
        strcpy(name, text);
}

/* ---------------------------------------------------------------------------------------------- attributes --- */

/* A number in the attribute's unit; a time may be written as one. */
static float number_of(pd_conf *conf, const pd_attribute *attribute, pd_setting *setting)
{
    if (attribute->age && pd_conf_is_string(setting)) {
        double days;
        const char *text = pd_conf_as_string(conf, setting);
        if (pd_days_parse(text, &days)) return (float)days;
        pd_conf_fail(conf, setting, "\"%.64s\" is not a date or time", text);
        return 0;
    }
    float value = (float)pd_conf_as_float(conf, setting);
    if (!isfinite(value)) pd_conf_fail(conf, setting, "does not fit in 32-bit floating point");
    return value;
}

/* ("NAME", WEIGHT) */
static void parse_event(pd_conf *conf, pd_setting *pair, pd_event *events, uint32_t i)
{
    if (!pd_conf_is_list(pair) || pd_conf_length(pair) != 2) {
        pd_conf_fail(conf, pair, "must be an event's name and its weight, (\"view\", 0.1)");
        return;
    }
    pd_setting *name = pd_conf_at(conf, pair, 0), *weight = pd_conf_at(conf, pair, 1);
    const char *text = pd_conf_as_string(conf, name);
    events[i].weight = pd_conf_as_float(conf, weight);
    if (pd_conf_failed(conf)) return;
    size_t length = strlen(text);
    if (length == 0 || length > PD_MAX_VALUE) {
        pd_conf_fail(conf, name, "an event's name has 1 to %d bytes, this one %zu", PD_MAX_VALUE, length);
        return;
    }
    if (events[i].weight < 0)
        pd_conf_fail(conf, weight, "%g is below 0: a counter only rises", events[i].weight);
    memcpy(events[i].name, text, length + 1);
    for (uint32_t j = 0; j < i; j++)
        if (!strcmp(events[j].name, text)) pd_conf_fail(conf, name, "\"%s\" stands twice", text);
}

static void parse_feedback(pd_conf *conf, pd_setting *in, pd_attribute *attribute)
{
    pd_setting *feedback = pd_conf_group(conf, in, "feedback");
    if (!feedback) return;
    attribute->counts = 1;
    if (attribute->age) pd_conf_fail(conf, feedback, "an age is not counted");
    if (!pd_conf_has(conf, feedback, "half_life_hours"))
        pd_conf_fail(conf, feedback, "half_life_hours is missing");
    /* In f32, so that its text names it exactly. */
    float hours =
        (float)pd_conf_float(conf, feedback, "half_life_hours", 1, SHORTEST_HALF_LIFE, LONGEST_HALF_LIFE);
    attribute->half_life = (double)hours / 24;
    pd_setting *list = pd_conf_list(conf, feedback, "events");
    int n = pd_conf_length(list);
    if (list && n == 0) pd_conf_fail(conf, list, "is empty: without the key, every event counts");
    if (n > PD_MAX_EVENTS) pd_conf_fail(conf, list, "%d events, more than %d", n, PD_MAX_EVENTS);
    if (!n || pd_conf_failed(conf)) return;
    pd_event *events = calloc((size_t)n, sizeof *events);
    pd_error error = {0};
    if (!events) {
        pd_conf_fail(conf, list, "no memory for %d events", n);
        return;
    }
    for (int i = 0; i < n && !pd_conf_failed(conf); i++)
        parse_event(conf, pd_conf_at(conf, list, i), events, (uint32_t)i);
    if (!pd_conf_failed(conf) && pd_attribute_set_events(attribute, events, (uint32_t)n, &error) != PD_OK)
        pd_conf_fail(conf, list, "%s", error.message);
    free(events);
}

static void parse_number(pd_conf *conf, pd_setting *in, pd_attribute *attribute)
{
    attribute->age = pd_conf_bool(conf, in, "age", 0);
    parse_feedback(conf, in, attribute);
    pd_setting *knots = pd_conf_list(conf, in, "knots");
    int n = pd_conf_length(knots);
    if (n > PD_MAX_KNOTS) {
        pd_conf_fail(conf, knots, "%d knots, more than %d", n, PD_MAX_KNOTS);
        return;
    }
    for (int i = 0; i < n && !pd_conf_failed(conf); i++) {
        pd_setting *knot = pd_conf_at(conf, knots, i);
        attribute->knots[i] = number_of(conf, attribute, knot);
        if (i > 0 && attribute->knots[i] <= attribute->knots[i - 1])
            pd_conf_fail(conf, knot, "knots must rise: %g after %g", (double)attribute->knots[i],
                         (double)attribute->knots[i - 1]);
    }
    attribute->nknots = (uint32_t)n;
    attribute->chosen = pd_conf_bool(conf, in, "chosen", 0);
    if (attribute->age) attribute->ages_on = (float)pd_conf_float(conf, in, "ages_on", 0, 0, 1e6);
    pd_attribute_guess_representatives(attribute);
    pd_setting *given = pd_conf_list(conf, in, "representatives");
    if (!given) return;
    if (pd_conf_length(given) != n + 1) {
        pd_conf_fail(conf, given, "%d representatives for %d buckets", pd_conf_length(given), n + 1);
        return;
    }
    for (int i = 0; i < n + 1 && !pd_conf_failed(conf); i++)
        attribute->representatives[i + 1] = number_of(conf, attribute, pd_conf_at(conf, given, i));
}

static void parse_dictionary(pd_conf *conf, pd_setting *in, pd_attribute *attribute)
{
    pd_setting *values = pd_conf_list(conf, in, "values");
    int open = pd_conf_bool(conf, in, "open", values == NULL);
    for (int i = 0; i < pd_conf_length(values) && !pd_conf_failed(conf); i++) {
        pd_error error;
        uint32_t value;
        pd_setting *at = pd_conf_at(conf, values, i);
        const char *name = pd_conf_as_string(conf, at);
        if (pd_conf_failed(conf)) return;
        if (!name[0])
            pd_conf_fail(conf, at, "a value needs a name: the empty one stands for unknown");
        else if (pd_attribute_value(attribute, name) >= 0)
            pd_conf_fail(conf, at, "\"%.*s\" stands twice", PD_MAX_VALUE, name);
        else if (pd_attribute_add(attribute, name, &value, &error) != PD_OK)
            pd_conf_fail(conf, at, "%s", error.message);
    }
    if (!values && !open)
        pd_conf_fail(conf, pd_conf_get(conf, in, "open"), "is false, but no values are declared");
    attribute->closed = !open;
}

static void parse_attribute(pd_conf *conf, pd_setting *in, pd_schema *schema)
{
    static const char *const types[] = {
        [PD_CATEGORY] = "category", [PD_NUMBER] = "number", [PD_SET] = "set", [PD_KEY] = "key"};
    pd_attribute *attribute = &schema->attributes[schema->nattributes];
    if (!pd_conf_is_group(in)) {
        pd_conf_fail(conf, in, "must be a group { }");
        return;
    }
    (void)pd_conf_need_string(conf, in, "name");
    (void)pd_conf_need_string(conf, in, "type");
    name_at(conf, in, "name", "attribute", attribute->name);
    attribute->type = (pd_attribute_type)one_of(conf, in, "type", types, 4, 0);
    if (pd_conf_failed(conf)) return;
    pd_setting *name = pd_conf_get(conf, in, "name");
    if (!strcmp(attribute->name, "similarity") || !strcmp(attribute->name, "id")) {
        pd_conf_fail(conf, name, "\"%s\" has a meaning of its own and cannot name an attribute",
                     attribute->name);
        return;
    }
    if (pd_schema_find(schema, attribute->name)) {
        pd_conf_fail(conf, name, "a second attribute \"%s\"", attribute->name);
        return;
    }
    pd_error error;
    schema->nattributes++; /* from here on pd_schema_free knows it */
    if (pd_attribute_open(attribute, &error) != PD_OK)
        pd_conf_fail(conf, in, "%s", error.message);
    else if (attribute->type == PD_NUMBER)
        parse_number(conf, in, attribute);
    else if (attribute->type != PD_KEY)
        parse_dictionary(conf, in, attribute);
}

static void parse_attributes(pd_conf *conf, pd_setting *table, pd_schema *schema)
{
    pd_setting *attributes = pd_conf_list(conf, table, "attributes");
    int n = pd_conf_length(attributes);
    if (n > PD_MAX_ATTRIBUTES) {
        pd_conf_fail(conf, attributes, "%d attributes, more than %d", n, PD_MAX_ATTRIBUTES);
        return;
    }
    for (int i = 0; i < n && !pd_conf_failed(conf); i++)
        parse_attribute(conf, pd_conf_at(conf, attributes, i), schema);
    pd_error error;
    if (!pd_conf_failed(conf) && pd_schema_columns(schema, &error) != PD_OK)
        pd_conf_fail(conf, attributes, "%s", error.message);
}

/* --------------------------------------------------------------------------------------------------- table --- */

static void parse_order(pd_conf *conf, pd_setting *table, pd_schema *schema)
{
    name_at(conf, table, "order_by", "attribute", schema->order_by);
    if (pd_conf_failed(conf) || !schema->order_by[0]) return;
    pd_setting *at = pd_conf_get(conf, table, "order_by");
    const pd_attribute *attribute = pd_schema_find(schema, schema->order_by);
    if (!attribute)
        pd_conf_fail(conf, at, "there is no attribute \"%s\"", schema->order_by);
    else if (attribute->type != PD_CATEGORY && attribute->type != PD_NUMBER)
        pd_conf_fail(conf, at, "\"%s\" is a %s: rows are ordered by a category or a number", schema->order_by,
                     pd_type_name(attribute->type));
}

/* An attribute of that name is what keeps a row from being a query, whether the schema says so or not. */
static void parse_consent(pd_conf *conf, pd_setting *table, pd_schema *schema)
{
    static const char usual[] = "consent";
    name_at(conf, table, "consent", "attribute", schema->consent);
    if (pd_conf_failed(conf)) return;
    const pd_attribute *attribute = pd_schema_find(schema, schema->consent[0] ? schema->consent : usual);
    int fits = attribute && attribute->type == PD_CATEGORY;
    if (!schema->consent[0] && fits) memcpy(schema->consent, usual, sizeof usual);
    if (schema->consent[0] && !fits)
        pd_conf_fail(conf, pd_conf_get(conf, table, "consent"), "\"%s\" is not a category of this table",
                     schema->consent);
}

static void parse_rung(pd_conf *conf, pd_setting *at, pd_schema *schema)
{
    const char *word = pd_conf_as_string(conf, at);
    if (pd_conf_failed(conf)) return;
    unsigned i = schema->nfallback;
    char *segment = schema->fallback[i].attribute;
    if (!strcmp(word, "given")) {
        schema->fallback[i].kind = PD_RUNG_GIVEN;
    } else if (!strcmp(word, "attributes")) {
        schema->fallback[i].kind = PD_RUNG_ATTRIBUTES;
    } else if (!strncmp(word, "segment:", 8)) {
        const pd_attribute *attribute = pd_schema_find(schema, word + 8);
        schema->fallback[i].kind = PD_RUNG_SEGMENT;
        if (!attribute || attribute->type != PD_CATEGORY) {
            pd_conf_fail(conf, at, "\"%.64s\" is not a category of this table", word + 8);
            return;
        }
        strcpy(segment, attribute->name);
    } else {
        pd_conf_fail(conf, at, "\"%.64s\" is none of given, segment:ATTRIBUTE, attributes", word);
        return;
    }
    for (unsigned j = 0; j < i; j++)
        if (schema->fallback[j].kind == schema->fallback[i].kind &&
            !strcmp(schema->fallback[j].attribute, segment))
            pd_conf_fail(conf, at, "\"%s\" stands twice", word);
    schema->nfallback++;
}

static void parse_fallback(pd_conf *conf, pd_setting *table, pd_schema *schema)
{
    pd_setting *rungs = pd_conf_list(conf, table, "fallback");
    int n = pd_conf_length(rungs), room = (int)(sizeof schema->fallback / sizeof schema->fallback[0]);
    if (n > room) {
        pd_conf_fail(conf, rungs, "%d rungs, more than %d", n, room);
        return;
    }
    for (int i = 0; i < n && !pd_conf_failed(conf); i++)
        parse_rung(conf, pd_conf_at(conf, rungs, i), schema);
}

/* How rows are kept. Codes of f16 and f32 are the row itself, so refine rows beside them are kept only when asked. */
static void parse_storage(pd_conf *conf, pd_setting *table, pd_schema *schema)
{
    static const char *const indexes[] = {"none", "ivf"};
    static const char *const codes[] = {[PD_CODE_I8] = "i8", [PD_CODE_F16] = "f16", [PD_CODE_F32] = "f32"};
    static const char *const refines[] = {[PD_REFINE_NONE] = "none",
                                          [PD_REFINE_F16] = "f16",
                                          [PD_REFINE_F32] = "f32",
                                          [PD_REFINE_I8] = "i8",
                                          [PD_REFINE_U8] = "u8"};
    static const char *const sources[] = {[PD_REFINE_F16] = "f16", [PD_REFINE_F32] = "f32"};
    schema->index = one_of(conf, table, "index", indexes, 2, 1);
    pd_setting *code = pd_conf_get(conf, table, "code");
    schema->code = (pd_code)one_of(conf, table, "code", codes, 4, schema->index ? PD_CODE_I8 : PD_CODE_NONE);
    int whole = schema->code == PD_CODE_F16 || schema->code == PD_CODE_F32;
    schema->refine =
        (pd_refine)one_of(conf, table, "refine", refines, 5, whole ? PD_REFINE_NONE : PD_REFINE_F16);
    schema->refine_said = pd_conf_get(conf, table, "refine") != NULL;
    schema->source = (pd_refine)one_of(conf, table, "source", sources, 3, PD_REFINE_F32);
    schema->nlist = (uint32_t)pd_conf_int(conf, table, "nlist", 0, 0, 1 << 24);
    pd_setting *code_dim = pd_conf_get(conf, table, "code_dim");
    schema->code_dim = (uint32_t)pd_conf_int(conf, table, "code_dim", 0, 0, PD_MAX_DIM);
    if (pd_conf_failed(conf)) return;
    if ((schema->refine == PD_REFINE_I8 || schema->refine == PD_REFINE_U8) && schema->metric == PD_COSINE)
        pd_conf_fail(conf, pd_conf_get(conf, table, "refine"),
                     "under cosine rows are normalised, and no whole numbers");
    if (pd_conf_failed(conf)) return;
    if (schema->code_dim && (schema->code != PD_CODE_I8 || schema->refine == PD_REFINE_NONE))
        pd_conf_fail(conf, code_dim,
                     "only i8 codes with refine rows can have fewer dimensions than the rows");
    else if (schema->code_dim > schema->dim && schema->dim)
        pd_conf_fail(conf, code_dim, "codes of %u dimensions for rows of %u", schema->code_dim, schema->dim);
    if (pd_conf_failed(conf) || schema->index) return;
    if (code) pd_conf_fail(conf, code, "a table without an index has no codes");
    if (schema->nlist)
        pd_conf_fail(conf, pd_conf_get(conf, table, "nlist"), "a table without an index has no lists");
    if (schema->refine == PD_REFINE_NONE)
        pd_conf_fail(conf, pd_conf_get(conf, table, "refine"),
                     "a table without an index needs its rows: f16, f32, i8 or u8");
}

static void parse_table(pd_conf *conf, pd_setting *table, pd_schema *schema)
{
    static const char *const metrics[] = {[PD_IP] = "ip", [PD_COSINE] = "cosine", [PD_L2] = "l2"};
    static const char *const policies[] = {[PD_POLICY_DOUBLE] = "double", [PD_POLICY_DRAIN] = "drain"};
    schema->metric = (pd_metric)one_of(conf, table, "metric", metrics, 3, PD_COSINE);
    schema->dim = (uint32_t)pd_conf_int(conf, table, "dim", 0, 0, PD_MAX_DIM);
    if (pd_conf_get(conf, table, "keep"))
        schema->keep = (uint32_t)pd_conf_int(conf, table, "keep", 0, 0, 1000);
    schema->policy = (pd_policy)one_of(conf, table, "policy", policies, 2, PD_POLICY_DOUBLE);
    parse_storage(conf, table, schema);
    name_at(conf, table, "queries", "table", schema->queries);
    name_at(conf, table, "space", "space", schema->space);
    parse_attributes(conf, table, schema);
    parse_order(conf, table, schema);
    parse_consent(conf, table, schema);
    parse_fallback(conf, table, schema);
}

pd_status pd_schema_parse(const char *name, const char *text, size_t length, pd_schema **out, pd_error *err)
{
    pd_conf *conf;
    *out = NULL;
    pd_status status = pd_conf_parse(name, text, length, &conf, err);
    if (status != PD_OK) return status;
    pd_schema *schema;
    status = pd_schema_default(PD_COSINE, 0, &schema, err);
    if (status != PD_OK) goto err_after_conf;
    pd_setting *root = pd_conf_root(conf), *table = pd_conf_group(conf, root, "table");
    if (table)
        parse_table(conf, table, schema);
    else
        pd_conf_fail(conf, root, "there is no table = { ... }");
    status = pd_conf_finish(conf, err);
    if (status == PD_OK)
        *out = schema;
    else
        pd_schema_free(schema);
err_after_conf:
    pd_conf_close(conf);
    return status;
}
