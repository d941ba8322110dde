#include "common/nats/nats_settings.h"

#include <sys/stat.h>

#include <algorithm>

#include "common/base/config.h"
#include "common/base/joined.h"
#include "common/base/types.h"

namespace arancini {

namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string percent_decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      const int high = hex_digit(text[i + 1]);
      const int low = hex_digit(text[i + 2]);
      if (high >= 0 && low >= 0) {
        out += static_cast<char>(high * 16 + low);
        i += 2;
        continue;
      }
    }
    out += text[i];
  }
  return out;
}

NatsServerUrl parse(std::string_view text) {
  NatsServerUrl url;
  if (const auto scheme = text.find("://"); scheme != std::string_view::npos) {
    url.tls = text.substr(0, scheme) == "tls";
    text.remove_prefix(scheme + 3);
  }
  if (const auto at = text.rfind('@'); at != std::string_view::npos) {
    const std::string_view login = text.substr(0, at);
    text.remove_prefix(at + 1);
    const auto colon = login.find(':');
    if (colon == std::string_view::npos) {
      url.token = percent_decoded(login);  // the settings may say that it is a user
    } else {
      url.user = percent_decoded(login.substr(0, colon));
      url.password = percent_decoded(login.substr(colon + 1));
    }
  }
  std::string_view port = "4222";
  std::string_view host = text;
  const auto bracket = text.find(']');
  const auto colon = text.find(':', bracket == std::string_view::npos ? 0 : bracket);
  if (colon != std::string_view::npos) {
    host = text.substr(0, colon);
    port = text.substr(colon + 1);
  }
  url.address = std::string(host) + ":" + std::string(port);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  url.host = host;
  url.host_is_ip = IpAddress::parse(url.host).has_value();
  return url;
}

bool others_may_read(const std::string& path) {
  struct stat st {};
  return !path.empty() && ::stat(path.c_str(), &st) == 0 && (st.st_mode & S_IROTH) != 0;
}

}  // namespace

NatsSettings NatsSettings::from(const Config& config) {
  const Config::Nats& n = config.nats;
  return {n.url,    n.creds,    n.user,    n.password, n.token,
          n.tls_ca, n.tls_cert, n.tls_key, n.domain,   n.api_prefix};
}

std::vector<NatsServerUrl> split_nats_urls(std::string_view urls) {
  std::vector<NatsServerUrl> out;
  while (!urls.empty()) {
    const auto comma = std::min(urls.find(','), urls.size());
    std::string_view one = urls.substr(0, comma);
    while (one.starts_with(' ')) one.remove_prefix(1);
    while (one.ends_with(' ')) one.remove_suffix(1);
    if (!one.empty()) out.push_back(parse(one));
    urls.remove_prefix(std::min(comma + 1, urls.size()));
  }
  return out;
}

std::string exposed_nats_secrets(const Config& config) {
  std::vector<std::string> files;
  const auto look = [&](const std::string& path) {
    if (others_may_read(path)) files.push_back(path);
  };
  if (config.file_holds_secrets) look(config.file);
  look(config.nats.creds);
  look(config.nats.tls_key);
  if (files.empty()) return {};
  return "every user of this machine may read secrets of NATS in " + joined(files) + ": chmod o-r";
}

}  // namespace arancini
