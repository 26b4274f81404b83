/* One list of queries for every backend: each kind of weight, filter and restriction, alone and together. */
#ifndef PD_TEST_QUERIES_H
#define PD_TEST_QUERIES_H

#include "world.h"

#ifndef NQUERIES
#define NQUERIES 96u
#endif
#define MOST_K 1000u

typedef enum filter_kind {
    NO_FILTER,
    BY_BYTE,
    BY_RANGE,
    BY_SET,
    BY_KEY,
    BY_NO_KEY,
    BY_ALL,
    NOTHING
} filter_kind;

typedef struct query_case {
    const char *what;
    uint32_t k, nprobe;
    int weights; /* 1: of the category, 2: of category and set */
    uint32_t nkeys;
    filter_kind filter;
    int exclude, slots, min_score, no_vector, no_similarity;
} query_case;

static const query_case query_cases[] = {
    {.what = "plain", .k = 10, .nprobe = 3},
    {.what = "one hit", .k = 1, .nprobe = 2},
    {.what = "more than there is", .k = 1000, .nprobe = 100},
    {.what = "every list", .k = 100, .nprobe = WORLD_LISTS},
    {.what = "category weights", .k = 10, .nprobe = 4, .weights = 1},
    {.what = "category and set weights", .k = 10, .nprobe = 4, .weights = 2},
    {.what = "key weights", .k = 10, .nprobe = 4, .nkeys = 2},
    {.what = "all weights", .k = 50, .nprobe = 5, .weights = 2, .nkeys = 3},
    {.what = "byte filter", .k = 10, .nprobe = 5, .filter = BY_BYTE},
    {.what = "range filter", .k = 10, .nprobe = 5, .filter = BY_RANGE},
    {.what = "set filter", .k = 10, .nprobe = 5, .filter = BY_SET, .weights = 1},
    {.what = "key filter", .k = 10, .nprobe = 5, .filter = BY_KEY},
    {.what = "negated key filter", .k = 10, .nprobe = 5, .filter = BY_NO_KEY},
    {.what = "all filters", .k = 100, .nprobe = WORLD_LISTS, .filter = BY_ALL},
    {.what = "all filtered", .k = 10, .nprobe = 5, .filter = NOTHING},
    {.what = "excludes", .k = 20, .nprobe = 4, .exclude = 1},
    {.what = "slots beside probes", .k = 20, .nprobe = 2, .slots = 1},
    {.what = "slots alone", .k = 20, .nprobe = 0, .slots = 1},
    {.what = "slots with filter and weights",
     .k = 20,
     .nprobe = 1,
     .slots = 1,
     .filter = BY_BYTE,
     .weights = 2},
    {.what = "min_score", .k = 200, .nprobe = 5, .min_score = 1},
    {.what = "min_score with weights", .k = 200, .nprobe = 5, .min_score = 1, .weights = 1},
    {.what = "attributes alone", .k = 10, .nprobe = 3, .weights = 2, .nkeys = 1, .no_vector = 1},
    {.what = "attributes alone, filtered",
     .k = 30,
     .weights = 1,
     .no_vector = 1,
     .filter = BY_RANGE,
     .exclude = 1},
    {.what = "nothing to go by", .k = 10, .no_vector = 1},
    {.what = "no similarity", .k = 10, .nprobe = 4, .no_similarity = 1},
    {.what = "no similarity, weights", .k = 10, .nprobe = 4, .no_similarity = 1, .weights = 2},
    {.what = "everything",
     .k = 40,
     .nprobe = 6,
     .weights = 2,
     .nkeys = 2,
     .filter = BY_BYTE,
     .exclude = 1,
     .slots = 1,
     .min_score = 1},
    {.what = "no probes", .k = 5, .nprobe = 0},
};
#define NCASES (sizeof query_cases / sizeof *query_cases)

typedef struct query_set {
    pd_query queries[NQUERIES];
    const query_case *cases[NQUERIES];
    float *vectors;
    float *weights[2];
    pd_key_weight key_weights[3];
    pd_byte_test byte_test, none_test;
    pd_range_test range_test;
    pd_set_test set_test;
    pd_key_test key_test, no_key_test;
    uint64_t key_values[2];
    pd_filter filters[NOTHING + 1];
    uint64_t exclude[60];
    uint32_t slots[90];
} query_set;

static inline int by_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static inline void queries_filters(query_set *s)
{
    s->byte_test = (pd_byte_test){.column = 0, .allow = {0x16}}; /* 1, 2, 4 */
    s->none_test = (pd_byte_test){.column = 0};
    s->range_test = (pd_range_test){.column = 0, .low = -4.0f, .high = INFINITY};
    s->set_test = (pd_set_test){.column = WORLD_SET, .any = 0xffff00ffull, .none = 1ull << 63 | 4};
    s->key_values[0] = 2;
    s->key_values[1] = 5;
    s->key_test = (pd_key_test){.column = 0, .count = 2, .values = s->key_values};
    s->no_key_test = (pd_key_test){.column = 0, .negate = 1, .count = 2, .values = s->key_values};
    s->filters[BY_BYTE] = (pd_filter){.nbytes = 1, .bytes = &s->byte_test};
    s->filters[BY_RANGE] = (pd_filter){.nranges = 1, .ranges = &s->range_test};
    s->filters[BY_SET] = (pd_filter){.nsets = 1, .sets = &s->set_test};
    s->filters[BY_KEY] = (pd_filter){.nkeys = 1, .keys = &s->key_test};
    s->filters[BY_NO_KEY] = (pd_filter){.nkeys = 1, .keys = &s->no_key_test};
    s->filters[BY_ALL] =
        (pd_filter){1, 1, 1, 1, &s->byte_test, &s->range_test, &s->set_test, &s->no_key_test};
    s->filters[NOTHING] = (pd_filter){.nbytes = 1, .bytes = &s->none_test};
}

static inline void queries_weights(query_set *s, const world *w)
{
    for (int i = 0; i < 2; i++) {
        s->weights[i] = calloc(w->layout.weights, sizeof(float));
        for (uint32_t v = 0; v < 5; v++)
            s->weights[i][w->layout.weight_at[0] + v] = v == 0 ? 0.0f : 0.3f * world_normal();
    }
    for (uint32_t j = 0; j < 2; j++)
        for (uint32_t v = 0; v < 256; v++)
            s->weights[1][w->layout.weight_at[WORLD_SET + 3 * j] + v] =
                0.1f * (float)__builtin_popcount(v & 0x2du) - 0.05f;
    s->key_weights[0] = (pd_key_weight){.column = 0, .value = 3, .weight = 0.7f};
    s->key_weights[1] = (pd_key_weight){.column = 0, .value = 6, .weight = -0.4f};
    s->key_weights[2] = (pd_key_weight){.column = 0, .value = 1, .weight = 0.2f};
}

static inline query_set *queries_make(const world *w)
{
    query_set *s = calloc(1, sizeof *s);
    uint32_t dim = w->shape.dim;
    s->vectors = calloc((size_t)NQUERIES * dim, sizeof(float));
    queries_filters(s);
    queries_weights(s, w);
    for (uint32_t i = 0; i < 60; i++)
        s->exclude[i] = w->ids[i * 11];
    qsort(s->exclude, 60, sizeof *s->exclude, by_u64);
    for (uint32_t i = 0; i < 90; i++)
        s->slots[i] = i * 22 + i % 3; /* in order, some empty, some in pages without a list */
    for (uint32_t q = 0; q < NQUERIES; q++) {
        const query_case *c = s->cases[q] = &query_cases[q % NCASES];
        float *vector = s->vectors + (size_t)q * dim;
        uint32_t near = world_below(WORLD_ROWS);
        for (uint32_t d = 0; d < dim; d++)
            vector[d] = w->rows[(size_t)near * dim + d] + 0.2f * w->unit * world_normal();
        if (w->shape.metric == PD_COSINE) pd_normalise(vector, dim);
        s->queries[q] = (pd_query){.vector = c->no_vector ? NULL : vector,
                                   .similarity = c->no_similarity ? 0.0f : 0.75f,
                                   .weights = c->weights ? s->weights[c->weights - 1] : NULL,
                                   .key_weights = s->key_weights,
                                   .nkey_weights = c->nkeys,
                                   .filter = c->filter ? &s->filters[c->filter] : NULL,
                                   .exclude = s->exclude,
                                   .nexclude = c->exclude ? 60 : 0,
                                   .slots = s->slots,
                                   .nslots = c->slots ? 90 : 0,
                                   .nprobe = c->nprobe,
                                   .k = c->k,
                                   .min_score = -INFINITY};
        /* Half of its own similarity to the row it was made from: some rows reach that, some do not. */
        if (c->min_score)
            s->queries[q].min_score = w->shape.metric == PD_L2
                                          ? -0.3f * (float)dim
                                          : 0.4f * pd_dot(vector, w->rows + (size_t)near * dim, dim);
    }
    return s;
}

/* Does row r pass what query q asks, by the raw columns? */
static inline int query_passes(const query_set *s, const world *w, uint32_t q, uint32_t r)
{
    const query_case *c = s->cases[q];
    uint64_t members = 0;
    for (uint32_t j = 0; j < 8; j++)
        members |= (uint64_t)w->bytes[r][WORLD_SET + j] << (8 * j);
    int category = w->bytes[r][0] == 1 || w->bytes[r][0] == 2 || w->bytes[r][0] == 4;
    int range = w->floats[r][0] >= -4.0f;
    int set = (members & s->set_test.any) && !(members & s->set_test.none);
    int key = w->keys[r] == 2 || w->keys[r] == 5;
    int pass = 1;
    if (c->filter == BY_BYTE || c->filter == BY_ALL) pass &= category;
    if (c->filter == BY_RANGE || c->filter == BY_ALL) pass &= range;
    if (c->filter == BY_SET || c->filter == BY_ALL) pass &= set;
    if (c->filter == BY_KEY) pass &= key;
    if (c->filter == BY_NO_KEY || c->filter == BY_ALL) pass &= !key;
    if (c->filter == NOTHING) pass = 0;
    for (uint32_t i = 0; c->exclude && i < 60; i++)
        pass &= s->exclude[i] != w->ids[r];
    return pass && !w->deleted[r];
}

static inline int by_hit(const void *a, const void *b)
{
    const pd_hit *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

static inline void queries_free(query_set *s)
{
    free(s->vectors);
    free(s->weights[0]);
    free(s->weights[1]);
    free(s);
}

typedef struct answer_set {
    pd_answer answers[NQUERIES];
    uint32_t probes[NQUERIES][WORLD_MOST_LISTS];
    pd_hit *hits;
} answer_set;

static inline answer_set *answers_make(void)
{
    answer_set *a = calloc(1, sizeof *a);
    a->hits = calloc((size_t)NQUERIES * MOST_K, sizeof *a->hits);
    for (uint32_t q = 0; q < NQUERIES; q++)
        a->answers[q] = (pd_answer){.hits = a->hits + (size_t)q * MOST_K, .probes = a->probes[q]};
    return a;
}

static inline void answers_free(answer_set *a)
{
    free(a->hits);
    free(a);
}

#endif
