/* Blocking searches at the lowest priority: a task of the executor whose caller waits for it. */
#include <pthread.h>

#include "executor.h"

typedef struct background {
    pd_task task;
    const pd_query *queries;
    pd_answer *answers;
    uint32_t next;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    int over;
    pd_status status;
    pd_error err;
} background;

static pd_status prepare(pd_task *task, pd_next *next, pd_error *err)
{
    (void)err;
    task->pending = task->queries;
    *next = task->pending ? PD_NEXT_SEARCH : PD_NEXT_DONE;
    return PD_OK;
}

static uint32_t take(pd_task *task, uint32_t max, pd_query *queries, pd_answer *answers)
{
    background *b = (background *)task;
    uint32_t n = task->pending < max ? task->pending : max;
    for (uint32_t i = 0; i < n; i++) {
        queries[i] = b->queries[b->next + i];
        answers[i] = b->answers[b->next + i];
    }
    return n;
}

static pd_status absorb(pd_task *task, const pd_query *queries, const pd_answer *answers, uint32_t n,
                        const pd_timing *timing, pd_next *next, pd_error *err)
{
    background *b = (background *)task;
    (void)queries;
    (void)timing;
    (void)err;
    for (uint32_t i = 0; i < n; i++)
        b->answers[b->next + i] = answers[i];
    b->next += n;
    task->pending -= n;
    *next = task->pending ? PD_NEXT_SEARCH : PD_NEXT_DONE;
    return PD_OK;
}

static void done(pd_task *task, pd_status status, const pd_error *err)
{
    background *b = (background *)task;
    pthread_mutex_lock(&b->lock);
    b->status = status;
    if (status && err) b->err = *err;
    b->over = 1;
    pthread_cond_signal(&b->ended);
    pthread_mutex_unlock(&b->lock);
}

static const pd_task_type background_type = {
    .prepare = prepare, .take = take, .absorb = absorb, .done = done};

/* Calibration asks at many depths: queries of like work share an estimate. */
static uint32_t cost_class(const pd_query *query)
{
    uint32_t class = 0;
    for (uint32_t n = query->nprobe; n > 1; n /= 2)
        class ++;
    return 0x10000u | class;
}

pd_status pd_executor_background_index(pd_executor *executor, pd_index *index, const pd_query *queries,
                                       uint32_t count, pd_answer *answers, pd_error *err)
{
    if (count == 0) return PD_OK;
    background b = {.task = {.type = &background_type,
                             .index = index,
                             .deadline_ns = UINT64_MAX,
                             .queries = count,
                             .cost_class = cost_class(queries),
                             .background = 1},
                    .queries = queries,
                    .answers = answers};
    pthread_mutex_init(&b.lock, NULL);
    pthread_cond_init(&b.ended, NULL);
    pd_status status = pd_executor_submit(executor, &b.task, err);
    if (!status) {
        pthread_mutex_lock(&b.lock);
        while (!b.over)
            pthread_cond_wait(&b.ended, &b.lock);
        pthread_mutex_unlock(&b.lock);
        status = b.status;
        if (status && err) *err = b.err;
    }
    pthread_cond_destroy(&b.ended);
    pthread_mutex_destroy(&b.lock);
    return status;
}

pd_status pd_executor_background(pd_executor *executor, pd_resident *resident, const pd_query *queries,
                                 uint32_t count, pd_answer *answers, pd_error *err)
{
    return pd_executor_background_index(executor, pd_resident_index(resident), queries, count, answers, err);
}
