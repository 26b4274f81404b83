/* The registry of profiles, as profiles.h says. Files are written before the pointer in memory changes; a put that was
 * answered is on the disk.
 */
#include "profiles.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "catalog_impl.h"
#include "conf.h"
#include "log.h"

static void profile_folder(const pd_catalog *catalog, const char *name, char *path)
{
    snprintf(path, PD_PATH_ROOM, "%.3071s/profiles/%.64s", catalog->root, name);
}

static void profile_path(const pd_catalog *catalog, const char *name, uint64_t version, char *path)
{
    snprintf(path, PD_PATH_ROOM, "%.3071s/profiles/%.64s/v%08" PRIu64 ".conf", catalog->root, name, version);
}

/* ---------------------------------------------------------------------------------------------- in memory --- */

/* With the mutex held: the first profile whose name is not before this one. */
static uint32_t place(const pd_profiles *profiles, const char *name)
{
    uint32_t low = 0, high = profiles->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (strcmp(pd_profile_name(profiles->at[middle]), name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static pd_profile *find(const pd_profiles *profiles, const char *name)
{
    uint32_t at = place(profiles, name);
    return at < profiles->count && !strcmp(pd_profile_name(profiles->at[at]), name) ? profiles->at[at] : NULL;
}

/* Room for one more name. With the mutex held. */
static pd_status grow(pd_profiles *profiles, pd_error *err)
{
    if (profiles->count < profiles->room) return PD_OK;
    if (profiles->count >= PD_PROFILES_MAX)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "there are %u profiles already", profiles->count);
    uint32_t room = profiles->room ? profiles->room * 2 : 16;
    pd_profile **grown = realloc(profiles->at, room * sizeof *grown);
    if (!grown) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a profile");
    profiles->at = grown;
    profiles->room = room;
    return PD_OK;
}

/* Serves profile, whose reference becomes the registry's; returns the one before it, to release. There is room. */
static pd_profile *put_in(pd_profiles *profiles, pd_profile *profile)
{
    const char *name = pd_profile_name(profile);
    uint32_t at = place(profiles, name);
    if (at < profiles->count && !strcmp(pd_profile_name(profiles->at[at]), name)) {
        pd_profile *before = profiles->at[at];
        profiles->at[at] = profile;
        return before;
    }
    memmove(&profiles->at[at + 1], &profiles->at[at], (profiles->count - at) * sizeof *profiles->at);
    profiles->at[at] = profile;
    profiles->count++;
    return NULL;
}

pd_status pd_catalog_profile(pd_catalog *catalog, const char *name, pd_profile **out, pd_error *err)
{
    pthread_mutex_lock(&catalog->mutex);
    pd_profile *profile = find(&catalog->profiles, name);
    *out = profile ? pd_profile_hold(profile) : NULL;
    pthread_mutex_unlock(&catalog->mutex);
    return *out ? PD_OK : pd_fail(err, PD_NOT_FOUND, "there is no profile \"%.80s\"", name);
}

pd_status pd_profiles_all(pd_catalog *catalog, pd_profile ***all, uint32_t *count, pd_error *err)
{
    pd_status status = PD_OK;
    pthread_mutex_lock(&catalog->mutex);
    const pd_profiles *profiles = &catalog->profiles;
    *count = profiles->count;
    *all = malloc((profiles->count + 1) * sizeof **all);
    if (!*all) status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u profiles", profiles->count);
    for (uint32_t i = 0; !status && i < profiles->count; i++)
        (*all)[i] = pd_profile_hold(profiles->at[i]);
    pthread_mutex_unlock(&catalog->mutex);
    return status;
}

void pd_profiles_misfits(pd_catalog *catalog, const char *table, const pd_schema *schema,
                         void (*visit)(void *context, const char *profile, const char *why), void *context)
{
    pd_profile **all;
    uint32_t count;
    if (pd_profiles_all(catalog, &all, &count, NULL)) {
        pd_log(PD_LOG_WARNING, "no memory to check the profiles of \"%s\"", table);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        pd_error why = {0};
        if (!strcmp(pd_profile_table(all[i]), table) && pd_profile_check(all[i], schema, &why) != PD_OK)
            visit(context, pd_profile_name(all[i]), why.message);
        pd_profile_release(all[i]);
    }
    free(all);
}

void pd_profile_validity(const pd_profile *profile, char *from, char *until)
{
    from[0] = until[0] = 0;
    const char *text = pd_profile_text(profile);
    pd_conf *conf = NULL;
    if (pd_conf_parse(pd_profile_name(profile), text, strlen(text), &conf, NULL) != PD_OK) return;
    pd_setting *top = pd_conf_group(conf, pd_conf_root(conf), "profile");
    pd_setting *valid = top ? pd_conf_group(conf, top, "valid") : NULL;
    if (valid) {
        snprintf(from, 32, "%s", pd_conf_string(conf, valid, "from", ""));
        snprintf(until, 32, "%s", pd_conf_string(conf, valid, "until", ""));
    }
    pd_conf_close(conf);
}

/* ---------------------------------------------------------------------------------------------------- put --- */

static pd_status check_fit(pd_catalog *catalog, const pd_profile *profile, pd_error *err)
{
    pd_served *served = NULL;
    if (pd_catalog_hold(catalog, pd_profile_table(profile), &served, NULL) != PD_OK) return PD_OK;
    pd_status status = pd_profile_check(profile, served->info->schema, err);
    pd_catalog_release(served);
    return status;
}

static pd_status write_profile(const pd_catalog *catalog, const char *name, uint64_t version,
                               const char *text, pd_error *err)
{
    char path[PD_PATH_ROOM];
    profile_folder(catalog, name, path);
    if (mkdir(path, 0755) == 0) {
        pd_status status = pd_folder_sync_parent(path, err);
        if (status) return status;
    } else if (errno != EEXIST) {
        return pd_fail_errno(err, "make the folder", path);
    }
    profile_path(catalog, name, version, path);
    pd_status status = pd_file_replace(path, text, strlen(text), err);
    if (!status && version > PD_PROFILE_KEEP) {
        profile_path(catalog, name, version - PD_PROFILE_KEEP, path);
        if (unlink(path) != 0 && errno != ENOENT)
            pd_log(PD_LOG_WARNING, "%s is not removed: %s", path, strerror(errno));
    }
    return status;
}

static pd_status newest_below(const char *folder, uint64_t below, uint64_t *found, pd_error *err);

/* The number of the next version: one more than the newest file's, readable or not, so that none is given twice. */
static pd_status next_version(const pd_catalog *catalog, const char *name, uint64_t *version, pd_error *err)
{
    char folder[PD_PATH_ROOM];
    profile_folder(catalog, name, folder);
    pd_status status = newest_below(folder, UINT64_MAX, version, err);
    if (status == PD_NOT_FOUND) status = PD_OK; /* the first */
    ++*version;
    return status;
}

/* With the writing lock held; profile is parsed and fits. */
static pd_status store(pd_catalog *catalog, pd_profile *profile, pd_profile **out, pd_error *err)
{
    pd_profiles *profiles = &catalog->profiles;
    const char *name = pd_profile_name(profile);
    pthread_mutex_lock(&catalog->mutex);
    pd_profile *before = find(profiles, name);
    uint64_t version;
    int same = before && !strcmp(pd_profile_text(before), pd_profile_text(profile));
    if (same) *out = pd_profile_hold(before);
    pd_status status = same || before ? PD_OK : grow(profiles, err);
    pthread_mutex_unlock(&catalog->mutex);
    if (status || same) return status;

    status = next_version(catalog, name, &version, err);
    if (!status) status = write_profile(catalog, name, version, pd_profile_text(profile), err);
    if (status) return status;
    pd_profile_set_version(profile, version);
    *out = pd_profile_hold(profile);
    pthread_mutex_lock(&catalog->mutex);
    before = put_in(profiles, pd_profile_hold(profile));
    pthread_mutex_unlock(&catalog->mutex);
    pd_profile_release(before);
    pd_log(PD_LOG_INFO, "profile \"%s\" is at version %" PRIu64, name, version);
    return PD_OK;
}

pd_status pd_profiles_put(pd_catalog *catalog, const char *file, const char *text, pd_profile **out,
                          pd_error *err)
{
    *out = NULL;
    if (!file || !file[0]) file = "profile";
    size_t length = strlen(text);
    if (length > PD_PROFILE_TEXT)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%.200s is %zu bytes long, a profile may have %u", file,
                       length, PD_PROFILE_TEXT);
    pd_profile *profile = NULL;
    pd_status status = pd_profile_parse(file, text, length, &profile, err);
    if (status) return status;
    status = pd_name_check("profile", pd_profile_name(profile), err);
    if (!status) status = pd_name_check("table", pd_profile_table(profile), err);
    if (!status) status = check_fit(catalog, profile, err);
    pthread_mutex_lock(&catalog->profiles.writing);
    if (!status) status = store(catalog, profile, out, err);
    pthread_mutex_unlock(&catalog->profiles.writing);
    pd_profile_release(profile);
    return status;
}

/* --------------------------------------------------------------------------------------------------- start --- */

/* The number in "v00000003.conf", 0 when it is none. */
static uint64_t file_version(const char *name)
{
    char *end = NULL;
    if (name[0] != 'v' || name[1] < '0' || name[1] > '9') return 0;
    errno = 0;
    uint64_t version = strtoull(name + 1, &end, 10);
    return errno || strcmp(end, ".conf") != 0 ? 0 : version;
}

/* The largest version below a limit in a profile's folder, 0: none. What a crash left is removed. */
static pd_status newest_below(const char *folder, uint64_t below, uint64_t *found, pd_error *err)
{
    *found = 0;
    DIR *dir = opendir(folder);
    if (!dir) return pd_fail_errno(err, "open the folder", folder);
    struct dirent *entry;
    while ((errno = 0, entry = readdir(dir)) != NULL) {
        uint64_t version = file_version(entry->d_name);
        size_t length = strlen(entry->d_name);
        if (version < below && version > *found) *found = version;
        if (length > 4 && !strcmp(entry->d_name + length - 4, ".tmp")) unlinkat(dirfd(dir), entry->d_name, 0);
    }
    pd_status status = errno ? pd_fail_errno(err, "read the folder", folder) : PD_OK;
    closedir(dir);
    return status;
}

static pd_status read_profile(const pd_catalog *catalog, const char *name, uint64_t version, pd_profile **out,
                              pd_error *err)
{
    char path[PD_PATH_ROOM];
    void *text = NULL;
    size_t length = 0;
    profile_path(catalog, name, version, path);
    pd_status status = pd_file_read(path, PD_PROFILE_TEXT, &text, &length, err);
    if (!status) status = pd_profile_parse(path, text, length, out, err);
    free(text);
    if (!status && strcmp(pd_profile_name(*out), name) != 0) {
        status = pd_fail(err, PD_DATA_LOSS, "%s holds profile \"%s\"", path, pd_profile_name(*out));
        pd_profile_release(*out);
        *out = NULL;
    }
    return status;
}

static pd_status learn(pd_catalog *catalog, const char *name, pd_error *err)
{
    char folder[PD_PATH_ROOM];
    profile_folder(catalog, name, folder);
    for (uint64_t below = UINT64_MAX;;) {
        uint64_t version;
        pd_profile *profile = NULL;
        pd_error problem = {0};
        pd_status status = newest_below(folder, below, &version, err);
        if (status || !version) return status;
        status = read_profile(catalog, name, version, &profile, &problem);
        if (status) {
            pd_log(PD_LOG_ERROR, "version %" PRIu64 " of profile \"%s\" is passed over: %s", version, name,
                   problem.message);
            below = version;
            continue;
        }
        pd_profile_set_version(profile, version);
        status = grow(&catalog->profiles, err);
        if (status)
            pd_profile_release(profile);
        else
            put_in(&catalog->profiles, profile);
        return status;
    }
}

pd_status pd_profiles_open(pd_catalog *catalog, pd_error *err)
{
    char folder[PD_PATH_ROOM];
    pd_status status = pd_path_join(folder, catalog->root, "profiles", err);
    if (status) return status;
    DIR *dir = opendir(folder);
    if (!dir) return pd_fail_errno(err, "open the folder", folder);
    struct dirent *entry;
    while (!status && (errno = 0, entry = readdir(dir)) != NULL) {
        pd_error odd;
        struct stat about;
        if (entry->d_name[0] == '.' || pd_name_check("profile", entry->d_name, &odd) != PD_OK) continue;
        if (fstatat(dirfd(dir), entry->d_name, &about, 0) == 0 && !S_ISDIR(about.st_mode))
            pd_log(PD_LOG_WARNING, "%s/%s is no folder and is passed over", folder, entry->d_name);
        else
            status = learn(catalog, entry->d_name, err);
    }
    if (!status && errno) status = pd_fail_errno(err, "read the folder", folder);
    closedir(dir);
    return status;
}

void pd_profiles_free(pd_catalog *catalog)
{
    for (uint32_t i = 0; i < catalog->profiles.count; i++)
        pd_profile_release(catalog->profiles.at[i]);
    free(catalog->profiles.at);
    catalog->profiles.at = NULL;
    catalog->profiles.count = catalog->profiles.room = 0;
}
