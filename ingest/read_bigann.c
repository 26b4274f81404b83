/* The big-ann formats: u32 rows, u32 dim, then rows * dim values, and not a byte more.
 *
 * Nothing in such a file says what it holds, so its length is all that tells a right one from a wrong one, and it must
 * fit exactly. One exception: the competition's truth files hold the neighbours' ids and behind them as many f32
 * distances; an .ibin of exactly that length is read as its ids.
 */
#include "reader_impl.h"

#define HEADER_BYTES 8

static pd_dtype dtype_of(pd_format format)
{
    switch (format) {
    case PD_FORMAT_U8BIN:
        return PD_DTYPE_U8;
    case PD_FORMAT_I8BIN:
        return PD_DTYPE_I8;
    case PD_FORMAT_IBIN:
        return PD_DTYPE_I32;
    default:
        return PD_DTYPE_F32;
    }
}

static pd_status bigann_open(pd_reader *reader, pd_error *err)
{
    uint32_t header[2];
    pd_status status = pd_reader_bytes(reader, 0, sizeof header, header, err);
    if (status) return pd_prefix(err, "no header of %d bytes", HEADER_BYTES);
    if (header[1] == 0) return pd_fail(err, PD_INVALID_ARGUMENT, "%s: its header says dim 0", reader->path);
    reader->info.dtype = dtype_of(reader->info.format);
    reader->info.rows = header[0];
    reader->info.dim = header[1];
    uint64_t row_bytes = (uint64_t)header[1] * pd_dtype_size(reader->info.dtype);
    if (reader->info.format == PD_FORMAT_IBIN) {
        pd_error ignored;
        if (pd_reader_expect_length(reader, HEADER_BYTES, header[0], row_bytes * 2, &ignored) == PD_OK)
            return PD_OK;
    }
    return pd_reader_expect_length(reader, HEADER_BYTES, header[0], row_bytes, err);
}

static pd_status bigann_read(pd_reader *reader, uint64_t first, uint64_t count, void *rows, pd_error *err)
{
    uint64_t row_bytes = (uint64_t)reader->info.dim * pd_dtype_size(reader->info.dtype);
    return pd_reader_bytes(reader, HEADER_BYTES + first * row_bytes, count * row_bytes, rows, err);
}

const pd_reader_ops pd_reader_bigann = {.open = bigann_open, .read = bigann_read};
