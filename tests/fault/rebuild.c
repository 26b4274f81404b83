/* The disk that a power cut could have left: made of the diary that libpados_fault.so wrote.
 *
 *     pados-fault-rebuild --journal FILE --at BYTES --seed N --out FOLDER [--base FOLDER] [--no-syncs]
 *     pados-fault-rebuild --journal FILE --list
 *
 * The power goes when the diary was BYTES long. base is what the folder held when the diary began (nothing, where it is left
 * out), all of it durable; out must not exist. What is there afterwards:
 *
 *  - a file's pages of 4 KiB as they were when a sync of it that had ended began, or when they were written through a descriptor
 *    opened with O_SYNC or O_DSYNC. Of pages changed since, each is new or old by chance, or what it was in between; a page beyond the durable end that is not
 *    there while a later one is reads as zero. A sync that failed makes nothing durable, and a later one that succeeds does not
 *    bring back what it lost, until the page is written again;
 *  - a folder's names as they were when a sync of that folder began; of what was made, renamed and removed in it since, the first
 *    few, by chance how many. A rename between two folders is in both or in neither. A sync of a file does not keep its name.
 *  - with --no-syncs, nothing was ever synced: what a drill must notice.
 *  - the write that was under way is there in part, by chance.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fault.h"
#include "rebuild.h"

static void usage(void)
{
    fprintf(stderr, "usage: pados-fault-rebuild --journal FILE (--list | --at BYTES --seed N --out FOLDER "
                    "[--base FOLDER] [--no-syncs])\n");
    exit(2);
}

/* ---------------------------------------------------------------------------------------------------- listing --- */

static void list(const diary *d)
{
    static const char *const kinds[] = {"?",       "made",   "opened",   "written",       "sized",
                                        "syncing", "synced", "unsynced", "folder synced", "new folder",
                                        "renamed", "gone",   "linked",   "swapped"};
    diary_entry e;
    for (uint64_t at = 0; diary_next(d, &at, &e);)
        printf("%12llu  %-13s %s%s%s inode %llu offset %llu bytes %llu number %llu\n", (unsigned long long)at,
               e.head.kind < sizeof kinds / sizeof kinds[0] ? kinds[e.head.kind] : "?", e.path,
               e.head.other ? " -> " : "", e.other, (unsigned long long)e.head.inode,
               (unsigned long long)e.head.offset, (unsigned long long)e.head.data,
               (unsigned long long)e.head.number);
}

/* ---------------------------------------------------------------------------------------------------- base and out --- */

static void load_folder(disk *d, node *into, const char *path)
{
    DIR *dir = opendir(path);
    if (!dir) broken("cannot open %s: %s", path, strerror(errno));
    struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        char child[8192];
        struct stat about;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        snprintf(child, sizeof child, "%s/%s", path, entry->d_name);
        if (stat(child, &about) != 0) broken("cannot look at %s: %s", child, strerror(errno));
        node *n = node_make(d, S_ISDIR(about.st_mode));
        names_set(&into->names[CACHE], entry->d_name, n);
        names_set(&into->names[DISK], entry->d_name, n);
        if (n->is_folder) {
            load_folder(d, n, child);
            continue;
        }
        int fd = open(child, O_RDONLY);
        char *bytes = malloc((size_t)about.st_size + 1);
        if (fd < 0 || !bytes || read(fd, bytes, (size_t)about.st_size) != about.st_size)
            broken("cannot read %s: %s", child, strerror(errno));
        file_write(n, 0, bytes, (size_t)about.st_size, 1, NULL);
        free(bytes);
        close(fd);
    }
    closedir(dir);
}

static void save_folder(const node *folder, const char *path)
{
    if (mkdir(path, 0755) != 0) broken("cannot make %s: %s", path, strerror(errno));
    for (uint32_t i = 0; i < folder->names[DISK].count; i++) {
        char child[8192];
        const node *n = folder->names[DISK].at[i].node;
        snprintf(child, sizeof child, "%s/%s", path, folder->names[DISK].at[i].name);
        if (n->is_folder) {
            save_folder(n, child);
            continue;
        }
        int fd = open(child, O_WRONLY | O_CREAT | O_EXCL, 0644);
        uint64_t done = 0;
        while (fd >= 0 && done < n->size[DISK]) {
            ssize_t more = write(fd, n->bytes[DISK] + done, n->size[DISK] - done);
            if (more <= 0) break;
            done += (uint64_t)more;
        }
        if (fd < 0 || done != n->size[DISK] || close(fd) != 0)
            broken("cannot write %s: %s", child, strerror(errno));
    }
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"journal", 1, NULL, 'j'}, {"at", 1, NULL, 'a'},   {"seed", 1, NULL, 's'},     {"base", 1, NULL, 'b'},
        {"out", 1, NULL, 'o'},     {"list", 0, NULL, 'l'}, {"no-syncs", 0, NULL, 'n'}, {0}};
    const char *journal = NULL, *base = NULL, *out = NULL;
    uint64_t at = UINT64_MAX, seed = 0;
    int only_list = 0, made_durable = 1, c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == 'j')
            journal = optarg;
        else if (c == 'a')
            at = strtoull(optarg, NULL, 10);
        else if (c == 's')
            seed = strtoull(optarg, NULL, 10);
        else if (c == 'b')
            base = optarg;
        else if (c == 'o')
            out = optarg;
        else if (c == 'n')
            made_durable = 0;
        else if (c == 'l')
            only_list = 1;
        else
            usage();
    }
    if (!journal || (!only_list && !out)) usage();
    diary d;
    diary_open(&d, journal);
    if (only_list) {
        list(&d);
        return 0;
    }
    disk *made = disk_make();
    if (base) load_folder(made, disk_root(made), base);
    disk_play(made, &d, at, made_durable, &seed);
    disk_cut(made, &seed);
    save_folder(disk_root(made), out);
    disk_free(made);
    return 0;
}
