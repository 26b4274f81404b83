/* The score, as one written sequence of f32 operations.
 *
 * Every backend, instruction set, batch size and thread count must give the same bits, so the order of operations is
 * part of the contract and no compiler may contract a multiply and an add (the kernels are built with
 * -ffp-contract=off). With q the query, c the list's centroid, x the row:
 *
 *   i8 codes    qs  = max|q| / 127;  qi[d] = round-to-nearest-even(q[d] * (127 / max|q|)) in [-127, 127]
 *                     (qs and all codes 0 where 127 / max|q| is 0 or overflows)
 *               dot = sum of qi[d] * code[d]                     exact, in i32
 *               lt  = pd_dot(q, c)        (ip, cosine)   or  -pd_l2(q, c)  (l2)
 *               qf  = qs                  (ip, cosine)   or  2 * qs        (l2)
 *               sim = (lt + term) + (qf * scale) * (float)dot
 *   projected   where codes have fewer dimensions than rows, q and the residual r = x - c are first made
 *               p(v)[j] = (vs * pscale[j]) * (float)(sum of vi[d] * pcode[j][d]) + 0.0f      the sum exact, in i32
 *               with vs and vi of v as above, and pcode and pscale the i8 code of the projection's row j (project.h). Then qi and qs are
 *               those of p(q), code and scale those of p(r), and with m the mean of the centroids and r~ = scale * code
 *               term = [l2: -(||r||^2 + 2 <c,r>) + 2 *] (<m,r> - <p(m),r~>)      in double, d and j ascending, rounded once
 *               so that what the projection loses is right for the mean query; lt is of all dimensions.
 *   f32/f16     sim = the sum over d, ascending, of q[d] * x[d]  or of -(q[d] - x[d])^2, one f32 accumulator from 0
 *   refine      sim = pd_dot(q, x)  or  -pd_l2(q, x)
 *
 *   score = a * sim + 0.0f
 *   for each byte column c, ascending:                 score = score + W[c][value]
 *   for each key column, each boosted value in turn:   score = score + weight, where the row holds the value
 *
 * Lists are chosen by the same arithmetic over coarser numbers, exact in its integers, so that every backend chooses alike. With m the
 * mean of the centroids (each dimension summed in double, rounded once), the centroid c is kept as the i8 code of the
 * row c - m under a centroid of zeros; qi and qs are those of q (ip, cosine) or of q - m (l2); projected, those of p(q) or of
 * p(q) - p(m), and the terms of l2 are then without p(m) (as for a mean of zeros):
 *   near = (0 + term) + (qf * scale) * (float)dot      -||q - c||^2 or <q, c>, less what is the same for all lists
 *   rank = a * near + 0.0f [+ the weight summary]      the best nprobe are probed, ties by list number; lists that
 *                                                      are empty, or hold no row that can pass the filter, last
 * The list term lt of a probed list is exact.
 *
 * Where lists come in groups (pd_lists), groups are chosen before lists. A group stands at the mean of its lists' centroids, weighed by
 * their rows (each dimension summed in double in the order of the lists, rounded once), in an i8 code as a centroid's; its shares of values are the means of
 * its lists' likewise. Groups are ranked as lists are: near, rank and ties; those without rows, or with nothing on any of their pages that a
 * filter could let pass, last. The best are taken until there are at least PD_LEAST_GROUPS of them and they hold at least
 * PD_GROUP_REACH * nprobe lists that have rows and can pass the filter, or until all are taken; lists are then chosen from theirs.
 *
 * The + 0.0f turns -0 into 0, so that adding a zero weight never changes a bit: columns whose weights are all zero may
 * be skipped. Without a vector (attributes alone) score starts at 0.0f. Order: higher score, then smaller id.
 */
#ifndef PD_SCORE_H
#define PD_SCORE_H

#include <stdint.h>

#define PD_LANES 16

#define PD_LEAST_GROUPS 8u
#define PD_GROUP_REACH  16u

/* Sixteen partial sums, lane j over dimensions j, j + 16, ...; a product is rounded before it is added; the lanes are
 * then added in halves (j with j + 8, then + 4, + 2, + 1). Lanes past the end add nothing. */
float pd_dot(const float *a, const float *b, uint32_t dim);
float pd_l2(const float *a, const float *b, uint32_t dim); /* the same over (a - b)^2 */

/* Scales the vector to length 1 in place (norm in double). 0: a zero, infinite or NaN norm; nothing is changed. */
int pd_normalise(float *vector, uint32_t dim);

/* Quantises a query. codes: [dim4], zero past dim. Returns qs. */
float pd_quantise_query(const float *query, uint32_t dim, uint32_t dim4, int8_t *codes);

/* exp and log by fixed f32 polynomials for the lists' weight summaries: about 1e-6 relative error, the same bits
 * everywhere. x of pd_exp is clamped to [-60, 60]; x of pd_log must be positive and finite. */
float pd_exp(float x);
float pd_log(float x);

#endif
