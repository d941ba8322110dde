#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "common/base/config.h"
#include "common/base/fd.h"

// Sockets of one shard, behind one interface: io_uring (uring_backend) or epoll (epoll_backend). Made and
// used by one thread; another one wakes it through a watched eventfd.
namespace arancini::ingestd {

// Dense numbers below IoOptions::max_connections; free again when the connection is gone.
enum class ConnectionId : std::uint32_t {};
constexpr std::uint32_t raw(ConnectionId id) {
  return static_cast<std::uint32_t>(id);
}
inline constexpr ConnectionId kNoConnection{0xffffffffU};

// Callbacks come out of run_once() and detach() only. They may call every method of the backend but these
// two.
class IoHandler {
 public:
  virtual ~IoHandler() = default;
  // A connection was accepted: non-blocking, close-on-exec, not yet added to the backend (add_connection(),
  // hand over, or let `fd` close).
  virtual void on_accept(Fd fd) noexcept = 0;
  // Bytes of a connection, in order; valid during the call. Everything must be taken or copied. To be left
  // alone, the handler calls pause(): what was already received then is still delivered, nothing new is asked
  // for.
  virtual void on_data(ConnectionId id, std::span<const std::byte> bytes) noexcept = 0;
  // The peer closed (error 0) or the socket failed (errno). The connection is gone, its id is free. Comes for
  // a paused connection too, if it was already known.
  virtual void on_closed(ConnectionId id, int error) noexcept = 0;
  // A watched descriptor is readable (wake-up, handover socket).
  virtual void on_readable(int fd) noexcept = 0;
  // accept failed with `error` (no descriptors, no memory): the listener is tried again after 100 ms.
  virtual void on_accept_error(int error) noexcept { (void)error; }
};

class IoBackend {
 public:
  IoBackend() = default;
  virtual ~IoBackend() = default;
  IoBackend(const IoBackend&) = delete;
  IoBackend& operator=(const IoBackend&) = delete;

  [[nodiscard]] virtual const char* name() const = 0;
  virtual bool add_listener(int fd) = 0;  // borrowed until removed
  // Accepts no more; what was accepted already is still delivered.
  virtual void remove_listener(int fd) = 0;
  virtual bool watch(int fd) = 0;  // borrowed; level-triggered on_readable
  // kNoConnection (and `fd` closed) when max_connections are there.
  virtual ConnectionId add_connection(Fd fd) = 0;
  virtual void pause(ConnectionId id) = 0;
  virtual void resume(ConnectionId id) = 0;
  virtual void close(ConnectionId id) = 0;  // no on_closed for it
  // Takes the socket out without closing it. Bytes that were already received are delivered before it
  // returns, so that whoever reads the socket next continues exactly there. Invalid if the handler closed the
  // connection meanwhile.
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
  std::uint32_t buffer_count = 64;  // io_uring: registered buffers, a power of two
};

// Bytes that one run_once() hands out before it returns, so that the caller's other work gets its turn (about
// a millisecond of curation).
inline constexpr std::size_t kIoBudgetBytes = 256 * 1024;
inline constexpr std::size_t kIoBudgetEvents = 256;
inline constexpr std::uint64_t kAcceptRetryNs = 100'000'000;

// Auto: io_uring where it works, else epoll with the reason in `note` (one warning line). Uring and Epoll
// force one; nullptr with `note` when that is not possible.
std::unique_ptr<IoBackend> make_io_backend(const IoOptions& options, IoHandler& handler, std::string& note);

// One kind each; nullptr with the reason in `note`.
std::unique_ptr<IoBackend> make_uring_backend(const IoOptions& options, IoHandler& handler,
                                              std::string& note);
std::unique_ptr<IoBackend> make_epoll_backend(const IoOptions& options, IoHandler& handler,
                                              std::string& note);

}  // namespace arancini::ingestd
