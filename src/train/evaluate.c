/* Evaluation in lockstep: the same windows, summed, on any number of ranks. */
#include "base/clock.h"
#include "base/job.h"
#include "base/memory.h"
#include "base/size.h"
#include "data/corpus.h"
#include "data/sampler.h"
#include "train/session.h"

/* An evaluation on its way. */
struct pass {
    struct mt_session *session;
    const struct mt_evaluation_options *options;
    int32_t *token, *target;              /* [micro_batch, T] */
    struct mt_document_starts *documents; /* start NULL: attention goes across them */
};

/* A window, to be the micro-batch's sequence number `index`. */
static enum mt_status read_window(const struct mt_corpus *corpus, int64_t window, int64_t index,
                                  const struct pass *pass)
{
    const int64_t at = index * pass->session->config->model.max_seq_len;
    int32_t *const token = pass->token + at;
    MT_TRY(mt_corpus_read(corpus, window, token, pass->target + at));
    return pass->documents->start != NULL
               ? mt_corpus_documents(corpus, window, token, pass->documents)
               : MT_OK;
}

/* Windows first .. first + n - 1 in the corpus's own order. */
static enum mt_status read_windows(const struct mt_corpus *corpus, int64_t first, int64_t n,
                                   const struct pass *pass)
{
    pass->documents->n = 0;
    for (int64_t i = 0; i < n; i++) {
        MT_TRY(read_window(corpus, first + i, i, pass));
    }
    return MT_OK;
}

/* The ranks stop together, or none does. */
static enum mt_status agree_to_stop(const struct pass *pass, bool *is_stopped)
{
    const struct mt_evaluation_options *options = pass->options;
    int64_t n_wanting = 0;
    if (options->wants_stop == NULL) {
        return MT_OK;
    }
    n_wanting = options->wants_stop(options->context) ? 1 : 0;
    MT_TRY(mt_comm_sum_i64(&pass->session->comm, &n_wanting, 1));
    *is_stopped = n_wanting > 0;
    return MT_OK;
}

/* Sum of losses over this rank's share of the windows, in micro-batches. */
static enum mt_status evaluate_share(const struct pass *pass, const struct mt_corpus *corpus,
                                     const struct mt_batch_split *split, double *loss_sum,
                                     bool *is_stopped)
{
    const int64_t length = pass->session->config->model.max_seq_len;
    for (int64_t micro = 0; micro < mt_batch_n_micro(split) && !*is_stopped; micro++) {
        int64_t first = 0;
        int64_t n = 0;
        double loss = 0;
        mt_batch_micro(split, micro, &first, &n);
        MT_TRY(read_windows(corpus, first, n, pass));
        const struct mt_micro_batch batch = {
            .n_sequence = n,
            .length = length,
            .token = pass->token,
            .target = pass->target,
            .segments = {pass->documents->n, pass->documents->start}};
        MT_TRY(mt_model_evaluate(pass->session->model, &batch, &loss));
        *loss_sum += loss;
        MT_TRY(agree_to_stop(pass, is_stopped));
    }
    return MT_OK;
}

static enum mt_status evaluate_set(const struct pass *pass, const struct mt_validation *validation,
                                   int set, struct mt_evaluation *result)
{
    const struct mt_comm *comm = &pass->session->comm;
    const struct mt_batch_split split = {
        .global_batch = mt_validation_n_window(validation, set, pass->options->n_sequence),
        .micro_batch = pass->options->micro_batch,
        .n_rank = comm->topology.n_rank,
        .rank = comm->rank};
    double loss_sum = 0;
    MT_TRY(evaluate_share(pass, validation->corpus[set], &split, &loss_sum, &result->is_stopped));
    MT_TRY(mt_comm_sum_f64(&pass->session->comm, &loss_sum, 1));
    const int64_t n_token = split.global_batch * pass->session->config->model.max_seq_len;
    result->set_n_token[set] = n_token;
    result->set_loss[set] = loss_sum / (double)n_token;
    result->n_token += n_token;
    result->loss += loss_sum;
    return MT_OK;
}

static enum mt_status allocate(struct pass *pass, int64_t n_token)
{
    MT_TRY(MT_ALLOCATE(pass->token, 2 * n_token, "evaluation batch"));
    pass->target = pass->token + n_token;
    return pass->session->config->data.attention == MT_SPAN_DOCUMENT
               ? MT_ALLOCATE(pass->documents->start, n_token + 1, "documents of a batch")
               : MT_OK;
}

enum mt_status mt_session_evaluate(struct mt_session *session,
                                   const struct mt_validation *validation,
                                   const struct mt_evaluation_options *options,
                                   struct mt_evaluation *result)
{
    const int64_t n = options->micro_batch * session->config->model.max_seq_len;
    struct mt_document_starts documents = {0};
    struct pass pass = {.session = session, .options = options, .documents = &documents};
    enum mt_status status = MT_OK;
    *result = (struct mt_evaluation){0};
    mt_span_begin(MT_PHASE_EVAL);
    MT_TRY_GOTO(mt_job_agree(allocate(&pass, n)));
    for (int set = 0; set < validation->n_set && !result->is_stopped; set++) {
        MT_TRY_GOTO(evaluate_set(&pass, validation, set, result));
    }
    result->loss /= (double)mt_max_i64(result->n_token, 1);
    mt_span_end(MT_PHASE_EVAL); /* after a failure it stays open: the message names the phase */
cleanup:
    mt_memory_free(documents.start);
    mt_memory_free(pass.token);
    return status;
}
