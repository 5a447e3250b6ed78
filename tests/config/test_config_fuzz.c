/* Deterministic mutations of a valid text: whatever comes out, it is accepted and round-trips, or
 * it is refused with code 2 and a text that prints. Run under ASan and UBSan by tests/run.sh. */
#include "base/memory.h"
#include "base/random.h"
#include "config/case.h"
#include "support/test.h"

#include <stdio.h>
#include <string.h>

enum { N_ROUND = 4000, TEXT_ROOM = 16384, SEED = 20261122 };

static const char *const fragments[] = {"[",
                                        "]",
                                        "[[",
                                        "]]",
                                        "{",
                                        "}",
                                        "=",
                                        ".",
                                        ",",
                                        "\"",
                                        "'",
                                        "\"\"\"",
                                        "'''",
                                        "#",
                                        "\n",
                                        "\r\n",
                                        "\\",
                                        "\\u0000",
                                        "\\UFFFFFFFF",
                                        "-",
                                        "1e999",
                                        "99999999999999999999",
                                        "nan",
                                        "-inf",
                                        "true",
                                        "0x",
                                        "0b2",
                                        "1979-05-27T07:32:00Z",
                                        "07:32:00",
                                        "{}",
                                        "[]",
                                        "\xff",
                                        "\xe2\x82\xac",
                                        "\xef\xbb\xbf",
                                        "model.",
                                        "[model]\n",
                                        "[moe.balance]\n",
                                        "hidden_size",
                                        "device.slowdown = {1 = 2.0}\n",
                                        "a.b.c.d.e.f",
                                        "betas = [1, 2, 3]\n",
                                        "train = [[\"x\"]]\n",
                                        "\t",
                                        "\x01",
                                        "1_000",
                                        "+1",
                                        "_"};
enum { N_FRAGMENT = sizeof(fragments) / sizeof(fragments[0]) };

/* A number in [0, bound) of this round's stream. */
static size_t draw(uint64_t round, uint64_t *index, size_t bound)
{
    return (size_t)(mt_random_u64(SEED, round, (*index)++) % bound);
}

static void insert(char *text, size_t at, const char *piece, size_t n_piece)
{
    const size_t n = strlen(text);
    if (n + n_piece + 1 > TEXT_ROOM) {
        return;
    }
    memmove(text + at + n_piece, text + at, n - at + 1);
    memcpy(text + at, piece, n_piece);
}

static void mutate(char *text, uint64_t round)
{
    uint64_t index = 0;
    const size_t n_mutation = 1 + draw(round, &index, 4);
    for (size_t i = 0; i < n_mutation; i++) {
        const size_t n = strlen(text);
        const size_t at = draw(round, &index, n + 1);
        const size_t length = draw(round, &index, 40);
        const size_t kind = draw(round, &index, 8);
        if (kind == 0 && n > 0) { /* a byte changed */
            text[at % n] = (char)(1 + draw(round, &index, 255));
        } else if (kind == 1) { /* a stretch removed */
            const size_t n_removed = length < n - at ? length : n - at;
            memmove(text + at, text + at + n_removed, n - at - n_removed + 1);
        } else if (kind == 2 && n > 0) { /* a stretch repeated elsewhere */
            char piece[40];
            const size_t from = draw(round, &index, n);
            const size_t n_piece = length < n - from ? length : n - from;
            memcpy(piece, text + from, n_piece);
            insert(text, at, piece, n_piece);
        } else if (kind >= 5) { /* the next digit changed: still TOML, another value */
            const size_t skip = strcspn(text + at, "0123456789");
            if (text[at + skip] != '\0') {
                text[at + skip] = (char)('0' + draw(round, &index, 10));
            }
        } else {
            const char *piece = fragments[draw(round, &index, N_FRAGMENT)];
            insert(text, at, piece, strlen(piece));
        }
    }
}

static void check_error_prints(const char *text)
{
    assert_true(strlen(text) > 0);
    for (const char *c = text; *c != '\0'; c++) {
        assert_true((unsigned char)*c >= 0x20 || *c == '\n');
    }
}

static void mutated_texts_are_accepted_or_refused_never_fatal(void **state)
{
    MT_UNUSED(state);
    struct mt_config *config = mt_case_parse(mt_case_text, 0, NULL);
    char *whole = NULL;
    char *text = NULL;
    int n_accepted = 0;
    MT_TEST_OK(mt_config_to_text(config, &whole));
    assert_int_equal(MT_ALLOCATE(text, TEXT_ROOM, "test"), MT_OK);
    for (uint64_t round = 0; round < N_ROUND; round++) {
        (void)snprintf(text, TEXT_ROOM, "%s", round % 2 == 0 ? whole : mt_case_text);
        mutate(text, round);
        mt_error_clear();
        const enum mt_status status =
            mt_config_parse(text, "fuzz.toml", NULL, 0, NULL, NULL, config);
        if (status == MT_OK) {
            char *written = NULL;
            MT_TEST_OK(mt_config_to_text(config, &written));
            MT_TEST_OK(mt_config_parse(written, "fuzz.toml", NULL, 0, NULL, NULL, config));
            mt_memory_free(written);
            n_accepted++;
        } else {
            assert_int_equal(status, MT_ERR_CONFIG);
            check_error_prints(mt_error_last()->text);
        }
    }
    assert_true(n_accepted > N_ROUND / 50 && n_accepted < N_ROUND / 2);
    mt_memory_free(whole);
    mt_memory_free(text);
    mt_memory_free(config);
}

static void mutated_overrides_are_accepted_or_refused_never_fatal(void **state)
{
    MT_UNUSED(state);
    static const char *const seeds[] = {"model.hidden_size=64", "run.name=\"foo\"",
                                        "device.slowdown={3=2.0}", "data.train=[\"a\", 'b']",
                                        "optimizer.betas=[0.9, 0.95]"};
    struct mt_config *config = NULL;
    char *text = NULL;
    assert_int_equal(MT_ALLOCATE(config, 1, "test"), MT_OK);
    assert_int_equal(MT_ALLOCATE(text, TEXT_ROOM, "test"), MT_OK);
    for (uint64_t round = 0; round < N_ROUND / 2; round++) {
        (void)snprintf(text, TEXT_ROOM, "%s", seeds[round % 5]);
        mutate(text, N_ROUND + round);
        mt_error_clear();
        const char *override = text;
        const enum mt_status status =
            mt_config_parse(mt_case_text, "x.toml", NULL, 1, &override, NULL, config);
        if (status != MT_OK) {
            assert_int_equal(status, MT_ERR_CONFIG);
            check_error_prints(mt_error_last()->text);
        }
    }
    mt_memory_free(text);
    mt_memory_free(config);
}

static void every_prefix_of_a_text_is_handled(void **state)
{
    MT_UNUSED(state);
    struct mt_config *config = NULL;
    char text[1024];
    assert_int_equal(MT_ALLOCATE(config, 1, "test"), MT_OK);
    const size_t n = strlen(mt_case_text);
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(text, sizeof(text), "%.*s", (int)i, mt_case_text);
        mt_error_clear();
        const enum mt_status status = mt_config_parse(text, "x.toml", NULL, 0, NULL, NULL, config);
        assert_true(status == MT_ERR_CONFIG || i + 1 == n);
    }
    mt_memory_free(config);
}

#define TEST(name) cmocka_unit_test_teardown(name, mt_case_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(mutated_texts_are_accepted_or_refused_never_fatal),
        TEST(mutated_overrides_are_accepted_or_refused_never_fatal),
        TEST(every_prefix_of_a_text_is_handled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
