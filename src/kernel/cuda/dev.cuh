/* The only include of kernels: the CUDA language under nvcc, the emulator's (tests/emulation/)
 * under any other compiler. What differs between the two is here and nowhere else:
 *
 *   mt_launch(kernel, grid, block, shared_bytes, stream, arguments...)   never <<<>>>
 *   MT_SHARED(float, tile, [32][33])                                     static shared memory
 *   MT_DYN_SHARED(float, tiles)                                          what the launch asked for
 *   mt_load4, mt_store4                                                  16 bytes at once, aligned
 *   mt_load_bits8                                                        8 bfloat16 at once
 *   mt_bf16_bits, mt_bf16_float                                          the only bfloat16 there is
 *   mt_bf16_pair                                                         two, rounded, in one word
 *   mt_multiply_add                                                      a warp's matrix product
 *   mt_load_matrices, mt_load_matrices_turned                            what goes into one
 *   mt_copy_async, mt_copies_wait                                        to shared memory, later
 *
 * Kernels compute in float; double stands only where a sum is promised in it. Blocks of one launch
 * know nothing of each other: no atomics decide a result, no block waits for another. */
#ifndef MT_KERNEL_CUDA_DEV_CUH
#define MT_KERNEL_CUDA_DEV_CUH

#include <stdint.h>

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#define MT_SHARED(type, name, extent) __shared__ type name extent
#define MT_DYN_SHARED(type, name)                                   \
    extern __shared__ __align__(16) unsigned char mt_dyn_shared_[]; \
    type *const name = reinterpret_cast<type *>(mt_dyn_shared_)

template <typename... Parameter, typename... Argument>
inline void mt_launch(void (*kernel)(Parameter...), dim3 grid, dim3 block, int64_t shared_bytes,
                      cudaStream_t stream, Argument... argument)
{
    kernel<<<grid, block, (size_t)shared_bytes, stream>>>(static_cast<Parameter>(argument)...);
}

__device__ __forceinline__ float4 mt_load4(const float *at)
{
    return *reinterpret_cast<const float4 *>(at);
}

__device__ __forceinline__ void mt_store4(float *at, float4 value)
{
    *reinterpret_cast<float4 *>(at) = value;
}

__device__ __forceinline__ void mt_store_bits4(uint16_t *at, uint2 pairs)
{
    *reinterpret_cast<uint2 *>(at) = pairs;
}

__device__ __forceinline__ uint4 mt_load_bits8(const uint16_t *at)
{
    return *reinterpret_cast<const uint4 *>(at);
}

__device__ __forceinline__ uint16_t mt_bf16_bits(float x)
{
    return __bfloat16_as_ushort(__float2bfloat16_rn(x));
}

__device__ __forceinline__ float mt_bf16_float(uint16_t bits)
{
    return __bfloat162float(__ushort_as_bfloat16(bits));
}

/* low, high as the halves of a word: one instruction where mt_bf16_bits would be three. */
__device__ __forceinline__ unsigned mt_bf16_pair(float low, float high)
{
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return __bfloat16_as_ushort(pair.x) | (unsigned)__bfloat16_as_ushort(pair.y) << 16;
}

/* sum [16,8] += a [16,16] b [16,8] by all lanes of a warp, bfloat16 into float32: mma.m16n8k16 of
 * the PTX ISA. A lane with g = lane / 4, t = lane % 4 has, two neighbours in k a word,
 *   a[0] (g, 2t)  a[1] (g + 8, 2t)  a[2] (g, 2t + 8)  a[3] (g + 8, 2t + 8)
 *   b[0] (2t, g)  b[1] (2t + 8, g)
 *   sum[0] (g, 2t)  sum[1] (g, 2t + 1)  sum[2] (g + 8, 2t)  sum[3] (g + 8, 2t + 1) */
__device__ __forceinline__ void mt_multiply_add(float (&sum)[4], const unsigned (&a)[4],
                                                const unsigned (&b)[2])
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Four matrices [8,8] of bfloat16 from shared memory by all lanes of a warp (ldmatrix): lane 8 i +
 * r says where row r of matrix i is, 16 bytes. Lane l gets of each the elements (l / 4, 2 (l % 4))
 * and the next in its row as one word; turned, the elements (2 (l % 4), l / 4) and the next in its
 * column. */
__device__ __forceinline__ void mt_load_matrices(unsigned (&to)[4], const uint16_t *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"((unsigned)__cvta_generic_to_shared(row))
                 : "memory");
}

__device__ __forceinline__ void mt_load_matrices_turned(unsigned (&to)[4], const uint16_t *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"((unsigned)__cvta_generic_to_shared(row))
                 : "memory");
}

/* 16 bytes, or one float, of global memory on their way to shared memory (cp.async); zeros where
 * is_there is false, and nothing is read then. They are there when their thread has waited, for the
 * others of the block behind a barrier after that. Until then nobody may touch them. */
__device__ __forceinline__ void mt_copy_async(uint16_t *to, const uint16_t *from, bool is_there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"((unsigned)__cvta_generic_to_shared(to)), "l"(from), "r"(is_there ? 16 : 0)
                 : "memory");
}

__device__ __forceinline__ void mt_copy_async(float *to, const float *from, bool is_there)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
                 :
                 : "r"((unsigned)__cvta_generic_to_shared(to)), "l"(from), "r"(is_there ? 4 : 0)
                 : "memory");
}

__device__ __forceinline__ void mt_copies_wait()
{
    asm volatile("cp.async.wait_all;" : : : "memory");
}

#else
#include <emulated_language.cuh>
#endif

/* Lanes of a warp, and all of them. */
enum { MT_WARP = 32 };
static const unsigned mt_all_lanes = 0xffffffffU;

/* Sum, or largest, over a warp's lanes: the same bits in each lane, in one order. */
__device__ __forceinline__ float mt_warp_sum(float x)
{
    for (int step = MT_WARP / 2; step > 0; step /= 2) {
        x += __shfl_xor_sync(mt_all_lanes, x, step);
    }
    return x;
}

__device__ __forceinline__ float mt_warp_max(float x)
{
    for (int step = MT_WARP / 2; step > 0; step /= 2) {
        x = fmaxf(x, __shfl_xor_sync(mt_all_lanes, x, step));
    }
    return x;
}

__host__ __device__ __forceinline__ int64_t mt_cuda_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

__host__ __device__ __forceinline__ int64_t mt_cuda_max(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

__host__ __device__ __forceinline__ int64_t mt_cuda_ceil(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Whether rows of `width` floats from here on can be read 16 bytes at a time. */
__host__ __device__ __forceinline__ bool mt_has_quads(const void *at, int64_t width)
{
    return width % 4 == 0 && reinterpret_cast<uintptr_t>(at) % 16 == 0;
}

/* Elements at .. at + 3 of a row [width], 0 beyond its end. Sums that go by quads have one order,
 * whether 16 bytes are read at a time or 4. */
__device__ __forceinline__ float4 mt_load_quad(const float *row, int64_t at, int64_t width,
                                               bool has_quads)
{
    if (has_quads) {
        return mt_load4(row + at);
    }
    return make_float4(at < width ? row[at] : 0.0F, at + 1 < width ? row[at + 1] : 0.0F,
                       at + 2 < width ? row[at + 2] : 0.0F, at + 3 < width ? row[at + 3] : 0.0F);
}

__device__ __forceinline__ void mt_store_quad(float *row, int64_t at, int64_t width, bool has_quads,
                                              float4 value)
{
    if (has_quads) {
        mt_store4(row + at, value);
        return;
    }
    const float values[4] = {value.x, value.y, value.z, value.w};
#pragma unroll
    for (int j = 0; j < 4; j++) {
        if (at + j < width) {
            row[at + j] = values[j];
        }
    }
}

/* The same, rounded to bfloat16; 8 bytes at a time where the row's address allows. */
__device__ __forceinline__ void mt_store_quad_bf16(uint16_t *row, int64_t at, int64_t width,
                                                   bool has_quads, float4 value)
{
    const uint16_t bits[4] = {mt_bf16_bits(value.x), mt_bf16_bits(value.y), mt_bf16_bits(value.z),
                              mt_bf16_bits(value.w)};
    if (has_quads) {
        mt_store_bits4(row + at, make_uint2(bits[0] | (unsigned)bits[1] << 16,
                                            bits[2] | (unsigned)bits[3] << 16));
        return;
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
        if (at + j < width) {
            row[at + j] = bits[j];
        }
    }
}

/* x y + sum, element by element into one number, in this order. */
__device__ __forceinline__ float mt_dot4(float4 x, float4 y, float sum)
{
    sum += x.x * y.x;
    sum += x.y * y.y;
    sum += x.z * y.z;
    return sum + x.w * y.w;
}

__device__ __forceinline__ float4 mt_scale4(float4 x, float factor)
{
    return make_float4(x.x * factor, x.y * factor, x.z * factor, x.w * factor);
}

__device__ __forceinline__ float4 mt_add4(float4 x, float4 y)
{
    return make_float4(x.x + y.x, x.y + y.y, x.z + y.z, x.w + y.w);
}

__device__ __forceinline__ float mt_sigmoid(float x)
{
    return 1.0F / (1.0F + expf(-x));
}

/* sum + x factor */
__device__ __forceinline__ float4 mt_axpy4(float4 x, float factor, float4 sum)
{
    return make_float4(sum.x + x.x * factor, sum.y + x.y * factor, sum.z + x.z * factor,
                       sum.w + x.w * factor);
}

#endif
