#include "compute/cpu/cpu_device.h"

#include <cstring>
#include <new>

#include "base/error.h"

namespace caravan {
namespace {

constexpr std::align_val_t kAlignment{64};

}  // namespace

DeviceAddress CpuDevice::allocate(Bytes bytes, DeviceContent content) {
  void* address = ::operator new(bytes.count ? bytes.count : 1, kAlignment, std::nothrow);
  if (!address) fail(ErrorCode::kOutOfMemory, "the system has no {} of memory left", to_string(bytes));
  if (content == DeviceContent::kZeros) std::memset(address, 0, bytes.count);
  return static_cast<DeviceAddress>(address);
}

void CpuDevice::release(DeviceAddress address, Bytes) {
  ::operator delete(address, kAlignment);
}

void CpuDevice::copy_in(DeviceAddress to, std::span<const std::byte> from) {
  if (!from.empty()) std::memcpy(to, from.data(), from.size());
}

void CpuDevice::copy_out(std::span<std::byte> to, const std::byte* from) {
  if (!to.empty()) std::memcpy(to.data(), from, to.size());
}

}  // namespace caravan
