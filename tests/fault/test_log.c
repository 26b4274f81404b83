/* The log of changes on a disk that fails, and after power cuts: what perform.c's life of a log was told is held to it. */
#include "drill.h"
#include "perform.h"

#define RECORDS    11u
#define AFTERWARDS 50000u /* bytes of the diary */

typedef struct acknowledged {
    uint32_t attempt;
    size_t length;
    char table[16];
    uint64_t at; /* bytes of the diary */
} acknowledged;

typedef struct story {
    acknowledged of[RECORDS + 1];       /* by sequence */
    uint64_t count, trimmed, rewritten; /* the latter two: when, UINT64_MAX: not */
    uint64_t failed;                    /* when, the first time */
    int closed, failures;
    char wrong[300]; /* a failed append that was seen */
} story;

static void story_read(const drill *d, story *s)
{
    char path[100], line[700];
    memset(s, 0, sizeof *s);
    s->trimmed = s->rewritten = UINT64_MAX;
    snprintf(path, sizeof path, "%s/said", d->folder);
    FILE *said = fopen(path, "r");
    assert_non_null(said);
    while (fgets(line, sizeof line, said)) {
        unsigned long long sequence, at;
        acknowledged a;
        if (sscanf(line, "acknowledged %llu %u %zu %15s at %llu", &sequence, &a.attempt, &a.length, a.table,
                   &at) == 5) {
            assert_int_equal(sequence, s->count + 1);
            assert_in_range(sequence, 1, RECORDS);
            a.at = at;
            s->of[s->count = sequence] = a;
        } else if (sscanf(line, "trimmed 3 at %llu", &at) == 1) {
            s->trimmed = at;
        } else if (sscanf(line, "rewritten 7 at %llu", &at) == 1) {
            s->rewritten = at;
        } else if (sscanf(line, "failed at %llu", &at) == 1) {
            if (!s->failures++) s->failed = at;
        } else if (!strncmp(line, "closed", 6)) {
            s->closed = 1;
        } else if (!s->wrong[0]) {
            snprintf(s->wrong, sizeof s->wrong, "%.290s", line);
        }
    }
    fclose(said);
}

/* ------------------------------------------------------------------------------------- what must be there --- */

static int is_blank(const pd_record *record)
{
    for (size_t i = 0; i < record->length; i++)
        if (((const char *)record->bytes)[i]) return 0;
    return 1;
}

/* A record is whole: as it was made at the attempt that it says, or blank. */
static int is_made(const pd_record *record, const char *table, size_t length)
{
    static char bytes[PERFORM_MOST];
    pd_record want;
    perform_record(&want, record->sequence, table, record->kind, length, bytes);
    return record->length == length && !strcmp(record->table, table) && !strcmp(record->key, want.key) &&
           !memcmp(record->bytes, bytes, length);
}

static void check_record(pd_changes *log, const story *s, uint64_t sequence, uint64_t cut, uint64_t count,
                         const char *when)
{
    const acknowledged *a = &s->of[sequence];
    pd_error err;
    pd_record record;
    void *hold;
    pd_status status = pd_changes_get(log, sequence, &record, &hold, &err);
    int trims = !strcmp(a->table, "shoes") && sequence <= 3,
        blanks = !strcmp(a->table, "hats") && sequence % 4 == 0;
    if (status == PD_NOT_FOUND && trims && count >= 6) return;
    if (status) fail_msg("%s: record %llu: %s", when, (unsigned long long)sequence, err.message);
    if (trims && cut >= s->trimmed)
        fail_msg("%s: record %llu is there again", when, (unsigned long long)sequence);
    int as_made = is_made(&record, a->table, a->length) && record.kind == a->attempt;
    int blank = blanks && count >= 7 && record.length == a->length && is_blank(&record);
    if (!as_made && !blank) fail_msg("%s: record %llu is another", when, (unsigned long long)sequence);
    if (blanks && cut >= s->rewritten && !blank)
        fail_msg("%s: record %llu was rewritten, and is as before", when, (unsigned long long)sequence);
    pd_changes_end(log, hold);
}

static pd_status count_documents(void *context, uint64_t number, const void *bytes, size_t length,
                                 pd_error *err)
{
    (void)err;
    *(uint32_t *)context += number == 1 && length == 3 && !memcmp(bytes, "one", 3);
    return PD_OK;
}

static pd_status count_records(void *context, const pd_record *record, pd_error *err)
{
    (void)record, (void)err;
    ++*(uint32_t *)context;
    return PD_OK;
}

/* The log in folder/log holds what was acknowledged before the cut, at most one more, whole, and works. */
static void check_log(const char *folder, const story *s, uint64_t cut, const char *when)
{
    char at[300];
    pd_error err;
    pd_changes *log;
    snprintf(at, sizeof at, "%s/log", folder);
    pd_changes_options o = {.folder = at, .map_bytes = 64u << 20, .durability = PD_DURABLE_SYNC, .keys = 8};
    if (pd_changes_open(&o, &log, &err)) fail_msg("%s: %s", when, err.message);
    uint64_t count = 0, last = pd_changes_last(log), sequence;
    while (count < s->count && s->of[count + 1].at <= cut)
        count++;
    if (last < count || last > count + 1 || (cut == UINT64_MAX && last != count))
        fail_msg("%s: the last is %llu, %llu were acknowledged", when, (unsigned long long)last,
                 (unsigned long long)count);
    uint32_t seen = 0, documents = 0;
    if (pd_changes_read(log, "", 1, UINT64_MAX, count_records, NULL, &seen, &err))
        fail_msg("%s: %s", when, err.message);
    for (uint64_t i = 1; i <= count; i++)
        check_record(log, s, i, cut, count, when);
    for (uint64_t i = count > 7 ? count - 6 : 1; i <= count; i++) {
        char key[40];
        snprintf(key, sizeof key, "key-%llu-%u", (unsigned long long)i, s->of[i].attempt);
        if (pd_changes_find_key(log, key, &sequence, &err) || sequence != i)
            fail_msg("%s: %s is not known", when, key);
    }
    if (pd_changes_documents(log, "erasures", 0, count_documents, &documents, &err))
        fail_msg("%s: %s", when, err.message);
    if (count >= 7 && documents != 1) fail_msg("%s: the document is gone", when);
    if (cut >= s->trimmed && s->trimmed != UINT64_MAX &&
        (pd_changes_floor(log, "shoes", &sequence, &err) || sequence != 3))
        fail_msg("%s: the floor is gone", when);
    /* And goes on. */
    static char bytes[PERFORM_MOST];
    pd_record more;
    perform_record(&more, last + 1, "more", 0, 5000, bytes);
    if (pd_changes_append(log, &more, 1, &err) || pd_changes_compact(log, &err))
        fail_msg("%s: %s", when, err.message);
    if (pd_changes_trim(log, "more", UINT64_MAX, &err)) fail_msg("%s: %s", when, err.message);
    pd_changes_close(log);
    if (pd_changes_open(&o, &log, &err)) fail_msg("%s: %s", when, err.message);
    pd_changes_close(log);
}

/* --------------------------------------------------------------------------------------------- power cuts --- */

static uint64_t seed_of_run(void)
{
    const char *given = getenv("PADOS_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 10) : 2026;
    print_message("PADOS_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

static uint64_t random_below(uint64_t *seed, uint64_t n)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (*seed >> 33) % n;
}

static void log_run(const drill *d, int diary, int class, uint64_t n, const char *error, const char *when)
{
    char arguments[200];
    snprintf(arguments, sizeof arguments, "log %s/data %d %llu '%s'", d->folder, class, (unsigned long long)n,
             error);
    int rc = drill_run(d, diary, "", arguments);
    if (rc) {
        shell("tail -5 %s/said", d->folder);
        fail_msg("%s: it ended with %d", when, rc);
    }
}

static void cut_and_check(const drill *d, const story *s, uint64_t at, uint64_t seed, const char *when)
{
    char out[100], name[200];
    snprintf(out, sizeof out, "%s/out", d->folder);
    snprintf(name, sizeof name, "%s, cut at %llu, seed %llu", when, (unsigned long long)at,
             (unsigned long long)seed);
    drill_cut(d, at, seed, NULL);
    check_log(out, s, at, name);
}

static void test_no_power_cut_loses_what_was_acknowledged(void **state)
{
    (void)state;
    drill d;
    story s;
    pd_fault_state f;
    uint64_t seed = seed_of_run();
    drill_make(&d);
    log_run(&d, 1, PD_FAULT_NONE, 0, "0", "a quiet life");
    story_read(&d, &s);
    drill_state(&d, &f);
    assert_true(s.closed && s.count == RECORDS && !s.failures);
    for (int i = 0; i < 50; i++)
        cut_and_check(&d, &s, random_below(&seed, f.journal + 1), random_below(&seed, 1u << 30),
                      "a power cut");
    /* And just when an acknowledgement was given. */
    for (uint64_t i = 1; i <= RECORDS; i++)
        for (int j = 0; j < 3; j++)
            cut_and_check(&d, &s, s.of[i].at, random_below(&seed, 1u << 30), "a power cut");
    drill_remove(&d);
}

/* A drill that cannot fail shows nothing: without syncs, cuts do lose what was acknowledged. */
static void test_the_drill_finds_a_log_that_does_not_sync(void **state)
{
    (void)state;
    drill d;
    story s;
    pd_fault_state f;
    uint32_t lost = 0;
    drill_make(&d);
    log_run(&d, 1, PD_FAULT_NONE, 0, "0", "a quiet life");
    story_read(&d, &s);
    drill_state(&d, &f);
    assert_int_equal(shell("%s --journal %s/journal --list >%s/list", FAULT_REBUILD, d.folder, d.folder), 0);
    /* The log's own writes and syncs are in the diary. */
    assert_int_equal(
        shell("grep -q 'written.*number 1' %s/list && grep -q synced %s/list && grep -q renamed %s/list",
              d.folder, d.folder, d.folder),
        0);
    for (uint64_t seed = 0; seed < 20; seed++) {
        char out[100], at[200];
        pd_error err;
        pd_changes *log;
        assert_int_equal(
            shell("rm -rf %s/out; %s --journal %s/journal --at %llu --seed %llu --out %s/out --no-syncs",
                  d.folder, FAULT_REBUILD, d.folder, (unsigned long long)s.of[5].at, (unsigned long long)seed,
                  d.folder),
            0);
        snprintf(out, sizeof out, "%s/out", d.folder);
        snprintf(at, sizeof at, "%s/log", out);
        pd_changes_options o = {.folder = at, .map_bytes = 64u << 20};
        if (pd_changes_open(&o, &log, &err)) {
            lost++;
            continue;
        }
        lost += pd_changes_last(log) < 5;
        pd_changes_close(log);
    }
    assert_true(lost > 5);
    drill_remove(&d);
}

/* ------------------------------------------------------------------------------------------ failing calls --- */

/* Each call of the class in turn; cuts: how many power cuts are tried on each life. */
static void every_call_fails(int class, const char *error, uint32_t cuts, uint32_t least)
{
    drill d;
    story s;
    pd_fault_state f;
    uint64_t seed = seed_of_run();
    uint32_t failures = 0;
    char when[100], data[100];
    drill_make(&d);
    log_run(&d, 0, class, 0, error, "counting");
    drill_state(&d, &f);
    /* The class is taken back at the end; its count stays. */
    uint64_t calls = f.calls;
    assert_true(calls >= least);
    snprintf(data, sizeof data, "%s/data", d.folder);
    for (uint64_t n = 1; n <= calls; n++) {
        drill_again(&d);
        snprintf(when, sizeof when, "class %d, call %llu of %llu, %s", class, (unsigned long long)n,
                 (unsigned long long)calls, error);
        log_run(&d, cuts != 0, class, n, error, when);
        story_read(&d, &s);
        drill_state(&d, &f);
        if (s.wrong[0]) fail_msg("%s (%s): %s", when, f.what, s.wrong);
        if (!s.closed || s.count != RECORDS) fail_msg("%s (%s): it did not end", when, f.what);
        failures += s.failures != 0;
        snprintf(when + strlen(when), sizeof when - strlen(when), " (%.40s)", f.what);
        /* Half of them while it tries again. */
        for (uint32_t i = 0; i < cuts; i++) {
            uint64_t at =
                i % 2 ? random_below(&seed, f.journal + 1) : s.failed + random_below(&seed, AFTERWARDS);
            cut_and_check(&d, &s, at < f.journal ? at : f.journal, random_below(&seed, 1u << 30), when);
        }
        check_log(data, &s, UINT64_MAX, when);
    }
    print_message("%llu calls, %u of them said to have failed\n", (unsigned long long)calls, failures);
    assert_true(failures >= least);
    drill_remove(&d);
}

static void test_every_write_fails_once(void **state)
{
    (void)state;
    every_call_fails(PD_FAULT_WRITE, "5", 0, 30); /* EIO */
}

static void test_every_write_fails_once_and_was_made(void **state)
{
    (void)state;
    every_call_fails(PD_FAULT_WRITE, "5!", 6, 30);
}

/* LMDB writes the old meta page back when the new one fails: here that fails as well, so the failed batch is in the file. */
static void test_every_write_fails_and_the_one_that_takes_it_back(void **state)
{
    (void)state;
    every_call_fails(PD_FAULT_WRITE, "5!*2", 6, 30);
}

static void test_every_sync_fails_once(void **state)
{
    (void)state;
    every_call_fails(PD_FAULT_SYNC, "5", 3, 15);
}

static void test_every_change_of_names_fails_once(void **state)
{
    (void)state;
    every_call_fails(PD_FAULT_RENAME, "5", 2, 4);
}

static void test_every_call_meets_a_full_disk_once(void **state)
{
    (void)state;
    every_call_fails(PD_FAULT_ANY, "28", 0, 60); /* ENOSPC */
}

static void test_every_allocation_fails_once(void **state)
{
    (void)state;
    every_call_fails(PD_FAULT_ALLOC_ANY, "12", 0, 20); /* ENOMEM */
}

static void trouble(const char *verb, const char *class)
{
    drill d;
    char arguments[100];
    drill_make(&d);
    snprintf(arguments, sizeof arguments, "%s %s/data %s", verb, d.folder, class);
    assert_int_equal(drill_run(&d, 0, "", arguments), 0);
    if (shell("cd %s; ! grep -E '^(status|unread|failed)' said && grep -Eq '^refused [1-9][0-9]* failing 1' "
              "said && "
              "grep -q '^then 21 failing 0' said && grep -q '^reopened 21' said",
              d.folder)) {
        shell("tail -8 %s/said", d.folder);
        fail();
    }
    drill_remove(&d);
}

static void test_a_full_disk_is_said_to_be_full_until_there_is_room(void **state)
{
    (void)state;
    trouble("full", "");
}

static void test_a_disk_that_cannot_be_written_is_read(void **state)
{
    (void)state;
    trouble("dead", "2"); /* PD_FAULT_WRITE */
    trouble("dead", "3"); /* PD_FAULT_SYNC */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_power_cut_loses_what_was_acknowledged),
        cmocka_unit_test(test_the_drill_finds_a_log_that_does_not_sync),
        cmocka_unit_test(test_every_write_fails_once),
        cmocka_unit_test(test_every_write_fails_once_and_was_made),
        cmocka_unit_test(test_every_write_fails_and_the_one_that_takes_it_back),
        cmocka_unit_test(test_every_sync_fails_once),
        cmocka_unit_test(test_every_change_of_names_fails_once),
        cmocka_unit_test(test_every_call_meets_a_full_disk_once),
        cmocka_unit_test(test_every_allocation_fails_once),
        cmocka_unit_test(test_a_full_disk_is_said_to_be_full_until_there_is_room),
        cmocka_unit_test(test_a_disk_that_cannot_be_written_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
