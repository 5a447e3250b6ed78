/* The double of the CUDA runtime: pinned memory of the host. */
#include "emulation/machine.h"

#include <cstdlib>

#include <map>
#include <mutex>

namespace
{
std::mutex turn;

std::map<char *, size_t> *pinned()
{
    static std::map<char *, size_t> *only = new std::map<char *, size_t>();
    return only;
}
}  // namespace

bool emu_is_pinned(const void *at, size_t bytes)
{
    const std::lock_guard<std::mutex> lock(turn);
    const char *begin = static_cast<const char *>(at);
    for (const auto &range : *pinned()) {
        if (begin >= range.first && begin + bytes <= range.first + range.second) {
            return true;
        }
    }
    return false;
}

cudaError_t cudaMallocHost(void **memory, size_t bytes)
{
    const std::lock_guard<std::mutex> lock(turn);
    *memory = std::malloc(bytes);
    (*pinned())[static_cast<char *>(*memory)] = bytes;
    return *memory != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFreeHost(void *memory)
{
    const std::lock_guard<std::mutex> lock(turn);
    if (pinned()->erase(static_cast<char *>(memory)) == 0 && memory != nullptr) {
        emu_report("free of %p, which is no pinned memory", memory);
        return cudaErrorInvalidValue;
    }
    std::free(memory);
    return cudaSuccess;
}
