#include "config/rules.h"

#include "base/size.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { NAMES_BYTES = 400 };

static bool is_set(const struct mt_load *load, const char *path)
{
    return load->status[mt_table_index(path)] == MT_KEY_SET;
}

/* The value may be looked at: it is neither refused nor missing. */
static bool is_good(const struct mt_load *load, const char *path)
{
    return load->status[mt_table_index(path)] != MT_KEY_BAD;
}

static struct mt_text_place place_of(const struct mt_load *load, const char *path)
{
    return load->place[mt_table_index(path)];
}

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

static void check_weights(struct mt_load *load)
{
    const struct mt_config *config = load->config;
    if (!is_good(load, "data.weights") || !is_good(load, "data.train") ||
        config->data.weights.n == 0 || config->data.weights.n == config->data.train.n) {
        return;
    }
    mt_report_add(&load->report, place_of(load, "data.weights"),
                  "data.weights has %d numbers for %d paths of data.train; one a path is expected, "
                  "or none",
                  config->data.weights.n, config->data.train.n);
}

/* Only the index of a Megatron pair tells documents without a token. */
static void check_documents(struct mt_load *load)
{
    const struct mt_config *config = load->config;
    const bool has_token = config->data.document_end >= 0;
    if (!is_good(load, "data.attention") || !is_good(load, "data.document_end") ||
        !is_good(load, "data.format") || config->data.attention != MT_SPAN_DOCUMENT) {
        return;
    }
    if (!has_token && config->data.format != MT_DATA_MEGATRON) {
        mt_report_add(
            &load->report, place_of(load, "data.attention"),
            "data.attention = \"document\" needs data.document_end, the token that ends a "
            "document; only format \"megatron\" has an index of them; add it to [data]");
    } else if (is_good(load, "model.vocab_size") && has_token &&
               config->data.document_end >= config->model.vocab_size) {
        mt_report_add(&load->report, place_of(load, "data.document_end"),
                      "data.document_end = %" PRId64 " is no token of model.vocab_size = %" PRId64
                      "; allowed: 0 to %" PRId64,
                      config->data.document_end, config->model.vocab_size,
                      config->model.vocab_size - 1);
    }
}

static void check_balance(struct mt_load *load)
{
    const struct mt_config *config = load->config;
    if (is_good(load, "data.balance") && is_good(load, "data.attention") &&
        config->data.balance == MT_BATCH_COST && config->data.attention != MT_SPAN_DOCUMENT) {
        mt_report_add(&load->report, place_of(load, "data.balance"),
                      "data.balance = \"cost\" is for data.attention = \"document\": otherwise "
                      "sequences cost the same; leave it out");
    }
}

/* The files of data.validation are the set of that name. */
static void check_set_names(struct mt_load *load)
{
    const struct mt_path_sets *sets = &load->config->data.validation_sets;
    for (int s = 0; s < sets->n_set && load->config->data.validation.n > 0; ++s) {
        if (strcmp(sets->name[s], "validation") == 0) {
            mt_report_add(&load->report, place_of(load, "data.validation_sets"),
                          "data.validation_sets has a set \"validation\", which is what the files "
                          "of data.validation are; give it another name, or its files to one of "
                          "the two");
        }
    }
}

static void check_data(struct mt_load *load)
{
    const struct mt_config *config = load->config;
    check_set_names(load);
    check_documents(load);
    check_balance(load);
    check_weights(load);
    if (!is_good(load, "data.format") || config->data.format == MT_DATA_RANDOM) {
        return;
    }
    if (is_good(load, "data.train") && config->data.train.n == 0) {
        mt_report_add(&load->report, place_of(load, "data.train"),
                      "data.train is empty; at least one path is expected, or data.format = "
                      "\"random\"");
    }
    if (is_good(load, "data.validation") && is_good(load, "train.eval_interval") &&
        is_good(load, "data.validation_sets") && config->data.validation.n == 0 &&
        config->data.validation_sets.n_set == 0 && config->train.eval_interval > 0) {
        mt_report_add(&load->report, place_of(load, "train.eval_interval"),
                      "train.eval_interval = %" PRId64 " needs data.validation, which is empty; "
                      "name a file there or set eval_interval = 0",
                      config->train.eval_interval);
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
    check_dense_layers(load);
    check_experts(load);
    check_shared(load);
    check_routing(load);
    check_slots(load);
    check_data(load);
    check_token_count(load);
    check_schedule(load);
    check_run(load, origin, run_dir);
}
