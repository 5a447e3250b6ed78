/* A cluster of clockwork: what plans of all ranks take where messages behave as alpha and beta say.
 * Links to other nodes carry a byte after the other in each direction, a node's for all its ranks
 * together, or each rank has its own; inside a node every rank has a port of its own. A message
 * that has crossed waits for its turn on the core that all ranks share, if they do, and takes alpha
 * at its target, one after another. Whoever enters a round sends at once and leaves it when its own
 * sends have left and all that it receives is there. Copies and adds take no time. Integers only:
 * the same on every machine. */
#ifndef MT_TEST_COMM_CLOCKWORK_H
#define MT_TEST_COMM_CLOCKWORK_H

#include "comm/collectives.h"

struct clockwork {
    const struct mt_topology *topology;
    int64_t inside_alpha_ps, inside_byte_ps;   /* a rank's port */
    int64_t between_alpha_ps, between_byte_ps; /* of a link to other nodes, a direction */
    bool is_link_own;                          /* each rank's; else its node's */
    int64_t turn_ps; /* of the one core that all ranks share, for a message; 0: cores are free */
};

/* plans [R]; until the last rank is done. */
int64_t clockwork_ps(const struct clockwork *clockwork, const struct mt_plan *plans);

#endif
