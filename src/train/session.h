/* A session: one configured model on the ranks of this job - what training, evaluation and
 * generation have in common. Made in one order, taken apart in the other. */
#ifndef MT_TRAIN_SESSION_H
#define MT_TRAIN_SESSION_H

#include "config/config.h"
#include "data/validation.h"
#include "model/model.h"

struct mt_session {
    const struct mt_config *config;
    struct mt_device device;
    struct mt_comm comm;
    struct mt_model_tensors tensors;
    struct mt_placement *ownership; /* [L] */
    struct mt_store *store;
    struct mt_model *model;
};

/* Collective, and agreed: every rank returns the same status. The memory estimate is compared with
 * what this machine has before anything large is allocated (MT_ERR_RESOURCE with both numbers).
 * max_sequence: sequences of a micro-batch, any rank. Parameters are undefined until they are
 * loaded or initialised, then published. */
enum mt_status mt_session_open(struct mt_session *session, const struct mt_config *config,
                               bool training, int64_t max_sequence);
/* The same for somebody who will allocate so many bytes beside it on every rank. */
enum mt_status mt_session_open_beside(struct mt_session *session, const struct mt_config *config,
                                      bool training, int64_t max_sequence, int64_t beside_bytes);
void mt_session_close(struct mt_session *session);

/* Collective: this rank among those of its machine, whatever nodes the run pretends to have, and
 * its part of the machine's cores. */
struct mt_session_place {
    int local, n_local;
    struct mt_core_share share;
};
enum mt_status mt_session_place(struct mt_comm *comm, struct mt_session_place *place);
/* Collective, agreed: the GPU that the configuration asks for. With kind "auto" all ranks compute
 * on GPUs or none does. */
enum mt_status mt_session_open_gpu(struct mt_session *session,
                                   const struct mt_session_place *place);

/* Bytes that one rank needs, by kind, for balanced load. */
struct mt_memory_estimate {
    struct mt_store_bytes store; /* of the rank that holds most */
    int64_t activations;
    int64_t checkpoint; /* staging memory */
    int64_t profile;    /* the recorder's rings */
    int64_t history;    /* loads of placement.load_window steps */
    int64_t skew;       /* what other routing can add at most; not in total */
    int64_t total;
    int64_t program; /* code, MPI's and the libraries' memory: resident, but not in total */
};
/* Saves go through staging memory. */
bool mt_session_stages_saves(const struct mt_config *config);
/* Of the recorder and its file; 0 when profile.enabled is false (profiling.c). */
int64_t mt_profiling_bytes(const struct mt_config *config);
/* Not collective, needs no job. MT_ERR_RESOURCE when the sizes overflow. */
enum mt_status mt_session_estimate(const struct mt_config *config, int n_rank, bool training,
                                   int64_t max_sequence, struct mt_memory_estimate *estimate);

/* Mean losses in nats per token, of all sets together and of each. */
struct mt_evaluation {
    double loss;
    int64_t n_token;
    double set_loss[MT_MAX_SETS + 1];
    int64_t set_n_token[MT_MAX_SETS + 1];
    bool is_stopped; /* before its end: the rest has no meaning */
};
struct mt_evaluation_options {
    int64_t n_sequence; /* windows of each set, from its first; fewer if it has fewer; 0: all */
    int64_t micro_batch;
    /* Asked on every rank between two micro-batches: true on one of them stops the evaluation on
     * all. NULL: it goes to its end. */
    bool (*wants_stop)(void *context);
    void *context;
};
/* Collective. Windows are shared out over the ranks in lockstep. */
enum mt_status mt_session_evaluate(struct mt_session *session,
                                   const struct mt_validation *validation,
                                   const struct mt_evaluation_options *options,
                                   struct mt_evaluation *result);

#endif
