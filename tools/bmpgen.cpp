// bmpgen: deterministic BMP load. A table dump per router and peer, then churn; --truth writes the table that
// must come out.

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sysexits.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/fd.h"
#include "common/base/socket_address.h"
#include "common/base/types.h"
#include "common/schema/update_decode.h"
#include "common/wire/bgp_update.h"
#include "tools/bmp_load.h"
#include "tools/net_client.h"
#include "tools/route_json.h"

namespace {

using namespace arancini;
using tools::LoadSession;
using tools::LoadTable;
using tools::PathAttributes;
using tools::PeerIdentity;

struct Options {
  std::string to;
  std::string out;
  std::string source;
  std::string truth;
  std::uint32_t routers = 1;
  tools::LoadOptions load;
  double hold_s = 0;
  bool step = false;
};

// One router's table as `fold` prints it, unsorted.
void append_truth(const Options& options, const LoadTable& table, const LoadSession& session,
                  std::uint32_t router, const IpAddress& address, std::vector<schema::DecodedUpdate>& out) {
  for (std::uint32_t p = 0; p < options.load.peers; ++p) {
    const PeerIdentity peer = tools::load_peer(router, p);
    for (std::size_t i = 0; i < table.prefixes.size(); ++i) {
      const std::uint32_t told = session.tables[p][i];
      if (told == tools::kNothingTold) continue;
      const PathAttributes a =
          tools::load_attributes(options.load, router, told - 1, peer.asn, table.families[i]);
      schema::DecodedUpdate u;
      u.router = address;
      u.peer = peer.address;
      u.peer_asn = peer.asn;
      u.family = table.families[i];
      u.prefix_address = prefix_address(table.prefixes[i]);
      u.prefix_length = table.prefixes[i].length;
      u.announced = true;
      const auto present = [&](wire::AttrType t) {
        u.attributes_present |= 1ULL << static_cast<unsigned>(t);
      };
      present(wire::AttrType::Origin);
      present(wire::AttrType::AsPath);
      present(table.families[i] == kIpv4Unicast ? wire::AttrType::NextHop : wire::AttrType::MpReach);
      u.origin = a.origin == 0 ? "IGP" : "INCOMPLETE";
      u.as_path = a.as_path;
      u.next_hop = a.next_hop;
      if (a.med != 0) {
        u.med = a.med;
        present(wire::AttrType::Med);
      }
      if (!a.communities.empty()) present(wire::AttrType::Communities);
      for (const std::uint32_t c : a.communities) {
        u.communities.push_back({c >> 16, static_cast<std::uint16_t>(c & 0xffff)});
      }
      out.push_back(std::move(u));
    }
  }
}

Fd memory_file(const std::string& bytes) {
  Fd fd(::memfd_create("bmpgen", MFD_CLOEXEC));
  std::size_t at = 0;
  while (fd && at < bytes.size()) {
    const ssize_t n = ::write(fd.get(), bytes.data() + at, bytes.size() - at);
    if (n <= 0) throw std::runtime_error(fmt::format("memfd: {}", std::strerror(errno)));
    at += static_cast<std::size_t>(n);
  }
  if (!fd) throw std::runtime_error(fmt::format("memfd_create: {}", std::strerror(errno)));
  return fd;
}

struct Sender {
  Fd socket;
  Fd source;
  off_t offset = 0;
  std::size_t end = 0;  // send up to here
  std::size_t dump_bytes = 0;
  std::size_t size = 0;
};

// All routers at once, each up to its `end`; sendfile() keeps this side's CPU small (docs/performance.md).
void send_sessions(std::vector<Sender>& senders) {
  for (const Sender& s : senders) ::fcntl(s.socket.get(), F_SETFL, O_NONBLOCK);
  std::vector<pollfd> polls;
  for (;;) {
    polls.clear();
    for (Sender& s : senders) {
      if (static_cast<std::size_t>(s.offset) < s.end) polls.push_back({s.socket.get(), POLLOUT, 0});
    }
    if (polls.empty()) break;
    if (::poll(polls.data(), polls.size(), -1) < 0 && errno != EINTR) {
      throw std::runtime_error(fmt::format("poll: {}", std::strerror(errno)));
    }
    for (Sender& s : senders) {
      if (static_cast<std::size_t>(s.offset) >= s.end) continue;
      const ssize_t n =
          ::sendfile(s.socket.get(), s.source.get(), &s.offset, s.end - static_cast<std::size_t>(s.offset));
      if (n < 0 && errno != EAGAIN && errno != EINTR) {
        throw std::runtime_error(fmt::format("the collector closed a session: {}", std::strerror(errno)));
      }
    }
  }
  for (const Sender& s : senders) ::fcntl(s.socket.get(), F_SETFL, 0);
}

IpAddress local_address(int fd) {
  const auto at = bound_address(fd);
  return at ? IpAddress::parse(at->host).value_or(IpAddress{}) : IpAddress{};
}

// Router r's own address: the first one counted up, or whatever the kernel picks when there is just one.
std::string source_of(const Options& options, std::uint32_t router) {
  if (options.source.empty() && options.routers == 1) return "";
  const auto first = IpAddress::parse(options.source.empty() ? "127.0.1.1" : options.source);
  if (!first || !first->is_v4()) {
    if (options.routers == 1) return options.source;
    throw std::runtime_error("--source must be an IPv4 address when there are several routers");
  }
  return IpAddress::from_v4(first->v4() + router).to_string();
}

void write_truth(const std::string& path, std::vector<schema::DecodedUpdate>& routes) {
  std::vector<std::string> lines = tools::fold_lines(routes);
  // Under its name only when whole: others wait for it.
  const std::string temporary = path + ".tmp";
  std::ofstream out(temporary);
  for (const std::string& line : lines) out << line << '\n';
  out.close();
  if (!out || std::rename(temporary.c_str(), path.c_str()) != 0)
    throw std::runtime_error(fmt::format("{}: cannot be written", path));
}

double seconds_since(std::uint64_t start_ns, clockid_t clock) {
  return static_cast<double>(clock_ns(clock) - start_ns) * 1e-9;
}

// One part of all sessions, begun by a line on standard input; says what it took.
void send_step(const char* name, std::vector<Sender>& senders, std::size_t Sender::*until,
               std::uint64_t updates) {
  fmt::print("{}: ready\n", name);
  std::fflush(stdout);
  while (true) {
    const int c = std::getchar();
    if (c == '\n') break;
    if (c == EOF) throw std::runtime_error("--step: standard input has ended");
  }
  std::size_t bytes = 0;
  for (Sender& s : senders) {
    s.end = s.*until;
    bytes += s.end - static_cast<std::size_t>(s.offset);
  }
  const std::uint64_t start = clock_ns(CLOCK_MONOTONIC);
  const std::uint64_t start_cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
  send_sessions(senders);
  fmt::print("{}: {} updates, {} bytes sent in {:.3f} s with {:.4f} s of CPU\n", name, updates, bytes,
             seconds_since(start, CLOCK_MONOTONIC), seconds_since(start_cpu, CLOCK_PROCESS_CPUTIME_ID));
  std::fflush(stdout);
}

void run(const Options& options) {
  const LoadTable table = tools::make_load_table(options.load);
  std::vector<schema::DecodedUpdate> truth;
  std::vector<Sender> senders;
  std::uint64_t messages = 0;
  std::uint64_t updates = 0;
  std::uint64_t dump_updates = 0;
  std::uint64_t bytes = 0;
  for (std::uint32_t r = 0; r < options.routers; ++r) {
    LoadSession session = tools::make_load_session(options.load, table, r);
    messages += session.messages;
    updates += session.updates;
    dump_updates += session.dump_updates;
    bytes += session.bytes.size();
    const std::string source = source_of(options, r);
    IpAddress address = IpAddress::parse(source.empty() ? "127.0.0.1" : source).value_or(IpAddress{});
    if (!options.out.empty()) {
      const std::string name = options.routers == 1 ? options.out : fmt::format("{}.{}", options.out, r);
      std::ofstream out(name, std::ios::binary);
      out.write(session.bytes.data(), static_cast<std::streamsize>(session.bytes.size()));
      out.close();
      if (!out) throw std::runtime_error(fmt::format("{}: cannot be written", name));
    } else {
      Sender sender;
      sender.source = memory_file(session.bytes);
      sender.size = sender.end = session.bytes.size();
      sender.dump_bytes = session.dump_bytes;
      sender.socket = tools::connect_router(parse_socket_address(options.to, "--to"), source, 5);
      address = local_address(sender.socket.get());
      senders.push_back(std::move(sender));
    }
    session.bytes.clear();
    session.bytes.shrink_to_fit();
    if (!options.truth.empty()) append_truth(options, table, session, r, address, truth);
  }
  if (!options.truth.empty()) write_truth(options.truth, truth);
  const std::uint64_t start = clock_ns(CLOCK_MONOTONIC);
  if (options.step) {
    send_step("dump", senders, &Sender::dump_bytes, dump_updates);
    send_step("churn", senders, &Sender::size, updates - dump_updates);
  } else {
    send_sessions(senders);
  }
  const double seconds = seconds_since(start, CLOCK_MONOTONIC);
  fmt::print("{} routers, {} messages, {} updates, {} bytes{}\n", options.routers, messages, updates, bytes,
             options.out.empty() ? fmt::format(" sent in {:.3f} s", seconds) : "");
  std::fflush(stdout);
  if (options.hold_s > 0 && !senders.empty()) {
    const std::uint64_t until = clock_ns(CLOCK_MONOTONIC) + static_cast<std::uint64_t>(options.hold_s * 1e9);
    for (const Sender& s : senders) {
      const std::uint64_t now = clock_ns(CLOCK_MONOTONIC);
      if (!tools::hold(s.socket.get(), now < until ? static_cast<double>(until - now) * 1e-9 : 0)) {
        throw std::runtime_error("the collector closed a session");
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Makes BMP sessions of routers that never were: a table dump per peer (Internet-like prefix lengths, "
      "attribute\n"
      "sets shared as in real tables), End-of-RIB, then churn of single-prefix UPDATEs. The same seed, the "
      "same bytes."};
  Options o;
  app.set_version_flag("--version", ARANCINI_VERSION);
  auto* to = app.add_option("--to", o.to, "collector, ADDRESS:PORT");
  auto* out =
      app.add_option("--out", o.out, "write the session to a file instead (FILE.K for several routers)");
  to->excludes(out);
  app.add_option("--routers", o.routers, "routers, each with a session and an address of its own")
      ->check(CLI::Range(1U, 10000U));
  app.add_option("--peers", o.load.peers, "peers of each router")->check(CLI::Range(1U, 60000U));
  app.add_option("--prefixes", o.load.prefixes, "prefixes of each peer")->check(CLI::Range(0U, 20000000U));
  app.add_option("--v6-percent", o.load.v6_percent, "share of IPv6 prefixes")->check(CLI::Range(0U, 100U));
  app.add_option("--nlri-per-update", o.load.nlri_per_update,
                 "an UPDATE of the dump carries 1 to this many prefixes")
      ->check(CLI::Range(1U, 200U));
  app.add_option("--churn", o.load.churn, "single-prefix UPDATEs after the dump, of each router");
  app.add_option("--withdraw-percent", o.load.withdraw_percent, "share of withdrawals in the churn")
      ->check(CLI::Range(0U, 100U));
  app.add_option("--hold", o.hold_s, "seconds to keep the sessions open at the end")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--seed", o.load.seed, "same seed, same bytes");
  app.add_option("--source", o.source,
                 "address of the first router; the next ones count up (default 127.0.1.1)");
  app.add_option("--truth", o.truth, "write the final table, in the format of `aranctl fold --json`");
  app.add_flag("--step", o.step,
               "wait for a line on standard input before the dump and again before the churn, and say what "
               "each took; for measurements")
      ->excludes(out);
  app.add_flag("--terminate", o.load.terminate, "end each session with a Termination message");
  CLI11_PARSE(app, argc, argv);
  if (o.to.empty() == o.out.empty()) {
    fmt::print(stderr, "bmpgen: give one of --to ADDRESS:PORT and --out FILE\n");
    return EX_USAGE;
  }
  try {
    run(o);
  } catch (const ConfigError& e) {
    fmt::print(stderr, "bmpgen: {}\n", e.what());
    return EX_USAGE;
  } catch (const std::exception& e) {
    fmt::print(stderr, "bmpgen: {}\n", e.what());
    return EX_UNAVAILABLE;
  }
  return 0;
}
