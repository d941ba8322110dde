#pragma once

#include <cstdint>

#include "ingestd/peer_table.h"
#include "ingestd/shard_context.h"

// Barriers in the ring (docs/decisions/0002, 0006): what was written before about a router is published
// before what follows.
namespace arancini::ingestd {

class Barriers {
 public:
  Barriers(ShardContext& context, PeerTable& peers) : context_(context), peers_(peers) {}

  // Call before anything of the view is told: subjects name the AS number, and order holds within a subject,
  // so between records under two numbers stands a barrier. Nothing may be told under the former number any
  // more. False: no room for it yet.
  [[nodiscard]] bool separate_identities(PeerView& view);

 private:
  [[nodiscard]] bool append(std::uint32_t router_row);

  ShardContext& context_;
  PeerTable& peers_;
};

}  // namespace arancini::ingestd
