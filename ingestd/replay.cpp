#include "ingestd/replay.h"

#include <fmt/format.h>
#include <stdlib.h>
#include <sysexits.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <utility>

#include "common/metrics/stats_file.h"
#include "common/recording/recording_reader.h"
#include "common/ring/ring_file.h"
#include "common/ring/ring_writer.h"
#include "common/schema/event_decode.h"
#include "ingestd/recorder.h"
#include "ingestd/restore_bytes.h"
#include "ingestd/restore_task.h"
#include "ingestd/shard.h"
#include "ingestd/shard_impl.h"

namespace arancini::ingestd {

namespace {

using recording::Call;
using recording::Entry;

const char* name_of(Entry entry) {
  switch (entry) {
    case Entry::Construct: return "construction";
    case Entry::OpenSession: return "open_session";
    case Entry::Apply: return "apply";
    case Entry::SessionError: return "session_error";
    case Entry::CloseSession: return "close_session";
    case Entry::SetThrottled: return "set_throttled";
    case Entry::TakeSession: return "take_session_to_close";
    case Entry::DoWork: return "do_work";
    case Entry::Publish: return "publish";
    case Entry::Finish: return "finish";
    case Entry::SetRestoring: return "set_restoring";
    case Entry::Time: return "a look at the clock";
    case Entry::Head:
    case Entry::SameHead:
    case Entry::Seen: return "a look at the ring's reader";
    case Entry::DumpAsked: return "a wish for a dump";
    case Entry::RestoreBatch:
    case Entry::RestoreEnd: return "a part of a restore";
    case Entry::Adopted: return "sessions of the process before";
    case Entry::Done:
    case Entry::Published: return "the end of the call";
  }
  return "?";
}

// Gives the shard what it learnt when it was recorded, in that order.
class Teacher final : public Clock, public RingWriter::Witness {
 public:
  void begin(const Call& call) {
    call_ = &call;
    next_ = 0;
  }
  // Empty, or how the call differed.
  std::string end() {
    std::string said = std::exchange(difference_, {});
    if (said.empty() && next_ < call_->learnt.size()) {
      said = fmt::format("{} is missing", name_of(call_->learnt[next_].kind));
    }
    call_ = nullptr;
    return said;
  }

  [[nodiscard]] Times times() const override {
    auto& self = const_cast<Teacher&>(*this);  // the interface of clocks is const
    if (const Call::Learnt* learnt = self.take(Entry::Time); learnt != nullptr) {
      self.times_ = {.boottime_ns = learnt->first, .realtime_ns = learnt->second};
    }
    return times_;
  }
  [[nodiscard]] std::uint64_t boottime_ns() const override { return times_.boottime_ns; }
  [[nodiscard]] std::uint64_t realtime_ns() const override { return times_.realtime_ns; }

  std::uint64_t saw(Field field, std::uint64_t value) noexcept override {
    if (call_ == nullptr) return field == Field::Head ? head_ : value;
    if (field != Field::Head) {
      const Call::Learnt* learnt = take(Entry::Seen);
      if (learnt != nullptr && learnt->first != static_cast<std::uint64_t>(field) && difference_.empty()) {
        difference_ = "it looks at another field of the ring";
      }
      return learnt == nullptr ? value : learnt->second;
    }
    const bool same = next_ < call_->learnt.size() && call_->learnt[next_].kind == Entry::SameHead;
    if (const Call::Learnt* learnt = take(same ? Entry::SameHead : Entry::Head); learnt != nullptr && !same) {
      head_ = learnt->first;
    }
    return head_;
  }

  // What comes next, if it is of the kind.
  const Call::Learnt* take_if(Entry kind) {
    const bool there = call_ != nullptr && next_ < call_->learnt.size() && call_->learnt[next_].kind == kind;
    return there ? &call_->learnt[next_++] : nullptr;
  }
  void fail(std::string how) {
    if (difference_.empty()) difference_ = std::move(how);
  }

 private:
  const Call::Learnt* take(Entry kind) {
    if (call_ == nullptr) return nullptr;
    if (next_ < call_->learnt.size() && call_->learnt[next_].kind == kind) return &call_->learnt[next_++];
    if (difference_.empty()) {
      difference_ =
          fmt::format("{}, where the recording has {}", name_of(kind),
                      name_of(next_ < call_->learnt.size() ? call_->learnt[next_].kind : Entry::Done));
    }
    return nullptr;
  }

  const Call* call_ = nullptr;
  std::size_t next_ = 0;
  std::string difference_;
  Times times_;
  std::uint64_t head_ = 0;
};

// Does what tasks of other threads did when it was recorded, where they did it. Posted before RestoreTask,
// whose batches it fills.
class RecordedTasks final : public HotTask {
 public:
  RecordedTasks(Teacher& teacher, RestoreTask& restore) : teacher_(teacher), restore_(restore) {}

  Progress run(Shard::Impl& shard) noexcept override {
    if (cancelled()) return Progress::Done;
    for (;;) {
      if (const Call::Learnt* asked = teacher_.take_if(Entry::DumpAsked); asked != nullptr) {
        if (asked->first != 0) {
          shard.dump.request_all(nullptr);
        } else if (!shard.dump.request(asked->address, nullptr)) {
          teacher_.fail("a dump of a router that is not there");
        }
      } else if (const Call::Learnt* part = teacher_.take_if(Entry::RestoreBatch); part != nullptr) {
        RestoreBatch* const batch = restore_.free_batch();
        if (batch == nullptr || !read_restore_batch(part->bytes, *batch)) {
          teacher_.fail("a part of a restore that cannot be read");
          return Progress::Wait;
        }
        restore_.give();
      } else if (const Call::Learnt* before = teacher_.take_if(Entry::Adopted); before != nullptr) {
        auto state = decode_restart(before->bytes);
        if (!state) {
          teacher_.fail("sessions of the process before: " + state.error());
          return Progress::Wait;
        }
        adoption_.state = std::move(state).value();
        restore_.set_adoption(&adoption_);
      } else if (const Call::Learnt* end = teacher_.take_if(Entry::RestoreEnd); end != nullptr) {
        if (end->bytes.empty()) {
          teacher_.fail("the end of a restore that cannot be read");
          return Progress::Wait;
        }
        restore_.end(events(std::span(end->bytes).subspan(1)), end->bytes.front() != std::byte{0});
      } else {
        return Progress::Wait;
      }
    }
  }

 private:
  std::vector<schema::EventFields> events(std::span<const std::byte> bytes) {
    std::vector<schema::EventFields> out;
    while (!bytes.empty()) {
      std::uint32_t size = 0;
      if (bytes.size() >= sizeof size) std::memcpy(&size, bytes.data(), sizeof size);
      if (size == 0 || size > bytes.size() - sizeof size) break;
      schema::EventFields event;
      if (schema::decode_event(bytes.subspan(sizeof size, size), event)) break;
      out.push_back(std::move(event));
      bytes = bytes.subspan(sizeof size + size);
    }
    if (!bytes.empty()) teacher_.fail("events of a restore that cannot be read");
    return out;
  }

  Teacher& teacher_;
  RestoreTask& restore_;
  RestartAdoption adoption_;
};

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "arancini-replay-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) {
      throw std::runtime_error(fmt::format("{}: {}", name, std::strerror(errno)));
    }
    path_ = name;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  [[nodiscard]] std::string file(const char* name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

// A ring that stands where the recorded one stood. Throws std::runtime_error.
RingFile ring_at(const std::string& path, const recording::Start& start) {
  auto made = RingFile::create_or_attach(path, {.capacity_bytes = start.ring_bytes,
                                                .shard = start.shard,
                                                .hugepages = HugepageMode::Never,
                                                .created_realtime_ns = 0});
  if (!made) throw std::runtime_error(made.error().text);
  RingFile file = std::move(made).value();
  shm::RingHeader& header = file.header();
  std::copy(start.writer.bytes.begin(), start.writer.bytes.end(), std::begin(header.identity.writer_id));
  header.writer.commit[1].position.store(shm::kNoPosition, std::memory_order_relaxed);
  header.writer.commit[0].position.store(start.tail, std::memory_order_relaxed);
  header.writer.commit[0].next_sequence.store(start.next_sequence, std::memory_order_relaxed);
  header.writer.commit[0].next_event_sequence.store(start.next_event_sequence, std::memory_order_relaxed);
  header.writer.tail.store(start.tail, std::memory_order_relaxed);
  header.reader.head.store(start.head, std::memory_order_relaxed);
  return file;
}

std::string do_call(Shard& shard, const Call& call, RingWriter& ring, ReplayResult& result,
                    RingPosition& published, RestoreTask& restore,
                    const std::function<void(const shm::RecordHeader&, std::span<const std::byte>)>& record) {
  const auto expect = [&](const char* what, std::uint64_t now, std::uint64_t then) {
    return now == then ? std::string() : fmt::format("{} {} instead of {}", what, now, then);
  };
  const SessionId session{call.session};
  switch (call.kind) {
    case Entry::OpenSession:
      return expect("session", static_cast<std::uint32_t>(shard.open_session(call.address, call.port)),
                    call.result);
    case Entry::Apply: {
      const Shard::Applied applied = shard.apply(session, call.bytes);
      ++(applied == Shard::Applied::Done ? result.messages : result.refused);
      return expect("result", static_cast<std::uint32_t>(applied), call.result);
    }
    case Entry::SessionError:
      shard.session_error(session, static_cast<ErrorCode>(call.code),
                          {reinterpret_cast<const char*>(call.bytes.data()), call.bytes.size()});
      return {};
    case Entry::CloseSession: shard.close_session(session); return {};
    case Entry::SetThrottled: shard.set_throttled(session, call.flag); return {};
    case Entry::TakeSession: {
      const auto id = shard.take_session_to_close();
      if (!id) return "no session is to be closed";
      return expect("session", static_cast<std::uint32_t>(*id), call.result);
    }
    case Entry::DoWork: (void)shard.do_work(); return {};
    case Entry::SetRestoring:
      shard.set_restoring(call.flag);
      if (call.flag && !shard.tasks().post(restore)) return "no room for tasks";
      return {};
    case Entry::Publish: {
      shard.publish();
      std::uint64_t bytes = 0;
      std::uint32_t crc = 0;
      const bool good = ring.scan(
          published, [&](const shm::RecordHeader& header, std::span<const std::byte> payload, RingPosition) {
            ++result.records;
            result.updates += header.count;
            if (header.kind == static_cast<std::uint8_t>(shm::RecordKind::Event)) ++result.events;
            bytes += sizeof header + payload.size();
            crc = record_crc(header, payload, crc);
            record(header, payload);
            return true;
          });
      published = ring.tail();
      if (!good) return "the ring's contents are invalid";
      if (std::string said = expect("ring position", raw(ring.tail()), call.tail); !said.empty()) return said;
      if (std::string said = expect("next update", raw(ring.next_sequence()), call.next_sequence);
          !said.empty())
        return said;
      if (std::string said = expect("bytes of records", bytes, call.record_bytes); !said.empty()) return said;
      return crc == call.record_crc ? std::string() : "other bytes in the records";
    }
    case Entry::Finish: shard.finish(); return {};
    case Entry::Construct:
    case Entry::Time:
    case Entry::Head:
    case Entry::SameHead:
    case Entry::Seen:
    case Entry::DumpAsked:
    case Entry::RestoreBatch:
    case Entry::RestoreEnd:
    case Entry::Adopted:
    case Entry::Done:
    case Entry::Published: break;
  }
  return "not a call";
}

}  // namespace

Result<ReplayResult, std::string> replay(
    const std::string& path, Logger& log,
    const std::function<void(const shm::RecordHeader&, std::span<const std::byte>)>& record) try {
  auto opened = recording::Reader::open(path);
  if (!opened) return Err{opened.error()};
  recording::Reader& reader = *opened;
  const recording::Start& start = reader.start();
  const Config config = parse_config(start.config, path + " (its configuration)");
  TemporaryDirectory directory;
  auto stats = StatsWriter::create(directory.file("stats"), {.kind = shm::ProcessKind::Ingestd,
                                                             .shard = start.shard,
                                                             .routers = start.routers,
                                                             .peers = start.peers,
                                                             .now_realtime_ns = 0});
  if (!stats) return Err{stats.error()};
  RingWriter ring(ring_at(directory.file("ring"), start));
  RingPosition published = ring.tail();
  Teacher teacher;
  RestoreTask restore;  // tasks live longer than the shard
  RecordedTasks tasks(teacher, restore);
  ring.set_witness(&teacher);
  ReplayResult result;
  const auto differs = [&](const Call& call, const std::string& how) {
    return Err{fmt::format(
        "{}: call {} ({}), after {} messages and {} records: {}; recorded by version {}, this "
        "is " ARANCINI_VERSION,
        path, result.calls, name_of(call.kind), result.messages, result.records, how, start.version)};
  };

  Call call;
  if (!reader.next(call) || call.kind != Entry::Construct) {
    return Err{fmt::format("{}: no start of a shard in it: {}", path, reader.end_text())};
  }
  teacher.begin(call);
  Shard shard(config, ring, *stats, log, teacher, HashSeed{.a = start.seed_a, .b = start.seed_b});
  if (const std::string said = teacher.end(); !said.empty()) return differs(call, said);
  if (!shard.tasks().post(tasks)) return Err{path + ": no room for tasks"};
  while (reader.next(call)) {
    ++result.calls;
    teacher.begin(call);
    const std::string result_differs = do_call(shard, call, ring, result, published, restore, record);
    const std::string way_differs = teacher.end();
    if (!way_differs.empty()) return differs(call, way_differs);
    if (!result_differs.empty()) return differs(call, result_differs);
  }
  result.complete = reader.complete();
  result.end = reader.end_text();
  return result;
} catch (const std::exception& e) {  // ConfigError and what making files throws
  return Err{std::string(e.what())};
}

int replay_to_file(const std::string& recording, const std::string& out, LogLevel level) {
  std::FILE* file = std::fopen(out.c_str(), "wbe");
  if (file == nullptr) {
    fmt::print(stderr, "ingestd: {}: {}\n", out, std::strerror(errno));
    return EX_CANTCREAT;
  }
  Logger log("replay", level);
  bool written = true;
  const auto result =
      replay(recording, log, [&](const shm::RecordHeader& header, std::span<const std::byte> payload) {
        written = std::fwrite(&header, 1, sizeof header, file) == sizeof header &&
                  std::fwrite(payload.data(), 1, payload.size(), file) == payload.size() && written;
      });
  written = std::fclose(file) == 0 && written;
  if (!result) {
    fmt::print(stderr, "ingestd: {}\n", result.error());
    return EX_DATAERR;
  }
  if (!written) {
    fmt::print(stderr, "ingestd: {}: cannot be written: {}\n", out, std::strerror(errno));
    return EX_IOERR;
  }
  fmt::print(
      "{} calls, {} messages, {} times no room: {} records, {} updates, {} events, the same as recorded; "
      "{}\n",
      result->calls, result->messages, result->refused, result->records, result->updates, result->events,
      result->end);
  return 0;
}

}  // namespace arancini::ingestd
