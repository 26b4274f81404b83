#include "batches.h"

#include <inttypes.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int choose_key(batches *b)
{
    if (b->key) {
        size_t length = strlen(b->key);
        if (!length || length > RUN_KEY_MAX)
            return usage_error("--key: %zu bytes are not from 1 to %d", length, RUN_KEY_MAX);
        return 0;
    }
    uint64_t random;
    if (getrandom(&random, sizeof random, 0) != sizeof random)
        return complain(PD_INTERNAL, "no random number for the run's key");
    snprintf(b->own_key, sizeof b->own_key, "%016" PRIx64, random);
    b->key = b->own_key;
    return 0;
}

int batches_open(batches *b, globals *g)
{
    b->g = g;
    if (!b->rows) b->rows = BATCH_ROWS;
    if (b->rows > PADOS_MAX_BATCH)
        return usage_error("--batch: %u rows are more than the %u of one write", b->rows, PADOS_MAX_BATCH);
    int code = choose_key(b);
    if (!code) code = connect_to(g, &b->client);
    if (code) return code;
    pados_limits_of(b->client, &b->limits);
    b->progress = (progress){.tty = isatty(STDERR_FILENO), .rows = b->total};
    b->next = b->from;
    b->durable = true;
    b->start_ms = now_ms();
    return 0;
}

const char *batches_key(batches *b, uint32_t count)
{
    snprintf(b->batch_key, sizeof b->batch_key, "%s/%" PRIu64 "+%u", b->key, b->next, count);
    return b->batch_key;
}

static void tell_progress(batches *b)
{
    /* One batch needs no progress; how many rows a CSV has was guessed from its lines. */
    uint64_t rows = b->next - b->from;
    if (b->total <= b->from + b->rows) return;
    pados_job job = {.stage = "send",
                     .done = rows,
                     .total = b->total - b->from > rows ? b->total - b->from : rows,
                     .seconds = (double)(now_ms() - b->start_ms) / 1000};
    b->progress.rows = job.total;
    show_progress(&b->progress, &job);
}

int batches_add(batches *b, uint32_t count, pados_status status, const pados_written *written,
                const pados_error *error)
{
    if (status) {
        end_progress(&b->progress);
        b->open = status == PD_UNAVAILABLE || status == PD_DEADLINE_EXCEEDED;
        return complain(status, "rows %" PRIu64 " to %" PRIu64 " (batch %" PRIu64 "): %s", b->next,
                        b->next + count - 1, b->count + 1, error->message);
    }
    b->next += count;
    b->count++;
    b->changed += written->changed;
    b->fresh += written->fresh;
    b->missing += written->missing;
    b->repeated += written->repeated;
    b->durable = b->durable && written->durable;
    if (written->sequence > b->sequence) b->sequence = written->sequence;
    tell_progress(b);
    return 0;
}

static void print_sum(const batches *b)
{
    uint64_t rows = b->next - b->from;
    double seconds = (double)(now_ms() - b->start_ms) / 1000;
    if (b->g->json) {
        json_line(json_pack(
            "{s:o, s:I, s:I, s:I, s:I, s:I, s:o, s:b, s:I, s:o}", "table", json_text(b->table), "rows",
            (json_int_t)rows, "batches", (json_int_t)b->count, "changed", (json_int_t)b->changed, "fresh",
            (json_int_t)b->fresh, "missing", (json_int_t)b->missing, "sequence", json_id(b->sequence),
            "durable", (int)b->durable, "repeated", (json_int_t)b->repeated, "seconds", json_real(seconds)));
        return;
    }
    char room[32];
    printf("%s: %s of ", b->table, count_text(b->changed, room, sizeof room));
    printf("%s rows %s", count_text(rows, room, sizeof room), b->did);
    if (b->fresh) printf(", %s of them new", count_text(b->fresh, room, sizeof room));
    if (b->missing) printf(", %s not there", count_text(b->missing, room, sizeof room));
    if (seconds >= 1)
        printf(", %s rows/s", count_text((uint64_t)((double)rows / seconds), room, sizeof room));
    printf("; sequence %" PRIu64 "%s\n", b->sequence, b->durable ? "" : ", not on the server's disk yet");
    if (b->repeated)
        printf("%" PRIu64 " of %" PRIu64 " batches had been %s before under the key %s\n", b->repeated,
               b->count, b->did, b->key);
}

int batches_close(batches *b, int code)
{
    end_progress(&b->progress);
    if (!code)
        print_sum(b);
    else if (b->count || b->open)
        warn("%" PRIu64 " rows before that are %s%s; go on with --from %" PRIu64 " --batch %u --key %s",
             b->next - b->from, b->did, b->durable ? "" : ", not on the server's disk yet", b->next, b->rows,
             b->key);
    pados_close(b->client);
    return code;
}
