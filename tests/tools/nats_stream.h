#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/schema/batch_encoder.h"
#include "common/schema/update_decode.h"

namespace arancini::tools::test {

// A nats-server of the test's own, with JetStream, on a free port, its files in a temporary directory.
class NatsServer {
 public:
  NatsServer();
  ~NatsServer();
  NatsServer(const NatsServer&) = delete;
  NatsServer& operator=(const NatsServer&) = delete;

  [[nodiscard]] std::string url() const { return "nats://127.0.0.1:" + std::to_string(port_); }
  void kill();   // SIGKILL
  void start();  // on the port that it had before, with the same store

 private:
  std::filesystem::path dir_;
  std::uint16_t port_ = 0;
  int pid_ = -1;
};

// Creates a stream and publishes what publishd would.
class Publisher {
 public:
  explicit Publisher(const NatsServer& server);
  ~Publisher();

  void create_stream(std::int64_t max_messages = -1);
  void create_events_stream();
  void publish(const std::string& subject, const std::string& payload,
               const std::vector<std::pair<std::string, std::string>>& headers);
  void purge();
  [[nodiscard]] std::int64_t consumers() const;

 private:
  struct Handles;
  std::unique_ptr<Handles> handles_;
};

// One message: routes of one peer, with equal attributes, and the headers that go with it.
struct Message {
  schema::BatchMeta meta;
  std::vector<std::uint32_t> as_path;
  IpAddress next_hop;
  std::vector<Prefix> routes;
  std::uint64_t first_sequence = 1;
};
Prefix prefix(const char* text, std::uint32_t path_id = 0);
std::string payload_of(const Message& message, schema::PayloadFormat format);
void publish(Publisher& publisher, const Message& message,
             schema::PayloadFormat format = schema::PayloadFormat::UpdateV1Concat,
             const std::string& prefix = "arancini");

// A finished run of a program.
struct Finished {
  int exit_code = -1;
  std::string out;
  std::string err;
  [[nodiscard]] std::vector<std::string> lines() const;
};
Finished run_aranctl(const std::vector<std::string>& arguments);

// A running one, to watch what it prints.
class Running {
 public:
  explicit Running(const std::vector<std::string>& arguments);
  ~Running();
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
  // The next line of stdout; fails the test (empty) when there is none within 20 s.
  std::string next_line();
  Finished finish();

 private:
  int pid_ = -1;
  int out_ = -1;
  int err_ = -1;
  std::string buffer_;
};

}  // namespace arancini::tools::test
