/* Building a version: validate, train, assign, order, encode, summarise, write.
 *
 * The input is what an upload left (rows of one dtype in a file or in memory, ids, attributes as CSV). Nothing of the
 * input is trusted. Memory: the rows are read through the page cache (mmap); about 30 bytes a row, the attribute columns
 * and a training sample of at most 1 GiB are held.
 */
#ifndef PD_BUILD_H
#define PD_BUILD_H

#include <stdint.h>

#include "backend.h"
#include "reader.h"
#include "schema.h"
#include "status.h"
#include "version.h"

/* From so many lists on, choosing among all of them costs enough that groups are chosen first: docs/decisions/0011. */
#define PD_GROUPS_FROM 16384u

typedef struct pd_build_input {
    const char *table;
    uint64_t version;
    const void *rows; /* [count][dim] of dtype, little-endian; usually a mapped file */
    pd_dtype dtype;   /* f32, f16, i8 or u8 */
    uint64_t count;
    uint32_t dim;
    const uint64_t *ids;         /* [count]; NULL: 0..count-1 */
    const char *attributes;      /* path of a CSV: header id,NAME,...; NULL: all unknown */
    const char *attributes_name; /* for messages; NULL: the path */
    /* Or, of a rebuild, attributes as columns of a schema that is complete, by input row as pd_rows has them: all that the schema
     * has, or all NULL. Floats decide the buckets of numbers (whose bytes are not read), NaN unknown; a counter's is taken as it
     * is. */
    const uint8_t *bytes; /* [count][nbytes] */
    const float *floats;  /* [count][nfloats]; need not be aligned, as rows need not */
    const uint64_t *keys; /* [count][nkeys] */
    int normalised;       /* cosine: rows have the norm 1 already, and are taken to the bit */
    /* i8 or u8: what a rebuilt version kept its rows in, so that the new one does too where all rows are such whole numbers still
     * and the schema does not say otherwise; else PD_REFINE_NONE. */
    pd_refine refine_was;
    const pd_schema
        *schema; /* as declared, or complete from an earlier version (its dictionaries are kept and grown) */
    uint32_t
        nlist; /* 0: the schema's, and where that is 0 too (or, of a rebuild, over the rows) pd_auto_nlist() */
    uint32_t groups_from; /* so many lists are put into groups, and more; 0: PD_GROUPS_FROM */
    uint64_t seed;
    uint64_t sequence;  /* the last change that is in the rows; 0: none */
    uint64_t parent;    /* the version that this one is rebuilt from; 0: it is pushed */
    double now;         /* when it is built, days since 1970-01-01; 0: now */
    uint64_t *unlisted; /* NULL, or receives how many rows have no line in the CSV */
} pd_build_input;

/* Lists for a table of rows: about 2 sqrt(rows) (finer lists scan fewer rows, but choosing among them and their last pages, half
 * empty, cost as much), a multiple of 8, at least 1, with at least about 39 rows a list in the
 * training sample (FAISS's own advice). 0 for index = none. */
uint32_t pd_auto_nlist(uint64_t rows);

/* The largest value that rows of such a table may hold. refine: as the version keeps it. */
float pd_build_largest(const pd_schema *schema, pd_refine refine);

/* Builds into folder (which must not exist; made as folder.tmp and renamed at the end; removed on failure). device: where
 * rows are assigned (a builder's own, idle). The calibration is left unmeasured.
 * INVALID_ARGUMENT naming row and column: NaN or infinity, a zero vector under cosine, a duplicate id (naming both rows),
 * an attribute row whose id is not there, an unknown column, a cell of the wrong kind, more values than a type holds; a value
 * without a name, a row that is not normalised where they are said to be; dim that is not the schema's.
 * RESOURCE_EXHAUSTED or DATA_LOSS with the file's name when the disk fails.
 * CANCELLED when progress says so. */
pd_status pd_build(const pd_build_input *input, const char *folder, pd_device *device, pd_progress progress,
                   void *context, pd_error *err);

#endif
