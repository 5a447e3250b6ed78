/* Which block of attention's launches works on which tile of which segment. A grid over segments of
 * the longest one's tiles would be empty for the most part: the table has the tiles that exist. */
#include "kernel/cuda/attention_tile.cuh"

/* 3840 bytes: a kernel's parameters have 4096, and are copied at the launch, so that the table
 * needs no staging buffer that somebody would have to wait for. */
enum { PLACES_AT_ONCE = 240 };

struct places {
    struct place at[PLACES_AT_ONCE];
};

__global__ void store_places(struct place *table, const struct places list)
{
    table[threadIdx.x] = list.at[threadIdx.x];
}

static int64_t count_tiles(const struct mt_attention_segments *segments, int tile)
{
    int64_t n = 0;
    for (int64_t i = 0; i < segments->n; i++) {
        n += mt_cuda_ceil(segments->start[i + 1] - segments->start[i], tile);
    }
    return n;
}

static void fill_table(struct mt_cuda *cuda, struct place *table,
                       const struct mt_attention_segments *segments, int64_t sequence_length,
                       int tile)
{
    const int64_t *start = segments->start;
    struct places list = {};
    unsigned n = 0;
    for (int64_t i = 0; i < segments->n; i++) {
        const int64_t token = start[i] - start[0];
        const int32_t length = (int32_t)(start[i + 1] - start[i]);
        for (int32_t first = 0; first < length; first += tile) {
            list.at[n++] = {(int32_t)(token / sequence_length), (int32_t)(token % sequence_length),
                            first, length};
            if (n == PLACES_AT_ONCE) {
                mt_launch(store_places, 1, n, 0, cuda->stream, table, list);
                table += n;
                n = 0;
            }
        }
    }
    if (n > 0) {
        mt_launch(store_places, 1, n, 0, cuda->stream, table, list);
    }
}

bool mt_cuda_attention_places(struct mt_cuda *cuda, struct attention *a,
                              const struct mt_attention_segments *segments, int tile)
{
    if (segments == NULL) {
        a->n_place = a->shape.n_sequence * mt_cuda_ceil(a->shape.length, tile);
        return true;
    }
    a->n_place = count_tiles(segments, tile);
    mt_cuda_begin(cuda);
    struct place *table =
        static_cast<struct place *>(mt_cuda_cut(cuda, a->n_place * (int64_t)sizeof(struct place)));
    if (table == NULL) {
        return false;
    }
    fill_table(cuda, table, segments, a->shape.length, tile);
    a->places = table;
    return true;
}
