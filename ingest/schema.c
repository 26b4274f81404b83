/* Schemas as values: made, copied, freed, looked up, and mapped to the kernels' columns.
 *
 * Columns follow the order in which attributes are declared, so that a table's shape is a matter of its schema alone:
 * a category and a number take one byte column each, a number a float column besides, a set eight byte columns, a key
 * one key column.
 */
#include "schema.h"

#include <stdlib.h>
#include <string.h>

#include "schema_impl.h"

static const char *const metric_names[] = {[PD_IP] = "ip", [PD_COSINE] = "cosine", [PD_L2] = "l2"};

const char *pd_metric_name(pd_metric metric)
{
    return (unsigned)metric < 3 ? metric_names[metric] : "unknown";
}

pd_status pd_metric_parse(const char *name, pd_metric *metric, pd_error *err)
{
    for (unsigned m = 0; m < 3; m++) {
        if (strcmp(name, metric_names[m]) != 0) continue;
        *metric = (pd_metric)m;
        return PD_OK;
    }
    return pd_fail(err, PD_INVALID_ARGUMENT, "\"%.64s\" is not a metric: ip, cosine or l2", name);
}

static const char *const refine_names[] = {[PD_REFINE_NONE] = "none",
                                           [PD_REFINE_F16] = "f16",
                                           [PD_REFINE_F32] = "f32",
                                           [PD_REFINE_I8] = "i8",
                                           [PD_REFINE_U8] = "u8"};

const char *pd_refine_name(pd_refine refine)
{
    return (unsigned)refine < 5 ? refine_names[refine] : "unknown";
}

pd_status pd_refine_parse(const char *name, pd_refine *refine, pd_error *err)
{
    for (unsigned r = 0; r < 5; r++) {
        if (strcmp(name, refine_names[r]) != 0) continue;
        *refine = (pd_refine)r;
        return PD_OK;
    }
    return pd_fail(err, PD_INVALID_ARGUMENT, "\"%.64s\" is not a kind of refine rows", name);
}

const char *pd_type_name(pd_attribute_type type)
{
    static const char *const names[] = {
        [PD_CATEGORY] = "category", [PD_NUMBER] = "number", [PD_SET] = "set", [PD_KEY] = "key"};
    return (unsigned)type < 4 ? names[type] : "unknown";
}

pd_status pd_name_check(const char *what, const char *name, pd_error *err)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";
    static const char others[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789-";
    size_t length = strlen(name);
    if (length == 0) return pd_fail(err, PD_INVALID_ARGUMENT, "the %s has no name", what);
    if (length > PD_MAX_NAME)
        return pd_fail(err, PD_INVALID_ARGUMENT, "the %s's name \"%.32s...\" has %zu bytes, more than %d",
                       what, name, length, PD_MAX_NAME);
    if (!strchr(letters, name[0]) || strspn(name, others) != length)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "\"%s\" cannot name %s %s: letters, digits, _ and -, a letter or _ first", name,
                       what[0] == 'a' ? "an" : "a", what);
    return PD_OK;
}

pd_status pd_schema_columns(pd_schema *schema, pd_error *err)
{
    schema->nbytes = schema->nfloats = schema->nkeys = 0;
    for (uint32_t i = 0; i < schema->nattributes; i++) {
        pd_attribute *attribute = &schema->attributes[i];
        switch (attribute->type) {
        case PD_CATEGORY:
            attribute->byte_column = schema->nbytes++;
            break;
        case PD_NUMBER:
            attribute->byte_column = schema->nbytes++;
            attribute->float_column = schema->nfloats++;
            break;
        case PD_SET:
            attribute->byte_column = schema->nbytes;
            schema->nbytes += 8;
            break;
        case PD_KEY:
            attribute->key_column = schema->nkeys++;
            break;
        }
    }
    if (schema->nkeys > PD_MAX_KEYS)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%u key attributes, more than the %u that a table may have",
                       schema->nkeys, PD_MAX_KEYS);
    return PD_OK;
}

void pd_schema_shape(const pd_schema *schema, uint32_t nlist, pd_shape *shape)
{
    memset(shape, 0, sizeof *shape);
    shape->metric = schema->metric;
    shape->code = schema->index ? schema->code : PD_CODE_NONE;
    shape->refine = schema->refine;
    shape->dim = schema->dim;
    shape->code_dim = shape->code == PD_CODE_I8 ? schema->code_dim : 0;
    shape->nlist = schema->index ? nlist : 0;
    shape->nbytes = schema->nbytes;
    shape->nfloats = schema->nfloats;
    shape->nkeys = schema->nkeys;
    for (uint32_t i = 0; i < schema->nattributes; i++) {
        const pd_attribute *attribute = &schema->attributes[i];
        uint16_t *sizes = shape->sizes + attribute->byte_column;
        if (attribute->type == PD_CATEGORY) {
            sizes[0] = (uint16_t)(attribute->closed ? attribute->nvalues : PD_MAX_CATEGORIES + 1);
        } else if (attribute->type == PD_NUMBER) {
            sizes[0] = (uint16_t)(attribute->nknots + 2);
        } else if (attribute->type == PD_SET) {
            for (uint32_t j = 0; j < 8; j++) {
                uint32_t members = attribute->nvalues > 8 * j ? attribute->nvalues - 8 * j : 0;
                sizes[j] = (uint16_t)(members ? 1u << (members < 8 ? members : 8) : 0);
            }
        }
    }
}

pd_status pd_schema_default(pd_metric metric, uint32_t dim, pd_schema **out, pd_error *err)
{
    *out = calloc(1, sizeof **out);
    if (!*out) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a schema");
    (*out)->metric = metric;
    (*out)->dim = dim;
    (*out)->index = 1;
    (*out)->code = PD_CODE_I8;
    (*out)->refine = PD_REFINE_F16;
    (*out)->source = PD_REFINE_F32;
    (*out)->keep = PD_KEEP_UNSAID;
    (*out)->policy = PD_POLICY_DOUBLE;
    return PD_OK;
}

pd_status pd_schema_copy(const pd_schema *schema, pd_schema **out, pd_error *err)
{
    pd_schema *copy = malloc(sizeof *copy);
    *out = NULL;
    if (!copy) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a schema");
    *copy = *schema;
    for (uint32_t i = 0; i < copy->nattributes; i++) {
        copy->attributes[i].values = NULL;
        copy->attributes[i].slots = NULL;
        copy->attributes[i].events = NULL;
        copy->attributes[i].nvalues = copy->attributes[i].nevents = 0;
    }
    for (uint32_t i = 0; i < copy->nattributes; i++) {
        const pd_attribute *from = &schema->attributes[i];
        pd_attribute *to = &copy->attributes[i];
        pd_status status = pd_attribute_open(to, err);
        for (uint32_t v = from->type == PD_CATEGORY; status == PD_OK && v < from->nvalues; v++) {
            uint32_t same;
            status = pd_attribute_add(to, from->values[v], &same, err);
        }
        if (status == PD_OK) status = pd_attribute_set_events(to, from->events, from->nevents, err);
        if (status != PD_OK) {
            pd_schema_free(copy);
            return status;
        }
    }
    *out = copy;
    return PD_OK;
}

void pd_schema_free(pd_schema *schema)
{
    if (!schema) return;
    for (uint32_t i = 0; i < schema->nattributes; i++)
        pd_attribute_close(&schema->attributes[i]);
    free(schema);
}

const pd_attribute *pd_schema_find(const pd_schema *schema, const char *attribute)
{
    for (uint32_t i = 0; i < schema->nattributes; i++)
        if (!strcmp(schema->attributes[i].name, attribute)) return &schema->attributes[i];
    return NULL;
}
