/* Fibers: stacks on which the threads of a block run, one at a time, and what sanitizers have to be
 * told of them. */
#ifndef MT_EMULATION_FIBER_H
#define MT_EMULATION_FIBER_H

enum { EMU_MAX_THREAD = 1024, EMU_LANES = 32 };

/* Fiber number `thread` starts in `main` when it is resumed next; main ends by emu_fiber_leave. */
void emu_fiber_begin(int thread, void (*main)());
/* From the host to the fiber, until it leaves; and back. */
void emu_fiber_resume(int thread);
void emu_fiber_leave(int thread);
/* What this fiber was doing is given up. */
void emu_fiber_forget(int thread);
bool emu_is_fiber_stack(const void *at);

/* What happened before `key` was given happened before whatever comes after it is taken. For
 * ThreadSanitizer; nothing elsewhere. */
void emu_order_give(void *key);
void emu_order_take(void *key);

#endif
