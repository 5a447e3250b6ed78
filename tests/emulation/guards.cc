/* With guards, what a kernel does at pages that it has not becomes an error like any other. */
#include "emulation/fiber.h"
#include "emulation/machine.h"

#include <csignal>
#include <cstdlib>

static struct sigaction before;

/* The launch is abandoned: the scheduler's stack is left to, this one's is begun anew. */
static void catch_fault(int, siginfo_t *info, void *)
{
    if (emu_current() != nullptr && emu_memory_is_device(info->si_addr)) {
        emu_report("thread %d of a kernel is out of bounds at +%zu, at a page that nobody has",
                   emu_current()->thread,
                   size_t(static_cast<char *>(info->si_addr) - emu_shared_base()));
    }
    sigaction(SIGSEGV, &before, nullptr); /* the access is made again */
}

void emu_guards_begin()
{
    enum { STACK_BYTES = 64 << 10 };
    static char *stack = nullptr;
    if (stack == nullptr) {
        stack = static_cast<char *>(std::malloc(STACK_BYTES));
        const stack_t own = {stack, 0, STACK_BYTES};
        sigaltstack(&own, nullptr);
    }
    struct sigaction action = {};
    action.sa_sigaction = catch_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigaction(SIGSEGV, &action, &before);
}

void emu_guards_end()
{
    sigaction(SIGSEGV, &before, nullptr);
}
