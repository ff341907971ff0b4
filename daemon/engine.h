#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/budget.h"
#include "base/clock.h"
#include "base/unit_span.h"
#include "compute/backend.h"
#include "compute/counters.h"
#include "compute/device.h"
#include "daemon/archive_folder.h"
#include "daemon/budget_needs.h"
#include "daemon/generation.h"
#include "daemon/kv_folder.h"
#include "model/spec.h"
#include "model/stage.h"
#include "model/weights.h"
#include "offload/pager.h"
#include "shards/manifest.h"

namespace caravan {

struct EngineOptions {
  uint32_t threads = 1;
  std::string isa = "auto";  // auto, avx512, avx2, scalar
  bool exact = false;        // f32 activations
  KvType kv_type = KvType::kF32;
  uint32_t max_rows = 0;           // of one step
  Bytes memory;                    // for weights, state and scratch; a headroom in it is never used
  std::optional<Bytes> kv_memory;  // for state within it
  // Where state goes that memory does not hold, the first that can be written; none: nowhere.
  std::vector<std::string> kv_places;
  Bytes kv_disk;  // there at most
  // The least --disk that leaves so much there.
  std::function<Bytes(Bytes)> disk_flag = [](Bytes bytes) { return bytes; };
  ArchiveOptions archive;
};

// How many KV blocks a stage has, and how many of them can be in memory at a time, at most.
struct alignas(8) KvRoom {  // aligned so that every compiler stores it as one word
  uint32_t blocks = 0;
  uint32_t frames = 0;
  bool spills() const { return frames < blocks; }
};

// The share of a budget that no reservation reaches: what allocators and the kernel take beside it.
inline constexpr uint64_t kHeadroomShare = 32;

// What an engine reserves for its back end, and for the rows of a step: as they come and as a stage computes
// with them.
Bytes engine_scratch(const ModelSpec& spec, const EngineOptions& options);

// Bytes read of a total, while weights are touched for the first time.
using LoadProgress = std::function<void(uint64_t bytes, uint64_t total)>;

// The arithmetic side of a process: model, device, backend, budget, and stages made from them. Built by main;
// the compute thread owns it from then on. Spec and manifest are constant.
//
// Weights and KV compete for the same bytes. Where weights do not all fit beside the most KV that a stage may
// have in memory, the border moves while it runs: weights use what KV does not need yet.
class Engine : private KvNeighbour {
 public:
  // Throws kUnsupported (family, instruction set), kMalformed, kOutOfMemory. The tokenizer that was made of
  // the manifest is counted in the budget.
  Engine(Manifest manifest, const EngineOptions& options);
  ~Engine() override;
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  const Manifest& manifest() const { return manifest_; }
  const ModelSpec& spec() const { return spec_; }
  const EngineOptions& options() const { return options_; }
  Backend& backend() { return *backend_; }
  Device& device() { return *device_; }
  Budget& budget() { return budget_; }
  Bytes budget_limit() const { return budget_.limit(); }
  const Pager& pager() const { return *pager_; }
  // Whatever can change a bit but the KV type, which the ring decides: device kind, activations. Instruction
  // sets and threads give the same bits.
  std::string numerics_class() const;
  std::string isa_name() const;
  // As Hello::weights.
  const Hash256& weights_id() const { return weights_id_; }
  // What the back end did so far.
  const ComputeCounters& counters() const { return *counters_; }

  // The KV blocks of a span, of `wanted` ones. In memory beside its weights and scratch: up to a quarter, or
  // more when weights leave room; those of one sequence take up to half before weights that could be
  // streamed, or all when there is no disk to spill to. The others lie on disk.
  KvRoom kv_room(UnitSpan span, uint32_t context, KvType kv_type, uint32_t wanted) const;
  // What hosting the span takes beside what is hosted already.
  BudgetNeeds needs(UnitSpan span, uint32_t context, KvType kv_type) const;
  // State that may lie on disk.
  Bytes kv_disk() const { return options_.kv_places.empty() ? Bytes{} : options_.kv_disk; }
  // Of the layers hosted last. Any thread.
  KvRoom kv_room() const { return kv_room_; }
  // What is reserved now. Any thread.
  MemoryStatus memory() const;
  const KvCounters& kv_counters() const { return kv_counters_; }
  // Opened with the first layers that are hosted for a ring; null: there is none, or not yet. Any thread.
  KvArchive* archive() const { return archive_; }
  // What lies on disk goes at once, for a process that ends: what still computes meets errors. Control
  // thread, while no stage is made.
  void leave_disk();
  // Whether that was asked for. Any thread.
  bool left_disk() const { return left_disk_; }

  // Bytes for what is on its way to other peers. Any thread; settle_wire() takes them or gives them back.
  void want_wire(Bytes bytes) { wanted_wire_ = bytes.count; }
  // What was taken of that. Any thread.
  Bytes wire() const { return budget_.used(MemoryTag::kWire); }
  // Between steps: takes what nobody has and, of weights that are streamed, half of what they can do without.
  void settle_wire();
  // Before a stage is made, which is not refused or made smaller for it.
  void give_back_wire() { wire_ = Reservation(); }

  struct Hosted {
    std::shared_ptr<BulkStore> kv_store;  // when KV spills
    std::unique_ptr<ModelWeights> weights;
    std::unique_ptr<Stage> stage;
  };
  // Binds a span's weights, makes its stage, and reads what is to stay in memory. `progress` may be empty.
  // The KV type is the options' where none is given. With a lineage, KV is archived under it.
  Hosted host(UnitSpan span, uint32_t context, KvRoom kv, const LoadProgress& progress,
              std::optional<KvType> kv_type = std::nullopt, std::optional<Lineage> lineage = std::nullopt);
  static constexpr uint32_t kMeasuredRows = 8;
  // Nanoseconds of the first layer for one row. Before the compute thread has work.
  uint64_t measure_layer_ns();

 private:
  void make_room(Bytes more) override;
  void take_room() override;
  void move_wire();
  StageOptions stage_options(UnitSpan span, uint32_t context, uint32_t kv_blocks, KvType kv_type) const;
  KvSpill kv_places(UnitSpan span, KvRoom kv) const;
  void open_spill(KvSpill& places, Hosted& hosted);
  void open_idle_spill(KvSpill& places, Hosted& hosted, KvRoom kv, const KvNeeds& needs,
                       uint64_t least_weights, Bytes& beside);
  void open_archive(KvSpill& places, const Lineage& lineage);
  // Frames that are always there, where weights use those of the others.
  std::optional<KvSharing> share(UnitSpan span, KvRoom kv, Bytes state, Bytes block);
  // Of the budget, what weights may take beside what is reserved by others and `more`.
  uint64_t weights_room(uint64_t more) const;

  const EngineOptions options_;
  const Manifest manifest_;
  const ModelSpec spec_;
  const Hash256 weights_id_;
  SystemClock clock_;
  KvCounters kv_counters_;
  std::atomic<KvRoom> kv_room_{};
  // Made by the compute thread and removed by the control thread: hence the lock.
  std::mutex kv_folder_mutex_;
  std::unique_ptr<KvFolder> kv_folder_;
  std::unique_ptr<KvArchive> opened_archive_;
  std::atomic<bool> left_disk_{false};
  bool tried_archive_ = false;
  std::atomic<KvArchive*> archive_{nullptr};
  Budget budget_;
  Reservation text_;  // the tokenizer's, which was made of the manifest
  Reservation rows_;
  std::atomic<uint64_t> wanted_wire_{0};
  Reservation wire_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Pager> pager_;
  const ComputeCounters* counters_ = nullptr;
  std::string isa_name_;
};

// The machine's memory that a process may take when no budget is given: three quarters of what is free, over
// the number of processes that share it.
Bytes default_memory(uint32_t sharers);
// All the memory of the machine.
Bytes machine_memory();

}  // namespace caravan
