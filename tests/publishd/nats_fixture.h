#pragma once

#include <sys/stat.h>

#include <fstream>

#include "common/base/error.h"
#include "common/metrics/stats_file.h"
#include "tests/publishd/harness.h"

// A nats-server with a configuration of the test's own, certificates made by openssl, and publishd beside it.
namespace arancini::publishd::test {

inline void write_file(const std::string& path, const std::string& text, unsigned mode = 0600) {
  std::ofstream(path) << text;
  ::chmod(path.c_str(), static_cast<mode_t>(mode));
}

inline bool port_answers(std::uint16_t port) {
  const int s = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  a.sin_port = htons(port);
  const bool ok = ::connect(s, reinterpret_cast<sockaddr*>(&a), sizeof a) == 0;
  ::close(s);
  return ok;
}

// A nats-server with JetStream; `config` is added to the port and the store.
class ConfiguredNats {
 public:
  ConfiguredNats(std::string dir, std::string name)
      : dir_(std::move(dir)), name_(std::move(name)), port_(free_port()) {}
  void start(const std::string& config, const std::string& jetstream = "{}") {
    std::string js = jetstream;
    if (js != "off") js.insert(1, fmt::format("store_dir: \"{}/{}-store\"\n", dir_, name_));
    write_file(dir_ + "/" + name_ + ".conf",
               fmt::format("listen: \"127.0.0.1:{}\"\nserver_name: \"{}\"\n{}\n{}\n", port_, name_,
                           js == "off" ? "" : "jetstream " + js, config));
    start_again();
  }
  void start_again() {
    child_.start({"nats-server", "-c", dir_ + "/" + name_ + ".conf"}, dir_ + "/" + name_ + ".log");
    ASSERT_TRUE(wait_until([&] { return port_answers(port_); })) << log();
  }
  Child& child() { return child_; }
  [[nodiscard]] std::uint16_t port() const { return port_; }
  [[nodiscard]] std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  [[nodiscard]] std::string url() const { return "nats://" + address(); }
  [[nodiscard]] std::string log() const { return text_of_file(dir_ + "/" + name_ + ".log"); }

 private:
  std::string dir_;
  std::string name_;
  std::uint16_t port_;
  Child child_;
};

// Made by openssl: a CA, and what it issues.
class Certificates {
 public:
  explicit Certificates(std::string dir) : dir_(std::move(dir)) {}
  void make_ca(const std::string& name) {
    run(fmt::format("req -x509 {} -keyout {} -out {} -days 2 -subj /CN={}", kKey, key(name), cert(name),
                    name));
  }
  // `names`: subjectAltName. `days` below zero: expired.
  void issue(const std::string& name, const std::string& ca, const std::string& names, int days = 1) {
    write_file(dir_ + "/ext", "subjectAltName=" + names + "\n");
    run(fmt::format("req {} -keyout {} -out {}/csr -subj /CN={}", kKey, key(name), dir_, name));
    run(fmt::format(
        "x509 -req -in {0}/csr -CA {1} -CAkey {2} -set_serial {3} -days {4} -extfile {0}/ext -out {5}", dir_,
        cert(ca), key(ca), ++serial_, days, cert(name)));
  }
  [[nodiscard]] std::string cert(const std::string& name) const { return dir_ + "/" + name + ".pem"; }
  [[nodiscard]] std::string key(const std::string& name) const { return dir_ + "/" + name + ".key"; }

 private:
  static constexpr const char* kKey = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
  void run(const std::string& arguments) {
    const std::string command = "openssl " + arguments + " >>" + dir_ + "/openssl.log 2>&1";
    ASSERT_EQ(std::system(command.c_str()), 0) << command << "\n" << text_of_file(dir_ + "/openssl.log");
  }
  std::string dir_;
  int serial_ = 0;
};

class NatsTest : public testing::Test {
 protected:
  // `nats`: lines of [nats] beside the url.
  void start_publishd(const std::string& url, const std::string& nats = "", const std::string& more = "") {
    write_file(dir_.path() + "/arancini.toml",
               fmt::format("[nats]\nurl = \"{}\"\n{}\n{}\n", url, nats, more));
    publishd_.start({PUBLISHD, "--config", dir_.path() + "/arancini.toml", "--runtime-dir",
                     dir_.path() + "/run", "--state-dir", dir_.path() + "/state", "--shards", "1"},
                    dir_.path() + "/publishd.log");
  }
  std::unique_ptr<RingFeed> make_ring() {
    std::filesystem::create_directories(dir_.path() + "/run");
    return std::make_unique<RingFeed>(dir_.path() + "/run/ring-0", 0);
  }
  static void feed(RingFeed& ring, std::uint32_t updates) {
    for (std::uint32_t i = 0; i < updates; ++i) {
      ASSERT_TRUE(wait_until([&] { return ring.write(i % 7, 1); }));
    }
  }
  [[nodiscard]] std::string log() const { return text_of_file(dir_.path() + "/publishd.log"); }
  [[nodiscard]] bool logged(const std::string& what) const { return log().find(what) != std::string::npos; }
  [[nodiscard]] std::size_t times_logged(const std::string& what) const {
    std::size_t n = 0;
    const std::string text = log();
    for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
    return n;
  }
  // As the stats page tells it.
  [[nodiscard]] ErrorCode trouble() const {
    const auto page = StatsReader::open(dir_.path() + "/run/publishd.stats");
    return page ? static_cast<ErrorCode>(page->value(static_cast<std::size_t>(PublishMetric::Trouble)))
                : ErrorCode::None;
  }
  // The code in the stats page, and every text in the log, said once.
  void expect_trouble(ErrorCode code, const std::vector<std::string>& texts) {
    ASSERT_TRUE(wait_until([&] { return trouble() == code && logged(texts.front()); }))
        << number(trouble()) << "\n"
        << log();
    for (const std::string& t : texts) EXPECT_TRUE(logged(t)) << t << "\n" << log();
    EXPECT_TRUE(publishd_.alive());
  }
  void expect_published(const RingFeed& ring) {
    ASSERT_TRUE(wait_until([&] { return ring.drained(); })) << log();
    EXPECT_TRUE(wait_until([&] { return trouble() == ErrorCode::None; }));
  }

  TempDir dir_;
  Child publishd_;
  ConfiguredNats nats_{dir_.path(), "nats"};
  Certificates certs_{dir_.path()};
};

}  // namespace arancini::publishd::test
