/* Batches that wait for a rebuild: what becomes of one that is sent again meanwhile. */
#include "catalog_fixture.h"

#include <unistd.h>

#include "batch.h"
#include "clock.h"
#include "held.h"

enum { ROWS = 200, DIM = 8, A_MINUTE = 60000 };

/* A batch that was refused for want of a page. */
typedef struct crowded {
    pd_write write; /* first */
    int again, done;
    pd_status status;
    char message[300];
} crowded;

static void on_done(pd_write *write, pd_status status, const pd_error *err, const pd_written *written)
{
    crowded *c = (crowded *)write;
    (void)written;
    c->done++;
    c->status = status;
    snprintf(c->message, sizeof c->message, "%.290s", err ? err->message : "");
}

static void on_again(pd_write *write)
{
    ((crowded *)write)->again++;
}

static void make(fixture *f, crowded *c, const char *key, uint32_t ms)
{
    pd_error err;
    *c = (crowded){.write = {.done = on_done, .again = on_again}};
    c->write.deadline_ns = pd_now_ns() + ms * 1000000ull;
    c->write.batch = calloc(1, sizeof *c->write.batch);
    assert_non_null(c->write.batch);
    c->write.batch->length = 100;
    snprintf(c->write.batch->table, sizeof c->write.batch->table, "t");
    snprintf(c->write.batch->key, sizeof c->write.batch->key, "%s", key);
    must(pd_catalog_hold(f->catalog, "t", &c->write.served, &err), err);
    c->write.status = pd_fail(&c->write.err, PD_RESOURCE_EXHAUSTED, "no page");
}

static void let_go(crowded *c)
{
    if (c->write.served) pd_catalog_release(c->write.served);
    free(c->write.batch);
}

/* The builder is kept from the rebuild, so that the table does not move. */
static void test_a_resend_of_a_held_batch_is_never_told_that_nothing_was_done(void **state)
{
    (void)state;
    fixture f;
    pd_held held = {0};
    crowded first, again, late, other, plain;
    fixture_shop(&f, ROWS, DIM);
    make(&f, &first, "t/k", A_MINUTE);
    make(&f, &again, "t/k", A_MINUTE);
    make(&f, &late, "t/k", 100);
    make(&f, &other, "t/other", 100);
    make(&f, &plain, "", 100);
    pthread_mutex_lock(&f.catalog->files); /* no version is switched in */
    assert_true(pd_held_take(&held, f.catalog, &first.write));
    assert_true(pd_held_take(&held, f.catalog, &again.write));
    assert_false(pd_held_take(&held, f.catalog, &late.write));
    assert_int_equal(late.write.status, PD_DEADLINE_EXCEEDED);
    assert_non_null(strstr(late.write.err.message, "under way"));
    assert_false(pd_held_take(&held, f.catalog, &other.write));
    assert_int_equal(other.write.status, PD_RESOURCE_EXHAUSTED);
    assert_false(pd_held_take(&held, f.catalog, &plain.write));
    assert_int_equal(plain.write.status, PD_RESOURCE_EXHAUSTED);
    again.write.deadline_ns = pd_now_ns();
    pd_held_review(&held, f.catalog);
    assert_int_equal(again.done, 1);
    assert_int_equal(again.status, PD_DEADLINE_EXCEEDED);
    assert_int_equal(first.done, 0);
    pthread_mutex_unlock(&f.catalog->files);
    for (int tries = 0; tries < 3000 && !first.again; tries++) {
        usleep(20000);
        pd_held_review(&held, f.catalog);
    }
    assert_int_equal(first.again, 1);
    assert_int_equal(first.done, 0);
    assert_int_equal(held.count, 0);
    let_go(&first);
    let_go(&again);
    let_go(&late);
    let_go(&other);
    let_go(&plain);
    fixture_remove(&f);
}

/* The first has the shorter deadline: the second may still be done. */
static void test_nor_is_the_first_where_its_resend_waits_longer(void **state)
{
    (void)state;
    fixture f;
    pd_held held = {0};
    crowded first, again;
    fixture_shop(&f, ROWS, DIM);
    make(&f, &first, "t/k", A_MINUTE);
    make(&f, &again, "t/k", A_MINUTE);
    pthread_mutex_lock(&f.catalog->files);
    assert_true(pd_held_take(&held, f.catalog, &first.write));
    assert_true(pd_held_take(&held, f.catalog, &again.write));
    first.write.deadline_ns = pd_now_ns();
    pd_held_review(&held, f.catalog);
    pthread_mutex_unlock(&f.catalog->files);
    assert_int_equal(first.done, 1);
    assert_int_equal(first.status, PD_DEADLINE_EXCEEDED);
    assert_int_equal(again.done, 0);
    pd_held_stop(&held);
    assert_int_equal(again.status, PD_UNAVAILABLE);
    let_go(&first);
    let_go(&again);
    fixture_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_resend_of_a_held_batch_is_never_told_that_nothing_was_done),
        cmocka_unit_test(test_nor_is_the_first_where_its_resend_waits_longer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
