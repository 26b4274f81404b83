/* Sharing files between folders: links first, since they cost nothing, else copies.
 *
 * A link needs no sync of its own: the file was synced when it was written, and the folder's sync keeps the name. A copy is synced
 * like any file that is written here. The sums in the folder are not looked at: whoever opens the copy does.
 */
#include "snapshot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"
#include "version.h"

#define PIECE_BYTES ((size_t)4 << 20)

/* Whether a link was refused for good: another file system, none that has links, too many of them. */
static int needs_copy(int code)
{
    return code == EXDEV || code == EPERM || code == EMLINK || code == ENOSYS || code == EOPNOTSUPP ||
           code == EACCES;
}

static pd_status copy_pieces(int in, const char *path, uint64_t length, pd_out *out, pd_error *err)
{
    size_t room = length < PIECE_BYTES ? (size_t)length + 1 : PIECE_BYTES;
    void *piece = malloc(room);
    if (!piece) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to copy %s", path);
    pd_status status = PD_OK;
    for (uint64_t at = 0; !status && at < length; at += room) {
        size_t count = length - at < room ? (size_t)(length - at) : room;
        status = pd_file_read_at(in, path, at, count, piece, err);
        if (!status) status = pd_out_write(out, piece, count, err);
    }
    free(piece);
    return status;
}

static pd_status copy_file(const char *path, const char *to, const char *name, pd_error *err)
{
    int in = open(path, O_RDONLY | O_CLOEXEC);
    if (in < 0) return pd_fail_errno(err, "open", path);
    pd_out out = {0};
    struct stat about;
    pd_status status = fstat(in, &about) != 0 ? pd_fail_errno(err, "look at", path) : PD_OK;
    if (!status) status = pd_out_open(&out, to, name, err);
    if (!status) status = copy_pieces(in, path, (uint64_t)about.st_size, &out, err);
    if (!status) status = pd_out_finish(&out, NULL, NULL, err);
    pd_out_abandon(&out);
    close(in);
    return status;
}

pd_status pd_file_share(const char *from, const char *to, const char *name, pd_error *err)
{
    char source[PD_PATH_ROOM], target[PD_PATH_ROOM];
    pd_status status = pd_path_join(source, from, name, err);
    if (!status) status = pd_path_join(target, to, name, err);
    if (status) return status;
    if (link(source, target) == 0) return PD_OK;
    return needs_copy(errno) ? copy_file(source, to, name, err) : pd_fail_errno(err, "link to", target);
}

static int is_leftover(const char *name)
{
    size_t length = strlen(name);
    return length > 4 && !strcmp(name + length - 4, ".tmp");
}

static pd_status share_all(DIR *dir, const char *from, const char *to, pd_error *err)
{
    pd_status status = PD_OK;
    struct dirent *entry;
    while (!status && (errno = 0, entry = readdir(dir)) != NULL) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") || is_leftover(entry->d_name))
            continue;
        status = pd_file_share(from, to, entry->d_name, err);
    }
    if (!status && errno) status = pd_fail_errno(err, "read the folder", from);
    return status ? status : pd_folder_sync(to, err);
}

pd_status pd_folder_copy(const char *from, const char *to, pd_error *err)
{
    DIR *dir = opendir(from);
    if (!dir) return pd_fail_errno(err, "open the folder", from);
    pd_status status = mkdir(to, 0755) != 0 ? pd_fail_errno(err, "make the folder", to) : PD_OK;
    if (!status) {
        status = share_all(dir, from, to, err);
        if (status) pd_folder_remove(to, NULL);
    }
    closedir(dir);
    return status;
}
