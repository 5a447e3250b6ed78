/* What a layer costs the host and the links beside its mathematics, on the emulated device: how
 * often the host waits for the GPU, launches, and bytes that travel with no matrix product that
 * could run meanwhile. A layer's share is what a model of three has more than one of two. */
#include "base/job.h"
#include "base/random.h"
#include "config/load.h"
#include "device/memory.h"
#include "emulation/emulator.h"
#include "support/mpi_main.h"
#include "train/session.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { T = 16, B = 2, V = 256, D = 16, E = 4 };

static const char text[] = "[model]\n"
                           "num_layers = %d\n"
                           "hidden_size = 16\n"
                           "num_attention_heads = 2\n"
                           "num_key_value_heads = 1\n"
                           "max_seq_len = 16\n"
                           "[moe]\n"
                           "num_experts = 4\n"
                           "top_k = 2\n"
                           "expert_intermediate_size = 16\n"
                           "[placement]\n"
                           "policy = \"ep\"\n"
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

enum { MAX_OVERRIDE = 4, MAX_LAYER = 3 };
struct variant {
    const char *name;
    const char *override[MAX_OVERRIDE];
    int n_half, n_dense; /* dense layers come first */
};
enum { PLAIN, RECOMPUTED, SHARED, HALVES, ROUNDED, DENSE, N_VARIANT };
static const struct variant variants[N_VARIANT] = {
    [PLAIN] = {"plain", {"comm.overlap='off'"}, 1, 0},
    [RECOMPUTED] = {"shared expert, recomputed",
                    {"comm.overlap='off'", "train.recompute='layer'", "moe.num_shared_experts=1"},
                    1,
                    0},
    [SHARED] = {"shared expert", {"comm.overlap='off'", "moe.num_shared_experts=1"}, 1, 0},
    [HALVES] = {"halves", {"comm.overlap='on'"}, 2, 0},
    /* operands are rounded in scratch, beside the other half's */
    [ROUNDED] = {"bfloat16, halves, shared expert",
                 {"comm.overlap='on'", "device.dtype='bfloat16'", "moe.num_shared_experts=1"},
                 2,
                 0},
    [DENSE] = {"dense", {"model={first_k_dense=3, dense_intermediate_size=16}"}, 1, MAX_LAYER},
};

/* ---- what the emulated device counts: it is in the module that the program has loaded ---- */

struct counters {
    void (*begin)(void);
    struct emu_work (*end)(void);
};

static struct counters find_counters(void)
{
    struct counters counters = {NULL, NULL};
    void *module = dlopen(getenv("MT_CUDA_MODULE"), RTLD_NOW | RTLD_NOLOAD);
    assert_non_null(module);
    void *begin = dlsym(module, "emu_work_begin");
    void *end = dlsym(module, "emu_work_end");
    assert_true(begin != NULL && end != NULL);
    memcpy(&counters.begin, &begin, sizeof(begin)); /* C has no cast between the two */
    memcpy(&counters.end, &end, sizeof(end));
    (void)dlclose(module);
    return counters;
}

/* ---- a model's forward and backward ---- */

/* Of one pass; bytes of all ranks. */
struct costs {
    int64_t n_wait, n_kernel, n_product, n_copy;
    struct emu_transfers awaited, background;
};
enum { FORWARD, BACKWARD, N_PASS };
struct model_costs {
    struct costs pass[N_PASS];
    int64_t n_head_wait;
};

static int n_override(const struct variant *variant)
{
    int n = 0;
    while (n < MAX_OVERRIDE && variant->override[n] != NULL) {
        n++;
    }
    return n;
}

static void open_session(struct mt_session *session, struct mt_config *config,
                         const struct variant *variant, int n_layer)
{
    char with_layers[1024];
    (void)snprintf(with_layers, sizeof(with_layers), text, n_layer);
    MT_TEST_OK(mt_config_parse(with_layers, "x.toml", NULL, n_override(variant), variant->override,
                               NULL, config));
    MT_TEST_OK(mt_session_open(session, config, true, B));
    mt_store_init_values(session->store, 5);
    MT_TEST_OK(mt_store_publish(session->store));
    mt_store_zero_grad(session->store);
}

static struct emu_transfers sum_over_ranks(struct mt_session *session, struct emu_transfers mine)
{
    int64_t sum[] = {mine.sent_bytes, mine.exposed_bytes};
    MT_TEST_OK(mt_comm_sum_i64(&session->comm, sum, 2));
    return (struct emu_transfers){mine.n_launch, sum[0], sum[1]};
}

static struct costs costs_of(struct mt_session *session, const struct emu_work *work,
                             int64_t n_wait)
{
    return (struct costs){
        .n_wait = n_wait,
        .n_kernel = work->n_kernel,
        .n_product = work->n_product,
        .n_copy = work->n_copy,
        .awaited = sum_over_ranks(session, work->transfer[MT_AWAITED]),
        .background = sum_over_ranks(session, work->transfer[MT_BACKGROUND]),
    };
}

static struct model_costs run_model(const struct variant *variant, int n_layer)
{
    struct mt_session session;
    struct mt_config *config = NULL;
    int32_t token[B * T];
    double loss = 0.0;
    MT_TEST_OK(MT_ALLOCATE(config, 1, "configuration"));
    open_session(&session, config, variant, n_layer);
    for (int i = 0; i < B * T; i++) {
        token[i] = (int32_t)(mt_random_u64(3, 1, (uint64_t)i) % V);
    }
    const struct mt_micro_batch batch = {.n_sequence = B,
                                         .length = T,
                                         .token = token,
                                         .target = token,
                                         .token_share = 1.0 / (B * T),
                                         .is_last = true};
    if (mt_model_moe(session.model) != NULL) {
        MT_TEST_OK(mt_moe_plan_step(mt_model_moe(session.model), 1, 1));
    }
    const struct counters counters = find_counters();
    const struct mt_device *device = &session.device;
    const int64_t before = mt_device_n_wait(device);
    counters.begin();
    MT_TEST_OK(mt_model_forward(session.model, &batch));
    const struct emu_work forward = counters.end();
    const int64_t after = mt_device_n_wait(device);
    MT_TEST_OK(mt_model_head_and_loss(session.model, &batch, &loss));
    const int64_t head = mt_device_n_wait(device);
    counters.begin();
    MT_TEST_OK(mt_model_backward(session.model, &batch));
    const int64_t end = mt_device_n_wait(device);
    MT_TEST_OK(mt_store_reduce_finish(session.store));
    const struct emu_work backward = counters.end();
    MT_TEST_OK(mt_device_wait(&session.device)); /* nothing was refused on the way */
    const struct model_costs costs = {.pass = {costs_of(&session, &forward, after - before),
                                               costs_of(&session, &backward, end - head)},
                                      .n_head_wait = head - after};
    mt_session_close(&session);
    mt_memory_free(config);
    return costs;
}

static void the_host_waits_once_a_layer_forward_and_never_backward(void **state)
{
    MT_UNUSED(state);
    for (int v = 0; v < N_VARIANT; v++) {
        const struct variant *variant = &variants[v];
        const struct model_costs costs = run_model(variant, MAX_LAYER);
        const int n_moe_layer = MAX_LAYER - variant->n_dense;
        assert_int_equal(costs.pass[FORWARD].n_wait, n_moe_layer * variant->n_half);
        assert_int_equal(costs.n_head_wait, variant->n_half);
        assert_int_equal(costs.pass[BACKWARD].n_wait, 0);
    }
}

/* ---- a layer ---- */

static struct emu_transfers minus(struct emu_transfers a, struct emu_transfers b)
{
    return (struct emu_transfers){a.n_launch - b.n_launch, a.sent_bytes - b.sent_bytes,
                                  a.exposed_bytes - b.exposed_bytes};
}

static struct costs layer_costs(const struct costs *more, const struct costs *less)
{
    return (struct costs){.n_wait = more->n_wait - less->n_wait,
                          .n_kernel = more->n_kernel - less->n_kernel,
                          .n_product = more->n_product - less->n_product,
                          .n_copy = more->n_copy - less->n_copy,
                          .awaited = minus(more->awaited, less->awaited),
                          .background = minus(more->background, less->background)};
}

/* A row of docs/gpu.md's table, to where a passed test's output does not end. */
static void print_costs(const char *name, const char *pass, const struct costs *c)
{
    if (mt_job_rank() == 0) {
        (void)dprintf(STDOUT_FILENO,
                      "| %s, %s | %lld | %lld | %lld | %lld | %lld | %lld of %lld |\n", name, pass,
                      (long long)c->n_wait, (long long)c->n_kernel, (long long)c->n_product,
                      (long long)c->n_copy, (long long)c->awaited.n_launch,
                      (long long)c->awaited.exposed_bytes, (long long)c->awaited.sent_bytes);
    }
}

/* On two ranks; with the same routing on every machine. */
struct expected {
    int variant;
    int n_wait[N_PASS], n_kernel[N_PASS], n_product[N_PASS], n_copy[N_PASS], n_nccl[N_PASS];
};
static const struct expected table[] = {
    {PLAIN, {1, 0}, {19, 24}, {7, 16}, {18, 8}, {3, 2}},
    {SHARED, {1, 0}, {20, 25}, {10, 22}, {21, 8}, {3, 2}},
    {RECOMPUTED, {1, 0}, {20, 30}, {10, 29}, {21, 8}, {3, 2}},
    {HALVES, {2, 0}, {38, 47}, {14, 32}, {32, 16}, {6, 4}},
};
enum { N_EXPECTED = sizeof(table) / sizeof(table[0]) };

/* What travels in a layer, on all ranks. */
struct sent {
    int64_t counts;
    int64_t wide, narrow; /* rows with their weights or their gradients; rows */
};

static struct sent sent_of(const struct variant *variant, const struct model_costs *layer)
{
    const int64_t n_pair = (int64_t)mt_job_size() * (mt_job_size() - 1);
    const int64_t rows = layer->pass[BACKWARD].awaited.sent_bytes; /* there and back */
    const int64_t n_row = rows / ((2 * D + 1) * (int64_t)sizeof(float));
    return (struct sent){
        .counts = variant->n_half * n_pair * E * (int64_t)sizeof(int64_t),
        .wide = n_row * (D + 1) * (int64_t)sizeof(float),
        .narrow = n_row * D * (int64_t)sizeof(float),
    };
}

/* Forward: nothing covers rows of a plain layer; shared experts cover counts and the way to the
 * experts, a half all rows of the other. Backward: gradients of weights cover what travels. */
static void check_exposed(int variant, const struct model_costs *layer)
{
    const struct sent sent = sent_of(&variants[variant], layer);
    const struct costs *forward = &layer->pass[FORWARD];
    const struct costs *backward = &layer->pass[BACKWARD];
    const int64_t all = sent.counts + sent.wide + sent.narrow;
    const int64_t exposed = variant == HALVES ? sent.counts : variant == PLAIN ? all : sent.narrow;
    assert_true(sent.wide > 0);
    assert_int_equal(forward->awaited.sent_bytes, all);
    assert_int_equal(forward->awaited.exposed_bytes, exposed);
    assert_int_equal(backward->awaited.exposed_bytes, 0);
    assert_int_equal(forward->background.exposed_bytes, 0);
    assert_int_equal(backward->background.exposed_bytes, 0);
}

static void check_layer(const struct expected *expected)
{
    static const char *const name[N_PASS] = {"forward", "backward"};
    const struct variant *variant = &variants[expected->variant];
    const struct model_costs more = run_model(variant, MAX_LAYER);
    const struct model_costs less = run_model(variant, MAX_LAYER - 1);
    struct model_costs layer = {.n_head_wait = 0};
    for (int p = 0; p < N_PASS; p++) {
        const struct costs *c = &layer.pass[p];
        layer.pass[p] = layer_costs(&more.pass[p], &less.pass[p]);
        print_costs(variant->name, name[p], c);
        assert_int_equal(c->n_wait, expected->n_wait[p]);
        if (mt_job_size() == 2) {
            assert_int_equal(c->n_kernel, expected->n_kernel[p]);
            assert_int_equal(c->n_product, expected->n_product[p]);
            assert_int_equal(c->n_copy, expected->n_copy[p]);
            assert_int_equal(c->awaited.n_launch, expected->n_nccl[p]);
        } else {
            assert_int_equal(c->awaited.n_launch + c->background.n_launch, 0);
        }
    }
    if (mt_job_size() == 2) {
        check_exposed(expected->variant, &layer);
    }
}

static void launches_and_exposed_bytes_of_a_layer_are_what_the_table_says(void **state)
{
    MT_UNUSED(state);
    for (int i = 0; i < N_EXPECTED; i++) {
        check_layer(&table[i]);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_host_waits_once_a_layer_forward_and_never_backward),
        cmocka_unit_test(launches_and_exposed_bytes_of_a_layer_are_what_the_table_says),
    };
    return mt_test_mpi_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}
