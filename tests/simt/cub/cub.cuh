/* CUB's device-wide calls that Pados makes, done on the host in the stream's turn. As in CUB, a call without temporary memory
 * says how much it wants. */
#ifndef PD_TEST_SIMT_CUB_CUH
#define PD_TEST_SIMT_CUB_CUH

#include <algorithm>
#include <numeric>
#include <vector>

#include "../simt.h"

cudaError_t pd_simt_host_op(cudaStream_t stream, std::function<void()> op);

namespace cub
{

#define PD_SIMT_CUB_TEMPORARY(memory, bytes)                                                                 \
    if (!(memory)) {                                                                                         \
        (bytes) = 256;                                                                                       \
        return cudaSuccess;                                                                                  \
    }                                                                                                        \
    if ((bytes) < 256) return cudaErrorInvalidValue

struct DeviceRadixSort {
    template <typename K, typename V, typename N>
    static cudaError_t SortPairs(void *memory, size_t &bytes, const K *keys, K *out_keys, const V *values,
                                 V *out_values, N n, int begin_bit = 0, int end_bit = (int)sizeof(K) * 8,
                                 cudaStream_t stream = nullptr)
    {
        PD_SIMT_CUB_TEMPORARY(memory, bytes);
        return pd_simt_host_op(stream, [=] {
            K mask = end_bit - begin_bit >= (int)sizeof(K) * 8
                         ? (K) ~(K)0
                         : (K)((((K)1 << (end_bit - begin_bit)) - 1) << begin_bit);
            std::vector<size_t> order((size_t)n);
            std::iota(order.begin(), order.end(), (size_t)0);
            std::stable_sort(order.begin(), order.end(),
                             [&](size_t a, size_t b) { return (keys[a] & mask) < (keys[b] & mask); });
            std::vector<K> sorted_keys((size_t)n);
            std::vector<V> sorted_values((size_t)n);
            for (size_t i = 0; i < (size_t)n; i++) {
                sorted_keys[i] = keys[order[i]];
                sorted_values[i] = values[order[i]];
            }
            std::copy(sorted_keys.begin(), sorted_keys.end(), out_keys);
            std::copy(sorted_values.begin(), sorted_values.end(), out_values);
        });
    }
};

struct DeviceScan {
    template <typename In, typename Out, typename N>
    static cudaError_t ExclusiveSum(void *memory, size_t &bytes, const In *in, Out *out, N n,
                                    cudaStream_t stream = nullptr)
    {
        PD_SIMT_CUB_TEMPORARY(memory, bytes);
        return pd_simt_host_op(stream, [=] {
            Out sum = 0;
            for (N i = 0; i < n; i++) {
                Out own = (Out)in[i];
                out[i] = sum;
                sum = (Out)(sum + own);
            }
        });
    }
    template <typename In, typename Out, typename N>
    static cudaError_t InclusiveSum(void *memory, size_t &bytes, const In *in, Out *out, N n,
                                    cudaStream_t stream = nullptr)
    {
        PD_SIMT_CUB_TEMPORARY(memory, bytes);
        return pd_simt_host_op(stream, [=] {
            Out sum = 0;
            for (N i = 0; i < n; i++)
                out[i] = sum = (Out)(sum + (Out)in[i]);
        });
    }
};

} // namespace cub

#endif
