#pragma once

#include <functional>
#include <memory>
#include <variant>
#include <vector>

#include "daemon/compute_thread.h"
#include "daemon/engine.h"
#include "daemon/head_runner.h"

namespace caravan {

// HeadRunner over the engine: units 0 and L+1, and the sampler, on the compute thread. Calls come from the
// control thread; events are handed to `post` on the compute thread.
class LocalHeadRunner final : public HeadRunner {
 public:
  using Event = std::variant<EmbedDone, OutputDone>;
  using Post = std::function<void(Event)>;
  // Binds and reads the two units' weights in the calling thread, before the compute thread has work. All
  // outlive the runner, and the compute thread is joined before it goes.
  // The memory of logits, of rows and of choosing tokens is reserved in the engine's budget.
  LocalHeadRunner(Engine& engine, ComputeThread& thread, const LoadProgress& progress, Post post);
  ~LocalHeadRunner() override;
  // What it reserves.
  static Bytes scratch_bytes(const ModelSpec& spec) {
    // Rows twice: as the table has them, which is at most as large, and as they are computed with.
    return {uint64_t{kRowsAtOnce} * (spec.vocabulary + 2 * spec.width) * sizeof(float) +
            SamplerScratch::bytes(spec.vocabulary)};
  }

  void embed(EmbedJob job) override;
  void output(OutputJob job) override;

 private:
  // Rows that are embedded, or whose logits are computed, together: enough to share the matrix, few enough to
  // keep a large vocabulary's logits small.
  static constexpr uint32_t kRowsAtOnce = 16;

  // Everything below runs on the compute thread.
  EmbedDone embed_now(const EmbedJob& job);
  OutputDone output_now(const OutputJob& job);
  OutputResult finish_row(const OutputRow& asked, std::span<const float> logits);
  [[noreturn]] void refuse_numbers();

  Engine& engine_;
  ComputeThread& thread_;
  const Post post_;
  const Reservation reserved_;
  Engine::Hosted embed_, output_;
  std::vector<float> rows_;    // [kRowsAtOnce, width]
  std::vector<float> logits_;  // [kRowsAtOnce, vocabulary]
  SamplerScratch scratch_;
  std::string no_numbers_;  // why a row had none; found once
};

}  // namespace caravan
