/* A shard's bytes on their way to the disk: from the store to staging memory, from either to a
 * file.
 *
 * Every slice is summed while it is in the cache for the copy or the write. */
#include "checkpoint/shard.h"

#include "base/size.h"
#include "checkpoint/checksum.h"
#include "checkpoint/disk.h"

#include <string.h>

/* Fits the second-level cache beside what is copied to it. */
enum { SLICE_BYTES = 256 << 10 };

static const char *part_data(const struct mt_part *part, enum mt_checkpoint_kind kind)
{
    const float *const data[MT_N_KIND] = {part->value, part->exp_avg, part->exp_avg_sq};
    return (const char *)data[kind];
}

static int64_t part_bytes(const struct mt_part *part)
{
    return part->n_element * (int64_t)sizeof(float);
}

/* Sums data [n_byte] and copies it. */
static void stage_block(XXH3_state_t *sum, char *to, const char *data, int64_t n_byte)
{
    for (int64_t done = 0; done < n_byte; done += SLICE_BYTES) {
        const size_t n = (size_t)mt_min_i64(SLICE_BYTES, n_byte - done);
        mt_checksum_add(sum, data + done, n);
        memcpy(to + done, data + done, n);
    }
}

void mt_shard_stage(struct mt_shard *shard, float *staging)
{
    char *to = (char *)staging;
    for (int64_t i = 0; i < shard->n_extent; ++i) {
        const struct mt_shard_extent *extent = &shard->extent[i];
        if (extent->piece < 0) {
            continue;
        }
        XXH3_state_t sum;
        struct mt_shard_piece *piece = &shard->piece[extent->piece];
        mt_checksum_begin(&sum);
        for (int p = piece->first_part; p < piece->first_part + piece->n_part; ++p) {
            const int64_t n_byte = part_bytes(shard->part[p]);
            stage_block(&sum, to, part_data(shard->part[p], piece->kind), n_byte);
            to += n_byte;
        }
        piece->checksum = mt_checksum_end(&sum);
    }
}

/* A file that is written from its first byte to its last, in blocks of whole pages: many extents
 * are small, and a call for each took twice the time. */
struct stream {
    int descriptor;
    const char *path;
    int64_t offset; /* of the block in the file */
    int64_t n_used; /* bytes of the block */
    char *block;    /* [MT_SHARD_BLOCK_BYTES] */
    XXH3_state_t file;
};

static enum mt_status flush(struct stream *stream)
{
    mt_checksum_add(&stream->file, stream->block, (size_t)stream->n_used);
    MT_TRY(mt_disk_write(stream->descriptor, stream->path, stream->offset, stream->block,
                         stream->n_used));
    stream->offset += stream->n_used;
    stream->n_used = 0;
    return MT_OK;
}

/* piece: NULL, or sums the data too. */
static enum mt_status put(struct stream *stream, const char *data, int64_t n_byte,
                          XXH3_state_t *piece)
{
    while (n_byte > 0) {
        const int64_t n = mt_min_i64(n_byte, MT_SHARD_BLOCK_BYTES - stream->n_used);
        char *to = stream->block + stream->n_used;
        memcpy(to, data, (size_t)n);
        if (piece != NULL) {
            mt_checksum_add(piece, to, (size_t)n);
        }
        stream->n_used += n;
        data += n;
        n_byte -= n;
        if (stream->n_used == MT_SHARD_BLOCK_BYTES) {
            MT_TRY(flush(stream));
        }
    }
    return MT_OK;
}

/* From the parts that the piece is made of. */
static enum mt_status put_parts(struct stream *stream, const struct mt_shard *shard,
                                struct mt_shard_piece *piece)
{
    XXH3_state_t sum;
    mt_checksum_begin(&sum);
    for (int p = piece->first_part; p < piece->first_part + piece->n_part; ++p) {
        const struct mt_part *part = shard->part[p];
        MT_TRY(put(stream, part_data(part, piece->kind), part_bytes(part), &sum));
    }
    piece->checksum = mt_checksum_end(&sum);
    return MT_OK;
}

static enum mt_status put_all(struct stream *stream, struct mt_shard *shard, const float *staging)
{
    const char *staged = (const char *)staging;
    const char *frame = shard->frame;
    for (int64_t i = 0; i < shard->n_extent; ++i) {
        const struct mt_shard_extent *extent = &shard->extent[i];
        if (extent->piece < 0) {
            MT_TRY(put(stream, frame, extent->n_byte, NULL));
            frame += extent->n_byte;
        } else if (staging == NULL) {
            MT_TRY(put_parts(stream, shard, &shard->piece[extent->piece]));
        } else {
            MT_TRY(put(stream, staged, extent->n_byte, NULL));
            staged += extent->n_byte;
        }
    }
    return flush(stream);
}

enum mt_status mt_shard_write(struct mt_shard *shard, const float *staging, const char *path)
{
    struct stream stream = {.path = path, .block = shard->block};
    MT_TRY(mt_disk_open_to_write(path, true, &stream.descriptor));
    mt_checksum_begin(&stream.file);
    const enum mt_status status = put_all(&stream, shard, staging);
    shard->checksum = mt_checksum_end(&stream.file);
    return mt_disk_finish(stream.descriptor, path, status);
}
