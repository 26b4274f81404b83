/* Reading a snapshot: its list, and whether every byte is what was written. See snapshot_folder.h.
 *
 * The list is sealed, but a seal says only that it is what somebody wrote: names are held to what a server writes before any path is
 * made of them.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "manifest.h"
#include "snapshot_folder.h"
#include "version.h"

#define LIST_LIMIT (64u << 20)

pd_status pd_snapshot_version_path(const char *root, const char *table, uint64_t number, char *path,
                                   pd_error *err)
{
    char name[PD_MAX_NAME + 48];
    snprintf(name, sizeof name, "tables/%.64s/v%08" PRIu64, table, number);
    return pd_path_join(path, root, name, err);
}

int pd_snapshot_in_version(const char *name)
{
    const char *slash = strrchr(name, '/');
    return !strncmp(name, "tables/", 7) && slash && !strcmp(slash, "/manifest.json");
}

void pd_snapshot_entry(const json_t *file, const char **name, uint64_t *bytes, uint64_t *sum)
{
    *name = json_string_value(json_object_get(file, "name"));
    *bytes = (uint64_t)json_integer_value(json_object_get(file, "bytes"));
    *sum = strtoull(json_string_value(json_object_get(file, "xxh3")), NULL, 16);
}

/* A path below the snapshot's folder: no part of it is empty, hidden or leads up. */
static int good_path(const char *name)
{
    if (strncmp(name, "tables/", 7) != 0 && strncmp(name, "profiles/", 9) != 0 &&
        strcmp(name, "changes/data.mdb") != 0)
        return 0;
    for (const char *at = name;;) {
        size_t length = strcspn(at, "/");
        if (!length || *at == '.') return 0;
        if (!at[length]) return 1;
        at += length + 1;
    }
}

static int good_file(const json_t *file)
{
    const char *name = json_string_value(json_object_get(file, "name"));
    const char *sum = json_string_value(json_object_get(file, "xxh3"));
    const json_t *bytes = json_object_get(file, "bytes");
    return name && good_path(name) && sum && strlen(sum) == 16 && strspn(sum, "0123456789abcdef") == 16 &&
           json_is_integer(bytes) && json_integer_value(bytes) >= 0;
}

static int good_table(const json_t *table)
{
    const char *name = json_string_value(json_object_get(table, "name"));
    const json_t *versions = json_object_get(table, "versions");
    pd_error odd;
    if (!name || pd_name_check("table", name, &odd) != PD_OK || !json_is_array(versions)) return 0;
    for (size_t i = 0; i < json_array_size(versions); i++)
        if (json_integer_value(json_array_get(versions, i)) <= 0) return 0;
    return 1;
}

static int good_lists(const pd_snapshot *s)
{
    if (!json_is_array(s->tables) || !json_is_array(s->files) || !s->taken) return 0;
    for (size_t i = 0; i < json_array_size(s->tables); i++)
        if (!good_table(json_array_get(s->tables, i))) return 0;
    int log = 0;
    for (size_t i = 0; i < json_array_size(s->files); i++) {
        const json_t *file = json_array_get(s->files, i);
        if (!good_file(file)) return 0;
        log |= !strcmp(json_string_value(json_object_get(file, "name")), "changes/data.mdb");
    }
    return log;
}

pd_status pd_snapshot_open(const char *folder, pd_snapshot *out, pd_error *err)
{
    char path[PD_PATH_ROOM];
    *out = (pd_snapshot){0};
    pd_status status = pd_path_join(path, folder, PD_SNAPSHOT_FILE, err);
    if (!status) status = pd_sealed_read(path, LIST_LIMIT, &out->body, err);
    if (status) return status;
    memcpy(out->folder, folder, strlen(folder) + 1);
    out->tables = json_object_get(out->body, "tables");
    out->files = json_object_get(out->body, "files");
    out->taken = json_string_value(json_object_get(out->body, "taken"));
    out->sequence = (uint64_t)json_integer_value(json_object_get(out->body, "sequence"));
    if (json_integer_value(json_object_get(out->body, "format")) != PD_SNAPSHOT_FORMAT)
        status = pd_fail(err, PD_DATA_LOSS, "%s is of a format that this program does not read (it reads %d)",
                         path, PD_SNAPSHOT_FORMAT);
    else if (!good_lists(out))
        status = pd_fail(err, PD_DATA_LOSS, "%s is not what a server writes", path);
    if (status) pd_snapshot_close(out);
    return status;
}

void pd_snapshot_close(pd_snapshot *s)
{
    json_decref(s->body);
    *s = (pd_snapshot){0};
}

static pd_status check_file(const pd_snapshot *s, const json_t *file, pd_error *err)
{
    const char *name;
    char path[PD_PATH_ROOM];
    uint64_t wanted, wanted_sum, bytes = 0, sum = 0;
    pd_snapshot_entry(file, &name, &wanted, &wanted_sum);
    pd_status status = pd_path_join(path, s->folder, name, err);
    if (status) return status;
    status = pd_file_sum(path, &bytes, &sum, err);
    if (status == PD_NOT_FOUND) return pd_fail(err, PD_DATA_LOSS, "%s is missing", path);
    if (!status && (bytes != wanted || sum != wanted_sum))
        return pd_fail(err, PD_DATA_LOSS, "%s does not match its checksum", path);
    return status;
}

static pd_status check_version(const pd_snapshot *s, const char *table, uint64_t number, pd_error *err)
{
    char path[PD_PATH_ROOM];
    pd_version *version = NULL;
    pd_status status = pd_snapshot_version_path(s->folder, table, number, path, err);
    if (!status) status = pd_version_open(path, &version, err);
    if (status == PD_NOT_FOUND) return pd_fail(err, PD_DATA_LOSS, "%s is missing", path);
    if (status) return status;
    const pd_version_info *info = pd_version_info_of(version);
    if (strcmp(info->table, table) != 0 || info->version != number)
        status = pd_fail(err, PD_DATA_LOSS, "%s says that it is version %" PRIu64 " of \"%s\"", path,
                         info->version, info->table);
    if (!status) status = pd_version_verify(version, err);
    pd_version_close(version);
    return status;
}

pd_status pd_snapshot_check(const pd_snapshot *s, pd_error *err)
{
    pd_status status = PD_OK;
    for (size_t i = 0; !status && i < json_array_size(s->files); i++)
        status = check_file(s, json_array_get(s->files, i), err);
    for (size_t t = 0; !status && t < json_array_size(s->tables); t++) {
        const json_t *table = json_array_get(s->tables, t), *versions = json_object_get(table, "versions");
        for (size_t v = 0; !status && v < json_array_size(versions); v++)
            status = check_version(s, json_string_value(json_object_get(table, "name")),
                                   (uint64_t)json_integer_value(json_array_get(versions, v)), err);
    }
    return status;
}
