#include "checkpoint/manifest.h"

#include "base/memory.h"
#include "base/size.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum mt_status mt_manifest_init(struct mt_manifest *manifest, int world_size, int shards_a_rank,
                                int64_t n_tensor, int64_t n_piece, const char *config_text)
{
    const char *what = "checkpoint manifest";
    const size_t config_bytes = strlen(config_text) + 1;
    memset(manifest, 0, sizeof(*manifest));
    manifest->format_version = MT_CHECKPOINT_PLAIN_VERSION;
    manifest->world_size = world_size;
    manifest->n_file = (int64_t)world_size * shards_a_rank + 1;
    manifest->n_tensor = n_tensor;
    manifest->n_piece = n_piece;
    manifest->n_array = -1;
    enum mt_status status = MT_OK;
    MT_TRY_GOTO(MT_ALLOCATE(manifest->file, manifest->n_file, what));
    MT_TRY_GOTO(MT_ALLOCATE(manifest->tensor, n_tensor, what));
    MT_TRY_GOTO(MT_ALLOCATE(manifest->piece, n_piece, what));
    MT_TRY_GOTO(MT_ALLOCATE(manifest->config_text, (int64_t)config_bytes, what));
    memcpy(manifest->config_text, config_text, config_bytes);
    for (int64_t t = 0; t < n_tensor; ++t) {
        manifest->tensor[t].first_part = -1;
    }
    for (int64_t i = 0; i < manifest->n_file; ++i) {
        mt_manifest_file_name(manifest->file[i].name, world_size, i);
    }
    return MT_OK;
cleanup:
    mt_manifest_clear(manifest);
    return status;
}

enum mt_status mt_manifest_set_versions(struct mt_manifest *manifest, const char *versions)
{
    if (versions == NULL || versions[0] == '\0') {
        return MT_OK;
    }
    const size_t n_byte = strlen(versions) + 1;
    MT_TRY(MT_ALLOCATE(manifest->versions, (int64_t)n_byte, "checkpoint manifest"));
    memcpy(manifest->versions, versions, n_byte);
    return MT_OK;
}

void mt_manifest_clear(struct mt_manifest *manifest)
{
    mt_memory_free(manifest->file);
    mt_memory_free(manifest->tensor);
    mt_memory_free(manifest->piece);
    mt_memory_free(manifest->config_text);
    mt_memory_free(manifest->versions);
    mt_memory_free(manifest->array);
    memset(manifest, 0, sizeof(*manifest));
}

void mt_manifest_file_name(char *name, int world_size, int64_t index)
{
    const long long rank = index > 0 ? (long long)(index - 1) % world_size : 0;
    const long long part = index > 0 ? (long long)(index - 1) / world_size - 1 : -1;
    if (index == 0) {
        (void)snprintf(name, MT_MANIFEST_FILE_NAME_BYTES, "index.h5");
    } else if (part < 0) {
        (void)snprintf(name, MT_MANIFEST_FILE_NAME_BYTES, "shard-%05lld-of-%05d.h5", rank,
                       world_size);
    } else {
        (void)snprintf(name, MT_MANIFEST_FILE_NAME_BYTES, "experts-%lld-of-%d-%05lld-of-%05d.h5",
                       part, MT_EXPERT_PARTS, rank, world_size);
    }
}

int mt_manifest_n_shard(const struct mt_manifest *manifest)
{
    return (int)manifest->n_file - 1;
}

bool mt_manifest_is_full(const struct mt_manifest *manifest)
{
    bool is_full = true;
    for (int p = 0; p < MT_EXPERT_PARTS && manifest->parts.is_told; ++p) {
        is_full = is_full && manifest->parts.step[p] == manifest->state.step;
    }
    return is_full;
}

void mt_checkpoint_dataset_name(char *name, const char *tensor, enum mt_checkpoint_kind kind)
{
    static const char *const suffix[MT_N_KIND] = {"", "/exp_avg", "/exp_avg_sq"};
    const int n = snprintf(name, MT_CHECKPOINT_NAME_BYTES, "%s%s%s",
                           kind == MT_KIND_VALUE ? "/model/" : "/optimizer/", tensor, suffix[kind]);
    MT_ASSERT(n > 0 && n < MT_CHECKPOINT_NAME_BYTES);
}

enum mt_status mt_manifest_number_rows(struct mt_manifest *manifest)
{
    int64_t *next = NULL; /* [shards] row that the next piece of a shard gets */
    MT_TRY(MT_ALLOCATE(next, mt_manifest_n_shard(manifest), "rows of shards"));
    for (int64_t t = 0; t < manifest->n_tensor; ++t) {
        const struct mt_manifest_tensor *tensor = &manifest->tensor[t];
        struct mt_manifest_piece *piece = manifest->piece + tensor->first_piece;
        for (int64_t i = 0; i < tensor->n_piece; ++i) {
            piece[i].shard_row = next[piece[i].shard];
            next[piece[i].shard] += piece[i].n_row;
        }
        for (int64_t i = 0; i < tensor->n_piece; ++i) {
            next[piece[i].shard] = 0;
        }
    }
    mt_memory_free(next);
    return MT_OK;
}

int64_t mt_manifest_shard_rows(const struct mt_manifest *manifest,
                               const struct mt_manifest_tensor *tensor, int shard)
{
    const struct mt_manifest_piece *piece = manifest->piece + tensor->first_piece;
    for (int64_t i = tensor->n_piece - 1; i >= 0; --i) {
        if (piece[i].shard == shard) {
            return piece[i].shard_row + piece[i].n_row;
        }
    }
    return 0;
}

int64_t mt_manifest_n_row(const struct mt_manifest_tensor *tensor)
{
    return tensor->is_cut ? tensor->dim[0] * tensor->dim[1] : tensor->dim[0];
}

int64_t mt_manifest_row_elements(const struct mt_manifest_tensor *tensor)
{
    int64_t n = 1;
    for (int d = tensor->is_cut ? 2 : 1; d < tensor->n_dim; ++d) {
        n *= tensor->dim[d];
    }
    return n;
}

int64_t mt_manifest_element_bytes(const struct mt_manifest_tensor *tensor)
{
    return (int64_t)(tensor->is_bfloat16 ? sizeof(uint16_t) : sizeof(float));
}

int64_t mt_manifest_row_bytes(const struct mt_manifest_tensor *tensor)
{
    return mt_manifest_row_elements(tensor) * mt_manifest_element_bytes(tensor);
}

int mt_manifest_shard_shape(const struct mt_manifest *manifest,
                            const struct mt_manifest_tensor *tensor, int shard, int64_t *dim)
{
    const int first = tensor->is_cut ? 1 : 0;
    for (int d = first; d < tensor->n_dim; ++d) {
        dim[d - first] = tensor->dim[d];
    }
    dim[0] = mt_manifest_shard_rows(manifest, tensor, shard);
    return tensor->n_dim - first;
}

static int compare_tensors(const void *a, const void *b)
{
    const struct mt_manifest_tensor *x = *(const struct mt_manifest_tensor *const *)a;
    const struct mt_manifest_tensor *y = *(const struct mt_manifest_tensor *const *)b;
    return strcmp(x->name, y->name);
}

enum mt_status mt_manifest_sort(const struct mt_manifest *manifest,
                                const struct mt_manifest_tensor ***by_name)
{
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers is meant */
    MT_TRY(MT_ALLOCATE(*by_name, manifest->n_tensor, "names of tensors"));
    for (int64_t t = 0; t < manifest->n_tensor; ++t) {
        (*by_name)[t] = &manifest->tensor[t];
    }
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers is meant */
    qsort(*by_name, (size_t)manifest->n_tensor, sizeof(**by_name), compare_tensors);
    return MT_OK;
}

const struct mt_manifest_tensor *mt_manifest_find(const struct mt_manifest *manifest,
                                                  const struct mt_manifest_tensor *const *by_name,
                                                  const char *name)
{
    int64_t low = 0;
    int64_t high = manifest->n_tensor;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        const int order = strcmp(by_name[middle]->name, name);
        if (order == 0) {
            return by_name[middle];
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}
