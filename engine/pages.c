/* What HTTP shows: readiness, metrics, and a page that lists the tables. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "pados.pb-c.h"
#include "server_impl.h"

int pd_pages_ready(void *context, char *why, size_t room)
{
    pd_server *server = context;
    pd_catalog *catalog = atomic_load(&server->catalog);
    if (atomic_load(&server->stopping)) {
        snprintf(why, room, "stopping");
        return 0;
    }
    if (!catalog) {
        snprintf(why, room, "tables are being loaded");
        return 0;
    }
    pd_executor_stats stats;
    pd_executor_stats_of(server->executor, &stats);
    if (stats.lost) {
        snprintf(why, room, "the device is lost: %s", stats.why);
        return 0;
    }
    return pd_catalog_ready(catalog, why, room);
}

typedef struct gauges {
    pd_text *text;
    char last[64]; /* the name before: a family has one TYPE */
} gauges;

static void gauge(void *context, const char *name, const char *labels, double value)
{
    gauges *g = context;
    pd_text *text = g->text;
    size_t length = strlen(name);
    if (strcmp(name, g->last) != 0) {
        int counts = length > 6 && !strcmp(name + length - 6, "_total");
        snprintf(g->last, sizeof g->last, "%s", name);
        pd_text_add(text, "# TYPE %s %s\n", name, counts ? "counter" : "gauge");
    }
    if (*labels)
        pd_text_add(text, "%s{%s} %.17g\n", name, labels, value);
    else
        pd_text_add(text, "%s %.17g\n", name, value);
}

void pd_pages_metrics(void *context, pd_text *text)
{
    pd_server *server = context;
    pd_metrics_text(&server->metrics, text);
    pd_executor_stats stats;
    pd_executor_stats_of(server->executor, &stats);
    gauges g = {.text = text};
    char why[600];
    gauge(&g, "pados_queue_requests", "", stats.requests);
    gauge(&g, "pados_queue_queries", "", stats.queries);
    gauge(&g, "pados_background_tasks", "", stats.background);
    gauge(&g, "pados_expired_total", "", (double)stats.expired);
    gauge(&g, "pados_held_bytes", "", (double)atomic_load(&server->held_bytes));
    gauge(&g, "pados_ready", "", pd_pages_ready(server, why, sizeof why));
    pd_catalog *catalog = atomic_load(&server->catalog);
    if (!catalog) return;
    pd_catalog_gauges(catalog, gauge, &g);
    if (server->recall) pd_recall_tell(server->recall, gauge, &g);
    if (server->recall_book) pd_recall_book_tell(server->recall_book, gauge, &g);
}

/* ------------------------------------------------------------------------------------------------------ page --- */

static void add_escaped(pd_text *text, const char *plain)
{
    for (; *plain; plain++) {
        switch (*plain) {
        case '<':
            pd_text_add(text, "&lt;");
            break;
        case '>':
            pd_text_add(text, "&gt;");
            break;
        case '&':
            pd_text_add(text, "&amp;");
            break;
        case '"':
            pd_text_add(text, "&quot;");
            break;
        default:
            pd_text_add(text, "%c", *plain);
        }
    }
}

static void add_tables(pd_server *server, pd_text *text)
{
    pd_catalog *catalog = atomic_load(&server->catalog);
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__TableList list = PADOS__V1__TABLE_LIST__INIT;
    Pados__V1__Reply *reply = malloc(sizeof *reply);
    pd_error err = {0};
    if (!reply) return;
    pados__v1__reply__init(reply);
    request.body_case = PADOS__V1__REQUEST__BODY_TABLE_LIST;
    request.table_list = &list;
    if (!catalog) {
        pd_text_add(text, "<p>Tables are being loaded.</p>\n");
    } else if (pd_catalog_admin(catalog, &request, reply, &err)) {
        pd_text_add(text, "<p>");
        add_escaped(text, err.message);
        pd_text_add(text, "</p>\n");
    } else {
        pd_text_add(text,
                    "<table>\n<tr><th>table<th>version<th>rows<th>dim<th>metric<th>lists<th>code<th>refine"
                    "<th>device MiB<th>disk MiB</tr>\n");
        for (size_t i = 0; i < reply->table_list->n_tables; i++) {
            const Pados__V1__TableInfo *t = reply->table_list->tables[i];
            pd_text_add(text, "<tr><td>");
            add_escaped(text, t->table);
            pd_text_add(text, "<td>%llu<td>%llu<td>%u<td>%s<td>%u<td>%s<td>%s<td>%.1f<td>%.1f</tr>\n",
                        (unsigned long long)t->serving, (unsigned long long)t->rows, t->dim, t->metric,
                        t->nlist, t->code, t->refine, (double)t->device_bytes / 1048576.0,
                        (double)t->disk_bytes / 1048576.0);
        }
        pd_text_add(text, "</table>\n");
    }
    pados__v1__reply__free_unpacked(reply, NULL);
}

void pd_pages_page(void *context, pd_text *text)
{
    pd_server *server = context;
    char why[600] = "";
    int ready = pd_pages_ready(server, why, sizeof why);
    pd_text_add(text,
                "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Pados</title>\n"
                "<style>body{font:15px sans-serif;margin:2em}td,th{padding:.2em 1em;text-align:right}"
                "td:first-child,th:first-child{text-align:left}</style></head>\n<body><h1>Pados</h1>\n<p>");
    add_escaped(text, PD_SERVER_NAME);
    pd_text_add(text, ", backend %s. ", server->backend);
    if (ready) {
        pd_text_add(text, "Ready.</p>\n");
    } else {
        pd_text_add(text, "Not ready: ");
        add_escaped(text, why);
        pd_text_add(text, "</p>\n");
    }
    add_tables(server, text);
    pd_text_add(text, "<p><a href=\"/metrics\">metrics</a> <a href=\"/healthz\">health</a> "
                      "<a href=\"/readyz\">readiness</a></p>\n</body></html>\n");
}
