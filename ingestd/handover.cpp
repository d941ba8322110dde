#include "ingestd/handover.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "common/base/unix_socket.h"

namespace arancini::ingestd {

namespace {

// Our own user and root may ask.
bool trusted(int channel) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(channel, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return false;
  return peer.uid == 0 || peer.uid == ::geteuid();
}

}  // namespace

Result<std::unique_ptr<Handover>, std::string> Handover::open(const Config& config, const Options& options,
                                                              int listener_fd, HandoverEvents& events,
                                                              const Clock& clock) {
  std::unique_ptr<Handover> handover(new Handover(config, options, listener_fd, events, clock));
  if (std::string error = handover->bind_socket(); !error.empty()) return Err{std::move(error)};
  return handover;
}

Handover::~Handover() = default;

// Bound under another name, then renamed: at its path there is always a socket with its final mode.
std::string Handover::bind_socket() {
  const std::string path = config_.handover_path(options_.shard);
  const std::string temporary = path + ".new";
  sockaddr_un address{};
  if (!unix_address(temporary, address)) {
    return fmt::format("{}: too long for a unix socket, choose a shorter runtime directory", temporary);
  }
  socket_ = Fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  ::unlink(temporary.c_str());
  if (!socket_ || ::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::chmod(temporary.c_str(), 0600) != 0 || ::listen(socket_.get(), 256) != 0 ||
      std::rename(temporary.c_str(), path.c_str()) != 0) {
    return fmt::format("{}: {}", path, std::strerror(errno));
  }
  return {};
}

void Handover::on_readable() {
  for (int i = 0; i < 64; ++i) {
    Fd channel(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!channel) break;
    if (!trusted(channel.get())) continue;
    Request request{std::move(channel), clock_.boottime_ns() + options_.hold_ns};
    // Nearly always the request is there already.
    if (serve(request) || requests_.size() >= options_.max_requests) continue;
    if (next_deadline_ns() == 0) next_ns_ = clock_.boottime_ns() + options_.retry_ns;
    requests_.push_back(std::move(request));
  }
}

bool Handover::serve(Request& request) {
  char text[16];
  Fd passed;
  const std::ptrdiff_t n = receive_with_fd(request.channel.get(), text, passed, MSG_DONTWAIT);
  if (n < 0) return errno != EAGAIN && errno != EINTR;
  const std::string_view what(text, static_cast<std::size_t>(n));
  if (what == kHandoverSession && passed) {
    // Ours before the first byte is read: if the answer cannot be sent, the sender has given up and closed
    // its copy.
    (void)::send(request.channel.get(), kHandoverSessionTaken.data(), kHandoverSessionTaken.size(),
                 MSG_NOSIGNAL | MSG_DONTWAIT);
    events_.on_session_received(std::move(passed));
  } else if (what == kHandoverAskForListener && listener_fd_ >= 0) {
    (void)send_with_fd(request.channel.get(), kHandoverListener, listener_fd_, MSG_DONTWAIT);
  }
  return true;
}

void Handover::pass(ShardId owner, Fd session, const IpAddress& source) {
  const std::uint64_t now = clock_.boottime_ns();
  Held held{owner, source, std::move(session), Fd{}, now + options_.hold_ns, {}};
  if (held_.size() >= options_.max_held) {
    events_.on_handover_failed(source, owner,
                               fmt::format("{} sessions wait for their owners already", held_.size()));
    return;
  }
  if (advance(held)) return;
  if (next_deadline_ns() == 0) next_ns_ = now + options_.retry_ns;
  held_.push_back(std::move(held));
}

bool Handover::advance(Held& held) {
  if (!held.channel) {
    sockaddr_un address{};
    Fd channel(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!unix_address(config_.handover_path(raw(held.owner)), address) || !channel ||
        ::connect(channel.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        !send_with_fd(channel.get(), kHandoverSession, held.session.get(), MSG_DONTWAIT)) {
      held.why = std::strerror(errno);
      return false;
    }
    held.channel = std::move(channel);
    held.why = "it does not answer";
  }
  char answer = 0;
  const ssize_t n = ::recv(held.channel.get(), &answer, 1, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  if (n == 1 && answer == kHandoverSessionTaken.front()) {
    events_.on_session_passed(held.source, held.owner);
    return true;
  }
  held.channel.reset();  // it died before it took the session
  held.why = "it ended while it was asked";
  return false;
}

void Handover::do_work() {
  const std::uint64_t now = clock_.boottime_ns();
  if (now < next_deadline_ns()) return;
  std::erase_if(requests_, [&](Request& r) { return serve(r) || now >= r.give_up_ns; });
  // Events may call pass(): keep away from held_ while they run.
  std::vector<Held> work;
  work.swap(held_);
  for (Held& held : work) {
    if (advance(held)) continue;
    if (now >= held.give_up_ns) {
      events_.on_handover_failed(held.source, held.owner, held.why);
    } else {
      held_.push_back(std::move(held));
    }
  }
  next_ns_ = now + options_.retry_ns;
}

std::uint64_t Handover::next_deadline_ns() const {
  return held_.empty() && requests_.empty() ? 0 : next_ns_;
}

}  // namespace arancini::ingestd
