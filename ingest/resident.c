/* A resident version: its pages in a device's slab, its ids and postings in host memory.
 *
 * Everything the host holds is taken from the pages while they stream into the slab: one reading of the disk fills
 * both. Row ids must be distinct across the pages; a folder where they are not is damaged, whatever its sums say.
 */
#include "resident.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "live_impl.h"

/* What a counter's column says of a moment, as the counter itself. */
static void take_counters(pd_resident *r, void *page, uint32_t slot)
{
    for (uint32_t c = 0; c < r->ncounters; c++) {
        const pd_attribute *attribute = &r->info->schema->attributes[r->counted[c]];
        float worth = pd_page_floats(&r->info->layout, page, attribute->float_column)[slot % PD_PAGE_ROWS];
        r->counters[c][slot] =
            worth > 0 ? log2((double)worth) + r->info->created / attribute->half_life : -INFINITY;
    }
}

static pd_status take_page(void *context, uint32_t number, const void *bytes, pd_error *err)
{
    pd_resident *r = context;
    const pd_layout *layout = &r->info->layout;
    void *page = (void *)bytes; /* the page's accessors serve writers too */
    const float *term = pd_page_term(layout, page);
    const uint64_t *ids = pd_page_ids(layout, page);
    /* Each put misses the caches twice; a page's worth of misses is waited for at once. */
    for (uint32_t row = 0; row < PD_PAGE_ROWS; row++)
        pd_idmap_prefetch(&r->slots, ids[row]);
    for (uint32_t row = 0; row < PD_PAGE_ROWS; row++) {
        if (isinf(term[row])) continue; /* no row */
        uint32_t slot = number * PD_PAGE_ROWS + row;
        if (r->rows++ == r->info->rows)
            return pd_fail(err, PD_DATA_LOSS, "%s/pages.bin holds more than the manifest's %llu rows",
                           r->info->folder, (unsigned long long)r->info->rows);
        if (pd_idmap_put(&r->slots, ids[row], slot) != PD_IDMAP_NONE)
            return pd_fail(err, PD_DATA_LOSS,
                           "%s/pages.bin: page %u holds id %llu, which another page holds too",
                           r->info->folder, number, (unsigned long long)ids[row]);
        pd_places_met(&r->places, slot);
        take_counters(r, page, slot);
        pd_status status = pd_postings_add(&r->postings, bytes, slot, err);
        if (status) return status;
    }
    return PD_OK;
}

static pd_status check_rows(const pd_resident *r, pd_error *err)
{
    if (r->rows != r->info->rows)
        return pd_fail(err, PD_DATA_LOSS, "%s/pages.bin holds %llu rows, the manifest says %llu",
                       r->info->folder, (unsigned long long)r->rows, (unsigned long long)r->info->rows);
    for (uint32_t i = 0; i < r->info->shape.nlist; i++)
        if (r->places.rows[i] != r->info->lists.rows[i])
            return pd_fail(err, PD_DATA_LOSS, "%s/lists.bin: list %u has %u rows, its pages hold %u",
                           r->info->folder, i, r->info->lists.rows[i], r->places.rows[i]);
    return PD_OK;
}

static pd_status open_counters(pd_resident *r, pd_error *err)
{
    const pd_schema *schema = r->info->schema;
    uint64_t slots = (uint64_t)r->places.npages * PD_PAGE_ROWS;
    for (uint32_t i = 0; i < schema->nattributes; i++) {
        if (schema->attributes[i].type != PD_NUMBER || !schema->attributes[i].counts) continue;
        double *counters = malloc((slots + 1) * sizeof *counters);
        if (!counters)
            return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the counters of \"%s\"",
                           schema->attributes[i].name);
        for (uint64_t slot = 0; slot < slots; slot++)
            counters[slot] = -INFINITY;
        r->counted[r->ncounters] = i;
        r->counters[r->ncounters++] = counters;
    }
    return PD_OK;
}

static pd_status fill(pd_resident *r, uint32_t spare, pd_error *err)
{
    const pd_version_info *info = r->info;
    uint32_t npages = info->npages + spare;
    r->refs = calloc((size_t)npages + 1, sizeof *r->refs);
    if (!r->refs) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the sources of %u pages", npages);
    pd_status status = pd_idmap_open(&r->slots, info->rows, err);
    if (!status) status = pd_places_open(&r->places, info, spare, err);
    if (!status) status = open_counters(r, err);
    if (!status)
        status = pd_postings_open(&r->postings, info->schema, &info->layout, info->rows, npages, err);
    if (!status) status = pd_version_load(r->version, r->index, take_page, r, err);
    if (!status) status = check_rows(r, err);
    if (!status) status = pd_postings_finish(&r->postings, err);
    if (!status) pd_places_ready(&r->places);
    r->imbalance_built = pd_places_imbalance(&r->places);
    r->applied = info->sequence;
    return status;
}

/* A plan that waits for another plan is no reason for a change to wait for both. */
static void open_locks(pd_resident *r)
{
    pthread_rwlockattr_t how;
    pthread_rwlockattr_init(&how);
    pthread_rwlockattr_setkind_np(&how, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&r->lock, &how);
    pthread_rwlockattr_destroy(&how);
    pthread_mutex_init(&r->staging, NULL);
}

pd_status pd_resident_open(const pd_version *version, pd_device *device, uint32_t spare, pd_resident **out,
                           pd_error *err)
{
    *out = NULL;
    const pd_version_info *info = pd_version_info_of(version);
    if (spare > UINT32_MAX / PD_PAGE_ROWS - 1 - info->npages)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%u spare pages are more than a table can hold", spare);
    pd_resident *r = calloc(1, sizeof *r);
    if (!r) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a resident table");
    open_locks(r);
    r->version = version;
    r->info = info;
    char name[PD_MAX_NAME + 32];
    snprintf(name, sizeof name, "%s@%llu", info->table, (unsigned long long)info->version);
    pd_index_spec spec = {.shape = info->shape, .npages = info->npages + spare, .name = name};
    pd_status status = pd_index_open(device, &spec, &r->index, err);
    if (!status) status = fill(r, spare, err);
    if (status) {
        pd_resident_close(r);
        return status;
    }
    *out = r;
    return PD_OK;
}

void pd_resident_close(pd_resident *r)
{
    if (!r) return;
    pd_index_close(r->index);
    for (uint32_t page = 0; r->refs && page < r->places.npages; page++)
        free(r->refs[page]);
    free(r->refs);
    for (uint32_t c = 0; c < r->ncounters; c++)
        free(r->counters[c]);
    pd_idmap_close(&r->slots);
    pd_idmap_close(&r->staged_ids);
    pd_idmap_close(&r->staged_slots);
    free(r->staged_counters);
    if (r->postings.schema) pd_postings_close(&r->postings);
    pd_places_close(&r->places);
    pthread_rwlock_destroy(&r->lock);
    pthread_mutex_destroy(&r->staging);
    free(r);
}

pd_index *pd_resident_index(pd_resident *resident)
{
    return resident->index;
}

const pd_version *pd_resident_version(const pd_resident *resident)
{
    return resident->version;
}

uint64_t pd_resident_host_bytes(const pd_resident *r)
{
    uint64_t slots = (uint64_t)r->places.npages * PD_PAGE_ROWS;
    pd_resident_lock(r);
    uint64_t bytes = sizeof *r + pd_idmap_memory(&r->slots) + pd_postings_memory(&r->postings) +
                     pd_places_memory(&r->places) + r->places.npages * sizeof *r->refs +
                     r->ncounters * slots * sizeof(double);
    for (uint32_t page = 0; page < r->places.npages; page++)
        bytes += __atomic_load_n(&r->refs[page], __ATOMIC_ACQUIRE) ? PD_PAGE_ROWS * sizeof(uint64_t) : 0;
    pd_resident_unlock(r);
    return bytes;
}

uint64_t pd_resident_rows(const pd_resident *r)
{
    return __atomic_load_n(&r->rows, __ATOMIC_RELAXED);
}

uint32_t pd_resident_slot(const pd_resident *r, uint64_t id)
{
    pd_resident_lock(r);
    uint32_t slot = pd_idmap_get(&r->slots, id);
    pd_resident_unlock(r);
    return slot;
}

void pd_resident_posting(const pd_resident *resident, const pd_attribute *attribute, uint64_t value,
                         pd_matches *out)
{
    pd_postings_get(&resident->postings, attribute, value, out);
}

void pd_resident_range(const pd_resident *resident, const pd_attribute *attribute, float low, float high,
                       pd_matches *out)
{
    pd_postings_range(&resident->postings, attribute, low, high, out);
}

const uint64_t *pd_resident_histogram(const pd_resident *resident, uint32_t byte_column)
{
    return resident->postings.histograms + resident->info->layout.weight_at[byte_column];
}

uint32_t pd_resident_used(const pd_resident *resident, uint32_t byte_column)
{
    return resident->postings.used[byte_column];
}

void pd_resident_lock(const pd_resident *resident)
{
    pthread_rwlock_rdlock((pthread_rwlock_t *)&resident->lock);
}

void pd_resident_unlock(const pd_resident *resident)
{
    pthread_rwlock_unlock((pthread_rwlock_t *)&resident->lock);
}
