/* The rules of [data]. */
#include "config/rules_internal.h"

#include <inttypes.h>
#include <string.h>

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

/* Random ids come from no file: what is named would be passed over without a word. data.train may
 * stand there, so that a run is timed without its data by one --set. */
static void check_unread(struct mt_load *load)
{
    const struct mt_config *config = load->config;
    static const char *const path[] = {"data.validation", "data.validation_sets"};
    const int n_named[] = {config->data.validation.n, config->data.validation_sets.n_set};
    for (int i = 0; i < 2; ++i) {
        if (is_good(load, "data.format") && is_good(load, path[i]) && n_named[i] > 0 &&
            config->data.format == MT_DATA_RANDOM) {
            mt_report_add(&load->report, place_of(load, path[i]),
                          "%s names files, which data.format = \"random\" does not read; leave "
                          "them out (%s = %s) or choose a format of files",
                          path[i], path[i], i == 0 ? "[]" : "{}");
        }
    }
}

static void check_token_type(struct mt_load *load)
{
    const struct mt_config *config = load->config;
    if (is_good(load, "data.token_type") && is_good(load, "data.format") &&
        config->data.token_type != MT_TOKEN_AUTO && config->data.format != MT_DATA_TOKENS) {
        mt_report_add(&load->report, place_of(load, "data.token_type"),
                      "data.token_type is for data.format = \"tokens\", whose files may lack a "
                      "header; other formats have their own types; leave it out");
    }
}

/* Only the index of a Megatron pair tells documents without a token. */
static void check_documents(struct mt_load *load)
{
    const struct mt_config *config = load->config;
    const bool has_token = config->data.document_end >= 0;
    if (!is_good(load, "data.attention") || !is_good(load, "data.document_end") ||
        !is_good(load, "data.format")) {
        return;
    }
    if (config->data.attention != MT_SPAN_DOCUMENT) {
        if (has_token) {
            mt_report_add(&load->report, place_of(load, "data.document_end"),
                          "data.document_end = %" PRId64 " is for data.attention = \"document\": "
                          "otherwise nothing looks for ends; leave it out",
                          config->data.document_end);
        }
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

void mt_rules_check_data(struct mt_load *load)
{
    const struct mt_config *config = load->config;
    check_set_names(load);
    check_unread(load);
    check_token_type(load);
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
