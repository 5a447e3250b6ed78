/* moetrain data inspect FILE */
#include "cli/cli.h"

#include "config/choice.h"
#include "config/table.h"
#include "data/token_file.h"

#include <string.h>
#include <unistd.h>

/* Those of data.format that are files, in the order of their enum. */
static const char formats[] = "bytes|tokens|megatron";

/* Value of an option that has a list of words; `fallback` when not given. */
static enum mt_status choose(const struct mt_arguments *arguments, const char *name,
                             const char *words, int fallback, int *value)
{
    const char *word = mt_argument(arguments, name);
    char list[128];
    *value = word == NULL ? fallback : mt_choice_find(words, word);
    if (word == NULL || *value >= 0) {
        return MT_OK;
    }
    mt_choice_list(words, false, " or ", list, sizeof(list));
    return MT_FAIL(MT_ERR_CONFIG, "%s %s is none of %s", name, word, list);
}

static bool ends_in(const char *path, const char *suffix)
{
    const size_t n = strlen(path);
    return n >= strlen(suffix) && strcmp(path + n - strlen(suffix), suffix) == 0;
}

/* A pair is named by either file or by what they share. bin [bytes]: the file with the ids. */
static bool is_megatron(const char *path, char *bin, size_t bytes)
{
    char index[MT_PATH_BYTES + 8];
    const bool has_suffix = ends_in(path, ".bin") || ends_in(path, ".idx");
    const int n = (int)(strlen(path) - (has_suffix ? 4 : 0));
    (void)snprintf(bin, bytes, "%.*s.bin", n, path);
    (void)snprintf(index, sizeof(index), "%.*s.idx", n, path);
    return access(index, F_OK) == 0;
}

/* As it would be read with the formats in turn: a pair, a header, and anything else is text. */
static enum mt_status open_any(const struct mt_arguments *arguments, char *path, size_t bytes,
                               struct mt_token_file *file)
{
    int format = -1;
    int type = MT_TOKEN_AUTO;
    const char *given = arguments->positional[0];
    const struct mt_key *types = mt_table_key(mt_table_index("data.token_type"));
    MT_TRY(choose(arguments, "--format", formats, -2, &format));
    MT_TRY(choose(arguments, "--token-type", types->choices, MT_TOKEN_AUTO, &type));
    const bool is_pair = is_megatron(given, path, bytes);
    if (format == MT_DATA_MEGATRON || (format == -2 && is_pair)) {
        return mt_token_file_open(path, MT_DATA_MEGATRON, MT_TOKEN_AUTO, file);
    }
    (void)snprintf(path, bytes, "%s", given);
    if (format == -2 && type == MT_TOKEN_AUTO && !ends_in(path, ".bin")) {
        format = MT_DATA_BYTES;
    }
    return mt_token_file_open(path, format == MT_DATA_BYTES ? MT_DATA_BYTES : MT_DATA_TOKENS,
                              (enum mt_token_type)type, file);
}

static void print(const struct mt_token_file *file, const struct mt_token_summary *summary)
{
    (void)printf("file       %s\nlayout     %s\ntype       %s\ntokens     %lld\n", file->path,
                 file->layout, mt_token_type_name(file->type), (long long)file->n_token);
    if (file->n_sequence > 0) {
        (void)printf("sequences  %lld\ndocuments  %lld, the longest of %lld tokens\n",
                     (long long)file->n_sequence, (long long)file->n_document,
                     (long long)summary->longest);
    }
    (void)printf("ids        %lld to %lld: model.vocab_size of at least %lld\n",
                 (long long)summary->smallest, (long long)summary->largest,
                 (long long)summary->largest + 1);
}

enum mt_status mt_command_data_inspect(const struct mt_arguments *arguments)
{
    char path[MT_PATH_BYTES + 8];
    struct mt_token_file file;
    struct mt_token_summary summary;
    MT_TRY(open_any(arguments, path, sizeof(path), &file));
    const enum mt_status status = mt_token_file_summarize(&file, &summary);
    mt_token_file_close(&file);
    MT_TRY(status);
    print(&file, &summary);
    return MT_OK;
}
