#include "config/table.h"

#include "base/status.h"
#include "config/choice.h"
#include "config/table_rows.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct mt_key table[] = {
    TEXT("run", "name", MT_NAME_BYTES, "Name of the run: names its directory and appears in logs.",
         DERIVED("file name", "\"first-run\""), FIELD(run.name)),
    TEXT("run", "dir", MT_PATH_BYTES,
         "Run directory: metrics, logs, checkpoints. Relative to the working directory.",
         DERIVED("runs/<name>", "\"runs/first-run\""), FIELD(run.dir)),
    INTEGER("run", "seed", 0, 0x1p63,
            "Seeds initial values, the order of the data and random data.", DEFAULT("1"),
            FIELD(run.seed)),
    REAL("run", "wall_time_minutes", 0, 1e9,
         "Saves and stops with code 75 after this time; 0 = no limit.", DEFAULT("0.0"),
         FIELD(run.wall_time_minutes)),
    BOOL("run", "tensorboard",
         "Writes event files for TensorBoard into <run>/tensorboard, with the numbers of "
         "metrics.jsonl.",
         DEFAULT("false"), FIELD(run.tensorboard)),
    INTEGER("model", "vocab_size", 2, 0x1p30,
            "Number of token ids V; 256 fits every text read as bytes.", DEFAULT("256"),
            FIELD(model.vocab_size)),
    INTEGER("model", "hidden_size", 1, 0x1p20, "Width D of the residual stream.", REQUIRED("128"),
            FIELD(model.hidden_size)),
    INTEGER("model", "num_layers", 1, 0x1p12, "Number of transformer blocks L.", REQUIRED("3"),
            FIELD(model.num_layers)),
    INTEGER("model", "num_attention_heads", 1, 0x1p16, "Query heads H.", REQUIRED("4"),
            FIELD(model.num_attention_heads)),
    INTEGER("model", "num_key_value_heads", 1, 0x1p16,
            "Key and value heads Hk (grouped-query attention); must divide num_attention_heads.",
            DERIVED("num_attention_heads", "2"), FIELD(model.num_key_value_heads)),
    INTEGER("model", "head_dim", 2, 0x1p16, "Width Dh of a head; even, for the rotary embedding.",
            DERIVED("hidden_size / num_attention_heads", "32"), FIELD(model.head_dim)),
    INTEGER("model", "max_seq_len", 1, 0x1p24, "Length T of every training sequence, in tokens.",
            REQUIRED("128"), FIELD(model.max_seq_len)),
    REAL("model", "rope_theta", 0, 1e12, "Base of the rotary embedding.", DEFAULT("10000.0"),
         .bounds = MT_OPEN_MIN, FIELD(model.rope_theta)),
    CHOICE("model", "rope_scaling", "none|linear|llama3|yarn",
           "How the rotary embedding was stretched for longer texts, as Hugging Face's rope_type.",
           DEFAULT("\"none\""), FIELD(model.rope_scaling)),
    REAL("model", "rope_factor", 1, 1e6, "How many times longer, with rope_scaling.",
         DEFAULT("1.0"), FIELD(model.rope_factor)),
    INTEGER("model", "rope_original_seq_len", 0, 0x1p24,
            "llama3, yarn: length before stretching; 0 = max_seq_len.", DEFAULT("0"),
            FIELD(model.rope_original_seq_len)),
    REAL_PAIR(
        "model", "rope_turns", 0, 1e6,
        "llama3, yarn: what turns less often in that length than the first is stretched, what "
        "turns more often than the second is not.",
        DERIVED("[1, 4]; yarn: [1, 32]", "[1.0, 4.0]"), .bounds = MT_OPEN_MIN,
        FIELD(model.rope_turns)),
    REAL("model", "rope_magnitude", 0, 1e6, "yarn: sines and cosines are so many times as large.",
         DERIVED("1; yarn: 0.1 ln(rope_factor) + 1", "1.0"), .bounds = MT_OPEN_MIN,
         FIELD(model.rope_magnitude)),
    REAL("model", "rms_norm_eps", 0, 1, "Added to the mean square in every RMSNorm.",
         DEFAULT("1e-5"), .bounds = MT_OPEN_MIN, FIELD(model.rms_norm_eps)),
    CHOICE("model", "qk_norm", "none|head|projection",
           "RMSNorm of queries and keys before the rotary embedding: per head (weight [head_dim]) "
           "or over the whole projection.",
           DEFAULT("\"none\""), FIELD(model.qk_norm)),
    BOOL("model", "attention_bias",
         "The projections of queries, keys and values have a bias; the output's has none.",
         DEFAULT("false"), FIELD(model.attention_bias)),
    BOOL("model", "tie_word_embeddings", "The output head shares the embedding matrix.",
         DEFAULT("false"), FIELD(model.tie_word_embeddings)),
    INTEGER("model", "first_k_dense", 0, 0x1p12,
            "So many leading blocks have a dense feed-forward layer instead of experts.",
            DEFAULT("0"), FIELD(model.first_k_dense)),
    INTEGER(
        "model", "dense_intermediate_size", 0, 0x1p20, "Width of the dense feed-forward layers.",
        DERIVED("0; required if first_k_dense > 0", "512"), FIELD(model.dense_intermediate_size)),
    REAL("model", "init_std", 0, 100,
         "Standard deviation of the initial weights; norms start at 1.", DEFAULT("0.02"),
         FIELD(model.init_std)),
    INTEGER("moe", "num_experts", 1, 0x1p16,
            "Experts E of a layer. Not required when every layer is dense.", REQUIRED("8"),
            FIELD(moe.num_experts)),
    INTEGER("moe", "top_k", 1, 0x1p16,
            "Experts K that every token is sent to; at most num_experts.", REQUIRED("2"),
            FIELD(moe.top_k)),
    INTEGER("moe", "expert_intermediate_size", 1, 0x1p20, "Width F inside one SwiGLU expert.",
            REQUIRED("192"), FIELD(moe.expert_intermediate_size)),
    INTEGER("moe", "num_shared_experts", 0, 0x1p16,
            "Experts that every token passes in addition to those it chooses.", DEFAULT("0"),
            FIELD(moe.num_shared_experts)),
    INTEGER("moe", "shared_intermediate_size", 0, 0x1p36,
            "Width inside all shared experts together; 0 = num_shared_experts * "
            "expert_intermediate_size.",
            DEFAULT("0"), FIELD(moe.shared_intermediate_size)),
    BOOL("moe", "shared_gate",
         "What the shared experts give a token is multiplied by sigmoid(x g), g learned.",
         DEFAULT("false"), FIELD(moe.shared_gate)),
    CHOICE("moe", "score_function", "softmax|sigmoid", "How router logits become scores.",
           DEFAULT("\"softmax\""), ONLY("softmax"), NO_FIELD),
    BOOL("moe", "normalize_top_k", "Weights of the chosen experts are divided by their sum.",
         DEFAULT("true"), FIELD(moe.normalize_top_k)),
    REAL("moe", "routed_scaling_factor", 0, 1e6, "Multiplies the output of the routed experts.",
         DEFAULT("1.0"), .bounds = MT_OPEN_MIN, FIELD(moe.routed_scaling_factor)),
    INTEGER("moe", "num_expert_groups", 1, 0x1p16, "Groups of experts for group-limited routing.",
            DEFAULT("1"), ONLY("1"), NO_FIELD),
    INTEGER("moe", "top_k_groups", 1, 0x1p16, "Groups a token may choose from.", DEFAULT("1"),
            ONLY("1"), NO_FIELD),
    REAL("moe", "capacity_factor", 0, 1e6,
         "Rows an expert takes at most, over the mean; 0 = dropless.", DEFAULT("0.0"), ONLY("0.0"),
         NO_FIELD),
    REAL("moe", "jitter", 0, 1, "Multiplicative noise on the input of the router.", DEFAULT("0.0"),
         ONLY("0.0"), NO_FIELD),
    CHOICE("moe", "routing", "learned|replay|synthetic",
           "Which experts tokens go to: those that the router likes best, or, for studies of "
           "placement, those that a trace or a named workload says.",
           DEFAULT("\"learned\""), FIELD(moe.routing)),
    TEXT("moe", "workload", MT_NAME_BYTES, "Shape of synthetic routing.",
         DERIVED("none", "\"hot_rank\""),
         .choices = "balanced|hot_set|hot_rank|spread_heat|ragged_source|zero_load_ranks|"
                    "rotating_hotspot|burst",
         FIELD(moe.workload)),
    REAL("moe", "skew", 1, 1e6,
         "Synthetic routing: largest load of a rank over the mean, as it is under policy ep.",
         DEFAULT("1.0"), FIELD(moe.skew)),
    TEXT("moe", "trace", MT_PATH_BYTES,
         "File of expert counts per step and layer, .csv, .jsonl or .h5: read when routing is "
         "\"replay\", else written. Relative to the working directory.",
         DERIVED("none", "\"trace.csv\""), FIELD(moe.trace)),
    CHOICE("moe.balance", "loss", "global|micro|sequence|none",
           "Over what the share of tokens per expert is counted in the balance loss: all ranks, "
           "one micro-batch of one rank, or one sequence.",
           DEFAULT("\"global\""), ONLY("global|micro|none"), FIELD(balance.loss)),
    CHOICE("moe.balance", "window", "running|lagged|exact",
           "Micro-batches that a global balance loss looks at: those of this step so far, the "
           "previous step's, all of this step's.",
           DEFAULT("\"running\""), FIELD(balance.window)),
    REAL("moe.balance", "loss_coef", 0, 1e6, "Weight of the balance loss, summed over the layers.",
         DEFAULT("0.01"), FIELD(balance.loss_coef)),
    REAL("moe.balance", "z_loss_coef", 0, 1e6,
         "Weight of the router z-loss, summed over the layers.", DEFAULT("0.0"),
         FIELD(balance.z_loss_coef)),
    REAL("moe.balance", "bias_update_rate", 0, 1e6,
         "Step of the bias that balances without a loss; 0 = off.", DEFAULT("0.0"), ONLY("0.0"),
         NO_FIELD),
    TEXT("placement", "policy", MT_POLICY_BYTES,
         "Decides on which ranks experts work: a matter of speed, never of the result.",
         DEFAULT("\"adaptive\""),
         .choices =
             "ep|fsdp|fastermoe|smartmoe|flexmoe|eplb|fssdp|fsep|least_loaded|quota|adaptive",
         FIELD(placement.policy)),
    AUTO_INTEGER("placement", "slots", 1, 0x1p16,
                 "Copies of a layer's experts that a rank may hold beside its own.",
                 DEFAULT("\"auto\""), FIELD(placement.slots)),
    AUTO_INTEGER("placement", "overlap_experts", 0, 0x1p16,
                 "Experts of a layer whose copies travel under attention; auto: as many as the "
                 "measured costs say.",
                 DEFAULT("\"auto\""), FIELD(placement.overlap_experts)),
    BOOL("placement", "rematerialize",
         "Copies are dropped after forward and gathered again for backward: slots of two layers "
         "suffice. false: copies stay until the optimizer's update, in slots of their layer.",
         DEFAULT("true"), FIELD(placement.rematerialize)),
    BOOL("placement", "calibrate", "Exact counts correct what history got wrong.", DEFAULT("true"),
         FIELD(placement.calibrate)),
    CHOICE(
        "placement", "split", "auto|local_first|settled",
        "How rows are split over an expert's instances: the nearest take all, evenly, or no rank "
        "gets more than it must; auto: as the policy does.",
        DEFAULT("\"auto\""), FIELD(placement.split)),
    INTEGER("placement", "load_window", 1, 0x1p16, "Steps of load history that a policy sees.",
            DEFAULT("5"), FIELD(placement.load_window)),
    INTEGER("placement", "reshard_interval", 0, 0x1p40,
            "Steps between changes of owners, for the policies that move them; 0 = never.",
            DEFAULT("100"), FIELD(placement.reshard_interval)),
    TEXT("placement", "costs", MT_PATH_BYTES,
         "Costs of links and computation that plans are made from: measured at start, or a "
         "costs.json. Relative to the working directory.",
         DEFAULT("\"measured\""), FIELD(placement.costs)),
    BOOL("placement", "shadow",
         "Every other policy plans along on the same counts; metrics tell what each would cost.",
         DEFAULT("false"), FIELD(placement.shadow)),
    CHOICE(
        "comm", "all_to_all", "auto|direct|hierarchical|leader|deduplicated",
        "Algorithm of the token exchange; auto: what costs least by measured links and exchanges.",
        DEFAULT("\"auto\""), FIELD(comm.all_to_all)),
    BOOL("comm", "exact", "auto chooses no exchange that sums in another order.", DEFAULT("true"),
         FIELD(comm.exact)),
    CHOICE("comm", "overlap", "auto|on|off",
           "Micro-batches run in two halves, rows of one travel while the other computes; auto: "
           "where ranks are on several nodes and a micro-batch has several sequences.",
           DEFAULT("\"auto\""), FIELD(comm.overlap)),
    CHOICE("comm", "transport", "auto|mpi|nccl", "What carries messages.", DEFAULT("\"auto\""),
           ONLY("auto|mpi"), FIELD(comm.transport)),
    AUTO_INTEGER("comm", "ranks_per_node", 1, 0x1p20,
                 "Ranks that share a node; auto: what shares memory.", DEFAULT("\"auto\""),
                 FIELD(comm.ranks_per_node)),
    INTEGER("comm", "watchdog_seconds", 0, 1e6,
            "A collective that lasts longer ends the job with code 124; 0 = off.", DEFAULT("600"),
            FIELD(comm.watchdog_seconds)),
    INTEGER("comm", "rehearse_alpha_us", 0, 1e6,
            "For rehearsals: messages between nodes take so much longer each, one after another at "
            "the rank that gets them; 0 = off.",
            DEFAULT("0"), FIELD(comm.rehearse_alpha_us)),
    CHOICE("optimizer", "name", "adamw", "The optimizer.", DEFAULT("\"adamw\""), NO_FIELD),
    REAL("optimizer", "lr", 0, 1e38, "Peak learning rate; 0 is allowed.", REQUIRED("3e-3"),
         FIELD(optimizer.lr)),
    REAL_PAIR("optimizer", "betas", 0, 1, "Decay rates of the two moments.", DEFAULT("[0.9, 0.95]"),
              .bounds = MT_OPEN_MAX, FIELD(optimizer.betas)),
    REAL("optimizer", "eps", 0, 1, "Added to the root of the second moment.", DEFAULT("1e-8"),
         .bounds = MT_OPEN_MIN, FIELD(optimizer.eps)),
    REAL("optimizer", "weight_decay", 0, 1000, "Decoupled weight decay, on matrices only.",
         DEFAULT("0.1"), FIELD(optimizer.weight_decay)),
    REAL("optimizer", "grad_clip", 0, 1e30, "Largest global gradient norm; 0 = off.",
         DEFAULT("1.0"), FIELD(optimizer.grad_clip)),
    CHOICE("optimizer", "dense_sharding", "optimizer|full|none",
           "What of the dense tensors is cut over the ranks.", DEFAULT("\"optimizer\""),
           ONLY("optimizer"), NO_FIELD),
    CHOICE("schedule", "kind", "cosine|wsd|linear|constant",
           "Course of the learning rate after warm-up.", DEFAULT("\"cosine\""),
           FIELD(schedule.kind)),
    INTEGER("schedule", "warmup_steps", 0, 0x1p40,
            "Step s of the warm-up has lr * s / warmup_steps, s from 1.", DEFAULT("0"),
            FIELD(schedule.warmup_steps)),
    INTEGER("schedule", "decay_steps", 0, 0x1p40, "Steps over which the learning rate falls.",
            DERIVED("steps - warmup_steps", "1000"), FIELD(schedule.decay_steps)),
    REAL("schedule", "min_lr_ratio", 0, 1, "The learning rate ends at lr * min_lr_ratio.",
         DEFAULT("0.1"), FIELD(schedule.min_lr_ratio)),
    PATHS("data", "train",
          "Training files, relative to the folder of the configuration. Not required for format = "
          "\"random\".",
          REQUIRED("[\"corpus.txt\"]"), FIELD(data.train)),
    PATHS("data", "validation",
          "Evaluation files; required when train.eval_interval > 0, unless format = \"random\".",
          DEFAULT("[]"), FIELD(data.validation)),
    PATH_SETS("data", "validation_sets",
              "More evaluation files, by name: each set's loss is reported beside the whole's; the "
              "files of validation are the set \"validation\" then.",
              DEFAULT("{}"), .example = "{ web = [\"web.bin\"], code = [\"code.bin\"] }",
              FIELD(data.validation_sets)),
    CHOICE(
        "data", "format", "bytes|tokens|megatron|random",
        "bytes: text, one token a byte. tokens: ids behind a header of llm.c or modded-nanogpt, "
        "or bare ones of data.token_type. megatron: pairs PREFIX.bin, PREFIX.idx. random: seeded "
        "ids, no file.",
        DEFAULT("\"bytes\""), FIELD(data.format)),
    CHOICE(
        "data", "token_type", "auto|u8|i8|u16|i16|u32|i32|u64|i64",
        "Type of the ids in files of format \"tokens\" without a header; auto: a header tells it.",
        DEFAULT("\"auto\""), FIELD(data.token_type)),
    REALS("data", "weights", 0, 1e9,
          "Shares of the paths of data.train in the sequences, each path a source of its own; []: "
          "all paths are one source, shuffled as one.",
          DEFAULT("[]"), .bounds = MT_OPEN_MIN, FIELD(data.weights)),
    CHOICE("data", "changed", "refuse|accept",
           "Training data whose content differs from the checkpoint's, under the same name.",
           DEFAULT("\"refuse\""), FIELD(data.changed)),
    CHOICE("data", "attention", "sequence|document",
           "What a token attends to: all of its sequence before it, or of its own document.",
           DEFAULT("\"sequence\""), FIELD(data.attention)),
    AUTO_INTEGER(
        "data", "document_end", 0, 0x1p30,
        "With attention = \"document\": the token that ends a document; auto: the index of "
        "format \"megatron\" tells.",
        DEFAULT("\"auto\""), FIELD(data.document_end)),
    CHOICE(
        "data", "balance", "count|cost",
        "How a step's sequences are given to ranks: in order, or by cost, so that ranks that meet "
        "have alike work; for attention = \"document\".",
        DEFAULT("\"count\""), FIELD(data.balance)),
    BOOL("data", "log_samples",
         "Writes samples.jsonl into the run directory: which sequences every step was trained on.",
         DEFAULT("false"), FIELD(data.log_samples)),
    INTEGER("train", "steps", 1, 0x1p40, "Optimizer steps of the whole run.", REQUIRED("1000"),
            FIELD(train.steps)),
    INTEGER("train", "global_batch_size", 1, 0x1p24,
            "Sequences per optimizer step, over all ranks.", REQUIRED("32"),
            FIELD(train.global_batch_size)),
    INTEGER("train", "micro_batch_size", 1, 0x1p24, "Sequences per rank and micro-batch.",
            REQUIRED("8"), FIELD(train.micro_batch_size)),
    INTEGER("train", "eval_interval", 0, 0x1p40, "Steps between evaluations; 0 = never.",
            DEFAULT("0"), FIELD(train.eval_interval)),
    INTEGER("train", "eval_sequences", 1, 0x1p30, "Sequences of an evaluation.", DEFAULT("64"),
            FIELD(train.eval_sequences)),
    CHOICE("train", "recompute", "none|attention|layer",
           "What backward computes again instead of keeping it; routing is always kept.",
           DEFAULT("\"none\""), FIELD(train.recompute)),
    INTEGER("train", "nonfinite_patience", 0, 0x1p30,
            "Steps in a row with a non-finite loss or gradient that are skipped before "
            "nonfinite_action.",
            DEFAULT("3"), FIELD(train.nonfinite_patience)),
    CHOICE("train", "nonfinite_action", "stop|rollback",
           "Then: the run ends with code 5, or goes back to its last checkpoint and on with the "
           "data that follow; a second time to the same checkpoint it ends too.",
           DEFAULT("\"stop\""), FIELD(train.nonfinite_action)),
    INTEGER("train", "replica_check_interval", 0, 0x1p40,
            "Steps between comparisons of the dense working copies of all ranks, which must be "
            "equal bit for bit; 0 = never.",
            DEFAULT("0"), FIELD(train.replica_check_interval)),
    INTEGER("checkpoint", "interval", 0, 0x1p40,
            "Steps between checkpoints, and one at the last step; 0 = never.", DEFAULT("0"),
            FIELD(checkpoint.interval)),
    INTEGER("checkpoint", "keep", 1, 0x1p30, "Newest checkpoints that are kept.", DEFAULT("2"),
            FIELD(checkpoint.keep)),
    INTEGER("checkpoint", "keep_every", 0, 0x1p40,
            "Checkpoints at multiples of this many steps are kept for good; 0 = none.",
            DEFAULT("0"), FIELD(checkpoint.keep_every)),
    BOOL("checkpoint", "async",
         "Saving goes on under the following steps, from a copy of the owned state in memory; "
         "false: training waits for the disk. The files are the same.",
         DEFAULT("true"), FIELD(checkpoint.async)),
    INTEGER("checkpoint", "sparse_saves", 0, 0x1p20,
            "Saves between two full ones that write one fourth of the experts, in turn, and link "
            "the others from the save before; after a crash those go on from older states. 0 = "
            "every save is full.",
            DEFAULT("0"), FIELD(checkpoint.sparse_saves)),
    REAL("checkpoint", "max_overhead_percent", 0, 100,
         "Where saving costs more than this share of the time, saves at twice, four times, eight "
         "times .. the interval (0: of one step); 0 = off.",
         DEFAULT("0.0"), FIELD(checkpoint.max_overhead_percent)),
    BOOL("profile", "enabled",
         "Each rank records what it does and when, in the run directory's folder profile.",
         DEFAULT("true"), FIELD(profile.enabled)),
    INTEGERS("profile", "trace_steps", 1, 0x1p40, "Steps of which every span is written.",
             DEFAULT("[]"), .example = "[100, 101]", FIELD(profile.trace_steps)),
    INTEGER("profile", "window", 1, 0x1p30, "Steps over which stragglers are looked for.",
            DEFAULT("50"), FIELD(profile.window)),
    CHOICE("device", "kind", "auto|cpu|cuda",
           "What computes; auto: GPUs where every rank has one, else the CPU.", DEFAULT("\"auto\""),
           FIELD(device.kind)),
    CHOICE("device", "dtype", "float32|bfloat16",
           "What matrix products round operands to; sums, parameters and the rest are float32.",
           DEFAULT("\"float32\""), FIELD(device.dtype)),
    AUTO_INTEGER(
        "device", "threads", 1, 512, /* as many as kernels have memory for */
        "OpenMP threads of a rank; auto: its share of the cores, a thread bound to each unless "
        "ranks outnumber cores or time is limited; a number binds nothing.",
        DEFAULT("\"auto\""), FIELD(device.threads)),
    REAL("device", "pace_gflops", 0, 1e9,
         "Every operation lasts at least as long as on a device of this speed; 0 = off.",
         DEFAULT("0.0"), FIELD(device.pace_gflops)),
    REAL("device", "pace_gbytes_per_s", 0, 1e9,
         "The same for the bytes that operations move; 0 = off.", DEFAULT("0.0"),
         FIELD(device.pace_gbytes_per_s)),
    FACTORS("device", "slowdown", 1, 1e6, "Ranks made slower by a factor, for straggler studies.",
            DEFAULT("{}"), .example = "{ 3 = 2.0 }", FIELD(device.n_slowdown)),
};

enum { N_KEY = sizeof(table) / sizeof(table[0]) };
_Static_assert((int)N_KEY <= (int)MT_MAX_KEYS, "states per key are arrays of MT_MAX_KEYS");

int mt_table_n_key(void)
{
    return N_KEY;
}

const struct mt_key *mt_table_key(int index)
{
    MT_ASSERT(index >= 0 && index < N_KEY);
    return &table[index];
}

int mt_table_find(const char *section, const char *name)
{
    for (int i = 0; i < N_KEY; i++) {
        if (strcmp(table[i].section, section) == 0 && strcmp(table[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

int mt_table_index(const char *path)
{
    int found = -1;
    for (int i = 0; i < N_KEY; i++) {
        const size_t n = strlen(table[i].section);
        if (strncmp(path, table[i].section, n) == 0 && path[n] == '.' &&
            strcmp(path + n + 1, table[i].name) == 0) {
            found = i;
        }
    }
    MT_ASSERT(found >= 0);
    return found;
}

bool mt_table_has_section(const char *section)
{
    for (int i = 0; i < N_KEY; i++) {
        if (strcmp(table[i].section, section) == 0) {
            return true;
        }
    }
    return false;
}

/* A limit as a person writes it: 1048576 (2^20), 4096, 1e+09, 2^63 - 1. */
static void describe_limit(double limit, char *text, size_t bytes)
{
    int exponent = 0;
    const bool is_power = frexp(limit, &exponent) == 0.5;
    if (limit == 0x1p63) {
        (void)snprintf(text, bytes, "2^63 - 1");
    } else if (is_power && exponent > 13) {
        (void)snprintf(text, bytes, "%.0f (2^%d)", limit, exponent - 1);
    } else {
        (void)snprintf(text, bytes, "%g", limit);
    }
}

void mt_key_describe_range(const struct mt_key *key, char *text, size_t bytes)
{
    char max[48];
    describe_limit(key->max, max, sizeof(max));
    if (key->bounds == MT_OPEN_MIN) {
        (void)snprintf(text, bytes, "above %g, up to %s", key->min, max);
    } else if (key->bounds == MT_OPEN_MAX) {
        (void)snprintf(text, bytes, "%g to below %s", key->min, max);
    } else {
        (void)snprintf(text, bytes, "%g to %s", key->min, max);
    }
}

void mt_key_describe_values(const struct mt_key *key, char *text, size_t bytes)
{
    static const char *const word[] = {
        [MT_KEY_INTEGER] = "integer, ",
        [MT_KEY_AUTO_INTEGER] = "\"auto\" or integer, ",
        [MT_KEY_REAL] = "number, ",
        [MT_KEY_BOOL] = "true or false",
        [MT_KEY_CHOICE] = "",
        [MT_KEY_TEXT] = "string",
        [MT_KEY_REAL_PAIR] = "two numbers, each ",
        [MT_KEY_REALS] = "list of numbers, each ",
        [MT_KEY_INTEGERS] = "list of integers, each ",
        [MT_KEY_PATHS] = "list of paths",
        [MT_KEY_PATH_SETS] = "table name = list of paths",
        [MT_KEY_FACTORS] = "table rank = factor, each ",
    };
    char values[256] = "";
    if (key->choices != NULL) {
        mt_choice_list(key->choices, true, " or ", values, sizeof(values));
        (void)snprintf(text, bytes, "%s", values);
        return;
    }
    if (key->max > key->min) {
        mt_key_describe_range(key, values, sizeof(values));
    }
    (void)snprintf(text, bytes, "%s%s", word[key->type], values);
}
