#include "profile/profile.h"

#include "base/memory.h"
#include "base/size.h"

enum mt_status mt_profile_init(struct mt_profile *profile, int n_rank, int n_step, int n_layer)
{
    enum mt_status status = MT_OK;
    const int64_t n = (int64_t)n_rank * n_step;
    MT_ASSERT(n_rank >= 1 && n_step >= 0 && n_layer >= 0);
    *profile = (struct mt_profile){
        .n_rank = n_rank, .n_layer = n_layer, .n_step = n_step, .window = n_step};
    MT_TRY_GOTO(MT_ALLOCATE(profile->rank, n_rank, "profile"));
    MT_TRY_GOTO(MT_ALLOCATE(profile->step_number, n_step, "profile"));
    MT_TRY_GOTO(MT_ALLOCATE(profile->step, n, "steps of a profile"));
    MT_TRY_GOTO(MT_ALLOCATE(profile->rows, n * n_layer, "rows of a profile"));
    MT_TRY_GOTO(MT_ALLOCATE(profile->expert_ns, n * n_layer, "expert times of a profile"));
    for (int s = 0; s < n_step; ++s) {
        profile->step_number[s] = s + 1;
    }
    for (int r = 0; r < n_rank; ++r) {
        profile->rank[r].is_there = true;
        profile->rank[r].local_rank = r;
    }
    return MT_OK;
cleanup:
    mt_profile_clear(profile);
    return status;
}

void mt_profile_clear(struct mt_profile *profile)
{
    const int64_t n = profile->step != NULL ? (int64_t)profile->n_rank * profile->n_step : 0;
    for (int64_t i = 0; i < n; ++i) {
        mt_memory_free(profile->step[i].collective);
        mt_memory_free(profile->step[i].span);
    }
    for (int r = 0; profile->rank != NULL && r < profile->n_rank; ++r) {
        mt_memory_free(profile->rank[r].knot);
    }
    for (int i = 0; i < profile->n_problem; ++i) {
        mt_memory_free(profile->problem[i]);
    }
    mt_memory_free(profile->problem);
    mt_memory_free(profile->expert_steps);
    mt_memory_free(profile->expert_rows);
    mt_memory_free(profile->expert_ns);
    mt_memory_free(profile->rows);
    mt_memory_free(profile->step);
    mt_memory_free(profile->step_number);
    mt_memory_free(profile->rank);
    *profile = (struct mt_profile){0};
}

enum mt_status mt_profile_reserve_experts(struct mt_profile *profile, int n_expert)
{
    /* 128 MiB; 1,000 ranks with 40 layers of 256 experts have 80. */
    enum { MAX_EXPERTS = 1 << 16, MAX_COUNTS = 1 << 24 };
    const int64_t n_layer_of_all = (int64_t)profile->n_rank * profile->n_layer;
    profile->n_expert = n_expert;
    if (n_expert < 0 || n_expert > MAX_EXPERTS || n_layer_of_all * n_expert > MAX_COUNTS) {
        profile->n_expert = 0;
        return MT_OK;
    }
    MT_TRY(MT_ALLOCATE(profile->expert_rows, n_layer_of_all * n_expert, "rows of experts"));
    return MT_ALLOCATE(profile->expert_steps, profile->n_rank, "rows of experts");
}

enum mt_status mt_profile_reserve_collectives(struct mt_profile_step *step, int n)
{
    mt_memory_free(step->collective);
    step->collective = NULL;
    step->n_collective = 0;
    MT_TRY(MT_ALLOCATE(step->collective, n, "collectives of a profile"));
    step->n_collective = n;
    return MT_OK;
}

enum mt_status mt_profile_reserve_spans(struct mt_profile_step *step, int n)
{
    mt_memory_free(step->span);
    step->span = NULL;
    step->n_span = 0;
    MT_TRY(MT_ALLOCATE(step->span, n, "spans of a profile"));
    step->n_span = n;
    return MT_OK;
}

int64_t mt_profile_align(const struct mt_profile_knot *knot, int n_knot, int64_t local_ns)
{
    if (n_knot == 0) {
        return local_ns;
    }
    int after = 0;
    while (after < n_knot && knot[after].local_ns <= local_ns) {
        ++after;
    }
    if (after == 0 || after == n_knot) {
        return local_ns + knot[after == 0 ? 0 : n_knot - 1].offset_ns;
    }
    const struct mt_profile_knot *left = &knot[after - 1];
    const struct mt_profile_knot *right = &knot[after];
    const double part =
        (double)(local_ns - left->local_ns) / (double)(right->local_ns - left->local_ns);
    const double drift_ns = (double)(right->offset_ns - left->offset_ns);
    return local_ns + left->offset_ns + (int64_t)(drift_ns * part + (drift_ns < 0 ? -0.5 : 0.5));
}
