// SentencePiece models, by that library. Exceptions and C++ end here.
#include "text/kinds.h"

#include "base/input_file.h"
#include "base/memory.h"

#include <exception>
#include <memory>
#include <sentencepiece_processor.h>
#include <string>
#include <vector>

namespace
{

using sentencepiece::SentencePieceProcessor;

constexpr int64_t most_bytes = int64_t{1} << 28;

// What the library throws: out of memory, or what a damaged model makes of its containers.
template <typename Action> enum mt_status guarded(const char *what, Action action)
{
    try {
        return action();
    } catch (const std::bad_alloc &) {
        return MT_FAIL(MT_ERR_RESOURCE, "out of memory: SentencePiece cannot %s; free some", what);
    } catch (const std::exception &problem) {
        return MT_FAIL(MT_ERR_INPUT, "SentencePiece cannot %s: %.200s; restore the model", what,
                       problem.what());
    }
}

enum mt_status parse(const char *path, const char *data, int64_t n_byte, void **own)
{
    auto processor = std::make_unique<SentencePieceProcessor>();
    const auto status =
        processor->LoadFromSerializedProto(absl::string_view(data, static_cast<size_t>(n_byte)));
    if (!status.ok()) {
        return MT_FAIL(MT_ERR_INPUT, "%s: %.200s; a SentencePiece model was expected; restore it",
                       path, status.ToString().c_str());
    }
    *own = processor.release();
    return MT_OK;
}

enum mt_status open_model(const char *path, void **own)
{
    char *data = nullptr;
    int64_t n_byte = 0;
    *own = nullptr;
    MT_TRY(mt_input_read(path, "a SentencePiece model was expected", most_bytes, &data, &n_byte));
    const enum mt_status status =
        guarded("read the model", [&] { return parse(path, data, n_byte, own); });
    mt_memory_free(data);
    return status;
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
    MT_TRY(mt_text_check_utf8(text, n));
    return guarded("encode a text", [&] {
        std::vector<int> found;
        const auto status =
            as_processor(own)->Encode(absl::string_view(text, static_cast<size_t>(n)), &found);
        if (!status.ok()) {
            return MT_FAIL(MT_ERR_INPUT, "SentencePiece cannot encode a text of %lld bytes: %.200s",
                           static_cast<long long>(n), status.ToString().c_str());
        }
        return mt_ids_append(ids, found.data(), static_cast<int64_t>(found.size()));
    });
}

enum mt_status decode(const void *own, const int32_t *id, int64_t n, struct mt_text *text)
{
    return guarded("decode ids", [&] {
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
    });
}

}  // namespace

const struct mt_tokenizer_kind mt_tokenizer_sentencepiece = {
    ".model", open_model, close_model, vocab_size, find, encode, decode};
