/* This rank's part of the global batch: which sequences, and reading them. */
#include "base/memory.h"
#include "base/size.h"
#include "train/internal.h"

#include <string.h>

/* Pairs of tokens of one document: the scores that attention within documents has. */
static int64_t count_scores(const struct mt_document_starts *documents)
{
    int64_t n_score = 0;
    for (int64_t d = 0; d < documents->n; ++d) {
        const int64_t own = documents->start[d + 1] - documents->start[d];
        n_score += own * own;
    }
    return n_score;
}

/* What a token costs beside its scores, in scores: products of attention and head, whose FLOPs are
 * this rank's own. Experts' are not: their rows are placed by load. A score is computed for half of
 * the pairs: 2 q of FLOPs a pair; projections have 4 D (q + k), the head 2 D V over all layers. */
static int64_t token_cost(const struct mt_config *config)
{
    static const double most = 0x1p30; /* beyond, documents make no difference */
    const double width = (double)config->model.hidden_size;
    const double q = (double)(config->model.num_attention_heads * config->model.head_dim);
    const double kv = (double)(config->model.num_key_value_heads * config->model.head_dim);
    const double head = width * (double)config->model.vocab_size;
    const double cost = 2.0 * width * (q + kv) / q + head / (q * (double)config->model.num_layers);
    return (int64_t)(cost < most ? cost : most);
}

enum mt_status mt_batch_open(struct mt_trainer *trainer)
{
    const struct mt_config *config = trainer->config;
    const int64_t n = trainer->split.micro_batch * config->model.max_seq_len;
    MT_TRY(MT_ALLOCATE(trainer->token, n, "batch"));
    MT_TRY(MT_ALLOCATE(trainer->target, n, "batch"));
    MT_TRY(MT_ALLOCATE(trainer->sequence, trainer->split.micro_batch, "batch"));
    if (config->data.attention == MT_SPAN_DOCUMENT) {
        MT_TRY(MT_ALLOCATE(trainer->documents.start, n + 1, "documents of a batch"));
    }
    if (config->data.balance == MT_BATCH_COST) {
        MT_TRY(mt_deal_init(&trainer->deal, &trainer->split));
        MT_TRY(mt_comm_reserve_small(&trainer->session.comm, trainer->split.global_batch));
    }
    return MT_OK;
}

void mt_batch_close(struct mt_trainer *trainer)
{
    mt_deal_clear(&trainer->deal);
    mt_memory_free(trainer->documents.start);
    mt_memory_free(trainer->sequence);
    mt_memory_free(trainer->target);
    mt_memory_free(trainer->token);
}

static struct mt_document_starts *documents_of(struct mt_trainer *trainer)
{
    return trainer->documents.start != NULL ? &trainer->documents : NULL;
}

/* sequence [n] of the global batch, into token, target and documents. */
static enum mt_status read_sequences(struct mt_trainer *trainer, const int64_t *sequence, int64_t n)
{
    return mt_mixture_fill(trainer->data, (uint64_t)trainer->config->run.seed,
                           trainer->state.next_sequence, sequence, n, trainer->token,
                           trainer->target, documents_of(trainer));
}

enum mt_status mt_batch_plan(struct mt_trainer *trainer)
{
    const struct mt_batch_split *split = &trainer->split;
    struct mt_deal *deal = &trainer->deal;
    const int64_t per_token = token_cost(trainer->config);
    const int64_t length = trainer->config->model.max_seq_len;
    if (deal->cost == NULL) {
        return MT_OK;
    }
    mt_span_begin(MT_PHASE_DATA);
    const int64_t end = mt_share_start(split->global_batch, split->n_rank, split->rank + 1);
    memset(deal->cost, 0, (size_t)split->global_batch * sizeof(*deal->cost));
    for (int64_t i = mt_share_start(split->global_batch, split->n_rank, split->rank); i < end;
         ++i) {
        MT_TRY(read_sequences(trainer, &i, 1));
        deal->cost[i] = count_scores(&trainer->documents) + per_token * length;
    }
    MT_TRY(mt_comm_sum_i64(&trainer->session.comm, deal->cost, split->global_batch));
    mt_deal_plan(deal, split);
    mt_span_end(MT_PHASE_DATA);
    return MT_OK;
}

/* By cost, or in order: sequences of this rank's micro-batch into trainer->sequence. */
static int64_t choose_sequences(struct mt_trainer *trainer, int64_t micro)
{
    int64_t first = 0;
    int64_t n = 0;
    if (trainer->deal.cost != NULL) {
        mt_deal_micro(&trainer->deal, &trainer->split, micro, trainer->sequence, &n);
        return n;
    }
    mt_batch_micro(&trainer->split, micro, &first, &n);
    for (int64_t i = 0; i < n; ++i) {
        trainer->sequence[i] = first + i;
    }
    return n;
}

enum mt_status mt_batch_load(struct mt_trainer *trainer, int64_t micro,
                             struct mt_micro_batch *batch)
{
    const struct mt_config *config = trainer->config;
    const int64_t length = config->model.max_seq_len;
    mt_span_begin(MT_PHASE_DATA);
    const int64_t n = choose_sequences(trainer, micro);
    MT_TRY(read_sequences(trainer, trainer->sequence, n));
    mt_samples_note(trainer, n);
    trainer->n_score += (double)count_scores(&trainer->documents);
    *batch = (struct mt_micro_batch){
        .n_sequence = n,
        .length = length,
        .token = trainer->token,
        .target = trainer->target,
        .segments = {trainer->documents.n, trainer->documents.start},
        .token_share = 1.0 / (double)(config->train.global_batch_size * length),
        .index = (int)micro,
        .is_last = micro == mt_batch_n_micro(&trainer->split) - 1,
    };
    mt_record_add_tokens(n * length);
    mt_span_add_work(n * length, n * (length + 1) * (int64_t)sizeof(*trainer->token));
    mt_span_end(MT_PHASE_DATA);
    return MT_OK;
}
