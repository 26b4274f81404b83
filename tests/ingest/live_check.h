/* Whether a table that changed is what the model says, all of it. */
#ifndef PD_TEST_LIVE_CHECK_H
#define PD_TEST_LIVE_CHECK_H

#include "live_world.h"

static inline void check_near(float value, float expected, float tolerance)
{
    if (isnan(expected) ? isnan(value) : fabsf(value - expected) <= tolerance * fmaxf(1.0f, fabsf(expected)))
        return;
    fail_msg("%g where %g was expected", (double)value, (double)expected);
}

static inline float score_of(const live_world *w, const float *query, const float *row)
{
    double sum = 0;
    for (uint32_t d = 0; d < DIM; d++) {
        double gap = (double)query[d] - (double)row[d];
        sum += w->info->shape.metric == PD_L2 ? -gap * gap : (double)query[d] * (double)row[d];
    }
    return (float)sum;
}

static inline uint32_t model_of(uint64_t id)
{
    /* The inverse of id_of's odd factor, mod 2^64. */
    return (uint32_t)(id * 0xf1de83e19937733dull) - 1;
}

static inline void check_columns(const live_world *w, uint32_t i, const uint8_t *bytes, const float *floats,
                                 uint64_t key)
{
    const model_row *row = &w->rows[i];
    uint64_t zones = 0;
    for (uint32_t j = 0; j < 8; j++)
        zones |= (uint64_t)bytes[w->zones->byte_column + j] << (8 * j);
    assert_int_equal(bytes[w->kind->byte_column], row->kind);
    assert_true(zones == row->zones);
    assert_true(key == row->brand);
    check_near(floats[w->price->float_column], row->price, 0);
    check_near(floats[w->heat->float_column], row->heat, 1e-5f);
    assert_int_equal(bytes[w->price->byte_column], pd_attribute_bucket(w->price, row->price));
    assert_int_equal(bytes[w->heat->byte_column],
                     pd_attribute_bucket(w->heat, floats[w->heat->float_column]));
}

/* Every row is where its id says, with what it holds, and no other id is there. */
static inline void check_rows(live_world *w)
{
    pd_index *index = pd_resident_index(w->resident);
    uint64_t rows = 0;
    for (uint32_t i = 0; i < IDS; i++) {
        uint32_t slot = pd_resident_slot(w->resident, id_of(i));
        assert_int_equal(slot != PD_NO_SLOT, w->rows[i].there);
        assert_int_equal(slot, pd_resident_staged_slot(w->resident, id_of(i)));
        if (slot == PD_NO_SLOT) continue;
        rows++;
        pd_error err;
        float vector[DIM], floats[2];
        uint8_t bytes[16];
        uint64_t id, key;
        assert_true(w->info->shape.nbytes <= sizeof bytes);
        pd_rows want = {.vectors = vector, .ids = &id, .bytes = bytes, .floats = floats, .keys = &key};
        ok(pd_index_gather(index, &slot, 1, &want, &err), &err);
        assert_true(id == id_of(i));
        check_columns(w, i, bytes, floats, key);
        for (uint32_t d = 0; w->info->shape.refine && d < DIM; d++)
            check_near(vector[d], w->rows[i].vector[d], 1e-3f);
        double counter = pd_resident_counter(w->resident, w->heat, slot);
        if (isinf(w->rows[i].counter))
            assert_true(isinf(counter));
        else
            assert_true(fabs(counter - w->rows[i].counter) < 1e-9);
    }
    assert_true(rows == pd_resident_rows(w->resident));
}

typedef struct answers {
    pd_answer answer;
    pd_hit hits[IDS];
} answers;

/* The best k of the model that pass, and their order. holds: [IDS] */
static inline void check_hits(const live_world *w, const pd_query *query, const pd_answer *answer,
                              const uint8_t *holds, float tolerance)
{
    static uint8_t met[IDS];
    float worst = answer->count ? answer->hits[answer->count - 1].score : -INFINITY;
    uint32_t there = 0;
    memset(met, 0, sizeof met);
    for (uint32_t h = 0; h < answer->count; h++) {
        uint32_t i = model_of(answer->hits[h].id);
        assert_true(i < IDS && holds[i] && !met[i]);
        met[i] = 1;
        check_near(answer->hits[h].score, score_of(w, query->vector, w->rows[i].vector), tolerance);
        assert_int_equal(answer->hits[h].slot, pd_resident_slot(w->resident, answer->hits[h].id));
        assert_true(h == 0 || answer->hits[h].score <= answer->hits[h - 1].score);
    }
    for (uint32_t i = 0; i < IDS; i++) {
        there += holds[i];
        if (!holds[i] || met[i]) continue;
        float score = score_of(w, query->vector, w->rows[i].vector);
        assert_true(score <= worst + tolerance * fmaxf(1.0f, fabsf(score)));
    }
    assert_int_equal(answer->count, there < query->k ? there : query->k);
}

/* Rows that pass a range of prices and a set of kinds. */
static inline void model_passes(const live_world *w, uint8_t *holds, int filtered)
{
    for (uint32_t i = 0; i < IDS; i++) {
        const model_row *row = &w->rows[i];
        holds[i] =
            (uint8_t)(row->there && (!filtered || (row->price >= 10 && row->price <= 55 && row->kind != 2)));
    }
}

/* By its codes, and exactly; with a filter and without. */
static inline void check_searches(live_world *w)
{
    static answers got;
    static uint8_t holds[IDS];
    pd_live_source source = source_of(w);
    pd_range_test prices = {.column = w->price->float_column, .low = 10, .high = 55};
    pd_byte_test kinds = {.column = w->kind->byte_column, .allow = {~4ull, ~0ull, ~0ull, ~0ull}};
    pd_filter filter = {.nbytes = 1, .nranges = 1, .bytes = &kinds, .ranges = &prices};
    for (int filtered = 0; filtered < 2; filtered++) {
        float vector[DIM];
        pd_error err;
        random_vector(w, vector);
        pd_query query = {.vector = vector,
                          .similarity = 1,
                          .filter = filtered ? &filter : NULL,
                          .k = 20,
                          .min_score = -INFINITY};
        model_passes(w, holds, filtered);
        got.answer = (pd_answer){.hits = got.hits};
        ok(pd_resident_exact(w->resident, &source, w->other, &query, 1, &got.answer, NULL, NULL, &err), &err);
        check_hits(w, &query, &got.answer, holds, 2e-4f);
        /* All of them, by every list: refine rows keep them to the whole number, codes do not. */
        query.k = IDS;
        query.nprobe = LISTS;
        got.answer = (pd_answer){.hits = got.hits};
        ok(pd_index_search(pd_resident_index(w->resident), &query, 1, &got.answer, NULL, &err), &err);
        check_hits(w, &query, &got.answer, holds, w->info->shape.refine ? 2e-3f : 0.1f);
    }
}

/* ------------------------------------------------------------------------------------------------ postings --- */

static inline void check_matches(const live_world *w, const pd_matches *matches, const uint8_t *holds,
                                 int counted)
{
    static uint8_t found[100000];
    uint64_t rows = 0;
    memset(found, 0, sizeof found);
    for (uint64_t i = 0; i < matches->nslots + matches->nmore; i++) {
        uint32_t slot = i < matches->nslots ? matches->slots[i] : matches->more[i - matches->nslots];
        assert_true(slot < sizeof found);
        found[slot] = 1;
    }
    for (uint32_t i = 0; i < IDS; i++) {
        if (!holds[i]) continue;
        rows++;
        if (matches->listed) assert_int_equal(found[pd_resident_slot(w->resident, id_of(i))], 1);
    }
    if (counted) assert_true(rows == matches->rows);
}

static inline void check_postings(live_world *w)
{
    static uint8_t holds[IDS];
    pd_matches matches;
    for (uint32_t v = 0; v < 5; v++) {
        for (uint32_t i = 0; i < IDS; i++)
            holds[i] = w->rows[i].there && w->rows[i].kind == v;
        pd_resident_posting(w->resident, w->kind, v, &matches);
        check_matches(w, &matches, holds, 1);
        /* Repeats do not pile up. */
        assert_true(matches.nmore <= 2 * (uint64_t)(IDS + 3 * MOST) + 8);
    }
    for (uint32_t v = 0; v < 10; v++) {
        for (uint32_t i = 0; i < IDS; i++)
            holds[i] = w->rows[i].there && w->rows[i].zones >> v & 1;
        pd_resident_posting(w->resident, w->zones, v, &matches);
        check_matches(w, &matches, holds, 1);
    }
    for (uint64_t v = 100; v < 5000 + w->sequence; v = v == 165 ? 5001 : v + 1) {
        for (uint32_t i = 0; i < IDS; i++)
            holds[i] = w->rows[i].there && w->rows[i].brand == v;
        pd_resident_posting(w->resident, w->brand, v, &matches);
        check_matches(w, &matches, holds, 1);
    }
    for (int r = 0; r < 5; r++) {
        float low = (float)below(w, 100), high = low + (float)below(w, 40);
        for (uint32_t i = 0; i < IDS; i++)
            holds[i] = w->rows[i].there && w->rows[i].price >= low && w->rows[i].price <= high;
        pd_resident_range(w->resident, w->price, low, high, &matches);
        assert_int_equal(matches.listed, 1);
        check_matches(w, &matches, holds, 0);
        pd_resident_range(w->resident, w->heat, low, high, &matches);
        assert_int_equal(matches.listed, 0);
    }
}

static inline void check_histogram(const live_world *w, uint32_t column, const uint64_t *expected, uint32_t n)
{
    const uint64_t *histogram = pd_resident_histogram(w->resident, column);
    for (uint32_t v = 0; v < n && v < w->info->shape.sizes[column]; v++) {
        assert_true(histogram[v] == expected[v]);
        if (expected[v]) assert_true(pd_resident_used(w->resident, column) > v);
    }
}

static inline void check_histograms(live_world *w)
{
    uint64_t kinds[256] = {0}, prices[256] = {0}, heats[256] = {0}, planes[2][256] = {{0}};
    for (uint32_t i = 0; i < IDS; i++) {
        const model_row *row = &w->rows[i];
        if (!row->there) continue;
        kinds[row->kind]++;
        prices[pd_attribute_bucket(w->price, row->price)]++;
        heats[pd_attribute_bucket(w->heat, row->heat)]++;
        planes[0][row->zones & 255]++;
        planes[1][row->zones >> 8 & 255]++;
    }
    check_histogram(w, w->kind->byte_column, kinds, 256);
    check_histogram(w, w->price->byte_column, prices, 256);
    check_histogram(w, w->heat->byte_column, heats, 256);
    check_histogram(w, w->zones->byte_column, planes[0], 256);
    check_histogram(w, w->zones->byte_column + 1, planes[1], 256);
}

/* ------------------------------------------------------------------------------------------------ the rest --- */

static inline uint32_t nearest_list(const live_world *w, const float *vector)
{
    double best = INFINITY;
    uint32_t list = 0;
    for (uint32_t l = 0; l < w->info->shape.nlist; l++) {
        double gap = 0;
        for (uint32_t d = 0; d < DIM; d++)
            gap += pow((double)w->info->lists.centroids[(size_t)l * DIM + d] - (double)vector[d], 2);
        if (gap < best) {
            best = gap;
            list = l;
        }
    }
    return list;
}

static inline void check_stats(live_world *w)
{
    pd_live_stats stats;
    uint64_t rows = 0, written = 0, lists[LISTS] = {0};
    double squares = 0;
    for (uint32_t i = 0; i < IDS; i++) {
        rows += (uint64_t)w->rows[i].there;
        written += w->rows[i].there && w->rows[i].sequence;
        if (w->rows[i].there) lists[nearest_list(w, w->rows[i].vector)]++;
    }
    for (uint32_t l = 0; l < LISTS; l++)
        squares += (double)(lists[l] * lists[l]);
    pd_resident_live(w->resident, &stats);
    assert_true(stats.rows == rows);
    assert_true(stats.changed == written + w->gone);
    assert_true(stats.pages_free <= stats.pages);
    if (w->of.lookup) {
        assert_true(stats.imbalance == 1);
    } else if (fabs(stats.imbalance - LISTS * squares / (double)(rows * rows)) > 0.01) {
        fail_msg("imbalance is %g, not %g", stats.imbalance, LISTS * squares / (double)(rows * rows));
    }
}

typedef struct streamed {
    live_world *w;
    uint8_t met[IDS];
    uint32_t rows;
} streamed;

static inline pd_status stream_rows(void *context, uint32_t n, const float *vectors, const uint64_t *ids,
                                    const uint8_t *bytes, const float *floats, const uint64_t *keys,
                                    const double *counters, pd_error *err)
{
    streamed *s = context;
    const live_world *w = s->w;
    (void)err;
    for (uint32_t k = 0; k < n; k++) {
        uint32_t i = model_of(ids[k]);
        assert_true(i < IDS && w->rows[i].there && !s->met[i]);
        s->met[i] = 1;
        s->rows++;
        check_columns(w, i, bytes + (size_t)k * w->info->shape.nbytes, floats + (size_t)k * 2, keys[k]);
        for (uint32_t d = 0; d < DIM; d++)
            check_near(vectors[(size_t)k * DIM + d], w->rows[i].vector[d], 1e-6f);
        assert_true(counters[k] == w->rows[i].counter || fabs(counters[k] - w->rows[i].counter) < 1e-9);
    }
    return PD_OK;
}

static inline void check_stream(live_world *w)
{
    pd_error err;
    pd_live_source source = source_of(w);
    streamed s = {.w = w};
    ok(pd_resident_stream(w->resident, &source, stream_rows, &s, NULL, NULL, &err), &err);
    assert_int_equal(s.rows, pd_resident_rows(w->resident));
}

static inline void check_all(live_world *w)
{
    check_rows(w);
    check_searches(w);
    check_postings(w);
    check_histograms(w);
    check_stats(w);
    check_stream(w);
}

#endif
