#include "daemon/local_ring.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "daemon/calibrate.h"
#include "daemon/child_flags.h"
#include "daemon/defaults.h"
#include "daemon/link_options.h"
#include "daemon/model_library.h"
#include "daemon/small_budgets.h"

namespace caravan {

namespace {

constexpr Duration kWatchInterval = std::chrono::milliseconds(50);
// Loading on a slow disk takes its time; a child that ends is noticed at once.
constexpr Duration kPatience = std::chrono::seconds(600);

void refuse(const std::string& small_budgets) {
  if (!small_budgets.empty()) fail(ErrorCode::kOutOfMemory, "{}", small_budgets);
}

}  // namespace

LocalRing::LocalRing(EventLoop& loop, const Clock& clock, Random& random, const Config& config,
                     const std::string& model_path, uint32_t peers, LoadProgress progress)
    : loop_(loop),
      clock_(clock),
      random_(random),
      config_(config),
      model_(child_model(model_path)),
      peers_(peers),
      keys_(make_key_pair(random)) {
  HeadProcessOptions options;
  options.self = keys_.public_key;
  options.awaited = true;
  Manifest manifest = open_model(model_path, config);
  if (peers > manifest.layer_count && !manifest.groups.empty())
    fail(ErrorCode::kInvalidArgument, "{} peers cannot share {} layers; --peers {} at most", peers,
         manifest.layer_count, manifest.layer_count);
  if (peers > 0) {
    start_link();
    options.link = link_.get();
    options.host_layers = false;
    options.cut = CutMode::kEven;
    options.min_peers = peers;
    options.sharers = peers;
  }
  try {
    head_ = std::make_unique<HeadProcess>(loop, clock, random, config, std::move(manifest), options,
                                          std::move(progress));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kOutOfMemory) throw;
    refuse(small_budgets(config, model_path, peers));
    throw;
  }
  // Before any child starts: what is too small for it is told once, with the least that does.
  const Engine& engine = head_->engine();
  refuse(
      small_budgets({config, engine.manifest(), engine.spec(), engine.options(), head_->context(), peers}));
}

LocalRing::~LocalRing() {
  end_children();
  link_.reset();
}

void LocalRing::end_children() {
  if (timer_) loop_.cancel(*std::exchange(timer_, std::nullopt));
  if (head_) head_->driver().stop();
  // Together, and before the link goes: none of them then takes the others' end for a failure.
  for (ChildProcess& child : children_) child.ask_to_end();
  if (head_) *head_->saving() = true;  // it may be the children that save something
  children_.clear();
  if (head_) *head_->saving() = false;
}

std::vector<LocalRing::PeerAccount> LocalRing::end() {
  std::vector<PeerAccount> accounts;
  for (const ChildProcess& child : children_) accounts.push_back({child.name(), std::nullopt});
  end_children();
  head_->finish_archiving();
  for (PeerAccount& one : accounts) one.account = read_account(account_file(one.name));
  return accounts;
}

std::string LocalRing::account_file(const std::string& child) const {
  return folder_->path() + "/" + child + ".json";
}

void LocalRing::start_link() {
  folder_.emplace(state_folder(config_), "local-");
  ZmqLinkOptions options = link_options(keys_, "head", "tcp://127.0.0.1:0", config_);
  ZmqLinkCallbacks callbacks;
  callbacks.event = [this](LinkEvent event) {
    loop_.post([this, event = std::move(event)]() mutable {
      if (head_) head_->on_link(std::move(event));
    });
  };
  // Keys of one run are not kept: the ring ends with this process.
  callbacks.admit = [](const PeerKey& key, const std::string& name, const PeerKey&) {
    log_info("admitted peer={} key={}", name, short_string(key));
  };
  link_ = std::make_unique<ZmqLink>(std::move(options), clock_, random_, std::move(callbacks));
}

void LocalRing::start() {
  head_->start();
  for (uint32_t i = 0; i < peers_; ++i) start_child(i);
  reported_.assign(children_.size(), false);
  const Time deadline = clock_.now() + kPatience;
  head_->driver().on_change([this] { check_ready(); });
  if (peers_ > 0) watch_children();
  loop_.after(kPatience, [this, deadline] {
    if (ready_ && clock_.now() >= deadline)
      std::exchange(ready_,
                    nullptr)(Error(ErrorCode::kTimeout, head_->driver().node().head()->not_ready_reason()));
  });
  loop_.post([this] { check_ready(); });
}

void LocalRing::start_child(uint32_t index) {
  const std::string name = "peer-" + std::to_string(index + 1);
  const std::string state = folder_->path() + "/" + name;
  lend_calibration(state_folder(config_), state);
  const EngineOptions& engine = head_->engine().options();
  Config config = config_;
  config.threads = engine.threads;
  // What a child would warn of, the head tells better: a neighbour that ends first is no news when the ring
  // ends.
  if (config.log_level == "warning") config.log_level = "error";
  std::vector<std::string> arguments = {"join",           "-",
                                        "--model",        model_,
                                        "--state",        state,
                                        "--name",         name,
                                        "--listen",       "127.0.0.1:0",
                                        "--peer-timeout", std::to_string(config_.peer_timeout_s),
                                        "--sharers",      std::to_string(peers_),
                                        "--account",      account_file(name)};
  for (std::string& flag : child_flags(config)) arguments.push_back(std::move(flag));
  // Of its own, and kept when the ring is gone; what the whole ring may take is shared.
  const ArchiveOptions& archive = engine.archive;
  arguments.insert(arguments.end(),
                   {"--archive", std::to_string(archive.on() ? archive.limit.count * peers_ : 0)});
  if (archive.on()) arguments.insert(arguments.end(), {"--archive-folder", archive.folder + "/" + name});
  const Ticket ticket = make_ticket(keys_.public_key, link_->endpoints(), 0, random_);
  link_->add_ticket(open_ticket(ticket));
  children_.emplace_back(name, own_program(), arguments);
  children_.back().write_line(to_text(ticket));
}

void LocalRing::watch_children() {
  for (size_t i = 0; i < children_.size(); ++i) {
    const auto how = children_[i].ended();
    if (!how || reported_[i]) continue;
    reported_[i] = true;
    const std::string what =
        children_[i].name() + " (process " + std::to_string(children_[i].pid()) + ") " + *how;
    if (ready_) return std::exchange(ready_, nullptr)(Error(ErrorCode::kUnavailable, what));
    if (lost_) lost_(what);
  }
  timer_ = loop_.after(kWatchInterval, [this] { watch_children(); });
}

bool LocalRing::has_child() const {
  return std::find(reported_.begin(), reported_.end(), false) != reported_.end();
}

void LocalRing::check_ready() {
  if (!ready_) return;
  const Head& head = *head_->driver().node().head();
  // What keeps failing on this machine will not mend itself.
  if (const auto out = head.left_out(clock_.now()); !head.ready() && !out.empty())
    return std::exchange(ready_, nullptr)(
        Error(ErrorCode::kUnavailable, peers_ > 0 ? out[0].name + ": " + out[0].reason : out[0].reason));
  constexpr uint32_t kTries = 3;
  if (head.useless_canaries() >= kTries)
    return std::exchange(ready_, nullptr)(Error(ErrorCode::kMalformed, head.useless_reason()));
  if (head.ring().too_large())
    return std::exchange(ready_, nullptr)(Error(ErrorCode::kOutOfMemory, head.not_ready_reason()));
  if (!head.ready()) return;
  std::exchange(ready_, nullptr)(std::nullopt);
}

}  // namespace caravan
