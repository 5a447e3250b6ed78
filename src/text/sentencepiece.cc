// SentencePiece models, by that library. Exceptions and C++ end here.
#include "text/kinds.h"

#include <new>
#include <sentencepiece_processor.h>
#include <string>
#include <vector>

namespace
{

using sentencepiece::SentencePieceProcessor;

// The library prints its own errors: silenced, because a message is spoken once, by who may.
SentencePieceProcessor *load(const char *path, std::string *why)
{
    auto *processor = new (std::nothrow) SentencePieceProcessor;
    if (processor == nullptr) {
        *why = "out of memory";
        return nullptr;
    }
    const auto status = processor->Load(path);
    if (!status.ok()) {
        *why = status.ToString();
        delete processor;
        return nullptr;
    }
    return processor;
}

enum mt_status open_model(const char *path, void **own)
{
    std::string why;
    *own = load(path, &why);
    if (*own == nullptr) {
        return MT_FAIL(MT_ERR_INPUT, "%s: %.200s; a SentencePiece model was expected; restore it",
                       path, why.c_str());
    }
    return MT_OK;
}

const SentencePieceProcessor *as_processor(const void *own)
{
    return static_cast<const SentencePieceProcessor *>(own);
}

void close_model(void *own)
{
    delete static_cast<SentencePieceProcessor *>(own);
}

int64_t vocab_size(const void *own)
{
    return as_processor(own)->GetPieceSize();
}

int32_t find(const void *own, const char *token)
{
    const int id = as_processor(own)->PieceToId(token);
    return id != as_processor(own)->unk_id() || as_processor(own)->IdToPiece(id) == token ? id : -1;
}

enum mt_status encode(const void *own, const char *text, int64_t n, struct mt_ids *ids)
{
    std::vector<int> found;
    MT_TRY(mt_text_check_utf8(text, n));
    const auto status =
        as_processor(own)->Encode(absl::string_view(text, static_cast<size_t>(n)), &found);
    if (!status.ok()) {
        return MT_FAIL(MT_ERR_INPUT, "SentencePiece cannot encode a text of %lld bytes: %.200s",
                       static_cast<long long>(n), status.ToString().c_str());
    }
    return mt_ids_append(ids, found.data(), static_cast<int64_t>(found.size()));
}

enum mt_status decode(const void *own, const int32_t *id, int64_t n, struct mt_text *text)
{
    std::vector<int> known;
    std::string out;
    for (int64_t i = 0; i < n; ++i) {
        if (id[i] >= 0 && id[i] < vocab_size(own)) {
            known.push_back(id[i]);
        }
    }
    const auto status = as_processor(own)->Decode(known, &out);
    if (!status.ok()) {
        return MT_FAIL(MT_ERR_INPUT, "SentencePiece cannot decode %lld ids: %.200s",
                       static_cast<long long>(n), status.ToString().c_str());
    }
    return mt_text_append(text, out.data(), static_cast<int64_t>(out.size()));
}

}  // namespace

const struct mt_tokenizer_kind mt_tokenizer_sentencepiece = {
    ".model", open_model, close_model, vocab_size, find, encode, decode};
