/* Sealed JSON and the manifest.
 *
 * The manifest is the only file of a version that is believed by itself; it holds the length and the sum of every
 * other one. It is believed no further than its numbers stay within bounds: whatever is allocated by it later is
 * first compared with the length of a file that is really there.
 */
#include "manifest.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"

#define MANIFEST_LIMIT (64u << 10)
#define HEAD_BYTES     32u /* "{\n" and the line of the sum */

pd_status pd_sealed_text(const json_t *body, char **text, size_t *length, pd_error *err)
{
    char *dump = json_dumps(body, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    if (!dump) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to write JSON");
    size_t bytes = strlen(dump);
    char *whole = bytes > 2 ? malloc(HEAD_BYTES + bytes + 2) : NULL;
    if (!whole) {
        free(dump);
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to write JSON");
    }
    /* The dump begins with "{\n", which the head replaces. */
    char *rest = whole + HEAD_BYTES;
    size_t left = bytes - 2;
    memcpy(rest, dump + 2, left);
    rest[left++] = '\n';
    rest[left] = 0;
    free(dump);
    char head[HEAD_BYTES + 1];
    snprintf(head, sizeof head, "{\n  \"xxh3\": \"%016" PRIx64 "\",\n", pd_sum_of(rest, left));
    memcpy(whole, head, HEAD_BYTES);
    *text = whole;
    *length = HEAD_BYTES + left;
    return PD_OK;
}

pd_status pd_sealed_read(const char *path, uint64_t limit, json_t **body, pd_error *err)
{
    void *bytes = NULL;
    size_t length = 0;
    pd_status status = pd_file_read(path, limit, &bytes, &length, err);
    if (status) return status;
    const char *text = bytes;
    json_t *root = NULL;
    char head[HEAD_BYTES + 1];
    if (length <= HEAD_BYTES) {
        status = pd_fail(err, PD_DATA_LOSS, "%s is cut short", path);
        goto err_after_read;
    }
    snprintf(head, sizeof head, "{\n  \"xxh3\": \"%016" PRIx64 "\",\n",
             pd_sum_of(text + HEAD_BYTES, length - HEAD_BYTES));
    if (memcmp(head, text, HEAD_BYTES) != 0) {
        status = pd_fail(err, PD_DATA_LOSS, "%s does not match its checksum", path);
        goto err_after_read;
    }
    json_error_t where;
    root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &where);
    if (!json_is_object(root)) {
        json_decref(root);
        status = pd_fail(err, PD_DATA_LOSS, "%s is not a JSON object: %s", path, where.text);
        goto err_after_read;
    }
    *body = root;

err_after_read:
    free(bytes);
    return status;
}

/* ------------------------------------------------------------------------------------------------ the manifest --- */

static json_t *sum_json(uint64_t sum)
{
    char text[17];
    snprintf(text, sizeof text, "%016" PRIx64, sum);
    return json_string(text);
}

static json_t *files_json(const pd_manifest *m)
{
    json_t *files = json_object();
    for (uint32_t i = 0; files && i < m->nfiles; i++) {
        json_t *entry = json_pack("{s:I, s:o}", "bytes", (json_int_t)m->files[i].bytes, "xxh3",
                                  sum_json(m->files[i].sum));
        if (!entry || json_object_set_new(files, m->files[i].name, entry) != 0) {
            json_decref(files);
            return NULL;
        }
    }
    return files;
}

pd_status pd_manifest_text(const pd_manifest *m, char **text, size_t *length, pd_error *err)
{
    json_t *files = files_json(m);
    if (!files) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to write the manifest");
    json_t *root = json_pack(
        "{s:i, s:s, s:I, s:f, s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:s, s:I, s:I, s:I, s:I, s:f, s:f, s:f, "
        "s:o}",
        "format", PD_FORMAT_NUMBER, "table", m->table, "version", (json_int_t)m->version, "created",
        m->created, "rows", (json_int_t)m->rows, "seed", sum_json(m->seed), "sequence",
        (json_int_t)m->sequence, "parent", (json_int_t)m->parent, "dim", (json_int_t)m->dim, "code_dim",
        (json_int_t)m->code_dim, "nlist", (json_int_t)m->nlist, "refine", pd_refine_name(m->refine), "npages",
        (json_int_t)m->npages, "page_bytes", (json_int_t)m->page_bytes, "refine_bytes",
        (json_int_t)m->refine_bytes, "source_bytes", (json_int_t)m->source_bytes, "beta", (double)m->beta,
        "similarity_sd", (double)m->similarity_sd, "residual_sd", (double)m->residual_sd, "files", files);
    if (!root) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to write the manifest");
    pd_status status = pd_sealed_text(root, text, length, err);
    json_decref(root);
    return status;
}

/* Getters that set *bad rather than return: one look at the end is enough. */
static uint64_t get_int(const json_t *in, const char *key, uint64_t high, const char **bad)
{
    const json_t *value = json_object_get(in, key);
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        (uint64_t)json_integer_value(value) > high) {
        if (!*bad) *bad = key;
        return 0;
    }
    return (uint64_t)json_integer_value(value);
}

static double get_real(const json_t *in, const char *key, double high, const char **bad)
{
    const json_t *value = json_object_get(in, key);
    double number = json_number_value(value);
    if (!json_is_number(value) || !(number >= 0 && number <= high)) {
        if (!*bad) *bad = key;
        return 0;
    }
    return number;
}

static uint64_t get_sum(const json_t *in, const char *key, const char **bad)
{
    const char *text = json_string_value(json_object_get(in, key));
    uint64_t sum = 0;
    if (!text || strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16 ||
        sscanf(text, "%" SCNx64, &sum) != 1) {
        if (!*bad) *bad = key;
        return 0;
    }
    return sum;
}

static void get_files(const json_t *root, pd_manifest *m, const char **bad)
{
    json_t *files = json_object_get(root, "files");
    if (!json_is_object(files) || json_object_size(files) > PD_MANIFEST_FILES) {
        if (!*bad) *bad = "files";
        return;
    }
    const char *name;
    json_t *entry;
    json_object_foreach(files, name, entry)
    {
        pd_file_entry *file = &m->files[m->nfiles];
        if (strlen(name) >= sizeof file->name || !json_is_object(entry)) {
            if (!*bad) *bad = "files";
            return;
        }
        memcpy(file->name, name, strlen(name) + 1);
        file->bytes = get_int(entry, "bytes", INT64_MAX, bad);
        file->sum = get_sum(entry, "xxh3", bad);
        m->nfiles++;
    }
}

pd_status pd_manifest_read(const char *path, pd_manifest *m, pd_error *err)
{
    memset(m, 0, sizeof *m);
    json_t *root = NULL;
    pd_status status = pd_sealed_read(path, MANIFEST_LIMIT, &root, err);
    if (status) return status;
    const char *bad = NULL;
    if (get_int(root, "format", INT32_MAX, &bad) != PD_FORMAT_NUMBER) {
        json_decref(root);
        return pd_fail(err, PD_DATA_LOSS, "%s is of a format that this program does not read (it reads %d)",
                       path, PD_FORMAT_NUMBER);
    }
    const char *table = json_string_value(json_object_get(root, "table"));
    if (!table || strlen(table) > PD_MAX_NAME || pd_name_check("table", table, NULL) != PD_OK)
        bad = "table";
    else
        memcpy(m->table, table, strlen(table) + 1);
    m->version = get_int(root, "version", INT64_MAX, &bad);
    m->created = get_real(root, "created", 1e9, &bad);
    m->rows = get_int(root, "rows", (uint64_t)PD_MAX_PAGES * PD_PAGE_ROWS, &bad);
    m->seed = get_sum(root, "seed", &bad);
    /* Versions of before tables changed do not say. */
    if (json_object_get(root, "sequence")) m->sequence = get_int(root, "sequence", INT64_MAX, &bad);
    if (json_object_get(root, "parent")) m->parent = get_int(root, "parent", INT64_MAX, &bad);
    m->dim = (uint32_t)get_int(root, "dim", PD_MAX_DIM, &bad);
    /* Versions of before codes could have fewer dimensions do not say. */
    m->code_dim = m->dim;
    if (json_object_get(root, "code_dim")) m->code_dim = (uint32_t)get_int(root, "code_dim", m->dim, &bad);
    m->nlist = (uint32_t)get_int(root, "nlist", PD_MAX_NLIST, &bad);
    const char *refine = json_string_value(json_object_get(root, "refine"));
    m->refine_said = json_object_get(root, "refine") != NULL;
    if (m->refine_said && (!refine || pd_refine_parse(refine, &m->refine, NULL) != PD_OK) && !bad)
        bad = "refine";
    m->npages = (uint32_t)get_int(root, "npages", PD_MAX_PAGES, &bad);
    m->page_bytes = get_int(root, "page_bytes", 1u << 24, &bad);
    m->refine_bytes = get_int(root, "refine_bytes", 1u << 24, &bad);
    m->source_bytes = get_int(root, "source_bytes", 1u << 24, &bad);
    m->beta = (float)get_real(root, "beta", 1e30, &bad);
    m->similarity_sd = (float)get_real(root, "similarity_sd", 1e30, &bad);
    m->residual_sd = (float)get_real(root, "residual_sd", 1e30, &bad);
    get_files(root, m, &bad);
    if (!bad && m->code_dim == 0) bad = "code_dim";
    if (!bad && (m->dim == 0 || m->rows > (uint64_t)m->npages * PD_PAGE_ROWS)) bad = "rows";
    /* The message copies the key before the tree that it may point into goes away. */
    if (bad) status = pd_fail(err, PD_DATA_LOSS, "%s: \"%s\" is missing or out of bounds", path, bad);
    json_decref(root);
    return status;
}

const pd_file_entry *pd_manifest_file(const pd_manifest *m, const char *name)
{
    for (uint32_t i = 0; i < m->nfiles; i++)
        if (!strcmp(m->files[i].name, name)) return &m->files[i];
    return NULL;
}
