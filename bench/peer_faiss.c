/* FAISS through its C API's index factory. Where the library is Debian's libfaiss 1.7.3 it is an SSE2 build, and the report
 * says so: speed is to be claimed against the current faiss-cpu wheel, never against this. */
#include <faiss/c_api/AutoTune_c.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/error_c.h>
#include <faiss/c_api/index_factory_c.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"
#include "build.h"

typedef struct faiss_state {
    FaissIndex *index;
    FaissParameterSpace *space;
    const char *parameter;
    const uint32_t *grid;
    uint32_t points;
    uint32_t own[64];
} faiss_state;

static int failed(char *why, size_t room)
{
    const char *said = faiss_get_last_error();
    snprintf(why, room, "%s", said ? said : "FAISS failed without a word");
    return 1;
}

static void faiss_close(void *handle)
{
    faiss_state *state = handle;
    if (state->space) faiss_ParameterSpace_free(state->space);
    if (state->index) faiss_Index_free(state->index);
    free(state);
}

static int faiss_build(const bench_data *data, uint32_t threads, const char *factory, const char *parameter,
                       void **out, char *why, size_t room)
{
    faiss_state *state = calloc(1, sizeof *state);
    if (!state) {
        snprintf(why, room, "no memory");
        return 1;
    }
    omp_set_num_threads((int)threads);
    state->parameter = parameter;
    FaissMetricType metric = data->metric == PD_L2 ? METRIC_L2 : METRIC_INNER_PRODUCT;
    if (faiss_index_factory(&state->index, (int)data->dim, factory, metric) ||
        faiss_Index_train(state->index, (idx_t)data->rows, data->base) ||
        faiss_Index_add(state->index, (idx_t)data->rows, data->base) ||
        faiss_ParameterSpace_new(&state->space)) {
        failed(why, room);
        faiss_close(state);
        return 1;
    }
    *out = state;
    return 0;
}

static int ivf_build(const bench_data *data, uint32_t threads, uint32_t nlist, const char *codes, void **out,
                     char *why, size_t room)
{
    char factory[48];
    uint32_t lists = nlist ? nlist : pd_auto_nlist(data->rows);
    snprintf(factory, sizeof factory, "IVF%u,%s", lists, codes);
    if (faiss_build(data, threads, factory, "nprobe", out, why, room)) return 1;
    faiss_state *state = *out;
    /* 1, 2, 3, 4, 6, 8, 12, 16, ...: as fine as a caller would tune. */
    for (uint32_t step = 1; step <= lists && state->points < 62; step *= 2) {
        state->own[state->points++] = step;
        if (step > 1 && step + step / 2 <= lists) state->own[state->points++] = step + step / 2;
    }
    state->grid = state->own;
    return 0;
}

static int flat_build(const bench_data *data, uint32_t threads, uint32_t nlist, uint64_t seed, void **out,
                      char *why, size_t room)
{
    (void)seed;
    return ivf_build(data, threads, nlist, "Flat", out, why, room);
}

static int sq8_build(const bench_data *data, uint32_t threads, uint32_t nlist, uint64_t seed, void **out,
                     char *why, size_t room)
{
    (void)seed;
    return ivf_build(data, threads, nlist, "SQ8", out, why, room);
}

static int hnsw_build(const bench_data *data, uint32_t threads, uint32_t nlist, uint64_t seed, void **out,
                      char *why, size_t room)
{
    static const uint32_t ef[] = {10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024};
    (void)nlist;
    (void)seed;
    if (faiss_build(data, threads, "HNSW16,Flat", "efSearch", out, why, room)) return 1;
    faiss_state *state = *out;
    state->grid = ef;
    state->points = sizeof ef / sizeof *ef;
    return 0;
}

static const uint32_t *faiss_grid(void *handle, uint32_t *n)
{
    faiss_state *state = handle;
    *n = state->points;
    return state->grid;
}

static int faiss_set(void *handle, uint32_t value, char *why, size_t room)
{
    faiss_state *state = handle;
    return faiss_ParameterSpace_set_index_parameter(state->space, state->index, state->parameter, value)
               ? failed(why, room)
               : 0;
}

static int faiss_search(void *handle, const float *queries, uint32_t count, uint32_t k, int64_t *ids,
                        char *why, size_t room)
{
    faiss_state *state = handle;
    float *distances = malloc((size_t)count * k * sizeof *distances);
    if (!distances) {
        snprintf(why, room, "no memory for distances");
        return 1;
    }
    int bad = faiss_Index_search(state->index, count, queries, k, distances, ids);
    free(distances);
    return bad ? failed(why, room) : 0;
}

#ifdef PADOS_FAISS_SSE2
#define BUILD "FAISS 1.7.3 as Debian builds it (SSE2)"
#else
#define BUILD "FAISS (libfaiss_c)"
#endif

const bench_peer bench_faiss_ivf = {"faiss-ivf",  "nprobe",   BUILD ", IVF,Flat, as many lists as Pados",
                                    flat_build,   faiss_grid, faiss_set,
                                    faiss_search, faiss_close};
const bench_peer bench_faiss_ivfsq8 = {"faiss-ivfsq8", "nprobe",   BUILD ", IVF,SQ8, as many lists as Pados",
                                       sq8_build,      faiss_grid, faiss_set,
                                       faiss_search,   faiss_close};
const bench_peer bench_faiss_hnsw = {"faiss-hnsw", "efSearch", BUILD ", HNSW16,Flat", hnsw_build,
                                     faiss_grid,   faiss_set,  faiss_search,          faiss_close};
