/* What a checkpoint says of itself: its manifest alone. */
#include "checkpoint/checkpoint.h"

#include "base/memory.h"
#include "base/size.h"
#include "checkpoint/disk.h"
#include "checkpoint/manifest.h"

#include <stdio.h>
#include <string.h>

_Static_assert(sizeof(((struct mt_checkpoint_tensor *)0)->name) == MT_CHECKPOINT_NAME_BYTES,
               "names are copied whole");
_Static_assert(sizeof(((struct mt_checkpoint_file *)0)->name) == MT_MANIFEST_FILE_NAME_BYTES,
               "names are copied whole");

static void fill_files(struct mt_checkpoint_info *info, const char *path,
                       const struct mt_manifest *manifest)
{
    info->n_file = manifest->n_file;
    for (int64_t i = 0; i < manifest->n_file; ++i) {
        struct mt_checkpoint_file *file = &info->file[i];
        memcpy(file->name, manifest->file[i].name, sizeof(file->name));
        file->n_byte = manifest->file[i].n_byte;
        file->n_found_byte = mt_disk_size(path, file->name);
        info->n_byte += file->n_byte;
    }
}

static void fill_info(struct mt_checkpoint_info *info, struct mt_manifest *manifest)
{
    info->step = manifest->state.step;
    info->tokens_seen = manifest->state.tokens_seen;
    info->format_version = manifest->format_version;
    info->n_update = manifest->state.n_update;
    info->n_lost_update = manifest->state.n_lost_update;
    info->parts = manifest->parts;
    info->world_size = manifest->world_size;
    info->config_hash = manifest->config_hash;
    info->n_tensor = (int)manifest->n_tensor;
    for (int t = 0; t < info->n_tensor; ++t) {
        const struct mt_manifest_tensor *from = &manifest->tensor[t];
        struct mt_checkpoint_tensor *to = &info->tensor[t];
        memcpy(to->name, from->name, sizeof(to->name));
        to->is_bfloat16 = from->is_bfloat16;
        to->n_dim = from->n_dim;
        memcpy(to->dim, from->dim, sizeof(to->dim));
        to->first_part = from->first_part;
    }
    info->config_text = manifest->config_text;
    info->versions = manifest->versions;
    manifest->config_text = NULL;
    manifest->versions = NULL;
}

enum mt_status mt_checkpoint_read_info(const char *path, struct mt_checkpoint_info *info)
{
    struct mt_manifest manifest;
    memset(info, 0, sizeof(*info));
    MT_TRY(mt_manifest_read(path, &manifest));
    enum mt_status status = MT_OK;
    MT_TRY_GOTO(MT_ALLOCATE(info->tensor, manifest.n_tensor, "tensors of a checkpoint"));
    MT_TRY_GOTO(MT_ALLOCATE(info->file, manifest.n_file, "files of a checkpoint"));
    fill_files(info, path, &manifest);
    fill_info(info, &manifest);
cleanup:
    mt_manifest_clear(&manifest);
    if (status != MT_OK) {
        mt_checkpoint_info_clear(info);
    }
    return status;
}

void mt_checkpoint_info_clear(struct mt_checkpoint_info *info)
{
    mt_memory_free(info->config_text);
    mt_memory_free(info->versions);
    mt_memory_free(info->tensor);
    mt_memory_free(info->file);
    memset(info, 0, sizeof(*info));
}

int64_t mt_checkpoint_lost_by_part(const struct mt_checkpoint_info *info, int part)
{
    return info->parts.is_told ? info->n_update - info->parts.n_update[part] : 0;
}

int64_t mt_checkpoint_lost(const struct mt_checkpoint_info *info)
{
    int64_t sum = 0;
    for (int p = 0; p < MT_EXPERT_PARTS; ++p) {
        int64_t n = 0;
        if (!mt_size_multiply(mt_checkpoint_lost_by_part(info, p), info->parts.n_expert[p], &n) ||
            !mt_size_add(sum, n, &sum)) {
            return INT64_MAX; /* a file from elsewhere may claim anything */
        }
    }
    return sum;
}

static enum mt_status print_owners(const char *path, const struct mt_manifest *manifest,
                                   const char *name, char *text, size_t bytes)
{
    const struct mt_manifest_tensor **by_name = NULL;
    MT_TRY(mt_manifest_sort(manifest, &by_name));
    const struct mt_manifest_tensor *tensor = mt_manifest_find(manifest, by_name, name);
    mt_memory_free(by_name);
    if (tensor == NULL) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s has no tensor %s; one of those that `inspect` lists was expected", path,
                       name);
    }
    size_t used = 0;
    for (int64_t i = 0; i < tensor->n_piece && used < bytes; ++i) {
        const struct mt_manifest_piece *piece = &manifest->piece[tensor->first_piece + i];
        const int n =
            snprintf(text + used, bytes - used, "%s%d:%lld-%lld", i > 0 ? " " : "", piece->shard,
                     (long long)piece->first_row, (long long)(piece->first_row + piece->n_row - 1));
        used += n > 0 ? (size_t)n : 0;
    }
    return MT_OK;
}

enum mt_status mt_checkpoint_owners(const char *path, const char *tensor, char *text, size_t bytes)
{
    struct mt_manifest manifest;
    text[0] = '\0';
    MT_TRY(mt_manifest_read(path, &manifest));
    const enum mt_status status = print_owners(path, &manifest, tensor, text, bytes);
    mt_manifest_clear(&manifest);
    return status;
}
