/* The configuration of a run, resolved: every default filled in, every rule checked.
 *
 * Comes from a TOML file and `--set` overrides (config/load.h); field names are the keys of the
 * file. Sizes are elements unless a unit is in the name. Plain data: copied freely, never changed
 * after loading. */
#ifndef MT_CONFIG_CONFIG_H
#define MT_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

enum {
    MT_PATH_BYTES = 4096,
    MT_NAME_BYTES = 256,
    MT_MAX_PATHS = 256,
    MT_MAX_SETS = 32,
    MT_MAX_SLOWDOWNS = 1024,
    MT_MAX_INTEGERS = 256,
    MT_POLICY_BYTES = 32
};

enum mt_qk_norm { MT_QK_NORM_NONE, MT_QK_NORM_HEAD, MT_QK_NORM_PROJECTION };
enum mt_rope_scaling { MT_ROPE_NONE, MT_ROPE_LINEAR, MT_ROPE_LLAMA3, MT_ROPE_YARN };
enum mt_balance_loss { MT_BALANCE_GLOBAL, MT_BALANCE_MICRO, MT_BALANCE_SEQUENCE, MT_BALANCE_NONE };
enum mt_balance_window { MT_WINDOW_RUNNING, MT_WINDOW_LAGGED, MT_WINDOW_EXACT };
enum mt_schedule_kind {
    MT_SCHEDULE_COSINE,
    MT_SCHEDULE_WSD,
    MT_SCHEDULE_LINEAR,
    MT_SCHEDULE_CONSTANT
};
enum mt_token_type {
    MT_TOKEN_AUTO,
    MT_TOKEN_U8,
    MT_TOKEN_I8,
    MT_TOKEN_U16,
    MT_TOKEN_I16,
    MT_TOKEN_U32,
    MT_TOKEN_I32,
    MT_TOKEN_U64,
    MT_TOKEN_I64
};
enum mt_data_change { MT_DATA_CHANGE_REFUSE, MT_DATA_CHANGE_ACCEPT };
enum mt_data_format { MT_DATA_BYTES, MT_DATA_TOKENS, MT_DATA_MEGATRON, MT_DATA_RANDOM };
enum mt_comm_all_to_all {
    MT_COMM_A2A_AUTO,
    MT_COMM_A2A_DIRECT,
    MT_COMM_A2A_HIERARCHICAL,
    MT_COMM_A2A_LEADER,
    MT_COMM_A2A_DEDUPLICATED
};
enum mt_comm_overlap { MT_COMM_OVERLAP_AUTO, MT_COMM_OVERLAP_ON, MT_COMM_OVERLAP_OFF };
enum mt_attention_span { MT_SPAN_SEQUENCE, MT_SPAN_DOCUMENT };
enum mt_batch_balance { MT_BATCH_COUNT, MT_BATCH_COST };
enum mt_routing { MT_ROUTING_LEARNED, MT_ROUTING_REPLAY, MT_ROUTING_SYNTHETIC };
/* How rows are split over the instances of their experts; auto: as the policy does. */
enum mt_split_rule {
    MT_SPLIT_AUTO,
    MT_SPLIT_LOCAL_FIRST, /* the literature's: mt_split_local_first */
    MT_SPLIT_SETTLED      /* the smallest largest load, then as near as that allows (settle.h) */
};
enum mt_nonfinite_action { MT_NONFINITE_STOP, MT_NONFINITE_ROLLBACK };
enum mt_recompute { MT_RECOMPUTE_NONE, MT_RECOMPUTE_ATTENTION, MT_RECOMPUTE_LAYER };
enum mt_comm_transport { MT_COMM_TRANSPORT_AUTO, MT_COMM_TRANSPORT_MPI, MT_COMM_TRANSPORT_NCCL };
enum mt_dtype { MT_FLOAT32, MT_BFLOAT16 };
enum mt_device_kind { MT_DEVICE_AUTO, MT_DEVICE_CPU, MT_DEVICE_CUDA };

struct mt_integer_list {
    int n;
    int64_t value[MT_MAX_INTEGERS];
};

struct mt_path_list {
    int n;
    char path[MT_MAX_PATHS][MT_PATH_BYTES]; /* absolute, or relative to the working directory */
};

/* Paths by the name of the set that they belong to. */
struct mt_path_sets {
    int n_set;
    char name[MT_MAX_SETS][MT_NAME_BYTES]; /* rising */
    struct mt_path_list paths;
    int set[MT_MAX_PATHS]; /* of each path */
};

struct mt_real_list {
    int n;
    double value[MT_MAX_PATHS];
};

struct mt_config {
    struct {
        char name[MT_NAME_BYTES];
        char dir[MT_PATH_BYTES];
        int64_t seed;
        double wall_time_minutes; /* 0 = none */
        bool tensorboard;
    } run;
    struct {
        int64_t vocab_size, hidden_size, num_layers;
        int64_t num_attention_heads, num_key_value_heads, head_dim, max_seq_len;
        double rope_theta, rms_norm_eps;
        enum mt_rope_scaling rope_scaling;
        double rope_factor, rope_turns[2], rope_magnitude;
        int64_t rope_original_seq_len; /* 0: max_seq_len */
        enum mt_qk_norm qk_norm;
        bool attention_bias; /* of queries, keys and values */
        bool tie_word_embeddings;
        int64_t first_k_dense, dense_intermediate_size; /* 0 when first_k_dense is 0 */
        double init_std;
    } model;
    struct {
        int64_t num_experts, top_k, expert_intermediate_size, num_shared_experts;
        int64_t shared_intermediate_size; /* 0: see mt_config_shared_width */
        bool shared_gate;
        bool normalize_top_k;
        double routed_scaling_factor;
        enum mt_routing routing;
        char workload[MT_NAME_BYTES]; /* of synthetic routing; "": none */
        double skew;                  /* largest load of a rank over the mean under ep; >= 1 */
        char trace[MT_PATH_BYTES];    /* replayed, or else written; "": none */
    } moe;
    struct {
        enum mt_balance_loss loss;
        enum mt_balance_window window;
        double loss_coef, z_loss_coef;
    } balance; /* [moe.balance] */
    struct {
        char policy[MT_POLICY_BYTES];
        int64_t slots;           /* 0 = auto */
        int64_t overlap_experts; /* -1 = auto */
        bool rematerialize, calibrate, shadow;
        enum mt_split_rule split;
        int64_t load_window, reshard_interval;
        char costs[MT_PATH_BYTES]; /* "measured" or a file */
    } placement;
    struct {
        enum mt_comm_all_to_all all_to_all;
        enum mt_comm_transport transport;
        enum mt_comm_overlap overlap;
        int64_t ranks_per_node; /* 0 = auto: what shares memory */
        bool exact;             /* auto chooses no exchange that adds in another order */
        int64_t watchdog_seconds;
        int64_t rehearse_alpha_us; /* 0 = off */
    } comm;
    struct {
        double lr, betas[2], eps, weight_decay, grad_clip;
    } optimizer;
    struct {
        enum mt_schedule_kind kind;
        int64_t warmup_steps, decay_steps;
        double min_lr_ratio;
    } schedule;
    struct {
        struct mt_path_list train, validation;
        struct mt_path_sets validation_sets; /* instead of validation */
        enum mt_data_format format;
        enum mt_token_type token_type;
        struct mt_real_list weights; /* n = 0: all paths are one source */
        enum mt_data_change changed;
        bool log_samples;
        enum mt_attention_span attention;
        int64_t document_end; /* a token id; -1 = auto: the files' own marks */
        enum mt_batch_balance balance;
    } data;
    struct {
        int64_t steps, global_batch_size, micro_batch_size;
        int64_t eval_interval, eval_sequences, nonfinite_patience, replica_check_interval;
        enum mt_nonfinite_action nonfinite_action;
        enum mt_recompute recompute;
    } train;
    struct {
        int64_t interval, keep, keep_every, sparse_saves;
        double max_overhead_percent; /* 0 = off */
        bool async;
    } checkpoint;
    struct {
        bool enabled;
        struct mt_integer_list trace_steps;
        int64_t window;
    } profile;
    struct {
        enum mt_device_kind kind;
        enum mt_dtype dtype;
        int64_t threads;          /* 0 = auto */
        double pace_gflops;       /* 0 = off */
        double pace_gbytes_per_s; /* 0 = off */
        int n_slowdown;
        int slowdown_rank[MT_MAX_SLOWDOWNS];
        double slowdown_factor[MT_MAX_SLOWDOWNS]; /* >= 1 */
    } device;
};

/* A layer is dense when its index is below first_k_dense, else it is a MoE layer. */
static inline bool mt_config_is_dense_layer(const struct mt_config *config, int64_t layer)
{
    return layer < config->model.first_k_dense;
}

/* Inner width Fs of all shared experts together; 0: there are none. */
static inline int64_t mt_config_shared_width(const struct mt_config *config)
{
    return config->moe.shared_intermediate_size > 0
               ? config->moe.shared_intermediate_size
               : config->moe.num_shared_experts * config->moe.expert_intermediate_size;
}

#endif
