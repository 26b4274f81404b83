/* Upkeep: see upkeep.h. */
#include "upkeep.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "erase.h"
#include "log.h"
#include "recall_book.h"
#include "writer.h"

#define LEAST_CHANGED   256u    /* rows: a table that is smaller still is not rebuilt for every few */
#define AFTER_FAILED_MS 600000u /* until a rebuild that failed is tried again */
#define AFTER_DONE_MS   10000u
#define RECOUNT_PAGES   64u  /* of one call: some 0.2 ms that searches wait */
#define RECOUNT_MS      900u /* how often tables are looked at for it */
#define RECOUNTS        32   /* sweeps over a counter's columns in a half life */

/* ------------------------------------------------------------------------------------------------------- trim --- */

typedef struct trimming {
    pd_catalog *catalog;
    const char *table;
    uint64_t upto;
} trimming;

static pd_status trim(void *argument, pd_error *err)
{
    const trimming *t = argument;
    return pd_changes_trim(t->catalog->changes, t->table, t->upto, err);
}

static int log_is_filling(pd_catalog *catalog)
{
    pd_changes_stats stats;
    pd_changes_stats_of(catalog->changes, &stats);
    return stats.used_bytes > stats.map_bytes / 2;
}

/* Somebody holds a version that no longer serves: an exact search may still want the records that its rows came with. With the
 * mutex held. A version that was staged until now may be both. */
static int older_is_held(const pd_catalog *catalog)
{
    uint32_t known = 0;
    for (uint32_t i = 0; i < catalog->tables.count; i++) {
        const pd_table *table = catalog->tables.at[i];
        known += (table->serving != NULL) + (table->staged && table->staged != table->serving);
    }
    return catalog->boxes > known;
}

void pd_upkeep_trim(pd_catalog *catalog, const char *table_name)
{
    int filling = log_is_filling(catalog);
    trimming t = {.catalog = catalog, .table = table_name};
    pthread_mutex_lock(&catalog->mutex);
    pd_table *table = pd_table_find(catalog, table_name);
    if (table) table->untrimmed = older_is_held(catalog);
    if (table && table->serving && !table->untrimmed) {
        t.upto = table->serving->served.info->sequence;
        for (uint32_t i = 0; !filling && i < table->nversions; i++) {
            const pd_known *known = &table->versions[i];
            if (known->state != PD_BROKEN && known->sequence < t.upto) t.upto = known->sequence;
        }
    }
    for (uint32_t i = 0; i < catalog->pushes.count; i++) {
        const pd_push *push = catalog->pushes.at[i];
        if (!push->finished && push->sequence < t.upto && !strcmp(push->ask.table, table_name))
            t.upto = push->sequence; /* its version will want the changes since */
    }
    pthread_mutex_unlock(&catalog->mutex);
    pd_error err = {0};
    uint64_t floor = 0;
    pthread_mutex_lock(&catalog->files);
    pd_status status = t.upto ? pd_changes_floor(catalog->changes, table_name, &floor, &err) : PD_OK;
    if (!status && t.upto > floor) status = pd_writer_run(catalog->writer, trim, &t, &err);
    pthread_mutex_unlock(&catalog->files);
    if (status)
        pd_log(PD_LOG_WARNING, "the log of changes of \"%s\" is not trimmed: %s", table_name, err.message);
}

/* ---------------------------------------------------------------------------------------------------- rebuild --- */

/* Why a table should be rebuilt; "" when it need not be. With the mutex held. */
static const char *why_rebuild(pd_catalog *catalog, const pd_table *table, int filling)
{
    const pd_served *served = &table->serving->served;
    pd_live_stats live;
    pd_resident_live(served->resident, &live);
    uint32_t percent = catalog->config->rebuild_percent;
    if (!percent || live.rows == 0) return "";
    if (live.changed >= LEAST_CHANGED && live.changed * 100 >= (uint64_t)percent * live.rows)
        return "its rows have changed";
    /* Early: what comes while it is built needs the rest. */
    if (live.changed >= LEAST_CHANGED && live.pages_free <= live.pages / 2)
        return "half of its spare pages are taken";
    if (live.changed && live.pages && live.pages_free <= live.pages / 8) return "its spare pages are taken";
    if (filling && live.applied > served->info->sequence) return "the log of changes is more than half full";
    struct pd_recall_book *book = atomic_load(&catalog->recalled);
    if (book && live.changed >= LEAST_CHANGED && pd_recall_broken(book, table->name, served->number))
        return "its recall is under its promise";
    return "";
}

static void start_rebuilds(pd_catalog *catalog)
{
    uint64_t now = pd_now_ms();
    int filling = log_is_filling(catalog);
    pthread_mutex_lock(&catalog->mutex);
    for (uint32_t i = 0; i < catalog->tables.count; i++) {
        pd_table *table = catalog->tables.at[i];
        if (!table->serving || now < table->rebuild_after_ms) continue;
        const char *why = why_rebuild(catalog, table, filling);
        pd_job *job = NULL;
        pd_error err;
        if (!*why || pd_job_pending(catalog, PD_JOB_REBUILD, table->name, 0)) continue;
        /* One that fails is not begun again at once; one that is done says when the next may be. */
        table->rebuild_after_ms = now + AFTER_FAILED_MS;
        if (pd_job_add(catalog, PD_JOB_REBUILD, table->name, &job, &err) == PD_OK)
            pd_log(PD_LOG_INFO, "table \"%s\" is rebuilt: %s", table->name, why);
    }
    pthread_mutex_unlock(&catalog->mutex);
}

int pd_upkeep_urge(pd_catalog *catalog, const char *table_name)
{
    uint64_t now = pd_now_ms();
    pd_job *job = NULL;
    pd_error err;
    pthread_mutex_lock(&catalog->mutex);
    pd_table *table = pd_table_find(catalog, table_name);
    int coming = pd_job_pending(catalog, PD_JOB_REBUILD, table_name, 0) != NULL;
    /* After one that ended well it is at most so far off, after another as long as it takes until the next may be tried. */
    int may = table && table->serving && catalog->config->rebuild_percent &&
              table->rebuild_after_ms <= now + AFTER_DONE_MS;
    if (!coming && may && pd_job_add(catalog, PD_JOB_REBUILD, table_name, &job, &err) == PD_OK) {
        table->rebuild_after_ms = now + AFTER_FAILED_MS;
        coming = 1;
        pd_log(PD_LOG_INFO, "table \"%s\" is rebuilt: writes wait for a spare page", table_name);
    }
    pthread_mutex_unlock(&catalog->mutex);
    return coming;
}

/* --------------------------------------------------------------------------------------------------- counters --- */

typedef struct recounting {
    pd_resident *resident;
    uint32_t first, count;
    double time;
} recounting;

static pd_status recount(void *argument, pd_error *err)
{
    const recounting *r = argument;
    return pd_resident_recount(r->resident, r->first, r->count, r->time, err);
}

static double shortest_half_life(const pd_schema *schema)
{
    double shortest = 0;
    for (uint32_t i = 0; i < schema->nattributes; i++) {
        const pd_attribute *a = &schema->attributes[i];
        if (a->counts && (shortest == 0 || a->half_life < shortest)) shortest = a->half_life;
    }
    return shortest;
}

static void recount_table(pd_catalog *catalog, pd_served *served)
{
    uint32_t npages = pd_resident_index(served->resident)->npages;
    recounting r = {.resident = served->resident, .time = pd_days_now()};
    pd_error err = {0};
    pd_status status = PD_OK;
    for (; !status && r.first < npages && !atomic_load(&catalog->stopping); r.first += RECOUNT_PAGES) {
        r.count = npages - r.first < RECOUNT_PAGES ? npages - r.first : RECOUNT_PAGES;
        status = pd_executor_call(catalog->executor, recount, &r, &err);
    }
    if (status && status != PD_CANCELLED)
        pd_log(PD_LOG_WARNING, "the counters of \"%s\" are not refreshed: %s", served->table, err.message);
}

/* One table whose counters are due, held; NULL: none is. */
static pd_served *next_to_recount(pd_catalog *catalog)
{
    double now = pd_days_now();
    pd_served *found = NULL;
    pthread_mutex_lock(&catalog->mutex);
    for (uint32_t i = 0; !found && i < catalog->tables.count; i++) {
        pd_table *table = catalog->tables.at[i];
        double half_life = table->serving ? shortest_half_life(table->serving->served.info->schema) : 0;
        if (half_life == 0 || now < table->recounted + half_life / RECOUNTS) continue;
        table->recounted = now;
        table->serving->refs++;
        found = &table->serving->served;
    }
    pthread_mutex_unlock(&catalog->mutex);
    return found;
}

/* What could not be when a version was switched in. Only the builder makes tables and drops them. */
static void trim_rest(pd_catalog *catalog)
{
    for (uint32_t i = 0;; i++) {
        char name[PD_MAX_NAME + 1] = "";
        pthread_mutex_lock(&catalog->mutex);
        int more = i < catalog->tables.count;
        if (more && catalog->tables.at[i]->untrimmed)
            snprintf(name, sizeof name, "%s", catalog->tables.at[i]->name);
        pthread_mutex_unlock(&catalog->mutex);
        if (!more) return;
        if (*name) pd_upkeep_trim(catalog, name);
    }
}

void pd_upkeep_counters(pd_catalog *catalog)
{
    uint64_t now = pd_now_ms();
    if (now < catalog->recount_again_ms) return;
    catalog->recount_again_ms = now + RECOUNT_MS;
    for (pd_served *served; (served = next_to_recount(catalog)) != NULL;) {
        recount_table(catalog, served);
        pd_catalog_release(served);
    }
}

void pd_upkeep(pd_catalog *catalog)
{
    pd_upkeep_counters(catalog);
    trim_rest(catalog);
    start_rebuilds(catalog);
    pd_erase_upkeep(catalog);
}

void pd_upkeep_rebuilt(pd_catalog *catalog, const char *table_name)
{
    pthread_mutex_lock(&catalog->mutex);
    pd_table *table = pd_table_find(catalog, table_name);
    if (table) table->rebuild_after_ms = pd_now_ms() + AFTER_DONE_MS;
    pthread_mutex_unlock(&catalog->mutex);
}
