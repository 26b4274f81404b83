/* Version folders made by an enemy: one file of a sound version is patched, and every checksum over it is made to fit.
 *
 * Input: which file (byte 0), what to do (byte 1: patch, cut, or replace by the rest), then patches of three bytes
 * (offset, low byte first, and value) or the new contents. Whatever comes of it is opened, loaded, searched and read
 * off; it may be refused or it may work, but nothing may be read or written out of bounds.
 */
#include "fuzz_seeds.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "build.h"
#include "calibrate.h"
#include "files.h"
#include "manifest.h"
#include "resident.h"

enum { ROWS = 70, DIM = 3, FILES = 11, LARGEST = 1 << 20 };
static const char *const names[FILES] = {"manifest.json", "calibration.json", "schema.conf", "lists.bin",
                                         "segments.bin",  "pages.bin",        "refine.bin",  "source.bin",
                                         "pages.sum",     "refine.sum",       "source.sum"};
static char base[64], folder[80];
static unsigned char *sound[FILES];
static size_t lengths[FILES];
static pd_device *device;

static void must(int holds)
{
    if (!holds) abort();
}

static const char *path_of(int file)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, names[file]);
    return path;
}

static void put(int file, const void *bytes, size_t length)
{
    FILE *out = fopen(path_of(file), "wb");
    must(out != NULL);
    must(fwrite(bytes, 1, length, out) == length);
    must(fclose(out) == 0);
}

static void forget(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", base);
    if (system(command) != 0) abort();
}

static void build_sound(void)
{
    static const char text[] =
        "table = { metric = \"l2\"; fallback = ( \"segment:kind\" ); attributes = ("
        " { name = \"kind\"; type = \"category\"; }, { name = \"price\"; type = \"number\"; },"
        " { name = \"zones\"; type = \"set\"; }, { name = \"brand\"; type = \"key\"; } ); };";
    static float rows[ROWS * DIM];
    char csv[128];
    snprintf(csv, sizeof csv, "%s/a.csv", base);
    FILE *out = fopen(csv, "w");
    must(out != NULL);
    fputs("id,kind,price,zones,brand\n", out);
    for (int i = 0; i < ROWS; i++) {
        for (int d = 0; d < DIM; d++)
            rows[i * DIM + d] = (float)((i * 7 + d * 13) % 29);
        fprintf(out, "%d,k%d,%d,z%d|y,%d\n", i, i % 4, i % 9, i % 3, i % 20);
    }
    must(fclose(out) == 0);
    pd_error err;
    pd_schema *schema = NULL;
    must(pd_schema_parse("s", text, sizeof text - 1, &schema, &err) == PD_OK);
    pd_build_input in = {.table = "t",
                         .version = 1,
                         .rows = rows,
                         .dtype = PD_DTYPE_F32,
                         .count = ROWS,
                         .dim = DIM,
                         .schema = schema,
                         .nlist = 2,
                         .attributes = csv,
                         .now = 20000};
    must(pd_build(&in, folder, device, NULL, NULL, &err) == PD_OK);
    pd_schema_free(schema);
    pd_calibration c = {.measured = 1, .queries = 9, .source = "file", .similarity_sd = 1};
    for (int b = 0; b < PD_BANDS; b++) {
        for (int s = 0; s < PD_SPREADS; s++) {
            c.curves[b][s].points = 1;
            c.curves[b][s].at[0].nprobe = 1;
            c.curves[b][s].at[0].recall = c.curves[b][s].at[0].lower = 0.5f;
        }
    }
    must(pd_version_set_calibration(folder, &c, &err) == PD_OK);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    strcpy(base, "/tmp/fuzz-version-XXXXXX");
    must(mkdtemp(base) != NULL);
    atexit(forget);
    snprintf(folder, sizeof folder, "%s/v", base);
    pd_error err;
    pd_device_options options = {.memory = 4u << 20, .threads = 1};
    must(pd_device_open("cpu", &options, &device, &err) == PD_OK);
    build_sound();
    for (int f = 0; f < FILES; f++) {
        void *bytes = NULL;
        must(pd_file_read(path_of(f), LARGEST, &bytes, &lengths[f], &err) == PD_OK);
        sound[f] = bytes;
        unsigned char patch[8] = {(unsigned char)f, 0, 40, 0, '7', 100, 0, 0x80};
        fuzz_seed(*argc, *argv, names[f], patch, sizeof patch);
        if (lengths[f] > 8000) continue;
        unsigned char *whole = malloc(lengths[f] + 2);
        must(whole != NULL);
        whole[0] = (unsigned char)f;
        whole[1] = 2;
        memcpy(whole + 2, sound[f], lengths[f]);
        char name[64];
        snprintf(name, sizeof name, "whole-%s", names[f]);
        fuzz_seed(*argc, *argv, name, whole, lengths[f] + 2);
        free(whole);
    }
    return 0;
}

/* A sealed file's first lines, made to fit what follows. */
static void seal(unsigned char *bytes, size_t length)
{
    char head[40];
    if (length < 32) return;
    snprintf(head, sizeof head, "{\n  \"xxh3\": \"%016llx\",\n",
             (unsigned long long)pd_sum_of(bytes + 32, length - 32));
    memcpy(bytes, head, 32);
}

/* Sums of a file of pages, one a page, into its file of sums. */
static void sum_pages(pd_manifest *m, int file, const unsigned char *bytes, size_t length)
{
    uint64_t each = file == 5 ? m->page_bytes : file == 6 ? m->refine_bytes : m->source_bytes;
    uint64_t *sums = calloc(m->npages, sizeof *sums);
    must(sums != NULL);
    for (uint32_t p = 0; p < m->npages && (p + 1) * each <= length; p++)
        sums[p] = pd_sum_of(bytes + p * each, each);
    put(file + 3, sums, m->npages * sizeof *sums);
    for (uint32_t i = 0; i < m->nfiles; i++)
        if (!strcmp(m->files[i].name, names[file + 3]))
            m->files[i].sum = pd_sum_of(sums, m->npages * sizeof *sums);
    free(sums);
}

/* Writes the changed file, and the manifest that says it is right. */
static void plant(int file, unsigned char *bytes, size_t length)
{
    if (file <= 1) seal(bytes, length);
    put(file, bytes, length);
    if (file <= 1) return;
    pd_manifest m;
    pd_error err;
    must(pd_manifest_read(path_of(0), &m, &err) == PD_OK);
    for (uint32_t i = 0; i < m.nfiles; i++) {
        if (strcmp(m.files[i].name, names[file]) != 0) continue;
        m.files[i].bytes = length;
        m.files[i].sum = pd_sum_of(bytes, length);
    }
    if (file >= 5 && file <= 7) sum_pages(&m, file, bytes, length);
    char *text;
    size_t n;
    must(pd_manifest_text(&m, &text, &n, &err) == PD_OK);
    put(0, text, n);
    free(text);
}

static void use(void)
{
    pd_error err;
    pd_version *version = NULL;
    pd_resident *resident = NULL;
    if (pd_version_open(folder, &version, &err)) return;
    const pd_version_info *info = pd_version_info_of(version);
    int reached;
    for (uint32_t k = 1; k <= 1000; k *= 10) {
        uint32_t nprobe = pd_calibrated_nprobe(info->calibration, info->shape.nlist, k, 0.2f, 0.9f, &reached);
        must(nprobe <= info->shape.nlist);
    }
    float *vector = calloc(info->shape.dim, sizeof *vector),
          *weights = calloc(info->layout.weights + 1, sizeof *weights);
    must(vector && weights);
    pd_hit hits[5];
    if (!pd_resident_open(version, device, 1, &resident, &err)) pd_random_weights(resident, 1, 0.5f, weights);
    pd_query query = {.vector = vector,
                      .similarity = 1,
                      .weights = weights,
                      .k = 5,
                      .min_score = -INFINITY,
                      .nprobe = info->shape.nlist ? 1 : 0};
    pd_answer answer = {.hits = hits};
    if (resident) pd_index_search(pd_resident_index(resident), &query, 1, &answer, NULL, &err);
    answer = (pd_answer){.hits = hits};
    pd_version_exact(version, device, &query, 1, &answer, NULL, NULL, &err);
    uint32_t slot = 3;
    if (info->npages) pd_version_source(version, &slot, 1, vector, &err);
    pd_resident_close(resident);
    pd_version_close(version);
    free(vector);
    free(weights);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > LARGEST) return 0;
    int file = data[0] % FILES;
    size_t length = lengths[file];
    unsigned char *bytes = malloc((length > size ? length : size) + 1);
    must(bytes != NULL);
    memcpy(bytes, sound[file], length);
    if (data[1] % 3 == 2) {
        length = size - 2;
        memcpy(bytes, data + 2, length);
    } else {
        for (size_t at = 2; at + 3 <= size; at += 3)
            bytes[(data[at] | (size_t)data[at + 1] << 8) % length] = data[at + 2];
        if (data[1] % 3 == 1) length = data[1] % length;
    }
    plant(file, bytes, length);
    use();
    free(bytes);
    put(0, sound[0], lengths[0]);
    put(file, sound[file], lengths[file]);
    if (file >= 5 && file <= 7) put(file + 3, sound[file + 3], lengths[file + 3]);
    return 0;
}
