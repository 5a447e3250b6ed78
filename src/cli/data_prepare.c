/* moetrain data prepare SOURCE... -o PREFIX */
#include "cli/cli.h"

#include "base/clock.h"
#include "base/memory.h"
#include "base/terminal.h"
#include "data/prepare.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

static const int64_t INTERVAL_NS = 100000000;

/* A line that is written over, once a tenth of a second, where a person looks on. */
static void show(const struct mt_prepare_result *so_far, int64_t n_byte_total)
{
    static int64_t next_ns;
    const int64_t now_ns = mt_clock_ns();
    if (now_ns < next_ns || mt_terminal_columns(STDERR_FILENO) == 0) {
        return;
    }
    next_ns = now_ns + INTERVAL_NS;
    const double part = n_byte_total > 0 ? (double)so_far->n_byte / (double)n_byte_total : 1.0;
    (void)fprintf(stderr, "\r\033[K%5.1f %%  %lld documents, %lld tokens", 100.0 * part,
                  (long long)so_far->n_document, (long long)so_far->n_token);
}

static void show_nothing(const struct mt_prepare_result *so_far, int64_t n_byte_total)
{
    (void)so_far;
    (void)n_byte_total;
}

/* The token given, or the usual one. */
static enum mt_status choose_end(const struct mt_arguments *arguments,
                                 const struct mt_tokenizer *tokenizer, int32_t *id)
{
    const char *given = mt_argument(arguments, "--end-of-document");
    *id = -1;
    if (given != NULL && strcmp(given, "none") == 0) {
        return MT_OK;
    }
    if (given != NULL) {
        *id = mt_tokenizer_find(tokenizer, given);
        return *id >= 0 ? MT_OK
                        : MT_FAIL(MT_ERR_CONFIG,
                                  "--end-of-document %s is no token of the tokenizer; one of its "
                                  "tokens, or none, was expected",
                                  given);
    }
    *id = mt_tokenizer_end_of_text(tokenizer);
    return MT_OK;
}

static enum mt_status prepare(const struct mt_arguments *arguments,
                              const struct mt_tokenizer *tokenizer, struct mt_path_list *paths)
{
    struct mt_prepare_result result = {0};
    const bool is_quiet = mt_argument(arguments, "--quiet") != NULL;
    const char *key = mt_argument(arguments, "--key");
    struct mt_prepare_options options = {.tokenizer = tokenizer,
                                         .key = key != NULL ? key : "text",
                                         .prefix = mt_argument(arguments, "-o")};
    MT_TRY(choose_end(arguments, tokenizer, &options.end_of_document));
    for (int i = 0; i < arguments->n_positional; ++i) {
        (void)snprintf(paths->path[paths->n++], MT_PATH_BYTES, "%s", arguments->positional[i]);
    }
    const enum mt_status status =
        mt_prepare(paths, &options, is_quiet ? show_nothing : show, &result);
    if (!is_quiet && mt_terminal_columns(STDERR_FILENO) > 0) {
        (void)fprintf(stderr, "\r\033[K");
    }
    MT_TRY(status);
    (void)printf("%s.bin, %s.idx: %lld documents, %lld tokens of %s; %.2f bytes a token%s\n",
                 options.prefix, options.prefix, (long long)result.n_document,
                 (long long)result.n_token, result.type,
                 (double)result.n_byte / (double)result.n_token,
                 result.n_empty > 0 ? "; documents without text were left out" : "");
    return MT_OK;
}

enum mt_status mt_command_data_prepare(const struct mt_arguments *arguments)
{
    const char *path = mt_argument(arguments, "--tokenizer");
    struct mt_tokenizer *tokenizer = NULL;
    struct mt_path_list *paths = NULL; /* a MiB: too large for the stack */
    if (mt_argument(arguments, "-o") == NULL) {
        return MT_FAIL(MT_ERR_CONFIG, "moetrain data prepare needs -o PREFIX: PREFIX.bin and "
                                      "PREFIX.idx are written");
    }
    (void)signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes is an error of the write */
    MT_TRY(mt_tokenizer_open(path != NULL ? path : "bytes", &tokenizer));
    enum mt_status status = MT_ALLOCATE(paths, 1, "paths");
    status = status == MT_OK ? prepare(arguments, tokenizer, paths) : status;
    mt_memory_free(paths);
    mt_tokenizer_close(tokenizer);
    return status;
}
