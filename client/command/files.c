#include "files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static pados_status status_of_errno(void)
{
    return errno == ENOENT || errno == ENOTDIR ? PD_NOT_FOUND
           : errno == EACCES                   ? PD_PERMISSION_DENIED
                                               : PD_INTERNAL;
}

static int open_regular(const char *path, FILE **file, uint64_t *bytes)
{
    struct stat about;
    *file = fopen(path, "rb");
    if (!*file || fstat(fileno(*file), &about)) {
        int code = complain(status_of_errno(), "%s: %s", path, strerror(errno));
        if (*file) fclose(*file);
        return code;
    }
    if (!S_ISREG(about.st_mode)) {
        fclose(*file);
        return complain(PD_INVALID_ARGUMENT, "%s: it is not a regular file", path);
    }
    *bytes = (uint64_t)about.st_size;
    return 0;
}

int read_text(const char *path, char **text)
{
    FILE *file;
    uint64_t bytes;
    int code = open_regular(path, &file, &bytes);
    if (code) return code;
    if (bytes > TEXT_MAX) {
        fclose(file);
        return complain(PD_INVALID_ARGUMENT, "%s: more than 4 MiB of text", path);
    }
    *text = must(malloc(bytes + 1));
    size_t got = fread(*text, 1, bytes, file);
    bool failed = ferror(file) != 0;
    fclose(file);
    (*text)[got] = '\0';
    if (failed || strlen(*text) != got) {
        free(*text);
        return failed ? complain(PD_INTERNAL, "%s: it could not be read", path)
                      : complain(PD_INVALID_ARGUMENT, "%s: there is a NUL byte in it: it is not text", path);
    }
    return 0;
}

int count_lines(const char *path, uint64_t *count)
{
    enum { PIECE = 1 << 16 };
    FILE *file;
    uint64_t bytes;
    int code = open_regular(path, &file, &bytes);
    if (code) return code;
    char *piece = must(malloc(PIECE));
    size_t got;
    *count = 0;
    while ((got = fread(piece, 1, PIECE, file)) > 0)
        for (const char *at = piece; (at = memchr(at, '\n', (size_t)(piece + got - at))) != NULL; at++)
            ++*count;
    free(piece);
    fclose(file);
    return 0;
}

static pados_status source_fail(pados_error *error, pados_status status, const char *path, const char *what)
{
    error->status = status;
    snprintf(error->message, sizeof error->message, "%s: %s", path, what);
    return status;
}

/* ------------------------------------------------------------------------------------------------ a file --- */

static pados_status file_read(void *context, void *data, size_t max, size_t *got, pados_error *error)
{
    file_source *f = context;
    *got = fread(data, 1, max, f->file);
    return ferror(f->file) ? source_fail(error, PD_INTERNAL, f->path, "it could not be read") : PD_OK;
}

static pados_status file_seek(void *context, uint64_t offset, pados_error *error)
{
    file_source *f = context;
    if (fseeko(f->file, (off_t)offset, SEEK_SET))
        return source_fail(error, PD_INTERNAL, f->path, strerror(errno));
    return PD_OK;
}

int file_source_open(file_source *f, const char *path, pados_source *source)
{
    uint64_t bytes;
    f->path = path;
    int code = open_regular(path, &f->file, &bytes);
    if (code) return code;
    *source = (pados_source){.read = file_read, .seek = file_seek, .context = f, .bytes = bytes};
    return 0;
}

void file_source_close(file_source *f)
{
    if (f->file) fclose(f->file);
}

/* --------------------------------------------------------------------------------------------------- rows --- */

static pados_status of_reader(pados_error *error, const pd_error *from)
{
    /* A file that is shorter than its header says is this side's bad input. */
    error->status = from->status == PD_DATA_LOSS ? PD_INVALID_ARGUMENT : (pados_status)from->status;
    snprintf(error->message, sizeof error->message, "%s", from->message);
    return error->status;
}

static pados_status rows_refill(rows_source *r, pados_error *error)
{
    pd_error from;
    uint64_t got, most = r->room / r->row_bytes;
    pd_status status = r->as_f32 ? pd_reader_read_f32(r->reader, most, (float *)(void *)r->rows, &got, &from)
                                 : pd_reader_read_raw(r->reader, most, r->rows, &got, &from);
    if (status) return of_reader(error, &from);
    r->at = 0;
    r->end = (size_t)got * r->row_bytes;
    return PD_OK;
}

static pados_status rows_read(void *context, void *data, size_t max, size_t *got, pados_error *error)
{
    rows_source *r = context;
    if (r->at == r->end) {
        pados_status status = rows_refill(r, error);
        if (status) return status;
    }
    *got = r->end - r->at < max ? r->end - r->at : max;
    memcpy(data, r->rows + r->at, *got);
    r->at += *got;
    return PD_OK;
}

/* A reader goes back to its first row only: the rest is read over. */
static pados_status rows_seek(void *context, uint64_t offset, pados_error *error)
{
    rows_source *r = context;
    pd_error from;
    if (pd_reader_rewind(r->reader, &from)) return of_reader(error, &from);
    r->at = r->end = 0;
    while (offset) {
        if (r->at == r->end) {
            pados_status status = rows_refill(r, error);
            if (status) return status;
            if (!r->end) return source_fail(error, PD_INVALID_ARGUMENT, "rows", "the file became shorter");
        }
        uint64_t step = r->end - r->at < offset ? r->end - r->at : offset;
        r->at += step;
        offset -= step;
    }
    return PD_OK;
}

int rows_source_open(rows_source *r, const char *path, pd_format format, bool as_f32, pados_source *source)
{
    pd_error error;
    if (pd_reader_open(path, format, &r->reader, &error)) return complain_here(&error);
    pd_reader_info_of(r->reader, &r->info);
    r->as_f32 = as_f32;
    r->row_bytes = r->info.dim * (as_f32 ? sizeof(float) : pd_dtype_size(r->info.dtype));
    if (!r->info.rows || !r->row_bytes) {
        pd_reader_close(r->reader);
        r->reader = NULL;
        return complain(PD_INVALID_ARGUMENT, "%s: there are no rows in it", path);
    }
    r->room = ((1 << 20) / r->row_bytes + 1) * r->row_bytes;
    r->rows = must(malloc(r->room));
    *source = (pados_source){
        .read = rows_read, .seek = rows_seek, .context = r, .bytes = r->info.rows * (uint64_t)r->row_bytes};
    return 0;
}

int rows_dtype(const char *path, pd_dtype dtype, pados_dtype *out)
{
    switch (dtype) {
    case PD_DTYPE_F32:
        *out = PADOS_F32;
        return 0;
    case PD_DTYPE_F16:
        *out = PADOS_F16;
        return 0;
    case PD_DTYPE_I8:
        *out = PADOS_I8;
        return 0;
    case PD_DTYPE_U8:
        *out = PADOS_U8;
        return 0;
    default:
        return complain(PD_INVALID_ARGUMENT,
                        "%s: rows of %s are not vectors that can be sent (f32, f16, i8, u8)", path,
                        pd_dtype_name(dtype));
    }
}

void rows_source_close(rows_source *r)
{
    if (r->reader) pd_reader_close(r->reader);
    free(r->rows);
}

/* ------------------------------------------------------------------------------------------------- memory --- */

static pados_status memory_read(void *context, void *data, size_t max, size_t *got, pados_error *error)
{
    memory_source *m = context;
    (void)error;
    *got = m->length - m->at < max ? m->length - m->at : max;
    memcpy(data, m->bytes + m->at, *got);
    m->at += *got;
    return PD_OK;
}

static pados_status memory_seek(void *context, uint64_t offset, pados_error *error)
{
    memory_source *m = context;
    if (offset > m->length) return source_fail(error, PD_INTERNAL, "memory", "a seek past its end");
    m->at = (size_t)offset;
    return PD_OK;
}

void memory_source_open(memory_source *m, const void *bytes, size_t length, pados_source *source)
{
    *m = (memory_source){.bytes = bytes, .length = length, .at = 0};
    *source = (pados_source){.read = memory_read, .seek = memory_seek, .context = m, .bytes = length};
}
