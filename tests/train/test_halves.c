/* Micro-batches in two halves: the bits of the same halves one after the other as micro-batches,
 * whatever carries their rows and whatever is computed again; where policies make copies, whose
 * gradients meet in another order, equal but for rounding to the micro-batch as a whole. */
#include "base/job.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/size.h"
#include "config/load.h"
#include "model/internal.h"
#include "moe/context.h"
#include "support/compare.h"
#include "support/mpi_main.h"
#include "train/session.h"

#include <math.h>
#include <string.h>

enum { N_STEP = 2, N_MICRO = 2, MAX_SEQUENCE = 4, MAX_TOKEN = 64, MAX_OVERRIDE = 4 };

static const char *const text = "[model]\n"
                                "vocab_size = 64\n"
                                "hidden_size = 32\n"
                                "num_layers = 3\n"
                                "num_attention_heads = 4\n"
                                "num_key_value_heads = 2\n"
                                "max_seq_len = 16\n"
                                "first_k_dense = 1\n"
                                "dense_intermediate_size = 40\n"
                                "init_std = 0.3\n"
                                "[moe]\n"
                                "num_experts = 8\n"
                                "top_k = 2\n"
                                "expert_intermediate_size = 24\n"
                                "[moe.balance]\n"
                                "window = \"lagged\"\n"
                                "loss_coef = 0.1\n"
                                "z_loss_coef = 0.01\n"
                                "[optimizer]\n"
                                "lr = 1e-3\n"
                                "[data]\n"
                                "format = \"random\"\n"
                                "[train]\n"
                                "steps = 1\n"
                                "global_batch_size = 8\n"
                                "micro_batch_size = 4\n"
                                "[placement]\n"
                                "policy = \"ep\"\n"
                                "[comm]\n"
                                "ranks_per_node = 2\n";

struct variant {
    const char *name;
    const char *override[MAX_OVERRIDE];
    int n_override;
    int64_t slice_rows; /* 0: as the layer chooses */
    bool makes_copies;
};
static const struct variant variants[] = {
    {.name = "direct", {"comm.all_to_all='direct'"}, 1, 0, false},
    {.name = "hierarchical, all computed again",
     {"comm.all_to_all='hierarchical'", "train.recompute='layer'",
      "moe={num_shared_experts=1, shared_gate=true}"},
     3,
     0,
     false},
    {.name = "leader, slices, attention again",
     {"comm.all_to_all='leader'", "train.recompute='attention'"},
     2,
     24,
     false},
    {.name = "deduplicated, all computed again",
     {"comm.all_to_all='deduplicated'", "train.recompute='layer'"},
     2,
     0,
     false},
    {.name = "slices", {"comm.all_to_all='direct'"}, 1, 16, false},
    {.name = "copies of all", {"placement.policy='fsdp'"}, 1, 0, true},
    {.name = "copies that stay",
     {"placement.policy='fssdp'", "placement.rematerialize=false", "train.recompute='layer'"},
     3,
     0,
     true},
    {.name = "late copies", {"placement.policy='quota'"}, 1, 0, true},
    {.name = "late copies that stay, slices",
     {"placement.policy='least_loaded'", "placement.rematerialize=false"},
     2,
     20,
     true},
    {.name = "early and late copies", {"placement.policy='adaptive'"}, 1, 0, true},
    {.name = "cut experts", {"placement.policy='fsep'"}, 1, 0, true},
};
enum { N_VARIANT = sizeof(variants) / sizeof(variants[0]) };

/* How a micro-batch runs. */
enum way { WHOLE, HALVES, ONE_AFTER_THE_OTHER };

/* What a run of some steps leaves; overwritten by each step, but for the loss. */
struct outcome {
    double loss;
    float *grad; /* [n] of all parts of this rank, one behind another */
    int64_t n;
};

static void open_session(struct mt_session *session, struct mt_config *config,
                         const struct variant *variant, enum way way)
{
    /* Links that cost little beside experts, so that policies make copies. */
    static const struct mt_costs costs = {.row_ps = 1000000,
                                          .attention_ps = 1000000000,
                                          .alpha_ps = {0, 1000, 1000},
                                          .kib_ps = {0, 1000, 1000}};
    const char *override[MAX_OVERRIDE + 1] = {way == HALVES ? "comm.overlap='on'"
                                                            : "comm.overlap='off'"};
    memcpy(override + 1, variant->override, sizeof(variant->override));
    MT_TEST_OK(
        mt_config_parse(text, "x.toml", NULL, 1 + variant->n_override, override, NULL, config));
    MT_TEST_OK(mt_session_open(session, config, true, config->train.micro_batch_size));
    mt_store_init_values(session->store, 7);
    MT_TEST_OK(mt_store_publish(session->store));
    MT_TEST_OK(mt_store_use_all(session->store));
    mt_moe_set_costs(mt_model_moe(session->model), &costs);
    if (variant->slice_rows > 0) {
        mt_model_moe(session->model)->slice_rows = variant->slice_rows;
    }
}

/* Even numbers of sequences on some ranks, odd ones on others, on one rank none or one. */
static int64_t n_sequence_of(const struct mt_session *session, int micro)
{
    const int rank = session->comm.rank;
    return rank == 2 ? micro : MAX_SEQUENCE - (rank + micro) % 3;
}

static void run_micro(struct mt_session *session, const struct mt_micro_batch *batch, double *loss)
{
    double sum = 0.0;
    MT_TEST_OK(mt_model_forward(session->model, batch));
    MT_TEST_OK(mt_model_head_and_loss(session->model, batch, &sum));
    MT_TEST_OK(mt_model_backward(session->model, batch));
    *loss += sum;
}

/* As mt_model cuts it. */
static void run_one_after_the_other(struct mt_session *session, const struct mt_micro_batch *whole,
                                    double *loss)
{
    const int64_t n_first = mt_ceil_div(whole->n_sequence, 2);
    struct mt_micro_batch half = *whole;
    half.index = 2 * whole->index;
    half.n_sequence = n_first;
    half.is_last = false;
    run_micro(session, &half, loss);
    half.index += 1;
    half.n_sequence = whole->n_sequence - n_first;
    half.token += n_first * whole->length;
    half.target += n_first * whole->length;
    half.is_last = whole->is_last;
    run_micro(session, &half, loss);
}

/* Returns the copies of its last micro-batch. */
static int64_t run_step(struct mt_session *session, int64_t step, enum way way, double *loss)
{
    struct mt_moe *moe = mt_model_moe(session->model);
    struct mt_moe_stats stats;
    int32_t token[MAX_TOKEN + 1];
    *loss = 0.0;
    mt_store_zero_grad(session->store);
    MT_TEST_OK(mt_moe_plan_step(moe, step, way == ONE_AFTER_THE_OTHER ? 2 * N_MICRO : N_MICRO));
    for (int micro = 0; micro < N_MICRO; micro++) {
        const uint64_t stream = (uint64_t)(session->comm.rank * N_MICRO + micro);
        for (int i = 0; i <= MAX_TOKEN; i++) {
            token[i] = (int32_t)(mt_random_u64((uint64_t)step, stream, (uint64_t)i) % 64);
        }
        const struct mt_micro_batch batch = {.n_sequence = n_sequence_of(session, micro),
                                             .length = session->config->model.max_seq_len,
                                             .token = token,
                                             .target = token + 1,
                                             .token_share = 1.0 / 100.0,
                                             .index = micro,
                                             .is_last = micro == N_MICRO - 1};
        if (way == ONE_AFTER_THE_OTHER) {
            run_one_after_the_other(session, &batch, loss);
        } else {
            run_micro(session, &batch, loss);
        }
    }
    MT_TEST_OK(mt_store_reduce_finish(session->store));
    MT_TEST_OK(mt_moe_finish_step(moe, &stats));
    return stats.outlook.n_copy;
}

static void run(const struct variant *variant, enum way way, struct outcome *outcome)
{
    struct mt_session session;
    struct mt_config *config = NULL;
    int64_t warm = 0;
    int64_t n_copy = 0;
    memset(outcome, 0, sizeof(*outcome));
    MT_TEST_OK(MT_ALLOCATE(config, 1, "configuration"));
    open_session(&session, config, variant, way);
    for (int step = 1; step <= N_STEP; step++) {
        n_copy += run_step(&session, step, way, &outcome->loss);
        assert_true(step == 1 || mt_memory_n_allocated() == warm);
        warm = mt_memory_n_allocated();
    }
    assert_true((n_copy > 0) == (variant->makes_copies && mt_job_size() > 1));
    for (int i = 0; i < mt_store_n_part(session.store); i++) {
        outcome->n += mt_store_part(session.store, i)->n_element;
    }
    MT_TEST_OK(MT_ALLOCATE(outcome->grad, outcome->n, "gradients"));
    float *at = outcome->grad;
    for (int i = 0; i < mt_store_n_part(session.store); i++) {
        const struct mt_part *part = mt_store_part(session.store, i);
        memcpy(at, part->grad, (size_t)part->n_element * sizeof(float));
        at += part->n_element;
    }
    mt_session_close(&session);
    mt_memory_free(config);
}

static void halves_have_the_bits_of_micro_batches(void **state)
{
    MT_UNUSED(state);
    for (int v = 0; v < N_VARIANT; v++) {
        struct outcome want;
        struct outcome got;
        if (variants[v].makes_copies) {
            continue;
        }
        run(&variants[v], ONE_AFTER_THE_OTHER, &want);
        run(&variants[v], HALVES, &got);
        assert_int_equal(got.n, want.n);
        if (memcmp(got.grad, want.grad, (size_t)want.n * sizeof(float)) != 0) {
            fail_msg("%s: other bits than one half after the other (loss %.17g, %.17g)",
                     variants[v].name, got.loss, want.loss);
        }
        mt_memory_free(want.grad);
        mt_memory_free(got.grad);
    }
}

static void halves_change_nothing_but_rounding(void **state)
{
    MT_UNUSED(state);
    static const double BOUND = 2e-5; /* of the largest element; measured 2026-11-22: 1.1e-6 */
    for (int v = 0; v < N_VARIANT; v++) {
        struct outcome want;
        struct outcome got;
        run(&variants[v], WHOLE, &want);
        run(&variants[v], HALVES, &got);
        assert_true(fabs(got.loss - want.loss) <= 1e-6 * fabs(want.loss));
        mt_test_assert_close_f32(got.grad, want.grad, want.n, BOUND, variants[v].name, __FILE__,
                                 __LINE__);
        mt_memory_free(want.grad);
        mt_memory_free(got.grad);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(halves_have_the_bits_of_micro_batches),
        cmocka_unit_test(halves_change_nothing_but_rounding),
    };
    return mt_test_mpi_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}
