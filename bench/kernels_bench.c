/* pados-kernels-bench: what the kernels do in a second, on each instruction set that this machine has.
 *
 * Rows are drawn around random centres, lists are those centres, so that nothing but the kernels is timed and nothing
 * but a C compiler is needed. One thread is timed by the processor time it uses. A search's figure is the best of six; codes come from memory, since a run walks over
 * more of them than a cache holds.
 *
 *     pados-kernels-bench [--backend cpu|cuda] [--json FILE] [rows [dim [nlist [nprobe [threads]]]]]
 *     pados-kernels-bench --dots [dim]     integer dots alone, by instruction set and size of a group of queries
 *     pados-kernels-bench [--backend B] --changes [rows [dim [nlist]]]     rows and columns written in place
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend.h"
#include "cpu/ops.h"
#include "score.h"

#define QUERIES 1000u
#define K       10u

static const char *const cpu_isas[] = {"portable", "avx2", "avx512", "amx", NULL};
static const char *const cuda_isas[] = {"row", "tile", NULL}; /* both ways of scanning */

static const char *backend = "cpu";
static FILE *json; /* NULL: none */

typedef struct data {
    uint32_t rows, dim, nlist, nprobe, threads;
    float *centroids, *vectors, *queries;
    uint32_t *list; /* [rows] */
} data;

static uint64_t random_state = 88172645463325252ull;

static float random_normal(void)
{
    float sum = 0;
    for (int i = 0; i < 4; i++) {
        random_state ^= random_state << 13;
        random_state ^= random_state >> 7;
        random_state ^= random_state << 17;
        sum += (float)(random_state >> 40) * 0x1p-24f - 0.5f;
    }
    return sum * 1.7320508f;
}

/* One thread is timed by the processor time it used, so that a busy machine disturbs it less; several by the clock. */
static clockid_t timer = CLOCK_MONOTONIC;

static double seconds(void)
{
    struct timespec t;
    clock_gettime(timer, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void must(pd_status status, const pd_error *err)
{
    if (status == PD_OK) return;
    fprintf(stderr, "pados-kernels-bench: %s\n", err->message);
    exit(1);
}

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (!memory) {
        fprintf(stderr, "pados-kernels-bench: no memory\n");
        exit(1);
    }
    return memory;
}

static void make(data *d)
{
    d->centroids = allocate((size_t)d->nlist * d->dim, sizeof(float));
    d->vectors = allocate((size_t)d->rows * d->dim, sizeof(float));
    d->queries = allocate((size_t)QUERIES * d->dim, sizeof(float));
    d->list = allocate(d->rows, sizeof(uint32_t));
    for (size_t i = 0; i < (size_t)d->nlist * d->dim; i++)
        d->centroids[i] = random_normal();
    for (uint32_t r = 0; r < d->rows + QUERIES; r++) {
        uint32_t list = (uint32_t)((uint64_t)r * 2654435761u % d->nlist);
        float *row =
            r < d->rows ? d->vectors + (size_t)r * d->dim : d->queries + (size_t)(r - d->rows) * d->dim;
        for (uint32_t i = 0; i < d->dim; i++)
            row[i] = d->centroids[(size_t)list * d->dim + i] + random_normal();
        if (r < d->rows) d->list[r] = list;
    }
}

/* The pages of all lists, one after the other, in memory of the caller's. */
static uint32_t *lay_out(const data *d, uint32_t *offsets, uint32_t *rows, uint32_t *order)
{
    for (uint32_t r = 0; r < d->rows; r++)
        rows[d->list[r]]++;
    uint32_t *at = allocate(d->nlist, sizeof *at);
    for (uint32_t l = 0, begin = 0; l < d->nlist; l++) {
        offsets[l + 1] = offsets[l] + pd_pages_for(rows[l]);
        at[l] = begin;
        begin += rows[l];
    }
    for (uint32_t r = 0; r < d->rows; r++)
        order[at[d->list[r]]++] = r;
    free(at);
    uint32_t *pages = allocate(offsets[d->nlist], sizeof *pages);
    for (uint32_t p = 0; p < offsets[d->nlist]; p++)
        pages[p] = p;
    return pages;
}

static void fill_page(const data *d, const pd_index *index, uint32_t list, const uint32_t *order,
                      uint32_t count, void *page, void *refine)
{
    float *rows = allocate((size_t)count * d->dim, sizeof *rows);
    pd_page_clear(&index->shape, &index->layout, page);
    for (uint32_t r = 0; r < count; r++) {
        memcpy(rows + (size_t)r * d->dim, d->vectors + (size_t)order[r] * d->dim, d->dim * sizeof *rows);
        pd_page_ids(&index->layout, page)[r] = order[r];
    }
    pd_page_encode(&index->shape, &index->layout, NULL, d->centroids + (size_t)list * d->dim, rows, 0, count,
                   page, refine);
    free(rows);
}

static pd_index *build(const data *d, pd_device *device, const pd_shape *shape)
{
    pd_error err;
    uint32_t *offsets = allocate(d->nlist + 1, sizeof *offsets), *rows = allocate(d->nlist, sizeof *rows);
    uint32_t *order = allocate(d->rows, sizeof *order);
    uint32_t *pages = lay_out(d, offsets, rows, order);
    pd_index_spec spec = {.shape = *shape, .npages = offsets[d->nlist], .name = "bench"};
    pd_index *index;
    must(pd_index_open(device, &spec, &index, &err), &err);
    void *main_page = allocate(index->layout.page_bytes, 1);
    void *refine_page = allocate(index->layout.refine_bytes, 1);
    for (uint32_t l = 0, begin = 0; l < d->nlist; begin += rows[l], l++) {
        for (uint32_t done = 0; done < rows[l]; done += PD_PAGE_ROWS) {
            uint32_t count = rows[l] - done < PD_PAGE_ROWS ? rows[l] - done : PD_PAGE_ROWS, got;
            uint32_t page = offsets[l] + done / PD_PAGE_ROWS;
            void *window;
            fill_page(d, index, l, order + begin + done, count, main_page, refine_page);
            must(pd_index_window(index, PD_PAGES_MAIN, page, 1, &window, &got, &err), &err);
            memcpy(window, main_page, index->layout.page_bytes);
            must(pd_index_commit(index, &err), &err);
            if (shape->refine == PD_REFINE_NONE) continue;
            must(pd_index_window(index, PD_PAGES_REFINE, page, 1, &window, &got, &err), &err);
            memcpy(window, refine_page, index->layout.refine_bytes);
            must(pd_index_commit(index, &err), &err);
        }
    }
    pd_lists lists = {.centroids = d->centroids, .offsets = offsets, .pages = pages, .rows = rows};
    must(pd_index_set_lists(index, &lists, &err), &err);
    free(main_page);
    free(refine_page);
    free(offsets);
    free(rows);
    free(order);
    free(pages);
    return index;
}

static void time_search(const data *d, pd_index *index, const char *isa, uint32_t batch)
{
    static pd_hit hits[QUERIES * K];
    pd_query queries[QUERIES];
    pd_answer answers[QUERIES];
    pd_timing best = {0};
    pd_error err;
    double least = INFINITY;
    for (uint32_t q = 0; q < QUERIES; q++) {
        queries[q] = (pd_query){.vector = d->queries + (size_t)q * d->dim,
                                .similarity = 1,
                                .nprobe = d->nprobe,
                                .k = K,
                                .min_score = -INFINITY};
        answers[q] = (pd_answer){.hits = hits + (size_t)q * K};
    }
    for (int run = 0; run < 6; run++) {
        double begin = seconds();
        pd_timing sum = {0}, one;
        for (uint32_t q = 0; q < QUERIES; q += batch) {
            uint32_t n = QUERIES - q < batch ? QUERIES - q : batch;
            must(pd_index_search(index, queries + q, n, answers + q, &one, &err), &err);
            sum.coarse_ns += one.coarse_ns;
            sum.scan_ns += one.scan_ns;
            sum.refine_ns += one.refine_ns;
        }
        double took = seconds() - begin;
        if (took < least) {
            least = took;
            best = sum;
        }
    }
    uint64_t scanned = 0;
    for (uint32_t q = 0; q < QUERIES; q++)
        scanned += answers[q].scanned;
    printf("%-9s search  batch %4u  %9.0f queries/s  (by the clock: coarse %.2f us, scan %.2f us, refine "
           "%.2f us, "
           "%.1f M codes/s in the scan)\n",
           isa, batch, QUERIES / least, (double)best.coarse_ns / 1e3 / QUERIES,
           (double)best.scan_ns / 1e3 / QUERIES, (double)best.refine_ns / 1e3 / QUERIES,
           (double)scanned * 1e3 / (double)best.scan_ns);
    if (json)
        fprintf(json,
                "{\"system\": \"pados-kernels\", \"backend\": \"%s\", \"isa\": \"%s\", \"rows\": %u, "
                "\"dim\": %u, "
                "\"nlist\": %u, \"nprobe\": %u, \"batch\": %u, \"qps\": %.0f, \"coarse_us\": %.3f, "
                "\"scan_us\": %.3f, "
                "\"refine_us\": %.3f}\n",
                backend, isa, d->rows, d->dim, d->nlist, d->nprobe, batch, QUERIES / least,
                (double)best.coarse_ns / 1e3 / QUERIES, (double)best.scan_ns / 1e3 / QUERIES,
                (double)best.refine_ns / 1e3 / QUERIES);
}

/* Pages without codes to speak of, as exact search sees them: ids and liveness. */
static void time_exact(const data *d, pd_device *device, const pd_shape *shape, const char *isa)
{
    uint32_t npages = d->rows / PD_PAGE_ROWS < 512 ? d->rows / PD_PAGE_ROWS : 512;
    pd_hit *hits = allocate(QUERIES * K, sizeof *hits);
    pd_query queries[QUERIES];
    pd_answer answers[QUERIES];
    pd_layout layout;
    pd_exact *exact;
    pd_error err;
    must(pd_layout_of(shape, &layout, &err), &err);
    unsigned char *pages = allocate(npages, layout.page_bytes);
    for (uint32_t p = 0; p < npages; p++)
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            pd_page_ids(&layout, pages + (size_t)p * layout.page_bytes)[r] = (uint64_t)p * PD_PAGE_ROWS + r;
    for (uint32_t q = 0; q < QUERIES; q++) {
        queries[q] = (pd_query){
            .vector = d->queries + (size_t)q * d->dim, .similarity = 1, .k = K, .min_score = -INFINITY};
        answers[q] = (pd_answer){.hits = hits + (size_t)q * K};
    }
    double begin = seconds();
    must(pd_exact_begin(device, shape, queries, QUERIES, &exact, &err), &err);
    pd_block block = {.npages = npages, .pages = pages, .rows = d->vectors, .dtype = PD_REFINE_F32};
    must(pd_exact_block(device, exact, &block, &err), &err);
    must(pd_exact_end(device, exact, answers, &err), &err);
    double took = seconds() - begin;
    printf("%-9s exact   %u queries x %u rows  %6.1f GFLOP/s\n", isa, QUERIES, npages * PD_PAGE_ROWS,
           2e-9 * QUERIES * npages * PD_PAGE_ROWS * d->dim / took);
    free(pages);
    free(hits);
}

static void time_assign(const data *d, pd_device *device, const char *isa)
{
    uint32_t rows = d->rows < 20000 ? d->rows : 20000;
    uint32_t *lists = allocate(rows, sizeof *lists);
    pd_error err;
    double begin = seconds();
    must(pd_device_assign(device, d->centroids, d->nlist, d->dim, d->vectors, rows, lists, &err), &err);
    double took = seconds() - begin;
    printf("%-9s assign  %9.0f rows/s  %6.1f GFLOP/s\n", isa, rows / took,
           2e-9 * rows * d->nlist * d->dim / took);
    free(lists);
}

/* The integer dots of one table for one size of group, in dots a second: the best of seven runs over the same pages. */
static double time_dots(const pd_cpu_i8 *i8, const int8_t *pages, uint32_t npages, uint32_t dim,
                        const void *packed, uint32_t n, int32_t *out)
{
    uint32_t groups = (dim + 3) / 4;
    size_t page_bytes = (size_t)groups * PD_PAGE_ROWS * 4;
    uint32_t rounds = (uint32_t)(2e8 / ((double)npages * PD_PAGE_ROWS * n * dim)) + 1;
    double least = INFINITY;
    for (int run = 0; run < 7; run++) {
        double begin = seconds();
        for (uint32_t round = 0; round < rounds; round++)
            for (uint32_t p = 0; p < npages; p++)
                i8->dots(pages + p * page_bytes, groups, pd_dim64(dim), packed, n, out);
        double took = seconds() - begin;
        if (took < least) least = took;
    }
    if (i8->rest) i8->rest();
    return (double)rounds * npages * PD_PAGE_ROWS * n / least;
}

/* Pages that fit a second-level cache: what is timed is arithmetic, not memory. */
static int bench_dots(uint32_t dim)
{
    static const uint32_t sizes[] = {1, 2, 3, 4, 6, 7, 8, 9, 12, 15, 16, 17, 20, 24, 28, 31, 32};
    const uint32_t npages = 16, dim64 = pd_dim64(dim), count = sizeof cpu_isas / sizeof *cpu_isas - 1;
    const pd_cpu_i8 *tables[sizeof cpu_isas / sizeof *cpu_isas] = {NULL};
    size_t page_bytes = (size_t)((dim + 3) / 4) * PD_PAGE_ROWS * 4;
    int8_t *pages = allocate(npages, page_bytes), *codes = allocate(PD_GROUP, dim64);
    int32_t *out = allocate((size_t)PD_GROUP * PD_PAGE_ROWS, sizeof *out);
    unsigned char *packed = aligned_alloc(64, PD_GROUP * (2 * (size_t)dim64 + 64));
    if (!packed) return 1;
    for (size_t i = 0; i < npages * page_bytes; i++)
        pages[i] = (int8_t)(random_normal() * 40);
    for (uint32_t i = 0; i < PD_GROUP; i++)
        for (uint32_t d = 0; d < dim; d++)
            codes[(size_t)i * dim64 + d] = (int8_t)(random_normal() * 40);
    printf("million dots of %u dimensions a second, by queries of a group\n%9s", dim, "queries");
    for (uint32_t t = 0; t < count; t++) {
        const pd_cpu_ops *ops;
        if (pd_cpu_ops_find(cpu_isas[t], &ops, &tables[t])) printf("%10s", cpu_isas[t]);
    }
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        printf("\n%9u", sizes[s]);
        for (uint32_t t = 0; t < count; t++) {
            if (!tables[t]) continue;
            for (uint32_t i = 0; i < PD_GROUP; i++)
                tables[t]->pack(codes + (size_t)i * dim64, dim64,
                                packed + i * pd_packed_bytes(tables[t], dim64));
            printf("%10.1f", 1e-6 * time_dots(tables[t], pages, npages, dim, packed, sizes[s], out));
        }
    }
    printf("\n");
    free(pages);
    free(codes);
    free(out);
    free(packed);
    return 0;
}

/* ------------------------------------------------------------------------------------------------- changes --- */

#define CHANGED 1000u /* rows of one call */
#define CALLS   200u

typedef struct changed {
    uint32_t slots[CHANGED];
    uint8_t bytes[CHANGED];
    float floats[CHANGED];
    pd_row_writes writes;
} changed;

/* Distinct slots anywhere in the table, one to a page where there are as many. */
static void scatter(const pd_index *index, changed *c)
{
    uint32_t step = index->npages > CHANGED ? index->npages / CHANGED : 1;
    uint32_t from = (uint32_t)(fabsf(random_normal()) * 1e6f);
    for (uint32_t i = 0; i < CHANGED; i++) {
        uint32_t page = (from + i * step) % index->npages;
        c->slots[i] = page * PD_PAGE_ROWS + (i * step / index->npages + from) % PD_PAGE_ROWS;
        c->bytes[i] = (uint8_t)(from + 7 * i);
        c->floats[i] = (float)i;
    }
    /* In no order: a caller has them as requests came. */
    for (uint32_t i = CHANGED - 1; i > 0; i--) {
        uint32_t j = (uint32_t)(fabsf(random_normal()) * 1e6f) % (i + 1), other = c->slots[j];
        c->slots[j] = c->slots[i];
        c->slots[i] = other;
    }
}

typedef enum change { WRITE_ROWS, WRITE_NUMBERS, EMPTY_ROWS, CHANGES } change;

static pd_status change_once(pd_index *index, change kind, const changed *c, pd_error *err)
{
    const pd_column_write number[2] = {{PD_COLUMN_BYTE, 1, c->bytes}, {PD_COLUMN_FLOAT, 0, c->floats}};
    if (kind == WRITE_ROWS) return pd_index_write_rows(index, &c->writes, err);
    if (kind == WRITE_NUMBERS) return pd_index_write_columns(index, c->slots, CHANGED, number, 2, err);
    return pd_index_empty_rows(index, c->slots, CHANGED, err);
}

static int by_time(const void *a, const void *b)
{
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

static void time_changes(pd_index *index, changed *c)
{
    static const char *const names[] = {"write_rows", "write_columns (a byte and a float)", "empty_rows"};
    for (int kind = 0; kind < CHANGES; kind++) {
        double took[CALLS];
        pd_error err;
        for (uint32_t call = 0; call < CALLS; call++) {
            scatter(index, c);
            /* What is emptied below must be there. */
            if (kind != WRITE_ROWS) must(change_once(index, WRITE_ROWS, c, &err), &err);
            if (kind != WRITE_ROWS) scatter(index, c);
            if (kind == WRITE_NUMBERS) must(change_once(index, WRITE_ROWS, c, &err), &err);
            double begin = seconds();
            must(change_once(index, (change)kind, c, &err), &err);
            took[call] = seconds() - begin;
        }
        qsort(took, CALLS, sizeof *took, by_time);
        printf("%-36s %u rows: best %6.1f us, median %6.1f us, %5.1f M rows/s\n", names[kind], CHANGED,
               1e6 * took[0], 1e6 * took[CALLS / 2], 1e-6 * CHANGED / took[CALLS / 2]);
    }
}

/* A category, a number and a set: ten byte columns and a float, and a key. */
static int bench_changes(data *d)
{
    pd_shape shape = {.metric = PD_L2,
                      .code = PD_CODE_I8,
                      .refine = PD_REFINE_F16,
                      .dim = d->dim,
                      .nlist = d->nlist,
                      .nbytes = 10,
                      .nfloats = 1,
                      .nkeys = 1};
    pd_error err;
    pd_device *device;
    pd_device_options options = {
        .memory = (uint64_t)(d->rows + 64ull * d->nlist) * (d->dim + 40ull) * 4 + (64u << 20), .threads = 1};
    changed *c = allocate(1, sizeof *c);
    make(d);
    for (uint32_t b = 0; b < shape.nbytes; b++)
        shape.sizes[b] = 256;
    must(pd_device_open(backend, &options, &device, &err), &err);
    pd_index *index = build(d, device, &shape);
    const pd_layout *l = &index->layout;
    unsigned char *pages = allocate(pd_pages_for(CHANGED), l->page_bytes);
    unsigned char *refines = allocate(pd_pages_for(CHANGED), l->refine_bytes);
    for (uint32_t i = 0; i < CHANGED; i++) {
        unsigned char *page = pages + i / PD_PAGE_ROWS * l->page_bytes;
        pd_page_encode(&shape, l, NULL, d->centroids, d->vectors + (size_t)i * d->dim, i % PD_PAGE_ROWS, 1,
                       page, refines + i / PD_PAGE_ROWS * l->refine_bytes);
        for (uint32_t b = 0; b < shape.nbytes; b++)
            pd_page_bytes(l, page, b)[i % PD_PAGE_ROWS] = (uint8_t)(i * (b + 3));
    }
    c->writes = (pd_row_writes){.n = CHANGED, .slots = c->slots, .pages = pages, .refine = refines};
    printf("%u rows x %u, %u lists, i8 codes, f16 refine rows, 10 byte columns\n", d->rows, d->dim, d->nlist);
    time_changes(index, c);
    pd_index_close(index);
    pd_device_close(device);
    free(pages);
    free(refines);
    free(c);
    free(d->centroids);
    free(d->vectors);
    free(d->queries);
    free(d->list);
    return 0;
}

int main(int argc, char **argv)
{
    uint32_t numbers[5] = {60000, 784, 512, 8, 1};
    for (; argc > 2 && (strcmp(argv[1], "--backend") == 0 || strcmp(argv[1], "--json") == 0);
         argc -= 2, argv += 2) {
        if (argv[1][2] == 'b')
            backend = argv[2];
        else if (!(json = fopen(argv[2], "a"))) {
            fprintf(stderr, "pados-kernels-bench: %s cannot be written\n", argv[2]);
            return 1;
        }
    }
    int on_cpu = strcmp(backend, "cpu") == 0;
    const char *const *isas = on_cpu ? cpu_isas : cuda_isas;
    if (argc > 1 && strcmp(argv[1], "--dots") == 0) {
        uint32_t dim = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : numbers[1];
        timer = CLOCK_PROCESS_CPUTIME_ID;
        if (dim > 0 && dim <= PD_MAX_DIM) return bench_dots(dim);
    }
    int changes = argc > 1 && strcmp(argv[1], "--changes") == 0;
    argc -= changes;
    argv += changes;
    for (int i = 1; i < argc && i <= 5; i++)
        numbers[i - 1] = (uint32_t)strtoul(argv[i], NULL, 10);
    data d = {numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], NULL, NULL, NULL, NULL};
    if (d.rows < PD_PAGE_ROWS || d.dim == 0 || d.dim > PD_MAX_DIM || d.nlist == 0) {
        fprintf(stderr, "usage: pados-kernels-bench [--backend B] [--json FILE] [rows [dim [nlist [nprobe "
                        "[threads]]]]] | --dots [dim] | --changes [rows [dim [nlist]]]\n");
        return 2;
    }
    if (d.threads == 1 && on_cpu) timer = CLOCK_PROCESS_CPUTIME_ID;
    if (changes) return bench_changes(&d);
    make(&d);
    pd_shape shape = {
        .metric = PD_L2, .code = PD_CODE_I8, .refine = PD_REFINE_F16, .dim = d.dim, .nlist = d.nlist};
    printf("%u rows x %u, %u lists, %u probed, k %u, l2, i8 codes, f16 refine, %u thread(s)\n", d.rows, d.dim,
           d.nlist, d.nprobe, K, d.threads);
    for (size_t i = 0; isas[i]; i++) {
        pd_error err;
        pd_device *device;
        pd_device_options options = {.memory = (uint64_t)(d.rows + 64ull * d.nlist) * (d.dim + 40ull) * 4 +
                                               (64u << 20),
                                     .threads = d.threads,
                                     .isa = isas[i]};
        pd_status status = pd_device_open(backend, &options, &device, &err);
        if (status == PD_INVALID_ARGUMENT) {
            printf("%-9s is not on this machine\n", isas[i]);
            continue;
        }
        must(status, &err);
        pd_device_info info;
        pd_device_info_of(device, &info);
        if (i == 0) printf("%s\n", info.about);
        pd_index *index = build(&d, device, &shape);
        time_search(&d, index, isas[i], 1000);
        time_search(&d, index, isas[i], 64);
        time_search(&d, index, isas[i], 1);
        time_exact(&d, device, &shape, isas[i]);
        time_assign(&d, device, isas[i]);
        pd_index_close(index);
        pd_device_close(device);
    }
    free(d.centroids);
    free(d.vectors);
    free(d.queries);
    free(d.list);
    if (json && fclose(json) != 0) {
        fprintf(stderr, "pados-kernels-bench: the JSON file could not be written\n");
        return 1;
    }
    return 0;
}
