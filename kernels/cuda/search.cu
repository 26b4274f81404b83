/* A search: the queries are cut into batches that scratch memory allows, and each goes through the stages on a lane of its own.
 *
 * Two lanes are under way: while the kernels of one batch run, the host packs the next into the other lane's pinned memory and
 * sends it off, and reads the answers of the one before. The cuts change no answer. A lane is used again when the answers of its
 * last batch have been read, so that nothing of it can still be in use.
 */
#include "cuda.h"

/* Bounds on one batch. 8M pairs are 64 MiB of numbers a copy; 8M candidates as much; tables and vectors stay under 256 MiB. (The
 * tests have smaller batches, so that several are under way.) */
#ifndef MOST_QUERIES
#define MOST_QUERIES 16384u
#endif
/* A search of at least so many queries is two batches where that costs nothing. (The tests have fewer.) */
#ifndef HALVES_FROM
#define HALVES_FROM 2048u
#endif
#define MOST_PAIRS      ((uint64_t)8 << 20)
#define MOST_CANDIDATES ((uint64_t)8 << 20)
#define MOST_BYTES      ((uint64_t)256 << 20)

typedef struct flight {
    pd_cuda_batch batch;
    pd_answer *answers;                              /* [batch.n]; NULL: the lane is free */
    size_t hits_at, counts_at, scanned_at, pairs_at; /* in lane->out */
} flight;

typedef struct search_job {
    pd_cuda_device *device;
    pd_cuda_index *index;
    const pd_query *queries;
    pd_answer *answers;
    uint32_t count;
    int refines;
    pd_timing *timing;
    flight flights[PD_CUDA_LANES];
} search_job;

/* Where the lists of a batch are read for more queries than two tiles hold, half of them read each list as often as it takes anyway: two
 * halves then hide packing and reading of one behind the kernels of the other. Where lists are shared by fewer, the second reading
 * would cost more than that (docs/CUDA.md). */
static uint32_t half_of(const search_job *job, uint32_t n, uint64_t pairs)
{
    if (n < job->count || n < HALVES_FROM || pairs / job->index->view.nlist < 64) return n;
    return ((n + 1) / 2 + 31) & ~31u;
}

/* How many queries, from the first, go together. */
static uint32_t cut(const search_job *job, uint32_t first)
{
    const pd_cuda_view *view = &job->index->view;
    uint64_t pairs = 0, held = 0, candidates = 0, bytes = 0;
    uint32_t n = 0, most = 0;
    for (; first + n < job->count && n < MOST_QUERIES; n++) {
        const pd_query *query = &job->queries[first + n];
        pairs += pd_cuda_probes(view, query);
        /* Every query's candidates get the room of the one that keeps most (scan.cu). */
        uint32_t keep = pd_cuda_keep(query, job->refines);
        most = keep > most ? keep : most;
        candidates = (uint64_t)(n + 1) * most;
        bytes += (uint64_t)view->dim16 * sizeof(float) +
                 (uint64_t)query->nkey_weights * sizeof(pd_key_weight) +
                 (uint64_t)query->nexclude * sizeof(uint64_t) + (uint64_t)query->nslots * sizeof(uint32_t);
        if (n == 0 || query->weights != query[-1].weights) bytes += (uint64_t)view->weights * sizeof(float);
        if (n > 0 && (pairs > MOST_PAIRS || candidates > MOST_CANDIDATES || bytes > MOST_BYTES)) break;
        held = pairs;
    }
    return half_of(job, n, held);
}

static pd_status record(flight *f, pd_cuda_event event, pd_error *err)
{
    return pd_cuda_check(f->batch.device, cudaEventRecord(f->batch.lane->events[event], f->batch.stream),
                         "marking a stage", err);
}

static pd_status take_answers(pd_cuda_batch *b, pd_error *err)
{
    pd_status status = pd_take(b, b->nhits, "hits", &b->hits, err);
    if (status == PD_OK) status = pd_take(b, b->n, "counts", &b->counts, err);
    if (status == PD_OK) status = pd_take(b, b->n, "counts", &b->scanned, err);
    if (status == PD_OK)
        status =
            pd_cuda_check(b->device, cudaMemsetAsync(b->scanned, 0, b->n * sizeof *b->scanned, b->stream),
                          "clearing counts", err);
    return status;
}

static pd_status run_stages(flight *f, pd_error *err)
{
    pd_cuda_batch *b = &f->batch;
    pd_status status = record(f, PD_EVENT_START, err);
    if (status == PD_OK) status = pd_cuda_prep(b, err);
    if (status == PD_OK) status = pd_cuda_coarse(b, err);
    if (status == PD_OK) status = pd_cuda_pairs(b, err);
    if (status == PD_OK) status = record(f, PD_EVENT_COARSE, err);
    if (status == PD_OK) status = pd_cuda_scan(b, err);
    if (status == PD_OK) status = record(f, PD_EVENT_SCAN, err);
    if (status == PD_OK) status = pd_cuda_refine(b, err);
    if (status == PD_OK) status = record(f, PD_EVENT_REFINE, err);
    return status;
}

static pd_status copy_out(flight *f, pd_error *err)
{
    pd_cuda_batch *b = &f->batch;
    size_t bytes = 0;
    f->hits_at = bytes, bytes += b->nhits * sizeof *b->hits;
    f->scanned_at = bytes, bytes += b->n * sizeof *b->scanned;
    f->counts_at = bytes, bytes += ((size_t)b->n + 1) / 2 * 2 * sizeof *b->counts;
    f->pairs_at = bytes, bytes += b->want_probes ? b->npairs * sizeof *b->pairs : 0;
    pd_status status = pd_cuda_pinned_need(b->device, &b->lane->out, bytes, "answers", err);
    if (status != PD_OK) return status;
    unsigned char *to = b->lane->out.data;
    const cudaMemcpyKind out = cudaMemcpyDeviceToHost;
    cudaError_t error = cudaMemcpyAsync(to + f->hits_at, b->hits, b->nhits * sizeof *b->hits, out, b->stream);
    if (error == cudaSuccess)
        error = cudaMemcpyAsync(to + f->scanned_at, b->scanned, b->n * sizeof *b->scanned, out, b->stream);
    if (error == cudaSuccess)
        error = cudaMemcpyAsync(to + f->counts_at, b->counts, b->n * sizeof *b->counts, out, b->stream);
    if (error == cudaSuccess && b->want_probes && b->npairs > 0)
        error = cudaMemcpyAsync(to + f->pairs_at, b->pairs, b->npairs * sizeof *b->pairs, out, b->stream);
    status = pd_cuda_check(b->device, error, "copying answers out", err);
    return status == PD_OK ? record(f, PD_EVENT_DONE, err) : status;
}

static pd_status depart(search_job *job, flight *f, pd_cuda_lane *lane, uint32_t first, uint32_t n,
                        pd_error *err)
{
    pd_cuda_batch *b = &f->batch;
    memset(b, 0, sizeof *b);
    b->device = job->device;
    b->index = job->index;
    b->lane = lane;
    b->stream = lane->stream;
    b->refines = job->refines;
    pd_status status = pd_cuda_arena_reset(job->device, &lane->arena, err);
    if (status == PD_OK) status = pd_cuda_settle(job->index, lane->stream, err);
    if (status != PD_OK) return status;
    b->view = job->index->view;
    for (uint32_t q = 0; q < n; q++)
        b->want_probes |= job->answers[first + q].probes != NULL;
    status = pd_cuda_upload(b, job->queries + first, n, &job->index->host.base.shape, err);
    if (status == PD_OK) status = take_answers(b, err);
    if (status == PD_OK) status = run_stages(f, err);
    if (status == PD_OK) status = copy_out(f, err);
    if (status == PD_OK) f->answers = job->answers + first;
    return status;
}

static pd_status add_time(const flight *f, pd_cuda_event first, pd_cuda_event last, uint64_t *ns,
                          pd_error *err)
{
    float ms = 0;
    const cudaEvent_t *events = f->batch.lane->events;
    pd_status status = pd_cuda_check(f->batch.device, cudaEventElapsedTime(&ms, events[first], events[last]),
                                     "taking the time", err);
    if (status == PD_OK) *ns += (uint64_t)((double)ms * 1e6);
    return status;
}

/* queries: of this flight */
static void read_answers(const flight *f, const pd_query *queries)
{
    const pd_cuda_batch *b = &f->batch;
    const unsigned char *from = b->lane->out.data;
    const pd_hit *hits = (const pd_hit *)(from + f->hits_at);
    const uint32_t *counts = (const uint32_t *)(from + f->counts_at);
    const unsigned long long *scanned = (const unsigned long long *)(from + f->scanned_at);
    const pd_cuda_pair *pairs = (const pd_cuda_pair *)(from + f->pairs_at);
    for (uint32_t q = 0; q < b->n; q++) {
        pd_answer *answer = &f->answers[q];
        uint32_t probes = pd_cuda_probes(&b->view, &queries[q]);
        answer->count = counts[q];
        answer->scanned = scanned[q];
        answer->nprobe = b->view.listed ? probes : 0;
        memcpy(answer->hits, hits, counts[q] * sizeof *hits);
        for (uint32_t i = 0; answer->probes && b->view.listed && queries[q].vector && i < probes; i++)
            answer->probes[i] = pairs[i].list;
        hits += queries[q].k;
        pairs += probes;
    }
}

static pd_status arrive(search_job *job, flight *f, pd_error *err)
{
    if (!f->answers) return PD_OK;
    pd_status status = pd_cuda_check(job->device, cudaEventSynchronize(f->batch.lane->events[PD_EVENT_DONE]),
                                     "searching", err);
    if (status == PD_OK) {
        pd_timing *t = job->timing;
        read_answers(f, job->queries + (f->answers - job->answers));
        status = add_time(f, PD_EVENT_START, PD_EVENT_COARSE, &t->coarse_ns, err);
        if (status == PD_OK) status = add_time(f, PD_EVENT_COARSE, PD_EVENT_SCAN, &t->scan_ns, err);
        if (status == PD_OK) status = add_time(f, PD_EVENT_SCAN, PD_EVENT_REFINE, &t->refine_ns, err);
    }
    f->answers = NULL;
    return status;
}

pd_status pd_cuda_search(pd_index *base, const pd_query *queries, uint32_t count, pd_answer *answers,
                         pd_timing *timing, pd_error *err)
{
    pd_cuda_index *index = (pd_cuda_index *)base;
    search_job job = {};
    job.device = index->device;
    job.index = index;
    job.queries = queries;
    job.answers = answers;
    job.count = count;
    job.timing = timing;
    job.refines = base->shape.code != PD_CODE_NONE && base->shape.refine != PD_REFINE_NONE;
    pd_status status = pd_cuda_enter(job.device, err);
    if (status == PD_OK) status = pd_host_ready(&index->host, err);
    if (status != PD_OK) return status;
    uint32_t lane = 0;
    for (uint32_t done = 0, n; status == PD_OK && done < count; done += n, lane ^= 1) {
        flight *f = &job.flights[lane];
        n = cut(&job, done);
        status = arrive(&job, f, err);
        if (status == PD_OK) status = depart(&job, f, &job.device->lanes[lane], done, n, err);
    }
    for (uint32_t i = 0; i < PD_CUDA_LANES; i++, lane ^= 1) {
        pd_status last = arrive(&job, &job.flights[lane], status == PD_OK ? err : NULL);
        if (status == PD_OK) status = last;
    }
    /* After a failure nothing may still be under way: the caller's next step may be to close the index. */
    for (uint32_t i = 0; status != PD_OK && i < PD_CUDA_LANES; i++)
        (void)cudaStreamSynchronize(job.device->lanes[i].stream);
    return status;
}
