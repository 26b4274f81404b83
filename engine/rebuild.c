/* Rebuilding: the rows as they are now become a version, trained, laid out and measured anew.
 *
 * The rows are gathered piece by piece while the table serves and changes; each piece is whole, but they are not of one moment. That is
 * enough: the version says that it holds the changes up to the one that was visible when the gathering began, those after it are
 * applied again when it is switched in, and applying a change twice is applying it once.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "build.h"
#include "f16.h"
#include "idmap.h"
#include "incoming.h"
#include "log.h"
#include "upkeep.h"
#include "writer.h"

#define SEED 20260101u

/* What is gathered: files beside the table's versions, in a folder that a start removes. */
enum { ROWS, IDS, BYTES, FLOATS, KEYS, PARTS };
static const char *const part_name[PARTS] = {"rows", "ids", "bytes", "floats", "keys"};

typedef struct gathering {
    pd_catalog *catalog;
    pd_job *job;
    pd_served *served;
    char folder[PD_PATH_ROOM];
    pd_out out[PARTS];
    void *mapped[PARTS];
    size_t length[PARTS];
    double now;
    uint64_t rows, sequence;
    /* A row that moved to another list between two pieces is met twice: the first time it was older. */
    pd_idmap places; /* id -> row */
    uint32_t *dead;  /* [ndead] ascending */
    uint32_t ndead, dead_room;
    pd_f16 *narrow; /* [some rows][dim] where the table keeps its source rows as f16 */
    size_t narrow_room;
    float *numbers;
    size_t numbers_room;
} gathering;

static pd_status need(void **memory, size_t *room, size_t bytes, pd_error *err)
{
    if (bytes <= *room) return PD_OK;
    void *grown = realloc(*memory, bytes);
    if (!grown) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to gather rows");
    *memory = grown;
    *room = bytes;
    return PD_OK;
}

/* ----------------------------------------------------------------------------------------------------- gather --- */

static pd_status write_rows(gathering *g, uint32_t n, const float *vectors, pd_error *err)
{
    const pd_version_info *info = g->served->info;
    size_t values = (size_t)n * info->shape.dim;
    if (info->schema->source != PD_REFINE_F16)
        return pd_out_write(&g->out[ROWS], vectors, values * sizeof *vectors, err);
    pd_status status = need((void **)&g->narrow, &g->narrow_room, values * sizeof *g->narrow, err);
    for (size_t i = 0; !status && i < values; i++)
        g->narrow[i] = pd_f32_to_f16(vectors[i]);
    return status ? status : pd_out_write(&g->out[ROWS], g->narrow, values * sizeof *g->narrow, err);
}

/* Numbers as they are, counters as they are worth at the version's birth. */
static pd_status write_numbers(gathering *g, uint32_t n, const float *floats, const double *counters,
                               pd_error *err)
{
    const pd_schema *schema = g->served->info->schema;
    size_t bytes = (size_t)n * schema->nfloats * sizeof *floats;
    uint32_t ncounters = 0, at = 0;
    for (uint32_t i = 0; i < schema->nattributes; i++)
        ncounters += schema->attributes[i].counts != 0;
    if (!ncounters) return pd_out_write(&g->out[FLOATS], floats, bytes, err);
    pd_status status = need((void **)&g->numbers, &g->numbers_room, bytes, err);
    if (status) return status;
    memcpy(g->numbers, floats, bytes);
    for (uint32_t i = 0; i < schema->nattributes; i++) {
        const pd_attribute *a = &schema->attributes[i];
        if (!a->counts) continue;
        for (uint32_t r = 0; r < n; r++)
            g->numbers[(size_t)r * schema->nfloats + a->float_column] =
                pd_counter_value(counters[(size_t)r * ncounters + at], g->now, a->half_life);
        at++;
    }
    return pd_out_write(&g->out[FLOATS], g->numbers, bytes, err);
}

static pd_status note_places(gathering *g, const uint64_t *ids, uint32_t n, pd_error *err)
{
    if (g->rows + n >= UINT32_MAX) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "too many rows for a version");
    if (g->places.count + n > g->places.room) {
        pd_idmap more = {0};
        pd_status status = pd_idmap_copy(&g->places, g->places.count + g->places.count / 2 + n, &more, err);
        if (status) return status;
        pd_idmap_close(&g->places);
        g->places = more;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t row = (uint32_t)g->rows + i, before = pd_idmap_put(&g->places, ids[i], row);
        if (before == PD_IDMAP_NONE) continue;
        pd_idmap_set(&g->places, ids[i], row);
        if (g->ndead == g->dead_room) {
            uint32_t room = g->dead_room ? g->dead_room * 2 : 64;
            uint32_t *grown = realloc(g->dead, room * sizeof *grown);
            if (!grown) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to gather rows");
            g->dead = grown;
            g->dead_room = room;
        }
        g->dead[g->ndead++] = before;
    }
    return PD_OK;
}

static pd_status take_rows(void *context, uint32_t n, const float *vectors, const uint64_t *ids,
                           const uint8_t *bytes, const float *floats, const uint64_t *keys,
                           const double *counters, pd_error *err)
{
    gathering *g = context;
    const pd_schema *schema = g->served->info->schema;
    pd_status status = note_places(g, ids, n, err);
    if (!status) status = write_rows(g, n, vectors, err);
    if (!status) status = pd_out_write(&g->out[IDS], ids, n * sizeof *ids, err);
    if (!status && schema->nbytes)
        status = pd_out_write(&g->out[BYTES], bytes, (size_t)n * schema->nbytes, err);
    if (!status && schema->nfloats) status = write_numbers(g, n, floats, counters, err);
    if (!status && schema->nkeys)
        status = pd_out_write(&g->out[KEYS], keys, (size_t)n * schema->nkeys * sizeof *keys, err);
    g->rows += n;
    return status;
}

static pd_status map_parts(gathering *g, pd_error *err)
{
    pd_status status = PD_OK;
    for (int i = 0; !status && i < PARTS; i++) {
        uint64_t bytes = 0, sum;
        status = pd_out_finish(&g->out[i], &bytes, &sum, err);
        if (status || !bytes) continue;
        char path[PD_PATH_ROOM];
        status = pd_path_join(path, g->folder, part_name[i], err);
        if (status) break;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) return pd_fail_errno(err, "open", path);
        /* Private, since rows that were met twice are taken out here. */
        void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
        close(fd);
        if (at == MAP_FAILED) return pd_fail_errno(err, "map", path);
        g->mapped[i] = at;
        g->length[i] = bytes;
    }
    return status;
}

static int by_row(const void *left, const void *right)
{
    uint32_t l = *(const uint32_t *)left, r = *(const uint32_t *)right;
    return (l > r) - (l < r);
}

/* The last row takes the place of each that was older, from the end on, so that the last one is never older itself. */
static void drop_dead(gathering *g)
{
    const pd_version_info *info = g->served->info;
    const pd_schema *schema = info->schema;
    size_t value = schema->source == PD_REFINE_F16 ? sizeof(pd_f16) : sizeof(float);
    size_t each[PARTS] = {[ROWS] = info->shape.dim * value,
                          [IDS] = sizeof(uint64_t),
                          [BYTES] = schema->nbytes,
                          [FLOATS] = schema->nfloats * sizeof(float),
                          [KEYS] = schema->nkeys * sizeof(uint64_t)};
    if (g->ndead)
        pd_log(PD_LOG_DEBUG, "%u rows of \"%s\" moved while they were gathered", g->ndead, g->job->table);
    if (g->ndead) qsort(g->dead, g->ndead, sizeof *g->dead, by_row);
    for (uint32_t i = g->ndead; i-- > 0;) {
        uint64_t last = --g->rows, place = g->dead[i];
        for (int part = 0; part < PARTS && place != last; part++)
            if (each[part])
                memcpy((char *)g->mapped[part] + place * each[part],
                       (const char *)g->mapped[part] + last * each[part], each[part]);
    }
}

static pd_status gather(gathering *g, pd_error *err)
{
    pd_job_context progress = {g->catalog, g->job};
    char folder[PD_PATH_ROOM];
    pd_table_folder(g->catalog, g->job->table, folder);
    pd_status status = pd_path_join(g->folder, folder, "rebuild.tmp", err);
    if (!status) status = pd_folder_remove(g->folder, err); /* what an earlier one left */
    if (status && status != PD_NOT_FOUND) return status;
    status = PD_OK;
    if (mkdir(g->folder, 0755) != 0) return pd_fail_errno(err, "make the folder", g->folder);
    for (int i = 0; !status && i < PARTS; i++)
        status = pd_out_open(&g->out[i], g->folder, part_name[i], err);
    if (!status) status = pd_idmap_open(&g->places, pd_resident_rows(g->served->resident) + 1, err);
    if (!status)
        status = pd_resident_stream(g->served->resident, pd_served_source(g->served), take_rows, g,
                                    pd_job_progress, &progress, err);
    if (!status) status = map_parts(g, err);
    if (!status) drop_dead(g);
    pd_idmap_close(&g->places);
    if (!status && !g->rows)
        status = pd_fail(err, PD_FAILED_PRECONDITION, "table \"%s\" has no rows to rebuild", g->job->table);
    return status;
}

static void let_go(gathering *g)
{
    pd_error err;
    for (int i = 0; i < PARTS; i++) {
        pd_out_abandon(&g->out[i]);
        if (g->mapped[i]) munmap(g->mapped[i], g->length[i]);
        g->mapped[i] = NULL;
    }
    if (g->folder[0] && pd_folder_remove(g->folder, &err))
        pd_log(PD_LOG_WARNING, "%s is not removed: %s", g->folder, err.message);
    pd_idmap_close(&g->places);
    free(g->dead);
    free(g->narrow);
    free(g->numbers);
    if (g->served) pd_catalog_release(g->served);
    g->served = NULL;
}

/* ------------------------------------------------------------------------------------------------------ build --- */

static pd_status build(gathering *g, uint64_t number, pd_error *err)
{
    const pd_version_info *info = g->served->info;
    pd_job_context progress = {g->catalog, g->job};
    char folder[PD_PATH_ROOM];
    pd_schema *schema = NULL;
    int small = info->shape.refine == PD_REFINE_I8 || info->shape.refine == PD_REFINE_U8;
    pd_version_folder(g->catalog, g->job->table, number, folder);
    /* A copy: names may still come to the version's own. */
    pd_status status = pd_schema_copy(info->schema, &schema, err);
    if (status) return status;
    pd_build_input input = {.table = g->job->table,
                            .version = number,
                            .rows = g->mapped[ROWS],
                            .dtype = schema->source == PD_REFINE_F16 ? PD_DTYPE_F16 : PD_DTYPE_F32,
                            .count = g->rows,
                            .dim = info->shape.dim,
                            .ids = g->mapped[IDS],
                            .bytes = g->mapped[BYTES],
                            .floats = g->mapped[FLOATS],
                            .keys = g->mapped[KEYS],
                            .normalised = 1,
                            .refine_was = small ? info->shape.refine : PD_REFINE_NONE,
                            .schema = schema,
                            .seed = SEED,
                            .sequence = g->sequence,
                            .parent = g->served->number,
                            .now = g->now};
    status = pd_build(&input, folder, g->catalog->builder, pd_job_progress, &progress, err);
    pd_schema_free(schema);
    return status;
}

pd_status pd_job_rebuild(pd_catalog *catalog, pd_job *job, pd_error *err)
{
    gathering g = {.catalog = catalog, .job = job, .now = pd_days_now()};
    pd_job_context progress = {catalog, job};
    uint64_t number = 0;
    int keep = 0;
    pd_job_progress(&progress, "gather", 0, 1);
    pd_status status = pd_catalog_hold(catalog, job->table, &g.served, err);
    if (status) return status;
    /* Whatever is visible now is in what is gathered from now on. */
    g.sequence = pd_writer_visible(catalog->writer);
    job->publish = 1;
    status = gather(&g, err);
    if (!status) status = pd_incoming_number(catalog, job, &number, err);
    if (!status) status = build(&g, number, err);
    let_go(&g);
    if (!number) return status;
    if (!status) status = pd_incoming_enlist(catalog, job->table, number, err);
    if (!status) status = pd_incoming_bring(catalog, job, number, NULL, &keep, err);
    /* What is not switched in is of no use later: the next rebuild has newer rows. */
    if (status) pd_incoming_discard(catalog, job->table, number);
    if (!status) pd_upkeep_rebuilt(catalog, job->table);
    return status;
}
