#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/config.h"
#include "base/key_value.h"
#include "base/random.h"
#include "daemon/compute_thread.h"
#include "daemon/end_within.h"
#include "daemon/engine.h"
#include "daemon/event_loop.h"
#include "daemon/head_service.h"
#include "daemon/local_head_runner.h"
#include "daemon/local_stage_runner.h"
#include "daemon/model_text.h"
#include "daemon/node_driver.h"
#include "peers/link.h"

namespace caravan {

struct HeadProcessOptions {
  PeerKey self;  // of this process; random when it is alone
  std::string self_name = "head";
  Link* link = nullptr;     // none: no other peers
  bool host_layers = true;  // this process takes layers too
  CutMode cut = CutMode::kByCost;
  uint32_t min_peers = 1;                    // stages that must be there before the first ring
  uint32_t sharers = 1;                      // processes of this kind on the machine
  bool awaited = false;                      // as RingOptions::awaited
  std::shared_ptr<KeyValue> kept = nullptr;  // how rings were cut; none: no ring comes again
};

// A head with all that belongs to it: model, compute thread, runners, control objects, and the service on
// top. Built by main; the control thread owns it.
class HeadProcess {
 public:
  // Reads the units that the head keeps. Throws as Engine.
  HeadProcess(EventLoop& loop, const Clock& clock, Random& random, const Config& config, Manifest manifest,
              HeadProcessOptions options, LoadProgress progress);
  ~HeadProcess();

  void start();
  // Waits until what is to be archived is. While no step is under way.
  void finish_archiving();
  void on_link(LinkEvent event) { driver_->post(std::move(event)); }
  HeadService& service() { return *service_; }
  NodeDriver& driver() { return *driver_; }
  const Engine& engine() const { return *engine_; }
  // Bytes of the budget for what is on its way to peers; engine().wire() tells what there is of them.
  void want_wire(Bytes bytes);
  const ModelText& text() const { return text_; }
  const std::string& name() const { return name_; }
  uint32_t context() const { return context_; }
  CodecId codec() const { return codec_; }
  const Saving& saving() const { return saving_; }

 private:
  HeadOptions head_options(const Config& config, Random& random) const;
  StageHostOptions stage_options(Random& random) const;

  const HeadProcessOptions options_;
  const Saving saving_ = std::make_shared<std::atomic<bool>>(false);
  const ModelText text_;
  std::unique_ptr<Engine> engine_;
  const std::string name_;
  const uint32_t context_;
  const CodecId codec_;
  // Joined before the engine goes; its jobs hold pointers to the runners, which therefore go after it.
  std::atomic<bool> settling_wire_{false};  // a job for it waits
  std::unique_ptr<LocalHeadRunner> head_runner_;
  std::unique_ptr<LocalStageRunner> stage_runner_;
  std::unique_ptr<ComputeThread> thread_;
  std::unique_ptr<NodeDriver> driver_;
  std::unique_ptr<HeadService> service_;
};

// "f32", "bf16" or "int8". Throws kInvalidArgument.
CodecId parse_codec(const std::string& name);
// What a peer says of itself, from its engine. `model`: its fingerprint.
Hello make_hello(const Engine& engine, const Hash256& model, const std::string& name, uint64_t incarnation,
                 uint64_t layer_ns, std::vector<std::string> endpoints);

}  // namespace caravan
