#pragma once

#include "common/schema/batch_encoder.h"
#include "ingestd/peer_table.h"
#include "ingestd/shard_context.h"

namespace arancini::ingestd {

// What every record of the view has in common. Left to the caller: BMP time, port, family, via_mp, announced,
// synthetic.
inline schema::BatchMeta batch_meta(const ShardContext& context, const PeerView& view) {
  const Peer& peer = view.peer;
  schema::BatchMeta meta;
  meta.received_realtime_ns = context.realtime_ns;
  meta.router_address = peer.router->address;
  meta.router_name = peer.router->name;
  if (peer.router->entry != nullptr) meta.tags = peer.router->entry->tags;
  meta.peer_address = peer.key.address;
  meta.peer_bgp_id = view.bgp_id;
  meta.peer_asn = view.asn;
  meta.peer_type = peer.key.type;
  meta.peer_distinguisher = peer.key.distinguisher;
  meta.view = view.view;
  meta.writer = context.ring.writer_id();
  meta.router_id = peer.router->row;
  if (!view.source.made_of(meta)) view.source = schema::BatchSource(meta);
  meta.source = &view.source;
  return meta;
}

// The same for the records that a message of the view makes: kept, since it is the same for nearly all of
// them.
inline schema::BatchMeta& message_meta(const ShardContext& context, PeerView& view) {
  schema::BatchMeta& meta = view.meta;
  // Not filled yet: others may have made the source, and a view may be of AS 0 with BGP id 0.
  if (meta.source == nullptr || !view.source.made_of(meta) || meta.peer_asn != view.asn ||
      meta.peer_bgp_id != view.bgp_id) [[unlikely]]
    meta = batch_meta(context, view);
  const RouterEntry* const entry = view.peer.router->entry;
  meta.tags = entry != nullptr ? std::span<const std::string>(entry->tags) : std::span<const std::string>();
  meta.received_realtime_ns = context.realtime_ns;
  return meta;
}

}  // namespace arancini::ingestd
