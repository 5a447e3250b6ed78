#include "placement/policy.h"

#include "base/size.h"
#include "placement/exchange.h"
#include "placement/grow.h"

#include <string.h>

const struct mt_policy mt_policies[] = {
    {.name = "ep",
     .description = "expert parallelism: every expert works at its owner only",
     .before_gate = mt_policy_owners_only,
     .split = MT_SPLIT_LOCAL_FIRST,
     .slots = MT_SLOTS_NONE},
    {.name = "fsdp",
     .description = "every expert everywhere: no rows travel, all experts do",
     .before_gate = mt_policy_fsdp_before_gate,
     .split = MT_SPLIT_LOCAL_FIRST,
     .slots = MT_SLOTS_ALL},
    {.name = "fastermoe",
     .description =
         "exact counts: the hottest experts to all ranks while predicted time falls (PPoPP'22)",
     .before_gate = mt_policy_owners_only,
     .after_gate = mt_policy_fastermoe_after_gate,
     .split = MT_SPLIT_LOCAL_FIRST,
     .slots = MT_SLOTS_FEW},
    {.name = "smartmoe",
     .description = "history: owners swap experts now and then, no copies (ATC'23)",
     .before_gate = mt_policy_owners_only,
     .reshard = mt_policy_smartmoe_reshard,
     .split = MT_SPLIT_LOCAL_FIRST,
     .slots = MT_SLOTS_NONE},
    {.name = "flexmoe",
     .description = "history: copies that stay, changed one by one when loads drift (SIGMOD'23)",
     .before_gate = mt_policy_flexmoe_before_gate,
     .split = MT_SPLIT_LOCAL_FIRST,
     .slots = MT_SLOTS_FEW},
    {.name = "eplb",
     .description =
         "history: copies for the largest load a replica, packed within nodes (DeepSeek)",
     .before_gate = mt_policy_eplb_before_gate,
     .reshard = mt_policy_eplb_reshard,
     .split = MT_SPLIT_LOCAL_FIRST,
     .slots = MT_SLOTS_FEW},
    {.name = "fssdp",
     .description = "history: the hottest experts share the slots; exact counts correct (Hecate)",
     .before_gate = mt_policy_fssdp_before_gate,
     .after_gate = mt_policy_fssdp_after_gate,
     .reshard = mt_policy_fssdp_reshard,
     .split = MT_SPLIT_SETTLED,
     .slots = MT_SLOTS_FEW},
    {.name = "fsep",
     .description =
         "history: all slots full, replicas by load, spread over nodes (LAER, ASPLOS'26)",
     .before_gate = mt_policy_fsep_before_gate,
     .split = MT_SPLIT_SETTLED,
     .slots = MT_SLOTS_FEW,
     .cuts_experts = true},
    {.name = "least_loaded",
     .description = "exact counts: overflow of full ranks to the least loaded, above a skew of 1.3",
     .before_gate = mt_policy_owners_only,
     .after_gate = mt_policy_least_loaded_after_gate,
     .split = MT_SPLIT_SETTLED,
     .slots = MT_SLOTS_FEW},
    {.name = "quota",
     .description = "exact counts: fewest replicas inside nodes that reach the least largest load",
     .before_gate = mt_policy_owners_only,
     .after_gate = mt_policy_quota_after_gate,
     .split = MT_SPLIT_SETTLED,
     .slots = MT_SLOTS_FEW},
    {.name = "adaptive",
     .description = "history for what can be hidden, exact counts for the rest, by predicted time",
     .before_gate = mt_policy_adaptive_before_gate,
     .after_gate = mt_policy_adaptive_after_gate,
     .split = MT_SPLIT_SETTLED,
     .slots = MT_SLOTS_FEW},
};
const int mt_n_policy = (int)(sizeof(mt_policies) / sizeof(mt_policies[0]));

const struct mt_policy *mt_policy_find(const char *name)
{
    for (int i = 0; i < mt_n_policy; ++i) {
        if (strcmp(mt_policies[i].name, name) == 0) {
            return &mt_policies[i];
        }
    }
    return NULL;
}

/* Two copies cure a skew of 3 between 8 ranks, and about one a rank does at 64 (UltraEP, arXiv
 * 2606.04101: some 50 replicas); a quarter of the experts that a rank owns where those are many. */
static int few_slots(int n_rank, int n_expert)
{
    const int n_own = n_expert / n_rank;
    return (int)mt_max_i64(2, n_own / 4);
}

int mt_policy_slot_count(const struct mt_policy *policy, int n_rank, int n_expert, int64_t wanted)
{
    /* A rank owns at least E / R experts of a layer unless owners moved: then it may want all. */
    const int64_t most = n_rank == 1 ? 0 : n_expert;
    switch (policy->slots) {
    case MT_SLOTS_NONE:
        return 0;
    case MT_SLOTS_FEW:
        return (int)mt_min_i64(wanted > 0 ? wanted : few_slots(n_rank, n_expert), most);
    case MT_SLOTS_ALL:
        return (int)mt_min_i64(wanted > 0 ? wanted : most, most);
    }
    return 0;
}

enum mt_split_rule mt_policy_split(const struct mt_policy *policy, enum mt_split_rule wanted)
{
    return wanted == MT_SPLIT_AUTO ? policy->split : wanted;
}

bool mt_policy_scratch_bytes(int n_rank, int n_expert, int n_layer, int64_t max_instance,
                             int64_t *n_bytes)
{
    /* Words that planners cut, all in address space until touched. Rank: two states of growing (18
     * each), flow and order: 45, and as much again where adaptive tries what quota would do.
     * Expert: some 30. Instance: 5 in a flow, 6 in a move, quotas, placements: below 40. Pairs:
     * weights or counts of rivals, rows by node and expert, and the quotas that adaptive predicts
     * with. N_ARRAY^2 words are the alignment of 2048 cuts. */
    enum { N_ARRAY = 128, N_MATRIX = 4 };
    /* Rows by source and target, where exchanges are priced by rounds. */
    const int64_t n_priced = n_rank <= MT_EXCHANGE_RANKS ? n_rank : 0;
    const int64_t exchange = n_priced * n_priced + mt_exchange_scratch_bytes(n_rank);
    int64_t pairs = 0;
    int64_t owners = 0;
    int64_t words = 0;
    return mt_size_multiply(n_rank, n_expert, &pairs) &&
           mt_size_multiply(n_layer, n_expert, &owners) &&
           mt_size_multiply(pairs, N_MATRIX, &pairs) &&
           mt_size_multiply((int64_t)n_rank + n_expert + max_instance + owners + N_ARRAY, N_ARRAY,
                            &words) &&
           mt_size_add(words, pairs, &words) && mt_size_add(words, MT_PLANNER_PAIRS, &words) &&
           mt_size_add(words, exchange, &words) &&
           mt_size_multiply(words, (int64_t)sizeof(int64_t), n_bytes);
}
