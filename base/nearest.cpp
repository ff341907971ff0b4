#include "base/nearest.h"

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <utility>

namespace caravan {

namespace {

// Letters inserted, dropped or changed between two words.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t changed = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({changed, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

std::string_view without_dashes(std::string_view word) {
  return word.substr(std::min(word.find_first_not_of('-'), word.size()));
}

bool is_close(std::string_view a, std::string_view b, size_t distance) {
  constexpr size_t kLeastInside = 3;  // fewer letters are inside of anything
  const std::string_view shorter = a.size() < b.size() ? a : b, longer = a.size() < b.size() ? b : a;
  if (shorter.size() >= kLeastInside && longer.find(shorter) != std::string_view::npos) return true;
  return distance <= (longer.size() + 1) / 3;
}

}  // namespace

std::string did_you_mean(std::string_view word, const std::vector<std::string_view>& known) {
  const std::string_view letters = without_dashes(word);
  std::string_view nearest;
  size_t least = ~size_t{0};
  for (const std::string_view one : known) {
    const size_t distance = edit_distance(letters, without_dashes(one));
    if (distance >= least || !is_close(letters, without_dashes(one), distance)) continue;
    least = distance;
    nearest = one;
  }
  return nearest.empty() ? "" : "; did you mean '" + std::string(nearest) + "'?";
}

}  // namespace caravan
