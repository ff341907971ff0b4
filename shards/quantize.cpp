#include "shards/quantize.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>
#include <system_error>
#include <thread>

#include "base/check.h"
#include "base/error.h"
#include "shards/gguf.h"
#include "shards/gguf_facts.h"
#include "shards/gguf_writer.h"
#include "shards/names.h"

namespace caravan {

namespace {

using Kind = GroupId::Kind;

constexpr uint64_t kRunElements = 1u << 20;  // converted at once by one thread: 4 MiB of f32

// Rows that come from one place of the source.
struct Part {
  TensorType type{};
  Extent extent;
  uint64_t rows = 0;
  uint32_t turned_heads = 0;  // rows of so many heads go from rotary halves to pairs; 0: as they are
};

struct Piece {
  GgufTensorPlan plan;
  std::vector<Part> parts;   // one after the other
  std::vector<float> given;  // F32 values that are in no file, instead of parts
};

struct Plan {
  Metadata metadata;
  std::vector<Piece> pieces;
};

uint64_t file_type(TensorType type) {
  switch (type) {
    case TensorType::kF32:
      return 0;
    case TensorType::kF16:
      return 1;
    case TensorType::kQ4_0:
      return 2;
    case TensorType::kQ4_1:
      return 3;
    case TensorType::kQ8_0:
      return 7;
    case TensorType::kQ5_0:
      return 8;
    case TensorType::kQ5_1:
      return 9;
    case TensorType::kQ4_K:
      return 14;
    case TensorType::kQ5_K:
      return 16;
    case TensorType::kQ6_K:
      return 18;
    case TensorType::kBF16:
      return 32;
  }
  return 0;
}

// Norms, biases and routers stay exact: they are small, and what they do is not.
TensorType target_type(const QuantizeOptions& options, Role role, const std::string& name,
                       const std::vector<uint64_t>& dimensions) {
  if (dimensions.size() < 2 || role == Role::kRouter) return TensorType::kF32;
  const FormatTraits& format = traits(options.type);
  if (dimensions[0] % format.block_elements == 0) return options.type;
  options.note(fmt::format("{}: rows of {} are no multiple of {}: stored as F16", name, dimensions[0],
                           format.block_elements));
  return TensorType::kF16;
}

// A GGUF file keeps its metadata, names and layout.
Plan plan_gguf(const Manifest& source, const QuantizeOptions& options) {
  const GgufFile file = read_gguf(source.source->mapped({0, 0, source.source->file_bytes(0)}), source.path);
  Plan plan{source.metadata, {}};
  for (const GgufTensor& tensor : file.tensors) {
    Piece piece{{tensor.name, tensor.type, tensor.dimensions}, {}, {}};
    const auto place = place_of(source.origin, source.architecture, tensor.name);
    if (place)
      piece.plan.type = target_type(options, place->role, tensor.name, tensor.dimensions);
    else
      options.note(fmt::format("{}: not known; copied as it is", tensor.name));
    uint64_t rows = 1;
    for (size_t i = 1; i < tensor.dimensions.size(); ++i) rows *= tensor.dimensions[i];
    piece.parts.push_back({tensor.type, {0, tensor.offset, tensor.bytes}, rows, 0});
    plan.pieces.push_back(std::move(piece));
  }
  return plan;
}

class FolderPlanner {
 public:
  FolderPlanner(const Manifest& source, const QuantizeOptions& options)
      : source_(source), options_(options), facts_(gguf_facts(source, options.note)) {}

  Plan plan() {
    add_group({Kind::kEmbed});
    if (!facts_.rope_divisors.empty())
      pieces_.push_back(
          {{gguf_name({Kind::kEmbed}, Role::kRopeFactors), TensorType::kF32, {facts_.rope_divisors.size()}},
           {},
           facts_.rope_divisors});
    for (uint32_t layer = 0; layer < source_.layer_count; ++layer) {
      add_group({Kind::kAttention, layer});
      add_group({Kind::kFeedForward, layer});
      add_experts(layer);
    }
    add_group({Kind::kOutput});
    for (const std::string& name : source_.ignored)
      options_.note(fmt::format("{}: not known; left out", name));
    return {std::move(facts_.metadata), std::move(pieces_)};
  }

 private:
  void add_group(GroupId id) {
    const WeightGroup* group = source_.find(id);
    if (!group) return;
    for (const Tensor& tensor : group->tensors)
      if (!is_tied(tensor)) pieces_.push_back(piece_of(id, tensor));
  }

  bool is_tied(const Tensor& tensor) const {
    if (tensor.role != Role::kOutput) return false;
    const Tensor* embedding = source_.find({Kind::kEmbed})->find(Role::kEmbedding);
    return embedding && embedding->extent.file == tensor.extent.file &&
           embedding->extent.offset == tensor.extent.offset;
  }

  uint32_t turned_heads(Role role) const {
    if (!facts_.interleaved) return 0;
    if (role == Role::kQuery || role == Role::kQueryBias) return facts_.heads;
    if (role == Role::kKey || role == Role::kKeyBias) return facts_.kv_heads;
    return 0;
  }

  Piece piece_of(GroupId id, const Tensor& tensor) const {
    Piece piece;
    piece.plan.name = gguf_name(id, tensor.role);
    piece.plan.dimensions = {tensor.columns};
    if (!is_vector(tensor.role)) piece.plan.dimensions.push_back(tensor.rows);
    piece.plan.type = target_type(options_, tensor.role, piece.plan.name, piece.plan.dimensions);
    Part part{tensor.type, tensor.extent, tensor.rows, turned_heads(tensor.role)};
    // A bias is one row whose elements are turned as the rows of its matrix are: take it as a column.
    if (part.turned_heads && is_vector(tensor.role)) part.rows = tensor.columns;
    if (part.turned_heads && part.rows % (2 * part.turned_heads) != 0)
      fail(ErrorCode::kMalformed, "{}: tensor {}: {} rows are not pairs of {} heads", source_.path,
           tensor.name, part.rows, part.turned_heads);
    piece.parts.push_back(part);
    return piece;
  }

  // The same matrix of all experts as one tensor.
  void add_experts(uint32_t layer) {
    const WeightGroup* first = source_.find({Kind::kExpert, layer, 0});
    if (!first) return;
    for (const Tensor& tensor : first->tensors) {
      Piece piece = piece_of(first->id, tensor);
      uint32_t expert = 1;
      while (const WeightGroup* group = source_.find({Kind::kExpert, layer, expert})) {
        const Tensor* same = group->find(tensor.role);
        CHECK(same != nullptr);
        piece.parts.push_back({same->type, same->extent, same->rows, 0});
        ++expert;
      }
      piece.plan.dimensions.push_back(expert);
      pieces_.push_back(std::move(piece));
    }
  }

  const Manifest& source_;
  const QuantizeOptions& options_;
  GgufFacts facts_;
  std::vector<Piece> pieces_;
};

// Runs body(begin, end) over [0, count) in equal shares, one a thread; the first exception is thrown again.
template <class Body>
void share(uint32_t threads, uint64_t count, Body body) {
  const uint64_t share = (count + threads - 1) / threads;
  std::vector<std::exception_ptr> errors(threads);
  const auto run = [&](uint32_t index) {
    try {
      const uint64_t begin = std::min(count, index * share), end = std::min(count, begin + share);
      if (begin < end) body(begin, end);
    } catch (...) {
      errors[index] = std::current_exception();
    }
  };
  std::vector<std::thread> workers;
  uint32_t next = 1;
  try {
    for (; next < threads; ++next) workers.emplace_back(run, next);
  } catch (const std::system_error&) {
    // The system has no more threads: the rest is done here.
  }
  run(0);
  for (; next < threads; ++next) run(next);
  for (std::thread& worker : workers) worker.join();
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

class Converter {
 public:
  Converter(const Manifest& source, const QuantizeOptions& options, GgufWriter& writer)
      : source_(source), options_(options), threads_(std::max(1u, options.threads)), writer_(writer) {}

  void convert(const Piece& piece) {
    if (!piece.given.empty()) return writer_.append(std::as_bytes(std::span(piece.given)));
    const uint64_t columns = piece.plan.dimensions[0];
    for (const Part& part : piece.parts) {
      const bool column = part.rows == columns && piece.plan.dimensions.size() == 1;
      convert_part(piece, part, column ? 1 : columns);
    }
  }

 private:
  void convert_part(const Piece& piece, const Part& part, uint64_t columns) {
    const TensorType to = piece.plan.type;
    const uint64_t source_row = row_bytes(part.type, columns), target_row = row_bytes(to, columns);
    CHECK(part.extent.length == part.rows * source_row);
    if (part.type == to && part.turned_heads == 0) return copy(part);
    const uint64_t batch = std::max<uint64_t>(1, kRunElements / columns) * threads_;
    std::vector<std::byte> out;
    for (uint64_t first = 0; first < part.rows; first += batch) {
      const uint64_t count = std::min(batch, part.rows - first);
      out.resize(count * target_row);
      share(threads_, count, [&](uint64_t begin, uint64_t end) {
        const std::vector<float> values = read_rows(part, columns, first + begin, first + end);
        write_rows(piece.plan, values,
                   std::span(out).subspan(begin * target_row, (end - begin) * target_row));
      });
      writer_.append(out);
      options_.advance(count * source_row);
    }
  }

  void copy(const Part& part) {
    constexpr uint64_t kPiece = 8u << 20;
    std::vector<std::byte> bytes;
    for (uint64_t at = 0; at < part.extent.length; at += bytes.size()) {
      bytes.resize(std::min(kPiece, part.extent.length - at));
      source_.source->read(part.extent.file, part.extent.offset + at, bytes);
      writer_.append(bytes);
      options_.advance(bytes.size());
    }
  }

  // Where the row that goes to `row` comes from: pair i of a head takes rows i and i + half.
  static uint64_t source_row(const Part& part, uint64_t row) {
    if (part.turned_heads == 0) return row;
    const uint64_t head_rows = part.rows / part.turned_heads, inside = row % head_rows;
    return row - inside + inside % 2 * (head_rows / 2) + inside / 2;
  }

  std::vector<float> read_rows(const Part& part, uint64_t columns, uint64_t begin, uint64_t end) const {
    const uint64_t bytes = row_bytes(part.type, columns);
    std::vector<std::byte> raw((end - begin) * bytes);
    if (part.turned_heads == 0) {
      source_.source->read(part.extent.file, part.extent.offset + begin * bytes, raw);
    } else {
      for (uint64_t row = begin; row < end; ++row)
        source_.source->read(part.extent.file, part.extent.offset + source_row(part, row) * bytes,
                             std::span(raw).subspan((row - begin) * bytes, bytes));
    }
    std::vector<float> values((end - begin) * columns);
    dequantize(part.type, raw, values);
    return values;
  }

  void write_rows(const GgufTensorPlan& plan, std::span<const float> values, std::span<std::byte> out) const {
    const float most = plan.type == TensorType::kF16 ? 65520.0f : std::numeric_limits<float>::infinity();
    for (const float value : values)
      if (!(std::fabs(value) < most))
        fail(ErrorCode::kUnsupported, "{}: tensor {}: the value {} does not fit in {}", source_.path,
             plan.name, value, traits(plan.type).name);
    try {
      quantize(plan.type, values, out);
    } catch (const Error& error) {
      fail(error.code(), "{}: tensor {}: {}", source_.path, plan.name, error.message());
    }
  }

  const Manifest& source_;
  const QuantizeOptions& options_;
  const uint32_t threads_;
  GgufWriter& writer_;
};

}  // namespace

uint64_t quantize_bytes(const Manifest& source) {
  return source.bytes().count;
}

void quantize_model(const Manifest& source, const std::string& out_path, const QuantizeOptions& given) {
  QuantizeOptions options = given;
  if (!options.advance) options.advance = [](uint64_t) {};
  if (!options.note) options.note = [](const std::string&) {};
  if (source.groups.empty())
    fail(ErrorCode::kInvalidArgument, "{}: there are no weights to quantize", source.path);
  Plan plan = source.origin == Manifest::Origin::kGguf ? plan_gguf(source, options)
                                                       : FolderPlanner(source, options).plan();
  if (!options.name.empty()) plan.metadata.set("general.name", options.name);
  plan.metadata.set("general.alignment", kGgufDefaultAlignment);
  plan.metadata.set("general.file_type", file_type(options.type));
  plan.metadata.set("general.quantization_version", uint64_t{2});
  std::vector<GgufTensorPlan> tensors;
  for (const Piece& piece : plan.pieces) tensors.push_back(piece.plan);
  GgufWriter writer(out_path, plan.metadata, std::move(tensors));
  Converter converter(source, options, writer);
  for (const Piece& piece : plan.pieces) converter.convert(piece);
  writer.finish();
}

}  // namespace caravan
