/* How the CPU kernels use wide vectors.
 *
 * A hot loop is a static function marked MT_CLONES: the compiler makes a copy of it for every
 * instruction set and the loader picks one, so one program runs well on any x86-64 machine. The
 * loop must be in that very function, or in a `static inline` one that it calls with MT_INLINE: a
 * function that is not inlined is compiled for the baseline only, and so is the body of an OpenMP
 * region. Hence threads come from outside, by cpu/parallel.h, and OpenMP pragmas appear nowhere
 * else.
 *
 * Sums: the compiler may not reorder them, so a vectorised sum keeps MT_LANES partial sums in an
 * array of its own, added up in a fixed order at the end: the same bits on every instruction set.
 */
#ifndef MT_KERNEL_CPU_SIMD_H
#define MT_KERNEL_CPU_SIMD_H

/* Clones are chosen before sanitizers have started, which then crash; clang lacks the levels. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && defined(__gnu_linux__)
#define MT_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MT_CLONES
#endif

#define MT_INLINE static inline __attribute__((always_inline))

/* Partial sums of a vectorised float sum: one AVX-512 register, two AVX2 ones. */
enum { MT_LANES = 16 };

#endif
