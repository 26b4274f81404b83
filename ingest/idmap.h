/* Row id to slot (or row number): open addressing, 12 bytes an entry, at most 20 bytes a row.
 *
 * Keys and values lie in arrays of their own, so that a key takes 8 bytes and not 16 with padding; the capacity is no
 * power of two, so that it follows the rows closely.
 */
#ifndef PD_IDMAP_H
#define PD_IDMAP_H

#include <stdint.h>

#include "status.h"

#define PD_IDMAP_NONE UINT32_MAX

typedef struct pd_idmap {
    uint64_t capacity, count;
    uint64_t room; /* entries it may hold; more would make it slow */
    uint64_t *keys;
    uint32_t *values; /* PD_IDMAP_NONE: free */
} pd_idmap;

/* Room for rows entries. RESOURCE_EXHAUSTED. */
pd_status pd_idmap_open(pd_idmap *map, uint64_t rows, pd_error *err);
void pd_idmap_close(pd_idmap *map); /* a zeroed one is allowed */
/* Puts a pair. Returns the value the key has already (which stays), or PD_IDMAP_NONE when it was put. The caller puts no more
 * than it made room for. */
uint32_t pd_idmap_put(pd_idmap *map, uint64_t key, uint32_t value);
uint32_t pd_idmap_get(const pd_idmap *map, uint64_t key); /* PD_IDMAP_NONE: not there */
/* Asks the processor for where a key's search begins, for a put or get that comes soon. */
void pd_idmap_prefetch(const pd_idmap *map, uint64_t key);
/* Puts a pair, or gives a key that is there another value. Room as for put. */
void pd_idmap_set(pd_idmap *map, uint64_t key, uint32_t value);
void pd_idmap_remove(pd_idmap *map, uint64_t key); /* one that is not there: nothing */
void pd_idmap_clear(pd_idmap *map);
/* The same pairs with room for rows entries, in a map of its own. RESOURCE_EXHAUSTED. */
pd_status pd_idmap_copy(const pd_idmap *map, uint64_t rows, pd_idmap *out, pd_error *err);
uint64_t pd_idmap_memory(const pd_idmap *map);

#endif
