/* Writing a snapshot: see snapshot_folder.h.
 *
 * What must not change under it is held still by one mutex, `files` of the catalog: whoever switches, removes or scrubs versions or
 * trims the log takes it. Writes and searches never do.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "catalog_impl.h"
#include "log.h"
#include "manifest.h"
#include "snapshot.h"
#include "snapshot_folder.h"

typedef struct one_version {
    char table[PD_MAX_NAME + 1];
    uint64_t number; /* 0: the table itself, before its versions */
    uint64_t bytes;
} one_version;

typedef struct writing {
    pd_catalog *catalog;
    char fresh[PD_PATH_ROOM]; /* FOLDER.tmp */
    one_version *versions;
    uint32_t nversions;
    json_t *tables, *files;
    pd_snapshot_made made;
} writing;

static pd_status no_memory(pd_error *err)
{
    return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to write a snapshot");
}

void pd_snapshot_discard(const char *folder)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    char path[PD_PATH_ROOM];
    while (dir && (entry = readdir(dir)) != NULL) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") ||
            pd_path_join(path, folder, entry->d_name, NULL))
            continue;
        if (unlink(path) != 0 && (errno == EISDIR || errno == EPERM)) pd_snapshot_discard(path);
    }
    if (dir) closedir(dir);
    if (rmdir(folder) != 0 && errno != ENOENT)
        pd_log(PD_LOG_WARNING, "%s is not removed: %s", folder, strerror(errno));
}

/* ----------------------------------------------------------------------------------------------- where it goes --- */

/* The folder's real path, whose last part is not there yet. */
static pd_status real_path(const char *folder, char *out, pd_error *err)
{
    char parent[PATH_MAX], real[PATH_MAX];
    size_t length = strlen(folder);
    while (length > 1 && folder[length - 1] == '/')
        length--;
    if (folder[0] != '/' || length < 2)
        return pd_fail(err, PD_INVALID_ARGUMENT, "\"%.300s\" is not the absolute path of a new folder",
                       folder);
    if (length >= sizeof parent || length >= PD_ROOT_ROOM)
        return pd_fail(err, PD_INVALID_ARGUMENT, "the path of the snapshot is too long");
    memcpy(parent, folder, length);
    parent[length] = 0;
    char *slash = strrchr(parent, '/');
    const char *name = slash + 1;
    if (!strcmp(name, ".") || !strcmp(name, ".."))
        return pd_fail(err, PD_INVALID_ARGUMENT, "\"%.300s\" does not name a new folder", folder);
    *slash = 0;
    if (!realpath(slash == parent ? "/" : parent, real)) return pd_fail_errno(err, "find the folder", parent);
    return pd_path_join(out, strcmp(real, "/") ? real : "", name, err);
}

/* Whether path lies in folder, or is it. Both real. */
static int lies_in(const char *path, const char *folder)
{
    size_t length = strlen(folder);
    return !strncmp(path, folder, length) && (path[length] == '/' || path[length] == 0);
}

static pd_status choose_folder(writing *w, const char *folder, char *path, pd_error *err)
{
    char root[PATH_MAX];
    pd_status status = real_path(folder, path, err);
    if (status) return status;
    if (!realpath(w->catalog->root, root)) return pd_fail_errno(err, "find the folder", w->catalog->root);
    if (lies_in(path, root))
        return pd_fail(err, PD_INVALID_ARGUMENT, "%.200s lies in the data folder, where no snapshot can be",
                       path);
    int used = snprintf(w->fresh, sizeof w->fresh, "%s.tmp", path);
    if (used < 0 || (size_t)used >= sizeof w->fresh)
        return pd_fail(err, PD_INVALID_ARGUMENT, "the path of the snapshot is too long");
    struct stat about;
    if (lstat(path, &about) == 0) return pd_fail(err, PD_ALREADY_EXISTS, "%s is there already", path);
    if (mkdir(w->fresh, 0755) == 0) return PD_OK;
    if (errno == EEXIST)
        return pd_fail(err, PD_ALREADY_EXISTS,
                       "%.200s is there: a snapshot that was cut short left it, remove it", w->fresh);
    return pd_fail_errno(err, "make the folder", w->fresh);
}

/* ------------------------------------------------------------------------------------------------- what there is --- */

static pd_status make_folder(const char *root, const char *name, char *path, pd_error *err)
{
    pd_status status = pd_path_join(path, root, name, err);
    if (!status && mkdir(path, 0755) != 0) status = pd_fail_errno(err, "make the folder", path);
    return status;
}

/* A file of the snapshot, by its name in it, with its sum. */
static pd_status note_file(writing *w, const char *name, pd_error *err)
{
    char path[PD_PATH_ROOM], text[24];
    uint64_t bytes = 0, sum = 0;
    pd_status status = pd_path_join(path, w->fresh, name, err);
    if (!status) status = pd_file_sum(path, &bytes, &sum, err);
    if (status) return status;
    snprintf(text, sizeof text, "%016" PRIx64, sum);
    json_t *entry = json_pack("{s:s, s:I, s:s}", "name", name, "bytes", (json_int_t)bytes, "xxh3", text);
    if (json_array_append_new(w->files, entry) != 0) return no_memory(err);
    if (!pd_snapshot_in_version(name)) w->made.bytes += bytes;
    return PD_OK;
}

/* The tables with their versions, as they are now and stay while `files` is held. What is broken is left behind: a restored table finds
 * it missing and takes the next on the way back, as this server did. */
static pd_status list_versions(writing *w, pd_error *err)
{
    pd_catalog *catalog = w->catalog;
    pthread_mutex_lock(&catalog->mutex);
    size_t most = 1;
    for (uint32_t i = 0; i < catalog->tables.count; i++)
        most += 1 + catalog->tables.at[i]->nversions;
    w->versions = calloc(most, sizeof *w->versions);
    for (uint32_t i = 0; w->versions && i < catalog->tables.count; i++) {
        const pd_table *table = catalog->tables.at[i];
        memcpy(w->versions[w->nversions++].table, table->name, sizeof table->name);
        w->made.tables++;
        for (uint32_t v = 0; v < table->nversions; v++) {
            const pd_known *known = &table->versions[v];
            if (known->state == PD_BROKEN) continue;
            one_version *one = &w->versions[w->nversions++];
            memcpy(one->table, table->name, sizeof table->name);
            one->number = known->number;
            one->bytes = known->disk_bytes;
        }
    }
    pthread_mutex_unlock(&catalog->mutex);
    return w->versions ? PD_OK : no_memory(err);
}

static pd_status take_table(writing *w, const char *table, pd_error *err)
{
    char from[PD_PATH_ROOM], to[PD_PATH_ROOM], name[PD_MAX_NAME + 32];
    snprintf(name, sizeof name, "tables/%s", table);
    json_t *entry = json_pack("{s:s, s:[]}", "name", table, "versions");
    if (json_array_append_new(w->tables, entry) != 0) return no_memory(err);
    pd_table_folder(w->catalog, table, from);
    pd_status status = make_folder(w->fresh, name, to, err);
    if (status) return status;
    pd_error none;
    status = pd_file_share(from, to, "CURRENT", &none);
    if (status == PD_NOT_FOUND) return PD_OK; /* nothing of it was ever published */
    if (status && err) *err = none;
    snprintf(name, sizeof name, "tables/%s/CURRENT", table);
    return status ? status : note_file(w, name, err);
}

static pd_status take_version(writing *w, const one_version *one, pd_error *err)
{
    char from[PD_PATH_ROOM], to[PD_PATH_ROOM], name[PD_MAX_NAME + 64];
    json_t *entry = json_array_get(w->tables, json_array_size(w->tables) - 1);
    if (json_array_append_new(json_object_get(entry, "versions"), json_integer((json_int_t)one->number)) != 0)
        return no_memory(err);
    pd_version_folder(w->catalog, one->table, one->number, from);
    pd_status status = pd_snapshot_version_path(w->fresh, one->table, one->number, to, err);
    if (!status) status = pd_folder_copy(from, to, err);
    if (status) return status;
    w->made.bytes += one->bytes;
    snprintf(name, sizeof name, "%s/manifest.json", to + strlen(w->fresh) + 1);
    return note_file(w, name, err);
}

static pd_status take_tables(writing *w, pd_error *err)
{
    char path[PD_PATH_ROOM];
    pd_status status = make_folder(w->fresh, "tables", path, err);
    if (!status) status = list_versions(w, err);
    for (uint32_t i = 0; !status && i < w->nversions; i++) {
        const one_version *one = &w->versions[i];
        if (atomic_load(&w->catalog->stopping))
            return pd_fail(err, PD_CANCELLED, "the server stops before the snapshot is written");
        status = one->number ? take_version(w, one, err) : take_table(w, one->table, err);
        int last = i + 1 == w->nversions || !w->versions[i + 1].number;
        if (status || !last) continue;
        char name[PD_MAX_NAME + 16];
        snprintf(name, sizeof name, "tables/%s", one->table);
        status = pd_path_join(path, w->fresh, name, err);
        if (!status) status = pd_folder_sync(path, err);
    }
    if (!status) status = pd_path_join(path, w->fresh, "tables", err);
    return status ? status : pd_folder_sync(path, err);
}

/* Files of one profile, in the snapshot. */
static pd_status note_profile(writing *w, const char *profile, pd_error *err)
{
    char folder[PD_PATH_ROOM], name[600];
    snprintf(name, sizeof name, "profiles/%s", profile);
    pd_status status = pd_path_join(folder, w->fresh, name, err);
    if (status) return status;
    DIR *dir = opendir(folder);
    if (!dir) return pd_fail_errno(err, "open the folder", folder);
    struct dirent *entry;
    while (!status && (errno = 0, entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.') continue;
        snprintf(name, sizeof name, "profiles/%s/%s", profile, entry->d_name);
        status = note_file(w, name, err);
    }
    if (!status && errno) status = pd_fail_errno(err, "read the folder", folder);
    closedir(dir);
    return status;
}

static pd_status take_profiles(writing *w, pd_error *err)
{
    char from[PD_PATH_ROOM], to[PD_PATH_ROOM], source[PD_PATH_ROOM], target[PD_PATH_ROOM];
    pd_status status = pd_path_join(from, w->catalog->root, "profiles", err);
    if (!status) status = make_folder(w->fresh, "profiles", to, err);
    if (status) return status;
    DIR *dir = opendir(from);
    if (!dir) return pd_fail_errno(err, "open the folder", from);
    struct dirent *entry;
    pd_error odd;
    while (!status && (errno = 0, entry = readdir(dir)) != NULL) {
        if (pd_name_check("profile", entry->d_name, &odd) != PD_OK) continue; /* no profile's folder */
        status = pd_path_join(source, from, entry->d_name, err);
        if (!status) status = pd_path_join(target, to, entry->d_name, err);
        if (!status) status = pd_folder_copy(source, target, err);
        if (!status) status = note_profile(w, entry->d_name, err);
    }
    if (!status && errno) status = pd_fail_errno(err, "read the folder", from);
    closedir(dir);
    return status ? status : pd_folder_sync(to, err);
}

static pd_status take_log(writing *w, pd_error *err)
{
    char path[PD_PATH_ROOM];
    pd_status status = make_folder(w->fresh, "changes", path, err);
    if (!status) status = pd_changes_copy(w->catalog->changes, path, &w->made.sequence, err);
    return status ? status : note_file(w, "changes/data.mdb", err);
}

/* --------------------------------------------------------------------------------------------------- the whole --- */

static pd_status seal(writing *w, pd_error *err)
{
    char taken[32], *text = NULL;
    size_t length = 0;
    time_t now = time(NULL);
    struct tm parts;
    strftime(taken, sizeof taken, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &parts));
    json_t *body =
        json_pack("{s:i, s:s, s:I, s:O, s:O}", "format", PD_SNAPSHOT_FORMAT, "taken", taken, "sequence",
                  (json_int_t)w->made.sequence, "tables", w->tables, "files", w->files);
    if (!body) return no_memory(err);
    pd_out out = {0};
    pd_status status = pd_sealed_text(body, &text, &length, err);
    if (!status) status = pd_out_open(&out, w->fresh, PD_SNAPSHOT_FILE, err);
    if (!status) status = pd_out_write(&out, text, length, err);
    if (!status) status = pd_out_finish(&out, NULL, NULL, err);
    pd_out_abandon(&out);
    free(text);
    json_decref(body);
    if (!status) w->made.bytes += length;
    return status ? status : pd_folder_sync(w->fresh, err);
}

static pd_status take_all(writing *w, pd_error *err)
{
    w->tables = json_array();
    w->files = json_array();
    if (!w->tables || !w->files) return no_memory(err);
    pd_status status = take_tables(w, err);
    if (status) return status;
    pthread_mutex_lock(&w->catalog->profiles.writing);
    status = take_profiles(w, err);
    pthread_mutex_unlock(&w->catalog->profiles.writing);
    if (!status) status = take_log(w, err);
    return status ? status : seal(w, err);
}

pd_status pd_snapshot_write(pd_catalog *catalog, const char *folder, pd_snapshot_made *out, pd_error *err)
{
    writing w = {.catalog = catalog};
    char path[PD_PATH_ROOM];
    uint64_t start = pd_now_ns();
    pthread_mutex_lock(&catalog->files);
    pd_status status = choose_folder(&w, folder, path, err);
    if (!status) {
        status = take_all(&w, err);
        if (!status && renameat2(AT_FDCWD, w.fresh, AT_FDCWD, path, RENAME_NOREPLACE) != 0)
            status = pd_fail_errno(err, "rename to", path);
        if (status) pd_snapshot_discard(w.fresh);
    }
    pthread_mutex_unlock(&catalog->files);
    if (!status) status = pd_folder_sync_parent(path, err);
    json_decref(w.tables);
    json_decref(w.files);
    free(w.versions);
    w.made.seconds = (double)(pd_now_ns() - start) * 1e-9;
    *out = w.made;
    if (status)
        pd_log(PD_LOG_ERROR, "no snapshot is written to %s: %s", folder, err ? err->message : "");
    else
        pd_log(PD_LOG_INFO, "a snapshot is in %s: %u tables, changes up to %" PRIu64 ", %.1f s", path,
               w.made.tables, w.made.sequence, w.made.seconds);
    return status;
}
