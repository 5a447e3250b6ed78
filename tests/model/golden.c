#include "golden.h"

#include "base/memory.h"
#include "base/random.h"
#include "config/load.h"
#include "support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_BYTES = 256 };

static FILE *open_golden(const struct golden *golden, const char *suffix)
{
    char path[MT_PATH_BYTES];
    (void)snprintf(path, sizeof(path), "%s/%s.%s", MT_GOLDEN_DIR, golden->name, suffix);
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fail_msg("cannot open %s", path);
    }
    return file;
}

/* The next word of the index as a number; fails the test when it is none. */
static double read_number(const struct golden *golden, FILE *file)
{
    char word[TEXT_BYTES];
    char *end = word;
    assert_int_equal(fscanf(file, "%255s", word), 1);
    const double number = strtod(word, &end);
    if (end == word || *end != '\0') {
        fail_msg("%s.txt: \"%s\" is no number", golden->name, word);
    }
    return number;
}

static void read_word(FILE *file, char word[TEXT_BYTES])
{
    assert_int_equal(fscanf(file, "%255s", word), 1);
}

static void read_config(struct golden *golden)
{
    char path[MT_PATH_BYTES];
    (void)snprintf(path, sizeof(path), "%s/%s.toml", MT_GOLDEN_DIR, golden->name);
    MT_TEST_OK(MT_ALLOCATE(golden->config, 1, "golden configuration"));
    MT_TEST_OK(mt_config_load(path, 0, NULL, NULL, golden->config));
}

static void read_values(struct golden *golden)
{
    FILE *file = open_golden(golden, "bin");
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    const long n_bytes = ftell(file);
    const int64_t n = n_bytes / (long)sizeof(float);
    rewind(file);
    MT_TEST_OK(MT_ALLOCATE(golden->values, n, "golden values"));
    assert_int_equal(fread(golden->values, sizeof(float), (size_t)n, file), n);
    (void)fclose(file);
}

static void read_scalar(struct golden *golden, FILE *file)
{
    char name[TEXT_BYTES];
    read_word(file, name);
    const double value = read_number(golden, file);
    const struct {
        const char *name;
        double *value;
    } scalar[] = {{"loss", &golden->loss},
                  {"balance_loss", &golden->balance_loss},
                  {"z_loss", &golden->z_loss},
                  {"grad_norm", &golden->grad_norm},
                  {"clip_factor", &golden->clip_factor}};
    for (size_t i = 0; i < sizeof(scalar) / sizeof(scalar[0]); ++i) {
        if (strcmp(scalar[i].name, name) == 0) {
            *scalar[i].value = value;
            return;
        }
    }
    fail_msg("%s.txt: unknown scalar %s", golden->name, name);
}

static void read_ids(struct golden *golden, FILE *file, int32_t *ids)
{
    golden->n_token = (int64_t)read_number(golden, file);
    assert_true(golden->n_token <= GOLDEN_MAX_TOKEN);
    for (int64_t i = 0; i < golden->n_token; ++i) {
        ids[i] = (int32_t)read_number(golden, file);
    }
}

static void read_tensor(struct golden *golden, FILE *file)
{
    char name[TEXT_BYTES];
    assert_true(golden->n_tensor < GOLDEN_MAX_TENSOR);
    struct golden_tensor *tensor = &golden->tensor[golden->n_tensor++];
    read_word(file, name);
    (void)snprintf(tensor->name, sizeof(tensor->name), "%.*s", MT_TENSOR_NAME_BYTES - 1, name);
    tensor->n_element = (int64_t)read_number(golden, file);
    tensor->base = read_number(golden, file);
    tensor->scale = read_number(golden, file);
    tensor->grad = golden->values + (int64_t)read_number(golden, file);
    tensor->updated = golden->values + (int64_t)read_number(golden, file);
}

void golden_read(struct golden *golden, const char *name)
{
    char word[TEXT_BYTES];
    memset(golden, 0, sizeof(*golden));
    (void)snprintf(golden->name, sizeof(golden->name), "%s", name);
    read_config(golden);
    read_values(golden);
    FILE *file = open_golden(golden, "txt");
    read_word(file, word);
    assert_string_equal(word, "moetrain-golden");
    assert_true(read_number(golden, file) == 1.0);
    while (fscanf(file, "%255s", word) == 1) {
        if (strcmp(word, "scalar") == 0) {
            read_scalar(golden, file);
        } else if (strcmp(word, "token") == 0) {
            read_ids(golden, file, golden->token);
        } else if (strcmp(word, "target") == 0) {
            read_ids(golden, file, golden->target);
        } else {
            assert_string_equal(word, "tensor");
            read_tensor(golden, file);
        }
    }
    (void)fclose(file);
}

void golden_clear(struct golden *golden)
{
    mt_memory_free(golden->config);
    mt_memory_free(golden->values);
    memset(golden, 0, sizeof(*golden));
}

const struct golden_tensor *golden_find(const struct golden *golden, const struct mt_tensor *tensor)
{
    for (int i = 0; i < golden->n_tensor; ++i) {
        if (strcmp(golden->tensor[i].name, tensor->name) == 0) {
            assert_int_equal(golden->tensor[i].n_element, mt_tensor_n_element(tensor));
            return &golden->tensor[i];
        }
    }
    fail_msg("%s: no golden values for %s", golden->name, tensor->name);
    return NULL;
}

/* One step of SplitMix64 (Steele, Lea, Flood 2014) as a hash, as in make_golden.py. */
static uint64_t mix(uint64_t z)
{
    z += 0x9e3779b97f4a7c15U;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

float golden_value(const struct golden *golden, const struct golden_tensor *tensor, int64_t index)
{
    char text[TEXT_BYTES];
    (void)snprintf(text, sizeof(text), "%s:%s", golden->name, tensor->name);
    const uint64_t bits = mix(mix(mt_random_stream(text)) + (uint64_t)index) >> 48;
    return (float)(tensor->base + tensor->scale * ((double)bits / 65536.0 - 0.5));
}
