#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/base/config.h"
#include "common/base/types.h"
#include "publishd/ack_window.h"
#include "publishd/subject.h"

// Updates of one ring and one subject on their way into one message. No NATS, no clock and no ring in here.
namespace arancini::publishd {

struct Group {
  std::uint32_t ring = 0;
  SubjectId subject{};
  std::uint32_t lane = 0;  // within the ring
  PublishFormat format = PublishFormat::UpdateV1Concat;
  Sequence first{};
  Sequence last{};
  std::uint32_t count = 0;
  HoldId hold{};
  RingPosition end{};  // of the last record it has a part of
  std::uint64_t opened_ns = 0;
  std::size_t source_at = 0;  // batch-v2: of the last batch in the payload that has its source

  [[nodiscard]] std::span<const std::byte> payload() const { return {buffer.get(), bytes}; }

  std::size_t bytes = 0;
  std::size_t capacity = 0;
  std::unique_ptr<std::byte[]> buffer;
  Group* previous = nullptr;  // of the same ring, opened before
  Group* next = nullptr;
};

// The open groups: at most one per (ring, subject), per ring in the order in which they were opened.
class GroupTable {
 public:
  GroupTable() = default;
  GroupTable(const GroupTable&) = delete;
  GroupTable& operator=(const GroupTable&) = delete;
  ~GroupTable();

  [[nodiscard]] Group* find(std::uint32_t ring, SubjectId subject) const;
  // There must be none for that ring and subject.
  Group& open(std::uint32_t ring, SubjectId subject);
  // `bytes` more at the end of the group's payload, to be written by the caller.
  std::byte* extend(Group& group, std::size_t bytes);
  void close(Group& group);
  void close_all();

  [[nodiscard]] Group* oldest(std::uint32_t ring) const;
  [[nodiscard]] std::size_t open_groups() const { return open_groups_; }
  [[nodiscard]] std::size_t open_bytes() const { return open_bytes_; }

 private:
  struct PerRing {
    std::vector<Group*> by_subject;
    Group* oldest = nullptr;
    Group* newest = nullptr;
  };
  std::vector<PerRing> rings_;
  std::vector<std::unique_ptr<Group>> spare_;  // with their buffers
  std::size_t open_groups_ = 0;
  std::size_t open_bytes_ = 0;
};

}  // namespace arancini::publishd
