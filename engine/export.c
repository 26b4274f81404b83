/* What is held about one row: see export.h. */
#include "export.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "erase_impl.h"
#include "f16.h"
#include "log.h"
#include "pados.pb-c.h"
#include "profile.h"

static pd_status no_memory(pd_error *err)
{
    return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to export a row");
}

static json_t *number_of(uint64_t value)
{
    char text[24]; /* JSON's numbers do not hold 64 bits everywhere */
    snprintf(text, sizeof text, "%" PRIu64, value);
    return json_string(text);
}

static json_t *vector_of(const float *values, uint32_t dim)
{
    json_t *array = json_array();
    for (uint32_t d = 0; array && d < dim; d++)
        json_array_append_new(array, json_real((double)values[d]));
    return array;
}

/* ------------------------------------------------------------------------------------------------- as it serves --- */

typedef struct reading {
    pd_served *served;
    uint64_t id;
    int there;
    float *vector, *floats;
    uint8_t *bytes;
    uint64_t *keys;
} reading;

static pd_status read_row(void *argument, pd_error *err)
{
    reading *r = argument;
    uint32_t slot = pd_resident_slot(r->served->resident, r->id);
    if (slot == PD_NO_SLOT) return PD_OK;
    pd_rows rows = {.vectors = r->vector, .bytes = r->bytes, .floats = r->floats, .keys = r->keys};
    r->there = 1;
    return pd_index_gather(pd_resident_index(r->served->resident), &slot, 1, &rows, err);
}

static json_t *attributes_of(const pd_schema *schema, const reading *r)
{
    json_t *out = json_object();
    char text[PD_MAX_VALUE * 8];
    for (uint32_t i = 0; out && i < schema->nattributes; i++) {
        pd_attribute_text(&schema->attributes[i], r->bytes, r->floats, r->keys, text, sizeof text);
        json_object_set_new(out, schema->attributes[i].name, json_string(text));
    }
    return out;
}

static pd_status add_serving(pd_catalog *catalog, const char *table, uint64_t id, json_t *out, int *found,
                             pd_error *err)
{
    reading r = {.id = id};
    pd_error absent;
    if (pd_catalog_hold(catalog, table, &r.served, &absent))
        return PD_OK; /* nothing serves: files may hold it */
    const pd_version_info *info = r.served->info;
    r.vector = calloc(info->shape.dim, sizeof *r.vector);
    r.bytes = calloc(info->shape.nbytes + 1, 1);
    r.floats = calloc(info->shape.nfloats + 1, sizeof *r.floats);
    r.keys = calloc(info->shape.nkeys + 1, sizeof *r.keys);
    pd_status status = r.vector && r.bytes && r.floats && r.keys
                           ? pd_executor_call(catalog->executor, read_row, &r, err)
                           : no_memory(err);
    if (!status && r.there) {
        json_t *serving =
            json_pack("{s:I, s:o, s:o}", "version", (json_int_t)r.served->number, "attributes",
                      attributes_of(info->schema, &r), "vector", vector_of(r.vector, info->shape.dim));
        if (!serving || json_object_set_new(out, "serving", serving)) status = no_memory(err);
        *found = 1;
    }
    free(r.vector);
    free(r.bytes);
    free(r.floats);
    free(r.keys);
    pd_catalog_release(r.served);
    return status;
}

/* ------------------------------------------------------------------------------------------------------- files --- */

static pd_status add_versions(pd_catalog *catalog, const char *table_name, uint64_t id, json_t *out,
                              int *found, pd_error *err)
{
    json_t *list = json_array();
    uint64_t *numbers = NULL;
    uint32_t n = 0;
    pd_status status = list && !json_object_set_new(out, "versions", list) ? PD_OK : no_memory(err);
    pthread_mutex_lock(&catalog->mutex);
    const pd_table *table = pd_table_find(catalog, table_name);
    if (table) numbers = malloc((table->nversions + 1) * sizeof *numbers);
    for (uint32_t i = 0; numbers && i < table->nversions; i++)
        numbers[n++] = table->versions[i].number;
    if (table && !numbers) status = no_memory(err);
    pthread_mutex_unlock(&catalog->mutex);
    for (uint32_t i = 0; !status && i < n; i++) {
        char folder[PD_PATH_ROOM];
        uint32_t slot = PD_NO_SLOT;
        pd_version *version = NULL;
        pd_version_folder(catalog, table_name, numbers[i], folder);
        status = pd_version_open(folder, &version, err);
        if (!status) status = pd_version_find(version, &id, 1, &slot, err);
        pd_version_close(version);
        if (status == PD_NOT_FOUND) status = PD_OK; /* it was removed meanwhile */
        if (slot == PD_NO_SLOT) continue;
        json_array_append_new(list, json_integer((json_int_t)numbers[i]));
        *found = 1;
    }
    free(numbers);
    return status;
}

/* -------------------------------------------------------------------------------------------------------- log --- */

typedef struct finding {
    uint64_t id;
    json_t *list;
    int found;
} finding;

static json_t *cells_of(const pd_batch *b, uint32_t row)
{
    json_t *out = json_object();
    for (size_t a = 0; out && a < b->attributes->n_attributes; a++) {
        const Pados__V1__AttributeValues *cells = b->attributes->attributes[a];
        json_t *value = NULL;
        if (cells->numbers.len >= (row + 1ull) * sizeof(float)) {
            float number;
            memcpy(&number, cells->numbers.data + row * sizeof number, sizeof number);
            value = isfinite(number) ? json_real((double)number) : json_null();
        } else if (row < cells->n_keys) {
            value = number_of(cells->keys[row]);
        } else if (cells->n_text_of ? row < cells->n_text_of && cells->text_of[row] < cells->n_texts
                                    : row < cells->n_texts) {
            value = json_string(cells->texts[cells->n_text_of ? cells->text_of[row] : row]);
        } else if (b->kind == PD_BATCH_COUNT) {
            double counter;
            memcpy(&counter, b->vectors + row * sizeof counter, sizeof counter);
            value = isfinite(counter) ? json_real(counter) : json_null();
        }
        if (value) json_object_set_new(out, cells->attribute, value);
    }
    return out;
}

static pd_status find_record(void *context, const pd_record *record, pd_error *err)
{
    static const char *const kinds[] = {"", "upsert", "update", "delete", "count", "erase"};
    finding *f = context;
    pd_batch *b = NULL;
    pd_status status = pd_batch_of_record(record, &b, err);
    if (status == PD_DATA_LOSS) return PD_OK; /* it is reported where it is followed */
    if (status) return status;
    for (uint32_t i = 0; i < b->n; i++) {
        if (b->ids[i] != f->id) continue;
        json_t *one = json_pack("{s:o, s:s, s:f, s:o}", "sequence", number_of(record->sequence), "kind",
                                kinds[b->kind], "day", record->time, "attributes", cells_of(b, i));
        float *vector = b->kind == PD_BATCH_UPSERT ? malloc(b->dim * sizeof *vector) : NULL;
        if (vector && pd_record_row(record, i, PD_IP, b->dim, vector, err) == PD_OK)
            json_object_set_new(one, "vector", vector_of(vector, b->dim));
        free(vector);
        if (!one || json_array_append_new(f->list, one)) status = no_memory(err);
        f->found = 1;
    }
    pd_batch_free(b);
    return status;
}

static void pass_over(void *context, uint64_t sequence, const char *why)
{
    (void)context;
    pd_log(PD_LOG_WARNING, "an export passes over change %" PRIu64 ": %s", sequence, why);
}

static pd_status add_changes(pd_catalog *catalog, const char *table, uint64_t id, json_t *out, int *found,
                             pd_error *err)
{
    finding f = {.id = id, .list = json_array()};
    if (!f.list || json_object_set_new(out, "changes", f.list)) return no_memory(err);
    pd_status status =
        pd_changes_read(catalog->changes, table, 1, UINT64_MAX, find_record, pass_over, &f, err);
    *found |= f.found;
    return status;
}

typedef struct erased {
    const char *table;
    uint64_t id;
    json_t *list;
} erased;

static pd_status find_receipt(void *context, pd_receipt *r, pd_error *err)
{
    erased *e = context;
    char *text = NULL;
    if (r->id != e->id || strcmp(r->table, e->table)) return PD_OK;
    pd_status status = pd_receipt_text(r, &text, err);
    if (!status) json_array_append_new(e->list, json_loads(text, 0, NULL));
    free(text);
    return status;
}

pd_status pd_export_row(pd_catalog *catalog, const char *table, uint64_t id, char **json, pd_error *err)
{
    int found = 0;
    pd_status status = pd_name_check("table", table, err);
    if (status) return status;
    pthread_mutex_lock(&catalog->mutex);
    int known = pd_table_find(catalog, table) != NULL;
    pthread_mutex_unlock(&catalog->mutex);
    if (!known) return pd_fail(err, PD_NOT_FOUND, "there is no table \"%s\"", table);
    json_t *out = json_pack("{s:s, s:o}", "table", table, "id", number_of(id));
    erased e = {.table = table, .id = id, .list = json_array()};
    if (!out || !e.list) status = no_memory(err);
    if (!status) status = add_serving(catalog, table, id, out, &found, err);
    if (!status) status = add_versions(catalog, table, id, out, &found, err);
    if (!status) status = add_changes(catalog, table, id, out, &found, err);
    /* In this order, so that one that is finished meanwhile is told twice rather than not at all. */
    if (!status) status = pd_receipts(catalog, PD_RECEIPTS, 0, find_receipt, &e, err);
    if (!status) status = pd_receipts(catalog, PD_FINISHED, 0, find_receipt, &e, err);
    if (!status && json_object_set(out, "erasures", e.list)) status = no_memory(err);
    if (!status && !found && json_array_size(e.list) == 0)
        status = pd_fail(err, PD_NOT_FOUND, "nothing is held about row %" PRIu64 " of \"%s\"", id, table);
    if (!status) {
        *json = json_dumps(out, JSON_COMPACT | JSON_REAL_PRECISION(9));
        if (!*json) status = no_memory(err);
    }
    json_decref(e.list);
    json_decref(out);
    return status;
}
