#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "common/base/result.h"
#include "common/snapshot/byte_stream.h"
#include "common/snapshot/entries.h"

// Snapshots are untrusted: every length, id and value is checked before it is given to anybody.
namespace arancini::snapshot {

// Entries as they come; what they borrow is valid during the call. False ends the reading.
class SnapshotVisitor {
 public:
  virtual ~SnapshotVisitor() = default;
  virtual bool header(const Header&) { return true; }
  virtual bool router(const RouterEntry&) { return true; }
  virtual bool view(const ViewEntry&) { return true; }
  virtual bool attributes(const AttributesEntry&) { return true; }
  virtual bool table(const TableEntry&) { return true; }
  // Some routes of one table.
  virtual bool routes(const TableEntry&, std::span<const RouteEntry>) { return true; }
  virtual bool end(const End&) { return true; }
};

struct ReadError {
  enum class Kind : std::uint8_t {
    Corrupt,       // the bytes are no whole snapshot: set it aside
    OtherVersion,  // of the format: it may be fine, for another program
    Unreadable,    // they could not be had: it may be fine
    Stopped,       // the visitor did
  } kind = Kind::Corrupt;
  std::uint64_t offset_bytes = 0;  // where it was found
  std::string text;                // what, with the place; one line for the operator
};

struct Totals {
  Header header;
  End end;
  std::uint64_t routers = 0, views = 0, attributes = 0, tables = 0, routes = 0, bytes = 0;
};

// Reads all. A block is checked as a whole before its entries are given; that nothing is missing is only
// known at the end: check_snapshot() first where that matters.
Result<Totals, ReadError> read_snapshot(ByteSource& source, SnapshotVisitor& visitor);

// That it is whole and good, without looking at what it says.
Result<Totals, ReadError> check_snapshot(ByteSource& source);

// The header only; the rest may be anything.
Result<Header, ReadError> read_header(ByteSource& source);

}  // namespace arancini::snapshot
