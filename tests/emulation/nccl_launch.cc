/* The double of NCCL: launches. One is two operations of its stream: messages leave, and, once all
 * that it receives is there and all that it sends is taken, what came is written. */
#include "emulation/nccl_double.h"

#include <algorithm>
#include <cstring>

namespace
{
struct message {
    int peer;
    emu_nccl_head head; /* as this side has it */
    std::vector<char> bytes;
    char *to; /* NULL: an addend */
    bool is_there;
};

struct launch {
    std::shared_ptr<emu_nccl_state> state;
    std::vector<emu_nccl_operation> group;
    std::vector<uint64_t> order; /* of what each operation sends, by peer */
    std::vector<message> in;
    std::vector<std::shared_ptr<emu_nccl_sent>> out;
    bool hangs = false;
};

/* Messages to and from each rank so far, over all communicators. */
uint64_t *order_of(std::vector<uint64_t> *orders, int peer)
{
    orders->resize(std::max(orders->size(), size_t(peer) + 1));
    return &(*orders)[size_t(peer)];
}

std::vector<uint64_t> sent_order, received_order;

bool is_read(const emu_actor *actor, const char *at, size_t bytes)
{
    return bytes == 0 || emu_memory_touch(actor, at, bytes, false);
}

/* What a rank sends to `peer`; a scatter of sums has a block for each. */
const char *block_for(const emu_nccl_operation &operation, int peer)
{
    const size_t bytes = operation.count * emu_nccl_bytes(operation.type);
    return operation.from + (operation.kind == EMU_REDUCE_SCATTER ? size_t(peer) * bytes : 0);
}

void send(launch *l, const emu_nccl_operation &operation, int peer, uint64_t order,
          const emu_actor *actor)
{
    const size_t n = operation.count * emu_nccl_bytes(operation.type);
    const emu_nccl_head head = {order, operation.count, operation.kind, operation.type,
                                emu_stream_now_ns(operation.stream)};
    std::vector<char> bytes(sizeof(head) + n);
    if (!is_read(actor, block_for(operation, peer), n)) {
        return;
    }
    std::memcpy(bytes.data(), &head, sizeof(head));
    std::memcpy(bytes.data() + sizeof(head), emu_memory_inside(block_for(operation, peer)), n);
    l->out.push_back(emu_nccl_send(*l->state, peer, EMU_TAG_DATA, std::move(bytes)));
}

void leave(launch *l, const emu_actor *actor)
{
    size_t next = 0;
    for (const emu_nccl_operation &operation : l->group) {
        if (operation.kind == EMU_SEND && !l->hangs) {
            send(l, operation, operation.peer, l->order[next++], actor);
        }
        for (int peer = 0; operation.kind > EMU_RECV && peer < l->state->n_rank; peer++) {
            if (peer != l->state->rank && !l->hangs) {
                send(l, operation, peer, l->order[next++], actor);
            }
        }
    }
}

void compare(const message &m, const emu_nccl_head &theirs, size_t bytes)
{
    const emu_nccl_head &mine = m.head;
    if (theirs.order != mine.order) {
        emu_report("message %llu of rank %d meets receive %llu: launches in another order",
                   (unsigned long long)theirs.order, m.peer, (unsigned long long)mine.order);
    } else if (theirs.kind != mine.kind) {
        emu_report("rank %d launches a collective of kind %d where here is one of %d", m.peer,
                   theirs.kind, mine.kind);
    } else if (theirs.count != mine.count || theirs.type != mine.type) {
        emu_report("rank %d sends %llu of type %d where %llu of type %d are received", m.peer,
                   (unsigned long long)theirs.count, theirs.type, (unsigned long long)mine.count,
                   mine.type);
    } else if (bytes != m.bytes.size()) {
        emu_report("a message of %zu bytes is cut to %zu", m.bytes.size(), bytes);
    }
}

/* True: it is there, or never will be. */
bool receive(const emu_nccl_state &state, message *m)
{
    int is_there = 0;
    int n = 0;
    MPI_Message handle = MPI_MESSAGE_NULL;
    MPI_Status status;
    MPI_Improbe(m->peer, state.tag + EMU_TAG_DATA, MPI_COMM_WORLD, &is_there, &handle, &status);
    if (!is_there) {
        return false;
    }
    MPI_Get_count(&status, MPI_BYTE, &n);
    std::vector<char> all(static_cast<size_t>(n));
    MPI_Mrecv(all.data(), n, MPI_BYTE, &handle, MPI_STATUS_IGNORE);
    emu_nccl_head head;
    std::memcpy(&head, all.data(), sizeof(head));
    compare(*m, head, all.size() - sizeof(head));
    m->head.sent_ns = head.sent_ns;
    const size_t bytes = std::min(m->bytes.size(), all.size() - sizeof(head));
    std::memcpy(m->bytes.data(), all.data() + sizeof(head), bytes);
    m->is_there = true;
    return true;
}

/* Messages of one rank come in their order. */
bool is_complete(launch *l)
{
    std::vector<bool> is_missing(size_t(l->state->n_rank));
    bool is_all = true;
    for (message &m : l->in) {
        const size_t peer = size_t(m.peer);
        if (!m.is_there && (is_missing[peer] || !receive(*l->state, &m))) {
            is_missing[peer] = true;
            is_all = false;
        }
    }
    for (const std::shared_ptr<emu_nccl_sent> &sent : l->out) {
        int is_taken = 1;
        if (sent->request != MPI_REQUEST_NULL) {
            MPI_Test(&sent->request, &is_taken, MPI_STATUS_IGNORE);
        }
        is_all = is_all && is_taken;
    }
    return is_all && !l->hangs;
}

void write(const emu_actor *actor, char *to, const char *from, size_t bytes)
{
    if (bytes > 0 && emu_memory_touch(actor, to, bytes, true)) {
        std::memcpy(emu_memory_inside(to), from, bytes);
    }
}

template <typename T> T sum_of(const std::vector<const char *> &block, size_t i)
{
    T sum = 0;
    for (size_t k = 0; k < block.size(); k++) { /* in an order of the element's own */
        T value;
        std::memcpy(&value, block[(i + k + 1) % block.size()] + i * sizeof(T), sizeof(T));
        sum += value;
    }
    return sum;
}

void write_sums(const launch &l, const emu_nccl_operation &operation, const emu_actor *actor)
{
    const size_t n = operation.count * emu_nccl_bytes(operation.type);
    const char *own = block_for(operation, l.state->rank);
    std::vector<const char *> block;
    std::vector<char> sum(n);
    if (!is_read(actor, own, n)) {
        return;
    }
    size_t next = 0;
    for (int rank = 0; rank < l.state->n_rank; rank++) {
        const bool is_own = rank == l.state->rank;
        block.push_back(is_own ? static_cast<const char *>(emu_memory_inside(own))
                               : l.in[next++].bytes.data());
    }
    for (size_t i = 0; i < operation.count; i++) {
        if (operation.type == ncclFloat32) {
            const float value = sum_of<float>(block, i);
            std::memcpy(&sum[i * sizeof(value)], &value, sizeof(value));
        } else {
            const int64_t value = sum_of<int64_t>(block, i);
            std::memcpy(&sum[i * sizeof(value)], &value, sizeof(value));
        }
    }
    write(actor, operation.to, sum.data(), n);
}

void arrive(const launch &l, const emu_actor *actor)
{
    for (const message &m : l.in) {
        emu_stream_delay(l.group.front().stream, m.head.sent_ns);
        if (m.to != nullptr) {
            write(actor, m.to, m.bytes.data(), m.bytes.size());
        }
    }
    for (const emu_nccl_operation &operation : l.group) {
        const size_t n = operation.count * emu_nccl_bytes(operation.type);
        if (operation.kind == EMU_GATHER && is_read(actor, operation.from, n)) {
            write(actor, operation.to + size_t(l.state->rank) * n,
                  static_cast<const char *>(emu_memory_inside(operation.from)), n);
        } else if (operation.kind > EMU_GATHER) {
            write_sums(l, operation, actor);
        }
    }
}

void expect(launch *l, const emu_nccl_operation &operation, int peer)
{
    const size_t n = operation.count * emu_nccl_bytes(operation.type);
    const int kind = operation.kind == EMU_RECV ? EMU_SEND : operation.kind;
    const emu_nccl_head head = {++*order_of(&received_order, peer), operation.count, kind,
                                operation.type, 0};
    char *to = operation.kind == EMU_RECV     ? operation.to
               : operation.kind == EMU_GATHER ? operation.to + size_t(peer) * n
                                              : nullptr;
    l->in.push_back({peer, head, std::vector<char>(n), to, false});
}

/* The place of each message among those of its pair is that of the call. */
void number(launch *l)
{
    for (const emu_nccl_operation &operation : l->group) {
        if (operation.kind == EMU_SEND) {
            l->order.push_back(++*order_of(&sent_order, operation.peer));
        } else if (operation.kind == EMU_RECV) {
            expect(l, operation, operation.peer);
        }
        for (int peer = 0; operation.kind > EMU_RECV && peer < l->state->n_rank; peer++) {
            if (peer != l->state->rank) {
                l->order.push_back(++*order_of(&sent_order, peer));
                expect(l, operation, peer);
            }
        }
    }
}
}  // namespace

size_t emu_nccl_bytes(ncclDataType_t type)
{
    return type == ncclInt64 ? 8 : type == ncclInt8 ? 1 : 4;
}

std::shared_ptr<emu_nccl_sent> emu_nccl_send(const emu_nccl_state &state, int peer, int tag,
                                             std::vector<char> bytes)
{
    std::shared_ptr<emu_nccl_sent> sent(new emu_nccl_sent());
    sent->bytes = std::move(bytes);
    MPI_Issend(sent->bytes.data(), int(sent->bytes.size()), MPI_BYTE, peer, state.tag + tag,
               MPI_COMM_WORLD, &sent->request);
    return sent;
}

static int64_t sent_bytes(const launch &l)
{
    int64_t n_bytes = 0;
    for (const emu_nccl_operation &operation : l.group) {
        const int64_t n_block = operation.kind == EMU_SEND   ? 1
                                : operation.kind == EMU_RECV ? 0
                                                             : l.state->n_rank - 1;
        n_bytes += n_block * int64_t(operation.count * emu_nccl_bytes(operation.type));
    }
    return n_bytes;
}

void emu_nccl_launch(const std::shared_ptr<emu_nccl_state> &state,
                     const std::vector<emu_nccl_operation> &group)
{
    static int n_launch = 0;
    const emu_nccl_fault *fault = emu_nccl_fault_here();
    std::shared_ptr<launch> l(new launch());
    n_launch++;
    l->state = state;
    l->group = group;
    l->hangs = fault->what == "hang" && n_launch == fault->number;
    if (fault->what == "break" && n_launch == fault->number) {
        state->result = ncclSystemError;
        state->words = "a connection was lost on purpose";
        return;
    }
    number(l.get());
    state->n_under_way++;
    const cudaStream_t stream = group.front().stream;
    emu_enqueue(stream, [l](const emu_actor *actor) { leave(l.get(), actor); });
    emu_enqueue_when(
        stream, [l]() { return l->state->is_aborted || emu_has_error() || is_complete(l.get()); },
        [l](const emu_actor *actor) {
            static std::vector<std::shared_ptr<launch>> given_up; /* MPI may still read them */
            l->state->n_under_way--;
            if (l->state->is_aborted || emu_has_error()) {
                given_up.push_back(l);
                return;
            }
            arrive(*l, actor);
        });
    emu_note_transfer(stream, state->number % EMU_COMMUNICATORS, sent_bytes(*l));
}
