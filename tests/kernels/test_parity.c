/* Every backend and instruction set against every other, by name, over one list of worlds and queries.
 *
 * The cpu backend must give the same bits on every instruction set, for every batch size and number of threads. The
 * reference is held to a computation over the raw rows, and the cpu to the reference within rounding. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#ifdef PD_PARITY_SIMT
#define NQUERIES 32u /* each case at least once */
#endif
#include "queries.h"

#define SLAB ((uint64_t)96 << 20)

typedef struct combination {
    uint32_t threads, batch;
} combination;

/* How a cuda device is opened. */
typedef struct cuda_way {
    const char *isa, *name;
    uint64_t host; /* bytes of the host's memory for refine rows */
} cuda_way;

#ifdef PD_PARITY_CUDA
/* The same list against the cuda backend, both ways of scanning; the cpu backend stands for itself. PD_PARITY_SIMT: its kernels run
 * on the CPU (tests/simt), where the widest rows would take too long. */
static const char *const isas[] = {"portable"};
static const combination combinations[] = {{1, NQUERIES}};
static const cuda_way cuda_ways[] = {
    {"row", "row", 0}, {"tile", "tile", 0}, {"row", "row, refine rows in the host's memory", SLAB}};
static const uint32_t cuda_batches[] = {NQUERIES, 13};
#ifdef PD_PARITY_SIMT
static const uint32_t dims[] = {3, 17, 100};
#else
static const uint32_t dims[] = {1, 3, 17, 100, 784};
#endif
#else
static const char *const isas[] = {"portable", "avx2", "avx512", "amx"};
static const combination combinations[] = {{1, NQUERIES}, {1, 1}, {2, 7}, {3, NQUERIES}, {3, 7}};
static const cuda_way cuda_ways[] = {{"", "", 0}};
static const uint32_t cuda_batches[] = {NQUERIES};
static const uint32_t dims[] = {1, 3, 17, 100, 784};
#endif

#define NISAS         (sizeof isas / sizeof *isas)
#define NCOMBINATIONS (sizeof combinations / sizeof *combinations)
#define NWAYS         (sizeof cuda_ways / sizeof *cuda_ways)
#define NBATCHES      (sizeof cuda_batches / sizeof *cuda_batches)

typedef struct devices {
    pd_device *reference;
    pd_device *cpu[NISAS][4]; /* by isa and threads; NULL: not on this machine */
    pd_device *cuda[NWAYS];   /* NULL: not what this program tests */
} devices;

static int open_devices(void **state)
{
    static devices d;
    pd_error err;
    pd_device_options options = {.memory = SLAB};
    if (pd_device_open("reference", &options, &d.reference, &err) != PD_OK) return -1;
    for (size_t i = 0; i < NISAS; i++) {
        for (uint32_t threads = 1; threads <= 3; threads++) {
            options.isa = isas[i];
            options.threads = threads;
            pd_status status = pd_device_open("cpu", &options, &d.cpu[i][threads], &err);
            if (status != PD_OK && (i == 0 || status != PD_INVALID_ARGUMENT)) return -1;
        }
    }
#ifdef PD_PARITY_CUDA
    for (size_t i = 0; i < NWAYS; i++) {
        options =
            (pd_device_options){.memory = SLAB, .host_memory = cuda_ways[i].host, .isa = cuda_ways[i].isa};
        if (pd_device_open("cuda", &options, &d.cuda[i], &err) == PD_OK) continue;
        print_error("%s\n", err.message);
        return -1;
    }
#endif
    *state = &d;
    return 0;
}

static int close_devices(void **state)
{
    devices *d = *state;
    pd_device_close(d->reference);
    for (size_t i = 0; i < NISAS; i++)
        for (uint32_t threads = 1; threads <= 3; threads++)
            pd_device_close(d->cpu[i][threads]);
    for (size_t i = 0; i < NWAYS; i++)
        pd_device_close(d->cuda[i]);
    return 0;
}

static void ask(const world *w, pd_device *device, const pd_query *queries, uint32_t batch,
                answer_set *answers)
{
    pd_error err = {0};
    pd_index *index = NULL;
    if (world_load(w, device, 2.0f, &index, &err) != PD_OK) fail_msg("%s", err.message);
    for (uint32_t q = 0; q < NQUERIES; q += batch) {
        uint32_t n = NQUERIES - q < batch ? NQUERIES - q : batch;
        if (pd_index_search(index, queries + q, n, answers->answers + q, NULL, &err) != PD_OK)
            fail_msg("%s", err.message);
    }
    pd_index_close(index);
}

static const char *name_of(const world *w, const char *text)
{
    static char name[160];
    snprintf(name, sizeof name, "%s: metric %d, code %d, refine %d, dim %u, nlist %u", text,
             (int)w->shape.metric, (int)w->shape.code, (int)w->shape.refine, w->shape.dim, w->shape.nlist);
    return name;
}

static void same_bits(const world *w, const query_set *s, const answer_set *a, const answer_set *b,
                      const char *isa, combination c)
{
    for (uint32_t q = 0; q < NQUERIES; q++) {
        const pd_answer *x = &a->answers[q], *y = &b->answers[q];
        int same = x->count == y->count && x->nprobe == y->nprobe && x->scanned == y->scanned;
        for (uint32_t i = 0; same && i < x->count; i++)
            same = x->hits[i].id == y->hits[i].id && x->hits[i].slot == y->hits[i].slot &&
                   memcmp(&x->hits[i].score, &y->hits[i].score, sizeof(float)) == 0;
        for (uint32_t i = 0; same && s->queries[q].vector && i < x->nprobe; i++)
            same = x->probes[i] == y->probes[i];
        if (!same)
            fail_msg("%s, isa %s, %u threads, batch %u: query %u (%s) differs: %u and %u hits, %lu and %lu "
                     "scanned",
                     name_of(w, "bits"), isa, c.threads, c.batch, q, s->cases[q]->what, x->count, y->count,
                     (unsigned long)x->scanned, (unsigned long)y->scanned);
    }
}

/* What rounding may do to a score. */
static float tolerance(const world *w, float score)
{
    return 4e-6f * (float)w->shape.dim + 2e-5f * fabsf(score) + 1e-5f;
}

static int has(const pd_answer *a, uint64_t id)
{
    for (uint32_t i = 0; i < a->count; i++)
        if (a->hits[i].id == id) return 1;
    return 0;
}

/* Two answers whose scores may differ by rounding: rank by rank the same scores, and the same rows but for those at the
 * very end of the list. */
static void alike(const world *w, const query_set *s, uint32_t q, const pd_answer *x, const pd_answer *y)
{
    const char *what = s->cases[q]->what;
    uint32_t common = x->count < y->count ? x->count : y->count;
    const pd_answer *longer = x->count > y->count ? x : y;
    for (uint32_t i = common; i < longer->count; i++)
        if (fabsf(longer->hits[i].score - s->queries[q].min_score) > tolerance(w, longer->hits[i].score))
            fail_msg("%s: query %u (%s): %u and %u hits", name_of(w, "alike"), q, what, x->count, y->count);
    for (uint32_t i = 0; i < common; i++)
        if (!(fabsf(x->hits[i].score - y->hits[i].score) <= tolerance(w, y->hits[i].score)))
            fail_msg("%s: query %u (%s): hit %u scores %.8g and %.8g", name_of(w, "alike"), q, what, i,
                     (double)x->hits[i].score, (double)y->hits[i].score);
    for (uint32_t i = 0; i < common; i++) {
        float end = y->hits[common - 1].score;
        if (y->hits[i].score > end + 2.0f * tolerance(w, end) && !has(x, y->hits[i].id))
            fail_msg("%s: query %u (%s): row %lu is missing", name_of(w, "alike"), q, what,
                     (unsigned long)y->hits[i].id);
    }
    if (x->scanned != y->scanned)
        fail_msg("%s: query %u (%s): %lu and %lu scanned", name_of(w, "alike"), q, what,
                 (unsigned long)x->scanned, (unsigned long)y->scanned);
}

/* Kernels on the CPU are slow: there each metric meets each kind of refine row, and each dimension both, but not all three together. */
static int is_covered(uint32_t sum)
{
#ifdef PD_PARITY_SIMT
    return sum % 3 == 0;
#else
    (void)sum;
    return 1;
#endif
}

/* One world on every isa, number of threads and batch size, and against the reference for the same probes. */
static void check_world(const devices *d, const world *w)
{
    query_set *s = queries_make(w);
    answer_set *first = answers_make(), *other = answers_make(), *truth = answers_make();
    ask(w, d->cpu[0][1], s->queries, NQUERIES, first);
    for (size_t i = 0; i < NISAS; i++) {
        for (size_t c = 0; d->cpu[i][1] && c < NCOMBINATIONS; c++) {
            ask(w, d->cpu[i][combinations[c].threads], s->queries, combinations[c].batch, other);
            same_bits(w, s, first, other, isas[i], combinations[c]);
        }
    }
    int hosts = w->shape.code != PD_CODE_NONE && w->shape.refine != PD_REFINE_NONE;
    for (size_t i = 0; i < NWAYS; i++) {
        if (cuda_ways[i].host && !hosts) continue; /* nothing of it would lie there */
        for (size_t c = 0; d->cuda[i] && c < NBATCHES; c++) {
            /* Small batches change how queries are cut and grouped, not what a kernel does with a row. */
            if (c > 0 && !is_covered(w->shape.dim + (uint32_t)i)) continue;
            ask(w, d->cuda[i], s->queries, cuda_batches[c], other);
            same_bits(w, s, first, other, cuda_ways[i].name, (combination){1, cuda_batches[c]});
        }
    }
    pd_query forced[NQUERIES];
    memcpy(forced, s->queries, sizeof forced);
    for (uint32_t q = 0; w->shape.nlist > 0 && q < NQUERIES; q++) {
        if (!forced[q].vector) continue;
        forced[q].probes = first->probes[q];
        forced[q].nprobe = first->answers[q].nprobe;
    }
    ask(w, d->reference, forced, NQUERIES, truth);
    for (uint32_t q = 0; q < NQUERIES; q++)
        alike(w, s, q, &first->answers[q], &truth->answers[q]);
    answers_free(first);
    answers_free(other);
    answers_free(truth);
    queries_free(s);
}

static void check_code(void **state, pd_code code)
{
    for (int metric = PD_IP; metric <= PD_L2; metric++) {
        for (int refine = PD_REFINE_NONE; refine <= PD_REFINE_F32; refine++) {
            for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
                if (code == PD_CODE_NONE && refine == PD_REFINE_NONE) continue;
                if (!is_covered((uint32_t)metric + (uint32_t)refine + (uint32_t)i)) continue;
                /* f32 refine rows of the widest under one metric only: they cost the most time and differ the least. */
                if (dims[i] == 784 && refine == PD_REFINE_F32 && metric != PD_L2) continue;
                world *w = world_make((pd_metric)metric, code, (pd_refine)refine, dims[i], WORLD_LISTS);
                assert_non_null(w);
                check_world(*state, w);
                world_free(w);
            }
        }
    }
}

static void test_i8_tables_answer_alike_everywhere(void **state)
{
    check_code(state, PD_CODE_I8);
}

static void test_rows_of_whole_numbers_answer_alike_everywhere(void **state)
{
    static const uint32_t widths[] = {3, 17, 64, 101};
    for (int metric = PD_IP; metric <= PD_L2; metric += 2) {
        for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
            world *w = world_make_of(WORLD_WHOLE, (pd_metric)metric, i == 1 ? PD_CODE_NONE : PD_CODE_I8,
                                     i % 2 ? PD_REFINE_U8 : PD_REFINE_I8, widths[i], WORLD_LISTS);
            assert_non_null(w);
            check_world(*state, w);
            world_free(w);
        }
    }
}

static void test_projected_tables_answer_alike_everywhere(void **state)
{
    static const uint32_t projected[][2] = {
        {17, 5},
        {100, 40},
#ifndef PD_PARITY_SIMT
        {784, 128},
#endif
    };
    for (int metric = PD_IP; metric <= PD_L2; metric++) {
        for (size_t i = 0; i < sizeof projected / sizeof *projected; i++) {
            world *w = world_make_projected(WORLD_PLAIN, (pd_metric)metric, PD_CODE_I8,
                                            i % 2 ? PD_REFINE_F32 : PD_REFINE_F16, projected[i][0],
                                            projected[i][1], WORLD_LISTS);
            assert_non_null(w);
            check_world(*state, w);
            world_free(w);
        }
    }
}

static void test_f16_tables_answer_alike_everywhere(void **state)
{
    check_code(state, PD_CODE_F16);
}

static void test_f32_tables_answer_alike_everywhere(void **state)
{
    check_code(state, PD_CODE_F32);
}

static void test_tables_of_refine_rows_alone_answer_alike_everywhere(void **state)
{
    check_code(state, PD_CODE_NONE);
}

static void test_look_up_tables_answer_alike_everywhere(void **state)
{
    for (int metric = PD_IP; metric <= PD_L2; metric++) {
        for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
            if (!is_covered((uint32_t)metric + (uint32_t)i)) continue;
            world *w = world_make((pd_metric)metric, PD_CODE_NONE, PD_REFINE_F16, dims[i], 0);
            check_world(*state, w);
            world_free(w);
            w = world_make((pd_metric)metric, PD_CODE_F32, PD_REFINE_NONE, dims[i], 0);
            check_world(*state, w);
            world_free(w);
        }
    }
}

/* ---------------------------------------------------------------------------------- the truth over raw rows --- */

static double raw_score(const query_set *s, const world *w, uint32_t q, uint32_t r)
{
    const pd_query *query = &s->queries[q];
    const float *row = w->rows + (size_t)r * w->shape.dim;
    double score = 0;
    for (uint32_t d = 0; query->vector && d < w->shape.dim; d++) {
        double gap = (double)query->vector[d] - (double)row[d];
        score += (double)query->similarity *
                 (w->shape.metric == PD_L2 ? -gap * gap : (double)query->vector[d] * (double)row[d]);
    }
    for (uint32_t c = 0; query->weights && c < WORLD_BYTES; c++)
        if (w->shape.sizes[c]) score += (double)query->weights[w->layout.weight_at[c] + w->bytes[r][c]];
    for (uint32_t i = 0; i < query->nkey_weights; i++)
        if (query->key_weights[i].value == w->keys[r]) score += (double)query->key_weights[i].weight;
    return score;
}

static void test_the_reference_gives_what_the_raw_rows_say(void **state)
{
    const devices *d = *state;
    for (int metric = PD_IP; metric <= PD_L2; metric++) {
        world *w = world_make((pd_metric)metric, PD_CODE_F32, PD_REFINE_NONE, 17, WORLD_LISTS);
        query_set *s = queries_make(w);
        answer_set *got = answers_make();
        for (uint32_t q = 0; q < NQUERIES; q++)
            s->queries[q].nprobe = WORLD_LISTS;
        ask(w, d->reference, s->queries, NQUERIES, got);
        for (uint32_t q = 0; q < NQUERIES; q++) {
            pd_hit hits[WORLD_ROWS];
            pd_answer truth = {.hits = hits, .scanned = got->answers[q].scanned};
            for (uint32_t r = 0; r < WORLD_ROWS; r++) {
                float score = (float)raw_score(s, w, q, r);
                if (query_passes(s, w, q, r) && score >= s->queries[q].min_score)
                    hits[truth.count++] = (pd_hit){.id = w->ids[r], .score = score, .slot = w->slot[r]};
            }
            qsort(hits, truth.count, sizeof *hits, by_hit);
            if (truth.count > s->queries[q].k) truth.count = s->queries[q].k;
            alike(w, s, q, &got->answers[q], &truth);
        }
        answers_free(got);
        queries_free(s);
        world_free(w);
    }
}

static void test_equal_rows_come_in_the_order_of_their_ids(void **state)
{
    const devices *d = *state;
    world *w = world_make(PD_L2, PD_CODE_I8, PD_REFINE_F16, 17, WORLD_LISTS);
    query_set *s = queries_make(w);
    answer_set *got = answers_make();
    ask(w, d->cpu[0][1], s->queries, NQUERIES, got);
    uint32_t ties = 0;
    for (uint32_t q = 0; q < NQUERIES; q++) {
        const pd_answer *a = &got->answers[q];
        for (uint32_t i = 1; i < a->count; i++) {
            assert_true(a->hits[i - 1].score >= a->hits[i].score);
            if (a->hits[i - 1].score != a->hits[i].score) continue;
            assert_true(a->hits[i - 1].id < a->hits[i].id);
            ties++;
        }
    }
    assert_true(ties > 100);
    answers_free(got);
    queries_free(s);
    world_free(w);
}

/* ------------------------------------------------------------------------------------------- lists to probe --- */

static void test_the_reference_chooses_the_same_lists(void **state)
{
    const devices *d = *state;
    for (int metric = PD_IP; metric <= PD_L2; metric++) {
        world *w = world_make((pd_metric)metric, PD_CODE_I8, PD_REFINE_NONE, 100, WORLD_LISTS);
        query_set *s = queries_make(w);
        answer_set *cpu = answers_make(), *truth = answers_make();
        ask(w, d->cpu[0][1], s->queries, NQUERIES, cpu);
        ask(w, d->reference, s->queries, NQUERIES, truth);
        for (uint32_t q = 0; q < NQUERIES; q++) {
            assert_int_equal(cpu->answers[q].nprobe, truth->answers[q].nprobe);
            /* Without a similarity several lists may promise the same to within rounding. */
            for (uint32_t i = 0;
                 s->queries[q].vector && s->queries[q].similarity > 0 && i < cpu->answers[q].nprobe; i++)
                assert_int_equal(cpu->probes[q][i], truth->probes[q][i]);
        }
        answers_free(cpu);
        answers_free(truth);
        queries_free(s);
        world_free(w);
    }
}

/* More columns than have their factors multiplied before a logarithm is taken. */
static void check_tied(const devices *d, uint32_t ngroups)
{
    static const uint32_t nlists[] = {WORLD_LISTS, 33, 70};
    uint32_t moved = 0;
    for (int metric = PD_IP; metric <= PD_L2; metric++) {
        world *w =
            world_make_of(WORLD_TIED, (pd_metric)metric, PD_CODE_I8, PD_REFINE_NONE, 19, nlists[metric]);
        world_group(w, ngroups < nlists[metric] ? ngroups : nlists[metric]);
        query_set *s = queries_make(w);
        answer_set *plain = answers_make(), *truth = answers_make(), *got = answers_make();
        for (uint32_t v = 0; v < w->layout.weights; v++)
            s->weights[1][v] = world_below(3) ? 0.4f * world_normal() : 0.0f;
        for (uint32_t q = 0; q < NQUERIES; q++) {
            s->queries[q].vector = s->vectors + 19 * (size_t)q;
            s->queries[q].weights = NULL;
            s->queries[q].similarity = 0.1f;
            s->queries[q].nprobe = 1 + q % 9;
        }
        ask(w, d->cpu[0][1], s->queries, NQUERIES, plain);
        for (uint32_t q = 0; q < NQUERIES; q++)
            s->queries[q].weights = s->weights[q / 5 % 2];
        ask(w, d->reference, s->queries, NQUERIES, truth);
        for (size_t i = 0; i < NISAS; i++) {
            for (uint32_t threads = 1; d->cpu[i][1] && threads <= 3; threads += 2) {
                ask(w, d->cpu[i][threads], s->queries, threads == 1 ? NQUERIES : 7, got);
                for (uint32_t q = 0; q < NQUERIES; q++)
                    if (memcmp(got->probes[q], truth->probes[q], s->queries[q].nprobe * sizeof(uint32_t)) !=
                        0)
                        fail_msg("%s: query %u probes other lists", name_of(w, isas[i]), q);
            }
        }
        for (size_t i = 0; i < NWAYS && d->cuda[i]; i++) {
            ask(w, d->cuda[i], s->queries, NQUERIES, got);
            for (uint32_t q = 0; q < NQUERIES; q++)
                if (memcmp(got->probes[q], truth->probes[q], s->queries[q].nprobe * sizeof(uint32_t)) != 0)
                    fail_msg("%s: query %u probes other lists", name_of(w, cuda_ways[i].name), q);
        }
        for (uint32_t q = 0; q < NQUERIES; q++)
            moved += plain->probes[q][0] != truth->probes[q][0];
        answers_free(plain);
        answers_free(truth);
        answers_free(got);
        queries_free(s);
        world_free(w);
    }
    assert_true(moved > NQUERIES / 2);
}

static void test_lists_are_chosen_alike_where_values_follow_them(void **state)
{
    check_tied(*state, 0);
}

/* Groups of one list, of a few, and one of all. */
static void test_groups_are_chosen_alike_where_values_follow_their_lists(void **state)
{
    static const uint32_t ngroups[] = {70, 25, 11, 7, 1};
    for (size_t i = 0; i < sizeof ngroups / sizeof *ngroups; i++)
        check_tied(*state, ngroups[i]);
}

static void test_lists_that_hold_a_boosted_value_are_probed_first(void **state)
{
    const devices *d = *state;
    world *w = world_make(PD_L2, PD_CODE_I8, PD_REFINE_NONE, 3, WORLD_LISTS);
    memset(w->histograms, 0, sizeof(float) * w->layout.weights * w->nlist);
    for (uint32_t l = 0; l < WORLD_LISTS; l++)
        w->histograms[(size_t)(w->layout.weight_at[0] + (l == 7 ? 4 : 1)) * w->nlist + l] = 1.0f;
    query_set *s = queries_make(w);
    answer_set *got = answers_make();
    memset(s->weights[0], 0, w->layout.weights * sizeof(float));
    s->weights[0][w->layout.weight_at[0] + 4] = 1000.0f;
    for (uint32_t q = 0; q < NQUERIES; q++) {
        s->queries[q].vector = s->vectors + 3 * (size_t)q;
        s->queries[q].weights = s->weights[0];
        s->queries[q].filter = NULL; /* which would have its own say */
        s->queries[q].nprobe = 1;
        s->queries[q].similarity = 0.001f;
    }
    ask(w, d->cpu[0][1], s->queries, NQUERIES, got);
    for (uint32_t q = 0; q < NQUERIES; q++)
        assert_int_equal(got->probes[q][0], 7);
    ask(w, d->reference, s->queries, NQUERIES, got);
    for (uint32_t q = 0; q < NQUERIES; q++)
        assert_int_equal(got->probes[q][0], 7);
    answers_free(got);
    queries_free(s);
    world_free(w);
}

static void test_lists_without_rows_are_probed_last(void **state)
{
    const devices *d = *state;
    world *w = world_make(PD_L2, PD_CODE_I8, PD_REFINE_NONE, 17, WORLD_LISTS);
    query_set *s = queries_make(w);
    answer_set *got = answers_make();
    for (uint32_t q = 0; q < NQUERIES; q++) {
        s->queries[q].vector = w->centroids + 17 * 3; /* the empty list's own centroid */
        s->queries[q].filter = NULL;
        s->queries[q].nprobe = WORLD_LISTS;
    }
    ask(w, d->cpu[0][1], s->queries, NQUERIES, got);
    for (uint32_t q = 0; q < NQUERIES; q++) {
        assert_int_equal(got->probes[q][WORLD_LISTS - 2], 3);
        assert_int_equal(got->probes[q][WORLD_LISTS - 1], 12);
    }
    answers_free(got);
    queries_free(s);
    world_free(w);
}

int main(void)
{
#if defined(PD_PARITY_CUDA) && !defined(PD_PARITY_SIMT)
    const pd_backend *found;
    pd_error err;
    if (pd_backend_find("cuda", &found, &err) != PD_OK) {
        printf("skipped: %s\n", err.message);
        return 77;
    }
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_reference_gives_what_the_raw_rows_say),
        cmocka_unit_test(test_i8_tables_answer_alike_everywhere),
        cmocka_unit_test(test_rows_of_whole_numbers_answer_alike_everywhere),
        cmocka_unit_test(test_projected_tables_answer_alike_everywhere),
        cmocka_unit_test(test_f16_tables_answer_alike_everywhere),
        cmocka_unit_test(test_f32_tables_answer_alike_everywhere),
        cmocka_unit_test(test_tables_of_refine_rows_alone_answer_alike_everywhere),
        cmocka_unit_test(test_look_up_tables_answer_alike_everywhere),
        cmocka_unit_test(test_equal_rows_come_in_the_order_of_their_ids),
        cmocka_unit_test(test_the_reference_chooses_the_same_lists),
        cmocka_unit_test(test_lists_are_chosen_alike_where_values_follow_them),
        cmocka_unit_test(test_groups_are_chosen_alike_where_values_follow_their_lists),
        cmocka_unit_test(test_lists_that_hold_a_boosted_value_are_probed_first),
        cmocka_unit_test(test_lists_without_rows_are_probed_last),
    };
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
