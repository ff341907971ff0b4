#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/config.h"
#include "base/random.h"
#include "daemon/child_process.h"
#include "daemon/event_loop.h"
#include "daemon/head_process.h"
#include "daemon/process_account.h"
#include "daemon/process_folder.h"
#include "peers/zmq_link.h"

namespace caravan {

// A ring on this machine: this process alone (no peers), or a head with N child processes that share the
// layers evenly over loopback. Each child has a state folder of its own, which goes with the ring. Control
// thread.
class LocalRing {
 public:
  using Ready = std::function<void(const std::optional<Error>& failure)>;
  using Lost = std::function<void(const std::string& what)>;

  // Throws as Engine; kIo naming --state when there is no place for the children's folders.
  LocalRing(EventLoop& loop, const Clock& clock, Random& random, const Config& config,
            const std::string& model_path, uint32_t peers, LoadProgress progress);
  ~LocalRing();

  HeadProcess& head() { return *head_; }
  // Called once: when the ring is ready, or with the reason why it will not be.
  void when_ready(Ready ready) { ready_ = std::move(ready); }
  // Called when a child has ended.
  void when_lost(Lost lost) { lost_ = std::move(lost); }
  void start();
  struct PeerAccount {
    std::string name;
    std::optional<ProcessAccount> account;  // none: it did not end in order
  };
  // Ends the children, each of which tells what it moved and took, and archives what is to be archived here.
  // While no step is under way.
  std::vector<PeerAccount> end();
  const std::vector<ChildProcess>& children() const { return children_; }
  bool has_child() const;  // that has not been reported as lost

 private:
  void start_link();
  void start_child(uint32_t index);
  void end_children();
  // Where it leaves what it moved and took.
  std::string account_file(const std::string& child) const;
  void watch_children();
  void check_ready();

  EventLoop& loop_;
  const Clock& clock_;
  Random& random_;
  const Config config_;
  const std::string model_;  // an absolute path, or the name of an imported model
  const uint32_t peers_;
  Ready ready_;
  Lost lost_;
  KeyPair keys_;
  std::optional<ProcessFolder> folder_;
  std::unique_ptr<HeadProcess> head_;
  std::unique_ptr<ZmqLink> link_;
  std::vector<ChildProcess> children_;
  std::vector<bool> reported_;
  std::optional<TimerId> timer_;
};

}  // namespace caravan
