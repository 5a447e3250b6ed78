/* Another form of a checkpoint, in one process, a tensor's rows after another: memory for one
 * buffer, whatever the size of the model. */
#include "checkpoint/checkpoint.h"

#include "base/memory.h"
#include "base/size.h"
#include "checkpoint/checksum.h"
#include "checkpoint/commit.h"
#include "checkpoint/disk.h"
#include "checkpoint/folder.h"
#include "checkpoint/shard_read.h"
#include "kernel/cpu/bf16.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BUFFER_ELEMENTS = 1 << 18 };

struct convert {
    const char *from;
    const struct mt_convert_options *options;
    char folder[MT_PATH_BYTES], name[MT_PATH_BYTES]; /* of the new directory */
    char temporary_name[MT_PATH_BYTES + 8], temporary[MT_PATH_BYTES];
    struct mt_manifest source, result;
    const struct mt_manifest_tensor **origin; /* [n_tensor of the result] in the source */
    struct mt_run_state state;                /* with the source's arrays */
    struct mt_shard_reader reader;            /* of shard reader.shard; -1: none is open */
    float *value;                             /* [BUFFER_ELEMENTS] */
    uint16_t *half;                           /* [BUFFER_ELEMENTS] */
};

static bool is_kept(const struct convert *convert, const struct mt_manifest_tensor *tensor)
{
    return !convert->options->weights_only ||
           strncmp(tensor->name, "/model/", strlen("/model/")) == 0;
}

static enum mt_status name_paths(struct convert *convert, const char *to)
{
    size_t length = strlen(to);
    while (length > 1 && to[length - 1] == '/') {
        --length;
    }
    if (length == 0 || length >= sizeof(convert->folder)) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "the new checkpoint's path is empty or too long; 1 to %d bytes were "
                       "expected; choose another",
                       MT_PATH_BYTES - 1);
    }
    char path[MT_PATH_BYTES];
    memcpy(path, to, length);
    path[length] = '\0';
    if (access(path, F_OK) == 0) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "%s is there already; a new directory was expected; remove it or choose "
                       "another",
                       path);
    }
    char *slash = strrchr(path, '/');
    (void)snprintf(convert->name, sizeof(convert->name), "%s", slash != NULL ? slash + 1 : path);
    if (slash != NULL) {
        slash[slash == path ? 1 : 0] = '\0';
    }
    (void)snprintf(convert->folder, sizeof(convert->folder), "%s", slash != NULL ? path : ".");
    (void)snprintf(convert->temporary_name, sizeof(convert->temporary_name), ".%s.tmp",
                   convert->name);
    return mt_disk_join(convert->temporary, convert->folder, convert->temporary_name);
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

static enum mt_status create_dataset(const struct mt_manifest_tensor *tensor, hid_t file,
                                     const char *path, int64_t *offset)
{
    enum mt_status status = MT_OK;
    hid_t list = H5I_INVALID_HID;
    hid_t type = H5I_INVALID_HID;
    hid_t space = H5I_INVALID_HID;
    hid_t dataset = H5I_INVALID_HID;
    hsize_t dim[MT_HDF5_MAX_DIM] = {0};
    for (int d = 0; d < tensor->n_dim; ++d) {
        dim[d] = (hsize_t)tensor->dim[d];
    }
    MT_TRY_GOTO(mt_hdf5_data_list(&list));
    MT_TRY_GOTO(mt_hdf5_element_type(tensor->is_bfloat16, &type));
    MT_TRY_GOTO(mt_hdf5_make_groups(file, path, tensor->name));
    MT_TRY_HDF5_GOTO(MT_ERR_RESOURCE, path, space = H5Screate_simple(tensor->n_dim, dim, NULL));
    MT_TRY_HDF5_GOTO(
        MT_ERR_RESOURCE, path,
        dataset = H5Dcreate2(file, tensor->name, type, space, H5P_DEFAULT, list, H5P_DEFAULT));
    MT_TRY_GOTO(mt_hdf5_data_offset(dataset, path, tensor->name, offset));
cleanup:
    (void)H5Dclose(dataset);
    (void)H5Sclose(space);
    (void)H5Tclose(type);
    (void)H5Pclose(list);
    return status;
}

static enum mt_status lay_out(struct convert *convert, const char *path)
{
    hid_t file = H5I_INVALID_HID;
    enum mt_status status = MT_OK;
    struct mt_manifest *result = &convert->result;
    MT_TRY(mt_hdf5_create(path, false, &file));
    for (int64_t t = 0; t < result->n_tensor && status == MT_OK; ++t) {
        status = create_dataset(&result->tensor[t], file, path, &result->piece[t].offset);
    }
    return mt_hdf5_close(file, path, status);
}

static enum mt_status open_shard(struct convert *convert, int shard)
{
    if (convert->reader.shard == shard) {
        return MT_OK;
    }
    mt_shard_close(&convert->reader);
    return mt_shard_open(&convert->reader, convert->from, &convert->source, shard);
}

/* Elements of one piece of the source: they follow each other in the result. */
static enum mt_status copy_piece(struct convert *convert, const struct mt_manifest_tensor *origin,
                                 const struct mt_manifest_piece *piece, int descriptor,
                                 const char *path, int64_t *offset, XXH3_state_t *sum)
{
    const int64_t row_elements = mt_manifest_row_elements(origin);
    const int64_t n_element = piece->n_row * row_elements;
    const bool is_half = convert->options->dtype == MT_BFLOAT16;
    MT_TRY(open_shard(convert, piece->shard));
    for (int64_t done = 0; done < n_element; done += BUFFER_ELEMENTS) {
        const int64_t n = mt_min_i64(BUFFER_ELEMENTS, n_element - done);
        MT_TRY(mt_shard_read_elements(&convert->reader, origin,
                                      piece->shard_row * row_elements + done, n, convert->value));
        for (int64_t i = 0; i < n && is_half; ++i) {
            convert->half[i] = (uint16_t)mt_bf16_bits(convert->value[i]);
        }
        const void *data = is_half ? (const void *)convert->half : (const void *)convert->value;
        const int64_t n_byte = n * (int64_t)(is_half ? sizeof(uint16_t) : sizeof(float));
        mt_checksum_add(sum, data, (size_t)n_byte);
        MT_TRY(mt_disk_write(descriptor, path, *offset, data, n_byte));
        *offset += n_byte;
    }
    return MT_OK;
}

static enum mt_status copy_tensor(struct convert *convert, int64_t t, int descriptor,
                                  const char *path)
{
    const struct mt_manifest_tensor *origin = convert->origin[t];
    struct mt_manifest_piece *piece = &convert->result.piece[t];
    int64_t offset = piece->offset;
    XXH3_state_t sum;
    mt_checksum_begin(&sum);
    for (int64_t i = 0; i < origin->n_piece; ++i) {
        MT_TRY(copy_piece(convert, origin, &convert->source.piece[origin->first_piece + i],
                          descriptor, path, &offset, &sum));
    }
    piece->checksum = mt_checksum_end(&sum);
    return MT_OK;
}

static enum mt_status write_shard(struct convert *convert)
{
    char path[MT_PATH_BYTES];
    int descriptor = -1;
    struct mt_manifest_file *file = &convert->result.file[1];
    enum mt_status status = MT_OK;
    MT_TRY(mt_disk_join(path, convert->temporary, file->name));
    MT_TRY(lay_out(convert, path));
    MT_TRY(mt_disk_open_to_write(path, false, &descriptor));
    for (int64_t t = 0; t < convert->result.n_tensor && status == MT_OK; ++t) {
        status = copy_tensor(convert, t, descriptor, path);
    }
    MT_TRY(mt_disk_finish(descriptor, path, status));
    return mt_disk_checksum(path, &file->n_byte, &file->checksum);
}

static enum mt_status write_all(struct convert *convert)
{
    struct mt_index index;
    struct mt_commit commit = {.folder = convert->folder,
                               .temporary = convert->temporary,
                               .temporary_name = convert->temporary_name,
                               .name = convert->name,
                               .step = convert->result.state.step,
                               .index = &index,
                               .manifest = &convert->result};
    MT_TRY(mt_disk_remove(convert->temporary));
    MT_TRY(mt_disk_make_folder(convert->temporary));
    MT_TRY(write_shard(convert));
    MT_TRY(mt_index_open(&index, &convert->result, &convert->state));
    const enum mt_status status = mt_commit_run(&commit);
    mt_index_close(&index);
    return status;
}

/* Everything but the bytes of tensors. */
static enum mt_status read_source(struct convert *convert)
{
    char path[MT_PATH_BYTES];
    MT_TRY(mt_checkpoint_verify(convert->from));
    MT_TRY(mt_manifest_read(convert->from, &convert->source));
    MT_TRY(mt_disk_join(path, convert->from, convert->source.file[0].name));
    return mt_index_take_arrays(path, &convert->state);
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
    convert->reader = (struct mt_shard_reader){.shard = -1, .file = -1, .descriptor = -1};
    MT_TRY_GOTO(name_paths(convert, to));
    MT_TRY_GOTO(read_source(convert));
    MT_TRY_GOTO(plan_result(convert));
    MT_TRY_GOTO(MT_ALLOCATE(convert->value, BUFFER_ELEMENTS, "conversion"));
    MT_TRY_GOTO(MT_ALLOCATE(convert->half, BUFFER_ELEMENTS, "conversion"));
    status = write_all(convert);
    if (status != MT_OK) {
        (void)mt_disk_remove(convert->temporary); /* gives a full disk its room back */
    }
cleanup:
    mt_shard_close(&convert->reader);
    mt_index_free_arrays(&convert->state);
    mt_manifest_clear(&convert->source);
    mt_manifest_clear(&convert->result);
    mt_memory_free(convert->origin);
    mt_memory_free(convert->value);
    mt_memory_free(convert->half);
    mt_memory_free(convert);
    return status;
}
