/* The chunks of the run: every parameter has one owner; the store keeps values, gradients and
 * optimizer state, and carries values out (materialise) and gradients back (reduce).
 *
 *   dense tensors   bucket b: value [n] on every rank, gradient [n] on every rank until reduced;
 *                   rank r owns one contiguous range of the bucket, made of whole chunks (blocks of
 *                   rows of at most MT_CHUNK_ELEMENTS); optimizer state exists for that range only.
 *   experts         chunk e of layer l = gate [F,D] | up [F,D] | down [D,F]; the owner holds value,
 *                   gradient and optimizer state; copies live in slots while a placement says so.
 *   cut experts     (is_cut; LAER, ASPLOS'26) every expert is cut into R pieces, one a rank, which
 *                   hold value, gradient and optimizer state. Its "owner" is only its home, a rank
 *                   where it always has an instance: a copy in a slot like the others, put together
 *                   from all pieces, there only while materialised.
 *
 * What a layer computes is none of the store's business. Optimizer and checkpoint see parts: the
 * owned contiguous pieces of logical tensors. */
#ifndef MT_STORE_STORE_H
#define MT_STORE_STORE_H

#include "comm/comm.h"
#include "comm/sparse_auto.h"
#include "kernel/kernel.h"
#include "placement/placement.h"
#include "store/tensor.h"

enum { MT_CHUNK_ELEMENTS = 16384, MT_EXPERT_MATRICES = 3 };

/* An owned piece of a logical tensor: elements [first, first + n_element) of its flat index, whole
 * rows of dim[0]; of a cut expert, within it, of dim[1]. n_element > 0. */
struct mt_part {
    int tensor;
    int64_t first, n_element;
    float *value, *grad;         /* grad: complete after mt_store_reduce_finish */
    float *exp_avg, *exp_avg_sq; /* NULL in a store for inference */
};

/* One materialised expert on this rank. */
struct mt_expert_copy {
    const float *value; /* [gate | up | down] */
    float *grad;        /* same layout; NULL for inference */
    struct mt_weight gate, up, down;
    bool is_ready[MT_N_PASS]; /* the store's own: mt_store_use_expert has nothing to do */
};

struct mt_store;

struct mt_store_options {
    bool training; /* gradients and optimizer state */
    bool is_cut;   /* experts are cut into pieces over all ranks */
    int n_slot;    /* copies of experts beyond the owned ones, of all layers together; cut: all */
    const struct mt_placement *ownership; /* [n_layer] owner maps of the MoE layers; ignored else */
};

/* Collective only in that all ranks make the same store. Values are undefined until
 * mt_store_init_values or a checkpoint's load, followed by mt_store_publish. Table, comm and device
 * must outlive the store; `options` need not. */
enum mt_status mt_store_create(struct mt_device *device, struct mt_comm *comm,
                               const struct mt_tensor_table *table,
                               const struct mt_store_options *options, struct mt_store **out);
/* NULL allowed. Waits for what is in flight, unless an error is recorded. */
void mt_store_destroy(struct mt_store *store);
/* Bytes that create would allocate on the rank that holds most, by kind, without doing it, on
 * devices like this one. */
struct mt_store_bytes {
    int64_t dense_value, dense_grad, dense_pack, expert_value, expert_grad, expert_pack, slots,
        optimizer, staging;
};
enum mt_status mt_store_plan_bytes(const struct mt_device *device,
                                   const struct mt_tensor_table *table,
                                   const struct mt_store_options *options, int n_rank,
                                   struct mt_store_bytes *bytes);
/* The sum over kinds, which mt_store_plan_bytes has seen to fit. */
int64_t mt_store_total_bytes(const struct mt_store_bytes *bytes);

const struct mt_tensor_table *mt_store_table(const struct mt_store *store);
struct mt_device *mt_store_device(const struct mt_store *store);
/* The parts of this rank; mt_store_move_experts makes others, so neither number nor pointers are to
 * be kept across it. */
int mt_store_n_part(const struct mt_store *store);
const struct mt_part *mt_store_part(const struct mt_store *store, int index);
bool mt_store_is_cut(const struct mt_store *store);
/* Owner of element `index` of a tensor's flat index. */
int mt_store_owner(const struct mt_store *store, int tensor, int64_t index);

/* Owned values from (seed, tensor name, index): the same on any number of ranks. */
void mt_store_init_values(struct mt_store *store, uint64_t seed);

/* Called before owned values or optimizer state change - an update, a move of experts - for
 * somebody who reads them at his own time. NULL: nobody. */
typedef void (*mt_store_guard_fn)(void *context);
void mt_store_set_guard(struct mt_store *store, mt_store_guard_fn guard, void *context);

/* ---- dense: used by layers ---- */
/* Working copy and gradient of a dense tensor, full shape. */
const float *mt_store_value(const struct mt_store *store, int tensor);
float *mt_store_grad(const struct mt_store *store, int tensor);
const struct mt_weight *mt_store_weight(const struct mt_store *store, int tensor);

/* Owners update in one pass over what they own: values and moments by AdamW (weight_decay where the
 * tensor decays), gradients become zero, and what products use and no other rank has a part of is
 * packed: owned experts, on one rank dense tensors too. mt_store_publish, with nothing written to
 * values in between, is the caller's. */
void mt_store_update(struct mt_store *store, const struct mt_adamw *args);
/* After owners changed their values: packs owned experts, unless mt_store_update just has, starts
 * gathering every bucket. No copies of experts may be left (asserted): they would keep the old
 * values. */
enum mt_status mt_store_publish(struct mt_store *store);
/* Before its use: waits for the bucket's gathering, packs its weights; free when that is done. */
enum mt_status mt_store_use_bucket(struct mt_store *store, int bucket);
enum mt_status mt_store_use_all(struct mt_store *store);

/* Gradients of a step: zeroed first (not again what mt_store_update has left zero since: nothing is
 * written to gradients in between); each bucket's reduction starts when its last backward is done;
 * finish waits for all (starting those not begun): then part->grad is the global sum. */
void mt_store_zero_grad(struct mt_store *store);
enum mt_status mt_store_reduce_bucket_begin(struct mt_store *store, int bucket);
enum mt_status mt_store_reduce_finish(struct mt_store *store);

/* ---- experts: materialised along a placement ----
 * All of these are called by all ranks alike, in the same order, also by those without anything to
 * move. A copy is taken by one of the materialize calls and here after its end; it leaves by
 * reduce_experts (its gradient goes to the owner) or by drop_copies (its gradient is lost). The
 * copies of several layers may be in flight or held at once, as far as slots reach. */

/* What messages take, the same on every rank: from now on copies travel by what is cheapest
 * (comm/sparse_auto.h). Until then by relays. */
void mt_store_set_links(struct mt_store *store, const struct mt_links *links);
/* SparseAllGather of one layer: copies of the placement's instances that are not late and not held
 * yet travel into free slots. What is held already must be in the placement (asserted). No-op parts
 * cost nothing. MT_ERR_RESOURCE, alike on all ranks, when some rank has too few free slots. */
enum mt_status mt_store_materialize_begin(struct mt_store *store, int layer,
                                          const struct mt_placement *placement);
/* Those are here. Without such copies a no-op. */
enum mt_status mt_store_materialize_end(struct mt_store *store, int layer);
/* The same for late instances of `placement`, which otherwise equals the one begun; between
 * materialize_begin and the use of the experts, also before materialize_end. Without late instances
 * that are not held yet both are no-ops. */
enum mt_status mt_store_materialize_late_begin(struct mt_store *store, int layer,
                                               const struct mt_placement *placement);
enum mt_status mt_store_materialize_late_end(struct mt_store *store, int layer);
/* The expert on this rank, owned (and not cut) or copied and arrived; NULL when it is not here
 * (yet). */
const struct mt_expert_copy *mt_store_expert(const struct mt_store *store, int layer, int expert);
/* One that is here (asserted), before its products of a pass: a copy is packed for that pass, and
 * before its first backward its gradient becomes zero, once while it is held. Copies come for
 * forward and again for backward, so either time half of the packs would be made for nobody. */
const struct mt_expert_copy *mt_store_use_expert(struct mt_store *store, int layer, int expert,
                                                 enum mt_pass pass);
/* SparseReduceScatter: gradients of the copies that are not in `keep` (NULL: of all) are added to
 * their owners' (cut: to their pieces'), then their slots are free. Kept copies stay with their
 * values and go on accumulating gradients, until a later call does not keep them (sticky copies
 * under gradient accumulation). All that was begun has ended. */
enum mt_status mt_store_reduce_experts_begin(struct mt_store *store, int layer,
                                             const struct mt_placement *keep);
enum mt_status mt_store_reduce_experts_end(struct mt_store *store, int layer);
/* Frees the slots without a reduction (after forward; evaluation). Copies that reduce_experts kept
 * stay: they hold gradients that nobody else has. All that was begun has ended. */
void mt_store_drop_copies(struct mt_store *store, int layer);

/* ---- experts: owners ---- */
/* Experts that a rank can own over all layers: an equal share, or the most that any owned at
 * creation. */
int mt_store_capacity(const struct mt_store *store);
/* [E] in force; NULL for a layer without experts. */
const int *mt_store_owners(const struct mt_store *store, int layer);
/* Not where experts are cut (asserted): nothing can be moved nearer to anybody. Ownership moves to
 * `owner` [n_layer, E] (rows of dense layers ignored), at most mt_store_capacity experts a rank
 * (asserted). Values and optimizer state travel to the new owners bit for bit, gradients are zero
 * afterwards, parts are others; mt_store_publish afterwards is the caller's. Collective, between
 * two steps: nothing in flight, no copies (asserted); training only. */
enum mt_status mt_store_move_experts(struct mt_store *store, const int *owner);

/* ---- copies that must be equal ---- */
/* Of the dense working copies, which all are here (mt_store_use_all): hash [R], one of what each
 * rank owns; or hash [n_tensor], one of each dense tensor, 0 of others. The same on all ranks
 * unless a bit has changed. */
enum mt_status mt_store_hash_owners(const struct mt_store *store, uint64_t *hash);
enum mt_status mt_store_hash_tensors(const struct mt_store *store, uint64_t *hash);

/* ---- sums over chunks ---- */
/* Chunks of the whole model, numbered alike on any number of ranks. */
int64_t mt_store_n_chunk(const struct mt_store *store);
/* square [n_chunk]: sum of squares of the reduced gradient of owned chunks, 0 for others. Cut: of
 * this rank's piece of every expert. */
enum mt_status mt_store_grad_squares(struct mt_store *store, double *square);

#endif
