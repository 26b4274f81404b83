/* A version made ready to serve: pages in a device's slab, and on the host what finds rows: ids and postings.
 *
 * Used by the engine and by the bench. Its rows may change while it serves (live.h). Searching and gathering are the executor's, as for
 * the index; what finds rows says for itself who may ask.
 */
#ifndef PD_RESIDENT_H
#define PD_RESIDENT_H

#include <stdint.h>

#include "backend.h"
#include "matches.h"
#include "status.h"
#include "version.h"

typedef struct pd_resident pd_resident;

/* Opens an index on the device and loads the version into it. The version is borrowed. spare: pages to reserve beyond
 * the version's, for appends. RESOURCE_EXHAUSTED before anything is read when it will not fit. */
pd_status pd_resident_open(const pd_version *version, pd_device *device, uint32_t spare, pd_resident **out,
                           pd_error *err);
void pd_resident_close(pd_resident *resident); /* NULL is allowed */
pd_index *pd_resident_index(pd_resident *resident);
const pd_version *pd_resident_version(const pd_resident *resident);
uint64_t pd_resident_host_bytes(const pd_resident *resident);

/* Rows now. Any thread. */
uint64_t pd_resident_rows(const pd_resident *resident);
/* The slot of a row id; PD_NO_SLOT when it is not there. Any thread, but not between pd_resident_lock() and unlock. */
uint32_t pd_resident_slot(const pd_resident *resident, uint64_t id);

/* The rest between pd_resident_lock() and unlock (live.h), where rows change. */

/* Postings: the rows that hold a value. Category values and set members (by attribute and value number) and keys (by
 * attribute and key). A value of over rows / 8 + 1024 rows is not listed. */
void pd_resident_posting(const pd_resident *resident, const pd_attribute *attribute, uint64_t value,
                         pd_matches *out);
/* The rows whose number lies in [low, high], and others: at most 127 (ranges.h), and all whose number changed since the version
 * was built. Counters are not listed. */
void pd_resident_range(const pd_resident *resident, const pd_attribute *attribute, float low, float high,
                       pd_matches *out);
/* Rows by bucket or category value: histogram over the whole table, [sizes of the byte column]. */
const uint64_t *pd_resident_histogram(const pd_resident *resident, uint32_t byte_column);
/* How far into it there are rows: an open category's histogram has 256 entries, most of them empty. */
uint32_t pd_resident_used(const pd_resident *resident, uint32_t byte_column);

#endif
