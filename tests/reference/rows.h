/* Gathering and summing rows, the specification. Offsets in elements. */
#ifndef MT_REFERENCE_ROWS_H
#define MT_REFERENCE_ROWS_H

#include <stdint.h>

/* out [n, width] += sum over k of in + in_offset[i * n_choice + k]; negative: nothing. */
void mt_ref_rows_combine(double *out, const double *in, const int64_t *in_offset, int64_t n,
                         int64_t n_choice, int64_t width);

/* Its gradient: d_in + in_offset[i * n_choice + k] += d_out [n, width]. */
void mt_ref_rows_combine_backward(double *d_in, const double *d_out, const int64_t *in_offset,
                                  int64_t n, int64_t n_choice, int64_t width);

#endif
