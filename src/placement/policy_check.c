/* Whether a policy can do anything here, before a run is paid for. */
#include "placement/policy.h"

#include <string.h>

/* `quota` makes copies inside nodes only. */
static enum mt_status check_nodes(const struct mt_policy *policy, const struct mt_cluster *cluster)
{
    const bool stays_in_nodes = strcmp(policy->name, "quota") == 0;
    if (stays_in_nodes && cluster->n_rank > 1 && cluster->n_node == cluster->n_rank) {
        return MT_FAIL(
            MT_ERR_CONFIG,
            "placement.policy = \"quota\" makes copies only inside nodes, and each of the "
            "%d nodes has one rank; expected a node with more; choose \"adaptive\" or "
            "\"least_loaded\", or set comm.ranks_per_node",
            cluster->n_node);
    }
    return MT_OK;
}

enum mt_status mt_policy_check(const struct mt_policy *policy, const struct mt_cluster *cluster,
                               int n_expert, int64_t wanted)
{
    const int n_own = n_expert / cluster->n_rank; /* a rank owns at least as many */
    const int n_other = n_expert - n_own;
    if (strcmp(policy->name, "fsdp") == 0 && wanted > 0 && wanted < n_other) {
        return MT_FAIL(
            MT_ERR_CONFIG,
            "placement.policy = \"fsdp\" holds every expert on every rank: %d slots beside "
            "%d of its own, but placement.slots = %lld; expected %d or \"auto\"; raise it or "
            "choose another policy",
            n_other, n_own, (long long)wanted, n_other);
    }
    return check_nodes(policy, cluster);
}
