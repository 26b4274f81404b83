/* What push.c (begin, end) and push_send.c (chunks, commit, abort) share. */
#ifndef PD_PUSH_IMPL_H
#define PD_PUSH_IMPL_H

#include "catalog_impl.h"

extern const char *const pd_part_name[PD_PARTS]; /* for people: "rows", "ids", ... */
void pd_part_path(const pd_catalog *catalog, uint64_t number, int part, char *path); /* [PD_PATH_ROOM] */
uint64_t pd_part_received(const pd_part *part); /* bytes from the start on */

void pd_push_unlist(pd_catalog *catalog,
                    const pd_push *push); /* off the list, with the mutex held; the caller frees it */
void pd_push_close_files(pd_push *push);
void pd_push_free(pd_push *push);
void pd_push_remove_files(const pd_catalog *catalog, uint64_t number);

#endif
