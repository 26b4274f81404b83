/* Staging: everything that applying a change needs is taken here, so that what is logged cannot fail to be applied.
 *
 * Nothing that a search can see changes: maps and arrays may grow, which says the same in more room. The writer sees a table in which what
 * was staged before has happened: staged_ids and staged_slots say how it differs from what is there. They are emptied when nothing is
 * left to apply.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "live_impl.h"

/* ------------------------------------------------------------------------------------------------ as staged --- */

static uint32_t staged_slot(const pd_resident *r, uint64_t id)
{
    uint32_t slot = pd_idmap_get(&r->staged_ids, id);
    if (slot == PD_ID_GONE) return PD_NO_SLOT;
    /* Only the executor changes it, under staging too. */
    return slot != PD_IDMAP_NONE ? slot : pd_idmap_get(&r->slots, id);
}

uint32_t pd_resident_staged_slot(const pd_resident *r, uint64_t id)
{
    pthread_mutex_lock((pthread_mutex_t *)&r->staging);
    uint32_t slot = staged_slot(r, id);
    pthread_mutex_unlock((pthread_mutex_t *)&r->staging);
    return slot;
}

uint32_t pd_live_counter_of(const pd_resident *r, uint32_t attribute)
{
    for (uint32_t c = 0; c < r->ncounters; c++)
        if (r->counted[c] == attribute) return c;
    return PD_MAX_FLOATS;
}

static double staged_counter(const pd_resident *r, uint32_t c, uint32_t slot)
{
    uint32_t at = pd_idmap_get(&r->staged_slots, slot);
    return at != PD_IDMAP_NONE ? r->staged_counters[(size_t)at * r->ncounters + c] : r->counters[c][slot];
}

double pd_resident_counter(const pd_resident *r, const pd_attribute *attribute, uint32_t slot)
{
    uint32_t c = pd_live_counter_of(r, (uint32_t)(attribute - r->info->schema->attributes));
    if (c == PD_MAX_FLOATS) return -INFINITY;
    pthread_mutex_lock((pthread_mutex_t *)&r->staging);
    double counter = staged_counter(r, c, slot);
    pthread_mutex_unlock((pthread_mutex_t *)&r->staging);
    return counter;
}

/* Small changes do not clear what a large one needed. */
static void empty_map(pd_idmap *map)
{
    if (map->capacity > 16 * map->count + 8192)
        pd_idmap_close(map);
    else
        pd_idmap_clear(map);
}

void pd_live_settle(pd_resident *r)
{
    if (r->nstaged) return;
    empty_map(&r->staged_ids);
    empty_map(&r->staged_slots);
}

/* ------------------------------------------------------------------------------------------------ memory --- */

/* One block; *at moves on. base NULL: only counts. */
static void *carve(unsigned char *base, size_t *at, size_t bytes)
{
    void *out = base ? base + *at : NULL;
    *at += (bytes + 15) / 16 * 16;
    return out;
}

/* The page columns of an attribute. */
static uint32_t columns_of(const pd_attribute *a)
{
    return a->type == PD_SET ? 8 : a->type == PD_NUMBER ? 2 : 1;
}

static size_t carve_all(const pd_resident *r, const pd_change *change, pd_staged *s, unsigned char *base)
{
    const pd_schema *schema = r->info->schema;
    size_t at = 0, n = change->n;
    s->rows = carve(base, &at, n * sizeof *s->rows);
    s->slots = carve(base, &at, n * sizeof *s->slots);
    s->olds = carve(base, &at, n * sizeof *s->olds);
    s->pages = carve(base, &at, n * sizeof *s->pages);
    s->lists = carve(base, &at, n * sizeof *s->lists);
    s->were = carve(base, &at, n * sizeof *s->were);
    s->was.bytes = carve(base, &at, n * schema->nbytes);
    s->was.floats = carve(base, &at, n * schema->nfloats * sizeof(float));
    s->was.keys = carve(base, &at, n * schema->nkeys * sizeof(uint64_t));
    s->cells = carve(base, &at, n * schema->nattributes * sizeof *s->cells);
    s->counters = carve(base, &at, n * r->ncounters * sizeof(double));
    uint32_t writes = 0, words = 0;
    for (uint32_t i = 0; i < schema->nattributes; i++) {
        const pd_attribute *a = &schema->attributes[i];
        writes += columns_of(a);
        words += a->type == PD_NUMBER ? 2 : 1; /* u64 hold any column's values, a set's eight */
    }
    s->writes = carve(base, &at, writes * sizeof *s->writes);
    unsigned char *values = carve(base, &at, n * words * sizeof(uint64_t));
    for (uint32_t w = 0; base && w < words; w++)
        s->writes[w].values = values + w * n * sizeof(uint64_t);
    return at;
}

static pd_staged *open_staged(const pd_resident *r, const pd_change *change, const pd_encoded *encoded)
{
    pd_staged *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    size_t bytes = carve_all(r, change, s, NULL);
    s->memory = malloc(bytes + 16);
    if (!s->memory) {
        free(s);
        return NULL;
    }
    carve_all(r, change, s, s->memory);
    s->change = change;
    s->encoded = encoded;
    return s;
}

static void close_staged(pd_staged *s)
{
    free(s->memory);
    free(s);
}

/* A map that holds so many more. */
static pd_status map_room(pd_idmap *map, uint64_t more, pthread_rwlock_t *lock, pd_error *err)
{
    pd_idmap grown;
    if (map->capacity && map->count + more <= map->room) return PD_OK;
    pd_status status = pd_idmap_copy(map, map->count + more, &grown, err);
    if (status) return status;
    pd_idmap old = *map;
    if (lock) pthread_rwlock_wrlock(lock);
    *map = grown;
    if (lock) pthread_rwlock_unlock(lock);
    pd_idmap_close(&old);
    return PD_OK;
}

static pd_status counters_room(pd_resident *r, uint32_t n, pd_error *err)
{
    if (!r->ncounters) return PD_OK;
    uint64_t need = r->staged_slots.count + n;
    if (need > r->staged_room) {
        double *counters = realloc(r->staged_counters, 2 * need * r->ncounters * sizeof *counters);
        if (!counters) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u counters", n);
        r->staged_counters = counters;
        r->staged_room = (uint32_t)(2 * need);
    }
    return map_room(&r->staged_slots, n, NULL, err);
}

static pd_status refs_room(pd_resident *r, const pd_staged *s, pd_error *err)
{
    for (uint32_t k = 0; k < s->n; k++) {
        uint64_t **at = &r->refs[s->slots[k] / PD_PAGE_ROWS];
        if (*at) continue; /* the writer's own */
        uint64_t *refs = calloc(PD_PAGE_ROWS, sizeof *refs);
        if (!refs) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the sources of %u rows", s->n);
        __atomic_store_n(at, refs, __ATOMIC_RELEASE);
    }
    return PD_OK;
}

static pd_status take_room(pd_resident *r, const pd_staged *s, pd_error *err)
{
    pd_status status = map_room(&r->staged_ids, s->n, NULL, err);
    if (!status) status = counters_room(r, s->n, err);
    if (!status) status = map_room(&r->slots, r->staged_fresh + s->fresh, &r->lock, err);
    if (!status && s->change->kind == PD_CHANGE_UPSERT) status = refs_room(r, s, err);
    uint32_t i = 0;
    for (; !status && i < r->info->schema->nattributes; i++)
        if (s->touched >> i & 1)
            status = pd_postings_promise(&r->postings, &r->lock, i, s->cells + (size_t)i * s->n, s->n, err);
    if (!status) return PD_OK;
    /* The last one has made no promise. */
    for (i = i ? i - 1 : 0; i-- > 0;)
        if (s->touched >> i & 1) pd_postings_release(&r->postings, i, s->cells + (size_t)i * s->n, s->n);
    return status;
}

/* ------------------------------------------------------------------------------------------------ rows --- */

static void give_places(pd_resident *r, const pd_staged *s)
{
    for (uint32_t k = 0; s->change->kind == PD_CHANGE_UPSERT && k < s->n; k++)
        if (s->slots[k] != s->olds[k]) pd_places_give(&r->places, s->slots[k]);
}

static void give_pages(pd_resident *r, const pd_staged *s)
{
    for (uint32_t i = s->npages; i-- > 0;)
        pd_places_ungrow(&r->places, s->pages[i]);
}

static pd_status no_page(const pd_resident *r, pd_error *err)
{
    uint32_t given = r->places.npages - r->places.built;
    return pd_fail(err, PD_RESOURCE_EXHAUSTED,
                   "%s was given %u pages for rows that come while it serves, and all are taken: building it "
                   "again makes room",
                   r->info->table, given);
}

/* Places for the rows of an upsert. */
static pd_status place_rows(pd_resident *r, pd_staged *s, pd_error *err)
{
    const pd_change *change = s->change;
    for (uint32_t i = 0; i < change->n; i++) {
        uint32_t old = staged_slot(r, change->ids[i]), list = s->encoded->lists[i], page = PD_NO_PAGE;
        uint32_t slot = old;
        if (old == PD_NO_SLOT || pd_places_list(&r->places, old) != list)
            slot = pd_places_take(&r->places, list, &page);
        s->crowded = slot == PD_NO_SLOT;
        if (s->crowded) return no_page(r, err);
        s->rows[i] = i;
        s->slots[i] = slot;
        s->olds[i] = old;
        s->fresh += old == PD_NO_SLOT;
        s->n++;
        if (page == PD_NO_PAGE) continue;
        s->lists[s->npages] = list;
        s->pages[s->npages++] = page;
    }
    return PD_OK;
}

/* The rows of the others. */
static void find_rows(const pd_resident *r, pd_staged *s)
{
    for (uint32_t i = 0; i < s->change->n; i++) {
        uint32_t slot = staged_slot(r, s->change->ids[i]);
        if (slot == PD_NO_SLOT) continue;
        s->rows[s->n] = i;
        s->slots[s->n] = s->olds[s->n] = slot;
        s->n++;
    }
}

/* ------------------------------------------------------------------------------------------------ values --- */

/* Counters as they will be, and what they are worth then. */
static void fill_counter(const pd_resident *r, pd_staged *s, uint32_t attribute, uint32_t c,
                         const pd_change_column *column)
{
    const pd_attribute *a = &r->info->schema->attributes[attribute];
    double *counters = s->counters + (size_t)c * s->n, time = s->change->time;
    for (uint32_t k = 0; k < s->n; k++) {
        double counter = s->olds[k] == PD_NO_SLOT ? -INFINITY : staged_counter(r, c, s->olds[k]);
        if (column && s->change->kind == PD_CHANGE_COUNT) {
            counter = column->counters[s->rows[k]];
        } else if (column) {
            float number = column->numbers[s->rows[k]];
            counter = number > 0 ? log2((double)number) + time / a->half_life : -INFINITY;
        }
        if (isnan(counter)) counter = -INFINITY;
        counters[k] = counter;
        pd_cell *cell = &s->cells[(size_t)attribute * s->n + k];
        cell->number = pd_counter_value(counter, time, a->half_life);
        cell->word = pd_attribute_bucket(a, cell->number);
    }
}

static void fill_cells(const pd_resident *r, pd_staged *s)
{
    const pd_schema *schema = r->info->schema;
    int whole = s->change->kind == PD_CHANGE_UPSERT;
    for (uint32_t i = 0; i < schema->nattributes && s->change->kind != PD_CHANGE_DELETE; i++) {
        const pd_attribute *a = &schema->attributes[i];
        const pd_change_column *column = pd_change_column_of(s->change, i);
        uint32_t c = pd_live_counter_of(r, i);
        if (c < PD_MAX_FLOATS) fill_counter(r, s, i, c, column);
        if (!column && !whole) continue;
        s->touched |= 1u << i;
        s->recounts |= c < PD_MAX_FLOATS;
        for (uint32_t k = 0; c == PD_MAX_FLOATS && k < s->n; k++)
            s->cells[(size_t)i * s->n + k] = pd_change_cell(a, column, s->rows[k]);
    }
}

/* The page columns of one attribute. *words: of n u64 each, the next that are not used. */
static void add_writes(pd_staged *s, const pd_attribute *a, const pd_cell *cells, unsigned char **words)
{
    uint64_t *keys = (uint64_t *)*words;
    uint8_t *bytes = *words;
    float *floats = (float *)(*words + s->n * sizeof(uint64_t));
    for (uint32_t k = 0; k < s->n; k++) {
        if (a->type == PD_KEY) keys[k] = cells[k].word;
        if (a->type == PD_NUMBER) floats[k] = cells[k].number;
        if (a->type == PD_NUMBER || a->type == PD_CATEGORY) bytes[k] = (uint8_t)cells[k].word;
        for (uint32_t j = 0; a->type == PD_SET && j < 8; j++)
            bytes[(size_t)j * s->n + k] = (uint8_t)(cells[k].word >> (8 * j));
    }
    uint32_t planes = a->type == PD_SET ? 8 : a->type == PD_KEY ? 0 : 1;
    for (uint32_t j = 0; j < planes; j++)
        s->writes[s->nwrites++] =
            (pd_column_write){PD_COLUMN_BYTE, a->byte_column + j, bytes + (size_t)j * s->n};
    if (a->type == PD_KEY) s->writes[s->nwrites++] = (pd_column_write){PD_COLUMN_KEY, a->key_column, keys};
    if (a->type == PD_NUMBER)
        s->writes[s->nwrites++] = (pd_column_write){PD_COLUMN_FLOAT, a->float_column, floats};
    *words += (a->type == PD_NUMBER ? 2 : 1) * s->n * sizeof(uint64_t);
}

/* Whole rows bring their columns with them, but for counters. */
static void fill_writes(const pd_resident *r, pd_staged *s)
{
    const pd_schema *schema = r->info->schema;
    unsigned char *words = (unsigned char *)s->writes[0].values;
    for (uint32_t i = 0; i < schema->nattributes; i++) {
        int counted = pd_live_counter_of(r, i) < PD_MAX_FLOATS;
        if (!(s->touched >> i & 1) || (s->change->kind == PD_CHANGE_UPSERT && !counted)) continue;
        add_writes(s, &schema->attributes[i], s->cells + (size_t)i * s->n, &words);
    }
}

/* ------------------------------------------------------------------------------------------------ the whole --- */

/* From now on the writer sees it. */
static void note_staged(pd_resident *r, const pd_staged *s)
{
    int gone = s->change->kind == PD_CHANGE_DELETE;
    for (uint32_t k = 0; k < s->n; k++) {
        pd_idmap_set(&r->staged_ids, s->change->ids[s->rows[k]], gone ? PD_ID_GONE : s->slots[k]);
        if (!s->recounts) continue;
        uint32_t at = pd_idmap_get(&r->staged_slots, s->slots[k]);
        if (at == PD_IDMAP_NONE) at = (uint32_t)r->staged_slots.count;
        pd_idmap_set(&r->staged_slots, s->slots[k], at);
        for (uint32_t c = 0; c < r->ncounters; c++)
            r->staged_counters[(size_t)at * r->ncounters + c] = s->counters[(size_t)c * s->n + k];
    }
    r->staged_fresh += s->fresh;
    r->nstaged++;
}

static pd_status stage(pd_resident *r, pd_staged *s, pd_error *err)
{
    pd_status status = PD_OK;
    if (s->change->kind == PD_CHANGE_UPSERT)
        status = place_rows(r, s, err);
    else
        find_rows(r, s);
    if (!status) {
        fill_cells(r, s);
        if (r->info->schema->nattributes) fill_writes(r, s);
        status = take_room(r, s, err);
    }
    if (status) {
        give_places(r, s);
        give_pages(r, s);
        return status;
    }
    note_staged(r, s);
    return PD_OK;
}

pd_status pd_resident_stage(pd_resident *r, const pd_change *change, const pd_encoded *encoded,
                            pd_staged **out, pd_stage_counts *counts, pd_error *err)
{
    *out = NULL;
    *counts = (pd_stage_counts){0};
    pd_status status = pd_change_check(r->info, change, err);
    if (status) return status;
    if ((change->kind == PD_CHANGE_UPSERT) != (encoded != NULL) || (encoded && encoded->n != change->n))
        return pd_fail(err, PD_INVALID_ARGUMENT, "rows are staged with their codes, other changes without");
    pd_staged *s = open_staged(r, change, encoded);
    if (!s) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a change of %u rows", change->n);
    pthread_mutex_lock(&r->staging);
    status = stage(r, s, err);
    pthread_mutex_unlock(&r->staging);
    if (status) {
        counts->crowded = s->crowded != 0;
        close_staged(s);
        return status;
    }
    *counts = (pd_stage_counts){.changed = s->n, .fresh = s->fresh, .missing = change->n - s->n};
    *out = s;
    return PD_OK;
}

void pd_staged_drop(pd_resident *r, pd_staged **staged, uint32_t n)
{
    pthread_mutex_lock(&r->staging);
    /* Of one that is applied in part, because searching has ended meanwhile, the index keeps what it has. */
    for (uint32_t i = 0; i < n; i++)
        if (!staged[i]->done) give_places(r, staged[i]);
    for (uint32_t i = n; i-- > 0;) {
        pd_staged *s = staged[i];
        if (!s->done) give_pages(r, s);
        for (uint32_t a = 0; a < r->info->schema->nattributes; a++)
            if (s->touched >> a & 1)
                pd_postings_release(&r->postings, a, s->cells + (size_t)a * s->n + s->done, s->n - s->done);
        r->staged_fresh -= s->fresh;
        r->nstaged--;
        close_staged(s);
    }
    pd_live_settle(r);
    pthread_mutex_unlock(&r->staging);
}
