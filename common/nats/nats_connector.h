#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/error.h"
#include "common/base/result.h"
#include "common/nats/nats_settings.h"

// Names of nats.h, which only this folder, and one file of a daemon, sees.
struct __natsConnection;  // NOLINT(bugprone-reserved-identifier)
struct __natsOptions;     // NOLINT(bugprone-reserved-identifier)

namespace arancini {

// What went wrong with NATS: what, where (no passwords), what to do. One line.
struct NatsFailure {
  ErrorCode code = ErrorCode::NatsUnreachable;
  std::string text;
};

// Connects to one server of those that the settings name and those that these servers named: one after the
// other, by chance, the one that was left last. The connection does not reconnect by itself. Files
// (certificates, credentials) are read at each attempt, so that renewed ones are used. One thread at a time.
class NatsConnector {
 public:
  NatsConnector(NatsSettings settings, std::string client_name);

  // Sets callbacks and sizes; called for each attempt. False ends the attempt.
  using Tune = std::function<bool(__natsOptions*)>;
  // Asks each server once, 2 s each at most. `stop` (may be null) is looked at in between.
  Result<__natsConnection*, NatsFailure> connect(const Tune& tune, const std::atomic<bool>* stop = nullptr);
  // Before a connection is closed: the server that it is with is asked last next time.
  void leave(__natsConnection* connection);

  [[nodiscard]] const NatsSettings& settings() const { return settings_; }
  // For people: all URLs, without passwords.
  [[nodiscard]] const std::string& shown_url() const { return shown_url_; }
  // HOST:PORT that the last connect() reached.
  [[nodiscard]] const std::string& server() const { return server_; }

 private:
  std::vector<NatsServerUrl> candidates();
  Result<__natsConnection*, NatsFailure> attempt(const NatsServerUrl& server, const Tune& tune);
  void learn(__natsConnection* connection, const NatsServerUrl& from);

  NatsSettings settings_;
  std::string client_name_;
  std::string shown_url_;
  std::vector<NatsServerUrl> configured_;
  std::vector<NatsServerUrl> discovered_;
  std::string server_;
  std::string left_;
  std::minstd_rand random_;
};

// What nats.c knows of the last failure on this thread beyond its status, without its source position; may be
// empty.
std::string nats_last_detail();

// What an error of the JetStream API, or of an ack, means.
NatsFailure jetstream_failure(std::uint32_t err_code, std::string_view description);

}  // namespace arancini
