/* The tile instructions (AMX) by short names. Tiles are numbered by literals, 0 to 7; strides are bytes.
 *
 * Not the compiler's intrinsics: gcc 12 declares the configuration as 8 bytes read or written and a tile load as no
 * read at all, so that -O3 may drop what was written before them. Here every instruction says what it touches.
 *
 * Under PD_TILE_MODEL the names are somebody else's: a scalar stand-in of the tests (amx_model.h), with which the code
 * that uses them runs on any machine and faults where the hardware would. */
#ifndef PD_CPU_TILE_H
#define PD_CPU_TILE_H

#include <stdint.h>

/* What LDTILECFG reads and STTILECFG writes. Palette 0: tiles are released; 1: 8 tiles of up to 16 rows x 64 bytes. */
typedef struct tile_config {
    _Alignas(64) uint8_t palette;
    uint8_t start_row, zero[14];
    uint16_t colsb[16]; /* bytes of a row, of each tile */
    uint8_t rows[16];
} tile_config;

_Static_assert(sizeof(tile_config) == 64, "the processor reads 64 bytes");

#if !defined(PD_TILE_MODEL)

static inline void tile_configure(const tile_config *config)
{
    __asm__ volatile("ldtilecfg %0" : : "m"(*config));
}

static inline void tile_configuration(tile_config *config)
{
    __asm__ volatile("sttilecfg %0" : "=m"(*config));
}

static inline void tile_release(void)
{
    __asm__ volatile("tilerelease");
}

#define tile_zero(t) __asm__ volatile("tilezero %%tmm" #t : :)
#define tile_load(t, from, stride)                                                                           \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t                                                         \
                     :                                                                                       \
                     : "r"((const void *)(from)), "r"((int64_t)(stride))                                     \
                     : "memory")
#define tile_store(t, to, stride)                                                                            \
    __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)"                                                     \
                     :                                                                                       \
                     : "r"((void *)(to)), "r"((int64_t)(stride))                                             \
                     : "memory")
/* sums[m][n] += the dot of four signed bytes times four signed bytes, over the k of a[m][k] and b[k][n]. */
#define tile_dots(sums, a, b) __asm__ volatile("tdpbssd %%tmm" #b ", %%tmm" #a ", %%tmm" #sums : :)

#endif
#endif
