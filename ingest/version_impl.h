/* An opened version's insides, shared by version.c (open), version_load.c (read), version_find.c (look up), exact.c (scan) and
 * scrub.c.
 *
 * What a scrub exchanges under an opened version are the descriptors and sums of its page files, held for reading by `files_lock`
 * while they are used, and the means of its segments, which searches read and which therefore have a short lock of their own. */
#ifndef PD_VERSION_IMPL_H
#define PD_VERSION_IMPL_H

#include <pthread.h>

#include "files.h"
#include "lists_file.h"
#include "manifest.h"
#include "project.h"
#include "version.h"

/* The three files of pages, each with its file of sums. */
typedef enum pd_page_file_kind {
    PD_FILE_PAGES = 0,
    PD_FILE_REFINE = 1,
    PD_FILE_SOURCE = 2,
    PD_PAGE_FILES = 3
} pd_page_file_kind;

typedef struct pd_page_file {
    char path[PD_PATH_ROOM];
    int fd; /* open as long as the version is, so that a removed folder can still be read; -1: none */
    uint64_t page_bytes;    /* of one page in this file; 0: the version has no such file */
    uint64_t *sums;         /* [npages] */
    pthread_rwlock_t *lock; /* the version's files_lock */
} pd_page_file;

struct pd_version {
    pd_version_info info;
    pd_manifest manifest;
    char folder[PD_PATH_ROOM];
    pd_schema *schema;
    pd_calibration calibration;
    pd_page_file files[PD_PAGE_FILES];
    pthread_rwlock_t files_lock;
    int scrubbed; /* the files are not those any more that the rest was read from; under files_lock */
    pthread_mutex_t segments_lock; /* of segments and segment_bytes */
    void *lists_bytes;             /* lists.bin, whole; info.lists points into it */
    uint32_t *page_list;
    void *segment_bytes;
    pd_segments segments;
    uint16_t limits[PD_MAX_BYTES]; /* values of a byte column are below this; at least 1 */
    pd_projection *projection;     /* made when rows are first encoded (__atomic) */
};

/* Reads count pages from first into memory and checks their sums. DATA_LOSS naming file and page. Any thread. */
pd_status pd_page_file_read(const pd_page_file *file, uint32_t first, uint32_t count, void *memory,
                            pd_error *err);
/* The same by who holds files_lock for reading. */
pd_status pd_page_file_read_held(const pd_page_file *file, uint32_t first, uint32_t count, void *memory,
                                 pd_error *err);
/* Main and source pages of one moment: a row that is scrubbed meanwhile is in both or in neither. The main pages are checked
 * (pd_page_check). rows may be NULL. */
pd_status pd_version_read(const pd_version *version, uint32_t first, uint32_t count, void *pages, void *rows,
                          pd_error *err);

/* Row `place` of a source page, as f32: [dim]. */
void pd_source_row(const pd_version *version, const void *page, uint32_t place, float *out);

/* Exchanges the page files and segments of two versions of one shape. */
void pd_version_exchange(pd_version *version, pd_version *other);

/* The projection of its codes, where they have fewer dimensions than rows. Any thread. RESOURCE_EXHAUSTED. */
pd_status pd_version_projection(const pd_version *version, const pd_projection **out, pd_error *err);

/* The sums of count pages from first, which are in memory. DATA_LOSS naming file and page. */
pd_status pd_page_sums_check(const pd_page_file *file, uint32_t first, uint32_t count, const void *memory,
                             pd_error *err);

/* That a main page's byte columns hold values within their sizes, and that its scales and terms are numbers. DATA_LOSS. */
pd_status pd_page_check(const pd_version *version, uint32_t number, void *page, pd_error *err);

#endif
