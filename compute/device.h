#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "base/bytes.h"

namespace caravan {

// Memory of a device, owned by a DeviceBuffer. Addresses are the device's own.
using DeviceAddress = std::byte*;
// A point in a device's queue of work; 0 has always passed.
using DeviceEvent = uint64_t;

// What new memory holds. Where all of it is written before any of it is read, clearing it would only cost,
// most of all where the system has yet to give the pages. Everything else is cleared: rows that fill a tile
// are computed with whatever stands there, and numbers that are hardly any (subnormal ones) take the
// processor hundreds of times as long.
enum class DeviceContent : uint8_t { kZeros, kAny };

// One place with memory and arithmetic: the CPU, a GPU, a fake with faults. One thread, but `passed` from
// any.
class Device {
 public:
  virtual ~Device() = default;
  virtual std::string name() const = 0;
  // At least 64-byte aligned. Throws kOutOfMemory.
  virtual DeviceAddress allocate(Bytes bytes, DeviceContent content) = 0;
  virtual void release(DeviceAddress address, Bytes bytes) = 0;
  virtual void copy_in(DeviceAddress to, std::span<const std::byte> from) = 0;
  virtual void copy_out(std::span<std::byte> to, const std::byte* from) = 0;
  // After everything issued so far.
  virtual DeviceEvent record() = 0;
  virtual bool passed(DeviceEvent event) const = 0;
  virtual void wait(DeviceEvent event) = 0;
};

class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(Device& device, Bytes bytes, DeviceContent content = DeviceContent::kZeros)
      : device_(&device), bytes_(bytes), address_(device.allocate(bytes, content)) {}
  DeviceBuffer(DeviceBuffer&& other) noexcept { swap(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~DeviceBuffer() {
    if (device_) device_->release(address_, bytes_);
  }
  DeviceAddress address() const { return address_; }
  Bytes bytes() const { return bytes_; }

 private:
  void swap(DeviceBuffer& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(bytes_, other.bytes_);
    std::swap(address_, other.address_);
  }
  Device* device_ = nullptr;
  Bytes bytes_;
  DeviceAddress address_ = nullptr;
};

}  // namespace caravan
