#include "reference/rope.h"

#include <math.h>

void mt_ref_rope(double *x, int64_t n, const struct mt_ref_rope *rope, double direction)
{
    const int64_t half = rope->head_dim / 2;
    for (int64_t r = 0; r < n * rope->n_head; r++) {
        const double position = (double)(r / rope->n_head % rope->length);
        for (int64_t i = 0; i < half; i++) {
            const double frequency = pow(rope->theta, -2.0 * (double)i / (double)rope->head_dim);
            const double angle = direction * position * frequency;
            double *a = x + r * rope->head_dim + i;
            double *b = a + half;
            const double turned = *a * cos(angle) - *b * sin(angle);
            *b = *b * cos(angle) + *a * sin(angle);
            *a = turned;
        }
    }
}
