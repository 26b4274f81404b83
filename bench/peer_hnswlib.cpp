// hnswlib (Debian's libhnswlib-dev, headers only), compiled with the flags of the kernels' best object: M 16, efConstruction 200.
// Queries of a batch are dealt to as many threads as the others have.
#include <hnswlib/hnswlib.h>

#include <atomic>
#include <cstdio>
#include <exception>
#include <memory>
#include <thread>
#include <vector>

#include "bench.h"

namespace
{

struct State {
    std::unique_ptr<hnswlib::SpaceInterface<float>> space;
    std::unique_ptr<hnswlib::HierarchicalNSW<float>> graph;
    uint32_t threads;
    uint32_t dim;
};

// Calls body(i) for i in 0..n-1 on threads; the first exception is kept and thrown again here.
template <typename Body> void deal(uint32_t threads, uint64_t n, Body body)
{
    std::atomic<uint64_t> next{0};
    std::exception_ptr problem;
    std::atomic<bool> stop{false};
    auto work = [&] {
        try {
            for (uint64_t i; !stop && (i = next++) < n;)
                body(i);
        } catch (...) {
            if (!stop.exchange(true)) problem = std::current_exception();
        }
    };
    std::vector<std::thread> others;
    for (uint32_t t = 1; t < threads; t++)
        others.emplace_back(work);
    work();
    for (auto &thread : others)
        thread.join();
    if (problem) std::rethrow_exception(problem);
}

int failed(const std::exception &e, char *why, size_t room)
{
    snprintf(why, room, "%s", e.what());
    return 1;
}

int build(const bench_data *data, uint32_t threads, uint32_t, uint64_t seed, void **out, char *why,
          size_t room)
{
    try {
        auto state = std::make_unique<State>();
        state->threads = threads;
        state->dim = data->dim;
        if (data->metric == PD_L2)
            state->space = std::make_unique<hnswlib::L2Space>(data->dim);
        else
            state->space = std::make_unique<hnswlib::InnerProductSpace>(data->dim);
        state->graph =
            std::make_unique<hnswlib::HierarchicalNSW<float>>(state->space.get(), data->rows, 16, 200, seed);
        deal(threads, data->rows, [&](uint64_t i) { state->graph->addPoint(data->base + i * data->dim, i); });
        *out = state.release();
        return 0;
    } catch (const std::exception &e) {
        return failed(e, why, room);
    }
}

const uint32_t *grid(void *, uint32_t *n)
{
    static const uint32_t ef[] = {10, 12, 16,  20,  24,  32,  40,  48,  64,
                                  80, 96, 128, 160, 192, 256, 384, 512, 1024};
    *n = sizeof ef / sizeof *ef;
    return ef;
}

int set(void *handle, uint32_t value, char *, size_t)
{
    static_cast<State *>(handle)->graph->setEf(value);
    return 0;
}

int search(void *handle, const float *queries, uint32_t count, uint32_t k, int64_t *ids, char *why,
           size_t room)
{
    auto *state = static_cast<State *>(handle);
    try {
        deal(state->threads, count, [&](uint64_t q) {
            auto found = state->graph->searchKnn(queries + q * state->dim, k);
            int64_t *row = ids + q * k;
            for (uint32_t i = k; i-- > 0;) {
                if (i >= found.size()) {
                    row[i] = -1;
                    continue;
                }
                row[i] = static_cast<int64_t>(found.top().second);
                found.pop();
            }
        });
        return 0;
    } catch (const std::exception &e) {
        return failed(e, why, room);
    }
}

void close(void *handle)
{
    delete static_cast<State *>(handle);
}

} // namespace

extern "C" const bench_peer bench_hnswlib = {
    "hnswlib", "ef", "hnswlib 0.6.2 (Debian), compiled with -O3 -march=native, M 16, efConstruction 200",
    build,     grid, set,
    search,    close};
