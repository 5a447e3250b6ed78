/* Parsing a command line against the table. */
#include "cli/cli.h"

#include "base/size.h"
#include "config/suggest.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

bool mt_command_begins_with(const struct mt_command *command, const char *word)
{
    const size_t length = strcspn(command->name, " ");
    return strlen(word) == length && strncmp(command->name, word, length) == 0;
}

/* The command that argv begins with, *n_word of it; NULL: none. */
static const struct mt_command *find_command(int argc, char **argv, int *n_word)
{
    for (int i = 0; i < mt_n_command && argc > 0; i++) {
        const char *second = strchr(mt_commands[i].name, ' ');
        const bool matches = second == NULL || (argc > 1 && strcmp(second + 1, argv[1]) == 0);
        *n_word = second == NULL ? 1 : 2;
        if (matches && mt_command_begins_with(&mt_commands[i], argv[0])) {
            return &mt_commands[i];
        }
    }
    *n_word = 0;
    return NULL;
}

static int find_option(const struct mt_command *command, const char *text, size_t length)
{
    for (int i = 0; i < MT_MAX_OPTION && command->option[i].name != NULL; i++) {
        if (strlen(command->option[i].name) == length &&
            strncmp(command->option[i].name, text, length) == 0) {
            return i;
        }
    }
    return -1;
}

const char *mt_argument(const struct mt_arguments *arguments, const char *name)
{
    const int index = find_option(arguments->command, name, strlen(name));
    MT_ASSERT(index >= 0);
    return arguments->value[index];
}

const char *mt_argument_next(const struct mt_arguments *arguments, const char *name, int *at)
{
    const int index = find_option(arguments->command, name, strlen(name));
    MT_ASSERT(index >= 0);
    while (*at < arguments->n_repeated) {
        const int i = (*at)++;
        if (arguments->repeated_option[i] == index) {
            return arguments->repeated_value[i];
        }
    }
    return NULL;
}

enum mt_status mt_argument_integer(const struct mt_arguments *arguments, const char *name,
                                   int64_t fallback, int64_t least, int64_t *value)
{
    const char *text = mt_argument(arguments, name);
    char *end = NULL;
    *value = fallback;
    if (text == NULL) {
        return MT_OK;
    }
    errno = 0;
    *value = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || *value < least) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "%s %s is not an integer of at least %lld; expected e.g. %s %lld", name,
                       text, (long long)least, name, (long long)mt_max_i64(fallback, least));
    }
    return MT_OK;
}

enum mt_status mt_argument_real(const struct mt_arguments *arguments, const char *name,
                                double fallback, double least, double *value)
{
    const char *text = mt_argument(arguments, name);
    char *end = NULL;
    *value = fallback;
    if (text == NULL) {
        return MT_OK;
    }
    *value = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(*value) || *value < least) {
        return MT_FAIL(MT_ERR_CONFIG, "%s %s is not a number of at least %g; expected e.g. %s %g",
                       name, text, least, name, fallback);
    }
    return MT_OK;
}

static enum mt_status add_positional(struct mt_arguments *arguments, const char *text)
{
    const struct mt_command *command = arguments->command;
    if (arguments->n_positional == command->max_positional) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "one argument too many: %s; expected: moetrain %s; see moetrain %s "
                       "--help",
                       text, command->synopsis, command->name);
    }
    arguments->positional[arguments->n_positional++] = text;
    return MT_OK;
}

static enum mt_status add_repeated(struct mt_arguments *arguments, int index, const char *value)
{
    if (arguments->n_repeated == MT_MAX_REPEATED) {
        return MT_FAIL(MT_ERR_CONFIG, "more than %d times %s; expected at most that many",
                       MT_MAX_REPEATED, arguments->command->option[index].name);
    }
    arguments->repeated_option[arguments->n_repeated] = index;
    arguments->repeated_value[arguments->n_repeated++] = value;
    return MT_OK;
}

/* One option at argv[*i]: "--name value", "--name=value", or a switch. Advances *i over its value.
 */
static enum mt_status add_option(struct mt_arguments *arguments, int argc, char **argv, int *i)
{
    const struct mt_command *command = arguments->command;
    const char *text = argv[*i];
    const size_t length = strcspn(text, "=");
    const int index = find_option(command, text, length);
    if (index < 0) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "unknown option %s of moetrain %s; its options are in moetrain %s "
                       "--help",
                       text, command->name, command->name);
    }
    const struct mt_option *option = &command->option[index];
    const char *value = text[length] == '=' ? text + length + 1 : NULL;
    if (option->value_name == NULL) {
        if (value != NULL) {
            return MT_FAIL(MT_ERR_CONFIG, "%s takes no value; expected %s alone", option->name,
                           option->name);
        }
        arguments->value[index] = "";
        return MT_OK;
    }
    if (value == NULL && *i + 1 < argc) {
        value = argv[++*i];
    }
    if (value == NULL) {
        return MT_FAIL(MT_ERR_CONFIG, "%s has no value; expected %s %s", option->name, option->name,
                       option->value_name);
    }
    if (option->is_repeatable) {
        return add_repeated(arguments, index, value);
    }
    if (strcmp(option->name, "--set") != 0) {
        arguments->value[index] = value;
        return MT_OK;
    }
    if (arguments->n_override == MT_MAX_OVERRIDE) {
        return MT_FAIL(MT_ERR_CONFIG, "more than %d times --set; expected at most that many",
                       MT_MAX_OVERRIDE);
    }
    arguments->override[arguments->n_override++] = value;
    return MT_OK;
}

/* text: "data prepare, data inspect", the commands that begin with this word; "": none does. */
static void list_commands(const char *word, char *text, size_t bytes)
{
    text[0] = '\0';
    for (int i = 0; i < mt_n_command; i++) {
        const size_t used = strlen(text);
        if (mt_command_begins_with(&mt_commands[i], word)) {
            (void)snprintf(text + used, bytes - used, "%s%s", used > 0 ? ", " : "",
                           mt_commands[i].name);
        }
    }
}

/* A first word that is neither a command nor anything like a path of a configuration. */
static enum mt_status check_config_word(const char *word)
{
    char names[256] = "";
    char nearest[32] = "";
    list_commands(word, names, sizeof(names));
    if (names[0] != '\0') {
        return MT_FAIL(MT_ERR_CONFIG,
                       "`moetrain %s` needs another word; expected: moetrain %s; see moetrain %s "
                       "--help",
                       word, names, word);
    }
    if (word[0] == '-' || strpbrk(word, "./") != NULL || access(word, F_OK) == 0) {
        return MT_OK;
    }
    for (int i = 0; i < mt_n_command; i++) {
        const size_t used = strlen(names);
        (void)snprintf(names + used, sizeof(names) - used, "%s%s", i > 0 ? "|" : "",
                       mt_commands[i].name);
    }
    mt_suggest_choice(names, word, nearest, sizeof(nearest));
    return MT_FAIL(MT_ERR_CONFIG,
                   "%s is neither a command nor a file; expected moetrain [COMMAND] ARGUMENTS; the "
                   "nearest command is %s; see moetrain --help",
                   word, nearest);
}

static enum mt_status choose_command(struct mt_arguments *arguments, int argc, char **argv,
                                     int *first)
{
    arguments->command = find_command(argc, argv, first);
    if (arguments->command == NULL) {
        arguments->command = &mt_commands[0];
        MT_ASSERT(strcmp(mt_commands[0].name, "train") == 0);
        return argc > 0 ? check_config_word(argv[0]) : MT_OK;
    }
    return MT_OK;
}

enum mt_status mt_arguments_parse(int argc, char **argv, struct mt_arguments *arguments)
{
    int first = 0;
    memset(arguments, 0, sizeof(*arguments));
    MT_TRY(choose_command(arguments, argc, argv, &first));
    for (int i = first; i < argc; i++) {
        const bool is_option = argv[i][0] == '-' && argv[i][1] != '\0';
        MT_TRY(is_option ? add_option(arguments, argc, argv, &i)
                         : add_positional(arguments, argv[i]));
    }
    if (arguments->n_positional < arguments->command->min_positional) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "an argument is missing; expected: moetrain %s; see moetrain "
                       "--help",
                       arguments->command->synopsis);
    }
    return MT_OK;
}

uint64_t mt_arguments_hash(const struct mt_arguments *arguments)
{
    const struct mt_command *command = arguments->command;
    uint64_t hash = XXH3_64bits(command->name, strlen(command->name));
    for (int i = 0; i < MT_MAX_OPTION && command->option[i].name != NULL; i++) {
        const char *value = arguments->value[i];
        if (value != NULL && strcmp(command->option[i].name, "--run-dir") != 0) {
            hash = XXH3_64bits_withSeed(value, strlen(value), hash + (uint64_t)i + 1);
        }
    }
    for (int i = 0; i < arguments->n_repeated; i++) {
        const char *value = arguments->repeated_value[i];
        hash = XXH3_64bits_withSeed(value, strlen(value), hash);
    }
    return hash;
}
