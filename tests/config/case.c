#include "config/case.h"

#include "base/memory.h"
#include "support/test.h"

#include <stdio.h>
#include <string.h>

const char *const mt_case_text = "[model]\n"
                                 "hidden_size = 64\n"
                                 "num_layers = 2\n"
                                 "num_attention_heads = 4\n"
                                 "max_seq_len = 32\n"
                                 "[moe]\n"
                                 "num_experts = 8\n"
                                 "top_k = 2\n"
                                 "expert_intermediate_size = 48\n"
                                 "[optimizer]\n"
                                 "lr = 1e-3\n"
                                 "[data]\n"
                                 "train = [\"a.txt\", \"/abs/b.txt\"]\n"
                                 "[train]\n"
                                 "steps = 100\n"
                                 "global_batch_size = 16\n"
                                 "micro_batch_size = 4\n";

static enum mt_status parse(const char *text, int n_override, const char *const *overrides,
                            struct mt_config **out)
{
    struct mt_config *config = NULL;
    assert_int_equal(MT_ALLOCATE(config, 1, "test"), MT_OK);
    mt_error_clear();
    *out = config;
    return mt_config_parse(text, "configs/x.toml", "/base", n_override, overrides, NULL, config);
}

struct mt_config *mt_case_parse(const char *text, int n_override, const char *const *overrides)
{
    struct mt_config *config = NULL;
    const enum mt_status status = parse(text, n_override, overrides, &config);
    if (status != MT_OK) {
        fail_msg("refused with %d: %s", (int)status, mt_error_last()->text);
    }
    return config;
}

struct mt_config *mt_case_with(const char *override)
{
    return mt_case_parse(mt_case_text, 1, &override);
}

const char *mt_case_refuse(const char *text, int n_override, const char *const *overrides)
{
    struct mt_config *config = NULL;
    const enum mt_status status = parse(text, n_override, overrides, &config);
    mt_memory_free(config);
    if (status != MT_ERR_CONFIG || mt_error_last()->code != MT_ERR_CONFIG) {
        fail_msg("not refused but %d: %s%s", (int)status, n_override > 0 ? overrides[0] : "", text);
    }
    return mt_error_last()->text;
}

void mt_case_override_says(const char *override, const char *message)
{
    const char *text = mt_case_refuse(mt_case_text, 1, &override);
    char want[1024];
    (void)snprintf(want, sizeof(want), "--set %s: %s", override, message);
    if (strcmp(text, want) != 0) {
        fail_msg("says: %s\nwant: %s", text, want);
    }
}

void mt_case_accepts(const char *override)
{
    mt_memory_free(mt_case_with(override));
}

void mt_case_has(const char *text, const char *fragment)
{
    if (strstr(text, fragment) == NULL) {
        fail_msg("text: %s\nlacks: %s", text, fragment);
    }
}

int mt_case_n_line(const char *text)
{
    int n = 1;
    for (const char *c = text; *c != '\0'; c++) {
        n += *c == '\n';
    }
    return n;
}

int mt_case_teardown(void **state)
{
    MT_UNUSED(state);
    mt_error_clear();
    return mt_memory_n_live() == 0 ? 0 : -1;
}
