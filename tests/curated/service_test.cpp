#include "curated/service.h"

#include <control.grpc.pb.h>
#include <fmt/format.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <shard.grpc.pb.h>
#include <sys/stat.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include "curated/audit_log.h"
#include "tests/curated/test_fleet.h"

namespace arancini::curated {
namespace {

namespace pb = control::v1;

// A control server with the loop that accepts its callers.
class Control : public ::testing::Test {
 protected:
  void SetUp() override {
    RouterEntry entry;
    entry.name = "core-c";
    entry.address = *AddressRange::parse("192.0.2.7");
    t_.config.routers.entries.push_back(entry);
    fleet_.set_live(t_.config);
    auto made = ControlServer::start(t_.config, fleet_, log_, {});
    ASSERT_TRUE(made) << made.error();
    server_ = std::move(made).value();
    loop_ = std::thread([this] {
      while (!stop_) {
        pollfd wait{server_->poll_fd(), POLLIN, 0};
        if (::poll(&wait, 1, 50) > 0) server_->accept_callers();
      }
    });
    channel_ = grpc::CreateChannel("unix:" + t_.config.control_path(), grpc::InsecureChannelCredentials());
  }
  void TearDown() override {
    stop_ = true;
    if (loop_.joinable()) loop_.join();
  }
  static void set_deadline(grpc::ClientContext& context) {
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  }

  TestFleet t_;
  Fleet fleet_{t_.config, t_.clock, nullptr};
  Logger log_{"test", LogLevel::Error};
  std::unique_ptr<ControlServer> server_;
  std::thread loop_;
  std::atomic<bool> stop_{false};
  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(Control, AnswersStatus) {
  auto ingestd = t_.ingestd(0);
  auto publishd = t_.publishd();
  ingestd.set(IngestMetric::SessionsOpen, 3);
  ingestd.set(IngestMetric::UpdatesAnnounced, 10);
  ingestd.set(IngestMetric::UpdatesWithdrawn, 4);
  publishd.set(PublishMetric::NatsConnected, 1);
  publishd.set(PublishMetric::StreamLastSequence, 77);
  grpc::ClientContext context;
  set_deadline(context);
  pb::Status status;
  const auto rc = pb::Control::NewStub(channel_)->GetStatus(&context, {}, &status);
  ASSERT_TRUE(rc.ok()) << rc.error_message();
  EXPECT_EQ(status.instance(), "arancini");
  EXPECT_EQ(status.version(), ARANCINI_VERSION);
  EXPECT_EQ(status.nats().url(), "nats://127.0.0.1:4222");
  EXPECT_EQ(status.nats().state(), "connected");
  EXPECT_EQ(status.nats().last_sequence(), 77U);
  ASSERT_EQ(status.shards_size(), 2);
  EXPECT_EQ(status.shards(0).sessions(), 3U);
  EXPECT_EQ(status.shards(0).updates(), 14U);
  ASSERT_EQ(status.processes_size(), 4);
  EXPECT_EQ(status.processes(0).name(), "curated");
  EXPECT_EQ(status.processes(1).name(), "publishd");
  EXPECT_EQ(status.processes(2).name(), "ingestd@0");
  EXPECT_EQ(status.processes(2).state(), "running");
  EXPECT_EQ(status.processes(2).uptime_s(), 90U);
  EXPECT_EQ(status.processes(3).state(), "stopped");
}

TEST_F(Control, ListsRouters) {
  auto ingestd = t_.ingestd(1);
  TestFleet::add_router(ingestd, 0, "192.0.2.1", "edge1");
  grpc::ClientContext context;
  set_deadline(context);
  pb::ListRoutersResponse answer;
  ASSERT_TRUE(pb::Control::NewStub(channel_)->ListRouters(&context, {}, &answer).ok());
  ASSERT_EQ(answer.routers_size(), 1);
  const pb::Router& r = answer.routers(0);
  EXPECT_EQ(r.address(), "192.0.2.1");
  EXPECT_EQ(r.name(), "edge1");
  EXPECT_EQ(r.state(), "initiated");
  EXPECT_EQ(r.shard(), 1U);
  EXPECT_EQ(r.routes(), 700U);
  EXPECT_EQ(r.last_error_code(), 205U);
  EXPECT_EQ(r.last_error(), "attribute 2 at byte 31");
  EXPECT_TRUE(r.throttled());
  EXPECT_EQ(r.condition(), "throttled");
  EXPECT_EQ(r.concern(), "notice");
  EXPECT_NE(r.diagnosis().find("ring of shard 1"), std::string::npos) << r.diagnosis();
  EXPECT_NE(r.advice().find("NATS"), std::string::npos) << r.advice();
}

// Several routers behind one address are told apart by the name that ingestd gave them, whatever they say.
TEST_F(Control, ShowsTheNamesOfTheConfiguration) {
  auto ingestd = t_.ingestd(0);
  TestFleet::add_router(ingestd, 0, "192.0.2.7", "a", "core-a");
  TestFleet::add_router(ingestd, 1, "192.0.2.7", "a", "core-b");
  TestFleet::add_peer(ingestd, 0, 0, "198.51.100.1");
  TestFleet::add_peer(ingestd, 1, 1, "198.51.100.2");
  const auto stub = pb::Control::NewStub(channel_);
  grpc::ClientContext context;
  set_deadline(context);
  pb::ListRoutersResponse answer;
  ASSERT_TRUE(stub->ListRouters(&context, {}, &answer).ok());
  ASSERT_EQ(answer.routers_size(), 2);
  EXPECT_EQ(answer.routers(0).name(), "core-a");
  EXPECT_EQ(answer.routers(1).name(), "core-b");
  const auto peers_of = [&](const std::string& router) {
    grpc::ClientContext call;
    set_deadline(call);
    pb::ListPeersRequest request;
    request.set_router(router);
    pb::ListPeersResponse peers;
    EXPECT_TRUE(stub->ListPeers(&call, request, &peers).ok());
    std::string all;
    for (const auto& p : peers.peers()) all += p.address() + " ";
    return all;
  };
  EXPECT_EQ(peers_of("core-b"), "198.51.100.2 ");
  EXPECT_EQ(peers_of("core-c"), "") << "configured, but never seen";
  EXPECT_EQ(peers_of("192.0.2.7"), "198.51.100.1 198.51.100.2 ");
}

TEST_F(Control, ListsPeersOfAllOrOfOneRouter) {
  auto ingestd = t_.ingestd(0);
  TestFleet::add_router(ingestd, 0, "192.0.2.1", "edge1");
  TestFleet::add_router(ingestd, 1, "2001:db8::1", "edge2");
  TestFleet::add_peer(ingestd, 0, 0, "198.51.100.1");
  TestFleet::add_peer(ingestd, 1, 1, "2001:db8::9");
  const auto list = [&](const std::string& router, pb::ListPeersResponse& answer) {
    grpc::ClientContext context;
    set_deadline(context);
    pb::ListPeersRequest request;
    request.set_router(router);
    return pb::Control::NewStub(channel_)->ListPeers(&context, request, &answer);
  };
  pb::ListPeersResponse all;
  ASSERT_TRUE(list("", all).ok());
  ASSERT_EQ(all.peers_size(), 2);
  const pb::Peer& p = all.peers(0);
  EXPECT_EQ(p.router(), "192.0.2.1");
  EXPECT_EQ(p.address(), "198.51.100.1");
  EXPECT_EQ(p.distinguisher(), "65000:7");
  EXPECT_EQ(p.asn(), 65001U);
  EXPECT_EQ(p.bgp_id(), "10.0.0.1");
  EXPECT_EQ(p.view(), "adj-in-post");
  EXPECT_EQ(p.state(), "up");
  pb::ListPeersResponse one;
  ASSERT_TRUE(list("2001:DB8:0::1", one).ok());
  ASSERT_EQ(one.peers_size(), 1);
  EXPECT_EQ(one.peers(0).address(), "2001:db8::9");
  pb::ListPeersResponse none;
  ASSERT_TRUE(list("192.0.2.99", none).ok());
  EXPECT_EQ(none.peers_size(), 0);
  const auto refused = list("edge1", none);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_NE(refused.error_message().find("aranctl routers"), std::string::npos);
}

// Calls a method by name with raw bytes, as a client without our stubs does. Returns the answer's bytes.
std::string raw_call(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                     const std::string& body, bool stream) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  grpc::CompletionQueue queue;
  const grpc::Slice slice(body);
  const grpc::ByteBuffer request(&slice, 1);
  grpc::ByteBuffer response;
  grpc::Status status;
  const auto next = [&] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  if (stream) {
    const auto call = stub.PrepareCall(&context, method, &queue);
    call->StartCall(nullptr);
    EXPECT_TRUE(next());
    call->Write(request, nullptr);
    EXPECT_TRUE(next());
    call->Read(&response, nullptr);
    EXPECT_TRUE(next());
    call->WritesDone(nullptr);
    EXPECT_TRUE(next());
    call->Finish(&status, nullptr);
    EXPECT_TRUE(next());
  } else {
    const auto call = stub.PrepareUnaryCall(&context, method, request, &queue);
    call->StartCall();
    call->Finish(&response, &status, nullptr);
    EXPECT_TRUE(next());
  }
  EXPECT_TRUE(status.ok()) << status.error_message();
  std::vector<grpc::Slice> slices;
  response.Dump(&slices);
  std::string out;
  for (const grpc::Slice& s : slices) out.append(reinterpret_cast<const char*>(s.begin()), s.size());
  return out;
}

TEST_F(Control, AnswersTheStandardHealthService) {
  // HealthCheckRequest{service=1}, HealthCheckResponse{status=1: SERVING}
  EXPECT_EQ(raw_call(channel_, "/grpc.health.v1.Health/Check", "", false), "\x08\x01");
  const std::string name = "arancini.control.v1.Control";
  EXPECT_EQ(raw_call(channel_, "/grpc.health.v1.Health/Check",
                     "\x0a" + std::string(1, static_cast<char>(name.size())) + name, false),
            "\x08\x01");
}

TEST_F(Control, AnswersReflection) {
  // ServerReflectionRequest{list_services=7: "*"}
  const std::string answer =
      raw_call(channel_, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
               std::string("\x3a\x01*"), true);
  EXPECT_NE(answer.find("arancini.control.v1.Control"), std::string::npos);
  EXPECT_NE(answer.find("grpc.health.v1.Health"), std::string::npos);
}

TEST_F(Control, SocketIsForTheOwnerAndTheGroupOnly) {
  struct stat s {};
  ASSERT_EQ(::stat(t_.config.control_path().c_str(), &s), 0);
  EXPECT_EQ(s.st_mode & 07777, 0660U);
}

TEST_F(Control, WritesDownWhoChangedWhat) {
  std::filesystem::create_directories(t_.config.paths.state_dir);
  grpc::ClientContext context;
  set_deadline(context);
  pb::DumpRequest request;
  request.set_router("no\n\"address\"");
  pb::DumpReply reply;
  EXPECT_FALSE(pb::Control::NewStub(channel_)->Dump(&context, request, &reply).ok());
  std::ifstream in(t_.config.paths.state_dir + "/audit.log");
  std::string line;
  ASSERT_TRUE(std::getline(in, line));
  const std::string who = fmt::format(" uid={} gid={} pid={} user=", ::geteuid(), ::getegid(), ::getpid());
  EXPECT_NE(line.find(who), std::string::npos) << line;
  EXPECT_NE(line.find(" command=Dump arguments=\"router: "), std::string::npos) << line;
  EXPECT_NE(line.find("is neither an address nor a name of"), std::string::npos) << line;
  EXPECT_FALSE(std::getline(in, line)) << "one line for a call: " << line;
  struct stat s {};
  ASSERT_EQ(::stat((t_.config.paths.state_dir + "/audit.log").c_str(), &s), 0);
  EXPECT_EQ(s.st_mode & 0137, 0U);
}

// A shard that drains, until it does not any more, and answers look-ups when it is told to.
class FakeShard final : public shard::v1::Shard::Service {
 public:
  explicit FakeShard(const std::string& path) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + path, grpc::InsecureServerCredentials());
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~FakeShard() override { server_->Shutdown(std::chrono::system_clock::now()); }
  grpc::Status Drain(grpc::ServerContext*, const shard::v1::DrainRequest* request,
                     shard::v1::DrainReply* out) override {
    out->set_draining(request->action() == shard::v1::DrainRequest::LOOK && ++looks_ <= 2);
    out->set_ring_used_bytes(100);
    return grpc::Status::OK;
  }

  // Answers when answer() was called.
  grpc::Status Lookup(grpc::ServerContext*, const shard::v1::LookupRequest* request,
                      grpc::ServerWriter<shard::v1::LookupReply>* writer) override {
    limit_ = request->limit();
    {
      const std::lock_guard lock(mutex_);
      ++lookups_;
    }
    changed_.notify_all();
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return answers_; });
    shard::v1::LookupReply reply;
    reply.set_truncated(true);
    writer->Write(reply);
    return grpc::Status::OK;
  }
  // True when so many look-ups have come.
  bool asked(int times) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), [&] { return lookups_ >= times; });
  }
  void answer() {
    {
      const std::lock_guard lock(mutex_);
      answers_ = true;
    }
    changed_.notify_all();
  }
  [[nodiscard]] std::uint64_t limit() const { return limit_; }

 private:
  std::atomic<int> looks_{0};
  std::atomic<std::uint64_t> limit_{0};
  std::mutex mutex_;  // of the next two
  int lookups_ = 0;
  bool answers_ = false;
  std::condition_variable changed_;
  std::unique_ptr<grpc::Server> server_;
};

TEST_F(Control, ADrainThatIsUndoneEndsAndTheAuditHasItsBeginAndItsEnd) {
  std::filesystem::create_directories(t_.config.paths.state_dir);
  FakeShard shard(t_.config.ingestd_control_path(0));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(50));
  pb::DrainRequest request;
  request.set_shard(0);
  request.set_timeout_s(3600);
  pb::DrainReply reply;
  const auto rc = pb::Control::NewStub(channel_)->Drain(&context, request, &reply);
  ASSERT_TRUE(rc.ok()) << rc.error_message();
  ASSERT_EQ(reply.problems_size(), 1);
  EXPECT_EQ(reply.problems(0).shard(), 0U);
  EXPECT_NE(reply.problems(0).text().find("the drain was undone (by another call, or a restart)"),
            std::string::npos)
      << reply.problems(0).text();
  std::ifstream in(t_.config.paths.state_dir + "/audit.log");
  std::string begun, ended;
  ASSERT_TRUE(std::getline(in, begun) && std::getline(in, ended));
  const std::string what =
      fmt::format(" command=Drain call={}.1 arguments=\"shard: 0 timeout_s: 3600\" result=\"", ::getpid());
  EXPECT_NE(begun.find(what + "begun\""), std::string::npos) << begun;
  EXPECT_NE(ended.find(what + "shard 0: "), std::string::npos) << ended;
}

TEST_F(Control, BoundsLookupsAndWhatTheyHold) {
  FakeShard shard(t_.config.ingestd_control_path(0));
  const auto stub = pb::Control::NewStub(channel_);
  pb::LookupRequest request;
  request.set_prefix("0.0.0.0/0");
  request.set_match(pb::LookupRequest::LONGER);
  const auto look_up = [&](grpc::ClientContext& context) {
    set_deadline(context);
    return stub->Lookup(&context, request);
  };
  pb::LookupReply reply;
  std::array<grpc::ClientContext, 2> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<pb::LookupReply>>> two;
  for (grpc::ClientContext& context : contexts) two.push_back(look_up(context));
  EXPECT_TRUE(shard.asked(2));
  {
    grpc::ClientContext context;
    const grpc::Status third = look_up(context)->Finish();
    EXPECT_EQ(third.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
    EXPECT_EQ(third.error_message(), "2 look-ups are under way: try again when one has ended");
  }
  EXPECT_EQ(shard.limit(), 100'000U) << "no limit was asked for";
  shard.answer();
  for (const auto& reader : two) {
    EXPECT_TRUE(reader->Read(&reply));
    EXPECT_TRUE(reply.truncated());
    EXPECT_FALSE(reader->Read(&reply));
    EXPECT_TRUE(reader->Finish().ok());
  }
  grpc::ClientContext context;
  EXPECT_TRUE(look_up(context)->Read(&reply)) << "there is room again";
}

TEST_F(Control, WithoutAnAuditFileCallsAreServedAndItIsCounted) {
  grpc::ClientContext context;
  set_deadline(context);
  pb::TakeSnapshotReply reply;  // the state directory is missing
  EXPECT_TRUE(pb::Control::NewStub(channel_)->TakeSnapshot(&context, {}, &reply).ok());
  EXPECT_EQ(reply.problems_size(), 2);
  EXPECT_EQ(fleet_.control().audit_errors, 1U);
}

TEST_F(Control, TellsWatchersAtOnceWhenAStateChanges) {
  auto ingestd = t_.ingestd(0);
  grpc::ClientContext context;
  set_deadline(context);
  pb::WatchStatusRequest request;
  request.set_interval_ms(60'000);
  const auto stub = pb::Control::NewStub(channel_);
  const auto reader = stub->WatchStatus(&context, request);
  pb::Status status;
  ASSERT_TRUE(reader->Read(&status));
  EXPECT_EQ(status.processes(2).state(), "running");
  ingestd.set_state(shm::ProcessState::Draining);
  ASSERT_TRUE(reader->Read(&status));
  EXPECT_EQ(status.processes(2).state(), "draining");
  context.TryCancel();
}

TEST_F(Control, RefusesSillyIntervalsAndTooManyWatchers) {
  const auto stub = pb::Control::NewStub(channel_);
  const auto watch = [&](grpc::ClientContext& context, std::uint32_t interval_ms) {
    set_deadline(context);
    pb::WatchStatusRequest request;
    request.set_interval_ms(interval_ms);
    return stub->WatchStatus(&context, request);
  };
  pb::Status status;
  for (const std::uint32_t interval : {99U, 60'001U}) {
    grpc::ClientContext context;
    EXPECT_EQ(watch(context, interval)->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  }
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<pb::Status>>> watchers;
  for (int i = 0; i < 16; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    watchers.push_back(watch(*contexts.back(), 0));
    ASSERT_TRUE(watchers.back()->Read(&status)) << i;
  }
  grpc::ClientContext context;
  const auto one_more = watch(context, 0);
  EXPECT_FALSE(one_more->Read(&status));
  EXPECT_EQ(one_more->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  for (const auto& c : contexts) c->TryCancel();
}

TEST(AuditLog, BeginsAnewAtItsBound) {
  TestFleet t;
  ControlCounters counters;
  const std::string path = t.config.paths.runtime_dir + "/audit.log";
  AuditLog audit(path, LogLevel::Error, counters, 500);
  for (int i = 0; i < 6; ++i) audit.add({"uid=1", "Drain", std::string(1000, 'x'), "ok", true}, 0);
  EXPECT_LE(std::filesystem::file_size(path), 500U);
  EXPECT_LE(std::filesystem::file_size(path + ".1"), 500U);
  EXPECT_EQ(counters.audit_errors, 0U);
  EXPECT_EQ(quoted("a\"b\\\n\x7f", 10), "\"a\\\"b\\\\??\"");
}

TEST(ControlStart, ReplacesTheSocketOfADeadCuratedAndRefusesLongPaths) {
  TestFleet t;
  Fleet fleet(t.config, t.clock, nullptr);
  Logger log("test", LogLevel::Error);
  {
    auto first = ControlServer::start(t.config, fleet, log, {});
    ASSERT_TRUE(first) << first.error();
    auto second = ControlServer::start(t.config, fleet, log, {});
    ASSERT_TRUE(second) << second.error();
  }
  t.config.paths.runtime_dir = "/tmp/" + std::string(120, 'x');
  const auto too_long = ControlServer::start(t.config, fleet, log, {});
  ASSERT_FALSE(too_long);
  EXPECT_NE(too_long.error().find("shorter --runtime-dir"), std::string::npos);
}

}  // namespace
}  // namespace arancini::curated
