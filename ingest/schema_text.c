/* A schema, written: the text that a version keeps. Floats are written with nine digits, which name each f32 exactly;
 * strings with libconfig's escapes. What is at its default is written too: the text must mean the same in later years.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schema_impl.h"

static const char *const code_names[] = {
    [PD_CODE_NONE] = "none", [PD_CODE_I8] = "i8", [PD_CODE_F16] = "f16", [PD_CODE_F32] = "f32"};

static void write_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p == '"' || *p == '\\')
            fprintf(out, "\\%c", *p);
        else if (*p < 0x20 || *p == 0x7f)
            fprintf(out, "\\x%02x", *p);
        else
            fputc(*p, out);
    }
    fputc('"', out);
}

/* libconfig must see a float: a point or an exponent. %g writes the locale's point, so a comma is turned back. */
static void put_number(FILE *out, char *text)
{
    for (char *p = text; *p; p++)
        if (!strchr("+-0123456789e", *p)) *p = '.';
    fprintf(out, "%s%s", text, strpbrk(text, ".e") ? "" : ".0");
}

static void write_float(FILE *out, float value)
{
    char text[40];
    snprintf(text, sizeof text, "%.9g", (double)value);
    put_number(out, text);
}

/* The fewest digits that name an f64 exactly: 15 for what a person wrote. */
static void write_double(FILE *out, double value)
{
    char text[40];
    snprintf(text, sizeof text, "%.15g", value);
    if (strtod(text, NULL) != value) snprintf(text, sizeof text, "%.17g", value);
    put_number(out, text);
}

static void write_floats(FILE *out, const char *key, const float *values, uint32_t count)
{
    fprintf(out, " %s = (", key);
    for (uint32_t i = 0; i < count; i++) {
        fputs(i ? ", " : " ", out);
        write_float(out, values[i]);
    }
    fputs(" );", out);
}

static void write_values(FILE *out, const pd_attribute *attribute)
{
    uint32_t first = attribute->type == PD_CATEGORY;
    if (attribute->nvalues <= first && !attribute->closed) return;
    fputs("\n      values = (", out);
    for (uint32_t v = first; v < attribute->nvalues; v++) {
        fputs(v > first ? ", " : " ", out);
        write_string(out, attribute->values[v]);
    }
    fputs(" );", out);
    if (!attribute->closed) fputs(" open = true;", out);
}

static void write_feedback(FILE *out, const pd_attribute *attribute)
{
    fputs("\n      feedback = { half_life_hours = ", out);
    write_float(out, (float)(attribute->half_life * 24));
    fputc(';', out);
    for (uint32_t i = 0; i < attribute->nevents; i++) {
        fputs(i ? ", (" : " events = ( (", out);
        write_string(out, attribute->events[i].name);
        fputs(", ", out);
        write_double(out, attribute->events[i].weight);
        fputc(')', out);
    }
    fputs(attribute->nevents ? " ); };\n     " : " };\n     ", out);
}

static void write_attribute(FILE *out, const pd_attribute *attribute)
{
    fprintf(out, "    { name = \"%s\"; type = \"%s\";", attribute->name, pd_type_name(attribute->type));
    if (attribute->age) fputs(" age = true;", out);
    if (attribute->counts) write_feedback(out, attribute);
    if (attribute->type == PD_NUMBER) {
        if (attribute->nknots) write_floats(out, "knots", attribute->knots, attribute->nknots);
        if (attribute->chosen) fputs(" chosen = true;", out);
        if (attribute->ages_on > 0) {
            fputs(" ages_on = ", out);
            write_float(out, attribute->ages_on);
            fputc(';', out);
        }
        write_floats(out, "representatives", attribute->representatives + 1, attribute->nknots + 1);
    } else if (attribute->type != PD_KEY) {
        write_values(out, attribute);
    }
    fputs(" }", out);
}

static void write_fallback(FILE *out, const pd_schema *schema)
{
    if (!schema->nfallback) return;
    fputs("  fallback = ( ", out);
    for (uint32_t i = 0; i < schema->nfallback; i++) {
        pd_rung_kind kind = schema->fallback[i].kind;
        fprintf(out, "%s\"%s%s\"", i ? ", " : "",
                kind == PD_RUNG_GIVEN     ? "given"
                : kind == PD_RUNG_SEGMENT ? "segment:"
                                          : "attributes",
                kind == PD_RUNG_SEGMENT ? schema->fallback[i].attribute : "");
    }
    fputs(" );\n", out);
}

static void write_schema(FILE *out, const pd_schema *schema)
{
    fprintf(out, "table = {\n  metric = \"%s\"; dim = %u; index = \"%s\";", pd_metric_name(schema->metric),
            schema->dim, schema->index ? "ivf" : "none");
    if (schema->index) fprintf(out, " code = \"%s\";", code_names[schema->code]);
    if (schema->code_dim) fprintf(out, " code_dim = %u;", schema->code_dim);
    if (schema->refine_said) fprintf(out, " refine = \"%s\";", pd_refine_name(schema->refine));
    fprintf(out, " source = \"%s\"; nlist = %u;\n", pd_refine_name(schema->source),
            schema->index ? schema->nlist : 0);
    fprintf(out, "  policy = \"%s\";", schema->policy == PD_POLICY_DRAIN ? "drain" : "double");
    if (schema->keep != PD_KEEP_UNSAID) fprintf(out, " keep = %u;", schema->keep);
    fputc('\n', out);
    if (schema->queries[0]) fprintf(out, "  queries = \"%s\";\n", schema->queries);
    if (schema->space[0]) fprintf(out, "  space = \"%s\";\n", schema->space);
    if (schema->order_by[0]) fprintf(out, "  order_by = \"%s\";\n", schema->order_by);
    if (schema->consent[0]) fprintf(out, "  consent = \"%s\";\n", schema->consent);
    write_fallback(out, schema);
    fputs("  attributes = (", out);
    for (uint32_t i = 0; i < schema->nattributes; i++) {
        fputs(i ? ",\n" : "\n", out);
        write_attribute(out, &schema->attributes[i]);
    }
    fputs(" );\n};\n", out);
}

/* libconfig has no words for infinities and NaN, and a schema has no use for them. */
static const pd_attribute *not_finite(const pd_schema *schema)
{
    for (uint32_t i = 0; i < schema->nattributes; i++) {
        const pd_attribute *attribute = &schema->attributes[i];
        if (attribute->type != PD_NUMBER) continue;
        if (!isfinite(attribute->half_life)) return attribute;
        for (uint32_t e = 0; e < attribute->nevents; e++)
            if (!isfinite(attribute->events[e].weight)) return attribute;
        for (uint32_t k = 0; k < attribute->nknots; k++)
            if (!isfinite(attribute->knots[k])) return attribute;
        for (uint32_t b = 1; b <= attribute->nknots + 1; b++)
            if (!isfinite(attribute->representatives[b])) return attribute;
    }
    return NULL;
}

pd_status pd_schema_text(const pd_schema *schema, char **text, pd_error *err)
{
    size_t length;
    *text = NULL;
    const pd_attribute *bad = not_finite(schema);
    if (bad)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "attribute \"%s\" has a knot, representative or weight that is not finite", bad->name);
    FILE *out = open_memstream(text, &length);
    if (!out) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a schema's text");
    write_schema(out, schema);
    int failed = ferror(out);
    if (fclose(out) != 0 || failed) {
        free(*text);
        *text = NULL;
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a schema's text");
    }
    return PD_OK;
}
