/* The commands that change tables: what they read, what they send, and where they say to go on. */
#include "command_run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *numbers_txt(int count)
{
    char *text = calloc((size_t)count + 1, 12);
    assert_non_null(text);
    size_t at = 0;
    for (int i = 0; i < count; i++)
        at += (size_t)sprintf(text + at, "%d\n", i + 1);
    const char *path = write_text("numbers.txt", text);
    free(text);
    return path;
}

static const char *cell(const Pados__V1__AttributeValues *v, size_t row)
{
    assert_true(v->n_text_of > row && v->text_of[row] < v->n_texts);
    return v->texts[v->text_of[row]];
}

/* ------------------------------------------------------------------------------------------------- upsert --- */

static void test_an_upsert_sends_rows_ids_and_attributes(void **state)
{
    (void)state;
    const char *rows = vectors_fvecs(3), *ids = write_text("ids.txt", "10\n18446744073709551614\n30\n");
    const char *csv = write_text("new.csv", "price,id,zones\n3,30,north|south\n1.5,10,\n");
    RUN("upsert", "products", rows, "--ids", ids, "--attributes", csv, "--key", "monday");
    expect(0, "products: 3 of 3 rows written, 1 of them new; sequence 78\n",
           "pados: warning: 1 rows have no line in");
    const Pados__V1__Upsert *m = fake_look_at_changes(server)->last->upsert;
    assert_string_equal(m->table, "products");
    assert_string_equal(m->key, "monday/0+3");
    assert_true(m->ids[1] == UINT64_MAX - 1);
    assert_int_equal(m->vectors->dim, 4);
    assert_int_equal(m->vectors->data.len, 48);
    assert_true(((const float *)(const void *)m->vectors->data.data)[8] == 2.0f);
    assert_int_equal(m->n_attributes, 2);
    assert_string_equal(m->attributes[0]->attribute, "price");
    assert_string_equal(cell(m->attributes[0], 0), "1.5");
    assert_string_equal(cell(m->attributes[0], 1), "");
    assert_string_equal(cell(m->attributes[0], 2), "3");
    assert_string_equal(cell(m->attributes[1], 0), "");
    assert_string_equal(cell(m->attributes[1], 2), "north|south");
    assert_int_equal(m->attributes[1]->n_texts, 2);
    fake_look_away(server);
}

static void test_an_upsert_that_does_not_fit_together_is_refused_before_it_is_sent(void **state)
{
    (void)state;
    const char *rows = vectors_fvecs(3), *ids = write_text("ids.txt", "10\n20\n30\n");
    RUN("upsert", "products", rows);
    expect(2, NULL, "--ids");
    RUN("upsert", "products", rows, "--ids", write_text("short.txt", "10\n20\n"));
    expect(3, NULL, "has 2 ids for the 3 rows");
    RUN("upsert", "products", rows, "--ids", ids, "--attributes",
        write_text("a.csv", "id,price\n10,1\n11,2\n"));
    expect(3, NULL, "a.csv:3: there is no row with id 11");
    RUN("upsert", "products", rows, "--ids", ids, "--attributes",
        write_text("a.csv", "id,price\n10,1\n10,2\n"));
    expect(3, NULL, "a.csv:3: the id 10 had a line before");
    RUN("upsert", "products", rows, "--ids", ids, "--attributes", write_text("a.csv", "id,price\n10,1,2\n"));
    expect(3, NULL, "a.csv:2: 3 cells under 2 columns");
    RUN("upsert", "products", rows, "--ids", ids, "--attributes", write_text("a.csv", "item,price\n10,1\n"));
    expect(3, NULL, "names the column id");
    RUN("upsert", "products", rows, "--ids", ids, "--attributes", write_text("a.csv", "id,price,price\n"));
    expect(3, NULL, "\"price\", which is there twice");
    RUN("upsert", "products", rows, "--ids", write_text("twice.txt", "10\n20\n10\n"), "--attributes",
        write_text("a.csv", "id,price\n10,1\n"));
    expect(3, NULL, "the id 10 is there twice (rows 0 and 2)");
    RUN("upsert", "products", rows, "--ids", ids, "--from", "3");
    expect(3, NULL, "--from: there are only 3 rows");
    assert_int_equal(fake_look_at_changes(server)->count, 0);
    fake_look_away(server);
}

static void test_a_large_file_goes_in_batches_each_with_its_own_texts(void **state)
{
    (void)state;
    enum { ROWS = 10 };
    const char *rows = vectors_fvecs(ROWS), *ids = numbers_txt(ROWS);
    const char *csv = write_text("a.csv", "id,shop\n1,a\n2,b\n3,a\n4,b\n5,c\n6,c\n7,c\n8,c\n9,d\n10,a\n");
    RUN("--json", "upsert", "products", rows, "--ids", ids, "--attributes", csv, "--batch", "4");
    expect(0, NULL, NULL);
    json_t *sum = json_at(0);
    assert_int_equal(json_integer_value(json_object_get(sum, "rows")), ROWS);
    assert_int_equal(json_integer_value(json_object_get(sum, "batches")), 3);
    assert_int_equal(json_integer_value(json_object_get(sum, "sequence")), FAKE_SEQUENCE + 3);
    assert_true(json_is_true(json_object_get(sum, "durable")));
    json_decref(sum);
    const fake_changes *seen = fake_look_at_changes(server);
    assert_int_equal(seen->count, 3);
    assert_true(seen->writes[1].first == 5 && seen->writes[1].rows == 4);
    assert_true(seen->writes[2].first == 9 && seen->writes[2].rows == 2);
    const Pados__V1__Upsert *m = seen->last->upsert;
    assert_true(((const float *)(const void *)m->vectors->data.data)[0] == 8.0f);
    assert_int_equal(m->attributes[0]->n_texts, 2);
    assert_string_equal(cell(m->attributes[0], 0), "d");
    assert_string_equal(cell(m->attributes[0], 1), "a");
    fake_look_away(server);
}

static void test_a_batch_is_as_small_as_the_server_wants_it(void **state)
{
    (void)state;
    fake_limits_set(server, 0, 0, 4096);
    RUN("upsert", "products", vectors_fvecs(1000), "--ids", numbers_txt(1000));
    expect(0, "1,000 rows written", NULL);
    const fake_changes *seen = fake_look_at_changes(server);
    assert_int_equal(seen->writes[0].rows, 4096 / 2 / (16 + 8));
    assert_true(seen->count > 10);
    fake_look_away(server);
}

/* ------------------------------------------------------------------------------------------------ going on --- */

static void test_an_error_says_which_rows_and_where_to_go_on(void **state)
{
    (void)state;
    const char *rows = vectors_fvecs(10), *ids = numbers_txt(10);
    fake_break_writes(server, 0, false, 0, 2);
    RUN("upsert", "products", rows, "--ids", ids, "--batch", "4", "--key", "monday");
    expect(3, NULL, "pados: INVALID_ARGUMENT: rows 4 to 7 (batch 2): ids[1]: the id 2 is there twice\n");
    expect(3, NULL, "4 rows before that are written; go on with --from 4 --batch 4 --key monday\n");
    assert_string_equal(last.out, "");
    RUN("upsert", "products", rows, "--ids", ids, "--batch", "4", "--key", "monday", "--from", "4");
    expect(0, "products: 6 of 6 rows written", NULL);
    const fake_changes *seen = fake_look_at_changes(server);
    assert_int_equal(seen->count, 4);
    assert_true(seen->writes[2].first == 5);
    assert_string_equal(seen->writes[1].key, seen->writes[2].key);
    fake_look_away(server);
    /* The whole run once more under its key: nothing is done twice. */
    RUN("upsert", "products", rows, "--ids", ids, "--batch", "4", "--key", "monday");
    expect(0, "3 of 3 batches had been written before under the key monday\n", NULL);
    assert_int_equal(fake_look_at_changes(server)->done, 3);
    fake_look_away(server);
}

static void test_a_write_left_open_names_the_key_to_ask_again_with(void **state)
{
    (void)state;
    fake_break_writes(server, 0, false, 1000, 0);
    RUN("--timeout", "300", "delete", "products", "7");
    expect(5, NULL, "whether the write was done is not known");
    expect(5, NULL, "go on with --from 0 --batch 4096 --key ");
}

static void test_a_broken_connection_goes_unnoticed(void **state)
{
    (void)state;
    fake_break_writes(server, 1, true, 1, 0);
    RUN("delete", "products", "--ids", numbers_txt(3));
    expect(0, "products: 3 of 3 rows deleted; sequence 78\n", NULL);
    assert_int_equal(fake_look_at_changes(server)->done, 1);
    fake_look_away(server);
}

/* --------------------------------------------------------------------------------- delete, update, feedback --- */

static void test_a_delete_counts_what_is_not_there(void **state)
{
    (void)state;
    RUN("delete", "products", "7", "404", "9");
    expect(0, "products: 2 of 3 rows deleted, 1 not there; sequence 78\n", NULL);
    const Pados__V1__Delete *m = fake_look_at_changes(server)->last->delete_;
    assert_int_equal(m->n_ids, 3);
    assert_int_equal(m->ids[2], 9);
    fake_look_away(server);
}

static void test_an_update_sends_the_columns_of_a_csv(void **state)
{
    (void)state;
    const char *csv = write_text("prices.csv", "id,price,title\n1,5,\"Rice, 1 kg\"\n2,,Barfi\n3,5,\n");
    RUN("update", "products", csv, "--batch", "2");
    expect(0, "products: 3 of 3 rows updated; sequence 79\n", NULL);
    const fake_changes *seen = fake_look_at_changes(server);
    assert_int_equal(seen->count, 2);
    const Pados__V1__Update *m = seen->last->update;
    assert_int_equal(m->ids[0], 3);
    assert_string_equal(cell(m->attributes[0], 0), "5");
    assert_string_equal(cell(m->attributes[1], 0), "");
    assert_int_equal(m->attributes[1]->n_texts, 1);
    fake_look_away(server);
    RUN("update", "products", csv, "--from", "1");
    expect(0, "2 of 2 rows", NULL);
    m = fake_look_at_changes(server)->last->update;
    assert_int_equal(m->ids[0], 2);
    assert_string_equal(cell(m->attributes[0], 0), "");
    assert_string_equal(cell(m->attributes[1], 0), "Barfi");
    fake_look_away(server);
    RUN("update", "products", csv, "--from", "4");
    expect(3, NULL, "--from: ");
    RUN("update", "products", write_text("none.csv", "id,price\n"));
    expect(3, NULL, "there are no rows in it");
    RUN("update", "products", write_text("none.csv", "id\n7\n"));
    expect(3, NULL, "names no attribute");
    RUN("update", "products", write_text("bad.csv", "id,price\n1,5\nseven,5\n"), "--batch", "1");
    expect(3, NULL, "bad.csv:3: \"seven\" is not an id");
    expect(3, NULL, "1 rows before that are updated; go on with --from 1 --batch 1");
    RUN("update", "products", in_folder("absent.csv"));
    expect(4, NULL, "absent.csv");
}

static void test_feedback_takes_users_events_and_weights_where_they_are(void **state)
{
    (void)state;
    const char *csv = write_text(
        "clicks.csv", "event,item,weight,user\nview,5,,42\nbuy,5,2.5,42\nview,6,1,18446744073709551615\n");
    RUN("feedback", "products", csv, "--attribute", "trending");
    expect(0, "products: 3 of 3 rows counted; sequence 78\n", NULL);
    const Pados__V1__Feedback *m = fake_look_at_changes(server)->last->feedback;
    assert_int_equal(m->n_items, 3);
    assert_int_equal(m->items[2], 6);
    assert_true(m->users[2] == UINT64_MAX);
    assert_true(m->weights[0] == 1 && m->weights[1] == 2.5f);
    assert_int_equal(m->n_events, 2);
    assert_string_equal(m->events[m->event_of[1]], "buy");
    assert_string_equal(m->attribute, "trending");
    fake_look_away(server);
    RUN("feedback", "products", write_text("items.csv", "item\n5\n5\n"));
    expect(0, "2 of 2 rows counted", NULL);
    m = fake_look_at_changes(server)->last->feedback;
    assert_int_equal(m->n_users + m->n_weights + m->n_events, 0);
    fake_look_away(server);
    RUN("feedback", "products", write_text("bad.csv", "item,colour\n5,red\n"));
    expect(3, NULL, "\"colour\" is none of item, user, event and weight");
    RUN("feedback", "products", write_text("bad.csv", "item,weight\n5,1\n6,heavy\n"));
    expect(3, NULL, "bad.csv:3: weight: \"heavy\" is not a number");
    RUN("feedback", "products", write_text("bad.csv", "item,user\n5,\n"));
    expect(3, NULL, "bad.csv:2: user: \"\" is not an id");
    RUN("feedback", "products", write_text("bad.csv", "item,event\n5,\n"));
    expect(3, NULL, "bad.csv:2: event: \"\" is not the name of an event");
}

static void test_a_search_waits_for_a_write(void **state)
{
    (void)state;
    RUN("--json", "search", "products", "--id", "7", "--k", "1", "--at-least", "1000");
    expect(0, NULL, NULL);
    json_t *summary = json_at(1);
    assert_int_equal(json_integer_value(json_object_get(summary, "sequence")), 1000);
    json_decref(summary);
    assert_true(fake_look(server)->search->at_least == 1000);
    fake_look_away(server);
}

/* -------------------------------------------------------------------------------- erasures, exports, snapshots --- */

static void test_erasures_print_their_receipts(void **state)
{
    (void)state;
    RUN("erasures");
    expect(0, "nothing has been erased\n", NULL);
    RUN("erase", "products", "8");
    expect(0, "receipt  table     id  asked", NULL);
    expect(0,
           "1  products   8  2026-11-27T10:00:00Z  2026-12-27T10:00:00Z  2026-11-27T10:00:01Z  memory, log",
           NULL);
    RUN("erasures", "--pending");
    expect(0, "no erasure is pending\n", NULL);
    RUN("--json", "erase", "products", "7", "9");
    expect(0, NULL, NULL);
    assert_int_equal(lines(), 2);
    json_t *receipt = json_at(0);
    assert_int_equal(json_integer_value(json_object_get(receipt, "id")), 7);
    assert_string_equal(json_string_value(json_array_get(json_object_get(receipt, "pending"), 0)),
                        "version 3");
    json_decref(receipt);
    RUN("erasures", "--pending");
    expect(0, "not yet   memory, log  version 3\n", NULL);
    RUN("--json", "erasures");
    assert_int_equal(lines(), 3);
}

static void test_an_export_is_printed_as_json(void **state)
{
    (void)state;
    RUN("export", "products", "7");
    expect(0, "{\n  \"id\": 7,\n  \"price\": 5\n}\n", NULL);
    RUN("--json", "export", "products", "7");
    expect(0, "{\"id\":7,\"price\":5}\n", NULL);
    RUN("export", "products", "404");
    expect(4, NULL, "there is no row with id 404");
    /* More than a reader of JSON has room for: as it came. */
    RUN("export", "products", "18446744073709551614");
    expect(0, "{\"id\": 18446744073709551614, \"price\": 5}\n", NULL);
}

static void test_a_snapshot_says_what_is_in_it(void **state)
{
    (void)state;
    RUN("snapshot", "/backup/today");
    expect(0, "/backup/today: 2 tables, 3.0 MiB, as of sequence 77, in 1.5 s\n", NULL);
    assert_true(fake_look(server)->deadline_ms > 10000);
    fake_look_away(server);
    RUN("--json", "snapshot", "/backup/today");
    expect(1, NULL, "pados: ALREADY_EXISTS: the folder is there already");
    RUN("--json", "snapshot", "/backup/tomorrow");
    json_t *made = json_at(0);
    assert_int_equal(json_integer_value(json_object_get(made, "bytes")), 3 << 20);
    json_decref(made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SERVER(test_an_upsert_sends_rows_ids_and_attributes),
        WITH_SERVER(test_an_upsert_that_does_not_fit_together_is_refused_before_it_is_sent),
        WITH_SERVER(test_a_large_file_goes_in_batches_each_with_its_own_texts),
        WITH_SERVER(test_a_batch_is_as_small_as_the_server_wants_it),
        WITH_SERVER(test_an_error_says_which_rows_and_where_to_go_on),
        WITH_SERVER(test_a_write_left_open_names_the_key_to_ask_again_with),
        WITH_SERVER(test_a_broken_connection_goes_unnoticed),
        WITH_SERVER(test_a_delete_counts_what_is_not_there),
        WITH_SERVER(test_an_update_sends_the_columns_of_a_csv),
        WITH_SERVER(test_feedback_takes_users_events_and_weights_where_they_are),
        WITH_SERVER(test_a_search_waits_for_a_write),
        WITH_SERVER(test_erasures_print_their_receipts),
        WITH_SERVER(test_an_export_is_printed_as_json),
        WITH_SERVER(test_a_snapshot_says_what_is_in_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
