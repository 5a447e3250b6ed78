/* What the tests of store and optim share: small models, and a store of one on these ranks. */
#ifndef MT_TEST_STORE_WORLD_H
#define MT_TEST_STORE_WORLD_H

#include "store/store.h"

enum { MT_TEST_MAX_TENSORS = 256 };

struct mt_test_table {
    struct mt_tensor_table table;
    struct mt_tensor row[MT_TEST_MAX_TENSORS];
};

void mt_test_table_init(struct mt_test_table *table);
/* Appends a dense tensor; dim1 = 0: one dimension. Counts buckets. */
void mt_test_table_dense(struct mt_test_table *table, int bucket, int64_t dim0, int64_t dim1,
                         bool is_product);
/* Appends gate, up, down of the next layer. n_expert = 0: a layer without experts. */
void mt_test_table_layer(struct mt_test_table *table, int64_t n_expert, int64_t width,
                         int64_t hidden);
/* Three layers, the first without experts; 5 experts of 8 x 24; a tensor of one element, one of
 * many chunks, one with rows longer than a chunk; five buckets. */
void mt_test_table_small(struct mt_test_table *table);

/* A store on the ranks of `world`. Owner of expert e of layer l: the default shares, or with
 * turn >= 0 rank (5 e + 3 l + turn) % R, which leaves some ranks without any. */
struct mt_test_world {
    struct mt_device device;
    struct mt_comm comm;
    struct mt_placement *ownership; /* [n_layer] */
    struct mt_store *store;
    int n_layer;
};
struct mt_test_world_options {
    MPI_Comm world;
    bool training, is_cut;
    int n_slot, turn;
    int ranks_per_node; /* 0: one node */
};
void mt_test_world_open(struct mt_test_world *world, const struct mt_test_table *table,
                        const struct mt_test_world_options *options);
void mt_test_world_close(struct mt_test_world *world);

/* Owners [n_layer, E] drawn at random within the store's capacity: an expert whose rank is full
 * goes to the next one. All layers with experts have as many. At most 64 ranks. */
void mt_test_random_owners(const struct mt_test_world *world, uint64_t seed, int *owner);

/* An integer in [-64, 64) that differs between neighbours: sums of such are exact in float32. */
float mt_test_payload(uint64_t seed, int64_t a, int64_t b);

#endif
