/* Cut experts (LAER's fully sharded expert parallelism, ASPLOS'26): every rank has one piece of
 * each expert, and copies are put together by an all-to-all of pieces.
 *
 *     R = 3; expert 0, wanted on ranks 0 and 2        gather          reduce
 *     rank 0 owns piece 0     slot [0|1|2]            0: copies 0     0: adds its own 0, then 2's
 *     rank 1 owns piece 1                             1 -> 0, 2       1: adds 0's, 2's
 *     rank 2 owns piece 2     slot [0|1|2]            2: copies 2 ..  2: adds its own 2, then 0's
 *
 * Everybody sends equally much, so nothing is relayed. A rank's plan needs only the pieces that it
 * owns, with all their holders, and all pieces of the experts that it holds: at most E + n R of the
 * E R chunks there are, with n copies here. */
#include "base/size.h"
#include "store/internal.h"

/* Copies of one layer's experts that a rank can hold. */
static int64_t most_held(const struct mt_store *store)
{
    return mt_min_i64(store->n_slot, store->most_experts);
}

int64_t mt_pieces_max_chunk(const struct mt_store *store)
{
    return store->most_experts + most_held(store) * store->layout.n_rank;
}

int64_t mt_pieces_max_holder(const struct mt_store *store)
{
    return 2 * most_held(store) * store->layout.n_rank; /* of own pieces; itself of the others */
}

int64_t mt_pieces_max_op(const struct mt_store *store)
{
    /* for each copy anywhere a receive and an add of the own piece; its own copies' pieces sent */
    return 3 * most_held(store) * store->layout.n_rank;
}

bool mt_pieces_stage_bytes(const struct mt_layout *layout, int64_t n_held, int64_t *bytes)
{
    const int64_t n_peer = mt_min_i64(layout->n_rank - 1, MT_PACED_PEERS);
    const int64_t piece_bytes = mt_layout_piece_stride(layout) * (int64_t)sizeof(float);
    return mt_size_multiply(n_peer * n_held, piece_bytes, bytes);
}

struct mt_range mt_pieces_mine(const struct mt_store *store, int layer, int expert)
{
    const int piece = mt_layout_piece_of(&store->layout, expert, store->comm->rank);
    return mt_layout_piece(&store->layout, layer, piece);
}

int64_t mt_pieces_place(const struct mt_store *store, int layer, int expert)
{
    return (store->layer[layer].first_piece + (int64_t)expert) * store->home_stride;
}

/* The chunks so far. */
struct list {
    int64_t n_chunk, n_holder;
};

static void add_piece(struct mt_store *store, int layer, int expert, int piece, struct list *list)
{
    const struct mt_layer *l = &store->layer[layer];
    const int64_t float_bytes = (int64_t)sizeof(float);
    const struct mt_range range = mt_layout_piece(&store->layout, layer, piece);
    const int64_t chunk = list->n_chunk++;
    MT_ASSERT(chunk < mt_pieces_max_chunk(store));
    store->chunk_owner[chunk] = mt_layout_piece_owner(&store->layout, expert, piece);
    store->chunk_bytes[chunk] = (range.end - range.start) * float_bytes;
    store->home_offset[chunk] = mt_pieces_place(store, layer, expert) * float_bytes;
    store->copy_offset[chunk] = 0;
    if (l->here[expert] != NULL) {
        const int64_t slot = l->here[expert] - store->slot;
        store->copy_offset[chunk] = (slot * store->stride + range.start) * float_bytes;
    }
    store->moving.start[chunk] = list->n_holder;
}

static void add_holder(struct mt_store *store, int rank, struct list *list)
{
    MT_ASSERT(list->n_holder < mt_pieces_max_holder(store));
    store->moving.rank[list->n_holder++] = rank;
}

/* The own piece with all copies in `state`; of an expert that is here in that state, also the
 * pieces of others. */
static void add_expert(struct mt_store *store, int layer, int expert, enum mt_copy_state state,
                       struct list *list)
{
    const struct mt_copies *copies = &store->layer[layer].copies;
    const int rank = store->comm->rank;
    const int mine = mt_layout_piece_of(&store->layout, expert, rank);
    int64_t n_copy = 0;
    bool is_here = false;
    for (int64_t i = copies->start[expert]; i < copies->start[expert + 1]; ++i) {
        n_copy += copies->state[i] == state ? 1 : 0;
        is_here = is_here || (copies->state[i] == state && copies->rank[i] == rank);
    }
    for (int piece = 0; n_copy > 0 && piece < store->layout.n_rank; ++piece) {
        if (piece != mine && !is_here) {
            continue;
        }
        add_piece(store, layer, expert, piece, list);
        if (piece != mine) {
            add_holder(store, rank, list);
            continue;
        }
        for (int64_t i = copies->start[expert]; i < copies->start[expert + 1]; ++i) {
            if (copies->state[i] == state) {
                add_holder(store, copies->rank[i], list);
            }
        }
    }
}

static struct mt_sparse describe(struct mt_store *store, int layer, enum mt_copy_state state)
{
    struct list list = {0, 0};
    for (int e = 0; e < store->layer[layer].n_expert; ++e) {
        add_expert(store, layer, e, state, &list);
    }
    store->moving.start[list.n_chunk] = list.n_holder;
    return (struct mt_sparse){.n_chunk = list.n_chunk,
                              .chunk_bytes = store->chunk_bytes,
                              .owner = store->chunk_owner,
                              .holder_start = store->moving.start,
                              .holder = store->moving.rank};
}

void mt_pieces_plan_gather(struct mt_store *store, int layer, enum mt_copy_state state,
                           struct mt_plan *plan)
{
    const struct mt_sparse sparse = describe(store, layer, state);
    mt_plan_sparse_allgather(plan, store->comm->rank, &sparse, store->home_offset,
                             store->copy_offset);
}

void mt_pieces_plan_reduce(struct mt_store *store, int layer, struct mt_lane *lane)
{
    const struct mt_sparse sparse = describe(store, layer, MT_COPY_REDUCING);
    const int rank = store->comm->rank;
    const int n_rank = store->layout.n_rank;
    MT_ASSERT(mt_plan_sparse_paced_stage_bytes(rank, n_rank, &sparse) <= lane->stage_bytes);
    mt_plan_sparse_reduce_scatter_paced(&lane->plan, rank, n_rank, &sparse, store->home_offset,
                                        store->copy_offset, MT_ELEMENT_F32);
}
