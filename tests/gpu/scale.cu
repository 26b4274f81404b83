/* pados-gpu-scale: a table of any size made, built and searched on the device, with no file and no row of it on the host.
 *
 *     pados-gpu-scale --generate ROWSxDIM[:SEED] --nlist N [--fused FxV:SPREAD] [--refine none|f16|f32] [--refine-in device|host] [--queries N] [--json FILE]
 *
 * Rows are those of pados-bench --generate (bench/law.h), which is this program with --on-device. K-means over the first of them, the lists of
 * all, and their pages are made on the device. Recall is measured against exact search there, over all rows. Beside every time stands its
 * floor: the bytes that must be read, at the speed of a copy on this very device. */
#include "made.cuh"

#define SAMPLE_EACH 32u /* rows of the training sample for each list */
#ifndef GROUPS_FROM
#define GROUPS_FROM 16384u
#endif
#define MOST_COLUMNS 8u
#define TARGET       0.95

typedef struct table {
    made m;
    uint32_t nlist, columns, values; /* byte columns, values of each */
    float spread;                    /* of weights */
    double recall;                   /* that nprobe reaches */
    pd_refine refine;
    int hosted; /* refine rows lie in the host's memory */
    pd_index *index;
    float *centroids;          /* [nlist][dim] */
    uint32_t ngroups, *first;  /* [ngroups + 1] */
    uint32_t *lists, *counts;  /* [rows], [nlist] */
    uint32_t *offsets, *pages; /* [nlist + 1], [npages] */
    uint32_t npages;
} table;

/* Rows 0 .. n - 1 to the host. */
static float *read_rows(table *t, uint64_t n)
{
    const uint64_t piece = 1 << 18;
    uint32_t dim = t->m.dim;
    float *host = (float *)memory_of(n * dim * sizeof *host), *rows = NULL;
    pd_error err;
    cudaStream_t stream = t->m.device->side.stream;
    cudaError_t error = cudaMalloc((void **)&rows, piece * dim * sizeof *rows);
    for (uint64_t done = 0; error == cudaSuccess && done < n; done += piece) {
        uint32_t some = n - done < piece ? (uint32_t)(n - done) : (uint32_t)piece;
        error = law_source_rows(&t->m.law, done, some, rows, stream);
        if (error == cudaSuccess)
            error = cudaMemcpyAsync(host + done * dim, rows, (size_t)some * dim * sizeof *rows,
                                    cudaMemcpyDeviceToHost, stream);
        if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
    }
    must(pd_cuda_check(t->m.device, error, "reading rows", &err), &err);
    cudaFree(rows);
    return host;
}

/* ------------------------------------------------------------------------------------------------ building --- */

/* Lists are numbered group by group (decision 11). */
static void group_lists(table *t)
{
    uint32_t dim = t->m.dim, nlist = t->nlist, n = t->ngroups = (uint32_t)(2.0 * sqrt((double)nlist));
    float *groups = (float *)memory_of((size_t)n * dim * sizeof *groups);
    float *sorted = (float *)memory_of((size_t)nlist * dim * sizeof *sorted);
    uint32_t *of = (uint32_t *)memory_of(nlist * sizeof *of), used = 0;
    pd_error err;
    must(pd_cuda_train(&t->m.device->base, t->centroids, nlist, dim, n, 1, 0, groups, &err), &err);
    must(pd_cuda_assign(&t->m.device->base, groups, n, dim, t->centroids, nlist, of, &err), &err);
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
    uint64_t n = (uint64_t)SAMPLE_EACH * t->nlist < t->m.rows ? (uint64_t)SAMPLE_EACH * t->nlist : t->m.rows;
    double since = now();
    pd_error err;
    float *sample = read_rows(t, n);
    t->centroids = (float *)memory_of((size_t)t->nlist * t->m.dim * sizeof *t->centroids);
    must(pd_cuda_train(&t->m.device->base, sample, n, t->m.dim, t->nlist, 1, 0, t->centroids, &err), &err);
    if (t->nlist >= GROUPS_FROM) group_lists(t);
    free(sample);
    took("training", since, 0);
}

static const char *place_of(const table *t)
{
    return t->refine == PD_REFINE_NONE ? "none" : t->hosted ? "host" : "device";
}

static pd_shape shape_of(const table *t)
{
    pd_shape shape = {};
    shape.metric = PD_L2;
    shape.code = PD_CODE_I8;
    shape.refine = t->refine;
    shape.dim = t->m.dim;
    shape.nlist = t->nlist;
    shape.nbytes = t->columns;
    for (uint32_t c = 0; c < t->columns; c++)
        shape.sizes[c] = (uint16_t)t->values;
    return shape;
}

/* The lists of rows become their slots, in place. */
static void deal_slots(table *t)
{
    t->counts = (uint32_t *)memory_of(t->nlist * sizeof *t->counts);
    t->offsets = (uint32_t *)memory_of(((size_t)t->nlist + 1) * sizeof *t->offsets);
    uint32_t *next = (uint32_t *)memory_of(t->nlist * sizeof *next);
    for (uint64_t i = 0; i < t->m.rows; i++)
        t->counts[t->lists[i]]++;
    for (uint32_t l = 0; l < t->nlist; l++)
        t->offsets[l + 1] = t->offsets[l] + pd_pages_for(t->counts[l]);
    t->npages = t->offsets[t->nlist];
    t->pages = (uint32_t *)memory_of(t->npages * sizeof *t->pages);
    for (uint32_t p = 0; p < t->npages; p++)
        t->pages[p] = p;
    for (uint64_t i = 0; i < t->m.rows; i++) {
        uint32_t list = t->lists[i];
        t->lists[i] = t->offsets[list] * PD_PAGE_ROWS + next[list]++;
    }
    free(next);
}

static void build(table *t)
{
    double since = now(), began = since;
    pd_error err;
    train(t);
    since = now();
    t->lists = (uint32_t *)memory_of(t->m.rows * sizeof *t->lists);
    must(pd_cuda_assign_source(t->m.device, t->centroids, t->nlist, &t->m.law.source, t->lists, &err), &err);
    took("assigning all rows", since, 0);
    deal_slots(t);
    since = now();
    pd_index_spec spec = {shape_of(t), t->npages, "made@1"};
    must(pd_index_open(&t->m.device->base, &spec, &t->index, &err), &err);
    pd_lists lists = {};
    lists.centroids = t->centroids;
    lists.offsets = t->offsets;
    lists.pages = t->pages;
    lists.rows = t->counts;
    lists.ngroups = t->ngroups;
    lists.group_first = t->first;
    must(pd_index_set_lists(t->index, &lists, &err), &err);
    must(pd_cuda_fill((pd_cuda_index *)t->index, &t->m.law.source, t->lists, &err), &err);
    double bytes = (double)pd_index_bytes(&spec);
    took("filling pages", since, bytes / (t->m.copy / 2));
    took("building, all of it", began, 0);
    printf("%.1f GB resident: %.1f bytes a row, %u pages, %u lists, %u groups\n", bytes * 1e-9,
           bytes / (double)t->m.rows, t->npages, t->nlist, t->ngroups);
    if (t->m.json)
        fprintf(t->m.json,
                "{\"table\": \"%llux%u\", \"refine_in\": \"%s\", \"nlist\": %u, \"build_s\": %.2f, "
                "\"bytes\": %.0f, \"copy_gbs\": "
                "%.1f}\n",
                (unsigned long long)t->m.rows, t->m.dim, place_of(t), t->nlist, now() - began, bytes,
                t->m.copy * 1e-9);
}

/* ------------------------------------------------------------------------------------------------ searching --- */

static void ask(const table *t, uint32_t q, uint32_t nprobe, const float *weights, pd_query *query)
{
    make_query(&t->m, q, query);
    query->nprobe = nprobe;
    if (weights) query->weights = weights + (size_t)(q % POOL) * t->columns * t->values;
}

static double recall_at(const table *t, uint32_t nprobe)
{
    uint32_t n = t->m.nanswers, *counts = (uint32_t *)memory_of(n * sizeof *counts);
    pd_query *queries = (pd_query *)memory_of(n * sizeof *queries);
    pd_answer *answers = (pd_answer *)memory_of(n * sizeof *answers);
    uint64_t *ids = (uint64_t *)memory_of((size_t)n * K * sizeof *ids);
    pd_hit *hits = answers_for(n, answers);
    pd_error err;
    for (uint32_t q = 0; q < n; q++)
        ask(t, q, nprobe, NULL, &queries[q]);
    must(pd_index_search(t->index, queries, n, answers, NULL, &err), &err);
    for (uint32_t q = 0; q < n; q++) {
        counts[q] = answers[q].count;
        for (uint32_t i = 0; i < counts[q]; i++)
            ids[(size_t)q * K + i] = answers[q].hits[i].id;
    }
    double recall = recall_of(&t->m, ids, counts);
    free(queries), free(answers), free(hits), free(ids), free(counts);
    return recall;
}

static uint32_t find_nprobe(table *t)
{
    for (uint32_t nprobe = 4;; nprobe += nprobe < 16 ? 4 : nprobe / 4) {
        if (nprobe > t->nlist) nprobe = t->nlist;
        t->recall = recall_at(t, nprobe);
        printf("nprobe %5u: recall@%u %.4f\n", nprobe, K, t->recall);
        if (t->recall >= TARGET || nprobe == t->nlist) return nprobe;
    }
}

/* One batch size; weights: [POOL][columns * values], or NULL. Returns queries a second. */
static double time_batch(const table *t, uint32_t batch, uint32_t nprobe, const float *weights,
                         const char *what)
{
    enum { MOST = 200 };
    pd_query *queries = (pd_query *)memory_of(batch * sizeof *queries);
    pd_answer *answers = (pd_answer *)memory_of(batch * sizeof *answers);
    pd_hit *hits = answers_for(batch, answers);
    double times[MOST], scan[MOST], since = now();
    uint32_t n = 0;
    pd_error err;
    for (uint32_t run = 0; run < MOST + 2 && (run < 7 || now() - since < SECONDS); run++) {
        pd_timing timing;
        for (uint32_t q = 0; q < batch; q++)
            ask(t, run * batch + q, nprobe, weights, &queries[q]);
        double begin = now();
        must(pd_index_search(t->index, queries, batch, answers, &timing, &err), &err);
        if (run < 2) continue; /* scratch memory grows in the first */
        times[n] = now() - begin;
        scan[n++] = 1e-9 * (double)timing.scan_ns;
    }
    qsort(times, n, sizeof *times, ascending);
    qsort(scan, n, sizeof *scan, ascending);
    double lists = (double)batch * nprobe, reuse = lists / t->nlist;
    if (reuse >= 2) lists = t->nlist * (1 - pow(1 - (double)nprobe / t->nlist, (double)batch));
    double bytes = lists * t->npages / t->nlist * (t->index->layout.dim4 * 32.0 + 256.0),
           floor = bytes / t->m.copy;
    printf("%-20s %7u %6u %11.0f %9.3f %9.3f %9.3f %8.0f%%\n", what, batch, nprobe, batch / times[n / 2],
           1e3 * times[n / 2], 1e3 * scan[n / 2], 1e3 * floor, 100 * floor / scan[n / 2]);
    fflush(stdout);
    if (t->m.json)
        fprintf(t->m.json,
                "{\"table\": \"%llux%u\", \"refine_in\": \"%s\", \"what\": \"%s\", \"batch\": %u, "
                "\"nprobe\": %u, "
                "\"similarity_recall\": %.4f, \"qps\": %.0f, \"p50_ms\": %.4f, \"scan_ms\": %.4f, "
                "\"scan_floor_ms\": %.4f}\n",
                (unsigned long long)t->m.rows, t->m.dim, place_of(t), what, batch, nprobe, t->recall,
                batch / times[n / 2], 1e3 * times[n / 2], 1e3 * scan[n / 2], 1e3 * floor);
    double qps = batch / times[n / 2];
    free(queries);
    free(answers);
    free(hits);
    return qps;
}

static void measure(const table *t, uint32_t nprobe)
{
    static const uint32_t batches[] = {POOL, 1024, 64, 1};
    double plain = 0;
    printf("%-20s %7s %6s %11s %9s %9s %9s %9s\n", "", "batch", "nprobe", "queries/s", "p50 ms", "scan ms",
           "floor ms", "of copy");
    for (uint32_t batch : batches) {
        double qps = time_batch(t, batch < POOL ? batch : POOL, nprobe, NULL, "similarity");
        if (batch == POOL) plain = qps;
    }
    if (t->columns == 0) return;
    uint32_t width = t->columns * t->values;
    float *weights = (float *)memory_of((size_t)POOL * width * sizeof *weights);
    for (size_t i = 0; i < (size_t)POOL * width; i++)
        weights[i] = t->spread * law_normal(law_draw(law_key(99, LAW_QUERIES, i / t->values), i % t->values));
    double fused = time_batch(t, POOL, nprobe, weights, "with weights");
    printf("%u columns of %u values at equal probes: %.2f of similarity alone\n", t->columns, t->values,
           fused / plain);
    free(weights);
}

/* ---------------------------------------------------------------------------------------------------- main --- */

static int usage()
{
    fprintf(stderr, "usage: pados-gpu-scale --generate ROWSxDIM[:SEED] --nlist N [--fused FxV:SPREAD] "
                    "[--refine none|f16|f32] [--refine-in device|host] [--queries N] [--json FILE]\n");
    return 2;
}

static void fused_option(const char *value, table *t)
{
    int used = 0, got = sscanf(value, "%ux%u:%f%n", &t->columns, &t->values, &t->spread, &used);
    if (got < 3 || value[used] || t->columns < 1 || t->columns > MOST_COLUMNS || t->values < 2 ||
        t->values > 254 || !(t->spread >= 0 && t->spread <= 100))
        refuse("--fused %s: wants FxV:SPREAD, for instance 4x32:0.3 (F 1..%u, V 2..254, one spread)", value,
               MOST_COLUMNS);
}

static void refine_option(const char *value, table *t)
{
    if (!strcmp(value, "none"))
        t->refine = PD_REFINE_NONE;
    else if (!strcmp(value, "f16"))
        t->refine = PD_REFINE_F16;
    else if (!strcmp(value, "f32"))
        t->refine = PD_REFINE_F32;
    else
        refuse("--refine %s: is none, f16 or f32", value);
}

static void place_option(const char *value, table *t)
{
    if (strcmp(value, "device") != 0 && strcmp(value, "host") != 0)
        refuse("--refine-in %s: is device or host", value);
    t->hosted = !strcmp(value, "host");
}

static int parse(int argc, char **argv, table *t)
{
    t->m.nanswers = 500 < POOL ? 500 : POOL;
    t->refine = PD_REFINE_F16;
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc) refuse("%s: wants a value, or is no option here", argv[i]);
        if (made_option(&t->m, argv[i], argv[i + 1])) continue;
        if (!strcmp(argv[i], "--nlist"))
            t->nlist = number_of(argv[i], argv[i + 1], 1, 10000000);
        else if (!strcmp(argv[i], "--fused"))
            fused_option(argv[i + 1], t);
        else if (!strcmp(argv[i], "--refine"))
            refine_option(argv[i + 1], t);
        else if (!strcmp(argv[i], "--refine-in"))
            place_option(argv[i + 1], t);
        else
            refuse("%s is no option here", argv[i]);
    }
    if (t->m.rows == 0 || t->nlist == 0) return 0;
    if (t->nlist > t->m.rows)
        refuse("--nlist %u: there are %llu rows", t->nlist, (unsigned long long)t->m.rows);
    return 1;
}

/* Slabs for it: pages half empty at the end of each list. */
static void open_device(table *t)
{
    pd_index_spec spec = {shape_of(t), pd_pages_for(t->m.rows) + t->nlist, "made@1"};
    uint64_t host = t->hosted ? pd_index_refine_bytes(&spec) : 0;
    made_open(&t->m, pd_index_bytes(&spec) - host, host);
    if (host) printf("refine rows in the host's memory: %.1f GB\n", 1e-9 * (double)host);
}

int main(int argc, char **argv)
{
    table t = {};
    if (!parse(argc, argv, &t)) return usage();
    open_device(&t);
    build(&t);
    find_answers(&t.m);
    measure(&t, find_nprobe(&t));
    pd_index_close(t.index);
    made_close(&t.m);
    free(t.centroids), free(t.first), free(t.lists), free(t.counts), free(t.offsets), free(t.pages);
    return 0;
}
