#include <future>

#include "common/snapshot/snapshot_reader.h"
#include "common/snapshot/snapshot_writer.h"
#include "ingestd/snapshot_stores.h"
#include "tests/publishd/nats_fixture.h"

// ingestd's store of snapshots in a NATS key-value bucket: through a real publishd and a real nats-server.
namespace arancini::publishd::test {
namespace {

using snapshot::SnapshotName;

class SnapshotKv : public NatsTest {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(dir_.path() + "/run");
    nats_.start("max_payload: 65536");
    store_ = ingestd::open_kv_store(socket());
  }
  [[nodiscard]] std::string socket() const { return dir_.path() + "/run/publishd.sock"; }
  void run_publishd() {
    start_publishd(nats_.url());
    ASSERT_TRUE(wait_until([&] { return store_->list().ok(); })) << log();
  }
  // About `routes` times 60 bytes.
  static std::string write(snapshot::SnapshotSink& sink, unsigned routes) {
    snapshot::SnapshotWriter writer(sink);
    snapshot::Header header;
    header.shard_count = 2;
    header.number = 7;
    writer.begin(header);
    writer.router({});
    writer.view({});
    writer.table({});
    for (unsigned i = 0; i < routes; ++i) {
      const std::string bytes = fmt::format("{:050}", i);
      writer.attributes({i + 1, {}, {}, std::as_bytes(std::span(bytes))});
      writer.route(0, kIpv4Unicast, {{0, kV4MappedLow | (i << 8U), 0, 24}, i + 1, 0});
    }
    snapshot::End end;
    end.routes = routes;
    return writer.finish(end);
  }
  std::string put(const SnapshotName& name, unsigned routes) {
    auto sink = store_->create(name);
    if (!sink) return sink.error();
    if (std::string error = write(**sink, routes); !error.empty()) return error;
    return (*sink)->commit();
  }
  // Of a whole and good one; else what is wrong.
  Result<std::uint64_t, std::string> routes(const SnapshotName& name) {
    auto source = store_->open(name);
    if (!source) return Err{source.error()};
    const auto read = snapshot::check_snapshot(**source);
    if (!read) return Err{read.error().text};
    return read->routes;
  }
  std::vector<SnapshotName> names() {
    auto list = store_->list();
    EXPECT_TRUE(list) << list.error();
    std::sort(list->begin(), list->end());
    return *list;
  }

  std::unique_ptr<snapshot::SnapshotStore> store_;
  const SnapshotName one_{0, 2, 7}, two_{1, 2, 8};
};

TEST_F(SnapshotKv, KeepsWhatIsCommittedAndNothingElse) {
  run_publishd();
  EXPECT_TRUE(names().empty());
  EXPECT_FALSE(routes(one_));
  ASSERT_EQ(put(one_, 50'000), "");  // 3.8 MB, in messages of 64 KiB
  ASSERT_EQ(put(two_, 10), "");
  EXPECT_EQ(names(), (std::vector{one_, two_}));
  EXPECT_EQ(routes(one_).value(), 50'000U);
  EXPECT_EQ(routes(two_).value(), 10U);
  {
    auto sink = store_->create({0, 2, 9});
    ASSERT_TRUE(sink);
    ASSERT_EQ(write(**sink, 10'000), "");
  }
  EXPECT_EQ(names(), (std::vector{one_, two_}));
  {
    auto source = store_->open(one_);  // given up in the middle
    const auto header = snapshot::read_header(**source);
    ASSERT_TRUE(header) << header.error().text;
    EXPECT_EQ(header->number, 7U);
  }
  EXPECT_EQ(store_->remove(one_), "");
  EXPECT_EQ(store_->remove(one_), "");
  EXPECT_EQ(names(), (std::vector{two_}));
}

TEST_F(SnapshotKv, SetAsideIsKeptUnderAnotherName) {
  run_publishd();
  ASSERT_EQ(put(one_, 5000), "");
  EXPECT_EQ(store_->set_aside(one_), "");
  EXPECT_TRUE(names().empty());
  EXPECT_FALSE(routes(one_));
  const auto bytes = [&] {
    natsConnection* nc = nullptr;
    jsCtx* js = nullptr;
    jsStreamInfo* info = nullptr;
    EXPECT_EQ(natsConnection_ConnectTo(&nc, nats_.url().c_str()), NATS_OK);
    EXPECT_EQ(natsConnection_JetStream(&js, nc, nullptr), NATS_OK);
    EXPECT_EQ(js_GetStreamInfo(&info, js, "KV_ARANCINI_SNAPSHOTS", nullptr, nullptr), NATS_OK);
    const std::uint64_t n = info != nullptr ? info->State.Bytes : 0;
    jsStreamInfo_Destroy(info);
    jsCtx_Destroy(js);
    natsConnection_Destroy(nc);
    return n;
  };
  EXPECT_GT(bytes(), 5000U * 60U) << "the copy is there";
}

TEST_F(SnapshotKv, WithoutPublishdItIsSaidAndWithItItGoesOn) {
  EXPECT_NE(store_->list().error().find("publishd at "), std::string::npos) << store_->list().error();
  EXPECT_NE(put(one_, 10), "");
  EXPECT_NE(store_->remove(one_), "");
  run_publishd();
  ASSERT_EQ(put(one_, 10), "");
  auto sink = store_->create(two_);
  ASSERT_TRUE(sink);
  ASSERT_EQ(write(**sink, 1000), "");
  publishd_.kill(SIGKILL);
  EXPECT_NE((*sink)->commit(), "");
  (*sink).reset();
  run_publishd();
  EXPECT_EQ(names(), (std::vector{one_}));
  ASSERT_EQ(put(two_, 10), "");
}

// Whoever stops does not wait for a broker.
TEST_F(SnapshotKv, InterruptedItEnds) {
  run_publishd();
  ASSERT_EQ(put(one_, 10), "");
  nats_.child().kill(SIGKILL);
  auto listed = std::async(std::launch::async, [&] { return store_->list(); });
  store_->interrupt();
  EXPECT_EQ(listed.wait_for(std::chrono::seconds(5)), std::future_status::ready);
  EXPECT_FALSE(store_->list()) << "nothing begins any more";
  EXPECT_NE(put(two_, 10), "");
}

}  // namespace
}  // namespace arancini::publishd::test
