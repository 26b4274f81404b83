/* Ending connections below nng.
 *
 * nng 1.5.2 loses a receive when a pipe is closed from this side while a message comes in: between the header's arrival and its
 * callback the stream is stopped, the callback asks it for the body, and nobody ever answers. The pipe's receive then counts
 * as busy for ever; the one thread that takes pipes apart waits on it, and no connection is freed any more, nng_close
 * included. A peer that pours requests in (just the one that is to be closed) makes it all but certain.
 *
 * When the socket itself reports the end, as it does when a peer leaves, nng takes its ordinary way and nothing is lost. So
 * the socket is shut down here: found among the process's descriptors by its address, since nng does not tell it.
 */
#include "hangup.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

typedef struct target {
    const struct sockaddr_storage *peer; /* NULL: by the local end */
    uint16_t port;                       /* network order */
    const char *path;
} target;

static int same_inet(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    if (a->ss_family != b->ss_family) return 0;
    if (a->ss_family == AF_INET) {
        const struct sockaddr_in *x = (const void *)a, *y = (const void *)b;
        return x->sin_port == y->sin_port && x->sin_addr.s_addr == y->sin_addr.s_addr;
    }
    if (a->ss_family == AF_INET6) {
        const struct sockaddr_in6 *x = (const void *)a, *y = (const void *)b;
        return x->sin6_port == y->sin6_port && !memcmp(&x->sin6_addr, &y->sin6_addr, sizeof x->sin6_addr);
    }
    return 0;
}

static uint16_t port_of(const struct sockaddr_storage *a)
{
    if (a->ss_family == AF_INET) return ((const struct sockaddr_in *)(const void *)a)->sin_port;
    if (a->ss_family == AF_INET6) return ((const struct sockaddr_in6 *)(const void *)a)->sin6_port;
    return 0;
}

/* Listening sockets have no peer, and are left alone. */
static int matches(int fd, const target *t)
{
    struct sockaddr_storage peer = {0}, local = {0};
    socklen_t peer_length = sizeof peer, local_length = sizeof local;
    if (getpeername(fd, (struct sockaddr *)&peer, &peer_length)) return 0;
    if (t->peer) return same_inet(&peer, t->peer);
    if (getsockname(fd, (struct sockaddr *)&local, &local_length)) return 0;
    if (t->path)
        return local.ss_family == AF_UNIX && !strncmp(((struct sockaddr_un *)(void *)&local)->sun_path,
                                                      t->path, sizeof((struct sockaddr_un *)0)->sun_path);
    return t->port && port_of(&local) == t->port;
}

static int hang_up(const target *t)
{
    DIR *folder = opendir("/proc/self/fd");
    struct dirent *entry;
    int found = 0;
    if (!folder) return 0;
    while ((entry = readdir(folder)) != NULL) {
        char *end;
        long fd = strtol(entry->d_name, &end, 10);
        if (end == entry->d_name || *end || fd == dirfd(folder)) continue;
        if (matches((int)fd, t) && shutdown((int)fd, SHUT_RD) == 0) found++;
    }
    closedir(folder);
    return found;
}

int pd_hang_up_peer(const struct sockaddr_storage *peer)
{
    return hang_up(&(target){.peer = peer});
}

int pd_hang_up_all(const char *url)
{
    target t = {0};
    if (!strncmp(url, "ipc://", 6)) {
        t.path = url + 6;
    } else {
        const char *port = strrchr(url, ':');
        if (!port) return 0;
        t.port = htons((uint16_t)strtoul(port + 1, NULL, 10));
    }
    return hang_up(&t);
}
