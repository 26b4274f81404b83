/* What the threads of a block do together (block.cuh), against plain loops over the same numbers. */
#include <algorithm>
#include <vector>

#include "block.cuh"
#include "check.h"

#define THREADS 96

static cudaStream_t stream;
static uint64_t state = 88172645463325252ull;

static uint32_t below(uint32_t n)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state * 0x2545f4914f6cdd1dull >> 32) * n >> 32);
}

static int open_stream(void **)
{
    pd_simt_recover();
    return cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess ? 0 : -1;
}

static int close_stream(void **)
{
    pd_simt_recover();
    cudaStreamDestroy(stream);
    return pd_simt_live() == 0 ? 0 : -1;
}

template <typename T> static T *to_device(const std::vector<T> &from)
{
    T *out = NULL;
    size_t bytes = (from.size() + 1) * sizeof(T);
    assert_int_equal(cudaMalloc(&out, bytes), cudaSuccess);
    assert_int_equal(
        cudaMemcpyAsync(out, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice, stream),
        cudaSuccess);
    assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
    return out;
}

template <typename T> static void from_device(std::vector<T> &to, const T *from)
{
    assert_int_equal(cudaMemcpyAsync(to.data(), from, to.size() * sizeof(T), cudaMemcpyDeviceToHost, stream),
                     cudaSuccess);
    cudaError_t error = cudaStreamSynchronize(stream);
    if (error != cudaSuccess) fail_msg("%s", pd_simt_failure());
}

/* -------------------------------------------------------------------------------------------- the k-th --- */

typedef struct found {
    pd_key key;
    uint32_t before, equal;
} found;

__global__ static void find(const pd_key *keys, uint32_t n, uint32_t k, found *out)
{
    PD_SHARED pd_block_work work;
    found own;
    own.key = pd_block_kth(&work, n, k, &own.before, &own.equal, [=](uint32_t i, pd_key *value) {
        *value = keys[i];
        return keys[i] != 42;
    });
    if (threadIdx.x == 0) *out = own;
}

static void check_kth(std::vector<pd_key> keys)
{
    std::vector<pd_key> sorted;
    for (pd_key key : keys)
        if (key != 42) sorted.push_back(key);
    std::sort(sorted.begin(), sorted.end());
    pd_key *in = to_device(keys);
    for (uint32_t k : {1u, (uint32_t)sorted.size() / 2 + 1, (uint32_t)sorted.size()}) {
        std::vector<found> out(1);
        found *at = to_device(out);
        assert_int_equal(PD_LAUNCH(find, 1, THREADS, 0, stream, in, (uint32_t)keys.size(), k, at),
                         cudaSuccess);
        from_device(out, at);
        pd_key want = sorted[k - 1];
        assert_true(out[0].key == want);
        assert_int_equal(out[0].before,
                         std::lower_bound(sorted.begin(), sorted.end(), want) - sorted.begin());
        assert_int_equal(out[0].equal, std::count(sorted.begin(), sorted.end(), want));
        cudaFree(at);
    }
    cudaFree(in);
}

static void test_the_kth_key_is_found_whatever_the_keys(void **)
{
    const pd_key most = ~(pd_key)0;
    check_kth({7});
    check_kth({0, most});
    check_kth({most, most, most});
    check_kth({42, 42, 5, 42});
    for (uint32_t n : {2u, 95u, 96u, 97u, 700u}) {
        std::vector<pd_key> few, wide, near, same(n, 9);
        for (uint32_t i = 0; i < n; i++) {
            few.push_back(below(3));
            wide.push_back((pd_key)below(1u << 31) << 33 | below(1u << 31));
            near.push_back(most - below(1000));
        }
        near[n / 2] = 0;
        check_kth(few);
        check_kth(wide);
        check_kth(near);
        check_kth(same);
    }
}

/* ----------------------------------------------------------------------------------------- candidates --- */

__global__ static void cut(uint32_t *scores, uint32_t *slots, const pd_key *ids, uint32_t count,
                           uint32_t keep, uint32_t *out)
{
    PD_SHARED pd_block_work work;
    uint32_t worst = 0;
    uint32_t left = pd_block_cut(&work, scores, slots, NULL, count, keep, &worst,
                                 [=](uint32_t i) { return ids[slots[i]]; });
    if (threadIdx.x == 0) {
        out[0] = left;
        out[1] = worst;
    }
}

typedef struct candidate {
    uint32_t score, slot;
    pd_key id;
} candidate;

static bool comes_first(const candidate &a, const candidate &b)
{
    if (a.score != b.score) return a.score > b.score;
    if (a.id != b.id) return a.id < b.id;
    return a.slot < b.slot;
}

/* scores and ids are below these. */
static void check_cut(uint32_t count, uint32_t keep, uint32_t score_kinds, uint32_t id_kinds)
{
    std::vector<candidate> all;
    std::vector<uint32_t> scores, slots, out(2);
    std::vector<pd_key> ids;
    for (uint32_t i = 0; i < count; i++) {
        candidate own = {1 + below(score_kinds), (i * 7) % count, (pd_key)below(id_kinds) << 40};
        all.push_back(own);
    }
    ids.resize(count);
    for (const candidate &own : all) {
        ids[own.slot] = own.id;
        scores.push_back(own.score);
        slots.push_back(own.slot);
    }
    uint32_t *at_scores = to_device(scores), *at_slots = to_device(slots), *at_out = to_device(out);
    pd_key *at_ids = to_device(ids);
    assert_int_equal(PD_LAUNCH(cut, 1, THREADS, 0, stream, at_scores, at_slots, at_ids, count, keep, at_out),
                     cudaSuccess);
    from_device(out, at_out);
    from_device(scores, at_scores);
    from_device(slots, at_slots);
    std::sort(all.begin(), all.end(), comes_first);
    uint32_t want = count < keep ? count : keep;
    assert_int_equal(out[0], want);
    assert_int_equal(out[1], count > keep ? all[keep - 1].score : 0);
    std::vector<candidate> left;
    for (uint32_t i = 0; i < want; i++)
        left.push_back({scores[i], slots[i], ids[slots[i]]});
    std::sort(left.begin(), left.end(), comes_first);
    for (uint32_t i = 0; i < want; i++) {
        assert_int_equal(left[i].slot, all[i].slot);
        assert_int_equal(left[i].score, all[i].score);
    }
    cudaFree(at_scores);
    cudaFree(at_slots);
    cudaFree(at_out);
    cudaFree(at_ids);
}

static void test_the_best_are_kept_and_ties_go_by_id_then_slot(void **)
{
    for (uint32_t count : {1u, 5u, 96u, 300u, 611u}) {
        if (count % 7 == 0) continue;
        for (uint32_t keep : {1u, 4u, 95u, 299u, 700u}) {
            check_cut(count, keep, 1u << 30, 1u << 30);
            check_cut(count, keep, 5, 1u << 20);
            check_cut(count, keep, 1, 1u << 20);
            check_cut(count, keep, 2, 3);
            check_cut(count, keep, 1, 1);
        }
    }
}

/* --------------------------------------------------------------------------------------------- sorting --- */

__global__ static void sort(uint32_t *values, uint32_t n)
{
    pd_block_sort(
        n, [=](uint32_t i, uint32_t j) { return values[i] > values[j]; },
        [=](uint32_t i, uint32_t j) {
            uint32_t kept = values[i];
            values[i] = values[j];
            values[j] = kept;
        });
}

static void test_any_number_of_items_is_sorted(void **)
{
    for (uint32_t n : {0u, 1u, 2u, 3u, 5u, 8u, 31u, 33u, 64u, 100u, 257u, 1000u}) {
        std::vector<uint32_t> values;
        for (uint32_t i = 0; i < n; i++)
            values.push_back(below(n / 2 + 1));
        uint32_t *at = to_device(values);
        assert_int_equal(PD_LAUNCH(sort, 1, THREADS, 0, stream, at, n), cudaSuccess);
        std::vector<uint32_t> want = values;
        std::sort(want.begin(), want.end());
        from_device(values, at);
        assert_true(values == want);
        cudaFree(at);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_kth_key_is_found_whatever_the_keys),
        cmocka_unit_test(test_the_best_are_kept_and_ties_go_by_id_then_slot),
        cmocka_unit_test(test_any_number_of_items_is_sorted),
    };
    return cmocka_run_group_tests(tests, open_stream, close_stream);
}
