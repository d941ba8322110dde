#pragma once

#include "common/schema/batch_encoder.h"
#include "common/wire/bgp_update.h"
#include "ingestd/peer_table.h"
#include "ingestd/rib_shard.h"
#include "ingestd/shard_context.h"

namespace arancini::ingestd {

// `[curation] enabled = false`: what an UPDATE says goes into the ring as it came, also what was said before
// and withdraws of what nobody announced. No table knows of it.
class Forward {
 public:
  Forward(ShardContext& context, PeerTable& peers) : context_(context), peers_(peers) {}

  // As RibShard::apply(); never NoMemory.
  RibShard::Outcome apply(PeerView& view, const NlriField& field, const wire::Attributes& attributes,
                          schema::BatchMeta& meta, Session::Progress& progress);

 private:
  ShardContext& context_;
  PeerTable& peers_;
  std::array<Prefix, kSliceRoutes> routes_;
};

}  // namespace arancini::ingestd
