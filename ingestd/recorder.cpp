#include "ingestd/recorder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "common/journal/crc32c.h"
#include "common/recording/recording_reader.h"
#include "common/schema/event_build.h"
#include "ingestd/restore_bytes.h"

namespace arancini::ingestd {

using recording::BlockHeader;
using recording::BlockKind;
using recording::Entry;

namespace {

// How long the thread rests when the queue is empty.
constexpr std::chrono::milliseconds kRest{2};
constexpr int kMostFiles = 10'000;

int write_all(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return n < 0 ? errno : EIO;
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return 0;
}

}  // namespace

Result<std::unique_ptr<Recorder>, std::string> Recorder::create(const std::string& path,
                                                                const recording::Start& start,
                                                                const Clock& clock, Logger& log,
                                                                std::size_t queue_bytes) {
  std::string name = path;
  Fd file;
  for (int number = 1; !file; ++number) {
    file = Fd(::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (file) break;
    if (errno != EEXIST || number > kMostFiles) {
      return Err{fmt::format("recording {} cannot be made: {}", name, std::strerror(errno))};
    }
    name = fmt::format("{}.{}", path, number);
  }
  const std::uint32_t version[2] = {recording::kVersion, 0};
  int error = write_all(file.get(), std::as_bytes(std::span(&recording::kFileMagic, 1)));
  if (error == 0) error = write_all(file.get(), std::as_bytes(std::span(version)));
  if (error != 0) return Err{fmt::format("recording {} cannot be written: {}", name, std::strerror(error))};
  std::unique_ptr<Recorder> recorder(new Recorder(std::move(name), std::move(file), clock, log, queue_bytes));
  recorder->put_bytes(recording::encode_start(start));
  recorder->published_ = RingPosition{start.tail};
  recorder->begin(Entry::Construct);
  return recorder;
}

Recorder::Recorder(std::string path, Fd file, const Clock& clock, Logger& log, std::size_t queue_bytes)
    : path_(std::move(path)),
      file_(std::move(file)),
      clock_(clock),
      log_(log),
      capacity_(queue_bytes),
      queue_(std::make_unique<std::byte[]>(queue_bytes)),  // written to: no page fault on the hot thread
      thread_([this] { write_loop(); }) {}

Recorder::~Recorder() {
  stop_.store(true, std::memory_order_release);
  thread_.join();
}

void Recorder::put_bytes(std::span<const std::byte> bytes) {
  if (!running_ || overflow_) return;
  if (bytes.size() > capacity_ - (at_ - drained_seen_)) {
    drained_seen_ = drained_.load(std::memory_order_acquire);  // pairs with the thread's release
    if (bytes.size() > capacity_ - (at_ - drained_seen_)) {
      overflow_ = true;
      return;
    }
  }
  const std::size_t offset = at_ & (capacity_ - 1);
  const std::size_t first = std::min(bytes.size(), capacity_ - offset);
  if (first != 0) std::memcpy(queue_.get() + offset, bytes.data(), first);
  if (first != bytes.size()) std::memcpy(queue_.get(), bytes.data() + first, bytes.size() - first);
  at_ += bytes.size();
}

void Recorder::begin(Entry call) {
  if (!running_) return;
  if (const int error = error_.load(std::memory_order_relaxed); error != 0) {
    stop_recording(std::strerror(error));
    return;
  }
  in_call_ = true;
  put(call);
}

void Recorder::end(std::uint32_t result) {
  in_call_ = false;
  if (!running_) return;
  put(Entry::Done);
  put(result);
  if (overflow_) {
    stop_recording("the disk does not keep up with what comes in");
    return;
  }
  committed_.store(at_, std::memory_order_release);  // pairs with the thread's acquire
}

void Recorder::published(const RingWriter& ring) {
  in_call_ = false;
  if (!running_) return;
  std::uint64_t bytes = 0;
  std::uint32_t crc = 0;
  (void)ring.scan(published_,
                  [&](const shm::RecordHeader& header, std::span<const std::byte> payload, RingPosition) {
                    bytes += sizeof header + payload.size();
                    crc = record_crc(header, payload, crc);
                    return true;
                  });
  published_ = ring.tail();
  put(Entry::Published);
  put(raw(published_));
  put(raw(ring.next_sequence()));
  put(static_cast<std::uint32_t>(bytes));
  put(crc);
  if (overflow_) {
    stop_recording("the disk does not keep up with what comes in");
    return;
  }
  committed_.store(at_, std::memory_order_release);  // pairs with the thread's acquire
}

void Recorder::give_up(std::string_view why) {
  if (running_) stop_recording(why);
}

void Recorder::stop_recording(std::string_view why) {
  running_ = false;
  in_call_ = false;
  why_ = why;
  log_.error("recording {} ends here: {}; data flows on", path_, why);
  stop_.store(true, std::memory_order_release);  // pairs with the thread's acquire: it writes why_
}

Clock::Times Recorder::times() const {
  const Times times = clock_.times();
  if (in_call_) {
    auto& self = const_cast<Recorder&>(*this);  // the interface of clocks is const
    self.put(Entry::Time);
    self.put(times.boottime_ns);
    self.put(times.realtime_ns);
  }
  return times;
}

std::uint64_t Recorder::saw(Field field, std::uint64_t value) noexcept {
  if (!in_call_) return value;
  if (field != Field::Head) {
    put(Entry::Seen);
    put(field);
    put(value);
  } else if (value == last_head_) {
    put(Entry::SameHead);
  } else {
    put(Entry::Head);
    put(value);
    last_head_ = value;
  }
  return value;
}

void Recorder::dump_asked(const IpAddress* router) noexcept {
  if (!in_call_) return;
  put(Entry::DumpAsked);
  put(static_cast<std::uint8_t>(router == nullptr));
  put(router == nullptr ? IpAddress{}.bytes : router->bytes);
}

void Recorder::reloaded() noexcept {
  give_up("the configuration was reloaded, and a recording has that of its beginning");
}

void Recorder::restoring(bool restoring) noexcept {
  begin(Entry::SetRestoring);
  put(static_cast<std::uint8_t>(restoring));
  end();
}

void Recorder::restore_batch(const RestoreBatch& batch) noexcept {
  if (!in_call_) return;
  put(Entry::RestoreBatch);
  put(restore_batch_bytes(batch));
  put_restore_batch(batch, [this](std::span<const std::byte> part) { put_bytes(part); });
}

void Recorder::adopted(std::span<const std::byte> restart_state) noexcept {
  if (!in_call_) return;
  put(Entry::Adopted);
  put(static_cast<std::uint32_t>(restart_state.size()));
  put_bytes(restart_state);
}

void Recorder::restore_end(std::span<const schema::EventFields> events, bool complete) noexcept {
  if (!in_call_) return;
  // Once, before the shard takes its first message.
  std::vector<std::byte> all{complete ? std::byte{1} : std::byte{0}};
  for (const schema::EventFields& event : events) {
    const std::vector<std::byte> framed = schema::build_event(event);
    const auto size = static_cast<std::uint32_t>(framed.size());
    const auto head = std::as_bytes(std::span(&size, 1));
    all.insert(all.end(), head.begin(), head.end());
    all.insert(all.end(), framed.begin(), framed.end());
  }
  put(Entry::RestoreEnd);
  put(static_cast<std::uint32_t>(all.size()));
  put_bytes(all);
}

void Recorder::write_loop() {
  std::uint64_t at = 0;
  for (;;) {
    const bool last = stop_.load(std::memory_order_acquire);
    const std::uint64_t until = committed_.load(std::memory_order_acquire);
    while (at < until) {
      const std::size_t offset = at & (capacity_ - 1);
      const std::size_t bytes =
          std::min<std::uint64_t>({until - at, capacity_ - offset, std::uint64_t{recording::kBlockMaxBytes}});
      if (!write_block(BlockKind::Data, {queue_.get() + offset, bytes})) return;
      at += bytes;
      drained_.store(at, std::memory_order_release);  // pairs with put_bytes()
    }
    if (last) break;
    std::this_thread::sleep_for(kRest);
  }
  (void)write_block(BlockKind::End, std::as_bytes(std::span(why_)));
  (void)::fdatasync(file_.get());
}

bool Recorder::write_block(BlockKind kind, std::span<const std::byte> bytes) {
  const BlockHeader header{.magic = recording::kBlockMagic,
                           .kind = kind,
                           .bytes = static_cast<std::uint32_t>(bytes.size()),
                           .crc = journal::crc32c(bytes)};
  int error = write_all(file_.get(), std::as_bytes(std::span(&header, 1)));
  if (error == 0) error = write_all(file_.get(), bytes);
  if (error == 0) return true;
  error_.store(error, std::memory_order_relaxed);
  return false;
}

std::uint32_t record_crc(const shm::RecordHeader& header, std::span<const std::byte> payload,
                         std::uint32_t before) {
  return journal::crc32c(payload, journal::crc32c(std::as_bytes(std::span(&header, 1)), before));
}

}  // namespace arancini::ingestd
