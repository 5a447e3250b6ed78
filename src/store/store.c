#include "base/memory.h"
#include "device/memory.h"
#include "store/internal.h"

static enum mt_status create_all(struct mt_store *store, const struct mt_store_options *options)
{
    const int n_rank = store->comm->topology.n_rank;
    struct mt_sizes *sizes = NULL;
    enum mt_status status = MT_OK;
    MT_TRY_GOTO(mt_layout_init(&store->layout, store->table, n_rank));
    MT_TRY_GOTO(MT_ALLOCATE(sizes, n_rank, "sizes of ranks"));
    MT_TRY_GOTO(mt_sizes_plan(store->device, &store->layout, options, sizes));
    const struct mt_sizes *mine = &sizes[store->comm->rank];
    MT_TRY_GOTO(mt_dense_create(store, mine));
    MT_TRY_GOTO(mt_experts_create(store, options, mine));
    MT_TRY_GOTO(mt_parts_create(store));
cleanup:
    mt_memory_free(sizes);
    return status;
}

enum mt_status mt_store_create(struct mt_device *device, struct mt_comm *comm,
                               const struct mt_tensor_table *table,
                               const struct mt_store_options *options, struct mt_store **out)
{
    MT_ASSERT(options->n_slot >= 0);
    struct mt_store *store = NULL;
    *out = NULL;
    MT_TRY(MT_ALLOCATE(store, 1, "the store"));
    store->device = device;
    store->comm = comm;
    store->table = table;
    store->training = options->training;
    store->is_cut = options->is_cut;
    const enum mt_status status = create_all(store, options);
    if (status != MT_OK) {
        mt_store_destroy(store);
        return status;
    }
    *out = store;
    return MT_OK;
}

void mt_store_destroy(struct mt_store *store)
{
    if (store == NULL) {
        return;
    }
    mt_dense_destroy(store);
    mt_experts_destroy(store);
    mt_layout_clear(&store->layout);
    mt_device_free(store->device, store->square);
    mt_memory_free(store->room);
    mt_memory_free(store->part);
    mt_memory_free(store->item);
    mt_memory_free(store);
}

void mt_store_set_guard(struct mt_store *store, mt_store_guard_fn guard, void *context)
{
    store->guard = guard;
    store->guard_context = context;
}

void mt_store_call_guard(const struct mt_store *store)
{
    if (store->guard != NULL) {
        store->guard(store->guard_context);
    }
}

const struct mt_tensor_table *mt_store_table(const struct mt_store *store)
{
    return store->table;
}

bool mt_store_is_cut(const struct mt_store *store)
{
    return store->is_cut;
}

struct mt_device *mt_store_device(const struct mt_store *store)
{
    return store->device;
}
