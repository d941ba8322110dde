#pragma once

#include <settings.grpc.pb.h>

#include <functional>
#include <mutex>
#include <optional>
#include <string>

#include "common/base/config.h"
#include "common/base/config_changes.h"

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

}  // namespace arancini
