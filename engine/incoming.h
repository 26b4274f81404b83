/* A push becomes a version: its schema is settled, it is built, loaded, measured, warmed, and staged or switched in. */
#ifndef PD_INCOMING_H
#define PD_INCOMING_H

#include "catalog_impl.h"
#include "publish.h"

/* The schema that a push gets: the one it brings, with the dictionaries of the table's serving version (else its newest)
 * continued where an attribute keeps its name and type; without one the table's own; without a table a plain one of the metric.
 * INVALID_ARGUMENT: the text, a dim or metric that differs from the schema's. Takes the mutex. *out: pd_schema_free. */
pd_status pd_incoming_schema(pd_catalog *catalog, const pd_push_ask *ask, pd_schema **out, pd_error *err);

/* Measures recall and writes the curves, where the version has lists and is not measured yet. queries: of the upload; NULL: as
 * the schema says. */
struct pd_sample;
pd_status pd_incoming_calibrate(pd_incoming *in, pd_job *job, const struct pd_sample *queries, pd_error *err);

/* The rest is what a push and a rebuild have in common. */

/* Sees to the table's folder, and takes the number that the job's version will have. */
pd_status pd_incoming_number(pd_catalog *catalog, pd_job *job, uint64_t *number, pd_error *err);
/* The version that was built is one of the table's from now on. */
pd_status pd_incoming_enlist(pd_catalog *catalog, const char *table, uint64_t number, pd_error *err);
/* Load, calibrate, warm, then stage or switch. *keep: the version stays on the disk though it failed. */
pd_status pd_incoming_bring(pd_catalog *catalog, pd_job *job, uint64_t number,
                            const struct pd_sample *queries, int *keep, pd_error *err);
/* After a failure: the version goes, and the table where it was to be its first. */
void pd_incoming_discard(pd_catalog *catalog, const char *table, uint64_t number);

#endif
