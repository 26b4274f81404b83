/* What the tests of scrubbing share: a version with rows that are easily found again in its files. */
#ifndef PD_TEST_SCRUB_FILES_H
#define PD_TEST_SCRUB_FILES_H

#include <dirent.h>
#include <math.h>
#include <sys/stat.h>

#include "scrub.h"
#include "store_files.h"
#include "version_impl.h"

enum { N = 700, DIM = 12, LONER = 333, K = 20 };
#define ID_OF(row) (0x7e57000000000000ull + 977ull * (uint64_t)(row))
#define ATTRIBUTES                                                                                           \
    "fallback = ( \"segment:kind\" ); attributes = ( { name = \"kind\"; type = \"category\"; },"             \
    " { name = \"price\"; type = \"number\"; }, { name = \"zones\"; type = \"set\"; },"                      \
    " { name = \"brand\"; type = \"key\"; } ); };"

typedef struct world {
    char folder[64], version[80], fresh[96];
    pd_device *device;
    float *rows; /* [N][DIM] as the table keeps them */
    uint64_t ids[N];
} world;

static inline uint32_t kind_of(uint32_t row)
{
    return row == LONER ? 9 : row % 5;
}

/* One row lies where no other does, alone of its kind: a list, a centroid and a segment are its own. */
static inline void build(world *w, const char *schema_text)
{
    pd_error err;
    pd_schema *schema = schema_make(schema_text);
    w->rows = rows_make(N, DIM, 6, 2);
    for (uint32_t d = 0; d < DIM; d++)
        w->rows[LONER * DIM + d] = (d % 2 ? -40.0f : 40.0f) + (float)d * 0.37f;
    FILE *csv = fopen(path_in(w->folder, "a.csv"), "w");
    assert_non_null(csv);
    fputs("id,kind,price,zones,brand\n", csv);
    for (uint32_t i = 0; i < N; i++) {
        w->ids[i] = ID_OF(i);
        fprintf(csv, "%llu,k%u,%u.5,z%u|z%u,%u\n", (unsigned long long)w->ids[i], kind_of(i), i % 40, i % 3,
                i % 11, 1000000007u + i);
    }
    assert_int_equal(fclose(csv), 0);
    pd_build_input in = input_make(schema, w->rows, N, DIM);
    in.ids = w->ids;
    in.attributes = path_in(w->folder, "a.csv");
    ok(pd_build(&in, w->version, w->device, NULL, NULL, &err), &err);
    assert_int_equal(unlink(in.attributes), 0);
    for (uint32_t i = 0; schema->metric == PD_COSINE && i < N; i++)
        pd_normalise(w->rows + i * DIM, DIM);
    pd_schema_free(schema);
}

static inline world *world_empty(void)
{
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    folder_make(w->folder);
    snprintf(w->version, sizeof w->version, "%s/v", w->folder);
    snprintf(w->fresh, sizeof w->fresh, "%s.tmp", w->version);
    w->device = device_make("cpu", 16u << 20);
    return w;
}

static inline world *world_make(const char *schema_text)
{
    world *w = world_empty();
    build(w, schema_text);
    return w;
}

static inline void world_free(world *w)
{
    folder_drop(w->folder);
    pd_device_close(w->device);
    free(w->rows);
    free(w);
}

static inline const pd_version_info *opened(const char *folder, pd_version **version)
{
    pd_error err;
    ok(pd_version_open(folder, version, &err), &err);
    return pd_version_info_of(*version);
}

static inline int there(const char *path)
{
    struct stat about;
    return lstat(path, &about) == 0;
}

/* Rows 0..N-1 of the world that a version holds, by their ids: [N]. */
static inline uint32_t rows_held(const world *w, const pd_version *version, uint32_t *slots)
{
    pd_error err;
    uint32_t held = 0;
    ok(pd_version_find(version, w->ids, N, slots, &err), &err);
    for (uint32_t i = 0; i < N; i++)
        held += slots[i] != PD_NO_SLOT;
    return held;
}

/* The whole of a version, with every check that a load makes. Returns its rows. */
static inline uint64_t load(const world *w)
{
    pd_error err;
    pd_version *version;
    pd_resident *resident;
    uint64_t rows = opened(w->version, &version)->rows;
    ok(pd_resident_open(version, w->device, 0, &resident, &err), &err);
    uint32_t slots[N];
    assert_int_equal(rows_held(w, version, slots), rows);
    pd_resident_close(resident);
    pd_version_close(version);
    return rows;
}

/* The exact answer to a row of the world as the query. Returns how many hits there are. */
static inline uint32_t ask(const world *w, const pd_version *version, pd_device *device, uint32_t row,
                           pd_hit *hits)
{
    pd_error err;
    pd_query query = {.vector = w->rows + row * DIM, .similarity = 1, .k = K, .min_score = -INFINITY};
    pd_answer answer = {.hits = hits};
    ok(pd_version_exact(version, device, &query, 1, &answer, NULL, NULL, &err), &err);
    return answer.count;
}

#endif
