/* The operations of kernel.h on a GPU: kernels of our own and matrix products by cuBLAS.
 *
 * Each mt_cuda_<op> enqueues its work on the stream of the context and returns. Arrays are device
 * memory; structs of arguments, group offsets, lists of pointers and of items are host memory and
 * read before the call returns; sums that kernel.h returns go to device memory. Nothing here waits
 * and nothing allocates, but for init and clear (docs/decisions/0016-gpu.md).
 *
 * What goes wrong is kept: the first error ends what follows, and mt_cuda_wait returns it. */
#ifndef MT_KERNEL_CUDA_CUDA_H
#define MT_KERNEL_CUDA_CUDA_H

#include "kernel/kernel.h"

#include <cublas_v2.h>
#include <cuda_runtime.h>

/* Streams beside the main one, for products of experts that are large enough to go one by one. */
enum { MT_CUDA_SIDES = 4 };

/* Which way each of several products takes (product_ways.cu, few_rows.cu). Apart goes what has at
 * least so many tiles of 128 x 128 in its result and so many multiplications and additions. Figures
 * of a model until a GPU has measured both ways side by side (tests/gpu.sh). */
struct mt_cuda_ways {
    int64_t apart_tiles, apart_flops; /* 0: every product; INT64_MAX: none in float32 */
    int few_rows; /* up to MT_CUDA_FEW_ROWS: groups that go to our own kernel; 0: none */
};
enum { MT_CUDA_FEW_ROWS = 16 };
struct mt_cuda_ways mt_cuda_planned_ways(void);

/* A stream with what operations on it need. */
struct mt_cuda_lane {
    cudaStream_t stream;
    cublasHandle_t blas;
    char *scratch;
    int64_t scratch_bytes;
};

struct mt_cuda {
    struct mt_cuda_ways ways; /* as planned; the same on all ranks */
    cudaStream_t stream;
    cublasHandle_t blas;
    cudaStream_t side[MT_CUDA_SIDES];
    cublasHandle_t side_blas[MT_CUDA_SIDES];
    cudaEvent_t forked, joined[MT_CUDA_SIDES];
    cudaStream_t fetch;        /* copies to the host that wait for a part of the work only */
    struct mt_cuda_lane other; /* for work aside; while that is enqueued, the main one */
    bool is_aside;
    cudaEvent_t aside_done;
    enum mt_dtype dtype;
    char *workspace;       /* dev: cuBLAS's, one for each handle */
    char *scratch;         /* dev: rounded operands, partial sums, tables */
    int64_t scratch_bytes; /* what operations may cut from it: mt_cuda_scratch_bytes */
    int64_t scratch_used;  /* by the operation in progress */
    enum mt_status status; /* the first error, recorded as any (base/status.h) */
};

/* Streams, handles and memory on the current device. */
enum mt_status mt_cuda_init(struct mt_cuda *cuda, enum mt_dtype dtype, int64_t scratch_bytes);
void mt_cuda_clear(struct mt_cuda *cuda);
/* The host waits for everything enqueued; returns the first error since init. */
enum mt_status mt_cuda_wait(struct mt_cuda *cuda);
/* The same for one stream's work. */
enum mt_status mt_cuda_wait_for(struct mt_cuda *cuda, cudaStream_t stream);

/* What `stream` gets from now on comes after what the context has enqueued. */
void mt_cuda_follow(struct mt_cuda *cuda, cudaStream_t stream);
/* From begin to end operations go on a stream of their own, behind what was enqueued before begin,
 * with scratch of their own. What is enqueued after join comes after them. */
void mt_cuda_aside_begin(struct mt_cuda *cuda);
void mt_cuda_aside_end(struct mt_cuda *cuda);
void mt_cuda_aside_join(struct mt_cuda *cuda);
/* Scratch that every operation on up to n rows, of up to `width` elements, can do with. */
int64_t mt_cuda_scratch_bytes(int64_t n, int64_t width);

/* One pack serves both directions: cuBLAS multiplies by either side of a matrix. */
int64_t mt_cuda_weight_bytes(const struct mt_cuda *cuda, int64_t n_out, int64_t n_in);
void mt_cuda_weight_pack(struct mt_cuda *cuda, struct mt_weight *weight, const float *values);
void mt_cuda_linear_forward(struct mt_cuda *cuda, float *y, const float *x,
                            const struct mt_weight *weight, int64_t n);
void mt_cuda_linear_backward_input(struct mt_cuda *cuda, float *d_x, const float *d_y,
                                   const struct mt_weight *weight, int64_t n, bool accumulate);
void mt_cuda_linear_backward_weight(struct mt_cuda *cuda, float *d_w, const float *d_y,
                                    const float *x, int64_t n_out, int64_t n_in, int64_t n);
void mt_cuda_grouped_forward(struct mt_cuda *cuda, float *y, const float *x,
                             const struct mt_weight *const *weight, struct mt_groups groups);
void mt_cuda_grouped_backward_input(struct mt_cuda *cuda, float *d_x, const float *d_y,
                                    const struct mt_weight *const *weight, struct mt_groups groups,
                                    bool accumulate);
void mt_cuda_grouped_backward_weight(struct mt_cuda *cuda, float *const *d_w, const float *d_y,
                                     const float *x, int64_t n_out, int64_t n_in,
                                     struct mt_groups groups);

void mt_cuda_bias_forward(struct mt_cuda *cuda, float *y, const float *bias, int64_t n,
                          int64_t width);
void mt_cuda_bias_backward(struct mt_cuda *cuda, float *d_bias, const float *d_y, int64_t n,
                           int64_t width);

void mt_cuda_rms_norm_forward(struct mt_cuda *cuda, float *y, float *rstd, const float *x,
                              const float *w, int64_t n, int64_t width, float eps);
void mt_cuda_add_rms_norm_forward(struct mt_cuda *cuda, const struct mt_add_rms_norm_forward *args,
                                  int64_t n, int64_t width);
void mt_cuda_rms_norm_backward(struct mt_cuda *cuda, const struct mt_rms_norm_backward *args,
                               int64_t n, int64_t width);

/* Segments are host memory, read before the call returns; sequences are shorter than 2^31.
 * Heads of up to MT_CUDA_HEAD_DIM; wider ones are refused by the wait. */
enum { MT_CUDA_HEAD_DIM = 256 };
int64_t mt_cuda_attention_scratch_bytes(enum mt_dtype dtype, const struct mt_attention *shape);
void mt_cuda_attention_forward(struct mt_cuda *cuda, const struct mt_attention_forward *args,
                               const struct mt_attention *shape);
void mt_cuda_attention_backward(struct mt_cuda *cuda, const struct mt_attention_backward *args,
                                const struct mt_attention *shape);

/* The activation of all n rows: a GPU has the memory, and one launch a product needs it whole. */
int64_t mt_cuda_expert_scratch_bytes(int64_t inner, int64_t n);
void mt_cuda_expert_forward(struct mt_cuda *cuda, const struct mt_expert_forward *args,
                            const struct mt_expert_weights *weights, struct mt_groups groups);
void mt_cuda_expert_backward(struct mt_cuda *cuda, const struct mt_expert_backward *args,
                             const struct mt_expert_weights *weights, struct mt_groups groups);
void mt_cuda_expert_backward_rest(struct mt_cuda *cuda, const struct mt_expert_backward *args,
                                  const struct mt_expert_weights *weights, struct mt_groups groups);
void mt_cuda_router_forward(struct mt_cuda *cuda, float *logits, const float *x, const float *w,
                            int64_t n, int64_t n_expert, int64_t width);
void mt_cuda_router_backward(struct mt_cuda *cuda, const struct mt_router_backward *args, int64_t n,
                             int64_t n_expert, int64_t width);

/* Up to MT_CUDA_MAX_EXPERT experts; more are refused by the wait. n may be 0. */
enum { MT_CUDA_MAX_EXPERT = 2048 };
void mt_cuda_gate_forward(struct mt_cuda *cuda, const struct mt_gate_forward *args, int64_t n,
                          const struct mt_gate *gate);
void mt_cuda_gate_backward(struct mt_cuda *cuda, const struct mt_gate_backward *args, int64_t n,
                           const struct mt_gate *gate);
void mt_cuda_sigmoid_forward(struct mt_cuda *cuda, float *y, const float *x, int64_t n);
void mt_cuda_sigmoid_backward(struct mt_cuda *cuda, float *d_x, const float *d_y, const float *y,
                              int64_t n);
void mt_cuda_rows_copy(struct mt_cuda *cuda, float *out, const int64_t *out_offset, const float *in,
                       const int64_t *in_offset, int64_t n, int64_t width);
void mt_cuda_rows_combine(struct mt_cuda *cuda, const struct mt_rows_combine *args, int64_t n);

void mt_cuda_embedding_forward(struct mt_cuda *cuda, float *x, const int32_t *token,
                               const float *table, int64_t n, int64_t width);
void mt_cuda_embedding_backward(struct mt_cuda *cuda, float *d_table, const int32_t *token,
                                const float *d_x, int64_t n, int64_t width);
/* loss [1] dev; n may be 0 */
void mt_cuda_cross_entropy(struct mt_cuda *cuda, double *loss, float *logits, const int32_t *target,
                           int64_t n, int64_t vocab, float scale);
void mt_cuda_adamw_update(struct mt_cuda *cuda, const struct mt_adamw_item *item, int64_t n_item,
                          const struct mt_adamw *args);
/* sum [1] dev; n may be 0 */
void mt_cuda_sum_squares(struct mt_cuda *cuda, double *sum, const float *x, int64_t n);
void mt_cuda_fill_zero(struct mt_cuda *cuda, float *x, int64_t n);

#endif
