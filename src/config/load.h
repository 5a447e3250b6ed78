/* From a TOML file and overrides to a resolved configuration; and back to text.
 *
 * One table (config/table.c) gives every key its type, default, range and help; the parser,
 * --help, the man page and docs/configuration.md are made from it. Unknown keys are errors.
 * All mistakes are reported at once, each with file, line, column and the nearest valid key. */
#ifndef MT_CONFIG_LOAD_H
#define MT_CONFIG_LOAD_H

#include "base/status.h"
#include "config/config.h"

#include <stdio.h>

/* overrides [n_override]: "section.key=value" in TOML value syntax, reported as `--set` with their
 * text. run_dir: NULL or replaces run.dir. Relative data paths are taken from the file's folder.
 * MT_ERR_CONFIG with every mistake in the error text, one a line. The caller owns the (large)
 * struct: allocate it, do not put it on the stack. */
enum mt_status mt_config_load(const char *path, int n_override, const char *const *overrides,
                              const char *run_dir, struct mt_config *config);

/* The same from text, for checkpoints ("config" attribute) and tests. `origin` names it in errors;
 * base_dir is what relative data paths start at. */
enum mt_status mt_config_parse(const char *text, const char *origin, const char *base_dir,
                               int n_override, const char *const *overrides, const char *run_dir,
                               struct mt_config *config);

/* The resolved configuration as TOML that parses back to the same. */
void mt_config_write(const struct mt_config *config, FILE *out);
/* As a heap string (free with mt_memory_free). */
enum mt_status mt_config_to_text(const struct mt_config *config, char **text);

/* XXH3 of the resolved text without run.dir: equal on ranks that train the same. */
uint64_t mt_config_hash(const struct mt_config *config);

/* Every difference in [model], the shapes in [moe] and run.seed, which a resumed run must keep:
 * MT_ERR_CONFIG listing them. Other differences are returned as text lines in `changes` (may be
 * NULL) of `changes_bytes`. */
enum mt_status mt_config_check_resume(const struct mt_config *now, const struct mt_config *then,
                                      char *changes, size_t changes_bytes);

/* `text` in lines of at most 100 columns, `column` of the first already used, the others indented
 * by `indent`; ends the line. */
void mt_write_wrapped(FILE *out, const char *text, int column, int indent);

/* The table as text: for `train --help`, for the man page (roff), and for docs (markdown). */
enum mt_config_style { MT_CONFIG_PLAIN, MT_CONFIG_ROFF, MT_CONFIG_MARKDOWN };
void mt_config_write_help(enum mt_config_style style, FILE *out);

/* May name [n] be that of a set of data.validation_sets? */
bool mt_value_is_set_name(const char *name, size_t n);

#endif
