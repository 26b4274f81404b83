/* The readers over arbitrary files: the first byte picks the format, the rest is the file.
 *
 * HDF5 and FAISS files are left out: their libraries' own faults would be all that is found. Beside not crashing, a
 * file that opens must read the same in one call and in pieces.
 */
#include "fuzz_seeds.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "reader.h"

static const pd_format formats[] = {PD_FORMAT_NPY,  PD_FORMAT_FBIN,  PD_FORMAT_U8BIN, PD_FORMAT_I8BIN,
                                    PD_FORMAT_IBIN, PD_FORMAT_FVECS, PD_FORMAT_BVECS, PD_FORMAT_IVECS};
#define FORMAT_COUNT (sizeof formats / sizeof formats[0])
#define IDS          FORMAT_COUNT /* and the one behind them: a file of ids */

static char path[64];
static int fd = -1;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    fd = memfd_create("fuzz", 0);
    if (fd < 0) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    static const char text[] = "\x08"
                               "7\n0\r\n 18446744073709551615\n";
    fuzz_seed(*argc, *argv, "ids", text, sizeof text - 1);
    for (size_t i = 0; i < FORMAT_COUNT; i++) {
        unsigned char seed[256] = {(unsigned char)i};
        size_t length = 1;
        if (formats[i] == PD_FORMAT_NPY) {
            static const char head[] =
                "\x93NUMPY\x01\x00\x46\x00"
                "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }          \n";
            memcpy(seed + 1, head, sizeof head - 1);
            length += sizeof head - 1 + 24;
        } else if (formats[i] >= PD_FORMAT_FVECS) {
            seed[1] = 2;
            length += 4 + 2 * (formats[i] == PD_FORMAT_BVECS ? 1 : 4);
        } else {
            seed[1] = 2;
            seed[5] = 3;
            length += 8 + 6 * (formats[i] == PD_FORMAT_U8BIN || formats[i] == PD_FORMAT_I8BIN ? 1 : 4);
        }
        fuzz_seed(*argc, *argv, pd_format_name(formats[i]), seed, length);
    }
    return 0;
}

static void put_file(const uint8_t *data, size_t size)
{
    if (ftruncate(fd, 0) != 0) abort();
    if (size && pwrite(fd, data, size, 0) != (ssize_t)size) abort();
}

/* All rows by read, `step` at a time, into out; how many came before the end or an error. */
static uint64_t read_all(pd_reader *reader, int as_i64, uint64_t step, size_t row_bytes, void *out)
{
    uint64_t done = 0, got;
    pd_error err;
    if (pd_reader_rewind(reader, &err)) abort();
    do {
        void *to = (unsigned char *)out + done * row_bytes;
        pd_status status = as_i64 ? pd_reader_read_i64(reader, step, to, &got, &err)
                                  : pd_reader_read_f32(reader, step, to, &got, &err);
        if (status && (!err.message[0] || err.status != status)) abort();
        done += got;
    } while (got);
    return done;
}

static void read_both_ways(pd_reader *reader, const pd_reader_info *info, int as_i64)
{
    size_t row_bytes = info->dim * (as_i64 ? sizeof(int64_t) : sizeof(float));
    unsigned char *whole = calloc(info->rows + 1, row_bytes), *pieces = calloc(info->rows + 1, row_bytes);
    if (!whole || !pieces) abort(); /* a file of this size promises no more rows than fit */
    uint64_t at_once = read_all(reader, as_i64, UINT64_MAX, row_bytes, whole);
    uint64_t by_three = read_all(reader, as_i64, 3, row_bytes, pieces);
    if (by_three < at_once || (at_once && at_once != info->rows)) abort();
    if (memcmp(whole, pieces, at_once * row_bytes) != 0) abort();
    free(whole);
    free(pieces);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || data[0] > IDS) return -1;
    put_file(data + 1, size - 1);
    pd_error err = {0};
    if (data[0] == IDS) {
        uint64_t *ids, count;
        if (pd_read_ids(path, &ids, &count, &err) && !err.message[0]) abort();
        free(ids);
        return 0;
    }
    pd_reader *reader;
    if (pd_reader_open(path, formats[data[0]], &reader, &err)) {
        if (reader || !err.message[0]) abort();
        return 0;
    }
    pd_reader_info info;
    pd_reader_info_of(reader, &info);
    if (info.dim == 0) abort();
    if (info.rows) {
        read_both_ways(reader, &info, 0);
        read_both_ways(reader, &info, 1);
    }
    pd_reader_close(reader);
    return 0;
}
