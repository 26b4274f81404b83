/* CSV as RFC 4180 has it, and what each kind of bad file is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "csv.h"

static pd_csv *over(const char *text, size_t length)
{
    pd_csv *csv = NULL;
    pd_error err = {0};
    assert_int_equal(pd_csv_from_memory("t.csv", text, length, &csv, &err), PD_OK);
    return csv;
}

/* That text reads as expected: cells in [], records on lines, with the line number of each. */
static void assert_reads(const char *text, const char *expected)
{
    char said[1024] = "";
    size_t used = 0;
    pd_csv *csv = over(text, strlen(text));
    for (;;) {
        char **cells;
        size_t count;
        pd_error err = {0};
        if (pd_csv_next(csv, &cells, &count, &err)) fail_msg("%s", err.message);
        if (count == 0) break;
        used += (size_t)snprintf(said + used, sizeof said - used, "%d:", (int)pd_csv_line(csv));
        for (size_t i = 0; i < count; i++)
            used += (size_t)snprintf(said + used, sizeof said - used, "[%s]", cells[i]);
        used += (size_t)snprintf(said + used, sizeof said - used, "\n");
    }
    pd_csv_close(csv);
    assert_string_equal(said, expected);
}

/* That reading on ends in an error of these words, and goes on doing so. */
static void assert_refused(const char *text, size_t length, const char *words)
{
    pd_csv *csv = over(text, length);
    char **cells;
    size_t count;
    pd_error err = {0};
    do
        if (pd_csv_next(csv, &cells, &count, &err)) break;
    while (count);
    if (err.status != PD_INVALID_ARGUMENT || !strstr(err.message, words) ||
        strncmp(err.message, "t.csv: line ", 12))
        fail_msg("expected \"%s\", got %s: %s", words, pd_status_name(err.status), err.message);
    err.status = PD_OK;
    assert_int_equal(pd_csv_next(csv, &cells, &count, &err), PD_INVALID_ARGUMENT);
    assert_int_equal(err.status, PD_INVALID_ARGUMENT);
    assert_int_equal(count, 0);
    pd_csv_close(csv);
}

static void test_cells_and_lines_come_as_they_stand(void **state)
{
    (void)state;
    assert_reads("", "");
    assert_reads("id,name\n1,chai\n", "1:[id][name]\n2:[1][chai]\n");
    assert_reads("a,b\r\nc,d", "1:[a][b]\n2:[c][d]\n");
    assert_reads("a\rb\r", "1:[a]\n2:[b]\n");
    assert_reads(",\n,,x,", "1:[][]\n2:[][][x][]\n");
    assert_reads(" a , b \n", "1:[ a ][ b ]\n");
}

static void test_quotes_hold_commas_lines_and_quotes(void **state)
{
    (void)state;
    assert_reads("\"a,b\",\"say \"\"hi\"\"\"\n", "1:[a,b][say \"hi\"]\n");
    assert_reads("\"two\nlines\",x\ny\n", "1:[two\nlines][x]\n3:[y]\n");
    assert_reads("\"\"\n\"\",\"\"\n", "1:[]\n2:[][]\n");
    assert_reads("17\" screen,5'\n", "1:[17\" screen][5']\n");
}

static void test_blank_lines_and_a_mark_are_passed_over(void **state)
{
    (void)state;
    assert_reads("\n\r\na\n\n\n", "3:[a]\n");
    assert_reads("\xef\xbb\xbfid\n", "1:[id]\n");
    assert_reads("\xef\xbb\xbf\"id\"\n", "1:[id]\n");
    assert_reads("\xe0\xa4\xaa\xe0\xa4\xa1\xe0\xa4\xbc\xe0\xa5\x8b\xe0\xa4\xb8,\xf0\x9f\x8d\xb5\n",
                 "1:[\xe0\xa4\xaa\xe0\xa4\xa1\xe0\xa4\xbc\xe0\xa5\x8b\xe0\xa4\xb8][\xf0\x9f\x8d\xb5]\n");
}

static void test_bad_records_are_refused_by_line(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t length;
        const char *words;
    } cases[] = {
        {"a\n\"b\nc\n", 7, "line 2: a quote that never closes"},
        {"a\nb\0c\n", 6, "line 2: a NUL byte"},
        {"a\n\"x\nb\0c\"\n", 10, "line 3: a NUL byte"},
        {"\"a\"b\n", 5, "line 1: text behind a closing quote"},
        {"a\n\xff\n", 4, "line 2: bytes that are not UTF-8"},
        {"\"a\n\xff\"\n", 6, "line 2: bytes that are not UTF-8"},
        {"\xc0\x80", 2, "not UTF-8"},
        {"\xed\xa0\x80", 3, "not UTF-8"},
        {"\xe0\x9f\xbf", 3, "not UTF-8"},
        {"\xf4\x90\x80\x80", 4, "not UTF-8"},
        {"\xe2\x82,x", 4, "not UTF-8"},
        {"\xe2\x82", 2, "not UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_refused(cases[i].text, cases[i].length, cases[i].words);
}

static void test_sizes_have_limits(void **state)
{
    (void)state;
    size_t length = (1u << 20) + 100;
    char *text = malloc(length);
    assert_non_null(text);
    memset(text, ',', 4095);
    pd_csv *csv = over(text, 4095);
    char **cells;
    size_t count;
    pd_error err = {0};
    assert_int_equal(pd_csv_next(csv, &cells, &count, &err), PD_OK);
    assert_int_equal(count, 4096);
    pd_csv_close(csv);
    memset(text, ',', 4096);
    assert_refused(text, 4096, "line 1: more than 4096 cells");
    memset(text, 'x', length);
    assert_refused(text, length, "line 1: a record of more than 1 MiB");
    text[0] = '\n';
    text[1] = '"';
    assert_refused(text, length, "line 2: a quote that does not close within 1 MiB");
    csv = over(text + 2, 1000000);
    assert_int_equal(pd_csv_next(csv, &cells, &count, &err), PD_OK);
    assert_int_equal(strlen(cells[0]), 1000000);
    pd_csv_close(csv);
    free(text);
}

static void test_a_file_reads_as_its_bytes_do_across_buffers(void **state)
{
    (void)state;
    char path[] = "/tmp/pados-csv-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    FILE *file = fdopen(fd, "wb");
    assert_non_null(file);
    /* About 1.5 MiB of records of changing length, so that quotes and line ends fall on every side of a buffer. */
    enum { RECORDS = 50000 };
    for (int i = 0; i < RECORDS; i++)
        fprintf(file, "%d,\"%.*s\"\"\nx\",\xc3\xa9\r\n", i, i % 37,
                "0123456789012345678901234567890123456789");
    assert_int_equal(fclose(file), 0);
    pd_csv *csv = NULL;
    pd_error err = {0};
    assert_int_equal(pd_csv_open(path, &csv, &err), PD_OK);
    assert_string_equal(pd_csv_name(csv), path);
    char **cells;
    size_t count;
    for (int i = 0; i < RECORDS; i++) {
        assert_int_equal(pd_csv_next(csv, &cells, &count, &err), PD_OK);
        assert_int_equal(count, 3);
        assert_int_equal(atoi(cells[0]), i);
        assert_int_equal(strlen(cells[1]), i % 37 + 3);
        assert_string_equal(cells[1] + i % 37, "\"\nx");
        assert_string_equal(cells[2], "\xc3\xa9");
        assert_int_equal(pd_csv_line(csv), 2 * i + 1);
    }
    assert_int_equal(pd_csv_next(csv, &cells, &count, &err), PD_OK);
    assert_int_equal(count, 0);
    pd_csv_close(csv);
    unlink(path);
}

static void test_a_file_that_is_not_there_is_named(void **state)
{
    (void)state;
    pd_csv *csv;
    pd_error err = {0};
    assert_int_equal(pd_csv_open("/no/such.csv", &csv, &err), PD_NOT_FOUND);
    assert_non_null(strstr(err.message, "/no/such.csv"));
    assert_null(csv);
    assert_int_equal(pd_csv_open("/tmp", &csv, &err), PD_OK);
    char **cells;
    size_t count;
    assert_int_equal(pd_csv_next(csv, &cells, &count, &err), PD_DATA_LOSS);
    assert_non_null(strstr(err.message, "/tmp: line 1: cannot read"));
    pd_csv_close(csv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cells_and_lines_come_as_they_stand),
        cmocka_unit_test(test_quotes_hold_commas_lines_and_quotes),
        cmocka_unit_test(test_blank_lines_and_a_mark_are_passed_over),
        cmocka_unit_test(test_bad_records_are_refused_by_line),
        cmocka_unit_test(test_sizes_have_limits),
        cmocka_unit_test(test_a_file_reads_as_its_bytes_do_across_buffers),
        cmocka_unit_test(test_a_file_that_is_not_there_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
