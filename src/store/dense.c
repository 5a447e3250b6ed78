/* Dense tensors: every rank holds all values; each rank owns one range of every bucket. Values go
 * out from owners before their use, gradients come back when a bucket's last backward is done. */
#include "base/clock.h"
#include "base/memory.h"
#include "base/size.h"
#include "device/memory.h"
#include "store/internal.h"

#include <string.h>

/* The distribution of a bucket over R ranks: chunk r is the range of rank r, held by all others. */
struct everywhere {
    struct mt_sparse sparse;
    int64_t *chunk_bytes, *offset_bytes; /* [R] */
    int *owner;                          /* [R] */
    int64_t *holder_start;               /* [R+1] */
    int *holder;                         /* [R, R-1] */
};

static void everywhere_clear(struct everywhere *all)
{
    mt_memory_free(all->chunk_bytes);
    mt_memory_free(all->offset_bytes);
    mt_memory_free(all->owner);
    mt_memory_free(all->holder_start);
    mt_memory_free(all->holder);
}

static enum mt_status everywhere_init(struct everywhere *all, int n_rank)
{
    memset(all, 0, sizeof(*all));
    MT_TRY(MT_ALLOCATE(all->chunk_bytes, n_rank, "sizes of ranges"));
    MT_TRY(MT_ALLOCATE(all->offset_bytes, n_rank, "offsets of ranges"));
    MT_TRY(MT_ALLOCATE(all->owner, n_rank, "owners of ranges"));
    MT_TRY(MT_ALLOCATE(all->holder_start, n_rank + 1, "holders of ranges"));
    MT_TRY(MT_ALLOCATE(all->holder, (int64_t)n_rank * (n_rank - 1), "holders of ranges"));
    int64_t n = 0;
    for (int owner = 0; owner < n_rank; ++owner) {
        all->owner[owner] = owner;
        for (int holder = 0; holder < n_rank; ++holder) {
            if (holder != owner) {
                all->holder[n++] = holder;
            }
        }
        all->holder_start[owner + 1] = n;
    }
    all->sparse = (struct mt_sparse){.n_chunk = n_rank,
                                     .chunk_bytes = all->chunk_bytes,
                                     .owner = all->owner,
                                     .holder_start = all->holder_start,
                                     .holder = all->holder};
    return MT_OK;
}

static void everywhere_set_bucket(struct everywhere *all, const struct mt_layout *layout, int b)
{
    for (int rank = 0; rank < layout->n_rank; ++rank) {
        const struct mt_range range = mt_layout_owned_range(layout, b, rank);
        all->chunk_bytes[rank] = (range.end - range.start) * (int64_t)sizeof(float);
        all->offset_bytes[rank] = range.start * (int64_t)sizeof(float);
    }
}

/* *max_op: of the largest plan so far. */
static enum mt_status create_bucket(struct mt_store *store, struct everywhere *all, int b,
                                    int64_t *max_op)
{
    const int rank = store->comm->rank;
    struct mt_bucket *bucket = &store->bucket[b];
    everywhere_set_bucket(all, &store->layout, b);
    const int64_t n_op = mt_plan_sparse_max_op(rank, &all->sparse);
    *max_op = mt_max_i64(*max_op, n_op);
    MT_TRY(mt_plan_init(&bucket->gather, n_op));
    mt_plan_sparse_allgather(&bucket->gather, rank, &all->sparse, all->offset_bytes,
                             all->offset_bytes);
    if (store->training) {
        MT_TRY(mt_plan_init(&bucket->reduce, n_op));
        mt_plan_sparse_reduce_scatter(&bucket->reduce, rank, &all->sparse, all->offset_bytes,
                                      all->offset_bytes, MT_ELEMENT_F32);
        const int lane = b % store->n_reduce_lane;
        MT_ASSERT(mt_plan_sparse_reduce_stage_bytes(rank, &all->sparse) <=
                  mt_reduce_lane_bytes(&store->layout, rank, lane));
    }
    return MT_OK;
}

static enum mt_status create_buckets(struct mt_store *store)
{
    const struct mt_layout *layout = &store->layout;
    const int rank = store->comm->rank;
    struct everywhere all;
    enum mt_status status = MT_OK;
    int64_t max_op = 0;
    MT_TRY_GOTO(everywhere_init(&all, layout->n_rank));
    for (int b = 0; b < store->table->n_bucket; ++b) {
        MT_TRY_GOTO(create_bucket(store, &all, b, &max_op));
    }
    for (int i = 0; i < store->n_gather_lane; ++i) {
        MT_TRY_GOTO(mt_lane_init(&store->gather_lane[i], store->device, store->comm, max_op, 0, 0));
    }
    for (int i = 0; i < store->n_reduce_lane; ++i) {
        MT_TRY_GOTO(mt_lane_init(&store->reduce_lane[i], store->device, store->comm, max_op, 0,
                                 mt_reduce_lane_bytes(layout, rank, i)));
    }
cleanup:
    everywhere_clear(&all);
    return status;
}

static enum mt_status create_weights(struct mt_store *store)
{
    char *memory = store->dense_pack;
    for (int t = 0; t < store->table->n_tensor; ++t) {
        const struct mt_tensor *tensor = &store->table->tensor[t];
        if (tensor->kind != MT_TENSOR_DENSE || !tensor->is_product) {
            continue;
        }
        const int64_t n_out = tensor->dim[0];
        const int64_t n_in = tensor->dim[1];
        MT_TRY(mt_linear_prepare(store->device, n_out, n_in));
        mt_weight_init(store->device, &store->weight[t], n_out, n_in, store->training, memory);
        memory += mt_weight_bytes(store->device, n_out, n_in, store->training);
    }
    return MT_OK;
}

enum mt_status mt_dense_create(struct mt_store *store, const struct mt_sizes *sizes)
{
    const struct mt_tensor_table *table = store->table;
    const int64_t n_element = store->layout.bucket_start[table->n_bucket];
    store->n_gather_lane = (int)mt_min_i64(table->n_bucket, MT_GATHER_LANES);
    store->n_reduce_lane = store->training ? mt_reduce_lane_count(&store->layout) : 0;
    MT_TRY(MT_ALLOCATE(store->bucket, table->n_bucket, "buckets"));
    MT_TRY(MT_ALLOCATE(store->weight, table->n_tensor, "packed weights"));
    MT_TRY(MT_DEVICE_ALLOCATE(store->device, store->dense_value, n_element, "dense parameters"));
    MT_TRY(mt_device_allocate(store->device, sizes->bytes.dense_pack, "packed dense parameters",
                              &store->dense_pack));
    int64_t n_owned = 0;
    for (int b = 0; b < table->n_bucket; ++b) {
        struct mt_bucket *bucket = &store->bucket[b];
        bucket->owned = mt_layout_owned_range(&store->layout, b, store->comm->rank);
        bucket->owned_start = n_owned;
        n_owned += bucket->owned.end - bucket->owned.start;
    }
    if (store->training) {
        MT_TRY(MT_DEVICE_ALLOCATE(store->device, store->dense_grad, n_element, "dense gradients"));
        MT_TRY(MT_DEVICE_ALLOCATE(store->device, store->dense_avg, n_owned,
                                  "optimizer state of dense parameters"));
        MT_TRY(MT_DEVICE_ALLOCATE(store->device, store->dense_avg_sq, n_owned,
                                  "optimizer state of dense parameters"));
    }
    MT_TRY(create_weights(store));
    return create_buckets(store);
}

void mt_dense_destroy(struct mt_store *store)
{
    for (int i = 0; i < store->n_gather_lane; ++i) {
        mt_lane_clear(&store->gather_lane[i]);
    }
    for (int i = 0; i < store->n_reduce_lane; ++i) {
        mt_lane_clear(&store->reduce_lane[i]);
    }
    for (int b = 0; store->bucket != NULL && b < store->table->n_bucket; ++b) {
        mt_plan_clear(&store->bucket[b].gather);
        mt_plan_clear(&store->bucket[b].reduce);
    }
    mt_memory_free(store->bucket);
    mt_memory_free(store->weight);
    mt_device_free(store->device, store->dense_value);
    mt_device_free(store->device, store->dense_grad);
    mt_device_free(store->device, store->dense_avg);
    mt_device_free(store->device, store->dense_avg_sq);
    mt_device_free(store->device, store->dense_pack);
}

static const struct mt_tensor *dense_tensor(const struct mt_store *store, int tensor)
{
    MT_ASSERT(tensor >= 0 && tensor < store->table->n_tensor);
    const struct mt_tensor *row = &store->table->tensor[tensor];
    MT_ASSERT(row->kind == MT_TENSOR_DENSE);
    return row;
}

static int64_t block_offset(const struct mt_store *store, int tensor)
{
    const int bucket = dense_tensor(store, tensor)->bucket;
    return store->layout.bucket_start[bucket] + store->layout.offset[tensor];
}

const float *mt_store_value(const struct mt_store *store, int tensor)
{
    return store->dense_value + block_offset(store, tensor);
}

float *mt_store_grad(const struct mt_store *store, int tensor)
{
    MT_ASSERT(store->training);
    return store->dense_grad + block_offset(store, tensor);
}

const struct mt_weight *mt_store_weight(const struct mt_store *store, int tensor)
{
    MT_ASSERT(dense_tensor(store, tensor)->is_product);
    return &store->weight[tensor];
}

/* ---- values out ---- */

static struct mt_lane *gather_lane(struct mt_store *store, int bucket)
{
    return &store->gather_lane[bucket % store->n_gather_lane];
}

static enum mt_status begin_next_gather(struct mt_store *store)
{
    const int b = store->next_gather++;
    struct mt_bucket *bucket = &store->bucket[b];
    struct mt_lane *lane = gather_lane(store, b);
    float *value = store->dense_value + store->layout.bucket_start[b];
    MT_ASSERT(bucket->values == MT_VALUES_STALE);
    MT_TRY(mt_lane_end(lane));
    MT_TRY(mt_lane_begin(lane, b, &bucket->gather, value, value));
    bucket->values = MT_VALUES_GATHERING;
    return MT_OK;
}

/* As many as find a free lane. */
static enum mt_status begin_gathers(struct mt_store *store)
{
    while (store->next_gather < store->table->n_bucket &&
           gather_lane(store, store->next_gather)->user < 0) {
        MT_TRY(begin_next_gather(store));
    }
    return MT_OK;
}

enum mt_status mt_store_publish(struct mt_store *store)
{
    MT_ASSERT(!mt_experts_have_copies(store)); /* they would keep the old values */
    mt_span_begin(MT_PHASE_MATERIALIZE);
    mt_device_settle(store->device);
    for (int i = 0; i < store->n_gather_lane; ++i) {
        MT_TRY(mt_lane_end(&store->gather_lane[i]));
    }
    for (int b = 0; b < store->table->n_bucket; ++b) {
        store->bucket[b].values = MT_VALUES_STALE;
    }
    store->next_gather = 0;
    MT_TRY(begin_gathers(store));
    if (!store->is_packed) {
        MT_TRY(mt_experts_pack_owned(store));
    }
    store->is_dense_packed = store->is_packed && store->layout.n_rank == 1;
    store->is_packed = false;
    mt_span_end(MT_PHASE_MATERIALIZE);
    return MT_OK;
}

static enum mt_status pack_bucket(struct mt_store *store, int bucket)
{
    for (int t = 0; t < store->table->n_tensor && !store->is_dense_packed; ++t) {
        const struct mt_tensor *tensor = &store->table->tensor[t];
        if (tensor->kind != MT_TENSOR_DENSE || tensor->bucket != bucket || !tensor->is_product) {
            continue;
        }
        mt_weight_pack(store->device, &store->weight[t], mt_store_value(store, t));
        MT_TRY(mt_comm_poll(store->comm));
    }
    return MT_OK;
}

enum mt_status mt_store_use_bucket(struct mt_store *store, int bucket)
{
    MT_ASSERT(bucket >= 0 && bucket < store->table->n_bucket);
    struct mt_bucket *b = &store->bucket[bucket];
    MT_ASSERT(b->values != MT_VALUES_UNDEFINED);
    if (b->values == MT_VALUES_READY) {
        return MT_OK;
    }
    mt_span_begin(MT_PHASE_MATERIALIZE);
    mt_device_settle(store->device);
    while (store->next_gather <= bucket) {
        MT_TRY(begin_next_gather(store));
    }
    MT_TRY(mt_lane_end_user(gather_lane(store, bucket), bucket));
    MT_TRY(begin_gathers(store));
    MT_TRY(pack_bucket(store, bucket));
    b->values = MT_VALUES_READY;
    mt_span_end(MT_PHASE_MATERIALIZE);
    return MT_OK;
}

enum mt_status mt_store_use_all(struct mt_store *store)
{
    for (int b = 0; b < store->table->n_bucket; ++b) {
        MT_TRY(mt_store_use_bucket(store, b));
    }
    return MT_OK;
}

/* ---- gradients back ---- */

static struct mt_lane *reduce_lane(struct mt_store *store, int bucket)
{
    return &store->reduce_lane[bucket % store->n_reduce_lane];
}

/* This rank's contributions to what others own. */
static void zero_others_grad(struct mt_store *store)
{
    for (int b = 0; b < store->table->n_bucket; ++b) {
        const struct mt_range own = store->bucket[b].owned;
        float *grad = store->dense_grad + store->layout.bucket_start[b];
        const int64_t end = store->layout.bucket_start[b + 1] - store->layout.bucket_start[b];
        mt_fill_zero(store->device, grad, own.start);
        mt_fill_zero(store->device, grad + own.end, end - own.end);
    }
}

void mt_store_zero_grad(struct mt_store *store)
{
    MT_ASSERT(store->training);
    for (int b = 0; b < store->table->n_bucket; ++b) {
        MT_ASSERT(store->bucket[b].grads != MT_GRADS_REDUCING);
        store->bucket[b].grads = MT_GRADS_LOCAL;
    }
    if (store->is_grad_zero) {
        zero_others_grad(store);
    } else {
        mt_fill_zero(store->device, store->dense_grad,
                     store->layout.bucket_start[store->table->n_bucket]);
        mt_experts_zero_grad(store);
    }
    store->is_grad_zero = false;
}

enum mt_status mt_store_reduce_bucket_begin(struct mt_store *store, int bucket)
{
    MT_ASSERT(store->training && bucket >= 0 && bucket < store->table->n_bucket);
    struct mt_bucket *b = &store->bucket[bucket];
    MT_ASSERT(b->grads == MT_GRADS_LOCAL);
    struct mt_lane *lane = reduce_lane(store, bucket);
    float *grad = store->dense_grad + store->layout.bucket_start[bucket];
    mt_span_begin(MT_PHASE_REDUCE);
    mt_device_settle(store->device);
    MT_TRY(mt_lane_end(lane));
    MT_TRY(mt_lane_begin(lane, bucket, &b->reduce, grad, grad));
    b->grads = MT_GRADS_REDUCING;
    mt_span_end(MT_PHASE_REDUCE);
    return MT_OK;
}

enum mt_status mt_store_reduce_finish(struct mt_store *store)
{
    MT_ASSERT(store->training);
    mt_span_begin(MT_PHASE_REDUCE);
    mt_device_settle(store->device);
    /* downwards, as backward goes: those begun first have had the most time */
    for (int b = store->table->n_bucket - 1; b >= 0; --b) {
        if (store->bucket[b].grads != MT_GRADS_LOCAL) {
            continue;
        }
        MT_TRY(mt_store_reduce_bucket_begin(store, b));
    }
    for (int b = store->table->n_bucket - 1; b >= 0; --b) {
        MT_TRY(mt_lane_end_user(reduce_lane(store, b), b));
        store->bucket[b].grads = MT_GRADS_REDUCED;
    }
    mt_span_end(MT_PHASE_REDUCE);
    return MT_OK;
}
