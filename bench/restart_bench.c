/* pados-restart-bench: how fast a version is made resident again, against the speed of the disk it lies on.
 *
 *     pados-restart-bench FOLDER [rows [dim [rounds [lines.jsonl]]]]       (5000000 x 128, 3 rounds)
 *
 * FOLDER/version is built where it is not there yet: l2, i8 codes, f16 refine rows, 1,024 lists (loading does not depend on
 * them, building does). A round drops pages.bin and refine.bin from the page cache, reads both with eight threads past the
 * cache (direct reads at queue depth 8: what the disk can do), drops them again, and opens a resident of them as a start of
 * padosd does: slab, pages, sums, checks, ids, postings. The two are measured in turns, so that a disk that others use too
 * slows both. The table says the medians; "share" is the load's speed over the disk's in the same round.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "build.h"
#include "f16.h"
#include "random.h"
#include "resident.h"

#define LISTS      1024u
#define DEPTH      8u
#define PIECE      ((size_t)2 << 20)
#define BLOCK      4096u
#define MAX_ROUNDS 31u
#define CENTRES    512u

static const char schema_text[] = "table = { metric = \"l2\"; refine = \"f16\"; source = \"f16\"; };";
static const char *const files[] = {"pages.bin", "refine.bin"};

typedef struct round {
    double bytes;
    double disk_s, load_s; /* direct reads; the resident's opening */
    double processor_s;    /* of the load, over all threads, in user mode and in the kernel */
    double cached;         /* share of the files that was in the page cache when the load began */
} round_of;

static void must(pd_status status, const pd_error *err)
{
    if (status == PD_OK) return;
    fprintf(stderr, "pados-restart-bench: %s\n", err->message);
    exit(1);
}

static void fail(const char *what)
{
    fprintf(stderr, "pados-restart-bench: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double processor(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* ------------------------------------------------------------------------------------------------- the table --- */

/* Rows of f16 in clouds, in a mapping: 5 million of 128 are 1.3 GB. */
static pd_f16 *draw(uint32_t rows, uint32_t dim, size_t *length)
{
    *length = (size_t)rows * dim * sizeof(pd_f16);
    pd_f16 *out = mmap(NULL, *length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    float *centres = malloc((size_t)CENTRES * dim * sizeof *centres);
    if (out == MAP_FAILED || !centres) fail("memory for the rows");
    uint64_t state = 17;
    for (size_t i = 0; i < (size_t)CENTRES * dim; i++)
        centres[i] = pd_random_normal(&state);
    for (size_t i = 0; i < (size_t)rows * dim; i++) {
        const float *centre = centres + pd_random_below(&state, i % dim ? 1 : CENTRES) * dim;
        float noise = (float)pd_random_below(&state, 1u << 16) / (1u << 15) - 1.0f;
        out[i] = pd_f32_to_f16(centre[i % dim] + noise);
    }
    free(centres);
    return out;
}

static void build(uint32_t rows, uint32_t dim, const char *path, pd_device *builder)
{
    pd_error err;
    pd_schema *schema;
    size_t length;
    must(pd_schema_parse("schema", schema_text, strlen(schema_text), &schema, &err), &err);
    pd_f16 *vectors = draw(rows, dim, &length);
    pd_build_input in = {.table = "restart",
                         .version = 1,
                         .rows = vectors,
                         .dtype = PD_DTYPE_F16,
                         .count = rows,
                         .dim = dim,
                         .schema = schema,
                         .nlist = LISTS,
                         .seed = 5};
    printf("building %u rows x %u ...\n", rows, dim);
    fflush(stdout);
    must(pd_build(&in, path, builder, NULL, NULL, &err), &err);
    munmap(vectors, length);
    pd_schema_free(schema);
}

/* -------------------------------------------------------------------------------------------------- the disk --- */

typedef struct reading {
    int fd;
    size_t length;
    atomic_size_t *next;
    int failed;
} reading;

static void *read_pieces(void *context)
{
    reading *r = context;
    void *memory = aligned_alloc(BLOCK, PIECE);
    r->failed = memory ? 0 : ENOMEM;
    for (size_t at; !r->failed && (at = atomic_fetch_add(r->next, PIECE)) < r->length;)
        if (pread(r->fd, memory, PIECE, (off_t)at) < 0) r->failed = errno;
    free(memory);
    return NULL;
}

/* Reads a file from end to end; returns its length. */
static size_t read_direct(const char *path)
{
    pthread_t threads[DEPTH];
    reading readings[DEPTH];
    atomic_size_t next = 0;
    struct stat about;
    int fd = open(path, O_RDONLY | O_DIRECT);
    if (fd < 0 || fstat(fd, &about) != 0) fail(path);
    for (uint32_t i = 0; i < DEPTH; i++) {
        readings[i] = (reading){.fd = fd, .length = (size_t)about.st_size, .next = &next};
        if ((errno = pthread_create(&threads[i], NULL, read_pieces, &readings[i])) != 0) fail("a thread");
    }
    for (uint32_t i = 0; i < DEPTH; i++) {
        pthread_join(threads[i], NULL);
        if ((errno = readings[i].failed) != 0) fail(path);
    }
    close(fd);
    return (size_t)about.st_size;
}

/* Drops a file from the page cache. Returns how many of its bytes stayed there. */
static double drop(const char *path)
{
    struct stat about;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &about) != 0 || fsync(fd) != 0) fail(path);
    if ((errno = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED)) != 0) fail(path);
    size_t pages = ((size_t)about.st_size + BLOCK - 1) / BLOCK, there = 0;
    unsigned char *in = malloc(pages + 1);
    void *map = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (!in || map == MAP_FAILED || mincore(map, (size_t)about.st_size, in) != 0) fail(path);
    for (size_t i = 0; i < pages; i++)
        there += in[i] & 1;
    munmap(map, (size_t)about.st_size);
    free(in);
    close(fd);
    return (double)there * BLOCK;
}

/* ------------------------------------------------------------------------------------------------ the rounds --- */

static round_of measure(const char *folder)
{
    round_of out = {0};
    char paths[2][600];
    pd_error err;
    for (int f = 0; f < 2; f++) {
        snprintf(paths[f], sizeof paths[f], "%s/%s", folder, files[f]);
        drop(paths[f]);
    }
    double start = now();
    for (int f = 0; f < 2; f++)
        out.bytes += (double)read_direct(paths[f]);
    out.disk_s = now() - start;
    for (int f = 0; f < 2; f++)
        out.cached += drop(paths[f]) / out.bytes;

    pd_version *version;
    pd_device *device;
    pd_resident *resident;
    must(pd_version_open(folder, &version, &err), &err);
    const pd_version_info *info = pd_version_info_of(version);
    pd_index_spec spec = {.shape = info->shape, .npages = info->npages, .name = "restart"};
    must(pd_device_open("cpu", &(pd_device_options){.memory = pd_index_bytes(&spec)}, &device, &err), &err);
    double used = processor();
    start = now();
    must(pd_resident_open(version, device, 0, &resident, &err), &err);
    out.load_s = now() - start;
    out.processor_s = processor() - used;
    pd_resident_close(resident);
    pd_device_close(device);
    pd_version_close(version);
    return out;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, uint32_t n)
{
    qsort(values, n, sizeof *values, compare);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static void write_line(FILE *lines, uint32_t rows, uint32_t dim, uint32_t n, const round_of *r)
{
    json_t *line =
        json_pack("{s:s, s:I, s:i, s:i, s:f, s:f, s:f, s:f, s:f}", "bench", "restart", "rows",
                  (json_int_t)rows, "dim", (int)dim, "round", (int)n, "bytes", r->bytes, "disk_s", r->disk_s,
                  "load_s", r->load_s, "processor_s", r->processor_s, "cached", r->cached);
    if (!line || json_dumpf(line, lines, JSON_REAL_PRECISION(6)) != 0 || fputc('\n', lines) == EOF)
        fail("writing a line");
    json_decref(line);
}

static void report(const round_of *rounds, uint32_t n)
{
    double disk[MAX_ROUNDS], load[MAX_ROUNDS], used[MAX_ROUNDS], share[MAX_ROUNDS], cached = 0;
    for (uint32_t i = 0; i < n; i++) {
        disk[i] = rounds[i].bytes / 1e9 / rounds[i].disk_s;
        load[i] = rounds[i].bytes / 1e9 / rounds[i].load_s;
        used[i] = rounds[i].processor_s;
        share[i] = load[i] / disk[i];
        cached = rounds[i].cached > cached ? rounds[i].cached : cached;
    }
    printf("%12s %12s %12s %14s %8s %8s\n", "disk GB/s", "load GB/s", "load s", "processor s", "share",
           "cached");
    double speed = median(load, n);
    printf("%12.2f %12.2f %12.2f %14.2f %7.0f%% %7.1f%%\n", median(disk, n), speed,
           rounds[0].bytes / 1e9 / speed, median(used, n), 100 * median(share, n), 100 * cached);
}

static uint32_t number(int argc, char **argv, int at, uint32_t most, uint32_t otherwise)
{
    if (at >= argc) return otherwise;
    char *end;
    unsigned long value = strtoul(argv[at], &end, 10);
    if (*end || value < 1 || value > most) {
        fprintf(stderr, "pados-restart-bench: \"%s\" is not a number that makes sense\n", argv[at]);
        exit(2);
    }
    return (uint32_t)value;
}

int main(int argc, char **argv)
{
    if (argc < 2 || argv[1][0] == '-' || strlen(argv[1]) > 500) {
        fprintf(stderr, "usage: pados-restart-bench FOLDER [rows [dim [rounds [lines.jsonl]]]]\n");
        return 2;
    }
    uint32_t rows = number(argc, argv, 2, 100000000, 5000000), dim = number(argc, argv, 3, PD_MAX_DIM, 128);
    uint32_t n = number(argc, argv, 4, MAX_ROUNDS, 3);
    char path[560];
    struct stat there;
    pd_error err;
    pd_version *version;
    round_of rounds[MAX_ROUNDS] = {0};
    snprintf(path, sizeof path, "%s/version", argv[1]);
    if (stat(path, &there) != 0) {
        pd_device *builder;
        must(pd_device_open("cpu", &(pd_device_options){0}, &builder, &err), &err);
        build(rows, dim, path, builder);
        pd_device_close(builder);
    }
    must(pd_version_open(path, &version, &err), &err);
    rows = (uint32_t)pd_version_info_of(version)->rows;
    dim = pd_version_info_of(version)->shape.dim;
    pd_version_close(version);
    FILE *lines = argc > 5 ? fopen(argv[5], "a") : NULL;
    if (argc > 5 && !lines) fail(argv[5]);
    for (uint32_t i = 0; i < n; i++) {
        rounds[i] = measure(path);
        if (lines) write_line(lines, rows, dim, i, &rounds[i]);
    }
    printf("%u rows x %u, %.2f GB, %u rounds, %ld processors\n", rows, dim, rounds[0].bytes / 1e9, n,
           sysconf(_SC_NPROCESSORS_ONLN));
    report(rounds, n);
    if (lines && fclose(lines) != 0) fail(argv[5]);
    return 0;
}
