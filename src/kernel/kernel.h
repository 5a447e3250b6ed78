/* The closed list of operations. Everything a model computes is one of these.
 *
 * This file is the contract: shapes, aliasing, what accumulates, in which order sums are taken.
 * tests/reference/ is the specification in naive double precision; kernel/cpu/<op>.c computes the
 * same in float32 on host memory. A call checks its arguments, accounts FLOPs and bytes with the
 * device (pacing), and goes through the device's table (kernel/table.h).
 *
 * Letters (docs/notation.md): B sequences, T length, N = B*T tokens, D width, H heads, Hk kv heads,
 * Dh head width, F expert width, E experts, K choices, S rows of experts, V vocabulary. Row-major,
 * last index fastest. `n` rows may be 0 everywhere: nothing is read or written then, sums are 0.
 * Buffers do not overlap unless said so. Sums have one order, whatever the number of threads.
 */
#ifndef MT_KERNEL_KERNEL_H
#define MT_KERNEL_KERNEL_H

#include "base/status.h"
#include "device/device.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Matrix products ------------------------------------------------------------------------- */

/* On a device of dtype MT_BFLOAT16 these products round both operands to bfloat16 (to nearest, ties
 * to even; subnormal numbers may become 0), multiply exactly and sum in float32. All arrays stay
 * float32, and no other operation rounds (docs/decisions/0009-bfloat16.md). */

/* A weight matrix [n_out, n_in] in the two layouts that products want, made once per optimizer
 * step: for y = x W^T and for d_x = d_y W. */
struct mt_weight {
    int64_t n_out, n_in;
    void *forward_pack;  /* caller's memory, mt_weight_bytes() in all */
    void *backward_pack; /* NULL: inference only */
};
/* The products that read the one and the other. */
enum mt_pass { MT_PASS_FORWARD, MT_PASS_BACKWARD, MT_N_PASS };

/* Makes everything that products of this shape need (code generation included), so that the step
 * only computes. Idempotent. MT_ERR_INTERNAL with the library's words. */
enum mt_status mt_linear_prepare(struct mt_device *device, int64_t n_out, int64_t n_in);
/* Frees what mt_linear_prepare made, for all shapes; the process may prepare anew. */
void mt_kernel_clear(void);
/* Bytes for the packs of one weight on a device of this kind and type: a multiple of 64. */
int64_t mt_weight_bytes(const struct mt_device *device, int64_t n_out, int64_t n_in,
                        bool with_backward);
/* Lays the packs into memory [mt_weight_bytes, 64-byte aligned]. */
void mt_weight_init(const struct mt_device *device, struct mt_weight *weight, int64_t n_out,
                    int64_t n_in, bool with_backward, void *memory);
/* values [n_out, n_in] */
void mt_weight_pack(struct mt_device *device, struct mt_weight *weight, const float *values);
/* What products of one pass read, as far as it is apart: a GPU packs once for both. */
void mt_weight_pack_for(struct mt_device *device, struct mt_weight *weight, enum mt_pass pass,
                        const float *values);

/* y [n, n_out] = x [n, n_in] W^T */
void mt_linear_forward(struct mt_device *device, float *y, const float *x,
                       const struct mt_weight *weight, int64_t n);
/* d_x [n, n_in] (=, or += when accumulate) d_y [n, n_out] W */
void mt_linear_backward_input(struct mt_device *device, float *d_x, const float *d_y,
                              const struct mt_weight *weight, int64_t n, bool accumulate);
/* d_w [n_out, n_in] += d_y [n, n_out]^T x [n, n_in] */
void mt_linear_backward_weight(struct mt_device *device, float *d_w, const float *d_y,
                               const float *x, int64_t n_out, int64_t n_in, int64_t n);

/* The same for n_group weights of one shape: group g has rows offset[g] .. offset[g+1] - 1 of the
 * ragged x, y; rows before offset[0] are left alone. offset [n_group+1]. A group may be empty: its
 * d_w is left as it is. */
struct mt_groups {
    int n_group;
    const int64_t *offset;
};
void mt_grouped_forward(struct mt_device *device, float *y, const float *x,
                        const struct mt_weight *const *weight, struct mt_groups groups);
void mt_grouped_backward_input(struct mt_device *device, float *d_x, const float *d_y,
                               const struct mt_weight *const *weight, struct mt_groups groups,
                               bool accumulate);
/* d_w [n_group] pointers to [n_out, n_in] */
void mt_grouped_backward_weight(struct mt_device *device, float *const *d_w, const float *d_y,
                                const float *x, int64_t n_out, int64_t n_in,
                                struct mt_groups groups);

/* y [n,width] += bias [width] in every row */
void mt_bias_forward(struct mt_device *device, float *y, const float *bias, int64_t n,
                     int64_t width);
/* d_bias [width] += sum over rows of d_y [n,width], in double, in one order */
void mt_bias_backward(struct mt_device *device, float *d_bias, const float *d_y, int64_t n,
                      int64_t width);

/* ---- Normalisation, rotary embedding, attention ------------------------------------------------
 */

/* y [n,D] = x [n,D] * rstd * w [D], rstd [n] = 1 / sqrt(mean(x^2) + eps). y may be x. */
void mt_rms_norm_forward(struct mt_device *device, float *y, float *rstd, const float *x,
                         const float *w, int64_t n, int64_t width, float eps);
/* The residual stream on its way into a norm: sum [n,D] += x [n,D], then y, rstd of sum as above.
 * One pass, with the bits of an addition followed by mt_rms_norm_forward. */
struct mt_add_rms_norm_forward {
    float *sum;     /* [n,D] */
    float *y;       /* [n,D] */
    float *rstd;    /* [n] */
    const float *x; /* [n,D] */
    const float *w; /* [D] */
    float eps;
};
void mt_add_rms_norm_forward(struct mt_device *device, const struct mt_add_rms_norm_forward *args,
                             int64_t n, int64_t width);
/* With xhat = x rstd, g = d_y w: d_x = rstd (g - xhat mean(g xhat)); d_w [D] += sum over rows of
 * d_y xhat. d_x may be d_y. */
struct mt_rms_norm_backward {
    float *d_x;        /* [n,D] = , or += when accumulate (then not d_y) */
    float *d_w;        /* [D] += */
    const float *d_y;  /* [n,D] */
    const float *x;    /* [n,D] input of forward */
    const float *w;    /* [D] */
    const float *rstd; /* [n] */
    bool accumulate;
};
void mt_rms_norm_backward(struct mt_device *device, const struct mt_rms_norm_backward *args,
                          int64_t n, int64_t width);

/* cosine, sine [T, Dh/2] of position * frequency [Dh/2], angles in double, times magnitude. */
void mt_rope_tables(float *cosine, float *sine, int64_t length, int64_t head_dim,
                    const double *frequency, double magnitude);
/* Rotary embedding in half-split form: at position t the pair (a, b) = (x[i], x[i + Dh/2]) of a
 * head becomes (a c - b s, b c + a s). Row r has position r % T. */
struct mt_rope {
    const float *cosine, *sine; /* [T, Dh/2] */
};

/* Causal grouped-query attention, scores scaled by 1/sqrt(Dh): head h reads kv head h / (H/Hk).
 * With segments a token sees its own segment only, and blocks of scores between two are not even
 * computed: the work is that of the segments, each a sequence of its own. Rotary positions start
 * at 0 in each: scores depend on differences of positions alone, so this changes no result beyond
 * rounding, and a document's results do not depend on where in a sequence it lies.
 * q and k are rotated as they are read, with rope, and their gradients are those of what is given;
 * Dh is even then. T x T is never stored for more than one block of one head.
 * In bfloat16 a device may round what its products multiply: q and k once they are rotated, v, d_o,
 * exponentials relative to a largest score (at most 1), and d_s. Sums, softmax, lse and <d_o, o>
 * stay float32. Compared with exact results for rounded q, k, v and d_o, o is then within 2^-8 of
 * the largest |o|, each gradient within 2^-6 of its largest, and lse as in float32. The CPU rounds
 * none. */
struct mt_attention {
    int64_t n_sequence, length, n_head, n_kv_head, head_dim; /* B T H Hk Dh */
    /* Forward of one sequence only: positions before the first query, whose keys and values stand
     * before the others in k and v [n_past + T, Hk, Dh]; the queries' positions begin there. The
     * result has the bits of the queries' rows of a forward over all n_past + T. */
    int64_t n_past;
};
/* start [n + 1]: segment i holds tokens start[i] - start[0] .. start[i + 1] - start[0] - 1 of the
 * call; none is empty and none crosses from one sequence to the next. Together they are all. */
struct mt_attention_segments {
    int64_t n;
    const int64_t *start;
};
/* Bytes of scratch that either call needs, for this device's threads. */
int64_t mt_attention_scratch_bytes(const struct mt_device *device,
                                   const struct mt_attention *shape);
struct mt_attention_forward {
    float *o;       /* [N,H,Dh] */
    float *lse;     /* [B,H,T] natural log of the sum of exponentials, saved for backward */
    const float *q; /* [N,H,Dh] */
    const float *k; /* [N,Hk,Dh] */
    const float *v; /* [N,Hk,Dh] */
    void *scratch;
    const struct mt_rope *rope;                   /* NULL: q and k are used as they are */
    const struct mt_attention_segments *segments; /* NULL: each sequence is one */
};
void mt_attention_forward(struct mt_device *device, const struct mt_attention_forward *args,
                          const struct mt_attention *shape);
struct mt_attention_backward {
    float *d_q, *d_k, *d_v; /* as q, k, v; written */
    const float *d_o, *o, *lse;
    const float *q, *k, *v;
    void *scratch;
    const struct mt_rope *rope; /* as in forward */
    const struct mt_attention_segments *segments;
};
void mt_attention_backward(struct mt_device *device, const struct mt_attention_backward *args,
                           const struct mt_attention *shape);

/* ---- Experts -----------------------------------------------------------------------------------
 */

/* Expert feed-forwards: SwiGLU between two products, rows of group g through the weights of g.
 *   act = silu(x W_gate^T) * (x W_up^T) * row_weight        y = act W_down^T
 * with silu(g) = g / (1 + exp(-g)). Products have the bits that mt_grouped_* give; act never exists
 * for all rows. */
struct mt_expert_weights {
    const struct mt_weight *const *gate, *const *up; /* [n_group] of [F,D] */
    const struct mt_weight *const *down;             /* [n_group] of [D,F] */
};
/* Rows whose activations exist at a time in backward. */
enum { MT_EXPERT_PANEL_ROWS = 1024 };
/* Bytes of scratch that either call needs for up to n rows, for this device's threads. */
int64_t mt_expert_scratch_bytes(const struct mt_device *device, int64_t inner, int64_t n);
struct mt_expert_forward {
    float *y;                /* [n,D] */
    float *gate, *up;        /* [n,F] x W_gate^T and x W_up^T, for backward */
    const float *x;          /* [n,D] */
    const float *row_weight; /* [n] or NULL (= 1) */
    void *scratch;
};
void mt_expert_forward(struct mt_device *device, const struct mt_expert_forward *args,
                       const struct mt_expert_weights *weights, struct mt_groups groups);
/* Gradients of the weights are summed in the order of rows, as mt_grouped_backward_weight does. */
struct mt_expert_backward {
    float *d_x;              /* [n,D] written; may be d_y */
    float *d_row_weight;     /* [n] written; NULL when row_weight is */
    float *gate, *up;        /* [n,F] of forward; overwritten with their gradients */
    const float *d_y, *x;    /* [n,D] */
    const float *row_weight; /* [n] or NULL */
    /* [n_group] of [F,D] +=; NULL, both: left to mt_expert_backward_rest. */
    float *const *d_gate_weight, *const *d_up_weight;
    float *const *d_down_weight; /* [n_group] of [D,F] += */
    void *scratch;
};
void mt_expert_backward(struct mt_device *device, const struct mt_expert_backward *args,
                        const struct mt_expert_weights *weights, struct mt_groups groups);
/* The gradients of W_gate and W_up, a third of backward, that nothing waits for: from the gate, up
 * and x that mt_expert_backward left, while its d_x travels. The same bits as in one call. */
void mt_expert_backward_rest(struct mt_device *device, const struct mt_expert_backward *args,
                             const struct mt_expert_weights *weights, struct mt_groups groups);

/* Router: logits [n,E] = x [n,D] w [E,D]^T in float32. The result of a row does not depend on the
 * other rows, nor on their number: another rank count must not flip near ties. */
void mt_router_forward(struct mt_device *device, float *logits, const float *x, const float *w,
                       int64_t n, int64_t n_expert, int64_t width);
/* d_x [n,D] += d_logits w;  d_w [E,D] += d_logits^T x */
struct mt_router_backward {
    float *d_x, *d_w;
    const float *d_logits, *x, *w;
};
void mt_router_backward(struct mt_device *device, const struct mt_router_backward *args, int64_t n,
                        int64_t n_expert, int64_t width);

/* The gate: full softmax, then the K largest, ties to the lower expert id. NaN logits still give K
 * different ids in [0,E). */
struct mt_gate {
    int64_t n_expert, top_k;
    bool normalize; /* weights = p / sum of the chosen p, else p */
    float scale;    /* routed_scaling_factor, on the weights */
};
struct mt_gate_forward {
    int32_t *expert;         /* [n,K] in order of falling probability */
    float *weight;           /* [n,K] */
    float *probability;      /* [n,E] full softmax */
    float *lse;              /* [n] logsumexp of the logits */
    int64_t *count;          /* [E] rows per expert: written */
    double *probability_sum; /* [E] sum over tokens: written */
    double *lse_square_sum;  /* [1] sum over tokens of lse^2: written */
    const float *logits;     /* [n,E] */
    bool is_given;           /* expert is read, not written: the choices of a study */
};
void mt_gate_forward(struct mt_device *device, const struct mt_gate_forward *args, int64_t n,
                     const struct mt_gate *gate);
/* d_logits [n,E] = gradient through the weights
 *   + balance_scale p_tj (f_j - sum_i f_i p_ti)    (of E sum_i f_i P_i; f is a constant)
 *   + z_scale lse_t p_tj
 * Normalised: dz_i = w_i (g_i - sum_j w_j g_j) over the chosen, exactly 0 elsewhere. */
struct mt_gate_backward {
    float *d_logits;          /* [n,E] written */
    const float *d_weight;    /* [n,K] */
    const int32_t *expert;    /* [n,K] */
    const float *weight;      /* [n,K] */
    const float *probability; /* [n,E] */
    const float *lse;         /* [n] */
    const float *f;           /* [E] share of the pairs, or NULL: no balance loss */
    float balance_scale;      /* loss_coef * E / T_global */
    float z_scale;            /* 2 * z_loss_coef / T_global */
};
void mt_gate_backward(struct mt_device *device, const struct mt_gate_backward *args, int64_t n,
                      const struct mt_gate *gate);

/* y [n] = 1 / (1 + exp(-x)); y may be x. Backward: d_x [n] = d_y y (1 - y); d_x may be d_y. */
void mt_sigmoid_forward(struct mt_device *device, float *y, const float *x, int64_t n);
void mt_sigmoid_backward(struct mt_device *device, float *d_x, const float *d_y, const float *y,
                         int64_t n);

/* Copies n rows of `width` floats: out + out_offset[i] = in + in_offset[i]. Offsets in floats;
 * NULL: i * width; where one is negative the row is left out. Rows of out are distinct. */
void mt_rows_copy(struct mt_device *device, float *out, const int64_t *out_offset, const float *in,
                  const int64_t *in_offset, int64_t n, int64_t width);
/* out [n, width] (=, or += when accumulate) sum over k = 0 .. n_choice-1, in this order, of
 * in + in_offset[i * n_choice + k]; a negative offset contributes nothing. */
struct mt_rows_combine {
    float *out;
    const float *in;
    const int64_t *in_offset; /* [n, n_choice] in floats */
    int64_t n_choice, width;
    bool accumulate;
};
void mt_rows_combine(struct mt_device *device, const struct mt_rows_combine *args, int64_t n);

/* ---- Embedding, loss, optimizer, sums ----------------------------------------------------------
 */

/* x [n,D] = table[token[i]], table [V,D]; token in [0,V) is the caller's promise. */
void mt_embedding_forward(struct mt_device *device, float *x, const int32_t *token,
                          const float *table, int64_t n, int64_t width);
/* d_table [V,D] += rows of d_x in row order */
void mt_embedding_backward(struct mt_device *device, float *d_table, const int32_t *token,
                           const float *d_x, int64_t n, int64_t width);

/* Cross-entropy of logits [n,V] against target [n]; *loss = the sum over rows of the losses in nats
 * (double, rows in order), in the device's memory. Writes d_logits = scale (softmax - onehot) over
 * logits when scale != 0, leaves logits undefined otherwise. */
void mt_cross_entropy(struct mt_device *device, double *loss, float *logits, const int32_t *target,
                      int64_t n, int64_t vocab, float scale);

/* AdamW (Loshchilov & Hutter 2019) with the clip factor folded in, for every item:
 * g = grad_scale grad; m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2;
 * value -= lr ((m / c1) / (sqrt(v / c2) + eps) + decay value),  c = 1 - b^step;
 * then grad = 0, and a weight is packed as by mt_weight_pack: one pass over the memory of all. */
struct mt_adamw {
    double lr, beta1, beta2, eps, weight_decay, grad_scale;
    int64_t step; /* 1-based number of this update */
};
struct mt_adamw_item {
    float *value, *grad, *m, *v; /* [n] */
    int64_t n;
    bool decays;              /* weight_decay applies */
    struct mt_weight *weight; /* NULL, or of the shape n_out n_in = n of value; prepared */
    int64_t first_chunk;      /* the kernel's own */
};
void mt_adamw_update(struct mt_device *device, struct mt_adamw_item *item, int64_t n_item,
                     const struct mt_adamw *args);

/* *sum = sum of squares of x [n] in double, in fixed chunks, in the device's memory; non-finite
 * input gives a non-finite sum. */
void mt_sum_squares(struct mt_device *device, double *sum, const float *x, int64_t n);
void mt_fill_zero(struct mt_device *device, float *x, int64_t n);

/* ---- What this machine can do ------------------------------------------------------------------
 */

/* Measured multiply-add rate of one core in GFLOP/s (widest vectors; bfloat16: products of pairs,
 * and where the processor has none, the float32 rate that then bounds it), and copy bandwidth of
 * one core in GB/s: the bounds that benchmarks divide by. About 0.2 s each. */
double mt_measure_peak_gflops(enum mt_dtype dtype);
double mt_measure_copy_gbytes_per_s(void);
/* The same rate with two loads from the first cache for every three multiply-adds, as a product
 * has, in one sample of about 0.5 ms: .95 to 1.00 of the rate above on a core of its own, .65 to
 * .85 beside a busy hyperthread, where that rate stays (Zen 3, 2026-11). */
double mt_measure_loaded_gflops(enum mt_dtype dtype);

#ifdef __cplusplus
}
#endif

#endif
