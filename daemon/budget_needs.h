#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/unit_span.h"
#include "cache/kv_shape.h"
#include "model/spec.h"
#include "shards/manifest.h"

namespace caravan {

struct EngineOptions;

// What the KV of one sequence takes on some layers.
struct KvNeeds {
  uint64_t blocks = 0;
  uint64_t block_bytes = 0;
  uint64_t staging_bytes = 0;
  bool archived = false;  // blocks come through the staging even when none spills

  uint64_t blocks_on_disk(Bytes disk) const;
  bool can_spill(Bytes disk) const;
  // Memory, with all of it there, and with the least of it there.
  uint64_t whole() const { return blocks * block_bytes + (archived ? staging_bytes : 0); }
  uint64_t spilling() const;
  // Disk, when it spills.
  uint64_t disk() const;
  uint64_t least(Bytes disk) const;
};

// What a process takes that hosts some layers of a model.
struct BudgetNeeds {
  uint64_t beside_kv = 0;  // weights, as few as run, and scratch
  uint64_t beginning = 0;  // everything together before it hosts anything, while its speed is measured
  KvNeeds kv;
};

// The least budgets that do. 0: nothing of it is lacking.
struct LeastBudgets {
  uint64_t ram = 0;      // --ram, headroom included
  uint64_t kv_ram = 0;   // --kv-ram
  uint64_t kv_disk = 0;  // of disk for KV; EngineOptions::disk_flag makes a --disk of it
  // Instead, with nothing of KV on disk.
  uint64_t ram_without_disk = 0;
  uint64_t kv_ram_without_disk = 0;
};

// The layers among a span's units.
std::vector<KvLayerShape> kv_layers(const ModelSpec& spec, UnitSpan span);
KvNeeds kv_needs(const std::vector<KvLayerShape>& layers, uint32_t context, KvType type, bool archived);

// What a process hosts. The head's ends are embed and output, without KV; layers that are announced to others
// are measured first.
struct HostedPart {
  UnitSpan layers;
  bool ends = false;
  bool measured = false;
};
// Throws as check_weights.
BudgetNeeds budget_needs(const Manifest& manifest, const ModelSpec& spec, const EngineOptions& options,
                         const HostedPart& part, uint32_t context);

LeastBudgets least_budgets(const EngineOptions& options, const BudgetNeeds& needs);
// Of several processes that are given the same flags.
LeastBudgets most_of(const LeastBudgets& a, const LeastBudgets& b);

// Names each flag of the options that is too small, with the least of it; empty when all do. `what` is what
// they are too small for.
std::string refuse_budgets(const EngineOptions& options, const LeastBudgets& least, std::string_view what);

}  // namespace caravan
