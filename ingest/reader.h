/* Readers: a file of vectors becomes a stream of rows.
 *
 * Formats: .npy (f32, f16, i8), .fbin/.u8bin/.i8bin and .ibin (big-ann), .fvecs/.bvecs/.ivecs (TexMex),
 * ann-benchmarks HDF5, FAISS index files. A format is told by the file's content, by its extension where content
 * cannot tell, and by the caller's word over both. Files are read in pieces, never whole: one larger than memory
 * is readable. A truncated file, a wrong magic or a width that does not fit the length is refused by pd_reader_open
 * where the header can tell, else by pd_reader_read, naming the file and the row.
 */
#ifndef PD_READER_H
#define PD_READER_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

typedef enum pd_format {
    PD_FORMAT_AUTO = 0,
    PD_FORMAT_NPY,
    PD_FORMAT_FBIN,
    PD_FORMAT_U8BIN,
    PD_FORMAT_I8BIN,
    PD_FORMAT_IBIN,
    PD_FORMAT_FVECS,
    PD_FORMAT_BVECS,
    PD_FORMAT_IVECS,
    PD_FORMAT_HDF5,
    PD_FORMAT_FAISS,
} pd_format;

typedef enum pd_dtype {
    PD_DTYPE_F32,
    PD_DTYPE_F16,
    PD_DTYPE_I8,
    PD_DTYPE_U8,
    PD_DTYPE_I32,
    PD_DTYPE_I64,
    PD_DTYPE_U64,
} pd_dtype;

typedef struct pd_reader pd_reader;

typedef struct pd_reader_info {
    pd_format format;
    pd_dtype dtype; /* as stored */
    uint64_t rows;
    uint32_t dim;
    const char *how; /* "by content", "by extension", "as told": how the format was chosen */
} pd_reader_info;

const char *pd_format_name(pd_format format); /* "npy", "fbin", ...; "auto" */
pd_status pd_format_parse(const char *name, pd_format *format, pd_error *err);
const char *pd_dtype_name(pd_dtype dtype); /* "f32", ... */
size_t pd_dtype_size(pd_dtype dtype);      /* bytes a value */

/* path: a file, or FILE#member for an HDF5 file's data set (default "train", then the only 2-d one).
 * The caller frees the reader with pd_reader_close. NOT_FOUND, INVALID_ARGUMENT (wrong magic, unsupported dtype,
 * Fortran order), DATA_LOSS (shorter than its header promises). */
pd_status pd_reader_open(const char *path, pd_format format, pd_reader **out, pd_error *err);
void pd_reader_info_of(const pd_reader *reader, pd_reader_info *info);

/* Reads up to max rows onwards from where the last call ended, as f32: rows: [max][dim]. *got is 0 at the end.
 * NaN or infinity is refused: INVALID_ARGUMENT naming row and column (both from 0). */
pd_status pd_reader_read_f32(pd_reader *reader, uint64_t max, float *rows, uint64_t *got, pd_error *err);

/* The same without conversion: rows: [max][dim] of the stored dtype, little-endian. No look at the values. */
pd_status pd_reader_read_raw(pd_reader *reader, uint64_t max, void *rows, uint64_t *got, pd_error *err);

/* Integers (truth files: .ibin, .ivecs, HDF5 "neighbors", i32/i64 .npy): rows: [max][dim] as i64. */
pd_status pd_reader_read_i64(pd_reader *reader, uint64_t max, int64_t *rows, uint64_t *got, pd_error *err);

/* Back to row 0. */
pd_status pd_reader_rewind(pd_reader *reader, pd_error *err);
void pd_reader_close(pd_reader *reader);

/* Row ids: .npy (u64, i64; 1-d or n x 1) or text, one number a line. *ids: [count], freed by the caller with free().
 * Negative or not a number: INVALID_ARGUMENT naming the line or row. Duplicates are not looked for here. */
pd_status pd_read_ids(const char *path, uint64_t **ids, uint64_t *count, pd_error *err);

/* The ids stored inside a vector file (a FAISS index with an id map or IVF ids). NULL when it holds none:
 * rows are then 0..n-1. Owned by the reader. */
const int64_t *pd_reader_ids(const pd_reader *reader);

/* Writes .npy version 1.0, little-endian, C order. data: [rows][dim]; dim 0 writes a 1-d array. */
pd_status pd_write_npy(const char *path, pd_dtype dtype, uint64_t rows, uint32_t dim, const void *data,
                       pd_error *err);

/* f32 -> f16 (round to nearest even) and back live in kernels/f16.h. */

#endif
