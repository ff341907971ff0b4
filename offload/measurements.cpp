#include "offload/measurements.h"

#include <algorithm>

#include "base/check.h"

namespace caravan {

Measurements Measurements::reading_from_store() const {
  Measurements changed = *this;
  for (DiskRate& read : changed.disk) read.rate = store.rate;
  changed.compute_while_reading = store.compute_while_reading;
  changed.read_while_computing = store.read_while_computing;
  return changed;
}

DiskRate Measurements::best_read(uint64_t bytes) const {
  CHECK(!disk.empty());
  const uint64_t smallest = std::min_element(disk.begin(), disk.end(), [](const auto& a, const auto& b) {
                              return a.bytes < b.bytes;
                            })->bytes;
  const DiskRate* best = nullptr;
  for (const DiskRate& rate : disk)
    if (rate.bytes <= std::max(bytes, smallest) && (!best || rate.rate > best->rate)) best = &rate;
  return *best;
}

double Measurements::at(const ThreadRate& rate, uint32_t used) const {
  if (threads <= 1 || used >= threads) return rate.all;
  if (used <= 1) return rate.one;
  return rate.one + (rate.all - rate.one) * (used - 1) / (threads - 1);
}

KernelRates Measurements::rates(TensorType type) const {
  const auto found = kernels.find(type);
  if (found != kernels.end()) return found->second;
  CHECK(!kernels.empty());
  const auto slowest = std::min_element(kernels.begin(), kernels.end(), [](const auto& a, const auto& b) {
    return a.second.many_operations.all < b.second.many_operations.all;
  });
  return slowest->second;
}

}  // namespace caravan
