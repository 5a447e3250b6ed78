#include "kernel/cpu/cpu.h"

#include <math.h>

/* Column i of the tables [T, half]. */
static void fill_column(float *cosine, float *sine, int64_t length, int64_t half, double frequency,
                        double magnitude)
{
    for (int64_t t = 0; t < length; t++) {
        const double angle = (double)t * frequency;
        cosine[t * half] = (float)(magnitude * cos(angle));
        sine[t * half] = (float)(magnitude * sin(angle));
    }
}

void mt_cpu_rope_tables(float *cosine, float *sine, int64_t length, int64_t head_dim,
                        const double *frequency, double magnitude)
{
    const int64_t half = head_dim / 2;
    for (int64_t i = 0; i < half; i++) {
        fill_column(cosine + i, sine + i, length, half, frequency[i], magnitude);
    }
}
