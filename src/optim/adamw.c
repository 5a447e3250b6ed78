#include "base/memory.h"
#include "optim/internal.h"

enum mt_status mt_optim_create(struct mt_store *store, struct mt_comm *comm,
                               const struct mt_config *config, struct mt_optim **out)
{
    struct mt_optim *optim = NULL;
    enum mt_status status = MT_OK;
    *out = NULL;
    MT_TRY_GOTO(MT_ALLOCATE(optim, 1, "the optimizer"));
    optim->store = store;
    optim->comm = comm;
    optim->beta1 = config->optimizer.betas[0];
    optim->beta2 = config->optimizer.betas[1];
    optim->eps = config->optimizer.eps;
    optim->weight_decay = config->optimizer.weight_decay;
    optim->n_chunk = mt_store_n_chunk(store);
    MT_TRY_GOTO(MT_ALLOCATE(optim->square, optim->n_chunk, "sums of gradient squares"));
    MT_TRY_GOTO(mt_comm_reserve_small(comm, optim->n_chunk));
    *out = optim;
cleanup:
    if (status != MT_OK) {
        mt_optim_destroy(optim);
    }
    return status;
}

void mt_optim_destroy(struct mt_optim *optim)
{
    if (optim == NULL) {
        return;
    }
    mt_memory_free(optim->square);
    mt_memory_free(optim);
}

void mt_optim_update(struct mt_optim *optim, double lr, double grad_scale, int64_t update)
{
    MT_ASSERT(update >= 1);
    const struct mt_adamw args = {.lr = lr,
                                  .beta1 = optim->beta1,
                                  .beta2 = optim->beta2,
                                  .eps = optim->eps,
                                  .weight_decay = optim->weight_decay,
                                  .grad_scale = grad_scale,
                                  .step = update};
    mt_store_update(optim->store, &args);
}
