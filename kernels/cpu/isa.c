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

int pd_cpu_ops_find(const char *isa, const pd_cpu_ops **ops, const pd_cpu_i8 **i8)
{
    struct choice {
        int has;
        const pd_cpu_ops *ops;
        const pd_cpu_i8 *i8;
    };
#if defined(__x86_64__)
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
               __builtin_cpu_supports("bmi2") && has_f16c();
    /* Ice Lake, Zen 4 and later. */
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                 __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512vnni") &&
                 __builtin_cpu_supports("avx512vbmi");
    /* The question is compiled for what it comes after. */
    int amx = avx512 && pd_cpu_amx_allowed();
    const struct choice found[] = {{amx, &pd_cpu_ops_avx512, &pd_cpu_i8_amx},
                                   {avx512, &pd_cpu_ops_avx512, &pd_cpu_i8_avx512},
                                   {avx2, &pd_cpu_ops_avx2, &pd_cpu_i8_avx2},
                                   {1, &pd_cpu_ops_portable, &pd_cpu_i8_portable}};
#else
    const struct choice found[] = {{1, &pd_cpu_ops_portable, &pd_cpu_i8_portable}};
#endif
    for (size_t i = 0; i < sizeof found / sizeof *found; i++) {
        if (!found[i].has || (isa && strcmp(isa, found[i].i8->isa) != 0)) continue;
        *ops = found[i].ops;
        *i8 = found[i].i8;
        return 1;
    }
    return 0;
}
