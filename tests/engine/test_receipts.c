/* Receipts of erasures: which of them are read, for how long they are kept, and how many come at a time. */
#include "catalog_fixture.h"

#include <unistd.h>

#include "clock.h"
#include "erase.h"
#include "erase_impl.h"
#include "writer.h"

enum { ROWS = 200, DIM = 8, MOST = 1024 };

/* Ids from first on; rows that are not there are erased like others. */
static void erase(fixture *f, uint64_t first, uint32_t n)
{
    uint64_t ids[MOST];
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__Erase body = PADOS__V1__ERASE__INIT;
    Pados__V1__Reply *reply;
    pd_error err;
    for (uint32_t i = 0; i < n; i++)
        ids[i] = first + i;
    body.table = "t";
    body.ids = ids;
    body.n_ids = n;
    request.body_case = PADOS__V1__REQUEST__BODY_ERASE;
    request.erase = &body;
    must(ask(f, &request, &reply, &err), err);
    assert_int_equal(reply->erasures->n_erasures, n);
    reply_free(reply);
    pd_erase_stats stats;
    for (int tries = 0; tries < 3000; tries++) {
        pd_erase_stats_of(f->catalog, &stats);
        if (!stats.pending) return;
        usleep(20000);
    }
    fail_msg("%u erasures are not finished", (unsigned)stats.pending);
}

static pd_status count(void *context, uint64_t number, const void *bytes, size_t length, pd_error *err)
{
    (void)number, (void)bytes, (void)length, (void)err;
    ++*(uint32_t *)context;
    return PD_OK;
}

static uint32_t documents(fixture *f, const char *collection)
{
    uint32_t n = 0;
    pd_error err;
    must(pd_changes_documents(f->catalog->changes, collection, 0, count, &n, &err), err);
    return n;
}

/* The numbers that a list has, and how many replies it took. */
static uint32_t list(fixture *f, uint64_t *numbers, uint32_t room, uint32_t *pages)
{
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__ErasureList body = PADOS__V1__ERASURE_LIST__INIT;
    Pados__V1__Reply *reply;
    pd_error err;
    uint32_t n = 0;
    request.body_case = PADOS__V1__REQUEST__BODY_ERASURE_LIST;
    request.erasure_list = &body;
    for (int more = 1; more; ++*pages) {
        must(ask(f, &request, &reply, &err), err);
        for (size_t i = 0; i < reply->erasures->n_erasures; i++) {
            assert_true(n < room);
            numbers[n++] = reply->erasures->erasures[i]->number;
        }
        more = reply->erasures->more;
        body.after = n ? numbers[n - 1] : 0;
        reply_free(reply);
    }
    return n;
}

static void test_a_finished_receipt_is_not_among_those_that_jobs_read(void **state)
{
    (void)state;
    fixture f;
    fixture_shop(&f, ROWS, DIM);
    erase(&f, 3, 2);
    assert_int_equal(documents(&f, PD_RECEIPTS), 0);
    assert_int_equal(documents(&f, PD_FINISHED), 2);
    fixture_remove(&f);
}

static void test_receipts_come_page_by_page_each_once(void **state)
{
    (void)state;
    static uint64_t numbers[3 * MOST];
    fixture f;
    uint32_t pages = 0;
    fixture_shop(&f, ROWS, DIM);
    erase(&f, 0, MOST);
    erase(&f, 0, MOST);
    assert_int_equal(list(&f, numbers, 3 * MOST, &pages), 2 * MOST);
    assert_true(pages > 2);
    for (uint32_t i = 0; i < 2 * MOST; i++)
        assert_int_equal(numbers[i], i + 1);
    fixture_remove(&f);
}

/* Some are pending, with finished ones around them. */
typedef struct putting {
    fixture *f;
    pd_receipt at[6];
} putting;

static pd_status put(void *argument, pd_error *err)
{
    putting *p = argument;
    return pd_receipts_put(p->f->catalog, p->at, 6, err);
}

static void test_a_list_has_pending_and_finished_ones_in_the_order_of_their_numbers(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    fixture_shop(&f, ROWS, DIM);
    putting p = {.f = &f};
    for (uint32_t i = 0; i < 6; i++) {
        p.at[i] = (pd_receipt){.table = "u", .id = i, .asked = 1, .deadline = 1e9};
        p.at[i].finished = i % 3 ? 2 : 0;
    }
    must(pd_writer_run(f.catalog->writer, put, &p, &err), err);
    for (uint64_t from = 0; from < 7; from += 2) {
        pd_receipt_list page = {.from = from + 1, .most = 2};
        must(pd_receipt_page(f.catalog, &page, &err), err);
        assert_int_equal(page.n, from < 6 ? 2 : 0);
        assert_int_equal(page.more, from < 4);
        for (uint32_t i = 0; i < page.n; i++) {
            assert_int_equal(page.at[i].number, from + i + 1);
            assert_int_equal(page.at[i].id, from + i);
        }
        pd_receipt_list_free(&page);
    }
    for (uint32_t i = 0; i < 6; i++) /* those that were pending move */
        p.at[i].finished = 2;
    must(pd_writer_run(f.catalog->writer, put, &p, &err), err);
    assert_int_equal(documents(&f, PD_RECEIPTS), 0);
    assert_int_equal(documents(&f, PD_FINISHED), 6);
    fixture_remove(&f);
}

static void wait_for_documents(fixture *f, const char *collection, uint32_t wanted)
{
    for (int tries = 0; tries < 3000 && documents(f, collection) != wanted; tries++)
        usleep(20000);
    assert_int_equal(documents(f, collection), wanted);
}

/* The last one stays, so that its number is not another's. */
static void test_finished_receipts_go_after_their_time_and_numbers_never_come_again(void **state)
{
    (void)state;
    fixture f;
    uint64_t numbers[8];
    uint32_t pages = 0;
    fixture_shop(&f, ROWS, DIM);
    erase(&f, 3, 4);
    fixture_close(&f);
    fixture_open(&f);
    usleep(1500000); /* the upkeep has looked at them */
    assert_int_equal(documents(&f, PD_FINISHED), 4);
    fixture_close(&f);
    f.config->receipt_days = 1e-9;
    fixture_open(&f);
    wait_for_documents(&f, PD_FINISHED, 1);
    erase(&f, 3, 1);
    assert_int_equal(list(&f, numbers, 8, &pages), 2);
    assert_int_equal(numbers[0], 4);
    assert_int_equal(numbers[1], 5);
    fixture_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_finished_receipt_is_not_among_those_that_jobs_read),
        cmocka_unit_test(test_receipts_come_page_by_page_each_once),
        cmocka_unit_test(test_a_list_has_pending_and_finished_ones_in_the_order_of_their_numbers),
        cmocka_unit_test(test_finished_receipts_go_after_their_time_and_numbers_never_come_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
