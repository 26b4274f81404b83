/* A push becomes a version: see incoming.h. On any failure the table is what it was: the version's folder is removed, what
 * was taken out of service comes back. Only a version that is whole but does not fit the memory stays on the disk, with the
 * reason named.
 */
#include "incoming.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "build.h"
#include "calibrate.h"
#include "erase.h"
#include "log.h"
#include "sample.h"

#define SEED 20261020u

/* -------------------------------------------------------------------------------------------------- schema --- */

/* A copy of the schema of the table's serving version, else of the staged one, else of the newest on the disk. NULL in *out:
 * the table has none. */
static pd_status schema_of_table(pd_catalog *catalog, const char *table_name, pd_schema **out, pd_error *err)
{
    *out = NULL;
    uint64_t newest = 0;
    pthread_mutex_lock(&catalog->mutex);
    pd_table *table = pd_table_find(catalog, table_name);
    pd_box *box = !table ? NULL : table->serving ? table->serving : table->staged;
    if (box) box->refs++;
    for (uint32_t i = 0; table && i < table->nversions; i++)
        if (table->versions[i].state != PD_BROKEN) newest = table->versions[i].number;
    pthread_mutex_unlock(&catalog->mutex);
    if (box) {
        pd_status status = pd_schema_copy(box->served.info->schema, out, err);
        pd_catalog_release(&box->served);
        return status;
    }
    if (!newest) return PD_OK;
    char folder[PD_PATH_ROOM];
    pd_version *version = NULL;
    pd_version_folder(catalog, table_name, newest, folder);
    pd_status status = pd_version_open(folder, &version, err);
    if (!status) status = pd_schema_copy(pd_version_info_of(version)->schema, out, err);
    pd_version_close(version);
    return status;
}

/* Values that the old schema knows stay known, so that profiles that name them still fit, though no new row may hold them. */
static pd_status continue_dictionaries(pd_schema *schema, const pd_schema *old, pd_error *err)
{
    for (uint32_t i = 0; i < schema->nattributes; i++) {
        pd_attribute *attribute = &schema->attributes[i];
        const pd_attribute *before = pd_schema_find(old, attribute->name);
        if (!before || before->type != attribute->type || attribute->closed) continue;
        if (attribute->type != PD_CATEGORY && attribute->type != PD_SET) continue;
        for (uint32_t v = attribute->type == PD_CATEGORY ? 1 : 0; v < before->nvalues; v++) {
            uint32_t value;
            pd_status status = pd_attribute_intern(attribute, before->values[v], &value, err);
            if (status) return pd_prefix(err, "attribute \"%s\"", attribute->name);
        }
    }
    return PD_OK;
}

pd_status pd_incoming_schema(pd_catalog *catalog, const pd_push_ask *ask, pd_schema **out, pd_error *err)
{
    *out = NULL;
    pd_schema *own = NULL, *schema = NULL;
    pd_metric metric = PD_COSINE;
    pd_status status = PD_OK;
    if (ask->metric[0]) status = pd_metric_parse(ask->metric, &metric, err);
    if (!status) status = schema_of_table(catalog, ask->table, &own, err);
    if (status) goto out;
    const char *whose = "the schema";
    if (ask->schema) {
        char name[PD_MAX_NAME + 16];
        snprintf(name, sizeof name, "schema of %s", ask->table);
        status = pd_schema_parse(name, ask->schema, strlen(ask->schema), &schema, err);
        if (!status && own) status = continue_dictionaries(schema, own, err);
    } else if (own) {
        schema = own;
        own = NULL;
        whose = "the table's schema (push a schema to change it)";
    } else {
        status = pd_schema_default(metric, ask->dim, &schema, err);
    }
    if (status) goto out;
    if (schema->dim && schema->dim != ask->dim)
        status = pd_fail(err, PD_INVALID_ARGUMENT, "the push has %u dimensions, %s says %u", ask->dim, whose,
                         schema->dim);
    else if (ask->metric[0] && schema->metric != metric)
        status = pd_fail(err, PD_INVALID_ARGUMENT, "the push says metric %s, %s says %s", ask->metric, whose,
                         pd_metric_name(schema->metric));
    else
        schema->dim = ask->dim;
out:
    pd_schema_free(own);
    if (status)
        pd_schema_free(schema);
    else
        *out = schema;
    return status;
}

/* ----------------------------------------------------------------------------------------------- calibrate --- */

static uint32_t sample_size(const pd_catalog *catalog)
{
    uint32_t count = catalog->config->calibration_queries;
    return count ? count : PD_CALIBRATION_QUERIES;
}

typedef struct through {
    pd_incoming *in;
    pd_job_context job;
} through;

static pd_status search_through(void *context, const pd_query *queries, uint32_t count, pd_answer *answers,
                                pd_error *err)
{
    through *t = context;
    if (atomic_load(&t->job.job->cancel) || atomic_load(&t->in->catalog->stopping))
        return pd_fail(err, PD_CANCELLED, "the calibration was stopped");
    return pd_executor_background(t->in->catalog->executor, t->in->box->served.resident, queries, count,
                                  answers, err);
}

/* Whatever the calibration calls its steps, to the job it is one stage. */
static int calibrate_progress(void *context, const char *stage, uint64_t done, uint64_t total)
{
    (void)stage;
    through *t = context;
    return pd_job_progress(&t->job, "calibrate", done, total);
}

pd_status pd_incoming_calibrate(pd_incoming *in, pd_job *job, const pd_sample *queries, pd_error *err)
{
    pd_catalog *catalog = in->catalog;
    const pd_version_info *info = in->box->served.info;
    if (!info->shape.nlist || !info->rows || info->calibration->measured) return PD_OK;
    through t = {.in = in, .job = {catalog, job}};
    pd_job_progress(&t.job, "calibrate", 0, 1);
    pd_sample own = {0};
    pd_served *other = NULL;
    char why[200];
    pd_status status = PD_OK;
    if (!queries) {
        status =
            pd_sample_source(catalog, in->table, info->schema, info->shape.dim, &other, why, sizeof why, err);
        if (!status && why[0]) pd_job_warn(catalog, job, "%s", why);
        if (!status && other)
            status = pd_sample_served(catalog->executor, other, sample_size(catalog), info->shape.metric,
                                      &own, err);
        if (other) pd_catalog_release(other);
        if (!status && own.count) queries = &own;
    }
    pd_calibration *measured = status ? NULL : calloc(1, sizeof *measured);
    if (!status && !measured) status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a calibration");
    if (!status) {
        pd_calibrate_input input = {.version = in->box->served.version,
                                    .resident = in->box->served.resident,
                                    .queries = queries ? queries->vectors : NULL,
                                    .count = queries ? queries->count : sample_size(catalog),
                                    .source = queries ? queries->source : "held-out rows",
                                    .device = catalog->builder,
                                    .search = search_through,
                                    .search_context = &t,
                                    .seed = SEED};
        status = pd_calibrate(&input, measured, calibrate_progress, &t, err);
    }
    if (!status) status = pd_version_adopt_calibration(in->box->served.version, measured, err);
    free(measured);
    pd_sample_free(&own);
    return status;
}

/* --------------------------------------------------------------------------------------------------- build --- */

typedef struct mapping {
    void *bytes;
    size_t length;
} mapping;

static pd_status map_part(const pd_catalog *catalog, const pd_push *push, int part, mapping *out,
                          pd_error *err)
{
    char folder[PD_PATH_ROOM], path[PD_PATH_ROOM];
    *out = (mapping){0};
    if (!push->parts[part].bytes) return PD_OK;
    pd_push_folder(catalog, push->number, folder);
    pd_status status = pd_path_join(path, folder, pd_part_file[part], err);
    if (status) return status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return pd_fail_errno(err, "open", path);
    struct stat about;
    if (fstat(fd, &about) != 0)
        status = pd_fail_errno(err, "look at", path);
    else if ((uint64_t)about.st_size != push->parts[part].bytes)
        status = pd_fail(err, PD_DATA_LOSS, "%s is %lld bytes long, not %" PRIu64, path,
                         (long long)about.st_size, push->parts[part].bytes);
    if (!status) {
        out->length = (size_t)push->parts[part].bytes;
        out->bytes = mmap(NULL, out->length, PROT_READ, MAP_SHARED, fd, 0);
        if (out->bytes == MAP_FAILED) {
            out->bytes = NULL;
            status = pd_fail_errno(err, "map", path);
        }
    }
    close(fd);
    return status;
}

static void unmap(const mapping *m)
{
    if (m->bytes) munmap(m->bytes, m->length);
}

/* The upload's own queries, looked at before the long work begins. */
static pd_status read_queries(pd_catalog *catalog, const pd_push *push, pd_metric metric, pd_sample *out,
                              pd_error *err)
{
    if (!push->ask.queries_rows) return PD_OK;
    char folder[PD_PATH_ROOM], path[PD_PATH_ROOM];
    pd_push_folder(catalog, push->number, folder);
    pd_status status = pd_path_join(path, folder, pd_part_file[PD_PART_QUERIES], err);
    if (status) return status;
    return pd_sample_file(path, push->ask.queries_rows, push->ask.dim, sample_size(catalog), metric, out,
                          err);
}

/* The table's folder, and the number the version will have. */
pd_status pd_incoming_number(pd_catalog *catalog, pd_job *job, uint64_t *number, pd_error *err)
{
    pthread_mutex_lock(&catalog->mutex);
    const pd_table *table = pd_table_find(catalog, job->table);
    *number = job->version = table ? table->last + 1 : 1;
    pthread_mutex_unlock(&catalog->mutex);
    char folder[PD_PATH_ROOM];
    pd_table_folder(catalog, job->table, folder);
    if (mkdir(folder, 0755) == 0) return pd_folder_sync_parent(folder, err);
    return errno == EEXIST ? PD_OK : pd_fail_errno(err, "make the folder", folder);
}

static pd_status build(pd_catalog *catalog, pd_job *job, const pd_push *push, const pd_schema *schema,
                       uint64_t number, pd_error *err)
{
    char folder[PD_PATH_ROOM], csv[PD_PATH_ROOM], upload[PD_PATH_ROOM];
    pd_job_context context = {catalog, job};
    mapping rows = {0}, ids = {0};
    pd_version_folder(catalog, job->table, number, folder);
    pd_push_folder(catalog, push->number, upload);
    pd_status status = pd_path_join(csv, upload, pd_part_file[PD_PART_ATTRIBUTES], err);
    if (!status) status = map_part(catalog, push, PD_PART_ROWS, &rows, err);
    if (!status) status = map_part(catalog, push, PD_PART_IDS, &ids, err);
    if (!status) {
        uint64_t unlisted = 0;
        pd_build_input input = {
            .table = job->table,
            .version = number,
            .rows = rows.bytes,
            .dtype = push->ask.dtype,
            .count = push->ask.rows,
            .dim = push->ask.dim,
            .ids = ids.bytes,
            .attributes = push->ask.attributes_bytes ? csv : NULL,
            .attributes_name = push->ask.attributes_name[0] ? push->ask.attributes_name : "attributes",
            .schema = schema,
            .nlist = push->ask.nlist,
            .seed = SEED,
            .sequence = push->sequence,
            .unlisted = &unlisted,
        };
        status = pd_build(&input, folder, catalog->builder, pd_job_progress, &context, err);
        if (!status && unlisted)
            pd_job_warn(catalog, job,
                        "%s has no line for %" PRIu64 " of %" PRIu64 " rows: all they have is unknown",
                        input.attributes_name, unlisted, input.count);
    }
    unmap(&rows);
    unmap(&ids);
    return status;
}

/* The version that was built is one of the table's from now on. */
pd_status pd_incoming_enlist(pd_catalog *catalog, const char *table_name, uint64_t number, pd_error *err)
{
    char folder[PD_PATH_ROOM];
    pd_version *version = NULL;
    pd_table *table = NULL;
    pd_version_folder(catalog, table_name, number, folder);
    pd_status status = pd_version_open(folder, &version, err);
    if (status) return status;
    pthread_mutex_lock(&catalog->mutex);
    status = pd_table_make(catalog, table_name, &table, err);
    if (!status) status = pd_table_add(table, number, pd_version_info_of(version), NULL, err);
    pthread_mutex_unlock(&catalog->mutex);
    pd_version_close(version);
    return status;
}

/* After a failure: the version, and the table where it was to be its first. */
void pd_incoming_discard(pd_catalog *catalog, const char *table_name, uint64_t number)
{
    pthread_mutex_lock(&catalog->mutex);
    pd_table *table = pd_table_find(catalog, table_name);
    if (table) {
        pd_table_forget(table, number);
        if (table->last == number) table->last = number - 1;
        if (!table->nversions && !table->current) {
            pd_table_drop(catalog, table);
            table = NULL;
        }
    }
    pthread_mutex_unlock(&catalog->mutex);
    char folder[PD_PATH_ROOM];
    pd_error err;
    if (pd_version_remove(catalog, table_name, number, &err))
        pd_log(PD_LOG_WARNING, "version %" PRIu64 " of \"%s\" is not removed: %s", number, table_name,
               err.message);
    pd_table_folder(catalog, table_name, folder);
    if (!table) rmdir(folder); /* which fails, as it should, when the folder holds anything */
}

static void set_problem(pd_catalog *catalog, const char *table_name, uint64_t number, const char *problem)
{
    pthread_mutex_lock(&catalog->mutex);
    pd_table *table = pd_table_find(catalog, table_name);
    pd_known *known = table ? pd_table_version(table, number) : NULL;
    if (known) snprintf(known->problem, sizeof known->problem, "%s", problem);
    pthread_mutex_unlock(&catalog->mutex);
}

/* Load, calibrate, warm, then stage or switch. *keep: the version stays on the disk though it failed. */
pd_status pd_incoming_bring(pd_catalog *catalog, pd_job *job, uint64_t number, const pd_sample *queries,
                            int *keep, pd_error *err)
{
    pd_job_context context = {catalog, job};
    pd_incoming in;
    *keep = 0;
    pd_job_progress(&context, "load", 0, 1);
    pd_status status = pd_incoming_load(catalog, job->table, number, job->publish, &in, err);
    if (status == PD_RESOURCE_EXHAUSTED) {
        *keep = 1;
        set_problem(catalog, job->table, number, err->message);
    }
    if (!status) status = pd_incoming_calibrate(&in, job, queries, err);
    if (!status) pd_job_progress(&context, "warm", 0, 1);
    if (!status) status = pd_incoming_warm(&in, err);
    if (!status && pd_job_progress(&context, "switch", 0, 1))
        status = pd_fail(err, PD_CANCELLED, "the job was cancelled before the switch");
    if (!status && job->publish) status = pd_incoming_switch(&in, job, err);
    if (!status && !job->publish) pd_incoming_stage(&in);
    pd_incoming_end(&in);
    return status;
}

pd_status pd_job_build(pd_catalog *catalog, pd_job *job, pd_error *err)
{
    pd_job_context context = {catalog, job};
    pd_job_progress(&context, "validate", 0, 1);
    pthread_mutex_lock(&catalog->mutex);
    const pd_push *push =
        pd_push_find(catalog, job->push); /* stays, and stays the same, until the job is over */
    pthread_mutex_unlock(&catalog->mutex);
    if (!push) return pd_fail(err, PD_INTERNAL, "push %" PRIu64 " is gone", job->push);
    pd_schema *schema = NULL;
    pd_sample queries = {0};
    uint64_t number = 0;
    int keep = 0;
    pd_status status = pd_incoming_schema(catalog, &push->ask, &schema, err);
    if (!status) status = read_queries(catalog, push, schema->metric, &queries, err);
    if (!status) status = pd_incoming_number(catalog, job, &number, err);
    if (status) goto out;
    status = build(catalog, job, push, schema, number, err);
    if (!status) status = pd_erase_since(catalog, job->table, number, push->sequence, err);
    if (!status) status = pd_incoming_enlist(catalog, job->table, number, err);
    if (!status)
        status = pd_incoming_bring(catalog, job, number, queries.count ? &queries : NULL, &keep, err);
    if (status && !keep)
        pd_incoming_discard(catalog, job->table, number);
    else if (status || !job->publish)
        pd_publish_prune(catalog, job->table, number); /* what is never published adds up, too */
out:
    pd_sample_free(&queries);
    pd_schema_free(schema);
    return status;
}
