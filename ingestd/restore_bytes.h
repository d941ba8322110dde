#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "ingestd/restore_batch.h"

// A RestoreBatch as bytes, for recordings: read by the program that wrote them, on the same machine
// architecture.
namespace arancini::ingestd {

[[nodiscard]] std::uint32_t restore_batch_bytes(const RestoreBatch& batch);
// Calls `put(span of bytes)` for each part; all together are restore_batch_bytes() long.
template <class Put>
void put_restore_batch(const RestoreBatch& batch, Put&& put);
// False: these bytes are no batch (of this program). Every number is checked against the batch, so that it
// can be applied.
[[nodiscard]] bool read_restore_batch(std::span<const std::byte> bytes, RestoreBatch& batch);

template <class Put>
void put_restore_batch(const RestoreBatch& batch, Put&& put) {
  const auto number = [&](std::size_t n) {
    const auto value = static_cast<std::uint32_t>(n);
    put(std::as_bytes(std::span(&value, 1)));
  };
  const auto all = [&](const auto& items) {
    number(items.size());
    put(std::as_bytes(std::span(items)));
  };
  all(batch.steps);
  all(batch.views);
  all(batch.attributes);
  all(batch.routes);
  all(batch.bytes);
  number(batch.routers.size());
  for (const RestoredRouter& router : batch.routers) {
    put(std::as_bytes(std::span(router.address.bytes)));
    all(router.name);
    all(router.sys_name);
    all(router.sys_descr);
  }
}

}  // namespace arancini::ingestd
