#include "placement/policy.h"

#include <string.h>

const struct mt_policy mt_policies[] = {
    {.name = "ep",
     .description = "expert parallelism: every expert works at its owner only",
     .plan = mt_policy_ep_plan},
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
