/* Checkpoints of a run, between its steps. */
#include "base/job.h"
#include "base/log.h"
#include "base/memory.h"
#include "checkpoint/manifest.h"
#include "config/load.h"
#include "train/internal.h"

#include <string.h>

static enum mt_status open_saver(struct mt_trainer *trainer, const char *versions)
{
    const struct mt_config *config = trainer->config;
    struct mt_saving *saving = &trainer->saving;
    MT_TRY(mt_config_to_text(config, &saving->config_text));
    saving->options = (struct mt_checkpoint_options){.folder = trainer->dir.checkpoints,
                                                     .keep = config->checkpoint.keep,
                                                     .keep_every = config->checkpoint.keep_every,
                                                     .n_sparse = config->checkpoint.sparse_saves,
                                                     .config_text = saving->config_text,
                                                     .versions = versions,
                                                     .config_hash = mt_config_hash(config)};
    return mt_saver_create(trainer->session.store, &trainer->session.comm, &saving->options,
                           mt_session_stages_saves(config), &saving->saver);
}

enum mt_status mt_saving_open(struct mt_trainer *trainer, const char *versions)
{
    MT_TRY(mt_job_agree(open_saver(trainer, versions)));
    return mt_session_stages_saves(trainer->config)
               ? mt_job_agree(mt_saver_prepare(trainer->saving.saver, &trainer->state))
               : MT_OK;
}

void mt_saving_close(struct mt_trainer *trainer)
{
    mt_saver_destroy(trainer->saving.saver);
    mt_memory_free(trainer->saving.config_text);
    memset(&trainer->saving, 0, sizeof(trainer->saving));
}

/* A save is over, or failed on the way. `status` is agreed. */
static enum mt_status tell(struct mt_trainer *trainer, enum mt_status status, bool is_last)
{
    struct mt_saving *saving = &trainer->saving;
    if (status == MT_OK) {
        saving->n_failed_in_row = 0;
        mt_log_line("checkpoint %s", mt_saver_path(saving->saver));
        return MT_OK;
    }
    if (status != MT_ERR_RESOURCE || is_last || ++saving->n_failed_in_row > 1) {
        return mt_job_agree(status);
    }
    mt_log_line("no checkpoint %s: %s. Training goes on; it ends if the next one fails too",
                mt_saver_path(saving->saver), mt_error_last()->text);
    mt_error_clear();
    return MT_OK;
}

static enum mt_status finish(struct mt_trainer *trainer, bool is_last)
{
    mt_span_begin(MT_PHASE_CHECKPOINT);
    const enum mt_status status = mt_saver_finish(trainer->saving.saver);
    mt_span_end(MT_PHASE_CHECKPOINT);
    return tell(trainer, status, is_last);
}

enum mt_status mt_saving_finish(struct mt_trainer *trainer)
{
    trainer->saving.n_failed_in_row = 0;
    return mt_saver_is_busy(trainer->saving.saver) ? finish(trainer, false) : MT_OK;
}

static int64_t owned_bytes(const struct mt_store *store)
{
    int64_t n_element = 0;
    for (int p = 0; p < mt_store_n_part(store); ++p) {
        n_element += mt_store_part(store, p)->n_element;
    }
    return n_element * MT_N_KIND * (int64_t)sizeof(float);
}

static enum mt_status begin(struct mt_trainer *trainer)
{
    struct mt_moe *moe = mt_model_moe(trainer->session.model);
    mt_span_begin(MT_PHASE_CHECKPOINT);
    if (moe != NULL) {
        mt_moe_write_state(moe);
    }
    const enum mt_status status = mt_saver_begin(trainer->saving.saver, &trainer->state);
    mt_span_add_work(0, owned_bytes(trainer->session.store));
    mt_span_end(MT_PHASE_CHECKPOINT);
    return status;
}

enum mt_status mt_save(struct mt_trainer *trainer, bool is_last)
{
    struct mt_saving *saving = &trainer->saving;
    if (mt_saver_is_busy(saving->saver)) {
        saving->n_overtaken++;
        MT_TRY(finish(trainer, false));
    }
    if (is_last) {
        mt_saver_want_full(saving->saver); /* an end in order loses nothing */
    }
    const enum mt_status status = begin(trainer);
    if (status != MT_OK || !mt_saver_is_busy(saving->saver)) {
        return tell(trainer, status, is_last);
    }
    return is_last || !mt_session_stages_saves(trainer->config) ? finish(trainer, is_last) : MT_OK;
}

enum mt_status mt_saving_advance(struct mt_trainer *trainer)
{
    struct mt_saving *saving = &trainer->saving;
    if (!mt_saver_is_busy(saving->saver)) {
        return MT_OK;
    }
    mt_span_begin(MT_PHASE_CHECKPOINT);
    const enum mt_status status = mt_saver_advance(saving->saver, saving->n_done, saving->n_failed);
    mt_span_end(MT_PHASE_CHECKPOINT);
    return mt_saver_is_busy(saving->saver) ? MT_OK : tell(trainer, status, false);
}
