/* Integer dots by tiles (AMX-INT8), for groups of queries that fill them; small groups go to VNNI.
 *
 * The page is laid out for this: 16 groups of 4 dimensions times 16 rows are a B tile as they lie (16 lines of 64
 * bytes, 128 apart), and 64 dimensions of a packed query are a row of an A tile. Two blocks of queries times two halves
 * of the page make four tiles of sums, so that no sum waits for the one before it (by Intel's figures for Sapphire
 * Rapids a dot takes 52 cycles and one starts every 16):
 *
 *                         rows 0-15   rows 16-31            of the page
 *                            6            7        B
 *     upper queries   4 A    0            1        sums
 *     lower queries   5 A    2            3
 *
 * Group sizes. A tile load reads as many queries as its shape says, and none may be read past the group. Rather than a
 * shape for each size (LDTILECFG is slow, as much as a fair part of a page's work), there are two: blocks of 16 queries
 * for groups of 17 to 32, blocks of 8 for smaller ones. The lower block ends at the last query and overlaps the upper
 * one where the group has less than two blocks: shared queries are computed twice and stored twice, with the same
 * sums. Shapes then change only between groups, and a batch's groups are mostly of 32.
 *
 * The tail. Where dim is no multiple of 64 the last B tile has less than 16 lines. What lies behind dim meets the
 * query's zeros and would not matter, but it need not be memory: the tail's lines are copied to a tile of the thread's
 * own. (Shapes with fewer lines would cost two LDTILECFG a page.)
 *
 * Shapes are nobody's property: another library may change or release them on this thread between two calls, and then
 * the next tile instruction would fault, or read by a wrong shape. So each call asks what is configured (STTILECFG,
 * cheap) and configures if that is not it. oneDNN and onnxruntime do the same; configuring and releasing in every call
 * (as lance does) would cost a page's work again, and remembering the shape in a thread's variable breaks with the
 * first neighbour. rest() releases the tiles, so that a thread that waits costs no 8 KB at each context switch and lets
 * its core sleep deeply.
 *
 * What was shown where: the sums, the shapes and every byte read are tested over a scalar model of the instructions
 * (tests/kernels/amx_model.h), on any machine; the same tests run the instructions themselves where there are any. The
 * machine code ran in Bochs 3.0 (Sapphire Rapids; 608,256 sums over 12 dimensions and all group sizes, none wrong),
 * with codes of 0 to 127 and without STTILECFG: that emulator multiplies without signs and knows no STTILECFG. No processor
 * with tiles has run or timed it yet. */
#include <string.h>

#include "ops.h"
#include "tile.h"

#define TILE_BYTES 64u                 /* of a row: 64 dimensions of a query, 4 of 16 rows of the page */
#define LINE       (PD_PAGE_ROWS * 4u) /* bytes of a group of dimensions */
#define LINES      16u                 /* groups of dimensions of a tile */

/* Groups of fewer queries are left to VNNI: a block of 8 does not fit them. Counted, not measured: 64 dimensions take
 * VNNI 16 cycles a query (two instructions a cycle), and tiles 64 cycles whatever the group (four dots of 16 cycles),
 * with about 100 a page to ask for the shape, fill and drain. So tiles are ahead at 8 already (dim 128: 230 cycles to
 * 260, dim 784: 930 to 1,660), and smaller blocks could win little. `pados-kernels-bench --dots` prints both by size of
 * group on a machine that has them. */
#ifndef AMX_LEAST
#define AMX_LEAST 8u
#endif
_Static_assert(AMX_LEAST >= 8, "the smaller block has 8 queries");

/* The table for small groups; queries are packed as it wants them, codes first. */
#ifndef AMX_SMALL
#define AMX_SMALL pd_cpu_i8_avx512
#endif

#define SHAPE(QUERIES)                                                                                       \
    {                                                                                                        \
        .palette = 1, .colsb = {TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES,                              \
                                TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES},                             \
        .rows = {                                                                                            \
            QUERIES,                                                                                         \
            QUERIES,                                                                                         \
            QUERIES,                                                                                         \
            QUERIES,                                                                                         \
            QUERIES,                                                                                         \
            QUERIES,                                                                                         \
            LINES,                                                                                           \
            LINES                                                                                            \
        }                                                                                                    \
    }

static const tile_config shape_of_8 = SHAPE(8), shape_of_16 = SHAPE(16);

static void shape(const tile_config *wanted)
{
    tile_config now;
    uint64_t is[8], shall[8], differ = 0;
    tile_configuration(&now);
    memcpy(is, &now, sizeof is);
    memcpy(shall, wanted, sizeof shall);
    for (int i = 0; i < 8; i++)
        differ |= is[i] ^ shall[i];
    if (differ) tile_configure(wanted);
}

/* block: queries of a tile, <= n <= 2 * block. */
static void product(const int8_t *codes, uint32_t groups, const unsigned char *queries, size_t apart,
                    uint32_t n, uint32_t block, int32_t *out)
{
    /* What earlier pages left in the lines behind the tail meets zeros. */
    static _Thread_local _Alignas(64) int8_t tail[LINES * LINE];
    const unsigned char *lower = queries + (size_t)(n - block) * apart;
    uint32_t whole = groups / LINES, left = groups % LINES;
    memcpy(tail, codes + (size_t)whole * LINES * LINE, (size_t)left * LINE);
    tile_zero(0);
    tile_zero(1);
    tile_zero(2);
    tile_zero(3);
    for (uint32_t t = 0; t < whole + (left > 0); t++) {
        const int8_t *rows = t < whole ? codes + (size_t)t * LINES * LINE : tail;
        tile_load(6, rows, LINE);
        tile_load(4, queries + (size_t)t * TILE_BYTES, apart);
        tile_dots(0, 4, 6);
        tile_load(7, rows + TILE_BYTES, LINE);
        tile_dots(1, 4, 7);
        tile_load(5, lower + (size_t)t * TILE_BYTES, apart);
        tile_dots(2, 5, 6);
        tile_dots(3, 5, 7);
    }
    int32_t *low = out + (size_t)(n - block) * PD_PAGE_ROWS;
    tile_store(0, out, PD_PAGE_ROWS * sizeof *out);
    tile_store(1, out + 16, PD_PAGE_ROWS * sizeof *out);
    tile_store(2, low, PD_PAGE_ROWS * sizeof *out);
    tile_store(3, low + 16, PD_PAGE_ROWS * sizeof *out);
}

static void dots(const int8_t *codes, uint32_t groups, uint32_t dim64, const void *queries, uint32_t n,
                 int32_t *out)
{
    if (n < AMX_LEAST) {
        AMX_SMALL.dots(codes, groups, dim64, queries, n, out);
        return;
    }
    uint32_t block = n > 16 ? 16 : 8;
    shape(block == 16 ? &shape_of_16 : &shape_of_8);
    product(codes, groups, queries, pd_packed_bytes(&pd_cpu_i8_amx, dim64), n, block, out);
}

static void pack(const int8_t *codes, uint32_t dim64, void *out)
{
    AMX_SMALL.pack(codes, dim64, out);
}

static void rest(void)
{
    tile_release();
}

const pd_cpu_i8 pd_cpu_i8_amx = {.isa = "amx", .width = 1, .pack = pack, .dots = dots, .rest = rest};

#if !defined(PD_TILE_MODEL)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REQUEST_PERMISSION 0x1023 /* ARCH_REQ_XCOMP_PERM */
#define TILE_DATA          18 /* its number among the processor's state components; 17 is the configuration */

/* The processor has the instructions and the system keeps their state. Some virtual machines announce tiles and have
 * no palette; there every tile instruction is illegal. */
static int has_tiles(void)
{
    unsigned a, b, c, d;
    uint32_t low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d >> 24 & 3) != 3) return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low >> 17 & 3) != 3) return 0;
    if (!__get_cpuid_count(0x1d, 0, &a, &b, &c, &d) || a < 1) return 0;
    if (!__get_cpuid_count(0x1d, 1, &a, &b, &c, &d)) return 0;
    return b >> 16 >= 8 && (b & 0xffff) >= TILE_BYTES && (c & 0xffff) >= 16;
}

int pd_cpu_amx_allowed(void)
{
    return has_tiles() && syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}
#endif
