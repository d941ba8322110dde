#include "curated/callers.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/security/auth_metadata_processor.h>
#include <pwd.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <optional>
#include <utility>

#include "common/base/joined.h"

namespace arancini::curated {

namespace {

constexpr std::string_view kDescriptor = "fd:";  // what gRPC calls the peer of a descriptor that it was given

std::string user_name(uid_t uid) {
  passwd entry{};
  passwd* found = nullptr;
  std::array<char, 4096> memory{};
  if (::getpwuid_r(uid, &entry, memory.data(), memory.size(), &found) != 0 || found == nullptr) return "?";
  return found->pw_name;
}

// Names in the certificate that the peer has shown, SANs first; none: there is no certificate.
std::vector<std::string> names_in(const grpc::AuthContext& auth) {
  std::vector<std::string> out;
  for (const char* property : {GRPC_X509_SAN_PROPERTY_NAME, GRPC_X509_CN_PROPERTY_NAME}) {
    for (const grpc::string_ref& value : auth.FindPropertyValues(property)) {
      std::string name(value.data(), value.size());
      if (std::find(out.begin(), out.end(), name) == out.end()) out.push_back(std::move(name));
    }
  }
  return out;
}

bool any_of(const std::vector<std::string>& names, const std::vector<std::string>& in) {
  return std::ranges::any_of(names,
                             [&](const auto& n) { return std::find(in.begin(), in.end(), n) != in.end(); });
}

std::string certificate_text(const std::vector<std::string>& names) {
  return quoted(joined(names, ","), 300);
}

}  // namespace

// Runs before every call on the TCP port, of whichever service.
class Callers::NameCheck final : public grpc::AuthMetadataProcessor {
 public:
  explicit NameCheck(Callers& callers) : callers_(callers) {}
  [[nodiscard]] bool IsBlocking() const override { return false; }
  grpc::Status Process(const InputMetadata&, grpc::AuthContext* context, OutputMetadata*,
                       OutputMetadata*) override {
    const Config::Control& config = callers_.config_;
    const std::vector<std::string> names = names_in(*context);
    if (config.allow_names.empty() || any_of(names, config.allow_names) ||
        any_of(names, config.read_only_names))
      return grpc::Status::OK;
    const std::string who = "certificate=" + certificate_text(names);
    callers_.audit_.refused(who, "control.allow_names has none of its names");
    return {grpc::StatusCode::PERMISSION_DENIED,
            who + " may not call: control.allow_names of this collector has none of its names"};
  }

 private:
  Callers& callers_;
};

Callers::Callers(const Config::Control& config, AuditLog& audit) : config_(config), audit_(audit) {
  rlimit limit{};
  const bool known = ::getrlimit(RLIMIT_NOFILE, &limit) == 0;
  const auto most = static_cast<int>(std::min<rlim_t>(known ? limit.rlim_cur : 1024, 1 << 20));
  first_number_ = std::max(most - kNumbers, most / 4);
  next_number_ = first_number_;
}

Fd Callers::connected(Fd connection, const ucred& who) {
  const std::lock_guard lock(mutex_);
  for (const int from : {next_number_, first_number_}) {
    Fd fd(::fcntl(connection.get(), F_DUPFD_CLOEXEC, from));
    if (!fd) continue;  // beyond the limit: from the first number again
    next_number_ = fd.get() + 1;
    local_[fd.get()] = who;
    return fd;
  }
  return {};
}

Caller Callers::of(const grpc::ServerContextBase& context) const {
  const std::string peer = context.peer();
  if (const auto auth = context.auth_context(); auth && auth->IsPeerAuthenticated()) {
    const std::vector<std::string> names = names_in(*auth);
    Caller caller{fmt::format("certificate={} address={}", certificate_text(names), peer), {}};
    if (any_of(names, config_.read_only_names))
      caller.may_change =
          "control.read_only_names has " + certificate_text(names) + ": it may look, not change";
    return caller;
  }
  if (peer.starts_with(kDescriptor)) {
    int number = -1;
    std::from_chars(peer.data() + kDescriptor.size(), peer.data() + peer.size(), number);
    const std::lock_guard lock(mutex_);
    if (const auto found = local_.find(number); found != local_.end()) {
      const ucred& c = found->second;
      return {fmt::format("uid={} gid={} pid={} user={}", c.uid, c.gid, c.pid, user_name(c.uid)), {}};
    }
  }
  return {"unknown=" + quoted(peer, 100), "curated cannot tell who calls"};
}

std::shared_ptr<grpc::AuthMetadataProcessor> Callers::name_check() {
  return std::make_shared<NameCheck>(*this);
}

}  // namespace arancini::curated
