#include "placement/scene.h"

#include "base/random.h"
#include "support/test.h"

#include <string.h>

static uint64_t draw(uint64_t seed, uint64_t *at, uint64_t bound)
{
    return mt_random_u64(seed, 4711, (*at)++) % bound;
}

static void make_storage(struct mt_scene *scene, int n_rank, int n_expert, int capacity)
{
    int64_t scratch_bytes = 0;
    MT_TEST_OK(mt_placement_init(&scene->placement, n_rank, n_expert, capacity));
    MT_TEST_OK(MT_ALLOCATE(scene->counts, (int64_t)n_rank * n_expert, "scene"));
    MT_TEST_OK(MT_ALLOCATE(scene->total, n_expert, "scene"));
    MT_TEST_OK(MT_ALLOCATE(scene->instance_quota, capacity, "scene"));
    MT_TEST_OK(MT_ALLOCATE(scene->quota, (int64_t)n_rank * capacity, "scene"));
    assert_true(mt_policy_scratch_bytes(n_rank, n_expert, 1, capacity, &scratch_bytes));
    MT_TEST_OK(mt_arena_init(&scene->scratch, scratch_bytes, "scene"));
}

/* An H100 node with 400 GB/s inside and 40 GB/s a rank between nodes, an expert of 4096 x 1536. */
static void set_costs(struct mt_cluster *cluster)
{
    cluster->costs = (struct mt_costs){.row_ps = 94000,
                                       .instance_ps = 5000000,
                                       .attention_ps = 1500000000,
                                       .alpha_ps = {0, 2000000, 5000000},
                                       .kib_ps = {0, 2560, 25600}};
    cluster->row_bytes = 8192;
    cluster->expert_bytes = 37748736;
}

void mt_scene_init(struct mt_scene *scene, int n_rank, int per_node, int n_expert, int slots)
{
    int node[4096];
    assert_in_range(n_rank, 1, 4096);
    *scene = (struct mt_scene){0};
    for (int rank = 0; rank < n_rank; ++rank) {
        node[rank] = rank / per_node;
    }
    MT_TEST_OK(mt_cluster_init(&scene->cluster, n_rank, node));
    set_costs(&scene->cluster);
    make_storage(scene, n_rank, n_expert, n_expert + n_rank * slots);
}

/* Nodes numbered by their lowest rank, of any sizes, members anywhere. */
static void make_nodes(struct mt_cluster *cluster, int n_rank, uint64_t seed, uint64_t *at)
{
    int node[4096];
    int n_node = 0;
    const uint64_t most = 1 + draw(seed, at, (uint64_t)n_rank);
    for (int rank = 0; rank < n_rank; ++rank) {
        const int pick = (int)draw(seed, at, most);
        node[rank] = pick < n_node ? pick : n_node;
        n_node += node[rank] == n_node ? 1 : 0;
    }
    MT_TEST_OK(mt_cluster_init(cluster, n_rank, node));
    set_costs(cluster);
}

static void make_instances(struct mt_placement *placement, int copies_of_3, uint64_t seed,
                           uint64_t *at)
{
    int n = 0;
    for (int expert = 0; expert < placement->n_expert; ++expert) {
        placement->instance_start[expert] = n;
        placement->owner[expert] = (int)draw(seed, at, (uint64_t)placement->n_rank);
        for (int rank = 0; rank < placement->n_rank; ++rank) {
            if (rank == placement->owner[expert] || draw(seed, at, 3) < (uint64_t)copies_of_3) {
                placement->is_late[n] = rank != placement->owner[expert] && draw(seed, at, 4) == 0;
                placement->rank[n++] = rank;
            }
        }
    }
    placement->instance_start[placement->n_expert] = n;
    mt_placement_check(placement);
}

static void make_counts(struct mt_scene *scene, uint64_t seed, uint64_t *at)
{
    const int n_expert = scene->placement.n_expert;
    const uint64_t bound = draw(seed, at, 6) == 0 ? 1ull << 40 : 1 + draw(seed, at, 3000);
    const bool is_one_expert = draw(seed, at, 6) == 0;
    const bool is_nothing = draw(seed, at, 40) == 0;
    for (int rank = 0; rank < scene->placement.n_rank; ++rank) {
        const bool is_empty = is_nothing || draw(seed, at, 6) == 0;
        for (int expert = 0; expert < n_expert; ++expert) {
            const bool is_zero = is_empty || (is_one_expert && expert > 0) || expert % 7 == 5;
            const uint64_t hot = expert % 11 == 3 ? 8 : 1;
            scene->counts[rank * n_expert + expert] =
                is_zero ? 0 : (int64_t)draw(seed, at, bound * hot);
        }
    }
}

void mt_scene_make(struct mt_scene *scene, uint64_t seed, int max_rank, int max_expert,
                   int copies_of_3)
{
    uint64_t at = 0;
    const int n_rank = 1 + (int)draw(seed, &at, (uint64_t)max_rank);
    const int n_expert = 1 + (int)draw(seed, &at, (uint64_t)max_expert);
    *scene = (struct mt_scene){0};
    make_nodes(&scene->cluster, n_rank, seed, &at);
    make_storage(scene, n_rank, n_expert, n_expert + n_rank * n_expert);
    make_instances(&scene->placement, copies_of_3, seed, &at);
    make_counts(scene, seed, &at);
    mt_scene_sum(scene);
}

void mt_scene_sum(struct mt_scene *scene)
{
    const int n_expert = scene->placement.n_expert;
    memset(scene->total, 0, (size_t)n_expert * sizeof(scene->total[0]));
    for (int i = 0; i < scene->placement.n_rank * n_expert; ++i) {
        scene->total[i % n_expert] += scene->counts[i];
    }
}

void mt_scene_clear(struct mt_scene *scene)
{
    mt_memory_free(scene->counts);
    mt_memory_free(scene->total);
    mt_memory_free(scene->instance_quota);
    mt_memory_free(scene->quota);
    mt_arena_clear(&scene->scratch);
    mt_placement_clear(&scene->placement);
    mt_cluster_clear(&scene->cluster);
}

struct mt_policy_input mt_scene_input(const struct mt_scene *scene, int slots)
{
    return (struct mt_policy_input){.cluster = &scene->cluster,
                                    .n_expert = scene->placement.n_expert,
                                    .step = 2,
                                    .n_micro = 1,
                                    .slots = slots,
                                    .overlap = -1,
                                    .n_history = 1};
}

int mt_scene_n_copy(const struct mt_placement *placement, int expert)
{
    return placement->instance_start[expert + 1] - placement->instance_start[expert] - 1;
}
