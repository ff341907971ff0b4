#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"

namespace caravan {

// Texts by number, one after the other in one piece of memory: a vocabulary as std::strings takes several
// times the bytes of its texts. A text stays where it is until the next one is added.
class TextList {
 public:
  using value_type = std::string_view;

  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = std::string_view;
    using difference_type = std::ptrdiff_t;
    using pointer = const std::string_view*;
    using reference = std::string_view;
    Iterator(const TextList& list, size_t at) : list_(&list), at_(at) {}
    std::string_view operator*() const { return (*list_)[at_]; }
    Iterator& operator++() {
      ++at_;
      return *this;
    }
    bool operator==(const Iterator& other) const { return at_ == other.at_; }

   private:
    const TextList* list_;
    size_t at_;
  };

  TextList() = default;
  TextList(std::initializer_list<std::string_view> texts) {
    for (const std::string_view text : texts) push_back(text);
  }
  explicit TextList(const std::vector<std::string>& texts) {
    reserve(texts.size());
    for (const std::string& text : texts) push_back(text);
  }

  void reserve(size_t count) { ends_.reserve(count); }
  // Throws kLimit when all together have more than 4 GiB.
  void push_back(std::string_view text);
  // Gives back what was reserved for more.
  void shrink_to_fit();
  // Gives all its memory back, too.
  void clear();

  std::string_view operator[](size_t i) const {
    const size_t begin = i > 0 ? ends_[i - 1] : 0;
    return std::string_view(bytes_).substr(begin, ends_[i] - begin);
  }
  size_t size() const { return ends_.size(); }
  bool empty() const { return ends_.empty(); }
  Iterator begin() const { return {*this, 0}; }
  Iterator end() const { return {*this, size()}; }
  bool operator==(const TextList&) const = default;
  // What it holds of memory.
  Bytes memory() const { return {bytes_.capacity() + ends_.capacity() * sizeof(uint32_t)}; }

 private:
  std::string bytes_;
  std::vector<uint32_t> ends_;  // by number, into bytes_
};

}  // namespace caravan
