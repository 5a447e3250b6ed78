#include "interchange/interchange.h"

#include "base/memory.h"
#include "base/size.h"
#include "checkpoint/disk.h"
#include "checkpoint/one_shard.h"
#include "interchange/safetensors.h"
#include "interchange/weights.h"
#include "interchange/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUFFER_ELEMENTS = 1 << 18 };

struct import {
    const struct mt_import_options *options;
    struct mt_model_text text;
    struct mt_config *config;
    struct mt_model_tensors tensors;
    enum mt_expert_layout layout;
    struct mt_wires wires;
    struct mt_safetensors source;
    struct mt_new_folder made;
    struct mt_manifest manifest;
    float *value; /* [BUFFER_ELEMENTS] */
};

static enum mt_status read_config(struct import *import)
{
    char path[MT_PATH_BYTES];
    const struct mt_import_options *options = import->options;
    MT_TRY(mt_disk_join(path, options->from, "config.json"));
    MT_TRY(mt_config_json_read(path, options->family, &import->text, &import->config));
    return mt_model_tensors_init(&import->tensors, import->config);
}

/* Whether experts are grouped: the files have what the first MoE layer is called then. */
static enum mt_status plan_wires(struct import *import)
{
    const struct mt_tensor_table *table = &import->tensors.table;
    for (int layout = MT_N_LAYOUT - 1; layout >= 0; --layout) {
        mt_wires_clear(&import->wires);
        MT_TRY(mt_wires_plan(table, import->text.family, (enum mt_expert_layout)layout,
                             &import->wires));
        import->layout = (enum mt_expert_layout)layout;
        int t = 0;
        while (t < table->n_tensor && table->tensor[t].kind != MT_TENSOR_EXPERT) {
            ++t;
        }
        if (t < table->n_tensor &&
            mt_safetensors_find(&import->source,
                                import->wires.wire[import->wires.of_tensor[t]].name) != NULL) {
            break;
        }
    }
    return MT_OK;
}

static enum mt_status fail_shape(const struct import *import, const struct mt_stored *stored,
                                 const struct mt_wire *wire)
{
    char got[80] = "";
    char want[80] = "";
    for (int d = 0; d < stored->n_dim; ++d) {
        const size_t used = strlen(got);
        (void)snprintf(got + used, sizeof(got) - used, "%s%lld", d > 0 ? ", " : "",
                       (long long)stored->dim[d]);
    }
    for (int d = 0; d < wire->n_dim; ++d) {
        const size_t used = strlen(want);
        (void)snprintf(want + used, sizeof(want) - used, "%s%lld", d > 0 ? ", " : "",
                       (long long)wire->dim[d]);
    }
    return MT_FAIL(MT_ERR_INPUT,
                   "%s/%s: %s has shape [%s]; [%s] was expected from config.json; files of one "
                   "model are needed",
                   import->source.folder, import->source.file[stored->file], stored->name, got,
                   want);
}

static bool has_shape(const struct mt_stored *stored, const struct mt_wire *wire)
{
    bool same = stored->n_dim == wire->n_dim;
    for (int d = 0; d < wire->n_dim && same; ++d) {
        same = stored->dim[d] == wire->dim[d];
    }
    return same;
}

static enum mt_status check_wires(const struct import *import)
{
    for (int64_t w = 0; w < import->wires.n; ++w) {
        const struct mt_wire *wire = &import->wires.wire[w];
        const struct mt_stored *stored = mt_safetensors_find(&import->source, wire->name);
        if (stored == NULL) {
            return MT_FAIL(MT_ERR_INPUT,
                           "%s: %s is missing; %s models have it; get the files again, or name "
                           "another --family",
                           import->source.folder, wire->name, import->text.family->title);
        }
        if (!has_shape(stored, wire)) {
            return fail_shape(import, stored, wire);
        }
    }
    return MT_OK;
}

/* What transformers passes over, too: frequencies that older versions stored, and a head that is
 * tied all the same. */
static bool is_superfluous(const struct import *import, const char *name)
{
    static const char frequencies[] = ".rotary_emb.inv_freq";
    const size_t n = strlen(name);
    const size_t n_end = sizeof(frequencies) - 1;
    return (n > n_end && strcmp(name + n - n_end, frequencies) == 0) ||
           (import->config->model.tie_word_embeddings && strcmp(name, "lm_head.weight") == 0);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Every tensor of the files has a place: both lists in order, walked together. */
static enum mt_status check_places(const struct import *import)
{
    const char **name = NULL;
    const int64_t n = import->wires.n;
    enum mt_status status = MT_OK;
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers is meant */
    MT_TRY(MT_ALLOCATE(name, n, "names of tensors"));
    for (int64_t w = 0; w < n; ++w) {
        name[w] = import->wires.wire[w].name;
    }
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers is meant */
    qsort(name, (size_t)n, sizeof(*name), by_text);
    int64_t w = 0;
    for (int64_t i = 0; i < import->source.n && status == MT_OK; ++i) {
        const char *stored = import->source.stored[i].name;
        while (w < n && strcmp(name[w], stored) < 0) {
            ++w;
        }
        if ((w == n || strcmp(name[w], stored) != 0) && !is_superfluous(import, stored)) {
            status = MT_FAIL(MT_ERR_INPUT,
                             "%s: %s is no tensor of %s models with this config.json; every "
                             "tensor must have a place; name another --family, or take the "
                             "tensor out",
                             import->source.folder, stored, import->text.family->title);
        }
    }
    mt_memory_free(name);
    return status;
}

static enum mt_status put_run(struct import *import, const struct mt_stored *stored,
                              const struct mt_wire_run *run, struct mt_one_shard *shard)
{
    for (int64_t done = 0; done < run->n_element; done += BUFFER_ELEMENTS) {
        const int64_t n = mt_min_i64(BUFFER_ELEMENTS, run->n_element - done);
        MT_TRY(mt_safetensors_read(&import->source, stored, run->there + done, n, import->value));
        MT_TRY(mt_one_shard_put(shard, import->value, n));
    }
    return MT_OK;
}

/* What a wire has of a tensor. */
static enum mt_status put_wire(struct import *import, const struct mt_wire *wire, int64_t tensor,
                               struct mt_one_shard *shard)
{
    const struct mt_stored *stored = mt_safetensors_find(&import->source, wire->name);
    enum mt_status status = MT_OK;
    for (int64_t r = 0; r < mt_wire_n_run(wire) && status == MT_OK; ++r) {
        const struct mt_wire_run run = mt_wire_run(wire, r);
        if (run.tensor == tensor) {
            status = put_run(import, stored, &run, shard);
        }
    }
    return status;
}

static enum mt_status put_tensor(void *context, int64_t tensor, struct mt_one_shard *shard)
{
    struct import *import = context;
    int64_t first = 0;
    int64_t last = 0;
    mt_wires_of(&import->wires, (int)tensor, &first, &last);
    for (int64_t w = first; w < last; ++w) {
        MT_TRY(put_wire(import, &import->wires.wire[w], tensor, shard));
    }
    return MT_OK;
}

/* The part of a configuration that the model decides. */
static enum mt_status write_config(const struct import *import)
{
    char text[MT_MODEL_TEXT_BYTES + 2 * MT_PATH_BYTES + 512];
    char from[MT_PATH_BYTES];
    char to[MT_PATH_BYTES];
    const struct mt_import_options *options = import->options;
    const int n = snprintf(text, sizeof(text),
                           "# The model of %s (%s). To train it further, add [optimizer],\n"
                           "# [data] and [train] (docs/configuration.md) and start with\n"
                           "#   moetrain train THIS_FILE --init-from %s\n"
                           "# max_seq_len is the most the model was made for; shorter sequences "
                           "take less memory.\n\n%s",
                           mt_weights_show_path(options->from, from), import->text.family->title,
                           mt_weights_show_path(options->to, to), import->text.toml);
    MT_ASSERT(n > 0 && (size_t)n < sizeof(text));
    return mt_weights_keep_file(options->config_path,
                                mt_disk_write_file(options->config_path, text, n));
}

/* The configuration first: it is small, and goes again when the checkpoint cannot be finished. */
static enum mt_status import_all(struct import *import)
{
    const struct mt_run_state state = {0};
    const struct mt_import_options *options = import->options;
    MT_TRY(mt_new_folder_init(&import->made, options->to, "the new checkpoint"));
    MT_TRY(mt_weights_check_new_file(options->config_path, options->to));
    MT_TRY(read_config(import));
    MT_TRY(mt_safetensors_open(&import->source, options->from));
    MT_TRY(plan_wires(import));
    MT_TRY(check_wires(import));
    MT_TRY(check_places(import));
    MT_TRY(
        mt_weights_plan(import->config, &import->tensors.table, options->dtype, &import->manifest));
    MT_TRY(MT_ALLOCATE(import->value, BUFFER_ELEMENTS, "import"));
    MT_TRY(write_config(import));
    return mt_weights_keep_file(
        options->config_path,
        mt_one_shard_write(&import->made, &import->manifest, &state, put_tensor, import));
}

static void report_on(const struct import *import, struct mt_interchange_report *report)
{
    *report = (struct mt_interchange_report){.family = import->text.family,
                                             .layout = import->layout,
                                             .n_stored = import->wires.n,
                                             .n_file = import->source.n_file};
    for (int t = 0; t < import->tensors.table.n_tensor; ++t) {
        report->n_element += mt_tensor_n_element(&import->tensors.table.tensor[t]);
    }
    memcpy(report->unread, import->text.unread, sizeof(report->unread));
}

enum mt_status mt_interchange_import(const struct mt_import_options *options,
                                     struct mt_interchange_report *report)
{
    struct import *import = NULL;
    MT_TRY(MT_ALLOCATE(import, 1, "import"));
    import->options = options;
    import->source.descriptor = -1;
    const enum mt_status status = import_all(import);
    if (status == MT_OK) {
        report_on(import, report);
    }
    mt_safetensors_close(&import->source);
    mt_manifest_clear(&import->manifest);
    mt_wires_clear(&import->wires);
    mt_model_tensors_clear(&import->tensors);
    mt_memory_free(import->config);
    mt_memory_free(import->value);
    mt_memory_free(import);
    return status;
}
