#include "profile/synthetic.h"

#include "base/random.h"
#include "base/size.h"
#include "support/test.h"

#include <math.h>

enum { N_TOKEN = 1000, ROWS = 2000, COLLECTIVES_PER_LAYER = 3 };

static const double TOKEN_NS = 2000;     /* attention */
static const double ROW_NS = 3000;       /* experts */
static const double LAYER_NS = 300000;   /* experts, for any rows */
static const double MESSAGE_NS = 100000; /* an exchange, when all are there */
static const double HICCUP_NS = 3000000;

struct synth synth_usual(uint64_t seed)
{
    return (struct synth){.n_rank = 4,
                          .n_step = 50,
                          .n_layer = 2,
                          .seed = seed,
                          .noise = 0.01,
                          .victim = -1,
                          .slowdown = 1,
                          .skew = 1};
}

struct run {
    const struct synth *synth;
    struct mt_profile *profile;
    uint64_t n_draw;
    int step, at; /* collective of the step */
    int64_t number;
    double now[SYNTH_MAX_RANK];
    struct mt_profile_step *account[SYNTH_MAX_RANK];
    int busiest[SYNTH_MAX_RANK];
    double most[SYNTH_MAX_RANK];
};

static bool is_struck(const struct run *run, int rank)
{
    const int every = run->synth->every;
    const bool is_now =
        run->synth->until == 0 || (run->step >= run->synth->from && run->step < run->synth->until);
    return is_now && rank == run->synth->victim && (every <= 1 || run->step % every == 0);
}

static double vary(struct run *run, double ns)
{
    const uint64_t draw = run->n_draw++;
    const double factor = 1 + run->synth->noise * mt_random_normal(run->synth->seed, 1, draw);
    const bool is_late = mt_random_uniform(run->synth->seed, 2, draw) < run->synth->hiccup;
    double late_ns = is_late ? HICCUP_NS : 0;
    if (is_late && run->synth->tail > 0) {
        const double chance = fmax(1e-3, mt_random_uniform(run->synth->seed, 6, draw));
        late_ns *= pow(chance, -1 / run->synth->tail);
    }
    return ns * fmax(0.5, factor) + late_ns;
}

static void spend(struct run *run, int rank, enum mt_phase phase, double ns)
{
    run->now[rank] += ns;
    run->account[rank]->phase_ns[phase] += (int64_t)ns;
    if (ns > run->most[rank]) {
        run->most[rank] = ns;
        run->busiest[rank] = phase;
    }
}

static void compute(struct run *run, int rank, enum mt_phase phase, double ns)
{
    const double factor = is_struck(run, rank) ? run->synth->slowdown : 1.0;
    spend(run, rank, phase, vary(run, ns * factor));
}

static bool has_no_tokens(const struct run *run, int rank)
{
    return run->synth->is_tokenless && rank == run->synth->n_rank - 1;
}

static int node_of(const struct run *run, int rank)
{
    return run->profile->rank[rank].node;
}

/* A rank of another node, drawn; of the slow link's other end where it is one of its ends. */
static int draw_peer(struct run *run, int rank, bool is_slow)
{
    const struct synth *synth = run->synth;
    const int mine = node_of(run, rank);
    for (;;) {
        const int peer =
            (int)(mt_random_u64(synth->seed, 4, run->n_draw++) % (uint64_t)synth->n_rank);
        const int its = node_of(run, peer);
        const bool is_end = mine != synth->slow_node ? its == synth->slow_node
                                                     : synth->slow_to == 0 || its == synth->slow_to;
        if (its != mine && (!is_slow || is_end)) {
            return peer;
        }
    }
}

/* Messages between nodes: one of them is there last by chance, or it is slow. */
static void cross_nodes(struct run *run, int rank, struct mt_profile_collective *record)
{
    const struct synth *synth = run->synth;
    const int mine = node_of(run, rank);
    if (synth->n_node <= 1) {
        return;
    }
    const bool is_slow = synth->slow_node > 0 && (synth->slow_to == 0 || mine == synth->slow_node ||
                                                  mine == synth->slow_to);
    const double chance = mt_random_uniform(synth->seed, 5, run->n_draw++);
    const int64_t lone_ns = (int64_t)(MESSAGE_NS * chance) + (is_slow ? synth->slow_ns : 0);
    record->last_peer = draw_peer(run, rank, is_slow);
    record->done_ns += lone_ns;
    record->last_ns = record->done_ns - lone_ns;
}

/* All ranks meet; or each waits only for the one before it. */
static void meet(struct run *run, enum mt_phase phase, int layer, bool is_pairwise)
{
    const int n_rank = run->synth->n_rank;
    double begin[SYNTH_MAX_RANK];
    double last = 0;
    for (int r = 0; r < n_rank; ++r) {
        begin[r] = run->now[r];
        last = fmax(last, begin[r]);
    }
    for (int r = 0; r < n_rank; ++r) {
        const int below = (r + n_rank - 1) % n_rank;
        const double ready = is_pairwise ? fmax(begin[r], begin[below]) : last;
        const double link = r == run->synth->victim ? (double)run->synth->link_ns : 0.0;
        const double done = ready + (n_rank > 1 ? MESSAGE_NS + link : 0.0);
        run->account[r]->collective[run->at] = (struct mt_profile_collective){
            .number = run->number,
            .phase = phase,
            .busy_phase = run->busiest[r],
            .layer = layer,
            .last_peer = -1,
            .begin_ns = (int64_t)begin[r],
            .need_ns = (int64_t)begin[r],
            .done_ns = (int64_t)done,
            .n_source = is_pairwise ? 1 : n_rank - 1,
            .sources = is_pairwise ? UINT64_C(1) << below : ~(UINT64_C(1) << r)};
        struct mt_profile_collective *record = &run->account[r]->collective[run->at];
        cross_nodes(run, r, record);
        run->account[r]->phase_ns[phase] += record->done_ns - record->begin_ns;
        run->account[r]->wait_ns[phase] += record->done_ns - record->begin_ns;
        run->now[r] = (double)record->done_ns;
        run->most[r] = 0;
        run->busiest[r] = MT_N_PHASE;
    }
    ++run->number;
    ++run->at;
}

static int64_t rows_of(struct run *run, int rank)
{
    const struct synth *synth = run->synth;
    const double others =
        synth->n_rank > 1 ? (synth->n_rank - synth->skew) / (synth->n_rank - 1) : 1.0;
    const double mean = is_struck(run, rank) ? synth->skew : fmax(0.0, others);
    const double noise = synth->row_noise * mt_random_normal(synth->seed, 3, run->n_draw++);
    return has_no_tokens(run, rank) ? 0 : (int64_t)(ROWS * fmax(0.0, mean * (1 + noise)));
}

static void run_layer(struct run *run, int layer)
{
    const int n_rank = run->synth->n_rank;
    for (int r = 0; r < n_rank; ++r) {
        const double n_token = has_no_tokens(run, r) ? 0.0 : N_TOKEN;
        compute(run, r, MT_PHASE_ATTENTION, TOKEN_NS * n_token);
    }
    meet(run, MT_PHASE_GATE, layer, false);
    meet(run, MT_PHASE_DISPATCH, layer, run->synth->is_pairwise);
    for (int r = 0; r < n_rank; ++r) {
        const int64_t rows = rows_of(run, r);
        const double before = run->now[r];
        compute(run, r, MT_PHASE_EXPERT, rows > 0 ? LAYER_NS + ROW_NS * (double)rows : 0.0);
        mt_profile_by_layer(run->profile, run->profile->rows, run->step, r)[layer] = rows;
        mt_profile_by_layer(run->profile, run->profile->expert_ns, run->step, r)[layer] =
            (int64_t)(run->now[r] - before);
    }
    meet(run, MT_PHASE_COMBINE, layer, run->synth->is_pairwise);
}

static void run_step(struct run *run)
{
    const struct synth *synth = run->synth;
    run->at = 0;
    for (int r = 0; r < synth->n_rank; ++r) {
        struct mt_profile_step *step = mt_profile_step(run->profile, run->step, r);
        MT_TEST_OK(
            mt_profile_reserve_collectives(step, COLLECTIVES_PER_LAYER * synth->n_layer + 1));
        step->is_there = true;
        step->begin_ns = (int64_t)run->now[r];
        step->n_token = has_no_tokens(run, r) ? 0 : N_TOKEN;
        run->account[r] = step;
        spend(run, r, MT_PHASE_DATA, is_struck(run, r) ? (double)synth->data_ns : 1000.0);
    }
    for (int layer = 0; layer < synth->n_layer; ++layer) {
        run_layer(run, layer);
    }
    meet(run, MT_PHASE_CLIP, -1, false);
    for (int r = 0; r < synth->n_rank; ++r) {
        run->account[r]->end_ns = (int64_t)run->now[r];
        if (synth->save_ns > 0 && run->step % 10 == 9) {
            const int64_t stall_ns = r == synth->victim ? synth->stall_ns : 0;
            spend(run, r, MT_PHASE_CHECKPOINT, (double)(synth->save_ns + stall_ns));
        }
        run->account[r]->until_ns = (int64_t)run->now[r];
    }
}

void synth_make(const struct synth *synth, struct mt_profile *profile)
{
    struct run run = {.synth = synth, .profile = profile};
    MT_TEST_OK(mt_profile_init(profile, synth->n_rank, synth->n_step, synth->n_layer));
    for (int r = 0; r < synth->n_rank && synth->n_node > 1; ++r) {
        profile->rank[r].node = r % synth->n_node;
    }
    for (int r = 1; r < synth->n_rank; ++r) {
        profile->rank[r].error_ns = synth->error_ns;
    }
    for (run.step = 0; run.step < synth->n_step; ++run.step) {
        run_step(&run);
    }
}
