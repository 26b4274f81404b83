/* The catalog: tables, their versions and profiles; what is served, and how that changes.
 *
 * On disk, under the data folder:
 *     tables/NAME/CURRENT              the serving version's number, text
 *     tables/NAME/v00000007/           a version (ingest/version.h); v00000007.tmp/ is one being built: removed at start
 *     profiles/NAME/v00000003.conf     profiles as pushed; the newest serves
 *     push/NUMBER/                     uploads in progress; removed at start
 *     changes/                         what came after the versions (changes.h)
 *
 * A pd_served is one version made resident, immutable and reference counted: whoever holds one may read it while newer
 * versions are switched in. Only the executor may search it.
 */
#ifndef PD_CATALOG_H
#define PD_CATALOG_H

#include <stdint.h>

#include "config.h"
#include "executor.h"
#include "live.h"
#include "profile.h"
#include "resident.h"
#include "status.h"

typedef struct pd_catalog pd_catalog;

typedef struct pd_served {
    const char *table;
    uint64_t number; /* version */
    pd_version *version;
    pd_resident *resident;
    const pd_version_info *info;
} pd_served;

/* Opens the data folder (made where absent; one process at a time: flock, FAILED_PRECONDITION when taken), cleans up what a
 * crash left, loads each table's serving version into the device. A version that does not load (DATA_LOSS) is marked broken,
 * logged, and the newest older one that loads serves. Tables that do not fit stay listed, not served, saying why. */
pd_status pd_catalog_open(const pd_config *config, pd_device *device, pd_executor *executor, pd_catalog **out,
                          pd_error *err);
/* Stops the builder (a running build is cancelled) and frees everything. */
void pd_catalog_close(pd_catalog *catalog);
/* From now on this configuration, which outlives the catalog. */
void pd_catalog_configure(pd_catalog *catalog, const pd_config *config);
int pd_catalog_ready(const pd_catalog *catalog, char *why, size_t room); /* 0: not yet, and why */

/* "products" (serving) or "products@7" (serving or staged, resident). NOT_FOUND: no such table or version;
 * FAILED_PRECONDITION: nothing is published, or the version is on disk only; UNAVAILABLE: being swapped (policy drain). */
pd_status pd_catalog_hold(pd_catalog *catalog, const char *name, pd_served **out, pd_error *err);
void pd_catalog_release(pd_served *served);

/* How exact searches and exports find the rows of a held version that came with changes. */
const pd_live_source *pd_served_source(const pd_served *served);

/* What a search that must see a change waits for; see writer.h. */
struct pd_writer;
struct pd_writer *pd_catalog_writer(pd_catalog *catalog);

/* Where it is told whether promises of recall are kept; a table that breaks its own is rebuilt once it has changed. Outlives the
 * catalog. */
struct pd_recall_book;
void pd_catalog_listen(pd_catalog *catalog, struct pd_recall_book *book);

/* The newest version of a profile; held, see pd_profile_release. NOT_FOUND. */
pd_status pd_catalog_profile(pd_catalog *catalog, const char *name, pd_profile **out, pd_error *err);

/* Answers one administration request (any body of Request that is not hello or search): fills reply's body, or returns an
 * error. May read and write files: never called from a network callback. *reply is made with malloc'ed parts that
 * pados__v1__reply__free_unpacked(reply, NULL) can free. */
struct Pados__V1__Request;
struct Pados__V1__Reply;
pd_status pd_catalog_admin(pd_catalog *catalog, const struct Pados__V1__Request *request,
                           struct Pados__V1__Reply *reply, pd_error *err);

/* For /metrics and stats: calls visit(context, name, labels, value) for rows, bytes, versions, pushes, jobs. labels is
 * Prometheus text without braces, "" for none. */
void pd_catalog_gauges(pd_catalog *catalog,
                       void (*visit)(void *context, const char *name, const char *labels, double value),
                       void *context);

#endif
