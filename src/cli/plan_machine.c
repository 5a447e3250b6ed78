/* The machine that `moetrain plan` assumes: nodes, links, and how fast devices compute. */
#include "base/size.h"
#include "cli/plan.h"
#include "data/sampler.h"
#include "model/model.h"
#include "placement/exchange.h"
#include "train/costs.h"

#include <math.h>
#include <string.h>

/* What is assumed unless options say otherwise: an H100-class device (989 TFLOP/s of dense bf16 at
 * 40 % utilisation), NVLink at 450 GB/s a direction, one 400 Gb/s network card a device. */
#define DEVICE_TFLOPS      395.6
#define INTRA_GBYTES_PER_S 450.0
#define INTER_GBYTES_PER_S 50.0
#define INTRA_LATENCY_US   3.0
#define INTER_LATENCY_US   8.0
/* Rows are computed in tiles of 128, so an instance wastes half a tile on average. */
static const double ROWS_AN_INSTANCE = 64;

static const char *const MACHINE_OPTION[] = {"--device-tflops",      "--intra-gbytes-per-s",
                                             "--inter-gbytes-per-s", "--intra-latency-us",
                                             "--inter-latency-us",   "--dense-tflops"};
enum { TFLOPS, INTRA, INTER, INTRA_LATENCY, INTER_LATENCY, DENSE_TFLOPS, N_MACHINE_OPTION };

int64_t mt_plan_n_token(const struct mt_config *config, int n_rank, int rank, int64_t micro)
{
    const struct mt_batch_split split = {config->train.global_batch_size,
                                         config->train.micro_batch_size, n_rank, rank};
    int64_t first = 0;
    int64_t n = 0;
    mt_batch_micro(&split, micro, &first, &n);
    return n * config->model.max_seq_len;
}

static int64_t round_ps(double ps)
{
    return ps < 0x1p60 ? (int64_t)llround(ps) : (int64_t)1 << 60;
}

/* FLOPs of a token, forward: of attention in one layer; and of everything beside the routed
 * experts. */
static void count_flops(const struct mt_config *config, double *attention, double *dense)
{
    struct mt_model_size size;
    const double width = (double)config->model.hidden_size;
    const double heads = (double)config->model.num_attention_heads;
    const double kv_heads = (double)config->model.num_key_value_heads;
    const double head_dim = (double)config->model.head_dim;
    const double n_moe = (double)(config->model.num_layers - config->model.first_k_dense);
    const double row = 6.0 * width * (double)config->moe.expert_intermediate_size;
    mt_model_size(config, &size);
    *attention = 4.0 * width * (heads + kv_heads) * head_dim +
                 4.0 * (double)config->model.max_seq_len * heads * head_dim;
    *dense = size.train_flops_per_token / 3.0 - n_moe * (double)config->moe.top_k * row;
}

/* Recomputation makes forward twice: what is 3 forwards long then takes 4. */
static double with_recompute(const struct mt_config *config)
{
    return config->train.recompute == MT_RECOMPUTE_LAYER ? 4.0 / 3.0 : 1.0;
}

static enum mt_status read_rates(const struct mt_arguments *arguments, double *value)
{
    static const double fallback[N_MACHINE_OPTION] = {
        [TFLOPS] = DEVICE_TFLOPS,           [INTRA] = INTRA_GBYTES_PER_S,
        [INTER] = INTER_GBYTES_PER_S,       [INTRA_LATENCY] = INTRA_LATENCY_US,
        [INTER_LATENCY] = INTER_LATENCY_US,
    };
    for (int i = 0; i < N_MACHINE_OPTION; i++) {
        const double least = i == INTRA_LATENCY || i == INTER_LATENCY ? 0 : 1e-6;
        const double standard = i == DENSE_TFLOPS ? value[TFLOPS] : fallback[i];
        MT_TRY(mt_argument_real(arguments, MACHINE_OPTION[i], standard, least, &value[i]));
        if (value[i] > 1e9) {
            return MT_FAIL(MT_ERR_CONFIG, "%s %g is out of range; expected %g to 1e9",
                           MACHINE_OPTION[i], value[i], least);
        }
    }
    return MT_OK;
}

/* Costs of a device and links of such speeds: rate [N_MACHINE_OPTION] in the options' units. A
 * TFLOP/s is a FLOP a picosecond. */
static void derive_costs(struct mt_plan_machine *machine, const struct mt_config *config,
                         const double *rate)
{
    enum { KIB = 1024 };
    const double row_flops =
        6.0 * (double)config->model.hidden_size * (double)config->moe.expert_intermediate_size;
    double attention = 0;
    double dense = 0;
    count_flops(config, &attention, &dense);
    const double again = with_recompute(config);
    const double row_ps = row_flops / rate[TFLOPS] * again;
    struct mt_costs *costs = &machine->cluster.costs;
    costs->row_ps = round_ps(row_ps);
    costs->instance_ps = round_ps(ROWS_AN_INSTANCE * row_ps);
    costs->attention_ps = round_ps(attention * (double)machine->max_token / rate[DENSE_TFLOPS]);
    costs->alpha_ps[MT_LEVEL_NODE] = round_ps(rate[INTRA_LATENCY] * 1e6);
    costs->alpha_ps[MT_LEVEL_NETWORK] = round_ps(rate[INTER_LATENCY] * 1e6);
    costs->kib_ps[MT_LEVEL_NODE] = round_ps(KIB * 1e3 / rate[INTRA]);
    costs->kib_ps[MT_LEVEL_NETWORK] = round_ps(KIB * 1e3 / rate[INTER]);
    const double n_token =
        (double)(mt_ceil_div(config->train.global_batch_size, machine->cluster.n_rank) *
                 config->model.max_seq_len);
    machine->dense_ps = 3.0 * dense * again * n_token / rate[DENSE_TFLOPS];
}

static bool has_rates(const struct mt_arguments *arguments)
{
    bool has_one = false;
    for (int i = 0; i < N_MACHINE_OPTION; i++) {
        has_one = has_one || mt_argument(arguments, MACHINE_OPTION[i]) != NULL;
    }
    return has_one;
}

static void describe(struct mt_plan_machine *machine, const struct mt_arguments *arguments,
                     const double *rate)
{
    (void)snprintf(
        machine->about, sizeof(machine->about),
        "%sdevices at %.4g TFLOP/s sustained (%.4g beside experts), %.4g GB/s a device "
        "inside a node (%.3g us a message), %.4g GB/s between nodes (%.3g us), bf16 "
        "values",
        has_rates(arguments) ? "" : "assumed: H100-class bf16 at 40 % utilisation: ", rate[TFLOPS],
        rate[DENSE_TFLOPS], rate[INTRA], rate[INTRA_LATENCY], rate[INTER], rate[INTER_LATENCY]);
}

/* Costs as this program measured them, or as somebody wrote them down: with values in float32, as
 * the trainer sends them. A step beside its experts is then attention, which the file has. */
static enum mt_status read_costs(struct mt_plan_machine *machine, const char *path,
                                 const struct mt_config *config)
{
    struct mt_cluster *cluster = &machine->cluster;
    MT_TRY(mt_costs_read(path, &cluster->costs));
    cluster->row_bytes = (config->model.hidden_size + 1) * (int64_t)sizeof(float);
    cluster->expert_bytes = 3 * config->model.hidden_size * config->moe.expert_intermediate_size *
                            (int64_t)sizeof(float);
    machine->dense_ps = 3.0 * with_recompute(config) * (double)cluster->costs.attention_ps *
                        (double)(config->model.num_layers * machine->n_micro);
    (void)snprintf(machine->about, sizeof(machine->about),
                   "costs of %.300s: %.4g us a row, %.4g us attention, float32 values", path,
                   (double)cluster->costs.row_ps * 1e-6,
                   (double)cluster->costs.attention_ps * 1e-6);
    return MT_OK;
}

/* From --costs, else the options of speeds, else placement.costs of the configuration, else what is
 * assumed. */
static enum mt_status choose_costs(struct mt_plan_machine *machine,
                                   const struct mt_arguments *arguments,
                                   const struct mt_config *config)
{
    double rate[N_MACHINE_OPTION];
    const char *path = mt_argument(arguments, "--costs");
    MT_TRY(read_rates(arguments, rate));
    if (path != NULL && has_rates(arguments)) {
        return MT_FAIL(MT_ERR_CONFIG, "--costs and the speeds of devices and links both say how "
                                      "long things take; expected one; leave out the other");
    }
    if (path == NULL && !has_rates(arguments) && strcmp(config->placement.costs, "measured") != 0) {
        path = config->placement.costs;
    }
    if (path != NULL) {
        return read_costs(machine, path, config);
    }
    derive_costs(machine, config, rate);
    describe(machine, arguments, rate);
    return MT_OK;
}

static enum mt_status make_nodes(struct mt_plan_machine *machine, int n_rank, int n_node)
{
    int *node = NULL;
    MT_TRY(MT_ALLOCATE(node, n_rank, "nodes of a plan"));
    for (int m = 0; m < n_node; m++) {
        for (int64_t r = mt_share_start(n_rank, n_node, m);
             r < mt_share_start(n_rank, n_node, m + 1); r++) {
            node[r] = m;
        }
    }
    const enum mt_status status = mt_cluster_init(&machine->cluster, n_rank, node);
    mt_memory_free(node);
    return status;
}

enum mt_status mt_plan_machine_init(struct mt_plan_machine *machine,
                                    const struct mt_arguments *arguments,
                                    const struct mt_config *config, int n_rank, int n_node)
{
    enum { BF16_BYTES = 2 };
    const struct mt_batch_split split = {config->train.global_batch_size,
                                         config->train.micro_batch_size, n_rank, 0};
    *machine = (struct mt_plan_machine){0};
    MT_TRY(make_nodes(machine, n_rank, n_node));
    machine->n_micro = mt_batch_n_micro(&split);
    machine->max_token = mt_plan_n_token(config, n_rank, 0, 0);
    machine->cluster.row_bytes = BF16_BYTES * config->model.hidden_size;
    machine->cluster.expert_bytes =
        3L * BF16_BYTES * config->model.hidden_size * config->moe.expert_intermediate_size;
    mt_exchange_describe(&machine->cluster, config);
    machine->cluster.is_halved = mt_model_n_half(config, n_node, split.micro_batch) > 1;
    return choose_costs(machine, arguments, config);
}

void mt_plan_machine_clear(struct mt_plan_machine *machine)
{
    mt_cluster_clear(&machine->cluster);
}
