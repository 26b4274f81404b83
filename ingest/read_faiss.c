/* FAISS index files, read by FAISS itself: unlike the other formats the whole index is in memory while it is open.
 *
 * Any kind whose vectors can be rebuilt will do: flat, scalar-quantized, inverted lists of these, HNSW over these,
 * behind an id map or a linear transform. Lossy codes give back what they kept. A file begins with a four-letter
 * code, the width, the number of rows and twice the number 2^20; by those it is told, and by those a file that
 * promises more rows than it has bits is refused before FAISS sets memory aside for them.
 */
#include "reader_impl.h"

#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/error_c.h>
#include <faiss/c_api/index_io_c.h>

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "faiss_rows.h"

/* u32 code, i32 d, i64 ntotal, i64 2^20, i64 2^20, u8 is_trained, i32 metric */
#define HEADER_BYTES 37

typedef struct faiss_file {
    FaissIndex *index;
    pd_faiss_rows *rows;
} faiss_file;

static int faiss_claims(const unsigned char *head, size_t length)
{
    int64_t marks[2];
    if (length < HEADER_BYTES || head[0] != 'I' || !isalnum(head[1]) || !isalnum(head[2]) ||
        !isalnum(head[3]))
        return 0;
    memcpy(marks, head + 16, sizeof marks);
    return marks[0] == 1 << 20 && marks[1] == 1 << 20;
}

static pd_status check_header(const pd_reader *reader, pd_error *err)
{
    unsigned char head[HEADER_BYTES] = {0};
    if (reader->file_bytes >= sizeof head) {
        pd_status status = pd_reader_bytes(reader, 0, sizeof head, head, err);
        if (status) return status;
    }
    if (memcmp(head, "IB", 2) == 0)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s: a FAISS index of binary vectors; floats are read",
                       reader->path);
    if (!faiss_claims(head, sizeof head))
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s: not a FAISS index: it does not begin like one",
                       reader->path);
    int32_t d;
    int64_t ntotal;
    memcpy(&d, head + 4, sizeof d);
    memcpy(&ntotal, head + 8, sizeof ntotal);
    if (d <= 0 || ntotal < 0)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s: its header says %" PRId64 " rows of %" PRId32 " values",
                       reader->path, ntotal, d);
    if ((uint64_t)ntotal / 8 > reader->file_bytes)
        return pd_fail(err, PD_DATA_LOSS,
                       "%s: truncated: its header says %" PRId64 " rows, it has %" PRIu64 " bytes",
                       reader->path, ntotal, reader->file_bytes);
    return PD_OK;
}

/* FAISS's messages begin with a C++ signature and a source line; what a person needs stands behind them. */
static const char *essence(const char *words)
{
    if (!words) return "it did not say why";
    const char *from = strstr(words, "Error: ");
    return from ? from + strlen("Error: ") : words;
}

static pd_status check_ids(const pd_reader *reader, pd_error *err)
{
    for (uint64_t i = 0; reader->ids && i < reader->info.rows; i++)
        if (reader->ids[i] < 0)
            return pd_fail(err, PD_INVALID_ARGUMENT,
                           "%s: row %" PRIu64 " has the id %" PRId64 ", which is negative", reader->path, i,
                           reader->ids[i]);
    return PD_OK;
}

static pd_status faiss_read(pd_reader *reader, uint64_t first, uint64_t count, void *rows, pd_error *err)
{
    const faiss_file *self = reader->self;
    char why[300];
    if (pd_faiss_rows_get(self->rows, first, count, rows, why, sizeof why) == 0) return PD_OK;
    return pd_fail(err, PD_INVALID_ARGUMENT, "%s: cannot rebuild its vectors: %s", reader->path,
                   essence(why));
}

/* Some kinds turn out not to be able to rebuild their vectors only when asked: better before a push begins. */
static pd_status try_one_row(pd_reader *reader, pd_error *err)
{
    if (reader->info.rows == 0) return PD_OK;
    float *row = malloc(reader->info.dim * sizeof *row);
    if (!row) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory for a row", reader->path);
    pd_status status = faiss_read(reader, 0, 1, row, err);
    free(row);
    return status;
}

static pd_status faiss_open(pd_reader *reader, pd_error *err)
{
    pd_status status = check_header(reader, err);
    if (status) return status;
    faiss_file *self = calloc(1, sizeof *self);
    if (!self) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory", reader->path);
    if (faiss_read_index_fname(reader->path, 0, &self->index) != 0) {
        const char *words = essence(faiss_get_last_error());
        status = pd_fail(err, strstr(words, "read error") ? PD_DATA_LOSS : PD_INVALID_ARGUMENT,
                         "%s: FAISS cannot read it: %.300s", reader->path, words);
        goto err_after_calloc;
    }
    char why[300];
    self->rows = pd_faiss_rows_new(self->index, why, sizeof why);
    if (!self->rows) {
        status = pd_fail(err, PD_INVALID_ARGUMENT, "%s: cannot rebuild its vectors: %s", reader->path,
                         essence(why));
        goto err_after_index;
    }
    reader->info.dtype = PD_DTYPE_F32;
    reader->info.rows = (uint64_t)faiss_Index_ntotal(self->index);
    reader->info.dim = (uint32_t)faiss_Index_d(self->index);
    reader->ids = pd_faiss_rows_ids(self->rows);
    reader->self = self;
    status = check_ids(reader, err);
    if (status == PD_OK) status = try_one_row(reader, err);
    if (status == PD_OK) return PD_OK;

    reader->ids = NULL;
    reader->self = NULL;
    pd_faiss_rows_free(self->rows);
err_after_index:
    faiss_Index_free(self->index);
err_after_calloc:
    free(self);
    return status;
}

static void faiss_close(pd_reader *reader)
{
    faiss_file *self = reader->self;
    pd_faiss_rows_free(self->rows);
    faiss_Index_free(self->index);
    free(self);
}

const pd_reader_ops pd_reader_faiss = {
    .claims = faiss_claims, .open = faiss_open, .read = faiss_read, .close = faiss_close};
