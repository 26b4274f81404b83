/* Data sets of HDF5 files, as ann-benchmarks publishes them: "train", "test", "neighbors".
 *
 * Rows are read by hyperslabs, so that the library's own chunk cache is all that is held. The library converts the
 * file's byte order to ours. It keeps its state and its error stack in globals: one mutex guards every call, and the
 * stack is never printed, its innermost sentence goes into our error instead.
 */
#include "reader_impl.h"

#include <hdf5.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const unsigned char signature[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};

static pthread_mutex_t library = PTHREAD_MUTEX_INITIALIZER;

typedef struct hdf5_file {
    hid_t file;
    hid_t set;
    hid_t memory_type; /* one of the library's own: not to be closed */
    int dims;
} hdf5_file;

static int hdf5_claims(const unsigned char *head, size_t length)
{
    return length >= sizeof signature && memcmp(head, signature, sizeof signature) == 0;
}

static herr_t first_words(unsigned n, const H5E_error2_t *error, void *out)
{
    (void)n;
    const char **words = out;
    *words = error->desc;
    return 1; /* stop */
}

/* Fills err with what the library last complained of. */
static pd_status library_failed(const pd_reader *reader, const char *doing, pd_error *err)
{
    const char *words = NULL;
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, first_words, &words);
    pd_status status = pd_fail(err, PD_DATA_LOSS, "%s: cannot %s: HDF5 says: %s", reader->path, doing,
                               words ? words : "nothing");
    H5Eclear2(H5E_DEFAULT);
    return status;
}

/* ---- which data set ---- */

typedef struct member_list {
    char names[256]; /* for messages: "\"test\", \"train\"" */
    char only[128];  /* the last 2-d one seen */
    int matrices;
} member_list;

/* The number of dimensions of the data set called name, -1 when it is not one. */
static int dims_of(hid_t file, const char *name)
{
    H5O_info_t info;
    if (H5Oget_info_by_name(file, name, &info, H5P_DEFAULT) < 0 || info.type != H5O_TYPE_DATASET) return -1;
    hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
    if (set < 0) return -1;
    hid_t space = H5Dget_space(set);
    int dims = space < 0 ? -1 : H5Sget_simple_extent_ndims(space);
    if (space >= 0) H5Sclose(space);
    H5Dclose(set);
    return dims;
}

static herr_t list_member(hid_t file, const char *name, const H5L_info_t *info, void *out)
{
    (void)info;
    member_list *list = out;
    int dims = dims_of(file, name);
    if (dims < 0) return 0;
    size_t used = strlen(list->names);
    snprintf(list->names + used, sizeof list->names - used, "%s\"%s\"", used ? ", " : "", name);
    if (dims == 2 && strlen(name) < sizeof list->only) {
        list->matrices++;
        strcpy(list->only, name);
    }
    return 0;
}

static pd_status choose_member(pd_reader *reader, hid_t file, pd_error *err)
{
    const char *wanted = reader->member ? reader->member : "train";
    if (*wanted && dims_of(file, wanted) >= 0) {
        if (!reader->member) reader->member = strdup(wanted);
        if (!reader->member) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory", reader->path);
        return PD_OK;
    }
    member_list list = {0};
    H5Literate(file, H5_INDEX_NAME, H5_ITER_INC, NULL, list_member, &list);
    H5Eclear2(H5E_DEFAULT);
    if (reader->member)
        return pd_fail(err, PD_NOT_FOUND, "%s: has no data set \"%s\"; it has %s", reader->path,
                       reader->member, list.names[0] ? list.names : "none");
    if (list.matrices != 1)
        return pd_fail(err, PD_NOT_FOUND, "%s: has no data set \"train\" and %s of two dimensions; it has %s",
                       reader->path, list.matrices ? "more than one" : "none",
                       list.names[0] ? list.names : "none");
    reader->member = strdup(list.only);
    if (!reader->member) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory", reader->path);
    return PD_OK;
}

/* ---- its type and shape ---- */

static pd_status choose_dtype(pd_reader *reader, hdf5_file *self, pd_error *err)
{
    hid_t type = H5Dget_type(self->set);
    if (type < 0) return library_failed(reader, "read a data set's type", err);
    H5T_class_t class = H5Tget_class(type);
    size_t size = H5Tget_size(type);
    int is_signed = class == H5T_INTEGER && H5Tget_sign(type) == H5T_SGN_2;
    H5Tclose(type);
    if (class == H5T_FLOAT && (size == 4 || size == 2)) {
        /* HDF5 has no half type to read into, but it widens any IEEE layout exactly. */
        reader->info.dtype = PD_DTYPE_F32;
        self->memory_type = H5T_NATIVE_FLOAT;
    } else if (class == H5T_INTEGER && size == 1) {
        reader->info.dtype = is_signed ? PD_DTYPE_I8 : PD_DTYPE_U8;
        self->memory_type = is_signed ? H5T_NATIVE_INT8 : H5T_NATIVE_UINT8;
    } else if (class == H5T_INTEGER && size == 4 && is_signed) {
        reader->info.dtype = PD_DTYPE_I32;
        self->memory_type = H5T_NATIVE_INT32;
    } else if (class == H5T_INTEGER && size == 8 && !is_signed) {
        reader->info.dtype = PD_DTYPE_U64;
        self->memory_type = H5T_NATIVE_UINT64;
    } else if (class == H5T_INTEGER && size <= 8) {
        reader->info.dtype = PD_DTYPE_I64;
        self->memory_type = H5T_NATIVE_INT64;
    } else {
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "%s: data set \"%s\" holds %s of %zu bytes; floats of 2 or 4 and integers are read",
                       reader->path, reader->member,
                       class == H5T_FLOAT     ? "floats"
                       : class == H5T_INTEGER ? "integers"
                                              : "values that are not numbers,",
                       size);
    }
    return PD_OK;
}

static pd_status choose_shape(pd_reader *reader, hdf5_file *self, pd_error *err)
{
    hid_t space = H5Dget_space(self->set);
    if (space < 0) return library_failed(reader, "read a data set's shape", err);
    hsize_t shape[2] = {0, 1};
    self->dims = H5Sget_simple_extent_ndims(space);
    int fits = (self->dims == 1 || self->dims == 2) && H5Sget_simple_extent_dims(space, shape, NULL) >= 0;
    H5Sclose(space);
    if (!fits)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s: data set \"%s\" has %d dimensions; 1 or 2 are read",
                       reader->path, reader->member, self->dims);
    if (shape[1] == 0 || shape[1] > UINT32_MAX || shape[0] > INT64_MAX / 8 / shape[1])
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s: data set \"%s\" has %llu rows of %llu values",
                       reader->path, reader->member, (unsigned long long)shape[0],
                       (unsigned long long)shape[1]);
    reader->info.rows = shape[0];
    reader->info.dim = (uint32_t)shape[1];
    return PD_OK;
}

static pd_status open_locked(pd_reader *reader, hdf5_file *self, pd_error *err)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    self->file = H5Fopen(reader->path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (self->file < 0) return library_failed(reader, "open", err);
    pd_status status = choose_member(reader, self->file, err);
    if (status) goto err_after_file;
    self->set = H5Dopen2(self->file, reader->member, H5P_DEFAULT);
    if (self->set < 0) {
        status = library_failed(reader, "open a data set", err);
        goto err_after_file;
    }
    status = choose_dtype(reader, self, err);
    if (status == PD_OK) status = choose_shape(reader, self, err);
    if (status == PD_OK) return PD_OK;

    H5Dclose(self->set);
err_after_file:
    H5Fclose(self->file);
    return status;
}

static pd_status hdf5_open(pd_reader *reader, pd_error *err)
{
    unsigned char head[sizeof signature] = {0};
    if (reader->file_bytes >= sizeof head) {
        pd_status status = pd_reader_bytes(reader, 0, sizeof head, head, err);
        if (status) return status;
    }
    if (!hdf5_claims(head, sizeof head))
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s: not an HDF5 file: it does not begin with its signature",
                       reader->path);
    hdf5_file *self = malloc(sizeof *self);
    if (!self) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory", reader->path);
    pthread_mutex_lock(&library);
    pd_status status = open_locked(reader, self, err);
    pthread_mutex_unlock(&library);
    if (status) {
        free(self);
        return status;
    }
    reader->self = self;
    return PD_OK;
}

static pd_status read_locked(pd_reader *reader, const hdf5_file *self, uint64_t first, uint64_t count,
                             void *rows, pd_error *err)
{
    hsize_t start[2] = {first, 0}, extent[2] = {count, reader->info.dim};
    hid_t in_file = H5Dget_space(self->set);
    if (in_file < 0) return library_failed(reader, "read rows", err);
    pd_status status = PD_OK;
    hid_t in_memory = H5Screate_simple(self->dims, extent, NULL);
    if (in_memory < 0) {
        status = library_failed(reader, "read rows", err);
        goto out_after_in_file;
    }
    if (H5Sselect_hyperslab(in_file, H5S_SELECT_SET, start, NULL, extent, NULL) < 0 ||
        H5Dread(self->set, self->memory_type, in_memory, in_file, H5P_DEFAULT, rows) < 0) {
        status = library_failed(reader, "read rows", err);
        pd_prefix(err, "rows %" PRIu64 " to %" PRIu64, first, first + count - 1);
    }
    H5Sclose(in_memory);
out_after_in_file:
    H5Sclose(in_file);
    return status;
}

static pd_status hdf5_read(pd_reader *reader, uint64_t first, uint64_t count, void *rows, pd_error *err)
{
    pthread_mutex_lock(&library);
    pd_status status = read_locked(reader, reader->self, first, count, rows, err);
    pthread_mutex_unlock(&library);
    return status;
}

static void hdf5_close(pd_reader *reader)
{
    hdf5_file *self = reader->self;
    pthread_mutex_lock(&library);
    H5Dclose(self->set);
    H5Fclose(self->file);
    pthread_mutex_unlock(&library);
    free(self);
}

const pd_reader_ops pd_reader_hdf5 = {
    .claims = hdf5_claims, .open = hdf5_open, .read = hdf5_read, .close = hdf5_close, .has_members = 1};
