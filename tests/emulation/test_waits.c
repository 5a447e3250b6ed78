/* How often the host waits for the GPU: once a MoE layer's forward, for the counts that decide what
 * follows; once for the loss; never in backward. On the emulated device. */
#include "base/job.h"
#include "base/random.h"
#include "config/load.h"
#include "device/memory.h"
#include "support/mpi_main.h"
#include "train/session.h"

#include <string.h>

enum { T = 16, B = 2, N_LAYER = 3, V = 256 };

static const char *const text = "[model]\n"
                                "hidden_size = 16\n"
                                "num_layers = 3\n"
                                "num_attention_heads = 2\n"
                                "num_key_value_heads = 1\n"
                                "max_seq_len = 16\n"
                                "[moe]\n"
                                "num_experts = 4\n"
                                "top_k = 2\n"
                                "expert_intermediate_size = 16\n"
                                "[optimizer]\n"
                                "lr = 1e-3\n"
                                "[data]\n"
                                "format = \"random\"\n"
                                "[train]\n"
                                "steps = 1\n"
                                "global_batch_size = 8\n"
                                "micro_batch_size = 2\n"
                                "[device]\n"
                                "kind = \"cuda\"\n";

struct variant {
    const char *override[3];
    int n_moe_layer, n_half;
};
static const struct variant variants[] = {
    {{"train.recompute='none'", "comm.overlap='off'"}, N_LAYER, 1},
    {{"train.recompute='layer'", "comm.overlap='off'", "moe.num_shared_experts=1"}, N_LAYER, 1},
    {{"model={first_k_dense=1, dense_intermediate_size=16}", "comm.overlap='on'"}, 2, 2},
    {{"model={first_k_dense=3, dense_intermediate_size=16}"}, 0, 1},
};
enum { N_VARIANT = sizeof(variants) / sizeof(variants[0]) };

static int n_override(const struct variant *variant)
{
    int n = 0;
    while (n < 3 && variant->override[n] != NULL) {
        n++;
    }
    return n;
}

static void check_variant(const struct variant *variant)
{
    struct mt_session session;
    struct mt_config *config = NULL;
    int32_t token[B * T];
    double loss = 0.0;
    MT_TEST_OK(MT_ALLOCATE(config, 1, "configuration"));
    MT_TEST_OK(mt_config_parse(text, "x.toml", NULL, n_override(variant), variant->override, NULL,
                               config));
    MT_TEST_OK(mt_session_open(&session, config, true, B));
    mt_store_init_values(session.store, 5);
    MT_TEST_OK(mt_store_publish(session.store));
    mt_store_zero_grad(session.store);
    for (int i = 0; i < B * T; i++) {
        token[i] = (int32_t)(mt_random_u64(3, 1, (uint64_t)i) % V);
    }
    const struct mt_micro_batch batch = {.n_sequence = B,
                                         .length = T,
                                         .token = token,
                                         .target = token,
                                         .token_share = 1.0 / (B * T),
                                         .is_last = true};
    if (variant->n_moe_layer > 0) {
        MT_TEST_OK(mt_moe_plan_step(mt_model_moe(session.model), 1, 1));
    }
    const struct mt_device *device = &session.device;
    const int64_t before = mt_device_n_wait(device);
    MT_TEST_OK(mt_model_forward(session.model, &batch));
    const int64_t forward = mt_device_n_wait(device);
    MT_TEST_OK(mt_model_head_and_loss(session.model, &batch, &loss));
    const int64_t head = mt_device_n_wait(device);
    MT_TEST_OK(mt_model_backward(session.model, &batch));
    assert_int_equal(forward - before, variant->n_moe_layer * variant->n_half);
    assert_int_equal(head - forward, variant->n_half);
    assert_int_equal(mt_device_n_wait(device) - head, 0);
    MT_TEST_OK(mt_store_reduce_finish(session.store));
    MT_TEST_OK(mt_device_wait(&session.device)); /* nothing was refused on the way */
    mt_session_close(&session);
    mt_memory_free(config);
}

static void the_host_waits_once_a_layer_forward_and_never_backward(void **state)
{
    MT_UNUSED(state);
    for (int i = 0; i < N_VARIANT; i++) {
        check_variant(&variants[i]);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_host_waits_once_a_layer_forward_and_never_backward),
    };
    return mt_test_mpi_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}
