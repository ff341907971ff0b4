#pragma once

#include <cstdint>
#include <memory>

#include "offload/direct_files.h"
#include "offload/page_reader.h"

namespace caravan {

// A reader on one io_uring and one thread; takes `files`. Null when the kernel refuses a ring (containers
// often do); `files` is untouched then.
std::unique_ptr<PageReader> make_uring_reader(std::shared_ptr<const Source> source,
                                              std::unique_ptr<DirectFiles>& files, PageReader::Done done,
                                              uint32_t pieces_in_flight);

}  // namespace caravan
