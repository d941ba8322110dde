#pragma once

#include <memory>
#include <string>

#include "ingestd/recorder.h"
#include "ingestd/recording_sink.h"

namespace arancini::ingestd {

// What `--record` puts between the loop and the shard; without it nothing is between them.
class Recording {
 public:
  // `path` empty: no recording. One that cannot be made is an error line: data flows without it.
  Recording(const std::string& path, const Config& config, std::uint32_t shard, const StatsWriter& stats,
            RingWriter& ring, const Clock& clock, Logger& log,
            std::size_t queue_bytes = Recorder::kQueueBytes);

  // What the shard is made with.
  [[nodiscard]] const HashSeed& seed() const { return seed_; }
  [[nodiscard]] const Clock& clock() const { return recorder_ != nullptr ? *recorder_ : clock_; }
  // The shard is made: what the loop hands everything to. Call once.
  SessionSink& front(Shard& shard, SessionSink& sink);

  [[nodiscard]] Recorder* recorder() { return recorder_.get(); }  // nullptr: none

 private:
  const Clock& clock_;
  RingWriter& ring_;
  HashSeed seed_ = HashSeed::random();
  std::unique_ptr<Recorder> recorder_;
  std::unique_ptr<RecordingSink> sink_;
};

}  // namespace arancini::ingestd
