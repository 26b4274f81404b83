/* The CSV reader over arbitrary bytes. What is read must be UTF-8 without NUL, within its limits, and, written out
 * again with every cell in quotes, must read as the same cells. */
#include "fuzz_seeds.h"

#include <stdlib.h>
#include <string.h>

#include "csv.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const char *const seeds[] = {
        "id,name\n1,chai\n2,\"a,b\"\n",
        "\xef\xbb\xbf;a;b\r\n\r\n\"say \"\"hi\"\"\"\r\n",
        "\"two\nlines\",,x\n\"open\n",
        "\xe0\xa4\xaa,\xf0\x9f\x8d\xb5\n\xff\n",
    };
    for (size_t i = 0; i < sizeof seeds / sizeof seeds[0]; i++) {
        char name[2] = {(char)('a' + i), 0};
        fuzz_seed(*argc, *argv, name, seeds[i], strlen(seeds[i]));
    }
    return 0;
}

/* Appends a cell in quotes; text has room for it. */
static size_t quote(char *text, const char *cell)
{
    size_t length = 0;
    text[length++] = '"';
    for (; *cell; cell++) {
        text[length++] = *cell;
        if (*cell == '"') text[length++] = '"';
    }
    text[length++] = '"';
    return length;
}

static void read_back(char *const *cells, size_t count)
{
    size_t room = 2;
    for (size_t i = 0; i < count; i++)
        room += 2 * strlen(cells[i]) + 3;
    char *text = malloc(room);
    if (!text) abort();
    size_t length = 0;
    for (size_t i = 0; i < count; i++) {
        length += quote(text + length, cells[i]);
        text[length++] = i + 1 < count ? ',' : '\n';
    }
    pd_csv *csv;
    pd_error err;
    char **again;
    size_t again_count;
    if (pd_csv_from_memory("again", text, length, &csv, &err) || pd_csv_next(csv, &again, &again_count, &err))
        abort();
    if (again_count != count) abort();
    for (size_t i = 0; i < count; i++)
        if (strcmp(again[i], cells[i]) != 0) abort();
    pd_csv_close(csv);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pd_csv *csv;
    pd_error err = {0};
    if (pd_csv_from_memory("fuzz", (const char *)data, size, &csv, &err)) abort();
    uint64_t line = 0;
    for (;;) {
        char **cells;
        size_t count;
        pd_status status = pd_csv_next(csv, &cells, &count, &err);
        if (status && (count || err.status != status || strncmp(err.message, "fuzz: line ", 11) != 0))
            abort();
        if (count == 0) break;
        if (count > 4096 || pd_csv_line(csv) <= line) abort();
        line = pd_csv_line(csv);
        read_back(cells, count);
    }
    pd_csv_close(csv);
    return 0;
}
