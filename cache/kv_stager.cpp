#include "cache/kv_stager.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace caravan {

namespace {

// That wait to be used, where they need no slots.
constexpr size_t kMostJobs = 1024;

uint64_t largest_part(const std::vector<KvLayerShape>& layers, KvType type) {
  uint64_t most = 0;
  for (const KvLayerShape& layer : layers) most = std::max(most, 2 * kv_side_bytes(layer, type));
  return most;
}

}  // namespace

Bytes KvStager::bytes(const std::vector<KvLayerShape>& layers, KvType type) {
  return {kSlots * kPieceBlocks * largest_part(layers, type)};
}

KvStager::KvStager(Device& device, KvFrames& frames)
    : frames_(frames),
      slot_bytes_(kPieceBlocks * largest_part(frames.layers(), frames.type())),
      slots_(device, Bytes{kSlots * slot_bytes_}) {}

// What is being read into the slots ends before they go.
KvStager::~KvStager() {
  while (!jobs_.empty()) drop_front();
}

void KvStager::add_part(const std::vector<uint32_t>* blocks, uint32_t first_position, uint32_t count) {
  parts_.push_back({blocks, first_position, first_position + count - 1, {}, std::nullopt});
}

void KvStager::start() {
  cursor_layer_ = 0;
  cursor_part_ = cursor_missing_ = 0;
  bool spare = true;
  for (Part& part : parts_) find_missing(part, spare);
  read_ahead();
}

// `spare`: whether there may be frames to spare. One refusal says that there are none: each look is at all.
void KvStager::find_missing(Part& part, bool& spare) {
  uint32_t first = UINT32_MAX;
  for (const KvLayerShape& layer : frames_.layers())
    first = std::min(first, first_block_in_reach(layer, part.first_position));
  for (uint32_t place = first; place <= part.last_position / limits::kKvBlockPositions; ++place) {
    const uint32_t block = (*part.blocks)[place];
    if (frames_.resident(block)) continue;
    // One that another part reads into a frame already is read beside it.
    const bool beside = frames_.has_frame(block);
    const bool to_stay =
        spare && !beside && (frames_.take_spare(block) || (frames_.grow() && frames_.take_spare(block)));
    spare = to_stay || (spare && beside);
    part.missing.push_back({place, to_stay});
  }
}

uint32_t KvStager::first_piece(size_t part, uint32_t layer) const {
  return first_block_in_reach(frames_.layers()[layer], parts_[part].first_position) / kPieceBlocks;
}

std::optional<KvStager::Job> KvStager::next_job() {
  const auto layers = static_cast<uint32_t>(frames_.layers().size());
  for (; cursor_layer_ < layers; ++cursor_layer_, cursor_part_ = 0) {
    for (; cursor_part_ < parts_.size(); ++cursor_part_, cursor_missing_ = 0) {
      const Part& part = parts_[cursor_part_];
      const uint32_t first = first_block_in_reach(frames_.layers()[cursor_layer_], part.first_position);
      while (!part.error && cursor_missing_ < part.missing.size()) {
        Job job = make_job(part, first);
        if (!job.addresses.empty()) return job;
      }
    }
  }
  return std::nullopt;
}

// Of the missing block at the cursor, and of those behind it in the same piece.
KvStager::Job KvStager::make_job(const Part& part, uint32_t first_needed) {
  Job job;
  job.place = {cursor_layer_, cursor_part_, part.missing[cursor_missing_].place / kPieceBlocks};
  std::byte* slot = slots_.address() + slots_taken_ % kSlots * slot_bytes_;
  const uint32_t run = frames_.run_layers(cursor_layer_);
  std::vector<KvRead> reads;
  for (; cursor_missing_ < part.missing.size(); ++cursor_missing_) {
    const Missing& missing = part.missing[cursor_missing_];
    if (missing.place / kPieceBlocks != job.place.piece) break;
    if (missing.place < first_needed && !missing.to_stay) continue;
    const uint32_t block = (*part.blocks)[missing.place];
    std::byte* to = nullptr;
    if (missing.to_stay) {
      to = frames_.part_in_frame(block, cursor_layer_);
      if (run > 0) reads.push_back({frames_.serial(block), cursor_layer_, run, to});
    } else {
      to = std::exchange(slot, slot + frames_.part_bytes(cursor_layer_));
      reads.push_back({frames_.serial(block), cursor_layer_, 1, to});
      job.has_slot = true;
    }
    job.addresses.emplace_back(missing.place, to);
  }
  if (!reads.empty()) job.ticket = frames_.mover().read(reads);
  slots_taken_ += job.has_slot;
  slots_in_use_ += job.has_slot;
  return job;
}

void KvStager::read_ahead() {
  while (slots_in_use_ < kSlots && jobs_.size() < kMostJobs) {
    std::optional<Job> job = next_job();
    if (!job) return;
    jobs_.push_back(std::move(*job));
  }
}

std::optional<Error> KvStager::wait(const Job& job) {
  return job.ticket ? frames_.mover().wait(job.ticket) : std::nullopt;
}

void KvStager::drop_front() {
  const Job& job = jobs_.front();
  Part& part = parts_[job.place.part];
  if (auto error = wait(job); error && !part.error) part.error = std::move(error);
  slots_in_use_ -= job.has_slot;
  jobs_.pop_front();
}

KvBlock KvStager::as_block(std::byte* address, uint32_t layer) const {
  return {address, address + kv_side_bytes(frames_.layers()[layer], frames_.type())};
}

KvStager::Reach KvStager::reach(size_t part, uint32_t layer, uint32_t piece, uint32_t most,
                                const std::vector<KvBlock>& table) {
  if (parts_[part].error) throw Error(*parts_[part].error);
  if (table_of_ != std::pair(layer, part)) {
    table_ = table;
    table_of_ = {layer, part};
  }
  const Place place{layer, part, piece};
  while (!jobs_.empty() && jobs_.front().place < place) drop_front();
  // Of blocks that this layer does not reach, and that came to stay; nothing more is read for the part then.
  if (parts_[part].error) throw Error(*parts_[part].error);
  read_ahead();
  uint32_t last = std::min(parts_[part].last_position / limits::kMixPiecePositions + 1, piece + most);
  if (jobs_.empty() || jobs_.front().place.layer != layer || jobs_.front().place.part != part)
    return {table_.data(), last};
  const Job& job = jobs_.front();
  if (job.place.piece > piece) return {table_.data(), std::min(last, job.place.piece)};
  const std::optional<Error> error = wait(job);
  if (error) {
    parts_[part].error = error;
    throw Error(*error);
  }
  for (const auto& [index, address] : job.addresses) table_[index] = as_block(address, layer);
  return {table_.data(), piece + 1};
}

void KvStager::finish() {
  while (!jobs_.empty()) drop_front();
  const bool complete = cursor_layer_ == frames_.layers().size();
  for (const Part& part : parts_)
    for (const Missing& missing : part.missing)
      if (missing.to_stay) frames_.fill_done((*part.blocks)[missing.place], complete && !part.error);
  parts_.clear();
  table_of_.reset();
}

}  // namespace caravan
