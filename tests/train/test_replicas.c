/* A bit that changes in one rank's working copy of a dense tensor is found at the next comparison,
 * with the rank and the tensor; and nothing is found where nothing changed. */
#include "base/job.h"
#include "base/memory.h"
#include "config/load.h"
#include "support/mpi_main.h"
#include "train/internal.h"

#include <stdio.h>
#include <string.h>

static const char *const text = "[model]\n"
                                "vocab_size = 64\n"
                                "hidden_size = 32\n"
                                "num_layers = 2\n"
                                "num_attention_heads = 4\n"
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
                                "steps = 8\n"
                                "global_batch_size = 4\n"
                                "micro_batch_size = 2\n"
                                "replica_check_interval = 3\n";
static struct mt_config config;
static struct mt_trainer *trainer;

static int begin(void **state)
{
    MT_UNUSED(state);
    MT_TEST_OK(mt_config_parse(text, "x.toml", NULL, 0, NULL, NULL, &config));
    MT_TEST_OK(MT_ALLOCATE(trainer, 1, "test trainer"));
    trainer->config = &config;
    MT_TEST_OK(mt_trainer_open(trainer));
    MT_TEST_OK(mt_replicas_open(trainer));
    mt_store_init_values(trainer->session.store, 1);
    MT_TEST_OK(mt_store_publish(trainer->session.store));
    return 0;
}

static int end(void **state)
{
    MT_UNUSED(state);
    mt_replicas_close(trainer);
    mt_trainer_close(trainer);
    mt_memory_free(trainer);
    return 0;
}

/* The step's check, on all ranks; at a step that compares. */
static enum mt_status check_at(int64_t step)
{
    trainer->state.step = step;
    return mt_replicas_check(trainer);
}

static void sound_copies_raise_no_alarm_however_long_the_run(void **state)
{
    MT_UNUSED(state);
    for (int64_t step = 1; step <= 8; ++step) {
        struct mt_step_result result = {0};
        trainer->state.step = step;
        MT_TEST_OK(mt_train_step(trainer, &result)); /* compares at steps 3 and 6 */
    }
}

static void flip(int tensor, int64_t index)
{
    uint32_t bits = 0;
    float *value = (float *)(uintptr_t)mt_store_value(trainer->session.store, tensor) + index;
    memcpy(&bits, value, sizeof(bits));
    bits ^= 1U << (index % 32);
    memcpy(value, &bits, sizeof(bits));
}

static void expect_named(int odd, int tensor, int64_t index)
{
    char part[160];
    (void)snprintf(part, sizeof(part), "rank %d computes with another copy of %s than", odd,
                   trainer->session.tensors.table.tensor[tensor].name);
    MT_TEST_OK(check_at(2)); /* not a step that compares */
    if (mt_job_rank() == odd) {
        flip(tensor, index);
    }
    MT_TEST_OK(check_at(4));
    MT_TEST_FAILS(check_at(6), MT_ERR_RESOURCE, part);
    if (mt_job_rank() == odd) {
        flip(tensor, index);
    }
    MT_TEST_OK(check_at(6));
}

static void a_flipped_bit_of_any_tensor_names_its_rank(void **state)
{
    MT_UNUSED(state);
    const struct mt_tensor_table *table = &trainer->session.tensors.table;
    const int n_rank = mt_job_size();
    int n_flip = 0;
    MT_TEST_OK(mt_store_use_all(trainer->session.store));
    for (int t = 0; t < table->n_tensor && n_rank > 1; ++t) {
        const struct mt_tensor *tensor = &table->tensor[t];
        const int64_t n = tensor->dim[0] * mt_tensor_row_elements(tensor);
        if (tensor->kind != MT_TENSOR_DENSE) {
            continue;
        }
        for (int odd = 0; odd < n_rank; ++odd) {
            const int64_t index = (int64_t)(7 * t + 13 * odd) % n;
            /* of two ranks the owner is believed, as is told in docs/reliability.md */
            if (n_rank > 2 || mt_store_owner(trainer->session.store, t, index) != odd) {
                expect_named(odd, t, index);
                ++n_flip;
            }
        }
    }
    assert_true(n_rank == 1 || n_flip > 5);
}

#define WITH_TRAINER(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        WITH_TRAINER(sound_copies_raise_no_alarm_however_long_the_run),
        WITH_TRAINER(a_flipped_bit_of_any_tensor_names_its_rank),
    };
    return mt_test_mpi_main(argc, argv, tests, (int)(sizeof(tests) / sizeof(tests[0])));
}
