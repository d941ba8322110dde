// The writer thread (frames, fdatasync, acknowledgement) and the read-ahead thread.
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/runtime_dir.h"
#include "publishd/journal_impl.h"
#include "shm-layout/record.h"

namespace arancini::publishd {

namespace {

constexpr std::uint64_t kIdleNs = 500'000'000;
constexpr std::uint64_t kRetryMostNs = 5'000'000'000;
constexpr std::size_t kFramesPerRound = 8;  // of one writer, before the others have their turn

bool write_all(int fd, std::array<iovec, 3> parts, std::uint64_t offset) {
  iovec* at = parts.data();
  std::size_t left = parts.size();
  while (left > 0) {
    const ssize_t n = ::pwritev(fd, at, static_cast<int>(left), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      if (n == 0) errno = ENOSPC;
      return false;
    }
    offset += static_cast<std::uint64_t>(n);
    for (auto done = static_cast<std::size_t>(n); left > 0; ++at, --left) {
      if (done < at->iov_len) {
        at->iov_base = static_cast<std::byte*>(at->iov_base) + done;
        at->iov_len -= done;
        break;
      }
      done -= at->iov_len;
    }
  }
  return true;
}

bool write_at(int fd, std::span<const std::byte> bytes, std::uint64_t offset) {
  return write_all(fd, {iovec{const_cast<std::byte*>(bytes.data()), bytes.size()}, iovec{}, iovec{}}, offset);
}

std::uint64_t random_id() {
  std::uint64_t id = 0;
  while (id == 0) {
    if (::getrandom(&id, sizeof id, 0) != sizeof id) id = 0;
  }
  return id;
}

}  // namespace

void Journal::Impl::write_loop() {
  std::vector<std::shared_ptr<JournalWriter>> all;
  std::uint64_t seen_version = 0;
  bool last_round = false;
  for (;;) {
    const std::uint32_t seen = write_wake.value();
    if (const std::uint64_t v = list_version.load(std::memory_order_acquire); v != seen_version) {
      seen_version = v;
      all = list();
    }
    const std::uint64_t now = clock_ns(CLOCK_BOOTTIME);
    bool work = false;
    bool blocked = false;
    bool retry = false;
    for (const auto& w : all) {
      if (now < w->retry_at_ns && !last_round) {
        retry = true;
        continue;
      }
      work = write_frames(*w) || work;
    }
    // All frames first: one journal commit of the file system then often serves several files.
    bool acknowledged = false;
    for (const auto& w : all) {
      if (w->unsynced && sync(*w)) acknowledged = true;
      if (w->drop_segment.load(std::memory_order_acquire)) {
        if (!w->unsynced) seal_segment(*w);
        w->drop_segment.store(false, std::memory_order_relaxed);
        keep_wake.bump();
      }
      blocked = blocked || w->blocked.load(std::memory_order_relaxed);
    }
    if (!blocked) set_trouble(write_trouble, ErrorCode::None, "");
    if (acknowledged) {
      hot.bump();
      read_wake.bump();
    }
    if (last_round) {
      for (const auto& w : all) seal_segment(*w);
      return;
    }
    if (stop.load(std::memory_order_acquire)) {
      last_round = true;  // what was handed over by then
      continue;
    }
    if (!work) sleep_on(write_wake, seen, retry ? options.retry_ns : kIdleNs);
  }
}

// Frames of what was appended; not acknowledged yet.
bool Journal::Impl::write_frames(JournalWriter& w) {
  bool work = false;
  for (std::size_t n = 0; n < kFramesPerRound; ++n) {
    const std::uint64_t committed = w.committed.load(std::memory_order_acquire);
    if (w.write_offset == committed) break;
    const std::uint64_t pushed = w.runs_pushed.load(std::memory_order_acquire);
    std::uint64_t r = w.runs_popped.load(std::memory_order_relaxed);
    while (r + 1 < pushed && w.runs[(r + 1) % JournalWriter::kRuns].offset <= w.write_offset) ++r;
    const JournalWriter::Run& run = w.runs[r % JournalWriter::kRuns];
    const bool more_runs = r + 1 < pushed;
    const std::uint64_t limit = more_runs ? w.runs[(r + 1) % JournalWriter::kRuns].offset : committed;
    const std::uint64_t there = std::min(limit, committed) - w.write_offset;
    if (there < options.frame_bytes && !more_runs &&
        w.flush_to.load(std::memory_order_acquire) <= w.write_offset) {
      break;  // waits for more
    }
    std::uint64_t bytes = 0;
    while (bytes < there) {
      shm::RecordHeader h;
      std::memcpy(&h, w.buffer->at(w.write_offset + bytes), sizeof h);
      if (bytes > 0 && bytes + h.size_bytes > options.frame_bytes) break;
      bytes += h.size_bytes;
    }
    if (!write_frame(w, run, bytes)) return work;
    work = true;
  }
  return work;
}

bool Journal::Impl::write_frame(JournalWriter& w, const JournalWriter::Run& run, std::uint64_t bytes) {
  const RingPosition begin = run.position + (w.write_offset - run.offset);
  const std::uint64_t in_file = journal::frame_file_bytes(bytes);
  if (!w.segment || w.segment_offset + in_file > w.segment_bytes) {
    // A segment says that all frames before it are durable.
    if (w.unsynced && !sync(w)) return false;
    seal_segment(w);
    if (!new_segment(w, run, begin, journal::kSegmentHeaderBytes + in_file)) return false;
  }
  const std::span<const std::byte> payload(w.buffer->at(w.write_offset), bytes);
  shm::RecordHeader first;
  std::memcpy(&first, payload.data(), sizeof first);
  journal::FrameHeader h{};
  h.magic = journal::kFrameMagic;
  h.payload_bytes = static_cast<std::uint32_t>(bytes);
  h.begin = raw(begin);
  h.first_sequence = first.first_sequence;
  h.order = next_order;
  h.frame = w.next_frame;
  h.segment_id = w.segment_id;
  h.durable_frame = w.durable_frame.load(std::memory_order_relaxed);
  journal::seal(h, payload);
  static constexpr std::array<std::byte, journal::kFrameAlignBytes> kZeros{};
  const std::array parts{
      iovec{&h, sizeof h},
      iovec{const_cast<std::byte*>(payload.data()), payload.size()},
      iovec{const_cast<std::byte*>(kZeros.data()), in_file - sizeof h - bytes},
  };
  if (!write_all(w.segment.get(), parts, w.segment_offset)) {
    fail(w, "write to " + w.path + "/" + w.segment_name, errno);
    return false;
  }
  w.segment_offset += in_file;
  w.write_offset += bytes;
  w.write_end = begin + bytes;
  w.write_order = next_order++;
  ++w.next_frame;
  w.unsynced = true;
  w.checkpoint_due = w.checkpoint_due || run.restart;
  return true;
}

bool Journal::Impl::sync(JournalWriter& w) {
  const std::uint64_t popped = w.runs_popped.load(std::memory_order_relaxed);
  if (w.page.load(std::memory_order_relaxed) == nullptr) {
    if (!make_checkpoint(w, w.runs[popped % JournalWriter::kRuns].published)) return false;
  } else if (w.checkpoint_due && ::fdatasync(w.checkpoint.get()) != 0) {
    fail(w, "fdatasync of " + w.path + "/checkpoint", errno);
    return false;
  }
  if (::fdatasync(w.segment.get()) != 0) {
    fail(w, "fdatasync of " + w.path + "/" + w.segment_name, errno);
    return false;
  }
  w.checkpoint_due = w.unsynced = false;
  w.segment_durable_offset = w.segment_offset;
  w.retry_wait_ns = w.retry_at_ns = 0;
  w.blocked.store(false, std::memory_order_relaxed);
  const std::uint64_t frame = w.next_frame - 1;
  journal::store(*w.page.load(std::memory_order_relaxed),
                 journal::Durable{frame, w.write_end, w.write_order});
  spilled_bytes.fetch_add(w.write_offset - w.written.load(std::memory_order_relaxed),
                          std::memory_order_relaxed);
  // Runs that lie wholly below are done with.
  const std::uint64_t pushed = w.runs_pushed.load(std::memory_order_acquire);
  std::uint64_t r = popped;
  while (r + 1 < pushed && w.runs[(r + 1) % JournalWriter::kRuns].offset <= w.write_offset) ++r;
  w.runs_popped.store(r, std::memory_order_release);
  w.durable_frame.store(frame, std::memory_order_release);
  w.written.store(w.write_offset, std::memory_order_release);
  // Pairs with the acquire in JournalStore::end(): everything below is on the disk.
  w.end.store(raw(w.write_end), std::memory_order_release);
  w.durable_order.store(w.write_order, std::memory_order_release);
  return true;
}

// Back to what was acknowledged; those frames are written again, into another segment, which counts: what a
// failed fdatasync leaves in the old one is not known.
void Journal::Impl::fail(JournalWriter& w, const std::string& what, int error) {
  const bool full = error == ENOSPC || error == EDQUOT;
  const ErrorCode code = full ? ErrorCode::JournalFull : ErrorCode::JournalFailed;
  w.blocked.store(true, std::memory_order_relaxed);
  set_trouble(write_trouble, code,
              fmt::format("{} ({}): {}: {}; nothing is lost, the rings keep what comes and the routers wait "
                          "when they are full: {}; tried again by itself",
                          arancini::to_string(code), number(code), what, std::strerror(error),
                          full ? "make room on that file system" : "look at the disk (dmesg)"));
  seal_segment(w);
  w.unsynced = false;
  w.write_offset = w.written.load(std::memory_order_relaxed);
  w.next_frame = w.durable_frame.load(std::memory_order_relaxed) + 1;
  w.retry_wait_ns = w.retry_wait_ns == 0 ? options.retry_ns : std::min(2 * w.retry_wait_ns, kRetryMostNs);
  w.retry_at_ns = clock_ns(CLOCK_BOOTTIME) + w.retry_wait_ns;
  hot.bump();
}

// The present segment gets no more frames; what it has room for is given back.
void Journal::Impl::seal_segment(JournalWriter& w) {
  if (!w.segment) return;
  const bool empty = w.segment_durable_offset == 0;
  const std::uint64_t bytes = empty ? 0 : w.segment_durable_offset;
  bool truncated = false;
  if (empty) {
    truncated = ::unlinkat(w.directory.get(), w.segment_name.c_str(), 0) == 0;
  } else {
    truncated = ::ftruncate(w.segment.get(), static_cast<off_t>(bytes)) == 0;
  }
  {
    const std::lock_guard guard(mutex);
    const auto it = std::find_if(w.segments.begin(), w.segments.end(),
                                 [&](const auto& s) { return s.name == w.segment_name; });
    if (it != w.segments.end()) {
      if (truncated) {
        used_bytes.fetch_sub(it->bytes - bytes, std::memory_order_relaxed);
        it->bytes = bytes;
      }
      it->sealed = true;
      it->end = RingPosition{w.end.load(std::memory_order_relaxed)};
      if (empty && truncated) {
        files.fetch_sub(1, std::memory_order_relaxed);
        w.segments.erase(it);
      }
    }
  }
  w.segment.reset();
  space_wake.bump();
}

bool Journal::Impl::make_directory(JournalWriter& w) {
  {
    const std::lock_guard guard(mutex);
    if (leaving.contains(w.id)) return false;  // its former files are just being removed
  }
  const bool made = ::mkdirat(directory.get(), w.hex.c_str(), 0750) == 0;
  if (!made && errno != EEXIST) {
    fail(w, "mkdir " + w.path, errno);
    return false;
  }
  w.directory = Fd(::openat(directory.get(), w.hex.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!w.directory || (made && ::fsync(directory.get()) != 0)) {
    fail(w, "directory " + w.path, errno);
    return false;
  }
  if (const std::string why = open_to_others(w.directory); !why.empty()) {
    fail(w, w.path + " " + why, EPERM);
    w.directory.reset();
    return false;
  }
  return true;
}

bool Journal::Impl::new_segment(JournalWriter& w, const JournalWriter::Run& run, RingPosition begin,
                                std::uint64_t need) {
  if (!is_open.load(std::memory_order_acquire)) {
    w.blocked.store(true, std::memory_order_relaxed);
    w.retry_at_ns = clock_ns(CLOCK_BOOTTIME) + options.retry_ns;
    return false;
  }
  if (!w.directory && !make_directory(w)) return false;
  std::optional<Spare> s;
  bool wants_more = false;
  {
    const std::lock_guard guard(mutex);
    if (spare && spare->bytes >= need) {
      s = std::move(spare);
      spare.reset();
    }
    wants_more = need > spare_wanted_bytes;
    spare_wanted_bytes = s ? 0 : std::max(spare_wanted_bytes, need);
  }
  const bool was_starved = w.starved.exchange(!s, std::memory_order_relaxed);
  // The preallocator wakes us, when it has one and when it failed; why it has none is its to say. Who only
  // waits on does not wake it: after a failure it has to wait itself.
  if (s || !was_starved || wants_more) space_wake.bump();
  if (!s) {
    if (space_trouble.load() != ErrorCode::None) w.blocked.store(true, std::memory_order_relaxed);
    w.retry_at_ns = clock_ns(CLOCK_BOOTTIME) + 1'000'000;
    return false;
  }
  journal::SegmentHeader h{};
  h.magic = journal::kSegmentMagic;
  h.version = journal::kVersion;
  h.layout_hash = journal::kLayoutHash;
  h.segment_id = random_id();
  std::copy(w.id.bytes.begin(), w.id.bytes.end(), std::begin(h.writer_id));
  h.writer_created_ns = w.created_ns;
  h.shard = raw(w.shard);
  h.header_bytes = journal::kSegmentHeaderBytes;
  h.begin = raw(begin);
  h.capacity_bytes = s->bytes;
  h.first_frame = w.next_frame;
  h.first_order = next_order;
  h.floor_stream_sequence = run.published.floor_stream_sequence;
  h.floor_created_ns = run.published.floor_created_ns;
  h.created_realtime_ns = clock_ns(CLOCK_REALTIME);
  journal::seal(h);
  const auto bytes = std::as_bytes(std::span(&h, 1));
  const std::string name = journal::segment_name(begin);
  // The file, its name, the directory: in this order, a name never leads to a half-made segment.
  if (!write_at(s->fd.get(), bytes, 0) || !write_at(s->fd.get(), bytes, journal::kSecondHeaderOffset) ||
      ::fdatasync(s->fd.get()) != 0 ||
      ::renameat(directory.get(), s->name.c_str(), w.directory.get(), name.c_str()) != 0 ||
      ::fsync(w.directory.get()) != 0) {
    const int error = errno;
    ::unlinkat(directory.get(), s->name.c_str(), 0);
    ::unlinkat(w.directory.get(), name.c_str(), 0);
    used_bytes.fetch_sub(s->bytes, std::memory_order_relaxed);
    files.fetch_sub(1, std::memory_order_relaxed);
    fail(w, "new segment " + w.path + "/" + name, error);
    return false;
  }
  {
    const std::lock_guard guard(mutex);
    w.segments.push_back({name, begin, {}, s->bytes, h.first_order, false, false});
  }
  w.segment = std::move(s->fd);
  w.segment_name = name;
  w.segment_id = h.segment_id;
  w.segment_bytes = s->bytes;
  w.segment_offset = journal::kSegmentHeaderBytes;
  w.segment_durable_offset = 0;
  return true;
}

// Null with errno. Made under another name: there is never half a checkpoint.
Fd Journal::Impl::write_checkpoint(JournalWriter& w, const journal::Published& published) {
  const std::string temporary = std::string(journal::kCheckpointName) + ".new";
  Fd fd(::openat(w.directory.get(), temporary.c_str(),
                 O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC, 0640));
  if (!fd) return fd;
  // Where a file system copies on write, a store into the mapping could find it full: SIGBUS.
  int flags = 0;
  if (::ioctl(fd.get(), FS_IOC_GETFLAGS, &flags) == 0) {
    flags |= FS_NOCOW_FL;
    (void)::ioctl(fd.get(), FS_IOC_SETFLAGS, &flags);
  }
  journal::CheckpointPage page;
  journal::init_checkpoint(page, w.id, w.created_ns, raw(w.shard));
  journal::store(page, published);
  if (!write_at(fd.get(), std::as_bytes(std::span(&page, 1)), 0) || ::fdatasync(fd.get()) != 0 ||
      ::renameat(w.directory.get(), temporary.c_str(), w.directory.get(), journal::kCheckpointName) != 0 ||
      ::fsync(w.directory.get()) != 0) {
    const int error = errno;
    ::unlinkat(w.directory.get(), temporary.c_str(), 0);
    errno = error;
    return {};
  }
  return fd;
}

bool Journal::Impl::make_checkpoint(JournalWriter& w, const journal::Published& published) {
  Fd fd = write_checkpoint(w, published);
  void* map =
      !fd ? MAP_FAILED
          : ::mmap(nullptr, sizeof(journal::CheckpointPage), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (map == MAP_FAILED) {
    fail(w, "checkpoint of " + w.path, errno);
    return false;
  }
  w.checkpoint = std::move(fd);
  w.checkpointed_begin.store(raw(published.begin), std::memory_order_relaxed);
  // Pairs with the acquire of the hot thread, which writes the published slots from now on.
  w.page.store(static_cast<journal::CheckpointPage*>(map), std::memory_order_release);
  return true;
}

// ---- reading ahead
// ------------------------------------------------------------------------------------------------

void Journal::Impl::read_loop() {
  std::vector<std::shared_ptr<JournalWriter>> all;
  std::uint64_t seen_version = 0;
  while (!stop.load(std::memory_order_acquire)) {
    const std::uint32_t seen = read_wake.value();
    if (const std::uint64_t v = list_version.load(std::memory_order_acquire); v != seen_version) {
      seen_version = v;
      all = list();
    }
    bool work = false;
    for (const auto& w : all) work = read_ahead(*w) || work;
    if (work) {
      hot.bump();
    } else {
      sleep_on(read_wake, seen, kIdleNs);
    }
  }
}

bool Journal::Impl::read_ahead(JournalWriter& w) {
  const std::uint64_t generation = w.seek_generation.load(std::memory_order_acquire);
  if (generation == 0) {
    w.reader.reset();
    return false;
  }
  const std::uint64_t filled = w.slots_filled.load(std::memory_order_relaxed);
  if (filled - w.slots_taken.load(std::memory_order_acquire) >= JournalWriter::kReadAhead) return false;
  const std::uint64_t durable = w.durable_frame.load(std::memory_order_acquire);
  const RingPosition end{w.end.load(std::memory_order_acquire)};
  const RingPosition begin{w.begin.load(std::memory_order_acquire)};
  if (!w.reader) {
    if (!is_open.load(std::memory_order_acquire)) return false;
    Fd dir(::openat(directory.get(), w.hex.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!dir) return false;  // nothing was written yet
    w.reader = std::make_unique<journal::WriterReader>(std::move(dir), w.path);
    w.reader_generation = 0;
  }
  if (w.reader_generation != generation) {
    w.reader_generation = generation;
    w.reader->seek(RingPosition{w.seek_at.load(std::memory_order_relaxed)});
  }
  JournalWriter::Slot& slot = w.slots[filled % JournalWriter::kReadAhead];
  slot.generation = generation;
  slot.damaged = false;
  const journal::WriterReader::Limits limits{begin, durable, end, durable};
  switch (w.reader->next(limits, false, slot.buffer, slot.frame)) {
    case journal::WriterReader::Status::End: return false;
    case journal::WriterReader::Status::Frame:
      replayed_bytes.fetch_add(slot.frame.payload.size(), std::memory_order_relaxed);
      break;
    case journal::WriterReader::Status::Discarded:
    case journal::WriterReader::Status::Damaged: {
      const auto& d = w.reader->damage();
      slot.damaged = true;
      slot.resume = d.resume;
      if (!w.told_damage.insert(d.first_frame).second) break;  // each new session reads it again
      say(LogLevel::Error,
          fmt::format("{} ({}): {}; the records of {} frames are lost, reading goes on behind them at "
                      "position {}; the file is kept (*.corrupt)",
                      arancini::to_string(ErrorCode::JournalCorrupt), number(ErrorCode::JournalCorrupt),
                      d.text, d.last_frame - d.first_frame + 1, raw(d.resume)));
      const std::lock_guard guard(mutex);
      for (auto& s : w.segments) {
        if (s.name == d.file) s.corrupt = true;
      }
      corrupt_there.store(true, std::memory_order_relaxed);
      break;
    }
  }
  // Pairs with the acquire in JournalStore::next().
  w.slots_filled.store(filled + 1, std::memory_order_release);
  return true;
}

}  // namespace arancini::publishd
