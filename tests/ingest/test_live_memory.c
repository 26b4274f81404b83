/* Every allocation of a change fails once, in turn: the change is refused and the table is as it was. */
#include "live_check.h"

/* The allocation that fails, counted from now; negative: none. The linker sends all of them here. */
static int64_t fails_in = -1;

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);

static int fails(void)
{
    return __atomic_load_n(&fails_in, __ATOMIC_RELAXED) >= 0 &&
           __atomic_fetch_sub(&fails_in, 1, __ATOMIC_RELAXED) == 0;
}

void *__wrap_malloc(size_t bytes)
{
    return fails() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t n, size_t bytes)
{
    return fails() ? NULL : __real_calloc(n, bytes);
}

void *__wrap_realloc(void *old, size_t bytes)
{
    return fails() ? NULL : __real_realloc(old, bytes);
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
    return fails() ? NULL : __real_aligned_alloc(alignment, bytes);
}

/* Lets the n-th allocation of a call fail. Returns whether it came so far: 0 ends the round. */
static int failed(pd_status status, const pd_error *err)
{
    int64_t left = fails_in;
    fails_in = -1;
    if (left >= 0) {
        ok(status, err);
        return 0;
    }
    assert_int_equal(status, PD_RESOURCE_EXHAUSTED);
    assert_true(err->message[0] != 0);
    return 1;
}

static void check_same(live_world *w, const pd_live_stats *before)
{
    pd_live_stats stats;
    pd_resident_live(w->resident, &stats);
    assert_memory_equal(&stats, before, sizeof stats);
}

static void encode_failing(live_world *w, made *m)
{
    for (int64_t n = 0;; n++) {
        pd_encoded *encoded = NULL;
        pd_error err = {0};
        fails_in = n;
        pd_status status = pd_change_encode(w->version, w->other, &m->change, &encoded, &err);
        if (!failed(status, &err)) {
            pd_encoded_free(encoded);
            return;
        }
        assert_null(encoded);
    }
}

/* Returns what is staged once nothing fails any more. */
static pd_staged *stage_failing(live_world *w, const made *m)
{
    pd_live_stats before;
    pd_resident_live(w->resident, &before);
    for (int64_t n = 0;; n++) {
        pd_staged *staged = NULL;
        pd_stage_counts counts;
        pd_error err = {0};
        fails_in = n;
        pd_status status = pd_resident_stage(w->resident, &m->change, m->encoded, &staged, &counts, &err);
        if (!failed(status, &err)) return staged;
        assert_null(staged);
        check_same(w, &before);
        for (uint32_t k = 0; k < m->change.n; k++)
            assert_int_equal(pd_resident_staged_slot(w->resident, m->ids[k]) != PD_NO_SLOT,
                             w->rows[m->which[k]].there);
    }
}

/* 0: exact search, 1: the stream, 2: a recount of all. */
static pd_status look(live_world *w, int what, pd_error *err)
{
    static answers got;
    pd_live_source source = source_of(w);
    streamed s = {.w = w};
    float vector[DIM];
    random_vector(w, vector);
    pd_query query = {.vector = vector, .similarity = 1, .k = 5, .min_score = -INFINITY};
    got.answer = (pd_answer){.hits = got.hits};
    if (what == 0)
        return pd_resident_exact(w->resident, &source, w->other, &query, 1, &got.answer, NULL, NULL, err);
    if (what == 1) return pd_resident_stream(w->resident, &source, stream_rows, &s, NULL, NULL, err);
    return pd_resident_recount(w->resident, 0, w->info->npages + SPARE, w->time, err);
}

static void look_failing(live_world *w)
{
    for (int what = 0; what < 3; what++) {
        pd_status status;
        pd_error err;
        int64_t n = 0;
        do {
            err = (pd_error){0};
            fails_in = n++;
            status = look(w, what, &err);
        } while (failed(status, &err));
        assert_true(n > 3);
    }
    for (uint32_t i = 0; i < IDS; i++)
        w->rows[i].heat = pd_counter_value(w->rows[i].counter, w->time, w->heat->half_life);
}

static void walk(live_world *w)
{
    static made m;
    for (int step = 0; step < 25; step++) {
        make_change(w, &m, random_kind(w));
        if (m.encoded) encode_failing(w, &m);
        pd_error err;
        pd_staged *staged = stage_failing(w, &m);
        if (step % 3 == 2) {
            pd_staged_drop(w->resident, &staged, 1);
        } else {
            /* Applying takes no memory at all. */
            fails_in = 0;
            ok(pd_resident_apply(w->resident, staged, &err), &err);
            assert_int_equal(fails_in, 0);
            fails_in = -1;
            log_change(w, &m);
            follow(w, &m, w->rows);
        }
        pd_encoded_free(m.encoded);
        if (step % 5 == 0) check_all(w);
    }
}

static void test_what_cannot_be_staged_changes_nothing(void **state)
{
    (void)state;
    static const live_case cases[] = {
        {.backend = "cpu", .metric = "l2", .more = "refine = \"f32\";"},
        {.backend = "reference", .metric = "cosine", .more = "index = \"none\";", .lookup = 1},
        {.backend = "cpu", .metric = "ip", .more = "code_dim = 8; refine = \"f32\";"}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        live_world *w = live_open(cases[c], 11 + c, SPARE);
        walk(w);
        if (c == 0) look_failing(w);
        check_all(w);
        live_close(w);
    }
}

static void test_a_table_that_cannot_be_opened_leaves_nothing(void **state)
{
    (void)state;
    live_world *w = live_open((live_case){.backend = "cpu", .metric = "l2", .more = ""}, 2, 4);
    uint64_t used = 0;
    for (int64_t n = 0, left = -1; left < 0; n++) {
        pd_resident *resident = NULL;
        pd_error err = {0};
        fails_in = n;
        pd_status status = pd_resident_open(w->version, w->device, 4, &resident, &err);
        left = fails_in;
        fails_in = -1;
        assert_int_equal(resident != NULL, status == PD_OK);
        /* Giving memory back may fail without harm. */
        if (status) assert_int_equal(status, PD_RESOURCE_EXHAUSTED);
        pd_resident_close(resident);
        pd_device_info info;
        pd_device_info_of(w->device, &info);
        if (n == 0) used = info.used;
        assert_true(info.used == used);
    }
    live_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_cannot_be_staged_changes_nothing),
        cmocka_unit_test(test_a_table_that_cannot_be_opened_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
