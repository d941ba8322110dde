#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/log.h"
#include "common/metrics/stats_file.h"
#include "common/ring/ring_file.h"
#include "common/ring/ring_reader.h"
#include "common/ring/ring_writer.h"
#include "common/schema/event_decode.h"
#include "common/schema/update_decode.h"
#include "common/wire/bgp_update.h"
#include "ingestd/attribute_set.h"
#include "ingestd/recording.h"
#include "ingestd/shard.h"
#include "ingestd/shard_impl.h"
#include "tests/ingestd/bmp_builder.h"

// A shard on a real ring in a temporary directory, with a reader that folds what was written and checks on
// the way that nothing was said twice, nothing unknown was withdrawn, and the sequences are dense.
namespace arancini::testing {

using ingestd::HashSeed;
using ingestd::SessionId;
using ingestd::Shard;

struct RouteKey {
  IpAddress router, peer;
  std::uint8_t peer_type = 0;
  std::uint64_t distinguisher = 0;
  View view = View::AdjInPre;
  Family family;
  IpAddress prefix;
  std::uint8_t length = 0;
  std::uint32_t path_id = 0;
  std::string name{};  // of the router, where it has one
  friend auto operator<=>(const RouteKey&, const RouteKey&) = default;
};

struct ToldRoute {
  std::vector<std::uint32_t> as_path;
  IpAddress next_hop;
  std::uint32_t med = 0;
  std::uint32_t peer_asn = 0;
  friend bool operator==(const ToldRoute&, const ToldRoute&) = default;
};

class TempDir {
 public:
  TempDir() {
    const std::filesystem::path memory = "/dev/shm";
    const auto base = std::filesystem::is_directory(memory) ? memory : std::filesystem::temp_directory_path();
    std::string name = (base / "arancini-shard-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path_ = name;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  [[nodiscard]] std::string file(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

// The shard as the loop sees it.
class DirectSink final : public ingestd::SessionSink {
 public:
  explicit DirectSink(Shard& shard) : shard_(shard) {}
  SessionId open_session(const IpAddress& source, std::uint16_t port) override {
    return shard_.open_session(source, port);
  }
  Shard::Applied apply(SessionId session, std::span<const std::byte> message) override {
    return shard_.apply(session, message);
  }
  void look_ahead(SessionId session, std::span<const std::byte> message) override {
    shard_.look_ahead(session, message);
  }
  void session_error(SessionId session, ErrorCode code, std::string_view text) override {
    shard_.session_error(session, code, text);
  }
  void close_session(SessionId session) override { shard_.close_session(session); }
  void set_throttled(SessionId session, bool throttled) override { shard_.set_throttled(session, throttled); }
  std::optional<SessionId> take_session_to_close() override { return shard_.take_session_to_close(); }
  Shard::Work do_work() override { return shard_.do_work(); }
  void publish() override { shard_.publish(); }
  void finish() override { shard_.finish(); }
  void heartbeat(std::uint64_t) override {}

 private:
  Shard& shard_;
};

class ShardHarness {
 public:
  struct Options {
    std::uint64_t ring_bytes = 1U << 20;
    std::uint32_t routers = 16;
    std::uint32_t peers = 64;
    double grace_s = 300, resync_timeout_s = 300, resync_settle_s = 5;
    bool keep_updates = true;
    bool keep_bytes = false;
    bool keep_log = false;  // payloads of updates, for log()
    bool drop_newest = false;
    bool record = false;  // what goes through sink(); fill() does nothing then
    std::size_t record_queue_bytes = 4U << 20;
    double dump_interval_s = 0;
    bool log_follows = true;
    bool curate = true;
    RouterRules rules{};
  };
  ShardHarness() : ShardHarness(Options{}) {}
  explicit ShardHarness(const Options& options) : options_(options) {
    if (options.drop_newest) config_.ring.when_full = WhenRingFull::DropNewest;
    config_.curation.enabled = options.curate;
    config_.ring.hugepages = HugepageMode::Never;  // limits of memory are to hold to the page
    config_.routers = options.rules;
    config_.curation.session_grace_s = options.grace_s;
    config_.dump.interval_s = options.dump_interval_s;
    config_.curation.resync_timeout_s = options.resync_timeout_s;
    config_.curation.resync_settle_s = options.resync_settle_s;
    auto file = RingFile::create_or_attach(dir_.file("ring"), {.capacity_bytes = options.ring_bytes,
                                                               .shard = 0,
                                                               .hugepages = HugepageMode::Never,
                                                               .created_realtime_ns = 0});
    if (!file) throw std::runtime_error(file.error().text);
    writer_ = std::make_unique<RingWriter>(std::move(file.value()));
    auto attached = RingFile::attach(dir_.file("ring"), RingSide::Reader);
    if (!attached) throw std::runtime_error(attached.error().text);
    reader_ = std::make_unique<RingReader>(std::move(attached.value()));
    make_stats();
    start();
  }
  // As a new process that takes over the ring.
  void restart() {
    shard_->publish();
    drain();
    shard_.reset();
    dumps_.clear();
    start();
  }

  // As kill -9 and a new process: what was not published to the ring has not happened. What the new shard
  // must know, the caller tells it.
  void crash() {
    sink_ = nullptr;
    direct_.reset();
    shard_.reset();
    recording_.reset();
    writer_.reset();
    auto file = RingFile::create_or_attach(
        dir_.file("ring"),
        {.capacity_bytes = options_.ring_bytes, .hugepages = HugepageMode::Never, .created_realtime_ns = 0});
    if (!file) throw std::runtime_error(file.error().text);
    writer_ = std::make_unique<RingWriter>(std::move(file.value()));
    stats_.reset();
    make_stats();
    start();
  }
  // Payloads of updates that were read, in order: what consumers have. The first is number 1.
  [[nodiscard]] const std::vector<Buffer>& log() const { return log_; }
  [[nodiscard]] RingPosition shard_ring_end() const { return writer_->tail(); }
  // Everything below it was read.
  [[nodiscard]] RingPosition read_to() const { return read_to_; }
  // The log is lost, and with it what consumers know.
  void lose_log() {
    log_.clear();
    table_.clear();
    said_.clear();
  }

  // Consumers read on behind what `before` has told.
  void follow(const ShardHarness& before) {
    table_ = before.table_;
    said_ = before.said_;
  }

  Shard& shard() { return *shard_; }
  // The shard, or the recording in front of it.
  ingestd::SessionSink& sink() { return *sink_; }
  ingestd::Recorder* recorder() { return recording_->recorder(); }
  // Ends it; nothing may be done any more. Where it is.
  std::string finish_recording() {
    sink().publish();
    drain();
    const std::string path = recording_->recorder()->path();
    shard_.reset();
    recording_.reset();
    return path;
  }
  // Headers and payloads of all that was read, with `record`.
  [[nodiscard]] const Buffer& records() const { return records_; }
  RingWriter& writer() { return *writer_; }
  RingReader& reader() { return *reader_; }
  FakeClock& clock() { return clock_; }
  [[nodiscard]] std::uint64_t metric(IngestMetric m) const { return stats_->get(m); }
  [[nodiscard]] StatsReader rows() {
    sink_->do_work();
    auto reader = StatsReader::open(dir_.file("stats"));
    if (!reader) throw std::runtime_error(reader.error());
    return std::move(reader.value());
  }

  SessionId open(std::string_view router = "192.0.2.1", std::uint16_t port = 30000) {
    return sink_->open_session(ip(router), port);
  }
  // Applies the message, reading the ring where it is full.
  void send(SessionId session, const Buffer& message) {
    for (int i = 0; i < 100000; ++i) {
      if (sink_->apply(session, message) == Shard::Applied::Done) return;
      sink_->publish();
      drain();
      sink_->do_work();
    }
    FAIL() << "a message is never done";
  }
  // Until sweeps have ended and everything is read.
  void settle() {
    for (int i = 0; i < 100000; ++i) {
      const Shard::Work work = sink_->do_work();
      sink_->publish();
      drain();
      if (!work.more && metric(IngestMetric::SweepsRunning) == 0 && metric(IngestMetric::RoutesUntold) == 0)
        return;
    }
    FAIL() << "sweeps never end";
  }
  void pass_time(double seconds) {
    clock_.now_ns += static_cast<std::uint64_t>(seconds * 1e9);
    settle();
  }

  // Says that what was read is in the log; drain() does so itself unless options.log_follows is false.
  void put_in_log() {
    reader_->file().header().reader.published.store(raw(reader_->head()), std::memory_order_release);
    for (auto& [router, dump] : dumps_) {
      if (dump.late_from == 0 && reader_->head() >= dump.start_end)
        dump.late_from = raw(writer_->next_sequence());
    }
  }
  // As publishd does when the log began anew.
  void request_dump() { reader_->file().header().reader.dump_request.fetch_add(1); }

  // Reads up to `records` records and folds them.
  std::size_t drain(std::size_t records = SIZE_MAX) {
    std::size_t n = 0;
    for (; n < records && !folded_.empty(); ++n) {
      reader_->release(folded_.front());
      folded_.pop_front();
    }
    RingRecord record;
    for (; n < records && reader_->next(record) == RingReader::Status::Record; ++n) {
      fold(record);
      reader_->release(record.end);
    }
    if (options_.log_follows) put_in_log();
    return n;
  }
  // Writes barriers about nobody until there is room for `leave_bytes` at most.
  void fill(std::uint32_t leave_bytes = 0) {
    if (options_.record) return;
    for (std::uint32_t bytes = writer_->max_record_bytes(); bytes >= sizeof(shm::RecordHeader);) {
      if (!writer_->has_room(bytes + leave_bytes)) {
        bytes = bytes / 2 & ~7U;
        continue;
      }
      (void)writer_->claim(bytes);
      shm::RecordHeader header{};
      header.size_bytes = bytes;
      header.kind = static_cast<std::uint8_t>(shm::RecordKind::Barrier);
      header.first_sequence = raw(writer_->next_sequence());
      header.router_id = kNobody;
      writer_->append(header);
    }
    writer_->publish();
  }
  // Folds all that is written, and leaves it in the ring for drain(): no room comes of it.
  void peek() {
    sink_->publish();
    RingRecord record;
    while (reader_->next(record) == RingReader::Status::Record) {
      fold(record);
      folded_.push_back(record.end);
    }
  }
  // What the shard believes it has told is what the records say; its flags and counts agree with its tables.
  void expect_told_is_what_was_written() {
    peek();
    ingestd::Shard::Impl& s = shard_->impl();
    std::map<RouteKey, ToldRoute> believed;
    ingestd::UntoldCounts all;
    s.peers.each_view([&](ingestd::PeerView& view) {
      ingestd::UntoldCounts counts;
      std::uint64_t routes = 0;
      view.each_table([&](ingestd::RibTable& table) {
        ASSERT_TRUE(table.untold.size() == 0 || table.has_untold);
        const auto told = [&](const Prefix& prefix, ingestd::AttrId attr) {
          ASSERT_TRUE(view.told_asn.has_value());
          believed.emplace(key_of(table, prefix), told_route(attr, table.family, *view.told_asn));
        };
        ingestd::WalkCursor cursor;
        while (!cursor.done) {
          table.routes.walk(cursor, 1000, [&](const Prefix& prefix, ingestd::RouteState& route) {
            ++routes;
            const ingestd::RouteState* entry = table.untold.find(prefix);
            EXPECT_EQ((route.flags & ingestd::kRouteDirty) != 0, entry != nullptr);
            const bool known = entry == nullptr || (entry->flags & ingestd::kRouteTold) != 0;
            EXPECT_EQ((route.flags & ingestd::kRouteTold) != 0, known);
            EXPECT_TRUE(entry != nullptr || ingestd::Untold::same_identity(view));
            if (entry == nullptr) told(prefix, route.attr);
            return ingestd::WalkAction::Keep;
          });
        }
        cursor = {};
        while (!cursor.done) {
          table.untold.walk(cursor, 1000, [&](const Prefix& prefix, ingestd::RouteState& entry) {
            const bool known = (entry.flags & ingestd::kRouteTold) != 0;
            const bool gone = (entry.flags & ingestd::kRouteGone) != 0;
            EXPECT_EQ(gone, table.routes.find(prefix) == nullptr);
            EXPECT_TRUE(known || !gone);
            ++counts.entries;
            counts.told += known ? 1 : 0;
            counts.gone += gone ? 1 : 0;
            if (known) told(prefix, entry.attr);
            return ingestd::WalkAction::Keep;
          });
        }
      });
      EXPECT_EQ(view.routes, routes);
      EXPECT_EQ(view.untold.entries, counts.entries);
      EXPECT_EQ(view.untold.told, counts.told);
      EXPECT_EQ(view.untold.gone, counts.gone);
      all.entries += counts.entries;
      all.told += counts.told;
      all.gone += counts.gone;
    });
    EXPECT_EQ(s.context.untold.entries, all.entries);
    EXPECT_EQ(s.context.untold.told, all.told);
    EXPECT_EQ(s.context.untold.gone, all.gone);
    ASSERT_EQ(believed.size(), table_.size());
    for (const auto& [key, route] : table_) {
      const auto found = believed.find(key);
      ASSERT_NE(found, believed.end()) << key.prefix.to_string();
      ASSERT_EQ(found->second.med, route.med) << key.prefix.to_string();
      ASSERT_EQ(found->second.next_hop, route.next_hop) << key.prefix.to_string();
      ASSERT_EQ(found->second.peer_asn, route.peer_asn) << key.prefix.to_string();
    }
  }

  [[nodiscard]] const std::map<RouteKey, ToldRoute>& table() const { return table_; }
  [[nodiscard]] std::vector<schema::DecodedUpdate>& updates() { return updates_; }
  // Read so far.
  [[nodiscard]] std::uint64_t barriers() const { return barriers_; }
  [[nodiscard]] std::uint64_t barriers_for_all() const { return barriers_for_all_; }
  [[nodiscard]] std::vector<schema::EventFields>& events() { return events_; }
  // Those of the kinds.
  [[nodiscard]] std::vector<schema::EventFields> events(
      std::initializer_list<schema::EventKind> kinds) const {
    std::vector<schema::EventFields> out;
    for (const auto& e : events_) {
      if (std::find(kinds.begin(), kinds.end(), e.kind) != kinds.end()) out.push_back(e);
    }
    return out;
  }
  // Complete dumps that were read.
  [[nodiscard]] std::uint64_t dumps() const { return dumps_done_; }
  [[nodiscard]] const Buffer& bytes() const { return bytes_; }
  // Updates since the last call.
  std::vector<schema::DecodedUpdate> take_updates() {
    shard_->publish();
    drain();
    return std::exchange(updates_, {});
  }

 private:
  void make_stats() {
    auto stats = StatsWriter::create(dir_.file("stats"), {.kind = shm::ProcessKind::Ingestd,
                                                          .shard = 0,
                                                          .routers = options_.routers,
                                                          .peers = options_.peers,
                                                          .now_realtime_ns = 0});
    if (!stats) throw std::runtime_error(stats.error());
    stats_ = std::make_unique<StatsWriter>(std::move(stats.value()));
  }

  static constexpr std::uint32_t kNobody = 9999;

  void start() {
    if (options_.record) {
      config_.text = fmt::format(
          "[ring]\nwhen_full = \"{}\"\n[curation]\nsession_grace_s = {}\nresync_timeout_s = {}\n"
          "resync_settle_s = {}\n",
          options_.drop_newest ? "drop-newest" : "block", options_.grace_s, options_.resync_timeout_s,
          options_.resync_settle_s);
    }
    recording_ = std::make_unique<ingestd::Recording>(options_.record ? dir_.file("recording") : "", config_,
                                                      0, *stats_, *writer_, clock_, logger(),
                                                      options_.record_queue_bytes);
    shard_ = std::make_unique<Shard>(config_, *writer_, *stats_, logger(), recording_->clock(),
                                     options_.record ? recording_->seed() : HashSeed{.a = 1, .b = 2});
    direct_ = std::make_unique<DirectSink>(*shard_);
    sink_ = &recording_->front(*shard_, *direct_);
  }

  static Logger& logger() {
    static Logger log("test", LogLevel::Error);
    return log;
  }

  static RouteKey key_of(const schema::DecodedUpdate& u) {
    return {u.router,         u.peer,          u.peer_type, u.peer_distinguisher, u.view, u.family,
            u.prefix_address, u.prefix_length, u.path_id,   u.router_id};
  }

  // All but the ring's own name, which differs in each run.
  void keep(std::span<const std::byte> payload) {
    const auto name = std::as_bytes(std::span(reader_->writer_id().bytes));
    auto at = std::search(payload.begin(), payload.end(), name.begin(), name.end());
    bytes_.insert(bytes_.end(), payload.begin(), at);
    if (at != payload.end()) bytes_.insert(bytes_.end(), at + 16, payload.end());
  }

  static RouteKey key_of(ingestd::RibTable& table, const Prefix& prefix) {
    const ingestd::Peer& peer = table.view.peer;
    return {peer.router->address, peer.key.address, peer.key.type,          peer.key.distinguisher,
            table.view.view,      table.family,     prefix_address(prefix), prefix.length,
            prefix.path_id,       peer.router->name};
  }
  ToldRoute told_route(ingestd::AttrId id, Family family, std::uint32_t asn) {
    const ingestd::AttributeSet set(shard_->impl().context.attributes.parts(id), family);
    const wire::Bytes med = set.attributes.med;
    return {{}, set.next_hop, med.empty() ? 0 : wire::load_be32(med.data()), asn};
  }

  std::uint64_t routes_told(const schema::EventFields& e) const {
    RouteKey first;
    first.router = e.router;
    first.peer = e.peer;
    first.peer_type = e.peer_type;
    first.distinguisher = e.peer_distinguisher;
    first.view = e.view;
    first.family = e.family;
    std::uint64_t n = 0;
    for (auto it = table_.lower_bound(first);
         it != table_.end() && std::tie(it->first.router, it->first.peer, it->first.peer_type,
                                        it->first.distinguisher, it->first.view, it->first.family) ==
                                   std::tie(first.router, first.peer, first.peer_type, first.distinguisher,
                                            first.view, first.family);
         ++it) {
      n += it->first.name == e.router_id ? 1 : 0;
    }
    return n;
  }

  // Consumers that begin with a dump: one at dump_start, and one as late as it may, behind what was written
  // when dump_start was in the log. At dump_end both have the table.
  struct Bootstrap {
    std::map<RouteKey, ToldRoute> early, late;
    RingPosition start_end{};
    std::uint64_t late_from = 0;  // update sequence
    std::uint64_t start = 0, routes = 0;
  };
  void follow_dump(const schema::EventFields& event, RingPosition end) {
    if (event.kind == schema::EventKind::DumpStart) {
      ASSERT_EQ(dumps_.count(event.router), 0U) << "two dumps of a router at a time";
      dumps_[event.router].start = event.sequence;
      dumps_[event.router].start_end = end;
    } else if (event.kind == schema::EventKind::DumpEnd) {
      const auto found = dumps_.find(event.router);
      ASSERT_NE(found, dumps_.end());
      const Bootstrap& b = found->second;
      ASSERT_EQ(event.details.at(0).value, std::to_string(b.start));
      ASSERT_EQ(event.counters.at(0).value, b.routes);
      std::map<RouteKey, ToldRoute> table;
      for (const auto& [key, route] : table_) {
        if (key.router == event.router) table.emplace(key, route);
      }
      ASSERT_EQ(b.early, table);
      ASSERT_EQ(b.late, table);
      dumps_.erase(found);
      ++dumps_done_;
    }
  }
  void follow_dump(const schema::DecodedUpdate& u, const RouteKey& key) {
    const auto found = dumps_.find(u.router);
    if (found == dumps_.end()) {
      ASSERT_NE(u.reason, Reason::Dump) << "outside of a dump";
      return;
    }
    Bootstrap& b = found->second;
    if (u.reason == Reason::Dump) ++b.routes;
    for (auto* table : {&b.early, &b.late}) {
      if (table == &b.late && (b.late_from == 0 || u.sequence < b.late_from)) continue;
      if (u.announced) {
        (*table)[key] = ToldRoute{u.as_path, u.next_hop, u.med, u.peer_asn};
      } else {
        table->erase(key);
      }
    }
  }

  void fold(const RingRecord& record) {
    read_to_ = record.end;
    if (options_.keep_log && record.header.kind == static_cast<std::uint8_t>(shm::RecordKind::UpdateBatch))
      log_.emplace_back(record.payload.begin(), record.payload.end());
    if (options_.record) {
      const auto header = std::as_bytes(std::span(&record.header, 1));
      records_.insert(records_.end(), header.begin(), header.end());
      records_.insert(records_.end(), record.payload.begin(), record.payload.end());
    }
    if (options_.keep_bytes) keep(record.payload);
    if (record.header.kind == static_cast<std::uint8_t>(shm::RecordKind::Event)) {
      ASSERT_EQ(record.header.first_sequence, next_sequence_);
      schema::EventFields event;
      ASSERT_EQ(schema::decode_event(record.payload, event), std::nullopt);
      ASSERT_EQ(event.writer, reader_->writer_id());
      ASSERT_EQ(event.sequence, record.header.event_sequence);
      ASSERT_EQ(event.sequence, next_event_sequence_);
      ASSERT_EQ(event.last_update_sequence, next_sequence_ - 1);
      ++next_event_sequence_;
      // Behind the last withdraw of the table, and before what comes later. (With drop-newest the router may
      // have more than was told.)
      if (event.kind == schema::EventKind::SyncEnd && !options_.drop_newest) {
        ASSERT_EQ(event.counters.at(1).value, routes_told(event)) << event.text;
      }
      follow_dump(event, record.end);
      events_.push_back(std::move(event));
      return;
    }
    if (record.header.kind == static_cast<std::uint8_t>(shm::RecordKind::Barrier)) {
      ASSERT_EQ(record.header.first_sequence, next_sequence_);
      if (record.header.router_id == kNobody) return;
      ++barriers_;
      if (record.header.router_id == shm::kAllRouters) {
        ++barriers_for_all_;
      } else {
        // A row that was another router's before a crash: the publisher takes it for all.
        const auto& routers = routers_of_row_[record.header.router_id];
        if (routers.size() > 1) ++barriers_for_all_;
        for (const IpAddress& router : routers) ++epochs_[router];
      }
      return;
    }
    ASSERT_EQ(record.header.kind, static_cast<std::uint8_t>(shm::RecordKind::UpdateBatch));
    const auto problem = schema::decode_payload(
        schema::PayloadFormat::BatchV2, record.payload, [this, &record](const schema::DecodedUpdate& u) {
          ASSERT_EQ(u.sequence, next_sequence_);
          ++next_sequence_;
          if (!options_.curate) {
            updates_.push_back(u);
            return;
          }
          const RouteKey key = key_of(u);
          const auto found = table_.find(key);
          routers_of_row_[record.header.router_id].insert(u.router);
          const std::uint64_t epoch = barriers_for_all_ + epochs_[u.router];
          // Subjects are not in order with one another, except across a barrier.
          const auto [said, first] = said_.try_emplace(key, u.peer_asn, epoch);
          if (!first && said->second.first != u.peer_asn) {
            ASSERT_GT(epoch, said->second.second) << "another subject without a barrier";
          }
          said->second = {u.peer_asn, epoch};
          follow_dump(u, key);
          if (u.announced && u.reason == Reason::Dump) {
            ASSERT_TRUE(u.synthetic);
            ASSERT_NE(found, table_.end()) << "dumps what was not told: " << u.prefix_address.to_string();
            ASSERT_EQ(found->second, (ToldRoute{u.as_path, u.next_hop, u.med, u.peer_asn}));
          } else if (u.announced) {
            ToldRoute route{u.as_path, u.next_hop, u.med, u.peer_asn};
            ASSERT_FALSE(u.synthetic);
            if (found != table_.end()) {
              ASSERT_NE(found->second, route) << "told twice: " << u.prefix_address.to_string();
              ASSERT_EQ(found->second.peer_asn, u.peer_asn) << "another subject";
              found->second = route;
            } else {
              table_.emplace(key, route);
            }
          } else {
            ASSERT_NE(found, table_.end()) << "withdraws what was not told: " << u.prefix_address.to_string();
            ASSERT_EQ(found->second.peer_asn, u.peer_asn) << "another subject";
            ASSERT_EQ(u.synthetic, u.reason != Reason::None);
            table_.erase(found);
          }
          if (options_.keep_updates) updates_.push_back(u);
        });
    ASSERT_FALSE(problem.has_value()) << *problem;
  }

  Options options_;
  Config config_;
  TempDir dir_;
  FakeClock clock_;
  std::unique_ptr<RingWriter> writer_;
  std::unique_ptr<RingReader> reader_;
  std::unique_ptr<StatsWriter> stats_;
  std::unique_ptr<ingestd::Recording> recording_;
  std::unique_ptr<Shard> shard_;
  std::unique_ptr<DirectSink> direct_;
  ingestd::SessionSink* sink_ = nullptr;
  Buffer records_;
  std::map<RouteKey, ToldRoute> table_;
  std::map<RouteKey, std::pair<std::uint32_t, std::uint64_t>> said_;  // AS number and epoch of the last news
  std::map<IpAddress, std::uint64_t> epochs_;                         // barriers by router
  std::map<std::uint32_t, std::set<IpAddress>> routers_of_row_;
  std::map<IpAddress, Bootstrap> dumps_;  // under way
  std::uint64_t dumps_done_ = 0;
  std::uint64_t barriers_ = 0, barriers_for_all_ = 0;
  std::vector<schema::DecodedUpdate> updates_;
  Buffer bytes_;
  std::vector<Buffer> log_;
  RingPosition read_to_{};
  std::uint64_t next_sequence_ = 1;
  std::uint64_t next_event_sequence_ = 1;
  std::vector<schema::EventFields> events_;
  std::deque<RingPosition> folded_;  // ends of records that are read and not released
};

}  // namespace arancini::testing
