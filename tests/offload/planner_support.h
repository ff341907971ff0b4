#pragma once

#include <algorithm>
#include <cstdint>

#include "base/random.h"
#include "offload/planner.h"

namespace caravan {

// A machine with round figures: 10 GB/s of memory, 1 GB/s of disk.
inline Measurements round_machine() {
  Measurements machine;
  machine.threads = 2;
  machine.memory = {6e9, 10e9};
  machine.kernels[TensorType::kQ8_0] = {{6e9, 10e9}, {200e9, 400e9}};
  machine.kernels[TensorType::kQ4_0] = {{4e9, 8e9}, {200e9, 400e9}};
  machine.attention_f32 = machine.attention_f16 = {{5e9, 9e9}, {20e9, 40e9}};
  machine.disk = {{1u << 20, 1, 0.7e9}, {1u << 20, 4, 0.9e9}, {4u << 20, 1, 0.9e9}, {4u << 20, 4, 1e9}};
  machine.kv = {256u << 10, 4, 0.9e9};
  machine.direct = true;
  machine.store = {0.8e9, 0.75, 0.7};
  machine.sha256 = 1.7e9;
  machine.xxh3 = 11e9;
  return machine;
}

inline PlanPage whole_page(uint64_t bytes, TensorType type = TensorType::kQ8_0) {
  PlanPage page;
  page.bytes = page.mapped_bytes = bytes;
  page.arena_bytes = bytes + 4096;
  page.work = {{type, bytes, 2.0 * static_cast<double>(bytes)}};
  return page;
}

// A table, `layers` times attention and feed-forward (or a router and experts), and an output page.
inline PlanInput layered_input(uint32_t layers, uint64_t attention, uint64_t feed_forward, uint64_t output,
                               uint32_t experts = 0, uint32_t experts_per_token = 0) {
  PlanInput input;
  input.measurements = round_machine();
  input.attention = input.measurements.attention_f32;
  input.threads = 2;
  input.context = 1024;
  input.scratch_bytes = 1u << 20;
  input.budgets = Budgets::unlimited();
  PlanPage table = whole_page(output);
  table.use = PageUse::kRows;
  table.row_bytes = 2048;
  table.work.clear();
  input.pages.push_back(table);
  for (uint32_t layer = 0; layer < layers; ++layer) {
    input.pages.push_back(whole_page(attention));
    input.pages.back().state_bytes_position = 1024;
    input.pages.back().state_operations_position = 4096;
    input.pages.push_back(whole_page(experts > 0 ? 4096 : feed_forward, TensorType::kQ4_0));
    for (uint32_t expert = 0; expert < experts; ++expert) {
      input.pages.push_back(whole_page(feed_forward / experts));
      input.pages.back().use = PageUse::kChosen;
      input.pages.back().choice = layer;
      input.pages.back().uses_a_token = static_cast<double>(experts_per_token) / experts;
    }
  }
  input.pages.push_back(whole_page(output));
  input.block_bytes = uint64_t{layers} * input.block_positions * 1024;
  return input;
}

// Shapes of every kind: dense and with experts, equal and uneven pages, fast and slow disks.
inline PlanInput random_input(Random& random) {
  const auto between = [&](uint64_t low, uint64_t high) { return low + random.below(high - low + 1); };
  const uint32_t experts = random.below(3) == 0 ? static_cast<uint32_t>(between(2, 12)) : 0;
  PlanInput input = layered_input(static_cast<uint32_t>(between(1, 24)), between(50'000, 9'000'000),
                                  between(50'000, 30'000'000), between(20'000, 60'000'000), experts,
                                  experts > 0 ? static_cast<uint32_t>(between(1, experts)) : 0);
  Measurements& machine = input.measurements;
  const double disk = 0.02 + random.unit() * 20;
  for (DiskRate& rate : machine.disk) rate.rate *= disk;
  machine.kv.rate *= disk;
  machine.compute_while_reading = 0.5 + random.unit() / 2;
  machine.read_while_computing = 0.5 + random.unit() / 2;
  machine.small_read_seconds = random.unit() * 1e-4;
  machine.call_seconds = random.unit() * 1e-5;
  for (PlanPage& page : input.pages)
    if (random.below(4) == 0) page.arena_bytes += between(0, page.bytes);
  input.context = static_cast<uint32_t>(between(1, 8192));
  input.sequences = static_cast<uint32_t>(between(1, 4));
  input.threads = static_cast<uint32_t>(between(1, 3));
  input.scratch_bytes = between(0, 20'000'000);
  input.wire_bytes = between(0, 1'000'000);
  if (random.below(2) == 0) input.budgets.kv_ram = between(input.block_bytes * 2, input.block_bytes * 300);
  if (random.below(4) == 0) input.elsewhere_seconds = random.unit() * 0.1;
  return input;
}

// The RAM with which everything is mapped, headroom included.
inline uint64_t ram_of_everything(const PlanInput& input) {
  uint64_t bytes = input.scratch_bytes + input.wire_bytes;
  for (const PlanPage& page : input.pages) bytes += std::max(page.mapped_bytes, page.arena_bytes);
  bytes += uint64_t{input.sequences} * ((input.context + input.block_positions - 1) / input.block_positions) *
           input.block_bytes;
  return Budgets{0, {}, 32}.ram_for(bytes);
}

}  // namespace caravan
