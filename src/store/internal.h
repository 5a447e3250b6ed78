/* The store's own state, shared by the files of this room: dense.c, experts.c, copies.c,
 * move.c, parts.c, update.c, bytes.c. */
#ifndef MT_STORE_INTERNAL_H
#define MT_STORE_INTERNAL_H

#include "store/lane.h"
#include "store/layout.h"
#include "store/store.h"

enum { MT_ROOM_ELEMENTS = 1 << 20 };

/* Values of a bucket on this rank, then its gradients. */
enum mt_bucket_values {
    MT_VALUES_UNDEFINED, /* never published */
    MT_VALUES_STALE,     /* published; its gathering has not begun */
    MT_VALUES_GATHERING,
    MT_VALUES_READY /* here, and its weights are packed */
};
enum mt_bucket_grads { MT_GRADS_LOCAL, MT_GRADS_REDUCING, MT_GRADS_REDUCED };

struct mt_bucket {
    struct mt_plan gather, reduce; /* fixed: owners and holders never change */
    enum mt_bucket_values values;
    enum mt_bucket_grads grads;
    struct mt_range owned; /* elements within the bucket */
    int64_t owned_start;   /* of `owned` within the optimizer state's block */
};

/* What a copy of an expert is about, on whatever rank. */
enum mt_copy_state {
    MT_COPY_GATHERING, /* travels since materialize_begin */
    MT_COPY_LATE,      /* travels since materialize_late_begin */
    MT_COPY_PRESENT,
    MT_COPY_KEPT,     /* present, with gradients of earlier micro-batches */
    MT_COPY_REDUCING, /* its gradient travels */
    MT_N_COPY_STATE
};

/* The copies of one layer's experts on all ranks, the same on every rank: sorted by expert, then
 * rank. */
struct mt_copies {
    int64_t *start;       /* [E+1] */
    int *rank;            /* [n_copy] */
    unsigned char *state; /* [n_copy] enum mt_copy_state */
    int64_t n_in[MT_N_COPY_STATE];
};

/* Experts of one layer. n_expert = 0: none, nothing else is set. */
struct mt_layer {
    int n_expert;
    int64_t width, hidden;        /* F, D */
    int64_t n_element;            /* of one expert: 3 F D */
    int *owner;                   /* [E] */
    struct mt_expert_copy **here; /* [E] on this rank: owned, in a slot, or NULL */
    bool *is_usable;              /* [E] owned, or a copy that is here and not being reduced */
    struct mt_copies copies;
    int first_piece; /* cut: place of this rank's piece of expert 0, then of 1 .. */
};

struct mt_store {
    struct mt_device *device;
    struct mt_comm *comm;
    const struct mt_tensor_table *table;
    struct mt_layout layout;
    bool training, is_cut;
    mt_store_guard_fn guard; /* NULL: nobody */
    void *guard_context;

    /* dense: blocks of all buckets; optimizer state of the owned ranges only */
    float *dense_value, *dense_grad, *dense_avg, *dense_avg_sq;
    void *dense_pack;
    struct mt_weight *weight; /* [n_tensor], set where is_product */
    struct mt_bucket *bucket; /* [n_bucket] */
    int next_gather;          /* buckets below it have begun */
    int n_gather_lane, n_reduce_lane;
    struct mt_lane gather_lane[MT_GATHER_LANES], reduce_lane[MT_REDUCE_LANES];

    /* experts: room for the owned ones, or pieces, of all layers, then slots */
    struct mt_layer *layer; /* [n_layer] */
    int n_capacity, n_slot;
    int64_t most_experts; /* of one layer */
    int64_t stride;       /* elements from one expert to the next */
    int64_t home_stride;  /* the same, or from one piece to the next */
    float *expert_value, *expert_grad, *expert_avg, *expert_avg_sq; /* [n_capacity, home_stride] */
    void *expert_pack;                                              /* NULL: cut */
    float *slot_value, *slot_grad;                                  /* [n_slot, stride] */
    void *slot_pack;
    struct mt_expert_copy *owned, *slot; /* [n_capacity], [n_slot] */
    bool *is_taken;                      /* [n_capacity] scratch of moves */
    int n_free;
    int *free_slot;          /* [n_slot], the first n_free are free */
    int *slots_used;         /* [R] of all ranks, over all layers: the same on every rank */
    int *rank_count;         /* [R] scratch: slots wanted, experts owned */
    int64_t max_copy;        /* of a layer on all ranks, as far as slots reach */
    struct mt_copies spare;  /* where a layer's next copies are listed */
    struct mt_copies moving; /* start and rank only: the holders of the transfer being planned */
    int64_t *chunk_bytes, *home_offset, *copy_offset; /* [largest E] for making plans */
    int *chunk_owner;                                 /* cut only; all four [max_chunks] */
    struct mt_sparse_auto *ways;                      /* NULL: cut */
    int n_expert_gather_lane, n_expert_late_lane, n_expert_reduce_lane;
    struct mt_lane expert_gather_lane[MT_EXPERT_GATHER_LANES];
    struct mt_lane expert_late_lane[MT_EXPERT_LATE_LANES];
    struct mt_lane expert_reduce_lane[MT_EXPERT_REDUCE_LANES];
    struct mt_lane move_lane;

    float *room;    /* [MT_ROOM_ELEMENTS] of values on their way to or from a GPU */
    double *square; /* [n_chunk] dev: of mt_store_grad_squares */

    int n_part;
    struct mt_part *part; /* [n_part] by tensor, then first; room for n_capacity experts */

    struct mt_adamw_item *item; /* of mt_store_update: as part; NULL: inference */
    bool is_packed;             /* since mt_store_update, until mt_store_publish: what it packs */
    bool is_dense_packed;       /* the packs of dense tensors have their values */
    bool is_grad_zero;          /* since mt_store_update, until mt_store_zero_grad: owned ones */
};

/* bytes.c: what one rank allocates. */
struct mt_sizes {
    struct mt_store_bytes bytes;
    int64_t n_capacity;         /* experts, or pieces, that a rank can own, over all layers */
    int64_t expert_stage_bytes; /* of one reduction lane */
};
/* sizes [R] of all ranks, caller's storage. MT_ERR_RESOURCE when a sum exceeds 63 bits. */
enum mt_status mt_sizes_plan(const struct mt_device *device, const struct mt_layout *layout,
                             const struct mt_store_options *options, struct mt_sizes *sizes);
/* Lanes that are made: no more than there are users. */
int mt_reduce_lane_count(const struct mt_layout *layout);
int mt_expert_lane_count(const struct mt_layout *layout, int most);
/* Stage of dense reduction lane `lane` on `rank`. */
int64_t mt_reduce_lane_bytes(const struct mt_layout *layout, int rank, int lane);
/* Elements from one expert, or piece, to the next among the owned. */
int64_t mt_home_stride(const struct mt_layout *layout, bool is_cut);
/* Packs of one expert, for the layer where they are largest. */
int64_t mt_expert_pack_bytes(const struct mt_device *device, const struct mt_layout *layout,
                             bool training);

/* dense.c, experts.c, parts.c: the stages of creation and their undoing (of whatever was made). */
enum mt_status mt_dense_create(struct mt_store *store, const struct mt_sizes *sizes);
void mt_dense_destroy(struct mt_store *store);
enum mt_status mt_experts_create(struct mt_store *store, const struct mt_store_options *options,
                                 const struct mt_sizes *sizes);
void mt_experts_destroy(struct mt_store *store);
/* Before owned values or optimizer state change. */
void mt_store_call_guard(const struct mt_store *store);
enum mt_status mt_parts_create(struct mt_store *store);

/* parts.c: after owners changed */
void mt_parts_list(struct mt_store *store);

/* experts.c */
struct mt_layer *mt_experts_layer(const struct mt_store *store, int layer);
/* Before a copy's gradient is sent: zero, if no backward has used it. */
void mt_experts_settle_grad(struct mt_store *store, const struct mt_layer *layer,
                            const struct mt_expert_copy *copy);
enum mt_status mt_experts_pack_owned(struct mt_store *store);
void mt_experts_zero_grad(struct mt_store *store);
/* The expert's home is owned[index] from now on. */
void mt_experts_settle(struct mt_store *store, struct mt_layer *layer, int expert, int index);
/* Lays the packs of one expert of this layer's shape into slot memory. */
void mt_experts_use_slot(struct mt_store *store, const struct mt_layer *layer, int index);

/* copies.c */
bool mt_experts_have_copies(const struct mt_store *store);

/* pieces.c: transfers of cut experts. */
/* Chunks that a rank's plan has at most, and their holders. */
int64_t mt_pieces_max_chunk(const struct mt_store *store);
int64_t mt_pieces_max_holder(const struct mt_store *store);
int64_t mt_pieces_max_op(const struct mt_store *store);
/* Bytes of a reduction lane; *bytes is set unless they exceed 63 bits. */
bool mt_pieces_stage_bytes(const struct mt_layout *layout, int64_t n_held, int64_t *bytes);
/* Plans for the layer's copies in `state`, in place of the sparse collectives of whole experts. */
void mt_pieces_plan_gather(struct mt_store *store, int layer, enum mt_copy_state state,
                           struct mt_plan *plan);
void mt_pieces_plan_reduce(struct mt_store *store, int layer, struct mt_lane *lane);
/* This rank's piece of an expert: its elements, and where they begin among the owned. */
struct mt_range mt_pieces_mine(const struct mt_store *store, int layer, int expert);
int64_t mt_pieces_place(const struct mt_store *store, int layer, int expert);

#endif
