/* The writer's thread: groups of batches from the queue into the log and the tables. See writer.h. */
#include "writer.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "catalog_impl.h"
#include "clock.h"
#include "held.h"
#include "log.h"

#define GROUP_BATCHES 64u
#define GROUP_ROWS    65536u
#define APPLY_NS      1000000u /* of one call of the executor: what searches wait */

/* Somebody's work between two groups. */
typedef struct errand {
    pd_writer_work fn;
    void *argument;
    pd_status status;
    pd_error *err;
    int over;
    struct errand *next;
} errand;

/* A search that waits for a change. */
typedef struct awaited {
    pd_task *task;
    uint64_t sequence;
    struct awaited *next;
} awaited;

struct pd_writer {
    pd_catalog *catalog;
    pd_device *device; /* assigns what must be bound again */
    pthread_mutex_t lock;
    pthread_cond_t more, ran;
    pthread_mutex_t after; /* errands that come when the thread has ended run one at a time */
    pd_write *first, **last;
    uint32_t waiting;
    uint64_t waiting_bytes;
    errand *errands, **errands_last;
    awaited *awaiting;
    int stopping, ended;
    atomic_uint_fast64_t visible;
    atomic_uint_fast64_t groups, batches, rows, refused;
    pd_held held;
    atomic_uint nheld;
    uint64_t sync_at; /* interval durability: when the next sync is due; 0: nothing to sync */
    pthread_t thread;
    int started;
};

/* What calls of the executor apply. */
typedef struct applying {
    pd_write **writes;
    uint32_t n, done;
} applying;

/* ------------------------------------------------------------------------------------------------- a feedback --- */

/* Events become the counters' new values, which is what is logged. */
static pd_status count_events(pd_write *w, pd_device *device, pd_error *err)
{
    pd_batch *b = w->batch, *counted = NULL;
    pd_resident *resident = w->served->resident;
    const pd_attribute *a = &w->served->info->schema->attributes[b->counts];
    uint64_t *ids = malloc((b->nevents + 1) * sizeof *ids);
    double *counters = malloc((b->nevents + 1) * sizeof *counters);
    uint32_t n = 0, missing = 0;
    pd_status status = PD_OK;
    if (!ids || !counters) status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the counters");
    for (uint32_t i = 0; !status && i < b->nevents; i++) {
        uint32_t slot = pd_resident_staged_slot(resident, b->event[i].item);
        if (slot == PD_NO_SLOT) {
            missing++;
            continue;
        }
        ids[n] = b->event[i].item;
        counters[n++] =
            pd_counter_add(pd_resident_counter(resident, a, slot), b->event[i].weight, b->time, a->half_life);
    }
    w->written.counts.missing = missing;
    if (!status && n)
        status = pd_batch_of_counters(b->table, a->name, ids, counters, n, b->time, &counted, err);
    if (!status && n) {
        memcpy(counted->key, b->key, sizeof counted->key);
        status = pd_batch_bind(counted, w->served->version, device, NULL, err);
    }
    free(ids);
    free(counters);
    if (status || !n) {
        pd_batch_free(counted);
        return status;
    }
    pd_batch_free(b);
    w->batch = counted;
    return PD_OK;
}

/* ---------------------------------------------------------------------------------------------------- a group --- */

/* The version that serves now: a batch bound to another is bound again. */
static pd_status bind_again(pd_writer *writer, pd_write *w, pd_error *err)
{
    pd_served *served = NULL;
    pd_status status = pd_catalog_hold(writer->catalog, w->batch->table, &served, err);
    if (status) return status;
    if (served == w->served) {
        pd_catalog_release(served);
        return PD_OK;
    }
    status = pd_batch_bind(w->batch, served->version, writer->device, NULL, err);
    pd_catalog_release(w->served);
    w->served = served;
    return status;
}

/* Is the key a known one, or that of an earlier batch of this group? */
static pd_status look_for_key(pd_writer *writer, pd_write **group, uint32_t n, pd_write *w, pd_write **same,
                              pd_error *err)
{
    *same = NULL;
    if (!*w->batch->key) return PD_OK;
    pd_error none;
    pd_status status =
        pd_changes_find_key(writer->catalog->changes, w->batch->key, &w->written.sequence, &none);
    w->written.repeated = !status;
    w->written.durable = !status && writer->catalog->config->changes_durability == PD_DURABLE_SYNC;
    if (status && status != PD_NOT_FOUND) {
        *err = none;
        return status;
    }
    for (uint32_t i = 0; status && i < n; i++)
        if (!group[i]->status && !strcmp(group[i]->batch->key, w->batch->key)) *same = group[i];
    return PD_OK;
}

static pd_status stage(pd_writer *writer, pd_write *w, uint64_t sequence, pd_error *err)
{
    pd_status status = PD_OK;
    uint64_t now = pd_now_ns();
    if (now >= w->deadline_ns)
        return pd_fail(err, PD_DEADLINE_EXCEEDED, "the deadline passed while the batch waited to be written");
    status = bind_again(writer, w, err);
    if (!status && w->batch->kind == PD_BATCH_FEEDBACK) {
        status = count_events(w, writer->device, err);
        if (!status && w->batch->kind == PD_BATCH_FEEDBACK)
            return PD_OK; /* no item is there: nothing to log */
    }
    if (status) return status;
    w->batch->sequence = w->batch->change.sequence = sequence;
    uint32_t missing = w->written.counts.missing;
    status = pd_resident_stage(w->served->resident, &w->batch->change, w->batch->encoded, &w->staged,
                               &w->written.counts, err);
    w->written.counts.missing += missing;
    return status;
}

static void record_of(const pd_write *w, pd_record *out)
{
    const pd_batch *b = w->batch;
    *out = (pd_record){.sequence = b->sequence,
                       .kind = (uint32_t)b->kind,
                       .time = b->time,
                       .bytes = b->bytes,
                       .length = b->length};
    memcpy(out->table, b->table, sizeof out->table);
    memcpy(out->key, b->key, sizeof out->key);
}

/* On the executor: some pieces. */
static pd_status apply(void *argument, pd_error *err)
{
    applying *a = argument;
    pd_status status = PD_OK;
    uint64_t until = pd_now_ns() + APPLY_NS;
    do {
        pd_write *w = a->writes[a->done];
        int over;
        status = pd_resident_apply_some(w->served->resident, w->staged, &over, err);
        if (over) {
            w->staged = NULL;
            a->done++;
        }
    } while (!status && a->done < a->n && pd_now_ns() < until);
    return status;
}

/* Drops what is staged, a resident's at once, as live.h asks. */
static void drop(pd_write **staged, uint32_t n)
{
    pd_staged *of_one[GROUP_BATCHES];
    for (uint32_t i = 0; i < n; i++) {
        if (!staged[i]->staged) continue;
        pd_resident *resident = staged[i]->served->resident;
        uint32_t count = 0;
        for (uint32_t j = i; j < n; j++)
            if (staged[j]->staged && staged[j]->served->resident == resident) {
                of_one[count++] = staged[j]->staged;
                staged[j]->staged = NULL;
            }
        pd_staged_drop(resident, of_one, count);
    }
}

/* Logs and applies what was staged, all of it or nothing. */
static pd_status commit(pd_writer *writer, pd_write **staged, uint32_t n, pd_error *err)
{
    pd_catalog *catalog = writer->catalog;
    pd_record records[GROUP_BATCHES];
    if (n == 0) return PD_OK;
    for (uint32_t i = 0; i < n; i++)
        record_of(staged[i], &records[i]);
    pd_status status = pd_changes_append(catalog->changes, records, n, err);
    if (status) {
        drop(staged, n);
        return status;
    }
    applying a = {.writes = staged, .n = n};
    while (!status && a.done < n)
        status = pd_executor_call(catalog->executor, apply, &a, err);
    drop(staged, n); /* only where the executor ended or the device was lost */
    if (status) return pd_prefix(err, "the change is logged, but not visible");
    atomic_store(&writer->visible, records[n - 1].sequence);
    for (uint32_t i = 0; i < n; i++) {
        staged[i]->written.sequence = records[i].sequence;
        staged[i]->written.durable = catalog->config->changes_durability == PD_DURABLE_SYNC;
        atomic_fetch_add(&writer->rows, staged[i]->batch->n);
    }
    atomic_fetch_add(&writer->groups, 1);
    atomic_fetch_add(&writer->batches, n);
    if (catalog->config->changes_durability == PD_DURABLE_INTERVAL && !writer->sync_at)
        writer->sync_at = pd_now_ns() + catalog->config->changes_interval_ms * 1000000ull;
    return PD_OK;
}

static void answer(pd_writer *writer, pd_write *w)
{
    if (w->status && w->written.counts.crowded && pd_held_take(&writer->held, writer->catalog, w)) return;
    if (w->status) atomic_fetch_add(&writer->refused, 1);
    w->done(w, w->status, w->status ? &w->err : NULL, w->status ? NULL : &w->written);
}

static void write_group(pd_writer *writer, pd_write **group, uint32_t n)
{
    pd_write *staged[GROUP_BATCHES], *same[GROUP_BATCHES];
    uint32_t nstaged = 0;
    uint64_t next = pd_changes_last(writer->catalog->changes) + 1;
    for (uint32_t i = 0; i < n; i++) {
        pd_write *w = group[i];
        w->status = look_for_key(writer, group, i, w, &same[i], &w->err);
        if (w->status || w->written.repeated || same[i]) continue;
        w->status = stage(writer, w, next + nstaged, &w->err);
        if (w->staged) staged[nstaged++] = w;
        if (!w->status && !w->staged) w->written.sequence = next - 1 + nstaged; /* nothing had to be done */
    }
    pd_error err;
    pd_status status = commit(writer, staged, nstaged, &err);
    for (uint32_t i = 0; status && i < nstaged; i++) {
        staged[i]->status = status;
        staged[i]->err = err;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (!same[i]) continue;
        group[i]->status = same[i]->status;
        group[i]->err = same[i]->err;
        group[i]->written = same[i]->written;
        group[i]->written.repeated = 1;
    }
    for (uint32_t i = 0; i < n; i++)
        answer(writer, group[i]);
}

pd_status pd_writer_now(pd_writer *writer, pd_batch *batch, pd_served *served, pd_written *written,
                        pd_error *err)
{
    pd_write one = {.batch = batch, .served = served, .deadline_ns = UINT64_MAX}, *staged = &one;
    batch->sequence = batch->change.sequence = pd_changes_last(writer->catalog->changes) + 1;
    pd_status status = pd_resident_stage(served->resident, &batch->change, batch->encoded, &one.staged,
                                         &one.written.counts, err);
    if (!status) status = commit(writer, &staged, 1, err);
    *written = one.written;
    return status;
}

/* ---------------------------------------------------------------------------------------------------- waiting --- */

/* With the lock held: takes those who wait no longer. */
static awaited *take_awaited(pd_writer *writer)
{
    awaited *out = NULL;
    uint64_t visible = atomic_load(&writer->visible), now = pd_now_ns();
    for (awaited **at = &writer->awaiting; *at;) {
        awaited *one = *at;
        if (one->sequence > visible && now < one->task->deadline_ns && !writer->ended) {
            at = &one->next;
            continue;
        }
        *at = one->next;
        one->next = out;
        out = one;
    }
    return out;
}

static void resume_all(pd_writer *writer, awaited *list)
{
    while (list) {
        awaited *next = list->next;
        pd_executor_resume(writer->catalog->executor, list->task, PD_OK, NULL);
        free(list);
        list = next;
    }
}

void pd_writer_await(pd_writer *writer, pd_task *task, uint64_t sequence)
{
    awaited *one = malloc(sizeof *one);
    pd_error err;
    if (!one) {
        pd_status status = pd_fail(&err, PD_RESOURCE_EXHAUSTED, "no memory to wait for a change");
        pd_executor_resume(writer->catalog->executor, task, status, &err);
        return;
    }
    *one = (awaited){.task = task, .sequence = sequence};
    pthread_mutex_lock(&writer->lock);
    one->next = writer->awaiting;
    writer->awaiting = one;
    awaited *ready = take_awaited(writer);
    pthread_cond_signal(&writer->more);
    pthread_mutex_unlock(&writer->lock);
    resume_all(writer, ready);
}

/* When the thread must wake without being called: 0 never. */
static uint64_t next_wake(const pd_writer *writer)
{
    uint64_t at = writer->sync_at;
    if (writer->held.count && (!at || writer->held.look_at < at)) at = writer->held.look_at;
    for (const awaited *a = writer->awaiting; a; a = a->next)
        if (!at || a->task->deadline_ns < at) at = a->task->deadline_ns;
    return at;
}

/* ----------------------------------------------------------------------------------------------------- thread --- */

/* With the lock held: the next group, in order; feedback ends a group of its table's, since counters are read as they were
 * applied. */
static uint32_t take_group(pd_writer *writer, pd_write **group)
{
    uint32_t n = 0, rows = 0;
    while (writer->first && n < GROUP_BATCHES && (n == 0 || rows + writer->first->batch->n <= GROUP_ROWS)) {
        pd_write *w = writer->first;
        int stop = 0;
        for (uint32_t i = 0; i < n; i++)
            stop |= w->batch->kind == PD_BATCH_FEEDBACK && !strcmp(group[i]->batch->table, w->batch->table);
        if (stop) break;
        writer->first = w->next;
        if (!writer->first) writer->last = &writer->first;
        writer->waiting--;
        writer->waiting_bytes -= w->batch->length;
        rows += w->batch->n;
        group[n++] = w;
    }
    return n;
}

static void sync_when_due(pd_writer *writer)
{
    if (!writer->sync_at || pd_now_ns() < writer->sync_at) return;
    pd_error err;
    writer->sync_at = 0;
    if (pd_changes_sync(writer->catalog->changes, &err) == PD_OK) return;
    pd_log(PD_LOG_ERROR, "the log of changes is not synced: %s", err.message);
    writer->sync_at = pd_now_ns() + writer->catalog->config->changes_interval_ms * 1000000ull;
}

/* With the lock held, which is let go of meanwhile. */
static void run_errands(pd_writer *writer)
{
    while (writer->errands) {
        errand *e = writer->errands;
        writer->errands = e->next;
        if (!writer->errands) writer->errands_last = &writer->errands;
        pthread_mutex_unlock(&writer->lock);
        e->status = e->fn(e->argument, e->err);
        pthread_mutex_lock(&writer->lock);
        e->over = 1;
        writer->held.look_at = 1; /* at once: it may have been a switch. 0 would be never */
        pthread_cond_broadcast(&writer->ran);
    }
}

static void look_after_held(pd_writer *writer)
{
    if (writer->held.count && pd_now_ns() >= writer->held.look_at)
        pd_held_review(&writer->held, writer->catalog);
    atomic_store(&writer->nheld, writer->held.count);
}

static void *run(void *argument)
{
    pd_writer *writer = argument;
    pd_write *group[GROUP_BATCHES];
    pthread_mutex_lock(&writer->lock);
    for (;;) {
        run_errands(writer);
        awaited *ready = take_awaited(writer);
        uint32_t n = take_group(writer, group);
        uint64_t wake = next_wake(writer);
        if (!n && !ready && writer->stopping) break;
        if (!n && !ready && (!wake || pd_now_ns() < wake)) {
            struct timespec until = pd_clock_at(wake);
            if (wake)
                pthread_cond_timedwait(&writer->more, &writer->lock, &until);
            else
                pthread_cond_wait(&writer->more, &writer->lock);
            continue;
        }
        pthread_mutex_unlock(&writer->lock);
        resume_all(writer, ready);
        if (n) write_group(writer, group, n);
        look_after_held(writer);
        sync_when_due(writer);
        pthread_mutex_lock(&writer->lock);
    }
    writer->ended = 1;
    awaited *rest = take_awaited(writer);
    run_errands(writer);
    pthread_mutex_unlock(&writer->lock);
    resume_all(writer, rest);
    pd_held_stop(&writer->held);
    pd_error err;
    if (writer->sync_at && pd_changes_sync(writer->catalog->changes, &err))
        pd_log(PD_LOG_ERROR, "the log of changes is not synced: %s", err.message);
    return NULL;
}

/* ------------------------------------------------------------------------------------------------------ calls --- */

pd_status pd_writer_open(pd_catalog *catalog, pd_writer **out, pd_error *err)
{
    pd_writer *writer = calloc(1, sizeof *writer);
    if (!writer) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the writer");
    writer->catalog = catalog;
    writer->last = &writer->first;
    writer->errands_last = &writer->errands;
    atomic_store(&writer->visible, pd_changes_last(catalog->changes));
    pthread_mutex_init(&writer->lock, NULL);
    pthread_mutex_init(&writer->after, NULL);
    pthread_cond_init(&writer->ran, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&writer->more, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pd_device_options options = {.threads = 1, .isa = *catalog->config->isa ? catalog->config->isa : NULL};
    pd_status status = pd_device_open("cpu", &options, &writer->device, err);
    int bad = status ? 0 : pthread_create(&writer->thread, NULL, run, writer);
    if (bad) status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "the writer's thread: %s", strerror(bad));
    if (status) {
        pd_writer_close(writer);
        return status;
    }
    writer->started = 1;
    pthread_setname_np(writer->thread, "pd-writer");
    *out = writer;
    return PD_OK;
}

pd_status pd_writer_submit(pd_writer *writer, pd_write *write, pd_error *err)
{
    pd_status status = PD_OK;
    write->next = NULL;
    write->staged = NULL;
    write->written = (pd_written){0};
    pthread_mutex_lock(&writer->lock);
    if (writer->stopping) {
        status = pd_fail(err, PD_UNAVAILABLE, "stopping");
    } else if (writer->waiting >= PD_WRITES_WAITING ||
               (writer->waiting && writer->waiting_bytes + write->batch->length > PD_WRITES_BYTES)) {
        status =
            pd_fail(err, PD_RESOURCE_EXHAUSTED, "%u batches of %" PRIu64 " MiB wait to be written already",
                    writer->waiting, writer->waiting_bytes >> 20);
    } else {
        writer->waiting++;
        writer->waiting_bytes += write->batch->length;
        *writer->last = write;
        writer->last = &write->next;
        pthread_cond_signal(&writer->more);
    }
    pthread_mutex_unlock(&writer->lock);
    return status;
}

pd_status pd_writer_run(pd_writer *writer, pd_writer_work fn, void *argument, pd_error *err)
{
    pd_error own;
    errand e = {.fn = fn, .argument = argument, .err = err ? err : &own};
    pthread_mutex_lock(&writer->lock);
    int ended = writer->ended || !writer->started;
    if (!ended) {
        *writer->errands_last = &e;
        writer->errands_last = &e.next;
        pthread_cond_signal(&writer->more);
        while (!e.over)
            pthread_cond_wait(&writer->ran, &writer->lock);
    }
    pthread_mutex_unlock(&writer->lock);
    if (!ended) return e.status;
    pthread_mutex_lock(&writer->after);
    pd_status status = fn(argument, e.err);
    pthread_mutex_unlock(&writer->after);
    return status;
}

pd_device *pd_writer_device(pd_writer *writer)
{
    return writer->device;
}

uint64_t pd_writer_visible(const pd_writer *writer)
{
    return atomic_load(&writer->visible);
}

void pd_writer_stats_of(pd_writer *writer, pd_writer_stats *stats)
{
    pthread_mutex_lock(&writer->lock);
    stats->waiting = writer->waiting;
    pthread_mutex_unlock(&writer->lock);
    stats->held = atomic_load(&writer->nheld);
    stats->groups = atomic_load(&writer->groups);
    stats->batches = atomic_load(&writer->batches);
    stats->rows = atomic_load(&writer->rows);
    stats->refused = atomic_load(&writer->refused);
    stats->visible = atomic_load(&writer->visible);
}

void pd_writer_stop(pd_writer *writer)
{
    if (!writer) return;
    pthread_mutex_lock(&writer->lock);
    writer->stopping = 1;
    pthread_cond_signal(&writer->more);
    pthread_mutex_unlock(&writer->lock);
    if (writer->started) pthread_join(writer->thread, NULL);
    writer->started = 0;
}

void pd_writer_close(pd_writer *writer)
{
    if (!writer) return;
    pd_writer_stop(writer);
    pd_device_close(writer->device);
    pthread_cond_destroy(&writer->more);
    pthread_cond_destroy(&writer->ran);
    pthread_mutex_destroy(&writer->lock);
    pthread_mutex_destroy(&writer->after);
    free(writer);
}
