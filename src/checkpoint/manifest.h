/* manifest.json: what makes a directory a checkpoint. Written last by rank 0 from what all ranks
 * report, read first by everybody; all sizes and names that are used come from here, checked.
 *
 * A file of this kind may come from anywhere: nothing is trusted before it was looked at, and
 * memory is bounded by MT_MANIFEST_MAX_BYTES. */
#ifndef MT_CHECKPOINT_MANIFEST_H
#define MT_CHECKPOINT_MANIFEST_H

#include "checkpoint/checkpoint.h"

enum {
    MT_MANIFEST_MAX_BYTES = 256 << 20,
    MT_MANIFEST_FILE_NAME_BYTES = 64,
    MT_CHECKPOINT_NAME_BYTES = 128
};

/* A file of the directory. file[0] is index.h5, file[1 + s] shard s; R ranks have R shards, or
 * R (1 + MT_EXPERT_PARTS) where parts of experts have their own: shard r is rank r's, shard
 * (1 + p) R + r what it has of part p. */
struct mt_manifest_file {
    char name[MT_MANIFEST_FILE_NAME_BYTES];
    int64_t n_byte;
    uint64_t checksum;
};

/* Rows [first_row, first_row + n_row) of a tensor: in `shard`'s dataset of the tensor's name from
 * row shard_row on. The checksum is that of the rows' bytes. Rows of a cut tensor are those of its
 * first two dimensions taken together; a piece of it lies within one index of the first. */
struct mt_manifest_piece {
    int shard;
    int64_t first_row, n_row, shard_row;
    int64_t offset; /* bytes, in the shard's file; -1: older checkpoints do not say */
    uint64_t checksum;
};

/* Pieces piece[first_piece ..] in ascending rows; together every row once. */
struct mt_manifest_tensor {
    char name[MT_CHECKPOINT_NAME_BYTES]; /* "/model/norm", "/optimizer/norm/exp_avg" */
    int n_dim;
    bool is_cut;      /* n_dim = 3 */
    bool is_bfloat16; /* two bytes an element, else float32 */
    int64_t dim[3];
    int first_part; /* as struct mt_checkpoint_tensor; -1 also where no parts are told */
    int64_t first_piece, n_piece;
};

/* A state array of the run: /state/<name> of index.h5, n int64 at byte `offset`. */
enum { MT_MANIFEST_ARRAY_NAME_BYTES = 64, MT_MANIFEST_MAX_ARRAYS = 1024 };
struct mt_manifest_array {
    char name[MT_MANIFEST_ARRAY_NAME_BYTES];
    int64_t n, offset;
};

struct mt_manifest {
    int64_t format_version;
    struct mt_run_state state; /* without arrays */
    int n_array;               /* -1: older checkpoints do not say */
    struct mt_manifest_array *array;
    int world_size;
    struct mt_expert_parts parts;
    uint64_t config_hash;
    char *config_text;
    char *versions; /* as struct mt_checkpoint_info; NULL: not said */
    int64_t n_file, n_tensor, n_piece;
    struct mt_manifest_file *file;
    struct mt_manifest_tensor *tensor;
    struct mt_manifest_piece *piece;
};

/* Room for so many; n_file = 1 + world_size shards_a_rank, the latter 1 or 1 + MT_EXPERT_PARTS. */
enum mt_status mt_manifest_init(struct mt_manifest *manifest, int world_size, int shards_a_rank,
                                int64_t n_tensor, int64_t n_piece, const char *config_text);
/* Copies the text; NULL and "": not said. */
enum mt_status mt_manifest_set_versions(struct mt_manifest *manifest, const char *versions);
void mt_manifest_clear(struct mt_manifest *manifest);

/* name [MT_MANIFEST_FILE_NAME_BYTES] of file[index] of a checkpoint by world_size ranks. */
void mt_manifest_file_name(char *name, int world_size, int64_t index);
/* name [MT_CHECKPOINT_NAME_BYTES] of a tensor's dataset. */
enum mt_checkpoint_kind { MT_KIND_VALUE, MT_KIND_EXP_AVG, MT_KIND_EXP_AVG_SQ, MT_N_KIND };
void mt_checkpoint_dataset_name(char *name, const char *tensor, enum mt_checkpoint_kind kind);

int mt_manifest_n_shard(const struct mt_manifest *manifest);
/* All experts are of the checkpoint's own step. */
bool mt_manifest_is_full(const struct mt_manifest *manifest);

/* Fills in every piece's shard_row: pieces of a tensor lie in ascending order in a shard. */
enum mt_status mt_manifest_number_rows(struct mt_manifest *manifest);
/* Rows of a tensor's dataset in a shard; 0: the shard has none. */
int64_t mt_manifest_shard_rows(const struct mt_manifest *manifest,
                               const struct mt_manifest_tensor *tensor, int shard);
int64_t mt_manifest_n_row(const struct mt_manifest_tensor *tensor);
int64_t mt_manifest_row_elements(const struct mt_manifest_tensor *tensor);
int64_t mt_manifest_element_bytes(const struct mt_manifest_tensor *tensor);
int64_t mt_manifest_row_bytes(const struct mt_manifest_tensor *tensor); /* in the shard */
/* Shape of a tensor's dataset in a shard, dim [3]; returns its n_dim. */
int mt_manifest_shard_shape(const struct mt_manifest *manifest,
                            const struct mt_manifest_tensor *tensor, int shard, int64_t *dim);

/* The tensors by name; freed by mt_memory_free. */
enum mt_status mt_manifest_sort(const struct mt_manifest *manifest,
                                const struct mt_manifest_tensor ***by_name);
/* NULL: no such tensor. by_name [n_tensor] from mt_manifest_sort. */
const struct mt_manifest_tensor *mt_manifest_find(const struct mt_manifest *manifest,
                                                  const struct mt_manifest_tensor *const *by_name,
                                                  const char *name);

/* The text, freed by mt_memory_free. */
enum mt_status mt_manifest_to_text(const struct mt_manifest *manifest, char **text,
                                   int64_t *n_byte);
/* From text [n_byte] with a zero behind it; `path` names it in errors. All invariants above hold
 * afterwards; MT_ERR_INPUT else. */
enum mt_status mt_manifest_parse(const char *path, const char *text, int64_t n_byte,
                                 struct mt_manifest *manifest);
/* manifest.json of a checkpoint's folder. */
enum mt_status mt_manifest_read(const char *folder, struct mt_manifest *manifest);

#endif
