/* CUDA's language for a host compiler: what kernel/cuda/dev.cuh takes under anything but nvcc.
 *
 * A GPU thread is a fiber of the emulator (../emulator.h). Kernels are compiled with
 * -fsanitize=thread and linked without its library: each access of memory calls a __tsan_ function,
 * and those are the emulator's (../memory.cc). */
#ifndef MT_EMULATED_LANGUAGE_H
#define MT_EMULATED_LANGUAGE_H

#include <cuda_runtime.h>

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <functional>

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)

struct float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct uint3 {
    unsigned x, y, z;
};
inline float2 make_float2(float x, float y)
{
    return float2{x, y};
}
inline uint2 make_uint2(unsigned x, unsigned y)
{
    return uint2{x, y};
}
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w)
{
    return uint4{x, y, z, w};
}
inline float4 make_float4(float x, float y, float z, float w)
{
    return float4{x, y, z, w};
}

/* Of the fiber that asks. */
uint3 mt_emu_thread_index();
uint3 mt_emu_block_index();
uint3 mt_emu_block_extent();
uint3 mt_emu_grid_extent();
#define threadIdx (mt_emu_thread_index())
#define blockIdx  (mt_emu_block_index())
#define blockDim  (mt_emu_block_extent())
#define gridDim   (mt_emu_grid_extent())

/* `site` names a declaration: all threads of a block that pass it get the same memory. */
void *mt_emu_shared(const void *site, size_t bytes, size_t alignment);
void *mt_emu_dynamic_shared();
#define MT_SHARED(type, name, extent)     \
    static const char name##_site_ = '0'; \
    type(&name) extent =                  \
        *static_cast<type(*) extent>(mt_emu_shared(&name##_site_, sizeof(type extent), 16))
#define MT_DYN_SHARED(type, name) type *const name = static_cast<type *>(mt_emu_dynamic_shared())

void mt_emu_block_barrier();
void mt_emu_warp_barrier(unsigned mask);
/* The bits that lane `source` of the warp gave; `kind` tells the operations apart. */
uint64_t mt_emu_exchange(unsigned mask, int kind, uint64_t bits, int source);
unsigned mt_emu_ballot(unsigned mask, bool predicate);
void mt_emu_touch(const void *at, size_t bytes, bool is_write, size_t alignment);
void mt_emu_touch_atomic(const void *at, size_t bytes);

inline void __syncthreads()
{
    mt_emu_block_barrier();
}
inline void __syncwarp(unsigned mask = 0xffffffffU)
{
    mt_emu_warp_barrier(mask);
}
inline unsigned __ballot_sync(unsigned mask, int predicate)
{
    return mt_emu_ballot(mask, predicate != 0);
}
inline int __ffs(int x)
{
    return __builtin_ffs(x);
}

enum { MT_EMU_XOR = 1, MT_EMU_INDEX, MT_EMU_DOWN };
template <typename T> inline T mt_emu_shuffle(unsigned mask, int kind, T value, int source)
{
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(T));
    bits = mt_emu_exchange(mask, kind, bits, source);
    memcpy(&value, &bits, sizeof(T));
    return value;
}
template <typename T> inline T __shfl_xor_sync(unsigned mask, T value, int step)
{
    return mt_emu_shuffle(mask, MT_EMU_XOR, value, step);
}
template <typename T> inline T __shfl_sync(unsigned mask, T value, int lane)
{
    return mt_emu_shuffle(mask, MT_EMU_INDEX, value, lane);
}
template <typename T> inline T __shfl_down_sync(unsigned mask, T value, int step)
{
    return mt_emu_shuffle(mask, MT_EMU_DOWN, value, step);
}

/* Kernels run one fiber at a time, so that a plain addition is atomic. */
template <typename T> __attribute__((no_sanitize("thread"))) T atomicAdd(T *at, T value)
{
    mt_emu_touch_atomic(at, sizeof(T));
    const T before = *at;
    *at = before + value;
    return before;
}

__attribute__((no_sanitize("thread"))) inline float4 mt_load4(const float *at)
{
    mt_emu_touch(at, 16, false, 16);
    return *reinterpret_cast<const float4 *>(at);
}
__attribute__((no_sanitize("thread"))) inline void mt_store4(float *at, float4 value)
{
    mt_emu_touch(at, 16, true, 16);
    *reinterpret_cast<float4 *>(at) = value;
}

__attribute__((no_sanitize("thread"))) inline void mt_store_bits4(uint16_t *at, uint2 pairs)
{
    mt_emu_touch(at, 8, true, 8);
    *reinterpret_cast<uint2 *>(at) = pairs;
}

__attribute__((no_sanitize("thread"))) inline uint4 mt_load_bits8(const uint16_t *at)
{
    mt_emu_touch(at, 16, false, 16);
    return *reinterpret_cast<const uint4 *>(at);
}

/* Layouts are in dev.cuh. */
void mt_emu_multiply_add(float *sum, const unsigned *a, const unsigned *b);
inline void mt_multiply_add(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2])
{
    mt_emu_multiply_add(sum, a, b);
}

/* to [4] */
void mt_emu_load_matrices(unsigned *to, const uint16_t *row, bool is_turned);
inline void mt_load_matrices(unsigned (&to)[4], const uint16_t *row)
{
    mt_emu_load_matrices(to, row, false);
}
inline void mt_load_matrices_turned(unsigned (&to)[4], const uint16_t *row)
{
    mt_emu_load_matrices(to, row, true);
}

void mt_emu_copy_async(void *to, const void *from, size_t bytes, bool is_there);
void mt_emu_copies_wait();
inline void mt_copy_async(uint16_t *to, const uint16_t *from, bool is_there)
{
    mt_emu_copy_async(to, from, 16, is_there);
}
inline void mt_copy_async(float *to, const float *from, bool is_there)
{
    mt_emu_copy_async(to, from, 4, is_there);
}
inline void mt_copies_wait()
{
    mt_emu_copies_wait();
}

inline float mt_bf16_float(uint16_t bits)
{
    const uint32_t word = (uint32_t)bits << 16;
    float x = 0.0F;
    memcpy(&x, &word, sizeof(x));
    return x;
}
/* To nearest, ties to even; a NaN stays one. */
inline uint16_t mt_bf16_bits(float x)
{
    uint32_t word = 0;
    memcpy(&word, &x, sizeof(x));
    if (x != x) {
        return 0x7fff;
    }
    return (uint16_t)((word + 0x7fffU + ((word >> 16) & 1U)) >> 16);
}
inline unsigned mt_bf16_pair(float low, float high)
{
    return mt_bf16_bits(low) | (unsigned)mt_bf16_bits(high) << 16;
}
inline float rsqrtf(float x)
{
    return 1.0F / sqrtf(x);
}

/* Around a thread's kernel: what calls it is the host's and not watched. */
void mt_emu_enter();
void mt_emu_leave();
void mt_emu_enqueue_kernel(dim3 grid, dim3 block, int64_t shared_bytes, cudaStream_t stream,
                           std::function<void()> thread);

/* Arguments are copied at the launch, as CUDA does. */
template <typename... Parameter, typename... Argument>
void mt_launch(void (*kernel)(Parameter...), dim3 grid, dim3 block, int64_t shared_bytes,
               cudaStream_t stream, Argument... argument)
{
    static_assert((sizeof(Parameter) + ... + 0) <= 4096, "a kernel's parameters");
    auto thread = [ kernel, argument... ]() __attribute__((no_sanitize("thread")))
    {
        mt_emu_enter();
        kernel(static_cast<Parameter>(argument)...);
        mt_emu_leave();
    };
    mt_emu_enqueue_kernel(grid, block, shared_bytes, stream, thread);
}

#endif
