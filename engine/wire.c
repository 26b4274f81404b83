/* Decoding with a budget.
 *
 * protobuf-c allocates an array and a struct for each repeated message, empty or not: 1 MiB of empty ones (2 bytes each)
 * becomes 32 MiB of heap. The allocator here knows the message's length and refuses what goes past 8 times that and 1 MiB,
 * which no honest request comes near (vectors and ids take 1 byte a byte). The nearest is an update of 65,536 rows to 65,536
 * texts of no length: 10 bytes a row on the wire, and up to 80 for the table that protobuf-c scans its texts into, which is
 * why the budget is not a smaller one.
 *
 * Small pieces come from chunks that are freed together, so that a context of strings costs no malloc a string; larger
 * ones (scan tables, arrays, vectors) are blocks of their own, because protobuf-c frees its scan tables as it goes and
 * they would otherwise count until the end.
 */
#include "wire.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

#include "pados.pb-c.h"

#define CHUNK_BYTES 8192u
#define SMALL_BYTES 512u
#define HEADER      16u /* before each piece: its size, and whether it is a block; keeps 16-byte alignment */

typedef struct piece {
    struct piece *next, *previous; /* of blocks */
} piece;
typedef struct header {
    uint64_t size;
    uint64_t block;
} header;
_Static_assert(sizeof(header) == HEADER, "the header keeps the alignment");

typedef struct chunk {
    struct chunk *next;
    size_t used, size;
    alignas(16) unsigned char bytes[];
} chunk;

struct pd_wire {
    Pados__V1__Request *request;
    uint64_t budget, held;
    int over;
    chunk *chunks;
    piece blocks; /* ring */
};

uint64_t pd_wire_budget(size_t length)
{
    return 8u * (uint64_t)length + (1u << 20);
}

static void *take_small(pd_wire *wire, size_t size)
{
    size_t need = HEADER + ((size + 15u) & ~(size_t)15u);
    chunk *at = wire->chunks;
    if (!at || at->size - at->used < need) {
        at = malloc(sizeof *at + CHUNK_BYTES);
        if (!at) return NULL;
        *at = (chunk){.next = wire->chunks, .size = CHUNK_BYTES};
        wire->chunks = at;
    }
    header *head = (header *)(void *)(at->bytes + at->used);
    *head = (header){.size = size, .block = 0};
    at->used += need;
    return head + 1;
}

static void *take_block(pd_wire *wire, size_t size)
{
    piece *link = malloc(sizeof *link + HEADER + size);
    if (!link) return NULL;
    link->next = wire->blocks.next;
    link->previous = &wire->blocks;
    link->next->previous = link;
    wire->blocks.next = link;
    header *head = (header *)(void *)(link + 1);
    *head = (header){.size = size, .block = 1};
    return head + 1;
}

static void *wire_alloc(void *context, size_t size)
{
    pd_wire *wire = context;
    if (size > wire->budget - wire->held) {
        wire->over = 1;
        return NULL;
    }
    void *out = size <= SMALL_BYTES ? take_small(wire, size) : take_block(wire, size);
    if (out) wire->held += size;
    return out;
}

static void wire_release(void *context, void *pointer)
{
    pd_wire *wire = context;
    if (!pointer) return;
    header *head = (header *)pointer - 1;
    if (!head->block) return; /* freed with its chunk */
    wire->held -= head->size;
    piece *link = (piece *)(void *)head - 1;
    link->next->previous = link->previous;
    link->previous->next = link->next;
    free(link);
}

pd_status pd_wire_decode(const uint8_t *bytes, size_t length, pd_wire **out, pd_error *err)
{
    pd_wire *wire = calloc(1, sizeof *wire);
    if (!wire) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a request of %zu bytes", length);
    wire->budget = pd_wire_budget(length);
    wire->blocks.next = wire->blocks.previous = &wire->blocks;
    ProtobufCAllocator allocator = {.alloc = wire_alloc, .free = wire_release, .allocator_data = wire};
    wire->request = pados__v1__request__unpack(&allocator, length, bytes);
    if (!wire->request) {
        int over = wire->over;
        unsigned long long budget = wire->budget;
        pd_wire_free(wire);
        if (over)
            return pd_fail(err, PD_RESOURCE_EXHAUSTED,
                           "a request of %zu bytes unpacks to more than %llu bytes: too many small parts",
                           length, budget);
        return pd_fail(err, PD_INVALID_ARGUMENT, "the message of %zu bytes is not a pados.v1.Request",
                       length);
    }
    *out = wire;
    return PD_OK;
}

Pados__V1__Request *pd_wire_request(pd_wire *wire)
{
    return wire->request;
}

uint64_t pd_wire_held(const pd_wire *wire)
{
    return wire->held;
}

void pd_wire_free(pd_wire *wire)
{
    if (!wire) return;
    for (piece *link = wire->blocks.next, *next; link != &wire->blocks; link = next) {
        next = link->next;
        free(link);
    }
    for (chunk *at = wire->chunks, *next; at; at = next) {
        next = at->next;
        free(at);
    }
    free(wire);
}

/* Bytes of the well-formed UTF-8 sequence at text (RFC 3629), 0 when there is none. */
static size_t utf8_length(const unsigned char *text)
{
    unsigned c = text[0];
    if (c < 0x80) return 1;
    size_t more = c >= 0xc2 && c <= 0xdf ? 1 : (c & 0xf0) == 0xe0 ? 2 : c >= 0xf0 && c <= 0xf4 ? 3 : 0;
    if (!more) return 0;
    unsigned low = 0x80, high = 0xbf;
    if (c == 0xe0) low = 0xa0;
    if (c == 0xed) high = 0x9f;
    if (c == 0xf0) low = 0x90;
    if (c == 0xf4) high = 0x8f;
    if (text[1] < low || text[1] > high) return 0;
    for (size_t i = 2; i <= more; i++)
        if (text[i] < 0x80 || text[i] > 0xbf) return 0;
    return more + 1;
}

void pd_utf8_clean(char *text)
{
    unsigned char *at = (unsigned char *)text;
    while (*at) {
        size_t length = utf8_length(at);
        if (length == 0) {
            *at = '?';
            length = 1;
        }
        at += length;
    }
}

const char *pd_wire_body(const Pados__V1__Request *request)
{
    const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(
        &pados__v1__request__descriptor, (unsigned)request->body_case);
    return field ? field->name : "nothing";
}
