/* The cuda backend comes as a library of its own, so that a program starts on machines without CUDA's libraries, and one program
 * serves with a device and without. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends.h"

#define PATH_BYTES 1024

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const pd_backend *loaded;

void pd_plugin_cuda_provide(const pd_backend *backend)
{
    pthread_mutex_lock(&lock);
    loaded = backend;
    pthread_mutex_unlock(&lock);
}

/* The folder of the running program, without a slash at its end. 0: it cannot be told. */
static int program_folder(char *folder, size_t size)
{
    ssize_t length = readlink("/proc/self/exe", folder, size - 1);
    if (length <= 0) return 0;
    folder[length] = '\0';
    char *slash = strrchr(folder, '/');
    if (!slash) return 0;
    *slash = '\0';
    return 1;
}

/* Where the plug-in lies: path [PATH_BYTES]. 0: nowhere. */
static int find_file(char *path)
{
    static const char *const places[] = {"%s/" PD_PLUGIN_CUDA_FILE, "%s/../lib/" PD_PLUGIN_CUDA_FILE,
                                         "%s/../lib/pados/" PD_PLUGIN_CUDA_FILE};
    char folder[PATH_BYTES - 64];
    const char *said = getenv("PADOS_CUDA_PLUGIN");
    if (said && *said) return snprintf(path, PATH_BYTES, "%s", said) < PATH_BYTES;
    if (!program_folder(folder, sizeof folder)) return 0;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        int length = snprintf(path, PATH_BYTES, places[i], folder);
#pragma GCC diagnostic pop
        if (length < PATH_BYTES && access(path, R_OK) == 0) return 1;
    }
    return 0;
}

static pd_status load(const pd_backend **out, pd_error *err)
{
    char path[PATH_BYTES];
    if (!find_file(path))
        return pd_fail(err, PD_UNAVAILABLE,
                       "the CUDA plug-in %s is neither beside this program nor in ../lib; builds without the "
                       "CUDA toolkit have none",
                       PD_PLUGIN_CUDA_FILE);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) return pd_fail(err, PD_UNAVAILABLE, "the CUDA plug-in cannot be loaded: %s", dlerror());
    const pd_plugin *plugin = dlsym(library, PD_PLUGIN_CUDA_SYMBOL);
    if (!plugin || plugin->abi != PD_PLUGIN_ABI) {
        dlclose(library);
        return pd_fail(err, PD_UNAVAILABLE, "%s is not the CUDA plug-in of this build", path);
    }
    /* It stays: a device may be in use to the end of the process. */
    *out = plugin->backend;
    return PD_OK;
}

pd_status pd_plugin_cuda_load(const pd_backend **out, pd_error *err)
{
    pd_status status = PD_OK;
    pthread_mutex_lock(&lock);
    if (!loaded) status = load(&loaded, err);
    *out = loaded;
    pthread_mutex_unlock(&lock);
    return status;
}
