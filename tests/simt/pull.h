/* The strings by which tests pull the stand-in of the CUDA runtime; also for tests in C. */
#ifndef PD_TEST_SIMT_PULL_H
#define PD_TEST_SIMT_PULL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Of cudaError_t. */
#define PD_SIMT_NO_MEMORY       2
#define PD_SIMT_ILLEGAL_ADDRESS 700

/* Every order of threads and blocks from here on follows from the seed. */
void pd_simt_seed(uint64_t seed);
/* The nth call of the runtime from here on that can fail (1: the next) answers error; 0: none does. A sticky error is answered
 * for good. */
void pd_simt_fail_at(uint64_t nth, int error, int sticky);
/* Calls that could have failed, since the last pd_simt_fail_at. */
uint64_t pd_simt_calls(void);
/* The device forgets all errors, as a fresh process would find it. */
void pd_simt_recover(void);
/* What the failed check said; "" where none failed. */
const char *pd_simt_failure(void);
/* Allocations, streams and events that have not been given back. */
uint32_t pd_simt_live(void);
/* Races that were found so far, which only a build with -DPADOS_SANITIZE=thread looks for. */
uint32_t pd_simt_races(void);
/* How many devices answer, and their compute capability. */
void pd_simt_devices(int count, int major, int minor);

#ifdef __cplusplus
}
#endif

#endif
