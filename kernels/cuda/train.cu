/* K-means: what ingest/train.c does, to the bit (decision 7), with rows added up where they are assigned.
 *
 * The sample goes over once an iteration, piece by piece. The rows of a piece are dealt out by list on the host, in their order, and a block
 * a list adds its own to the list's sum: doubles, one after another, as one thread of the host adds them, so that no
 * timing and no number of blocks shows. The means are the host's, and so are lists that stay empty: they take half of a large one's.
 */
#include "block.cuh"

#define ITERATIONS    10u
#define CHANGED_SHARE 1000u
#define SPLIT         (1.0f / 1024.0f)
#define ADD_THREADS   128u

typedef struct training {
    pd_cuda_device *device;
    pd_cuda_lane lane;
    pd_cuda_batch memory;
    uint32_t nlist, dim;
    int spherical;
    double *sums;     /* [nlist][dim] of the device */
    uint32_t *order;  /* [most] rows of a piece by list; of the device, as what follows */
    uint32_t *starts; /* [most + 1] where each list's begin */
    uint32_t *which;  /* [most] the lists */
    uint32_t most;    /* rows of a piece for which there is room */
    uint32_t *counts; /* [nlist + 1] of the host: rows of a piece, zeros between pieces */
    float *centroids; /* [nlist][dim] of the host, as what follows */
    uint32_t *lists;  /* [n] */
    uint32_t *before; /* [n] of the iteration before */
    uint64_t *rows;   /* [nlist] */
    double *totals;   /* [nlist][dim] */
    uint64_t state, n;
} training;

/* A block a list of the piece, a thread a dimension. */
static __global__ void add_rows(const float *rows, const uint32_t *order, const uint32_t *starts,
                                const uint32_t *which, uint32_t dim, double *sums)
{
    double *to = sums + (size_t)which[blockIdx.x] * dim;
    for (uint32_t d = threadIdx.x; d < dim; d += blockDim.x) {
        double sum = to[d];
        for (uint32_t i = starts[blockIdx.x]; i < starts[blockIdx.x + 1]; i++)
            sum += (double)rows[(size_t)order[i] * dim + d];
        to[d] = sum;
    }
}

/* splitmix64, and a number under bound. */
static uint64_t random_below(uint64_t *state, uint64_t bound)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (uint64_t)(((unsigned __int128)(z ^ (z >> 31)) * bound) >> 64);
}

/* nlist different rows of the sample: a partial shuffle of their numbers, for which lists have room. */
static void choose_first(training *t, const float *sample)
{
    uint32_t *numbers = t->lists;
    for (uint64_t i = 0; i < t->n; i++)
        numbers[i] = (uint32_t)i;
    for (uint32_t l = 0; l < t->nlist; l++) {
        uint64_t other = l + random_below(&t->state, t->n - l);
        uint32_t row = numbers[other];
        numbers[other] = numbers[l];
        memcpy(t->centroids + (size_t)l * t->dim, sample + (size_t)row * t->dim, t->dim * sizeof(float));
    }
}

static pd_status room_for(training *t, uint32_t n, pd_error *err)
{
    if (n <= t->most) return PD_OK;
    size_t words = 3 * (size_t)n + 1;
    pd_status status = pd_cuda_pinned_need(t->device, &t->lane.in, words * sizeof(uint32_t), "rows", err);
    if (status == PD_OK) status = pd_take(&t->memory, words, "rows", &t->order, err);
    if (status != PD_OK) return status;
    t->starts = t->order + n;
    t->which = t->starts + n + 1;
    t->most = n;
    return PD_OK;
}

/* A piece: its rows by list, as they come. */
static pd_status take_piece(void *context, const float *rows, const uint32_t *lists, uint32_t n,
                            cudaStream_t stream, pd_error *err)
{
    training *t = (training *)context;
    pd_status status = room_for(t, n, err);
    if (status != PD_OK) return status;
    uint32_t *order = (uint32_t *)t->lane.in.data, *starts = order + t->most, *which = starts + t->most + 1;
    uint32_t some = 0, at = 0;
    for (uint32_t i = 0; i < n; i++)
        if (t->counts[lists[i]]++ == 0) which[some++] = lists[i];
    for (uint32_t k = 0; k < some; k++) {
        uint32_t own = t->counts[which[k]];
        starts[k] = t->counts[which[k]] = at;
        at += own;
    }
    starts[some] = at;
    for (uint32_t i = 0; i < n; i++)
        order[t->counts[lists[i]]++] = i;
    for (uint32_t k = 0; k < some; k++)
        t->counts[which[k]] = 0;
    cudaError_t error = cudaMemcpyAsync(t->order, order, (3 * (size_t)t->most + 1) * sizeof *order,
                                        cudaMemcpyHostToDevice, stream);
    if (error == cudaSuccess)
        error = PD_LAUNCH(add_rows, some, ADD_THREADS, 0, stream, rows, t->order, t->starts, t->which, t->dim,
                          t->sums);
    /* The next piece is packed where this one lay. */
    if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
    return pd_cuda_check(t->device, error, "adding rows up", err);
}

/* An empty list and one drawn by its rows become two that lie a little apart. */
static void split_for(training *t, uint32_t empty)
{
    uint64_t spare = 0;
    for (uint32_t l = 0; l < t->nlist; l++)
        spare += t->rows[l] > 1 ? t->rows[l] - 1 : 0;
    if (spare == 0) return;
    uint64_t at = random_below(&t->state, spare);
    uint32_t from = 0;
    for (; from < t->nlist; from++) {
        uint64_t own = t->rows[from] > 1 ? t->rows[from] - 1 : 0;
        if (at < own) break;
        at -= own;
    }
    float *one = t->centroids + (size_t)from * t->dim, *two = t->centroids + (size_t)empty * t->dim;
    for (uint32_t d = 0; d < t->dim; d++) {
        float up = d % 2 ? 1.0f - SPLIT : 1.0f + SPLIT, down = d % 2 ? 1.0f + SPLIT : 1.0f - SPLIT;
        two[d] = one[d] * up;
        one[d] = one[d] * down;
    }
    t->rows[empty] = t->rows[from] / 2;
    t->rows[from] -= t->rows[empty];
}

/* Sums become centroids. */
static pd_status update(training *t, pd_error *err)
{
    size_t bytes = (size_t)t->nlist * t->dim * sizeof(double);
    cudaError_t error = cudaMemcpyAsync(t->totals, t->sums, bytes, cudaMemcpyDeviceToHost, t->lane.stream);
    if (error == cudaSuccess) error = cudaStreamSynchronize(t->lane.stream);
    pd_status status = pd_cuda_check(t->device, error, "reading means", err);
    if (status != PD_OK) return status;
    for (uint32_t l = 0; l < t->nlist; l++)
        for (uint32_t d = 0; t->rows[l] && d < t->dim; d++)
            t->centroids[(size_t)l * t->dim + d] =
                (float)(t->totals[(size_t)l * t->dim + d] / (double)t->rows[l]);
    for (uint32_t l = 0; l < t->nlist; l++)
        if (t->rows[l] == 0) split_for(t, l);
    for (uint32_t l = 0; t->spherical && l < t->nlist; l++)
        pd_normalise(t->centroids + (size_t)l * t->dim, t->dim);
    return PD_OK;
}

static pd_status iterate(training *t, const float *sample, pd_error *err)
{
    pd_cuda_rows rows = {};
    rows.n = t->n;
    rows.host = sample;
    rows.take = take_piece;
    rows.context = t;
    pd_status status = PD_OK;
    choose_first(t, sample);
    memset(t->before, 0xff, t->n * sizeof *t->before);
    for (uint32_t i = 0; status == PD_OK && i < ITERATIONS; i++) {
        uint64_t changed = 0;
        cudaError_t error =
            cudaMemsetAsync(t->sums, 0, (size_t)t->nlist * t->dim * sizeof *t->sums, t->lane.stream);
        if (error == cudaSuccess) error = cudaStreamSynchronize(t->lane.stream);
        status = pd_cuda_check(t->device, error, "training", err);
        if (status == PD_OK)
            status = pd_cuda_assign_all(t->device, t->centroids, t->nlist, t->dim, &rows, t->lists, err);
        if (status != PD_OK) return status;
        memset(t->rows, 0, t->nlist * sizeof *t->rows);
        for (uint64_t r = 0; r < t->n; r++) {
            changed += t->lists[r] != t->before[r];
            t->rows[t->lists[r]]++;
        }
        memcpy(t->before, t->lists, t->n * sizeof *t->lists);
        status = update(t, err);
        if (changed <= t->n / CHANGED_SHARE) break;
    }
    return status;
}

pd_status pd_cuda_train(pd_device *base, const float *sample, uint64_t n, uint32_t dim, uint32_t nlist,
                        uint64_t seed, int spherical, float *centroids, pd_error *err)
{
    training t = {};
    t.device = (pd_cuda_device *)base;
    t.memory.device = t.device;
    t.memory.lane = &t.lane;
    t.nlist = nlist;
    t.dim = dim;
    t.spherical = spherical;
    t.centroids = centroids;
    t.n = n;
    t.state = seed ^ 0x6b6d65616e730003ull;
    if (nlist == 0 || dim == 0 || dim > PD_MAX_DIM || n < nlist || n > UINT32_MAX)
        return pd_fail(err, PD_INVALID_ARGUMENT, "cannot train %u centroids of dim %u on %llu rows", nlist,
                       dim, (unsigned long long)n);
    pd_status status = pd_cuda_enter(t.device, err);
    if (status != PD_OK) return status;
    status = pd_cuda_lane_open(t.device, &t.lane, err);
    if (status == PD_OK) status = pd_take(&t.memory, (size_t)nlist * dim, "means", &t.sums, err);
    t.counts = (uint32_t *)calloc(nlist, sizeof *t.counts);
    t.lists = (uint32_t *)malloc(n * sizeof *t.lists);
    t.before = (uint32_t *)malloc(n * sizeof *t.before);
    t.rows = (uint64_t *)malloc(nlist * sizeof *t.rows);
    t.totals = (double *)malloc((size_t)nlist * dim * sizeof *t.totals);
    if (status == PD_OK && (!t.counts || !t.lists || !t.before || !t.rows || !t.totals))
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to train %u centroids", nlist);
    if (status == PD_OK) status = iterate(&t, sample, err);
    pd_cuda_lane_close(&t.lane);
    free(t.counts);
    free(t.lists);
    free(t.before);
    free(t.rows);
    free(t.totals);
    return status;
}
