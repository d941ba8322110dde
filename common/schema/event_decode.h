#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "common/schema/event_fields.h"

// Framed Events back into values, with libcapnp's checked readers: payloads of records are untrusted.
namespace arancini::schema {

// What a publisher needs: subject and identity.
struct EventView {
  bool has_router = false;  // else it is about the collector
  IpAddress router;
  std::uint32_t peer_asn = 0;
  EventKind kind = EventKind::Unspecified;
  std::uint64_t sequence = 0;
  WriterId writer;

  [[nodiscard]] std::string_view token() const { return to_string(kind); }  // last part of the subject
};
// Nullopt: not exactly one well-formed Event. `payload` may lie anywhere, and is copied before it is looked
// at.
std::optional<EventView> event_view(std::span<const std::byte> payload) noexcept;

// All of it. Nullopt when done, else what is wrong.
std::optional<std::string> decode_event(std::span<const std::byte> payload, EventFields& out);

// By the size of the root struct, for payloads without the header Arancini-Format (files).
bool looks_like_event(std::span<const std::byte> payload);

}  // namespace arancini::schema
