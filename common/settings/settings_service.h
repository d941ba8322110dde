#pragma once

#include <settings.grpc.pb.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "common/base/config.h"
#include "common/base/config_changes.h"
#include "common/base/local_listener.h"

namespace arancini {

// A daemon's side of a reload (common/proto/settings.proto): says whether it would take a configuration, then
// takes it. Any thread.
class SettingsService final : public settings::v1::Settings::Service {
 public:
  // Puts the live keys of `next` in force, from gRPC's thread; returns when they are. The error is one line.
  using Apply = std::function<std::string(const Config& next)>;

  // `flags` as the process was started with, `started` what came of them.
  SettingsService(ConfigFlags flags, Config started, Daemon daemon, Apply apply);

  grpc::Status Prepare(grpc::ServerContext* context, const settings::v1::PrepareRequest* request,
                       settings::v1::PrepareReply* reply) override;
  grpc::Status Commit(grpc::ServerContext* context, const settings::v1::CommitRequest* request,
                      settings::v1::CommitReply* reply) override;

 private:
  struct Prepared {
    std::string hash;
    Config config;
  };
  const ConfigFlags flags_;
  const Daemon daemon_;
  const Apply apply_;
  std::mutex mutex_;
  Config now_;  // the start's, with the live keys in force
  std::optional<Prepared> prepared_;
};

// The server of a daemon, which listens nowhere itself: its callers come from serve_callers(). Null: gRPC did
// not start.
std::unique_ptr<grpc::Server> start_local_server(grpc::Service& own, SettingsService& settings,
                                                 int most_message_bytes);
// Whoever waits at the listener.
void serve_callers(LocalListener& listener, std::uint64_t now_boottime_ns, grpc::Server& server);

}  // namespace arancini
