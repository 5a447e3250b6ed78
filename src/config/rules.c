#include "config/rules.h"

#include "base/size.h"
#include "config/rules_internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { NAMES_BYTES = 400 };

/* Is this required key needed here? A MoE layer's shape is not without MoE layers, a training file
 * not for random data. */
static bool is_needed(const struct mt_load *load, int index)
{
    const struct mt_key *key = mt_table_key(index);
    const struct mt_config *config = load->config;
    if (strcmp(key->section, "moe") == 0) {
        return !is_set(load, "model.num_layers") || !is_good(load, "model.first_k_dense") ||
               config->model.first_k_dense != config->model.num_layers;
    }
    if (index == mt_table_index("data.train")) {
        return is_good(load, "data.format") && config->data.format != MT_DATA_RANDOM;
    }
    return true;
}

/* One line for all required keys that a section lacks. `first`: its first row. */
static void check_required(struct mt_load *load, int first)
{
    const char *section = mt_table_key(first)->section;
    char names[NAMES_BYTES] = "";
    size_t used = 0;
    int n_missing = 0;
    for (int i = first; i < mt_table_n_key(); i++) {
        const struct mt_key *key = mt_table_key(i);
        const bool here = strcmp(key->section, section) == 0;
        if (here && key->required && load->status[i] == MT_KEY_UNSET && is_needed(load, i)) {
            const int n = snprintf(names + used, sizeof(names) - used, "%s%s",
                                   n_missing == 0 ? "" : ", ", key->name);
            MT_ASSERT(n > 0 && (size_t)n < sizeof(names) - used);
            used += (size_t)n;
            n_missing++;
            load->status[i] = MT_KEY_BAD;
        }
    }
    if (n_missing == 0) {
        return;
    }
    const struct mt_text_place place = load->section[first];
    if (place.line == 0) {
        mt_report_add(&load->report, place, "the table [%s] is missing; it needs %s", section,
                      names);
    } else {
        mt_report_add(&load->report, place, "[%s] lacks the required key%s %s; add %s", section,
                      n_missing == 1 ? "" : "s", names, n_missing == 1 ? "it" : "them");
    }
}

static void check_all_required(struct mt_load *load)
{
    const char *section = "";
    for (int i = 0; i < mt_table_n_key(); i++) {
        if (strcmp(section, mt_table_key(i)->section) != 0) {
            section = mt_table_key(i)->section;
            check_required(load, i);
        }
    }
}

/* The divisors of n next to `near` on either side, e.g. "3 or 6". A quotient that must be even
 * (a head's width) may leave none: "". text [bytes] */
static void nearest_divisors(int64_t n, int64_t near, bool even_quotient, char *text, size_t bytes)
{
    const int64_t step = even_quotient ? 2 : 1;
    int64_t below = mt_min_i64(near, n);
    while (below > 0 && (n % below != 0 || (n / below) % step != 0)) {
        below--;
    }
    int64_t above = near;
    while (above <= n && (n % above != 0 || (n / above) % step != 0)) {
        above++;
    }
    text[0] = '\0';
    if (below > 0 && above <= n && above != below) {
        (void)snprintf(text, bytes, "%" PRId64 " or %" PRId64, below, above);
    } else if (below > 0 || above <= n) {
        (void)snprintf(text, bytes, "%" PRId64, below > 0 ? below : above);
    }
}

static void check_heads(struct mt_load *load)
{
    struct mt_config *config = load->config;
    const int64_t heads = config->model.num_attention_heads;
    if (!is_good(load, "model.num_attention_heads")) {
        return;
    }
    if (!is_set(load, "model.num_key_value_heads")) {
        if (is_good(load, "model.num_key_value_heads")) {
            config->model.num_key_value_heads = heads;
        }
        return;
    }
    const int64_t key_value_heads = config->model.num_key_value_heads;
    if (heads % key_value_heads != 0) {
        char legal[64];
        nearest_divisors(heads, key_value_heads, false, legal, sizeof(legal));
        mt_report_add(&load->report, place_of(load, "model.num_key_value_heads"),
                      "model.num_attention_heads = %" PRId64 " does not divide by "
                      "num_key_value_heads = %" PRId64 ": %" PRId64 " mod %" PRId64 " = %" PRId64
                      "; nearest legal num_key_value_heads: %s",
                      heads, key_value_heads, heads, key_value_heads, heads % key_value_heads,
                      legal);
    }
}

/* head_dim from hidden_size and heads; false after reporting that they do not divide. */
static bool derive_head_dim(struct mt_load *load)
{
    struct mt_config *config = load->config;
    const int64_t hidden = config->model.hidden_size;
    const int64_t heads = config->model.num_attention_heads;
    if (!is_good(load, "model.hidden_size") || !is_good(load, "model.num_attention_heads")) {
        return false;
    }
    if (hidden % heads != 0) {
        char legal[64];
        nearest_divisors(hidden, heads, true, legal, sizeof(legal));
        mt_report_add(&load->report, place_of(load, "model.num_attention_heads"),
                      "model.hidden_size = %" PRId64 " does not divide by num_attention_heads = "
                      "%" PRId64 ": %" PRId64 " mod %" PRId64 " = %" PRId64
                      "; nearest legal num_attention_heads: %s; or set head_dim",
                      hidden, heads, hidden, heads, hidden % heads,
                      legal[0] == '\0' ? "none" : legal);
        return false;
    }
    config->model.head_dim = hidden / heads;
    return true;
}

static void check_head_dim(struct mt_load *load)
{
    const struct mt_key *key = mt_table_key(mt_table_index("model.head_dim"));
    const bool is_given = is_set(load, "model.head_dim");
    if (!is_good(load, "model.head_dim") || (!is_given && !derive_head_dim(load))) {
        return;
    }
    const struct mt_config *config = load->config;
    const int64_t head_dim = config->model.head_dim;
    char equation[96] = "";
    if (!is_given) {
        (void)snprintf(equation, sizeof(equation),
                       "hidden_size / num_attention_heads = %" PRId64 " / %" PRId64 " = ",
                       config->model.hidden_size, config->model.num_attention_heads);
    }
    const struct mt_text_place place =
        place_of(load, is_given ? "model.head_dim" : "model.num_attention_heads");
    if (head_dim % 2 != 0) {
        char below[32] = "";
        if (head_dim > 1) {
            (void)snprintf(below, sizeof(below), "%" PRId64 " or ", head_dim - 1);
        }
        mt_report_add(&load->report, place,
                      "model.head_dim = %s%" PRId64 " is odd; the rotary embedding turns pairs, so "
                      "it must be even; nearest legal head_dim: %s%" PRId64,
                      equation, head_dim, below, head_dim + 1);
    } else if ((double)head_dim > key->max) {
        mt_report_add(&load->report, place,
                      "model.head_dim = %s%" PRId64 " is out of range; allowed: %g to %g; use more "
                      "heads",
                      equation, head_dim, key->min, key->max);
    }
}

/* What stretches the rotary embedding, with the defaults of its kind. */
static void check_rope(struct mt_load *load)
{
    struct mt_config *config = load->config;
    const enum mt_rope_scaling scaling = config->model.rope_scaling;
    double *turns = config->model.rope_turns;
    if (!is_good(load, "model.rope_scaling") || !is_good(load, "model.rope_factor") ||
        !is_good(load, "model.rope_turns") || !is_good(load, "model.rope_magnitude")) {
        return;
    }
    if (!is_set(load, "model.rope_turns")) {
        turns[0] = 1.0;
        turns[1] = scaling == MT_ROPE_YARN ? 32.0 : 4.0;
    }
    if (!is_set(load, "model.rope_magnitude")) {
        config->model.rope_magnitude =
            scaling == MT_ROPE_YARN ? 0.1 * log(config->model.rope_factor) + 1.0 : 1.0;
    }
    if (turns[0] >= turns[1]) {
        mt_report_add(&load->report, place_of(load, "model.rope_turns"),
                      "model.rope_turns = [%g, %g] does not rise; the first is what is stretched "
                      "at most; expected e.g. [1.0, 4.0]",
                      turns[0], turns[1]);
    }
    if (scaling == MT_ROPE_NONE && config->model.rope_factor > 1.0) {
        mt_report_add(&load->report, place_of(load, "model.rope_factor"),
                      "model.rope_factor = %g is for model.rope_scaling, which is \"none\"; set "
                      "that, too, or leave the factor out",
                      config->model.rope_factor);
    }
    if (scaling != MT_ROPE_YARN && config->model.rope_magnitude != 1.0) {
        mt_report_add(
            &load->report, place_of(load, "model.rope_magnitude"),
            "model.rope_magnitude = %g is for model.rope_scaling = \"yarn\"; leave it out",
            config->model.rope_magnitude);
    }
}

static void check_dense_layers(struct mt_load *load)
{
    struct mt_config *config = load->config;
    if (!is_good(load, "model.first_k_dense")) {
        return;
    }
    const int64_t n_dense = config->model.first_k_dense;
    if (is_good(load, "model.num_layers") && n_dense > config->model.num_layers) {
        mt_report_add(&load->report, place_of(load, "model.first_k_dense"),
                      "model.first_k_dense = %" PRId64 " exceeds num_layers = %" PRId64
                      "; allowed: 0 to %" PRId64,
                      n_dense, config->model.num_layers, config->model.num_layers);
    }
    if (n_dense == 0) {
        config->model.dense_intermediate_size = 0;
    } else if (is_good(load, "model.dense_intermediate_size") &&
               config->model.dense_intermediate_size == 0) {
        mt_report_add(&load->report, place_of(load, "model.first_k_dense"),
                      "model.first_k_dense = %" PRId64 " needs dense_intermediate_size, the width "
                      "of the dense layers; add it to [model]",
                      n_dense);
    }
}

static void check_experts(struct mt_load *load)
{
    struct mt_config *config = load->config;
    int64_t *const field[] = {&config->moe.num_experts, &config->moe.top_k,
                              &config->moe.expert_intermediate_size};
    static const char *const path[] = {"moe.num_experts", "moe.top_k",
                                       "moe.expert_intermediate_size"};
    for (int i = 0; i < 3; i++) {
        if (is_good(load, path[i]) && !is_set(load, path[i])) {
            *field[i] = 1; /* no layer has experts: any legal value will do */
        }
    }
    if (is_good(load, "moe.num_experts") && is_good(load, "moe.top_k") &&
        config->moe.top_k > config->moe.num_experts) {
        mt_report_add(&load->report, place_of(load, "moe.top_k"),
                      "moe.top_k = %" PRId64 " exceeds num_experts = %" PRId64
                      "; a token goes to different experts; allowed: 1 to %" PRId64,
                      config->moe.top_k, config->moe.num_experts, config->moe.num_experts);
    }
}

static void check_shared(struct mt_load *load)
{
    const struct mt_config *config = load->config;
    if (!is_good(load, "moe.num_shared_experts") || config->moe.num_shared_experts > 0) {
        return;
    }
    if (is_good(load, "moe.shared_intermediate_size") && config->moe.shared_intermediate_size > 0) {
        mt_report_add(&load->report, place_of(load, "moe.shared_intermediate_size"),
                      "moe.shared_intermediate_size = %" PRId64 " is the width of shared experts, "
                      "but num_shared_experts = 0; set num_shared_experts or leave the width out",
                      config->moe.shared_intermediate_size);
    }
    if (is_good(load, "moe.shared_gate") && config->moe.shared_gate) {
        mt_report_add(&load->report, place_of(load, "moe.shared_gate"),
                      "moe.shared_gate = true weighs shared experts, but num_shared_experts = 0; "
                      "set num_shared_experts or leave the gate out");
    }
}

static void check_slots(struct mt_load *load)
{
    const struct mt_config *config = load->config;
    if (is_good(load, "placement.slots") && is_good(load, "moe.num_experts") &&
        config->placement.slots > config->moe.num_experts) {
        mt_report_add(&load->report, place_of(load, "placement.slots"),
                      "placement.slots = %" PRId64 " exceeds num_experts = %" PRId64
                      "; a rank holds each expert of a layer once; allowed: 1 to %" PRId64
                      ", or \"auto\"",
                      config->placement.slots, config->moe.num_experts, config->moe.num_experts);
    }
}

/* A load that nobody makes would be a study of something else. */
static void check_synthetic_only(struct mt_load *load)
{
    const struct mt_config *config = load->config;
    const char *const unused = config->moe.workload[0] != '\0' ? "moe.workload"
                               : config->moe.skew != 1.0       ? "moe.skew"
                                                               : NULL;
    if (config->moe.routing != MT_ROUTING_SYNTHETIC && unused != NULL && is_good(load, unused)) {
        mt_report_add(&load->report, place_of(load, unused),
                      "%s is the load of synthetic routing, and moe.routing is another; set "
                      "moe.routing = \"synthetic\", or leave it out",
                      unused);
    }
}

static void check_routing(struct mt_load *load)
{
    const struct mt_config *config = load->config;
    if (!is_good(load, "moe.routing")) {
        return;
    }
    check_synthetic_only(load);
    if (config->moe.routing == MT_ROUTING_SYNTHETIC && is_good(load, "moe.workload") &&
        config->moe.workload[0] == '\0') {
        mt_report_add(&load->report, place_of(load, "moe.routing"),
                      "moe.routing = \"synthetic\" needs moe.workload, the shape of the load; add "
                      "for example workload = \"hot_rank\"");
    }
    if (config->moe.routing == MT_ROUTING_REPLAY && is_good(load, "moe.trace") &&
        config->moe.trace[0] == '\0') {
        mt_report_add(&load->report, place_of(load, "moe.routing"),
                      "moe.routing = \"replay\" needs moe.trace, the file of counts to replay; "
                      "name it");
    }
}

/* Positions in the data are counted in tokens, in 63 bits. */
static void check_token_count(struct mt_load *load)
{
    const struct mt_config *config = load->config;
    if (!is_good(load, "train.steps") || !is_good(load, "train.global_batch_size") ||
        !is_good(load, "model.max_seq_len")) {
        return;
    }
    int64_t sequences = 0;
    int64_t tokens = 0;
    if (!mt_size_multiply(config->train.steps, config->train.global_batch_size, &sequences) ||
        !mt_size_multiply(sequences, config->model.max_seq_len, &tokens)) {
        mt_report_add(&load->report, place_of(load, "train.steps"),
                      "train.steps x global_batch_size x max_seq_len = %" PRId64 " x %" PRId64
                      " x %" PRId64 " tokens is out of range; allowed: up to 2^63 - 1",
                      config->train.steps, config->train.global_batch_size,
                      config->model.max_seq_len);
    }
}

static void check_schedule(struct mt_load *load)
{
    struct mt_config *config = load->config;
    if (is_good(load, "schedule.decay_steps") && !is_set(load, "schedule.decay_steps") &&
        is_good(load, "train.steps") && is_good(load, "schedule.warmup_steps")) {
        /* A trial of a few steps may end within the warm-up: nothing is left to decay. */
        config->schedule.decay_steps =
            mt_max_i64(0, config->train.steps - config->schedule.warmup_steps);
    }
}

/* The name of the file without folder and ".toml"; "run" when nothing of it is left. name is
 * zeroed. */
static void name_from_origin(const char *origin, char *name, size_t bytes)
{
    const char *slash = strrchr(origin, '/');
    const char *file = slash == NULL ? origin : slash + 1;
    const char *end = strrchr(file, '.');
    const bool has_ending = end != NULL && strcmp(end, ".toml") == 0;
    const size_t n = has_ending ? (size_t)(end - file) : strlen(file);
    for (size_t i = 0; i < n && i + 1 < bytes; i++) {
        name[i] = file[i];
        if ((unsigned char)file[i] < 0x20 || file[i] == 0x7F) {
            name[i] = '_';
        }
    }
    if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        (void)snprintf(name, bytes, "run");
    }
}

static void check_run(struct mt_load *load, const char *origin, const char *run_dir)
{
    struct mt_config *config = load->config;
    const char *name = config->run.name;
    if (!is_set(load, "run.name")) {
        name_from_origin(origin, config->run.name, sizeof(config->run.name));
    } else if (strchr(name, '/') != NULL || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        mt_report_add(&load->report, place_of(load, "run.name"),
                      "run.name = \"%.60s\" cannot name a folder; no \"/\", \".\" or \"..\"; use "
                      "run.dir to place the run elsewhere",
                      name);
    }
    const size_t room = sizeof(config->run.dir);
    if (run_dir != NULL) {
        const size_t n = strlen(run_dir);
        if (n == 0 || n >= room || strpbrk(run_dir, "\n\r\t") != NULL) {
            mt_report_add(&load->report, (struct mt_text_place){0},
                          "--run-dir \"%.60s\" is no path; 1 to %zu bytes are expected", run_dir,
                          room - 1);
            return;
        }
        memcpy(config->run.dir, run_dir, n + 1);
    } else if (!is_set(load, "run.dir")) {
        (void)snprintf(config->run.dir, room, "runs/%s", config->run.name);
    }
}

void mt_rules_apply(struct mt_load *load, const char *origin, const char *run_dir)
{
    check_all_required(load);
    check_heads(load);
    check_head_dim(load);
    check_rope(load);
    check_dense_layers(load);
    check_experts(load);
    check_shared(load);
    check_routing(load);
    check_slots(load);
    mt_rules_check_data(load);
    check_token_count(load);
    check_schedule(load);
    check_run(load, origin, run_dir);
}
