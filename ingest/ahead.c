/* A ring of pieces: piece n lies in place n % places. A reader takes the next piece that has no reader as soon as its place is
 * free; the taker waits for the next one in order, and reads it itself where no reader has come to it (so that a version of one
 * piece, or a machine without a thread to spare, is read all the same).
 */
#include "ahead.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define READERS     8u
#define PLACES      12u /* some pieces wait for the taker while the readers go on */
#define PIECE_BYTES (2u << 20)
/* What direct reads are aligned to: no disk in use asks for more. */
#define BLOCK 4096u

typedef struct place {
    pd_piece piece;
    unsigned char *memory[PD_PAGE_FILES];
    int ready;
    pd_status status;
    pd_error err;
} place;

typedef struct source {
    const pd_page_file *file; /* NULL: not asked for */
    int direct;               /* the same file opened past the cache; -1: it cannot be */
    unsigned char *map;       /* the file mapped, only to ask what of it is cached; NULL: not known */
    size_t length;
} source;

struct pd_ahead {
    const pd_version *version;
    source sources[PD_PAGE_FILES];
    uint32_t npages, each, npieces; /* pages in all and in a piece */
    uint32_t nplaces, nreaders;
    place places[PLACES];
    pthread_t readers[READERS];
    pthread_mutex_t lock;
    pthread_cond_t room, done;
    uint32_t next;  /* the first piece that nobody reads yet */
    uint32_t taken; /* pieces whose places are free again */
    int holding;    /* the taker still looks at piece taken */
    int stop;
};

/* ------------------------------------------------------------------------------------------------ reading --- */

/* Whether all of a piece of the file is in the page cache. */
static int cached(const source *s, uint64_t offset, size_t length)
{
    unsigned char in[(2 * PIECE_BYTES) / BLOCK];
    size_t page = (size_t)sysconf(_SC_PAGESIZE), start = offset / page * page;
    size_t pages = (offset + length - start + page - 1) / page;
    if (!s->map || pages > sizeof in || mincore(s->map + start, pages * page, in) != 0) return 0;
    for (size_t i = 0; i < pages; i++)
        if (!(in[i] & 1)) return 0;
    return 1;
}

/* Direct reads are of whole blocks, around what is wanted. Returns 0 where the file system will not have it. */
static int read_direct(const source *s, uint64_t offset, size_t length, unsigned char *memory)
{
    uint64_t start = offset / BLOCK * BLOCK, end = offset + length;
    size_t want = (size_t)((end - start + BLOCK - 1) / BLOCK * BLOCK), have = 0;
    while (start + have < end) {
        ssize_t got = pread(s->direct, memory + have, want - have, (off_t)(start + have));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return 0;
        if (start + have + (size_t)got >= end) return 1;
        /* Past a short read only whole blocks can be read on; the rest of the last one comes again. */
        if (got < (ssize_t)BLOCK) return 0;
        have += (size_t)got / BLOCK * BLOCK;
    }
    return 1;
}

static pd_status read_file(const pd_ahead *a, pd_page_file_kind kind, place *p, pd_error *err)
{
    const source *s = &a->sources[kind];
    const pd_page_file *file = s->file;
    uint64_t offset = (uint64_t)p->piece.first * file->page_bytes;
    size_t length = (size_t)p->piece.count * file->page_bytes;
    unsigned char *bytes = p->memory[kind] + offset % BLOCK;
    p->piece.pages[kind] = bytes;
    if (s->direct < 0 || cached(s, offset, length) || !read_direct(s, offset, length, p->memory[kind])) {
        pd_status status = pd_file_read_at(file->fd, file->path, offset, length, bytes, err);
        if (status) return status;
    }
    return pd_page_sums_check(file, p->piece.first, p->piece.count, bytes, err);
}

static void fill(const pd_ahead *a, uint32_t n, place *p)
{
    uint32_t left = a->npages - n * a->each;
    p->piece = (pd_piece){.first = n * a->each, .count = left < a->each ? left : a->each};
    p->status = PD_OK;
    for (int kind = 0; !p->status && kind < PD_PAGE_FILES; kind++)
        if (a->sources[kind].file) p->status = read_file(a, (pd_page_file_kind)kind, p, &p->err);
    unsigned char *pages = p->piece.pages[PD_FILE_PAGES];
    for (uint32_t i = 0; !p->status && pages && i < p->piece.count; i++)
        p->status = pd_page_check(a->version, p->piece.first + i,
                                  pages + (size_t)i * a->sources[PD_FILE_PAGES].file->page_bytes, &p->err);
}

static void *reader(void *context)
{
    pd_ahead *a = context;
    pthread_mutex_lock(&a->lock);
    for (;;) {
        while (!a->stop && a->next < a->npieces && a->next - a->taken >= a->nplaces)
            pthread_cond_wait(&a->room, &a->lock);
        if (a->stop || a->next >= a->npieces) break;
        uint32_t n = a->next++;
        place *p = &a->places[n % a->nplaces];
        pthread_mutex_unlock(&a->lock);
        fill(a, n, p);
        pthread_mutex_lock(&a->lock);
        p->ready = 1;
        pthread_cond_signal(&a->done);
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

/* ------------------------------------------------------------------------------------------------- taking --- */

pd_status pd_ahead_next(pd_ahead *a, pd_piece *piece, pd_error *err)
{
    *piece = (pd_piece){0};
    pthread_mutex_lock(&a->lock);
    if (a->holding) {
        a->taken++;
        a->holding = 0;
        pthread_cond_signal(&a->room);
    }
    uint32_t n = a->taken;
    if (n == a->npieces) {
        pthread_mutex_unlock(&a->lock);
        return PD_OK;
    }
    place *p = &a->places[n % a->nplaces];
    if (a->next == n) {
        a->next++;
        pthread_mutex_unlock(&a->lock);
        fill(a, n, p);
        pthread_mutex_lock(&a->lock);
    } else {
        while (!p->ready)
            pthread_cond_wait(&a->done, &a->lock);
    }
    p->ready = 0;
    a->holding = 1;
    pthread_mutex_unlock(&a->lock);
    if (p->status) {
        if (err) *err = p->err;
        return p->status;
    }
    *piece = p->piece;
    return PD_OK;
}

/* ------------------------------------------------------------------------------------------------ opening --- */

/* The descriptor's own file, whatever has become of its name since. */
static int open_direct(int fd)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
}

static void open_source(source *s, const pd_page_file *file, uint32_t npages)
{
    s->file = file;
    s->length = (size_t)npages * file->page_bytes;
    s->direct = open_direct(file->fd);
    if (s->direct < 0) return;
    void *map = mmap(NULL, s->length, PROT_READ, MAP_SHARED, file->fd, 0);
    if (map != MAP_FAILED) s->map = map;
}

static pd_status open_places(pd_ahead *a, pd_error *err)
{
    a->nplaces = a->npieces < PLACES ? a->npieces : PLACES;
    for (uint32_t i = 0; i < a->nplaces; i++)
        for (int kind = 0; kind < PD_PAGE_FILES; kind++) {
            const pd_page_file *file = a->sources[kind].file;
            if (!file) continue;
            /* What comes before and behind in the first block and in the last. */
            size_t bytes = ((size_t)a->each * file->page_bytes / BLOCK + 3) * BLOCK;
            a->places[i].memory[kind] = aligned_alloc(BLOCK, bytes);
            if (!a->places[i].memory[kind])
                return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for reading %s", file->path);
        }
    return PD_OK;
}

pd_status pd_ahead_open(const pd_version *version, unsigned files, pd_ahead **out, pd_error *err)
{
    *out = NULL;
    pd_ahead *a = calloc(1, sizeof *a);
    if (!a) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for reading %s", version->folder);
    a->version = version;
    a->npages = version->info.npages;
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->room, NULL);
    pthread_cond_init(&a->done, NULL);
    uint64_t bytes = 0;
    for (int kind = 0; kind < PD_PAGE_FILES; kind++) {
        const pd_page_file *file = &version->files[kind];
        a->sources[kind].direct = -1;
        if (!(files & 1u << kind) || !file->page_bytes || !a->npages) continue;
        open_source(&a->sources[kind], file, a->npages);
        bytes += file->page_bytes;
    }
    if (bytes) {
        a->each = bytes < PIECE_BYTES ? (uint32_t)(PIECE_BYTES / bytes) : 1;
        a->npieces = (a->npages - 1) / a->each + 1;
    }
    pd_status status = open_places(a, err);
    if (status) {
        pd_ahead_close(a);
        return status;
    }
    uint32_t wanted = a->npieces > 1 ? a->npieces : 0;
    while (a->nreaders < READERS && a->nreaders < wanted &&
           pthread_create(&a->readers[a->nreaders], NULL, reader, a) == 0)
        a->nreaders++;
    *out = a;
    return PD_OK;
}

void pd_ahead_close(pd_ahead *a)
{
    if (!a) return;
    pthread_mutex_lock(&a->lock);
    a->stop = 1;
    pthread_cond_broadcast(&a->room);
    pthread_mutex_unlock(&a->lock);
    for (uint32_t i = 0; i < a->nreaders; i++)
        pthread_join(a->readers[i], NULL);
    for (uint32_t i = 0; i < a->nplaces; i++)
        for (int kind = 0; kind < PD_PAGE_FILES; kind++)
            free(a->places[i].memory[kind]);
    for (int kind = 0; kind < PD_PAGE_FILES; kind++) {
        source *s = &a->sources[kind];
        if (s->direct >= 0) close(s->direct);
        if (s->map) munmap(s->map, s->length);
    }
    pthread_cond_destroy(&a->done);
    pthread_cond_destroy(&a->room);
    pthread_mutex_destroy(&a->lock);
    free(a);
}
