/* Windows of measured recall: see recall_book.h. */
#include "recall_book.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "schema.h" /* PD_MAX_NAME */

#define Z_95        1.6448536269514722 /* one-sided 95% of the normal distribution */
#define ALERT_EVERY 3600000000000ull   /* ns */

typedef struct sampled {
    float recall, promise;
} sampled;

typedef struct series {
    char table[PD_MAX_NAME + 1], profile[PD_MAX_NAME + 1];
    int fused;
    uint64_t queries, hits, wanted;
    uint64_t version; /* of what is in the window */
    sampled window[PD_RECALL_WINDOW];
    uint32_t count, next;
    int broken;
    int said;            /* the log's last word of it was that it is broken */
    uint64_t alerted_ns; /* 0: never */
} series;

struct pd_recall_book {
    pthread_mutex_t lock;
    series *all[PD_RECALL_SERIES];
    uint32_t count;
};

pd_status pd_recall_book_open(pd_recall_book **out, pd_error *err)
{
    pd_recall_book *book = calloc(1, sizeof *book);
    if (!book) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for measured recall");
    pthread_mutex_init(&book->lock, NULL);
    *out = book;
    return PD_OK;
}

void pd_recall_book_close(pd_recall_book *book)
{
    if (!book) return;
    for (uint32_t i = 0; i < book->count; i++)
        free(book->all[i]);
    pthread_mutex_destroy(&book->lock);
    free(book);
}

/* ---------------------------------------------------------------------------------------------------- bounds --- */

typedef struct bounds {
    uint32_t n;
    double mean, lower, upper; /* of the recall */
    double promise;            /* mean of those counted */
} bounds;

/* promised: only queries with a promise. */
static bounds bounds_of(const series *s, int promised)
{
    bounds b = {0};
    double sum = 0, squares = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        const sampled *one = &s->window[i];
        if (promised && one->promise <= 0) continue;
        b.n++;
        sum += one->recall;
        squares += (double)one->recall * one->recall;
        b.promise += one->promise;
    }
    if (!b.n) return b;
    b.mean = sum / b.n;
    b.promise /= b.n;
    double spread = b.n > 1 ? fmax(0, (squares - sum * b.mean) / (b.n - 1)) : 0;
    double margin = Z_95 * sqrt(spread / b.n);
    b.lower = fmax(0, b.mean - margin);
    b.upper = fmin(1, b.mean + margin);
    return b;
}

/* ----------------------------------------------------------------------------------------------------- adding --- */

static series *find(const pd_recall_book *book, const pd_recall_outcome *o)
{
    for (uint32_t i = 0; i < book->count; i++) {
        series *s = book->all[i];
        if (s->fused == o->fused && !strcmp(s->table, o->table) && !strcmp(s->profile, o->profile)) return s;
    }
    return NULL;
}

static pd_status make(pd_recall_book *book, const pd_recall_outcome *o, series **out, pd_error *err)
{
    if (book->count == PD_RECALL_SERIES)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "recall is measured for %u tables and profiles already",
                       PD_RECALL_SERIES);
    series *s = calloc(1, sizeof *s);
    if (!s) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for measured recall");
    snprintf(s->table, sizeof s->table, "%s", o->table);
    snprintf(s->profile, sizeof s->profile, "%s", o->profile);
    s->fused = o->fused;
    s->version = o->version;
    *out = book->all[book->count++] = s;
    return PD_OK;
}

static void name(const series *s, char *text, size_t room)
{
    snprintf(text, room, "table \"%s\"%s%s%s (%s)", s->table, *s->profile ? ", profile \"" : "", s->profile,
             *s->profile ? "\"" : "", s->fused ? "fused" : "similarity");
}

/* What the window says of the promise, and whether the log must hear of it. */
static void judge(series *s, uint64_t now_ns)
{
    char text[PD_MAX_NAME * 2 + 64];
    bounds b = bounds_of(s, 1);
    if (b.n < PD_RECALL_JUDGED) return;
    if (b.upper < b.promise)
        s->broken = 1;
    else if (b.mean >= b.promise)
        s->broken = 0; /* between the two it stays what it was */
    name(s, text, sizeof text);
    if (s->broken && (!s->alerted_ns || now_ns - s->alerted_ns >= ALERT_EVERY)) {
        pd_log(PD_LOG_WARNING,
               "recall of %s is %.4f over %u sampled queries, at most %.4f, below the promised %.4f", text,
               b.mean, b.n, b.upper, b.promise);
        s->said = 1;
        s->alerted_ns = now_ns;
    } else if (!s->broken && s->said) {
        pd_log(PD_LOG_INFO, "recall of %s is %.4f over %u sampled queries: the promised %.4f is kept again",
               text, b.mean, b.n, b.promise);
        s->said = 0;
    }
}

static void put(series *s, const pd_recall_outcome *o, uint64_t now_ns)
{
    s->queries++;
    s->hits += o->hits;
    s->wanted += o->wanted;
    if (s->version != o->version) {
        s->version = o->version;
        s->count = s->next = 0;
        s->broken = 0;
    }
    if (!o->wanted) return; /* there was nothing to miss */
    s->window[s->next] = (sampled){.recall = (float)o->hits / (float)o->wanted, .promise = o->promise};
    s->next = (s->next + 1) % PD_RECALL_WINDOW;
    if (s->count < PD_RECALL_WINDOW) s->count++;
    judge(s, now_ns);
}

pd_status pd_recall_book_add(pd_recall_book *book, const pd_recall_outcome *outcome, uint64_t now_ns,
                             pd_error *err)
{
    pd_status status = PD_OK;
    pthread_mutex_lock(&book->lock);
    series *s = find(book, outcome);
    if (!s) status = make(book, outcome, &s, err);
    if (!status) put(s, outcome, now_ns);
    pthread_mutex_unlock(&book->lock);
    return status;
}

int pd_recall_broken(pd_recall_book *book, const char *table, uint64_t version)
{
    int broken = 0;
    pthread_mutex_lock(&book->lock);
    for (uint32_t i = 0; i < book->count && !broken; i++) {
        const series *s = book->all[i];
        broken = s->broken && s->version == version && !strcmp(s->table, table);
    }
    pthread_mutex_unlock(&book->lock);
    return broken;
}

/* ---------------------------------------------------------------------------------------------------- telling --- */

/* NAN: the series has none. */
static double queries_of(const series *s)
{
    return (double)s->queries;
}

static double hits_of(const series *s)
{
    return (double)s->hits;
}

static double wanted_of(const series *s)
{
    return (double)s->wanted;
}

static double recent_of(const series *s)
{
    bounds b = bounds_of(s, 0);
    return b.n ? b.mean : (double)NAN;
}

static double lower_of(const series *s)
{
    bounds b = bounds_of(s, 0);
    return b.n ? b.lower : (double)NAN;
}

static double promised_of(const series *s)
{
    bounds b = bounds_of(s, 1);
    return b.n ? b.promise : (double)NAN;
}

static double broken_of(const series *s)
{
    return s->broken;
}

void pd_recall_book_tell(pd_recall_book *book,
                         void (*visit)(void *context, const char *name, const char *labels, double value),
                         void *context)
{
    static const struct {
        const char *name;
        double (*value)(const series *s);
    } families[] = {
        {"pados_recall_queries_total", queries_of}, {"pados_recall_hits_total", hits_of},
        {"pados_recall_wanted_total", wanted_of},   {"pados_recall_recent", recent_of},
        {"pados_recall_recent_lower", lower_of},    {"pados_recall_promised", promised_of},
        {"pados_recall_broken", broken_of},
    };
    pthread_mutex_lock(&book->lock);
    for (size_t f = 0; f < sizeof families / sizeof families[0]; f++)
        for (uint32_t i = 0; i < book->count; i++) {
            const series *s = book->all[i];
            char labels[PD_MAX_NAME * 2 + 64];
            double value = families[f].value(s);
            if (isnan(value)) continue;
            snprintf(labels, sizeof labels, "table=\"%s\",profile=\"%s\",score=\"%s\"", s->table, s->profile,
                     s->fused ? "fused" : "similarity");
            visit(context, families[f].name, labels, value);
        }
    pthread_mutex_unlock(&book->lock);
}
