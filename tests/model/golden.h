/* Golden values of whole models as tests/reference/make_golden.py writes them: a configuration, an
 * index of scalars, tokens and tensors, and the floats. */
#ifndef MT_TEST_MODEL_GOLDEN_H
#define MT_TEST_MODEL_GOLDEN_H

#include "config/config.h"
#include "store/tensor.h"

enum { GOLDEN_MAX_TENSOR = 64, GOLDEN_MAX_TOKEN = 64 };

struct golden_tensor {
    char name[MT_TENSOR_NAME_BYTES];
    int64_t n_element;
    double base, scale;          /* of its initial values */
    const float *grad, *updated; /* [n_element] */
};

struct golden {
    char name[64];
    struct mt_config *config;
    double loss, balance_loss, z_loss, grad_norm, clip_factor;
    int64_t n_token;
    int32_t token[GOLDEN_MAX_TOKEN], target[GOLDEN_MAX_TOKEN];
    int n_tensor;
    struct golden_tensor tensor[GOLDEN_MAX_TENSOR];
    float *values;
};

/* Reads <name>.toml, .txt and .bin of the golden folder; fails the test when it cannot. */
void golden_read(struct golden *golden, const char *name);
void golden_clear(struct golden *golden);

/* The row of that name; fails the test when there is none, or with other dimensions. */
const struct golden_tensor *golden_find(const struct golden *golden,
                                        const struct mt_tensor *tensor);

/* Initial value of an element. */
float golden_value(const struct golden *golden, const struct golden_tensor *tensor, int64_t index);

#endif
