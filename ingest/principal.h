/* Principal directions, for codes of fewer dimensions than the rows (kernels/project.h). */
#ifndef PD_PRINCIPAL_H
#define PD_PRINCIPAL_H

#include <stdint.h>

#include "status.h"

/* The directions along which n rows vary most, best first: orthonormal eigenvectors of their covariance, by LAPACK on one thread.
 * rows: [n][dim], directions: [count][dim], 1 <= count <= dim. RESOURCE_EXHAUSTED; INTERNAL: LAPACK found none. */
pd_status pd_principal_directions(const float *rows, uint64_t n, uint32_t dim, uint32_t count,
                                  float *directions, pd_error *err);

#endif
