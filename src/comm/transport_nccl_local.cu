/* Copies and additions of a round: kernels that take many at a time, as parameters of the launch.
 *
 * Additions keep the plan's order: a sum's sources are added one after another by the thread that
 * has the element, so its bits are those of the executor of host memory. A place that comes again
 * after others waits for the next launch. */
#include "comm/transport_nccl_internal.h"
#include "kernel/cuda/context.h"
#include "kernel/cuda/dev.cuh"

/* Both batches stay within the 4 KiB that every architecture takes as parameters. */
enum { THREADS = 256, CHUNK = 16 * THREADS, PIECES = 96, SUMS = 48, SOURCES = 256 };

/* ---- copies, of words ---- */

struct piece {
    float *to;
    const float *from;
    int64_t n;
    int first_chunk;
    bool has_quads;
};
struct copy_batch {
    int n, n_chunk;
    struct piece piece[PIECES];
};

/* The last of n items that begins at or before this block. */
template <typename Item> __device__ __forceinline__ int item_of_block(const Item *item, int n)
{
    int low = 0;
    int high = n;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (item[middle].first_chunk <= (int)blockIdx.x) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

__global__ void __launch_bounds__(THREADS) copy_pieces(const struct copy_batch batch)
{
    const struct piece piece = batch.piece[item_of_block(batch.piece, batch.n)];
    const int64_t begin = ((int64_t)blockIdx.x - piece.first_chunk) * CHUNK;
    const int64_t end = mt_cuda_min(piece.n, begin + CHUNK);
    for (int64_t at = begin + 4 * (int64_t)threadIdx.x; at < end; at += 4 * THREADS) {
        const bool has_quads = piece.has_quads && at + 4 <= piece.n;
        mt_store_quad(piece.to, at, piece.n, has_quads,
                      mt_load_quad(piece.from, at, piece.n, has_quads));
    }
}

static void launch_copies(const struct mt_nccl_run *run, struct copy_batch *batch)
{
    if (batch->n > 0) {
        mt_launch(copy_pieces, (unsigned)batch->n_chunk, THREADS, 0, run->nccl->stream[run->comm],
                  *batch);
        run->nccl->counts.n_kernel++;
    }
    batch->n = 0;
    batch->n_chunk = 0;
}

/* Copies of a round neither read nor write what another one writes. */
void mt_nccl_copy(const struct mt_nccl_run *run, int64_t first, int64_t end)
{
    struct copy_batch batch = {};
    for (int64_t i = first; i < end; i++) {
        const struct mt_op *op = &run->plan->op[i];
        if (op->kind != MT_OP_COPY) {
            continue;
        }
        MT_ASSERT(op->n_bytes % 4 == 0);
        void *to = mt_nccl_address(run, op->buffer, op->offset_bytes);
        const void *from = mt_nccl_address(run, op->from_buffer, op->from_offset_bytes);
        struct piece *piece = &batch.piece[batch.n++];
        piece->to = static_cast<float *>(to);
        piece->from = static_cast<const float *>(from);
        piece->n = op->n_bytes / 4;
        piece->first_chunk = batch.n_chunk;
        piece->has_quads = mt_has_quads(to, 4) && mt_has_quads(from, 4);
        batch.n_chunk += (int)mt_cuda_ceil(piece->n, CHUNK);
        if (batch.n == PIECES) {
            launch_copies(run, &batch);
        }
    }
    launch_copies(run, &batch);
}

/* ---- sums ---- */

struct sum {
    char *to;
    int64_t n; /* elements */
    int first_chunk, first_source;
    int n_source;
    bool has_quads;
};
struct sum_batch {
    int n, n_chunk, n_source;
    struct sum sum[SUMS];
    const char *source[SOURCES];
};

__global__ void __launch_bounds__(THREADS) add_floats(const struct sum_batch batch)
{
    const struct sum sum = batch.sum[item_of_block(batch.sum, batch.n)];
    float *to = reinterpret_cast<float *>(sum.to);
    const int64_t begin = ((int64_t)blockIdx.x - sum.first_chunk) * CHUNK;
    const int64_t end = mt_cuda_min(sum.n, begin + CHUNK);
    for (int64_t at = begin + 4 * (int64_t)threadIdx.x; at < end; at += 4 * THREADS) {
        const bool has_quads = sum.has_quads && at + 4 <= sum.n;
        float4 value = mt_load_quad(to, at, sum.n, has_quads);
        for (int k = 0; k < sum.n_source; k++) {
            const float *from = reinterpret_cast<const float *>(batch.source[sum.first_source + k]);
            value = mt_add4(value, mt_load_quad(from, at, sum.n, has_quads));
        }
        mt_store_quad(to, at, sum.n, has_quads, value);
    }
}

template <typename T>
__global__ void __launch_bounds__(THREADS) add_elements(const struct sum_batch batch)
{
    const struct sum sum = batch.sum[item_of_block(batch.sum, batch.n)];
    T *to = reinterpret_cast<T *>(sum.to);
    const int64_t begin = ((int64_t)blockIdx.x - sum.first_chunk) * CHUNK;
    const int64_t end = mt_cuda_min(sum.n, begin + CHUNK);
    for (int64_t at = begin + (int64_t)threadIdx.x; at < end; at += THREADS) {
        T value = to[at];
        for (int k = 0; k < sum.n_source; k++) {
            value += reinterpret_cast<const T *>(batch.source[sum.first_source + k])[at];
        }
        to[at] = value;
    }
}

static void launch_sums(const struct mt_nccl_run *run, struct sum_batch *batch)
{
    const cudaStream_t stream = run->nccl->stream[run->comm];
    const unsigned n_block = (unsigned)batch->n_chunk;
    if (batch->n > 0) {
        MT_ASSERT(run->plan->element != MT_ELEMENT_BYTE);
        if (run->plan->element == MT_ELEMENT_F32) {
            mt_launch(add_floats, n_block, THREADS, 0, stream, *batch);
        } else if (run->plan->element == MT_ELEMENT_F64) {
            mt_launch(add_elements<double>, n_block, THREADS, 0, stream, *batch);
        } else {
            mt_launch(add_elements<int64_t>, n_block, THREADS, 0, stream, *batch);
        }
        run->nccl->counts.n_kernel++;
    }
    batch->n = 0;
    batch->n_chunk = 0;
    batch->n_source = 0;
}

/* Does a sum of the batch touch this one's place? What additions read, none of the round writes. */
static bool is_in_batch(const struct sum_batch *batch, const struct sum *next,
                        int64_t element_bytes)
{
    for (int i = 0; i < batch->n; i++) {
        const struct sum *sum = &batch->sum[i];
        if (sum->to < next->to + next->n * element_bytes &&
            next->to < sum->to + sum->n * element_bytes) {
            return true;
        }
    }
    return false;
}

/* Does it go on with the batch's last sum? */
static bool continues(const struct sum_batch *batch, const struct sum *next)
{
    if (batch->n == 0) {
        return false;
    }
    const struct sum *last = &batch->sum[batch->n - 1];
    return last->to == next->to && last->n == next->n;
}

static void add_source(struct sum_batch *batch, const char *from)
{
    struct sum *sum = &batch->sum[batch->n - 1];
    batch->source[batch->n_source++] = from;
    sum->n_source++;
    sum->has_quads = sum->has_quads && mt_has_quads(from, 4);
}

void mt_nccl_add(const struct mt_nccl_run *run, int64_t first, int64_t end)
{
    const int64_t element_bytes = run->plan->element == MT_ELEMENT_F32 ? 4 : 8;
    struct sum_batch batch = {};
    for (int64_t i = first; i < end; i++) {
        const struct mt_op *op = &run->plan->op[i];
        if (op->kind != MT_OP_ADD) {
            continue;
        }
        struct sum next = {};
        next.to = mt_nccl_address(run, op->buffer, op->offset_bytes);
        next.n = op->n_bytes / element_bytes;
        next.has_quads = mt_has_quads(next.to, 4);
        const char *from = mt_nccl_address(run, op->from_buffer, op->from_offset_bytes);
        if (batch.n_source == SOURCES) {
            launch_sums(run, &batch);
        }
        if (!continues(&batch, &next)) {
            if (batch.n == SUMS || is_in_batch(&batch, &next, element_bytes)) {
                launch_sums(run, &batch);
            }
            next.first_chunk = batch.n_chunk;
            next.first_source = batch.n_source;
            batch.n_chunk += (int)mt_cuda_ceil(next.n, CHUNK);
            batch.sum[batch.n++] = next;
        }
        add_source(&batch, from);
    }
    launch_sums(run, &batch);
}
