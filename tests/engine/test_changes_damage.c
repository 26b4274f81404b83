/* What the log of changes says to a file that is not as it was written. */
#include "changes_fixture.h"

typedef struct told {
    uint64_t good, bad, sequence;
    char why[480];
} told;

static pd_status take(void *context, const pd_record *record, pd_error *err)
{
    (void)err;
    assert_record(record);
    ((told *)context)->good++;
    return PD_OK;
}

static void tell(void *context, uint64_t sequence, const char *why)
{
    told *t = context;
    t->bad++;
    t->sequence = sequence;
    snprintf(t->why, sizeof t->why, "%s", why);
}

static void test_a_flipped_byte_in_a_record_is_named(void **state)
{
    (void)state;
    logbook l;
    pd_error err;
    pd_record record;
    void *hold;
    logbook_make(&l, 64, PD_DURABLE_SYNC);
    append_some(&l, "shoes", 20, 100);
    append_some(&l, "shoes", 20, 30000);
    append_some(&l, "hats", 20, 100);
    must(pd_changes_compact(l.log, &err), err); /* the pages that commits left behind hold copies */
    pd_changes_close(l.log);
    const uint64_t victims[] = {7, 33, 50}; /* in a leaf, in pages of its own, another table's */
    for (int v = 0; v < 3; v++) {
        uint64_t n = victims[v];
        size_t length;
        unsigned char *bytes = file_read(&l, &length), body[64], key[16];
        for (size_t i = 0; i < sizeof body; i++)
            body[i] = byte_of(n, i);
        unsigned char *at = memmem(bytes, length, body, sizeof body);
        assert_non_null(at);
        /* The record's head is before its body: its number 24 bytes in. */
        uint64_t place = (uint64_t)(at - bytes), head = place;
        memcpy(key, &n, 8);
        while (memcmp(bytes + head + 24, key, 8) || memcmp(bytes + head + 8, "PDCH", 4))
            head--;
        unsigned char flipped = (unsigned char)(at[60] ^ 4);
        file_write(&l, place + 60, &flipped, 1);

        logbook_open(&l);
        char want[80];
        snprintf(want, sizeof want, "the record %llu at byte %llu is damaged", (unsigned long long)n,
                 (unsigned long long)head);
        told t = {0};
        must_fail(pd_changes_read(l.log, "", 1, UINT64_MAX, take, NULL, &t, &err), err, PD_DATA_LOSS, want);
        assert_non_null(strstr(err.message, l.file));
        assert_int_equal(t.good, n - 1);
        t = (told){0};
        must(pd_changes_read(l.log, "", 1, UINT64_MAX, take, tell, &t, &err), err);
        assert_int_equal(t.good, 59);
        assert_int_equal(t.bad, 1);
        assert_int_equal(t.sequence, n);
        assert_non_null(strstr(t.why, want));
        must_fail(pd_changes_get(l.log, n, &record, &hold, &err), err, PD_DATA_LOSS, want);
        /* A body of another table is not this table's trouble. */
        t = (told){0};
        must(pd_changes_read(l.log, v == 2 ? "shoes" : "hats", 1, UINT64_MAX, take, NULL, &t, &err), err);
        pd_changes_close(l.log);
        file_write(&l, 0, bytes, length);
        free(bytes);
    }
    logbook_open(&l);
    logbook_remove(&l);
}

static void test_a_record_whose_table_cannot_be_read_is_every_tables_trouble(void **state)
{
    (void)state;
    logbook l;
    pd_error err;
    logbook_make(&l, 64, PD_DURABLE_SYNC);
    append_some(&l, "shoes", 1, 100);
    append_some(&l, "umbrellas", 1, 100);
    pd_changes_close(l.log);
    size_t length;
    unsigned char *bytes = file_read(&l, &length);
    unsigned char *at = memmem(bytes, length, "umbrellas", 9);
    assert_non_null(at);
    file_write(&l, (uint64_t)(at - bytes), "U", 1);
    free(bytes);
    logbook_open(&l);
    told t = {0};
    must(pd_changes_read(l.log, "shoes", 1, UINT64_MAX, take, tell, &t, &err), err);
    assert_int_equal(t.good, 1);
    assert_int_equal(t.bad, 1);
    assert_int_equal(t.sequence, 2);
    /* And is kept, since nobody knows whose it is. */
    must(pd_changes_trim(l.log, "shoes", 2, &err), err);
    t = (told){0};
    must(pd_changes_read(l.log, "umbrellas", 1, UINT64_MAX, take, tell, &t, &err), err);
    assert_int_equal(t.bad, 1);
    logbook_remove(&l);
}

static pd_status any_document(void *context, uint64_t number, const void *bytes, size_t length, pd_error *err)
{
    (void)context, (void)err;
    assert_int_equal(number, 1);
    assert_int_equal(length, 7);
    assert_memory_equal(bytes, "receipt", 7);
    return PD_OK;
}

/* Opens and reads everything: nothing wrong may come out, and the process must live. 1: the log opened. */
static int open_and_read(logbook *l, uint64_t flipped)
{
    pd_error err;
    pd_status status = pd_changes_open(&l->options, &l->log, &err);
    if (status) {
        if (status != PD_DATA_LOSS || !strstr(err.message, l->at))
            fail_msg("byte %llu: %s", (unsigned long long)flipped, err.message);
        return 0;
    }
    told t = {0};
    uint64_t last = pd_changes_last(l->log), number;
    must(pd_changes_read(l->log, "", 1, UINT64_MAX, take, tell, &t, &err), err);
    if (last != 43 || t.good + t.bad != 40)
        fail_msg("byte %llu: something is missing", (unsigned long long)flipped);
    for (uint64_t i = 1; i <= last; i++) {
        char key[30];
        pd_record record;
        void *hold;
        if (!pd_changes_get(l->log, i, &record, &hold, &err)) {
            assert_record(&record);
            pd_changes_end(l->log, hold);
        }
        snprintf(key, sizeof key, "key-%llu", (unsigned long long)i);
        must(pd_changes_find_key(l->log, key, &number, &err), err);
        assert_int_equal(number, i);
    }
    must(pd_changes_floor(l->log, "shoes", &number, &err), err);
    assert_int_equal(number, 3);
    (void)pd_changes_documents(l->log, "erasures", 0, any_document, NULL, &err);
    pd_changes_close(l->log);
    return 1;
}

static void test_no_flipped_byte_of_the_file_stops_the_process(void **state)
{
    (void)state;
    logbook l;
    pd_error err;
    logbook_make(&l, 1, PD_DURABLE_SYNC);
    append_some(&l, "shoes", 40, 200);
    append_some(&l, "hats", 3, 5000);
    must(pd_changes_trim(l.log, "shoes", 3, &err), err);
    must(pd_changes_put(l.log, &(pd_document){"erasures", 1, "receipt", 7}, 1, &err), err);
    pd_changes_close(l.log);
    size_t length;
    unsigned char *bytes = file_read(&l, &length);
    uint32_t opened = 0, refused = 0;
    for (size_t page = 0; page < length; page += 4096) {
        /* Heads and offsets of nodes, then a walk over the nodes, which lie at the end. */
        for (size_t i = 0; i < 4096; i += i < 64 ? 1 : 61) {
            for (int bit = 0; bit < 8; bit += 7) {
                unsigned char flipped = (unsigned char)(bytes[page + i] ^ 1u << bit);
                file_write(&l, page + i, &flipped, 1);
                if (open_and_read(&l, page + i))
                    opened++;
                else
                    refused++;
                file_write(&l, 0, bytes, length); /* opening settles the meta pages, and may add a name */
            }
        }
    }
    assert_true(opened > 100);
    assert_true(refused > 100);
    assert_int_equal(open_and_read(&l, 0), 1);
    free(bytes);
    logbook_open(&l);
    logbook_remove(&l);
}

static void test_a_damaged_meta_page_is_data_loss_at_open(void **state)
{
    (void)state;
    logbook l;
    pd_error err;
    logbook_make(&l, 16, PD_DURABLE_SYNC);
    append_some(&l, "shoes", 40, 200);
    pd_changes_close(l.log);
    size_t length;
    unsigned char *bytes = file_read(&l, &length), junk[4096];
    for (size_t i = 0; i < sizeof junk; i++)
        junk[i] = (unsigned char)(i * 37 + 11);
    for (int page = 0; page < 2; page++) {
        file_write(&l, (uint64_t)page * 4096, junk, sizeof junk);
        must_fail(pd_changes_open(&l.options, &l.log, &err), err, PD_DATA_LOSS, l.file);
        memset(junk, 0, sizeof junk);
        file_write(&l, (uint64_t)page * 4096, junk, sizeof junk);
        must_fail(pd_changes_open(&l.options, &l.log, &err), err, PD_DATA_LOSS, l.file);
        file_write(&l, 0, bytes, length);
    }
    /* Cut off, in the meta pages and behind them. */
    for (off_t size = 100; size < (off_t)length; size = size * 2 + 1) {
        assert_int_equal(truncate(l.file, size), 0);
        must_fail(pd_changes_open(&l.options, &l.log, &err), err, PD_DATA_LOSS, l.file);
        file_write(&l, 0, bytes, length);
    }
    free(bytes);
    logbook_open(&l);
    logbook_remove(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_flipped_byte_in_a_record_is_named),
        cmocka_unit_test(test_a_record_whose_table_cannot_be_read_is_every_tables_trouble),
        cmocka_unit_test(test_a_damaged_meta_page_is_data_loss_at_open),
        cmocka_unit_test(test_no_flipped_byte_of_the_file_stops_the_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
