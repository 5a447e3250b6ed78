/* A shard's bytes on their way to the disk: from the store to staging memory, from either to a
 * file.
 *
 * Every block is summed, for its piece and for the file, while it is in the cache for the copy;
 * where nothing is copied, for the write. */
#include "checkpoint/shard.h"

#include "base/size.h"
#include "checkpoint/checksum.h"
#include "checkpoint/disk.h"
#include "device/memory.h"

#include <string.h>

static const char *part_data(const struct mt_part *part, enum mt_checkpoint_kind kind)
{
    const float *const data[MT_N_KIND] = {part->value, part->exp_avg, part->exp_avg_sq};
    return (const char *)data[kind];
}

static int64_t part_bytes(const struct mt_part *part)
{
    return part->n_element * (int64_t)sizeof(float);
}

/* Both sums of one pass: of the file, and of the piece that the bytes are in. */
struct sums {
    XXH3_state_t file, piece;
    bool has_piece;
};

static void add(struct sums *sums, const char *data, int64_t n_byte)
{
    mt_checksum_add(&sums->file, data, (size_t)n_byte);
    if (sums->has_piece) {
        mt_checksum_add(&sums->piece, data, (size_t)n_byte);
    }
}

static void stage_part(struct sums *sums, char *to, const char *data, int64_t n_byte)
{
    for (int64_t done = 0; done < n_byte; done += MT_SHARD_BLOCK_BYTES) {
        const int64_t n = mt_min_i64(MT_SHARD_BLOCK_BYTES, n_byte - done);
        add(sums, data + done, n);
        if (to != data) {
            memcpy(to + done, data + done, (size_t)n);
        }
    }
}

/* Returns the bytes staged. */
static int64_t stage_piece(struct sums *sums, char *to, const struct mt_shard *shard,
                           struct mt_shard_piece *piece, bool is_there)
{
    int64_t n_byte = 0;
    mt_checksum_begin(&sums->piece);
    sums->has_piece = true;
    for (int p = piece->first_part; p < piece->first_part + piece->n_part; ++p) {
        const struct mt_part *part = shard->part[p];
        const char *data = is_there ? to + n_byte : part_data(part, piece->kind);
        stage_part(sums, to + n_byte, data, part_bytes(part));
        n_byte += part_bytes(part);
    }
    sums->has_piece = false;
    piece->checksum = mt_checksum_end(&sums->piece);
    return n_byte;
}

void mt_shard_fetch(const struct mt_shard *shard, struct mt_device *device, float *staging)
{
    char *to = (char *)staging;
    for (int64_t i = 0; i < shard->n_extent; ++i) {
        if (shard->extent[i].piece < 0) {
            continue;
        }
        const struct mt_shard_piece *piece = &shard->piece[shard->extent[i].piece];
        for (int p = piece->first_part; p < piece->first_part + piece->n_part; ++p) {
            const struct mt_part *part = shard->part[p];
            mt_device_download(device, to, part_data(part, piece->kind), part_bytes(part));
            to += part_bytes(part);
        }
    }
}

void mt_shard_stage(struct mt_shard *shard, float *staging, bool is_there)
{
    struct sums sums = {.has_piece = false};
    char *to = (char *)staging;
    const char *frame = shard->frame;
    mt_checksum_begin(&sums.file);
    for (int64_t i = 0; i < shard->n_extent; ++i) {
        const struct mt_shard_extent *extent = &shard->extent[i];
        if (extent->piece < 0) {
            add(&sums, frame, extent->n_byte);
            frame += extent->n_byte;
        } else {
            to += stage_piece(&sums, to, shard, &shard->piece[extent->piece], is_there);
        }
    }
    shard->checksum = mt_checksum_end(&sums.file);
}

/* A file that is written from its first byte to its last, a megabyte or so a call: calls of 256 KiB
 * took 10 to 20 % longer, and so did one for each extent. Nothing is copied on the way, whatever
 * the extents' sizes. What is written sets out for the disk at once, under the writing of the rest:
 * a sixth less time than when the sync at the end sends all of it. (ext4, 12 MB on each of 2 ranks,
 * best quarter of 40, 2026-11.) */
enum { CALL_BYTES = 1 << 20, CALL_PARTS = 256 };
struct stream {
    int descriptor;
    const char *path;
    int64_t offset;    /* in the file, of the parts */
    int64_t n_byte;    /* of the parts */
    struct sums *sums; /* NULL: they are known */
    int n_part;
    struct iovec part[CALL_PARTS];
};

static enum mt_status flush(struct stream *stream)
{
    if (stream->n_part == 0) {
        return MT_OK;
    }
    MT_TRY(mt_disk_write_parts(stream->descriptor, stream->path, stream->offset, stream->part,
                               stream->n_part));
    mt_disk_send(stream->descriptor, stream->offset, stream->n_byte);
    stream->offset += stream->n_byte;
    stream->n_byte = 0;
    stream->n_part = 0;
    return MT_OK;
}

/* Block by block, each for both sums while it is in the cache. */
static void add_blocks(struct sums *sums, const char *data, int64_t n_byte)
{
    for (int64_t done = 0; done < n_byte; done += MT_SHARD_BLOCK_BYTES) {
        add(sums, data + done, mt_min_i64(MT_SHARD_BLOCK_BYTES, n_byte - done));
    }
}

static bool is_filled(const struct stream *stream)
{
    return stream->n_byte >= CALL_BYTES || stream->n_part == CALL_PARTS;
}

/* The bytes must stay where they are until they are flushed. */
static enum mt_status put(struct stream *stream, const char *data, int64_t n_byte)
{
    enum mt_status status = MT_OK;
    for (int64_t done = 0; done < n_byte && status == MT_OK; done += CALL_BYTES) {
        const int64_t n = mt_min_i64(n_byte - done, CALL_BYTES);
        if (stream->sums != NULL) {
            add_blocks(stream->sums, data + done, n);
        }
        stream->part[stream->n_part++] =
            (struct iovec){(void *)(uintptr_t)(data + done), (size_t)n};
        stream->n_byte += n;
        status = is_filled(stream) ? flush(stream) : MT_OK;
    }
    return status;
}

/* From the parts that the piece is made of. */
static enum mt_status put_parts(struct stream *stream, const struct mt_shard *shard,
                                struct mt_shard_piece *piece)
{
    struct sums *sums = stream->sums;
    mt_checksum_begin(&sums->piece);
    sums->has_piece = true;
    for (int p = piece->first_part; p < piece->first_part + piece->n_part; ++p) {
        const struct mt_part *part = shard->part[p];
        MT_TRY(put(stream, part_data(part, piece->kind), part_bytes(part)));
    }
    sums->has_piece = false;
    piece->checksum = mt_checksum_end(&sums->piece);
    return MT_OK;
}

/* The next bytes of what *from goes through. */
static enum mt_status put_next(struct stream *stream, const char **from, int64_t n_byte)
{
    const char *data = *from;
    *from += n_byte;
    return put(stream, data, n_byte);
}

static enum mt_status put_all(struct stream *stream, struct mt_shard *shard, const float *staging)
{
    enum mt_status status = MT_OK;
    const char *staged = (const char *)staging;
    const char *frame = shard->frame;
    for (int64_t i = 0; i < shard->n_extent && status == MT_OK; ++i) {
        const struct mt_shard_extent *extent = &shard->extent[i];
        if (extent->piece < 0) {
            status = put_next(stream, &frame, extent->n_byte);
        } else if (staging == NULL) {
            status = put_parts(stream, shard, &shard->piece[extent->piece]);
        } else {
            status = put_next(stream, &staged, extent->n_byte);
        }
    }
    MT_TRY(status);
    return flush(stream);
}

enum mt_status mt_shard_write(struct mt_shard *shard, const float *staging, const char *path)
{
    struct sums sums = {.has_piece = false};
    struct stream stream = {.path = path, .sums = staging == NULL ? &sums : NULL};
    MT_TRY(mt_disk_open_to_write(path, true, &stream.descriptor));
    mt_checksum_begin(&sums.file);
    const enum mt_status status = put_all(&stream, shard, staging);
    if (staging == NULL) {
        shard->checksum = mt_checksum_end(&sums.file);
    }
    return mt_disk_finish(stream.descriptor, path, status);
}
