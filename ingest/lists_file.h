/* lists.bin and segments.bin: the two binary files that are read whole. docs/FILES.md draws them. */
#ifndef PD_LISTS_FILE_H
#define PD_LISTS_FILE_H

#include <stdint.h>

#include "backend.h"
#include "files.h"
#include "schema.h"
#include "status.h"

/* Whether lists.bin may be so long: only the number of groups is its own. Arguments within the manifest's bounds, so that nothing
 * overflows. code_dim: rows of the projection, 0 where there is none. */
int pd_lists_fit(uint64_t length, uint32_t nlist, uint32_t dim, uint32_t code_dim, uint32_t npages,
                 uint32_t weights);
pd_status pd_lists_write(pd_out *out, const pd_lists *lists, uint32_t nlist, uint32_t dim, uint32_t code_dim,
                         uint32_t npages, uint32_t weights, pd_error *err);
/* Points lists into bytes (which are 4-byte aligned and must outlive it), checking the length, the header and every number.
 * page_list: [npages], receives the list of each page. DATA_LOSS naming name. */
pd_status pd_lists_parse(const char *name, const void *bytes, size_t length, uint32_t nlist, uint32_t dim,
                         uint32_t code_dim, uint32_t npages, uint32_t weights, uint64_t rows, pd_lists *lists,
                         uint32_t *page_list, pd_error *err);

/* Mean vectors by category value. means[i]: [nvalues][dim], counts[i]: [nvalues], for schema attribute i; NULL: none. */
typedef struct pd_segments {
    float *means[PD_MAX_ATTRIBUTES];
    uint64_t *counts[PD_MAX_ATTRIBUTES];
} pd_segments;
/* Whether attribute i is named by a segment rung. */
int pd_segment_wanted(const pd_schema *schema, uint32_t i);
pd_status pd_segments_write(pd_out *out, const pd_segments *segments, const pd_schema *schema, uint32_t dim,
                            pd_error *err);
pd_status pd_segments_parse(const char *name, void *bytes, size_t length, const pd_schema *schema,
                            uint32_t dim, pd_segments *segments, pd_error *err);

#endif
