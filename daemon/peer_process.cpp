#include "daemon/peer_process.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "base/bytes.h"
#include "base/caught_error.h"
#include "base/error.h"
#include "base/log.h"
#include "daemon/addresses.h"
#include "daemon/archive_folder.h"
#include "daemon/calibrate_apart.h"
#include "daemon/defaults.h"
#include "daemon/forecast.h"
#include "daemon/head_process.h"
#include "daemon/link_options.h"
#include "daemon/model_library.h"
#include "daemon/process_account.h"
#include "daemon/small_budgets.h"
#include "peers/endpoint.h"
#include "shards/store_source.h"

namespace caravan {

namespace {

constexpr Duration kCalibrationInterval = std::chrono::milliseconds(20);

}  // namespace

PeerProcess::PeerProcess(EventLoop& loop, const Clock& clock, Random& random, const Config& config,
                         std::optional<Manifest> manifest, Ticket ticket, Options options,
                         LoadProgress progress, Ended ended)
    : loop_(loop),
      clock_(clock),
      random_(random),
      config_(config),
      ticket_(std::move(ticket)),
      options_(std::move(options)),
      progress_(std::move(progress)),
      ended_(std::move(ended)) {
  const std::string state = state_folder(config);
  ShardFetch::Options fetch;
  fetch.bytes_per_second = fetch_limit_of(config);
  fetch.disk_limit = disk_limit(config, state);
  StateStores stores = open_state_stores(state, !manifest);
  pins_ = std::make_unique<Pins>(std::move(stores.pins));
  store_ = std::move(stores.shards);
  keys_ = load_or_create_keys(state, random);
  make_link(config, keys_);
  if (manifest) {
    const Hash256 model = manifest->fingerprint();
    host(std::move(*manifest), model);
    return;
  }
  fetch.head = ticket_.head;
  fetch.folder = fetch_folder(state);
  fetch.progress = [this](uint64_t bytes, uint64_t of) {
    if (driver_) driver_->tell_fetching(bytes, of);
    if (of > 0 && options_.fetch_progress) options_.fetch_progress(bytes, of);
  };
  fetch_ = std::make_unique<ShardFetch>(loop, clock, *link_, store_, std::move(fetch));
}

PeerProcess::~PeerProcess() {
  if (calibration_timer_) loop_.cancel(*calibration_timer_);
  if (driver_) driver_->stop();
  if (stage_runner_) stage_runner_->finish_archiving(saving_);
  link_.reset();
  if (engine_) engine_->leave_disk();
  thread_.reset();
  if (!engine_ || options_.account_file.empty()) return;
  try {
    write_account(options_.account_file, account_of(*engine_));
  } catch (const std::exception&) {
    log_warning("{}", caught_error().message());
  }
}

void PeerProcess::host(Manifest manifest, const Hash256& model) {
  EngineOptions engine = engine_options(config_, options_.sharers);
  if (!options_.archive_folder.empty()) engine.archive.folder = options_.archive_folder;
  manifest.drop_tokenizer({model, {}});
  if (engine.archive.unwanted) remove_other_archives(engine.archive.folder, false, 0);
  // What is not here yet cannot be measured; such a peer counts as the mean of the others.
  const bool measured = !fetch_ || fetch_->has({1, 2});
  if (const std::string small = too_small_to_join(manifest, engine, measured); !small.empty())
    fail(ErrorCode::kOutOfMemory, "{}", small);
  if (fetch_) refuse_small_disk(manifest);
  engine_ = std::make_unique<Engine>(std::move(manifest), engine);
  thread_ = std::make_unique<ComputeThread>();
  stage_runner_ = std::make_unique<LocalStageRunner>(
      *engine_, *thread_, clock_, progress_,
      [this](const StagePlan& plan) {
        return forecast_part(config_, *engine_,
                             {plan.span, false, plan.context, static_cast<KvType>(plan.kv_type)});
      },
      [this](LocalStageRunner::Event event) {
        std::visit(
            [this](auto&& done) {
              if (fetching_runner_ && !done.error.empty()) loop_.post([this] { fetching_runner_->failed(); });
              driver_->post(std::move(done));
            },
            std::move(event));
      });
  if (fetch_)
    fetching_runner_ = std::make_unique<FetchingStageRunner>(
        *stage_runner_, *fetch_,
        [this](UnitSpan span, const StagePlan* plan) {
          EngineOptions options = engine_->options();
          if (plan) options.kv_type = static_cast<KvType>(plan->kv_type);
          return too_small_to_host(engine_->manifest(), options, span, plan ? plan->context : 1);
        },
        [this](FetchingStageRunner::Event event) {
          std::visit([this](auto&& one) { driver_->post(std::move(one)); }, std::move(event));
        });
  const uint64_t layer_ns = measured ? engine_->measure_layer_ns() : 0;
  NodeOptions node;
  node.self = keys_.public_key;
  node.stage.emplace();
  node.stage->self = keys_.public_key;
  node.stage->head = ticket_.head;
  node.stage->head_endpoints = ticket_.endpoints;
  node.stage->hello = make_hello(*engine_, model, options_.name, random_.next(), layer_ns,
                                 reachable_endpoints(link_->endpoints()));
  if (fetch_) {
    node.stage->hello.fetches = true;
    // More than its memory holds is not worth fetching, and more than its disk holds cannot be.
    const uint64_t memory = engine_->budget_limit().count;
    const ShardFetch::Room room = fetch_->room();
    if (room.bytes < memory) log_info("offer_is_what_the_disk_holds bytes={} of={}", room.bytes, memory);
    node.stage->hello.memory_bytes = std::min(memory, room.bytes);
    if (room.bytes < memory)
      small_offer_ = fmt::format(" (it offers {}: {} no room for more)", to_string(Bytes{room.bytes}),
                                 room.is_limit ? "--disk leaves" : "its disk has");
  }
  driver_ = std::make_unique<NodeDriver>(loop_, clock_, std::move(node));
}

void PeerProcess::refuse_small_disk(const Manifest& manifest) const {
  const ShardFetch::Room room = fetch_->room();
  const auto limit = room.is_limit ? disk_limit(config_, state_folder(config_)) : std::nullopt;
  if (const std::string small = too_little_disk(manifest, room.bytes, limit); !small.empty())
    fail(ErrorCode::kOutOfMemory, "{}", small);
}

void PeerProcess::make_link(const Config& config, const KeyPair& keys) {
  ZmqLinkOptions options =
      link_options(keys, options_.name, to_string(parse_endpoint(options_.listen, true)), config);
  options.allowed = {ticket_.head};
  ZmqLinkCallbacks callbacks;
  callbacks.event = [this](LinkEvent event) {
    loop_.post([this, event = std::move(event)]() mutable { on_link(std::move(event)); });
  };
  callbacks.enrolled = [this](const PeerKey& head, const std::string& reason) {
    loop_.post([this, head, reason] { on_enrolled(head, reason); });
  };
  link_ = std::make_unique<ZmqLink>(std::move(options), clock_, random_, std::move(callbacks));
}

void PeerProcess::start() {
  if (!pins_->find(ticket_.head)) return link_->enrol(ticket_);
  fetch_ ? fetch_manifest() : measure();
}

void PeerProcess::on_enrolled(const PeerKey& head, const std::string& reason) {
  if (!reason.empty()) {
    if (!std::exchange(told_, true))
      ended_(Error(ErrorCode::kRefused, "the head did not admit this peer: " + reason));
    return;
  }
  pins_->pin(head, "head");
  fetch_ ? fetch_manifest() : measure();
}

void PeerProcess::fetch_manifest() {
  link_->connect(ticket_.head, ticket_.endpoints);
  fetch_->fetch_manifest([this](const std::string& reason) {
    try {
      if (!reason.empty()) fail(ErrorCode::kUnavailable, "{}", reason);
      host(open_record(store_, fetch_->record()), fetch_->record().fingerprint);
    } catch (const Error& error) {
      if (!std::exchange(told_, true)) ended_(error);
      return;
    }
    measure();
  });
}

// Until the head knows the hashes of its model, this peer can only wait.
void PeerProcess::tell_hashing() {
  const ManifestInfo& info = fetch_->head_hashing();
  if (driver_ || !options_.tell || info.total_bytes == 0) return;
  const std::string part =
      fmt::format("the head is hashing its model, {} % of {} so far; waiting",
                  100 * info.hashed_bytes / info.total_bytes, to_string(Bytes{info.total_bytes}));
  if (std::exchange(part_, part) != part) options_.tell(part);
}

// Once nothing here and no head refuses this peer, and before the head counts on it.
void PeerProcess::measure() {
  try {
    if (config_.calibrate)
      if (std::optional<ChildProcess> child = calibrate_apart(config_, state_folder(config_)))
        calibration_.emplace(std::move(*child));
  } catch (const Error& error) {
    log_warning("no_forecast reason=\"{}\"", error.message());
  }
  await_measurements();
}

void PeerProcess::await_measurements() {
  calibration_timer_.reset();
  if (calibration_ && !calibration_->ended()) {
    calibration_timer_ = loop_.after(kCalibrationInterval, [this] { await_measurements(); });
    return;
  }
  if (calibration_) check_calibrated(config_, state_folder(config_), *calibration_);
  calibration_.reset();
  greet();
}

void PeerProcess::greet() {
  driver_->on_change([this] {
    check_refused();
    tell_part();
  });
  StageRunner* runner = stage_runner_.get();
  if (fetching_runner_) runner = fetching_runner_.get();
  driver_->start({link_.get(), runner, nullptr});
  // Of a peer that fetched the manifest, the connection stands already.
  if (head_is_up_) driver_->post(LinkEvent(LinkUp{ticket_.head}));
}

void PeerProcess::on_link(LinkEvent event) {
  if (const auto* up = std::get_if<LinkUp>(&event); up && up->peer == ticket_.head) head_is_up_ = true;
  if (const auto* down = std::get_if<LinkDown>(&event); down && down->peer == ticket_.head)
    head_is_up_ = false;
  if (fetch_ && fetch_->on(event)) return tell_hashing();
  // The head names who the neighbours are; they may connect from now on.
  if (const auto* received = std::get_if<Received>(&event); received && received->from == ticket_.head)
    if (const auto* assign = std::get_if<Assign>(&received->message))
      for (const RouteStage& stage : assign->route)
        if (stage.peer != keys_.public_key) link_->allow(stage.peer);
  if (driver_) driver_->post(std::move(event));
}

void PeerProcess::check_refused() {
  const StageHost* stage = driver_->node().stage();
  if (stage->state() == StageHost::State::kRefused && !std::exchange(told_, true))
    ended_(Error(ErrorCode::kRefused, "the head refused this peer: " + stage->reason()));
}

// What this peer does in the ring now, when it is not what was told before.
void PeerProcess::tell_part() {
  if (!options_.tell) return;
  const StageHost& stage = *driver_->node().stage();
  const auto& assign = stage.assignment();
  std::string part;
  switch (stage.state()) {
    case StageHost::State::kAlone:
    case StageHost::State::kGreeting:
      part = part_.empty() ? "" : "the head is out of reach; still trying";
      break;
    case StageHost::State::kIdle:
      part = fmt::format("in the ring as {}, without layers for now{}; Ctrl-C ends", options_.name,
                         small_offer_);
      break;
    case StageHost::State::kReady: {
      const UnitSpan span = assign->route[assign->stage].span;
      part = fmt::format("in the ring as {}, hosts layers {} to {}; Ctrl-C ends", options_.name, span.first,
                         span.last - 1);
      break;
    }
    case StageHost::State::kFailed:
      part = "this stage failed: " + stage.reason();
      break;
    case StageHost::State::kForming:
    case StageHost::State::kRefused:
      return;
  }
  if (part == part_) return;
  part_ = part;
  options_.tell(part);
}

}  // namespace caravan
