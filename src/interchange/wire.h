/* The tensors of a model as a family's files have them, and which elements of the model's own
 * tensors each is made of: what import and export both walk along. Pure. */
#ifndef MT_INTERCHANGE_WIRE_H
#define MT_INTERCHANGE_WIRE_H

#include "interchange/family.h"
#include "model/model.h"

enum { MT_WIRE_NAME_BYTES = 128 };

/* Without partner: elements [first, first + n) of `tensor`. With one: for each expert in turn a
 * slab of `tensor`, gate, and one of `partner`, up. */
struct mt_wire {
    char name[MT_WIRE_NAME_BYTES];
    int n_dim;
    int64_t dim[3];
    int tensor;
    int partner; /* -1: none */
    int64_t first, n_element;
};

struct mt_wires {
    int64_t n;
    struct mt_wire *wire; /* [n] by tensor, then expert */
    int64_t *of_tensor;   /* [n_tensor + 1] where a tensor's wires start; a partner has none */
};

/* MT_ERR_CONFIG when the family has no name for a tensor of the model. */
enum mt_status mt_wires_plan(const struct mt_tensor_table *table, const struct mt_family *family,
                             enum mt_expert_layout layout, struct mt_wires *wires);
void mt_wires_clear(struct mt_wires *wires);

/* Elements of a wire that follow each other both there and here: run r of mt_wire_n_run. */
struct mt_wire_run {
    int tensor;
    int64_t first, there, n_element; /* here, there, how many */
};
int64_t mt_wire_n_run(const struct mt_wire *wire);
struct mt_wire_run mt_wire_run(const struct mt_wire *wire, int64_t run);
/* Wires that have elements of a tensor: wires->wire [*first, *last). */
void mt_wires_of(const struct mt_wires *wires, int tensor, int64_t *first, int64_t *last);

#endif
