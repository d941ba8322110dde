#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/config.h"
#include "common/base/fd.h"
#include "common/base/result.h"

namespace arancini::curated {

// The BMP listeners of all shards. The supervisor holds them for its whole life: a restarted ingestd finds
// its queue of waiting connections as it was.
struct Listeners {
  SocketAddress address;       // with the port in force
  std::vector<Fd> fds;         // by shard
  std::string steering_error;  // why the kernel does not choose by owner, empty if it does
};

// `inherited` holds, by shard, listeners that running ingestds already have (or invalid ones); its size is
// the number of shards. Missing ones are made at `config.listen`; port 0 takes the port of an inherited one,
// else the kernel's choice. Refuses a port where somebody else listens: joining a foreign SO_REUSEPORT group
// would steal its connections.
Result<Listeners, std::string> open_listeners(const Config::Bmp& config, std::vector<Fd> inherited);

// Asks the ingestd behind a handover socket (SOCK_SEQPACKET) for its listener: "listener?" is answered by 'L'
// with the descriptor. Invalid if it does not answer within `timeout_ms`.
Fd fetch_listener(const std::string& handover_path, int timeout_ms);

}  // namespace arancini::curated
