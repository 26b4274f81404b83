/* Consent: a row whose consent attribute says "no" is never a query (schema.h). */
#ifndef PD_CONSENT_H
#define PD_CONSENT_H

#include "schema.h"

typedef struct pd_consent {
    uint32_t column; /* byte column of the consent attribute */
    uint8_t no;      /* its value that refuses; 0: no row of the table can refuse */
} pd_consent;

static inline pd_consent pd_consent_of(const pd_schema *schema)
{
    pd_consent out = {0, 0};
    const pd_attribute *attribute = schema->consent[0] ? pd_schema_find(schema, schema->consent) : NULL;
    int no = attribute && attribute->type == PD_CATEGORY ? pd_attribute_value(attribute, "no") : 0;
    if (no > 0) out = (pd_consent){.column = attribute->byte_column, .no = (uint8_t)no};
    return out;
}

/* bytes: the row's byte columns. */
static inline int pd_consent_refused(const pd_consent *consent, const uint8_t *bytes)
{
    return consent->no && bytes[consent->column] == consent->no;
}

#endif
