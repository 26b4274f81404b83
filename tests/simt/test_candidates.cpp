/* How many candidates the tiles append for a query, by a model: the scan of one query's lists with bars and rounds as the kernels
 * have them, and the order in which a device with many blocks gets to its pages. Its table is that of docs/CUDA.md.
 *
 * A query probes the 48 nearest of 4,096 lists of 1,500 rows; centroids, rows and queries are normal with a decaying spectrum, rows
 * `spread` as far from their centroid as centroids from each other's mean. Four warps share a list's pages and know, of what others
 * have made of the bar, what it was before the page. Lists are at work one after another, or (as where near lists have near numbers) all at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

extern "C" {
#include <cmocka.h>
}

#include <algorithm>
#include <vector>

#include "scan.cuh"
#include "tile.cuh"

#define DIM     96u
#define LISTS   4096u
#define PROBES  48u
#define ROWS    1500u
#define PAGES   ((ROWS + PD_PAGE_ROWS - 1) / PD_PAGE_ROWS)
#define QUERIES 8u

typedef std::vector<float> floats;

static float spectrum(uint32_t d)
{
    return 1.0f / sqrtf(1.0f + (float)d / 24.0f * ((float)d / 24.0f));
}

static uint64_t random_state;

static uint64_t draw()
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state * 0x2545f4914f6cdd1dull;
}

static float normal()
{
    uint64_t bits = draw();
    int sum = (int)((bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48));
    return (float)(sum - 131070) * (1.7320508f / 65536.0f);
}

static void shuffle(std::vector<uint32_t> &order, uint32_t from)
{
    for (uint32_t i = from; i + 1 < order.size(); i++)
        std::swap(order[i], order[i + draw() % (order.size() - i)]);
}

/* Scores of the rows of the probed lists, the nearest list first: [PROBES][ROWS]. */
static floats scores_of(float spread, uint32_t seed)
{
    random_state = 88172645463325252ull + seed;
    floats centroids(LISTS * DIM), query(DIM), scores;
    for (uint32_t l = 0; l < LISTS; l++)
        for (uint32_t d = 0; d < DIM; d++)
            centroids[l * DIM + d] = normal() * spectrum(d);
    for (uint32_t d = 0; d < DIM; d++)
        query[d] = centroids[d] + spread * normal() * spectrum(d);
    std::vector<std::pair<float, uint32_t>> near;
    for (uint32_t l = 0; l < LISTS; l++) {
        float gap = 0;
        for (uint32_t d = 0; d < DIM; d++)
            gap += (query[d] - centroids[l * DIM + d]) * (query[d] - centroids[l * DIM + d]);
        near.push_back({gap, l});
    }
    std::sort(near.begin(), near.end());
    for (uint32_t i = 0; i < PROBES * ROWS; i++) {
        const float *centroid = &centroids[near[i / ROWS].second * DIM];
        float gap = 0;
        for (uint32_t d = 0; d < DIM; d++) {
            float off = query[d] - (centroid[d] + spread * normal() * spectrum(d));
            gap += off * off;
        }
        scores.push_back(-gap);
    }
    return scores;
}

/* How a scan goes about it. */
typedef struct plan {
    const char *name;
    uint32_t keep, room, round; /* the bar is looked at when this many more have come */
    uint32_t first;             /* rows of the nearest list that set the bar before anything is scanned */
    int whole;                  /* the nearest list is scanned before the others */
} plan;

static float kth(floats some, uint32_t k)
{
    std::nth_element(some.begin(), some.begin() + (k - 1), some.end(), std::greater<float>());
    return some[k - 1];
}

/* Candidates of one query. order: its lists, in waves of `together`. */
static uint32_t candidates(const floats &scores, const plan &p, const std::vector<uint32_t> &order,
                           uint32_t together)
{
    floats taken;
    float bar = -FLT_MAX;
    if (p.first) bar = kth(floats(scores.begin(), scores.begin() + p.first), p.keep);
    for (uint32_t first = 0, n; first < PROBES; first += n) {
        n = p.whole && first == 0 ? 1 : std::min(together, PROBES - first);
        for (uint32_t page = 0; page < PAGES; page += PD_TILE_WARPS) {
            float known = bar;
            for (uint32_t i = 0; i < n * PD_TILE_WARPS * PD_PAGE_ROWS; i++) {
                uint32_t row = page * PD_PAGE_ROWS + i / n;
                if (row >= ROWS) continue;
                float score = scores[order[first + i % n] * ROWS + row];
                if (score < known) continue;
                taken.push_back(score);
                size_t count = taken.size();
                if (count <= p.room && count % p.round == 0 && count >= 2 * p.keep)
                    bar = std::max(bar, kth(taken, p.keep));
            }
        }
    }
    return (uint32_t)taken.size();
}

static plan as_it_is(const char *name, uint32_t keep)
{
    uint32_t first = pd_prime_rows(keep);
    return {name, keep, pd_tile_room(keep), pd_tile_round(keep), first < ROWS ? first : ROWS, 0};
}

static void test_candidates_of_clustered_rows_have_room(void **state)
{
    (void)state;
    const plan plans[] = {
        {"room 1,024, every 128", 52, 1024, 128, 0, 0},
        {"room 4,096, every 512", 52, 4096, 512, 0, 0},
        {"room 4,096, every 128", 52, 4096, 128, 0, 0},
        {"the nearest list first", 52, 4096, 128, 0, 1},
        {"a bar from 128 of its rows", 52, 2048, 128, 128, 0},
        {"a bar from 256", 52, 2048, 128, 256, 0},
        {"a bar from 512", 52, 2048, 128, 512, 0},
        as_it_is("as it is, keep 12", 12),
        as_it_is("as it is, keep 52", 52),
        as_it_is("as it is, keep 200", 200),
        as_it_is("as it is, keep 1,000", 1000),
    };
    const size_t nplans = sizeof plans / sizeof *plans, built = 7;
    printf("%-28s %6s %28s %28s\n", "", "", "one list after another", "all lists at once");
    printf("%-28s %6s %9s %9s %8s %9s %9s %8s\n", "", "spread", "mean", "most", "over", "mean", "most",
           "over");
    for (float spread : {0.5f, 1.0f, 2.0f}) {
        uint32_t most[nplans][2] = {}, over[nplans][2] = {};
        uint64_t sums[nplans][2] = {};
        for (uint32_t q = 0; q < QUERIES; q++) {
            floats scores = scores_of(spread, q + 1);
            for (size_t i = 0; i < nplans; i++) {
                std::vector<uint32_t> order;
                for (uint32_t l = 0; l < PROBES; l++)
                    order.push_back(l);
                shuffle(order, (uint32_t)plans[i].whole);
                for (uint32_t at_once = 0; at_once < 2; at_once++) {
                    uint32_t n = candidates(scores, plans[i], order, at_once ? PROBES : 1);
                    sums[i][at_once] += n;
                    most[i][at_once] = std::max(most[i][at_once], n);
                    over[i][at_once] += n > plans[i].room;
                }
            }
        }
        for (size_t i = 0; i < nplans; i++) {
            printf("%-28s %6.1f %9.0f %9u %7.0f%% %9.0f %9u %7.0f%%\n", plans[i].name, (double)spread,
                   (double)sums[i][0] / QUERIES, most[i][0], 100.0 * over[i][0] / QUERIES,
                   (double)sums[i][1] / QUERIES, most[i][1], 100.0 * over[i][1] / QUERIES);
            if (i >= built) assert_int_equal(over[i][0] + over[i][1], 0);
        }
        /* Without what is done about it they would not fit: else the model says nothing. */
        assert_true(over[0][1] > QUERIES / 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_candidates_of_clustered_rows_have_room)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
