#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

// Text as templates see it: UTF-8 bytes that behave like Python's strings of code points. Every string_view
// here is valid UTF-8 (checked where text enters), so nothing in this file fails.
namespace caravan::tmpl::text {

bool is_ascii(std::string_view s);
bool is_utf8(std::string_view s);

// The code point at `offset`, which moves past it. `offset` < s.size().
char32_t decode(std::string_view s, size_t& offset);
void append(std::string& out, char32_t code_point);

size_t length(std::string_view s);                        // in code points
size_t byte_offset(std::string_view s, size_t index);     // of the index-th code point; s.size() past the end
size_t index_of(std::string_view s, size_t byte_offset);  // the code points before `byte_offset`

bool is_space(char32_t c);
bool is_line_break(char32_t c);
bool is_alpha(char32_t c);
bool is_decimal(char32_t c);
bool is_digit(char32_t c);
bool is_numeric(char32_t c);
bool is_lower(char32_t c);
bool is_upper(char32_t c);
bool is_title(char32_t c);
bool is_printable(char32_t c);
bool is_word(char32_t c);  // a letter, a number or an underscore
bool is_identifier(std::string_view s);

std::string upper(std::string_view s);
std::string lower(std::string_view s);
std::string title(std::string_view s);       // the first letter of every run of letters
std::string capitalize(std::string_view s);  // the first character alone
std::string swapcase(std::string_view s);
std::string casefold(std::string_view s);

enum class Side { kLeft, kRight, kBoth };
std::string_view strip(std::string_view s, Side side);  // white space
std::string_view strip(std::string_view s, std::string_view characters, Side side);

// Pieces between runs of white space, or between `separator` (not empty); `limit` < 0 means no limit on
// splits. The r-forms count splits from the right; pieces come in order of the text all the same.
std::vector<std::string_view> split(std::string_view s, long limit);
std::vector<std::string_view> split(std::string_view s, std::string_view separator, long limit);
std::vector<std::string_view> rsplit(std::string_view s, long limit);
std::vector<std::string_view> rsplit(std::string_view s, std::string_view separator, long limit);
std::vector<std::string_view> split_lines(std::string_view s, bool keep_ends);

// `limit` < 0 replaces all; an empty `from` matches between all code points, as in Python.
std::string replace(std::string_view s, std::string_view from, std::string_view to, long limit);

std::string escape_html(std::string_view s);

}  // namespace caravan::tmpl::text
