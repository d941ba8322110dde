#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nats/nats.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "common/ring/ring_writer.h"
#include "common/schema/batch_encoder.h"
#include "common/schema/event_build.h"
#include "common/schema/event_decode.h"
#include "common/schema/message_headers.h"
#include "common/schema/update_decode.h"

extern char** environ;

// Real processes for the tests of publishd: a nats-server with a store of its own, publishd itself, and a
// writer of rings.
namespace arancini::publishd::test {

using namespace std::chrono_literals;

inline bool wait_until(const std::function<bool()>& condition, std::chrono::milliseconds limit = 20s) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(5ms);  // between two looks, not instead of one
  }
  return true;
}

class TempDir {
 public:
  TempDir() {
    char name[] = "/tmp/arancini-publishd-XXXXXX";
    path_ = ::mkdtemp(name);
  }
  ~TempDir() {
    std::error_code ec;
    std::filesystem::remove_all(path_, ec);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline std::string text_of_file(const std::string& path) {
  std::string text;
  if (std::FILE* f = std::fopen(path.c_str(), "re")) {
    char buffer[4096];
    std::size_t n = 0;
    while ((n = std::fread(buffer, 1, sizeof buffer, f)) > 0) text.append(buffer, n);
    std::fclose(f);
  }
  return text;
}

// One child process; killed and reaped when it goes out of scope.
class Child {
 public:
  Child() = default;
  ~Child() { kill(SIGKILL); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  void start(const std::vector<std::string>& command, const std::string& log) {
    kill(SIGKILL);
    std::vector<char*> argv;
    argv.reserve(command.size() + 1);
    for (const std::string& a : command) argv.push_back(const_cast<char*>(a.c_str()));
    argv.push_back(nullptr);
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 1, log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    posix_spawn_file_actions_adddup2(&files, 1, 2);
    ASSERT_EQ(posix_spawnp(&pid_, argv[0], &files, nullptr, argv.data(), environ), 0) << argv[0];
    posix_spawn_file_actions_destroy(&files);
  }
  void signal(int number) const {
    if (pid_ > 0) ::kill(pid_, number);
  }
  // SIGSTOP, and until every thread has really stopped.
  void freeze() const {
    signal(SIGSTOP);
    EXPECT_TRUE(wait_until([&] {
      std::error_code ec;
      for (std::filesystem::directory_iterator it(fmt::format("/proc/{}/task", pid_), ec), end;
           !ec && it != end; it.increment(ec)) {
        const std::string stat = text_of_file(it->path().string() + "/stat");
        const auto at = stat.rfind(") ");
        if (at == std::string::npos || stat[at + 2] != 'T') return false;
      }
      return !ec;
    }));
  }
  // Wait status; -1 if there was no child.
  int kill(int number) {
    if (pid_ <= 0) return -1;
    ::kill(pid_, number);
    return wait();
  }
  int wait() {
    int status = -1;
    if (pid_ > 0) ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return status;
  }
  [[nodiscard]] bool alive() const { return pid_ > 0 && ::waitpid(pid_, nullptr, WNOHANG) == 0; }
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
};

inline std::uint16_t free_port() {
  const int s = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t n = sizeof a;
  (void)::bind(s, reinterpret_cast<sockaddr*>(&a), n);
  ::getsockname(s, reinterpret_cast<sockaddr*>(&a), &n);
  ::close(s);
  return ntohs(a.sin_port);
}

class NatsServer {
 public:
  explicit NatsServer(const std::string& dir, std::vector<std::string> more = {})
      : dir_(dir), port_(free_port()), more_(std::move(more)) {}
  void start() {
    std::vector<std::string> c = {"nats-server",         "-a",  "127.0.0.1", "-p",
                                  std::to_string(port_), "-js", "-sd",       dir_ + "/store"};
    c.insert(c.end(), more_.begin(), more_.end());
    child_.start(c, dir_ + "/nats.log");
    ASSERT_TRUE(wait_until([&] {
      natsConnection* nc = nullptr;
      const bool ok = natsConnection_ConnectTo(&nc, url().c_str()) == NATS_OK;
      natsConnection_Destroy(nc);
      return ok;
    })) << text_of_file(dir_ + "/nats.log");
  }
  Child& child() { return child_; }
  [[nodiscard]] std::string url() const { return "nats://127.0.0.1:" + std::to_string(port_); }

 private:
  std::string dir_;
  std::uint16_t port_;
  std::vector<std::string> more_;
  Child child_;
};

// Writes records with known contents, one ring per object.
class RingFeed {
 public:
  RingFeed(const std::string& path, std::uint32_t shard, std::uint64_t capacity = 1U << 20)
      : writer_(make(path, shard, capacity)), shard_(shard) {}

  // One batch of `count` updates on one of `subjects` subjects; false when the ring is full.
  bool write(std::uint32_t subject, std::uint32_t count) {
    schema::BatchMeta meta;
    meta.received_realtime_ns = 1;
    meta.router_address = IpAddress::from_v4(0x0a000000U + (shard_ << 16) + subject % 8);
    meta.peer_address = IpAddress::from_v4(0xc0000201U);
    meta.peer_asn = 65000 + subject;
    meta.announced = false;
    meta.writer = writer_->writer_id();
    meta.router_id = subject % 8;
    const std::uint32_t most = schema::max_record_bytes(meta, {}, count);
    const auto claimed = writer_->claim(most);
    if (claimed.empty()) return false;
    schema::BatchEncoder encoder(claimed, meta, {}, writer_->next_sequence(), count);
    for (std::uint32_t i = 0; i < count; ++i) {
      const auto n = static_cast<std::uint32_t>(raw(writer_->next_sequence()) + i);
      encoder.add(Prefix{0, kV4MappedLow | n, 0, 32});
    }
    writer_->append(encoder.finish());
    writer_->publish();
    return true;
  }
  // An event about one of 8 routers; false when the ring is full.
  bool write_event(std::uint32_t router) {
    schema::EventFields e;
    e.writer = writer_->writer_id();
    e.sequence = writer_->next_event_sequence();
    e.kind = schema::EventKind::Dropped;
    e.scope = schema::EventScope::Router;
    e.has_router = true;
    e.router = IpAddress::from_v4(0x0a000000U + (shard_ << 16) + router % 8);
    const std::vector<std::byte> payload = schema::build_event(e);
    shm::RecordHeader h{};
    const std::size_t size = (sizeof h + payload.size() + 7) / 8 * 8;
    const auto claimed = writer_->claim(static_cast<std::uint32_t>(size));
    if (claimed.empty()) return false;
    h.size_bytes = static_cast<std::uint32_t>(size);
    h.kind = static_cast<std::uint8_t>(shm::RecordKind::Event);
    h.format = shm::kRecordFormat;
    h.first_sequence = raw(writer_->next_sequence());
    h.payload_bytes = static_cast<std::uint32_t>(payload.size());
    h.router_id = router % 8;
    h.event_sequence = e.sequence;
    std::copy(payload.begin(), payload.end(), claimed.begin() + sizeof h);
    writer_->append(h);
    writer_->publish();
    return true;
  }
  [[nodiscard]] std::uint64_t events_written() const { return writer_->next_event_sequence() - 1; }
  [[nodiscard]] std::uint64_t written() const {
    return writer_ ? raw(writer_->next_sequence()) - 1 : written_;
  }
  // The side of ingestd; not after close().
  RingWriter& ring() { return *writer_; }
  [[nodiscard]] bool drained() const { return writer_->used_bytes() == 0; }
  // Lets the ring go, as a writer that ends; contents stay.
  void close() {
    written_ = written();
    id_ = id();
    writer_.reset();
  }
  [[nodiscard]] WriterId id() const { return writer_ ? writer_->writer_id() : id_; }

 private:
  static RingWriter make(const std::string& path, std::uint32_t shard, std::uint64_t capacity) {
    RingFile::CreateOptions o;
    o.capacity_bytes = capacity;
    o.shard = shard;
    o.hugepages = HugepageMode::Never;
    o.created_realtime_ns = 1;
    auto file = RingFile::create_or_attach(path, o);
    if (!file) throw std::runtime_error(file.error().text);
    return RingWriter(std::move(*file));
  }
  std::optional<RingWriter> writer_;
  std::uint32_t shard_;
  std::uint64_t written_ = 0;
  WriterId id_;
};

// What the stream holds, checked while it is read: within a writer each sequence once (`repeats`), per
// subject rising
// (`disorder`), the prefix that belongs to the sequence (`wrong`).
struct StreamCheck {
  std::uint64_t messages = 0, updates = 0, repeats = 0, disorder = 0, wrong = 0;
  std::map<WriterId, std::vector<bool>> seen;
  std::map<std::string, std::uint64_t> formats;

  [[nodiscard]] std::uint64_t gaps(const WriterId& writer, std::uint64_t written) const {
    const auto it = seen.find(writer);
    std::uint64_t n = 0;
    for (std::uint64_t s = 1; s <= written; ++s)
      n += it == seen.end() || s >= it->second.size() || !it->second[s];
    return n;
  }
};

inline StreamCheck read_stream(const std::string& url, const std::string& stream = "ARANCINI_UPDATES",
                               const std::string& prefix = "arancini") {
  StreamCheck out;
  natsConnection* nc = nullptr;
  jsCtx* js = nullptr;
  EXPECT_EQ(natsConnection_ConnectTo(&nc, url.c_str()), NATS_OK);
  EXPECT_EQ(natsConnection_JetStream(&js, nc, nullptr), NATS_OK);
  jsStreamInfo* info = nullptr;
  // A cluster that has only just a leader may not answer yet.
  EXPECT_TRUE(
      wait_until([&] { return js_GetStreamInfo(&info, js, stream.c_str(), nullptr, nullptr) == NATS_OK; }));
  const std::uint64_t last = info != nullptr ? info->State.LastSeq : 0;
  const std::uint64_t messages = info != nullptr ? info->State.Msgs : 0;
  jsStreamInfo_Destroy(info);
  jsSubOptions so;
  jsSubOptions_Init(&so);
  so.Stream = stream.c_str();
  so.Ordered = true;
  natsSubscription* sub = nullptr;
  if (messages > 0) {
    EXPECT_TRUE(wait_until([&] {
      return js_SubscribeSync(&sub, js, (prefix + ".updates.>").c_str(), nullptr, &so, nullptr) == NATS_OK;
    }));
  }
  std::map<std::pair<WriterId, std::string>, std::uint64_t> last_of;
  for (std::uint64_t i = 0; i < messages && sub != nullptr; ++i) {
    natsMsg* m = nullptr;
    if (natsSubscription_NextMsg(&m, sub, 10'000) != NATS_OK) {
      ADD_FAILURE() << "stream ends after " << i << " of " << messages << " messages, last sequence " << last;
      break;
    }
    ++out.messages;
    const char* format = nullptr;
    natsMsgHeader_Get(m, schema::kHeaderFormat, &format);
    const std::string subject = natsMsg_GetSubject(m);
    if (format == nullptr) {  // not one of ours
      natsMsg_Destroy(m);
      continue;
    }
    ++out.formats[format];
    const auto kind = schema::payload_format(format);
    EXPECT_TRUE(kind) << format;
    const auto bytes =
        std::as_bytes(std::span(natsMsg_GetData(m), static_cast<std::size_t>(natsMsg_GetDataLength(m))));
    std::uint64_t count = 0;
    const auto error = schema::decode_payload(*kind, bytes, [&](const schema::DecodedUpdate& u) {
      ++count;
      auto& seen = out.seen[u.writer];
      if (u.sequence >= seen.size()) seen.resize(u.sequence + 1);
      out.repeats += seen[u.sequence];
      seen[u.sequence] = true;
      std::uint64_t& before = last_of[{u.writer, subject}];
      out.disorder += u.sequence <= before;
      before = u.sequence;
      out.wrong += u.prefix_address != IpAddress::from_v4(static_cast<std::uint32_t>(u.sequence));
      out.wrong +=
          subject != fmt::format("{}.updates.{}.{}.1_1", prefix, subject_token(u.router), u.peer_asn);
    });
    EXPECT_FALSE(error) << *error;
    const char* header_count = "";
    natsMsgHeader_Get(m, schema::kHeaderCount, &header_count);
    EXPECT_EQ(std::to_string(count), header_count);
    out.updates += count;
    natsMsg_Destroy(m);
  }
  natsSubscription_Destroy(sub);
  jsCtx_Destroy(js);
  natsConnection_Destroy(nc);
  return out;
}

// Sequences of the events of all writers, in the stream's order; what is wrong with a message is a failure.
inline std::vector<std::uint64_t> read_events(const std::string& url) {
  std::vector<std::uint64_t> out;
  natsConnection* nc = nullptr;
  jsCtx* js = nullptr;
  EXPECT_EQ(natsConnection_ConnectTo(&nc, url.c_str()), NATS_OK);
  EXPECT_EQ(natsConnection_JetStream(&js, nc, nullptr), NATS_OK);
  for (std::uint64_t s = 1;; ++s) {
    natsMsg* m = nullptr;
    if (js_GetMsg(&m, js, "ARANCINI_EVENTS", s, nullptr, nullptr) != NATS_OK) break;
    const auto bytes =
        std::as_bytes(std::span(natsMsg_GetData(m), static_cast<std::size_t>(natsMsg_GetDataLength(m))));
    const auto view = schema::event_view(bytes);
    EXPECT_TRUE(view);
    if (view) {
      out.push_back(view->sequence);
      EXPECT_EQ(natsMsg_GetSubject(m), "arancini.events." + subject_token(view->router) + ".0.dropped");
      const char* sequence = "";
      natsMsgHeader_Get(m, schema::kHeaderEvent, &sequence);
      EXPECT_EQ(sequence, std::to_string(view->sequence));
    }
    natsMsg_Destroy(m);
  }
  jsCtx_Destroy(js);
  natsConnection_Destroy(nc);
  return out;
}

}  // namespace arancini::publishd::test
