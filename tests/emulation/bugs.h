/* Launches of kernels with a planted bug; `is_right`: of the right twin. */
#ifndef MT_EMULATION_BUGS_H
#define MT_EMULATION_BUGS_H

#include <cuda_runtime.h>

#include <stdint.h>

void bug_shared_rotation(float *out, bool is_right, cudaStream_t stream);    /* out [64] */
void bug_warp_rotation(float *out, bool is_right, cudaStream_t stream);      /* out [32] */
void bug_blocks(float *out, bool is_right, cudaStream_t stream);             /* out [4] */
void bug_atomic(int *count, cudaStream_t stream);                            /* += 120 */
void bug_copy(float *out, const float *in, int64_t at, cudaStream_t stream); /* out[0] = in[at] */
void bug_shared_bounds(float *out, bool is_right, cudaStream_t stream);      /* out [64] */
void bug_shared_unknown(float *out, bool is_right, cudaStream_t stream);     /* out [64] */
void bug_mask(float *out, bool is_right, cudaStream_t stream);               /* out [32] */
void bug_barrier(float *out, bool is_right, cudaStream_t stream);            /* out [64] */
void bug_vector(float *out, const float *in, bool is_right, cudaStream_t stream); /* out [4] */
/* out[0 .. n_bytes) = in[..] by the C library, which nobody has instrumented. */
void bug_library(float *out, const float *in, int64_t n_bytes, cudaStream_t stream);
void bug_own_array(float *out, int n, cudaStream_t stream);                  /* n <= 8; out [1] */
void bug_half_words(uint16_t *out, const uint16_t *in, cudaStream_t stream); /* out, in [64] */
/* sum [16,8] += a [16,16] b [16,8], row-major, of which `n_lane` lanes of a warp are there */
void bug_matrix(float *sum, const uint16_t *a, const uint16_t *b, int n_lane, cudaStream_t stream);
/* words [8][32]: of each lane, what mt_load_matrices gives of rows [32,8], then turned */
void bug_load(unsigned *words, const uint16_t *rows, cudaStream_t stream);
/* out [64] = in [64] backwards, by copies that threads wait for or not */
void bug_copies(float *out, const float *in, bool is_right, cudaStream_t stream);

#endif
