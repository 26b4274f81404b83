/* CUDA's names for sources compiled as C++ and run on the CPU: test equipment, no emulator.
 *
 * A block's threads are fibers on one thread of the machine. They are started in a shuffled order and change hands at
 * barriers and warp operations; blocks run one after another, shuffled as well. Checked: that all threads of a block wait at the
 * same barriers equally often, that the lanes which a warp operation names all reach the same one, that an asynchronous
 * copy has been waited for before its bytes are there, and, since shared and device memory are ordinary allocations, every access
 * by the address sanitizer. A failed check ends the launch, and the runtime then answers cudaErrorLaunchFailure for good;
 * pd_simt_failure says why. A build with -DPADOS_SANITIZE=thread checks besides that what threads of a block do to the same
 * memory is ordered by a barrier or a __syncwarp (simt.cpp). Not checked: races between blocks, and all timing.
 *
 * The runtime stand-in keeps what a host can get wrong: work on a stream is done as late as the calls allow (at a
 * synchronisation, or when something waited for depends on it), device memory is unreadable to the host outside kernels and
 * copies, fresh memory is full of rubbish, and any call can be made to fail.
 */
#ifndef PD_TEST_SIMT_H
#define PD_TEST_SIMT_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <functional>

#include "runtime.h"
#include "vectors.h"

#define __global__
#define __device__
#define __host__
#define __constant__    static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#ifndef __restrict__
#define __restrict__ __restrict
#endif
#define PD_HD
#if defined(__SANITIZE_ADDRESS__)
#define PD_SHARED static
#else
#define PD_SIMT_SHARED_SECTION
#define PD_SHARED static __attribute__((section("pd_shared")))
#endif
#define PD_GRID
#define PD_UNROLL
#define PD_UNROLL_4

/* ------------------------------------------------------------------------------------------- launching --- */

/* The launch joins the stream; its arguments are copied now. shared: bytes of dynamic shared memory. */
cudaError_t pd_simt_enqueue(const char *name, const void *kernel, dim3 grid, dim3 block, size_t shared,
                            cudaStream_t stream, std::function<void()> body);
template <typename... P, typename... A>
static inline cudaError_t pd_simt_launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block,
                                         size_t shared, cudaStream_t stream, A... args)
{
    return pd_simt_enqueue(name, (const void *)kernel, grid, block, shared, stream,
                           [=] { kernel(static_cast<P>(args)...); });
}
#define PD_LAUNCH(kernel, grid, block, shared, stream, ...)                                                  \
    pd_simt_launch(#kernel, kernel, grid, block, shared, stream, __VA_ARGS__)
#define PD_ALLOW_SHARED(kernel, bytes) pd_simt_allow_shared((const void *)(kernel), (size_t)(bytes))
cudaError_t pd_simt_allow_shared(const void *kernel, size_t bytes);

/* ----------------------------------------------------------------------------------- inside a kernel --- */

/* The running thread. */
typedef struct pd_simt_place {
    uint3 thread, block;
    dim3 threads, blocks;
    unsigned char *shared; /* dynamic */
    uint32_t lane;
} pd_simt_place;
extern pd_simt_place *pd_simt_here;

#define threadIdx              (pd_simt_here->thread)
#define blockIdx               (pd_simt_here->block)
#define blockDim               (pd_simt_here->threads)
#define gridDim                (pd_simt_here->blocks)
#define warpSize               32
#define PD_DYNAMIC(type, name) type *name = (type *)pd_simt_here->shared

enum pd_simt_vote { PD_SIMT_PLAIN, PD_SIMT_OR, PD_SIMT_AND, PD_SIMT_COUNT };
int pd_simt_barrier(pd_simt_vote vote, int value, const char *file, int line);
static inline void __syncthreads(const char *file = __builtin_FILE(), int line = __builtin_LINE())
{
    pd_simt_barrier(PD_SIMT_PLAIN, 0, file, line);
}
static inline int __syncthreads_or(int value, const char *file = __builtin_FILE(),
                                   int line = __builtin_LINE())
{
    return pd_simt_barrier(PD_SIMT_OR, value, file, line);
}
static inline int __syncthreads_and(int value, const char *file = __builtin_FILE(),
                                    int line = __builtin_LINE())
{
    return pd_simt_barrier(PD_SIMT_AND, value, file, line);
}
static inline int __syncthreads_count(int value, const char *file = __builtin_FILE(),
                                      int line = __builtin_LINE())
{
    return pd_simt_barrier(PD_SIMT_COUNT, value, file, line);
}

/* A warp operation: when all lanes of mask are there, work sees what each brought (NULL for lanes outside mask). orders: what the
 * lanes did before is seen by the others after it, which of all warp operations only __syncwarp promises. */
typedef void (*pd_simt_work)(void *const lanes[32], uint32_t mask);
void pd_simt_meet(uint32_t mask, void *mine, pd_simt_work work, const char *what, bool orders = false);
/* Ends the launch: a check failed. */
[[noreturn]] void pd_simt_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Lets other threads go first, now and then. */
void pd_simt_waver();
void pd_simt_async_copy16(void *shared, const void *global, uint32_t take);
void pd_simt_async_commit();
void pd_simt_async_wait(uint32_t pending);

/* Nothing to fetch; what is asked for must be there. */
static inline void pd_prefetch(const void *global)
{
    (void)*(const volatile unsigned char *)global;
}
static inline void pd_async_copy16(void *shared, const void *global, uint32_t take = 16)
{
    pd_simt_async_copy16(shared, global, take);
}
static inline void pd_async_commit()
{
    pd_simt_async_commit();
}
template <int pending> static inline void pd_async_wait()
{
    pd_simt_async_wait(pending);
}

#include "warp.h"

#endif
