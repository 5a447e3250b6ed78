/* moetrain generate: samples text from a checkpoint, token by token. */
#include "cli/cli.h"

#include "base/clock.h"
#include "base/job.h"
#include "base/memory.h"
#include "base/size.h"
#include "checkpoint/checkpoint.h"
#include "config/load.h"
#include "model/sampling.h"
#include "text/stream.h"
#include "train/session.h"

#include <string.h>

static const int64_t MAX_TOKENS = (int64_t)1 << 30; /* 4 GiB of ids */
/* A vocabulary is bytes with something beside them, or it is some tokenizer's. */
enum { BYTES_VOCAB = 256, MOST_LIKELY_BYTES = 2 * BYTES_VOCAB };

struct options {
    const char *checkpoint, *prompt, *tokenizer; /* NULL: bytes */
    int64_t n_token;
    struct mt_sampling sampling;
    bool is_quiet;
};

struct generation {
    const struct options *options;
    const struct mt_config *config;
    struct mt_session session;
    struct mt_tokenizer *tokenizer;
    int32_t end; /* the token that ends a text; -1: none */
    struct mt_sampler sampler;
    struct mt_model_cache cache;
    struct mt_ids ids; /* the text so far */
    int64_t n_prompt;
    int64_t start;  /* of what the model reads of it */
    float *logits;  /* [V] */
    int64_t *drawn; /* [R] */
    struct mt_text_stream stream;
    int64_t first_ns, begin_ns; /* when the prompt was read, when that began */
    bool is_stopped;            /* on request, before its end */
    bool has_no_reader;         /* of the text, any more */
};

static enum mt_status open_tokenizer(struct generation *g)
{
    const int64_t vocab = g->config->model.vocab_size;
    const char *path = g->options->tokenizer != NULL ? g->options->tokenizer : "bytes";
    if (g->options->tokenizer == NULL && vocab > MOST_LIKELY_BYTES) {
        return MT_FAIL(
            MT_ERR_CONFIG,
            "the model knows %lld tokens, more than bytes; the tokenizer of its data was "
            "expected; name it: --tokenizer FILE",
            (long long)vocab);
    }
    MT_TRY(mt_tokenizer_open(path, &g->tokenizer));
    const int64_t n_id = mt_tokenizer_vocab_size(g->tokenizer);
    if (n_id > vocab && n_id > BYTES_VOCAB) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "%s has ids up to %lld, the model's vocab_size is %lld; the tokenizer of "
                       "the model's data was expected",
                       path, (long long)n_id - 1, (long long)vocab);
    }
    g->end = mt_tokenizer_end_of_text(g->tokenizer);
    return MT_OK;
}

static enum mt_status read_prompt(struct generation *g)
{
    const char *prompt = g->options->prompt;
    const int64_t vocab = g->config->model.vocab_size;
    const int64_t window = g->config->model.max_seq_len;
    MT_TRY(mt_tokenizer_encode(g->tokenizer, prompt, (int64_t)strlen(prompt), &g->ids));
    for (int64_t i = 0; i < g->ids.n; i++) {
        if (g->ids.item[i] >= vocab) {
            return MT_FAIL(MT_ERR_INPUT,
                           "byte %lld of the prompt is %d; expected ids below the model's "
                           "vocab_size %lld; leave such characters out",
                           (long long)i, (int)g->ids.item[i], (long long)vocab);
        }
    }
    if (g->ids.n < 1 || g->ids.n > window) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "the prompt has %lld tokens; 1 to %lld were expected, the model's "
                       "max_seq_len; %s",
                       (long long)g->ids.n, (long long)window,
                       g->ids.n < 1 ? "say more" : "leave its beginning out");
    }
    g->n_prompt = g->ids.n;
    return MT_OK;
}

static enum mt_status allocate(struct generation *g)
{
    const int64_t vocab = g->config->model.vocab_size;
    const int64_t n_drawn_from = mt_min_i64(vocab, mt_tokenizer_vocab_size(g->tokenizer));
    MT_TRY(MT_ALLOCATE(g->logits, vocab, "logits"));
    MT_TRY(MT_ALLOCATE(g->drawn, mt_job_size(), "tokens drawn"));
    MT_TRY(mt_sampler_init(&g->sampler, &g->options->sampling, n_drawn_from));
    MT_TRY(mt_model_cache_init(&g->cache, &g->session.device, g->config));
    return mt_text_stream_init(&g->stream, g->tokenizer, g->ids.item, g->ids.n);
}

/* Logits behind the text so far: only what the cache lacks is computed. A text that outgrows the
 * model's max_seq_len goes on from its last half, which is read anew. */
static enum mt_status next_logits(struct generation *g)
{
    const int64_t window = g->config->model.max_seq_len;
    if (g->ids.n - g->start > window) {
        g->start = g->ids.n - mt_max_i64(1, window / 2);
        g->cache.n = 0;
    }
    const int64_t n_known = g->start + g->cache.n;
    return mt_model_next_logits(g->session.model, &g->cache, g->ids.item + n_known,
                                g->ids.n - n_known, g->logits);
}

/* Instead of a token: nobody takes the text any more, or a signal asked for the end. */
enum { NO_READER = -1, STOPPED = -2 };

/* The next token, the first rank's everywhere: logits may differ by rounding where machines do.
 * One rank's reason to end is everybody's. */
static enum mt_status draw(struct generation *g, int32_t *token)
{
    MT_TRY(mt_sampler_draw(&g->sampler, g->logits, g->ids.n - g->n_prompt, token));
    const int64_t mine = mt_job_stop_requested() ? STOPPED
                         : ferror(stdout) != 0   ? NO_READER
                                                 : *token;
    MT_TRY(mt_comm_gather_i64(&g->session.comm, &mine, 1, g->drawn));
    *token = (int32_t)g->drawn[0];
    for (int rank = 0; rank < mt_job_size(); rank++) {
        *token = g->drawn[rank] < 0 ? (int32_t)g->drawn[rank] : *token;
    }
    return MT_OK;
}

static void put(const char *text, int64_t n)
{
    if (mt_job_rank() == 0 && n > 0) {
        (void)fwrite(text, 1, (size_t)n, stdout);
        (void)fflush(stdout);
    }
}

static enum mt_status continue_text(struct generation *g)
{
    const char *text = NULL;
    int64_t n = 0;
    for (int64_t i = 0; i < g->options->n_token; i++) {
        int32_t token = 0;
        MT_TRY(next_logits(g));
        g->first_ns = i == 0 ? mt_clock_ns() : g->first_ns;
        MT_TRY(draw(g, &token));
        if (token < 0) {
            g->is_stopped = token == STOPPED;
            g->has_no_reader = token == NO_READER;
            break;
        }
        MT_TRY(mt_ids_append(&g->ids, &token, 1));
        if (token == g->end) {
            break;
        }
        MT_TRY(mt_text_stream_add(&g->stream, token, &text, &n));
        put(text, n);
    }
    MT_TRY(mt_text_stream_end(&g->stream, &text, &n));
    put(text, n);
    return MT_OK;
}

/* The first token comes with the prompt, the others are what is timed. */
static void report(const struct generation *g)
{
    const int64_t n = g->ids.n - g->n_prompt;
    const double prompt_s = (double)(g->first_ns - g->begin_ns) * 1e-9;
    const double rest_s = (double)(mt_clock_ns() - g->first_ns) * 1e-9;
    const bool is_wanted = g->is_stopped || (n > 0 && !g->options->is_quiet && !g->has_no_reader);
    if (mt_job_rank() != 0 || !is_wanted) {
        return;
    }
    (void)fprintf(stderr, "%lld tokens of prompt in %.3f s; %lld tokens%s", (long long)g->n_prompt,
                  prompt_s, (long long)n,
                  g->is_stopped                         ? ", then stopped on request"
                  : g->ids.item[g->ids.n - 1] == g->end ? ", the last ends the text"
                                                        : "");
    if (n > 1 && rest_s > 0.0) {
        (void)fprintf(stderr, ": %.1f tokens/s", (double)(n - 1) / rest_s);
    }
    (void)fputc('\n', stderr);
}

/* All that can fail on one rank alone has an agreement behind it. */
static enum mt_status prepare(struct generation *g)
{
    struct mt_run_state state = {0};
    int64_t beside_bytes = 0;
    MT_TRY(mt_job_agree(open_tokenizer(g)));
    MT_TRY(mt_job_agree(read_prompt(g)));
    MT_TRY(mt_job_agree(mt_model_cache_bytes(g->config, &beside_bytes)));
    MT_TRY(mt_session_open_beside(&g->session, g->config, false, 1, beside_bytes));
    MT_TRY(mt_job_agree(allocate(g)));
    MT_TRY(mt_job_agree(mt_checkpoint_load(g->session.store, &g->session.comm,
                                           g->options->checkpoint, true, &state)));
    return mt_job_agree(mt_store_publish(g->session.store));
}

static void clear(struct generation *g)
{
    mt_text_stream_clear(&g->stream);
    mt_model_cache_clear(&g->cache);
    mt_sampler_clear(&g->sampler);
    mt_memory_free(g->drawn);
    mt_memory_free(g->logits);
    mt_memory_free(g->ids.item);
    mt_tokenizer_close(g->tokenizer);
    mt_session_close(&g->session);
}

static enum mt_status generate(const struct mt_config *config, const struct options *options)
{
    MT_ASSERT(config != NULL);
    struct generation g = {.options = options, .config = config};
    enum mt_status status = prepare(&g);
    if (status == MT_OK) {
        put(options->prompt, (int64_t)strlen(options->prompt));
        g.begin_ns = mt_clock_ns();
        status = continue_text(&g);
        if (status != MT_OK) {
            mt_job_abort(status); /* the others wait in the exchange of rows */
        }
        put("\n", 1);
        report(&g);
        status = g.is_stopped ? MT_STOPPED : MT_OK;
    }
    clear(&g);
    return status;
}

static enum mt_status read_sampling(const struct mt_arguments *arguments,
                                    struct mt_sampling *sampling)
{
    int64_t seed = 0;
    MT_TRY(mt_argument_real(arguments, "--temperature", 0.8, 0, &sampling->temperature));
    MT_TRY(mt_argument_integer(arguments, "--top-k", 0, 0, &sampling->top_k));
    MT_TRY(mt_argument_real(arguments, "--top-p", 1.0, 0, &sampling->top_p));
    MT_TRY(mt_argument_integer(arguments, "--seed", 1, 0, &seed));
    sampling->seed = (uint64_t)seed;
    if (sampling->top_p <= 0.0 || sampling->top_p > 1.0) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "--top-p %g is out of range; above 0 and at most 1 was expected; 1 allows "
                       "every token",
                       sampling->top_p);
    }
    return MT_OK;
}

static enum mt_status read_options(const struct mt_arguments *arguments, struct options *options)
{
    options->checkpoint = mt_argument(arguments, "--checkpoint");
    options->prompt = mt_argument(arguments, "--prompt");
    options->tokenizer = mt_argument(arguments, "--tokenizer");
    options->is_quiet = mt_argument(arguments, "--quiet") != NULL;
    const bool has_checkpoint = options->checkpoint != NULL;
    if (!has_checkpoint || options->prompt == NULL) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "%s missing; expected: moetrain generate --checkpoint PATH --prompt TEXT",
                       has_checkpoint            ? "--prompt is"
                       : options->prompt != NULL ? "--checkpoint is"
                                                 : "--checkpoint and --prompt are");
    }
    if (options->prompt[0] == '\0') {
        return MT_FAIL(MT_ERR_CONFIG, "the prompt is empty; expected at least one character to go "
                                      "on from; e.g. --prompt \"And \"");
    }
    MT_TRY(mt_argument_integer(arguments, "--tokens", 200, 0, &options->n_token));
    if (options->n_token > MAX_TOKENS) {
        return MT_FAIL(MT_ERR_CONFIG, "--tokens %lld is too many; expected at most %lld",
                       (long long)options->n_token, (long long)MAX_TOKENS);
    }
    return read_sampling(arguments, &options->sampling);
}

/* The model of a checkpoint is what its own configuration says. */
static enum mt_status read_config(const char *path, struct mt_config **config)
{
    struct mt_checkpoint_info info;
    MT_TRY(mt_check_is_no_run(path));
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
    struct options options = {0};
    struct mt_config *config = NULL;
    enum mt_status status = mt_job_agree(read_options(arguments, &options));
    if (status == MT_OK) {
        status = mt_job_agree(read_config(options.checkpoint, &config));
    }
    if (status == MT_OK) {
        status = generate(config, &options);
    }
    mt_memory_free(config);
    return status;
}
