/* Records that perform.c writes and test_fault_log.c knows again. */
#ifndef PD_FAULT_PERFORM_H
#define PD_FAULT_PERFORM_H

#include <stdio.h>
#include <string.h>

#include "changes.h"

#define PERFORM_MOST 40000u

/* The record of a number, as it is made at the attempt; bytes: [PERFORM_MOST]. */
static inline void perform_record(pd_record *record, uint64_t sequence, const char *table, uint32_t attempt,
                                  size_t length, char *bytes)
{
    memset(record, 0, sizeof *record);
    record->sequence = sequence;
    record->kind = attempt;
    record->time = (double)sequence;
    snprintf(record->table, sizeof record->table, "%s", table);
    snprintf(record->key, sizeof record->key, "key-%llu-%u", (unsigned long long)sequence, attempt);
    for (size_t i = 0; i < length; i++)
        bytes[i] = (char)(1 + (sequence * 31 + attempt * 17 + i) %
                                  255); /* never 0, which is what a rewrite leaves */
    record->bytes = bytes;
    record->length = length;
}

#endif
