/* lists.bin and segments.bin.
 *
 * Both are read whole and used in place, so every section starts at a multiple of its element's size and every number is
 * looked at once, here: the kernels index by page numbers and offsets without asking again.
 */
#include "lists_file.h"

#include <math.h>
#include <string.h>

#define LISTS_MAGIC    0x54534c534f444150ull /* "PADOSLST" */
#define SEGMENTS_MAGIC 0x4745534f44415000ull /* "\0PADOSEG" */

typedef struct head {
    uint64_t magic;
    uint32_t format, nlist, dim, npages, weights, code_dim, ngroups, zero[7];
} head;
_Static_assert(sizeof(head) == 64, "the header of lists.bin is 64 bytes");

/* What the lists themselves take; groups lie behind. */
static uint64_t bytes_of(uint32_t nlist, uint32_t dim, uint32_t code_dim, uint32_t npages, uint32_t weights)
{
    uint64_t bytes = sizeof(head);
    if (nlist == 0) return bytes;
    bytes += (uint64_t)nlist * dim * 4;     /* centroids */
    bytes += (uint64_t)nlist * 4;           /* rows */
    bytes += ((uint64_t)nlist + 1) * 4;     /* offsets */
    bytes += (uint64_t)npages * 4;          /* pages */
    bytes += (uint64_t)weights * nlist * 4; /* histograms */
    bytes += (uint64_t)code_dim * dim * 4;  /* projection */
    return bytes;
}

/* How many groups a file of this length has. Returns 0 where no number fits. */
static int groups_of(uint64_t length, uint32_t nlist, uint32_t dim, uint32_t code_dim, uint32_t npages,
                     uint32_t weights, uint32_t *ngroups)
{
    uint64_t lists = bytes_of(nlist, dim, code_dim, npages, weights);
    *ngroups = 0;
    if (length == lists) return 1;
    if (length < lists + 8 || (length - lists) % 4 != 0 || (length - lists) / 4 - 1 > nlist) return 0;
    *ngroups = (uint32_t)((length - lists) / 4 - 1);
    return 1;
}

int pd_lists_fit(uint64_t length, uint32_t nlist, uint32_t dim, uint32_t code_dim, uint32_t npages,
                 uint32_t weights)
{
    uint32_t ngroups;
    return groups_of(length, nlist, dim, code_dim, npages, weights, &ngroups);
}

static head head_of(uint32_t nlist, uint32_t dim, uint32_t code_dim, uint32_t npages, uint32_t weights,
                    uint32_t ngroups)
{
    return (head){.magic = LISTS_MAGIC,
                  .format = 1,
                  .nlist = nlist,
                  .dim = dim,
                  .npages = npages,
                  .weights = weights,
                  .code_dim = code_dim,
                  .ngroups = ngroups};
}

pd_status pd_lists_write(pd_out *out, const pd_lists *lists, uint32_t nlist, uint32_t dim, uint32_t code_dim,
                         uint32_t npages, uint32_t weights, pd_error *err)
{
    head h = head_of(nlist, dim, code_dim, npages, weights, lists->ngroups);
    pd_status status = pd_out_write(out, &h, sizeof h, err);
    if (status || nlist == 0) return status;
    status = pd_out_write(out, lists->centroids, (size_t)nlist * dim * 4, err);
    if (!status) status = pd_out_write(out, lists->rows, (size_t)nlist * 4, err);
    if (!status) status = pd_out_write(out, lists->offsets, ((size_t)nlist + 1) * 4, err);
    if (!status) status = pd_out_write(out, lists->pages, (size_t)npages * 4, err);
    if (!status) status = pd_out_write(out, lists->histograms, (size_t)weights * nlist * 4, err);
    if (!status) status = pd_out_write(out, lists->projection, (size_t)code_dim * dim * 4, err);
    if (!status && lists->ngroups)
        status = pd_out_write(out, lists->group_first, ((size_t)lists->ngroups + 1) * 4, err);
    return status;
}

/* Every page belongs to exactly one list, and no list claims more rows than its pages hold. */
static pd_status check_lists(const char *name, const pd_lists *l, uint32_t nlist, uint32_t npages,
                             uint64_t rows, uint32_t *page_list, pd_error *err)
{
    if (l->offsets[0] != 0 || l->offsets[nlist] != npages)
        return pd_fail(err, PD_DATA_LOSS, "%s: the page lists do not cover the %u pages", name, npages);
    for (uint32_t p = 0; p < npages; p++)
        page_list[p] = UINT32_MAX;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < nlist; i++) {
        uint32_t from = l->offsets[i], to = l->offsets[i + 1];
        if (from > to || to > npages || l->rows[i] > (uint64_t)(to - from) * PD_PAGE_ROWS)
            return pd_fail(err, PD_DATA_LOSS, "%s: list %u has pages %u to %u for %u rows", name, i, from, to,
                           l->rows[i]);
        for (uint32_t at = from; at < to; at++) {
            uint32_t page = l->pages[at];
            if (page >= npages || page_list[page] != UINT32_MAX)
                return pd_fail(err, PD_DATA_LOSS,
                               "%s: list %u holds page %u, which is not there or another's", name, i, page);
            page_list[page] = i;
        }
        sum += l->rows[i];
    }
    if (sum != rows)
        return pd_fail(err, PD_DATA_LOSS, "%s: the lists hold %llu rows, the manifest says %llu", name,
                       (unsigned long long)sum, (unsigned long long)rows);
    return PD_OK;
}

/* Groups follow one another from the first list to the last. */
static int check_groups(const pd_lists *l, uint32_t nlist)
{
    if (l->ngroups == 0) return 1;
    for (uint32_t g = 0; g < l->ngroups; g++)
        if (l->group_first[g] > l->group_first[g + 1]) return 0;
    return l->group_first[0] == 0 && l->group_first[l->ngroups] == nlist;
}

static int all_within(const float *values, uint64_t count, float low, float high)
{
    for (uint64_t i = 0; i < count; i++)
        if (!(values[i] >= low && values[i] <= high)) return 0;
    return 1;
}

pd_status pd_lists_parse(const char *name, const void *bytes, size_t length, uint32_t nlist, uint32_t dim,
                         uint32_t code_dim, uint32_t npages, uint32_t weights, uint64_t rows, pd_lists *lists,
                         uint32_t *page_list, pd_error *err)
{
    uint32_t ngroups;
    memset(lists, 0, sizeof *lists);
    if (!groups_of(length, nlist, dim, code_dim, npages, weights, &ngroups))
        return pd_fail(err, PD_DATA_LOSS, "%s is %zu bytes long where %llu are needed", name, length,
                       (unsigned long long)bytes_of(nlist, dim, code_dim, npages, weights));
    head h, want = head_of(nlist, dim, code_dim, npages, weights, ngroups);
    memcpy(&h, bytes, sizeof h);
    if (memcmp(&h, &want, sizeof h) != 0)
        return pd_fail(err, PD_DATA_LOSS, "%s does not begin as the manifest says", name);
    if (nlist == 0) {
        memset(page_list, 0, (size_t)npages * sizeof *page_list);
        return PD_OK;
    }
    const unsigned char *at = (const unsigned char *)bytes + sizeof h;
    lists->centroids = (const float *)at;
    at += (size_t)nlist * dim * 4;
    lists->rows = (const uint32_t *)at;
    at += (size_t)nlist * 4;
    lists->offsets = (const uint32_t *)at;
    at += ((size_t)nlist + 1) * 4;
    lists->pages = (const uint32_t *)at;
    at += (size_t)npages * 4;
    lists->histograms = weights ? (const float *)at : NULL;
    at += (size_t)weights * nlist * 4;
    lists->projection = code_dim ? (const float *)at : NULL;
    at += (size_t)code_dim * dim * 4;
    lists->ngroups = ngroups;
    lists->group_first = ngroups ? (const uint32_t *)at : NULL;
    if (!check_groups(lists, nlist))
        return pd_fail(err, PD_DATA_LOSS, "%s: its groups do not cover the %u lists", name, nlist);
    if (!all_within(lists->centroids, (uint64_t)nlist * dim, -1e30f, 1e30f))
        return pd_fail(err, PD_DATA_LOSS, "%s: a centroid is not finite", name);
    if (weights && !all_within(lists->histograms, (uint64_t)weights * nlist, 0.0f, 1.0f))
        return pd_fail(err, PD_DATA_LOSS, "%s: a share of a list's rows is not between 0 and 1", name);
    if (code_dim && !all_within(lists->projection, (uint64_t)code_dim * dim, -1e30f, 1e30f))
        return pd_fail(err, PD_DATA_LOSS, "%s: a direction of the projection is not finite", name);
    return check_lists(name, lists, nlist, npages, rows, page_list, err);
}

/* ------------------------------------------------------------------------------------------------ segments --- */

int pd_segment_wanted(const pd_schema *schema, uint32_t i)
{
    if (schema->attributes[i].type != PD_CATEGORY) return 0;
    for (uint32_t r = 0; r < schema->nfallback; r++)
        if (schema->fallback[r].kind == PD_RUNG_SEGMENT &&
            !strcmp(schema->fallback[r].attribute, schema->attributes[i].name))
            return 1;
    return 0;
}

/* What one attribute takes: its head (number of the attribute, values), counts, means, up to a multiple of 8. */
static uint64_t segment_bytes(uint32_t nvalues, uint32_t dim)
{
    return (8 + (uint64_t)nvalues * 8 + (uint64_t)nvalues * dim * 4 + 7) / 8 * 8;
}

pd_status pd_segments_write(pd_out *out, const pd_segments *s, const pd_schema *schema, uint32_t dim,
                            pd_error *err)
{
    uint64_t magic = SEGMENTS_MAGIC, zero = 0;
    pd_status status = pd_out_write(out, &magic, sizeof magic, err);
    for (uint32_t i = 0; !status && i < schema->nattributes; i++) {
        if (!s->means[i]) continue;
        uint32_t nvalues = schema->attributes[i].nvalues;
        uint32_t about[2] = {i, nvalues};
        size_t means = (size_t)nvalues * dim * 4;
        status = pd_out_write(out, about, sizeof about, err);
        if (!status) status = pd_out_write(out, s->counts[i], (size_t)nvalues * 8, err);
        if (!status) status = pd_out_write(out, s->means[i], means, err);
        if (!status) status = pd_out_write(out, &zero, means % 8 ? 4 : 0, err);
    }
    return status;
}

pd_status pd_segments_parse(const char *name, void *bytes, size_t length, const pd_schema *schema,
                            uint32_t dim, pd_segments *s, pd_error *err)
{
    memset(s, 0, sizeof *s);
    uint64_t want = 8, magic = 0;
    for (uint32_t i = 0; i < schema->nattributes; i++)
        if (pd_segment_wanted(schema, i)) want += segment_bytes(schema->attributes[i].nvalues, dim);
    if (length >= 8) memcpy(&magic, bytes, 8);
    if (length != want || magic != SEGMENTS_MAGIC)
        return pd_fail(err, PD_DATA_LOSS, "%s is not what the schema's segments need", name);
    unsigned char *at = (unsigned char *)bytes + 8;
    for (uint32_t i = 0; i < schema->nattributes; i++) {
        if (!pd_segment_wanted(schema, i)) continue;
        uint32_t nvalues = schema->attributes[i].nvalues;
        uint32_t about[2];
        memcpy(about, at, sizeof about);
        if (about[0] != i || about[1] != nvalues)
            return pd_fail(err, PD_DATA_LOSS, "%s: attribute \"%s\" does not match the schema", name,
                           schema->attributes[i].name);
        s->counts[i] = (uint64_t *)(at + 8);
        s->means[i] = (float *)(at + 8 + (size_t)nvalues * 8);
        if (!all_within(s->means[i], (uint64_t)nvalues * dim, -1e30f, 1e30f))
            return pd_fail(err, PD_DATA_LOSS, "%s: a mean of \"%s\" is not finite", name,
                           schema->attributes[i].name);
        at += segment_bytes(nvalues, dim);
    }
    return PD_OK;
}
