/* pados-gpu-peer: the same made rows on the same device, answered by brute force: cuBLAS and the k best (peer.cuh).
 *
 *     pados-gpu-peer --generate ROWSxDIM[:SEED] [--queries N] [--json FILE]
 *
 * Answers are held to the exact search's, so that what is timed is known to be right: with f16 rows up to rounding, or the program fails; with i8 ones what
 * comes out is stated. The dots of a batch and all rows rarely fit into memory: how many bytes of them there are at a time is tried out for each batch on
 * the first rows, and the fastest taken. Beside every time stand its two floors: the product's operations, at the speed that cuBLAS shows with large square
 * matrices, and the bytes of the rows once and of the dots twice, at the speed of a copy. (Dots that stay in the second cache may beat the latter.) */
#include "made.cuh"
#include "peer.cuh"

#ifndef DOT_BYTES
#define DOT_BYTES ((size_t)4 << 30)
#define SQUARE    8192u /* sides of the matrices that show what the product can do */
#endif
#define TRIAL_SHARE 8u   /* of the rows are gone through when bytes are tried */
#define WRONG       0.99 /* recall of f16 rows under which something is broken */
#define MOST_RUNS   200u
#define LEAST_RUNS  3u

typedef struct contest {
    made m;
    peer_search peer;
    const char *what; /* "cublas f16" */
    double peak;      /* operations a second of the product */
    double recall;
} contest;

/* Milliseconds of one batch; it begins at a query of its own each time. */
static double time_once(contest *c, uint32_t run, uint32_t batch, uint64_t rows, size_t bytes)
{
    const pd_cuda_lane *lane = &c->m.device->side;
    uint32_t first = (uint32_t)((uint64_t)run * batch % (POOL - batch + 1));
    float ms = 0;
    pd_error err;
    cudaError_t error = cudaEventRecord(lane->events[PD_EVENT_START], lane->stream);
    must(pd_cuda_check(c->m.device, error, "timing", &err), &err);
    must(peer_ask(&c->peer, first, batch, rows, bytes, &err), &err);
    error = cudaEventRecord(lane->events[PD_EVENT_DONE], lane->stream);
    if (error == cudaSuccess) error = cudaStreamSynchronize(lane->stream);
    if (error == cudaSuccess)
        error = cudaEventElapsedTime(&ms, lane->events[PD_EVENT_START], lane->events[PD_EVENT_DONE]);
    must(pd_cuda_check(c->m.device, error, "timing", &err), &err);
    return (double)ms;
}

/* How many bytes of dots at a time; the first run of each warms up. */
static size_t try_bytes(contest *c, uint32_t batch)
{
    uint64_t rows = c->m.rows / TRIAL_SHARE > PEER_MOST ? c->m.rows / TRIAL_SHARE : c->m.rows;
    size_t best = DOT_BYTES;
    double least = INFINITY;
    for (size_t bytes = DOT_BYTES; bytes >= DOT_BYTES / 512; bytes /= 8) {
        if (bytes / sizeof(float) / batch < PEER_EVEN) break;
        time_once(c, 0, batch, rows, bytes);
        double ms = time_once(c, 1, batch, rows, bytes);
        if (ms < least) {
            least = ms;
            best = bytes;
        }
    }
    return best;
}

static void time_batch(contest *c, uint32_t batch)
{
    double times[MOST_RUNS], since = now(), n = (double)c->m.rows;
    size_t bytes = try_bytes(c, batch);
    uint32_t runs = 0;
    while (runs < MOST_RUNS && (runs < LEAST_RUNS || now() - since < SECONDS / 2)) {
        times[runs] = time_once(c, runs, batch, c->m.rows, bytes);
        runs++;
    }
    qsort(times, runs, sizeof *times, ascending);
    double ms = times[runs / 2], operations = 2.0 * n * c->m.dim * batch;
    double moved =
        n * (c->peer.ld * (c->peer.whole ? 1.0 : 2.0) + sizeof(float)) + 2.0 * n * batch * sizeof(float);
    double product = 1e3 * operations / c->peak, memory = 1e3 * moved / c->m.copy;
    double floor = product > memory ? product : memory;
    printf("%-20s %7u %6.4f %11.0f %9.3f %9.3f %9.3f %8.0f%% %6zu\n", c->what, batch, c->recall,
           1e3 * batch / ms, ms, product, memory, 100 * floor / ms, bytes >> 20);
    fflush(stdout);
    if (c->m.json)
        fprintf(c->m.json,
                "{\"table\": \"%llux%u\", \"what\": \"%s\", \"batch\": %u, \"recall\": %.4f, \"qps\": %.0f, "
                "\"p50_ms\": %.4f, "
                "\"runs\": %u, \"operations\": %.0f, \"bytes\": %.0f, \"product_floor_ms\": %.4f, "
                "\"memory_floor_ms\": %.4f, "
                "\"dots_mib\": %zu}\n",
                (unsigned long long)c->m.rows, c->m.dim, c->what, batch, c->recall, 1e3 * batch / ms, ms,
                runs, operations, moved, product, memory, bytes >> 20);
}

/* What the product can do: the best of some large ones, whose dots are not looked at. */
static void measure_product(contest *c)
{
    const pd_cuda_lane *lane = &c->m.device->side;
    pd_error err;
    float least = INFINITY;
    peer_search square = c->peer;
    size_t side = SQUARE, each = c->peer.whole ? sizeof(int8_t) : sizeof(pd_f16);
    cudaError_t error = cudaMalloc(&square.rows.data, side * side * each);
    if (error == cudaSuccess) error = cudaMemsetAsync(square.rows.data, 1, side * side * each, lane->stream);
    must(pd_cuda_check(c->m.device, error, "measuring a product", &err), &err);
    for (int i = 0; i < 6; i++) {
        float ms = 0;
        error = cudaEventRecord(lane->events[PD_EVENT_START], lane->stream);
        if (error == cudaSuccess)
            must(peer_say(peer_product(&square, square.rows.data, square.rows.data, SQUARE, SQUARE, SQUARE,
                                       SQUARE),
                          "measuring a product", &err),
                 &err);
        if (error == cudaSuccess) error = cudaEventRecord(lane->events[PD_EVENT_DONE], lane->stream);
        if (error == cudaSuccess) error = cudaStreamSynchronize(lane->stream);
        if (error == cudaSuccess)
            error = cudaEventElapsedTime(&ms, lane->events[PD_EVENT_START], lane->events[PD_EVENT_DONE]);
        must(pd_cuda_check(c->m.device, error, "measuring a product", &err), &err);
        if (i > 0 && ms < least) least = ms;
    }
    cudaFree(square.rows.data);
    c->peak = 2.0 * (double)side * side * side / (1e-3 * least);
    printf("%s: a product of %u x %u x %u, %.0f T operations/s\n", c->what, SQUARE, SQUARE, SQUARE,
           c->peak * 1e-12);
}

static void measure_recall(contest *c)
{
    uint32_t n = c->m.nanswers, *rows = (uint32_t *)memory_of((size_t)n * K * sizeof *rows);
    uint32_t *counts = (uint32_t *)memory_of(n * sizeof *counts);
    uint64_t *ids = (uint64_t *)memory_of((size_t)n * K * sizeof *ids);
    pd_error err;
    must(peer_ask(&c->peer, 0, n, c->m.rows, DOT_BYTES, &err), &err);
    must(peer_read(&c->peer, n, rows, &err), &err);
    for (uint32_t q = 0; q < n; q++)
        for (uint32_t i = 0; i < K; i++)
            if (rows[(size_t)q * K + i] != PD_NONE)
                ids[(size_t)q * K + counts[q]++] = rows[(size_t)q * K + i];
    c->recall = recall_of(&c->m, ids, counts);
    free(rows), free(counts), free(ids);
}

/* Returns whether it answers rightly. */
static int contend(contest *c, int whole)
{
    static const uint32_t batches[] = {POOL, 1024, 64, 1};
    peer_host host = {c->m.queries, c->m.dim};
    pd_cuda_source queries = {peer_host_rows, &host, c->m.dim, POOL};
    pd_error err;
    double since = now();
    c->what = whole ? "cublas i8" : "cublas f16";
    must(peer_open(c->m.device, &c->m.law.source, &queries, whole, K, DOT_BYTES, &c->peer, &err), &err);
    took(whole ? "making i8 rows" : "making f16 rows", since, 0);
    measure_product(c);
    measure_recall(c);
    printf("%-20s %7s %6s %11s %9s %9s %9s %9s %6s\n", "brute force", "batch", "recall", "queries/s",
           "p50 ms", "product", "memory", "of floor", "MiB");
    for (uint32_t batch : batches)
        time_batch(c, batch < POOL ? batch : POOL);
    peer_close(&c->peer);
    return whole || c->recall >= WRONG;
}

int main(int argc, char **argv)
{
    contest c = {};
    c.m.nanswers = 200 < POOL ? 200 : POOL;
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc) refuse("%s: wants a value, or is no option here", argv[i]);
        if (!made_option(&c.m, argv[i], argv[i + 1])) refuse("%s is no option here", argv[i]);
    }
    if (c.m.rows == 0) {
        fprintf(stderr, "usage: pados-gpu-peer --generate ROWSxDIM[:SEED] [--queries N] [--json FILE]\n");
        return 2;
    }
    made_open(&c.m, 0, 0);
    find_answers(&c.m);
    int right = contend(&c, 0);
    contend(&c, 1);
    if (!right) fprintf(stderr, "pados-gpu-peer: f16 rows do not find what exact search finds\n");
    made_close(&c.m);
    return right ? 0 : 1;
}
