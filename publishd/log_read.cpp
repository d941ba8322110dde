#include "publishd/log_read.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "common/base/fd.h"
#include "common/journal/checkpoint.h"
#include "common/journal/journal_reader.h"
#include "common/journal/writer_reader.h"
#include "common/nats/stream_reader.h"
#include "common/ring/ring_probe.h"
#include "common/schema/batch_expander.h"
#include "common/schema/message_headers.h"

namespace arancini::publishd {

namespace {

using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kPoll{50};
constexpr std::chrono::milliseconds kSay{1000};
constexpr std::chrono::milliseconds kSayFirst{400};  // publishd finds a new ring within a moment: no news
constexpr std::chrono::seconds kPatience{5};         // of one try to read the stream
constexpr std::uint64_t kIdentities = 1000;          // see Drain::log_identity()

// One call.
class LogRead {
 public:
  LogRead(const LogPlace& place, const LogRequest& request, LogSink& sink)
      : place_(place), request_(request), sink_(sink) {}

  void run() {
    if (raw(request_.ring_position) != 0 && !read_local()) return;
    if (place_.sink == SinkKind::Journal) {
      while (go_on() && !read_journal()) continue;
    } else {
      while (go_on() && !read_stream()) continue;
    }
  }

 private:
  enum class Spilled : std::uint8_t { Done, Passed, Ended };

  [[nodiscard]] bool go_on() {
    return !ended_ && !place_.stop->load(std::memory_order_relaxed) && !sink_.cancelled();
  }
  // A part was taken, or nobody wants more.
  bool sent(bool taken) {
    if (!taken) ended_ = true;
    return taken;
  }
  // Says once a second what for, and waits a moment. False always: try again.
  bool wait(const std::string& why) {
    if (const auto now = steady_clock::now(); now >= say_at_) {
      say_at_ = now + kSay;
      sent(sink_.waiting(why));
    }
    if (!ended_) std::this_thread::sleep_for(kPoll);
    return false;
  }

  // The caller's ring and that everything that may be about its routers elsewhere is in the log. Else why
  // not.
  std::string settle(std::uint64_t identity) {
    own_.reset();
    std::vector<WriterId> writers;
    std::string why;
    for (RingProbe& ring : RingProbe::all(place_.runtime_dir)) {
      writers.push_back(ring.writer_id());
      if (std::string text = waits_for(ring, identity); why.empty() && !text.empty()) why = std::move(text);
      if (ring.writer_id() == request_.writer) own_.emplace(std::move(ring));
    }
    if (!own_)
      return fmt::format("the ring of shard {} is not in {}", raw(request_.shard), place_.runtime_dir);
    if (!why.empty()) return why;
    if (place_.sink == SinkKind::Journal || place_.journal == nullptr) return {};
    if (!place_.journal->ready()) return "the journal " + place_.journal->directory() + " was not read yet";
    for (const Journal::Extent& e : place_.journal->unpublished()) {
      if (std::find(writers.begin(), writers.end(), e.writer) != writers.end()) continue;
      return fmt::format("{} bytes of a ring that is gone ({}) are in the journal and not published yet",
                         raw(e.end) - raw(e.begin), e.writer.to_hex());
    }
    return {};
  }

  // What of that ring is not in the log, and must be; empty: nothing.
  std::string waits_for(const RingProbe& ring, std::uint64_t identity) const {
    const bool own = ring.writer_id() == request_.writer;
    const bool other_layout = ring.moved_aside() || ring.shard_count() != request_.shard_count;
    if (other_layout && !own && !ring.moved_aside() && ring.writer_lives()) {
      return fmt::format("ingestd of shard {} still runs, with the routers divided among {} shards",
                         ring.shard(), ring.shard_count());
    }
    if (other_layout && own)
      return fmt::format("{} is written for {} shards, not for {}", ring.path(), ring.shard_count(),
                         request_.shard_count);
    const RingPosition needed = other_layout ? ring.tail() : ring.layout_since();
    const RingProbe::Log log = ring.log();
    if (log.identity != identity && (own || raw(needed) > 0))
      return fmt::format("nothing of {} was published into the present log yet", ring.path());
    if (log.published < needed) {
      return fmt::format(
          "{} bytes of {}, of another division of the routers, are not published yet (if publishd's "
          "log says that this ring was given up, move the file away)",
          raw(needed) - raw(log.published), ring.path());
    }
    return {};
  }

  [[nodiscard]] bool is_ours(const IpAddress& router) const {
    return owner_of(router, request_.shard_count) == request_.shard;
  }

  // ---- the stream

  // True: done, or nobody wants more.
  bool read_stream() {
    const std::uint64_t identity = place_.end->identity.load(std::memory_order_acquire);
    if (!stream_) {
      stream_ = StreamReader::make(place_.nats, place_.updates_stream, ">",
                                   {"arancini publishd log", kPatience, place_.stop});
    }
    const auto at = stream_->position();
    if (!at.ok()) return wait(at.error().text);
    if (identity == 0 || at->created_ns > identity || identity - at->created_ns >= kIdentities)
      return wait("publishd has no session with stream " + place_.updates_stream + " yet");
    if (const std::string why = settle(identity); !why.empty()) return wait(why);

    // In this order: what lies below the one is in the stream at or below the other.
    const RingProbe::Log log = own_->log();
    const std::uint64_t end = std::max(place_.end->sequence.load(std::memory_order_acquire), log.sequence);
    const auto now = stream_->position();
    if (!now.ok()) return wait(now.error().text);
    if (now->created_ns != at->created_ns || log.identity != identity ||
        place_.end->identity.load(std::memory_order_acquire) != identity) {
      return wait("stream " + place_.updates_stream + " is being replaced");
    }
    if (now->last_sequence < end) {
      return wait(fmt::format("stream {} ends at sequence {}, but {} was acked: its leader has to catch up",
                              place_.updates_stream, now->last_sequence, end));
    }
    if (!read_messages(identity, *now)) return ended_;
    switch (read_spilled(log.published)) {
      case Spilled::Passed: return false;  // it is in the stream by now
      case Spilled::Ended: return ended_;
      case Spilled::Done: break;
    }
    sent(sink_.done(position_, identity, now->last_sequence));
    return true;
  }

  // From where the caller is, to `end`. False: again, or nobody wants more.
  bool read_messages(std::uint64_t identity, const StreamReader::Position& end) {
    LogBegin b;
    b.log_identity = identity;
    b.last_sequence = end.last_sequence;
    if (read_identity_ == identity) {
      b.from_sequence = next_;  // another try, or back from the journal
    } else {
      // What was read of a log that is gone was not told in this one either.
      b.other_log = read_identity_ != 0 ||
                    (request_.log_identity != 0 &&
                     (request_.log_identity != identity || request_.log_sequence > end.last_sequence));
      b.from_sequence = b.other_log || request_.log_identity == 0 ? 1 : request_.log_sequence + 1;
    }
    b.first_sequence = std::max<std::uint64_t>(end.first_sequence, 1);
    if (!sent(sink_.begin(b))) return false;
    read_identity_ = identity;
    next_ = b.from_sequence;
    // Where retention has discarded the beginning, that was said.
    next_ = std::min(std::max(next_, b.first_sequence), end.last_sequence + 1);
    gap_look_ = end;
    if (next_ > end.last_sequence) return true;
    bool again = false;
    const auto error = stream_->read(next_, end.last_sequence, [&](const StreamMessage& m) {
      const std::uint64_t n = m.stream_sequence();
      again = n > next_ && !skipped(n, b);
      if (again) return false;
      next_ = n + 1;
      const auto router = router_of_subject(place_.subject_prefix, m.subject());
      if (router && !is_ours(*router)) return go_on();
      const std::string_view format = m.header(schema::kHeaderFormat);
      if (format.empty()) return go_on();  // not one of ours
      return sent(sink_.message(n, format, m.payload())) && go_on();
    });
    if (!go_on() || again) return false;
    if (error) return wait(error->text);
    if (next_ <= end.last_sequence && !skipped(end.last_sequence + 1, b)) return false;
    next_ = end.last_sequence + 1;
    return true;
  }

  // Messages from next_ on are not there: deleted by hand, so nobody has them, or discarded while they were
  // read.
  bool skipped(std::uint64_t to, LogBegin b) {
    if (gap_look_.first_sequence < to) {
      const auto at = stream_->position();
      if (!at.ok()) return wait(at.error().text);
      if (at->created_ns > b.log_identity || b.log_identity - at->created_ns >= kIdentities) return false;
      gap_look_ = *at;
    }
    if (gap_look_.first_sequence <= next_) return true;
    b.other_log = false;
    b.from_sequence = next_;
    b.first_sequence = std::min(gap_look_.first_sequence, to);
    return sent(sink_.begin(b));
  }

  // ---- the spill journal

  // What the caller's ring has in the journal at or behind `from`; position_ is where the ring goes on.
  Spilled read_spilled(RingPosition from) {
    position_ = from;
    if (place_.journal == nullptr) return Spilled::Done;
    const RingPosition head = own_->head();
    const auto all = place_.journal->unpublished();
    const auto extent = std::find_if(all.begin(), all.end(),
                                     [&](const Journal::Extent& e) { return e.writer == request_.writer; });
    // Nothing is there: the ring has it all, and its head follows what is published.
    if (extent == all.end()) {
      if (head <= from) return Spilled::Done;
      return wait(own_->path() + " is being released"), Spilled::Passed;
    }
    if (extent->begin > from) return Spilled::Passed;
    if (extent->end <= from) return Spilled::Done;
    const std::string path = place_.journal->directory() + "/" + request_.writer.to_hex();
    Fd directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!directory) return wait("the journal's " + path + " cannot be read"), Spilled::Ended;
    journal::WriterReader reader(std::move(directory), path);
    reader.seek(from);
    journal::Buffer buffer;
    journal::Frame frame;
    while (go_on() && position_ < extent->end) {
      journal::WriterReader::Limits limits;
      const auto checkpoint = journal::read_checkpoint(reader.directory());
      if (checkpoint && checkpoint->published) limits.begin = checkpoint->published->begin;
      if (checkpoint && checkpoint->durable) {
        limits.acknowledged = limits.last_frame = checkpoint->durable->frame;
        limits.acknowledged_end = checkpoint->durable->end;
      }
      switch (reader.next(limits, false, buffer, frame)) {
        case journal::WriterReader::Status::Discarded: return Spilled::Passed;
        case journal::WriterReader::Status::End:
          if (limits.begin > position_) return Spilled::Passed;
          return wait("the journal's " + path + " is being read"), Spilled::Passed;
        // Said by the journal itself; publishd goes on behind it as well.
        case journal::WriterReader::Status::Damaged: position_ = reader.damage().resume; continue;
        case journal::WriterReader::Status::Frame: break;
      }
      if (!send_records(request_.writer, frame, from)) return Spilled::Ended;
      position_ = std::max(position_, frame.end());
    }
    return go_on() ? Spilled::Done : Spilled::Ended;
  }

  // The updates of a frame at or behind `from` that are about the caller's routers. False: nobody wants more.
  bool send_records(const WriterId& writer, const journal::Frame& frame, RingPosition from) {
    // Checked with the frame: whole records, in bounds.
    for (std::size_t at = 0; at < frame.payload.size();) {
      shm::RecordHeader h;
      std::memcpy(&h, frame.payload.data() + at, sizeof h);
      const auto payload = frame.payload.subspan(at + sizeof h, h.payload_bytes);
      const RingPosition position = frame.begin() + at;
      at += h.size_bytes;
      if (position < from || static_cast<shm::RecordKind>(h.kind) != shm::RecordKind::UpdateBatch ||
          h.format != shm::kRecordFormat || !batch_.open(h, payload) || !is_ours(batch_.router_address())) {
        continue;
      }
      if (!sent(sink_.record(writer, position, h, payload))) return false;
    }
    return true;
  }

  // False: done, or nobody wants more. True: publishd does not hold all that follows, the log must be read.
  bool read_local() {
    while (go_on()) {
      if (place_.journal != nullptr && !place_.journal->ready()) {
        wait("the journal " + place_.journal->directory() + " was not read yet");
        continue;
      }
      own_.reset();
      for (RingProbe& ring : RingProbe::all(place_.runtime_dir)) {
        if (ring.writer_id() == request_.writer) own_.emplace(std::move(ring));
      }
      if (!own_ || place_.sink == SinkKind::Journal || own_->log().published > request_.ring_position)
        return true;
      LogBegin b;
      b.local = true;
      if (!sent(sink_.begin(b))) return false;
      switch (read_spilled(request_.ring_position)) {
        case Spilled::Passed: return true;
        case Spilled::Ended: continue;
        case Spilled::Done: break;
      }
      sent(sink_.done(position_, 0, 0));
      return false;
    }
    return false;
  }

  // ---- the journal as the log

  bool read_journal() {
    if (!place_.journal->ready())
      return wait("the journal " + place_.journal->directory() + " was not read yet");
    const std::uint64_t identity = place_.journal->identity();
    if (const std::string why = settle(identity); !why.empty()) return wait(why);
    // In this order: what lies below is in the journal by then.
    const RingPosition published = own_->log().published;
    auto opened = journal::JournalReader::open(place_.journal->directory());
    if (!opened) return wait(opened.error());
    journal::JournalReader reader = std::move(opened).value();
    reader.look();
    reader.stop_at_end(true);
    LogBegin b;
    b.log_identity = identity;
    b.last_sequence = reader.last_order();
    b.other_log = request_.log_identity != 0 &&
                  (request_.log_identity != identity || request_.log_sequence > b.last_sequence);
    b.from_sequence = b.other_log || request_.log_identity == 0 ? 1 : request_.log_sequence + 1;
    b.first_sequence = std::max<std::uint64_t>(reader.whole_from(), 1);
    if (!sent(sink_.begin(b))) return true;
    reader.skip_to(b.from_sequence);
    journal::Frame frame;
    journal::JournalReader::Writer writer;
    for (;;) {
      if (!go_on()) return true;
      switch (reader.next(frame, writer)) {
        case journal::JournalReader::Status::End:
          sent(sink_.done(published, identity, b.last_sequence));
          return true;
        case journal::JournalReader::Status::Damaged: continue;  // said by the journal itself
        case journal::JournalReader::Status::Discarded:
          // Retention was faster: what is left is read again, and what is not is said.
          return false;
        case journal::JournalReader::Status::Frame: break;
      }
      if (frame.header.order >= b.from_sequence && !send_records(writer.id, frame, RingPosition{0}))
        return true;
    }
  }

  const LogPlace& place_;
  const LogRequest& request_;
  LogSink& sink_;
  bool ended_ = false;
  steady_clock::time_point say_at_ = steady_clock::now() + kSayFirst;
  std::optional<RingProbe> own_;
  std::unique_ptr<StreamReader> stream_;
  std::uint64_t read_identity_ = 0;  // of the log that next_ is about; 0: nothing was read yet
  std::uint64_t next_ = 1;           // stream sequence
  StreamReader::Position gap_look_;  // when it was last asked for
  RingPosition position_{};
  schema::BatchExpander batch_;
};

}  // namespace

std::optional<IpAddress> router_of_subject(std::string_view prefix, std::string_view subject) {
  constexpr std::string_view kUpdates = ".updates.";
  if (!subject.starts_with(prefix) || !subject.substr(prefix.size()).starts_with(kUpdates))
    return std::nullopt;
  const std::string_view rest = subject.substr(prefix.size() + kUpdates.size());
  return address_of_token(rest.substr(0, rest.find('.')));
}

void read_log(const LogPlace& place, const LogRequest& request, LogSink& sink) {
  LogRead(place, request, sink).run();
}

}  // namespace arancini::publishd
