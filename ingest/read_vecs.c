/* The TexMex formats: every row is an i32 width and then that many values (f32, u8 or i32).
 *
 * The first row's width stands for all: the file's length must be a whole number of such rows, and each row's own
 * width is compared when the row is read, so that a file glued together from two widths is refused by its row.
 */
#include "reader_impl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX_BYTES 4u

static pd_dtype dtype_of(pd_format format)
{
    if (format == PD_FORMAT_BVECS) return PD_DTYPE_U8;
    return format == PD_FORMAT_IVECS ? PD_DTYPE_I32 : PD_DTYPE_F32;
}

static pd_status vecs_open(pd_reader *reader, pd_error *err)
{
    if (reader->file_bytes == 0) return pd_fail(err, PD_INVALID_ARGUMENT, "%s: empty", reader->path);
    int32_t dim;
    pd_status status = pd_reader_bytes(reader, 0, sizeof dim, &dim, err);
    if (status) return pd_prefix(err, "row 0");
    if (dim <= 0)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s: row 0 says that it is %" PRId32 " wide", reader->path,
                       dim);
    reader->info.dtype = dtype_of(reader->info.format);
    reader->info.dim = (uint32_t)dim;
    uint64_t row_bytes = PREFIX_BYTES + (uint64_t)dim * pd_dtype_size(reader->info.dtype);
    reader->info.rows = reader->file_bytes / row_bytes;
    uint64_t rest = reader->file_bytes % row_bytes;
    if (rest)
        return pd_fail(err, PD_DATA_LOSS,
                       "%s: truncated: row %" PRIu64 " of width %" PRId32 " needs %" PRIu64
                       " bytes and %" PRIu64 " are present",
                       reader->path, reader->info.rows, dim, row_bytes, rest);
    uint64_t chunk = pd_reader_chunk_rows(row_bytes) * row_bytes;
    reader->self = malloc(chunk);
    if (!reader->self)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory for %" PRIu64 " bytes of rows",
                       reader->path, chunk);
    return PD_OK;
}

static pd_status vecs_read(pd_reader *reader, uint64_t first, uint64_t count, void *rows, pd_error *err)
{
    uint64_t value_bytes = (uint64_t)reader->info.dim * pd_dtype_size(reader->info.dtype);
    uint64_t row_bytes = PREFIX_BYTES + value_bytes, most = pd_reader_chunk_rows(row_bytes);
    unsigned char *to = rows;
    while (count) {
        uint64_t piece = count < most ? count : most;
        const unsigned char *from = reader->self;
        pd_status status = pd_reader_bytes(reader, first * row_bytes, piece * row_bytes, reader->self, err);
        if (status) return status;
        for (uint64_t i = 0; i < piece; i++, from += row_bytes, to += value_bytes) {
            int32_t dim;
            memcpy(&dim, from, sizeof dim);
            if (dim < 0 || (uint32_t)dim != reader->info.dim)
                return pd_fail(err, PD_INVALID_ARGUMENT,
                               "%s: row %" PRIu64 " says that it is %" PRId32
                               " wide, the rows before are %" PRIu32,
                               reader->path, first + i, dim, reader->info.dim);
            memcpy(to, from + PREFIX_BYTES, value_bytes);
        }
        first += piece;
        count -= piece;
    }
    return PD_OK;
}

static void vecs_close(pd_reader *reader)
{
    free(reader->self);
}

const pd_reader_ops pd_reader_vecs = {.open = vecs_open, .read = vecs_read, .close = vecs_close};
