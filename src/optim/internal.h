/* What norm.c and adamw.c share. */
#ifndef MT_OPTIM_INTERNAL_H
#define MT_OPTIM_INTERNAL_H

#include "optim/optim.h"

struct mt_optim {
    struct mt_store *store;
    struct mt_comm *comm;
    double beta1, beta2, eps, weight_decay;
    int64_t n_chunk;
    double *square; /* [n_chunk] sums of squares */
};

#endif
