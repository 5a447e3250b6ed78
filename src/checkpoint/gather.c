#include "checkpoint/gather.h"

#include "base/memory.h"
#include "base/size.h"
#include "checkpoint/together.h"

#include <stdlib.h>
#include <string.h>

/* A piece on its way: 6 items of 8 bytes; 128 pieces of a rank at once, 6 MiB from 1024 ranks. A
 * head is the number of a rank's pieces, and the bytes of its shards. */
enum { MAX_SHARDS = 1 + MT_EXPERT_PARTS, HEAD_ITEMS = 1 + MAX_SHARDS };
enum { PIECE_ITEMS = 6, SLICE_PIECES = 128 };

struct gathered_piece {
    int tensor, kind;
    int64_t arrival; /* among all pieces, rank after rank */
    struct mt_manifest_piece piece;
};

/* Of mt_gather_layout alone. */
struct layout {
    struct mt_gather *gather;
    const struct mt_shard *shard; /* [n_shard] */
    int64_t *slice;               /* [R, SLICE_PIECES, PIECE_ITEMS] */
    int64_t *n_byte;              /* [R, MAX_SHARDS] of files */
    int64_t n_piece, max_piece;   /* of all ranks, of one */
    struct gathered_piece *piece; /* rank 0: [n_piece] */
};

void mt_gather_clear(struct mt_gather *gather)
{
    mt_exec_destroy(gather->exec);
    mt_plan_clear(&gather->plan);
    mt_memory_free(gather->n_piece);
    mt_memory_free(gather->place);
    mt_memory_free(gather->mine);
    mt_memory_free(gather->all);
    memset(gather, 0, sizeof(*gather));
}

static int64_t count_pieces(const struct mt_shard *shard, int n_shard)
{
    int64_t n_piece = 0;
    for (int s = 0; s < n_shard; ++s) {
        n_piece += shard[s].n_piece;
    }
    return n_piece;
}

static enum mt_status allocate(struct layout *layout)
{
    struct mt_gather *gather = layout->gather;
    const int n_rank = gather->comm->topology.n_rank;
    const char *what = "pieces of all ranks";
    MT_TRY(MT_ALLOCATE(gather->n_piece, n_rank, what));
    MT_TRY(MT_ALLOCATE(gather->mine, gather->n_shard + count_pieces(layout->shard, gather->n_shard),
                       what));
    MT_TRY(MT_ALLOCATE(layout->n_byte, (int64_t)n_rank * MAX_SHARDS, what));
    MT_TRY(MT_ALLOCATE(layout->slice, (int64_t)n_rank * SLICE_PIECES * PIECE_ITEMS, what));
    MT_TRY(mt_plan_init(&gather->plan, n_rank));
    return mt_exec_create(gather->comm, n_rank, &gather->exec);
}

/* Rank 0, when it knows how much there is. */
static enum mt_status allocate_all(struct layout *layout)
{
    struct mt_gather *gather = layout->gather;
    const int n_rank = gather->comm->topology.n_rank;
    const char *what = "pieces of the checkpoint";
    MT_TRY(MT_ALLOCATE(layout->piece, layout->n_piece, what));
    MT_TRY(MT_ALLOCATE(gather->place, layout->n_piece, what));
    return MT_ALLOCATE(gather->all, (int64_t)n_rank * gather->n_shard + layout->n_piece, what);
}

static enum mt_status gather_heads(struct layout *layout)
{
    struct mt_gather *gather = layout->gather;
    struct mt_comm *comm = gather->comm;
    int64_t mine[HEAD_ITEMS] = {count_pieces(layout->shard, gather->n_shard)};
    for (int s = 0; s < gather->n_shard; ++s) {
        mine[1 + s] = layout->shard[s].n_byte;
    }
    MT_TRY(mt_together_agree(comm, allocate(layout)));
    MT_ASSERT(layout->slice != NULL); /* agreed: allocated everywhere */
    MT_TRY(mt_comm_gather_i64(comm, mine, HEAD_ITEMS, layout->slice));
    for (int r = 0; r < comm->topology.n_rank; ++r) {
        const int64_t *head = layout->slice + (int64_t)r * HEAD_ITEMS;
        gather->n_piece[r] = head[0];
        memcpy(layout->n_byte + (int64_t)r * MAX_SHARDS, head + 1, MAX_SHARDS * sizeof(*head));
        layout->n_piece += head[0];
        layout->max_piece = mt_max_i64(layout->max_piece, head[0]);
    }
    return mt_together_agree(comm, comm->rank == 0 ? allocate_all(layout) : MT_OK);
}

/* This rank's pieces [first, first + SLICE_PIECES), counted over its shards. */
static void list_slice(const struct layout *layout, int64_t first,
                       int64_t mine[SLICE_PIECES][PIECE_ITEMS])
{
    int64_t before = 0; /* pieces of the shards before */
    for (int s = 0; s < layout->gather->n_shard; ++s) {
        const struct mt_shard *shard = &layout->shard[s];
        const int64_t end = mt_min_i64(first + SLICE_PIECES - before, shard->n_piece);
        for (int64_t i = mt_max_i64(first - before, 0); i < end; ++i) {
            const struct mt_shard_piece *piece = &shard->piece[i];
            const int64_t item[PIECE_ITEMS] = {piece->tensor, piece->kind,   piece->first_row,
                                               piece->n_row,  piece->offset, s};
            memcpy(mine[before + i - first], item, sizeof(item));
        }
        before += shard->n_piece;
    }
}

/* Pieces [first, first + SLICE_PIECES) of every rank. */
static enum mt_status gather_slice(struct layout *layout, int64_t first)
{
    const struct mt_gather *gather = layout->gather;
    const int n_rank = gather->comm->topology.n_rank;
    int64_t mine[SLICE_PIECES][PIECE_ITEMS] = {{0}};
    list_slice(layout, first, mine);
    MT_TRY(mt_comm_gather_i64(gather->comm, mine[0], (int64_t)SLICE_PIECES * PIECE_ITEMS,
                              layout->slice));
    int64_t arrival = first; /* of the slice's first piece of rank r */
    for (int r = 0; r < n_rank && gather->comm->rank == 0; ++r) {
        const int64_t n = mt_min_i64(SLICE_PIECES, gather->n_piece[r] - first);
        for (int64_t i = 0; i < n; ++i) {
            const int64_t *item = layout->slice + ((int64_t)r * SLICE_PIECES + i) * PIECE_ITEMS;
            layout->piece[arrival + i] =
                (struct gathered_piece){.tensor = (int)item[0],
                                        .kind = (int)item[1],
                                        .arrival = arrival + i,
                                        .piece = {.shard = (int)item[5] * n_rank + r,
                                                  .first_row = item[2],
                                                  .n_row = item[3],
                                                  .offset = item[4]}};
        }
        arrival += gather->n_piece[r];
    }
    return MT_OK;
}

/* All of /model in table order, then /optimizer. */
static int compare_pieces(const void *a, const void *b)
{
    const struct gathered_piece *x = a;
    const struct gathered_piece *y = b;
    const int64_t key_x[] = {x->kind != MT_KIND_VALUE, x->tensor, x->kind, x->piece.first_row};
    const int64_t key_y[] = {y->kind != MT_KIND_VALUE, y->tensor, y->kind, y->piece.first_row};
    for (int i = 0; i < 4; ++i) {
        if (key_x[i] != key_y[i]) {
            return key_x[i] < key_y[i] ? -1 : 1;
        }
    }
    return 0;
}

static bool is_same_tensor(const struct gathered_piece *x, const struct gathered_piece *y)
{
    return x->tensor == y->tensor && x->kind == y->kind;
}

/* The next tensor from sorted pieces [first, end). */
static enum mt_status add_tensor(const struct layout *layout, int64_t first, int64_t end,
                                 struct mt_manifest *manifest, struct mt_manifest_tensor *entry)
{
    const struct gathered_piece *piece = layout->piece;
    const struct mt_tensor *tensor = &layout->shard->table->tensor[piece[first].tensor];
    int64_t next_row = 0;
    mt_checkpoint_dataset_name(entry->name, tensor->name,
                               (enum mt_checkpoint_kind)piece[first].kind);
    entry->n_dim = tensor->n_dim;
    memcpy(entry->dim, tensor->dim, sizeof(entry->dim));
    entry->is_cut = mt_shard_is_cut(layout->shard, piece[first].tensor);
    entry->first_part = layout->gather->n_shard > 1 && tensor->kind == MT_TENSOR_EXPERT
                            ? mt_shard_first_part(tensor->layer)
                            : -1;
    entry->first_piece = first;
    entry->n_piece = end - first;
    for (int64_t i = first; i < end; ++i) {
        manifest->piece[i] = piece[i].piece;
        layout->gather->place[piece[i].arrival] = i;
        if (piece[i].piece.first_row != next_row) {
            break;
        }
        next_row += piece[i].piece.n_row;
    }
    if (next_row != mt_manifest_n_row(entry)) {
        return MT_FAIL(MT_ERR_INTERNAL,
                       "the ranks' parts of %s cover it up to row %lld only; %lld rows, each owned "
                       "once, were expected; this is a bug",
                       tensor->name, (long long)next_row, (long long)mt_manifest_n_row(entry));
    }
    return MT_OK;
}

/* What is the same whenever this layout is saved. */
static void tell_parts(const struct mt_tensor_table *table, struct mt_manifest *manifest)
{
    struct mt_expert_parts *parts = &manifest->parts;
    parts->is_told = true;
    manifest->format_version = MT_CHECKPOINT_SPARSE_VERSION;
    for (int t = 0; t < table->n_tensor; ++t) {
        const struct mt_tensor *tensor = &table->tensor[t];
        const bool is_new = t == 0 || table->tensor[t - 1].layer != tensor->layer ||
                            table->tensor[t - 1].kind != MT_TENSOR_EXPERT;
        for (int64_t e = 0; tensor->kind == MT_TENSOR_EXPERT && is_new && e < tensor->dim[0]; ++e) {
            parts->n_expert[(mt_shard_first_part(tensor->layer) + e) % MT_EXPERT_PARTS]++;
        }
    }
}

/* Rank 0, pieces sorted. */
static enum mt_status fill_manifest(const struct layout *layout, const char *config_text,
                                    struct mt_manifest *manifest)
{
    const struct gathered_piece *piece = layout->piece;
    const int n_rank = layout->gather->comm->topology.n_rank;
    int64_t n_tensor = 0;
    for (int64_t i = 0; i < layout->n_piece; ++i) {
        n_tensor += i == 0 || !is_same_tensor(&piece[i - 1], &piece[i]);
    }
    const int64_t n_table = layout->shard->table->n_tensor;
    if (n_tensor != n_table && n_tensor != n_table * MT_N_KIND) {
        return MT_FAIL(MT_ERR_INTERNAL,
                       "the ranks' parts belong to %lld tensors; all %lld, with optimizer state or "
                       "all without, were expected; this is a bug",
                       (long long)n_tensor, (long long)n_table);
    }
    MT_TRY(mt_manifest_init(manifest, n_rank, layout->gather->n_shard, n_tensor, layout->n_piece,
                            config_text));
    int64_t t = 0;
    for (int64_t first = 0, end = 0; first < layout->n_piece; first = end, ++t) {
        while (end < layout->n_piece && is_same_tensor(&piece[first], &piece[end])) {
            ++end;
        }
        MT_TRY(add_tensor(layout, first, end, manifest, &manifest->tensor[t]));
        if (manifest->tensor[t].is_cut) {
            manifest->format_version = MT_CHECKPOINT_CUT_VERSION;
        }
    }
    if (layout->gather->n_shard > 1) {
        tell_parts(layout->shard->table, manifest);
    }
    for (int i = 0; i < mt_manifest_n_shard(manifest); ++i) {
        manifest->file[1 + i].n_byte =
            layout->n_byte[(int64_t)(i % n_rank) * MAX_SHARDS + i / n_rank];
    }
    return mt_manifest_number_rows(manifest);
}

static enum mt_status gather_all(struct layout *layout, const char *config_text,
                                 struct mt_manifest *manifest)
{
    const struct mt_gather *gather = layout->gather;
    enum mt_status status = MT_OK;
    MT_TRY(gather_heads(layout));
    for (int64_t first = 0; first < layout->max_piece; first += SLICE_PIECES) {
        MT_TRY(gather_slice(layout, first));
    }
    if (gather->comm->rank == 0) {
        MT_ASSERT(layout->piece != NULL);
        qsort(layout->piece, (size_t)layout->n_piece, sizeof(*layout->piece), compare_pieces);
        status = fill_manifest(layout, config_text, manifest);
    }
    return mt_together_agree(gather->comm, status);
}

enum mt_status mt_gather_layout(struct mt_gather *gather, struct mt_comm *comm,
                                const struct mt_shard *shard, int n_shard, const char *config_text,
                                struct mt_manifest *manifest)
{
    struct layout layout = {.gather = gather, .shard = shard};
    memset(gather, 0, sizeof(*gather));
    memset(manifest, 0, sizeof(*manifest));
    gather->comm = comm;
    gather->n_shard = n_shard;
    const enum mt_status status = gather_all(&layout, config_text, manifest);
    mt_memory_free(layout.slice);
    mt_memory_free(layout.n_byte);
    mt_memory_free(layout.piece);
    if (status != MT_OK) {
        mt_manifest_clear(manifest);
        mt_gather_clear(gather);
    }
    return status;
}

/* ---- checksums ---- */

static int64_t checksum_bytes(const struct mt_gather *gather, int rank)
{
    return (gather->n_shard + gather->n_piece[rank]) * (int64_t)sizeof(int64_t);
}

/* Straight to rank 0: the others have no more to do with it once it is sent. */
static void plan_checksums(struct mt_gather *gather)
{
    const int rank = gather->comm->rank;
    mt_plan_reset(&gather->plan, "checkpoint", MT_ELEMENT_BYTE);
    if (rank != 0) {
        mt_plan_send(&gather->plan, 0, 0, MT_BUFFER_SEND, 0, checksum_bytes(gather, rank));
        return;
    }
    int64_t offset = checksum_bytes(gather, 0);
    for (int r = 1; r < gather->comm->topology.n_rank; ++r) {
        const int64_t n_byte = checksum_bytes(gather, r);
        mt_plan_recv(&gather->plan, 0, r, MT_BUFFER_RECV, offset, n_byte);
        offset += n_byte;
    }
}

enum mt_status mt_gather_begin(struct mt_gather *gather, const struct mt_shard *shard)
{
    int64_t *mine = gather->comm->rank == 0 ? gather->all : gather->mine;
    int64_t *next = mine + gather->n_shard;
    for (int s = 0; s < gather->n_shard; ++s) {
        mine[s] = (int64_t)shard[s].checksum;
        for (int64_t i = 0; i < shard[s].n_piece; ++i) {
            *next++ = (int64_t)shard[s].piece[i].checksum;
        }
    }
    void *const buffer[MT_N_BUFFER] = {gather->mine, gather->all, NULL};
    plan_checksums(gather);
    return mt_exec_begin(gather->exec, &gather->plan, buffer);
}

bool mt_gather_is_active(const struct mt_gather *gather)
{
    return gather->exec != NULL && mt_exec_is_active(gather->exec);
}

enum mt_status mt_gather_poll(struct mt_gather *gather, bool *done)
{
    return mt_exec_poll(gather->exec, done);
}

enum mt_status mt_gather_end(struct mt_gather *gather, struct mt_manifest *manifest)
{
    MT_TRY(mt_exec_end(gather->exec));
    const int64_t *next = gather->all;
    int64_t arrival = 0;
    const int n_rank = gather->comm->topology.n_rank;
    for (int r = 0; r < n_rank && gather->comm->rank == 0; ++r) {
        for (int s = 0; s < gather->n_shard; ++s) {
            manifest->file[1 + s * n_rank + r].checksum = (uint64_t)*next++;
        }
        for (int64_t i = 0; i < gather->n_piece[r]; ++i) {
            manifest->piece[gather->place[arrival++]].checksum = (uint64_t)*next++;
        }
    }
    return MT_OK;
}
