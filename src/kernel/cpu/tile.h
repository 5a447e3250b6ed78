/* Ragged groups of rows cut into tiles of MT_GEMM_TILE rows that never cross a group: how rows are
 * cut follows from the groups alone. */
#ifndef MT_KERNEL_CPU_TILE_H
#define MT_KERNEL_CPU_TILE_H

#include "base/size.h"
#include "kernel/cpu/gemm_primitive.h"
#include "kernel/kernel.h"

/* Rows row .. row + n - 1, all of one group; 1 <= n <= MT_GEMM_TILE. */
struct mt_cpu_tile {
    int group;
    int64_t row, n;
};

static inline int64_t mt_cpu_n_tile_of(struct mt_groups groups, int group)
{
    return mt_ceil_div(groups.offset[group + 1] - groups.offset[group], MT_GEMM_TILE);
}

static inline int64_t mt_cpu_n_tile(struct mt_groups groups)
{
    int64_t n_tile = 0;
    for (int group = 0; group < groups.n_group; group++) {
        n_tile += mt_cpu_n_tile_of(groups, group);
    }
    return n_tile;
}

/* Tile `index` of all; the scan over the groups is nothing beside a tile's products. */
static inline struct mt_cpu_tile mt_cpu_tile_at(struct mt_groups groups, int64_t index)
{
    int group = 0;
    while (index >= mt_cpu_n_tile_of(groups, group)) {
        index -= mt_cpu_n_tile_of(groups, group);
        group++;
    }
    const int64_t row = groups.offset[group] + index * MT_GEMM_TILE;
    return (struct mt_cpu_tile){group, row,
                                mt_min_i64(groups.offset[group + 1] - row, MT_GEMM_TILE)};
}

#endif
