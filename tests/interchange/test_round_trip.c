/* What is imported and exported again has the bytes it had: every family, experts apart and
 * together, every type of element, one file and several. */
#include "base/memory.h"
#include "interchange/interchange.h"
#include "interchange/safetensors.h"
#include "interchange/wire.h"
#include "support/folder.h"
#include "support/test.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const MODELS[] = {"mixtral",   "mixtral-grouped", "olmoe", "qwen2-moe",
                                     "qwen3-moe", "deepseek",        "llama"};
enum { N_MODEL = sizeof(MODELS) / sizeof(MODELS[0]) };

/* Imports `from` as checkpoint `name` of the test's folder. */
static void import_as(const char *from, const char *name, enum mt_dtype dtype,
                      struct mt_interchange_report *report)
{
    char to[MT_PATH_BYTES];
    char config[MT_PATH_BYTES];
    (void)snprintf(to, sizeof(to), "%s", mt_test_path(name));
    (void)snprintf(config, sizeof(config), "%.400s.toml", to);
    const struct mt_import_options options = {
        .from = from, .to = to, .config_path = config, .dtype = dtype};
    MT_TEST_OK(mt_interchange_import(&options, report));
}

/* Exports checkpoint `name` as model `to` of the test's folder. */
static void export_as(const char *name, const char *to, const struct mt_export_options *how)
{
    char path[2][MT_PATH_BYTES];
    struct mt_interchange_report report;
    struct mt_export_options options = *how;
    (void)snprintf(path[0], sizeof(path[0]), "%s", mt_test_path(name));
    (void)snprintf(path[1], sizeof(path[1]), "%s", mt_test_path(to));
    options.from = path[0];
    options.to = path[1];
    options.shard_bytes = options.shard_bytes == 0 ? 1 << 30 : options.shard_bytes;
    MT_TEST_OK(mt_interchange_export(&options, &report));
}

/* n_byte bytes of a tensor as they lie in the file. */
static void read_raw(const struct mt_safetensors *source, const struct mt_stored *stored,
                     char *data, int64_t n_byte)
{
    char path[2 * MT_PATH_BYTES];
    (void)snprintf(path, sizeof(path), "%s/%s", source->folder, source->file[stored->file]);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)stored->offset, SEEK_SET), 0);
    assert_int_equal(fread(data, 1, (size_t)n_byte, file), n_byte);
    (void)fclose(file);
}

static void expect_same_tensor(const struct mt_safetensors *a, const struct mt_safetensors *b,
                               const struct mt_stored *stored)
{
    const struct mt_stored *other = mt_safetensors_find(b, stored->name);
    const int64_t n_byte = stored->n_element * mt_stored_type_bytes(stored->type);
    char *data = NULL;
    if (other == NULL) {
        fail_msg("%s has no %s", b->folder, stored->name);
        return;
    }
    assert_int_equal(stored->type, other->type);
    assert_int_equal(stored->n_dim, other->n_dim);
    assert_memory_equal(stored->dim, other->dim, sizeof(stored->dim));
    MT_TEST_OK(MT_ALLOCATE(data, 2 * n_byte, "test"));
    read_raw(a, stored, data, n_byte);
    read_raw(b, other, data + n_byte, n_byte);
    if (memcmp(data, data + n_byte, (size_t)n_byte) != 0) {
        fail_msg("%s has other bytes in %s and %s", stored->name, a->folder, b->folder);
    }
    mt_memory_free(data);
}

/* Both folders have the same tensors with the same bytes; *n_file of b. A tied head, which nothing
 * reads, may be only in a. */
static void expect_same_model(const char *folder_a, const char *folder_b, int *n_file)
{
    struct mt_safetensors a;
    struct mt_safetensors b;
    int64_t n_same = 0;
    MT_TEST_OK(mt_safetensors_open(&a, folder_a));
    MT_TEST_OK(mt_safetensors_open(&b, folder_b));
    for (int64_t i = 0; i < a.n; ++i) {
        if (mt_safetensors_find(&b, a.stored[i].name) != NULL ||
            strcmp(a.stored[i].name, "lm_head.weight") != 0) {
            expect_same_tensor(&a, &b, &a.stored[i]);
            ++n_same;
        }
    }
    assert_int_equal(b.n, n_same);
    *n_file = b.n_file;
    mt_safetensors_close(&a);
    mt_safetensors_close(&b);
}

static void remove_all(void)
{
    char command[2 * MT_PATH_BYTES];
    (void)snprintf(command, sizeof(command), "rm -rf '%s'/*", mt_test_folder());
    assert_int_equal(system(command), 0); /* NOLINT(cert-env33-c): the test's own folder */
}

static void every_family_comes_back_with_the_same_bytes(void **state)
{
    (void)state;
    for (int i = 0; i < N_MODEL; ++i) {
        char from[MT_PATH_BYTES];
        struct mt_interchange_report report;
        int n_file = 0;
        (void)snprintf(from, sizeof(from), MT_VECTORS "/%s", MODELS[i]);
        import_as(from, "c", MT_FLOAT32, &report);
        assert_int_equal(report.layout, strstr(MODELS[i], "grouped") != NULL);
        export_as("c", "m", &(struct mt_export_options){.layout = report.layout});
        expect_same_model(from, mt_test_path("m"), &n_file);
        assert_int_equal(n_file, 1);
        remove_all();
    }
}

/* Through the other layout, in files of at most 4000 bytes, and back. */
static void layouts_and_files_do_not_change_a_bit(void **state)
{
    (void)state;
    for (int i = 0; i < N_MODEL; ++i) {
        char from[MT_PATH_BYTES];
        struct mt_interchange_report report;
        int n_file = 0;
        (void)snprintf(from, sizeof(from), MT_VECTORS "/%s", MODELS[i]);
        import_as(from, "c", MT_FLOAT32, &report);
        const enum mt_expert_layout other =
            report.layout == MT_LAYOUT_GROUPED ? MT_LAYOUT_PER_EXPERT : MT_LAYOUT_GROUPED;
        const enum mt_expert_layout layout = report.layout;
        const struct mt_family *family = report.family;
        export_as(
            "c", "m",
            &(struct mt_export_options){.layout = other, .family = family, .shard_bytes = 4000});
        import_as(mt_test_path("m"), "c2", MT_FLOAT32, &report);
        assert_true(report.layout == other || family->is_dense); /* without experts there is one */
        assert_true(report.n_file > 5);
        export_as("c2", "m2", &(struct mt_export_options){.layout = layout, .family = family});
        expect_same_model(from, mt_test_path("m2"), &n_file);
        remove_all();
    }
}

/* The same model as transformers saves it and as it holds it. */
static void experts_together_are_the_experts_apart(void **state)
{
    struct mt_interchange_report report;
    int n_file = 0;
    (void)state;
    import_as(MT_VECTORS "/mixtral-grouped", "c", MT_FLOAT32, &report);
    export_as("c", "m", &(struct mt_export_options){.layout = MT_LAYOUT_PER_EXPERT});
    expect_same_model(MT_VECTORS "/mixtral", mt_test_path("m"), &n_file);
    remove_all();
}

/* A model of two-byte elements comes back as it was, also from a checkpoint in bfloat16. */
static void short_elements_come_back_with_the_same_bytes(void **state)
{
    (void)state;
    static const enum mt_stored_type types[] = {MT_STORED_BF16, MT_STORED_F16, MT_STORED_BF16};
    static const enum mt_dtype dtypes[] = {MT_FLOAT32, MT_FLOAT32, MT_BFLOAT16};
    for (int i = 0; i < 3; ++i) {
        struct mt_interchange_report report;
        int n_file = 0;
        char first[MT_PATH_BYTES];
        import_as(MT_VECTORS "/olmoe", "c", MT_FLOAT32, &report);
        export_as("c", "m", &(struct mt_export_options){.type = types[i]});
        (void)snprintf(first, sizeof(first), "%s", mt_test_path("m"));
        import_as(first, "c2", dtypes[i], &report);
        export_as("c2", "m2", &(struct mt_export_options){.type = types[i]});
        expect_same_model(first, mt_test_path("m2"), &n_file);
        remove_all();
    }
}

/* The value of a float16 by its definition. */
static double half_value(uint32_t half)
{
    const int exponent = (int)(half >> 10 & 0x1fU);
    const double mantissa = (double)(half & 0x3ffU) / 1024.0;
    const double sign = (half & 0x8000U) != 0 ? -1.0 : 1.0;
    return sign * (exponent == 0 ? ldexp(mantissa, -14) : ldexp(1.0 + mantissa, exponent - 15));
}

static void every_float16_is_exact_and_comes_back(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 65536; ++half) {
        float value = 0.0F;
        const uint16_t bits = (uint16_t)half;
        uint16_t back = 0;
        memcpy((char *)&value + 2, &bits, sizeof(bits));
        mt_stored_type_widen(MT_STORED_F16, &value, 1);
        if ((half & 0x7c00U) != 0x7c00U) {
            assert_true((double)value == half_value(half));
        } else {
            assert_true((half & 0x3ffU) == 0 ? isinf(value) : isnan(value));
        }
        (void)mt_stored_type_narrow(MT_STORED_F16, &value, 1);
        memcpy(&back, &value, sizeof(back));
        /* A NaN becomes a quiet one. */
        assert_true(back == bits || ((half & 0x7c00U) == 0x7c00U && back == (bits | 0x200U)));
    }
}

static void float16_rounds_to_the_nearest_and_says_what_it_cannot_hold(void **state)
{
    (void)state;
    static const struct {
        float value;
        uint16_t half;
        bool is_kept;
    } cases[] = {
        {1.0F + 0x1p-11F, 0x3c00, true}, /* a tie: to even */
        {1.0F + 0x3p-11F, 0x3c02, true}, /* a tie: to even, upwards */
        {1.0F + 0x1.2p-11F, 0x3c01, true}, {65504.0F, 0x7bff, true},
        {65519.0F, 0x7bff, true},          {65520.0F, 0x7c00, false},
        {-1e30F, 0xfc00, false},           {INFINITY, 0x7c00, true},
        {0x1p-24F, 0x0001, true},          {0x1p-25F, 0x0000, true}, /* a tie: to even, zero */
        {0x1.8p-25F, 0x0001, true},        {-0x1p-26F, 0x8000, true},
        {0x1.ffcp-15F, 0x0400, true}}; /* up into the normal numbers */
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); ++i) {
        float value = cases[i].value;
        uint16_t half = 0;
        assert_int_equal(mt_stored_type_narrow(MT_STORED_F16, &value, 1), cases[i].is_kept);
        memcpy(&half, &value, sizeof(half));
        assert_int_equal(half, cases[i].half);
    }
    float large = FLT_MAX;
    assert_false(mt_stored_type_narrow(MT_STORED_BF16, &large, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family_comes_back_with_the_same_bytes),
        cmocka_unit_test(layouts_and_files_do_not_change_a_bit),
        cmocka_unit_test(experts_together_are_the_experts_apart),
        cmocka_unit_test(short_elements_come_back_with_the_same_bytes),
        cmocka_unit_test(every_float16_is_exact_and_comes_back),
        cmocka_unit_test(float16_rounds_to_the_nearest_and_says_what_it_cannot_hold),
    };
    return cmocka_run_group_tests(tests, mt_test_folder_make, mt_test_folder_remove);
}
