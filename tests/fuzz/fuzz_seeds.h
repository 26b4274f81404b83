/* Seeds that a fuzzer makes for itself: called from LLVMFuzzerInitialize, which runs before the corpus is read. */
#ifndef PD_FUZZ_SEEDS_H
#define PD_FUZZ_SEEDS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Writes bytes as a seed of this name into the corpus folder, the first argument that is not a flag; without one the
 * fuzzer starts from nothing, which is well too. */
static inline void fuzz_seed(int argc, char **argv, const char *name, const void *bytes, size_t length)
{
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] == '-') continue;
        char path[512];
        snprintf(path, sizeof path, "%s/seed-%s", argv[i], name);
        FILE *file = fopen(path, "wb");
        if (!file) return;
        fwrite(bytes, 1, length, file);
        fclose(file);
        return;
    }
}

#endif
