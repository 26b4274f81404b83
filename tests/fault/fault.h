/* libpados_fault.so: a disk that fails, and a diary of what was asked of it. Test equipment, loaded with LD_PRELOAD.
 *
 *     LD_PRELOAD=build/tests/fault/libpados_fault.so PADOS_FAULT_FOLDER=/data ... padosd ...
 *
 *     PADOS_FAULT_FOLDER   what it looks at: files and folders below this one; absolute
 *     PADOS_FAULT_STATE    a file that holds a pd_fault_state, shared with the drill: counts, what fails next, the diary's length
 *     PADOS_FAULT_FAIL     CLASS:N:ERROR: the Nth call of the class, counted from the start, fails once. N = 0 counts and fails nothing.
 *                          CLASS: open, write, sync, rename, any (all these), alloc (by the program itself), alloc_any (also by its
 *                          libraries). ERROR: EIO, ENOSPC, ENOMEM, or KILL: the process is killed there. EIO!: the call is made and
 *                          then said to have failed, as a disk does that fails while a page is synced. EIO*3, EIO!*3: and so do the
 *                          two calls after it, which are not made
 *     PADOS_FAULT_FULL     while this file is there, writes that make a file longer fail with ENOSPC: a full disk
 *     PADOS_FAULT_JOURNAL  every call that changes the folder is written to this file, with its bytes: what rebuild.c makes a disk of
 *
 * Calls are caught at the border of libc: what libc does inside itself (fopen, fwrite, mkstemp) is not, nor is what goes through a
 * writable mapping. Pados writes neither way.
 */
#ifndef PD_FAULT_H
#define PD_FAULT_H

#include <stdatomic.h>
#include <stdint.h>

typedef enum pd_fault_class {
    PD_FAULT_NONE,
    PD_FAULT_OPEN,
    PD_FAULT_WRITE,  /* write, pwrite, writev, pwritev, ftruncate, truncate, fallocate */
    PD_FAULT_SYNC,   /* fsync, fdatasync, sync_file_range */
    PD_FAULT_RENAME, /* rename, unlink, rmdir, mkdir, link and their kin */
    PD_FAULT_ANY,    /* one of these */
    PD_FAULT_ALLOC,
    PD_FAULT_ALLOC_ANY,
} pd_fault_class;

#define PD_FAULT_KILL (-1)

/* All 0 at first. To arm: at = 0, then class, error and calls, then at. */
typedef struct pd_fault_state {
    _Atomic uint64_t at;     /* the call that fails; 0: none */
    _Atomic uint64_t calls;  /* of the class, so far */
    _Atomic uint32_t class;  /* pd_fault_class */
    _Atomic int32_t error;   /* errno, or PD_FAULT_KILL */
    _Atomic uint32_t made;   /* the failing call is made all the same */
    _Atomic uint32_t times;  /* calls that fail in a row; 0: 1 */
    _Atomic uint32_t full;   /* the disk is */
    _Atomic uint64_t failed; /* calls that were made to fail */
    _Atomic uint64_t
        journal;    /* bytes of the diary: what was acknowledged before now was written before here */
    char what[256]; /* the last call that was made to fail */
} pd_fault_state;

/* ------------------------------------------------------------------------------------------------- the diary --- */

#define PD_FAULT_ENTRY 0x46445950u /* "PYDF" */
typedef enum pd_fault_kind {
    PD_FAULT_MADE = 1, /* path is a new file, inode */
    PD_FAULT_OPENED,   /* path is an old one, inode */
    PD_FAULT_WRITTEN, /* data at offset; number = 1: synced with it; 2: perhaps: it was said to have failed */
    PD_FAULT_SIZED,   /* cut or lengthened to offset */
    PD_FAULT_SYNCING, /* a sync of inode begins; number: which */
    PD_FAULT_SYNCED,  /* and has ended well */
    PD_FAULT_UNSYNCED, /* or not: what was to be synced may be lost, though the system's cache calls it clean */
    PD_FAULT_FOLDER,   /* the folder path was synced: begun at number, a length of the diary */
    PD_FAULT_NEWFOLDER, /* path */
    PD_FAULT_RENAMED,   /* path to other */
    PD_FAULT_GONE,      /* path: a file or an empty folder */
    PD_FAULT_LINKED,    /* other is path's second name */
    PD_FAULT_SWAPPED,   /* path and other changed places */
} pd_fault_kind;

/* Followed by path, other, data. Paths are below the folder, "" itself. */
typedef struct pd_fault_entry {
    uint32_t magic, kind;
    uint64_t inode, offset, number, data;
    uint32_t path, other;
} pd_fault_entry;

#endif
