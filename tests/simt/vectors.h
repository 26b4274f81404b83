/* CUDA's small types and the functions of one thread, as plain C++. */
#ifndef PD_TEST_SIMT_VECTORS_H
#define PD_TEST_SIMT_VECTORS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define PD_SIMT_VECTORS(type, name)                                                                          \
    struct name##1                                                                                           \
    {                                                                                                        \
        type x;                                                                                              \
    };                                                                                                       \
    struct alignas(2 * sizeof(type)) name##2                                                                 \
    {                                                                                                        \
        type x, y;                                                                                           \
    };                                                                                                       \
    struct name##3                                                                                           \
    {                                                                                                        \
        type x, y, z;                                                                                        \
    };                                                                                                       \
    struct alignas(4 * sizeof(type) > 16 ? 16 : 4 * sizeof(type)) name##4                                    \
    {                                                                                                        \
        type x, y, z, w;                                                                                     \
    };                                                                                                       \
    static inline name##2 make_##name##2(type x, type y)                                                     \
    {                                                                                                        \
        return {x, y};                                                                                       \
    }                                                                                                        \
    static inline name##3 make_##name##3(type x, type y, type z)                                             \
    {                                                                                                        \
        return {x, y, z};                                                                                    \
    }                                                                                                        \
    static inline name##4 make_##name##4(type x, type y, type z, type w)                                     \
    {                                                                                                        \
        return {x, y, z, w};                                                                                 \
    }
PD_SIMT_VECTORS(signed char, char)
PD_SIMT_VECTORS(unsigned char, uchar)
PD_SIMT_VECTORS(short, short)
PD_SIMT_VECTORS(unsigned short, ushort)
PD_SIMT_VECTORS(int, int)
PD_SIMT_VECTORS(unsigned int, uint)
PD_SIMT_VECTORS(long long, longlong)
PD_SIMT_VECTORS(unsigned long long, ulonglong)
PD_SIMT_VECTORS(float, float)
PD_SIMT_VECTORS(double, double)

struct dim3 {
    unsigned int x, y, z;
    dim3(unsigned int x_ = 1, unsigned int y_ = 1, unsigned int z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

/* min and max are templates, as CUDA's are overloads; both sides of one type. */
template <typename T> static inline T min(T a, T b)
{
    return b < a ? b : a;
}
template <typename T> static inline T max(T a, T b)
{
    return a < b ? b : a;
}

static inline int __popc(unsigned int x)
{
    return __builtin_popcount(x);
}
static inline int __popcll(unsigned long long x)
{
    return __builtin_popcountll(x);
}
static inline int __clz(int x)
{
    return x ? __builtin_clz((unsigned int)x) : 32;
}
static inline int __clzll(long long x)
{
    return x ? __builtin_clzll((unsigned long long)x) : 64;
}
static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
static inline int __ffsll(long long x)
{
    return __builtin_ffsll(x);
}
static inline unsigned int __brev(unsigned int x)
{
    unsigned int out = 0;
    for (int i = 0; i < 32; i++)
        out |= (x >> i & 1u) << (31 - i);
    return out;
}
static inline unsigned int __umulhi(unsigned int a, unsigned int b)
{
    return (unsigned int)((unsigned long long)a * b >> 32);
}
static inline unsigned int __funnelshift_r(unsigned int lo, unsigned int hi, unsigned int shift)
{
    return (unsigned int)(((unsigned long long)hi << 32 | lo) >> (shift & 31));
}
static inline unsigned int __byte_perm(unsigned int x, unsigned int y, unsigned int s)
{
    unsigned long long both = (unsigned long long)y << 32 | x;
    unsigned int out = 0;
    for (int i = 0; i < 4; i++)
        out |= (unsigned int)(both >> (8 * (s >> (4 * i) & 7)) & 255) << (8 * i);
    return out;
}
static inline int __dp4a(int a, int b, int c)
{
    for (int i = 0; i < 4; i++)
        c += (int)(int8_t)((unsigned int)a >> (8 * i)) * (int)(int8_t)((unsigned int)b >> (8 * i));
    return c;
}

template <typename To, typename From> static inline To pd_simt_bits(From from)
{
    static_assert(sizeof(To) == sizeof(From), "bits");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
static inline unsigned int __float_as_uint(float x)
{
    return pd_simt_bits<unsigned int>(x);
}
static inline int __float_as_int(float x)
{
    return pd_simt_bits<int>(x);
}
static inline float __uint_as_float(unsigned int x)
{
    return pd_simt_bits<float>(x);
}
static inline float __int_as_float(int x)
{
    return pd_simt_bits<float>(x);
}
/* Rounded to nearest: what plain operators do here. */
static inline float __fadd_rn(float a, float b)
{
    return a + b;
}
static inline float __fsub_rn(float a, float b)
{
    return a - b;
}
static inline float __fmul_rn(float a, float b)
{
    return a * b;
}
static inline float __fdiv_rn(float a, float b)
{
    return a / b;
}
static inline double __dadd_rn(double a, double b)
{
    return a + b;
}
static inline double __dmul_rn(double a, double b)
{
    return a * b;
}
static inline float __int2float_rn(int x)
{
    return (float)x;
}
static inline int __float2int_rn(float x)
{
    return (int)nearbyintf(x);
}
static inline float __double2float_rn(double x)
{
    return (float)x;
}

template <typename T> static inline T __ldg(const T *from)
{
    return *from;
}
template <typename T> static inline T __ldcg(const T *from)
{
    return *from;
}
template <typename T> static inline T __ldcs(const T *from)
{
    return *from;
}
template <typename T> static inline void __stcs(T *to, T value)
{
    *to = value;
}
static inline void __threadfence()
{
}
static inline void __threadfence_block()
{
}

#endif
