/* The peer of the benchmark (tests/gpu/peer.cuh) chooses the k best of what cuBLAS multiplied, however rows are cut into pieces and
 * slices: held to a plain sort of the same dots, ties by row number. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

extern "C" {
#include <cmocka.h>
}

#include <algorithm>
#include <vector>

#define PEER_MOST 5120u /* two and a half chunks */
#include "../gpu/peer.cuh"

#define ROWS    17001u
#define DIM     5u
#define QUERIES 7u
#define K       30u

typedef struct scene {
    pd_device *device;
    std::vector<float> rows, queries;
    peer_host host_rows, host_queries;
} scene;

static void must(pd_status status, const pd_error *err)
{
    if (status != PD_OK) fail_msg("%s", err->message);
}

/* Values of a few steps, so that many rows tie; exact in f16. order: rows nearest first or last, so that every chunk passes the bar or none. */
static float value_of(uint32_t i, uint32_t d, int order)
{
    uint32_t x = (i * 2654435761u) ^ (d * 40503u + 7u);
    x ^= x >> 15;
    x *= 2246822519u;
    float own = 0.125f * (float)((x >> 13) % 9u) - 0.5f;
    return order ? 0.001f * own + (order > 0 ? 8.0f * (float)i / ROWS : 8.0f - 8.0f * (float)i / ROWS) : own;
}

static void fill(scene *s, int order)
{
    s->rows.resize((size_t)ROWS * DIM);
    s->queries.resize((size_t)QUERIES * DIM);
    for (uint32_t i = 0; i < ROWS; i++)
        for (uint32_t d = 0; d < DIM; d++)
            s->rows[i * DIM + d] = value_of(i, d, order);
    for (uint32_t q = 0; q < QUERIES; q++)
        for (uint32_t d = 0; d < DIM; d++)
            s->queries[q * DIM + d] = value_of(100000 + q, d, 0);
    s->host_rows = {s->rows.data(), DIM};
    s->host_queries = {s->queries.data(), DIM};
}

/* What peer_encode makes of a vector. */
static std::vector<float> stand_in(const std::vector<float> &from, int whole, float scale)
{
    std::vector<float> out(from.size());
    for (size_t i = 0; i < from.size(); i++)
        out[i] = whole ? fminf(fmaxf(rintf(from[i] / scale), -127.0f), 127.0f)
                       : pd_f16_to_f32(pd_f32_to_f16(from[i]));
    return out;
}

static float scale_of(const std::vector<float> &values, int whole)
{
    float most = 0;
    for (float value : values)
        most = fmaxf(most, fabsf(value));
    return whole ? most / 127.0f : 1.0f;
}

/* Row numbers of query q's k best among the first n rows. */
static std::vector<uint32_t> plain_best(const scene *s, uint32_t q, uint32_t n, int whole)
{
    float row_scale = scale_of(s->rows, whole), query_scale = scale_of(s->queries, whole);
    std::vector<float> rows = stand_in(s->rows, whole, row_scale),
                       queries = stand_in(s->queries, whole, query_scale), scores(n);
    std::vector<uint32_t> order(n);
    for (uint32_t i = 0; i < n; i++) {
        float dot = 0, lanes[32] = {};
        for (uint32_t d = 0; d < DIM; d++) {
            dot += rows[i * DIM + d] * queries[q * DIM + d];
            float stands = whole ? row_scale * rows[i * DIM + d] : rows[i * DIM + d];
            lanes[d] = stands * stands;
        }
        for (uint32_t by = 16; by > 0; by >>= 1)
            for (uint32_t l = 0; l < by; l++)
                lanes[l] = lanes[l] + lanes[l + by];
        scores[i] = dot * (2.0f * row_scale * query_scale) - lanes[0];
        order[i] = i;
    }
    std::sort(order.begin(), order.end(),
              [&](uint32_t a, uint32_t b) { return scores[a] != scores[b] ? scores[a] > scores[b] : a < b; });
    order.resize(n < K ? n : K);
    std::sort(order.begin(), order.end());
    return order;
}

static void open_peer(scene *s, int whole, peer_search *p)
{
    pd_error err;
    pd_cuda_source rows = {peer_host_rows, &s->host_rows, DIM, ROWS},
                   queries = {peer_host_rows, &s->host_queries, DIM, QUERIES};
    must(peer_open((pd_cuda_device *)s->device, &rows, &queries, whole, K, 1u << 20, p, &err), &err);
}

static void check(scene *s, peer_search *p, uint32_t first, uint32_t batch, uint32_t n, size_t bytes)
{
    pd_error err;
    std::vector<uint32_t> got((size_t)batch * K);
    must(peer_ask(p, first, batch, n, bytes, &err), &err);
    must(peer_read(p, batch, got.data(), &err), &err);
    for (uint32_t q = 0; q < batch; q++) {
        std::vector<uint32_t> want = plain_best(s, first + q, n, p->whole),
                              own(got.begin() + q * K, got.begin() + (q + 1) * K);
        std::sort(own.begin(), own.end());
        for (uint32_t i = 0; i < K; i++) {
            uint32_t wanted = i < want.size() ? want[i] : PD_NONE;
            if (own[i] != wanted)
                fail_msg("%s, query %u of %u, %u rows, %zu bytes: %u instead of %u", p->whole ? "i8" : "f16",
                         first + q, batch, n, bytes, own[i], wanted);
        }
    }
}

static int open_device(void **state)
{
    static scene s;
    pd_device_options options = {};
    pd_error err;
    must(pd_backend_cuda.open(&options, &s.device, &err), &err);
    *state = &s;
    return 0;
}

static int close_device(void **state)
{
    pd_device_close(((scene *)*state)->device);
    return 0;
}

static void test_the_best_are_those_of_a_plain_sort(void **state)
{
    scene *s = (scene *)*state;
    fill(s, 0);
    for (int whole = 0; whole < 2; whole++) {
        peer_search p;
        open_peer(s, whole, &p);
        check(s, &p, 0, 1, ROWS, 1u << 20);          /* slices of one query */
        check(s, &p, 2, 5, ROWS, 1u << 20);          /* few slices */
        check(s, &p, 0, QUERIES, ROWS, 1u << 17);    /* pieces, the last of them short */
        check(s, &p, 1, 1, PEER_MOST + 1, 1u << 20); /* a last piece of one row, and slices without any */
        peer_close(&p);
    }
}

static void test_fewer_rows_than_are_wanted_are_all_found(void **state)
{
    scene *s = (scene *)*state;
    peer_search p;
    fill(s, 0);
    open_peer(s, 0, &p);
    check(s, &p, 0, QUERIES, K - 7, 1u << 20);
    check(s, &p, 3, 1, K, 1u << 20);
    peer_close(&p);
}

/* Every row is better than those before, or worse. */
static void test_no_order_of_rows_loses_one(void **state)
{
    scene *s = (scene *)*state;
    for (int order = -1; order < 2; order += 2) {
        peer_search p;
        fill(s, order);
        open_peer(s, 0, &p);
        check(s, &p, 0, QUERIES, ROWS, 1u << 18);
        check(s, &p, 4, 1, ROWS, 1u << 20);
        peer_close(&p);
    }
}

static void test_more_than_there_is_room_for_is_refused(void **state)
{
    scene *s = (scene *)*state;
    peer_search p;
    pd_error err;
    fill(s, 0);
    open_peer(s, 0, &p);
    assert_int_equal(peer_ask(&p, 1, QUERIES, ROWS, 1u << 20, &err), PD_INVALID_ARGUMENT);
    assert_int_equal(peer_ask(&p, 0, 1, ROWS + 1, 1u << 20, &err), PD_INVALID_ARGUMENT);
    peer_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_best_are_those_of_a_plain_sort),
        cmocka_unit_test(test_fewer_rows_than_are_wanted_are_all_found),
        cmocka_unit_test(test_no_order_of_rows_loses_one),
        cmocka_unit_test(test_more_than_there_is_room_for_is_refused),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
