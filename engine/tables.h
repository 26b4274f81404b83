/* What the catalog knows of each table: its versions on disk, their states, and which are resident. */
#ifndef PD_TABLES_H
#define PD_TABLES_H

#include <stdint.h>

#include "schema.h"
#include "status.h"
#include "version.h"

struct pd_box;

#define PD_WAY_BACK 64

typedef enum pd_version_state { PD_KEPT, PD_STAGED, PD_SERVING, PD_BROKEN } pd_version_state;
const char *pd_version_state_name(pd_version_state state); /* "kept", "staged", "serving", "broken" */

/* One version on disk. */
typedef struct pd_known {
    uint64_t number;
    pd_version_state state;
    uint64_t rows;
    uint64_t disk_bytes;
    double created;            /* days since 1970-01-01 */
    uint64_t sequence, parent; /* see pd_version_info */
    uint32_t dim, nlist;
    pd_metric metric;
    uint32_t code_dim;
    pd_code code;
    pd_refine refine;
    char problem[sizeof((pd_error *)0)->message]; /* "" when there is none */
} pd_known;

typedef struct pd_table {
    char name[PD_MAX_NAME + 1];
    uint64_t last;    /* the largest number a version of it ever had while the process ran */
    uint64_t current; /* what CURRENT says; 0: nothing is published */
    /* The way back: versions that served before the current one, the latest first. Some may be gone by now. */
    uint64_t before[PD_WAY_BACK];
    uint32_t nbefore;
    pd_known *versions; /* ascending by number */
    uint32_t nversions, room;
    struct pd_box *serving, *staged; /* each counts as one holder */
    uint64_t rebuild_after_ms;       /* until then no rebuild starts by itself */
    double recounted;                /* the day on which its counters' columns were refreshed */
    int untrimmed; /* the log keeps more of its changes than it must: somebody still held an older version */
    int swapping;  /* policy drain: nothing serves for the moment */
    char problem[sizeof((pd_error *)0)->message]; /* why nothing serves, where something should */
} pd_table;

typedef struct pd_tables {
    pd_table **at; /* ascending by name */
    uint32_t count, room;
} pd_tables;

struct pd_catalog;

/* Paths: [PD_PATH_ROOM]. */
void pd_table_folder(const struct pd_catalog *catalog, const char *table, char *path);
void pd_version_folder(const struct pd_catalog *catalog, const char *table, uint64_t number, char *path);

/* The rest is called with the catalog's mutex held (or before other threads are). */
pd_table *pd_table_find(struct pd_catalog *catalog, const char *name); /* NULL: there is none */
pd_status pd_table_make(struct pd_catalog *catalog, const char *name, pd_table **out, pd_error *err);
void pd_table_drop(struct pd_catalog *catalog, pd_table *table); /* forgets it; it serves nothing */
pd_known *pd_table_version(pd_table *table, uint64_t number);
/* The version is there from now on, in state kept; info NULL: all that is known is its number. */
pd_status pd_table_add(pd_table *table, uint64_t number, const pd_version_info *info, pd_known **out,
                       pd_error *err);
void pd_table_forget(pd_table *table, uint64_t number);
/* What describes the table to people: its serving version, else the newest that is whole; NULL when there is none. */
const pd_known *pd_table_face(const pd_table *table);
void pd_tables_free(struct pd_catalog *catalog);

/* Start: removes what a crash left (NAME.tmp folders and files), learns the tables and their versions; loads nothing. A
 * version that does not open is broken and says why. */
pd_status pd_tables_scan(struct pd_catalog *catalog, pd_error *err);

#endif
