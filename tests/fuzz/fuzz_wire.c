/* Requests from anybody: decoding within its budget, then every check that needs no table. */
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "fuzz_seeds.h"
#include "pados.pb-c.h"
#include "request.h"
#include "wire.h"

static const pd_config limits = {.max_queries = 4096, .max_hits = 1000000};

static void seed(int argc, char **argv, int number, Pados__V1__Search *search)
{
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    char name[32];
    request.id = 7;
    request.body_case = PADOS__V1__REQUEST__BODY_SEARCH;
    request.search = search;
    size_t length = pados__v1__request__get_packed_size(&request);
    uint8_t *bytes = malloc(length);
    if (!bytes) return;
    pados__v1__request__pack(&request, bytes);
    snprintf(name, sizeof name, "search-%d", number);
    fuzz_seed(argc, argv, name, bytes, length);
    free(bytes);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    Pados__V1__Search search = PADOS__V1__SEARCH__INIT;
    Pados__V1__Matrix matrix = PADOS__V1__MATRIX__INIT;
    Pados__V1__Context context = PADOS__V1__CONTEXT__INIT, *contexts[] = {&context};
    Pados__V1__Condition filter = PADOS__V1__CONDITION__INIT, *filters[] = {&filter};
    Pados__V1__Mix mix = PADOS__V1__MIX__INIT, *mixes[] = {&mix};
    float vector[4] = {1, 2, 3, 4};
    uint64_t ids[] = {1, 2};
    char *keys[] = {"festival"}, *values[] = {"diwali"};
    search.table = "products";
    search.count = 1;
    search.k = 3;
    matrix.rows = 1;
    matrix.dim = 4;
    matrix.data = (ProtobufCBinaryData){sizeof vector, (uint8_t *)vector};
    search.vectors = &matrix;
    seed(*argc, *argv, 1, &search);
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
    seed(*argc, *argv, 2, &search);
    search.vectors = NULL;
    mix.ids = ids;
    mix.n_ids = 2;
    mix.weights = vector;
    mix.n_weights = 2;
    search.mixes = mixes;
    search.n_mixes = 1;
    seed(*argc, *argv, 3, &search);
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
