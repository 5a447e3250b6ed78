/* The logical tensors of a model: one row each gives name, shape, initial value, optimizer group
 * and home. Store, optimizer and checkpoint are loops over this table; the model makes it. */
#ifndef MT_STORE_TENSOR_H
#define MT_STORE_TENSOR_H

#include <stdbool.h>
#include <stdint.h>

enum { MT_TENSOR_NAME_BYTES = 96 };

enum mt_tensor_kind {
    MT_TENSOR_DENSE, /* materialised on all ranks, owned in blocks of rows of dim[0] */
    MT_TENSOR_EXPERT /* [E, ., .]: expert e is part of chunk e of its layer, owned whole or cut */
};

struct mt_tensor {
    char name[MT_TENSOR_NAME_BYTES]; /* path below /model/, e.g. "layers/0/moe/router" */
    enum mt_tensor_kind kind;
    int n_dim;
    int64_t dim[3];
    int layer;           /* -1: none */
    int bucket;          /* dense: tensors of a bucket are gathered and reduced together */
    bool decay;          /* weight decay applies (matrices) */
    bool is_product;     /* dense [out,in]: used in matrix products, hence packed */
    float init_std;      /* normal with this deviation; 0: all ones, or zeros */
    bool starts_at_zero; /* with init_std = 0 */
};

static inline int64_t mt_tensor_n_element(const struct mt_tensor *tensor)
{
    int64_t n = 1;
    for (int d = 0; d < tensor->n_dim; d++) {
        n *= tensor->dim[d];
    }
    return n;
}

/* Elements below one index of dim[0]. */
static inline int64_t mt_tensor_row_elements(const struct mt_tensor *tensor)
{
    return mt_tensor_n_element(tensor) / (tensor->dim[0] > 0 ? tensor->dim[0] : 1);
}

/* A complete table. Expert tensors of a layer follow each other (gate, up, down). */
struct mt_tensor_table {
    int n_tensor, n_bucket, n_layer;
    struct mt_tensor *tensor;
};

#endif
