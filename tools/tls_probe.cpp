#include "tools/tls_probe.h"

#include <fmt/format.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "common/base/fd.h"

namespace arancini::tools {

namespace {

constexpr timeval kPatience{5, 0};

std::string last_reason() {
  const unsigned long error = ERR_peek_last_error();
  const bool closed = error == 0 || ERR_GET_REASON(error) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
  const char* text = closed ? nullptr : ERR_reason_error_string(error);
  ERR_clear_error();
  return text == nullptr ? "it closes the connection" : text;
}

Fd connect_to(const std::string& host, const std::string& port, std::string& why) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found); error != 0) {
    why = ::gai_strerror(error);
    return {};
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> all(found, &::freeaddrinfo);
  for (const addrinfo* a = found; a != nullptr; a = a->ai_next) {
    Fd fd(::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol));
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof kPatience);
    ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &kPatience, sizeof kPatience);
    if (fd && ::connect(fd.get(), a->ai_addr, a->ai_addrlen) == 0) return fd;
    why = errno == EINPROGRESS ? "no answer" : std::strerror(errno);
  }
  return {};
}

}  // namespace

std::string why_no_tls(const std::string& address, const TlsFiles& files) {
  const auto colon = address.rfind(':');
  if (colon == std::string::npos) return "--control must be HOST:PORT, not '" + address + "'";
  std::string host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);

  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_client_method()),
                                                                  &SSL_CTX_free);
  if (SSL_CTX_load_verify_locations(context.get(), files.ca.c_str(), nullptr) != 1)
    return fmt::format("--tls-ca {}: {}", files.ca, last_reason());
  if (SSL_CTX_use_certificate_chain_file(context.get(), files.cert.c_str()) != 1)
    return fmt::format("--tls-cert {}: {}", files.cert, last_reason());
  if (SSL_CTX_use_PrivateKey_file(context.get(), files.key.c_str(), SSL_FILETYPE_PEM) != 1)
    return fmt::format("--tls-key {}: {}", files.key, last_reason());
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);

  std::string why;
  const Fd fd = connect_to(host, address.substr(colon + 1), why);
  if (!fd)
    return fmt::format("nobody answers at {}: {}; does curated listen there (control.listen)?", address, why);
  const std::unique_ptr<SSL, decltype(&SSL_free)> tls(SSL_new(context.get()), &SSL_free);
  X509_VERIFY_PARAM* const check = SSL_get0_param(tls.get());
  if (X509_VERIFY_PARAM_set1_ip_asc(check, host.c_str()) != 1) SSL_set1_host(tls.get(), host.c_str());
  ERR_clear_error();
  SSL_ctrl(tls.get(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, host.data());
  constexpr unsigned char kHttp2[] = {2, 'h', '2'};
  SSL_set_alpn_protos(tls.get(), kHttp2, sizeof kHttp2);
  SSL_set_fd(tls.get(), fd.get());
  const bool shaken = SSL_connect(tls.get()) == 1;
  if (const long verdict = SSL_get_verify_result(tls.get()); verdict != X509_V_OK) {
    return fmt::format(
        "the certificate that {} shows is not trusted: {}; is --tls-ca the CA of this curated?", address,
        X509_verify_cert_error_string(verdict));
  }
  // With TLS 1.3 the other side judges our certificate after our handshake is through.
  char byte = 0;
  if (shaken && SSL_read(tls.get(), &byte, 1) == 1) return "";
  // gRPC sends no alert, it closes.
  return fmt::format("{} does not accept the certificate {}: {}; its control.tls_ca must have signed it",
                     address, files.cert, last_reason());
}

}  // namespace arancini::tools
