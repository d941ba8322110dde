@0xe6a0c1f4b27d5a93;

# What an ingestd leaves to its successor at a planned restart (docs/decisions/0014): the sessions that go on, and what the
# shard knows of their routers beside the routes, which are restored from the log. Same machine, same boot. A reader takes
# what was written by versions before and after it: fields are only appended, and absent ones mean what they meant before
# there was such a field. A change of meaning takes another `format`.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("arancini::schema");

struct Restart @0xb1f0a9d35c7e8264 {
  format @0 :UInt32;              # 1
  version @1 :Text;               # of the program that wrote it
  bootId @2 :Text;                # times below are of CLOCK_BOOTTIME of that boot
  shard @3 :UInt32;
  shardCount @4 :UInt32;
  writerId @5 :Data;              # of the ring, and where it ended
  ringTail @6 :UInt64;
  nextSequence @7 :UInt64;
  nextEventSequence @8 :UInt64;
  lastReadNs @9 :UInt64;          # nothing was read from the sessions since
  sessionsClosed @10 :UInt32;     # those that could not be kept
  sessions @11 :List(Session);    # in the order in which they were opened; their sockets come in this order
  routers @12 :List(Router);

  struct Session {
    serial @0 :UInt64;
    router @1 :UInt32;            # index; kNone: it has not said yet which one it is
    source @2 :Data;              # 16 bytes, as everywhere
    port @3 :UInt16;
    openedRealtimeNs @4 :UInt64;
    messages @5 :UInt64;
    bytes @6 :UInt64;
    streamOffset @7 :UInt64;      # of the first byte of `pending`
    pending @8 :Data;             # what was received and not applied
    # How far the first message of `pending` was applied.
    inProgress @9 :Bool;
    field @10 :UInt8;
    judged @11 :Bool;
    pathIds @12 :Bool;
    superseded @13 :UInt32;
    offsetBytes @14 :UInt32;
  }

  struct Router {
    address @0 :Data;
    name @1 :Text;
    state @2 :UInt32;
    port @3 :UInt16;
    faults @4 :UInt64;
    connectedRealtimeNs @5 :UInt64;
    lastMessageRealtimeNs @6 :UInt64;
    messages @7 :UInt64;
    bytes @8 :UInt64;
    malformed @9 :UInt64;
    published @10 :UInt64;
    suppressed @11 :UInt64;
    announcementsDropped @12 :UInt64;
    withdrawsDropped @13 :UInt64;
    lastError @14 :UInt32;
    lastErrorText @15 :Text;
    sysName @16 :Text;
    sysDescr @17 :Text;
    limitOver @18 :Bool;
    limitSkipped @19 :UInt64;
    limitSaidNs @20 :UInt64;
    limitAskedNs @21 :UInt64;
    limitFreedNs @22 :UInt64;
    peers @23 :List(Peer);
  }

  struct Peer {
    type @0 :UInt8;
    distinguisher @1 :UInt64;
    address @2 :Data;
    up @3 :Bool;
    unknownSaid @4 :Bool;
    upSession @5 :UInt64;         # serial
    addPathIn @6 :UInt32;         # one bit for each family, in the order of kTableFamilies
    addPathOut @7 :UInt32;
    views @8 :List(View);
  }

  struct View {
    view @0 :UInt8;
    state @1 :UInt32;
    asn @2 :UInt32;
    bgpId @3 :UInt32;
    asWidthSaid @4 :Bool;
    told @5 :Bool;                # toldAsn and toldBgpId say something
    toldAsn @6 :UInt32;
    toldBgpId @7 :UInt32;
    owner @8 :UInt32;             # index of a session, or kNone
    superseded @9 :List(UInt32);
    ownedBefore @10 :Bool;
    claimedSerial @11 :UInt64;
    routerPort @12 :UInt16;
    graceActive @13 :Bool;
    graceDeadlineNs @14 :UInt64;
    published @15 :UInt64;
    suppressed @16 :UInt64;
    malformed @17 :UInt64;
    synthetic @18 :UInt64;
    changedRealtimeNs @19 :UInt64;
    downReason @20 :UInt32;
    tables @21 :List(Table);
  }

  struct Table {
    afi @0 :UInt16;
    safi @1 :UInt8;
    routes @2 :UInt64;
    negotiated @3 :Bool;
    mismatchSaid @4 :Bool;
    withoutIds @5 :Bool;
    judgeLearned @6 :Bool;
    judgePathIds @7 :Bool;
    judgeLargeIds @8 :Bool;
    syncActive @9 :Bool;
    syncDeadlineNs @10 :UInt64;
    syncEndOfRibNs @11 :UInt64;
    syncNewsNs @12 :UInt64;
    syncSinceRealtimeNs @13 :UInt64;
    # Routes that were not announced since the re-sync began: none, all, those of `keys`, all but those.
    old @14 :Old;
    # Routes, each 5 bytes and an address of 4 or 16: length, path id (little-endian), address.
    keys @15 :Data;
    # How many announcements without path id a route stands for, where that is not 1: as above, and a byte.
    paths @16 :Data;
  }

  enum Old {
    none @0;
    all @1;
    keys @2;
    others @3;
  }

  const none :UInt32 = 0xffffffff;
}
