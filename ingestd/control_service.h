#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/log.h"
#include "common/base/result.h"
#include "common/base/types.h"
#include "ingestd/drain_task.h"
#include "ingestd/hot_task.h"

namespace arancini::ingestd {

// What the shard's other parts say about themselves (common/proto/shard.proto, State).
struct ShardState {
  bool restoring = false;
  std::string restore_text;
  std::uint64_t snapshot_realtime_ns = 0;  // 0: none yet
  std::uint64_t snapshot_routes = 0;
  std::uint64_t snapshot_bytes = 0;
  std::string snapshot_error;
};
struct SnapshotTaken {
  std::string name;
  std::uint64_t routes = 0;
  std::uint64_t bytes = 0;
  std::uint64_t duration_ms = 0;
  std::uint64_t longest_pause_us = 0;
};

// arancini.shard.v1 and arancini.settings.v1 on Config::ingestd_control_path(): look-ups, dumps, snapshots,
// drains and reloads for curated. Calls run on gRPC's threads and post tasks to the hot thread; a thread of
// its own accepts callers and looks who they are.
class ControlService {
 public:
  struct Hooks {  // called from any thread
    std::function<ShardState()> state;
    std::function<Result<SnapshotTaken, std::string>()> take_snapshot;
    std::function<void(const Config&)> reload;  // what lies outside of the shard's tables
  };
  struct Options {
    std::string path;
    WriterId writer;  // of the ring
    std::string log_name = "ingestd";
    ConfigFlags flags;  // as the process was started
    Config config;      // what came of them
  };
  // `tasks`, `sessions` and `clock` are borrowed. Threads inherit the cores of the caller. The error is one
  // line.
  static Result<std::unique_ptr<ControlService>, std::string> start(const Options& options, HotTasks& tasks,
                                                                    Drainable& sessions, const Clock& clock,
                                                                    Hooks hooks);
  // Ends the calls: while the hot thread runs, or after HotTasks::finish().
  ~ControlService();
  ControlService(const ControlService&) = delete;
  ControlService& operator=(const ControlService&) = delete;

 private:
  struct State;
  explicit ControlService(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace arancini::ingestd
