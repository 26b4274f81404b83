/* manifest.json and calibration.json: small JSON files that carry their own checksum.
 *
 * A sealed file is plain JSON whose first two lines are fixed in width:
 *     {
 *       "xxh3": "0123456789abcdef",
 * and the sum is XXH3-64 over every byte after the second line's end, so that no byte can change unseen.
 */
#ifndef PD_MANIFEST_H
#define PD_MANIFEST_H

#include <jansson.h>
#include <stdint.h>

#include "status.h"
#include "version.h"

#define PD_FORMAT_NUMBER  1
#define PD_MANIFEST_FILES 10
/* Bounds that a manifest is held to before anything is allocated by it. */
#define PD_MAX_PAGES (UINT32_MAX / PD_PAGE_ROWS)
#define PD_MAX_NLIST (1u << 24)

typedef struct pd_file_entry {
    char name[24];
    uint64_t bytes;
    uint64_t sum; /* XXH3-64 of the whole file */
} pd_file_entry;

typedef struct pd_manifest {
    char table[PD_MAX_NAME + 1];
    uint64_t version;
    double created;
    uint64_t rows;
    uint64_t seed;
    uint64_t sequence; /* the last change that is in the rows; 0: none, or a version of before changes */
    uint64_t parent;   /* the version that this one was rebuilt from; 0: it was pushed */
    uint32_t dim, code_dim, nlist, npages;
    int refine_said; /* 0: a version of before manifests told the kind of refine rows; the schema's */
    pd_refine refine;
    uint64_t page_bytes, refine_bytes, source_bytes; /* of one page */
    float beta;                                      /* sharpness of the weight summaries */
    float similarity_sd; /* rows of the table as queries; a first guess until a calibration measures it */
    float residual_sd;
    uint32_t nfiles;
    pd_file_entry files[PD_MANIFEST_FILES];
} pd_manifest;

/* body: a JSON object without "xxh3". *text freed with free(). */
pd_status pd_sealed_text(const json_t *body, char **text, size_t *length, pd_error *err);
/* Reads and checks a sealed file of at most limit bytes. *body: a new reference. NOT_FOUND, DATA_LOSS. */
pd_status pd_sealed_read(const char *path, uint64_t limit, json_t **body, pd_error *err);

pd_status pd_manifest_text(const pd_manifest *manifest, char **text, size_t *length, pd_error *err);
pd_status pd_manifest_read(const char *path, pd_manifest *manifest, pd_error *err);
const pd_file_entry *pd_manifest_file(const pd_manifest *manifest, const char *name); /* NULL: not there */

/* curve.c: calibration.json. An absent file is an unmeasured calibration. */
pd_status pd_calibration_text(const pd_calibration *calibration, char **text, size_t *length, pd_error *err);
pd_status pd_calibration_read(const char *path, pd_calibration *calibration, pd_error *err);

#endif
