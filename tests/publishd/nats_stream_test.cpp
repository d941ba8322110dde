#include "common/base/log.h"
#include "publishd/drain.h"
#include "publishd/jetstream.h"
#include "publishd/ring_source.h"
#include "tests/publishd/nats_fixture.h"

// Streams, clusters and servers that misbehave while publishd runs.
namespace arancini::publishd::test {
namespace {

class Admin {
 public:
  explicit Admin(const std::string& url) {
    EXPECT_EQ(natsConnection_ConnectTo(&nc_, url.c_str()), NATS_OK);
    EXPECT_EQ(natsConnection_JetStream(&js_, nc_, nullptr), NATS_OK);
  }
  ~Admin() {
    jsCtx_Destroy(js_);
    natsConnection_Destroy(nc_);
  }
  Admin(const Admin&) = delete;
  Admin& operator=(const Admin&) = delete;
  jsCtx* js() { return js_; }
  // Changes the configuration that is there.
  void update(const std::function<void(jsStreamConfig&)>& change) {
    jsStreamInfo* info = nullptr;
    ASSERT_EQ(js_GetStreamInfo(&info, js_, kStream, nullptr, nullptr), NATS_OK);
    change(*info->Config);
    ASSERT_EQ(js_UpdateStream(nullptr, js_, info->Config, nullptr, nullptr), NATS_OK);
    jsStreamInfo_Destroy(info);
  }
  void remove() { ASSERT_EQ(js_DeleteStream(js_, kStream, nullptr, nullptr), NATS_OK); }
  static constexpr const char* kStream = "ARANCINI_UPDATES";

 private:
  natsConnection* nc_ = nullptr;
  jsCtx* js_ = nullptr;
};

class Streams : public NatsTest {
 protected:
  void start_with_ring(const std::string& nats = "", const std::string& more = "") {
    ring_ = make_ring();
    start_publishd(nats_.url(), nats, more);
    feed(*ring_, 50);
    ASSERT_TRUE(wait_until([&] { return ring_->drained(); })) << log();
  }
  std::unique_ptr<RingFeed> ring_;
};

TEST_F(Streams, DeletedWhileRunningIsMadeAgainAndSaid) {
  nats_.start("");
  start_with_ring();
  Admin(nats_.url()).remove();
  feed(*ring_, 50);
  expect_published(*ring_);
  EXPECT_TRUE(logged("no stream takes the messages: it was deleted")) << log();
  EXPECT_TRUE(logged("was deleted: it will be made again")) << log();
  EXPECT_TRUE(logged("stream ARANCINI_UPDATES created")) << log();
  EXPECT_TRUE(logged("created anew")) << log();
}

TEST_F(Streams, SealedWhileRunning) {
  nats_.start("");
  start_with_ring();
  Admin admin(nats_.url());
  admin.update([](jsStreamConfig& c) { c.Sealed = true; });
  feed(*ring_, 50);
  expect_trouble(ErrorCode::StreamUnusable,
                 {"stream ARANCINI_UPDATES cannot be used: it is sealed", "JetStream error 10109"});
  admin.remove();
  expect_published(*ring_);
}

TEST_F(Streams, FullWhileRunningSaysWhichLimitAndLosesNothing) {
  nats_.start("");
  start_with_ring("", "[publish]\nformat = \"update-v1\"\n");
  Admin admin(nats_.url());
  admin.update([](jsStreamConfig& c) {
    c.MaxMsgs = 60;
    c.Discard = js_DiscardNew;
  });
  feed(*ring_, 50);
  expect_trouble(ErrorCode::StreamFull, {"stream ARANCINI_UPDATES: max_msgs 60 is reached",
                                         "maximum messages exceeded (JetStream error 10077)", "(508)"});
  admin.update([](jsStreamConfig& c) { c.MaxMsgs = -1; });
  expect_published(*ring_);
  const StreamCheck c = read_stream(nats_.url());
  EXPECT_EQ(c.updates, 100U);
  EXPECT_EQ(c.gaps(ring_->id(), 100) + c.repeats + c.disorder, 0U);
}

// The end stays where it was: nothing that comes is lost or repeated.
TEST_F(Streams, PurgedWhileRunningGoesOn) {
  nats_.start("");
  start_with_ring();
  ASSERT_EQ(js_PurgeStream(Admin(nats_.url()).js(), Admin::kStream, nullptr, nullptr), NATS_OK);
  feed(*ring_, 50);
  expect_published(*ring_);
  publishd_.kill(SIGKILL);
  ASSERT_EQ(js_PurgeStream(Admin(nats_.url()).js(), Admin::kStream, nullptr, nullptr), NATS_OK);
  start_publishd(nats_.url());
  feed(*ring_, 50);
  expect_published(*ring_);
  const StreamCheck c = read_stream(nats_.url());
  EXPECT_EQ(c.gaps(ring_->id(), 150), 100U);
  EXPECT_EQ(c.updates, 50U);
  EXPECT_EQ(c.repeats + c.disorder, 0U);
  EXPECT_FALSE(logged("created anew")) << log();
}

TEST_F(Streams, ServerStorageUsedUp) {
  nats_.start("", "{ max_file_store: 40000 }");
  const auto ring = make_ring();
  start_publishd(nats_.url(), "", "[publish]\nformat = \"update-v1\"\n");
  feed(*ring, 500);
  expect_trouble(ErrorCode::StreamFull, {"resource", "JetStream error 100", "raise the limits of JetStream"});
  Admin(nats_.url()).remove();
}

TEST_F(Streams, LimitsAreToldOnce) {
  nats_.start("");
  {
    Admin admin(nats_.url());
    jsStreamConfig c;
    jsStreamConfig_Init(&c);
    const char* subjects[] = {"arancini.updates.>"};
    c.Name = Admin::kStream;
    c.Subjects = subjects;
    c.SubjectsLen = 1;
    c.MaxBytes = 100'000'000;
    c.Duplicates = 600'000'000'000;
    ASSERT_EQ(js_AddStream(nullptr, admin.js(), &c, nullptr, nullptr), NATS_OK);
    const char* events[] = {"arancini.events.>"};
    c.Name = "ARANCINI_EVENTS";
    c.Subjects = events;
    c.Duplicates = 0;
    ASSERT_EQ(js_AddStream(nullptr, admin.js(), &c, nullptr, nullptr), NATS_OK);
  }
  start_with_ring("replicas = 3");
  nats_.child().kill(SIGTERM);
  nats_.start_again();
  feed(*ring_, 50);
  expect_published(*ring_);
  for (const char* text : {"max_bytes 100000000: the oldest updates", "duplicate window of 600 s",
                           "stream ARANCINI_UPDATES: it has 1 replica(s), nats.replicas says 3"}) {
    EXPECT_EQ(times_logged(text), 1U) << text << "\n" << log();
  }
}

TEST_F(Streams, ReplicasNeedACluster) {
  nats_.start("");
  start_publishd(nats_.url(), "replicas = 3");
  expect_trouble(ErrorCode::StreamUnusable, {"cannot be created", "nats.replicas above 1 needs a cluster"});
}

TEST_F(Streams, WithoutJetStream) {
  nats_.start("", "off");
  start_publishd(nats_.url());
  expect_trouble(ErrorCode::StreamUnusable, {"JetStream is not enabled (nats-server -js)"});
}

TEST_F(Streams, DomainAndPrefix) {
  nats_.start("", "{ domain: hub }");
  const auto ring = make_ring();
  start_publishd(nats_.url(), "domain = \"nowhere\"");
  feed(*ring, 20);
  expect_trouble(ErrorCode::StreamUnusable, {"no JetStream answers for nats.domain or nats.api_prefix"});
  start_publishd(nats_.url(), "domain = \"hub\"");
  expect_published(*ring);
  feed(*ring, 20);
  start_publishd(nats_.url(), "api_prefix = \"$JS.hub.API\"");
  expect_published(*ring);
}

// An account that imports another one's JetStream under a prefix of its own.
TEST_F(Streams, JetStreamOfAnotherAccount) {
  nats_.start(
      "accounts { hub { jetstream: enabled, users: [{user: h, password: h}], exports: [\n"
      "  {service: \"$JS.API.>\", response: stream}, {service: \"arancini.>\"} ] }\n"
      " leaf { users: [{user: l, password: l}], imports: [\n"
      "  {service: {account: hub, subject: \"$JS.API.>\"}, to: \"hub.API.>\"},\n"
      "  {service: {account: hub, subject: \"arancini.>\"}} ] } }");
  const auto ring = make_ring();
  start_publishd(nats_.url(), "user = \"l\"\npassword = \"l\"\napi_prefix = \"hub.API\"");
  feed(*ring, 20);
  expect_published(*ring);
}

// Three servers: two of them still decide.
class Cluster : public Streams {
 protected:
  void start_servers() {
    std::uint16_t routes[3];
    for (auto& r : routes) r = free_port();
    std::string list;
    for (const auto r : routes) list += fmt::format("\"nats://127.0.0.1:{}\"\n", r);
    for (std::size_t i = 0; i < 3; ++i) {
      servers_[i]->start(
          fmt::format("cluster {{ name: c, listen: \"127.0.0.1:{}\", routes: [{}] }}\n", routes[i], list));
    }
  }
  ConfiguredNats second_{dir_.path(), "second"};
  ConfiguredNats third_{dir_.path(), "third"};
  ConfiguredNats* servers_[3] = {&nats_, &second_, &third_};
};

// Only one of them is configured; the others are known from it.
TEST_F(Cluster, LameDuckServerIsLeftInOrder) {
  ASSERT_NO_FATAL_FAILURE(start_servers());
  const auto ring = make_ring();
  start_publishd(nats_.url(), "replicas = 3");
  feed(*ring, 50);
  expect_published(*ring);
  // While the cluster came up it may have tried others.
  ConfiguredNats* duck = nullptr;
  ConfiguredNats* other = nullptr;
  for (ConfiguredNats* n : servers_) (logged("server " + n->address() + ",") ? duck : other) = n;
  ASSERT_TRUE(duck != nullptr && other != nullptr) << log();
  duck->child().signal(SIGUSR2);
  std::uint32_t fed = 50;
  ASSERT_TRUE(wait_until([&] {
    feed(*ring, 20);
    fed += 20;
    return times_logged("NATS connected") == 2;
  })) << log();
  EXPECT_TRUE(logged("NATS server " + duck->address() + " is shutting down")) << log();
  EXPECT_EQ(times_logged("server " + duck->address() + ","), 1U) << log();
  EXPECT_FALSE(logged("connection lost")) << log();
  expect_published(*ring);
  const StreamCheck c = read_stream(other->url());
  EXPECT_EQ(c.gaps(ring->id(), fed) + c.repeats + c.disorder, 0U);
}

TEST_F(Cluster, WithoutQuorumIsSaid) {
  ASSERT_NO_FATAL_FAILURE(start_servers());
  const auto ring = make_ring();
  start_publishd(nats_.url(), "replicas = 3\nack_timeout_s = 1.0");
  feed(*ring, 50);
  ASSERT_NO_FATAL_FAILURE(expect_published(*ring));
  second_.child().kill(SIGKILL);
  third_.child().kill(SIGKILL);
  feed(*ring, 50);
  // The leader may go on for long to answer and to store nothing, or find out that it is none any more.
  const auto said = [&] {
    return trouble() == ErrorCode::PublishTimeout || trouble() == ErrorCode::NatsUnreachable;
  };
  ASSERT_TRUE(wait_until(said)) << log();
  // Over several sessions.
  EXPECT_FALSE(wait_until([&] { return !said(); }, 5s)) << number(trouble()) << "\n" << log();
  second_.start_again();
  expect_published(*ring);
  third_.start_again();  // a reader's consumer may be placed on any of the three, also on one that is down
  const StreamCheck c = read_stream(second_.url());
  EXPECT_EQ(c.gaps(ring->id(), 100) + c.repeats + c.disorder, 0U);
}

// Asked in an order that chance decides, said in that of the list.
TEST_F(Streams, AbsentServersAreSaidOnce) {
  const std::uint16_t ports[] = {free_port(), free_port(), free_port()};
  start_publishd(fmt::format("nats://127.0.0.1:{},nats://127.0.0.1:{},nats://127.0.0.1:{}", ports[0],
                             ports[1], ports[2]));
  make_ring();
  expect_trouble(ErrorCode::NatsUnreachable, {fmt::format("127.0.0.1:{}: connection refused", ports[0])});
  std::this_thread::sleep_for(3s);  // of its attempts
  EXPECT_EQ(times_logged("trying again"), 1U) << log();
}

TEST_F(Streams, UnknownHostIsSaid) {
  start_publishd("nats://no-such-host.invalid:4222");
  expect_trouble(ErrorCode::NatsUnreachable, {"host name 'no-such-host.invalid' cannot be resolved"});
}

// ---- the broker itself, in this process

struct InProcess : NatsTest {
  InProcess() {
    options_.instance = "test";
    options_.subject_prefix = "arancini";
    options_.updates = {.subjects = "arancini.updates.>"};
    options_.events = {.subjects = "arancini.events.>", .must_be_whole = false};
    options_.updates_stream = "ARANCINI_UPDATES";
    options_.events_stream = "ARANCINI_EVENTS";
  }
  std::optional<Session> session(JetStream& broker, const SessionRequest& request) {
    broker.begin_session(request);
    std::optional<Session> s;
    EXPECT_TRUE(wait_until([&] { return (s = broker.poll_session()).has_value(); }));
    return s;
  }
  JetStream::Options options_;
  Wake wake_;
  Logger log_{"test", parse_log_level("error")};
};

// Messages of 64 KiB: far more than the buffers of the sockets take.
TEST_F(InProcess, FrozenServerDoesNotHoldTheHotThread) {
  nats_.start("");
  options_.nats.url = nats_.url();
  JetStream broker(options_, wake_, log_);
  const auto s = session(broker, {});
  ASSERT_TRUE(s);
  nats_.child().freeze();
  const std::vector<std::byte> payload(64 * 1024);
  Outgoing m;
  m.subject = "arancini.updates.x";
  m.writer_hex = "00";
  m.message_id = "m";
  m.payload = payload;
  double longest_ms = 0;
  std::uint32_t sent = 0;
  for (; sent < options_.max_in_flight; ++sent) {
    m.index = sent;
    m.expected_last_sequence = s->tail.last_sequence + sent;
    const auto begin = std::chrono::steady_clock::now();
    if (!broker.send(m)) break;
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
    longest_ms = std::max(longest_ms, took.count());
  }
  std::printf("longest send() to a frozen server: %.3f ms\n", longest_ms);
  EXPECT_EQ(sent, options_.max_in_flight);  // none had to wait until the server was given up
  EXPECT_TRUE(broker.session_alive());
  // The write deadline ends it, on another thread.
  EXPECT_TRUE(wait_until([&] { return !broker.session_alive(); }));
  // nats.c tells of the closed connection on a thread of its own, maybe before the sender gets to say why.
  EXPECT_TRUE(wait_until([&] { return broker.trouble() == ErrorCode::NatsUnreachable; }));
  nats_.child().signal(SIGCONT);
  ASSERT_TRUE(session(broker, {}));
  EXPECT_EQ(broker.trouble(), ErrorCode::None);
}

// Whoever may publish to the reply subject may say anything.
TEST_F(InProcess, AnswersThatAreNoAcks) {
  nats_.start("");
  options_.nats.url = nats_.url();
  JetStream broker(options_, wake_, log_);
  const auto s = session(broker, {});
  ASSERT_TRUE(s);
  natsConnection* nc = nullptr;
  natsSubscription* sub = nullptr;
  ASSERT_EQ(natsConnection_ConnectTo(&nc, nats_.url().c_str()), NATS_OK);
  ASSERT_EQ(natsConnection_SubscribeSync(&sub, nc, "arancini.updates.>"), NATS_OK);
  ASSERT_EQ(natsConnection_Flush(nc), NATS_OK);
  const std::byte payload[1] = {};
  Outgoing m;
  m.subject = "arancini.updates.x";
  m.writer_hex = "00";
  m.message_id = "m";
  m.payload = payload;
  m.expected_last_sequence = s->tail.last_sequence;
  ASSERT_TRUE(broker.send(m));
  natsMsg* seen = nullptr;
  ASSERT_EQ(natsSubscription_NextMsg(&seen, sub, 10'000), NATS_OK);
  const char* const answers[] = {
      R"({"error":{"err_code":"x"}})",
      R"({"error":{"err_code":-1,"description":"d"}})",
      R"({"error":{"err_code":[1]}})",
      R"({"error":{"err_code":4294967296}})",
      R"({"error":{"err_code":10071.5}})",
      R"({"error":{"err_code":1,"description":7}})",
      R"({"error":{"description":null}})",
      R"({"error":"x"})",
      R"([{"error":{}}])",
      R"({"error":)",
  };
  for (const char* a : answers)
    ASSERT_EQ(natsConnection_PublishString(nc, natsMsg_GetReply(seen), a), NATS_OK);
  std::size_t good = 0;
  std::size_t malformed = 0;
  EXPECT_TRUE(wait_until([&] {
    for (Ack ack; broker.poll_ack(ack); ack = {}) {
      good += ack.error == AckError::None;
      malformed += ack.error == AckError::Malformed;
    }
    return good == 1 && malformed == std::size(answers);
  })) << good
      << " " << malformed;
  natsMsg_Destroy(seen);
  natsSubscription_Destroy(sub);
  natsConnection_Destroy(nc);
}

// A long tail is read by a consumer; deleted messages are missing, whoever is asked.
TEST_F(InProcess, LongTailWithHoles) {
  nats_.start("");
  options_.nats.url = nats_.url();
  constexpr std::uint64_t kMessages = 10'000;
  JetStream broker(options_, wake_, log_);
  ASSERT_TRUE(session(broker, {}));
  Admin admin(nats_.url());
  const WriterId writer = *WriterId::from_hex("00112233445566778899aabbccddeeff");
  for (std::uint64_t i = 1; i <= kMessages; ++i) {
    natsMsg* msg = nullptr;
    ASSERT_EQ(natsMsg_Create(&msg, i % 2 == 0 ? "arancini.updates.a" : "arancini.updates.b", nullptr, "x", 1),
              NATS_OK);
    natsMsgHeader_Set(msg, schema::kHeaderWriter, writer.to_hex().c_str());
    natsMsgHeader_Set(msg, schema::kHeaderLast, std::to_string(i).c_str());
    ASSERT_EQ(js_PublishMsgAsync(admin.js(), &msg, nullptr), NATS_OK);
    natsMsg_Destroy(msg);
  }
  ASSERT_EQ(js_PublishAsyncComplete(admin.js(), nullptr), NATS_OK);
  for (const std::uint64_t n : {5'000U, 5'001U, 9'999U})
    ASSERT_EQ(js_DeleteMsg(admin.js(), Admin::kStream, n, nullptr, nullptr), NATS_OK);
  jsStreamInfo* info = nullptr;
  ASSERT_EQ(js_GetStreamInfo(&info, admin.js(), Admin::kStream, nullptr, nullptr), NATS_OK);
  SessionRequest request;
  request.floors = {{0, static_cast<std::uint64_t>(info->Created)}};
  jsStreamInfo_Destroy(info);
  const auto begin = std::chrono::steady_clock::now();
  const auto s = session(broker, request);
  std::printf("a tail of %llu messages took %.0f ms\n", static_cast<unsigned long long>(kMessages),
              std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
  ASSERT_TRUE(s);
  EXPECT_EQ(s->tail.last_sequence, kMessages);
  EXPECT_EQ(s->tail.messages_read, kMessages - 3);
  EXPECT_EQ(s->tail.missing, 3U);
  ASSERT_EQ(s->tail.stored.size(), 2U);
  for (const Stored& stored : s->tail.stored) {
    EXPECT_EQ(stored.writer, writer);
    EXPECT_EQ(raw(stored.last), stored.subject == "arancini.updates.a" ? kMessages : kMessages - 3);
  }
}

}  // namespace
}  // namespace arancini::publishd::test
