/* Decaying sums in the log2 domain: what is added at a time outweighs what was added a half life before it by 2, so that
 * nothing already added ever changes. Days over half lives fit a double's whole part with 2^-40 to spare for the fraction. */
#include <math.h>

#include "live.h"

#define LN2 0.693147180559945309417

double pd_counter_add(double counter, double weight, double time, double half_life)
{
    if (!(weight != 0) || !isfinite(weight)) return counter;
    double one = log2(fabs(weight)) + time / half_life;
    if (weight < 0) {
        /* Taking away more than is there leaves nothing. */
        if (!(counter > one)) return -INFINITY;
        return counter + log1p(-exp2(one - counter)) / LN2;
    }
    double high = one > counter ? one : counter, low = one > counter ? counter : one;
    return high + log1p(exp2(low - high)) / LN2;
}

float pd_counter_value(double counter, double time, double half_life)
{
    double value = exp2(counter - time / half_life);
    return value < 3e38 ? (float)value : 3e38f;
}
