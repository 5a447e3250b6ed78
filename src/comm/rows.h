/* Rows of tokens on their way to experts and back, for the exchange that sends a token's row once
 * to a node (alltoallv_deduplicated.c): besides how many rows go from whom to whom it needs to know
 * which of them are copies of one row.
 *
 * Numbers. Of a source's rows for one other node, in the order (member of the node, position in the
 * member's block), each token's first row gets the next number, further ones that number again:
 *
 *     tokens   7 3 9 | 3 5 | 9       numbers   0 1 2 | 1 3 | 2       4 unique of 6 rows
 *              to 4    to 5  to 6              (ranks of the node)
 *
 * The source makes the numbers of its rows (`sent`) and tells them to the one rank of each other
 * node that works for it (`relayed`); rows of its own node have none. */
#ifndef MT_COMM_ROWS_H
#define MT_COMM_ROWS_H

#include "comm/plan.h"
#include "comm/topology.h"

struct mt_rows {
    const int64_t *n_row;   /* [R,R] rows of source s (whose tokens they are) at target t (whose
                             experts compute them); the same on every rank */
    int64_t row_bytes;      /* of floats */
    int64_t tail_bytes;     /* a block of c rows is c row_bytes, then c tail_bytes */
    const int32_t *sent;    /* numbers of this rank's rows by (other node, member, position) */
    const int32_t *relayed; /* numbers of the rows that it works for, by (source, member of its own
                               node, position) */
};

/* How many rows have an entry in sent and relayed. */
int64_t mt_rows_n_sent(const struct mt_topology *topology, int rank, const int64_t *n_row);
int64_t mt_rows_n_relayed(const struct mt_topology *topology, int rank, const int64_t *n_row);
/* Ranks of other nodes that `rank` works for. */
int mt_rows_n_source(const struct mt_topology *topology, int rank);

/* sent [mt_rows_n_sent] from the tokens of this rank's rows, each in [0, n_token): token [rows
 * sent], block after block in rank order. seen [n_token]: scratch. */
void mt_rows_number(const struct mt_topology *topology, int rank, const int64_t *n_row,
                    const int32_t *token, int64_t n_token, int64_t *seen, int32_t *sent);

/* Appends to the plan what tells the numbers: from `sent` of SEND to `relayed` of RECV, which begin
 * at these offsets. */
void mt_plan_row_numbers(struct mt_plan *plan, const struct mt_topology *topology, int rank,
                         const int64_t *n_row, int64_t sent_bytes, int64_t relayed_bytes);
int64_t mt_plan_row_numbers_max_op(const struct mt_topology *topology, int rank);

/* Unique ones among n numbers. */
int64_t mt_rows_n_unique(const int32_t *number, int64_t n);

/* Rows that `rank` works for at most, when no source sends more than max_send rows and no target
 * takes more than max_recv. */
int64_t mt_rows_relayed_bound(const struct mt_topology *topology, int rank, int64_t max_send,
                              int64_t max_recv);

#endif
