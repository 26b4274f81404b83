/* What the device's tests use of cmocka, for machines that have a compiler, CMake and the CUDA toolkit and nothing else: a test ends at
 * its first failure, a group fails with any of its tests. No signals are caught. */
#ifndef PD_BARE_CMOCKA_H
#define PD_BARE_CMOCKA_H

#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef int (*bare_fixture)(void **state);

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};

enum { BARE_FAILED = 1, BARE_SKIPPED = 2 };

static jmp_buf bare_out;

static inline void bare_leave(const char *file, int line, int how)
{
    if (how == BARE_FAILED) printf("%s:%d: error: Failure!\n", file, line);
    fflush(stdout);
    longjmp(bare_out, how);
}

#define print_error(...) ((void)fprintf(stderr, __VA_ARGS__))
#define fail_msg(...)                                                                                        \
    (print_error("ERROR: " __VA_ARGS__), print_error("\n"), bare_leave(__FILE__, __LINE__, BARE_FAILED))
#define skip() bare_leave(__FILE__, __LINE__, BARE_SKIPPED)
#define bare_check(what, holds)                                                                              \
    ((holds) ? (void)0 : (print_error("%s\n", what), bare_leave(__FILE__, __LINE__, BARE_FAILED)))

#define assert_true(a)               bare_check(#a, (a))
#define assert_false(a)              bare_check("not " #a, !(a))
#define assert_null(a)               bare_check(#a " == NULL", (a) == NULL)
#define assert_non_null(a)           bare_check(#a " != NULL", (a) != NULL)
#define assert_int_equal(a, b)       bare_check(#a " == " #b, (uintmax_t)(a) == (uintmax_t)(b))
#define assert_int_not_equal(a, b)   bare_check(#a " != " #b, (uintmax_t)(a) != (uintmax_t)(b))
#define assert_memory_equal(a, b, n) bare_check(#a " holds " #b, memcmp(a, b, n) == 0)
#define assert_string_equal(a, b)    bare_check(#a " is " #b, strcmp(a, b) == 0)

static inline int bare_run(const struct CMUnitTest *tests, size_t n, bare_fixture begin, bare_fixture end)
{
    void *state = NULL;
    volatile int failed = 0;
    if (begin && begin(&state) != 0) return 1;
    for (volatile size_t i = 0; i < n; i++) {
        printf("[ RUN      ] %s\n", tests[i].name);
        fflush(stdout);
        int how = setjmp(bare_out);
        if (how == 0) tests[i].run(&state);
        failed += how == BARE_FAILED;
        printf("%s %s\n",
               how == 0              ? "[       OK ]"
               : how == BARE_SKIPPED ? "[  SKIPPED ]"
                                     : "[  FAILED  ]",
               tests[i].name);
    }
    if (end && end(&state) != 0) failed++;
    printf("%d of %zu tests failed\n", failed, n);
    return failed;
}

#define cmocka_unit_test(test)                                                                               \
    {                                                                                                        \
#test, test                                                                                          \
    }
#define cmocka_run_group_tests(tests, begin, end) bare_run(tests, sizeof(tests) / sizeof *(tests), begin, end)

#endif
