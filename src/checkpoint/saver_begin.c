/* A save up to the point where its writers are at work. */
#include "base/clock.h"
#include "base/memory.h"
#include "base/size.h"
#include "checkpoint/checksum.h"
#include "checkpoint/disk.h"
#include "checkpoint/saver_internal.h"
#include "checkpoint/together.h"

#include <sys/stat.h>

/* ---- what a rank can own ---- */

static bool is_expert(const struct mt_store *store, int tensor)
{
    return mt_store_table(store)->tensor[tensor].kind == MT_TENSOR_EXPERT;
}

/* Elements of the largest expert of any layer. */
static int64_t expert_elements(const struct mt_store *store)
{
    const struct mt_tensor_table *table = mt_store_table(store);
    int64_t largest = 0;
    int64_t sum = 0; /* of gate, up and down, which follow each other */
    for (int t = 0; t < table->n_tensor; ++t) {
        const bool goes_on = t > 0 && is_expert(store, t - 1) &&
                             table->tensor[t].layer == table->tensor[t - 1].layer;
        sum = is_expert(store, t) ? (goes_on ? sum : 0) + mt_tensor_row_elements(&table->tensor[t])
                                  : 0;
        largest = mt_max_i64(largest, sum);
    }
    return largest;
}

int64_t mt_saver_staging_bytes(const struct mt_store *store)
{
    int64_t n_element = 0;
    for (int p = 0; p < mt_store_n_part(store); ++p) {
        const struct mt_part *part = mt_store_part(store, p);
        if (mt_store_is_cut(store) || !is_expert(store, part->tensor)) {
            n_element += part->n_element;
        }
    }
    if (!mt_store_is_cut(store)) {
        n_element += mt_store_capacity(store) * expert_elements(store);
    }
    return n_element * MT_N_KIND * (int64_t)sizeof(float);
}

/* ---- beginning ---- */

static enum mt_status name_paths(struct mt_saver *saver, int64_t step)
{
    const char *folder = saver->options->folder;
    mt_folder_step_name(saver->name, step);
    mt_folder_temporary_name(saver->temporary_name, step);
    MT_TRY(mt_disk_join(saver->path, folder, saver->name));
    return mt_disk_join(saver->temporary, folder, saver->temporary_name);
}

/* Rank 0. */
static enum mt_status prepare_folder(const struct mt_saver *saver, int64_t *newest)
{
    const char *folder = saver->options->folder;
    int64_t *step = NULL;
    int64_t n = 0;
    MT_TRY(mt_disk_make_folder(folder));
    if (mt_folder_clean(folder) != MT_OK) {
        mt_saver_warn(saver, mt_error_last()->text);
        mt_error_clear();
    }
    MT_TRY(mt_folder_steps(folder, &step, &n));
    *newest = n > 0 ? step[0] : -1;
    mt_memory_free(step);
    return MT_OK;
}

static enum mt_status prepare(struct mt_saver *saver)
{
    struct mt_comm *comm = saver->comm;
    if (saver->is_prepared) {
        return MT_OK;
    }
    MT_TRY(
        mt_together_agree(comm, comm->rank == 0 ? prepare_folder(saver, &saver->newest) : MT_OK));
    MT_TRY(mt_together_share(comm, &saver->newest, 1));
    saver->is_prepared = true;
    return MT_OK;
}

static bool holds_another_step(const char *path, int64_t step)
{
    struct mt_manifest manifest;
    const bool is_read = mt_manifest_read(path, &manifest) == MT_OK;
    const bool is_another = is_read && manifest.state.step != step;
    mt_manifest_clear(&manifest);
    mt_error_clear();
    return is_another;
}

/* Rank 0: what has the name is no checkpoint, or one that does not verify, and goes; or somebody's
 * copy of another step, which stays beside. */
static enum mt_status make_way(const struct mt_saver *saver, int64_t step)
{
    const char *folder = saver->options->folder;
    if (saver->comm->rank != 0) {
        return MT_OK;
    }
    return holds_another_step(saver->path, step)
               ? mt_folder_set_aside(folder, step, MT_ASIDE_FAILED)
               : mt_folder_discard(folder, step);
}

/* Rank 0. */
static void retire(const struct mt_saver *saver, int64_t step)
{
    const struct mt_folder_rule rule = mt_saver_rule(saver);
    if (saver->comm->rank == 0 && mt_folder_retire(saver->options->folder, step, &rule) != MT_OK) {
        mt_saver_warn(saver, mt_error_last()->text);
        mt_error_clear();
    }
}

/* Whether the step was saved before: a run that resumes and stops at once comes here again. */
static enum mt_status look_for_existing(struct mt_saver *saver, int64_t step, bool *is_complete)
{
    struct mt_comm *comm = saver->comm;
    struct mt_manifest manifest;
    struct stat about;
    int64_t is_there = lstat(saver->path, &about) == 0; /* also a link that leads nowhere */
    *is_complete = false;
    if (step > saver->newest) {
        return MT_OK;
    }
    MT_TRY(mt_together_share(comm, &is_there, 1));
    if (is_there == 0) {
        return MT_OK;
    }
    const enum mt_status status = mt_together_verify_step(comm, saver->path, step, &manifest);
    if (status == MT_ERR_INPUT) {
        mt_error_clear(); /* an invalid one is replaced */
        return mt_together_agree(comm, make_way(saver, step));
    }
    MT_TRY(status); /* memory, communication: it may be whole */
    mt_manifest_clear(&manifest);
    *is_complete = true;
    retire(saver, step);
    return MT_OK;
}

/* Of the owners of all experts, the same on every rank. */
static uint64_t hash_owners(const struct mt_store *store)
{
    const struct mt_tensor_table *table = mt_store_table(store);
    XXH3_state_t sum;
    mt_checksum_begin(&sum);
    for (int t = 0; t < table->n_tensor; ++t) {
        const struct mt_tensor *tensor = &table->tensor[t];
        if (tensor->kind == MT_TENSOR_EXPERT) {
            mt_checksum_add(&sum, mt_store_owners(store, tensor->layer),
                            (size_t)tensor->dim[0] * sizeof(int));
        }
    }
    return mt_checksum_end(&sum);
}

static enum mt_status plan_shards(struct mt_saver *saver)
{
    for (int s = 0; s < saver->n_shard; ++s) {
        const int what = saver->n_shard == 1 ? MT_SHARD_ALL : MT_SHARD_DENSE + s;
        MT_TRY(mt_shard_plan(saver->store, what, &saver->shard[s]));
        MT_TRY(mt_shard_lay_out(&saver->shard[s]));
    }
    return MT_OK;
}

static void describe_run(struct mt_saver *saver, const struct mt_run_state *state)
{
    struct mt_manifest *manifest = &saver->manifest;
    manifest->state = *state;
    manifest->state.n_array = 0;
    manifest->state.array = NULL;
    manifest->config_hash = saver->options->config_hash;
}

/* All that stays the same from save to save, until experts change owners. */
static enum mt_status lay_out(struct mt_saver *saver, const struct mt_run_state *state)
{
    struct mt_comm *comm = saver->comm;
    const uint64_t owners = hash_owners(saver->store);
    if (saver->has_layout && saver->owners == owners) {
        return MT_OK;
    }
    mt_saver_clear_layout(saver);
    MT_TRY(mt_together_agree(comm, plan_shards(saver)));
    MT_TRY(mt_gather_layout(&saver->gather, comm, saver->shard, saver->n_shard,
                            saver->options->config_text, &saver->manifest));
    enum mt_status status = MT_OK;
    if (comm->rank == 0) {
        describe_run(saver, state);
        MT_TRY_GOTO(mt_manifest_set_versions(&saver->manifest, saver->options->versions));
        status = mt_index_open(&saver->index, &saver->manifest, state);
    }
cleanup:
    MT_TRY(mt_together_agree(comm, status));
    saver->has_layout = true;
    saver->owners = owners;
    return MT_OK;
}

/* The writer thread of every rank. The folder is made by whoever comes first. */
static enum mt_status write_shard(void *context)
{
    struct mt_saver *saver = context;
    const int64_t start_ns = mt_clock_ns();
    if (saver->fetches) {
        mt_writer_release(saver->writer); /* the store may change: everything was taken before */
    }
    if (saver->staging != NULL) {
        mt_turn_stage(saver);
        mt_writer_release(saver->writer);
    }
    const int64_t staged_ns = mt_clock_ns();
    MT_TRY(mt_disk_make_passing_folder(saver->temporary));
    saver->task = (struct mt_saver_times){.stage_ns = staged_ns - start_ns,
                                          .write_ns = mt_clock_ns() - staged_ns};
    return mt_turn_write(saver, &saver->task);
}

/* Rank 0: what the index says of the run, as of now. */
static enum mt_status take_state(struct mt_saver *saver, const struct mt_run_state *state)
{
    if (saver->comm->rank != 0) {
        return MT_OK;
    }
    describe_run(saver, state);
    return mt_index_update(&saver->index, &saver->manifest, state);
}

static enum mt_status begin(struct mt_saver *saver, const struct mt_run_state *state)
{
    bool is_complete = false;
    MT_ASSERT(saver->phase == MT_SAVER_IDLE);
    MT_TRY(name_paths(saver, state->step)); /* alike on every rank */
    MT_TRY(prepare(saver));
    MT_TRY(look_for_existing(saver, state->step, &is_complete));
    if (is_complete) {
        saver->turn.has_base = false; /* the one that was there is not known to be of this course */
        return MT_OK;
    }
    saver->newest = mt_max_i64(saver->newest, state->step); /* a rollback may come here again */
    MT_TRY(lay_out(saver, state));
    mt_turn_choose(saver, state->step, state->n_update);
    enum mt_status status = mt_turn_fetch(saver);
    if (status == MT_OK) {
        status = take_state(saver, state);
    }
    if (status == MT_OK) {
        mt_writer_begin(saver->writer, write_shard, saver);
    } else {
        mt_writer_fail(saver->writer, status);
    }
    saver->phase = MT_SAVER_WRITING;
    return MT_OK;
}

enum mt_status mt_saver_prepare(struct mt_saver *saver, const struct mt_run_state *state)
{
    MT_TRY(prepare(saver));
    return lay_out(saver, state);
}

enum mt_status mt_saver_begin(struct mt_saver *saver, const struct mt_run_state *state)
{
    const int64_t start_ns = mt_clock_ns();
    const enum mt_status status = begin(saver, state);
    saver->times.blocked_ns += mt_clock_ns() - start_ns;
    return status;
}

bool mt_saver_is_busy(const struct mt_saver *saver)
{
    return saver->phase != MT_SAVER_IDLE;
}
