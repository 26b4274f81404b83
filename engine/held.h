/* Batches held aside: upserts that find no page, until the table is built again.
 *
 * Rows that replace others leave places in the lists that they leave, not in those that they come to, so a table whose embeddings are all
 * renewed runs out of spare pages long before it holds more rows. A rebuild makes room, and is asked for at once; whoever writes waits
 * for it, within his deadline, in place of being refused. Others go on meanwhile: updates, deletes, and upserts that find room.
 *
 * A batch that is sent again while the first is held is held beside it: whichever is done first, the other is answered from its key. It
 * is never refused as a batch of which nothing was done, since the first may be done yet: it waits to its deadline, or is told that
 * it is not known.
 *
 * The writer's alone: no lock.
 */
#ifndef PD_HELD_H
#define PD_HELD_H

#include "writer.h"

#define PD_HELD_MOST  64u
#define PD_HELD_BYTES (64ull << 20)

typedef struct pd_held {
    pd_write *first;
    uint32_t count;
    uint64_t bytes;
    uint64_t look_at; /* when the next review is due; while any is held */
} pd_held;

/* Takes a batch that was refused for want of a page, and lets go of its version. 0: it is not to wait (nothing is rebuilt by itself, the
 * last rebuild failed, it has waited for several, too many wait already, its deadline is near), and to be refused with its status and err
 * as they are then. */
int pd_held_take(pd_held *held, pd_catalog *catalog, pd_write *write);
/* Hands those back to be bound again (again) whose table has another version now, and ends those who are not to wait any longer. */
void pd_held_review(pd_held *held, pd_catalog *catalog);
/* Ends all of them with UNAVAILABLE. */
void pd_held_stop(pd_held *held);

#endif
