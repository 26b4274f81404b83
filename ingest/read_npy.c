/* NumPy's .npy, versions 1.0, 2.0 and 3.0, in and out.
 *
 * The header is the text of a Python dictionary with three keys: descr (the type), fortran_order and shape. We read
 * just the subset that numpy.save writes, keys in any order, and refuse by name what we do not: big-endian and
 * structured types, objects (which would be a pickle), column order and more than two dimensions. A 1-d array is a
 * column: rows of width 1.
 */
#include "reader_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAGIC       "\x93NUMPY"
#define MAGIC_BYTES 6
#define HEADER_MOST 65536

typedef struct npy_header {
    char descr[32];
    int fortran;
    int dims; /* how many of shape are there, -1 before it is seen */
    uint64_t shape[2];
} npy_header;

/* descr is one byte order character and this. */
static const struct {
    const char *code;
    pd_dtype dtype;
} types[] = {
    {"f4", PD_DTYPE_F32}, {"f2", PD_DTYPE_F16}, {"i1", PD_DTYPE_I8},  {"u1", PD_DTYPE_U8},
    {"i4", PD_DTYPE_I32}, {"i8", PD_DTYPE_I64}, {"u8", PD_DTYPE_U64},
};
#define TYPE_COUNT (sizeof types / sizeof types[0])

static int npy_claims(const unsigned char *head, size_t length)
{
    return length >= MAGIC_BYTES && memcmp(head, MAGIC, MAGIC_BYTES) == 0;
}

/* ---- the header's text: each take_ moves the cursor past what it took and returns whether it was there ---- */

static void skip_blanks(const char **at)
{
    while (**at == ' ' || **at == '\t' || **at == '\n')
        (*at)++;
}

static int take(const char **at, const char *token)
{
    skip_blanks(at);
    size_t n = strlen(token);
    if (strncmp(*at, token, n) != 0) return 0;
    *at += n;
    return 1;
}

static int take_string(const char **at, char *out, size_t size)
{
    skip_blanks(at);
    char quote = **at;
    if (quote != '\'' && quote != '"') return 0;
    const char *end = strchr(++*at, quote);
    if (!end || (size_t)(end - *at) >= size) return 0;
    memcpy(out, *at, (size_t)(end - *at));
    out[end - *at] = '\0';
    *at = end + 1;
    return 1;
}

static int take_number(const char **at, uint64_t *out)
{
    skip_blanks(at);
    if (**at < '0' || **at > '9') return 0;
    for (*out = 0; **at >= '0' && **at <= '9'; (*at)++)
        if (__builtin_mul_overflow(*out, 10u, out) ||
            __builtin_add_overflow(*out, (uint64_t)(**at - '0'), out))
            return 0;
    if (**at == 'L') (*at)++; /* Python 2 wrote its long integers so */
    return 1;
}

/* "()", "(3,)", "(3, 4)"; dims counts all of them, shape keeps the first two. */
static int take_shape(const char **at, npy_header *header)
{
    if (!take(at, "(")) return 0;
    header->dims = 0;
    while (!take(at, ")")) {
        uint64_t number;
        if (!take_number(at, &number)) return 0;
        if (header->dims < 2) header->shape[header->dims] = number;
        header->dims++;
        if (!take(at, ",") && !take(at, ")")) return 0;
        if ((*at)[-1] == ')') break;
    }
    return 1;
}

static pd_status parse_header(const char *path, const char *text, npy_header *header, pd_error *err)
{
    const char *at = text;
    int seen_fortran = 0;
    char key[32];
    if (!take(&at, "{")) goto err_malformed;
    while (!take(&at, "}")) {
        if (!take_string(&at, key, sizeof key) || !take(&at, ":")) goto err_malformed;
        if (strcmp(key, "descr") == 0) {
            skip_blanks(&at);
            if (*at == '[' || *at == '(')
                return pd_fail(err, PD_INVALID_ARGUMENT, "%s: a structured dtype; plain numbers are read",
                               path);
            if (!take_string(&at, header->descr, sizeof header->descr)) goto err_malformed;
        } else if (strcmp(key, "fortran_order") == 0) {
            seen_fortran = 1;
            header->fortran = take(&at, "True");
            if (!header->fortran && !take(&at, "False")) goto err_malformed;
        } else if (strcmp(key, "shape") == 0) {
            if (!take_shape(&at, header)) goto err_malformed;
        } else {
            goto err_malformed;
        }
        if (!take(&at, ",")) {
            if (!take(&at, "}")) goto err_malformed;
            break;
        }
    }
    skip_blanks(&at);
    if (*at || !header->descr[0] || !seen_fortran || header->dims < 0) goto err_malformed;
    return PD_OK;

err_malformed:
    return pd_fail(err, PD_INVALID_ARGUMENT,
                   "%s: its .npy header is malformed at byte %zd: descr, fortran_order and shape are needed",
                   path, at - text);
}

static pd_status read_header(const pd_reader *reader, npy_header *header, uint64_t *data_at, pd_error *err)
{
    unsigned char start[12];
    pd_status status = pd_reader_bytes(reader, 0, 10, start, err);
    if (status && status != PD_DATA_LOSS) return status;
    if (status || memcmp(start, MAGIC, MAGIC_BYTES) != 0)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s: not a .npy file: it does not begin with its magic",
                       reader->path);
    if (start[6] < 1 || start[6] > 3 || start[7] != 0)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s: .npy version %d.%d; 1.0, 2.0 and 3.0 are read",
                       reader->path, start[6], start[7]);
    uint32_t length = start[8] | (uint32_t)start[9] << 8;
    *data_at = 10;
    if (start[6] > 1) {
        status = pd_reader_bytes(reader, 10, 2, start + 10, err);
        if (status) return status;
        length |= (uint32_t)start[10] << 16 | (uint32_t)start[11] << 24;
        *data_at = 12;
    }
    if (length > HEADER_MOST)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s: a .npy header of %" PRIu32 " bytes; %d are read",
                       reader->path, length, HEADER_MOST);
    char *text = calloc(1, (size_t)length + 1);
    if (!text) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory for its header", reader->path);
    status = pd_reader_bytes(reader, *data_at, length, text, err);
    if (status == PD_OK) status = parse_header(reader->path, text, header, err);
    free(text);
    *data_at += length;
    return status;
}

static pd_status find_dtype(const pd_reader *reader, const char *descr, pd_dtype *dtype, pd_error *err)
{
    if (descr[0] == '>')
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s: dtype '%s' is big-endian; save it as little-endian",
                       reader->path, descr);
    if (strchr(descr, 'O'))
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s: dtype '%s' holds Python objects, not numbers",
                       reader->path, descr);
    for (size_t i = 0; i < TYPE_COUNT; i++)
        if ((descr[0] == '<' || descr[0] == '|') && strcmp(descr + 1, types[i].code) == 0 &&
            (descr[0] == '<' || descr[2] == '1')) {
            *dtype = types[i].dtype;
            return PD_OK;
        }
    return pd_fail(err, PD_INVALID_ARGUMENT,
                   "%s: dtype '%s'; float32, float16, int8, uint8, int32, int64 and uint64 are read",
                   reader->path, descr);
}

static pd_status npy_open(pd_reader *reader, pd_error *err)
{
    npy_header header = {.dims = -1};
    uint64_t data_at = 0;
    pd_status status = read_header(reader, &header, &data_at, err);
    if (status == PD_OK) status = find_dtype(reader, header.descr, &reader->info.dtype, err);
    if (status) return status;
    if (header.dims != 1 && header.dims != 2)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s: an array of %d dimensions; 1 or 2 are read",
                       reader->path, header.dims);
    if (header.dims == 1) header.shape[1] = 1;
    if (header.fortran && header.dims == 2)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "%s: in Fortran order, columns first; save numpy.ascontiguousarray() of it",
                       reader->path);
    if (header.shape[1] == 0 || header.shape[1] > UINT32_MAX)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s: rows of %" PRIu64 " values", reader->path,
                       header.shape[1]);
    reader->info.rows = header.shape[0];
    reader->info.dim = (uint32_t)header.shape[1];
    reader->self = (void *)(uintptr_t)data_at; /* at most HEADER_MOST + 12: no need for memory of its own */
    return pd_reader_expect_length(reader, data_at, header.shape[0],
                                   header.shape[1] * pd_dtype_size(reader->info.dtype), err);
}

static pd_status npy_read(pd_reader *reader, uint64_t first, uint64_t count, void *rows, pd_error *err)
{
    uint64_t row_bytes = (uint64_t)reader->info.dim * pd_dtype_size(reader->info.dtype);
    return pd_reader_bytes(reader, (uintptr_t)reader->self + first * row_bytes, count * row_bytes, rows, err);
}

const pd_reader_ops pd_reader_npy = {.claims = npy_claims, .open = npy_open, .read = npy_read};

/* ---- out ---- */

static const char *descr_of(pd_dtype dtype)
{
    for (size_t i = 0; i < TYPE_COUNT; i++)
        if (types[i].dtype == dtype) return types[i].code;
    return "";
}

pd_status pd_write_npy(const char *path, pd_dtype dtype, uint64_t rows, uint32_t dim, const void *data,
                       pd_error *err)
{
    size_t value_bytes = pd_dtype_size(dtype);
    uint64_t values;
    if (__builtin_mul_overflow(rows, dim ? dim : 1u, &values) || values > SIZE_MAX / value_bytes)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s: %" PRIu64 " rows of %" PRIu32 " are too many", path,
                       rows, dim);
    char dims[48], text[160];
    if (dim)
        snprintf(dims, sizeof dims, "%" PRIu64 ", %" PRIu32, rows, dim);
    else
        snprintf(dims, sizeof dims, "%" PRIu64 ",", rows);
    int length = snprintf(text, sizeof text, "{'descr': '%c%s', 'fortran_order': False, 'shape': (%s), }",
                          value_bytes == 1 ? '|' : '<', descr_of(dtype), dims);
    /* Blanks and a newline up to where the data is aligned to 64 bytes. */
    unsigned char header[256] = MAGIC "\x01";
    size_t total = (10 + (size_t)length + 1 + 63) / 64 * 64;
    header[8] = (unsigned char)((total - 10) & 0xff);
    header[9] = (unsigned char)((total - 10) >> 8);
    memset(header + 10, ' ', total - 10);
    memcpy(header + 10, text, (size_t)length);
    header[total - 1] = '\n';

    FILE *file = fopen(path, "wb");
    if (!file)
        return pd_fail(err, errno == ENOENT ? PD_NOT_FOUND : PD_PERMISSION_DENIED, "%s: %s", path,
                       strerror(errno));
    int failed = fwrite(header, 1, total, file) != total;
    failed |= values && fwrite(data, value_bytes, values, file) != values;
    int why = errno;
    if (fclose(file) != 0) {
        failed = 1;
        why = errno;
    }
    if (!failed) return PD_OK;
    unlink(path);
    return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: cannot write: %s", path, strerror(why));
}
