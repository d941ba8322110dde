#pragma once

#include <string>

namespace arancini::tools {

struct TlsFiles {
  std::string ca, cert, key;  // PEM
};

// Why a mutual TLS connection to "HOST:PORT" does not come about, in one line for the operator; empty: it
// does. gRPC says only that it did not.
std::string why_no_tls(const std::string& address, const TlsFiles& files);

}  // namespace arancini::tools
