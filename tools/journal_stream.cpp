#include "tools/journal_stream.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <thread>

#include "common/journal/journal_reader.h"
#include "common/schema/batch_expander.h"
#include "common/schema/message_headers.h"
#include "tools/aranctl.h"

namespace arancini::tools {

namespace {

constexpr std::chrono::milliseconds kPoll{100};

void say(const std::string& text) {
  fmt::print(stderr, "aranctl: {}\n", text);
}

// One record as publishd would have published it.
class JournalMessage final : public StreamMessage {
 public:
  void writer(const journal::JournalReader::Writer& writer) {
    writer_ = writer.id.to_hex();
    shard_ = std::to_string(writer.shard);
  }
  void record(const shm::RecordHeader& header, std::span<const std::byte> payload, std::uint64_t order) {
    payload_ = payload;
    order_ = order;
    first_ = std::to_string(header.first_sequence);
    last_ = std::to_string(header.first_sequence + header.count - 1);
    count_ = std::to_string(header.count);
    schema::BatchExpander batch;
    subject_ = header.kind == static_cast<std::uint8_t>(shm::RecordKind::Event) ? "events"
               : batch.open(header, payload)
                   ? fmt::format("updates.{}.{}.{}_{}", subject_token(batch.router_address()),
                                 batch.peer_asn(), batch.family().afi, batch.family().safi)
                   : "damaged";
  }
  [[nodiscard]] std::uint64_t stream_sequence() const override { return order_; }
  [[nodiscard]] std::string_view subject() const override { return subject_; }
  [[nodiscard]] std::span<const std::byte> payload() const override { return payload_; }
  [[nodiscard]] std::string_view header(const char* name) const override {
    const std::string_view n = name;
    if (n == schema::kHeaderFormat) return "batch-v2";
    if (n == schema::kHeaderWriter) return writer_;
    if (n == schema::kHeaderShard) return shard_;
    if (n == schema::kHeaderFirst) return first_;
    if (n == schema::kHeaderLast) return last_;
    if (n == schema::kHeaderCount) return count_;
    return {};
  }

 private:
  std::span<const std::byte> payload_;
  std::uint64_t order_ = 0;
  std::string writer_, shard_, first_, last_, count_, subject_;
};

class JournalStream final : public StreamReader {
 public:
  JournalStream(journal::JournalReader reader, StreamKind kind)
      : reader_(std::move(reader)),
        wanted_(kind == StreamKind::Events ? shm::RecordKind::Event : shm::RecordKind::UpdateBatch) {}

  [[nodiscard]] Result<Position, StreamError> position() override {
    reader_.look();
    Position p;
    p.last_sequence = reader_.last_order();
    p.first_sequence = reader_.beginning_gone() ? std::max<std::uint64_t>(reader_.first_order(), 2) : 1;
    return p;
  }

  // Goes on where the last call ended; `to` is kFollow or what position() said last.
  [[nodiscard]] std::optional<StreamError> read(
      std::uint64_t from, std::uint64_t to, const std::function<bool(const StreamMessage&)>& each) override {
    if (!begun_ && from > reader_.last_order()) reader_.skip_to_end();
    begun_ = true;
    reader_.stop_at_end(to != kFollow);
    using Status = journal::JournalReader::Status;
    journal::Frame frame;
    journal::JournalReader::Writer writer;
    JournalMessage message;
    for (;;) {
      switch (reader_.next(frame, writer)) {
        case Status::End:
          if (to != kFollow) return std::nullopt;
          std::this_thread::sleep_for(kPoll);
          continue;
        case Status::Damaged: {
          const auto& d = reader_.damage();
          ++damaged_;
          say(fmt::format("damaged: {}: {} frames of shard {} are lost; reading goes on behind them", d.text,
                          d.last_frame - d.first_frame + 1, writer.shard));
          continue;
        }
        case Status::Discarded:
          say(fmt::format("{} frames of shard {} were discarded by retention before they were read",
                          reader_.damage().last_frame - reader_.damage().first_frame + 1, writer.shard));
          continue;
        case Status::Frame: break;
      }
      if (frame.header.order < from) continue;
      message.writer(writer);
      // Checked with the frame: whole records, in bounds.
      for (std::size_t at = 0; at < frame.payload.size();) {
        shm::RecordHeader h;
        std::memcpy(&h, frame.payload.data() + at, sizeof h);
        if (static_cast<shm::RecordKind>(h.kind) == wanted_) {
          message.record(h, frame.payload.subspan(at + sizeof h, h.payload_bytes), frame.header.order);
          if (!each(message)) return std::nullopt;
        }
        at += h.size_bytes;
      }
    }
  }

  [[nodiscard]] std::uint64_t damaged() const override { return damaged_; }

 private:
  journal::JournalReader reader_;
  shm::RecordKind wanted_;
  bool begun_ = false;
  std::uint64_t damaged_ = 0;
};

// A copy need not have the lock file.
bool is_journal(const std::filesystem::path& directory) {
  std::error_code ec;
  if (std::filesystem::is_regular_file(directory / "lock", ec)) return true;
  for (std::filesystem::directory_iterator it(directory, ec), end; !ec && it != end; it.increment(ec)) {
    std::error_code ignored;
    if (WriterId::from_hex(it->path().filename().string()) && it->is_directory(ignored)) return true;
  }
  return false;
}

}  // namespace

Result<std::unique_ptr<StreamReader>, StreamError> open_journal_stream(const std::string& directory,
                                                                       StreamKind kind) {
  auto reader = journal::JournalReader::open(directory);
  if (!reader) return Err{StreamError{kExitNoInput, reader.error()}};
  std::error_code ec;
  if (const auto inner = std::filesystem::path(directory) / "journal";
      std::filesystem::is_directory(inner, ec)) {
    return Err{StreamError{kExitNoInput, fmt::format("{} is a state directory: name its journal, {}",
                                                     directory, inner.string())}};
  }
  if (!is_journal(directory)) {
    return Err{StreamError{
        kExitNoInput, fmt::format("{} is no journal: neither a lock file nor a writer's directory is there; "
                                  "it is the directory 'journal' in the state directory of publishd",
                                  directory)}};
  }
  return std::unique_ptr<StreamReader>(std::make_unique<JournalStream>(std::move(reader).value(), kind));
}

}  // namespace arancini::tools
