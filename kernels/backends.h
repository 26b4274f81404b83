/* The backends compiled in, and the one that is loaded; pd_backend_find knows them by name. */
#ifndef PD_BACKENDS_H
#define PD_BACKENDS_H

#include "backend.h"

extern const pd_backend pd_backend_reference;
extern const pd_backend pd_backend_cpu;

/* What a plug-in exports, as PD_PLUGIN_CUDA_SYMBOL. A plug-in of another build may see the structs of backend.h otherwise than the program
 * does: abi must be equal. */
typedef struct pd_plugin {
    uint64_t abi;
    const pd_backend *backend;
} pd_plugin;

#define PD_PLUGIN_CUDA_FILE   "libpados_cuda.so"
#define PD_PLUGIN_CUDA_SYMBOL "pd_plugin_cuda"
#define PD_PLUGIN_ABI                                                                                        \
    ((((((((uint64_t)2 * 1021 + sizeof(pd_backend)) * 1021 + sizeof(pd_query)) * 1021 + sizeof(pd_shape)) *  \
            1021 +                                                                                           \
        sizeof(pd_lists)) *                                                                                  \
           1021 +                                                                                            \
       sizeof(pd_answer)) *                                                                                  \
          1021 +                                                                                             \
      sizeof(pd_layout)) *                                                                                   \
         1021 +                                                                                              \
     sizeof(pd_block))

/* Loads the plug-in, once a process. It lies beside the program or in ../lib, or where the environment's PADOS_CUDA_PLUGIN
 * says. UNAVAILABLE: it is not there, or not of this build, saying which. */
pd_status pd_plugin_cuda_load(const pd_backend **out, pd_error *err);
/* For tests: this backend is what the plug-in would have brought. */
void pd_plugin_cuda_provide(const pd_backend *backend);

#endif
