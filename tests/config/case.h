/* What tests of the configuration share: a small valid text, parsing it with changes, and claims
 * about the error text. */
#ifndef MT_TESTS_CONFIG_CASE_H
#define MT_TESTS_CONFIG_CASE_H

#include "config/load.h"

/* All required keys and nothing else; lines are counted by the tests: [model] is line 1. */
extern const char *const mt_case_text;

/* A parsed configuration; the test fails when the text is refused. base_dir "/base". Free with
 * mt_memory_free. */
struct mt_config *mt_case_parse(const char *text, int n_override, const char *const *overrides);

/* mt_case_text with one override. */
struct mt_config *mt_case_with(const char *override);

/* Claims that `text` with the overrides is refused with code 2; the error text, valid until the
 * next error. */
const char *mt_case_refuse(const char *text, int n_override, const char *const *overrides);

/* Claims that mt_case_text with this override is refused, in one line `--set OVERRIDE: MESSAGE`. */
void mt_case_override_says(const char *override, const char *message);

/* Claims that mt_case_text with this override is accepted. */
void mt_case_accepts(const char *override);

/* Claims that `fragment` is in `text`, and shows both when it is not. */
void mt_case_has(const char *text, const char *fragment);

/* Lines of a text that does not end in a newline. */
int mt_case_n_line(const char *text);

/* cmocka's teardown: nothing allocated is left, no error recorded. */
int mt_case_teardown(void **state);

#endif
