/* What the emulator makes of a warp's matrix instructions, and of copies that go on behind a
 * thread. */
#include "emulation/world.h"

#include <cmath>

namespace
{
float value_of(uint16_t bits)
{
    const uint32_t word = uint32_t(bits) << 16;
    float value = 0.0F;
    std::memcpy(&value, &word, sizeof(value));
    return value;
}

/* Every element of random matrices is where the fragments say, in every order of lanes. */
void a_matrix_instruction_multiplies(void **)
{
    uint16_t a[16 * 16];
    uint16_t b[16 * 8];
    float sum[16 * 8];
    for (int i = 0; i < 256; i++) {
        a[i] = uint16_t(0x3f00 + (i * 37 + i / 16 * 11) % 251); /* 0.5 to 2 */
        b[i % 128] = uint16_t((i % 3 == 0 ? 0xbf00 : 0x3f00) + i * 53 % 239);
        sum[i % 128] = float(i % 128) - 60.0F;
    }
    for (int i = 0; i < 6; i++) {
        order_by(i);
        world w = make_world();
        float *all[3] = {nullptr, nullptr, nullptr};
        const void *const host[3] = {sum, a, b};
        const size_t bytes[3] = {sizeof(sum), sizeof(a), sizeof(b)};
        for (int j = 0; j < 3; j++) {
            cudaMalloc(reinterpret_cast<void **>(&all[j]), bytes[j]);
            cudaMemcpy(all[j], host[j], bytes[j], cudaMemcpyHostToDevice);
        }
        bug_matrix(all[0], reinterpret_cast<uint16_t *>(all[1]),
                   reinterpret_cast<uint16_t *>(all[2]), i < 3 ? 31 : 32, w.stream);
        cudaStreamSynchronize(w.stream);
        float got[16 * 8] = {0.0F};
        if (i >= 3) {
            cudaMemcpy(got, all[0], sizeof(got), cudaMemcpyDeviceToHost);
        }
        for (int j = 0; i >= 3 && j < 128; j++) {
            double want = double(sum[j]);
            for (int k = 0; k < 16; k++) {
                want += double(value_of(a[j / 8 * 16 + k])) * double(value_of(b[k * 8 + j % 8]));
            }
            assert_true(std::fabs(double(got[j]) - want) < 1e-4);
        }
        for (float *memory : all) {
            cudaFree(memory);
        }
        expect_and_clear(&w, i >= 3 ? nullptr : "divergent mask");
    }
}

/* Element (row, column) of matrix i is 100 i + 8 row + column. */
void matrices_are_loaded_as_they_are_and_turned(void **)
{
    uint16_t rows[32 * 8];
    unsigned words[8][32];
    for (int i = 0; i < 256; i++) {
        rows[i] = uint16_t(i / 64 * 100 + i % 64);
    }
    for (int order = 0; order < 3; order++) {
        order_by(order);
        world w = make_world();
        uint16_t *in = nullptr;
        unsigned *out = nullptr;
        cudaMalloc(reinterpret_cast<void **>(&in), sizeof(rows));
        cudaMalloc(reinterpret_cast<void **>(&out), sizeof(words));
        cudaMemcpy(in, rows, sizeof(rows), cudaMemcpyHostToDevice);
        bug_load(out, in, w.stream);
        cudaStreamSynchronize(w.stream);
        cudaMemcpy(words, out, sizeof(words), cudaMemcpyDeviceToHost);
        for (unsigned i = 0; i < 4 * 32; i++) {
            const unsigned first = i / 32 * 100;
            const unsigned g = i % 32 / 4;
            const unsigned t = i % 4 * 2;
            const unsigned row = first + 8 * g + t;
            const unsigned column = first + 8 * t + g;
            assert_int_equal(words[i / 32][i % 32], row | (row + 1) << 16);
            assert_int_equal(words[4 + i / 32][i % 32], column | (column + 8) << 16);
        }
        cudaFree(in);
        cudaFree(out);
        expect_and_clear(&w, nullptr);
    }
}

void a_copy_that_nobody_waited_for_is_found(void **)
{
    for (int i = is_watched_by(MT_EMU_HISTORY) ? 0 : 3; i < 6; i++) {
        order_by(i);
        world w = make_world();
        bug_copies(w.b, w.a, i >= 3, w.stream);
        expect_and_clear(&w, i >= 3 ? nullptr : "not initialised");
    }
}
}  // namespace

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_matrix_instruction_multiplies),
        cmocka_unit_test(matrices_are_loaded_as_they_are_and_turned),
        cmocka_unit_test(a_copy_that_nobody_waited_for_is_found),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
