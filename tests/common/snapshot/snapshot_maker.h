#pragma once

#include <cstring>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "common/snapshot/snapshot_reader.h"
#include "common/snapshot/snapshot_writer.h"

// Snapshots in memory, and what is in them as plain values.
namespace arancini::snapshot::test {

class VectorSink final : public ByteSink {
 public:
  std::string write(std::span<const std::byte> more) override {
    if (bytes.size() + more.size() > limit) return "no space left";
    bytes.insert(bytes.end(), more.begin(), more.end());
    return {};
  }
  std::vector<std::byte> bytes;
  std::size_t limit = SIZE_MAX;
};

inline std::string to_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline std::span<const std::byte> to_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

inline Prefix v4(std::uint32_t address, std::uint8_t length, std::uint32_t path_id = 0) {
  return {0, kV4MappedLow | address, path_id, length};
}

// All that a snapshot says, in a form that compares.
class Collector final : public SnapshotVisitor {
 public:
  using Attributes = std::tuple<std::string, std::string, std::string>;
  bool header(const Header& h) override {
    first = h;
    return go();
  }
  bool router(const RouterEntry& r) override {
    routers.emplace_back(r.address, std::string(r.name), std::string(r.sys_name), std::string(r.sys_descr));
    return go();
  }
  bool view(const ViewEntry& v) override {
    views.emplace_back(v.router, v.peer_type, v.view, v.distinguisher, v.address, v.told, v.asn, v.bgp_id,
                       v.router_port);
    return go();
  }
  bool attributes(const AttributesEntry& a) override {
    sets[a.id] = {to_text(a.next_hop), to_text(a.flags), to_text(a.attributes)};
    return go();
  }
  bool table(const TableEntry& t) override {
    tables.emplace_back(t.view, t.family, t.without_ids);
    return go();
  }
  bool routes(const TableEntry& t, std::span<const RouteEntry> some) override {
    for (const RouteEntry& r : some) {
      all.emplace_back(t.id, r);
      sets.at(r.attributes);  // throws if it was not there before
    }
    return go();
  }
  bool end(const End& e) override {
    last = e;
    return go();
  }
  bool go() { return calls_left-- > 0; }

  Header first;
  End last;
  std::vector<std::tuple<IpAddress, std::string, std::string, std::string>> routers;
  std::vector<std::tuple<std::uint32_t, std::uint8_t, View, std::uint64_t, IpAddress, bool, std::uint32_t,
                         std::uint32_t, std::uint16_t>>
      views;
  std::map<std::uint32_t, Attributes> sets;
  std::vector<std::tuple<std::uint32_t, Family, bool>> tables;
  std::vector<std::pair<std::uint32_t, RouteEntry>> all;
  int calls_left = 1 << 30;
};

}  // namespace arancini::snapshot::test
