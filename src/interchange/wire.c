#include "interchange/wire.h"

#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Does "layers/<number>/rest" match the pattern, whose one star is the layer? */
static bool matches(const char *pattern, const char *name)
{
    const char *star = strchr(pattern, '*');
    if (star == NULL) {
        return strcmp(pattern, name) == 0;
    }
    const size_t n_before = (size_t)(star - pattern);
    if (strncmp(pattern, name, n_before) != 0) {
        return false;
    }
    const size_t n_digit = strspn(name + n_before, "0123456789");
    return n_digit > 0 && strcmp(star + 1, name + n_before + n_digit) == 0;
}

static const char *find_in(const struct mt_tensor_name *list, const char *ours)
{
    for (; list->ours != NULL; ++list) {
        if (matches(list->ours, ours)) {
            return list->theirs;
        }
    }
    return NULL;
}

static const char *find_name(const struct mt_family *family, enum mt_expert_layout layout,
                             const char *ours)
{
    const char *theirs = find_in(family->expert[layout], ours);
    theirs = theirs != NULL ? theirs : find_in(family->name, ours);
    return theirs != NULL ? theirs : find_in(mt_common_names, ours);
}

static bool has_expert(const char *theirs)
{
    const char *star = strchr(theirs, '*');
    return star != NULL && strchr(star + 1, '*') != NULL;
}

/* The stars in turn become layer and expert. */
static void fill_name(char name[MT_WIRE_NAME_BYTES], const char *theirs, int layer, int64_t expert)
{
    const long long number[] = {layer, expert};
    size_t used = 0;
    int n_star = 0;
    for (; *theirs != '\0'; ++theirs) {
        const int n =
            *theirs == '*'
                ? snprintf(name + used, MT_WIRE_NAME_BYTES - used, "%lld", number[n_star++ > 0])
                : snprintf(name + used, MT_WIRE_NAME_BYTES - used, "%c", *theirs);
        used += (size_t)n;
        MT_ASSERT(used < MT_WIRE_NAME_BYTES);
    }
}

/* One tensor an expert, with one dimension less. */
static void add_experts(struct mt_wires *wires, const struct mt_tensor *tensor, int index,
                        const char *theirs)
{
    for (int64_t expert = 0; expert < tensor->dim[0]; ++expert) {
        struct mt_wire *wire = &wires->wire[wires->n++];
        *wire = (struct mt_wire){.n_dim = tensor->n_dim - 1,
                                 .dim = {tensor->dim[1], tensor->dim[2], 1},
                                 .tensor = index,
                                 .partner = -1,
                                 .first = expert * mt_tensor_row_elements(tensor),
                                 .n_element = mt_tensor_row_elements(tensor)};
        fill_name(wire->name, theirs, tensor->layer, expert);
    }
}

static void add_whole(struct mt_wires *wires, const struct mt_tensor *tensor, int index,
                      int partner, const char *theirs)
{
    struct mt_wire *wire = &wires->wire[wires->n++];
    const int64_t n_half = partner < 0 ? 1 : 2;
    *wire = (struct mt_wire){.n_dim = tensor->n_dim,
                             .dim = {tensor->dim[0], tensor->dim[1], tensor->dim[2]},
                             .tensor = index,
                             .partner = partner,
                             .n_element = n_half * mt_tensor_n_element(tensor)};
    wire->dim[1] *= n_half;
    fill_name(wire->name, theirs, tensor->layer, 0);
}

static int64_t count_most(const struct mt_tensor_table *table)
{
    int64_t n = 0;
    for (int t = 0; t < table->n_tensor; ++t) {
        n += table->tensor[t].kind == MT_TENSOR_EXPERT ? table->tensor[t].dim[0] : 1;
    }
    return n;
}

static enum mt_status plan(const struct mt_tensor_table *table, const struct mt_family *family,
                           enum mt_expert_layout layout, struct mt_wires *wires)
{
    const char *before = ""; /* name of the tensor before, to see what shares one */
    for (int t = 0; t < table->n_tensor; ++t) {
        const struct mt_tensor *tensor = &table->tensor[t];
        const char *theirs = find_name(family, layout, tensor->name);
        if (theirs == NULL) {
            return MT_FAIL(MT_ERR_CONFIG,
                           "%s models have no tensor for %s; a model that the family has was "
                           "expected; choose another --family",
                           family->title, tensor->name);
        }
        wires->of_tensor[t] = wires->n;
        if (has_expert(theirs)) {
            add_experts(wires, tensor, t, theirs);
        } else if (strcmp(theirs, before) != 0 || tensor->kind != MT_TENSOR_EXPERT) {
            const bool is_pair =
                tensor->kind == MT_TENSOR_EXPERT && t + 1 < table->n_tensor &&
                table->tensor[t + 1].kind == MT_TENSOR_EXPERT &&
                strcmp(find_name(family, layout, table->tensor[t + 1].name), theirs) == 0;
            add_whole(wires, tensor, t, is_pair ? t + 1 : -1, theirs);
        }
        before = theirs;
    }
    wires->of_tensor[table->n_tensor] = wires->n;
    return MT_OK;
}

enum mt_status mt_wires_plan(const struct mt_tensor_table *table, const struct mt_family *family,
                             enum mt_expert_layout layout, struct mt_wires *wires)
{
    memset(wires, 0, sizeof(*wires));
    MT_TRY(MT_ALLOCATE(wires->wire, count_most(table), "tensors in the files"));
    MT_TRY(MT_ALLOCATE(wires->of_tensor, (int64_t)table->n_tensor + 1, "tensors in the files"));
    return plan(table, family, layout, wires);
}

void mt_wires_clear(struct mt_wires *wires)
{
    mt_memory_free(wires->wire);
    mt_memory_free(wires->of_tensor);
    memset(wires, 0, sizeof(*wires));
}

int64_t mt_wire_n_run(const struct mt_wire *wire)
{
    return wire->partner < 0 ? 1 : 2 * wire->dim[0];
}

struct mt_wire_run mt_wire_run(const struct mt_wire *wire, int64_t run)
{
    if (wire->partner < 0) {
        return (struct mt_wire_run){wire->tensor, wire->first, 0, wire->n_element};
    }
    const int64_t slab = wire->n_element / mt_wire_n_run(wire);
    return (struct mt_wire_run){run % 2 == 0 ? wire->tensor : wire->partner, run / 2 * slab,
                                run * slab, slab};
}

void mt_wires_of(const struct mt_wires *wires, int tensor, int64_t *first, int64_t *last)
{
    *first = wires->of_tensor[tensor];
    *last = wires->of_tensor[tensor + 1];
    if (*first == *last) { /* the other half of the wire before */
        --*first;
    }
}
