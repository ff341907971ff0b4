#include "base/text_list.h"

#include <limits>

#include "base/error.h"

namespace caravan {

void TextList::push_back(std::string_view text) {
  if (text.size() > std::numeric_limits<uint32_t>::max() - bytes_.size())
    fail(ErrorCode::kLimit, "a list of texts has more than 4 GiB");
  bytes_ += text;
  ends_.push_back(static_cast<uint32_t>(bytes_.size()));
}

void TextList::shrink_to_fit() {
  bytes_.shrink_to_fit();
  ends_.shrink_to_fit();
}

void TextList::clear() {
  std::string().swap(bytes_);
  std::vector<uint32_t>().swap(ends_);
}

}  // namespace caravan
