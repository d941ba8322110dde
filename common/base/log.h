#pragma once

#include <fmt/format.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <thread>

namespace arancini {

enum class LogLevel : std::uint8_t { Debug, Info, Warn, Error };

// Lines from a hot thread to stderr without lock, allocation or system call on the hot side: the line is
// formatted into a slot of a bounded single-producer queue, a thread of its own writes it. A full queue drops
// the line and counts it; the count is written with the next line. Log state changes and operator faults
// only, never per message.
class Logger {
 public:
  static constexpr std::size_t kLineBytes = 480;
  static constexpr std::size_t kSlots = 256;

  // `name` stands at the start of each line ("ingestd@0"). Starts the writing thread.
  explicit Logger(std::string_view name, LogLevel level = LogLevel::Info);
  ~Logger();  // writes what is queued
  Logger(const Logger&) = delete;
  Logger& operator=(const Logger&) = delete;

  // Any thread: lines below `level` are not written from now on.
  void set_level(LogLevel level) { level_.store(level, std::memory_order_relaxed); }

  // One producing thread only.
  template <class... Args>
  void log(LogLevel level, fmt::format_string<Args...> format, Args&&... args) noexcept {
    if (level < level_.load(std::memory_order_relaxed)) return;
    Slot* slot = begin(level);
    if (slot == nullptr) return;
    try {
      slot->size = static_cast<std::uint32_t>(std::min(
          fmt::format_to_n(slot->text.data(), slot->text.size(), format, std::forward<Args>(args)...).size,
          slot->text.size()));
    } catch (...) {
      slot->size = 0;
    }
    end();
  }
  template <class... A>
  void info(fmt::format_string<A...> f, A&&... a) noexcept {
    log(LogLevel::Info, f, std::forward<A>(a)...);
  }
  template <class... A>
  void warn(fmt::format_string<A...> f, A&&... a) noexcept {
    log(LogLevel::Warn, f, std::forward<A>(a)...);
  }
  template <class... A>
  void error(fmt::format_string<A...> f, A&&... a) noexcept {
    log(LogLevel::Error, f, std::forward<A>(a)...);
  }
  template <class... A>
  void debug(fmt::format_string<A...> f, A&&... a) noexcept {
    log(LogLevel::Debug, f, std::forward<A>(a)...);
  }

 private:
  struct Slot {
    LogLevel level;
    std::uint32_t size;
    std::uint64_t realtime_ns;
    std::array<char, kLineBytes> text;
  };
  Slot* begin(LogLevel level) noexcept;
  void end() noexcept;
  void write_loop();

  char name_[32] = {};
  std::atomic<LogLevel> level_;
  std::array<Slot, kSlots> slots_;
  alignas(64) std::atomic<std::uint64_t> written_{0};  // release by producer, acquire by the thread
  alignas(64) std::atomic<std::uint64_t> drained_{0};  // release by the thread, acquire by producer
  std::atomic<std::uint64_t> dropped_{0};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// "debug", "info", "warn", "error"; anything else is info.
LogLevel parse_log_level(std::string_view text);

}  // namespace arancini
