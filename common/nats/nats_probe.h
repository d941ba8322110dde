#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/nats/nats_connector.h"
#include "common/nats/stream_rules.h"

namespace arancini {

// What a look at NATS found, for somebody who checks an installation. Changes nothing there.
struct NatsProbe {
  struct Stream {
    std::string name;
    bool missing = false;
    std::optional<NatsFailure>
        failure;  // it could not be asked; else `facts` are of it, unless it is missing
    StreamFacts facts;
  };
  std::optional<NatsFailure> failure;  // no connection; the rest is empty
  std::string server;                  // HOST:PORT
  std::uint64_t max_payload = 0;
  std::optional<NatsFailure> jetstream;  // why it cannot be used
  std::vector<Stream> streams;           // as asked for; empty without JetStream
};

// Connects as `settings` say, asks for JetStream and for these streams, and leaves. Some seconds at most for
// each.
NatsProbe probe_nats(const NatsSettings& settings, const std::string& client,
                     const std::vector<std::string>& streams);

}  // namespace arancini
