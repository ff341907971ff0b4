#include "shards/not_finite.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "compute/format.h"

namespace caravan {

namespace {

constexpr uint64_t kPieceBytes = 1u << 20;  // of whole rows, and at least one

bool is_finite(const Source& source, const Tensor& tensor) {
  const uint64_t row = row_bytes(tensor.type, tensor.columns);
  const uint64_t rows_a_piece = std::max<uint64_t>(1, kPieceBytes / row);
  std::vector<std::byte> bytes;
  std::vector<float> values;
  for (uint64_t first = 0; first < tensor.rows; first += rows_a_piece) {
    const uint64_t rows = std::min<uint64_t>(rows_a_piece, tensor.rows - first);
    bytes.resize(rows * row);
    values.resize(rows * tensor.columns);
    source.read(tensor.extent.file, tensor.extent.offset + first * row, bytes);
    dequantize(tensor.type, bytes, values);
    if (!std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); }))
      return false;
  }
  return true;
}

}  // namespace

std::optional<NotFinite> find_not_finite(const Manifest& manifest, Bytes most) {
  for (const WeightGroup& group : manifest.groups)
    for (const Tensor& tensor : group.tensors) {
      if (tensor.extent.length > most.count) return std::nullopt;
      most -= Bytes{tensor.extent.length};
      if (!is_finite(*manifest.source, tensor))
        return NotFinite{group.id, tensor.name,
                         manifest.source->file_path(tensor.extent.file).value_or(manifest.path)};
    }
  return std::nullopt;
}

}  // namespace caravan
