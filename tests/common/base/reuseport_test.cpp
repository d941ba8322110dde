#include "common/base/reuseport.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <set>
#include <vector>

#include "common/base/socket_address.h"
#include "common/base/types.h"

namespace arancini {
namespace {

// Index of the listener on which the next connection arrives, -1 if none does.
int take_connection(const std::vector<Fd>& group) {
  std::vector<pollfd> wait;
  wait.reserve(group.size());
  for (const Fd& fd : group) wait.push_back({fd.get(), POLLIN, 0});
  if (::poll(wait.data(), wait.size(), 5000) < 1) return -1;
  for (std::size_t i = 0; i < wait.size(); ++i) {
    if ((wait[i].revents & POLLIN) != 0) {
      const Fd accepted(::accept4(group[i].get(), nullptr, nullptr, SOCK_CLOEXEC));
      int nodelay = 0;
      socklen_t n = sizeof nodelay;
      EXPECT_EQ(::getsockopt(accepted.get(), IPPROTO_TCP, TCP_NODELAY, &nodelay, &n), 0);
      EXPECT_NE(nodelay, 0);
      return accepted.valid() ? static_cast<int>(i) : -1;
    }
  }
  return -1;
}

std::vector<Fd> make_group(const std::string& host, std::size_t count) {
  std::vector<Fd> group;
  SocketAddress address{host, 0};
  for (std::size_t i = 0; i < count; ++i) {
    auto fd = make_bmp_listener(address, 16, 0);
    if (!fd) {
      ADD_FAILURE() << fd.error();
      break;
    }
    address.port = bound_address(fd->get())->port;
    group.push_back(std::move(fd).value());
  }
  return group;
}

TEST(Reuseport, TheKernelChoosesTheOwnerOfAnIpv4Source) {
  for (const std::uint32_t shards : {1U, 3U, 4U}) {
    const auto group = make_group("127.0.0.1", shards);
    ASSERT_EQ(group.size(), shards);
    ASSERT_TRUE(attach_owner_program(group[0].get(), shards)) << std::strerror(errno);
    std::set<int> seen;
    for (std::uint32_t i = 1; i <= 40; ++i) {
      const std::uint32_t source = 0x7f000000U + i * 977;
      const Fd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      sockaddr_in from{};
      from.sin_family = AF_INET;
      from.sin_addr.s_addr = htonl(source);
      ASSERT_EQ(::bind(client.get(), reinterpret_cast<sockaddr*>(&from), sizeof from), 0);
      sockaddr_in to{};
      to.sin_family = AF_INET;
      to.sin_port = htons(bound_address(group[0].get())->port);
      to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      ASSERT_EQ(::connect(client.get(), reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
      const int got = take_connection(group);
      EXPECT_EQ(got, static_cast<int>(raw(owner_of(IpAddress::from_v4(source), shards))));
      seen.insert(got);
    }
    EXPECT_EQ(seen.size(), shards) << "40 sources reach every shard";
  }
}

TEST(Reuseport, TheKernelChoosesTheOwnerOfAnIpv6Source) {
  // ::1 is the only IPv6 source that every machine has; different shard counts move it about.
  const Fd probe(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in6 loopback{};
  loopback.sin6_family = AF_INET6;
  loopback.sin6_addr = in6addr_loopback;
  if (!probe || ::bind(probe.get(), reinterpret_cast<sockaddr*>(&loopback), sizeof loopback) != 0) {
    GTEST_SKIP() << "no IPv6 loopback here";
  }
  std::set<int> seen;
  for (const std::uint32_t shards : {2U, 3U, 5U, 7U, 16U}) {
    const auto group = make_group("::1", shards);
    ASSERT_EQ(group.size(), shards);
    ASSERT_TRUE(attach_owner_program(group[0].get(), shards));
    const Fd client(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in6 to = loopback;
    to.sin6_port = htons(bound_address(group[0].get())->port);
    ASSERT_EQ(::connect(client.get(), reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
    const int got = take_connection(group);
    EXPECT_EQ(got, static_cast<int>(raw(owner_of(*IpAddress::parse("::1"), shards))));
    seen.insert(got);
  }
  EXPECT_GT(seen.size(), 1U);
}

TEST(Reuseport, AnIpv6WildcardTakesIpv4SourcesToo) {
  const auto group = make_group("::", 4);
  if (group.size() != 4) GTEST_SKIP() << "no IPv6 here";
  ASSERT_TRUE(attach_owner_program(group[0].get(), 4));
  const Fd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(bound_address(group[0].get())->port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::connect(client.get(), reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  EXPECT_EQ(take_connection(group), static_cast<int>(raw(owner_of(*IpAddress::parse("127.0.0.1"), 4))));
}

TEST(Reuseport, ReportsWhatCannotBeBound) {
  const auto missing = make_bmp_listener({"203.0.113.77", 0}, 16, 0);
  ASSERT_FALSE(missing);
  EXPECT_NE(missing.error().find("203.0.113.77:0: bind"), std::string::npos) << missing.error();
  EXPECT_FALSE(make_bmp_listener({"nowhere", 0}, 16, 0));
  EXPECT_FALSE(attach_owner_program(-1, 4));
  EXPECT_FALSE(attach_owner_program(0, 0));
}

TEST(Reuseport, SetsTheReceiveBuffer) {
  const auto fd = make_bmp_listener({"127.0.0.1", 0}, 16, 65536);
  ASSERT_TRUE(fd);
  int bytes = 0;
  socklen_t n = sizeof bytes;
  ASSERT_EQ(::getsockopt(fd->get(), SOL_SOCKET, SO_RCVBUF, &bytes, &n), 0);
  EXPECT_GE(bytes, 65536);
}

TEST(KernelAddress, IsWhatTheSocketIsBoundTo) {
  for (const char* host : {"127.0.0.1", "::1"}) {
    const auto at = kernel_address({host, 0});
    ASSERT_TRUE(at) << host;
    const Fd fd(::socket(at->family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::bind(fd.get(), at->get(), at->size) != 0) {
      ASSERT_STREQ(host, "::1") << std::strerror(errno);
      GTEST_SKIP() << "no IPv6 here";
    }
    const auto bound = bound_address(fd.get());
    ASSERT_TRUE(bound);
    EXPECT_EQ(bound->host, host);
    EXPECT_NE(bound->port, 0);
  }
  EXPECT_FALSE(kernel_address({"localhost", 1}));
  EXPECT_FALSE(kernel_address({"", 1}));
  EXPECT_FALSE(bound_address(-1));
}

}  // namespace
}  // namespace arancini
