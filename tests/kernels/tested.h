/* The backend that a test is about, beside the reference: the same tests run for others under another name (tests/simt,
 * tests/gpu). */
#ifndef PD_TESTED_H
#define PD_TESTED_H

#ifndef TESTED
#define TESTED "cpu"
#endif

#endif
