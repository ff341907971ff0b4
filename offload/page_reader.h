#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/source.h"

namespace caravan {

// Direct I/O wants offsets, lengths and addresses in multiples of this.
inline constexpr uint64_t kDirectAlignment = 4096;

// A run of a file, and where its bytes go. `offset`, `length` and `to` are multiples of kDirectAlignment; the
// file may end before the run does, but not before `needed` bytes.
struct ReadRun {
  uint32_t file = 0;
  uint64_t offset = 0;
  uint64_t length = 0;
  uint64_t needed = 0;
  std::byte* to = nullptr;
};

// The mover of weights: reads pages in the order asked, several pieces at a time. Files are read with direct
// I/O through io_uring, or by threads where that is refused; other sources by threads through Source::read.
class PageReader {
 public:
  // On a thread of the reader, once a job; `error` when a run could not be read whole.
  using Done = std::function<void(uint64_t job, std::optional<Error> error)>;
  virtual ~PageReader() = default;  // waits for what is under way; what was not begun is dropped unheard
  // Any thread. The runs' memory stays until the job is done.
  virtual void submit(uint64_t job, std::vector<ReadRun> runs) = 0;
  virtual std::string describe() const = 0;
};

struct PageReaderOptions {
  bool allow_uring = true;
  uint32_t pieces_in_flight = 8;  // of kPieceBytes
};

// Throws kIo when a file of the source cannot be opened again.
std::unique_ptr<PageReader> make_page_reader(std::shared_ptr<const Source> source, PageReader::Done done,
                                             PageReaderOptions options = {});

}  // namespace caravan
