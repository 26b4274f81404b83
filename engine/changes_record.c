/* The bytes of a record, and of small sealed values.
 *
 *      0  8  XXH3-64 of bytes 8 up to the body
 *      8  4  "PDCH"
 *     12  2  format, 1
 *     14  1  bytes of the table's name       15  1  bytes of the idempotency key
 *     16  4  kind                            20  4  zero
 *     24  8  sequence
 *     32  8  time, f64: days since 1970-01-01
 *     40  8  bytes of the body
 *     48  8  XXH3-64 of the body
 *     56     table, key, zero up to a multiple of 8, the body
 *
 * The head has a sum of its own, which covers the body's, so that reading one table's records need not sum the others'.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "changes_impl.h"

#define HEAD 56u
static const char MAGIC[4] = {'P', 'D', 'C', 'H'};

typedef struct head {
    uint64_t sum;
    char magic[4];
    uint16_t format;
    uint8_t ntable, nkey;
    uint32_t kind, zero;
    uint64_t sequence;
    double time;
    uint64_t length, body_sum;
} head;
_Static_assert(sizeof(head) == HEAD, "a record's head has no holes");

static size_t body_at(size_t ntable, size_t nkey)
{
    return (HEAD + ntable + nkey + 7u) & ~(size_t)7u;
}

size_t pd_record_size(const pd_record *record)
{
    return body_at(strlen(record->table), strlen(record->key)) + record->length;
}

void pd_record_write(const pd_record *record, void *to)
{
    unsigned char *at = to;
    size_t ntable = strlen(record->table), nkey = strlen(record->key), body = body_at(ntable, nkey);
    memset(at, 0, body);
    memcpy(at + HEAD, record->table, ntable);
    memcpy(at + HEAD + ntable, record->key, nkey);
    if (record->length) memcpy(at + body, record->bytes, record->length);
    head h = {.format = PD_CHANGES_FORMAT,
              .ntable = (uint8_t)ntable,
              .nkey = (uint8_t)nkey,
              .kind = record->kind,
              .sequence = record->sequence,
              .time = record->time,
              .length = record->length,
              .body_sum = pd_sum_of(at + body, record->length)};
    memcpy(h.magic, MAGIC, sizeof MAGIC);
    memcpy(at, &h, HEAD);
    h.sum = pd_sum_of(at + 8, body - 8);
    memcpy(at, &h.sum, 8);
}

const char *pd_record_head(uint64_t sequence, const void *bytes, size_t length, pd_record *record)
{
    head h;
    memset(record, 0, sizeof *record);
    record->sequence = sequence;
    if (length < HEAD) return "it is shorter than a record's head";
    memcpy(&h, bytes, HEAD);
    if (memcmp(h.magic, MAGIC, sizeof MAGIC)) return "it does not begin as a record does";
    size_t body = body_at(h.ntable, h.nkey);
    if (h.ntable > PD_MAX_NAME || h.nkey > PD_CHANGE_KEY || body > length || length - body != h.length)
        return "its lengths do not fit each other";
    if (pd_sum_of((const unsigned char *)bytes + 8, body - 8) != h.sum)
        return "its head's checksum does not fit";
    if (h.format != PD_CHANGES_FORMAT) return "it is of a format that is not known here";
    if (h.sequence != sequence) return "it is another record than its key says";
    record->kind = h.kind;
    record->time = h.time;
    memcpy(record->table, (const char *)bytes + HEAD, h.ntable);
    memcpy(record->key, (const char *)bytes + HEAD + h.ntable, h.nkey);
    record->bytes = (const unsigned char *)bytes + body;
    record->length = h.length;
    return NULL;
}

const char *pd_record_body(const void *bytes, const pd_record *record)
{
    head h;
    memcpy(&h, bytes, HEAD);
    return pd_sum_of(record->bytes, record->length) == h.body_sum ? NULL : "its checksum does not fit";
}

/* LMDB returns addresses in its map, whose pages begin with their own number; the file is asked whether it holds the same bytes
 * there, since the number may be what is damaged. */
static int offset_of(const pd_changes *log, const MDB_val *value, uint64_t *offset)
{
    long system_page = sysconf(_SC_PAGESIZE);
    struct stat about;
    unsigned char there[64];
    size_t n = value->mv_size < sizeof there ? value->mv_size : sizeof there;
    if (system_page <= 0 || stat(log->file, &about) != 0) return 0;
    uintptr_t inside = (uintptr_t)value->mv_data % (uintptr_t)system_page;
    uint64_t page;
    memcpy(&page, (const unsigned char *)value->mv_data - inside, sizeof page);
    if (page > (uint64_t)about.st_size / (uint64_t)system_page) return 0;
    *offset = page * (uint64_t)system_page + inside;
    mdb_filehandle_t fd;
    return mdb_env_get_fd(log->env, &fd) == 0 && pread(fd, there, n, (off_t)*offset) == (ssize_t)n &&
           !memcmp(there, value->mv_data, n);
}

pd_status pd_record_damaged(const pd_changes *log, uint64_t sequence, const MDB_val *value, const char *why,
                            pd_error *err)
{
    uint64_t offset;
    if (offset_of(log, value, &offset))
        return pd_fail(err, PD_DATA_LOSS, "%s: the record %llu at byte %llu is damaged: %s", log->file,
                       (unsigned long long)sequence, (unsigned long long)offset, why);
    return pd_fail(err, PD_DATA_LOSS, "%s: the record %llu is damaged: %s", log->file,
                   (unsigned long long)sequence, why);
}

/* ------------------------------------------------------------------------------------------ sealed values --- */

static uint64_t seal_of(const void *key, size_t nkey, const void *bytes, size_t length)
{
    /* The key's sum is mixed in by adding: what is sealed under one key does not fit another. */
    return pd_sum_of(key, nkey) + pd_sum_of(bytes, length);
}

int pd_seal_put(MDB_txn *txn, MDB_dbi db, const void *key, size_t nkey, const void *bytes, size_t length)
{
    MDB_val k = {nkey, (void *)(uintptr_t)key}, v = {PD_SEAL + length, NULL};
    int rc = mdb_put(txn, db, &k, &v, MDB_RESERVE);
    if (rc) return rc;
    uint64_t seal = seal_of(key, nkey, bytes, length);
    memcpy(v.mv_data, &seal, PD_SEAL);
    if (length) memcpy((char *)v.mv_data + PD_SEAL, bytes, length);
    return 0;
}

int pd_seal_fits(const MDB_val *key, const MDB_val *value)
{
    uint64_t seal;
    if (value->mv_size < PD_SEAL) return 0;
    memcpy(&seal, value->mv_data, PD_SEAL);
    return seal == seal_of(key->mv_data, key->mv_size, (const char *)value->mv_data + PD_SEAL,
                           value->mv_size - PD_SEAL);
}

int pd_seal_number(MDB_txn *txn, MDB_dbi db, const void *key, size_t nkey, uint64_t *number)
{
    MDB_val k = {nkey, (void *)(uintptr_t)key}, v;
    int rc = mdb_get(txn, db, &k, &v);
    if (rc) return rc;
    if (v.mv_size != PD_SEAL + sizeof *number || !pd_seal_fits(&k, &v)) return MDB_CORRUPTED;
    memcpy(number, (const char *)v.mv_data + PD_SEAL, sizeof *number);
    return 0;
}
