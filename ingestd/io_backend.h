#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "common/base/config.h"
#include "common/base/fd.h"
#include "common/base/types.h"

// Sockets of one shard, behind one interface: io_uring (uring_backend) or epoll (epoll_backend). One thread; nothing is
// called from elsewhere but wake().
namespace arancini::ingestd {

enum class ConnectionId : std::uint32_t {};

class IoHandler {
 public:
  virtual ~IoHandler() = default;
  // A connection was accepted (not yet added to the backend: add_connection(), hand over, or let `fd` close).
  virtual void on_accept(Fd fd) noexcept = 0;
  // Bytes of a connection, in order; valid during the call. Everything must be taken or copied. To be left alone,
  // the handler calls pause(): what was already received then is still delivered, nothing new is asked for.
  virtual void on_data(ConnectionId id, std::span<const std::byte> bytes) noexcept = 0;
  // The peer closed (error 0) or the socket failed (errno). The connection is gone, its id is free.
  virtual void on_closed(ConnectionId id, int error) noexcept = 0;
  // A watched descriptor is readable (wake-up, handover socket).
  virtual void on_readable(int fd) noexcept = 0;
};

class IoBackend {
 public:
  virtual ~IoBackend() = default;
  [[nodiscard]] virtual const char* name() const = 0;
  virtual bool add_listener(int fd) = 0;  // borrowed
  virtual bool watch(int fd) = 0;         // borrowed; level-triggered on_readable
  virtual ConnectionId add_connection(Fd fd) = 0;
  virtual void pause(ConnectionId id) = 0;
  virtual void resume(ConnectionId id) = 0;
  virtual void close(ConnectionId id) = 0;  // no on_closed for it
  // Takes the socket out without closing it.
  virtual Fd detach(ConnectionId id) = 0;
  // Waits at most `timeout_ns` for something (0: only looks) and delivers a bounded number of events.
  virtual void run_once(std::uint64_t timeout_ns) = 0;
  // System calls made so far, for the benchmarks.
  [[nodiscard]] virtual std::uint64_t syscalls() const = 0;
};

struct IoOptions {
  IoBackendKind kind = IoBackendKind::Auto;
  std::uint32_t max_connections = 4096;
  std::uint32_t buffer_bytes = 64 * 1024;
  std::uint32_t buffer_count = 64;
};

// Auto: io_uring where it works, else epoll with the reason in `note` (one warning line). Uring and Epoll force one;
// nullptr with `note` when that is not possible.
std::unique_ptr<IoBackend> make_io_backend(const IoOptions& options, IoHandler& handler, std::string& note);

}  // namespace arancini::ingestd
