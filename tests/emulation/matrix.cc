/* What a warp does with matrices, fragment by fragment as dev.cuh has them, and copies to shared
 * memory that go on behind a thread. */
#include "emulation/fiber.h"
#include "emulation/machine.h"

#include <emulated_language.cuh>

#include <cstring>

namespace
{
/* What a lane brings to a multiplication. */
struct fragments {
    float *sum;
    const unsigned *a, *b;
};

/* What a lane brings to a load of matrices: where its words go, and its row of one of them. */
struct loading {
    unsigned *to;
    const uint16_t *row;
};

/* On its way to shared memory; from: NULL for zeros. */
struct copy {
    void *to;
    const void *from;
    size_t bytes;
};

/* That a thread of the block has not waited for. */
std::vector<copy> *copies_of(int thread)
{
    static std::vector<copy> all[EMU_MAX_THREAD];
    return &all[thread];
}

float element(const unsigned *words, int word, int k)
{
    return mt_bf16_float(uint16_t(words[word] >> (k % 2 * 16)));
}

/* Products are exact in float32; how the hardware sums them is not documented. */
void multiply(const void *const *given)
{
    const auto of = [given](int lane) { return static_cast<const fragments *>(given[lane]); };
    float a[16][16];         /* [row][k] */
    float b[16][8];          /* [k][column] */
    float sum[16][8] = {{}}; /* [row][column] */
    for (int i = 0; i < EMU_LANES; i++) {
        for (int k = 0; k < 4; k++) { /* neighbours in a word; words of k = 8 and on come later */
            const int at = i % 4 * 2 + k % 2 + k / 2 * 8;
            a[i / 4][at] = element(of(i)->a, k / 2 * 2, k);
            a[i / 4 + 8][at] = element(of(i)->a, k / 2 * 2 + 1, k);
            b[at][i / 4] = element(of(i)->b, k / 2, k);
        }
    }
    for (int i = 0; i < 16 * 16; i++) {
        for (int column = 0; column < 8; column++) {
            sum[i / 16][column] += a[i / 16][i % 16] * b[i % 16][column];
        }
    }
    for (int i = 0; i < EMU_LANES * 4; i++) {
        const int lane = i / 4;
        of(lane)->sum[i % 4] += sum[lane / 4 + i % 4 / 2 * 8][lane % 4 * 2 + i % 2];
    }
}

void load(const void *const *given, bool is_turned)
{
    const auto of = [given](int lane) { return static_cast<const loading *>(given[lane]); };
    for (int i = 0; i < EMU_LANES; i++) {
        const int g = i / 4;
        const int t = i % 4 * 2;
        for (int matrix = 0; matrix < 4; matrix++) {
            const auto at = [&](int row, int column) {
                return unsigned(of(8 * matrix + row)->row[column]);
            };
            of(i)->to[matrix] =
                is_turned ? at(t, g) | at(t + 1, g) << 16 : at(g, t) | at(g, t + 1) << 16;
        }
    }
}
}  // namespace

void emu_matrix_complete(enum emu_matrix operation, const void *const *given)
{
    if (operation == EMU_MULTIPLY) {
        multiply(given);
    } else {
        load(given, operation == EMU_LOAD_TURNED);
    }
}

void mt_emu_multiply_add(float *sum, const unsigned *a, const unsigned *b)
{
    const fragments mine = {sum, a, b};
    emu_matrix_operation(EMU_MULTIPLY, &mine);
}

void mt_emu_load_matrices(unsigned *to, const uint16_t *row, bool is_turned)
{
    const loading mine = {to, row};
    mt_emu_touch(row, 16, false, 16);
    emu_matrix_operation(is_turned ? EMU_LOAD_TURNED : EMU_LOAD, &mine);
}

/* From here to the wait the hardware may write at any time: written now for whoever reads without a
 * barrier, and unknown for whoever reads too early. */
void mt_emu_copy_async(void *to, const void *from, size_t bytes, bool is_there)
{
    const int thread = emu_current()->thread;
    const char *base = emu_shared_base();
    const char *at = static_cast<char *>(to);
    if (at < base || at >= base + EMU_SHARED_PART) {
        emu_report("a copy of thread %d is not to shared memory", thread);
    }
    if (is_there) {
        mt_emu_touch(from, bytes, false, bytes);
    }
    mt_emu_touch(to, bytes, true, bytes);
    std::memset(to, 0xff, bytes);
    emu_shared_declare(size_t(at - base), bytes);
    copies_of(thread)->push_back({to, is_there ? from : nullptr, bytes});
}

void mt_emu_copies_wait()
{
    std::vector<copy> *copies = copies_of(emu_current()->thread);
    for (const copy &one : *copies) {
        mt_emu_touch(one.to, one.bytes, true, one.bytes);
        if (one.from != nullptr) {
            std::memcpy(one.to, one.from, one.bytes);
        } else {
            std::memset(one.to, 0, one.bytes);
        }
    }
    copies->clear();
}

void emu_copies_end(int thread)
{
    if (!copies_of(thread)->empty()) {
        emu_note("thread %d ends before it has waited for its copies", thread);
    }
}

void emu_copies_forget(int thread)
{
    copies_of(thread)->clear();
}
