#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/ids.h"

namespace caravan {

// A reference case as tests/reference/README.md describes it.
struct ReferenceCase {
  std::vector<std::vector<TokenId>> inputs, greedy;
};
// What its config.json says; empty when that is not there or no JSON.
std::string model_type(const std::filesystem::path& folder);
ReferenceCase read_case(const std::filesystem::path& folder);

// expected.safetensors, f32 tensors by name.
class Expected {
 public:
  explicit Expected(const std::filesystem::path& folder);
  ~Expected();
  std::vector<float> tensor(const std::string& name) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The largest over rows of norm(a - b) / norm(b).
double worst_row(const std::vector<float>& a, const std::vector<float>& b, size_t width);

// Folders of the material beside the project: the environment variable CARAVAN_SHARED, else ../shared.
std::filesystem::path shared_folder();

std::vector<float> read_floats(const std::filesystem::path& path);

// A file of {prompt_ids, ids, margins}.
struct GreedyCase {
  std::vector<TokenId> prompt, ids;
  std::vector<double> margins;
};
GreedyCase read_greedy_case(const std::filesystem::path& path);

}  // namespace caravan
