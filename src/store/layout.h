/* Where every element of every tensor is: pure integer functions of the tensor table and the number
 * of ranks, the same on all ranks. Used by the rest of this room only.
 *
 *   bucket   | tensor 0 | pad | tensor 1 | pad | ...      each tensor starts at a multiple of 16
 *   chunks   blocks of whole rows of dim[0], at most MT_CHUNK_ELEMENTS unless one row is more
 *   ranges   R contiguous ranges of whole chunks with balanced sizes; padding goes with the chunk
 *            before it. Range i belongs to rank (i + bucket) % R, so that what small buckets leave
 *            over does not always fall to the same rank.
 *
 *   pieces   of an expert, where experts are cut: its F rows of gate, F of up and D of down, one
 *            behind the other, fall into R runs of nearly equal size, some of them empty when there
 *            are fewer rows than ranks. Piece p of expert e belongs to rank (p + e) % R, so that
 *            larger pieces do not all fall to the same rank, and every rank has one of each.
 *
 * Chunks are numbered by the table alone: tensors in table order; an expert's three matrices are
 * one chunk, numbered where its gate stands. */
#ifndef MT_STORE_LAYOUT_H
#define MT_STORE_LAYOUT_H

#include "base/status.h"
#include "store/tensor.h"

enum { MT_ALIGN_ELEMENTS = 16 };

struct mt_layout {
    const struct mt_tensor_table *table;
    int n_rank;
    int64_t n_chunk;
    int64_t *chunk_start;  /* [n_tensor] first chunk; up and down have their gate's */
    int64_t *offset;       /* [n_tensor] elements, within the bucket; experts: within the chunk */
    int64_t *bucket_start; /* [n_bucket+1] elements, within the block of all buckets */
    int64_t *range_start;  /* [n_bucket, R+1] elements, within the bucket */
    int *gate;             /* [n_layer] table row of the layer's gate; -1: no experts */
};

/* Asserts what the table promises. MT_ERR_RESOURCE when sizes exceed 63 bits. */
enum mt_status mt_layout_init(struct mt_layout *layout, const struct mt_tensor_table *table,
                              int n_rank);
void mt_layout_clear(struct mt_layout *layout);

/* Elements of all but the last chunk of a dense tensor. */
int64_t mt_layout_chunk_elements(const struct mt_tensor *tensor);

struct mt_range {
    int64_t start, end; /* [start, end); empty: start = end */
};
/* What a rank owns of a bucket: elements within the bucket. */
struct mt_range mt_layout_owned_range(const struct mt_layout *layout, int bucket, int rank);
/* What a rank owns of a dense tensor: elements of the tensor's flat index. */
struct mt_range mt_layout_owned_part(const struct mt_layout *layout, int tensor, int rank);
/* Owner of element `index` of a dense tensor. */
int mt_layout_dense_owner(const struct mt_layout *layout, int tensor, int64_t index);

/* Elements of one expert of a layer: gate | up | down. */
int64_t mt_layout_expert_elements(const struct mt_layout *layout, int layer);
int mt_layout_n_expert(const struct mt_layout *layout, int layer);
/* Elements from one expert to the next in the store's memory: the same for all layers. */
int64_t mt_layout_expert_stride(const struct mt_layout *layout);

/* Piece p of any expert of a layer: elements within gate | up | down. */
struct mt_range mt_layout_piece(const struct mt_layout *layout, int layer, int piece);
/* The piece that element `index` of gate | up | down is in. */
int mt_layout_piece_at(const struct mt_layout *layout, int layer, int64_t index);
int mt_layout_piece_owner(const struct mt_layout *layout, int expert, int piece);
/* The piece of an expert that a rank owns. */
int mt_layout_piece_of(const struct mt_layout *layout, int expert, int rank);
/* As mt_layout_expert_stride, from one piece to the next. */
int64_t mt_layout_piece_stride(const struct mt_layout *layout);

#endif
