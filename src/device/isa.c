#include "device/isa.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"baseline", "avx2", "avx512"};

static enum mt_isa ask_processor(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
        return MT_ISA_AVX512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        return MT_ISA_AVX2;
    }
#endif
    return MT_ISA_BASELINE;
}

enum { N_ISA = (int)(sizeof(names) / sizeof(names[0])) };

/* What MT_ISA allows, everything where it is not set; N_ISA when it names nothing known. */
static int most_allowed(void)
{
    const char *most = getenv("MT_ISA");
    int isa = most != NULL ? MT_ISA_BASELINE : MT_ISA_AVX512;
    while (most != NULL && isa < N_ISA && strcmp(most, names[isa]) != 0) {
        isa++;
    }
    return isa;
}

enum mt_status mt_isa_check(void)
{
    return most_allowed() < N_ISA
               ? MT_OK
               : MT_FAIL(MT_ERR_CONFIG,
                         "the environment variable MT_ISA = \"%s\" names no instructions; expected "
                         "baseline, avx2 or avx512; correct or unset it",
                         getenv("MT_ISA"));
}

enum mt_isa mt_isa_detect(void)
{
    static atomic_int known = -1; /* asked anew by several threads at once: the same answer */
    int isa = atomic_load_explicit(&known, memory_order_relaxed);
    if (isa < 0) {
        const int has = (int)ask_processor();
        const int most = most_allowed();
        isa = has < most ? has : most;
        atomic_store_explicit(&known, isa, memory_order_relaxed);
    }
    return (enum mt_isa)isa;
}

bool mt_isa_has_bf16(void)
{
#if defined(__x86_64__)
    return mt_isa_detect() == MT_ISA_AVX512 && __builtin_cpu_supports("avx512bf16");
#else
    return false;
#endif
}

const char *mt_isa_name(enum mt_isa isa)
{
    return names[isa];
}
