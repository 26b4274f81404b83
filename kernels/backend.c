/* The wrappers that callers use: they find backends, check arguments and supply defaults, so that a slot may trust what
 * it is given. What only a backend knows (an open window, lists that are not set, which list a page is in) its slots check. */
#include "backend.h"

#include <math.h>
#include <string.h>

#include "backends.h"
#include "slab.h"

/* Is there a device that takes work? */
static pd_status try_cuda(const pd_backend *cuda, pd_error *err)
{
    static const pd_device_options nothing;
    pd_device *device = NULL;
    pd_status status = cuda->open(&nothing, &device, err);
    if (status == PD_OK) cuda->close(device);
    return status;
}

pd_status pd_backend_find(const char *name, const pd_backend **out, pd_error *err)
{
    if (strcmp(name, "reference") == 0) {
        *out = &pd_backend_reference;
        return PD_OK;
    }
    if (strcmp(name, "cpu") == 0) {
        *out = &pd_backend_cpu;
        return PD_OK;
    }
    if (strcmp(name, "cuda") == 0 || strcmp(name, "auto") == 0) {
        pd_status status = pd_plugin_cuda_load(out, err);
        if (status == PD_OK) status = try_cuda(*out, err);
        if (status == PD_OK) return PD_OK;
        if (strcmp(name, "cuda") == 0) return pd_prefix(err, "backend \"cuda\"");
        *out = &pd_backend_cpu;
        return PD_OK;
    }
    return pd_fail(err, PD_NOT_FOUND, "backend \"%s\" is not known; there are reference, cpu, cuda and auto",
                   name);
}

pd_status pd_device_open(const char *backend, const pd_device_options *options, pd_device **out,
                         pd_error *err)
{
    static const pd_device_options defaults;
    const pd_backend *found = NULL;
    if (!options) options = &defaults;
    if (!backend) backend = "auto";
    int automatic = strcmp(backend, "auto") == 0;
    /* Instruction sets are the CPU's. */
    if (automatic && options->isa) return pd_backend_cpu.open(options, out, err);
    if (!automatic && strcmp(backend, "cuda") != 0) {
        pd_status status = pd_backend_find(backend, &found, err);
        return status == PD_OK ? found->open(options, out, err) : status;
    }
    pd_status status = pd_plugin_cuda_load(&found, err);
    if (status == PD_OK) status = found->open(options, out, err);
    if (automatic && status == PD_UNAVAILABLE) return pd_backend_cpu.open(options, out, err);
    return status == PD_UNAVAILABLE ? pd_prefix(err, "backend \"cuda\"") : status;
}

void pd_device_close(pd_device *device)
{
    if (device) device->backend->close(device);
}

void pd_device_info_of(const pd_device *device, pd_device_info *info)
{
    memset(info, 0, sizeof *info);
    device->backend->info(device, info);
}

uint64_t pd_index_bytes(const pd_index_spec *spec)
{
    pd_layout layout;
    if (pd_layout_of(&spec->shape, &layout, NULL) != PD_OK) return 0;
    return pd_run_chunks(layout.page_bytes, spec->npages) * (uint64_t)PD_CHUNK_BYTES +
           pd_index_refine_bytes(spec);
}

uint64_t pd_index_refine_bytes(const pd_index_spec *spec)
{
    pd_layout layout;
    if (pd_layout_of(&spec->shape, &layout, NULL) != PD_OK) return 0;
    return pd_run_chunks(layout.refine_bytes, spec->npages) * (uint64_t)PD_CHUNK_BYTES;
}

pd_status pd_index_open(pd_device *device, const pd_index_spec *spec, pd_index **out, pd_error *err)
{
    return device->backend->index_open(device, spec, out, err);
}

void pd_index_close(pd_index *index)
{
    if (index) index->backend->index_close(index);
}

pd_status pd_index_window(pd_index *index, pd_page_kind kind, uint32_t first, uint32_t count, void **memory,
                          uint32_t *got, pd_error *err)
{
    return index->backend->page_window(index, kind, first, count, memory, got, err);
}

pd_status pd_index_commit(pd_index *index, pd_error *err)
{
    return index->backend->page_commit(index, err);
}

pd_status pd_index_set_lists(pd_index *index, const pd_lists *lists, pd_error *err)
{
    if (!(lists->beta >= 0.0f) || !isfinite(lists->beta))
        return pd_fail(err, PD_INVALID_ARGUMENT, "beta is %g, it must be 0 or more", (double)lists->beta);
    return index->backend->set_lists(index, lists, err);
}

/* ----------------------------------------------------------------------------------------- checking queries --- */

static pd_status check_filter(const pd_shape *shape, const pd_filter *filter, uint32_t q, pd_error *err)
{
    if (!filter) return PD_OK;
    for (uint32_t i = 0; i < filter->nbytes; i++)
        if (filter->bytes[i].column >= shape->nbytes)
            return pd_fail(err, PD_INVALID_ARGUMENT, "query %u filters byte column %u of %u", q,
                           filter->bytes[i].column, shape->nbytes);
    for (uint32_t i = 0; i < filter->nranges; i++)
        if (filter->ranges[i].column >= shape->nfloats)
            return pd_fail(err, PD_INVALID_ARGUMENT, "query %u filters float column %u of %u", q,
                           filter->ranges[i].column, shape->nfloats);
    for (uint32_t i = 0; i < filter->nsets; i++)
        if (filter->sets[i].column >= shape->nbytes || shape->nbytes - filter->sets[i].column < 8)
            return pd_fail(err, PD_INVALID_ARGUMENT, "query %u filters a set at byte column %u of %u", q,
                           filter->sets[i].column, shape->nbytes);
    for (uint32_t i = 0; i < filter->nkeys; i++)
        if (filter->keys[i].column >= shape->nkeys)
            return pd_fail(err, PD_INVALID_ARGUMENT, "query %u filters key column %u of %u", q,
                           filter->keys[i].column, shape->nkeys);
    return PD_OK;
}

/* Finite numbers leave a sum of zeros when each is multiplied by zero; an infinity or a NaN leaves a NaN. */
static int all_finite(const float *values, size_t count)
{
    float sum[8] = {0};
    size_t i = 0;
    for (; i + 8 <= count; i += 8)
        for (uint32_t j = 0; j < 8; j++)
            sum[j] += values[i + j] * 0.0f;
    for (; i < count; i++)
        sum[0] += values[i] * 0.0f;
    for (uint32_t j = 0; j < 8; j++)
        if (sum[j] != 0.0f) return 0;
    return 1;
}

static pd_status check_weights(const pd_shape *shape, uint32_t weights, const pd_query *query, uint32_t q,
                               pd_error *err)
{
    if (query->weights && !all_finite(query->weights, weights))
        return pd_fail(err, PD_INVALID_ARGUMENT, "query %u: its weights hold a value that is not finite", q);
    for (uint32_t i = 0; i < query->nkey_weights; i++) {
        if (query->key_weights[i].column >= shape->nkeys)
            return pd_fail(err, PD_INVALID_ARGUMENT, "query %u weighs key column %u of %u", q,
                           query->key_weights[i].column, shape->nkeys);
        if (!isfinite(query->key_weights[i].weight))
            return pd_fail(err, PD_INVALID_ARGUMENT, "query %u: the weight of key %llu is not finite", q,
                           (unsigned long long)query->key_weights[i].value);
    }
    return PD_OK;
}

static pd_status check_query(const pd_shape *shape, uint32_t weights, const pd_query *query, uint32_t q,
                             int same, pd_error *err)
{
    if (query->k == 0 || query->k > PD_MAX_DEPTH)
        return pd_fail(err, PD_INVALID_ARGUMENT, "query %u: k is %u, it must be 1 to %u", q, query->k,
                       PD_MAX_DEPTH);
    if (query->depth > pd_refine_depth(PD_MAX_DEPTH))
        return pd_fail(err, PD_INVALID_ARGUMENT, "query %u: depth is %u, it must be at most %u", q,
                       query->depth, pd_refine_depth(PD_MAX_DEPTH));
    if (!(query->similarity >= 0.0f) || !isfinite(query->similarity))
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "query %u: the similarity's weight is %g, it must be 0 or more", q,
                       (double)query->similarity);
    if (isnan(query->min_score))
        return pd_fail(err, PD_INVALID_ARGUMENT, "query %u: min_score is not a number", q);
    if (query->vector && !all_finite(query->vector, shape->dim))
        return pd_fail(err, PD_INVALID_ARGUMENT, "query %u: its vector holds a value that is not finite", q);
    if (!same) {
        pd_status status = check_weights(shape, weights, query, q, err);
        if (status != PD_OK) return status;
    }
    return check_filter(shape, query->filter, q, err);
}

static pd_status check_queries(const pd_shape *shape, uint32_t weights, const pd_query *queries,
                               uint32_t count, pd_error *err)
{
    for (uint32_t q = 0; q < count; q++) {
        /* Queries of one request share their weights: look at them once. */
        int same = q > 0 && queries[q].weights == queries[q - 1].weights && queries[q].nkey_weights == 0;
        pd_status status = check_query(shape, weights, &queries[q], q, same, err);
        if (status != PD_OK) return status;
    }
    return PD_OK;
}

static pd_status check_places(const pd_index *index, const pd_query *query, uint32_t q, pd_error *err)
{
    uint32_t nlist = index->shape.nlist;
    if (query->probes && query->vector) {
        if (query->nprobe > nlist)
            return pd_fail(err, PD_INVALID_ARGUMENT, "query %u names %u lists to probe, there are %u", q,
                           query->nprobe, nlist);
        for (uint32_t i = 0; i < query->nprobe; i++)
            if (query->probes[i] >= nlist)
                return pd_fail(err, PD_INVALID_ARGUMENT, "query %u names list %u to probe, there are %u", q,
                               query->probes[i], nlist);
    }
    for (uint32_t i = 0; i < query->nslots; i++)
        if (query->slots[i] / PD_PAGE_ROWS >= index->npages)
            return pd_fail(err, PD_INVALID_ARGUMENT, "query %u names slot %u, there are %u pages", q,
                           query->slots[i], index->npages);
    return PD_OK;
}

/* ------------------------------------------------------------------------------------------------ searching --- */

pd_status pd_index_search(pd_index *index, const pd_query *queries, uint32_t count, pd_answer *answers,
                          pd_timing *timing, pd_error *err)
{
    pd_timing unused;
    if (!timing) timing = &unused;
    memset(timing, 0, sizeof *timing);
    if (count == 0) return PD_OK;
    pd_status status = check_queries(&index->shape, index->layout.weights, queries, count, err);
    for (uint32_t q = 0; status == PD_OK && q < count; q++)
        status = check_places(index, &queries[q], q, err);
    if (status != PD_OK) return status;
    return index->backend->search(index, queries, count, answers, timing, err);
}

pd_status pd_index_gather(pd_index *index, const uint32_t *slots, uint32_t n, const pd_rows *rows,
                          pd_error *err)
{
    return index->backend->gather(index, slots, n, rows, err);
}

/* ------------------------------------------------------------------------------------------------- changing --- */

/* Slots are looked at one by one; that they are distinct is the caller's to see to: telling would take memory, and a search of what
 * changed finds the last of two rows for one slot. */

static pd_status can_change(const pd_index *index, int implemented, pd_error *err)
{
    if (!index) return pd_fail(err, PD_INVALID_ARGUMENT, "there is no index to change or to read");
    if (implemented) return PD_OK;
    return pd_fail(err, PD_UNIMPLEMENTED, "the %s backend cannot change an index", index->backend->name);
}

static pd_status check_slots(const pd_index *index, const uint32_t *slots, uint32_t n, pd_error *err)
{
    for (uint32_t i = 0; i < n; i++)
        if (slots[i] / PD_PAGE_ROWS >= index->npages)
            return pd_fail(err, PD_OUT_OF_RANGE, "slot %u is in none of %u pages", slots[i], index->npages);
    return PD_OK;
}

pd_status pd_index_grow(pd_index *index, const uint32_t *lists, const uint32_t *pages, uint32_t n,
                        pd_error *err)
{
    pd_status status = can_change(index, index && index->backend->grow, err);
    for (uint32_t i = 0; status == PD_OK && i < n; i++) {
        if (lists[i] >= index->shape.nlist && index->shape.nlist > 0)
            status = pd_fail(err, PD_OUT_OF_RANGE, "list %u is to grow, there are %u", lists[i],
                             index->shape.nlist);
        else if (pages[i] >= index->npages)
            status = pd_fail(err, PD_OUT_OF_RANGE, "list %u is to grow by page %u, there are %u", lists[i],
                             pages[i], index->npages);
    }
    return status == PD_OK ? index->backend->grow(index, lists, pages, n, err) : status;
}

pd_status pd_index_write_rows(pd_index *index, const pd_row_writes *writes, pd_error *err)
{
    pd_status status = can_change(index, index && index->backend->write_rows, err);
    if (status == PD_OK) status = check_slots(index, writes->slots, writes->n, err);
    if (status != PD_OK) return status;
    if (writes->n > 0 && (!writes->pages || (index->layout.refine_bytes && !writes->refine)))
        return pd_fail(err, PD_INVALID_ARGUMENT, "%u rows are to be written without their %s", writes->n,
                       writes->pages ? "refine rows" : "pages");
    return index->backend->write_rows(index, writes, err);
}

static pd_status check_column(const pd_shape *shape, const pd_column_write *write, pd_error *err)
{
    static const char *const names[] = {"byte", "float", "key"};
    const uint32_t counts[] = {shape->nbytes, shape->nfloats, shape->nkeys};
    if ((uint32_t)write->kind > PD_COLUMN_KEY)
        return pd_fail(err, PD_INVALID_ARGUMENT, "there is no kind %u of column", (uint32_t)write->kind);
    if (write->column >= counts[write->kind])
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s column %u of %u is to be written", names[write->kind],
                       write->column, counts[write->kind]);
    if (!write->values)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s column %u is to be written without values",
                       names[write->kind], write->column);
    return PD_OK;
}

pd_status pd_index_write_columns(pd_index *index, const uint32_t *slots, uint32_t n,
                                 const pd_column_write *columns, uint32_t ncolumns, pd_error *err)
{
    pd_status status = can_change(index, index && index->backend->write_columns, err);
    for (uint32_t c = 0; status == PD_OK && c < ncolumns; c++)
        status = check_column(&index->shape, &columns[c], err);
    if (status == PD_OK) status = check_slots(index, slots, n, err);
    return status == PD_OK ? index->backend->write_columns(index, slots, n, columns, ncolumns, err) : status;
}

pd_status pd_index_empty_rows(pd_index *index, const uint32_t *slots, uint32_t n, pd_error *err)
{
    pd_status status = can_change(index, index && index->backend->empty_rows, err);
    if (status == PD_OK) status = check_slots(index, slots, n, err);
    return status == PD_OK ? index->backend->empty_rows(index, slots, n, err) : status;
}

pd_status pd_index_read_pages(pd_index *index, pd_page_kind kind, uint32_t first, uint32_t count,
                              void *memory, pd_error *err)
{
    pd_status status = can_change(index, index && index->backend->read_pages, err);
    if (status != PD_OK) return status;
    if (kind != PD_PAGES_MAIN && (kind != PD_PAGES_REFINE || index->layout.refine_bytes == 0))
        return pd_fail(err, PD_INVALID_ARGUMENT, "the index has no pages of kind %u", (uint32_t)kind);
    if (first > index->npages || count > index->npages - first)
        return pd_fail(err, PD_OUT_OF_RANGE, "%u pages from %u on are to be read, there are %u", count, first,
                       index->npages);
    return index->backend->read_pages(index, kind, first, count, memory, err);
}

/* ---------------------------------------------------------------------------------------------------- exact --- */

pd_status pd_exact_begin(pd_device *device, const pd_shape *shape, const pd_query *queries, uint32_t count,
                         pd_exact **out, pd_error *err)
{
    pd_layout layout;
    pd_status status = pd_layout_of(shape, &layout, err);
    if (status == PD_OK) status = check_queries(shape, layout.weights, queries, count, err);
    if (status != PD_OK) return status;
    return device->backend->exact_begin(device, shape, queries, count, out, err);
}

pd_status pd_exact_block(pd_device *device, pd_exact *exact, const pd_block *block, pd_error *err)
{
    if (block->dtype != PD_REFINE_F32 && block->dtype != PD_REFINE_F16)
        return pd_fail(err, PD_INVALID_ARGUMENT, "the rows of a block must be f32 or f16");
    if (block->npages == 0) return PD_OK;
    return device->backend->exact_block(exact, block, err);
}

pd_status pd_exact_end(pd_device *device, pd_exact *exact, pd_answer *answers, pd_error *err)
{
    if (!exact) return PD_OK;
    return device->backend->exact_end(exact, answers, err);
}

pd_status pd_device_assign(pd_device *device, const float *centroids, uint32_t nlist, uint32_t dim,
                           const float *rows, uint64_t n, uint32_t *lists, pd_error *err)
{
    if (nlist == 0 || dim == 0 || dim > PD_MAX_DIM)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%u centroids of %u dimensions", nlist, dim);
    if (n == 0) return PD_OK;
    return device->backend->assign(device, centroids, nlist, dim, rows, n, lists, err);
}
