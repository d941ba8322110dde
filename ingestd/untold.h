#pragma once

#include <cstdint>

#include "common/base/types.h"
#include "ingestd/peer_table.h"
#include "ingestd/shard_context.h"

// What downstream was not told for want of room in the ring: `ring.when_full = "drop-newest"`
// (docs/decisions/0008-drop-newest.md).
//
// A table's `routes` say what the router has, always. Its `untold` has an entry for each prefix of which
// downstream knows something else; so what was told is `routes` without the dirty ones, and the told ones of
// `untold`. Flags of an entry:
//   kRouteTold  downstream knows the prefix, with the entry's `attr` (a reference is held); else it does not.
//   kRouteGone  the prefix is not in `routes`; always with kRouteTold. Its `generation` is the Reason.
// A route with kRouteDirty has an entry, and kRouteTold if its entry has.
//
// What is told was told under PeerView::told_asn. If that is not the view's AS number, all routes of the view
// are dirty, since the number only changes while there are none.
namespace arancini::ingestd {

class Untold {
 public:
  Untold(ShardContext& context, PeerTable& peers) : context_(context), peers_(peers) {}

  enum class Outcome : std::uint8_t {
    Tell,      // write it: downstream does not know
    Suppress,  // downstream knows, or an earlier change that it was not told says the same
    Dropped,   // remembered: the reconciler will tell
    NoMemory,  // cannot be remembered: nothing has changed
  };
  // For a route that is announced with `attr`, which is told like `alias` (or None): `route` is its state
  // before, zero if `is_new`. `telling`:
  // there is room for it. Sets kRouteTold and kRouteDirty in `flags`.
  Outcome announce(RibTable& table, const Prefix& prefix, const RouteState& route, bool is_new, AttrId attr,
                   AttrId alias, bool telling, std::uint8_t& flags);
  // For a route that is about to leave `routes`. Suppress: it was never told.
  Outcome withdraw(RibTable& table, const Prefix& prefix, const RouteState& route, bool telling,
                   Reason reason);

  // For the reconciler. The entry's prefix is told as it is now: the entry goes, `route` (if there is one) is
  // clean.
  void settle(RibTable& table, const Prefix& prefix, RouteState& entry, RouteState* route);
  // The withdraw of an entry's prefix is told, while `route` is there.
  void withdrawn(RibTable& table, RouteState& entry, RouteState& route);

  // Tables that have entries, or had some; in the order in which they got the first.
  [[nodiscard]] std::vector<RibTable*>& tables() { return tables_; }

  // Downstream knows the view's routes under the AS number that it has now.
  static bool same_identity(const PeerView& view) { return view.told_asn == view.asn; }

 private:
  static RouteState* find(RibTable& table, const Prefix& prefix) {
    return table.untold.size() == 0 ? nullptr : table.untold.find(prefix);
  }
  RouteState* note(RibTable& table, const Prefix& prefix, bool told, AttrId attr);
  void set_gone(RibTable& table, RouteState& entry, bool gone);
  void erase(RibTable& table, const Prefix& prefix, RouteState& entry);
  // Calls f(UntoldCounts&) for the view's, the router's and the shard's.
  template <class F>
  void count(RibTable& table, F&& f);

  ShardContext& context_;
  PeerTable& peers_;
  std::vector<RibTable*> tables_;
};

}  // namespace arancini::ingestd
