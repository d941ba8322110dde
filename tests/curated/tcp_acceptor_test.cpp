#include "curated/tcp_acceptor.h"

#include <arpa/inet.h>
#include <control.grpc.pb.h>
#include <fmt/format.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <condition_variable>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <mutex>

#include "common/base/socket_address.h"
#include "curated/service.h"
#include "tests/curated/test_fleet.h"

namespace arancini::curated {
namespace {

namespace pb = control::v1;

Fd call(std::uint16_t port) {
  Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return ::connect(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof to) == 0 ? std::move(fd) : Fd();
}

TEST(TcpAcceptor, LeavesConnectionsBeyondItsBoundInTheQueue) {
  std::mutex mutex;  // of the next two
  std::vector<Fd> accepted;
  int warnings = 0;
  std::condition_variable changed;
  auto listener = TcpAcceptor::listen({"127.0.0.1", 0});
  ASSERT_TRUE(listener) << listener.error();
  const std::uint16_t port = bound_address(listener.value().get())->port;
  const TcpAcceptor acceptor(std::move(listener).value(), 4,
                             {.accepted =
                                  [&](int, Fd connection) {
                                    const std::lock_guard lock(mutex);
                                    accepted.push_back(std::move(connection));
                                    changed.notify_all();
                                  },
                              .warn =
                                  [&](std::string_view) {
                                    const std::lock_guard lock(mutex);
                                    ++warnings;
                                    changed.notify_all();
                                  }});
  std::vector<Fd> callers;
  for (int i = 0; i < 10; ++i) callers.push_back(call(port));
  std::unique_lock lock(mutex);
  const auto until = [&](auto&& what) { return changed.wait_for(lock, std::chrono::seconds(20), what); };
  ASSERT_TRUE(until([&] { return warnings == 1; }));
  ASSERT_EQ(accepted.size(), 4U);
  accepted.erase(accepted.begin(), accepted.begin() + 2);
  ASSERT_TRUE(until([&] { return warnings == 2; })) << "two more";
  EXPECT_EQ(accepted.size(), 4U);
}

TEST(TcpAcceptor, SaysThatItsPortIsTaken) {
  auto first = TcpAcceptor::listen({"127.0.0.1", 0});
  ASSERT_TRUE(first) << first.error();
  const auto second = TcpAcceptor::listen(*bound_address(first.value().get()));
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error(), "Address already in use");
}

// A control server on TCP, with certificates that openssl makes.
class ControlTls : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string to = t_.config.paths.runtime_dir + "/";
    openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=ca -keyout " +
            to + "ca.key -out " + to + "ca.pem");
    for (const std::string name : {"server", "client"}) {
      std::ofstream(to + "ext") << "subjectAltName=IP:127.0.0.1\n";
      openssl("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=" + name + " -keyout " + to +
              name + ".key -out " + to + "csr");
      openssl(fmt::format(
          "x509 -req -in {0}csr -CA {0}ca.pem -CAkey {0}ca.key -CAcreateserial -days 1 -extfile {0}ext "
          "-out {0}{1}.pem",
          to, name));
    }
    t_.config.control.listen = SocketAddress{"127.0.0.1", 0};
    t_.config.control.tls_cert = to + "server.pem";
    t_.config.control.tls_key = to + "server.key";
    t_.config.control.tls_ca = to + "ca.pem";
  }
  void openssl(const std::string& arguments) const {
    const std::string command =
        "openssl " + arguments + " 2>>" + t_.config.paths.runtime_dir + "/openssl.log";
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
  }
  [[nodiscard]] std::string text_of(const std::string& name) const {
    std::ifstream in(t_.config.paths.runtime_dir + "/" + name);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  grpc::Status get_status(const std::string& address, pb::Status& status) const {
    grpc::SslCredentialsOptions tls;
    tls.pem_root_certs = text_of("ca.pem");
    tls.pem_private_key = text_of("client.key");
    tls.pem_cert_chain = text_of("client.pem");
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    context.set_wait_for_ready(true);
    return pb::Control::NewStub(grpc::CreateChannel(address, grpc::SslCredentials(tls)))
        ->GetStatus(&context, {}, &status);
  }

  TestFleet t_;
  Fleet fleet_{t_.config, t_.clock, nullptr};
  Logger log_{"test", LogLevel::Error};
};

// More connections than there may be at a time say nothing: they are given up, and who waits behind them is
// served.
TEST_F(ControlTls, ServesCallersBehindConnectionsThatSayNothing) {
  const auto probe = TcpAcceptor::listen({"127.0.0.1", 0});
  ASSERT_TRUE(probe) << probe.error();
  t_.config.control.listen = bound_address(probe.value().get());
  const std::string address = t_.config.control.listen->to_string();
  ASSERT_FALSE(ControlServer::start(t_.config, fleet_, log_, {})) << "the port is taken";
  ::shutdown(probe.value().get(), SHUT_RDWR);
  auto server = ControlServer::start(t_.config, fleet_, log_, {});
  ASSERT_TRUE(server) << server.error();
  std::vector<Fd> silent;
  for (int i = 0; i < 150; ++i) {
    silent.push_back(call(t_.config.control.listen->port));
    ASSERT_TRUE(silent.back().valid()) << i;
  }
  const timeval patience{30, 0};
  ASSERT_EQ(::setsockopt(silent[0].get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
  char bytes[256];
  ssize_t n = 0;
  while ((n = ::recv(silent[0].get(), bytes, sizeof bytes, 0)) > 0) continue;
  EXPECT_EQ(n, 0) << "it was not given up";
  pb::Status status;
  const auto rc = get_status(address, status);
  ASSERT_TRUE(rc.ok()) << rc.error_message();
  EXPECT_EQ(status.control_listen(), address);
}

TEST_F(ControlTls, RefusesFilesThatAreNoCertificates) {
  std::ofstream(t_.config.control.tls_key) << "nonsense\n";
  const auto server = ControlServer::start(t_.config, fleet_, log_, {});
  ASSERT_FALSE(server);
  EXPECT_NE(server.error().find("control.tls_cert, control.tls_key and control.tls_ca must be"),
            std::string::npos)
      << server.error();
}

}  // namespace
}  // namespace arancini::curated
