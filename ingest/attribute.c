/* One attribute: its dictionary, its buckets, and how its cells are read.
 *
 * A dictionary numbers names in the order of their first sight and never forgets one. Look-ups go through a small open
 * hash beside the array of names (at most 255 names in 1,024 slots), because the ingest of a large CSV does one per
 * cell. A version that serves may learn names while other threads look some up: entries and counts are published by release
 * stores, in arrays that never move. Numbers are read by strtof in the C locale, whatever locale the process has.
 */
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "schema_impl.h"
#include "utf8.h"

#define SLOTS 1024u /* a power of two, well over PD_MAX_CATEGORIES + 1 */

/* ---------------------------------------------------------------------------------------------- dictionary --- */

uint32_t pd_attribute_capacity(pd_attribute_type type)
{
    return type == PD_CATEGORY ? PD_MAX_CATEGORIES + 1 : type == PD_SET ? PD_MAX_MEMBERS : 0;
}

static uint32_t hash_of(const char *name)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    for (const char *p = name; *p; p++)
        h = (h ^ (unsigned char)*p) * 16777619u;
    return h ^ (h >> 15);
}

/* slots hold value + 1, 0: free. */
static void hash_in(pd_attribute *attribute, const char *name, uint32_t value)
{
    uint32_t at = hash_of(name) & (SLOTS - 1);
    while (attribute->slots[at])
        at = (at + 1) & (SLOTS - 1);
    __atomic_store_n(&attribute->slots[at], (uint16_t)(value + 1), __ATOMIC_RELEASE);
}

static uint32_t slot_at(const pd_attribute *attribute, uint32_t at)
{
    return __atomic_load_n(&attribute->slots[at], __ATOMIC_ACQUIRE);
}

int pd_attribute_value(const pd_attribute *attribute, const char *name)
{
    uint32_t count = pd_attribute_values(attribute);
    if (!attribute->slots) {
        for (uint32_t v = 0; v < count; v++)
            if (!strcmp(attribute->values[v], name)) return (int)v;
        return -1;
    }
    for (uint32_t at = hash_of(name) & (SLOTS - 1), slot; (slot = slot_at(attribute, at)) != 0;
         at = (at + 1) & (SLOTS - 1))
        if (slot - 1u < count && !strcmp(attribute->values[slot - 1u], name)) return (int)(slot - 1u);
    return -1;
}

pd_status pd_attribute_add(pd_attribute *attribute, const char *name, uint32_t *value, pd_error *err)
{
    size_t length = strlen(name);
    if (length > PD_MAX_VALUE)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "attribute \"%s\": the value \"%.32s...\" has %zu bytes, more than %d",
                       attribute->name, name, length, PD_MAX_VALUE);
    if (!pd_utf8_valid(name, length))
        return pd_fail(err, PD_INVALID_ARGUMENT, "attribute \"%s\": a value is not UTF-8", attribute->name);
    if (attribute->type == PD_SET && (length == 0 || strchr(name, '|')))
        return pd_fail(err, PD_INVALID_ARGUMENT, "attribute \"%s\": \"%s\" cannot name a member",
                       attribute->name, name);
    if (attribute->nvalues >= pd_attribute_capacity(attribute->type))
        return pd_fail(err, PD_RESOURCE_EXHAUSTED,
                       "attribute \"%s\": no room for \"%s\", it has %d %s already", attribute->name, name,
                       attribute->type == PD_SET ? PD_MAX_MEMBERS : PD_MAX_CATEGORIES,
                       attribute->type == PD_SET ? "members" : "values");
    char *copy = malloc(length + 1);
    if (!copy) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "attribute \"%s\": no memory", attribute->name);
    memcpy(copy, name, length + 1);
    *value = attribute->nvalues;
    attribute->values[*value] = copy;
    __atomic_store_n(&attribute->nvalues, *value + 1, __ATOMIC_RELEASE);
    hash_in(attribute, copy, *value);
    return PD_OK;
}

pd_status pd_attribute_intern(pd_attribute *attribute, const char *name, uint32_t *value, pd_error *err)
{
    int known = pd_attribute_value(attribute, name);
    if (known >= 0) {
        *value = (uint32_t)known;
        return PD_OK;
    }
    if (pd_attribute_capacity(attribute->type) == 0)
        return pd_fail(err, PD_INVALID_ARGUMENT, "attribute \"%s\" is a %s: it has no named values",
                       attribute->name, pd_type_name(attribute->type));
    if (attribute->closed)
        return pd_fail(err, PD_INVALID_ARGUMENT, "attribute \"%s\": \"%.*s\" is not one of its values",
                       attribute->name, PD_MAX_VALUE, name);
    return pd_attribute_add(attribute, name, value, err);
}

pd_status pd_attribute_open(pd_attribute *attribute, pd_error *err)
{
    uint32_t capacity = pd_attribute_capacity(attribute->type), value;
    if (capacity == 0) return PD_OK;
    attribute->values = calloc(capacity, sizeof *attribute->values);
    attribute->slots = calloc(SLOTS, sizeof *attribute->slots);
    if (!attribute->values || !attribute->slots)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "attribute \"%s\": no memory", attribute->name);
    return attribute->type == PD_CATEGORY ? pd_attribute_add(attribute, "", &value, err) : PD_OK;
}

void pd_attribute_close(pd_attribute *attribute)
{
    for (uint32_t v = 0; attribute->values && v < attribute->nvalues; v++)
        free(attribute->values[v]);
    free(attribute->values);
    free(attribute->slots);
    free(attribute->events);
    attribute->values = NULL;
    attribute->slots = NULL;
    attribute->events = NULL;
    attribute->nvalues = attribute->nevents = 0;
}

/* ------------------------------------------------------------------------------------------------- numbers --- */

uint8_t pd_attribute_bucket(const pd_attribute *attribute, float value)
{
    if (isnan(value)) return 0;
    uint32_t low = 0, high = attribute->nknots; /* the number of knots <= value */
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (attribute->knots[middle] <= value)
            low = middle + 1;
        else
            high = middle;
    }
    return (uint8_t)(low + 1);
}

void pd_attribute_guess_representatives(pd_attribute *attribute)
{
    uint32_t n = attribute->nknots;
    const float *knots = attribute->knots;
    float *middle = attribute->representatives;
    memset(middle, 0, sizeof attribute->representatives);
    if (n == 0) return;
    middle[1] = n > 1 ? knots[0] - (knots[1] - knots[0]) / 2 : knots[0];
    for (uint32_t b = 2; b <= n; b++)
        middle[b] = knots[b - 2] + (knots[b - 1] - knots[b - 2]) / 2;
    middle[n + 1] = n > 1 ? knots[n - 1] + (knots[n - 1] - knots[n - 2]) / 2 : knots[n - 1];
}

/* The whole of text as a finite decimal number, in the C locale. */
static int read_decimal(const char *text, double *wide, float *narrow)
{
    size_t length = strlen(text);
    if (length == 0 || length > 64 || strspn(text, "+-.0123456789eE") != length) return 0;
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0); /* a constant inside libc: nothing is made */
    if (!plain) return 0;
    char *end;
    if (narrow) *narrow = strtof_l(text, &end, plain);
    if (wide) *wide = strtod_l(text, &end, plain);
    freelocale(plain);
    return *end == 0 && (!narrow || isfinite(*narrow)) && (!wide || isfinite(*wide));
}

pd_status pd_attribute_number(const pd_attribute *attribute, const char *cell, float *value, pd_error *err)
{
    double days;
    if (attribute->age && pd_days_parse(cell, &days)) {
        *value = (float)days;
        return PD_OK;
    }
    if (!attribute->age && read_decimal(cell, NULL, value)) {
        if (!attribute->counts || *value >= 0) return PD_OK;
        return pd_fail(err, PD_INVALID_ARGUMENT, "attribute \"%s\": %s is below 0, which no counter is",
                       attribute->name, cell);
    }
    return pd_fail(err, PD_INVALID_ARGUMENT, "attribute \"%s\": \"%.64s\" is not a %s", attribute->name, cell,
                   attribute->age ? "date, a time or unix seconds" : "finite decimal number");
}

pd_status pd_attribute_set_events(pd_attribute *attribute, const pd_event *events, uint32_t n, pd_error *err)
{
    if (!n) return PD_OK;
    attribute->events = malloc(n * sizeof *events);
    if (!attribute->events)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "attribute \"%s\": no memory", attribute->name);
    memcpy(attribute->events, events, n * sizeof *events);
    attribute->nevents = n;
    return PD_OK;
}

int pd_attribute_event(const pd_attribute *attribute, const char *event, double *weight)
{
    *weight = 1;
    if (!attribute->nevents) return attribute->counts;
    for (uint32_t i = 0; i < attribute->nevents; i++) {
        if (strcmp(attribute->events[i].name, event) != 0) continue;
        *weight = attribute->events[i].weight;
        return 1;
    }
    return 0;
}

/* ---------------------------------------------------------------------------------------------------- days --- */

double pd_days_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return ((double)now.tv_sec + (double)now.tv_nsec * 1e-9) / 86400.0;
}

/* count decimal digits at *at, which moves behind them. -1: there are fewer. */
static int digits(const char **at, int count)
{
    int value = 0;
    for (int i = 0; i < count; i++, (*at)++) {
        if (**at < '0' || **at > '9') return -1;
        value = value * 10 + (**at - '0');
    }
    return value;
}

static int take(const char **at, char c)
{
    if (**at != c) return 0;
    (*at)++;
    return 1;
}

/* Days since 1970-01-01 in the Gregorian calendar: years counted from March, so that a leap day ends one. */
static long days_of(int year, int month, int day)
{
    long y = year - (month <= 2);
    long era = (y >= 0 ? y : y - 399) / 400;
    long of_era = y - era * 400;
    long of_year = (153L * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static int month_length(int year, int month)
{
    static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month == 2 && leap ? 29 : lengths[month - 1];
}

/* THH:MM[:SS[.fraction]]Z behind a date; a blank may stand for the T. */
static int read_clock(const char *at, double *seconds)
{
    if (!take(&at, 'T') && !take(&at, ' ')) return 0;
    int hour = digits(&at, 2), minute = take(&at, ':') ? digits(&at, 2) : -1, second = 0;
    double fraction = 0;
    if (take(&at, ':')) {
        second = digits(&at, 2);
        double unit = 0.1;
        if (take(&at, '.'))
            for (; *at >= '0' && *at <= '9'; at++, unit /= 10)
                fraction += unit * (*at - '0');
    }
    if (!take(&at, 'Z') || *at) return 0;
    if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60) return 0;
    *seconds = hour * 3600.0 + minute * 60.0 + second + fraction;
    return 1;
}

int pd_days_parse(const char *text, double *days)
{
    const char *at = text;
    int year = digits(&at, 4);
    if (year >= 0 && *at == '-') {
        int month = take(&at, '-') ? digits(&at, 2) : -1;
        int day = take(&at, '-') ? digits(&at, 2) : -1;
        double seconds = 0;
        if (year < 1 || month < 1 || month > 12 || day < 1 || day > month_length(year, month)) return 0;
        if (*at && !read_clock(at, &seconds)) return 0;
        *days = (double)days_of(year, month, day) + seconds / 86400.0;
        return 1;
    }
    double seconds;
    if (!read_decimal(text, &seconds, NULL) || fabs(seconds) > 1e12) return 0;
    *days = seconds / 86400.0;
    return 1;
}
