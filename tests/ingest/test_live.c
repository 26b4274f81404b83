/* A table that changes at random is what a plain model of it says: by id, by search, by postings, by exact search and in a stream. */
#include "live_check.h"

static const live_case cases[] = {
    {.backend = "cpu", .metric = "l2", .more = "refine = \"f32\";"},
    {.backend = "cpu", .metric = "cosine", .more = ""},
    {.backend = "cpu", .metric = "ip", .more = "refine = \"none\";"},
    {.backend = "cpu", .metric = "l2", .more = "refine = \"u8\"; source = \"f16\";"},
    {.backend = "cpu", .metric = "ip", .more = "index = \"none\"; refine = \"f32\";", .lookup = 1},
    {.backend = "cpu", .metric = "cosine", .more = "code = \"f32\"; refine = \"none\";"},
    {.backend = "cpu", .metric = "l2", .more = "code_dim = 8; refine = \"f32\";"},
    {.backend = "reference", .metric = "l2", .more = ""},
    {.backend = "reference", .metric = "cosine", .more = ""},
    {.backend = "reference", .metric = "ip", .more = "refine = \"f16\";"},
    {.backend = "reference", .metric = "cosine", .more = "index = \"none\";", .lookup = 1},
};

static void test_a_table_is_what_its_changes_say(void **state)
{
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        for (uint64_t seed = 1; seed <= 2; seed++) {
            print_message("%s %s %s, seed %llu\n", cases[c].backend, cases[c].metric, cases[c].more,
                          (unsigned long long)seed);
            live_world *w = live_open(cases[c], seed, SPARE);
            check_all(w);
            for (int step = 0; step < 150; step++) {
                live_step(w);
                if (step % 15 == 14) check_all(w);
            }
            live_close(w);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_table_is_what_its_changes_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
