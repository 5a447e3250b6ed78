#include "made_run.h"

#include "base/memory.h"
#include "base/random.h"
#include "base/size.h"

#include <stdio.h>

enum { MAX_RECORD = 4096, KIND_GATHER = 0, KIND_ROWS, KIND_DENSE, KIND_COPIES };

static const int64_t attention_ns = 900000, gate_ns = 60000, row_ns = 2000, instance_ns = 50000,
                     head_ns = 700000, update_ns = 300000, transfer_ns = 150000, save_ns = 4000000,
                     pack_ns = 40000;
static const int64_t mean_rows = 500;

/* A world that goes along. */
struct world {
    const struct made_run *run;
    struct mt_profile *profile;
    int step;
    int64_t number;   /* of the next collective */
    int64_t *now_ns;  /* [R] */
    int64_t *post_ns; /* [MAX_RECORD, R] of collectives by number modulo */
    uint64_t n_draw;
};

/* One number in [1, 1 + jitter], seeded. */
static double scatter(struct world *world)
{
    return 1 + world->run->jitter * mt_random_uniform(world->run->seed, 0, world->n_draw++);
}

static bool is_traced(const struct world *world)
{
    return world->step >= world->run->traced_from;
}

static bool is_detailed(const struct world *world)
{
    return world->step >= world->run->detailed_from;
}

static double speed_of(const struct world *world, int rank)
{
    const struct made_run *run = world->run;
    const bool is_slow = rank == run->slow_rank || rank == run->also_slow_rank;
    return is_slow && world->step >= run->slow_from ? run->slowdown : 1;
}

static void work_on(struct world *world, int rank, int phase, int layer, int micro, int64_t ns)
{
    struct mt_profile_step *step = mt_profile_step(world->profile, world->step, rank);
    ns = (int64_t)((double)ns * speed_of(world, rank) * scatter(world));
    step->phase_ns[phase] += ns;
    if (phase == MT_PHASE_EXPERT || phase == MT_PHASE_EXPERT_BACKWARD) {
        mt_profile_by_layer(world->profile, world->profile->expert_ns, world->step, rank)[layer] +=
            ns;
    }
    if (is_traced(world)) {
        step->span[step->n_span++] = (struct mt_profile_span){.track = MT_TRACK_COMPUTE,
                                                              .phase = phase,
                                                              .layer = layer,
                                                              .micro = micro,
                                                              .begin_ns = world->now_ns[rank],
                                                              .end_ns = world->now_ns[rank] + ns};
    }
    world->now_ns[rank] += ns;
}

static void work(struct world *world, int phase, int layer, int micro, int64_t ns)
{
    for (int r = 0; r < world->run->n_rank; ++r) {
        work_on(world, r, phase, layer, micro, ns);
    }
}

static int64_t rows_of(const struct world *world, int rank)
{
    const struct made_run *run = world->run;
    if (run->hot_rank < 0 || run->n_rank == 1) {
        return mean_rows;
    }
    const double others = (run->n_rank - run->hot) / (run->n_rank - 1);
    return (int64_t)((double)mean_rows * (rank == run->hot_rank ? run->hot : others));
}

static void experts(struct world *world, int phase, int layer, int micro)
{
    for (int r = 0; r < world->run->n_rank; ++r) {
        const int64_t rows = rows_of(world, r);
        if (phase == MT_PHASE_EXPERT) {
            mt_profile_by_layer(world->profile, world->profile->rows, world->step, r)[layer] +=
                rows;
        }
        const int64_t times = phase == MT_PHASE_EXPERT ? 1 : 2;
        work_on(world, r, phase, layer, micro, times * (instance_ns + rows * row_ns));
    }
}

/* Bit r: from rank r. */
static uint64_t sources_of(const struct world *world, int rank, int phase)
{
    const int n_rank = world->run->n_rank;
    if (n_rank > 64 ||
        (phase == MT_PHASE_REDUCE && world->run->owner >= 0 && world->run->owner != rank)) {
        return 0;
    }
    return n_rank == 64 ? ~(uint64_t)0 : ((uint64_t)1 << n_rank) - 1;
}

/* All ranks post the next collective; returns its number. */
static int64_t post(struct world *world, int kind, int phase, int busy, int layer, int micro)
{
    const int64_t number = world->number++;
    for (int r = 0; r < world->run->n_rank; ++r) {
        struct mt_profile_step *step = mt_profile_step(world->profile, world->step, r);
        world->post_ns[number % MAX_RECORD * world->run->n_rank + r] = world->now_ns[r];
        if (is_detailed(world)) {
            step->collective[step->n_collective++] =
                (struct mt_profile_collective){.number = number,
                                               .kind = kind,
                                               .phase = phase,
                                               .busy_phase = busy,
                                               .layer = layer,
                                               .micro = micro,
                                               .begin_ns = world->now_ns[r],
                                               .last_peer = -1,
                                               .n_bytes = 65536,
                                               .n_source = world->run->n_rank - 1,
                                               .sources = sources_of(world, r, phase)};
        }
    }
    return number;
}

/* The record of a collective, posted in this step or the one before; NULL: not recorded. */
static struct mt_profile_collective *record_of(struct world *world, int rank, int64_t number)
{
    for (int s = world->step; s >= 0 && s >= world->step - 1; --s) {
        struct mt_profile_step *step = mt_profile_step(world->profile, s, rank);
        for (int i = step->n_collective - 1; i >= 0; --i) {
            if (step->collective[i].number == number) {
                return &step->collective[i];
            }
        }
    }
    return NULL;
}

/* When the last rank has come for which this one waits. */
static int64_t last_post_ns(const struct world *world, int64_t number, int phase, int rank)
{
    const int n_rank = world->run->n_rank;
    const int owner = phase == MT_PHASE_REDUCE ? world->run->owner : -1;
    int64_t last_ns = 0;
    for (int r = 0; r < n_rank; ++r) {
        if (owner < 0 || owner == rank || owner == r || r == rank) {
            last_ns = mt_max_i64(last_ns, world->post_ns[number % MAX_RECORD * n_rank + r]);
        }
    }
    return last_ns;
}

static void wait_for(struct world *world, int64_t number, int phase)
{
    const int n_rank = world->run->n_rank;
    if (number < 0) {
        return;
    }
    for (int r = 0; r < n_rank; ++r) {
        const int64_t last_ns = last_post_ns(world, number, phase, r);
        struct mt_profile_step *step = mt_profile_step(world->profile, world->step, r);
        struct mt_profile_collective *record = record_of(world, r, number);
        const int64_t done_ns =
            last_ns + (n_rank > 1 ? (int64_t)((double)transfer_ns * scatter(world)) : 0);
        const int64_t waited_ns = mt_max_i64(0, done_ns - world->now_ns[r]);
        if (record != NULL) {
            record->need_ns = world->now_ns[r];
            record->done_ns = done_ns;
        }
        step->phase_ns[phase] += waited_ns;
        step->wait_ns[phase] += waited_ns;
        world->now_ns[r] += waited_ns;
    }
}

static void layer_forward(struct world *world, int layer, int micro, int64_t parameters)
{
    wait_for(world, parameters, MT_PHASE_MATERIALIZE);
    const int64_t copies = world->run->has_copies ? post(world, KIND_COPIES, MT_PHASE_MATERIALIZE,
                                                         MT_PHASE_MATERIALIZE, layer, micro)
                                                  : -1;
    work(world, MT_PHASE_ATTENTION, layer, micro, attention_ns);
    work(world, MT_PHASE_GATE, layer, micro, gate_ns);
    wait_for(world, post(world, KIND_GATHER, MT_PHASE_GATE, MT_PHASE_ATTENTION, layer, micro),
             MT_PHASE_GATE);
    work(world, MT_PHASE_DISPATCH, layer, micro, pack_ns);
    wait_for(world, post(world, KIND_ROWS, MT_PHASE_DISPATCH, MT_PHASE_DISPATCH, layer, micro),
             MT_PHASE_DISPATCH);
    wait_for(world, copies, MT_PHASE_MATERIALIZE);
    experts(world, MT_PHASE_EXPERT, layer, micro);
    wait_for(world, post(world, KIND_ROWS, MT_PHASE_COMBINE, MT_PHASE_EXPERT, layer, micro),
             MT_PHASE_COMBINE);
}

/* Returns the number of the dense gradients' reduction, -1 before the last micro-batch. */
static int64_t layer_backward(struct world *world, int layer, int micro)
{
    wait_for(world, post(world, KIND_ROWS, MT_PHASE_COMBINE_BACKWARD, MT_PHASE_HEAD, layer, micro),
             MT_PHASE_COMBINE_BACKWARD);
    experts(world, MT_PHASE_EXPERT_BACKWARD, layer, micro);
    wait_for(
        world,
        post(world, KIND_ROWS, MT_PHASE_DISPATCH_BACKWARD, MT_PHASE_EXPERT_BACKWARD, layer, micro),
        MT_PHASE_DISPATCH_BACKWARD);
    work(world, MT_PHASE_GATE_BACKWARD, layer, micro, gate_ns);
    work(world, MT_PHASE_ATTENTION_BACKWARD, layer, micro, 2 * attention_ns);
    return micro == world->run->n_micro - 1
               ? post(world, KIND_DENSE, MT_PHASE_REDUCE, MT_PHASE_ATTENTION_BACKWARD, -1, micro)
               : -1;
}

static void one_step(struct world *world, int64_t *parameters)
{
    const struct made_run *run = world->run;
    int64_t gradients[64];
    for (int micro = 0; micro < run->n_micro; ++micro) {
        for (int r = 0; r < run->n_rank; ++r) {
            work_on(world, r, MT_PHASE_DATA, -1, micro,
                    pack_ns + (r == run->late_rank ? run->late_ns : 0));
        }
        for (int l = 0; l < run->n_layer; ++l) {
            layer_forward(world, l, micro, micro == 0 ? parameters[l] : -1);
        }
        work(world, MT_PHASE_HEAD, -1, micro, head_ns);
        for (int l = run->n_layer - 1; l >= 0; --l) {
            gradients[l] = layer_backward(world, l, micro);
        }
    }
    for (int l = run->n_layer - 1; l >= 0; --l) {
        wait_for(world, gradients[l], MT_PHASE_REDUCE);
    }
    wait_for(world, post(world, KIND_GATHER, MT_PHASE_CLIP, MT_PHASE_REDUCE, -1, -1),
             MT_PHASE_CLIP);
    work(world, MT_PHASE_UPDATE, -1, -1, update_ns);
    for (int l = 0; l < run->n_layer; ++l) {
        parameters[l] = post(world, KIND_DENSE, MT_PHASE_MATERIALIZE, MT_PHASE_UPDATE, -1, -1);
    }
}

static enum mt_status make_step(struct world *world, int64_t *parameters)
{
    const struct made_run *run = world->run;
    const int n_record = 64 + run->n_micro * run->n_layer * 32;
    for (int r = 0; r < run->n_rank; ++r) {
        struct mt_profile_step *step = mt_profile_step(world->profile, world->step, r);
        MT_TRY(mt_profile_reserve_collectives(step, n_record));
        MT_TRY(mt_profile_reserve_spans(step, n_record));
        step->n_collective = 0;
        step->n_span = 0;
        step->is_there = true;
        step->begin_ns = world->now_ns[r];
        step->n_token = (int64_t)run->n_micro * 256;
        step->memory_bytes = ((int64_t)300 << 20) + ((int64_t)r << 20);
    }
    one_step(world, parameters);
    for (int r = 0; r < run->n_rank; ++r) {
        mt_profile_step(world->profile, world->step, r)->end_ns = world->now_ns[r];
    }
    wait_for(world, post(world, KIND_GATHER, MT_PHASE_METRICS, MT_PHASE_UPDATE, -1, -1),
             MT_PHASE_METRICS);
    if (run->checkpoint_every > 0 && (world->step + 1) % run->checkpoint_every == 0) {
        for (int r = 0; r < run->n_rank; ++r) {
            work_on(world, r, MT_PHASE_CHECKPOINT, -1, -1,
                    save_ns + (r == run->stalled_rank ? run->stall_ns : 0));
        }
    }
    for (int r = 0; r < run->n_rank; ++r) {
        mt_profile_step(world->profile, world->step, r)->until_ns = world->now_ns[r];
    }
    return MT_OK;
}

static void lose_killed(const struct made_run *run, struct mt_profile *profile)
{
    for (int s = run->killed_step; run->killed_rank >= 0 && s < run->n_step; ++s) {
        struct mt_profile_step *step = mt_profile_step(profile, s, run->killed_rank);
        mt_memory_free(step->collective);
        mt_memory_free(step->span);
        *step = (struct mt_profile_step){0};
    }
}

/* Each rank has two experts, of which the first takes three quarters of the rank's rows. */
static void share_rows(struct mt_profile *profile)
{
    for (int s = 0; s < profile->n_step; ++s) {
        for (int r = 0; r < profile->n_rank; ++r) {
            profile->expert_steps[r] += mt_profile_step(profile, s, r)->is_there ? 1 : 0;
            for (int l = 0; l < profile->n_layer; ++l) {
                const int64_t rows = mt_profile_by_layer(profile, profile->rows, s, r)[l];
                int64_t *expert = mt_profile_expert_rows(profile, r, l) + 2 * (int64_t)r;
                expert[0] += rows - rows / 4;
                expert[1] += rows / 4;
            }
        }
    }
}

static void describe(const struct made_run *run, struct mt_profile *profile)
{
    static const char *const kind[] = {"allgatherv", "alltoallv", "sparse_allgather",
                                       "sparse_allgather_relay"};
    profile->n_kind = 4;
    for (int k = 0; k < profile->n_kind; ++k) {
        (void)snprintf(profile->kind[k], MT_PROFILE_NAME_BYTES, "%s", kind[k]);
    }
    (void)snprintf(profile->run, sizeof(profile->run), "made");
    (void)snprintf(profile->version, sizeof(profile->version), "%s", MT_VERSION);
    (void)snprintf(profile->start_utc, sizeof(profile->start_utc), "2026-11-22T10:00:00Z");
    for (int r = 0; r < run->n_rank; ++r) {
        struct mt_profile_rank *rank = &profile->rank[r];
        const int per_node = (run->n_rank + run->n_node - 1) / run->n_node;
        rank->node = r / per_node;
        rank->local_rank = r % per_node;
        rank->error_ns = r == 0 ? 0 : 2000;
        rank->last_step = r == run->killed_rank ? run->killed_step : run->n_step;
        rank->has_ended = run->killed_rank < 0;
        (void)snprintf(rank->host, sizeof(rank->host), "node%02d", rank->node);
    }
}

struct made_run made_run_plain(void)
{
    return (struct made_run){.n_rank = 4,
                             .n_node = 1,
                             .n_step = 12,
                             .n_layer = 2,
                             .n_micro = 1,
                             .slow_rank = -1,
                             .also_slow_rank = -1,
                             .late_rank = -1,
                             .stalled_rank = -1,
                             .slowdown = 1,
                             .hot_rank = -1,
                             .hot = 1,
                             .owner = -1,
                             .seed = 1,
                             .killed_rank = -1};
}

enum mt_status made_run_profile(const struct made_run *run, struct mt_profile *profile)
{
    struct world world = {.run = run, .profile = profile};
    int64_t parameters[64];
    enum mt_status status = MT_OK;
    MT_ASSERT(run->n_layer <= 64);
    MT_TRY(mt_profile_init(profile, run->n_rank, run->n_step, run->n_layer));
    MT_TRY_GOTO(MT_ALLOCATE(world.now_ns, run->n_rank, "a made run"));
    MT_TRY_GOTO(MT_ALLOCATE(world.post_ns, (int64_t)MAX_RECORD * run->n_rank, "a made run"));
    for (int l = 0; l < run->n_layer; ++l) {
        parameters[l] = -1;
    }
    for (int r = 0; r < run->n_rank; ++r) {
        world.now_ns[r] = 1000 * (int64_t)r;
    }
    for (world.step = 0; world.step < run->n_step; ++world.step) {
        MT_TRY_GOTO(make_step(&world, parameters));
    }
    lose_killed(run, profile);
    MT_TRY_GOTO(mt_profile_reserve_experts(profile, 2 * run->n_rank));
    share_rows(profile);
    describe(run, profile);
cleanup:
    mt_memory_free(world.now_ns);
    mt_memory_free(world.post_ns);
    return status;
}

double made_run_step_ns(const struct mt_profile *profile, int first, int n)
{
    int64_t begin_ns = 0;
    int64_t end_ns = 0;
    for (int r = 0; r < profile->n_rank; ++r) {
        begin_ns = mt_max_i64(begin_ns, mt_profile_step(profile, first, r)->begin_ns);
        end_ns = mt_max_i64(end_ns, mt_profile_step(profile, first + n - 1, r)->until_ns);
    }
    return (double)(end_ns - begin_ns) / n;
}
