/* The log of changes. */
#include "changes_fixture.h"

static void test_what_was_appended_is_read_in_order(void **state)
{
    (void)state;
    logbook l;
    pd_error err;
    logbook_make(&l, 64, PD_DURABLE_SYNC);
    append_some(&l, "shoes", 10, 100);
    append_some(&l, "hats", 5, 40000);
    append_some(&l, "shoes", 3, 7);
    assert_int_equal(pd_changes_last(l.log), 18);
    seen s = {0};
    must(pd_changes_read(l.log, "", 1, UINT64_MAX, see, NULL, &s, &err), err);
    assert_int_equal(s.count, 18);
    s = (seen){.table = "hats"};
    must(pd_changes_read(l.log, "hats", 1, UINT64_MAX, see, NULL, &s, &err), err);
    assert_int_equal(s.count, 5);
    assert_int_equal(s.first, 11);
    s = (seen){0};
    must(pd_changes_read(l.log, "shoes", 9, 17, see, NULL, &s, &err), err);
    assert_int_equal(s.count, 4); /* 9, 10, 16, 17 */
    logbook_remove(&l);
}

static void test_what_was_appended_outlives_a_restart(void **state)
{
    (void)state;
    logbook l;
    pd_error err;
    logbook_make(&l, 64, PD_DURABLE_SYNC);
    append_some(&l, "shoes", 10, 5000);
    logbook_reopen(&l);
    assert_int_equal(pd_changes_last(l.log), 10);
    seen s = {0};
    must(pd_changes_read(l.log, "", 1, UINT64_MAX, see, NULL, &s, &err), err);
    assert_int_equal(s.count, 10);
    append_some(&l, "shoes", 1, 1);
    assert_int_equal(pd_changes_last(l.log), 11);
    logbook_remove(&l);
}

static void test_one_record_is_got_by_its_number(void **state)
{
    (void)state;
    logbook l;
    pd_error err;
    pd_record record, other;
    void *hold, *second;
    logbook_make(&l, 64, PD_DURABLE_SYNC);
    append_some(&l, "shoes", 3, 9000);
    must(pd_changes_get(l.log, 2, &record, &hold, &err), err);
    must(pd_changes_get(l.log, 3, &other, &second, &err), err); /* another while one is held */
    assert_record(&record);
    assert_record(&other);
    pd_changes_end(l.log, second);
    pd_changes_end(l.log, hold);
    must_fail(pd_changes_get(l.log, 4, &record, &hold, &err), err, PD_NOT_FOUND, "4");
    logbook_remove(&l);
}

static void test_numbers_must_follow_one_another(void **state)
{
    (void)state;
    logbook l;
    pd_error err;
    logbook_make(&l, 64, PD_DURABLE_SYNC);
    append_some(&l, "shoes", 3, 10);
    pd_record r[2];
    record_make(&r[0], 4, "shoes", 10);
    record_make(&r[1], 6, "shoes", 10);
    must_fail(pd_changes_append(l.log, r, 2, &err), err, PD_INVALID_ARGUMENT, "6");
    assert_int_equal(pd_changes_last(l.log), 3);
    must_fail(pd_changes_get(l.log, 4, &r[0], &(void *){NULL}, &err), err, PD_NOT_FOUND, "4");
    must(pd_changes_append(l.log, r, 0, &err), err);
    logbook_remove(&l);
}

static void test_a_trim_takes_one_table_and_says_so(void **state)
{
    (void)state;
    logbook l;
    pd_error err;
    uint64_t floor;
    logbook_make(&l, 64, PD_DURABLE_SYNC);
    for (int i = 0; i < 1500; i++) {
        append_some(&l, "shoes", 2, 50);
        append_some(&l, "hats", 1, 50);
    }
    must(pd_changes_floor(l.log, "shoes", &floor, &err), err);
    assert_int_equal(floor, 0);
    must(pd_changes_trim(l.log, "shoes", 4000, &err), err);
    must(pd_changes_floor(l.log, "shoes", &floor, &err), err);
    assert_int_equal(floor, 4000);
    must(pd_changes_floor(l.log, "hats", &floor, &err), err);
    assert_int_equal(floor, 0);
    seen s = {.table = "shoes"};
    must(pd_changes_read(l.log, "shoes", 1, UINT64_MAX, see, NULL, &s, &err), err);
    assert_int_equal(s.first, 4001);
    assert_int_equal(s.count, 333);
    s = (seen){.table = "hats"};
    must(pd_changes_read(l.log, "hats", 1, UINT64_MAX, see, NULL, &s, &err), err);
    assert_int_equal(s.count, 1500);
    /* A floor does not sink. */
    must(pd_changes_trim(l.log, "shoes", 10, &err), err);
    must(pd_changes_floor(l.log, "shoes", &floor, &err), err);
    assert_int_equal(floor, 4000);
    logbook_remove(&l);
}

static void test_numbers_go_on_after_everything_was_trimmed(void **state)
{
    (void)state;
    logbook l;
    pd_error err;
    uint64_t floor;
    logbook_make(&l, 64, PD_DURABLE_SYNC);
    append_some(&l, "shoes", 7, 50);
    must(pd_changes_trim(l.log, "shoes", UINT64_MAX, &err), err);
    logbook_reopen(&l);
    assert_int_equal(pd_changes_last(l.log), 7);
    must(pd_changes_floor(l.log, "shoes", &floor, &err), err);
    assert_int_equal(floor, 7);
    append_some(&l, "shoes", 1, 50);
    seen s = {0};
    must(pd_changes_read(l.log, "", 1, UINT64_MAX, see, NULL, &s, &err), err);
    assert_int_equal(s.count, 1);
    assert_int_equal(s.first, 8);
    logbook_remove(&l);
}

static void test_the_keys_of_the_latest_batches_are_known(void **state)
{
    (void)state;
    logbook l;
    pd_error err;
    uint64_t sequence;
    logbook_make(&l, 64, PD_DURABLE_SYNC);
    l.options.keys = 10;
    logbook_reopen(&l);
    append_some(&l, "shoes", 25, 10);
    must(pd_changes_find_key(l.log, "key-25", &sequence, &err), err);
    assert_int_equal(sequence, 25);
    must(pd_changes_find_key(l.log, "key-16", &sequence, &err), err);
    must_fail(pd_changes_find_key(l.log, "key-15", &sequence, &err), err, PD_NOT_FOUND, "key-15");
    /* A key that comes again is the newer batch's, and is not forgotten with the older one. */
    pd_record r;
    record_make(&r, 26, "shoes", 10);
    strcpy(r.key, "key-16");
    must(pd_changes_append(l.log, &r, 1, &err), err);
    append_some(&l, "shoes", 5, 10);
    must(pd_changes_find_key(l.log, "key-16", &sequence, &err), err);
    assert_int_equal(sequence, 26);
    /* Keys outlive their records, and a restart. */
    must(pd_changes_trim(l.log, "shoes", UINT64_MAX, &err), err);
    logbook_reopen(&l);
    must(pd_changes_find_key(l.log, "key-31", &sequence, &err), err);
    assert_int_equal(sequence, 31);
    logbook_remove(&l);
}

/* Blanks the body of even records; longer ones for multiples of 4. */
static pd_status blank(void *context, const pd_record *record, void **bytes, size_t *length, pd_error *err)
{
    (void)err;
    assert_record(record);
    ++*(uint32_t *)context;
    if (record->sequence % 2) return PD_OK;
    *length = record->sequence % 4 ? 5 : 20000;
    *bytes = calloc(1, *length);
    return PD_OK;
}

static pd_status see_blank(void *context, const pd_record *record, pd_error *err)
{
    (void)err;
    ++*(uint32_t *)context;
    if (record->sequence % 2 || strcmp(record->table, "shoes")) {
        assert_record(record);
        return PD_OK;
    }
    assert_int_equal(record->length, record->sequence % 4 ? 5 : 20000);
    for (size_t i = 0; i < record->length; i++)
        assert_int_equal(((const char *)record->bytes)[i], 0);
    return PD_OK;
}

static void test_records_are_rewritten_in_place(void **state)
{
    (void)state;
    logbook l;
    pd_error err;
    uint32_t count = 0;
    logbook_make(&l, 256, PD_DURABLE_SYNC);
    for (int i = 0; i < 20; i++) {
        append_some(&l, "shoes", 20, 300);
        append_some(&l, "hats", 10, 300);
    }
    must(pd_changes_rewrite(l.log, "shoes", blank, &count, &err), err);
    assert_int_equal(count, 400);
    count = 0;
    must(pd_changes_read(l.log, "", 1, UINT64_MAX, see_blank, NULL, &count, &err), err);
    assert_int_equal(count, 600);
    logbook_reopen(&l); /* which checks the file */
    count = 0;
    must(pd_changes_read(l.log, "", 1, UINT64_MAX, see_blank, NULL, &count, &err), err);
    assert_int_equal(count, 600);
    logbook_remove(&l);
}

static pd_status refuse(void *context, const pd_record *record, void **bytes, size_t *length, pd_error *err)
{
    (void)context, (void)bytes, (void)length;
    return pd_fail(err, PD_CANCELLED, "not record %llu", (unsigned long long)record->sequence);
}

static void test_a_rewrite_that_is_refused_says_why(void **state)
{
    (void)state;
    logbook l;
    pd_error err;
    logbook_make(&l, 64, PD_DURABLE_SYNC);
    append_some(&l, "shoes", 2, 300);
    must_fail(pd_changes_rewrite(l.log, "shoes", refuse, NULL, &err), err, PD_CANCELLED, "not record 1");
    append_some(&l, "shoes", 1, 300);
    logbook_remove(&l);
}

static void test_compaction_leaves_nothing_of_what_was_deleted(void **state)
{
    (void)state;
    logbook l;
    pd_error err;
    logbook_make(&l, 64, PD_DURABLE_SYNC);
    append_text(&l, "hats", "the shopper's secret");
    append_some(&l, "shoes", 300, 9000);
    must(pd_changes_trim(l.log, "hats", UINT64_MAX, &err), err);
    must(pd_changes_trim(l.log, "shoes", 290, &err), err);
    assert_true(file_holds(&l, "the shopper's secret"));
    uint64_t before = file_bytes(&l);
    must(pd_changes_compact(l.log, &err), err);
    assert_false(file_holds(&l, "the shopper's secret"));
    assert_true(file_bytes(&l) < before / 4);
    assert_false(below_exists(&l, "log/compact.tmp"));
    seen s = {0};
    must(pd_changes_read(l.log, "", 1, UINT64_MAX, see, NULL, &s, &err), err);
    assert_int_equal(s.count, 11);
    append_some(&l, "shoes", 5, 9000);
    logbook_reopen(&l);
    assert_int_equal(pd_changes_last(l.log), 306);
    logbook_remove(&l);
}

static void test_a_compaction_that_was_cut_off_is_cleared_away(void **state)
{
    (void)state;
    logbook l;
    char path[300];
    logbook_make(&l, 64, PD_DURABLE_SYNC);
    append_some(&l, "shoes", 3, 9000);
    pd_changes_close(l.log);
    snprintf(path, sizeof path, "%s/log/compact.tmp", l.folder);
    assert_int_equal(mkdir(path, 0755), 0);
    snprintf(path, sizeof path, "%s/log/compact.tmp/data.mdb", l.folder);
    close(open(path, O_CREAT | O_WRONLY, 0644));
    logbook_open(&l);
    assert_false(below_exists(&l, "log/compact.tmp"));
    assert_int_equal(pd_changes_last(l.log), 3);
    logbook_remove(&l);
}

static void test_a_copy_opens_as_the_log_did(void **state)
{
    (void)state;
    logbook l;
    pd_error err;
    uint64_t last;
    char folder[300];
    logbook_make(&l, 64, PD_DURABLE_SYNC);
    append_some(&l, "shoes", 30, 900);
    snprintf(folder, sizeof folder, "%s/copy", l.folder);
    assert_int_equal(mkdir(folder, 0755), 0);
    must(pd_changes_copy(l.log, folder, &last, &err), err);
    assert_int_equal(last, 30);
    append_some(&l, "shoes", 1, 900);
    pd_changes *copy;
    pd_changes_options o = l.options;
    o.folder = folder;
    must(pd_changes_open(&o, &copy, &err), err);
    assert_int_equal(pd_changes_last(copy), 30);
    seen s = {0};
    must(pd_changes_read(copy, "", 1, UINT64_MAX, see, NULL, &s, &err), err);
    assert_int_equal(s.count, 30);
    pd_changes_close(copy);
    logbook_remove(&l);
}

static pd_status count_document(void *context, uint64_t number, const void *bytes, size_t length,
                                pd_error *err)
{
    (void)err;
    char want[40];
    snprintf(want, sizeof want, "receipt %llu", (unsigned long long)number);
    assert_int_equal(length, strlen(want));
    assert_memory_equal(bytes, want, length);
    uint64_t *latest = context;
    assert_true(number > *latest || !*latest);
    *latest = number;
    return PD_OK;
}

static pd_status count_three(void *context, uint64_t number, const void *bytes, size_t length, pd_error *err)
{
    (void)bytes, (void)length, (void)err;
    uint64_t *three = context;
    three[0]++;
    three[1] = number;
    return three[0] == 3 ? PD_CANCELLED : PD_OK;
}

static void test_documents_are_kept_by_collection_and_number(void **state)
{
    (void)state;
    logbook l;
    pd_error err;
    uint64_t latest = 0, last;
    logbook_make(&l, 64, PD_DURABLE_INTERVAL);
    must(pd_changes_last_document(l.log, "erasures", &last, &err), err);
    assert_int_equal(last, 0);
    for (uint64_t i = 300; i >= 1; i--) {
        char text[40];
        int n = snprintf(text, sizeof text, "receipt %llu", (unsigned long long)i);
        must(pd_changes_put(l.log, &(pd_document){"erasures", i, text, (size_t)n}, 1, &err), err);
    }
    const pd_document more[] = {{"erasuresx", 1000, "receipt 1000", 12},
                                {.collection = "erasures", .number = 300},
                                {.collection = "erasures", .number = 900}};
    must(pd_changes_put(l.log, more, 3, &err), err);
    logbook_reopen(&l);
    must(pd_changes_documents(l.log, "erasures", 0, count_document, &latest, &err), err);
    assert_int_equal(latest, 299);
    latest = 0;
    must(pd_changes_documents(l.log, "none", 0, count_document, &latest, &err), err);
    assert_int_equal(latest, 0);
    uint64_t three[2] = {0};
    must(pd_changes_documents(l.log, "erasures", 250, count_three, three, &err), err);
    assert_int_equal(three[1], 252);
    static const struct {
        const char *collection;
        uint64_t last;
    } lasts[] = {{"erasures", 299}, {"erasuresx", 1000}, {"a", 0}, {"z", 0}};
    for (size_t i = 0; i < sizeof lasts / sizeof *lasts; i++) {
        must(pd_changes_last_document(l.log, lasts[i].collection, &last, &err), err);
        assert_int_equal(last, lasts[i].last);
    }
    logbook_remove(&l);
}

static void test_documents_are_put_all_or_none(void **state)
{
    (void)state;
    logbook l;
    pd_error err;
    uint64_t last;
    char name[300];
    logbook_make(&l, 64, PD_DURABLE_SYNC);
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = 0;
    const pd_document two[] = {{"erasures", 1, "receipt 1", 9}, {name, 2, "receipt 2", 9}};
    assert_int_equal(pd_changes_put(l.log, two, 2, &err), PD_INVALID_ARGUMENT);
    must(pd_changes_last_document(l.log, "erasures", &last, &err), err);
    assert_int_equal(last, 0);
    logbook_remove(&l);
}

static void test_what_waits_for_its_sync_is_read_like_the_rest(void **state)
{
    (void)state;
    logbook l;
    pd_error err;
    uint64_t sequence;
    pd_record record;
    void *hold;
    logbook_make(&l, 64, PD_DURABLE_INTERVAL);
    append_some(&l, "shoes", 5, 100);
    must(pd_changes_sync(l.log, &err), err);
    append_some(&l, "shoes", 5, 100);
    assert_int_equal(pd_changes_last(l.log), 10);
    seen s = {0};
    must(pd_changes_read(l.log, "", 1, 9, see, NULL, &s, &err), err);
    assert_int_equal(s.count, 9);
    must(pd_changes_find_key(l.log, "key-8", &sequence, &err), err);
    assert_int_equal(sequence, 8);
    must(pd_changes_get(l.log, 8, &record, &hold, &err), err);
    pd_changes_stats stats;
    pd_changes_stats_of(l.log, &stats);
    assert_int_equal(stats.records, 10);
    assert_int_equal(stats.commits, 1);
    /* Held beyond its storing. */
    must(pd_changes_sync(l.log, &err), err);
    assert_record(&record);
    pd_changes_end(l.log, hold);
    pd_changes_stats_of(l.log, &stats);
    assert_int_equal(stats.records, 10);
    assert_int_equal(stats.commits, 2);
    append_some(&l, "shoes", 1, 100);
    must(pd_changes_trim(l.log, "shoes", 3, &err), err);
    append_some(&l, "shoes", 1, 100);
    logbook_reopen(&l); /* closing syncs */
    s = (seen){0};
    must(pd_changes_read(l.log, "", 1, UINT64_MAX, see, NULL, &s, &err), err);
    assert_int_equal(s.count, 9);
    logbook_remove(&l);
}

static void test_a_full_map_refuses_the_batch_and_a_trim_makes_room(void **state)
{
    (void)state;
    logbook l;
    pd_error err;
    logbook_make(&l, 4, PD_DURABLE_SYNC);
    pd_record r[3];
    uint64_t last;
    for (int round = 0; round < 3; round++) {
        pd_status status;
        do {
            last = pd_changes_last(l.log);
            for (uint64_t i = 0; i < 3; i++)
                record_make(&r[i], last + 1 + i, "shoes", 30000);
            status = pd_changes_append(l.log, r, 3, &err);
        } while (!status);
        assert_int_equal(status, PD_RESOURCE_EXHAUSTED);
        assert_non_null(strstr(err.message, "4 MiB are full"));
        assert_int_equal(pd_changes_last(l.log), last);
        seen s = {0};
        must(pd_changes_read(l.log, "", last > 6 ? last - 5 : 1, UINT64_MAX, see, NULL, &s, &err), err);
        assert_int_equal(s.count, 6);
        pd_changes_stats stats;
        pd_changes_stats_of(l.log, &stats);
        assert_true(stats.failing);
        assert_true(stats.used_bytes > stats.map_bytes / 2);
        must(pd_changes_trim(l.log, "shoes", last, &err), err);
        pd_changes_stats_of(l.log, &stats);
        assert_false(stats.failing);
        assert_int_equal(stats.records, 0);
    }
    assert_true(last > 200);
    must(pd_changes_append(l.log, r, 3, &err), err);
    logbook_remove(&l);
}

static void test_a_map_full_of_small_records_can_be_trimmed(void **state)
{
    (void)state;
    logbook l;
    pd_error err;
    logbook_make(&l, 2, PD_DURABLE_SYNC);
    pd_status status = PD_OK;
    while (!status)
        status = try_append(l.log, pd_changes_last(l.log) % 3 ? "shoes" : "hats", 1, 200, &err);
    assert_int_equal(status, PD_RESOURCE_EXHAUSTED);
    uint64_t last = pd_changes_last(l.log);
    assert_true(last > 2000);
    must(pd_changes_trim(l.log, "shoes", last, &err), err); /* changes more pages than are free */
    seen s = {.table = "hats"};
    must(pd_changes_read(l.log, "", 1, UINT64_MAX, see, NULL, &s, &err), err);
    assert_int_equal(s.count, last / 3 + (last % 3 != 0));
    append_some(&l, "shoes", 50, 200);
    logbook_reopen(&l);
    assert_int_equal(pd_changes_last(l.log), last + 50);
    logbook_remove(&l);
}

static void test_rewriting_in_a_full_map_finds_room(void **state)
{
    (void)state;
    logbook l;
    pd_error err;
    uint32_t count = 0;
    logbook_make(&l, 2, PD_DURABLE_SYNC);
    pd_status status = PD_OK;
    while (!status)
        status = try_append(l.log, "shoes", 1, 5000, &err);
    must(pd_changes_rewrite(l.log, "shoes", blank, &count, &err), err);
    assert_true(count > pd_changes_last(l.log)); /* asked again for what did not fit at first */
    count = 0;
    must(pd_changes_read(l.log, "", 1, UINT64_MAX, see_blank, NULL, &count, &err), err);
    assert_int_equal(count, pd_changes_last(l.log));
    logbook_remove(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_appended_is_read_in_order),
        cmocka_unit_test(test_what_was_appended_outlives_a_restart),
        cmocka_unit_test(test_one_record_is_got_by_its_number),
        cmocka_unit_test(test_numbers_must_follow_one_another),
        cmocka_unit_test(test_a_trim_takes_one_table_and_says_so),
        cmocka_unit_test(test_numbers_go_on_after_everything_was_trimmed),
        cmocka_unit_test(test_the_keys_of_the_latest_batches_are_known),
        cmocka_unit_test(test_records_are_rewritten_in_place),
        cmocka_unit_test(test_a_rewrite_that_is_refused_says_why),
        cmocka_unit_test(test_compaction_leaves_nothing_of_what_was_deleted),
        cmocka_unit_test(test_a_compaction_that_was_cut_off_is_cleared_away),
        cmocka_unit_test(test_a_copy_opens_as_the_log_did),
        cmocka_unit_test(test_documents_are_kept_by_collection_and_number),
        cmocka_unit_test(test_documents_are_put_all_or_none),
        cmocka_unit_test(test_what_waits_for_its_sync_is_read_like_the_rest),
        cmocka_unit_test(test_a_full_map_refuses_the_batch_and_a_trim_makes_room),
        cmocka_unit_test(test_a_map_full_of_small_records_can_be_trimmed),
        cmocka_unit_test(test_rewriting_in_a_full_map_finds_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
