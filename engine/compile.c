/* A profile and a request's context become one weight table.
 *
 * Terms in force add up, in the profile's order; then the request's overrides replace single weights; then a set's
 * member weights are spread over the values of its byte planes, and boosted keys are sorted and merged. Weights are added
 * in f32, so that a table is the same wherever it is compiled. Nothing is kept between requests and nothing is shared but
 * the profile, which does not change: many threads compile at once. A typical profile costs a few microseconds, most of
 * them for clearing the table.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profile_impl.h"

#define WARNINGS 64 /* kept; what is beyond is counted */

pd_status pd_compile_no_memory(pd_compile_work *work)
{
    return pd_fail(work->err, PD_RESOURCE_EXHAUSTED, "no memory to compile a profile");
}

pd_status pd_warn(pd_compile_work *work, const char *format, ...)
{
    char text[480];
    if (work->nwarnings++ >= WARNINGS) return PD_OK;
    if (!work->out->warnings)
        work->out->warnings = pd_arena_take(&work->arena, (WARNINGS + 1) * sizeof(char *));
    if (!work->out->warnings) return pd_compile_no_memory(work);
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    char *copy = pd_arena_text(&work->arena, text, strlen(text));
    if (!copy) return pd_compile_no_memory(work);
    work->out->warnings[work->out->nwarnings++] = copy;
    return PD_OK;
}

static pd_status count_warnings(pd_compile_work *work)
{
    if (work->nwarnings <= WARNINGS) return PD_OK;
    char text[64];
    int length = snprintf(text, sizeof text, "and %u more warnings", work->nwarnings - WARNINGS);
    char *copy = pd_arena_text(&work->arena, text, (size_t)length);
    if (!copy) return pd_compile_no_memory(work);
    work->out->warnings[work->out->nwarnings++] = copy;
    return PD_OK;
}

/* "profile "festive" version 3" before what is wrong with it. */
static pd_status name_profile(pd_compile_work *work)
{
    return pd_prefix(work->err, "profile \"%s\" version %llu", work->profile->name,
                     (unsigned long long)work->profile->version);
}

/* ----------------------------------------------------------------------------------------------- the columns --- */

uint32_t pd_column_size(const pd_compile_work *work, uint32_t column)
{
    const pd_layout *layout = work->layout;
    uint32_t end = column + 1 < work->schema->nbytes ? layout->weight_at[column + 1] : layout->weights;
    return end - layout->weight_at[column];
}

int pd_value_held(const pd_compile_work *work, const pd_attribute *attribute, const char *name, size_t length)
{
    char text[PD_MAX_VALUE + 1];
    if (length == 0 || length > PD_MAX_VALUE) return -1;
    memcpy(text, name, length);
    text[length] = 0;
    int value = pd_attribute_value(attribute, text);
    if (value < 0) return -1;
    /* A dictionary may have grown since the version was built. */
    uint32_t column = attribute->byte_column, entry = (uint32_t)value;
    if (attribute->type == PD_SET) {
        column += entry / 8;
        entry = 1u << entry % 8;
    }
    return entry < pd_column_size(work, column) ? value : -1;
}

float *pd_column_entries(pd_compile_work *work, uint32_t column)
{
    if (!work->table) work->table = pd_arena_take(&work->arena, work->layout->weights * sizeof(float));
    return work->table ? work->table + work->layout->weight_at[column] : NULL;
}

static float *member_weights(pd_compile_work *work, const pd_attribute *attribute)
{
    float **members = &work->members[attribute - work->schema->attributes];
    if (!*members) *members = pd_arena_take(&work->arena, PD_MAX_MEMBERS * sizeof(float));
    return *members;
}

float *pd_weight_slot(pd_compile_work *work, const pd_attribute *attribute, uint32_t value)
{
    float *from = attribute->type == PD_SET ? member_weights(work, attribute)
                                            : pd_column_entries(work, attribute->byte_column);
    return from ? from + value : NULL;
}

static pd_status add_weight(pd_compile_work *work, const pd_attribute *attribute, uint32_t value,
                            float weight)
{
    float *slot = pd_weight_slot(work, attribute, value);
    if (!slot) return pd_compile_no_memory(work);
    *slot += weight;
    return PD_OK;
}

pd_status pd_add_key(pd_compile_work *work, const pd_attribute *attribute, uint64_t value, float weight,
                     int replaces)
{
    if (work->nkeys == PD_MAX_KEY_VALUES + PD_MAX_ASKED)
        return pd_fail(work->err, PD_INVALID_ARGUMENT, "more than %d boosted keys",
                       PD_MAX_KEY_VALUES + PD_MAX_ASKED);
    if (work->nkeys == work->room_keys) {
        uint32_t room = work->room_keys ? 4 * work->room_keys : 64;
        pd_key_entry *keys = pd_arena_take(&work->arena, room * sizeof *keys);
        if (!keys) return pd_compile_no_memory(work);
        if (work->nkeys) memcpy(keys, work->keys, work->nkeys * sizeof *keys);
        work->keys = keys;
        work->room_keys = room;
    }
    work->keys[work->nkeys] = (pd_key_entry){.column = attribute->key_column,
                                             .order = work->nkeys,
                                             .value = value,
                                             .weight = weight,
                                             .replaces = replaces};
    work->nkeys++;
    return PD_OK;
}

/* ---------------------------------------------------------------------------------------------- the context --- */

int pd_next_part(const char **rest, const char **part, size_t *length)
{
    while (**rest == '|')
        (*rest)++;
    if (!**rest) return 0;
    *part = *rest;
    *length = strcspn(*rest, "|");
    *rest += *length;
    return 1;
}

static int declared(const pd_profile *profile, const char *key)
{
    for (uint32_t i = 0; i < profile->ncontext; i++)
        if (!strcmp(profile->context[i], key)) return (int)i;
    return -1;
}

static pd_status count_parts(pd_compile_work *work, const char *key, const char *value)
{
    uint32_t parts = 0;
    for (const char *p = value; *p; p++)
        if (*p == '|' && ++parts >= PD_MAX_PARTS)
            return pd_fail(work->err, PD_INVALID_ARGUMENT, "context key \"%.*s\" holds more than %d values",
                           PD_MAX_NAME, key, PD_MAX_PARTS);
    return PD_OK;
}

static pd_status read_context_key(pd_compile_work *work, uint32_t i)
{
    const pd_context *context = work->ask->context;
    const pd_profile *profile = work->profile;
    const char *key = context->keys[i], *value = context->values[i];
    for (uint32_t j = 0; j < i; j++)
        if (!strcmp(context->keys[j], key))
            return pd_fail(work->err, PD_INVALID_ARGUMENT, "context key \"%.*s\" is given twice", PD_MAX_NAME,
                           key);
    if (!profile) return PD_OK;
    int number = declared(profile, key);
    if (number >= 0) {
        if (value && value[0]) work->given[number] = value;
        return value ? count_parts(work, key, value) : PD_OK;
    }
    if (profile->strict)
        return pd_fail(work->err, PD_INVALID_ARGUMENT,
                       "context key \"%.*s\" is not declared by profile \"%s\" version %llu", PD_MAX_NAME,
                       key, profile->name, (unsigned long long)profile->version);
    return pd_warn(work, "context key \"%.*s\" is not declared by profile \"%s\" version %llu", PD_MAX_NAME,
                   key, profile->name, (unsigned long long)profile->version);
}

static pd_status read_context(pd_compile_work *work)
{
    const pd_context *context = work->ask->context;
    if (!context || context->count == 0) return PD_OK;
    if (context->count > PD_MAX_CONTEXT)
        return pd_fail(work->err, PD_INVALID_ARGUMENT, "a context of %u keys, more than %d", context->count,
                       PD_MAX_CONTEXT);
    for (uint32_t i = 0; i < context->count; i++) {
        pd_status status = read_context_key(work, i);
        if (status != PD_OK) return status;
    }
    return work->profile ? PD_OK : pd_warn(work, "no profile: context is not used");
}

/* ------------------------------------------------------------------------------------------------ the terms --- */

static int holds(const pd_compile_work *work, const pd_when *when)
{
    const char *rest = work->given[when->key], *part;
    size_t length;
    while (rest && pd_next_part(&rest, &part, &length))
        for (uint32_t v = 0; v < when->count; v++)
            if (strlen(when->values[v]) == length && !memcmp(when->values[v], part, length)) return 1;
    return 0;
}

static int in_force(const pd_compile_work *work, const pd_profile_term *term)
{
    for (uint32_t i = 0; i < term->nwhens; i++)
        if (!holds(work, &term->whens[i])) return 0;
    return 1;
}

static pd_status add_weights(pd_compile_work *work, const pd_profile_term *term,
                             const pd_attribute *attribute)
{
    pd_status status = PD_OK;
    for (uint32_t i = 0; i < term->nweights && status == PD_OK; i++) {
        const pd_named_weight *weight = &term->weights[i];
        if (attribute->type == PD_KEY) {
            status = pd_add_key(work, attribute, weight->key, weight->weight, 0);
            continue;
        }
        int value = pd_value_held(work, attribute, weight->name, strlen(weight->name));
        if (value >= 0)
            status = add_weight(work, attribute, (uint32_t)value, weight->weight);
        else
            status = pd_warn(work, "profile \"%s\" version %llu: attribute \"%s\" has no value \"%s\"",
                             work->profile->name, (unsigned long long)work->profile->version, attribute->name,
                             weight->name);
    }
    return status;
}

static int seen_before(const uint64_t *seen, uint32_t count, uint64_t value)
{
    for (uint32_t i = 0; i < count; i++)
        if (seen[i] == value) return 1;
    return 0;
}

/* What the context says weighs; what the dictionary does not know weighs nothing, and is no matter for a warning. A
 * value that stands twice in the context counts once. */
static pd_status add_matches(pd_compile_work *work, const pd_profile_term *term,
                             const pd_attribute *attribute)
{
    const char *rest = work->given[term->match], *part;
    size_t length;
    uint64_t seen[PD_MAX_PARTS];
    uint32_t count = 0;
    pd_status status = PD_OK;
    while (status == PD_OK && rest && pd_next_part(&rest, &part, &length)) {
        int held = attribute->type == PD_KEY ? -1 : pd_value_held(work, attribute, part, length);
        uint64_t value = attribute->type == PD_KEY ? pd_key_parse(part, length) : (uint64_t)(held + 1);
        if (value == 0 || seen_before(seen, count, value)) continue;
        seen[count++] = value;
        status = attribute->type == PD_KEY ? pd_add_key(work, attribute, value, term->weight, 0)
                                           : add_weight(work, attribute, (uint32_t)held, term->weight);
    }
    return status;
}

static double curve_at(const pd_profile_term *term, double value)
{
    const pd_point *points = term->points;
    uint32_t low = 0, high = term->npoints; /* points[low - 1].value <= value < points[low].value */
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (points[middle].value <= value)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0) return points[0].weight;
    if (low == term->npoints) return points[low - 1].weight;
    const pd_point *a = &points[low - 1], *b = &points[low];
    return a->weight + (b->weight - a->weight) * ((value - a->value) / (b->value - a->value));
}

static pd_status add_curve(pd_compile_work *work, const pd_profile_term *term, const pd_attribute *attribute)
{
    float *weights = pd_column_entries(work, attribute->byte_column);
    if (!weights) return pd_compile_no_memory(work);
    for (uint32_t b = 1; b <= attribute->nknots + 1 && b < pd_column_size(work, attribute->byte_column);
         b++) {
        double value = (double)attribute->representatives[b];
        if (attribute->age) value = fmax(work->ask->now - value, 0);
        weights[b] += (float)curve_at(term, value);
    }
    return PD_OK;
}

static pd_status add_term(pd_compile_work *work, const pd_profile_term *term)
{
    const pd_attribute *attribute = pd_schema_find(work->schema, term->attribute);
    uint32_t place;
    if (pd_term_fits(term, attribute, &place, work->err) != PD_OK) return name_profile(work);
    switch (term->kind) {
    case PD_TERM_WEIGHTS:
        return add_weights(work, term, attribute);
    case PD_TERM_MATCHES:
        return add_matches(work, term, attribute);
    case PD_TERM_CURVE:
        return add_curve(work, term, attribute);
    }
    return PD_OK;
}

/* Is the profile in its time? Its terms are off when it is not. */
static pd_status check_validity(pd_compile_work *work, int *valid)
{
    const pd_profile *profile = work->profile;
    char span[96];
    *valid = work->ask->now >= profile->from && work->ask->now < profile->until;
    if (*valid) return PD_OK;
    snprintf(span, sizeof span, "%s%.32s%s%.32s", profile->from_text ? "from " : "",
             profile->from_text ? profile->from_text : "",
             profile->until_text ? (profile->from_text ? " to " : "until ") : "",
             profile->until_text ? profile->until_text : "");
    if (profile->strict)
        return pd_fail(work->err, PD_FAILED_PRECONDITION, "profile \"%s\" version %llu is valid %s",
                       profile->name, (unsigned long long)profile->version, span);
    return pd_warn(work, "profile \"%s\" version %llu is valid %s: its terms are off", profile->name,
                   (unsigned long long)profile->version, span);
}

static pd_status add_terms(pd_compile_work *work)
{
    int valid;
    if (!work->profile) return PD_OK;
    pd_status status = check_validity(work, &valid);
    for (uint32_t i = 0; valid && status == PD_OK && i < work->profile->nterms; i++)
        if (in_force(work, &work->profile->terms[i])) status = add_term(work, &work->profile->terms[i]);
    return status;
}

/* ---------------------------------------------------------------------------------------------- the results --- */

/* Each plane's entry for a byte is the sum of its members' weights, ascending: the sum without the highest member, plus
 * that member's. */
static pd_status spread_sets(pd_compile_work *work)
{
    for (uint32_t i = 0; i < work->schema->nattributes; i++) {
        const float *members = work->members[i];
        if (!members) continue;
        for (uint32_t plane = 0; plane < 8; plane++) {
            uint32_t column = work->schema->attributes[i].byte_column + plane,
                     size = pd_column_size(work, column);
            if (size == 0) break;
            float *weights = pd_column_entries(work, column);
            if (!weights) return pd_compile_no_memory(work);
            for (uint32_t top = 0; 1u << top < size; top++)
                for (uint32_t v = 1u << top; v < 2u << top; v++)
                    weights[v] = weights[v ^ (1u << top)] + members[8 * plane + top];
        }
    }
    return PD_OK;
}

static int key_order(const void *a, const void *b)
{
    const pd_key_entry *x = a, *y = b;
    if (x->column != y->column) return x->column < y->column ? -1 : 1;
    if (x->value != y->value) return x->value < y->value ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

static pd_status merge_keys(pd_compile_work *work)
{
    int sorted = 1;
    for (uint32_t i = 1; sorted && i < work->nkeys; i++)
        sorted = key_order(&work->keys[i - 1], &work->keys[i]) < 0;
    if (!sorted) qsort(work->keys, work->nkeys, sizeof *work->keys, key_order);
    pd_key_weight *merged = pd_arena_take(&work->arena, work->nkeys * sizeof *merged);
    if (!merged) return pd_compile_no_memory(work);
    uint32_t count = 0;
    for (uint32_t i = 0, end; i < work->nkeys; i = end) {
        const pd_key_entry *first = &work->keys[i];
        float weight = 0;
        int replaced = 0;
        for (end = i; end < work->nkeys; end++) {
            const pd_key_entry *entry = &work->keys[end];
            if (entry->column != first->column || entry->value != first->value) break;
            if (entry->replaces && replaced)
                return pd_fail(work->err, PD_INVALID_ARGUMENT, "override: the key %llu is given twice",
                               (unsigned long long)entry->value);
            weight = entry->replaces ? entry->weight : weight + entry->weight;
            replaced |= entry->replaces;
        }
        if (weight != 0) merged[count++] = (pd_key_weight){first->column, first->value, weight};
    }
    if (count > PD_MAX_KEY_VALUES)
        return pd_fail(work->err, PD_INVALID_ARGUMENT, "%u boosted keys, more than %d", count,
                       PD_MAX_KEY_VALUES);
    work->out->key_weights = count ? merged : NULL;
    work->out->nkey_weights = count;
    return PD_OK;
}

static void keep_weights(pd_compile_work *work)
{
    for (uint32_t i = 0; work->table && i < work->layout->weights; i++) {
        if (work->table[i] == 0) continue;
        work->out->weights = work->table;
        return;
    }
}

static pd_status keep_caps(pd_compile_work *work)
{
    const pd_ask *ask = work->ask;
    const pd_profile *profile = work->profile;
    uint32_t n = ask->ncaps ? ask->ncaps : profile ? profile->ncaps : 0;
    if (n == 0) return PD_OK;
    if (n > PD_MAX_CAPS)
        return pd_fail(work->err, PD_INVALID_ARGUMENT, "%u diversity caps, more than %d", n, PD_MAX_CAPS);
    pd_cap *caps = pd_arena_take(&work->arena, n * sizeof *caps);
    if (!caps) return pd_compile_no_memory(work);
    for (uint32_t i = 0; i < n; i++) {
        if (ask->ncaps)
            caps[i] = ask->caps[i];
        else
            caps[i] =
                (pd_cap){pd_schema_find(work->schema, profile->caps[i].attribute), profile->caps[i].at_most};
        const char *name = caps[i].attribute ? caps[i].attribute->name
                           : ask->ncaps      ? ""
                                             : profile->caps[i].attribute;
        if (pd_cap_fits(name, caps[i].attribute, work->err) != PD_OK)
            return ask->ncaps ? pd_prefix(work->err, "diversity") : name_profile(work);
        if (caps[i].at_most == 0)
            return pd_fail(work->err, PD_INVALID_ARGUMENT,
                           "diversity: \"%s\" at most 0 of each leaves nothing", name);
    }
    work->out->caps = caps;
    work->out->ncaps = n;
    return PD_OK;
}

pd_status pd_compile(const pd_schema *schema, const pd_layout *layout, const pd_profile *profile,
                     const pd_ask *ask, pd_compiled *out, pd_error *err)
{
    pd_error unasked = {0};
    pd_compile_work work = {.schema = schema,
                            .layout = layout,
                            .profile = profile,
                            .ask = ask,
                            .out = out,
                            .err = err ? err : &unasked};
    memset(out, 0, sizeof *out);
    out->similarity = profile ? profile->similarity : 1.0f;
    pd_status status = read_context(&work);
    if (status == PD_OK) status = add_terms(&work);
    if (status == PD_OK) status = pd_compile_overrides(&work);
    if (status == PD_OK) status = spread_sets(&work);
    if (status == PD_OK && work.nkeys) status = merge_keys(&work);
    if (status == PD_OK) status = pd_compile_filter(&work);
    if (status == PD_OK) status = keep_caps(&work);
    if (status == PD_OK) status = count_warnings(&work);
    if (status != PD_OK) {
        pd_arena_free(&work.arena);
        memset(out, 0, sizeof *out);
        return status;
    }
    keep_weights(&work);
    out->memory = work.arena.chunks;
    return PD_OK;
}

void pd_compiled_free(pd_compiled *compiled)
{
    pd_arena arena = {.chunks = compiled->memory};
    pd_arena_free(&arena);
    memset(compiled, 0, sizeof *compiled);
}
