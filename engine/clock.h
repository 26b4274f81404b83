/* Monotonic time, in nanoseconds: deadlines, queues and stages are measured on it. */
#ifndef PD_CLOCK_H
#define PD_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t pd_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The moment for pthread_cond_timedwait on a CLOCK_MONOTONIC condition. */
static inline struct timespec pd_clock_at(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
}

/* Microseconds between two moments, 0 when they are the wrong way round; held at UINT32_MAX. */
static inline uint32_t pd_us_between(uint64_t from, uint64_t to)
{
    if (to <= from) return 0;
    uint64_t us = (to - from) / 1000u;
    return us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

#endif
