/* Causal grouped-query attention, the specification: for every sequence b, head h, position t
 *   s_u = q_t . k_u / sqrt(Dh) for u <= t,  P = softmax(s),  o_t = sum_u P_u v_u
 * where head h reads key and value head h / (H / Hk). With `first` u starts at first[t], the first
 * token of t's own segment. */
#ifndef MT_REFERENCE_ATTENTION_H
#define MT_REFERENCE_ATTENTION_H

#include <stdint.h>

struct mt_ref_attention {
    int64_t n_sequence, length, n_head, n_kv_head, head_dim; /* B T H Hk Dh */
    const int64_t *first;                                    /* [B,T] positions; NULL: 0 */
};

/* o [B*T,H,Dh], lse [B,H,T], q [B*T,H,Dh], k, v [B*T,Hk,Dh] */
void mt_ref_attention_forward(double *o, double *lse, const double *q, const double *k,
                              const double *v, const struct mt_ref_attention *shape);

/* d_q, d_k, d_v (shaped as q, k, v) written. */
struct mt_ref_attention_backward {
    double *d_q, *d_k, *d_v;
    const double *d_o, *q, *k, *v;
};
void mt_ref_attention_backward(const struct mt_ref_attention_backward *args,
                               const struct mt_ref_attention *shape);

#endif
