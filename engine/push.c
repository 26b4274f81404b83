/* Uploads begin and end here, as push.h says; what happens between is in push_send.c. */
#include "push_impl.h"

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

#include "incoming.h"
#include "log.h"
#include "writer.h"

const char *const pd_part_file[PD_PARTS] = {"rows", "ids", "attributes.csv", "queries"};
const char *const pd_part_name[PD_PARTS] = {"rows", "ids", "attributes", "queries"};

void pd_push_folder(const pd_catalog *catalog, uint64_t number, char *path)
{
    snprintf(path, PD_PATH_ROOM, "%.3071s/push/%" PRIu64, catalog->root, number);
}

void pd_part_path(const pd_catalog *catalog, uint64_t number, int part, char *path)
{
    snprintf(path, PD_PATH_ROOM, "%.3071s/push/%" PRIu64 "/%s", catalog->root, number, pd_part_file[part]);
}

/* ------------------------------------------------------------------------------------------- what is there --- */

uint64_t pd_part_received(const pd_part *part)
{
    return part->nruns && part->runs[0].begin == 0 ? part->runs[0].end : 0;
}

/* ---------------------------------------------------------------------------------------------- the record --- */

pd_push *pd_push_find(pd_catalog *catalog, uint64_t number)
{
    for (uint32_t i = 0; i < catalog->pushes.count; i++)
        if (catalog->pushes.at[i]->number == number) return catalog->pushes.at[i];
    return NULL;
}

void pd_push_close_files(pd_push *push)
{
    for (int i = 0; i < PD_PARTS; i++) {
        if (push->parts[i].fd >= 0) close(push->parts[i].fd);
        push->parts[i].fd = -1;
    }
}

void pd_push_free(pd_push *push)
{
    pd_push_close_files(push);
    free(push->ask.schema);
    free(push);
}

void pd_push_unlist(pd_catalog *catalog, const pd_push *push)
{
    pd_pushes *pushes = &catalog->pushes;
    uint32_t at = 0;
    while (at < pushes->count && pushes->at[at] != push)
        at++;
    if (at == pushes->count) return;
    memmove(&pushes->at[at], &pushes->at[at + 1], (pushes->count - at - 1) * sizeof pushes->at[0]);
    pushes->count--;
}

void pd_push_remove_files(const pd_catalog *catalog, uint64_t number)
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
    pd_push_unlist(catalog, oldest);
    pd_push_free(oldest);
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
                           "the push is larger than max_push_mib allows (%" PRIu64 " bytes): %" PRIu64
                           " bytes of %s",
                           catalog->config->max_push_bytes, bytes[i], pd_part_name[i]);
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
        pd_part_path(catalog, push->number, i, path);
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
            push->state == PD_PUSH_COMMITTED ? push->parts[i].bytes : pd_part_received(&push->parts[i]);
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
    push->sequence = pd_writer_visible(catalog->writer);
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
        pd_push_unlist(catalog, push);
    } else {
        push->state = PD_PUSH_OPEN;
        tell_received(push, number, received);
    }
    pthread_cond_broadcast(&catalog->changed);
    pthread_mutex_unlock(&catalog->mutex);
    if (status) {
        uint64_t failed = push->number;
        pd_push_free(push);
        pd_push_remove_files(catalog, failed);
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ the end --- */

void pd_push_finish(pd_catalog *catalog, uint64_t number, int failed)
{
    pd_push_remove_files(catalog, number);
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
        if (!push->finished) pd_push_remove_files(catalog, push->number);
        pd_push_free(push);
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
