/* What the catalog tells /metrics and stats. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "catalog_impl.h"
#include "erase.h"
#include "writer.h"

/* Values are taken down under the mutex and told without it: visit may do what it likes. */
typedef struct gauge {
    const char *name;
    char labels[PD_MAX_NAME + 48];
    double value;
} gauge;

typedef struct gauges {
    gauge *at;
    uint32_t count, room;
} gauges;

static gauge *add(gauges *g, const char *name, double value)
{
    if (g->count == g->room) return NULL;
    gauge *next = &g->at[g->count++];
    *next = (gauge){.name = name, .value = value};
    return next;
}

static void add_table(gauges *g, const char *name, const char *table, double value)
{
    gauge *next = add(g, name, value);
    if (next) snprintf(next->labels, sizeof next->labels, "table=\"%s\"", table);
}

static void add_state(gauges *g, const char *name, const char *table, const char *state, double value)
{
    gauge *next = add(g, name, value);
    if (!next) return;
    if (table)
        snprintf(next->labels, sizeof next->labels, "table=\"%s\",state=\"%s\"", table, state);
    else
        snprintf(next->labels, sizeof next->labels, "state=\"%s\"", state);
}

#define TABLE_GAUGES 13u

static void tell_table(gauges *g, const pd_table *table)
{
    uint32_t states[4] = {0};
    uint64_t disk = 0, device = 0, host = 0;
    for (uint32_t i = 0; i < table->nversions; i++) {
        states[table->versions[i].state]++;
        disk += table->versions[i].disk_bytes;
    }
    pd_box_bytes(table->serving, &device, &host);
    pd_box_bytes(table->staged, &device, &host);
    pd_live_stats live = {0};
    if (table->serving) pd_resident_live(table->serving->served.resident, &live);
    add_table(g, "pados_table_rows", table->name, (double)live.rows);
    add_table(g, "pados_table_changed_rows", table->name, (double)live.changed);
    add_table(g, "pados_table_sequence", table->name, (double)live.applied);
    add_table(g, "pados_table_spare_pages", table->name, live.pages_free);
    add_table(g, "pados_table_version", table->name,
              table->serving ? (double)table->serving->served.number : 0);
    add_table(g, "pados_table_device_bytes", table->name, (double)device);
    add_table(g, "pados_table_host_bytes", table->name, (double)host);
    add_table(g, "pados_table_disk_bytes", table->name, (double)disk);
    for (int s = 0; s < 4; s++)
        add_state(g, "pados_table_versions", table->name, pd_version_state_name((pd_version_state)s),
                  states[s]);
}

static void tell_work(gauges *g, const pd_catalog *catalog)
{
    static const char *const names[PD_JOB_STATES] = {"queued", "running", "done", "failed"};
    uint32_t states[PD_JOB_STATES] = {0}, open = 0;
    for (uint32_t i = 0; i < catalog->jobs.count; i++)
        states[catalog->jobs.at[i]->state]++;
    for (uint32_t i = 0; i < catalog->pushes.count; i++)
        open += catalog->pushes.at[i]->state != PD_PUSH_COMMITTED;
    for (int s = 0; s < PD_JOB_STATES; s++)
        add_state(g, "pados_jobs", NULL, names[s], states[s]);
    add(g, "pados_pushes_open", open);
    add(g, "pados_push_received_bytes", (double)catalog->pushes.received_bytes);
    add(g, "pados_profiles", catalog->profiles.count);
    add(g, "pados_tables", catalog->tables.count);
}

static void tell_changes(gauges *g, pd_catalog *catalog)
{
    pd_changes_stats log;
    pd_writer_stats writer;
    pd_erase_stats erasures;
    pd_changes_stats_of(catalog->changes, &log);
    pd_erase_stats_of(catalog, &erasures);
    add(g, "pados_changes_sequence", (double)log.last);
    add(g, "pados_changes_records", (double)log.records);
    add(g, "pados_changes_used_bytes", (double)log.used_bytes);
    add(g, "pados_changes_max_bytes", (double)log.map_bytes);
    add(g, "pados_changes_commits", (double)log.commits);
    add(g, "pados_changes_failures", (double)log.failures);
    add(g, "pados_changes_failing", log.failing);
    add(g, "pados_erasures_pending", (double)erasures.pending);
    add(g, "pados_erasures_overdue", (double)erasures.overdue);
    if (!catalog->writer) return;
    pd_writer_stats_of(catalog->writer, &writer);
    add(g, "pados_writes_waiting", writer.waiting);
    add(g, "pados_writes_held", writer.held);
    add(g, "pados_write_groups", (double)writer.groups);
    add(g, "pados_write_batches", (double)writer.batches);
    add(g, "pados_writes_refused", (double)writer.refused);
}

static int by_name(const void *left, const void *right)
{
    const gauge *l = left, *r = right;
    int order = strcmp(l->name, r->name);
    return order ? order : strcmp(l->labels, r->labels);
}

void pd_catalog_gauges(pd_catalog *catalog,
                       void (*visit)(void *context, const char *name, const char *labels, double value),
                       void *context)
{
    pd_device_info device;
    pd_device_info_of(catalog->device, &device);
    pthread_mutex_lock(&catalog->mutex);
    gauges g = {.room = catalog->tables.count * TABLE_GAUGES + 32};
    g.at = calloc(g.room, sizeof *g.at);
    for (uint32_t i = 0; g.at && i < catalog->tables.count; i++)
        tell_table(&g, catalog->tables.at[i]);
    if (g.at) tell_work(&g, catalog);
    pthread_mutex_unlock(&catalog->mutex);
    if (!g.at) return;
    tell_changes(&g, catalog);
    add(&g, "pados_device_bytes", (double)device.memory);
    add(&g, "pados_device_used_bytes", (double)device.used);
    add(&g, "pados_refine_host_bytes", (double)device.host_memory);
    add(&g, "pados_refine_host_used_bytes", (double)device.host_used);
    /* One metric's lines stand together, as Prometheus wants them. */
    qsort(g.at, g.count, sizeof *g.at, by_name);
    for (uint32_t i = 0; i < g.count; i++)
        visit(context, g.at[i].name, g.at[i].labels, g.at[i].value);
    free(g.at);
}
