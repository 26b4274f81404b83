/* Following the log: a resident version is brought up to what was changed since it was built.
 *
 * At start, before a version is switched in, and once more at the switch itself, for what came meanwhile.
 */
#ifndef PD_FOLLOW_H
#define PD_FOLLOW_H

#include "batch.h"
#include "catalog_impl.h"

typedef struct pd_followed {
    uint64_t batches, rows; /* applied */
    uint64_t
        gap; /* changes up to this sequence are gone and are not in the version either; 0: none are missing */
    uint64_t damaged; /* records that could not be read; passed over */
    uint64_t misfits; /* batches of rows of another width; passed over */
    uint64_t *
        erased; /* [nerased] ids that were erased since the version's rows were taken: its files hold them still */
    uint32_t nerased;
    pd_batch_losses losses;
    char first[300]; /* the first damage or misfit, for people; "" when there is none */
} pd_followed;

/* Pages that the changes after `from` may need beyond the version's, at most. */
pd_status pd_follow_pages(pd_catalog *catalog, const char *table, uint64_t from, uint32_t nlist,
                          uint32_t *pages, pd_error *err);

/* Applies what the log has of the box's table after what the box holds, up to and with `upto`. Nobody else changes the box. device:
 * assigns. any_width: upserts of another width are passed over; else they are FAILED_PRECONDITION. *out is added to. */
pd_status pd_follow(pd_catalog *catalog, pd_box *box, uint64_t upto, pd_device *device, int any_width,
                    pd_followed *out, pd_error *err);

void pd_followed_free(pd_followed *followed);
/* One sentence for people, "" when all is well. text: [400] */
void pd_followed_text(const pd_followed *followed, char *text);

#endif
