#pragma once

#include <sys/types.h>

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "common/base/config.h"
#include "common/base/fd.h"
#include "common/base/result.h"

namespace arancini::curated {

// How many of the connections that were handed to somebody else (gRPC, which does not say when it closes
// one) are open still. For one thread.
class OpenConnections {
 public:
  explicit OpenConnections(std::size_t most) : most_(most) {}
  // Before it is handed over.
  void add(int fd);
  // For one more.
  [[nodiscard]] bool room();

 private:
  struct One {
    int fd;
    ino_t inode;  // another one means that the number was given to something else
  };
  const std::size_t most_;
  std::vector<One> all_;
};

// A TCP listener with a bound to the connections that are open at a time: descriptors are left for everything
// else, whoever connects. Those beyond the bound wait in the kernel's queue.
class TcpAcceptor {
 public:
  struct Hooks {
    std::function<void(int listener, Fd connection)> accepted;
    std::function<void(std::string_view)> warn;
  };
  // Listens; port 0 lets the kernel choose. The error is one line.
  static Result<Fd, std::string> listen(const SocketAddress& address);

  // Accepts on a thread of its own, which calls the hooks, until destruction.
  TcpAcceptor(Fd listener, std::size_t most, Hooks hooks);
  ~TcpAcceptor();
  TcpAcceptor(const TcpAcceptor&) = delete;
  TcpAcceptor& operator=(const TcpAcceptor&) = delete;

 private:
  void run();

  const Fd listener_;
  const std::size_t most_;
  const Hooks hooks_;
  OpenConnections open_;
  Fd stop_;
  std::thread thread_;
};

}  // namespace arancini::curated
