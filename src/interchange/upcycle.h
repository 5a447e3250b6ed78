/* Dense models to one with experts: every layer's feed-forward network becomes the experts of that
 * layer, all else is taken over - from several models as the mean (BTX, Sukhbaatar et al. 2024).
 * One process, a tensor's elements after another: memory for some buffers, whatever the size. */
#ifndef MT_INTERCHANGE_UPCYCLE_H
#define MT_INTERCHANGE_UPCYCLE_H

#include "base/status.h"

#include <stdint.h>

/* What an expert has of the network it comes from, which is that of model number (expert) mod
 * (models):
 *   copy    all of it (Komatsuzaki et al. 2023)
 *   noise   the same, plus a normal number of `noise` times the matrix' deviation
 *   drop    the same, but a random share `drop_ratio` of the inner width drawn anew, normal with
 *           mean and deviation of what it replaces (Nakamura et al. 2025)
 *   split   one of `granularity` slices of the inner width; all slices of a copy have one row of
 *           the router in common, so that they are chosen together, and their up and down
 *           projections are sqrt(granularity) times as large, which makes up for weights that are
 *           shared among slices (He et al. 2024)
 * Weights of the chosen are renormalised, so that copy and split begin as the dense model. */
enum mt_upcycle_method {
    MT_UPCYCLE_COPY,
    MT_UPCYCLE_NOISE,
    MT_UPCYCLE_DROP,
    MT_UPCYCLE_SPLIT,
    MT_N_UPCYCLE
};

enum { MT_UPCYCLE_MAX_EXPERT = 65536 };

struct mt_upcycle_options {
    int n_dense;
    const char *const *dense; /* [n_dense] checkpoints of one shape */
    const char *to, *config_path;
    int64_t n_expert, top_k; /* of the dense width: split has granularity times as many */
    enum mt_upcycle_method method;
    int64_t granularity; /* 1 but for split */
    double noise, drop_ratio;
    uint64_t seed;
};

/* What was made. */
struct mt_upcycle_report {
    int64_t n_expert, top_k, inner, n_element;
};

/* A checkpoint of weights at step 0, and a configuration: the first dense model's, with experts.
 * Both absent before, or MT_ERR_CONFIG; also when a model is not dense or they differ. */
enum mt_status mt_interchange_upcycle(const struct mt_upcycle_options *options,
                                      struct mt_upcycle_report *report);

/* "copy"; MT_N_UPCYCLE for a word that is none. */
enum mt_upcycle_method mt_upcycle_method_of(const char *word);
const char *mt_upcycle_method_name(enum mt_upcycle_method method);

#endif
