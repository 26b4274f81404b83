/* Requests that change tables: bound here, logged and applied by the writer. See writes.h. */
#include "writes.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "pados.pb-c.h"
#include "reply.h"
#include "writer.h"

#define WAITING 128u /* requests that wait to be bound */

struct pd_write_desk {
    pd_server *server;
    pd_workers *workers;
    /* Each binding thread assigns on a device of its own: these are the idle ones. */
    pthread_mutex_t lock;
    pd_device **devices;
    uint32_t idle, count;
};

/* One request. */
typedef struct writing {
    pd_work work;
    pd_write write;
    pd_door *door;
    pd_call *call;
    pd_wire *wire; /* until it is answered: a feedback's events lie in it */
    uint64_t id, born_ns, held;
} writing;

int pd_writes_wants(const Pados__V1__Request *request)
{
    return request->body_case == PADOS__V1__REQUEST__BODY_UPSERT ||
           request->body_case == PADOS__V1__REQUEST__BODY_UPDATE ||
           request->body_case == PADOS__V1__REQUEST__BODY_DELETE ||
           request->body_case == PADOS__V1__REQUEST__BODY_FEEDBACK;
}

/* ------------------------------------------------------------------------------------------------------ reply --- */

static void reply_written(const writing *w, const pd_written *written)
{
    Pados__V1__Reply reply = PADOS__V1__REPLY__INIT;
    Pados__V1__WriteReply out = PADOS__V1__WRITE_REPLY__INIT;
    out.sequence = written->sequence;
    out.durable = written->durable;
    out.changed = written->counts.changed;
    out.fresh = written->counts.fresh;
    out.missing = written->counts.missing;
    out.repeated = written->repeated;
    reply.id = w->id;
    reply.body_case = PADOS__V1__REPLY__BODY_WRITE;
    reply.write = &out;
    pd_serve_count(w->door, PD_OK);
    pd_reply_send(w->call, &reply);
}

/* The end of every request: answered, and all that it held let go of. */
static void end(writing *w, pd_status status, const pd_error *err, const pd_written *written)
{
    pd_server *server = w->door->server;
    if (status) {
        pd_serve_count(w->door, (uint32_t)status);
        pd_reply_error(w->call, w->id, status, err->message);
    } else {
        reply_written(w, written);
        pd_observe_us(&server->metrics.write_time, pd_us_between(w->born_ns, pd_now_ns()));
        pd_count(&server->metrics.written_rows, written->counts.changed);
    }
    pd_batch_free(w->write.batch);
    if (w->write.served) pd_catalog_release(w->write.served);
    pd_wire_free(w->wire);
    atomic_fetch_sub(&server->held_bytes, w->held);
    free(w);
}

static void on_written(pd_write *write, pd_status status, const pd_error *err, const pd_written *written)
{
    end((writing *)((char *)write - offsetof(writing, write)), status, err, written);
}

/* Its table was built again: it is bound to the new version, as if it had come now. */
static void on_again(pd_write *write)
{
    writing *w = (writing *)((char *)write - offsetof(writing, write));
    pd_error err;
    pd_write_desk *desk = w->door->server->writes;
    pthread_mutex_lock(&desk->lock);
    int taken = desk->workers && pd_workers_add(desk->workers, &w->work, &err) == PD_OK;
    pthread_mutex_unlock(&desk->lock);
    if (taken) return;
    /* Its turn never comes: sent again, it is as good as new. */
    end(w, pd_fail(&err, PD_UNAVAILABLE, "the table was built again, and too many batches wait"), &err, NULL);
}

/* ------------------------------------------------------------------------------------------------------- bind --- */

static pd_device *take_device(pd_write_desk *desk)
{
    pthread_mutex_lock(&desk->lock);
    pd_device *device = desk->devices[--desk->idle]; /* as many as threads */
    pthread_mutex_unlock(&desk->lock);
    return device;
}

static void give_device(pd_write_desk *desk, pd_device *device)
{
    pthread_mutex_lock(&desk->lock);
    desk->devices[desk->idle++] = device;
    pthread_mutex_unlock(&desk->lock);
}

static void run_bind(pd_work *work)
{
    writing *w = (writing *)work;
    pd_server *server = w->door->server;
    pd_catalog *catalog = atomic_load(&server->catalog);
    pd_error err = {0};
    pd_status status = PD_OK;
    if (pd_now_ns() >= w->write.deadline_ns)
        status =
            pd_fail(&err, PD_DEADLINE_EXCEEDED, "the deadline passed while the batch waited to be encoded");
    if (!status && !w->write.batch)
        status = pd_batch_of_request(pd_wire_request(w->wire), &w->write.batch, &err);
    if (!status) status = pd_catalog_hold(catalog, w->write.batch->table, &w->write.served, &err);
    if (!status) {
        pd_device *device = take_device(server->writes);
        status = pd_batch_bind(w->write.batch, w->write.served->version, device, NULL, &err);
        give_device(server->writes, device);
    }
    w->write.done = on_written;
    w->write.again = on_again;
    if (!status) status = pd_writer_submit(pd_catalog_writer(catalog), &w->write, &err);
    if (!status) return; /* w may be gone by now */
    if (status == PD_RESOURCE_EXHAUSTED) pd_count(&server->metrics.rejected[PD_REJECT_QUEUE], 1);
    end(w, status, &err, NULL);
}

void pd_writes_take(pd_door *door, pd_call *call, pd_wire *wire, uint64_t born_ns)
{
    pd_server *server = door->server;
    const pd_config *config = server->config;
    const Pados__V1__Request *request = pd_wire_request(wire);
    pd_error err;
    pd_status status = PD_OK;
    writing *w = calloc(1, sizeof *w);
    if (!w) {
        pd_serve_count(door, PD_RESOURCE_EXHAUSTED);
        pd_reply_error(call, request->id, PD_RESOURCE_EXHAUSTED, "no memory for the request");
        pd_wire_free(wire);
        return;
    }
    uint32_t ms = request->deadline_ms ? request->deadline_ms : config->deadline_ms;
    if (ms > config->max_deadline_ms) ms = config->max_deadline_ms;
    /* The message, its bytes for the log, its rows as f32 and their codes. */
    uint64_t held = pd_wire_held(wire) * 4;
    *w = (writing){.work.run = run_bind,
                   .write.deadline_ns = born_ns + ms * 1000000ull,
                   .door = door,
                   .call = call,
                   .wire = wire,
                   .id = request->id,
                   .born_ns = born_ns};
    if (atomic_fetch_add(&server->held_bytes, held) + held > PD_QUEUE_BYTES) {
        atomic_fetch_sub(&server->held_bytes, held);
        pd_count(&server->metrics.rejected[PD_REJECT_MEMORY], 1);
        status = pd_fail(&err, PD_RESOURCE_EXHAUSTED,
                         "waiting requests hold %llu MiB, the most that is allowed", PD_QUEUE_BYTES >> 20);
    } else {
        w->held = held;
        status = pd_workers_add(server->writes->workers, &w->work, &err);
        if (status) pd_count(&server->metrics.rejected[PD_REJECT_QUEUE], 1);
    }
    if (status) end(w, status, &err, NULL);
}

/* ------------------------------------------------------------------------------------------------- open, close --- */

pd_status pd_writes_open(pd_server *server, pd_write_desk **out, pd_error *err)
{
    const pd_config *config = server->config;
    pd_write_desk *desk = calloc(1, sizeof *desk);
    if (!desk) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the writes");
    desk->server = server;
    pthread_mutex_init(&desk->lock, NULL);
    desk->devices = calloc(config->writer_threads, sizeof *desk->devices);
    pd_status status =
        desk->devices ? PD_OK : pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the writes");
    pd_device_options options = {.threads = 1, .isa = *config->isa ? config->isa : NULL};
    for (uint32_t i = 0; !status && i < config->writer_threads; i++) {
        status = pd_device_open("cpu", &options, &desk->devices[i], err);
        if (!status) desk->count = ++desk->idle;
    }
    if (!status) status = pd_workers_open("pd-bind", config->writer_threads, WAITING, &desk->workers, err);
    if (status)
        pd_writes_close(desk);
    else
        *out = desk;
    return status;
}

void pd_writes_drain(pd_write_desk *desk)
{
    if (!desk) return;
    pthread_mutex_lock(&desk->lock);
    pd_workers *workers = desk->workers;
    desk->workers = NULL; /* the writer may hand batches back still */
    pthread_mutex_unlock(&desk->lock);
    pd_workers_close(workers);
}

void pd_writes_close(pd_write_desk *desk)
{
    if (!desk) return;
    pd_writes_drain(desk);
    for (uint32_t i = 0; i < desk->count; i++)
        pd_device_close(desk->devices[i]);
    free(desk->devices);
    pthread_mutex_destroy(&desk->lock);
    free(desk);
}
