/* Schemas from arbitrary text. One that is accepted must come back from its own text, as the same text, and have a shape
 * that the kernels take. */
#include "fuzz_seeds.h"

#include <stdlib.h>
#include <string.h>

#include "schema.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const char *const seeds[] = {
        "table = { metric = \"cosine\"; dim = 64; queries = \"households\"; order_by = \"department\";\n"
        "  fallback = ( \"given\", \"segment:department\", \"attributes\" ); policy = \"drain\"; keep = 2;\n"
        "  attributes = ( { name = \"department\"; type = \"category\"; values = ( \"A\", \"B \\\"c\\\"\" ); "
        "},\n"
        "    { name = \"price\"; type = \"number\"; knots = ( 1.0, 2, 3.5e1 ); representatives = ( 1, 2, 3, "
        "4 ); },\n"
        "    { name = \"added\"; type = \"number\"; age = true; knots = ( \"2026-01-01\" ); },\n"
        "    { name = \"zones\"; type = \"set\"; values = ( \"n\" ); open = true; },\n"
        "    { name = \"brand\"; type = \"key\"; } ); };\n",
        "table : { index = \"none\" source = \"f16\", refine = \"f32\"; /* x */ space = \"a\" \"b\"; };",
        "table = { dim = 0x10L; nlist = 7; code = \"f32\"; refine = \"none\"; };",
        "@include \"x\"",
    };
    for (size_t i = 0; i < sizeof seeds / sizeof seeds[0]; i++) {
        char name[2] = {(char)('a' + i), 0};
        fuzz_seed(*argc, *argv, name, seeds[i], strlen(seeds[i]));
    }
    return 0;
}

static void check_shape(const pd_schema *schema)
{
    pd_shape shape;
    pd_layout layout;
    pd_schema_shape(schema, 4, &shape);
    if (shape.dim == 0) shape.dim = 1; /* comes from the data */
    if (shape.code == PD_CODE_NONE && shape.refine == PD_REFINE_NONE) abort();
    if (pd_layout_of(&shape, &layout, NULL) != PD_OK) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pd_schema *schema, *back, *copy;
    pd_error err;
    char *text, *again;
    pd_status status = pd_schema_parse("fuzz", (const char *)data, size, &schema, &err);
    if (status != PD_OK) {
        if (status != PD_INVALID_ARGUMENT || schema || !err.message[0]) abort();
        return 0;
    }
    check_shape(schema);
    if (pd_schema_copy(schema, &copy, &err) || pd_schema_text(copy, &text, &err)) abort();
    if (pd_schema_parse("again", text, strlen(text), &back, &err)) abort();
    if (pd_schema_text(back, &again, &err) || strcmp(text, again) != 0) abort();
    free(text);
    free(again);
    pd_schema_free(schema);
    pd_schema_free(copy);
    pd_schema_free(back);
    return 0;
}
