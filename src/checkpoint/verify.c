/* One process reads everything: the files by their checksums, then what they hold. */
#include "checkpoint/checkpoint.h"

#include "base/memory.h"
#include "checkpoint/damage.h"
#include "checkpoint/disk.h"
#include "checkpoint/index.h"
#include "checkpoint/manifest.h"
#include "checkpoint/shard_read.h"

#include <stdio.h>
#include <string.h>

enum { BUFFER_BYTES = 1 << 20 };

static bool is_listed(const struct mt_manifest *manifest, const char *name)
{
    bool found = strcmp(name, "manifest.json") == 0;
    for (int64_t i = 0; i < manifest->n_file && !found; ++i) {
        found = strcmp(name, manifest->file[i].name) == 0;
    }
    return found;
}

static enum mt_status check_listing(const char *path, const struct mt_manifest *manifest)
{
    struct mt_disk_names names;
    enum mt_status status = MT_OK;
    MT_TRY(mt_disk_list(path, &names));
    for (int64_t i = 0; i < names.n && status == MT_OK; ++i) {
        if (!is_listed(manifest, names.name[i])) {
            status = MT_FAIL(MT_ERR_INPUT,
                             "%s/%s is not part of the checkpoint; only the files in its manifest "
                             "were expected; move it away",
                             path, names.name[i]);
        }
    }
    mt_disk_names_clear(&names);
    return status;
}

/* A moment of a tensor of the model is there, in the same shape. */
static enum mt_status check_moment(const char *path, const struct mt_manifest *manifest,
                                   const struct mt_manifest_tensor *const *by_name,
                                   const struct mt_manifest_tensor *model, const char *suffix)
{
    char name[2 * MT_CHECKPOINT_NAME_BYTES];
    (void)snprintf(name, sizeof(name), "/optimizer/%s/%s", model->name + strlen("/model/"), suffix);
    const struct mt_manifest_tensor *moment = mt_manifest_find(manifest, by_name, name);
    if (moment == NULL || moment->n_dim != model->n_dim ||
        memcmp(moment->dim, model->dim, sizeof(moment->dim)) != 0) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s/manifest.json: %s is missing or of another shape; the optimizer's state "
                       "of every tensor, or of none, was expected; use another checkpoint",
                       path, name);
    }
    return MT_OK;
}

static enum mt_status check_moments(const char *path, const struct mt_manifest *manifest,
                                    const struct mt_manifest_tensor *const *by_name,
                                    const struct mt_manifest_tensor *model)
{
    MT_TRY(check_moment(path, manifest, by_name, model, "exp_avg"));
    return check_moment(path, manifest, by_name, model, "exp_avg_sq");
}

static enum mt_status check_set(const char *path, const struct mt_manifest *manifest,
                                const struct mt_manifest_tensor *const *by_name)
{
    int64_t n_model = 0;
    for (int64_t t = 0; t < manifest->n_tensor; ++t) {
        n_model += strncmp(manifest->tensor[t].name, "/model/", strlen("/model/")) == 0;
    }
    if (manifest->n_tensor == n_model) {
        return MT_OK; /* weights only */
    }
    enum mt_status status = MT_OK;
    for (int64_t t = 0; t < manifest->n_tensor && status == MT_OK; ++t) {
        const struct mt_manifest_tensor *model = &manifest->tensor[t];
        if (strncmp(model->name, "/model/", strlen("/model/")) == 0) {
            status = check_moments(path, manifest, by_name, model);
        }
    }
    MT_TRY(status);
    if (manifest->n_tensor != n_model * MT_N_KIND) {
        return MT_FAIL(
            MT_ERR_INPUT,
            "%s/manifest.json lists optimizer state of tensors that the model lacks; %lld "
            "tensors were expected, %lld are there; use another checkpoint",
            path, (long long)(n_model * MT_N_KIND), (long long)manifest->n_tensor);
    }
    return MT_OK;
}

static enum mt_status check_tensor_set(const char *path, const struct mt_manifest *manifest)
{
    const struct mt_manifest_tensor **by_name = NULL;
    MT_TRY(mt_manifest_sort(manifest, &by_name));
    const enum mt_status status = check_set(path, manifest, by_name);
    mt_memory_free(by_name);
    return status;
}

static enum mt_status check_pieces(const struct mt_manifest *manifest,
                                   struct mt_shard_reader *reader, char *buffer)
{
    enum mt_status status = MT_OK;
    for (int64_t t = 0; t < manifest->n_tensor; ++t) {
        const struct mt_manifest_tensor *tensor = &manifest->tensor[t];
        const struct mt_manifest_piece *piece = manifest->piece + tensor->first_piece;
        for (int64_t i = 0; i < tensor->n_piece && status == MT_OK; ++i) {
            if (piece[i].shard == reader->shard) {
                status = mt_shard_check_piece(reader, tensor, &piece[i], buffer, BUFFER_BYTES);
            }
        }
    }
    return status;
}

static enum mt_status check_shards(const char *path, const struct mt_manifest *manifest)
{
    char *buffer = NULL;
    MT_TRY(MT_ALLOCATE(buffer, BUFFER_BYTES, "verification"));
    enum mt_status status = MT_OK;
    for (int shard = 0; shard < mt_manifest_n_shard(manifest) && status == MT_OK; ++shard) {
        struct mt_shard_reader reader;
        status = mt_shard_open(&reader, path, manifest, shard);
        status = status == MT_OK ? mt_shard_check_datasets(&reader) : status;
        status = status == MT_OK ? check_pieces(manifest, &reader, buffer) : status;
        mt_shard_close(&reader);
    }
    mt_memory_free(buffer);
    return status;
}

static enum mt_status check_all(const char *path, const struct mt_manifest *manifest)
{
    char index_path[MT_PATH_BYTES];
    for (int64_t i = 0; i < manifest->n_file; ++i) {
        MT_TRY(mt_damage_check_file(path, manifest, i));
    }
    MT_TRY(check_listing(path, manifest));
    MT_TRY(check_tensor_set(path, manifest));
    MT_TRY(check_shards(path, manifest));
    MT_TRY(mt_disk_join(index_path, path, manifest->file[0].name));
    return mt_index_check(index_path, manifest);
}

enum mt_status mt_checkpoint_verify(const char *path)
{
    struct mt_manifest manifest;
    MT_TRY(mt_manifest_read(path, &manifest));
    const enum mt_status status = check_all(path, &manifest);
    mt_manifest_clear(&manifest);
    return status;
}
