/* What the store's tests share: a temporary folder, clustered rows, a device, a version built in one call. */
#ifndef PD_TEST_STORE_FILES_H
#define PD_TEST_STORE_FILES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "build.h"
#include "calibrate.h"
#include "random.h"
#include "resident.h"
#include "score.h"

#define TODAY 20000.0 /* days since 1970: builds in tests happen then */

static inline void ok(pd_status status, const pd_error *err)
{
    if (status) fail_msg("%s: %s", pd_status_name(status), err->message);
}

static inline void folder_make(char *folder)
{
    strcpy(folder, "/tmp/pados-store-XXXXXX");
    assert_non_null(mkdtemp(folder));
}

static inline void folder_drop(const char *folder)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
}

static inline const char *path_in(const char *folder, const char *name)
{
    static char paths[8][640];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static inline void file_write(const char *path, const char *text)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
}

static inline pd_device *device_make(const char *backend, uint64_t memory)
{
    pd_error err;
    pd_device *device = NULL;
    ok(pd_device_open(backend, &(pd_device_options){.memory = memory, .threads = 2}, &device, &err), &err);
    return device;
}

static inline pd_schema *schema_make(const char *text)
{
    pd_error err;
    pd_schema *schema = NULL;
    ok(pd_schema_parse("schema", text, strlen(text), &schema, &err), &err);
    return schema;
}

/* rows: [n][dim] around `centres` random centres, the same from the same seed; row i belongs to centre i % centres. */
static inline float *rows_make(uint32_t n, uint32_t dim, uint32_t centres, uint64_t seed)
{
    float *rows = malloc((size_t)n * dim * sizeof *rows + 4),
          *middle = malloc((size_t)centres * dim * sizeof *middle);
    assert_non_null(rows);
    assert_non_null(middle);
    uint64_t state =
        99; /* centres do not depend on the seed: queries of another seed come from the same place */
    for (uint32_t i = 0; i < centres * dim; i++)
        middle[i] = pd_random_normal(&state);
    state = seed;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t d = 0; d < dim; d++)
            rows[(size_t)i * dim + d] = middle[(i % centres) * dim + d] + 0.7f * pd_random_normal(&state);
    free(middle);
    return rows;
}

static inline pd_build_input input_make(const pd_schema *schema, const float *rows, uint64_t n, uint32_t dim)
{
    return (pd_build_input){.table = "things",
                            .version = 7,
                            .rows = rows,
                            .dtype = PD_DTYPE_F32,
                            .count = n,
                            .dim = dim,
                            .schema = schema,
                            .seed = 5,
                            .now = TODAY};
}

static inline void *file_bytes(const char *path, size_t *length)
{
    FILE *file = fopen(path, "rb");
    if (!file) fail_msg("%s is not there", path);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    *length = (size_t)ftell(file);
    rewind(file);
    char *bytes = malloc(*length + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *length, file), *length);
    bytes[*length] = 0;
    fclose(file);
    return bytes;
}

#endif
