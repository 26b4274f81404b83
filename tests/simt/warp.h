/* Warp operations and atomics over pd_simt_meet. A lane brings a small struct; the last to arrive does the work for all. */
#ifndef PD_TEST_SIMT_WARP_H
#define PD_TEST_SIMT_WARP_H

template <typename T> struct pd_simt_shuffle {
    T value, out;
    int from; /* lane to read */
};

template <typename T> static inline T pd_simt_shuffle_from(uint32_t mask, T value, int from, const char *what)
{
    pd_simt_shuffle<T> mine = {value, value, from};
    pd_simt_meet(
        mask, &mine,
        [](void *const lanes[32], uint32_t) {
            for (int i = 0; i < 32; i++) {
                auto *lane = (pd_simt_shuffle<T> *)lanes[i];
                if (!lane) continue;
                auto *other = (pd_simt_shuffle<T> *)lanes[lane->from];
                if (!other)
                    pd_simt_fail("lane %d shuffles from lane %d, which is not in the mask", i, lane->from);
                lane->out = other->value;
            }
        },
        what);
    return mine.out;
}

/* As CUDA defines them: within segments of width lanes; out of the segment, a lane keeps its own. */
template <typename T> static inline T __shfl_sync(uint32_t mask, T value, int from, int width = 32)
{
    int lane = (int)pd_simt_here->lane;
    return pd_simt_shuffle_from(mask, value, (lane & ~(width - 1)) + (from & (width - 1)), "__shfl_sync");
}
template <typename T> static inline T __shfl_up_sync(uint32_t mask, T value, unsigned int by, int width = 32)
{
    int lane = (int)pd_simt_here->lane, from = lane - (int)by;
    return pd_simt_shuffle_from(mask, value, from < (lane & ~(width - 1)) ? lane : from, "__shfl_up_sync");
}
template <typename T>
static inline T __shfl_down_sync(uint32_t mask, T value, unsigned int by, int width = 32)
{
    int lane = (int)pd_simt_here->lane, from = lane + (int)by;
    return pd_simt_shuffle_from(mask, value, from > (lane | (width - 1)) ? lane : from, "__shfl_down_sync");
}
template <typename T> static inline T __shfl_xor_sync(uint32_t mask, T value, int with, int width = 32)
{
    int lane = (int)pd_simt_here->lane, from = lane ^ with;
    return pd_simt_shuffle_from(mask, value, from > (lane | (width - 1)) ? lane : from, "__shfl_xor_sync");
}

struct pd_simt_ballot {
    uint64_t value;
    uint32_t out;
    int all;
};
static inline uint32_t __ballot_sync(uint32_t mask, int value)
{
    pd_simt_ballot mine = {value != 0, 0, 0};
    pd_simt_meet(
        mask, &mine,
        [](void *const lanes[32], uint32_t) {
            uint32_t out = 0;
            for (int i = 0; i < 32; i++)
                if (lanes[i] && ((pd_simt_ballot *)lanes[i])->value) out |= 1u << i;
            for (int i = 0; i < 32; i++)
                if (lanes[i]) ((pd_simt_ballot *)lanes[i])->out = out;
        },
        "__ballot_sync");
    return mine.out;
}
static inline int __any_sync(uint32_t mask, int value)
{
    return __ballot_sync(mask, value) != 0;
}
static inline int __all_sync(uint32_t mask, int value)
{
    return __ballot_sync(mask, value) == mask;
}
static inline void __syncwarp(uint32_t mask = 0xffffffffu)
{
    int nothing = 0;
    pd_simt_meet(
        mask, &nothing, [](void *const[32], uint32_t) {}, "__syncwarp", true);
}
template <typename T> static inline uint32_t __match_any_sync(uint32_t mask, T value)
{
    pd_simt_ballot mine = {(uint64_t)value, 0, 0};
    pd_simt_meet(
        mask, &mine,
        [](void *const lanes[32], uint32_t) {
            for (int i = 0; i < 32; i++)
                for (int j = 0; lanes[i] && j < 32; j++)
                    if (lanes[j] &&
                        ((pd_simt_ballot *)lanes[i])->value == ((pd_simt_ballot *)lanes[j])->value)
                        ((pd_simt_ballot *)lanes[i])->out |= 1u << j;
        },
        "__match_any_sync");
    return mine.out;
}

template <typename T, int op> static inline T pd_simt_reduce(uint32_t mask, T value, const char *what)
{
    pd_simt_shuffle<T> mine = {value, value, 0};
    pd_simt_meet(
        mask, &mine,
        [](void *const lanes[32], uint32_t) {
            T out = 0;
            bool first = true;
            for (int i = 0; i < 32; i++) {
                if (!lanes[i]) continue;
                T own = ((pd_simt_shuffle<T> *)lanes[i])->value;
                if (first)
                    out = own;
                else
                    out = op == 0 ? (T)(out + own) : op == 1 ? min(out, own) : max(out, own);
                first = false;
            }
            for (int i = 0; i < 32; i++)
                if (lanes[i]) ((pd_simt_shuffle<T> *)lanes[i])->out = out;
        },
        what);
    return mine.out;
}
template <typename T> static inline T __reduce_add_sync(uint32_t mask, T value)
{
    return pd_simt_reduce<T, 0>(mask, value, "__reduce_add_sync");
}
template <typename T> static inline T __reduce_min_sync(uint32_t mask, T value)
{
    return pd_simt_reduce<T, 1>(mask, value, "__reduce_min_sync");
}
template <typename T> static inline T __reduce_max_sync(uint32_t mask, T value)
{
    return pd_simt_reduce<T, 2>(mask, value, "__reduce_max_sync");
}

/* ------------------------------------------------------------------------------------------------ matrices --- */

struct pd_simt_mma {
    int *d;
    const uint32_t *a, *b;
};

static inline int pd_simt_byte(uint32_t word, int at)
{
    return (int)(int8_t)(word >> (8 * at));
}

static inline void pd_mma_i8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    pd_simt_mma mine = {d, a, b};
    pd_simt_meet(
        0xffffffffu, &mine,
        [](void *const lanes[32], uint32_t) {
            int left[16][32], right[32][8];
            for (int l = 0; l < 32; l++) {
                const pd_simt_mma *m = (const pd_simt_mma *)lanes[l];
                int g = l / 4, t = l % 4;
                for (int i = 0; i < 4; i++) {
                    for (int r = 0; r < 4; r++)
                        left[g + 8 * (r & 1)][16 * (r >> 1) + 4 * t + i] = pd_simt_byte(m->a[r], i);
                    for (int r = 0; r < 2; r++)
                        right[16 * r + 4 * t + i][g] = pd_simt_byte(m->b[r], i);
                }
            }
            for (int l = 0; l < 32; l++) {
                pd_simt_mma *m = (pd_simt_mma *)lanes[l];
                for (int i = 0; i < 4; i++)
                    for (int k = 0; k < 32; k++)
                        m->d[i] += left[l / 4 + 8 * (i >> 1)][k] * right[k][2 * (l % 4) + (i & 1)];
            }
        },
        "pd_mma_i8");
}

struct pd_simt_matrix {
    const unsigned char *row;
    uint32_t *out;
};
static inline void pd_load_matrix4(uint32_t (&r)[4], const void *shared)
{
    pd_simt_matrix mine = {(const unsigned char *)shared, r};
    if ((uintptr_t)shared % 16) pd_simt_fail("a row of a matrix is not aligned to 16 bytes");
    pd_simt_meet(
        0xffffffffu, &mine,
        [](void *const lanes[32], uint32_t) {
            for (int l = 0; l < 32; l++)
                for (int i = 0; i < 4; i++)
                    memcpy(&((pd_simt_matrix *)lanes[l])->out[i],
                           ((pd_simt_matrix *)lanes[8 * i + l / 4])->row + 4 * (l % 4), 4);
        },
        "pd_load_matrix4");
}

/* ----------------------------------------------------------------------------------------------- atomics --- */

/* One thread runs at a time, so that these are atomic as they stand; others may go first now and then. They are also written
 * as the compiler's atomics, for the race checker: two of them on one word are no race, and order nothing else. */
template <typename T> static inline T pd_simt_atomic_read(T *at)
{
    T now;
    __atomic_load(at, &now, __ATOMIC_RELAXED);
    return now;
}
template <typename T> static inline void pd_simt_atomic_write(T *at, T fresh)
{
    __atomic_store(at, &fresh, __ATOMIC_RELAXED);
}
/* The value's type follows the address. */
template <typename T> struct pd_simt_same {
    typedef T type;
};
#define PD_SIMT_ATOMIC(name, expression)                                                                     \
    template <typename T> static inline T name(T *at, typename pd_simt_same<T>::type value)                  \
    {                                                                                                        \
        pd_simt_waver();                                                                                     \
        T now = pd_simt_atomic_read(at);                                                                     \
        pd_simt_atomic_write<T>(at, (T)(expression));                                                        \
        return now;                                                                                          \
    }
PD_SIMT_ATOMIC(atomicAdd, now + value)
PD_SIMT_ATOMIC(atomicSub, now - value)
PD_SIMT_ATOMIC(atomicMax, now < value ? value : now)
PD_SIMT_ATOMIC(atomicMin, value < now ? value : now)
PD_SIMT_ATOMIC(atomicOr, now | value)
PD_SIMT_ATOMIC(atomicAnd, now &value)
PD_SIMT_ATOMIC(atomicExch, ((void)now, value))
template <typename T>
static inline T atomicCAS(T *at, typename pd_simt_same<T>::type expected,
                          typename pd_simt_same<T>::type fresh)
{
    pd_simt_waver();
    T now = pd_simt_atomic_read(at);
    if (now == expected) pd_simt_atomic_write<T>(at, fresh);
    return now;
}

#endif
