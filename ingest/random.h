/* Random numbers that are the same on every machine from the same seed: splitmix64. */
#ifndef PD_RANDOM_H
#define PD_RANDOM_H

#include <math.h>
#include <stdint.h>

static inline uint64_t pd_random_next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* Uniform in [0, bound), bound > 0. */
static inline uint64_t pd_random_below(uint64_t *state, uint64_t bound)
{
    return (uint64_t)(((unsigned __int128)pd_random_next(state) * bound) >> 64);
}

/* Mean 0, standard deviation 1: Box and Muller, one of the pair. */
static inline float pd_random_normal(uint64_t *state)
{
    double u = ((double)(pd_random_next(state) >> 11) + 0.5) * 0x1p-53;
    double v = (double)(pd_random_next(state) >> 11) * 0x1p-53;
    return (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
}

#endif
