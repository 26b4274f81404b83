/* Coarse quantizer training: FAISS's k-means through its C API (faiss/c_api/Clustering_c.h). */
#ifndef PD_TRAIN_H
#define PD_TRAIN_H

#include <stdint.h>

#include "status.h"

typedef struct pd_train_options {
    uint32_t nlist;
    uint32_t iterations; /* 0: 10 */
    uint64_t seed;       /* the same seed gives the same centroids, to the bit */
    int spherical;       /* centroids are normalised after each iteration (cosine) */
    uint32_t threads;    /* 0: as many as the machine has */
    int (*stop)(
        void *context); /* asked now and then; not 0: the training ends, CANCELLED. NULL: nobody is asked */
    void *context;
} pd_train_options;

/* sample: [count][dim] f32, count >= nlist. centroids: [nlist][dim], the caller's.
 * INVALID_ARGUMENT when count < nlist, CANCELLED when stop said so, INTERNAL with FAISS's own words when it
 * fails. */
pd_status pd_train_centroids(const pd_train_options *options, uint64_t count, uint32_t dim,
                             const float *sample, float *centroids, pd_error *err);

#endif
