/* padosd's configuration file, read strictly: every key is asked for by name with its bounds, whatever nobody asked for is an
 * error (ingest/conf.h). configs/padosd.conf shows all keys with these same defaults; tests/engine/test_config.c
 * holds the two together. */
#include "config.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf.h"

#define MIB (1024.0 * 1024.0)

static char *copy(pd_conf *conf, const char *text, int *lost)
{
    (void)conf;
    char *out = strdup(text ? text : "");
    if (!out) *lost = 1;
    return out;
}

static void read_listener(pd_conf *conf, const char *key, const char *url, pd_listener_config *out, int *lost)
{
    pd_setting *group = pd_conf_group(conf, pd_conf_root(conf), key);
    out->url = copy(conf, group ? pd_conf_string(conf, group, "url", url) : url, lost);
    out->cert_file = copy(conf, group ? pd_conf_string(conf, group, "cert_file", "") : "", lost);
    out->key_file = copy(conf, group ? pd_conf_string(conf, group, "key_file", "") : "", lost);
    out->token_file = copy(conf, group ? pd_conf_string(conf, group, "token_file", "") : "", lost);
    out->insecure = group ? pd_conf_bool(conf, group, "insecure", 0) : 0;
}

static uint32_t read_u32(pd_conf *conf, const char *key, uint32_t fallback, uint32_t low, uint32_t high)
{
    return (uint32_t)pd_conf_int(conf, pd_conf_root(conf), key, fallback, low, high);
}

/* The place of the value under key among names, NULL-terminated; list: the names in words. */
static int read_choice(pd_conf *conf, pd_setting *in, const char *key, const char *const *names,
                       const char *list, int fallback)
{
    const char *name = pd_conf_string(conf, in, key, names[fallback]);
    for (int i = 0; name && names[i]; i++)
        if (!strcmp(name, names[i])) return i;
    pd_conf_fail(conf, in, "%s must be %s, not \"%s\"", key, list, name ? name : "");
    return fallback;
}

static int read_level(pd_conf *conf)
{
    static const char *const names[] = {"error", "warning", "info", "debug", NULL};
    return read_choice(conf, pd_conf_root(conf), "log_level", names, "error, warning, info or debug", 2);
}

static void read_device(pd_conf *conf, pd_config *c, int *lost)
{
    static const char *const priorities[] = {"idle", "normal", NULL};
    pd_setting *root = pd_conf_root(conf);
    c->backend = copy(conf, pd_conf_string(conf, root, "backend", "auto"), lost);
    c->isa = copy(conf, pd_conf_string(conf, root, "isa", ""), lost);
    /* MiB, because libconfig integers over 31 bits need an L that is easily forgotten. */
    c->memory = (uint64_t)(pd_conf_float(conf, root, "memory_mib", 1024, 1, 64.0 * MIB) * MIB);
    c->host_memory = (uint64_t)(pd_conf_float(conf, root, "refine_host_mib", 0, 0, 64.0 * MIB) * MIB);
    c->threads = read_u32(conf, "threads", 0, 0, 1024);
    c->builder_threads = read_u32(conf, "builder_threads", 0, 0, 1024);
    c->builder_normal = read_choice(conf, root, "builder_priority", priorities, "idle or normal", 0);
}

static void read_limits(pd_conf *conf, pd_config *c)
{
    pd_setting *root = pd_conf_root(conf);
    c->max_message = read_u32(conf, "max_message", 64u << 20, 64u << 10, 1u << 30);
    c->max_chunk = read_u32(conf, "max_chunk", 4u << 20, 4u << 10, 256u << 20);
    c->max_queries = read_u32(conf, "max_queries", 4096, 1, 4096);
    c->max_hits = read_u32(conf, "max_hits", 1000000, 1, 1000000);
    c->max_push_bytes = (uint64_t)(pd_conf_float(conf, root, "max_push_mib", 65536, 1, 64.0 * MIB) * MIB);
    c->queue_requests = read_u32(conf, "queue_requests", 2048, 1, 65536);
    c->queue_queries = read_u32(conf, "queue_queries", 65536, 1, 16u << 20);
    c->pipe_requests = read_u32(conf, "pipe_requests", 128, 1, 65536);
    c->batch_queries = read_u32(conf, "batch_queries", 4096, 1, 65536);
    c->batch_wait_us = read_u32(conf, "batch_wait_us", 200, 0, 1000000);
    c->slice_us = read_u32(conf, "slice_us", 5000, 100, 1000000);
    c->deadline_ms = read_u32(conf, "deadline_ms", 10000, 1, 3600000);
    c->max_deadline_ms = read_u32(conf, "max_deadline_ms", 60000, 1, 3600000);
    c->send_timeout_ms = read_u32(conf, "send_timeout_ms", 5000, 1, 600000);
    c->stop_ms = read_u32(conf, "stop_ms", 10000, 0, 600000);
    c->keep = read_u32(conf, "keep", 3, 0, 1000);
    c->calibration_queries = read_u32(conf, "calibration_queries", 2500, 100, 1000000);
    if (c->deadline_ms > c->max_deadline_ms)
        pd_conf_fail(conf, root, "deadline_ms is %u, over max_deadline_ms, which is %u", c->deadline_ms,
                     c->max_deadline_ms);
    if (c->max_chunk + 4096u > c->max_message)
        pd_conf_fail(conf, root, "max_chunk (%u) and 4,096 bytes around it do not fit max_message (%llu)",
                     c->max_chunk, (unsigned long long)c->max_message);
    if (c->queue_queries < c->max_queries)
        pd_conf_fail(conf, root, "queue_queries (%u) must hold one request of max_queries (%u)",
                     c->queue_queries, c->max_queries);
}

#define INTERVAL_MS 50
#define CHANGES_MIB 16384.0

static void read_changes(pd_conf *conf, pd_config *c)
{
    static const char *const durabilities[] = {"sync", "interval", "none", NULL};
    pd_setting *root = pd_conf_root(conf), *group = pd_conf_group(conf, root, "changes");
    double mib = CHANGES_MIB;
    c->changes_interval_ms = INTERVAL_MS;
    if (group) {
        c->changes_durability =
            read_choice(conf, group, "durability", durabilities, "sync, interval or none", 0);
        c->changes_interval_ms = (uint32_t)pd_conf_int(conf, group, "interval_ms", INTERVAL_MS, 1, 60000);
        mib = pd_conf_float(conf, group, "max_mib", CHANGES_MIB, 1, 64.0 * MIB);
    }
    c->changes_bytes = (uint64_t)(mib * MIB);
    c->spare_percent = read_u32(conf, "spare_percent", 25, 0, 1000);
    c->rebuild_percent = read_u32(conf, "rebuild_percent", 20, 0, 1000);
    c->writer_threads = read_u32(conf, "writer_threads", 1, 1, 1024);
    c->erase_ms = (uint64_t)(pd_conf_float(conf, root, "erase_hours", 72, 0, 87600) * 3600e3);
    c->receipt_days = pd_conf_float(conf, root, "receipt_days", 1095, 0, 36500);
    c->recall_sample = pd_conf_float(conf, root, "recall_sample", 0.001, 0, 1);
}

pd_status pd_config_load(const char *path, const char *const *sets, size_t nsets, pd_config **out,
                         pd_error *err)
{
    pd_conf *conf = NULL;
    int lost = 0;
    pd_status status = path ? pd_conf_load(path, &conf, err) : pd_conf_parse("defaults", "", 0, &conf, err);
    if (status) return status;
    for (size_t i = 0; i < nsets; i++) {
        status = pd_conf_set(conf, sets[i], err);
        if (status) {
            pd_prefix(err, "--set %s", sets[i]);
            goto err_after_conf;
        }
    }
    pd_config *c = calloc(1, sizeof *c);
    if (!c) {
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the configuration");
        goto err_after_conf;
    }
    c->data_folder = copy(conf, pd_conf_string(conf, pd_conf_root(conf), "data_folder", "pados-data"), &lost);
    read_listener(conf, "data", "tcp://127.0.0.1:7461", &c->data, &lost);
    read_listener(conf, "admin", "tcp://127.0.0.1:7462", &c->admin, &lost);
    read_listener(conf, "http", "http://127.0.0.1:7463", &c->http, &lost);
    read_device(conf, c, &lost);
    read_limits(conf, c);
    read_changes(conf, c);
    c->log_level = read_level(conf);
    status = pd_conf_finish(conf, err);
    if (!status && lost) status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the configuration");
    if (status) {
        pd_config_free(c);
        goto err_after_conf;
    }
    *out = c;
err_after_conf:
    pd_conf_close(conf);
    return status;
}

static void free_listener(pd_listener_config *listener)
{
    free(listener->url);
    free(listener->cert_file);
    free(listener->key_file);
    free(listener->token_file);
}

void pd_config_free(pd_config *config)
{
    if (!config) return;
    free(config->data_folder);
    free_listener(&config->data);
    free_listener(&config->admin);
    free_listener(&config->http);
    free(config->backend);
    free(config->isa);
    free(config);
}

/* ------------------------------------------------------------------------------------------------ checking --- */

static int starts(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* Is the host of "scheme://host:port/..." this machine alone? Only literal loopback addresses and "localhost" count: a
 * name could resolve to anything. */
static int url_is_local(const char *url)
{
    if (starts(url, "ipc://") || starts(url, "inproc://") || starts(url, "abstract://")) return 1;
    const char *host = strstr(url, "://");
    if (!host) return 0;
    host += 3;
    char name[256];
    size_t length;
    if (*host == '[') {
        host++;
        length = strcspn(host, "]");
    } else {
        length = strcspn(host, ":/");
    }
    if (length == 0 || length >= sizeof name) return 0;
    memcpy(name, host, length);
    name[length] = 0;
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, name, &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
    if (inet_pton(AF_INET6, name, &v6) == 1) return IN6_IS_ADDR_LOOPBACK(&v6);
    return strcmp(name, "localhost") == 0;
}

static int url_is_tls(const char *url)
{
    return starts(url, "tls+tcp://") || starts(url, "https://");
}

/* nng starts happily with a certificate that is not there and fails every client, so the file is opened and looked at. */
static pd_status check_pem(const char *name, const char *key, const char *path, const char *marker,
                           pd_error *err)
{
    FILE *file = fopen(path, "rb");
    if (!file) return pd_fail(err, PD_INVALID_ARGUMENT, "%s.%s: \"%s\" cannot be read: %m", name, key, path);
    char text[4096];
    int found = 0;
    while (!found && fgets(text, sizeof text, file))
        found = strstr(text, "-----BEGIN ") != NULL && strstr(text, marker) != NULL;
    fclose(file);
    if (!found)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s.%s: \"%s\" holds no PEM %s", name, key, path, marker);
    return PD_OK;
}

static pd_status check_token_file(const char *name, const char *path, pd_error *err)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s.token_file: \"%s\" cannot be read: %m", name, path);
    char line[4096];
    int tokens = 0, shortest = 1 << 30;
    while (fgets(line, sizeof line, file)) {
        int length = (int)strcspn(line, "\r\n");
        if (length == 0) continue;
        tokens++;
        if (length < shortest) shortest = length;
    }
    fclose(file);
    if (!tokens) return pd_fail(err, PD_INVALID_ARGUMENT, "%s.token_file: \"%s\" holds no token", name, path);
    if (shortest < 8)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "%s.token_file: \"%s\" has a token of %d bytes; 8 are the least", name, path,
                       shortest);
    return PD_OK;
}

static pd_status check_tls_files(const char *name, const pd_listener_config *l, pd_error *err)
{
    if (!*l->cert_file || !*l->key_file)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s.url is %s: TLS needs %s.cert_file and %s.key_file", name,
                       l->url, name, name);
    pd_status status = check_pem(name, "cert_file", l->cert_file, "CERTIFICATE", err);
    if (!status) status = check_pem(name, "key_file", l->key_file, "KEY", err);
    return status;
}

static pd_status check_listener(const char *name, const pd_listener_config *l, int http, pd_error *err)
{
    if (!*l->url) return PD_OK;
    int known = http ? starts(l->url, "http://") || starts(l->url, "https://")
                     : starts(l->url, "tcp://") || starts(l->url, "tls+tcp://") || starts(l->url, "ipc://");
    if (!known)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s.url: \"%s\" must start with %s", name, l->url,
                       http ? "http:// or https://" : "tcp://, tls+tcp:// or ipc://");
    if (strlen(l->url) >= 128)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s.url: \"%s\" is longer than 127 bytes", name, l->url);
    pd_status status;
    if (url_is_tls(l->url)) {
        status = check_tls_files(name, l, err);
        if (status) return status;
    } else if (*l->cert_file || *l->key_file) {
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "%s has a certificate, but %s.url is %s, which does not use it", name, name, l->url);
    }
    if (*l->token_file) {
        status = check_token_file(name, l->token_file, err);
        if (status) return status;
    }
    if (url_is_local(l->url) || l->insecure) return PD_OK;
    if (!url_is_tls(l->url) || !*l->token_file)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "%s.url: %s is a public address without %s: give it %s, listen on loopback, or set "
                       "%s.insecure = true",
                       name, l->url, url_is_tls(l->url) ? "a token" : "TLS",
                       url_is_tls(l->url) ? "a token_file" : "TLS and a token_file", name);
    return PD_OK;
}

pd_status pd_config_check(const pd_config *config, pd_error *err)
{
    if (!*config->data_folder) return pd_fail(err, PD_INVALID_ARGUMENT, "data_folder is empty");
    if (!*config->data.url)
        return pd_fail(err, PD_INVALID_ARGUMENT, "data.url is empty: searches need a listener");
    pd_status status = check_listener("data", &config->data, 0, err);
    if (!status) status = check_listener("admin", &config->admin, 0, err);
    if (!status) status = check_listener("http", &config->http, 1, err);
    return status;
}
