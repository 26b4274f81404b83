/* A version made ready to serve: pages in a device's slab, and on the host what finds rows: ids and postings.
 *
 * Used by the engine and by the bench. Reading is safe from the executor only, as for the index.
 */
#ifndef PD_RESIDENT_H
#define PD_RESIDENT_H

#include <stdint.h>

#include "backend.h"
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

/* The slot of a row id; PD_NO_SLOT when it is not there. */
uint32_t pd_resident_slot(const pd_resident *resident, uint64_t id);

/* Postings: slots, ascending, of the rows that hold a value. Category values and set members (by attribute and value
 * number) and keys (by attribute and key). *count rows are always known; *slots is NULL where the value is too frequent to
 * be worth a posting list (over rows / 8 + 1024 rows). */
void pd_resident_posting(const pd_resident *resident, const pd_attribute *attribute, uint64_t value,
                         const uint32_t **slots, uint64_t *count);
/* Slots, by value, of every row whose number lies in [low, high] and of at most 127 others (ranges.h). */
void pd_resident_range(const pd_resident *resident, const pd_attribute *attribute, float low, float high,
                       const uint32_t **slots, uint64_t *count);
/* Rows by bucket or category value: histogram over the whole table, [sizes of the byte column]. */
const uint64_t *pd_resident_histogram(const pd_resident *resident, uint32_t byte_column);
/* How far into it there are rows: an open category's histogram has 256 entries, most of them empty. */
uint32_t pd_resident_used(const pd_resident *resident, uint32_t byte_column);

#endif
