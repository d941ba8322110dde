#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

#include "common/base/log.h"
#include "curated/control_counters.h"

namespace arancini::curated {

// Who did what: one line for each changing call, in curated's log and in a file of its own. Any thread. What
// cannot be written to the file is said and counted, and stops nothing.
class AuditLog {
 public:
  static constexpr std::uint64_t kMaxBytes = 10 * 1024 * 1024;  // then the file becomes PATH.1
  static constexpr std::size_t kMostArguments = 256;            // bytes of them in a line

  struct Entry {
    std::string who;        // "uid=0 gid=0 pid=17 user=root", "certificate=\"noc\" address=…"
    std::string command;    // "Restart"
    std::string arguments;  // as text; untrusted
    std::string result;     // "ok", or what went wrong; one line
    bool well = true;
    std::string call = {};  // "4711.3": of a call that has two lines, as it begins and as it ends; else empty
  };

  // `path`: "<state>/audit.log". Counters are borrowed.
  AuditLog(std::string path, LogLevel level, ControlCounters& counters, std::uint64_t max_bytes = kMaxBytes);
  AuditLog(const AuditLog&) = delete;
  AuditLog& operator=(const AuditLog&) = delete;

  void add(const Entry& entry, std::uint64_t now_realtime_ns);
  // A line for the log alone.
  void say(LogLevel level, std::string_view text);
  // A call that is refused before it is one; for the log only, since anybody can make many.
  void refused(std::string_view who, std::string_view why);
  void set_level(LogLevel level) { log_.set_level(level); }

 private:
  // Why the line is not in the file; empty: it is.
  [[nodiscard]] std::string append(std::string_view line) const;

  const std::string path_;
  const std::uint64_t max_bytes_;
  ControlCounters& counters_;
  std::mutex mutex_;  // the log takes one producer, and the file is renamed
  Logger log_;
};

// `text` in double quotes, without what would end the line or the quotes.
std::string quoted(std::string_view text, std::size_t most_bytes);

}  // namespace arancini::curated
