/* Files for the readers' tests: a folder of their own, and bytes put into it. */
#ifndef PD_TESTS_READER_FILES_H
#define PD_TESTS_READER_FILES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "reader.h"

static char folder[64];

/* The name of a file in the folder; four live at once. */
static inline const char *in_folder(const char *name)
{
    static char paths[4][256];
    static int turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static inline int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/pados-readers-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static inline int remove_folder(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

static inline const char *put_file(const char *name, const void *bytes, size_t length)
{
    const char *path = in_folder(name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
    return path;
}

static inline void assert_says(const pd_error *err, pd_status status, const char *words)
{
    if (err->status != status || !strstr(err->message, words))
        fail_msg("expected %s with \"%s\", got %s: %s", pd_status_name(status), words,
                 pd_status_name(err->status), err->message);
}

static inline pd_reader *open_good(const char *path, pd_format format)
{
    pd_reader *reader = NULL;
    pd_error err = {0};
    if (pd_reader_open(path, format, &reader, &err)) fail_msg("%s", err.message);
    return reader;
}

static inline void assert_refused(const char *path, pd_format format, pd_status status, const char *words)
{
    pd_reader *reader = NULL;
    pd_error err = {0};
    assert_int_equal(pd_reader_open(path, format, &reader, &err), status);
    assert_null(reader);
    assert_says(&err, status, words);
}

/* That reading it all at once gives expected, and so does reading it in pieces of 1, 3 and 7 rows. */
static inline void assert_rows(pd_reader *reader, uint64_t rows, uint32_t dim, const float *expected)
{
    pd_reader_info info;
    pd_reader_info_of(reader, &info);
    assert_int_equal(info.rows, rows);
    assert_int_equal(info.dim, dim);
    pd_error err = {0};
    float *got_rows = calloc(rows * dim + 1, sizeof *got_rows);
    assert_non_null(got_rows);
    for (uint64_t step = 1; step <= rows + 8; step += step < 7 ? 2 : rows) {
        uint64_t done = 0, got;
        memset(got_rows, 0xee, rows * dim * sizeof *got_rows);
        assert_int_equal(pd_reader_rewind(reader, &err), PD_OK);
        do {
            if (pd_reader_read_f32(reader, step, got_rows + done * dim, &got, &err))
                fail_msg("%s", err.message);
            assert_true(got <= step);
            done += got;
        } while (got);
        assert_int_equal(done, rows);
        assert_memory_equal(got_rows, expected, rows * dim * sizeof *expected);
    }
    free(got_rows);
}

#endif
