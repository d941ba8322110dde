#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace arancini {

struct Config;

// How to reach NATS, and who we are there. Passwords are in clear: for logs there is mask_url().
struct NatsSettings {
  std::string url = "nats://127.0.0.1:4222";  // several with commas
  std::string creds;
  std::string user, password, token;
  std::string tls_ca, tls_cert, tls_key;
  std::string domain, api_prefix;

  static NatsSettings from(const Config& config);
};

// One server of the list. What stands in a URL goes before the settings.
struct NatsServerUrl {
  bool tls = false;     // tls://
  std::string address;  // HOST:PORT, as NATS wants it
  std::string host;     // without brackets
  bool host_is_ip = false;
  std::string user, password, token;  // percent-decoded
  std::string tls_name;               // its certificate is for this, if not for the host

  [[nodiscard]] std::string to_string() const { return (tls ? "tls://" : "nats://") + address; }
};
std::vector<NatsServerUrl> split_nats_urls(std::string_view urls);

// Files that hold a secret of NATS and that users who are neither owner nor group may read: one line for the
// log, empty if there is none.
std::string exposed_nats_secrets(const Config& config);

}  // namespace arancini
