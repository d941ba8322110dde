#include "common/journal/journal_reader.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

#include "common/journal/checkpoint.h"

namespace arancini::journal {

namespace {

// Fresh: what is acknowledged grows while we read.
WriterReader::Limits limits_of(const WriterReader& reader) {
  WriterReader::Limits limits;
  const auto checkpoint = read_checkpoint(reader.directory());
  if (checkpoint && checkpoint->published) limits.begin = checkpoint->published->begin;
  if (checkpoint && checkpoint->durable) {
    limits.acknowledged = checkpoint->durable->frame;
    limits.acknowledged_end = checkpoint->durable->end;
  }
  return limits;
}

std::uint64_t acknowledged_order(const WriterReader& reader) {
  const auto checkpoint = read_checkpoint(reader.directory());
  return checkpoint && checkpoint->durable ? checkpoint->durable->order : 0;
}

}  // namespace

Result<JournalReader, std::string> JournalReader::open(const std::string& directory) {
  Fd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return Err{fmt::format("journal {}: {}", directory, std::strerror(errno))};
  JournalReader reader(std::move(fd), directory);
  reader.discover();
  return reader;
}

void JournalReader::discover() {
  const int fd = ::openat(directory_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::fdopendir(fd), ::closedir);
  while (const dirent* entry = ::readdir(dir.get())) {
    const auto id = WriterId::from_hex(entry->d_name);
    if (!id || sources_.contains(*id)) continue;
    Fd sub(::openat(directory_.get(), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!sub) continue;
    auto source = std::make_unique<Source>();
    source->writer.id = *id;
    if (const auto checkpoint = read_checkpoint(sub.get())) {
      source->writer.shard = checkpoint->shard;
      source->writer.created_ns = checkpoint->writer_created_ns;
    }
    source->reader = std::make_unique<WriterReader>(std::move(sub), path_ + "/" + entry->d_name);
    sources_.emplace(*id, std::move(source));
  }
}

void JournalReader::look() {
  discover();
  first_order_ = 0;
  Frame frame;
  for (auto& [id, s] : sources_) {
    WriterReader ahead(Fd(::openat(s->reader->directory(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)), path_);
    // The headers of the last segment alone: everything lies before this position.
    ahead.seek(RingPosition{std::numeric_limits<std::uint64_t>::max()});
    const WriterReader::Limits limits = limits_of(ahead);
    while (ahead.next(limits, false, s->buffer_ahead, frame) != WriterReader::Status::End) continue;
    const FrameHeader& last = ahead.last_seen();
    s->known_at_look = true;
    s->last_frame = std::max({s->last_frame, last.frame, limits.acknowledged});
    s->end = std::max({s->end, RingPosition{last.begin + last.payload_bytes}, limits.acknowledged_end});
    last_order_ = std::max(last_order_, last.order);
    const auto& segments = ahead.segments();
    const auto first =
        std::find_if(segments.begin(), segments.end(), [](const auto& g) { return g.header.has_value(); });
    s->parts.clear();
    for (const auto& g : segments) {
      if (g.header) s->parts.push_back({g.header->first_order, g.begin});
    }
    if (first == segments.end()) {
      beginning_gone_ = beginning_gone_ || limits.acknowledged > 0;
      whole_from_ = std::max(whole_from_, limits.acknowledged > 0 ? acknowledged_order(ahead) + 1 : 0);
      continue;
    }
    if (first->header->first_frame > 1) {
      beginning_gone_ = true;
      whole_from_ = std::max(whole_from_, first->header->first_order);
    }
    if (first_order_ == 0 || first->header->first_order < first_order_)
      first_order_ = first->header->first_order;
  }
}

void JournalReader::skip_to(std::uint64_t order) {
  for (auto& [id, s] : sources_) {
    const auto behind = std::find_if(s->parts.begin(), s->parts.end(),
                                     [&](const Source::Part& p) { return p.first_order > order; });
    if (behind != s->parts.begin() && !s->parts.empty()) s->reader->seek(std::prev(behind)->begin);
  }
}

void JournalReader::skip_to_end() {
  for (auto& [id, s] : sources_) s->reader->seek(s->end);
}

JournalReader::Status JournalReader::fill(Source& s) {
  if (s.has_frame) return Status::Frame;
  if (bounded_ && !s.known_at_look) return Status::End;
  WriterReader::Limits limits = limits_of(*s.reader);
  if (bounded_) limits.last_frame = s.last_frame;
  switch (s.reader->next(limits, false, s.buffer, s.frame)) {
    case WriterReader::Status::End: return Status::End;
    case WriterReader::Status::Damaged: damage_ = s.reader->damage(); return Status::Damaged;
    case WriterReader::Status::Discarded: damage_ = s.reader->damage(); return Status::Discarded;
    case WriterReader::Status::Frame: break;
  }
  if (s.reader->file() != nullptr) {
    s.writer.shard = s.reader->file()->header().shard;
    s.writer.created_ns = s.reader->file()->header().writer_created_ns;
  }
  s.has_frame = true;
  return Status::Frame;
}

JournalReader::Status JournalReader::next(Frame& out, Writer& writer) {
  if (given_ != nullptr) given_->has_frame = false;
  given_ = nullptr;
  Source* best = nullptr;
  for (int round = 0; round < 2; ++round) {
    best = nullptr;
    for (auto& [id, s] : sources_) {
      const Status status = fill(*s);
      if (status == Status::End) continue;
      writer = s->writer;
      if (status != Status::Frame) return status;
      if (best == nullptr || s->frame.header.order < best->frame.header.order) best = s.get();
    }
    // Frames are written one after the other: what precedes one that was seen is there by now, perhaps in a
    // writer that was looked at before, or in a new one.
    if (best != nullptr && best->frame.header.order == given_order_ + 1) break;
    discover();
  }
  if (best == nullptr) return Status::End;
  given_ = best;
  given_order_ = best->frame.header.order;
  out = best->frame;
  writer = best->writer;
  return Status::Frame;
}

}  // namespace arancini::journal
