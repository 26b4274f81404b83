/* Scrubbing, step by step:
 *
 *   leftovers  NAME.tmp of a scrub that was interrupted goes: it may be the version from before the exchange, with the rows
 *   find       all pages are read for the ids; none is there: done
 *   write      NAME.tmp: pages, refine, source without the rows (scrub_pages.c), lists and segments (scrub_lists.c), the manifest
 *              last; what does not change is shared with the old folder (snapshot.c). All is synced
 *   open       the new folder is opened as a version, which checks what was written, before anything depends on it
 *   exchange   NAME and NAME.tmp change places by renameat2(RENAME_EXCHANGE); the parent is synced
 *   go over    an opened version exchanges its descriptors for the new ones
 *   remove     the old folder, now NAME.tmp
 *
 * Without an exchange of names there would be a moment with no version under the name, which a crash would make last, or two renames
 * and a start that guesses what was meant. Patching pages in place would want a journal for pages and sums. Both were turned down:
 * where the file system cannot exchange names, a scrub is refused and says so.
 */
#include "scrub.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "scrub_impl.h"
#include "snapshot.h"

pd_status pd_scrub_finish(pd_scrubbing *s, pd_out *out, const char *name, pd_error *err)
{
    for (uint32_t i = 0; i < s->manifest.nfiles; i++) {
        pd_file_entry *entry = &s->manifest.files[i];
        if (!strcmp(entry->name, name)) return pd_out_finish(out, &entry->bytes, &entry->sum, err);
    }
    return pd_fail(err, PD_DATA_LOSS, "%s/manifest.json does not name %s", s->v->folder, name);
}

/* ------------------------------------------------------------------------------------------------ find --- */

static int by_number(const void *left, const void *right)
{
    uint32_t l = *(const uint32_t *)left, r = *(const uint32_t *)right;
    return (l > r) - (l < r);
}

/* The slots of the rows that are there, ascending, each once. */
static pd_status find(pd_scrubbing *s, const uint64_t *ids, uint32_t n, pd_error *err)
{
    s->slots = malloc(((size_t)n + 1) * sizeof *s->slots);
    if (!s->slots) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u rows", n);
    pd_status status = pd_version_find(s->v, ids, n, s->slots, err);
    if (status) return status;
    qsort(s->slots, n, sizeof *s->slots, by_number);
    for (uint32_t i = 0; i < n && s->slots[i] != PD_NO_SLOT; i++)
        if (!s->n || s->slots[s->n - 1] != s->slots[i]) s->slots[s->n++] = s->slots[i];
    return PD_OK;
}

/* ------------------------------------------------------------------------------------------------ write --- */

static pd_status write_lists(pd_scrubbing *s, pd_error *err)
{
    const pd_version_info *info = &s->v->info;
    pd_out out = {0};
    pd_status status = pd_out_open(&out, s->fresh, "lists.bin", err);
    if (!status)
        status = pd_lists_write(&out, &info->lists, info->shape.nlist, info->shape.dim, info->shape.code_dim,
                                info->npages, info->layout.weights, err);
    if (!status) status = pd_scrub_finish(s, &out, "lists.bin", err);
    pd_out_abandon(&out);
    return status;
}

static pd_status write_segments(pd_scrubbing *s, pd_error *err)
{
    pd_out out = {0};
    pd_status status = pd_out_open(&out, s->fresh, "segments.bin", err);
    if (!status) status = pd_segments_write(&out, &s->v->segments, s->v->schema, s->v->info.shape.dim, err);
    if (!status) status = pd_scrub_finish(s, &out, "segments.bin", err);
    pd_out_abandon(&out);
    return status;
}

static pd_status write_manifest(pd_scrubbing *s, pd_error *err)
{
    char *text = NULL;
    size_t length = 0;
    s->manifest.rows -= s->n;
    pd_status status = pd_manifest_text(&s->manifest, &text, &length, err);
    if (status) return status;
    pd_out out = {0};
    status = pd_out_open(&out, s->fresh, "manifest.json", err);
    if (!status) status = pd_out_write(&out, text, length, err);
    if (!status) status = pd_out_finish(&out, NULL, NULL, err);
    pd_out_abandon(&out);
    free(text);
    return status;
}

/* What no row is in. A version that was never calibrated has no calibration. */
static pd_status share_rest(pd_scrubbing *s, pd_error *err)
{
    const char *folder = s->v->folder;
    pd_status status = pd_file_share(folder, s->fresh, "schema.conf", err);
    if (!status && !s->v->info.shape.nlist) status = pd_file_share(folder, s->fresh, "lists.bin", err);
    if (!status && !s->segments && s->v->segment_bytes)
        status = pd_file_share(folder, s->fresh, "segments.bin", err);
    if (status) return status;
    pd_error none;
    status = pd_file_share(folder, s->fresh, "calibration.json", &none);
    if (status == PD_NOT_FOUND) return PD_OK;
    if (status && err) *err = none;
    return status;
}

static pd_status write_folder(pd_scrubbing *s, pd_error *err)
{
    s->manifest = s->v->manifest;
    pd_status status = pd_scrub_survey(s, err);
    if (!status && mkdir(s->fresh, 0755) != 0) return pd_fail_errno(err, "make the folder", s->fresh);
    if (!status) status = pd_scrub_pages(s, err);
    if (!status) pd_scrub_sum(s);
    if (!status && s->v->info.shape.nlist) status = write_lists(s, err);
    if (!status && s->segments) status = write_segments(s, err);
    if (!status) status = share_rest(s, err);
    if (!status) status = write_manifest(s, err);
    return status ? status : pd_folder_sync(s->fresh, err);
}

/* ------------------------------------------------------------------------------------------------ the whole --- */

static pd_status exchange(const char *folder, const char *fresh, pd_error *err)
{
    if (renameat2(AT_FDCWD, fresh, AT_FDCWD, folder, RENAME_EXCHANGE) == 0) return PD_OK;
    if (errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP)
        return pd_fail(
            err, PD_FAILED_PRECONDITION,
            "the file system of %s cannot exchange two names, without which no row can be erased from a "
            "version: remove the version, or move the data to another file system",
            folder);
    return pd_fail_errno(err, "exchange with its new files", folder);
}

/* The new folder takes the name. From the exchange on it stays, whatever fails. */
static pd_status publish(pd_scrubbing *s, pd_version *open, uint32_t *found, pd_error *err)
{
    pd_version *fresh = NULL;
    pd_status status = pd_version_open(s->fresh, &fresh, err);
    if (!status) status = exchange(s->v->folder, s->fresh, err);
    if (status) {
        pd_version_close(fresh);
        pd_folder_remove(s->fresh, NULL);
        return status;
    }
    *found = s->n;
    if (open) pd_version_exchange(open, fresh);
    pd_version_close(fresh);
    status = pd_folder_sync_parent(s->v->folder, err);
    return status ? status : pd_folder_remove(s->fresh, err);
}

static void close_all(pd_scrubbing *s)
{
    pd_version_close(s->v);
    pd_projection_close(s->projection);
    free(s->slots);
    free(s->place);
    free(s->counts);
    free(s->moved);
    for (uint32_t i = 0; i < PD_MAX_ATTRIBUTES; i++) {
        free(s->lost[i]);
        free(s->sums[i]);
    }
}

static pd_status remove_leftover(const char *fresh, pd_error *err)
{
    struct stat about;
    if (lstat(fresh, &about) == 0) return pd_folder_remove(fresh, err);
    return errno == ENOENT ? PD_OK : pd_fail_errno(err, "look at", fresh);
}

static int is_same(const pd_version *a, const pd_version *b)
{
    const pd_manifest *m = &a->manifest, *n = &b->manifest;
    return !strcmp(m->table, n->table) && m->version == n->version && m->npages == n->npages &&
           m->page_bytes == n->page_bytes && m->refine_bytes == n->refine_bytes &&
           m->source_bytes == n->source_bytes;
}

/* Whether the open version still holds the files that a scrub took away: it was done beside another opened version, or none. */
static int is_old(const pd_version *open, const pd_version *now)
{
    struct stat its, ours;
    return fstat(open->files[PD_FILE_PAGES].fd, &its) == 0 &&
           fstat(now->files[PD_FILE_PAGES].fd, &ours) == 0 &&
           (its.st_dev != ours.st_dev || its.st_ino != ours.st_ino);
}

pd_status pd_version_scrub(const char *folder, const uint64_t *ids, uint32_t n, pd_version *open,
                           uint32_t *found, pd_error *err)
{
    char fresh[PD_PATH_ROOM];
    *found = 0;
    int used = snprintf(fresh, sizeof fresh, "%s.tmp", folder);
    if (used < 0 || (size_t)used >= sizeof fresh)
        return pd_fail(err, PD_INVALID_ARGUMENT, "the version's path is too long");
    pd_scrubbing *s = calloc(1, sizeof *s);
    if (!s) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to scrub %s", folder);
    s->fresh = fresh;
    pd_status status = pd_version_open(folder, &s->v, err);
    if (!status && open && !is_same(open, s->v))
        status = pd_fail(err, PD_INVALID_ARGUMENT, "%s is not the version that is open", folder);
    if (!status) status = remove_leftover(fresh, err);
    if (!status) status = find(s, ids, n, err);
    if (!status && s->n) {
        status = write_folder(s, err);
        if (status) remove_leftover(fresh, NULL);
        if (!status) status = publish(s, open, found, err);
    } else if (!status && open && is_old(open, s->v)) {
        pd_version_exchange(open, s->v);
    }
    close_all(s);
    free(s);
    return status;
}
