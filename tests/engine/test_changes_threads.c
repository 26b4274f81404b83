/* Many threads read the log while one writes, trims, rewrites and compacts it. */
#include "changes_fixture.h"

#include <pthread.h>
#include <stdatomic.h>

#define READERS 4
#define BATCHES 150u

typedef struct stage {
    logbook book;
    atomic_int over;
    atomic_uint rounds;
    _Atomic uint64_t trimmed; /* shoes up to here may be gone */
    pthread_t threads[READERS + 1];
} stage;

static pd_status look(void *context, const pd_record *record, pd_error *err)
{
    (void)err;
    uint64_t *last = context;
    assert_true(record->sequence > *last);
    *last = record->sequence;
    assert_record(record);
    return PD_OK;
}

/* What was there before a look began is seen by it, but for what is trimmed. */
static void *reader(void *context)
{
    stage *s = context;
    pd_changes *log = s->book.log;
    while (!atomic_load(&s->over)) {
        pd_error err;
        uint64_t last = pd_changes_last(log), newest = 0, found, floor;
        must(pd_changes_read(log, "", last > 60 ? last - 60 : 1, UINT64_MAX, look, NULL, &newest, &err), err);
        assert_true(newest >= last);
        if (last) {
            pd_record record, other;
            void *hold, *second;
            must(pd_changes_get(log, last, &record, &hold, &err), err);
            pd_status status = pd_changes_get(log, last / 2 + 1, &other, &second, &err);
            assert_record(&record);
            if (!status) assert_record(&other);
            if (status) assert_true(status == PD_NOT_FOUND && last / 2 + 1 <= atomic_load(&s->trimmed));
            pd_changes_end(log, second);
            pd_changes_end(log, hold);
            char key[40];
            snprintf(key, sizeof key, "key-%llu", (unsigned long long)last);
            must(pd_changes_find_key(log, key, &found, &err), err);
            assert_int_equal(found, last);
        }
        must(pd_changes_floor(log, "shoes", &floor, &err), err);
        assert_true(floor <= atomic_load(&s->trimmed));
        pd_changes_stats stats;
        pd_changes_stats_of(log, &stats);
        atomic_fetch_add(&s->rounds, 1);
    }
    return NULL;
}

static void *copier(void *context)
{
    stage *s = context;
    for (int i = 0; i < 3; i++) {
        pd_error err;
        char folder[100];
        uint64_t before = pd_changes_last(s->book.log), last;
        snprintf(folder, sizeof folder, "%s/copy%d", s->book.folder, i);
        assert_int_equal(mkdir(folder, 0755), 0);
        must(pd_changes_copy(s->book.log, folder, &last, &err), err);
        assert_true(last >= before);
    }
    return NULL;
}

static pd_status leave(void *context, const pd_record *record, void **bytes, size_t *length, pd_error *err)
{
    (void)context, (void)err;
    *length = record->length;
    *bytes = malloc(record->length + 1); /* the same again, in pages of its own */
    memcpy(*bytes, record->bytes, record->length);
    return PD_OK;
}

static void play(pd_durability durability)
{
    stage s;
    pd_error err;
    memset(&s, 0, sizeof s);
    logbook_make(&s.book, 64, durability);
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&s.threads[i], NULL, reader, &s), 0);
    assert_int_equal(pthread_create(&s.threads[READERS], NULL, copier, &s), 0);
    for (uint32_t i = 1; i <= BATCHES || atomic_load(&s.rounds) < 4 * READERS; i++) {
        append_some(&s.book, i % 3 ? "shoes" : "hats", 4, i % 5 ? 300 : 9000);
        uint64_t upto = i * 2 > 40 ? i * 2 - 40 : 0;
        if (i % 20 == 0) {
            atomic_store(&s.trimmed, upto);
            must(pd_changes_trim(s.book.log, "shoes", upto, &err), err);
        }
        if (i % 25 == 0) must(pd_changes_rewrite(s.book.log, "hats", leave, NULL, &err), err);
        if (i % 30 == 0) must(pd_changes_compact(s.book.log, &err), err);
        if (i % 7 == 0) must(pd_changes_sync(s.book.log, &err), err);
    }
    pthread_join(s.threads[READERS], NULL);
    atomic_store(&s.over, 1);
    for (int i = 0; i < READERS; i++)
        pthread_join(s.threads[i], NULL);
    logbook_reopen(&s.book); /* checks the file */
    logbook_remove(&s.book);
}

static void test_many_read_while_one_writes(void **state)
{
    (void)state;
    play(PD_DURABLE_SYNC);
}

static void test_many_read_while_what_is_pending_is_stored(void **state)
{
    (void)state;
    play(PD_DURABLE_INTERVAL);
}

static void test_a_log_without_syncs_is_read_like_any_other(void **state)
{
    (void)state;
    play(PD_DURABLE_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_read_while_one_writes),
        cmocka_unit_test(test_many_read_while_what_is_pending_is_stored),
        cmocka_unit_test(test_a_log_without_syncs_is_read_like_any_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
