#include "config/toml_reader.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <deque>
#include <exception>
#include <string>
#include <toml++/toml.h>
#include <vector>

namespace
{

// More dots in one key than any known path has; longer than any known key.
constexpr int max_dots = MT_TOML_MAX_DEPTH;
constexpr size_t max_name_bytes = 64;

struct storage {
    std::deque<std::string> text;  // addresses stay while it grows
    std::deque<std::vector<mt_toml_value>> items;
    std::vector<mt_toml_entry> entries;
};

struct place {
    int line = 1;
    int column = 1;
};

int narrow(toml::source_index index)
{
    return static_cast<int>(index);
}

// The byte length of the UTF-8 sequence at text[i]; 0 when it is malformed.
size_t sequence_bytes(std::string_view text, size_t i)
{
    const auto byte = [&](size_t k) {
        return k < text.size() ? static_cast<unsigned char>(text[k]) : 0U;
    };
    const unsigned first = byte(i);
    const size_t n = first < 0x80 ? 1 : first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    if (n == 0 || first > 0xF4) {
        return 0;
    }
    for (size_t k = 1; k < n; k++) {
        if ((byte(i + k) & 0xC0U) != 0x80U) {
            return 0;
        }
    }
    const bool overlong =
        (first == 0xE0 && byte(i + 1) < 0xA0) || (first == 0xF0 && byte(i + 1) < 0x90);
    const bool surrogate = first == 0xED && byte(i + 1) >= 0xA0;
    const bool beyond = first == 0xF4 && byte(i + 1) >= 0x90;
    return overlong || surrogate || beyond ? 0 : n;
}

// toml++ makes one nested table per dot of a key and frees them by recursion, so a key of a
// megabyte of dots would overflow the stack; nested values it bounds itself (256). This walk knows
// just enough of TOML to tell dots of keys from dots in strings and comments, and finds malformed
// UTF-8, whose place toml++ reports on the line before.
class scanner
{
  public:
    explicit scanner(std::string_view text) : text_(text)
    {
    }

    // What is wrong, or nullptr. `where` is then its place.
    const char *run(place &where)
    {
        while (i_ < text_.size()) {
            const size_t n = sequence_bytes(text_, i_);
            where = here_;
            if (n == 0) {
                return "the text is not UTF-8; a configuration is UTF-8 text; save the file as "
                       "such";
            }
            step(text_[i_]);
            if (dots_ > max_dots) {
                return "keys nest too deep; no key has that many parts; remove it";
            }
            i_ += n;
        }
        return nullptr;
    }

  private:
    void step(char c)
    {
        here_.column++;
        if (c == '\n') {
            here_.line++;
            here_.column = 1;
            comment_ = false;
            if (quote_bytes_ == 1) {
                quote_bytes_ = 0;  // an unended string; toml++ will say so
            }
        }
        if (comment_) {
            return;
        }
        if (quote_bytes_ > 0) {
            step_in_string(c);
        } else if (c == '"' || c == '\'') {
            open_string(c);
        } else if (c == '#') {
            comment_ = true;
        } else if (c == '.') {
            dots_++;
        } else if (std::strchr("=,[]{}\n", c) != nullptr) {
            dots_ = 0;
        }
    }

    bool triple_at(size_t i, char c) const
    {
        return i + 2 < text_.size() && text_[i] == c && text_[i + 1] == c && text_[i + 2] == c;
    }

    void skip(size_t n)
    {
        i_ += n;
        here_.column += static_cast<int>(n);
    }

    void open_string(char c)
    {
        quote_ = c;
        quote_bytes_ = triple_at(i_, c) ? 3 : 1;
        skip(quote_bytes_ - 1);
    }

    void step_in_string(char c)
    {
        if (c == '\\' && quote_ == '"' && i_ + 1 < text_.size() && text_[i_ + 1] != '\n' &&
            static_cast<unsigned char>(text_[i_ + 1]) < 0x80) {
            skip(1);
        } else if (c == quote_ && quote_bytes_ == 1) {
            quote_bytes_ = 0;
        } else if (c == quote_ && triple_at(i_, c)) {
            // Up to two quotation marks may stand before the three that end the string.
            size_t n = 3;
            while (n < 5 && i_ + n < text_.size() && text_[i_ + n] == c) {
                n++;
            }
            skip(n - 1);
            quote_bytes_ = 0;
        }
    }

    std::string_view text_;
    size_t i_ = 0;
    place here_;
    int dots_ = 0;
    bool comment_ = false;
    char quote_ = '\0';
    size_t quote_bytes_ = 0;  // 0 outside strings, else 1 or 3
};

bool is_bare(std::string_view name)
{
    for (const char c : name) {
        const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                           (c >= '0' && c <= '9') || c == '_' || c == '-';
        if (!plain) {
            return false;
        }
    }
    return !name.empty();
}

std::string path_part(std::string_view name)
{
    if (name.size() <= max_name_bytes && is_bare(name)) {
        return std::string(name);
    }
    size_t n = std::min(name.size(), max_name_bytes);
    while (n < name.size() && n > 0 && (static_cast<unsigned char>(name[n]) & 0xC0U) == 0x80U) {
        n--;  // not inside a UTF-8 sequence
    }
    return "\"" + std::string(name.substr(0, n)) + (n < name.size() ? "..." : "") + "\"";
}

mt_toml_value convert(const toml::node &node, storage &store)
{
    mt_toml_value value = {};
    value.type = MT_TOML_OTHER;
    value.line = narrow(node.source().begin.line);
    value.column = narrow(node.source().begin.column);
    if (const auto *boolean = node.as_boolean()) {
        value.type = MT_TOML_BOOL;
        value.boolean = boolean->get();
    } else if (const auto *integer = node.as_integer()) {
        value.type = MT_TOML_INTEGER;
        value.integer = integer->get();
    } else if (const auto *real = node.as_floating_point()) {
        value.type = MT_TOML_REAL;
        value.real = real->get();
    } else if (const auto *text = node.as_string()) {
        store.text.push_back(text->get());
        std::replace(store.text.back().begin(), store.text.back().end(), '\0', '\x01');
        value.type = MT_TOML_TEXT;
        value.text = store.text.back().c_str();
    } else if (node.is_array()) {
        value.type = MT_TOML_ARRAY;
    } else if (const auto *table = node.as_table()) {
        value.type = MT_TOML_TABLE;
        value.is_inline = table->is_inline();
    }
    return value;
}

void list_table(const toml::table &table, const std::string &prefix, int depth, storage &store)
{
    for (const auto &[key, node] : table) {
        store.text.push_back(prefix + path_part(key.str()));
        const std::string &path = store.text.back();
        mt_toml_entry entry = {};
        entry.path = path.c_str();
        entry.line = narrow(key.source().begin.line);
        entry.column = narrow(key.source().begin.column);
        entry.value = convert(node, store);
        if (const auto *array = node.as_array()) {
            store.items.emplace_back();
            for (const auto &item : *array) {
                store.items.back().push_back(convert(item, store));
            }
            entry.n_item = static_cast<int64_t>(store.items.back().size());
            entry.item = store.items.back().data();
        }
        store.entries.push_back(entry);
        const auto *below = node.as_table();
        if (below != nullptr && depth < MT_TOML_MAX_DEPTH) {
            list_table(*below, path + ".", depth + 1, store);
        }
    }
}

void fail(mt_toml_document *document, place where, std::string_view text)
{
    document->error_line = where.line;
    document->error_column = where.column;
    // Cut where it would not fit: the message starts with what matters.
    (void)std::snprintf(document->error, sizeof(document->error), "%.*s",
                        static_cast<int>(std::min<size_t>(text.size(), MT_TOML_ERROR_BYTES)),
                        text.data());
}

void parse(std::string_view text, mt_toml_document *document, storage &store)
{
    place where;
    const char *wrong = scanner(text).run(where);
    if (wrong != nullptr) {
        fail(document, where, wrong);
        return;
    }
    try {
        const toml::table root = toml::parse(text);
        list_table(root, "", 1, store);
        document->n_entry = static_cast<int64_t>(store.entries.size());
        document->entry = store.entries.data();
    } catch (const toml::parse_error &error) {
        std::string message(error.description());
        if (message.find("64 bits") != std::string::npos) {
            message += "; integers reach from -9223372036854775808 to 9223372036854775807";
        }
        where.line = narrow(error.source().begin.line);
        where.column = narrow(error.source().begin.column);
        fail(document, where, message);
    }
}

}  // namespace

bool mt_toml_open(const char *text, int64_t text_bytes, struct mt_toml_document *document)
{
    *document = {};
    try {
        auto *store = new storage;
        document->owner = store;
        parse(std::string_view(text, static_cast<size_t>(text_bytes)), document, *store);
    } catch (const std::exception &error) {
        document->n_entry = 0;
        document->entry = nullptr;
        fail(document, place(), std::string("the text cannot be read: ") + error.what());
    }
    return document->error[0] == '\0';
}

void mt_toml_close(struct mt_toml_document *document)
{
    delete static_cast<storage *>(document->owner);
    *document = {};
}

bool mt_toml_is_utf8(const char *text)
{
    const std::string_view view(text);
    size_t i = 0;
    while (i < view.size()) {
        const size_t n = sequence_bytes(view, i);
        if (n == 0) {
            return false;
        }
        i += n;
    }
    return true;
}
