#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "common/base/config.h"
#include "common/base/log.h"
#include "publishd/attacher.h"
#include "publishd/drain.h"
#include "publishd/hot_loop.h"
#include "publishd/jetstream.h"
#include "publishd/journal_store.h"
#include "publishd/log_service.h"
#include "publishd/ring_source.h"

namespace arancini::publishd {

// publishd with a broker: nearly everything that the process owns.
class Instance final : public HotLoop {
 public:
  // Throws std::runtime_error when the runtime directory cannot be used.
  Instance(Config config, ConfigFlags flags);

 private:
  [[nodiscard]] HotCore& core() override { return drain_; }
  // Rings wait for the journal to say what it has of them, and what other lives left in it.
  void take_rings() override;
  void give_back() override;
  void write_metrics(StatsWriter& stats) override;
  [[nodiscard]] shm::ProcessState state() const override;
  void listen() override { service_.listen(); }
  void say_hello() override;
  [[nodiscard]] std::string status() const override;
  [[nodiscard]] std::string left() const override;

  void give_parked();
  void add_left();
  void reload(const Config& next);

  Logger jetstream_log_;  // JetStream's thread
  JetStream jetstream_;
  std::unique_ptr<Journal> journal_;  // null: none
  Drain drain_;                       // its sources use the journal
  LogService service_;
  Attacher attacher_;
  std::vector<Attacher::Ring> parked_;    // attached, not given to the drain yet
  std::map<std::string, WriterId> left_;  // names in the drain of what other lives left
  std::set<std::string> missed_;          // of parked_: their records in the journal are not there
  bool left_added_ = false;
};

}  // namespace arancini::publishd
