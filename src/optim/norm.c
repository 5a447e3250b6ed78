#include "optim/internal.h"

#include <math.h>

/* A chunk's sum is non-zero on its owner only, so adding the ranks' vectors is exact in any order,
 * and the one sum that rounds runs over chunk numbers, which do not depend on the ranks. Of cut
 * experts every rank has a part; those are added in the one order of mt_comm_sum_f64, which depends
 * on the ranks in the last bits of a double only. */
enum mt_status mt_optim_grad_norm(struct mt_optim *optim, double *norm)
{
    MT_TRY(mt_store_grad_squares(optim->store, optim->square));
    MT_TRY(mt_comm_sum_f64(optim->comm, optim->square, optim->n_chunk));
    double sum = 0.0;
    for (int64_t chunk = 0; chunk < optim->n_chunk; ++chunk) {
        sum += optim->square[chunk];
    }
    *norm = sqrt(sum);
    return MT_OK;
}

double mt_optim_clip_factor(const struct mt_config *config, double norm)
{
    const double clip = config->optimizer.grad_clip;
    return clip > 0.0 && norm > clip ? clip / norm : 1.0;
}
