/* The double of NCCL: its calls, strict about their order, and the faults that are asked for. */
#include "emulation/nccl_double.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace
{
enum { FIRST_TAG = 4000, LAG = 2 };

int world_rank()
{
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    return rank;
}

emu_nccl_fault read_fault()
{
    char what[32] = "";
    int rank = -1;
    emu_nccl_fault fault;
    const char *text = std::getenv("MT_EMULATED_NCCL");
    if (text != nullptr && std::sscanf(text, "%31s %d %d", what, &rank, &fault.number) >= 2 &&
        rank == world_rank()) {
        fault.what = what;
    }
    return fault;
}

/* What is between ncclGroupStart and ncclGroupEnd. */
int depth = 0;
std::shared_ptr<emu_nccl_state> group_state;
std::vector<emu_nccl_operation> group;

ncclResult_t refuse(emu_nccl_state *state, const char *words)
{
    state->words = words;
    emu_report("NCCL: %s", words);
    return ncclInvalidUsage;
}

bool is_stretch_of_both(const emu_nccl_operation &a, const emu_nccl_operation &b)
{
    const size_t a_bytes = a.count * emu_nccl_bytes(a.type);
    const size_t b_bytes = b.count * emu_nccl_bytes(b.type);
    const char *other = b.kind == EMU_SEND ? b.from : b.to;
    return a.to < other + b_bytes && other < a.to + a_bytes;
}

bool writes_what_it_needs()
{
    for (const emu_nccl_operation &a : group) {
        for (const emu_nccl_operation &b : group) {
            if (&a != &b && a.kind == EMU_RECV && is_stretch_of_both(a, b)) {
                return true;
            }
        }
    }
    return false;
}

/* Starts the launch; what it does is only in its stream when ncclCommGetAsyncError says so. */
ncclResult_t start_group()
{
    if (!group_state) {
        return ncclSuccess;
    }
    const std::shared_ptr<emu_nccl_state> state = group_state;
    const bool is_sound = !writes_what_it_needs();
    const cudaStream_t stream = group.front().stream;
    state->waiting = group;
    group.clear();
    group_state.reset();
    if (!is_sound) {
        return refuse(state.get(), "a group receives where it also sends or receives");
    }
    state->result = ncclInProgress;
    state->n_lag = LAG;
    if (std::find(state->streams.begin(), state->streams.end(), stream) == state->streams.end()) {
        state->streams.push_back(stream);
    }
    return ncclInProgress;
}

ncclResult_t add(ncclComm_t comm, const emu_nccl_operation &operation)
{
    emu_nccl_state *state = comm->state.get();
    if (state->result != ncclSuccess) {
        return state->result == ncclInProgress
                   ? refuse(state, "a call while another is in progress")
                   : state->result;
    }
    for (const char *at : {operation.from, static_cast<const char *>(operation.to)}) {
        if (at != nullptr && !emu_memory_is_device(at)) {
            return refuse(state, "a pointer that is not the device's");
        }
    }
    if (operation.peer == state->rank || operation.peer >= state->n_rank || operation.count == 0) {
        return refuse(state, "a message to nobody, to oneself, or of nothing");
    }
    if (operation.kind > EMU_RECV && depth > 0) {
        return refuse(state, "a collective in a group; here they are launched alone");
    }
    if ((group_state && group_state != comm->state) ||
        (!group.empty() && group.front().stream != operation.stream)) {
        return refuse(state, "a group over two communicators or streams");
    }
    group_state = comm->state;
    group.push_back(operation);
    return depth > 0 ? ncclSuccess : start_group();
}

void fail(emu_nccl_state *state, ncclResult_t result, const char *words)
{
    state->result = result;
    state->words = words;
}

/* A message to every peer. */
void tell_all(emu_nccl_state *state, int tag, const void *bytes, size_t n)
{
    const char *begin = static_cast<const char *>(bytes);
    for (int peer = 0; peer < state->n_rank; peer++) {
        if (peer != state->rank) {
            state->sent.push_back(
                emu_nccl_send(*state, peer, tag, std::vector<char>(begin, begin + n)));
        }
    }
}

/* One message from anybody. */
bool hear(const emu_nccl_state &state, int tag)
{
    int is_there = 0;
    char bytes[NCCL_UNIQUE_ID_BYTES];
    MPI_Status status;
    MPI_Iprobe(MPI_ANY_SOURCE, state.tag + tag, MPI_COMM_WORLD, &is_there, &status);
    if (is_there) {
        MPI_Recv(bytes, sizeof(bytes), MPI_BYTE, status.MPI_SOURCE, state.tag + tag, MPI_COMM_WORLD,
                 MPI_STATUS_IGNORE);
    }
    return is_there;
}

void go_on_connecting(emu_nccl_state *state)
{
    while (state->n_connected >= 0 && state->n_connected < state->n_rank - 1 &&
           hear(*state, EMU_TAG_CONNECT)) {
        state->n_connected++;
    }
    if (state->n_connected == state->n_rank - 1) {
        state->is_connected = true;
        state->result = ncclSuccess;
    }
}

void go_on(const std::shared_ptr<emu_nccl_state> &state)
{
    if (state->result < ncclInProgress && state->result != ncclSuccess) {
        return;
    }
    if (hear(*state, EMU_TAG_GONE)) {
        fail(state.get(), ncclRemoteError, "a peer has given up");
    } else if (!state->is_connected) {
        go_on_connecting(state.get());
    } else if (state->is_finalized) {
        for (const cudaStream_t stream : state->streams) {
            (void)cudaStreamQuery(stream);
            state->result = state->n_under_way == 0 ? ncclSuccess : ncclInProgress;
        }
    } else if (state->result == ncclInProgress && --state->n_lag <= 0) {
        state->result = ncclSuccess;
        emu_nccl_launch(state, state->waiting);
    }
}
}  // namespace

const emu_nccl_fault *emu_nccl_fault_here()
{
    static const emu_nccl_fault fault = read_fault();
    return &fault;
}

ncclResult_t ncclGetVersion(int *version)
{
    const emu_nccl_fault *fault = emu_nccl_fault_here();
    *version = fault->what == "version" ? fault->number : NCCL_VERSION_CODE;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    static int n_id = 0;
    std::memset(id, 0, sizeof(*id));
    std::memcpy(id->internal, &n_id, sizeof(n_id));
    n_id++;
    return emu_nccl_fault_here()->what == "id" ? ncclSystemError : ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int n_rank, ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    const emu_nccl_fault *fault = emu_nccl_fault_here();
    int number = 0;
    std::memcpy(&number, id.internal, sizeof(number));
    *comm = nullptr;
    if (fault->what == "refuse") {
        return ncclSystemError;
    }
    if (config->blocking != 0) {
        emu_report("NCCL: a communicator whose calls block");
        return ncclInvalidUsage;
    }
    *comm = new ncclComm{std::make_shared<emu_nccl_state>()};
    emu_nccl_state *state = (*comm)->state.get();
    state->tag = FIRST_TAG + number * EMU_N_TAG;
    state->number = number;
    state->rank = rank;
    state->n_rank = n_rank;
    if (fault->what == "lose") {
        fail(state, ncclSystemError, "a peer's address was lost on purpose");
    } else if (fault->what == "deaf") {
        state->n_connected = -1;
    } else {
        tell_all(state, EMU_TAG_CONNECT, id.internal, sizeof(id.internal));
    }
    return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error)
{
    const std::shared_ptr<emu_nccl_state> state = comm->state;
    go_on(state);
    *error = state->result;
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    emu_nccl_state *state = comm->state.get();
    if (state->result == ncclInProgress) {
        return refuse(state, "finalized while a call is in progress");
    }
    state->is_finalized = true;
    state->result = state->n_under_way == 0 ? ncclSuccess : ncclInProgress;
    return state->result;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    emu_nccl_state *state = comm->state.get();
    if (!state->is_finalized || state->n_under_way > 0) {
        return refuse(state, "destroyed before it was finalized");
    }
    for (const std::shared_ptr<emu_nccl_sent> &sent : state->sent) {
        MPI_Wait(&sent->request, MPI_STATUS_IGNORE);
    }
    delete comm;
    return ncclSuccess;
}

/* Peers hear of it where this rank had failed; those that fail with it need no news. */
ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    emu_nccl_state *state = comm->state.get();
    if (state->result != ncclSuccess && state->result != ncclInProgress &&
        state->result != ncclRemoteError) {
        tell_all(state, EMU_TAG_GONE, "", 1);
    }
    state->is_aborted = true;
    static std::vector<std::shared_ptr<emu_nccl_state>> gone; /* their messages may be on the way */
    gone.push_back(comm->state);
    delete comm;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    return result == ncclSystemError    ? "unhandled system error"
           : result == ncclRemoteError  ? "remote process exited or there was a network error"
           : result == ncclInvalidUsage ? "invalid usage"
                                        : "another error";
}

const char *ncclGetLastError(ncclComm_t comm)
{
    return comm != nullptr ? comm->state->words.c_str() : "";
}

ncclResult_t ncclGroupStart(void)
{
    depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void)
{
    if (depth == 0) {
        emu_report("NCCL: the end of a group that did not begin");
        return ncclInvalidUsage;
    }
    depth--;
    return depth == 0 ? start_group() : ncclSuccess;
}

ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream)
{
    return add(comm,
               {EMU_SEND, static_cast<const char *>(from), nullptr, count, type, peer, stream});
}

ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    return add(comm, {EMU_RECV, nullptr, static_cast<char *>(to), count, type, peer, stream});
}

ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream)
{
    return add(comm, {EMU_GATHER, static_cast<const char *>(from), static_cast<char *>(to), count,
                      type, -1, stream});
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream)
{
    (void)op;
    return add(comm, {EMU_ALL_REDUCE, static_cast<const char *>(from), static_cast<char *>(to),
                      count, type, -1, stream});
}

ncclResult_t ncclReduceScatter(const void *from, void *to, size_t count, ncclDataType_t type,
                               ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream)
{
    (void)op;
    return add(comm, {EMU_REDUCE_SCATTER, static_cast<const char *>(from), static_cast<char *>(to),
                      count, type, -1, stream});
}
