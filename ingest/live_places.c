#include "live_places.h"

#include <stdlib.h>
#include <string.h>

static uint32_t chains(const pd_places *p)
{
    return p->nlist ? p->nlist : 1;
}

pd_status pd_places_open(pd_places *p, const pd_version_info *info, uint32_t spare, pd_error *err)
{
    memset(p, 0, sizeof *p);
    p->built = info->npages;
    p->npages = info->npages + spare;
    p->nlist = info->shape.nlist;
    p->spare = PD_NO_PAGE;
    size_t words = ((size_t)p->npages + 1) * sizeof(uint32_t);
    if (p->nlist) p->list_of = malloc(words);
    p->free = malloc(words);
    p->live = calloc(1, words);
    p->next = malloc(words);
    p->heads = malloc(chains(p) * sizeof *p->heads);
    p->rows = calloc(chains(p), sizeof *p->rows);
    if ((p->nlist && !p->list_of) || !p->free || !p->live || !p->next || !p->heads || !p->rows) {
        pd_places_close(p);
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the places of %u pages", info->npages);
    }
    memset(p->free, 0xff, words);
    memset(p->heads, 0xff, chains(p) * sizeof *p->heads);
    for (uint32_t page = 0; p->list_of && page < p->npages; page++)
        p->list_of[page] = page < p->built ? info->page_list[page] : PD_NO_PAGE;
    return PD_OK;
}

void pd_places_close(pd_places *p)
{
    free(p->list_of);
    free(p->free);
    free(p->live);
    free(p->next);
    free(p->heads);
    free(p->rows);
    memset(p, 0, sizeof *p);
}

uint64_t pd_places_memory(const pd_places *p)
{
    return (p->npages * (uint64_t)(p->nlist ? 4 : 3) + 2 * (uint64_t)chains(p)) * sizeof(uint32_t);
}

void pd_places_met(pd_places *p, uint32_t slot)
{
    p->free[slot / 32] &= ~(1u << slot % 32);
    pd_places_fill(p, slot);
}

static void push(pd_places *p, uint32_t *head, uint32_t page)
{
    p->next[page] = *head;
    *head = page;
}

void pd_places_ready(pd_places *p)
{
    for (uint32_t page = p->npages; page-- > 0;) {
        uint32_t list = p->list_of ? p->list_of[page] : 0;
        p->nspare += list == PD_NO_PAGE;
        if (list == PD_NO_PAGE)
            push(p, &p->spare, page);
        else if (p->free[page])
            push(p, &p->heads[list], page);
    }
}

uint32_t pd_places_take(pd_places *p, uint32_t list, uint32_t *grown)
{
    uint32_t *head = &p->heads[list];
    *grown = PD_NO_PAGE;
    if (*head == PD_NO_PAGE) {
        uint32_t page = p->spare;
        if (page == PD_NO_PAGE) return PD_NO_SLOT;
        p->spare = p->next[page];
        p->nspare--;
        p->list_of[page] = list;
        push(p, head, page);
        *grown = page;
    }
    uint32_t page = *head, row = (uint32_t)__builtin_ctz(p->free[page]);
    p->free[page] &= p->free[page] - 1;
    if (!p->free[page]) *head = p->next[page];
    return page * 32 + row;
}

void pd_places_give(pd_places *p, uint32_t slot)
{
    uint32_t page = slot / 32;
    if (!p->free[page]) push(p, &p->heads[pd_places_list(p, slot)], page);
    p->free[page] |= 1u << slot % 32;
}

void pd_places_ungrow(pd_places *p, uint32_t page)
{
    uint32_t *at = &p->heads[p->list_of[page]];
    while (*at != page)
        at = &p->next[*at];
    *at = p->next[page];
    p->list_of[page] = PD_NO_PAGE;
    push(p, &p->spare, page);
    p->nspare++;
}

void pd_places_fill(pd_places *p, uint32_t slot)
{
    uint32_t *rows = &p->rows[pd_places_list(p, slot)];
    p->live[slot / 32] |= 1u << slot % 32;
    p->squares += 2.0 * (*rows)++ + 1.0;
    p->total++;
}

void pd_places_empty(pd_places *p, uint32_t slot)
{
    uint32_t *rows = &p->rows[pd_places_list(p, slot)];
    p->live[slot / 32] &= ~(1u << slot % 32);
    p->squares -= 2.0 * --(*rows) + 1.0;
    p->total--;
}

uint32_t pd_places_spare(const pd_places *p)
{
    uint32_t n = 0;
    if (p->nlist) return p->nspare;
    for (uint32_t page = p->built; page < p->npages; page++)
        n += p->free[page] == UINT32_MAX;
    return n;
}

double pd_places_imbalance(const pd_places *p)
{
    if (!p->nlist || !p->total) return 1.0;
    return p->nlist * p->squares / ((double)p->total * (double)p->total);
}
