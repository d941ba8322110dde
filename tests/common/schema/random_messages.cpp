#include "tests/common/schema/random_messages.h"

#include <algorithm>

namespace arancini::schema::test {

namespace {

std::uint64_t below(Random& r, std::uint64_t n) {
  return r() % n;
}
bool chance(Random& r, unsigned percent) {
  return below(r, 100) < percent;
}

IpAddress random_address(Random& r) {
  if (chance(r, 60)) return IpAddress::from_v4(static_cast<std::uint32_t>(r()));
  IpAddress a;
  for (auto& b : a.bytes) b = static_cast<std::uint8_t>(r());
  return a;
}

std::vector<std::byte> random_bytes(Random& r, std::size_t n) {
  std::vector<std::byte> out(n);
  for (auto& b : out) b = static_cast<std::byte>(r());
  return out;
}

std::vector<std::byte> random_path(Random& r, bool wide) {
  std::vector<std::byte> out;
  const std::uint64_t segments = chance(r, 10) ? 0 : 1 + (chance(r, 25) ? below(r, 6) : 0);
  for (std::uint64_t s = 0; s < segments; ++s) {
    const auto type = chance(r, 75) ? std::uint64_t{2} : 1 + below(r, 4);
    const auto count = chance(r, 3) ? 255 : chance(r, 5) ? 0 : 1 + below(r, 8);
    out.push_back(static_cast<std::byte>(type));
    out.push_back(static_cast<std::byte>(count));
    for (std::uint64_t i = 0; i < count * (wide ? 4 : 2); ++i) out.push_back(static_cast<std::byte>(r()));
  }
  return out;
}

Prefix random_route(Random& r, Family family) {
  Prefix p;
  if (family.afi == 1) {
    p.length = static_cast<std::uint8_t>(below(r, 33));
    const auto address = p.length == 0 ? 0U : static_cast<std::uint32_t>(r()) << (32 - p.length);
    p.low = kV4MappedLow | address;
  } else {
    p.length = static_cast<std::uint8_t>(below(r, 129));
    p.high = r();
    p.low = r();
    if (p.length < 64) {
      p.low = 0;
      p.high = p.length == 0 ? 0 : p.high >> (64 - p.length) << (64 - p.length);
    } else if (p.length < 128) {
      p.low = p.length == 64 ? 0 : p.low >> (128 - p.length) << (128 - p.length);
    }
  }
  if (chance(r, 30)) p.path_id = static_cast<std::uint32_t>(r());
  return p;
}

}  // namespace

RandomMessage::RandomMessage(Random& random) {
  Random& r = random;
  meta_.received_realtime_ns = r();
  meta_.bmp_timestamp_ns = chance(r, 80) ? r() : 0;
  meta_.router_address = random_address(r);
  meta_.router_port = static_cast<std::uint16_t>(r());
  name_.resize(chance(r, 50) ? 0 : 1 + below(r, 40), 'r');
  meta_.router_name = name_;
  if (chance(r, 30)) {
    for (std::uint64_t i = 1 + below(r, 5); i > 0; --i)
      tags_.emplace_back(static_cast<std::size_t>(1 + below(r, 20)), static_cast<char>('a' + i));
    meta_.tags = tags_;
  }
  meta_.peer_address = random_address(r);
  meta_.peer_bgp_id = static_cast<std::uint32_t>(r());
  meta_.peer_asn = static_cast<std::uint32_t>(r());
  meta_.peer_type = static_cast<std::uint8_t>(below(r, 4));
  meta_.peer_distinguisher = chance(r, 70) ? 0 : r();
  meta_.view = static_cast<View>(below(r, kViewCount));
  meta_.family =
      Family{static_cast<std::uint16_t>(1 + below(r, 2)), static_cast<std::uint8_t>(1 + below(r, 2))};
  meta_.via_mp = meta_.family != kIpv4Unicast || chance(r, 30);
  meta_.announced = chance(r, 70);
  meta_.synthetic = chance(r, 20);
  meta_.reason = meta_.synthetic ? static_cast<Reason>(1 + below(r, 7)) : Reason::None;
  for (auto& b : meta_.writer.bytes) b = static_cast<std::uint8_t>(r());
  meta_.router_id = static_cast<std::uint32_t>(r());
  first_sequence_ = Sequence{1 + (r() >> 2)};
  if (meta_.announced) {
    make_attributes(r);
    if (chance(r, 90)) next_hop_ = random_address(r);
  }
  const std::uint64_t routes = chance(r, 5) ? 200 + below(r, 800) : 1 + below(r, 12);
  for (std::uint64_t i = 0; i < routes; ++i) routes_.push_back(random_route(r, meta_.family));
}

void RandomMessage::make_attributes(Random& r) {
  struct Planned {
    std::uint8_t type;
    std::vector<std::byte> value;
    wire::Bytes wire::Attributes::*span;  // nullptr: no field
  };
  using A = wire::Attributes;
  std::vector<Planned> plan;
  attributes_.as2 = chance(r, 30);
  const auto add = [&](unsigned percent, std::uint8_t type, wire::Bytes A::*span,
                       std::vector<std::byte> value) {
    if (chance(r, percent)) plan.push_back({type, std::move(value), span});
  };
  const std::size_t many = chance(r, 5) ? 200 : 10;
  add(95, 1, &A::origin, {static_cast<std::byte>(below(r, chance(r, 5) ? 256 : 3))});
  add(95, 2, &A::as_path, random_path(r, !attributes_.as2));
  add(60, 3, &A::next_hop, random_bytes(r, 4));
  add(50, 4, &A::med, random_bytes(r, 4));
  add(50, 5, &A::local_pref, random_bytes(r, 4));
  add(10, 6, nullptr, {});
  std::vector<std::byte> aggregator = random_bytes(r, attributes_.as2 ? 6 : 8);
  if (attributes_.as2 && chance(r, 60)) {
    aggregator[0] = std::byte{0x5b};  // AS_TRANS
    aggregator[1] = std::byte{0xa0};
  }
  add(25, 7, &A::aggregator, std::move(aggregator));
  add(50, 8, &A::communities, random_bytes(r, 4 * below(r, many)));
  add(15, 9, &A::originator_id, random_bytes(r, 4));
  add(15, 10, &A::cluster_list, random_bytes(r, 4 * below(r, 5)));
  add(40, 16, &A::extended_communities, random_bytes(r, 8 * below(r, many)));
  add(attributes_.as2 ? 60 : 5, 17, &A::as4_path, random_path(r, true));
  add(attributes_.as2 ? 30 : 5, 18, &A::as4_aggregator, random_bytes(r, 8));
  add(40, 32, &A::large_communities, random_bytes(r, 12 * below(r, many)));
  add(10, 35, &A::only_to_customer, random_bytes(r, 4));
  for (const std::uint8_t type : std::initializer_list<std::uint8_t>{26, 29, 40, 63, 128, 200, 255}) {
    add(6, type, nullptr, random_bytes(r, chance(r, 10) ? 300 + below(r, 500) : below(r, 40)));
  }
  std::shuffle(plan.begin(), plan.end(), r);

  std::vector<std::size_t> value_at;
  for (const Planned& p : plan) {
    const bool extended = p.value.size() > 255 || chance(r, 10);
    field_.push_back(static_cast<std::byte>(0x40 | (extended ? 0x10 : 0)));
    field_.push_back(static_cast<std::byte>(p.type));
    if (extended) field_.push_back(static_cast<std::byte>(p.value.size() >> 8));
    field_.push_back(static_cast<std::byte>(p.value.size()));
    value_at.push_back(field_.size());
    field_.insert(field_.end(), p.value.begin(), p.value.end());
  }
  attributes_.all = field_;
  for (std::size_t i = 0; i < plan.size(); ++i) {
    const Planned& p = plan[i];
    if (p.type < 64) attributes_.present |= std::uint64_t{1} << p.type;
    if (p.span != nullptr) {
      attributes_.*p.span = attributes_.all.subspan(value_at[i], p.value.size());
    } else if (p.type != 6) {
      attributes_.has_other = true;
    }
  }
}

EncodedRecord encode(const BatchMeta& meta, const BatchAttributes& attributes,
                     const std::vector<Prefix>& routes, Sequence first_sequence) {
  EncodedRecord record;
  const auto count = static_cast<std::uint32_t>(routes.size());
  record.claimed_bytes = max_record_bytes(meta, attributes, count);
  record.memory.assign(record.claimed_bytes / 8, 0xa5a5a5a5a5a5a5a5U);
  BatchEncoder encoder(std::as_writable_bytes(std::span(record.memory)), meta, attributes, first_sequence,
                       count);
  for (const Prefix& p : routes) encoder.add(p);
  record.header = encoder.finish();
  return record;
}

}  // namespace arancini::schema::test
