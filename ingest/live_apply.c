/* Applying: what was staged becomes true, between two searches, on the thread that searches.
 *
 * A change of many rows would hold searches up, so it is applied in pieces; a piece is applied as a whole, and so is each of its rows.
 *
 * First the device, then what the host says of it. What rows held before is read back from the device before it is overwritten, so that
 * histograms and postings need no copy of the columns.
 */
#include <math.h>
#include <stdlib.h>

#include "live_impl.h"

#define PIECE_ROWS (8 * PD_PAGE_ROWS) /* some 0.2 ms of upserts of 128 dimensions */

/* Rows first .. end - 1 of what was staged. first is a multiple of PD_PAGE_ROWS, so that the piece's codes begin with a page. */
typedef struct piece {
    const pd_staged *s;
    uint32_t first, end;
} piece;

/* ------------------------------------------------------------------------------------------------ device --- */

/* Reads what the rows hold now. Row k of them that are there is the k-th in s->was. */
static pd_status read_before(pd_resident *r, const piece *p, pd_error *err)
{
    const pd_schema *schema = r->info->schema;
    const pd_staged *s = p->s;
    uint32_t n = 0;
    for (uint32_t k = p->first; k < p->end; k++)
        if (s->olds[k] != PD_NO_SLOT) s->were[n++] = s->olds[k];
    if (!n || !schema->nattributes) return PD_OK;
    pd_rows want = {.bytes = schema->nbytes ? s->was.bytes : NULL,
                    .floats = schema->nfloats ? s->was.floats : NULL,
                    .keys = schema->nkeys ? s->was.keys : NULL};
    return pd_index_gather(r->index, s->were, n, &want, err);
}

/* The slots that rows leave. s->were is free for it. */
static uint32_t left_slots(const piece *p)
{
    const pd_staged *s = p->s;
    uint32_t n = 0;
    int gone = s->change->kind == PD_CHANGE_DELETE;
    for (uint32_t k = p->first; k < p->end; k++)
        if (s->olds[k] != PD_NO_SLOT && (gone || s->olds[k] != s->slots[k])) s->were[n++] = s->olds[k];
    return n;
}

static pd_status write_codes(pd_resident *r, const piece *p, pd_error *err)
{
    const pd_layout *layout = &r->info->layout;
    const pd_encoded *e = p->s->encoded;
    uint32_t page = p->first / PD_PAGE_ROWS;
    pd_row_writes rows = {.n = p->end - p->first,
                          .slots = p->s->slots + p->first,
                          .pages = (const unsigned char *)e->pages + page * layout->page_bytes};
    if (e->refine) rows.refine = (const unsigned char *)e->refine + page * layout->refine_bytes;
    return pd_index_write_rows(r->index, &rows, err);
}

/* Columns lie one after another, each of all rows. */
static pd_status write_columns(pd_resident *r, const piece *p, pd_error *err)
{
    pd_column_write writes[9 * PD_MAX_ATTRIBUTES];
    for (uint32_t w = 0; w < p->s->nwrites; w++) {
        writes[w] = p->s->writes[w];
        size_t unit = writes[w].kind == PD_COLUMN_BYTE ? 1 : writes[w].kind == PD_COLUMN_FLOAT ? 4 : 8;
        writes[w].values = (const unsigned char *)writes[w].values + p->first * unit;
    }
    return pd_index_write_columns(r->index, p->s->slots + p->first, p->end - p->first, writes, p->s->nwrites,
                                  err);
}

static pd_status write_device(pd_resident *r, const piece *p, pd_error *err)
{
    const pd_staged *s = p->s;
    pd_status status = PD_OK;
    if (p->first == p->end) return PD_OK;
    if (s->npages && p->first == 0) status = pd_index_grow(r->index, s->lists, s->pages, s->npages, err);
    if (!status) status = read_before(r, p, err);
    if (!status && s->change->kind == PD_CHANGE_UPSERT) status = write_codes(r, p, err);
    uint32_t left = status ? 0 : left_slots(p);
    if (left) status = pd_index_empty_rows(r->index, s->were, left, err);
    if (!status && s->nwrites) status = write_columns(r, p, err);
    return status;
}

/* ------------------------------------------------------------------------------------------------ host --- */

static pd_cell cell_before(const pd_resident *r, const pd_staged *s, uint32_t attribute, uint32_t row)
{
    const pd_schema *schema = r->info->schema;
    const pd_attribute *a = &schema->attributes[attribute];
    const uint8_t *bytes = s->was.bytes + (size_t)row * schema->nbytes;
    pd_cell cell = {.number = NAN};
    if (a->type == PD_KEY) {
        cell.word = s->was.keys[(size_t)row * schema->nkeys + a->key_column];
        return cell;
    }
    if (a->type == PD_NUMBER) cell.number = s->was.floats[(size_t)row * schema->nfloats + a->float_column];
    for (uint32_t j = 0; j < (a->type == PD_SET ? 8u : 1u); j++)
        cell.word |= (uint64_t)bytes[a->byte_column + j] << (8 * j);
    return cell;
}

static void change_postings(pd_resident *r, const piece *p, uint32_t attribute)
{
    const pd_staged *s = p->s;
    int gone = s->change->kind == PD_CHANGE_DELETE;
    const pd_cell *now = gone ? NULL : s->cells + (size_t)attribute * s->n;
    for (uint32_t k = p->first, row = 0; k < p->end; k++) {
        pd_cell before;
        int there = s->olds[k] != PD_NO_SLOT;
        if (there) before = cell_before(r, s, attribute, row++);
        pd_postings_change(&r->postings, attribute, s->olds[k], there ? &before : NULL, s->slots[k],
                           gone ? NULL : &now[k]);
    }
    if (!gone) pd_postings_release(&r->postings, attribute, now + p->first, p->end - p->first);
}

static uint64_t take_ref(pd_resident *r, uint32_t slot)
{
    uint64_t *refs = r->refs[slot / PD_PAGE_ROWS], ref = 0;
    if (!refs) return 0;
    ref = refs[slot % PD_PAGE_ROWS];
    refs[slot % PD_PAGE_ROWS] = 0;
    return ref;
}

static void leave(pd_resident *r, uint32_t slot)
{
    for (uint32_t c = 0; c < r->ncounters; c++)
        r->counters[c][slot] = -INFINITY;
    pd_places_empty(&r->places, slot);
    pd_places_give(&r->places, slot);
}

static void change_rows(pd_resident *r, const piece *p)
{
    const pd_staged *s = p->s;
    const pd_change *change = s->change;
    for (uint32_t k = p->first; k < p->end; k++) {
        uint32_t slot = s->slots[k], old = s->olds[k];
        uint64_t id = change->ids[s->rows[k]], ref = old != PD_NO_SLOT ? take_ref(r, old) : 0;
        /* Did the version have it? A row that is there and was not written since is the version's. */
        int built = old != PD_NO_SLOT && (!ref || ref & PD_REF_BUILT);
        r->written -= ref != 0;
        if (change->kind == PD_CHANGE_DELETE) {
            r->gone += (uint64_t)built;
            pd_idmap_remove(&r->slots, id);
            leave(r, old);
            continue;
        }
        if (old != slot && old != PD_NO_SLOT) leave(r, old);
        if (old != slot) {
            pd_places_fill(&r->places, slot);
            pd_idmap_set(&r->slots, id, slot);
        }
        r->refs[slot / PD_PAGE_ROWS][slot % PD_PAGE_ROWS] =
            change->sequence << 16 | s->rows[k] | (built ? PD_REF_BUILT : 0);
        r->written++;
    }
    if (p->end == s->n) r->staged_fresh -= s->fresh;
    __atomic_store_n(&r->rows, r->places.total, __ATOMIC_RELAXED);
}

static void change_counters(pd_resident *r, const piece *p)
{
    const pd_staged *s = p->s;
    for (uint32_t c = 0; s->recounts && c < r->ncounters; c++)
        for (uint32_t k = p->first; k < p->end; k++)
            r->counters[c][s->slots[k]] = s->counters[(size_t)c * s->n + k];
}

static void change_host(pd_resident *r, const piece *p)
{
    const pd_staged *s = p->s;
    int rows = s->change->kind == PD_CHANGE_UPSERT || s->change->kind == PD_CHANGE_DELETE;
    pthread_rwlock_wrlock(&r->lock);
    for (uint32_t i = 0; i < r->info->schema->nattributes; i++)
        if (s->touched >> i & 1 || s->change->kind == PD_CHANGE_DELETE) change_postings(r, p, i);
    if (rows) change_rows(r, p);
    change_counters(r, p);
    pthread_rwlock_unlock(&r->lock);
}

pd_status pd_resident_apply_some(pd_resident *r, pd_staged *s, int *over, pd_error *err)
{
    piece p = {s, s->done, s->n - s->done < PIECE_ROWS ? s->n : s->done + PIECE_ROWS};
    pd_status status = write_device(r, &p, err);
    *over = status || p.end == s->n;
    pthread_mutex_lock(&r->staging);
    if (!status) {
        change_host(r, &p);
        s->done = p.end;
        if (*over) pd_resident_reached(r, s->change->sequence);
    }
    if (*over) {
        r->nstaged--;
        pd_live_settle(r);
    }
    pthread_mutex_unlock(&r->staging);
    if (*over) {
        free(s->memory);
        free(s);
    }
    return status;
}

pd_status pd_resident_apply(pd_resident *r, pd_staged *s, pd_error *err)
{
    pd_status status = PD_OK;
    for (int over = 0; !status && !over;)
        status = pd_resident_apply_some(r, s, &over, err);
    return status;
}

/* ------------------------------------------------------------------------------------------------ the rest --- */

void pd_resident_reached(pd_resident *r, uint64_t sequence)
{
    uint64_t now = __atomic_load_n(&r->applied, __ATOMIC_RELAXED);
    while (now < sequence &&
           !__atomic_compare_exchange_n(&r->applied, &now, sequence, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
        ;
}

void pd_resident_live(const pd_resident *r, pd_live_stats *stats)
{
    /* What is free is under staging, the rest under lock. */
    pthread_mutex_lock((pthread_mutex_t *)&r->staging);
    pd_resident_lock(r);
    *stats = (pd_live_stats){.rows = r->places.total,
                             .applied = __atomic_load_n(&r->applied, __ATOMIC_ACQUIRE),
                             .changed = r->written + r->gone,
                             .pages = r->places.npages - r->places.built,
                             .pages_free = pd_places_spare(&r->places),
                             .imbalance = pd_places_imbalance(&r->places),
                             .imbalance_built = r->imbalance_built};
    pd_resident_unlock(r);
    pthread_mutex_unlock((pthread_mutex_t *)&r->staging);
}

/* ------------------------------------------------------------------------------------------------ counters --- */

typedef struct recount {
    uint32_t n;
    uint32_t *slots;  /* [n] */
    uint8_t *before;  /* [n][nbytes] */
    uint8_t *buckets; /* [ncounters][n] */
    float *worth;     /* [ncounters][n] */
} recount;

static pd_status recount_open(const pd_resident *r, uint32_t first, uint32_t count, recount *w, pd_error *err)
{
    size_t most = (size_t)count * PD_PAGE_ROWS + 1;
    w->slots = malloc(most * sizeof *w->slots);
    w->before = malloc(most * r->info->schema->nbytes);
    w->buckets = malloc(most * r->ncounters);
    w->worth = malloc(most * r->ncounters * sizeof *w->worth);
    if (!w->slots || !w->before || !w->buckets || !w->worth)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the counters of %u pages", count);
    for (uint32_t page = first; page < first + count; page++)
        for (uint32_t live = r->places.live[page]; live; live &= live - 1)
            w->slots[w->n++] = page * PD_PAGE_ROWS + (uint32_t)__builtin_ctz(live);
    return PD_OK;
}

static pd_status recount_write(pd_resident *r, recount *w, double time, pd_error *err)
{
    pd_column_write writes[2 * PD_MAX_FLOATS];
    for (uint32_t c = 0; c < r->ncounters; c++) {
        const pd_attribute *a = &r->info->schema->attributes[r->counted[c]];
        float *worth = w->worth + (size_t)c * w->n;
        uint8_t *buckets = w->buckets + (size_t)c * w->n;
        for (uint32_t k = 0; k < w->n; k++) {
            worth[k] = pd_counter_value(r->counters[c][w->slots[k]], time, a->half_life);
            buckets[k] = pd_attribute_bucket(a, worth[k]);
        }
        writes[2 * c] = (pd_column_write){PD_COLUMN_BYTE, a->byte_column, buckets};
        writes[2 * c + 1] = (pd_column_write){PD_COLUMN_FLOAT, a->float_column, worth};
    }
    pd_status status = pd_index_gather(r->index, w->slots, w->n, &(pd_rows){.bytes = w->before}, err);
    return status ? status : pd_index_write_columns(r->index, w->slots, w->n, writes, 2 * r->ncounters, err);
}

/* The executor is the only one that changes what is read here, so that only postings need the lock. */
pd_status pd_resident_recount(pd_resident *r, uint32_t first, uint32_t count, double time, pd_error *err)
{
    recount w = {0};
    if (first > r->places.npages || count > r->places.npages - first)
        return pd_fail(err, PD_OUT_OF_RANGE, "pages %u to %u are to be counted, there are %u", first,
                       first + count, r->places.npages);
    if (!r->ncounters) return PD_OK;
    pd_status status = recount_open(r, first, count, &w, err);
    if (!status && w.n) status = recount_write(r, &w, time, err);
    if (!status) {
        pthread_rwlock_wrlock(&r->lock);
        for (uint32_t c = 0; c < r->ncounters; c++) {
            uint32_t i = r->counted[c], column = r->info->schema->attributes[i].byte_column;
            for (uint32_t k = 0; k < w.n; k++) {
                pd_cell before = {.word = w.before[(size_t)k * r->info->schema->nbytes + column]};
                pd_cell now = {.word = w.buckets[(size_t)c * w.n + k]};
                pd_postings_change(&r->postings, i, w.slots[k], &before, w.slots[k], &now);
            }
        }
        pthread_rwlock_unlock(&r->lock);
    }
    free(w.slots);
    free(w.before);
    free(w.buckets);
    free(w.worth);
    return status;
}
