/* What a reload cannot take over: what was bound, opened, reserved or started with it. */
#include <stdio.h>
#include <string.h>

#include "config.h"

typedef struct differences {
    char text[400];
    int count;
} differences;

static void differs(differences *d, const char *group, const char *key)
{
    size_t used = strlen(d->text);
    snprintf(d->text + used, sizeof d->text - used, "%s%s%s%s", d->count++ ? ", " : "", group,
             *group ? "." : "", key);
}

static void same_text(differences *d, const char *group, const char *key, const char *a, const char *b)
{
    if (strcmp(a, b) != 0) differs(d, group, key);
}

static void same_number(differences *d, const char *group, const char *key, uint64_t a, uint64_t b)
{
    if (a != b) differs(d, group, key);
}

/* Tokens are read again; "insecure" only says what the check may let pass. */
static void same_listener(differences *d, const char *name, const pd_listener_config *a,
                          const pd_listener_config *b)
{
    same_text(d, name, "url", a->url, b->url);
    same_text(d, name, "cert_file", a->cert_file, b->cert_file);
    same_text(d, name, "key_file", a->key_file, b->key_file);
}

pd_status pd_config_change(const pd_config *now, const pd_config *next, pd_error *err)
{
    differences d = {{0}, 0};
    same_text(&d, "", "data_folder", now->data_folder, next->data_folder);
    same_listener(&d, "data", &now->data, &next->data);
    same_listener(&d, "admin", &now->admin, &next->admin);
    same_listener(&d, "http", &now->http, &next->http);
    same_text(&d, "", "backend", now->backend, next->backend);
    same_text(&d, "", "isa", now->isa, next->isa);
    same_number(&d, "", "memory_mib", now->memory, next->memory);
    same_number(&d, "", "refine_host_mib", now->host_memory, next->host_memory);
    same_number(&d, "", "threads", now->threads, next->threads);
    same_number(&d, "", "builder_threads", now->builder_threads, next->builder_threads);
    same_number(&d, "", "builder_priority", (uint64_t)now->builder_normal, (uint64_t)next->builder_normal);
    same_number(&d, "changes", "durability", (uint64_t)now->changes_durability,
                (uint64_t)next->changes_durability);
    same_number(&d, "changes", "max_mib", now->changes_bytes, next->changes_bytes);
    same_number(&d, "", "writer_threads", now->writer_threads, next->writer_threads);
    if (!d.count) return PD_OK;
    return pd_fail(err, PD_FAILED_PRECONDITION, "%s cannot change while serving: restart for %s", d.text,
                   d.count > 1 ? "them" : "it");
}
