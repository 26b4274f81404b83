/* K-means by FAISS, through its C API.
 *
 * The caller has drawn the sample, so FAISS must neither thin it out (max_points_per_centroid) nor complain about it
 * (min_points_per_centroid writes a warning to stderr). For spherical centroids rows are assigned by inner product,
 * for others by squared distance.
 */
#include "train.h"

#include "faiss_stop.h"

#include <faiss/c_api/Clustering_c.h>
#include <faiss/c_api/IndexFlat_c.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/error_c.h>

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <string.h>

#define DEFAULT_ITERATIONS 10

/* Of the OpenMP runtime that FAISS is linked with; <omp.h> would be that of the compiler at hand, which may lack it. */
extern int omp_get_max_threads(void);
extern int omp_get_num_procs(void);
extern void omp_set_num_threads(int threads);

static pd_status faiss_failed(const char *doing, pd_error *err)
{
    const char *words = faiss_get_last_error();
    return pd_fail(err, PD_INTERNAL, "FAISS, %s: %s", doing, words ? words : "it did not say why");
}

/* FAISS takes an int: all 64 bits of the seed count (the finaliser of splitmix64). */
static int fold_seed(uint64_t seed)
{
    seed = (seed ^ (seed >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    seed = (seed ^ (seed >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (int)((seed ^ (seed >> 31)) & INT_MAX);
}

static void normalise(uint64_t count, uint32_t dim, float *rows)
{
    for (uint64_t i = 0; i < count; i++, rows += dim) {
        double sum = 0;
        for (uint32_t j = 0; j < dim; j++)
            sum += (double)rows[j] * rows[j];
        float scale = sum > 0 ? (float)(1 / sqrt(sum)) : 0;
        for (uint32_t j = 0; j < dim; j++)
            rows[j] *= scale;
    }
}

static pd_status cluster(const pd_train_options *options, uint64_t count, uint32_t dim, const float *sample,
                         float *centroids, pd_error *err)
{
    FaissClusteringParameters parameters;
    faiss_ClusteringParameters_init(&parameters);
    parameters.niter = options->iterations ? (int)options->iterations : DEFAULT_ITERATIONS;
    parameters.spherical = options->spherical != 0;
    parameters.min_points_per_centroid = 1;
    parameters.max_points_per_centroid = INT_MAX;
    parameters.seed = fold_seed(options->seed);

    FaissClustering *clustering = NULL;
    if (faiss_Clustering_new_with_params(&clustering, (int)dim, (int)options->nlist, &parameters) != 0)
        return faiss_failed("preparing k-means", err);
    pd_status status = PD_OK;
    FaissIndex *index = NULL;
    int failed = options->spherical ? faiss_IndexFlatIP_new_with(&index, dim)
                                    : faiss_IndexFlatL2_new_with(&index, dim);
    if (failed) {
        status = faiss_failed("preparing an index", err);
        goto err_after_clustering;
    }
    pd_faiss_stop(options->stop, options->context);
    failed = faiss_Clustering_train(clustering, (idx_t)count, sample, index);
    pd_faiss_stop(NULL, NULL);
    if (failed) {
        status = options->stop && options->stop(options->context)
                     ? pd_fail(err, PD_CANCELLED, "the training was stopped")
                     : faiss_failed("training the centroids", err);
        goto err_after_index;
    }
    float *trained;
    size_t size;
    faiss_Clustering_centroids(clustering, &trained, &size);
    if (size != (size_t)options->nlist * dim)
        status = pd_fail(err, PD_INTERNAL, "FAISS gave %zu values for %" PRIu32 " centroids of %" PRIu32,
                         size, options->nlist, dim);
    else
        memcpy(centroids, trained, size * sizeof *centroids);

err_after_index:
    faiss_Index_free(index);
err_after_clustering:
    faiss_Clustering_free(clustering);
    return status;
}

pd_status pd_train_centroids(const pd_train_options *options, uint64_t count, uint32_t dim,
                             const float *sample, float *centroids, pd_error *err)
{
    if (options->nlist == 0 || options->nlist > INT_MAX || dim == 0 || dim > INT_MAX ||
        options->iterations > INT_MAX)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "cannot train %" PRIu32 " centroids of dim %" PRIu32 " in %" PRIu32 " iterations",
                       options->nlist, dim, options->iterations);
    if (count < options->nlist)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "%" PRIu32 " centroids need at least as many rows to train on, and %" PRIu64
                       " are given",
                       options->nlist, count);
    int threads = omp_get_max_threads();
    omp_set_num_threads(options->threads ? (int)options->threads : omp_get_num_procs());
    pd_status status = cluster(options, count, dim, sample, centroids, err);
    omp_set_num_threads(threads);
    /* With as many centroids as rows FAISS copies the rows as they are. */
    if (status == PD_OK && options->spherical && count == options->nlist)
        normalise(options->nlist, dim, centroids);
    return status;
}
