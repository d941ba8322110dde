#include "ingestd/restore_feed.h"

#include <algorithm>
#include <utility>

#include "common/wire/big_endian.h"
#include "ingestd/attribute_set.h"

namespace arancini::ingestd {

namespace {

// Nullopt: no prefix that a table of the family takes.
std::optional<Prefix> prefix_of(const schema::DecodedUpdate& u) {
  const auto address = std::as_bytes(std::span(u.prefix_address.bytes));
  Prefix p;
  p.high = wire::load_be64(address.data());
  p.low = wire::load_be64(address.data() + 8);
  p.path_id = u.path_id;
  p.length = u.prefix_length;
  if (u.family.afi == kIpv4Unicast.afi && (!u.prefix_address.is_v4() || p.length > 32)) return std::nullopt;
  return p;
}

bool same(std::span<const std::byte> a, std::span<const std::byte> b) {
  return std::ranges::equal(a, b);
}

}  // namespace

// What a snapshot says, into the feed.
class SnapshotFeed final : public snapshot::SnapshotVisitor {
 public:
  SnapshotFeed(RestoreFeed& feed, const RestoreFeed::Wanted& wanted, const RestoreFeed::Moved& moved)
      : feed_(feed), wanted_(wanted), moved_(moved) {}

  bool router(const snapshot::RouterEntry& entry) override {
    std::uint32_t number = kLeftOut;
    const bool owned = feed_.owns(entry.address);
    const bool taken = owned && wanted_(entry.address);
    if (moved_ && (taken || !owned)) moved_(entry, taken);
    if (taken) {
      if (!feed_.router({entry.address, std::string(entry.name), std::string(entry.sys_name),
                         std::string(entry.sys_descr)},
                        number))
        return false;
    }
    return keep(routers_, entry.id, number);
  }
  bool view(const snapshot::ViewEntry& entry) override {
    std::uint32_t number = kLeftOut;
    const std::uint32_t router = routers_.at(entry.router);
    if (router != kLeftOut) {
      RestoredView view{.router = router,
                        .peer_type = entry.peer_type,
                        .distinguisher = entry.distinguisher,
                        .peer = entry.address,
                        .view = entry.view,
                        .asn = entry.asn,
                        .bgp_id = entry.bgp_id,
                        .router_port = entry.router_port};
      if (!feed_.view(view, number)) return false;
    }
    return keep(views_, entry.id, number);
  }
  bool attributes(const snapshot::AttributesEntry& entry) override {
    if (entry.flags.size() != 1) {
      bad = "attributes " + std::to_string(entry.id) + " have no flags";
      return false;
    }
    RestoreBatch* batch = feed_.open();
    if (batch == nullptr) return false;
    batch->steps.push_back({.kind = RestoreBatch::Kind::Attributes,
                            .number = entry.id,
                            .index = batch->add_attributes({entry.next_hop, entry.flags, entry.attributes})});
    return true;
  }
  bool table(const snapshot::TableEntry& entry) override {
    return keep(tables_, entry.id, views_.at(entry.view));
  }
  bool routes(const snapshot::TableEntry& table, std::span<const snapshot::RouteEntry> entries) override {
    const std::uint32_t view = tables_.at(table.id);
    if (view == kLeftOut) return true;
    RestoreBatch* batch = feed_.open();
    if (batch == nullptr) return false;
    RestoreBatch::Step step{.kind = RestoreBatch::Kind::SnapshotRoutes,
                            .family = table.family,
                            .number = view,
                            .first = static_cast<std::uint32_t>(batch->routes.size()),
                            .count = static_cast<std::uint32_t>(entries.size())};
    for (const snapshot::RouteEntry& entry : entries)
      batch->routes.push_back({entry.prefix, entry.attributes, entry.paths});
    batch->steps.push_back(step);
    return true;
  }
  bool end(const snapshot::End&) override {
    RestoreBatch* batch = feed_.open();
    if (batch == nullptr) return false;
    batch->steps.push_back({.kind = RestoreBatch::Kind::ForgetAttributes});
    return true;
  }

  std::string bad;

 private:
  static constexpr std::uint32_t kLeftOut = ~0U;
  static bool keep(std::vector<std::uint32_t>& numbers, std::uint32_t id, std::uint32_t number) {
    if (numbers.size() <= id) numbers.resize(id + std::size_t{1}, kLeftOut);
    numbers[id] = number;
    return true;
  }

  RestoreFeed& feed_;
  const RestoreFeed::Wanted& wanted_;
  const RestoreFeed::Moved& moved_;
  std::vector<std::uint32_t> routers_, views_, tables_;  // by the snapshot's id
};

RestoreFeed::SnapshotRead RestoreFeed::read(snapshot::ByteSource& source, const Wanted& wanted,
                                            const Moved& moved) {
  SnapshotFeed visitor(*this, wanted, moved);
  SnapshotRead out;
  auto read = snapshot::read_snapshot(source, visitor);
  if (read) {
    out.totals = read.value();
    return out;
  }
  const snapshot::ReadError& error = read.error();
  if (error.kind != snapshot::ReadError::Kind::Stopped) {
    out.error = error;
  } else if (!visitor.bad.empty()) {
    out.error = snapshot::ReadError{snapshot::ReadError::Kind::Corrupt, error.offset_bytes, visitor.bad};
  } else {
    out.stopped = true;
  }
  return out;
}

RestoreBatch* RestoreFeed::open() {
  RestoreBatch* batch = sink_.batch();
  if (batch == nullptr || !batch->full()) return batch;
  sink_.give();
  return sink_.batch();
}

bool RestoreFeed::flush() {
  RestoreBatch* batch = sink_.batch();
  if (batch == nullptr) return false;
  if (!batch->empty()) sink_.give();
  return true;
}

bool RestoreFeed::clear() {
  RestoreBatch* batch = open();
  if (batch == nullptr) return false;
  batch->steps.push_back({.kind = Kind::ForgetAttributes});
  batch->steps.push_back({.kind = Kind::Clear});
  return true;
}

bool RestoreFeed::router(RestoredRouter router, std::uint32_t& number) {
  const auto next = static_cast<std::uint32_t>(routers_.size());
  const auto [entry, added] = routers_.try_emplace({router.address, router.name}, next);
  number = entry->second;
  // One that the log named first has no names; the same again does no harm.
  if (!added && router.sys_name.empty() && router.sys_descr.empty()) return true;
  RestoreBatch* batch = open();
  if (batch == nullptr) return false;
  batch->steps.push_back(
      {.kind = Kind::Router, .number = number, .index = static_cast<std::uint32_t>(batch->routers.size())});
  batch->routers.push_back(std::move(router));
  return true;
}

bool RestoreFeed::view(const RestoredView& view, std::uint32_t& number) {
  const auto [entry, added] =
      numbers_.try_emplace(ViewKey{view.router, view.peer_type, view.distinguisher, view.peer, view.view},
                           static_cast<std::uint32_t>(views_.size()));
  number = entry->second;
  if (added) {
    views_.push_back(view);
  } else if (views_[number] == view) {
    return true;
  }
  views_[number] = view;
  RestoreBatch* batch = open();
  if (batch == nullptr) return false;
  batch->steps.push_back(
      {.kind = Kind::View, .number = number, .index = static_cast<std::uint32_t>(batch->views.size())});
  batch->views.push_back(view);
  return true;
}

bool RestoreFeed::update(const schema::DecodedUpdate& u) {
  // Families without tables are not curated: nothing is remembered of them.
  if (!is_plain_prefix_family(u.family) || !owns(u.router)) return true;
  const std::optional<Prefix> prefix = prefix_of(u);
  if (!prefix) return true;
  ++updates_;
  RestoredView told{.router = 0,
                    .peer_type = u.peer_type,
                    .distinguisher = u.peer_distinguisher,
                    .peer = u.peer,
                    .view = u.view,
                    .asn = u.peer_asn,
                    .bgp_id = u.peer_bgp_id,
                    .router_port = u.router_port};
  std::uint32_t number = 0;
  if (!router({u.router, u.router_id, {}, {}}, told.router) || !view(told, number)) return false;
  // A path that is longer than BGP can say is kept as far as it goes: it equals nothing that a router sends.
  if (u.announced) (void)canonical_.set(u);

  RestoreBatch* batch = open();
  if (batch == nullptr) return false;
  const Kind kind = u.announced ? Kind::Announce : Kind::Withdraw;
  RestoreBatch::Step* last = batch->steps.empty() ? nullptr : &batch->steps.back();
  bool goes_on = last != nullptr && last->kind == kind && last->number == number && last->family == u.family;
  if (goes_on && u.announced) {
    const AttrKey key = batch->key(last->index);
    goes_on = same(key.next_hop, canonical_.next_hop()) && same(key.attributes, canonical_.attributes());
  }
  if (!goes_on) {
    RestoreBatch::Step step{.kind = kind,
                            .family = u.family,
                            .number = number,
                            .first = static_cast<std::uint32_t>(batch->routes.size())};
    if (u.announced) step.index = batch->add_attributes(canonical_key(canonical_));
    batch->steps.push_back(step);
    last = &batch->steps.back();
  }
  batch->routes.push_back({*prefix, 0, 0});
  ++last->count;
  return true;
}

bool RestoreFeed::payload(schema::PayloadFormat format, std::span<const std::byte> bytes,
                          std::optional<std::string>& problem) {
  bool going = true;
  problem = schema::decode_payload(format, bytes,
                                   [&](const schema::DecodedUpdate& u) { going = going && update(u); });
  return going;
}

}  // namespace arancini::ingestd
