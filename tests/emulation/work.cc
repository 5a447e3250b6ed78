/* Counts of what is enqueued, and which transfers have products that may run beside them, by the
 * clocks of their streams: not by chance, as the order of a run would have it. */
#include "emulation/machine.h"

namespace
{
struct transfer {
    emu_place arrives;
    int communicator;
    int64_t sent_bytes;
};

struct notes {
    bool is_open = false;
    int64_t n_kernel = 0, n_copy = 0;
    std::vector<emu_place> product;
    std::vector<transfer> transfer_list;
};

notes *all()
{
    static notes *only = new notes();
    return only;
}

bool is_before(const emu_place &first, const emu_place &then)
{
    return first.stream == then.stream ? first.number < then.number
                                       : size_t(first.stream) < then.clock.size() &&
                                             then.clock[size_t(first.stream)] >= first.number;
}

/* It arrives only when it has left, so what is over before either is over before it leaves. */
bool is_exposed(const transfer &t)
{
    for (const emu_place &product : all()->product) {
        if (!is_before(product, t.arrives) && !is_before(t.arrives, product)) {
            return false;
        }
    }
    return true;
}
}  // namespace

void emu_note_kernel()
{
    all()->n_kernel++;
}

void emu_note_copy()
{
    all()->n_copy++;
}

void emu_note_product(cudaStream_t stream)
{
    if (all()->is_open) {
        all()->product.push_back(emu_last_of(stream));
    }
}

void emu_note_transfer(cudaStream_t stream, int communicator, int64_t sent_bytes)
{
    if (all()->is_open) {
        all()->transfer_list.push_back({emu_last_of(stream), communicator, sent_bytes});
    }
}

void emu_work_begin(void)
{
    *all() = notes();
    all()->is_open = true;
}

struct emu_work emu_work_end(void)
{
    struct emu_work work = {};
    work.n_kernel = all()->n_kernel;
    work.n_copy = all()->n_copy;
    work.n_product = int64_t(all()->product.size());
    for (const transfer &t : all()->transfer_list) {
        struct emu_transfers *of = &work.transfer[t.communicator];
        of->n_launch++;
        of->sent_bytes += t.sent_bytes;
        of->exposed_bytes += is_exposed(t) ? t.sent_bytes : 0;
    }
    *all() = notes();
    return work;
}

struct emu_counts emu_count(void)
{
    return *emu_counter();
}
