#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

namespace caravan {

// Reads a run of a file in two requests that are under way together (io_uring; one read where the system has
// none, once it has refused one, or where the run is short), so that the first half can be used while the
// second is on its way. One thread at a time. Inside store/.
class PartReader {
 public:
  PartReader();
  ~PartReader();
  PartReader(const PartReader&) = delete;
  PartReader& operator=(const PartReader&) = delete;

  using Grown = std::function<void(uint64_t have)>;
  // `to` and `offset` as direct reads want them; the file may end behind the first `needed` bytes. `grown`
  // hears whenever more of the beginning is there, in the end of `needed` bytes. False when the disk refuses
  // or the file ends before. Throws what `grown` throws. Nothing is written to `to` once it has returned.
  bool read(int descriptor, uint64_t offset, std::span<std::byte> to, uint64_t needed, const Grown& grown);

 private:
  struct Ring;
  class Run;
  bool read_rest(int descriptor, uint64_t offset, std::span<std::byte> to, uint64_t needed, uint64_t have,
                 const Grown& grown) const;
  std::unique_ptr<Ring> ring_;  // null where there is none
};

}  // namespace caravan
