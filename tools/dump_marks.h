#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "common/base/types.h"
#include "common/nats/stream_reader.h"

namespace arancini::tools {

// A dump of a router's table in the stream.
struct DumpMark {
  std::string router;          // configured name, else the address
  std::uint64_t after = 0;     // it begins behind this stream sequence
  std::uint64_t complete = 0;  // who has read up to this one has the table
  std::uint64_t routes = 0;
  WriterId writer;
  std::uint64_t start_event = 0, end_event = 0;
};

// The last complete dump of each router, from events in the order of their stream.
class DumpMarks {
 public:
  // Others than those about dumps, and a stream that began anew, are skipped.
  void add(const StreamMessage& event);
  [[nodiscard]] const std::map<std::string, DumpMark>& complete() const { return complete_; }
  // An event of the writer with this sequence, or a later one, was seen.
  [[nodiscard]] bool seen(const WriterId& writer, std::uint64_t event) const;

 private:
  std::map<std::pair<WriterId, std::uint64_t>, std::uint64_t> started_;  // dump_start: its `after`
  std::map<std::string, DumpMark> complete_;
  std::map<WriterId, std::uint64_t> last_;
};

}  // namespace arancini::tools
