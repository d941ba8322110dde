#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/journal/checkpoint.h"
#include "common/journal/writer_reader.h"
#include "publishd/journal_store.h"
#include "publishd/wake.h"

// The insides of the journal: who owns what. Hot thread: stores. Threads of the journal: writer (frames,
// fdatasync), reader (read-ahead), preallocator, keeper (opening, retention).
namespace arancini::publishd {

// Records on their way to the disk: a byte ring mapped twice, so that any stretch of it is contiguous.
class SpillBuffer {
 public:
  static constexpr std::size_t kBytes = 8 << 20;  // two records of the largest size
  SpillBuffer();                                  // throws std::system_error
  ~SpillBuffer();
  SpillBuffer(const SpillBuffer&) = delete;
  SpillBuffer& operator=(const SpillBuffer&) = delete;
  [[nodiscard]] std::byte* at(std::uint64_t offset) const { return base_ + offset % kBytes; }

 private:
  std::byte* base_ = nullptr;
};

// One writer's part of the journal. Lives as long as its directory, whether it has a store or not.
struct JournalWriter {
  WriterId id;
  ShardId shard{};
  std::uint64_t created_ns = 0;
  std::string hex;
  std::string path;  // of the directory

  // A stretch of records without a gap in ring positions.
  struct Run {
    std::uint64_t offset = 0;  // in the buffer
    RingPosition position{};
    bool restart = false;  // the checkpoint is made durable before these frames count
    journal::Published published;
  };
  static constexpr std::size_t kRuns = 64;
  static constexpr std::size_t kReadAhead = 3;  // frames

  // -- hot thread alone
  std::uint64_t append_offset = 0;
  RingPosition append_position{};
  bool run_wanted = true;  // the next record begins a new run
  bool restart_wanted = false;
  std::uint64_t woken_at = 0;  // append_offset when the writer was woken last
  journal::Published published;
  RingPosition cursor{};
  std::uint64_t read_generation = 0;
  std::uint64_t slot_taken = 0;
  bool slot_open = false;
  std::size_t slot_at = 0;
  RingPosition slot_position{};

  // -- hot thread to writer
  std::unique_ptr<SpillBuffer> buffer;
  std::array<Run, kRuns> runs;
  alignas(64) std::atomic<std::uint64_t> committed{
      0};  // release by hot, acquire by writer: records are whole
  std::atomic<std::uint64_t> flush_to{0};
  std::atomic<std::uint64_t> runs_pushed{0};  // release by hot, acquire by writer
  std::atomic<bool> has_store{false};
  // -- writer to hot and reader
  alignas(64) std::atomic<std::uint64_t> written{0};  // release by writer, acquire by hot: may be overwritten
  std::atomic<std::uint64_t> runs_popped{0};          // the same, for runs
  std::atomic<std::uint64_t> durable_frame{0};        // stored before end
  std::atomic<std::uint64_t> end{0};                  // release by writer, acquire by hot and reader
  std::atomic<std::uint64_t> durable_order{0};        // stored after end
  std::atomic<journal::CheckpointPage*> page{nullptr};
  std::atomic<bool> starved{false};  // waits for a spare segment
  std::atomic<bool> blocked{false};  // something waits for the disk; trouble() says what for
  // -- hot (the journal's threads where it is the sink) to retention and reader
  alignas(64) std::atomic<std::uint64_t> begin{0};
  std::atomic<std::uint64_t> checkpointed_begin{0};  // as it stands in the page
  // -- hot to reader
  std::atomic<std::uint64_t> seek_at{0};
  std::atomic<std::uint64_t> seek_generation{0};  // release by hot, acquire by reader; 0: never
  std::atomic<std::uint64_t> slots_taken{0};      // release by hot, acquire by reader
  // -- reader to hot
  struct Slot {
    journal::Buffer buffer;
    journal::Frame frame;
    std::uint64_t generation = 0;
    bool damaged = false;
    RingPosition resume{};
  };
  std::array<Slot, kReadAhead> slots;
  alignas(64) std::atomic<std::uint64_t> slots_filled{0};  // release by reader, acquire by hot
  // -- keeper to writer
  std::atomic<bool> drop_segment{false};  // it holds nothing that is needed

  // -- reader alone
  std::unique_ptr<journal::WriterReader> reader;
  std::uint64_t reader_generation = 0;
  std::set<std::uint64_t> told_damage;  // first frames

  // -- writer alone (keeper before ready(), and after the writer has ended)
  Fd directory;
  Fd checkpoint;
  Fd segment;
  std::string segment_name;
  std::uint64_t segment_id = 0;
  std::uint64_t segment_bytes = 0;
  std::uint64_t segment_offset = 0;
  std::uint64_t segment_durable_offset = 0;  // 0: nothing in it was acknowledged
  std::uint64_t write_offset = 0;            // in the buffer
  std::uint64_t next_frame = 1;
  RingPosition write_end{};
  std::uint64_t write_order = 0;
  bool unsynced = false;
  bool checkpoint_due = false;
  std::uint64_t retry_at_ns = 0;
  std::uint64_t retry_wait_ns = 0;

  // -- under Impl::mutex
  struct Segment {
    std::string name;
    RingPosition begin{};
    RingPosition end{};  // when sealed
    std::uint64_t bytes = 0;
    std::uint64_t first_order = 0;
    bool sealed = false;
    bool corrupt = false;  // is kept under another name when it leaves
  };
  std::vector<Segment> segments;  // by position
  std::uint64_t first_order = 0;  // of the first unpublished frame at the start

  // -- keeper alone
  std::uint64_t empty_since_ns = 0;

  ~JournalWriter();
};

struct Journal::Impl {
  struct Trouble {
    std::atomic<ErrorCode> code{ErrorCode::None};
    bool told = false;  // these under log_mutex
    ErrorCode told_code = ErrorCode::None;
    std::uint64_t told_ns = 0;
    [[nodiscard]] ErrorCode load() const { return code.load(std::memory_order_relaxed); }
  };

  Impl(JournalOptions options, Wake& wake, Logger& log);
  ~Impl();

  // writer
  void write_loop();
  bool write_frames(JournalWriter& w);
  bool write_frame(JournalWriter& w, const JournalWriter::Run& run, std::uint64_t bytes);
  bool new_segment(JournalWriter& w, const JournalWriter::Run& run, RingPosition begin, std::uint64_t need);
  bool sync(JournalWriter& w);
  bool make_checkpoint(JournalWriter& w, const journal::Published& published);
  Fd write_checkpoint(JournalWriter& w, const journal::Published& published);
  bool make_directory(JournalWriter& w);
  void fail(JournalWriter& w, const std::string& what, int error);
  void seal_segment(JournalWriter& w);

  // reader
  void read_loop();
  bool read_ahead(JournalWriter& w);

  // preallocator
  void preallocate_loop();
  bool preallocate();
  bool discard_oldest();
  [[nodiscard]] std::uint64_t segment_size();

  // keeper
  void keep_loop();
  bool open_directory();
  std::string read_identity(int dir);
  std::pair<std::shared_ptr<JournalWriter>, std::string> recover(int dir, const std::string& name);
  bool map_checkpoint(JournalWriter& w, bool anew, const journal::Published& published,
                      const journal::Durable& durable);
  void retain(JournalWriter& w, std::uint64_t now_ns);
  void remove_published(JournalWriter& w);
  void remove(const std::shared_ptr<JournalWriter>& w);
  void look_at_corrupt();

  std::vector<std::shared_ptr<JournalWriter>> list() const;
  void say(LogLevel level, const std::string& text);
  // Says it once, until it changes or is over.
  void set_trouble(Trouble& which, ErrorCode code, const std::string& text);

  JournalOptions options;
  Wake& hot;
  Logger& log;
  std::mutex log_mutex;

  Fd directory;
  Fd lock;
  std::atomic<bool> is_open{false};  // release after `directory` is set
  std::atomic<bool> is_ready{false};
  std::atomic<std::uint64_t> identity{0};
  std::atomic<bool> stop{false};

  mutable std::mutex mutex;
  std::map<WriterId, std::shared_ptr<JournalWriter>> writers;  // under mutex
  std::set<WriterId> leaving;                                  // under mutex: their files are being removed
  struct Spare {
    Fd fd;
    std::string name;
    std::uint64_t bytes = 0;
  };
  std::optional<Spare> spare;            // under mutex
  std::uint64_t spare_wanted_bytes = 0;  // under mutex: a frame that large must fit
  std::mutex remove_mutex;               // retention and discarding; before mutex
  std::atomic<std::uint64_t> list_version{1};

  std::atomic<std::uint64_t> used_bytes{0};
  std::atomic<std::uint64_t> files{0};
  std::atomic<std::uint64_t> spilled_bytes{0};
  std::atomic<std::uint64_t> replayed_bytes{0};
  std::uint64_t next_order = 1;  // writer's
  std::uint64_t spare_number = 0;
  std::uint64_t discarded = 0;
  std::uint64_t discard_told_ns = 0;

  Trouble open_trouble;
  Trouble space_trouble;
  Trouble write_trouble;
  std::atomic<bool> corrupt_there{false};

  Wake write_wake;
  Wake read_wake;
  Wake space_wake;
  Wake keep_wake;
  std::vector<std::thread> threads;
};

// Sleeps until `wake` has another value than `seen`.
void sleep_on(Wake& wake, std::uint32_t seen, std::uint64_t timeout_ns);

}  // namespace arancini::publishd
