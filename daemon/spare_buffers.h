#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace caravan {

// Buffers whose memory is used again: for bytes that are filled in, sent and done with many times a second,
// where new memory would be zeroed each time. Any thread; what was taken may outlive this.
class SpareBuffers {
 public:
  using Buffer = std::vector<std::byte>;
  explicit SpareBuffers(size_t most_kept) : kept_(std::make_shared<Kept>(most_kept)) {}

  // Its bytes are those of before, if there were any. Throws std::bad_alloc.
  std::shared_ptr<Buffer> take(size_t bytes) {
    std::unique_ptr<Buffer> buffer = kept_->take();
    if (!buffer) buffer = std::make_unique<Buffer>();
    buffer->resize(bytes);
    return {buffer.release(),
            [kept = kept_](Buffer* done) { kept->give_back(std::unique_ptr<Buffer>(done)); }};
  }

 private:
  class Kept {
   public:
    explicit Kept(size_t most) : most_(most) { buffers_.reserve(most); }
    std::unique_ptr<Buffer> take() {
      const std::lock_guard lock(mutex_);
      if (buffers_.empty()) return nullptr;
      std::unique_ptr<Buffer> last = std::move(buffers_.back());
      buffers_.pop_back();
      return last;
    }
    void give_back(std::unique_ptr<Buffer> buffer) {
      const std::lock_guard lock(mutex_);
      if (buffers_.size() < most_) buffers_.push_back(std::move(buffer));
    }

   private:
    const size_t most_;
    std::mutex mutex_;  // buffers come back on the link's threads
    std::vector<std::unique_ptr<Buffer>> buffers_;
  };
  const std::shared_ptr<Kept> kept_;
};

}  // namespace caravan
