/* A rank that crashes still says so: one message, code 1, no trace over a screen. Open MPI leaves a
 * handler alone that is there before MPI_Init. The handler runs on a stack of its own, for the
 * crash may be an overflow; beyond that it does what the watchdog does: claim, write, _exit. */
#include "base/job.h"

#include "base/job_internal.h"

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { IS_OTHERS = 1 }; /* sanitizers tell more */
#else
enum { IS_OTHERS = 0 };
#endif

/* mt_job_speak alone puts 33 KiB of text there. */
enum { STACK_BYTES = 1 << 17 };
static char stack[STACK_BYTES];

extern const char __executable_start; /* the linker's */
extern const char etext;

/* Where in the program, as addr2line takes it; 0: in a library. */
static uintptr_t place_of(const void *context)
{
#if defined(__x86_64__)
    const ucontext_t *user = context;
    const uintptr_t at = (uintptr_t)user->uc_mcontext.gregs[REG_RIP];
    const uintptr_t first = (uintptr_t)&__executable_start;
    return at >= first && at < (uintptr_t)&etext ? at - first : 0;
#else
    MT_UNUSED(context);
    return 0;
#endif
}

static const char *name_of(int number)
{
    switch (number) {
    case SIGSEGV:
        return "SIGSEGV, memory that is not there";
    case SIGBUS:
        return "SIGBUS, memory whose file or device failed";
    case SIGFPE:
        return "SIGFPE, impossible arithmetic";
    case SIGILL:
        return "SIGILL, an instruction that this processor lacks";
    default:
        return "SIGABRT, given up by a library";
    }
}

static void on_crash(int number, siginfo_t *about, void *context)
{
    char text[256];
    char place[64] = "a library";
    const uintptr_t at = place_of(context);
    MT_UNUSED(about);
    if (mt_job_claim(MT_ERR_INTERNAL) == 0) {
        if (at != 0) {
            (void)snprintf(place, sizeof(place), "moetrain+0x%llx", (unsigned long long)at);
        }
        (void)snprintf(text, sizeof(text),
                       "crashed with signal %d (%s) in %s; this is a bug, or the machine's; please "
                       "report it with the configuration and this line",
                       number, name_of(number), place);
        mt_job_speak(true, text);
    }
    _exit(MT_ERR_INTERNAL);
}

void mt_job_crashes_install(void)
{
    static const int crash[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    const stack_t own = {.ss_sp = stack, .ss_size = sizeof(stack)};
    struct sigaction act = {.sa_flags = SA_SIGINFO | SA_ONSTACK | (int)SA_RESETHAND};
    act.sa_sigaction = on_crash;
    (void)sigemptyset(&act.sa_mask);
    if (IS_OTHERS || sigaltstack(&own, NULL) != 0) {
        return; /* then the system ends a crashed rank, as without this */
    }
    for (size_t i = 0; i < sizeof(crash) / sizeof(crash[0]); ++i) {
        (void)sigaction(crash[i], &act, NULL);
    }
}
