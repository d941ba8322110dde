#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <random>
#include <vector>

#include "common/base/clock.h"
#include "common/ring/futex.h"
#include "tests/common/ring/ring_test_util.h"

namespace arancini::test {
namespace {

constexpr std::uint32_t kHeader = sizeof(shm::RecordHeader);

struct Pair {
  explicit Pair(std::uint64_t capacity = shm::kRingMinCapacityBytes)
      : writer(create(dir.file("ring"), small_ring(capacity))),
        reader(attach(dir.file("ring"), RingSide::Reader)) {}
  TempDir dir;
  RingWriter writer;
  RingReader reader;
};

// Brings tail and head to `offset` (a multiple of 8) of the buffer, with records that are consumed.
void advance_to(Pair& p, std::uint64_t offset) {
  RingRecord record;
  const std::uint64_t capacity = p.writer.capacity_bytes();
  for (;;) {
    const std::uint64_t now = raw(p.writer.tail()) % capacity;
    if (now == offset) return;
    std::uint64_t left = (offset + capacity - now) % capacity;
    // Never a rest that is too small for a record, never a record that crosses the end.
    if (now + left > capacity) left = capacity - now;
    if (left < kHeader) left = 2 * kHeader;
    std::uint64_t size = std::min<std::uint64_t>(left, 16 * 1024);
    if (left != size && left - size < kHeader) size -= kHeader;
    ASSERT_TRUE(append(p.writer, static_cast<std::uint32_t>(size - kHeader)));
    p.writer.publish();
    ASSERT_EQ(p.reader.next(record), RingReader::Status::Record);
    p.reader.release(record.end);
  }
}

TEST(Ring, WrapsWithPaddingAtEveryOffset) {
  Pair p;
  const std::uint64_t capacity = p.writer.capacity_bytes();
  RingRecord record;
  for (std::uint64_t left = 8; left <= 512; left += 8) {
    advance_to(p, capacity - left);
    if (HasFatalFailure()) return;
    const std::uint64_t begin = raw(p.writer.tail());
    // 256 bytes: fits exactly, fits with a rest, or needs a padding of 8 to 248 bytes.
    ASSERT_TRUE(append(p.writer, 256 - kHeader));
    ASSERT_TRUE(append(p.writer, 256 - kHeader));
    p.writer.publish();
    for (int i = 0; i < 2; ++i) {
      ASSERT_EQ(p.reader.next(record), RingReader::Status::Record) << left << ": " << p.reader.corrupt_text();
      EXPECT_TRUE(payload_intact(record));
      EXPECT_EQ(record.payload.size(), 256 - kHeader);
      EXPECT_LE(raw(record.begin) % capacity + 256, capacity);
    }
    const bool pads = left < 256 || (left > 256 && left < 512);
    EXPECT_EQ(raw(p.writer.tail()) - begin, 512 + (pads ? left % 256 : 0)) << left;
    EXPECT_EQ(p.reader.next(record), RingReader::Status::Empty);
    p.reader.release(p.reader.cursor());
    EXPECT_EQ(p.writer.used_bytes(), 0U);
  }
}

TEST(RingWriter, AnEmptyRingTakesTheLargestRecordAtEveryOffset) {
  Pair p;
  EXPECT_EQ(p.writer.max_record_bytes(), p.writer.capacity_bytes() / 2);
  EXPECT_FALSE(p.writer.has_room(p.writer.max_record_bytes() + 1));
  EXPECT_TRUE(p.writer.claim(p.writer.max_record_bytes() + 8).empty());
  RingRecord record;
  for (std::uint64_t offset = 0; offset < p.writer.capacity_bytes(); offset += 1024 + 8) {
    advance_to(p, offset);
    if (HasFatalFailure()) return;
    ASSERT_TRUE(p.writer.has_room(p.writer.max_record_bytes())) << offset;
    ASSERT_TRUE(append(p.writer, p.writer.max_record_bytes() - kHeader)) << offset;
    p.writer.publish();
    ASSERT_EQ(p.reader.next(record), RingReader::Status::Record);
    EXPECT_TRUE(payload_intact(record));
    p.reader.release(record.end);
  }
}

TEST(RingWriter, FullRingRefusesUntilTheReaderReleases) {
  Pair p;
  RingRecord record;
  std::uint64_t written = 0;
  while (append(p.writer, 1024 - kHeader)) ++written;
  EXPECT_EQ(written, 64U) << "to the last byte";
  EXPECT_EQ(p.writer.used_bytes(), p.writer.capacity_bytes());
  EXPECT_FALSE(p.writer.has_room(8));
  p.writer.publish();
  ASSERT_EQ(p.reader.next(record), RingReader::Status::Record);
  EXPECT_FALSE(p.writer.has_room(kHeader)) << "read is not released";
  p.reader.release(record.end);
  EXPECT_TRUE(p.writer.has_room(1024));
  EXPECT_FALSE(p.writer.has_room(1032));
  EXPECT_TRUE(append(p.writer, 1024 - kHeader));
  EXPECT_FALSE(append(p.writer, 0));
  p.writer.publish();
  for (std::uint64_t i = 0; i < 64; ++i) {
    ASSERT_EQ(p.reader.next(record), RingReader::Status::Record);
    EXPECT_EQ(record.header.first_sequence, i + 2);
    EXPECT_TRUE(payload_intact(record));
  }
  EXPECT_EQ(p.reader.next(record), RingReader::Status::Empty);
}

TEST(RingWriter, AbandonedAndShortenedClaimsLeaveNoGap) {
  Pair p;
  ASSERT_FALSE(p.writer.claim(4096).empty());
  p.writer.abandon();
  p.writer.publish();
  RingRecord record;
  EXPECT_EQ(p.reader.next(record), RingReader::Status::Empty);
  ASSERT_FALSE(p.writer.claim(4096).empty());
  shm::RecordHeader h{};
  h.size_bytes = kHeader;
  h.kind = static_cast<std::uint8_t>(shm::RecordKind::Barrier);
  h.first_sequence = raw(p.writer.next_sequence());
  p.writer.append(h);
  p.writer.publish();
  ASSERT_EQ(p.reader.next(record), RingReader::Status::Record);
  EXPECT_EQ(record.header.kind, static_cast<std::uint8_t>(shm::RecordKind::Barrier));
  EXPECT_EQ(raw(record.end), kHeader);
  EXPECT_EQ(raw(p.writer.next_sequence()), 1U) << "a barrier uses no sequence";
}

TEST(RingWriter, PaddingOfAnAbandonedClaimIsSkipped) {
  Pair p;
  RingRecord record;
  advance_to(p, p.writer.capacity_bytes() - 128);
  ASSERT_FALSE(p.writer.claim(256).empty());
  p.writer.abandon();
  p.writer.publish();
  EXPECT_EQ(p.reader.next(record), RingReader::Status::Empty);
  p.reader.release(p.reader.cursor());
  EXPECT_EQ(p.writer.used_bytes(), 0U) << "the reader's cursor is behind the padding";
  ASSERT_TRUE(append(p.writer, 10));
  p.writer.publish();
  ASSERT_EQ(p.reader.next(record), RingReader::Status::Record);
  EXPECT_EQ(raw(record.begin) % p.writer.capacity_bytes(), 0U);
}

TEST(RingWriter, DoesNotBelieveAnImpossibleHead) {
  Pair p;
  while (append(p.writer, 1024 - kHeader)) {
  }
  p.writer.publish();
  shm::RingHeader& header = p.reader.file().header();
  for (const std::uint64_t head :
       {p.writer.capacity_bytes() + 8, ~std::uint64_t{0}, std::uint64_t{1} << 63}) {
    header.reader.head.store(head);
    EXPECT_FALSE(p.writer.has_room(kHeader)) << head;
    EXPECT_LE(p.writer.used_bytes(), p.writer.capacity_bytes());
  }
  header.reader.head.store(1024);
  EXPECT_TRUE(p.writer.has_room(kHeader));
  header.reader.head.store(0);
  ASSERT_TRUE(append(p.writer, 1024 - kHeader)) << "what was released once is ours";
}

TEST(RingReader, KeepsItsFloorAcrossReattach) {
  const TempDir dir;
  const RingWriter writer(create(dir.file("ring")));
  {
    RingReader reader(attach(dir.file("ring"), RingSide::Reader));
    EXPECT_EQ(reader.floor_stream_sequence(), shm::kNoFloor);
    reader.set_floor(17, 99);
  }
  const RingReader reader(attach(dir.file("ring"), RingSide::Reader));
  EXPECT_EQ(reader.floor_stream_sequence(), 17U);
  EXPECT_EQ(reader.floor_stream_created_ns(), 99U);
}

TEST(RingDeathTest, BrokenInvariantsAbort) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  Pair p;
  ASSERT_FALSE(p.writer.claim(128).empty());
  shm::RecordHeader good{};
  good.size_bytes = 128;
  good.kind = static_cast<std::uint8_t>(shm::RecordKind::UpdateBatch);
  good.first_sequence = 1;
  good.count = 1;
  good.payload_bytes = 60;
  const auto with = [&](auto change) {
    shm::RecordHeader h = good;
    change(h);
    p.writer.append(h);
  };
  EXPECT_DEATH(with([](auto& h) { h.size_bytes = 136; }), "larger than its claim");
  EXPECT_DEATH(with([](auto& h) { h.size_bytes = 100; }), "inconsistent sizes");
  EXPECT_DEATH(with([](auto& h) { h.payload_bytes = 65; }), "inconsistent sizes");
  EXPECT_DEATH(with([](auto& h) { h.first_sequence = 2; }), "sequence");
  EXPECT_DEATH(with([](auto& h) { h.kind = 0; }), "unknown kind");
  EXPECT_DEATH(with([](auto& h) { h.count = 0; }), "without updates");
  EXPECT_DEATH(with([](auto& h) { h.template_bytes = 61; }), "template");
  const auto event = [](auto& h) {
    h.kind = static_cast<std::uint8_t>(shm::RecordKind::Event);
    h.count = 0;
    h.event_sequence = 1;
  };
  EXPECT_DEATH(with([&](auto& h) { event(h), h.count = 1; }), "event with updates");
  EXPECT_DEATH(with([&](auto& h) { event(h), h.event_sequence = 2; }), "event does not continue");
  EXPECT_DEATH(static_cast<void>(p.writer.claim(64)), "another claim");
  EXPECT_DEATH(p.reader.release(RingPosition{8}), "beyond the cursor");
}

TEST(Ring, EventsHaveASequenceOfTheirOwnThatSurvivesTheWriter) {
  const TempDir dir;
  RingRecord record;
  {
    RingWriter writer(create(dir.file("ring")));
    EXPECT_EQ(writer.next_event_sequence(), 1U);
    ASSERT_TRUE(append_event(writer));
    ASSERT_TRUE(append(writer, 10, 3));
    ASSERT_TRUE(append_event(writer));
    writer.publish();
    // Not published: never happened.
    ASSERT_TRUE(append_event(writer));
  }
  RingWriter writer(attach(dir.file("ring"), RingSide::Writer));
  EXPECT_EQ(writer.next_event_sequence(), 3U);
  EXPECT_EQ(raw(writer.next_sequence()), 4U) << "an event uses no sequence of updates";
  ASSERT_TRUE(append_event(writer));
  ASSERT_TRUE(append(writer, 10));
  writer.publish();
  RingReader reader(attach(dir.file("ring"), RingSide::Reader));
  for (int pass = 0; pass < 2; ++pass) {
    const std::array<std::pair<std::uint64_t, std::uint64_t>, 5> expected{
        {{1, 1}, {1, 0}, {4, 2}, {4, 3}, {4, 0}}};
    for (const auto& [sequence, event] : expected) {
      ASSERT_EQ(reader.next(record), RingReader::Status::Record);
      EXPECT_EQ(record.header.first_sequence, sequence);
      EXPECT_EQ(record.header.event_sequence, event);
      EXPECT_TRUE(payload_intact(record));
    }
    EXPECT_EQ(reader.next(record), RingReader::Status::Empty);
    reader.rewind();
  }
}

// Reads until the ring is empty or corrupt; every view that is handed out must lie in the buffer.
RingReader::Status drain(RingReader& reader) {
  RingRecord record;
  const std::byte* begin = reader.file().data();
  const std::byte* end = begin + reader.capacity_bytes();
  for (int i = 0; i < 100'000; ++i) {
    const RingReader::Status status = reader.next(record);
    if (status != RingReader::Status::Record) return status;
    if (record.payload.data() < begin || record.payload.data() + record.payload.size() > end) {
      ADD_FAILURE() << "payload outside of the buffer";
    }
    std::uint8_t sum = 0;
    for (const std::byte b : record.payload)
      sum = static_cast<std::uint8_t>(sum + static_cast<std::uint8_t>(b));
    static_cast<void>(sum);
    if (record.begin >= record.end) ADD_FAILURE() << "no progress";
  }
  ADD_FAILURE() << "does not end";
  return RingReader::Status::Corrupt;
}

TEST(RingReader, CorruptionIsFoundAndLocated) {
  using Damage = void (*)(shm::RecordHeader&);
  const std::vector<std::pair<Damage, const char*>> cases{
      {[](shm::RecordHeader& h) { h.kind = 9; }, "unknown kind"},
      {[](shm::RecordHeader& h) { h.kind = 0; }, "padding"},
      {[](shm::RecordHeader& h) { h.size_bytes = 0; }, "impossible size"},
      {[](shm::RecordHeader& h) { h.size_bytes = 56; }, "impossible size"},
      {[](shm::RecordHeader& h) { h.size_bytes += 4; }, "impossible size"},
      {[](shm::RecordHeader& h) { h.size_bytes = 0xfffffff8U; }, "impossible size"},
      {[](shm::RecordHeader& h) { h.size_bytes = 4096; }, "impossible size"},
      {[](shm::RecordHeader& h) { h.payload_bytes = h.size_bytes; }, "payload"},
      {[](shm::RecordHeader& h) { h.payload_bytes = 0xffffffffU; }, "payload"},
      {[](shm::RecordHeader& h) { h.template_offset_bytes = 0xffffffffU; }, "template"},
      {[](shm::RecordHeader& h) { h.template_offset_bytes = 1, h.template_bytes = 0xffffffffU; }, "template"},
      {[](shm::RecordHeader& h) { h.first_sequence = 1; }, "sequence"},
      {[](shm::RecordHeader& h) { h.first_sequence = ~std::uint64_t{0}; }, "sequence"},
      {[](shm::RecordHeader& h) { h.count = 0; }, "without updates"},
  };
  for (const auto& [damage, text] : cases) {
    Pair p;
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(append(p.writer, 100));
    p.writer.publish();
    const std::uint64_t second = 168;
    std::byte* at = p.reader.file().data() + second;
    shm::RecordHeader h;
    std::memcpy(&h, at, sizeof h);
    damage(h);
    std::memcpy(at, &h, sizeof h);
    EXPECT_EQ(drain(p.reader), RingReader::Status::Corrupt) << text;
    EXPECT_EQ(raw(p.reader.corrupt_at()), second) << text;
    EXPECT_NE(std::string(p.reader.corrupt_text()).find(text), std::string::npos) << p.reader.corrupt_text();
    RingRecord record;
    EXPECT_EQ(p.reader.next(record), RingReader::Status::Corrupt) << "final";
  }
}

TEST(RingReader, ImpossibleTailsAreCorrupt) {
  for (const std::uint64_t tail :
       {std::uint64_t{4}, std::uint64_t{168}, ~std::uint64_t{0}, (std::uint64_t{1} << 16) + 344}) {
    Pair p;
    ASSERT_TRUE(append(p.writer, 100));
    ASSERT_TRUE(append(p.writer, 100));
    p.writer.publish();
    RingRecord record;
    ASSERT_EQ(p.reader.next(record), RingReader::Status::Record);
    ASSERT_EQ(p.reader.next(record), RingReader::Status::Record);
    p.reader.release(record.end);
    p.reader.file().header().writer.tail.store(tail);
    EXPECT_EQ(p.reader.next(record), RingReader::Status::Corrupt) << tail;
  }
}

TEST(RingReader, EventsThatDoNotFollowEachOtherAreCorrupt) {
  for (const std::uint64_t sequence : {0, 1, 3}) {
    Pair p;
    for (int i = 0; i < 2; ++i) ASSERT_TRUE(append_event(p.writer));
    p.writer.publish();
    std::byte* at = p.reader.file().data() + sizeof(shm::RecordHeader) + 8;
    shm::RecordHeader h;
    std::memcpy(&h, at, sizeof h);
    h.event_sequence = sequence;
    std::memcpy(at, &h, sizeof h);
    EXPECT_EQ(drain(p.reader), RingReader::Status::Corrupt) << sequence;
  }
  Pair p;
  ASSERT_TRUE(append_event(p.writer));
  p.writer.publish();
  shm::RecordHeader h;
  std::memcpy(&h, p.reader.file().data(), sizeof h);
  h.count = 1;
  std::memcpy(p.reader.file().data(), &h, sizeof h);
  EXPECT_EQ(drain(p.reader), RingReader::Status::Corrupt) << "uses a sequence";
}

// Random damage to data and header: Corrupt or clean, never a crash, a hang or a view beyond the buffer. The
// reader attaches to what is left, so create, attach and both constructors see it too.
TEST(RingReader, SurvivesRandomDamage) {
  std::mt19937_64 random(7);
  const TempDir dir;
  const std::string path = dir.file("ring");
  std::array<int, 4> outcomes{};
  for (int round = 0; round < 3000; ++round) {
    std::error_code ec;
    for (const auto& entry : std::filesystem::directory_iterator(dir.path()))
      std::filesystem::remove(entry, ec);
    {
      RingWriter writer(create(path));
      RingReader reader(attach(path, RingSide::Reader));
      // Half of the rings are used beyond their first wrap.
      for (std::uint64_t i = random() % 2 == 0 ? 0 : 400; i > 0; --i) {
        ASSERT_TRUE(append(writer, static_cast<std::uint32_t>(random() % 400)));
        writer.publish();
        RingRecord record;
        ASSERT_EQ(reader.next(record), RingReader::Status::Record);
        reader.release(record.end);
      }
      for (std::uint64_t i = random() % 60; i > 0; --i) {
        ASSERT_TRUE(append(writer, static_cast<std::uint32_t>(random() % 400)));
      }
      writer.publish();
      std::byte* file = reader.file().data() - shm::kRingDataOffsetBytes;
      const std::uint64_t region = random() % 3;
      for (std::uint64_t i = 1 + random() % 8; i > 0; --i) {
        const std::uint64_t at = region == 0 ? random() % sizeof(shm::RingHeader)
                                 : region == 1
                                     ? shm::kRingDataOffsetBytes + random() % shm::kRingMinCapacityBytes
                                     : shm::kRingDataOffsetBytes + random() % 4096;
        file[at] = random() % 4 == 0 ? std::byte{0xff} : static_cast<std::byte>(random());
      }
      ++outcomes[drain(reader) == RingReader::Status::Corrupt ? 0 : 1];
    }
    auto file = RingFile::attach(path, RingSide::Reader);
    if (!file) {
      ++outcomes[2];
    } else {
      RingReader reader(std::move(file).value());
      drain(reader);
      reader.release(reader.cursor());
      reader.rewind();
      drain(reader);
    }
    RingFile::lock_holder(path, RingSide::Reader);
    auto again = RingFile::create_or_attach(path, small_ring());
    if (!again) {  // another shard's, now
      ++outcomes[3];
      continue;
    }
    RingWriter writer(std::move(again).value());
    for (int i = 0; i < 100 && append(writer, 300); ++i) writer.publish();
  }
  EXPECT_GT(outcomes[0], 100);
  EXPECT_GT(outcomes[1], 100);
  EXPECT_GT(outcomes[2], 100);
}

// A random while below a microsecond, so that the two sides meet in every possible order.
void spin(std::uint64_t& random) {
  random = random * 6364136223846793005ULL + 1442695040888963407ULL;
  for (std::uint64_t n = (random >> 40) % 1000; n > 0; --n) asm volatile("" ::: "memory");
}

// On a core of its own where there are two: only then do the sides really meet.
void run_on(std::size_t which) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) < 2) return;
  for (std::size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed) || which-- != 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    ::sched_setaffinity(0, sizeof one, &one);
    return;
  }
}

// Two processes, one record at a time: the writer publishes only when the reader has released the one before,
// so the reader goes to sleep or is about to at every record. A lost wake-up would let a wait last its whole
// time-out.
TEST(RingDoorbell, NoWakeUpIsLost) {
  constexpr std::uint64_t kRounds = 150'000;
  constexpr std::uint64_t kTimeoutNs = 5'000'000'000U;
  const TempDir dir;
  const std::string path = dir.file("ring");
  { const RingFile made = create(path); }
  const pid_t child = ::fork();
  if (child == 0) {
    run_on(0);
    RingWriter writer(attach(path, RingSide::Writer));
    std::uint64_t x = 1;
    for (std::uint64_t i = 0; i < kRounds; ++i) {
      spin(x);
      if (!append(writer, 16)) ::_exit(1);
      writer.publish();
      for (int look = 1; writer.used_bytes() != 0; ++look) {
        if (look % 4096 == 0) ::sched_yield();
      }
    }
    ::_exit(0);
  }
  cpu_set_t before;
  ::sched_getaffinity(0, sizeof before, &before);
  run_on(1);
  RingReader reader(attach(path, RingSide::Reader));
  RingRecord record;
  std::uint64_t received = 0;
  std::uint64_t waits = 0;
  bool lost = false;
  std::uint64_t y = 2;
  while (received < kRounds && !lost) {
    reader.arm();
    RingReader::Status status = reader.next(record);
    if (status == RingReader::Status::Empty) {
      const std::uint64_t begin = clock_ns(CLOCK_MONOTONIC);
      const FutexWait wait{reader.doorbell_word(), reader.doorbell_value()};
      futex_wait_any({&wait, 1}, kTimeoutNs);
      ++waits;
      lost = clock_ns(CLOCK_MONOTONIC) - begin >= kTimeoutNs;
      status = reader.next(record);
    }
    reader.disarm();
    if (status != RingReader::Status::Record) continue;
    ++received;
    reader.release(record.end);
    spin(y);
  }
  ::sched_setaffinity(0, sizeof before, &before);
  EXPECT_FALSE(lost) << "after " << received << " records";
  EXPECT_GT(waits, 100U);
  if (lost) ::kill(child, SIGKILL);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(RingDoorbell, OneSleepForManyRings) {
  const TempDir dir;
  std::vector<std::string> paths;
  for (int i = 0; i < 5; ++i) {
    paths.push_back(dir.file("ring-" + std::to_string(i)));
    const RingFile made = create(paths.back());
  }
  for (std::size_t who = 0; who < paths.size(); ++who) {
    std::vector<RingReader> readers;
    readers.reserve(paths.size());
    for (const std::string& path : paths) readers.emplace_back(attach(path, RingSide::Reader));
    std::vector<FutexWait> waits;
    RingRecord record;
    for (RingReader& reader : readers) {
      reader.arm();
      ASSERT_EQ(reader.next(record), RingReader::Status::Empty);
      waits.push_back({reader.doorbell_word(), reader.doorbell_value()});
    }
    const pid_t child = ::fork();
    if (child == 0) {
      RingWriter writer(attach(paths[who], RingSide::Writer));
      const bool ok = append(writer, 8);
      writer.publish();
      ::_exit(ok ? 0 : 1);
    }
    const std::uint64_t begin = clock_ns(CLOCK_MONOTONIC);
    futex_wait_any(waits, 5'000'000'000U);
    EXPECT_LT(clock_ns(CLOCK_MONOTONIC) - begin, 5'000'000'000U);
    ASSERT_EQ(readers[who].next(record), RingReader::Status::Record);
    readers[who].release(record.end);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
}

TEST(Futex, ReturnsAtOnceWhenTheWordIsAnother) {
  const std::uint32_t word = 5;
  const FutexWait wait{&word, 4};
  const std::uint64_t begin = clock_ns(CLOCK_MONOTONIC);
  futex_wait_any({&wait, 1}, 5'000'000'000U);
  EXPECT_LT(clock_ns(CLOCK_MONOTONIC) - begin, 5'000'000'000U);
  const FutexWait same{&word, 5};
  futex_wait_any({&same, 1}, 1'000'000);
  EXPECT_GE(clock_ns(CLOCK_MONOTONIC) - begin, 1'000'000U);
}

}  // namespace
}  // namespace arancini::test
