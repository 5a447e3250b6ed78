#include "checkpoint/shard.h"

#include "base/memory.h"
#include "checkpoint/disk.h"
#include "checkpoint/hdf5_file.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

static int compare_parts(const void *a, const void *b)
{
    const struct mt_part *x = *(const struct mt_part *const *)a;
    const struct mt_part *y = *(const struct mt_part *const *)b;
    if (x->tensor != y->tensor) {
        return x->tensor < y->tensor ? -1 : 1;
    }
    return x->first < y->first ? -1 : x->first > y->first;
}

static const float *part_data(const struct mt_part *part, enum mt_checkpoint_kind kind)
{
    const float *const data[MT_N_KIND] = {part->value, part->exp_avg, part->exp_avg_sq};
    return data[kind];
}

bool mt_shard_is_cut(const struct mt_shard *shard, int tensor)
{
    return shard->is_cut && shard->table->tensor[tensor].kind == MT_TENSOR_EXPERT;
}

static int64_t row_elements_of(const struct mt_shard *shard, int tensor)
{
    const struct mt_tensor *row = &shard->table->tensor[tensor];
    return mt_shard_is_cut(shard, tensor) ? row->dim[2] : mt_tensor_row_elements(row);
}

/* Pieces of one kind from parts [first, end) of one tensor: parts that touch become one, but not
 * those of two cut experts. */
static void plan_tensor(struct mt_shard *shard, int first, int end, enum mt_checkpoint_kind kind)
{
    const int tensor = shard->part[first]->tensor;
    const bool is_cut = mt_shard_is_cut(shard, tensor);
    const int64_t n_own_row = shard->table->tensor[tensor].dim[1]; /* of a cut expert */
    const int64_t row_elements = row_elements_of(shard, tensor);
    struct mt_shard_piece *piece = NULL;
    int64_t shard_row = 0;
    for (int p = first; p < end; ++p) {
        const struct mt_part *part = shard->part[p];
        const int64_t row = part->first / row_elements;
        const int64_t n_row = part->n_element / row_elements;
        MT_ASSERT(part->first % row_elements == 0 && n_row * row_elements == part->n_element);
        if (piece == NULL || piece->first_row + piece->n_row != row ||
            (is_cut && row % n_own_row == 0)) {
            piece = &shard->piece[shard->n_piece++];
            *piece = (struct mt_shard_piece){.tensor = part->tensor,
                                             .kind = kind,
                                             .first_part = p,
                                             .first_row = row,
                                             .shard_row = shard_row};
        }
        piece->n_part++;
        piece->n_row += n_row;
        shard_row += n_row;
    }
}

enum mt_status mt_shard_plan(const struct mt_store *store, struct mt_shard *shard)
{
    memset(shard, 0, sizeof(*shard));
    shard->table = mt_store_table(store);
    shard->is_cut = mt_store_is_cut(store);
    shard->n_part = mt_store_n_part(store);
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers is meant */
    MT_TRY(MT_ALLOCATE(shard->part, shard->n_part, "parts of a shard"));
    const enum mt_status status =
        MT_ALLOCATE(shard->piece, (int64_t)MT_N_KIND * shard->n_part, "pieces of a shard");
    if (status != MT_OK) {
        mt_shard_clear(shard);
        return status;
    }
    for (int p = 0; p < shard->n_part; ++p) {
        shard->part[p] = mt_store_part(store, p);
    }
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers is meant */
    qsort(shard->part, (size_t)shard->n_part, sizeof(*shard->part), compare_parts);
    for (int first = 0, end = 0; first < shard->n_part; first = end) {
        while (end < shard->n_part && shard->part[end]->tensor == shard->part[first]->tensor) {
            ++end;
        }
        const int n_kind = shard->part[first]->exp_avg != NULL ? MT_N_KIND : 1;
        for (int kind = 0; kind < n_kind; ++kind) {
            plan_tensor(shard, first, end, (enum mt_checkpoint_kind)kind);
        }
    }
    return MT_OK;
}

void mt_shard_clear(struct mt_shard *shard)
{
    mt_memory_free(shard->part);
    mt_memory_free(shard->piece);
    memset(shard, 0, sizeof(*shard));
}

/* The dataset of pieces [first, end), and where its bytes will be. */
static enum mt_status create_dataset(struct mt_shard *shard, int64_t first, int64_t end, hid_t list,
                                     hid_t file, const char *path)
{
    enum mt_status status = MT_OK;
    hid_t space = H5I_INVALID_HID;
    hid_t dataset = H5I_INVALID_HID;
    char name[MT_CHECKPOINT_NAME_BYTES];
    struct mt_shard_piece *piece = shard->piece;
    const struct mt_tensor *tensor = &shard->table->tensor[piece[first].tensor];
    hsize_t dim[MT_HDF5_MAX_DIM] = {(hsize_t)(piece[end - 1].shard_row + piece[end - 1].n_row)};
    const int n_left_out = mt_shard_is_cut(shard, piece[first].tensor) ? 1 : 0;
    for (int d = 1 + n_left_out; d < tensor->n_dim; ++d) {
        dim[d - n_left_out] = (hsize_t)tensor->dim[d];
    }
    mt_checkpoint_dataset_name(name, tensor->name, piece[first].kind);
    MT_TRY_GOTO(mt_hdf5_make_groups(file, path, name));
    MT_TRY_HDF5_GOTO(MT_ERR_RESOURCE, path,
                     space = H5Screate_simple(tensor->n_dim - n_left_out, dim, NULL));
    MT_TRY_HDF5_GOTO(
        MT_ERR_RESOURCE, path,
        dataset = H5Dcreate2(file, name, H5T_IEEE_F32LE, space, H5P_DEFAULT, list, H5P_DEFAULT));
    int64_t offset = 0;
    MT_TRY_GOTO(mt_hdf5_data_offset(dataset, path, name, &offset));
    const int64_t row_bytes = row_elements_of(shard, piece[first].tensor) * (int64_t)sizeof(float);
    for (int64_t i = first; i < end; ++i) {
        piece[i].offset = offset + piece[i].shard_row * row_bytes;
    }
cleanup:
    (void)H5Dclose(dataset);
    (void)H5Sclose(space);
    return status;
}

static enum mt_status create_datasets(struct mt_shard *shard, hid_t file, const char *path)
{
    enum mt_status status = MT_OK;
    hid_t list = H5I_INVALID_HID;
    MT_TRY_GOTO(mt_hdf5_dataset_list(&list));
    MT_TRY_HDF5_GOTO(MT_ERR_INTERNAL, path, H5Pset_layout(list, H5D_CONTIGUOUS));
    MT_TRY_HDF5_GOTO(MT_ERR_INTERNAL, path, H5Pset_alloc_time(list, H5D_ALLOC_TIME_EARLY));
    MT_TRY_HDF5_GOTO(MT_ERR_INTERNAL, path, H5Pset_fill_time(list, H5D_FILL_TIME_NEVER));
    const struct mt_shard_piece *piece = shard->piece;
    for (int64_t first = 0, end = 0; first < shard->n_piece; first = end) {
        while (end < shard->n_piece && piece[end].tensor == piece[first].tensor &&
               piece[end].kind == piece[first].kind) {
            ++end;
        }
        MT_TRY_GOTO(create_dataset(shard, first, end, list, file, path));
    }
cleanup:
    (void)H5Pclose(list);
    return status;
}

static enum mt_status create_layout(struct mt_shard *shard, const char *path)
{
    hid_t file = H5I_INVALID_HID;
    MT_TRY(mt_hdf5_create(path, false, &file));
    return mt_hdf5_close(file, path, create_datasets(shard, file, path));
}

static enum mt_status write_piece(const struct mt_shard *shard, struct mt_shard_piece *piece,
                                  int descriptor, const char *path, XXH3_state_t *state)
{
    int64_t offset = piece->offset;
    (void)XXH3_64bits_reset(state);
    for (int p = piece->first_part; p < piece->first_part + piece->n_part; ++p) {
        const struct mt_part *part = shard->part[p];
        const float *data = part_data(part, piece->kind);
        const int64_t n_byte = part->n_element * (int64_t)sizeof(float);
        (void)XXH3_64bits_update(state, data, (size_t)n_byte);
        MT_TRY(mt_disk_write(descriptor, path, offset, data, n_byte));
        offset += n_byte;
    }
    piece->checksum = XXH3_64bits_digest(state);
    return MT_OK;
}

static enum mt_status write_data(struct mt_shard *shard, const char *path)
{
    int descriptor = -1;
    MT_TRY(mt_disk_open_to_write(path, false, &descriptor));
    enum mt_status status = MT_OK;
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL) {
        status = MT_FAIL(MT_ERR_RESOURCE, "no memory for a checksum's state; it needs 1 KiB; free "
                                          "memory on this machine");
    }
    for (int64_t i = 0; i < shard->n_piece && status == MT_OK; ++i) {
        status = write_piece(shard, &shard->piece[i], descriptor, path, state);
    }
    (void)XXH3_freeState(state);
    return mt_disk_finish(descriptor, path, status);
}

enum mt_status mt_shard_write(struct mt_shard *shard, const char *path)
{
    MT_TRY(create_layout(shard, path));
    MT_TRY(write_data(shard, path));
    return mt_disk_checksum(path, &shard->n_byte, &shard->checksum);
}
