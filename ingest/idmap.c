/* Linear probing at a load of 5/8 when it is opened and at most 3/4 later; the place of a key is the high half of hash * capacity
 * (Lemire's fast range), which needs no power of two. What is removed leaves no mark, nor its key: the entries behind it move up,
 * so that a map whose ids come and go stays as fast as it was. */
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
    map->room = capacity - capacity / 4;
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

void pd_idmap_set(pd_idmap *map, uint64_t key, uint32_t value)
{
    uint64_t at = home_of(map, key);
    while (map->values[at] != PD_IDMAP_NONE && map->keys[at] != key)
        if (++at == map->capacity) at = 0;
    map->count += map->values[at] == PD_IDMAP_NONE;
    map->keys[at] = key;
    map->values[at] = value;
}

/* Steps from a place on to another, around the end. */
static uint64_t steps(const pd_idmap *map, uint64_t from, uint64_t to)
{
    return to >= from ? to - from : to + map->capacity - from;
}

void pd_idmap_remove(pd_idmap *map, uint64_t key)
{
    if (map->count == 0) return;
    uint64_t hole = home_of(map, key);
    while (map->values[hole] != PD_IDMAP_NONE && map->keys[hole] != key)
        if (++hole == map->capacity) hole = 0;
    if (map->values[hole] == PD_IDMAP_NONE) return;
    map->count--;
    for (uint64_t at = hole;;) {
        if (++at == map->capacity) at = 0;
        if (map->values[at] == PD_IDMAP_NONE) break;
        /* What lies at its home or between it and here cannot move before its home. */
        if (steps(map, home_of(map, map->keys[at]), at) < steps(map, hole, at)) continue;
        map->keys[hole] = map->keys[at];
        map->values[hole] = map->values[at];
        hole = at;
    }
    map->keys[hole] = 0;
    map->values[hole] = PD_IDMAP_NONE;
}

void pd_idmap_clear(pd_idmap *map)
{
    if (map->count == 0) return;
    memset(map->keys, 0, map->capacity * sizeof *map->keys);
    memset(map->values, 0xff, map->capacity * sizeof *map->values);
    map->count = 0;
}

pd_status pd_idmap_copy(const pd_idmap *map, uint64_t rows, pd_idmap *out, pd_error *err)
{
    pd_status status = pd_idmap_open(out, rows, err);
    for (uint64_t at = 0; !status && at < map->capacity; at++)
        if (map->values[at] != PD_IDMAP_NONE) pd_idmap_put(out, map->keys[at], map->values[at]);
    return status;
}

uint64_t pd_idmap_memory(const pd_idmap *map)
{
    return map->capacity * (sizeof *map->keys + sizeof *map->values);
}
