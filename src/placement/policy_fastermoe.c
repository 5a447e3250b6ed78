/* FasterMoE's dynamic shadowing (He et al., PPoPP'22, section 4.1): after the gate, with exact
 * counts, the hottest experts are sent to all ranks while the model of the layer's time falls.
 *
 * With B the experts' rows, largest first, c the time of a row's computation, f of sending a row, m
 * of sending an expert, shadowing the k hottest is predicted to take
 *
 *     T(k) = 3 c B[k] + 4 f B[k] + k m
 *
 * (forward once and backward twice the computation; rows to experts and back, both ways). Experts
 * are shadowed one after the other until the first that does not lower T; all copies are late. */
#include "placement/draft.h"
#include "placement/ps.h"

static int64_t time_ps(const struct mt_cluster *cluster, int64_t n_row, int n_shadow)
{
    enum { PASSES = 3, EXCHANGES = 4, KIB = 1024 };
    const int64_t kib_ps = cluster->costs.kib_ps[mt_draft_level(cluster)];
    const int64_t bytes = mt_ps_times(n_row, cluster->row_bytes);
    const int64_t compute = mt_ps_times(PASSES, mt_ps_times(cluster->costs.row_ps, n_row));
    const int64_t rows = mt_ps_times(EXCHANGES, mt_ps_times(bytes, kib_ps) / KIB);
    const int64_t expert = mt_ps_times(cluster->expert_bytes, kib_ps) / KIB;
    return mt_ps_add(mt_ps_add(compute, rows), mt_ps_times(n_shadow, expert));
}

/* Everywhere or not at all: the ranks that lack the expert have a slot each. */
static bool can_shadow(const struct mt_draft *draft, int expert)
{
    for (int rank = 0; rank < draft->cluster->n_rank; ++rank) {
        if (!mt_draft_has(draft, expert, rank) && draft->n_free[rank] == 0) {
            return false;
        }
    }
    return true;
}

void mt_policy_fastermoe_after_gate(const struct mt_policy_input *input, struct mt_arena *scratch,
                                    struct mt_placement *placement)
{
    const int64_t mark = mt_arena_mark(scratch);
    const int n_expert = input->n_expert;
    const int n_rank = placement->n_rank;
    int64_t *load = mt_draft_cut(scratch, n_expert, sizeof(*load));
    int *order = mt_draft_cut(scratch, n_expert, sizeof(*order));
    struct mt_draft draft;
    (void)mt_load_of_counts(input, load);
    mt_load_order(load, n_expert, scratch, order);
    mt_draft_init(&draft, input, placement, scratch);
    int64_t best = time_ps(input->cluster, load[order[0]], 0);
    for (int i = 0; i + 1 < n_expert && n_rank > 1 && can_shadow(&draft, order[i]); ++i) {
        const int64_t time = time_ps(input->cluster, load[order[i + 1]], i + 1);
        if (time >= best) {
            break;
        }
        best = time;
        for (int rank = 0; rank < n_rank; ++rank) {
            if (mt_draft_can(&draft, order[i], rank)) {
                mt_draft_add(&draft, order[i], rank, MT_DRAFT_LATE);
            }
        }
    }
    mt_draft_write(&draft, placement);
    mt_arena_release(scratch, mark);
}
