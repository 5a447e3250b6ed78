/* libmtplace from C: one MoE layer of 16 experts on 8 ranks in 2 nodes, one expert much hotter than
 * the others. What would each policy make of it?
 *
 *   cc example.c -lmtplace -o example && ./example */
#include <mtplace.h>
#include <stdio.h>
#include <stdlib.h>

enum { RANKS = 8, EXPERTS = 16, STEPS = 6 };

static void check(int code)
{
    if (code != MTPLACE_OK) {
        fprintf(stderr, "mtplace: %s\n", mtplace_error());
        exit(1);
    }
}

/* Rows of rank r for expert e: expert 3 takes a third of all, and drifts. */
static void make_counts(int step, int64_t *counts)
{
    for (int r = 0; r < RANKS; r++) {
        for (int e = 0; e < EXPERTS; e++) {
            counts[r * EXPERTS + e] =
                200 + 13 * ((r + e + step) % 5) + (e == 3 ? 1500 + 100 * step : 0);
        }
    }
}

/* An H100-class device and an expert of 4096 x 2048: all in picoseconds and bytes. */
static void describe_machine(mtplace_planner *planner)
{
    static const int32_t node[RANKS] = {0, 0, 0, 0, 1, 1, 1, 1};
    check(mtplace_set_nodes(planner, node));
    check(mtplace_set(planner, "row_ps", 127000));
    check(mtplace_set(planner, "instance_ps", 8000000));
    check(mtplace_set(planner, "attention_ps", 1500000000));
    check(mtplace_set(planner, "node_alpha_ps", 3000000));
    check(mtplace_set(planner, "node_kib_ps", 2276));
    check(mtplace_set(planner, "network_alpha_ps", 8000000));
    check(mtplace_set(planner, "network_kib_ps", 20480));
    check(mtplace_set(planner, "row_bytes", 8192));
    check(mtplace_set(planner, "expert_bytes", 50331648));
}

static void study(const char *policy)
{
    mtplace_planner *planner = NULL;
    int64_t counts[RANKS * EXPERTS];
    struct mtplace_prediction prediction;
    check(mtplace_create(policy, RANKS, 1, EXPERTS, &planner));
    describe_machine(planner);
    for (int step = 0; step < STEPS; step++) {
        make_counts(step, counts);
        check(mtplace_plan_before(planner, 0));
        check(mtplace_plan_after(planner, 0, counts));
        check(mtplace_predict(planner, &prediction, sizeof(prediction)));
        check(mtplace_end_step(planner));
    }
    printf("%-12s %10lld us, ideal %10lld us, %3lld copies, %2lld late\n", policy,
           (long long)(prediction.total_ps / 1000000), (long long)(prediction.ideal_ps / 1000000),
           (long long)prediction.n_copy, (long long)prediction.n_late);
    mtplace_destroy(planner);
}

int main(void)
{
    if (mtplace_api_version() != MTPLACE_API_VERSION) {
        fprintf(stderr, "this libmtplace has another interface: %s\n", mtplace_version());
        return 1;
    }
    for (int i = 0; i < mtplace_n_policy(); i++) {
        study(mtplace_policy_name(i));
    }
    return 0;
}
