#pragma once

#include <sys/socket.h>

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/base/config.h"
#include "common/base/fd.h"
#include "curated/audit_log.h"

namespace grpc {
class AuthMetadataProcessor;
class ServerContextBase;
}  // namespace grpc

namespace arancini::curated {

// Who makes a call.
struct Caller {
  std::string who;         // AuditLog::Entry::who
  std::string may_change;  // why not; empty: it may
};

// Tells the callers of the control API apart (docs/decisions/0015-control-plane.md): on the unix socket by
// the peer credentials of their connection, on TCP by the names in their certificate. Any thread.
class Callers {
 public:
  // Descriptors of connections have numbers in a range of that size and are not re-used before it went
  // round.
  static constexpr int kNumbers = 8192;

  // Borrows both.
  Callers(const Config::Control& config, AuditLog& audit);

  // A connection of `who` was accepted. Returns it under the number by which its calls are known, or invalid
  // when there are no descriptors.
  Fd connected(Fd connection, const ucred& who);

  [[nodiscard]] Caller of(const grpc::ServerContextBase& context) const;

  // For the TCP port: refuses every call of a certificate without a name that is allowed.
  [[nodiscard]] std::shared_ptr<grpc::AuthMetadataProcessor> name_check();

 private:
  class NameCheck;
  const Config::Control& config_;
  AuditLog& audit_;
  mutable std::mutex mutex_;
  std::unordered_map<int, ucred> local_;  // by descriptor; at most kNumbers
  int first_number_ = 0;
  int next_number_ = 0;
};

}  // namespace arancini::curated
