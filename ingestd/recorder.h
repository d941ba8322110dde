#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/result.h"
#include "common/recording/entries.h"
#include "common/ring/ring_writer.h"
#include "ingestd/shard_witness.h"

namespace arancini::ingestd {

// Writes down what a shard is given and what it learns (common/recording/entries.h), so that a replay writes
// the same ring records. The hot thread copies into a bounded queue, a thread of its own writes the file.
// Data never waits for it: when the queue is full, or the file cannot be written, the recording ends with an
// error line, and everything before that is in the file.
//
// Give it to the shard as its clock and witness, and to the ring writer as its witness; calls come from
// RecordingSink.
class Recorder final : public Clock, public RingWriter::Witness, public ShardWitness {
 public:
  static constexpr std::size_t kQueueBytes = 64U << 20;

  // Makes `path`, or where that is there `path`.1, .2, …; never touches an older recording. All borrowed. The
  // error is one line. `queue_bytes` is a power of two. Begins with the construction of the shard: call end()
  // behind it.
  static Result<std::unique_ptr<Recorder>, std::string> create(const std::string& path,
                                                               const recording::Start& start,
                                                               const Clock& clock, Logger& log,
                                                               std::size_t queue_bytes = kQueueBytes);
  ~Recorder() override;  // writes what is queued and the end mark

  [[nodiscard]] const std::string& path() const { return path_; }
  // False once it has ended.
  [[nodiscard]] bool running() const { return running_; }

  // Hot thread: a call begins, put() its fields; what the shard learns follows; end() or published().
  void begin(recording::Entry call);
  template <class T>
  requires std::is_trivially_copyable_v<T>
  void put(T number) { put_bytes(std::as_bytes(std::span(&number, 1))); }
  void put_bytes(std::span<const std::byte> bytes);
  void end(std::uint32_t result = 0);
  // Publish has been done: what `ring` made visible by it.
  void published(const RingWriter& ring);
  // Hot thread: nothing that comes now can be replayed; `why` is told.
  void give_up(std::string_view why);

  // Clock: times() is recorded within a call.
  [[nodiscard]] std::uint64_t realtime_ns() const override { return clock_.realtime_ns(); }
  [[nodiscard]] std::uint64_t boottime_ns() const override { return clock_.boottime_ns(); }
  [[nodiscard]] Times times() const override;
  std::uint64_t saw(Field field, std::uint64_t value) noexcept override;

  void dump_asked(const IpAddress* router) noexcept override;
  void reloaded() noexcept override;
  void restoring(bool restoring) noexcept override;
  void restore_batch(const RestoreBatch& batch) noexcept override;
  void adopted(std::span<const std::byte> restart_state) noexcept override;
  void restore_end(std::span<const schema::EventFields> events, bool complete) noexcept override;

 private:
  Recorder(std::string path, Fd file, const Clock& clock, Logger& log, std::size_t queue_bytes);
  void stop_recording(std::string_view why);
  void write_loop();
  bool write_block(recording::BlockKind kind, std::span<const std::byte> bytes);

  const std::string path_;
  const Fd file_;
  const Clock& clock_;
  Logger& log_;
  const std::size_t capacity_;
  const std::unique_ptr<std::byte[]> queue_;

  // Hot thread.
  bool running_ = true;
  bool in_call_ = false;
  bool overflow_ = false;  // in this call
  std::uint64_t at_ = 0;   // end of what is put
  std::uint64_t drained_seen_ = 0;
  std::uint64_t last_head_ = 0;
  RingPosition published_{};
  std::string why_;  // it ended; read by the thread after stop_

  alignas(64) std::atomic<std::uint64_t> committed_{
      0};  // end of the last whole call; release by the hot thread
  alignas(64) std::atomic<std::uint64_t> drained_{0};  // release by the thread
  std::atomic<int> error_{0};                          // errno of the thread
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// What the records of a ring are compared by: header and payload, without padding.
std::uint32_t record_crc(const shm::RecordHeader& header, std::span<const std::byte> payload,
                         std::uint32_t before);

}  // namespace arancini::ingestd
