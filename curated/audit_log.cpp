#include "curated/audit_log.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <utility>

#include "common/base/error.h"
#include "common/base/fd.h"

namespace arancini::curated {

namespace {

std::string time_text(std::uint64_t realtime_ns) {
  const auto seconds = static_cast<std::time_t>(realtime_ns / 1'000'000'000U);
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", fmt::gmtime(seconds), realtime_ns / 1'000'000U % 1000);
}

}  // namespace

std::string quoted(std::string_view text, std::size_t most_bytes) {
  std::string out = "\"";
  for (const char c : text.substr(0, most_bytes)) {
    if (c == '"' || c == '\\') out += '\\';
    out += c >= 0x20 && c < 0x7f ? c : '?';
  }
  out += text.size() > most_bytes ? "…\"" : "\"";
  return out;
}

AuditLog::AuditLog(std::string path, LogLevel level, ControlCounters& counters, std::uint64_t max_bytes)
    : path_(std::move(path)), max_bytes_(max_bytes), counters_(counters), log_("curated", level) {}

std::string AuditLog::append(std::string_view line) const {
  const auto open = [&] {
    return Fd(::open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640));
  };
  Fd fd = open();
  struct stat now {};
  if (fd && ::fstat(fd.get(), &now) == 0 &&
      static_cast<std::uint64_t>(now.st_size) + line.size() > max_bytes_) {
    if (::rename(path_.c_str(), (path_ + ".1").c_str()) != 0) return std::strerror(errno);
    fd = open();
  }
  if (!fd) return std::strerror(errno);
  // One write: a line is there as a whole, whoever else appends.
  const ssize_t n = ::write(fd.get(), line.data(), line.size());
  if (n < 0) return std::strerror(errno);
  return static_cast<std::size_t>(n) == line.size() ? "" : "the disk is full";
}

void AuditLog::add(const Entry& entry, std::uint64_t now_realtime_ns) {
  const std::string what =
      fmt::format("{} command={}{} arguments={} result={}", entry.who, entry.command,
                  entry.call.empty() ? "" : " call=" + entry.call, quoted(entry.arguments, kMostArguments),
                  quoted(entry.result, kMostArguments));
  const std::lock_guard lock(mutex_);
  log_.log(entry.well ? LogLevel::Info : LogLevel::Warn, "control: {}", what);
  const std::string why = append(fmt::format("{} {}\n", time_text(now_realtime_ns), what));
  if (why.empty()) return;
  counters_.audit_errors.fetch_add(1, std::memory_order_relaxed);
  log_.error("{}: {} ({}): {}; the line before this one is not in it", path_,
             to_string(ErrorCode::AuditFailed), number(ErrorCode::AuditFailed), why);
}

void AuditLog::say(LogLevel level, std::string_view text) {
  const std::lock_guard lock(mutex_);
  log_.log(level, "{}", text);
}

void AuditLog::refused(std::string_view who, std::string_view why) {
  const std::lock_guard lock(mutex_);
  const std::uint64_t n = counters_.refused.fetch_add(1, std::memory_order_relaxed) + 1;
  if ((n & (n - 1)) != 0) return;  // the first, 2nd, 4th, 8th …
  log_.warn("control: {} ({}): {}: {}; {} so far", to_string(ErrorCode::CallRefused),
            number(ErrorCode::CallRefused), who, why, n);
}

}  // namespace arancini::curated
