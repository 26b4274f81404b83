/* A version comes into memory, and goes: loading, draining, warming, staging. See publish.h. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "log.h"
#include "publish.h"
#include "sample.h"

#define LOOSE_MS    10000u /* how long memory on its way out is waited for, besides the longest deadline */
#define LEAST_SPARE 64u    /* pages, so that small tables can grow at all */
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
pd_status pd_box_open(pd_catalog *catalog, const char *table, uint64_t number, pd_box **out, pd_error *err)
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

void pd_version_broken(pd_catalog *catalog, const char *table_name, uint64_t number, const char *problem)
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
    pd_status status = pd_box_open(catalog, table, number, &in->box, err);
    if (status == PD_RESOURCE_EXHAUSTED) {
        /* Memory that is on its way out, and what is staged, make room first. */
        unstage(catalog, table);
        pd_catalog_wait_loose(catalog, patience(catalog));
        status = pd_box_open(catalog, table, number, &in->box, err);
    }
    if (status == PD_RESOURCE_EXHAUSTED && may_drain && drains(catalog, table)) {
        status = drain(catalog, table, &in->drained, err);
        if (!status) status = pd_box_open(catalog, table, number, &in->box, err);
    }
    if (status == PD_DATA_LOSS) pd_version_broken(catalog, table, number, err->message);
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
    pd_status status = pd_box_open(catalog, in->table, in->drained, &box, &err);
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
        if (status == PD_DATA_LOSS) pd_version_broken(catalog, in->table, in->drained, err.message);
    }
    in->drained = 0;
}

/* ---------------------------------------------------------------------------------------------------- warm --- */

pd_status pd_box_warm(const pd_box *box, pd_error *err)
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
    return pd_box_warm(in->box, err);
}

/* --------------------------------------------------------------------------------------------------- stage --- */

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
