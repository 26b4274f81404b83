/* pados-filters-bench: what hard filters cost, and whether recall holds under them.
 *
 *     pados-filters-bench FOLDER [rows [dim [queries [batch]]]]       (200000 x 64, 512 queries, 256)
 *
 * FOLDER/version is built and calibrated where it is not there yet, so that two builds of the program can be compared on
 * one table. Rows lie in overlapping clouds around a thousand centres. Four attributes: a category and a price that have
 * nothing to do with the vectors, a category that follows the centres, a set. Each kind of filter is asked at
 * selectivities 0.5, 0.1, 0.01 and 0.001 as a planned search (recall 0.95, k 10), one thread, and compared with the exact
 * filtered search; a line says the path, the probes, the queries a second, the plan's own cost and the recall.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "build.h"
#include "calibrate.h"
#include "plan.h"
#include "random.h"
#include "score.h"

#define K       10u
#define CENTRES 1000u
#define RECALL  0.95f
#define SECONDS 0.4

static const char schema_text[] = "table = { metric = \"cosine\"; attributes = ("
                                  " { name = \"kind\"; type = \"category\"; },"
                                  " { name = \"place\"; type = \"category\"; },"
                                  " { name = \"price\"; type = \"number\"; },"
                                  " { name = \"tags\"; type = \"set\"; } ); };";

/* Values by share: the name of the value that so many rows hold. */
static const double shares[] = {0.5, 0.1, 0.01, 0.001};
static const char *const names[] = {"half", "tenth", "hundredth", "thousandth"};
#define SHARES 4

typedef struct bench {
    uint32_t rows, dim, queries, batch;
    pd_device *device, *builder;
    pd_version *version;
    pd_resident *resident;
    float *vectors; /* [queries][dim] */
} bench;

static void must(pd_status status, const pd_error *err)
{
    if (status == PD_OK) return;
    fprintf(stderr, "pados-filters-bench: %s\n", err->message);
    exit(1);
}

static void *room_for(size_t bytes)
{
    void *memory = malloc(bytes + 1);
    if (!memory) {
        fprintf(stderr, "pados-filters-bench: no memory for %zu bytes\n", bytes);
        exit(1);
    }
    return memory;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double uniform(uint64_t *state)
{
    return (double)pd_random_below(state, 1u << 30) / (double)(1u << 30);
}

/* ------------------------------------------------------------------------------------------------- the table --- */

/* Which of the named shares u falls in; SHARES: none of them. */
static int share_of(double u)
{
    for (int s = SHARES - 1; s >= 0; s--) {
        if (u < shares[s]) return s;
        u -= shares[s];
    }
    return SHARES;
}

/* rows [n][dim] in the clouds of the same centres; centre_of may be NULL. */
static float *draw(uint32_t n, uint32_t dim, uint64_t seed, uint32_t *centre_of)
{
    float *centres = room_for((size_t)CENTRES * dim * sizeof *centres);
    float *rows = room_for((size_t)n * dim * sizeof *rows);
    uint64_t state = 17;
    for (size_t i = 0; i < (size_t)CENTRES * dim; i++)
        centres[i] = 0.6f * pd_random_normal(&state) / (1.0f + (float)(i % dim) / 16.0f);
    state = seed;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t c = (uint32_t)pd_random_below(&state, CENTRES);
        if (centre_of) centre_of[i] = c;
        float *row = rows + (size_t)i * dim;
        for (uint32_t d = 0; d < dim; d++)
            row[d] = centres[(size_t)c * dim + d] + pd_random_normal(&state) / (1.0f + (float)d / 16.0f);
        pd_normalise(row, dim);
    }
    free(centres);
    return rows;
}

static void write_attributes(const bench *b, const char *path, const uint32_t *centre_of)
{
    FILE *file = fopen(path, "w");
    uint64_t state = 23;
    if (!file) {
        perror(path);
        exit(1);
    }
    fprintf(file, "id,kind,place,price,tags\n");
    for (uint32_t i = 0; i < b->rows; i++) {
        int kind = share_of(uniform(&state)), place = share_of(((double)centre_of[i] + 0.5) / CENTRES);
        fprintf(file, "%u,%s,%s,%.4f,all", i, kind < SHARES ? names[kind] : "rest",
                place < SHARES ? names[place] : "rest", 1000 * uniform(&state));
        for (int s = 0; s < SHARES; s++)
            if (uniform(&state) < shares[s]) fprintf(file, "|%s", names[s]);
        fputc('\n', file);
    }
    if (fclose(file) != 0) {
        perror(path);
        exit(1);
    }
}

static pd_status through(void *context, const pd_query *queries, uint32_t count, pd_answer *answers,
                         pd_error *err)
{
    return pd_index_search(pd_resident_index(context), queries, count, answers, NULL, err);
}

static void build(const bench *b, const char *folder, const char *path)
{
    char csv[600];
    pd_error err;
    pd_schema *schema;
    uint32_t *centre_of = room_for(b->rows * sizeof *centre_of);
    float *rows = draw(b->rows, b->dim, 1, centre_of);
    snprintf(csv, sizeof csv, "%s/attributes.csv", folder);
    write_attributes(b, csv, centre_of);
    must(pd_schema_parse("schema", schema_text, strlen(schema_text), &schema, &err), &err);
    pd_build_input in = {.table = "filters",
                         .version = 1,
                         .rows = rows,
                         .dtype = PD_DTYPE_F32,
                         .count = b->rows,
                         .dim = b->dim,
                         .schema = schema,
                         .attributes = csv,
                         .seed = 5};
    must(pd_build(&in, path, b->builder, NULL, NULL, &err), &err);
    pd_schema_free(schema);
    free(centre_of);
    free(rows);
}

static void calibrate(bench *b)
{
    pd_error err;
    uint32_t count = PD_CALIBRATION_QUERIES;
    float *queries = draw(count, b->dim, 2, NULL);
    pd_calibrate_input in = {.version = b->version,
                             .resident = b->resident,
                             .queries = queries,
                             .count = count,
                             .source = "drawn",
                             .device = b->builder,
                             .search = through,
                             .search_context = b->resident,
                             .seed = 11};
    pd_calibration *curves = room_for(sizeof *curves);
    must(pd_calibrate(&in, curves, NULL, NULL, &err), &err);
    must(pd_version_adopt_calibration(b->version, curves, &err), &err);
    free(curves);
    free(queries);
}

static void open_table(bench *b, const char *folder)
{
    char path[560];
    struct stat there;
    pd_error err;
    snprintf(path, sizeof path, "%s/version", folder);
    must(pd_device_open("cpu", &(pd_device_options){0}, &b->builder, &err), &err);
    if (stat(path, &there) != 0) build(b, folder, path);
    must(pd_version_open(path, &b->version, &err), &err);
    const pd_version_info *info = pd_version_info_of(b->version);
    pd_index_spec spec = {.shape = info->shape, .npages = info->npages, .name = "filters"};
    pd_device_options options = {.memory = pd_index_bytes(&spec), .threads = 1};
    must(pd_device_open("cpu", &options, &b->device, &err), &err);
    must(pd_resident_open(b->version, b->device, 0, &b->resident, &err), &err);
    if (!info->calibration->measured) calibrate(b);
    b->rows = (uint32_t)info->rows;
    b->dim = info->shape.dim;
    b->vectors = draw(b->queries, b->dim, 3, NULL);
}

/* ----------------------------------------------------------------------------------------------- a question --- */

static void compile(const bench *b, const pd_condition *conditions, uint32_t n, pd_compiled *out)
{
    const pd_version_info *info = pd_version_info_of(b->version);
    pd_error err;
    pd_ask ask = {.conditions = conditions, .nconditions = n, .now = info->created};
    must(pd_compile(info->schema, &info->layout, NULL, &ask, out, &err), &err);
}

static void fill(const bench *b, const pd_compiled *compiled, const pd_plan *plan, pd_query *queries)
{
    const pd_version_info *info = pd_version_info_of(b->version);
    for (uint32_t q = 0; q < b->queries; q++)
        queries[q] = (pd_query){.vector = b->vectors + (size_t)q * b->dim,
                                .similarity = 1,
                                .filter = compiled->has_filter ? &compiled->filter : NULL,
                                .slots = plan->slots,
                                .nslots = plan->nslots,
                                .nprobe = plan->path == PD_PATH_ROWS  ? 0
                                          : plan->path == PD_PATH_ALL ? info->shape.nlist
                                                                      : plan->nprobe,
                                .depth = plan->depth,
                                .k = K,
                                .min_score = -INFINITY};
}

/* Queries a second over whole passes, for SECONDS at least. */
static double time_it(const bench *b, const pd_query *queries, pd_answer *answers)
{
    pd_error err;
    double start = now(), spent;
    uint64_t asked = 0;
    do {
        for (uint32_t at = 0; at < b->queries; at += b->batch) {
            uint32_t n = b->queries - at < b->batch ? b->queries - at : b->batch;
            must(pd_index_search(pd_resident_index(b->resident), queries + at, n, answers + at, NULL, &err),
                 &err);
            asked += n;
        }
        spent = now() - start;
    } while (spent < SECONDS);
    return (double)asked / spent;
}

static double recall_of(const bench *b, const pd_query *queries, const pd_answer *answers)
{
    pd_error err;
    pd_hit *hits = room_for((size_t)b->queries * K * sizeof *hits);
    pd_answer *right = room_for(b->queries * sizeof *right);
    uint64_t found = 0, there = 0;
    for (uint32_t q = 0; q < b->queries; q++)
        right[q] = (pd_answer){.hits = hits + (size_t)q * K};
    must(pd_version_exact(b->version, b->builder, queries, b->queries, right, NULL, NULL, &err), &err);
    for (uint32_t q = 0; q < b->queries; q++) {
        there += right[q].count;
        for (uint32_t h = 0; h < answers[q].count; h++)
            for (uint32_t r = 0; r < right[q].count; r++)
                found += answers[q].hits[h].id == right[q].hits[r].id;
    }
    free(hits);
    free(right);
    return there ? (double)found / (double)there : 1.0;
}

static void ask(const bench *b, const char *what, double share, const pd_condition *conditions, uint32_t n)
{
    pd_compiled compiled;
    pd_plan plan;
    pd_error err;
    compile(b, conditions, n, &compiled);
    pd_want want = {.k = K, .recall = RECALL, .min_score = -INFINITY};
    double start = now();
    must(pd_plan_make(b->resident, &compiled, &want, 1, &plan, &err), &err);
    double planned = now() - start;
    pd_query *queries = room_for(b->queries * sizeof *queries);
    pd_answer *answers = room_for(b->queries * sizeof *answers);
    pd_hit *hits = room_for((size_t)b->queries * K * sizeof *hits);
    fill(b, &compiled, &plan, queries);
    for (uint32_t q = 0; q < b->queries; q++)
        answers[q] = (pd_answer){.hits = hits + (size_t)q * K};
    time_it(b, queries, answers); /* caches and scratch */
    double qps = time_it(b, queries, answers), scanned = 0;
    for (uint32_t q = 0; q < b->queries; q++)
        scanned += (double)answers[q].scanned / b->queries;
    printf("%-22s %8g  %-5s %6u %7u %10.0f %10.1f %8.4f %8.3g  %s\n", what, share, pd_path_name(plan.path),
           queries[0].nprobe, plan.nslots, qps, planned * 1e6, recall_of(b, queries, answers), scanned,
           plan.recall > 0 ? "promised" : plan.note);
    fflush(stdout);
    pd_plan_free(&plan);
    pd_compiled_free(&compiled);
    free(queries);
    free(answers);
    free(hits);
}

static void ask_all(const bench *b)
{
    static const char *const halves[] = {"500"};
    char limits[SHARES][16];
    printf("%-22s %8s  %-5s %6s %7s %10s %10s %8s %8s  %s\n", "filter", "share", "path", "nprobe", "slots",
           "queries/s", "plan us", "recall", "rows", "reply");
    ask(b, "none", 1, NULL, 0);
    for (int s = 0; s < SHARES; s++) {
        snprintf(limits[s], sizeof limits[s], "%g", 1000 * shares[s]);
        const char *name[] = {names[s]}, *limit[] = {limits[s]};
        pd_condition kind = {.attribute = "kind", .kind = PD_IS, .count = 1, .values = name};
        pd_condition place = {.attribute = "place", .kind = PD_IS, .count = 1, .values = name};
        pd_condition price = {.attribute = "price", .kind = PD_AT_MOST, .count = 1, .values = limit};
        pd_condition tags = {.attribute = "tags", .kind = PD_ANY_OF, .count = 1, .values = name};
        pd_condition half = {.attribute = "price", .kind = PD_AT_MOST, .count = 1, .values = halves};
        ask(b, "value", shares[s], &kind, 1);
        ask(b, "value that follows", shares[s], &place, 1);
        ask(b, "range", shares[s], &price, 1);
        ask(b, "member", shares[s], &tags, 1);
        ask(b, "value and half a range", shares[s] / 2, (pd_condition[]){kind, half}, 2);
        if (s == 1) ask(b, "value and range", 0.01, (pd_condition[]){kind, price}, 2);
    }
}

static uint32_t number(int argc, char **argv, int at, uint32_t otherwise)
{
    if (at >= argc) return otherwise;
    char *end;
    unsigned long value = strtoul(argv[at], &end, 10);
    if (*end || value < 1 || value > 100000000) {
        fprintf(stderr, "pados-filters-bench: \"%s\" is not a number that makes sense\n", argv[at]);
        exit(2);
    }
    return (uint32_t)value;
}

int main(int argc, char **argv)
{
    if (argc < 2 || argv[1][0] == '-' || strlen(argv[1]) > 500) {
        fprintf(stderr, "usage: pados-filters-bench FOLDER [rows [dim [queries [batch]]]]\n");
        return 2;
    }
    bench b = {.rows = number(argc, argv, 2, 200000),
               .dim = number(argc, argv, 3, 64),
               .queries = number(argc, argv, 4, 512),
               .batch = number(argc, argv, 5, 256)};
    open_table(&b, argv[1]);
    printf("%u rows x %u, %u lists, k %u, recall %g, batch %u, one thread\n", b.rows, b.dim,
           pd_version_info_of(b.version)->shape.nlist, K, (double)RECALL, b.batch);
    ask_all(&b);
    free(b.vectors);
    pd_resident_close(b.resident);
    pd_version_close(b.version);
    pd_device_close(b.device);
    pd_device_close(b.builder);
    return 0;
}
