/* Chunks, commit and abort. The mutex is let go while a chunk is written: the upload counts its writers, and commit and
 * abort wait for them.
 */
#include "push_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "incoming.h"
#include "log.h"
#include "sample.h"

/* ---------------------------------------------------------------------------------------------------- runs --- */

static int part_has(const pd_part *part, uint64_t begin, uint64_t end)
{
    for (uint32_t i = 0; i < part->nruns; i++)
        if (part->runs[i].begin <= begin && end <= part->runs[i].end) return 1;
    return 0;
}

/* Joins [begin, end) to the runs. 0: there would be too many. */
static int part_add(pd_part *part, uint64_t begin, uint64_t end)
{
    uint32_t first = 0;
    while (first < part->nruns && part->runs[first].end < begin)
        first++;
    uint32_t last = first; /* runs first..last - 1 touch the new one */
    while (last < part->nruns && part->runs[last].begin <= end) {
        if (part->runs[last].begin < begin) begin = part->runs[last].begin;
        if (part->runs[last].end > end) end = part->runs[last].end;
        last++;
    }
    uint32_t joined = last - first;
    if (!joined && part->nruns == PD_PUSH_RUNS) return 0;
    memmove(&part->runs[first + 1], &part->runs[last], (part->nruns - last) * sizeof part->runs[0]);
    part->runs[first].begin = begin;
    part->runs[first].end = end;
    part->nruns = part->nruns - joined + 1;
    return 1;
}

/* --------------------------------------------------------------------------------------------------- chunks --- */

static pd_status write_at(int fd, const char *path, const void *data, size_t length, uint64_t offset,
                          pd_error *err)
{
    const unsigned char *at = data;
    while (length) {
        ssize_t done = pwrite(fd, at, length, (off_t)offset);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return pd_fail_errno(err, "write", path);
        at += done;
        offset += (uint64_t)done;
        length -= (size_t)done;
    }
    return PD_OK;
}

/* With the mutex held. */
static pd_status open_push(pd_catalog *catalog, uint64_t number, pd_push **out, pd_error *err)
{
    *out = pd_push_find(catalog, number);
    if (!*out)
        return pd_fail(err, PD_NOT_FOUND,
                       "there is no push %" PRIu64 " (it was aborted, or idle for too long)", number);
    if ((*out)->state == PD_PUSH_OPEN) return PD_OK;
    return pd_fail(err, PD_FAILED_PRECONDITION, "push %" PRIu64 " is %s", number,
                   (*out)->state == PD_PUSH_COMMITTED ? "committed already" : "not open");
}

static pd_status check_chunk(const pd_catalog *catalog, const pd_part *part, int which, uint64_t number,
                             uint64_t offset, size_t length, pd_error *err)
{
    if (!length) return pd_fail(err, PD_INVALID_ARGUMENT, "an empty chunk of push %" PRIu64, number);
    if (length > catalog->config->max_chunk)
        return pd_fail(err, PD_INVALID_ARGUMENT, "a chunk of %zu bytes is larger than max_chunk (%u)", length,
                       catalog->config->max_chunk);
    if (offset > part->bytes || length > part->bytes - offset)
        return pd_fail(err, PD_OUT_OF_RANGE,
                       "a chunk of %zu bytes at %" PRIu64 " passes the end of the %s of push %" PRIu64
                       ", which are %" PRIu64 " bytes",
                       length, offset, pd_part_name[which], number, part->bytes);
    return PD_OK;
}

pd_status pd_push_chunk(pd_catalog *catalog, uint64_t number, int which, uint64_t offset, const void *data,
                        size_t length, uint64_t checksum, uint64_t *received, pd_error *err)
{
    if (which < 0 || which >= PD_PARTS)
        return pd_fail(err, PD_INVALID_ARGUMENT, "part %d of a push: there are 0 to %d", which, PD_PARTS - 1);
    if (pd_sum_of(data, length) != checksum)
        return pd_fail(err, PD_DATA_LOSS,
                       "the chunk at %" PRIu64 " of the %s of push %" PRIu64
                       " does not match its checksum; send it again",
                       offset, pd_part_name[which], number);
    pd_push *push;
    pthread_mutex_lock(&catalog->mutex);
    pd_status status = open_push(catalog, number, &push, err);
    if (!status) status = check_chunk(catalog, &push->parts[which], which, number, offset, length, err);
    int known = !status && part_has(&push->parts[which], offset, offset + length);
    if (!status) {
        push->touched_ms = pd_now_ms();
        *received = pd_part_received(&push->parts[which]);
    }
    int fd = status ? -1 : push->parts[which].fd;
    if (!status && !known) push->writers++;
    pthread_mutex_unlock(&catalog->mutex);
    if (status || known) return status;

    char path[PD_PATH_ROOM];
    pd_part_path(catalog, number, which, path);
    status = write_at(fd, path, data, length, offset, err);
    pthread_mutex_lock(&catalog->mutex);
    pd_part *part = &push->parts[which];
    if (!status && !part_add(part, offset, offset + length))
        status =
            pd_fail(err, PD_RESOURCE_EXHAUSTED,
                    "push %" PRIu64 " has too many gaps in its %s; send what is missing from %" PRIu64 " on",
                    number, pd_part_name[which], pd_part_received(part));
    if (!status) catalog->pushes.received_bytes += length;
    *received = pd_part_received(part);
    push->writers--;
    pthread_cond_broadcast(&catalog->changed);
    pthread_mutex_unlock(&catalog->mutex);
    return status;
}

/* -------------------------------------------------------------------------------------- commit and abort --- */

/* No chunk is being written any more. With the mutex held. */
static void wait_writers(pd_catalog *catalog, const pd_push *push)
{
    while (push->writers)
        pthread_cond_wait(&catalog->changed, &catalog->mutex);
}

static pd_status check_whole(const pd_push *push, pd_error *err)
{
    for (int i = 0; i < PD_PARTS; i++)
        if (pd_part_received(&push->parts[i]) != push->parts[i].bytes)
            return pd_fail(
                err, PD_FAILED_PRECONDITION,
                "push %" PRIu64 " is not whole: its %s miss bytes from %" PRIu64 " on, of %" PRIu64,
                push->number, pd_part_name[i], pd_part_received(&push->parts[i]), push->parts[i].bytes);
    return PD_OK;
}

/* Queues the job. With the mutex held; the push is closing. */
static pd_status queue_build(pd_catalog *catalog, pd_push *push, int publish, pd_error *err)
{
    pd_job *job;
    pd_status status = check_whole(push, err);
    if (!status) status = pd_job_add(catalog, PD_JOB_BUILD, push->ask.table, &job, err);
    if (status) return status;
    job->push = push->number;
    job->publish = publish;
    push->job = job->number;
    push->state = PD_PUSH_COMMITTED;
    pd_push_close_files(push);
    return PD_OK;
}

/* That the queries' table can ask this one: known before the long work starts. The upload's own queries need no table. */
static pd_status check_queries(pd_catalog *catalog, uint64_t number, pd_error *err)
{
    pd_push_ask ask = {0};
    pthread_mutex_lock(&catalog->mutex);
    pd_push *push = pd_push_find(catalog, number);
    int skip = !push || push->state != PD_PUSH_OPEN || push->ask.queries_rows;
    if (!skip) {
        ask = push->ask;
        ask.schema = ask.schema ? strdup(ask.schema) : NULL;
        skip = push->ask.schema && !ask.schema;
    }
    pthread_mutex_unlock(&catalog->mutex);
    if (skip) return PD_OK; /* what is wrong with it the commit will say */
    pd_schema *schema = NULL;
    pd_served *served = NULL;
    char why[200];
    pd_status status = pd_incoming_schema(catalog, &ask, &schema, err);
    if (!status)
        status = pd_sample_source(catalog, ask.table, schema, ask.dim, &served, why, sizeof why, err);
    if (served) pd_catalog_release(served);
    pd_schema_free(schema);
    free(ask.schema);
    return status;
}

pd_status pd_push_commit(pd_catalog *catalog, uint64_t number, int publish, uint64_t *job, pd_error *err)
{
    pd_status status = check_queries(catalog, number, err);
    if (status) return status;
    pthread_mutex_lock(&catalog->mutex);
    pd_push *push = pd_push_find(catalog, number);
    while (push && push->state == PD_PUSH_CLOSING) { /* the same commit, a moment earlier */
        pthread_cond_wait(&catalog->changed, &catalog->mutex);
        push = pd_push_find(catalog, number);
    }
    if (push && push->state == PD_PUSH_COMMITTED) {
        *job = push->job;
        goto out;
    }
    status = open_push(catalog, number, &push, err);
    if (status) goto out;
    push->state = PD_PUSH_CLOSING;
    wait_writers(catalog, push);
    status = queue_build(catalog, push, publish, err);
    if (status) {
        push->state = PD_PUSH_OPEN;
        push->touched_ms = pd_now_ms();
    } else {
        *job = push->job;
    }
    pthread_cond_broadcast(&catalog->changed);
out:
    pthread_mutex_unlock(&catalog->mutex);
    return status;
}

/* Takes an open upload off the list and removes its files. Mutex held at the call and at the return. */
static void drop(pd_catalog *catalog, pd_push *push)
{
    push->state = PD_PUSH_CLOSING;
    wait_writers(catalog, push);
    pd_push_unlist(catalog, push);
    pthread_cond_broadcast(&catalog->changed);
    pthread_mutex_unlock(&catalog->mutex);
    uint64_t number = push->number;
    pd_push_free(push);
    pd_push_remove_files(catalog, number);
    pthread_mutex_lock(&catalog->mutex);
}

pd_status pd_push_abort(pd_catalog *catalog, uint64_t number, pd_error *err)
{
    pthread_mutex_lock(&catalog->mutex);
    pd_status status = PD_OK;
    pd_push *push = pd_push_find(catalog, number);
    if (push && push->state == PD_PUSH_COMMITTED) {
        pd_job *job = pd_job_find(catalog, push->job);
        if (job) atomic_store(&job->cancel, 1);
    } else {
        status = open_push(catalog, number, &push, err);
        if (!status) drop(catalog, push);
    }
    pthread_mutex_unlock(&catalog->mutex);
    return status;
}

void pd_push_expire(pd_catalog *catalog)
{
    uint64_t now = pd_now_ms();
    pthread_mutex_lock(&catalog->mutex);
    for (uint32_t i = 0; i < catalog->pushes.count;) {
        pd_push *push = catalog->pushes.at[i];
        if (push->state != PD_PUSH_OPEN || push->writers || now - push->touched_ms < PD_PUSH_IDLE_MS) {
            i++;
            continue;
        }
        pd_log(PD_LOG_WARNING, "push %" PRIu64 " to \"%s\" is dropped: no chunk came for an hour",
               push->number, push->ask.table);
        drop(catalog, push);
        i = 0; /* the mutex was let go */
    }
    pthread_mutex_unlock(&catalog->mutex);
}
