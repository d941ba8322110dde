// An ingestd or a publishd (by the name that it is started under) for curated's tests: takes the same flags,
// keeps a stats page with known contents, answers "listener?", and ends on SIGTERM. SIGUSR1 stops its
// heartbeat: stuck.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstring>
#include <string>

#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/fd.h"
#include "common/base/types.h"
#include "common/base/unix_socket.h"
#include "common/metrics/stats_file.h"

namespace {

using namespace arancini;

Fd serve_handover(const std::string& path) {
  ::unlink(path.c_str());
  sockaddr_un address{};
  Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!unix_address(path, address) ||
      ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(fd.get(), 4) != 0) {
    std::perror("handover");
    ::_exit(70);
  }
  return fd;
}

void answer_handover(int server, int listener) {
  const Fd fd(::accept4(server, nullptr, nullptr, SOCK_CLOEXEC));
  char text[16] = {};
  if (::recv(fd.get(), text, sizeof text, 0) != 9 || std::memcmp(text, "listener?", 9) != 0) return;
  (void)send_with_fd(fd.get(), "L", listener, 0);
}

void fill(StatsWriter& stats, std::uint32_t shard) {
  stats.set(IngestMetric::SessionsOpen, 1);
  stats.set(IngestMetric::Routes, 1000 + shard);
  stats.update_router(0, [&](shm::RouterRow& row) {
    row.in_use = 1;
    const IpAddress address = IpAddress::from_v4(0xc0000201U + shard);
    std::memcpy(row.address, address.bytes.data(), 16);
    row.state = static_cast<std::uint32_t>(shm::RouterState::Initiated);
    row.sessions = 1;
    row.peers_up = 1;
    row.routes = 1000 + shard;
    copy_text(row.sys_name, "edge" + std::to_string(shard));
  });
  stats.update_peer(0, [&](shm::PeerRow& row) {
    row.in_use = 1;
    row.router = 0;
    row.view = static_cast<std::uint8_t>(View::LocRib);
    row.state = static_cast<std::uint8_t>(shm::PeerState::Up);
    std::memcpy(row.address, IpAddress::parse("2001:db8::1")->bytes.data(), 16);
    row.asn = 65001;
  });
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app;
  ConfigFlags flags;
  flags.add_to(app);
  std::uint32_t shard = 0;
  int listen_fd = -1;
  app.add_option("--shard", shard);
  app.add_option("--listen-fd", listen_fd);
  CLI11_PARSE(app, argc, argv);
  const Config config = load_config(flags);
  const bool ingestd = std::string(argv[0]).ends_with("/ingestd");

  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGUSR1);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  const Fd wakeup(::signalfd(-1, &signals, SFD_CLOEXEC));

  const SystemClock clock;
  StatsWriter::Options options;
  options.kind = ingestd ? shm::ProcessKind::Ingestd : shm::ProcessKind::Publishd;
  options.shard = shard;
  options.routers = 8;
  options.peers = 8;
  options.now_realtime_ns = clock.realtime_ns();
  auto stats =
      StatsWriter::create(ingestd ? config.ingestd_stats_path(shard) : config.publishd_stats_path(), options);
  if (!stats) {
    std::fprintf(stderr, "%s\n", stats.error().c_str());
    return 70;
  }
  Fd handover;
  if (ingestd) {
    fill(*stats, shard);
    handover = serve_handover(config.handover_path(shard));
  } else {
    stats->set(PublishMetric::NatsConnected, 1);
    stats->set(PublishMetric::StreamLastSequence, 42);
  }
  stats->heartbeat(clock.boottime_ns());
  stats->set_state(shm::ProcessState::Running);
  bool beat = true;
  for (;;) {
    pollfd wait[] = {{wakeup.get(), POLLIN, 0}, {handover.get(), POLLIN, 0}};
    ::poll(wait, 2, 200);
    if (beat) stats->heartbeat(clock.boottime_ns());
    if ((wait[1].revents & POLLIN) != 0) answer_handover(handover.get(), listen_fd);
    if ((wait[0].revents & POLLIN) == 0) continue;
    signalfd_siginfo info{};
    if (::read(wakeup.get(), &info, sizeof info) != ssize_t{sizeof info}) return 70;
    if (info.ssi_signo == SIGTERM) break;
    beat = false;
  }
  stats->set_state(shm::ProcessState::Stopped);
  return 0;
}
