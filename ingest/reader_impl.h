/* What the format files share: a reader's insides, and the few slots that a format fills.
 *
 * A format is a pd_reader_ops and nothing else: one exported symbol a file. It serves rows by number, [first,
 * first + count), so that reading on, reading in odd pieces and going back to the start are the same call; where the
 * reader stands, conversion and the look at the values are the business of reader.c.
 */
#ifndef PD_READER_IMPL_H
#define PD_READER_IMPL_H

#include "reader.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "the formats are little-endian and so is this reader");

/* How much of a file's start the formats are shown to tell it by. */
#define PD_READER_HEAD_BYTES 64

/* Conversion and de-interleaving go through a buffer of this size, or of one row where that is more. */
#define PD_READER_CHUNK_BYTES (1u << 20)

typedef struct pd_reader_ops {
    /* Optional (NULL: the content cannot tell). Whether a file that begins with head is this format's. */
    int (*claims)(const unsigned char *head, size_t length);

    /* Mandatory. Sets info.dtype, info.rows and info.dim (at least 1), and self and ids where it needs them.
     * Path, member, fd, file_bytes and info.format are set before. After a failure nothing is left to free. */
    pd_status (*open)(pd_reader *reader, pd_error *err);

    /* Mandatory. rows: [count][dim] of info.dtype, for rows first .. first + count - 1, which exist. */
    pd_status (*read)(pd_reader *reader, uint64_t first, uint64_t count, void *rows, pd_error *err);

    /* Optional. Frees self and ids; called once, after an open that succeeded. */
    void (*close)(pd_reader *reader);

    int has_members; /* FILE#member means something */
} pd_reader_ops;

extern const pd_reader_ops pd_reader_npy;
extern const pd_reader_ops pd_reader_bigann;
extern const pd_reader_ops pd_reader_vecs;
extern const pd_reader_ops pd_reader_hdf5;
extern const pd_reader_ops pd_reader_faiss;

struct pd_reader {
    const pd_reader_ops *ops;
    void *self;
    pd_reader_info info;
    char *path;   /* of the file, without #member */
    char *member; /* NULL where none is named */
    int fd;       /* of the file, open for reading */
    uint64_t file_bytes;
    uint64_t at;        /* the row that the next read begins with */
    const int64_t *ids; /* [rows], NULL: 0 .. rows - 1 */
    void *chunk;        /* chunk_rows rows as stored, allocated when first needed */
    uint64_t chunk_rows;
};

/* length bytes of the file from offset. DATA_LOSS when it ends before. */
pd_status pd_reader_bytes(const pd_reader *reader, uint64_t offset, uint64_t length, void *into,
                          pd_error *err);

/* That the file is exactly header + rows * row_bytes long. DATA_LOSS when shorter, INVALID_ARGUMENT when longer or
 * when the product overflows; the message says what is needed and what is there. */
pd_status pd_reader_expect_length(const pd_reader *reader, uint64_t header, uint64_t rows, uint64_t row_bytes,
                                  pd_error *err);

/* How many rows of row_bytes fit the working buffer: at least one. */
uint64_t pd_reader_chunk_rows(uint64_t row_bytes);

#endif
