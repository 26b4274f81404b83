/* Restoring: a checked snapshot becomes the data folder. See snapshot_folder.h.
 *
 * Everything is made beside the data folder, as DATA.restore-SECONDS.tmp, erasures that the snapshot does not know included, and then takes
 * its place in one exchange of names, so that a crash leaves one of the two whole under the name. Versions are
 * linked, since nobody writes to them; what is written to (the log) is copied. What is copied is summed on the way.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "changes.h"
#include "erase_impl.h"
#include "log.h"
#include "snapshot.h"
#include "snapshot_folder.h"
#include "version.h"

#define PIECE_BYTES ((size_t)1 << 20)

/* ------------------------------------------------------------------------------------------------- the new folder --- */

/* The folders above a file below root. */
static pd_status make_parents(const char *root, const char *name, pd_error *err)
{
    char path[PD_PATH_ROOM];
    pd_status status = pd_path_join(path, root, name, err);
    for (char *at = path + strlen(root) + 1; !status && (at = strchr(at, '/')) != NULL; *at++ = '/') {
        *at = 0;
        if (mkdir(path, 0755) != 0 && errno != EEXIST) status = pd_fail_errno(err, "make the folder", path);
    }
    return status;
}

static pd_status copy_bytes(int in, const char *from, uint64_t bytes, pd_out *out, pd_error *err)
{
    void *piece = malloc(PIECE_BYTES);
    if (!piece) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to copy %s", from);
    pd_status status = PD_OK;
    for (uint64_t at = 0; !status && at < bytes; at += PIECE_BYTES) {
        size_t count = bytes - at < PIECE_BYTES ? (size_t)(bytes - at) : PIECE_BYTES;
        status = pd_file_read_at(in, from, at, count, piece, err);
        if (!status) status = pd_out_write(out, piece, count, err);
    }
    free(piece);
    return status;
}

/* One file of the snapshot, copied; its sum is looked at again, since that costs nothing here. */
static pd_status copy_file(const pd_snapshot *s, const char *fresh, const json_t *file, pd_error *err)
{
    const char *name;
    char from[PD_PATH_ROOM];
    uint64_t bytes, sum, written = 0, found = 0;
    pd_snapshot_entry(file, &name, &bytes, &sum);
    if (pd_snapshot_in_version(name)) return PD_OK; /* comes with its folder */
    pd_status status = make_parents(fresh, name, err);
    if (!status) status = pd_path_join(from, s->folder, name, err);
    if (status) return status;
    int in = open(from, O_RDONLY | O_CLOEXEC);
    if (in < 0) return pd_fail_errno(err, "open", from);
    pd_out out = {0};
    status = pd_out_open(&out, fresh, name, err);
    if (!status) status = copy_bytes(in, from, bytes, &out, err);
    if (!status) status = pd_out_finish(&out, &written, &found, err);
    pd_out_abandon(&out);
    close(in);
    if (!status && found != sum) status = pd_fail(err, PD_DATA_LOSS, "%s does not match its checksum", from);
    return status;
}

static pd_status copy_versions(const pd_snapshot *s, const char *fresh, const json_t *table, pd_error *err)
{
    char from[PD_PATH_ROOM], to[PD_PATH_ROOM];
    const char *name = json_string_value(json_object_get(table, "name"));
    const json_t *versions = json_object_get(table, "versions");
    pd_status status = PD_OK;
    for (size_t v = 0; !status && v < json_array_size(versions); v++) {
        uint64_t number = (uint64_t)json_integer_value(json_array_get(versions, v));
        status = pd_snapshot_version_path(s->folder, name, number, from, err);
        if (!status) status = pd_snapshot_version_path(fresh, name, number, to, err);
        if (!status) status = make_parents(fresh, to + strlen(fresh) + 1, err);
        if (!status) status = pd_folder_copy(from, to, err);
    }
    return status;
}

/* Folders down to the last that holds files; what is below a version is synced already. */
static pd_status sync_folders(const char *folder, int depth, pd_error *err)
{
    DIR *dir = depth ? opendir(folder) : NULL;
    struct dirent *entry;
    struct stat about;
    pd_status status = PD_OK;
    while (!status && dir && (entry = readdir(dir)) != NULL) {
        char path[PD_PATH_ROOM];
        if (entry->d_name[0] == '.') continue;
        status = pd_path_join(path, folder, entry->d_name, err);
        if (!status && stat(path, &about) == 0 && S_ISDIR(about.st_mode))
            status = sync_folders(path, depth - 1, err);
    }
    if (dir) closedir(dir);
    return status ? status : pd_folder_sync(folder, err);
}

static pd_status make_fresh(const pd_snapshot *s, const char *fresh, pd_error *err)
{
    if (mkdir(fresh, 0755) != 0) return pd_fail_errno(err, "make the folder", fresh);
    pd_status status = PD_OK;
    for (size_t i = 0; !status && i < json_array_size(s->files); i++)
        status = copy_file(s, fresh, json_array_get(s->files, i), err);
    for (size_t t = 0; !status && t < json_array_size(s->tables); t++)
        status = copy_versions(s, fresh, json_array_get(s->tables, t), err);
    return status;
}

/* ------------------------------------------------------------------------------------------------------ erasures --- */

typedef struct known_erasures {
    pd_receipt *at;
    uint32_t n, room;
    uint64_t last; /* the largest number */
} known_erasures;

static void erasures_free(known_erasures *e)
{
    for (uint32_t i = 0; i < e->n; i++)
        pd_receipt_free(&e->at[i]);
    free(e->at);
}

static pd_status keep(void *context, uint64_t number, const void *bytes, size_t length, pd_error *err)
{
    known_erasures *e = context;
    if (e->n == e->room) {
        uint32_t room = e->room ? e->room * 2 : 16;
        pd_receipt *grown = realloc(e->at, room * sizeof *grown);
        if (!grown) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the erasures");
        e->at = grown;
        e->room = room;
    }
    pd_status status = pd_receipt_read(number, bytes, length, &e->at[e->n], err);
    if (status) return status;
    e->n++;
    e->last = number > e->last ? number : e->last;
    return PD_OK;
}

static pd_status read_all(pd_changes *log, known_erasures *out, pd_error *err)
{
    pd_status status = pd_changes_documents(log, PD_RECEIPTS, 0, keep, out, err);
    return status ? status : pd_changes_documents(log, PD_FINISHED, 0, keep, out, err);
}

static int by_request(const void *left, const void *right)
{
    const pd_receipt *l = left, *r = right;
    if (l->id != r->id) return l->id < r->id ? -1 : 1;
    if (l->asked != r->asked) return l->asked < r->asked ? -1 : 1;
    return strcmp(l->table, r->table);
}

static pd_status open_log(const char *data, const pd_config *config, pd_changes **out, pd_error *err)
{
    char folder[PD_PATH_ROOM];
    pd_status status = pd_path_join(folder, data, "changes", err);
    pd_changes_options options = {.folder = folder, .map_bytes = config->changes_bytes};
    return status ? status : pd_changes_open(&options, out, err);
}

/* As if it were asked now: a start deletes the row, then looks at every version and at the log. */
static pd_status put_again(pd_changes *log, uint64_t number, pd_receipt *receipt, pd_error *err)
{
    char *text = NULL;
    receipt->done.n = receipt->pending.n = 0;
    receipt->finished = 0;
    receipt->sequence = 0;
    pd_receipt_pending(receipt, "memory", "");
    pd_status status = pd_receipt_text(receipt, &text, err);
    pd_document document = {PD_RECEIPTS, number, text, text ? strlen(text) : 0};
    if (!status) status = pd_changes_put(log, &document, 1, err);
    free(text);
    return status;
}

static pd_status add_unknown(pd_changes *log, const known_erasures *old, uint32_t *carried, pd_error *err)
{
    known_erasures there = {0};
    pd_status status = read_all(log, &there, err);
    if (!status && there.n) qsort(there.at, there.n, sizeof *there.at, by_request);
    for (uint32_t i = 0; !status && i < old->n; i++) {
        if (there.n && bsearch(&old->at[i], there.at, there.n, sizeof *there.at, by_request)) continue;
        status = put_again(log, ++there.last, &old->at[i], err);
        *carried += !status;
    }
    erasures_free(&there);
    return status;
}

/* What the old folder's log knows. A log that cannot be read may be why there is a restore at all: then this is said, and it goes on. */
static pd_status read_old(const char *data, const pd_config *config, known_erasures *old, pd_error *err)
{
    char file[PD_PATH_ROOM];
    pd_changes *log = NULL;
    pd_status status = pd_path_join(file, data, "changes/data.mdb", err);
    if (status || access(file, F_OK) != 0) return status;
    status = open_log(data, config, &log, err);
    if (!status) status = read_all(log, old, err);
    pd_changes_close(log);
    if (status != PD_DATA_LOSS) return status;
    pd_log(PD_LOG_ERROR, "rows that were erased after the snapshot may be back: %s", err->message);
    return PD_OK;
}

static pd_status carry(const char *data, const char *fresh, const pd_config *config, uint32_t *carried,
                       pd_error *err)
{
    known_erasures old = {0};
    pd_changes *log = NULL;
    pd_status status = read_old(data, config, &old, err);
    if (!status && old.n) status = open_log(fresh, config, &log, err);
    if (!status && old.n) status = add_unknown(log, &old, carried, err);
    pd_changes_close(log);
    erasures_free(&old);
    return status;
}

/* Receipts from before a time are forgotten, those of rows that were erased after the snapshot among them, if it is that old. */
static void warn_of_age(const pd_snapshot *s, const pd_config *config)
{
    struct tm parts = {0};
    if (!strptime(s->taken, "%Y-%m-%dT%H:%M:%SZ", &parts)) return;
    if (pd_days_now() - (double)timegm(&parts) / 86400 > config->receipt_days)
        pd_log(PD_LOG_WARNING,
               "the snapshot is of %s, and receipts of erasures are kept for %g days: rows that were erased "
               "soon after it may be back",
               s->taken, config->receipt_days);
}

/* ----------------------------------------------------------------------------------------------------- the place --- */

/* 1: something is in the folder; 0: nothing, or there is none. */
static int holds_something(const char *folder)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    int some = 0;
    while (!some && dir && (entry = readdir(dir)) != NULL)
        some = strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    if (dir) closedir(dir);
    return some;
}

/* Held until the descriptor is closed. */
static pd_status lock_data(const char *data, int *fd, pd_error *err)
{
    char path[PD_PATH_ROOM];
    pd_status status = pd_path_join(path, data, "lock", err);
    if (status) return status;
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (*fd < 0) return pd_fail_errno(err, "open", path);
    if (flock(*fd, LOCK_EX | LOCK_NB) == 0) return PD_OK;
    if (errno != EWOULDBLOCK) return pd_fail_errno(err, "lock", path);
    return pd_fail(err, PD_FAILED_PRECONDITION, "the data folder %s is in use by another process", data);
}

/* After a failure fresh is what was made, to be thrown away, or "": it is the old data folder, which the error names. */
static pd_status take_place(const char *data, char *fresh, const char *aside, pd_error *err)
{
    if (!*aside) {
        /* An empty folder of that name is replaced. */
        if (rename(fresh, data) != 0) return pd_fail_errno(err, "rename to", data);
        return pd_folder_sync_parent(data, err);
    }
    /* The old folder keeps the name until the new one has it; where names cannot be exchanged, for an instant nothing has it. */
    if (renameat2(AT_FDCWD, fresh, AT_FDCWD, data, RENAME_EXCHANGE) == 0) {
        if (rename(fresh, aside) == 0) return pd_folder_sync_parent(data, err);
        pd_status status = pd_fail_errno(err, "rename to", aside);
        if (renameat2(AT_FDCWD, fresh, AT_FDCWD, data, RENAME_EXCHANGE) == 0) return status;
        pd_log(PD_LOG_ERROR, "%s is now %s", data, fresh);
        *fresh = 0;
        return status;
    }
    if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP)
        return pd_fail_errno(err, "exchange with the restored folder", data);
    if (rename(data, aside) != 0) return pd_fail_errno(err, "rename to", aside);
    if (rename(fresh, data) != 0) {
        pd_status status = pd_fail_errno(err, "rename to", data);
        if (rename(aside, data) != 0) pd_log(PD_LOG_ERROR, "%s is now %s", data, aside);
        return status;
    }
    return pd_folder_sync_parent(data, err);
}

/* A name that nothing has yet: of this second, or of one to come. */
static pd_status beside(char *path, const char *data, const char *what, const char *tail, pd_error *err)
{
    size_t length = strlen(data);
    struct stat about;
    while (length > 1 && data[length - 1] == '/')
        length--;
    for (long long second = time(NULL);; second++) {
        int used = snprintf(path, PD_PATH_ROOM, "%.*s.%s-%lld%s", (int)length, data, what, second, tail);
        if (used < 0 || used >= PD_PATH_ROOM)
            return pd_fail(err, PD_INVALID_ARGUMENT, "the path of the data folder is too long");
        if (lstat(path, &about) != 0) return PD_OK;
    }
}

pd_status pd_snapshot_restore(const pd_snapshot *s, const pd_config *config, char *aside, uint32_t *carried,
                              pd_error *err)
{
    const char *data = config->data_folder;
    char fresh[PD_PATH_ROOM];
    int lock = -1, some = holds_something(data);
    *carried = 0;
    *aside = 0;
    pd_status status = beside(fresh, data, "restore", ".tmp", err);
    if (!status && some) status = beside(aside, data, "before-restore", "", err);
    if (!status && some) status = lock_data(data, &lock, err);
    if (!status) {
        status = make_fresh(s, fresh, err);
        if (!status && some) status = carry(data, fresh, config, carried, err);
        if (!status && some) warn_of_age(s, config);
        if (!status) status = sync_folders(fresh, 2, err);
        if (!status) status = take_place(data, fresh, aside, err);
        if (status && *fresh) pd_snapshot_discard(fresh);
    }
    if (lock >= 0) close(lock);
    return status;
}
