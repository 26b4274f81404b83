/* Calibration: how many lists must be probed for a recall, measured on the version itself.
 *
 * For a sample of queries from the table's declared source the exact top-k is found for each spread (0: similarity alone; else
 * with random weights over the table's byte columns, scaled so that the standard deviation of the summed weights over all
 * rows is spread times that of the similarity), then real searches at growing nprobe are compared with it. The curves keep
 * the mean recall and a one-sided 95% lower bound for each band of k and each spread. How many candidates are re-scored from
 * refine rows belongs to each point.
 */
#ifndef PD_CALIBRATE_H
#define PD_CALIBRATE_H

#include "backend.h"
#include "resident.h"
#include "status.h"
#include "version.h"

#define PD_CALIBRATION_QUERIES 2500u

/* The searches of a calibration go through the caller, so that an engine can run them at the lowest priority. */
typedef pd_status (*pd_search_through)(void *context, const pd_query *queries, uint32_t count,
                                       pd_answer *answers, pd_error *err);

typedef struct pd_calibrate_input {
    const pd_version *version;
    pd_resident *resident;
    /* [count][dim], normalised for cosine; NULL: held-out rows are taken from the version (a row taken from the table
     * finds itself, so each is excluded from its own answers, the exact and the measured). */
    const float *queries;
    uint32_t count;
    const char *source; /* what to call them */
    pd_device *device;  /* for the exact side (a builder's own, idle) */
    pd_search_through search;
    void *search_context;
    uint64_t seed;
} pd_calibrate_input;

pd_status pd_calibrate(const pd_calibrate_input *input, pd_calibration *out, pd_progress progress,
                       void *context, pd_error *err);

/* Attributes that one drawn weight table weighs at most: what a profile's terms touch for one context. */
#define PD_WEIGHED_ATTRIBUTES 4u

/* Random weights of a given spread, as calibration and the bench draw them: up to PD_WEIGHED_ATTRIBUTES attributes taken at
 * random (keys aside), a normal weight for each category value, bucket or set member (unknown: 0), then all scaled. sd:
 * standard deviation wanted of the summed weights over all rows. histograms come from the resident. weights:
 * [layout.weights]. Returns how many byte columns weigh anything (0: the table has none, and weights are zero). */
uint32_t pd_random_weights(const pd_resident *resident, uint64_t seed, float sd, float *weights);
/* Standard deviation of the summed weights over all rows (attributes taken as independent). */
float pd_weights_sd(const pd_resident *resident, const float *weights);

/* The nprobe that promises recall at k and spread: the largest of the neighbouring bands', interpolated along the lower bounds;
 * between spreads the larger of the two neighbours is interpolated linearly in the spread. nlist when nothing measured
 * reaches it (then *reached = 0). Over the last spread measured the nprobe of that one grows with the square of the spread. */
uint32_t pd_calibrated_nprobe(const pd_calibration *calibration, uint32_t nlist, uint32_t k, float spread,
                              float recall, int *reached);

/* Candidates that a search for k hits in nprobe lists re-scores from refine rows, where the curves' promise is to hold: that of the
 * first point with as many probes, as the larger ratio to k of the neighbouring bands' and spreads', at most pd_refine_depth. 0: nothing
 * was measured (the kernels choose). k: up to PD_MAX_DEPTH. */
uint32_t pd_calibrated_depth(const pd_calibration *calibration, uint32_t k, float spread, uint32_t nprobe);

#endif
