/* The optimizer's pass over what this rank owns. */
#include "store/internal.h"

/* One of an expert's three packs. */
static struct mt_weight *expert_weight(const struct mt_store *store, const struct mt_part *part,
                                       int layer)
{
    const int expert = (int)(part->first / part->n_element);
    struct mt_expert_copy *copy = store->layer[layer].here[expert];
    struct mt_weight *const weight[MT_EXPERT_MATRICES] = {&copy->gate, &copy->up, &copy->down};
    return weight[part->tensor - store->layout.gate[layer]];
}

/* The pack that the part's new values need at once; NULL: none, or a part of its values come from
 * other ranks. */
static struct mt_weight *weight_of(const struct mt_store *store, const struct mt_part *part)
{
    const struct mt_tensor *tensor = &store->table->tensor[part->tensor];
    if (tensor->kind == MT_TENSOR_EXPERT) {
        return store->is_cut ? NULL : expert_weight(store, part, tensor->layer);
    }
    return store->layout.n_rank == 1 && tensor->is_product ? &store->weight[part->tensor] : NULL;
}

void mt_store_update(struct mt_store *store, const struct mt_adamw *args)
{
    MT_ASSERT(store->training);
    mt_store_call_guard(store);
    for (int p = 0; p < store->n_part; ++p) {
        const struct mt_part *part = &store->part[p];
        store->item[p] = (struct mt_adamw_item){.value = part->value,
                                                .grad = part->grad,
                                                .m = part->exp_avg,
                                                .v = part->exp_avg_sq,
                                                .n = part->n_element,
                                                .decays = store->table->tensor[part->tensor].decay,
                                                .weight = weight_of(store, part)};
    }
    mt_adamw_update(store->device, store->item, store->n_part, args);
    store->is_packed = true;
    store->is_grad_zero = true;
}
