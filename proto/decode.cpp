#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/exception.h>
#include <proto/wire.capnp.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/limits.h"
#include "proto/encode.h"

namespace caravan {
namespace {

// Every part of a header is read at most twice here; lists of empty structs cost traversal, too.
constexpr uint64_t kTraversalWords = 4 * limits::kMaxHeaderBytes / sizeof(capnp::word);
constexpr int kNesting = 8;
constexpr uint8_t kOperationKinds = static_cast<uint8_t>(OperationKind::kLoad) + 1;

template <class B>
B blob(capnp::Data::Reader data, const char* field) {
  B out;
  if (data.size() != out.bytes.size())
    fail(ErrorCode::kMalformed, "{} of {} bytes instead of {}", field, data.size(), out.bytes.size());
  std::memcpy(out.bytes.data(), data.begin(), data.size());
  return out;
}

std::vector<BlockTag> block_tags(capnp::Data::Reader data, const char* what) {
  if (data.size() % BlockTag::size() != 0)
    fail(ErrorCode::kMalformed, "{} in {} bytes, {} each", what, data.size(), BlockTag::size());
  const size_t count = data.size() / BlockTag::size();
  if (count > limits::kMaxTagsPerStep)
    fail(ErrorCode::kLimit, "{} {}, {} are allowed", count, what, limits::kMaxTagsPerStep);
  std::vector<BlockTag> out(count);
  if (count > 0) std::memcpy(static_cast<void*>(out.data()), data.begin(), data.size());
  return out;
}

// Texts reach logs and terminals: control characters have no place in them.
std::string text(capnp::Text::Reader value, size_t limit, const char* field) {
  if (value.size() > limit)
    fail(ErrorCode::kLimit, "{} of {} bytes, {} are allowed", field, value.size(), limit);
  std::string out(value.begin(), value.size());
  if (std::any_of(out.begin(), out.end(),
                  [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }))
    fail(ErrorCode::kMalformed, "{} holds a control character", field);
  return out;
}
std::string name_text(capnp::Text::Reader value, const char* field) {
  return text(value, limits::kMaxNameBytes, field);
}
std::string reason_text(capnp::Text::Reader value) {
  return text(value, limits::kMaxReasonBytes, "a reason");
}

template <class E>
E enumerator(uint8_t value, uint8_t count, const char* field) {
  if (value >= count) fail(ErrorCode::kMalformed, "unknown {} {}", field, value);
  return static_cast<E>(value);
}

template <class List>
void check_count(const List& list, size_t limit, const char* what) {
  if (list.size() > limit) fail(ErrorCode::kLimit, "{} {}, {} are allowed", list.size(), what, limit);
}

std::vector<std::string> endpoints(capnp::List<capnp::Text>::Reader list) {
  check_count(list, limits::kMaxEndpoints, "endpoints");
  std::vector<std::string> out;
  out.reserve(list.size());
  for (const auto one : list) out.push_back(name_text(one, "an endpoint"));
  return out;
}

template <class Value, class Reader>
Value of_epoch(const Reader& in) {
  Value out;
  out.ring = blob<RingId>(in.getRing(), "a ring's id");
  out.epoch = {in.getEpoch()};
  return out;
}

UnitSpan units(uint32_t first, uint32_t last) {
  if (first > last || last > limits::kMaxLayers + 2)
    fail(ErrorCode::kMalformed, "a stage of units {} to {}", first, last);
  return {first, last};
}

Rows rows_header(wire::Rows::Reader in) {
  Rows out;
  out.codec = enumerator<CodecId>(in.getCodec(), kCodecCount, "codec");
  out.width = in.getWidth();
  out.count = in.getCount();
  if (out.width > limits::kMaxWidth)
    fail(ErrorCode::kLimit, "rows of width {}, {} is allowed", out.width, limits::kMaxWidth);
  if (out.count > limits::kMaxRowsPerStep)
    fail(ErrorCode::kLimit, "{} rows, a step holds {}", out.count, limits::kMaxRowsPerStep);
  if (out.count > 0 && out.width == 0) fail(ErrorCode::kMalformed, "{} rows of width 0", out.count);
  return out;
}

std::vector<StageCounters> counters(capnp::List<wire::StageCounters>::Reader list) {
  check_count(list, limits::kMaxPeers, "stage counters");
  std::vector<StageCounters> out;
  out.reserve(list.size());
  for (const auto one : list)
    out.push_back({one.getStage(), one.getRows(), one.getComputeNs(), one.getQueueNs(), one.getBytesIn(),
                   one.getBytesOut()});
  return out;
}

// Zeros where an older build says none.
Hash256 weights_id(capnp::Data::Reader in) {
  return in.size() == 0 ? Hash256{} : blob<Hash256>(in, "what a peer's weights are");
}

Hello read(wire::Hello::Reader in) {
  Hello out;
  out.protocol = in.getProtocol();
  out.name = name_text(in.getName(), "a peer's name");
  out.build = name_text(in.getBuild(), "a build");
  out.numerics_class = name_text(in.getNumericsClass(), "a numerics class");
  out.model = blob<Hash256>(in.getModel(), "a model's fingerprint");
  out.layers = in.getLayers();
  if (out.layers > limits::kMaxLayers)
    fail(ErrorCode::kLimit, "a model of {} layers, {} are allowed", out.layers, limits::kMaxLayers);
  out.incarnation = in.getIncarnation();
  out.memory_bytes = in.getMemoryBytes();
  out.layer_ns = in.getLayerNs();
  out.threads = in.getThreads();
  out.endpoints = endpoints(in.getEndpoints());
  out.fetches = in.getFetches();
  out.weights = weights_id(in.getWeights());
  return out;
}

Welcome read(wire::Welcome::Reader in) {
  return {in.getProtocol(), blob<RingId>(in.getRing(), "a ring's id"),
          name_text(in.getName(), "a head's name"), in.getHeartbeatMs(), in.getPeerTimeoutMs()};
}

Refuse read(wire::Refuse::Reader in) {
  return {reason_text(in.getReason())};
}
Goodbye read(wire::Goodbye::Reader in) {
  return {reason_text(in.getReason())};
}

Heartbeat read(wire::Heartbeat::Reader in) {
  return {in.getSentNs(),        in.getEchoNs(),      in.getKvBlocks(), in.getKvBlocksFree(),
          in.getOpenSequences(), in.getQueuedSteps(), {in.getEpoch()},  {in.getLastStep()},
          in.getFetchedBytes(),  in.getFetchBytes()};
}

Assign read(wire::Assign::Reader in) {
  Assign out = of_epoch<Assign>(in);
  out.model = blob<Hash256>(in.getModel(), "a model's fingerprint");
  out.stage = in.getStage();
  const auto route = in.getRoute();
  check_count(route, limits::kMaxPeers, "stages");
  out.route.reserve(route.size());
  for (const auto one : route) {
    RouteStage stage;
    stage.peer = blob<PeerKey>(one.getPeer(), "a peer's key");
    stage.name = name_text(one.getName(), "a peer's name");
    stage.numerics_class = name_text(one.getNumericsClass(), "a numerics class");
    stage.endpoints = endpoints(one.getEndpoints());
    stage.span = units(one.getFirst(), one.getLast());
    stage.weights = weights_id(one.getWeights());
    out.route.push_back(std::move(stage));
  }
  if (out.stage >= out.route.size())
    fail(ErrorCode::kMalformed, "stage {} of a route of {}", out.stage, out.route.size());
  out.codec = enumerator<CodecId>(in.getCodec(), kCodecCount, "codec");
  out.kv_type = in.getKvType();
  out.context = in.getContext();
  out.max_sequences = in.getMaxSequences();
  out.max_rows = in.getMaxRows();
  out.weights = weights_id(in.getWeights());
  if (out.context > limits::kMaxContext || out.max_sequences > limits::kMaxSequences ||
      out.max_rows > limits::kMaxRowsPerStep)
    fail(ErrorCode::kLimit, "a context of {} positions, {} sequences, {} rows: over the limits", out.context,
         out.max_sequences, out.max_rows);
  return out;
}

Contract read(wire::Contract::Reader in) {
  Contract out = of_epoch<Contract>(in);
  out.edge = in.getEdge();
  out.to_head = in.getToHead();
  out.hash = blob<Hash256>(in.getHash(), "a contract's hash");
  out.matched = in.getMatched();
  return out;
}

// All of it, or none.
std::vector<uint64_t> forecast(capnp::List<uint64_t>::Reader list, uint32_t count, const char* what) {
  if (list.size() != 0 && list.size() != count)
    fail(ErrorCode::kMalformed, "{} {} instead of {}", list.size(), what, count);
  std::vector<uint64_t> out;
  out.reserve(list.size());
  for (const uint64_t one : list) out.push_back(one);
  return out;
}

Ready read(wire::Ready::Reader in) {
  Ready out = of_epoch<Ready>(in);
  out.kv_blocks = in.getKvBlocks();
  out.archive = {in.getArchiveBlocks(), in.getArchiveBlocksToday(), in.getArchiveBlocksADay()};
  out.forecast.token_ns = forecast(in.getTokenNs(), limits::kForecastTokens, "expected times of tokens");
  out.forecast.prompt_ns = forecast(in.getPromptNs(), limits::kForecastPrompts, "expected times of prompts");
  if (out.forecast.token_ns.empty() != out.forecast.prompt_ns.empty())
    fail(ErrorCode::kMalformed, "a stage expects something of tokens or of prompts alone");
  return out;
}

ArchiveLimit read(wire::ArchiveLimit::Reader in) {
  ArchiveLimit out = of_epoch<ArchiveLimit>(in);
  out.room = {in.getBlocks(), in.getBlocksToday(), in.getBlocksADay()};
  return out;
}

NotReady read(wire::NotReady::Reader in) {
  NotReady out = of_epoch<NotReady>(in);
  out.edge = in.getEdge();
  out.reason = reason_text(in.getReason());
  return out;
}

Release read(wire::Release::Reader in) {
  Release out = of_epoch<Release>(in);
  out.reason = reason_text(in.getReason());
  return out;
}

RowRange read(wire::RowRange::Reader in) {
  RowRange out;
  out.sequence = {in.getSequence()};
  out.number = in.getNumber();
  out.first_position = in.getFirstPosition();
  out.count = in.getCount();
  out.kernel_class = enumerator<KernelClass>(in.getKernelClass(), 2, "kernel class");
  out.answer = enumerator<AnswerKind>(in.getAnswer(), 4, "kind of answer");
  out.answer_count = in.getAnswerCount();
  if (out.count == 0 || out.count > limits::kMaxRowsPerStep)
    fail(ErrorCode::kLimit, "a range of {} rows, 1 to {} are allowed", out.count, limits::kMaxRowsPerStep);
  if (out.first_position > limits::kMaxContext - out.count)
    fail(ErrorCode::kLimit, "position {} and {} rows: over the context", out.first_position, out.count);
  if (out.answer_count > out.count || (out.answer_count == 0) != (out.answer == AnswerKind::kNothing))
    fail(ErrorCode::kMalformed, "{} answers of {} rows, kind {}", out.answer_count, out.count,
         in.getAnswer());
  return out;
}

template <class In, class Out>
void read_lost(In in, Out& out) {
  const auto lost = in.getLost();
  check_count(lost, limits::kMaxRangesPerStep, "lost sequences");
  for (const uint64_t sequence : lost) out.lost.push_back({sequence});
  out.lost_reason = reason_text(in.getLostReason());
}

Step read(wire::Step::Reader in) {
  Step out = of_epoch<Step>(in);
  out.step = {in.getStep()};
  out.canary = in.getCanary();
  const auto operations = in.getOperations();
  check_count(operations, limits::kMaxOperationsPerStep, "operations");
  out.operations.reserve(operations.size());
  for (const auto one : operations) {
    out.operations.push_back({enumerator<OperationKind>(one.getKind(), kOperationKinds, "operation"),
                              {one.getSequence()},
                              one.getNumber(),
                              {one.getSource()},
                              one.getPositions()});
    if (one.getPositions() > limits::kMaxContext)
      fail(ErrorCode::kLimit, "an operation with {} positions", one.getPositions());
  }
  const auto ranges = in.getRanges();
  check_count(ranges, limits::kMaxRangesPerStep, "row ranges");
  out.ranges.reserve(ranges.size());
  uint64_t rows = 0;
  for (const auto one : ranges) rows += out.ranges.emplace_back(read(one)).count;
  out.rows = rows_header(in.getRows());
  if (rows != out.rows.count)
    fail(ErrorCode::kMalformed, "ranges of {} rows beside {} rows", rows, out.rows.count);
  out.counters = counters(in.getCounters());
  read_lost(in, out);
  out.tags = block_tags(in.getTags(), "tags of completed blocks");
  out.load_tags = block_tags(in.getLoadTags(), "tags of blocks to load");
  return out;
}

ArchiveProbe read(wire::ArchiveProbe::Reader in) {
  ArchiveProbe out = of_epoch<ArchiveProbe>(in);
  out.probe = in.getProbe();
  out.to_head = in.getToHead();
  out.tags = block_tags(in.getTags(), "tags of a probe");
  out.blocks = in.getBlocks();
  out.load_ns = in.getLoadNs();
  if (out.blocks > limits::kMaxTagsPerStep)
    fail(ErrorCode::kLimit, "a probe of {} blocks, {} are allowed", out.blocks, limits::kMaxTagsPerStep);
  if (out.tags.size() != (out.to_head ? 0 : out.blocks))
    fail(ErrorCode::kMalformed, "{} tags in a probe {} {} blocks", out.tags.size(),
         out.to_head ? "that found" : "for", out.blocks);
  return out;
}

Answer read(wire::Answer::Reader in) {
  Answer out = of_epoch<Answer>(in);
  out.step = {in.getStep()};
  out.canary = in.getCanary();
  out.rows = rows_header(in.getRows());
  out.counters = counters(in.getCounters());
  read_lost(in, out);
  return out;
}

StepFailed read(wire::StepFailed::Reader in) {
  StepFailed out = of_epoch<StepFailed>(in);
  out.step = {in.getStep()};
  out.stage = in.getStage();
  out.reason = reason_text(in.getReason());
  return out;
}

ManifestInfo read(wire::ManifestInfo::Reader in) {
  ManifestInfo out;
  out.model = blob<Hash256>(in.getModel(), "a model's fingerprint");
  out.record = blob<Hash256>(in.getRecord(), "a record's hash");
  out.record_bytes = in.getRecordBytes();
  if (out.record_bytes > limits::kMaxModelRecordBytes)
    fail(ErrorCode::kLimit, "a manifest of {} bytes, {} are allowed", out.record_bytes,
         limits::kMaxModelRecordBytes);
  out.hashed_bytes = in.getHashedBytes();
  out.total_bytes = in.getTotalBytes();
  out.reason = reason_text(in.getReason());
  return out;
}

void check_range(uint64_t offset, uint32_t length, size_t most) {
  if (length == 0 || length > most || offset > limits::kMaxGroupBytes - length)
    fail(ErrorCode::kLimit, "{} bytes of a group from {}, 1 to {} are allowed", length, offset, most);
}

ShardRequest read(wire::ShardRequest::Reader in) {
  const ShardRequest out{blob<Hash256>(in.getGroup(), "a group's hash"), in.getOffset(), in.getLength()};
  check_range(out.offset, out.length, limits::kMaxShardRangeBytes);
  return out;
}

ShardBytes read(wire::ShardBytes::Reader in) {
  check_range(in.getOffset(), in.getLength(), limits::kShardPartBytes);
  return {blob<Hash256>(in.getGroup(), "a group's hash"), in.getOffset(), nullptr};
}

ShardRefused read(wire::ShardRefused::Reader in) {
  return {blob<Hash256>(in.getGroup(), "a group's hash"), in.getOffset(), reason_text(in.getReason())};
}

Fetch read(wire::Fetch::Reader in) {
  return {blob<RingId>(in.getRing(), "a ring's id"), in.getPlan(), units(in.getFirst(), in.getLast())};
}

Fetched read(wire::Fetched::Reader in) {
  return {blob<RingId>(in.getRing(), "a ring's id"), in.getPlan(), reason_text(in.getReason())};
}

Message read(wire::Message::Reader in) {
  if (in.getVersion() != kProtocolVersion)
    fail(ErrorCode::kUnsupported, "a message of protocol version {}, this program speaks {}", in.getVersion(),
         kProtocolVersion);
  switch (in.which()) {
    case wire::Message::NONE:
      fail(ErrorCode::kMalformed, "a message that says nothing");
    case wire::Message::HELLO:
      return read(in.getHello());
    case wire::Message::WELCOME:
      return read(in.getWelcome());
    case wire::Message::REFUSE:
      return read(in.getRefuse());
    case wire::Message::HEARTBEAT:
      return read(in.getHeartbeat());
    case wire::Message::GOODBYE:
      return read(in.getGoodbye());
    case wire::Message::ASSIGN:
      return read(in.getAssign());
    case wire::Message::CONTRACT:
      return read(in.getContract());
    case wire::Message::READY:
      return read(in.getReady());
    case wire::Message::NOT_READY:
      return read(in.getNotReady());
    case wire::Message::RELEASE:
      return read(in.getRelease());
    case wire::Message::STEP:
      return read(in.getStep());
    case wire::Message::ANSWER:
      return read(in.getAnswer());
    case wire::Message::STEP_FAILED:
      return read(in.getStepFailed());
    case wire::Message::MANIFEST_REQUEST:
      return ManifestRequest{};
    case wire::Message::MANIFEST_INFO:
      return read(in.getManifestInfo());
    case wire::Message::SHARD_REQUEST:
      return read(in.getShardRequest());
    case wire::Message::SHARD_BYTES:
      return read(in.getShardBytes());
    case wire::Message::SHARD_REFUSED:
      return read(in.getShardRefused());
    case wire::Message::FETCH:
      return read(in.getFetch());
    case wire::Message::FETCHED:
      return read(in.getFetched());
    case wire::Message::ARCHIVE_PROBE:
      return read(in.getArchiveProbe());
    case wire::Message::ARCHIVE_LIMIT:
      return read(in.getArchiveLimit());
  }
  fail(ErrorCode::kUnsupported, "a message of the unknown kind {}", static_cast<uint16_t>(in.which()));
}

// A header, and how many bytes belong beside it as far as it says so itself.
struct Header {
  Message message;
  uint32_t shard_bytes = 0;
};

Header read_header(std::span<const std::byte> header) {
  if (header.size() > limits::kMaxHeaderBytes)
    fail(ErrorCode::kLimit, "a header of {} bytes, {} are allowed", header.size(), limits::kMaxHeaderBytes);
  if (header.empty() || header.size() % sizeof(capnp::word) != 0)
    fail(ErrorCode::kMalformed, "a header of {} bytes is not made of words", header.size());
  // ZeroMQ's frames may lie anywhere; Cap'n Proto reads aligned words.
  std::vector<capnp::word> words(header.size() / sizeof(capnp::word));
  std::memcpy(static_cast<void*>(words.data()), header.data(), header.size());
  try {
    capnp::FlatArrayMessageReader reader(kj::arrayPtr(words.data(), words.size()),
                                         {kTraversalWords, kNesting});
    const auto root = reader.getRoot<wire::Message>();
    Header out{read(root), 0};
    if (root.isShardBytes()) out.shard_bytes = root.getShardBytes().getLength();
    return out;
  } catch (const kj::Exception& exception) {
    fail(ErrorCode::kMalformed, "a header that Cap'n Proto refuses: {}", exception.getDescription().cStr());
  }
}

const Rows* rows_in(const Message& message) {
  if (const auto* step = std::get_if<Step>(&message)) return &step->rows;
  if (const auto* answer = std::get_if<Answer>(&message)) return &answer->rows;
  return nullptr;
}

SharedBytes& payload_of(Message& message) {
  if (auto* step = std::get_if<Step>(&message)) return step->rows.bytes;
  if (auto* answer = std::get_if<Answer>(&message)) return answer->rows.bytes;
  return std::get<ShardBytes>(message).bytes;
}

// The bytes that the header implies, or nothing when only limits are known.
std::optional<size_t> implied_bytes(const Header& header, const DecodeOptions& options) {
  const Rows* rows = rows_in(header.message);
  if (!rows || rows->count == 0) return header.shard_bytes;
  if (!options.encoded_row_bytes) return std::nullopt;
  const size_t bytes = rows->count * options.encoded_row_bytes(rows->codec, rows->width);
  if (bytes > limits::kMaxFrameBytes)
    fail(ErrorCode::kLimit, "{} bytes of rows, a frame holds {}", bytes, limits::kMaxFrameBytes);
  return bytes;
}

}  // namespace

size_t announced_row_bytes(std::span<const std::byte> header, const DecodeOptions& options) {
  return implied_bytes(read_header(header), options).value_or(limits::kMaxFrameBytes);
}

Message decode(std::span<const std::byte> header, SharedBytes rows, const DecodeOptions& options) {
  Header read = read_header(header);
  const size_t bytes = rows ? rows->size() : 0;
  const std::optional<size_t> implied = implied_bytes(read, options);
  if (implied && bytes != *implied)
    fail(ErrorCode::kMalformed, "a {} with {} bytes beside it instead of {}", name(read.message), bytes,
         *implied);
  if (!implied && (bytes == 0 || bytes > limits::kMaxFrameBytes))
    fail(ErrorCode::kMalformed, "a {} with {} bytes for {} rows", name(read.message), bytes,
         rows_in(read.message)->count);
  if (bytes > 0) payload_of(read.message) = std::move(rows);
  return std::move(read.message);
}

}  // namespace caravan
