#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/error.h"
#include "publishd/hot_core.h"
#include "publishd/journal_store.h"
#include "publishd/record_source.h"

namespace arancini {
class Logger;
}

namespace arancini::publishd {

// From rings to the journal, where that is the sink ([sink] kind = "journal"): every record is appended, and
// leaves its ring when it is durable. Stands where the Drain stands otherwise.
class JournalSink final : public HotCore {
 public:
  // `log` may be null.
  JournalSink(Journal& journal, Logger* log);
  ~JournalSink() override;

  // `name` comes back in Detached and stands in logs. May come before the journal is ready: it waits.
  void add_ring(std::unique_ptr<RecordSource> source, std::string name, std::uint64_t created_realtime_ns);
  struct Detached {
    std::string name;
    bool corrupt = false;  // else: drained
  };
  // Rings that were given up since the last call.
  std::optional<Detached> poll_detached();

  std::size_t do_work(std::uint64_t now_ns) noexcept override;
  [[nodiscard]] std::uint64_t idle_ns() const override;
  [[nodiscard]] bool arm(std::vector<FutexWait>& waits) override;
  void disarm() override;
  void heartbeat(std::uint64_t boottime_ns) override;
  void stop(std::uint64_t now_ns) override;
  [[nodiscard]] bool stopped() const override { return stopped_; }
  [[nodiscard]] std::size_t rings_connected() const override { return rings_.size(); }

  // Why records wait; None while they flow.
  [[nodiscard]] ErrorCode trouble() const;

 private:
  struct Ring;
  void begin(Ring& ring);
  std::size_t read(Ring& ring);
  bool load_record(Ring& ring);
  void settle(Ring& ring);
  void run_detach();
  void mark_corrupt(Ring& ring, std::string_view why);

  Journal& journal_;
  Logger* log_;
  std::vector<std::unique_ptr<Ring>> rings_;
  std::vector<Detached> detached_;
  std::size_t first_ring_ = 0;  // whose turn it is
  std::uint64_t detach_check_ns_ = 0;
  std::uint64_t stop_deadline_ns_ = 0;
  bool stopping_ = false;
  bool stopped_ = false;
};

}  // namespace arancini::publishd
