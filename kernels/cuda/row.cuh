/* One row of a page as a query sees it: whether it passes a filter, what its attributes weigh, its id. */
#ifndef PD_CUDA_ROW_CUH
#define PD_CUDA_ROW_CUH

#include "block.cuh"
#include "f16.h"
#include "fmath.h"

static __device__ __forceinline__ const unsigned char *pd_slot_page(const pd_cuda_view &view, uint32_t slot)
{
    return pd_view_page(view, slot / PD_PAGE_ROWS);
}

static __device__ __forceinline__ unsigned long long pd_page_id(const pd_cuda_layout &layout,
                                                                const unsigned char *page, uint32_t row)
{
    return ((const unsigned long long *)(page + layout.ids))[row];
}

static __device__ __forceinline__ unsigned long long pd_slot_id(const pd_cuda_view &view, uint32_t slot)
{
    return pd_page_id(view.layout, pd_slot_page(view, slot), slot % PD_PAGE_ROWS);
}

static __device__ __forceinline__ float pd_row_term(const pd_cuda_layout &layout, const unsigned char *page,
                                                    uint32_t row)
{
    return ((const float *)(page + layout.term))[row];
}

/* ---------------------------------------------------------------------------------------------- copying --- */

/* Every part of a page is an array of 32 equal elements a group: by a block, element `row` of each group moves to place. */
static __device__ inline void pd_part_copy(const unsigned char *from, unsigned char *to, uint32_t groups,
                                           uint32_t size, uint32_t row, uint32_t place)
{
    for (uint32_t i = threadIdx.x; i < groups * size; i += blockDim.x) {
        size_t group = (size_t)(i / size) * PD_PAGE_ROWS * size;
        to[group + place * size + i % size] = from[group + row * size + i % size];
    }
}

/* A row with its columns from one page to another, by a block. */
static __device__ inline void pd_row_copy(const pd_cuda_view &view, const unsigned char *from, uint32_t row,
                                          unsigned char *to, uint32_t place)
{
    const pd_cuda_layout &l = view.layout;
    if (view.code == PD_CODE_I8) pd_part_copy(from + l.codes, to + l.codes, l.dim4 / 4, 4, row, place);
    if (view.code == PD_CODE_F16) pd_part_copy(from + l.codes, to + l.codes, view.dim, 2, row, place);
    if (view.code == PD_CODE_F32) pd_part_copy(from + l.codes, to + l.codes, view.dim, 4, row, place);
    pd_part_copy(from + l.scale, to + l.scale, 1, 4, row, place);
    pd_part_copy(from + l.term, to + l.term, 1, 4, row, place);
    pd_part_copy(from + l.ids, to + l.ids, 1, 8, row, place);
    pd_part_copy(from + l.bytes, to + l.bytes, view.nbytes, 1, row, place);
    pd_part_copy(from + l.floats, to + l.floats, view.nfloats, 4, row, place);
    pd_part_copy(from + l.keys, to + l.keys, view.nkeys, 8, row, place);
}

/* --------------------------------------------------------------------------------------------- filters --- */

/* Is value among sorted values? */
static __device__ __forceinline__ int pd_among(const uint64_t *values, uint32_t count,
                                               unsigned long long value)
{
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (values[mid] < value)
            low = mid + 1;
        else
            high = mid;
    }
    return low < count && values[low] == value;
}

static __device__ __forceinline__ int pd_row_set(const pd_set_test &test, const uint8_t *planes)
{
    unsigned long long members = 0;
    for (uint32_t j = 0; j < 8; j++)
        members |= (unsigned long long)planes[(size_t)j * PD_PAGE_ROWS] << (8 * j);
    if (test.any && !(members & test.any)) return 0;
    return !(~members & test.all) && !(members & test.none);
}

/* Does the row pass every test (filter.h)? */
static __device__ inline int pd_row_passes(const pd_cuda_batch &batch, const pd_cuda_filter &filter,
                                           const unsigned char *page, uint32_t row)
{
    const pd_cuda_layout &layout = batch.view.layout;
    for (uint32_t i = filter.bytes; i < filter.bytes + filter.nbytes; i++) {
        const pd_byte_test &test = batch.byte_tests[i];
        uint32_t value = page[layout.bytes + (size_t)test.column * PD_PAGE_ROWS + row];
        if (!(test.allow[value >> 6] >> (value & 63u) & 1u)) return 0;
    }
    for (uint32_t i = filter.ranges; i < filter.ranges + filter.nranges; i++) {
        const pd_range_test &test = batch.range_tests[i];
        float value = ((const float *)(page + layout.floats))[(size_t)test.column * PD_PAGE_ROWS + row];
        if (!(value >= test.low && value <= test.high)) return 0;
    }
    for (uint32_t i = filter.sets; i < filter.sets + filter.nsets; i++) {
        const pd_set_test &test = batch.set_tests[i];
        if (!pd_row_set(test, page + layout.bytes + (size_t)test.column * PD_PAGE_ROWS + row)) return 0;
    }
    for (uint32_t i = filter.keys; i < filter.keys + filter.nkeys; i++) {
        const pd_cuda_key_test &test = batch.key_tests[i];
        unsigned long long key =
            ((const unsigned long long *)(page + layout.keys))[(size_t)test.column * PD_PAGE_ROWS + row];
        int among = key != 0 && pd_among(batch.key_values + test.first, test.count, key);
        if (among == (test.negate != 0)) return 0;
    }
    return 1;
}

/* Can some row of a page or list pass (blocks.h)? bits: its summary. */
static __device__ inline int pd_summary_may(const pd_cuda_filter &filter, const uint64_t *bits)
{
    if (!filter.folds || !bits) return 1;
    for (uint32_t i = 0; i < filter.fold.ntests; i++)
        if (!(bits[filter.fold.tests[i].at] & filter.fold.tests[i].allow)) return 0;
    for (uint32_t g = 0; g < filter.fold.ngroups; g++) {
        unsigned long long some = 0;
        for (uint32_t i = 0; i < filter.fold.groups[g].n; i++)
            some |= bits[filter.fold.groups[g].any[i].at] & filter.fold.groups[g].any[i].allow;
        if (!some) return 0;
    }
    return 1;
}

static __device__ __forceinline__ int pd_page_may(const pd_cuda_view &view, const pd_cuda_filter &filter,
                                                  uint32_t page)
{
    return pd_summary_may(filter,
                          view.block_pages ? view.block_pages + (size_t)page * view.block_columns : NULL);
}
static __device__ __forceinline__ int pd_list_may(const pd_cuda_view &view, const pd_cuda_filter &filter,
                                                  uint32_t list)
{
    return pd_summary_may(filter,
                          view.block_lists ? view.block_lists + (size_t)list * view.block_columns : NULL);
}

static __device__ __forceinline__ int pd_row_excluded(const pd_cuda_batch &batch, const pd_cuda_query &query,
                                                      const unsigned char *page, uint32_t row)
{
    return query.nexclude &&
           pd_among(batch.exclude + query.exclude, query.nexclude, pd_page_id(batch.view.layout, page, row));
}

/* --------------------------------------------------------------------------------------------- weights --- */

/* The written score of a row, from the score of its similarity. */
static __device__ inline float pd_row_weigh(const pd_cuda_batch &batch, const pd_cuda_query &query,
                                            const unsigned char *page, uint32_t row, float score)
{
    const pd_cuda_view &view = batch.view;
    if (query.table != PD_NONE) {
        const float *table = batch.tables + (size_t)query.table * view.weights;
        const pd_cuda_column *columns = batch.columns + (size_t)query.table * view.nbytes;
        for (uint32_t c = 0; c < batch.weighs[query.table].ncolumns; c++) {
            uint32_t value = page[view.layout.bytes + (size_t)columns[c].column * PD_PAGE_ROWS + row];
            score = score + (value < columns[c].size ? table[columns[c].weights + value] : 0.0f);
        }
    }
    for (uint32_t i = query.keys; i < query.keys + query.nkeys; i++) {
        const pd_key_weight &key = batch.key_weights[i];
        const unsigned long long *keys =
            (const unsigned long long *)(page + view.layout.keys) + (size_t)key.column * PD_PAGE_ROWS;
        if (keys[row] == key.value) score = score + key.weight;
    }
    return score;
}

/* A bar lowered by gain (the most or the least that weights give), and by more than the rounding of the additions can take
 * away. Sums that may pass the largest float on their way are not bounded. */
static __device__ __forceinline__ float pd_under(const pd_cuda_bound &bound, float bar, double gain)
{
    if (bound.terms == 0) return bar;
    double size = (bar < 0 ? -(double)bar : (double)bar) + 2.0 * bound.size;
    if (!(size < 0x1p126)) return -FLT_MAX;
    return (float)((double)bar - gain - size * (double)(bound.terms + 4) * 0x1p-23);
}

/* --------------------------------------------------------------------------------------------- vectors --- */

/* pd_dot of a query with a vector of 16 lanes (l2: -pd_l2), by half a warp. Every lane of the half receives it; all lanes of
 * the warp call it. */
static __device__ __forceinline__ float pd_half_similarity(const float *query, const float *row,
                                                           uint32_t dim16, int l2)
{
    float lane = 0.0f;
    for (uint32_t d = pd_lane() & 15u; d < dim16; d += 16) {
        float gap = query[d] - row[d];
        lane = lane + (l2 ? gap * gap : query[d] * row[d]);
    }
    float sum = pd_add_lanes(lane);
    return l2 ? -sum : sum;
}

static __device__ __forceinline__ float pd_refined_value(const unsigned char *row, pd_refine dtype,
                                                         uint32_t d)
{
    switch (dtype) {
    case PD_REFINE_F32:
        return ((const float *)row)[d];
    case PD_REFINE_I8:
        return (float)((const int8_t *)row)[d];
    case PD_REFINE_U8:
        return (float)row[d];
    default:
        return pd_f16_to_f32(((const pd_f16 *)row)[d]);
    }
}

/* A lane's part of the same with n values of a row of any kind, added to what it has. */
static __device__ __forceinline__ float
pd_lane_refined(float lane, const float *query, const unsigned char *row, pd_refine dtype, uint32_t n, int l2)
{
    for (uint32_t d = pd_lane() & 15u; d < n; d += 16) {
        float value = pd_refined_value(row, dtype, d);
        float gap = query[d] - value;
        lane = lane + (l2 ? gap * gap : query[d] * value);
    }
    return lane;
}

/* pd_half_similarity with a row of dim values of any kind. */
static __device__ __forceinline__ float pd_half_refined(const float *query, const unsigned char *row,
                                                        pd_refine dtype, uint32_t dim, int l2)
{
    float sum = pd_add_lanes(pd_lane_refined(0.0f, query, row, dtype, dim, l2));
    return l2 ? -sum : sum;
}

/* ------------------------------------------------------------------------------------------------- codes --- */

/* Codes are read 16 bytes a lane, as they lie: four groups of dimensions times 32 rows at a time. The row that a lane stands
 * for once the eight lanes' sums have been brought together: */
static __device__ __forceinline__ uint32_t pd_lane_row()
{
    return 4 * (pd_lane() & 7u) + (pd_lane() >> 3);
}

static __device__ __forceinline__ int pd_own_of(int a, int b, int c, int d)
{
    uint32_t sub = pd_lane() >> 3;
    int low = sub & 1u ? b : a, high = sub & 1u ? d : c;
    return sub & 2u ? high : low;
}

/* The dot of a query's words with the lane's row of a page of i8 codes, by a warp. groups: of four dimensions */
static __device__ __forceinline__ int pd_page_dot(const unsigned char *codes, const uint32_t *words,
                                                  uint32_t groups)
{
    const uint4 *at = (const uint4 *)codes + (pd_lane() & 7u);
    int a = 0, b = 0, c = 0, d = 0;
    PD_UNROLL_4
    for (uint32_t g = pd_lane() >> 3; g < groups; g += 4) {
        uint4 four = at[(size_t)g * 8];
        int word = (int)words[g];
        a = __dp4a((int)four.x, word, a);
        b = __dp4a((int)four.y, word, b);
        c = __dp4a((int)four.z, word, c);
        d = __dp4a((int)four.w, word, d);
    }
    for (uint32_t by = 8; by <= 16; by <<= 1) {
        a += __shfl_xor_sync(PD_ALL_LANES, a, by);
        b += __shfl_xor_sync(PD_ALL_LANES, b, by);
        c += __shfl_xor_sync(PD_ALL_LANES, c, by);
        d += __shfl_xor_sync(PD_ALL_LANES, d, by);
    }
    return pd_own_of(a, b, c, d);
}

#endif
