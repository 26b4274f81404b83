/* The cuBLAS calls that Pados makes, by plain loops. Column-major, as cuBLAS is. */
#ifndef PD_TEST_SIMT_CUBLAS_H
#define PD_TEST_SIMT_CUBLAS_H

#include "simt.h"

cudaError_t pd_simt_host_op(cudaStream_t stream, std::function<void()> op);

typedef enum cublasStatus_t {
    CUBLAS_STATUS_SUCCESS = 0,
    CUBLAS_STATUS_NOT_INITIALIZED = 1,
    CUBLAS_STATUS_ALLOC_FAILED = 3,
    CUBLAS_STATUS_EXECUTION_FAILED = 13
} cublasStatus_t;
typedef enum cublasOperation_t { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1 } cublasOperation_t;
typedef struct pd_simt_cublas {
    cudaStream_t stream;
} * cublasHandle_t;

static inline cublasStatus_t cublasCreate(cublasHandle_t *out)
{
    *out = new pd_simt_cublas();
    return CUBLAS_STATUS_SUCCESS;
}
static inline cublasStatus_t cublasDestroy(cublasHandle_t handle)
{
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}
static inline cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream)
{
    handle->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}
static inline const char *cublasGetStatusName(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_SUCCESS ? "CUBLAS_STATUS_SUCCESS" : "CUBLAS_STATUS_EXECUTION_FAILED";
}
static inline cublasStatus_t cublasSgemm(cublasHandle_t handle, cublasOperation_t opa, cublasOperation_t opb,
                                         int m, int n, int k, const float *alpha, const float *a, int lda,
                                         const float *b, int ldb, const float *beta, float *c, int ldc)
{
    float times = *alpha, keep = *beta;
    cudaError_t error = pd_simt_host_op(handle->stream, [=] {
        for (int j = 0; j < n; j++) {
            for (int i = 0; i < m; i++) {
                float sum = 0;
                for (int l = 0; l < k; l++)
                    sum += (opa == CUBLAS_OP_N ? a[i + (size_t)l * (size_t)lda]
                                               : a[l + (size_t)i * (size_t)lda]) *
                           (opb == CUBLAS_OP_N ? b[l + (size_t)j * (size_t)ldb]
                                               : b[j + (size_t)l * (size_t)ldb]);
                float *out = &c[i + (size_t)j * (size_t)ldc];
                *out = times * sum + (keep == 0.0f ? 0.0f : keep * *out);
            }
        }
    });
    return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

#endif
