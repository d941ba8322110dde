#include "common/base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "common/base/clock.h"

namespace arancini {

Logger::Logger(std::string_view name, LogLevel level) : level_(level) {
  std::memcpy(name_, name.data(), std::min(name.size(), sizeof name_ - 1));
  thread_ = std::thread([this] { write_loop(); });
}

Logger::~Logger() {
  stop_.store(true, std::memory_order_release);
  written_.notify_one();
  // notify_one() alone may be missed between the thread's check and its wait: change the value that it waits
  // on.
  if (Slot* slot = begin(LogLevel::Debug); slot != nullptr) {
    slot->size = 0;
    end();
  }
  thread_.join();
}

Logger::Slot* Logger::begin(LogLevel level) noexcept {
  const std::uint64_t at = written_.load(std::memory_order_relaxed);
  if (at - drained_.load(std::memory_order_acquire) >= kSlots) {
    dropped_.fetch_add(1, std::memory_order_relaxed);
    return nullptr;
  }
  Slot& slot = slots_[at % kSlots];
  slot.level = level;
  slot.realtime_ns = clock_ns(CLOCK_REALTIME);
  return &slot;
}

void Logger::end() noexcept {
  written_.store(written_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
  written_.notify_one();
}

void Logger::write_loop() {
  auto sink = std::make_shared<spdlog::sinks::stderr_sink_st>();
  spdlog::logger out(name_, sink);
  out.set_level(spdlog::level::trace);
  out.set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %n: %v");
  std::uint64_t at = 0;
  for (;;) {
    const std::uint64_t written = written_.load(std::memory_order_acquire);
    if (written == at) {
      if (stop_.load(std::memory_order_acquire)) break;
      written_.wait(at, std::memory_order_acquire);
      continue;
    }
    for (; at < written; ++at) {
      const Slot& slot = slots_[at % kSlots];
      if (slot.size > 0) {
        const auto when =
            spdlog::log_clock::time_point(std::chrono::duration_cast<spdlog::log_clock::duration>(
                std::chrono::nanoseconds(slot.realtime_ns)));
        const auto level = slot.level == LogLevel::Debug  ? spdlog::level::debug
                           : slot.level == LogLevel::Info ? spdlog::level::info
                           : slot.level == LogLevel::Warn ? spdlog::level::warn
                                                          : spdlog::level::err;
        out.log(when, spdlog::source_loc{}, level, spdlog::string_view_t(slot.text.data(), slot.size));
      }
      drained_.store(at + 1, std::memory_order_release);
    }
    if (const std::uint64_t lost = dropped_.exchange(0, std::memory_order_relaxed); lost > 0) {
      out.warn("{} log lines dropped: too many at once", lost);
    }
    out.flush();
  }
}

LogLevel parse_log_level(std::string_view text) {
  if (text == "debug") return LogLevel::Debug;
  if (text == "warn") return LogLevel::Warn;
  if (text == "error") return LogLevel::Error;
  return LogLevel::Info;
}

}  // namespace arancini
