/* Who watches what kernels do: a build of the emulator has one of these (docs/gpu.md). The compiler
 * puts calls before accesses of kernels in all three; what answers them differs. */
#ifndef MT_EMULATION_WATCH_H
#define MT_EMULATION_WATCH_H

/* The emulator's own history of every word: races, what nobody wrote, bounds (memory.cc). */
#define MT_EMU_HISTORY 1
/* AddressSanitizer and UndefinedBehaviorSanitizer: bounds to the byte, arrays of a thread, what the
 * language leaves undefined; the host's memory too. */
#define MT_EMU_ADDRESS 2
/* ThreadSanitizer, to which each thread of a block is one: missing barriers, and threads of the
 * host. */
#define MT_EMU_THREAD 4

#ifndef MT_EMU_WATCH
#define MT_EMU_WATCH MT_EMU_HISTORY
#endif

/* 1: an allocation ends at a page that cannot be accessed, and a freed one is such pages, so that
 * code finds out that no compiler has put calls into. */
#ifndef MT_EMU_GUARDS
#define MT_EMU_GUARDS 0
#endif

#endif
