/* The cuBLAS calls that tests/gpu makes, by plain loops. Column-major, as cuBLAS is; sums go from the first dimension to the last. */
#ifndef PD_TEST_SIMT_CUBLAS_H
#define PD_TEST_SIMT_CUBLAS_H

#include "f16.h"
#include "simt.h"

cudaError_t pd_simt_host_op(cudaStream_t stream, std::function<void()> op);

typedef enum cublasStatus_t {
    CUBLAS_STATUS_SUCCESS = 0,
    CUBLAS_STATUS_NOT_INITIALIZED = 1,
    CUBLAS_STATUS_ALLOC_FAILED = 3,
    CUBLAS_STATUS_EXECUTION_FAILED = 13,
    CUBLAS_STATUS_NOT_SUPPORTED = 15
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
typedef enum cudaDataType_t { CUDA_R_32F = 0, CUDA_R_16F = 2, CUDA_R_8I = 3, CUDA_R_32I = 10 } cudaDataType_t;
typedef enum cublasComputeType_t { CUBLAS_COMPUTE_32F = 68, CUBLAS_COMPUTE_32I = 72 } cublasComputeType_t;
typedef enum cublasGemmAlgo_t { CUBLAS_GEMM_DEFAULT = -1 } cublasGemmAlgo_t;

/* c = op(a) op(b) of f16 in f32, or of i8 in i32: the rest of what it can is not asked for, and refused. */
static inline cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t opa, cublasOperation_t opb,
                                          int m, int n, int k, const void *alpha, const void *a,
                                          cudaDataType_t atype, int lda, const void *b, cudaDataType_t btype,
                                          int ldb, const void *beta, void *c, cudaDataType_t ctype, int ldc,
                                          cublasComputeType_t compute, cublasGemmAlgo_t)
{
    int whole = compute == CUBLAS_COMPUTE_32I;
    int plain = whole ? *(const int32_t *)alpha == 1 && *(const int32_t *)beta == 0
                      : *(const float *)alpha == 1.0f && *(const float *)beta == 0.0f;
    if (!plain || opa != CUBLAS_OP_T || opb != CUBLAS_OP_N || atype != btype ||
        atype != (whole ? CUDA_R_8I : CUDA_R_16F) || ctype != (whole ? CUDA_R_32I : CUDA_R_32F) || m < 1 ||
        n < 1 || k < 1 || lda < k || ldb < k || ldc < m ||
        (whole && (m % 4 || k % 4 || lda % 4 || ldb % 4 || ldc % 4)))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    cudaError_t error = pd_simt_host_op(handle->stream, [=] {
        for (size_t at = 0; at < (size_t)m * (size_t)n; at++) {
            size_t i = at % (size_t)m, j = at / (size_t)m, x = i * (size_t)lda, y = j * (size_t)ldb;
            float sum = 0;
            int32_t dot = 0;
            for (size_t l = 0; l < (size_t)k; l++) {
                if (whole)
                    dot += ((const int8_t *)a)[x + l] * ((const int8_t *)b)[y + l];
                else
                    sum +=
                        pd_f16_to_f32(((const pd_f16 *)a)[x + l]) * pd_f16_to_f32(((const pd_f16 *)b)[y + l]);
            }
            if (whole)
                ((int32_t *)c)[i + j * (size_t)ldc] = dot;
            else
                ((float *)c)[i + j * (size_t)ldc] = sum;
        }
    });
    return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

#endif
