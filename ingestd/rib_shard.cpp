#include "ingestd/rib_shard.h"

#include <algorithm>
#include <cstring>

#include "common/metrics/metric_list.h"
#include "ingestd/attribute_set.h"

namespace arancini::ingestd {

namespace {

// How far ahead the table is prefetched, in routes.
constexpr std::uint32_t kPrefetch = 8;

bool is_mp(std::uint8_t type) {
  return type == static_cast<std::uint8_t>(wire::AttrType::MpReach) ||
         type == static_cast<std::uint8_t>(wire::AttrType::MpUnreach);
}

}  // namespace

wire::Bytes RibShard::without_mp(wire::Bytes all) {
  // Nearly always MP_REACH stands first or last, or not at all: then what remains is contiguous.
  wire::Bytes rest = all;
  wire::RawAttribute attribute;
  wire::Bytes run;
  std::size_t copied = 0;
  bool split = false;
  while (wire::next_attribute(rest, attribute)) {
    if (is_mp(attribute.type)) continue;
    if (!split && (run.empty() || run.data() + run.size() == attribute.whole.data())) {
      run = {run.empty() ? attribute.whole.data() : run.data(), run.size() + attribute.whole.size()};
      continue;
    }
    if (!split) {
      split = true;
      std::memcpy(scratch_.data(), run.data(), run.size());
      copied = run.size();
    }
    std::memcpy(scratch_.data() + copied, attribute.whole.data(), attribute.whole.size());
    copied += attribute.whole.size();
  }
  return split ? wire::Bytes(scratch_.data(), copied) : run;
}

AttrId RibShard::alias_of(const wire::Attributes& attributes, const IpAddress& next_hop, bool via_mp) {
  if (context_.attributes.canonical_sets() == 0) [[likely]]
    return AttrId::None;
  if (!canonical_.set(attributes, next_hop, via_mp)) return AttrId::None;
  const AttrId alias = context_.attributes.find(canonical_key(canonical_));
  if (alias != AttrId::None) context_.attributes.ref(alias);
  return alias;
}

void RibShard::announce(RibTable& table, const Announced& attr, bool path_ids, SliceWriter& writer,
                        Slice& slice) {
  const std::uint16_t generation = table.generations.current();
  for (; slice.applied < slice.routes; ++slice.applied) {
    if (slice.applied + kPrefetch < slice.routes)
      table.routes.prefetch(slice.hashes[slice.applied + kPrefetch]);
    const Prefix& prefix = slice.prefixes[slice.applied];
    const std::uint64_t hash = slice.hashes[slice.applied];
    const auto [route, is_new] = table.routes.insert(prefix, hash);
    if (route == nullptr) return;
    if (is_new && slice.added >= slice.may_add) [[unlikely]] {
      table.routes.erase(*route, hash);
      ++slice.skipped;
      continue;
    }
    const std::uint8_t paths = is_new || route->generation != generation ? 0 : paths_of(*route);
    bool known = false;
    route->flags = static_cast<std::uint8_t>(kRouteTold |
                                             (path_ids ? 0 : std::min<int>(paths + 1, kMaxPaths) * kOnePath));
    if (!is_new) {
      table.generations.refreshed(route->generation);
      route->generation = generation;
      if (route->attr == attr.id) {
        ++slice.duplicates;
        continue;
      }
      known = route->attr == attr.alias;
      context_.attributes.unref(route->attr);
    } else {
      route->generation = generation;
      ++slice.added;
    }
    context_.attributes.ref(attr.id);
    route->attr = attr.id;
    if (known) [[unlikely]] {
      ++slice.duplicates;
    } else {
      writer.add(prefix);
    }
  }
}

void RibShard::announce_untold(RibTable& table, const Announced& attr, bool path_ids, SliceWriter* writer,
                               Slice& slice) {
  const std::uint16_t generation = table.generations.current();
  for (; slice.applied < slice.routes; ++slice.applied) {
    const Prefix& prefix = slice.prefixes[slice.applied];
    const std::uint64_t hash = slice.hashes[slice.applied];
    const auto [route, is_new] = table.routes.insert(prefix, hash);
    if (route == nullptr) return;
    if (is_new && slice.added >= slice.may_add) [[unlikely]] {
      table.routes.erase(*route, hash);
      ++slice.skipped;
      continue;
    }
    const std::uint8_t paths = is_new || route->generation != generation ? 0 : paths_of(*route);
    std::uint8_t flags = 0;
    const Untold::Outcome outcome =
        untold_.announce(table, prefix, *route, is_new, attr.id, attr.alias, writer != nullptr, flags);
    switch (outcome) {
      case Untold::Outcome::Tell: writer->add(prefix); break;
      case Untold::Outcome::Suppress: ++slice.duplicates; break;
      case Untold::Outcome::Dropped: ++slice.dropped; break;
      case Untold::Outcome::NoMemory:
        if (is_new) table.routes.erase(*route, hash);
        return;
    }
    route->flags =
        static_cast<std::uint8_t>(flags | (path_ids ? 0 : std::min<int>(paths + 1, kMaxPaths) * kOnePath));
    if (is_new) {
      ++slice.added;
    } else {
      table.generations.refreshed(route->generation);
    }
    route->generation = generation;
    if (!is_new && route->attr == attr.id) continue;
    if (!is_new) context_.attributes.unref(route->attr);
    context_.attributes.ref(attr.id);
    route->attr = attr.id;
  }
}

bool RibShard::erase(RibTable& table, const Prefix& prefix, std::uint64_t hash, RouteState& route,
                     SliceWriter* writer, Slice& slice) {
  if (slice.plain) [[likely]] {
    writer->add(prefix);
  } else {
    switch (untold_.withdraw(table, prefix, route, writer != nullptr, Reason::None)) {
      case Untold::Outcome::Tell: writer->add(prefix); break;
      case Untold::Outcome::Suppress: ++slice.unknown; break;
      case Untold::Outcome::Dropped: ++slice.dropped; break;
      case Untold::Outcome::NoMemory: return false;
    }
  }
  table.generations.erased(route.generation);
  context_.attributes.unref(route.attr);
  table.routes.erase(route, hash);
  ++slice.erased;
  return true;
}

RibShard::Erased RibShard::erase_without_id(RibTable& table, Prefix prefix, SliceWriter* writer,
                                            Slice& slice) {
  prefix.path_id = 0;
  const std::uint64_t hash = table.routes.hash(prefix);
  RouteState* route = table.routes.find(prefix, hash);
  if (route == nullptr || paths_of(*route) == 0) return Erased::NotThere;
  if (paths_of(*route) == 1)
    return erase(table, prefix, hash, *route, writer, slice) ? Erased::Yes : Erased::NoMemory;
  route->flags = static_cast<std::uint8_t>(route->flags - kOnePath);
  return Erased::Yes;
}

void RibShard::supersede(RibTable& table, SliceWriter* writer, Slice& slice) {
  for (; slice.applied < slice.routes; ++slice.applied) {
    const Prefix& prefix = slice.prefixes[slice.applied];
    const RouteState* route = table.routes.find(prefix, slice.hashes[slice.applied]);
    if (route != nullptr && route->generation == table.generations.current()) continue;
    if (erase_without_id(table, prefix, writer, slice) == Erased::NoMemory) return;
  }
}

void RibShard::withdraw(RibTable& table, bool path_ids, SliceWriter* writer, Slice& slice) {
  const bool mixed = path_ids && table.without_ids;
  for (; slice.applied < slice.routes; ++slice.applied) {
    if (slice.applied + kPrefetch < slice.routes)
      table.routes.prefetch(slice.hashes[slice.applied + kPrefetch]);
    const Prefix& prefix = slice.prefixes[slice.applied];
    const std::uint64_t hash = slice.hashes[slice.applied];
    RouteState* route = table.routes.find(prefix, hash);
    // One that waits for its sweep is not what is meant, but goes as well.
    const bool known = route != nullptr && (!mixed || route->generation == table.generations.current());
    if (route != nullptr && !erase(table, prefix, hash, *route, writer, slice)) return;
    Erased erased = Erased::NotThere;
    if (mixed && !known) erased = erase_without_id(table, prefix, writer, slice);
    if (erased == Erased::NoMemory) return;
    if (route == nullptr && erased == Erased::NotThere) ++slice.unknown;
  }
}

void RibShard::read(const RibTable& table, wire::PrefixReader& reader, std::uint32_t most, Slice& slice) {
  slice.prefixes = routes_.data();
  slice.hashes = hashes_.data();
  while (slice.routes < most && reader.next(routes_[slice.routes])) {
    const std::uint64_t hash = table.routes.hash(routes_[slice.routes]);
    if (slice.routes < kPrefetch) table.routes.prefetch(hash);
    hashes_[slice.routes++] = hash;
  }
}

void RibShard::count(RibTable& table, const Slice& slice, std::uint32_t written, bool announced) {
  PeerView& view = table.view;
  Router& router = *view.peer.router;
  StatsWriter& stats = context_.stats;
  if (written > 0) {
    stats.add(announced ? IngestMetric::UpdatesAnnounced : IngestMetric::UpdatesWithdrawn, written);
    stats.add(IngestMetric::RingRecords);
  }
  if (slice.duplicates > 0) stats.add(IngestMetric::UpdatesSuppressedDuplicate, slice.duplicates);
  if (slice.unknown > 0) stats.add(IngestMetric::UpdatesSuppressedUnknown, slice.unknown);
  if (slice.dropped > 0) [[unlikely]]
    drop_report_.note(router, announced ? slice.dropped : 0, announced ? 0 : slice.dropped);
  if (slice.skipped > 0) [[unlikely]]
    limits_.routes_skipped(router, slice.skipped);
  const std::uint32_t suppressed = slice.duplicates + slice.unknown;
  view.published += written;
  view.suppressed += suppressed;
  view.routes += slice.added;
  view.routes -= slice.erased;
  router.published += written;
  router.suppressed += suppressed;
  router.routes += slice.added;
  router.routes -= slice.erased;
  context_.routes += slice.added;
  context_.routes -= slice.erased;
  peers_.touch(view);
}

RibShard::Outcome RibShard::apply(RibTable& table, const NlriField& field, const wire::Attributes& attributes,
                                  schema::BatchMeta& meta, Session::Progress& progress, bool tell,
                                  const KnownMessage* known) {
  // Of this field, as it is read now, with nothing of it applied yet.
  const bool looked_up = known != nullptr && known->table == &table && known->epoch == peers_.epoch() &&
                         known->nlri.data() == field.nlri.data() && known->path_ids == progress.path_ids &&
                         progress.offset_bytes == 0;
  meta.family = field.family;
  meta.via_mp = field.via_mp;
  meta.announced = field.announced;
  schema::BatchAttributes batch;
  if (field.announced) {
    batch.attributes = &attributes;
    // Loc-RIB: a next hop of length 0 in MP_REACH, the real one, if any, in NEXT_HOP.
    batch.next_hop = wire::next_hop_address(field.next_hop.empty() ? attributes.next_hop : field.next_hop);
  }
  SliceWriter writer(context_.ring, meta, batch);
  // Where both forms of a route may be there, one withdraw may become two.
  const unsigned twice = !field.announced && progress.path_ids && table.without_ids ? 1 : 0;
  const std::uint32_t limit = writer.max_routes() >> twice;
  if (limit == 0) return Outcome::TooLarge;

  // Holds a reference of its own, so that the id stays what it is while the slices run.
  Announced attr;
  if (field.announced) {
    const AnnouncedKey key(field.family, field.via_mp, field.next_hop, attributes,
                           attributes.mp_inside ? without_mp(attributes.all) : attributes.but_mp);
    const std::uint32_t tag =
        looked_up && known->announced ? known->tag : context_.attributes.tag_of(key.parts());
    attr.id = context_.attributes.find_or_insert(key.parts(), tag).id;
    if (attr.id == AttrId::None) return Outcome::NoMemory;
    attr.alias = alias_of(attributes, batch.next_hop, field.via_mp);
  }

  Outcome outcome = Outcome::Done;
  while (outcome == Outcome::Done && progress.offset_bytes < field.nlri.size()) {
    const wire::Bytes rest = field.nlri.subspan(progress.offset_bytes);
    wire::PrefixReader reader(rest, field.family, progress.path_ids);
    Slice slice;
    const bool all_known = looked_up && progress.offset_bytes == 0 && known->routes <= limit;
    if (all_known) [[likely]] {
      slice.prefixes = known->prefixes.data();
      slice.hashes = known->hashes.data();
      slice.routes = known->routes;
    } else {
      read(table, reader, limit, slice);
    }
    if (slice.routes == 0) {
      outcome = Outcome::Malformed;
      break;
    }
    if (field.announced && progress.path_ids && table.without_ids && progress.superseded < slice.routes) {
      schema::BatchMeta withdrawal = meta;
      withdrawal.announced = false;
      const schema::BatchAttributes none;
      SliceWriter withdraws(context_.ring, withdrawal, none);
      const bool told = tell && withdraws.reserve(slice.routes);
      if (!told && !context_.drop_newest) {
        outcome = Outcome::NoRoom;
        break;
      }
      Slice superseded;
      superseded.prefixes = slice.prefixes;
      superseded.hashes = slice.hashes;
      superseded.routes = slice.routes;
      superseded.applied = progress.superseded;
      superseded.plain = told && !table.has_untold;
      supersede(table, told ? &withdraws : nullptr, superseded);
      count(table, superseded, told ? withdraws.commit() : 0, false);
      progress.superseded = superseded.applied;
      if (superseded.applied < superseded.routes) {
        outcome = Outcome::NoMemory;
        break;
      }
    }
    const bool told = tell && writer.reserve(slice.routes << twice);
    if (!told && !context_.drop_newest) {
      outcome = Outcome::NoRoom;
      break;
    }
    if (tell && !told) [[unlikely]]
      context_.stats.add(IngestMetric::RingFullEvents);
    slice.plain = told && !table.has_untold;
    if (field.announced) {
      const Router& router = *table.view.peer.router;
      slice.may_add = router.limit.routes - std::min(router.limit.routes, router.routes);
      table.without_ids |= !progress.path_ids;
      if (slice.plain) [[likely]] {
        announce(table, attr, progress.path_ids, writer, slice);
      } else {
        announce_untold(table, attr, progress.path_ids, told ? &writer : nullptr, slice);
      }
    } else {
      withdraw(table, progress.path_ids, told ? &writer : nullptr, slice);
    }
    progress.superseded -= std::min(progress.superseded, slice.applied);
    count(table, slice, told ? writer.commit() : 0, field.announced);
    if (slice.applied == slice.routes) {
      progress.offset_bytes += static_cast<std::uint32_t>(all_known ? rest.size() : reader.offset());
    } else {
      wire::PrefixReader again(rest, field.family, progress.path_ids);
      for (std::uint32_t i = 0; i < slice.applied; ++i) (void)again.next(routes_[i]);
      progress.offset_bytes += static_cast<std::uint32_t>(again.offset());
      outcome = Outcome::NoMemory;
    }
  }
  if (attr.id != AttrId::None) context_.attributes.unref(attr.id);
  if (attr.alias != AttrId::None) context_.attributes.unref(attr.alias);
  return outcome;
}

}  // namespace arancini::ingestd
