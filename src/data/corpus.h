/* Corpora: token sequences of one length, addressed by window number.
 *
 * A source is cut into windows of T tokens that do not overlap; a window's last target is the first
 * token of the next; windows do not cross files. A file of n tokens has (n - 1) / T of them.
 * Documents of a file follow each other in one stream and are packed into windows as they come;
 * where they begin is told for those who keep attention within them.
 * Format `random` makes seeded ids out of nothing and has no end. */
#ifndef MT_DATA_CORPUS_H
#define MT_DATA_CORPUS_H

#include "base/status.h"
#include "config/config.h"

#include <stdint.h>

struct mt_corpus;

struct mt_corpus_options {
    enum mt_data_format format;
    enum mt_token_type token_type; /* of format tokens, without a header */
    int64_t vocab_size, length;    /* V, T */
    uint64_t seed;                 /* of format random */
    int64_t document_end;          /* the token that ends a document; -1: the index tells */
};

/* paths may be files or folders (file_list.h). Files stay open and unchanged while the corpus is.
 * MT_ERR_INPUT, naming the file: missing, unreadable, empty, of a wrong layout, shorter than T + 1
 * tokens in all, or a token id >= V (with its offset; the first Mi tokens are checked here, the
 * others when read). Takes no longer, and no more memory, the larger the files are. */
enum mt_status mt_corpus_open(const struct mt_path_list *paths,
                              const struct mt_corpus_options *options, struct mt_corpus **out);
void mt_corpus_close(struct mt_corpus *corpus); /* NULL allowed */
/* Windows of one epoch; INT64_MAX for format random. */
int64_t mt_corpus_n_window(const struct mt_corpus *corpus);

/* Of the files' content, or of the seed: what a checkpoint compares on resuming. Not of paths. */
enum mt_status mt_corpus_fingerprint(const struct mt_corpus *corpus, uint64_t *fingerprint);

/* token, target [T] of a window in [0, n_window). */
enum mt_status mt_corpus_read(const struct mt_corpus *corpus, int64_t window, int32_t *token,
                              int32_t *target);

/* Where documents begin in windows that lie behind one another: start [n + 1], the last one their
 * end. A window begins a document, whatever it continues. */
struct mt_document_starts {
    int64_t n;
    int64_t *start; /* room for one a token, and one */
};
/* Appends those of a window; token [T]: as read. MT_ERR_INPUT when the index of the file is
 * damaged, or there is none and no document_end. */
enum mt_status mt_corpus_documents(const struct mt_corpus *corpus, int64_t window,
                                   const int32_t *token, struct mt_document_starts *documents);

#endif
