/* What the emulator's own tests have in common: two streams, two arrays, and the error that is
 * expected of them. */
#ifndef MT_EMULATION_WORLD_H
#define MT_EMULATION_WORLD_H

#include "emulation/bugs.h"
#include "emulation/emulator.h"
#include "emulation/watch.h"

#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstring>

extern "C" {
#include <cmocka.h>
}

/* Whether this build finds what these do. */
inline bool is_watched_by(int watches)
{
    return (emu_watch() & watches) != 0;
}

struct world {
    cudaStream_t stream, other;
    float *a, *b; /* device [64], of which a is initialised */
};

inline void order_by(int i)
{
    emu_set_order(static_cast<enum emu_order>(i % 3), 17 + uint64_t(i));
}

inline world make_world()
{
    world w = {};
    float ones[64];
    for (float &one : ones) {
        one = 1.0F;
    }
    cudaStreamCreateWithFlags(&w.stream, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&w.other, cudaStreamNonBlocking);
    cudaMalloc(reinterpret_cast<void **>(&w.a), sizeof(ones));
    cudaMalloc(reinterpret_cast<void **>(&w.b), sizeof(ones));
    cudaMemcpy(w.a, ones, sizeof(ones), cudaMemcpyHostToDevice);
    return w;
}

/* Waits for everything, then the first error is about `part`; NULL: there is none. */
inline void expect_and_clear(world *w, const char *part)
{
    cudaDeviceSynchronize();
    const char *error = emu_take_error();
    if (part == nullptr) {
        if (error != nullptr) {
            fail_msg("unexpected: %s", error);
        }
    } else if (error == nullptr || std::strstr(error, part) == nullptr) {
        fail_msg("expected \"%s\", got: %s", part, error != nullptr ? error : "nothing");
    }
    cudaFree(w->a);
    cudaFree(w->b);
    cudaStreamDestroy(w->stream);
    cudaStreamDestroy(w->other);
    assert_null(emu_take_error());
}

#endif
