#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <span>
#include <string>

#include "common/base/config.h"
#include "common/base/log.h"
#include "common/base/result.h"
#include "shm-layout/record.h"

namespace arancini::ingestd {

struct ReplayResult {
  std::uint64_t calls = 0, messages = 0, records = 0, updates = 0, events = 0;
  std::uint64_t refused = 0;  // calls with a message that found no room
  bool complete = false;      // the recording was ended by who made it
  std::string end;            // how it ends
};

// Runs a shard on a recording (common/recording/entries.h), on a ring of its own in a temporary directory.
// `record(header, payload)` gets each ring record, in order. An error is one line: the recording cannot be
// read, or the shard did not do what it did when it was recorded, and where that was: then something that its
// records depend on is not in the recording, or program or configuration differ.
Result<ReplayResult, std::string> replay(
    const std::string& path, Logger& log,
    const std::function<void(const shm::RecordHeader&, std::span<const std::byte>)>& record);

// `ingestd --replay FILE --out FILE`: writes headers and payloads, one after the other; prints what was done.
// The result is the exit status.
int replay_to_file(const std::string& recording, const std::string& out, LogLevel level);

}  // namespace arancini::ingestd
