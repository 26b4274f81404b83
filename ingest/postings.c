/* Postings are filled while the pages stream by, in slot order, so that no list needs sorting.
 *
 * A category value or set member has a growing array, dropped once the value proves frequent. Keys may be as many as
 * rows; they get numbers, and a counting sort at the end lays all their lists into one array.
 */
#include "postings.h"

#include <stdlib.h>
#include <string.h>

#define NO_NUMBER UINT32_MAX

static uint32_t places_of(const pd_attribute *attribute)
{
    return attribute->type == PD_CATEGORY ? 256 : attribute->type == PD_SET ? PD_MAX_MEMBERS : 0;
}

pd_status pd_postings_open(pd_postings *p, const pd_schema *schema, const pd_layout *layout, uint64_t rows,
                           uint32_t npages, pd_error *err)
{
    memset(p, 0, sizeof *p);
    p->schema = schema;
    p->layout = layout;
    p->frequent = rows / 8 + 1024;
    p->nslots = (uint64_t)npages * PD_PAGE_ROWS;
    p->histograms = calloc((size_t)layout->weights + 1, sizeof *p->histograms);
    p->marks = calloc((size_t)p->nslots / 64 + 1, sizeof *p->marks);
    int enough = p->histograms && p->marks;
    for (uint32_t i = 0; enough && i < schema->nattributes; i++) {
        const pd_attribute *attribute = &schema->attributes[i];
        if (attribute->type == PD_KEY) {
            pd_key_postings *keys = &p->keys[attribute->key_column];
            pd_status status = pd_idmap_open(&keys->numbers, rows, err);
            if (status) {
                pd_postings_close(p);
                return status;
            }
            keys->counts = calloc((size_t)rows + 1, sizeof *keys->counts);
            keys->number_of = malloc(((size_t)p->nslots + 1) * sizeof *keys->number_of);
            enough = keys->counts && keys->number_of;
            if (enough) memset(keys->number_of, 0xff, ((size_t)p->nslots + 1) * sizeof *keys->number_of);
        } else if (attribute->type == PD_NUMBER && !attribute->counts) {
            pd_status status = pd_ranges_open(&p->numbers[attribute->float_column], p->nslots, err);
            if (status) {
                pd_postings_close(p);
                return status;
            }
        } else if (places_of(attribute)) {
            p->values[i] = calloc(places_of(attribute), sizeof *p->values[i]);
            enough = p->values[i] != NULL;
        }
    }
    if (enough) return PD_OK;
    pd_postings_close(p);
    return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the postings of %llu rows",
                   (unsigned long long)rows);
}

static pd_status posting_add(const pd_postings *p, pd_posting *list, uint32_t slot, pd_error *err)
{
    list->count++;
    if (list->count > p->frequent) {
        free(list->slots);
        list->slots = NULL;
        list->length = list->room = 0;
        list->frequent = 1;
        return PD_OK;
    }
    if (list->count > list->room) {
        uint64_t room = list->room ? list->room * 2 : 16;
        uint32_t *slots = realloc(list->slots, room * sizeof *slots);
        if (!slots) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a posting list");
        list->slots = slots;
        list->room = room;
    }
    list->slots[list->length++] = slot;
    return PD_OK;
}

static pd_status add_attribute(pd_postings *p, uint32_t i, const void *page, uint32_t slot, pd_error *err)
{
    const pd_attribute *attribute = &p->schema->attributes[i];
    uint32_t row = slot % PD_PAGE_ROWS;
    void *bytes = (void *)page; /* the page's accessors serve writers too */
    if (attribute->type == PD_CATEGORY)
        return posting_add(p, &p->values[i][pd_page_bytes(p->layout, bytes, attribute->byte_column)[row]],
                           slot, err);
    if (attribute->type == PD_SET) {
        pd_status status = PD_OK;
        for (uint32_t j = 0; j < 8; j++) {
            uint8_t plane = pd_page_bytes(p->layout, bytes, attribute->byte_column + j)[row];
            for (; !status && plane; plane &= (uint8_t)(plane - 1))
                status = posting_add(p, &p->values[i][8 * j + (uint32_t)__builtin_ctz(plane)], slot, err);
        }
        return status;
    }
    if (attribute->type == PD_NUMBER && !attribute->counts) {
        uint32_t column = attribute->float_column;
        p->numbers[column].values[slot] = pd_page_floats(p->layout, bytes, column)[row];
    }
    if (attribute->type == PD_KEY) {
        pd_key_postings *keys = &p->keys[attribute->key_column];
        uint64_t key = pd_page_keys(p->layout, bytes, attribute->key_column)[row];
        if (key == 0) return PD_OK;
        uint32_t fresh = (uint32_t)keys->numbers.count;
        uint32_t number = pd_idmap_put(&keys->numbers, key, fresh);
        if (number == PD_IDMAP_NONE) number = fresh;
        keys->counts[number]++;
        keys->number_of[slot] = number;
    }
    return PD_OK;
}

pd_status pd_postings_add(pd_postings *p, const void *page, uint32_t slot, pd_error *err)
{
    const pd_layout *layout = p->layout;
    for (uint32_t c = 0; c < p->schema->nbytes; c++) {
        uint32_t at = layout->weight_at[c],
                 end = c + 1 < p->schema->nbytes ? layout->weight_at[c + 1] : layout->weights;
        if (at == end) continue;
        uint8_t value = pd_page_bytes(layout, (void *)page, c)[slot % PD_PAGE_ROWS];
        p->histograms[at + value]++;
        if (value >= p->used[c]) p->used[c] = (uint16_t)(value + 1);
    }
    pd_status status = PD_OK;
    for (uint32_t i = 0; !status && i < p->schema->nattributes; i++)
        status = add_attribute(p, i, page, slot, err);
    return status;
}

/* Lays the lists of a key column into one array. */
static pd_status finish_keys(const pd_postings *p, pd_key_postings *keys, pd_error *err)
{
    uint64_t n = keys->numbers.count;
    keys->offsets = calloc((size_t)n + 2, sizeof *keys->offsets);
    if (!keys->offsets)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the postings of %llu keys",
                       (unsigned long long)n);
    /* offsets[k + 1] is where key k is being filled; it ends as the start of key k + 1. */
    uint64_t sum = 0;
    for (uint64_t k = 0; k < n; k++) {
        keys->offsets[k + 1] = sum;
        sum += keys->counts[k] <= p->frequent ? keys->counts[k] : 0;
    }
    keys->slots = malloc(((size_t)sum + 1) * sizeof *keys->slots);
    if (!keys->slots)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the postings of %llu keys",
                       (unsigned long long)n);
    for (uint64_t slot = 0; slot < p->nslots; slot++) {
        uint32_t k = keys->number_of[slot];
        if (k != NO_NUMBER && keys->counts[k] <= p->frequent)
            keys->slots[keys->offsets[k + 1]++] = (uint32_t)slot;
    }
    free(keys->number_of);
    keys->number_of = NULL;
    /* Room was made for as many keys as rows. */
    uint64_t *counts = realloc(keys->counts, ((size_t)n + 1) * sizeof *counts);
    if (counts) keys->counts = counts;
    return PD_OK;
}

pd_status pd_postings_finish(pd_postings *p, pd_error *err)
{
    pd_status status = PD_OK;
    for (uint32_t c = 0; !status && c < p->schema->nkeys; c++)
        status = finish_keys(p, &p->keys[c], err);
    for (uint32_t c = 0; !status && c < p->schema->nfloats; c++)
        if (p->numbers[c].values) status = pd_ranges_finish(&p->numbers[c], err);
    return status;
}

void pd_postings_close(pd_postings *p)
{
    pd_postings_close_changes(p);
    for (uint32_t i = 0; i < PD_MAX_ATTRIBUTES; i++) {
        for (uint32_t v = 0; p->values[i] && v < places_of(&p->schema->attributes[i]); v++)
            free(p->values[i][v].slots);
        free(p->values[i]);
    }
    for (uint32_t c = 0; c < PD_MAX_KEYS; c++) {
        pd_key_postings *keys = &p->keys[c];
        pd_idmap_close(&keys->numbers);
        free(keys->counts);
        free(keys->offsets);
        free(keys->slots);
        free(keys->number_of);
    }
    for (uint32_t c = 0; c < PD_MAX_FLOATS; c++)
        pd_ranges_close(&p->numbers[c]);
    free(p->marks);
    free(p->histograms);
    memset(p, 0, sizeof *p);
}

static void get_key(const pd_key_postings *keys, uint64_t key, pd_matches *out)
{
    uint32_t k = pd_idmap_get(&keys->numbers, key);
    const pd_fresh_key *fresh = pd_postings_fresh(keys, key);
    if (k != PD_IDMAP_NONE) {
        out->rows = keys->counts[k];
        out->slots = keys->slots + keys->offsets[k];
        out->nslots = keys->offsets[k + 1] - keys->offsets[k];
        out->listed = out->nslots > 0;
    } else if (fresh) {
        out->rows = fresh->count;
    }
    if (!fresh) return;
    out->more = fresh->more.slots;
    out->nmore = fresh->more.count;
    out->listed &= !fresh->frequent;
}

void pd_postings_get(const pd_postings *p, const pd_attribute *attribute, uint64_t value, pd_matches *out)
{
    *out = (pd_matches){.listed = 1};
    uint64_t i = (uint64_t)(attribute - p->schema->attributes);
    if (i >= p->schema->nattributes) return;
    if (attribute->type == PD_KEY) {
        get_key(&p->keys[attribute->key_column], value, out);
    } else if (value < places_of(attribute)) {
        const pd_posting *list = &p->values[i][value];
        *out = (pd_matches){.rows = list->count,
                            .listed = !list->frequent,
                            .slots = list->slots,
                            .nslots = list->length,
                            .more = list->more.slots,
                            .nmore = list->more.count};
    }
    if (!out->listed) *out = (pd_matches){.rows = out->rows};
}

/* Rows of the buckets that a range touches. */
static uint64_t rows_of_range(const pd_postings *p, const pd_attribute *attribute, float low, float high)
{
    const uint64_t *histogram = p->histograms + p->layout->weight_at[attribute->byte_column];
    uint64_t rows = 0;
    uint32_t first = pd_attribute_bucket(attribute, low), last = pd_attribute_bucket(attribute, high);
    for (uint32_t b = first > 1 ? first : 1; low <= high && b <= last; b++)
        rows += histogram[b];
    return rows;
}

void pd_postings_range(const pd_postings *p, const pd_attribute *attribute, float low, float high,
                       pd_matches *out)
{
    *out = (pd_matches){.rows = rows_of_range(p, attribute, low, high), .listed = !attribute->counts};
    if (!out->listed) return;
    const pd_more *moved = &p->moved[attribute->float_column];
    pd_ranges_get(&p->numbers[attribute->float_column], low, high, &out->slots, &out->nslots);
    out->more = moved->slots;
    out->nmore = moved->count;
    /* Both are too many: buckets at the ends are taken in whole, and rows that moved may have moved out of the range. */
    if (out->nslots + out->nmore < out->rows) out->rows = out->nslots + out->nmore;
}

uint64_t pd_postings_memory(const pd_postings *p)
{
    uint64_t bytes = (uint64_t)p->layout->weights * sizeof *p->histograms + p->nslots / 8;
    bytes += pd_postings_changes_memory(p);
    for (uint32_t i = 0; i < p->schema->nattributes; i++)
        for (uint32_t v = 0; p->values[i] && v < places_of(&p->schema->attributes[i]); v++)
            bytes += sizeof(pd_posting) + p->values[i][v].room * sizeof(uint32_t);
    for (uint32_t c = 0; c < p->schema->nfloats; c++)
        bytes += pd_ranges_memory(&p->numbers[c]);
    for (uint32_t c = 0; c < p->schema->nkeys; c++) {
        const pd_key_postings *keys = &p->keys[c];
        bytes += pd_idmap_memory(&keys->numbers) + keys->numbers.count * 16;
        bytes += keys->offsets[keys->numbers.count] * sizeof *keys->slots;
    }
    return bytes;
}
