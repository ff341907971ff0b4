#include "shards/groups.h"

#include <algorithm>
#include <limits>
#include <map>
#include <set>

#include "base/error.h"
#include "base/limits.h"
#include "shards/names.h"

namespace caravan {

namespace {

using Kind = GroupId::Kind;
using Groups = std::map<GroupId, std::vector<Tensor>>;

class Assembler {
 public:
  explicit Assembler(Manifest& manifest) : manifest_(manifest) {}

  void add(const FileTensor& file_tensor) {
    const auto place = place_of(manifest_.origin, manifest_.architecture, file_tensor.name);
    if (!place) {
      manifest_.ignored.push_back(file_tensor.name);
      if (const auto layer = layer_of(manifest_.origin, file_tensor.name)) layers_.insert(*layer);
      return;
    }
    Tensor tensor = shaped(file_tensor, *place);
    check_bounds(place->group, file_tensor.name);
    if (place->fused)
      split(tensor, *place, file_tensor);
    else
      put(place->group, std::move(tensor));
  }

  void tie(bool always) {
    const auto embed = groups_.find({Kind::kEmbed});
    if (embed == groups_.end()) return;
    const Tensor* embedding = find(embed->second, Role::kEmbedding);
    if (!embedding) return;
    std::vector<Tensor>& output = groups_[{Kind::kOutput}];
    if (const Tensor* own = find(output, Role::kOutput)) {
      if (!always) return;
      manifest_.ignored.push_back(own->name);
      output.erase(output.begin() + (own - output.data()));
    }
    Tensor tied = *embedding;
    tied.role = Role::kOutput;
    output.push_back(std::move(tied));
  }

  void finish() {
    check_numbers();
    for (auto& [id, tensors] : groups_) {
      std::sort(tensors.begin(), tensors.end(),
                [](const Tensor& a, const Tensor& b) { return a.role < b.role; });
      manifest_.groups.push_back({id, std::move(tensors)});
    }
  }

 private:
  template <class... Args>
  [[noreturn]] void refuse(const std::string& tensor, fmt::format_string<Args...> format,
                           Args&&... args) const {
    fail(ErrorCode::kMalformed, "{}: tensor {}: {}", manifest_.path, tensor,
         fmt::format(format, std::forward<Args>(args)...));
  }

  static const Tensor* find(const std::vector<Tensor>& tensors, Role role) {
    for (const Tensor& tensor : tensors)
      if (tensor.role == role) return &tensor;
    return nullptr;
  }

  // [rows, columns] of the tensor, of one expert if it is fused; the extent is still the whole tensor's.
  Tensor shaped(const FileTensor& from, const Place& place) const {
    if (!from.type)
      fail(ErrorCode::kUnsupported, "{}: tensor {}: tensors of type {} cannot be read", manifest_.path,
           from.name, from.type_name);
    const size_t rank = place.fused ? 3 : is_vector(place.role) ? 1 : 2;
    uint64_t sizes[3] = {1, 1, 1};
    for (size_t i = 0; i < from.dimensions.size(); ++i) {
      if (i >= rank && from.dimensions[i] != 1)
        refuse(from.name, "it has {} dimensions where {} are meant", from.dimensions.size(), rank);
      if (i < rank) sizes[i] = from.dimensions[i];
    }
    if (rank == 3 && from.dimensions.size() < 3) refuse(from.name, "fused experts have three dimensions");
    if (from.dimensions.empty()) refuse(from.name, "a single number has no place in a model");
    for (const uint64_t size : sizes)
      if (size == 0 || size > std::numeric_limits<uint32_t>::max())
        refuse(from.name, "a dimension of {} is not from 1 to 2^32 - 1", size);
    if (sizes[0] % traits(*from.type).block_elements != 0)
      refuse(from.name, "rows of {} elements are no multiple of the blocks of {}", sizes[0], from.type_name);
    return {.name = from.name,
            .role = place.role,
            .type = *from.type,
            .rows = static_cast<uint32_t>(sizes[1]),
            .columns = static_cast<uint32_t>(sizes[0]),
            .extent = from.extent};
  }

  void check_bounds(GroupId id, const std::string& tensor) const {
    if (id.layer >= limits::kMaxLayers)
      fail(ErrorCode::kLimit, "{}: tensor {}: more than {} layers", manifest_.path, tensor,
           limits::kMaxLayers);
    if (id.expert >= limits::kMaxExperts)
      fail(ErrorCode::kLimit, "{}: tensor {}: more than {} experts", manifest_.path, tensor,
           limits::kMaxExperts);
  }

  void split(const Tensor& fused, const Place& place, const FileTensor& from) {
    const uint64_t experts = from.dimensions[2];
    if (experts > limits::kMaxExperts)
      fail(ErrorCode::kLimit, "{}: tensor {}: {} experts are more than {}", manifest_.path, fused.name,
           experts, limits::kMaxExperts);
    const uint64_t bytes = fused.extent.length / experts;
    for (uint32_t expert = 0; expert < experts; ++expert) {
      Tensor tensor = fused;
      tensor.name = fmt::format("{}[{}]", fused.name, expert);
      tensor.extent.offset += expert * bytes;
      tensor.extent.length = bytes;
      put({Kind::kExpert, place.group.layer, expert}, std::move(tensor));
    }
  }

  void put(GroupId id, Tensor tensor) {
    std::vector<Tensor>& group = groups_[id];
    if (const Tensor* other = find(group, tensor.role))
      refuse(tensor.name, "{} has this place ({} of {}) already", other->name, name(tensor.role),
             to_string(id));
    group.push_back(std::move(tensor));
  }

  // No holes: layers are 0 to n - 1, experts of a layer 0 to m - 1, every expert with the same tensors.
  void check_numbers() {
    std::map<uint32_t, uint32_t> experts;
    for (const auto& [id, tensors] : groups_) {
      if (id.kind == Kind::kEmbed || id.kind == Kind::kOutput) continue;
      layers_.insert(id.layer);
      if (id.kind != Kind::kExpert) continue;
      uint32_t& next = experts[id.layer];
      if (id.expert != next)
        fail(ErrorCode::kMalformed, "{}: expert {} of layer {} is missing", manifest_.path, next, id.layer);
      ++next;
      const std::vector<Tensor>& first = groups_.at({Kind::kExpert, id.layer, 0});
      for (const Tensor& tensor : first) {
        const Tensor* same = find(tensors, tensor.role);
        if (!same)
          fail(ErrorCode::kMalformed, "{}: tensor {} is missing, which expert 0 has", manifest_.path,
               usual_name(manifest_.origin, manifest_.architecture, id, tensor.role));
        if (same->rows != tensor.rows || same->columns != tensor.columns || tensors.size() != first.size())
          fail(ErrorCode::kMalformed,
               "{}: expert {} of layer {} has other tensors or shapes than expert 0 ({})", manifest_.path,
               id.expert, id.layer, tensor.name);
      }
    }
    if (layers_.size() > limits::kMaxLayers)
      fail(ErrorCode::kLimit, "{}: more than {} layers", manifest_.path, limits::kMaxLayers);
    uint32_t next = 0;
    for (const uint32_t layer : layers_)
      if (layer != next++) fail(ErrorCode::kMalformed, "{}: layer {} is missing", manifest_.path, next - 1);
    manifest_.layer_count = next;
  }

  Manifest& manifest_;
  Groups groups_;
  std::set<uint32_t> layers_;
};

}  // namespace

void assign_groups(Manifest& manifest, const std::vector<FileTensor>& tensors, bool tied) {
  Assembler assembler(manifest);
  for (const FileTensor& tensor : tensors) assembler.add(tensor);
  assembler.tie(tied);
  assembler.finish();
}

}  // namespace caravan
