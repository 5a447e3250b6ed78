/* moetrain eval CONFIG: one JSON object on standard output. */
#include "cli/cli.h"

#include "base/job.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/size.h"
#include "checkpoint/checkpoint.h"
#include "config/load.h"
#include "train/session.h"

#include <jansson.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

/* The checkpoint named on the command line, else the run directory's newest. Collective. */
static enum mt_status choose_checkpoint(const struct mt_arguments *arguments,
                                        const struct mt_config *config, struct mt_comm *comm,
                                        char *path)
{
    const char *named = mt_argument(arguments, "--checkpoint");
    char folder[MT_PATH_BYTES + 32];
    char notes[4096];
    if (named != NULL) {
        (void)snprintf(path, MT_PATH_BYTES, "%s", named);
        return MT_OK;
    }
    (void)snprintf(folder, sizeof(folder), "%s/checkpoints", config->run.dir);
    MT_TRY(mt_job_agree(mt_checkpoint_find(comm, folder, path, notes, sizeof(notes))));
    if (path[0] != '\0') {
        return MT_OK;
    }
    return mt_job_agree(MT_FAIL(MT_ERR_INPUT,
                                "no valid checkpoint in %s%s%s; expected one; train first "
                                "(checkpoint.interval > 0), or name one with --checkpoint",
                                folder, notes[0] != '\0' ? ": " : "", notes));
}

/* The set of that name [n], made when there is none; -1: there are too many, or it is no name. */
static int find_set(struct mt_path_sets *sets, const char *name, size_t n)
{
    for (int s = 0; s < sets->n_set; s++) {
        if (strlen(sets->name[s]) == n && strncmp(sets->name[s], name, n) == 0) {
            return s;
        }
    }
    if (sets->n_set == MT_MAX_SETS || !mt_value_is_set_name(name, n)) {
        return -1;
    }
    (void)snprintf(sets->name[sets->n_set], MT_NAME_BYTES, "%.*s", (int)n, name);
    return sets->n_set++;
}

/* PATH, or NAME=PATH: a name has no slash, and a file of that whole name comes first. */
static enum mt_status add_data(struct mt_config *config, const char *text)
{
    struct mt_path_sets *sets = &config->data.validation_sets;
    const char *equals = strchr(text, '=');
    const size_t n_name = equals == NULL ? 0 : (size_t)(equals - text);
    struct mt_path_list *paths = &config->data.validation;
    const bool is_named =
        equals != NULL && memchr(text, '/', n_name) == NULL && access(text, F_OK) != 0;
    if (is_named &&
        strncmp(text, "validation=", n_name + 1) == 0) { /* what has no name is called so */
        text = equals + 1;
    } else if (is_named) {
        const int set = find_set(sets, text, n_name);
        if (set < 0) {
            return MT_FAIL(
                MT_ERR_CONFIG,
                "--data %.80s names a set too many, or not well; at most %d names of up to %d "
                "letters, digits, - and _ are expected",
                text, (int)MT_MAX_SETS, (int)MT_NAME_BYTES - 1);
        }
        paths = &sets->paths;
        sets->set[paths->n] = set;
        text = equals + 1;
    }
    if (text[0] == '\0') {
        return MT_FAIL(MT_ERR_CONFIG, "--data names no file; expected --data PATH or NAME=PATH");
    }
    (void)snprintf(paths->path[paths->n++], MT_PATH_BYTES, "%s", text);
    return MT_OK;
}

static enum mt_status open_validation(const struct mt_arguments *arguments,
                                      struct mt_config *config, struct mt_validation *validation)
{
    int at = 0;
    const char *data = mt_argument_next(arguments, "--data", &at);
    if (data != NULL && config->data.format == MT_DATA_RANDOM) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "--data %.200s: data.format is \"random\", which reads no file; expected a "
                       "format of files, e.g. --set 'data.format=\"bytes\"'",
                       data);
    }
    if (data != NULL) {
        config->data.validation.n = 0;
        config->data.validation_sets.n_set = 0;
        config->data.validation_sets.paths.n = 0;
    }
    for (; data != NULL; data = mt_argument_next(arguments, "--data", &at)) {
        MT_TRY(add_data(config, data));
    }
    MT_TRY(mt_validation_open(config, validation));
    if (validation->n_set == 0) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "there is no validation data; expected data.validation in the "
                       "configuration, or --data PATH");
    }
    return MT_OK;
}

/* Random data have no last window, and tokens are counted in 63 bits. */
static enum mt_status check_length(const struct mt_config *config, int64_t n_sequence)
{
    const int64_t most = INT64_MAX / config->model.max_seq_len;
    if (config->data.format == MT_DATA_RANDOM && (n_sequence == 0 || n_sequence > most)) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "--sequences %lld asks for more random data than can be counted; expected 1 "
                       "to %lld",
                       (long long)n_sequence, (long long)most);
    }
    return MT_OK;
}

static json_t *losses_by_set(const struct mt_validation *validation,
                             const struct mt_evaluation *result)
{
    json_t *by_set = json_object();
    for (int s = 0; s < validation->n_set; s++) {
        const double loss = result->set_loss[s];
        (void)json_object_set_new(by_set, validation->name[s],
                                  isfinite(loss) ? json_real(loss) : json_null());
    }
    return by_set;
}

static void print_result(const char *path, const struct mt_run_state *state,
                         const struct mt_validation *validation, const struct mt_evaluation *result)
{
    const double perplexity = exp(result->loss);
    json_t *object = json_object();
    (void)json_object_set_new(object, "checkpoint", json_string(path));
    (void)json_object_set_new(object, "step", json_integer((json_int_t)state->step));
    (void)json_object_set_new(object, "eval_loss",
                              isfinite(result->loss) ? json_real(result->loss) : json_null());
    (void)json_object_set_new(object, "eval_tokens", json_integer((json_int_t)result->n_token));
    (void)json_object_set_new(object, "perplexity",
                              isfinite(perplexity) ? json_real(perplexity) : json_null());
    if (validation->is_named) {
        (void)json_object_set_new(object, "eval_loss_by_set", losses_by_set(validation, result));
    }
    (void)json_dumpf(object, stdout, JSON_REAL_PRECISION(10));
    (void)fputc('\n', stdout);
    json_decref(object);
}

static bool is_asked_to_stop(void *context)
{
    MT_UNUSED(context);
    return mt_job_stop_requested();
}

static enum mt_status evaluate(const struct mt_arguments *arguments, const struct mt_config *config,
                               const struct mt_validation *validation, int64_t n_sequence)
{
    struct mt_session session;
    struct mt_run_state state = {0};
    struct mt_evaluation result = {0};
    char path[MT_PATH_BYTES] = "";
    const struct mt_evaluation_options options = {.n_sequence = n_sequence,
                                                  .micro_batch = config->train.micro_batch_size,
                                                  .wants_stop = is_asked_to_stop};
    enum mt_status status =
        mt_session_open(&session, config, false, config->train.micro_batch_size);
    MT_TRY_GOTO(status);
    MT_TRY_GOTO(choose_checkpoint(arguments, config, &session.comm, path));
    MT_TRY_GOTO(mt_job_agree(mt_checkpoint_load(session.store, &session.comm, path, true, &state)));
    MT_TRY_GOTO(mt_job_agree(mt_store_publish(session.store)));
    status = mt_session_evaluate(&session, validation, &options, &result);
    if (status != MT_OK) {
        mt_job_abort(status); /* e.g. a file that shrank: the others wait in the next exchange */
    }
    status = result.is_stopped ? MT_STOPPED : status;
    if (mt_job_rank() == 0 && result.is_stopped) {
        (void)fputs("stopped on request before the end: there is no result\n", stderr);
    } else if (mt_job_rank() == 0) {
        print_result(path, &state, validation, &result);
    }
cleanup:
    mt_session_close(&session);
    return status;
}

enum mt_status mt_command_eval(const struct mt_arguments *arguments)
{
    struct mt_config *config = NULL;
    struct mt_validation validation = {0};
    int64_t n_sequence = 0;
    enum mt_status status = MT_OK;
    MT_TRY(mt_load_config(arguments, &config));
    if (config == NULL) {
        return MT_OK;
    }
    mt_log_init(false, true); /* standard output is the result's alone */
    MT_TRY_GOTO(mt_job_agree(mt_argument_integer(arguments, "--sequences",
                                                 config->train.eval_sequences, 0, &n_sequence)));
    MT_TRY_GOTO(mt_job_agree(open_validation(arguments, config, &validation)));
    MT_TRY_GOTO(mt_job_agree(check_length(config, n_sequence)));
    MT_TRY_GOTO(mt_job_agree(mt_job_watchdog_start(config->comm.watchdog_seconds)));
    MT_TRY_GOTO(evaluate(arguments, config, &validation, n_sequence));
cleanup:
    mt_job_watchdog_stop();
    mt_validation_close(&validation);
    mt_memory_free(config);
    return status;
}
