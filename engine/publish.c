/* Publishing, rolling back, and what serves at a start: see publish.h. */
#include "publish.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "incoming.h"
#include "log.h"

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
        pd_status status = pd_box_open(catalog, table->name, number, &box, &err);
        if (!status) status = pd_box_warm(box, &err);
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
        pd_version_broken(catalog, table->name, number, err.message);
    }
    if (!table->problem[0]) snprintf(table->problem, sizeof table->problem, "no version of it can be read");
    pd_log(PD_LOG_ERROR, "table \"%s\" is not served: %s", table->name, table->problem);
}

void pd_publish_restore(pd_catalog *catalog)
{
    for (uint32_t i = 0; i < catalog->tables.count; i++) {
        pd_table *table = catalog->tables.at[i];
        restore_table(catalog, table);
        /* Pushes and rebuilds that were killed between their version's birth and their own pruning add up, too. Where the
         * current version does not serve, any other may be wanted. */
        if (table->serving && table->serving->served.number == table->current)
            pd_publish_prune(catalog, table->name, 0);
    }
}
