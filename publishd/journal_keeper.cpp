// Opening and recovery, preallocation, retention: each slow task has a thread, so that none delays another.
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>

#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/runtime_dir.h"
#include "publishd/journal_impl.h"
#include "shm-layout/record.h"
#include "shm-layout/ring_header.h"

namespace arancini::publishd {

namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr std::uint64_t kTellNs = 60 * kSecond;  // the same thing again
constexpr std::string_view kSparePrefix = "spare-";
constexpr std::string_view kCorruptSuffix = ".corrupt";

std::vector<std::string> names_in(int directory) {
  std::vector<std::string> out;
  const int fd = ::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return out;
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::fdopendir(fd), ::closedir);
  while (const dirent* entry = ::readdir(dir.get())) out.emplace_back(entry->d_name);
  std::sort(out.begin(), out.end());
  return out;
}

// A file of the journal that nothing reads but people.
bool is_set_aside(std::string_view name) {
  return name.ends_with(kCorruptSuffix);
}

}  // namespace

Journal::Impl::Impl(JournalOptions o, Wake& wake, Logger& l) : options(std::move(o)), hot(wake), log(l) {
  threads.emplace_back([this] { keep_loop(); });
  threads.emplace_back([this] { preallocate_loop(); });
  threads.emplace_back([this] { write_loop(); });
  threads.emplace_back([this] { read_loop(); });
}

Journal::Impl::~Impl() {
  stop.store(true, std::memory_order_release);
  for (Wake* w : {&keep_wake, &space_wake, &write_wake, &read_wake}) w->bump();
  for (std::thread& t : threads) t.join();
  if (spare) ::unlinkat(directory.get(), spare->name.c_str(), 0);
}

std::vector<std::shared_ptr<JournalWriter>> Journal::Impl::list() const {
  std::vector<std::shared_ptr<JournalWriter>> out;
  const std::lock_guard guard(mutex);
  out.reserve(writers.size());
  for (const auto& [id, w] : writers) out.push_back(w);
  return out;
}

void Journal::Impl::say(LogLevel level, const std::string& text) {
  const std::lock_guard guard(log_mutex);
  log.log(level, "{}", text);
}

void Journal::Impl::set_trouble(Trouble& which, ErrorCode code, const std::string& text) {
  if (which.code.exchange(code, std::memory_order_relaxed) == code) return;
  hot.bump();
  const std::uint64_t now = clock_ns(CLOCK_BOOTTIME);
  {
    // What comes and goes (a full disk that is being emptied) is told once a minute.
    const std::lock_guard guard(log_mutex);
    if (code == ErrorCode::None ? !which.told : which.told_code == code && now - which.told_ns < kTellNs)
      return;
    which.told = code != ErrorCode::None;
    if (which.told) {
      which.told_code = code;
      which.told_ns = now;
    }
  }
  if (code != ErrorCode::None) {
    say(LogLevel::Error, text);
  } else {
    say(LogLevel::Info, fmt::format("journal {} works again", options.directory));
  }
}

// ---- opening
// ------------------------------------------------------------------------------------------------------

void Journal::Impl::keep_loop() {
  while (!stop.load(std::memory_order_acquire)) {
    const std::uint32_t seen = keep_wake.value();
    if (!is_open.load(std::memory_order_relaxed) && !open_directory()) {
      sleep_on(keep_wake, seen, options.retry_ns);
      continue;
    }
    const std::uint64_t now = clock_ns(CLOCK_BOOTTIME);
    for (const auto& w : list()) retain(*w, now);
    for (const auto& w : list()) {
      if (!w->has_store.load(std::memory_order_acquire) &&
          w->begin.load(std::memory_order_acquire) == w->end.load(std::memory_order_acquire)) {
        remove(w);
      }
    }
    look_at_corrupt();
    sleep_on(keep_wake, seen, kSecond / 4);
  }
}

// The directory, its lock, and what it holds. False: tried again; nobody may publish before this is known.
bool Journal::Impl::open_directory() {
  const auto failed = [&](const std::string& why) {
    set_trouble(
        open_trouble, ErrorCode::JournalFailed,
        fmt::format("{} ({}): {}; tried again by itself", arancini::to_string(ErrorCode::JournalFailed),
                    number(ErrorCode::JournalFailed), why));
    return false;
  };
  Fd dir;
  try {
    dir = open_own_dir(options.directory, "--state-dir");
  } catch (const ConfigError& e) {
    std::error_code ec;
    const bool nothing_there = std::filesystem::symlink_status(options.directory, ec).type() ==
                               std::filesystem::file_type::not_found;
    failed(std::string("journal directory ") + e.what());
    // Where there is no journal, nothing can be in it.
    if (nothing_there && !is_ready.exchange(true, std::memory_order_acq_rel)) hot.bump();
    return false;
  }
  auto locked = lock_pid_file(dir, options.directory, "lock");
  if (!locked) {
    const LockFileError& e = locked.error();
    return failed(
        e.held ? fmt::format("journal {}: another publishd (pid {}) works with it", options.directory, e.pid)
               : e.text);
  }
  // Before ready() this thread alone touches these; after it, `directory` is not changed any more. Where
  // nothing was there, writers may exist already, without files.
  lock = std::move(locked).value();
  if (const std::string why = read_identity(dir.get()); !why.empty()) {
    lock.reset();
    return failed(why);
  }
  std::uint64_t used = 0;
  std::uint64_t count = 0;
  std::map<WriterId, std::shared_ptr<JournalWriter>> found;
  for (const std::string& name : names_in(dir.get())) {
    if (name.starts_with(kSparePrefix)) ::unlinkat(dir.get(), name.c_str(), 0);
    if (!WriterId::from_hex(name)) continue;
    auto [w, why] = recover(dir.get(), name);
    if (!why.empty()) {
      lock.reset();
      return failed(why);
    }
    for (const auto& s : w->segments) used += s.bytes;
    count += w->segments.size();
    next_order = std::max(next_order, w->write_order + 1);
    found.emplace(w->id, std::move(w));
  }
  used_bytes.store(used, std::memory_order_relaxed);
  files.store(count, std::memory_order_relaxed);
  std::uint64_t unpublished = 0;
  for (const auto& [id, w] : found)
    unpublished += w->end.load(std::memory_order_relaxed) - w->begin.load(std::memory_order_relaxed);
  {
    const std::lock_guard guard(mutex);
    for (auto& [id, w] : found) writers.try_emplace(id, std::move(w));
  }
  directory = std::move(dir);
  list_version.fetch_add(1, std::memory_order_release);
  is_open.store(true, std::memory_order_release);
  set_trouble(open_trouble, ErrorCode::None, "");
  say(LogLevel::Info,
      fmt::format("journal {}: {} writers, {} files of {} bytes, {} bytes of records {}", options.directory,
                  found.size(), count, used, unpublished, options.sink ? "kept" : "to be published"));
  is_ready.store(true, std::memory_order_release);
  for (Wake* w : {&hot, &space_wake, &write_wake, &read_wake}) w->bump();
  return true;
}

// What `identity` in the directory says; made where it is not there. Empty: fine.
std::string Journal::Impl::read_identity(int dir) {
  constexpr const char* kName = "identity";
  constexpr const char* kNew = "identity.new";
  const auto failed = [&](const char* what) {
    return fmt::format("{}/{}: {}: {}", options.directory, kName, what, std::strerror(errno));
  };
  std::array<char, 32> text{};
  Fd file(::openat(dir, kName, O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (file) {
    const ssize_t n = ::pread(file.get(), text.data(), text.size() - 1, 0);
    std::uint64_t value = 0;
    if (n > 0 && std::from_chars(text.data(), text.data() + n, value).ec == std::errc{} && value != 0) {
      identity.store(value, std::memory_order_release);
      return {};
    }
  } else if (errno != ENOENT) {
    return failed("open");
  }
  const std::uint64_t now = clock_ns(CLOCK_REALTIME);
  const std::string line = fmt::format("{}\n", now);
  file = Fd(::openat(dir, kNew, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0640));
  if (!file) return failed("create");
  if (::write(file.get(), line.data(), line.size()) != static_cast<ssize_t>(line.size()))
    return failed("write");
  if (::fsync(file.get()) != 0 || ::renameat(dir, kNew, dir, kName) != 0 || ::fsync(dir) != 0)
    return failed("rename");
  identity.store(now, std::memory_order_release);
  return {};
}

// One writer's directory as the last publishd left it, whatever it died of.
std::pair<std::shared_ptr<JournalWriter>, std::string> Journal::Impl::recover(int dir,
                                                                              const std::string& name) {
  using Reader = journal::WriterReader;
  auto w = std::make_shared<JournalWriter>();
  w->id = *WriterId::from_hex(name);
  w->hex = name;
  w->path = options.directory + "/" + name;
  const auto failed = [&](const std::string& why) {
    return std::pair{w, fmt::format("{}: {}", w->path, why)};
  };
  w->directory = Fd(::openat(dir, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!w->directory) return failed(std::strerror(errno));
  if (const std::string why = open_to_others(w->directory); !why.empty()) return failed(why);
  const auto checkpoint = journal::read_checkpoint(w->directory.get());
  const journal::Durable durable =
      checkpoint && checkpoint->durable ? *checkpoint->durable : journal::Durable{};

  Reader reader(Fd(::openat(w->directory.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)), w->path);
  if (const std::string why = reader.refresh(); !why.empty()) return failed(why);

  // From the last segment backwards to one that has a frame; a later one without any never counted.
  journal::Buffer buffer;
  journal::Frame frame;
  std::uint64_t last_frame = 0;
  std::uint64_t cut_at = 0;
  std::string last_name;
  RingPosition end{};
  while (last_frame == 0) {
    const auto& segments = reader.segments();
    const auto last =
        std::find_if(segments.rbegin(), segments.rend(), [](const auto& s) { return s.header.has_value(); });
    if (last == segments.rend()) break;
    Reader::Segment segment = *last;  // a copy: seek() lists anew
    reader.seek(segment.begin);
    const Reader::Limits limits{segment.begin, durable.frame, durable.end};
    cut_at = journal::kSegmentHeaderBytes;
    for (bool more = true; more;) {
      switch (reader.next(limits, true, buffer, frame)) {
        case Reader::Status::Frame:
          last_frame = frame.header.frame;
          end = frame.end();
          w->write_order = frame.header.order;
          last_name = segment.name;
          cut_at = frame.offset + journal::frame_file_bytes(frame.header.payload_bytes);
          break;
        case Reader::Status::Damaged:
        case Reader::Status::Discarded: break;  // told when it is read
        case Reader::Status::End: more = false; break;
      }
    }
    w->created_ns = segment.header->writer_created_ns;
    w->shard = ShardId{segment.header->shard};
    if (last_frame != 0 || durable.frame >= segment.header->first_frame) break;
    if (::unlinkat(w->directory.get(), segment.name.c_str(), 0) != 0) return failed(std::strerror(errno));
    if (const std::string why = reader.refresh(); !why.empty()) return failed(why);
  }

  const journal::Published published = [&] {
    if (checkpoint && checkpoint->published) return *checkpoint->published;
    // Lost: what the oldest segment knows is older, and true.
    for (const auto& s : reader.segments()) {
      if (s.header)
        return journal::Published{s.begin, s.header->floor_stream_sequence, s.header->floor_created_ns};
    }
    return journal::Published{durable.end, 0, 0};
  }();
  if (checkpoint) {
    w->created_ns = checkpoint->writer_created_ns;
    w->shard = ShardId{checkpoint->shard};
  } else {
    say(LogLevel::Warn,
        fmt::format("{}: no valid checkpoint; records that were published may come again, and "
                    "are skipped where the stream has them",
                    w->path));
  }
  if (durable.frame > last_frame) {
    last_frame = durable.frame;
    w->write_order = std::max(w->write_order, durable.order);
  }
  end = std::max({end, durable.frame > 0 ? durable.end : RingPosition{0}, published.begin});

  w->next_frame = last_frame + 1;
  w->published = published;
  w->append_position = w->write_end = end;
  w->begin.store(raw(published.begin), std::memory_order_relaxed);
  w->end.store(raw(end), std::memory_order_relaxed);
  w->durable_frame.store(last_frame, std::memory_order_relaxed);
  w->durable_order.store(last_frame > 0 ? w->write_order : 0, std::memory_order_relaxed);
  w->first_order = w->write_order;
  const auto& segments = reader.segments();
  for (std::size_t i = 0; i < segments.size(); ++i) {
    JournalWriter::Segment s{segments[i].name, segments[i].begin, {}, segments[i].size_bytes, 0, true, false};
    s.end = i + 1 < segments.size() ? segments[i + 1].begin : end;
    s.corrupt = !segments[i].header.has_value();
    if (segments[i].header) s.first_order = segments[i].header->first_order;
    if (s.name == last_name && s.bytes > cut_at) {
      // What lies behind was never acknowledged; and no bytes of then may meet frames of now.
      const Fd file(::openat(w->directory.get(), s.name.c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
      if (!file || ::ftruncate(file.get(), static_cast<off_t>(cut_at)) != 0 || ::fdatasync(file.get()) != 0)
        return failed(fmt::format("{}: {}", s.name, std::strerror(errno)));
      s.bytes = cut_at;
    }
    w->segments.push_back(std::move(s));
  }
  if (published.begin < end) {
    reader.seek(published.begin);
    if (reader.next({published.begin, 0, {}}, false, buffer, frame) == Reader::Status::Frame) {
      w->first_order = frame.header.order;
      // Padding of the ring is shorter than a record; restart() names the position where records begin.
      if (raw(frame.begin()) > raw(published.begin) + shm::kRecordMaxBytes) {
        say(LogLevel::Error,
            fmt::format("{} ({}): {}: the records between positions {} and {} are not there",
                        arancini::to_string(ErrorCode::JournalCorrupt), number(ErrorCode::JournalCorrupt),
                        w->path, raw(published.begin), raw(frame.begin())));
      }
    }
  }
  if (!map_checkpoint(*w, !checkpoint || !checkpoint->published, published,
                      {last_frame, end, w->write_order}))
    return failed(fmt::format("checkpoint: {}", std::strerror(errno)));
  return {w, {}};
}

// Maps the checkpoint, made anew where there was no valid one; what was found counts as durable from now on.
bool Journal::Impl::map_checkpoint(JournalWriter& w, bool anew, const journal::Published& published,
                                   const journal::Durable& durable) {
  if (anew && !write_checkpoint(w, published)) return false;
  Fd fd(::openat(w.directory.get(), journal::kCheckpointName, O_RDWR | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC));
  if (!fd) return false;
  void* map =
      ::mmap(nullptr, sizeof(journal::CheckpointPage), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (map == MAP_FAILED) return false;
  auto* page = static_cast<journal::CheckpointPage*>(map);
  journal::store(*page, durable);
  w.checkpoint = std::move(fd);
  w.checkpointed_begin.store(raw(published.begin), std::memory_order_relaxed);
  w.page.store(page, std::memory_order_release);
  return true;
}

// ---- room
// ---------------------------------------------------------------------------------------------------------

// Where max_bytes must do for many rings, segments are smaller: no ring shall wait because the others each
// hold a large segment with little in it.
std::uint64_t Journal::Impl::segment_size() {
  const std::lock_guard guard(mutex);
  std::uint64_t bytes = options.segment_bytes;
  if (options.max_bytes != 0) {
    const std::uint64_t share = options.max_bytes / (4 * std::max<std::uint64_t>(writers.size(), 1));
    const std::uint64_t least =
        journal::kSegmentHeaderBytes + 2 * journal::frame_file_bytes(options.frame_bytes);
    bytes = std::min(bytes, std::max(share, least));
  }
  bytes = std::max(bytes, spare_wanted_bytes);
  return (bytes + 4095) / 4096 * 4096;
}

void Journal::Impl::preallocate_loop() {
  std::uint64_t wait = options.retry_ns;
  while (!stop.load(std::memory_order_acquire)) {
    const std::uint32_t seen = space_wake.value();
    if (is_open.load(std::memory_order_acquire) && !preallocate()) {
      sleep_on(space_wake, seen, wait);
      wait = std::min(2 * wait, 5 * kSecond);
      continue;
    }
    wait = options.retry_ns;
    sleep_on(space_wake, seen, kSecond / 2);
  }
}

// False: there is no room now.
bool Journal::Impl::preallocate() {
  const std::uint64_t bytes = segment_size();
  {
    const std::lock_guard guard(mutex);
    if (spare && spare->bytes >= spare_wanted_bytes) return true;
    if (spare) {
      ::unlinkat(directory.get(), spare->name.c_str(), 0);
      used_bytes.fetch_sub(spare->bytes, std::memory_order_relaxed);
      files.fetch_sub(1, std::memory_order_relaxed);
      spare.reset();
    }
  }
  const auto failed = [&](ErrorCode code, const std::string& what) {
    set_trouble(
        space_trouble, code,
        fmt::format("{} ({}): {}: {}; nothing is lost, the rings keep what comes and the routers wait "
                    "when they are full; tried again by itself",
                    arancini::to_string(code), number(code), options.directory, what));
    write_wake.bump();
    return false;
  };
  while (options.max_bytes != 0 && used_bytes.load(std::memory_order_relaxed) + bytes > options.max_bytes) {
    if (options.discard_old && discard_oldest()) continue;
    bool needed = false;
    for (const auto& w : list()) needed = needed || w->starved.load(std::memory_order_relaxed);
    // Nobody waits for it yet.
    if (!needed) return false;
    return failed(
        ErrorCode::JournalFull,
        fmt::format("{} bytes in files, journal.max_bytes is {}: the next segment of {} bytes does not fit; "
                    "raise journal.max_bytes, or let the broker take what is there",
                    used_bytes.load(), options.max_bytes, bytes));
  }
  Spare s;
  s.name = fmt::format("{}{}", kSparePrefix, ++spare_number);
  s.bytes = bytes;
  for (;;) {
    s.fd = Fd(::openat(directory.get(), s.name.c_str(),
                       O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC, 0640));
    // posix_fallocate() also where the file system cannot: then it writes.
    int error = !s.fd ? errno : ::posix_fallocate(s.fd.get(), 0, static_cast<off_t>(bytes));
    if (error == 0) break;
    ::unlinkat(directory.get(), s.name.c_str(), 0);
    if (error == EINTR) continue;
    const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;
    if (full && options.discard_old && discard_oldest()) continue;
    return failed(full ? ErrorCode::JournalFull : ErrorCode::JournalFailed,
                  fmt::format("{} for a segment of {} bytes: {}", std::strerror(error), bytes,
                              full ? "make room on that file system or set a smaller journal.segment_bytes"
                                   : "look at the disk (dmesg)"));
  }
  used_bytes.fetch_add(bytes, std::memory_order_relaxed);
  files.fetch_add(1, std::memory_order_relaxed);
  {
    const std::lock_guard guard(mutex);
    spare = std::move(s);
  }
  set_trouble(space_trouble, ErrorCode::None, "");
  write_wake.bump();
  return true;
}

// The sink's retention: the oldest segment of all rings goes, its writer begins behind it.
bool Journal::Impl::discard_oldest() {
  std::shared_ptr<JournalWriter> of;
  JournalWriter::Segment gone;
  {
    const std::lock_guard guard(mutex);
    for (const auto& [id, w] : writers) {
      if (w->segments.empty() || !w->segments.front().sealed) continue;
      if (!of || w->segments.front().first_order < gone.first_order) {
        of = w;
        gone = w->segments.front();
      }
    }
    if (!of) return false;
    journal::CheckpointPage* page = of->page.load(std::memory_order_acquire);
    if (page == nullptr) return false;
    const RingPosition begin = of->segments.size() > 1 ? of->segments[1].begin : gone.end;
    journal::store(*page, journal::Published{begin, of->published.floor_stream_sequence,
                                             of->published.floor_created_ns});
    of->begin.store(raw(begin), std::memory_order_release);
    of->checkpointed_begin.store(raw(begin), std::memory_order_release);
  }
  remove_published(*of);
  ++discarded;
  const std::uint64_t now = clock_ns(CLOCK_BOOTTIME);
  if (discard_told_ns == 0 || now - discard_told_ns >= kTellNs) {
    discard_told_ns = now;
    say(LogLevel::Warn, fmt::format("journal {}: the oldest segment was discarded to make room ({} since the "
                                    "start): journal.when_full = \"discard-old\"",
                                    options.directory, discarded));
  }
  return true;
}

// ---- retention
// ----------------------------------------------------------------------------------------------------

void Journal::Impl::retain(JournalWriter& w, std::uint64_t now) {
  remove_published(w);
  const bool written =
      w.written.load(std::memory_order_acquire) == w.committed.load(std::memory_order_acquire);
  const bool empty =
      written && w.begin.load(std::memory_order_acquire) == w.end.load(std::memory_order_acquire);
  const bool has_store = w.has_store.load(std::memory_order_acquire);
  // Of the sink only what a ring that is gone has left: its segments leave one by one when room is needed.
  if (options.sink ? has_store || !written : !empty) {
    w.empty_since_ns = 0;
    return;
  }
  if (w.empty_since_ns == 0) w.empty_since_ns = now;
  const bool due = now - w.empty_since_ns >= options.drop_empty_ns || !has_store;
  bool present = false;
  {
    const std::lock_guard guard(mutex);
    present = !w.segments.empty() && !w.segments.back().sealed;
  }
  if (due && present && !w.drop_segment.exchange(true, std::memory_order_acq_rel)) write_wake.bump();
}

// Segments wholly below begin(), once the checkpoint that says so is durable.
void Journal::Impl::remove_published(JournalWriter& w) {
  const std::lock_guard one_at_a_time(remove_mutex);
  const RingPosition begin{w.checkpointed_begin.load(std::memory_order_acquire)};
  std::vector<JournalWriter::Segment> gone;
  {
    const std::lock_guard guard(mutex);
    for (const auto& s : w.segments) {
      if (!s.sealed || s.end > begin) break;
      gone.push_back(s);
    }
  }
  if (gone.empty() || w.page.load(std::memory_order_acquire) == nullptr) return;
  if (::fdatasync(w.checkpoint.get()) != 0) return;  // tried again
  for (const auto& s : gone) {
    const bool kept = s.corrupt;
    const int r = kept ? ::renameat(w.directory.get(), s.name.c_str(), directory.get(),
                                    (w.hex + "-" + s.name + std::string(kCorruptSuffix)).c_str())
                       : ::unlinkat(w.directory.get(), s.name.c_str(), 0);
    if (r != 0 && errno != ENOENT) return;
    const std::lock_guard guard(mutex);
    w.segments.erase(w.segments.begin());
    used_bytes.fetch_sub(s.bytes, std::memory_order_relaxed);
    files.fetch_sub(1, std::memory_order_relaxed);
  }
  space_wake.bump();
}

// A writer without a store and without records: its directory goes.
void Journal::Impl::remove(const std::shared_ptr<JournalWriter>& w) {
  {
    const std::lock_guard guard(mutex);
    const bool busy =
        w->has_store.load(std::memory_order_acquire) || !w->segments.empty() ||
        w->committed.load(std::memory_order_acquire) != w->written.load(std::memory_order_acquire) ||
        w->begin.load(std::memory_order_acquire) != w->end.load(std::memory_order_acquire);
    if (busy) return;
    writers.erase(w->id);
    leaving.insert(w->id);
    list_version.fetch_add(1, std::memory_order_release);
  }
  const Fd dir(::openat(directory.get(), w->hex.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (dir) {
    for (const char* name : {journal::kCheckpointName, "checkpoint.new"}) ::unlinkat(dir.get(), name, 0);
    ::unlinkat(directory.get(), w->hex.c_str(), AT_REMOVEDIR);
  }
  const std::lock_guard guard(mutex);
  leaving.erase(w->id);
}

// Trouble for as long as the operator has not taken away what was set aside.
void Journal::Impl::look_at_corrupt() {
  bool there = false;
  for (const std::string& name : names_in(directory.get())) there = there || is_set_aside(name);
  {
    const std::lock_guard guard(mutex);
    for (const auto& [id, w] : writers)
      for (const auto& s : w->segments) there = there || s.corrupt;
  }
  corrupt_there.store(there, std::memory_order_relaxed);
}

}  // namespace arancini::publishd
