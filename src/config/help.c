/* The table of keys as text for people: plain, man page, markdown. */
#include "config/load.h"

#include "config/choice.h"
#include "config/table.h"

#include <string.h>

enum { WIDTH = 100, HEAD_BYTES = 512, PLAIN_INDENT = 6 };

void mt_write_wrapped(FILE *out, const char *text, int column, int indent)
{
    bool at_start = true;
    while (*text != '\0') {
        const int n = (int)strcspn(text, " ");
        if (!at_start && column + 1 + n > WIDTH) {
            (void)fprintf(out, "\n%*s", indent, "");
            column = indent;
        } else if (!at_start) {
            (void)fputc(' ', out);
            column++;
        }
        (void)fprintf(out, "%.*s", n, text);
        column += n;
        at_start = false;
        text += n;
        text += strspn(text, " ");
    }
    (void)fputc('\n', out);
}

/* `[10000.0]  number, above 0, up to 1e+12`, `required, e.g. 128: integer, ..` text [bytes] */
static void describe_default(const struct mt_key *key, char *text, size_t bytes)
{
    if (key->required) {
        (void)snprintf(text, bytes, "(required, e.g. %s)", key->example);
    } else {
        (void)snprintf(text, bytes, "[%s]", key->value != NULL ? key->value : key->derived);
    }
}

/* What this version leaves out, as a sentence to stand behind the help. text [bytes] */
static void describe_only(const struct mt_key *key, char *text, size_t bytes)
{
    char list[128] = "";
    text[0] = '\0';
    if (key->only == NULL) {
        return;
    }
    if (key->only[0] == '\0') {
        (void)snprintf(text, bytes, " Not in this version: leave it out.");
        return;
    }
    mt_choice_list(key->only, key->choices != NULL, " and ", list, sizeof(list));
    (void)snprintf(text, bytes, " This version has only %s.", list);
}

static void put_key_plain(FILE *out, const struct mt_key *key)
{
    char text[HEAD_BYTES];
    char values[HEAD_BYTES / 2];
    char only[HEAD_BYTES / 4];
    describe_default(key, text, sizeof(text));
    mt_key_describe_values(key, values, sizeof(values));
    describe_only(key, only, sizeof(only));
    const int column = fprintf(out, "  %s %s ", key->name, text);
    mt_write_wrapped(out, values, column, PLAIN_INDENT);
    (void)snprintf(text, sizeof(text), "%s%s", key->help, only);
    (void)fprintf(out, "%*s", PLAIN_INDENT, "");
    mt_write_wrapped(out, text, PLAIN_INDENT, PLAIN_INDENT);
}

/* roff takes `\` and leading dots for itself, and prints a bare - as a hyphen. */
static void put_roff(FILE *out, const char *text)
{
    for (const char *c = text; *c != '\0'; c++) {
        if (*c == '\\') {
            (void)fputs("\\e", out);
        } else if (*c == '-') {
            (void)fputs("\\-", out);
        } else {
            (void)fprintf(out, "%s%c", c == text && (*c == '.' || *c == '\'') ? "\\&" : "", *c);
        }
    }
    (void)fputc('\n', out);
}

static void put_key_roff(FILE *out, const struct mt_key *key)
{
    char text[HEAD_BYTES];
    char values[HEAD_BYTES / 2];
    char only[HEAD_BYTES / 4];
    describe_default(key, values, sizeof(values));
    describe_only(key, only, sizeof(only));
    (void)fprintf(out, ".TP\n.B %s\n", key->name);
    put_roff(out, values);
    mt_key_describe_values(key, values, sizeof(values));
    (void)snprintf(text, sizeof(text), "%s. %s%s", values, key->help, only);
    put_roff(out, text);
}

static void put_key_markdown(FILE *out, const struct mt_key *key)
{
    char text[2 * HEAD_BYTES];
    char values[HEAD_BYTES / 2];
    char only[HEAD_BYTES / 4];
    char standard[HEAD_BYTES / 4];
    mt_key_describe_values(key, values, sizeof(values));
    describe_only(key, only, sizeof(only));
    if (key->required) {
        (void)snprintf(standard, sizeof(standard), "required, e.g. `%s`", key->example);
    } else if (key->value != NULL) {
        (void)snprintf(standard, sizeof(standard), "default `%s`", key->value);
    } else {
        (void)snprintf(standard, sizeof(standard), "default: %s", key->derived);
    }
    (void)snprintf(text, sizeof(text), "- `%s` (%s; %s): %s%s", key->name, standard, values,
                   key->help, only);
    mt_write_wrapped(out, text, 0, 2);
}

static void put_heading(enum mt_config_style style, FILE *out, bool is_first, const char *section)
{
    if (style == MT_CONFIG_ROFF) {
        (void)fprintf(out, ".SS [%s]\n", section);
    } else if (style == MT_CONFIG_MARKDOWN) {
        (void)fprintf(out, "%s## `[%s]`\n\n", is_first ? "" : "\n", section);
    } else {
        (void)fprintf(out, "%s[%s]\n", is_first ? "" : "\n", section);
    }
}

void mt_config_write_help(enum mt_config_style style, FILE *out)
{
    static void (*const put_key[])(FILE *, const struct mt_key *) = {
        [MT_CONFIG_PLAIN] = put_key_plain,
        [MT_CONFIG_ROFF] = put_key_roff,
        [MT_CONFIG_MARKDOWN] = put_key_markdown,
    };
    const char *section = "";
    for (int i = 0; i < mt_table_n_key(); i++) {
        const struct mt_key *key = mt_table_key(i);
        if (strcmp(section, key->section) != 0) {
            put_heading(style, out, i == 0, key->section);
            section = key->section;
        }
        put_key[style](out, key);
    }
}
