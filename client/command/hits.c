#include "hits.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* --------------------------------------------------------------------------------------------- collecting --- */

static void add_warning(hits_sum *sum, const char *text)
{
    for (size_t i = 0; i < sum->nwarnings; i++)
        if (strcmp(sum->warnings[i], text) == 0) return;
    sum->warnings = must(realloc(sum->warnings, (sum->nwarnings + 1) * sizeof *sum->warnings));
    sum->warnings[sum->nwarnings++] = must(strdup(text));
}

static void add_timing(pados_timing *sum, const pados_timing *t)
{
    sum->decode += t->decode;
    sum->queue += t->queue;
    sum->resolve += t->resolve;
    sum->coarse += t->coarse;
    sum->scan += t->scan;
    sum->refine += t->refine;
    sum->finish += t->finish;
    sum->total += t->total;
}

void hits_add(hits_sum *sum, const pados_result *r)
{
    if (sum->queries + r->count > sum->room) {
        sum->room = 2 * sum->room + r->count;
        sum->path = must(realloc(sum->path, sum->room * sizeof *sum->path));
        sum->nprobe = must(realloc(sum->nprobe, sum->room * sizeof *sum->nprobe));
        sum->rung = must(realloc(sum->rung, sum->room * sizeof *sum->rung));
        sum->segment = must(realloc(sum->segment, sum->room * sizeof *sum->segment));
    }
    memcpy(sum->path + sum->queries, r->path, r->count * sizeof *r->path);
    memcpy(sum->nprobe + sum->queries, r->nprobe, r->count * sizeof *r->nprobe);
    memcpy(sum->rung + sum->queries, r->rung, r->count * sizeof *r->rung);
    for (uint32_t i = 0; i < r->count; i++) {
        const char *segment = r->rung_segment ? r->rung_segment[i] : "";
        sum->segment[sum->queries + i] = *segment ? must(strdup(segment)) : NULL;
    }
    if (sum->requests && sum->version != r->version) {
        char text[128];
        snprintf(text, sizeof text,
                 "version %" PRIu64 " began to serve while version %" PRIu64 " was being asked", r->version,
                 sum->version);
        add_warning(sum, text);
    }
    sum->complete = (sum->requests == 0 || sum->complete) && r->complete;
    if (sum->requests == 0 || r->recall < sum->recall) sum->recall = r->recall;
    if (sum->requests == 0 || r->sequence < sum->sequence) sum->sequence = r->sequence;
    sum->queries += r->count;
    sum->hits += r->hits;
    sum->requests++;
    sum->version = r->version;
    sum->profile_version = r->profile_version;
    sum->scanned += r->scanned;
    add_timing(&sum->timing, &r->timing);
    snprintf(sum->backend, sizeof sum->backend, "%s", r->backend);
    for (size_t i = 0; i < r->nwarnings; i++)
        add_warning(sum, r->warnings[i]);
}

void hits_free(hits_sum *sum)
{
    for (uint64_t i = 0; i < sum->queries; i++)
        free(sum->segment[i]);
    for (size_t i = 0; i < sum->nwarnings; i++)
        free(sum->warnings[i]);
    free(sum->warnings);
    free(sum->segment);
    free(sum->path);
    free(sum->nprobe);
    free(sum->rung);
}

/* --------------------------------------------------------------------------------------------- for people --- */

/* "1.012300 = 0.712300 similarity + 0.300000 department SWEETS": read left to right, it adds up. */
static char *explanation_text(const pados_explanation *e, float score)
{
    char *text = NULL;
    size_t length;
    FILE *to = must(open_memstream(&text, &length));
    fprintf(to, "%.6f =", (double)score);
    for (size_t t = 0; t < e->count; t++) {
        double weight = (double)e->terms[t].weight;
        if (t)
            fprintf(to, " %c %.6f", weight < 0 ? '-' : '+', weight < 0 ? -weight : weight);
        else
            fprintf(to, " %.6f", weight);
        fprintf(to, " %s", e->terms[t].attribute);
        if (*e->terms[t].value) fprintf(to, " %s", e->terms[t].value);
    }
    fclose(to);
    return must(text);
}

static void print_query_line(const hits_view *view, const pados_result *r, uint32_t i, uint64_t number)
{
    printf("query %" PRIu64, number);
    if (view->from_ids)
        printf(" (%s%s%" PRIu64 ")", view->from_table, *view->from_table ? ":" : "id ",
               view->from_ids[number]);
    printf(": %s, %u list%s probed", pados_path_name(r->path[i]), r->nprobe[i], r->nprobe[i] == 1 ? "" : "s");
    /* A query that was asked as it is needs no word about where it came from. */
    if (r->rung[i] || view->from_ids) {
        printf(", from the %s", r->rung[i] == 1 ? "stored row" : pados_rung_name(r->rung[i]));
        if (r->rung_segment && *r->rung_segment[i]) printf(" %s", r->rung_segment[i]);
        if (r->rung[i] == 0) printf(" vector");
        if (r->rung[i] == 3) printf(" alone");
    }
    putchar('\n');
}

static void print_for_people(const hits_view *view, const pados_result *r, uint32_t i, uint64_t number)
{
    print_query_line(view, r, i, number);
    if (!r->counts[i]) {
        puts("  no hits");
        return;
    }
    grid *g = grid_new(3 + (view->titles != NULL) + r->ncolumns);
    grid_head(g, "rank", true);
    grid_head(g, "id", true);
    grid_head(g, "score", true);
    if (view->titles) grid_head(g, "title", false);
    for (size_t c = 0; c < r->ncolumns; c++)
        grid_head(g, r->columns[c].attribute, false);
    for (size_t h = r->first[i]; h < r->first[i + 1]; h++) {
        grid_cell(g, "%zu", h - r->first[i] + 1);
        grid_cell(g, "%" PRIu64, r->ids[h]);
        grid_cell(g, "%.6f", (double)r->scores[h]);
        if (view->titles) grid_cell(g, "%s", titles_of(view->titles, r->ids[h]));
        for (size_t c = 0; c < r->ncolumns; c++)
            grid_cell(g, "%s", r->columns[c].values[h]);
        if (view->explain && r->explanations) {
            char *text = explanation_text(&r->explanations[h], r->scores[h]);
            grid_note(g, text);
            free(text);
        }
    }
    grid_print(g, stdout, 2);
    grid_free(g);
}

static void summary_for_people(const hits_view *view, const hits_sum *s, const char *profile)
{
    char number[32], scanned[32];
    if (s->queries > view->limit)
        printf("(%s more queries are not shown)\n",
               count_text(s->queries - view->limit, number, sizeof number));
    printf("%s version %" PRIu64, view->table, s->version);
    if (profile) printf(", profile %s version %" PRIu64, profile, s->profile_version);
    printf(", %s; %s rows scanned", s->backend, count_text(s->scanned, scanned, sizeof scanned));
    if (s->complete)
        printf("; the top %u is proved exact", view->k);
    else if (s->recall > 0)
        printf("; recall %.3f promised", (double)s->recall);
    printf("\n%u us in the server (queue %u, resolve %u, coarse %u, scan %u, refine %u, finish %u)\n",
           s->timing.total, s->timing.queue, s->timing.resolve, s->timing.coarse, s->timing.scan,
           s->timing.refine, s->timing.finish);
    if (s->queries > 1)
        printf("%s queries in %.3f s: %s queries/s\n", count_text(s->queries, number, sizeof number),
               s->seconds,
               count_text((uint64_t)((double)s->queries / (s->seconds > 0 ? s->seconds : 1e-9)), scanned,
                          sizeof scanned));
    for (size_t i = 0; i < s->nwarnings; i++)
        warn("%s", s->warnings[i]);
}

/* ------------------------------------------------------------------------------------------- for programs --- */

static void print_for_programs(const hits_view *view, const pados_result *r, uint32_t i, uint64_t number)
{
    for (size_t h = r->first[i]; h < r->first[i + 1]; h++) {
        json_t *hit = must(json_object());
        json_object_set_new(hit, "query", json_integer((json_int_t)number));
        json_object_set_new(hit, "rank", json_integer((json_int_t)(h - r->first[i] + 1)));
        json_object_set_new(hit, "id", json_id(r->ids[h]));
        json_object_set_new(hit, "score", json_real32(r->scores[h]));
        if (view->titles) json_object_set_new(hit, "title", json_text(titles_of(view->titles, r->ids[h])));
        json_t *attributes = must(json_object());
        for (size_t c = 0; c < r->ncolumns; c++)
            json_object_set_new(attributes, r->columns[c].attribute, json_text(r->columns[c].values[h]));
        json_object_set_new(hit, "attributes", attributes);
        json_t *terms = must(json_array());
        if (view->explain && r->explanations)
            for (size_t t = 0; t < r->explanations[h].count; t++) {
                const pados_term *term = &r->explanations[h].terms[t];
                json_array_append_new(
                    terms, must(json_pack("{s:o, s:o, s:o}", "attribute", json_text(term->attribute), "value",
                                          json_text(term->value), "weight", json_real32(term->weight))));
            }
        json_object_set_new(hit, "terms", terms);
        json_line(hit);
    }
}

static json_t *json_timing(const pados_timing *t)
{
    return must(json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "decode_us", (json_int_t)t->decode,
                          "queue_us", (json_int_t)t->queue, "resolve_us", (json_int_t)t->resolve, "coarse_us",
                          (json_int_t)t->coarse, "scan_us", (json_int_t)t->scan, "refine_us",
                          (json_int_t)t->refine, "finish_us", (json_int_t)t->finish, "total_us",
                          (json_int_t)t->total));
}

static void summary_for_programs(const hits_view *view, const hits_sum *s)
{
    json_t *path = must(json_array()), *nprobe = must(json_array()), *rung = must(json_array()),
           *warnings = must(json_array()), *segment = must(json_array());
    for (uint64_t i = 0; i < s->queries; i++) {
        json_array_append_new(path, json_text(pados_path_name(s->path[i])));
        json_array_append_new(nprobe, json_integer(s->nprobe[i]));
        json_array_append_new(rung, json_text(pados_rung_name(s->rung[i])));
        json_array_append_new(segment, json_text(s->segment[i]));
    }
    for (size_t i = 0; i < s->nwarnings; i++)
        json_array_append_new(warnings, json_text(s->warnings[i]));
    json_t *o = must(json_object());
    json_object_set_new(o, "summary", json_true());
    json_object_set_new(o, "table", json_text(view->table));
    json_object_set_new(o, "version", json_integer((json_int_t)s->version));
    json_object_set_new(o, "profile_version", json_integer((json_int_t)s->profile_version));
    json_object_set_new(o, "sequence", json_id(s->sequence));
    json_object_set_new(o, "queries", json_integer((json_int_t)s->queries));
    json_object_set_new(o, "hits", json_integer((json_int_t)s->hits));
    json_object_set_new(o, "path", path);
    json_object_set_new(o, "nprobe", nprobe);
    json_object_set_new(o, "rung", rung);
    json_object_set_new(o, "rung_segment", segment);
    json_object_set_new(o, "scanned", json_integer((json_int_t)s->scanned));
    json_object_set_new(o, "complete", json_boolean(s->complete));
    json_object_set_new(o, "recall", json_real32(s->recall));
    json_object_set_new(o, "backend", json_text(s->backend));
    json_object_set_new(o, "timing", json_timing(&s->timing));
    json_object_set_new(o, "warnings", warnings);
    json_object_set_new(o, "seconds", json_real(s->seconds));
    json_object_set_new(o, "queries_per_second",
                        json_real((double)s->queries / (s->seconds > 0 ? s->seconds : 1e-9)));
    json_line(o);
}

/* ------------------------------------------------------------------------------------------------- either --- */

void hits_print(const hits_view *view, const pados_result *r, uint64_t first)
{
    for (uint32_t i = 0; i < r->count && first + i < view->limit; i++) {
        if (view->g->json)
            print_for_programs(view, r, i, first + i);
        else
            print_for_people(view, r, i, first + i);
    }
}

void hits_summary(const hits_view *view, const hits_sum *sum, const char *profile)
{
    if (view->g->json)
        summary_for_programs(view, sum);
    else
        summary_for_people(view, sum, profile);
}
