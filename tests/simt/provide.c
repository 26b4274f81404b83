/* Linked into tests that ask for "cuda" by name: they get the backend whose kernels run on the CPU. */
#include "backends.h"

extern const pd_backend pd_backend_cuda;

__attribute__((constructor)) static void provide(void)
{
    pd_plugin_cuda_provide(&pd_backend_cuda);
}
