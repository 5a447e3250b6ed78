#include "comm/clockwork.h"

#include "support/test.h"

#include "base/memory.h"
#include "base/size.h"

#include <string.h>

enum { MAX_RANK = 64, MAX_ROUND = 512 };

/* In the order of time; at the same time in that of their making. A rank enters a round; a message
 * takes its turn on the way out, then on the way in, of its nodes or inside of its ranks; then it
 * takes alpha. */
enum event_kind { ENTERS, LEAVES, CROSSES, ARRIVES };
struct event {
    int64_t at_ps, number;
    enum event_kind kind;
    int source, target, round;
    int64_t n_bytes;
};

struct rank_state {
    int64_t next_op, n_unsent, sent_ps;
    int round; /* at hand; n_round: done */
    bool has_entered;
    int64_t n_wanted[MAX_ROUND], n_there[MAX_ROUND], there_ps[MAX_ROUND];
};

static struct {
    const struct clockwork *clockwork;
    const struct mt_plan *plans;
    struct rank_state rank[MAX_RANK];
    int64_t link_out_ps[MAX_RANK], link_in_ps[MAX_RANK]; /* of nodes or ranks: free from then on */
    int64_t out_ps[MAX_RANK], in_ps[MAX_RANK];           /* of ranks inside their nodes */
    int64_t port_ps[2][MAX_RANK];                        /* of ranks: alphas, inside or not */
    int64_t core_ps;
    struct event *heap;
    int64_t n_event, n_made, end_ps;
} state;

static bool is_before(const struct event *a, const struct event *b)
{
    return a->at_ps != b->at_ps ? a->at_ps < b->at_ps : a->number < b->number;
}

static void push(struct event event)
{
    int64_t at = state.n_event++;
    event.number = state.n_made++;
    while (at > 0 && is_before(&event, &state.heap[(at - 1) / 2])) {
        state.heap[at] = state.heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    state.heap[at] = event;
}

static struct event pop(void)
{
    const struct event first = state.heap[0];
    const struct event last = state.heap[--state.n_event];
    int64_t at = 0;
    for (int64_t child = 1; child < state.n_event; child = 2 * at + 1) {
        if (child + 1 < state.n_event && is_before(&state.heap[child + 1], &state.heap[child])) {
            ++child;
        }
        if (!is_before(&state.heap[child], &last)) {
            break;
        }
        state.heap[at] = state.heap[child];
        at = child;
    }
    state.heap[at] = last;
    return first;
}

static int64_t book(int64_t *free_ps, int64_t from_ps, int64_t duration_ps)
{
    *free_ps = mt_max_i64(*free_ps, from_ps) + duration_ps;
    return *free_ps;
}

static bool is_inside(int source, int target)
{
    const int *node = state.clockwork->topology->node;
    return node[source] == node[target];
}

/* Which link to other nodes is the rank's. */
static int link_of(int rank)
{
    return state.clockwork->is_link_own ? rank : state.clockwork->topology->node[rank];
}

static int64_t duration_of(int source, int target, int64_t n_bytes)
{
    return n_bytes * (is_inside(source, target) ? state.clockwork->inside_byte_ps
                                                : state.clockwork->between_byte_ps);
}

/* A rank that has all it waits for goes on to the next round. */
static void leave_round(int rank)
{
    struct rank_state *own = &state.rank[rank];
    if (!own->has_entered || own->n_unsent > 0 ||
        own->n_there[own->round] < own->n_wanted[own->round]) {
        return;
    }
    const int64_t at_ps = mt_max_i64(own->sent_ps, own->there_ps[own->round]);
    own->has_entered = false;
    ++own->round;
    if (own->round < state.plans[rank].n_round) {
        push((struct event){.at_ps = at_ps, .kind = ENTERS, .source = rank});
    }
    state.end_ps = mt_max_i64(state.end_ps, at_ps);
}

/* The n-th message of a round is handed to the link n ps later, so that ranks take turns. */
static void enter_round(int rank, int64_t now_ps)
{
    const struct mt_plan *plan = &state.plans[rank];
    struct rank_state *own = &state.rank[rank];
    own->has_entered = true;
    own->sent_ps = now_ps;
    for (; own->next_op < plan->n_op && plan->op[own->next_op].round == own->round;
         ++own->next_op) {
        const struct mt_op *op = &plan->op[own->next_op];
        if (op->kind == MT_OP_SEND) {
            push((struct event){.at_ps = now_ps + own->n_unsent,
                                .kind = LEAVES,
                                .source = rank,
                                .target = op->peer,
                                .round = op->round,
                                .n_bytes = op->n_bytes});
            ++own->n_unsent;
        }
    }
    leave_round(rank);
}

static void leave(struct event message)
{
    const int source = message.source;
    struct rank_state *own = &state.rank[source];
    int64_t *out_ps = is_inside(source, message.target) ? &state.out_ps[source]
                                                        : &state.link_out_ps[link_of(source)];
    const int64_t duration = duration_of(source, message.target, message.n_bytes);
    own->sent_ps = mt_max_i64(own->sent_ps, book(out_ps, message.at_ps, duration));
    message.at_ps = *out_ps - duration; /* bytes pass through */
    message.kind = CROSSES;
    push(message);
    --own->n_unsent;
    leave_round(source);
}

static void cross(struct event message)
{
    const int target = message.target;
    int64_t *in_ps = is_inside(message.source, target) ? &state.in_ps[target]
                                                       : &state.link_in_ps[link_of(target)];
    message.at_ps =
        book(in_ps, message.at_ps, duration_of(message.source, target, message.n_bytes));
    message.kind = ARRIVES;
    push(message);
}

static void arrive(const struct event *message)
{
    const bool inside = is_inside(message->source, message->target);
    struct rank_state *target = &state.rank[message->target];
    const int64_t turn_ps = book(&state.core_ps, message->at_ps, state.clockwork->turn_ps);
    const int64_t there_ps =
        book(&state.port_ps[inside][message->target],
             state.clockwork->turn_ps > 0 ? turn_ps : message->at_ps,
             inside ? state.clockwork->inside_alpha_ps : state.clockwork->between_alpha_ps);
    int64_t *last_ps = &target->there_ps[message->round];
    ++target->n_there[message->round];
    *last_ps = mt_max_i64(*last_ps, there_ps);
    if (message->round == target->round) {
        leave_round(message->target);
    }
}

int64_t clockwork_ps(const struct clockwork *clockwork, const struct mt_plan *plans)
{
    const int n_rank = clockwork->topology->n_rank;
    int64_t n_op = n_rank;
    assert_true(n_rank <= MAX_RANK);
    memset(&state, 0, sizeof(state));
    state.clockwork = clockwork;
    state.plans = plans;
    for (int rank = 0; rank < n_rank; ++rank) {
        assert_true(plans[rank].n_round <= MAX_ROUND);
        n_op += plans[rank].n_op;
        for (int64_t i = 0; i < plans[rank].n_op; ++i) {
            const struct mt_op *op = &plans[rank].op[i];
            state.rank[rank].n_wanted[op->round] += op->kind == MT_OP_RECV ? 1 : 0;
        }
    }
    MT_TEST_OK(MT_ALLOCATE(state.heap, n_op, "test"));
    for (int rank = 0; rank < n_rank; ++rank) {
        if (plans[rank].n_round > 0) {
            push((struct event){.kind = ENTERS, .source = rank});
        }
    }
    while (state.n_event > 0) {
        const struct event event = pop();
        if (event.kind == ENTERS) {
            enter_round(event.source, event.at_ps);
        } else if (event.kind == LEAVES) {
            leave(event);
        } else if (event.kind == CROSSES) {
            cross(event);
        } else {
            arrive(&event);
        }
    }
    for (int rank = 0; rank < n_rank; ++rank) {
        assert_int_equal(state.rank[rank].round, plans[rank].n_round); /* nobody is stuck */
    }
    mt_memory_free(state.heap);
    return state.end_ps;
}
