// What a PagesBench looks like to people and to programs.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "bench/pages_bench.h"

namespace caravan {

namespace {

using Json = nlohmann::ordered_json;

// What the first token takes beyond what it takes with its KV in memory.
double times_raw_read(const RestartBench& restart) {
  return std::max(0.0, restart.warm - restart.in_memory) / restart.raw_read();
}

std::string weights_table(const WeightsBench& weights) {
  std::string text =
      fmt::format("{:<6} {:>5} {:>9} {:>11} {:>12} {:>10} {:>8} {:>7} {:>7}\n", "decode", "x RAM", "ram",
                  "ms a token", "predicted ms", "MB a token", "raw GB/s", "of raw", "hidden");
  for (const PagedDecode& row : weights.decodes)
    if (!row.not_possible.empty())
      text += fmt::format("{:<6} {:>5.0f} {:>9} not possible: {}\n", row.from, row.times_ram,
                          to_string(Bytes{row.ram}), row.not_possible);
    else
      text += fmt::format(
          "{:<6} {:>5.0f} {:>9} {:>11.1f} {:>12.1f} {:>10.1f} {:>8.2f} {:>5.0f} % {:>5.0f} %\n", row.from,
          row.times_ram, to_string(Bytes{row.ram}), row.seconds_a_token * 1e3, row.predicted_seconds * 1e3,
          row.bytes_a_token / 1e6, row.raw_rate / 1e9, row.share * 100, row.hidden * 100);
  text += fmt::format("\n{:<7} {:>8} {:>10} {:>10} {:>10} {:>7}\n", "readers", "raw GB/s", "CPU s a GB",
                      "store GB/s", "CPU s a GB", "of raw");
  for (const StoredReads& row : weights.reads)
    text += fmt::format("{:<7} {:>8.2f} {:>10.2f} {:>10.2f} {:>10.2f} {:>5.0f} %\n", row.readers,
                        row.raw_rate / 1e9, row.raw_processor_seconds_gb, row.store_rate / 1e9,
                        row.processor_seconds_gb, row.share * 100);
  return text + fmt::format("copied into the store at {:.0f} MB/s, {:.2f} s of CPU a GB\n",
                            weights.import.rate / 1e6, weights.import.processor_seconds_gb);
}

std::string restart_table(const RestartBench& restart) {
  std::string text =
      fmt::format("\na prompt of {} tokens, and again after kill -9 ({} of {} times from the archive)\n",
                  restart.prompt_tokens, restart.loads, restart.restarts);
  const auto line = [&](const char* what, double value) {
    text += fmt::format("{:<46} {:>9.1f} ms\n", what, value * 1e3);
  };
  line("first token, cold", restart.cold);
  line("the new process until it answers", restart.load);
  line("first token, seen before", restart.warm);
  line("first token, its KV in memory", restart.in_memory);
  line(fmt::format("{:.1f} MB of KV read raw at {:.2f} GB/s", static_cast<double>(restart.kv_bytes) / 1e6,
                   restart.raw_rate / 1e9)
           .c_str(),
       restart.raw_read());
  return text;
}

}  // namespace

std::vector<PagesAim> pages_aims(const PagesBench& bench) {
  std::vector<PagesAim> aims;
  for (const PagedDecode& row : bench.weights.decodes)
    if (row.not_possible.empty())
      aims.push_back({fmt::format("decode, {:.0f} x RAM, {}: of raw", row.times_ram, row.from), row.share,
                      row.from == "file" ? 0.85 : 0.7});
  for (const StoredReads& row : bench.weights.reads) {
    const std::string name = fmt::format("store, {} reader{}: ", row.readers, row.readers == 1 ? "" : "s");
    aims.push_back({name + "of raw", row.share, 0.7});
    aims.push_back({name + "CPU s a GB", row.processor_seconds_gb, 0.45, false});
  }
  const RestartBench& restart = bench.restart;
  aims.push_back({"seen before: KV, times its raw read", times_raw_read(restart), 1.5, false});
  aims.push_back({"seen before: first token, of cold", restart.warm / restart.cold, 0.1, false});
  aims.push_back({"fetch: GB/s", bench.fetch.rate / 1e9, 0.4});
  return aims;
}

std::string pages_table(const PagesBench& bench) {
  std::string text = weights_table(bench.weights) + restart_table(bench.restart);
  const FetchBench& fetch = bench.fetch;
  text += fmt::format(
      "\n{} fetched over the loopback at {:.0f} MB/s, {:.2f} s of CPU a GB at both ends; first hashed at "
      "{:.0f} MB/s\n",
      to_string(Bytes{fetch.bytes}), fetch.rate / 1e6, fetch.processor_seconds_gb, fetch.hash_rate / 1e6);
  text += fmt::format("\n{:<46} {:>9}   aim\n", "", "measured");
  for (const PagesAim& aim : pages_aims(bench))
    text += fmt::format("{:<46} {:>9.3g}   at {} {:.2f}{}\n", aim.name, aim.value,
                        aim.at_least ? "least" : "most", aim.aim, aim.is_met() ? "" : ": missed");
  return text;
}

namespace {

Json decode_json(const PagedDecode& row) {
  Json json = {{"from", row.from}, {"times_ram", row.times_ram}, {"ram", row.ram}};
  if (!row.not_possible.empty()) {
    json["not_possible"] = row.not_possible;
    return json;
  }
  json["seconds_per_token"] = row.seconds_a_token;
  json["predicted_seconds_per_token"] = row.predicted_seconds;
  json["disk_bytes_per_token"] = row.bytes_a_token;
  json["raw_bytes_per_second"] = row.raw_rate;
  json["share_of_raw"] = row.share;
  json["hidden"] = row.hidden;
  return json;
}

}  // namespace

std::string pages_json(const PagesBench& bench) {
  const WeightsBench& weights = bench.weights;
  Json json = {{"model", bench.model}, {"decode", Json::array()}};
  for (const PagedDecode& row : weights.decodes) json["decode"].push_back(decode_json(row));
  json["store_reads"] = Json::array();
  for (const StoredReads& row : weights.reads)
    json["store_reads"].push_back({{"readers", row.readers},
                                   {"raw_bytes_per_second", row.raw_rate},
                                   {"raw_processor_seconds_per_gb", row.raw_processor_seconds_gb},
                                   {"store_bytes_per_second", row.store_rate},
                                   {"processor_seconds_per_gb", row.processor_seconds_gb},
                                   {"share_of_raw", row.share}});
  json["store_import"] = {{"bytes", weights.import.bytes},
                          {"bytes_per_second", weights.import.rate},
                          {"processor_seconds_per_gb", weights.import.processor_seconds_gb}};
  const RestartBench& restart = bench.restart;
  json["restart"] = {{"prompt_tokens", restart.prompt_tokens},
                     {"restarts", restart.restarts},
                     {"loaded", restart.loads},
                     {"cold_seconds", restart.cold},
                     {"load_seconds", restart.load},
                     {"warm_seconds", restart.warm},
                     {"in_memory_seconds", restart.in_memory},
                     {"kv_bytes", restart.kv_bytes},
                     {"raw_bytes_per_second", restart.raw_rate},
                     {"raw_read_seconds", restart.raw_read()}};
  json["fetch"] = {{"bytes", bench.fetch.bytes},
                   {"bytes_per_second", bench.fetch.rate},
                   {"processor_seconds_per_gb", bench.fetch.processor_seconds_gb},
                   {"hash_bytes_per_second", bench.fetch.hash_rate}};
  json["aims"] = Json::array();
  for (const PagesAim& aim : pages_aims(bench))
    json["aims"].push_back({{"name", aim.name},
                            {"value", aim.value},
                            {aim.at_least ? "at_least" : "at_most", aim.aim},
                            {"met", aim.is_met()}});
  return json.dump(2) + "\n";
}

}  // namespace caravan
