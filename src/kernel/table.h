/* What a device provides: one function per operation of kernel.h, with the same arguments.
 *
 * The public mt_<op> in kernel_*.c checks the arguments, accounts the work with the device and
 * calls through this table; a function here trusts its arguments and computes. n may be 0 only
 * where said. */
#ifndef MT_KERNEL_TABLE_H
#define MT_KERNEL_TABLE_H

#include "kernel/kernel.h"

struct mt_kernel_table {
    enum mt_status (*linear_prepare)(struct mt_device *, int64_t n_out, int64_t n_in);
    int64_t (*weight_bytes)(const struct mt_device *, int64_t n_out, int64_t n_in,
                            bool with_backward);
    void (*weight_pack)(struct mt_device *, struct mt_weight *, const float *values);
    void (*linear_forward)(struct mt_device *, float *y, const float *x, const struct mt_weight *,
                           int64_t n);
    void (*linear_backward_input)(struct mt_device *, float *d_x, const float *d_y,
                                  const struct mt_weight *, int64_t n, bool accumulate);
    void (*linear_backward_weight)(struct mt_device *, float *d_w, const float *d_y, const float *x,
                                   int64_t n_out, int64_t n_in, int64_t n);
    void (*grouped_forward)(struct mt_device *, float *y, const float *x,
                            const struct mt_weight *const *, struct mt_groups);
    void (*grouped_backward_input)(struct mt_device *, float *d_x, const float *d_y,
                                   const struct mt_weight *const *, struct mt_groups,
                                   bool accumulate);
    void (*grouped_backward_weight)(struct mt_device *, float *const *d_w, const float *d_y,
                                    const float *x, int64_t n_out, int64_t n_in, struct mt_groups);

    void (*bias_forward)(struct mt_device *, float *y, const float *bias, int64_t n, int64_t width);
    void (*bias_backward)(struct mt_device *, float *d_bias, const float *d_y, int64_t n,
                          int64_t width);

    void (*rms_norm_forward)(struct mt_device *, float *y, float *rstd, const float *x,
                             const float *w, int64_t n, int64_t width, float eps);
    void (*add_rms_norm_forward)(struct mt_device *, const struct mt_add_rms_norm_forward *,
                                 int64_t n, int64_t width);
    void (*rms_norm_backward)(struct mt_device *, const struct mt_rms_norm_backward *, int64_t n,
                              int64_t width);
    int64_t (*attention_scratch_bytes)(const struct mt_device *, const struct mt_attention *);
    void (*attention_forward)(struct mt_device *, const struct mt_attention_forward *,
                              const struct mt_attention *);
    void (*attention_backward)(struct mt_device *, const struct mt_attention_backward *,
                               const struct mt_attention *);

    int64_t (*expert_scratch_bytes)(const struct mt_device *, int64_t inner, int64_t n);
    void (*expert_forward)(struct mt_device *, const struct mt_expert_forward *,
                           const struct mt_expert_weights *, struct mt_groups);
    void (*expert_backward)(struct mt_device *, const struct mt_expert_backward *,
                            const struct mt_expert_weights *, struct mt_groups);
    void (*expert_backward_rest)(struct mt_device *, const struct mt_expert_backward *,
                                 const struct mt_expert_weights *, struct mt_groups);
    void (*router_forward)(struct mt_device *, float *logits, const float *x, const float *w,
                           int64_t n, int64_t n_expert, int64_t width);
    void (*router_backward)(struct mt_device *, const struct mt_router_backward *, int64_t n,
                            int64_t n_expert, int64_t width);
    /* n = 0 comes through: the sums are written as 0 */
    void (*gate_forward)(struct mt_device *, const struct mt_gate_forward *, int64_t n,
                         const struct mt_gate *);
    void (*gate_backward)(struct mt_device *, const struct mt_gate_backward *, int64_t n,
                          const struct mt_gate *);
    void (*sigmoid_forward)(struct mt_device *, float *y, const float *x, int64_t n);
    void (*sigmoid_backward)(struct mt_device *, float *d_x, const float *d_y, const float *y,
                             int64_t n);
    void (*rows_copy)(struct mt_device *, float *out, const int64_t *out_offset, const float *in,
                      const int64_t *in_offset, int64_t n, int64_t width);
    void (*rows_combine)(struct mt_device *, const struct mt_rows_combine *, int64_t n);

    void (*embedding_forward)(struct mt_device *, float *x, const int32_t *token,
                              const float *table, int64_t n, int64_t width);
    void (*embedding_backward)(struct mt_device *, float *d_table, const int32_t *token,
                               const float *d_x, int64_t n, int64_t width);
    /* n = 0 comes through, of sum_squares too: the sum is written as 0 */
    void (*cross_entropy)(struct mt_device *, double *loss, float *logits, const int32_t *target,
                          int64_t n, int64_t vocab, float scale);
    void (*adamw_update)(struct mt_device *, struct mt_adamw_item *, int64_t n_item,
                         const struct mt_adamw *);
    void (*sum_squares)(struct mt_device *, double *sum, const float *x, int64_t n);
    void (*fill_zero)(struct mt_device *, float *x, int64_t n);
};

extern const struct mt_kernel_table mt_kernel_cpu;

/* The table of this device's kind. */
const struct mt_kernel_table *mt_kernel_table(const struct mt_device *device);

/* Opens an operation of so many FLOPs and bytes on the device and returns its table; the caller
 * closes it with mt_device_operation_end. What multiplies matrices says so with mt_kernel_begin_as,
 * so that benchmarks can tell products from the rest. */
const struct mt_kernel_table *mt_kernel_begin(struct mt_device *device, double flops, double bytes);
const struct mt_kernel_table *mt_kernel_begin_as(struct mt_device *device, enum mt_work work,
                                                 double flops, double bytes);

#endif
