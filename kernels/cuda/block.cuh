/* What the threads of one block do together: sums, the k-th of a set, cutting candidates down, sorting.
 *
 * Every function here is called by all threads of a block, whose size is a multiple of 32, with the same arguments. Keys are
 * whole numbers, smallest first, so that scores come in as ~pd_ordered(score).
 *
 * The k-th is found by counting in 256 bins laid over the range that the keys really have, and again within the bin: the
 * usual radix select begins with bits that all scores share, so that a warp's counts fall on one address.
 */
#ifndef PD_CUDA_BLOCK_CUH
#define PD_CUDA_BLOCK_CUH

#include "cuda.h"

#define PD_BINS 256u

typedef unsigned long long pd_key;

/* One in shared memory, handed to every function. */
typedef struct pd_block_work {
    uint32_t bins[PD_BINS];
    uint32_t sums[32];
    pd_key low[32], high[32];
    uint32_t bin, below, in;
} pd_block_work;

static __device__ __forceinline__ uint32_t pd_lane()
{
    return threadIdx.x & 31u;
}
static __device__ __forceinline__ uint32_t pd_warp()
{
    return threadIdx.x >> 5;
}

/* The sum of value over the threads before this one; *total: over all. */
static __device__ __forceinline__ uint32_t pd_block_sum(pd_block_work *work, uint32_t value, uint32_t *total)
{
    uint32_t sum = value, before = 0, all = 0;
    for (uint32_t by = 1; by < 32; by <<= 1) {
        uint32_t other = __shfl_up_sync(PD_ALL_LANES, sum, by);
        if (pd_lane() >= by) sum += other;
    }
    __syncthreads();
    if (pd_lane() == 31) work->sums[pd_warp()] = sum;
    __syncthreads();
    for (uint32_t i = 0; i < blockDim.x / 32; i++) {
        if (i < pd_warp()) before += work->sums[i];
        all += work->sums[i];
    }
    *total = all;
    return before + sum - value;
}

/* By a warp: the i of n with starts[i] <= item < starts[i + 1], 32 ways at a time. */
static __device__ inline uint32_t pd_owner_of(const uint32_t *starts, uint32_t n, uint32_t item)
{
    uint32_t low = 0, high = n;
    while (high - low > 1) {
        uint32_t step = (high - low + 31) / 32, at = low + pd_lane() * step;
        uint32_t reached = __ballot_sync(PD_ALL_LANES, at < high && starts[at] <= item);
        uint32_t last = 31u - (uint32_t)__clz((int)reached);
        low += last * step;
        high = high < low + step ? high : low + step;
    }
    return low;
}

/* The least and the greatest key of the items that take part. low > high: none does. */
template <typename Key>
static __device__ void pd_block_range(pd_block_work *work, uint32_t n, Key key, pd_key *low, pd_key *high)
{
    pd_key least = ~(pd_key)0, most = 0, value;
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x) {
        if (!key(i, &value)) continue;
        least = value < least ? value : least;
        most = value > most ? value : most;
    }
    for (uint32_t by = 16; by > 0; by >>= 1) {
        pd_key l = __shfl_xor_sync(PD_ALL_LANES, least, by), m = __shfl_xor_sync(PD_ALL_LANES, most, by);
        least = l < least ? l : least;
        most = m > most ? m : most;
    }
    __syncthreads();
    if (pd_lane() == 0) {
        work->low[pd_warp()] = least;
        work->high[pd_warp()] = most;
    }
    __syncthreads();
    for (uint32_t i = 0; i < blockDim.x / 32; i++) {
        least = work->low[i] < least ? work->low[i] : least;
        most = work->high[i] > most ? work->high[i] : most;
    }
    *low = least;
    *high = most;
}

/* The bin that holds the k-th (from 1): by the first warp, eight bins a lane. */
static __device__ __forceinline__ void pd_find_bin(pd_block_work *work, uint32_t k)
{
    if (pd_warp() != 0) return;
    uint32_t own = 0;
    for (uint32_t i = 0; i < 8; i++)
        own += work->bins[pd_lane() * 8 + i];
    uint32_t sum = own;
    for (uint32_t by = 1; by < 32; by <<= 1) {
        uint32_t other = __shfl_up_sync(PD_ALL_LANES, sum, by);
        if (pd_lane() >= by) sum += other;
    }
    uint32_t below = sum - own;
    if (!(below < k && k <= sum)) return;
    uint32_t bin = pd_lane() * 8;
    while (below + work->bins[bin] < k)
        below += work->bins[bin++];
    work->bin = bin;
    work->below = below;
    work->in = work->bins[bin];
}

/* The k-th smallest key (from 1) of the items that take part: key(i, &value) says whether item i does. There are at least k.
 * *before: how many are smaller, *equal: how many are equal. */
template <typename Key>
static __device__ pd_key pd_block_kth(pd_block_work *work, uint32_t n, uint32_t k, uint32_t *before,
                                      uint32_t *equal, Key key)
{
    pd_key low, high, value;
    uint32_t less = 0;
    pd_block_range(work, n, key, &low, &high);
    for (;;) {
        uint32_t bits = high > low ? 64u - (uint32_t)__clzll((long long)(high - low)) : 0u;
        uint32_t shift = bits > 8 ? bits - 8 : 0;
        for (uint32_t i = threadIdx.x; i < PD_BINS; i += blockDim.x)
            work->bins[i] = 0;
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < n; i += blockDim.x)
            if (key(i, &value) && value >= low && value <= high)
                atomicAdd(&work->bins[(uint32_t)((value - low) >> shift)], 1u);
        __syncthreads();
        pd_find_bin(work, k - less);
        __syncthreads();
        uint32_t bin = work->bin;
        less += work->below;
        *equal = work->in;
        __syncthreads();
        low += (pd_key)bin << shift;
        if (shift == 0) break;
        pd_key width = ((pd_key)1 << shift) - 1;
        if (high - low > width) high = low + width;
    }
    *before = less;
    return low;
}

/* Moves the candidates that stay to the front, in order: stays(i) is asked of every one before it can be written over. ids:
 * NULL, or moved with them. Returns how many. */
template <typename Stays>
static __device__ uint32_t pd_block_keep(pd_block_work *work, uint32_t *scores, uint32_t *slots, pd_key *ids,
                                         uint32_t count, Stays stays)
{
    uint32_t kept = 0;
    for (uint32_t first = 0; first < count; first += blockDim.x) {
        uint32_t i = first + threadIdx.x, score = 0, slot = 0, stay = 0, total;
        pd_key id = 0;
        if (i < count) {
            if (ids) id = ids[i];
            score = scores[i];
            slot = slots[i];
            stay = stays(i) ? 1u : 0u;
        }
        uint32_t at = kept + pd_block_sum(work, stay, &total);
        if (stay) {
            scores[at] = score;
            slots[at] = slot;
            if (ids) ids[at] = id;
        }
        kept += total;
    }
    __syncthreads();
    return kept;
}

/* Keeps the best `keep` of the candidates under (score descending, id ascending, slot ascending), in no order. scores:
 * pd_ordered. ids: NULL, or moved with them. id(i), of candidate i, is asked only where scores tie at the cut. Returns how many are left. *worst: the least score of those
 * kept where there were more than keep of them, else as it was. */
template <typename Id>
static __device__ uint32_t pd_block_cut(pd_block_work *work, uint32_t *scores, uint32_t *slots, pd_key *ids,
                                        uint32_t count, uint32_t keep, uint32_t *worst, Id id)
{
    __syncthreads();
    if (count <= keep) return count;
    uint32_t before, equal;
    pd_key bar = pd_block_kth(work, count, keep, &before, &equal, [=](uint32_t i, pd_key *value) {
        *value = (pd_key)(uint32_t)~scores[i];
        return true;
    });
    *worst = ~(uint32_t)bar;
    uint32_t at = ~(uint32_t)bar, left = keep - before;
    if (equal <= left)
        return pd_block_keep(work, scores, slots, ids, count, [=](uint32_t i) { return scores[i] >= at; });
    pd_key last_id = pd_block_kth(work, count, left, &before, &equal, [=](uint32_t i, pd_key *value) {
        if (scores[i] != at) return false;
        *value = id(i);
        return true;
    });
    pd_key last_slot = ~(pd_key)0;
    if (before + equal > left)
        last_slot = pd_block_kth(work, count, left - before, &before, &equal, [=](uint32_t i, pd_key *value) {
            if (scores[i] != at || id(i) != last_id) return false;
            *value = slots[i];
            return true;
        });
    return pd_block_keep(work, scores, slots, ids, count, [=](uint32_t i) {
        if (scores[i] != at) return scores[i] > at;
        pd_key own = id(i);
        return own < last_id || (own == last_id && slots[i] <= last_slot);
    });
}

/* Sorts n items in place: before(i, j) says whether item j must stand before item i < j, swap(i, j) exchanges them. A bitonic
 * network whose comparisons all point one way, so that what lies behind n is left out as if it were the last. */
template <typename Wrong, typename Swap>
static __device__ void pd_block_sort(uint32_t n, Wrong wrong, Swap swap)
{
    uint32_t top = 1;
    while (top < n)
        top <<= 1;
    __syncthreads();
    for (uint32_t size = 2; size <= top; size <<= 1) {
        for (uint32_t half = size / 2; half > 0; half >>= 1) {
            for (uint32_t t = threadIdx.x; t < top / 2; t += blockDim.x) {
                uint32_t at = t / half * (2 * half) + t % half;
                uint32_t to = half == size / 2 ? t / half * size + (size - 1 - t % half) : at + half;
                if (to < n && wrong(at, to)) swap(at, to);
            }
            __syncthreads();
        }
    }
}

/* Hits in the order of answers: score descending, id ascending, slot ascending. */
static __device__ inline void pd_sort_hits(pd_hit *hits, uint32_t n)
{
    pd_block_sort(
        n,
        [=](uint32_t i, uint32_t j) {
            if (hits[i].score != hits[j].score) return hits[i].score < hits[j].score;
            if (hits[i].id != hits[j].id) return hits[i].id > hits[j].id;
            return hits[i].slot > hits[j].slot;
        },
        [=](uint32_t i, uint32_t j) {
            pd_hit kept = hits[i];
            hits[i] = hits[j];
            hits[j] = kept;
        });
}

/* The written sum of sixteen lanes (score.h) over half a warp: lane j holds lane j. Every lane of the half receives it. */
static __device__ __forceinline__ float pd_add_lanes(float lane)
{
    for (uint32_t half = 8; half > 0; half >>= 1)
        lane = lane + __shfl_xor_sync(PD_ALL_LANES, lane, half);
    return lane;
}

#endif
