/* Evaluation in lockstep: the same windows, summed, on any number of ranks. */
#include "base/clock.h"
#include "base/job.h"
#include "base/memory.h"
#include "base/size.h"
#include "data/corpus.h"
#include "data/sampler.h"
#include "train/session.h"

/* token, target [n,T]: windows first .. first + n - 1 in the corpus's own order. */
static enum mt_status read_windows(const struct mt_corpus *corpus, int64_t first, int64_t n,
                                   int64_t length, int32_t *token, int32_t *target)
{
    for (int64_t i = 0; i < n; i++) {
        MT_TRY(mt_corpus_read(corpus, first + i, token + i * length, target + i * length));
    }
    return MT_OK;
}

/* Sum of losses over this rank's share of windows [0, n_sequence), in micro-batches. */
static enum mt_status evaluate_share(struct mt_session *session, const struct mt_corpus *corpus,
                                     const struct mt_batch_split *split, int32_t *token,
                                     int32_t *target, double *loss_sum)
{
    const int64_t length = session->config->model.max_seq_len;
    for (int64_t micro = 0; micro < mt_batch_n_micro(split); micro++) {
        int64_t first = 0;
        int64_t n = 0;
        double loss = 0;
        mt_batch_micro(split, micro, &first, &n);
        MT_TRY(read_windows(corpus, first, n, length, token, target));
        const struct mt_micro_batch batch = {
            .n_sequence = n, .length = length, .token = token, .target = target};
        MT_TRY(mt_model_evaluate(session->model, &batch, &loss));
        *loss_sum += loss;
    }
    return MT_OK;
}

enum mt_status mt_session_evaluate(struct mt_session *session, const struct mt_corpus *corpus,
                                   int64_t n_sequence, int64_t micro_batch,
                                   struct mt_evaluation *result)
{
    const int64_t length = session->config->model.max_seq_len;
    const struct mt_batch_split split = {.global_batch =
                                             mt_min_i64(n_sequence, mt_corpus_n_window(corpus)),
                                         .micro_batch = micro_batch,
                                         .n_rank = session->comm.topology.n_rank,
                                         .rank = session->comm.rank};
    int32_t *token = NULL;
    double loss_sum = 0;
    enum mt_status status = MT_OK;
    mt_span_begin(MT_PHASE_EVAL);
    MT_TRY_GOTO(mt_job_agree(MT_ALLOCATE(token, 2 * micro_batch * length, "evaluation batch")));
    int32_t *const target = token + micro_batch * length;
    MT_TRY_GOTO(evaluate_share(session, corpus, &split, token, target, &loss_sum));
    MT_TRY_GOTO(mt_comm_sum_f64(&session->comm, &loss_sum, 1));
    result->n_token = split.global_batch * length;
    result->loss = loss_sum / (double)mt_max_i64(result->n_token, 1);
    mt_span_end(MT_PHASE_EVAL); /* after a failure it stays open: the message names the phase */
cleanup:
    mt_memory_free(token);
    return status;
}
