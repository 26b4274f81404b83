/* What single changes do at the edges: refused rows, full tables, values that go to and fro, counters, rows that move while an exact
 * search passes. */
#include "live_check.h"

static const live_case plain = {.backend = "cpu", .metric = "l2", .more = "refine = \"f32\";"};

static void apply_made(live_world *w, made *m)
{
    pd_staged *staged;
    pd_stage_counts counts;
    pd_error err;
    if (m->change.kind == PD_CHANGE_UPSERT && !m->encoded)
        ok(pd_change_encode(w->version, w->other, &m->change, &m->encoded, &err), &err);
    ok(pd_resident_stage(w->resident, &m->change, m->encoded, &staged, &counts, &err), &err);
    ok(pd_resident_apply(w->resident, staged, &err), &err);
    log_change(w, m);
    follow(w, m, w->rows);
    pd_encoded_free(m->encoded);
    m->encoded = NULL;
}

/* A change of rows first .. first + n - 1, without columns. */
static void plain_change(live_world *w, made *m, pd_change_kind kind, uint32_t first, uint32_t n)
{
    memset(m, 0, sizeof *m);
    m->change = (pd_change){.kind = kind,
                            .sequence = ++w->sequence,
                            .time = w->time,
                            .n = n,
                            .ids = m->ids,
                            .columns = m->columns,
                            .vectors = kind == PD_CHANGE_UPSERT ? m->vectors : NULL};
    for (uint32_t k = 0; k < n; k++) {
        m->which[k] = first + k;
        m->ids[k] = id_of(first + k);
        random_vector(w, m->vectors + (size_t)k * DIM);
    }
}

/* ------------------------------------------------------------------------------------------------ refusals --- */

static pd_status encode_one(live_world *w, float value, pd_error *err)
{
    made m;
    plain_change(w, &m, PD_CHANGE_UPSERT, 1, 2);
    m.vectors[DIM + 3] = value;
    pd_status status = pd_change_encode(w->version, w->other, &m.change, &m.encoded, err);
    pd_encoded_free(m.encoded);
    return status;
}

static void test_rows_that_cannot_be_kept_are_refused_by_name(void **state)
{
    (void)state;
    live_case small = plain;
    small.more = "refine = \"u8\";";
    for (int u8 = 0; u8 < 2; u8++) {
        live_world *w = live_open(u8 ? small : plain, 1, 1);
        const float bad[] = {NAN, INFINITY, 3e20f, -1, 256, 0.5f};
        char id[32];
        snprintf(id, sizeof id, "%llu", (unsigned long long)id_of(2));
        pd_error err;
        for (int i = 0; i < (u8 ? 6 : 3); i++) {
            assert_int_equal(encode_one(w, bad[i], &err), PD_INVALID_ARGUMENT);
            assert_non_null(strstr(err.message, id));
            assert_non_null(strstr(err.message, "row 1"));
        }
        ok(encode_one(w, 255, &err), &err);
        live_close(w);
    }
}

static void test_values_that_the_schema_lacks_are_refused(void **state)
{
    (void)state;
    live_world *w = live_open(plain, 1, 1);
    made m;
    pd_staged *staged;
    pd_stage_counts counts;
    pd_error err;
    for (int i = 0; i < 4; i++) {
        plain_change(w, &m, i == 3 ? PD_CHANGE_COUNT : PD_CHANGE_UPDATE, 1, 1);
        m.zones[0] = 1ull << 20;
        if (i == 0) add_column(&m, (pd_change_column){.attribute = NUMBER_OF(w, zones), .words = m.zones});
        if (i == 1) add_column(&m, (pd_change_column){.attribute = NUMBER_OF(w, kind), .words = m.zones});
        if (i == 2) add_column(&m, (pd_change_column){.attribute = 31, .words = m.zones});
        if (i == 3)
            add_column(&m, (pd_change_column){.attribute = NUMBER_OF(w, price), .counters = m.counters});
        assert_int_equal(pd_resident_stage(w->resident, &m.change, NULL, &staged, &counts, &err),
                         PD_INVALID_ARGUMENT);
        assert_null(staged);
    }
    check_all(w);
    live_close(w);
}

/* ------------------------------------------------------------------------------------------------ room --- */

/* A table of one list, or a look-up table, takes as many rows as its pages have places, whatever was dropped before. */
static void test_a_table_is_full_when_every_place_is_taken(void **state)
{
    (void)state;
    for (int lookup = 0; lookup < 2; lookup++) {
        live_case one = plain;
        one.lookup = lookup;
        one.more = lookup ? "index = \"none\"; refine = \"f32\";" : "refine = \"f32\"; nlist = 1;";
        live_world *w = live_open(one, 3, 3);
        uint32_t places = (w->info->npages + 3) * PD_PAGE_ROWS, lists = w->info->shape.nlist;
        made m;
        pd_error err;
        pd_live_stats before, stats;
        pd_resident_live(w->resident, &before);
        assert_int_equal(before.pages, 3);
        assert_int_equal(before.pages_free, 3);
        pd_status status = PD_OK;
        for (uint32_t i = BUILT; i < IDS && !status; i++) {
            pd_stage_counts counts;
            pd_staged *staged[2];
            for (uint32_t k = 0; k < 2 && !status; k++) {
                plain_change(w, &m, PD_CHANGE_UPSERT, i, 1);
                ok(pd_change_encode(w->version, w->other, &m.change, &m.encoded, &err), &err);
                status = pd_resident_stage(w->resident, &m.change, m.encoded, &staged[0], &counts, &err);
                if (!status && k == 0) pd_staged_drop(w->resident, staged, 1);
                if (!status && k == 1) {
                    ok(pd_resident_apply(w->resident, staged[0], &err), &err);
                    log_change(w, &m);
                    follow(w, &m, w->rows);
                }
                pd_encoded_free(m.encoded);
            }
        }
        assert_int_equal(status, PD_RESOURCE_EXHAUSTED);
        assert_non_null(strstr(err.message, "3 pages"));
        assert_true(lists <= 1);
        if (lists <= 1) assert_int_equal(pd_resident_rows(w->resident), places);
        pd_resident_live(w->resident, &stats);
        assert_int_equal(stats.pages_free, 0);
        /* What goes makes room. */
        plain_change(w, &m, PD_CHANGE_DELETE, 0, 40);
        apply_made(w, &m);
        plain_change(w, &m, PD_CHANGE_UPSERT, 10, 40);
        apply_made(w, &m);
        if (!lookup) w->of.lookup = 1; /* one list is as even as none */
        check_all(w);
        live_close(w);
    }
}

static void test_what_is_dropped_takes_nothing(void **state)
{
    (void)state;
    live_world *w = live_open(plain, 4, SPARE);
    static made changes[2];
    pd_live_stats before, stats;
    uint64_t bytes = 0;
    pd_error err;
    pd_resident_live(w->resident, &before);
    for (int i = 0; i < 400; i++) {
        pd_staged *staged[2];
        pd_stage_counts counts;
        for (int k = 0; k < 2; k++) {
            plain_change(w, &changes[k], PD_CHANGE_UPSERT, BUILT, MOST);
            for (uint32_t j = 0; j < MOST; j++)
                changes[k].brands[j] = 7000 + j;
            add_column(&changes[k],
                       (pd_change_column){.attribute = NUMBER_OF(w, brand), .words = changes[k].brands});
            ok(pd_change_encode(w->version, w->other, &changes[k].change, &changes[k].encoded, &err), &err);
            ok(pd_resident_stage(w->resident, &changes[k].change, changes[k].encoded, &staged[k], &counts,
                                 &err),
               &err);
            assert_int_equal(counts.fresh, k ? 0 : MOST);
        }
        pd_staged_drop(w->resident, staged, 2);
        for (int k = 0; k < 2; k++)
            pd_encoded_free(changes[k].encoded);
        if (i == 50) bytes = pd_resident_host_bytes(w->resident);
    }
    pd_resident_live(w->resident, &stats);
    assert_int_equal(stats.pages_free, before.pages_free);
    assert_int_equal(stats.changed, 0);
    assert_int_equal(stats.applied, 0);
    assert_true(pd_resident_host_bytes(w->resident) <= bytes + 20 * PD_PAGE_ROWS * 8);
    check_all(w);
    live_close(w);
}

/* A table of rows and nothing else. */
static void test_rows_without_attributes_come_and_go(void **state)
{
    (void)state;
    char folder[64];
    folder_make(folder);
    pd_device *device = device_make("cpu", 32u << 20);
    pd_schema *schema = schema_make("table = { metric = \"l2\"; refine = \"f32\"; };");
    float *rows = rows_make(BUILT, DIM, 10, 3);
    pd_build_input in = input_make(schema, rows, BUILT, DIM);
    pd_version *version;
    pd_resident *resident;
    pd_error err;
    ok(pd_build(&in, path_in(folder, "v"), device, NULL, NULL, &err), &err);
    ok(pd_version_open(path_in(folder, "v"), &version, &err), &err);
    ok(pd_resident_open(version, device, 10, &resident, &err), &err);
    uint64_t ids[3] = {5, 6, BUILT};
    for (uint64_t sequence = 1; sequence <= 6; sequence++) {
        pd_change change = {.kind = sequence % 3 ? PD_CHANGE_UPSERT : PD_CHANGE_DELETE,
                            .sequence = sequence,
                            .n = 3,
                            .ids = ids,
                            .vectors = rows + sequence * DIM};
        pd_encoded *encoded = NULL;
        pd_staged *staged;
        pd_stage_counts counts;
        if (sequence % 3) ok(pd_change_encode(version, device, &change, &encoded, &err), &err);
        ok(pd_resident_stage(resident, &change, encoded, &staged, &counts, &err), &err);
        assert_int_equal(counts.changed, 3);
        ok(pd_resident_apply(resident, staged, &err), &err);
        assert_int_equal(pd_resident_rows(resident), sequence % 3 ? BUILT + 1 : BUILT - 2);
        for (int i = 0; i < 3; i++) {
            uint32_t slot = pd_resident_slot(resident, ids[i]);
            float vector[DIM];
            assert_int_equal(slot == PD_NO_SLOT, !encoded);
            if (!encoded) continue;
            ok(pd_index_gather(pd_resident_index(resident), &slot, 1, &(pd_rows){.vectors = vector}, &err),
               &err);
            assert_memory_equal(vector, change.vectors + i * DIM, sizeof vector);
        }
        pd_encoded_free(encoded);
    }
    pd_resident_close(resident);
    pd_version_close(version);
    pd_device_close(device);
    pd_schema_free(schema);
    free(rows);
    folder_drop(folder);
}

/* ------------------------------------------------------------------------------------------------ to and fro --- */

static void test_values_that_go_to_and_fro_take_no_more_room(void **state)
{
    (void)state;
    live_world *w = live_open(plain, 5, SPARE);
    static made m;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < 3000; i++) {
        plain_change(w, &m, PD_CHANGE_UPDATE, i * 7 % (BUILT - MOST), MOST);
        for (uint32_t k = 0; k < MOST; k++) {
            m.kinds[k] = (uint8_t)(1 + (i + k) % 4);
            m.zones[k] = 1ull << ((i + k) % 10);
            m.brands[k] = 1000000 + (uint64_t)i * MOST + k; /* never again */
            m.prices[k] = (float)((i + k) % 90);
        }
        add_column(&m, (pd_change_column){.attribute = NUMBER_OF(w, kind), .values = m.kinds});
        add_column(&m, (pd_change_column){.attribute = NUMBER_OF(w, zones), .words = m.zones});
        add_column(&m, (pd_change_column){.attribute = NUMBER_OF(w, brand), .words = m.brands});
        add_column(&m, (pd_change_column){.attribute = NUMBER_OF(w, price), .numbers = m.prices});
        apply_made(w, &m);
        if (i == 500) bytes = pd_resident_host_bytes(w->resident);
    }
    assert_true(pd_resident_host_bytes(w->resident) <= 2 * bytes);
    pd_matches matches;
    pd_resident_range(w->resident, w->price, 0, 100, &matches);
    assert_true(matches.nmore <= BUILT);
    w->sequence = 0; /* the brands that check_postings() asks for are others */
    check_postings(w);
    for (uint32_t i = 0; i < BUILT; i += 9) {
        uint8_t holds[IDS] = {0};
        holds[i] = 1;
        pd_resident_posting(w->resident, w->brand, w->rows[i].brand, &matches);
        if (w->rows[i].brand >= 1000000) check_matches(w, &matches, holds, 1);
    }
    live_close(w);
}

/* Keys that nobody held before, in changes that are staged together: room made for one takes nothing from the other. */
static void test_keys_that_are_promised_stay(void **state)
{
    (void)state;
    live_world *w = live_open(plain, 6, SPARE);
    static made changes[3];
    pd_error err;
    for (uint32_t i = 0; i < 60; i++) {
        pd_staged *staged[3];
        pd_stage_counts counts;
        for (uint32_t c = 0; c < 3; c++) {
            plain_change(w, &changes[c], PD_CHANGE_UPDATE, c * MOST, MOST);
            for (uint32_t k = 0; k < MOST; k++)
                changes[c].brands[k] = 1000000 + ((uint64_t)i * 3 + c) * MOST + k;
            add_column(&changes[c],
                       (pd_change_column){.attribute = NUMBER_OF(w, brand), .words = changes[c].brands});
            ok(pd_resident_stage(w->resident, &changes[c].change, NULL, &staged[c], &counts, &err), &err);
        }
        for (uint32_t c = 0; c < 3; c++) {
            ok(pd_resident_apply(w->resident, staged[c], &err), &err);
            follow(w, &changes[c], w->rows);
        }
        for (uint32_t k = 0; k < 3 * MOST; k++) {
            pd_matches matches;
            uint8_t holds[IDS] = {0};
            holds[k] = 1;
            pd_resident_posting(w->resident, w->brand, w->rows[k].brand, &matches);
            check_matches(w, &matches, holds, 1);
        }
    }
    live_close(w);
}

/* ------------------------------------------------------------------------------------------------ counters --- */

static void test_counters_halve_and_add(void **state)
{
    (void)state;
    double counter = pd_counter_add(-INFINITY, 3, 20000, 2);
    check_near(pd_counter_value(counter, 20000, 2), 3, 1e-6f);
    check_near(pd_counter_value(counter, 20002, 2), 1.5f, 1e-6f);
    counter = pd_counter_add(counter, 5, 20002, 2);
    check_near(pd_counter_value(counter, 20002, 2), 6.5f, 1e-6f);
    counter = pd_counter_add(counter, -6.5, 20002, 2);
    assert_true(pd_counter_value(counter, 20002, 2) < 1e-6f);
    assert_true(isinf(pd_counter_add(-INFINITY, -1, 20002, 2)));
    assert_true(pd_counter_value(-INFINITY, 20002, 2) == 0);
    assert_true(pd_counter_add(4, 0, 20000, 2) == 4);
    /* A million small ones, and one long after: nothing is lost that a float would hold. */
    counter = -INFINITY;
    for (int i = 0; i < 1000000; i++)
        counter = pd_counter_add(counter, 0.1, 20000, 0.01);
    check_near(pd_counter_value(counter, 20000, 0.01), 100000, 1e-6f);
    counter = pd_counter_add(counter, 1, 21000, 0.01);
    check_near(pd_counter_value(counter, 21000, 0.01), 1, 1e-6f);
    assert_true(isfinite((double)pd_counter_value(1e9, 0, 1)));
}

static void test_a_recount_says_what_counters_are_worth_now(void **state)
{
    (void)state;
    live_world *w = live_open(plain, 7, SPARE);
    pd_error err;
    for (int i = 0; i < 30; i++)
        live_step(w);
    double later = w->time + 3;
    uint32_t npages = w->info->npages + SPARE;
    for (uint32_t page = 0; page < npages; page += 7)
        ok(pd_resident_recount(w->resident, page, page + 7 > npages ? npages - page : 7, later, &err), &err);
    assert_int_equal(pd_resident_recount(w->resident, npages, 1, later, &err), PD_OUT_OF_RANGE);
    for (uint32_t i = 0; i < IDS; i++)
        w->rows[i].heat = pd_counter_value(w->rows[i].counter, later, w->heat->half_life);
    check_all(w);
    live_close(w);
}

/* ------------------------------------------------------------------------------------------------ meanwhile --- */

/* An executor that moves a row before every piece. */
typedef struct mover {
    live_world *w;
    uint32_t calls;
} mover;

static pd_status move_then_run(void *context, pd_status (*fn)(void *argument, pd_error *err), void *argument,
                               pd_error *err)
{
    mover *mv = context;
    if (mv->calls++ > 0) {
        static made m;
        plain_change(mv->w, &m, PD_CHANGE_UPSERT, 0, MOST);
        apply_made(mv->w, &m);
    }
    return fn(argument, err);
}

static pd_status row_of_mover(void *context, uint64_t sequence, uint32_t row, float *vector, pd_error *err)
{
    return row_of_log(((mover *)context)->w, sequence, row, vector, err);
}

enum { MANY = 30000 };

/* So many rows more that the pages are no longer one piece; the model does not know them. */
static void add_many(live_world *w)
{
    static uint64_t ids[MANY];
    float *vectors = malloc((size_t)MANY * DIM * sizeof *vectors);
    assert_non_null(vectors);
    for (uint32_t i = 0; i < MANY; i++) {
        ids[i] = id_of(IDS + i);
        random_vector(w, vectors + (size_t)i * DIM);
    }
    pd_change change = {
        .kind = PD_CHANGE_UPSERT, .sequence = ++w->sequence, .n = MANY, .ids = ids, .vectors = vectors};
    pd_encoded *encoded;
    pd_staged *staged;
    pd_stage_counts counts;
    pd_error err;
    ok(pd_change_encode(w->version, w->other, &change, &encoded, &err), &err);
    ok(pd_resident_stage(w->resident, &change, encoded, &staged, &counts, &err), &err);
    ok(pd_resident_apply(w->resident, staged, &err), &err);
    pd_encoded_free(encoded);
    w->log[w->sequence] = vectors;
    w->logged[w->sequence] = MANY;
}

static void test_a_row_that_moves_is_answered_once(void **state)
{
    (void)state;
    live_world *w = live_open(plain, 8, 2500);
    mover mv = {.w = w};
    pd_live_source source = {.context = &mv, .on_executor = move_then_run, .source_row = row_of_mover};
    pd_hit *hits = malloc(PD_MAX_DEPTH * sizeof *hits);
    assert_non_null(hits);
    add_many(w);
    /* Places in the first pages, for rows to move to once these have gone by. */
    made gone;
    plain_change(w, &gone, PD_CHANGE_DELETE, 2 * MOST, MOST);
    apply_made(w, &gone);
    for (int i = 0; i < 5; i++) {
        static uint8_t met[IDS + MANY];
        float vector[DIM];
        pd_error err;
        pd_answer answer = {.hits = hits};
        memset(met, 0, sizeof met);
        random_vector(w, vector);
        pd_query query = {.vector = vector, .similarity = 1, .k = PD_MAX_DEPTH, .min_score = -INFINITY};
        mv.calls = 0;
        ok(pd_resident_exact(w->resident, &source, w->other, &query, 1, &answer, NULL, NULL, &err), &err);
        assert_true(mv.calls > 2);
        assert_true(answer.count >= PD_MAX_DEPTH - MOST); /* no more can be asked for */
        for (uint32_t h = 0; h < answer.count; h++) {
            assert_int_equal(met[model_of(hits[h].id)]++, 0);
            assert_true(h == 0 || hits[h].score <= hits[h - 1].score);
        }
        /* And none is missed, wherever it was when. */
        for (uint32_t m = 0; m < MOST; m++) {
            double far = 0;
            for (uint32_t d = 0; d < DIM; d++)
                far += pow((double)w->rows[m].vector[d] - (double)vector[d], 2);
            if (-far > (double)hits[answer.count - 1].score + 1e-3) assert_int_equal(met[m], 1);
        }
    }
    free(hits);
    live_close(w);
}

static int stop_at_once(void *context, const char *stage, uint64_t done, uint64_t total)
{
    (void)context, (void)stage, (void)done, (void)total;
    return 1;
}

static void test_long_looks_can_be_stopped_and_fail_by_what_they_lack(void **state)
{
    (void)state;
    live_world *w = live_open(plain, 9, SPARE);
    pd_live_source source = source_of(w);
    static answers got;
    float vector[DIM];
    streamed s = {.w = w};
    pd_error err;
    random_vector(w, vector);
    pd_query query = {.vector = vector, .similarity = 1, .k = 10, .min_score = -INFINITY};
    got.answer = (pd_answer){.hits = got.hits};
    assert_int_equal(
        pd_resident_exact(w->resident, &source, w->other, &query, 1, &got.answer, stop_at_once, NULL, &err),
        PD_CANCELLED);
    assert_int_equal(pd_resident_stream(w->resident, &source, stream_rows, &s, stop_at_once, NULL, &err),
                     PD_CANCELLED);
    made m;
    plain_change(w, &m, PD_CHANGE_UPSERT, 5, 4);
    apply_made(w, &m);
    free(w->log[w->sequence]);
    w->log[w->sequence] = NULL;
    assert_int_equal(
        pd_resident_exact(w->resident, &source, w->other, &query, 1, &got.answer, NULL, NULL, &err),
        PD_NOT_FOUND);
    pd_live_stats stats;
    pd_resident_live(w->resident, &stats);
    assert_true(stats.applied == w->sequence);
    pd_resident_reached(w->resident, w->sequence + 10);
    pd_resident_reached(w->resident, 1);
    pd_resident_live(w->resident, &stats);
    assert_true(stats.applied == w->sequence + 10);
    live_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_that_cannot_be_kept_are_refused_by_name),
        cmocka_unit_test(test_values_that_the_schema_lacks_are_refused),
        cmocka_unit_test(test_a_table_is_full_when_every_place_is_taken),
        cmocka_unit_test(test_what_is_dropped_takes_nothing),
        cmocka_unit_test(test_rows_without_attributes_come_and_go),
        cmocka_unit_test(test_values_that_go_to_and_fro_take_no_more_room),
        cmocka_unit_test(test_keys_that_are_promised_stay),
        cmocka_unit_test(test_counters_halve_and_add),
        cmocka_unit_test(test_a_recount_says_what_counters_are_worth_now),
        cmocka_unit_test(test_a_row_that_moves_is_answered_once),
        cmocka_unit_test(test_long_looks_can_be_stopped_and_fail_by_what_they_lack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
