/* Profiles as objects: pushed text in, a counted reference out; and does one fit a table?
 *
 * A profile is never changed once it is shared, so that network threads compile from it without a lock; the count of its
 * references is its only moving part. Its text is kept as pushed, everything parsed from it lies in one arena.
 */
#include "profile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf.h"
#include "profile_impl.h"

pd_status pd_profile_parse(const char *name, const char *text, size_t length, pd_profile **out, pd_error *err)
{
    *out = NULL;
    pd_conf *conf;
    pd_status status = pd_conf_parse(name, text, length, &conf, err);
    if (status != PD_OK) return status;
    pd_profile *profile = calloc(1, sizeof *profile);
    if (!profile) {
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory for a profile", name);
        goto err_after_conf;
    }
    atomic_init(&profile->references, 1);
    profile->file = pd_arena_text(&profile->arena, name, strlen(name));
    profile->text = pd_arena_text(&profile->arena, text, length);
    if (!profile->file || !profile->text)
        pd_conf_fail(conf, NULL, "no memory for a profile");
    else
        pd_profile_read(profile, conf);
    status = pd_conf_finish(conf, err);
    if (status == PD_OK)
        *out = profile;
    else
        pd_profile_release(profile);
err_after_conf:
    pd_conf_close(conf);
    return status;
}

pd_profile *pd_profile_hold(pd_profile *profile)
{
    atomic_fetch_add_explicit(&profile->references, 1, memory_order_relaxed);
    return profile;
}

void pd_profile_release(pd_profile *profile)
{
    if (!profile || atomic_fetch_sub_explicit(&profile->references, 1, memory_order_acq_rel) != 1) return;
    pd_arena_free(&profile->arena);
    free(profile);
}

const char *pd_profile_name(const pd_profile *profile)
{
    return profile->name;
}

const char *pd_profile_table(const pd_profile *profile)
{
    return profile->table;
}

const char *pd_profile_text(const pd_profile *profile)
{
    return profile->text;
}

uint64_t pd_profile_version(const pd_profile *profile)
{
    return profile->version;
}

void pd_profile_set_version(pd_profile *profile, uint64_t version)
{
    profile->version = version;
}

/* -------------------------------------------------------------------------------------------- does it fit? --- */

const char *const pd_condition_names[] = {
    [PD_IS] = "is",         [PD_IS_NOT] = "is_not", [PD_AT_LEAST] = "at_least", [PD_AT_MOST] = "at_most",
    [PD_ANY_OF] = "any_of", [PD_ALL_OF] = "all_of", [PD_NONE_OF] = "none_of",
};

static pd_status no_attribute(const char *name, pd_error *err)
{
    return pd_fail(err, PD_INVALID_ARGUMENT, "the table has no attribute \"%.*s\"", PD_MAX_NAME, name);
}

pd_status pd_condition_fits(const char *name, const pd_attribute *attribute, pd_condition_kind kind,
                            pd_error *err)
{
    static const struct {
        const char *takes;
        unsigned kinds;
    } allowed[] = {
        [PD_CATEGORY] = {"is and is_not", 1u << PD_IS | 1u << PD_IS_NOT},
        [PD_NUMBER] = {"at_least and at_most", 1u << PD_AT_LEAST | 1u << PD_AT_MOST},
        [PD_SET] = {"any_of, all_of and none_of", 1u << PD_ANY_OF | 1u << PD_ALL_OF | 1u << PD_NONE_OF},
        [PD_KEY] = {"is and is_not", 1u << PD_IS | 1u << PD_IS_NOT},
    };
    static const char *const types[] = {"category", "number", "set", "key"};
    if (!attribute) return no_attribute(name, err);
    if ((unsigned)kind > PD_NONE_OF)
        return pd_fail(err, PD_INVALID_ARGUMENT, "attribute \"%s\": an unknown condition", attribute->name);
    if (allowed[attribute->type].kinds >> kind & 1) return PD_OK;
    return pd_fail(err, PD_INVALID_ARGUMENT, "attribute \"%s\" is a %s: its filters are %s, not %s",
                   attribute->name, types[attribute->type], allowed[attribute->type].takes,
                   pd_condition_names[kind]);
}

pd_status pd_cap_fits(const char *name, const pd_attribute *attribute, pd_error *err)
{
    if (!attribute) return no_attribute(name, err);
    if (attribute->type == PD_CATEGORY || attribute->type == PD_KEY) return PD_OK;
    return pd_fail(err, PD_INVALID_ARGUMENT,
                   "attribute \"%s\" is neither a category nor a key: it cannot be capped", attribute->name);
}

pd_status pd_term_fits(const pd_profile_term *term, const pd_attribute *attribute, uint32_t *place,
                       pd_error *err)
{
    *place = UINT32_MAX;
    if (!attribute) return no_attribute(term->attribute, err);
    int number = attribute->type == PD_NUMBER;
    if (number != (term->kind == PD_TERM_CURVE))
        return pd_fail(err, PD_INVALID_ARGUMENT, "attribute \"%s\" is %s number: it %s a curve",
                       attribute->name, number ? "a" : "no", number ? "is weighed by" : "cannot have");
    if (term->kind != PD_TERM_WEIGHTS) return PD_OK;
    for (uint32_t i = 0; i < term->nweights; i++) {
        const pd_named_weight *weight = &term->weights[i];
        *place = i;
        if (attribute->type == PD_KEY && weight->key == 0)
            return pd_fail(err, PD_INVALID_ARGUMENT,
                           "attribute \"%s\" is a key: \"%.*s\" is not an integer over 0", attribute->name,
                           PD_MAX_VALUE, weight->name ? weight->name : "0");
        if (attribute->type != PD_KEY && !weight->name)
            return pd_fail(err, PD_INVALID_ARGUMENT,
                           "attribute \"%s\": its values are names in quotes, not numbers", attribute->name);
    }
    return PD_OK;
}

/* Names in a closed dictionary must be there; an open one may still learn them. */
static pd_status value_exists(const pd_attribute *attribute, const char *name, pd_error *err)
{
    if (!attribute->closed || (name[0] && pd_attribute_value(attribute, name) >= 0)) return PD_OK;
    return pd_fail(err, PD_INVALID_ARGUMENT, "attribute \"%s\" has no value \"%.*s\"", attribute->name,
                   PD_MAX_VALUE, name);
}

static pd_status check_term(const pd_profile *profile, uint32_t i, const pd_schema *schema, pd_error *err)
{
    const pd_profile_term *term = &profile->terms[i];
    const pd_attribute *attribute = pd_schema_find(schema, term->attribute);
    uint32_t place;
    pd_status status = pd_term_fits(term, attribute, &place, err);
    if (status == PD_OK && term->kind == PD_TERM_WEIGHTS && attribute->type != PD_KEY)
        for (place = 0; place < term->nweights && status == PD_OK; place += status == PD_OK)
            status = value_exists(attribute, term->weights[place].name, err);
    if (status == PD_OK) return PD_OK;
    if (place == UINT32_MAX)
        return pd_prefix(err, "%s:%u: key \"profile.terms[%u]\"", profile->file, term->line, i);
    return pd_prefix(err, "%s:%u: key \"profile.terms[%u].weights[%u]\"", profile->file,
                     term->weights[place].line, i, term->weights[place].place);
}

static pd_status check_operand(const pd_operand *operand, const pd_attribute *attribute, pd_error *err)
{
    double days;
    switch (operand->kind) {
    case PD_OPERAND_TEXT:
        if (attribute->type == PD_CATEGORY || attribute->type == PD_SET)
            return value_exists(attribute, operand->text, err);
        if (attribute->type == PD_KEY && pd_key_parse(operand->text, strlen(operand->text))) return PD_OK;
        if (attribute->type == PD_NUMBER && attribute->age && pd_days_parse(operand->text, &days))
            return PD_OK;
        return pd_fail(err, PD_INVALID_ARGUMENT, "attribute \"%s\": \"%.*s\" is not %s", attribute->name,
                       PD_MAX_VALUE, operand->text,
                       attribute->type == PD_KEY ? "an integer over 0"
                       : attribute->age          ? "a date, a time or a number of days"
                                                 : "a number");
    case PD_OPERAND_KEY:
        if (attribute->type == PD_KEY) return PD_OK;
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "attribute \"%s\": its values are names in quotes, not numbers", attribute->name);
    case PD_OPERAND_NUMBER:
    case PD_OPERAND_CONTEXT:
        break;
    }
    return PD_OK;
}

static pd_status check_filter(const pd_profile *profile, uint32_t i, const pd_schema *schema, pd_error *err)
{
    const pd_profile_filter *filter = &profile->filters[i];
    const pd_attribute *attribute = pd_schema_find(schema, filter->attribute);
    pd_status status = pd_condition_fits(filter->attribute, attribute, filter->kind, err);
    for (uint32_t v = 0; status == PD_OK && v < filter->count; v++)
        status = check_operand(&filter->operands[v], attribute, err);
    if (status == PD_OK) return PD_OK;
    return pd_prefix(err, "%s:%u: key \"profile.filters[%u]\"", profile->file, filter->line, i);
}

pd_status pd_profile_check(const pd_profile *profile, const pd_schema *schema, pd_error *err)
{
    pd_status status = PD_OK;
    for (uint32_t i = 0; status == PD_OK && i < profile->nterms; i++)
        status = check_term(profile, i, schema, err);
    for (uint32_t i = 0; status == PD_OK && i < profile->nfilters; i++)
        status = check_filter(profile, i, schema, err);
    for (uint32_t i = 0; status == PD_OK && i < profile->ncaps; i++) {
        const pd_profile_cap *cap = &profile->caps[i];
        status = pd_cap_fits(cap->attribute, pd_schema_find(schema, cap->attribute), err);
        if (status != PD_OK)
            pd_prefix(err, "%s:%u: key \"profile.diversity[%u]\"", profile->file, cap->line, i);
    }
    return status;
}

void pd_profile_doubts(const pd_profile *profile, const pd_schema *schema,
                       void (*visit)(void *context, const char *sentence), void *context)
{
    for (uint32_t t = 0; t < profile->nterms; t++) {
        const pd_profile_term *term = &profile->terms[t];
        const pd_attribute *attribute = pd_schema_find(schema, term->attribute);
        if (!attribute || (attribute->type != PD_CATEGORY && attribute->type != PD_SET)) continue;
        for (uint32_t w = 0; w < term->nweights; w++) {
            char sentence[2 * PD_MAX_NAME + PD_MAX_VALUE + 64];
            if (pd_attribute_value(attribute, term->weights[w].name) >= 0) continue;
            snprintf(sentence, sizeof sentence, "attribute \"%s\" of table \"%s\" has no value \"%s\" so far",
                     attribute->name, profile->table, term->weights[w].name);
            visit(context, sentence);
        }
    }
}
