/* What carries the rows of a route: one of the all-to-alls of comm/, chosen for every route.
 *
 * comm.all_to_all names one, or leaves it to the costs of the links (placement/exchange.h). Every
 * rank chooses from the same counts and costs, so all choose alike. Between nodes the two-level
 * exchange and the one through leaders send fewer messages, and bring the same bytes; the
 * deduplicated one sends fewer bytes and brings back sums, so that comm.exact = true keeps `auto`
 * from choosing it. With one node there is nothing to choose.
 *
 * Memory. STAGE is made once for the most that this rank passes on in one slice, whatever the
 * routing is: a source sends at most S = N K rows and a target takes at most W. In a node of k
 * ranks, in rows of D + 1 floats:
 *
 *     two-level     (2 k - 1) S; back 2 min(k W, n S)   what its node sends along its rail, and
 *                                                       what it was handed for that
 *     leader        (2 k - 1) W                         what enters or leaves the node, unsorted
 *                                                       and sorted
 *     deduplicated  2 min(k W, n S), S + W at least     n: ranks of other nodes it works for
 *
 * which is address space until such a skew comes; even loads touch about 2 S. */
#ifndef MT_MOE_CARRIER_H
#define MT_MOE_CARRIER_H

#include "comm/comm.h"
#include "config/config.h"
#include "moe/route.h"
#include "placement/exchange.h"

/* How the rows of one route travel; in the arena of the route. */
struct mt_transfer {
    enum mt_exchange_kind kind;
    /* Of all but direct: the matrix of any slice follows from them. */
    int64_t n_instance;
    int64_t *quota; /* [R, n_instance] */
    int *target;    /* [n_instance] rank */
    bool *is_late;  /* [n_instance] */
    /* Deduplicated: numbers of rows (comm/rows.h), slice after slice. */
    int32_t *sent, *relayed;
    int64_t *sent_start, *relayed_start; /* [n_slice] */
};

struct mt_carrier_size {
    int64_t width, top_k, slice_rows; /* D, K, W */
    int64_t max_token, max_token_any; /* largest N of this rank, of any rank */
    int64_t max_instance;
};

struct mt_carrier {
    struct mt_device *device;
    struct mt_comm *comm;
    enum mt_comm_all_to_all wanted;
    bool sums_may_differ;
    struct mt_carrier_size size;
    int64_t *matrix;                  /* [R,R] of the slice at hand: rows, or bytes */
    int64_t *row;                     /* [R] scratch */
    int64_t *send_bytes, *recv_bytes; /* [R] */
    int32_t *token;                   /* [N*K] of the rows that travel */
    int64_t *seen;                    /* [N] scratch */
    struct mt_arena scratch;          /* of choosing */
    char *stage;                      /* dev: a row of zeros first */
    int64_t stage_bytes;
    struct mt_plan plan, number_plan;
    struct mt_exec *exec, *number_exec;
};

enum mt_status mt_carrier_init(struct mt_carrier *carrier, struct mt_device *device,
                               struct mt_comm *comm, const struct mt_config *config,
                               const struct mt_carrier_size *size);
void mt_carrier_clear(struct mt_carrier *carrier);

/* Chooses for a route of this rank that was built from `input`, and begins to tell rows' numbers.
 * Everything is cut from the arena. */
enum mt_status mt_carrier_choose(struct mt_carrier *carrier, const struct mt_cluster *cluster,
                                 struct mt_route *route, const struct mt_route_input *input,
                                 struct mt_arena *arena);
/* Bytes that it cuts at most; false when they do not fit int64_t. */
bool mt_carrier_route_bytes_max(const struct mt_topology *topology, int rank,
                                const struct mt_config *config, const struct mt_carrier_size *size,
                                int64_t *n_bytes);
/* Bytes of STAGE, the most of any exchange that the configuration allows; likewise. */
bool mt_carrier_stage_bytes(const struct mt_topology *topology, int rank,
                            const struct mt_config *config, const struct mt_carrier_size *size,
                            int64_t *n_bytes);

/* One slice's blocks, from `send` to `recv`, of rows of `width` floats with or without a float each
 * (wide or narrow, moe/route.h). is_back: to tokens. What comes back is that of route.h, or where
 * sums are carried (deduplicated) the sum of a token's rows of one other node in the first row's
 * place, and zeros in the others'. */
enum mt_status mt_carrier_begin(struct mt_carrier *carrier, const struct mt_route *route, int slice,
                                bool is_back, bool is_wide, float *send, float *recv);
enum mt_status mt_carrier_end(struct mt_carrier *carrier);

/* [R,R] rows by source and target of one slice, as every rank knows them; of all slices when slice
 * is -1. A rank's rows for itself are only its own business: others' are what the quota says. row
 * [R]: scratch. */
void mt_transfer_matrix(const struct mt_transfer *transfer, const struct mt_route *route, int slice,
                        int64_t *row, int64_t *matrix);

#endif
