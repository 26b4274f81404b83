/* What the programs that measure on a device have in common: rows that are made there (law_source.cuh), what is asked of them, and the
 * exact answers. Their options are called as pados-bench calls them, which hands its own over (bench/bench.c). */
#ifndef PD_GPU_MADE_CUH
#define PD_GPU_MADE_CUH

#include <errno.h>
#include <stdarg.h>
#include <time.h>

#include "law_source.cuh"

/* (The harness runs all of it, with fewer.) */
#ifndef POOL
#define POOL       10000u /* queries, and the largest batch */
#define COPY_BYTES ((size_t)1 << 30)
#define SECONDS    2.0 /* of a timing, at least some runs */
#endif
#define K 10u

typedef struct made {
    uint64_t rows, seed;
    uint32_t dim, nanswers; /* queries that are answered exactly */
    FILE *json;             /* NULL: none */
    pd_cuda_device *device;
    law_source law;
    double copy;        /* bytes a second that a copy reads and writes */
    float *queries;     /* [POOL][dim] */
    pd_answer *answers; /* [nanswers] of K hits: the first queries' */
    pd_hit *hits;
} made;

static inline double now()
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* What the options ask for cannot be: the program ends. */
[[noreturn]] static inline void __attribute__((format(printf, 1, 2))) refuse(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s: ", program_invocation_short_name);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    exit(2);
}

static inline void must(pd_status status, const pd_error *err)
{
    if (status == PD_OK) return;
    fprintf(stderr, "%s: %s\n", program_invocation_short_name, err->message);
    exit(1);
}

static inline void *memory_of(size_t bytes)
{
    void *data = calloc(bytes ? bytes : 1, 1);
    if (data) return data;
    fprintf(stderr, "%s: no memory for %zu bytes\n", program_invocation_short_name, bytes);
    exit(1);
}

static inline void took(const char *what, double since, double floor)
{
    printf("%-28s %9.2f s", what, now() - since);
    if (floor > 0) printf("   floor %.2f s", floor);
    printf("\n");
    fflush(stdout);
}

static inline int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* ------------------------------------------------------------------------------------------------ options --- */

static inline uint32_t number_of(const char *name, const char *text, uint32_t low, uint32_t high)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    if (end == text || *end || *text == '-' || value < low || value > high)
        refuse("%s %s: wants a number from %u to %u", name, text, low, high);
    return (uint32_t)value;
}

/* One of those that all programs have. 0: it is another. */
static inline int made_option(made *m, const char *name, const char *value)
{
    if (!strcmp(name, "--generate")) {
        unsigned long long rows = 0, seed = 1;
        int used = 0, got = sscanf(value, "%llux%u%n:%llu%n", &rows, &m->dim, &used, &seed, &used);
        if (got < 2 || value[used] || *value == '-' || rows < K || rows >= UINT32_MAX || m->dim < 1 ||
            m->dim > PD_MAX_DIM)
            refuse("--generate %s: wants ROWSxDIM[:SEED], for instance 1000000x128:1", value);
        m->rows = rows;
        m->seed = seed;
    } else if (!strcmp(name, "--queries")) {
        m->nanswers = number_of(name, value, 1, POOL);
    } else if (!strcmp(name, "--json")) {
        m->json = fopen(value, "a");
        if (!m->json) refuse("--json %s: %s", value, strerror(errno));
    } else {
        return 0;
    }
    return 1;
}

/* ------------------------------------------------------------------------------------------------ opening --- */

static inline void measure_copy(made *m)
{
    const size_t bytes = COPY_BYTES;
    pd_error err;
    pd_cuda_lane *lane = &m->device->side;
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
    must(pd_cuda_check(m->device, error, "measuring a copy", &err), &err);
    cudaFree(from);
    cudaFree(to);
    m->copy = 10.0 * 2.0 * (double)bytes / (1e-3 * (double)ms);
    printf("a copy reads and writes %.0f GB/s\n", m->copy * 1e-9);
}

/* The device with slabs of so many bytes, its own and one in the host's memory (0: none), the law and the queries. Without a device the
 * program ends, with 77. */
static inline void made_open(made *m, uint64_t slab, uint64_t host_slab)
{
    pd_device_options wanted = {};
    pd_device *device = NULL;
    pd_error err;
    wanted.memory = slab;
    wanted.host_memory = host_slab;
    pd_status status = pd_cuda_open(&wanted, &device, &err);
    if (status == PD_UNAVAILABLE) {
        printf("skipped: %s\n", err.message);
        exit(77);
    }
    must(status, &err);
    m->device = (pd_cuda_device *)device;
    printf("%s\n", m->device->about);
    measure_copy(m);
    must(law_source_open(m->device, m->seed, m->dim, m->rows, &m->law, &err), &err);
    m->queries = (float *)memory_of((size_t)POOL * m->dim * sizeof *m->queries);
    float *noise = (float *)memory_of(m->dim * sizeof *noise);
    for (uint32_t q = 0; q < POOL; q++)
        law_row(&m->law.host, LAW_QUERIES, q, noise, m->queries + (size_t)q * m->dim);
    free(noise);
}

static inline void made_close(made *m)
{
    if (m->json) fclose(m->json);
    law_source_close(&m->law);
    pd_device_close(&m->device->base);
    free(m->queries), free(m->answers), free(m->hits);
}

/* ------------------------------------------------------------------------------------------------- answers --- */

/* Similarity alone; the queries go round. */
static inline void make_query(const made *m, uint32_t q, pd_query *query)
{
    memset(query, 0, sizeof *query);
    query->vector = m->queries + (size_t)(q % POOL) * m->dim;
    query->similarity = 1.0f;
    query->k = K;
    query->min_score = -INFINITY;
}

static inline pd_hit *answers_for(uint32_t n, pd_answer *answers)
{
    pd_hit *hits = (pd_hit *)memory_of((size_t)n * K * sizeof *hits);
    for (uint32_t q = 0; q < n; q++) {
        memset(&answers[q], 0, sizeof answers[q]);
        answers[q].hits = hits + (size_t)q * K;
    }
    return hits;
}

/* By exact search of all rows, in f32. */
static inline void find_answers(made *m)
{
    pd_query *queries = (pd_query *)memory_of(m->nanswers * sizeof *queries);
    pd_exact *exact = NULL;
    pd_shape shape = {};
    pd_error err;
    double since = now();
    shape.metric = PD_L2;
    shape.code = PD_CODE_I8;
    shape.dim = m->dim;
    shape.nlist = 1;
    m->answers = (pd_answer *)memory_of(m->nanswers * sizeof *m->answers);
    m->hits = answers_for(m->nanswers, m->answers);
    for (uint32_t q = 0; q < m->nanswers; q++)
        make_query(m, q, &queries[q]);
    must(pd_exact_begin(&m->device->base, &shape, queries, m->nanswers, &exact, &err), &err);
    must(pd_cuda_exact_source(exact, &m->law.source, &err), &err);
    must(pd_exact_end(&m->device->base, exact, m->answers, &err), &err);
    took("exact search of the truth", since, 0);
    free(queries);
}

/* Mean share of the exact answers that are among ids. ids: of query q there are counts[q], in a row of K */
static inline double recall_of(const made *m, const uint64_t *ids, const uint32_t *counts)
{
    uint64_t found = 0;
    for (uint32_t q = 0; q < m->nanswers; q++)
        for (uint32_t i = 0; i < K; i++)
            for (uint32_t j = 0; j < counts[q]; j++)
                found += m->answers[q].hits[i].id == ids[(size_t)q * K + j];
    return (double)found / ((double)m->nanswers * K);
}

#endif
