/* cmocka for C++ tests. */
#ifndef PD_TEST_SIMT_CHECK_H
#define PD_TEST_SIMT_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

extern "C" {
#include <cmocka.h>
}

#endif
