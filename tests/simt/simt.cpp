/* Blocks of fibers: see simt.h. */
#include "simt.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <vector>

#include "inside.h"

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define STACK_BYTES ((size_t)512 << 10)
#else
#define STACK_BYTES ((size_t)128 << 10)
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif
#define GUARD_BYTES  ((size_t)4096)
#define MOST_THREADS 1024u

#if defined(PD_SIMT_SHARED_SECTION)
/* Where all of it lies; a program without any has none. */
extern "C" {
extern unsigned char __start_pd_shared[] __attribute__((weak)), __stop_pd_shared[] __attribute__((weak));
}
#endif

namespace
{

enum state { READY, AT_BARRIER, AT_MEETING, DONE };

struct copy {
    void *to;
    const void *from;
    uint32_t take, group;
};

struct fiber {
    void *sp; /* where it was left */
#if !defined(__x86_64__)
    ucontext_t context;
#endif
    unsigned char *stack; /* [STACK_BYTES] */
    void *fake;           /* of the address sanitizer */
    void *thread;         /* of the thread sanitizer */
    pd_simt_place place;
    state at;
    const char *file; /* of the barrier */
    int line, vote;
    pd_simt_vote kind;
    const char *what; /* the warp operation */
    std::vector<copy> copies;
    uint32_t group;
};

/* Lanes that have come to a warp operation; filed under the lowest lane that it names. */
struct meeting {
    uint32_t mask, arrived;
    void *lanes[32];
    pd_simt_work work;
    uint32_t round; /* of its __syncwarps */
    char order[2];  /* what they order, as the race checker is told */
};

std::vector<fiber *> &fibers = *new std::vector<fiber *>; /* kept to the end of the process */
std::vector<meeting> meetings;                            /* [warps][32] */
std::vector<uint32_t> ready; /* threads that can go on; one of them, whichever chance picks, is next */
uint32_t nthreads, at_barrier, barrier_round;
int barrier_result;
fiber *running, *first_there; /* at the barrier */
bool failed, dirty;
const std::function<void()> *kernel;
const char *kernel_name;
#if defined(__x86_64__)
void *scheduler_sp;
#endif
#if defined(__SANITIZE_ADDRESS__)
void *scheduler_fake;
const void *scheduler_stack;
size_t scheduler_bytes;
#endif
uint64_t random_state = 88172645463325252ull;

/* --------------------------------------------------------------------------------------------------- races --- */

/* Under the thread sanitizer every fiber is a thread of its own to it, and what orders their accesses is only what orders
 * those of a device: the beginning and the end of a block, its barriers, __syncwarp, and atomics nothing. Warp operations other than
 * __syncwarp order nothing, as CUDA says. So a barrier that is missing is reported although no order that chance picked
 * shows it. Blocks come one after another; races between them are not seen. Volatile accesses are taken as meant. The
 * files of the harness itself are not instrumented (CMakeLists.txt). */
char block_order, left_order, barrier_order[2];
#if defined(__SANITIZE_THREAD__)
extern "C" {
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
void __tsan_read_range(void *at, unsigned long size);
void __tsan_write_range(void *at, unsigned long size);
}
void *scheduler_thread;
#define BEFORE(order) __tsan_release(order)
#define AFTER(order)  __tsan_acquire(order)
void look_away()
{
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
}
void look_again()
{
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
}
void does_write(void *at, size_t bytes)
{
    __tsan_write_range(at, bytes);
}
void does_read(const void *at, size_t bytes)
{
    if (bytes > 0) __tsan_read_range((void *)at, bytes);
}
#else
#define BEFORE(order) (void)(order)
#define AFTER(order)  (void)(order)
void look_away()
{
}
void look_again()
{
}
void does_write(void *, size_t)
{
}
void does_read(const void *, size_t)
{
}
#endif

/* ---------------------------------------------------------------------------------------------- switching --- */

#if defined(__x86_64__)
extern "C" void pd_simt_switch(void **from, void *to);
asm(".text\n.globl pd_simt_switch\n.hidden pd_simt_switch\n.type pd_simt_switch,@function\npd_simt_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n"
    ".size pd_simt_switch,.-pd_simt_switch\n");
#else
ucontext_t scheduler_context;
#endif

void to_scheduler(fiber *f)
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(f->at == DONE ? nullptr : &f->fake, scheduler_stack, scheduler_bytes);
#elif defined(__SANITIZE_THREAD__)
    BEFORE(&left_order);
    __tsan_switch_to_fiber(scheduler_thread, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__x86_64__)
    pd_simt_switch(&f->sp, scheduler_sp);
#else
    swapcontext(&f->context, &scheduler_context);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(f->fake, &scheduler_stack, &scheduler_bytes);
#endif
}

void enter()
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_bytes);
#endif
    AFTER(&block_order);
    (*kernel)();
    running->at = DONE;
    to_scheduler(running);
    abort(); /* a thread that is done is never resumed */
}

void resume(fiber *f)
{
    running = f;
    pd_simt_here = &f->place;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&scheduler_fake, f->stack, STACK_BYTES);
#elif defined(__SANITIZE_THREAD__)
    if (!f->thread) f->thread = __tsan_create_fiber(0);
    scheduler_thread = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(f->thread, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__x86_64__)
    pd_simt_switch(&scheduler_sp, f->sp);
#else
    swapcontext(&scheduler_context, &f->context);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(scheduler_fake, nullptr, nullptr);
#endif
    running = nullptr;
    pd_simt_here = nullptr;
}

fiber *make_fiber()
{
    void *memory = mmap(nullptr, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, GUARD_BYTES, PROT_NONE) != 0) {
        fprintf(stderr, "simt: no memory for a thread's stack\n");
        abort();
    }
    fiber *f = new fiber();
    f->stack = (unsigned char *)memory + GUARD_BYTES;
    return f;
}

void start(fiber *f)
{
    f->at = READY;
    f->copies.clear();
    f->group = 0;
    f->fake = nullptr;
#if defined(__x86_64__)
    /* As pd_simt_switch leaves a stack: six registers, then where to go; aligned as at a function's first instruction. */
    void **top = (void **)(void *)(f->stack + STACK_BYTES);
    top[-1] = nullptr;
    top[-2] = (void *)enter;
    for (int i = 3; i <= 8; i++)
        top[-i] = nullptr;
    f->sp = top - 8;
#else
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = STACK_BYTES;
    f->context.uc_link = nullptr;
    makecontext(&f->context, enter, 0);
#endif
}

/* A launch that failed leaves frames behind that nobody will ever leave. */
void clean_stacks()
{
#if defined(__SANITIZE_ADDRESS__)
    for (fiber *f : fibers)
        __asan_unpoison_memory_region(f->stack, STACK_BYTES);
#endif
    dirty = false;
}

/* ----------------------------------------------------------------------------------------------- a block --- */

template <typename T> void shuffle(std::vector<T> &items)
{
    for (size_t i = items.size(); i > 1; i--)
        std::swap(items[i - 1], items[pd_simt_random() % i]);
}

void release_barrier()
{
    int any = 0, all = 1, count = 0;
    for (uint32_t t = 0; t < nthreads; t++) {
        any |= fibers[t]->vote != 0;
        all &= fibers[t]->vote != 0;
        count += fibers[t]->vote != 0;
    }
    pd_simt_vote kind = fibers[0]->kind;
    barrier_result = kind == PD_SIMT_OR ? any : kind == PD_SIMT_AND ? all : count;
    at_barrier = 0;
    barrier_round ^= 1;
    for (uint32_t t = 0; t < nthreads; t++) {
        fibers[t]->at = READY;
        ready.push_back(t);
    }
}

/* Nobody can go on: says who waits for what. */
void stuck()
{
    uint32_t left = 0;
    const fiber *barrier = nullptr, *meet = nullptr;
    for (uint32_t t = 0; t < nthreads; t++) {
        left += fibers[t]->at == DONE;
        if (fibers[t]->at == AT_BARRIER) barrier = fibers[t];
        if (fibers[t]->at == AT_MEETING) meet = fibers[t];
    }
    const uint3 &b = (barrier ? barrier : meet)->place.block;
    if (meet)
        pd_simt_note("%s: block (%u,%u,%u), thread (%u,%u,%u) waits at %s for lanes that do not come; %u "
                     "threads have left",
                     kernel_name, b.x, b.y, b.z, meet->place.thread.x, meet->place.thread.y,
                     meet->place.thread.z, meet->what, left);
    else
        pd_simt_note("%s: block (%u,%u,%u): %u threads wait at the barrier of %s:%d, and %u have left",
                     kernel_name, b.x, b.y, b.z, at_barrier, barrier->file, barrier->line, left);
    failed = true;
}

/* Shared memory begins as rubbish, as a device's does, and not with what the block before left there. (The address sanitizer
 * has it among other variables, with its own bytes between them.) */
void spoil_shared()
{
#if defined(PD_SIMT_SHARED_SECTION)
    for (unsigned char *at = __start_pd_shared; at < __stop_pd_shared; at++)
        *at = 0xa5;
#endif
}

void run_block(dim3 grid, dim3 block, uint3 at, unsigned char *shared, size_t shared_bytes)
{
    nthreads = block.x * block.y * block.z;
    while (fibers.size() < nthreads)
        fibers.push_back(make_fiber());
    meetings.assign((nthreads + 31) / 32 * 32, meeting());
    at_barrier = 0;
    memset(shared, 0xa5, shared_bytes);
    spoil_shared();
    ready.clear();
    for (uint32_t t = 0; t < nthreads; t++) {
        ready.push_back(t);
        fiber *f = fibers[t];
        start(f);
        f->place.thread = {t % block.x, t / block.x % block.y, t / block.x / block.y};
        f->place.block = at;
        f->place.threads = block;
        f->place.blocks = grid;
        f->place.shared = shared;
        f->place.lane = t % 32;
    }
    uint32_t done = 0;
    BEFORE(&block_order);
    while (!failed && done < nthreads) {
        if (ready.empty()) {
            stuck();
            return;
        }
        size_t pick = pd_simt_random() % ready.size();
        fiber *f = fibers[ready[pick]];
        ready[pick] = ready.back();
        ready.pop_back();
        resume(f);
        done += f->at == DONE;
        if (at_barrier == nthreads) release_barrier();
    }
}

} // namespace

pd_simt_place *pd_simt_here;

uint64_t pd_simt_random()
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state * 0x2545f4914f6cdd1dull >> 16;
}

void pd_simt_seed(uint64_t seed)
{
    random_state = 88172645463325252ull ^ (seed * 0x9e3779b97f4a7c15ull);
    if (random_state == 0) random_state = 1;
}

bool pd_simt_run(const char *name, dim3 grid, dim3 block, size_t shared, const std::function<void()> &body)
{
    kernel = &body;
    kernel_name = name;
    failed = false;
    if (dirty) clean_stacks();
    /* As large as was asked for and no larger, so that the sanitizer sees what lies behind. */
    unsigned char *memory = (unsigned char *)aligned_alloc(128, (shared + 127) / 128 * 128 + 128);
    if (!memory) abort();
    unsigned char *used = memory;
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(memory + shared, (shared + 127) / 128 * 128 + 128 - shared);
#endif
    std::vector<uint3> blocks;
    for (uint32_t z = 0; z < grid.z; z++)
        for (uint32_t y = 0; y < grid.y; y++)
            for (uint32_t x = 0; x < grid.x; x++)
                blocks.push_back({x, y, z});
    shuffle(blocks);
    for (size_t i = 0; i < blocks.size() && !failed; i++) {
        run_block(grid, block, blocks[i], used, shared);
        AFTER(&left_order); /* the next block's threads know of it through block_order */
    }
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(memory, (shared + 127) / 128 * 128 + 128);
#endif
    free(memory);
    dirty |= failed;
    return !failed;
}

/* --------------------------------------------------------------------------------------- what threads call --- */

void pd_simt_fail(const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (!running) {
        fprintf(stderr, "simt: outside a kernel: %s\n", text);
        abort();
    }
    const pd_simt_place &p = running->place;
    pd_simt_note("%s: block (%u,%u,%u), thread (%u,%u,%u): %s", kernel_name, p.block.x, p.block.y, p.block.z,
                 p.thread.x, p.thread.y, p.thread.z, text);
    failed = true;
    running->at = AT_BARRIER;
    to_scheduler(running);
    abort(); /* a failed launch is never resumed */
}

int pd_simt_barrier(pd_simt_vote vote, int value, const char *file, int line)
{
    fiber *f = running;
    if (at_barrier == 0)
        first_there = f;
    else if (first_there->line != line || strcmp(first_there->file, file) != 0)
        pd_simt_fail("comes to the barrier of %s:%d while others wait at %s:%d", file, line,
                     first_there->file, first_there->line);
    f->at = AT_BARRIER;
    f->file = file;
    f->line = line;
    f->vote = value;
    f->kind = vote;
    at_barrier++;
    /* Two by turns, so that what early threads do for the next one is not ordered by this one. */
    char *order = &barrier_order[barrier_round];
    BEFORE(order);
    to_scheduler(f);
    AFTER(order);
    return barrier_result;
}

void pd_simt_meet(uint32_t mask, void *mine, pd_simt_work work, const char *what, bool orders)
{
    fiber *f = running;
    uint32_t lane = f->place.lane;
    if (!(mask >> lane & 1)) pd_simt_fail("%s: the lane itself is not in the mask %08x", what, mask);
    uint32_t flat =
        f->place.thread.x + f->place.threads.x * (f->place.thread.y + f->place.threads.y * f->place.thread.z);
    meeting &m = meetings[flat / 32 * 32 + (uint32_t)__builtin_ctz(mask)];
    if (m.arrived == 0) {
        m.mask = mask;
        m.work = work;
        for (void *&of : m.lanes)
            of = nullptr;
    } else if (m.mask != mask || m.work != work) {
        pd_simt_fail("comes to %s with the mask %08x while others of its warp wait elsewhere, with %08x",
                     what, mask, m.mask);
    }
    m.lanes[lane] = mine;
    m.arrived |= 1u << lane;
    char *order = &m.order[m.round & 1];
    if (orders) BEFORE(order);
    if (m.arrived != mask) {
        f->at = AT_MEETING;
        f->what = what;
        to_scheduler(f);
        if (orders) AFTER(order);
        return;
    }
    m.arrived = 0;
    m.round += orders;
    look_away();
    work(m.lanes, mask);
    look_again();
    if (orders) AFTER(order);
    for (uint32_t l = 0; l < 32; l++) {
        if (!(mask >> l & 1) || l == lane) continue;
        fibers[flat / 32 * 32 + l]->at = READY;
        ready.push_back(flat / 32 * 32 + l);
    }
}

void pd_simt_waver()
{
    if (!running || pd_simt_random() % 8 != 0) return;
    const pd_simt_place &p = running->place;
    ready.push_back(p.thread.x + p.threads.x * (p.thread.y + p.threads.y * p.thread.z));
    to_scheduler(running);
}

void pd_simt_async_copy16(void *shared, const void *global, uint32_t take)
{
    if ((uintptr_t)shared % 16 || (uintptr_t)global % 16 || take > 16)
        pd_simt_fail("an asynchronous copy is not aligned to 16 bytes, or of %u bytes", take);
    /* From now on nobody may look. */
    memset(shared, 0xee, 16);
    does_write(shared, 16);
    does_read(global, take);
    running->copies.push_back({shared, global, take, running->group});
}

void pd_simt_async_commit()
{
    running->group++;
}

void pd_simt_async_wait(uint32_t pending)
{
    std::vector<copy> &copies = running->copies;
    size_t left = 0;
    for (const copy &c : copies) {
        if (c.group + pending >= running->group) {
            copies[left++] = c;
            continue;
        }
        memset(c.to, 0, 16);
        memcpy(c.to, c.from, c.take);
        does_write(c.to, 16);
    }
    copies.resize(left);
}

static uint32_t races;
uint32_t pd_simt_races(void)
{
    return races;
}

#if defined(__SANITIZE_THREAD__)
extern "C" void __tsan_on_report(void *);
extern "C" void __tsan_on_report(void *)
{
    races++;
}

/* What the compiler calls for volatile accesses: those who write volatile know that others are there. */
extern "C" {
#define PD_VOLATILE(size)                                                                                    \
    void __tsan_volatile_read##size(void *);                                                                 \
    void __tsan_volatile_read##size(void *)                                                                  \
    {                                                                                                        \
    }                                                                                                        \
    void __tsan_volatile_write##size(void *);                                                                \
    void __tsan_volatile_write##size(void *)                                                                 \
    {                                                                                                        \
    }
PD_VOLATILE(1)
PD_VOLATILE(2)
PD_VOLATILE(4)
PD_VOLATILE(8)
PD_VOLATILE(16)
}
#endif
