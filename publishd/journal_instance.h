#pragma once

#include <string>

#include "common/base/config.h"
#include "publishd/attacher.h"
#include "publishd/hot_loop.h"
#include "publishd/journal_sink.h"
#include "publishd/journal_store.h"
#include "publishd/log_service.h"

namespace arancini::publishd {

// publishd without a broker: everything that the process owns when the journal is the sink.
class JournalInstance final : public HotLoop {
 public:
  // Throws ConfigError when the state directory cannot be used, std::runtime_error for the runtime directory.
  JournalInstance(Config config, ConfigFlags flags);

 private:
  [[nodiscard]] HotCore& core() override { return sink_; }
  void take_rings() override;
  void give_back() override;
  void write_metrics(StatsWriter& stats) override;
  [[nodiscard]] shm::ProcessState state() const override;
  void listen() override { service_.listen(); }
  void say_hello() override;
  [[nodiscard]] std::string status() const override;
  [[nodiscard]] std::string left() const override;

  Journal journal_;
  LogService service_;
  JournalSink sink_;
  Attacher attacher_;
};

}  // namespace arancini::publishd
