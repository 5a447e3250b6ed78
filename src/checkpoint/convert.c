/* Another form of a checkpoint, in one process, a tensor's rows after another: memory for one
 * buffer, whatever the size of the model. */
#include "checkpoint/checkpoint.h"

#include "base/memory.h"
#include "base/size.h"
#include "checkpoint/disk.h"
#include "checkpoint/elements.h"
#include "checkpoint/index.h"
#include "checkpoint/one_shard.h"

#include <string.h>

enum { BUFFER_ELEMENTS = 1 << 18 };

struct convert {
    const char *from;
    const struct mt_convert_options *options;
    struct mt_new_folder made;
    struct mt_manifest source, result;
    const struct mt_manifest_tensor **origin; /* [n_tensor of the result] in the source */
    struct mt_run_state state;                /* with the source's arrays */
    struct mt_element_reader reader;
    float *value; /* [BUFFER_ELEMENTS] */
};

static bool is_kept(const struct convert *convert, const struct mt_manifest_tensor *tensor)
{
    return !convert->options->weights_only ||
           strncmp(tensor->name, "/model/", strlen("/model/")) == 0;
}

/* Every kept tensor in one piece of the one shard. */
static enum mt_status plan_result(struct convert *convert)
{
    const struct mt_manifest *source = &convert->source;
    struct mt_manifest *result = &convert->result;
    int64_t n = 0;
    for (int64_t t = 0; t < source->n_tensor; ++t) {
        n += is_kept(convert, &source->tensor[t]);
    }
    MT_TRY(mt_manifest_init(result, 1, 1, n, n, source->config_text));
    MT_TRY(mt_manifest_set_versions(result, source->versions));
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers is meant */
    MT_TRY(MT_ALLOCATE(convert->origin, n, "tensors to convert"));
    result->config_hash = source->config_hash;
    result->state = source->state;
    result->parts = source->parts;
    result->parts.is_told = !mt_manifest_is_full(source);
    n = 0;
    for (int64_t t = 0; t < source->n_tensor; ++t) {
        if (is_kept(convert, &source->tensor[t])) {
            struct mt_manifest_tensor *tensor = &result->tensor[n];
            *tensor = source->tensor[t];
            tensor->is_cut = false;
            tensor->first_part = result->parts.is_told ? tensor->first_part : -1;
            tensor->is_bfloat16 = convert->options->dtype == MT_BFLOAT16;
            tensor->first_piece = n;
            tensor->n_piece = 1;
            result->piece[n].n_row = mt_manifest_n_row(tensor);
            convert->origin[n++] = &source->tensor[t];
        }
    }
    if (convert->options->dtype == MT_BFLOAT16) {
        result->format_version = MT_CHECKPOINT_BFLOAT16_VERSION;
    }
    if (result->parts.is_told) {
        result->format_version = MT_CHECKPOINT_SPARSE_VERSION;
    }
    return MT_OK;
}

static enum mt_status copy_tensor(void *context, int64_t tensor, struct mt_one_shard *shard)
{
    struct convert *convert = context;
    const struct mt_manifest_tensor *origin = convert->origin[tensor];
    const int64_t n_element = mt_manifest_n_row(origin) * mt_manifest_row_elements(origin);
    for (int64_t done = 0; done < n_element; done += BUFFER_ELEMENTS) {
        const int64_t n = mt_min_i64(BUFFER_ELEMENTS, n_element - done);
        MT_TRY(mt_elements_read(&convert->reader, origin, done, n, convert->value));
        MT_TRY(mt_one_shard_put(shard, convert->value, n));
    }
    return MT_OK;
}

/* Everything but the bytes of tensors. */
static enum mt_status read_source(struct convert *convert)
{
    char path[MT_PATH_BYTES];
    MT_TRY(mt_checkpoint_verify(convert->from));
    MT_TRY(mt_manifest_read(convert->from, &convert->source));
    MT_TRY(mt_disk_join(path, convert->from, convert->source.file[0].name));
    return mt_index_take_arrays(path, &convert->source, &convert->state);
}

enum mt_status mt_checkpoint_convert(const char *from, const char *to,
                                     const struct mt_convert_options *options)
{
    MT_ASSERT(options->weights_only || options->dtype == MT_FLOAT32);
    struct convert *convert = NULL;
    enum mt_status status = MT_ALLOCATE(convert, 1, "conversion");
    if (status != MT_OK) {
        return status;
    }
    convert->from = from;
    convert->options = options;
    MT_TRY_GOTO(mt_new_folder_init(&convert->made, to, "the new checkpoint"));
    MT_TRY_GOTO(read_source(convert));
    MT_TRY_GOTO(plan_result(convert));
    MT_TRY_GOTO(MT_ALLOCATE(convert->value, BUFFER_ELEMENTS, "conversion"));
    mt_elements_init(&convert->reader, from, &convert->source);
    MT_TRY_GOTO(mt_one_shard_write(&convert->made, &convert->result, &convert->state, copy_tensor,
                                   convert));
cleanup:
    mt_elements_clear(&convert->reader);
    mt_index_free_arrays(&convert->state);
    mt_manifest_clear(&convert->source);
    mt_manifest_clear(&convert->result);
    mt_memory_free(convert->origin);
    mt_memory_free(convert->value);
    mt_memory_free(convert);
    return status;
}
