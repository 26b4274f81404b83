/* Linear probing at a load of at most 5/8; the place of a key is the high half of hash * capacity (Lemire's fast
 * range), which needs no power of two. */
#include "idmap.h"

#include <stdlib.h>
#include <string.h>

static uint64_t home_of(const pd_idmap *map, uint64_t key)
{
    /* The finaliser of splitmix64: ids that count up must not pile up. */
    key = (key ^ (key >> 30)) * 0xbf58476d1ce4e5b9ull;
    key = (key ^ (key >> 27)) * 0x94d049bb133111ebull;
    key ^= key >> 31;
    return (uint64_t)(((unsigned __int128)key * map->capacity) >> 64);
}

pd_status pd_idmap_open(pd_idmap *map, uint64_t rows, pd_error *err)
{
    memset(map, 0, sizeof *map);
    uint64_t capacity = rows + rows / 5 * 3 + 16;
    map->keys = malloc(capacity * sizeof *map->keys);
    map->values = malloc(capacity * sizeof *map->values);
    if (!map->keys || !map->values) {
        pd_idmap_close(map);
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a map of %llu ids",
                       (unsigned long long)rows);
    }
    memset(map->values, 0xff, capacity * sizeof *map->values);
    map->capacity = capacity;
    return PD_OK;
}

void pd_idmap_close(pd_idmap *map)
{
    free(map->keys);
    free(map->values);
    memset(map, 0, sizeof *map);
}

void pd_idmap_prefetch(const pd_idmap *map, uint64_t key)
{
    uint64_t at = home_of(map, key);
    __builtin_prefetch(&map->values[at], 1);
    __builtin_prefetch(&map->keys[at], 1);
}

uint32_t pd_idmap_put(pd_idmap *map, uint64_t key, uint32_t value)
{
    uint64_t at = home_of(map, key);
    while (map->values[at] != PD_IDMAP_NONE) {
        if (map->keys[at] == key) return map->values[at];
        if (++at == map->capacity) at = 0;
    }
    map->keys[at] = key;
    map->values[at] = value;
    map->count++;
    return PD_IDMAP_NONE;
}

uint32_t pd_idmap_get(const pd_idmap *map, uint64_t key)
{
    if (map->count == 0) return PD_IDMAP_NONE;
    uint64_t at = home_of(map, key);
    while (map->values[at] != PD_IDMAP_NONE) {
        if (map->keys[at] == key) return map->values[at];
        if (++at == map->capacity) at = 0;
    }
    return PD_IDMAP_NONE;
}

uint64_t pd_idmap_memory(const pd_idmap *map)
{
    return map->capacity * (sizeof *map->keys + sizeof *map->values);
}
