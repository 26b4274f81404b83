/* A disk in memory, twice: as the running system sees it (CACHE), and as a power cut would leave it (DISK). */
#ifndef PD_FAULT_REBUILD_H
#define PD_FAULT_REBUILD_H

#include <stddef.h>
#include <stdint.h>

#include "fault.h"

enum { CACHE, DISK };
#define PIECE 4096u

typedef struct node node;
typedef struct names {
    struct {
        char *name;
        node *node;
    } * at;
    uint32_t count;
} names;

/* What a sync that has begun will have made durable when it ends. */
typedef struct syncing {
    uint64_t number, size;
    uint32_t npieces;
    uint64_t *pieces;
    unsigned char *bytes; /* [npieces][PIECE] */
    struct syncing *next;
} syncing;

struct node {
    int is_folder;
    names names[2];          /* of a folder */
    unsigned char *bytes[2]; /* of a file; both as long as room */
    uint64_t size[2], room;
    uint64_t *changed;   /* by piece: when it was last written, 0: it is on the disk as it is in the cache */
    unsigned char *lost; /* by piece: a sync of it failed, and it was not written since */
    uint64_t clock;
    int stopped; /* of a folder at the cut: nothing later is kept */
    syncing *syncs;
    node *next;
};

typedef struct disk disk;

/* Ends the program. */
void broken(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* The diary. next moves *at to the end of the entry, 0: there are no more. */
typedef struct diary {
    const unsigned char *bytes;
    uint64_t length;
} diary;
typedef struct diary_entry {
    pd_fault_entry head;
    char path[4096], other[4096];
    const unsigned char *data;
} diary_entry;
void diary_open(diary *d, const char *path);
int diary_next(const diary *d, uint64_t *at, diary_entry *entry);

disk *disk_make(void);
void disk_free(disk *d);
node *disk_root(disk *d);
node *node_make(disk *d, int is_folder);
void names_set(names *n, const char *name, node *child); /* NULL removes */
/* durable: with all that is in its pieces. chance (may be NULL) decides whether what it overwrites came to the disk before. */
void file_write(node *file, uint64_t offset, const void *bytes, size_t length, int durable, uint64_t *chance);

/* Everything in the diary up to a length of it; the write after that in part. syncs = 0: none of them made anything durable. seed:
 * of chance, here and in the cut. */
void disk_play(disk *d, const diary *book, uint64_t upto, int syncs, uint64_t *seed);
/* What is not durable comes or does not come to the disk. */
void disk_cut(disk *d, uint64_t *seed);

#endif
