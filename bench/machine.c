/* The machine's ceilings, so that a stage's time can be held against what its bytes and operations must take.
 *
 * Reading: a thread sums its own memory from end to end; 256 MiB each, past any last-level cache of few cores, and 256 KiB
 * each for the second-level cache. Arithmetic: chains of multiply-adds in registers, as many as hide their latency, for each
 * instruction that this machine has. One operation here is one multiply-add of one pair of numbers. Every figure is the
 * best of twenty short runs: a ceiling is what the machine can do, not what it does on average.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#endif

#define RUNS   20
#define MEMORY (256u << 20)
#define CACHE  (256u << 10)
#define CHAINS 12

typedef struct job {
    pthread_t thread;
    atomic_int *go; /* 0: wait, 1: all start together, 2: never mind */
    void (*body)(void *memory, size_t bytes, uint64_t repeat);
    void *memory;
    size_t bytes;
    uint64_t repeat;
    double seconds;
} job;

/* --------------------------------------------------------------------------------------------- reading --- */

/* Four sums in vectors of 64 bytes: the compiler makes of them what the machine's baseline has. */
typedef uint64_t wide __attribute__((vector_size(64), aligned(64)));

#define READ_BODY                                                                                            \
    const wide *at = memory;                                                                                 \
    size_t n = bytes / sizeof *at;                                                                           \
    for (uint64_t r = 0; r < repeat; r++) {                                                                  \
        wide a = {0}, b = {0}, c = {0}, d = {0};                                                             \
        for (size_t i = 0; i + 4 <= n; i += 4) {                                                             \
            a += at[i];                                                                                      \
            b += at[i + 1];                                                                                  \
            c += at[i + 2];                                                                                  \
            d += at[i + 3];                                                                                  \
        }                                                                                                    \
        a += b + c + d;                                                                                      \
        __asm__ volatile("" : : "m"(a) : "memory");                                                          \
    }

static void read_portable(void *memory, size_t bytes, uint64_t repeat)
{
    READ_BODY
}

/* ------------------------------------------------------------------------------------------- arithmetic --- */

#if defined(__x86_64__)

__attribute__((target("avx2"))) static void read_avx2(void *memory, size_t bytes, uint64_t repeat)
{
    READ_BODY
}

__attribute__((target("avx512f"))) static void read_avx512(void *memory, size_t bytes, uint64_t repeat)
{
    READ_BODY
}

/* repeat rounds of one instruction on each of CHAINS registers that the compiler may not look into. They are named one by
 * one: an array of them would live in memory. */
#define KEEP(s) __asm__ volatile("" : "+v"(s), "+v"(x), "+v"(y))
#define STEP(s)                                                                                              \
    s = NEXT(s);                                                                                             \
    KEEP(s)
#define CHAIN_BODY(type, zero)                                                                               \
    type s0 = zero, s1 = zero, s2 = zero, s3 = zero, s4 = zero, s5 = zero, s6 = zero, s7 = zero, s8 = zero,  \
         s9 = zero, x = zero, y = zero;                                                                      \
    (void)memory;                                                                                            \
    (void)bytes;                                                                                             \
    for (uint64_t r = 0; r < repeat; r++) {                                                                  \
        STEP(s0);                                                                                            \
        STEP(s1);                                                                                            \
        STEP(s2);                                                                                            \
        STEP(s3);                                                                                            \
        STEP(s4);                                                                                            \
        STEP(s5);                                                                                            \
        STEP(s6);                                                                                            \
        STEP(s7);                                                                                            \
        STEP(s8);                                                                                            \
        STEP(s9);                                                                                            \
    }

#define NEXT(s) _mm_add_epi32(s, _mm_madd_epi16(x, y))
static void dot_sse2(void *memory, size_t bytes, uint64_t repeat)
{
    CHAIN_BODY(__m128i, _mm_setzero_si128())
}
#undef NEXT

#define NEXT(s) _mm256_add_epi32(s, _mm256_madd_epi16(x, y))
__attribute__((target("avx2"))) static void dot_avx2(void *memory, size_t bytes, uint64_t repeat)
{
    CHAIN_BODY(__m256i, _mm256_setzero_si256())
}
#undef NEXT

#define NEXT(s) _mm512_add_epi32(s, _mm512_madd_epi16(x, y))
__attribute__((target("avx512f,avx512bw"))) static void dot_avx512bw(void *memory, size_t bytes,
                                                                     uint64_t repeat)
{
    CHAIN_BODY(__m512i, _mm512_setzero_si512())
}
#undef NEXT

#define NEXT(s) _mm512_dpbusd_epi32(s, x, y)
__attribute__((target("avx512f,avx512vnni"))) static void dot_vnni(void *memory, size_t bytes,
                                                                   uint64_t repeat)
{
    CHAIN_BODY(__m512i, _mm512_setzero_si512())
}
#undef NEXT

#define NEXT(s) _mm256_fmadd_ps(x, y, s)
__attribute__((target("avx2,fma"))) static void fma_avx2(void *memory, size_t bytes, uint64_t repeat)
{
    CHAIN_BODY(__m256, _mm256_setzero_ps())
}
#undef NEXT

#define NEXT(s) _mm512_fmadd_ps(x, y, s)
__attribute__((target("avx512f"))) static void fma_avx512(void *memory, size_t bytes, uint64_t repeat)
{
    CHAIN_BODY(__m512, _mm512_setzero_ps())
}
#undef NEXT

/* Four accumulator tiles, two of each operand: 16 x 16 sums of 64 products, four times a round. */
__attribute__((target("amx-tile,amx-int8"))) static void dot_amx(void *memory, size_t bytes, uint64_t repeat)
{
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } __attribute__((aligned(64))) config = {.palette = 1};
    (void)memory;
    (void)bytes;
    for (int t = 0; t < 8; t++) {
        config.bytes[t] = 64;
        config.rows[t] = 16;
    }
    /* The compiler believes that 8 bytes of the configuration are read, and drops the rest, unless told. */
    __asm__ volatile("" : : "m"(config) : "memory");
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    for (uint64_t r = 0; r < repeat; r++) {
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 5, 6);
        _tile_dpbssd(2, 4, 7);
        _tile_dpbssd(3, 5, 7);
    }
    _tile_release();
}

static int amx_granted(void)
{
    unsigned a, b, c, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    if (!(d >> 24 & 1) || !(d >> 25 & 1)) return 0;
    /* ARCH_REQ_XCOMP_PERM for the tiles' data: asked once for the process. */
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
}

#else

/* Elsewhere: what the compiler makes of four lanes of 32-bit products. */
static void dot_sse2(void *memory, size_t bytes, uint64_t repeat)
{
    typedef int32_t lanes __attribute__((vector_size(16)));
    lanes sum[CHAINS] = {{0}}, x = {0}, y = {0};
    (void)memory;
    (void)bytes;
    for (uint64_t r = 0; r < repeat; r++)
        for (int i = 0; i < CHAINS; i++) {
            sum[i] += x * y;
            __asm__ volatile("" : "+m"(sum[i]), "+m"(x), "+m"(y));
        }
}

#endif

/* ------------------------------------------------------------------------------------------- the runs --- */

static void *work(void *context)
{
    job *j = context;
    int go;
    while (!(go = atomic_load(j->go)))
        sched_yield();
    double start = bench_now();
    if (go == 1) j->body(j->memory, j->bytes, j->repeat);
    j->seconds = bench_now() - start;
    return NULL;
}

/* The longest of threads' times for repeat rounds each; negative: threads could not be started. */
static double once(job *jobs, uint32_t threads, uint64_t repeat)
{
    atomic_int go = 0;
    uint32_t started = 1;
    for (uint32_t t = 0; t < threads; t++) {
        jobs[t].go = &go;
        jobs[t].repeat = repeat;
    }
    while (started < threads && !pthread_create(&jobs[started].thread, NULL, work, &jobs[started]))
        started++;
    atomic_store(&go, started == threads ? 1 : 2);
    work(&jobs[0]);
    double longest = jobs[0].seconds;
    for (uint32_t t = 1; t < started; t++) {
        pthread_join(jobs[t].thread, NULL);
        if (jobs[t].seconds > longest) longest = jobs[t].seconds;
    }
    return started == threads ? longest : -1;
}

/* Units a second over all threads: the best run; each run takes about 5 ms. */
static pd_status best(job *jobs, uint32_t threads, double units, double *rate, pd_error *err)
{
    uint64_t repeat = 1;
    double took = once(jobs, threads, repeat);
    while (took >= 0 && took < 0.005 && repeat < (1ull << 40))
        took = once(jobs, threads, repeat *= 2);
    *rate = 0;
    for (int run = 0; took >= 0 && run < RUNS; run++) {
        took = once(jobs, threads, repeat);
        double now = units * (double)repeat * threads / took;
        if (now > *rate) *rate = now;
    }
    return took >= 0 ? PD_OK
                     : pd_fail(err, PD_RESOURCE_EXHAUSTED, "the ceilings' threads could not be started");
}

typedef struct ceiling {
    const char *what, *how;
    void (*body)(void *memory, size_t bytes, uint64_t repeat);
    int here;     /* this machine has the instruction */
    size_t bytes; /* read in one round; 0: arithmetic */
    double units; /* bytes or operations of a round */
} ceiling;

static uint32_t list(ceiling *out)
{
    void (*read)(void *, size_t, uint64_t) = read_portable;
    uint32_t n = 2;
#if defined(__x86_64__)
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2"), avx512 = __builtin_cpu_supports("avx512f");
    read = avx512 ? read_avx512 : avx2 ? read_avx2 : read_portable;
#endif
    out[0] = (ceiling){"read memory", "sequential", read, 1, MEMORY, MEMORY};
    out[1] = (ceiling){"read L2", "sequential", read, 1, CACHE, CACHE};
    out[n++] = (ceiling){"int8 portable", "128-bit pmaddwd", dot_sse2, 1, 0, CHAINS * 8.0};
#if defined(__x86_64__)
    int bw = avx512 && __builtin_cpu_supports("avx512bw"),
        vnni = avx512 && __builtin_cpu_supports("avx512vnni"), fma = avx2 && __builtin_cpu_supports("fma");
    out[n++] = (ceiling){"int8 avx2", "256-bit vpmaddwd", dot_avx2, avx2, 0, CHAINS * 16.0};
    out[n++] = (ceiling){"int8 avx512", "512-bit vpmaddwd", dot_avx512bw, bw, 0, CHAINS * 32.0};
    out[n++] = (ceiling){"int8 vnni", "512-bit vpdpbusd", dot_vnni, vnni, 0, CHAINS * 64.0};
    out[n++] = (ceiling){"int8 amx", "tdpbssd", dot_amx, amx_granted(), 0, 4 * 16 * 16 * 64.0};
    out[n++] = (ceiling){"f32 avx2", "256-bit vfmadd", fma_avx2, fma, 0, CHAINS * 8.0};
    out[n++] = (ceiling){"f32 avx512", "512-bit vfmadd", fma_avx512, avx512, 0, CHAINS * 16.0};
#else
    out[2].how = "128-bit lanes";
    out[2].units = CHAINS * 4.0;
#endif
    return n;
}

pd_status bench_ceilings(bench_report *report, pd_error *err)
{
    ceiling all[16];
    uint32_t n = list(all);
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    uint32_t most = processors > 1 ? (uint32_t)processors : 1;
    job *jobs = calloc(most, sizeof *jobs);
    void *memory =
        mmap(NULL, (size_t)most * MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pd_status status = PD_OK;
    if (!jobs || memory == MAP_FAILED) {
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to measure the machine with");
        goto done_after_jobs;
    }
    (void)madvise(memory, (size_t)most * MEMORY, MADV_HUGEPAGE); /* only faster where it is granted */
    memset(memory, 1, (size_t)most * MEMORY);
    for (uint32_t i = 0; !status && i < n; i++) {
        if (!all[i].here) continue;
        for (uint32_t threads = 1; !status; threads = most) {
            for (uint32_t t = 0; t < threads; t++)
                jobs[t] = (job){.body = all[i].body,
                                .memory = (char *)memory + (size_t)t * MEMORY,
                                .bytes = all[i].bytes};
            double rate;
            status = best(jobs, threads, all[i].units, &rate, err);
            if (!status)
                bench_report_ceiling(report, all[i].what, all[i].how, threads, rate / 1e9,
                                     all[i].bytes ? "GB/s" : "Gmadd/s");
            if (threads == most) break;
        }
    }
    munmap(memory, (size_t)most * MEMORY);
done_after_jobs:
    free(jobs);
    return status;
}
