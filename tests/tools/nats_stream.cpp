#include "tests/tools/nats_stream.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <nats/nats.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "common/schema/batch_expander.h"
#include "common/schema/message_headers.h"

extern char** environ;

namespace arancini::tools::test {

namespace {

namespace fs = std::filesystem;
using std::chrono::steady_clock;

constexpr char kStream[] = "ARANCINI_UPDATES";

int spawn(const std::vector<std::string>& command, int out, int err) {
  std::vector<char*> argv;
  argv.reserve(command.size() + 1);
  for (const std::string& a : command) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out, 1);
  posix_spawn_file_actions_adddup2(&actions, err, 2);
  pid_t pid = -1;
  const int error = posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) throw std::runtime_error(command[0] + ": cannot be started");
  return pid;
}

std::string read_all(int fd) {
  std::string out;
  char bytes[4096];
  for (ssize_t n = 0; (n = ::read(fd, bytes, sizeof bytes)) > 0;)
    out.append(bytes, static_cast<std::size_t>(n));
  return out;
}

template <class F>
void wait_for(const char* what, F condition) {
  const auto deadline = steady_clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (steady_clock::now() > deadline) throw std::runtime_error(std::string("waited in vain for ") + what);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

void check(natsStatus status, const char* what) {
  if (status != NATS_OK) throw std::runtime_error(std::string(what) + ": " + natsStatus_GetText(status));
}

}  // namespace

NatsServer::NatsServer() {
  std::string pattern = (fs::temp_directory_path() / "arancini-nats-XXXXXX").string();
  dir_ = ::mkdtemp(pattern.data());
  start();
}

NatsServer::~NatsServer() {
  kill();
  fs::remove_all(dir_);
}

void NatsServer::start() {
  const int log = ::open((dir_ / "log").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  pid_ = spawn({"nats-server", "-js", "-sd", dir_ / "store", "-a", "127.0.0.1", "-p",
                port_ == 0 ? "-1" : std::to_string(port_), "--ports_file_dir", dir_},
               log, log);
  ::close(log);
  const fs::path ports = dir_ / ("nats-server_" + std::to_string(pid_) + ".ports");
  nlohmann::json found;
  wait_for("nats-server", [&] {
    std::ifstream in(ports);
    found = nlohmann::json::parse(in, nullptr, false);
    return found.is_object();
  });
  const std::string url = found.at("nats").at(0);
  port_ = static_cast<std::uint16_t>(std::stoi(url.substr(url.rfind(':') + 1)));
}

void NatsServer::kill() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

struct Publisher::Handles {
  natsConnection* connection = nullptr;
  jsCtx* js = nullptr;
};

Publisher::Publisher(const NatsServer& server) : handles_(std::make_unique<Handles>()) {
  check(natsConnection_ConnectTo(&handles_->connection, server.url().c_str()), "connect");
  check(natsConnection_JetStream(&handles_->js, handles_->connection, nullptr), "jetstream");
}

Publisher::~Publisher() {
  jsCtx_Destroy(handles_->js);
  natsConnection_Destroy(handles_->connection);
}

void Publisher::create_stream(std::int64_t max_messages) {
  jsStreamConfig config;
  jsStreamConfig_Init(&config);
  const char* subjects[] = {"arancini.updates.>", "other.updates.>"};
  config.Name = kStream;
  config.Subjects = subjects;
  config.SubjectsLen = 2;
  config.MaxMsgs = max_messages;
  check(js_AddStream(nullptr, handles_->js, &config, nullptr, nullptr), "add stream");
}

void Publisher::create_events_stream() {
  jsStreamConfig config;
  jsStreamConfig_Init(&config);
  const char* subjects[] = {"arancini.events.>"};
  config.Name = "ARANCINI_EVENTS";
  config.Subjects = subjects;
  config.SubjectsLen = 1;
  check(js_AddStream(nullptr, handles_->js, &config, nullptr, nullptr), "add stream");
}

void Publisher::publish(const std::string& subject, const std::string& payload,
                        const std::vector<std::pair<std::string, std::string>>& headers) {
  natsMsg* message = nullptr;
  check(natsMsg_Create(&message, subject.c_str(), nullptr, payload.data(), static_cast<int>(payload.size())),
        "message");
  for (const auto& [name, value] : headers)
    check(natsMsgHeader_Set(message, name.c_str(), value.c_str()), "header");
  const natsStatus status = js_PublishMsg(nullptr, handles_->js, message, nullptr, nullptr);
  natsMsg_Destroy(message);
  check(status, "publish");
}

void Publisher::purge() {
  check(js_PurgeStream(handles_->js, kStream, nullptr, nullptr), "purge");
}

std::int64_t Publisher::consumers() const {
  jsStreamInfo* info = nullptr;
  check(js_GetStreamInfo(&info, handles_->js, kStream, nullptr, nullptr), "info");
  const std::int64_t n = info->State.Consumers;
  jsStreamInfo_Destroy(info);
  return n;
}

Prefix prefix(const char* text, std::uint32_t path_id) {
  const std::string s(text);
  const std::size_t slash = s.find('/');
  const IpAddress address = *IpAddress::parse(s.substr(0, slash));
  Prefix p;
  for (std::size_t i = 0; i < 8; ++i) {
    p.high = (p.high << 8) | address.bytes[i];
    p.low = (p.low << 8) | address.bytes[8 + i];
  }
  p.length = static_cast<std::uint8_t>(std::stoi(s.substr(slash + 1)));
  p.path_id = path_id;
  return p;
}

std::string payload_of(const Message& m, schema::PayloadFormat format) {
  std::vector<std::byte> path{std::byte{2}, static_cast<std::byte>(m.as_path.size())};
  for (const std::uint32_t asn : m.as_path) {
    for (const int shift : {24, 16, 8, 0}) path.push_back(static_cast<std::byte>(asn >> shift));
  }
  const std::vector<std::byte> origin(1);
  wire::Attributes attributes;
  attributes.present = 1U << 1 | 1U << 2 | 1U << 3;
  attributes.origin = origin;
  attributes.as_path = path;
  const schema::BatchAttributes a{m.meta.announced ? &attributes : nullptr, m.next_hop};
  const auto count = static_cast<std::uint32_t>(m.routes.size());
  std::vector<std::uint64_t> memory(schema::max_record_bytes(m.meta, a, count) / 8);
  schema::BatchEncoder encoder(std::as_writable_bytes(std::span(memory)), m.meta, a,
                               Sequence{m.first_sequence}, count);
  for (const Prefix& p : m.routes) encoder.add(p);
  const shm::RecordHeader header = encoder.finish();
  const auto record = std::as_bytes(std::span(memory)).subspan(sizeof header, header.payload_bytes);
  if (format == schema::PayloadFormat::BatchV2) {
    return {reinterpret_cast<const char*>(record.data()), record.size()};
  }
  schema::BatchExpander expander;
  EXPECT_TRUE(expander.open(header, record));
  std::string out(expander.update_bytes() * count, '\0');
  for (std::uint32_t i = 0; i < count; ++i) {
    expander.write_update(i, reinterpret_cast<std::byte*>(out.data()) + i * expander.update_bytes());
  }
  return out;
}

void publish(Publisher& publisher, const Message& m, schema::PayloadFormat format,
             const std::string& prefix) {
  const char* name = format == schema::PayloadFormat::BatchV2    ? "batch-v2"
                     : format == schema::PayloadFormat::UpdateV1 ? "update-v1"
                                                                 : "update-v1-concat";
  const std::string subject = prefix + ".updates." + subject_token(m.meta.router_address) + "." +
                              std::to_string(m.meta.peer_asn) + "." + std::to_string(m.meta.family.afi) +
                              "_" + std::to_string(m.meta.family.safi);
  publisher.publish(subject, payload_of(m, format),
                    {{schema::kHeaderFormat, name},
                     {schema::kHeaderSchema, schema::kSchemaVersion},
                     {schema::kHeaderInstance, "test"},
                     {schema::kHeaderWriter, m.meta.writer.to_hex()},
                     {schema::kHeaderShard, "3"},
                     {schema::kHeaderFirst, std::to_string(m.first_sequence)},
                     {schema::kHeaderLast, std::to_string(m.first_sequence + m.routes.size() - 1)},
                     {schema::kHeaderCount, std::to_string(m.routes.size())}});
}

std::vector<std::string> Finished::lines() const {
  std::vector<std::string> all;
  std::istringstream in(out);
  for (std::string line; std::getline(in, line);) all.push_back(line);
  return all;
}

Running::Running(const std::vector<std::string>& arguments) {
  int out[2];
  int err[2];
  if (::pipe2(out, O_CLOEXEC) != 0 || ::pipe2(err, O_CLOEXEC) != 0) throw std::runtime_error("pipe");
  std::vector<std::string> command{ARANCTL};
  command.insert(command.end(), arguments.begin(), arguments.end());
  pid_ = spawn(command, out[1], err[1]);
  ::close(out[1]);
  ::close(err[1]);
  out_ = out[0];
  err_ = err[0];
}

Running::~Running() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  ::close(out_);
  ::close(err_);
}

std::string Running::next_line() {
  const auto deadline = steady_clock::now() + std::chrono::seconds(20);
  for (;;) {
    if (const std::size_t end = buffer_.find('\n'); end != std::string::npos) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return line;
    }
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - steady_clock::now()).count();
    pollfd p{out_, POLLIN, 0};
    char bytes[4096];
    ssize_t n = 0;
    if (left <= 0 || ::poll(&p, 1, static_cast<int>(left)) <= 0 ||
        (n = ::read(out_, bytes, sizeof bytes)) <= 0) {
      ADD_FAILURE() << "no further line";
      return {};
    }
    buffer_.append(bytes, static_cast<std::size_t>(n));
  }
}

Finished Running::finish() {
  Finished run;
  // stderr has few lines: it fits its pipe while stdout is read.
  run.out = buffer_ + read_all(out_);
  run.err = read_all(err_);
  int status = 0;
  ::waitpid(pid_, &status, 0);
  pid_ = -1;
  run.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return run;
}

Finished run_aranctl(const std::vector<std::string>& arguments) {
  return Running(arguments).finish();
}

}  // namespace arancini::tools::test
