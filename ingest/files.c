/* Writing and reading files with every system call checked, and the folder operations of publishing.
 *
 * A crash may come between any two calls. pd_file_replace therefore goes by a second name: tmp, fsync, rename, fsync of
 * the folder; at every instant the name shows either the old bytes or the new ones, whole.
 */
#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "version.h"

#define BUFFER_BYTES (1u << 18)

pd_status pd_path_join(char *path, const char *folder, const char *name, pd_error *err)
{
    int used = snprintf(path, PD_PATH_ROOM, "%s/%s", folder, name);
    if (used < 0 || used >= PD_PATH_ROOM)
        return pd_fail(err, PD_INVALID_ARGUMENT, "the path %.200s.../%s is too long", folder, name);
    return PD_OK;
}

pd_status pd_fail_errno(pd_error *err, const char *verb, const char *path)
{
    int code = errno;
    pd_status status = PD_DATA_LOSS;
    if (code == ENOSPC || code == EDQUOT || code == EFBIG || code == EMFILE || code == ENFILE ||
        code == ENOMEM)
        status = PD_RESOURCE_EXHAUSTED;
    else if (code == ENOENT || code == ENOTDIR)
        status = PD_NOT_FOUND;
    else if (code == EEXIST)
        status = PD_ALREADY_EXISTS;
    else if (code == EACCES || code == EPERM || code == EROFS)
        status = PD_PERMISSION_DENIED;
    return pd_fail(err, status, "cannot %s %s: %s", verb, path, strerror(code));
}

uint64_t pd_sum_of(const void *bytes, size_t length)
{
    return XXH3_64bits(bytes, length);
}

/* ------------------------------------------------------------------------------------------------ writing --- */

pd_status pd_out_open(pd_out *out, const char *folder, const char *name, pd_error *err)
{
    memset(out, 0, sizeof *out);
    pd_status status = pd_path_join(out->path, folder, name, err);
    if (status) return status;
    out->buffer = malloc(BUFFER_BYTES);
    if (!out->buffer) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to write %s", out->path);
    out->hash = XXH3_createState();
    if (!out->hash || XXH3_64bits_reset(out->hash) != XXH_OK) {
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to write %s", out->path);
        goto err_after_buffer;
    }
    out->fd = open(out->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (out->fd < 0) {
        status = pd_fail_errno(err, "create", out->path);
        goto err_after_hash;
    }
    out->open = 1;
    return PD_OK;

err_after_hash:
    XXH3_freeState(out->hash);
err_after_buffer:
    free(out->buffer);
    memset(out, 0, sizeof *out);
    return status;
}

static pd_status write_all(pd_out *out, const unsigned char *bytes, size_t length, pd_error *err)
{
    while (length) {
        ssize_t done = write(out->fd, bytes, length);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return pd_fail_errno(err, "write", out->path);
        bytes += done;
        length -= (size_t)done;
    }
    return PD_OK;
}

pd_status pd_out_write(pd_out *out, const void *bytes, size_t length, pd_error *err)
{
    if (!length) return PD_OK;
    if (XXH3_64bits_update(out->hash, bytes, length) != XXH_OK)
        return pd_fail(err, PD_INTERNAL, "cannot checksum %s", out->path);
    out->bytes += length;
    if (out->used + length > BUFFER_BYTES) {
        pd_status status = write_all(out, out->buffer, out->used, err);
        if (status) return status;
        out->used = 0;
    }
    if (length >= BUFFER_BYTES) return write_all(out, bytes, length, err);
    memcpy(out->buffer + out->used, bytes, length);
    out->used += length;
    return PD_OK;
}

void pd_out_abandon(pd_out *out)
{
    if (!out->open) return;
    close(out->fd);
    XXH3_freeState(out->hash);
    free(out->buffer);
    out->hash = NULL;
    out->buffer = NULL;
    out->open = 0;
}

pd_status pd_out_finish(pd_out *out, uint64_t *bytes, uint64_t *sum, pd_error *err)
{
    pd_status status = write_all(out, out->buffer, out->used, err);
    if (!status && fsync(out->fd) != 0) status = pd_fail_errno(err, "sync", out->path);
    if (bytes) *bytes = out->bytes;
    if (sum) *sum = XXH3_64bits_digest(out->hash);
    /* close() is looked at as well: some file systems report a failed write only there. */
    if (close(out->fd) != 0 && !status) status = pd_fail_errno(err, "close", out->path);
    XXH3_freeState(out->hash);
    free(out->buffer);
    out->hash = NULL;
    out->buffer = NULL;
    out->open = 0;
    return status;
}

/* ------------------------------------------------------------------------------------------------ reading --- */

pd_status pd_file_read_at(int fd, const char *path, uint64_t offset, size_t length, void *into, pd_error *err)
{
    unsigned char *at = into;
    while (length) {
        ssize_t got = pread(fd, at, length, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return pd_fail_errno(err, "read", path);
        if (got == 0)
            return pd_fail(err, PD_DATA_LOSS, "%s ends at byte %llu, %zu bytes short", path,
                           (unsigned long long)offset, length);
        at += got;
        offset += (uint64_t)got;
        length -= (size_t)got;
    }
    return PD_OK;
}

pd_status pd_file_read(const char *path, uint64_t limit, void **bytes, size_t *length, pd_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return pd_fail_errno(err, "open", path);
    pd_status status = PD_OK;
    char *whole = NULL;
    struct stat about;
    if (fstat(fd, &about) != 0) {
        status = pd_fail_errno(err, "look at", path);
        goto err_after_open;
    }
    if (!S_ISREG(about.st_mode)) {
        status = pd_fail(err, PD_DATA_LOSS, "%s is not a file", path);
        goto err_after_open;
    }
    uint64_t size = (uint64_t)about.st_size;
    if (size > limit) {
        status = pd_fail(err, PD_DATA_LOSS, "%s is %llu bytes long, more than the %llu it may be", path,
                         (unsigned long long)size, (unsigned long long)limit);
        goto err_after_open;
    }
    whole = malloc(size + 1);
    if (!whole) {
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the %llu bytes of %s",
                         (unsigned long long)size, path);
        goto err_after_open;
    }
    status = pd_file_read_at(fd, path, 0, size, whole, err);
    if (status) goto err_after_malloc;
    whole[size] = 0;
    close(fd);
    *bytes = whole;
    *length = size;
    return PD_OK;

err_after_malloc:
    free(whole);
err_after_open:
    close(fd);
    return status;
}

pd_status pd_file_sum(const char *path, uint64_t *bytes, uint64_t *sum, pd_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return pd_fail_errno(err, "open", path);
    pd_status status = PD_OK;
    unsigned char *piece = malloc(BUFFER_BYTES);
    XXH3_state_t *hash = XXH3_createState();
    if (!piece || !hash || XXH3_64bits_reset(hash) != XXH_OK)
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to read %s", path);
    *bytes = 0;
    while (!status) {
        ssize_t got = read(fd, piece, BUFFER_BYTES);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) status = pd_fail_errno(err, "read", path);
        if (got <= 0) break;
        XXH3_64bits_update(hash, piece, (size_t)got);
        *bytes += (uint64_t)got;
    }
    if (!status) *sum = XXH3_64bits_digest(hash);
    XXH3_freeState(hash);
    free(piece);
    close(fd);
    return status;
}

/* ------------------------------------------------------------------------------------------------ folders --- */

pd_status pd_folder_sync(const char *folder, pd_error *err)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return pd_fail_errno(err, "open the folder", folder);
    pd_status status = fsync(fd) != 0 ? pd_fail_errno(err, "sync the folder", folder) : PD_OK;
    close(fd);
    return status;
}

/* The folder that holds path, into folder: [PD_PATH_ROOM]. */
static pd_status parent_of(const char *path, char *folder, pd_error *err)
{
    size_t length = strlen(path);
    if (!length || length >= PD_PATH_ROOM)
        return pd_fail(err, PD_INVALID_ARGUMENT, "the path is too long or empty");
    memcpy(folder, path, length + 1);
    while (length > 1 && folder[length - 1] == '/')
        folder[--length] = 0;
    char *slash = strrchr(folder, '/');
    if (!slash)
        memcpy(folder, ".", 2);
    else if (slash == folder)
        folder[1] = 0;
    else
        *slash = 0;
    return PD_OK;
}

pd_status pd_folder_sync_parent(const char *path, pd_error *err)
{
    char folder[PD_PATH_ROOM];
    pd_status status = parent_of(path, folder, err);
    return status ? status : pd_folder_sync(folder, err);
}

pd_status pd_file_replace(const char *path, const void *bytes, size_t length, pd_error *err)
{
    char folder[PD_PATH_ROOM], name[PD_PATH_ROOM], fresh[PD_PATH_ROOM];
    pd_status status = parent_of(path, folder, err);
    if (status) return status;
    const char *slash = strrchr(path, '/');
    int used = snprintf(name, sizeof name, "%s.tmp", slash ? slash + 1 : path);
    if (used < 0 || used >= PD_PATH_ROOM) return pd_fail(err, PD_INVALID_ARGUMENT, "the path is too long");
    status = pd_path_join(fresh, folder, name, err);
    if (status) return status;
    /* One that a crash left behind. */
    if (unlink(fresh) != 0 && errno != ENOENT) return pd_fail_errno(err, "remove", fresh);

    pd_out out;
    status = pd_out_open(&out, folder, name, err);
    if (status) return status;
    status = pd_out_write(&out, bytes, length, err);
    if (status)
        pd_out_abandon(&out);
    else
        status = pd_out_finish(&out, NULL, NULL, err);
    if (status) goto err_after_create;
    if (rename(fresh, path) != 0) {
        status = pd_fail_errno(err, "rename to", path);
        goto err_after_create;
    }
    return pd_folder_sync(folder, err);

err_after_create:
    unlink(fresh);
    return status;
}

pd_status pd_folder_remove(const char *folder, pd_error *err)
{
    DIR *dir = opendir(folder);
    if (!dir) return pd_fail_errno(err, "open the folder", folder);
    pd_status status = PD_OK;
    struct dirent *entry;
    while (!status && (errno = 0, entry = readdir(dir)) != NULL) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (unlinkat(dirfd(dir), entry->d_name, 0) != 0 && errno != ENOENT)
            status = pd_fail_errno(err, "remove the files of", folder);
    }
    if (!status && errno) status = pd_fail_errno(err, "read the folder", folder);
    closedir(dir);
    if (!status && rmdir(folder) != 0) status = pd_fail_errno(err, "remove the folder", folder);
    if (!status) status = pd_folder_sync_parent(folder, err);
    return status;
}
