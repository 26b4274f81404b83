/* A search: cut the queries into batches that scratch memory allows, and take each through choose, scan and refine. The
 * cuts change no answer: every score is one written sequence, and candidates are kept under a total order. */
#include <math.h>
#include <string.h>
#include <time.h>

#include "coarse.h"

/* Bounds on one batch's scratch: 4M pairs are 64 MiB, twice (as chosen and sorted); 8M candidates are 64 MiB. */
#define MOST_PAIRS      ((uint64_t)4 << 20)
#define MOST_CANDIDATES ((uint64_t)8 << 20)

/* With fewer queries than this for each thread, threads share lists instead. */
#define QUERIES_PER_THREAD 8u

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint32_t pd_cpu_depth(const pd_query *query, int refines)
{
    if (!refines || !query->vector) return query->k;
    uint32_t depth = query->depth ? query->depth : pd_refine_depth(query->k);
    return depth > query->k ? depth : query->k;
}

/* How many queries, from the first, go together. */
static uint32_t cut(const pd_host_index *index, const pd_query *queries, uint32_t count, uint32_t copies,
                    int refines)
{
    uint64_t pairs = 0, candidates = 0;
    uint32_t n = 0;
    for (; n < count; n++) {
        pairs += pd_cpu_probes(index, &queries[n]);
        candidates += (uint64_t)pd_shortlist_room(pd_cpu_depth(&queries[n], refines)) * copies;
        if (n > 0 && (pairs > MOST_PAIRS || candidates > MOST_CANDIDATES)) break;
    }
    return n;
}

static size_t up64(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

/* Each worker's memory is one piece, cut up here. */
static pd_status take_workers(pd_batch *batch, uint32_t hits, pd_error *err)
{
    const pd_shape *shape = &batch->index->base.shape;
    size_t nlist = pd_host_nlist(batch->index), most = nlist > batch->room ? nlist : batch->room;
    const size_t sizes[] = {
        hits * sizeof(pd_hit),
        (size_t)PD_PAGE_ROWS * pd_dim16(shape->dim) * sizeof(float),
        PD_GROUP * pd_packed_bytes(batch->device->i8, pd_dim64(batch->index->base.layout.code_dim)),
        nlist * sizeof(float),
        nlist * sizeof(float),
        2 * (most + 32) * sizeof(float),
        nlist * sizeof(uint32_t),
        nlist,
        nlist * sizeof(float),
        batch->index->base.layout.weights * sizeof(float)};
    size_t each = 0, threads = pd_pool_threads(batch->device->pool);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        each += up64(sizes[i]);
    size_t head = up64(threads * sizeof(pd_worker));
    pd_buffer *memory = &batch->device->scratch[PD_SCRATCH_WORKER];
    pd_status status = pd_buffer_need(memory, head + threads * each, "workers", err);
    if (status != PD_OK) return status;
    batch->workers = memory->data;
    for (size_t t = 0; t < threads; t++) {
        unsigned char *at = (unsigned char *)memory->data + head + t * each,
                      *pieces[sizeof sizes / sizeof *sizes];
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            pieces[i] = at;
            at += up64(sizes[i]);
        }
        batch->workers[t] = (pd_worker){.hits = (pd_hit *)(void *)pieces[0],
                                        .tile = (float *)(void *)pieces[1],
                                        .group = pieces[2],
                                        .summary = (float *)(void *)pieces[3],
                                        .factors = (float *)(void *)pieces[4],
                                        .pick = (float *)(void *)pieces[5],
                                        .lists = (uint32_t *)(void *)pieces[6],
                                        .mark = pieces[7],
                                        .best = (float *)(void *)pieces[8],
                                        .power = (float *)(void *)pieces[9]};
        memset(pieces[7], 0, nlist);
    }
    return PD_OK;
}

static pd_status take_pairs(pd_batch *batch, pd_error *err)
{
    pd_buffer *scratch = batch->device->scratch;
    uint32_t threads = pd_pool_threads(batch->device->pool);
    size_t nlist = pd_host_nlist(batch->index);
    uint32_t copies = batch->by_query ? batch->parts : 1;
    pd_status status =
        pd_buffer_need(&scratch[PD_SCRATCH_STARTS], ((size_t)batch->n + 1) * sizeof(uint32_t), "starts", err);
    if (status != PD_OK) return status;
    batch->starts = scratch[PD_SCRATCH_STARTS].data;
    batch->starts[0] = 0;
    uint32_t most = 1;
    for (uint32_t q = 0; q < batch->n; q++) {
        uint32_t probes = pd_cpu_probes(batch->index, &batch->queries[q]);
        most = probes > most ? probes : most;
        batch->starts[q + 1] = batch->starts[q] + probes;
    }
    size_t pairs = batch->starts[batch->n];
    status = pd_buffer_need(&scratch[PD_SCRATCH_PAIRS], pairs * sizeof(pd_pair), "pairs", err);
    if (status == PD_OK)
        status = pd_buffer_need(&scratch[PD_SCRATCH_SORTED], pairs * sizeof(pd_pair), "sorted pairs", err);
    if (status == PD_OK)
        status = pd_buffer_need(&scratch[PD_SCRATCH_COUNTS], copies * (nlist + 1) * sizeof(uint32_t),
                                "counts", err);
    if (status == PD_OK)
        status = pd_buffer_need(&scratch[PD_SCRATCH_TERMS],
                                (size_t)pd_coarse_rows(batch->index, threads, batch->n) *
                                    pd_pages_for(nlist) * PD_PAGE_ROWS * sizeof(float),
                                "list terms", err);
    if (status == PD_OK) status = pd_levels_memory(batch, err);
    if (status != PD_OK) return status;
    batch->pairs = scratch[PD_SCRATCH_PAIRS].data;
    batch->sorted = scratch[PD_SCRATCH_SORTED].data;
    batch->counts = scratch[PD_SCRATCH_COUNTS].data;
    batch->terms = scratch[PD_SCRATCH_TERMS].data;
    uint32_t hits = most;
    batch->room = 0;
    for (uint32_t q = 0; q < batch->n; q++) {
        uint32_t room = pd_shortlist_room(pd_cpu_depth(&batch->queries[q], batch->refines));
        uint32_t top = pd_topk_room(batch->queries[q].k);
        batch->room = room > batch->room ? room : batch->room;
        hits = top > hits ? top : hits;
    }
    return take_workers(batch, hits > batch->room ? hits : batch->room, err);
}

static pd_status take_candidates(pd_batch *batch, pd_error *err)
{
    pd_buffer *scratch = batch->device->scratch;
    uint32_t copies = batch->by_query ? 1 : batch->parts;
    size_t room = 0;
    for (uint32_t q = 0; q < batch->n; q++)
        room += pd_shortlist_room(pd_cpu_depth(&batch->queries[q], batch->refines)) + 16;
    pd_status status = pd_buffer_need(&scratch[PD_SCRATCH_CANDIDATES],
                                      (size_t)copies * batch->n * sizeof(pd_shortlist), "candidates", err);
    if (status == PD_OK)
        status = pd_buffer_need(&scratch[PD_SCRATCH_ENTRIES], copies * room * 3 * sizeof(float), "candidates",
                                err);
    if (status != PD_OK) return status;
    batch->candidates = scratch[PD_SCRATCH_CANDIDATES].data;
    float *entries = scratch[PD_SCRATCH_ENTRIES].data;
    for (uint32_t c = 0; c < copies; c++) {
        for (uint32_t q = 0; q < batch->n; q++) {
            const pd_query *query = &batch->queries[q];
            uint32_t depth = pd_cpu_depth(query, batch->refines);
            size_t each = pd_shortlist_room(depth) + 16;
            /* min_score applies to the final score; a code's score is final only where nothing refines it. */
            pd_shortlist_init(&batch->candidates[(size_t)c * batch->n + q], entries, depth,
                              batch->refines && query->vector ? -INFINITY : query->min_score);
            entries += 3 * each;
        }
    }
    return PD_OK;
}

static pd_status search_batch(pd_batch *batch, pd_timing *timing, pd_error *err)
{
    pd_cpu_device *device = batch->device;
    const pd_shape *shape = &batch->index->base.shape;
    uint64_t t0 = now_ns();
    pd_status status = pd_prepare(device, shape, &batch->index->base.layout, batch->index, batch->queries,
                                  batch->n, &device->prepared, err);
    if (status == PD_OK) status = take_pairs(batch, err);
    if (status == PD_OK) status = take_candidates(batch, err);
    if (status != PD_OK) return status;
    batch->preps = device->prepared.preps;
    pd_cpu_coarse(batch);
    uint64_t t1 = now_ns();
    status = pd_cpu_scan(batch, err);
    if (status != PD_OK) return status;
    uint64_t t2 = now_ns();
    pd_cpu_refine(batch);
    timing->coarse_ns += t1 - t0;
    timing->scan_ns += t2 - t1;
    timing->refine_ns += now_ns() - t2;
    return PD_OK;
}

pd_status pd_cpu_search(pd_index *base, const pd_query *queries, uint32_t count, pd_answer *answers,
                        pd_timing *timing, pd_error *err)
{
    pd_cpu_index *index = (pd_cpu_index *)base;
    pd_status status = pd_host_ready(&index->host, err);
    uint32_t threads = pd_pool_threads(index->device->pool);
    const pd_shape *shape = &base->shape;
    for (uint32_t done = 0; status == PD_OK && done < count;) {
        pd_batch batch = {.device = index->device, .index = &index->host};
        batch.queries = queries + done;
        batch.answers = answers + done;
        batch.refines = shape->code != PD_CODE_NONE && shape->refine != PD_REFINE_NONE;
        batch.by_query = threads == 1 || count - done >= QUERIES_PER_THREAD * threads;
        batch.parts = threads;
        batch.n = cut(&index->host, batch.queries, count - done, batch.by_query ? 1 : threads, batch.refines);
        status = search_batch(&batch, timing, err);
        done += batch.n;
    }
    /* The caller goes on to other work; the pool's own threads rest when they go to sleep. */
    if (index->device->i8->rest) index->device->i8->rest();
    return status;
}
