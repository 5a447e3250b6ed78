/* Who measures a link with whom: a round robin at each level.
 *
 *   4 ranks of a node    turn 0   1-2 0-3     turn 1   0-1 2-3     turn 2   0-2 1-3
 *   4 nodes              the same, rank i of one with rank i of the other
 *
 * n players, n even: a and b meet when a + b = turn (mod n - 1), and who would meet itself meets
 * player n - 1. An odd number of players has one who pauses. */
#include "base/size.h"
#include "train/doctor.h"

/* -1: nobody. n >= 2 */
static int meet(int n, int turn, int player)
{
    const int n_turn = n % 2 == 0 ? n - 1 : n;
    if (player == n_turn) { /* the one who stays, n even: meets a with 2 a = turn */
        return (turn % 2 == 0 ? turn : turn + n_turn) / 2;
    }
    const int other = ((turn - player) % n_turn + n_turn) % n_turn;
    if (other != player) {
        return other;
    }
    return n % 2 == 0 ? n_turn : -1;
}

static int n_turn_of(int n)
{
    return n < 2 ? 0 : n - 1 + n % 2;
}

static int meet_in_node(const struct mt_topology *topology, int turn, int rank)
{
    const int node = topology->node[rank];
    const int size = mt_topology_node_size(topology, node);
    if (turn >= n_turn_of(size)) {
        return -1; /* a smaller node has finished */
    }
    const int other = meet(size, turn, topology->local[rank]);
    return other < 0 ? -1 : topology->member[topology->node_start[node] + other];
}

/* Ranks shift * s .. of the larger node meet the s ranks of the smaller one. */
static int meet_other_node(const struct mt_topology *topology, const struct mt_doctor_round *round,
                           int rank)
{
    const int node = topology->node[rank];
    const int local = topology->local[rank];
    if (round->turn >= n_turn_of(topology->n_node)) {
        return -1;
    }
    const int other = meet(topology->n_node, round->turn, node);
    if (other < 0) {
        return -1;
    }
    const int size = mt_topology_node_size(topology, node);
    const int other_size = mt_topology_node_size(topology, other);
    const int start = round->shift * (size < other_size ? size : other_size);
    const int other_local = size < other_size ? local + start : local - start;
    const int least = size < other_size ? size : other_size;
    const bool is_in =
        size < other_size ? other_local < other_size : other_local >= 0 && other_local < least;
    return is_in ? topology->member[topology->node_start[other] + other_local] : -1;
}

int mt_doctor_partner(const struct mt_topology *topology, const struct mt_doctor_round *round,
                      int rank)
{
    MT_ASSERT(round->level == MT_LEVEL_NODE || round->level == MT_LEVEL_NETWORK);
    return round->level == MT_LEVEL_NODE ? meet_in_node(topology, round->turn, rank)
                                         : meet_other_node(topology, round, rank);
}

/* `n` of `n_all` things, evenly spread: the index-th of them. */
static int spread(int index, int n, int n_all)
{
    return mt_size_to_int(mt_share_start(n_all, n, index));
}

int mt_doctor_rounds(const struct mt_topology *topology, struct mt_doctor_round *round,
                     int max_round)
{
    int largest = 0;
    int least = topology->n_rank;
    for (int node = 0; node < topology->n_node; ++node) {
        const int size = mt_topology_node_size(topology, node);
        largest = size > largest ? size : largest;
        least = size < least ? size : least;
    }
    const int n_shift = (largest + least - 1) / least;
    const int n_inside_all = n_turn_of(largest);
    const int64_t n_between_all = (int64_t)n_turn_of(topology->n_node) * n_shift;
    const int half = max_round / 2;
    const int n_inside = n_inside_all < half ? n_inside_all : half;
    const int n_between = (int)mt_min_i64(n_between_all, half);
    int n = 0;
    for (int i = 0; i < n_inside; ++i) {
        round[n++] = (struct mt_doctor_round){MT_LEVEL_NODE, spread(i, n_inside, n_inside_all), 0};
    }
    for (int i = 0; i < n_between; ++i) {
        const int at = spread(i, n_between, mt_size_to_int(n_between_all));
        round[n++] = (struct mt_doctor_round){MT_LEVEL_NETWORK, at / n_shift, at % n_shift};
    }
    return n;
}
