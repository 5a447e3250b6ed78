/* CUDA without a GPU: what tests ask of the emulator (docs/gpu.md).
 *
 * A GPU thread is a fiber. Blocks of a launch run one after another, and the threads of a block run
 * until their next barrier or warp operation, in an order that the test chooses. Every access of a
 * kernel is compared with what is known of that word (memory.cc), so that an error shows in any
 * order, also where the result happens to be right. Work of streams runs when it is waited for, not
 * before, in a random order of streams (cudart.cc).
 *
 * The first error is kept until it is taken; the launch that made it ends there. */
#ifndef MT_EMULATION_EMULATOR_H
#define MT_EMULATION_EMULATOR_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum emu_order { EMU_FORWARD, EMU_REVERSE, EMU_RANDOM };

/* Of blocks, of threads in a block, of streams; `seed` for EMU_RANDOM. */
void emu_set_order(enum emu_order order, uint64_t seed);

/* Text of the first error since the last call; NULL: none. Valid until the next error. */
const char *emu_take_error(void);

/* Which build this is: an MT_EMU_... of watch.h; whether allocations end at guard pages. */
int emu_watch(void);
bool emu_has_guards(void);

/* Since the process began. */
struct emu_counts {
    int64_t n_launch, n_block, n_copy, n_wait;
};
struct emu_counts emu_count(void);

/* What is enqueued between begin and end. A transfer is exposed when no matrix product can run
 * beside it: each of them is ordered before the transfer leaves, or after it has arrived. */
enum { EMU_COMMUNICATORS = 2 }; /* of a transport: comm/transport_nccl.h */
struct emu_transfers {
    int64_t n_launch, sent_bytes, exposed_bytes;
};
struct emu_work {
    int64_t n_kernel, n_product, n_copy; /* launches, calls of cuBLAS, copies and fills */
    struct emu_transfers transfer[EMU_COMMUNICATORS];
};
void emu_work_begin(void);
struct emu_work emu_work_end(void);

#ifdef __cplusplus
}
#endif

#endif
