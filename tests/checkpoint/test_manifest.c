/* The manifest alone, without ranks or files: what is written reads back, and nothing that is not
 * such a text gets through, whatever its checksum says. */
#include "base/memory.h"
#include "base/random.h"
#include "checkpoint/manifest.h"
#include "support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

enum { MAX_TEXT = 1 << 16 };

/* Two shards; [10,4] in three pieces, [1] in one, cut [2,7,6] in three. */
static void make_manifest(struct mt_manifest *manifest)
{
    static const struct mt_manifest_piece piece[7] = {
        {.shard = 1, .first_row = 0, .n_row = 4}, {.shard = 0, .first_row = 4, .n_row = 5},
        {.shard = 1, .first_row = 9, .n_row = 1}, {.shard = 0, .first_row = 0, .n_row = 1},
        {.shard = 0, .first_row = 0, .n_row = 3}, {.shard = 1, .first_row = 3, .n_row = 4},
        {.shard = 1, .first_row = 7, .n_row = 7}};
    MT_TEST_OK(mt_manifest_init(manifest, 2, 1, 3, 7, "[model]\nhidden_size = 4 # \"wide\"\n"));
    manifest->format_version = MT_CHECKPOINT_FORMAT_VERSION;
    manifest->state.step = 100;
    manifest->state.tokens_seen = (int64_t)1 << 40;
    manifest->state.next_sequence = 12345678901;
    manifest->state.n_update = 90;
    manifest->state.n_lost_update = 77;
    manifest->parts = (struct mt_expert_parts){.is_told = true,
                                               .step = {100, 80, 60, 40},
                                               .n_update = {90, 71, 52, 33},
                                               .n_expert = {1, 1, 0, 0}};
    manifest->config_hash = 0x0123456789ABCDEFU;
    for (int i = 0; i < 3; ++i) {
        manifest->file[i].n_byte = 1000 + i;
        manifest->file[i].checksum = UINT64_MAX - (uint64_t)i;
    }
    manifest->tensor[0] = (struct mt_manifest_tensor){
        .name = "/model/layers/0/attention/q_proj", .n_dim = 2, .dim = {10, 4}, .n_piece = 3};
    manifest->tensor[0].first_part = -1;
    manifest->tensor[1] = (struct mt_manifest_tensor){
        .name = "/model/norm", .n_dim = 1, .dim = {1}, .first_piece = 3, .n_piece = 1};
    manifest->tensor[1].first_part = -1;
    manifest->tensor[2] = (struct mt_manifest_tensor){.name = "/model/layers/0/moe/experts/up",
                                                      .n_dim = 3,
                                                      .is_cut = true,
                                                      .dim = {2, 7, 6},
                                                      .first_piece = 4,
                                                      .n_piece = 3};
    memcpy(manifest->piece, piece, sizeof(piece));
    MT_TEST_OK(mt_manifest_number_rows(manifest));
}

/* The text of make_manifest; text [MAX_TEXT]. */
static int64_t make_text(char *text)
{
    struct mt_manifest manifest;
    char *made = NULL;
    int64_t n = 0;
    make_manifest(&manifest);
    MT_TEST_OK(mt_manifest_to_text(&manifest, &made, &n));
    assert_true(n < MAX_TEXT);
    memcpy(text, made, (size_t)n + 1);
    mt_memory_free(made);
    mt_manifest_clear(&manifest);
    return n;
}

/* Parses an exact copy, so that AddressSanitizer sees every byte beyond the end. */
static enum mt_status parse(const char *text, int64_t n, struct mt_manifest *manifest)
{
    char *copy = malloc((size_t)n + 1);
    assert_non_null(copy);
    memcpy(copy, text, (size_t)n);
    copy[n] = '\0';
    const enum mt_status status = mt_manifest_parse("x/manifest.json", copy, n, manifest);
    free(copy);
    return status;
}

/* Parses; whatever comes of it holds no memory afterwards. */
static enum mt_status parse_and_clear(const char *text, int64_t n)
{
    struct mt_manifest manifest;
    const int64_t n_live = mt_memory_n_live();
    const enum mt_status status = parse(text, n, &manifest);
    if (status == MT_OK) {
        mt_manifest_clear(&manifest);
    }
    assert_int_equal(mt_memory_n_live(), n_live);
    return status;
}

/* Makes the last line the checksum of the rest again: what an attacker would do. */
static void seal(char *text, int64_t n)
{
    char digits[32];
    const int64_t tail = n - 35;
    if (tail > 0) {
        (void)snprintf(digits, sizeof(digits), "%016llx",
                       (unsigned long long)XXH3_64bits(text, (size_t)tail));
        memcpy(text + tail + 15, digits, 16);
    }
}

static void what_is_written_reads_back(void **state)
{
    MT_UNUSED(state);
    char text[MAX_TEXT];
    struct mt_manifest want;
    struct mt_manifest got;
    const int64_t n = make_text(text);
    make_manifest(&want);
    MT_TEST_OK(parse(text, n, &got));
    assert_int_equal(got.format_version, MT_CHECKPOINT_FORMAT_VERSION);
    assert_memory_equal(&got.state, &want.state, sizeof(want.state));
    assert_memory_equal(&got.parts, &want.parts, sizeof(want.parts));
    assert_int_equal(got.tensor[0].first_part, -1);
    assert_int_equal(got.tensor[2].first_part, 0);
    assert_false(mt_manifest_is_full(&got));
    assert_int_equal(got.world_size, 2);
    assert_true(got.config_hash == want.config_hash);
    assert_string_equal(got.config_text, want.config_text);
    assert_int_equal(got.n_file, 3);
    assert_memory_equal(got.file, want.file, 3 * sizeof(*want.file));
    assert_int_equal(got.n_tensor, 3);
    assert_memory_equal(got.tensor, want.tensor, 3 * sizeof(*want.tensor));
    assert_int_equal(got.n_piece, 7);
    assert_memory_equal(got.piece, want.piece, 7 * sizeof(*want.piece));
    mt_manifest_clear(&want);
    mt_manifest_clear(&got);
}

static void rows_are_numbered_within_each_shard(void **state)
{
    MT_UNUSED(state);
    struct mt_manifest manifest;
    make_manifest(&manifest);
    assert_int_equal(manifest.piece[0].shard_row, 0);
    assert_int_equal(manifest.piece[1].shard_row, 0);
    assert_int_equal(manifest.piece[2].shard_row, 4); /* behind piece 0 in shard 1 */
    assert_int_equal(mt_manifest_shard_rows(&manifest, &manifest.tensor[0], 1), 5);
    assert_int_equal(mt_manifest_shard_rows(&manifest, &manifest.tensor[0], 0), 5);
    assert_int_equal(mt_manifest_shard_rows(&manifest, &manifest.tensor[1], 1), 0);
    assert_int_equal(mt_manifest_row_bytes(&manifest.tensor[0]), 16);
    assert_int_equal(mt_manifest_n_row(&manifest.tensor[0]), 10);
    int64_t dim[3] = {0};
    assert_int_equal(mt_manifest_row_bytes(&manifest.tensor[2]), 24);
    assert_int_equal(mt_manifest_n_row(&manifest.tensor[2]), 14);
    assert_int_equal(mt_manifest_shard_shape(&manifest, &manifest.tensor[2], 1, dim), 2);
    assert_int_equal(dim[0], 11);
    assert_int_equal(dim[1], 6);
    mt_manifest_clear(&manifest);
}

static void any_changed_byte_is_found(void **state)
{
    MT_UNUSED(state);
    char text[MAX_TEXT];
    const int64_t n = make_text(text);
    for (int64_t i = 0; i < n; ++i) {
        text[i] = (char)(text[i] ^ (1 << (i % 7)));
        MT_TEST_FAILS(parse_and_clear(text, n), MT_ERR_INPUT, "x/manifest.json is damaged");
        text[i] = (char)(text[i] ^ (1 << (i % 7)));
    }
    for (int64_t i = 0; i < n; ++i) {
        MT_TEST_FAILS(parse_and_clear(text, i), MT_ERR_INPUT, "is damaged");
    }
}

static void sealed_mutations_never_crash_or_leak(void **state)
{
    MT_UNUSED(state);
    enum { ROUNDS = 20000 };
    static const char tokens[] = "{}[],:\"\\0123456789-.eEtrufalsn \n/x";
    char original[MAX_TEXT];
    char text[MAX_TEXT];
    int n_refused = 0;
    const int64_t n_original = make_text(original);
    for (uint64_t round = 0; round < ROUNDS; ++round) {
        int64_t n = n_original;
        memcpy(text, original, (size_t)n);
        const uint64_t n_change = 1 + mt_random_u64(1, round, 0) % 4;
        for (uint64_t c = 1; c <= n_change; ++c) {
            const uint64_t bits = mt_random_u64(1, round, c);
            const int64_t at = (int64_t)(bits % (uint64_t)(n - 36));
            const char token = tokens[(bits >> 32) % (sizeof(tokens) - 1)];
            const uint64_t kind = (bits >> 48) % 4;
            if (kind == 0) {
                text[at] = token;
            } else if (kind == 1) {
                text[at] = (char)(bits >> 56);
            } else if (kind == 2) { /* cut a stretch out */
                const int64_t length = 1 + (int64_t)((bits >> 50) % 40);
                const int64_t kept = n - 36 - at;
                const int64_t cut = length < kept ? length : kept;
                memmove(text + at, text + at + cut, (size_t)(n - at - cut));
                n -= cut;
            } else { /* write a digit in: 1 becomes 10, ... */
                memmove(text + at + 1, text + at, (size_t)(n - at));
                text[at] = (char)('0' + (bits >> 40) % 10);
                ++n;
            }
        }
        seal(text, n);
        if (parse_and_clear(text, n) != MT_OK) {
            assert_int_equal(mt_error_last()->code, MT_ERR_INPUT);
            mt_error_clear();
            ++n_refused;
        }
    }
    assert_true(n_refused > ROUNDS / 2 && n_refused < ROUNDS);
}

/* Replaces the first `from` by `to`, seals, and expects a refusal that contains `part`. */
static void expect_refused(const char *from, const char *to, const char *part)
{
    char original[MAX_TEXT];
    char text[MAX_TEXT];
    (void)make_text(original);
    const char *at = strstr(original, from);
    if (at == NULL) {
        fail_msg("the manifest does not contain %s", from);
        return;
    }
    const int n = snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - original), original, to,
                           at + strlen(from));
    seal(text, n);
    MT_TEST_FAILS(parse_and_clear(text, n), MT_ERR_INPUT, part);
}

static void sealed_lies_are_refused_by_name(void **state)
{
    MT_UNUSED(state);
    expect_refused("\"format_version\": 4", "\"format_version\": 5", "newer than this program");
    expect_refused("\"format_version\": 4", "\"format_version\": 0", "\"format_version\"");
    expect_refused("moetrain-checkpoint", "something-else", "\"format\"");
    expect_refused("\"step\": 100", "\"step\": -1", "\"step\"");
    expect_refused("\"step\": 100", "\"step\": 1.5", "\"step\"");
    expect_refused("\"step\": 100", "\"stop\": 100", "\"step\"");
    expect_refused("\"step\": 100", "\"step\": 99999999999999999999", "too big integer");
    expect_refused("\"world_size\": 2", "\"world_size\": 3", "\"files\"");
    expect_refused("\"world_size\": 2", "\"world_size\": 2000000000", "\"world_size\"");
    expect_refused("\"world_size\": 2", "\"world_size\": 2, \"world_size\": 2", "duplicate");
    expect_refused("index.h5", "../../index.h5", "\"files\"");
    expect_refused("shard-00001-of-00002.h5", "/etc/passwd", "\"files\"");
    expect_refused("shard-00001-of-00002.h5", "shard-00000-of-00002.h5", "\"files\"");
    expect_refused("\"bytes\": 1001", "\"bytes\": -1", "\"bytes\"");
    expect_refused("\"bytes\": 1001", "\"bytes\": 9223372036854775807", "\"bytes\"");
    expect_refused("fffffffffffffffe", "FFFFFFFFFFFFFFFE", "\"xxh3\"");
    expect_refused("fffffffffffffffe", "0", "\"xxh3\"");
    expect_refused("/model/norm", "/model/../norm", "\"name\"");
    expect_refused("/model/norm", "/model//norm", "\"name\"");
    expect_refused("/model/norm", "/model/norm/", "\"name\"");
    expect_refused("/model/norm", "norm", "\"name\"");
    expect_refused("\"/model/norm\"", "\"\"", "\"name\"");
    expect_refused("\"/model/norm\"", "7", "\"name\"");
    expect_refused("/model/norm", "/model/layers/0/attention/q_proj", "q_proj");
    expect_refused("float32", "float64", "\"dtype\"");
    expect_refused("    10,", "    11,", "end at row 10; 11 rows");
    expect_refused("    10,", "    9,", "\"rows\"");
    expect_refused("    10,", "    0,", "\"shape\"");
    expect_refused("    10,\n    4\n", "    10,\n    4611686018427387904\n", "\"shape\"");
    expect_refused("    10,\n    4\n", "    10,\n    4000\n", "fits its shards");
    expect_refused("    10,", "    10, 1, 1,", "\"shape\"");
    expect_refused("\"first_row\": 4", "\"first_row\": 3", "\"first_row\"");
    expect_refused("\"first_row\": 4", "\"first_row\": 5", "\"first_row\"");
    expect_refused("\"rows\": 5", "\"rows\": 0", "\"rows\"");
    expect_refused("\"rows\": 5", "\"rows\": 9223372036854775807", "\"rows\"");
    expect_refused("\"row_dims\": 2", "\"row_dims\": 3", "\"row_dims\"");
    expect_refused("\"row_dims\": 2", "\"row_dims\": \"2\"", "\"row_dims\"");
    expect_refused("\"row_dims\": 2", "\"row_dims\": 1", "\"pieces\"");
    expect_refused("\"rows\": 3", "\"rows\": 8", "\"rows\""); /* into the next expert */
    expect_refused("\"rows\": 7", "\"rows\": 8", "\"rows\"");
    expect_refused("\"rows\": 7", "\"rows\": 6", "end at row 13; 14 rows");
    expect_refused("\"shard\": 1", "\"shard\": 2", "\"shard\"");
    expect_refused("\"shard\": 1", "\"shard\": -1", "\"shard\"");
    expect_refused("\"parts\": 4", "\"parts\": 5", "\"parts\"");
    expect_refused("\"have_files\": false", "\"have_files\": true", "\"files\"");
    expect_refused("\"have_files\": false", "\"have_files\": 0", "\"have_files\"");
    expect_refused("   80,", "   101,", "\"step\""); /* younger than the checkpoint */
    expect_refused("   80,", "", "\"step\"");
    expect_refused("   71,", "   91,", "\"n_update\"");
    expect_refused("   71,", "   -1,", "\"n_update\"");
    expect_refused("   71,", "   \"71\",", "\"n_update\"");
    expect_refused("\"part_of_expert_0\": 0", "\"part_of_expert_0\": 4", "\"part_of_expert_0\"");
    expect_refused("\"experts\"", "\"others\"", "\"part_of_expert_0\"");
    expect_refused("\"tensors\": [", "\"tensors\": 7, \"others\": [", "\"tensors\"");
    expect_refused("\"n_lost_update\": 77", "\"n_lost_update\": -1", "\"n_lost_update\"");
    expect_refused("{\n", "[{\n", "expected");
}

static void deep_nesting_and_odd_roots_are_refused(void **state)
{
    MT_UNUSED(state);
    char text[MAX_TEXT];
    static const char tail[] = "\n \"checksum\": \"0000000000000000\"\n}\n";
    for (int depth = 1; depth < MAX_TEXT - 64; depth *= 3) {
        memset(text, '[', (size_t)depth);
        memcpy(text + depth, tail, sizeof(tail));
        seal(text, depth + (int64_t)sizeof(tail) - 1);
        MT_TEST_FAILS(parse_and_clear(text, depth + (int64_t)sizeof(tail) - 1), MT_ERR_INPUT,
                      "x/manifest.json:");
    }
    MT_TEST_FAILS(parse_and_clear("", 0), MT_ERR_INPUT, "is damaged");
    MT_TEST_FAILS(parse_and_clear("[]", 2), MT_ERR_INPUT, "is damaged");
}

static void a_missing_or_huge_manifest_is_refused(void **state)
{
    MT_UNUSED(state);
    struct mt_manifest manifest;
    MT_TEST_FAILS(mt_manifest_read("/nowhere", &manifest), MT_ERR_INPUT,
                  "/nowhere/manifest.json: No such file");
    char folder[] = "/tmp/mt-manifest-XXXXXX";
    char path[64];
    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof(path), "%s/manifest.json", folder);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(ftruncate(fileno(file), (off_t)1 << 40), 0); /* a hole: takes no room */
    assert_int_equal(fclose(file), 0);
    MT_TEST_FAILS(mt_manifest_read(folder, &manifest), MT_ERR_INPUT, "at most 268435456");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(rows_are_numbered_within_each_shard),
        cmocka_unit_test(any_changed_byte_is_found),
        cmocka_unit_test(sealed_mutations_never_crash_or_leak),
        cmocka_unit_test(sealed_lies_are_refused_by_name),
        cmocka_unit_test(deep_nesting_and_odd_roots_are_refused),
        cmocka_unit_test(a_missing_or_huge_manifest_is_refused),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed != 0 || mt_memory_n_live() != 0;
}
