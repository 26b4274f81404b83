/* Requests from anybody: decoding within its budget, then every check that needs no table. */
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "fuzz_seeds.h"
#include "pados.pb-c.h"
#include "request.h"
#include "wire.h"

static const pd_config limits = {.max_queries = 4096, .max_hits = 1000000};

static void seed(int argc, char **argv, const char *name, Pados__V1__Request *request)
{
    request->id = 7;
    size_t length = pados__v1__request__get_packed_size(request);
    uint8_t *bytes = malloc(length);
    if (!bytes) return;
    pados__v1__request__pack(request, bytes);
    fuzz_seed(argc, argv, name, bytes, length);
    free(bytes);
}

static void seed_search(int argc, char **argv, const char *name, Pados__V1__Search *search)
{
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_SEARCH;
    request.search = search;
    seed(argc, argv, name, &request);
}

static float vector[4] = {1, 2, 3, 4};
static uint64_t ids[] = {1, 2};

/* Writes with every way to give an attribute's values. */
static void seed_writes(int argc, char **argv)
{
    char *texts[] = {"SWEETS", ""}, *events[] = {"view", "buy"};
    uint32_t of[] = {1, 0};
    Pados__V1__AttributeValues numbers = PADOS__V1__ATTRIBUTE_VALUES__INIT, keys = numbers, cells = numbers,
                               *attributes[] = {&numbers, &keys, &cells};
    numbers.attribute = "price";
    numbers.numbers = (ProtobufCBinaryData){2 * sizeof(float), (uint8_t *)vector};
    keys.attribute = "brand";
    keys.keys = ids;
    keys.n_keys = 2;
    cells.attribute = "department";
    cells.texts = texts;
    cells.n_texts = 2;
    cells.text_of = of;
    cells.n_text_of = 2;
    Pados__V1__Matrix matrix = PADOS__V1__MATRIX__INIT;
    matrix.rows = matrix.dim = 2;
    matrix.data = (ProtobufCBinaryData){sizeof vector, (uint8_t *)vector};
    Pados__V1__Upsert upsert = PADOS__V1__UPSERT__INIT;
    upsert.table = "products";
    upsert.key = "k";
    upsert.ids = ids;
    upsert.n_ids = 2;
    upsert.vectors = &matrix;
    upsert.attributes = attributes;
    upsert.n_attributes = 3;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_UPSERT;
    request.upsert = &upsert;
    seed(argc, argv, "upsert", &request);
    Pados__V1__Update update = PADOS__V1__UPDATE__INIT;
    update.table = "products";
    update.ids = ids;
    update.n_ids = 2;
    update.attributes = attributes;
    update.n_attributes = 3;
    request.body_case = PADOS__V1__REQUEST__BODY_UPDATE;
    request.update = &update;
    seed(argc, argv, "update", &request);
    Pados__V1__Feedback feedback = PADOS__V1__FEEDBACK__INIT;
    feedback.table = "products";
    feedback.items = feedback.users = ids;
    feedback.n_items = feedback.n_users = 2;
    feedback.events = events;
    feedback.n_events = 2;
    feedback.event_of = of;
    feedback.n_event_of = 2;
    feedback.weights = vector;
    feedback.n_weights = 2;
    request.body_case = PADOS__V1__REQUEST__BODY_FEEDBACK;
    request.feedback = &feedback;
    seed(argc, argv, "feedback", &request);
}

static void seed_removals(int argc, char **argv)
{
    Pados__V1__Delete gone = PADOS__V1__DELETE__INIT;
    gone.table = "products";
    gone.key = "k";
    gone.ids = ids;
    gone.n_ids = 2;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_DELETE;
    request.delete_ = &gone;
    seed(argc, argv, "delete", &request);
    Pados__V1__Erase erase = PADOS__V1__ERASE__INIT;
    erase.table = "products";
    erase.ids = ids;
    erase.n_ids = 2;
    request.body_case = PADOS__V1__REQUEST__BODY_ERASE;
    request.erase = &erase;
    seed(argc, argv, "erase", &request);
    Pados__V1__Export export = PADOS__V1__EXPORT__INIT;
    export.table = "products";
    export.id = 7;
    request.body_case = PADOS__V1__REQUEST__BODY_EXPORT;
    request.export = &export;
    seed(argc, argv, "export", &request);
    Pados__V1__Snapshot snapshot = PADOS__V1__SNAPSHOT__INIT;
    snapshot.folder = "/backup/today";
    request.body_case = PADOS__V1__REQUEST__BODY_SNAPSHOT;
    request.snapshot = &snapshot;
    seed(argc, argv, "snapshot", &request);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    Pados__V1__Search search = PADOS__V1__SEARCH__INIT;
    Pados__V1__Matrix matrix = PADOS__V1__MATRIX__INIT;
    Pados__V1__Context context = PADOS__V1__CONTEXT__INIT, *contexts[] = {&context};
    Pados__V1__Condition filter = PADOS__V1__CONDITION__INIT, *filters[] = {&filter};
    Pados__V1__Mix mix = PADOS__V1__MIX__INIT, *mixes[] = {&mix};
    char *keys[] = {"festival"}, *values[] = {"diwali"};
    search.table = "products";
    search.count = 1;
    search.k = 3;
    matrix.rows = 1;
    matrix.dim = 4;
    matrix.data = (ProtobufCBinaryData){sizeof vector, (uint8_t *)vector};
    search.vectors = &matrix;
    seed_search(*argc, *argv, "search-1", &search);
    context.keys = keys;
    context.values = values;
    context.n_keys = context.n_values = 1;
    search.contexts = contexts;
    search.n_contexts = 1;
    filter.attribute = "zone";
    filter.kind = PADOS__V1__CONDITION__KIND__ANY_OF;
    filter.values = values;
    filter.n_values = 1;
    search.filters = filters;
    search.n_filters = 1;
    seed_search(*argc, *argv, "search-2", &search);
    search.vectors = NULL;
    mix.ids = ids;
    mix.n_ids = 2;
    mix.weights = vector;
    mix.n_weights = 2;
    search.mixes = mixes;
    search.n_mixes = 1;
    seed_search(*argc, *argv, "search-3", &search);
    seed_writes(*argc, *argv);
    seed_removals(*argc, *argv);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pd_wire *wire;
    pd_error err;
    if (pd_wire_decode(data, size, &wire, &err)) return 0;
    if (pd_wire_held(wire) > pd_wire_budget(size)) abort();
    const Pados__V1__Request *request = pd_wire_request(wire);
    if (!strlen(pd_wire_body(request))) abort();
    if (request->body_case == PADOS__V1__REQUEST__BODY_SEARCH &&
        pd_search_check(request->search, &limits, &err)) {
        pd_utf8_clean(err.message);
        if (err.status != PD_INVALID_ARGUMENT || !err.message[0]) abort();
    }
    pd_wire_free(wire);
    return 0;
}
