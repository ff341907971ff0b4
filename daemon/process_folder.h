#pragma once

#include <string>
#include <string_view>

namespace caravan {

// A folder that belongs to one process, PARENT/PREFIX and its id: made empty, gone with this object.
class ProcessFolder {
 public:
  // What processes that were killed left there goes. Throws kIo naming --state.
  ProcessFolder(const std::string& parent, std::string_view prefix);
  ~ProcessFolder();
  ProcessFolder(const ProcessFolder&) = delete;
  ProcessFolder& operator=(const ProcessFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  const std::string path_;
};

// Removes the folders of that kind whose process is gone.
void remove_left_over(const std::string& parent, std::string_view prefix);

}  // namespace caravan
