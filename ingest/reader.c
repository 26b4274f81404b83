/* Opening a file of vectors, telling its format, and turning stored values into those that the caller asked for.
 *
 * The format is told by the caller's word, else by the content (.npy, HDF5 and FAISS files begin with marks of their
 * own), else by the extension: the big-ann and TexMex formats have no mark, only lengths that must fit. Files are
 * read with pread in pieces of about a megabyte rather than mapped: a file that is cut while we read it gives an
 * error then, where a mapping would give a signal.
 */
#include "reader_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "f16.h"

typedef struct format_entry {
    pd_format format;
    const char *name;
    const pd_reader_ops *ops;
    const char *extensions[4];
} format_entry;

static const format_entry formats[] = {
    {PD_FORMAT_NPY, "npy", &pd_reader_npy, {".npy"}},
    {PD_FORMAT_FBIN, "fbin", &pd_reader_bigann, {".fbin"}},
    {PD_FORMAT_U8BIN, "u8bin", &pd_reader_bigann, {".u8bin"}},
    {PD_FORMAT_I8BIN, "i8bin", &pd_reader_bigann, {".i8bin"}},
    {PD_FORMAT_IBIN, "ibin", &pd_reader_bigann, {".ibin"}},
    {PD_FORMAT_FVECS, "fvecs", &pd_reader_vecs, {".fvecs"}},
    {PD_FORMAT_BVECS, "bvecs", &pd_reader_vecs, {".bvecs"}},
    {PD_FORMAT_IVECS, "ivecs", &pd_reader_vecs, {".ivecs"}},
    {PD_FORMAT_HDF5, "hdf5", &pd_reader_hdf5, {".hdf5", ".h5"}},
    {PD_FORMAT_FAISS, "faiss", &pd_reader_faiss, {".faiss", ".faissindex", ".index"}},
};
#define FORMAT_COUNT (sizeof formats / sizeof formats[0])

static const struct {
    const char *name;
    size_t size;
} dtypes[] = {
    [PD_DTYPE_F32] = {"f32", 4}, [PD_DTYPE_F16] = {"f16", 2}, [PD_DTYPE_I8] = {"i8", 1},
    [PD_DTYPE_U8] = {"u8", 1},   [PD_DTYPE_I32] = {"i32", 4}, [PD_DTYPE_I64] = {"i64", 8},
    [PD_DTYPE_U64] = {"u64", 8},
};

const char *pd_format_name(pd_format format)
{
    for (size_t i = 0; i < FORMAT_COUNT; i++)
        if (formats[i].format == format) return formats[i].name;
    return "auto";
}

pd_status pd_format_parse(const char *name, pd_format *format, pd_error *err)
{
    if (strcmp(name, "auto") == 0) {
        *format = PD_FORMAT_AUTO;
        return PD_OK;
    }
    for (size_t i = 0; i < FORMAT_COUNT; i++)
        if (strcmp(formats[i].name, name) == 0) {
            *format = formats[i].format;
            return PD_OK;
        }
    return pd_fail(
        err, PD_INVALID_ARGUMENT,
        "\"%s\" is not a format: auto, npy, fbin, u8bin, i8bin, ibin, fvecs, bvecs, ivecs, hdf5 or faiss",
        name);
}

const char *pd_dtype_name(pd_dtype dtype)
{
    return dtypes[dtype].name;
}

size_t pd_dtype_size(pd_dtype dtype)
{
    return dtypes[dtype].size;
}

/* ---- the file ---- */

pd_status pd_reader_bytes(const pd_reader *reader, uint64_t offset, uint64_t length, void *into,
                          pd_error *err)
{
    unsigned char *to = into;
    while (length) {
        size_t piece = length < (1u << 30) ? (size_t)length : (size_t)1u << 30;
        ssize_t got = pread(reader->fd, to, piece, (off_t)offset);
        if (got < 0) {
            if (errno == EINTR) continue;
            return pd_fail(err, PD_DATA_LOSS, "%s: cannot read at byte %" PRIu64 ": %s", reader->path, offset,
                           strerror(errno));
        }
        if (got == 0)
            return pd_fail(err, PD_DATA_LOSS, "%s: ends at byte %" PRIu64 ", %" PRIu64 " bytes short",
                           reader->path, offset, length);
        to += got;
        offset += (uint64_t)got;
        length -= (uint64_t)got;
    }
    return PD_OK;
}

pd_status pd_reader_expect_length(const pd_reader *reader, uint64_t header, uint64_t rows, uint64_t row_bytes,
                                  pd_error *err)
{
    uint64_t needed;
    if (__builtin_mul_overflow(rows, row_bytes, &needed) || __builtin_add_overflow(needed, header, &needed) ||
        needed > INT64_MAX)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "%s: the header's shape, %" PRIu64 " rows of %" PRIu64
                       " bytes, is larger than any file",
                       reader->path, rows, row_bytes);
    if (needed == reader->file_bytes) return PD_OK;
    int cut = reader->file_bytes < needed;
    return pd_fail(err, cut ? PD_DATA_LOSS : PD_INVALID_ARGUMENT,
                   "%s: %s: %" PRIu64 " rows of %" PRIu64 " bytes after a header of %" PRIu64 " need %" PRIu64
                   " bytes and %" PRIu64 " are present",
                   reader->path, cut ? "truncated" : "longer than its header says", rows, row_bytes, header,
                   needed, reader->file_bytes);
}

uint64_t pd_reader_chunk_rows(uint64_t row_bytes)
{
    uint64_t rows = PD_READER_CHUNK_BYTES / row_bytes;
    return rows ? rows : 1;
}

static pd_status open_failed(const char *path, pd_error *err)
{
    pd_status status = PD_INTERNAL;
    if (errno == ENOENT || errno == ENOTDIR) status = PD_NOT_FOUND;
    if (errno == EACCES || errno == EPERM) status = PD_PERMISSION_DENIED;
    return pd_fail(err, status, "%s: %s", path, strerror(errno));
}

/* Opens path; where no such file exists and it has a '#', what stands before the last one, and keeps the rest as the
 * member's name. */
static pd_status open_file(pd_reader *reader, pd_error *err)
{
    /* O_NONBLOCK so that a FIFO is refused below, not waited for. */
    reader->fd = open(reader->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    char *hash = strrchr(reader->path, '#');
    if (reader->fd < 0 && errno == ENOENT && hash && hash != reader->path) {
        reader->member = strdup(hash + 1);
        if (!reader->member) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to open %s", reader->path);
        *hash = '\0';
        reader->fd = open(reader->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    }
    if (reader->fd < 0) return open_failed(reader->path, err);
    struct stat stat;
    if (fstat(reader->fd, &stat) != 0) return open_failed(reader->path, err);
    if (!S_ISREG(stat.st_mode))
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s: not a regular file", reader->path);
    reader->file_bytes = (uint64_t)stat.st_size;
    return PD_OK;
}

static const format_entry *format_by_extension(const char *path)
{
    size_t length = strlen(path);
    for (size_t i = 0; i < FORMAT_COUNT; i++)
        for (const char *const *ext = formats[i].extensions; *ext; ext++) {
            size_t n = strlen(*ext);
            if (length > n && strcasecmp(path + length - n, *ext) == 0) return &formats[i];
        }
    return NULL;
}

static pd_status choose_format(pd_reader *reader, pd_format told, const format_entry **out, pd_error *err)
{
    unsigned char head[PD_READER_HEAD_BYTES];
    size_t length = reader->file_bytes < sizeof head ? (size_t)reader->file_bytes : sizeof head;
    pd_status status = pd_reader_bytes(reader, 0, length, head, err);
    if (status) return status;
    for (size_t i = 0; told && i < FORMAT_COUNT; i++)
        if (formats[i].format == told) {
            reader->info.how = "as told";
            *out = &formats[i];
            return PD_OK;
        }
    if (told) return pd_fail(err, PD_INVALID_ARGUMENT, "%s: %d is not a format", reader->path, (int)told);
    for (size_t i = 0; i < FORMAT_COUNT; i++)
        if (formats[i].ops->claims && formats[i].ops->claims(head, length)) {
            reader->info.how = "by content";
            *out = &formats[i];
            return PD_OK;
        }
    if (length > 2 && head[0] == 0x1f && head[1] == 0x8b)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s: compressed with gzip; unpack it first", reader->path);
    *out = format_by_extension(reader->path);
    if (!*out)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "%s: neither its content nor its name tells its format; say which it is",
                       reader->path);
    reader->info.how = "by extension";
    return PD_OK;
}

pd_status pd_reader_open(const char *path, pd_format format, pd_reader **out, pd_error *err)
{
    *out = NULL;
    pd_reader *reader = calloc(1, sizeof *reader);
    if (!reader) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to open %s", path);
    reader->fd = -1;
    reader->path = strdup(path);
    pd_status status = PD_OK;
    if (!reader->path) {
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to open %s", path);
        goto err_after_calloc;
    }
    const format_entry *entry = NULL;
    status = open_file(reader, err);
    if (status == PD_OK) status = choose_format(reader, format, &entry, err);
    if (status) goto err_after_calloc;
    if (reader->member && !entry->ops->has_members) {
        status =
            pd_fail(err, PD_INVALID_ARGUMENT, "%s: a file of format %s has no members to pick \"%s\" from",
                    reader->path, entry->name, reader->member);
        goto err_after_calloc;
    }
    reader->info.format = entry->format;
    status = entry->ops->open(reader, err);
    if (status) goto err_after_calloc;
    reader->ops = entry->ops;
    *out = reader;
    return PD_OK;

err_after_calloc:
    pd_reader_close(reader);
    return status;
}

void pd_reader_close(pd_reader *reader)
{
    if (!reader) return;
    if (reader->ops && reader->ops->close) reader->ops->close(reader);
    if (reader->fd >= 0) close(reader->fd);
    free(reader->chunk);
    free(reader->member);
    free(reader->path);
    free(reader);
}

void pd_reader_info_of(const pd_reader *reader, pd_reader_info *info)
{
    *info = reader->info;
}

const int64_t *pd_reader_ids(const pd_reader *reader)
{
    return reader->ids;
}

pd_status pd_reader_rewind(pd_reader *reader, pd_error *err)
{
    (void)err;
    reader->at = 0;
    return PD_OK;
}

/* ---- rows ---- */

static uint64_t rows_left(const pd_reader *reader, uint64_t max)
{
    uint64_t left = reader->info.rows - reader->at;
    return left < max ? left : max;
}

pd_status pd_reader_read_raw(pd_reader *reader, uint64_t max, void *rows, uint64_t *got, pd_error *err)
{
    *got = 0;
    uint64_t count = rows_left(reader, max);
    if (count == 0) return PD_OK;
    pd_status status = reader->ops->read(reader, reader->at, count, rows, err);
    if (status) return status;
    reader->at += count;
    *got = count;
    return PD_OK;
}

/* count stored values, from the one numbered first, as f32 or i64. Returns the index of the first that cannot be
 * said so, or count. */
typedef uint64_t (*convert_fn)(pd_dtype dtype, const void *from, uint64_t count, void *to);

/* Integers beyond 2^24 have no f32 of their own: to round them would change what was pushed. */
#define EXACT_IN_F32 (INT64_C(1) << 24)

static uint64_t to_f32(pd_dtype dtype, const void *from, uint64_t count, void *to)
{
    float *out = to;
    uint64_t i = 0;
    switch (dtype) {
    case PD_DTYPE_F32:
        if (from != to) memcpy(to, from, count * sizeof *out);
        while (i < count && isfinite(out[i]))
            i++;
        break;
    case PD_DTYPE_F16:
        for (; i < count; i++) {
            out[i] = pd_f16_to_f32(((const pd_f16 *)from)[i]);
            if (!isfinite(out[i])) break;
        }
        break;
    case PD_DTYPE_I8:
        for (; i < count; i++)
            out[i] = ((const int8_t *)from)[i];
        break;
    case PD_DTYPE_U8:
        for (; i < count; i++)
            out[i] = ((const uint8_t *)from)[i];
        break;
    case PD_DTYPE_I32:
    case PD_DTYPE_I64:
        for (; i < count; i++) {
            int64_t value = dtype == PD_DTYPE_I32 ? ((const int32_t *)from)[i] : ((const int64_t *)from)[i];
            if (value > EXACT_IN_F32 || value < -EXACT_IN_F32) break;
            out[i] = (float)value;
        }
        break;
    case PD_DTYPE_U64:
        for (; i < count; i++) {
            uint64_t value = ((const uint64_t *)from)[i];
            if (value > EXACT_IN_F32) break;
            out[i] = (float)value;
        }
        break;
    }
    return i;
}

static uint64_t to_i64(pd_dtype dtype, const void *from, uint64_t count, void *to)
{
    int64_t *out = to;
    uint64_t i = 0;
    for (; i < count; i++) {
        if (dtype == PD_DTYPE_I8) out[i] = ((const int8_t *)from)[i];
        if (dtype == PD_DTYPE_U8) out[i] = ((const uint8_t *)from)[i];
        if (dtype == PD_DTYPE_I32) out[i] = ((const int32_t *)from)[i];
        if (dtype == PD_DTYPE_I64) out[i] = ((const int64_t *)from)[i];
        if (dtype == PD_DTYPE_U64) {
            uint64_t value = ((const uint64_t *)from)[i];
            if (value > INT64_MAX) break;
            out[i] = (int64_t)value;
        }
    }
    return i;
}

static pd_status refuse_value(const pd_reader *reader, uint64_t first, const void *values, uint64_t index,
                              const char *wanted, pd_error *err)
{
    uint64_t row = first + index / reader->info.dim, column = index % reader->info.dim;
    pd_dtype dtype = reader->info.dtype;
    if (dtype == PD_DTYPE_F32 || dtype == PD_DTYPE_F16) {
        float value = dtype == PD_DTYPE_F32 ? ((const float *)values)[index]
                                            : pd_f16_to_f32(((const pd_f16 *)values)[index]);
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s: %s at row %" PRIu64 ", column %" PRIu64, reader->path,
                       isnan(value) ? "NaN" : "infinity", row, column);
    }
    return pd_fail(err, PD_INVALID_ARGUMENT,
                   "%s: the %s value at row %" PRIu64 ", column %" PRIu64 " does not fit %s", reader->path,
                   pd_dtype_name(dtype), row, column, wanted);
}

static pd_status make_chunk(pd_reader *reader, pd_error *err)
{
    if (reader->chunk) return PD_OK;
    uint64_t row_bytes = (uint64_t)reader->info.dim * pd_dtype_size(reader->info.dtype);
    reader->chunk_rows = pd_reader_chunk_rows(row_bytes);
    reader->chunk = malloc(reader->chunk_rows * row_bytes);
    if (!reader->chunk)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory for %" PRIu64 " bytes of rows",
                       reader->path, reader->chunk_rows * row_bytes);
    return PD_OK;
}

/* Reads and converts in pieces. as_stored: the wanted values are laid out as the file's are, so that the rows can be
 * read straight into the caller's memory. Where the call fails the reader stands where it stood. */
static pd_status read_converted(pd_reader *reader, uint64_t max, void *rows, size_t value_bytes,
                                int as_stored, convert_fn convert, const char *wanted, uint64_t *got,
                                pd_error *err)
{
    *got = 0;
    uint64_t count = rows_left(reader, max), dim = reader->info.dim;
    if (count == 0) return PD_OK;
    pd_status status = PD_OK;
    if (!as_stored && (status = make_chunk(reader, err))) return status;
    for (uint64_t done = 0; done < count;) {
        uint64_t piece = count - done,
                 most = as_stored ? pd_reader_chunk_rows(dim * value_bytes) : reader->chunk_rows;
        if (piece > most) piece = most;
        void *to = (unsigned char *)rows + done * dim * value_bytes;
        void *from = as_stored ? to : reader->chunk;
        status = reader->ops->read(reader, reader->at + done, piece, from, err);
        if (status) return status;
        uint64_t good = convert(reader->info.dtype, from, piece * dim, to);
        if (good < piece * dim) return refuse_value(reader, reader->at + done, from, good, wanted, err);
        done += piece;
    }
    reader->at += count;
    *got = count;
    return PD_OK;
}

pd_status pd_reader_read_f32(pd_reader *reader, uint64_t max, float *rows, uint64_t *got, pd_error *err)
{
    return read_converted(reader, max, rows, sizeof *rows, reader->info.dtype == PD_DTYPE_F32, to_f32,
                          "an f32 exactly", got, err);
}

pd_status pd_reader_read_i64(pd_reader *reader, uint64_t max, int64_t *rows, uint64_t *got, pd_error *err)
{
    *got = 0;
    pd_dtype dtype = reader->info.dtype;
    if (dtype == PD_DTYPE_F32 || dtype == PD_DTYPE_F16)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s: holds %s values, not integers", reader->path,
                       pd_dtype_name(dtype));
    return read_converted(reader, max, rows, sizeof *rows, dtype == PD_DTYPE_I64, to_i64, "an i64", got, err);
}
