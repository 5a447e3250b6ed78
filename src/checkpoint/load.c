/* Loading on any number of ranks: every rank reads the rows it owns out of whichever shards hold
 * them. Only what the manifest describes is read, after the ranks have verified all files. */
#include "checkpoint/checkpoint.h"

#include "base/memory.h"
#include "base/size.h"
#include "checkpoint/disk.h"
#include "checkpoint/index.h"
#include "checkpoint/manifest.h"
#include "checkpoint/shard_read.h"
#include "checkpoint/together.h"
#include "device/memory.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

enum { DIFFERENCES_BYTES = 1536, MAX_DIFFERENCES = 8 };

struct load {
    const struct mt_store *store;
    const struct mt_tensor_table *table;
    struct mt_manifest manifest;
    int n_kind;                                /* kinds that are read: 1 or MT_N_KIND */
    const struct mt_manifest_tensor **by_name; /* [n_tensor of the manifest] */
    const struct mt_manifest_tensor **saved;   /* [n_tensor of the table, n_kind] */
    float *room;                               /* of the largest part, on its way to a GPU */
    int64_t n_difference;
    char differences[DIFFERENCES_BYTES];
};

static void note_difference(struct load *load, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void note_difference(struct load *load, const char *format, ...)
{
    const size_t used = strlen(load->differences);
    if (load->n_difference++ < MAX_DIFFERENCES) {
        va_list arguments;
        va_start(arguments, format);
        (void)vsnprintf(load->differences + used, sizeof(load->differences) - used, format,
                        arguments);
        va_end(arguments);
    }
}

/* "[256,128]"; text [80] */
static void print_shape(char *text, int n_dim, const int64_t *dim)
{
    int used = 0;
    for (int d = 0; d < n_dim; ++d) {
        used += snprintf(text + used, (size_t)(80 - used), "%c%lld", d == 0 ? '[' : ',',
                         (long long)dim[d]);
    }
    (void)snprintf(text + used, (size_t)(80 - used), "]");
}

static void match_tensor(struct load *load, int t, enum mt_checkpoint_kind kind)
{
    const struct mt_tensor *tensor = &load->table->tensor[t];
    char name[MT_CHECKPOINT_NAME_BYTES];
    mt_checkpoint_dataset_name(name, tensor->name, kind);
    const struct mt_manifest_tensor *saved = mt_manifest_find(&load->manifest, load->by_name, name);
    load->saved[(int64_t)t * load->n_kind + kind] = saved;
    if (saved == NULL) {
        note_difference(load, "; it lacks %s", name);
        return;
    }
    const size_t n_byte = (size_t)tensor->n_dim * sizeof(tensor->dim[0]);
    if (saved->n_dim != tensor->n_dim || memcmp(saved->dim, tensor->dim, n_byte) != 0) {
        char have[80];
        char want[80];
        print_shape(have, saved->n_dim, saved->dim);
        print_shape(want, tensor->n_dim, tensor->dim);
        note_difference(load, "; %s is %s, not %s", name, have, want);
    }
}

/* A tensor of the saved model that the table lacks; there is one. */
static const char *first_unknown(const struct load *load)
{
    const int64_t n_value = (int64_t)load->table->n_tensor * load->n_kind;
    const char *unknown = "";
    for (int64_t t = 0; t < load->manifest.n_tensor && unknown[0] == '\0'; ++t) {
        const struct mt_manifest_tensor *saved = &load->manifest.tensor[t];
        bool found = strncmp(saved->name, "/model/", strlen("/model/")) != 0;
        for (int64_t i = 0; i < n_value && !found; i += load->n_kind) {
            found = load->saved[i] == saved;
        }
        unknown = found ? "" : saved->name;
    }
    return unknown;
}

static void note_unknown(struct load *load)
{
    int64_t n_found = 0;
    int64_t n_saved = 0;
    const int64_t n_value = (int64_t)load->table->n_tensor * load->n_kind;
    for (int64_t i = 0; i < n_value; i += load->n_kind) {
        n_found += load->saved[i] != NULL;
    }
    for (int64_t t = 0; t < load->manifest.n_tensor; ++t) {
        const char *name = load->manifest.tensor[t].name;
        n_saved += strncmp(name, "/model/", strlen("/model/")) == 0;
    }
    if (n_saved != n_found) {
        note_difference(load, "; it has %lld tensors that this model lacks, e.g. %s",
                        (long long)(n_saved - n_found), first_unknown(load));
    }
}

static bool has_moments(const struct mt_manifest *manifest)
{
    bool has = false;
    for (int64_t t = 0; t < manifest->n_tensor && !has; ++t) {
        has = strncmp(manifest->tensor[t].name, "/optimizer/", strlen("/optimizer/")) == 0;
    }
    return has;
}

/* The table's tensors, no others, in the same shapes. */
static enum mt_status match_tables(struct load *load, const char *path)
{
    const bool is_weights = load->n_kind > 1 && !has_moments(&load->manifest);
    const int n_kind = is_weights ? 1 : load->n_kind; /* first, is it of this model? */
    const int64_t n = (int64_t)load->table->n_tensor * load->n_kind;
    MT_TRY(mt_manifest_sort(&load->manifest, &load->by_name));
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers is meant */
    MT_TRY(MT_ALLOCATE(load->saved, n, "tensors of the checkpoint"));
    for (int t = 0; t < load->table->n_tensor; ++t) {
        for (int kind = 0; kind < n_kind; ++kind) {
            match_tensor(load, t, (enum mt_checkpoint_kind)kind);
        }
    }
    note_unknown(load);
    if (load->n_difference > 0) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s is a checkpoint of another model%s%s; the tensors of this configuration "
                       "were expected; use its own configuration, or another run directory",
                       path, load->differences,
                       load->n_difference > MAX_DIFFERENCES ? "; and more" : "");
    }
    if (is_weights) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s holds weights only; to go on, the optimizer's state was expected beside "
                       "them; start a new run from it with --init-from",
                       path);
    }
    return MT_OK;
}

/* Elements of a part that lie in one piece; whole pieces are compared with their checksum once
 * more. row_elements: of the saved tensor, which may have been cut otherwise. */
static enum mt_status read_overlap(const struct load *load, const struct mt_part *part, float *data,
                                   const struct mt_manifest_tensor *saved,
                                   const struct mt_manifest_piece *piece,
                                   struct mt_shard_reader *reader)
{
    const int64_t row_elements = mt_manifest_row_elements(saved);
    const int64_t piece_first = piece->first_row * row_elements;
    const int64_t n_piece_element = piece->n_row * row_elements;
    const int64_t first = mt_max_i64(part->first, piece_first);
    const int64_t end = mt_min_i64(part->first + part->n_element, piece_first + n_piece_element);
    if (first >= end) {
        return MT_OK;
    }
    struct mt_device *device = mt_store_device(load->store);
    float *home = data + (first - part->first);
    float *to = mt_device_room(device, home, load->room);
    const int64_t shard_first = piece->shard_row * row_elements + first - piece_first;
    MT_TRY(mt_shard_read_elements(reader, saved, shard_first, end - first, to));
    const size_t n_byte = (size_t)(end - first) * sizeof(float);
    if (end - first == n_piece_element && !saved->is_bfloat16 &&
        XXH3_64bits(to, n_byte) != piece->checksum) {
        return mt_shard_fail_piece(reader, saved, piece);
    }
    mt_device_upload(device, home, to, (int64_t)n_byte);
    return MT_OK;
}

/* The first piece that ends behind element `first`. */
static int64_t first_piece_from(const struct mt_manifest_piece *piece, int64_t n_piece,
                                int64_t row_elements, int64_t first)
{
    int64_t low = 0;
    int64_t high = n_piece;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if ((piece[middle].first_row + piece[middle].n_row) * row_elements <= first) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static enum mt_status read_part(const struct load *load, const struct mt_part *part,
                                enum mt_checkpoint_kind kind, struct mt_shard_reader *reader)
{
    float *const data[MT_N_KIND] = {part->value, part->exp_avg, part->exp_avg_sq};
    MT_ASSERT(kind < MT_N_KIND);
    const struct mt_manifest_tensor *saved =
        load->saved[(int64_t)part->tensor * load->n_kind + kind];
    const int64_t row_elements = mt_manifest_row_elements(saved);
    const struct mt_manifest_piece *piece = load->manifest.piece + saved->first_piece;
    const int64_t end = part->first + part->n_element;
    enum mt_status status = MT_OK;
    for (int64_t i = first_piece_from(piece, saved->n_piece, row_elements, part->first);
         i < saved->n_piece && piece[i].first_row * row_elements < end && status == MT_OK; ++i) {
        if (piece[i].shard == reader->shard) {
            status = read_overlap(load, part, data[kind], saved, &piece[i], reader);
        }
    }
    return status;
}

/* Whether this rank owns rows that lie in a shard: others need not be opened. */
static bool needs_shard(const struct load *load, int shard)
{
    bool needs = false;
    for (int p = 0; p < mt_store_n_part(load->store) && !needs; ++p) {
        const struct mt_part *part = mt_store_part(load->store, p);
        const struct mt_manifest_tensor *saved = load->saved[(int64_t)part->tensor * load->n_kind];
        needs = mt_manifest_shard_rows(&load->manifest, saved, shard) > 0;
    }
    return needs;
}

static enum mt_status read_shard(const struct load *load, const char *path, int shard)
{
    struct mt_shard_reader reader;
    enum mt_status status = mt_shard_open(&reader, path, &load->manifest, shard);
    for (int p = 0; p < mt_store_n_part(load->store) && status == MT_OK; ++p) {
        for (int kind = 0; kind < load->n_kind && status == MT_OK; ++kind) {
            status = read_part(load, mt_store_part(load->store, p), (enum mt_checkpoint_kind)kind,
                               &reader);
        }
    }
    mt_shard_close(&reader);
    return status;
}

static enum mt_status load_state(const struct load *load, const char *path, bool weights_only,
                                 struct mt_run_state *state)
{
    char index_path[MT_PATH_BYTES];
    if (state == NULL) {
        return MT_OK;
    }
    struct mt_run_state loaded = load->manifest.state;
    loaded.n_array = state->n_array;
    loaded.array = state->array;
    *state = loaded;
    if (weights_only) {
        return MT_OK;
    }
    MT_TRY(mt_disk_join(index_path, path, load->manifest.file[0].name));
    return mt_index_read_arrays(index_path, &load->manifest, state);
}

/* Values are read where they belong, but for a GPU's. */
static enum mt_status make_room(struct load *load)
{
    int64_t n_element = 0;
    if (mt_device_is_host(mt_store_device(load->store))) {
        return MT_OK;
    }
    for (int p = 0; p < mt_store_n_part(load->store); ++p) {
        n_element = mt_max_i64(n_element, mt_store_part(load->store, p)->n_element);
    }
    return MT_ALLOCATE(load->room, n_element, "values on their way to the GPU");
}

static enum mt_status load_all(struct load *load, const char *path, bool weights_only,
                               struct mt_run_state *state)
{
    enum mt_status status = match_tables(load, path);
    if (status == MT_OK) {
        status = make_room(load);
    }
    for (int shard = 0; shard < mt_manifest_n_shard(&load->manifest) && status == MT_OK; ++shard) {
        if (needs_shard(load, shard)) {
            status = read_shard(load, path, shard);
        }
    }
    return status == MT_OK ? load_state(load, path, weights_only, state) : status;
}

/* With the manifest of files that have been verified, which it clears. */
static enum mt_status load_verified(struct mt_store *store, struct mt_comm *comm, const char *path,
                                    bool weights_only, struct mt_run_state *state,
                                    struct mt_manifest *manifest)
{
    struct load load = {
        .store = store, .table = mt_store_table(store), .manifest = *manifest, .n_kind = 1};
    if (!weights_only && mt_store_n_part(store) > 0 && mt_store_part(store, 0)->exp_avg != NULL) {
        load.n_kind = MT_N_KIND;
    }
    const enum mt_status status = load_all(&load, path, weights_only, state);
    mt_memory_free(load.by_name);
    mt_memory_free(load.saved);
    mt_memory_free(load.room);
    mt_manifest_clear(manifest);
    return mt_together_agree(comm, status);
}

enum mt_status mt_checkpoint_load(struct mt_store *store, struct mt_comm *comm, const char *path,
                                  bool weights_only, struct mt_run_state *state)
{
    struct mt_manifest manifest;
    MT_TRY(mt_together_verify(comm, path, &manifest));
    return load_verified(store, comm, path, weights_only, state, &manifest);
}

enum mt_status mt_checkpoint_load_found(struct mt_store *store, struct mt_comm *comm,
                                        const char *path, struct mt_run_state *state)
{
    struct mt_manifest manifest;
    const enum mt_status status = mt_together_agree(comm, mt_manifest_read(path, &manifest));
    if (status != MT_OK) {
        mt_manifest_clear(&manifest);
        return status;
    }
    return load_verified(store, comm, path, false, state, &manifest);
}
