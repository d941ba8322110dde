#include "common/nats/nats_connector.h"

#include <nats/nats.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "common/base/mask_url.h"

namespace arancini {

namespace {

constexpr std::int64_t kConnectTimeoutMs = 2'000;
constexpr std::size_t kMostFileBytes = std::size_t{1} << 20;

struct OptionsDeleter {
  void operator()(natsOptions* o) const { natsOptions_Destroy(o); }
};
struct BioDeleter {
  void operator()(BIO* b) const { BIO_free(b); }
};
struct X509Deleter {
  void operator()(X509* x) const { X509_free(x); }
};
using Certificate = std::unique_ptr<X509, X509Deleter>;

// nats.c puts these into JSON as they are.
std::string json_escaped(const std::string& text) {
  const std::string quoted =
      nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::ignore);
  return quoted.substr(1, quoted.size() - 2);
}

// ---- files

Result<std::string, std::string> read_file(const std::string& path) {
  std::FILE* f = std::fopen(path.c_str(), "re");
  if (f == nullptr) return Err{path + " cannot be read: " + std::strerror(errno)};
  std::string text;
  char buffer[4096];
  std::size_t n = 0;
  errno = 0;
  while ((n = std::fread(buffer, 1, sizeof buffer, f)) > 0 && text.size() < kMostFileBytes)
    text.append(buffer, n);
  const int error = std::ferror(f) != 0 ? errno : 0;
  std::fclose(f);
  if (error != 0) return Err{path + " cannot be read: " + std::strerror(error)};
  return text;
}

Certificate first_certificate(const std::string& pem) {
  const std::unique_ptr<BIO, BioDeleter> bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  Certificate c(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  ERR_clear_error();
  return c;
}

std::string day_of(std::time_t t) {
  std::tm tm{};
  ::gmtime_r(&t, &tm);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &tm);
  return text;
}
std::string day_of(const ASN1_TIME* t) {
  std::tm tm{};
  return ASN1_TIME_to_tm(t, &tm) == 1 ? day_of(::timegm(&tm)) : "an unknown day";
}

// " (…)" when the certificate's time is over or has not come.
std::string out_of_date(const X509* c) {
  if (X509_cmp_current_time(X509_get0_notAfter(c)) < 0)
    return " (expired on " + day_of(X509_get0_notAfter(c)) + ")";
  if (X509_cmp_current_time(X509_get0_notBefore(c)) > 0)
    return " (valid from " + day_of(X509_get0_notBefore(c)) + " on only)";
  return {};
}
std::string out_of_date(const std::string& certificate_path) {
  const auto pem = read_file(certificate_path);
  const Certificate c = pem.ok() ? first_certificate(*pem) : nullptr;
  return c == nullptr ? std::string() : out_of_date(c.get());
}

std::optional<NatsFailure> check_files(const NatsSettings& s) {
  const auto tls = [](const char* key, const std::string& text) {
    return NatsFailure{ErrorCode::NatsTls, std::string(key) + ": " + text};
  };
  if (!s.tls_ca.empty()) {
    const auto pem = read_file(s.tls_ca);
    if (!pem.ok()) return tls("nats.tls_ca", pem.error());
    if (first_certificate(*pem) == nullptr)
      return tls("nats.tls_ca", s.tls_ca + " holds no certificate (PEM is needed)");
  }
  if (!s.tls_cert.empty()) {
    const auto pem = read_file(s.tls_cert);
    if (!pem.ok()) return tls("nats.tls_cert", pem.error());
    if (first_certificate(*pem) == nullptr)
      return tls("nats.tls_cert", s.tls_cert + " holds no certificate (PEM is needed)");
    const auto key = read_file(s.tls_key);
    if (!key.ok()) return tls("nats.tls_key", key.error());
    if (key->find("ENCRYPTED") != std::string::npos)
      return tls("nats.tls_key", s.tls_key + " needs a pass phrase: store the key without one");
    if (key->find("PRIVATE KEY-----") == std::string::npos)
      return tls("nats.tls_key", s.tls_key + " holds no private key (PEM is needed)");
  }
  if (!s.creds.empty()) {
    const auto text = read_file(s.creds);
    if (!text.ok()) return NatsFailure{ErrorCode::NatsUnauthorized, "nats.creds: " + text.error()};
    if (text->find("BEGIN NATS USER JWT") == std::string::npos || text->find("SEED") == std::string::npos) {
      return NatsFailure{ErrorCode::NatsUnauthorized,
                         "nats.creds: " + s.creds + " is no credentials file (a user JWT and its seed)"};
    }
  }
  return std::nullopt;
}

// When the JWT in a credentials file ends; 0: never, or not known.
std::time_t creds_expiry(const std::string& path) {
  const auto text = read_file(path);
  if (!text.ok()) return 0;
  const auto first = text->find('.');
  const auto second = first == std::string::npos ? first : text->find('.', first + 1);
  if (second == std::string::npos) return 0;
  std::string claims;
  std::uint32_t bits = 0;
  int have = 0;
  for (std::size_t i = first + 1; i < second; ++i) {
    static constexpr std::string_view kDigits =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const auto digit = kDigits.find((*text)[i]);
    if (digit == std::string_view::npos) return 0;
    bits = bits << 6 | static_cast<std::uint32_t>(digit);
    have += 6;
    if (have >= 8) {
      have -= 8;
      claims += static_cast<char>(bits >> have & 0xff);
    }
  }
  const auto json = nlohmann::json::parse(claims, nullptr, false);
  if (!json.is_object()) return 0;
  const auto exp = json.find("exp");
  return exp != json.end() && exp->is_number() ? exp->get<std::time_t>() : 0;
}

// ---- failures of a connection

std::string field(const std::string& text, const std::string& name) {
  const auto at = text.find(":" + name + "=");
  if (at == std::string::npos) return {};
  const auto begin = at + name.size() + 2;
  return text.substr(begin, text.find(':', begin) - begin);
}

// The server's reason, where it told one: an alert that OpenSSL keeps on this thread.
std::string alert_of_server() {
  for (unsigned long e = 0; (e = ERR_get_error()) != 0;) {
    const int reason = ERR_GET_REASON(e);
    if (ERR_GET_LIB(e) != ERR_LIB_SSL || reason <= SSL_AD_REASON_OFFSET) continue;
    const char* text = ERR_reason_error_string(e);
    ERR_clear_error();
    return text != nullptr ? text : "alert " + std::to_string(reason - SSL_AD_REASON_OFFSET);
  }
  return {};
}

// nats.c says "SSL handshake error: <X509_V_ERR_*>:<text>:depth=…:cert=…:issuer=…" of what it found in the
// server's certificate, and something else when the handshake itself failed.
std::string tls_failure(const std::string& detail, const NatsServerUrl& server,
                        const NatsSettings& settings) {
  constexpr std::string_view kHandshake = "SSL handshake error: ";
  const auto at = detail.find(kHandshake);
  if (at == std::string::npos) return detail;
  const std::string what = detail.substr(at + kHandshake.size());
  int code = 0;
  const auto number = std::from_chars(what.data(), what.data() + what.size(), code);
  if (number.ec != std::errc{}) {
    return "the TLS handshake failed: " + what + (server.tls ? "; does this port speak TLS?" : "");
  }
  const std::string whose = "the server's certificate " + field(what, "cert");
  const std::string issuer = field(what, "issuer");
  const std::string ca = settings.tls_ca.empty()
                             ? std::string("the system's CAs; set nats.tls_ca to the one of the server")
                             : "nats.tls_ca " + settings.tls_ca + out_of_date(settings.tls_ca);
  switch (code) {
    case X509_V_ERR_CERT_HAS_EXPIRED: return whose + " has expired (or the clock here is wrong)";
    case X509_V_ERR_CERT_NOT_YET_VALID: return whose + " is not valid yet (or the clock here is wrong)";
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
      return whose + " is not for '" + server.host + "': use a name or address that it is made for";
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
      return whose + " was issued by " + issuer + ", which is not trusted by " + ca;
    default: return whose + ": " + X509_verify_cert_error_string(code);
  }
}

std::string client_certificate(const NatsSettings& s) {
  if (s.tls_cert.empty())
    return "no client certificate is set; if the server asks for one, set nats.tls_cert and nats.tls_key";
  return "is nats.tls_cert " + s.tls_cert + out_of_date(s.tls_cert) +
         " one that the server's CA has issued, and in date?";
}

struct Login {
  std::string user, password, token, creds;

  static Login of(const NatsServerUrl& server, const NatsSettings& s) {
    Login l;
    if (!server.user.empty()) return {server.user, server.password, {}, {}};
    if (!server.token.empty()) {
      // nats://USER@HOST with the password from elsewhere
      if (!s.password.empty()) return {server.token, s.password, {}, {}};
      return {{}, {}, server.token, {}};
    }
    return {s.user, s.password, s.token, s.creds};
  }
  [[nodiscard]] std::string shown() const {
    if (!creds.empty()) {
      const std::time_t end = creds_expiry(creds);
      return "nats.creds " + creds +
             (end != 0 && end < std::time(nullptr) ? " (expired on " + day_of(end) + ")" : "");
    }
    if (!user.empty()) return "user '" + user + "' with this password";
    if (!token.empty()) return "the token";
    return "a connection without login: set nats.user and nats.password, nats.token or nats.creds";
  }
};

// nats.c does not tell an unknown name from a refused connection.
bool resolves(const NatsServerUrl& server) {
  if (server.host_is_ip) return true;
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(server.host.c_str(), nullptr, &hints, &found) != 0) return false;
  ::freeaddrinfo(found);
  return true;
}

NatsFailure connect_failure(natsStatus status, const NatsServerUrl& server, const NatsSettings& settings,
                            const Login& login, bool secure) {
  const std::string detail = nats_last_detail();
  const std::string alert = alert_of_server();
  const auto failure = [&](ErrorCode code, const std::string& text) {
    return NatsFailure{code, server.to_string() + ": " + text};
  };
  const auto said = [&](const char* words) { return detail.find(words) != std::string::npos; };
  if (status == NATS_CONNECTION_AUTH_FAILED || said("Authorization") || said("uthentication")) {
    return failure(ErrorCode::NatsUnauthorized, "the server refuses " + login.shown() + " (" +
                                                    (detail.empty() ? "no reason given" : detail) + ")");
  }
  // Of the file itself; what the server says of it comes as an error of authentication.
  if (!login.creds.empty() && (status == NATS_ERR || said(login.creds.c_str())))
    return failure(ErrorCode::NatsUnauthorized, "nats.creds " + login.creds + " cannot be used: " + detail);
  if (status == NATS_SECURE_CONNECTION_WANTED)
    return failure(ErrorCode::NatsTls, "the server offers no TLS, but tls:// or a nats.tls_ key is set");
  if (status == NATS_SSL_ERROR && alert.empty())
    return failure(ErrorCode::NatsTls, tls_failure(detail, server, settings));
  if (!alert.empty() && said("certificate"))
    return failure(ErrorCode::NatsTls, tls_failure(detail, server, settings));
  if (!alert.empty())
    return failure(ErrorCode::NatsTls,
                   "the server ends the TLS connection (" + alert + "): " + client_certificate(settings));
  if (secure &&
      (status == NATS_PROTOCOL_ERROR || status == NATS_CONNECTION_CLOSED || status == NATS_IO_ERROR)) {
    return failure(ErrorCode::NatsTls,
                   "the server ends the TLS connection without a word: " + client_certificate(settings));
  }
  if (said("getaddrinfo") || (status == NATS_NO_SERVER && !resolves(server)))
    return failure(ErrorCode::NatsUnreachable, "host name '" + server.host + "' cannot be resolved");
  if (status == NATS_NO_SERVER)
    return failure(ErrorCode::NatsUnreachable,
                   "connection refused, or no route: does nats-server run there?");
  if (status == NATS_TIMEOUT) {
    return failure(ErrorCode::NatsUnreachable,
                   "no answer within " + std::to_string(kConnectTimeoutMs / 1000) + " s");
  }
  const std::string text = natsStatus_GetText(status);
  return failure(ErrorCode::NatsUnreachable, detail.empty() || detail == text ? text : text + ": " + detail);
}

}  // namespace

NatsConnector::NatsConnector(NatsSettings settings, std::string client_name)
    : settings_(std::move(settings)),
      client_name_(json_escaped(client_name)),
      shown_url_(mask_url(settings_.url)),
      configured_(split_nats_urls(settings_.url)),
      random_(std::random_device{}()) {}

std::vector<NatsServerUrl> NatsConnector::candidates() {
  std::vector<NatsServerUrl> all = configured_;
  for (const NatsServerUrl& d : discovered_) {
    const bool known =
        std::any_of(all.begin(), all.end(), [&](const NatsServerUrl& u) { return u.address == d.address; });
    if (!known) all.push_back(d);
  }
  std::shuffle(all.begin(), all.end(), random_);
  std::stable_partition(all.begin(), all.end(), [&](const NatsServerUrl& u) { return u.address != left_; });
  return all;
}

Result<natsConnection*, NatsFailure> NatsConnector::connect(const Tune& tune, const std::atomic<bool>* stop) {
  if (const auto bad = check_files(settings_)) return Err{*bad};
  NatsFailure all{ErrorCode::NatsUnreachable, ""};
  // In the order of the configured list, then by address: what is asked by chance must not read differently
  // each time.
  std::map<std::pair<std::size_t, std::string>, std::string> texts;
  for (const NatsServerUrl& server : candidates()) {
    if (stop != nullptr && stop->load(std::memory_order_relaxed)) break;
    auto connection = attempt(server, tune);
    if (connection.ok()) {
      char url[512] = "";
      natsConnection_GetConnectedUrl(*connection, url, sizeof url);
      const auto there = split_nats_urls(url);
      server_ = there.empty() ? server.address : there.front().address;
      learn(*connection, server);
      return connection;
    }
    // What is not mere absence tells more.
    const ErrorCode code = connection.error().code;
    if (code != ErrorCode::NatsUnreachable && (all.code == ErrorCode::NatsUnreachable || code < all.code))
      all.code = code;
    const auto at = std::find_if(configured_.begin(), configured_.end(),
                                 [&](const NatsServerUrl& u) { return u.address == server.address; });
    texts.try_emplace({static_cast<std::size_t>(at - configured_.begin()), server.address},
                      connection.error().text);
  }
  for (const auto& [order, text] : texts) all.text += (all.text.empty() ? "" : "; ") + text;
  if (all.text.empty()) all.text = shown_url_ + ": no server was asked";
  return Err{std::move(all)};
}

Result<natsConnection*, NatsFailure> NatsConnector::attempt(const NatsServerUrl& server, const Tune& tune) {
  const auto failed = [&](natsStatus s) {
    const std::string detail = nats_last_detail();
    return Err{NatsFailure{s == NATS_SSL_ERROR ? ErrorCode::NatsTls : ErrorCode::NatsUnreachable,
                           server.to_string() + ": " + (detail.empty() ? natsStatus_GetText(s) : detail)}};
  };
  natsOptions* raw = nullptr;
  natsStatus s = natsOptions_Create(&raw);
  if (s != NATS_OK) return failed(s);
  const std::unique_ptr<natsOptions, OptionsDeleter> options(raw);
  const bool secure = server.tls || !settings_.tls_ca.empty() || !settings_.tls_cert.empty();
  const Login login = Login::of(server, settings_);
  s = natsOptions_SetURL(raw, ("nats://" + server.address).c_str());
  if (s == NATS_OK) s = natsOptions_SetName(raw, client_name_.c_str());
  if (s == NATS_OK) s = natsOptions_SetTimeout(raw, kConnectTimeoutMs);
  if (s == NATS_OK) s = natsOptions_SetAllowReconnect(raw, false);
  if (s == NATS_OK && secure) s = natsOptions_SetSecure(raw, true);
  if (s == NATS_OK && !settings_.tls_ca.empty())
    s = natsOptions_LoadCATrustedCertificates(raw, settings_.tls_ca.c_str());
  if (s == NATS_OK && !settings_.tls_cert.empty())
    s = natsOptions_LoadCertificatesChain(raw, settings_.tls_cert.c_str(), settings_.tls_key.c_str());
  // A server that another one named goes by its address; its certificate is for the name that was configured.
  if (s == NATS_OK && secure && !server.tls_name.empty())
    s = natsOptions_SetExpectedHostname(raw, server.tls_name.c_str());
  if (s == NATS_OK && !login.user.empty())
    s = natsOptions_SetUserInfo(raw, json_escaped(login.user).c_str(), json_escaped(login.password).c_str());
  if (s == NATS_OK && !login.token.empty()) s = natsOptions_SetToken(raw, json_escaped(login.token).c_str());
  if (s == NATS_OK && !login.creds.empty())
    s = natsOptions_SetUserCredentialsFromFiles(raw, login.creds.c_str(), nullptr);
  if (s == NATS_OK && tune && !tune(raw)) s = NATS_ERR;
  if (s != NATS_OK) return failed(s);
  ERR_clear_error();
  natsConnection* connection = nullptr;
  s = natsConnection_Connect(&connection, raw);
  if (s != NATS_OK) return Err{connect_failure(s, server, settings_, login, secure)};
  return connection;
}

void NatsConnector::leave(natsConnection* connection) {
  left_ = server_;
  if (connection == nullptr || configured_.empty()) return;
  const auto at = std::find_if(configured_.begin(), configured_.end(),
                               [&](const NatsServerUrl& u) { return u.address == server_; });
  learn(connection, at != configured_.end() ? *at : configured_.front());
}

void NatsConnector::learn(natsConnection* connection, const NatsServerUrl& from) {
  char** servers = nullptr;
  int count = 0;
  if (natsConnection_GetDiscoveredServers(connection, &servers, &count) != NATS_OK) return;
  std::vector<NatsServerUrl> found;
  for (int i = 0; i < count; ++i) {
    auto urls = split_nats_urls(servers[i]);
    std::free(servers[i]);
    if (urls.empty()) continue;
    NatsServerUrl u = std::move(urls.front());
    u.tls = from.tls;
    u.user = from.user;
    u.password = from.password;
    u.token = from.token;
    u.tls_name = !from.tls_name.empty() ? from.tls_name : from.host_is_ip ? "" : from.host;
    found.push_back(std::move(u));
  }
  std::free(servers);
  if (!found.empty()) discovered_ = std::move(found);
}

std::string nats_last_detail() {
  const char* last = nats_GetLastError(nullptr);
  std::string detail = last != nullptr ? last : "";
  if (const auto at = detail.find("): "); detail.starts_with('(') && at != std::string::npos)
    detail.erase(0, at + 3);
  return detail;
}

NatsFailure jetstream_failure(std::uint32_t err_code, std::string_view description) {
  const auto failure = [&](ErrorCode code, const char* advice) {
    std::string text(description.empty() ? "JetStream refuses" : description);
    text += " (JetStream error " + std::to_string(err_code) + ")";
    if (advice[0] != '\0') text += std::string("; ") + advice;
    return NatsFailure{code, text};
  };
  switch (err_code) {
    case JSNotEnabledErr: return failure(ErrorCode::StreamUnusable, "start nats-server with JetStream (-js)");
    case JSNotEnabledForAccountErr:
      return failure(ErrorCode::StreamUnusable, "enable JetStream for the account of this user");
    case JSClusterNotAvailErr:
    case JSClusterNotActiveErr:
    case JSClusterNotLeaderErr:
    case JSClusterNotAssignedErr:
    case JSStreamOfflineErr:
    case JSRaftGeneralErr:
      return failure(ErrorCode::NatsUnreachable,
                     "JetStream has no leader: are most servers of the cluster up and connected?");
    case JSClusterNoPeersErr:
      return failure(ErrorCode::StreamUnusable, "too few servers for nats.replicas, or no room on them");
    case JSStreamReplicasNotSupportedErr:
      return failure(ErrorCode::StreamUnusable, "nats.replicas above 1 needs a cluster");
    case JSAccountResourcesExceededErr:
    case JSInsufficientResourcesErr:
    case JSMemoryResourcesExceededErr:
    case JSStorageResourcesExceededErr:
      return failure(ErrorCode::StreamFull, "raise the limits of JetStream (max_file_store, the account's)");
    case JSStreamLimitsErr:
    case JSStreamMaxBytesRequiredErr:
    case JSStreamMaxStreamBytesExceededErr:
    case JSNoLimitsErr:
    case JSMaximumStreamsLimitErr:
      return failure(ErrorCode::StreamUnusable, "limits of the account; see nats.max_bytes");
    case JSStreamStoreFailedErr:
      return description.find("maximum") != std::string_view::npos ||
                     description.find("space") != std::string_view::npos ||
                     description.find("resource") != std::string_view::npos
                 ? failure(ErrorCode::StreamFull, "raise the stream's limits, or set discard: old")
                 : failure(ErrorCode::PublishRejected, "see the log of nats-server");
    case JSStreamSealedErr:
      return failure(ErrorCode::StreamUnusable, "it is sealed: set another stream name");
    case JSStreamMessageExceedsMaximumErr:
      return failure(ErrorCode::StreamUnusable, "raise max_msg_size of the stream");
    case JSStreamSubjectOverlapErr:
      return failure(ErrorCode::StreamUnusable,
                     "another stream takes these subjects: set nats.subject_prefix, or delete it");
    case JSStreamNotFoundErr: return failure(ErrorCode::StreamUnusable, "the stream was deleted");
    default: return failure(ErrorCode::PublishRejected, "");
  }
}

}  // namespace arancini
