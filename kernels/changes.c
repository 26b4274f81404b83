/* Rows and pages that change in memory of the host, between two searches.
 *
 * A slot looks at all of its arguments first and then does what cannot fail: nothing here takes memory. A row is copied column by
 * column, from its place in a page of the caller's to its place in one of the index. What a page can hold is found again whenever
 * one of its rows changed; a list and its group only ever take more (blocks.h).
 */
#include <math.h>
#include <string.h>

#include "filter.h"
#include "host.h"

/* ---------------------------------------------------------------------------------------------------- books --- */

pd_status pd_host_list_mark(pd_host_index *index, const uint32_t *lists, const uint32_t *pages, uint32_t n,
                            pd_error *err)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t in = index->page_list[pages[i]];
        if (in != PD_NO_LIST) {
            for (uint32_t done = 0; done < i; done++)
                index->page_list[pages[done]] = PD_NO_LIST;
            return pd_fail(err, PD_FAILED_PRECONDITION, "%s: page %u is in list %u already", index->name,
                           pages[i], in);
        }
        index->page_list[pages[i]] = lists[i];
    }
    return PD_OK;
}

void pd_host_list_grow(pd_host_index *index, uint32_t list, uint32_t page)
{
    uint32_t *end = &index->offsets[index->base.shape.nlist], held = index->held[list];
    if (held == index->room[list]) {
        /* There is always enough: see PD_LIST_ROOM. */
        memcpy(index->pages + *end, index->pages + index->offsets[list], held * sizeof *index->pages);
        index->offsets[list] = *end;
        index->room[list] = held ? 2 * held : 1;
        *end += index->room[list];
    }
    index->pages[index->offsets[list] + held] = page;
    index->held[list] = held + 1;
    pd_host_list_widen(index, page, 0, index->blocks.columns);
}

void pd_host_list_rows(pd_host_index *index, uint32_t list, int32_t more)
{
    uint32_t had = index->rows[list];
    /* Not below none, though set_lists was told of fewer rows than there are. */
    index->rows[list] = more < 0 && (uint32_t)-more > had ? 0 : had + (uint32_t)more;
    int live = index->rows[list] > 0;
    if (live == (had > 0)) return;
    pd_coarse_live(&index->coarse, index->coarse_pages, index->terms, list, live);
    pd_level_live(&index->upper, &index->coarse, list, live);
}

void pd_host_list_widen(pd_host_index *index, uint32_t page, uint32_t first, uint32_t count)
{
    uint32_t columns = index->blocks.columns, list = index->page_list[page];
    const uint64_t *bits = index->blocks.pages + (size_t)page * columns;
    uint64_t *own = index->blocks.lists + (size_t)list * columns, more = 0;
    for (uint32_t i = first; i < first + count; i++) {
        more |= bits[i] & ~own[i];
        own[i] |= bits[i];
    }
    /* A group has what its lists have. */
    if (more) pd_level_add(&index->upper, &index->blocks, list, page);
}

/* ----------------------------------------------------------------------------------------------------- rows --- */

/* A group of columns: count of them, each 32 neighbours of unit bytes. Codes count as columns. */
typedef struct columns {
    size_t at;
    uint32_t unit, count;
} columns;

enum { KINDS = 7 };

static void columns_of(const pd_host_index *index, columns *all)
{
    const pd_shape *shape = &index->base.shape;
    const pd_layout *l = &index->base.layout;
    columns codes = {l->codes, 4, 0};
    if (shape->code == PD_CODE_I8) codes.count = l->dim4 / 4;
    if (shape->code == PD_CODE_F32) codes.count = shape->dim;
    if (shape->code == PD_CODE_F16) codes = (columns){l->codes, 2, shape->dim};
    const columns kinds[KINDS] = {codes,
                                  {l->scale, sizeof(float), 1},
                                  {l->term, sizeof(float), 1},
                                  {l->ids, sizeof(uint64_t), 1},
                                  {l->bytes, 1, shape->nbytes},
                                  {l->floats, sizeof(float), shape->nfloats},
                                  {l->keys, sizeof(uint64_t), shape->nkeys}};
    memcpy(all, kinds, sizeof kinds);
}

/* apart: bytes from one unit of from to the next. */
static inline void copy_units(unsigned char *to, const unsigned char *from, size_t apart, size_t unit,
                              uint32_t count)
{
    for (uint32_t i = 0; i < count; i++, to += unit * PD_PAGE_ROWS, from += apart)
        memcpy(to, from, unit);
}

/* A row's own values of these columns; from NULL: zeros. */
static void copy_columns(const columns *c, unsigned char *to, uint32_t to_row, const unsigned char *from,
                         uint32_t from_row)
{
    static const unsigned char zeros[8];
    size_t apart = from ? (size_t)c->unit * PD_PAGE_ROWS : 0;
    to += c->at + (size_t)to_row * c->unit;
    from = from ? from + c->at + (size_t)from_row * c->unit : zeros;
    /* A copy of a known size is one instruction. */
    switch (c->unit) {
    case 1:
        copy_units(to, from, apart, 1, c->count);
        break;
    case 2:
        copy_units(to, from, apart, 2, c->count);
        break;
    case 4:
        copy_units(to, from, apart, 4, c->count);
        break;
    default:
        copy_units(to, from, apart, 8, c->count);
    }
}

static void wipe_row(const pd_host_index *index, const columns *kinds, uint32_t slot)
{
    const pd_layout *layout = &index->base.layout;
    uint32_t row = slot % PD_PAGE_ROWS;
    unsigned char *page = pd_host_page(index, slot / PD_PAGE_ROWS),
                  *refine = pd_host_refine(index, slot / PD_PAGE_ROWS);
    for (uint32_t k = 0; k < KINDS; k++)
        copy_columns(&kinds[k], page, row, NULL, 0);
    /* As pd_page_clear leaves it. */
    pd_page_term(layout, page)[row] = -INFINITY;
    for (uint32_t c = 0; c < index->base.shape.nfloats; c++)
        pd_page_floats(layout, page, c)[row] = NAN;
    if (refine) memset(refine + row * pd_refine_row(layout), 0, pd_refine_row(layout));
}

static int holds_row(const pd_host_index *index, uint32_t slot)
{
    uint32_t page = slot / PD_PAGE_ROWS;
    if (index->page_list && index->page_list[page] == PD_NO_LIST) return 0;
    return pd_page_term(&index->base.layout, pd_host_page(index, page))[slot % PD_PAGE_ROWS] > -INFINITY;
}

static void count_row(pd_host_index *index, uint32_t slot, int32_t more)
{
    if (index->page_list && more) pd_host_list_rows(index, index->page_list[slot / PD_PAGE_ROWS], more);
}

/* Is slot i the last of a run of slots in one page? */
static int ends_page(const uint32_t *slots, uint32_t n, uint32_t i)
{
    return i + 1 == n || slots[i + 1] / PD_PAGE_ROWS != slots[i] / PD_PAGE_ROWS;
}

static void summarise(pd_host_index *index, uint32_t page)
{
    pd_blocks_page(&index->blocks, &index->base.layout, page, pd_host_page(index, page));
    if (index->page_list) pd_host_list_widen(index, page, 0, index->blocks.columns);
}

/* Pages lie anywhere in memory, and a row is strewn over half of the lines of one: what will be written is asked for while rows before
 * it are. */
#define ROWS_AHEAD  2u
#define TERMS_AHEAD 12u

static void ask_for_row(const pd_host_index *index, const columns *kinds, uint32_t slot)
{
    uint32_t number = slot / PD_PAGE_ROWS, row = slot % PD_PAGE_ROWS;
    const unsigned char *page = pd_host_page(index, number), *refine = pd_host_refine(index, number);
    for (uint32_t k = 0; k < KINDS; k++) {
        size_t apart = (size_t)kinds[k].unit * PD_PAGE_ROWS, step = apart < 64 ? 64 : apart;
        for (size_t at = row * kinds[k].unit; at < apart * kinds[k].count; at += step)
            __builtin_prefetch(page + kinds[k].at + at, 1);
    }
    size_t bytes = refine ? pd_refine_row(&index->base.layout) : 0;
    for (size_t at = 0; at < bytes; at += 64)
        __builtin_prefetch(refine + row * bytes + at, 1);
}

static void ask_for_columns(const pd_host_index *index, const pd_column_write *writes, uint32_t nwrites,
                            uint32_t slot)
{
    const pd_layout *l = &index->base.layout;
    unsigned char *page = pd_host_page(index, slot / PD_PAGE_ROWS);
    const pd_blocks *blocks = &index->blocks;
    for (uint32_t c = 0; c < nwrites; c++) {
        uint32_t column = writes[c].column;
        if (writes[c].kind == PD_COLUMN_BYTE) {
            __builtin_prefetch(pd_page_bytes(l, page, column), 1);
            if (blocks->at[column] != PD_NO_BLOCK)
                __builtin_prefetch(
                    &blocks->pages[(size_t)(slot / PD_PAGE_ROWS) * blocks->columns + blocks->at[column]], 1);
        } else if (writes[c].kind == PD_COLUMN_FLOAT)
            __builtin_prefetch(&pd_page_floats(l, page, column)[slot % PD_PAGE_ROWS], 1);
        else
            __builtin_prefetch(&pd_page_keys(l, page, column)[slot % PD_PAGE_ROWS], 1);
    }
}

static void ask_for_term(const pd_host_index *index, uint32_t slot)
{
    float *terms = pd_page_term(&index->base.layout, pd_host_page(index, slot / PD_PAGE_ROWS));
    /* Both lines: the page's rows are counted. */
    __builtin_prefetch(terms);
    __builtin_prefetch(terms + 16);
}

/* --------------------------------------------------------------------------------------------------- the slots --- */

pd_status pd_host_grow(pd_index *base, const uint32_t *lists, const uint32_t *pages, uint32_t n,
                       pd_error *err)
{
    pd_host_index *index = (pd_host_index *)base;
    pd_status status = pd_host_ready(index, err);
    if (status != PD_OK) return status;
    if (base->shape.nlist == 0)
        return pd_fail(err, PD_FAILED_PRECONDITION, "%s is a look-up table and has no lists", index->name);
    status = pd_host_list_mark(index, lists, pages, n, err);
    for (uint32_t i = 0; status == PD_OK && i < n; i++) {
        uint32_t live = pd_page_live(&base->layout, pd_host_page(index, pages[i]));
        pd_host_list_grow(index, lists[i], pages[i]);
        if (live) pd_host_list_rows(index, lists[i], __builtin_popcount(live));
    }
    return status;
}

/* Row i of what is written, into its slot. */
static void write_row(pd_host_index *index, const columns *kinds, const pd_row_writes *writes, uint32_t i)
{
    const pd_layout *layout = &index->base.layout;
    uint32_t slot = writes->slots[i], row = slot % PD_PAGE_ROWS, place = i % PD_PAGE_ROWS;
    unsigned char *page = pd_host_page(index, slot / PD_PAGE_ROWS),
                  *refine = pd_host_refine(index, slot / PD_PAGE_ROWS);
    const unsigned char *from = (const unsigned char *)writes->pages + i / PD_PAGE_ROWS * layout->page_bytes;
    int had = pd_page_term(layout, page)[row] > -INFINITY;
    if (!had && pd_page_live(layout, page) == 0) {
        /* The first row of a page: of what memory held before nothing must come out with its neighbours. */
        pd_page_clear(&index->base.shape, layout, page);
        if (refine) memset(refine, 0, layout->refine_bytes);
    }
    for (uint32_t k = 0; k < KINDS; k++)
        copy_columns(&kinds[k], page, row, from, place);
    if (refine)
        memcpy(refine + row * pd_refine_row(layout),
               (const unsigned char *)writes->refine + i / PD_PAGE_ROWS * layout->refine_bytes +
                   place * pd_refine_row(layout),
               pd_refine_row(layout));
    int has = pd_page_term(layout, page)[row] > -INFINITY;
    count_row(index, slot, has - had);
}

pd_status pd_host_write_rows(pd_index *base, const pd_row_writes *writes, pd_error *err)
{
    pd_host_index *index = (pd_host_index *)base;
    pd_status status = pd_host_ready(index, err);
    for (uint32_t i = 0; status == PD_OK && index->page_list && i < writes->n; i++)
        if (index->page_list[writes->slots[i] / PD_PAGE_ROWS] == PD_NO_LIST)
            status = pd_fail(err, PD_OUT_OF_RANGE, "%s: slot %u lies in a page that is in no list",
                             index->name, writes->slots[i]);
    if (status != PD_OK) return status;
    columns kinds[KINDS];
    columns_of(index, kinds);
    for (uint32_t i = 0; i < writes->n; i++) {
        if (i + ROWS_AHEAD < writes->n) ask_for_row(index, kinds, writes->slots[i + ROWS_AHEAD]);
        write_row(index, kinds, writes, i);
        if (ends_page(writes->slots, writes->n, i)) summarise(index, writes->slots[i] / PD_PAGE_ROWS);
    }
    return PD_OK;
}

static void write_bytes(pd_host_index *index, const uint32_t *slots, uint32_t n, uint32_t column,
                        const uint8_t *values)
{
    const pd_layout *layout = &index->base.layout;
    uint32_t at = index->blocks.at[column];
    for (uint32_t i = 0; i < n; i++) {
        uint32_t page = slots[i] / PD_PAGE_ROWS;
        pd_page_bytes(layout, pd_host_page(index, page), column)[slots[i] % PD_PAGE_ROWS] = values[i];
        if (at == PD_NO_BLOCK || !ends_page(slots, n, i)) continue;
        pd_blocks_column(&index->blocks, layout, page, pd_host_page(index, page), column);
        if (index->page_list) pd_host_list_widen(index, page, at, 1);
    }
}

static void write_column(pd_host_index *index, const uint32_t *slots, uint32_t n,
                         const pd_column_write *write)
{
    const pd_layout *layout = &index->base.layout;
    if (write->kind == PD_COLUMN_BYTE) {
        write_bytes(index, slots, n, write->column, write->values);
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        unsigned char *page = pd_host_page(index, slots[i] / PD_PAGE_ROWS);
        uint32_t row = slots[i] % PD_PAGE_ROWS;
        if (write->kind == PD_COLUMN_FLOAT)
            pd_page_floats(layout, page, write->column)[row] = ((const float *)write->values)[i];
        else
            pd_page_keys(layout, page, write->column)[row] = ((const uint64_t *)write->values)[i];
    }
}

pd_status pd_host_write_columns(pd_index *base, const uint32_t *slots, uint32_t n,
                                const pd_column_write *writes, uint32_t nwrites, pd_error *err)
{
    pd_host_index *index = (pd_host_index *)base;
    pd_status status = pd_host_ready(index, err);
    for (uint32_t i = 0; status == PD_OK && i < n; i++) {
        if (i + TERMS_AHEAD < n) ask_for_term(index, slots[i + TERMS_AHEAD]);
        if (!holds_row(index, slots[i]))
            status = pd_fail(err, PD_OUT_OF_RANGE, "%s: slot %u holds no row", index->name, slots[i]);
        ask_for_columns(index, writes, nwrites, slots[i]);
    }
    for (uint32_t c = 0; status == PD_OK && c < nwrites; c++)
        write_column(index, slots, n, &writes[c]);
    return status;
}

pd_status pd_host_empty_rows(pd_index *base, const uint32_t *slots, uint32_t n, pd_error *err)
{
    pd_host_index *index = (pd_host_index *)base;
    pd_status status = pd_host_ready(index, err);
    if (status != PD_OK) return status;
    columns kinds[KINDS];
    columns_of(index, kinds);
    int changed = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (i + ROWS_AHEAD < n) ask_for_row(index, kinds, slots[i + ROWS_AHEAD]);
        if (holds_row(index, slots[i])) {
            wipe_row(index, kinds, slots[i]);
            count_row(index, slots[i], -1);
            changed = 1;
        }
        if (changed && ends_page(slots, n, i)) {
            summarise(index, slots[i] / PD_PAGE_ROWS);
            changed = 0;
        }
    }
    return PD_OK;
}

pd_status pd_host_read_pages(pd_index *base, pd_page_kind kind, uint32_t first, uint32_t count, void *memory,
                             pd_error *err)
{
    const pd_host_index *index = (const pd_host_index *)base;
    const pd_layout *layout = &base->layout;
    size_t bytes = kind == PD_PAGES_REFINE ? layout->refine_bytes : layout->page_bytes;
    if (index->window_open)
        return pd_fail(err, PD_FAILED_PRECONDITION, "%s: a window of pages is open", index->name);
    for (uint32_t p = first; p < first + count; p++) {
        unsigned char *to = (unsigned char *)memory + (p - first) * bytes, *page = pd_host_page(index, p);
        /* A page without rows need never have been written: it is as an empty page is, whatever memory held before. */
        if (pd_page_live(layout, page))
            memcpy(to, kind == PD_PAGES_REFINE ? pd_host_refine(index, p) : page, bytes);
        else if (kind == PD_PAGES_REFINE)
            memset(to, 0, bytes);
        else
            pd_page_clear(&base->shape, layout, to);
    }
    return PD_OK;
}
