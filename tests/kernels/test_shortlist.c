/* Shortlists and the loops under them, of every table against plain code: the k-th largest, keeping, appending, and
 * streams of rows with many ties against a sort. Buffers are exactly as long as the contract says, so that a sanitizer
 * sees what reaches further. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tables.h"

typedef enum stream {
    RANDOM,
    FEW_VALUES,
    TWO_VALUES,
    PAIRS,
    ALL_EQUAL,
    RISING,
    FALLING,
    SAW,
    INFINITE,
    TINY,
    LOWEST,
    STREAMS
} stream;

static float value_at(stream kind, uint32_t i, uint32_t n)
{
    static const float extremes[] = {INFINITY, -INFINITY, 0.0f, FLT_MAX, -FLT_MAX};
    switch (kind) {
    case RANDOM:
        return table_float();
    case FEW_VALUES:
        return (float)table_below(5);
    case TWO_VALUES:
        return table_below(40) == 0 ? 1.0f : 0.0f;
    case PAIRS:
        return (float)table_below(n / 2 + 1);
    case ALL_EQUAL:
        return 3.0f;
    case RISING:
        return (float)i;
    case FALLING:
        return -(float)i;
    case SAW:
        return i < n / 2 ? (float)i : (float)(n - i);
    case INFINITE:
        return extremes[table_below(5)];
    case TINY:
        return (float)table_below(9) * 0x1p-149f;
    default:
        return table_below(3) ? -FLT_MAX : table_float();
    }
}

static int falling(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

static const uint32_t sizes[] = {1,  2,  3,  15, 16,  17,  31,  32,  33,  47,   48,
                                 49, 63, 64, 65, 127, 128, 129, 255, 256, 1000, 4097};
#define NSIZES (sizeof sizes / sizeof *sizes)

static void test_the_kth_largest_is_that_of_a_sort(void **state)
{
    (void)state;
    for (size_t s = 0; s < NSIZES; s++) {
        uint32_t n = sizes[s];
        for (int kind = 0; kind < STREAMS; kind++) {
            float *values = malloc(n * sizeof *values);
            for (uint32_t i = 0; i < n; i++)
                values[i] = value_at((stream)kind, i, n);
            float *sorted = table_copy(values, n * sizeof *values);
            qsort(sorted, n, sizeof *sorted, falling);
            float *scratch = malloc(2 * ((size_t)n + 32) * sizeof *scratch);
            for (size_t t = 0; t < NTABLES; t++) {
                const pd_cpu_ops *ops = table_of(t);
                for (uint32_t trial = 0; ops && trial < 12; trial++) {
                    uint32_t k = trial == 0   ? 1
                                 : trial == 1 ? n
                                 : trial == 2 ? n / 2 + 1
                                              : 1 + table_below(n);
                    float got = ops->kth(values, n, k, scratch);
                    if (got != sorted[k - 1])
                        fail_msg("%s, stream %d: number %u of %u is %g, not %g", table_names[t], kind, k, n,
                                 (double)got, (double)sorted[k - 1]);
                }
            }
            free(values);
            free(sorted);
            free(scratch);
        }
    }
}

static void test_what_is_over_the_bar_is_kept_in_order(void **state)
{
    (void)state;
    for (size_t s = 0; s < NSIZES; s++) {
        uint32_t n = sizes[s];
        for (uint32_t trial = 0; trial < 40; trial++) {
            /* A shortlist's buffers have 16 entries more than are in use. */
            float *scores = calloc(n + 16, sizeof *scores);
            uint32_t *slots = calloc(n + 16, sizeof *slots), count = 0;
            float *want_scores = calloc(n, sizeof *want_scores), bar = (float)table_below(6);
            uint32_t *want_slots = calloc(n, sizeof *want_slots);
            int ties = trial % 2 == 0;
            for (uint32_t i = 0; i < n; i++) {
                scores[i] = trial < 4 ? (trial < 2 ? bar : bar + 1) : (float)table_below(6);
                slots[i] = table_below(1u << 31);
                if (scores[i] > bar || (ties && scores[i] == bar)) {
                    want_scores[count] = scores[i];
                    want_slots[count++] = slots[i];
                }
            }
            for (size_t t = 0; t < NTABLES; t++) {
                const pd_cpu_ops *ops = table_of(t);
                if (!ops) continue;
                float *own_scores = table_copy(scores, (n + 16) * sizeof *scores);
                uint32_t *own_slots = table_copy(slots, (n + 16) * sizeof *slots);
                float *others = calloc(n + 16, sizeof *others);
                for (uint32_t i = 0; i < n; i++)
                    others[i] = (float)(slots[i] & 0xffffu);
                assert_int_equal(
                    ops->keep(own_scores, trial % 4 < 2 ? NULL : others, own_slots, n, bar, ties), count);
                assert_memory_equal(own_scores, want_scores, count * sizeof *scores);
                assert_memory_equal(own_slots, want_slots, count * sizeof *slots);
                for (uint32_t i = 0; trial % 4 >= 2 && i < count; i++)
                    assert_true(others[i] == (float)(want_slots[i] & 0xffffu));
                free(own_scores);
                free(own_slots);
                free(others);
            }
            free(scores);
            free(slots);
            free(want_scores);
            free(want_slots);
        }
    }
}

static void test_rows_are_appended_in_order_and_no_further_than_they_may(void **state)
{
    (void)state;
    static const uint32_t masks[] = {0, 1, 0x80000000u, 0xffffu, 0xffff0000u, 0xffffffffu, 0x80008001u};
    float scores[PD_PAGE_ROWS], bounds[PD_PAGE_ROWS];
    for (uint32_t trial = 0; trial < 200; trial++) {
        uint32_t mask = trial < 7 ? masks[trial] : table_below(UINT32_MAX), count = 0;
        uint32_t slot = trial == 1 ? UINT32_MAX - 31u : table_below(1u << 26) * PD_PAGE_ROWS;
        float want_scores[PD_PAGE_ROWS];
        uint32_t want_slots[PD_PAGE_ROWS];
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++) {
            scores[r] = table_float();
            bounds[r] = -scores[r];
            if (!(mask >> r & 1)) continue;
            want_scores[count] = scores[r];
            want_slots[count++] = slot + r;
        }
        for (size_t t = 0; t < NTABLES; t++) {
            const pd_cpu_ops *ops = table_of(t);
            if (!ops) continue;
            float *out_scores = malloc((count + 16) * sizeof *out_scores);
            uint32_t *out_slots = malloc((count + 16) * sizeof *out_slots);
            float *out_bounds = malloc((count + 16) * sizeof *out_bounds);
            int with = trial % 2;
            assert_int_equal(ops->append(scores, with ? bounds : NULL, slot, mask, out_scores,
                                         with ? out_bounds : NULL, out_slots),
                             count);
            assert_memory_equal(out_scores, want_scores, count * sizeof *out_scores);
            assert_memory_equal(out_slots, want_slots, count * sizeof *out_slots);
            for (uint32_t i = 0; with && i < count; i++)
                assert_true(out_bounds[i] == -want_scores[i]);
            free(out_bounds);
            free(out_scores);
            free(out_slots);
        }
    }
}

static void test_what_is_no_number_settles_at_the_bottom(void **state)
{
    (void)state;
    static const float odd[] = {NAN, INFINITY, -INFINITY, 0.0f, -FLT_MAX, FLT_MAX, 1.0f};
    for (uint32_t n = 1; n <= 70; n++) {
        float *values = malloc(n * sizeof *values), *more = malloc(n * sizeof *more);
        for (uint32_t i = 0; i < n; i++) {
            values[i] = odd[table_below(7)];
            more[i] = odd[table_below(7)];
        }
        for (size_t t = 0; t < NTABLES; t++) {
            const pd_cpu_ops *ops = table_of(t);
            for (int with = 0; ops && with < 2; with++) {
                float *own = table_copy(values, n * sizeof *values);
                ops->settle(own, with ? more : NULL, n);
                for (uint32_t i = 0; i < n; i++) {
                    float sum = with ? values[i] + more[i] : values[i];
                    assert_true(own[i] == (sum >= -FLT_MAX ? sum : -FLT_MAX));
                }
                free(own);
            }
        }
        free(values);
        free(more);
    }
}

/* ------------------------------------------------------------------------------------------------ shortlists --- */

#define PAGES 96u
#define ROWS  (PAGES * PD_PAGE_ROWS)

#define COLUMNS 6u

/* An index whose rows have ids and values, and nothing else that matters here. */
typedef struct bed {
    pd_device *device;
    pd_index *index;
    pd_batch batch;
    pd_worker worker;
    uint64_t ids[ROWS];
    float scores[ROWS];
    float weights[COLUMNS * 40];
    pd_prepared prepared;
} bed;

static bed *bed_make(const char *isa, uint32_t room)
{
    bed *b = calloc(1, sizeof *b);
    pd_error err = {0};
    pd_device_options options = {.memory = (uint64_t)8 << 20, .threads = 1, .isa = isa};
    pd_index_spec spec = {.shape = {.code = PD_CODE_F32, .dim = 1, .nbytes = COLUMNS}, .npages = PAGES};
    for (uint32_t c = 0; c < COLUMNS; c++)
        spec.shape.sizes[c] = 40;
    if (pd_device_open("cpu", &options, &b->device, &err) != PD_OK) fail_msg("%s", err.message);
    if (pd_index_open(b->device, &spec, &b->index, &err) != PD_OK) fail_msg("%s", err.message);
    b->batch = (pd_batch){.device = (pd_cpu_device *)b->device, .index = (pd_host_index *)b->index};
    b->worker.hits = malloc(room * sizeof *b->worker.hits);
    b->worker.pick = malloc(2 * ((size_t)room + 32) * sizeof *b->worker.pick);
    for (uint32_t r = 0; r < ROWS; r++) {
        b->ids[r] = (uint64_t)(r * 2654435761u % 65521u) << 20 | r;
        pd_page_ids(&b->index->layout, pd_host_page(b->batch.index, r / PD_PAGE_ROWS))[r % PD_PAGE_ROWS] =
            b->ids[r];
    }
    return b;
}

static void bed_free(bed *b)
{
    pd_prepared_free(&b->prepared);
    pd_index_close(b->index);
    pd_device_close(b->device);
    free(b->worker.hits);
    free(b->worker.pick);
    free(b);
}

static int by_hit(const void *a, const void *b)
{
    const pd_hit *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

/* The best of all rows that may come back, by a sort. */
static uint32_t best_of(const bed *b, const pd_query *query, uint32_t keep, float least, pd_hit *hits)
{
    uint32_t count = 0;
    for (uint32_t r = 0; r < ROWS; r++) {
        if (!(b->scores[r] >= (least > -FLT_MAX ? least : -FLT_MAX))) continue;
        if (pd_excluded(query->exclude, query->nexclude, b->ids[r])) continue;
        hits[count++] = (pd_hit){.id = b->ids[r], .score = b->scores[r], .slot = r};
    }
    qsort(hits, count, sizeof *hits, by_hit);
    return count < keep ? count : keep;
}

/* Pushes as the scan does. scores: of the similarity alone, or whole. */
static int push(bed *b, pd_shortlist *list, const pd_query *query, uint32_t page, const float *scores,
                const float *bounds, uint32_t mask)
{
    const unsigned char *at = pd_host_page(b->batch.index, page);
    if (list->tied || query->nexclude) mask = pd_shortlist_strike(&b->batch, list, query, at, scores, mask);
    return mask && pd_shortlist_push(&b->batch, list, page * PD_PAGE_ROWS, scores, bounds, mask, &b->worker);
}

/* Pages come in an order of their own, rows in two halves. */
static void feed(bed *b, const pd_query *query, pd_shortlist *list)
{
    uint32_t step = 1 + 2 * table_below(PAGES / 2), start = table_below(PAGES);
    /* Odd and no multiple of 3: every page is met. */
    step = step % 3 == 0 ? step + 2 : step;
    for (uint32_t i = 0; i < 2 * PAGES; i++) {
        uint32_t page = (start + i * step) % PAGES, half = i < PAGES ? 0x0ff0f00fu : 0xf00f0ff0u;
        const float *scores = b->scores + page * PD_PAGE_ROWS;
        uint32_t mask = half & b->batch.device->ops->at_least(scores, list->bar);
        float before = list->bar;
        int rose = push(b, list, query, page, scores, NULL, mask);
        assert_true(list->count <= list->room);
        assert_true(list->bar >= before && (rose || list->bar == before));
    }
    pd_shortlist_shrink(&b->batch, list, &b->worker);
}

static void check_stream(bed *b, const pd_query *query, uint32_t keep, float least, const char *what)
{
    static pd_hit want[ROWS], got[ROWS];
    uint32_t count = best_of(b, query, keep, least, want), room = pd_shortlist_room(keep);
    float *memory = malloc(3 * ((size_t)room + 16) * sizeof *memory);
    pd_shortlist list;
    pd_shortlist_init(&list, memory, keep, least);
    feed(b, query, &list);
    assert_int_equal(list.count, count);
    for (uint32_t i = 0; i < list.count; i++)
        got[i] = (pd_hit){.id = b->ids[list.slots[i]], .score = list.scores[i], .slot = list.slots[i]};
    qsort(got, list.count, sizeof *got, by_hit);
    for (uint32_t i = 0; i < count; i++)
        if (got[i].slot != want[i].slot || got[i].score != want[i].score)
            fail_msg("%s: keep %u, place %u holds row %u (%g), not %u (%g)", what, keep, i, got[i].slot,
                     (double)got[i].score, want[i].slot, (double)want[i].score);
    free(memory);
}

static void test_a_shortlist_keeps_what_a_sort_would(void **state)
{
    (void)state;
    static const uint32_t keeps[] = {1, 2, 10, 52, 63, 64, 65, 200, 1000, ROWS - 1, ROWS, PD_MAX_DEPTH};
    for (size_t t = 0; t < NTABLES; t++) {
        if (!table_of(t)) continue;
        bed *b = bed_make(table_names[t], pd_shortlist_room(PD_MAX_DEPTH));
        uint64_t exclude[40];
        for (uint32_t i = 0; i < 40; i++)
            exclude[i] = b->ids[i * 71];
        for (uint32_t i = 1; i < 40; i++)
            for (uint32_t j = i; j > 0 && exclude[j] < exclude[j - 1]; j--) {
                uint64_t kept = exclude[j];
                exclude[j] = exclude[j - 1];
                exclude[j - 1] = kept;
            }
        const pd_query queries[] = {{.similarity = 1}, {.exclude = exclude, .nexclude = 40}};
        for (int kind = 0; kind < STREAMS; kind++) {
            for (uint32_t r = 0; r < ROWS; r++)
                b->scores[r] = value_at((stream)kind, r, ROWS);
            for (size_t k = 0; k < sizeof keeps / sizeof *keeps; k++) {
                check_stream(b, &queries[k % 2], keeps[k], -INFINITY, table_names[t]);
                check_stream(b, &queries[0], keeps[k], kind == RANDOM ? 0.5f : 1.0f, table_names[t]);
            }
        }
        bed_free(b);
    }
}

static void set_id(bed *b, uint32_t row, uint64_t id)
{
    b->ids[row] = id;
    pd_page_ids(&b->index->layout, pd_host_page(b->batch.index, row / PD_PAGE_ROWS))[row % PD_PAGE_ROWS] = id;
}

/* Pushes pages until the list has shrunk. Returns the page behind them. */
static uint32_t push_until_it_shrinks(bed *b, pd_shortlist *list, uint32_t page, float score)
{
    float scores[PD_PAGE_ROWS];
    const pd_query query = {.similarity = 1};
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
        scores[r] = score;
    for (;; page++) {
        assert_true(page < PAGES);
        if (push(b, list, &query, page, scores, NULL, UINT32_MAX)) return page + 1;
    }
}

static void test_a_tie_at_a_new_bar_is_not_held_to_the_ids_of_the_old(void **state)
{
    (void)state;
    for (size_t t = 0; t < NTABLES; t++) {
        if (!table_of(t)) continue;
        bed *b = bed_make(table_names[t], pd_shortlist_room(1));
        float memory[3 * (pd_shortlist_room(1) + 16)], two[PD_PAGE_ROWS];
        uint32_t late = (PAGES - 1) * PD_PAGE_ROWS;
        const pd_query query = {.similarity = 1};
        pd_shortlist list;
        pd_shortlist_init(&list, memory, 1, -INFINITY);
        for (uint32_t r = 0; r < ROWS; r++)
            set_id(b, r, r);
        set_id(b, late, 90000);
        set_id(b, late + 1, 80000);
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            two[r] = 2.0f;
        uint32_t page = push_until_it_shrinks(b, &list, 0, 1.0f);
        assert_true(list.tied && list.bar == 1.0f && list.bar_id == 0);
        assert_int_equal(push(b, &list, &query, PAGES - 1, two, NULL, 1), 0);
        push_until_it_shrinks(b, &list, page, 1.5f);
        assert_true(list.count == 1 && list.bar == 2.0f);
        push(b, &list, &query, PAGES - 1, two, NULL, 2);
        pd_shortlist_shrink(&b->batch, &list, &b->worker);
        assert_int_equal(list.count, 1);
        assert_int_equal(list.slots[0], late + 1);
        bed_free(b);
    }
}

/* -------------------------------------------------------------------------------------------- deferred weights --- */

/* Values of rows and weights of values: few distinct sums, or many. */
static void weigh_rows(bed *b, uint32_t values, float size)
{
    pd_host_index *index = (pd_host_index *)b->index;
    for (uint32_t p = 0; p < PAGES; p++) {
        for (uint32_t i = 0; i < COLUMNS * PD_PAGE_ROWS; i++)
            pd_page_bytes(&b->index->layout, pd_host_page(index, p), 0)[i] =
                (uint8_t)(3 + table_below(values));
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            pd_page_term(&b->index->layout, pd_host_page(index, p))[r] = 0.0f;
        pd_blocks_page(&index->blocks, &b->index->layout, p, pd_host_page(index, p));
    }
    for (uint32_t i = 0; i < COLUMNS * 40; i++)
        b->weights[i] = size * table_float();
    pd_query query = {.similarity = 1, .k = 1, .weights = b->weights};
    pd_error err = {0};
    if (pd_prepare((pd_cpu_device *)b->device, &b->index->shape, &b->index->layout, index, &query, 1,
                   &b->prepared, &err) != PD_OK)
        fail_msg("%s", err.message);
}

/* The score and the steps of a row, from the tables as they are laid out. */
static float bound_of(const bed *b, const pd_cpu_weigh *w, uint32_t row, float score)
{
    uint32_t sum = 0;
    unsigned char *page = pd_host_page(b->batch.index, row / PD_PAGE_ROWS);
    for (uint32_t p = 0; p < w->nparts; p++)
        for (uint32_t j = 0; j < w->parts[p].n; j++) {
            const pd_cpu_part *part = &w->parts[p];
            uint8_t value = pd_page_bytes(&b->index->layout, page, part->column[j])[row % PD_PAGE_ROWS];
            assert_in_range(value, part->first[j], part->first[j] + part->count[j] - 1);
            sum += w->steps[part->at + part->offset[j] + (value - part->first[j])];
        }
    return score + w->step * (float)sum;
}

/* The best by whole scores of rows fed with bounds, whose exact weights wait. Returns whether they still did at the end. */
static int check_deferred(bed *b, const float *sims, const pd_query *query, uint32_t keep, float least,
                          const char *what)
{
    static pd_hit want[ROWS], got[ROWS];
    const pd_cpu_weigh *w = &b->prepared.preps[0].weigh;
    const pd_layout *layout = &b->index->layout;
    uint32_t room = pd_shortlist_room(keep);
    float *memory = malloc(3 * ((size_t)room + 16) * sizeof *memory);
    for (uint32_t r = 0; r < ROWS; r++)
        b->scores[r] = pd_cpu_weigh_row(w, layout, pd_host_page(b->batch.index, r / PD_PAGE_ROWS),
                                        r % PD_PAGE_ROWS, sims[r]);
    uint32_t count = best_of(b, query, keep, least, want);
    pd_shortlist list;
    pd_shortlist_init(&list, memory, keep, least);
    pd_shortlist_defer(&list, w);
    for (uint32_t page = 0; page < PAGES; page++) {
        const float *own = (list.weigh ? sims : b->scores) + page * PD_PAGE_ROWS;
        float bounds[PD_PAGE_ROWS];
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            bounds[r] = list.weigh ? bound_of(b, w, page * PD_PAGE_ROWS + r, own[r]) : own[r];
        uint32_t mask = b->batch.device->ops->at_least(bounds, list.weigh ? list.under : list.bar);
        push(b, &list, query, page, own, bounds, mask);
    }
    int deferred = list.weigh != NULL;
    if (list.count > keep) pd_shortlist_shrink(&b->batch, &list, &b->worker);
    pd_shortlist_settle(&b->batch, &list);
    pd_shortlist_shrink(&b->batch, &list, &b->worker);
    if (list.count != count) fail_msg("%s: keep %u leaves %u rows, not %u", what, keep, list.count, count);
    for (uint32_t i = 0; i < count; i++)
        got[i] = (pd_hit){.id = b->ids[list.slots[i]], .score = list.scores[i], .slot = list.slots[i]};
    qsort(got, count, sizeof *got, by_hit);
    for (uint32_t i = 0; i < count; i++)
        if (got[i].slot != want[i].slot || got[i].score != want[i].score)
            fail_msg("%s: keep %u, place %u holds row %u (%a), not %u (%a)", what, keep, i, got[i].slot,
                     (double)got[i].score, want[i].slot, (double)want[i].score);
    free(memory);
    return deferred;
}

static void test_weights_that_wait_change_nothing(void **state)
{
    (void)state;
    static const uint32_t keeps[] = {1, 12, 52, 200, 1000, ROWS};
    static const float sizes_of_weights[] = {1e-30f, 1e-7f, 0.1f, 3.0f, 1e6f, 1e29f};
    static float sims[ROWS];
    for (size_t t = 0; t < NTABLES; t++) {
        if (!table_of(t)) continue;
        bed *b = bed_make(table_names[t], pd_shortlist_room(ROWS));
        uint64_t exclude[] = {b->ids[7]};
        const pd_query queries[] = {{.similarity = 1}, {.exclude = exclude, .nexclude = 1}};
        uint32_t waited = 0, gave_up = 0;
        for (uint32_t trial = 0; trial < 4 * sizeof sizes_of_weights / sizeof(float); trial++) {
            weigh_rows(b, trial % 4 == 3 ? 2 : 30, sizes_of_weights[trial / 4]);
            for (int kind = 0; kind < STREAMS; kind++) {
                for (uint32_t r = 0; r < ROWS; r++)
                    sims[r] = value_at((stream)kind, r, ROWS);
                uint32_t keep = keeps[((uint32_t)kind + trial) % 6];
                int deferred = check_deferred(b, sims, &queries[trial % 2], keep,
                                              trial % 3 ? -INFINITY : 0.5f, table_names[t]);
                waited += (uint32_t)deferred;
                gave_up += (uint32_t)!deferred;
            }
        }
        assert_true(waited > 20 && gave_up > 20);
        bed_free(b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_kth_largest_is_that_of_a_sort),
        cmocka_unit_test(test_what_is_over_the_bar_is_kept_in_order),
        cmocka_unit_test(test_rows_are_appended_in_order_and_no_further_than_they_may),
        cmocka_unit_test(test_what_is_no_number_settles_at_the_bottom),
        cmocka_unit_test(test_a_shortlist_keeps_what_a_sort_would),
        cmocka_unit_test(test_a_tie_at_a_new_bar_is_not_held_to_the_ids_of_the_old),
        cmocka_unit_test(test_weights_that_wait_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
