#include "common/wire/bgp_update.h"
#include "common/wire/big_endian.h"

namespace arancini::wire {
namespace {

constexpr std::uint32_t kMostlyHostBits = 16;
constexpr std::uint32_t kHostBits = 4;
constexpr std::uint32_t kDefaultRoutes = 4;
constexpr std::uint32_t kDefaultRouteAmongOthers = 1;
// Where both readings parse, the first byte of an id of 2^24 or above is a length that fits: that is what
// prefixes taken for ids look like, unless the router is known to use such ids.
constexpr std::uint32_t kUnseenLargeIds = 10;
constexpr std::uint32_t kNotNegotiated = 2;

// What speaks against reading the NLRI one way.
struct Reading {
  bool parses = false;
  bool large_ids = false;  // a path id of 2^24 or above: its first byte could be a prefix length
  std::uint32_t cost = 0;
};

Reading read(Bytes nlri, Family family, bool path_ids) {
  Reading r;
  const unsigned max_length = family.afi == 1 ? 32 : 128;
  std::uint32_t entries = 0;
  std::uint32_t default_routes = 0;
  std::uint32_t host_bits = 0;
  const std::byte* p = nlri.data();
  const std::byte* const end = p + nlri.size();
  while (p != end) {
    if (path_ids) {
      if (end - p < 5) return r;
      r.large_ids |= load_u8(p) != 0;
      p += 4;
    }
    const unsigned length = load_u8(p);
    const std::ptrdiff_t bytes = 1 + (length + 7) / 8;
    if (length > max_length || bytes > end - p) return r;
    p += bytes;
    ++entries;
    default_routes += length == 0;
    host_bits += (length % 8) != 0 && (load_u8(p - 1) & (0xffU >> (length % 8))) != 0;
  }
  r.parses = true;
  // Host bits are rare in real NLRI (only raw pre-policy feeds have them); in most of the entries they are no
  // accident.
  if (host_bits >= 2 && 2 * host_bits > entries)
    r.cost += kMostlyHostBits;
  else
    r.cost += kHostBits * (host_bits < 2 ? host_bits : 2);
  // A path id below 2^24 begins with a zero byte, below 2^16 with two, and each reads as a default route: of
  // those a message has one per path at most, and seldom beside others.
  if (!path_ids && default_routes > 1) r.cost += kDefaultRoutes;
  if (default_routes == 1 && entries > 1) r.cost += kDefaultRouteAmongOthers;
  return r;
}

}  // namespace

AddPathJudge::Verdict AddPathJudge::judge_by_bytes(Bytes nlri, Family family) {
  const auto verdict = [this](bool path_ids) { return Verdict{path_ids, true, path_ids != negotiated_}; };
  if (nlri.empty() || !is_plain_prefix_family(family)) return Verdict{negotiated_, true, false};

  const Reading without = read(nlri, family, false);
  // The one way is certain, without looking at the other: ids below 2^24 would have cost something here.
  if (without.parses && without.cost == 0 && !learned_.seen_large_ids) {
    learned_.any = true;
    learned_.path_ids = false;
    return verdict(false);
  }
  Reading with = read(nlri, family, true);
  if (!without.parses && !with.parses)
    return Verdict{learned_.any ? learned_.path_ids : negotiated_, false, false};
  bool path_ids = with.parses;
  if (without.parses && with.parses) {
    if (with.large_ids && !learned_.seen_large_ids) with.cost += kUnseenLargeIds;
    if (!negotiated_) with.cost += kNotNegotiated;
    if (with.cost == without.cost) return verdict(learned_.any ? learned_.path_ids : negotiated_);
    path_ids = with.cost < without.cost;
  }
  learned_.any = true;
  learned_.path_ids = path_ids;
  if (path_ids && !without.parses) learned_.seen_large_ids |= with.large_ids;
  return verdict(path_ids);
}

}  // namespace arancini::wire
