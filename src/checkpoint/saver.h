/* Saving while training goes on.
 *
 * What ranks own does not change between two updates of the optimizer. A save begins between two
 * steps; a writer thread on every rank copies the owned state to staging memory while the next step
 * computes, and only that step's update waits for the copy. Then the thread writes its shard, syncs
 * it and reads it back. When all ranks are that far - a number in the metrics gather of some later
 * step tells - checksums travel to rank 0, whose thread commits. The step loop itself touches no
 * disk, and only it communicates.
 *
 *   step loop   begin | step .. update waits | step | all written: checksums | step | over
 *   writers           | copy | write, sync, read back |
 *   rank 0's                                          | index, manifest, rename, old ones go |
 *
 * Where experts are saved in turn (options->n_sparse, decision 15) a rank has a shard of its dense
 * tensors and one of each part of its experts. A save between two full ones writes the former and
 * one of the latter, and gives the others of the checkpoint before a second name in the new folder:
 * every folder is whole in itself, whichever are removed. A save after another kind of end than
 * success, after experts changed owners and at multiples of keep_every is full.
 *
 * Without staging memory (is_async = false) the thread reads what the store holds, and the caller
 * finishes before it goes on. The files are the same. */
#ifndef MT_CHECKPOINT_SAVER_H
#define MT_CHECKPOINT_SAVER_H

#include "checkpoint/checkpoint.h"

struct mt_saver;

/* Bytes of staging memory on a rank that has a store like this one: what it can own at most. */
int64_t mt_saver_staging_bytes(const struct mt_store *store);

/* Not collective. `options` and what it points to must outlive the saver, as must store and comm.
 * From here on the store waits for the saver before it changes what the rank owns. */
enum mt_status mt_saver_create(struct mt_store *store, struct mt_comm *comm,
                               const struct mt_checkpoint_options *options, bool is_async,
                               struct mt_saver **out);
/* NULL allowed. Waits for this rank's writer; a save that is not over is left unfinished. */
void mt_saver_destroy(struct mt_saver *saver);

/* ---- collective: all ranks call these alike, between two steps ---- */

/* What can be done before the first save: the folder, the files' layout. Of begin what is left is
 * then short, until experts change owners. Errors as there. */
enum mt_status mt_saver_prepare(struct mt_saver *saver, const struct mt_run_state *state);
/* Begins saving; no save is going on. `state` and its arrays are taken before it returns. Where a
 * complete checkpoint of that step exists, nothing is left to do. Errors are agreed, not spoken. */
enum mt_status mt_saver_begin(struct mt_saver *saver, const struct mt_run_state *state);
/* With options->n_sparse: the next save holds all experts. After a load, which must say so: what
 * was saved before is not what is here. For the last save of a run. */
void mt_saver_want_full(struct mt_saver *saver);
/* A save is going on: the same on every rank. */
bool mt_saver_is_busy(const struct mt_saver *saver);

/* What a rank tells the others between two steps, and what follows from all of it: n_done ranks
 * said MT_SIGNAL_DONE or MT_SIGNAL_FAILED, n_failed the latter. A save that is over by this, for
 * better or worse, makes is_busy false; its error is returned, agreed and not spoken: what was
 * there before is kept. */
enum mt_save_signal { MT_SIGNAL_NONE, MT_SIGNAL_DONE, MT_SIGNAL_FAILED };
enum mt_status mt_saver_signal(struct mt_saver *saver, enum mt_save_signal *signal);
enum mt_status mt_saver_advance(struct mt_saver *saver, int n_done, int n_failed);
/* The same until the save is over. Nobody waits in a collective for somebody's disk. */
enum mt_status mt_saver_finish(struct mt_saver *saver);

/* ---- this rank alone ---- */

/* The checkpoint that was begun last. */
const char *mt_saver_path(const struct mt_saver *saver);

/* Of this rank since the saver was made, and of its last save. */
struct mt_saver_times {
    int64_t blocked_ns; /* the step loop waited, in all of the above and before changes */
    int64_t n_saved;    /* complete */
    int64_t n_byte;     /* written of the last one's shard */
    int64_t stage_ns, write_ns, read_back_ns; /* its parts, in the writer thread */
    int64_t commit_ns;                        /* rank 0 */
    int64_t cpu_ns;                           /* the writer's, of all saves */
};
const struct mt_saver_times *mt_saver_times(const struct mt_saver *saver);

#endif
