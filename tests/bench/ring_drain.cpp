// A consumer that does nothing: attaches as the reader of rings, walks their records, releases them. For
// measurements of what lies before the rings. Commands as in progress.h; done are updates.
#include <fmt/format.h>
#include <time.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/ring/futex.h"
#include "common/ring/ring_reader.h"
#include "tests/bench/progress.h"

namespace arancini {
namespace {

RingReader attach(const std::string& path) {
  auto file = RingFile::attach(path, RingSide::Reader);
  if (!file) throw std::runtime_error(file.error().text);
  return RingReader(std::move(file).value());
}

// Everything that is there; the number of updates in it.
std::uint64_t drain(RingReader& reader) {
  std::uint64_t updates = 0;
  RingRecord record;
  for (;;) {
    switch (reader.next(record)) {
      case RingReader::Status::Record: updates += record.header.count; break;
      case RingReader::Status::Empty: reader.release(reader.cursor()); return updates;
      case RingReader::Status::Corrupt: throw std::runtime_error(reader.corrupt_text());
    }
  }
}

void sleep_on(std::vector<RingReader>& readers) {
  constexpr std::uint64_t kHeartbeatNs = 100'000'000;
  std::vector<FutexWait> waits;
  bool all_empty = true;
  for (RingReader& r : readers) {
    r.arm();
    all_empty = all_empty && r.tail() == r.cursor();
    waits.push_back({r.doorbell_word(), r.doorbell_value()});
  }
  if (all_empty) futex_wait_any(waits, kHeartbeatNs);
  for (RingReader& r : readers) r.disarm();
}

[[noreturn]] void run(const std::vector<std::string>& paths, std::uint32_t every_us) {
  std::vector<RingReader> readers;
  for (const std::string& path : paths) readers.push_back(attach(path));
  fmt::print("ready\n");
  std::fflush(stdout);
  bench::Progress progress;
  std::uint64_t updates = 0;
  for (;;) {
    std::uint64_t fresh = 0;
    for (RingReader& r : readers) {
      r.heartbeat(clock_ns(CLOCK_BOOTTIME));
      fresh += drain(r);
    }
    progress.at(updates += fresh);
    if (fresh != 0 && every_us == 0) continue;
    if (every_us == 0) {
      sleep_on(readers);
    } else {
      const timespec pause{0, static_cast<long>(every_us) * 1000};
      ::nanosleep(&pause, nullptr);
    }
  }
}

}  // namespace
}  // namespace arancini

int main(int argc, char** argv) {
  CLI::App app{
      "Reads rings and throws away what is in them; `wait N` on standard input: when N updates came"};
  std::vector<std::string> rings;
  std::uint32_t every_us = 500;
  app.add_option("--ring", rings, "ring files")->required();
  app.add_option("--every-us", every_us, "looks that often; 0: sleeps until the writer rings")
      ->check(CLI::Range(0, 999'999));
  CLI11_PARSE(app, argc, argv);
  try {
    arancini::run(rings, every_us);
  } catch (const std::exception& e) {
    fmt::print(stderr, "ring_drain: {}\n", e.what());
    return 70;  // EX_SOFTWARE
  }
}
