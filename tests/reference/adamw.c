#include "reference/adamw.h"

#include <math.h>

void mt_ref_adamw(double *value, const double *grad, double *m, double *v, int64_t n,
                  const struct mt_ref_adamw *args)
{
    for (int64_t i = 0; i < n; i++) {
        const double g = args->grad_scale * grad[i];
        m[i] = args->beta1 * m[i] + (1.0 - args->beta1) * g;
        v[i] = args->beta2 * v[i] + (1.0 - args->beta2) * g * g;
        const double m_hat = m[i] / (1.0 - pow(args->beta1, (double)args->step));
        const double v_hat = v[i] / (1.0 - pow(args->beta2, (double)args->step));
        value[i] -= args->lr * (m_hat / (sqrt(v_hat) + args->eps) + args->weight_decay * value[i]);
    }
}
