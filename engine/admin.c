/* Administration on the wire: one Request body in, one Reply body out. Nothing is decided here.
 *
 * Replies are made of malloc'ed parts, field by field, so that protobuf-c's free_unpacked can free what was made even when
 * memory ran out half way.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "catalog_impl.h"
#include "compare.h"
#include "erase.h"
#include "export.h"
#include "pados.pb-c.h"
#include "snapshot_folder.h"

typedef Pados__V1__Request request_t;
typedef Pados__V1__Reply reply_t;

static pd_status no_memory(pd_error *err)
{
    return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the reply");
}

/* Points a string field at a copy. */
static pd_status set_text(char **field, const char *text, pd_error *err)
{
    if (!text[0]) return PD_OK; /* the default is "" */
    char *copy = strdup(text);
    if (!copy) return no_memory(err);
    *field = copy;
    return PD_OK;
}

/* body = a new message of TYPE, set in the reply. */
#define MAKE_BODY(reply, field, CASE, TYPE)                                                                  \
    ((reply)->field = malloc(sizeof *(reply)->field),                                                        \
     (reply)->field ? (pados__v1__##TYPE##__init((reply)->field),                                            \
                       (reply)->body_case = PADOS__V1__REPLY__BODY_##CASE, PD_OK)                            \
                    : PD_RESOURCE_EXHAUSTED)

/* ---------------------------------------------------------------------------------------------------- push --- */

static pd_status take_dtype(Pados__V1__Dtype dtype, pd_dtype *out, pd_error *err)
{
    switch (dtype) {
    case PADOS__V1__DTYPE__F32:
        *out = PD_DTYPE_F32;
        return PD_OK;
    case PADOS__V1__DTYPE__F16:
        *out = PD_DTYPE_F16;
        return PD_OK;
    case PADOS__V1__DTYPE__I8:
        *out = PD_DTYPE_I8;
        return PD_OK;
    case PADOS__V1__DTYPE__U8:
        *out = PD_DTYPE_U8;
        return PD_OK;
    default:
        return pd_fail(err, PD_INVALID_ARGUMENT, "dtype %d is none of F32, F16, I8, U8", (int)dtype);
    }
}

/* Copies a string that must fit. */
static pd_status take_text(char *out, size_t room, const char *what, const char *text, pd_error *err)
{
    if (strlen(text) >= room)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s is longer than %zu bytes", what, room - 1);
    memcpy(out, text, strlen(text) + 1);
    return PD_OK;
}

static pd_status push_begin(pd_catalog *catalog, const Pados__V1__PushBegin *in, reply_t *reply,
                            pd_error *err)
{
    pd_push_ask ask = {.dim = in->dim,
                       .nlist = in->nlist,
                       .rows = in->rows,
                       .ids_bytes = in->ids_bytes,
                       .attributes_bytes = in->attributes_bytes,
                       .queries_rows = in->queries_rows};
    pd_status status = take_text(ask.table, sizeof ask.table, "the table's name", in->table, err);
    if (!status) status = take_text(ask.metric, sizeof ask.metric, "the metric", in->metric, err);
    if (!status) status = take_text(ask.key, sizeof ask.key, "the push's key", in->key, err);
    if (!status)
        status = take_text(ask.attributes_name, sizeof ask.attributes_name, "the attributes' file name",
                           in->attributes_name, err);
    if (!status) status = take_dtype(in->dtype, &ask.dtype, err);
    if (!status && strlen(in->schema) > PD_SCHEMA_TEXT)
        status = pd_fail(err, PD_INVALID_ARGUMENT, "the schema is longer than %u bytes", PD_SCHEMA_TEXT);
    if (!status && in->schema[0]) {
        ask.schema = strdup(in->schema);
        if (!ask.schema) status = no_memory(err);
    }
    if (status) return status;
    uint64_t number, received[PD_PARTS];
    status = pd_push_begin(catalog, &ask, &number, received, err);
    if (status) return status;
    if (MAKE_BODY(reply, push_begin, PUSH_BEGIN, push_begin_reply)) return no_memory(err);
    reply->push_begin->push = number;
    reply->push_begin->received_rows = received[PD_PART_ROWS];
    reply->push_begin->received_ids = received[PD_PART_IDS];
    reply->push_begin->received_attributes = received[PD_PART_ATTRIBUTES];
    reply->push_begin->received_queries = received[PD_PART_QUERIES];
    return PD_OK;
}

static pd_status push_chunk(pd_catalog *catalog, const Pados__V1__PushChunk *in, reply_t *reply,
                            pd_error *err)
{
    uint64_t received = 0;
    pd_status status = pd_push_chunk(catalog, in->push, (int)in->part, in->offset, in->data.data,
                                     in->data.len, in->checksum, &received, err);
    if (status) return status;
    if (MAKE_BODY(reply, push_chunk, PUSH_CHUNK, push_chunk_reply)) return no_memory(err);
    reply->push_chunk->received = received;
    return PD_OK;
}

/* ---------------------------------------------------------------------------------------------------- jobs --- */

static pd_status tell_job(pd_catalog *catalog, uint64_t number, reply_t *reply, pd_error *err)
{
    if (MAKE_BODY(reply, job, JOB, job_reply)) return no_memory(err);
    pd_job seen;
    pthread_mutex_lock(&catalog->mutex);
    pd_job *job = pd_job_find(catalog, number);
    if (job) {
        seen.number = job->number;
        memcpy(seen.table, job->table, sizeof seen.table);
        memcpy(seen.message, job->message, sizeof seen.message);
        seen.version = job->version;
        seen.status = job->status;
        seen.started_ms = job->started_ms;
        seen.ended_ms = job->ended_ms ? job->ended_ms : pd_now_ms();
        atomic_init(&seen.stage, atomic_load(&job->stage));
        atomic_init(&seen.done, atomic_load(&job->done));
        atomic_init(&seen.total, atomic_load(&job->total));
    }
    pthread_mutex_unlock(&catalog->mutex);
    if (!job) return pd_fail(err, PD_NOT_FOUND, "there is no job %" PRIu64, number);
    Pados__V1__JobReply *out = reply->job;
    out->job = seen.number;
    out->version = seen.version;
    out->done = atomic_load(&seen.done);
    out->total = atomic_load(&seen.total);
    out->seconds = (double)(seen.ended_ms - seen.started_ms) / 1000;
    out->status = seen.status;
    pd_status status = set_text(&out->table, seen.table, err);
    if (!status) status = set_text(&out->stage, atomic_load(&seen.stage), err);
    if (!status) status = set_text(&out->message, seen.message, err);
    return status;
}

static pd_status push_commit(pd_catalog *catalog, const Pados__V1__PushCommit *in, reply_t *reply,
                             pd_error *err)
{
    uint64_t job = 0;
    pd_status status = pd_push_commit(catalog, in->push, in->publish, &job, err);
    return status ? status : tell_job(catalog, job, reply, err);
}

/* A publish, rollback or rebuild: what is pending already is not asked for twice. */
static pd_status queue_job(pd_catalog *catalog, pd_job_kind kind, const char *table_name, uint64_t version,
                           reply_t *reply, pd_error *err)
{
    pd_status status = pd_name_check("table", table_name, err);
    if (status) return status;
    uint64_t number = 0;
    pthread_mutex_lock(&catalog->mutex);
    pd_table *table = pd_table_find(catalog, table_name);
    pd_job *job = pd_job_pending(catalog, kind, table_name, kind == PD_JOB_PUBLISH ? version : 0);
    if (!table)
        status = pd_fail(err, PD_NOT_FOUND, "there is no table \"%s\"", table_name);
    else if (kind == PD_JOB_PUBLISH && !pd_table_version(table, version))
        status = pd_fail(err, PD_NOT_FOUND, "table \"%s\" has no version %" PRIu64, table_name, version);
    else if (!job)
        status = pd_job_add(catalog, kind, table_name, &job, err);
    if (!status) {
        if (kind == PD_JOB_PUBLISH) job->version = version;
        number = job->number;
    }
    pthread_mutex_unlock(&catalog->mutex);
    return status ? status : tell_job(catalog, number, reply, err);
}

/* -------------------------------------------------------------------------------------------------- tables --- */

static const char *code_name(pd_code code)
{
    static const char *const names[] = {"none", "i8", "f16", "f32"};
    return names[code];
}

/* With the mutex held. */
static pd_status fill_info(const pd_table *table, Pados__V1__TableInfo *out, pd_error *err)
{
    const pd_known *face = pd_table_face(table);
    out->serving = table->serving ? table->serving->served.number : 0;
    for (uint32_t i = 0; i < table->nversions; i++)
        out->disk_bytes += table->versions[i].disk_bytes;
    pd_box_bytes(table->serving, &out->device_bytes, &out->host_bytes);
    pd_box_bytes(table->staged, &out->device_bytes, &out->host_bytes);
    pd_status status = set_text(&out->table, table->name, err);
    if (status || !face) return status;
    out->rows = face->rows;
    if (table->serving) {
        pd_live_stats live;
        pd_resident_live(table->serving->served.resident, &live);
        out->rows = live.rows;
        out->changed = live.changed;
        out->sequence = live.applied;
    }
    status = set_text(&out->problem, table->problem[0] ? table->problem : face->problem, err);
    if (status) return status;
    out->dim = face->dim;
    out->code_dim = face->code_dim;
    out->nlist = face->nlist;
    status = set_text(&out->metric, pd_metric_name(face->metric), err);
    if (!status) status = set_text(&out->code, code_name(face->code), err);
    if (!status) status = set_text(&out->refine, pd_refine_name(face->refine), err);
    return status;
}

static pd_status table_list(pd_catalog *catalog, reply_t *reply, pd_error *err)
{
    if (MAKE_BODY(reply, table_list, TABLE_LIST, table_list_reply)) return no_memory(err);
    Pados__V1__TableListReply *out = reply->table_list;
    pd_status status = PD_OK;
    pthread_mutex_lock(&catalog->mutex);
    uint32_t count = catalog->tables.count;
    out->tables = calloc(count + 1, sizeof *out->tables);
    if (!out->tables) status = no_memory(err);
    for (uint32_t i = 0; !status && i < count; i++) {
        Pados__V1__TableInfo *info = malloc(sizeof *info);
        if (!info) {
            status = no_memory(err);
            break;
        }
        pados__v1__table_info__init(info);
        out->tables[out->n_tables++] = info;
        status = fill_info(catalog->tables.at[i], info, err);
    }
    pthread_mutex_unlock(&catalog->mutex);
    return status;
}

/* Days since 1970 as RFC 3339. text: [32] */
static void tell_time(double days, char *text)
{
    time_t seconds = (time_t)(days * 86400);
    struct tm parts;
    text[0] = 0;
    if (days > 0 && gmtime_r(&seconds, &parts)) strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", &parts);
}

static pd_status fill_versions(const pd_table *table, Pados__V1__TableReply *out, pd_error *err)
{
    out->versions = calloc(table->nversions + 1, sizeof *out->versions);
    if (!out->versions) return no_memory(err);
    for (uint32_t i = 0; i < table->nversions; i++) {
        const pd_known *known = &table->versions[i];
        Pados__V1__VersionInfo *info = malloc(sizeof *info);
        if (!info) return no_memory(err);
        pados__v1__version_info__init(info);
        out->versions[out->n_versions++] = info;
        info->version = known->number;
        info->rows = known->rows;
        info->disk_bytes = known->disk_bytes;
        char created[32];
        tell_time(known->created, created);
        pd_status status = set_text(&info->state, pd_version_state_name(known->state), err);
        if (!status) status = set_text(&info->created, created, err);
        if (!status) status = set_text(&info->problem, known->problem, err);
        if (status) return status;
    }
    return PD_OK;
}

static pd_status fill_curve(const pd_calibration *calibration, Pados__V1__TableReply *out, pd_error *err)
{
    if (!calibration->measured) return PD_OK;
    out->curve = calloc((size_t)PD_BANDS * PD_SPREADS * PD_CURVE_POINTS, sizeof *out->curve);
    if (!out->curve) return no_memory(err);
    for (uint32_t b = 0; b < PD_BANDS; b++)
        for (uint32_t s = 0; s < PD_SPREADS; s++)
            for (uint32_t p = 0; p < calibration->curves[b][s].points; p++) {
                Pados__V1__CurvePoint *point = malloc(sizeof *point);
                if (!point) return no_memory(err);
                pados__v1__curve_point__init(point);
                out->curve[out->n_curve++] = point;
                point->k = pd_band_k[b];
                point->spread = pd_spread_at[s];
                point->nprobe = calibration->curves[b][s].at[p].nprobe;
                point->recall = calibration->curves[b][s].at[p].recall;
                point->lower = calibration->curves[b][s].at[p].lower;
                point->depth = calibration->curves[b][s].at[p].depth;
            }
    out->calibration_queries = calibration->queries;
    return set_text(&out->calibration_source, calibration->source, err);
}

static pd_status table_get(pd_catalog *catalog, const char *name, reply_t *reply, pd_error *err)
{
    if (MAKE_BODY(reply, table, TABLE, table_reply)) return no_memory(err);
    Pados__V1__TableReply *out = reply->table;
    out->info = malloc(sizeof *out->info);
    if (!out->info) return no_memory(err);
    pados__v1__table_info__init(out->info);
    pd_status status;
    pd_box *box = NULL;
    pthread_mutex_lock(&catalog->mutex);
    const pd_table *table = pd_table_find(catalog, name);
    if (!table) {
        status = pd_fail(err, PD_NOT_FOUND, "there is no table \"%.80s\"", name);
    } else {
        status = fill_info(table, out->info, err);
        if (!status) status = fill_versions(table, out, err);
        box = status ? NULL : table->serving;
        if (box) box->refs++;
    }
    pthread_mutex_unlock(&catalog->mutex);
    if (!box) return status;
    char *text = NULL;
    status = pd_schema_text(box->served.info->schema, &text, err);
    if (!status) status = set_text(&out->schema, text, err);
    free(text);
    if (!status) status = fill_curve(box->served.info->calibration, out, err);
    pd_catalog_release(&box->served);
    return status;
}

static pd_status compare(pd_catalog *catalog, const Pados__V1__Compare *in, reply_t *reply, pd_error *err)
{
    pd_comparison c;
    pd_status status = pd_compare(catalog, in->table, in->version, in->k, in->queries, &c, err);
    if (status) return status;
    if (MAKE_BODY(reply, compare, COMPARE, compare_reply)) return no_memory(err);
    Pados__V1__CompareReply *out = reply->compare;
    out->serving = c.serving;
    out->version = c.version;
    out->k = c.k;
    out->queries = c.queries;
    out->overlap = c.overlap;
    out->serving_recall = c.serving_recall;
    out->version_recall = c.version_recall;
    out->only_serving = c.only_serving;
    out->only_version = c.only_version;
    return PD_OK;
}

static pd_status export_row(pd_catalog *catalog, const Pados__V1__Export *in, reply_t *reply, pd_error *err)
{
    char *text = NULL;
    pd_status status = pd_export_row(catalog, in->table, in->id, &text, err);
    if (status) return status;
    if (MAKE_BODY(reply, export, EXPORT, export_reply)) {
        free(text);
        return no_memory(err);
    }
    reply->export->json = text;
    return PD_OK;
}

/* ------------------------------------------------------------------------------------------ profiles, stats --- */

static pd_status fill_profile(const pd_profile *profile, int with_text, Pados__V1__ProfileReply *out,
                              pd_error *err)
{
    char from[32], until[32];
    pd_profile_validity(profile, from, until);
    out->version = pd_profile_version(profile);
    pd_status status = set_text(&out->name, pd_profile_name(profile), err);
    if (!status) status = set_text(&out->table, pd_profile_table(profile), err);
    if (!status && with_text) status = set_text(&out->text, pd_profile_text(profile), err);
    if (!status) status = set_text(&out->valid_from, from, err);
    if (!status) status = set_text(&out->valid_until, until, err);
    return status;
}

/* Answers with a profile and lets go of it. */
static pd_status tell_profile(pd_profile *profile, reply_t *reply, pd_error *err)
{
    pd_status status = MAKE_BODY(reply, profile, PROFILE, profile_reply) ? no_memory(err) : PD_OK;
    if (!status) status = fill_profile(profile, 1, reply->profile, err);
    pd_profile_release(profile);
    return status;
}

/* Warnings that find no memory are lost: what they warn of stands all the same. */
static void add_warning(void *context, const char *sentence)
{
    reply_t *reply = context;
    char **more = realloc(reply->warnings, (reply->n_warnings + 1) * sizeof *more);
    if (!more) return;
    reply->warnings = more;
    more[reply->n_warnings] = strdup(sentence);
    if (more[reply->n_warnings]) reply->n_warnings++;
}

static void warn_of_profile(pd_catalog *catalog, const pd_profile *profile, reply_t *reply)
{
    pd_served *served = NULL;
    pd_error absent;
    if (pd_catalog_hold(catalog, pd_profile_table(profile), &served, &absent)) {
        char text[sizeof absent.message + 64];
        snprintf(text, sizeof text, "not held against its table yet: %s", absent.message);
        add_warning(reply, text);
        return;
    }
    pd_profile_doubts(profile, served->info->schema, add_warning, reply);
    pd_catalog_release(served);
}

static pd_status profile_put(pd_catalog *catalog, const Pados__V1__ProfilePut *in, reply_t *reply,
                             pd_error *err)
{
    pd_profile *profile = NULL;
    pd_status status = pd_profiles_put(catalog, in->file, in->text, &profile, err);
    if (status) return status;
    warn_of_profile(catalog, profile, reply);
    return tell_profile(profile, reply, err);
}

static pd_status profile_get(pd_catalog *catalog, const Pados__V1__ProfileGet *in, reply_t *reply,
                             pd_error *err)
{
    pd_profile *profile = NULL;
    pd_status status = pd_catalog_profile(catalog, in->name, &profile, err);
    return status ? status : tell_profile(profile, reply, err);
}

static pd_status profile_list(pd_catalog *catalog, reply_t *reply, pd_error *err)
{
    if (MAKE_BODY(reply, profile_list, PROFILE_LIST, profile_list_reply)) return no_memory(err);
    Pados__V1__ProfileListReply *out = reply->profile_list;
    pd_profile **all;
    uint32_t count;
    pd_status status = pd_profiles_all(catalog, &all, &count, err);
    if (status) return status;
    out->profiles = calloc(count + 1, sizeof *out->profiles);
    if (!out->profiles) status = no_memory(err);
    for (uint32_t i = 0; i < count; i++) {
        Pados__V1__ProfileReply *one = status ? NULL : malloc(sizeof *one);
        if (one) {
            pados__v1__profile_reply__init(one);
            out->profiles[out->n_profiles++] = one;
            status = fill_profile(all[i], 0, one, err);
        } else if (!status) {
            status = no_memory(err);
        }
        pd_profile_release(all[i]);
    }
    free(all);
    return status;
}

typedef struct stats_room {
    Pados__V1__StatsReply *out;
    size_t room;
    int failed;
} stats_room;

static void add_stat(void *context, const char *name, const char *labels, double value)
{
    stats_room *s = context;
    Pados__V1__StatsReply *out = s->out;
    if (s->failed) return;
    s->failed = 1; /* until this one is in */
    if (out->n_names == s->room) {
        size_t room = s->room ? s->room * 2 : 64;
        char **names = realloc(out->names, room * sizeof *names);
        if (!names) return;
        out->names = names;
        double *values = realloc(out->values, room * sizeof *values);
        if (!values) return;
        out->values = values;
        s->room = room;
    }
    size_t length = strlen(name) + strlen(labels) + 3;
    char *text = malloc(length);
    if (!text) return;
    snprintf(text, length, labels[0] ? "%s{%s}" : "%s%s", name, labels);
    out->names[out->n_names++] = text;
    out->values[out->n_values++] = value;
    s->failed = 0;
}

static pd_status stats(pd_catalog *catalog, reply_t *reply, pd_error *err)
{
    if (MAKE_BODY(reply, stats, STATS, stats_reply)) return no_memory(err);
    stats_room room = {.out = reply->stats};
    pd_catalog_gauges(catalog, add_stat, &room);
    return room.failed ? no_memory(err) : PD_OK;
}

static pd_status snapshot(pd_catalog *catalog, const char *folder, reply_t *reply, pd_error *err)
{
    pd_snapshot_made made;
    pd_status status = pd_snapshot_write(catalog, folder, &made, err);
    if (status) return status;
    if (MAKE_BODY(reply, snapshot, SNAPSHOT, snapshot_reply)) return no_memory(err);
    reply->snapshot->sequence = made.sequence;
    reply->snapshot->bytes = made.bytes;
    reply->snapshot->tables = made.tables;
    reply->snapshot->seconds = made.seconds;
    return set_text(&reply->snapshot->folder, folder, err);
}

/* ------------------------------------------------------------------------------------------------- dispatch --- */

pd_status pd_catalog_admin(pd_catalog *catalog, const request_t *request, reply_t *reply, pd_error *err)
{
    switch (request->body_case) {
    case PADOS__V1__REQUEST__BODY_PUSH_BEGIN:
        return push_begin(catalog, request->push_begin, reply, err);
    case PADOS__V1__REQUEST__BODY_PUSH_CHUNK:
        return push_chunk(catalog, request->push_chunk, reply, err);
    case PADOS__V1__REQUEST__BODY_PUSH_COMMIT:
        return push_commit(catalog, request->push_commit, reply, err);
    case PADOS__V1__REQUEST__BODY_PUSH_ABORT:
        return pd_push_abort(catalog, request->push_abort->push, err);
    case PADOS__V1__REQUEST__BODY_JOB_GET:
        return tell_job(catalog, request->job_get->job, reply, err);
    case PADOS__V1__REQUEST__BODY_TABLE_LIST:
        return table_list(catalog, reply, err);
    case PADOS__V1__REQUEST__BODY_TABLE_GET:
        return table_get(catalog, request->table_get->table, reply, err);
    case PADOS__V1__REQUEST__BODY_PUBLISH:
        return queue_job(catalog, PD_JOB_PUBLISH, request->publish->table, request->publish->version, reply,
                         err);
    case PADOS__V1__REQUEST__BODY_ROLLBACK:
        return queue_job(catalog, PD_JOB_ROLLBACK, request->rollback->table, 0, reply, err);
    case PADOS__V1__REQUEST__BODY_REBUILD:
        return queue_job(catalog, PD_JOB_REBUILD, request->rebuild->table, 0, reply, err);
    case PADOS__V1__REQUEST__BODY_ERASE:
        return pd_erase_ask(catalog, (request_t *)request, reply, err);
    case PADOS__V1__REQUEST__BODY_ERASURE_LIST:
        return pd_erase_list(catalog, request->erasure_list->pending, request->erasure_list->after, reply,
                             err);
    case PADOS__V1__REQUEST__BODY_EXPORT:
        return export_row(catalog, request->export, reply, err);
    case PADOS__V1__REQUEST__BODY_COMPARE:
        return compare(catalog, request->compare, reply, err);
    case PADOS__V1__REQUEST__BODY_PROFILE_PUT:
        return profile_put(catalog, request->profile_put, reply, err);
    case PADOS__V1__REQUEST__BODY_PROFILE_LIST:
        return profile_list(catalog, reply, err);
    case PADOS__V1__REQUEST__BODY_PROFILE_GET:
        return profile_get(catalog, request->profile_get, reply, err);
    case PADOS__V1__REQUEST__BODY_SNAPSHOT:
        return snapshot(catalog, request->snapshot->folder, reply, err);
    case PADOS__V1__REQUEST__BODY_STATS:
        return stats(catalog, reply, err);
    default:
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "the request asks for nothing that the administration answers");
    }
}
