#include "common/settings/settings_service.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/server_posix.h>

#include <utility>

namespace arancini {

namespace pb = settings::v1;

SettingsService::SettingsService(ConfigFlags flags, Config started, Daemon daemon, Apply apply)
    : flags_(std::move(flags)), daemon_(daemon), apply_(std::move(apply)), now_(std::move(started)) {}

grpc::Status SettingsService::Prepare(grpc::ServerContext*, const pb::PrepareRequest* request,
                                      pb::PrepareReply* reply) {
  try {
    Prepared next{text_hash(request->text()), load_config(flags_, request->file(), request->text())};
    const std::lock_guard lock(mutex_);
    const ConfigPlan plan = plan_change(now_, next.config, daemon_);
    reply->set_hash(next.hash);
    reply->mutable_live()->Assign(plan.live.begin(), plan.live.end());
    reply->mutable_fixed()->Assign(plan.start.begin(), plan.start.end());
    prepared_ = std::move(next);
    return grpc::Status::OK;
  } catch (const ConfigError& e) {
    return {grpc::StatusCode::INVALID_ARGUMENT, e.what()};
  }
}

grpc::Status SettingsService::Commit(grpc::ServerContext*, const pb::CommitRequest* request,
                                     pb::CommitReply*) {
  const std::lock_guard lock(mutex_);
  if (!prepared_ || prepared_->hash != request->hash())
    return {grpc::StatusCode::FAILED_PRECONDITION, "this configuration was not prepared here"};
  if (std::string why = apply_(prepared_->config); !why.empty())
    return {grpc::StatusCode::UNAVAILABLE, std::move(why)};
  now_ = with_live_keys(std::move(now_), prepared_->config);
  prepared_.reset();
  return grpc::Status::OK;
}

std::unique_ptr<grpc::Server> start_local_server(grpc::Service& own, SettingsService& settings,
                                                 int most_message_bytes) {
  grpc::ServerBuilder builder;
  builder.RegisterService(&own);
  builder.RegisterService(&settings);
  builder.SetMaxReceiveMessageSize(most_message_bytes);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 2);
  return builder.BuildAndStart();
}

void serve_callers(LocalListener& listener, std::uint64_t now_boottime_ns, grpc::Server& server) {
  while (Fd caller = listener.accept(now_boottime_ns))
    grpc::AddInsecureChannelFromFd(&server, caller.release());
}

}  // namespace arancini
