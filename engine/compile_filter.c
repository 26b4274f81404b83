/* Filters: the profile's and the request's, all of which must hold.
 *
 * Conditions on one category become one set of allowed bytes, those on one number one range; a set or a key gets a test
 * for each, since "any of A" and "any of B" do not merge. What a value that no row has means follows from that: nothing
 * is one of it, everything is none of it. A range of ages is turned into one of times.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "profile_impl.h"

typedef struct filter_work {
    pd_compile_work *work;
    pd_byte_test *bytes;
    pd_range_test *ranges;
    pd_set_test *sets;
    pd_key_test *keys;
    uint32_t nbytes, nranges, nsets, nkeys;
    uint32_t key_values; /* in all */
} filter_work;

/* One condition, with its values' text or numbers. */
typedef struct condition {
    const char *attribute;
    pd_condition_kind kind;
    uint32_t count;
    const pd_operand *operands; /* none of them of the context any more */
    int ours;                   /* the profile's */
} condition;

static pd_status no_memory(filter_work *filter)
{
    return pd_fail(filter->work->err, PD_RESOURCE_EXHAUSTED, "no memory to compile a filter");
}

/* Puts in front whose filter it was. */
static pd_status blame(filter_work *filter, const condition *c)
{
    const pd_profile *profile = filter->work->profile;
    if (!c->ours) return pd_prefix(filter->work->err, "filter");
    return pd_prefix(filter->work->err, "profile \"%s\" version %llu: filter", profile->name,
                     (unsigned long long)profile->version);
}

/* ----------------------------------------------------------------------------------------------- by type --- */

/* The numbers of the values that the dictionary has, as bits. unknown: how many it has not. */
static pd_status value_bits(filter_work *filter, const condition *c, const pd_attribute *attribute,
                            uint64_t bits[4], uint32_t *unknown)
{
    pd_compile_work *work = filter->work;
    memset(bits, 0, 4 * sizeof bits[0]);
    *unknown = 0;
    for (uint32_t i = 0; i < c->count; i++) {
        const pd_operand *operand = &c->operands[i];
        if (operand->kind != PD_OPERAND_TEXT)
            return pd_fail(work->err, PD_INVALID_ARGUMENT,
                           "attribute \"%s\": its values are names, not numbers", attribute->name);
        int value = operand->text[0] ? pd_attribute_value(attribute, operand->text) : -1;
        if (value >= 0) {
            bits[value / 64] |= UINT64_C(1) << value % 64;
            continue;
        }
        ++*unknown;
        if (!c->ours || work->profile->strict)
            return pd_fail(work->err, PD_INVALID_ARGUMENT, "attribute \"%s\" has no value \"%.*s\"",
                           attribute->name, PD_MAX_VALUE, operand->text);
        pd_status status =
            pd_warn(work, "profile \"%s\" version %llu: filter: attribute \"%s\" has no value \"%.*s\"",
                    work->profile->name, (unsigned long long)work->profile->version, attribute->name,
                    PD_MAX_VALUE, operand->text);
        if (status != PD_OK) return status;
    }
    return PD_OK;
}

static pd_status filter_category(filter_work *filter, const condition *c, const pd_attribute *attribute)
{
    uint64_t bits[4];
    uint32_t unknown, i = 0;
    pd_status status = value_bits(filter, c, attribute, bits, &unknown);
    if (status != PD_OK) return status;
    while (i < filter->nbytes && filter->bytes[i].column != attribute->byte_column)
        i++;
    pd_byte_test *test = &filter->bytes[i];
    if (i == filter->nbytes) {
        filter->nbytes++;
        test->column = attribute->byte_column;
        memset(test->allow, 0xff, sizeof test->allow);
    }
    for (int w = 0; w < 4; w++)
        test->allow[w] &= c->kind == PD_IS ? bits[w] : ~bits[w];
    return PD_OK;
}

static pd_status filter_set(filter_work *filter, const condition *c, const pd_attribute *attribute)
{
    uint64_t bits[4];
    uint32_t unknown;
    pd_status status = value_bits(filter, c, attribute, bits, &unknown);
    if (status != PD_OK) return status;
    pd_set_test test = {.column = attribute->byte_column};
    if (c->kind == PD_ANY_OF)
        test.any = bits[0];
    else if (c->kind == PD_ALL_OF)
        test.all = bits[0];
    else
        test.none = bits[0];
    int nothing = (c->kind == PD_ANY_OF && bits[0] == 0) || (c->kind == PD_ALL_OF && unknown > 0);
    if (nothing) test.all = test.none = 1; /* no row holds a member and lacks it */
    filter->sets[filter->nsets++] = test;
    return PD_OK;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static pd_status filter_key(filter_work *filter, const condition *c, const pd_attribute *attribute)
{
    pd_compile_work *work = filter->work;
    filter->key_values += c->count;
    if (filter->key_values > PD_MAX_KEY_VALUES)
        return pd_fail(work->err, PD_INVALID_ARGUMENT, "more than %d keys in filters", PD_MAX_KEY_VALUES);
    uint64_t *values = pd_arena_take(&work->arena, c->count * sizeof *values);
    if (!values) return no_memory(filter);
    for (uint32_t i = 0; i < c->count; i++) {
        const pd_operand *operand = &c->operands[i];
        values[i] = operand->kind == PD_OPERAND_KEY ? operand->key
                                                    : pd_key_parse(operand->text, strlen(operand->text));
        if (values[i] == 0)
            return pd_fail(work->err, PD_INVALID_ARGUMENT,
                           "attribute \"%s\" is a key: \"%.64s\" is not an integer over 0", attribute->name,
                           operand->text ? operand->text : "0");
    }
    qsort(values, c->count, sizeof *values, by_value);
    uint32_t count = 0;
    for (uint32_t i = 0; i < c->count; i++)
        if (count == 0 || values[i] != values[count - 1]) values[count++] = values[i];
    filter->keys[filter->nkeys++] = (pd_key_test){
        .column = attribute->key_column, .negate = c->kind == PD_IS_NOT, .count = count, .values = values};
    return PD_OK;
}

/* A bound of a number: the number itself; for a time either a date, or a number of days of age, which turns at_least
 * into at_most. */
static pd_status bound_of(filter_work *filter, const condition *c, const pd_attribute *attribute, float *low,
                          float *high)
{
    const pd_operand *operand = &c->operands[0];
    double now = filter->work->ask->now, number = operand->number, days;
    int least = c->kind == PD_AT_LEAST;
    float *bound = least ? low : high;
    if (operand->kind == PD_OPERAND_TEXT) {
        const char *text = operand->text;
        if (attribute->age && strlen(text) >= 10 && text[4] == '-' && pd_days_parse(text, &days)) {
            int whole_day = !least && strlen(text) == 10; /* "at most that day" is until its end */
            *bound = whole_day ? nextafterf((float)(days + 1), -INFINITY) : (float)days;
            return PD_OK;
        }
        pd_attribute plain = {.type = PD_NUMBER};
        float value;
        if (pd_attribute_number(&plain, text, &value, NULL) != PD_OK)
            return pd_fail(filter->work->err, PD_INVALID_ARGUMENT, "attribute \"%s\": \"%.64s\" is not a %s",
                           attribute->name, text, attribute->age ? "date or a number of days" : "number");
        number = (double)value;
    }
    if (!attribute->age)
        *bound = (float)number;
    else if (!least)
        *low = number < 0 ? INFINITY : (float)(now - number); /* no age is under 0 */
    else if (number > 0)                                      /* a time to come has the age 0 */
        *high = (float)(now - number);
    return PD_OK;
}

static pd_status filter_number(filter_work *filter, const condition *c, const pd_attribute *attribute)
{
    float low = -INFINITY, high = INFINITY;
    uint32_t i = 0;
    if (c->count != 1)
        return pd_fail(filter->work->err, PD_INVALID_ARGUMENT,
                       "attribute \"%s\": %s takes one number, not %u", attribute->name,
                       pd_condition_names[c->kind], c->count);
    pd_status status = bound_of(filter, c, attribute, &low, &high);
    if (status != PD_OK) return status;
    while (i < filter->nranges && filter->ranges[i].column != attribute->float_column)
        i++;
    pd_range_test *test = &filter->ranges[i];
    if (i == filter->nranges) {
        filter->nranges++;
        *test = (pd_range_test){.column = attribute->float_column, .low = low, .high = high};
    }
    test->low = fmaxf(test->low, low);
    test->high = fminf(test->high, high);
    return PD_OK;
}

static pd_status filter_condition(filter_work *filter, const condition *c)
{
    const pd_attribute *attribute = pd_schema_find(filter->work->schema, c->attribute);
    pd_status status = pd_condition_fits(c->attribute, attribute, c->kind, filter->work->err);
    if (status == PD_OK && c->count == 0)
        status = pd_fail(filter->work->err, PD_INVALID_ARGUMENT, "attribute \"%s\": %s needs a value",
                         attribute->name, pd_condition_names[c->kind]);
    if (status == PD_OK) switch (attribute->type) {
        case PD_CATEGORY:
            status = filter_category(filter, c, attribute);
            break;
        case PD_NUMBER:
            status = filter_number(filter, c, attribute);
            break;
        case PD_SET:
            status = filter_set(filter, c, attribute);
            break;
        case PD_KEY:
            status = filter_key(filter, c, attribute);
            break;
        }
    return status == PD_OK ? PD_OK : blame(filter, c);
}

/* --------------------------------------------------------------------------------------- from both sources --- */

/* Values that an operand stands for: 1, or what the context joins by | (0: the context lacks it). */
static uint32_t parts_of(const pd_compile_work *work, const pd_operand *operand)
{
    const char *rest, *part;
    size_t length;
    uint32_t parts = 0;
    if (operand->kind != PD_OPERAND_CONTEXT) return 1;
    rest = work->given[operand->context];
    while (rest && pd_next_part(&rest, &part, &length))
        parts++;
    return parts;
}

/* The context's values in place of "$key". */
static pd_status spell_out(filter_work *filter, const pd_operand *from, pd_operand *operands, uint32_t *count)
{
    pd_compile_work *work = filter->work;
    const char *rest = work->given[from->context], *part;
    size_t length;
    while (pd_next_part(&rest, &part, &length)) {
        const char *text = pd_arena_text(&work->arena, part, length);
        if (!text) return no_memory(filter);
        operands[(*count)++] = (pd_operand){.kind = PD_OPERAND_TEXT, .text = text};
    }
    return PD_OK;
}

static pd_status context_lacks(filter_work *filter, const pd_profile_filter *from, const pd_operand *operand)
{
    pd_compile_work *work = filter->work;
    const pd_profile *profile = work->profile;
    const char *key = profile->context[operand->context];
    if (profile->strict)
        return pd_fail(
            work->err, PD_INVALID_ARGUMENT,
            "the context lacks \"%s\", which the filter on \"%s\" of profile \"%s\" version %llu needs", key,
            from->attribute, profile->name, (unsigned long long)profile->version);
    return pd_warn(work,
                   "the context lacks \"%s\": the filter on \"%s\" of profile \"%s\" version %llu is off",
                   key, from->attribute, profile->name, (unsigned long long)profile->version);
}

/* Operands of a profile's filter with the context's values in their places; *count 0: the context lacks one. */
static pd_status resolve(filter_work *filter, const pd_profile_filter *from, pd_operand **operands,
                         uint32_t *count)
{
    uint32_t room = 0;
    *count = 0;
    for (uint32_t i = 0; i < from->count; i++) {
        uint32_t parts = parts_of(filter->work, &from->operands[i]);
        if (parts == 0) return context_lacks(filter, from, &from->operands[i]);
        room += parts;
    }
    *operands = pd_arena_take(&filter->work->arena, room * sizeof **operands);
    if (!*operands) return no_memory(filter);
    pd_status status = PD_OK;
    for (uint32_t i = 0; status == PD_OK && i < from->count; i++) {
        if (from->operands[i].kind == PD_OPERAND_CONTEXT)
            status = spell_out(filter, &from->operands[i], *operands, count);
        else
            (*operands)[(*count)++] = from->operands[i];
    }
    return status;
}

static pd_status filter_of_profile(filter_work *filter, const pd_profile_filter *from)
{
    pd_operand *operands = from->operands;
    uint32_t count = from->count;
    for (uint32_t i = 0; i < from->count; i++) {
        if (from->operands[i].kind != PD_OPERAND_CONTEXT) continue;
        pd_status status = resolve(filter, from, &operands, &count);
        if (status != PD_OK || count == 0) return status;
        break;
    }
    condition c = {
        .attribute = from->attribute, .kind = from->kind, .count = count, .operands = operands, .ours = 1};
    return filter_condition(filter, &c);
}

static pd_status filter_of_request(filter_work *filter, const pd_condition *from)
{
    pd_compile_work *work = filter->work;
    if (from->count > PD_MAX_KEY_VALUES)
        return pd_fail(work->err, PD_INVALID_ARGUMENT, "filter on \"%.*s\": %u values, more than %d",
                       PD_MAX_NAME, from->attribute, from->count, PD_MAX_KEY_VALUES);
    pd_operand *operands = pd_arena_take(&work->arena, from->count * sizeof *operands);
    if (!operands) return no_memory(filter);
    for (uint32_t i = 0; i < from->count; i++)
        operands[i] = (pd_operand){.kind = PD_OPERAND_TEXT, .text = from->values[i]};
    condition c = {
        .attribute = from->attribute, .kind = from->kind, .count = from->count, .operands = operands};
    return filter_condition(filter, &c);
}

/* A range passes no row outside the buckets that it touches: said as well, the kernels can skip lists and pages by it. */
static void imply_buckets(filter_work *filter)
{
    const pd_schema *schema = filter->work->schema;
    for (uint32_t i = 0; i < filter->nranges; i++) {
        const pd_range_test *range = &filter->ranges[i];
        for (uint32_t a = 0; a < schema->nattributes; a++) {
            const pd_attribute *attribute = &schema->attributes[a];
            if (attribute->type != PD_NUMBER || attribute->float_column != range->column) continue;
            pd_byte_test *test = &filter->bytes[filter->nbytes++];
            *test = (pd_byte_test){.column = attribute->byte_column};
            uint32_t last = pd_attribute_bucket(attribute, range->high);
            for (uint32_t b = pd_attribute_bucket(attribute, range->low); b <= last; b++)
                test->allow[b / 64] |= UINT64_C(1) << b % 64;
        }
    }
}

pd_status pd_compile_filter(pd_compile_work *work)
{
    const pd_ask *ask = work->ask;
    uint32_t ours = work->profile ? work->profile->nfilters : 0, n = ours + ask->nconditions;
    if (ask->nconditions > PD_MAX_ASKED)
        return pd_fail(work->err, PD_INVALID_ARGUMENT, "%u conditions, more than %d", ask->nconditions,
                       PD_MAX_ASKED);
    if (n == 0) return PD_OK;
    filter_work filter = {.work = work};
    filter.bytes = pd_arena_take(&work->arena, n * sizeof *filter.bytes);
    filter.ranges = pd_arena_take(&work->arena, n * sizeof *filter.ranges);
    filter.sets = pd_arena_take(&work->arena, n * sizeof *filter.sets);
    filter.keys = pd_arena_take(&work->arena, n * sizeof *filter.keys);
    if (!filter.bytes || !filter.ranges || !filter.sets || !filter.keys) return no_memory(&filter);
    pd_status status = PD_OK;
    for (uint32_t i = 0; status == PD_OK && i < ours; i++)
        status = filter_of_profile(&filter, &work->profile->filters[i]);
    for (uint32_t i = 0; status == PD_OK && i < ask->nconditions; i++)
        status = filter_of_request(&filter, &ask->conditions[i]);
    if (status != PD_OK) return status;
    imply_buckets(&filter);
    work->out->filter = (pd_filter){.nbytes = filter.nbytes,
                                    .nranges = filter.nranges,
                                    .nsets = filter.nsets,
                                    .nkeys = filter.nkeys,
                                    .bytes = filter.bytes,
                                    .ranges = filter.ranges,
                                    .sets = filter.sets,
                                    .keys = filter.keys};
    work->out->has_filter = filter.nbytes + filter.nranges + filter.nsets + filter.nkeys > 0;
    return PD_OK;
}
