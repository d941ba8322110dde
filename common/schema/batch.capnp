@0xc7084ec86ad6f5c6;

# The payload format "batch-v2" (docs/stream.md): framed Batch messages, one after the other. Fields have the meaning
# that they have in update.capnp; what is absent is 0 or empty there. New fields are only appended.

using Cxx = import "/capnp/c++.capnp";
using import "update.capnp".View;
using import "update.capnp".Reason;
using import "update.capnp".AsSegment;
$Cxx.namespace("arancini::schema");

# What one BGP UPDATE (or one slice of a sweep) did to one family of one peer.
struct Batch @0xec660e65469c426c {
  firstSequence @0 :UInt64;   # of routes[0]; routes[i] has firstSequence + i
  timeReceivedNs @1 :UInt64;
  timeBmpHeaderNs @2 :UInt64;
  announced @3 :Bool;         # false: withdrawn
  synthetic @4 :Bool;
  multiprotocol @5 :Bool;     # MP_REACH_NLRI or MP_UNREACH_NLRI, not the classic fields
  reason @6 :Reason;
  source @7 :Source;          # null: the source of the Batch before; the first one of a message always has it
  attributes @8 :PathAttributes;
  routes @9 :List(Route);
}

# Who told it, and where it belongs.
struct Source @0xb3a170e9015f2882 {
  writerId @0 :Data;          # 16 bytes
  routerAddr @1 :Data;        # 16 bytes, IPv4 mapped into IPv6
  peerAddr @2 :Data;          # 16 bytes
  routerId @3 :Text;
  peerDistinguisher @4 :UInt64;
  peerBgpId @5 :UInt32;
  peerAsn @6 :UInt32;
  routerPort @7 :UInt16;
  afi @8 :UInt16;             # family of the routes
  safi @9 :UInt8;
  peerType @10 :UInt8;
  view @11 :View;             # isPostPolicy and isAdjRibOut follow from it
  tags @12 :List(Text);
}

struct PathAttributes @0x98d4737f30e64d34 {
  present @0 :UInt64;         # bit N: path attribute type N was there; tells "absent" from 0
  multiExitDisc @1 :UInt32;
  origin @2 :Origin;
  atomicAggregate @3 :Bool;
  localPreference @4 :UInt32;
  onlyToCustomer @5 :UInt32;
  aggregatorAsn @6 :UInt32;
  aggregatorBgpId @7 :UInt32;
  originatorId @8 :UInt32;
  asPath @9 :List(UInt32);
  nextHop @10 :Data;          # 4 or 16 bytes
  communities @11 :List(UInt32);          # RFC 1997, as one number
  largeCommunities @12 :List(UInt32);     # three each: global administrator, local data parts 1 and 2
  extendedCommunities @13 :List(UInt64);  # RFC 4360, as one number, the type in its highest bytes
  clusterList @14 :List(UInt32);
  asSegments @15 :List(AsSegment);
  rawAttributes @16 :Data;
}

enum Origin {
  absent @0;                  # or a value that RFC 4271 does not know
  igp @1;
  egp @2;
  incomplete @3;
}

# A prefix: the bits of its address from the first one on, in pieces of 32, 32 and 64 as big-endian numbers. IPv4
# has the first piece only.
struct Route @0xd1266d5d41179786 {
  addr0 @0 :UInt32;
  prefixLen @1 :UInt8;
  pathId @2 :UInt32;
  addr1 @3 :UInt32;
  addr2 @4 :UInt64;
}
