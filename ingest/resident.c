/* A resident version: its pages in a device's slab, its ids and postings in host memory.
 *
 * Everything the host holds is taken from the pages while they stream into the slab: one reading of the disk fills
 * both. Row ids must be distinct across the pages; a folder where they are not is damaged, whatever its sums say.
 */
#include "resident.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "idmap.h"
#include "postings.h"

struct pd_resident {
    const pd_version *version;
    const pd_version_info *info;
    pd_index *index;
    pd_idmap slots; /* id -> slot */
    pd_postings postings;
    uint64_t rows;       /* met while loading */
    uint32_t *list_rows; /* the same by list, against what lists.bin says; NULL: a table without lists */
};

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
        if (r->list_rows) r->list_rows[r->info->page_list[number]]++;
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
    for (uint32_t i = 0; r->list_rows && i < r->info->shape.nlist; i++)
        if (r->list_rows[i] != r->info->lists.rows[i])
            return pd_fail(err, PD_DATA_LOSS, "%s/lists.bin: list %u has %u rows, its pages hold %u",
                           r->info->folder, i, r->info->lists.rows[i], r->list_rows[i]);
    return PD_OK;
}

static pd_status fill(pd_resident *r, pd_error *err)
{
    const pd_version_info *info = r->info;
    if (info->shape.nlist) {
        r->list_rows = calloc(info->shape.nlist, sizeof *r->list_rows);
        if (!r->list_rows)
            return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u lists", info->shape.nlist);
    }
    pd_status status = pd_idmap_open(&r->slots, info->rows, err);
    if (!status)
        status = pd_postings_open(&r->postings, info->schema, &info->layout, info->rows, info->npages, err);
    if (!status) status = pd_version_load(r->version, r->index, take_page, r, err);
    if (!status) status = check_rows(r, err);
    if (!status) status = pd_postings_finish(&r->postings, err);
    free(r->list_rows);
    r->list_rows = NULL;
    return status;
}

pd_status pd_resident_open(const pd_version *version, pd_device *device, uint32_t spare, pd_resident **out,
                           pd_error *err)
{
    *out = NULL;
    const pd_version_info *info = pd_version_info_of(version);
    if (spare > UINT32_MAX / PD_PAGE_ROWS - info->npages)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%u spare pages are more than a table can hold", spare);
    pd_resident *r = calloc(1, sizeof *r);
    if (!r) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a resident table");
    r->version = version;
    r->info = info;
    char name[PD_MAX_NAME + 32];
    snprintf(name, sizeof name, "%s@%llu", info->table, (unsigned long long)info->version);
    pd_index_spec spec = {.shape = info->shape, .npages = info->npages + spare, .name = name};
    pd_status status = pd_index_open(device, &spec, &r->index, err);
    if (!status) status = fill(r, err);
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
    pd_idmap_close(&r->slots);
    if (r->postings.schema) pd_postings_close(&r->postings);
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
    return sizeof *r + pd_idmap_memory(&r->slots) + pd_postings_memory(&r->postings);
}

uint32_t pd_resident_slot(const pd_resident *resident, uint64_t id)
{
    return pd_idmap_get(&resident->slots, id);
}

void pd_resident_posting(const pd_resident *resident, const pd_attribute *attribute, uint64_t value,
                         const uint32_t **slots, uint64_t *count)
{
    pd_postings_get(&resident->postings, attribute, value, slots, count);
}

void pd_resident_range(const pd_resident *resident, const pd_attribute *attribute, float low, float high,
                       const uint32_t **slots, uint64_t *count)
{
    pd_postings_range(&resident->postings, attribute, low, high, slots, count);
}

const uint64_t *pd_resident_histogram(const pd_resident *resident, uint32_t byte_column)
{
    return resident->postings.histograms + resident->info->layout.weight_at[byte_column];
}

uint32_t pd_resident_used(const pd_resident *resident, uint32_t byte_column)
{
    return resident->postings.used[byte_column];
}
