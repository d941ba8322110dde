#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/config.h"
#include "common/base/fd.h"
#include "common/base/result.h"
#include "common/base/types.h"

// Where BMP sessions come from: listeners that systemd (LISTEN_FDS) or the supervisor (--listen-fd) holds for
// us, so that a restart drops no SYN, or one of our own.
namespace arancini::ingestd {

struct Listeners {
  std::vector<Fd> fds;
  std::string note;  // for the operator when something is less than wanted, else empty
  Fd restart;        // what the process before has left (restart_store.h), if anything
};

// `listen_fd` -1: LISTEN_FDS, else a socket of its own in the SO_REUSEPORT group at config.bmp.listen. The
// owner program is attached unless the supervisor did so. `restart_fd` -1: that of LISTEN_FDS whose name is
// kRestartFdName, if any. The error is one line.
Result<Listeners, std::string> open_listeners(const Config& config, int listen_fd, int restart_fd = -1);

// "192.0.2.1:4000" of a bound socket, for logs.
std::string local_address(int fd);

struct Remote {
  IpAddress address;
  std::uint16_t port = 0;
};
// The other end; false if it is not a connected TCP socket (any more).
bool remote_of(int fd, Remote& out);

// TCP_NODELAY, and keepalive that finds a half-open router within two minutes.
void prepare_session_socket(int fd);

}  // namespace arancini::ingestd
