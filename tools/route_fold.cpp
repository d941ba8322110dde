#include "tools/route_fold.h"

#include <algorithm>
#include <cstring>

namespace arancini::tools {

namespace {

using schema::DecodedUpdate;

class Blob {
 public:
  explicit Blob(std::string& out) : out_(out) { out_.clear(); }
  template <class T>
  requires std::is_integral_v<T>
  void put(T v) {
    char bytes[sizeof v];
    std::memcpy(bytes, &v, sizeof v);
    out_.append(bytes, sizeof v);
  }
  template <class Range, class Each>
  void list(const Range& range, Each each) {
    put(range.size());
    for (const auto& v : range) each(v);
  }
  void numbers(const auto& range) {
    list(range, [this](auto v) { put(v); });
  }
  void address(const IpAddress& a) {
    for (const std::uint8_t b : a.bytes) put(b);
  }

 private:
  std::string& out_;
};

// All that a route says beside its key: equal strings, equal routes.
void attributes_blob(const DecodedUpdate& u, std::string& out) {
  Blob b(out);
  b.address(u.router);
  b.put(u.router_port);
  b.put(u.peer_asn);
  b.put(u.peer_bgp_id);
  b.put(u.attributes_present);
  b.numbers(u.origin);
  b.numbers(u.as_path);
  b.list(u.as_segments, [&](const auto& s) {
    b.put(s.type);
    b.numbers(s.members);
  });
  b.address(u.next_hop);
  b.put(u.med);
  b.put(u.local_pref);
  b.put(u.only_to_customer);
  b.put(u.aggregator_asn);
  b.put(u.aggregator_bgp_id);
  b.put(u.originator_id);
  b.put(u.atomic_aggregate);
  b.list(u.communities, [&](const auto& c) {
    b.put(c.asn);
    b.put(c.value);
  });
  b.list(u.large_communities, [&](const auto& c) {
    b.put(c.global);
    b.put(c.data1);
    b.put(c.data2);
  });
  b.list(u.ext_communities, [&](const auto& c) { b.numbers(c); });
  b.numbers(u.cluster_list);
  b.numbers(u.raw_attributes);
}

}  // namespace

std::size_t RouteFold::SlotHash::operator()(const Slot& s) const noexcept {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  std::memcpy(&high, s.prefix.bytes.data(), 8);
  std::memcpy(&low, s.prefix.bytes.data() + 8, 8);
  const auto mix = [](std::uint64_t h, std::uint64_t v) {
    h = (h ^ v) * 0x9fb21c651e98df25U;
    return h ^ (h >> 32);
  };
  const std::uint64_t rest =
      (std::uint64_t{s.table} << 32) ^ (std::uint64_t{s.path_id} << 8) ^ s.prefix_length;
  return mix(mix(mix(0x2545f4914f6cdd1dU, high), low), rest);
}

std::uint32_t RouteFold::table_of(const DecodedUpdate& u) {
  const auto source = [](auto& d) {
    return std::tie(d.router_id, d.router, d.peer, d.peer_distinguisher, d.peer_type, d.view, d.family);
  };
  if (!tables_.empty() && source(u) == source(recent_update_)) return recent_table_;
  source(recent_update_) = source(u);
  RouteKey k = route_key(u);
  const TableKey key{std::move(k.router), k.peer, k.peer_distinguisher, k.peer_type, k.view, k.family};
  recent_table_ = tables_.try_emplace(key, static_cast<std::uint32_t>(tables_.size())).first->second;
  return recent_table_;
}

RouteFold::Shared RouteFold::intern(const DecodedUpdate& u) {
  std::string blob;
  attributes_blob(u, blob);
  // The updates of one message mostly share their attributes.
  if (recent_ != nullptr && blob == recent_attributes_) return recent_;
  // Churn leaves attributes behind that no route uses any more.
  if (attributes_.size() > 2 * routes_.size() + 100'000) {
    std::erase_if(attributes_, [](const auto& entry) { return entry.second.use_count() == 1; });
  }
  Shared& shared = attributes_[blob];
  if (shared == nullptr) shared = std::make_shared<const DecodedUpdate>(u);
  recent_attributes_ = std::move(blob);
  recent_ = shared;
  return shared;
}

void RouteFold::apply(const DecodedUpdate& u) {
  const Slot slot{table_of(u), u.path_id, u.prefix_address, u.prefix_length};
  if (u.announced) {
    routes_[slot] = intern(u);
  } else {
    routes_.erase(slot);
  }
}

void RouteFold::for_each(const std::function<void(const DecodedUpdate&)>& each) const {
  std::vector<const TableKey*> tables(tables_.size());
  std::vector<std::uint32_t> rank(tables_.size());
  std::uint32_t position = 0;
  for (const auto& [key, id] : tables_) {
    tables[id] = &key;
    rank[id] = position++;
  }
  std::vector<const std::pair<const Slot, Shared>*> sorted;
  sorted.reserve(routes_.size());
  for (const auto& route : routes_) sorted.push_back(&route);
  std::sort(sorted.begin(), sorted.end(), [&](const auto* a, const auto* b) {
    const auto key = [&](const Slot& s) {
      return std::tie(rank[s.table], s.prefix, s.prefix_length, s.path_id);
    };
    return key(a->first) < key(b->first);
  });
  for (const auto* entry : sorted) {
    const auto& [slot, shared] = *entry;
    DecodedUpdate route = *shared;
    std::string router;
    std::tie(router, route.peer, route.peer_distinguisher, route.peer_type, route.view, route.family) =
        *tables[slot.table];
    // The name goes where the key took it from.
    const auto space = router.find(' ');
    if (const auto address = IpAddress::parse(router.substr(0, space))) route.router = *address;
    route.router_id = space == std::string::npos ? std::string() : router.substr(space + 1);
    route.prefix_address = slot.prefix;
    route.prefix_length = slot.prefix_length;
    route.path_id = slot.path_id;
    each(route);
  }
}

}  // namespace arancini::tools
