/* What the parts of a calibration share: calibrate.c (sample, truth, the whole), calibrate_curve.c (recall by probes and the
 * depth of the refine stage). */
#ifndef PD_CALIBRATE_IMPL_H
#define PD_CALIBRATE_IMPL_H

#include "calibrate.h"

#define PD_CALIBRATE_BATCH 512u /* queries of one call */
#define PD_DEPTHS          7    /* depths that are tried for each band */

/* What is right for one band of one spread. */
typedef struct pd_truth {
    uint32_t k, queries;
    uint64_t *ids;   /* [queries][k] sorted */
    uint32_t *count; /* [queries] */
    float *last;     /* [queries] the k-th score */
} pd_truth;

/* One calibration on its way. */
typedef struct pd_calibrating {
    const pd_calibrate_input *in;
    const pd_version_info *info;
    pd_progress progress;
    void *context;
    uint32_t n;
    float *queries;    /* [n][dim] */
    uint64_t *exclude; /* [n] held-out rows: their own ids; NULL otherwise */
    uint32_t spreads;  /* measured: 1 where nothing can be weighed */
    uint32_t tables;   /* weight tables drawn for a spread; query q uses table q % tables */
    float *weights;    /* [PD_SPREADS][tables][layout.weights]; those of spread 0 are not looked at */
    pd_truth truths[PD_SPREADS][PD_BANDS];
    pd_query *asked; /* [PD_MAX_QUERIES], and answers beside it */
    pd_answer *answers;
    pd_hit *hits; /* room for those of one call */
    /* What each depth of the ladder loses of the deepest's recall, by band, where probes lose nothing. */
    double losses[PD_BANDS][PD_DEPTHS];
    int refines; /* 0: there are no refine rows to choose a depth of */
    uint64_t steps, done;
} pd_calibrating;

/* CANCELLED where the caller's progress says so. */
pd_status pd_calibrate_tick(pd_calibrating *run, pd_error *err);
/* asked[at] becomes sample query i with a weight table of a spread. */
void pd_calibrate_query(const pd_calibrating *run, uint32_t at, uint32_t i, uint32_t spread, uint32_t k,
                        uint32_t nprobe);

/* uint64_t ids, for bsearch. */
int pd_calibrate_by_id(const void *left, const void *right);

/* Measures losses for every band there is a truth for; wants truths, asked, answers and hits. */
pd_status pd_calibrate_depths(pd_calibrating *run, pd_error *err);
/* One curve, each point measured at a depth of its own. Points are appended. */
pd_status pd_calibrate_curve(pd_calibrating *run, uint32_t spread, uint32_t band, pd_curve *curve,
                             pd_error *err);

#endif
