// bmpreplay: plays recorded BMP sessions as a router would. Each FILE is one session, one after the other.

#include <fmt/format.h>
#include <sysexits.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/fd.h"
#include "common/recording/recording_reader.h"
#include "common/wire/bmp.h"
#include "tools/net_client.h"

namespace {

using arancini::Fd;

struct Options {
  std::string to;
  std::string source;
  double rate = 0;
  double hold_s = 0;
  double retry_s = 5;
  std::uint64_t loops = 1;
  bool quiet = false;
  std::vector<std::string> files;
  std::string recording, write;
};

struct Totals {
  std::uint64_t messages = 0;
  std::uint64_t bytes = 0;
};

// Sends `data` message by message where a rate is asked for, else in one go. Bytes that do not frame are sent
// as they are: a damaged recording is a test of the collector.
void play(int fd, std::span<const std::byte> data, double rate, Totals& totals) {
  const std::uint64_t start = arancini::clock_ns(CLOCK_MONOTONIC);
  std::uint64_t sent = 0;
  std::size_t at = 0;
  std::size_t unsent_from = 0;
  while (at < data.size()) {
    const auto frame = arancini::wire::next_frame(data.subspan(at), 1U << 31U);
    const bool whole = frame.status == arancini::wire::Frame::Status::Ready;
    at = whole ? at + frame.size_bytes : data.size();
    ++sent;
    if (rate > 0) {
      const std::uint64_t due =
          start + static_cast<std::uint64_t>(static_cast<double>(sent - 1) * 1e9 / rate);
      const timespec until{static_cast<time_t>(due / 1'000'000'000), static_cast<long>(due % 1'000'000'000)};
      ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr);
      arancini::tools::send_all(fd, data.subspan(unsent_from, at - unsent_from));
      unsent_from = at;
    }
  }
  arancini::tools::send_all(fd, data.subspan(unsent_from));
  totals.messages += sent;
  totals.bytes += data.size();
}

// What each session of a recording of ingestd said, as far as it was taken, in a file of its own:
// PREFIX<number>-<router>.bmp, numbered as the sessions began.
void convert(const Options& options) {
  using arancini::recording::Entry;
  auto reader = arancini::recording::Reader::open(options.recording);
  if (!reader) throw std::runtime_error(reader.error());
  std::map<std::uint32_t, std::ofstream> open;
  std::uint64_t sessions = 0;
  Totals totals;
  arancini::recording::Call call;
  while (reader->next(call)) {
    if (call.kind == Entry::OpenSession) {
      const std::string name =
          fmt::format("{}{:04}-{}.bmp", options.write, sessions++, call.address.to_string());
      open[call.result] = std::ofstream(name, std::ios::binary | std::ios::trunc);
      if (!open[call.result]) throw std::runtime_error(fmt::format("{}: {}", name, std::strerror(errno)));
    } else if (call.kind == Entry::Apply && call.result == 0) {  // the last of the calls with this message
      open[call.session].write(reinterpret_cast<const char*>(call.bytes.data()),
                               static_cast<std::streamsize>(call.bytes.size()));
      ++totals.messages;
      totals.bytes += call.bytes.size();
    } else if (call.kind == Entry::CloseSession) {
      open.erase(call.session);
    }
  }
  if (!options.quiet) {
    fmt::print("{} sessions, {} messages, {} bytes; {}\n", sessions, totals.messages, totals.bytes,
               reader->end_text());
  }
}

void run(const Options& options) {
  const auto to = arancini::parse_socket_address(options.to, "--to");
  std::vector<std::string> sessions;
  for (const std::string& file : options.files) sessions.push_back(arancini::tools::read_file(file));
  Totals totals;
  const std::uint64_t start = arancini::clock_ns(CLOCK_MONOTONIC);
  for (std::uint64_t loop = 0; loop < options.loops; ++loop) {
    for (std::size_t i = 0; i < sessions.size(); ++i) {
      const Fd fd = arancini::tools::connect_router(to, options.source, options.retry_s);
      play(fd.get(), std::as_bytes(std::span(sessions[i])), options.rate, totals);
      const bool last = loop + 1 == options.loops && i + 1 == sessions.size();
      if (last && options.hold_s > 0 && !arancini::tools::hold(fd.get(), options.hold_s)) {
        throw std::runtime_error("the collector closed the session");
      }
    }
  }
  const double seconds = static_cast<double>(arancini::clock_ns(CLOCK_MONOTONIC) - start) * 1e-9;
  if (!options.quiet) {
    fmt::print("{} sessions, {} messages, {} bytes in {:.3f} s\n", sessions.size() * options.loops,
               totals.messages, totals.bytes, seconds);
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Plays recorded BMP sessions (.bmp: the bytes of one session) to a collector, as a router would.\n"
      "Each FILE is one TCP session; several are played one after the other."};
  Options options;
  app.set_version_flag("--version", ARANCINI_VERSION);
  auto* to = app.add_option("--to", options.to, "collector, ADDRESS:PORT");
  app.add_option("--source", options.source, "local address to connect from (the router's identity)");
  app.add_option("--rate", options.rate, "messages per second, 0 for as fast as it goes")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--hold", options.hold_s, "seconds to keep the last session open")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--retry", options.retry_s, "seconds to retry a refused connection (default 5)");
  app.add_option("--loop", options.loops, "play everything that often")->check(CLI::PositiveNumber);
  app.add_flag("--quiet", options.quiet, "print nothing when all is well");
  auto* files = app.add_option("files", options.files, "recordings");
  auto* from =
      app.add_option("--from-recording", options.recording,
                     "plays nothing: makes .bmp files of what `ingestd --record` wrote, one a session");
  auto* write = app.add_option("--write", options.write, "what the names of these files begin with");
  from->needs(write)->excludes(to)->excludes(files);
  write->needs(from);
  CLI11_PARSE(app, argc, argv);
  if (options.recording.empty() && (options.to.empty() || options.files.empty())) {
    fmt::print(stderr, "bmpreplay: --to and at least one file are required\n");
    return EX_USAGE;
  }
  try {
    options.recording.empty() ? run(options) : convert(options);
  } catch (const arancini::ConfigError& e) {
    fmt::print(stderr, "bmpreplay: {}\n", e.what());
    return EX_USAGE;
  } catch (const std::exception& e) {
    fmt::print(stderr, "bmpreplay: {}\n", e.what());
    return EX_UNAVAILABLE;
  }
  return 0;
}
