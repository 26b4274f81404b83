/* See catalog_fixture.h. */
#include "catalog_fixture.h"

#include <fcntl.h>
#include <ftw.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"

void fixture_make(fixture *f, double memory_mib)
{
    char sets[6][96];
    const char *list[6];
    pd_error err;
    memset(f, 0, sizeof *f);
    pd_log_level(getenv("PADOS_TEST_LOG") ? PD_LOG_DEBUG : -1);
    snprintf(f->folder, sizeof f->folder, "/tmp/pados-catalog-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(sets[0], sizeof sets[0], "data_folder=\"%s/data\"", f->folder);
    snprintf(sets[1], sizeof sets[1], "memory_mib=%.3f", memory_mib);
    snprintf(sets[2], sizeof sets[2], "threads=2");
    snprintf(sets[3], sizeof sets[3], "builder_threads=1");
    snprintf(sets[4], sizeof sets[4], "backend=\"cpu\"");
    for (int i = 0; i < 5; i++)
        list[i] = sets[i];
    must(pd_config_load(NULL, list, 5, &f->config, &err), err);
    fixture_device(f, memory_mib);
    fixture_open(f);
}

void fixture_device(fixture *f, double memory_mib)
{
    pd_error err;
    pd_device_options options = {.memory = (uint64_t)(memory_mib * 1048576), .threads = 2};
    if (f->executor) pd_executor_close(f->executor);
    pd_device_close(f->device);
    must(pd_device_open("cpu", &options, &f->device, &err), err);
    must(pd_executor_open(f->config, f->device, &f->executor, &err), err);
}

void fixture_open(fixture *f)
{
    pd_error err;
    must(pd_catalog_open(f->config, f->device, f->executor, &f->catalog, &err), err);
}

void fixture_close(fixture *f)
{
    pd_catalog_close(f->catalog);
    f->catalog = NULL;
}

static int remove_one(const char *path, const struct stat *about, int kind, struct FTW *where)
{
    (void)about, (void)kind, (void)where;
    return remove(path);
}

void fixture_remove(fixture *f)
{
    fixture_close(f);
    pd_executor_close(f->executor);
    pd_device_info info;
    pd_device_info_of(f->device, &info);
    assert_int_equal(info.used, 0); /* every version was let go */
    pd_device_close(f->device);
    pd_config_free(f->config);
    assert_int_equal(nftw(f->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

void fixture_path(const fixture *f, char *path, const char *format, ...)
{
    char below[256];
    va_list args;
    va_start(args, format);
    vsnprintf(below, sizeof below, format, args);
    va_end(args);
    snprintf(path, 512, "%s/data/%s", f->folder, below);
}

int fixture_exists(const fixture *f, const char *below)
{
    char path[512];
    struct stat about;
    fixture_path(f, path, "%s", below);
    return stat(path, &about) == 0;
}

float *make_rows(uint64_t seed, uint32_t n, uint32_t dim)
{
    float *rows = malloc((size_t)n * dim * sizeof *rows);
    assert_non_null(rows);
    uint64_t state = seed * 2 + 1;
    for (size_t i = 0; i < (size_t)n * dim; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        rows[i] = (float)(state >> 40) / (float)(1 << 23) - 1.0f;
    }
    return rows;
}

/* -------------------------------------------------------------------------------------------------- asking --- */

pd_status ask(fixture *f, Pados__V1__Request *request, Pados__V1__Reply **reply, pd_error *err)
{
    *reply = malloc(sizeof **reply);
    assert_non_null(*reply);
    pados__v1__reply__init(*reply);
    err->message[0] = 0;
    pd_status status = pd_catalog_admin(f->catalog, request, *reply, err);
    /* What is answered can be packed. */
    assert_true(pados__v1__reply__get_packed_size(*reply) < 1 << 24);
    return status;
}

void reply_free(Pados__V1__Reply *reply)
{
    pados__v1__reply__free_unpacked(reply, NULL);
}

pd_status begin(fixture *f, const Pados__V1__PushBegin *body, Pados__V1__PushBeginReply *out, pd_error *err)
{
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_PUSH_BEGIN;
    request.push_begin = (Pados__V1__PushBegin *)body;
    Pados__V1__Reply *reply;
    pd_status status = ask(f, &request, &reply, err);
    if (!status) *out = *reply->push_begin;
    reply_free(reply);
    return status;
}

pd_status chunk(fixture *f, uint64_t number, int part, uint64_t offset, const void *data, size_t length,
                uint64_t *received, pd_error *err)
{
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__PushChunk body = PADOS__V1__PUSH_CHUNK__INIT;
    body.push = number;
    body.part = (Pados__V1__PushChunk__Part)part;
    body.offset = offset;
    body.data = (ProtobufCBinaryData){length, (uint8_t *)data};
    body.checksum = pd_sum_of(data, length);
    request.body_case = PADOS__V1__REQUEST__BODY_PUSH_CHUNK;
    request.push_chunk = &body;
    Pados__V1__Reply *reply;
    pd_status status = ask(f, &request, &reply, err);
    if (!status && received) *received = reply->push_chunk->received;
    reply_free(reply);
    return status;
}

pd_status commit(fixture *f, uint64_t number, int publish_it, uint64_t *job, pd_error *err)
{
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__PushCommit body = PADOS__V1__PUSH_COMMIT__INIT;
    body.push = number;
    body.publish = publish_it;
    request.body_case = PADOS__V1__REQUEST__BODY_PUSH_COMMIT;
    request.push_commit = &body;
    Pados__V1__Reply *reply;
    pd_status status = ask(f, &request, &reply, err);
    if (!status) *job = reply->job->job;
    reply_free(reply);
    return status;
}

pd_status wait_job(fixture *f, uint64_t number, uint64_t *version, pd_error *err)
{
    pd_catalog *catalog = f->catalog;
    pthread_mutex_lock(&catalog->mutex);
    pd_job *job = pd_job_find(catalog, number);
    assert_non_null(job);
    while (job->state == PD_JOB_QUEUED || job->state == PD_JOB_RUNNING)
        pthread_cond_wait(&catalog->changed, &catalog->mutex);
    pthread_mutex_unlock(&catalog->mutex);

    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__JobGet body = PADOS__V1__JOB_GET__INIT;
    body.job = number;
    request.body_case = PADOS__V1__REQUEST__BODY_JOB_GET;
    request.job_get = &body;
    Pados__V1__Reply *reply;
    must(ask(f, &request, &reply, err), *err);
    pd_status status = (pd_status)reply->job->status;
    assert_string_equal(reply->job->stage, status ? "failed" : "done");
    if (version) *version = reply->job->version;
    snprintf(err->message, sizeof err->message, "%s", reply->job->message);
    reply_free(reply);
    return status;
}

Pados__V1__PushBegin plan_begin(const push_plan *plan)
{
    Pados__V1__PushBegin body = PADOS__V1__PUSH_BEGIN__INIT;
    body.table = (char *)plan->table;
    if (plan->schema) body.schema = (char *)plan->schema;
    if (plan->metric) body.metric = (char *)plan->metric;
    if (plan->key) body.key = (char *)plan->key;
    body.dim = plan->dim;
    body.rows = plan->n;
    body.ids_bytes = plan->ids ? plan->n * sizeof *plan->ids : 0;
    body.attributes_bytes = plan->attributes ? strlen(plan->attributes) : 0;
    body.queries_rows = plan->nqueries;
    return body;
}

static pd_status send_all(fixture *f, const push_plan *plan, int publish_it, uint64_t *job, pd_error *err)
{
    const struct {
        int part;
        const void *bytes;
        size_t length;
    } parts[] = {
        {PD_PART_ROWS, plan->rows, (size_t)plan->n * plan->dim * sizeof(float)},
        {PD_PART_IDS, plan->ids, plan->ids ? plan->n * sizeof *plan->ids : 0},
        {PD_PART_ATTRIBUTES, plan->attributes, plan->attributes ? strlen(plan->attributes) : 0},
        {PD_PART_QUERIES, plan->queries, (size_t)plan->nqueries * plan->dim * sizeof(float)},
    };
    Pados__V1__PushBegin body = plan_begin(plan);
    Pados__V1__PushBeginReply reply;
    pd_status status = begin(f, &body, &reply, err);
    for (int i = 0; !status && i < 4; i++)
        if (parts[i].length)
            status = chunk(f, reply.push, parts[i].part, 0, parts[i].bytes, parts[i].length, NULL, err);
    return status ? status : commit(f, reply.push, publish_it, job, err);
}

uint64_t upload(fixture *f, const push_plan *plan)
{
    pd_error err;
    uint64_t job = 0;
    must(send_all(f, plan, 1, &job, &err), err);
    return job;
}

pd_status push(fixture *f, const push_plan *plan, int publish_it, uint64_t *version, pd_error *err)
{
    uint64_t job;
    pd_status status = send_all(f, plan, publish_it, &job, err);
    return status ? status : wait_job(f, job, version, err);
}

static pd_status run_job(fixture *f, Pados__V1__Request *request, uint64_t *version, pd_error *err)
{
    Pados__V1__Reply *reply;
    pd_status status = ask(f, request, &reply, err);
    uint64_t job = status ? 0 : reply->job->job;
    reply_free(reply);
    return status ? status : wait_job(f, job, version, err);
}

pd_status publish(fixture *f, const char *table, uint64_t version, pd_error *err)
{
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__Publish body = PADOS__V1__PUBLISH__INIT;
    body.table = (char *)table;
    body.version = version;
    request.body_case = PADOS__V1__REQUEST__BODY_PUBLISH;
    request.publish = &body;
    return run_job(f, &request, NULL, err);
}

pd_status rollback(fixture *f, const char *table, uint64_t *version, pd_error *err)
{
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__Rollback body = PADOS__V1__ROLLBACK__INIT;
    body.table = (char *)table;
    request.body_case = PADOS__V1__REQUEST__BODY_ROLLBACK;
    request.rollback = &body;
    return run_job(f, &request, version, err);
}

static Pados__V1__Reply *get_table(fixture *f, const char *table)
{
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__TableGet body = PADOS__V1__TABLE_GET__INIT;
    body.table = (char *)table;
    request.body_case = PADOS__V1__REQUEST__BODY_TABLE_GET;
    request.table_get = &body;
    Pados__V1__Reply *reply;
    pd_error err;
    if (ask(f, &request, &reply, &err) == PD_OK) return reply;
    reply_free(reply);
    return NULL;
}

uint64_t serving(fixture *f, const char *table)
{
    Pados__V1__Reply *reply = get_table(f, table);
    uint64_t version = reply ? reply->table->info->serving : 0;
    if (reply) reply_free(reply);
    return version;
}

const char *state_of(fixture *f, const char *table, uint64_t version, char *problem)
{
    static char state[32];
    state[0] = 0;
    if (problem) problem[0] = 0;
    Pados__V1__Reply *reply = get_table(f, table);
    if (!reply) return state;
    for (size_t i = 0; i < reply->table->n_versions; i++) {
        const Pados__V1__VersionInfo *info = reply->table->versions[i];
        if (info->version != version) continue;
        snprintf(state, sizeof state, "%s", info->state);
        if (problem) snprintf(problem, 480, "%s", info->problem);
    }
    reply_free(reply);
    return state;
}

pd_status nearest(fixture *f, const char *name, const float *vector, uint64_t *id, pd_error *err)
{
    pd_served *served;
    pd_status status = pd_catalog_hold(f->catalog, name, &served, err);
    if (status) return status;
    uint32_t dim = served->info->shape.dim;
    float *query = malloc(dim * sizeof *query);
    double square = 0;
    for (uint32_t d = 0; d < dim; d++)
        square += (double)vector[d] * vector[d];
    for (uint32_t d = 0; d < dim; d++)
        query[d] = served->info->shape.metric == PD_COSINE ? (float)(vector[d] / sqrt(square)) : vector[d];
    pd_hit hit = {0};
    pd_answer answer = {.hits = &hit};
    pd_query q = {.vector = query, .similarity = 1, .nprobe = UINT32_MAX, .k = 1, .min_score = -INFINITY};
    q.nprobe = served->info->shape.nlist;
    status = pd_executor_background(f->executor, served->resident, &q, 1, &answer, err);
    if (!status) assert_int_equal(answer.count, 1);
    *id = hit.id;
    free(query);
    pd_catalog_release(served);
    return status;
}

void fixture_shop(fixture *f, uint32_t n, uint32_t dim)
{
    pd_error err;
    float *rows = make_rows(3, n, dim);
    push_plan plan = {.table = "t", .metric = "l2", .rows = rows, .n = n, .dim = dim};
    fixture_make(f, 16);
    must(push(f, &plan, 1, NULL, &err), err);
    free(rows);
}

void fixture_flip(const fixture *f, const char *below, off_t at)
{
    char path[512], byte;
    fixture_path(f, path, "%s", below);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}
