#include "shards/store_verify.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "shards/store_source.h"

namespace caravan {

namespace {

constexpr size_t kBufferBytes = 1u << 20;

class Verify {
 public:
  Verify(ShardStore& store, const ModelRecord& record, const VerifyOptions& options)
      : store_(store), record_(record), options_(options) {
    try {
      std::vector<std::string> paths;
      for (const FileStamp& file : record.files) {
        stamps_.push_back(stamp_of(file.path));
        paths.push_back(file.path);
      }
      files_ = std::make_unique<FileSource>(std::move(paths));
    } catch (const Error& error) {
      no_files_ = error.message();
    }
  }

  std::vector<Finding> run() {
    for (size_t i = 0; i < record_.hashes.size(); ++i)
      if (options_.partial && !store_.contains(record_.hashes[i]))
        continue;
      else if (record_.copied)
        check_stored(i);
      else
        check_file(i);
    if (!record_.copied && !findings_.empty()) take_from_store();
    if (!record_.copied && findings_.empty() && stamps_ != record_.files) note_stamps();
    return std::move(findings_);
  }

 private:
  const WeightGroup& group(size_t i) const { return record_.manifest.groups[i]; }

  Hash256 hash(size_t i, const ShardStore::Content& content, bool counted) const {
    const uint64_t bytes = group(i).bytes().count;
    std::vector<std::byte> buffer(std::min<uint64_t>(kBufferBytes, bytes));
    Sha256 hash;
    for (uint64_t offset = 0; offset < bytes;) {
      if (options_.cancelled && options_.cancelled())
        fail(ErrorCode::kCancelled, "verifying {} was interrupted", record_.name());
      const auto part = std::span(buffer).first(std::min<uint64_t>(buffer.size(), bytes - offset));
      content(offset, part);
      hash.update(part);
      offset += part.size();
      if (counted && options_.advance) options_.advance(part.size());
    }
    return hash.finish();
  }

  // What is wrong with the group there; empty when nothing is.
  std::string problem(size_t i, const ShardStore::Content& content, bool counted) const {
    try {
      const Hash256 found = hash(i, content, counted);
      if (found == record_.hashes[i]) return "";
      return fmt::format("its bytes hash to {}, not to {}", to_string(found), to_string(record_.hashes[i]));
    } catch (const Error& error) {
      if (error.code() == ErrorCode::kCancelled) throw;
      return error.message();
    }
  }

  std::string problem_in_store(size_t i, bool counted) const {
    return problem(
        i, [&](uint64_t offset, std::span<std::byte> out) { store_.read(record_.hashes[i], offset, out); },
        counted);
  }

  std::string problem_in_files(size_t i, bool counted) const {
    if (!files_) return no_files_;
    const Extent& first = group(i).tensors.front().extent;
    const std::string problem_there = problem(i, file_content(i), counted);
    if (problem_there.empty()) return "";
    // What is known of the file's hashes is not so, and the next import is not to believe it.
    store_.erase_hashes(record_.manifest.path);
    const std::string& path = files_->path(first.file);
    return problem_there.find(path) == std::string::npos ? path + ": " + problem_there : problem_there;
  }

  ShardStore::Content file_content(size_t i) const {
    return [this, i](uint64_t offset, std::span<std::byte> out) {
      read_content(*files_, group(i), offset, out);
    };
  }

  void check_stored(size_t i) {
    const std::string bad = problem_in_store(i, true);
    if (bad.empty()) return note_damage(i, false);
    Finding finding{to_string(group(i).id), bad, ""};
    if (problem_in_files(i, false).empty()) {
      mend(i, file_content(i));
      finding.mended = "written again from " + files_->path(group(i).tensors.front().extent.file);
    } else if (const auto other = find_good_one(i)) {
      mend(i, content_of(*other));
      finding.mended = "written again from " + other->path();
    } else {
      note_damage(i, true);
    }
    findings_.push_back(std::move(finding));
  }

  static ShardStore::Content content_of(const GroupInFiles& there) {
    return [&there](uint64_t offset, std::span<std::byte> out) { there.read(offset, out); };
  }

  // In the files of another model.
  std::optional<GroupInFiles> find_good_one(size_t i) const {
    for (GroupInFiles& there : find_in_files(store_, record_.hashes[i], group(i).bytes().count)) {
      const bool is_own = files_ && there.path() == files_->path(group(i).tensors.front().extent.file);
      if (!is_own && problem(i, content_of(there), false).empty()) return std::move(there);
    }
    return std::nullopt;
  }

  // For the next import.
  void note_damage(size_t i, bool damaged) const {
    try {
      store_.note_damage(record_.hashes[i], damaged);
    } catch (const Error& error) {
      log_warning("{}", error.message());  // what was found is told all the same
    }
  }

  void check_file(size_t i) {
    const std::string bad = problem_in_files(i, true);
    if (!bad.empty()) findings_.push_back({to_string(group(i).id), bad, ""});
  }

  // The group is written under another key before the damaged one is forgotten.
  void mend(size_t i, const ShardStore::Content& content) {
    ShardStore::Writer writer(store_);
    writer.replace(record_.hashes[i], group(i).bytes().count, content);
    writer.flush();
  }

  void take_from_store() {
    for (size_t i = 0; i < record_.hashes.size(); ++i)
      if (!store_.contains(record_.hashes[i]) || !problem_in_store(i, false).empty()) return;
    ModelRecord copied = record_;
    copied.copied = true;
    store_.put_model(copied);
    for (Finding& finding : findings_) finding.mended = "the model is now read from the store";
  }

  // All bytes of the groups are as they were, but the files are not those of the record by their times. Of
  // what else is in them the fingerprint speaks.
  void note_stamps() {
    Finding finding{record_.manifest.path, "it was written to after it was imported", ""};
    try {
      if (read_manifest(record_.manifest.path).fingerprint() == record_.fingerprint) {
        require_unchanged(stamps_);
        ModelRecord noted = record_;
        noted.files = stamps_;
        store_.put_model(noted);
        finding.mended = "its bytes are the same, and its new time is noted";
      } else {
        finding.problem += ", and is another model now";
      }
    } catch (const Error& error) {
      if (error.code() == ErrorCode::kIo) throw;
      finding.problem = error.message();
    }
    findings_.push_back(std::move(finding));
  }

  ShardStore& store_;
  const ModelRecord& record_;
  const VerifyOptions& options_;
  std::unique_ptr<FileSource> files_;
  std::string no_files_;
  std::vector<FileStamp> stamps_;  // as the files are now
  std::vector<Finding> findings_;
};

}  // namespace

std::vector<Finding> verify_model(ShardStore& store, const ModelRecord& record,
                                  const VerifyOptions& options) {
  std::vector<Finding> findings = Verify(store, record, options).run();
  const auto was_written = [](const Finding& finding) { return !finding.mended.empty(); };
  // All of it: the damaged bytes are of no use to anybody.
  if (record.copied && std::any_of(findings.begin(), findings.end(), was_written))
    store.sweep(ShardStore::Sweep::kAll);
  return findings;
}

uint64_t remove_model(ShardStore& store, const ModelRecord& record) {
  store.erase_model(record);
  return store.sweep();
}

}  // namespace caravan
