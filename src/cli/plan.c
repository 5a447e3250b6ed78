/* moetrain plan CONFIG --ranks R: what a run needs, without running it. */
#include "cli/plan.h"

#include "base/memory.h"
#include "base/size.h"
#include "data/sampler.h"
#include "device/isa.h"

/* Beyond, a table of all policies takes more than minutes: matrices of ranks by experts. */
enum { MAX_STUDIED_RANKS = 4096 };
static const double MIB = 1024.0 * 1024.0;

static void print_bytes(const char *kind, int64_t n_bytes)
{
    (void)printf("  %-44s %12.2f MiB\n", kind, (double)n_bytes / MIB);
}

static void print_memory(const struct mt_config *config, const struct mt_memory_estimate *estimate)
{
    const struct mt_store_bytes *store = &estimate->store;
    (void)printf("\nbytes on the rank that holds most (balanced load)\n");
    print_bytes("dense parameters, working copy", store->dense_value);
    print_bytes("dense gradients", store->dense_grad);
    print_bytes("dense parameters packed for products", store->dense_pack);
    print_bytes("own experts", store->expert_value);
    print_bytes("gradients of own experts", store->expert_grad);
    print_bytes("own experts packed for products", store->expert_pack);
    print_bytes("slots for copies of experts", store->slots);
    print_bytes("optimizer state of own chunks", store->optimizer);
    print_bytes("staging of collectives", store->staging);
    print_bytes("staging of checkpoints", estimate->checkpoint);
    print_bytes("activations of a micro-batch", estimate->activations);
    print_bytes("rings of the profiler", estimate->profile);
    print_bytes("load history", estimate->history);
    print_bytes("total", estimate->total);
    print_bytes("resident, with the program and its libraries",
                estimate->total + estimate->program);
    print_bytes("beyond that, on a rank loaded beyond measure", estimate->skew);
    if (config->device.dtype == MT_BFLOAT16 && !mt_isa_has_bf16()) {
        (void)printf("packs of bfloat16 as on this processor, which holds them in float32: half as "
                     "large on GPUs and with AVX512_BF16\n");
    }
}

/* Bytes that all ranks together send in one step, with experts evenly loaded under `ep`. */
static void print_traffic(const struct mt_config *config, int64_t n_rank,
                          const struct mt_model_size *size)
{
    const double n_other = (double)(n_rank - 1);
    const double width = (double)config->model.hidden_size;
    const int64_t n_moe = config->model.num_layers -
                          mt_min_i64(config->model.first_k_dense, config->model.num_layers);
    const double experts = 3.0 * (double)(n_moe * config->moe.num_experts) * width *
                           (double)config->moe.expert_intermediate_size;
    const double dense = ((double)size->n_parameter - experts) * (double)sizeof(float);
    const double rows = (double)(config->train.global_batch_size * config->model.max_seq_len *
                                 config->moe.top_k * n_moe);
    const double remote = n_other / (double)n_rank;
    const double dispatch = rows * remote * (2.0 * width + 1.0) * (double)sizeof(float);
    (void)printf("\nbytes sent per optimizer step, all ranks (balanced load, policy ep)\n");
    (void)printf("  %-44s %12.2f MiB\n", "sparse all-gather of dense parameters",
                 dense * n_other / MIB);
    (void)printf("  %-44s %12.2f MiB\n", "sparse reduce-scatter of dense gradients",
                 dense * n_other / MIB);
    (void)printf("  %-44s %12.2f MiB\n", "all-to-all of rows, forward", dispatch / MIB);
    (void)printf("  %-44s %12.2f MiB\n", "all-to-all of rows, backward", dispatch / MIB);
}

/* What fits is known before anything is studied, and everything that can be refused before a word
 * is printed. */
static enum mt_status make_plan(const struct mt_arguments *arguments,
                                const struct mt_config *config, int n_rank, int n_node,
                                struct mt_memory_estimate *estimate,
                                struct mt_plan_policies **policies)
{
    const int64_t share = mt_ceil_div(config->train.global_batch_size, n_rank);
    const int64_t n_sequence = mt_min_i64(config->train.micro_batch_size, share);
    MT_TRY(mt_session_estimate(config, n_rank, true, n_sequence, estimate));
    if (n_rank > MAX_STUDIED_RANKS || mt_argument(arguments, "--no-policies") != NULL) {
        return MT_OK;
    }
    return mt_plan_policies_run(arguments, config, n_rank, n_node, policies);
}

static void print_plan(const struct mt_config *config, int64_t n_rank, int64_t n_node,
                       const struct mt_memory_estimate *estimate)
{
    struct mt_model_size size;
    const struct mt_batch_split split = {config->train.global_batch_size,
                                         config->train.micro_batch_size, (int)n_rank, 0};
    const int64_t n_token = config->train.global_batch_size * config->model.max_seq_len;
    mt_model_size(config, &size);
    (void)printf("%s on %lld rank%s, %lld node%s\n\n", config->run.name, (long long)n_rank,
                 n_rank == 1 ? "" : "s", (long long)n_node, n_node == 1 ? "" : "s");
    (void)printf("  %-44s %16lld\n", "parameters, total", (long long)size.n_parameter);
    (void)printf("  %-44s %16lld\n", "parameters, active per token", (long long)size.n_active);
    (void)printf("  %-44s %16.0f\n", "training FLOPs per token", size.train_flops_per_token);
    if (config->data.attention == MT_SPAN_DOCUMENT) {
        (void)printf("  %-44s %16.0f\n", "  at most; of which scores, less in documents",
                     size.train_flops_per_score * (double)config->model.max_seq_len);
    }
    (void)printf("  %-44s %16lld\n", "tokens per optimizer step", (long long)n_token);
    (void)printf("  %-44s %16lld\n", "micro-batches per step", (long long)mt_batch_n_micro(&split));
    print_memory(config, estimate);
    print_traffic(config, n_rank, &size);
}

enum mt_status mt_command_plan(const struct mt_arguments *arguments)
{
    enum { MAX_RANKS = 65536 };
    struct mt_config *config = NULL;
    int64_t n_rank = 1;
    int64_t n_node = 1;
    if (mt_argument(arguments, "--print-topology") != NULL) {
        return mt_plan_print_topology(arguments);
    }
    MT_TRY(mt_argument_integer(arguments, "--ranks", 1, 1, &n_rank));
    MT_TRY(mt_argument_integer(arguments, "--nodes", 1, 1, &n_node));
    if (n_rank > MAX_RANKS || n_node > n_rank) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "%lld ranks on %lld nodes; expected at most %d ranks, and at "
                       "least one of them on each node",
                       (long long)n_rank, (long long)n_node, (int)MAX_RANKS);
    }
    MT_TRY(mt_isa_check()); /* packs are as large as this processor's instructions want them */
    MT_TRY(mt_load_config(arguments, &config));
    if (config == NULL) {
        return MT_OK;
    }
    struct mt_plan_policies *policies = NULL;
    struct mt_memory_estimate estimate;
    enum mt_status status =
        make_plan(arguments, config, (int)n_rank, (int)n_node, &estimate, &policies);
    if (status == MT_OK) {
        print_plan(config, n_rank, n_node, &estimate);
        if (policies != NULL) {
            status = mt_plan_policies_print(policies);
        } else if (n_rank > MAX_STUDIED_RANKS) {
            (void)printf("\npolicies are predicted for up to %d ranks\n", (int)MAX_STUDIED_RANKS);
        }
    }
    mt_plan_policies_destroy(policies);
    mt_memory_free(config);
    return status;
}
