#include "common/schema/as_path.h"

#include "common/schema/bytes.h"

namespace arancini::schema {

namespace {

constexpr std::uint32_t kAsTrans = 23456;

// The segment at the start of `rest`, which is advanced.
bool take_segment(wire::Bytes& rest, bool wide, PathSegment& out) {
  while (rest.size() >= 2) {
    const auto count = static_cast<std::uint8_t>(rest[1]);
    const std::size_t bytes = 2 + std::size_t{count} * (wide ? 4 : 2);
    if (bytes > rest.size()) break;
    out.type = static_cast<std::uint8_t>(rest[0]);
    out.count = count;
    out.wide = wide;
    out.members = rest.data() + 2;
    rest = rest.subspan(bytes);
    if (count != 0) return true;
  }
  rest = {};
  return false;
}

bool is_confed(std::uint8_t type) {
  return type == static_cast<std::uint8_t>(SegmentType::ConfedSequence) ||
         type == static_cast<std::uint8_t>(SegmentType::ConfedSet);
}

// How many ASes a segment counts for: a set is one (RFC 4271 9.1.2.2), confederations none (RFC 5065 5.3).
std::uint32_t hops(const PathSegment& s) {
  if (is_confed(s.type)) return 0;
  return s.type == static_cast<std::uint8_t>(SegmentType::Sequence) ? s.count : 1;
}

std::uint32_t path_length(wire::Bytes path, bool wide) {
  std::uint32_t n = 0;
  PathSegment s;
  while (take_segment(path, wide, s)) n += hops(s);
  return n;
}

// An AGGREGATOR that is not AS_TRANS voids AS4_PATH and AS4_AGGREGATOR that came with it.
bool as4_voided(const wire::Attributes& a) {
  return !a.aggregator.empty() && !a.as4_aggregator.empty() && a.aggregator.size() == 6 &&
         load_be16(a.aggregator.data()) != kAsTrans;
}

}  // namespace

std::uint32_t PathSegment::member(std::uint32_t i) const {
  return wide ? load_be32(members + std::size_t{i} * 4) : load_be16(members + std::size_t{i} * 2);
}

AsPathWalk::AsPathWalk(const wire::Attributes& attributes)
    : path_(attributes.as_path), wide_(!attributes.as2) {
  // AS4_PATH from a speaker of 4-byte AS numbers is discarded (RFC 6793 4.1).
  if (!attributes.as2 || attributes.as4_path.empty() || as4_voided(attributes)) return;
  const std::uint32_t old_length = path_length(path_, false);
  const std::uint32_t new_length = path_length(attributes.as4_path, true);
  if (new_length == 0 || old_length < new_length) return;  // nothing there, or AS4_PATH SHALL be ignored
  merge_ = true;
  as4_path_ = attributes.as4_path;
  leading_ = old_length - new_length;
}

bool AsPathWalk::next(PathSegment& out) {
  if (!merge_) return take_segment(path_, wide_, out);
  if (!path_.empty() && take_segment(path_, wide_, out)) {
    // Confederation segments are prepended when they lead or are adjacent to a prepended segment.
    if (is_confed(out.type)) return true;
    if (leading_ > 0) {
      const std::uint32_t n = hops(out);
      if (n > leading_) {
        out.count = static_cast<std::uint8_t>(leading_);
        leading_ = 0;
        path_ = {};
      } else {
        leading_ -= n;
      }
      return true;
    }
    path_ = {};
  }
  return next_of_as4_path(out);
}

bool AsPathWalk::next_of_as4_path(PathSegment& out) {
  while (take_segment(as4_path_, true, out)) {
    if (!is_confed(out.type)) return true;  // confederation segments there are discarded (RFC 6793 6)
  }
  return false;
}

Aggregator aggregator_of(const wire::Attributes& attributes) {
  const wire::Bytes a = attributes.aggregator;
  Aggregator out;
  if (a.size() == 8) {
    out = {load_be32(a.data()), load_be32(a.data() + 4)};
  } else if (a.size() == 6) {
    out = {load_be16(a.data()), load_be32(a.data() + 2)};
    const wire::Bytes a4 = attributes.as4_aggregator;
    if (out.asn == kAsTrans && a4.size() == 8) out = {load_be32(a4.data()), load_be32(a4.data() + 4)};
  }
  return out;
}

}  // namespace arancini::schema
