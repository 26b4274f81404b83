/* Are these bytes anywhere in the files below a folder? For tests of what must be gone. */
#ifndef E2E_ON_DISK_H
#define E2E_ON_DISK_H

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server.h"

static const void *needle;
static size_t needle_bytes;

static inline int look_into(const char *path, const struct stat *about, int kind, struct FTW *where)
{
    (void)where;
    if (kind != FTW_F || !about->st_size) return 0;
    int fd = open(path, O_RDONLY);
    void *bytes = fd < 0 ? MAP_FAILED : mmap(NULL, (size_t)about->st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (fd >= 0) close(fd);
    if (bytes == MAP_FAILED) return 0; /* it was removed meanwhile */
    int found = memmem(bytes, (size_t)about->st_size, needle, needle_bytes) != NULL;
    munmap(bytes, (size_t)about->st_size);
    return found;
}

static inline int on_disk(const server *host, const char *part, const void *bytes, size_t length)
{
    char folder[200];
    snprintf(folder, sizeof folder, "%s/data/%s", host->folder, part);
    needle = bytes;
    needle_bytes = length;
    return nftw(folder, look_into, 16, FTW_PHYS) == 1;
}

#endif
