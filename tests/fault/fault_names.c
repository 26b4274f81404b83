/* Names: rename, unlink, mkdir, rmdir, link. */
#include "fault_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    char a[PD_FAULT_PATH], b[PD_FAULT_PATH];
    int from_below = pd_fault_below(from_fd, from, a), to_below = pd_fault_below(to_fd, to, b);
    if (!from_below && !to_below) return (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, flags);
    if (from_below != to_below) {
        errno = EXDEV; /* the diary could not tell it */
        return -1;
    }
    if (pd_fault_strikes(PD_FAULT_RENAME, "rename", b)) return -1;
    pd_fault_lock();
    int rc = (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, flags);
    pd_fault_kind kind = flags & RENAME_EXCHANGE ? PD_FAULT_SWAPPED : PD_FAULT_RENAMED;
    if (!rc) pd_fault_note(kind, a, b, 0, 0, 0, NULL, 0);
    pd_fault_unlock();
    return rc;
}
int rename(const char *from, const char *to)
{
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}
int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    return renameat2(from_fd, from, to_fd, to, 0);
}

int unlinkat(int dirfd, const char *path, int flags)
{
    char below[PD_FAULT_PATH];
    if (!pd_fault_below(dirfd, path, below)) return (int)syscall(SYS_unlinkat, dirfd, path, flags);
    if (pd_fault_strikes(PD_FAULT_RENAME, flags & AT_REMOVEDIR ? "rmdir" : "unlink", below)) return -1;
    pd_fault_lock();
    int rc = (int)syscall(SYS_unlinkat, dirfd, path, flags);
    if (!rc) pd_fault_note(PD_FAULT_GONE, below, NULL, 0, 0, 0, NULL, 0);
    pd_fault_unlock();
    return rc;
}
int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}
int rmdir(const char *path)
{
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

int mkdirat(int dirfd, const char *path, mode_t mode)
{
    char below[PD_FAULT_PATH];
    if (!pd_fault_below(dirfd, path, below)) return (int)syscall(SYS_mkdirat, dirfd, path, mode);
    if (pd_fault_strikes(PD_FAULT_RENAME, "mkdir", below)) return -1;
    pd_fault_lock();
    int rc = (int)syscall(SYS_mkdirat, dirfd, path, mode);
    if (!rc) pd_fault_note(PD_FAULT_NEWFOLDER, below, NULL, 0, 0, 0, NULL, 0);
    pd_fault_unlock();
    return rc;
}
int mkdir(const char *path, mode_t mode)
{
    return mkdirat(AT_FDCWD, path, mode);
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
    char a[PD_FAULT_PATH], b[PD_FAULT_PATH];
    if (!pd_fault_below(to_fd, to, b)) return (int)syscall(SYS_linkat, from_fd, from, to_fd, to, flags);
    if (!pd_fault_below(from_fd, from, a)) {
        errno = EXDEV;
        return -1;
    }
    if (pd_fault_strikes(PD_FAULT_RENAME, "link", b)) return -1;
    pd_fault_lock();
    int rc = (int)syscall(SYS_linkat, from_fd, from, to_fd, to, flags);
    if (!rc) pd_fault_note(PD_FAULT_LINKED, a, b, 0, 0, 0, NULL, 0);
    pd_fault_unlock();
    return rc;
}
int link(const char *from, const char *to)
{
    return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}
