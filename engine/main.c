/* padosd: arguments, signals, start and stop. */
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "server.h"
#include "snapshot_folder.h"

static const char usage[] =
    "Usage: padosd [--config FILE] [--set key=value]... [--restore FOLDER] [--check]\n"
    "\n"
    "  --config FILE    the configuration; configs/padosd.conf shows every key with its default\n"
    "  --set key=value  sets one key over the file, for instance --set "
    "data.url=\\\"tcp://127.0.0.1:9000\\\"\n"
    "  --restore FOLDER makes the data folder from a snapshot first; one that is there is moved aside\n"
    "  --check          reads and checks the configuration, or the snapshot, and exits\n"
    "  --version        prints the version, and exits\n"
    "  --help           prints this, and exits\n"
    "\n"
    "SIGTERM and SIGINT stop it: new requests are refused, queued ones are finished within stop_ms.\n"
    "SIGHUP reads the configuration again, with the same --set, and takes over all of it or nothing.\n"
    "Exit status: 0 stopped as asked, 1 could not start, 2 wrong arguments or configuration.\n";

#define MAX_SETS 256

typedef struct arguments {
    const char *config, *restore;
    const char *sets[MAX_SETS];
    size_t nsets;
    int check;
} arguments;

static sem_t asked; /* something of what follows */
static atomic_int asked_to_stop, asked_to_reload, running;

/* While tables load there is nothing to finish: versions are immutable, and the lock goes with the process. */
static void on_signal(int number)
{
    (void)number;
    if (!atomic_load(&running)) _exit(0);
    int kept = errno;
    atomic_store(&asked_to_stop, 1);
    sem_post(&asked);
    errno = kept;
}

/* One that comes while tables load is done once they are. */
static void on_hangup(int number)
{
    (void)number;
    int kept = errno;
    atomic_store(&asked_to_reload, 1);
    sem_post(&asked);
    errno = kept;
}

static int catch_signals(void)
{
    struct sigaction stop = {.sa_handler = on_signal}, reload = {.sa_handler = on_hangup},
                     ignore = {.sa_handler = SIG_IGN};
    sigemptyset(&stop.sa_mask);
    sigemptyset(&reload.sa_mask);
    stop.sa_flags = reload.sa_flags = SA_RESTART;
    return sem_init(&asked, 0, 0) || sigaction(SIGTERM, &stop, NULL) || sigaction(SIGINT, &stop, NULL) ||
           sigaction(SIGHUP, &reload, NULL) || sigaction(SIGPIPE, &ignore, NULL);
}

/* -1: go on; else the exit status. */
static int read_arguments(int argc, char **argv, arguments *out)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            fputs(usage, stdout);
            return 0;
        }
        if (!strcmp(argv[i], "--version")) {
            puts(PD_SERVER_NAME);
            return 0;
        }
        if (!strcmp(argv[i], "--check")) {
            out->check = 1;
        } else if (!strcmp(argv[i], "--config") && value) {
            out->config = value;
            i++;
        } else if (!strcmp(argv[i], "--restore") && value) {
            out->restore = value;
            i++;
        } else if (!strcmp(argv[i], "--set") && value && out->nsets < MAX_SETS) {
            out->sets[out->nsets++] = value;
            i++;
        } else {
            fprintf(stderr, "padosd: \"%s\" is not an option, or lacks its value\n\n%s", argv[i], usage);
            return 2;
        }
    }
    return -1;
}

/* Until SIGTERM or SIGINT. */
static void wait_for_the_end(pd_server *server, const arguments *args)
{
    while (!atomic_load(&asked_to_stop)) {
        pd_error err = {0};
        if (sem_wait(&asked)) continue; /* interrupted */
        if (atomic_exchange(&asked_to_reload, 0))
            pd_server_reload(server, args->config, args->sets, args->nsets, &err);
    }
}

/* Checks the snapshot, and makes the data folder from it unless only the check is asked for. */
static int restore(const pd_config *config, const arguments *args)
{
    pd_error err = {0};
    pd_snapshot snapshot = {0};
    char aside[PD_PATH_ROOM] = "";
    uint32_t carried = 0;
    pd_status status = pd_snapshot_open(args->restore, &snapshot, &err);
    if (!status) status = pd_snapshot_check(&snapshot, &err);
    if (!status && !args->check) status = pd_snapshot_restore(&snapshot, config, aside, &carried, &err);
    if (status)
        pd_log(PD_LOG_ERROR, "nothing is restored: %s", err.message);
    else if (args->check)
        printf("the snapshot is whole: %zu tables, changes up to %" PRIu64 ", of %s\n",
               json_array_size(snapshot.tables), snapshot.sequence, snapshot.taken);
    else
        pd_log(PD_LOG_INFO, "%s is restored from %s, of %s, with changes up to %" PRIu64, config->data_folder,
               args->restore, snapshot.taken, snapshot.sequence);
    if (*aside && !status) pd_log(PD_LOG_INFO, "what was there before is now %s", aside);
    if (carried)
        pd_log(PD_LOG_INFO, "%u erasures that came after the snapshot are carried out again", carried);
    pd_snapshot_close(&snapshot);
    return status ? 1 : 0;
}

static int serve(const pd_config *config, const arguments *args)
{
    pd_error err = {0};
    pd_server *server;
    char about[1500];
    if (catch_signals()) {
        pd_log(PD_LOG_ERROR, "signals: %s", strerror(errno));
        return 1;
    }
    if (pd_server_open(config, &server, &err)) {
        pd_log(PD_LOG_ERROR, "cannot start: %s", err.message);
        return 1;
    }
    atomic_store(&running, 1);
    pd_server_about(server, about, sizeof about);
    pd_log(PD_LOG_INFO, "%s", about);
    wait_for_the_end(server, args);
    pd_log(PD_LOG_INFO, "stopping: what is queued is finished, within %u ms", pd_server_stop_ms(server));
    pd_server_close(server);
    pd_log(PD_LOG_INFO, "stopped");
    return 0;
}

/* What a table holds in host memory comes and goes in large pieces, allocated by many threads. Left alone glibc comes to keep
 * pieces of up to 32 MiB in each thread's arena, which grow with every version; pieces of MAPPED_BYTES and more are mapped, so that freeing
 * one gives it back. Not malloc_trim when a table closes: it holds every arena's lock, at the builder's idle priority. */
static void settle_memory(void)
{
#ifdef M_MMAP_THRESHOLD
    enum { MAPPED_BYTES = 1 << 20 };
    mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES);
    mallopt(M_TRIM_THRESHOLD, 2 * MAPPED_BYTES);
#endif
}

int main(int argc, char **argv)
{
    settle_memory();
    arguments args = {0};
    pd_error err = {0};
    pd_config *config;
    int status = read_arguments(argc, argv, &args);
    if (status >= 0) return status;
    if (pd_config_load(args.config, args.sets, args.nsets, &config, &err) != PD_OK) {
        fprintf(stderr, "padosd: %s\n", err.message);
        return 2;
    }
    if (pd_config_check(config, &err) != PD_OK) {
        fprintf(stderr, "padosd: %s\n", err.message);
        pd_config_free(config);
        return 2;
    }
    pd_log_level(config->log_level);
    status = args.restore ? restore(config, &args) : 0;
    if (!status && args.check && !args.restore) puts("the configuration is good");
    if (!status && !args.check) status = serve(config, &args);
    pd_config_free(config);
    return status;
}
