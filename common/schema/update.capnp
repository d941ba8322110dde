@0x83f9299a125b7932;

# The wire contract of published updates (docs/stream.md). Ordinals @0 to @30 are those of existing consumers: ids,
# types and meaning stay. New fields are only appended.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("arancini::schema");

struct Update @0x91f1abe47b4600e2 {
  timeReceivedNs @0 :UInt64;      # CLOCK_REALTIME at the collector
  timeBmpHeaderNs @1 :UInt64;     # per-peer header, 0 if the router gave none (RFC 7854 4.2)
  routerAddr @2 :Data;            # 16 bytes, IPv4 mapped into IPv6
  routerPort @3 :UInt16;
  peerAddr @4 :Data;              # 16 bytes
  peerBgpId @5 :UInt32;
  peerAsn @6 :UInt32;
  prefixAddr @7 :Data;            # 16 bytes
  prefixLen @8 :UInt8;
  isPostPolicy @9 :Bool;
  isAdjRibOut @10 :Bool;
  announced @11 :Bool;            # false: withdrawn
  synthetic @12 :Bool;            # made by the collector, see reason
  origin @13 :Text;               # "IGP", "EGP", "INCOMPLETE"
  asPath @14 :List(UInt32);       # members of AS_SEQUENCE segments in order
  nextHop @15 :Data;              # 16 bytes, zeros when none
  multiExitDisc @16 :UInt32;
  localPreference @17 :UInt32;
  onlyToCustomer @18 :UInt32;
  atomicAggregate @19 :Bool;
  aggregatorAsn @20 :UInt32;
  aggregatorBgpId @21 :UInt32;
  communities @22 :List(Community);
  extendedCommunities @23 :List(ExtendedCommunity);
  largeCommunities @24 :List(LargeCommunity);
  originatorId @25 :UInt32;
  clusterList @26 :List(UInt32);
  mpReachAfi @27 :UInt16;
  mpReachSafi @28 :UInt8;
  mpUnreachAfi @29 :UInt16;
  mpUnreachSafi @30 :UInt8;

  sequence @31 :UInt64;           # dense within writerId, from 1
  writerId @32 :Data;             # 16 bytes: the ring instance
  pathId @33 :UInt32;             # RFC 7911, 0 when none
  peerType @34 :UInt8;            # RFC 7854 4.2
  peerDistinguisher @35 :UInt64;
  view @36 :View;
  reason @37 :Reason;
  routerId @38 :Text;             # configured name; empty: the address is the name
  rawNlri @39 :Data;              # NLRI of families that are not <length, prefix>
  labels @40 :List(UInt32);
  asSegments @41 :List(AsSegment);  # the whole path, only when it is not one or more plain AS_SEQUENCEs
  rawAttributes @42 :Data;        # attributes that have no field here, as received (flags, type, length, value)
  tags @43 :List(Text);
  tableName @44 :Text;            # RFC 9069 VRF/table name
  attributesPresent @45 :UInt64;  # bit N: path attribute type N was there; tells "absent" from 0
}

enum View {
  adjInPre @0;
  adjInPost @1;
  adjOutPre @2;
  adjOutPost @3;
  locRib @4;
}

enum Reason {
  none @0;
  peerDown @1;
  sessionLost @2;
  resyncMissing @3;
  graceExpired @4;
  policy @5;
  operator @6;
  dump @7;
}

struct AsSegment {
  type @0 :UInt8;                 # 1 AS_SET, 2 AS_SEQUENCE, 3 AS_CONFED_SEQUENCE, 4 AS_CONFED_SET
  members @1 :List(UInt32);
}

struct Community @0xe2d1ff3809d54a0a {
  asn @0 :UInt32;
  value @1 :UInt16;
}

struct ExtendedCommunity @0xb71bff67ebf591a9 {
  typeHigh @0 :UInt8;
  typeLow @1 :UInt8;
  value @2 :Data;
}

struct LargeCommunity @0x882a92a3e30d7d1f {
  globalAdmin @0 :UInt32;
  localDataPart1 @1 :UInt32;
  localDataPart2 @2 :UInt32;
}
