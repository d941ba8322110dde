#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "common/base/types.h"
#include "common/journal/format.h"

// The slots of a checkpoint page, wherever it lies: in memory that is mapped, or read from a file.
namespace arancini::journal {

inline constexpr const char* kCheckpointName = "checkpoint";

struct Published {
  RingPosition begin{};
  std::uint64_t floor_stream_sequence = 0;
  std::uint64_t floor_created_ns = 0;
};
struct Durable {
  std::uint64_t frame = 0;  // 0: none was ever acknowledged
  RingPosition end{};
  std::uint64_t order = 0;
};

struct Checkpoint {
  WriterId writer;
  std::uint64_t writer_created_ns = 0;
  std::uint32_t shard = 0;
  std::optional<Published> published;
  std::optional<Durable> durable;
};

// A page with an identity and no slots.
void init_checkpoint(CheckpointPage& page, const WriterId& writer, std::uint64_t created_ns,
                     std::uint32_t shard);
// One writer each. Plain stores into the slot that is not in force.
void store(CheckpointPage& page, const Published& value);
void store(CheckpointPage& page, const Durable& value);
// Slots that are not intact count as not there; nullopt: the page is none of this version.
std::optional<Checkpoint> read_checkpoint(const CheckpointPage& page);
// `<directory>/checkpoint`; nullopt also when there is none or it cannot be read.
std::optional<Checkpoint> read_checkpoint(int directory);

}  // namespace arancini::journal
