// Measurements as JSON, and back.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "daemon/calibrate.h"

namespace caravan {

namespace {

using Json = nlohmann::ordered_json;

constexpr int kVersion = 3;

Json put(const ThreadRate& rate) {
  return {{"one", rate.one}, {"all", rate.all}};
}
Json put(const KernelRates& rates) {
  return {{"row_bytes", put(rates.row_bytes)}, {"many_operations", put(rates.many_operations)}};
}

struct Damaged {};

// A figure that something can be divided by.
double rate_of(const Json& json) {
  const double value = json.get<double>();
  if (!std::isfinite(value) || value <= 0) throw Damaged();
  return value;
}
ThreadRate take_rate(const Json& json) {
  return {rate_of(json.at("one")), rate_of(json.at("all"))};
}
KernelRates take_rates(const Json& json) {
  return {take_rate(json.at("row_bytes")), take_rate(json.at("many_operations"))};
}
double seconds_of(const Json& json) {
  const double value = json.get<double>();
  if (!std::isfinite(value) || value < 0) throw Damaged();
  return value;
}
double share_of(const Json& json) {
  const double value = rate_of(json);
  if (value > 1) throw Damaged();
  return value;
}

Json put(const DiskRate& rate) {
  return {{"read_bytes", rate.bytes}, {"readers", rate.readers}, {"bytes_per_second", rate.rate}};
}

Json put(const Measurements& measurements) {
  Json json = {{"threads", measurements.threads}, {"memory", put(measurements.memory)}};
  for (const auto& [type, rates] : measurements.kernels)
    json["kernels"][std::string(name(type))] = put(rates);
  json["attention"] = {{"f32", put(measurements.attention_f32)}, {"f16", put(measurements.attention_f16)}};
  json["call_seconds"] = measurements.call_seconds;
  json["disk"] = Json::array();
  for (const DiskRate& rate : measurements.disk) json["disk"].push_back(put(rate));
  json["kv"] = put(measurements.kv);
  json["small_read_seconds"] = measurements.small_read_seconds;
  json["direct"] = measurements.direct;
  json["sha256"] = measurements.sha256;
  json["xxh3"] = measurements.xxh3;
  json["compute_while_reading"] = measurements.compute_while_reading;
  json["read_while_computing"] = measurements.read_while_computing;
  json["hash_while_both"] = measurements.hash_while_both;
  json["sha256_while_both"] = measurements.sha256_while_both;
  json["memory_while_both"] = measurements.memory_while_both;
  json["store"] = {{"bytes_per_second", measurements.store.rate},
                   {"compute_while_reading", measurements.store.compute_while_reading},
                   {"read_while_computing", measurements.store.read_while_computing}};
  return json;
}

DiskRate take_disk(const Json& json) {
  return {json.at("read_bytes").get<uint64_t>(), json.at("readers").get<uint32_t>(),
          rate_of(json.at("bytes_per_second"))};
}

Measurements take_measurements(const Json& json) {
  constexpr size_t kMostDisk = 64;
  Measurements measurements;
  measurements.threads = json.at("threads").get<uint32_t>();
  measurements.memory = take_rate(json.at("memory"));
  for (const auto& [key, value] : json.at("kernels").items()) {
    const std::optional<TensorType> type = tensor_type_from_name(key);
    if (!type) throw Damaged();
    measurements.kernels[*type] = take_rates(value);
  }
  measurements.attention_f32 = take_rates(json.at("attention").at("f32"));
  measurements.attention_f16 = take_rates(json.at("attention").at("f16"));
  measurements.call_seconds = seconds_of(json.at("call_seconds"));
  for (const Json& rate : json.at("disk")) measurements.disk.push_back(take_disk(rate));
  measurements.kv = take_disk(json.at("kv"));
  measurements.small_read_seconds = seconds_of(json.at("small_read_seconds"));
  measurements.direct = json.at("direct").get<bool>();
  measurements.sha256 = rate_of(json.at("sha256"));
  measurements.xxh3 = rate_of(json.at("xxh3"));
  measurements.compute_while_reading = share_of(json.at("compute_while_reading"));
  measurements.read_while_computing = share_of(json.at("read_while_computing"));
  measurements.hash_while_both = share_of(json.at("hash_while_both"));
  measurements.sha256_while_both = share_of(json.at("sha256_while_both"));
  measurements.memory_while_both = share_of(json.at("memory_while_both"));
  const Json& store = json.at("store");
  measurements.store = {rate_of(store.at("bytes_per_second")), share_of(store.at("compute_while_reading")),
                        share_of(store.at("read_while_computing"))};
  if (measurements.threads == 0 || measurements.kernels.empty() || measurements.disk.empty() ||
      measurements.disk.size() > kMostDisk)
    throw Damaged();
  return measurements;
}

}  // namespace

std::string calibration_text(const Calibration& calibration) {
  const CalibrationKey& key = calibration.key;
  const Json json = {{"format", kVersion},
                     {"processor", key.processor},
                     {"cores", key.cores},
                     {"memory_bytes", key.memory_bytes},
                     {"version", key.version},
                     {"build", key.build},
                     {"isa", key.isa},
                     {"measured_unix", calibration.unix_seconds},
                     {"measurements", put(calibration.measurements)}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::optional<Calibration> parse_calibration(const std::string& text) {
  try {
    const Json json = Json::parse(text);
    Calibration calibration;
    if (json.at("format").get<int>() != kVersion) return calibration;
    calibration.key = {json.at("processor").get<std::string>(), json.at("cores").get<uint32_t>(),
                       json.at("memory_bytes").get<uint64_t>(), json.at("version").get<std::string>(),
                       json.at("build").get<std::string>(),     json.at("isa").get<std::string>()};
    calibration.unix_seconds = json.at("measured_unix").get<int64_t>();
    calibration.measurements = take_measurements(json.at("measurements"));
    return calibration;
  } catch (const Json::exception&) {
    return std::nullopt;
  } catch (const Damaged&) {
    return std::nullopt;
  }
}

}  // namespace caravan
