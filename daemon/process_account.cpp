#include "daemon/process_account.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <span>

#include "base/atomic_file.h"
#include "base/bytes.h"
#include "daemon/memory_line.h"

namespace caravan {

namespace {

nlohmann::ordered_json plan_json(const Engine& engine) {
  const Pager& pager = engine.pager();
  const ResidencyPlan plan = pager.plan();
  const KvRoom kv = engine.kv_room();
  return {{"weights", pager.mapped() ? "mapped" : "streamed"},
          {"weights_bytes", pager.total_bytes()},
          {"limit_bytes", pager.mapped() ? pager.total_bytes() : pager.limit().count},
          {"resident_bytes", plan.resident_bytes},
          {"window_bytes", plan.window_bytes},
          {"on_demand_bytes", plan.on_demand_bytes},
          {"streamed_bytes_a_pass", plan.streamed_bytes},
          {"reader", pager.reader_name()},
          {"kv_blocks", kv.blocks},
          {"kv_frames", kv.frames},
          {"kv_memory_bytes", engine.memory().state_bytes}};
}

// The most that was resident of this process: its own memory, and what it had mapped of files. What
// getrusage() tells has the memory of the program that started this one in it, because it outlives exec().
uint64_t peak_memory_bytes() {
  return memory_line("/proc/self/status", "VmHWM:").value_or(Bytes{}).count;
}

}  // namespace

void ProcessAccount::add(const ProcessAccount& other) {
  disk_bytes += other.disk_bytes;
  kv_bytes_written += other.kv_bytes_written;
  kv_bytes_read += other.kv_bytes_read;
  kv_bytes_archived += other.kv_bytes_archived;
  kv_wait_ms += other.kv_wait_ms;
  peak_memory_bytes += other.peak_memory_bytes;
}

ProcessAccount account_of(const Engine& engine) {
  const KvCounters& kv = engine.kv_counters();
  ProcessAccount account;
  account.kv_bytes_written = kv.bytes_written.value();
  account.kv_bytes_read = kv.bytes_read.value();
  if (const KvArchive* archive = engine.archive()) {
    account.kv_bytes_read += archive->counters().bytes_read.value();
    account.kv_bytes_archived = archive->counters().bytes_written.value();
  }
  account.disk_bytes = engine.pager().counters().bytes_read.value() + account.kv_bytes_read +
                       account.kv_bytes_written + account.kv_bytes_archived;
  account.kv_wait_ms = static_cast<double>(kv.waited_ns.value()) * 1e-6;
  account.peak_memory_bytes = peak_memory_bytes();
  account.plan = plan_json(engine).dump();
  return account;
}

std::string account_text(const ProcessAccount& account) {
  const nlohmann::ordered_json json = {{"disk_bytes", account.disk_bytes},
                                       {"kv_bytes_written", account.kv_bytes_written},
                                       {"kv_bytes_read", account.kv_bytes_read},
                                       {"kv_bytes_archived", account.kv_bytes_archived},
                                       {"kv_wait_ms", account.kv_wait_ms},
                                       {"peak_memory_bytes", account.peak_memory_bytes},
                                       {"plan", nlohmann::ordered_json::parse(account.plan)}};
  return json.dump();
}

void write_account(const std::string& path, const ProcessAccount& account) {
  const std::string text = account_text(account);
  AtomicFile file(path);
  file.append(std::as_bytes(std::span(text)));
  file.commit();
}

std::optional<ProcessAccount> read_account(const std::string& path) {
  std::ifstream in(path);
  const auto json = nlohmann::ordered_json::parse(in, nullptr, false);
  try {
    ProcessAccount account;
    json.at("disk_bytes").get_to(account.disk_bytes);
    json.at("kv_bytes_written").get_to(account.kv_bytes_written);
    json.at("kv_bytes_read").get_to(account.kv_bytes_read);
    json.at("kv_bytes_archived").get_to(account.kv_bytes_archived);
    json.at("kv_wait_ms").get_to(account.kv_wait_ms);
    json.at("peak_memory_bytes").get_to(account.peak_memory_bytes);
    account.plan = json.at("plan").dump();
    return account;
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
}

}  // namespace caravan
