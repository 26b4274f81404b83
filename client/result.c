/* A search's reply becomes a pados_result. The arrays of ids, counts and so on stay where protobuf-c put them; what has
 * another shape in the public header (explanations, columns) gets arrays of its own that point at the reply's strings.
 * Nothing in the reply is believed: every length is compared with what was asked before anything is read through it.
 */
#include "client_impl.h"

#include <stdlib.h>
#include <string.h>

typedef struct result {
    pados_result shown; /* first: pados_result_free gets a pointer to it */
    Pados__V1__Reply *reply;
    size_t *first;
    float *scores;
    uint32_t *zeros; /* for per-query arrays that the reply leaves out */
    pados_explanation *explanations;
    pados_term *terms;
    pados_column *columns;
} result;

const char *pados_path_name(uint32_t path)
{
    static const char *const names[] = {"ivf", "rows", "attributes", "exact", "all"};
    return path < sizeof names / sizeof *names ? names[path] : "unknown";
}

const char *pados_rung_name(uint32_t rung)
{
    static const char *const names[] = {"given", "row", "segment", "attributes"};
    return rung < sizeof names / sizeof *names ? names[rung] : "unknown";
}

void pados_result_free(pados_result *shown)
{
    if (!shown) return;
    result *r = (result *)shown;
    if (r->reply) pados__v1__reply__free_unpacked(r->reply, NULL);
    free(r->first);
    free(r->scores);
    free(r->zeros);
    free(r->explanations);
    free(r->terms);
    free(r->columns);
    free(r);
}

/* Whether the reply's arrays fit one another and the question. *what names the one that does not. */
static bool holds_together(const Pados__V1__SearchReply *s, uint32_t count, uint32_t k, const char **what)
{
    size_t hits = 0;
    *what = "counts";
    if (s->n_counts != count) return false;
    for (size_t i = 0; i < s->n_counts; i++) {
        if (s->counts[i] > k) return false;
        hits += s->counts[i];
    }
    *what = "ids";
    if (s->n_ids != hits) return false;
    *what = "scores";
    if (s->scores.len != hits * sizeof(float)) return false;
    *what = "nprobe";
    if (s->n_nprobe && s->n_nprobe != count) return false;
    *what = "path";
    if (s->n_path && s->n_path != count) return false;
    *what = "rung";
    if (s->n_rung && s->n_rung != count) return false;
    *what = "rung_segment";
    if (s->n_rung_segment && s->n_rung_segment != count) return false;
    *what = "explanations";
    if (s->n_explanations && s->n_explanations != hits) return false;
    *what = "columns";
    for (size_t i = 0; i < s->n_columns; i++)
        if (s->columns[i]->n_values != hits) return false;
    return true;
}

static bool fill_explanations(result *r, const Pados__V1__SearchReply *s)
{
    if (!s->n_explanations) return true;
    size_t terms = 0;
    for (size_t i = 0; i < s->n_explanations; i++)
        terms += s->explanations[i]->n_terms;
    r->explanations = calloc(s->n_explanations, sizeof *r->explanations);
    r->terms = calloc(terms ? terms : 1, sizeof *r->terms);
    if (!r->explanations || !r->terms) return false;
    pados_term *next = r->terms;
    for (size_t i = 0; i < s->n_explanations; i++) {
        const Pados__V1__Explanation *e = s->explanations[i];
        r->explanations[i] = (pados_explanation){.terms = next, .count = e->n_terms};
        for (size_t t = 0; t < e->n_terms; t++)
            *next++ = (pados_term){e->terms[t]->attribute, e->terms[t]->value, e->terms[t]->weight};
    }
    r->shown.explanations = r->explanations;
    return true;
}

static bool fill_columns(result *r, const Pados__V1__SearchReply *s)
{
    if (!s->n_columns) return true;
    r->columns = calloc(s->n_columns, sizeof *r->columns);
    if (!r->columns) return false;
    for (size_t i = 0; i < s->n_columns; i++)
        r->columns[i] = (pados_column){s->columns[i]->attribute, (const char *const *)s->columns[i]->values};
    r->shown.columns = r->columns;
    r->shown.ncolumns = s->n_columns;
    return true;
}

static bool fill_hits(result *r, const Pados__V1__SearchReply *s)
{
    size_t count = s->n_counts;
    r->first = calloc(count + 1, sizeof *r->first);
    r->scores = malloc(s->scores.len ? s->scores.len : 1);
    r->zeros = calloc(count ? count : 1, sizeof *r->zeros);
    if (!r->first || !r->scores || !r->zeros) return false;
    for (size_t i = 0; i < count; i++)
        r->first[i + 1] = r->first[i] + s->counts[i];
    if (s->scores.len) memcpy(r->scores, s->scores.data, s->scores.len);
    r->shown.count = (uint32_t)count;
    r->shown.hits = s->n_ids;
    r->shown.counts = count ? s->counts : r->zeros;
    r->shown.first = r->first;
    r->shown.ids = s->ids;
    r->shown.scores = r->scores;
    r->shown.nprobe = s->n_nprobe ? s->nprobe : r->zeros;
    r->shown.path = s->n_path ? s->path : r->zeros;
    r->shown.rung = s->n_rung ? s->rung : r->zeros;
    r->shown.rung_segment = s->n_rung_segment ? (const char *const *)s->rung_segment : NULL;
    return true;
}

static void fill_summary(result *r, const Pados__V1__SearchReply *s)
{
    r->shown.version = s->version;
    r->shown.profile_version = s->profile_version;
    r->shown.scanned = s->scanned;
    r->shown.complete = s->complete;
    r->shown.recall = s->recall;
    r->shown.sequence = s->sequence;
    r->shown.backend = s->backend;
    r->shown.warnings = (const char *const *)r->reply->warnings;
    r->shown.nwarnings = r->reply->n_warnings;
    const Pados__V1__Timing *t = s->timing;
    if (t)
        r->shown.timing = (pados_timing){t->decode, t->queue,  t->resolve, t->coarse,
                                         t->scan,   t->refine, t->finish,  t->total};
}

pados_status pd_client_result(Pados__V1__Reply *reply, uint32_t count, uint32_t k, pados_result **out,
                              pados_error *error)
{
    const char *what;
    if (!holds_together(reply->search, count, k, &what)) {
        pados__v1__reply__free_unpacked(reply, NULL);
        return pd_client_fail(error, PD_INTERNAL,
                              "the reply does not hold together: %s do not fit the question", what);
    }
    result *r = calloc(1, sizeof *r);
    if (!r) {
        pados__v1__reply__free_unpacked(reply, NULL);
        return pd_client_fail(error, PD_RESOURCE_EXHAUSTED, "no memory for the result");
    }
    r->reply = reply;
    if (!fill_hits(r, reply->search) || !fill_explanations(r, reply->search) ||
        !fill_columns(r, reply->search)) {
        pados_result_free(&r->shown);
        return pd_client_fail(error, PD_RESOURCE_EXHAUSTED, "no memory for the result");
    }
    fill_summary(r, reply->search);
    *out = &r->shown;
    return PD_OK;
}
