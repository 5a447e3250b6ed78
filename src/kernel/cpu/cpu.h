/* The operations of kernel.h on host memory: one file an operation, cpu/<op>.c.
 *
 * Same names, arguments and meaning as in kernel.h; arguments were checked and pacing is done by
 * the callers (table.h). Called from the table, and by each other. */
#ifndef MT_KERNEL_CPU_CPU_H
#define MT_KERNEL_CPU_CPU_H

#include "kernel/kernel.h"

/* Matrix products */
void mt_cpu_clear(void);
int64_t mt_cpu_weight_bytes(const struct mt_device *device, int64_t n_out, int64_t n_in,
                            bool with_backward);
enum mt_status mt_cpu_linear_prepare(struct mt_device *device, int64_t n_out, int64_t n_in);
void mt_cpu_weight_pack(struct mt_device *device, struct mt_weight *weight, const float *values);
void mt_cpu_linear_forward(struct mt_device *device, float *y, const float *x,
                           const struct mt_weight *weight, int64_t n);
void mt_cpu_linear_backward_input(struct mt_device *device, float *d_x, const float *d_y,
                                  const struct mt_weight *weight, int64_t n, bool accumulate);
void mt_cpu_linear_backward_weight(struct mt_device *device, float *d_w, const float *d_y,
                                   const float *x, int64_t n_out, int64_t n_in, int64_t n);
void mt_cpu_grouped_forward(struct mt_device *device, float *y, const float *x,
                            const struct mt_weight *const *weight, struct mt_groups groups);
void mt_cpu_grouped_backward_input(struct mt_device *device, float *d_x, const float *d_y,
                                   const struct mt_weight *const *weight, struct mt_groups groups,
                                   bool accumulate);
void mt_cpu_grouped_backward_weight(struct mt_device *device, float *const *d_w, const float *d_y,
                                    const float *x, int64_t n_out, int64_t n_in,
                                    struct mt_groups groups);

void mt_cpu_bias_forward(struct mt_device *device, float *y, const float *bias, int64_t n,
                         int64_t width);
void mt_cpu_bias_backward(struct mt_device *device, float *d_bias, const float *d_y, int64_t n,
                          int64_t width);

/* Normalisation, rotary embedding, attention */
void mt_cpu_rms_norm_forward(struct mt_device *device, float *y, float *rstd, const float *x,
                             const float *w, int64_t n, int64_t width, float eps);
void mt_cpu_add_rms_norm_forward(struct mt_device *device,
                                 const struct mt_add_rms_norm_forward *args, int64_t n,
                                 int64_t width);
void mt_cpu_rms_norm_backward(struct mt_device *device, const struct mt_rms_norm_backward *args,
                              int64_t n, int64_t width);
void mt_cpu_rope_tables(float *cosine, float *sine, int64_t length, int64_t head_dim,
                        const double *frequency, double magnitude);
int64_t mt_cpu_attention_scratch_bytes(const struct mt_device *device,
                                       const struct mt_attention *shape);
void mt_cpu_attention_forward(struct mt_device *device, const struct mt_attention_forward *args,
                              const struct mt_attention *shape);
void mt_cpu_attention_backward(struct mt_device *device, const struct mt_attention_backward *args,
                               const struct mt_attention *shape);

/* Experts */
int64_t mt_cpu_expert_scratch_bytes(const struct mt_device *device, int64_t inner, int64_t n);
void mt_cpu_expert_forward(struct mt_device *device, const struct mt_expert_forward *args,
                           const struct mt_expert_weights *weights, struct mt_groups groups);
void mt_cpu_expert_backward(struct mt_device *device, const struct mt_expert_backward *args,
                            const struct mt_expert_weights *weights, struct mt_groups groups);
void mt_cpu_expert_backward_rest(struct mt_device *device, const struct mt_expert_backward *args,
                                 const struct mt_expert_weights *weights, struct mt_groups groups);
void mt_cpu_router_forward(struct mt_device *device, float *logits, const float *x, const float *w,
                           int64_t n, int64_t n_expert, int64_t width);
void mt_cpu_router_backward(struct mt_device *device, const struct mt_router_backward *args,
                            int64_t n, int64_t n_expert, int64_t width);
void mt_cpu_gate_forward(struct mt_device *device, const struct mt_gate_forward *args, int64_t n,
                         const struct mt_gate *gate);
void mt_cpu_gate_backward(struct mt_device *device, const struct mt_gate_backward *args, int64_t n,
                          const struct mt_gate *gate);
void mt_cpu_sigmoid_forward(struct mt_device *device, float *y, const float *x, int64_t n);
void mt_cpu_sigmoid_backward(struct mt_device *device, float *d_x, const float *d_y, const float *y,
                             int64_t n);
void mt_cpu_rows_copy(struct mt_device *device, float *out, const int64_t *out_offset,
                      const float *in, const int64_t *in_offset, int64_t n, int64_t width);
void mt_cpu_rows_combine(struct mt_device *device, const struct mt_rows_combine *args, int64_t n);

/* Embedding, loss, optimizer, sums */
void mt_cpu_embedding_forward(struct mt_device *device, float *x, const int32_t *token,
                              const float *table, int64_t n, int64_t width);
void mt_cpu_embedding_backward(struct mt_device *device, float *d_table, const int32_t *token,
                               const float *d_x, int64_t n, int64_t width);
void mt_cpu_cross_entropy(struct mt_device *device, double *loss, float *logits,
                          const int32_t *target, int64_t n, int64_t vocab, float scale);
void mt_cpu_adamw_update(struct mt_device *device, struct mt_adamw_item *item, int64_t n_item,
                         const struct mt_adamw *args);
void mt_cpu_sum_squares(struct mt_device *device, double *sum, const float *x, int64_t n);
void mt_cpu_fill_zero(struct mt_device *device, float *x, int64_t n);

#endif
