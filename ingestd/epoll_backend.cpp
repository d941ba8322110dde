#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "common/base/clock.h"
#include "ingestd/io_backend.h"

namespace arancini::ingestd {

namespace {

// What an event is about: kind in the top byte, generation below it, index in the low half. The generation
// keeps an event of a closed connection from reaching the next one in the same slot.
enum class Kind : std::uint8_t { Connection = 1, Listener = 2, Watch = 3 };
constexpr std::uint32_t kGenerationMask = 0xffffffU;
constexpr std::uint64_t make_tag(Kind kind, std::uint32_t generation, std::uint32_t index) {
  return (static_cast<std::uint64_t>(kind) << 56) | (static_cast<std::uint64_t>(generation) << 32) | index;
}

class EpollBackend final : public IoBackend {
 public:
  EpollBackend(const IoOptions& options, IoHandler& handler, Fd epoll)
      : options_(options), handler_(handler), epoll_(std::move(epoll)), buffer_(options.buffer_bytes) {}

  [[nodiscard]] const char* name() const override { return "epoll"; }

  bool add_listener(int fd) override {
    listeners_.push_back({fd, true, 0});
    const auto index = static_cast<std::uint32_t>(listeners_.size() - 1);
    if (control(EPOLL_CTL_ADD, fd, make_tag(Kind::Listener, 0, index))) return true;
    listeners_[index].active = false;
    return false;
  }

  void remove_listener(int fd) override {
    for (Listener& l : listeners_) {
      if (l.fd != fd || !l.active) continue;
      l.active = false;
      if (l.retry_at_ns == 0) control(EPOLL_CTL_DEL, fd, 0);
    }
  }

  bool watch(int fd) override {
    watches_.push_back(fd);
    return control(EPOLL_CTL_ADD, fd,
                   make_tag(Kind::Watch, 0, static_cast<std::uint32_t>(watches_.size() - 1)));
  }

  ConnectionId add_connection(Fd fd) override {
    std::uint32_t index = 0;
    if (!free_.empty()) {
      index = free_.back();
    } else if (slots_.size() < options_.max_connections) {
      index = static_cast<std::uint32_t>(slots_.size());
      slots_.emplace_back();
      free_.push_back(index);
    } else {
      return kNoConnection;
    }
    Slot& slot = slots_[index];
    if (!control(EPOLL_CTL_ADD, fd.get(), make_tag(Kind::Connection, slot.generation, index)))
      return kNoConnection;
    free_.pop_back();
    slot.fd = std::move(fd);
    slot.paused = false;
    return ConnectionId{index};
  }

  // Hang-ups are reported whatever the event mask is, so a paused connection must leave the set.
  void pause(ConnectionId id) override {
    Slot& slot = slots_[raw(id)];
    if (slot.paused) return;
    slot.paused = true;
    control(EPOLL_CTL_DEL, slot.fd.get(), 0);
  }

  void resume(ConnectionId id) override {
    Slot& slot = slots_[raw(id)];
    if (!slot.paused) return;
    slot.paused = false;
    control(EPOLL_CTL_ADD, slot.fd.get(), make_tag(Kind::Connection, slot.generation, raw(id)));
  }

  void close(ConnectionId id) override {
    ++syscalls_;
    take(id).reset();
  }

  Fd detach(ConnectionId id) override {
    Slot& slot = slots_[raw(id)];
    if (!slot.paused) control(EPOLL_CTL_DEL, slot.fd.get(), 0);
    return take(id);
  }

  void run_once(std::uint64_t timeout_ns) override {
    // Events that the last call had no budget for come first; they are as good as new, since each is checked
    // again.
    if (next_event_ >= event_count_) {
      next_event_ = 0;
      event_count_ = static_cast<std::size_t>(std::max(0, wait(events_, retry_listeners(timeout_ns))));
    }
    budget_bytes_ = kIoBudgetBytes;
    while (next_event_ < event_count_ && budget_bytes_ > 0) {
      const std::uint64_t tag = events_[next_event_++].data.u64;
      const auto index = static_cast<std::uint32_t>(tag);
      switch (static_cast<Kind>(tag >> 56)) {
        case Kind::Connection: read(index, static_cast<std::uint32_t>(tag >> 32) & kGenerationMask); break;
        case Kind::Listener: accept(index); break;
        case Kind::Watch: handler_.on_readable(watches_[index]); break;
      }
    }
  }

  [[nodiscard]] std::uint64_t syscalls() const override { return syscalls_; }

 private:
  // One read of each: level-triggered, so what is left is seen by the next round.
  static constexpr std::size_t kMaxEvents = 64;
  static constexpr int kAcceptsPerRound = 64;

  struct Slot {
    Fd fd;
    std::uint32_t generation = 0;
    bool paused = false;
  };
  struct Listener {
    int fd;
    bool active;
    std::uint64_t retry_at_ns;  // 0: in the epoll set
  };

  bool control(int operation, int fd, std::uint64_t tag) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = tag;
    ++syscalls_;
    return ::epoll_ctl(epoll_.get(), operation, fd, &event) == 0;
  }

  Fd take(ConnectionId id) {
    Slot& slot = slots_[raw(id)];
    slot.generation = (slot.generation + 1) & kGenerationMask;
    free_.push_back(raw(id));
    return std::move(slot.fd);
  }

  int wait(std::array<epoll_event, kMaxEvents>& events, std::uint64_t timeout_ns) {
    ++syscalls_;
    if (has_pwait2_) {
      const timespec ts{static_cast<time_t>(timeout_ns / 1'000'000'000U),
                        static_cast<long>(timeout_ns % 1'000'000'000U)};
      const int n = ::epoll_pwait2(epoll_.get(), events.data(), static_cast<int>(kMaxEvents), &ts, nullptr);
      if (n >= 0 || errno != ENOSYS) return n;
      has_pwait2_ = false;  // before Linux 5.11
    }
    const auto ms = static_cast<int>(std::min<std::uint64_t>((timeout_ns + 999'999) / 1'000'000, 60'000));
    return ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(kMaxEvents), ms);
  }

  void read(std::uint32_t index, std::uint32_t generation) {
    Slot& slot = slots_[index];
    if (!slot.fd.valid() || slot.generation != generation || slot.paused) return;
    ++syscalls_;
    const ssize_t n = ::recv(slot.fd.get(), buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (n > 0) {
      budget_bytes_ -= std::min(budget_bytes_, static_cast<std::size_t>(n));
      handler_.on_data(ConnectionId{index}, {buffer_.data(), static_cast<std::size_t>(n)});
      return;
    }
    const int error = n == 0 ? 0 : errno;
    if (error == EAGAIN || error == EINTR) return;
    ++syscalls_;
    take(ConnectionId{index}).reset();
    handler_.on_closed(ConnectionId{index}, error);
  }

  void accept(std::uint32_t index) {
    for (int i = 0; i < kAcceptsPerRound && listeners_[index].active; ++i) {
      ++syscalls_;
      Fd fd(::accept4(listeners_[index].fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (fd) {
        handler_.on_accept(std::move(fd));
        continue;
      }
      const int error = errno;
      if (error == EAGAIN || error == EINTR) return;
      if (error == ECONNABORTED) continue;
      // A level-triggered listener that cannot be served would spin.
      control(EPOLL_CTL_DEL, listeners_[index].fd, 0);
      listeners_[index].retry_at_ns = clock_ns(CLOCK_MONOTONIC) + kAcceptRetryNs;
      ++waiting_listeners_;
      handler_.on_accept_error(error);
      return;
    }
  }

  std::uint64_t retry_listeners(std::uint64_t timeout_ns) {
    if (waiting_listeners_ == 0) return timeout_ns;
    const std::uint64_t now = clock_ns(CLOCK_MONOTONIC);
    for (std::uint32_t i = 0; i < listeners_.size(); ++i) {
      Listener& l = listeners_[i];
      if (l.retry_at_ns == 0) continue;
      if (l.retry_at_ns > now && l.active) {
        timeout_ns = std::min(timeout_ns, l.retry_at_ns - now);
        continue;
      }
      l.retry_at_ns = 0;
      --waiting_listeners_;
      if (l.active) control(EPOLL_CTL_ADD, l.fd, make_tag(Kind::Listener, 0, i));
    }
    return timeout_ns;
  }

  IoOptions options_;
  IoHandler& handler_;
  Fd epoll_;
  std::vector<std::byte> buffer_;
  std::array<epoll_event, kMaxEvents> events_{};
  std::size_t next_event_ = 0;
  std::size_t event_count_ = 0;
  std::size_t budget_bytes_ = 0;
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_;
  std::vector<Listener> listeners_;
  std::vector<int> watches_;
  std::uint32_t waiting_listeners_ = 0;
  std::uint64_t syscalls_ = 0;
  bool has_pwait2_ = true;
};

}  // namespace

std::unique_ptr<IoBackend> make_epoll_backend(const IoOptions& options, IoHandler& handler,
                                              std::string& note) {
  Fd fd(::epoll_create1(EPOLL_CLOEXEC));
  if (!fd) {
    note = std::string("epoll_create1: ") + std::strerror(errno);
    return nullptr;
  }
  return std::make_unique<EpollBackend>(options, handler, std::move(fd));
}

}  // namespace arancini::ingestd
