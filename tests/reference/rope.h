/* Rotary position embedding (Su et al. 2021) in the half-split form, the specification. */
#ifndef MT_REFERENCE_ROPE_H
#define MT_REFERENCE_ROPE_H

#include <stdint.h>

struct mt_ref_rope {
    int64_t length, n_head, head_dim; /* T, heads, Dh (even) */
    double theta;
};

/* x [n, heads, Dh] in place; row r has position r % T; the pair of elements (i, i + Dh/2) turns by
 * the angle position * theta^(-2i/Dh). The gradient turns back: `direction` is +1 or -1. */
void mt_ref_rope(double *x, int64_t n, const struct mt_ref_rope *rope, double direction);

#endif
