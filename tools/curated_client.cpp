#include "tools/curated_client.h"

#include <grpcpp/grpcpp.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>

#include "common/base/fd.h"
#include "tools/tls_probe.h"

namespace arancini::tools {

namespace {

namespace pb = control::v1;

std::string socket_of(const GlobalOptions& options) {
  std::error_code error;
  const auto folder = std::filesystem::absolute(options.runtime_dir, error);
  return (error ? std::filesystem::path(options.runtime_dir) : folder) / "curated.sock";
}

// gRPC's own words ("failed to connect to all addresses") do not help: find out what stands in the way. Empty
// if nothing.
std::string why_unreachable(const std::string& path, const std::string& runtime_dir) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return path + ": the path is too long for a unix socket";
  std::copy(path.begin(), path.end(), address.sun_path);
  const Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return std::strerror(errno);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return "";
  switch (errno) {
    case ENOENT:
    case ECONNREFUSED:
      return "curated is not running (nobody answers at " + path + ")\n" +
             "  start it: systemctl start arancini.target\n" +
             "  or:       curated --supervise --runtime-dir " + runtime_dir +
             "\n  or name the instance that you mean: aranctl --runtime-dir DIR ...";
    case EACCES:
    case EPERM:
      return "no permission to open " + path +
             "\n  run aranctl as root, as the user that curated runs as, or as a member of its group";
    default: return path + ": " + std::strerror(errno);
  }
}

std::string content_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::unique_ptr<pb::Control::Stub> stub_of(const GlobalOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);  // tens of thousands of peers are one answer
  if (options.control.empty()) {
    return pb::Control::NewStub(grpc::CreateCustomChannel("unix:" + socket_of(options),
                                                          grpc::InsecureChannelCredentials(), arguments));
  }
  const grpc::SslCredentialsOptions tls{content_of(options.tls_ca), content_of(options.tls_key),
                                        content_of(options.tls_cert)};
  return pb::Control::NewStub(
      grpc::CreateCustomChannel(options.control, grpc::SslCredentials(tls), arguments));
}

// What keeps a call from being made, and the exit code.
std::string why_not_called(const GlobalOptions& options, int& exit_code) {
  if (options.control.empty()) return why_unreachable(socket_of(options), options.runtime_dir);
  if (options.tls_ca.empty() || options.tls_cert.empty() || options.tls_key.empty()) {
    exit_code = kExitUsage;
    return "--control needs --tls-ca, --tls-cert and --tls-key: curated serves TCP with mTLS only";
  }
  return why_no_tls(options.control, {options.tls_ca, options.tls_cert, options.tls_key});
}

}  // namespace

int try_curated(const GlobalOptions& options, std::chrono::seconds patience, const CuratedCall& call,
                std::string& why) {
  int exit_code = kExitNoCurated;
  why = why_not_called(options, exit_code);
  if (why.empty()) {
    const auto stub = stub_of(options);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + patience);
    const grpc::Status status = call(*stub, context);
    if (status.ok()) return kExitOk;
    switch (static_cast<int>(status.error_code())) {
      case grpc::StatusCode::DEADLINE_EXCEEDED:
        why = "curated did not answer within " + std::to_string(patience.count()) +
              " s; is it overloaded or stopped (Ctrl-Z)?";
        break;
      case grpc::StatusCode::PERMISSION_DENIED:
        exit_code = kExitNoPermission;
        why = status.error_message();
        break;
      case grpc::StatusCode::UNAVAILABLE:
        why = "curated closed the connection: it refuses this user (see its log), or it is stopping";
        break;
      case grpc::StatusCode::INVALID_ARGUMENT:
      case grpc::StatusCode::NOT_FOUND:
        exit_code = kExitUsage;
        why = status.error_message();
        break;
      default: why = status.error_message(); break;
    }
  }
  return exit_code;
}

bool call_curated(const GlobalOptions& options, int& exit_code, std::chrono::seconds patience,
                  const CuratedCall& call) {
  std::string why;
  exit_code = try_curated(options, patience, call, why);
  if (exit_code != kExitOk) std::fprintf(stderr, "aranctl: %s\n", why.c_str());
  return exit_code == kExitOk;
}

bool status_of_curated(const GlobalOptions& options, pb::Status& status) {
  std::string why;
  return try_curated(
             options, kCuratedPatience,
             [&](pb::Control::Stub& stub, grpc::ClientContext& context) {
               return stub.GetStatus(&context, pb::GetStatusRequest{}, &status);
             },
             why) == kExitOk;
}

}  // namespace arancini::tools
