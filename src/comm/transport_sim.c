/* Transport sim: R virtual ranks in one process, as unkind as MPI may be.
 *
 * A send and a receive of one (source, target, tag) meet in the order posted. Then the pair is in
 * flight, and every test delivers some of what is in flight, drawn from the seed. Nothing is
 * buffered: a send completes only when its receive exists, so that a plan which relies on buffering
 * gets stuck; data are read at delivery, so that a source changed too early shows; and a receive
 * fills its place with 0xff when posted (NaN as floats), so that reading too early shows.
 *
 *     post[slot]:  waiting in a queue of its (source, target) -> matched: flight[] -> delivered */
#include "comm/transport.h"

#include "base/memory.h"
#include "base/random.h"

#include <inttypes.h>
#include <string.h>

enum { NO_SLOT = -1, FIRST_CAPACITY = 256 };

struct sim_post {
    bool is_delivered;
    int tag;
    int64_t n_bytes;
    const char *source; /* of a send, else NULL */
    char *target;       /* of a receive, else NULL */
    int64_t next;       /* in its queue or in the list of free slots */
};

struct sim_queue {
    int64_t head, tail;
};

struct sim_flight {
    int64_t send, recv;
};

struct sim_world {
    int n_rank, n_open;
    uint64_t seed, n_draw;
    int64_t capacity, free_slot;
    struct sim_post *post;        /* [capacity] */
    struct sim_queue *send_queue; /* [R,R] by source, target: posted, no receive yet */
    struct sim_queue *recv_queue; /* [R,R] by source, target: posted, no send yet */
    int64_t n_flight;
    struct sim_flight *flight; /* [capacity / 2] */
};

struct transport_sim {
    struct mt_transport base; /* first: a transport points to it */
    struct sim_world *world;
    int rank;
    bool is_in_group;
};

static uint64_t draw(struct sim_world *world, uint64_t bound)
{
    return mt_random_u64(world->seed, 0, world->n_draw++) % bound;
}

static enum mt_status grow(struct sim_world *world)
{
    const int64_t capacity = world->capacity > 0 ? 2 * world->capacity : FIRST_CAPACITY;
    struct sim_post *post = NULL;
    struct sim_flight *flight = NULL;
    MT_TRY(MT_ALLOCATE(post, capacity, "transport sim"));
    const enum mt_status status = MT_ALLOCATE(flight, capacity / 2, "transport sim");
    if (status != MT_OK) {
        mt_memory_free(post);
        return status;
    }
    if (world->capacity > 0) {
        memcpy(post, world->post, (size_t)world->capacity * sizeof(*post));
        memcpy(flight, world->flight, (size_t)world->n_flight * sizeof(*flight));
    }
    mt_memory_free(world->post);
    mt_memory_free(world->flight);
    world->post = post;
    world->flight = flight;
    for (int64_t slot = capacity - 1; slot >= world->capacity; --slot) {
        post[slot].next = world->free_slot;
        world->free_slot = slot;
    }
    world->capacity = capacity;
    return MT_OK;
}

static enum mt_status take_slot(struct sim_world *world, struct sim_post post, int64_t *slot)
{
    if (world->free_slot == NO_SLOT) {
        MT_TRY(grow(world));
    }
    *slot = world->free_slot;
    world->free_slot = world->post[*slot].next;
    world->post[*slot] = post;
    world->post[*slot].next = NO_SLOT;
    return MT_OK;
}

static void queue_push(struct sim_world *world, struct sim_queue *queue, int64_t slot)
{
    if (queue->head == NO_SLOT) {
        queue->head = slot;
    } else {
        world->post[queue->tail].next = slot;
    }
    queue->tail = slot;
}

/* Takes out the first with this tag; NO_SLOT when there is none. */
static int64_t queue_pull(struct sim_world *world, struct sim_queue *queue, int tag)
{
    int64_t before = NO_SLOT;
    int64_t slot = queue->head;
    while (slot != NO_SLOT && world->post[slot].tag != tag) {
        before = slot;
        slot = world->post[slot].next;
    }
    if (slot == NO_SLOT) {
        return NO_SLOT;
    }
    const int64_t after = world->post[slot].next;
    if (before == NO_SLOT) {
        queue->head = after;
    } else {
        world->post[before].next = after;
    }
    if (queue->tail == slot) {
        queue->tail = before;
    }
    return slot;
}

static enum mt_status start_flight(struct sim_world *world, int64_t send, int64_t recv)
{
    const int64_t sent_bytes = world->post[send].n_bytes;
    const int64_t room_bytes = world->post[recv].n_bytes;
    if (sent_bytes != room_bytes) {
        return MT_FAIL(MT_ERR_INTERNAL,
                       "transport sim: a message of %" PRId64 " bytes meets a receive of %" PRId64
                       " under tag %d; both ends must agree; check the plan",
                       sent_bytes, room_bytes, world->post[send].tag);
    }
    world->flight[world->n_flight++] = (struct sim_flight){.send = send, .recv = recv};
    return MT_OK;
}

static struct transport_sim *sim_of(struct mt_transport *transport)
{
    return (struct transport_sim *)transport;
}

static void sim_group_begin(struct mt_transport *transport)
{
    MT_ASSERT(!sim_of(transport)->is_in_group);
    sim_of(transport)->is_in_group = true;
}

static enum mt_status sim_post_send(struct mt_transport *transport, int peer, int tag,
                                    const void *data, int64_t n_bytes, union mt_request *request)
{
    struct transport_sim *sim = sim_of(transport);
    struct sim_world *world = sim->world;
    MT_ASSERT(sim->is_in_group && peer >= 0 && peer < world->n_rank && data != NULL);
    MT_ASSERT(n_bytes > 0 && n_bytes <= MT_TRANSPORT_MAX_BYTES);
    const struct sim_post post = {.tag = tag, .n_bytes = n_bytes, .source = data};
    const int64_t pair = (int64_t)sim->rank * world->n_rank + peer;
    MT_TRY(take_slot(world, post, &request->sim));
    const int64_t recv = queue_pull(world, &world->recv_queue[pair], tag);
    if (recv != NO_SLOT) {
        return start_flight(world, request->sim, recv);
    }
    queue_push(world, &world->send_queue[pair], request->sim);
    return MT_OK;
}

static enum mt_status sim_post_recv(struct mt_transport *transport, int peer, int tag, void *data,
                                    int64_t n_bytes, union mt_request *request)
{
    struct transport_sim *sim = sim_of(transport);
    struct sim_world *world = sim->world;
    MT_ASSERT(sim->is_in_group && peer >= 0 && peer < world->n_rank && data != NULL);
    MT_ASSERT(n_bytes > 0 && n_bytes <= MT_TRANSPORT_MAX_BYTES);
    const struct sim_post post = {.tag = tag, .n_bytes = n_bytes, .target = data};
    const int64_t pair = (int64_t)peer * world->n_rank + sim->rank;
    memset(data, 0xff, (size_t)n_bytes);
    MT_TRY(take_slot(world, post, &request->sim));
    const int64_t send = queue_pull(world, &world->send_queue[pair], tag);
    if (send != NO_SLOT) {
        return start_flight(world, send, request->sim);
    }
    queue_push(world, &world->recv_queue[pair], request->sim);
    return MT_OK;
}

static enum mt_status sim_group_end(struct mt_transport *transport)
{
    MT_ASSERT(sim_of(transport)->is_in_group);
    sim_of(transport)->is_in_group = false;
    return MT_OK;
}

static void deliver_some(struct sim_world *world)
{
    if (world->n_flight == 0) {
        return;
    }
    const uint64_t n_delivery = 1 + draw(world, 1 + (uint64_t)world->n_flight / 4);
    for (uint64_t i = 0; i < n_delivery; ++i) {
        const uint64_t pick = draw(world, (uint64_t)world->n_flight);
        const struct sim_flight flight = world->flight[pick];
        struct sim_post *send = &world->post[flight.send];
        struct sim_post *recv = &world->post[flight.recv];
        memcpy(recv->target, send->source, (size_t)recv->n_bytes);
        send->is_delivered = true;
        recv->is_delivered = true;
        world->flight[pick] = world->flight[--world->n_flight];
    }
}

static enum mt_status sim_test(struct mt_transport *transport, union mt_request *request, int64_t n,
                               int64_t *n_done)
{
    struct sim_world *world = sim_of(transport)->world;
    MT_ASSERT(!sim_of(transport)->is_in_group);
    deliver_some(world);
    *n_done = 0;
    for (int64_t i = 0; i < n; ++i) {
        const int64_t slot = request[i].sim;
        if (slot != NO_SLOT && world->post[slot].is_delivered) {
            world->post[slot].next = world->free_slot;
            world->free_slot = slot;
            request[i].sim = NO_SLOT;
        }
        if (request[i].sim == NO_SLOT && *n_done == i) {
            *n_done = i + 1;
        }
    }
    return MT_OK;
}

static void world_destroy(struct sim_world *world)
{
    mt_memory_free(world->flight);
    mt_memory_free(world->recv_queue);
    mt_memory_free(world->send_queue);
    mt_memory_free(world->post);
    mt_memory_free(world);
}

static void sim_destroy(struct mt_transport *transport)
{
    struct transport_sim *sim = sim_of(transport);
    if (--sim->world->n_open == 0) {
        world_destroy(sim->world);
    }
    mt_memory_free(sim);
}

static const struct mt_transport_verbs sim_verbs = {.group_begin = sim_group_begin,
                                                    .post_send = sim_post_send,
                                                    .post_recv = sim_post_recv,
                                                    .group_end = sim_group_end,
                                                    .test = sim_test,
                                                    .destroy = sim_destroy};

static enum mt_status world_create(int n_rank, uint64_t seed, struct sim_world **out)
{
    enum mt_status status = MT_OK;
    struct sim_world *world = NULL;
    const int64_t n_pair = (int64_t)n_rank * n_rank;
    MT_TRY(MT_ALLOCATE(world, 1, "transport sim"));
    world->n_rank = n_rank;
    world->seed = seed;
    world->free_slot = NO_SLOT;
    MT_TRY_GOTO(MT_ALLOCATE(world->send_queue, n_pair, "transport sim"));
    MT_TRY_GOTO(MT_ALLOCATE(world->recv_queue, n_pair, "transport sim"));
    for (int64_t pair = 0; pair < n_pair; ++pair) {
        world->send_queue[pair] = (struct sim_queue){NO_SLOT, NO_SLOT};
        world->recv_queue[pair] = (struct sim_queue){NO_SLOT, NO_SLOT};
    }
    *out = world;
    return MT_OK;
cleanup:
    world_destroy(world);
    return status;
}

enum mt_status mt_transport_create_sim(int n_rank, uint64_t seed, struct mt_transport **out)
{
    struct sim_world *world = NULL;
    MT_ASSERT(n_rank >= 1);
    MT_TRY(world_create(n_rank, seed, &world));
    for (int rank = 0; rank < n_rank; ++rank) {
        struct transport_sim *sim = NULL;
        const enum mt_status status = MT_ALLOCATE(sim, 1, "transport sim");
        if (status != MT_OK && rank == 0) {
            world_destroy(world);
        }
        for (int made = 0; status != MT_OK && made < rank; ++made) {
            mt_transport_destroy(out[made]);
        }
        MT_TRY(status);
        *sim = (struct transport_sim){.base = {&sim_verbs}, .world = world, .rank = rank};
        ++world->n_open;
        out[rank] = &sim->base;
    }
    return MT_OK;
}
