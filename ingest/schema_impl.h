/* What schema.c, schema_parse.c and attribute.c share. */
#ifndef PD_SCHEMA_IMPL_H
#define PD_SCHEMA_IMPL_H

#include "schema.h"

/* Values that a dictionary of this type can hold, category's unknown included. 0: the type has none. */
uint32_t pd_attribute_capacity(pd_attribute_type type);
/* Takes the dictionary's memory (whole, since it is small), and names value 0 of a category. */
pd_status pd_attribute_open(pd_attribute *attribute, pd_error *err);
void pd_attribute_close(pd_attribute *attribute);
/* Interns without a look at closed. */
pd_status pd_attribute_add(pd_attribute *attribute, const char *name, uint32_t *value, pd_error *err);
/* Copies n events to an attribute that has none. */
pd_status pd_attribute_set_events(pd_attribute *attribute, const pd_event *events, uint32_t n, pd_error *err);
/* Between the knots, their middle; at the ends, half a gap beyond. What a bucket stands for until data says better. */
void pd_attribute_guess_representatives(pd_attribute *attribute);
/* Gives every attribute its columns and counts them. INVALID_ARGUMENT: more keys than a table may have. */
pd_status pd_schema_columns(pd_schema *schema, pd_error *err);

const char *pd_type_name(pd_attribute_type type);

#endif
