/* A FAISS index seen as a matrix: row numbers to vectors and ids.
 *
 * FAISS's C API reconstructs a vector by its id, which for inverted lists with ids of their own needs a map that the
 * C API cannot make, and its reconstruct_n() throws out of an OpenMP region (and so ends the process) where a kind of
 * index cannot reconstruct. These three calls close that gap in C++, and check first that the sizes which the index
 * read from its file agree with one another.
 */
#ifndef PD_FAISS_ROWS_H
#define PD_FAISS_ROWS_H

#include <faiss/c_api/Index_c.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pd_faiss_rows pd_faiss_rows;

/* index must outlive the result, which pd_faiss_rows_free frees. Rows stand in the order of an inverted index's ids
 * where these are 0 .. n - 1, in the order of its lists where they are not, and in the order of adding elsewhere.
 * On failure: NULL, and a sentence in why (of size bytes). */
pd_faiss_rows *pd_faiss_rows_new(const FaissIndex *index, char *why, size_t size);

/* [ntotal], owned by rows; NULL when the ids are 0 .. n - 1. */
const int64_t *pd_faiss_rows_ids(const pd_faiss_rows *rows);

/* out: [count][d] f32, for rows first .. first + count - 1, which exist. 0, or not and a sentence in why. */
int pd_faiss_rows_get(const pd_faiss_rows *rows, uint64_t first, uint64_t count, float *out, char *why,
                      size_t size);

void pd_faiss_rows_free(pd_faiss_rows *rows);

#ifdef __cplusplus
}
#endif

#endif
