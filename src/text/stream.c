#include "text/stream.h"

#include "base/memory.h"

#include <string.h>

/* U+FFFD, which SentencePiece writes for bytes that are no whole character yet. */
static const char REPLACEMENT[] = "\xef\xbf\xbd";

enum mt_status mt_text_stream_init(struct mt_text_stream *stream,
                                   const struct mt_tokenizer *tokenizer, const int32_t *id,
                                   int64_t n)
{
    memset(stream, 0, sizeof(*stream));
    stream->tokenizer = tokenizer;
    stream->n_shown = n;
    return mt_ids_append(&stream->ids, id, n);
}

void mt_text_stream_clear(struct mt_text_stream *stream)
{
    mt_memory_free(stream->ids.item);
    mt_memory_free(stream->before.item);
    mt_memory_free(stream->after.item);
    memset(stream, 0, sizeof(*stream));
}

static bool is_whole(const struct mt_text *text)
{
    const int64_t n = (int64_t)sizeof(REPLACEMENT) - 1;
    return text->n < n || memcmp(text->item + text->n - n, REPLACEMENT, (size_t)n) != 0;
}

/* What the ids that are not shown add to those that are, and stand behind `first`. */
static enum mt_status show(struct mt_text_stream *stream, bool is_end, const char **text,
                           int64_t *n)
{
    const int32_t *id = stream->ids.item + stream->first;
    *text = "";
    *n = 0;
    stream->before.n = 0;
    stream->after.n = 0;
    MT_TRY(mt_tokenizer_decode(stream->tokenizer, id, stream->n_shown - stream->first,
                               &stream->before));
    MT_TRY(
        mt_tokenizer_decode(stream->tokenizer, id, stream->ids.n - stream->first, &stream->after));
    if (stream->after.n > stream->before.n && (is_end || is_whole(&stream->after))) {
        *text = stream->after.item + stream->before.n;
        *n = stream->after.n - stream->before.n;
        stream->first = stream->n_shown;
        stream->n_shown = stream->ids.n;
    }
    return MT_OK;
}

enum mt_status mt_text_stream_add(struct mt_text_stream *stream, int32_t id, const char **text,
                                  int64_t *n)
{
    MT_TRY(mt_ids_append(&stream->ids, &id, 1));
    return show(stream, false, text, n);
}

enum mt_status mt_text_stream_end(struct mt_text_stream *stream, const char **text, int64_t *n)
{
    return show(stream, true, text, n);
}
