#include "device/isa.h"

enum mt_isa mt_isa_detect(void)
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
    static const char *const name[] = {"baseline", "avx2", "avx512"};
    return name[isa];
}
