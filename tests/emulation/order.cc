/* The order in which the emulator takes what CUDA leaves open: threads, warps, blocks, streams. */
#include "emulation/machine.h"

#include <algorithm>
#include <numeric>

static enum emu_order chosen = EMU_FORWARD;
static uint64_t state = 1;

void emu_set_order(enum emu_order order, uint64_t seed)
{
    chosen = order;
    state = seed | 1U;
}

enum emu_order emu_order_of()
{
    return chosen;
}

/* Marsaglia's xorshift. */
uint64_t emu_random()
{
    uint64_t x = state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    state = x;
    return x;
}

void emu_arrange(std::vector<int> *list, int n)
{
    list->resize(size_t(n));
    std::iota(list->begin(), list->end(), 0);
    if (chosen == EMU_REVERSE) {
        std::reverse(list->begin(), list->end());
    }
    for (int i = n - 1; chosen == EMU_RANDOM && i > 0; i--) {
        std::swap((*list)[size_t(i)], (*list)[size_t(emu_random() % uint64_t(i + 1))]);
    }
}
