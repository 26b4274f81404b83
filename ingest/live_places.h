/* Where rows lie and where more can: the free places of each list, and the pages that are in no list yet.
 *
 * A word of 32 bits a page says which of its places are free; pages of a list with a free place are chained, so that taking and giving
 * back a place costs a step and no memory. A place that was emptied is given back once it is empty, so that nothing staged
 * before can be given it.
 */
#ifndef PD_LIVE_PLACES_H
#define PD_LIVE_PLACES_H

#include <stdint.h>

#include "status.h"
#include "version.h"

typedef struct pd_places {
    uint32_t npages, built; /* reserved, and of these the version's */
    uint32_t nlist;         /* 0: a look-up table, whose pages are all one list's */
    uint32_t *list_of;      /* [npages], PD_NO_PAGE: in none; NULL: a look-up table */
    uint32_t *free;         /* [npages] bit r: place r can be taken */
    uint32_t *live;         /* [npages] bit r: place r holds a row */
    uint32_t *next;         /* [npages] of its chain */
    uint32_t *heads;        /* [nlist], at least 1: the chain of pages with a free place */
    uint32_t spare;         /* the chain of pages that are in no list */
    uint32_t nspare;
    uint32_t *rows; /* [nlist], at least 1 */
    uint64_t total; /* rows */
    double squares; /* the sum of rows[l]^2 */
} pd_places;

#define PD_NO_PAGE UINT32_MAX

/* Of an empty index. RESOURCE_EXHAUSTED. */
pd_status pd_places_open(pd_places *places, const pd_version_info *info, uint32_t spare, pd_error *err);
void pd_places_close(pd_places *places); /* a zeroed one is allowed */
uint64_t pd_places_memory(const pd_places *places);

/* A row is met in a slot while the version is loaded; then, once: what is free is chained. */
void pd_places_met(pd_places *places, uint32_t slot);
void pd_places_ready(pd_places *places);

static inline uint32_t pd_places_list(const pd_places *places, uint32_t slot)
{
    return places->list_of ? places->list_of[slot / 32] : 0;
}

/* The slot that a row of this list gets, PD_NO_SLOT: there is none. *page: the page that the list gets for it, PD_NO_PAGE. */
uint32_t pd_places_take(pd_places *places, uint32_t list, uint32_t *page);
void pd_places_give(pd_places *places, uint32_t slot);
/* Takes a page out of its list again. All its places have been given back. */
void pd_places_ungrow(pd_places *places, uint32_t page);

/* A slot holds a row from now on, or no longer. */
void pd_places_fill(pd_places *places, uint32_t slot);
void pd_places_empty(pd_places *places, uint32_t slot);

uint32_t pd_places_spare(const pd_places *places); /* pages beyond the version's that hold nothing */
double pd_places_imbalance(const pd_places *places);

#endif
