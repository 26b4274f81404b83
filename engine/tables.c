/* The tables in memory, and how they are learned from the disk at start. */
#include "tables.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "catalog_impl.h"
#include "log.h"

#define MAX_VERSION   (UINT64_C(1) << 53) /* no table comes near it, and one more is still a number */
#define CURRENT_BYTES (32u * (1 + PD_WAY_BACK))

const char *pd_version_state_name(pd_version_state state)
{
    static const char *const names[] = {"kept", "staged", "serving", "broken"};
    return names[state];
}

void pd_table_folder(const pd_catalog *catalog, const char *table, char *path)
{
    snprintf(path, PD_PATH_ROOM, "%.3071s/tables/%.64s", catalog->root, table);
}

void pd_version_folder(const pd_catalog *catalog, const char *table, uint64_t number, char *path)
{
    snprintf(path, PD_PATH_ROOM, "%.3071s/tables/%.64s/v%08llu", catalog->root, table,
             (unsigned long long)number);
}

/* ---------------------------------------------------------------------------------------------- in memory --- */

/* The first table whose name is not before this one. */
static uint32_t table_place(const pd_tables *tables, const char *name)
{
    uint32_t low = 0, high = tables->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (strcmp(tables->at[middle]->name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

pd_table *pd_table_find(pd_catalog *catalog, const char *name)
{
    const pd_tables *tables = &catalog->tables;
    uint32_t at = table_place(tables, name);
    return at < tables->count && !strcmp(tables->at[at]->name, name) ? tables->at[at] : NULL;
}

pd_status pd_table_make(pd_catalog *catalog, const char *name, pd_table **out, pd_error *err)
{
    pd_tables *tables = &catalog->tables;
    *out = pd_table_find(catalog, name);
    if (*out) return PD_OK;
    if (tables->count == tables->room) {
        uint32_t room = tables->room ? tables->room * 2 : 16;
        pd_table **grown = realloc(tables->at, room * sizeof *grown);
        if (!grown) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for table \"%s\"", name);
        tables->at = grown;
        tables->room = room;
    }
    pd_table *table = calloc(1, sizeof *table);
    if (!table) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for table \"%s\"", name);
    snprintf(table->name, sizeof table->name, "%s", name);
    uint32_t at = table_place(tables, name);
    memmove(tables->at + at + 1, tables->at + at, (tables->count - at) * sizeof *tables->at);
    tables->at[at] = table;
    tables->count++;
    *out = table;
    return PD_OK;
}

static void table_free(pd_table *table)
{
    free(table->versions);
    free(table);
}

void pd_table_drop(pd_catalog *catalog, pd_table *table)
{
    pd_tables *tables = &catalog->tables;
    uint32_t at = table_place(tables, table->name);
    memmove(tables->at + at, tables->at + at + 1, (tables->count - at - 1) * sizeof *tables->at);
    tables->count--;
    table_free(table);
}

void pd_tables_free(pd_catalog *catalog)
{
    for (uint32_t i = 0; i < catalog->tables.count; i++)
        table_free(catalog->tables.at[i]);
    free(catalog->tables.at);
    memset(&catalog->tables, 0, sizeof catalog->tables);
}

pd_known *pd_table_version(pd_table *table, uint64_t number)
{
    for (uint32_t i = 0; i < table->nversions; i++)
        if (table->versions[i].number == number) return &table->versions[i];
    return NULL;
}

pd_status pd_table_add(pd_table *table, uint64_t number, const pd_version_info *info, pd_known **out,
                       pd_error *err)
{
    pd_known *known = pd_table_version(table, number);
    if (!known) {
        if (table->nversions == table->room) {
            uint32_t room = table->room ? table->room * 2 : 8;
            pd_known *grown = realloc(table->versions, room * sizeof *grown);
            if (!grown)
                return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a version of \"%s\"", table->name);
            table->versions = grown;
            table->room = room;
        }
        uint32_t at = table->nversions;
        while (at && table->versions[at - 1].number > number)
            at--;
        memmove(table->versions + at + 1, table->versions + at, (table->nversions - at) * sizeof *known);
        table->nversions++;
        known = &table->versions[at];
    }
    *known = (pd_known){.number = number, .state = PD_KEPT};
    if (info) {
        known->rows = info->rows;
        known->disk_bytes = info->disk_bytes;
        known->created = info->created;
        known->sequence = info->sequence;
        known->parent = info->parent;
        known->dim = info->shape.dim;
        known->code_dim = info->layout.code_dim;
        known->nlist = info->shape.nlist;
        known->metric = info->shape.metric;
        known->code = info->shape.code;
        known->refine = info->shape.refine;
    }
    if (number > table->last) table->last = number;
    if (out) *out = known;
    return PD_OK;
}

void pd_table_forget(pd_table *table, uint64_t number)
{
    pd_known *known = pd_table_version(table, number);
    if (!known) return;
    uint32_t at = (uint32_t)(known - table->versions);
    memmove(known, known + 1, (table->nversions - at - 1) * sizeof *known);
    table->nversions--;
}

const pd_known *pd_table_face(const pd_table *table)
{
    const pd_known *face = NULL;
    for (uint32_t i = 0; i < table->nversions; i++) {
        const pd_known *known = &table->versions[i];
        if (known->state == PD_SERVING) return known;
        if (known->state != PD_BROKEN) face = known;
    }
    return face;
}

/* ------------------------------------------------------------------------------------------ from the disk --- */

static int ends_in_tmp(const char *name)
{
    size_t length = strlen(name);
    return length > 4 && !strcmp(name + length - 4, ".tmp");
}

/* A leftover of a crash: a folder of files, or a file. */
static pd_status remove_leftover(const char *path, pd_error *err)
{
    struct stat about;
    if (lstat(path, &about) != 0) return errno == ENOENT ? PD_OK : pd_fail_errno(err, "look at", path);
    pd_log(PD_LOG_INFO, "%s is left from an interrupted run and is removed", path);
    if (S_ISDIR(about.st_mode)) return pd_folder_remove(path, err);
    return unlink(path) != 0 ? pd_fail_errno(err, "remove", path) : PD_OK;
}

/* The number in "v00000007", 0 when it is none. */
static uint64_t version_number(const char *name)
{
    if (name[0] != 'v' || strlen(name) < 9 || strspn(name + 1, "0123456789") != strlen(name) - 1) return 0;
    errno = 0;
    uint64_t number = strtoull(name + 1, NULL, 10);
    return errno || number >= MAX_VERSION ? 0 : number;
}

static pd_status learn_version(pd_catalog *catalog, pd_table *table, uint64_t number, pd_error *err)
{
    char folder[PD_PATH_ROOM];
    pd_version_folder(catalog, table->name, number, folder);
    pd_version *version = NULL;
    pd_error problem = {0};
    pd_status status = pd_version_open(folder, &version, &problem);
    if (!status) {
        const pd_version_info *info = pd_version_info_of(version);
        if (strcmp(info->table, table->name) != 0 || info->version != number)
            status = pd_fail(&problem, PD_DATA_LOSS, "%s says that it is version %llu of \"%s\"", folder,
                             (unsigned long long)info->version, info->table);
    }
    pd_known *known = NULL;
    pd_status added = pd_table_add(table, number, version ? pd_version_info_of(version) : NULL, &known, err);
    pd_version_close(version);
    if (added) return added;
    if (status) {
        known->state = PD_BROKEN;
        snprintf(known->problem, sizeof known->problem, "%s", problem.message);
        pd_log(PD_LOG_ERROR, "version %llu of \"%s\" is broken: %s", (unsigned long long)number, table->name,
               problem.message);
    }
    return PD_OK;
}

/* The numbers in CURRENT: the version that serves, then the way back. 0: it holds something else. */
static int parse_current(pd_table *table, const char *text)
{
    uint64_t numbers[1 + PD_WAY_BACK];
    uint32_t count = 0;
    const char *at = text + strspn(text, " ");
    for (char *end; *at && *at != '\n'; at = end + strspn(end, " ")) {
        errno = 0;
        uint64_t number = *at >= '0' && *at <= '9' ? strtoull(at, &end, 10) : 0;
        if (!number || number >= MAX_VERSION || errno || (*end && *end != ' ' && *end != '\n')) return 0;
        if (count < sizeof numbers / sizeof *numbers) numbers[count++] = number;
    }
    if (!count) return 0;
    table->current = numbers[0];
    table->nbefore = count - 1;
    memcpy(table->before, numbers + 1, (count - 1) * sizeof *numbers);
    return 1;
}

/* What CURRENT says. A version that is not there any more is listed as broken. */
static pd_status read_current(pd_catalog *catalog, pd_table *table, pd_error *err)
{
    char folder[PD_PATH_ROOM], path[PD_PATH_ROOM];
    pd_table_folder(catalog, table->name, folder);
    pd_status status = pd_path_join(path, folder, "CURRENT", err);
    if (status) return status;
    void *text = NULL;
    size_t length = 0;
    status = pd_file_read(path, CURRENT_BYTES, &text, &length, err);
    if (status == PD_NOT_FOUND) return PD_OK;
    int sane = !status && parse_current(table, text);
    free(text);
    if (status && status != PD_DATA_LOSS) return status;
    if (!sane) {
        snprintf(table->problem, sizeof table->problem, "%.400s does not hold a version's number", path);
        pd_log(PD_LOG_ERROR, "%s", table->problem);
        table->current = UINT64_MAX; /* something was published: the newest that loads serves */
        return PD_OK;
    }
    uint64_t number = table->current;
    if (pd_table_version(table, number)) return PD_OK;
    pd_known *known = NULL;
    status = pd_table_add(table, number, NULL, &known, err);
    if (status) return status;
    known->state = PD_BROKEN;
    snprintf(known->problem, sizeof known->problem, "its folder v%08llu is missing",
             (unsigned long long)number);
    pd_log(PD_LOG_ERROR, "version %llu of \"%s\" is broken: %s", (unsigned long long)number, table->name,
           known->problem);
    return PD_OK;
}

static pd_status learn_table(pd_catalog *catalog, const char *name, pd_error *err)
{
    char folder[PD_PATH_ROOM];
    pd_table_folder(catalog, name, folder);
    DIR *dir = opendir(folder);
    if (!dir && errno == ENOTDIR) {
        pd_log(PD_LOG_WARNING, "%s is no folder and is passed over", folder);
        return PD_OK;
    }
    if (!dir) return pd_fail_errno(err, "open the folder", folder);
    pd_table *table = NULL;
    pd_status status = pd_table_make(catalog, name, &table, err);
    struct dirent *entry;
    while (!status && (errno = 0, entry = readdir(dir)) != NULL) {
        char path[PD_PATH_ROOM];
        uint64_t number = version_number(entry->d_name);
        if (ends_in_tmp(entry->d_name)) {
            status = pd_path_join(path, folder, entry->d_name, err);
            if (!status) status = remove_leftover(path, err);
        } else if (number) {
            status = learn_version(catalog, table, number, err);
        }
    }
    if (!status && errno) status = pd_fail_errno(err, "read the folder", folder);
    closedir(dir);
    if (!status) status = read_current(catalog, table, err);
    if (!status && !table->nversions && !table->current) pd_table_drop(catalog, table);
    return status;
}

pd_status pd_tables_scan(pd_catalog *catalog, pd_error *err)
{
    char folder[PD_PATH_ROOM];
    pd_status status = pd_path_join(folder, catalog->root, "tables", err);
    if (status) return status;
    DIR *dir = opendir(folder);
    if (!dir) return pd_fail_errno(err, "open the folder", folder);
    struct dirent *entry;
    while (!status && (errno = 0, entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.') continue;
        pd_error odd;
        if (pd_name_check("table", entry->d_name, &odd) == PD_OK)
            status = learn_table(catalog, entry->d_name, err);
        else
            pd_log(PD_LOG_WARNING, "%s/%s is no table and is passed over", folder, entry->d_name);
    }
    if (!status && errno) status = pd_fail_errno(err, "read the folder", folder);
    closedir(dir);
    return status;
}
