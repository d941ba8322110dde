#include "common/schema/layout.h"

#include <capnp/schema.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "batch.capnp.h"
#include "record.capnp.h"
#include "update.capnp.h"

namespace arancini::schema::layout {
namespace {

struct Slot {
  std::uint32_t offset;  // bits in the data section, or index in the pointer section
  bool pointer;
};

// Size in bits of a data field; 0: a pointer.
std::uint32_t bits_of(capnp::Type type) {
  if (type.isBool()) return 1;
  if (type.isUInt8()) return 8;
  if (type.isUInt16() || type.isEnum()) return 16;
  if (type.isUInt32()) return 32;
  return type.isUInt64() ? 64 : 0;
}

std::map<std::string, Slot> slots_of(capnp::StructSchema schema) {
  std::map<std::string, Slot> out;
  for (const auto field : schema.getFields()) {
    const std::uint32_t bits = bits_of(field.getType());
    const std::uint32_t offset = field.getProto().getSlot().getOffset();
    out[field.getProto().getName().cStr()] = {bits == 0 ? offset : offset * bits, bits == 0};
  }
  return out;
}

TEST(Layout, UpdateFieldsLieWhereTheSchemaPutsThem) {
  const std::map<std::string, std::uint32_t> data{{"timeReceivedNs", kTimeReceivedNs},
                                                  {"timeBmpHeaderNs", kTimeBmpHeaderNs},
                                                  {"routerPort", kRouterPort},
                                                  {"prefixLen", kPrefixLen},
                                                  {"isPostPolicy", kIsPostPolicy},
                                                  {"isAdjRibOut", kIsAdjRibOut},
                                                  {"announced", kAnnounced},
                                                  {"synthetic", kSynthetic},
                                                  {"atomicAggregate", kAtomicAggregate},
                                                  {"peerBgpId", kPeerBgpId},
                                                  {"peerAsn", kPeerAsn},
                                                  {"multiExitDisc", kMultiExitDisc},
                                                  {"localPreference", kLocalPreference},
                                                  {"onlyToCustomer", kOnlyToCustomer},
                                                  {"aggregatorAsn", kAggregatorAsn},
                                                  {"aggregatorBgpId", kAggregatorBgpId},
                                                  {"originatorId", kOriginatorId},
                                                  {"mpReachAfi", kMpReachAfi},
                                                  {"mpReachSafi", kMpReachSafi},
                                                  {"mpUnreachSafi", kMpUnreachSafi},
                                                  {"mpUnreachAfi", kMpUnreachAfi},
                                                  {"peerType", kPeerType},
                                                  {"pathId", kPathId},
                                                  {"sequence", kSequence},
                                                  {"peerDistinguisher", kPeerDistinguisher},
                                                  {"view", kView},
                                                  {"reason", kReason},
                                                  {"attributesPresent", kAttributesPresent}};
  const std::map<std::string, std::uint32_t> pointers{{"routerAddr", kRouterAddr},
                                                      {"peerAddr", kPeerAddr},
                                                      {"prefixAddr", kPrefixAddr},
                                                      {"origin", kOrigin},
                                                      {"asPath", kAsPath},
                                                      {"nextHop", kNextHop},
                                                      {"communities", kCommunities},
                                                      {"extendedCommunities", kExtendedCommunities},
                                                      {"largeCommunities", kLargeCommunities},
                                                      {"clusterList", kClusterList},
                                                      {"writerId", kWriterId},
                                                      {"routerId", kRouterId},
                                                      {"rawNlri", kRawNlri},
                                                      {"labels", kLabels},
                                                      {"asSegments", kAsSegments},
                                                      {"rawAttributes", kRawAttributes},
                                                      {"tags", kTags},
                                                      {"tableName", kTableName}};

  const auto slots = slots_of(capnp::Schema::from<Update>());
  EXPECT_EQ(slots.size(), data.size() + pointers.size()) << "a field of the schema is not in layout.h";
  for (const auto& [name, slot] : slots) {
    const auto& expected = slot.pointer ? pointers : data;
    const auto it = expected.find(name);
    ASSERT_NE(it, expected.end()) << name;
    EXPECT_EQ(it->second, slot.offset) << name;
  }
}

void expect_size(capnp::StructSchema schema, std::uint32_t data_words, std::uint32_t pointers) {
  const auto node = schema.getProto().getStruct();
  EXPECT_EQ(node.getDataWordCount(), data_words) << schema.getProto().getDisplayName().cStr();
  EXPECT_EQ(node.getPointerCount(), pointers) << schema.getProto().getDisplayName().cStr();
}

TEST(Layout, StructSizesAreThoseOfTheSchema) {
  expect_size(capnp::Schema::from<Update>(), kUpdateDataWords, kUpdatePointers);
  expect_size(capnp::Schema::from<UpdateBatch>(), kRecordDataWords, kRecordPointers);
  expect_size(capnp::Schema::from<RecordRoute>(), kRecordRouteDataWords, 0);
  expect_size(capnp::Schema::from<Batch>(), kBatchDataWords, kBatchPointers);
  expect_size(capnp::Schema::from<Source>(), kSourceDataWords, kSourcePointers);
  expect_size(capnp::Schema::from<PathAttributes>(), kPathAttributesDataWords, kPathAttributesPointers);
  expect_size(capnp::Schema::from<Route>(), kRouteDataWords, 0);
  expect_size(capnp::Schema::from<Community>(), kCommunityDataWords, 0);
  expect_size(capnp::Schema::from<ExtendedCommunity>(), kExtendedCommunityDataWords,
              kExtendedCommunityPointers);
  expect_size(capnp::Schema::from<LargeCommunity>(), kLargeCommunityDataWords, 0);
  expect_size(capnp::Schema::from<AsSegment>(), kAsSegmentDataWords, kAsSegmentPointers);
}

TEST(Layout, SmallStructsHaveTheirFieldsAsWritten) {
  const auto batch = slots_of(capnp::Schema::from<UpdateBatch>());
  EXPECT_EQ(batch.at("firstSequence").offset, 0U);
  EXPECT_EQ(batch.at("shared").offset, 0U);
  EXPECT_EQ(batch.at("routes").offset, 1U);
  const auto route = slots_of(capnp::Schema::from<RecordRoute>());
  EXPECT_EQ(route.at("addrHigh").offset, 0U);
  EXPECT_EQ(route.at("addrLow").offset, 64U);
  EXPECT_EQ(route.at("pathId").offset, 128U);
  EXPECT_EQ(route.at("prefixLen").offset, 160U);
  EXPECT_EQ(slots_of(capnp::Schema::from<Community>()).at("value").offset, 32U);
  EXPECT_EQ(slots_of(capnp::Schema::from<ExtendedCommunity>()).at("typeLow").offset, 8U);
  EXPECT_EQ(slots_of(capnp::Schema::from<LargeCommunity>()).at("localDataPart2").offset, 64U);
}

// Ids and ordinals are the contract with readers that exist already (DESIGN 4.1).
TEST(Layout, IdsAndOrdinalsAreThoseOfTheContract) {
  EXPECT_EQ(capnp::Schema::from<Update>().getProto().getScopeId(), 0x83f9299a125b7932U);
  EXPECT_EQ(capnp::Schema::from<Update>().getProto().getId(), 0x91f1abe47b4600e2U);
  EXPECT_EQ(capnp::Schema::from<Community>().getProto().getId(), 0xe2d1ff3809d54a0aU);
  EXPECT_EQ(capnp::Schema::from<ExtendedCommunity>().getProto().getId(), 0xb71bff67ebf591a9U);
  EXPECT_EQ(capnp::Schema::from<LargeCommunity>().getProto().getId(), 0x882a92a3e30d7d1fU);
  EXPECT_EQ(capnp::Schema::from<Batch>().getProto().getId(), 0xec660e65469c426cU);
  const std::map<std::string, unsigned> ordinals{
      {"timeReceivedNs", 0},    {"routerAddr", 2},        {"peerBgpId", 5},
      {"prefixAddr", 7},        {"prefixLen", 8},         {"announced", 11},
      {"synthetic", 12},        {"origin", 13},           {"asPath", 14},
      {"nextHop", 15},          {"multiExitDisc", 16},    {"atomicAggregate", 19},
      {"communities", 22},      {"largeCommunities", 24}, {"clusterList", 26},
      {"mpReachAfi", 27},       {"mpUnreachSafi", 30},    {"sequence", 31},
      {"writerId", 32},         {"pathId", 33},           {"view", 36},
      {"reason", 37},           {"rawAttributes", 42},    {"tableName", 44},
      {"attributesPresent", 45}};
  for (const auto& [name, ordinal] : ordinals) {
    const auto field = capnp::Schema::from<Update>().getFieldByName(name);
    EXPECT_EQ(field.getProto().getOrdinal().getExplicit(), ordinal) << name;
  }
}

}  // namespace
}  // namespace arancini::schema::layout
