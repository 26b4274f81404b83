/* Coarse quantizer training: k-means whose assignment is the device's. docs/decisions/0007 says why it is not FAISS's. */
#ifndef PD_TRAIN_H
#define PD_TRAIN_H

#include <stdint.h>

#include "backend.h"
#include "cpu/pool.h"
#include "status.h"

typedef struct pd_train_options {
    uint32_t nlist;
    uint32_t iterations; /* at most; 0: 10 */
    uint64_t seed;       /* the same seed gives the same centroids, to the bit */
    int spherical;       /* centroids are normalised after each iteration (cosine) */
    pd_device *device;   /* assigns the rows */
    pd_pool *pool;       /* adds them up */
    /* Told now and then how many of total row assignments are done; not 0: the training ends, CANCELLED. NULL: nobody
     * is told. */
    int (*progress)(void *context, uint64_t done, uint64_t total);
    void *context;
} pd_train_options;

/* sample: [count][dim] finite f32, count >= nlist. centroids: [nlist][dim], the caller's; none is without a row of the
 * sample near it, unless rows are equal. The same for every number of threads and every instruction set of a backend.
 * INVALID_ARGUMENT when count < nlist, CANCELLED when progress said so, RESOURCE_EXHAUSTED. */
pd_status pd_train_centroids(const pd_train_options *options, uint64_t count, uint32_t dim,
                             const float *sample, float *centroids, pd_error *err);

#endif
