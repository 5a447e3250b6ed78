/* Where a run starts: fresh, from weights, or from a checkpoint of its own. */
#include "base/job.h"
#include "base/log.h"
#include "base/memory.h"
#include "checkpoint/attempts.h"
#include "checkpoint/folder.h"
#include "config/load.h"
#include "train/internal.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { NOTES_BYTES = 4096 };

static enum mt_status compare_config(const struct mt_config *now, const char *text)
{
    char changes[NOTES_BYTES] = "";
    struct mt_config *then = NULL;
    MT_TRY(MT_ALLOCATE(then, 1, "configuration of the checkpoint"));
    enum mt_status status =
        mt_config_parse(text, "the checkpoint's configuration", ".", 0, NULL, NULL, then);
    if (status == MT_OK) {
        status = mt_config_check_resume(now, then, changes, sizeof(changes));
    }
    mt_memory_free(then);
    if (status == MT_OK && changes[0] != '\0') {
        mt_log_line("changed since the checkpoint:\n%s", changes);
    }
    return status;
}

/* The configuration is one to go on with. *n_lost: updates of experts that are lost by it. */
static enum mt_status check_info(const struct mt_trainer *trainer, const char *path,
                                 int64_t *n_lost)
{
    struct mt_checkpoint_info info;
    MT_TRY(mt_checkpoint_read_info(path, &info));
    const enum mt_status status = compare_config(trainer->config, info.config_text);
    *n_lost = mt_checkpoint_lost(&info);
    mt_checkpoint_info_clear(&info);
    return status;
}

/* What was saved before is of another course; experts saved in turn may have lost something. */
static void begin_anew(struct mt_trainer *trainer, int64_t n_lost)
{
    struct mt_run_state *state = &trainer->state;
    state->n_lost_update += n_lost;
    if (trainer->saving.saver != NULL) {
        mt_saver_want_full(trainer->saving.saver);
    }
    if (n_lost > 0) {
        mt_log_line("%lld updates of single experts are lost: the checkpoint is sparse "
                    "(checkpoint.sparse_saves; `moetrain inspect` says which); %lld in all of this "
                    "run so far",
                    (long long)n_lost, (long long)state->n_lost_update);
    }
}

static enum mt_status resume_data(struct mt_trainer *trainer)
{
    char notes[NOTES_BYTES];
    MT_TRY(mt_mixture_resume(trainer->data, trainer->state.next_sequence,
                             trainer->config->data.changed == MT_DATA_CHANGE_ACCEPT, notes,
                             sizeof(notes)));
    if (notes[0] != '\0') {
        mt_log_line("%s", notes);
    }
    return MT_OK;
}

/* The start is written down until its first step is done; one from elsewhere is somebody's wish. */
static void note_start(struct mt_trainer *trainer, const char *path)
{
    const char *folder = trainer->dir.checkpoints;
    const size_t length = strlen(folder);
    if (trainer->session.comm.rank == 0 && strncmp(path, folder, length) == 0 &&
        path[length] == '/' && mt_folder_parse_step(path + length + 1) >= 0) {
        mt_attempts_add(folder, mt_folder_parse_step(path + length + 1));
        trainer->is_first_step_owed = true;
    }
}

void mt_resume_step_done(struct mt_trainer *trainer)
{
    if (trainer->is_first_step_owed) {
        mt_attempts_forget(trainer->dir.checkpoints);
        trainer->is_first_step_owed = false;
    }
}

void mt_resume_ended(struct mt_trainer *trainer, enum mt_status status)
{
    const bool in_order = status != MT_ERR_INTERNAL && status != MT_ERR_DIVERGED;
    if (trainer->is_first_step_owed && in_order) {
        mt_attempts_take_back(trainer->dir.checkpoints);
    }
}

/* is_found: verified a moment ago. */
static enum mt_status load_checkpoint(struct mt_trainer *trainer, const char *path, bool is_found)
{
    struct mt_session *session = &trainer->session;
    return is_found
               ? mt_checkpoint_load_found(session->store, &session->comm, path, &trainer->state)
               : mt_checkpoint_load(session->store, &session->comm, path, false, &trainer->state);
}

static enum mt_status load(struct mt_trainer *trainer, const char *path, bool is_found)
{
    int64_t n_lost = 0;
    MT_TRY(mt_job_agree(check_info(trainer, path, &n_lost)));
    note_start(trainer, path);
    MT_TRY(mt_job_agree(load_checkpoint(trainer, path, is_found)));
    struct mt_moe *moe = mt_model_moe(trainer->session.model);
    if (moe != NULL) {
        MT_TRY(mt_job_agree(mt_moe_read_state(moe)));
    }
    MT_TRY(mt_job_agree(resume_data(trainer)));
    begin_anew(trainer, n_lost);
    mt_log_line("resumed from %s at step %lld", path, (long long)trainer->state.step);
    return MT_OK;
}

static enum mt_status start_fresh(struct mt_trainer *trainer, const char *init_from)
{
    if (init_from == NULL) {
        mt_store_init_values(trainer->session.store, (uint64_t)trainer->config->run.seed);
        return MT_OK;
    }
    struct mt_run_state ignored = {0};
    MT_TRY(mt_job_agree(mt_checkpoint_load(trainer->session.store, &trainer->session.comm,
                                           init_from, true, &ignored)));
    mt_log_line("weights from %s", init_from);
    return MT_OK;
}

/* Finds what `auto` resumes from; "" when the run starts fresh. Where there are checkpoints and
 * none is valid, starting again would throw the run's work away unasked. */
static enum mt_status find_own(struct mt_trainer *trainer, char *path)
{
    char notes[NOTES_BYTES] = "";
    MT_TRY(mt_job_agree(mt_checkpoint_find_to_start(
        &trainer->session.comm, trainer->dir.checkpoints, path, notes, sizeof(notes))));
    if (notes[0] != '\0' && path[0] == '\0') {
        return mt_job_agree(MT_FAIL(
            MT_ERR_INPUT,
            "no checkpoint in %s is valid; expected one to resume from; bring one back, or choose "
            "another --run-dir to start again:\n%s",
            trainer->dir.checkpoints, notes));
    }
    if (notes[0] != '\0') {
        mt_log_line("%s", notes);
    }
    return MT_OK;
}

/* Rank 0 knows what the directory holds; the others hear it. */
static enum mt_status share(struct mt_trainer *trainer, int64_t *value)
{
    if (trainer->session.comm.rank != 0) {
        *value = 0;
    }
    return mt_comm_sum_i64(&trainer->session.comm, value, 1);
}

static enum mt_status refuse_used(struct mt_trainer *trainer)
{
    int64_t is_used = mt_run_dir_is_used(&trainer->dir) ? 1 : 0;
    MT_TRY(share(trainer, &is_used));
    if (is_used == 0) {
        return MT_OK;
    }
    return mt_job_agree(
        MT_FAIL(MT_ERR_CONFIG,
                "the run directory %s has been used; expected an unused one with "
                "--resume never; choose another with --run-dir, or leave --resume out",
                trainer->dir.path));
}

/* The path, however spelled, is that of the run's own checkpoint of this step. */
static bool is_own(const struct mt_trainer *trainer, const char *path, int64_t step)
{
    char name[MT_STEP_NAME_BYTES];
    char own[sizeof(trainer->dir.checkpoints) + MT_STEP_NAME_BYTES];
    struct stat a;
    struct stat b;
    mt_folder_step_name(name, step);
    (void)snprintf(own, sizeof(own), "%s/%s", trainer->dir.checkpoints, name);
    return stat(path, &a) == 0 && stat(own, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

/* Rank 0: another course of training begins, from `path`. What an earlier one has saved from here
 * on is kept under other names: steps that both reach would be saved of that one alone, and the
 * next start would go on with it. */
static enum mt_status leave_course(const struct mt_trainer *trainer, const char *path)
{
    const char *folder = trainer->dir.checkpoints;
    const int64_t here = trainer->state.step;
    int64_t *step = NULL;
    int64_t n = 0;
    int64_t n_left = 0;
    enum mt_status status = mt_folder_steps(folder, &step, &n);
    for (int64_t i = 0; i < n && status == MT_OK; ++i) {
        if (step[i] > here || (step[i] == here && !is_own(trainer, path, here))) {
            status = mt_folder_set_aside(folder, step[i], MT_ASIDE_LEFT);
            ++n_left;
        }
    }
    mt_memory_free(step);
    if (status == MT_OK && n_left > 0) {
        mt_log_line("another course begins at step %lld: %lld checkpoint%s of the one before %s "
                    "kept beside, as .left",
                    (long long)here, (long long)n_left, n_left == 1 ? "" : "s",
                    n_left == 1 ? "is" : "are");
    }
    return status;
}

/* Rank 0: the run directory holds what led to this step, and no more. */
static enum mt_status cut_to_start(const struct mt_trainer *trainer, const char *path)
{
    if (path[0] != '\0') {
        MT_TRY(leave_course(trainer, path));
    }
    return mt_metrics_cut(trainer->dir.metrics, trainer->state.step);
}

enum mt_status mt_resume(struct mt_trainer *trainer, const struct mt_train_options *options,
                         bool *is_finished)
{
    char path[MT_PATH_BYTES] = "";
    const bool is_first = trainer->session.comm.rank == 0;
    int64_t last_step = 0;
    MT_TRY(mt_job_agree(is_first ? mt_metrics_last_step(trainer->dir.metrics, &last_step) : MT_OK));
    MT_TRY(share(trainer, &last_step));
    if (options->resume == MT_RESUME_NEVER) {
        MT_TRY(refuse_used(trainer));
    } else if (options->resume == MT_RESUME_PATH) {
        (void)snprintf(path, sizeof(path), "%s", options->resume_path);
    } else {
        MT_TRY(find_own(trainer, path));
    }
    if (path[0] != '\0') {
        if (options->init_from != NULL) {
            mt_log_line("--init-from %s is not used: this run has begun and goes on",
                        options->init_from);
        }
        MT_TRY(load(trainer, path, options->resume != MT_RESUME_PATH));
        last_step = trainer->state.step;
    } else {
        *is_finished = last_step >= trainer->config->train.steps;
        if (*is_finished) {
            return MT_OK; /* ran to its end without checkpoints */
        }
        if (last_step > 0) {
            mt_log_line("no checkpoint in %s: starting again from step 1",
                        trainer->dir.checkpoints);
        }
        MT_TRY(start_fresh(trainer, options->init_from));
    }
    *is_finished = trainer->state.step >= trainer->config->train.steps;
    const char *from = options->resume == MT_RESUME_PATH ? path : "";
    return mt_job_agree(is_first && !*is_finished ? cut_to_start(trainer, from) : MT_OK);
}

enum mt_status mt_resume_newest(struct mt_trainer *trainer, bool *is_found)
{
    char path[MT_PATH_BYTES] = "";
    struct mt_run_state *state = &trainer->state;
    const int64_t next_sequence = state->next_sequence;
    const int64_t n_skipped = state->n_skipped;
    MT_TRY(find_own(trainer, path));
    *is_found = path[0] != '\0';
    if (!*is_found) {
        return MT_OK;
    }
    MT_TRY(load(trainer, path, true));
    state->next_sequence = next_sequence;
    state->n_skipped = n_skipped;
    state->n_skipped_in_row = 0;
    return mt_job_agree(trainer->session.comm.rank == 0
                            ? mt_metrics_cut(trainer->dir.metrics, state->step)
                            : MT_OK);
}
