#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/base/fd.h"
#include "common/base/result.h"
#include "common/base/types.h"
#include "common/journal/writer_reader.h"

namespace arancini::journal {

// A whole journal for reading, its writers' frames merged in the order in which they were written. Takes no
// lock and writes nothing: safe beside a running publishd, and from another user who may read the files.
class JournalReader {
 public:
  // The error is one line for the operator.
  static Result<JournalReader, std::string> open(const std::string& directory);

  struct Writer {
    WriterId id;
    std::uint32_t shard = 0;
    std::uint64_t created_ns = 0;  // of the ring
  };

  // Notes the end of what is there now; last_order() is that of the last frame.
  void look();
  [[nodiscard]] std::uint64_t last_order() const { return last_order_; }
  [[nodiscard]] std::uint64_t first_order() const { return first_order_; }  // 0: nothing is there
  // Some writer's first frames are gone: discarded, or published to a broker.
  [[nodiscard]] bool beginning_gone() const { return beginning_gone_; }
  // next() ends where look() saw the end, or goes on for ever.
  void stop_at_end(bool on) { bounded_ = on; }
  // Every frame from this number on is there, as far as look() saw; what is below may be gone, discarded or
  // published to a broker. 0: nothing is gone.
  [[nodiscard]] std::uint64_t whole_from() const { return whole_from_; }
  // Before the first next(), behind look(): frames below this number are mostly not read. Some of them still
  // come.
  void skip_to(std::uint64_t order);
  // Before the first next(): begins where look() saw the end.
  void skip_to_end();

  enum class Status : std::uint8_t {
    Frame,
    End,        // for now
    Damaged,    // frames are lost: damage()
    Discarded,  // retention was faster than this reader
  };
  // `writer` is set for all but End. The frame stays valid until the next call.
  [[nodiscard]] Status next(Frame& out, Writer& writer);
  [[nodiscard]] const WriterReader::Damage& damage() const { return damage_; }

 private:
  struct Source {
    Writer writer;
    std::unique_ptr<WriterReader> reader;
    Buffer buffer;
    Buffer buffer_ahead;
    Frame frame;
    bool has_frame = false;
    bool known_at_look = false;
    std::uint64_t last_frame = 0;  // at look()
    RingPosition end{};            // at look()
    struct Part {
      std::uint64_t first_order = 0;
      RingPosition begin{};
    };
    std::vector<Part> parts;  // segments at look(), by position
  };

  JournalReader(Fd directory, std::string path) : directory_(std::move(directory)), path_(std::move(path)) {}
  void discover();
  // False: the source has nothing now.
  Status fill(Source& source);

  Fd directory_;
  std::string path_;
  std::map<WriterId, std::unique_ptr<Source>> sources_;
  Source* given_ = nullptr;  // whose frame the caller has
  std::uint64_t given_order_ = 0;
  std::uint64_t first_order_ = 0;
  std::uint64_t last_order_ = 0;
  std::uint64_t whole_from_ = 0;
  bool beginning_gone_ = false;
  bool bounded_ = false;
  WriterReader::Damage damage_;
};

}  // namespace arancini::journal
