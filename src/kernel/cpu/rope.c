#include "kernel/cpu/cpu.h"

#include <math.h>

void mt_cpu_rope_tables(float *cosine, float *sine, int64_t length, int64_t head_dim, double theta)
{
    const int64_t half = head_dim / 2;
    for (int64_t i = 0; i < half; i++) {
        const double frequency = pow(theta, -2.0 * (double)i / (double)head_dim);
        for (int64_t t = 0; t < length; t++) {
            const double angle = (double)t * frequency;
            cosine[t * half + i] = (float)cos(angle);
            sine[t * half + i] = (float)sin(angle);
        }
    }
}
