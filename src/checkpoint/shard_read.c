#include "checkpoint/shard_read.h"

#include "base/memory.h"
#include "base/size.h"
#include "checkpoint/checksum.h"
#include "checkpoint/disk.h"
#include "checkpoint/hdf5_file.h"

#include <string.h>
#include <unistd.h>

enum mt_status mt_shard_open(struct mt_shard_reader *reader, const char *folder,
                             const struct mt_manifest *manifest, int shard)
{
    memset(reader, 0, sizeof(*reader));
    reader->manifest = manifest;
    reader->shard = shard;
    reader->descriptor = -1;
    MT_TRY(mt_disk_join(reader->path, folder, manifest->file[1 + shard].name));
    return mt_disk_open_to_read(reader->path, &reader->descriptor);
}

void mt_shard_close(struct mt_shard_reader *reader)
{
    if (reader->descriptor >= 0) {
        (void)close(reader->descriptor);
    }
    mt_memory_free(reader->place);
    reader->place = NULL;
    reader->descriptor = -1;
}

/* ---- where tensors lie ---- */

static enum mt_status find_dataset(const struct mt_shard_reader *reader, hid_t file,
                                   const struct mt_manifest_tensor *tensor, int64_t *place)
{
    int64_t dim[MT_HDF5_MAX_DIM];
    enum mt_status status = MT_OK;
    hid_t dataset = H5I_INVALID_HID;
    hid_t type = H5I_INVALID_HID;
    const int n_dim = mt_manifest_shard_shape(reader->manifest, tensor, reader->shard, dim);
    if (dim[0] == 0) {
        return MT_OK; /* the shard has nothing of it */
    }
    MT_TRY(mt_hdf5_open_dataset(file, reader->path, tensor->name, &dataset));
    MT_TRY_GOTO(mt_hdf5_data_offset(dataset, reader->path, tensor->name, place));
    MT_TRY_GOTO(mt_hdf5_element_type(tensor->is_bfloat16, &type));
    MT_TRY_GOTO(mt_hdf5_check_shape(dataset, reader->path, tensor->name, type, n_dim, dim));
cleanup:
    (void)H5Tclose(type);
    (void)H5Dclose(dataset);
    return status;
}

/* In a child process. result [n_tensor] */
static enum mt_status find_in_child(void *context, void *result)
{
    const struct mt_shard_reader *reader = context;
    const struct mt_manifest *manifest = reader->manifest;
    int64_t *place = result;
    hid_t file = H5I_INVALID_HID;
    MT_TRY(mt_hdf5_open(reader->path, &file));
    for (int64_t t = 0; t < manifest->n_tensor; ++t) {
        MT_TRY(find_dataset(reader, file, &manifest->tensor[t], &place[t]));
    }
    return MT_OK;
}

static enum mt_status ask_hdf5(struct mt_shard_reader *reader)
{
    const int64_t n = reader->manifest->n_tensor;
    if (reader->place != NULL) {
        return MT_OK;
    }
    MT_TRY(MT_ALLOCATE(reader->place, n, "places of tensors"));
    return mt_hdf5_guard(reader->path, n, find_in_child, reader, reader->place,
                         n * (int64_t)sizeof(*reader->place));
}

/* The first piece of a tensor in the shard; NULL: it has none. */
static const struct mt_manifest_piece *first_piece(const struct mt_shard_reader *reader,
                                                   const struct mt_manifest_tensor *tensor)
{
    const struct mt_manifest_piece *piece = reader->manifest->piece + tensor->first_piece;
    int64_t i = 0;
    while (i < tensor->n_piece && piece[i].shard != reader->shard) {
        ++i;
    }
    return i < tensor->n_piece ? &piece[i] : NULL;
}

enum mt_status mt_shard_check_datasets(struct mt_shard_reader *reader)
{
    const struct mt_manifest *manifest = reader->manifest;
    MT_TRY(ask_hdf5(reader));
    for (int64_t t = 0; t < manifest->n_tensor; ++t) {
        const struct mt_manifest_piece *piece = first_piece(reader, &manifest->tensor[t]);
        if (piece != NULL && piece->offset >= 0 && piece->offset != reader->place[t]) {
            return MT_FAIL(MT_ERR_INPUT,
                           "%s: %s starts at byte %lld; %lld was expected from the manifest; use "
                           "another checkpoint",
                           reader->path, manifest->tensor[t].name, (long long)reader->place[t],
                           (long long)piece->offset);
        }
    }
    return MT_OK;
}

/* Remembers where the tensor's dataset lies: pieces of one tensor are read one after another. */
static enum mt_status locate(struct mt_shard_reader *reader,
                             const struct mt_manifest_tensor *tensor)
{
    if (reader->tensor == tensor) {
        return MT_OK;
    }
    const struct mt_manifest_piece *piece = first_piece(reader, tensor);
    MT_ASSERT(piece != NULL);
    reader->offset = piece->offset;
    if (reader->offset < 0) {
        MT_TRY(ask_hdf5(reader));
        reader->offset = reader->place[tensor - reader->manifest->tensor];
    }
    reader->tensor = tensor;
    return MT_OK;
}

/* ---- reading ---- */

static enum mt_status read_bytes(const struct mt_shard_reader *reader, int64_t at, void *data,
                                 int64_t n_byte)
{
    int64_t offset = 0;
    if (!mt_size_add(reader->offset, at, &offset)) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s: the data of %s start at byte %lld, far beyond the file's end; use "
                       "another checkpoint",
                       reader->path, reader->tensor->name, (long long)reader->offset);
    }
    return mt_disk_read(reader->descriptor, reader->path, offset, data, n_byte);
}

/* data [n] holds n bfloat16 in its upper half, which become float32 in place: each is read before
 * anything is written behind it. */
static void widen(float *data, int64_t n)
{
    const char *packed = (const char *)data + n * (int64_t)sizeof(uint16_t);
    for (int64_t i = 0; i < n; ++i) {
        uint16_t half = 0;
        memcpy(&half, packed + i * (int64_t)sizeof(half), sizeof(half));
        const uint32_t bits = (uint32_t)half << 16;
        memcpy(&data[i], &bits, sizeof(bits));
    }
}

enum mt_status mt_shard_read_elements(struct mt_shard_reader *reader,
                                      const struct mt_manifest_tensor *tensor, int64_t first,
                                      int64_t n_element, float *data)
{
    const int64_t n_byte = mt_manifest_element_bytes(tensor);
    const int64_t unused = n_element * ((int64_t)sizeof(float) - n_byte);
    MT_TRY(locate(reader, tensor));
    MT_TRY(read_bytes(reader, first * n_byte, (char *)data + unused, n_element * n_byte));
    if (tensor->is_bfloat16) {
        widen(data, n_element);
    }
    return MT_OK;
}

enum mt_status mt_shard_fail_piece(const struct mt_shard_reader *reader,
                                   const struct mt_manifest_tensor *tensor,
                                   const struct mt_manifest_piece *piece)
{
    return MT_FAIL(MT_ERR_INPUT,
                   "%s: rows %lld to %lld of %s are not those that were saved (checksum); use "
                   "another checkpoint",
                   reader->path, (long long)piece->first_row,
                   (long long)(piece->first_row + piece->n_row - 1), tensor->name);
}

enum mt_status mt_shard_check_piece(struct mt_shard_reader *reader,
                                    const struct mt_manifest_tensor *tensor,
                                    const struct mt_manifest_piece *piece, char *buffer,
                                    int64_t buffer_bytes)
{
    const int64_t row_bytes = mt_manifest_row_bytes(tensor);
    const int64_t n_byte = piece->n_row * row_bytes;
    XXH3_state_t sum;
    MT_TRY(locate(reader, tensor));
    mt_checksum_begin(&sum);
    for (int64_t done = 0; done < n_byte; done += buffer_bytes) {
        const int64_t n = mt_min_i64(buffer_bytes, n_byte - done);
        MT_TRY(read_bytes(reader, piece->shard_row * row_bytes + done, buffer, n));
        mt_checksum_add(&sum, buffer, (size_t)n);
    }
    return mt_checksum_end(&sum) == piece->checksum ? MT_OK
                                                    : mt_shard_fail_piece(reader, tensor, piece);
}
