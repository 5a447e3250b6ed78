/* EPLB's packing of replicas into slots (github.com/deepseek-ai/EPLB): which expert each physical
 * slot of a machine holds, as for inference, where slots have no owners. The policy eplb takes its
 * replicas and its owners from it. Internal to placement/. */
#ifndef MT_PLACEMENT_EPLB_H
#define MT_PLACEMENT_EPLB_H

#include "base/memory.h"

#include <stdint.h>

/* n_group divides E, n_node divides n_group and n_rank, n_rank divides n_slot, n_slot >= E. Without
 * groups or nodes: 1 each (upstream's "global" policy). */
struct mt_eplb_shape {
    int n_expert, n_slot; /* over all ranks */
    int n_group;          /* experts of a group stay on one node */
    int n_node, n_rank;
};
/* load [E]; expert [n_slot] written: slots of a rank and ranks of a node are contiguous. Groups to
 * nodes, replicas within each node, slots to ranks; ties to lower ids. */
void mt_eplb_pack(const int64_t *load, const struct mt_eplb_shape *shape, struct mt_arena *scratch,
                  int *expert);

/* n_replica [n]: one of each item, then to the item with the largest load a replica until there are
 * n_slot, or `most` of each. item [n_slot], or NULL: which item each replica is of, in that order.
 */
void mt_eplb_replicate(const int64_t *load, int n, int64_t n_slot, int most, int *n_replica,
                       int *item);

#endif
