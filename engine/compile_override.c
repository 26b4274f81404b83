/* A request's overrides: they replace single weights of what the profile says, or scale a number's whole curve. Each may
 * be given once. They come after the terms and before a set's member weights are spread over its planes.
 */
#include <math.h>
#include <string.h>

#include "profile_impl.h"

static pd_status override_number(pd_compile_work *work, const pd_attribute *attribute, const pd_override *o)
{
    if (o->value && o->value[0])
        return pd_fail(
            work->err, PD_INVALID_ARGUMENT,
            "override: attribute \"%s\" is a number, its curve is scaled as a whole, not at \"%.64s\"",
            attribute->name, o->value);
    float *weights = pd_column_entries(work, attribute->byte_column);
    if (!weights) return pd_compile_no_memory(work);
    for (uint32_t b = 0; b < pd_column_size(work, attribute->byte_column); b++)
        weights[b] = weights[b] * o->weight + 0.0f;
    return PD_OK;
}

static pd_status override_value(pd_compile_work *work, const pd_attribute *attribute, const pd_override *o,
                                uint64_t *value)
{
    const char *text = o->value ? o->value : "";
    if (attribute->type == PD_KEY) {
        *value = pd_key_parse(text, strlen(text));
        if (*value) return pd_add_key(work, attribute, *value, o->weight, 1);
        return pd_fail(work->err, PD_INVALID_ARGUMENT,
                       "override: attribute \"%s\" is a key: \"%.64s\" is not an "
                       "integer over 0",
                       attribute->name, text);
    }
    int held = pd_value_held(work, attribute, text, strlen(text));
    if (held < 0)
        return pd_fail(work->err, PD_INVALID_ARGUMENT, "override: attribute \"%s\" has no value \"%.*s\"",
                       attribute->name, PD_MAX_VALUE, text);
    *value = (uint64_t)held;
    float *slot = pd_weight_slot(work, attribute, (uint32_t)held);
    if (!slot) return pd_compile_no_memory(work);
    *slot = o->weight + 0.0f; /* no negative zero */
    return PD_OK;
}

static pd_status override_similarity(pd_compile_work *work, const pd_override *o)
{
    if (o->value && o->value[0])
        return pd_fail(work->err, PD_INVALID_ARGUMENT, "override: similarity has no value \"%.64s\"",
                       o->value);
    if (o->weight < 0)
        return pd_fail(work->err, PD_INVALID_ARGUMENT, "override: similarity must not be negative, as %g is",
                       (double)o->weight);
    work->out->similarity = o->weight + 0.0f;
    return PD_OK;
}

/* seen: [nattributes + 1][4] u64, bit v: value v; a number's and similarity's is bit 0. Keys are told when merged. */
static pd_status apply_override(pd_compile_work *work, const pd_override *o, uint64_t (*seen)[4])
{
    const pd_schema *schema = work->schema;
    const char *name = o->attribute ? o->attribute : "";
    if (!isfinite(o->weight) || fabs((double)o->weight) > PD_MAX_WEIGHT)
        return pd_fail(work->err, PD_INVALID_ARGUMENT, "override of \"%.*s\": a weight must be from %g to %g",
                       PD_MAX_NAME, name, -PD_MAX_WEIGHT, PD_MAX_WEIGHT);
    int similarity = !strcmp(name, "similarity");
    const pd_attribute *attribute = similarity ? NULL : pd_schema_find(schema, name);
    if (!similarity && !attribute)
        return pd_fail(work->err, PD_INVALID_ARGUMENT, "override: the table has no attribute \"%.*s\"",
                       PD_MAX_NAME, name);
    uint64_t value = 0;
    pd_status status = similarity                     ? override_similarity(work, o)
                       : attribute->type == PD_NUMBER ? override_number(work, attribute, o)
                                                      : override_value(work, attribute, o, &value);
    if (status != PD_OK || (!similarity && attribute->type == PD_KEY)) return status;
    uint64_t *bits = seen[similarity ? schema->nattributes : (uint32_t)(attribute - schema->attributes)];
    if (bits[value / 64] >> value % 64 & 1)
        return pd_fail(work->err, PD_INVALID_ARGUMENT, "override: \"%s\"%s%.*s is given twice", name,
                       value ? " " : "", PD_MAX_VALUE, value ? o->value : "");
    bits[value / 64] |= UINT64_C(1) << value % 64;
    return PD_OK;
}

pd_status pd_compile_overrides(pd_compile_work *work)
{
    const pd_ask *ask = work->ask;
    uint64_t seen[PD_MAX_ATTRIBUTES + 1][4];
    if (ask->noverrides == 0) return PD_OK;
    if (ask->noverrides > PD_MAX_ASKED)
        return pd_fail(work->err, PD_INVALID_ARGUMENT, "%u overrides, more than %d", ask->noverrides,
                       PD_MAX_ASKED);
    memset(seen, 0, sizeof seen);
    pd_status status = PD_OK;
    for (uint32_t i = 0; status == PD_OK && i < ask->noverrides; i++)
        status = apply_override(work, &ask->overrides[i], seen);
    return status;
}
