/* The built command against the tests' own server: what it prints, what it sends, how it ends. PADOS names the program. */
#include "command_run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ------------------------------------------------------------------------------------------------- usage --- */

static void test_every_command_has_help_with_examples(void **state)
{
    (void)state;
    static const char *const commands[] = {
        "push",   "tables", "table",  "publish",  "rollback", "search",   "profile", "stats",    "hello",
        "upsert", "delete", "update", "feedback", "erase",    "erasures", "export",  "snapshot", "rebuild"};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        RUN(commands[i], "--help");
        char usage[64];
        snprintf(usage, sizeof usage, "usage: pados %s", commands[i]);
        expect(0, usage, NULL);
        expect(0, "examples:\n", NULL);
        expect(0, "exit codes:", NULL);
    }
    RUN("--help");
    expect(0, "commands:", NULL);
    assert_string_equal(last.err, "");
}

static void test_wrong_usage_names_the_argument_and_ends_with_2(void **state)
{
    (void)state;
    static const struct {
        const char *args[6];
        const char *says;
    } cases[] = {
        {{"fly"}, "\"fly\" is not a command"},
        {{"--sideways", "tables"}, "--sideways"},
        {{"search"}, "TABLE"},
        {{"search", "t", "u"}, "\"u\""},
        {{"search", "t", "--k", "ten"}, "--k: \"ten\""},
        {{"search", "t", "--k", "-1"}, "--k: \"-1\""},
        {{"search", "t", "--k=0"}, "--k"},
        {{"search", "t", "--recall", "1.5"}, "--recall"},
        {{"search", "t", "--recall", "nan"}, "--recall"},
        {{"search", "t", "--nprobe", "3", "--exact"}, "only one of them"},
        {{"search", "t", "--id", "1,x"}, "--id: \"x\""},
        {{"search", "t", "--from", "42"}, "--from"},
        {{"search", "t", "--mix", "1"}, "--mix"},
        {{"search", "t", "--filter", "price"}, "--filter"},
        {{"search", "t", "--weight", "brand"}, "--weight"},
        {{"search", "t", "--diversity", "brand:0"}, "--diversity"},
        {{"search", "t", "--context", "festival"}, "--context"},
        {{"search", "t", "--explain=yes"}, "--explain takes no value"},
        {{"search", "t", "--profile"}, "--profile wants a value"},
        {{"publish", "t", "newest"}, "VERSION: \"newest\""},
        {{"profile", "burn"}, "\"burn\""},
        {{"profile", "put"}, "wants a FILE"},
        {{"push", "t", "f.npy", "--format", "parquet"}, "--format"},
        {{"upsert", "t"}, "TABLE FILE"},
        {{"upsert", "t", "f.npy", "--batch", "many"}, "--batch: \"many\""},
        {{"delete", "t"}, "TABLE ID..."},
        {{"delete", "t", "7", "x8"}, "\"x8\" is not an id"},
        {{"delete", "t", "7", "--ids", "f.txt"}, "no other ids"},
        {{"delete", "t", "7", "--batch", "65537"}, "--batch: 65537 rows are more than the 65536"},
        {{"delete", "t", "7", "--key", ""}, "--key"},
        {{"update", "t"}, "TABLE FILE.csv"},
        {{"erase", "t"}, "TABLE ID..."},
        {{"erase", "t", "-1"}, "-1"},
        {{"export", "t", "x"}, "ID: \"x\""},
        {{"snapshot"}, "FOLDER"},
        {{"search", "t", "--at-least", "last"}, "--at-least: \"last\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *const *a = cases[i].args;
        RUN(a[0], a[1], a[2], a[3], a[4], a[5]);
        expect(2, NULL, cases[i].says);
        expect(2, NULL, "pados: INVALID_ARGUMENT: ");
        assert_string_equal(last.out, "");
    }
}

/* ------------------------------------------------------------------------------------------------ search --- */

static void test_a_search_prints_aligned_hits_whose_terms_add_up(void **state)
{
    (void)state;
    const char *titles = write_text("titles.csv", "id,title\n2,\"Rice, 1 kg\"\n1,Barfi\n");
    RUN("search", "products", "--from", "users:42", "--k", "3", "--explain", "--attributes", "department",
        "--titles", titles, "--context", "festival=diwali");
    expect(0, "query 0 (users:42): ivf, 7 lists probed", NULL);
    expect(0, "rank  id     score  title       department\n", NULL);
    expect(0, "   2   2  0.500000  Rice, 1 kg  SWEETS\n", NULL);
    expect(0, "0.500000 = 0.250000 similarity + 0.250000 department SWEETS\n", NULL);
    expect(0, "products version 3, fake", NULL);
    expect(0, NULL, "pados: warning: context key \"moon\" is not known");
}

static void test_json_has_an_object_a_hit_and_a_summary(void **state)
{
    (void)state;
    RUN("--json", "search", "products", "--id", "7,8", "--k", "2", "--explain", "--attributes", "*");
    expect(0, NULL, NULL);
    assert_int_equal(lines(), 5);
    json_t *hit = json_at(3), *summary = json_at(4);
    assert_int_equal(json_integer_value(json_object_get(hit, "query")), 1);
    assert_int_equal(json_integer_value(json_object_get(hit, "rank")), 2);
    assert_int_equal(json_integer_value(json_object_get(hit, "id")), 1002);
    assert_true(json_real_value(json_object_get(hit, "score")) == 0.5);
    assert_string_equal(json_string_value(json_object_get(json_object_get(hit, "attributes"), "department")),
                        "SWEETS");
    assert_int_equal(json_array_size(json_object_get(hit, "terms")), 2);
    assert_true(json_is_true(json_object_get(summary, "summary")));
    assert_int_equal(json_integer_value(json_object_get(summary, "version")), 3);
    assert_string_equal(json_string_value(json_array_get(json_object_get(summary, "path"), 1)), "ivf");
    assert_int_equal(json_integer_value(json_array_get(json_object_get(summary, "nprobe"), 1)), 7);
    assert_true(json_is_false(json_object_get(summary, "complete")));
    assert_int_equal(json_integer_value(json_object_get(json_object_get(summary, "timing"), "total_us")),
                     321);
    json_decref(hit);
    json_decref(summary);
}

static void test_every_argument_of_search_reaches_the_server(void **state)
{
    (void)state;
    RUN("search", "products", "--mix", "17:1,23:-0.5", "--profile", "festive", "--context",
        "festival=diwali,department=HOME, DECOR", "--context", "zone=north", "--weight",
        "department=SWEETS:0.3", "--weight", "similarity:0.5", "--filter", "price<=20", "--filter",
        "zones none a=b|c", "--filter", "brand != 7", "--diversity", "brand:2", "--exclude", "5,6",
        "--min-score", "-1", "--nprobe", "9");
    expect(0, NULL, NULL);
    const fake_seen *seen = fake_look(server);
    const Pados__V1__Search *m = seen->search;
    assert_int_equal(m->n_mixes, 1);
    assert_int_equal(m->mixes[0]->ids[1], 23);
    assert_true(m->mixes[0]->weights[1] == -0.5f);
    assert_string_equal(m->profile, "festive");
    assert_int_equal(m->n_contexts, 1);
    assert_int_equal(m->contexts[0]->n_keys, 3);
    assert_string_equal(m->contexts[0]->values[1], "HOME, DECOR");
    assert_string_equal(m->contexts[0]->keys[2], "zone");
    assert_string_equal(m->overrides[0]->value, "SWEETS");
    assert_string_equal(m->overrides[1]->attribute, "similarity");
    assert_string_equal(m->overrides[1]->value, "");
    assert_int_equal(m->filters[0]->kind, PADOS__V1__CONDITION__KIND__AT_MOST);
    assert_string_equal(m->filters[0]->values[0], "20");
    assert_int_equal(m->filters[1]->kind, PADOS__V1__CONDITION__KIND__NONE_OF);
    assert_string_equal(m->filters[1]->values[0], "a=b");
    assert_string_equal(m->filters[2]->attribute, "brand");
    assert_int_equal(m->filters[2]->kind, PADOS__V1__CONDITION__KIND__IS_NOT);
    assert_string_equal(m->filters[2]->values[0], "7");
    assert_int_equal(m->diversity[0]->at_most, 2);
    assert_int_equal(m->exclude[0]->n_ids, 2);
    assert_true(m->has_min_score && m->min_score == -1);
    assert_int_equal(m->nprobe, 9);
    fake_look_away(server);
}

static void test_a_context_for_each_query_comes_from_a_csv(void **state)
{
    (void)state;
    const char *contexts = write_text("contexts.csv", "festival,zone\ndiwali,north\n,south\n");
    RUN("search", "products", "--id", "1,2", "--contexts", contexts, "--context", "festival=holi");
    expect(0, NULL, NULL);
    const fake_seen *seen = fake_look(server);
    assert_int_equal(seen->search->n_contexts, 2);
    assert_string_equal(seen->search->contexts[0]->values[0], "diwali");
    assert_int_equal(seen->search->contexts[1]->n_keys, 2);
    assert_string_equal(seen->search->contexts[1]->values[1], "holi");
    fake_look_away(server);
    RUN("search", "products", "--id", "1,2,3", "--contexts", contexts);
    expect(3, NULL, "--contexts: 2 queries, where another source has 3");
}

static void test_a_large_file_of_queries_goes_in_batches_into_npy_files(void **state)
{
    (void)state;
    const char *rows = vectors_fvecs(5000), *found = in_folder("found.npy");
    RUN("search", "products", "--query", rows, "--k", "2", "--output", found, "--limit-print", "1");
    expect(0, "5,000 queries in", NULL);
    expect(0, "queries/s", NULL);
    expect(0, "query 0", NULL);
    assert_null(strstr(last.out, "query 1"));
    assert_int_equal(fake_requests(server, PADOS__V1__REQUEST__BODY_SEARCH), 2);
    const fake_seen *seen = fake_look(server);
    assert_int_equal(seen->search->count, 5000 - 4096);
    assert_int_equal(seen->search->vectors->dim, 4);
    assert_int_equal(seen->search->vectors->data.len, (5000 - 4096) * 16);
    fake_look_away(server);
    FILE *file = fopen(found, "rb");
    assert_non_null(file);
    uint64_t ids[2];
    assert_int_equal(fseek(file, -16, SEEK_END), 0);
    assert_int_equal(fread(ids, 8, 2, file), 2);
    assert_int_equal(ftell(file), 128 + 5000 * 2 * 8);
    fclose(file);
    assert_int_equal(ids[1], (5000 - 4096 - 1) * 1000 + 2);
    assert_int_equal(access(in_folder("found.scores.npy"), R_OK), 0);
}

/* ------------------------------------------------------------------------------------------------ errors --- */

static void test_each_failure_has_its_exit_code(void **state)
{
    (void)state;
    fake_mood_set(server, FAKE_FAILS);
    RUN("search", "products");
    expect(4, NULL, "pados: NOT_FOUND: table \"products\" does not exist");
    fake_mood_set(server, FAKE_SILENT);
    RUN("--timeout", "2000", "search", "products");
    expect(5, NULL, "pados: DEADLINE_EXCEEDED: ");
    RUN("--timeout", "200", "--to", "tcp://127.0.0.1:1", "search", "products");
    expect(5, NULL, "pados: UNAVAILABLE: tcp://127.0.0.1:1");
    RUN("--to", "nowhere", "tables");
    expect(3, NULL, "pados: INVALID_ARGUMENT: \"nowhere\"");
    RUN("table", "lamps");
    expect(4, NULL, "pados: NOT_FOUND: there is no such table");
    RUN("push", "products", in_folder("absent.npy"));
    expect(4, NULL, "absent.npy");
    RUN("push", "products", write_text("broken.npy", "\x93NUMPY nonsense"));
    expect(3, NULL, "broken.npy");
    RUN("search", "products", "--k", "5000");
    expect(3, NULL, "k: 5000 is more than the server's 1000");
    RUN("profile", "list");
    expect(1, NULL, "pados: UNIMPLEMENTED: ");
    RUN("--token-file", in_folder("absent"), "tables");
    expect(4, NULL, "--token-file");
}

static void test_the_token_comes_from_its_file_or_the_environment(void **state)
{
    (void)state;
    RUN("--token-file", write_text("token", "sesame \nsecond line\n"), "tables");
    expect(0, NULL, NULL);
    assert_string_equal(fake_look(server)->token, "sesame");
    fake_look_away(server);
    setenv("PADOS_TOKEN", "abracadabra", 1);
    RUN("tables");
    unsetenv("PADOS_TOKEN");
    expect(0, NULL, NULL);
    assert_string_equal(fake_look(server)->token, "abracadabra");
    fake_look_away(server);
    RUN("--token-file", write_text("token", "\n"), "tables");
    expect(3, NULL, "there is no token");
}

/* ------------------------------------------------------------------------------------------- push and more --- */

static void test_a_push_tells_the_format_and_the_version(void **state)
{
    (void)state;
    const char *rows = vectors_fvecs(3), *schema = write_text("t.schema", "table = { metric = \"ip\"; };");
    const char *csv = write_text("prices.csv", "id,price\n10,1\n20,2\n30,3\n"),
               *ids = write_text("ids.txt", "10\n20\n30\n");
    RUN("push", "products", rows, "--ids", ids, "--attributes", csv, "--schema", schema);
    expect(0, "rows.fvecs: fvecs (by extension), 3 rows of 4 x f32, with ids\n", NULL);
    expect(0, "products version 4 is serving\n", NULL);
    const fake_seen *seen = fake_look(server);
    assert_true(seen->published);
    assert_int_equal(seen->rows, 3);
    assert_int_equal(seen->part_bytes[0], 48);
    assert_true(((const float *)(const void *)seen->parts[0])[8] == 2.0f);
    assert_int_equal(((const uint64_t *)(const void *)seen->parts[1])[2], 30);
    assert_string_equal(seen->attributes_name, "prices.csv");
    assert_string_equal(seen->schema, "table = { metric = \"ip\"; };");
    fake_look_away(server);

    RUN("--json", "push", "products", rows, "--no-publish", "--queries", rows);
    expect(0, NULL, "rows.fvecs: fvecs");
    json_t *told = json_at(0);
    assert_int_equal(json_integer_value(json_object_get(told, "version")), 4);
    assert_string_equal(json_string_value(json_object_get(told, "state")), "staged");
    json_decref(told);
    seen = fake_look(server);
    assert_false(seen->published);
    assert_int_equal(seen->part_bytes[1], 0);
    assert_int_equal(seen->part_bytes[3], 48);
    fake_look_away(server);

    RUN("push", "products", rows, "--ids", write_text("ids.txt", "10\n20\n"));
    expect(3, NULL, "has 2 ids for the 3 rows");
    /* An export that failed is not the same as no attributes. */
    RUN("push", "products", rows, "--attributes", write_text("none.csv", ""));
    expect(3, NULL, "none.csv is empty");
    RUN("push", "products", rows, "--schema", write_text("none.schema", ""));
    expect(3, NULL, "none.schema is empty");
}

static void test_tables_and_profiles_are_shown(void **state)
{
    (void)state;
    RUN("tables");
    expect(0, "table     version    rows  dim  metric", NULL);
    expect(0, "products        3  12,345   64  cosine", NULL);
    RUN("--json", "tables");
    json_t *table = json_at(0);
    assert_int_equal(json_integer_value(json_object_get(table, "rows")), 12345);
    assert_int_equal(json_integer_value(json_object_get(table, "changed")), 1234);
    assert_int_equal(json_integer_value(json_object_get(table, "sequence")), FAKE_SEQUENCE);
    assert_string_equal(json_string_value(json_object_get(table, "problem")),
                        "recall 0.93 is under its promise of 0.95");
    json_decref(table);
    RUN("tables");
    expect(0, "1,234        77\n", NULL);
    expect(0, "\n          recall 0.93 is under its promise of 0.95\n", NULL);
    RUN("table", "products");
    expect(0, "serving", NULL);
    RUN("publish", "products", "4");
    expect(0, "products version 4 is serving\n", NULL);
    RUN("publish", "products", "13");
    expect(3, NULL, "row 17, column 3 is not a number");
    RUN("rollback", "products");
    expect(0, "products version 4 is serving\n", NULL);
    RUN("rebuild", "products");
    expect(0, "products version 4 is serving\n", NULL);
    RUN("--json", "rebuild", "broken");
    expect(3, NULL, "row 17, column 3 is not a number");
    RUN("profile", "put", write_text("festive.conf", "profile = { name = \"festive\"; };"));
    expect(0, "profile festive is version 5\n", NULL);
    RUN("profile", "show", "festive");
    expect(0, "profile = {};", NULL);
    RUN("stats");
    expect(0, "pados_searches_total  42\n", NULL);
    RUN("hello");
    expect(0, "fake 1", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SERVER(test_every_command_has_help_with_examples),
        WITH_SERVER(test_wrong_usage_names_the_argument_and_ends_with_2),
        WITH_SERVER(test_a_search_prints_aligned_hits_whose_terms_add_up),
        WITH_SERVER(test_json_has_an_object_a_hit_and_a_summary),
        WITH_SERVER(test_every_argument_of_search_reaches_the_server),
        WITH_SERVER(test_a_context_for_each_query_comes_from_a_csv),
        WITH_SERVER(test_a_large_file_of_queries_goes_in_batches_into_npy_files),
        WITH_SERVER(test_each_failure_has_its_exit_code),
        WITH_SERVER(test_the_token_comes_from_its_file_or_the_environment),
        WITH_SERVER(test_a_push_tells_the_format_and_the_version),
        WITH_SERVER(test_tables_and_profiles_are_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
