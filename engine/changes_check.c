/* Is the file what LMDB will take it for?
 *
 * LMDB follows page numbers and lengths in its map without looking whether they can be right: a flipped bit in a branch page is a
 * fault of the process, not an error. So a start walks all pages that the newest meta page leads to, with pread and with every
 * number compared before it is used: pages carry their own number, are used once (free ones included), nodes lie inside
 * their page, keys ascend, counts are those that the tree's root says, small sealed values fit their keys. Records have checksums of
 * their own and are not looked at here.
 *
 * The layout is LMDB's data version 1, on a 64-bit little-endian machine (mdb.c describes it):
 *
 *     page    0 number u64, 10 flags u16, then 12 lower u16, 14 upper u16 or, of overflow, 12 pages u32; 16 offsets of nodes, u16
 *     meta    16 magic u32, 20 version u32, 32 map u64, 40 tree of free pages, 88 tree of names, 136 last page u64, 144 txnid u64
 *     tree    0 page size u32 (of the first), 4 flags u16, 6 depth u16, 8 branch, 16 leaf, 24 overflow pages, 32 entries, 40 root, u64
 *     node    0 and 2 low halves of length (leaf) or page (branch), 4 flags u16 or bits 32 to 47 of the page, 6 key bytes u16, 8 key, value
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "changes_impl.h"

#define MAGIC        0xBEEFC0DEu
#define VERSION      1u
#define PAGE_HEAD    16u
#define NODE_HEAD    8u
#define NONE         UINT64_MAX /* the root of an empty tree */
#define DEPTH        32u        /* LMDB's CURSOR_STACK */
#define KEY_MOST     511u
#define F_BRANCH     0x01u
#define F_LEAF       0x02u
#define F_OVERFLOW   0x04u
#define F_META       0x08u
#define NODE_BIG     0x01u
#define NODE_TREE    0x02u
#define INTEGER_KEYS 0x08u

typedef struct tree {
    uint16_t flags, depth;
    uint64_t branch, leaf, overflow, entries, root;
} tree;

typedef struct walk {
    const char *file;
    int fd;
    uint32_t page_size;
    uint64_t pages;      /* of the file that are in use: last page + 1 */
    unsigned char *used; /* a bit for each */
    unsigned char *page; /* [DEPTH + 1][page_size]: the way from the root */
    tree named[PD_DBS];  /* met in the tree of names */
    uint32_t nnamed;
    pd_error *err;
} walk;

typedef enum tree_kind { TREE_FREE, TREE_NAMES, TREE_SEALED, TREE_PLAIN } tree_kind;

/* A tree being walked. */
typedef struct tour {
    tree want, seen;
    tree_kind kind;
    int any; /* there was a key */
    size_t nlast;
    unsigned char last[KEY_MOST];
} tour;

static uint16_t u16(const unsigned char *at)
{
    uint16_t v;
    memcpy(&v, at, sizeof v);
    return v;
}
static uint32_t u32(const unsigned char *at)
{
    uint32_t v;
    memcpy(&v, at, sizeof v);
    return v;
}
static uint64_t u64(const unsigned char *at)
{
    uint64_t v;
    memcpy(&v, at, sizeof v);
    return v;
}

static pd_status wrong(const walk *w, uint64_t page, const char *what)
{
    return pd_fail(w->err, PD_DATA_LOSS, "%s: the page at byte %llu is damaged: %s", w->file,
                   (unsigned long long)(page * w->page_size), what);
}

static tree tree_of(const unsigned char *at)
{
    return (tree){u16(at + 4),  u16(at + 6),  u64(at + 8), u64(at + 16),
                  u64(at + 24), u64(at + 32), u64(at + 40)};
}

/* Marks n pages from the first as used. */
static pd_status use(walk *w, uint64_t first, uint64_t n, uint64_t by)
{
    if (first < 2 || first >= w->pages || n > w->pages - first)
        return wrong(w, by, "it leads to a page that is not in the file");
    for (uint64_t p = first; p < first + n; p++) {
        if (w->used[p / 8] & 1u << p % 8) return wrong(w, by, "it leads to a page that is in use elsewhere");
        w->used[p / 8] |= (unsigned char)(1u << p % 8);
    }
    return PD_OK;
}

static pd_status read_page(const walk *w, uint64_t number, unsigned char *into)
{
    return pd_file_read_at(w->fd, w->file, number * w->page_size, w->page_size, into, w->err);
}

/* ------------------------------------------------------------------------------------------------- a node --- */

static int integer_compare(const unsigned char *a, const unsigned char *b)
{
    return (u64(a) > u64(b)) - (u64(a) < u64(b));
}

static pd_status key_ascends(walk *w, tour *t, uint64_t number, const unsigned char *key, size_t n)
{
    int integers = t->kind == TREE_FREE || (t->want.flags & INTEGER_KEYS);
    if (!n || n > KEY_MOST || (integers && n != 8)) return wrong(w, number, "a key has an impossible length");
    if (t->any) {
        int order;
        if (integers) {
            order = integer_compare(t->last, key);
        } else {
            order = memcmp(t->last, key, t->nlast < n ? t->nlast : n);
            if (!order) order = (t->nlast > n) - (t->nlast < n);
        }
        if (order >= 0) return wrong(w, number, "its keys are out of order");
    }
    t->any = 1;
    t->nlast = n;
    memcpy(t->last, key, n);
    return PD_OK;
}

/* A value of free pages: how many, then their numbers, falling. */
static pd_status free_pages(walk *w, uint64_t number, const unsigned char *value, uint64_t length)
{
    if (length < 8 || u64(value) > length / 8 - 1)
        return wrong(w, number, "its list of free pages has an impossible length");
    pd_status status = PD_OK;
    for (uint64_t i = 1; !status && i <= u64(value); i++)
        status = use(w, u64(value + 8 * i), 1, number);
    return status;
}

/* The pages of a value that has its own. */
static pd_status overflow_value(walk *w, tour *t, uint64_t number, uint64_t first, uint64_t length)
{
    unsigned char head[PAGE_HEAD];
    uint64_t n = (PAGE_HEAD + length + w->page_size - 1) / w->page_size;
    pd_status status = use(w, first, n, number);
    if (!status) status = pd_file_read_at(w->fd, w->file, first * w->page_size, PAGE_HEAD, head, w->err);
    if (status) return status;
    /* A value that was made shorter keeps its pages. */
    uint64_t has = u32(head + 12);
    if (u64(head) != first || u16(head + 10) != F_OVERFLOW || has < n)
        return wrong(w, first, "it is not the value that a leaf says");
    if (has > n) status = use(w, first + n, has - n, first);
    t->seen.overflow += has;
    if (status || t->kind != TREE_FREE) return status;
    unsigned char *list = malloc(length);
    if (!list) return pd_fail(w->err, PD_RESOURCE_EXHAUSTED, "no memory to check %s", w->file);
    status = pd_file_read_at(w->fd, w->file, first * w->page_size + PAGE_HEAD, length, list, w->err);
    if (!status) status = free_pages(w, first, list, length);
    free(list);
    return status;
}

static pd_status named_tree(walk *w, uint64_t number, const unsigned char *node, uint16_t flags,
                            uint64_t length)
{
    const char *name = (const char *)node + NODE_HEAD;
    size_t n = u16(node + 6);
    for (uint32_t i = 0; flags == NODE_TREE && length == 48 && i < PD_DBS; i++) {
        const pd_database *db = &pd_databases[i];
        if (strlen(db->name) != n || memcmp(db->name, name, n)) continue;
        w->named[i] = tree_of(node + NODE_HEAD + n);
        w->nnamed++;
        if (w->named[i].flags == db->flags) return PD_OK;
    }
    return wrong(w, number, "a name leads to no tree of a log");
}

static pd_status leaf_node(walk *w, tour *t, uint64_t number, const unsigned char *node, size_t room)
{
    size_t nkey = u16(node + 6);
    uint64_t length = u16(node) | (uint64_t)u16(node + 2) << 16;
    uint16_t flags = u16(node + 4);
    uint64_t here = flags & NODE_BIG ? 8 : length;
    if (NODE_HEAD + nkey > room || here > room - NODE_HEAD - nkey)
        return wrong(w, number, "a node passes its end");
    const unsigned char *value = node + NODE_HEAD + nkey;
    pd_status status = key_ascends(w, t, number, node + NODE_HEAD, nkey);
    t->seen.entries++;
    if (status) return status;
    if (t->kind == TREE_NAMES) return named_tree(w, number, node, flags, length);
    if (flags & ~NODE_BIG) return wrong(w, number, "a node is of an unknown kind");
    if (flags & NODE_BIG) return overflow_value(w, t, number, u64(value), length);
    MDB_val sealed = {length, (void *)(uintptr_t)value}, key = {nkey, (void *)(uintptr_t)(node + NODE_HEAD)};
    if (t->kind == TREE_SEALED && !pd_seal_fits(&key, &sealed))
        return wrong(w, number, "a checksum does not fit");
    return t->kind == TREE_FREE ? free_pages(w, number, value, length) : PD_OK;
}

/* ------------------------------------------------------------------------------------------------- a tree --- */

/* The page at a depth (1: the root), and all below it. */
static pd_status visit_page(walk *w, tour *t, uint64_t number, uint64_t by, uint32_t depth)
{
    unsigned char *page = w->page + (size_t)depth * w->page_size;
    pd_status status = use(w, number, 1, by);
    if (!status) status = read_page(w, number, page);
    if (status) return status;
    uint16_t want = depth == t->want.depth ? F_LEAF : F_BRANCH;
    if (u64(page) != number || u16(page + 10) != want)
        return wrong(w, number, "it is not the page that leads here");
    uint32_t lower = u16(page + 12), upper = u16(page + 14);
    if (lower < PAGE_HEAD || lower % 2 || lower > upper || upper > w->page_size)
        return wrong(w, number, "its bounds are impossible");
    uint32_t n = (lower - PAGE_HEAD) / 2;
    if (want == F_LEAF)
        t->seen.leaf++;
    else
        t->seen.branch++;
    for (uint32_t i = 0; !status && i < n; i++) {
        uint32_t at = u16(page + PAGE_HEAD + 2 * i);
        if (at < upper || at + NODE_HEAD > w->page_size || at % 2)
            return wrong(w, number, "a node lies outside of it");
        const unsigned char *node = page + at;
        if (want == F_LEAF) {
            status = leaf_node(w, t, number, node, w->page_size - at);
            continue;
        }
        /* The first key of a branch page is not used. */
        size_t nkey = u16(node + 6);
        if (NODE_HEAD + nkey > w->page_size - at) return wrong(w, number, "a node passes its end");
        uint64_t below = u16(node) | (uint64_t)u16(node + 2) << 16 | (uint64_t)u16(node + 4) << 32;
        status = visit_page(w, t, below, number, depth + 1);
    }
    return status;
}

static pd_status visit_tree(walk *w, const tree *want, tree_kind kind, uint64_t by)
{
    tour t = {.want = *want, .kind = kind};
    if (want->root == NONE) return want->depth || want->entries ? wrong(w, by, "a tree has no root") : PD_OK;
    if (!want->depth || want->depth > DEPTH) return wrong(w, by, "a tree has an impossible depth");
    pd_status status = visit_page(w, &t, want->root, by, 1);
    if (!status && (t.seen.branch != want->branch || t.seen.leaf != want->leaf ||
                    t.seen.overflow != want->overflow || t.seen.entries != want->entries))
        status = wrong(w, by, "a tree holds something else than its root says");
    return status;
}

/* ------------------------------------------------------------------------------------------------ the file --- */

/* The newest of the two meta pages, into meta: [4096] at most. */
static pd_status newest_meta(walk *w, uint64_t size, unsigned char *meta)
{
    unsigned char both[2][256];
    pd_status status = pd_file_read_at(w->fd, w->file, 0, sizeof both[0], both[0], w->err);
    if (status) return status;
    w->page_size = u32(both[0] + 40);
    if (w->page_size < 512 || w->page_size > 65536 || (w->page_size & (w->page_size - 1))) {
        w->page_size = 0;
        return wrong(w, 0, "it is not the first of a log");
    }
    if (size < 2u * w->page_size)
        return pd_fail(w->err, PD_DATA_LOSS, "%s is cut off in its first pages", w->file);
    status = pd_file_read_at(w->fd, w->file, w->page_size, sizeof both[1], both[1], w->err);
    if (status) return status;
    for (uint64_t i = 0; i < 2; i++) {
        const unsigned char *m = both[i];
        if (u64(m) != i || u16(m + 10) != F_META || u32(m + 16) != MAGIC || u32(m + 20) != VERSION ||
            u32(m + 40) != w->page_size)
            return wrong(w, i, "it is not the meta page of a log");
        /* Transaction n is in page n % 2; a new file has 0 in both. */
        uint64_t txnid = u64(m + 144);
        if (txnid && txnid % 2 != i) return wrong(w, i, "its transaction belongs to the other one");
    }
    /* Each commit writes one of them, so a number that is not the other's neighbour is not LMDB's. */
    uint64_t a = u64(both[0] + 144), b = u64(both[1] + 144);
    if ((a || b) && a + 1 != b && b + 1 != a)
        return wrong(w, b > a, "its transaction does not follow the other one");
    memcpy(meta, both[u64(both[1] + 144) > u64(both[0] + 144)], sizeof both[0]);
    return PD_OK;
}

static pd_status check_open(walk *w, uint64_t size)
{
    unsigned char meta[256] = {0};
    pd_status status = newest_meta(w, size, meta);
    if (status) return status;
    uint64_t at = u64(meta);
    w->pages = u64(meta + 136) + 1;
    if (!w->pages || w->pages < 2 || w->pages > size / w->page_size)
        return wrong(w, at, "it says that the file is longer than it is");
    w->used = calloc(w->pages / 8 + 1, 1);
    w->page = malloc((size_t)(DEPTH + 1) * w->page_size);
    if (!w->used || !w->page) return pd_fail(w->err, PD_RESOURCE_EXHAUSTED, "no memory to check %s", w->file);
    tree free_tree = tree_of(meta + 40), name_tree = tree_of(meta + 88);
    status = visit_tree(w, &free_tree, TREE_FREE, at);
    if (!status) status = visit_tree(w, &name_tree, TREE_NAMES, at);
    if (!status && w->nnamed && w->nnamed != PD_DBS)
        status = wrong(w, name_tree.root, "a tree's name is missing");
    for (uint32_t i = 0; !status && w->nnamed && i < PD_DBS; i++)
        status =
            visit_tree(w, &w->named[i], pd_databases[i].sealed ? TREE_SEALED : TREE_PLAIN, name_tree.root);
    return status;
}

pd_status pd_changes_check(const char *file, pd_error *err)
{
    pd_error unread = {0};
    walk w = {.file = file, .err = err ? err : &unread};
    struct stat about;
    w.fd = open(file, O_RDONLY | O_CLOEXEC);
    if (w.fd < 0) return errno == ENOENT ? PD_OK : pd_fail_errno(w.err, "open", file);
    pd_status status = PD_OK;
    if (fstat(w.fd, &about) != 0)
        status = pd_fail_errno(w.err, "look at", file);
    else if (about.st_size)
        status = check_open(&w, (uint64_t)about.st_size);
    free(w.used);
    free(w.page);
    close(w.fd);
    return status;
}

/* ------------------------------------------------------------------------------------------------ settling --- */

pd_status pd_changes_settle(const char *file, pd_error *err)
{
    int fd = open(file, O_RDWR | O_CLOEXEC);
    if (fd < 0) return errno == ENOENT ? PD_OK : pd_fail_errno(err, "open", file);
    pd_status status = PD_OK;
    struct stat about;
    unsigned char head[48], *page = NULL;
    if (fstat(fd, &about) != 0) {
        status = pd_fail_errno(err, "look at", file);
        goto out;
    }
    if ((size_t)about.st_size < sizeof head) goto out; /* new, or the check's to refuse */
    status = pd_file_read_at(fd, file, 0, sizeof head, head, err);
    uint32_t size = u32(head + 40);
    if (status || size < 512 || size > 65536 || about.st_size < 2 * (off_t)size) goto out;
    page = malloc(2 * (size_t)size);
    if (!page) {
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to open %s", file);
        goto out;
    }
    status = pd_file_read_at(fd, file, 0, 2 * (size_t)size, page, err);
    if (status) goto out;
    errno = EIO; /* what a write that is cut short means */
    if (pwrite(fd, page, 2 * (size_t)size, 0) != 2 * (ssize_t)size || fdatasync(fd) != 0)
        status = pd_fail(err, errno == ENOSPC ? PD_RESOURCE_EXHAUSTED : PD_UNAVAILABLE,
                         "cannot write to %s: %s", file, strerror(errno));
out:
    free(page);
    close(fd);
    return status;
}
