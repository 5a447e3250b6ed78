/* A save from what its writers are at to its end. How it begins: saver_begin.c. */
#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "checkpoint/disk.h"
#include "checkpoint/saver_internal.h"
#include "checkpoint/together.h"
#include "device/memory.h"

#include <string.h>

static const int64_t LOOK_NS = 50000000; /* between two looks at the others, while finishing */
static const int64_t PATIENCE_NS = 60000000000;

/* ---- made and taken apart ---- */

/* Before the store changes what this rank owns. */
static void wait_for_copy(void *context)
{
    struct mt_saver *saver = context;
    const int64_t start_ns = mt_clock_ns();
    if (saver->phase == MT_SAVER_WRITING) {
        mt_span_begin(MT_PHASE_CHECKPOINT);
        mt_writer_await_release(saver->writer);
        mt_span_end(MT_PHASE_CHECKPOINT);
        saver->times.blocked_ns += mt_clock_ns() - start_ns;
    }
}

enum mt_status mt_saver_create(struct mt_store *store, struct mt_comm *comm,
                               const struct mt_checkpoint_options *options, bool is_async,
                               struct mt_saver **out)
{
    struct mt_saver *saver = NULL;
    enum mt_status status = MT_OK;
    *out = NULL;
    MT_TRY(MT_ALLOCATE(saver, 1, "the saver of checkpoints"));
    saver->store = store;
    saver->comm = comm;
    saver->options = options;
    saver->n_shard = mt_turn_n_shard(store, options);
    saver->fetches = !mt_device_is_host(mt_store_device(store));
    if (is_async || saver->fetches) {
        MT_TRY_GOTO(MT_ALLOCATE(saver->staging,
                                mt_saver_staging_bytes(store) / (int64_t)sizeof(float),
                                "staging memory of checkpoints"));
    }
    MT_TRY_GOTO(mt_writer_create(&saver->writer));
    mt_store_set_guard(store, wait_for_copy, saver);
    *out = saver;
    return MT_OK;
cleanup:
    mt_saver_destroy(saver);
    return status;
}

void mt_saver_clear_layout(struct mt_saver *saver)
{
    mt_index_close(&saver->index);
    mt_manifest_clear(&saver->manifest);
    mt_gather_clear(&saver->gather);
    for (int s = 0; s < saver->n_shard; ++s) {
        mt_shard_clear(&saver->shard[s]);
    }
    saver->has_layout = false;
    saver->turn.has_base = false;
}

void mt_saver_destroy(struct mt_saver *saver)
{
    if (saver == NULL) {
        return;
    }
    mt_writer_destroy(saver->writer);
    mt_store_set_guard(saver->store, NULL, NULL);
    mt_saver_clear_layout(saver);
    mt_memory_free(saver->staging);
    mt_memory_free(saver);
}

/* ---- going on ---- */

/* Rank 0's writer thread. */
static enum mt_status commit(void *context)
{
    struct mt_saver *saver = context;
    const int64_t start_ns = mt_clock_ns();
    const enum mt_status status = mt_commit_run(&saver->commit);
    saver->task.commit_ns = mt_clock_ns() - start_ns;
    return status;
}

struct mt_folder_rule mt_saver_rule(const struct mt_saver *saver)
{
    const struct mt_checkpoint_options *options = saver->options;
    return (struct mt_folder_rule){.keep = options->keep,
                                   .keep_every = options->keep_every,
                                   .keep_full = saver->n_shard > 1 ? 2 : 0};
}

static void begin_commit(struct mt_saver *saver)
{
    saver->commit = (struct mt_commit){.folder = saver->options->folder,
                                       .temporary = saver->temporary,
                                       .temporary_name = saver->temporary_name,
                                       .name = saver->name,
                                       .step = saver->manifest.state.step,
                                       .rule = mt_saver_rule(saver),
                                       .index = &saver->index,
                                       .manifest = &saver->manifest};
    mt_writer_begin(saver->writer, commit, saver);
}

/* Of MT_SAVER_COMMITTING: rank 0 begins when it has the checksums. */
static enum mt_status follow_checksums(struct mt_saver *saver, bool may_wait)
{
    bool is_there = true;
    if (!mt_gather_is_active(&saver->gather)) {
        return MT_OK;
    }
    if (!may_wait) {
        MT_TRY(mt_gather_poll(&saver->gather, &is_there));
    }
    if (is_there) {
        MT_TRY(mt_gather_end(&saver->gather, &saver->manifest));
        if (saver->comm->rank == 0) {
            begin_commit(saver);
        }
    }
    return MT_OK;
}

/* This rank's task of the phase; those without one in it have succeeded. */
static enum mt_status end_task(struct mt_saver *saver)
{
    int64_t cpu_ns = 0;
    if (!mt_writer_has_task(saver->writer)) {
        return MT_OK;
    }
    const enum mt_status status = mt_writer_end(saver->writer, &cpu_ns);
    struct mt_saver_times *times = &saver->times;
    times->cpu_ns += cpu_ns;
    times->n_byte = saver->task.n_byte;
    times->stage_ns = saver->task.stage_ns;
    times->write_ns = saver->task.write_ns;
    times->read_back_ns = saver->task.read_back_ns;
    times->commit_ns = saver->task.commit_ns;
    return status;
}

/* Gives a full disk its room back. Should that fail too, as some removal may have, the next save
 * looks for what is left over. */
static enum mt_status give_up(struct mt_saver *saver, enum mt_status own)
{
    const enum mt_status status = mt_together_agree(saver->comm, own);
    saver->phase = MT_SAVER_IDLE;
    saver->is_prepared = false;
    mt_turn_end(saver, false);
    if (saver->comm->rank == 0) {
        (void)mt_disk_remove(saver->temporary);
    }
    return status;
}

static enum mt_save_signal look(struct mt_saver *saver)
{
    if (saver->phase == MT_SAVER_IDLE || mt_gather_is_active(&saver->gather)) {
        return MT_SIGNAL_NONE;
    }
    if (!mt_writer_has_task(saver->writer)) {
        return MT_SIGNAL_DONE;
    }
    if (!mt_writer_is_done(saver->writer)) {
        return MT_SIGNAL_NONE;
    }
    return mt_writer_has_failed(saver->writer) ? MT_SIGNAL_FAILED : MT_SIGNAL_DONE;
}

enum mt_status mt_saver_signal(struct mt_saver *saver, enum mt_save_signal *signal)
{
    MT_TRY(follow_checksums(saver, false));
    *signal = look(saver);
    return MT_OK;
}

void mt_saver_warn(const struct mt_saver *saver, const char *text)
{
    if (saver->comm->rank == 0 && text[0] != '\0') {
        mt_log_line("what is left of older checkpoints stays: %s", text);
    }
}

static enum mt_status advance(struct mt_saver *saver, int n_done, int n_failed)
{
    if (saver->phase == MT_SAVER_IDLE || n_done < saver->comm->topology.n_rank) {
        return MT_OK;
    }
    const enum mt_status status = end_task(saver);
    if (n_failed > 0) {
        return give_up(saver, status);
    }
    MT_ASSERT(status == MT_OK);
    if (saver->phase == MT_SAVER_WRITING) {
        saver->phase = MT_SAVER_COMMITTING;
        return mt_gather_begin(&saver->gather, saver->shard);
    } else {
        saver->phase = MT_SAVER_IDLE;
        saver->times.n_saved++;
        mt_saver_warn(saver, saver->commit.warning);
        mt_turn_end(saver, true);
    }
    return MT_OK;
}

enum mt_status mt_saver_advance(struct mt_saver *saver, int n_done, int n_failed)
{
    const int64_t start_ns = mt_clock_ns();
    const enum mt_status status = advance(saver, n_done, n_failed);
    saver->times.blocked_ns += mt_clock_ns() - start_ns;
    return status;
}

static enum mt_status meet(struct mt_saver *saver)
{
    MT_TRY(follow_checksums(saver, true));
    const enum mt_save_signal signal = look(saver);
    int64_t n[2] = {signal != MT_SIGNAL_NONE, signal == MT_SIGNAL_FAILED};
    MT_TRY(mt_comm_sum_i64(saver->comm, n, 2));
    return advance(saver, (int)n[0], (int)n[1]);
}

static enum mt_status finish(struct mt_saver *saver)
{
    enum mt_status status = MT_OK;
    int64_t warned_ns = mt_clock_ns();
    while (saver->phase != MT_SAVER_IDLE && status == MT_OK) {
        const int64_t now_ns = mt_clock_ns();
        mt_writer_await_done(saver->writer, now_ns + LOOK_NS);
        status = meet(saver);
        if (now_ns - warned_ns > PATIENCE_NS) {
            warned_ns = now_ns;
            mt_log_line("%s is still being written", saver->path);
        }
    }
    return status;
}

enum mt_status mt_saver_finish(struct mt_saver *saver)
{
    const int64_t start_ns = mt_clock_ns();
    const enum mt_status status = finish(saver);
    saver->times.blocked_ns += mt_clock_ns() - start_ns;
    return status;
}

const char *mt_saver_path(const struct mt_saver *saver)
{
    return saver->path;
}

const struct mt_saver_times *mt_saver_times(const struct mt_saver *saver)
{
    return &saver->times;
}
