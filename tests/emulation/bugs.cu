/* Kernels with one planted bug each, beside their right twins: what the emulator must find, and
 * what it must let pass. */
#include "emulation/bugs.h"

#include "kernel/cuda/dev.cuh"

enum { N_THREAD = 64 };

/* Each thread reads what its neighbour wrote into shared memory. */
__global__ void rotate_shared(float *out, bool has_barrier)
{
    MT_SHARED(float, values, [N_THREAD]);
    values[threadIdx.x] = 0.0F;
    __syncthreads();
    values[threadIdx.x] = (float)threadIdx.x;
    if (has_barrier) {
        __syncthreads();
    }
    out[threadIdx.x] = values[(threadIdx.x + 1) % N_THREAD];
}

/* The same within a warp. */
__global__ void rotate_warp(float *out, bool has_barrier)
{
    MT_SHARED(float, values, [MT_WARP]);
    values[threadIdx.x] = 0.0F;
    __syncwarp();
    values[threadIdx.x] = (float)threadIdx.x;
    if (has_barrier) {
        __syncwarp();
    }
    out[threadIdx.x] = values[(threadIdx.x + 1) % MT_WARP];
}

__global__ void write_from_blocks(float *out, unsigned n_word)
{
    if (threadIdx.x == 0) {
        out[blockIdx.x % n_word] = 1.0F;
    }
}

__global__ void count_atomically(int *count)
{
    atomicAdd(count, 1);
}

__global__ void copy_one(float *out, const float *in, int64_t at)
{
    if (threadIdx.x == 0) {
        out[0] = in[at];
    }
}

__global__ void read_shared_at(float *out, unsigned at)
{
    MT_SHARED(float, values, [N_THREAD]);
    MT_SHARED(float, others, [N_THREAD]);
    values[threadIdx.x] = 1.0F;
    others[threadIdx.x] = 2.0F;
    __syncthreads();
    const float *const first = values;
    out[threadIdx.x] = first[at];
}

__global__ void read_shared_half(float *out, unsigned n_written)
{
    MT_DYN_SHARED(float, values);
    if (threadIdx.x < n_written) {
        values[threadIdx.x] = 1.0F;
    }
    __syncthreads();
    out[threadIdx.x] = values[threadIdx.x];
}

/* Half a warp goes another way; the others name them in their mask. */
__global__ void sum_half(float *out, bool is_whole)
{
    float x = 1.0F;
    if (is_whole || threadIdx.x < 16) {
        x = mt_warp_sum(x);
    }
    out[threadIdx.x] = x;
}

__global__ void leave_before_barrier(float *out, unsigned n_stay)
{
    if (threadIdx.x < n_stay) {
        __syncthreads();
    }
    out[threadIdx.x] = 0.0F;
}

__global__ void load_vector(float *out, const float *in, unsigned at)
{
    if (threadIdx.x == 0) {
        mt_store4(out, mt_load4(in + at));
    }
}

__global__ void copy_by_library(float *out, const float *in, int64_t n_bytes)
{
    if (threadIdx.x == 0) {
        memcpy(out, in, (size_t)n_bytes);
    }
}

/* An array of the thread's own, beyond its end when n is more than it has. */
__global__ void sum_own_array(float *out, int n)
{
    float own[8];
    float sum = 0.0F;
    for (int i = 0; i < 8; i++) {
        own[i] = (float)i;
    }
    for (int i = 0; i < n; i++) {
        sum += own[(i + (int)threadIdx.x) % n];
    }
    if (threadIdx.x == 0) {
        out[0] = sum;
    }
}

/* Two threads write the halves of one word, with a barrier before they read each other's. */
__global__ void swap_half_words(uint16_t *out, const uint16_t *in)
{
    MT_SHARED(uint16_t, halves, [N_THREAD]);
    halves[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = halves[threadIdx.x ^ 1U];
}

/* One matrix instruction; fragments as dev.cuh has them. */
__global__ void multiply_matrices(float *sum, const uint16_t *a, const uint16_t *b, int n_lane)
{
    const int g = (int)threadIdx.x / 4;
    const int k = (int)threadIdx.x % 4 * 2;
    unsigned a_words[4];
    unsigned b_words[2];
    float own[4];
    for (int i = 0; i < 4; i++) {
        const uint16_t *at = a + (g + i % 2 * 8) * 16 + k + i / 2 * 8;
        a_words[i] = at[0] | (unsigned)at[1] << 16;
        own[i] = sum[(g + i / 2 * 8) * 8 + k + i % 2];
    }
    for (int i = 0; i < 2; i++) {
        const uint16_t *at = b + (k + i * 8) * 8 + g;
        b_words[i] = at[0] | (unsigned)at[8] << 16;
    }
    if ((int)threadIdx.x < n_lane) {
        mt_multiply_add(own, a_words, b_words);
    }
    for (int i = 0; i < 4; i++) {
        sum[(g + i / 2 * 8) * 8 + k + i % 2] = own[i];
    }
}

__global__ void load_matrices(unsigned *words, const uint16_t *rows)
{
    MT_SHARED(uint16_t, tile, [32 * 8]);
    unsigned got[2][4];
    for (int i = 0; i < 8; i++) {
        tile[threadIdx.x * 8 + i] = rows[threadIdx.x * 8 + i];
    }
    __syncwarp();
    mt_load_matrices(got[0], tile + threadIdx.x * 8);
    mt_load_matrices_turned(got[1], tile + threadIdx.x * 8);
    for (int i = 0; i < 8; i++) {
        words[i * 32 + threadIdx.x] = got[i / 4][i % 4];
    }
}

__global__ void turn_around(float *out, const float *in, bool is_right)
{
    MT_SHARED(float, all, [N_THREAD]);
    mt_copy_async(all + threadIdx.x, in + threadIdx.x, true);
    if (is_right) {
        mt_copies_wait();
    }
    __syncthreads();
    out[threadIdx.x] = all[N_THREAD - 1 - threadIdx.x];
}

void bug_shared_rotation(float *out, bool is_right, cudaStream_t stream)
{
    mt_launch(rotate_shared, 1, N_THREAD, 0, stream, out, is_right);
}
void bug_warp_rotation(float *out, bool is_right, cudaStream_t stream)
{
    mt_launch(rotate_warp, 1, MT_WARP, 0, stream, out, is_right);
}
void bug_blocks(float *out, bool is_right, cudaStream_t stream)
{
    mt_launch(write_from_blocks, 4, 32, 0, stream, out, is_right ? 4U : 2U);
}
void bug_atomic(int *count, cudaStream_t stream)
{
    mt_launch(count_atomically, 3, 40, 0, stream, count);
}
void bug_copy(float *out, const float *in, int64_t at, cudaStream_t stream)
{
    mt_launch(copy_one, 1, 32, 0, stream, out, in, at);
}
void bug_shared_bounds(float *out, bool is_right, cudaStream_t stream)
{
    mt_launch(read_shared_at, 1, N_THREAD, 0, stream, out, is_right ? 63U : 64U);
}
void bug_shared_unknown(float *out, bool is_right, cudaStream_t stream)
{
    mt_launch(read_shared_half, 1, N_THREAD, N_THREAD * 4, stream, out, is_right ? 64U : 63U);
}
void bug_mask(float *out, bool is_right, cudaStream_t stream)
{
    mt_launch(sum_half, 1, 32, 0, stream, out, is_right);
}
void bug_barrier(float *out, bool is_right, cudaStream_t stream)
{
    mt_launch(leave_before_barrier, 1, N_THREAD, 0, stream, out, is_right ? 64U : 32U);
}
void bug_vector(float *out, const float *in, bool is_right, cudaStream_t stream)
{
    mt_launch(load_vector, 1, 32, 0, stream, out, in, is_right ? 4U : 3U);
}
void bug_library(float *out, const float *in, int64_t n_bytes, cudaStream_t stream)
{
    mt_launch(copy_by_library, 1, 32, 0, stream, out, in, n_bytes);
}
void bug_own_array(float *out, int n, cudaStream_t stream)
{
    mt_launch(sum_own_array, 1, 32, 0, stream, out, n);
}
void bug_half_words(uint16_t *out, const uint16_t *in, cudaStream_t stream)
{
    mt_launch(swap_half_words, 1, N_THREAD, 0, stream, out, in);
}
void bug_matrix(float *sum, const uint16_t *a, const uint16_t *b, int n_lane, cudaStream_t stream)
{
    mt_launch(multiply_matrices, 1, MT_WARP, 0, stream, sum, a, b, n_lane);
}
void bug_load(unsigned *words, const uint16_t *rows, cudaStream_t stream)
{
    mt_launch(load_matrices, 1, MT_WARP, 0, stream, words, rows);
}
void bug_copies(float *out, const float *in, bool is_right, cudaStream_t stream)
{
    mt_launch(turn_around, 1, N_THREAD, 0, stream, out, in, is_right);
}
