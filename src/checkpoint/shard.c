#include "checkpoint/shard.h"

#include "base/memory.h"
#include "checkpoint/disk.h"
#include "checkpoint/hdf5_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int compare_parts(const void *a, const void *b)
{
    const struct mt_part *x = *(const struct mt_part *const *)a;
    const struct mt_part *y = *(const struct mt_part *const *)b;
    if (x->tensor != y->tensor) {
        return x->tensor < y->tensor ? -1 : 1;
    }
    return x->first < y->first ? -1 : x->first > y->first;
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

int mt_shard_first_part(int layer)
{
    return layer % MT_EXPERT_PARTS;
}

static bool holds(const struct mt_tensor_table *table, int what, const struct mt_part *part)
{
    const struct mt_tensor *tensor = &table->tensor[part->tensor];
    if (what == MT_SHARD_ALL || tensor->kind != MT_TENSOR_EXPERT) {
        return what == MT_SHARD_ALL || what == MT_SHARD_DENSE;
    }
    const int64_t expert = part->first / mt_tensor_row_elements(tensor);
    return (mt_shard_first_part(tensor->layer) + expert) % MT_EXPERT_PARTS == what;
}

/* The store's parts that the shard holds, by tensor and first element. */
static void choose_parts(const struct mt_store *store, int what, struct mt_shard *shard)
{
    shard->n_part = 0;
    for (int p = 0; p < mt_store_n_part(store); ++p) {
        const struct mt_part *part = mt_store_part(store, p);
        if (holds(shard->table, what, part)) {
            shard->part[shard->n_part++] = part;
        }
    }
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers is meant */
    qsort(shard->part, (size_t)shard->n_part, sizeof(*shard->part), compare_parts);
}

enum mt_status mt_shard_plan(const struct mt_store *store, int what, struct mt_shard *shard)
{
    memset(shard, 0, sizeof(*shard));
    shard->table = mt_store_table(store);
    shard->is_cut = mt_store_is_cut(store);
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers is meant */
    MT_TRY(MT_ALLOCATE(shard->part, mt_store_n_part(store), "parts of a shard"));
    choose_parts(store, what, shard);
    const enum mt_status status =
        MT_ALLOCATE(shard->piece, (int64_t)MT_N_KIND * shard->n_part, "pieces of a shard");
    if (status != MT_OK) {
        mt_shard_clear(shard);
        return status;
    }
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
    mt_memory_free(shard->extent);
    mt_memory_free(shard->frame);
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
    MT_TRY_GOTO(mt_hdf5_data_list(&list));
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

/* ---- extents and frame ---- */

static int64_t piece_bytes(const struct mt_shard *shard, const struct mt_shard_piece *piece)
{
    return piece->n_row * row_elements_of(shard, piece->tensor) * (int64_t)sizeof(float);
}

static int compare_extents(const void *a, const void *b)
{
    const struct mt_shard_extent *x = a;
    const struct mt_shard_extent *y = b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Extents of the pieces, sorted; then those of the frame between them. */
static enum mt_status list_extents(struct mt_shard *shard)
{
    struct mt_shard_extent *data = NULL;
    MT_TRY(MT_ALLOCATE(shard->extent, 2 * shard->n_piece + 1, "extents of a shard"));
    MT_TRY(MT_ALLOCATE(data, shard->n_piece, "extents of a shard"));
    for (int64_t i = 0; i < shard->n_piece; ++i) {
        const struct mt_shard_piece *piece = &shard->piece[i];
        data[i] = (struct mt_shard_extent){piece->offset, piece_bytes(shard, piece), i};
        shard->n_data_byte += data[i].n_byte;
    }
    qsort(data, (size_t)shard->n_piece, sizeof(*data), compare_extents);
    int64_t end = 0;
    for (int64_t i = 0; i <= shard->n_piece; ++i) {
        const int64_t next = i < shard->n_piece ? data[i].offset : shard->n_byte;
        MT_ASSERT(end <= next); /* datasets do not overlap */
        if (end < next) {
            shard->extent[shard->n_extent++] = (struct mt_shard_extent){end, next - end, -1};
        }
        if (i < shard->n_piece) {
            shard->extent[shard->n_extent++] = data[i];
            end = next + data[i].n_byte;
        }
    }
    mt_memory_free(data);
    return MT_OK;
}

static enum mt_status read_frame(struct mt_shard *shard, int descriptor, const char *path)
{
    int64_t used = 0;
    MT_TRY(MT_ALLOCATE(shard->frame, shard->n_byte - shard->n_data_byte, "the frame of a shard"));
    for (int64_t i = 0; i < shard->n_extent; ++i) {
        const struct mt_shard_extent *extent = &shard->extent[i];
        if (extent->piece >= 0) {
            continue;
        }
        MT_TRY(mt_disk_read(descriptor, path, extent->offset, shard->frame + used, extent->n_byte));
        used += extent->n_byte;
    }
    return MT_OK;
}

static enum mt_status lay_out(struct mt_shard *shard, int descriptor, const char *path)
{
    hid_t file = H5I_INVALID_HID;
    struct stat about;
    MT_TRY(mt_hdf5_create_over(path, &file));
    (void)unlink(path); /* HDF5 has it open: whoever is killed from here on leaves nothing */
    MT_TRY(mt_hdf5_close(file, path, create_datasets(shard, file, path)));
    if (fstat(descriptor, &about) != 0) {
        return MT_FAIL(MT_ERR_INTERNAL, "the size of a shard's layout is unknown: %s",
                       strerror(errno));
    }
    shard->n_byte = about.st_size;
    MT_TRY(list_extents(shard));
    return read_frame(shard, descriptor, path);
}

/* In shared memory, sparse: only what HDF5 writes takes room. Elsewhere where there is none. */
static int open_scratch(char *path, size_t bytes)
{
    static const char *const folder[] = {"/dev/shm", "/tmp"};
    int descriptor = -1;
    for (int i = 0; i < 2 && descriptor < 0; ++i) {
        (void)snprintf(path, bytes, "%s/moetrain-shard-XXXXXX", folder[i]);
        descriptor = mkostemp(path, O_CLOEXEC);
    }
    return descriptor;
}

enum mt_status mt_shard_lay_out(struct mt_shard *shard)
{
    char path[64];
    const int descriptor = open_scratch(path, sizeof(path));
    if (descriptor < 0) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "no scratch file for the layout of a checkpoint: %s: %s; a few KiB in "
                       "/dev/shm or /tmp were expected; make room there",
                       path, strerror(errno));
    }
    const enum mt_status status = lay_out(shard, descriptor, path);
    (void)unlink(path); /* where HDF5 could not open it */
    (void)close(descriptor);
    return status;
}
