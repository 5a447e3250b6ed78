/* Routing in rounds, greedily, rarest chunk first.
 *
 *     chunk a: owner 0, holders 1..5; nodes {0 1 2} {3 4 5}; two ports
 *
 *     round 0   0 --a--> 3 (network)   0 --a--> 1        a node that lacks the chunk comes first
 *     round 1   0 --a--> 2     3 --a--> 4   3 --a--> 5   whoever has it passes it on in his node
 *
 * In a round every rank sends at most MT_RELAY_PORTS messages and receives as many. It prefers a
 * chunk that some node lacks, then the one that fewest ranks have (so that an owner of several hot
 * chunks hands out each once before any twice), then the lower number; and of those who want it the
 * one that has received least. Ranks choose in turn, a later one first in every round.
 *
 * 8 chunks of one owner on 64 ranks of one node take 8 rounds (each rank receives 8, two a round,
 * and the first has tripled its chunk's holders in each of the first four); the owner sends 14
 * times, alone it would be 504. In nodes of 8: 13 rounds, 26. Time: 40 us, for 164 copies of 256
 * chunks 10 us (2026-11-22, one core of an EPYC); O(copies^2 / R) when everything goes everywhere.
 */
#include "comm/relay_internal.h"

#include <string.h>

/* Index of the rank of the group that wants the chunk, can receive in this round and has received
 * least so far, so that it can soon pass something on; -1: none. Among equal ones the next after
 * `rank`, in turn: senders find different targets. */
static int64_t find_free(const struct mt_relay *relay, const struct group *group, int rank)
{
    const int *wanting = relay->wanting + group->start;
    int64_t best[2] = {-1, -1}; /* at or before `rank`, after it */
    for (int64_t i = 0; i < group->n_wants; ++i) {
        int64_t *least = &best[wanting[i] > rank ? 1 : 0];
        if (relay->n_received[wanting[i]] < MT_RELAY_PORTS &&
            (*least < 0 || relay->n_got[wanting[i]] < relay->n_got[wanting[*least]])) {
            *least = i;
        }
    }
    if (best[0] < 0 || best[1] < 0) {
        return best[0] < best[1] ? best[1] + group->start
                                 : (best[0] < 0 ? -1 : best[0] + group->start);
    }
    const bool is_before = relay->n_got[wanting[best[0]]] < relay->n_got[wanting[best[1]]];
    return group->start + (is_before ? best[0] : best[1]);
}

/* What a sender may send next, the best that it has found so far. group = -1: nothing. */
struct choice {
    int chunk;
    bool is_to_node; /* a node that lacks it */
    int64_t group, at;
};

static bool is_better(const struct mt_relay *relay, int chunk, bool is_to_node,
                      const struct choice *than)
{
    if (than->group < 0 || is_to_node != than->is_to_node) {
        return than->group < 0 || is_to_node;
    }
    const int64_t more = relay->n_having[chunk] - relay->n_having[than->chunk];
    return more < 0 || (more == 0 && chunk < than->chunk);
}

/* To the first node that lacks the chunk and has a rank with a free port. */
static bool choose_node(const struct mt_relay *relay, int rank, int chunk, struct choice *best)
{
    for (int64_t g = relay->group_start[chunk]; g < relay->group_start[chunk + 1]; ++g) {
        const struct group *group = &relay->group[g];
        const int64_t at = group->is_reached ? -1 : find_free(relay, group, rank);
        if (at >= 0) {
            *best = (struct choice){.chunk = chunk, .is_to_node = true, .group = g, .at = at};
            return true;
        }
    }
    return false;
}

static void choose_own(const struct mt_relay *relay, int rank, const struct stock *stock,
                       struct choice *best)
{
    const int64_t at = find_free(relay, &relay->group[stock->group], rank);
    if (at >= 0) {
        *best = (struct choice){.chunk = stock->chunk, .group = stock->group, .at = at};
    }
}

/* Goes through the rank's list, and takes out what nobody wants from it any more. */
static struct choice choose(struct mt_relay *relay, int rank)
{
    struct choice best = {.group = -1};
    int64_t *link = &relay->first_stock[rank];
    while (*link >= 0) {
        struct stock *stock = &relay->stock[*link];
        const bool is_to_node = relay->n_unreached[stock->chunk] > 0;
        const bool is_to_own = relay->group[stock->group].n_wants > 0;
        if (!is_to_node && !is_to_own) {
            *link = stock->next;
            continue;
        }
        link = &stock->next;
        if (is_to_node && is_better(relay, stock->chunk, true, &best) &&
            choose_node(relay, rank, stock->chunk, &best)) {
            continue;
        }
        if (is_to_own && is_better(relay, stock->chunk, false, &best)) {
            choose_own(relay, rank, stock, &best);
        }
    }
    return best;
}

static void send_chosen(struct mt_relay *relay, int rank, int round, const struct choice *choice)
{
    struct group *group = &relay->group[choice->group];
    const int to = relay->wanting[choice->at];
    const int64_t n_after = group->start + group->n_wants - choice->at - 1;
    memmove(&relay->wanting[choice->at], &relay->wanting[choice->at + 1],
            (size_t)n_after * sizeof(*relay->wanting));
    --group->n_wants;
    relay->n_unreached[choice->chunk] -= group->is_reached ? 0 : 1;
    group->is_reached = true;
    ++relay->n_having[choice->chunk];
    ++relay->n_sent[rank];
    ++relay->n_received[to];
    ++relay->n_got[to];
    relay->hop[relay->n_hop++] =
        (struct mt_hop){.chunk = choice->chunk, .round = round, .from = rank, .to = to};
}

/* Who received in this round passes on from the next. */
static void stock_up(struct mt_relay *relay, int64_t first_hop)
{
    for (int64_t i = first_hop; i < relay->n_hop; ++i) {
        const struct mt_hop *hop = &relay->hop[i];
        int64_t group = relay->group_start[hop->chunk];
        while (relay->group[group].node != relay->topology->node[hop->to]) {
            ++group;
        }
        mt_relay_add_stock(relay, hop->to, hop->chunk, group);
    }
}

static void route_round(struct mt_relay *relay, int round)
{
    const int n_rank = relay->topology->n_rank;
    const int64_t first_hop = relay->n_hop;
    mt_relay_zero_ports(relay);
    for (int i = 0; i < n_rank; ++i) {
        const int rank = (round + i) % n_rank;
        struct choice choice = {.group = 0};
        while (relay->first_stock[rank] >= 0 && relay->n_sent[rank] < MT_RELAY_PORTS &&
               choice.group >= 0) {
            choice = choose(relay, rank);
            if (choice.group >= 0) {
                send_chosen(relay, rank, round, &choice);
            }
        }
    }
    MT_ASSERT(relay->n_hop > first_hop); /* all ports were free, and somebody wants something */
    if (!relay->is_direct) {
        stock_up(relay, first_hop);
    }
}

int mt_relay_route_greedy(struct mt_relay *relay, int64_t n_copy)
{
    int n_round = 0;
    while (relay->n_hop < n_copy) {
        route_round(relay, n_round++);
    }
    return n_round;
}
