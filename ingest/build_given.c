/* Attributes that come as columns: those of the rows of a version and of what was changed after it.
 *
 * They are the schema's own numbers already, so there is nothing to join and nothing to name; what a kernel would index by is
 * looked at all the same. The bytes of a number are not read: its float decides the bucket, since the knots may be new.
 */
#include <math.h>
#include <string.h>

#include "build_impl.h"

#define TICK_ROWS 65536u

int pd_builder_has_columns(const pd_build_input *in)
{
    return in->bytes || in->floats || in->keys;
}

pd_status pd_builder_check_columns(const pd_build_input *in, pd_error *err)
{
    const pd_schema *s = in->schema;
    if (!pd_builder_has_columns(in)) return PD_OK;
    if (in->attributes)
        return pd_fail(err, PD_INVALID_ARGUMENT, "attributes come as a CSV or as columns, not as both");
    if ((s->nbytes && !in->bytes) || (s->nfloats && !in->floats) || (s->nkeys && !in->keys))
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "the schema of \"%s\" has %u byte, %u float and %u key columns, and not all are given",
                       in->table, s->nbytes, s->nfloats, s->nkeys);
    return PD_OK;
}

static pd_status refuse(uint64_t row, const pd_attribute *attribute, const char *what, pd_error *err)
{
    return pd_fail(err, PD_INVALID_ARGUMENT, "row %llu, attribute \"%s\": %s", (unsigned long long)row,
                   attribute->name, what);
}

static pd_status take_value(pd_builder *b, const pd_attribute *attribute, uint64_t row, pd_error *err)
{
    uint8_t value = b->in->bytes[(size_t)row * b->schema->nbytes + attribute->byte_column];
    if (value >= attribute->nvalues) return refuse(row, attribute, "a value that has no name", err);
    b->bytes[(size_t)attribute->byte_column * b->count + row] = value;
    return PD_OK;
}

static pd_status take_set(pd_builder *b, const pd_attribute *attribute, uint64_t row, pd_error *err)
{
    const uint8_t *planes = b->in->bytes + (size_t)row * b->schema->nbytes + attribute->byte_column;
    for (uint32_t j = 0; j < 8; j++) {
        uint32_t members = attribute->nvalues > 8 * j ? attribute->nvalues - 8 * j : 0;
        if (members < 8 && planes[j] >> members)
            return refuse(row, attribute, "a member that has no name", err);
        b->bytes[(size_t)(attribute->byte_column + j) * b->count + row] = planes[j];
    }
    return PD_OK;
}

/* Mapped bytes may begin anywhere, so numbers are copied out of them. */
static pd_status take_number(pd_builder *b, const pd_attribute *attribute, uint64_t row, pd_error *err)
{
    size_t at = ((size_t)row * b->schema->nfloats + attribute->float_column) * sizeof(float);
    float value;
    memcpy(&value, (const unsigned char *)b->in->floats + at, sizeof value);
    if (isinf(value)) return refuse(row, attribute, "an infinite number", err);
    if (attribute->counts && value < 0) return refuse(row, attribute, "a counter below 0", err);
    b->floats[(size_t)attribute->float_column * b->count + row] = value;
    return PD_OK;
}

static void take_key(pd_builder *b, const pd_attribute *attribute, uint64_t row)
{
    size_t at = ((size_t)row * b->schema->nkeys + attribute->key_column) * sizeof(uint64_t);
    memcpy(&b->keys[(size_t)attribute->key_column * b->count + row], (const unsigned char *)b->in->keys + at,
           sizeof(uint64_t));
}

static pd_status take_row(pd_builder *b, uint64_t row, pd_error *err)
{
    pd_status status = PD_OK;
    for (uint32_t i = 0; !status && i < b->schema->nattributes; i++) {
        const pd_attribute *attribute = &b->schema->attributes[i];
        switch (attribute->type) {
        case PD_CATEGORY:
            status = take_value(b, attribute, row, err);
            break;
        case PD_NUMBER:
            status = take_number(b, attribute, row, err);
            break;
        case PD_SET:
            status = take_set(b, attribute, row, err);
            break;
        case PD_KEY:
            take_key(b, attribute, row);
            break;
        }
    }
    return status;
}

pd_status pd_builder_given(pd_builder *b, pd_error *err)
{
    pd_status status = PD_OK;
    for (uint64_t row = 0; !status && row < b->count; row++) {
        if (row % TICK_ROWS == 0) status = pd_builder_tick(b, "attributes", row, b->count, err);
        if (!status) status = take_row(b, row, err);
    }
    return status;
}
