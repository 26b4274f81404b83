/* Plans of a table that changes: rows that a filter leaves, and rows that hold a boosted value, are all among those that are looked at. */
#include "live_check.h"
#include "plan.h"

static const live_case cases[] = {
    {.backend = "cpu", .metric = "l2", .more = "refine = \"f32\";"},
    {.backend = "reference", .metric = "cosine", .more = "refine = \"f32\";"},
};

static pd_plan plan_of(live_world *w, const pd_compiled *compiled, uint32_t k)
{
    pd_plan plan;
    pd_error err;
    pd_want want = {.k = k, .recall = 0.95f, .min_score = -INFINITY};
    ok(pd_plan_make(w->resident, compiled, &want, 1, &plan, &err), &err);
    for (uint32_t i = 1; i < plan.nslots; i++)
        assert_true(plan.slots[i] > plan.slots[i - 1]);
    return plan;
}

/* The answer of a filter's rows is the exact one. */
static void check_filter(live_world *w, const pd_filter *filter, const uint8_t *holds)
{
    static answers got;
    float vector[DIM];
    pd_error err;
    pd_compiled compiled = {.similarity = 1, .filter = *filter, .has_filter = 1};
    pd_plan plan = plan_of(w, &compiled, 100);
    assert_int_equal(plan.path, PD_PATH_ROWS);
    random_vector(w, vector);
    pd_query query = {.vector = vector,
                      .similarity = 1,
                      .filter = filter,
                      .slots = plan.slots,
                      .nslots = plan.nslots,
                      .k = 100,
                      .min_score = -INFINITY};
    got.answer = (pd_answer){.hits = got.hits};
    ok(pd_index_search(pd_resident_index(w->resident), &query, 1, &got.answer, NULL, &err), &err);
    check_hits(w, &query, &got.answer, holds, 2e-3f);
    pd_plan_free(&plan);
}

static void check_filters(live_world *w)
{
    static uint8_t holds[IDS];
    uint32_t kind = below(w, 5);
    pd_byte_test byte = {.column = w->kind->byte_column, .allow = {1ull << kind}};
    for (uint32_t i = 0; i < IDS; i++)
        holds[i] = w->rows[i].there && w->rows[i].kind == kind;
    check_filter(w, &(pd_filter){.nbytes = 1, .bytes = &byte}, holds);

    pd_set_test set = {.column = w->zones->byte_column, .any = 1ull << below(w, 10) | 1ull << below(w, 10)};
    for (uint32_t i = 0; i < IDS; i++)
        holds[i] = w->rows[i].there && (w->rows[i].zones & set.any);
    check_filter(w, &(pd_filter){.nsets = 1, .sets = &set}, holds);

    uint64_t brands[3] = {101, 102, 5000 + below(w, (uint32_t)w->sequence)};
    pd_key_test key = {.column = w->brand->key_column, .count = 3, .values = brands};
    for (uint32_t i = 0; i < IDS; i++)
        holds[i] = w->rows[i].there &&
                   (w->rows[i].brand == 101 || w->rows[i].brand == 102 || w->rows[i].brand == brands[2]);
    check_filter(w, &(pd_filter){.nkeys = 1, .keys = &key}, holds);

    pd_range_test range = {.column = w->price->float_column, .low = (float)below(w, 90)};
    range.high = range.low + 5;
    for (uint32_t i = 0; i < IDS; i++)
        holds[i] = w->rows[i].there && w->rows[i].price >= range.low && w->rows[i].price <= range.high;
    check_filter(w, &(pd_filter){.nranges = 1, .ranges = &range}, holds);
}

/* A heavy key brings every row that holds it, however few lists are probed. */
static void check_boosts(live_world *w)
{
    pd_key_weight key = {.column = w->brand->key_column, .value = 100 + below(w, 60), .weight = 1000};
    pd_compiled compiled = {.similarity = 1, .key_weights = &key, .nkey_weights = 1};
    pd_plan plan;
    pd_want want = {.k = 5, .nprobe = 1, .min_score = -INFINITY};
    pd_error err;
    ok(pd_plan_make(w->resident, &compiled, &want, 1, &plan, &err), &err);
    assert_int_equal(plan.path, PD_PATH_IVF);
    for (uint32_t i = 0; i < IDS; i++) {
        if (!w->rows[i].there || w->rows[i].brand != key.value) continue;
        uint32_t slot = pd_resident_slot(w->resident, id_of(i)), found = 0;
        for (uint32_t s = 0; s < plan.nslots; s++)
            found += plan.slots[s] == slot;
        assert_int_equal(found, 1);
    }
    assert_true(isfinite(plan.spread));
    pd_plan_free(&plan);
}

static void test_plans_know_the_rows_of_today(void **state)
{
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        live_world *w = live_open(cases[c], 31 + c, SPARE);
        for (int step = 0; step < 100; step++) {
            live_step(w);
            if (step % 5) continue;
            check_filters(w);
            check_boosts(w);
        }
        live_close(w);
    }
}

/* A counter has no order of rows: a filter on it is estimated from its buckets and answered by lists. */
static void test_a_filter_on_a_counter_is_never_answered_from_postings(void **state)
{
    (void)state;
    live_world *w = live_open(cases[0], 41, SPARE);
    pd_range_test range = {.column = w->heat->float_column, .low = 2, .high = INFINITY};
    pd_compiled compiled = {.similarity = 1, .filter = {.nranges = 1, .ranges = &range}, .has_filter = 1};
    pd_plan plan = plan_of(w, &compiled, 5);
    assert_int_not_equal(plan.path, PD_PATH_ROWS);
    pd_plan_free(&plan);
    live_close(w);
}

static void test_a_table_that_lost_all_its_rows_is_planned_and_searched(void **state)
{
    (void)state;
    live_world *w = live_open(cases[0], 51, SPARE);
    static uint64_t ids[IDS];
    pd_change change = {.kind = PD_CHANGE_DELETE, .sequence = 1, .n = IDS, .ids = ids};
    pd_staged *staged;
    pd_stage_counts counts;
    pd_error err;
    for (uint32_t i = 0; i < IDS; i++) {
        ids[i] = id_of(i);
        w->gone += (uint64_t)w->rows[i].there;
        w->rows[i] = (model_row){0};
    }
    ok(pd_resident_stage(w->resident, &change, NULL, &staged, &counts, &err), &err);
    assert_int_equal(counts.changed, BUILT);
    assert_int_equal(counts.missing, IDS - BUILT);
    ok(pd_resident_apply(w->resident, staged, &err), &err);
    assert_int_equal(pd_resident_rows(w->resident), 0);
    pd_compiled compiled = {.similarity = 1};
    pd_plan plan = plan_of(w, &compiled, 5);
    assert_int_equal(plan.path, PD_PATH_ALL);
    pd_plan_free(&plan);
    check_rows(w);
    check_searches(w);
    check_postings(w);
    check_histograms(w);
    check_stream(w);
    w->sequence = 1;
    for (int step = 0; step < 20; step++)
        live_step(w);
    check_all(w);
    live_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plans_know_the_rows_of_today),
        cmocka_unit_test(test_a_filter_on_a_counter_is_never_answered_from_postings),
        cmocka_unit_test(test_a_table_that_lost_all_its_rows_is_planned_and_searched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
