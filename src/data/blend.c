#include "data/blend.h"

#include "base/status.h"

#include <math.h>
#include <string.h>

/* Slots in proportion to the weights, by largest remainder, but at least one each. */
static void share_slots(struct mt_blend *blend, const double *weight)
{
    double sum = 0;
    double left[MT_MAX_PATHS];
    int64_t n_left = blend->n_slot;
    for (int k = 0; k < blend->n_source; ++k) {
        sum += weight != NULL ? weight[k] : 1.0;
    }
    for (int k = 0; k < blend->n_source; ++k) {
        const double exact = blend->n_slot * ((weight != NULL ? weight[k] : 1.0) / sum);
        blend->count[k] = exact >= 1.0 ? (int64_t)floor(exact) : 1;
        left[k] = exact - (double)blend->count[k];
        n_left -= blend->count[k];
    }
    while (n_left != 0) { /* negative: the least weights were raised to one slot */
        const int step = n_left > 0 ? 1 : -1;
        int best = -1;
        for (int k = 0; k < blend->n_source; ++k) {
            const bool can = step > 0 || blend->count[k] > 1;
            if (can && (best < 0 || step * left[k] > step * left[best])) {
                best = k;
            }
        }
        MT_ASSERT(best >= 0);
        blend->count[best] += step;
        left[best] -= step;
        n_left -= step;
    }
}

/* The source furthest behind its share of s + 1 slots comes next; among equals the first. */
static void order_slots(struct mt_blend *blend)
{
    int64_t given[MT_MAX_PATHS] = {0};
    for (int s = 0; s < blend->n_slot; ++s) {
        int next = 0;
        int64_t most = INT64_MIN;
        for (int k = 0; k < blend->n_source; ++k) {
            const int64_t behind = blend->count[k] * (s + 1) - given[k] * blend->n_slot;
            if (behind > most) {
                most = behind;
                next = k;
            }
        }
        blend->source[s] = (uint16_t)next;
        blend->rank[s] = (uint16_t)given[next]++;
    }
}

void mt_blend_init(struct mt_blend *blend, int n_source, const double *weight)
{
    MT_ASSERT(n_source >= 1 && n_source <= MT_MAX_PATHS);
    memset(blend, 0, sizeof(*blend));
    blend->n_source = n_source;
    blend->n_slot = n_source == 1 ? 1 : MT_BLEND_SLOTS;
    share_slots(blend, weight);
    order_slots(blend);
}

void mt_blend_place(const struct mt_blend *blend, int64_t sequence, int *source, int64_t *index)
{
    MT_ASSERT(sequence >= blend->base);
    const int64_t period = (sequence - blend->base) / blend->n_slot;
    const int64_t slot = (sequence - blend->base) % blend->n_slot;
    *source = blend->source[slot];
    *index = blend->start[*source] + period * blend->count[*source] + blend->rank[slot];
}

int64_t mt_blend_drawn(const struct mt_blend *blend, int source, int64_t sequence)
{
    MT_ASSERT(sequence >= blend->base);
    const int64_t period = (sequence - blend->base) / blend->n_slot;
    const int64_t n_slot = (sequence - blend->base) % blend->n_slot;
    int64_t n = blend->start[source] + period * blend->count[source];
    for (int64_t s = 0; s < n_slot; ++s) {
        n += blend->source[s] == source;
    }
    return n;
}

static int64_t at(int source)
{
    return MT_BLEND_STATE_HEAD + (int64_t)MT_BLEND_STATE_SOURCE * source;
}

static void put_source(int64_t *state, int entry, const struct mt_blend_source *source,
                       int64_t start, int64_t count)
{
    int64_t *kept = state + at(entry);
    kept[0] = (int64_t)source->name;
    kept[1] = (int64_t)source->fingerprint;
    kept[2] = start;
    kept[3] = count;
}

void mt_blend_save(const struct mt_blend *blend, const struct mt_blend_source *source,
                   int64_t state[MT_BLEND_STATE])
{
    memset(state, 0, MT_BLEND_STATE * sizeof(*state));
    state[0] = blend->n_source;
    state[1] = blend->base;
    for (int k = 0; k < blend->n_source; ++k) {
        put_source(state, k, &source[k], blend->start[k], blend->count[k]);
    }
    for (int k = 0; k < blend->n_absent; ++k) {
        put_source(state, blend->n_source + k, &blend->absent[k], blend->given[k], 0);
    }
}

/* Sources behind the first n: those that are absent. */
static int count_absent(const int64_t *state, int64_t n)
{
    int n_absent = 0;
    while (n + n_absent < MT_MAX_PATHS && state[at((int)n + n_absent) + 2] != 0) {
        ++n_absent;
    }
    return n_absent;
}

bool mt_blend_state_is_valid(const int64_t state[MT_BLEND_STATE], int64_t sequence)
{
    const int64_t n = state[0];
    int64_t n_slot = 0;
    if (n < 0 || n > MT_MAX_PATHS || state[1] < 0 || state[1] > sequence) {
        return false;
    }
    const int64_t n_all = n + (n > 0 ? count_absent(state, n) : 0);
    for (int k = 0; k < n_all; ++k) {
        const int64_t start = state[at(k) + 2];
        const int64_t count = state[at(k) + 3];
        const bool has_slots = count >= 1 && count <= MT_BLEND_SLOTS;
        if (start < 0 || start > sequence || (k < n ? !has_slots : count != 0)) {
            return false;
        }
        n_slot += count;
    }
    return n == 0 || n_slot == (n == 1 ? 1 : MT_BLEND_SLOTS);
}

/* The blend that was saved, and its sources, the absent ones behind the others. */
static void restore(const int64_t *state, struct mt_blend *then, struct mt_blend_source *source)
{
    memset(then, 0, sizeof(*then));
    then->n_source = (int)state[0];
    then->n_slot = then->n_source == 1 ? 1 : MT_BLEND_SLOTS;
    then->base = state[1];
    then->n_absent = count_absent(state, then->n_source);
    for (int k = 0; k < then->n_source + then->n_absent; ++k) {
        const int64_t *kept = state + at(k);
        const int absent = k - then->n_source;
        source[k].name = (uint64_t)kept[0];
        source[k].fingerprint = (uint64_t)kept[1];
        if (absent < 0) {
            then->start[k] = kept[2];
            then->count[k] = kept[3];
        } else {
            then->absent[absent] = source[k];
            then->given[absent] = kept[2];
        }
    }
    order_slots(then);
}

static bool is_same(const struct mt_blend *now, const struct mt_blend_source *source,
                    const struct mt_blend *then, const struct mt_blend_source *old)
{
    bool same = now->n_source == then->n_source;
    for (int k = 0; same && k < now->n_source; ++k) {
        same = now->count[k] == then->count[k] && source[k].fingerprint == old[k].fingerprint;
    }
    return same;
}

/* The old source that this one is: the one with its content, or with its name, absent ones last.
 * Sources are matched in order, so that two with the same content stay two. */
static int find_old(const struct mt_blend_source *source, const struct mt_blend *then,
                    const struct mt_blend_source *old, const bool *taken, bool by_name)
{
    for (int k = 0; k < then->n_source + then->n_absent; ++k) {
        const bool equal =
            by_name ? old[k].name == source->name : old[k].fingerprint == source->fingerprint;
        if (equal && !taken[k]) {
            return k;
        }
    }
    return -1;
}

/* What an old source had given. */
static int64_t given_by(const struct mt_blend *then, int old, int64_t sequence)
{
    return old < then->n_source ? mt_blend_drawn(then, old, sequence)
                                : then->given[old - then->n_source];
}

/* Old sources that are in the blend no more; beyond what a checkpoint has room for the last ones
 * are forgotten. */
static void keep_absent(struct mt_blend *blend, const struct mt_blend *then,
                        const struct mt_blend_source *old, const bool *taken, int64_t sequence)
{
    for (int o = 0; o < then->n_source + then->n_absent; ++o) {
        const int64_t given = given_by(then, o, sequence);
        if (!taken[o] && given > 0 && blend->n_source + blend->n_absent < MT_MAX_PATHS) {
            blend->absent[blend->n_absent] = old[o];
            blend->given[blend->n_absent++] = given;
        }
    }
}

bool mt_blend_resume(struct mt_blend *blend, const struct mt_blend_source *source,
                     const int64_t state[MT_BLEND_STATE], int64_t sequence, int *changed)
{
    struct mt_blend then;
    struct mt_blend_source old[MT_MAX_PATHS] = {{0}};
    bool taken[MT_MAX_PATHS] = {false};
    bool is_found[MT_MAX_PATHS] = {false};
    *changed = -1;
    if (state[0] == 0) { /* from before there were blends: one source gave everything */
        return false;
    }
    restore(state, &then, old);
    if (is_same(blend, source, &then, old)) {
        blend->base = then.base;
        memcpy(blend->start, then.start, sizeof(blend->start));
        for (int k = 0; k < then.n_source; ++k) {
            taken[k] = true;
        }
        keep_absent(blend, &then, old, taken, sequence);
        return false;
    }
    blend->base = sequence;
    for (int pass = 0; pass < 2; ++pass) {
        for (int k = 0; k < blend->n_source; ++k) {
            const int o = is_found[k] ? -1 : find_old(&source[k], &then, old, taken, pass == 1);
            if (o >= 0) {
                taken[o] = is_found[k] = true;
                blend->start[k] = given_by(&then, o, sequence);
                *changed = pass == 1 && *changed < 0 ? k : *changed;
            }
        }
    }
    keep_absent(blend, &then, old, taken, sequence);
    return true;
}
