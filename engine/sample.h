/* Queries to measure with: rows of another table, or of the table itself, picked evenly and always the same. */
#ifndef PD_SAMPLE_H
#define PD_SAMPLE_H

#include "catalog_impl.h"

typedef struct pd_sample {
    float *vectors;  /* [count][dim], normalised for cosine */
    uint32_t *slots; /* [count] where they are in the version they come from; NULL for an upload's */
    uint32_t count;
    char source[PD_MAX_NAME + 16];
} pd_sample;

void pd_sample_free(pd_sample *sample);

/* count rows of a version (all of them where it has fewer), for a target of this metric. Rows that are zero under cosine, and rows
 * that do not consent to being queries (consent.h), are passed over. */
pd_status pd_sample_version(const pd_version *version, uint32_t count, pd_metric metric, const char *source,
                            pd_sample *out, pd_error *err);
/* The same of a version that serves and has changed since: rows that are gone by now, or refuse by now, are passed over, too; the
 * others are asked with as they were in the version. Not from the executor's thread. */
pd_status pd_sample_served(pd_executor *executor, const pd_served *served, uint32_t count, pd_metric metric,
                           pd_sample *out, pd_error *err);
/* An upload's queries: count of the rows in a file of [rows][dim] f32. INVALID_ARGUMENT naming row and column: a value that is
 * not a number, a row that is zero under cosine (every row of the file is looked at). */
pd_status pd_sample_file(const char *path, uint64_t rows, uint32_t dim, uint32_t count, pd_metric metric,
                         pd_sample *out, pd_error *err);
/* Whether the schema's query table can ask a table of dim and space. OK also when it is not there: *served is then NULL and
 * why says so. INVALID_ARGUMENT: another width or space. *served is held. */
pd_status pd_sample_source(pd_catalog *catalog, const char *table, const pd_schema *schema, uint32_t dim,
                           pd_served **served, char *why, size_t room, pd_error *err);

#endif
