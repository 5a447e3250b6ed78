/* Counts and sums of one step, from every layer's and micro-batch's forward to the metrics line.
 * Counts are of all ranks and alike everywhere; sums are this rank's until finish adds them. */
#ifndef MT_MOE_TALLY_H
#define MT_MOE_TALLY_H

#include "config/config.h"
#include "moe/moe.h"

struct mt_tally {
    bool is_micro; /* f of the reported loss: each rank's micro-batch, else the whole step */
    int n_rank, n_layer, first_layer;
    int64_t n_expert, top_k;
    int64_t *count;          /* [L,E] (token, choice) pairs of the step, all ranks */
    int64_t rows_of_busiest; /* of the most loaded rank, summed over layers and micro-batches */
    int64_t rows_of_all;     /* of all ranks, alike */
    double *probability_sum; /* [L,E] over this rank's tokens */
    double *lse_square_sum;  /* [L] over this rank's tokens */
    double *micro_loss;      /* [L] sum over micro-batches of E sum_i f_i (sum of p_i) */
    double *partial;         /* [2 * number of MoE layers] what finish adds over ranks */
};

enum mt_status mt_tally_init(struct mt_tally *tally, const struct mt_config *config, int n_rank);
void mt_tally_clear(struct mt_tally *tally);
void mt_tally_reset(struct mt_tally *tally);

/* What one layer's gate saw. */
struct mt_tally_gate {
    const int64_t *global_count;   /* [E] all ranks */
    const int64_t *own_count;      /* [E] */
    const double *probability_sum; /* [E] over own tokens */
    double lse_square_sum;
};
void mt_tally_add_gate(struct mt_tally *tally, int layer, const struct mt_tally_gate *gate);
/* load [R] rows that each rank computes in one layer */
void mt_tally_add_load(struct mt_tally *tally, const int64_t *load);

/* All of *stats but load_max_over_mean_layer's memory, which the caller has set. Collective. */
enum mt_status mt_tally_finish(struct mt_tally *tally, struct mt_comm *comm,
                               struct mt_moe_stats *stats);

#endif
