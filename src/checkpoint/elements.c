#include "checkpoint/elements.h"

#include "base/size.h"

#include <string.h>

void mt_elements_init(struct mt_element_reader *reader, const char *folder,
                      const struct mt_manifest *manifest)
{
    *reader = (struct mt_element_reader){
        .folder = folder, .manifest = manifest, .shard = {.shard = -1, .descriptor = -1}};
}

void mt_elements_clear(struct mt_element_reader *reader)
{
    if (reader->manifest != NULL && reader->shard.shard >= 0) {
        mt_shard_close(&reader->shard);
    }
    memset(reader, 0, sizeof(*reader));
}

static enum mt_status open_shard(struct mt_element_reader *reader, int shard)
{
    if (reader->shard.shard == shard) {
        return MT_OK;
    }
    if (reader->shard.shard >= 0) {
        mt_shard_close(&reader->shard);
    }
    return mt_shard_open(&reader->shard, reader->folder, reader->manifest, shard);
}

/* The piece that has a row; the pieces have every row once, in ascending order. */
static const struct mt_manifest_piece *
find_piece(const struct mt_manifest *manifest, const struct mt_manifest_tensor *tensor, int64_t row)
{
    const struct mt_manifest_piece *piece = manifest->piece + tensor->first_piece;
    int64_t low = 0;
    int64_t high = tensor->n_piece - 1;
    while (low < high) {
        const int64_t middle = low + (high - low + 1) / 2;
        if (piece[middle].first_row <= row) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return &piece[low];
}

enum mt_status mt_elements_read(struct mt_element_reader *reader,
                                const struct mt_manifest_tensor *tensor, int64_t first, int64_t n,
                                float *data)
{
    const int64_t row_elements = mt_manifest_row_elements(tensor);
    for (int64_t done = 0; done < n;) {
        const int64_t at = first + done;
        const struct mt_manifest_piece *piece =
            find_piece(reader->manifest, tensor, at / row_elements);
        const int64_t in_piece = at - piece->first_row * row_elements;
        const int64_t n_now = mt_min_i64(n - done, piece->n_row * row_elements - in_piece);
        MT_TRY(open_shard(reader, piece->shard));
        MT_TRY(mt_shard_read_elements(&reader->shard, tensor,
                                      piece->shard_row * row_elements + in_piece, n_now,
                                      data + done));
        done += n_now;
    }
    return MT_OK;
}
