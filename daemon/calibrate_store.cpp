#include "daemon/calibrate_store.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <span>
#include <system_error>
#include <utility>

#include "base/hash.h"
#include "base/random.h"
#include "base/source.h"
#include "daemon/model_library.h"
#include "offload/read_rate.h"

namespace caravan {

namespace {

constexpr uint64_t kGroupBytes = 8u << 20;
constexpr uint64_t kRoomShare = 4;  // of what the disk has left, at most
constexpr uint64_t kStep = 512;     // bytes that differ between groups

// Groups as files.
class GroupSource final : public Source {
 public:
  GroupSource(std::shared_ptr<const ShardStore> store, std::vector<Hash256> groups)
      : store_(std::move(store)), groups_(std::move(groups)) {}
  std::string describe() const override { return store_->name(); }
  uint32_t file_count() const override { return static_cast<uint32_t>(groups_.size()); }
  uint64_t file_bytes(uint32_t) const override { return kGroupBytes; }
  void read(uint32_t file, uint64_t offset, std::span<std::byte> out) const override {
    store_->read(groups_[file], offset, out);
  }
  std::span<const std::byte> mapped(Extent) const override { return {}; }

 private:
  const std::shared_ptr<const ShardStore> store_;
  const std::vector<Hash256> groups_;
};

uint64_t group_count(const std::string& folder, uint64_t bytes) {
  std::error_code error;
  const auto space = std::filesystem::space(folder, error);
  if (!error) bytes = std::min<uint64_t>(bytes, space.available / kRoomShare);
  return std::max<uint64_t>(1, bytes / kGroupBytes);
}

}  // namespace

StoreProbe::StoreProbe(const Clock& clock, const std::string& folder, uint64_t bytes)
    : clock_(clock), folder_(folder, "calibrate-"), store_(open_shards(folder_.path())) {
  std::vector<std::byte> content(kGroupBytes);
  SeededRandom random(1);
  random.fill({reinterpret_cast<uint8_t*>(content.data()), content.size()});
  ShardStore::Writer writer(*store_);
  for (uint64_t group = 0, count = group_count(folder, bytes); group < count; ++group) {
    for (uint64_t at = 0; at < content.size(); at += kStep) std::memcpy(&content[at], &group, sizeof group);
    groups_.push_back(sha256(content));
    writer.add(groups_.back(), kGroupBytes, {}, [&](uint64_t offset, std::span<std::byte> out) {
      std::memcpy(out.data(), &content[offset], out.size());
    });
  }
  writer.flush();
}

double StoreProbe::rate(double lasting) const {
  std::vector<Extent> extents;
  for (uint32_t group = 0; group < groups_.size(); ++group) extents.push_back({group, 0, kGroupBytes});
  return read_rate(std::make_shared<GroupSource>(store_, groups_), extents, clock_, lasting).rate;
}

}  // namespace caravan
