#include "common/journal/checkpoint.h"

#include <fcntl.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "common/base/fd.h"
#include "common/journal/crc32c.h"
#include "common/journal/segment.h"

namespace arancini::journal {

namespace {

template <class Slot>
bool intact(const Slot& slot) {
  return slot.counter != 0 && slot.crc == crc_of_struct(slot, &Slot::crc);
}

// The intact slot with the higher counter, -1 if there is none.
template <class Sector>
int in_force(const Sector (&sectors)[2]) {
  const bool a = intact(sectors[0].slot);
  const bool b = intact(sectors[1].slot);
  if (a && b) return sectors[1].slot.counter > sectors[0].slot.counter ? 1 : 0;
  return a ? 0 : b ? 1 : -1;
}

template <class Sector, class Slot>
void store_slot(Sector (&sectors)[2], Slot value) {
  const int now = in_force(sectors);
  value.counter = now < 0 ? 1 : sectors[now].slot.counter + 1;
  value.crc = crc_of_struct(value, &Slot::crc);
  // Whoever reads the page after a kill in here finds a slot whose checksum is wrong, and takes the other
  // one.
  std::atomic_signal_fence(std::memory_order_seq_cst);
  sectors[now == 0 ? 1 : 0].slot = value;
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

}  // namespace

void init_checkpoint(CheckpointPage& page, const WriterId& writer, std::uint64_t created_ns,
                     std::uint32_t shard) {
  page = {};
  CheckpointIdentity& id = page.identity;
  id.magic = kCheckpointMagic;
  id.version = kVersion;
  id.layout_hash = kLayoutHash;
  std::copy(writer.bytes.begin(), writer.bytes.end(), std::begin(id.writer_id));
  id.writer_created_ns = created_ns;
  id.shard = shard;
  id.crc = crc_of_struct(id, &CheckpointIdentity::crc);
}

void store(CheckpointPage& page, const Published& v) {
  store_slot(page.published,
             PublishedSlot{0, raw(v.begin), v.floor_stream_sequence, v.floor_created_ns, 0, 0});
}

void store(CheckpointPage& page, const Durable& v) {
  store_slot(page.durable, DurableSlot{0, v.frame, raw(v.end), v.order, 0, 0});
}

std::optional<Checkpoint> read_checkpoint(const CheckpointPage& page) {
  const CheckpointIdentity& id = page.identity;
  if (id.magic != kCheckpointMagic || id.version != kVersion || id.layout_hash != kLayoutHash ||
      id.crc != crc_of_struct(id, &CheckpointIdentity::crc)) {
    return std::nullopt;
  }
  Checkpoint c;
  std::copy_n(std::begin(id.writer_id), c.writer.bytes.size(), c.writer.bytes.begin());
  c.writer_created_ns = id.writer_created_ns;
  c.shard = id.shard;
  if (const int i = in_force(page.published); i >= 0) {
    const PublishedSlot& s = page.published[i].slot;
    c.published = Published{RingPosition{s.begin}, s.floor_stream_sequence, s.floor_created_ns};
  }
  if (const int i = in_force(page.durable); i >= 0) {
    const DurableSlot& s = page.durable[i].slot;
    c.durable = Durable{s.frame, RingPosition{s.end}, s.order};
  }
  return c;
}

std::optional<Checkpoint> read_checkpoint(int directory) {
  const Fd fd(
      ::openat(directory, kCheckpointName, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!fd) return std::nullopt;
  CheckpointPage page;
  if (read_at(fd.get(), std::as_writable_bytes(std::span(&page, 1)), 0) != sizeof page) return std::nullopt;
  return read_checkpoint(page);
}

}  // namespace arancini::journal
