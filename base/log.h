#pragma once

#include <fmt/core.h>

#include <string>
#include <string_view>
#include <utility>

namespace caravan {

enum class LogLevel { kDebug, kInfo, kWarning, kError, kOff };

// Logs go to standard error, one line an event: time, level, then an event name and key=value fields, as in
// log_info("peer_lost peer={} reason={}", ...). A thin cover of spdlog's default logger; any thread.
void set_log_level(LogLevel level);
void log_line(LogLevel level, std::string_view line);
bool log_enabled(LogLevel level);

template <class... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(LogLevel::kDebug))
    log_line(LogLevel::kDebug, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(LogLevel::kInfo))
    log_line(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(LogLevel::kWarning))
    log_line(LogLevel::kWarning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(LogLevel::kError))
    log_line(LogLevel::kError, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace caravan
