#include <openssl/evp.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/publishd/nats_fixture.h"

// TLS, logins and permissions against a real nats-server: what is right works, what is wrong is named.
namespace arancini::publishd::test {
namespace {

class Tls : public NatsTest {
 protected:
  void SetUp() override {
    certs_.make_ca("ca");
    certs_.make_ca("other-ca");
    certs_.issue("server", "ca", "DNS:localhost,IP:127.0.0.1");
  }
  void serve(const std::string& certificate = "server", const std::string& more = "") {
    nats_.start(fmt::format("tls {{\n cert_file: \"{}\"\n key_file: \"{}\"\n{} timeout: 5\n}}",
                            certs_.cert(certificate), certs_.key(certificate), more));
  }
  void serve_mtls() { serve("server", fmt::format(" ca_file: \"{}\"\n verify: true\n", certs_.cert("ca"))); }
  [[nodiscard]] std::string url(const std::string& host = "localhost") const {
    return fmt::format("tls://{}:{}", host, nats_.port());
  }
  [[nodiscard]] std::string ca(const std::string& name = "ca") const {
    return fmt::format("tls_ca = \"{}\"\n", certs_.cert(name));
  }
  [[nodiscard]] std::string client(const std::string& name) const {
    return ca() + fmt::format("tls_cert = \"{}\"\ntls_key = \"{}\"\n", certs_.cert(name), certs_.key(name));
  }
};

TEST_F(Tls, ByNameAndByAddressAndWithoutTheScheme) {
  serve();
  const auto ring = make_ring();
  for (const std::string& u : {url(), url("127.0.0.1"), nats_.url()}) {
    start_publishd(u, ca());
    feed(*ring, 100);
    expect_published(*ring);
  }
}

TEST_F(Tls, ClientCertificate) {
  certs_.issue("client", "ca", "DNS:publishd");
  serve_mtls();
  const auto ring = make_ring();
  start_publishd(url(), client("client"));
  feed(*ring, 100);
  expect_published(*ring);
}

TEST_F(Tls, WrongCaIsNamed) {
  serve();
  start_publishd(url(), ca("other-ca"));
  expect_trouble(ErrorCode::NatsTls,
                 {"not trusted by nats.tls_ca " + certs_.cert("other-ca"), "/CN=ca", "(506)", url() + ":"});
}
TEST_F(Tls, SystemCasDoNotKnowOurs) {
  serve();
  start_publishd(url());
  expect_trouble(ErrorCode::NatsTls, {"not trusted by the system's CAs; set nats.tls_ca"});
}
TEST_F(Tls, ExpiredServerCertificateIsNamed) {
  certs_.issue("expired", "ca", "DNS:localhost", -1);
  serve("expired");
  start_publishd(url(), ca());
  expect_trouble(ErrorCode::NatsTls, {"the server's certificate /CN=expired has expired"});
}
TEST_F(Tls, OtherHostIsNamed) {
  certs_.issue("elsewhere", "ca", "DNS:elsewhere.example,IP:127.0.0.9");
  serve("elsewhere");
  start_publishd(url(), ca());
  expect_trouble(ErrorCode::NatsTls, {"/CN=elsewhere is not for 'localhost'"});
  start_publishd(url("127.0.0.1"), ca());
  expect_trouble(ErrorCode::NatsTls, {"/CN=elsewhere is not for '127.0.0.1'"});
}
TEST_F(Tls, MissingClientCertificateIsNamed) {
  serve_mtls();
  start_publishd(url(), ca());
  expect_trouble(ErrorCode::NatsTls, {"set nats.tls_cert and nats.tls_key"});
}
TEST_F(Tls, RejectedClientCertificateIsNamed) {
  certs_.issue("stranger", "other-ca", "DNS:publishd");
  certs_.issue("late", "ca", "DNS:publishd", -1);
  serve_mtls();
  start_publishd(url(), client("stranger"));
  expect_trouble(ErrorCode::NatsTls, {"nats.tls_cert " + certs_.cert("stranger")});
  start_publishd(url(), client("late"));
  expect_trouble(ErrorCode::NatsTls, {"nats.tls_cert " + certs_.cert("late") + " (expired on 20"});
}
TEST_F(Tls, ServerWithoutTlsIsNotUsedInClear) {
  nats_.start("");
  start_publishd(url(), ca());
  expect_trouble(ErrorCode::NatsTls, {"the server offers no TLS"});
}
TEST_F(Tls, FilesThatAreNoneAreNamed) {
  serve();
  start_publishd(url(), "tls_ca = \"/nonexistent/ca.pem\"");
  expect_trouble(ErrorCode::NatsTls, {"nats.tls_ca: /nonexistent/ca.pem cannot be read: No such file"});
  write_file(dir_.path() + "/empty.pem", "nothing");
  start_publishd(url(), fmt::format("tls_ca = \"{}/empty.pem\"", dir_.path()));
  expect_trouble(ErrorCode::NatsTls, {"empty.pem holds no certificate"});
  start_publishd(url(), ca() + fmt::format("tls_cert = \"{}\"\ntls_key = \"{}/empty.pem\"",
                                           certs_.cert("server"), dir_.path()));
  expect_trouble(ErrorCode::NatsTls, {"nats.tls_key: " + dir_.path() + "/empty.pem holds no private key"});
  start_publishd(url(), ca() + fmt::format("tls_cert = \"{}\"\ntls_key = \"{}\"", certs_.cert("server"),
                                           certs_.key("ca")));
  expect_trouble(ErrorCode::NatsTls, {"key values mismatch"});
}
// The same [nats] table serves aranctl; no secret needs a flag.
TEST_F(Tls, AranctlReadsWithTheSameSettings) {
  nats_.start(
      fmt::format("tls {{\n cert_file: \"{}\"\n key_file: \"{}\"\n ca_file: \"{}\"\n verify: true\n}}\n"
                  "authorization {{ users: [ {{ user: u, password: p }},\n"
                  "  {{ user: idle, password: p, permissions: {{ publish: \"none\" }} }} ] }}",
                  certs_.cert("server"), certs_.key("server"), certs_.cert("ca")));
  certs_.issue("client", "ca", "DNS:publishd");
  const auto ring = make_ring();
  const std::string settings = client("client") + "user = \"u\"\npassword = \"p\"\n";
  start_publishd(url(), settings);
  feed(*ring, 100);
  expect_published(*ring);
  const std::string own = dir_.path() + "/arancini.toml";
  const auto aranctl = [&](const std::string& arguments) {
    Child c;
    const std::string out = dir_.path() + "/aranctl.out";
    std::filesystem::remove(out);
    std::vector<std::string> command{ARANCTL};
    std::istringstream words(arguments);
    for (std::string w; words >> w;) command.push_back(w);
    c.start(command, out);
    const int status = c.wait();
    return std::pair(WIFEXITED(status) ? WEXITSTATUS(status) : -1, text_of_file(out));
  };
  const auto expect = [&](const std::string& arguments, int code, const std::string& text) {
    const auto [exit_code, out] = aranctl(arguments);
    EXPECT_EQ(exit_code, code) << arguments << "\n" << out;
    EXPECT_NE(out.find(text), std::string::npos) << arguments << "\n" << out;
  };
  expect("audit --settle 0 --config " + own, 0, "100");
  const auto other = [&](const std::string& lines) {
    const std::string path = dir_.path() + "/other.toml";
    write_file(path, fmt::format("[nats]\nurl = \"{}\"\n{}", url(), lines));
    return path;
  };
  expect("audit --config " + other(client("client") + "user = \"u\"\npassword = \"wr0ng\"\n"), 77,
         "the server refuses user 'u'");
  expect("audit --config " + other(client("client") + "user = \"idle\"\npassword = \"p\"\n"), 77,
         "Permissions Violation for Publish to \"$JS.API.STREAM.INFO.ARANCINI_UPDATES\"");
  expect("audit --config " + other("user = \"u\"\npassword = \"p\"\n" + ca("other-ca")), 77,
         "not trusted by nats.tls_ca");
  expect("audit --nats " + url(), 77, "not trusted by the system's CAs");
  expect("audit --config " + other("uesr = \"u\"\n"), 78, "unknown key nats.uesr");
  expect("audit --config /nonexistent.toml", 78, "/nonexistent.toml");
  ASSERT_EQ(::setenv("ARANCINI_NATS_PASSWORD", "p", 1), 0);
  ASSERT_EQ(::setenv("ARANCINI_NATS", ("tls://u@localhost:" + std::to_string(nats_.port())).c_str(), 1), 0);
  expect("fold --settle 0 --config " + other(client("client")), 0, "");
  ASSERT_EQ(::unsetenv("ARANCINI_NATS_PASSWORD"), 0);
  ASSERT_EQ(::unsetenv("ARANCINI_NATS"), 0);
}

// Read again at each attempt: renewing needs no restart.
TEST_F(Tls, RenewedFilesAreUsed) {
  serve();
  const auto ring = make_ring();
  const std::string path = dir_.path() + "/current.pem";
  std::filesystem::copy_file(certs_.cert("other-ca"), path);
  start_publishd(url(), fmt::format("tls_ca = \"{}\"", path));
  feed(*ring, 10);
  expect_trouble(ErrorCode::NatsTls, {"not trusted by nats.tls_ca " + path});
  std::filesystem::copy_file(certs_.cert("ca"), path, std::filesystem::copy_options::overwrite_existing);
  expect_published(*ring);
}

class Login : public NatsTest {};

TEST_F(Login, UserPasswordAndTokenFromFileUrlAndEnvironment) {
  const auto ring = make_ring();
  // Characters that JSON, URLs and TOML each treat in their own way.
  nats_.start("authorization { user: \"u@x\", password: 'p\"q\\r:/' }");
  start_publishd(nats_.url(), "user = \"u@x\"\npassword = 'p\"q\\r:/'");
  feed(*ring, 10);
  expect_published(*ring);
  start_publishd("nats://u%40x:p%22q%5Cr%3A%2F@" + nats_.address());
  feed(*ring, 10);
  expect_published(*ring);
  ASSERT_EQ(::setenv("ARANCINI_NATS_PASSWORD", "p\"q\\r:/", 1), 0);
  start_publishd("nats://u%40x@" + nats_.address());
  feed(*ring, 10);
  expect_published(*ring);
  ASSERT_EQ(::unsetenv("ARANCINI_NATS_PASSWORD"), 0);
  nats_.start("authorization { token: \"s3cr3t\" }");
  ASSERT_EQ(::setenv("ARANCINI_NATS_TOKEN", "s3cr3t", 1), 0);
  start_publishd(nats_.url());
  ASSERT_EQ(::unsetenv("ARANCINI_NATS_TOKEN"), 0);
  feed(*ring, 10);
  expect_published(*ring);
  EXPECT_FALSE(logged("s3cr3t")) << log();
  EXPECT_FALSE(logged("p\"q")) << log();
  EXPECT_FALSE(logged("p%22q")) << log();
}

TEST_F(Login, WrongOnesAreNamedWithoutTheirSecret) {
  nats_.start("authorization { user: u, password: right }");
  start_publishd(nats_.url(), "user = \"u\"\npassword = \"wr0ng\"");
  expect_trouble(ErrorCode::NatsUnauthorized, {"the server refuses user 'u'", "(507)", nats_.url() + ":"});
  start_publishd(nats_.url(), "token = \"wr0ng\"");
  expect_trouble(ErrorCode::NatsUnauthorized, {"the server refuses the token"});
  start_publishd(nats_.url());
  expect_trouble(
      ErrorCode::NatsUnauthorized,
      {"refuses a connection without login: set nats.user and nats.password, nats.token or nats.creds"});
  EXPECT_FALSE(logged("wr0ng")) << log();
}

TEST_F(Login, SecretsThatOthersMayReadAreToldOnce) {
  nats_.start("authorization { token: t }");
  start_publishd(nats_.url(), "token = \"t\"");
  ASSERT_TRUE(wait_until([&] { return logged("NATS connected"); })) << log();
  EXPECT_FALSE(logged("chmod"));
  const std::string path = dir_.path() + "/arancini.toml";
  ::chmod(path.c_str(), 0644);
  publishd_.start({PUBLISHD, "--config", path, "--runtime-dir", dir_.path() + "/run", "--state-dir",
                   dir_.path() + "/state", "--shards", "1"},
                  dir_.path() + "/publishd.log");
  const std::string told = "may read secrets of NATS in " + path;
  ASSERT_TRUE(wait_until([&] { return times_logged("NATS connected") == 2 && logged(told); })) << log();
  EXPECT_EQ(times_logged(told), 1U) << log();
}

TEST_F(Login, MissingPermissionsNameTheSubject) {
  const auto ring = make_ring();
  const auto serve = [&](const std::string& permissions) {
    nats_.start(
        fmt::format("authorization {{ users: [ {{ user: u, password: p, permissions: {{ {} }} }},\n"
                    "{{ user: admin, password: p }} ] }}",
                    permissions));
  };
  const char* kLogin = "user = \"u\"\npassword = \"p\"";
  serve("publish: { allow: [\"$JS.API.>\"] }, subscribe: \"_INBOX.>\"");
  start_publishd(nats_.url(), kLogin);
  feed(*ring, 10);
  expect_trouble(ErrorCode::NatsUnauthorized, {"Permissions Violation for Publish to \"arancini.updates."});
  serve("publish: { allow: [\"arancini.>\"] }, subscribe: \"_INBOX.>\"");
  expect_trouble(ErrorCode::NatsUnauthorized,
                 {"Permissions Violation for Publish to \"$JS.API.STREAM.INFO.ARANCINI_EVENTS\""});
  serve("publish: { allow: [\"arancini.>\", \"$JS.API.>\"] }, subscribe: \"elsewhere.>\"");
  expect_trouble(ErrorCode::NatsUnauthorized, {"Permissions Violation for Subscription to \"_INBOX."});
  // The event that tells of a stream created anew goes before what is published into it.
  serve("publish: { allow: [\"arancini.updates.>\", \"$JS.API.>\"] }, subscribe: \"_INBOX.>\"");
  expect_published(*ring);
  {
    natsConnection* nc = nullptr;
    jsCtx* js = nullptr;
    ASSERT_EQ(natsConnection_ConnectTo(&nc, ("nats://admin:p@" + nats_.address()).c_str()), NATS_OK);
    ASSERT_EQ(natsConnection_JetStream(&js, nc, nullptr), NATS_OK);
    ASSERT_EQ(js_DeleteStream(js, "ARANCINI_UPDATES", nullptr, nullptr), NATS_OK);
    jsCtx_Destroy(js);
    natsConnection_Destroy(nc);
  }
  feed(*ring, 10);
  expect_trouble(ErrorCode::NatsUnauthorized, {"Permissions Violation for Publish to \"arancini.events."});
  // What docs/nats.md says is enough.
  serve(
      "publish: { allow: [\"arancini.updates.>\", \"arancini.events.>\", \"$JS.API.STREAM.INFO.*\", "
      "\"$JS.API.STREAM.CREATE.*\", \"$JS.API.STREAM.MSG.GET.*\", \"$JS.API.CONSUMER.CREATE.>\", "
      "\"$JS.API.CONSUMER.DELETE.>\", \"$JS.API.CONSUMER.MSG.NEXT.>\"] }, subscribe: \"_INBOX.>\"");
  expect_published(*ring);
}

// ---- credentials: JWTs of an operator, an account and users, made here as nsc makes them

class Nkey {
 public:
  explicit Nkey(char kind)
      : kind_(kind), key_(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"), EVP_PKEY_free) {}
  [[nodiscard]] std::string id() const {
    std::string raw(1, static_cast<char>(prefix() << 3));
    return encoded(raw + bytes(EVP_PKEY_get_raw_public_key));
  }
  [[nodiscard]] std::string seed() const {
    constexpr unsigned kSeed = 18 << 3;
    const unsigned kind = prefix() << 3;
    std::string raw;
    raw += static_cast<char>(kSeed | kind >> 5);
    raw += static_cast<char>((kind & 31) << 3);
    return encoded(raw + bytes(EVP_PKEY_get_raw_private_key));
  }
  [[nodiscard]] std::string signed_jwt(const std::string& name, const Nkey& subject, nlohmann::json nats,
                                       std::int64_t expires = 0) const {
    nats["version"] = 2;
    nlohmann::json claims = {{"jti", "x"},   {"iat", 1700000000},   {"iss", id()},
                             {"name", name}, {"sub", subject.id()}, {"nats", nats}};
    if (expires != 0) claims["exp"] = expires;
    const std::string text =
        base64url(R"({"typ":"JWT","alg":"ed25519-nkey"})") + "." + base64url(claims.dump());
    const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
    EXPECT_EQ(EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, key_.get()), 1);
    unsigned char signature[64];
    std::size_t n = sizeof signature;
    EXPECT_EQ(EVP_DigestSign(context.get(), signature, &n,
                             reinterpret_cast<const unsigned char*>(text.data()), text.size()),
              1);
    return text + "." + base64url(std::string(reinterpret_cast<char*>(signature), n));
  }

 private:
  [[nodiscard]] unsigned prefix() const { return kind_ == 'O' ? 14 : kind_ == 'A' ? 0 : 20; }
  template <class Get>
  [[nodiscard]] std::string bytes(Get get) const {
    unsigned char raw[32];
    std::size_t n = sizeof raw;
    EXPECT_EQ(get(key_.get(), raw, &n), 1);
    return {reinterpret_cast<char*>(raw), n};
  }
  static std::string encoded(std::string raw) {
    unsigned crc = 0;
    for (const char c : raw) {
      crc ^= static_cast<unsigned>(static_cast<unsigned char>(c)) << 8;
      for (int i = 0; i < 8; ++i)
        crc = (crc & 0x8000) != 0 ? (crc << 1 ^ 0x1021) & 0xffff : crc << 1 & 0xffff;
    }
    raw += static_cast<char>(crc & 0xff);
    raw += static_cast<char>(crc >> 8);
    return digits(raw, 5, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567");
  }
  static std::string base64url(const std::string& raw) {
    return digits(raw, 6, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_");
  }
  static std::string digits(const std::string& raw, int width, const char* alphabet) {
    std::string out;
    unsigned bits = 0;
    int have = 0;
    for (const char c : raw) {
      bits = (bits << 8 | static_cast<unsigned char>(c)) & 0xffff;
      have += 8;
      while (have >= width) {
        have -= width;
        out += alphabet[bits >> have & ((1U << width) - 1)];
      }
    }
    if (have > 0) out += alphabet[bits << (width - have) & ((1U << width) - 1)];
    return out;
  }
  char kind_;
  std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key_;
};

TEST_F(Login, CredentialsFile) {
  const Nkey op('O');
  const Nkey account('A');
  const Nkey system('A');
  const Nkey user('U');
  const auto limits = [](int storage) {
    return nlohmann::json{{"subs", -1},
                          {"data", -1},
                          {"payload", -1},
                          {"imports", -1},
                          {"exports", -1},
                          {"conn", -1},
                          {"leaf", -1},
                          {"mem_storage", storage},
                          {"disk_storage", storage},
                          {"streams", storage},
                          {"consumer", storage}};
  };
  const std::string account_jwt =
      op.signed_jwt("collectors", account, {{"type", "account"}, {"limits", limits(-1)}});
  const std::string system_jwt = op.signed_jwt("SYS", system, {{"type", "account"}, {"limits", limits(0)}});
  nats_.start(
      fmt::format("operator: \"{}\"\nsystem_account: \"{}\"\nresolver: MEMORY\nresolver_preload: {{\n {}: "
                  "{}\n {}: {}\n}}",
                  op.signed_jwt("op", op, {{"type", "operator"}, {"system_account", system.id()}}),
                  system.id(), account.id(), account_jwt, system.id(), system_jwt));
  const std::string path = dir_.path() + "/user.creds";
  const auto write_creds = [&](const Nkey& by, const Nkey& of, std::int64_t expires) {
    const nlohmann::json claims = {{"type", "user"}, {"subs", -1}, {"data", -1}, {"payload", -1}};
    write_file(path, fmt::format("-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n"
                                 "-----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
                                 by.signed_jwt("publishd", of, claims, expires), of.seed()));
  };
  const std::string setting = fmt::format("creds = \"{}\"", path);
  const auto ring = make_ring();
  start_publishd(nats_.url(), setting);
  feed(*ring, 10);
  expect_trouble(ErrorCode::NatsUnauthorized, {"nats.creds: " + path + " cannot be read: No such file"});
  write_file(path, "no credentials");
  expect_trouble(ErrorCode::NatsUnauthorized, {"nats.creds: " + path + " is no credentials file"});
  write_file(path,
             "-----BEGIN NATS USER JWT-----\na.b.c\n-----END NATS USER JWT-----\n"
             "-----BEGIN USER NKEY SEED-----\nSUnonsense\n-----END USER NKEY SEED-----\n");
  expect_trouble(ErrorCode::NatsUnauthorized, {"nats.creds " + path + " cannot be used: "});
  write_creds(Nkey('A'), user, 0);  // of an account that the server does not know
  expect_trouble(ErrorCode::NatsUnauthorized, {"the server refuses nats.creds " + path + " ("});
  write_creds(account, user, 1700000000);
  expect_trouble(ErrorCode::NatsUnauthorized, {path + " (expired on 2023-11-14 22:13:20 UTC)"});
  write_creds(account, user, 0);
  expect_published(*ring);
  EXPECT_FALSE(logged(user.seed()));
}

}  // namespace
}  // namespace arancini::publishd::test
