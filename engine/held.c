/* Batches that wait for a rebuild: see held.h. */
#include "held.h"

#include <string.h>

#include "clock.h"
#include "upkeep.h"

#define LOOK_NS 50000000u /* between two reviews */
#define MARGIN_NS                                                                                            \
    250000000u   /* before its deadline, so that whoever wrote hears why, and that nothing was done */
#define TIMES 4u /* rebuilds that a batch waits for: one that fits no new version never will */

static int is_late(const pd_write *w)
{
    return pd_now_ns() + MARGIN_NS >= w->deadline_ns;
}

static int same_key(const pd_write *a, const pd_write *b)
{
    return a != b && *a->batch->key && !strcmp(a->batch->key, b->batch->key);
}

/* Marks it where another of its key is held; the other as well where it is going to be. */
static void find_resent(pd_held *held, pd_write *w, int both)
{
    for (pd_write *other = held->first; other; other = other->next) {
        if (!same_key(other, w)) continue;
        w->resent = 1;
        other->resent |= both;
    }
}

/* What a batch is refused with that may be done under its key all the same. */
static void refuse(pd_write *w)
{
    if (!w->resent) return; /* the error is there: nothing was done */
    w->status = pd_fail(&w->err, is_late(w) ? PD_DEADLINE_EXCEEDED : PD_UNAVAILABLE,
                        "a batch with this key is under way: it waits for the table to be built again");
}

static int may_wait(pd_held *held, pd_catalog *catalog, const pd_write *w)
{
    return w->again && w->holds < TIMES && held->count < PD_HELD_MOST &&
           held->bytes + w->batch->length <= PD_HELD_BYTES && !is_late(w) &&
           pd_upkeep_urge(catalog, w->batch->table);
}

int pd_held_take(pd_held *held, pd_catalog *catalog, pd_write *w)
{
    int waits = may_wait(held, catalog, w);
    find_resent(held, w, waits);
    if (!waits) {
        refuse(w);
        return 0;
    }
    w->holds++;
    w->number = w->served->number;
    /* A version that is to make place for another waits for its holders. */
    pd_catalog_release(w->served);
    w->served = NULL;
    w->next = NULL;
    pd_write **last = &held->first;
    while (*last)
        last = &(*last)->next;
    *last = w;
    if (!held->count++) held->look_at = pd_now_ns() + LOOK_NS;
    held->bytes += w->batch->length;
    return 1;
}

/* Has the table another version? Not while none serves for a moment. */
static int has_moved(pd_catalog *catalog, const pd_write *w)
{
    pd_served *served = NULL;
    pd_status status = pd_catalog_hold(catalog, w->batch->table, &served, NULL);
    if (status) return status != PD_UNAVAILABLE; /* who binds it again says what has become of the table */
    int moved = served->number != w->number;
    pd_catalog_release(served);
    return moved;
}

void pd_held_review(pd_held *held, pd_catalog *catalog)
{
    for (pd_write **at = &held->first; *at;) {
        pd_write *w = *at;
        int moved = has_moved(catalog, w);
        /* The error that it was refused with is still there. */
        int over = !moved && (is_late(w) || !pd_upkeep_urge(catalog, w->batch->table));
        if (!moved && !over) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        held->count--;
        held->bytes -= w->batch->length;
        if (moved) {
            w->again(w);
        } else {
            refuse(w);
            w->done(w, w->status, &w->err, NULL);
        }
    }
    held->look_at = pd_now_ns() + LOOK_NS;
}

void pd_held_stop(pd_held *held)
{
    while (held->first) {
        pd_write *w = held->first;
        pd_error err;
        held->first = w->next;
        pd_status status = pd_fail(&err, PD_UNAVAILABLE, "stopping");
        w->done(w, status, &err, NULL);
    }
    held->count = 0;
    held->bytes = 0;
}
