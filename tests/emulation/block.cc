/* Blocks: one fiber a thread, run until its next barrier or warp operation. */
#include "emulation/machine.h"

#include "emulation/fiber.h"

#include <emulated_language.cuh>

#include <cstdlib>
#include <cstring>

#include <map>

namespace
{
enum state { READY, AT_BARRIER, AT_WARP, DONE };
enum { MAX_THREAD = EMU_MAX_THREAD, LANES = EMU_LANES };
enum { KIND_BARRIER = 100, KIND_BALLOT, KIND_MATRIX };
const size_t shared_gap = 64; /* between declarations of shared memory */

struct fiber {
    state at;
    bool is_inside;   /* its kernel */
    int kind, source; /* of the warp operation */
    unsigned mask;
    uint64_t given, got;
};

/* What ThreadSanitizer sees of barriers: a key for every other one, because threads that passed one
 * may be at the next while others have still to leave. */
struct order_keys {
    char begin, end; /* of a block */
    char block[2], warp[MAX_THREAD / LANES][2];
};

struct machine {
    fiber fibers[MAX_THREAD];
    uint64_t warp_barriers[MAX_THREAD / LANES];
    order_keys orders;
    fiber *running;
    const emu_kernel *kernel;
    emu_actor actor;
    uint3 block;
    int n_thread;
    bool is_abandoned;
    size_t shared_used;
    std::map<const void *, size_t> sites;
};

machine *gpu()
{
    static machine *only = nullptr;
    if (only == nullptr) {
        only = new machine();
        only->shared_used = EMU_SHARED_BYTES;
    }
    return only;
}

/* Of the host's thread that runs a launch now: another's accesses are not a kernel's. Found without
 * a call, for it is asked for at every access. */
thread_local machine *in_launch __attribute__((tls_model("initial-exec"))) = nullptr;

void fiber_main()
{
    machine *m = gpu();
    emu_order_take(&m->orders.begin);
    m->kernel->thread();
    emu_copies_end(m->actor.thread);
    m->running->at = DONE;
    emu_abandon();
}
}  // namespace

/* The host takes what is given when the block ends, whether this fiber is resumed before or not. */
static void to_scheduler()
{
    machine *m = gpu();
    emu_order_give(&m->orders.end);
    m->running = nullptr;
    emu_fiber_leave(m->actor.thread);
}

static void resume(int thread)
{
    machine *m = gpu();
    m->running = &m->fibers[thread];
    m->actor.thread = thread;
    m->actor.warp_barriers = m->warp_barriers[thread / LANES];
    emu_fiber_resume(thread);
    m->running = nullptr;
}

void emu_abandon()
{
    machine *m = gpu();
    m->is_abandoned = m->is_abandoned || m->running->at != DONE;
    to_scheduler();
    std::abort();
}

const emu_actor *emu_current()
{
    machine *m = in_launch;
    return m != nullptr && m->running != nullptr && m->running->is_inside ? &m->actor : nullptr;
}

void mt_emu_enter()
{
    gpu()->running->is_inside = true;
}

void mt_emu_leave()
{
    gpu()->running->is_inside = false;
}

/* ---- what a thread asks ---- */

uint3 mt_emu_thread_index()
{
    machine *m = gpu();
    const dim3 &extent = m->kernel->block;
    const unsigned thread = unsigned(m->actor.thread);
    return {thread % extent.x, thread / extent.x % extent.y, thread / extent.x / extent.y};
}

uint3 mt_emu_block_index()
{
    return gpu()->block;
}

uint3 mt_emu_block_extent()
{
    const dim3 &extent = gpu()->kernel->block;
    return {extent.x, extent.y, extent.z};
}

uint3 mt_emu_grid_extent()
{
    const dim3 &extent = gpu()->kernel->grid;
    return {extent.x, extent.y, extent.z};
}

void *mt_emu_dynamic_shared()
{
    return emu_shared_base();
}

void *mt_emu_shared(const void *site, size_t bytes, size_t alignment)
{
    machine *m = gpu();
    const auto found = m->sites.find(site);
    if (found != m->sites.end()) {
        return emu_shared_base() + found->second;
    }
    const size_t offset = (m->shared_used + shared_gap + alignment - 1) / alignment * alignment;
    if (offset + bytes > EMU_SHARED_BYTES) {
        emu_report("%zu bytes of shared memory are more than a block has", offset + bytes);
    }
    emu_shared_declare(offset, bytes);
    m->shared_used = offset + bytes;
    m->sites[site] = offset;
    return emu_shared_base() + offset;
}

/* ---- barriers and warp operations ---- */

static void wait_as(state at)
{
    gpu()->running->at = at;
    to_scheduler();
}

void mt_emu_block_barrier()
{
    char *key = gpu()->orders.block + gpu()->actor.barriers % 2;
    emu_order_give(key);
    wait_as(AT_BARRIER);
    emu_order_take(key);
}

static int lanes_of(int warp)
{
    const int left = gpu()->n_thread - warp * LANES;
    return left < LANES ? left : LANES;
}

/* The threads that the operation of `first` waits for are all there; it is done for all. */
static void complete(int warp, const fiber *first)
{
    machine *m = gpu();
    fiber *lane = m->fibers + warp * LANES;
    const int n_lane = lanes_of(warp);
    uint64_t ballot = 0;
    for (int i = 0; i < n_lane; i++) {
        ballot |= (first->mask >> i & 1U) != 0 && lane[i].given != 0 ? uint64_t(1) << i : 0;
    }
    const unsigned all = n_lane == LANES ? ~0U : (1U << n_lane) - 1;
    if (first->kind == KIND_BARRIER && (first->mask & all) == all) {
        m->warp_barriers[warp]++;
        m->actor.warp_barriers = m->warp_barriers[warp];
    }
    if (first->kind >= KIND_MATRIX) {
        const void *given[LANES];
        for (int i = 0; i < LANES; i++) {
            given[i] = reinterpret_cast<const void *>(static_cast<uintptr_t>(lane[i].given));
        }
        emu_matrix_complete(emu_matrix(first->kind - KIND_MATRIX), given);
    }
    const unsigned mask = first->mask;
    for (int i = 0; i < n_lane; i++) {
        if ((mask >> i & 1U) == 0) {
            continue;
        }
        int from = lane[i].source;
        from = lane[i].kind == MT_EMU_XOR    ? i ^ from
               : lane[i].kind == MT_EMU_DOWN ? i + from
                                             : from;
        const bool is_there = from >= 0 && from < n_lane && (mask >> from & 1U) != 0;
        lane[i].got = lane[i].kind == KIND_BALLOT ? ballot : lane[is_there ? from : i].given;
        lane[i].at = READY;
    }
}

static uint64_t warp_operation(unsigned mask, int kind, uint64_t bits, int source)
{
    machine *m = gpu();
    const int thread = m->actor.thread;
    const int warp = thread / LANES;
    fiber *me = m->running;
    if ((mask >> (thread % LANES) & 1U) == 0) {
        emu_report("thread %d is not in the mask %08x of its own warp operation", thread, mask);
    }
    me->kind = kind;
    me->mask = mask;
    me->given = bits;
    me->source = source;
    me->at = AT_WARP;
    bool is_last = true;
    for (int i = 0; i < lanes_of(warp); i++) {
        const fiber *other = &m->fibers[warp * LANES + i];
        if ((mask >> i & 1U) == 0) {
            continue;
        }
        if (other->at == AT_WARP && (other->mask != mask || other->kind != kind)) {
            emu_report("divergent mask: threads %d and %d of one warp meet in different operations",
                       thread, warp * LANES + i);
        }
        is_last = is_last && other->at == AT_WARP;
    }
    if (is_last) {
        complete(warp, me);
    } else {
        to_scheduler();
    }
    return me->got;
}

/* Barriers of a part of the warp order nothing, here as in the history. */
void mt_emu_warp_barrier(unsigned mask)
{
    machine *m = gpu();
    const int warp = m->actor.thread / LANES;
    const uint64_t before = m->warp_barriers[warp];
    char *key = m->orders.warp[warp] + before % 2;
    emu_order_give(key);
    warp_operation(mask, KIND_BARRIER, 0, 0);
    if (m->warp_barriers[warp] != before) {
        emu_order_take(key);
    }
}

void emu_matrix_operation(enum emu_matrix operation, const void *given)
{
    if (lanes_of(gpu()->actor.thread / LANES) < LANES) {
        emu_report("a matrix instruction needs all lanes of its warp");
    }
    warp_operation(~0U, KIND_MATRIX + operation, reinterpret_cast<uintptr_t>(given), 0);
}

uint64_t mt_emu_exchange(unsigned mask, int kind, uint64_t bits, int source)
{
    return warp_operation(mask, kind, bits, source);
}

unsigned mt_emu_ballot(unsigned mask, bool predicate)
{
    return unsigned(warp_operation(mask, KIND_BALLOT, predicate ? 1 : 0, 0));
}

/* ---- a block, a launch ---- */

/* After a pass over all threads: lets those at the barrier go on when they are all. */
static bool release_barrier()
{
    machine *m = gpu();
    int count[DONE + 1] = {0};
    for (int i = 0; i < m->n_thread; i++) {
        count[m->fibers[i].at]++;
    }
    if (count[READY] > 0) {
        return true;
    }
    if (count[AT_BARRIER] == m->n_thread) {
        m->actor.barriers++;
        for (int i = 0; i < m->n_thread; i++) {
            m->fibers[i].at = READY;
        }
        return true;
    }
    if (count[AT_WARP] > 0) {
        emu_report("divergent mask: %d threads wait for lanes that never come", count[AT_WARP]);
    } else {
        emu_report("%d of %d threads wait at a barrier that the others never reach",
                   count[AT_BARRIER], m->n_thread);
    }
    m->is_abandoned = true;
    return false;
}

static bool is_all_done()
{
    machine *m = gpu();
    for (int i = 0; i < m->n_thread; i++) {
        if (m->fibers[i].at != DONE) {
            return false;
        }
    }
    return true;
}

static void begin_block(int index)
{
    machine *m = gpu();
    const dim3 &grid = m->kernel->grid;
    const unsigned i = unsigned(index);
    m->block = {i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y};
    m->actor.run = m->actor.first_run + 1 + uint32_t(index);
    m->actor.barriers = 0;
    const size_t most =
        m->shared_used > m->kernel->dynamic_bytes ? m->shared_used : m->kernel->dynamic_bytes;
    emu_shared_clear(most + 4096);
    m->sites.clear();
    m->shared_used = m->kernel->dynamic_bytes;
    emu_shared_declare(0, m->kernel->dynamic_bytes);
    for (int t = 0; t < m->n_thread; t++) {
        emu_fiber_begin(t, fiber_main);
        m->fibers[t].at = READY;
        m->fibers[t].is_inside = false;
        emu_copies_forget(t);
        m->warp_barriers[t / LANES] = 0;
    }
}

/* Each thread that can, until it waits. */
static void run_threads()
{
    machine *m = gpu();
    std::vector<int> order;
    emu_arrange(&order, m->n_thread);
    for (const int thread : order) {
        if (m->fibers[thread].at == READY && !m->is_abandoned) {
            resume(thread);
        }
    }
}

static void run_block(int index)
{
    machine *m = gpu();
    begin_block(index);
    emu_order_give(&m->orders.begin);
    do {
        run_threads();
    } while (!m->is_abandoned && !is_all_done() && release_barrier());
    emu_order_take(&m->orders.end);
    for (int t = 0; m->is_abandoned && t < m->n_thread; t++) {
        emu_fiber_forget(t);
    }
    emu_counter()->n_block += m->is_abandoned ? 0 : 1;
}

void emu_run_kernel(const emu_kernel *kernel, const std::vector<uint64_t> *clock, int stream,
                    uint64_t number)
{
    machine *m = gpu();
    const int64_t n_block = int64_t(kernel->grid.x) * kernel->grid.y * kernel->grid.z;
    const int64_t n_thread = int64_t(kernel->block.x) * kernel->block.y * kernel->block.z;
    if (n_block < 1 || n_thread < 1 || n_thread > MAX_THREAD || kernel->grid.y > 65535 ||
        kernel->grid.z > 65535 || kernel->dynamic_bytes > EMU_SHARED_BYTES) {
        emu_report("a launch of %lld blocks of %lld threads with %zu bytes is not possible",
                   (long long)n_block, (long long)n_thread, kernel->dynamic_bytes);
        return;
    }
    m->kernel = kernel;
    m->n_thread = int(n_thread);
    m->is_abandoned = false;
    m->actor.clock = clock;
    m->actor.stream = stream;
    m->actor.first_run = emu_memory_begin(stream, number, uint32_t(n_block));
    std::vector<int> order;
    emu_arrange(&order, int(n_block));
    in_launch = m;
    for (const int index : order) {
        if (!m->is_abandoned) {
            run_block(index);
        }
    }
    in_launch = nullptr;
}
