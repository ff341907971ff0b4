#include "shards/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <unordered_set>

#include "base/bytes.h"
#include "base/error.h"
#include "base/limits.h"

namespace caravan {

namespace {

static_assert(std::endian::native == std::endian::little, "files are little-endian and read as they are");

constexpr uint32_t kMagic = 0x46554747;         // "GGUF"
constexpr uint64_t kMinEntryBytes = 8 + 4 + 1;  // an empty key, a type, one byte of value
constexpr uint64_t kMinTensorBytes = 8 + 4 + 8 + 4 + 8;
constexpr uint64_t kMaxAlignment = 1u << 20;

// Takes values off the front of the file; `what` names the place in errors.
class Reader {
 public:
  Reader(std::span<const std::byte> bytes, std::string_view file) : bytes_(bytes), file_(file) {}

  template <class T>
  T take(std::string_view what) {
    require(sizeof(T), what);
    T value;
    std::memcpy(&value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }

  std::string_view take_string(std::string_view what, uint64_t most = limits::kMaxStringBytes) {
    const auto length = take<uint64_t>(what);
    if (length > most)
      fail(ErrorCode::kLimit, "{}: {}: a string of {} bytes is longer than {}", file_, what, length, most);
    require(length, what);
    const std::string_view text(reinterpret_cast<const char*>(bytes_.data() + position_), length);
    position_ += length;
    return text;
  }

  void require(uint64_t count, std::string_view what) const {
    if (count > remaining())
      fail(ErrorCode::kMalformed,
           "{}: {}: cut short or damaged: the file ends at byte {}, at least {} more bytes are needed here",
           file_, what, bytes_.size(), count - remaining());
  }

  uint64_t remaining() const { return bytes_.size() - position_; }
  uint64_t position() const { return position_; }
  std::string_view file() const { return file_; }

 private:
  std::span<const std::byte> bytes_;
  std::string_view file_;
  uint64_t position_ = 0;
};

// Bytes of one element; of strings and arrays the fewest it can have.
uint64_t least_bytes(GgufType type) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool:
      return 1;
    case GgufType::kU16:
    case GgufType::kI16:
      return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32:
      return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64:
    case GgufType::kString:
      return 8;
    case GgufType::kArray:
      return 12;
  }
  return 0;
}

GgufType take_type(Reader& reader, std::string_view key) {
  const auto number = reader.take<uint32_t>(key);
  if (number > static_cast<uint32_t>(GgufType::kF64))
    fail(ErrorCode::kMalformed, "{}: key {}: there is no value type {}", reader.file(), key, number);
  return static_cast<GgufType>(number);
}

bool take_bool(Reader& reader, std::string_view key) {
  const auto value = reader.take<uint8_t>(key);
  if (value > 1)
    fail(ErrorCode::kMalformed, "{}: key {}: a boolean has the value {}", reader.file(), key, value);
  return value == 1;
}

Metadata::Value take_scalar(Reader& reader, GgufType type, std::string_view key) {
  switch (type) {
    case GgufType::kU8:
      return uint64_t{reader.take<uint8_t>(key)};
    case GgufType::kI8:
      return int64_t{reader.take<int8_t>(key)};
    case GgufType::kU16:
      return uint64_t{reader.take<uint16_t>(key)};
    case GgufType::kI16:
      return int64_t{reader.take<int16_t>(key)};
    case GgufType::kU32:
      return uint64_t{reader.take<uint32_t>(key)};
    case GgufType::kI32:
      return int64_t{reader.take<int32_t>(key)};
    case GgufType::kU64:
      return reader.take<uint64_t>(key);
    case GgufType::kI64:
      return reader.take<int64_t>(key);
    case GgufType::kF32:
      return double{reader.take<float>(key)};
    case GgufType::kF64:
      return reader.take<double>(key);
    case GgufType::kBool:
      return take_bool(reader, key);
    case GgufType::kString:
      return std::string(reader.take_string(key));
    case GgufType::kArray:
      break;
  }
  fail(ErrorCode::kMalformed, "{}: key {}: an array is no single value", reader.file(), key);
}

template <class Out, class In>
std::vector<Out> take_numbers(Reader& reader, uint64_t count, std::string_view key) {
  std::vector<Out> values(count);
  for (auto&& value : values) value = reader.take<In>(key);
  return values;
}

Metadata::Value take_elements(Reader& reader, GgufType type, uint64_t count, std::string_view key) {
  switch (type) {
    case GgufType::kU8:
      return take_numbers<uint64_t, uint8_t>(reader, count, key);
    case GgufType::kI8:
      return take_numbers<int64_t, int8_t>(reader, count, key);
    case GgufType::kU16:
      return take_numbers<uint64_t, uint16_t>(reader, count, key);
    case GgufType::kI16:
      return take_numbers<int64_t, int16_t>(reader, count, key);
    case GgufType::kU32:
      return take_numbers<uint64_t, uint32_t>(reader, count, key);
    case GgufType::kI32:
      return take_numbers<int64_t, int32_t>(reader, count, key);
    case GgufType::kU64:
      return take_numbers<uint64_t, uint64_t>(reader, count, key);
    case GgufType::kI64:
      return take_numbers<int64_t, int64_t>(reader, count, key);
    case GgufType::kF32:
      return take_numbers<double, float>(reader, count, key);
    case GgufType::kF64:
      return take_numbers<double, double>(reader, count, key);
    case GgufType::kBool: {
      std::vector<bool> values(count);
      for (auto&& value : values) value = take_bool(reader, key);
      return values;
    }
    case GgufType::kString: {
      TextList values;
      values.reserve(count);
      for (uint64_t i = 0; i < count; ++i) values.push_back(reader.take_string(key));
      values.shrink_to_fit();
      return values;
    }
    case GgufType::kArray:
      break;
  }
  fail(ErrorCode::kMalformed, "{}: key {}: cannot be read", reader.file(), key);
}

void add_entry(Metadata& metadata, const Reader& reader, const std::string& key, Metadata::Value value) {
  if (metadata.has(key)) fail(ErrorCode::kMalformed, "{}: key {} is there twice", reader.file(), key);
  if (metadata.values().size() >= limits::kMaxMetadataEntries)
    fail(ErrorCode::kLimit, "{}: more than {} metadata entries", reader.file(), limits::kMaxMetadataEntries);
  metadata.set(key, std::move(value));
}

void take_array(Reader& reader, Metadata& metadata, const std::string& key, uint64_t depth) {
  if (depth > limits::kMaxMetadataDepth)
    fail(ErrorCode::kLimit, "{}: key {}: arrays are nested deeper than {}", reader.file(), key,
         limits::kMaxMetadataDepth);
  const GgufType type = take_type(reader, key);
  const auto count = reader.take<uint64_t>(key);
  if (count > limits::kMaxMetadataArray)
    fail(ErrorCode::kLimit, "{}: key {}: an array of {} elements is longer than {}", reader.file(), key,
         count, limits::kMaxMetadataArray);
  reader.require(count * least_bytes(type), key);
  if (type != GgufType::kArray)
    return add_entry(metadata, reader, key, take_elements(reader, type, count, key));
  for (uint64_t i = 0; i < count; ++i) take_array(reader, metadata, key + "." + std::to_string(i), depth + 1);
}

void take_metadata(Reader& reader, Metadata& metadata, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) {
    const std::string key(reader.take_string("a metadata key", limits::kMaxKeyBytes));
    const GgufType type = take_type(reader, key);
    if (type == GgufType::kArray)
      take_array(reader, metadata, key, 1);
    else
      add_entry(metadata, reader, key, take_scalar(reader, type, key));
  }
}

TensorType supported_type(uint32_t number, std::string_view file, const std::string& tensor) {
  if (const auto type = tensor_type_from_ggml(number)) return *type;
  const std::string_view known = ggml_type_name(number);
  if (known == "unknown")
    fail(ErrorCode::kMalformed, "{}: tensor {}: there is no tensor type {}", file, tensor, number);
  fail(ErrorCode::kUnsupported, "{}: tensor {}: tensors of type {} cannot be read", file, tensor, known);
}

// Type, shape and size of one tensor; `offset` is still relative to the data.
GgufTensor take_tensor(Reader& reader) {
  GgufTensor tensor;
  tensor.name = reader.take_string("a tensor's name", limits::kMaxKeyBytes);
  const auto refuse = [&](std::string_view reason) {
    fail(ErrorCode::kMalformed, "{}: tensor {}: {}", reader.file(), tensor.name, reason);
  };
  const auto dimensions = reader.take<uint32_t>(tensor.name);
  if (dimensions == 0 || dimensions > limits::kMaxTensorDimensions)
    refuse(fmt::format("it has {} dimensions, not 1 to {}", dimensions, limits::kMaxTensorDimensions));
  uint64_t elements = 1;
  for (uint32_t i = 0; i < dimensions; ++i) {
    const auto size = reader.take<uint64_t>(tensor.name);
    if (size == 0) refuse(fmt::format("dimension {} is 0", i));
    if (!checked_multiply(elements, size, elements)) refuse("its dimensions multiply to more than 64 bits");
    tensor.dimensions.push_back(size);
  }
  const auto number = reader.take<uint32_t>(tensor.name);
  tensor.type = supported_type(number, reader.file(), tensor.name);
  tensor.offset = reader.take<uint64_t>(tensor.name);
  const FormatTraits& format = traits(tensor.type);
  if (tensor.dimensions[0] % format.block_elements != 0)
    refuse(fmt::format("rows of {} elements are no multiple of {}'s blocks of {}", tensor.dimensions[0],
                       format.name, format.block_elements));
  if (!checked_multiply(elements / format.block_elements, format.block_bytes, tensor.bytes))
    refuse("its size does not fit in 64 bits");
  return tensor;
}

uint64_t alignment_of(const Metadata& metadata, std::string_view file) {
  const uint64_t alignment = metadata.integer("general.alignment").value_or(kGgufDefaultAlignment);
  if (!std::has_single_bit(alignment) || alignment > kMaxAlignment)
    fail(ErrorCode::kMalformed, "{}: key general.alignment: {} is no power of two up to {}", file, alignment,
         kMaxAlignment);
  return alignment;
}

// Makes offsets absolute; refuses those that are unaligned, past the end, or inside another tensor.
void place_tensors(GgufFile& gguf, uint64_t header_bytes, uint64_t file_bytes, std::string_view file) {
  const uint64_t alignment = alignment_of(gguf.metadata, file);
  const uint64_t data = (header_bytes + alignment - 1) / alignment * alignment;
  for (GgufTensor& tensor : gguf.tensors) {
    if (tensor.offset % alignment != 0)
      fail(ErrorCode::kMalformed, "{}: tensor {}: offset {} is no multiple of the alignment {}", file,
           tensor.name, tensor.offset, alignment);
    uint64_t begin, end;
    if (!checked_add(data, tensor.offset, begin) || !checked_add(begin, tensor.bytes, end) ||
        end > file_bytes)
      fail(ErrorCode::kMalformed, "{}: tensor {}: its {} bytes at offset {} lie past the file's end at {}",
           file, tensor.name, tensor.bytes, tensor.offset, file_bytes);
    tensor.offset = begin;
  }
  std::vector<const GgufTensor*> sorted;
  sorted.reserve(gguf.tensors.size());
  for (const GgufTensor& tensor : gguf.tensors) sorted.push_back(&tensor);
  std::sort(sorted.begin(), sorted.end(),
            [](const GgufTensor* a, const GgufTensor* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < sorted.size(); ++i)
    if (sorted[i - 1]->offset + sorted[i - 1]->bytes > sorted[i]->offset)
      fail(ErrorCode::kMalformed, "{}: tensors {} and {} overlap", file, sorted[i - 1]->name,
           sorted[i]->name);
}

uint32_t take_version(Reader& reader) {
  if (reader.remaining() < 4 || reader.take<uint32_t>("magic") != kMagic)
    fail(ErrorCode::kMalformed, "{}: not a GGUF file (it does not begin with GGUF)", reader.file());
  const auto version = reader.take<uint32_t>("version");
  if (version == 2 || version == 3) return version;
  if (version == 0x02000000u || version == 0x03000000u)
    fail(ErrorCode::kUnsupported, "{}: a big-endian GGUF file; only little-endian ones are read",
         reader.file());
  fail(ErrorCode::kUnsupported, "{}: GGUF version {}; versions 2 and 3 are read", reader.file(), version);
}

}  // namespace

GgufFile read_gguf(std::span<const std::byte> file, std::string_view name, GgufPart part) {
  Reader reader(file, name);
  GgufFile gguf;
  gguf.metadata = Metadata(std::string(name));
  gguf.version = take_version(reader);
  const auto tensor_count = reader.take<uint64_t>("the number of tensors");
  const auto entry_count = reader.take<uint64_t>("the number of metadata entries");
  if (tensor_count > limits::kMaxTensors)
    fail(ErrorCode::kLimit, "{}: {} tensors are more than {}", name, tensor_count, limits::kMaxTensors);
  if (entry_count > limits::kMaxMetadataEntries)
    fail(ErrorCode::kLimit, "{}: {} metadata entries are more than {}", name, entry_count,
         limits::kMaxMetadataEntries);
  reader.require(tensor_count * kMinTensorBytes + entry_count * kMinEntryBytes, "the header");
  take_metadata(reader, gguf.metadata, entry_count);
  reader.require(tensor_count * kMinTensorBytes, "the tensors' descriptions");
  gguf.tensors.reserve(tensor_count);
  std::unordered_set<std::string> names;
  for (uint64_t i = 0; i < tensor_count; ++i) {
    gguf.tensors.push_back(take_tensor(reader));
    if (!names.insert(gguf.tensors.back().name).second)
      fail(ErrorCode::kMalformed, "{}: tensor {} is there twice", name, gguf.tensors.back().name);
  }
  place_tensors(gguf, reader.position(), part == GgufPart::kHeader ? UINT64_MAX : file.size(), name);
  return gguf;
}

}  // namespace caravan
