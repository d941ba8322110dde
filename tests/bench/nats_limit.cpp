// How many messages of a size a nats-server stores and acks: the NATS protocol by hand over one connection,
// so that next to nothing but the server is measured. The mark for publishd (publish_bench.py).
#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"
#include "common/base/fd.h"

namespace arancini {
namespace {

constexpr const char* kStream = "NATS_LIMIT";

struct Options {
  std::uint16_t port = 4222;
  std::size_t bytes = 64 * 1024;
  std::uint32_t subjects = 4;
  std::uint64_t count = 10'000;
  std::size_t in_flight = 256;
  std::size_t in_flight_bytes = 16UL * 1024 * 1024;
  bool headers = false;
};

class Connection {
 public:
  explicit Connection(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_port = htons(port);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int one = 1;
    (void)::setsockopt(fd_.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    (void)::setsockopt(fd_.get(), IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
    if (::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&a), sizeof a) != 0) fail("connect");
  }

  void write(std::string_view text) {
    while (!text.empty()) {
      const ssize_t n = ::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL);
      if (n <= 0) fail("send");
      text.remove_prefix(static_cast<std::size_t>(n));
    }
  }
  // As much as fits; what is left stays in `parts`.
  void write_some(std::vector<iovec>& parts) {
    msghdr m{};
    m.msg_iov = parts.data();
    m.msg_iovlen = std::min<std::size_t>(parts.size(), 64);
    const ssize_t sent = ::sendmsg(fd_.get(), &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (sent < 0) fail("send");
    auto n = static_cast<std::size_t>(sent);
    auto part = parts.begin();
    for (; part != parts.end() && n >= part->iov_len; ++part) n -= part->iov_len;
    if (n > 0) *part = {static_cast<char*>(part->iov_base) + n, part->iov_len - n};
    parts.erase(parts.begin(), part);
  }

  // The payload of the next message; answers PINGs on the way. False: nothing has come, and waiting was not
  // wanted.
  bool next(std::string& payload, bool wait) {
    for (;;) {
      const auto end = in_.find("\r\n", at_);
      if (end != std::string::npos) {
        const std::string_view line(in_.data() + at_, end - at_);
        if (line.starts_with("MSG ")) {
          std::size_t size = 0;
          const auto from = line.rfind(' ') + 1;
          std::from_chars(line.data() + from, line.data() + line.size(), size);
          if (in_.size() >= end + 2 + size + 2) {
            payload.assign(in_, end + 2, size);
            at_ = end + 2 + size + 2;
            return true;
          }
        } else {
          if (line.starts_with("-ERR")) throw std::runtime_error(std::string(line));
          const bool ping = line == "PING";
          at_ = end + 2;
          if (ping) write("PONG\r\n");
          continue;
        }
      }
      if (!fill(wait)) return false;
    }
  }
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  [[noreturn]] static void fail(const char* what) {
    throw std::runtime_error(fmt::format("{}: {}", what, std::strerror(errno)));
  }
  bool fill(bool wait) {
    in_.erase(0, at_);
    at_ = 0;
    const std::size_t have = in_.size();
    in_.resize(have + 64UL * 1024);
    const ssize_t n = ::recv(fd_.get(), in_.data() + have, in_.size() - have, wait ? 0 : MSG_DONTWAIT);
    in_.resize(have + static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
    if (n == 0) throw std::runtime_error("nats-server has closed the connection");
    if (n < 0 && errno != EAGAIN && errno != EINTR) fail("recv");
    return n > 0;
  }

  Fd fd_;
  std::string in_;
  std::size_t at_ = 0;
};

std::string request(Connection& c, const std::string& subject, const std::string& json) {
  c.write(fmt::format("PUB {} _LIMIT.api {}\r\n{}\r\n", subject, json.size(), json));
  std::string answer;
  while (!c.next(answer, true)) {
  }
  return answer;
}

// Headers as publishd sends them, of the same sizes.
std::string headers_of(std::uint64_t message) {
  const std::string id = fmt::format("{:032x}-{:016x}-{:09}-{:09}", 1, 1, message, message + 1);
  const std::string before = fmt::format("{:032x}-{:016x}-{:09}-{:09}", 1, 1, message - 1, message);
  return fmt::format(
      "NATS/1.0\r\nNats-Expected-Last-Sequence: {}\r\n{}Nats-Msg-Id: {}\r\nArancini-Format: "
      "update-v1-concat\r\nArancini-Schema: 1\r\nArancini-Instance: arancini\r\nArancini-Writer: "
      "{:032x}\r\nArancini-Shard: 0\r\nArancini-First: {:09}\r\nArancini-Last: {:09}\r\nArancini-Count: "
      "170\r\n\r\n",
      message, message == 0 ? "" : fmt::format("Nats-Expected-Last-Msg-Id: {}\r\n", before), id, 1, message,
      message + 1);
}

void run(const Options& o) {
  Connection c(o.port);
  c.write(
      "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\"lang\":\"c\","
      "\"version\":\"0\",\"protocol\":1}\r\nSUB _LIMIT.> 1\r\n");
  request(c, fmt::format("$JS.API.STREAM.DELETE.{}", kStream), "");
  const std::string made = request(
      c, fmt::format("$JS.API.STREAM.CREATE.{}", kStream),
      fmt::format(
          "{{\"name\":\"{}\",\"subjects\":[\"limit.>\"],\"storage\":\"file\",\"retention\":\"limits\","
          "\"discard\":\"old\",\"max_consumers\":-1,\"max_msgs\":-1,\"max_bytes\":-1,\"max_age\":0,"
          "\"num_replicas\":1,\"duplicate_window\":10000000000}}",
          kStream));
  if (made.find("\"error\"") != std::string::npos) throw std::runtime_error(made);

  // Not all the same bytes, and no server ever looks at them.
  std::string payload(o.bytes, '\0');
  std::uint64_t state = 1;
  for (char& b : payload) b = static_cast<char>((state = state * 6364136223846793005U + 1) >> 56);

  std::vector<std::string> heads(64);  // more than `parts` can name
  std::vector<iovec> parts;
  std::string ack;
  std::uint64_t sent = 0;
  std::uint64_t acked = 0;
  const std::uint64_t start = clock_ns(CLOCK_MONOTONIC);
  const std::uint64_t start_cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
  const std::size_t window =
      std::clamp<std::size_t>(o.in_flight_bytes / std::max<std::size_t>(o.bytes, 1), 1, o.in_flight);
  while (acked < o.count) {
    while (sent < o.count && sent - acked < window && parts.size() < 60) {
      std::string& head = heads[sent % heads.size()];
      const std::string subject =
          fmt::format("limit.updates.v4_127_0_1_{}.65001.1_1", sent % std::max(o.subjects, 1U));
      if (o.headers) {
        const std::string h = headers_of(sent);
        head = fmt::format("HPUB {} _LIMIT.a.{} {} {}\r\n{}", subject, sent, h.size(), h.size() + o.bytes, h);
      } else {
        head = fmt::format("PUB {} _LIMIT.a.{} {}\r\n", subject, sent, o.bytes);
      }
      parts.push_back({head.data(), head.size()});
      parts.push_back({payload.data(), payload.size()});
      parts.push_back({const_cast<char*>("\r\n"), 2});
      ++sent;
    }
    pollfd p{c.fd(), static_cast<short>(POLLIN | (parts.empty() ? 0 : POLLOUT)), 0};
    ::poll(&p, 1, -1);
    if ((p.revents & POLLOUT) != 0) c.write_some(parts);
    if ((p.revents & (POLLIN | POLLHUP | POLLERR)) == 0) continue;
    while (c.next(ack, false)) {
      if (ack.find("\"error\"") != std::string::npos) throw std::runtime_error(ack);
      ++acked;
    }
  }
  const auto seconds = static_cast<double>(clock_ns(CLOCK_MONOTONIC) - start) * 1e-9;
  const auto cpu = static_cast<double>(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - start_cpu) * 1e-9;
  fmt::print("{{\"messages\": {}, \"bytes\": {}, \"seconds\": {:.6f}, \"client_cpu_s\": {:.6f}}}\n", acked,
             o.bytes, seconds, cpu);
  request(c, fmt::format("$JS.API.STREAM.DELETE.{}", kStream), "");
}

}  // namespace
}  // namespace arancini

int main(int argc, char** argv) {
  arancini::Options o;
  CLI::App app(
      "What a nats-server on 127.0.0.1 can do: publishes messages of one size into a stream of its own (file "
      "storage,\nmade and deleted again) and waits for the acks; one JSON object out.");
  app.add_option("--port", o.port, "of the server")->check(CLI::Range(1, 65535));
  app.add_option("--bytes", o.bytes, "payload of a message")->check(CLI::Range(0UL, 64UL << 20));
  app.add_option("--subjects", o.subjects, "subjects, in turn")->check(CLI::PositiveNumber);
  app.add_option("--count", o.count, "messages")->check(CLI::PositiveNumber);
  app.add_option("--in-flight", o.in_flight, "messages without ack")->check(CLI::PositiveNumber);
  app.add_flag("--headers", o.headers, "with headers as publishd sends them, ids and expectations included");
  CLI11_PARSE(app, argc, argv);
  try {
    arancini::run(o);
  } catch (const std::exception& e) {
    fmt::print(stderr, "nats_limit: {}\n", e.what());
    return 69;  // EX_UNAVAILABLE
  }
  return 0;
}
