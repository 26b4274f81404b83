/* The harness itself: it must run right kernels rightly, and catch the wrong ones. */
#include "check.h"
#include "simt.cuh"

#define THREADS 96

static cudaStream_t stream;
static float *device_data;

static int open_stream(void **)
{
    pd_simt_recover();
    if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess) return -1;
    return cudaMalloc(&device_data, 4096) == cudaSuccess ? 0 : -1;
}

static int close_stream(void **)
{
    pd_simt_fail_at(0, cudaSuccess, 0);
    pd_simt_recover();
    cudaFree(device_data);
    cudaStreamDestroy(stream);
    return pd_simt_live() == 0 ? 0 : -1;
}

static void fetch(void *to, size_t bytes)
{
    assert_int_equal(cudaMemcpyAsync(to, device_data, bytes, cudaMemcpyDeviceToHost, stream), cudaSuccess);
    assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
}

/* --------------------------------------------------------------------------------------------- kernels --- */

__global__ static void reverse(float *out, int wait)
{
    PD_SHARED float values[THREADS];
    PD_DYNAMIC(float, more);
    values[threadIdx.x] = (float)threadIdx.x;
    more[threadIdx.x] = 1000.0f * (float)blockIdx.x;
    if (wait) __syncthreads();
    uint32_t other = THREADS - 1 - threadIdx.x;
    out[blockIdx.x * THREADS + threadIdx.x] = values[other] + more[other];
}

static int wrong_in_reverse(int wait)
{
    float out[3 * THREADS];
    assert_int_equal(PD_LAUNCH(reverse, 3, THREADS, THREADS * sizeof(float), stream, device_data, wait),
                     cudaSuccess);
    fetch(out, sizeof out);
    int wrong = 0;
    for (int i = 0; i < 3 * THREADS; i++)
        wrong += out[i] != (float)(THREADS - 1 - i % THREADS + 1000 * (i / THREADS));
    return wrong;
}

static void test_threads_see_what_others_wrote_before_a_barrier(void **)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        pd_simt_seed(seed);
        assert_int_equal(wrong_in_reverse(1), 0);
    }
}

static void test_a_removed_barrier_is_caught(void **)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        pd_simt_seed(seed);
        assert_true(wrong_in_reverse(0) > 0);
    }
}

#if defined(__SANITIZE_THREAD__)
/* The races of this program are meant: they are counted. */
extern "C" const char *__tsan_default_options();
extern "C" const char *__tsan_default_options()
{
    return "exitcode=0:log_path=/dev/null:suppress_equal_stacks=0:suppress_equal_addresses=0";
}

/* Lanes hand values on, without a word, or by a shuffle, which orders no memory, or by __syncwarp, which does; kind 3: threads
 * of other warps after a __syncwarp; 4: atomics, then a plain read with and (5) without a barrier between. */
__global__ static void hand_on(uint32_t *out, int kind)
{
    PD_SHARED uint32_t values[64], total;
    uint32_t t = threadIdx.x, none = 0;
    if (t == 0) total = 0;
    __syncthreads();
    values[t] = t;
    atomicAdd(&total, 1u);
    if (kind == 1) none = __shfl_sync(PD_ALL_LANES, 0u, 0);
    if (kind == 2 || kind == 3) __syncwarp();
    if (kind == 4) __syncthreads();
    if (kind < 3) out[t] = values[t ^ 1u] + none;
    if (kind == 3) out[t] = values[t ^ 32u];
    if (kind > 3) out[t] = total;
}

static void test_races_are_found_which_no_order_of_threads_shows(void **)
{
    const bool races[] = {true, true, false, true, false, true};
    for (int kind = 0; kind < 6; kind++) {
        uint32_t before = pd_simt_races();
        for (uint64_t seed = 1; seed <= 5; seed++) {
            pd_simt_seed(seed);
            assert_int_equal(PD_LAUNCH(hand_on, 1, 64, 0, stream, (uint32_t *)device_data, kind),
                             cudaSuccess);
            assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
        }
        assert_int_equal(pd_simt_races() > before, races[kind]);
    }
}
#endif

__global__ static void look_first(uint32_t *out)
{
    PD_SHARED uint32_t word;
    PD_DYNAMIC(uint32_t, more);
    out[2 * blockIdx.x] = word;
    out[2 * blockIdx.x + 1] = more[0];
    __syncthreads();
    word = more[0] = 7;
}

static void test_shared_memory_begins_as_rubbish_in_every_block(void **)
{
    uint32_t out[8];
    assert_int_equal(PD_LAUNCH(look_first, 4, 32, 4, stream, (uint32_t *)device_data), cudaSuccess);
    fetch(out, sizeof out);
    for (int i = 0; i < 8; i++) {
#if defined(__SANITIZE_ADDRESS__)
        if (i % 2 == 0) continue;
#endif
        assert_int_equal(out[i], 0xa5a5a5a5u);
    }
}

static void test_much_shared_memory_must_be_asked_for(void **)
{
    size_t much = (size_t)64 << 10;
    uint32_t *data = (uint32_t *)device_data;
    assert_int_equal(PD_LAUNCH(look_first, 1, 32, much, stream, data), cudaErrorInvalidValue);
    assert_non_null(strstr(pd_simt_failure(), "asked for"));
    assert_int_equal(PD_ALLOW_SHARED(look_first, much), cudaSuccess);
    assert_int_equal(PD_LAUNCH(look_first, 1, 32, much + 1, stream, data), cudaErrorInvalidValue);
    assert_int_equal(PD_LAUNCH(look_first, 1, 32, much, stream, data), cudaSuccess);
    assert_int_equal(PD_ALLOW_SHARED(look_first, (size_t)228 << 10), cudaErrorInvalidValue);
    assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
}

__global__ static void divergent(float *out, int kind)
{
    if (kind == 0 && threadIdx.x == 7) return; /* leaves before the barrier */
    if (kind == 1 && threadIdx.x >= 32) {      /* waits at another one */
        __syncthreads();
        out[threadIdx.x] = 1.0f;
        return;
    }
    if (kind == 2 && threadIdx.x == 3) __syncthreads(); /* once more than the others */
    __syncthreads();
    out[threadIdx.x] = 0.0f;
}

static void launch_fails(int kind, const char *says)
{
    assert_int_equal(PD_LAUNCH(divergent, 1, THREADS, 0, stream, device_data, kind), cudaSuccess);
    assert_int_equal(cudaStreamSynchronize(stream), cudaErrorLaunchFailure);
    assert_non_null(strstr(pd_simt_failure(), says));
    /* As a real device's, the failure stays. */
    assert_int_equal(cudaStreamSynchronize(stream), cudaErrorLaunchFailure);
    pd_simt_recover();
    assert_int_equal(wrong_in_reverse(1), 0);
}

static void test_a_barrier_that_not_every_thread_reaches_is_caught(void **)
{
    launch_fails(0, "have left");
    launch_fails(1, "while others wait at");
    launch_fails(2, "test_harness.cpp");
}

__global__ static void warp_sums(uint32_t *out, int absent)
{
    uint32_t lane = threadIdx.x % 32;
    if (absent && lane == 5) return;
    uint32_t sum = lane;
    for (int by = 16; by > 0; by /= 2)
        sum += __shfl_xor_sync(PD_ALL_LANES, sum, by);
    uint32_t odd = __ballot_sync(PD_ALL_LANES, lane & 1), up = __shfl_up_sync(PD_ALL_LANES, lane, 3u);
    uint32_t half = 0;
    if (lane < 16) {
        half = __ballot_sync(0xffffu, lane % 3 == 0);
        half += __reduce_max_sync(0xffffu, lane);
    } else {
        half = __ballot_sync(0xffff0000u, lane % 3 == 0);
    }
    if (sum != 496 || odd != 0xaaaaaaaau || up != (lane < 3 ? lane : lane - 3)) half = 0;
    out[threadIdx.x] = half;
}

static void test_warp_operations_give_what_cuda_gives(void **)
{
    uint32_t out[64], low = 15, high = 0;
    for (uint32_t l = 0; l < 32; l += 3)
        *(l < 16 ? &low : &high) += 1u << l;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        pd_simt_seed(seed);
        assert_int_equal(PD_LAUNCH(warp_sums, 1, 64, 0, stream, (uint32_t *)device_data, 0), cudaSuccess);
        fetch(out, sizeof out);
        for (uint32_t t = 0; t < 64; t++)
            assert_int_equal(out[t], t % 32 < 16 ? low : high);
    }
}

static void test_a_lane_that_does_not_come_is_caught(void **)
{
    assert_int_equal(PD_LAUNCH(warp_sums, 1, 64, 0, stream, (uint32_t *)device_data, 1), cudaSuccess);
    assert_int_equal(cudaStreamSynchronize(stream), cudaErrorLaunchFailure);
    assert_non_null(strstr(pd_simt_failure(), "lanes that do not come"));
}

__global__ static void product(const int8_t *a, const int8_t *b, int *out)
{
    uint32_t lane = threadIdx.x, g = lane / 4, t = lane % 4, ra[4], rb[2];
    int d[4] = {1, 1, 1, 1};
    for (uint32_t r = 0; r < 4; r++)
        memcpy(&ra[r], a + (g + 8 * (r & 1)) * 32 + 16 * (r >> 1) + 4 * t, 4);
    for (uint32_t r = 0; r < 2; r++)
        memcpy(&rb[r], b + g * 32 + 16 * r + 4 * t, 4); /* columns of b side by side */
    pd_mma_i8(d, ra, rb);
    for (uint32_t i = 0; i < 4; i++)
        out[(g + 8 * (i >> 1)) * 8 + 2 * t + (i & 1)] = d[i];
}

static void test_the_matrix_product_is_exact(void **)
{
    int8_t a[16 * 32], b[8 * 32];
    int out[16 * 8];
    for (int i = 0; i < 16 * 32; i++)
        a[i] = (int8_t)(i * 37 % 255 - 127);
    for (int i = 0; i < 8 * 32; i++)
        b[i] = (int8_t)(i * 91 % 255 - 127);
    int8_t *data = (int8_t *)device_data;
    assert_int_equal(cudaMemcpyAsync(data + 1024, a, sizeof a, cudaMemcpyHostToDevice, stream), cudaSuccess);
    assert_int_equal(cudaMemcpyAsync(data + 2048, b, sizeof b, cudaMemcpyHostToDevice, stream), cudaSuccess);
    assert_int_equal(PD_LAUNCH(product, 1, 32, 0, stream, data + 1024, data + 2048, (int *)data),
                     cudaSuccess);
    fetch(out, sizeof out);
    for (int i = 0; i < 16; i++) {
        for (int j = 0; j < 8; j++) {
            int sum = 1;
            for (int k = 0; k < 32; k++)
                sum += a[i * 32 + k] * b[j * 32 + k];
            assert_int_equal(out[i * 8 + j], sum);
        }
    }
}

/* The layouts of mma.m16n8k32 for .s8, element by element as the PTX manual numbers them ("Matrix Fragments for mma.m16n8k32"): a
 * thread's a0 .. a15 and b0 .. b7 lie four to a register, low byte first. Written from the manual and not from the stand-in. */
static __device__ int row_of_a(int laneid, int i)
{
    int group = laneid >> 2;
    return (0 <= i && i < 4) || (8 <= i && i < 12) ? group : group + 8;
}
static __device__ int col_of_a(int laneid, int i)
{
    int in_group = laneid % 4;
    return i < 8 ? in_group * 4 + (i & 0x3) : in_group * 4 + (i & 0x3) + 16;
}
static __device__ int row_of_b(int laneid, int i)
{
    int in_group = laneid % 4;
    return i < 4 ? in_group * 4 + (i & 0x3) : in_group * 4 + (i & 0x3) + 16;
}
static __device__ int col_of_b(int laneid, int)
{
    return laneid >> 2;
}
static __device__ int row_of_c(int laneid, int i)
{
    return i < 2 ? laneid >> 2 : (laneid >> 2) + 8;
}
static __device__ int col_of_c(int laneid, int i)
{
    return laneid % 4 * 2 + (i & 0x1);
}

/* a: [16][32], b: [32][8], c: [16][8] */
__global__ static void documented(const int8_t *a, const int8_t *b, int *c)
{
    int lane = (int)threadIdx.x, d[4];
    uint32_t ra[4] = {0, 0, 0, 0}, rb[2] = {0, 0};
    for (int i = 0; i < 16; i++)
        ra[i / 4] |= (uint32_t)(uint8_t)a[row_of_a(lane, i) * 32 + col_of_a(lane, i)] << (8 * (i % 4));
    for (int i = 0; i < 8; i++)
        rb[i / 4] |= (uint32_t)(uint8_t)b[row_of_b(lane, i) * 8 + col_of_b(lane, i)] << (8 * (i % 4));
    for (int i = 0; i < 4; i++)
        d[i] = c[row_of_c(lane, i) * 8 + col_of_c(lane, i)];
    pd_mma_i8(d, ra, rb);
    for (int i = 0; i < 4; i++)
        c[row_of_c(lane, i) * 8 + col_of_c(lane, i)] = d[i];
}

static void test_fragments_lie_where_the_manual_puts_them(void **)
{
    int8_t a[16 * 32], b[32 * 8], *data = (int8_t *)device_data;
    int c[16 * 8], out[16 * 8];
    uint32_t state = 1;
    for (int8_t &x : a)
        x = (int8_t)((state = state * 1664525u + 1013904223u) >> 24);
    for (int8_t &x : b)
        x = (int8_t)((state = state * 1664525u + 1013904223u) >> 24);
    a[0] = a[511] = b[0] = b[255] = -128;
    for (int i = 0; i < 16 * 8; i++)
        c[i] = i * 1000003;
    assert_int_equal(cudaMemcpyAsync(data, c, sizeof c, cudaMemcpyHostToDevice, stream), cudaSuccess);
    assert_int_equal(cudaMemcpyAsync(data + 1024, a, sizeof a, cudaMemcpyHostToDevice, stream), cudaSuccess);
    assert_int_equal(cudaMemcpyAsync(data + 2048, b, sizeof b, cudaMemcpyHostToDevice, stream), cudaSuccess);
    assert_int_equal(PD_LAUNCH(documented, 1, 32, 0, stream, data + 1024, data + 2048, (int *)data),
                     cudaSuccess);
    fetch(out, sizeof out);
    for (int i = 0; i < 16; i++) {
        for (int j = 0; j < 8; j++) {
            int sum = c[i * 8 + j];
            for (int k = 0; k < 32; k++)
                sum += a[i * 32 + k] * b[k * 8 + j];
            assert_int_equal(out[i * 8 + j], sum);
        }
    }
}

__global__ static void async_copy(const uint32_t *in, uint32_t *out, int wait)
{
    PD_SHARED __align__(16) uint32_t pages[2][4];
    if (threadIdx.x == 0) {
        pd_async_copy16(pages[0], in);
        pd_async_commit();
        pd_async_copy16(pages[1], in + 4, 8);
        pd_async_commit();
        if (wait == 1) pd_async_wait<1>();
        if (wait == 2) pd_async_wait<0>();
    }
    __syncthreads();
    if (threadIdx.x < 8) out[threadIdx.x] = pages[threadIdx.x / 4][threadIdx.x % 4];
}

static void test_an_asynchronous_copy_is_there_when_it_was_waited_for_and_not_before(void **)
{
    uint32_t in[8] = {1, 2, 3, 4, 5, 6, 7, 8}, out[8];
    uint32_t *data = (uint32_t *)device_data;
    assert_int_equal(cudaMemcpyAsync(data + 64, in, sizeof in, cudaMemcpyHostToDevice, stream), cudaSuccess);
    for (int wait = 0; wait <= 2; wait++) {
        assert_int_equal(PD_LAUNCH(async_copy, 1, 32, 0, stream, data + 64, data, wait), cudaSuccess);
        fetch(out, sizeof out);
        for (uint32_t i = 0; i < 8; i++) {
            int there = wait == 2 || (wait == 1 && i < 4);
            assert_int_equal(out[i], !there ? 0xeeeeeeeeu : i < 6 ? i + 1 : 0);
        }
    }
}

__global__ static void count_up(unsigned *total, unsigned *most)
{
    atomicAdd(total, 1u);
    atomicMax(most, blockIdx.x * blockDim.x + threadIdx.x);
}

static void test_atomics_lose_nothing(void **)
{
    unsigned out[2];
    assert_int_equal(cudaMemsetAsync(device_data, 0, 8, stream), cudaSuccess);
    assert_int_equal(PD_LAUNCH(count_up, dim3(5), dim3(200), 0, stream, (unsigned *)device_data,
                               (unsigned *)device_data + 1),
                     cudaSuccess);
    fetch(out, sizeof out);
    assert_int_equal(out[0], 1000);
    assert_int_equal(out[1], 999);
}

/* ------------------------------------------------------------------------------------------------ runtime --- */

static void test_work_on_a_stream_waits_for_what_it_depends_on(void **)
{
    cudaStream_t other;
    cudaEvent_t event;
    float *pinned;
    assert_int_equal(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), cudaSuccess);
    assert_int_equal(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);
    assert_int_equal(cudaMallocHost(&pinned, 64), cudaSuccess);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        pd_simt_seed(seed);
        float out[4];
        for (int i = 0; i < 4; i++)
            pinned[i] = (float)(seed * 10 + (uint64_t)i);
        assert_int_equal(cudaMemcpyAsync(device_data, pinned, 16, cudaMemcpyHostToDevice, other),
                         cudaSuccess);
        assert_int_equal(cudaEventRecord(event, other), cudaSuccess);
        assert_int_equal(cudaStreamWaitEvent(stream, event), cudaSuccess);
        fetch(out, sizeof out);
        for (int i = 0; i < 4; i++)
            assert_true(out[i] == pinned[i]);
    }
    cudaFreeHost(pinned);
    cudaEventDestroy(event);
    cudaStreamDestroy(other);
}

static void test_pinned_memory_written_too_early_shows(void **)
{
    float *pinned, out = 0;
    int torn = 0;
    assert_int_equal(cudaMallocHost(&pinned, 4), cudaSuccess);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        pd_simt_seed(seed);
        *pinned = 1.0f;
        assert_int_equal(cudaMemcpyAsync(device_data, pinned, 4, cudaMemcpyHostToDevice, stream),
                         cudaSuccess);
        *pinned = 2.0f;
        fetch(&out, 4);
        torn += out == 2.0f;
    }
    assert_true(torn > 0);
    cudaFreeHost(pinned);
}

static void test_a_copy_that_leaves_its_allocation_is_refused(void **)
{
    char byte = 0;
    assert_int_equal(cudaMemcpyAsync((char *)device_data + 4096, &byte, 1, cudaMemcpyHostToDevice, stream),
                     cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpyAsync(&byte, device_data, 1, cudaMemcpyHostToDevice, stream),
                     cudaErrorInvalidValue);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidValue);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
}

static void test_the_nth_call_fails_once_or_for_good(void **)
{
    void *data = NULL;
    pd_simt_fail_at(2, cudaErrorMemoryAllocation, 0);
    assert_int_equal(cudaMalloc(&data, 16), cudaSuccess);
    cudaFree(data);
    assert_int_equal(cudaMalloc(&data, 16), cudaErrorMemoryAllocation);
    assert_int_equal(cudaMalloc(&data, 16), cudaSuccess);
    cudaFree(data);
    pd_simt_fail_at(1, cudaErrorIllegalAddress, 1);
    assert_int_equal(cudaStreamSynchronize(stream), cudaErrorIllegalAddress);
    assert_int_equal(cudaMalloc(&data, 16), cudaErrorIllegalAddress);
    assert_int_equal(pd_simt_calls(), 2);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_stream, close_stream)
    const struct CMUnitTest tests[] = {
        TEST(test_threads_see_what_others_wrote_before_a_barrier),
        TEST(test_a_removed_barrier_is_caught),
#if defined(__SANITIZE_THREAD__)
        TEST(test_races_are_found_which_no_order_of_threads_shows),
#endif
        TEST(test_shared_memory_begins_as_rubbish_in_every_block),
        TEST(test_much_shared_memory_must_be_asked_for),
        TEST(test_a_barrier_that_not_every_thread_reaches_is_caught),
        TEST(test_warp_operations_give_what_cuda_gives),
        TEST(test_a_lane_that_does_not_come_is_caught),
        TEST(test_the_matrix_product_is_exact),
        TEST(test_fragments_lie_where_the_manual_puts_them),
        TEST(test_an_asynchronous_copy_is_there_when_it_was_waited_for_and_not_before),
        TEST(test_atomics_lose_nothing),
        TEST(test_work_on_a_stream_waits_for_what_it_depends_on),
        TEST(test_pinned_memory_written_too_early_shows),
        TEST(test_a_copy_that_leaves_its_allocation_is_refused),
        TEST(test_the_nth_call_fails_once_or_for_good),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
