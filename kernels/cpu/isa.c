/* Which instruction set a device uses: the best that the machine has, or the one that a test names. */
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "ops.h"

#if defined(__x86_64__)
/* Not every compiler's __builtin_cpu_supports knows this one by name. */
static int has_f16c(void)
{
    unsigned a, b, c = 0, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

const pd_cpu_ops *pd_cpu_ops_find(const char *isa)
{
    const pd_cpu_ops *best = NULL;
#if defined(__x86_64__)
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
               __builtin_cpu_supports("bmi2") && has_f16c();
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                 __builtin_cpu_supports("avx512cd");
    const pd_cpu_ops *const found[] = {avx512 ? &pd_cpu_ops_avx512 : NULL, avx2 ? &pd_cpu_ops_avx2 : NULL,
                                       &pd_cpu_ops_portable};
#else
    const pd_cpu_ops *const found[] = {&pd_cpu_ops_portable};
#endif
    for (size_t i = 0; i < sizeof found / sizeof *found && !best; i++)
        if (found[i] && (!isa || strcmp(isa, found[i]->isa) == 0)) best = found[i];
    return best;
}
