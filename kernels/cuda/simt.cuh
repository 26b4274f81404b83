/* The names that kernels are written in.
 *
 * Under nvcc they are the real thing. Under -DPD_SIMT the same sources are plain C++ and tests/simt/simt.h declares
 * everything: threads of a block are fibers, barriers and warp operations are checked, and the runtime is a stand-in. So that both
 * can be, a kernel
 *   - is launched by PD_LAUNCH and never by <<< >>>, and takes its shared memory by PD_SHARED and PD_DYNAMIC;
 *   - copies asynchronously and multiplies matrices by the pd_ functions below only;
 *   - uses nothing of cub:: and never waits for another block;
 *   - names the lanes of every warp operation, which all of them must reach.
 * Everything else (threadIdx, __shfl_sync, __ballot_sync, atomicAdd, __dp4a, cudaMalloc...) has CUDA's own name.
 *
 * Written sequences of f32 operations (score.h) need no care: every source is built with -fmad=false.
 */
#ifndef PD_CUDA_SIMT_CUH
#define PD_CUDA_SIMT_CUH

#include <stddef.h>
#include <stdint.h>

#ifdef PD_SIMT

#include "simt.h"

#else

#include <cuda_runtime.h>

/* A function that both sides may call. The headers of kernels/ mark theirs with it. */
#define PD_HD __host__ __device__

/* Launches kernel and says whether it was taken: cudaError_t. Templates in parentheses: PD_LAUNCH((scan<4>), ...). */
#define PD_LAUNCH(kernel, grid, block, shared, stream, ...)                                                  \
    (kernel<<<grid, block, shared, stream>>>(__VA_ARGS__), cudaGetLastError())
/* A kernel may take `bytes` of dynamic shared memory (over 48 KiB it must be asked for): cudaError_t. */
#define PD_ALLOW_SHARED(kernel, bytes)                                                                       \
    cudaFuncSetAttribute((const void *)(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes))

/* PD_SHARED float sums[32];       PD_DYNAMIC(unsigned char, memory); */
#define PD_SHARED   __shared__
/* A large argument of a kernel that functions take by reference: it stays where the launch put it. */
#define PD_GRID     __grid_constant__
/* Before a loop: all of its rounds, or four at a time, are written out. */
#define PD_UNROLL   _Pragma("unroll")
#define PD_UNROLL_4 _Pragma("unroll 4")
#define PD_DYNAMIC(type, name)                                                                               \
    extern __shared__ __align__(128) unsigned char pd_dynamic_shared[];                                      \
    type *name = (type *)pd_dynamic_shared

/* The line of global memory is asked for, into the second cache. */
static __device__ __forceinline__ void pd_prefetch(const void *global)
{
    asm volatile("prefetch.global.L2 [%0];\n" ::"l"(global));
}

/* 16 bytes from global to shared memory, behind the thread's back until pd_async_wait; both aligned to 16. take < 16:
 * only so many bytes are read, the rest becomes zeros. */
static __device__ __forceinline__ void pd_async_copy16(void *shared, const void *global, uint32_t take = 16)
{
    uint32_t to = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(global), "r"(take)
                 : "memory");
}
/* Closes a group of copies. */
static __device__ __forceinline__ void pd_async_commit()
{
    asm volatile("cp.async.commit_group;\n" ::: "memory");
}
/* Until all but the last `pending` groups of this thread have arrived. Others see them after a barrier. */
template <int pending> static __device__ __forceinline__ void pd_async_wait()
{
    asm volatile("cp.async.wait_group %0;\n" ::"n"(pending) : "memory");
}

/* d += a * b over a warp: a is 16 x 32 i8 by rows, b is 32 x 8 i8 by columns, d is 16 x 8 i32 (mma.m16n8k32). With
 * g = lane / 4 and t = lane % 4, a register holds four neighbours in k:
 *   a[0] row g      k 4t .. 4t+3        b[0] column g  k 4t .. 4t+3
 *   a[1] row g + 8  k 4t .. 4t+3        b[1] column g  k 16+4t .. 16+4t+3
 *   a[2] row g      k 16+4t ..          d[0], d[1] row g      columns 2t, 2t + 1
 *   a[3] row g + 8  k 16+4t ..          d[2], d[3] row g + 8  columns 2t, 2t + 1 */
static __device__ __forceinline__ void pd_mma_i8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};\n"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Four 8 x 8 matrices of 16-bit values (8 rows of 16 bytes each) from shared memory: lane l gives the address of row
 * l % 8 of matrix l / 8; register i of lane l receives bytes 4 (l % 4) .. of row l / 4 of matrix i. */
static __device__ __forceinline__ void pd_load_matrix4(uint32_t (&r)[4], const void *shared)
{
    uint32_t from = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
}

#endif

/* Floats as whole numbers in the same order (no NaN), so that atomicMax serves as a running threshold. 0 lies under all. */
static PD_HD inline uint32_t pd_ordered(float value)
{
    union {
        float f;
        uint32_t u;
    } bits;
    bits.f = value;
    return bits.u & 0x80000000u ? ~bits.u : bits.u | 0x80000000u;
}
static PD_HD inline float pd_unordered(uint32_t order)
{
    union {
        float f;
        uint32_t u;
    } bits;
    bits.u = order & 0x80000000u ? order & 0x7fffffffu : ~order;
    return bits.f;
}

#define PD_ALL_LANES 0xffffffffu

#endif
