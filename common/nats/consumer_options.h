#pragma once

#include <nats/nats.h>

#include <cstdint>
#include <string>

namespace arancini {

// For those that read a stream and take note of what they have themselves: a pull consumer from a sequence on
// that wants no acks, is in one server's memory, and goes 30 s after its reader has died. Borrows `stream`.
inline jsSubOptions consumer_options(const std::string& stream, std::uint64_t from) {
  jsSubOptions options;
  jsSubOptions_Init(&options);
  options.Stream = stream.c_str();
  options.Config.AckPolicy = js_AckNone;
  options.Config.DeliverPolicy = js_DeliverByStartSequence;
  options.Config.OptStartSeq = from;
  options.Config.MemoryStorage = true;
  options.Config.Replicas = 1;
  options.Config.InactiveThreshold = 30'000'000'000;
  return options;
}

}  // namespace arancini
