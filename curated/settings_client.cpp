#include "curated/settings_client.h"

#include <grpcpp/grpcpp.h>
#include <settings.grpc.pb.h>

#include <chrono>
#include <memory>

namespace arancini::curated {

namespace {

namespace pb = settings::v1;

constexpr auto kPatience = std::chrono::seconds(10);

std::unique_ptr<pb::Settings::Stub> stub_of(const std::string& socket) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return pb::Settings::NewStub(
      grpc::CreateCustomChannel("unix:" + socket, grpc::InsecureChannelCredentials(), arguments));
}

void set_deadline(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
}

std::string problem_text(const grpc::Status& status) {
  switch (static_cast<int>(status.error_code())) {
    case grpc::StatusCode::UNAVAILABLE: return "does not answer: " + status.error_message();
    case grpc::StatusCode::DEADLINE_EXCEEDED: return "did not answer in time: stopped or overloaded";
    case grpc::StatusCode::UNIMPLEMENTED: return "is of a version that cannot reload: restart it";
    default: return status.error_message();
  }
}

}  // namespace

Result<PreparedSettings, std::string> prepare_settings(const std::string& socket, const std::string& file,
                                                       const std::string& text) {
  grpc::ClientContext context;
  set_deadline(context);
  pb::PrepareRequest request;
  request.set_file(file);
  request.set_text(text);
  pb::PrepareReply reply;
  const grpc::Status status = stub_of(socket)->Prepare(&context, request, &reply);
  if (!status.ok()) return Err{problem_text(status)};
  return PreparedSettings{
      reply.hash(), {reply.live().begin(), reply.live().end()}, {reply.fixed().begin(), reply.fixed().end()}};
}

std::string commit_settings(const std::string& socket, const std::string& hash) {
  grpc::ClientContext context;
  set_deadline(context);
  pb::CommitRequest request;
  request.set_hash(hash);
  pb::CommitReply reply;
  const grpc::Status status = stub_of(socket)->Commit(&context, request, &reply);
  return status.ok() ? "" : problem_text(status);
}

}  // namespace arancini::curated
