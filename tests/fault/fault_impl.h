/* The insides of libpados_fault.so: fault.c (state, failing, allocation), fault_files.c (descriptors and writes), fault_names.c. */
#ifndef PD_FAULT_IMPL_H
#define PD_FAULT_IMPL_H

#include <stddef.h>
#include <sys/types.h>

#include "fault.h"

#define PD_FAULT_PATH 4096

extern pd_fault_state *pd_fault; /* shared, or the process's own */

/* Does this call fail? 0: no. Else errno is set; > 0: the call is to be made first all the same. */
int pd_fault_strikes(pd_fault_class class, const char *call, const char *path);
int pd_fault_disk_full(void);

/* One lock for all: what is done and what the diary says of it have the same order. */
void pd_fault_lock(void);
void pd_fault_unlock(void);
int pd_fault_writes(void); /* there is a diary */
/* Into the diary; with the lock held. */
void pd_fault_note(pd_fault_kind kind, const char *path, const char *other, uint64_t inode, uint64_t offset,
                   uint64_t number, const void *data, size_t length);

/* The path below the folder, into below: [PD_FAULT_PATH]. 0: it is not below. The last part need not exist. */
int pd_fault_below(int dirfd, const char *path, char *below);
/* The same of an open descriptor. */
int pd_fault_below_fd(int fd, char *below);

#endif
