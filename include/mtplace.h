/* libmtplace: where the experts of a Mixture-of-Experts layer should be copies, and who computes
 * which rows - the planner of moetrain as a library. Pure C, no MPI, no devices; usable through
 * ctypes.
 *
 * One planner is one policy for one model on one machine, with the state that the policy keeps:
 *
 *   mtplace_create, mtplace_set (costs, slots, ..), mtplace_set_nodes
 *   for each step:
 *     for each micro-batch, for each MoE layer:
 *       mtplace_plan_before    copies that travel under attention: mtplace_get_placement
 *       mtplace_plan_after     with the exact counts: late copies, mtplace_get_placement and
 *                              mtplace_get_quota; mtplace_predict
 *     mtplace_end_step
 *   mtplace_destroy
 *
 * Everything is a pure function of what the planner was told: planners on all ranks that are told
 * the same plan the same, so nothing has to be sent. Letters: R ranks, E experts of a layer; arrays
 * are row-major. Times are picoseconds, as integers.
 *
 * Calls return 0, or a code and keep a text, mtplace_error(): what happened; what was expected.
 * A planner belongs to one thread at a time; different planners are independent. */
#ifndef MTPLACE_H
#define MTPLACE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define MTPLACE_API __attribute__((visibility("default")))
#else
#define MTPLACE_API
#endif

/* Rises when a function changes its meaning or leaves; what is added does not count. */
#define MTPLACE_API_VERSION 1
MTPLACE_API int mtplace_api_version(void); /* of the library, to compare with the header */
MTPLACE_API const char *mtplace_version(void);

enum {
    MTPLACE_OK = 0,
    MTPLACE_INTERNAL = 1, /* a bug */
    MTPLACE_INVALID = 2,  /* an argument that cannot be, or a call out of turn */
    MTPLACE_MEMORY = 4
};
/* Of this thread's last call that failed; "" before. */
MTPLACE_API const char *mtplace_error(void);

/* Policies, [0, n). NULL beyond. */
MTPLACE_API int mtplace_n_policy(void);
MTPLACE_API const char *mtplace_policy_name(int policy);
MTPLACE_API const char *mtplace_policy_description(int policy);

typedef struct mtplace_planner mtplace_planner;

/* One node, costs of zero, until told otherwise. *planner: NULL on failure. */
MTPLACE_API int mtplace_create(const char *policy, int32_t n_rank, int32_t n_layer,
                               int32_t n_expert, mtplace_planner **planner);
MTPLACE_API void mtplace_destroy(mtplace_planner *planner); /* NULL allowed */

/* Before the first plan. Names, all >= 0 unless said otherwise, [default]:
 *   slots             copies of a layer that a rank can hold beside its own [0: as the policy likes]
 *   overlap           experts whose copies travel under attention [-1: from the costs]
 *   calibrate         1: exact counts may correct what history got wrong [1]
 *   split             of rows over an expert's instances: 1: the nearest take all, evenly; 2: the
 *                     least largest load of a rank [0: as the policy does]
 *   rematerialize     1: copies are dropped after forward and gathered again for backward [1]
 *   load_window       steps of history that the policy sees, >= 1 [5]
 *   reshard_interval  steps between changes of owners; 0: never [100]
 *   n_micro           micro-batches a step, >= 1 [1]
 *   row_bytes         of a row on its way to an expert
 *   expert_bytes      of the values of an expert
 *   row_ps            a row through an expert, forward
 *   instance_ps       what an instance with rows costs beside them, forward
 *   attention_ps      what a layer computes before its gate, forward: copies travel unseen meanwhile
 *   node_alpha_ps, node_kib_ps          a message inside a node; each 1024 bytes of it
 *   network_alpha_ps, network_kib_ps    the same between nodes */
MTPLACE_API int mtplace_set(mtplace_planner *planner, const char *name, int64_t value);
/* node [R]: which node a rank is in, numbered from 0 in order of their lowest ranks. */
MTPLACE_API int mtplace_set_nodes(mtplace_planner *planner, const int32_t *node);

/* What is to be materialised in this layer before its gate, from the loads of the past. */
MTPLACE_API int mtplace_plan_before(mtplace_planner *planner, int32_t layer);
/* counts [R,E]: rows of source r for expert e, at most 2^40 in all. After mtplace_plan_before of
 * the same layer. */
MTPLACE_API int mtplace_plan_after(mtplace_planner *planner, int32_t layer, const int64_t *counts);
/* The step is over; owners may have changed afterwards. */
MTPLACE_API int mtplace_end_step(mtplace_planner *planner);

/* Of the last plan. Instances are sorted by expert, then rank; owners are among them. -1: none. */
MTPLACE_API int64_t mtplace_n_instance(const mtplace_planner *planner);
/* expert, rank, is_late [n_instance]; each may be NULL. */
MTPLACE_API int mtplace_get_placement(const mtplace_planner *planner, int32_t *expert,
                                      int32_t *rank, uint8_t *is_late);
/* quota [R, n_instance]: rows of source r that instance i computes. After mtplace_plan_after. */
MTPLACE_API int mtplace_get_quota(const mtplace_planner *planner, int64_t *quota);
/* owner [E] of a layer, in force. */
MTPLACE_API int mtplace_get_owners(const mtplace_planner *planner, int32_t layer, int32_t *owner);

/* Time of the layer, forward and backward. Fields are only ever added at the end. */
struct mtplace_prediction {
    int64_t total_ps;    /* compute + exchange + copies */
    int64_t compute_ps;  /* experts of the slowest rank */
    int64_t exchange_ps; /* rows to experts and back, four times */
    int64_t copies_ps;   /* copies and their gradients beyond attention, waiting for late ones */
    int64_t ideal_ps;    /* lower bound: rows and traffic spread evenly */
    int64_t n_copy;      /* instances beside owners */
    int64_t n_late;      /* of them, planned after the gate */
};
/* n_bytes: sizeof(struct mtplace_prediction) of the caller. After mtplace_plan_after. */
MTPLACE_API int mtplace_predict(const mtplace_planner *planner,
                                struct mtplace_prediction *prediction, size_t n_bytes);

#ifdef __cplusplus
}
#endif

#endif
