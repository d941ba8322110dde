// The only file that sees liburing.h.
#include <liburing.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <deque>
#include <vector>

#include "common/base/clock.h"
#include "ingestd/io_backend.h"

namespace arancini::ingestd {

namespace {

// user_data: kind in the top byte, generation below it, index in the low half. The generation keeps a late
// completion of a closed connection from reaching the next one in the same slot.
enum class Kind : std::uint8_t { Ignore = 0, Recv = 1, Accept = 2, Poll = 3, SelfTest = 4 };
constexpr std::uint32_t kGenerationMask = 0xffffffU;
constexpr std::uint64_t make_tag(Kind kind, std::uint32_t generation, std::uint32_t index) {
  return (static_cast<std::uint64_t>(kind) << 56) | (static_cast<std::uint64_t>(generation) << 32) | index;
}
constexpr int kBufferGroup = 0;
constexpr unsigned kSubmissionEntries = 256;
constexpr std::uint32_t kMaxBuffers = 32768;  // of one group

struct Completion {
  std::uint64_t tag;
  std::int32_t result;
  std::uint32_t flags;
};

// Anonymous memory, page aligned.
class Mapping {
 public:
  Mapping() = default;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    if (data_ != nullptr) ::munmap(data_, size_);
  }
  bool map(std::size_t size) {
    void* p =
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (p == MAP_FAILED) return false;
    data_ = p;
    size_ = size;
    return true;
  }
  [[nodiscard]] void* data() const { return data_; }

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

class UringBackend final : public IoBackend {
 public:
  UringBackend(const IoOptions& options, IoHandler& handler) : options_(options), handler_(handler) {
    options_.buffer_count = std::bit_ceil(std::clamp(options_.buffer_count, 1U, kMaxBuffers));
  }

  ~UringBackend() override {
    if (!ring_made_) return;
    // Requests hold their sockets and buffers until the ring is gone.
    io_uring_queue_exit(&ring_);
  }

  // Empty, or why io_uring cannot serve us here.
  std::string start() {
    if (std::string error = make_ring(); !error.empty()) return error;
    if (!buffer_memory_.map(std::size_t{options_.buffer_count} * options_.buffer_bytes) ||
        !buffer_ring_memory_.map(options_.buffer_count * sizeof(io_uring_buf))) {
      return "no memory for receive buffers";
    }
    io_uring_buf_reg registration{};
    registration.ring_addr = reinterpret_cast<std::uintptr_t>(buffer_ring_memory_.data());
    registration.ring_entries = options_.buffer_count;
    registration.bgid = kBufferGroup;
    buffer_ring_ = static_cast<io_uring_buf_ring*>(buffer_ring_memory_.data());
    io_uring_buf_ring_init(buffer_ring_);
    if (const int r = io_uring_register_buf_ring(&ring_, &registration, 0); r < 0) {
      return std::string("registering a buffer ring: ") + std::strerror(-r);
    }
    for (std::uint32_t i = 0; i < options_.buffer_count; ++i) recycle(i);
    return self_test();
  }

  [[nodiscard]] const char* name() const override { return "io_uring"; }

  bool add_listener(int fd) override {
    listeners_.push_back({fd, true, 0});
    arm_accept(static_cast<std::uint32_t>(listeners_.size() - 1));
    return true;
  }

  void remove_listener(int fd) override {
    for (std::uint32_t i = 0; i < listeners_.size(); ++i) {
      if (listeners_[i].fd != fd || !listeners_[i].active) continue;
      listeners_[i].active = false;
      cancel(make_tag(Kind::Accept, 0, i));
      submit();  // the caller may close `fd`
    }
  }

  bool watch(int fd) override {
    watches_.push_back(fd);
    arm_poll(static_cast<std::uint32_t>(watches_.size() - 1));
    return true;
  }

  ConnectionId add_connection(Fd fd) override {
    std::uint32_t index = 0;
    if (!free_.empty()) {
      index = free_.back();
      free_.pop_back();
    } else if (slots_.size() < options_.max_connections) {
      index = static_cast<std::uint32_t>(slots_.size());
      slots_.emplace_back();
    } else {
      return kNoConnection;
    }
    Slot& slot = slots_[index];
    slot.fd = std::move(fd);
    slot.paused = slot.detaching = false;
    arm_recv(index);
    return ConnectionId{index};
  }

  void pause(ConnectionId id) override {
    Slot& slot = slots_[raw(id)];
    if (slot.paused) return;
    slot.paused = true;
    if (slot.armed) cancel(make_tag(Kind::Recv, slot.generation, raw(id)));
  }

  // Where the cancelled receive has not ended yet, its last completion arms the next one.
  void resume(ConnectionId id) override {
    Slot& slot = slots_[raw(id)];
    if (!slot.paused) return;
    slot.paused = false;
    if (!slot.armed) arm_recv(raw(id));
  }

  // The receive in flight holds a reference to the socket: without shutdown() the peer would see no FIN
  // before the cancellation is through. A receive that is only prepared must reach the kernel while its
  // descriptor number still means this socket.
  void close(ConnectionId id) override {
    Slot& slot = slots_[raw(id)];
    if (slot.armed) {
      cancel(make_tag(Kind::Recv, slot.generation, raw(id)));
      submit();
    }
    ::shutdown(slot.fd.get(), SHUT_RDWR);
    syscalls_ += 2;
    take(raw(id)).reset();
  }

  Fd detach(ConnectionId id) override {
    const std::uint32_t index = raw(id);
    const std::uint32_t generation = slots_[index].generation;
    const auto ours = [&] { return slots_[index].fd.valid() && slots_[index].generation == generation; };
    slots_[index].detaching = slots_[index].paused = true;
    if (slots_[index].armed) cancel(make_tag(Kind::Recv, generation, index));
    const std::uint64_t tag = make_tag(Kind::Recv, generation, index);
    for (auto it = deferred_.begin(); it != deferred_.end();) {
      if (it->tag != tag) {
        ++it;
        continue;
      }
      const Completion c = *it;
      it = deferred_.erase(it);
      received(c);
    }
    Completion c{};
    while (ours() && slots_[index].armed) {
      if (!pop_ring(c)) {
        enter(kAcceptRetryNs);
      } else if (c.tag == tag) {
        received(c);
      } else {
        deferred_.push_back(c);
      }
    }
    return ours() ? take(index) : Fd{};
  }

  void run_once(std::uint64_t timeout_ns) override {
    budget_bytes_ = kIoBudgetBytes;
    std::size_t events = kIoBudgetEvents;
    // What is completed already costs no system call.
    bool any = deliver(events);
    if (any && (budget_bytes_ == 0 || events == 0)) return;
    rearm_starved();
    timeout_ns = any ? 0 : retry_listeners(timeout_ns);
    enter(timeout_ns);
    deliver(events);
  }

  [[nodiscard]] std::uint64_t syscalls() const override { return syscalls_; }

 private:
  struct Slot {
    Fd fd;
    std::uint32_t generation = 0;
    bool armed = false;  // a receive is in flight: its last completion (without F_MORE) is yet to come
    bool fed = false;    // that receive has brought something
    bool paused = false;
    bool detaching = false;
  };
  struct Listener {
    int fd;
    bool active;
    std::uint64_t retry_at_ns;  // 0: armed
  };

  std::string make_ring() {
    // Multishot requests fill the completion queue without submissions.
    const std::uint64_t completions = std::bit_ceil(
        2 * (std::uint64_t{options_.buffer_count} + options_.max_connections + kSubmissionEntries));
    static constexpr std::array<unsigned, 3> kModes = {
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,  // Linux 6.1
        IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,                                // 5.19
        0,
    };
    int error = 0;
    for (const unsigned mode : kModes) {
      io_uring_params params{};
      params.flags = mode | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL;
      params.cq_entries = static_cast<std::uint32_t>(std::min<std::uint64_t>(completions, 65536));
      error = io_uring_queue_init_params(kSubmissionEntries, &ring_, &params);
      if (error == 0) {
        ring_made_ = true;
        taskrun_flag_ = (mode & IORING_SETUP_TASKRUN_FLAG) != 0;
        if ((params.features & IORING_FEAT_EXT_ARG) == 0 || (params.features & IORING_FEAT_NODROP) == 0) {
          return "kernel too old (no extended arguments)";
        }
        return {};
      }
      if (error != -EINVAL) break;
    }
    return std::string("io_uring_setup: ") + std::strerror(-error);
  }

  // Does multishot receive with provided buffers work (Linux 6.0)? Asking the kernel is surer than its
  // version.
  std::string self_test() {
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) {
      return std::string("socketpair: ") + std::strerror(errno);
    }
    Fd ours(pair[0]);
    Fd theirs(pair[1]);
    const std::uint64_t tag = make_tag(Kind::SelfTest, 0, 0);
    prepare_recv(ours.get(), tag);
    const char byte = 'x';
    if (::send(theirs.get(), &byte, 1, MSG_NOSIGNAL) != 1)
      return std::string("self-test: ") + std::strerror(errno);
    bool delivered = false;
    const std::uint64_t give_up_ns = clock_ns(CLOCK_MONOTONIC) + 2'000'000'000U;
    while (clock_ns(CLOCK_MONOTONIC) < give_up_ns) {
      Completion c{};
      if (!pop_ring(c)) {
        enter(kAcceptRetryNs);
        continue;
      }
      if (c.tag != tag) continue;
      const bool more = (c.flags & IORING_CQE_F_MORE) != 0;
      if ((c.flags & IORING_CQE_F_BUFFER) != 0) {
        delivered = c.result == 1 && more && *buffer(c.flags >> IORING_CQE_BUFFER_SHIFT) == std::byte{'x'};
        recycle(c.flags >> IORING_CQE_BUFFER_SHIFT);
        theirs.reset();
      }
      if (more) continue;
      if (delivered) return {};
      return c.result < 0 ? std::string("multishot receive: ") + std::strerror(-c.result)
                          : std::string("multishot receive does not work as expected");
    }
    return "multishot receive does not complete";
  }

  // --- submissions

  void submit() {
    ++syscalls_;
    io_uring_submit(&ring_);
  }

  io_uring_sqe* submission() {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    while (sqe == nullptr) {
      submit();
      sqe = io_uring_get_sqe(&ring_);
    }
    return sqe;
  }

  void prepare_recv(int fd, std::uint64_t tag) {
    io_uring_sqe* sqe = submission();
    io_uring_prep_recv_multishot(sqe, fd, nullptr, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = kBufferGroup;
    sqe->user_data = tag;
  }
  void arm_recv(std::uint32_t index) {
    slots_[index].armed = true;
    slots_[index].fed = false;
    prepare_recv(slots_[index].fd.get(), make_tag(Kind::Recv, slots_[index].generation, index));
  }
  void arm_accept(std::uint32_t index) {
    io_uring_sqe* sqe = submission();
    io_uring_prep_multishot_accept(sqe, listeners_[index].fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    sqe->user_data = make_tag(Kind::Accept, 0, index);
  }
  void arm_poll(std::uint32_t index) {
    io_uring_sqe* sqe = submission();
    io_uring_prep_poll_add(sqe, watches_[index], POLLIN);
    sqe->user_data = make_tag(Kind::Poll, 0, index);
  }
  void cancel(std::uint64_t tag) {
    io_uring_sqe* sqe = submission();
    io_uring_prep_cancel64(sqe, tag, 0);
    sqe->user_data = make_tag(Kind::Ignore, 0, 0);
  }

  [[nodiscard]] std::byte* buffer(std::uint32_t id) const {
    return static_cast<std::byte*>(buffer_memory_.data()) + std::size_t{id} * options_.buffer_bytes;
  }
  void recycle(std::uint32_t id) {
    io_uring_buf_ring_add(buffer_ring_, buffer(id), options_.buffer_bytes, static_cast<unsigned short>(id),
                          io_uring_buf_ring_mask(options_.buffer_count), 0);
    io_uring_buf_ring_advance(buffer_ring_, 1);
  }

  // Submits what is prepared; with a timeout, waits for a completion.
  void enter(std::uint64_t timeout_ns) {
    if (timeout_ns == 0) {
      const unsigned kernel_flags =
          std::atomic_ref<unsigned>(*ring_.sq.kflags).load(std::memory_order_relaxed);
      const bool pending = (kernel_flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
      if (io_uring_sq_ready(&ring_) == 0 && taskrun_flag_ && !pending) return;
      ++syscalls_;
      io_uring_submit_and_get_events(&ring_);
      return;
    }
    __kernel_timespec ts{};
    ts.tv_sec = static_cast<std::int64_t>(timeout_ns / 1'000'000'000U);
    ts.tv_nsec = static_cast<long long>(timeout_ns % 1'000'000'000U);
    io_uring_cqe* unused = nullptr;
    ++syscalls_;
    io_uring_submit_and_wait_timeout(&ring_, &unused, 1, &ts, nullptr);
  }

  // --- completions

  bool pop_ring(Completion& out) {
    if (io_uring_cq_ready(&ring_) == 0) return false;
    const io_uring_cqe* cqe = nullptr;
    unsigned head = 0;
    io_uring_for_each_cqe(&ring_, head, cqe) {
      out = {cqe->user_data, cqe->res, cqe->flags};
      break;
    }
    io_uring_cq_advance(&ring_, 1);
    return true;
  }

  // True if there was any. Stops when the budget is used up.
  bool deliver(std::size_t& events) {
    bool any = false;
    while (events > 0 && budget_bytes_ > 0) {
      Completion c{};
      if (!deferred_.empty()) {
        c = deferred_.front();
        deferred_.pop_front();
      } else if (!pop_ring(c)) {
        break;
      }
      any = true;
      --events;
      const auto index = static_cast<std::uint32_t>(c.tag);
      switch (static_cast<Kind>(c.tag >> 56)) {
        case Kind::Recv: received(c); break;
        case Kind::Accept: accepted(index, c); break;
        case Kind::Poll:
          handler_.on_readable(watches_[index]);
          arm_poll(index);  // one-shot and armed anew: level-triggered
          break;
        case Kind::Ignore:
        case Kind::SelfTest: break;
      }
    }
    return any;
  }

  void received(const Completion& c) {
    const auto index = static_cast<std::uint32_t>(c.tag);
    const std::uint32_t generation = static_cast<std::uint32_t>(c.tag >> 32) & kGenerationMask;
    const auto alive = [&] { return slots_[index].fd.valid() && slots_[index].generation == generation; };
    if ((c.flags & IORING_CQE_F_BUFFER) != 0) {
      const std::uint32_t id = c.flags >> IORING_CQE_BUFFER_SHIFT;
      if (c.result > 0 && alive()) {
        const auto size = static_cast<std::size_t>(c.result);
        budget_bytes_ -= std::min(budget_bytes_, size);
        slots_[index].fed = true;
        handler_.on_data(ConnectionId{index}, {buffer(id), size});
      }
      recycle(id);  // also when its connection is gone
    }
    if (!alive()) return;
    if ((c.flags & IORING_CQE_F_MORE) != 0) return;
    Slot& slot = slots_[index];
    slot.armed = false;
    if (c.result == -ENOBUFS) {
      // The buffers are in completions that wait to be delivered: armed when these are through, not before.
      if (!slot.paused) starved_.push_back(c.tag);
      return;
    }
    if (c.result > 0 || c.result == -ECANCELED || c.result == -EINTR || c.result == -EAGAIN) {
      // Ended without an error (completion queue full, fairness), or cancelled by a pause that is over.
      if (!slot.paused) arm_recv(index);
      return;
    }
    if (slot.detaching) return;
    syscalls_ += 1;
    take(index).reset();
    handler_.on_closed(ConnectionId{index}, -c.result);
  }

  // Who found no buffer at all comes first: a flood takes all that there are as soon as it is armed.
  void rearm_starved() {
    for (const bool fed : {false, true}) {
      for (const std::uint64_t tag : starved_) {
        const auto index = static_cast<std::uint32_t>(tag);
        const Slot& slot = slots_[index];
        if (!slot.fd.valid() || slot.generation != (static_cast<std::uint32_t>(tag >> 32) & kGenerationMask))
          continue;
        if (!slot.armed && !slot.paused && slot.fed == fed) arm_recv(index);
      }
    }
    starved_.clear();
  }

  void accepted(std::uint32_t index, const Completion& c) {
    if (c.result >= 0) handler_.on_accept(Fd(c.result));
    if ((c.flags & IORING_CQE_F_MORE) != 0 || !listeners_[index].active) return;
    if (c.result >= 0 || c.result == -ECONNABORTED || c.result == -EINTR || c.result == -EAGAIN) {
      arm_accept(index);
      return;
    }
    listeners_[index].retry_at_ns = clock_ns(CLOCK_MONOTONIC) + kAcceptRetryNs;
    ++waiting_listeners_;
    handler_.on_accept_error(-c.result);
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
      if (l.active) arm_accept(i);
    }
    return timeout_ns;
  }

  Fd take(std::uint32_t index) {
    Slot& slot = slots_[index];
    slot.generation = (slot.generation + 1) & kGenerationMask;
    slot.armed = slot.detaching = slot.paused = false;
    free_.push_back(index);
    return std::move(slot.fd);
  }

  IoOptions options_;
  IoHandler& handler_;
  Mapping buffer_memory_;
  Mapping buffer_ring_memory_;
  io_uring ring_{};
  io_uring_buf_ring* buffer_ring_ = nullptr;
  bool ring_made_ = false;
  bool taskrun_flag_ = false;
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_;
  std::vector<Listener> listeners_;
  std::vector<int> watches_;
  std::vector<std::uint64_t> starved_;
  std::deque<Completion> deferred_;  // taken from the ring by detach() while it looked for its own
  std::uint32_t waiting_listeners_ = 0;
  std::size_t budget_bytes_ = 0;
  std::uint64_t syscalls_ = 0;
};

}  // namespace

std::unique_ptr<IoBackend> make_uring_backend(const IoOptions& options, IoHandler& handler,
                                              std::string& note) {
  auto backend = std::make_unique<UringBackend>(options, handler);
  note = backend->start();
  if (!note.empty()) return nullptr;
  return backend;
}

}  // namespace arancini::ingestd
