/* Checkpoints: one directory each, ordinary HDF5 shards (one a rank), an index, a manifest.
 *
 *   step-00000100/index.h5                  every logical tensor at full shape (virtual datasets)
 *                 shard-00000-of-00004.h5   what rank 0 owned
 *                 manifest.json             sizes, checksums, tensors; last its own checksum
 *
 * Where experts are saved in turn, a rank's shard holds dense tensors alone, and each part of the
 * experts has a file beside it, written now or linked from the checkpoint before:
 *
 *                 experts-3-of-4-00000-of-00004.h5
 *
 * Written under a temporary name, synced, renamed: a checkpoint is whole or absent. Specified in
 * docs/checkpoint.md. Reading needs no particular number of ranks. */
#ifndef MT_CHECKPOINT_CHECKPOINT_H
#define MT_CHECKPOINT_CHECKPOINT_H

#include "comm/comm.h"
#include "store/state_array.h"
#include "store/store.h"

/* The newest that is read. Written is the oldest that can say what is to be said: 2 only of cut
 * experts, whose pieces are smaller than one row of dim[0]; 3 only of weights in bfloat16; 4 only
 * of runs that save experts in turn. */
enum {
    MT_CHECKPOINT_PLAIN_VERSION = 1,
    MT_CHECKPOINT_CUT_VERSION = 2,
    MT_CHECKPOINT_BFLOAT16_VERSION = 3,
    MT_CHECKPOINT_SPARSE_VERSION = 4,
    MT_CHECKPOINT_FORMAT_VERSION = 4
};

/* Errors of the collective calls are agreed (the lowest failing rank's, recorded on every rank) but
 * not spoken: the caller may go on without. */

/* Everything of a run beside tensors; the same on every rank. Load zeroes an array that the
 * checkpoint lacks or has with another length: what it describes was configured otherwise. */
struct mt_run_state {
    int64_t step; /* steps done */
    int64_t tokens_seen;
    int64_t next_sequence; /* position in the data */
    int64_t n_update;      /* optimizer updates done: step - skipped */
    int64_t n_skipped, n_skipped_in_row;
    int64_t n_lost_update; /* of single experts, in all starts from sparse checkpoints so far */
    int n_array;
    const struct mt_state_array *array; /* caller's memory: written by save, filled by load */
};

/* Experts saved in turn (decision 15). Part p are the experts e of layers l with
 * (l + e) mod MT_EXPERT_PARTS = p; a checkpoint has them as they were at step[p], after n_update[p]
 * updates. Whoever goes on from it has lost what they learnt since. */
enum { MT_EXPERT_PARTS = 4 };
struct mt_expert_parts {
    bool is_told; /* false: nothing below is said, all experts are of the checkpoint's own step */
    int64_t step[MT_EXPERT_PARTS], n_update[MT_EXPERT_PARTS];
    int64_t n_expert[MT_EXPERT_PARTS]; /* of all layers */
};

/* Collective. Saves below `folder` (the run's checkpoints/) as step-%08d; the previous ones beyond
 * `keep` newest (0: all) and every `keep_every`-th step (0: none) are removed after it is complete;
 * those of later steps are neither counted nor touched. `path` (may be NULL) [MT_PATH_BYTES] gets
 * its path. MT_ERR_RESOURCE when the disk refuses: what was there stays. An existing complete
 * checkpoint of that step is left as it is, a damaged one replaced. */
struct mt_checkpoint_options {
    const char *folder;
    int64_t keep, keep_every;
    int64_t n_sparse; /* saves between two full ones of one saver, each of one part of the experts;
                       * the two newest full ones are kept beside `keep` */
    const char *config_text; /* resolved TOML */
    const char *versions;    /* of program and libraries, for people; NULL: not said */
    uint64_t config_hash;
};
enum mt_status mt_checkpoint_save(struct mt_store *store, struct mt_comm *comm,
                                  const struct mt_run_state *state,
                                  const struct mt_checkpoint_options *options, char *path);

/* Collective. The newest valid checkpoint below folder: checksums verified, every rank a share of
 * the files. *path is "" when there is none. Invalid newer ones are skipped; `notes` [notes_bytes]
 * says which and why (may be ""). */
enum mt_status mt_checkpoint_find(struct mt_comm *comm, const char *folder, char *path, char *notes,
                                  size_t notes_bytes);

/* The same for a run that starts from it. A checkpoint from which the last starts all ended before
 * a step was done (attempts.h) is set aside for the valid one before it, if there is one; notes
 * say so. */
enum mt_status mt_checkpoint_find_to_start(struct mt_comm *comm, const char *folder, char *path,
                                           char *notes, size_t notes_bytes);

/* Collective. Reads owned parts (values; optimizer state unless weights_only), then the caller
 * publishes. Verified before use. MT_ERR_INPUT naming file and tensor that differ; the store's
 * values are then undefined. state may be NULL; with weights_only its arrays are left alone. */
enum mt_status mt_checkpoint_load(struct mt_store *store, struct mt_comm *comm, const char *path,
                                  bool weights_only, struct mt_run_state *state);

/* The same of one that mt_checkpoint_find or mt_checkpoint_find_to_start has just verified: its
 * files are read once, not twice. */
enum mt_status mt_checkpoint_load_found(struct mt_store *store, struct mt_comm *comm,
                                        const char *path, struct mt_run_state *state);

/* Not collective: what a checkpoint says of itself, without reading tensors; and whether its files
 * are there. */
struct mt_checkpoint_file {
    char name[64];        /* e.g. "shard-00000-of-00004.h5" */
    int64_t n_byte;       /* as the manifest says */
    int64_t n_found_byte; /* as it is; -1: it is missing, or not a file */
};
struct mt_checkpoint_tensor {
    char name[128]; /* e.g. "/model/norm" */
    bool is_bfloat16;
    int n_dim;
    int64_t dim[3];
    int first_part; /* of experts: the part that expert 0 is in; -1: of none */
};
struct mt_checkpoint_info {
    int64_t step, tokens_seen, format_version, n_update;
    int64_t n_lost_update; /* before it was saved */
    struct mt_expert_parts parts;
    int world_size;
    char *config_text;
    char *versions; /* of program and libraries that saved; NULL: not said */
    uint64_t config_hash;
    int64_t n_file, n_byte;
    struct mt_checkpoint_file *file; /* [n_file] */
    int n_tensor;
    struct mt_checkpoint_tensor *tensor;
};
enum mt_status mt_checkpoint_read_info(const char *path, struct mt_checkpoint_info *info);
void mt_checkpoint_info_clear(struct mt_checkpoint_info *info);
/* Updates that each expert of a part, or all experts together, lose by a start from here. */
int64_t mt_checkpoint_lost_by_part(const struct mt_checkpoint_info *info, int part);
int64_t mt_checkpoint_lost(const struct mt_checkpoint_info *info);
/* Ranks that own rows of a tensor, as text "0:0-31 1:32-63", from the manifest; of cut experts rows
 * of [E,F,D] seen as [E F, D]. text [bytes] */
enum mt_status mt_checkpoint_owners(const char *path, const char *tensor, char *text, size_t bytes);

/* Not collective: another form of a checkpoint, as the new directory `to`: one shard, whatever
 * ranks wrote it; without optimizer state when weights_only; bfloat16: weights rounded to it, and
 * nothing else. The source is verified first; what is left of it has the same bits, and weights
 * that were bfloat16 are exact in float32. MT_ERR_RESOURCE when the disk refuses, MT_ERR_CONFIG
 * when `to` is there. */
struct mt_convert_options {
    bool weights_only;
    enum mt_dtype dtype; /* MT_BFLOAT16 needs weights_only */
};
enum mt_status mt_checkpoint_convert(const char *from, const char *to,
                                     const struct mt_convert_options *options);

/* Not collective: reads everything and checks every checksum, the set of tensors and of files.
 * MT_ERR_INPUT naming the file (and tensor) at fault. */
enum mt_status mt_checkpoint_verify(const char *path);

#endif
