/* Between simt.cpp and runtime.cpp. */
#ifndef PD_TEST_SIMT_INSIDE_H
#define PD_TEST_SIMT_INSIDE_H

#include "simt.h"

/* Runs all blocks now. False: a check failed, and pd_simt_note was called. */
bool pd_simt_run(const char *name, dim3 grid, dim3 block, size_t shared, const std::function<void()> &body);
void pd_simt_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint64_t pd_simt_random();

#endif
