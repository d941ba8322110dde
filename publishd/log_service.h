#pragma once

#include <functional>
#include <memory>

#include "common/base/config.h"
#include "common/base/log.h"
#include "publishd/drain.h"
#include "publishd/journal_store.h"

namespace arancini::publishd {

// What ingestd asks publishd (common/proto/log.proto), and curated (settings.proto), on Config::log_path(): a
// unix socket of mode 0660 whose callers are looked at. On threads of its own, with NATS connections of its
// own: of the hot thread it reads atomics alone, and publishing does not depend on it.
class LogService {
 public:
  // Borrows all. `journal` null: there is none. `end` null: the journal is the sink. Nobody is served before
  // listen(). `log` is written to by the service alone.
  // `flags` are those of the process; `reload` puts what may change while it runs in force, on any thread.
  LogService(const Config& config, const ConfigFlags& flags, const Journal* journal, const LogEnd* end,
             Logger& log, std::function<void(const Config&)> reload);
  // Ends what is being answered.
  ~LogService();
  LogService(const LogService&) = delete;
  LogService& operator=(const LogService&) = delete;

  // No other publishd lives here, so the socket is ours to make. Any number of times; never blocks.
  void listen();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace arancini::publishd
