/* One version serves in the place of another, on the writer's thread; what is kept and what goes. See publish.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "carry.h"
#include "erase.h"
#include "log.h"
#include "publish.h"
#include "upkeep.h"
#include "writer.h"

#define CATCH_UPS 8  /* before a switch */
#define FEW_LEFT  4u /* changes that a switch may find to be done */
#define WIDER     3  /* times that a version is loaded again for more pages */

/* The way back from number, once it serves: what serves now (but for the version that it was rebuilt from: the same rows), then what
 * served before that. In a rollback the table goes that
 * way itself: what it left, and passed over, is off it. Returns how many; before: [PD_WAY_BACK]. */
static uint32_t way_back(pd_table *table, uint64_t serving, uint64_t number, int back, uint64_t *before)
{
    uint32_t count = 0, from = 0;
    const pd_known *known = pd_table_version(table, number);
    int replaces = known && known->parent && known->parent == serving;
    if (serving && serving != number && !back && !replaces) before[count++] = serving;
    for (uint32_t i = 0; back && i < table->nbefore; i++)
        if (table->before[i] == number) from = i + 1;
    for (uint32_t i = from; i < table->nbefore && count < PD_WAY_BACK; i++) {
        uint64_t one = table->before[i];
        if (one != number && one != serving && pd_table_version(table, one)) before[count++] = one;
    }
    return count;
}

/* CURRENT: the version that serves, then the way back. */
static pd_status write_current(pd_catalog *catalog, const char *table, uint64_t number,
                               const uint64_t *before, uint32_t nbefore, pd_error *err)
{
    char folder[PD_PATH_ROOM], path[PD_PATH_ROOM], text[32 * (1 + PD_WAY_BACK)];
    pd_table_folder(catalog, table, folder);
    pd_status status = pd_path_join(path, folder, "CURRENT", err);
    if (status) return status;
    size_t length = (size_t)snprintf(text, sizeof text, "%" PRIu64, number);
    for (uint32_t i = 0; i < nbefore; i++)
        length += (size_t)snprintf(text + length, sizeof text - length, " %" PRIu64, before[i]);
    text[length++] = '\n';
    return pd_file_replace(path, text, length, err);
}

pd_status pd_version_remove(pd_catalog *catalog, const char *table, uint64_t number, pd_error *err)
{
    char folder[PD_PATH_ROOM], gone[PD_PATH_ROOM + 8];
    pd_version_folder(catalog, table, number, folder);
    snprintf(gone, sizeof gone, "%s.tmp", folder);
    pthread_mutex_lock(&catalog->files);
    pd_status status = PD_OK;
    if (rename(folder, gone) == 0)
        status = pd_folder_remove(gone, err);
    else if (errno != ENOENT)
        status = pd_fail_errno(err, "rename", folder);
    pthread_mutex_unlock(&catalog->files);
    return status;
}

/* Who goes next: the oldest that is not on the way back, then the way's far end. 0: nobody is kept. *kept: how many are. spare
 * neither goes nor counts. */
static uint64_t next_to_go(const pd_table *table, uint64_t spare, uint32_t *kept)
{
    uint64_t aside = 0, farthest = 0;
    uint32_t far_place = 0;
    *kept = 0;
    for (uint32_t i = 0; i < table->nversions; i++) {
        const pd_known *known = &table->versions[i];
        if (known->state == PD_SERVING || known->state == PD_STAGED || known->number == spare) continue;
        ++*kept;
        uint32_t place = 1;
        while (place <= table->nbefore && table->before[place - 1] != known->number)
            place++;
        if (place > table->nbefore) {
            if (!aside) aside = known->number;
        } else if (place > far_place) {
            far_place = place;
            farthest = known->number;
        }
    }
    return aside ? aside : farthest;
}

void pd_publish_prune(pd_catalog *catalog, const char *table_name, uint64_t spare)
{
    for (;;) {
        uint32_t kept;
        pthread_mutex_lock(&catalog->mutex);
        pd_table *table = pd_table_find(catalog, table_name);
        uint32_t keep = table->serving ? table->serving->served.info->schema->keep : PD_KEEP_UNSAID;
        if (keep == PD_KEEP_UNSAID) keep = catalog->config->keep;
        uint64_t victim = next_to_go(table, spare, &kept);
        if (kept <= keep) victim = 0;
        if (victim) pd_table_forget(table, victim);
        pthread_mutex_unlock(&catalog->mutex);
        if (!victim) return;
        pd_error err = {0};
        if (pd_version_remove(catalog, table_name, victim, &err))
            pd_log(PD_LOG_WARNING, "version %" PRIu64 " of \"%s\" is not removed: %s", victim, table_name,
                   err.message);
        else
            pd_log(PD_LOG_INFO, "version %" PRIu64 " of \"%s\" is removed", victim, table_name);
    }
}

typedef struct misfits {
    pd_catalog *catalog;
    pd_job *job;
} misfits;

static void tell_misfit(void *context, const char *profile, const char *why)
{
    misfits *m = context;
    if (m->job)
        pd_job_warn(m->catalog, m->job, "profile \"%s\" does not fit the new version: %.300s", profile, why);
    else
        pd_log(PD_LOG_WARNING, "profile \"%s\" does not fit: %s", profile, why);
}

/* A switch, on the writer's thread: nothing is changed meanwhile. */
typedef struct switching {
    pd_incoming *in;
    pd_box *old;       /* what served until now; to be released */
    uint64_t previous; /* its number; 0: none */
} switching;

static pd_status switch_now(void *argument, pd_error *err)
{
    switching *s = argument;
    pd_incoming *in = s->in;
    pd_catalog *catalog = in->catalog;
    /* Not the builder's device, whose threads have what others leave of the processors. */
    pd_status status = pd_follow(catalog, in->box, pd_changes_last(catalog->changes),
                                 pd_writer_device(catalog->writer), in->any_width, &in->followed, err);
    uint64_t before_it[PD_WAY_BACK];
    if (status) return status;
    pthread_mutex_lock(&catalog->mutex);
    pd_table *table = pd_table_find(catalog, in->table);
    s->previous = table->serving ? table->serving->served.number : in->drained;
    uint32_t count = way_back(table, s->previous, in->number, in->back, before_it);
    pthread_mutex_unlock(&catalog->mutex);
    status = write_current(catalog, in->table, in->number, before_it, count, err);
    if (status) return status;
    pthread_mutex_lock(&catalog->mutex);
    table = pd_table_find(catalog, in->table);
    s->old = table->serving;
    pd_known *before = s->previous ? pd_table_version(table, s->previous) : NULL;
    if (before) before->state = PD_KEPT;
    pd_known *known = pd_table_version(table, in->number);
    known->state = PD_SERVING;
    known->problem[0] = 0;
    pd_followed_text(&in->followed, known->problem);
    table->serving = in->box;
    table->current = in->number;
    table->nbefore = count;
    memcpy(table->before, before_it, count * sizeof *before_it);
    table->swapping = 0;
    table->problem[0] = 0;
    pthread_mutex_unlock(&catalog->mutex);
    in->box = NULL; /* the table's now */
    in->drained = 0;
    return PD_OK;
}

/* The version that another was rebuilt from holds the same rows, and older ones. */
static void drop_parent(pd_catalog *catalog, const char *table_name, uint64_t number)
{
    pthread_mutex_lock(&catalog->mutex);
    pd_table *table = pd_table_find(catalog, table_name);
    pd_known *known = pd_table_version(table, number), *parent = NULL;
    if (known && known->parent) parent = pd_table_version(table, known->parent);
    uint64_t gone = parent && parent->state == PD_KEPT ? parent->number : 0;
    for (uint32_t i = 0; i < table->nbefore; i++)
        if (table->before[i] == gone) gone = 0;
    if (gone) pd_table_forget(table, gone);
    pthread_mutex_unlock(&catalog->mutex);
    pd_error err = {0};
    if (gone && pd_version_remove(catalog, table_name, gone, &err))
        pd_log(PD_LOG_WARNING, "version %" PRIu64 " of \"%s\" is not removed: %s", gone, table_name,
               err.message);
}

/* Rows that came since for a version of another width cannot be in one from before it: going back is for when that does not matter. */
static int goes_back(const pd_incoming *in)
{
    pthread_mutex_lock(&in->catalog->mutex);
    const pd_table *table = pd_table_find(in->catalog, in->table);
    int back = table && in->number < table->current;
    pthread_mutex_unlock(&in->catalog->mutex);
    return back;
}

/* What was changed since its rows were taken: over and over, while each time leaves less to do, so that writes wait for a few batches
 * alone. */
static pd_status catch_up(pd_incoming *in, pd_error *err)
{
    pd_catalog *catalog = in->catalog;
    pd_status status = PD_OK;
    for (int i = 0; !status && i < CATCH_UPS; i++) {
        uint64_t last = pd_changes_last(catalog->changes);
        if (i && last <= in->box->followed + FEW_LEFT) break;
        status = pd_follow(catalog, in->box, last, catalog->builder, in->any_width, &in->followed, err);
        /* Once its rows are those of today: one that moved while it was gathered has just come in, without its counts. */
        if (!status && !i) status = pd_carry_counters(in, err);
    }
    return status;
}

/* More was changed meanwhile than it has pages for: it is loaded again, with as many as that takes. */
static pd_status load_wider(pd_incoming *in, pd_error *err)
{
    pd_box *wider = NULL;
    if (in->drained)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "its pages do not hold what was changed meanwhile");
    pd_catalog_release(&in->box->served);
    in->box = NULL;
    pd_catalog_bury(in->catalog);
    pd_status status = pd_box_open(in->catalog, in->table, in->number, &wider, err);
    if (status) return status;
    in->box = wider;
    pd_followed_free(&in->followed);
    in->followed = (pd_followed){0};
    return PD_OK;
}

pd_status pd_incoming_switch(pd_incoming *in, pd_job *job, pd_error *err)
{
    pd_catalog *catalog = in->catalog;
    switching s = {.in = in};
    char text[400];
    pd_status status;
    in->any_width = goes_back(in);
    for (int tries = 0;; tries++) {
        status = catch_up(in, err);
        pthread_mutex_lock(&catalog->files);
        if (!status) status = pd_writer_run(catalog->writer, switch_now, &s, err);
        pthread_mutex_unlock(&catalog->files);
        if (status != PD_RESOURCE_EXHAUSTED || tries == WIDER) break;
        status = load_wider(in, err);
        if (status) break;
    }
    if (status) return status;
    pd_followed_text(&in->followed, text);
    if (*text && job) pd_job_warn(catalog, job, "%s", text);
    if (s.old) pd_catalog_release(&s.old->served);
    pd_catalog_bury(catalog);
    pd_log(PD_LOG_INFO, "version %" PRIu64 " of \"%s\" serves", in->number, in->table);

    misfits context = {catalog, job};
    pd_served *served = NULL;
    if (pd_catalog_hold(catalog, in->table, &served, NULL) == PD_OK) {
        pd_profiles_misfits(catalog, in->table, served->info->schema, tell_misfit, &context);
        pd_catalog_release(served);
    }
    pd_erase_version(catalog, in->table, in->number, in->followed.erased, in->followed.nerased);
    drop_parent(catalog, in->table, in->number);
    pd_publish_prune(catalog, in->table, 0);
    pd_upkeep_trim(catalog, in->table);
    return PD_OK;
}
