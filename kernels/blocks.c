/* Summaries of pages and lists, and filters folded to match them. */
#include "blocks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

pd_status pd_blocks_open(pd_blocks *blocks, const pd_shape *shape, uint32_t npages, pd_error *err)
{
    memset(blocks, 0, sizeof *blocks);
    blocks->nbytes = shape->nbytes;
    for (uint32_t c = 0; c < PD_MAX_BYTES; c++) {
        int told = c < shape->nbytes && shape->sizes[c] > 1;
        blocks->at[c] = told ? (uint16_t)blocks->columns++ : PD_NO_BLOCK;
        blocks->first[c] = told ? 255 : 0;
        blocks->last[c] = told ? 0 : 255;
    }
    size_t words = (size_t)npages * blocks->columns;
    blocks->pages = calloc(words + 1, sizeof *blocks->pages);
    if (blocks->pages) return PD_OK;
    return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the summaries of %u pages", npages);
}

void pd_blocks_close(pd_blocks *blocks)
{
    free(blocks->pages);
    free(blocks->lists);
    memset(blocks, 0, sizeof *blocks);
}

/* there[r]: 0xff where row r is one, else 0. Returns whether all are. */
static int rows_of(const pd_layout *layout, const unsigned char *page, uint8_t *there)
{
    const float *term = (const float *)(const void *)(page + layout->term);
    uint32_t count = 0;
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++) {
        there[r] = term[r] > -INFINITY ? 0xff : 0;
        count += there[r] & 1u;
    }
    return count == PD_PAGE_ROWS;
}

static void see_column(pd_blocks *blocks, const pd_layout *layout, uint32_t number, const unsigned char *page,
                       uint32_t c, const uint8_t *there, int all)
{
    const uint8_t *column = page + layout->bytes + (size_t)c * PD_PAGE_ROWS;
    uint8_t least = blocks->first[c], most = blocks->last[c];
    uint64_t some = 0;
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++) {
        uint8_t low = column[r] | (uint8_t)~there[r], high = column[r] & there[r];
        least = low < least ? low : least;
        most = high > most ? high : most;
    }
    /* Most pages are full, and setting a bit is one instruction. */
    if (all) {
#pragma GCC unroll 8
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            some |= (uint64_t)1 << (column[r] & 63u);
    } else {
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            some |= (uint64_t)(there[r] & 1u) << (column[r] & 63u);
    }
    blocks->pages[(size_t)number * blocks->columns + blocks->at[c]] = some;
    blocks->first[c] = least;
    blocks->last[c] = most;
}

void pd_blocks_column(pd_blocks *blocks, const pd_layout *layout, uint32_t number, const void *page,
                      uint32_t column)
{
    uint8_t there[PD_PAGE_ROWS];
    int all = rows_of(layout, page, there);
    see_column(blocks, layout, number, page, column, there, all);
}

void pd_blocks_page(pd_blocks *blocks, const pd_layout *layout, uint32_t number, const void *page)
{
    uint8_t there[PD_PAGE_ROWS];
    if (blocks->columns == 0) return;
    int all = rows_of(layout, page, there);
    for (uint32_t c = 0; c < blocks->nbytes; c++)
        if (blocks->at[c] != PD_NO_BLOCK) see_column(blocks, layout, number, page, c, there, all);
}

void pd_blocks_add(pd_blocks *blocks, uint32_t list, uint32_t page)
{
    for (uint32_t i = 0; i < blocks->columns; i++)
        blocks->lists[(size_t)list * blocks->columns + i] |=
            blocks->pages[(size_t)page * blocks->columns + i];
}

uint64_t *pd_blocks_lists(const pd_blocks *blocks, uint32_t nlist, const uint32_t *offsets,
                          const uint32_t *pages)
{
    pd_blocks fresh = *blocks;
    fresh.lists = calloc((size_t)nlist * blocks->columns + 1, sizeof *fresh.lists);
    for (uint32_t list = 0; fresh.lists && list < nlist; list++)
        for (uint32_t i = offsets[list]; i < offsets[list + 1]; i++)
            pd_blocks_add(&fresh, list, pages[i]);
    return fresh.lists;
}

/* ------------------------------------------------------------------------------------------------ filters --- */

/* Bit v of holds[j]: v holds member j. The members 6 and 7 of a plane are folded away. */
static const uint64_t holds[6] = {0xaaaaaaaaaaaaaaaau, 0xccccccccccccccccu, 0xf0f0f0f0f0f0f0f0u,
                                  0xff00ff00ff00ff00u, 0xffff0000ffff0000u, 0xffffffff00000000u};

static void add_test(const pd_blocks *blocks, uint32_t column, uint64_t allow, pd_block_filter *out)
{
    if (blocks->at[column] == PD_NO_BLOCK || allow == UINT64_MAX || out->ntests == PD_BLOCK_TESTS) return;
    out->tests[out->ntests++] = (pd_block_test){.at = blocks->at[column], .allow = allow};
}

/* The values of a plane that hold one of these members. A plane that is not summarised may hold anything. */
static uint64_t any_of(const pd_blocks *blocks, uint32_t column, uint8_t members)
{
    uint64_t allow = blocks->at[column] == PD_NO_BLOCK || members >> 6 ? UINT64_MAX : 0;
    for (uint32_t j = 0; j < 6; j++)
        if (members >> j & 1) allow |= holds[j];
    return allow;
}

static void add_any(const pd_blocks *blocks, const pd_set_test *test, pd_block_filter *out)
{
    uint32_t n = 0;
    if (out->ngroups == PD_BLOCK_GROUPS) return;
    for (uint32_t plane = 0; plane < 8; plane++) {
        uint8_t members = (uint8_t)(test->any >> (8 * plane));
        uint64_t allow = members ? any_of(blocks, test->column + plane, members) : 0;
        if (allow == UINT64_MAX) return;
        if (allow)
            out->groups[out->ngroups].any[n++] =
                (pd_block_test){.at = blocks->at[test->column + plane], .allow = allow};
    }
    out->groups[out->ngroups++].n = n;
}

static void add_set(const pd_blocks *blocks, const pd_set_test *test, pd_block_filter *out)
{
    for (uint32_t plane = 0; plane < 8; plane++) {
        uint8_t all = (uint8_t)(test->all >> (8 * plane)), none = (uint8_t)(test->none >> (8 * plane));
        uint64_t allow = UINT64_MAX;
        for (uint32_t j = 0; j < 6; j++) {
            if (all >> j & 1) allow &= holds[j];
            if (none >> j & 1) allow &= ~holds[j];
        }
        add_test(blocks, test->column + plane, allow, out);
    }
    if (test->any) add_any(blocks, test, out);
}

int pd_block_filter_of(const pd_blocks *blocks, const pd_filter *filter, pd_block_filter *out)
{
    out->ntests = out->ngroups = 0;
    for (uint32_t i = 0; filter && i < filter->nbytes; i++) {
        const uint64_t *allow = filter->bytes[i].allow;
        add_test(blocks, filter->bytes[i].column, allow[0] | allow[1] | allow[2] | allow[3], out);
    }
    for (uint32_t i = 0; filter && i < filter->nsets; i++)
        add_set(blocks, &filter->sets[i], out);
    return out->ntests + out->ngroups > 0;
}
