/* Loading, switching, draining, rolling back: see publish.h. */
#include "publish.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "carry.h"
#include "erase.h"
#include "follow.h"
#include "incoming.h"
#include "log.h"
#include "sample.h"
#include "upkeep.h"
#include "writer.h"

#define LOOSE_MS                                                                                             \
    10000u /* how long memory that is being let go of is waited for, besides the longest deadline */
#define CATCH_UPS   8   /* before a switch */
#define FEW_LEFT    4u  /* changes that a switch may find to be done */
#define WIDER       3   /* times that a version is loaded again for more pages */
#define LEAST_SPARE 64u /* pages, so that small tables can grow at all */
#define WARM_ROWS   32u
#define WARM_LISTS                                                                                           \
    32u /* enough to find a row's own; a search of every list would hold up those who are served */

static uint32_t patience(const pd_catalog *catalog)
{
    return catalog->config->max_deadline_ms + LOOSE_MS;
}

/* ---------------------------------------------------------------------------------------------------- load --- */

/* With pages to spare for rows that come: those that the log's changes may need, and a share of the version's besides, where there
 * is room for it. */
static pd_status open_resident(pd_catalog *catalog, const pd_version *version, pd_resident **out,
                               pd_error *err)
{
    const pd_version_info *info = pd_version_info_of(version);
    uint32_t needed = 0;
    pd_status status = pd_follow_pages(catalog, info->table, info->sequence, info->shape.nlist, &needed, err);
    if (status) return status;
    uint64_t more = needed + (uint64_t)info->npages * catalog->config->spare_percent / 100;
    if (catalog->config->spare_percent) more += LEAST_SPARE;
    uint32_t most = UINT32_MAX / PD_PAGE_ROWS - info->npages;
    if (more > most) more = most;
    status = pd_resident_open(version, catalog->device, (uint32_t)more, out, err);
    if (status != PD_RESOURCE_EXHAUSTED || more == needed) return status;
    return pd_resident_open(version, catalog->device, needed < most ? needed : most, out, err);
}

/* Opens, checks that the folder holds what its name says, loads. */
static pd_status open_box(pd_catalog *catalog, const char *table, uint64_t number, pd_box **out,
                          pd_error *err)
{
    char folder[PD_PATH_ROOM];
    pd_version_folder(catalog, table, number, folder);
    pd_version *version = NULL;
    pd_resident *resident = NULL;
    pd_status status = pd_version_open(folder, &version, err);
    if (status) return status;
    const pd_version_info *info = pd_version_info_of(version);
    if (strcmp(info->table, table) != 0 || info->version != number)
        status = pd_fail(err, PD_DATA_LOSS, "%s says that it is version %" PRIu64 " of \"%s\"", folder,
                         info->version, info->table);
    if (!status) status = open_resident(catalog, version, &resident, err);
    if (status) goto err_after_version;
    *out = pd_box_make(catalog, table, version, resident);
    if (*out) return PD_OK;
    status =
        pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for version %" PRIu64 " of \"%s\"", number, table);
    pd_resident_close(resident);
err_after_version:
    pd_version_close(version);
    return status;
}

static void mark_broken(pd_catalog *catalog, const char *table_name, uint64_t number, const char *problem)
{
    pthread_mutex_lock(&catalog->mutex);
    pd_table *table = pd_table_find(catalog, table_name);
    pd_known *known = table ? pd_table_version(table, number) : NULL;
    if (known && known->state != PD_SERVING && known->state != PD_STAGED) {
        known->state = PD_BROKEN;
        snprintf(known->problem, sizeof known->problem, "%s", problem);
    }
    pthread_mutex_unlock(&catalog->mutex);
    pd_log(PD_LOG_ERROR, "version %" PRIu64 " of \"%s\" is broken: %s", number, table_name, problem);
}

/* What is staged, leaves the memory; on the disk it stays. 0: nothing was. */
static int unstage(pd_catalog *catalog, const char *table_name)
{
    pthread_mutex_lock(&catalog->mutex);
    pd_table *table = pd_table_find(catalog, table_name);
    pd_box *staged = table ? table->staged : NULL;
    if (staged) {
        pd_known *known = pd_table_version(table, staged->served.number);
        if (known && known->state == PD_STAGED) known->state = PD_KEPT;
        table->staged = NULL;
    }
    pthread_mutex_unlock(&catalog->mutex);
    if (staged) pd_catalog_release(&staged->served);
    return staged != NULL;
}

/* Puts a version back into service after a failure. */
static void put_back(pd_catalog *catalog, const char *table_name, pd_box *box)
{
    pthread_mutex_lock(&catalog->mutex);
    pd_table *table = pd_table_find(catalog, table_name);
    table->serving = box;
    table->swapping = 0;
    table->problem[0] = 0;
    pthread_mutex_unlock(&catalog->mutex);
}

/* Takes the serving version out, waits for its holders and closes it. *number: 0 when nothing was served. */
static pd_status drain(pd_catalog *catalog, const char *table_name, uint64_t *number, pd_error *err)
{
    *number = 0;
    pthread_mutex_lock(&catalog->mutex);
    pd_table *table = pd_table_find(catalog, table_name);
    pd_box *box = table ? table->serving : NULL;
    if (box) {
        table->serving = NULL;
        table->swapping = 1;
        pthread_cond_broadcast(&catalog->changed);
    }
    pthread_mutex_unlock(&catalog->mutex);
    if (!box) return PD_OK;
    if (!pd_box_wait(box, patience(catalog))) {
        put_back(catalog, table_name, box);
        return pd_fail(err, PD_UNAVAILABLE,
                       "version %" PRIu64 " of \"%s\" is still being searched, it cannot be taken out",
                       box->served.number, table_name);
    }
    *number = box->served.number;
    pd_log(PD_LOG_INFO, "version %" PRIu64 " of \"%s\" is out of service while another is loaded", *number,
           table_name);
    pd_catalog_release(&box->served);
    pd_catalog_bury(catalog);
    return PD_OK;
}

static int drains(pd_catalog *catalog, const char *table_name)
{
    pthread_mutex_lock(&catalog->mutex);
    pd_table *table = pd_table_find(catalog, table_name);
    int yes = table && table->serving && table->serving->served.info->schema->policy == PD_POLICY_DRAIN;
    pthread_mutex_unlock(&catalog->mutex);
    return yes;
}

pd_status pd_incoming_load(pd_catalog *catalog, const char *table, uint64_t number, int may_drain,
                           pd_incoming *in, pd_error *err)
{
    *in = (pd_incoming){.catalog = catalog, .number = number};
    snprintf(in->table, sizeof in->table, "%s", table);
    pd_catalog_bury(catalog);
    pd_status status = open_box(catalog, table, number, &in->box, err);
    if (status == PD_RESOURCE_EXHAUSTED) {
        /* Memory that is on its way out, and what is staged, make room first. */
        unstage(catalog, table);
        pd_catalog_wait_loose(catalog, patience(catalog));
        status = open_box(catalog, table, number, &in->box, err);
    }
    if (status == PD_RESOURCE_EXHAUSTED && may_drain && drains(catalog, table)) {
        status = drain(catalog, table, &in->drained, err);
        if (!status) status = open_box(catalog, table, number, &in->box, err);
    }
    if (status == PD_DATA_LOSS) mark_broken(catalog, table, number, err->message);
    return status;
}

void pd_incoming_end(pd_incoming *in)
{
    pd_catalog *catalog = in->catalog;
    if (in->box) pd_catalog_release(&in->box->served);
    in->box = NULL;
    pd_followed_free(&in->followed);
    if (!in->drained) return;
    pd_box *box = NULL;
    pd_error err = {0};
    pd_followed followed = {0};
    pd_catalog_wait_loose(catalog, patience(catalog));
    pd_status status = open_box(catalog, in->table, in->drained, &box, &err);
    /* With what was changed since it was built, as a start would. Nothing is written to a table that does not serve. */
    if (!status)
        status =
            pd_follow(catalog, box, pd_changes_last(catalog->changes), catalog->builder, 1, &followed, &err);
    pd_followed_free(&followed);
    if (status && box) pd_catalog_release(&box->served);
    if (!status) {
        put_back(catalog, in->table, box);
        pd_log(PD_LOG_INFO, "version %" PRIu64 " of \"%s\" serves again", in->drained, in->table);
    } else {
        pthread_mutex_lock(&catalog->mutex);
        pd_table *table = pd_table_find(catalog, in->table);
        pd_known *known = pd_table_version(table, in->drained);
        if (known) known->state = PD_KEPT;
        table->swapping = 0;
        snprintf(table->problem, sizeof table->problem, "%s", err.message);
        pthread_mutex_unlock(&catalog->mutex);
        pd_log(PD_LOG_ERROR, "version %" PRIu64 " of \"%s\" cannot be loaded again: %s", in->drained,
               in->table, err.message);
        if (status == PD_DATA_LOSS) mark_broken(catalog, in->table, in->drained, err.message);
    }
    in->drained = 0;
}

/* ---------------------------------------------------------------------------------------------------- warm --- */

static pd_status warm(const pd_box *box, pd_error *err)
{
    const pd_version_info *info = box->served.info;
    if (!info->shape.nlist || !info->rows) return PD_OK;
    pd_sample sample = {0};
    pd_status status =
        pd_sample_version(box->served.version, WARM_ROWS, info->shape.metric, "", &sample, err);
    if (status || !sample.count) goto out;
    pd_query queries[WARM_ROWS];
    pd_answer answers[WARM_ROWS];
    uint32_t nprobe = info->shape.nlist < WARM_LISTS ? info->shape.nlist : WARM_LISTS;
    pd_hit hits[WARM_ROWS][10];
    for (uint32_t i = 0; i < sample.count; i++) {
        queries[i] = (pd_query){.vector = sample.vectors + (size_t)i * info->shape.dim,
                                .similarity = 1.0f,
                                .nprobe = nprobe,
                                .k = 10,
                                .min_score = -__builtin_inff()};
        answers[i] = (pd_answer){.hits = hits[i]};
    }
    status = pd_executor_background(box->catalog->executor, box->served.resident, queries, sample.count,
                                    answers, err);
    for (uint32_t i = 0; !status && i < sample.count; i++)
        if (!answers[i].count)
            status = pd_fail(err, PD_INTERNAL, "version %" PRIu64 " of \"%s\" finds nothing for its own rows",
                             box->served.number, box->table);
out:
    pd_sample_free(&sample);
    return status;
}

pd_status pd_incoming_warm(pd_incoming *in, pd_error *err)
{
    return warm(in->box, err);
}

/* -------------------------------------------------------------------------------------------------- switch --- */

void pd_incoming_stage(pd_incoming *in)
{
    pd_catalog *catalog = in->catalog;
    unstage(catalog, in->table);
    pthread_mutex_lock(&catalog->mutex);
    pd_table *table = pd_table_find(catalog, in->table);
    pd_known *known = pd_table_version(table, in->number);
    known->state = PD_STAGED;
    known->problem[0] = 0;
    table->staged = in->box;
    pthread_mutex_unlock(&catalog->mutex);
    in->box = NULL; /* the table's now */
}

void pd_incoming_stage_again(pd_catalog *catalog, const char *table_name, uint64_t number)
{
    pd_incoming in;
    pd_error err = {0};
    pthread_mutex_lock(&catalog->mutex);
    const pd_table *table = pd_table_find(catalog, table_name);
    int staged = table && table->staged && table->staged->served.number == number;
    pthread_mutex_unlock(&catalog->mutex);
    if (!staged) return;
    unstage(catalog, table_name);
    pd_status status = pd_incoming_load(catalog, table_name, number, 0, &in, &err);
    if (!status)
        pd_incoming_stage(&in);
    else
        pd_log(PD_LOG_WARNING, "version %" PRIu64 " of \"%s\" is no longer staged: %s", number, table_name,
               err.message);
    pd_incoming_end(&in);
}

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
    pd_status status = open_box(in->catalog, in->table, in->number, &wider, err);
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

/* -------------------------------------------------------------------------------------- publish, roll back --- */

/* A staged version is resident already: it only moves. 0: it is not staged. */
static int take_staged(pd_catalog *catalog, const char *table_name, uint64_t number, pd_incoming *in)
{
    pthread_mutex_lock(&catalog->mutex);
    pd_table *table = pd_table_find(catalog, table_name);
    pd_box *box = table ? table->staged : NULL;
    int found = box && box->served.number == number;
    if (found) {
        *in = (pd_incoming){.catalog = catalog, .number = number, .box = box};
        snprintf(in->table, sizeof in->table, "%s", table_name);
        box->refs++; /* staged until it is switched in */
    }
    pthread_mutex_unlock(&catalog->mutex);
    return found;
}

static void forget_staged(pd_catalog *catalog, const char *table_name, uint64_t number)
{
    pthread_mutex_lock(&catalog->mutex);
    pd_table *table = pd_table_find(catalog, table_name);
    pd_box *box = table->staged && table->staged->served.number == number ? table->staged : NULL;
    if (box) table->staged = NULL;
    pthread_mutex_unlock(&catalog->mutex);
    if (box) pd_catalog_release(&box->served);
}

/* The state of a version. NOT_FOUND. */
static pd_status look_up(pd_catalog *catalog, const char *table_name, uint64_t number, pd_known *out,
                         pd_error *err)
{
    pd_status status = PD_OK;
    pthread_mutex_lock(&catalog->mutex);
    pd_table *table = pd_table_find(catalog, table_name);
    const pd_known *known = table ? pd_table_version(table, number) : NULL;
    if (!table)
        status = pd_fail(err, PD_NOT_FOUND, "there is no table \"%s\"", table_name);
    else if (!known)
        status = pd_fail(err, PD_NOT_FOUND, "table \"%s\" has no version %" PRIu64, table_name, number);
    else
        *out = *known;
    pthread_mutex_unlock(&catalog->mutex);
    return status;
}

static pd_status publish(pd_catalog *catalog, pd_job *job, uint64_t number, int back, pd_error *err)
{
    pd_known known;
    pd_job_context context = {catalog, job};
    pd_status status = look_up(catalog, job->table, number, &known, err);
    if (status || known.state == PD_SERVING) return status;
    pd_incoming in;
    if (!take_staged(catalog, job->table, number, &in)) {
        pd_job_progress(&context, "load", 0, known.rows);
        status = pd_incoming_load(catalog, job->table, number, 1, &in, err);
        if (!status) status = pd_incoming_calibrate(&in, job, NULL, err);
        pd_job_progress(&context, "warm", 0, 1);
        if (!status) status = pd_incoming_warm(&in, err);
    }
    if (!status && pd_job_progress(&context, "switch", 0, 1))
        status = pd_fail(err, PD_CANCELLED, "the job was cancelled before the switch");
    in.back = back;
    if (!status) status = pd_incoming_switch(&in, job, err);
    if (!status) forget_staged(catalog, job->table, number);
    pd_incoming_end(&in);
    return status;
}

pd_status pd_job_publish(pd_catalog *catalog, pd_job *job, pd_error *err)
{
    return publish(catalog, job, job->version, 0, err);
}

/* The version that served before the serving one, and is whole; 0: none. Not the newest: that one may never have served, or may
 * be what the last rollback left. */
static uint64_t version_before(pd_catalog *catalog, const char *table_name, uint64_t *serving)
{
    uint64_t found = 0;
    pthread_mutex_lock(&catalog->mutex);
    pd_table *table = pd_table_find(catalog, table_name);
    *serving = table && table->serving ? table->serving->served.number : 0;
    for (uint32_t i = 0; table && !found && i < table->nbefore; i++) {
        const pd_known *known = pd_table_version(table, table->before[i]);
        if (known && known->number != *serving && known->state == PD_KEPT) found = known->number;
    }
    pthread_mutex_unlock(&catalog->mutex);
    return found;
}

pd_status pd_job_rollback(pd_catalog *catalog, pd_job *job, pd_error *err)
{
    for (;;) {
        uint64_t serving, number = version_before(catalog, job->table, &serving);
        if (!serving)
            return pd_fail(err, PD_FAILED_PRECONDITION, "no version of table \"%s\" serves", job->table);
        if (!number)
            return pd_fail(err, PD_FAILED_PRECONDITION,
                           "table \"%s\" keeps no version that served before %" PRIu64, job->table, serving);
        pthread_mutex_lock(&catalog->mutex);
        job->version = number;
        pthread_mutex_unlock(&catalog->mutex);
        pd_status status = publish(catalog, job, number, 1, err);
        pd_known known;
        if (status != PD_DATA_LOSS || look_up(catalog, job->table, number, &known, NULL) ||
            known.state != PD_BROKEN)
            return status;
        pd_job_warn(catalog, job, "version %" PRIu64 " is broken and was passed over: %.300s", number,
                    err->message);
    }
}

/* --------------------------------------------------------------------------------------------------- start --- */

/* The version to try: the current one, then the way back, then what is older. Those that failed are broken by now. 0: there is
 * none left. */
static uint64_t next_to_try(pd_table *table)
{
    const pd_known *known = pd_table_version(table, table->current);
    if (known && known->state == PD_KEPT) return known->number;
    for (uint32_t i = 0; i < table->nbefore; i++) {
        known = pd_table_version(table, table->before[i]);
        if (known && known->state == PD_KEPT) return known->number;
    }
    for (uint32_t i = table->nversions; i-- > 0;)
        if (table->versions[i].number < table->current && table->versions[i].state == PD_KEPT)
            return table->versions[i].number;
    return 0;
}

static void restore_table(pd_catalog *catalog, pd_table *table)
{
    if (!table->current) return;
    for (uint64_t number; (number = next_to_try(table)) != 0;) {
        pd_box *box = NULL;
        pd_error err = {0};
        pd_followed followed = {0};
        pd_status status = open_box(catalog, table->name, number, &box, &err);
        if (!status) status = warm(box, &err);
        if (!status)
            status = pd_follow(catalog, box, pd_changes_last(catalog->changes), catalog->builder, 1,
                               &followed, &err);
        pd_followed_free(&followed); /* pending receipts look after what was erased */
        if (status && box) pd_catalog_release(&box->served);
        if (!status) {
            pd_known *known = pd_table_version(table, number);
            table->serving = box;
            known->state = PD_SERVING;
            table->problem[0] = 0;
            pd_followed_text(&followed, known->problem);
            if (known->problem[0])
                pd_log(PD_LOG_ERROR, "version %" PRIu64 " of \"%s\": %s", number, table->name,
                       known->problem);
            if (followed.batches)
                pd_log(PD_LOG_INFO, "table \"%s\": %" PRIu64 " changes of %" PRIu64 " rows applied again",
                       table->name, followed.batches, followed.rows);
            if (number != table->current)
                pd_log(PD_LOG_WARNING, "version %" PRIu64 " of \"%s\" serves in place of a broken newer one",
                       number, table->name);
            else
                pd_log(PD_LOG_INFO, "version %" PRIu64 " of \"%s\" serves", number, table->name);
            return;
        }
        snprintf(table->problem, sizeof table->problem, "%s", err.message);
        if (status != PD_DATA_LOSS && status != PD_NOT_FOUND) {
            pd_log(PD_LOG_ERROR, "table \"%s\" is not served: %s", table->name, err.message);
            return;
        }
        mark_broken(catalog, table->name, number, err.message);
    }
    if (!table->problem[0]) snprintf(table->problem, sizeof table->problem, "no version of it can be read");
    pd_log(PD_LOG_ERROR, "table \"%s\" is not served: %s", table->name, table->problem);
}

void pd_publish_restore(pd_catalog *catalog)
{
    for (uint32_t i = 0; i < catalog->tables.count; i++)
        restore_table(catalog, catalog->tables.at[i]);
}
