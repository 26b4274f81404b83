/* Uploads, as push.h says. The mutex is let go while a chunk is written: the upload counts its writers, and commit and
 * abort wait for them.
 */
#include "push.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "catalog_impl.h"
#include "incoming.h"
#include "log.h"
#include "sample.h"

const char *const pd_part_file[PD_PARTS] = {"rows", "ids", "attributes.csv", "queries"};
static const char *const part_name[PD_PARTS] = {"rows", "ids", "attributes", "queries"};

void pd_push_folder(const pd_catalog *catalog, uint64_t number, char *path)
{
    snprintf(path, PD_PATH_ROOM, "%.3071s/push/%" PRIu64, catalog->root, number);
}

static void part_path(const pd_catalog *catalog, uint64_t number, int part, char *path)
{
    snprintf(path, PD_PATH_ROOM, "%.3071s/push/%" PRIu64 "/%s", catalog->root, number, pd_part_file[part]);
}

/* ------------------------------------------------------------------------------------------- what is there --- */

/* Bytes from the start on. */
static uint64_t part_received(const pd_part *part)
{
    return part->nruns && part->runs[0].begin == 0 ? part->runs[0].end : 0;
}

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

/* ---------------------------------------------------------------------------------------------- the record --- */

pd_push *pd_push_find(pd_catalog *catalog, uint64_t number)
{
    for (uint32_t i = 0; i < catalog->pushes.count; i++)
        if (catalog->pushes.at[i]->number == number) return catalog->pushes.at[i];
    return NULL;
}

static void push_close_files(pd_push *push)
{
    for (int i = 0; i < PD_PARTS; i++) {
        if (push->parts[i].fd >= 0) close(push->parts[i].fd);
        push->parts[i].fd = -1;
    }
}

static void push_free(pd_push *push)
{
    push_close_files(push);
    free(push->ask.schema);
    free(push);
}

/* Takes it off the list; the caller frees it. */
static void push_unlist(pd_catalog *catalog, const pd_push *push)
{
    pd_pushes *pushes = &catalog->pushes;
    uint32_t at = 0;
    while (at < pushes->count && pushes->at[at] != push)
        at++;
    if (at == pushes->count) return;
    memmove(&pushes->at[at], &pushes->at[at + 1], (pushes->count - at - 1) * sizeof pushes->at[0]);
    pushes->count--;
}

static void remove_files(const pd_catalog *catalog, uint64_t number)
{
    char folder[PD_PATH_ROOM];
    pd_error err;
    pd_push_folder(catalog, number, folder);
    pd_status status = pd_folder_remove(folder, &err);
    if (status && status != PD_NOT_FOUND) pd_log(PD_LOG_WARNING, "an upload is not removed: %s", err.message);
}

/* Bytes that open uploads still wait for; *open: how many of them there are. */
static uint64_t outstanding(const pd_catalog *catalog, uint32_t *open)
{
    uint64_t bytes = 0;
    *open = 0;
    for (uint32_t i = 0; i < catalog->pushes.count; i++) {
        const pd_push *push = catalog->pushes.at[i];
        if (push->state == PD_PUSH_COMMITTED) continue;
        ++*open;
        for (int p = 0; p < PD_PARTS; p++)
            for (uint64_t r = 0, has = 0; r <= push->parts[p].nruns; r++) {
                if (r == push->parts[p].nruns)
                    bytes += push->parts[p].bytes - has;
                else
                    has += push->parts[p].runs[r].end - push->parts[p].runs[r].begin;
            }
    }
    return bytes;
}

/* Makes room among those that are over: the oldest goes. */
static void forget_oldest(pd_catalog *catalog)
{
    uint32_t over = 0;
    pd_push *oldest = NULL;
    for (uint32_t i = 0; i < catalog->pushes.count; i++) {
        if (!catalog->pushes.at[i]->finished) continue;
        if (!oldest) oldest = catalog->pushes.at[i];
        over++;
    }
    uint32_t waiting = catalog->pushes.count - over;
    if (!oldest || (over < PD_PUSHES_DONE / 2 && waiting + over < PD_PUSHES_OPEN + PD_PUSHES_DONE)) return;
    push_unlist(catalog, oldest);
    push_free(oldest);
}

/* --------------------------------------------------------------------------------------------------- begin --- */

/* The bytes of each part, checked against each other and the limits. */
static pd_status measure(const pd_catalog *catalog, const pd_push_ask *ask, uint64_t *bytes, pd_error *err)
{
    if (!ask->rows) return pd_fail(err, PD_INVALID_ARGUMENT, "a push of no rows to \"%s\"", ask->table);
    if (ask->rows >= PD_NO_SLOT)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%" PRIu64 " rows are more than a table holds (%u)",
                       ask->rows, PD_NO_SLOT - 1);
    if (!ask->dim || ask->dim > PD_MAX_DIM)
        return pd_fail(err, PD_INVALID_ARGUMENT, "dim is %u, not 1 to %u", ask->dim, PD_MAX_DIM);
    if (ask->ids_bytes && ask->ids_bytes != ask->rows * 8)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "%" PRIu64 " bytes of ids are not 8 for each of the %" PRIu64 " rows", ask->ids_bytes,
                       ask->rows);
    if (ask->queries_rows >= PD_NO_SLOT)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%" PRIu64 " queries are too many", ask->queries_rows);
    bytes[PD_PART_ROWS] = ask->rows * ask->dim * pd_dtype_size(ask->dtype);
    bytes[PD_PART_IDS] = ask->ids_bytes;
    bytes[PD_PART_ATTRIBUTES] = ask->attributes_bytes;
    bytes[PD_PART_QUERIES] = ask->queries_rows * ask->dim * sizeof(float);
    uint64_t most = catalog->config->max_push_bytes;
    for (int i = 0; i < PD_PARTS; i++) {
        if (bytes[i] > most)
            return pd_fail(err, PD_RESOURCE_EXHAUSTED,
                           "the push is larger than max_push_bytes allows (%" PRIu64 "): %" PRIu64
                           " bytes of %s",
                           catalog->config->max_push_bytes, bytes[i], part_name[i]);
        most -= bytes[i];
    }
    return PD_OK;
}

/* What the upload and the version built from it take: source rows and refine rows at full width, codes, columns. */
static uint64_t disk_need(const pd_push_ask *ask, const uint64_t *bytes)
{
    uint64_t upload = bytes[0] + bytes[1] + bytes[2] + bytes[3];
    return upload + ask->rows * ((uint64_t)ask->dim * 7 + 64);
}

static pd_status disk_left(const pd_catalog *catalog, uint64_t *left, pd_error *err)
{
    struct statvfs disk;
    if (statvfs(catalog->root, &disk) != 0) return pd_fail_errno(err, "measure the disk of", catalog->root);
    *left = (uint64_t)disk.f_bavail * disk.f_frsize;
    return PD_OK;
}

static pd_status make_files(const pd_catalog *catalog, pd_push *push, pd_error *err)
{
    char path[PD_PATH_ROOM];
    pd_push_folder(catalog, push->number, path);
    if (mkdir(path, 0755) != 0) return pd_fail_errno(err, "make the folder", path);
    for (int i = 0; i < PD_PARTS; i++) {
        pd_part *part = &push->parts[i];
        if (!part->bytes) continue;
        part_path(catalog, push->number, i, path);
        part->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (part->fd < 0) return pd_fail_errno(err, "create", path);
        /* The whole length at once, so that what maps the file never meets its end. */
        if (ftruncate(part->fd, (off_t)part->bytes) != 0) return pd_fail_errno(err, "lengthen", path);
    }
    return PD_OK;
}

static int same_ask(const pd_push_ask *a, const pd_push_ask *b)
{
    return a->dtype == b->dtype && a->dim == b->dim && a->rows == b->rows && a->ids_bytes == b->ids_bytes &&
           a->attributes_bytes == b->attributes_bytes && a->queries_rows == b->queries_rows &&
           a->nlist == b->nlist && !strcmp(a->metric, b->metric) && a->schema_sum == b->schema_sum;
}

static void tell_received(const pd_push *push, uint64_t *number, uint64_t *received)
{
    *number = push->number;
    for (int i = 0; i < PD_PARTS; i++)
        received[i] =
            push->state == PD_PUSH_COMMITTED ? push->parts[i].bytes : part_received(&push->parts[i]);
}

/* The upload under the same key, once it is made; NULL: there is none. With the mutex held. */
static pd_push *find_key(pd_catalog *catalog, const pd_push_ask *ask)
{
    if (!ask->key[0]) return NULL;
    for (uint32_t i = 0; i < catalog->pushes.count;) {
        pd_push *push = catalog->pushes.at[i];
        if (strcmp(push->ask.key, ask->key) != 0 || strcmp(push->ask.table, ask->table) != 0) {
            i++;
        } else if (push->state == PD_PUSH_MAKING || push->state == PD_PUSH_CLOSING) {
            pthread_cond_wait(&catalog->changed, &catalog->mutex);
            i = 0; /* the list may be another one now */
        } else {
            return push;
        }
    }
    return NULL;
}

/* Lists a new upload in state MAKING. With the mutex held; takes ask. */
static pd_status list_push(pd_catalog *catalog, pd_push_ask *ask, const uint64_t *bytes, uint64_t left,
                           pd_push **out, pd_error *err)
{
    uint32_t open;
    uint64_t promised = outstanding(catalog, &open);
    if (open >= PD_PUSHES_OPEN)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%u uploads are open already; commit or abort one", open);
    forget_oldest(catalog);
    if (catalog->pushes.count == PD_PUSHES_OPEN + PD_PUSHES_DONE)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "too many uploads wait to be built");
    uint64_t need = disk_need(ask, bytes);
    if (left < promised || left - promised < need)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED,
                       "the disk of %s has %" PRIu64 " bytes left (%" PRIu64
                       " of them for other uploads), the push and its version need about %" PRIu64,
                       catalog->root, left, promised, need);
    pd_push *push = calloc(1, sizeof *push);
    if (!push) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for an upload");
    push->number = catalog->pushes.next++;
    push->ask = *ask;
    ask->schema = NULL;
    push->touched_ms = pd_now_ms();
    for (int i = 0; i < PD_PARTS; i++)
        push->parts[i] = (pd_part){.bytes = bytes[i], .fd = -1};
    catalog->pushes.at[catalog->pushes.count++] = push;
    *out = push;
    return PD_OK;
}

/* Finds or lists. *made: the caller has to make its files. */
static pd_status enter(pd_catalog *catalog, pd_push_ask *ask, const uint64_t *bytes, pd_push **made,
                       uint64_t *number, uint64_t *received, pd_error *err)
{
    *made = NULL;
    uint64_t left = 0;
    pd_status status = disk_left(catalog, &left, err);
    if (status) return status;
    pthread_mutex_lock(&catalog->mutex);
    pd_push *push = find_key(catalog, ask);
    if (!push) {
        status = list_push(catalog, ask, bytes, left, made, err);
    } else if (!same_ask(&push->ask, ask)) {
        status = pd_fail(err, PD_FAILED_PRECONDITION,
                         "the key \"%s\" is that of another push to \"%s\" (other sizes, schema or metric)",
                         ask->key, ask->table);
    } else {
        push->touched_ms = pd_now_ms();
        tell_received(push, number, received);
    }
    pthread_mutex_unlock(&catalog->mutex);
    return status;
}

pd_status pd_push_begin(pd_catalog *catalog, pd_push_ask *ask, uint64_t *number, uint64_t *received,
                        pd_error *err)
{
    uint64_t bytes[PD_PARTS];
    pd_schema *schema = NULL;
    pd_push *push = NULL;
    pd_push_expire(catalog);
    ask->schema_sum = ask->schema ? pd_sum_of(ask->schema, strlen(ask->schema)) : 0;
    pd_status status = pd_name_check("table", ask->table, err);
    if (!status) status = measure(catalog, ask, bytes, err);
    if (!status) status = pd_incoming_schema(catalog, ask, &schema, err);
    pd_schema_free(schema);
    if (!status) status = enter(catalog, ask, bytes, &push, number, received, err);
    free(ask->schema);
    ask->schema = NULL;
    if (status || !push) return status;

    status = make_files(catalog, push, err);
    pthread_mutex_lock(&catalog->mutex);
    if (status) {
        push_unlist(catalog, push);
    } else {
        push->state = PD_PUSH_OPEN;
        tell_received(push, number, received);
    }
    pthread_cond_broadcast(&catalog->changed);
    pthread_mutex_unlock(&catalog->mutex);
    if (status) {
        uint64_t failed = push->number;
        push_free(push);
        remove_files(catalog, failed);
    }
    return status;
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
                       length, offset, part_name[which], number, part->bytes);
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
                       offset, part_name[which], number);
    pd_push *push;
    pthread_mutex_lock(&catalog->mutex);
    pd_status status = open_push(catalog, number, &push, err);
    if (!status) status = check_chunk(catalog, &push->parts[which], which, number, offset, length, err);
    int known = !status && part_has(&push->parts[which], offset, offset + length);
    if (!status) {
        push->touched_ms = pd_now_ms();
        *received = part_received(&push->parts[which]);
    }
    int fd = status ? -1 : push->parts[which].fd;
    if (!status && !known) push->writers++;
    pthread_mutex_unlock(&catalog->mutex);
    if (status || known) return status;

    char path[PD_PATH_ROOM];
    part_path(catalog, number, which, path);
    status = write_at(fd, path, data, length, offset, err);
    pthread_mutex_lock(&catalog->mutex);
    pd_part *part = &push->parts[which];
    if (!status && !part_add(part, offset, offset + length))
        status =
            pd_fail(err, PD_RESOURCE_EXHAUSTED,
                    "push %" PRIu64 " has too many gaps in its %s; send what is missing from %" PRIu64 " on",
                    number, part_name[which], part_received(part));
    if (!status) catalog->pushes.received_bytes += length;
    *received = part_received(part);
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
        if (part_received(&push->parts[i]) != push->parts[i].bytes)
            return pd_fail(err, PD_FAILED_PRECONDITION,
                           "push %" PRIu64 " is not whole: its %s miss bytes from %" PRIu64
                           " on, of %" PRIu64,
                           push->number, part_name[i], part_received(&push->parts[i]), push->parts[i].bytes);
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
    push_close_files(push);
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
    push_unlist(catalog, push);
    pthread_cond_broadcast(&catalog->changed);
    pthread_mutex_unlock(&catalog->mutex);
    uint64_t number = push->number;
    push_free(push);
    remove_files(catalog, number);
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

void pd_push_finish(pd_catalog *catalog, uint64_t number, int failed)
{
    remove_files(catalog, number);
    pthread_mutex_lock(&catalog->mutex);
    pd_push *push = pd_push_find(catalog, number);
    if (push) {
        push->finished = 1;
        if (failed) push->ask.key[0] = 0; /* the same key may try again */
        free(push->ask.schema);
        push->ask.schema = NULL;
    }
    pthread_mutex_unlock(&catalog->mutex);
}

void pd_pushes_free(pd_catalog *catalog)
{
    for (uint32_t i = 0; i < catalog->pushes.count; i++) {
        pd_push *push = catalog->pushes.at[i];
        if (!push->finished) remove_files(catalog, push->number);
        push_free(push);
    }
    catalog->pushes.count = 0;
}

pd_status pd_pushes_clean(pd_catalog *catalog, pd_error *err)
{
    char folder[PD_PATH_ROOM];
    pd_status status = pd_path_join(folder, catalog->root, "push", err);
    if (status) return status;
    DIR *dir = opendir(folder);
    if (!dir) return pd_fail_errno(err, "open the folder", folder);
    struct dirent *entry;
    while (!status && (errno = 0, entry = readdir(dir)) != NULL) {
        char path[PD_PATH_ROOM];
        if (entry->d_name[0] == '.') continue;
        status = pd_path_join(path, folder, entry->d_name, err);
        if (!status) status = pd_folder_remove(path, err);
    }
    if (!status && errno) status = pd_fail_errno(err, "read the folder", folder);
    closedir(dir);
    return status;
}
