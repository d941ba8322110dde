#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "common/base/result.h"
#include "curated/fleet.h"
#include "curated/shards_client.h"

namespace arancini::curated {

// Restarts processes one after the other, so that never more than one is away: a health gate before each, a
// snapshot of a shard before it goes, and a wait until it is as it was. Ends at the first that is not back in
// time.
class Restarter {
 public:
  enum class Step : std::uint8_t { Gate, Snapshot, Restart, Wait, Back, End };
  struct Progress {
    std::string process;  // empty in the last one when all is well
    Step step = Step::Gate;
    std::string text;
    bool ok = true;  // false: it ends here
  };
  struct Plan {
    std::vector<std::string> processes;  // in this order
    // A shard that runs is not restarted without a fresh snapshot: its routers would wait longer for it.
    bool needs_snapshot = false;
    bool rolling = false;          // of all: drains are not to be ended by the way
    bool snapshots = true;         // there are some
    std::uint64_t timeout_ns = 0;  // for each process
    std::uint64_t grace_ns = 0;    // then the routers that are not back are not waited for
  };
  // What it sees and does; a test has its own.
  struct World {
    std::function<FleetView()> view;
    std::function<std::vector<ShardAnswer>()> shards;
    // Why a process that starts now would refuse the configuration; empty: it would not.
    std::function<std::string()> config_problem;
    std::function<Result<SnapshotDone, std::string>(std::uint32_t shard)> snapshot;  // ends with the caller
    std::function<Result<std::monostate, std::string>(const std::string& process)> restart;
    std::function<std::uint64_t()> now_ns;
    std::function<bool()> gone;   // nobody waits for the end any more
    std::function<bool()> pause;  // a moment; false: as `gone`
  };
  using Tell = std::function<void(const Progress&)>;

  // How long the gate may take to open.
  static constexpr std::uint64_t kGateNs = 10'000'000'000;

  explicit Restarter(World world) : world_(std::move(world)) {}

  // All ingestds, then publishd.
  [[nodiscard]] static std::vector<std::string> rolling(const FleetView& view);
  // Why these cannot be restarted; empty: they can.
  [[nodiscard]] static std::string unusable(const std::vector<std::string>& processes, const FleetView& view);

  // Tells each step; true if all are back.
  bool run(const Plan& plan, const Tell& tell);

 private:
  struct Before;  // how a process was
  bool restart_one(const std::string& name, const Plan& plan, const Tell& tell);
  [[nodiscard]] std::string gate(const std::string& name, const FleetView& view,
                                 const std::vector<ShardAnswer>& shards) const;
  [[nodiscard]] std::string not_back(const std::string& name, const Before& before, bool grace_is_over) const;

  const World world_;
};

}  // namespace arancini::curated
