/* PCA: the covariance in double by BLAS, its largest eigenvectors by LAPACK. One thread, so that the same rows give the same
 * directions whatever else the machine does; on another kind of processor BLAS may round otherwise, and the last bits of a
 * projected version may differ. */
#include "principal.h"

#include <cblas.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_ROWS 256u

/* LAPACK's own declaration; gfortran passes the lengths of strings last. */
extern void dsyevr_(const char *job, const char *range, const char *part, const int *n, double *a,
                    const int *lda, const double *low, const double *high, const int *first, const int *last,
                    const double *tolerance, int *found, double *values, double *vectors, const int *ldz,
                    int *support, double *work, const int *nwork, int *whole, const int *nwhole, int *info,
                    size_t job_length, size_t range_length, size_t part_length);

/* Sums over the rows of the products of what two dimensions are off their means. out: [dim][dim], the lower half */
static pd_status covariance(const float *rows, uint64_t n, uint32_t dim, double *out, pd_error *err)
{
    double *mean = calloc(dim, sizeof *mean), *block = malloc((size_t)BLOCK_ROWS * dim * sizeof *block);
    if (!mean || !block) {
        free(mean);
        free(block);
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the covariance of %u dimensions", dim);
    }
    for (uint64_t i = 0; i < n; i++)
        for (uint32_t d = 0; d < dim; d++)
            mean[d] += (double)rows[i * dim + d];
    for (uint32_t d = 0; d < dim; d++)
        mean[d] /= (double)n;
    memset(out, 0, (size_t)dim * dim * sizeof *out);
    for (uint64_t first = 0; first < n; first += BLOCK_ROWS) {
        uint32_t count = n - first < BLOCK_ROWS ? (uint32_t)(n - first) : BLOCK_ROWS;
        for (uint32_t i = 0; i < count; i++)
            for (uint32_t d = 0; d < dim; d++)
                block[(size_t)i * dim + d] = (double)rows[(first + i) * dim + d] - mean[d];
        cblas_dsyrk(CblasRowMajor, CblasLower, CblasTrans, (int)dim, (int)count, 1.0, block, (int)dim, 1.0,
                    out, (int)dim);
    }
    free(mean);
    free(block);
    return PD_OK;
}

/* The count last eigenvectors of the lower half of a, in ascending order of their values. vectors: [count][dim] */
static pd_status largest(double *a, uint32_t dim, uint32_t count, double *vectors, pd_error *err)
{
    /* A row-major lower half is a column-major upper one. */
    const int n = (int)dim, first = (int)(dim - count + 1), last = n, ask = -1;
    const double none = 0;
    int found = 0, info = 0, nwhole = 0;
    double *values = malloc(dim * sizeof *values), wanted = 0;
    int *support = malloc(2 * (size_t)dim * sizeof *support);
    double *work = NULL;
    int *whole = NULL;
    pd_status status = PD_OK;
    if (values && support)
        dsyevr_("V", "I", "U", &n, a, &n, &none, &none, &first, &last, &none, &found, values, vectors, &n,
                support, &wanted, &ask, &nwhole, &ask, &info, 1, 1, 1);
    const int nwork = (int)wanted;
    if (info == 0 && nwork > 0) {
        work = malloc((size_t)nwork * sizeof *work);
        whole = malloc((size_t)nwhole * sizeof *whole);
    }
    if (!work || !whole) {
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the directions of %u dimensions", dim);
    } else {
        dsyevr_("V", "I", "U", &n, a, &n, &none, &none, &first, &last, &none, &found, values, vectors, &n,
                support, work, &nwork, whole, &nwhole, &info, 1, 1, 1);
        if (info != 0 || found != (int)count)
            status = pd_fail(err, PD_INTERNAL, "LAPACK found %d of %u directions (%d)", found, count, info);
    }
    free(values);
    free(support);
    free(work);
    free(whole);
    return status;
}

pd_status pd_principal_directions(const float *rows, uint64_t n, uint32_t dim, uint32_t count,
                                  float *directions, pd_error *err)
{
    double *squares = malloc((size_t)dim * dim * sizeof *squares);
    double *vectors = malloc((size_t)count * dim * sizeof *vectors);
    pd_status status = PD_RESOURCE_EXHAUSTED;
    openblas_set_num_threads(1);
    if (squares && vectors)
        status = covariance(rows, n, dim, squares, err);
    else
        pd_fail(err, status, "no memory for the directions of %u dimensions", dim);
    if (!status) status = largest(squares, dim, count, vectors, err);
    for (uint32_t j = 0; !status && j < count; j++)
        for (uint32_t d = 0; d < dim; d++)
            directions[(size_t)j * dim + d] = (float)vectors[(size_t)(count - 1 - j) * dim + d];
    free(squares);
    free(vectors);
    return status;
}
