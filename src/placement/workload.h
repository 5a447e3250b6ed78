/* Skew on demand: how likely each expert is for the tokens of each rank, as named workloads at a
 * wanted skew that drift in time. A pure function of (seed, step, micro-batch, layer): studies
 * repeat. Sources of the shapes: docs/fssdp.md. */
#ifndef MT_PLACEMENT_WORKLOAD_H
#define MT_PLACEMENT_WORKLOAD_H

#include "base/memory.h"
#include "placement/cluster.h"

struct mt_workload {
    const char *name, *description;
};
extern const struct mt_workload mt_workloads[];
extern const int mt_n_workload;
int mt_workload_find(const char *name); /* -1: none of that name */

struct mt_workload_input {
    int workload; /* index in the table */
    int n_rank, n_expert, top_k;
    const int *owner; /* [E] default owners: what "hot rank" means under ep */
    double skew; /* wanted largest load of a rank over the mean, under ep; >= 1. Beyond what can
                         be (R, or a hot rank whose experts all tokens choose) the largest there is;
                         burst has it in its bursts, balanced never */
    uint64_t seed;
    int64_t step;
    int micro, layer;
};
/* weight [R,E]: for the tokens of each source rank a weight per expert, > 0 unless the expert gets
 * no tokens (at least top_k are > 0). Choosing top_k different experts for each token in proportion
 * to its weights (mt_workload_choose) gives the wanted skew. Rows of all sources are equal but for
 * ragged_source. scratch: mt_workload_scratch_bytes. */
void mt_workload_weights(const struct mt_workload_input *input, struct mt_arena *scratch,
                         double *weight);
int64_t mt_workload_scratch_bytes(int n_rank, int n_expert);
/* Which tokens choose, and from which random numbers: the same token of the same stream always
 * chooses alike, however tokens are cut into calls. */
struct mt_workload_tokens {
    uint64_t seed, stream;
    int64_t first, n;
};
/* expert [n, K]: different experts of each token, drawn by inclusion in proportion to weight [E],
 * in no particular order. Scratch as above; 8192 tokens x 8 of 256 experts take 1.5 ms. */
void mt_workload_choose(const double *weight, int n_expert, int top_k,
                        const struct mt_workload_tokens *tokens, struct mt_arena *scratch,
                        int32_t *expert);
/* counts [E] that choosing gives on average for n_token tokens, rounded so that they sum to n_token
 * K: for planning without tokens. n_token < 2^32. */
void mt_workload_counts(const double *weight, int n_expert, int top_k, int64_t n_token,
                        struct mt_arena *scratch, int64_t *count);

#endif
