/* Opening a version: what is small is read and checked at once, what is large is measured and left on the disk.
 *
 * Order matters: the manifest first, by its own checksum; then every length it states is compared with the file's, and
 * only then is anything allocated by its numbers; then the sums of the small files. The large files (pages, refine,
 * source) are checked page by page by whoever reads them.
 */
#include "version.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "version_impl.h"

#define SCHEMA_LIMIT (4u << 20)

static const char *const page_names[PD_PAGE_FILES] = {"pages.bin", "refine.bin", "source.bin"};
static const char *const sum_names[PD_PAGE_FILES] = {"pages.sum", "refine.sum", "source.sum"};

/* Compares the lengths of all files that the manifest names with those on the disk. */
static pd_status check_lengths(pd_version *v, pd_error *err)
{
    for (uint32_t i = 0; i < v->manifest.nfiles; i++) {
        const pd_file_entry *file = &v->manifest.files[i];
        char path[PD_PATH_ROOM];
        pd_status status = pd_path_join(path, v->folder, file->name, err);
        if (status) return status;
        struct stat about;
        if (strchr(file->name, '/') || lstat(path, &about) != 0 || !S_ISREG(about.st_mode))
            return pd_fail(err, PD_DATA_LOSS, "%s is missing", path);
        if ((uint64_t)about.st_size != file->bytes)
            return pd_fail(err, PD_DATA_LOSS, "%s is %llu bytes long, the manifest says %llu", path,
                           (unsigned long long)about.st_size, (unsigned long long)file->bytes);
        v->info.disk_bytes += file->bytes;
    }
    return PD_OK;
}

/* Reads a small file that the manifest names and checks its sum. */
static pd_status read_small(const pd_version *v, const char *name, void **bytes, size_t *length,
                            pd_error *err)
{
    const pd_file_entry *file = pd_manifest_file(&v->manifest, name);
    if (!file) return pd_fail(err, PD_DATA_LOSS, "%s/manifest.json does not name %s", v->folder, name);
    char path[PD_PATH_ROOM];
    pd_status status = pd_path_join(path, v->folder, name, err);
    if (status) return status;
    status = pd_file_read(path, file->bytes, bytes, length, err);
    if (status == PD_NOT_FOUND) return pd_fail(err, PD_DATA_LOSS, "%s is missing", path);
    if (status) return status;
    if (*length != file->bytes || pd_sum_of(*bytes, *length) != file->sum) {
        free(*bytes);
        *bytes = NULL;
        return pd_fail(err, PD_DATA_LOSS, "%s does not match its checksum", path);
    }
    return PD_OK;
}

/* What a page's bytes may be: a category's names end where its dictionary ends, though its weight tables may be larger. */
static void set_limits(pd_version *v)
{
    for (uint32_t c = 0; c < v->info.shape.nbytes; c++)
        v->limits[c] = v->info.shape.sizes[c] ? v->info.shape.sizes[c] : 1;
    for (uint32_t i = 0; i < v->schema->nattributes; i++) {
        const pd_attribute *attribute = &v->schema->attributes[i];
        if (attribute->type == PD_CATEGORY) v->limits[attribute->byte_column] = (uint16_t)attribute->nvalues;
    }
}

static pd_status read_schema(pd_version *v, pd_error *err)
{
    const pd_file_entry *file = pd_manifest_file(&v->manifest, "schema.conf");
    if (file && file->bytes > SCHEMA_LIMIT)
        return pd_fail(err, PD_DATA_LOSS, "%s/schema.conf is too long", v->folder);
    void *text = NULL;
    size_t length = 0;
    pd_status status = read_small(v, "schema.conf", &text, &length, err);
    if (status) return status;
    char name[PD_PATH_ROOM];
    snprintf(name, sizeof name, "%.4000s/schema.conf", v->folder);
    status = pd_schema_parse(name, text, length, &v->schema, err);
    free(text);
    if (status) {
        pd_error inner = err ? *err : (pd_error){0};
        return pd_fail(err, PD_DATA_LOSS, "%s", inner.message);
    }
    const pd_manifest *m = &v->manifest;
    if (v->schema->dim != m->dim || (v->schema->index ? m->nlist == 0 : m->nlist != 0))
        return pd_fail(err, PD_DATA_LOSS, "%s/schema.conf does not fit the manifest", v->folder);
    pd_schema_shape(v->schema, m->nlist, &v->info.shape);
    v->info.shape.code_dim = m->code_dim < m->dim ? m->code_dim : 0;
    if (m->refine_said) v->info.shape.refine = m->refine;
    status = pd_layout_of(&v->info.shape, &v->info.layout, err);
    if (status) return pd_fail(err, PD_DATA_LOSS, "%s/schema.conf has no page layout", v->folder);
    uint64_t source = (uint64_t)PD_PAGE_ROWS * m->dim * (v->schema->source == PD_REFINE_F16 ? 2 : 4);
    if (v->info.layout.page_bytes != m->page_bytes || v->info.layout.refine_bytes != m->refine_bytes ||
        source != m->source_bytes)
        return pd_fail(err, PD_DATA_LOSS, "%s/manifest.json: the pages are not of the schema's size",
                       v->folder);
    set_limits(v);
    return PD_OK;
}

static pd_status open_pages(pd_version *v, pd_page_file_kind kind, uint64_t page_bytes, pd_error *err)
{
    pd_page_file *file = &v->files[kind];
    uint32_t npages = v->manifest.npages;
    file->page_bytes = page_bytes;
    file->lock = &v->files_lock;
    if (page_bytes == 0) return PD_OK;
    const pd_file_entry *pages = pd_manifest_file(&v->manifest, page_names[kind]);
    const pd_file_entry *sums = pd_manifest_file(&v->manifest, sum_names[kind]);
    if (!pages || !sums || pages->bytes != (uint64_t)npages * page_bytes ||
        sums->bytes != (uint64_t)npages * 8)
        return pd_fail(err, PD_DATA_LOSS, "%s/%s or its sums are not of the length that %u pages need",
                       v->folder, page_names[kind], npages);
    pd_status status = pd_path_join(file->path, v->folder, page_names[kind], err);
    if (status) return status;
    void *bytes = NULL;
    size_t length = 0;
    status = read_small(v, sum_names[kind], &bytes, &length, err);
    if (status) return status;
    file->sums = bytes;
    file->fd = open(file->path, O_RDONLY | O_CLOEXEC);
    return file->fd < 0 ? pd_fail_errno(err, "open", file->path) : PD_OK;
}

static pd_status read_lists(pd_version *v, pd_error *err)
{
    const pd_manifest *m = &v->manifest;
    const pd_file_entry *file = pd_manifest_file(m, "lists.bin");
    uint32_t weights = v->info.layout.weights, code_dim = v->info.shape.code_dim;
    if (!file || !pd_lists_fit(file->bytes, m->nlist, m->dim, code_dim, m->npages, weights))
        return pd_fail(err, PD_DATA_LOSS, "%s/lists.bin is missing or of a wrong length", v->folder);
    size_t length = 0;
    pd_status status = read_small(v, "lists.bin", &v->lists_bytes, &length, err);
    if (status) return status;
    v->page_list = malloc(((size_t)m->npages + 1) * sizeof *v->page_list);
    if (!v->page_list) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u pages", m->npages);
    char name[PD_PATH_ROOM];
    snprintf(name, sizeof name, "%.4000s/lists.bin", v->folder);
    status = pd_lists_parse(name, v->lists_bytes, length, m->nlist, m->dim, code_dim, m->npages, weights,
                            m->rows, &v->info.lists, v->page_list, err);
    v->info.lists.beta = v->info.lists.histograms ? m->beta : 0.0f;
    return status;
}

static pd_status read_segments(pd_version *v, pd_error *err)
{
    int wanted = 0;
    for (uint32_t i = 0; i < v->schema->nattributes; i++)
        wanted |= pd_segment_wanted(v->schema, i);
    if (!wanted) return PD_OK;
    size_t length = 0;
    pd_status status = read_small(v, "segments.bin", &v->segment_bytes, &length, err);
    if (status) return status;
    char name[PD_PATH_ROOM];
    snprintf(name, sizeof name, "%.4000s/segments.bin", v->folder);
    return pd_segments_parse(name, v->segment_bytes, length, v->schema, v->manifest.dim, &v->segments, err);
}

static pd_status read_all(pd_version *v, pd_error *err)
{
    char path[PD_PATH_ROOM];
    struct stat about;
    if (stat(v->folder, &about) != 0) {
        if (errno == ENOENT) return pd_fail(err, PD_NOT_FOUND, "there is no version at %s", v->folder);
        return pd_fail_errno(err, "look at", v->folder);
    }
    pd_status status = pd_path_join(path, v->folder, "manifest.json", err);
    if (!status) status = pd_manifest_read(path, &v->manifest, err);
    if (status == PD_NOT_FOUND) status = pd_fail(err, PD_DATA_LOSS, "%s is missing", path);
    if (!status) status = check_lengths(v, err);
    if (!status) status = read_schema(v, err);
    const pd_manifest *m = &v->manifest;
    if (!status) status = open_pages(v, PD_FILE_PAGES, m->page_bytes, err);
    if (!status) status = open_pages(v, PD_FILE_REFINE, m->refine_bytes, err);
    if (!status) status = open_pages(v, PD_FILE_SOURCE, m->source_bytes, err);
    if (!status) status = read_lists(v, err);
    if (!status) status = read_segments(v, err);
    if (!status) status = pd_path_join(path, v->folder, "calibration.json", err);
    if (!status) status = pd_calibration_read(path, &v->calibration, err);
    if (!status &&
        !v->calibration.measured) { /* the build's own guess, so that a spread can be told at all */
        v->calibration.similarity_sd = m->similarity_sd;
        v->calibration.residual_sd = m->residual_sd;
    }
    return status;
}

/* A scrub is not kept waiting by readers that come one after another. */
static pd_status open_locks(pd_version *v, pd_error *err)
{
    pthread_rwlockattr_t kind;
    if (pthread_rwlockattr_init(&kind) != 0)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no lock for a version");
    pthread_rwlockattr_setkind_np(&kind, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    int failed = pthread_rwlock_init(&v->files_lock, &kind) != 0;
    pthread_rwlockattr_destroy(&kind);
    if (failed) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no lock for a version");
    if (pthread_mutex_init(&v->segments_lock, NULL) == 0) return PD_OK;
    pthread_rwlock_destroy(&v->files_lock);
    return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no lock for a version");
}

pd_status pd_version_open(const char *folder, pd_version **out, pd_error *err)
{
    *out = NULL;
    if (strlen(folder) >= PD_PATH_ROOM)
        return pd_fail(err, PD_INVALID_ARGUMENT, "the version's path is too long");
    pd_version *v = calloc(1, sizeof *v);
    if (!v) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a version");
    pd_status status = open_locks(v, err);
    if (status) {
        free(v);
        return status;
    }
    for (int i = 0; i < PD_PAGE_FILES; i++)
        v->files[i].fd = -1;
    memcpy(v->folder, folder, strlen(folder) + 1);
    status = read_all(v, err);
    if (status) {
        pd_version_close(v);
        return status;
    }
    pd_version_info *info = &v->info;
    info->table = v->manifest.table;
    info->version = v->manifest.version;
    info->folder = v->folder;
    info->schema = v->schema;
    info->rows = v->manifest.rows;
    info->npages = v->manifest.npages;
    info->created = v->manifest.created;
    info->sequence = v->manifest.sequence;
    info->parent = v->manifest.parent;
    info->page_list = v->page_list;
    info->calibration = &v->calibration;
    *out = v;
    return PD_OK;
}

const pd_version_info *pd_version_info_of(const pd_version *version)
{
    return &version->info;
}

void pd_version_close(pd_version *v)
{
    if (!v) return;
    for (int i = 0; i < PD_PAGE_FILES; i++) {
        if (v->files[i].fd >= 0) close(v->files[i].fd);
        free(v->files[i].sums);
    }
    free(v->lists_bytes);
    free(v->page_list);
    free(v->segment_bytes);
    pd_projection_close(v->projection);
    pd_schema_free(v->schema);
    pthread_rwlock_destroy(&v->files_lock);
    pthread_mutex_destroy(&v->segments_lock);
    free(v);
}

pd_status pd_version_projection(const pd_version *version, const pd_projection **out, pd_error *err)
{
    pd_version *v = (pd_version *)version; /* what it keeps for later is no part of what it says */
    pd_projection *there = __atomic_load_n(&v->projection, __ATOMIC_ACQUIRE), *mine = NULL;
    *out = there;
    if (there) return PD_OK;
    pd_status status =
        pd_projection_open(v->info.lists.projection, v->info.layout.code_dim, v->info.lists.centroids,
                           v->info.shape.nlist, v->info.shape.dim, &mine, err);
    if (status) return status;
    *out = mine;
    if (__atomic_compare_exchange_n(&v->projection, &there, mine, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        return PD_OK;
    pd_projection_close(mine);
    *out = there;
    return PD_OK;
}

uint64_t pd_version_segment(const pd_version *version, uint32_t attribute, uint32_t value, float *mean)
{
    pd_version *v = (pd_version *)version; /* for the lock */
    const pd_schema *schema = v->schema;
    /* Names that came while it serves have no mean. */
    if (attribute >= schema->nattributes || value >= v->limits[schema->attributes[attribute].byte_column])
        return 0;
    uint32_t dim = v->info.shape.dim;
    pthread_mutex_lock(&v->segments_lock);
    const float *means = v->segments.means[attribute];
    uint64_t count = means ? v->segments.counts[attribute][value] : 0;
    if (count) memcpy(mean, means + (size_t)value * dim, dim * sizeof *mean);
    pthread_mutex_unlock(&v->segments_lock);
    return count;
}

void pd_version_exchange(pd_version *v, pd_version *other)
{
    pthread_rwlock_wrlock(&v->files_lock);
    for (int i = 0; i < PD_PAGE_FILES; i++) {
        pd_page_file *mine = &v->files[i], *theirs = &other->files[i];
        int fd = mine->fd;
        uint64_t *sums = mine->sums;
        mine->fd = theirs->fd;
        mine->sums = theirs->sums;
        theirs->fd = fd;
        theirs->sums = sums;
    }
    v->scrubbed = 1;
    pthread_rwlock_unlock(&v->files_lock);
    pthread_mutex_lock(&v->segments_lock);
    void *bytes = v->segment_bytes;
    pd_segments segments = v->segments;
    v->segment_bytes = other->segment_bytes;
    v->segments = other->segments;
    other->segment_bytes = bytes;
    other->segments = segments;
    pthread_mutex_unlock(&v->segments_lock);
}

pd_status pd_version_adopt_calibration(pd_version *v, const pd_calibration *calibration, pd_error *err)
{
    pd_status status = pd_version_set_calibration(v->folder, calibration, err);
    if (!status) v->calibration = *calibration;
    return status;
}
