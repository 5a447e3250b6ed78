/* Policies: pure functions from loads, machine and memory to placements.
 *
 * A policy is one file policy_<name>.c and one row of the table in policy.c. It has up to three
 * moments, each a pure function of its input that is computed alike on every rank:
 *
 *   reshard      between two steps, every placement.reshard_interval: new owners (parameters and
 *                optimizer state move)
 *   before_gate  per micro-batch and layer, from loads of the past: copies that travel unseen
 *                under attention
 *   after_gate   per micro-batch and layer, from the exact counts: late copies, which are exposed
 *
 * Then the rows of every source are split over the instances by the policy's rule. No policy
 * changes the result of training. Nothing allocates: scratch is cut from an arena and released. */
#ifndef MT_PLACEMENT_POLICY_H
#define MT_PLACEMENT_POLICY_H

#include "placement/placement.h"

/* What before_gate and after_gate may look at. Loads are rows: (token, choice) pairs. */
struct mt_policy_input {
    const struct mt_cluster *cluster;
    int n_expert, layer;
    int64_t step;           /* 1-based, of the step being made */
    int n_micro;            /* micro-batches a step */
    int slots;              /* copies of this layer that every rank can hold beside its own */
    int overlap;            /* experts whose copies travel under attention; -1: from the costs */
    bool calibrate;         /* exact counts may correct what history got wrong */
    bool is_held;           /* the copies that before_gate finds have stayed from the micro-batch
                               before: what it keeps of them does not travel */
    int n_history;          /* steps of history; 0 at the start */
    const int64_t *history; /* [n_history, E] rows per expert of whole steps, newest last */
    int n_recent;           /* micro-batches of history */
    const int64_t *recent;  /* [n_recent, E] rows per expert, all ranks, newest last */
    const int64_t *count;   /* [R,E] of this micro-batch: rows of source r for expert e; NULL
                               before the gate */
};

/* before_gate: on entry `placement` is what the policy last planned before the gate of this layer
 * (at first: owners only), with the owners in force; on return what is to be materialised, nothing
 * late. after_gate: on entry what before_gate returned; on return that and late instances beside.
 * At most `slots` copies a rank; the placement has room for E + R * slots instances. */
typedef void (*mt_policy_fn)(const struct mt_policy_input *input, struct mt_arena *scratch,
                             struct mt_placement *placement);

/* What reshard may look at: all MoE layers at once. */
struct mt_reshard_input {
    const struct mt_cluster *cluster;
    int n_layer, first_layer; /* MoE layers are first_layer .. n_layer - 1 */
    int n_expert;
    int64_t step;
    int n_micro, slots, overlap;
    int capacity;                     /* experts that a rank can own over all layers */
    const struct mt_history *history; /* of all layers */
};
/* owner [n_layer, E]: on entry in force, on return wanted, at most `capacity` a rank; rows below
 * first_layer are left alone. */
typedef void (*mt_reshard_fn)(const struct mt_reshard_input *input, struct mt_arena *scratch,
                              int *owner);

/* Slots of placement.slots = "auto". */
enum mt_policy_slots {
    MT_SLOTS_NONE, /* makes no copies */
    MT_SLOTS_FEW,  /* a few copies cure a skew (policy.c) */
    MT_SLOTS_ALL   /* may want every expert everywhere */
};

struct mt_policy {
    const char *name, *description; /* one line */
    mt_policy_fn before_gate;
    mt_policy_fn after_gate;  /* NULL: what was planned before the gate stands */
    mt_reshard_fn reshard;    /* NULL: owners stay */
    enum mt_split_rule split; /* not auto */
    enum mt_policy_slots slots;
    bool cuts_experts; /* parameters are cut over all ranks; owners are homes (store/store.h) */
};
extern const struct mt_policy mt_policies[];
extern const int mt_n_policy;
const struct mt_policy *mt_policy_find(const char *name); /* NULL: none of that name */

/* Slots a layer that `policy` gets; wanted = placement.slots, 0: auto. */
int mt_policy_slot_count(const struct mt_policy *policy, int n_rank, int n_expert, int64_t wanted);
/* The rule by which rows are split under the policy; wanted = placement.split. */
enum mt_split_rule mt_policy_split(const struct mt_policy *policy, enum mt_split_rule wanted);
/* MT_ERR_CONFIG, with the numbers, for slots that cannot be and where the policy can do nothing. */
enum mt_status mt_policy_check(const struct mt_policy *policy, const struct mt_cluster *cluster,
                               int n_expert, int64_t wanted);
/* Scratch that any moment of any policy, mt_split and mt_predict need at most, together. False:
 * does not fit int64_t. */
bool mt_policy_scratch_bytes(int n_rank, int n_expert, int n_layer, int64_t max_instance,
                             int64_t *n_bytes);

/* The rows of the table; each is described in its file. Owners only is `ep`, and what policies
 * start from that make copies after the gate or none. */
void mt_policy_owners_only(const struct mt_policy_input *input, struct mt_arena *scratch,
                           struct mt_placement *placement);
void mt_policy_fsdp_before_gate(const struct mt_policy_input *input, struct mt_arena *scratch,
                                struct mt_placement *placement);
void mt_policy_fastermoe_after_gate(const struct mt_policy_input *input, struct mt_arena *scratch,
                                    struct mt_placement *placement);
void mt_policy_smartmoe_reshard(const struct mt_reshard_input *input, struct mt_arena *scratch,
                                int *owner);
void mt_policy_flexmoe_before_gate(const struct mt_policy_input *input, struct mt_arena *scratch,
                                   struct mt_placement *placement);
void mt_policy_eplb_before_gate(const struct mt_policy_input *input, struct mt_arena *scratch,
                                struct mt_placement *placement);
void mt_policy_eplb_reshard(const struct mt_reshard_input *input, struct mt_arena *scratch,
                            int *owner);
void mt_policy_fssdp_before_gate(const struct mt_policy_input *input, struct mt_arena *scratch,
                                 struct mt_placement *placement);
void mt_policy_fssdp_after_gate(const struct mt_policy_input *input, struct mt_arena *scratch,
                                struct mt_placement *placement);
void mt_policy_fssdp_reshard(const struct mt_reshard_input *input, struct mt_arena *scratch,
                             int *owner);
void mt_policy_fsep_before_gate(const struct mt_policy_input *input, struct mt_arena *scratch,
                                struct mt_placement *placement);
void mt_policy_least_loaded_after_gate(const struct mt_policy_input *input,
                                       struct mt_arena *scratch, struct mt_placement *placement);
void mt_policy_quota_after_gate(const struct mt_policy_input *input, struct mt_arena *scratch,
                                struct mt_placement *placement);
void mt_policy_adaptive_before_gate(const struct mt_policy_input *input, struct mt_arena *scratch,
                                    struct mt_placement *placement);
void mt_policy_adaptive_after_gate(const struct mt_policy_input *input, struct mt_arena *scratch,
                                   struct mt_placement *placement);

#endif
