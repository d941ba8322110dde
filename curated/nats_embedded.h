#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/base/result.h"
#include "curated/child_processes.h"

namespace arancini::curated {

// A nats-server of our own for a laptop, a container and the tests: JetStream on 127.0.0.1, without
// passwords, its store in the state directory, on a port that stays the same for that state directory.
struct EmbeddedNats {
  std::string url;
  std::uint16_t port = 0;
  std::string log_file;
  ChildSpec child;         // `argv` as it is to be started
  std::optional<int> pid;  // of the one that a former supervisor left running
  std::string note;        // what the operator should know, empty if nothing
};

// Makes <state_dir>/nats with its configuration. The error is one line for the operator.
Result<EmbeddedNats, std::string> prepare_embedded_nats(const std::string& state_dir);

// True when a nats-server accepts connections on that port of 127.0.0.1.
bool nats_answers(std::uint16_t port);

}  // namespace arancini::curated
