/* Why a hit has its score: the terms of its attributes, read back from the compiled tables, and what is left of the
 * score, which is similarity's. Exact because the score is a sum. Also how an attribute's value is written for people.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "profile_impl.h"

/* Appends, cut at a whole character where room ends. Returns the new length. */
static size_t append(char *text, size_t room, size_t used, const char *more)
{
    size_t length = strlen(more);
    if (used + length >= room) {
        length = room - used - 1;
        while (length > 0 && ((unsigned char)more[length] & 0xc0) == 0x80)
            length--;
    }
    memcpy(text + used, more, length);
    text[used + length] = 0;
    return used + length;
}

/* A time to the minute, which is about what an f32 of days can hold; a whole day without the clock. */
static void write_time(float value, char *text, size_t room)
{
    double minutes = floor((double)value * 1440.0 + 0.5);
    if (fabs(minutes) > 4e9) {
        snprintf(text, room, "%g", (double)value);
        return;
    }
    double day = floor(minutes / 1440.0);
    int clock = (int)(minutes - day * 1440.0);
    /* Gregorian calendar, years counted from March. */
    long z = (long)day + 719468, era = (z >= 0 ? z : z - 146096) / 146097, of_era = z - era * 146097;
    long year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    long of_year = of_era - (365 * year + year / 4 - year / 100), m = (5 * of_year + 2) / 153;
    long date = of_year - (153 * m + 2) / 5 + 1, month = m < 10 ? m + 3 : m - 9;
    year += era * 400 + (month <= 2);
    int used = snprintf(text, room, "%04ld-%02ld-%02ld", year, month, date);
    if (clock && used > 0 && (size_t)used < room)
        snprintf(text + used, room - (size_t)used, "T%02d:%02dZ", clock / 60, clock % 60);
}

/* The shortest digits that name this f32. */
static void write_number(float value, char *text, size_t room)
{
    char digits[40];
    for (int precision = 6; precision <= 9; precision++) {
        float back;
        snprintf(digits, sizeof digits, "%.*g", precision, (double)value);
        if (sscanf(digits, "%f", &back) == 1 && back == value) break;
    }
    append(text, room, 0, digits);
}

static void write_members(const pd_attribute *attribute, const uint8_t *planes, char *text, size_t room)
{
    size_t used = 0;
    for (uint32_t m = 0; m < PD_MAX_MEMBERS && used + 1 < room; m++) {
        char number[16];
        if (!(planes[m / 8] >> m % 8 & 1)) continue;
        if (used) used = append(text, room, used, "|");
        snprintf(number, sizeof number, "#%u", m);
        used = append(text, room, used, m < pd_attribute_values(attribute) ? attribute->values[m] : number);
    }
}

void pd_attribute_text(const pd_attribute *attribute, const uint8_t *bytes, const float *floats,
                       const uint64_t *keys, char *text, size_t room)
{
    char number[24];
    if (room == 0) return;
    text[0] = 0;
    switch (attribute->type) {
    case PD_CATEGORY: {
        uint32_t value = bytes[attribute->byte_column];
        snprintf(number, sizeof number, "#%u", value); /* newer than this dictionary */
        if (value)
            append(text, room, 0, value < pd_attribute_values(attribute) ? attribute->values[value] : number);
        break;
    }
    case PD_NUMBER: {
        float value = floats[attribute->float_column];
        if (isnan(value)) break;
        if (attribute->age)
            write_time(value, text, room);
        else
            write_number(value, text, room);
        break;
    }
    case PD_SET:
        write_members(attribute, bytes + attribute->byte_column, text, room);
        break;
    case PD_KEY:
        if (!keys[attribute->key_column]) break;
        snprintf(number, sizeof number, "%llu", (unsigned long long)keys[attribute->key_column]);
        append(text, room, 0, number);
        break;
    }
}

/* ------------------------------------------------------------------------------------------------ the terms --- */

/* Is anything weighed in these byte columns? *sum: the weights of the row's own bytes. */
static int weigh_bytes(const pd_schema *schema, const pd_layout *layout, const float *weights, uint32_t first,
                       uint32_t count, const uint8_t *bytes, double *sum)
{
    int weighed = 0;
    for (uint32_t c = first; weights && c < first + count; c++) {
        uint32_t at = layout->weight_at[c],
                 end = c + 1 < schema->nbytes ? layout->weight_at[c + 1] : layout->weights;
        if (at + bytes[c] < end) *sum += (double)weights[at + bytes[c]];
        for (uint32_t v = at; v < end && !weighed; v++)
            weighed = weights[v] != 0;
    }
    return weighed;
}

static int weigh_keys(const pd_compiled *compiled, uint32_t column, const uint64_t *keys, double *sum)
{
    int weighed = 0;
    for (uint32_t i = 0; i < compiled->nkey_weights; i++) {
        const pd_key_weight *weight = &compiled->key_weights[i];
        if (weight->column != column) continue;
        weighed = 1;
        if (weight->value == keys[column]) *sum += (double)weight->weight;
    }
    return weighed;
}

void pd_explain(const pd_schema *schema, const pd_layout *layout, const pd_compiled *compiled, float score,
                const uint8_t *bytes, const float *floats, const uint64_t *keys, pd_term *terms,
                uint32_t *count)
{
    double rest = (double)score;
    uint32_t n = 1;
    for (uint32_t i = 0; i < schema->nattributes; i++) {
        const pd_attribute *attribute = &schema->attributes[i];
        double sum = 0;
        int weighed = attribute->type == PD_KEY
                          ? weigh_keys(compiled, attribute->key_column, keys, &sum)
                          : weigh_bytes(schema, layout, compiled->weights, attribute->byte_column,
                                        attribute->type == PD_SET ? 8 : 1, bytes, &sum);
        if (!weighed) continue;
        pd_term *term = &terms[n++];
        term->attribute = attribute->name;
        term->weight = (float)sum;
        pd_attribute_text(attribute, bytes, floats, keys, term->value, sizeof term->value);
        rest -= (double)term->weight;
    }
    terms[0].attribute = "similarity";
    terms[0].value[0] = 0;
    terms[0].weight = (float)rest;
    *count = n;
}
