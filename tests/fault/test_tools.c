/* The fault tools themselves, on sequences whose outcomes are known. */
#include "drill.h"

#define SEEDS 60

/* The file in folder/out: its length, -1: it is not there; all its bytes are said in letters: [256]. */
static long out_file(const drill *d, const char *name, uint32_t *letters)
{
    char path[200];
    snprintf(path, sizeof path, "%s/out/%s", d->folder, name);
    memset(letters, 0, 256 * sizeof *letters);
    FILE *file = fopen(path, "rb");
    if (!file) return -1;
    long n = 0;
    for (int c; (c = fgetc(file)) != EOF; n++)
        letters[c]++;
    fclose(file);
    return n;
}

/* Over many seeds: how often the file was there, and whole with that letter. */
typedef struct outcome {
    uint32_t there, whole;
} outcome;
static outcome outcomes(const drill *d, uint64_t at, const char *name, long length, char letter)
{
    outcome o = {0};
    uint32_t letters[256];
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        drill_cut(d, at, seed, NULL);
        long n = out_file(d, name, letters);
        o.there += n >= 0;
        o.whole += n == length && letters[(unsigned char)letter] == (uint32_t)length;
    }
    return o;
}

static void test_what_was_not_synced_may_be_gone(void **state)
{
    (void)state;
    drill d;
    uint64_t marks[2] = {0};
    drill_make(&d);
    assert_int_equal(drill_calls(&d, "", "create:f folder:. write:f:0:20000:a mark sync:f mark", marks, 2),
                     2);
    outcome before = outcomes(&d, marks[0], "f", 20000, 'a'), after = outcomes(&d, marks[1], "f", 20000, 'a');
    assert_int_equal(before.there, SEEDS); /* its name was synced */
    assert_in_range(before.whole, 1, SEEDS - 1);
    assert_int_equal(after.whole, SEEDS);
    drill_remove(&d);
}

static void test_a_synced_file_without_a_synced_name_may_be_gone(void **state)
{
    (void)state;
    drill d;
    uint64_t marks[2] = {0};
    drill_make(&d);
    assert_int_equal(drill_calls(&d, "", "append:f:5000:a sync:f mark folder:. mark", marks, 2), 2);
    outcome before = outcomes(&d, marks[0], "f", 5000, 'a'), after = outcomes(&d, marks[1], "f", 5000, 'a');
    assert_in_range(before.there, 1, SEEDS - 1);
    assert_int_equal(before.whole, before.there);
    assert_int_equal(after.whole, SEEDS);
    drill_remove(&d);
}

static void test_a_rename_shows_the_old_or_the_new_until_the_folder_is_synced(void **state)
{
    (void)state;
    drill d;
    uint64_t marks[2] = {0};
    drill_make(&d);
    assert_int_equal(
        drill_calls(&d, "",
                    "append:f:100:a sync:f folder:. append:g:100:b sync:g rename:g:f mark folder:. mark",
                    marks, 2),
        2);
    outcome old = outcomes(&d, marks[0], "f", 100, 'a'), fresh = outcomes(&d, marks[0], "f", 100, 'b');
    assert_int_equal(old.whole + fresh.whole, SEEDS); /* a synced name is never lost */
    assert_in_range(fresh.whole, 1, SEEDS - 1);
    assert_int_equal(outcomes(&d, marks[1], "f", 100, 'b').whole, SEEDS);
    assert_int_equal(outcomes(&d, marks[1], "g", 100, 'b').there, 0);
    drill_remove(&d);
}

static void test_two_folders_that_change_places_are_either_way_round(void **state)
{
    (void)state;
    drill d;
    uint64_t mark = 0;
    drill_make(&d);
    drill_calls(&d, "",
                "mkdir:v mkdir:w append:v/f:10:a append:w/f:10:b sync:v/f sync:w/f folder:v folder:w "
                "folder:. swap:v:w link:v/f:g mark",
                &mark, 1);
    outcome old = outcomes(&d, mark, "v/f", 10, 'a'), fresh = outcomes(&d, mark, "v/f", 10, 'b');
    assert_int_equal(old.whole + fresh.whole, SEEDS);
    assert_in_range(fresh.whole, 1, SEEDS - 1);
    assert_int_equal(outcomes(&d, mark, "w/f", 10, 'a').whole, fresh.whole); /* the same seeds */
    outcome linked = outcomes(&d, mark, "g", 10, 'b');
    assert_in_range(linked.there, 1, fresh.whole);
    assert_int_equal(linked.whole, linked.there);
    drill_remove(&d);
}

static void test_an_unsynced_rename_of_an_unsynced_file_may_leave_it_empty(void **state)
{
    (void)state;
    drill d;
    uint64_t mark = 0;
    drill_make(&d);
    drill_calls(&d, "", "append:f:100:a sync:f folder:. append:g:100:b rename:g:f folder:. mark", &mark, 1);
    outcome fresh = outcomes(&d, mark, "f", 100, 'b');
    assert_int_equal(fresh.there, SEEDS);
    assert_in_range(fresh.whole, 1, SEEDS - 1);
    drill_remove(&d);
}

static void test_changes_of_a_folder_come_in_their_order(void **state)
{
    (void)state;
    drill d;
    uint64_t mark = 0;
    drill_make(&d);
    drill_calls(&d, "", "create:a create:b mkdir:c create:c/x unlink:a mark", &mark, 1);
    uint32_t letters[256], seen = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        drill_cut(&d, mark, seed, NULL);
        int a = out_file(&d, "a", letters) >= 0, b = out_file(&d, "b", letters) >= 0;
        int c = shell("test -d %s/out/c", d.folder) == 0, x = out_file(&d, "c/x", letters) >= 0;
        assert_true(a || b == c); /* a goes last, so without it all were there, or none */
        assert_true(b || !c);
        assert_true(c || !x);
        seen |= 1u << (a + 2 * b + 4 * c);
    }
    assert_int_equal(seen, 1 << 0 | 1 << 1 | 1 << 3 | 1 << 7 | 1 << 6);
    drill_remove(&d);
}

static void test_a_write_through_a_synced_descriptor_is_there(void **state)
{
    (void)state;
    drill d;
    uint64_t mark = 0;
    drill_make(&d);
    drill_calls(&d, "", "create:f folder:. dsync:f:0:4096:a write:f:4096:4096:b mark", &mark, 1);
    uint32_t letters[256], b = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        drill_cut(&d, mark, seed, NULL);
        out_file(&d, "f", letters);
        assert_int_equal(letters['a'], 4096);
        b += letters['b'] == 4096;
    }
    assert_in_range(b, 1, SEEDS - 1);
    drill_remove(&d);
}

static void test_what_a_failed_sync_lost_is_not_brought_back_by_the_next(void **state)
{
    (void)state;
    drill d;
    uint64_t marks[2] = {0};
    drill_make(&d);
    drill_calls(&d, "PADOS_FAULT_FAIL=sync:2:EIO",
                "create:f folder:. write:f:0:4096:a sync:f sync:f mark write:f:0:4096:a sync:f mark", marks,
                2);
    assert_in_range(outcomes(&d, marks[0], "f", 4096, 'a').whole, 1, SEEDS - 1);
    assert_int_equal(outcomes(&d, marks[1], "f", 4096, 'a').whole, SEEDS);
    drill_remove(&d);
}

static void test_a_base_is_what_the_folder_held(void **state)
{
    (void)state;
    drill d;
    uint64_t mark = 0;
    uint32_t letters[256];
    drill_make(&d);
    assert_int_equal(shell("cd %s && mkdir data/s && printf xxxx >data/s/old && cp -r data base", d.folder),
                     0);
    drill_calls(&d, "", "write:s/old:4:2:y sync:s/old mark", &mark, 1);
    char base[100];
    snprintf(base, sizeof base, "%s/base", d.folder);
    drill_cut(&d, mark, 1, base);
    assert_int_equal(out_file(&d, "s/old", letters), 6);
    assert_int_equal(letters['x'], 4);
    assert_int_equal(letters['y'], 2);
    drill_remove(&d);
}

static uint32_t failures(const drill *d, const char *text)
{
    char path[100], line[300];
    uint32_t n = 0;
    snprintf(path, sizeof path, "%s/said", d->folder);
    FILE *said = fopen(path, "r");
    while (said && fgets(line, sizeof line, said))
        n += !strncmp(line, "failed", 6) && strstr(line, text) != NULL;
    if (said) fclose(said);
    return n;
}

static void test_the_nth_call_of_a_class_fails_once(void **state)
{
    (void)state;
    drill d;
    pd_fault_state s;
    const char *calls = "create:f write:f:0:10:a write:f:0:10:a sync:f write:f:0:10:a rename:f:g";
    drill_make(&d);
    drill_calls(&d, "PADOS_FAULT_FAIL=write:0:EIO", calls, NULL, 0);
    drill_state(&d, &s);
    assert_int_equal(s.calls, 3);
    assert_int_equal(failures(&d, ""), 0);
    drill_again(&d);
    drill_calls(&d, "PADOS_FAULT_FAIL=write:3:ENOSPC", calls, NULL, 0);
    drill_state(&d, &s);
    assert_int_equal(s.failed, 1);
    assert_string_equal(s.what, "pwrite f");
    assert_int_equal(failures(&d, "No space"), 1);
    assert_int_equal(failures(&d, ""), 1);
    drill_again(&d);
    drill_calls(&d, "PADOS_FAULT_FAIL=rename:1:EIO", calls, NULL, 0);
    assert_int_equal(failures(&d, "rename:f:g"), 1);
    drill_again(&d);
    drill_calls(&d, "PADOS_FAULT_FAIL=any:0:EIO", calls, NULL, 0);
    drill_state(&d, &s);
    assert_int_equal(s.calls, 5 + 3 + 1 + 1); /* opens, writes, a sync, a rename */
    drill_remove(&d);
}

static void test_a_full_disk_refuses_what_makes_a_file_longer(void **state)
{
    (void)state;
    drill d;
    char settings[100];
    drill_make(&d);
    assert_int_equal(shell("printf 0123456789 >%s/data/f; touch %s/full", d.folder, d.folder), 0);
    snprintf(settings, sizeof settings, "PADOS_FAULT_FULL=%s/full", d.folder);
    drill_calls(&d, settings, "write:f:0:10:a write:f:5:10:b append:f:1:c", NULL, 0);
    assert_int_equal(failures(&d, "write:f:5:10:b No space"), 1);
    assert_int_equal(failures(&d, "append:f:1:c No space"), 1);
    assert_int_equal(failures(&d, ""), 2);
    assert_int_equal(shell("rm %s/full; test $(cat %s/data/f) = aaaaaaaaaa", d.folder, d.folder), 0);
    drill_calls(&d, settings, "append:f:1:c", NULL, 0);
    assert_int_equal(failures(&d, ""), 0);
    drill_remove(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_not_synced_may_be_gone),
        cmocka_unit_test(test_a_synced_file_without_a_synced_name_may_be_gone),
        cmocka_unit_test(test_a_rename_shows_the_old_or_the_new_until_the_folder_is_synced),
        cmocka_unit_test(test_two_folders_that_change_places_are_either_way_round),
        cmocka_unit_test(test_an_unsynced_rename_of_an_unsynced_file_may_leave_it_empty),
        cmocka_unit_test(test_changes_of_a_folder_come_in_their_order),
        cmocka_unit_test(test_a_write_through_a_synced_descriptor_is_there),
        cmocka_unit_test(test_what_a_failed_sync_lost_is_not_brought_back_by_the_next),
        cmocka_unit_test(test_a_base_is_what_the_folder_held),
        cmocka_unit_test(test_the_nth_call_of_a_class_fails_once),
        cmocka_unit_test(test_a_full_disk_refuses_what_makes_a_file_longer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
