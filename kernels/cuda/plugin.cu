/* The plug-in: its one exported symbol is pd_plugin_cuda (backends.h). */
#include "cuda.h"

extern "C" {
#include "backends.h"

const pd_backend pd_backend_cuda = {
    "cuda",
    pd_cuda_open,
    pd_cuda_close,
    pd_cuda_info,
    pd_cuda_index_open,
    pd_cuda_index_close,
    pd_cuda_window,
    pd_cuda_commit,
    pd_cuda_set_lists,
    pd_cuda_search,
    pd_cuda_gather,
    pd_cuda_grow,
    pd_cuda_write_rows,
    pd_cuda_write_columns,
    pd_cuda_empty_rows,
    pd_cuda_read_pages,
    pd_cuda_exact_begin,
    pd_cuda_exact_block,
    pd_cuda_exact_end,
    pd_cuda_assign,
    pd_cuda_train,
};

extern const __attribute__((visibility("default"))) pd_plugin pd_plugin_cuda;
const pd_plugin pd_plugin_cuda = {PD_PLUGIN_ABI, &pd_backend_cuda};
}
