/* pados-gpu-scale: a table of any size made, built and searched on the device, with no file and no row of it on the host.
 *
 *     pados-gpu-scale ROWSxDIM NLIST [--columns N] [--refine none|f16|f32] [--truth QUERIES] [--json FILE]
 *
 * Rows are those of pados-bench --generate (bench/law.h); k-means over the first of them, the lists of all, and their pages are
 * made on the device. Recall is measured against exact search there, over all rows. Beside every time stands its floor: the bytes that
 * must be read, at the speed of a copy on this very device. */
#include <time.h>

#include "law_source.cuh"

/* (The harness runs all of it, with fewer.) */
#ifndef POOL
#define POOL       10000u /* queries, and the largest batch */
#define COPY_BYTES ((size_t)1 << 30)
#define SECONDS    2.0 /* of a timing, at least seven runs */
#endif
#define K           10u
#define SAMPLE_EACH 32u /* rows of the training sample for each list */
#ifndef GROUPS_FROM
#define GROUPS_FROM 16384u
#endif
#define MOST_COLUMNS 8u
#define VALUES       32u /* of a column */
#define TARGET       0.95

typedef struct options {
    uint64_t rows;
    uint32_t dim, nlist, columns, truth;
    pd_refine refine;
    FILE *json;
} options;

typedef struct table {
    const options *o;
    pd_cuda_device *device;
    pd_index *index;
    law_source law;
    float *centroids;          /* [nlist][dim] */
    uint32_t ngroups, *first;  /* [ngroups + 1] */
    uint32_t *lists, *counts;  /* [rows], [nlist] */
    uint32_t *offsets, *pages; /* [nlist + 1], [npages] */
    uint32_t npages;
    float *queries; /* [POOL][dim] */
    double copy;    /* bytes a second that a copy reads and writes */
} table;

static double now()
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void must(pd_status status, const pd_error *err)
{
    if (status == PD_OK) return;
    fprintf(stderr, "pados-gpu-scale: %s\n", err->message);
    exit(1);
}

static void *memory_of(size_t bytes)
{
    void *data = calloc(bytes ? bytes : 1, 1);
    if (data) return data;
    fprintf(stderr, "pados-gpu-scale: no memory for %zu bytes\n", bytes);
    exit(1);
}

static void took(const char *what, double since, double floor)
{
    printf("%-28s %9.2f s", what, now() - since);
    if (floor > 0) printf("   floor %.2f s", floor);
    printf("\n");
    fflush(stdout);
}

/* ------------------------------------------------------------------------------------------------ the device --- */

static void measure_copy(table *t)
{
    const size_t bytes = COPY_BYTES;
    pd_error err;
    pd_cuda_lane *lane = &t->device->side;
    unsigned char *from = NULL, *to = NULL;
    float ms = 0;
    cudaError_t error = cudaMalloc((void **)&from, bytes);
    if (error == cudaSuccess) error = cudaMalloc((void **)&to, bytes);
    if (error == cudaSuccess) error = cudaMemsetAsync(from, 1, bytes, lane->stream);
    for (int i = 0; error == cudaSuccess && i < 11; i++) {
        if (i == 1) error = cudaEventRecord(lane->events[PD_EVENT_START], lane->stream);
        if (error == cudaSuccess)
            error = cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, lane->stream);
    }
    if (error == cudaSuccess) error = cudaEventRecord(lane->events[PD_EVENT_DONE], lane->stream);
    if (error == cudaSuccess) error = cudaStreamSynchronize(lane->stream);
    if (error == cudaSuccess)
        error = cudaEventElapsedTime(&ms, lane->events[PD_EVENT_START], lane->events[PD_EVENT_DONE]);
    must(pd_cuda_check(t->device, error, "measuring a copy", &err), &err);
    cudaFree(from);
    cudaFree(to);
    t->copy = 10.0 * 2.0 * (double)bytes / (1e-3 * (double)ms);
    printf("a copy reads and writes %.0f GB/s\n", t->copy * 1e-9);
}

/* Rows 0 .. n - 1 to the host. */
static float *read_rows(table *t, uint64_t n)
{
    const uint64_t piece = 1 << 18;
    uint32_t dim = t->o->dim;
    float *host = (float *)memory_of(n * dim * sizeof *host), *rows = NULL;
    pd_error err;
    cudaStream_t stream = t->device->side.stream;
    cudaError_t error = cudaMalloc((void **)&rows, piece * dim * sizeof *rows);
    for (uint64_t done = 0; error == cudaSuccess && done < n; done += piece) {
        uint32_t some = n - done < piece ? (uint32_t)(n - done) : (uint32_t)piece;
        error = law_source_rows(&t->law, done, some, rows, stream);
        if (error == cudaSuccess)
            error = cudaMemcpyAsync(host + done * dim, rows, (size_t)some * dim * sizeof *rows,
                                    cudaMemcpyDeviceToHost, stream);
        if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
    }
    must(pd_cuda_check(t->device, error, "reading rows", &err), &err);
    cudaFree(rows);
    return host;
}

/* ------------------------------------------------------------------------------------------------ building --- */

/* Lists are numbered group by group (decision 11). */
static void group_lists(table *t)
{
    uint32_t dim = t->o->dim, nlist = t->o->nlist, n = t->ngroups = (uint32_t)(2.0 * sqrt((double)nlist));
    float *groups = (float *)memory_of((size_t)n * dim * sizeof *groups);
    float *sorted = (float *)memory_of((size_t)nlist * dim * sizeof *sorted);
    uint32_t *of = (uint32_t *)memory_of(nlist * sizeof *of), used = 0;
    pd_error err;
    must(pd_cuda_train(&t->device->base, t->centroids, nlist, dim, n, 1, 0, groups, &err), &err);
    must(pd_cuda_assign(&t->device->base, groups, n, dim, t->centroids, nlist, of, &err), &err);
    t->first = (uint32_t *)memory_of(((size_t)n + 1) * sizeof *t->first);
    for (uint32_t g = 0; g < n; g++) {
        for (uint32_t l = 0; l < nlist; l++)
            if (of[l] == g)
                memcpy(sorted + (size_t)used++ * dim, t->centroids + (size_t)l * dim, dim * sizeof *sorted);
        t->first[g + 1] = used;
    }
    free(t->centroids);
    t->centroids = sorted;
    free(groups);
    free(of);
}

static void train(table *t)
{
    const options *o = t->o;
    uint64_t n = (uint64_t)SAMPLE_EACH * o->nlist < o->rows ? (uint64_t)SAMPLE_EACH * o->nlist : o->rows;
    double since = now();
    pd_error err;
    float *sample = read_rows(t, n);
    t->centroids = (float *)memory_of((size_t)o->nlist * o->dim * sizeof *t->centroids);
    must(pd_cuda_train(&t->device->base, sample, n, o->dim, o->nlist, 1, 0, t->centroids, &err), &err);
    if (o->nlist >= GROUPS_FROM) group_lists(t);
    free(sample);
    took("training", since, 0);
}

static pd_shape shape_of(const options *o)
{
    pd_shape shape = {};
    shape.metric = PD_L2;
    shape.code = PD_CODE_I8;
    shape.refine = o->refine;
    shape.dim = o->dim;
    shape.nlist = o->nlist;
    shape.nbytes = o->columns;
    for (uint32_t c = 0; c < o->columns; c++)
        shape.sizes[c] = VALUES;
    return shape;
}

/* The lists of rows become their slots, in place. */
static void deal_slots(table *t)
{
    const options *o = t->o;
    t->counts = (uint32_t *)memory_of(o->nlist * sizeof *t->counts);
    t->offsets = (uint32_t *)memory_of(((size_t)o->nlist + 1) * sizeof *t->offsets);
    uint32_t *next = (uint32_t *)memory_of(o->nlist * sizeof *next);
    for (uint64_t i = 0; i < o->rows; i++)
        t->counts[t->lists[i]]++;
    for (uint32_t l = 0; l < o->nlist; l++)
        t->offsets[l + 1] = t->offsets[l] + pd_pages_for(t->counts[l]);
    t->npages = t->offsets[o->nlist];
    t->pages = (uint32_t *)memory_of(t->npages * sizeof *t->pages);
    for (uint32_t p = 0; p < t->npages; p++)
        t->pages[p] = p;
    for (uint64_t i = 0; i < o->rows; i++) {
        uint32_t list = t->lists[i];
        t->lists[i] = t->offsets[list] * PD_PAGE_ROWS + next[list]++;
    }
    free(next);
}

static void build(table *t)
{
    const options *o = t->o;
    double since = now(), began = since;
    pd_error err;
    train(t);
    since = now();
    t->lists = (uint32_t *)memory_of(o->rows * sizeof *t->lists);
    must(pd_cuda_assign_source(t->device, t->centroids, o->nlist, &t->law.source, t->lists, &err), &err);
    took("assigning all rows", since, 0);
    deal_slots(t);
    since = now();
    pd_index_spec spec = {shape_of(o), t->npages, "made@1"};
    must(pd_index_open(&t->device->base, &spec, &t->index, &err), &err);
    pd_lists lists = {};
    lists.centroids = t->centroids;
    lists.offsets = t->offsets;
    lists.pages = t->pages;
    lists.rows = t->counts;
    lists.ngroups = t->ngroups;
    lists.group_first = t->first;
    must(pd_index_set_lists(t->index, &lists, &err), &err);
    must(pd_cuda_fill((pd_cuda_index *)t->index, &t->law.source, t->lists, &err), &err);
    double bytes = (double)pd_index_bytes(&spec);
    took("filling pages", since, bytes / (t->copy / 2));
    took("building, all of it", began, 0);
    printf("%.1f GB resident: %.1f bytes a row, %u pages, %u lists, %u groups\n", bytes * 1e-9,
           bytes / (double)o->rows, t->npages, o->nlist, t->ngroups);
    if (o->json)
        fprintf(o->json,
                "{\"table\": \"%llux%u\", \"nlist\": %u, \"build_s\": %.2f, \"bytes\": %.0f, \"copy_gbs\": "
                "%.1f}\n",
                (unsigned long long)o->rows, o->dim, o->nlist, now() - began, bytes, t->copy * 1e-9);
}

/* ------------------------------------------------------------------------------------------------ searching --- */

static void make_query(const table *t, uint32_t q, uint32_t nprobe, const float *weights, pd_query *query)
{
    memset(query, 0, sizeof *query);
    query->vector = t->queries + (size_t)(q % POOL) * t->o->dim;
    query->similarity = 1.0f;
    query->weights = weights;
    query->nprobe = nprobe;
    query->k = K;
    query->min_score = -INFINITY;
}

static pd_hit *answers_for(uint32_t n, pd_answer *answers)
{
    pd_hit *hits = (pd_hit *)memory_of((size_t)n * K * sizeof *hits);
    for (uint32_t q = 0; q < n; q++) {
        memset(&answers[q], 0, sizeof answers[q]);
        answers[q].hits = hits + (size_t)q * K;
    }
    return hits;
}

static pd_hit *find_truth(const table *t, pd_answer *answers)
{
    uint32_t n = t->o->truth;
    pd_query *queries = (pd_query *)memory_of(n * sizeof *queries);
    pd_hit *hits = answers_for(n, answers);
    pd_shape shape = shape_of(t->o);
    pd_exact *exact = NULL;
    pd_error err;
    double since = now();
    for (uint32_t q = 0; q < n; q++)
        make_query(t, q, 0, NULL, &queries[q]);
    must(pd_exact_begin(&t->device->base, &shape, queries, n, &exact, &err), &err);
    must(pd_cuda_exact_source(exact, &t->law.source, &err), &err);
    must(pd_exact_end(&t->device->base, exact, answers, &err), &err);
    took("exact search of the truth", since, 0);
    free(queries);
    return hits;
}

static double recall_at(const table *t, uint32_t nprobe, const pd_answer *truth)
{
    uint32_t n = t->o->truth, found = 0;
    pd_query *queries = (pd_query *)memory_of(n * sizeof *queries);
    pd_answer *answers = (pd_answer *)memory_of(n * sizeof *answers);
    pd_hit *hits = answers_for(n, answers);
    pd_error err;
    for (uint32_t q = 0; q < n; q++)
        make_query(t, q, nprobe, NULL, &queries[q]);
    must(pd_index_search(t->index, queries, n, answers, NULL, &err), &err);
    for (uint32_t q = 0; q < n; q++)
        for (uint32_t i = 0; i < K; i++)
            for (uint32_t j = 0; j < answers[q].count; j++)
                found += truth[q].hits[i].id == answers[q].hits[j].id;
    free(queries);
    free(answers);
    free(hits);
    return (double)found / ((double)n * K);
}

static uint32_t find_nprobe(const table *t, const pd_answer *truth)
{
    for (uint32_t nprobe = 4;; nprobe += nprobe < 16 ? 4 : nprobe / 4) {
        if (nprobe > t->o->nlist) nprobe = t->o->nlist;
        double recall = recall_at(t, nprobe, truth);
        printf("nprobe %5u: recall@%u %.4f\n", nprobe, K, recall);
        if (recall >= TARGET || nprobe == t->o->nlist) return nprobe;
    }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* One batch size; weights: [POOL][columns * VALUES], or NULL. Returns queries a second. */
static double time_batch(const table *t, uint32_t batch, uint32_t nprobe, const float *weights,
                         const char *what)
{
    enum { MOST = 200 };
    const options *o = t->o;
    pd_query *queries = (pd_query *)memory_of(batch * sizeof *queries);
    pd_answer *answers = (pd_answer *)memory_of(batch * sizeof *answers);
    pd_hit *hits = answers_for(batch, answers);
    double times[MOST], scan[MOST], since = now();
    uint32_t n = 0;
    pd_error err;
    for (uint32_t run = 0; run < MOST + 2 && (run < 7 || now() - since < SECONDS); run++) {
        pd_timing timing;
        for (uint32_t q = 0; q < batch; q++)
            make_query(t, run * batch + q, nprobe,
                       weights ? weights + (size_t)((run * batch + q) % POOL) * o->columns * VALUES : NULL,
                       &queries[q]);
        double begin = now();
        must(pd_index_search(t->index, queries, batch, answers, &timing, &err), &err);
        if (run < 2) continue; /* scratch memory grows in the first */
        times[n] = now() - begin;
        scan[n++] = 1e-9 * (double)timing.scan_ns;
    }
    qsort(times, n, sizeof *times, ascending);
    qsort(scan, n, sizeof *scan, ascending);
    double lists = (double)batch * nprobe, reuse = lists / o->nlist;
    if (reuse >= 2) lists = o->nlist * (1 - pow(1 - (double)nprobe / o->nlist, (double)batch));
    double bytes = lists * t->npages / o->nlist * (t->index->layout.dim4 * 32.0 + 256.0),
           floor = bytes / t->copy;
    printf("%-20s %7u %6u %11.0f %9.3f %9.3f %9.3f %8.0f%%\n", what, batch, nprobe, batch / times[n / 2],
           1e3 * times[n / 2], 1e3 * scan[n / 2], 1e3 * floor, 100 * floor / scan[n / 2]);
    fflush(stdout);
    if (o->json)
        fprintf(o->json,
                "{\"table\": \"%llux%u\", \"what\": \"%s\", \"batch\": %u, \"nprobe\": %u, \"qps\": %.0f, "
                "\"p50_ms\": "
                "%.4f, \"scan_ms\": %.4f, \"scan_floor_ms\": %.4f}\n",
                (unsigned long long)o->rows, o->dim, what, batch, nprobe, batch / times[n / 2],
                1e3 * times[n / 2], 1e3 * scan[n / 2], 1e3 * floor);
    double qps = batch / times[n / 2];
    free(queries);
    free(answers);
    free(hits);
    return qps;
}

static void measure(const table *t, uint32_t nprobe)
{
    static const uint32_t batches[] = {POOL, 1024, 64, 1};
    const options *o = t->o;
    double plain = 0;
    printf("%-20s %7s %6s %11s %9s %9s %9s %9s\n", "", "batch", "nprobe", "queries/s", "p50 ms", "scan ms",
           "floor ms", "of copy");
    for (uint32_t batch : batches) {
        double qps = time_batch(t, batch < POOL ? batch : POOL, nprobe, NULL, "similarity");
        if (batch == POOL) plain = qps;
    }
    if (o->columns == 0) return;
    float *weights = (float *)memory_of((size_t)POOL * o->columns * VALUES * sizeof *weights);
    for (size_t i = 0; i < (size_t)POOL * o->columns * VALUES; i++)
        weights[i] = 0.3f * law_normal(law_draw(law_key(99, LAW_QUERIES, i / VALUES), i % VALUES));
    double fused = time_batch(t, POOL, nprobe, weights, "with weights");
    printf("%u columns of %u values at equal probes: %.2f of similarity alone\n", o->columns, VALUES,
           fused / plain);
    free(weights);
}

/* ---------------------------------------------------------------------------------------------------- main --- */

static int usage()
{
    fprintf(stderr,
            "usage: pados-gpu-scale ROWSxDIM NLIST [--columns N] [--refine none|f16|f32] [--truth QUERIES] "
            "[--json FILE]\n");
    return 2;
}

static int parse(int argc, char **argv, options *o)
{
    char *end;
    memset(o, 0, sizeof *o);
    o->truth = 500;
    o->refine = PD_REFINE_F16;
    if (argc < 3) return 0;
    o->rows = strtoull(argv[1], &end, 10);
    if (*end != 'x') return 0;
    o->dim = (uint32_t)strtoul(end + 1, &end, 10);
    o->nlist = (uint32_t)strtoul(argv[2], NULL, 10);
    if (*end || o->rows == 0 || o->rows >= UINT32_MAX || o->nlist == 0 || o->nlist > o->rows) return 0;
    for (int i = 3; i + 1 < argc; i += 2) {
        const char *value = argv[i + 1];
        if (!strcmp(argv[i], "--columns"))
            o->columns = (uint32_t)strtoul(value, NULL, 10);
        else if (!strcmp(argv[i], "--truth"))
            o->truth = (uint32_t)strtoul(value, NULL, 10);
        else if (!strcmp(argv[i], "--refine"))
            o->refine = !strcmp(value, "none")  ? PD_REFINE_NONE
                        : !strcmp(value, "f32") ? PD_REFINE_F32
                                                : PD_REFINE_F16;
        else if (!strcmp(argv[i], "--json"))
            o->json = fopen(value, "a");
        else
            return 0;
    }
    return argc % 2 == 1 && o->columns <= MOST_COLUMNS && o->truth > 0 && o->truth <= POOL &&
           o->dim <= PD_MAX_DIM;
}

/* The slab: pages half empty at the end of each list. */
static uint64_t slab_of(const options *o)
{
    pd_index_spec spec = {shape_of(o), pd_pages_for(o->rows) + o->nlist, "made@1"};
    return pd_index_bytes(&spec);
}

int main(int argc, char **argv)
{
    options o;
    table t = {};
    pd_error err;
    pd_device *device = NULL;
    if (!parse(argc, argv, &o)) return usage();
    pd_device_options wanted = {};
    wanted.memory = slab_of(&o);
    pd_status status = pd_cuda_open(&wanted, &device, &err);
    if (status == PD_UNAVAILABLE) {
        printf("skipped: %s\n", err.message);
        return 77;
    }
    must(status, &err);
    t.o = &o;
    t.device = (pd_cuda_device *)device;
    printf("%s\n", t.device->about);
    measure_copy(&t);
    must(law_source_open(t.device, 1, o.dim, o.rows, &t.law, &err), &err);
    build(&t);
    t.queries = (float *)memory_of((size_t)POOL * o.dim * sizeof *t.queries);
    float *noise = (float *)memory_of(o.dim * sizeof *noise);
    for (uint32_t q = 0; q < POOL; q++)
        law_row(&t.law.host, LAW_QUERIES, q, noise, t.queries + (size_t)q * o.dim);
    pd_answer *truth = (pd_answer *)memory_of(o.truth * sizeof *truth);
    pd_hit *hits = find_truth(&t, truth);
    measure(&t, find_nprobe(&t, truth));
    if (o.json) fclose(o.json);
    pd_index_close(t.index);
    law_source_close(&t.law);
    pd_device_close(device);
    free(noise), free(truth), free(hits), free(t.queries), free(t.centroids), free(t.first), free(t.lists);
    free(t.counts), free(t.offsets), free(t.pages);
    return 0;
}
