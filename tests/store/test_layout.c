/* Who owns what: properties of the layout for many tables and rank counts. No ranks needed. */
#include "base/memory.h"
#include "base/random.h"
#include "base/size.h"
#include "store/layout.h"
#include "store/world.h"
#include "support/test.h"

#include <string.h>

static struct mt_test_table small;

static void random_table(struct mt_test_table *table, uint64_t seed)
{
    mt_test_table_init(table);
    const int n_tensor = 1 + (int)(mt_random_u64(seed, 0, 0) % 20);
    const uint64_t n_bucket = 1 + mt_random_u64(seed, 0, 1) % 4;
    for (int t = 0; t < n_tensor; ++t) {
        const uint64_t shape = mt_random_u64(seed, 1, (uint64_t)t);
        const int64_t dim0 = 1 + (int64_t)(shape % 300);
        const int64_t dim1 = (int64_t)(shape / 300 % 400);
        mt_test_table_dense(table, (int)(shape / 120000 % n_bucket), dim0, dim1, false);
        if (shape % 7 == 0) {
            mt_test_table_layer(table, 1 + (int64_t)(shape % 9), 3, 5);
        }
    }
}

/* The parts of all ranks tile the tensor: ascending by start, every element once. */
static void check_tensor_is_tiled(const struct mt_layout *layout, int t)
{
    const struct mt_tensor *tensor = &layout->table->tensor[t];
    const int64_t n = mt_tensor_n_element(tensor);
    const int64_t row = mt_tensor_row_elements(tensor);
    int64_t n_owned = 0;
    for (int rank = 0; rank < layout->n_rank; ++rank) {
        const struct mt_range own = mt_layout_owned_part(layout, t, rank);
        assert_true(own.start >= 0 && own.start <= own.end && own.end <= n);
        assert_true(own.start % row == 0 && own.end % row == 0);
        if (own.start == own.end) {
            continue;
        }
        assert_int_equal(own.start % mt_layout_chunk_elements(tensor), 0);
        assert_int_equal(mt_layout_dense_owner(layout, t, own.start), rank);
        assert_int_equal(mt_layout_dense_owner(layout, t, own.end - 1), rank);
        assert_int_equal(mt_layout_dense_owner(layout, t, (own.start + own.end) / 2), rank);
        n_owned += own.end - own.start;
    }
    assert_int_equal(n_owned, n); /* with one owner per element: nothing twice, nothing missing */
}

static void check_ranges_tile_buckets(const struct mt_layout *layout)
{
    for (int b = 0; b < layout->table->n_bucket; ++b) {
        const int64_t n = layout->bucket_start[b + 1] - layout->bucket_start[b];
        int64_t total = 0;
        for (int rank = 0; rank < layout->n_rank; ++rank) {
            const struct mt_range range = mt_layout_owned_range(layout, b, rank);
            assert_true(range.start >= 0 && range.start <= range.end && range.end <= n);
            total += range.end - range.start;
        }
        assert_int_equal(total, n);
        assert_int_equal(n % MT_ALIGN_ELEMENTS, 0);
    }
}

static void check_table(const struct mt_test_table *table, int n_rank)
{
    struct mt_layout layout;
    MT_TEST_OK(mt_layout_init(&layout, &table->table, n_rank));
    check_ranges_tile_buckets(&layout);
    for (int t = 0; t < table->table.n_tensor; ++t) {
        if (table->row[t].kind == MT_TENSOR_DENSE) {
            assert_int_equal(layout.offset[t] % MT_ALIGN_ELEMENTS, 0);
            check_tensor_is_tiled(&layout, t);
        }
    }
    mt_layout_clear(&layout);
}

static void every_element_has_one_owner_on_1_to_64_ranks(void **state)
{
    MT_UNUSED(state);
    for (int n_rank = 1; n_rank <= 64; ++n_rank) {
        check_table(&small, n_rank);
    }
}

static void every_element_of_random_tables_has_one_owner(void **state)
{
    MT_UNUSED(state);
    static struct mt_test_table table;
    for (uint64_t seed = 0; seed < 200; ++seed) {
        random_table(&table, seed);
        check_table(&table, 1 + (int)(mt_random_u64(seed, 2, 0) % 64));
    }
}

/* Tensors of a bucket lie one behind the other in table order, apart by less than the alignment. */
static void tensors_of_a_bucket_do_not_overlap(void **state)
{
    MT_UNUSED(state);
    struct mt_layout layout;
    MT_TEST_OK(mt_layout_init(&layout, &small.table, 3));
    for (int b = 0; b < small.table.n_bucket; ++b) {
        int64_t end = 0;
        for (int t = 0; t < small.table.n_tensor; ++t) {
            if (small.row[t].kind != MT_TENSOR_DENSE || small.row[t].bucket != b) {
                continue;
            }
            assert_true(layout.offset[t] >= end && layout.offset[t] - end < MT_ALIGN_ELEMENTS);
            end = layout.offset[t] + mt_tensor_n_element(&small.row[t]);
        }
        assert_true(layout.bucket_start[b + 1] - layout.bucket_start[b] >= end);
    }
    mt_layout_clear(&layout);
}

static void chunk_numbers_do_not_depend_on_ranks(void **state)
{
    MT_UNUSED(state);
    struct mt_layout one;
    MT_TEST_OK(mt_layout_init(&one, &small.table, 1));
    /* embed 1, [40,5000] 14, 1, 1, 1, 1, 5 experts, 1, 5 experts, [3,20000] 3, 1, 1 */
    assert_int_equal(one.n_chunk, 35);
    for (int n_rank = 2; n_rank <= 64; ++n_rank) {
        struct mt_layout many;
        MT_TEST_OK(mt_layout_init(&many, &small.table, n_rank));
        assert_int_equal(many.n_chunk, one.n_chunk);
        assert_memory_equal(many.chunk_start, one.chunk_start,
                            (size_t)small.table.n_tensor * sizeof(int64_t));
        mt_layout_clear(&many);
    }
    mt_layout_clear(&one);
}

static void experts_share_one_chunk_for_their_three_matrices(void **state)
{
    MT_UNUSED(state);
    struct mt_layout layout;
    MT_TEST_OK(mt_layout_init(&layout, &small.table, 4));
    const int gate = layout.gate[1];
    assert_int_equal(layout.gate[0], -1);
    assert_int_equal(mt_layout_n_expert(&layout, 0), 0);
    assert_int_equal(mt_layout_n_expert(&layout, 1), 5);
    assert_int_equal(mt_layout_expert_elements(&layout, 1), 3 * 8 * 24);
    assert_int_equal(layout.chunk_start[gate], layout.chunk_start[gate + 2]);
    assert_int_equal(layout.chunk_start[gate + 3], layout.chunk_start[gate] + 5);
    assert_int_equal(layout.offset[gate], 0);
    assert_int_equal(layout.offset[gate + 1], 8 * 24);
    assert_int_equal(layout.offset[gate + 2], 2 * 8 * 24);
    mt_layout_clear(&layout);
}

/* No rank has more than its share and one chunk, padding included. */
static void ranges_are_balanced_to_one_chunk(void **state)
{
    MT_UNUSED(state);
    static struct mt_test_table table;
    mt_test_table_init(&table);
    mt_test_table_dense(&table, 0, 1000, 256, true);
    mt_test_table_dense(&table, 0, 256, 0, false);
    mt_test_table_dense(&table, 0, 512, 256, true);
    for (int n_rank = 1; n_rank <= 64; ++n_rank) {
        struct mt_layout layout;
        MT_TEST_OK(mt_layout_init(&layout, &table.table, n_rank));
        const int64_t share = mt_ceil_div(layout.bucket_start[1], n_rank);
        for (int rank = 0; rank < n_rank; ++rank) {
            const struct mt_range range = mt_layout_owned_range(&layout, 0, rank);
            assert_true(range.end - range.start <= share + MT_CHUNK_ELEMENTS);
        }
        mt_layout_clear(&layout);
    }
}

static void small_buckets_are_spread_over_the_ranks(void **state)
{
    MT_UNUSED(state);
    static struct mt_test_table table;
    enum { N_RANK = 8, N_BUCKET = 64 };
    int64_t n_owned[N_RANK] = {0};
    struct mt_layout layout;
    mt_test_table_init(&table);
    for (int b = 0; b < N_BUCKET; ++b) {
        mt_test_table_dense(&table, b, 16, 0, false);
    }
    MT_TEST_OK(mt_layout_init(&layout, &table.table, N_RANK));
    for (int b = 0; b < N_BUCKET; ++b) {
        for (int rank = 0; rank < N_RANK; ++rank) {
            const struct mt_range range = mt_layout_owned_range(&layout, b, rank);
            n_owned[rank] += range.end - range.start;
        }
    }
    for (int rank = 0; rank < N_RANK; ++rank) {
        assert_int_equal(n_owned[rank], 16 * N_BUCKET / N_RANK);
    }
    mt_layout_clear(&layout);
}

static void sizes_beyond_two_to_the_31_are_laid_out(void **state)
{
    MT_UNUSED(state);
    static struct mt_test_table table;
    mt_test_table_init(&table);
    mt_test_table_dense(&table, 0, (int64_t)1 << 20, (int64_t)1 << 20, true);
    mt_test_table_dense(&table, 0, (int64_t)1 << 20, 0, false);
    mt_test_table_layer(&table, 65536, (int64_t)1 << 20, (int64_t)1 << 20);
    for (int n_rank = 1; n_rank <= 64; n_rank += 21) {
        struct mt_layout layout;
        MT_TEST_OK(mt_layout_init(&layout, &table.table, n_rank));
        assert_int_equal(layout.n_chunk, ((int64_t)1 << 20) + 64 + 65536);
        assert_int_equal(mt_layout_expert_elements(&layout, 0), (int64_t)3 << 40);
        const struct mt_range range = mt_layout_owned_range(&layout, 0, n_rank - 1);
        assert_int_equal(range.end, ((int64_t)1 << 40) + ((int64_t)1 << 20));
        check_tensor_is_tiled(&layout, 0);
        mt_layout_clear(&layout);
    }
}

/* 64 layers of 65536 experts of 2^40 elements: 3 * 2^62 elements and more bytes. */
static void bytes_beyond_63_bits_are_refused(void **state)
{
    MT_UNUSED(state);
    static struct mt_test_table table;
    static struct mt_placement ownership[64];
    struct mt_store_bytes bytes;
    struct mt_device device;
    mt_device_init_plain(&device);
    mt_test_table_init(&table);
    for (int layer = 0; layer < 64; ++layer) {
        mt_test_table_layer(&table, 65536, (int64_t)1 << 20, (int64_t)1 << 20);
        MT_TEST_OK(mt_placement_init(&ownership[layer], 2, 65536, 65536));
    }
    const struct mt_store_options options = {.training = true, .ownership = ownership};
    MT_TEST_FAILS(mt_store_plan_bytes(&device, &table.table, &options, 2, &bytes), MT_ERR_RESOURCE,
                  "exceed 63 bits");
    for (int layer = 0; layer < 64; ++layer) {
        mt_placement_clear(&ownership[layer]);
    }
}

/* Rank 0 has 3 of 5 experts, and every rank has room for as many, since owners may change; rank 1
 * also has the one dense chunk (20 elements, padded to 32). A reduction stages 2
 * experts (MT_RELAY_PORTS), however many slots there are. */
static void planned_bytes_are_those_of_the_largest_rank(void **state)
{
    MT_UNUSED(state);
    static struct mt_test_table table;
    struct mt_placement ownership;
    struct mt_store_bytes bytes;
    struct mt_device device;
    mt_device_init_plain(&device);
    mt_test_table_init(&table);
    mt_test_table_dense(&table, 0, 20, 0, false);
    mt_test_table_layer(&table, 5, 4, 8); /* 96 elements an expert */
    MT_TEST_OK(mt_placement_init(&ownership, 2, 5, 5));
    const struct mt_store_options options = {
        .training = true, .n_slot = 3, .ownership = &ownership};
    MT_TEST_OK(mt_store_plan_bytes(&device, &table.table, &options, 2, &bytes));
    assert_int_equal(bytes.dense_value, 32 * 4);
    assert_int_equal(bytes.dense_grad, 32 * 4);
    assert_int_equal(bytes.dense_pack, 0);
    assert_int_equal(bytes.expert_value, 3 * 96 * 4);
    assert_int_equal(bytes.expert_grad, 3 * 96 * 4);
    const int64_t pack =
        2 * mt_weight_bytes(&device, 4, 8, true) + mt_weight_bytes(&device, 8, 4, true);
    assert_int_equal(bytes.expert_pack, 3 * pack);
    const int64_t copy = (int64_t)2 * 96 * 4; /* value and gradient */
    assert_int_equal(bytes.slots, 3 * (copy + pack));
    assert_int_equal(bytes.optimizer, 2 * (3 * 96 + 32) * 4);
    assert_int_equal(bytes.staging, (2 * 96 + 32) * 4);
    mt_placement_clear(&ownership);
}

/* Experts of `width` x `hidden` on R ranks. */
static void check_pieces(int64_t width, int64_t hidden, int n_rank)
{
    static struct mt_test_table table;
    struct mt_layout layout;
    mt_test_table_init(&table);
    mt_test_table_layer(&table, 3, width, hidden);
    MT_TEST_OK(mt_layout_init(&layout, &table.table, n_rank));
    const int64_t n = mt_layout_expert_elements(&layout, 0);
    const int64_t down = 2 * width * hidden;
    int64_t next = 0;
    for (int piece = 0; piece < n_rank; ++piece) {
        const struct mt_range range = mt_layout_piece(&layout, 0, piece);
        assert_int_equal(range.start, next);
        assert_true(range.end >= range.start);
        next = range.end;
        assert_int_equal(next <= down ? next % hidden : (next - down) % width, 0);
        /* an equal share, to a row at each end */
        assert_true(range.end - range.start <= n / n_rank + 1 + (width > hidden ? width : hidden));
        assert_true(range.end - range.start <= mt_layout_piece_stride(&layout));
        for (int64_t i = range.start; i < range.end; ++i) {
            assert_int_equal(mt_layout_piece_at(&layout, 0, i), piece);
        }
        for (int e = 0; e < 70; ++e) {
            const int owner = mt_layout_piece_owner(&layout, e, piece);
            assert_int_equal(owner, (piece + e) % n_rank);
            assert_int_equal(mt_layout_piece_of(&layout, e, owner), piece);
        }
    }
    assert_int_equal(next, n);
    mt_layout_clear(&layout);
}

static void pieces_are_whole_rows_of_nearly_equal_size(void **state)
{
    MT_UNUSED(state);
    for (int n_rank = 1; n_rank <= 64; ++n_rank) {
        check_pieces(8, 24, n_rank); /* 40 rows: some are empty beyond that */
        check_pieces(24, 5, n_rank);
        check_pieces(1, 1, n_rank);
        check_pieces(1, 9, n_rank);
    }
}

/* 5 experts of 96 elements in pieces of 48 on 2 ranks: rows of 8 (gate, up), then of 4. */
static void planned_bytes_of_cut_experts_are_a_piece_of_each(void **state)
{
    MT_UNUSED(state);
    static struct mt_test_table table;
    struct mt_placement ownership;
    struct mt_store_bytes bytes;
    struct mt_device device;
    mt_device_init_plain(&device);
    mt_test_table_init(&table);
    mt_test_table_layer(&table, 5, 4, 8);
    MT_TEST_OK(mt_placement_init(&ownership, 2, 5, 5));
    const struct mt_store_options options = {
        .training = true, .is_cut = true, .n_slot = 3, .ownership = &ownership};
    MT_TEST_OK(mt_store_plan_bytes(&device, &table.table, &options, 2, &bytes));
    assert_int_equal(bytes.expert_value, 5 * 48 * 4);
    assert_int_equal(bytes.expert_grad, 5 * 48 * 4);
    assert_int_equal(bytes.expert_pack, 0);
    const int64_t pack =
        2 * mt_weight_bytes(&device, 4, 8, true) + mt_weight_bytes(&device, 8, 4, true);
    assert_int_equal(bytes.slots, 3 * (2 * 96 * 4 + pack));
    assert_int_equal(bytes.optimizer, 2 * 5 * 48 * 4);
    assert_int_equal(bytes.staging, 3 * 48 * 4); /* from one peer: its 3 slots */
    mt_placement_clear(&ownership);
}

static int set_up(void **state)
{
    MT_UNUSED(state);
    mt_test_table_small(&small);
    return 0;
}

static int memory_is_balanced(void **state)
{
    MT_UNUSED(state);
    assert_int_equal(mt_memory_n_live(), 0);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_element_has_one_owner_on_1_to_64_ranks),
        cmocka_unit_test(every_element_of_random_tables_has_one_owner),
        cmocka_unit_test(tensors_of_a_bucket_do_not_overlap),
        cmocka_unit_test(chunk_numbers_do_not_depend_on_ranks),
        cmocka_unit_test(experts_share_one_chunk_for_their_three_matrices),
        cmocka_unit_test(ranges_are_balanced_to_one_chunk),
        cmocka_unit_test(small_buckets_are_spread_over_the_ranks),
        cmocka_unit_test(sizes_beyond_two_to_the_31_are_laid_out),
        cmocka_unit_test(bytes_beyond_63_bits_are_refused),
        cmocka_unit_test(planned_bytes_are_those_of_the_largest_rank),
        cmocka_unit_test(pieces_are_whole_rows_of_nearly_equal_size),
        cmocka_unit_test(planned_bytes_of_cut_experts_are_a_piece_of_each),
    };
    return cmocka_run_group_tests(tests, set_up, memory_is_balanced);
}
