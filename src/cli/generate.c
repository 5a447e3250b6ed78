/* moetrain generate: samples text from a byte-level model. */
#include "cli/cli.h"

#include "base/job.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/size.h"
#include "checkpoint/checkpoint.h"
#include "config/load.h"
#include "train/session.h"

#include <math.h>
#include <string.h>

static const int64_t MAX_TOKENS = (int64_t)1 << 30; /* 4 GiB of ids */

struct sampling {
    const char *prompt;
    int64_t n_token;
    double temperature;
    int64_t seed;
};

/* Token drawn from softmax(logits / temperature); the likeliest when temperature is 0. */
static int32_t sample(const float *logits, int64_t vocab, const struct sampling *sampling,
                      int64_t index)
{
    int32_t best = 0;
    for (int32_t v = 1; v < (int32_t)vocab; v++) {
        best = logits[v] > logits[best] ? v : best;
    }
    if (sampling->temperature <= 0) {
        return best;
    }
    double total = 0;
    for (int64_t v = 0; v < vocab; v++) {
        total += exp(((double)logits[v] - (double)logits[best]) / sampling->temperature);
    }
    double left = total * mt_random_uniform((uint64_t)sampling->seed, mt_random_stream("generate"),
                                            (uint64_t)index);
    for (int32_t v = 0; v < (int32_t)vocab; v++) {
        left -= exp(((double)logits[v] - (double)logits[best]) / sampling->temperature);
        if (left < 0) {
            return v;
        }
    }
    return best;
}

static enum mt_status read_prompt(const struct sampling *sampling, int64_t vocab, int32_t *token)
{
    const int64_t n = (int64_t)strlen(sampling->prompt);
    for (int64_t i = 0; i < n; i++) {
        token[i] = (unsigned char)sampling->prompt[i];
        if (token[i] >= vocab) {
            return MT_FAIL(
                MT_ERR_INPUT,
                "byte %lld of the prompt is %d; expected ids below the model's vocab_size "
                "%lld; leave such characters out",
                (long long)i, (int)token[i], (long long)vocab);
        }
    }
    return MT_OK;
}

static enum mt_status continue_text(struct mt_session *session, const struct sampling *sampling,
                                    int32_t *token, float *logits)
{
    const int64_t vocab = session->config->model.vocab_size;
    const int64_t window = session->config->model.max_seq_len;
    int64_t n = (int64_t)strlen(sampling->prompt);
    for (int64_t i = 0; i < sampling->n_token; i++) {
        const int64_t length = mt_min_i64(n, window);
        MT_TRY(mt_model_next_logits(session->model, token + n - length, length, logits));
        token[n] = sample(logits, vocab, sampling, i);
        if (mt_job_rank() == 0) {
            (void)fputc(token[n] < 256 ? (int)token[n] : '?', stdout);
            (void)fflush(stdout);
        }
        n++;
    }
    return MT_OK;
}

static enum mt_status generate(const struct mt_config *config, const char *path,
                               const struct sampling *sampling)
{
    struct mt_session session;
    struct mt_run_state state = {0};
    int32_t *token = NULL;
    float *logits = NULL;
    MT_ASSERT(config != NULL);
    const int64_t n = (int64_t)strlen(sampling->prompt) + sampling->n_token;
    enum mt_status status = MT_OK;
    MT_TRY_GOTO(mt_session_open(&session, config, false, 1));
    MT_TRY_GOTO(mt_job_agree(MT_ALLOCATE(token, n, "tokens")));
    MT_TRY_GOTO(mt_job_agree(MT_ALLOCATE(logits, config->model.vocab_size, "logits")));
    MT_TRY_GOTO(mt_job_agree(mt_checkpoint_load(session.store, &session.comm, path, true, &state)));
    MT_TRY_GOTO(mt_job_agree(mt_store_publish(session.store)));
    MT_TRY_GOTO(mt_job_agree(read_prompt(sampling, config->model.vocab_size, token)));
    if (mt_job_rank() == 0) {
        (void)fputs(sampling->prompt, stdout);
    }
    status = continue_text(&session, sampling, token, logits);
    if (status != MT_OK) {
        mt_job_abort(status); /* the others wait in the exchange of rows */
    }
    if (mt_job_rank() == 0) {
        (void)fputc('\n', stdout);
    }
cleanup:
    mt_memory_free(logits);
    mt_memory_free(token);
    mt_session_close(&session);
    return status;
}

static enum mt_status read_options(const struct mt_arguments *arguments, struct sampling *sampling)
{
    const bool has_checkpoint = mt_argument(arguments, "--checkpoint") != NULL;
    sampling->prompt = mt_argument(arguments, "--prompt");
    if (!has_checkpoint || sampling->prompt == NULL) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "%s missing; expected: moetrain generate --checkpoint PATH --prompt TEXT",
                       has_checkpoint             ? "--prompt is"
                       : sampling->prompt != NULL ? "--checkpoint is"
                                                  : "--checkpoint and --prompt are");
    }
    if (sampling->prompt[0] == '\0') {
        return MT_FAIL(MT_ERR_CONFIG, "the prompt is empty; expected at least one character to go "
                                      "on from; e.g. --prompt \"And \"");
    }
    MT_TRY(mt_argument_integer(arguments, "--tokens", 200, 0, &sampling->n_token));
    if (sampling->n_token > MAX_TOKENS) {
        return MT_FAIL(MT_ERR_CONFIG, "--tokens %lld is too many; expected at most %lld",
                       (long long)sampling->n_token, (long long)MAX_TOKENS);
    }
    MT_TRY(mt_argument_real(arguments, "--temperature", 0.8, 0, &sampling->temperature));
    return mt_argument_integer(arguments, "--seed", 1, 0, &sampling->seed);
}

/* The model of a checkpoint is what its own configuration says. */
static enum mt_status read_config(const char *path, struct mt_config **config)
{
    struct mt_checkpoint_info info;
    MT_TRY(mt_checkpoint_read_info(path, &info));
    enum mt_status status = MT_ALLOCATE(*config, 1, "configuration");
    if (status == MT_OK) {
        status = mt_config_parse(info.config_text, path, ".", 0, NULL, NULL, *config);
    }
    mt_checkpoint_info_clear(&info);
    return status;
}

enum mt_status mt_command_generate(const struct mt_arguments *arguments)
{
    struct sampling sampling = {0};
    struct mt_config *config = NULL;
    enum mt_status status = mt_job_agree(read_options(arguments, &sampling));
    if (status == MT_OK) {
        status = mt_job_agree(read_config(mt_argument(arguments, "--checkpoint"), &config));
    }
    if (status == MT_OK) {
        status = generate(config, mt_argument(arguments, "--checkpoint"), &sampling);
    }
    mt_memory_free(config);
    return status;
}
