/* Which shards a save writes, and how: experts in turn between two full saves. */
#include "base/clock.h"
#include "checkpoint/disk.h"
#include "checkpoint/saver_internal.h"
#include "device/memory.h"

#include <string.h>

int mt_turn_n_shard(const struct mt_store *store, const struct mt_checkpoint_options *options)
{
    const struct mt_tensor_table *table = mt_store_table(store);
    bool has_experts = false;
    for (int t = 0; t < table->n_tensor; ++t) {
        has_experts = has_experts || table->tensor[t].kind == MT_TENSOR_EXPERT;
    }
    return options->n_sparse > 0 && has_experts ? MT_MAX_SHARDS : 1;
}

void mt_saver_want_full(struct mt_saver *saver)
{
    saver->turn.wants_full = true;
}

void mt_turn_choose(struct mt_saver *saver, int64_t step, int64_t n_update)
{
    struct mt_turn *turn = &saver->turn;
    const struct mt_checkpoint_options *options = saver->options;
    struct mt_expert_parts *parts = &saver->manifest.parts;
    const bool is_kept = options->keep_every > 0 && step % options->keep_every == 0;
    const bool is_full = saver->n_shard == 1 || !turn->has_base || turn->wants_full || is_kept ||
                         turn->n_since_full >= options->n_sparse;
    turn->wants_full = false;
    turn->n_since_full = is_full ? 0 : turn->n_since_full + 1;
    const int64_t in_turn = (turn->n_since_full - 1) % MT_EXPERT_PARTS;
    for (int s = 0; s < saver->n_shard; ++s) {
        turn->is_written[s] = is_full || s == 0 || s - 1 == in_turn;
        if (s > 0 && turn->is_written[s] && parts->is_told) {
            parts->step[s - 1] = step;
            parts->n_update[s - 1] = n_update;
        }
    }
}

void mt_turn_end(struct mt_saver *saver, bool is_complete)
{
    struct mt_turn *turn = &saver->turn;
    turn->has_base = is_complete;
    memcpy(turn->base, saver->path, sizeof(turn->base));
}

enum mt_status mt_turn_fetch(struct mt_saver *saver)
{
    struct mt_device *device = mt_store_device(saver->store);
    float *to = saver->staging;
    for (int s = 0; s < saver->n_shard && saver->fetches; ++s) {
        if (saver->turn.is_written[s]) {
            mt_shard_fetch(&saver->shard[s], device, to);
            to += saver->shard[s].n_data_byte / (int64_t)sizeof(*to);
        }
    }
    return saver->fetches ? mt_device_wait(device) : MT_OK;
}

void mt_turn_stage(struct mt_saver *saver)
{
    float *to = saver->staging;
    for (int s = 0; s < saver->n_shard; ++s) {
        if (saver->turn.is_written[s]) {
            mt_shard_stage(&saver->shard[s], to, saver->fetches);
            to += saver->shard[s].n_data_byte / (int64_t)sizeof(*to);
        }
    }
}

static enum mt_status write_shard(struct mt_shard *shard, const float *staged, const char *path,
                                  struct mt_saver_times *times)
{
    const int64_t start_ns = mt_clock_ns();
    MT_TRY(mt_shard_write(shard, staged, path));
    const int64_t written_ns = mt_clock_ns();
    MT_TRY(mt_disk_read_back(path, shard->n_byte, shard->checksum));
    times->write_ns += written_ns - start_ns;
    times->read_back_ns += mt_clock_ns() - written_ns;
    times->n_byte += shard->n_byte;
    return MT_OK;
}

/* From the checkpoint before. */
static enum mt_status link_shard(const struct mt_saver *saver, const struct mt_shard *shard,
                                 const char *name, const char *path)
{
    char base[MT_PATH_BYTES];
    MT_TRY(mt_disk_join(base, saver->turn.base, name));
    return mt_disk_link(base, path, shard->n_byte, shard->checksum);
}

enum mt_status mt_turn_write(struct mt_saver *saver, struct mt_saver_times *times)
{
    const int n_rank = saver->comm->topology.n_rank;
    const float *staged = saver->staging;
    enum mt_status status = MT_OK;
    for (int s = 0; s < saver->n_shard && status == MT_OK; ++s) {
        struct mt_shard *shard = &saver->shard[s];
        const bool is_written = saver->turn.is_written[s];
        char name[MT_MANIFEST_FILE_NAME_BYTES];
        char path[MT_PATH_BYTES];
        mt_manifest_file_name(name, n_rank, 1 + (int64_t)s * n_rank + saver->comm->rank);
        MT_TRY(mt_disk_join(path, saver->temporary, name));
        status = is_written ? write_shard(shard, staged, path, times)
                            : link_shard(saver, shard, name, path);
        if (is_written && staged != NULL) {
            staged += shard->n_data_byte / (int64_t)sizeof(*staged);
        }
    }
    return status;
}
