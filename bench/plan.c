/* pados-bench --plan ROWSxDIM: the memory that a table takes, before there is one. The figures are those of the layout that is loaded
 * (layout.h, slab.h), not estimates; only how full the lists' last pages are is taken as half. */
#include <string.h>

#include "bench.h"
#include "build.h"
#include "slab.h"

/* The place of a name among names, or count. */
static uint32_t place(const char *name, const char *const *names, uint32_t count)
{
    uint32_t i = 0;
    while (i < count && strcmp(name, names[i]) != 0)
        i++;
    return i;
}

static pd_status shape_of(const bench_options *o, pd_shape *shape, pd_error *err)
{
    static const char *const codes[] = {"none", "i8", "f16", "f32"}, *const refines[] = {"none", "f16",
                                                                                         "f32"};
    memset(shape, 0, sizeof *shape);
    uint32_t code = place(o->code, codes, 4), refine = place(o->refine, refines, 3);
    if (code == 4) return pd_fail(err, PD_INVALID_ARGUMENT, "--code %s: is i8, f16, f32 or none", o->code);
    if (refine == 3) return pd_fail(err, PD_INVALID_ARGUMENT, "--refine %s: is none, f16 or f32", o->refine);
    shape->metric = o->metric;
    shape->code = (pd_code)code;
    shape->refine = (pd_refine)refine;
    shape->dim = o->generate_dim;
    shape->code_dim = o->code_dim;
    shape->nlist = o->nlist ? o->nlist : pd_auto_nlist(o->generate_rows);
    shape->nbytes = o->fused_attributes;
    for (uint32_t c = 0; c < shape->nbytes; c++)
        shape->sizes[c] = (uint16_t)o->fused_values;
    return PD_OK;
}

/* What the lists take beside the pages: centroids in 16 lanes, their codes, shares of values. */
static uint64_t list_bytes(const pd_shape *shape, const pd_layout *layout)
{
    uint64_t each = ((shape->dim + 15u) & ~15u) * sizeof(float) + layout->dim4 + 16 +
                    (uint64_t)layout->weights * sizeof(float);
    return shape->nlist * each;
}

/* Rows that cards hold, of so many bytes each. */
static void print_cards(double row)
{
    static const struct {
        const char *name;
        double gib;
    } cards[] = {{"24 GiB", 24}, {"40 GiB", 40}, {"80 GiB", 80}, {"141 GB (H200)", 139}};
    for (size_t i = 0; i < sizeof cards / sizeof *cards; i++)
        printf("rows on %-14s %.0f million, nine tenths of it for the slab\n", cards[i].name,
               cards[i].gib * 0.9 * 1073.741824 / row);
}

/* The same table with its refine rows in the host's memory. */
static void print_hosted(uint64_t slab, uint64_t refine, double rows)
{
    char text[PD_SIZE_TEXT], host[PD_SIZE_TEXT];
    printf("with refine rows in the host's memory (cuda):\n");
    printf("the slab           %s, %.1f bytes a row (memory_mib = %llu)\n", pd_size_text(slab - refine, text),
           (double)(slab - refine) / rows, (unsigned long long)((slab - refine) >> 20));
    printf("host memory        %s, %.1f bytes a row (refine_host_mib = %llu)\n", pd_size_text(refine, host),
           (double)refine / rows, (unsigned long long)(refine >> 20));
    print_cards((double)(slab - refine) / rows);
}

pd_status bench_plan(const bench_options *o, pd_error *err)
{
    pd_shape shape;
    pd_layout layout;
    char text[PD_SIZE_TEXT];
    pd_status status = shape_of(o, &shape, err);
    if (!status) status = pd_layout_of(&shape, &layout, err);
    if (status) return status;
    uint64_t pages = (o->generate_rows + PD_PAGE_ROWS - 1) / PD_PAGE_ROWS + shape.nlist / 2;
    if (pages > UINT32_MAX)
        return pd_fail(err, PD_INVALID_ARGUMENT, "--plan: %llu pages, at most %u can be numbered",
                       (unsigned long long)pages, UINT32_MAX);
    pd_index_spec spec = {.shape = shape, .npages = (uint32_t)pages, .name = "plan"};
    uint64_t slab = pd_index_bytes(&spec), refine = pd_index_refine_bytes(&spec);
    uint64_t lists = list_bytes(&shape, &layout);
    double row = (double)slab / (double)o->generate_rows;
    printf("%llu rows x %u, %s codes of %u dimensions, refine %s, %u lists, %u byte columns\n",
           (unsigned long long)o->generate_rows, shape.dim, o->code, layout.code_dim, o->refine, shape.nlist,
           shape.nbytes);
    printf("a page of %u rows   %zu + %zu bytes (codes and columns, refine rows)\n", PD_PAGE_ROWS,
           layout.page_bytes, layout.refine_bytes);
    printf("the slab           %s, %.1f bytes a row (memory_mib = %llu)\n", pd_size_text(slab, text), row,
           (unsigned long long)(slab >> 20));
    printf("lists beside it    %s\n", pd_size_text(lists, text));
    print_cards(row);
    if (refine && shape.code != PD_CODE_NONE) print_hosted(slab, refine, (double)o->generate_rows);
    return PD_OK;
}
