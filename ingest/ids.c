/* Row ids from a file: a .npy of 64-bit integers, or text with one number a line.
 *
 * Told by content: a .npy begins with its magic, and no number does. Text is strict, since an id that is read wrong
 * points at the wrong product for ever: digits and nothing else, a blank around them and a final newline excepted.
 */
#include "reader.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct id_list {
    uint64_t *ids;
    uint64_t count;
    uint64_t room;
} id_list;

static pd_status append(id_list *list, uint64_t id, const char *path, pd_error *err)
{
    if (list->count == list->room) {
        uint64_t room = list->room ? list->room * 2 : 4096;
        uint64_t *ids = realloc(list->ids, room * sizeof *ids);
        if (!ids) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory for %" PRIu64 " ids", path, room);
        list->ids = ids;
        list->room = room;
    }
    list->ids[list->count++] = id;
    return PD_OK;
}

/* The number in text, or 0 when it is not one that a u64 holds. */
static int parse_id(const char *text, uint64_t *id)
{
    if (!*text) return 0;
    for (*id = 0; *text; text++) {
        if (*text < '0' || *text > '9') return 0;
        if (__builtin_mul_overflow(*id, 10u, id) || __builtin_add_overflow(*id, (uint64_t)(*text - '0'), id))
            return 0;
    }
    return 1;
}

static pd_status refuse_line(const char *path, uint64_t line, char *text, pd_error *err)
{
    int minus = text[0] == '-';
    for (unsigned char *c = (unsigned char *)text; *c; c++)
        if (*c < 0x20 || *c > 0x7e) *c = '?';
    return pd_fail(err, PD_INVALID_ARGUMENT, "%s: line %" PRIu64 ": \"%.32s\" is %s", path, line, text,
                   minus ? "negative, not an id" : "not an id: a number from 0 to 18446744073709551615");
}

/* One line without its LF, cut to size - 1 bytes; what no number holds (a NUL byte too) stands as a '?'. 0 at the end. */
static int read_line(FILE *file, char *line, size_t size)
{
    size_t length = 0;
    int byte = getc_unlocked(file);
    if (byte == EOF) return 0;
    for (; byte != EOF && byte != '\n'; byte = getc_unlocked(file))
        if (length + 1 < size) line[length++] = byte ? (char)byte : '?';
    line[length] = '\0';
    return 1;
}

static pd_status read_text(const char *path, FILE *file, id_list *list, pd_error *err)
{
    /* A number has at most 20 digits: a line that fills this is not one, and the file is never held whole. */
    char line[128];
    for (uint64_t number = 1; read_line(file, line, sizeof line); number++) {
        char *from = line;
        if (number == 1 && strncmp(from, "\xef\xbb\xbf", 3) == 0) from += 3;
        from += strspn(from, " \t");
        size_t length = strlen(from);
        while (length && strchr(" \t\r", from[length - 1]))
            length--;
        from[length] = '\0';
        uint64_t id;
        if (!parse_id(from, &id)) return refuse_line(path, number, from, err);
        pd_status status = append(list, id, path, err);
        if (status) return status;
    }
    if (ferror(file)) return pd_fail(err, PD_DATA_LOSS, "%s: cannot read: %s", path, strerror(errno));
    return PD_OK;
}

static pd_status read_npy(const char *path, id_list *list, pd_error *err)
{
    pd_reader *reader;
    pd_status status = pd_reader_open(path, PD_FORMAT_NPY, &reader, err);
    if (status) return status;
    pd_reader_info info;
    pd_reader_info_of(reader, &info);
    if (info.dim != 1 || (info.dtype != PD_DTYPE_I64 && info.dtype != PD_DTYPE_U64)) {
        status = pd_fail(err, PD_INVALID_ARGUMENT,
                         "%s: ids are int64 or uint64 in one column, this is %s in %" PRIu32, path,
                         pd_dtype_name(info.dtype), info.dim);
        goto out_after_open;
    }
    list->ids =
        malloc((info.rows ? info.rows : 1) * sizeof *list->ids); /* rows fit the file, so this fits size_t */
    if (!list->ids) {
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory for %" PRIu64 " ids", path, info.rows);
        goto out_after_open;
    }
    status = pd_reader_read_raw(reader, info.rows, list->ids, &list->count, err);
    for (uint64_t i = 0; status == PD_OK && info.dtype == PD_DTYPE_I64 && i < list->count; i++)
        if (list->ids[i] > INT64_MAX)
            status =
                pd_fail(err, PD_INVALID_ARGUMENT, "%s: row %" PRIu64 ": %" PRId64 " is negative, not an id",
                        path, i, (int64_t)list->ids[i]);

out_after_open:
    pd_reader_close(reader);
    return status;
}

pd_status pd_read_ids(const char *path, uint64_t **ids, uint64_t *count, pd_error *err)
{
    *ids = NULL;
    *count = 0;
    id_list list = {0};
    FILE *file = fopen(path, "rbe");
    if (!file)
        return pd_fail(err, errno == EACCES ? PD_PERMISSION_DENIED : PD_NOT_FOUND, "%s: %s", path,
                       strerror(errno));
    unsigned char magic[6];
    int npy =
        fread(magic, 1, sizeof magic, file) == sizeof magic && memcmp(magic, "\x93NUMPY", sizeof magic) == 0;
    rewind(file);
    pd_status status = npy ? read_npy(path, &list, err) : read_text(path, file, &list, err);
    fclose(file);
    if (status == PD_OK && !list.ids) {
        list.ids = malloc(sizeof *list.ids); /* so that an empty list is not mistaken for none */
        if (!list.ids) status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory for its ids", path);
    }
    if (status) {
        free(list.ids);
        return status;
    }
    *ids = list.ids;
    *count = list.count;
    return PD_OK;
}
