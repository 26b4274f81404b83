/* Memory that is freed as a whole: what a profile or a compiled request points into. Zeroed, aligned to 16 bytes. */
#ifndef PD_ARENA_H
#define PD_ARENA_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PD_ARENA_CHUNK ((size_t)8192)

typedef struct pd_arena_chunk {
    struct pd_arena_chunk *next;
    size_t used, room; /* bytes behind this header */
    max_align_t start[];
} pd_arena_chunk;

typedef struct pd_arena {
    pd_arena_chunk *chunks; /* the one in use first */
} pd_arena;

/* NULL: no memory. size 0 gives a pointer too. */
static inline void *pd_arena_take(pd_arena *arena, size_t size)
{
    if (size > SIZE_MAX / 2) return NULL;
    size = (size + 15) & ~(size_t)15;
    pd_arena_chunk *chunk = arena->chunks;
    if (!chunk || chunk->room - chunk->used < size) {
        size_t room = size > PD_ARENA_CHUNK ? size : PD_ARENA_CHUNK;
        chunk = malloc(sizeof *chunk + room);
        if (!chunk) return NULL;
        chunk->next = arena->chunks;
        chunk->used = 0;
        chunk->room = room;
        arena->chunks = chunk;
    }
    void *memory = (char *)chunk->start + chunk->used;
    chunk->used += size;
    return memset(memory, 0, size);
}

static inline char *pd_arena_text(pd_arena *arena, const char *text, size_t length)
{
    char *copy = pd_arena_take(arena, length + 1);
    if (copy && length) memcpy(copy, text, length);
    return copy;
}

static inline void pd_arena_free(pd_arena *arena)
{
    while (arena->chunks) {
        pd_arena_chunk *next = arena->chunks->next;
        free(arena->chunks);
        arena->chunks = next;
    }
}

#endif
