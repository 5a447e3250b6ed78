#include "interchange/weights.h"

#include "base/input_file.h"
#include "base/memory.h"
#include "config/load.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

/* The folder that `path` is in, and the name there, slashes at its end apart; false: there is no
 * such folder. */
static bool find_place(const char *path, char folder[MT_PATH_BYTES], char name[MT_PATH_BYTES])
{
    char parent[MT_PATH_BYTES];
    size_t length = strlen(path);
    name[0] = '\0';
    while (length > 1 && path[length - 1] == '/') {
        --length;
    }
    size_t start = length;
    while (start > 0 && path[start - 1] != '/') {
        --start;
    }
    if (length >= MT_PATH_BYTES) {
        errno = ENAMETOOLONG;
        return false;
    }
    (void)snprintf(parent, sizeof(parent), "%.*s", start > 0 ? (int)start : 1,
                   start > 0 ? path : ".");
    (void)snprintf(name, MT_PATH_BYTES, "%.*s", (int)(length - start), path + start);
    char *found = realpath(parent, NULL);
    const bool is_found = found != NULL && strlen(found) < MT_PATH_BYTES;
    if (is_found) {
        (void)snprintf(folder, MT_PATH_BYTES, "%s", found);
    }
    free(found);
    return is_found;
}

enum mt_status mt_weights_check_new_file(const char *path, const char *to)
{
    char folder[MT_PATH_BYTES] = "";
    char name[MT_PATH_BYTES];
    char its_folder[MT_PATH_BYTES];
    char its_name[MT_PATH_BYTES];
    struct stat about;
    if (!find_place(path, folder, name) || access(folder, W_OK | X_OK) != 0 ||
        strlen(name) > NAME_MAX) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "%s cannot be written: %s; a name in a folder that may be written to was "
                       "expected; make or permit it, or name another with -c",
                       path, strerror(strlen(name) > NAME_MAX ? ENAMETOOLONG : errno));
    }
    if (find_place(to, its_folder, its_name) && strcmp(folder, its_folder) == 0 &&
        strcmp(name, its_name) == 0) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "-c %s is the checkpoint itself; a file beside it was expected for the "
                       "configuration; name another with -c",
                       path);
    }
    if (lstat(path, &about) == 0) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "%s is there already; a new file was expected for the configuration; "
                       "remove it or name another with -c",
                       path);
    }
    return MT_OK;
}
