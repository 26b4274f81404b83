/* Measured recall: totals, windows, and when a promise counts as broken or kept. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "recall.h"
#include "recall_book.h"

#define HOUR 3600000000000ull

static int start(void **state)
{
    pd_error err;
    return pd_recall_book_open((pd_recall_book **)state, &err) != PD_OK;
}

static int stop(void **state)
{
    pd_recall_book_close(*state);
    return 0;
}

static const pd_recall_outcome plain = {
    .table = "goods", .profile = "", .version = 3, .promise = 0.95f, .hits = 10, .wanted = 10};

/* n queries of k = 10 whose recall is `hits` / 10 on average, a tenth of them a hit better and a tenth a hit worse. */
static void add(pd_recall_book *book, pd_recall_outcome outcome, uint32_t n, uint32_t hits, uint64_t now)
{
    pd_error err;
    for (uint32_t i = 0; i < n; i++) {
        outcome.wanted = 10;
        outcome.hits = hits + (hits < 10 && i % 10 == 3) - (hits < 10 && i % 10 == 7);
        assert_int_equal(pd_recall_book_add(book, &outcome, now, &err), PD_OK);
    }
}

typedef struct looked {
    const char *name, *labels;
    double value;
    int found;
} looked;

static void look(void *context, const char *name, const char *labels, double value)
{
    looked *l = context;
    if (strcmp(name, l->name) != 0 || strcmp(labels, l->labels) != 0) return;
    l->value = value;
    l->found++;
}

static const char goods[] = "table=\"goods\",profile=\"\",score=\"similarity\"";
static const char festive[] = "table=\"goods\",profile=\"festive\",score=\"fused\"";

static double metric(pd_recall_book *book, const char *name, const char *labels)
{
    looked l = {.name = name, .labels = labels};
    pd_recall_book_tell(book, look, &l);
    assert_int_equal(l.found, 1);
    return l.value;
}

/* What was written to stderr while `run` ran. */
static char said[8192];

static void listen_to(void (*run)(void *), void *argument)
{
    char path[] = "/tmp/pados-recall-XXXXXX";
    int file = mkstemp(path), own = dup(STDERR_FILENO);
    assert_true(file >= 0 && own >= 0);
    fflush(stderr);
    dup2(file, STDERR_FILENO);
    run(argument);
    dup2(own, STDERR_FILENO);
    ssize_t got = pread(file, said, sizeof said - 1, 0);
    said[got > 0 ? got : 0] = 0;
    close(own);
    close(file);
    unlink(path);
}

static int lines(const char *word)
{
    int n = 0;
    for (const char *at = said; (at = strstr(at, word)) != NULL; at++)
        n++;
    return n;
}

static void test_totals_and_the_window_are_of_each_profile(void **state)
{
    pd_recall_book *book = *state;
    pd_recall_outcome fused = plain;
    fused.profile = "festive";
    fused.fused = 1;
    fused.promise = 0;
    add(book, plain, 40, 10, 1);
    add(book, fused, 20, 8, 1);
    assert_true(metric(book, "pados_recall_queries_total", goods) == 40);
    assert_true(metric(book, "pados_recall_hits_total", goods) == 400);
    assert_true(metric(book, "pados_recall_wanted_total", festive) == 200);
    assert_true(metric(book, "pados_recall_hits_total", festive) == 160);
    assert_float_equal(metric(book, "pados_recall_recent", festive), 0.8, 1e-6);
    double lower = metric(book, "pados_recall_recent_lower", festive);
    /* sd 0.0459, n 20: 1.645 * sd / sqrt(n) */
    assert_float_equal(lower, 0.8 - 0.0169, 0.0005);
    assert_float_equal(metric(book, "pados_recall_promised", goods), 0.95, 1e-6);
    looked none = {.name = "pados_recall_promised", .labels = festive};
    pd_recall_book_tell(book, look, &none);
    assert_int_equal(none.found, 0);
}

static void test_the_window_forgets(void **state)
{
    pd_recall_book *book = *state;
    pd_recall_outcome loose = plain;
    loose.promise = 0;
    add(book, loose, 500, 5, 1);
    add(book, loose, PD_RECALL_WINDOW, 10, 1);
    assert_true(metric(book, "pados_recall_recent", goods) == 1.0);
    assert_true(metric(book, "pados_recall_queries_total", goods) == 500 + PD_RECALL_WINDOW);
}

static void test_a_query_with_nothing_to_find_says_nothing_of_recall(void **state)
{
    pd_recall_book *book = *state;
    pd_error err;
    pd_recall_outcome empty = plain;
    empty.hits = empty.wanted = 0;
    assert_int_equal(pd_recall_book_add(book, &empty, 1, &err), PD_OK);
    assert_true(metric(book, "pados_recall_queries_total", goods) == 1);
    looked none = {.name = "pados_recall_recent", .labels = goods};
    pd_recall_book_tell(book, look, &none);
    assert_int_equal(none.found, 0);
}

static void break_it(void *book)
{
    add(book, plain, PD_RECALL_JUDGED - 1, 9, HOUR);
    assert_false(pd_recall_broken(book, "goods", 3));
    add(book, plain, 200, 9, HOUR + 1);
    assert_true(pd_recall_broken(book, "goods", 3));
    assert_false(pd_recall_broken(book, "goods", 4));
    assert_false(pd_recall_broken(book, "users", 3));
    add(book, plain, 200, 9, 2 * HOUR); /* less than an hour later */
}

static void break_it_longer(void *book)
{
    add(book, plain, 10, 9, 2 * HOUR + 2);
}

static void keep_it(void *book)
{
    add(book, plain, PD_RECALL_WINDOW, 10, 3 * HOUR);
    assert_false(pd_recall_broken(book, "goods", 3));
}

static void test_a_broken_promise_is_said_once_an_hour_and_once_when_it_is_kept_again(void **state)
{
    listen_to(break_it, *state);
    assert_int_equal(lines("below the promised"), 1);
    assert_non_null(strstr(said, "table \"goods\" (similarity)"));
    assert_true(metric(*state, "pados_recall_broken", goods) == 1);
    listen_to(break_it_longer, *state);
    assert_int_equal(lines("below the promised"), 1);
    listen_to(keep_it, *state);
    assert_int_equal(lines("kept again"), 1);
    assert_int_equal(lines("below"), 0);
}

static void stay_near(void *book)
{
    /* 0.948 with a wide spread: not what was promised, and not shown to be less. */
    pd_error err;
    for (uint32_t i = 0; i < 400; i++) {
        pd_recall_outcome o = plain;
        o.hits = i % 100 < 74 ? 10 : 8;
        o.promise = 0.95f;
        assert_int_equal(pd_recall_book_add(book, &o, HOUR, &err), PD_OK);
    }
}

static void test_chance_breaks_no_promise(void **state)
{
    listen_to(stay_near, *state);
    assert_int_equal(lines("recall"), 0);
    assert_false(pd_recall_broken(*state, "goods", 3));
}

static void ask_without_a_promise(void *book)
{
    pd_recall_outcome loose = plain;
    loose.promise = 0;
    add(book, loose, 600, 2, HOUR);
    add(book, plain, 100, 10, HOUR);
}

static void test_queries_that_were_promised_nothing_break_nothing(void **state)
{
    listen_to(ask_without_a_promise, *state);
    assert_false(pd_recall_broken(*state, "goods", 3));
    assert_int_equal(lines("recall"), 0);
}

static void replace(void *book)
{
    add(book, plain, 300, 8, HOUR);
    assert_true(pd_recall_broken(book, "goods", 3));
    pd_recall_outcome next = plain;
    next.version = 4;
    add(book, next, 20, 10, HOUR);
    assert_false(pd_recall_broken(book, "goods", 3));
    assert_false(pd_recall_broken(book, "goods", 4));
    assert_true(metric(book, "pados_recall_recent", goods) == 1.0);
    add(book, next, 100, 10, HOUR);
}

static void test_another_version_starts_anew(void **state)
{
    listen_to(replace, *state);
    assert_int_equal(lines("below the promised"), 1);
    assert_int_equal(lines("kept again"), 1);
}

static void test_series_are_bounded(void **state)
{
    pd_error err;
    pd_recall_outcome o = plain;
    char profile[32];
    o.profile = profile;
    for (uint32_t i = 0; i < PD_RECALL_SERIES; i++) {
        snprintf(profile, sizeof profile, "p%u", i);
        assert_int_equal(pd_recall_book_add(*state, &o, 1, &err), PD_OK);
    }
    snprintf(profile, sizeof profile, "one-more");
    assert_int_equal(pd_recall_book_add(*state, &o, 1, &err), PD_RESOURCE_EXHAUSTED);
    snprintf(profile, sizeof profile, "p0");
    assert_int_equal(pd_recall_book_add(*state, &o, 1, &err), PD_OK);
}

static void test_a_share_of_queries_is_sampled_wherever_they_are_in_a_batch(void **state)
{
    (void)state;
    pd_recall_dice dice = {.state = 7};
    enum { BATCHES = 20000, BATCH = 16 };
    uint32_t at[BATCH] = {0}, total = 0;
    for (int b = 0; b < BATCHES; b++)
        for (int q = 0; q < BATCH; q++)
            if (pd_recall_throw(&dice, 0.01)) at[q]++, total++;
    assert_in_range(total, 3000, 3400); /* 3,200 of 320,000, sd 56 */
    for (int q = 0; q < BATCH; q++)
        assert_in_range(at[q], 130, 270); /* 200, sd 14 */
    for (int i = 0; i < 100; i++)
        assert_true(pd_recall_throw(&dice, 1.0));
    for (int i = 0; i < 1000; i++)
        assert_false(pd_recall_throw(&dice, 0.0));
}

#define book_test(test) cmocka_unit_test_setup_teardown(test, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        book_test(test_totals_and_the_window_are_of_each_profile),
        book_test(test_the_window_forgets),
        book_test(test_a_query_with_nothing_to_find_says_nothing_of_recall),
        book_test(test_a_broken_promise_is_said_once_an_hour_and_once_when_it_is_kept_again),
        book_test(test_chance_breaks_no_promise),
        book_test(test_queries_that_were_promised_nothing_break_nothing),
        book_test(test_another_version_starts_anew),
        book_test(test_series_are_bounded),
        cmocka_unit_test(test_a_share_of_queries_is_sampled_wherever_they_are_in_a_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
