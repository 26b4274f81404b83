/* Postings of a table that changes. The writer makes room while it stages, so that applying only appends.
 *
 * An array that is full is made anew, half as large again as what it must hold and without repeats: a slot can be in it as often as
 * its row's value went to and fro since then, so its length is bounded by the slots that held the value, whatever they did.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "postings.h"

static int mark(uint64_t *marks, uint32_t slot)
{
    uint64_t bit = UINT64_C(1) << slot % 64;
    int fresh = !(marks[slot / 64] & bit);
    marks[slot / 64] |= bit;
    return fresh;
}

/* Room for what is promised. The old array goes once nobody can read it. */
static pd_status more_room(pd_postings *p, pthread_rwlock_t *lock, pd_more *more, pd_error *err)
{
    uint64_t distinct = 0;
    if (more->count + more->promised <= more->room) return PD_OK;
    for (uint64_t i = 0; i < more->count; i++)
        distinct += (uint64_t)mark(p->marks, more->slots[i]);
    uint64_t least = distinct + more->promised, room = least + least / 2 + 2, at = 0;
    uint32_t *slots = malloc(room * sizeof *slots), *old = more->slots;
    for (uint64_t i = 0; i < more->count; i++) {
        uint32_t slot = old[i];
        uint64_t bit = UINT64_C(1) << slot % 64;
        if (slots && p->marks[slot / 64] & bit) slots[at++] = slot;
        p->marks[slot / 64] &= ~bit;
    }
    if (!slots) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the postings of changed rows");
    pthread_rwlock_wrlock(lock);
    more->slots = slots;
    more->count = at;
    more->room = room;
    pthread_rwlock_unlock(lock);
    free(old);
    return PD_OK;
}

/* ------------------------------------------------------------------------------------------------ keys --- */

const pd_fresh_key *pd_postings_fresh(const pd_key_postings *keys, uint64_t key)
{
    uint32_t at = pd_idmap_get(&keys->fresh_of, key);
    return at == PD_IDMAP_NONE ? NULL : &keys->fresh[at];
}

static int is_frequent(const pd_key_postings *keys, uint64_t key)
{
    uint32_t k = pd_idmap_get(&keys->numbers, key);
    return k != PD_IDMAP_NONE && keys->offsets[k] == keys->offsets[k + 1];
}

/* No row holds the key, and none is about to. */
static int is_over(const pd_key_postings *keys, const pd_fresh_key *fresh)
{
    uint32_t k = pd_idmap_get(&keys->numbers, fresh->key);
    return fresh->more.promised == 0 && (k == PD_IDMAP_NONE ? fresh->count : keys->counts[k]) == 0;
}

/* Room for so many keys more; those that are over go. */
static pd_status keys_room(pd_key_postings *keys, pthread_rwlock_t *lock, uint32_t n, pd_error *err)
{
    if (keys->nfresh + (uint64_t)n <= keys->fresh_room) return PD_OK;
    uint32_t left = 0;
    for (uint32_t i = 0; i < keys->nfresh; i++)
        left += !is_over(keys, &keys->fresh[i]);
    uint64_t room = (uint64_t)left + n + (left + n) / 2 + 16;
    pd_idmap map = {0};
    pd_fresh_key *fresh = room < UINT32_MAX ? malloc(room * sizeof *fresh) : NULL;
    if (!fresh || pd_idmap_open(&map, room, NULL)) {
        free(fresh);
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the keys of changed rows");
    }
    left = 0;
    for (uint32_t i = 0; i < keys->nfresh; i++) {
        if (is_over(keys, &keys->fresh[i])) continue;
        fresh[left] = keys->fresh[i];
        pd_idmap_set(&map, fresh[left].key, left);
        left++;
    }
    pd_idmap old_map = keys->fresh_of;
    pd_fresh_key *old = keys->fresh;
    uint32_t count = keys->nfresh;
    pthread_rwlock_wrlock(lock);
    keys->fresh_of = map;
    keys->fresh = fresh;
    keys->nfresh = left;
    keys->fresh_room = (uint32_t)room;
    pthread_rwlock_unlock(lock);
    for (uint32_t i = 0; i < count; i++)
        if (pd_idmap_get(&map, old[i].key) == PD_IDMAP_NONE) free(old[i].more.slots);
    pd_idmap_close(&old_map);
    free(old);
    return PD_OK;
}

/* An entry for every key that has a list. */
static pd_status make_keys(pd_key_postings *keys, pthread_rwlock_t *lock, const pd_cell *cells, uint32_t n,
                           pd_error *err)
{
    uint32_t unknown = 0;
    for (uint32_t i = 0; i < n; i++)
        unknown +=
            cells[i].word && !is_frequent(keys, cells[i].word) && !pd_postings_fresh(keys, cells[i].word);
    if (!unknown) return PD_OK;
    /* Keys that are over may go, those of these cells too: then all are unknown. */
    int enough = keys->nfresh + (uint64_t)unknown <= keys->fresh_room;
    pd_status status = keys_room(keys, lock, enough ? unknown : n, err);
    if (status) return status;
    pthread_rwlock_wrlock(lock);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t key = cells[i].word;
        if (!key || is_frequent(keys, key) || pd_postings_fresh(keys, key)) continue;
        keys->fresh[keys->nfresh] = (pd_fresh_key){.key = key};
        pd_idmap_set(&keys->fresh_of, key, keys->nfresh++);
    }
    pthread_rwlock_unlock(lock);
    return PD_OK;
}

/* ------------------------------------------------------------------------------------------------ promises --- */

typedef struct promise {
    pd_postings *p;
    pthread_rwlock_t *lock; /* NULL: the promise is counted, or taken back */
    int by;                 /* 1, -1 */
} promise;

static pd_status take_in(const promise *how, pd_more *more, int frequent, pd_error *err)
{
    if (how->lock) return frequent ? PD_OK : more_room(how->p, how->lock, more, err);
    more->promised += (uint64_t)(int64_t)how->by;
    return PD_OK;
}

/* Every array that rows with these cells may be put into. */
static pd_status visit(const promise *how, uint32_t i, const pd_cell *cells, uint32_t n, pd_error *err)
{
    pd_postings *p = how->p;
    const pd_attribute *attribute = &p->schema->attributes[i];
    pd_key_postings *keys = &p->keys[attribute->key_column];
    pd_status status = PD_OK;
    if (attribute->type == PD_NUMBER && !attribute->counts) {
        pd_more *moved = &p->moved[attribute->float_column];
        if (how->lock) return more_room(p, how->lock, moved, err);
        moved->promised += (uint64_t)((int64_t)how->by * (int64_t)n);
    }
    for (uint32_t k = 0; !status && k < n; k++) {
        uint64_t word = cells[k].word;
        if (attribute->type == PD_CATEGORY)
            status = take_in(how, &p->values[i][word].more, p->values[i][word].frequent, err);
        for (uint64_t m = attribute->type == PD_SET ? word : 0; !status && m; m &= m - 1) {
            pd_posting *list = &p->values[i][__builtin_ctzll(m)];
            status = take_in(how, &list->more, list->frequent, err);
        }
        uint32_t at = attribute->type == PD_KEY ? pd_idmap_get(&keys->fresh_of, word) : PD_IDMAP_NONE;
        if (at != PD_IDMAP_NONE) status = take_in(how, &keys->fresh[at].more, keys->fresh[at].frequent, err);
    }
    return status;
}

pd_status pd_postings_promise(pd_postings *p, pthread_rwlock_t *lock, uint32_t i, const pd_cell *cells,
                              uint32_t n, pd_error *err)
{
    const pd_attribute *attribute = &p->schema->attributes[i];
    uint32_t column = attribute->float_column;
    if (n == 0) return PD_OK;
    if (attribute->type == PD_KEY) {
        pd_status status = make_keys(&p->keys[attribute->key_column], lock, cells, n, err);
        if (status) return status;
    }
    if (attribute->type == PD_NUMBER && !attribute->counts && !p->moved_bits[column]) {
        p->moved_bits[column] = calloc((size_t)p->nslots / 64 + 1, sizeof(uint64_t));
        if (!p->moved_bits[column])
            return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the numbers of changed rows");
    }
    visit(&(promise){.p = p, .by = 1}, i, cells, n, NULL);
    pd_status status = visit(&(promise){.p = p, .lock = lock}, i, cells, n, err);
    if (status) pd_postings_release(p, i, cells, n);
    return status;
}

void pd_postings_release(pd_postings *p, uint32_t i, const pd_cell *cells, uint32_t n)
{
    visit(&(promise){.p = p, .by = -1}, i, cells, n, NULL);
}

/* ------------------------------------------------------------------------------------------------ changes --- */

static void drop(pd_more *more, int *frequent)
{
    *frequent = 1;
    free(more->slots);
    more->slots = NULL;
    more->count = more->room = 0;
}

/* One row more holds the value, of which there are now so many. */
static void append(const pd_postings *p, pd_more *more, int *frequent, uint64_t rows, uint32_t slot)
{
    if (*frequent) return;
    if (rows > p->frequent || more->count == more->room)
        drop(more, frequent);
    else
        more->slots[more->count++] = slot;
}

static void count_byte(pd_postings *p, uint32_t column, uint64_t value, int by)
{
    const pd_layout *layout = p->layout;
    uint32_t at = layout->weight_at[column],
             end = column + 1 < p->schema->nbytes ? layout->weight_at[column + 1] : layout->weights;
    if (at + value >= end) return;
    p->histograms[at + value] += (uint64_t)(int64_t)by;
    if (value >= p->used[column]) p->used[column] = (uint16_t)(value + 1);
}

static void count_word(pd_postings *p, const pd_attribute *attribute, uint64_t word, int by)
{
    for (uint32_t j = 0; attribute->type == PD_SET && j < 8; j++)
        count_byte(p, attribute->byte_column + j, word >> (8 * j) & 255, by);
    if (attribute->type == PD_CATEGORY || attribute->type == PD_NUMBER)
        count_byte(p, attribute->byte_column, word, by);
}

static void change_key(pd_postings *p, pd_key_postings *keys, uint64_t before, uint64_t now, int same,
                       uint32_t slot)
{
    for (int side = 0; side < 2; side++) {
        uint64_t key = side ? now : before;
        if (!key) continue;
        uint32_t k = pd_idmap_get(&keys->numbers, key), at = pd_idmap_get(&keys->fresh_of, key);
        uint64_t unlisted = 0, *count = k != PD_IDMAP_NONE    ? &keys->counts[k]
                                        : at != PD_IDMAP_NONE ? &keys->fresh[at].count
                                                              : &unlisted;
        *count += side ? 1 : UINT64_MAX;
        if (side && !same && at != PD_IDMAP_NONE)
            append(p, &keys->fresh[at].more, &keys->fresh[at].frequent, *count, slot);
    }
}

static void change_values(pd_postings *p, uint32_t i, const pd_cell *before, const pd_cell *now, int moved,
                          uint32_t slot)
{
    int set = p->schema->attributes[i].type == PD_SET;
    /* As sets of value numbers: of a category one. */
    for (uint64_t m = before ? before->word : 0, one = 1; before && (set ? m : one); m &= m - 1, one = 0)
        p->values[i][set ? (uint64_t)__builtin_ctzll(m) : m].count--;
    for (uint64_t m = now ? now->word : 0, one = 1; now && (set ? m : one); m &= m - 1, one = 0) {
        uint64_t value = set ? (uint64_t)__builtin_ctzll(m) : m;
        pd_posting *list = &p->values[i][value];
        list->count++;
        int held = before && !moved && (set ? before->word >> value & 1 : before->word == value);
        if (!held) append(p, &list->more, &list->frequent, list->count, slot);
    }
}

void pd_postings_change(pd_postings *p, uint32_t i, uint32_t from, const pd_cell *before, uint32_t to,
                        const pd_cell *now)
{
    const pd_attribute *attribute = &p->schema->attributes[i];
    int moved = !before || !now || from != to;
    if (before) count_word(p, attribute, before->word, -1);
    if (now) count_word(p, attribute, now->word, 1);
    if (attribute->type == PD_KEY) {
        uint64_t was = before ? before->word : 0, is = now ? now->word : 0;
        change_key(p, &p->keys[attribute->key_column], was, is, !moved && was == is, to);
    } else if (attribute->type != PD_NUMBER) {
        change_values(p, i, before, now, moved, to);
    } else if (now && !attribute->counts && !isnan(now->number)) {
        uint32_t column = attribute->float_column;
        pd_more *list = &p->moved[column];
        if ((moved || before->number != now->number) && mark(p->moved_bits[column], to))
            list->slots[list->count++] = to;
    }
}

/* ------------------------------------------------------------------------------------------------ the rest --- */

void pd_postings_close_changes(pd_postings *p)
{
    for (uint32_t i = 0; p->schema && i < p->schema->nattributes; i++) {
        uint32_t places = p->schema->attributes[i].type == PD_CATEGORY ? 256 : PD_MAX_MEMBERS;
        for (uint32_t v = 0; p->values[i] && v < places; v++)
            free(p->values[i][v].more.slots);
    }
    for (uint32_t c = 0; c < PD_MAX_KEYS; c++) {
        pd_key_postings *keys = &p->keys[c];
        for (uint32_t k = 0; k < keys->nfresh; k++)
            free(keys->fresh[k].more.slots);
        free(keys->fresh);
        pd_idmap_close(&keys->fresh_of);
    }
    for (uint32_t c = 0; c < PD_MAX_FLOATS; c++) {
        free(p->moved[c].slots);
        free(p->moved_bits[c]);
    }
}

uint64_t pd_postings_changes_memory(const pd_postings *p)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < p->schema->nattributes; i++) {
        uint32_t places = p->schema->attributes[i].type == PD_CATEGORY ? 256 : PD_MAX_MEMBERS;
        for (uint32_t v = 0; p->values[i] && v < places; v++)
            bytes += p->values[i][v].more.room * sizeof(uint32_t);
    }
    for (uint32_t c = 0; c < p->schema->nkeys; c++) {
        const pd_key_postings *keys = &p->keys[c];
        bytes += keys->fresh_room * sizeof *keys->fresh + pd_idmap_memory(&keys->fresh_of);
        for (uint32_t k = 0; k < keys->nfresh; k++)
            bytes += keys->fresh[k].more.room * sizeof(uint32_t);
    }
    for (uint32_t c = 0; c < p->schema->nfloats; c++)
        bytes += p->moved[c].room * sizeof(uint32_t) + (p->moved_bits[c] ? p->nslots / 8 : 0);
    return bytes;
}
