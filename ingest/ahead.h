/* Pages of a version's files, read ahead of whoever takes them in.
 *
 * A disk gives its speed only to several reads at once. A few threads read pieces of some pages each, check sums and pages, and
 * whoever asked takes the pieces in page order; its own work overlaps with theirs. Memory is a ring of pieces, whatever the
 * version's size.
 *
 * A reader goes past the page cache (O_DIRECT) where the file system lets it: reading 2 GB through the cache costs a processor for
 * more than a second, past it for less than a tenth, and a table that has been loaded has no use for the cached copy. What is in
 * the cache already is taken from there, so that a restart right after a crash does not wait for the disk.
 */
#ifndef PD_AHEAD_H
#define PD_AHEAD_H

#include <stdint.h>

#include "status.h"
#include "version_impl.h"

typedef struct pd_ahead pd_ahead;

/* Some consecutive pages, of each file that was asked for. */
typedef struct pd_piece {
    uint32_t first, count; /* count 0: there are no more */
    unsigned char
        *pages[PD_PAGE_FILES]; /* [count] pages, 64-byte aligned, read and checked; NULL: not asked for */
} pd_piece;

/* Reads the files in the set of bits 1 << pd_page_file_kind; those that the version does not have are left out. The version is
 * borrowed. RESOURCE_EXHAUSTED: no memory. Threads that cannot be had are done without. */
pd_status pd_ahead_open(const pd_version *version, unsigned files, pd_ahead **out, pd_error *err);
/* The next piece; it lasts until the next call. DATA_LOSS naming file and page: the pieces before it were whole, and no more may
 * be asked for. */
pd_status pd_ahead_next(pd_ahead *ahead, pd_piece *piece, pd_error *err);
void pd_ahead_close(pd_ahead *ahead); /* NULL is allowed; waits for the reads that are under way */

#endif
