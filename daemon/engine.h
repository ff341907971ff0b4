#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/budget.h"
#include "base/unit_span.h"
#include "compute/backend.h"
#include "compute/counters.h"
#include "compute/device.h"
#include "model/spec.h"
#include "model/stage.h"
#include "model/weights.h"
#include "shards/manifest.h"

namespace caravan {

struct EngineOptions {
  uint32_t threads = 1;
  std::string isa = "auto";  // auto, avx512, avx2, scalar
  bool exact = false;        // f32 activations
  KvType kv_type = KvType::kF32;
  uint32_t max_rows = 0;  // of one step
  Bytes memory;           // budget for scratch and state
};

// Bytes read of a total, while weights are touched for the first time.
using LoadProgress = std::function<void(uint64_t bytes, uint64_t total)>;

// The arithmetic side of a process: model, device, backend, budget, and stages made from them. Built by main;
// the compute thread owns it from then on. Spec and manifest are constant.
class Engine {
 public:
  // Throws kUnsupported (family, instruction set), kMalformed, kOutOfMemory.
  Engine(Manifest manifest, const EngineOptions& options);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  const Manifest& manifest() const { return manifest_; }
  const ModelSpec& spec() const { return spec_; }
  const EngineOptions& options() const { return options_; }
  Backend& backend() { return *backend_; }
  Device& device() { return *device_; }
  Budget& budget() { return budget_; }
  Bytes budget_limit() const { return budget_.limit(); }
  // Whatever can change a bit but the KV type, which the ring decides: device kind, activations. Instruction
  // sets and threads give the same bits.
  std::string numerics_class() const;
  std::string isa_name() const;
  // What the back end did so far.
  const ComputeCounters& counters() const { return *counters_; }

  // How many KV blocks the budget has room for beside `reserve` bytes, at most `wanted`.
  uint32_t kv_blocks(UnitSpan span, uint32_t wanted, KvType kv_type) const;

  struct Hosted {
    std::unique_ptr<ModelWeights> weights;
    std::unique_ptr<Stage> stage;
  };
  // Binds a span's weights, reads them once, and makes its stage. `progress` may be empty. The KV type
  // is the options' where none is given.
  Hosted host(UnitSpan span, uint32_t context, uint32_t kv_blocks, const LoadProgress& progress,
              std::optional<KvType> kv_type = std::nullopt);
  // Nanoseconds of the first layer for one row. Before the compute thread has work.
  uint64_t measure_layer_ns();

 private:
  const EngineOptions options_;
  const Manifest manifest_;
  const ModelSpec spec_;
  Budget budget_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Backend> backend_;
  const ComputeCounters* counters_ = nullptr;
  std::string isa_name_;
};

// The machine's memory that a process may take for state and scratch when no budget is given: half of what is
// free, over the number of processes that share it.
Bytes default_memory(uint32_t sharers);

}  // namespace caravan
