#include "reference/rows.h"

void mt_ref_rows_combine(double *out, const double *in, const int64_t *in_offset, int64_t n,
                         int64_t n_choice, int64_t width)
{
    for (int64_t i = 0; i < n * n_choice; i++) {
        for (int64_t j = 0; in_offset[i] >= 0 && j < width; j++) {
            out[i / n_choice * width + j] += in[in_offset[i] + j];
        }
    }
}

void mt_ref_rows_combine_backward(double *d_in, const double *d_out, const int64_t *in_offset,
                                  int64_t n, int64_t n_choice, int64_t width)
{
    for (int64_t i = 0; i < n * n_choice; i++) {
        for (int64_t j = 0; in_offset[i] >= 0 && j < width; j++) {
            d_in[in_offset[i] + j] += d_out[i / n_choice * width + j];
        }
    }
}
