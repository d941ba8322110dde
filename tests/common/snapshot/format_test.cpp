#include <gtest/gtest.h>

#include "common/journal/crc32c.h"
#include "common/snapshot/format.h"
#include "common/snapshot/snapshot_store.h"
#include "tests/common/snapshot/snapshot_maker.h"

// What is written is read back, and nothing that differs by a byte, or a bit that does not belong there, is
// taken for a snapshot.
namespace arancini::snapshot::test {
namespace {

const Header kHeader{.shard = 1,
                     .shard_count = 4,
                     .number = 77,
                     .writer = *WriterId::from_hex("000102030405060708090a0b0c0d0e0f"),
                     .ring_position = RingPosition{4096},
                     .next_sequence = Sequence{100},
                     .log_identity = 5,
                     .log_sequence = 42,
                     .started_realtime_ns = 1'700'000'000'000'000'000};

// A small one with everything in it.
std::vector<std::byte> small() {
  VectorSink sink;
  SnapshotWriter writer(sink);
  writer.begin(kHeader);
  writer.router({0, *IpAddress::parse("192.0.2.1"), "edge-1", "r1", "a router"});
  writer.view({0, 0, 0, View::AdjInPost, 7, *IpAddress::parse("2001:db8::1"), true, 65001, 9, 4711});
  writer.attributes({3, to_bytes("hop"), to_bytes("f"), to_bytes("attributes")});
  writer.table({0, 0, kIpv4Unicast, true});
  writer.route(0, kIpv4Unicast, {v4(0x0a000000, 8), 3, 2});
  writer.route(0, kIpv4Unicast, {v4(0x0a010000, 16, 5), 3, 0});
  writer.attributes({1, {}, {}, to_bytes("x")});
  writer.table({1, 0, kIpv6Unicast, false});
  writer.route(1, kIpv6Unicast, {{0x20010db800000000, 0, 0, 32}, 1, 0});
  EXPECT_EQ(writer.finish({3, RingPosition{8192}, Sequence{120}}), "");
  EXPECT_EQ(writer.bytes_written(), sink.bytes.size());
  return sink.bytes;
}

ReadError error_of(std::span<const std::byte> bytes) {
  MemorySource source(bytes);
  const auto read = check_snapshot(source);
  return read ? ReadError{ReadError::Kind::Stopped, 0, "good"} : read.error();
}

TEST(Snapshot, IsReadBackAsItWasWritten) {
  const std::vector<std::byte> bytes = small();
  MemorySource source(bytes);
  Collector c;
  const auto read = read_snapshot(source, c);
  ASSERT_TRUE(read) << read.error().text;
  EXPECT_EQ(c.first, kHeader);
  EXPECT_EQ(read->header, kHeader);
  ASSERT_EQ(c.routers.size(), 1U);
  EXPECT_EQ(c.routers[0], std::tuple(*IpAddress::parse("192.0.2.1"), std::string("edge-1"), std::string("r1"),
                                     std::string("a router")));
  ASSERT_EQ(c.views.size(), 1U);
  EXPECT_EQ(c.views[0], std::tuple(0U, std::uint8_t{0}, View::AdjInPost, std::uint64_t{7},
                                   *IpAddress::parse("2001:db8::1"), true, 65001U, 9U, std::uint16_t{4711}));
  EXPECT_EQ(c.sets.at(3), Collector::Attributes("hop", "f", "attributes"));
  EXPECT_EQ(c.sets.at(1), Collector::Attributes("", "", "x"));
  ASSERT_EQ(c.tables.size(), 2U);
  EXPECT_EQ(c.tables[0], std::tuple(0U, kIpv4Unicast, true));
  ASSERT_EQ(c.all.size(), 3U);
  EXPECT_EQ(c.all[0].second, (RouteEntry{v4(0x0a000000, 8), 3, 2}));
  EXPECT_EQ(c.all[1].second, (RouteEntry{v4(0x0a010000, 16, 5), 3, 0}));
  EXPECT_EQ(c.all[2], std::pair(1U, (RouteEntry{{0x20010db800000000, 0, 0, 32}, 1, 0})));
  EXPECT_EQ(c.last, (End{3, RingPosition{8192}, Sequence{120}}));
  EXPECT_EQ(read->routes, 3U);
  EXPECT_EQ(read->bytes, bytes.size());
}

TEST(Snapshot, EveryFlippedBitIsSeen) {
  std::vector<std::byte> bytes = small();
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      const auto mask = static_cast<std::byte>(1U << bit);
      bytes[at] ^= mask;
      const ReadError error = error_of(bytes);
      EXPECT_EQ(error.kind, ReadError::Kind::Corrupt) << "byte " << at << " bit " << bit;
      EXPECT_LE(error.offset_bytes, bytes.size());
      EXPECT_NE(error.text.find("byte "), std::string::npos);
      bytes[at] ^= mask;
    }
  }
  EXPECT_EQ(error_of(bytes).text, "good");
}

TEST(Snapshot, CutAnywhereIsSeenAndSoIsWhatIsTooMuch) {
  std::vector<std::byte> bytes = small();
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    const ReadError error = error_of(std::span(bytes).first(size));
    EXPECT_EQ(error.kind, ReadError::Kind::Corrupt) << size;
    EXPECT_LE(error.offset_bytes, size) << size;
  }
  bytes.push_back(std::byte{0});
  EXPECT_EQ(error_of(bytes).kind, ReadError::Kind::Corrupt);
}

// Blocks that another program sealed well: their checksums match, what they say is impossible.
class Crafted : public testing::Test {
 protected:
  struct Part {
    BlockHeader header;
    std::vector<std::byte> payload;
  };
  void SetUp() override {
    const std::vector<std::byte> bytes = small();
    std::size_t at = sizeof(FileHeader);
    file_.assign(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(at));
    while (at < bytes.size()) {
      Part part;
      std::memcpy(&part.header, bytes.data() + at, sizeof part.header);
      at += sizeof part.header;
      part.payload.assign(bytes.begin() + static_cast<std::ptrdiff_t>(at),
                          bytes.begin() + static_cast<std::ptrdiff_t>(at + part.header.payload_bytes));
      at += part.header.payload_bytes;
      parts_.push_back(part);
    }
  }
  Part& part(BlockKind kind, int which = 0) {
    for (Part& p : parts_) {
      if (p.header.kind == static_cast<std::uint16_t>(kind) && which-- == 0) return p;
    }
    throw std::runtime_error("no such block");
  }
  template <class Fields>
  void change(BlockKind kind, int which, const std::function<void(Fields&)>& f, std::size_t offset = 0) {
    Fields fields;
    std::vector<std::byte>& payload = part(kind, which).payload;
    std::memcpy(&fields, payload.data() + offset, sizeof fields);
    f(fields);
    std::memcpy(payload.data() + offset, &fields, sizeof fields);
  }
  std::vector<std::byte> sealed(bool renumber = true) {
    std::vector<std::byte> out = file_;
    std::uint32_t number = 0;
    for (Part& p : parts_) {
      p.header.payload_bytes = static_cast<std::uint32_t>(p.payload.size());
      if (renumber) p.header.number = number++;
      p.header.crc = 0;
      p.header.crc = journal::crc32c(p.payload, journal::crc32c(std::as_bytes(std::span(&p.header, 1))));
      const auto head = std::as_bytes(std::span(&p.header, 1));
      out.insert(out.end(), head.begin(), head.end());
      out.insert(out.end(), p.payload.begin(), p.payload.end());
    }
    return out;
  }
  std::string fault() {
    const ReadError error = error_of(sealed());
    EXPECT_EQ(error.kind, ReadError::Kind::Corrupt) << error.text;
    return error.text;
  }

  std::vector<std::byte> file_;
  std::vector<Part> parts_;
};

#define EXPECT_FAULT(text) EXPECT_NE(fault().find(text), std::string::npos) << fault()

TEST_F(Crafted, IsGoodAsItStands) {
  EXPECT_EQ(error_of(sealed()).text, "good");
}
TEST_F(Crafted, IdsAreTheNext) {
  change<RouterFields>(BlockKind::Routers, 0, [](auto& f) { f.id = 1; });
  EXPECT_FAULT("a router whose id is not the next");
}
TEST_F(Crafted, StringsEndWithinTheBlock) {
  change<RouterFields>(BlockKind::Routers, 0, [](auto& f) { f.sys_descr_bytes = 60000; });
  EXPECT_FAULT("cut off");
}
TEST_F(Crafted, ViewsAreOfKnownRouters) {
  change<ViewFields>(BlockKind::Views, 0, [](auto& f) { f.router = 1; });
  EXPECT_FAULT("unknown router");
}
TEST_F(Crafted, ViewsAreOneOfFive) {
  change<ViewFields>(BlockKind::Views, 0, [](auto& f) { f.view = 5; });
  EXPECT_FAULT("unknown view");
}
TEST_F(Crafted, AttributesHaveIds) {
  change<AttributesFields>(BlockKind::Attributes, 0, [](auto& f) { f.id = 0; });
  EXPECT_FAULT("cannot be");
}
TEST_F(Crafted, NoIdMakesTheReaderTakeGigabytes) {
  change<AttributesFields>(BlockKind::Attributes, 0, [](auto& f) { f.id = UINT32_MAX; });
  EXPECT_FAULT("cannot be");
}
TEST_F(Crafted, AttributesComeOnce) {
  change<AttributesFields>(BlockKind::Attributes, 1, [](auto& f) { f.id = 3; });
  EXPECT_FAULT("come twice");
}
TEST_F(Crafted, BlobsEndWithinTheBlock) {
  change<AttributesFields>(BlockKind::Attributes, 0, [](auto& f) { f.attributes_bytes = UINT32_MAX; });
  EXPECT_FAULT("cut off");
}
TEST_F(Crafted, TablesAreOfKnownViews) {
  change<TableFields>(BlockKind::Tables, 1, [](auto& f) { f.view = 3; });
  EXPECT_FAULT("unknown view");
}
TEST_F(Crafted, TablesAreOfPlainFamilies) {
  change<TableFields>(BlockKind::Tables, 1, [](auto& f) { f.safi = 128; });
  EXPECT_FAULT("family");
}
TEST_F(Crafted, RoutesAreOfKnownTables) {
  change<RoutesFields>(BlockKind::Routes, 0, [](auto& f) { f.table = 1; });
  EXPECT_FAULT("unknown table");
}
TEST_F(Crafted, RoutesHaveKnownAttributes) {
  change<RouteFields>(
      BlockKind::Routes, 0, [](auto& f) { f.attributes = 2; }, sizeof(RoutesFields) + 4);
  EXPECT_FAULT("unknown attributes");
}
TEST_F(Crafted, PrefixesAreNotTooLong) {
  change<RouteFields>(
      BlockKind::Routes, 0, [](auto& f) { f.length = 33; }, sizeof(RoutesFields) + 4);
  EXPECT_FAULT("too long");
}
TEST_F(Crafted, PrefixesHaveNoBitsBehindTheirLength) {
  change<RouteFields>(
      BlockKind::Routes, 0, [](auto& f) { f.length = 4; }, sizeof(RoutesFields) + 4);
  EXPECT_FAULT("behind its length");
}
TEST_F(Crafted, CountsMatch) {
  part(BlockKind::Routes).header.count = 2;
  EXPECT_FAULT("cut off");
  part(BlockKind::Routes).header.count = 0;
  EXPECT_FAULT("without entries");
}
TEST_F(Crafted, NothingStandsBehindTheEntries) {
  part(BlockKind::Views).payload.push_back(std::byte{});
  EXPECT_FAULT("more bytes than entries");
}
TEST_F(Crafted, KindsAreKnown) {
  part(BlockKind::Views).header.kind = 7;
  EXPECT_FAULT("unknown kind");
}
TEST_F(Crafted, BlocksAreInOrder) {
  std::swap(parts_[0], parts_[1]);
  const ReadError error = error_of(sealed(false));
  EXPECT_NE(error.text.find("block 1, not 0"), std::string::npos) << error.text;
}
TEST_F(Crafted, NoBlockIsMissing) {
  parts_.erase(parts_.begin() + 2);
  EXPECT_EQ(error_of(sealed(false)).kind, ReadError::Kind::Corrupt);
}
TEST_F(Crafted, TotalsMatch) {
  change<EndFields>(BlockKind::End, 0, [](auto& f) { ++f.views; });
  EXPECT_FAULT("totals");
}

TEST(Snapshot, AnotherVersionIsRefusedByName) {
  std::vector<std::byte> bytes = small();
  FileHeader header;
  std::memcpy(&header, bytes.data(), sizeof header);
  header.version = 2;
  header.crc = journal::crc_of_struct(header, &FileHeader::crc);
  std::memcpy(bytes.data(), &header, sizeof header);
  EXPECT_EQ(error_of(bytes).text, "byte 8: version 2 of the format, not 1");
  EXPECT_EQ(error_of(bytes).kind, ReadError::Kind::OtherVersion);
}

TEST(Snapshot, HeaderCanBeReadAlone) {
  const std::vector<std::byte> bytes = small();
  const std::span<const std::byte> all(bytes);
  MemorySource source(all.first(sizeof(FileHeader)));
  const auto header = read_header(source);
  ASSERT_TRUE(header) << header.error().text;
  EXPECT_EQ(*header, kHeader);
}

TEST(Snapshot, TheVisitorCanStopAnywhere) {
  const std::vector<std::byte> bytes = small();
  int stops = 0;
  for (;; ++stops) {
    MemorySource source(bytes);
    Collector c;
    c.calls_left = stops;
    const auto read = read_snapshot(source, c);
    if (read) break;
    EXPECT_EQ(read.error().kind, ReadError::Kind::Stopped);
    EXPECT_EQ(c.calls_left, -1);
  }
  EXPECT_EQ(stops, 1 + 1 + 1 + 2 + 2 + 3 + 1);  // the path id has a block of its own
}

// Gives a few bytes at a time, then fails.
class TroubledSource final : public ByteSource {
 public:
  TroubledSource(std::span<const std::byte> bytes, std::size_t good) : memory_(bytes), good_(good) {}
  Result<std::size_t, std::string> read(std::span<std::byte> out) override {
    if (good_ == 0) return Err{std::string("input/output error")};
    const auto n = memory_.read(out.first(std::min({out.size(), good_, std::size_t{3}})));
    good_ -= *n;
    return n;
  }

 private:
  MemorySource memory_;
  std::size_t good_;
};

TEST(Snapshot, WhatCannotBeReadIsNotCorrupt) {
  const std::vector<std::byte> bytes = small();
  for (std::size_t good = 0; good <= bytes.size(); ++good) {
    TroubledSource source(bytes, good);
    const auto read = check_snapshot(source);
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().kind, ReadError::Kind::Unreadable);
    EXPECT_EQ(read.error().offset_bytes, good);
  }
  TroubledSource source(bytes, SIZE_MAX);
  EXPECT_TRUE(check_snapshot(source));
}

TEST(SnapshotWriter, SaysWhatTheSinkSays) {
  VectorSink sink;
  sink.limit = 50;
  SnapshotWriter writer(sink);
  writer.begin(kHeader);
  writer.router({0, {}, "a", "b", "c"});
  EXPECT_EQ(writer.finish({}), "no space left");
}

TEST(SnapshotWriter, RoutesAreCounted) {
  VectorSink sink;
  SnapshotWriter writer(sink);
  writer.begin(kHeader);
  EXPECT_EQ(writer.finish({.routes = 1}), "0 routes were written, 1 were meant");
}

// Many blocks, with attributes between; what fits nowhere is an error.
TEST(SnapshotWriter, ManyEntries) {
  std::mt19937_64 random(1);
  VectorSink sink;
  SnapshotWriter writer(sink);
  writer.begin(kHeader);
  Collector wanted;
  for (std::uint32_t r = 0; r < 20; ++r) {
    const std::string name(r * 1000, 'x');
    writer.router({r, IpAddress::from_v4(r), name, "", name});
    wanted.routers.emplace_back(IpAddress::from_v4(r), name, "", name);
    writer.view({r, r, 3, View::LocRib, r, {}, false, r, r, 1});
    const Family family = kIpv4Multicast;
    writer.table({r, r, family, r % 2 == 0});
    for (std::uint32_t i = 0; i < 5000; ++i) {
      const std::uint32_t id = 1 + (r * 5000 + i) / 10;
      const std::string blob(random() % 300, 'b');
      if (wanted.sets.emplace(id, Collector::Attributes("", "f", blob)).second)
        writer.attributes({id, {}, to_bytes("f"), to_bytes(blob)});
      const RouteEntry route{v4(i << 8, 24, random() % 7 == 0 ? 1 : 0), id, static_cast<std::uint8_t>(i % 4)};
      writer.route(r, family, route);
      wanted.all.emplace_back(r, route);
    }
  }
  ASSERT_EQ(writer.finish({.routes = 100'000}), "");
  MemorySource source(sink.bytes);
  Collector got;
  const auto read = read_snapshot(source, got);
  ASSERT_TRUE(read) << read.error().text;
  EXPECT_EQ(got.routers, wanted.routers);
  EXPECT_EQ(got.sets, wanted.sets);
  EXPECT_EQ(got.all, wanted.all);

  SnapshotWriter another(sink);
  const std::vector<std::byte> huge(300 * 1024);
  another.attributes({1, {}, {}, huge});
  EXPECT_NE(another.finish({}).find("an entry is larger"), std::string::npos);
}

TEST(SnapshotName, IsParsedAsItIsWritten) {
  const SnapshotName name{3, 4, 18446744073709551615U};
  EXPECT_EQ(name.to_string(), "shard-3-of-4-18446744073709551615.snap");
  EXPECT_EQ(SnapshotName::parse(name.to_string()), name);
  const SnapshotName first{0, 1, 7};
  EXPECT_EQ(first.to_string(), "shard-0-of-1-00000000000000000007.snap");
  EXPECT_EQ(SnapshotName::parse(first.to_string()), first);
  for (const char* bad :
       {"", "shard-0-of-1-7.snap", "shard-0-of-1-00000000000000000007.snap.corrupt",
        "shard-1-of-1-00000000000000000007.snap", "shard-00-of-1-00000000000000000007.snap",
        "shard-0-of-1-00000000000000000007", "shard--1-of-1-00000000000000000007.snap",
        "shard-0-of-1-99999999999999999999.snap", ".shard-0-of-1-00000000000000000007.snap"}) {
    EXPECT_FALSE(SnapshotName::parse(bad)) << bad;
  }
}

}  // namespace
}  // namespace arancini::snapshot::test
