// Sends single-prefix UPDATEs to a collector on a fixed schedule, and looks at its ring to see when each of
// them is there, and when it is acked. latency_bench.py runs it and says what that measures.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/fd.h"
#include "common/ring/ring_reader.h"
#include "shm-layout/record.h"
#include "shm-layout/ring_header.h"
#include "tools/net_client.h"

namespace arancini {
namespace {

constexpr std::size_t kMostPerSend = 64 * 1024;  // the ring is not looked at meanwhile
constexpr std::uint64_t kPatienceNs = 20'000'000'000;
constexpr std::size_t kBmpHeaderBytes = 6;
constexpr std::size_t kTimeOffset = kBmpHeaderBytes + 34;  // seconds, microseconds (RFC 7854 4.2)

struct Options {
  std::string to, source, file, ring;
  std::uint64_t dump_bytes = 0;
  std::uint64_t dump_updates = 0;
  std::vector<double> shares;
  std::vector<double> rates;
  double seconds = 2;
  std::uint64_t most_messages = 500'000;
  std::uint32_t sleep_us = 0;
  std::uint32_t rest_ms = 0;
  bool drain = false;
  bool step = false;
};

std::uint32_t big32(const char* at) {
  std::uint32_t v = 0;
  std::memcpy(&v, at, sizeof v);
  return __builtin_bswap32(v);
}
void put_big32(char* at, std::uint32_t v) {
  v = __builtin_bswap32(v);
  std::memcpy(at, &v, sizeof v);
}

// The bytes of one session; [offsets[k], offsets[k + 1]) is message k of the churn.
struct Stream {
  std::string bytes;
  std::vector<std::uint64_t> offsets;

  explicit Stream(const Options& options) : bytes(tools::read_file(options.file)) {
    for (std::uint64_t at = options.dump_bytes; at < bytes.size();) {
      offsets.push_back(at);
      at += big32(bytes.data() + at + 1);
    }
    offsets.push_back(bytes.size());
  }
  [[nodiscard]] std::uint64_t messages() const { return offsets.size() - 1; }
  void stamp(std::uint64_t message, std::uint64_t realtime_ns) {
    char* at = bytes.data() + offsets[message] + kTimeOffset;
    put_big32(at, static_cast<std::uint32_t>(realtime_ns / 1'000'000'000));
    put_big32(at + 4, static_cast<std::uint32_t>(realtime_ns / 1000 % 1'000'000));
  }
  // As the record must have it.
  [[nodiscard]] std::uint64_t stamped_ns(std::uint64_t message) const {
    const char* at = bytes.data() + offsets[message] + kTimeOffset;
    return std::uint64_t{big32(at)} * 1'000'000'000 + std::uint64_t{big32(at + 4)} * 1000;
  }
};

// What a record says that matters here.
struct Seen {
  std::uint32_t count;
  std::uint64_t bmp_time_ns;
  std::uint64_t end;     // position
  std::uint32_t router;  // number within the ring
};

std::uint64_t bmp_time_of(const shm::RecordHeader& header, const std::byte* payload) {
  if (header.template_offset_bytes + 16ULL > header.payload_bytes)
    throw std::runtime_error("a record without template");
  std::uint64_t ns = 0;
  std::memcpy(&ns, payload + header.template_offset_bytes + 8,
              sizeof ns);  // update.capnp: timeBmpHeaderNs @1
  return ns;
}

// A ring seen by somebody who is not its reader, or is (`drain`).
class RingTail {
 public:
  RingTail(const std::string& path, bool drain) {
    if (drain) {
      auto file = RingFile::attach(path, RingSide::Reader);
      if (!file) throw std::runtime_error(file.error().text);
      reader_.emplace(std::move(file).value());
      return;
    }
    const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    const auto map = [&](std::size_t size) {
      void* p = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
      if (p == MAP_FAILED) throw std::runtime_error(fmt::format("{}: {}", path, std::strerror(errno)));
      return static_cast<const std::byte*>(p);
    };
    struct stat status {};
    if (!fd || ::fstat(fd.get(), &status) != 0)
      throw std::runtime_error(fmt::format("{}: {}", path, std::strerror(errno)));
    memory_ = map(static_cast<std::size_t>(status.st_size));
    header_ = reinterpret_cast<const shm::RingHeader*>(memory_);
    if (header_->identity.abi_version.load(std::memory_order_acquire) != shm::kRingAbiVersion ||
        header_->identity.layout_hash != shm::kRingLayoutHash) {
      throw std::runtime_error(path + ": the ring is of another version");
    }
    cursor_ = header_->writer.tail.load(std::memory_order_acquire);
  }

  // pairs with the release of the writer
  [[nodiscard]] std::uint64_t tail() const {
    return reader_ ? raw(reader_->tail()) : header_->writer.tail.load(std::memory_order_acquire);
  }
  // pairs with the release of the reader
  [[nodiscard]] std::uint64_t head() const {
    return reader_ ? raw(reader_->head()) : header_->reader.head.load(std::memory_order_acquire);
  }
  [[nodiscard]] std::uint64_t cursor() const { return reader_ ? raw(reader_->cursor()) : cursor_; }

  // The next record below `tail`; false: none. Records without updates are passed over.
  bool next(std::uint64_t tail, Seen& out) {
    while (cursor() < tail) {
      if (reader_) {
        RingRecord record;
        if (reader_->next(record) != RingReader::Status::Record) return false;
        if (record.header.count == 0) continue;
        out = {record.header.count, bmp_time_of(record.header, record.payload.data()), raw(record.end),
               record.header.router_id};
        return true;
      }
      const std::byte* at =
          memory_ + header_->identity.data_offset_bytes + cursor_ % header_->identity.capacity_bytes;
      shm::RecordHeader record{};
      std::memcpy(&record, at, 8);  // a padding record has no more
      if (record.kind != static_cast<std::uint8_t>(shm::RecordKind::Padding))
        std::memcpy(&record, at, sizeof record);
      cursor_ += record.size_bytes;
      if (record.size_bytes == 0) throw std::runtime_error("the ring has overtaken its observer");
      if (record.kind != static_cast<std::uint8_t>(shm::RecordKind::UpdateBatch)) continue;
      out = {record.count, bmp_time_of(record, at + sizeof record), cursor_, record.router_id};
      return true;
    }
    return false;
  }
  // An observer passes over what came while nobody looked.
  void skip() {
    if (!reader_) cursor_ = tail();
  }
  void release() {
    if (!reader_) return;
    reader_->release(reader_->cursor());
    if (const std::uint64_t now = clock_ns(CLOCK_BOOTTIME); now > next_heartbeat_ns_) {
      reader_->heartbeat(now);
      next_heartbeat_ns_ = now + 500'000'000;
    }
  }

 private:
  std::optional<RingReader> reader_;
  const std::byte* memory_ = nullptr;
  const shm::RingHeader* header_ = nullptr;
  std::uint64_t cursor_ = 0;
  std::uint64_t next_heartbeat_ns_ = 0;
};

struct Distribution {
  std::vector<std::uint32_t> ns;  // of each message, saturated
  void add(std::uint64_t value) {
    ns.push_back(static_cast<std::uint32_t>(
        std::min<std::uint64_t>(value, std::numeric_limits<std::uint32_t>::max())));
  }
  [[nodiscard]] std::string json() {
    if (ns.empty()) return "null";
    std::sort(ns.begin(), ns.end());
    const auto at = [&](double share) {
      return ns[std::min(ns.size() - 1, static_cast<std::size_t>(share * static_cast<double>(ns.size())))] *
             1e-3;
    };
    return fmt::format(R"({{"p50": {:.3f}, "p99": {:.3f}, "p999": {:.3f}, "max": {:.3f}}})", at(0.5),
                       at(0.99), at(0.999), ns.back() * 1e-3);
  }
};

// One part of the churn on its schedule.
struct Phase {
  double rate = 0;  // messages per second, 0: as fast as they are taken
  std::uint64_t first = 0;
  std::uint64_t count = 0;
  std::uint64_t start_ns = 0;
  std::uint64_t end_ns = 0;  // the last one is in the ring, or acked where that is waited for
  Distribution ring, ack, send_call;
  std::uint64_t longest_gap_ns = 0;  // between two looks at the ring
  std::uint64_t gaps_ns = 0;         // time in those that are longer than they should be

  [[nodiscard]] std::uint64_t due_at_ns(std::uint64_t message) const {
    return start_ns +
           (rate == 0 ? 0 : static_cast<std::uint64_t>(static_cast<double>(message - first) * 1e9 / rate));
  }
  [[nodiscard]] double reached() const {
    return static_cast<double>(count) * 1e9 / static_cast<double>(end_ns - start_ns);
  }
};

class Probe {
 public:
  explicit Probe(const Options& options)
      : options_(options),
        stream_(options),
        tail_(options.ring, options.drain),
        socket_(tools::connect_router(parse_socket_address(options.to, "--to"), options.source, 5)) {
    ::prctl(PR_SET_TIMERSLACK, 1);
    const int flags = ::fcntl(socket_.get(), F_GETFL);
    ::fcntl(socket_.get(), F_SETFL, flags | O_NONBLOCK);
    realtime_offset_ns_ = clock_ns(CLOCK_REALTIME) - clock_ns(CLOCK_MONOTONIC);
  }

  // The table that the churn is about; returns when it is in the ring, and acked. No other router may say
  // anything meanwhile: the ring tells which one is ours.
  void send_table() {
    std::uint64_t sent = 0;
    std::uint64_t updates = 0;
    std::uint64_t progress_at = clock_ns(CLOCK_MONOTONIC);
    Seen seen{};
    while (sent < options_.dump_bytes || updates < options_.dump_updates ||
           (!options_.drain && tail_.head() < tail_.cursor())) {
      const std::size_t now_sent = send_some(sent, options_.dump_bytes);
      const std::uint64_t tail = tail_.tail();
      const std::uint64_t before = updates;
      while (tail_.next(tail, seen)) {
        updates += seen.count;
        router_ = seen.router;
      }
      tail_.release();
      sent += now_sent;
      const std::uint64_t now = clock_ns(CLOCK_MONOTONIC);
      if (now_sent != 0 || updates != before) progress_at = now;
      if (now > progress_at + kPatienceNs)
        throw std::runtime_error(fmt::format("{} updates of the table came", updates));
      pause();
    }
    if (updates != options_.dump_updates)
      throw std::runtime_error(fmt::format("{} updates of the table came", updates));
  }

  void run(Phase& phase) {
    phase.ring.ns.reserve(phase.count);
    phase.ack.ns.reserve(phase.count);
    phase.send_call.ns.reserve(phase.count);
    const std::uint64_t last = phase.first + phase.count;
    std::uint64_t sent_bytes = stream_.offsets[phase.first];
    std::uint64_t stamped = phase.first;
    std::uint64_t acked = phase.first;
    std::uint64_t seen_until = phase.first;
    waiting_.clear();
    tail_.skip();
    phase.start_ns = clock_ns(CLOCK_MONOTONIC) + 1'000'000;
    std::uint64_t looked_at = phase.start_ns;
    std::uint64_t progress_at = phase.start_ns;
    while (seen_until < last || (!options_.drain && acked < last)) {
      const std::uint64_t now = clock_ns(CLOCK_MONOTONIC);
      if (now < phase.start_ns) continue;
      const std::uint64_t due = phase.rate == 0 ? last : due_until(phase, now, last);
      // A stamp is the time by the schedule, whatever keeps the message from going out then.
      for (const std::uint64_t upto = std::min(due, stamped + kMostPerSend / 64); stamped < upto; ++stamped) {
        stream_.stamp(stamped, (phase.rate == 0 ? now : phase.due_at_ns(stamped)) + realtime_offset_ns_);
      }
      if (sent_bytes < stream_.offsets[stamped]) {
        sent_bytes += send_some(sent_bytes, stream_.offsets[stamped]);
        phase.send_call.add(clock_ns(CLOCK_MONOTONIC) - now);
      }
      const std::uint64_t head = tail_.head();
      const std::uint64_t tail = tail_.tail();
      const std::uint64_t seen_at = clock_ns(CLOCK_MONOTONIC);
      const std::uint64_t before = seen_until + acked;
      seen_until = look(phase, seen_until, tail, seen_at);
      for (; !waiting_.empty() && waiting_.front() <= head; waiting_.pop_front()) {
        phase.ack.add(seen_at - phase.due_at_ns(acked++));
      }
      if (const std::uint64_t gap = seen_at - looked_at;
          gap > 50'000 + 2'000 * std::uint64_t{options_.sleep_us})
        phase.gaps_ns += gap;
      phase.longest_gap_ns = std::max(phase.longest_gap_ns, seen_at - looked_at);
      looked_at = seen_at;
      if (seen_until + acked != before) {
        progress_at = seen_at;
      } else if (seen_at > progress_at + kPatienceNs) {
        throw std::runtime_error(fmt::format("nothing moves: {} of {} messages are in the ring, {} acked",
                                             seen_until - phase.first, phase.count, acked - phase.first));
      }
      pause();
    }
    phase.end_ns = looked_at;
  }

  [[nodiscard]] const Stream& stream() const { return stream_; }

 private:
  // Message k is due when due_at_ns(k) is past.
  static std::uint64_t due_until(const Phase& phase, std::uint64_t now, std::uint64_t last) {
    const double since = static_cast<double>(now - phase.start_ns) * 1e-9;
    return std::min(last, phase.first + static_cast<std::uint64_t>(since * phase.rate) + 1);
  }

  std::size_t send_some(std::uint64_t from, std::uint64_t to) {
    if (from >= to) return 0;
    const ssize_t n = ::send(socket_.get(), stream_.bytes.data() + from,
                             std::min<std::uint64_t>(to - from, kMostPerSend), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0) return static_cast<std::size_t>(n);
    if (errno == EAGAIN || errno == EINTR) return 0;
    throw std::runtime_error(fmt::format("the collector closed the session: {}", std::strerror(errno)));
  }

  std::uint64_t look(Phase& phase, std::uint64_t seen_until, std::uint64_t tail, std::uint64_t seen_at) {
    Seen seen{};
    while (tail_.next(tail, seen)) {
      if (seen.router != router_) continue;
      // So each message has made exactly one update, and it is that one.
      if (seen.count != 1 || seen.bmp_time_ns != stream_.stamped_ns(seen_until)) {
        throw std::runtime_error(fmt::format("message {}: its record has another time", seen_until));
      }
      phase.ring.add(seen_at - phase.due_at_ns(seen_until++));
      if (!options_.drain) waiting_.push_back(seen.end);
    }
    tail_.release();
    return seen_until;
  }

  void pause() const {
    if (options_.sleep_us == 0) return;
    const timespec ts{0, static_cast<long>(options_.sleep_us) * 1000};
    ::nanosleep(&ts, nullptr);
  }

  const Options& options_;
  Stream stream_;
  RingTail tail_;
  Fd socket_;
  std::uint64_t realtime_offset_ns_ = 0;
  std::uint32_t router_ = 0;
  std::deque<std::uint64_t> waiting_;  // ends of records in the ring that are not acked
};

void say(double share, Phase& phase) {
  const double seconds = static_cast<double>(phase.end_ns - phase.start_ns) * 1e-9;
  fmt::print(
      R"({{"share": {}, "rate": {:.0f}, "reached": {:.0f}, "messages": {}, "ring_us": {}, "ack_us": {}, "send_call_us": {}, )"
      R"("longest_gap_us": {:.1f}, "in_gaps_percent": {:.3f}}})"
      "\n",
      share, phase.rate, phase.reached(), phase.count, phase.ring.json(), phase.ack.json(),
      phase.send_call.json(), static_cast<double>(phase.longest_gap_ns) * 1e-3,
      static_cast<double>(phase.gaps_ns) * 1e-7 / seconds);
  std::fflush(stdout);
}

// The next messages of the file, at that rate.
void run_phase(Probe& probe, const Options& options, double share, double rate, std::uint64_t& next,
               Phase& phase) {
  phase.rate = rate;
  phase.first = next;
  phase.count =
      std::min({options.most_messages, probe.stream().messages() - next,
                rate == 0 ? options.most_messages : static_cast<std::uint64_t>(rate * options.seconds)});
  if (phase.count == 0) throw std::runtime_error("the file has too few messages");
  next += phase.count;
  probe.run(phase);
  say(share, phase);
}

void run(const Options& options) {
  Probe probe(options);
  probe.send_table();
  std::uint64_t next = 0;
  if (options.rates.empty()) {
    Phase most;
    run_phase(probe, options, 1, 0, next, most);
    for (const double share : options.shares) {
      const timespec rest{options.rest_ms / 1000, static_cast<long>(options.rest_ms % 1000) * 1'000'000};
      ::nanosleep(&rest, nullptr);
      Phase phase;
      run_phase(probe, options, share, most.reached() * share, next, phase);
    }
    return;
  }
  fmt::print("ready\n");
  std::fflush(stdout);
  for (const double rate : options.rates) {
    Phase phase;
    if (options.step && std::getchar() == EOF) return;
    run_phase(probe, options, 0, rate, next, phase);
  }
}

}  // namespace
}  // namespace arancini

int main(int argc, char** argv) {
  CLI::App app{
      "Sends a table, then UPDATEs on a fixed schedule, and tells when they are in the ring and acked "
      "(latency_bench.py).\n"
      "One JSON line for the greatest rate (share 1) and for each --share of it."};
  arancini::Options o;
  app.add_option("--to", o.to, "collector, ADDRESS:PORT")->required();
  app.add_option("--source", o.source, "own address");
  app.add_option("--file", o.file,
                 "a session as bmpgen --out --churn writes it: each UPDATE of the churn makes one update")
      ->required();
  app.add_option("--dump-bytes", o.dump_bytes, "where in the file the churn begins")->required();
  app.add_option("--dump-updates", o.dump_updates, "updates before it")->required();
  app.add_option("--ring", o.ring, "ring file of the session's shard")->required();
  app.add_option("--share", o.shares, "of the greatest rate");
  app.add_option(
      "--rate", o.rates,
      "UPDATEs per second; several are sent one after the other, and no greatest rate is looked for");
  app.add_flag("--step", o.step, "with --rate: wait for a line on standard input before each");
  app.add_option("--seconds", o.seconds, "of each rate");
  app.add_option("--messages", o.most_messages, "at each rate at most, and to find the greatest rate");
  app.add_option("--sleep-us", o.sleep_us, "sleep that long between two looks; 0: never");
  app.add_option("--rest-ms", o.rest_ms, "sleep that long before each share");
  app.add_flag("--drain", o.drain, "be the ring's reader; else only look, and wait for acks, too");
  CLI11_PARSE(app, argc, argv);
  try {
    arancini::run(o);
  } catch (const std::exception& e) {
    fmt::print(stderr, "latency_probe: {}\n", e.what());
    return 70;  // EX_SOFTWARE
  }
}
