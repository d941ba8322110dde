#include <grpcpp/grpcpp.h>
#include <log.grpc.pb.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "common/journal/segment.h"
#include "publishd/log_read.h"
#include "tests/publishd/nats_fixture.h"

// publishd as a process, with a real nats-server; the test is the ingestd that restores its tables.
namespace arancini::publishd::test {
namespace {

namespace pb = log::v1;

TEST(RouterOfSubject, IsThatOfTheToken) {
  EXPECT_EQ(router_of_subject("arancini", "arancini.updates.v4_192_0_2_1.65000.1_1"),
            IpAddress::parse("192.0.2.1"));
  EXPECT_EQ(router_of_subject("a.b", "a.b.updates.v6_2001_db8_0_0_0_0_0_1.0.2_1"),
            IpAddress::parse("2001:db8::1"));
  for (const char* other :
       {"arancini.updates.", "arancini.updates.v4_192_0_2.1.1_1", "arancini.events.v4_1_2_3_4.0.x",
        "arancini.updates.v6_2001_db8_0_0_0_0_0_01.0.2_1", "other.updates.v4_192_0_2_1.0.1_1",
        "arancini.updates.collector.0.1_1"}) {
    EXPECT_FALSE(router_of_subject("arancini", other)) << other;
  }
}

// What one Read gave.
struct Restored {
  std::vector<pb::Part::Begin> begins;
  std::vector<std::string> waits;
  std::set<std::uint64_t> sequences;  // of the caller's writer, from messages and records
  std::map<WriterId, std::set<std::uint64_t>> others;
  std::set<IpAddress> routers;
  std::uint64_t messages = 0, records = 0;
  std::map<std::string, std::uint64_t> formats;
  std::optional<pb::Part::Done> done;
  grpc::Status status;
  std::string wrong;

  // Of 1 … `n`, those that did not come.
  [[nodiscard]] std::uint64_t gaps(std::uint64_t from, std::uint64_t to) const {
    std::uint64_t missing = 0;
    for (std::uint64_t s = from; s <= to; ++s) missing += !sequences.contains(s);
    return missing;
  }
  [[nodiscard]] std::string said() const {
    return std::accumulate(waits.begin(), waits.end(), std::string(),
                           [](const std::string& all, const std::string& w) { return all + w + "\n"; });
  }
};

class LogService : public NatsTest {
 protected:
  void run_publishd(const std::string& format = "update-v1-concat", const std::string& more = "",
                    std::uint32_t shards = 1) {
    write_file(dir_.path() + "/arancini.toml", more);
    publishd_.start({PUBLISHD, "--config", dir_.path() + "/arancini.toml", "--runtime-dir", run(),
                     "--state-dir", dir_.path() + "/state", "--nats", nats_.url(), "--shards",
                     std::to_string(shards), "--format", format},
                    dir_.path() + "/publishd.log");
  }
  std::string run() {
    std::filesystem::create_directories(dir_.path() + "/run");
    return dir_.path() + "/run";
  }
  std::unique_ptr<RingFeed> shard(std::uint32_t k, std::uint32_t count, std::uint64_t capacity = 1U << 20) {
    auto ring = std::make_unique<RingFeed>(fmt::format("{}/ring-{}", run(), k), k, capacity);
    ring->ring().set_layout(count);
    return ring;
  }
  pb::ReadRequest request(RingFeed& ring, std::uint32_t k = 0, std::uint32_t count = 1) {
    pb::ReadRequest r;
    r.set_shard(k);
    r.set_shard_count(count);
    const WriterId id = ring.id();
    r.set_writer(id.bytes.data(), id.bytes.size());
    return r;
  }
  // Reads until Done, or until the call ends, or `stop` says so. A publishd that is not there yet is waited
  // for.
  Restored read(const pb::ReadRequest& request, const std::function<bool(const Restored&)>& stop = nullptr) {
    EXPECT_TRUE(wait_until([&] { return std::filesystem::exists(run() + "/publishd.sock"); })) << log();
    Restored out;
    const auto channel =
        grpc::CreateChannel("unix:" + run() + "/publishd.sock", grpc::InsecureChannelCredentials());
    const auto stub = pb::Log::NewStub(channel);
    grpc::ClientContext context;
    context.set_wait_for_ready(true);  // the socket may be there of one that was killed
    context.set_deadline(std::chrono::system_clock::now() + 30s);
    const auto reader = stub->Read(&context, request);
    WriterId own;
    std::copy(request.writer().begin(), request.writer().end(), own.bytes.begin());
    const auto take = [&](const schema::DecodedUpdate& u) {
      out.routers.insert(u.router);
      (u.writer == own ? out.sequences : out.others[u.writer]).insert(u.sequence);
    };
    pb::Part part;
    while (reader->Read(&part)) {
      if (out.done) out.wrong = "something comes behind Done";
      if (part.has_begin()) out.begins.push_back(part.begin());
      if (part.has_waiting()) out.waits.push_back(part.waiting().text());
      if (part.has_message()) {
        ++out.messages;
        ++out.formats[part.message().format()];
        const auto format = schema::payload_format(part.message().format());
        const auto error =
            format ? schema::decode_payload(*format, std::as_bytes(std::span(part.message().payload())), take)
                   : std::optional<std::string>("unknown format");
        if (error) out.wrong = *error;
      }
      if (part.has_record()) {
        ++out.records;
        shm::RecordHeader h;
        if (part.record().header().size() != sizeof h) {
          out.wrong = "a record's header has another size";
          break;
        }
        std::copy(part.record().header().begin(), part.record().header().end(), reinterpret_cast<char*>(&h));
        const auto error = schema::decode_payload(schema::PayloadFormat::BatchV2,
                                                  std::as_bytes(std::span(part.record().payload())), take);
        if (error) out.wrong = *error;
      }
      if (part.has_done()) out.done = part.done();
      if (stop && stop(out)) context.TryCancel();
    }
    out.status = reader->Finish();
    return out;
  }
  // What is in the ring from there on, as the caller reads it itself.
  static void scan(RingFeed& ring, RingPosition from, Restored& out) {
    EXPECT_TRUE(
        ring.ring().scan(from, [&](const shm::RecordHeader& h, std::span<const std::byte>, RingPosition) {
          for (std::uint32_t i = 0; i < h.count; ++i) out.sequences.insert(h.first_sequence + i);
          return true;
        }));
  }
  // Full after so many more, and refuses (-1: never): the stream can be read, nothing can be added.
  void limit(std::int64_t messages) {
    natsConnection* nc = nullptr;
    jsCtx* js = nullptr;
    ASSERT_EQ(natsConnection_ConnectTo(&nc, nats_.url().c_str()), NATS_OK);
    ASSERT_EQ(natsConnection_JetStream(&js, nc, nullptr), NATS_OK);
    jsStreamInfo* info = nullptr;
    ASSERT_EQ(js_GetStreamInfo(&info, js, "ARANCINI_UPDATES", nullptr, nullptr), NATS_OK);
    info->Config->Discard = js_DiscardNew;
    info->Config->MaxMsgs = messages < 0 ? -1 : static_cast<std::int64_t>(info->State.Msgs) + messages;
    EXPECT_EQ(js_UpdateStream(nullptr, js, info->Config, nullptr, nullptr), NATS_OK);
    jsStreamInfo_Destroy(info);
    jsCtx_Destroy(js);
    natsConnection_Destroy(nc);
  }
};

TEST_F(LogService, StreamInAllFormatsThenTheRing) {
  nats_.start("");
  auto ring = shard(0, 1);
  for (const char* format : {"update-v1-concat", "batch-v2", "update-v1"}) {
    run_publishd(format);
    feed(*ring, 300);
    ASSERT_TRUE(wait_until([&] { return ring->drained(); })) << log();
    publishd_.kill(SIGTERM);
  }
  run_publishd();
  Restored r = read(request(*ring));
  ASSERT_TRUE(r.done) << r.status.error_message() << r.said() << log();
  EXPECT_EQ(r.wrong, "");
  ASSERT_EQ(r.begins.size(), 1U);
  EXPECT_EQ(r.begins[0].from_sequence(), 1U);
  EXPECT_EQ(r.begins[0].first_sequence(), 1U);
  EXPECT_FALSE(r.begins[0].other_log());
  EXPECT_EQ(r.formats.size(), 3U);
  EXPECT_EQ(r.gaps(1, 900), 0U);
  EXPECT_EQ(r.sequences.size(), 900U);
  EXPECT_EQ(r.done->ring_position(), raw(ring->ring().tail()));
  EXPECT_EQ(r.done->log_sequence(), r.begins[0].last_sequence());
  const auto mark = ring->ring().log_mark();
  EXPECT_EQ(r.done->log_identity(), mark.identity);
  EXPECT_TRUE(wait_until([&] { return ring->ring().log_mark().sequence == r.done->log_sequence(); }));

  // From a mark: only what came behind it.
  auto from = request(*ring);
  from.set_log_sequence(r.done->log_sequence());
  from.set_log_identity(mark.identity);
  EXPECT_EQ(read(from).messages, 0U);
  feed(*ring, 50);
  ASSERT_TRUE(wait_until([&] { return ring->drained(); })) << log();
  r = read(from);
  ASSERT_TRUE(r.done);
  EXPECT_EQ(r.begins[0].from_sequence(), from.log_sequence() + 1);
  EXPECT_EQ(r.gaps(901, 950), 0U);
  EXPECT_EQ(r.sequences.size(), 50U);
}

TEST_F(LogService, FreshStreamAnswersAtOnce) {
  nats_.start("");
  auto ring = shard(0, 1);
  run_publishd();
  const Restored r = read(request(*ring));
  ASSERT_TRUE(r.done) << r.said() << log();
  EXPECT_EQ(r.messages + r.records, 0U);
  EXPECT_EQ(r.done->ring_position(), 0U);
  EXPECT_EQ(r.begins[0].first_sequence(), 1U);
  EXPECT_NE(r.done->log_identity(), 0U);
}

TEST_F(LogService, ARouterComesToItsOwnerAlone) {
  nats_.start("");
  auto a = shard(0, 1);
  run_publishd();
  feed(*a, 200);
  ASSERT_TRUE(wait_until([&] { return a->drained(); })) << log();
  publishd_.kill(SIGTERM);
  // Now there are two: what the one had written is divided among both.
  a->ring().set_layout(2);
  auto b = shard(1, 2);
  run_publishd("update-v1-concat", "", 2);
  const Restored of_a = read(request(*a, 0, 2));
  const Restored of_b = read(request(*b, 1, 2));
  ASSERT_TRUE(of_a.done && of_b.done) << of_a.said() << of_b.said() << log();
  std::set<IpAddress> all = of_a.routers;
  all.insert(of_b.routers.begin(), of_b.routers.end());
  EXPECT_EQ(all.size(), of_a.routers.size() + of_b.routers.size());
  for (const IpAddress& router : of_a.routers) EXPECT_EQ(owner_of(router, 2), ShardId{0});
  for (const IpAddress& router : of_b.routers) EXPECT_EQ(owner_of(router, 2), ShardId{1});
  EXPECT_FALSE(of_a.routers.empty() || of_b.routers.empty());
  EXPECT_EQ(of_a.sequences.size() + of_b.others.at(a->id()).size(), 200U);
}

// Records of the old division lie in a ring that the new owner does not read itself.
TEST_F(LogService, OtherLayoutsAreWaitedFor) {
  nats_.start("");
  auto a = shard(0, 1);
  feed(*a, 50);
  a->ring().set_layout(2);
  auto b = shard(1, 2);
  auto c = shard(2, 3);  // an ingestd of another division still runs
  feed(*c, 7);
  run_publishd("update-v1-concat", "", 2);
  const Restored waits = read(request(*b, 1, 2), [](const Restored& r) { return r.waits.size() >= 2; });
  EXPECT_FALSE(waits.done);
  EXPECT_NE(waits.said().find("ingestd of shard 2 still runs"), std::string::npos) << waits.said();
  c->close();
  const Restored r = read(request(*b, 1, 2));
  ASSERT_TRUE(r.done) << r.said() << log();
  EXPECT_FALSE(r.others.empty());
}

TEST_F(LogService, BrokerAwayIsSaidAndWaitedFor) {
  auto ring = shard(0, 1);
  feed(*ring, 100);
  run_publishd();
  bool started = false;
  const Restored r = read(request(*ring), [&](const Restored& now) {
    if (!started && now.waits.size() >= 2) {
      started = true;
      nats_.start("");
    }
    return false;
  });
  ASSERT_TRUE(r.done) << r.said() << log();
  EXPECT_NE(r.said().find("refused"), std::string::npos) << r.said();
  Restored all = r;
  scan(*ring, RingPosition{r.done->ring_position()}, all);
  EXPECT_EQ(all.gaps(1, 100), 0U);
}

// The broker is away: what follows is in journal and ring.
TEST_F(LogService, LocalReadNeedsNoBroker) {
  nats_.start("");
  auto ring = shard(0, 1, 256U << 10);
  run_publishd("update-v1-concat", "[journal]\nspill_after_s = 0.1\n");
  feed(*ring, 100);
  ASSERT_TRUE(wait_until([&] { return ring->drained(); })) << log();
  ASSERT_TRUE(wait_until([&] { return ring->ring().in_log() == ring->ring().tail(); }));
  const RingPosition at = ring->ring().tail();
  nats_.child().kill(SIGKILL);
  feed(*ring, 3000);  // several times what the ring holds
  auto local = request(*ring);
  local.set_ring_position(raw(at));
  Restored r = read(local);
  ASSERT_TRUE(r.done) << r.said() << log();
  ASSERT_EQ(r.begins.size(), 1U);
  EXPECT_TRUE(r.begins[0].local());
  EXPECT_GT(r.records, 0U);
  EXPECT_EQ(r.messages, 0U);
  scan(*ring, RingPosition{r.done->ring_position()}, r);
  EXPECT_EQ(r.gaps(101, 3100), 0U);
  EXPECT_EQ(r.sequences.size(), 3000U);
  // The same by way of the stream, once that is back: while it is being drained into it.
  nats_.start_again();
  Restored whole = read(request(*ring));
  ASSERT_TRUE(whole.done) << whole.said() << log();
  scan(*ring, RingPosition{whole.done->ring_position()}, whole);
  EXPECT_EQ(whole.gaps(1, 3100), 0U);
  EXPECT_EQ(whole.wrong, "");
}

TEST_F(LogService, SpilledRecordsComeBehindTheStream) {
  nats_.start("");
  auto ring = shard(0, 1, 256U << 10);
  run_publishd("update-v1-concat", "[journal]\nspill_after_s = 0.1\n");
  feed(*ring, 100);
  ASSERT_TRUE(wait_until([&] { return ring->drained(); })) << log();
  limit(1);
  feed(*ring, 3000);
  Restored r = read(request(*ring));
  ASSERT_TRUE(r.done) << r.said() << log();
  EXPECT_GT(r.messages, 0U);
  EXPECT_GT(r.records, 0U);
  scan(*ring, RingPosition{r.done->ring_position()}, r);
  EXPECT_EQ(r.gaps(1, 3100), 0U);
  EXPECT_EQ(r.wrong, "");
}

// While it is read the journal is published and its segments are removed: back to the stream.
TEST_F(LogService, JournalThatIsDrainedMeanwhile) {
  auto ring = shard(0, 1, 256U << 10);
  nats_.start("");
  run_publishd("update-v1-concat", "[journal]\nspill_after_s = 0.1\nsegment_bytes = 8388608\n");
  feed(*ring, 100);
  ASSERT_TRUE(wait_until([&] { return ring->drained(); })) << log();
  // The reader may have been fast enough to need nothing of what is gone: once more then.
  std::size_t begins = 0;
  for (int attempt = 0; attempt < 5 && begins <= 1; ++attempt) {
    limit(1);
    for (std::uint32_t i = 0; i < 12'000; ++i) {
      ASSERT_TRUE(wait_until([&] { return ring->write(i % 7, 60); })) << log();
    }
    bool drained = false;
    // Nobody takes what comes until all of it is somewhere else.
    Restored r = read(request(*ring), [&](const Restored& now) {
      if (drained || now.records == 0) return false;
      drained = true;
      limit(-1);
      EXPECT_TRUE(wait_until([&] { return ring->ring().in_log() == ring->ring().tail(); }, 60s)) << log();
      return false;
    });
    ASSERT_TRUE(r.done) << r.said() << log();
    begins = r.begins.size();
    scan(*ring, RingPosition{r.done->ring_position()}, r);
    EXPECT_EQ(r.gaps(1, ring->written()), 0U);
    EXPECT_EQ(r.wrong, "");
  }
  EXPECT_GT(begins, 1U);
}

TEST_F(LogService, JournalAsTheSinkIsTheLog) {
  auto a = shard(0, 2);
  auto b = shard(1, 2);
  run_publishd("update-v1-concat", "[sink]\nkind = \"journal\"\n", 2);
  feed(*a, 300);
  feed(*b, 100);
  ASSERT_TRUE(wait_until([&] { return a->drained() && b->drained(); })) << log();
  ASSERT_TRUE(wait_until([&] { return a->ring().log_mark().sequence > 0; }));
  const Restored r = read(request(*a, 0, 2));
  ASSERT_TRUE(r.done) << r.said() << log();
  EXPECT_EQ(r.wrong, "");
  for (const IpAddress& router : r.routers) EXPECT_EQ(owner_of(router, 2), ShardId{0});
  // Whoever wrote it: both rings are about routers that either owns here.
  const Restored other = read(request(*b, 1, 2));
  ASSERT_TRUE(other.done);
  EXPECT_EQ(r.sequences.size() + other.others.at(a->id()).size(), 300U);
  EXPECT_EQ(other.sequences.size() + r.others.at(b->id()).size(), 100U);
  EXPECT_EQ(r.done->ring_position(), raw(a->ring().tail()));

  auto from = request(*a, 0, 2);
  const auto mark = a->ring().log_mark();
  from.set_log_sequence(mark.sequence);
  from.set_log_identity(mark.identity);
  feed(*a, 40);
  ASSERT_TRUE(wait_until([&] { return a->drained(); })) << log();
  const Restored later = read(from);
  ASSERT_TRUE(later.done);
  EXPECT_EQ(later.begins[0].from_sequence(), mark.sequence + 1);
  EXPECT_FALSE(later.begins[0].other_log());
  for (const std::uint64_t s : later.sequences) EXPECT_GT(s, 300U);
  EXPECT_FALSE(later.sequences.empty());
  EXPECT_LE(later.sequences.size(), 40U);
}

// The journal's readers lack what went to the stream; the stream gets what the journal holds.
TEST_F(LogService, AnotherSinkIsAnotherLog) {
  nats_.start("");
  auto ring = shard(0, 1);
  run_publishd();
  feed(*ring, 50);
  ASSERT_TRUE(wait_until([&] { return ring->drained() && ring->ring().log_mark().sequence > 0; })) << log();
  const auto stream = ring->ring().log_mark();
  EXPECT_EQ(ring->ring().dump_request(), 0U);
  publishd_.kill(SIGTERM);
  run_publishd("update-v1-concat", "[sink]\nkind = \"journal\"\n");
  feed(*ring, 50);
  ASSERT_TRUE(wait_until([&] { return ring->drained() && ring->ring().dump_request() == 1; })) << log();
  const auto journal = ring->ring().log_mark();
  EXPECT_NE(journal.identity, stream.identity);
  auto from = request(*ring);
  from.set_log_sequence(stream.sequence);
  from.set_log_identity(stream.identity);
  const Restored r = read(from);
  ASSERT_TRUE(r.done) << r.said() << log();
  EXPECT_TRUE(r.begins[0].other_log());
  EXPECT_EQ(r.gaps(51, 100), 0U);
  EXPECT_EQ(r.sequences.size(), 50U);
  publishd_.kill(SIGTERM);
  run_publishd();
  ASSERT_TRUE(wait_until([&] { return ring->ring().log_mark().identity == stream.identity; })) << log();
  const Restored whole = read(request(*ring));
  ASSERT_TRUE(whole.done) << whole.said() << log();
  EXPECT_EQ(whole.gaps(1, 100), 0U);
  EXPECT_EQ(ring->ring().dump_request(), 1U);
}

TEST_F(LogService, PublishdKilledInTheMiddleEndsTheCall) {
  nats_.start("");
  auto ring = shard(0, 1);
  run_publishd("update-v1");
  feed(*ring, 5000);
  ASSERT_TRUE(wait_until([&] { return ring->drained(); })) << log();
  const Restored cut = read(request(*ring), [&](const Restored& r) {
    if (r.messages == 100) publishd_.kill(SIGKILL);
    return false;
  });
  EXPECT_FALSE(cut.done);
  EXPECT_EQ(cut.status.error_code(), grpc::StatusCode::UNAVAILABLE) << cut.status.error_message();
  run_publishd("update-v1");
  const Restored r = read(request(*ring));
  ASSERT_TRUE(r.done) << r.status.error_message() << r.said() << log();
  EXPECT_EQ(r.gaps(1, 5000), 0U);
}

TEST_F(LogService, StoppingEndsTheCall) {
  auto ring = shard(0, 1);
  run_publishd();  // no broker: it waits
  const Restored r = read(request(*ring), [&](const Restored& now) {
    if (now.waits.size() == 1) publishd_.signal(SIGTERM);
    return false;
  });
  EXPECT_FALSE(r.done);
  EXPECT_EQ(r.status.error_code(), grpc::StatusCode::UNAVAILABLE) << r.status.error_message();
  const int status = publishd_.wait();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << log();
  EXPECT_FALSE(std::filesystem::exists(run() + "/publishd.sock"));
}

class LogServiceStream : public LogService {
 protected:
  void SetUp() override {
    nats_.start("");
    ring_ = shard(0, 1);
    run_publishd("update-v1");
    feed(*ring_, 100);
    ASSERT_TRUE(wait_until([&] { return ring_->drained(); })) << log();
    ASSERT_EQ(natsConnection_ConnectTo(&nc_, nats_.url().c_str()), NATS_OK);
    ASSERT_EQ(natsConnection_JetStream(&js_, nc_, nullptr), NATS_OK);
    from_ = request(*ring_);
    from_.set_log_sequence(10);
    from_.set_log_identity(ring_->ring().log_mark().identity);
  }
  void TearDown() override {
    jsCtx_Destroy(js_);
    natsConnection_Destroy(nc_);
  }
  std::unique_ptr<RingFeed> ring_;
  pb::ReadRequest from_;
  natsConnection* nc_ = nullptr;
  jsCtx* js_ = nullptr;
};

TEST_F(LogServiceStream, WhatRetentionHasDiscardedIsSaid) {
  jsOptions o;
  jsOptions_Init(&o);
  o.Stream.Purge.Sequence = 51;
  ASSERT_EQ(js_PurgeStream(js_, "ARANCINI_UPDATES", &o, nullptr), NATS_OK);
  const Restored r = read(from_);
  ASSERT_TRUE(r.done) << r.said() << log();
  EXPECT_EQ(r.begins[0].from_sequence(), 11U);
  EXPECT_EQ(r.begins[0].first_sequence(), 51U);
  EXPECT_EQ(r.sequences.size(), 50U);
  // Behind it: all is there.
  from_.set_log_sequence(50);
  const Restored rest = read(from_);
  EXPECT_LE(rest.begins[0].first_sequence(), rest.begins[0].from_sequence());
  EXPECT_EQ(rest.sequences.size(), 50U);
}

TEST_F(LogServiceStream, MessagesDeletedByHandAreNobodysGap) {
  ASSERT_EQ(js_DeleteMsg(js_, "ARANCINI_UPDATES", 40, nullptr, nullptr), NATS_OK);
  ASSERT_EQ(js_DeleteMsg(js_, "ARANCINI_UPDATES", 100, nullptr, nullptr), NATS_OK);
  const Restored r = read(from_);
  ASSERT_TRUE(r.done) << r.said() << log();
  ASSERT_EQ(r.begins.size(), 1U);
  EXPECT_EQ(r.sequences.size(), 88U);
}

TEST_F(LogServiceStream, StreamMadeAnewIsAnotherLog) {
  ASSERT_EQ(js_DeleteStream(js_, "ARANCINI_UPDATES", nullptr, nullptr), NATS_OK);
  feed(*ring_, 20);
  ASSERT_TRUE(wait_until([&] { return ring_->drained(); })) << log();
  EXPECT_EQ(ring_->ring().dump_request(), 1U);
  const Restored r = read(from_);
  ASSERT_TRUE(r.done) << r.said() << log();
  EXPECT_TRUE(r.begins[0].other_log());
  EXPECT_EQ(r.begins[0].from_sequence(), 1U);
  EXPECT_NE(r.done->log_identity(), from_.log_identity());
  EXPECT_EQ(r.gaps(101, 120), 0U);
  EXPECT_EQ(ring_->ring().log_mark().identity, r.done->log_identity());
}

class Blobs : public LogService {
 protected:
  void SetUp() override {
    nats_.start("max_payload: 65536");
    run_publishd();
    ASSERT_TRUE(wait_until([&] { return std::filesystem::exists(run() + "/publishd.sock"); })) << log();
    stub_ = pb::Log::NewStub(
        grpc::CreateChannel("unix:" + run() + "/publishd.sock", grpc::InsecureChannelCredentials()));
  }
  // `dies`: the caller, in the middle.
  grpc::Status put(const std::string& name, const std::string& data, bool dies = false) {
    grpc::ClientContext context;
    pb::PutBlobReply reply;
    const auto writer = stub_->PutBlob(&context, &reply);
    pb::BlobChunk chunk;
    chunk.set_name(name);
    for (std::size_t at = 0; at == 0 || at < data.size(); at += 100'000) {
      chunk.set_data(data.substr(at, 100'000));
      if (!writer->Write(chunk)) break;
      chunk.clear_name();
    }
    if (dies) {
      context.TryCancel();
    } else {
      writer->WritesDone();
    }
    return writer->Finish();
  }
  std::pair<grpc::Status, std::string> get(const std::string& name) {
    grpc::ClientContext context;
    pb::GetBlobRequest request;
    request.set_name(name);
    const auto reader = stub_->GetBlob(&context, request);
    std::string data;
    pb::BlobChunk chunk;
    while (reader->Read(&chunk)) data += chunk.data();
    return {reader->Finish(), data};
  }
  std::vector<std::string> list(const std::string& prefix) {
    grpc::ClientContext context;
    pb::ListBlobsRequest request;
    request.set_prefix(prefix);
    pb::ListBlobsReply reply;
    const auto status = stub_->ListBlobs(&context, request, &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return {reply.names().begin(), reply.names().end()};
  }
  grpc::Status remove(const std::string& name) {
    grpc::ClientContext context;
    pb::DeleteBlobRequest request;
    request.set_name(name);
    pb::DeleteBlobReply reply;
    return stub_->DeleteBlob(&context, request, &reply);
  }
  // Messages in the bucket, markers included.
  std::uint64_t messages() {
    natsConnection* nc = nullptr;
    jsCtx* js = nullptr;
    jsStreamInfo* info = nullptr;
    EXPECT_EQ(natsConnection_ConnectTo(&nc, nats_.url().c_str()), NATS_OK);
    EXPECT_EQ(natsConnection_JetStream(&js, nc, nullptr), NATS_OK);
    EXPECT_EQ(js_GetStreamInfo(&info, js, "KV_ARANCINI_SNAPSHOTS", nullptr, nullptr), NATS_OK);
    const std::uint64_t n = info != nullptr ? info->State.Msgs : 0;
    jsStreamInfo_Destroy(info);
    jsCtx_Destroy(js);
    natsConnection_Destroy(nc);
    return n;
  }
  static std::string data_of(std::size_t bytes, unsigned seed) {
    std::minstd_rand random(seed);
    std::string out(bytes, '\0');
    for (char& c : out) c = static_cast<char>(random() >> 8U);
    return out;
  }
  std::unique_ptr<pb::Log::Stub> stub_;
};

TEST_F(Blobs, AreThereAsAWholeOrNotAtAll) {
  const std::string large = data_of(1'000'000, 1);
  EXPECT_TRUE(list("").empty());
  EXPECT_EQ(get("shard-0/1").first.error_code(), grpc::StatusCode::NOT_FOUND);
  ASSERT_TRUE(put("shard-0/1", large).ok());
  ASSERT_TRUE(put("shard-0/2", "").ok());
  ASSERT_TRUE(put("shard-1/1", "small").ok());
  EXPECT_EQ(list("shard-0/"), (std::vector<std::string>{"shard-0/1", "shard-0/2"}));
  EXPECT_EQ(list("").size(), 3U);
  const auto [status, data] = get("shard-0/1");
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(data, large);
  EXPECT_EQ(get("shard-0/2").second, "");
  EXPECT_TRUE(get("shard-0/2").first.ok());

  // One that takes its place, and one whose writer dies.
  const std::uint64_t before = messages();
  const std::string other = data_of(1'000'000, 2);
  ASSERT_TRUE(put("shard-0/1", other).ok());
  EXPECT_EQ(messages(), before) << "nothing is left of the one before";
  EXPECT_FALSE(put("shard-0/1", large, true).ok());
  EXPECT_EQ(get("shard-0/1").second, other);
  EXPECT_TRUE(wait_until([&] { return messages() == before; })) << messages();

  EXPECT_TRUE(remove("shard-0/1").ok());
  EXPECT_TRUE(remove("shard-0/1").ok()) << "it is not there any more";
  EXPECT_TRUE(remove("shard-0/2").ok());
  EXPECT_TRUE(remove("shard-1/1").ok());
  EXPECT_EQ(messages(), 0U);
  EXPECT_TRUE(list("").empty());
}

// docs/nats.md lists them.
TEST_F(LogService, PermissionsOfTheManualSuffice) {
  nats_.start(
      "authorization { users: [ { user: u, password: p, permissions: { publish: { allow: "
      "[\"arancini.updates.>\", "
      "\"arancini.events.>\", \"$JS.API.STREAM.INFO.*\", \"$JS.API.STREAM.CREATE.*\", "
      "\"$JS.API.STREAM.NAMES\", "
      "\"$JS.API.STREAM.MSG.GET.*\", \"$JS.API.CONSUMER.CREATE.>\", \"$JS.API.CONSUMER.DELETE.>\", "
      "\"$JS.API.CONSUMER.INFO.>\", \"$JS.API.CONSUMER.MSG.NEXT.>\", \"$KV.ARANCINI_SNAPSHOTS.>\", "
      "\"$JS.API.DIRECT.GET.>\", \"$JS.API.STREAM.PURGE.KV_ARANCINI_SNAPSHOTS\"] }, subscribe: \"_INBOX.>\" "
      "} } ] }");
  auto ring = shard(0, 1);
  run_publishd("update-v1-concat", "[nats]\nuser = \"u\"\npassword = \"p\"\n");
  feed(*ring, 100);
  ASSERT_TRUE(wait_until([&] { return ring->drained(); })) << log();
  const Restored r = read(request(*ring));
  ASSERT_TRUE(r.done) << r.said() << log();
  EXPECT_EQ(r.said(), "");
  EXPECT_EQ(r.gaps(1, 100), 0U);
  const auto stub = pb::Log::NewStub(
      grpc::CreateChannel("unix:" + run() + "/publishd.sock", grpc::InsecureChannelCredentials()));
  for (int round = 0; round < 2; ++round) {
    grpc::ClientContext context;
    pb::PutBlobReply reply;
    const auto writer = stub->PutBlob(&context, &reply);
    pb::BlobChunk chunk;
    chunk.set_name("a");
    chunk.set_data("data");
    EXPECT_TRUE(writer->Write(chunk));
    writer->WritesDone();
    const auto status = writer->Finish();
    EXPECT_TRUE(status.ok()) << status.error_message();
  }
  grpc::ClientContext list;
  pb::ListBlobsReply names;
  EXPECT_TRUE(stub->ListBlobs(&list, pb::ListBlobsRequest(), &names).ok());
  EXPECT_EQ(names.names_size(), 1);
  EXPECT_EQ(nats_.log().find("Violation"), std::string::npos) << nats_.log();
}

TEST_F(Blobs, WhatIsWrongIsSaid) {
  ASSERT_TRUE(put("a", data_of(200'000, 3)).ok());
  for (const char* name : {"", "a b", "a.*", ">", ".a", "a.", "a..b"}) {
    EXPECT_EQ(put(name, "x").error_code(), grpc::StatusCode::INVALID_ARGUMENT) << name;
  }
  natsConnection* nc = nullptr;
  jsCtx* js = nullptr;
  ASSERT_EQ(natsConnection_ConnectTo(&nc, nats_.url().c_str()), NATS_OK);
  ASSERT_EQ(natsConnection_JetStream(&js, nc, nullptr), NATS_OK);
  jsOptions o;
  jsOptions_Init(&o);
  o.Stream.Purge.Subject = "$KV.ARANCINI_SNAPSHOTS.chunk.*.2";
  ASSERT_EQ(js_PurgeStream(js, "KV_ARANCINI_SNAPSHOTS", &o, nullptr), NATS_OK);
  jsCtx_Destroy(js);
  natsConnection_Destroy(nc);
  const auto status = get("a").first;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_NE(status.error_message().find("chunk 2 of"), std::string::npos) << status.error_message();
  nats_.child().kill(SIGKILL);
  EXPECT_EQ(get("a").first.error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(LogServiceStream, BadRequestsAreRefused) {
  auto bad = from_;
  bad.set_shard(1);
  EXPECT_EQ(read(bad).status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  bad = from_;
  bad.set_writer("short");
  EXPECT_EQ(read(bad).status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  struct stat st {};
  ASSERT_EQ(::stat((run() + "/publishd.sock").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777U, 0600U);
}

}  // namespace
}  // namespace arancini::publishd::test
