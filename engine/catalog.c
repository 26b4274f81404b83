/* The catalog's life: opening the data folder, holding and releasing what is served, closing.
 *
 * Start is: take the folder's lock, remove what a crash left, learn what is there, load what should serve, start the
 * builder. Close is the same backwards, and waits for the holders: whoever still holds a version after that keeps the
 * catalog's memory alive until it lets go, but must not outlive the device.
 */
#include "catalog_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "erase.h"
#include "log.h"
#include "publish.h"
#include "writer.h"

uint64_t pd_first_number(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* --------------------------------------------------------------------------------------- hold and release --- */

pd_box *pd_box_make(pd_catalog *catalog, const char *table, pd_version *version, pd_resident *resident)
{
    pd_box *box = calloc(1, sizeof *box);
    if (!box) return NULL;
    memcpy(box->table, table, strlen(table) + 1);
    box->served.info = pd_version_info_of(version);
    box->served.table = box->table;
    box->served.number = box->served.info->version;
    box->served.version = version;
    box->served.resident = resident;
    box->refs = 1;
    box->catalog = catalog;
    box->followed = box->served.info->sequence;
    box->source = pd_box_source(box);
    pthread_mutex_lock(&catalog->mutex);
    catalog->boxes++;
    pthread_mutex_unlock(&catalog->mutex);
    return box;
}

static void box_free(pd_box *box)
{
    pd_resident_close(box->served.resident);
    pd_version_close(box->served.version);
    free(box);
}

void pd_box_bytes(const pd_box *box, uint64_t *device, uint64_t *host)
{
    if (!box) return;
    const pd_index *index = pd_resident_index(box->served.resident);
    pd_index_spec spec = {.shape = index->shape, .npages = index->npages, .name = box->table};
    uint64_t hosted = index->hosted ? pd_index_refine_bytes(&spec) : 0;
    *device += pd_index_bytes(&spec) - hosted;
    *host += pd_resident_host_bytes(box->served.resident) + hosted;
}

void pd_catalog_bury(pd_catalog *catalog)
{
    /* Asked often and seldom needed: the builder, who may be kept from running, leaves the mutex alone. */
    if (!atomic_load(&catalog->deaths)) return;
    pthread_mutex_lock(&catalog->mutex);
    pd_box *dead = catalog->dead;
    catalog->dead = NULL;
    atomic_store(&catalog->deaths, 0);
    pthread_mutex_unlock(&catalog->mutex);
    uint32_t buried = 0;
    while (dead) {
        pd_box *next = dead->next;
        box_free(dead);
        buried++;
        dead = next;
    }
    if (!buried) return;
    pthread_mutex_lock(&catalog->mutex);
    catalog->boxes -= buried;
    pthread_cond_broadcast(&catalog->changed);
    pthread_mutex_unlock(&catalog->mutex);
}

static void catalog_free(pd_catalog *catalog)
{
    pthread_mutex_destroy(&catalog->comparing);
    pthread_mutex_destroy(&catalog->files);
    pthread_mutex_destroy(&catalog->mutex);
    pthread_cond_destroy(&catalog->changed);
    free(catalog);
}

void pd_catalog_release(pd_served *served)
{
    if (!served) return;
    pd_box *box = pd_box_of(served);
    pd_catalog *catalog = box->catalog;
    int orphan = 0, last = 0;
    pthread_mutex_lock(&catalog->mutex);
    if (--box->refs <= 1) {
        orphan = box->refs == 0 && catalog->orphaned;
        if (orphan) {
            last = --catalog->boxes == 0;
        } else if (box->refs == 0) {
            box->next = catalog->dead;
            catalog->dead = box;
            atomic_store(&catalog->deaths, 1);
        }
        pthread_cond_broadcast(&catalog->changed);
    }
    pthread_mutex_unlock(&catalog->mutex);
    if (orphan) box_free(box);
    if (last) catalog_free(catalog);
}

int pd_box_wait(pd_box *box, uint32_t ms)
{
    pd_catalog *catalog = box->catalog;
    struct timespec until = pd_clock_in(ms);
    pthread_mutex_lock(&catalog->mutex);
    int late = 0;
    while (box->refs > 1 && !late && !atomic_load(&catalog->stopping))
        late = pthread_cond_timedwait(&catalog->changed, &catalog->mutex, &until) == ETIMEDOUT;
    int alone = box->refs == 1;
    pthread_mutex_unlock(&catalog->mutex);
    return alone;
}

int pd_catalog_wait_loose(pd_catalog *catalog, uint32_t ms)
{
    struct timespec until = pd_clock_in(ms);
    for (int late = 0;;) {
        pd_catalog_bury(catalog);
        pthread_mutex_lock(&catalog->mutex);
        uint32_t wanted = 0;
        for (uint32_t i = 0; i < catalog->tables.count; i++)
            wanted += (catalog->tables.at[i]->serving != NULL) + (catalog->tables.at[i]->staged != NULL);
        int loose = catalog->boxes > wanted, stop = late || atomic_load(&catalog->stopping);
        if (loose && !stop && !catalog->dead)
            late = pthread_cond_timedwait(&catalog->changed, &catalog->mutex, &until) == ETIMEDOUT;
        pthread_mutex_unlock(&catalog->mutex);
        if (!loose || stop) return !loose;
    }
}

/* Takes "products@7" apart. 0: the number is none. number 0: the name has none. */
static int split_name(const char *name, char *table, uint64_t *number)
{
    *number = 0;
    const char *at = strchr(name, '@');
    size_t length = at ? (size_t)(at - name) : strlen(name);
    if (length > PD_MAX_NAME) length = PD_MAX_NAME; /* longer than any name there is */
    memcpy(table, name, length);
    table[length] = 0;
    if (!at) return 1;
    char *end = NULL;
    errno = 0;
    if (at[1] < '0' || at[1] > '9') return 0;
    *number = strtoull(at + 1, &end, 10);
    return *end == 0 && errno == 0 && *number != 0;
}

/* With the mutex held. */
static pd_status find_served(pd_catalog *catalog, const char *name, pd_box **out, pd_error *err)
{
    char table_name[PD_MAX_NAME + 1];
    uint64_t number;
    if (!split_name(name, table_name, &number))
        return pd_fail(err, PD_INVALID_ARGUMENT, "\"%.80s\" is not TABLE or TABLE@VERSION", name);
    pd_table *table = pd_table_find(catalog, table_name);
    if (!table) return pd_fail(err, PD_NOT_FOUND, "there is no table \"%.80s\"", table_name);
    if (number) {
        const pd_known *known = pd_table_version(table, number);
        if (!known)
            return pd_fail(err, PD_NOT_FOUND, "table \"%s\" has no version %llu", table->name,
                           (unsigned long long)number);
        if (table->serving && table->serving->served.number == number) {
            *out = table->serving;
        } else if (table->staged && table->staged->served.number == number) {
            *out = table->staged;
        } else if (known->state == PD_BROKEN) {
            return pd_fail(err, PD_FAILED_PRECONDITION, "version %llu of \"%s\" is broken: %.300s",
                           (unsigned long long)number, table->name, known->problem);
        } else if (table->swapping && known->state == PD_SERVING) {
            return pd_fail(err, PD_UNAVAILABLE, "table \"%s\" is being swapped for another version",
                           table->name);
        } else {
            return pd_fail(err, PD_FAILED_PRECONDITION,
                           "version %llu of \"%s\" is on disk only; publish it to load it",
                           (unsigned long long)number, table->name);
        }
        return PD_OK;
    }
    *out = table->serving;
    if (table->serving) return PD_OK;
    if (table->swapping)
        return pd_fail(err, PD_UNAVAILABLE, "table \"%s\" is being swapped for another version", table->name);
    if (table->problem[0])
        return pd_fail(err, PD_FAILED_PRECONDITION, "table \"%s\" is not served: %.350s", table->name,
                       table->problem);
    return pd_fail(err, PD_FAILED_PRECONDITION, "no version of table \"%s\" is published", table->name);
}

pd_status pd_catalog_hold(pd_catalog *catalog, const char *name, pd_served **out, pd_error *err)
{
    *out = NULL;
    pd_box *box = NULL;
    pthread_mutex_lock(&catalog->mutex);
    pd_status status = find_served(catalog, name, &box, err);
    if (!status) {
        box->refs++;
        *out = &box->served;
    }
    pthread_mutex_unlock(&catalog->mutex);
    return status;
}

const pd_live_source *pd_served_source(const pd_served *served)
{
    return &((const pd_box *)served)->source;
}

void pd_catalog_listen(pd_catalog *catalog, struct pd_recall_book *book)
{
    atomic_store(&catalog->recalled, book);
}

struct pd_writer *pd_catalog_writer(pd_catalog *catalog)
{
    return catalog->writer;
}

int pd_catalog_ready(const pd_catalog *catalog_, char *why, size_t room)
{
    pd_catalog *catalog = (pd_catalog *)catalog_; /* only its mutex is written */
    int ready = 1;
    pthread_mutex_lock(&catalog->mutex);
    for (uint32_t i = 0; ready && i < catalog->tables.count; i++) {
        const pd_table *table = catalog->tables.at[i];
        if (!table->current || table->serving) continue;
        ready = 0;
        snprintf(why, room, "table \"%s\" is %s%.300s", table->name,
                 table->swapping ? "being swapped for another version" : "not served: ",
                 table->swapping ? "" : table->problem);
    }
    pthread_mutex_unlock(&catalog->mutex);
    return ready;
}

/* --------------------------------------------------------------------------------------- opening, closing --- */

static pd_status make_folder(const char *path, pd_error *err)
{
    if (mkdir(path, 0755) != 0 && errno != EEXIST) return pd_fail_errno(err, "make the folder", path);
    return PD_OK;
}

static pd_status take_folder(pd_catalog *catalog, pd_error *err)
{
    const char *folder = catalog->config->data_folder;
    if (strlen(folder) >= sizeof catalog->root)
        return pd_fail(err, PD_INVALID_ARGUMENT, "the path of the data folder is too long");
    memcpy(catalog->root, folder, strlen(folder) + 1);
    char path[PD_PATH_ROOM];
    pd_status status = make_folder(catalog->root, err);
    if (status) return status;
    status = pd_path_join(path, catalog->root, "lock", err);
    if (status) return status;
    catalog->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (catalog->lock < 0) return pd_fail_errno(err, "open", path);
    if (flock(catalog->lock, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK)
            return pd_fail(err, PD_FAILED_PRECONDITION, "the data folder %s is in use by another process",
                           catalog->root);
        return pd_fail_errno(err, "lock", path);
    }
    static const char *const parts[] = {"tables", "profiles", "push"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        status = pd_path_join(path, catalog->root, parts[i], err);
        if (!status) status = make_folder(path, err);
        if (status) return status;
    }
    return pd_folder_sync(catalog->root, err);
}

static pd_status make_locks(pd_catalog *catalog, pd_error *err)
{
    pthread_condattr_t attributes;
    int bad = pthread_condattr_init(&attributes);
    if (!bad) bad = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    if (!bad) bad = pthread_cond_init(&catalog->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    if (bad)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "cannot make a condition variable: %s", strerror(bad));
    pthread_mutex_init(&catalog->mutex, NULL);
    pthread_mutex_init(&catalog->comparing, NULL);
    pthread_mutex_init(&catalog->files, NULL);
    pthread_mutex_init(&catalog->profiles.writing, NULL);
    return PD_OK;
}

pd_status pd_catalog_idle_device(const pd_catalog *catalog, pd_device **out, pd_error *err)
{
    const pd_config *config = catalog->config;
    pd_device_options options = {.threads = config->builder_threads,
                                 .idle = !config->builder_normal,
                                 .isa = *config->isa ? config->isa : NULL};
    pd_status status = pd_device_open("cpu", &options, out, err);
    return status ? pd_prefix(err, "the builder's device") : PD_OK;
}

static pd_status open_changes(pd_catalog *catalog, pd_error *err)
{
    char folder[PD_PATH_ROOM];
    pd_status status = pd_path_join(folder, catalog->root, "changes", err);
    pd_changes_options options = {.folder = folder,
                                  .map_bytes = catalog->config->changes_bytes,
                                  .durability = (pd_durability)catalog->config->changes_durability};
    return status ? status : pd_changes_open(&options, &catalog->changes, err);
}

/* What is written from now on must come after whatever a version holds: it would not be applied to it at the next start. */
static void pass_versions(pd_catalog *catalog)
{
    uint64_t last = pd_changes_last(catalog->changes), most = last;
    for (uint32_t i = 0; i < catalog->tables.count; i++) {
        const pd_table *table = catalog->tables.at[i];
        for (uint32_t v = 0; v < table->nversions; v++)
            if (table->versions[v].sequence > most) most = table->versions[v].sequence;
    }
    if (most == last) return;
    pd_log(PD_LOG_WARNING,
           "the log of changes ends at %llu, versions hold changes up to %llu: the end of the log is lost",
           (unsigned long long)last, (unsigned long long)most);
    pd_changes_pass(catalog->changes, most);
}

pd_status pd_catalog_open(const pd_config *config, pd_device *device, pd_executor *executor, pd_catalog **out,
                          pd_error *err)
{
    *out = NULL;
    pd_catalog *catalog = calloc(1, sizeof *catalog);
    if (!catalog) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the catalog");
    atomic_store(&catalog->config, config);
    catalog->device = device;
    catalog->executor = executor;
    catalog->lock = -1;
    catalog->jobs.next = catalog->pushes.next = pd_first_number();
    pd_status status = make_locks(catalog, err);
    if (status) {
        free(catalog);
        return status;
    }
    status = take_folder(catalog, err);
    if (status) goto err_after_locks;
    status = pd_catalog_idle_device(catalog, &catalog->builder, err);
    if (status) goto err_after_locks;
    status = pd_pushes_clean(catalog, err);
    if (!status) status = pd_tables_scan(catalog, err);
    if (!status) status = pd_profiles_open(catalog, err);
    if (!status) status = open_changes(catalog, err);
    if (status) goto err_after_builder;
    pass_versions(catalog);
    pd_publish_restore(catalog);
    status = pd_writer_open(catalog, &catalog->writer, err);
    if (!status) status = pd_erase_start(catalog, err);
    if (!status) status = pd_jobs_start(catalog, err);
    if (status) goto err_after_builder;
    *out = catalog;
    return PD_OK;

err_after_builder:
    pd_catalog_close(catalog);
    return status;
err_after_locks:
    if (catalog->lock >= 0) close(catalog->lock);
    pthread_mutex_destroy(&catalog->profiles.writing);
    catalog_free(catalog);
    return status;
}

void pd_catalog_configure(pd_catalog *catalog, const pd_config *config)
{
    atomic_store(&catalog->config, config);
}

void pd_catalog_close(pd_catalog *catalog)
{
    if (!catalog) return;
    atomic_store(&catalog->stopping, 1);
    pd_jobs_stop(catalog);
    pd_writer_stop(catalog->writer);
    pd_pushes_free(catalog);
    for (uint32_t i = 0; i < catalog->tables.count; i++) {
        pd_table *table = catalog->tables.at[i];
        if (table->serving) pd_catalog_release(&table->serving->served);
        if (table->staged) pd_catalog_release(&table->staged->served);
        table->serving = table->staged = NULL;
    }
    struct timespec until = pd_clock_in(catalog->config->stop_ms);
    pd_catalog_bury(catalog);
    pthread_mutex_lock(&catalog->mutex);
    for (int late = 0; catalog->boxes && !late;) {
        if (!catalog->dead)
            late = pthread_cond_timedwait(&catalog->changed, &catalog->mutex, &until) == ETIMEDOUT;
        pthread_mutex_unlock(&catalog->mutex);
        pd_catalog_bury(catalog);
        pthread_mutex_lock(&catalog->mutex);
    }
    uint32_t held = catalog->boxes;
    catalog->orphaned = held != 0;
    pd_tables_free(catalog);
    pd_profiles_free(catalog);
    pd_jobs_free(catalog);
    pthread_mutex_unlock(&catalog->mutex);
    if (held) pd_log(PD_LOG_WARNING, "%u table versions are still held while the catalog closes", held);
    pd_writer_close(catalog->writer);
    pd_changes_close(catalog->changes);
    pd_device_close(catalog->builder);
    close(catalog->lock);
    pthread_mutex_destroy(&catalog->profiles.writing);
    if (!held) catalog_free(catalog);
}
