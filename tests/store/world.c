#include "store/world.h"

#include "base/memory.h"
#include "base/random.h"
#include "support/test.h"

#include <stdio.h>
#include <string.h>

void mt_test_table_init(struct mt_test_table *table)
{
    memset(table, 0, sizeof(*table));
    table->table.tensor = table->row;
}

static struct mt_tensor *append(struct mt_test_table *table, const char *name)
{
    assert_true(table->table.n_tensor < MT_TEST_MAX_TENSORS);
    const int index = table->table.n_tensor++;
    struct mt_tensor *tensor = &table->row[index];
    (void)snprintf(tensor->name, sizeof(tensor->name), "%d/%s", index, name);
    return tensor;
}

void mt_test_table_dense(struct mt_test_table *table, int bucket, int64_t dim0, int64_t dim1,
                         bool is_product)
{
    struct mt_tensor *tensor = append(table, "dense");
    tensor->kind = MT_TENSOR_DENSE;
    tensor->n_dim = dim1 > 0 ? 2 : 1;
    tensor->dim[0] = dim0;
    tensor->dim[1] = dim1;
    tensor->layer = -1;
    tensor->bucket = bucket;
    tensor->is_product = is_product;
    tensor->decay = dim1 > 0;
    tensor->init_std = dim1 > 0 ? 0.02F : 0.0F;
    if (bucket >= table->table.n_bucket) {
        table->table.n_bucket = bucket + 1;
    }
}

void mt_test_table_layer(struct mt_test_table *table, int64_t n_expert, int64_t width,
                         int64_t hidden)
{
    static const char *const names[MT_EXPERT_MATRICES] = {"gate", "up", "down"};
    const int layer = table->table.n_layer++;
    for (int m = 0; n_expert > 0 && m < MT_EXPERT_MATRICES; ++m) {
        struct mt_tensor *tensor = append(table, names[m]);
        tensor->kind = MT_TENSOR_EXPERT;
        tensor->n_dim = 3;
        tensor->dim[0] = n_expert;
        tensor->dim[1] = m < 2 ? width : hidden;
        tensor->dim[2] = m < 2 ? hidden : width;
        tensor->layer = layer;
        tensor->bucket = -1;
        tensor->decay = true;
        tensor->init_std = 0.02F;
    }
}

void mt_test_table_small(struct mt_test_table *table)
{
    mt_test_table_init(table);
    mt_test_table_dense(table, 0, 50, 24, true);
    mt_test_table_dense(table, 0, 40, 5000, false);
    mt_test_table_dense(table, 1, 24, 0, false);
    mt_test_table_dense(table, 1, 24, 24, true);
    mt_test_table_layer(table, 0, 0, 0);
    mt_test_table_dense(table, 2, 24, 0, false);
    table->row[table->table.n_tensor - 1].starts_at_zero = true;
    mt_test_table_dense(table, 2, 5, 24, false);
    mt_test_table_layer(table, 5, 8, 24);
    mt_test_table_dense(table, 3, 1, 0, false);
    mt_test_table_layer(table, 5, 8, 24);
    mt_test_table_dense(table, 4, 3, 20000, false);
    mt_test_table_dense(table, 4, 24, 0, false);
    mt_test_table_dense(table, 4, 50, 24, true);
}

static void make_ownership(struct mt_test_world *world, const struct mt_test_table *table, int turn)
{
    const int n_rank = world->comm.topology.n_rank;
    world->n_layer = table->table.n_layer;
    MT_TEST_OK(MT_ALLOCATE(world->ownership, world->n_layer, "test ownership"));
    for (int t = 0; t < table->table.n_tensor; ++t) {
        const struct mt_tensor *tensor = &table->row[t];
        if (tensor->kind != MT_TENSOR_EXPERT || tensor->dim[1] < 1) {
            continue;
        }
        struct mt_placement *placement = &world->ownership[tensor->layer];
        if (placement->owner != NULL) {
            continue;
        }
        const int n_expert = (int)tensor->dim[0];
        MT_TEST_OK(mt_placement_init(placement, n_rank, n_expert, n_expert));
        mt_placement_default_owners(placement, tensor->layer);
        for (int e = 0; turn >= 0 && e < n_expert; ++e) {
            placement->owner[e] = (5 * e + 3 * tensor->layer + turn) % n_rank;
            placement->rank[e] = placement->owner[e];
        }
    }
}

void mt_test_world_open(struct mt_test_world *world, const struct mt_test_table *table,
                        const struct mt_test_world_options *options)
{
    memset(world, 0, sizeof(*world));
    mt_device_init_plain(&world->device);
    MT_TEST_OK(mt_comm_init_mpi(&world->comm, options->world, options->ranks_per_node));
    make_ownership(world, table, options->turn);
    const struct mt_store_options store_options = {.training = options->training,
                                                   .is_cut = options->is_cut,
                                                   .n_slot = options->n_slot,
                                                   .ownership = world->ownership};
    MT_TEST_OK(mt_store_create(&world->device, &world->comm, &table->table, &store_options,
                               &world->store));
}

void mt_test_world_close(struct mt_test_world *world)
{
    mt_store_destroy(world->store);
    for (int layer = 0; layer < world->n_layer; ++layer) {
        mt_placement_clear(&world->ownership[layer]);
    }
    mt_memory_free(world->ownership);
    mt_comm_clear(&world->comm);
}

void mt_test_random_owners(const struct mt_test_world *world, uint64_t seed, int *owner)
{
    const int n_rank = world->comm.topology.n_rank;
    int n_owned[64] = {0};
    assert_true(n_rank <= 64);
    for (int layer = 0; layer < world->n_layer; ++layer) {
        const int n_expert = world->ownership[layer].n_expert;
        for (int e = 0; e < n_expert; ++e) {
            int rank = (int)(mt_random_u64(seed, (uint64_t)layer, (uint64_t)e) % (uint64_t)n_rank);
            while (n_owned[rank] == mt_store_capacity(world->store)) {
                rank = (rank + 1) % n_rank;
            }
            ++n_owned[rank];
            owner[layer * n_expert + e] = rank;
        }
    }
}

float mt_test_payload(uint64_t seed, int64_t a, int64_t b)
{
    return (float)((int)(mt_random_u64(seed, (uint64_t)a, (uint64_t)b) % 128) - 64);
}
