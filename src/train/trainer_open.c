/* What a trainer computes with: session, data, optimizer. */
#include "base/job.h"
#include "base/memory.h"
#include "base/size.h"
#include "train/internal.h"

static enum mt_status open_data(struct mt_trainer *trainer)
{
    const struct mt_config *config = trainer->config;
    const struct mt_corpus_options options = {
        .format = config->data.format,
        .token_type = config->data.token_type,
        .vocab_size = config->model.vocab_size,
        .length = config->model.max_seq_len,
        .seed = (uint64_t)config->run.seed,
        .document_end = config->data.document_end,
    };
    MT_TRY(mt_mixture_open(&config->data.train, &config->data.weights, &options, &trainer->data));
    MT_TRY(mt_validation_open(config, &trainer->validation));
    return mt_batch_open(trainer);
}

static int64_t largest_micro_batch(const struct mt_config *config)
{
    const int64_t share = mt_ceil_div(config->train.global_batch_size, mt_job_size());
    return mt_min_i64(config->train.micro_batch_size, share);
}

enum mt_status mt_trainer_open(struct mt_trainer *trainer)
{
    const struct mt_config *config = trainer->config;
    struct mt_model_size size;
    trainer->split = (struct mt_batch_split){.global_batch = config->train.global_batch_size,
                                             .micro_batch = largest_micro_batch(config),
                                             .n_rank = mt_job_size(),
                                             .rank = mt_job_rank()};
    MT_TRY(mt_session_open(&trainer->session, config, true, trainer->split.micro_batch));
    MT_TRY(mt_job_agree(open_data(trainer)));
    MT_TRY(mt_job_agree(
        mt_optim_create(trainer->session.store, &trainer->session.comm, config, &trainer->optim)));
    mt_model_size(config, &size);
    trainer->train_flops_per_token = size.train_flops_per_token;
    trainer->train_flops_per_score = size.train_flops_per_score;
    return MT_OK;
}

enum mt_status mt_trainer_start(struct mt_trainer *trainer)
{
    struct mt_moe *moe = mt_model_moe(trainer->session.model);
    if (moe != NULL) {
        struct mt_costs costs;
        enum mt_costs_origin origin = MT_COSTS_MEASURED;
        MT_TRY(mt_costs_decide(&trainer->session, trainer->split.micro_batch, trainer->costs_state,
                               &costs, &origin));
        mt_moe_set_costs(moe, &costs);
    }
    mt_store_init_values(trainer->session.store, (uint64_t)trainer->config->run.seed);
    return mt_store_publish(trainer->session.store);
}

void mt_trainer_close(struct mt_trainer *trainer)
{
    mt_optim_destroy(trainer->optim);
    mt_validation_close(&trainer->validation);
    mt_mixture_close(trainer->data);
    mt_batch_close(trainer);
    mt_session_close(&trainer->session);
}
