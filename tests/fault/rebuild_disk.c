/* The two views of a disk, and what a diary does to them. */
#include "rebuild.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* A change of names that is not durable yet. */
typedef struct change {
    uint64_t at;     /* its place in the diary */
    node *from, *to; /* folders; NULL: nothing is removed, nothing is added */
    char *old, *fresh;
    node *what;
    node *instead; /* what takes the old name; NULL: nothing */
    int durable;
} change;

typedef struct inode {
    uint64_t number;
    node *node;
} inode;

struct disk {
    node *root, *all;
    change *changes;
    uint32_t nchanges;
    inode *inodes;
    uint32_t ninodes;
};

void broken(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "pados-fault-rebuild: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    exit(1);
}

static void *enough(void *memory)
{
    if (!memory) broken("no memory");
    return memory;
}

/* splitmix64 */
static uint64_t draw(uint64_t *seed)
{
    uint64_t z = *seed += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* True in quarters of 4 cases. */
static int chance(uint64_t *seed, unsigned quarters)
{
    return draw(seed) % 4 < quarters;
}

/* -------------------------------------------------------------------------------------------------- the diary --- */

void diary_open(diary *d, const char *path)
{
    struct stat about;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &about) != 0) broken("cannot open %s: %s", path, strerror(errno));
    d->length = (uint64_t)about.st_size;
    d->bytes = d->length ? mmap(NULL, d->length, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    if (d->bytes == MAP_FAILED) broken("cannot map %s: %s", path, strerror(errno));
    close(fd);
}

int diary_next(const diary *d, uint64_t *at, diary_entry *e)
{
    if (d->length - *at < sizeof e->head) return 0;
    memcpy(&e->head, d->bytes + *at, sizeof e->head);
    if (e->head.magic != PD_FAULT_ENTRY || e->head.path >= sizeof e->path || e->head.other >= sizeof e->other)
        broken("the diary is broken at byte %llu", (unsigned long long)*at);
    uint64_t length = sizeof e->head + e->head.path + (uint64_t)e->head.other + e->head.data;
    if (length > d->length - *at) return 0; /* the process died in writing it */
    const unsigned char *from = d->bytes + *at + sizeof e->head;
    memcpy(e->path, from, e->head.path);
    e->path[e->head.path] = 0;
    memcpy(e->other, from + e->head.path, e->head.other);
    e->other[e->head.other] = 0;
    e->data = from + e->head.path + e->head.other;
    *at += length;
    return 1;
}

/* ---------------------------------------------------------------------------------------------------- names --- */

node *node_make(disk *d, int is_folder)
{
    node *n = enough(calloc(1, sizeof *n));
    n->is_folder = is_folder;
    n->next = d->all;
    d->all = n;
    return n;
}

void names_set(names *n, const char *name, node *child)
{
    uint32_t i = 0;
    while (i < n->count && strcmp(n->at[i].name, name))
        i++;
    if (i < n->count && child) {
        n->at[i].node = child;
    } else if (i < n->count) {
        free(n->at[i].name);
        n->at[i] = n->at[--n->count];
    } else if (child) {
        n->at = enough(realloc(n->at, (n->count + 1) * sizeof *n->at));
        n->at[n->count].name = enough(strdup(name));
        n->at[n->count++].node = child;
    }
}

static node *names_find(const names *n, const char *name, size_t length)
{
    for (uint32_t i = 0; i < n->count; i++)
        if (strlen(n->at[i].name) == length && !memcmp(n->at[i].name, name, length)) return n->at[i].node;
    return NULL;
}

/* The folder that holds path as the system sees it, and the last part of the path. */
static node *parent_of(const disk *d, const char *path, const char **name)
{
    node *folder = d->root;
    const char *slash;
    while (folder && (slash = strchr(path, '/')) != NULL) {
        folder = names_find(&folder->names[CACHE], path, (size_t)(slash - path));
        path = slash + 1;
    }
    if (!folder || !folder->is_folder) broken("the diary names %s in a folder that is not there", path);
    *name = path;
    return folder;
}

static node *find(const disk *d, const char *path)
{
    if (!path[0]) return d->root;
    const char *name;
    node *folder = parent_of(d, path, &name);
    return names_find(&folder->names[CACHE], name, strlen(name));
}

static void apply(const change *c, int view)
{
    if (c->from) names_set(&c->from->names[view], c->old, c->instead);
    if (c->to) names_set(&c->to->names[view], c->fresh, c->what);
}

/* old and fresh are paths; either may be NULL. */
static void rename_node(disk *d, uint64_t at, const char *old, const char *fresh, node *what, node *instead)
{
    const char *name;
    change c = {.at = at, .what = what, .instead = instead};
    if (old) {
        c.from = parent_of(d, old, &name);
        c.old = enough(strdup(name));
    }
    if (fresh) {
        c.to = parent_of(d, fresh, &name);
        c.fresh = enough(strdup(name));
    }
    d->changes = enough(realloc(d->changes, (d->nchanges + 1) * sizeof c));
    d->changes[d->nchanges++] = c;
    apply(&c, CACHE);
}

/* What was changed in the folder before a place in the diary is durable, and with it what came before that in the other folder of
 * a rename. */
static void sync_folder(disk *d, const node *folder, uint64_t began)
{
    for (uint32_t i = 0; i < d->nchanges; i++) {
        change *c = &d->changes[i];
        if (c->durable || c->at >= began || (c->from != folder && c->to != folder)) continue;
        const node *other = c->from == folder ? c->to : c->from;
        if (other && other != folder) sync_folder(d, other, c->at);
        apply(c, DISK);
        c->durable = 1;
    }
}

/* ---------------------------------------------------------------------------------------------------- files --- */

static void file_room(node *f, uint64_t size)
{
    if (size <= f->room) return;
    uint64_t room = f->room * 2 > size ? f->room * 2 : size;
    room = (room + PIECE - 1) / PIECE * PIECE;
    for (int view = 0; view < 2; view++) {
        f->bytes[view] = enough(realloc(f->bytes[view], room));
        memset(f->bytes[view] + f->room, 0, room - f->room);
    }
    f->changed = enough(realloc(f->changed, room / PIECE * sizeof *f->changed));
    f->lost = enough(realloc(f->lost, room / PIECE));
    memset(f->changed + f->room / PIECE, 0, (room - f->room) / PIECE * sizeof *f->changed);
    memset(f->lost + f->room / PIECE, 0, (room - f->room) / PIECE);
    f->room = room;
}

static void piece_to_disk(node *f, uint64_t piece, const unsigned char *bytes, uint64_t size)
{
    memcpy(f->bytes[DISK] + piece * PIECE, bytes, PIECE);
    uint64_t end = (piece + 1) * PIECE < size ? (piece + 1) * PIECE : size;
    if (end > f->size[DISK]) f->size[DISK] = end;
}

void file_write(node *f, uint64_t offset, const void *bytes, size_t length, int durable, uint64_t *seed)
{
    if (!length) return;
    file_room(f, offset + length);
    for (uint64_t p = offset / PIECE; seed && p <= (offset + length - 1) / PIECE; p++)
        if (f->changed[p] && p * PIECE < f->size[CACHE] && chance(seed, 1))
            piece_to_disk(f, p, f->bytes[CACHE] + p * PIECE, f->size[CACHE]);
    memcpy(f->bytes[CACHE] + offset, bytes, length);
    if (offset + length > f->size[CACHE]) f->size[CACHE] = offset + length;
    f->clock++;
    for (uint64_t p = offset / PIECE; p <= (offset + length - 1) / PIECE; p++) {
        f->changed[p] = durable ? 0 : f->clock;
        f->lost[p] = 0;
        if (durable) piece_to_disk(f, p, f->bytes[CACHE] + p * PIECE, f->size[CACHE]);
    }
}

/* The disk has it, though it was said to have failed. */
static void file_flush(node *f, uint64_t offset, uint64_t length)
{
    for (uint64_t p = offset / PIECE; p <= (offset + length - 1) / PIECE; p++)
        piece_to_disk(f, p, f->bytes[CACHE] + p * PIECE, f->size[CACHE]);
}

static void file_size(node *f, uint64_t size)
{
    file_room(f, size);
    if (size < f->size[CACHE]) {
        memset(f->bytes[CACHE] + size, 0, f->room - size);
        f->clock++;
        for (uint64_t p = size / PIECE; p < f->room / PIECE; p++)
            if (p * PIECE < f->size[CACHE]) f->changed[p] = f->clock;
    }
    f->size[CACHE] = size;
}

static void sync_begins(node *f, uint64_t number)
{
    syncing *s = enough(calloc(1, sizeof *s));
    s->number = number;
    s->size = f->size[CACHE];
    for (uint64_t p = 0; p < f->room / PIECE; p++)
        s->npieces += f->changed[p] && !f->lost[p];
    s->pieces = enough(malloc((s->npieces + 1) * sizeof *s->pieces));
    s->bytes = enough(malloc((s->npieces + (size_t)1) * PIECE));
    uint32_t n = 0;
    for (uint64_t p = 0; p < f->room / PIECE; p++) {
        if (!f->changed[p] || f->lost[p]) continue;
        s->pieces[n] = p;
        memcpy(s->bytes + (size_t)n++ * PIECE, f->bytes[CACHE] + p * PIECE, PIECE);
    }
    s->next = f->syncs;
    f->syncs = s;
}

static void sync_ends(node *f, uint64_t number, int well)
{
    syncing **at = &f->syncs;
    while (*at && (*at)->number != number)
        at = &(*at)->next;
    syncing *s = *at;
    if (!s) broken("a sync ends that did not begin");
    *at = s->next;
    if (well) {
        if (s->size < f->size[DISK]) memset(f->bytes[DISK] + s->size, 0, f->room - s->size);
        f->size[DISK] = s->size;
    }
    for (uint32_t i = 0; i < s->npieces; i++) {
        uint64_t p = s->pieces[i];
        int same = !memcmp(f->bytes[CACHE] + p * PIECE, s->bytes + (size_t)i * PIECE, PIECE);
        if (well) piece_to_disk(f, p, s->bytes + (size_t)i * PIECE, s->size);
        if (well && same) f->changed[p] = 0;
        if (!well && same) f->lost[p] = 1;
    }
    free(s->pieces);
    free(s->bytes);
    free(s);
}

/* ------------------------------------------------------------------------------------------------ the disk --- */

disk *disk_make(void)
{
    disk *d = enough(calloc(1, sizeof *d));
    d->root = node_make(d, 1);
    return d;
}

node *disk_root(disk *d)
{
    return d->root;
}

static void names_free(names *n)
{
    for (uint32_t i = 0; i < n->count; i++)
        free(n->at[i].name);
    free(n->at);
}

void disk_free(disk *d)
{
    for (node *n = d->all, *next; n; n = next) {
        next = n->next;
        for (int view = 0; view < 2; view++) {
            names_free(&n->names[view]);
            free(n->bytes[view]);
        }
        for (syncing *s = n->syncs, *after; s; s = after) {
            after = s->next;
            free(s->pieces);
            free(s->bytes);
            free(s);
        }
        free(n->changed);
        free(n->lost);
        free(n);
    }
    for (uint32_t i = 0; i < d->nchanges; i++) {
        free(d->changes[i].old);
        free(d->changes[i].fresh);
    }
    free(d->changes);
    free(d->inodes);
    free(d);
}

static node *of_inode(const disk *d, uint64_t number)
{
    for (uint32_t i = d->ninodes; i-- > 0;)
        if (d->inodes[i].number == number) return d->inodes[i].node;
    return NULL;
}

/* An inode's number is used again once its file is gone: the latest file of it is meant. */
static void set_inode(disk *d, uint64_t number, node *n)
{
    for (uint32_t i = 0; i < d->ninodes; i++)
        if (d->inodes[i].number == number) {
            d->inodes[i].node = n;
            return;
        }
    d->inodes = enough(realloc(d->inodes, (d->ninodes + 1) * sizeof *d->inodes));
    d->inodes[d->ninodes++] = (inode){number, n};
}

static node *file_of(const disk *d, const diary_entry *e)
{
    node *n = of_inode(d, e->head.inode);
    if (!n || n->is_folder)
        broken("the diary writes to a file that it did not open, inode %llu",
               (unsigned long long)e->head.inode);
    return n;
}

static void play(disk *d, const diary_entry *e, uint64_t at, uint64_t *seed)
{
    node *n;
    switch ((pd_fault_kind)e->head.kind) {
    case PD_FAULT_MADE:
        n = node_make(d, 0);
        rename_node(d, at, NULL, e->path, n, NULL);
        set_inode(d, e->head.inode, n);
        return;
    case PD_FAULT_OPENED:
        n = find(d, e->path);
        if (!n) broken("the diary opens %s, which is not there: is the base what the folder held?", e->path);
        set_inode(d, e->head.inode, n);
        return;
    case PD_FAULT_WRITTEN:
        file_write(file_of(d, e), e->head.offset, e->data, e->head.data, e->head.number == 1, seed);
        if (e->head.number == 2 && chance(seed, 2)) file_flush(file_of(d, e), e->head.offset, e->head.data);
        return;
    case PD_FAULT_SIZED:
        file_size(file_of(d, e), e->head.offset);
        return;
    case PD_FAULT_SYNCING:
        sync_begins(file_of(d, e), e->head.number);
        return;
    case PD_FAULT_SYNCED:
    case PD_FAULT_UNSYNCED:
        sync_ends(file_of(d, e), e->head.number, e->head.kind == PD_FAULT_SYNCED);
        return;
    case PD_FAULT_FOLDER:
        n = find(d, e->path);
        if (n) sync_folder(d, n, e->head.number);
        return;
    case PD_FAULT_NEWFOLDER:
        rename_node(d, at, NULL, e->path, node_make(d, 1), NULL);
        return;
    case PD_FAULT_RENAMED:
        rename_node(d, at, e->path, e->other, find(d, e->path), NULL);
        return;
    case PD_FAULT_GONE:
        rename_node(d, at, e->path, NULL, NULL, NULL);
        return;
    case PD_FAULT_LINKED:
        rename_node(d, at, NULL, e->other, find(d, e->path), NULL);
        return;
    case PD_FAULT_SWAPPED:
        rename_node(d, at, e->path, e->other, find(d, e->path), find(d, e->other));
        return;
    }
    broken("the diary has an entry of an unknown kind");
}

void disk_play(disk *d, const diary *book, uint64_t upto, int syncs, uint64_t *seed)
{
    diary_entry *e = enough(malloc(sizeof *e));
    for (uint64_t at = 0;;) {
        uint64_t began = at;
        if (!diary_next(book, &at, e)) break;
        if (at <= upto) {
            if (!syncs && (e->head.kind == PD_FAULT_SYNCED || e->head.kind == PD_FAULT_FOLDER)) continue;
            if (!syncs && e->head.kind == PD_FAULT_WRITTEN) e->head.number = 0;
            play(d, e, began, seed);
            continue;
        }
        /* Under way when the power went. */
        if (e->head.kind == PD_FAULT_WRITTEN)
            file_write(file_of(d, e), e->head.offset, e->data, e->head.data, 0, seed);
        break;
    }
    free(e);
}

static void cut_names(disk *d, uint64_t *seed)
{
    unsigned keep = (unsigned)(draw(seed) % 5);
    for (uint32_t i = 0; i < d->nchanges; i++) {
        change *c = &d->changes[i];
        if (c->durable) continue;
        int stopped = (c->from && c->from->stopped) || (c->to && c->to->stopped);
        if (!stopped && chance(seed, keep)) {
            apply(c, DISK);
            continue;
        }
        if (c->from) c->from->stopped = 1;
        if (c->to) c->to->stopped = 1;
    }
}

static void cut_file(node *f, uint64_t *seed)
{
    unsigned keep = (unsigned)(draw(seed) % 5);
    if (f->size[CACHE] < f->size[DISK] && chance(seed, keep)) {
        f->size[DISK] = f->size[CACHE];
        memset(f->bytes[DISK] + f->size[DISK], 0, f->room - f->size[DISK]);
    }
    for (uint64_t p = 0; p < f->room / PIECE; p++)
        if (f->changed[p] && p * PIECE < f->size[CACHE] && chance(seed, keep))
            piece_to_disk(f, p, f->bytes[CACHE] + p * PIECE, f->size[CACHE]);
}

void disk_cut(disk *d, uint64_t *seed)
{
    cut_names(d, seed);
    for (node *n = d->all; n; n = n->next)
        if (!n->is_folder) cut_file(n, seed);
}
