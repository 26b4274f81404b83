/* The backends compiled in; pd_backend_find knows them by name. */
#ifndef PD_BACKENDS_H
#define PD_BACKENDS_H

#include "backend.h"

extern const pd_backend pd_backend_reference;
extern const pd_backend pd_backend_cpu;

#endif
