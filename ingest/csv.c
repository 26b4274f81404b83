/* A streaming CSV reader (RFC 4180): bytes come in pieces of 64 KiB, one record is held at a time.
 *
 * Where the RFC is silent: a line ends with LF, CRLF or a lone CR; a byte order mark at the start is passed over; a
 * quote inside an unquoted cell stands for itself (17" screens are sold); text after a closing quote is refused,
 * since nobody can say what it meant. Each record's cells lie one behind the other in one buffer, NUL-terminated, and
 * the pointers are made when the record is whole, because the buffer moves while it grows.
 */
#include "csv.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INPUT_BYTES (64u << 10)
#define RECORD_MOST (1u << 20)
#define CELLS_MOST  4096u

enum { END_OF_FILE = -1, READ_FAILED = -2 };

struct pd_csv {
    char *name;
    FILE *file; /* NULL over memory */
    unsigned char *buffer;
    const unsigned char *input; /* the piece at hand: buffer, or the caller's bytes */
    size_t used, filled;
    char *record;
    size_t length, room;
    size_t *starts;
    char **cells;
    size_t count;         /* of cells ended in this record */
    uint64_t line;        /* of the next byte, from 1 */
    uint64_t record_line; /* of the record last returned */
    int started;
    pd_error failed; /* once refused, always refused */
};

static pd_status make(const char *name, pd_csv **out, pd_error *err)
{
    pd_csv *csv = calloc(1, sizeof *csv);
    if (csv) {
        csv->name = strdup(name);
        csv->starts = malloc(CELLS_MOST * sizeof *csv->starts);
        csv->cells = malloc(CELLS_MOST * sizeof *csv->cells);
        csv->line = 1;
    }
    if (!csv || !csv->name || !csv->starts || !csv->cells) {
        pd_csv_close(csv);
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to read %s", name);
    }
    *out = csv;
    return PD_OK;
}

pd_status pd_csv_open(const char *path, pd_csv **out, pd_error *err)
{
    *out = NULL;
    pd_csv *csv = NULL;
    pd_status status = make(path, &csv, err);
    if (status) return status;
    csv->buffer = malloc(INPUT_BYTES);
    if (!csv->buffer) {
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to read %s", path);
        goto err_after_make;
    }
    csv->file = fopen(path, "rbe");
    if (!csv->file) {
        status = pd_fail(err, errno == EACCES ? PD_PERMISSION_DENIED : PD_NOT_FOUND, "%s: %s", path,
                         strerror(errno));
        goto err_after_make;
    }
    csv->input = csv->buffer;
    *out = csv;
    return PD_OK;

err_after_make:
    pd_csv_close(csv);
    return status;
}

pd_status pd_csv_from_memory(const char *name, const char *bytes, size_t length, pd_csv **out, pd_error *err)
{
    *out = NULL;
    pd_status status = make(name, out, err);
    if (status) return status;
    (*out)->input = (const unsigned char *)bytes;
    (*out)->filled = length;
    return PD_OK;
}

void pd_csv_close(pd_csv *csv)
{
    if (!csv) return;
    if (csv->file) fclose(csv->file);
    free(csv->name);
    free(csv->buffer);
    free(csv->record);
    free(csv->starts);
    free(csv->cells);
    free(csv);
}

uint64_t pd_csv_line(const pd_csv *csv)
{
    return csv->record_line;
}

const char *pd_csv_name(const pd_csv *csv)
{
    return csv->name;
}

/* ---- bytes ---- */

static int peek(pd_csv *csv)
{
    if (csv->used == csv->filled) {
        if (!csv->file) return END_OF_FILE;
        csv->used = 0;
        csv->filled = fread(csv->buffer, 1, INPUT_BYTES, csv->file);
        if (csv->filled == 0) return ferror(csv->file) ? READ_FAILED : END_OF_FILE;
    }
    return csv->input[csv->used];
}

static int next(pd_csv *csv)
{
    int byte = peek(csv);
    if (byte >= 0) csv->used++;
    return byte;
}

static void skip_mark(pd_csv *csv)
{
    static const unsigned char mark[3] = {0xef, 0xbb, 0xbf};
    csv->started = 1;
    if (peek(csv) == mark[0] && csv->filled - csv->used >= sizeof mark &&
        memcmp(csv->input + csv->used, mark, sizeof mark) == 0)
        csv->used += sizeof mark;
}

static pd_status refuse(pd_csv *csv, uint64_t line, const char *what)
{
    return pd_fail(&csv->failed, PD_INVALID_ARGUMENT, "%s: line %" PRIu64 ": %s", csv->name, line, what);
}

static pd_status put(pd_csv *csv, int byte)
{
    if (csv->length >= RECORD_MOST) return refuse(csv, csv->record_line, "a record of more than 1 MiB");
    if (csv->length == csv->room) {
        size_t room = csv->room ? csv->room * 2 : 1024;
        char *record = realloc(csv->record, room);
        if (!record)
            return pd_fail(&csv->failed, PD_RESOURCE_EXHAUSTED, "%s: no memory for a record of %zu bytes",
                           csv->name, room);
        csv->record = record;
        csv->room = room;
    }
    csv->record[csv->length++] = (char)byte;
    return PD_OK;
}

static pd_status begin_cell(pd_csv *csv)
{
    if (csv->count == CELLS_MOST) return refuse(csv, csv->record_line, "more than 4096 cells");
    csv->starts[csv->count++] = csv->length;
    return PD_OK;
}

/* How many bytes the character at text takes, 0 when they are not UTF-8 (overlong forms, surrogates and numbers over
 * 10FFFF are not). */
static size_t utf8_length(const unsigned char *text, size_t left)
{
    unsigned char lead = text[0], low = 0x80, high = 0xbf;
    if (lead < 0x80) return 1;
    if (lead < 0xc2 || lead > 0xf4) return 0;
    size_t length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (length > left) return 0;
    if (lead == 0xe0) low = 0xa0;
    if (lead == 0xed) high = 0x9f;
    if (lead == 0xf0) low = 0x90;
    if (lead == 0xf4) high = 0x8f;
    if (text[1] < low || text[1] > high) return 0;
    for (size_t i = 2; i < length; i++)
        if (text[i] < 0x80 || text[i] > 0xbf) return 0;
    return length;
}

/* ---- records ---- */

/* From behind the opening quote to behind the closing one. */
static pd_status quoted_cell(pd_csv *csv)
{
    uint64_t opened = csv->line;
    for (;;) {
        int byte = next(csv);
        if (byte == END_OF_FILE) return refuse(csv, opened, "a quote that never closes");
        if (byte == READ_FAILED) return PD_OK; /* said by the caller, which meets it again */
        if (byte == 0) return refuse(csv, csv->line, "a NUL byte");
        if (byte == '\n') csv->line++;
        if (byte == '"') {
            if (peek(csv) != '"') return PD_OK;
            next(csv);
        }
        pd_status status = put(csv, byte);
        if (status) {
            /* A quote left open swallows all that follows: say where it began. */
            if (status == PD_INVALID_ARGUMENT)
                refuse(csv, opened, "a quote that does not close within 1 MiB");
            return status;
        }
    }
}

static int ends_line(pd_csv *csv, int byte)
{
    if (byte == '\r' && peek(csv) == '\n') next(csv);
    if (byte != '\r' && byte != '\n') return 0;
    csv->line++;
    return 1;
}

/* One cell with what ends it. *last: it ended the record too. */
static pd_status read_cell(pd_csv *csv, int *last)
{
    pd_status status = begin_cell(csv);
    if (status) return status;
    int quoted = peek(csv) == '"';
    if (quoted) {
        next(csv);
        status = quoted_cell(csv);
    }
    while (status == PD_OK) {
        uint64_t line = csv->line;
        int byte = next(csv);
        if (byte == READ_FAILED)
            return pd_fail(&csv->failed, PD_DATA_LOSS, "%s: line %" PRIu64 ": cannot read: %s", csv->name,
                           line, strerror(errno));
        *last = byte == END_OF_FILE || ends_line(csv, byte);
        if (*last || byte == ',') return put(csv, '\0');
        if (byte == 0) return refuse(csv, line, "a NUL byte");
        if (quoted) return refuse(csv, line, "text behind a closing quote");
        status = put(csv, byte);
    }
    return status;
}

static pd_status read_record(pd_csv *csv)
{
    csv->length = 0;
    csv->count = 0;
    csv->record_line = csv->line;
    pd_status status = PD_OK;
    for (int last = 0; status == PD_OK && !last;)
        status = read_cell(csv, &last);
    if (status) return status;
    uint64_t line = csv->record_line;
    for (size_t at = 0, step; at < csv->length; at += step) {
        const unsigned char *text = (const unsigned char *)csv->record + at;
        step = utf8_length(text, csv->length - at);
        if (step == 0) return refuse(csv, line, "bytes that are not UTF-8");
        line += *text == '\n';
    }
    for (size_t i = 0; i < csv->count; i++)
        csv->cells[i] = csv->record + csv->starts[i];
    return PD_OK;
}

pd_status pd_csv_next(pd_csv *csv, char ***cells, size_t *count, pd_error *err)
{
    *cells = csv->cells;
    *count = 0;
    if (!csv->started) skip_mark(csv);
    pd_status status = csv->failed.status;
    while (status == PD_OK) {
        int byte = peek(csv);
        if (byte == END_OF_FILE) return PD_OK;
        if (byte == '\n' || byte == '\r') {
            ends_line(csv, next(csv));
            continue;
        }
        status = read_record(csv);
        if (status) break;
        *count = csv->count;
        return PD_OK;
    }
    if (err) *err = csv->failed;
    return status;
}
