// Either side is killed (SIGKILL) at any instant; what the survivors and successors see must be exact.
// Children are forked from a process without threads.
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <functional>
#include <random>

#include "common/base/clock.h"
#include "common/ring/futex.h"
#include "tests/common/ring/ring_test_util.h"

namespace arancini::test {
namespace {

// What outlives the children: stands for what a real publisher has in its durable stream.
struct Ledger {
  std::atomic<std::uint64_t> intended;   // writer: next sequence after what it is about to publish
  std::atomic<std::uint64_t> published;  // writer: next sequence after what publish() has returned for
  std::atomic<std::uint64_t> durable;    // reader: last sequence that was processed
  std::atomic<std::uint64_t> released;   // reader: last sequence that release() has returned for
  std::atomic<std::uint64_t> records, writers, readers, redelivered;
  std::atomic<std::uint32_t> stop;
  std::atomic<std::uint32_t> failed;
  char failure[200];

  void fail(const char* what, std::uint64_t a, std::uint64_t b) {
    if (failed.fetch_add(1) == 0)
      std::snprintf(failure, sizeof failure, "%s (%ju, %ju)", what, uintmax_t{a}, uintmax_t{b});
  }
};

struct SharedLedger {
  SharedLedger()
      : ledger(new (::mmap(nullptr, sizeof(Ledger), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                           0)) Ledger{}) {
    ledger->intended = ledger->published = 1;
  }
  ~SharedLedger() { ::munmap(ledger, sizeof(Ledger)); }
  SharedLedger(const SharedLedger&) = delete;
  SharedLedger& operator=(const SharedLedger&) = delete;
  Ledger* ledger;
};

std::uint64_t mix(std::uint64_t v) {
  v ^= v >> 33;
  v *= 0xff51afd7ed558ccdULL;
  v ^= v >> 33;
  return v;
}
// Shape of the record that starts at a sequence: every writer makes the same one. Now and then a large one,
// so that the ring wraps with paddings of every size.
std::uint32_t payload_of(std::uint64_t sequence) {
  const std::uint64_t m = mix(sequence);
  return static_cast<std::uint32_t>(m % 64 == 0 ? (m >> 8) % 30000 : (m >> 8) % 700);
}
std::uint32_t count_of(std::uint64_t sequence) {
  return static_cast<std::uint32_t>(1 + mix(sequence + 7) % 5);
}

void write_until_killed(const std::string& path, Ledger& ledger) {
  auto file = RingFile::create_or_attach(path, small_ring());
  if (!file) {
    ledger.fail(file.error().text.c_str(), 0, 0);
    return;
  }
  RingWriter writer(std::move(file).value());
  const std::uint64_t next = raw(writer.next_sequence());
  if (next < ledger.published)
    ledger.fail("writer lost published records: continues at, published", next, ledger.published);
  if (next > ledger.intended)
    ledger.fail("writer invents records: continues at, intended", next, ledger.intended);
  ledger.published = next;  // the former writer may have died before it could say so
  ledger.writers.fetch_add(1);
  while (ledger.stop == 0) {
    const auto batch = 1 + mix(raw(writer.next_sequence()) + 99) % 8;
    for (std::uint64_t i = 0; i < batch; ++i) {
      const std::uint64_t sequence = raw(writer.next_sequence());
      if (!append(writer, payload_of(sequence), count_of(sequence))) {
        ::sched_yield();
        break;
      }
    }
    ledger.intended = raw(writer.next_sequence());
    writer.publish();
    ledger.published = raw(writer.next_sequence());
  }
}

void read_until_killed(const std::string& path, Ledger& ledger) {
  auto file = RingFile::attach(path, RingSide::Reader);
  if (!file) {
    ledger.fail(file.error().text.c_str(), 0, 0);
    return;
  }
  RingReader reader(std::move(file).value());
  ledger.readers.fetch_add(1);
  bool first = true;
  RingRecord record;
  for (;;) {
    switch (reader.next(record)) {
      case RingReader::Status::Corrupt:
        ledger.fail(reader.corrupt_text(), raw(reader.corrupt_at()), raw(reader.tail()));
        return;
      case RingReader::Status::Empty: {
        // What was read is durable; else the writer could wait for room and the reader for more.
        if (!first) {
          reader.release(reader.cursor());
          ledger.released = ledger.durable.load();
        }
        if (ledger.stop == 2) return;
        reader.arm();
        if (reader.tail() == reader.cursor()) {
          const FutexWait wait{reader.doorbell_word(), reader.doorbell_value()};
          futex_wait_any({&wait, 1}, 20'000'000);
        }
        reader.disarm();
        continue;
      }
      case RingReader::Status::Record: break;
    }
    const std::uint64_t sequence = record.header.first_sequence;
    const std::uint64_t last = sequence + record.header.count - 1;
    if (record.header.count != count_of(sequence) || record.payload.size() != payload_of(sequence) ||
        !payload_intact(record)) {
      ledger.fail("torn record", sequence, record.header.count);
    }
    const std::uint64_t durable = ledger.durable;
    if (first && sequence <= ledger.released)
      ledger.fail("repeated what was released", sequence, ledger.released);
    first = false;
    if (sequence > durable) {
      if (sequence != durable + 1) ledger.fail("lost records: got, after", sequence, durable);
      ledger.durable = last;
      ledger.records.fetch_add(1);
    } else {
      // Its predecessor died between making it durable and releasing it; whole records only.
      if (last > durable) ledger.fail("record was split: last, durable", last, durable);
      ledger.redelivered.fetch_add(1);
    }
    if (mix(sequence + 3) % 4 == 0) {
      reader.release(record.end);
      ledger.released = last;
    }
  }
}

pid_t start(void (*run)(const std::string&, Ledger&), const std::string& path, Ledger& ledger) {
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  run(path, ledger);
  ::_exit(0);
}

void end(pid_t pid, bool kill) {
  if (kill) ::kill(pid, SIGKILL);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
}

TEST(RingKill, NeitherSideLosesTearsOrRepeats) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr int kKills = 300;  // a fork takes tens of milliseconds
#else
  constexpr int kKills = 2400;
#endif
  constexpr std::uint64_t kLongestNs = 120'000'000'000U;  // on a machine that is busy with other things
  const TempDir dir;
  const std::string path = dir.file("ring");
  { RingWriter made(create(path)); }
  SharedLedger shared;
  Ledger& ledger = *shared.ledger;
  std::mt19937_64 random(20240607);
  pid_t writer = start(write_until_killed, path, ledger);
  pid_t reader = start(read_until_killed, path, ledger);
  int kills = 0;
  const std::uint64_t begin = clock_ns(CLOCK_MONOTONIC);
  while (kills < kKills && ledger.failed == 0 && clock_ns(CLOCK_MONOTONIC) - begin < kLongestNs) {
    // The instant of the kill is the input of this test, so it sleeps: mostly long enough to do work,
    // sometimes so short that the child is killed while it attaches.
    const std::uint64_t ns = random() % 5 == 0 ? random() % 300'000 : random() % 16'000'000;
    const timespec pause{0, static_cast<long>(ns)};
    ::nanosleep(&pause, nullptr);
    const std::uint64_t who = random() % 8;
    if (who != 0) {  // 0: both at once
      pid_t& victim = who % 2 == 0 ? writer : reader;
      end(victim, true);
      ++kills;
      victim =
          who % 2 == 0 ? start(write_until_killed, path, ledger) : start(read_until_killed, path, ledger);
    } else {
      ::kill(writer, SIGKILL);
      end(reader, true);
      end(writer, false);
      kills += 2;
      writer = start(write_until_killed, path, ledger);
      reader = start(read_until_killed, path, ledger);
    }
  }
  ledger.stop = 1;
  end(writer, false);
  ledger.stop = 2;
  end(reader, false);
  EXPECT_EQ(ledger.failed, 0U) << ledger.failure;
  EXPECT_EQ(ledger.durable + 1, ledger.published) << "everything published arrived";
  EXPECT_GE(kills, kKills * 5 / 6);
  EXPECT_GT(ledger.records, std::uint64_t{kKills});
  std::printf("%d kills, %ju writers and %ju readers attached, %ju records, %ju redelivered\n", kills,
              uintmax_t{ledger.writers}, uintmax_t{ledger.readers}, uintmax_t{ledger.records},
              uintmax_t{ledger.redelivered});
}

enum class Stepped : std::uint8_t { Killed, Ended, NotPermitted };
// Runs `prepare_and_stop` in a child until it stops itself, from there on instruction by instruction, and
// kills it after `steps`.
Stepped kill_after(std::uint64_t steps, const std::function<void()>& prepare_and_stop) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) ::_exit(77);
    prepare_and_stop();
    ::_exit(0);
  }
  int status = 0;
  const auto wait_for = [&] {
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFSTOPPED(status);
  };
  if (!wait_for()) return WEXITSTATUS(status) == 77 ? Stepped::NotPermitted : Stepped::Ended;
  for (std::uint64_t i = 0; i < steps; ++i) {
    if (::ptrace(PTRACE_SINGLESTEP, pid, nullptr, nullptr) != 0 || !wait_for()) return Stepped::Ended;
    if (WSTOPSIG(status) == SIGSTOP) {  // its second stop
      ::kill(pid, SIGKILL);
      while (wait_for()) {
      }
      return Stepped::Ended;
    }
  }
  ::kill(pid, SIGKILL);
  while (wait_for()) {
  }
  return Stepped::Killed;
}

TEST(RingKill, WriterDiesAtEveryInstructionOfPublish) {
  const TempDir dir;
  const std::string path = dir.file("ring");
  { RingWriter made(create(path)); }
  std::uint64_t before = 0;
  std::uint64_t events_before = 0;
  std::uint64_t moved = 0;
  std::uint64_t instants = 0;
  bool ended = false;
  for (std::uint64_t steps = 0; !ended && steps < 20'000; ++steps) {
    {
      const RingWriter writer(attach(path, RingSide::Writer));
      before = raw(writer.next_sequence());
      events_before = writer.next_event_sequence();
    }
    const Stepped result = kill_after(steps, [&] {
      RingWriter writer(attach(path, RingSide::Writer));
      RingReader reader(attach(path, RingSide::Reader));
      // Symbols are bound by a first call, which would be thousands of instructions.
      futex_wake_all(reader.doorbell_word());
      ::raise(0);
      if (!append_event(writer) || !append(writer, 16)) ::_exit(1);
      writer.publish();  // the other commit slot has its turn, too
      reader.arm();      // the whole of publish() with its doorbell
      if (!append_event(writer) || !append(writer, 24, 3)) ::_exit(1);
      ::raise(SIGSTOP);
      writer.publish();
      ::raise(SIGSTOP);
    });
    if (result == Stepped::NotPermitted) GTEST_SKIP() << "ptrace is not permitted here";
    ended = result == Stepped::Ended;
    const RingWriter writer(attach(path, RingSide::Writer));
    const std::uint64_t after = raw(writer.next_sequence());
    ASSERT_TRUE(after == before + 1 || after == before + 4)
        << "after " << steps << " instructions: " << after;
    const bool committed = after == before + 4;
    ASSERT_EQ(writer.next_event_sequence(), events_before + (committed ? 2 : 1)) << steps;
    ++instants;
    if (committed) ++moved;
    RingReader reader(attach(path, RingSide::Reader));
    RingRecord record;
    for (std::uint64_t i = 0; i < (committed ? 2 : 1); ++i) {
      ASSERT_EQ(reader.next(record), RingReader::Status::Record) << steps;
      ASSERT_EQ(record.header.event_sequence, events_before + i) << steps;
      ASSERT_EQ(reader.next(record), RingReader::Status::Record) << steps;
      ASSERT_EQ(record.header.first_sequence, before + i) << steps;
      ASSERT_TRUE(payload_intact(record)) << steps;
      reader.release(record.end);
    }
    ASSERT_EQ(reader.next(record), RingReader::Status::Empty) << steps;
  }
  EXPECT_TRUE(ended) << "the walk reached the end of publish()";
  EXPECT_GT(moved, 1U);
  std::printf("%ju instants, %ju of them behind the commit\n", uintmax_t{instants}, uintmax_t{moved});
}

TEST(RingKill, ReaderDiesAtEveryInstructionOfReleaseAndFloor) {
  const TempDir dir;
  const std::string path = dir.file("ring");
  { RingWriter made(create(path)); }
  bool ended = false;
  for (std::uint64_t steps = 0; !ended && steps < 20'000; ++steps) {
    {
      RingWriter writer(attach(path, RingSide::Writer));
      RingReader reader(attach(path, RingSide::Reader));
      RingRecord record;
      while (reader.next(record) == RingReader::Status::Record) reader.release(record.end);
      reader.set_floor(100 + steps, 1000 + steps);
      ASSERT_TRUE(append(writer, 24));
      writer.publish();
    }
    const Stepped result = kill_after(steps, [&] {
      RingReader reader(attach(path, RingSide::Reader));
      RingRecord record;
      if (reader.next(record) != RingReader::Status::Record) ::_exit(1);
      ::raise(SIGSTOP);
      reader.release(record.end);
      reader.set_floor(7'000'000 + steps, 8'000'000 + steps);  // of another stream: created anew
      ::raise(SIGSTOP);
    });
    if (result == Stepped::NotPermitted) GTEST_SKIP() << "ptrace is not permitted here";
    ended = result == Stepped::Ended;
    RingReader reader(attach(path, RingSide::Reader));
    const std::uint64_t floor = reader.floor_stream_sequence();
    const std::uint64_t created = reader.floor_stream_created_ns();
    if (floor == 100 + steps) {
      ASSERT_EQ(created, 1000 + steps) << steps;
    } else if (floor == 7'000'000 + steps) {
      ASSERT_EQ(created, 8'000'000 + steps) << steps;
    } else {
      ASSERT_EQ(floor, shm::kNoFloor) << steps;
    }
    RingRecord record;
    const RingReader::Status status = reader.next(record);
    ASSERT_NE(status, RingReader::Status::Corrupt);
    // A floor that has moved says that the record is released.
    if (floor != 100 + steps) {
      ASSERT_EQ(status, RingReader::Status::Empty) << steps;
    }
  }
  EXPECT_TRUE(ended);
}

}  // namespace
}  // namespace arancini::test
