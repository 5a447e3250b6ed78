/* One MoE layer on real ranks beside its reference: the same values, the tokens of all ranks known
 * to every rank, so that each rank judges its own tokens and the chunks it owns. */
#ifndef MT_TEST_MOE_LAYER_WORLD_H
#define MT_TEST_MOE_LAYER_WORLD_H

#include "moe/context.h"
#include "reference/moe_layer.h"

/* Layer 0 is dense (nothing of it is in the table), layer 1 is the MoE layer. */
enum { WORLD_LAYER = 1, WORLD_N_LAYER = 2, WORLD_N_TENSOR = 8, WORLD_MAX_EXPERT = 16 };

/* Tokens of rank r: as the name says. EMPTY: odd ranks have none. */
enum world_tokens { TOKENS_EVEN, TOKENS_UNEVEN, TOKENS_EMPTY };

struct world_case {
    const char *name;
    int64_t n_expert, top_k, n_shared;
    bool has_shared_gate;
    bool normalize;
    double loss_coef, z_loss_coef;
    enum mt_balance_loss loss;
    enum mt_balance_window window;
    enum world_tokens tokens;
    bool is_hot;             /* the router sends every token's first choice to expert 0 */
    uint64_t placement_seed; /* 0: owners only; else copies drawn from it */
    int64_t slice_rows;      /* 0: as the layer chooses */
    bool is_sticky;          /* copies stay from micro-batch to micro-batch */
    bool is_halved;          /* micro-batches run in two halves, stage by stage in turn */
};

struct world {
    struct world_case shape;
    struct mt_config *config;
    struct mt_device device;
    struct mt_comm comm;
    struct mt_tensor tensor[WORLD_N_TENSOR];
    struct mt_tensor_table table;
    struct mt_placement ownership[WORLD_N_LAYER];
    struct mt_store *store;
    struct mt_moe *moe;
    struct mt_arena arena[MT_MAX_HALF];
    int n_rank, rank, n_tensor;
    int64_t step;
    int64_t *first;   /* [R+1] tokens of all ranks */
    float *x, *d_out; /* [all tokens, D] */
    float *out, *d_x; /* [own tokens, D] */
    float *value[WORLD_N_TENSOR];
    /* reference */
    double *x_wide, *d_out_wide, *out_wide, *d_x_wide;
    double *value_wide[WORLD_N_TENSOR], *grad_wide[WORLD_N_TENSOR];
};

void world_create(struct world *world, const struct world_case *shape);
void world_destroy(struct world *world);

static inline int64_t world_n_own(const struct world *world)
{
    return world->first[world->rank + 1] - world->first[world->rank];
}

/* Token range [*start, *end) of a rank in micro-batch `micro` of `n_micro`. */
void world_micro(const struct world *world, int rank, int micro, int n_micro, int64_t *start,
                 int64_t *end);

/* Zeroes gradients, plans, lays the case's placement over the policy's. */
void world_begin_step(struct world *world);
/* Forward and backward of this rank's tokens of one micro-batch: out, d_x. Collective. */
void world_run_micro(struct world *world, int micro, int n_micro);
/* A counting pass over one micro-batch. */
void world_count_micro(struct world *world, int micro, int n_micro);
void world_end_step(struct world *world, struct mt_moe_stats *stats);

/* The reference over one rank's tokens of one micro-batch with f [E] (NULL: none): out_wide,
 * d_x_wide, grad_wide +=. */
void world_reference(struct world *world, int rank, int micro, int n_micro, const double *f);
/* Counts of the same tokens are added to count [E]; sums (NULL allowed) as in the reference. */
void world_reference_count(struct world *world, int rank, int micro, int n_micro, int64_t *count,
                           double *probability_sum, double *lse_square_sum);
/* f [E] = count / sum; false when nothing was counted. */
bool world_share(const struct world *world, const int64_t *count, double *f);

/* Own rows of out and d_x are the reference's within row_bound, every owned part's gradient within
 * grad_bound. */
void world_check(const struct world *world, double row_bound, double grad_bound);

#endif
