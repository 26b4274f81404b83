/* Descriptors: opening, writing, syncing, closing. */
#include "fault_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define FDS 65536

/* An allocation of ours is none of the program's, and does not fail for it. */
extern void *__libc_malloc(size_t size);

/* What is known of the descriptors below the folder; the inode is compared before it is believed, since libc may have closed one
 * without telling us. */
static struct known {
    uint64_t inode; /* 0: none of ours */
    int synced;     /* O_SYNC or O_DSYNC */
} known[FDS];

static int ours(int fd, struct stat *about)
{
    if (fd < 0 || fd >= FDS || !known[fd].inode) return 0;
    int before = errno;
    int same = fstat(fd, about) == 0 && about->st_ino == known[fd].inode;
    errno = before;
    if (!same) known[fd].inode = 0;
    return same;
}

static void forget(int fd)
{
    if (fd >= 0 && fd < FDS) known[fd].inode = 0;
}

/* ------------------------------------------------------------------------------------------------- opening --- */

static int opened(int dirfd, const char *path, int flags, mode_t mode, const char *call)
{
    char below[PD_FAULT_PATH];
    struct stat about;
    if (!pd_fault_below(dirfd, path, below)) {
        int fd = (int)syscall(SYS_openat, dirfd, path, flags, mode);
        forget(fd);
        return fd;
    }
    int strikes = pd_fault_strikes(PD_FAULT_OPEN, call, below);
    if (strikes) return -1;
    pd_fault_lock();
    int was = syscall(SYS_newfstatat, dirfd, path, &about, 0) == 0;
    int fd = (int)syscall(SYS_openat, dirfd, path, flags, mode);
    if (fd >= 0 && fd < FDS && fstat(fd, &about) == 0 && !(flags & O_PATH)) {
        known[fd].inode = about.st_ino;
        known[fd].synced = (flags & O_DSYNC) != 0; /* O_SYNC holds the same bit */
        if (S_ISREG(about.st_mode)) {
            /* A name that was a link shows the file's own. */
            (void)pd_fault_below_fd(fd, below);
            pd_fault_note(was ? PD_FAULT_OPENED : PD_FAULT_MADE, below, NULL, about.st_ino, 0, 0, NULL, 0);
            if (was && (flags & O_TRUNC))
                pd_fault_note(PD_FAULT_SIZED, NULL, NULL, about.st_ino, 0, 0, NULL, 0);
        }
    }
    pd_fault_unlock();
    return fd;
}

#define MODE(flags, mode)                                                                                    \
    mode_t mode = 0;                                                                                         \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                   \
        va_list args;                                                                                        \
        va_start(args, flags);                                                                               \
        mode = va_arg(args, mode_t);                                                                         \
        va_end(args);                                                                                        \
    }

int open(const char *path, int flags, ...)
{
    MODE(flags, mode)
    return opened(AT_FDCWD, path, flags, mode, "open");
}
int open64(const char *path, int flags, ...)
{
    MODE(flags, mode)
    return opened(AT_FDCWD, path, flags, mode, "open");
}
int openat(int dirfd, const char *path, int flags, ...)
{
    MODE(flags, mode)
    return opened(dirfd, path, flags, mode, "openat");
}
int openat64(int dirfd, const char *path, int flags, ...)
{
    MODE(flags, mode)
    return opened(dirfd, path, flags, mode, "openat");
}
/* What fortified programs call. */
int __open_2(const char *path, int flags);
int __open_2(const char *path, int flags)
{
    return opened(AT_FDCWD, path, flags, 0, "open");
}
int __open64_2(const char *path, int flags);
int __open64_2(const char *path, int flags)
{
    return opened(AT_FDCWD, path, flags, 0, "open");
}
int __openat_2(int dirfd, const char *path, int flags);
int __openat_2(int dirfd, const char *path, int flags)
{
    return opened(dirfd, path, flags, 0, "openat");
}
int __openat64_2(int dirfd, const char *path, int flags);
int __openat64_2(int dirfd, const char *path, int flags)
{
    return opened(dirfd, path, flags, 0, "openat");
}
int creat(const char *path, mode_t mode)
{
    return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode, "creat");
}
int creat64(const char *path, mode_t mode)
{
    return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode, "creat");
}

int close(int fd)
{
    forget(fd);
    return (int)syscall(SYS_close, fd);
}

static int same_as(int old, int fresh)
{
    if (fresh >= 0 && fresh < FDS && old >= 0 && old < FDS) known[fresh] = known[old];
    return fresh;
}
int dup(int old)
{
    return same_as(old, (int)syscall(SYS_dup, old));
}
int dup2(int old, int fresh)
{
    return same_as(old, (int)syscall(SYS_dup2, old, fresh));
}
int dup3(int old, int fresh, int flags)
{
    return same_as(old, (int)syscall(SYS_dup3, old, fresh, flags));
}

/* ------------------------------------------------------------------------------------------------- writing --- */

/* Writes and tells the diary. offset < 0: where the descriptor stands. */
static ssize_t written(int fd, const struct iovec *parts, int n, off_t offset, const char *call)
{
    struct stat about;
    if (!ours(fd, &about) || !S_ISREG(about.st_mode))
        return offset < 0 ? syscall(SYS_writev, fd, parts, n)
                          : syscall(SYS_pwritev, fd, parts, n, (long)offset, 0L);
    char below[PD_FAULT_PATH] = "";
    (void)pd_fault_below_fd(fd, below);
    int strikes = pd_fault_strikes(PD_FAULT_WRITE, call, below), error = errno;
    if (strikes < 0) return -1;
    size_t length = 0;
    for (int i = 0; i < n; i++)
        length += parts[i].iov_len;
    pd_fault_lock();
    fstat(fd, &about);
    off_t at = offset;
    if (at < 0) at = fcntl(fd, F_GETFL) & O_APPEND ? about.st_size : lseek(fd, 0, SEEK_CUR);
    ssize_t done;
    if (at + (off_t)length > about.st_size && pd_fault_disk_full()) {
        errno = ENOSPC;
        done = -1;
    } else {
        done = offset < 0 ? syscall(SYS_writev, fd, parts, n)
                          : syscall(SYS_pwritev, fd, parts, n, (long)offset, 0L);
    }
    char *data = done > 0 && pd_fault_writes() ? __libc_malloc((size_t)done) : NULL;
    if (data) {
        size_t have = 0;
        for (int i = 0; i < n && have < (size_t)done; i++) {
            size_t part = parts[i].iov_len < (size_t)done - have ? parts[i].iov_len : (size_t)done - have;
            memcpy(data + have, parts[i].iov_base, part);
            have += part;
        }
        pd_fault_note(PD_FAULT_WRITTEN, NULL, NULL, about.st_ino, (uint64_t)at,
                      known[fd].synced ? 1u + (strikes != 0) : 0, data, (size_t)done);
        free(data);
    }
    pd_fault_unlock();
    if (!strikes) return done;
    errno = error;
    return -1;
}

ssize_t write(int fd, const void *bytes, size_t length)
{
    struct iovec part = {(void *)(uintptr_t)bytes, length};
    return written(fd, &part, 1, -1, "write");
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset)
{
    struct iovec part = {(void *)(uintptr_t)bytes, length};
    return written(fd, &part, 1, offset, "pwrite");
}
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset)
{
    return pwrite(fd, bytes, length, offset);
}
ssize_t writev(int fd, const struct iovec *parts, int n)
{
    return written(fd, parts, n, -1, "writev");
}
ssize_t pwritev(int fd, const struct iovec *parts, int n, off_t offset)
{
    return written(fd, parts, n, offset, "pwritev");
}
ssize_t pwritev64(int fd, const struct iovec *parts, int n, off64_t offset)
{
    return pwritev(fd, parts, n, offset);
}

static int sized(int fd, off_t length, const char *call)
{
    struct stat about;
    if (!ours(fd, &about)) return (int)syscall(SYS_ftruncate, fd, length);
    char below[PD_FAULT_PATH] = "";
    (void)pd_fault_below_fd(fd, below);
    int strikes = pd_fault_strikes(PD_FAULT_WRITE, call, below);
    if (strikes) return -1;
    pd_fault_lock();
    int rc = (int)syscall(SYS_ftruncate, fd, length);
    if (!rc) pd_fault_note(PD_FAULT_SIZED, NULL, NULL, about.st_ino, (uint64_t)length, 0, NULL, 0);
    pd_fault_unlock();
    return rc;
}

int ftruncate(int fd, off_t length)
{
    return sized(fd, length, "ftruncate");
}
int ftruncate64(int fd, off64_t length)
{
    return sized(fd, length, "ftruncate");
}
int truncate(const char *path, off_t length)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    int rc = sized(fd, length, "truncate"), error = errno;
    close(fd);
    errno = error;
    return rc;
}
int truncate64(const char *path, off64_t length)
{
    return truncate(path, length);
}

/* Room asked for ahead makes a file longer, and writes nothing. */
int fallocate(int fd, int mode, off_t offset, off_t length)
{
    struct stat about;
    char below[PD_FAULT_PATH] = "";
    if (ours(fd, &about)) {
        (void)pd_fault_below_fd(fd, below);
        if (pd_fault_strikes(PD_FAULT_WRITE, "fallocate", below)) return -1;
        if (pd_fault_disk_full() && offset + length > about.st_size) {
            errno = ENOSPC;
            return -1;
        }
    }
    int rc = (int)syscall(SYS_fallocate, fd, mode, offset, length);
    if (!rc && below[0] && !(mode & FALLOC_FL_KEEP_SIZE) && offset + length > about.st_size) {
        pd_fault_lock();
        pd_fault_note(PD_FAULT_SIZED, NULL, NULL, about.st_ino, (uint64_t)(offset + length), 0, NULL, 0);
        pd_fault_unlock();
    }
    return rc;
}
int fallocate64(int fd, int mode, off64_t offset, off64_t length)
{
    return fallocate(fd, mode, offset, length);
}
int posix_fallocate(int fd, off_t offset, off_t length)
{
    return fallocate(fd, 0, offset, length) ? errno : 0;
}
int posix_fallocate64(int fd, off64_t offset, off64_t length)
{
    return posix_fallocate(fd, offset, length);
}

/* ------------------------------------------------------------------------------------------------- syncing --- */

/* The diary says when a sync began: what is written while it runs is not known to be on the disk when it ends. */
static int synced(int fd, long number, const char *call)
{
    struct stat about;
    if (!ours(fd, &about)) return (int)syscall(number, fd);
    char below[PD_FAULT_PATH] = "";
    (void)pd_fault_below_fd(fd, below);
    int folder = S_ISDIR(about.st_mode);
    pd_fault_lock();
    uint64_t began = atomic_load(&pd_fault->journal);
    if (!folder) pd_fault_note(PD_FAULT_SYNCING, NULL, NULL, about.st_ino, 0, began, NULL, 0);
    pd_fault_unlock();
    int strikes = pd_fault_strikes(PD_FAULT_SYNC, call, below);
    int rc = strikes ? -1 : (int)syscall(number, fd), error = errno;
    pd_fault_lock();
    if (folder && !rc)
        pd_fault_note(PD_FAULT_FOLDER, below, NULL, about.st_ino, 0, began, NULL, 0);
    else if (!folder)
        pd_fault_note(rc ? PD_FAULT_UNSYNCED : PD_FAULT_SYNCED, NULL, NULL, about.st_ino, 0, began, NULL, 0);
    pd_fault_unlock();
    errno = error;
    return rc;
}

int fsync(int fd)
{
    return synced(fd, SYS_fsync, "fsync");
}
int fdatasync(int fd)
{
    return synced(fd, SYS_fdatasync, "fdatasync");
}
/* Makes nothing durable by itself, whatever it returns: the diary leaves it out. */
int sync_file_range(int fd, off64_t offset, off64_t length, unsigned flags)
{
    struct stat about;
    char below[PD_FAULT_PATH] = "";
    if (ours(fd, &about)) {
        (void)pd_fault_below_fd(fd, below);
        if (pd_fault_strikes(PD_FAULT_SYNC, "sync_file_range", below)) return -1;
    }
    return (int)syscall(SYS_sync_file_range, fd, offset, length, flags);
}
