@0xd6f2a4b1c95e8307;

# The record of the rings and of the journal: what one BGP UPDATE (or one slice of a sweep) did to one peer, view and
# family, as an Update that only has to be copied and patched for each route (layout.h). Never published.

using Cxx = import "/capnp/c++.capnp";
using import "update.capnp".Update;
$Cxx.namespace("arancini::schema");

struct UpdateBatch @0xb0c2f3d4e5a69718 {
  # Everything but prefixAddr (16 zero bytes here), prefixLen, pathId and sequence.
  shared @0 :Update;
  firstSequence @1 :UInt64;   # of routes[0]; routes[i] has firstSequence + i
  routes @2 :List(RecordRoute);
}

# A prefix: the 16 bytes of its address (IPv4 mapped into IPv6) as two big-endian numbers.
struct RecordRoute @0xd1a7b0e94c3f2586 {
  addrHigh @0 :UInt64;
  addrLow @1 :UInt64;
  pathId @2 :UInt32;
  prefixLen @3 :UInt8;
}
