/* What is computed again in backward has the bits of what would have been kept, and takes the
 * memory that the plan says: on any number of ranks, over several micro-batches of uneven sizes. */
#include "base/job.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/size.h"
#include "config/load.h"
#include "model/internal.h"
#include "moe/context.h"
#include "support/mpi_main.h"
#include "train/session.h"

#include <string.h>

enum { N_MODE = 3, N_MICRO = 4, MAX_SEQUENCE = 2, MAX_TOKEN = 256, MAX_OVERRIDE = 6 };

static const char *const text = "[model]\n"
                                "vocab_size = 64\n"
                                "hidden_size = 32\n"
                                "num_layers = 3\n"
                                "num_attention_heads = 4\n"
                                "num_key_value_heads = 2\n"
                                "max_seq_len = 16\n"
                                "[moe]\n"
                                "num_experts = 8\n"
                                "top_k = 2\n"
                                "expert_intermediate_size = 48\n"
                                "[moe.balance]\n"
                                "z_loss_coef = 0.01\n"
                                "[optimizer]\n"
                                "lr = 1e-3\n"
                                "[data]\n"
                                "format = \"random\"\n"
                                "[train]\n"
                                "steps = 1\n"
                                "global_batch_size = 8\n"
                                "micro_batch_size = 2\n";

static const char *const modes[N_MODE] = {"train.recompute='none'", "train.recompute='attention'",
                                          "train.recompute='layer'"};

struct variant {
    const char *name;
    const char *override[MAX_OVERRIDE];
    int n_override;
    bool is_hot; /* every token goes to experts 0 and 1 */
};
static const struct variant variants[] = {
    {.name = "plain"},
    {.name = "all tokens to the same experts", .is_hot = true},
    {"shared experts, a dense layer, norms of heads",
     {"moe.num_shared_experts=2", "model.qk_norm='head'",
      "model={first_k_dense=1, dense_intermediate_size=40}"},
     3,
     false},
    {"norms of projections, tied, one expert a token",
     {"model={qk_norm='projection', tie_word_embeddings=true}", "moe.top_k=1"},
     2,
     false},
    {"biases in attention, shared experts behind a gate",
     {"model={attention_bias=true, qk_norm='head'}",
      "moe={num_shared_experts=1, shared_intermediate_size=40, shared_gate=true}"},
     2,
     false},
    {"dense layers only", {"model={first_k_dense=3, dense_intermediate_size=40}"}, 1, false},
};
enum { N_VARIANT = sizeof(variants) / sizeof(variants[0]) };

/* What a run of one step leaves. */
struct outcome {
    double loss;
    float *grad; /* [n] of all parts of this rank, one behind another */
    int64_t n;
    int64_t arena_peak_bytes, arena_capacity_bytes;
    int64_t exchange_bytes; /* touched outside of the arena */
    int64_t planned_bytes;
};

/* The session's model with all its values; `config` lives as long. */
static void open_session(struct mt_session *session, struct mt_config *config,
                         const struct variant *variant, const char *mode)
{
    const char *override[MAX_OVERRIDE + 1] = {mode};
    memcpy(override + 1, variant->override, sizeof(variant->override));
    MT_TEST_OK(
        mt_config_parse(text, "x.toml", NULL, 1 + variant->n_override, override, NULL, config));
    MT_TEST_OK(mt_session_open(session, config, true, config->train.micro_batch_size));
    mt_store_init_values(session->store, 7);
    for (int i = 0; i < mt_store_n_part(session->store); i++) {
        const struct mt_part *part = mt_store_part(session->store, i);
        const char *name = session->tensors.table.tensor[part->tensor].name;
        if (variant->is_hot && strstr(name, "router") != NULL) {
            memset(part->value, 0, (size_t)part->n_element * sizeof(float)); /* ties: lower ids */
        }
    }
    MT_TEST_OK(mt_store_publish(session->store));
}

/* Uneven, and now and then empty; `is_full`: all the same. */
static struct mt_micro_batch draw_batch(const struct mt_session *session, int micro, bool is_full,
                                        int32_t *token)
{
    const struct mt_config *config = session->config;
    const int64_t length = config->model.max_seq_len;
    const int64_t n = is_full ? config->train.micro_batch_size
                              : (session->comm.rank + micro) % (MAX_SEQUENCE + 1);
    const uint64_t stream = (uint64_t)(session->comm.rank * N_MICRO + micro);
    assert_true((n + 1) * length <= MAX_TOKEN);
    for (int64_t i = 0; i < n * length + 1; i++) {
        token[i] =
            (int32_t)(mt_random_u64(11, stream, (uint64_t)i) % (uint64_t)config->model.vocab_size);
    }
    return (struct mt_micro_batch){.n_sequence = n,
                                   .length = length,
                                   .token = token,
                                   .target = token + 1,
                                   .token_share = 1.0 / 100.0,
                                   .index = micro,
                                   .is_last = micro == N_MICRO - 1};
}

static void run_step(struct mt_session *session, bool is_full, double *loss)
{
    struct mt_moe *moe = mt_model_moe(session->model);
    int32_t token[MAX_TOKEN];
    *loss = 0.0;
    mt_store_zero_grad(session->store);
    if (moe != NULL) {
        MT_TEST_OK(mt_moe_plan_step(moe, 1, N_MICRO));
    }
    for (int micro = 0; micro < N_MICRO; micro++) {
        const struct mt_micro_batch batch = draw_batch(session, micro, is_full, token);
        double sum = 0.0;
        MT_TEST_OK(mt_model_forward(session->model, &batch));
        MT_TEST_OK(mt_model_head_and_loss(session->model, &batch, &sum));
        MT_TEST_OK(mt_model_backward(session->model, &batch));
        *loss += sum;
        MT_TEST_OK(mt_model_evaluate(session->model, &batch, &sum));
        *loss += sum;
    }
    MT_TEST_OK(mt_store_reduce_finish(session->store));
}

static void keep_gradients(const struct mt_store *store, struct outcome *outcome)
{
    for (int i = 0; i < mt_store_n_part(store); i++) {
        outcome->n += mt_store_part(store, i)->n_element;
    }
    MT_TEST_OK(MT_ALLOCATE(outcome->grad, outcome->n, "gradients"));
    float *at = outcome->grad;
    for (int i = 0; i < mt_store_n_part(store); i++) {
        const struct mt_part *part = mt_store_part(store, i);
        memcpy(at, part->grad, (size_t)part->n_element * sizeof(float));
        at += part->n_element;
    }
}

/* Bytes of the exchange that n tokens touch on one rank, whose experts compute them all: no row
 * travels. */
static int64_t exchange_bytes(const struct mt_moe *moe, int64_t n)
{
    const int64_t n_row = n * moe->top_k;
    const int64_t act = mt_max_i64(mt_min_i64(n_row, MT_EXPERT_PANEL_ROWS) * moe->inner,
                                   mt_min_i64(n, MT_EXPERT_PANEL_ROWS) * moe->shared_inner);
    return (n_row * (moe->width + 7) + act + n * moe->n_expert) * (int64_t)sizeof(float);
}

static void run_one(const struct variant *variant, const char *mode, bool is_full,
                    struct outcome *outcome)
{
    struct mt_session session;
    struct mt_config *config = NULL;
    memset(outcome, 0, sizeof(*outcome));
    MT_TEST_OK(MT_ALLOCATE(config, 1, "configuration"));
    open_session(&session, config, variant, mode);
    run_step(&session, is_full, &outcome->loss);
    const int64_t warm = mt_memory_n_allocated();
    run_step(&session, is_full, &outcome->loss);
    assert_int_equal(mt_memory_n_allocated(), warm);
    keep_gradients(session.store, outcome);
    const int64_t n_sequence = config->train.micro_batch_size;
    outcome->arena_peak_bytes = session.model->half[0].arena.peak_bytes;
    outcome->arena_capacity_bytes = session.model->half[0].arena.capacity_bytes;
    outcome->planned_bytes = mt_model_activation_bytes(config, mt_job_size(), n_sequence);
    if (session.model->moe != NULL) {
        outcome->exchange_bytes =
            exchange_bytes(session.model->moe, n_sequence * config->model.max_seq_len);
    }
    mt_session_close(&session);
    mt_memory_free(config);
}

static void gradients_have_the_same_bits(void **state)
{
    MT_UNUSED(state);
    for (int v = 0; v < N_VARIANT; v++) {
        struct outcome none;
        run_one(&variants[v], modes[0], false, &none);
        for (int m = 1; m < N_MODE; m++) {
            struct outcome other;
            run_one(&variants[v], modes[m], false, &other);
            assert_int_equal(other.n, none.n);
            if (memcmp(&other.loss, &none.loss, sizeof(none.loss)) != 0 ||
                memcmp(other.grad, none.grad, (size_t)none.n * sizeof(float)) != 0) {
                fail_msg("%s with %s: other bits than without (loss %.17g, %.17g)",
                         variants[v].name, modes[m], other.loss, none.loss);
            }
            mt_memory_free(other.grad);
        }
        mt_memory_free(none.grad);
    }
}

/* The arena asserts that its capacity suffices; here that it falls, and what is used of it. */
static void memory_falls_from_mode_to_mode(void **state)
{
    MT_UNUSED(state);
    for (int v = 0; v < N_VARIANT; v++) {
        struct outcome before = {.grad = NULL};
        for (int m = 0; m < N_MODE; m++) {
            struct outcome outcome;
            run_one(&variants[v], modes[m], true, &outcome);
            mt_memory_free(outcome.grad);
            assert_true(outcome.arena_peak_bytes <= outcome.arena_capacity_bytes);
            if (m > 0) {
                assert_true(outcome.arena_peak_bytes < before.arena_peak_bytes);
                assert_true(outcome.arena_capacity_bytes < before.arena_capacity_bytes);
                assert_true(outcome.planned_bytes < before.planned_bytes);
            }
            before = outcome;
        }
    }
}

/* On one rank load is balanced. Measured on 2026-11-22: planned over taken 0.986 to 0.995;
 * attention's blocks of scores and the alignment of cuts are not planned. */
static void the_plan_is_what_one_rank_takes(void **state)
{
    MT_UNUSED(state);
    static const struct variant wide = {"wide",
                                        {"model={hidden_size=128, max_seq_len=64}",
                                         "moe.expert_intermediate_size=160", "device.threads=1"},
                                        3,
                                        false};
    static const struct variant shared = {"wide, shared experts, norms of heads",
                                          {"model={hidden_size=128, max_seq_len=64}",
                                           "moe.num_shared_experts=2", "model.qk_norm='head'",
                                           "device.threads=1"},
                                          4,
                                          false};
    const struct variant *const cases[] = {&wide, &shared};
    for (int c = 0; c < 2 * N_MODE && mt_job_size() == 1; c++) {
        struct outcome outcome;
        run_one(cases[c / N_MODE], modes[c % N_MODE], true, &outcome);
        mt_memory_free(outcome.grad);
        const double taken = (double)(outcome.arena_peak_bytes + outcome.exchange_bytes);
        const double ratio = (double)outcome.planned_bytes / taken;
        if (ratio < 0.97 || ratio > 1.03) {
            fail_msg("%s with %s: planned %lld bytes, taken %.0f", cases[c / N_MODE]->name,
                     modes[c % N_MODE], (long long)outcome.planned_bytes, taken);
        }
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_have_the_same_bits),
        cmocka_unit_test(memory_falls_from_mode_to_mode),
        cmocka_unit_test(the_plan_is_what_one_rank_takes),
    };
    return mt_test_mpi_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}
