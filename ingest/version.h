/* A version on disk: one immutable publication of a table, a folder of checksummed files.
 *
 *   manifest.json     what this is: format number, table, version, shape, counts, sizes and checksums of the rest
 *   schema.conf       the complete schema (dictionaries, knots, representatives)
 *   pages.bin         [npages] pages as kernels/layout.h has them     pages.sum    [npages] XXH3-64, one a page
 *   refine.bin        [npages] refine pages                           refine.sum
 *   source.bin        [npages][PD_PAGE_ROWS][dim] source rows, f32 or f16, in slot order; never loaded by serving
 *                                                                     source.sum
 *   lists.bin         centroids, page lists, row counts, weight summaries
 *   segments.bin      mean vectors by category value (tables with segment rungs)
 *   calibration.json  nprobe -> recall curves, spreads (written after the build, before publishing)
 *
 * A folder is made under the name NAME.tmp, every file and the folder synced, then renamed: a folder with the final
 * name is whole. docs/FILES.md draws the bytes and says what a crash leaves.
 */
#ifndef PD_VERSION_H
#define PD_VERSION_H

#include <stdint.h>

#include "backend.h"
#include "schema.h"
#include "status.h"

/* Recall curves measured when the version was built. Bands of k: 1, 10, 100, 1000 (those not over the rows). */
#define PD_BANDS   4
#define PD_SPREADS 5
extern const uint32_t pd_band_k[PD_BANDS];   /* 1, 10, 100, 1000 */
extern const float pd_spread_at[PD_SPREADS]; /* 0, 0.1, 0.3, 0.5, 1.0 */
#define PD_CURVE_POINTS 24

typedef struct pd_curve {
    uint32_t points;
    struct {
        uint32_t nprobe;
        uint32_t depth;    /* candidates re-scored from refine rows; 0: as many as the kernels choose */
        float recall;      /* mean over the sample */
        float lower;       /* one-sided 95% lower confidence bound of the mean */
    } at[PD_CURVE_POINTS]; /* nprobe ascending */
} pd_curve;

typedef struct pd_calibration {
    int measured;                  /* 0: nothing was calibrated (look-up tables, empty tables) */
    uint32_t queries;              /* in the sample */
    char source[PD_MAX_NAME + 16]; /* where they came from: "households", "file", "held-out rows" */
    float similarity_sd; /* standard deviation of the similarity over all rows, mean over the sample */
    float residual_sd;   /* the same within a list */
    pd_curve curves[PD_BANDS][PD_SPREADS]; /* points = 0: not measured */
} pd_calibration;

typedef struct pd_version pd_version;

typedef struct pd_version_info {
    const char *table;
    uint64_t version;
    const char *folder;
    const pd_schema *schema; /* complete */
    pd_shape shape;
    pd_layout layout;
    uint64_t rows;
    uint32_t npages;
    double created;    /* days since 1970-01-01 */
    uint64_t sequence; /* the last change that is in the rows; 0: none, or a version of before changes */
    uint64_t parent;   /* the version that this one was rebuilt from; 0: it was pushed */
    uint64_t disk_bytes;
    pd_lists lists;            /* in memory, owned by the version */
    const uint32_t *page_list; /* [npages] the list of each page */
    const pd_calibration *calibration;
} pd_version_info;

/* Reads manifest, schema, lists, calibration and segments, and checks their checksums and the sizes of the rest.
 * NOT_FOUND; DATA_LOSS naming the file and what is wrong. Freed with pd_version_close. */
pd_status pd_version_open(const char *folder, pd_version **out, pd_error *err);
const pd_version_info *pd_version_info_of(const pd_version *version);
/* The mean row of a segment, of category attribute number `attribute` and value, into mean: [dim]. Returns its rows; 0 (and nothing is
 * written): it has none, or the attribute has no segments. Any thread. */
uint64_t pd_version_segment(const pd_version *version, uint32_t attribute, uint32_t value, float *mean);
void pd_version_close(pd_version *version); /* NULL is allowed */

/* The number of a category's value or a set's member, given one where a category's dictionary is open; the same from then on
 * for everybody who reads the version's schema. Any thread. INVALID_ARGUMENT: a closed dictionary or a set does not know
 * it; RESOURCE_EXHAUSTED: no room. */
pd_status pd_version_name(pd_version *version, uint32_t attribute, const char *name, uint32_t *value,
                          pd_error *err);

/* Called now and then by long work; done and total in rows or pages. Non-zero return: stop with CANCELLED. */
typedef int (*pd_progress)(void *context, const char *stage, uint64_t done, uint64_t total);

/* An opened version may be scrubbed (scrub.h) while other threads read source rows, search exactly or look rows up: from then on they
 * read the new files, in which the rows are gone (a source row that is gone reads as zeros), and segments have their new means.
 * What else was read at opening stays until the version is opened anew: rows, lists and their shares, calibration; it cannot be
 * loaded again (FAILED_PRECONDITION). A load that is under way is waited for, and has the rows: who scrubs empties their slots in
 * residents. */

/* Reads pages straight into the windows of an index opened from this version's spec, checking every page's checksum
 * (DATA_LOSS names file and page), and sets the lists. each_page, where not NULL, sees every main page on the way, and reads
 * nothing of the version's files itself. */
typedef pd_status (*pd_page_visit)(void *context, uint32_t page, const void *bytes, pd_error *err);
pd_status pd_version_load(const pd_version *version, pd_index *index, pd_page_visit each_page, void *context,
                          pd_error *err);

/* Reads every page of every file and checks its sum. DATA_LOSS naming file and page. */
pd_status pd_version_verify(const pd_version *version, pd_error *err);

/* Exact search over the source rows on disk by a device's exact slots: streams source.bin beside pages.bin in bounded
 * pieces, checking sums. Queries as for pd_exact_begin. *scanned: rows looked at. */
pd_status pd_version_exact(const pd_version *version, pd_device *device, const pd_query *queries,
                           uint32_t count, pd_answer *answers, pd_progress progress, void *context,
                           pd_error *err);

/* Source rows of slots, from disk. rows: [n][dim] f32. Zeros where a slot holds no row. */
pd_status pd_version_source(const pd_version *version, const uint32_t *slots, uint32_t n, float *rows,
                            pd_error *err);

/* Finds rows by id in the pages on disk, all of which are read: slots[i] of ids[i], PD_NO_SLOT where it is not there. */
pd_status pd_version_find(const pd_version *version, const uint64_t *ids, uint32_t n, uint32_t *slots,
                          pd_error *err);
/* Rows of slots from disk, vectors of full precision; NULL pointers are not filled. OUT_OF_RANGE: a slot without a row. */
pd_status pd_version_rows(const pd_version *version, const uint32_t *slots, uint32_t n, const pd_rows *rows,
                          pd_error *err);
/* Moves each slot that holds no row (one in the middle of a list was scrubbed) on to the next that does, round the end. The version
 * has rows. */
pd_status pd_version_settle(const pd_version *version, uint32_t *slots, uint32_t n, pd_error *err);

/* Writes calibration.json (tmp, sync, rename). */
pd_status pd_version_set_calibration(const char *folder, const pd_calibration *calibration, pd_error *err);
/* The same for an opened version, which keeps it from then on. Nobody else may be reading the version's calibration yet. */
pd_status pd_version_adopt_calibration(pd_version *version, const pd_calibration *calibration, pd_error *err);

/* Publishing by rename; small text files of the catalog ("CURRENT"). Both sync file and folder. */
pd_status pd_file_replace(const char *path, const void *bytes, size_t length, pd_error *err);
pd_status pd_folder_sync(const char *folder, pd_error *err);
pd_status pd_folder_remove(const char *folder, pd_error *err); /* a version's folder and its files */

#endif
