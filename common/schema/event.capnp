@0x932a8bbb765a12e2;

# The wire contract of events (docs/stream.md): what happened to routers, sessions, peers and tables beside the updates.
# One framed Event a message, on <prefix>.events.<router>.<peerAsn>.<kind>. Ordinals, types and meaning stay; new fields,
# kinds and scopes are only appended. Absent numbers are 0, absent texts and lists empty.

using Cxx = import "/capnp/c++.capnp";
using import "update.capnp".View;
using import "update.capnp".Reason;
$Cxx.namespace("arancini::schema");

struct Event @0xfdb2ef0f7ebfdbe9 {
  writerId @0 :Data;              # 16 bytes: the ring instance, as in Update
  sequence @1 :UInt64;            # of the event: dense within writerId, from 1, apart from that of updates
  timeNs @2 :UInt64;              # CLOCK_REALTIME at the collector
  kind @3 :Kind;
  scope @4 :Scope;                # what it is about, and so which of the fields below say something

  routerAddr @5 :Data;            # 16 bytes, IPv4 mapped into IPv6; empty: about the collector
  routerId @6 :Text;              # configured name; empty: the address is the name
  routerPort @7 :UInt16;          # of the session
  peerAddr @8 :Data;              # 16 bytes
  peerAsn @9 :UInt32;
  peerBgpId @10 :UInt32;
  peerType @11 :UInt8;            # RFC 7854 4.2
  peerDistinguisher @12 :UInt64;
  view @13 :View;
  afi @14 :UInt16;
  safi @15 :UInt8;

  reason @16 :Reason;             # as in the updates that go with it
  reasonCode @17 :UInt32;         # of the protocol: Peer Down (RFC 7854 4.9), Termination (4.5)
  errorCode @18 :UInt32;          # of the collector: common/base/error.h
  text @19 :Text;                 # one line for a human
  counters @20 :List(Counter);    # names as docs/stream.md lists them for each kind
  details @21 :List(Detail);
  sinceNs @22 :UInt64;            # CLOCK_REALTIME: what the event tells about began then,
  untilNs @23 :UInt64;            # and ended then
  lastUpdateSequence @24 :UInt64; # updates of the same writer up to this one were written before the event
  raw @25 :Data;                  # the BMP message that says so, as received

  struct Counter {
    name @0 :Text;
    value @1 :UInt64;
  }

  struct Detail {
    name @0 :Text;
    value @1 :Text;
  }

  enum Scope {
    collector @0;
    router @1;
    session @2;                   # router and routerPort
    peer @3;                      # peerAddr, peerAsn, peerBgpId, peerType, peerDistinguisher
    view @4;                      # and view
    table @5;                     # and afi, safi
  }

  # In brackets: the last part of the subject.
  enum Kind {
    unspecified @0;
    sessionUp @1;                 # [session_up] a router has connected
    sessionDown @2;               # [session_down] the connection is gone
    sessionSuperseded @3;         # [session_superseded] a newer session of the router tells what this one told
    initiation @4;                # [initiation] sysName and sysDescr are details
    termination @5;               # [termination]
    peerUp @6;                    # [peer_up]
    peerDown @7;                  # [peer_down]
    statistics @8;                # [statistics] RFC 7854 4.8
    syncStart @9;                 # [sync_start] the router is telling a table (anew)
    syncEnd @10;                  # [sync_end] it is told; what was missing is withdrawn
    dropped @11;                  # [dropped] changes that were not told for want of room; they will be
    reconciled @12;               # [reconciled] all that was dropped is told
    streamEpoch @13;              # [stream_epoch] the stream was created anew or has gone back
    retentionGap @14;             # [retention_gap] the stream no longer holds what is needed to fold it
    dumpStart @15;                # [dump_start] the table dump of a router begins
    dumpEnd @16;                  # [dump_end]
    limit @17;                    # [limit] something is refused or skipped: errorCode says what
    released @18;                 # [released] a shard has given the router away
    acquired @19;                 # [acquired] a shard has taken the router over
  }
}
