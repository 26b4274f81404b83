/* Scrubbing: rows erased from a version's files, so that nothing of them is left on the disk.
 *
 * A version is immutable for who reads it: rows do not go in place. A second folder, NAME.tmp, is written without them, slot for slot
 * the same (slots are what the log of changes, residents and their postings speak of), and takes the name by one exchange
 * of names, which the file system does whole or not at all. docs/FILES.md says what each crash leaves.
 *
 * What goes: code, scale, id, columns and refine row of the slot, its source row; the row's share in its list's weight summaries and
 * in the means of its segments; a centroid that was trained on it alone. What stays says of nobody that he was there: other centroids,
 * names in dictionaries, knots and representatives of numbers, spreads and the calibration.
 */
#ifndef PD_SCRUB_H
#define PD_SCRUB_H

#include <stdint.h>

#include "status.h"
#include "version.h"

/* Erases the rows of the ids (in any order; those that are not there are passed over) from the version in folder. *found: how many
 * rows went, also where the call fails after they did; 0: nothing was written. open: NULL, or this folder's version as others have opened it, which goes over to the new
 * files (version.h says what that means); after the call nothing holds the old ones.
 * Not together with another scrub, a calibration or a removal of the folder. Takes the disk that pages, refine and source rows take,
 * until it is done; reads and writes them once.
 * After an error the folder is whole, with the rows or without; the same call again finishes what is left to do.
 * DATA_LOSS: a file of the version is damaged. RESOURCE_EXHAUSTED: no memory, or the disk is full. FAILED_PRECONDITION: the file system
 * cannot exchange two names (NFS cannot). INVALID_ARGUMENT: open is another version. */
pd_status pd_version_scrub(const char *folder, const uint64_t *ids, uint32_t n, pd_version *open,
                           uint32_t *found, pd_error *err);

#endif
