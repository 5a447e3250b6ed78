/* The double of NCCL: what its calls (nccl.cc) and its launches (nccl_launch.cc) know of each
 * other.
 *
 * Each process of an MPI job has an emulated device of its own; launches are work of an emulated
 * stream and meet those of the other processes over MPI. Nothing moves before the stream gets
 * there, and nothing that has been launched holds up other streams.
 *
 * Found beyond what emulator.h lists: host pointers; a group whose receives write what it also
 * sends or receives; messages whose kinds, sizes or types differ on the two sides; ranks that
 * launch in different orders, over all communicators together; calls on a communicator that is
 * still busy with the last one; a communicator that is destroyed before it is finalized. */
#ifndef MT_EMULATION_NCCL_DOUBLE_H
#define MT_EMULATION_NCCL_DOUBLE_H

#include "emulation/machine.h"

#include <mpi.h>
#include <nccl.h>

#include <memory>
#include <string>
#include <vector>

enum emu_nccl_kind { EMU_SEND, EMU_RECV, EMU_GATHER, EMU_REDUCE_SCATTER, EMU_ALL_REDUCE };

struct emu_nccl_operation {
    enum emu_nccl_kind kind;
    const char *from;
    char *to;
    size_t count;
    ncclDataType_t type;
    int peer;
    cudaStream_t stream;
};

/* What goes before the bytes of a message. */
struct emu_nccl_head {
    uint64_t order; /* among all messages of the pair in this direction */
    uint64_t count;
    int32_t kind, type;
    int64_t sent_ns; /* by the device's clock, which devices of one machine share */
};

struct emu_nccl_sent {
    MPI_Request request = MPI_REQUEST_NULL;
    std::vector<char> bytes;
};

/* Tags of a communicator: its own, for connecting, for its messages, for bad news. */
enum { EMU_TAG_CONNECT, EMU_TAG_DATA, EMU_TAG_GONE, EMU_N_TAG };

/* Shared by the handle and by launches that are under way. */
struct emu_nccl_state {
    int tag = 0;
    int number = 0; /* among the communicators of the process */
    int rank = 0, n_rank = 0;
    ncclResult_t result = ncclInProgress;
    int n_lag = 0;       /* questions until the last call counts as done */
    int n_connected = 0; /* peers heard of; -1: never will be */
    int n_under_way = 0; /* launches */
    bool is_connected = false, is_finalized = false, is_aborted = false;
    std::string words; /* of the last error */
    std::vector<cudaStream_t> streams;
    std::vector<emu_nccl_operation> waiting; /* launched by the last call, not in its stream yet */
    std::vector<std::shared_ptr<emu_nccl_sent>> sent; /* but those of launches */
};

struct ncclComm {
    std::shared_ptr<emu_nccl_state> state;
};

/* Asked of the environment, MT_EMULATED_NCCL="WHAT RANK NUMBER", to happen on that rank:
 *     version r v   the library has version v
 *     id r          no unique id
 *     refuse r      connecting fails at once
 *     lose r        connecting fails on the way
 *     deaf r        connecting never ends
 *     break r n     launch n, counted from 1, fails
 *     hang r n      launch n never ends */
struct emu_nccl_fault {
    std::string what;
    int number = 0;
};
/* Empty on all other ranks. */
const emu_nccl_fault *emu_nccl_fault_here();

size_t emu_nccl_bytes(ncclDataType_t type);
/* Complete when the receiver has it. */
std::shared_ptr<emu_nccl_sent> emu_nccl_send(const emu_nccl_state &state, int peer, int tag,
                                             std::vector<char> bytes);
/* Work of the operations' stream. */
void emu_nccl_launch(const std::shared_ptr<emu_nccl_state> &state,
                     const std::vector<emu_nccl_operation> &group);

#endif
