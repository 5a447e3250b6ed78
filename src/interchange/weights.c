#include "interchange/weights.h"

#include "base/input_file.h"
#include "base/memory.h"
#include "config/load.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The checkpoint has each tensor of the model that its configuration describes. */
static enum mt_status find_origins(struct mt_weights *weights,
                                   const struct mt_manifest_tensor *const *by_name)
{
    const struct mt_tensor_table *table = &weights->tensors.table;
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers is meant */
    MT_TRY(MT_ALLOCATE(weights->origin, table->n_tensor, "tensors of a checkpoint"));
    for (int t = 0; t < table->n_tensor; ++t) {
        char name[MT_CHECKPOINT_NAME_BYTES];
        mt_checkpoint_dataset_name(name, table->tensor[t].name, MT_KIND_VALUE);
        const struct mt_manifest_tensor *tensor =
            mt_manifest_find(&weights->manifest, by_name, name);
        bool same = tensor != NULL && tensor->n_dim == table->tensor[t].n_dim;
        for (int d = 0; same && d < tensor->n_dim; ++d) {
            same = tensor->dim[d] == table->tensor[t].dim[d];
        }
        if (!same) {
            return MT_FAIL(MT_ERR_INPUT,
                           "%s: %s is missing or has another shape than its configuration says; "
                           "use another checkpoint",
                           weights->path, name);
        }
        weights->origin[t] = tensor;
    }
    return MT_OK;
}

enum mt_status mt_weights_open(struct mt_weights *weights, const char *path)
{
    const struct mt_manifest_tensor **by_name = NULL;
    *weights = (struct mt_weights){.path = path};
    MT_TRY(mt_checkpoint_verify(path));
    MT_TRY(mt_manifest_read(path, &weights->manifest));
    mt_elements_init(&weights->reader, path, &weights->manifest);
    MT_TRY(MT_ALLOCATE(weights->config, 1, "configuration"));
    MT_TRY(mt_config_parse(weights->manifest.config_text, "the checkpoint's configuration", ".", 0,
                           NULL, NULL, weights->config));
    MT_TRY(mt_model_tensors_init(&weights->tensors, weights->config));
    MT_TRY(mt_manifest_sort(&weights->manifest, &by_name));
    const enum mt_status status = find_origins(weights, by_name);
    mt_memory_free(by_name);
    return status;
}

void mt_weights_close(struct mt_weights *weights)
{
    mt_elements_clear(&weights->reader);
    mt_model_tensors_clear(&weights->tensors);
    mt_manifest_clear(&weights->manifest);
    mt_memory_free(weights->origin);
    mt_memory_free(weights->config);
    memset(weights, 0, sizeof(*weights));
}

enum mt_status mt_weights_read(struct mt_weights *weights, int tensor, int64_t first, int64_t n,
                               float *value)
{
    return mt_elements_read(&weights->reader, weights->origin[tensor], first, n, value);
}

enum mt_status mt_weights_plan(const struct mt_config *config, const struct mt_tensor_table *table,
                               enum mt_dtype dtype, struct mt_manifest *manifest)
{
    char *text = NULL;
    MT_TRY(mt_config_to_text(config, &text));
    const enum mt_status status =
        mt_manifest_init(manifest, 1, 1, table->n_tensor, table->n_tensor, text);
    mt_memory_free(text);
    MT_TRY(status);
    manifest->config_hash = mt_config_hash(config);
    for (int t = 0; t < table->n_tensor; ++t) {
        struct mt_manifest_tensor *tensor = &manifest->tensor[t];
        mt_checkpoint_dataset_name(tensor->name, table->tensor[t].name, MT_KIND_VALUE);
        tensor->is_bfloat16 = dtype == MT_BFLOAT16;
        tensor->n_dim = table->tensor[t].n_dim;
        memcpy(tensor->dim, table->tensor[t].dim, sizeof(tensor->dim));
        tensor->first_piece = t;
        tensor->n_piece = 1;
        manifest->piece[t].n_row = tensor->dim[0];
    }
    if (dtype == MT_BFLOAT16) {
        manifest->format_version = MT_CHECKPOINT_BFLOAT16_VERSION;
    }
    return MT_OK;
}

enum mt_status mt_weights_keep_file(const char *path, enum mt_status status)
{
    if (status != MT_OK) {
        (void)unlink(path);
    }
    return status;
}

const char *mt_weights_show_path(const char *path, char text[MT_PATH_BYTES])
{
    (void)snprintf(text, MT_PATH_BYTES, "%s", path);
    return mt_input_quote(text);
}

enum mt_status mt_weights_check_new_file(const char *path, const char *to)
{
    const char *slash = strrchr(path, '/');
    char folder[MT_PATH_BYTES] = ".";
    if (slash != NULL) {
        (void)snprintf(folder, sizeof(folder), "%.*s", (int)(slash - path + 1), path);
    }
    if (strcmp(path, to) == 0) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "-c %s is the checkpoint itself; a file beside it was expected for the "
                       "configuration; name another with -c",
                       path);
    }
    if (access(path, F_OK) == 0) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "%s is there already; a new file was expected for the configuration; "
                       "remove it or name another with -c",
                       path);
    }
    if (strlen(path) >= MT_PATH_BYTES || (slash != NULL && access(folder, W_OK) != 0)) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "%s cannot be written: %s; a folder that is there was expected; make it or "
                       "name another with -c",
                       path, strerror(errno));
    }
    return MT_OK;
}
