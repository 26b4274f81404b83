/* Attributes: a CSV joined to the rows by id, and what makes a schema complete.
 *
 * The CSV's rows come in any order and need not cover every row; a row without a line is unknown in everything. Values
 * get their numbers in the order in which they are met, so that the same file gives the same dictionary.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "build_impl.h"
#include "csv.h"

#define CHOSEN_KNOTS 31u
#define TICK_ROWS    8192u
#define OLDEST_AGE   7305.0f /* days: 20 years */

/* ------------------------------------------------------------------------------------------------ cells --- */

static int parse_u64(const char *cell, uint64_t *value)
{
    uint64_t number = 0;
    if (!*cell) return 0;
    for (; *cell; cell++) {
        if (*cell < '0' || *cell > '9') return 0;
        if (__builtin_mul_overflow(number, 10u, &number) ||
            __builtin_add_overflow(number, (uint64_t)(*cell - '0'), &number))
            return 0;
    }
    *value = number;
    return 1;
}

static pd_status set_cell(pd_builder *b, pd_attribute *attribute, uint64_t row, char *cell, pd_error *err)
{
    uint64_t mask = 0;
    char *rest = NULL;
    for (char *name = strtok_r(cell, "|", &rest); name; name = strtok_r(NULL, "|", &rest)) {
        uint32_t member = 0;
        pd_status status = pd_attribute_intern(attribute, name, &member, err);
        if (status) return status;
        mask |= 1ull << member;
    }
    for (uint32_t j = 0; j < 8; j++)
        b->bytes[(size_t)(attribute->byte_column + j) * b->count + row] = (uint8_t)(mask >> (8 * j));
    return PD_OK;
}

static pd_status put_cell(pd_builder *b, pd_attribute *attribute, uint64_t row, char *cell, pd_error *err)
{
    if (!*cell) return PD_OK; /* unknown */
    pd_status status = PD_OK;
    switch (attribute->type) {
    case PD_CATEGORY: {
        uint32_t value = 0;
        status = pd_attribute_intern(attribute, cell, &value, err);
        if (!status) b->bytes[(size_t)attribute->byte_column * b->count + row] = (uint8_t)value;
        break;
    }
    case PD_NUMBER:
        status = pd_attribute_number(attribute, cell,
                                     &b->floats[(size_t)attribute->float_column * b->count + row], err);
        break;
    case PD_SET:
        status = set_cell(b, attribute, row, cell, err);
        break;
    case PD_KEY:
        if (!parse_u64(cell, &b->keys[(size_t)attribute->key_column * b->count + row]))
            status = pd_fail(err, PD_INVALID_ARGUMENT,
                             "\"%.64s\" is not a key: a whole number from 0 to 2^64 - 1", cell);
        break;
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ the join --- */

typedef struct join {
    pd_builder *b;
    pd_csv *csv;
    uint32_t columns;
    pd_attribute *of[PD_MAX_ATTRIBUTES + 1]; /* by CSV column; 0 is the id */
    uint8_t *seen;                           /* a bit for each row */
} join;

static pd_status read_header(join *j, pd_error *err)
{
    char **cells;
    size_t count = 0;
    pd_status status = pd_csv_next(j->csv, &cells, &count, err);
    if (status) return status;
    const char *name = pd_csv_name(j->csv);
    if (count == 0)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s is empty; a header id,NAME,... was expected", name);
    if (strcmp(cells[0], "id") != 0)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s:1: the first column is \"%.64s\", not \"id\"", name,
                       cells[0]);
    if (count > PD_MAX_ATTRIBUTES + 1)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s:1: %zu columns are more than a table has attributes",
                       name, count);
    for (size_t i = 1; i < count; i++) {
        const pd_attribute *found = pd_schema_find(j->b->schema, cells[i]);
        if (!found)
            return pd_fail(err, PD_INVALID_ARGUMENT,
                           "%s:1: column \"%.64s\" is not an attribute of the table", name, cells[i]);
        j->of[i] = &j->b->schema->attributes[found - j->b->schema->attributes];
        for (size_t k = 1; k < i; k++)
            if (j->of[k] == j->of[i])
                return pd_fail(err, PD_INVALID_ARGUMENT, "%s:1: column \"%.64s\" is there twice", name,
                               cells[i]);
    }
    j->columns = (uint32_t)count;
    return PD_OK;
}

/* The row that a line is for, each at most once. */
static pd_status find_row(join *j, const char *cell, uint64_t *row, pd_error *err)
{
    const char *name = pd_csv_name(j->csv);
    unsigned long long line = pd_csv_line(j->csv);
    uint64_t id = 0;
    if (!parse_u64(cell, &id))
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s:%llu: \"%.64s\" is not a row id", name, line, cell);
    if (j->b->in->ids) {
        uint32_t found = pd_idmap_get(&j->b->rows_of, id);
        *row = found == PD_IDMAP_NONE ? j->b->count : found;
    } else {
        *row = id;
    }
    if (*row >= j->b->count)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s:%llu: there is no row with id %llu", name, line,
                       (unsigned long long)id);
    uint8_t bit = (uint8_t)(1u << (*row % 8));
    if (j->seen[*row / 8] & bit)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s:%llu: id %llu is there twice", name, line,
                       (unsigned long long)id);
    j->seen[*row / 8] |= bit;
    return PD_OK;
}

static pd_status read_lines(join *j, pd_error *err)
{
    for (uint64_t lines = 0;; lines++) {
        char **cells;
        size_t count = 0;
        pd_status status = pd_csv_next(j->csv, &cells, &count, err);
        if (!status && lines % TICK_ROWS == 0)
            status = pd_builder_tick(j->b, "attributes", lines, j->b->count, err);
        if (!status && count == 0 && lines == 0 && j->b->count)
            status = pd_fail(err, PD_INVALID_ARGUMENT, "%s has a header and no line for any row",
                             pd_csv_name(j->csv));
        if (!status && count == 0 && j->b->in->unlisted) *j->b->in->unlisted = j->b->count - lines;
        if (status || count == 0) return status;
        const char *name = pd_csv_name(j->csv);
        unsigned long long line = pd_csv_line(j->csv);
        if (count != j->columns)
            return pd_fail(err, PD_INVALID_ARGUMENT, "%s:%llu: %zu cells where the header has %u", name, line,
                           count, j->columns);
        uint64_t row = 0;
        status = find_row(j, cells[0], &row, err);
        if (status) return status;
        for (uint32_t i = 1; i < j->columns; i++) {
            status = put_cell(j->b, j->of[i], row, cells[i], err);
            if (!status) continue;
            pd_prefix(err, "%s:%llu: column \"%s\"", name, line, j->of[i]->name);
            return status;
        }
    }
}

static pd_status join_file(join *j, pd_error *err)
{
    pd_status status = read_header(j, err);
    return status ? status : read_lines(j, err);
}

/* The file is mapped and read under the caller's name for it, so that messages do not speak of staging folders. */
static pd_status read_csv(pd_builder *b, pd_error *err)
{
    const char *path = b->in->attributes;
    const char *name = b->in->attributes_name ? b->in->attributes_name : path;
    join j = {.b = b};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return pd_fail_errno(err, "open", path);
    pd_status status = PD_OK;
    struct stat about;
    void *bytes = NULL;
    size_t length = 0;
    if (fstat(fd, &about) != 0) {
        status = pd_fail_errno(err, "look at", path);
        goto err_after_open;
    }
    length = (size_t)about.st_size;
    if (length) {
        bytes = mmap(NULL, length, PROT_READ, MAP_PRIVATE, fd, 0);
        if (bytes == MAP_FAILED) {
            status = pd_fail_errno(err, "map", path);
            goto err_after_open;
        }
    }
    status = pd_csv_from_memory(name, bytes ? bytes : "", length, &j.csv, err);
    if (status) goto err_after_map;
    j.seen = calloc(b->count / 8 + 1, 1);
    status =
        j.seen ? join_file(&j, err) : pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the attributes");
    free(j.seen);
    pd_csv_close(j.csv);
err_after_map:
    if (bytes) munmap(bytes, length);
err_after_open:
    close(fd);
    return status;
}

/* ------------------------------------------------------------------------------------------------ knots --- */

static int by_value(const void *left, const void *right)
{
    float l = *(const float *)left, r = *(const float *)right;
    return (l > r) - (l < r);
}

/* Knots at quantiles; where there are few distinct values, one bucket for each. */
static pd_status choose_knots(const pd_builder *b, pd_attribute *attribute, pd_error *err)
{
    const float *column = b->floats + (size_t)attribute->float_column * b->count;
    uint64_t most = 1u << 20, step = b->count / most + 1, n = 0;
    float *values = malloc((b->count / step + 1) * sizeof *values);
    if (!values)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the knots of \"%s\"", attribute->name);
    for (uint64_t row = 0; row < b->count; row += step)
        if (!isnan(column[row])) values[n++] = column[row];
    qsort(values, n, sizeof *values, by_value);
    uint64_t distinct = n > 0;
    for (uint64_t i = 1; i < n; i++)
        distinct += values[i] != values[i - 1];
    attribute->nknots = 0;
    if (distinct > CHOSEN_KNOTS + 1) {
        for (uint32_t q = 1; q <= CHOSEN_KNOTS; q++) {
            float knot = values[q * n / (CHOSEN_KNOTS + 1)];
            float last = attribute->nknots ? attribute->knots[attribute->nknots - 1] : values[0];
            if (knot > last) attribute->knots[attribute->nknots++] = knot;
        }
    } else {
        for (uint64_t i = 1; i < n; i++)
            if (values[i] != values[i - 1]) attribute->knots[attribute->nknots++] = values[i];
    }
    free(values);
    return PD_OK;
}

/* Declared knots of an age may be ages; the complete schema has days since 1970, and remembers that they were ages: the table's
 * next version moves them on to its own day. Dates stay where they are: nothing that is sold is older than twenty years,
 * and no day after 1990 is a smaller number. */
static void turn_ages(const pd_builder *b, pd_attribute *attribute)
{
    float on = attribute->ages_on;
    for (uint32_t i = 0; on > 0 && i < attribute->nknots; i++)
        attribute->knots[i] = (float)(b->now - (double)(on - attribute->knots[i]));
    if (on > 0) attribute->ages_on = (float)b->now;
    if (attribute->knots[attribute->nknots - 1] >= OLDEST_AGE) return;
    attribute->ages_on = (float)b->now;
    float days[PD_MAX_KNOTS];
    uint32_t n = attribute->nknots;
    for (uint32_t i = 0; i < n; i++)
        days[i] = (float)(b->now - (double)attribute->knots[n - 1 - i]);
    memcpy(attribute->knots, days, n * sizeof *days);
}

/* Buckets of every row, and each bucket's mean; an empty bucket stands for its middle, an outer one for its edge. */
static void fill_buckets(pd_builder *b, pd_attribute *attribute)
{
    const float *column = b->floats + (size_t)attribute->float_column * b->count;
    uint8_t *buckets = b->bytes + (size_t)attribute->byte_column * b->count;
    double sum[PD_MAX_KNOTS + 2] = {0};
    uint64_t count[PD_MAX_KNOTS + 2] = {0};
    for (uint64_t row = 0; row < b->count; row++) {
        uint8_t bucket = pd_attribute_bucket(attribute, column[row]);
        buckets[row] = bucket;
        count[bucket]++;
        if (bucket) sum[bucket] += (double)column[row];
    }
    uint32_t n = attribute->nknots;
    const float *knots = attribute->knots;
    for (uint32_t bucket = 1; bucket <= n + 1; bucket++) {
        float *out = &attribute->representatives[bucket];
        if (count[bucket])
            *out = (float)(sum[bucket] / (double)count[bucket]);
        else if (n == 0)
            *out = 0.0f;
        else if (bucket == 1)
            *out = knots[0];
        else if (bucket == n + 1)
            *out = knots[n - 1];
        else
            *out = knots[bucket - 2] + (knots[bucket - 1] - knots[bucket - 2]) / 2;
    }
}

static pd_status complete(pd_builder *b, pd_error *err)
{
    for (uint32_t i = 0; i < b->schema->nattributes; i++) {
        pd_attribute *attribute = &b->schema->attributes[i];
        if (attribute->type != PD_NUMBER) continue;
        if (attribute->nknots == 0 || attribute->chosen) {
            pd_status status = choose_knots(b, attribute, err);
            if (status) return status;
            attribute->chosen = 1;
        } else if (attribute->age) {
            turn_ages(b, attribute);
        }
        fill_buckets(b, attribute);
    }
    return PD_OK;
}

pd_status pd_builder_columns(pd_builder *b, pd_error *err)
{
    const pd_schema *s = b->schema;
    /* One more than needed, so that no size is zero. */
    b->bytes = calloc((size_t)s->nbytes * b->count + 1, 1);
    b->floats = malloc(((size_t)s->nfloats * b->count + 1) * sizeof *b->floats);
    b->keys = calloc((size_t)s->nkeys * b->count + 1, sizeof *b->keys);
    if (!b->bytes || !b->floats || !b->keys)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the attributes of %llu rows",
                       (unsigned long long)b->count);
    for (uint64_t i = 0; i < (uint64_t)s->nfloats * b->count; i++)
        b->floats[i] = NAN;
    pd_status status = PD_OK;
    if (b->in->attributes) status = read_csv(b, err);
    if (pd_builder_has_columns(b->in)) status = pd_builder_given(b, err);
    return status ? status : complete(b, err);
}
