#include "tools/bmp_load.h"

#include <fmt/format.h>

#include <set>

namespace arancini::tools {

namespace {

// SplitMix64: small, fast, the same everywhere.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }
  std::uint32_t below(std::uint64_t n) { return static_cast<std::uint32_t>(next() % n); }
  bool percent(std::uint32_t p) { return below(100) < p; }

 private:
  std::uint64_t state_;
};

// Share of each length in an Internet table, in percent; the first entry takes the rest.
struct LengthShare {
  std::uint8_t length;
  std::uint32_t percent;
};
constexpr LengthShare kV4Lengths[] = {{24, 60}, {23, 10}, {22, 12}, {21, 5}, {20, 5},
                                      {19, 3},  {18, 2},  {17, 1},  {16, 2}};
constexpr LengthShare kV6Lengths[] = {{48, 50}, {32, 14}, {44, 12}, {40, 9}, {36, 5},
                                      {29, 3},  {46, 3},  {47, 2},  {42, 2}};

template <std::size_t N>
std::uint8_t pick_length(const LengthShare (&shares)[N], Random& random) {
  std::uint32_t roll = random.below(100);
  for (const LengthShare& s : shares) {
    if (roll < s.percent) return s.length;
    roll -= s.percent;
  }
  return shares[0].length;
}

constexpr std::uint32_t kLocalAsn = 64500;
constexpr std::uint64_t kTimeNs = 1'700'000'000'000'000'000U;

std::uint64_t seed_of(const LoadOptions& options, std::uint32_t router) {
  return options.seed * 1'000'003 + router;
}

}  // namespace

LoadTable make_load_table(const LoadOptions& options) {
  Random random(options.seed * 7919);
  std::set<Prefix> seen;
  LoadTable table;
  table.prefixes.reserve(options.prefixes);
  while (table.prefixes.size() < options.prefixes) {
    const bool v6 = random.percent(options.v6_percent);
    Prefix p;
    if (v6) {
      p.length = pick_length(kV6Lengths, random);
      p.high = 0x2000000000000000ULL | (random.next() >> 3);
      p.high &= ~std::uint64_t{0} << (64 - p.length);
    } else {
      p.length = pick_length(kV4Lengths, random);
      const std::uint64_t address = (std::uint64_t{1 + random.below(223)} << 24) | (random.next() & 0xffffff);
      p.low = kV4MappedLow | (address & (0xffffffffULL << (32 - p.length)) & 0xffffffffULL);
    }
    if (!seen.insert(p).second) continue;
    table.prefixes.push_back(p);
    table.families.push_back(v6 ? kIpv6Unicast : kIpv4Unicast);
  }
  return table;
}

// A pure function, so nothing needs to be kept.
PathAttributes load_attributes(const LoadOptions& options, std::uint32_t router, std::uint32_t id,
                               std::uint32_t peer_asn, Family family) {
  Random random(seed_of(options, router) ^ (std::uint64_t{options.version} << 40) ^
                (std::uint64_t{id} * 0xd6e8feb86659fd93ULL));
  PathAttributes a;
  a.origin = random.percent(90) ? 0 : 2;
  a.as_path.push_back(peer_asn);
  const std::uint32_t hops = 1 + random.below(5);
  for (std::uint32_t i = 0; i < hops; ++i) a.as_path.push_back(1000 + random.below(400000));
  a.next_hop = family == kIpv4Unicast ? IpAddress::from_v4(0x0a000000U + (peer_asn & 0xffff))
                                      : IpAddress::parse("2001:db8::1").value();
  if (random.percent(40)) a.med = 1 + random.below(1000);
  const std::uint32_t communities = random.below(6);
  for (std::uint32_t i = 0; i < communities; ++i) {
    a.communities.push_back((std::uint32_t{1 + random.below(64000)} << 16) | random.below(65536));
  }
  return a;
}

PeerIdentity load_peer(std::uint32_t router, std::uint32_t peer) {
  PeerIdentity p;
  p.address = IpAddress::from_v4(0x0a000000U + (router % 250 << 16) + peer + 1);
  p.asn = 65001 + peer;
  p.bgp_id = p.address.v4();
  return p;
}

LoadSession make_load_session(const LoadOptions& options, const LoadTable& table, std::uint32_t router) {
  LoadSession s;
  Random random(seed_of(options, router));
  append_initiation(s.bytes, fmt::format("bmpgen-{}", router), "Arancini bmpgen");
  s.messages = 1;
  std::uint32_t next_attribute = 0;
  std::vector<Prefix> nlri;
  for (std::uint32_t p = 0; p < options.peers; ++p) {
    const PeerIdentity peer = load_peer(router, p);
    append_peer_up(s.bytes, peer, kTimeNs, kLocalAsn, 0xc0000201U);
    PeerTable told(table.prefixes.size(), kNothingTold);
    for (std::size_t i = 0; i < table.prefixes.size();) {
      const Family family = table.families[i];
      const std::uint32_t want = 1 + random.below(options.nlri_per_update);
      const std::uint32_t id = next_attribute > 0 && random.percent(100 - options.new_attributes_percent)
                                   ? random.below(next_attribute)
                                   : next_attribute++;
      nlri.clear();
      for (; i < table.prefixes.size() && nlri.size() < want && table.families[i] == family; ++i) {
        nlri.push_back(table.prefixes[i]);
        told[i] = id + 1;
      }
      append_announce(s.bytes, peer, kTimeNs, family, load_attributes(options, router, id, peer.asn, family),
                      nlri);
      s.updates += nlri.size();
      ++s.messages;
    }
    append_end_of_rib(s.bytes, peer, kTimeNs, kIpv4Unicast);
    append_end_of_rib(s.bytes, peer, kTimeNs, kIpv6Unicast);
    s.messages += 3;
    s.tables.push_back(std::move(told));
  }
  s.dump_bytes = s.bytes.size();
  s.dump_updates = s.updates;
  for (std::uint64_t c = 0; c < options.churn && !table.prefixes.empty(); ++c) {
    const std::uint32_t p = random.below(options.peers);
    const std::uint32_t i = random.below(table.prefixes.size());
    const PeerIdentity peer = load_peer(router, p);
    const std::uint64_t when = kTimeNs + c * 1000;
    nlri.assign(1, table.prefixes[i]);
    std::uint32_t& told = s.tables[p][i];
    if (told != kNothingTold && random.percent(options.withdraw_percent)) {
      append_withdraw(s.bytes, peer, when, table.families[i], nlri);
      told = kNothingTold;
    } else {
      const std::uint32_t id = next_attribute++;
      append_announce(s.bytes, peer, when, table.families[i],
                      load_attributes(options, router, id, peer.asn, table.families[i]), nlri);
      told = id + 1;
    }
    ++s.updates;
    ++s.messages;
  }
  if (options.terminate) {
    append_termination(s.bytes, 0);
    ++s.messages;
  }
  return s;
}

}  // namespace arancini::tools
