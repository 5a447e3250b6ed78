#include "checkpoint/gather.h"

#include "base/memory.h"
#include "base/size.h"
#include "checkpoint/together.h"

#include <stdlib.h>
#include <string.h>

/* A piece on its way: 4 items of 8 bytes; 128 pieces of a rank at once, 4 MiB from 1024 ranks. */
enum { PIECE_ITEMS = 4, SLICE_PIECES = 128, HEAD_ITEMS = 3 };

struct gathered_piece {
    int tensor, kind;
    struct mt_manifest_piece piece;
};

struct gather {
    struct mt_comm *comm;
    const struct mt_shard *shard;
    int64_t *head;  /* [R, HEAD_ITEMS] pieces, bytes and checksum of each shard */
    int64_t *slice; /* [R, SLICE_PIECES, PIECE_ITEMS] */
    int64_t n_piece, max_piece;
    struct gathered_piece *piece; /* rank 0: [n_piece] */
};

static void clear_gather(struct gather *gather)
{
    mt_memory_free(gather->head);
    mt_memory_free(gather->slice);
    mt_memory_free(gather->piece);
}

static enum mt_status gather_heads(struct gather *gather)
{
    const struct mt_shard *shard = gather->shard;
    const int n_rank = gather->comm->topology.n_rank;
    const int64_t mine[HEAD_ITEMS] = {shard->n_piece, shard->n_byte, (int64_t)shard->checksum};
    enum mt_status status =
        MT_ALLOCATE(gather->head, (int64_t)n_rank * HEAD_ITEMS, "sizes of shards");
    if (status == MT_OK) {
        status = MT_ALLOCATE(gather->slice, (int64_t)n_rank * SLICE_PIECES * PIECE_ITEMS,
                             "pieces of all ranks");
    }
    MT_TRY(mt_together_agree(gather->comm, status));
    MT_TRY(mt_comm_gather_i64(gather->comm, mine, HEAD_ITEMS, gather->head));
    for (int r = 0; r < n_rank; ++r) {
        const int64_t n = gather->head[(int64_t)r * HEAD_ITEMS];
        gather->n_piece += n;
        gather->max_piece = mt_max_i64(gather->max_piece, n);
    }
    if (gather->comm->rank == 0) {
        status = MT_ALLOCATE(gather->piece, gather->n_piece, "pieces of the checkpoint");
    }
    return mt_together_agree(gather->comm, status);
}

/* Pieces [first, first + SLICE_PIECES) of every rank. */
static enum mt_status gather_slice(struct gather *gather, int64_t first, int64_t *n_done)
{
    const struct mt_shard *shard = gather->shard;
    int64_t mine[SLICE_PIECES][PIECE_ITEMS] = {{0}};
    for (int64_t i = first; i < mt_min_i64(first + SLICE_PIECES, shard->n_piece); ++i) {
        const struct mt_shard_piece *piece = &shard->piece[i];
        const int64_t item[PIECE_ITEMS] = {(int64_t)piece->tensor * MT_N_KIND + piece->kind,
                                           piece->first_row, piece->n_row,
                                           (int64_t)piece->checksum};
        memcpy(mine[i - first], item, sizeof(item));
    }
    MT_TRY(mt_comm_gather_i64(gather->comm, mine[0], (int64_t)SLICE_PIECES * PIECE_ITEMS,
                              gather->slice));
    for (int r = 0; r < gather->comm->topology.n_rank && gather->comm->rank == 0; ++r) {
        const int64_t n = gather->head[(int64_t)r * HEAD_ITEMS] - first;
        for (int64_t i = 0; i < mt_min_i64(SLICE_PIECES, n); ++i) {
            const int64_t *item = gather->slice + ((int64_t)r * SLICE_PIECES + i) * PIECE_ITEMS;
            gather->piece[(*n_done)++] =
                (struct gathered_piece){.tensor = (int)(item[0] / MT_N_KIND),
                                        .kind = (int)(item[0] % MT_N_KIND),
                                        .piece = {.shard = r,
                                                  .first_row = item[1],
                                                  .n_row = item[2],
                                                  .checksum = (uint64_t)item[3]}};
        }
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
static enum mt_status add_tensor(const struct gather *gather, int64_t first, int64_t end,
                                 struct mt_manifest *manifest, struct mt_manifest_tensor *entry)
{
    const struct gathered_piece *piece = gather->piece;
    const struct mt_tensor *tensor = &gather->shard->table->tensor[piece[first].tensor];
    int64_t next_row = 0;
    mt_checkpoint_dataset_name(entry->name, tensor->name,
                               (enum mt_checkpoint_kind)piece[first].kind);
    entry->n_dim = tensor->n_dim;
    memcpy(entry->dim, tensor->dim, sizeof(entry->dim));
    entry->is_cut = mt_shard_is_cut(gather->shard, piece[first].tensor);
    entry->first_piece = first;
    entry->n_piece = end - first;
    for (int64_t i = first; i < end; ++i) {
        manifest->piece[i] = piece[i].piece;
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

/* Rank 0, pieces sorted. */
static enum mt_status fill_manifest(const struct gather *gather, const char *config_text,
                                    struct mt_manifest *manifest)
{
    const struct gathered_piece *piece = gather->piece;
    int64_t n_tensor = 0;
    for (int64_t i = 0; i < gather->n_piece; ++i) {
        n_tensor += i == 0 || !is_same_tensor(&piece[i - 1], &piece[i]);
    }
    const int64_t n_table = gather->shard->table->n_tensor;
    if (n_tensor != n_table && n_tensor != n_table * MT_N_KIND) {
        return MT_FAIL(MT_ERR_INTERNAL,
                       "the ranks' parts belong to %lld tensors; all %lld, with optimizer state or "
                       "all without, were expected; this is a bug",
                       (long long)n_tensor, (long long)n_table);
    }
    MT_TRY(mt_manifest_init(manifest, gather->comm->topology.n_rank, n_tensor, gather->n_piece,
                            config_text));
    int64_t t = 0;
    for (int64_t first = 0, end = 0; first < gather->n_piece; first = end, ++t) {
        while (end < gather->n_piece && is_same_tensor(&piece[first], &piece[end])) {
            ++end;
        }
        MT_TRY(add_tensor(gather, first, end, manifest, &manifest->tensor[t]));
        if (manifest->tensor[t].is_cut) {
            manifest->format_version = MT_CHECKPOINT_FORMAT_VERSION;
        }
    }
    for (int r = 0; r < gather->comm->topology.n_rank; ++r) {
        manifest->file[1 + r].n_byte = gather->head[(int64_t)r * HEAD_ITEMS + 1];
        manifest->file[1 + r].checksum = (uint64_t)gather->head[(int64_t)r * HEAD_ITEMS + 2];
    }
    return mt_manifest_number_rows(manifest);
}

static enum mt_status gather_all(struct gather *gather, const char *config_text,
                                 struct mt_manifest *manifest)
{
    int64_t n_done = 0;
    enum mt_status status = MT_OK;
    MT_TRY(gather_heads(gather));
    for (int64_t first = 0; first < gather->max_piece; first += SLICE_PIECES) {
        MT_TRY(gather_slice(gather, first, &n_done));
    }
    if (gather->comm->rank == 0) {
        MT_ASSERT(n_done == gather->n_piece);
        qsort(gather->piece, (size_t)n_done, sizeof(*gather->piece), compare_pieces);
        status = fill_manifest(gather, config_text, manifest);
    }
    return mt_together_agree(gather->comm, status);
}

enum mt_status mt_gather_manifest(struct mt_comm *comm, const struct mt_shard *shard,
                                  const char *config_text, struct mt_manifest *manifest)
{
    struct gather gather = {.comm = comm, .shard = shard};
    memset(manifest, 0, sizeof(*manifest));
    const enum mt_status status = gather_all(&gather, config_text, manifest);
    clear_gather(&gather);
    if (status != MT_OK) {
        mt_manifest_clear(manifest);
    }
    return status;
}
