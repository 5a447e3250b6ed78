#include "checkpoint/one_shard.h"

#include "base/memory.h"
#include "base/size.h"
#include "checkpoint/checksum.h"
#include "checkpoint/commit.h"
#include "checkpoint/disk.h"
#include "checkpoint/hdf5_file.h"
#include "kernel/cpu/bf16.h"

enum { BLOCK_ELEMENTS = 1 << 18 };

struct mt_one_shard {
    struct mt_manifest *manifest;
    char path[MT_PATH_BYTES];
    int descriptor;
    uint16_t *half; /* [BLOCK_ELEMENTS] */
    /* of the tensor that is being put: */
    const struct mt_manifest_tensor *tensor;
    int64_t offset, n_put; /* byte of the file, elements */
    XXH3_state_t sum;
};

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

static enum mt_status lay_out(struct mt_manifest *manifest, const char *path)
{
    hid_t file = H5I_INVALID_HID;
    enum mt_status status = MT_OK;
    MT_TRY(mt_hdf5_create(path, false, &file));
    for (int64_t t = 0; t < manifest->n_tensor && status == MT_OK; ++t) {
        status = create_dataset(&manifest->tensor[t], file, path, &manifest->piece[t].offset);
    }
    return mt_hdf5_close(file, path, status);
}

static enum mt_status put_block(struct mt_one_shard *shard, const float *value, int64_t n)
{
    const bool is_half = shard->tensor->is_bfloat16;
    for (int64_t i = 0; i < n && is_half; ++i) {
        shard->half[i] = (uint16_t)mt_bf16_bits(value[i]);
    }
    const void *data = is_half ? (const void *)shard->half : (const void *)value;
    const int64_t n_byte = n * mt_manifest_element_bytes(shard->tensor);
    mt_checksum_add(&shard->sum, data, (size_t)n_byte);
    MT_TRY(mt_disk_write(shard->descriptor, shard->path, shard->offset, data, n_byte));
    shard->offset += n_byte;
    shard->n_put += n;
    return MT_OK;
}

enum mt_status mt_one_shard_put(struct mt_one_shard *shard, const float *value, int64_t n)
{
    for (int64_t done = 0; done < n; done += BLOCK_ELEMENTS) {
        MT_TRY(put_block(shard, value + done, mt_min_i64(BLOCK_ELEMENTS, n - done)));
    }
    return MT_OK;
}

static enum mt_status put_tensors(struct mt_one_shard *shard, mt_one_shard_fn put_tensor,
                                  void *context)
{
    for (int64_t t = 0; t < shard->manifest->n_tensor; ++t) {
        struct mt_manifest_piece *piece = &shard->manifest->piece[t];
        shard->tensor = &shard->manifest->tensor[t];
        shard->offset = piece->offset;
        shard->n_put = 0;
        mt_checksum_begin(&shard->sum);
        MT_TRY(put_tensor(context, t, shard));
        MT_ASSERT(shard->n_put ==
                  mt_manifest_n_row(shard->tensor) * mt_manifest_row_elements(shard->tensor));
        piece->checksum = mt_checksum_end(&shard->sum);
    }
    return MT_OK;
}

static enum mt_status write_shard(struct mt_manifest *manifest, const char *folder,
                                  mt_one_shard_fn put_tensor, void *context)
{
    struct mt_one_shard shard = {.manifest = manifest, .descriptor = -1};
    struct mt_manifest_file *file = &manifest->file[1];
    MT_TRY(mt_disk_join(shard.path, folder, file->name));
    MT_TRY(lay_out(manifest, shard.path));
    MT_TRY(MT_ALLOCATE(shard.half, BLOCK_ELEMENTS, "checkpoint block"));
    enum mt_status status = mt_disk_open_to_write(shard.path, false, &shard.descriptor);
    if (status == MT_OK) {
        status = put_tensors(&shard, put_tensor, context);
        status = mt_disk_finish(shard.descriptor, shard.path, status);
    }
    mt_memory_free(shard.half);
    MT_TRY(status);
    return mt_disk_checksum(shard.path, &file->n_byte, &file->checksum);
}

static enum mt_status write_all(const struct mt_new_folder *made, struct mt_manifest *manifest,
                                const struct mt_run_state *state, mt_one_shard_fn put_tensor,
                                void *context)
{
    struct mt_index index;
    struct mt_commit commit = {.folder = made->folder,
                               .temporary = made->temporary,
                               .temporary_name = made->temporary_name,
                               .name = made->name,
                               .step = manifest->state.step,
                               .index = &index,
                               .manifest = manifest};
    MT_TRY(mt_new_folder_begin(made));
    MT_TRY(write_shard(manifest, made->temporary, put_tensor, context));
    MT_TRY(mt_index_open(&index, manifest, state));
    const enum mt_status status = mt_commit_run(&commit);
    mt_index_close(&index);
    return status;
}

enum mt_status mt_one_shard_write(const struct mt_new_folder *made, struct mt_manifest *manifest,
                                  const struct mt_run_state *state, mt_one_shard_fn put_tensor,
                                  void *context)
{
    MT_ASSERT(manifest->world_size == 1 && manifest->n_piece == manifest->n_tensor);
    const enum mt_status status = write_all(made, manifest, state, put_tensor, context);
    if (status != MT_OK) {
        mt_new_folder_abandon(made);
    }
    return status;
}
