#pragma once

#include <optional>
#include <string>

#include "common/base/result.h"
#include "common/nats/nats_settings.h"
#include "common/nats/stream_reader.h"

namespace CLI {
class App;
}

namespace arancini::tools {

// Where the stream is, and who asks for it: flags, environment, and [nats] of a configuration file. Secrets
// have no flags: everybody could see them.
struct NatsFlags {
  std::optional<std::string> url;  // --nats, ARANCINI_NATS
  std::optional<std::string>
      config;  // --config; without it and without a URL, the daemons' file if it can be read
  std::optional<std::string> stream;  // --stream

  void add_to(CLI::App& app);
};

struct StreamPlace {
  NatsSettings nats;
  std::string stream;
  std::string journal;  // not empty: the configuration has no broker, the updates are in this directory
};
enum class StreamKind { Updates, Events };
// Warns on stderr about files with secrets that others may read.
Result<StreamPlace, StreamError> find_stream(const NatsFlags& flags, StreamKind kind);

}  // namespace arancini::tools
