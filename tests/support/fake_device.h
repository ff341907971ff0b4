#pragma once

#include <cstdlib>
#include <cstring>
#include <map>
#include <new>

#include "base/check.h"
#include "base/error.h"
#include "compute/device.h"

namespace caravan {

// The in-memory twin of Device, with faults: it runs out of memory after a set number of bytes, and knows
// what it still holds.
class FakeDevice final : public Device {
 public:
  explicit FakeDevice(uint64_t capacity_bytes = UINT64_MAX) : capacity_bytes_(capacity_bytes) {}
  ~FakeDevice() override { CHECK(held_.empty()); }

  std::string name() const override { return "fake"; }
  DeviceAddress allocate(Bytes bytes, DeviceContent content) override {
    if (bytes.count > capacity_bytes_ - used_bytes_) fail(ErrorCode::kOutOfMemory, "the fake device is full");
    used_bytes_ += bytes.count;
    auto* address = static_cast<std::byte*>(::operator new (bytes.count + 1, std::align_val_t{64}));
    // Not a number: who reads what nobody wrote shows.
    std::memset(address, content == DeviceContent::kZeros ? 0 : 0xff, bytes.count);
    held_[address] = bytes.count;
    return address;
  }
  void release(DeviceAddress address, Bytes bytes) override {
    CHECK(held_.at(address) == bytes.count);
    held_.erase(address);
    used_bytes_ -= bytes.count;
    ::operator delete (address, std::align_val_t{64});
  }
  void copy_in(DeviceAddress to, std::span<const std::byte> from) override {
    std::memcpy(to, from.data(), from.size());
  }
  void copy_out(std::span<std::byte> to, const std::byte* from) override {
    std::memcpy(to.data(), from, to.size());
  }
  DeviceEvent record() override { return ++event_; }
  bool passed(DeviceEvent event) const override { return event <= event_; }
  void wait(DeviceEvent event) override { CHECK(passed(event)); }
  uint64_t used_bytes() const { return used_bytes_; }

 private:
  const uint64_t capacity_bytes_;
  uint64_t used_bytes_ = 0;
  DeviceEvent event_ = 0;
  std::map<std::byte*, uint64_t> held_;
};

}  // namespace caravan
