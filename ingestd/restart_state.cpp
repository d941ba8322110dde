#include "ingestd/restart_state.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <fstream>
#include <stdexcept>
#include <string_view>

#include "ingestd/peer_table.h"
#include "restart.capnp.h"

namespace arancini::ingestd {

namespace {

using schema::Restart;

constexpr std::uint32_t kFormat = 1;
constexpr std::size_t kMostSessions = 65536;

// A state that breaks the rules although it is good Cap'n Proto.
[[noreturn]] void bad(const char* what) {
  throw std::runtime_error(what);
}

capnp::Data::Reader data_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const kj::byte*>(bytes.data()), bytes.size()};
}
template <std::size_t N>
capnp::Data::Reader data_of(const std::array<std::uint8_t, N>& bytes) {
  return {bytes.data(), bytes.size()};
}
std::array<std::uint8_t, 16> sixteen(capnp::Data::Reader data) {
  std::array<std::uint8_t, 16> out{};
  if (data.size() != out.size()) bad("an address or id is not 16 bytes");
  std::memcpy(out.data(), data.begin(), out.size());
  return out;
}
IpAddress address_of(capnp::Data::Reader data) {
  return IpAddress{sixteen(data)};
}
std::string text_of(capnp::Text::Reader text) {
  return {text.begin(), text.size()};
}

// --- routes, packed

class Packer {
 public:
  explicit Packer(Family family) : v4_(family.afi == 1) {}
  void put(const Prefix& prefix) {
    put_int(prefix.length, 1);
    put_int(prefix.path_id, 4);
    if (v4_) {
      put_int(prefix.low & 0xffffffffU, 4);
    } else {
      put_int(prefix.high, 8);
      put_int(prefix.low, 8);
    }
  }
  void put_int(std::uint64_t value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; ++i) bytes_.push_back(static_cast<std::byte>(value >> (8 * i)));
  }
  [[nodiscard]] capnp::Data::Reader data() const { return data_of(std::span<const std::byte>(bytes_)); }

 private:
  bool v4_;
  std::vector<std::byte> bytes_;
};

class Unpacker {
 public:
  Unpacker(Family family, capnp::Data::Reader data) : v4_(family.afi == 1), data_(data) {}
  [[nodiscard]] bool more() const { return at_ < data_.size(); }
  Prefix prefix() {
    Prefix out;
    out.length = static_cast<std::uint8_t>(get_int(1));
    out.path_id = static_cast<std::uint32_t>(get_int(4));
    if (v4_) {
      out.low = kV4MappedLow | get_int(4);
    } else {
      out.high = get_int(8);
      out.low = get_int(8);
    }
    if (out.length > (v4_ ? 32 : 128)) bad("a prefix is too long");
    return out;
  }
  std::uint64_t get_int(unsigned bytes) {
    if (data_.size() - at_ < bytes) bad("a list of routes is cut off");
    std::uint64_t value = 0;
    for (unsigned i = 0; i < bytes; ++i) value |= std::uint64_t{data_[at_++]} << (8 * i);
    return value;
  }

 private:
  bool v4_;
  capnp::Data::Reader data_;
  std::size_t at_ = 0;
};

// --- out

void write(Restart::Session::Builder out, const RestartSession& in) {
  out.setSerial(in.serial);
  out.setRouter(in.router);
  out.setSource(data_of(in.source.bytes));
  out.setPort(in.port);
  out.setOpenedRealtimeNs(in.opened_realtime_ns);
  out.setMessages(in.messages);
  out.setBytes(in.bytes);
  out.setStreamOffset(in.stream_offset);
  out.setPending(data_of(std::span<const std::byte>(in.pending)));
  out.setInProgress(in.in_progress);
  out.setField(in.field);
  out.setJudged(in.judged);
  out.setPathIds(in.path_ids);
  out.setSuperseded(in.superseded);
  out.setOffsetBytes(in.offset_bytes);
}

void write(Restart::Table::Builder out, const RestartTable& in) {
  out.setAfi(in.family.afi);
  out.setSafi(in.family.safi);
  out.setRoutes(in.routes);
  out.setNegotiated(in.negotiated);
  out.setMismatchSaid(in.mismatch_said);
  out.setWithoutIds(in.without_ids);
  out.setJudgeLearned(in.learned.any);
  out.setJudgePathIds(in.learned.path_ids);
  out.setJudgeLargeIds(in.learned.seen_large_ids);
  out.setSyncActive(in.sync_active);
  out.setSyncDeadlineNs(in.sync_deadline_ns);
  out.setSyncEndOfRibNs(in.sync_end_of_rib_ns);
  out.setSyncNewsNs(in.sync_news_ns);
  out.setSyncSinceRealtimeNs(in.sync_since_realtime_ns);
  out.setOld(static_cast<Restart::Old>(in.old));
  Packer keys(in.family);
  for (const Prefix& prefix : in.keys) keys.put(prefix);
  out.setKeys(keys.data());
  Packer paths(in.family);
  for (const RestartTable::Paths& p : in.paths) {
    paths.put(p.prefix);
    paths.put_int(p.count, 1);
  }
  out.setPaths(paths.data());
}

void write(Restart::View::Builder out, const RestartView& in) {
  out.setView(static_cast<std::uint8_t>(in.view));
  out.setState(in.state);
  out.setAsn(in.asn);
  out.setBgpId(in.bgp_id);
  out.setAsWidthSaid(in.as_width_said);
  out.setTold(in.told_asn.has_value());
  out.setToldAsn(in.told_asn.value_or(0));
  out.setToldBgpId(in.told_bgp_id);
  out.setOwner(in.owner);
  auto superseded = out.initSuperseded(static_cast<unsigned>(in.superseded.size()));
  for (unsigned i = 0; i < superseded.size(); ++i) superseded.set(i, in.superseded[i]);
  out.setOwnedBefore(in.owned_before);
  out.setClaimedSerial(in.claimed_serial);
  out.setRouterPort(in.router_port);
  out.setGraceActive(in.grace_active);
  out.setGraceDeadlineNs(in.grace_deadline_ns);
  out.setPublished(in.published);
  out.setSuppressed(in.suppressed);
  out.setMalformed(in.malformed);
  out.setSynthetic(in.synthetic);
  out.setChangedRealtimeNs(in.changed_realtime_ns);
  out.setDownReason(in.down_reason);
  auto tables = out.initTables(static_cast<unsigned>(in.tables.size()));
  for (unsigned i = 0; i < tables.size(); ++i) write(tables[i], in.tables[i]);
}

void write(Restart::Peer::Builder out, const RestartPeer& in) {
  out.setType(in.type);
  out.setDistinguisher(in.distinguisher);
  out.setAddress(data_of(in.address.bytes));
  out.setUp(in.up);
  out.setUnknownSaid(in.unknown_said);
  out.setUpSession(in.up_session);
  out.setAddPathIn(in.addpath_in);
  out.setAddPathOut(in.addpath_out);
  auto views = out.initViews(static_cast<unsigned>(in.views.size()));
  for (unsigned i = 0; i < views.size(); ++i) write(views[i], in.views[i]);
}

void write(Restart::Router::Builder out, const RestartRouter& in) {
  out.setAddress(data_of(in.address.bytes));
  out.setName(in.name);
  out.setState(in.state);
  out.setPort(in.port);
  out.setFaults(in.faults);
  out.setConnectedRealtimeNs(in.connected_realtime_ns);
  out.setLastMessageRealtimeNs(in.last_message_realtime_ns);
  out.setMessages(in.messages);
  out.setBytes(in.bytes);
  out.setMalformed(in.malformed);
  out.setPublished(in.published);
  out.setSuppressed(in.suppressed);
  out.setAnnouncementsDropped(in.announcements_dropped);
  out.setWithdrawsDropped(in.withdraws_dropped);
  out.setLastError(in.last_error);
  out.setLastErrorText(in.last_error_text);
  out.setSysName(in.sys_name);
  out.setSysDescr(in.sys_descr);
  out.setLimitOver(in.limit_over);
  out.setLimitSkipped(in.limit_skipped);
  out.setLimitSaidNs(in.limit_said_ns);
  out.setLimitAskedNs(in.limit_asked_ns);
  out.setLimitFreedNs(in.limit_freed_ns);
  auto peers = out.initPeers(static_cast<unsigned>(in.peers.size()));
  for (unsigned i = 0; i < peers.size(); ++i) write(peers[i], in.peers[i]);
}

// --- in

RestartSession read(Restart::Session::Reader in, std::size_t routers) {
  RestartSession out;
  out.serial = in.getSerial();
  out.router = in.getRouter();
  out.source = address_of(in.getSource());
  out.port = in.getPort();
  out.opened_realtime_ns = in.getOpenedRealtimeNs();
  out.messages = in.getMessages();
  out.bytes = in.getBytes();
  out.stream_offset = in.getStreamOffset();
  const auto pending = in.getPending();
  out.pending.resize(pending.size());
  if (pending.size() > 0) std::memcpy(out.pending.data(), pending.begin(), pending.size());
  out.in_progress = in.getInProgress();
  out.field = in.getField();
  out.judged = in.getJudged();
  out.path_ids = in.getPathIds();
  out.superseded = in.getSuperseded();
  out.offset_bytes = in.getOffsetBytes();
  if (out.router != RestartSession::kNone && out.router >= routers) bad("a session is of no router");
  if (out.in_progress && (out.router == RestartSession::kNone || out.pending.empty()))
    bad("a message in progress is not there");
  return out;
}

RestartTable read(Restart::Table::Reader in) {
  RestartTable out;
  out.family = {in.getAfi(), in.getSafi()};
  if (table_index(out.family) == kNoTable) bad("a table has no known family");
  out.routes = in.getRoutes();
  out.negotiated = in.getNegotiated();
  out.mismatch_said = in.getMismatchSaid();
  out.without_ids = in.getWithoutIds();
  out.learned = {in.getJudgeLearned(), in.getJudgePathIds(), in.getJudgeLargeIds()};
  out.sync_active = in.getSyncActive();
  out.sync_deadline_ns = in.getSyncDeadlineNs();
  out.sync_end_of_rib_ns = in.getSyncEndOfRibNs();
  out.sync_news_ns = in.getSyncNewsNs();
  out.sync_since_realtime_ns = in.getSyncSinceRealtimeNs();
  if (in.getOld() > Restart::Old::OTHERS) bad("a table's routes are of an unknown age");
  out.old = static_cast<RestartTable::Old>(in.getOld());
  for (Unpacker keys(out.family, in.getKeys()); keys.more();) out.keys.push_back(keys.prefix());
  for (Unpacker paths(out.family, in.getPaths()); paths.more();) {
    RestartTable::Paths p;
    p.prefix = paths.prefix();
    p.count = static_cast<std::uint8_t>(paths.get_int(1));
    if (p.count > 3) bad("a route stands for too many paths");
    out.paths.push_back(p);
  }
  return out;
}

RestartView read(Restart::View::Reader in, std::size_t sessions) {
  RestartView out;
  if (in.getView() >= kViewCount) bad("a view is not known");
  out.view = static_cast<View>(in.getView());
  out.state = in.getState();
  if (out.state > static_cast<std::uint32_t>(shm::PeerState::Stale)) bad("a view's state is not known");
  out.asn = in.getAsn();
  out.bgp_id = in.getBgpId();
  out.as_width_said = in.getAsWidthSaid();
  if (in.getTold()) out.told_asn = in.getToldAsn();
  out.told_bgp_id = in.getToldBgpId();
  const auto session = [sessions](std::uint32_t index) {
    if (index >= sessions) bad("a view is told by no session");
    return index;
  };
  if (in.getOwner() != RestartSession::kNone) out.owner = session(in.getOwner());
  for (const std::uint32_t index : in.getSuperseded()) out.superseded.push_back(session(index));
  out.owned_before = in.getOwnedBefore();
  out.claimed_serial = in.getClaimedSerial();
  out.router_port = in.getRouterPort();
  out.grace_active = in.getGraceActive();
  out.grace_deadline_ns = in.getGraceDeadlineNs();
  if (out.grace_active && out.owner != RestartSession::kNone) bad("a view is told, and is not");
  out.published = in.getPublished();
  out.suppressed = in.getSuppressed();
  out.malformed = in.getMalformed();
  out.synthetic = in.getSynthetic();
  out.changed_realtime_ns = in.getChangedRealtimeNs();
  out.down_reason = in.getDownReason();
  std::array<bool, kTableFamilies.size()> seen{};
  for (const auto table : in.getTables()) {
    out.tables.push_back(read(table));
    if (std::exchange(seen[table_index(out.tables.back().family)], true)) bad("a table comes twice");
  }
  return out;
}

RestartPeer read(Restart::Peer::Reader in, std::size_t sessions) {
  RestartPeer out;
  out.type = in.getType();
  out.distinguisher = in.getDistinguisher();
  out.address = address_of(in.getAddress());
  out.up = in.getUp();
  out.unknown_said = in.getUnknownSaid();
  out.up_session = in.getUpSession();
  out.addpath_in = in.getAddPathIn();
  out.addpath_out = in.getAddPathOut();
  std::array<bool, kViewCount> seen{};
  for (const auto view : in.getViews()) {
    out.views.push_back(read(view, sessions));
    if (std::exchange(seen[static_cast<std::size_t>(out.views.back().view)], true)) bad("a view comes twice");
  }
  return out;
}

RestartRouter read(Restart::Router::Reader in, std::size_t sessions) {
  RestartRouter out;
  out.address = address_of(in.getAddress());
  out.name = text_of(in.getName());
  out.state = in.getState();
  if (out.state > static_cast<std::uint32_t>(shm::RouterState::Refused)) bad("a router's state is not known");
  out.port = in.getPort();
  out.faults = in.getFaults();
  out.connected_realtime_ns = in.getConnectedRealtimeNs();
  out.last_message_realtime_ns = in.getLastMessageRealtimeNs();
  out.messages = in.getMessages();
  out.bytes = in.getBytes();
  out.malformed = in.getMalformed();
  out.published = in.getPublished();
  out.suppressed = in.getSuppressed();
  out.announcements_dropped = in.getAnnouncementsDropped();
  out.withdraws_dropped = in.getWithdrawsDropped();
  out.last_error = in.getLastError();
  out.last_error_text = text_of(in.getLastErrorText());
  out.sys_name = text_of(in.getSysName());
  out.sys_descr = text_of(in.getSysDescr());
  out.limit_over = in.getLimitOver();
  out.limit_skipped = in.getLimitSkipped();
  out.limit_said_ns = in.getLimitSaidNs();
  out.limit_asked_ns = in.getLimitAskedNs();
  out.limit_freed_ns = in.getLimitFreedNs();
  for (const auto peer : in.getPeers()) out.peers.push_back(read(peer, sessions));
  return out;
}

RestartState read(Restart::Reader in) {
  if (in.getFormat() != kFormat) {
    throw std::runtime_error(fmt::format("it has format {}, written by version {}", in.getFormat(),
                                         std::string_view(in.getVersion().cStr())));
  }
  RestartState out;
  out.version = text_of(in.getVersion());
  out.boot_id = text_of(in.getBootId());
  out.shard = in.getShard();
  out.shard_count = in.getShardCount();
  out.writer.bytes = sixteen(in.getWriterId());
  out.ring_tail = in.getRingTail();
  out.next_sequence = in.getNextSequence();
  out.next_event_sequence = in.getNextEventSequence();
  out.last_read_ns = in.getLastReadNs();
  out.sessions_closed = in.getSessionsClosed();
  const auto sessions = in.getSessions();
  const auto routers = in.getRouters();
  if (sessions.size() > kMostSessions) bad("too many sessions");
  std::uint64_t before = 0;
  for (const auto session : sessions) {
    out.sessions.push_back(read(session, routers.size()));
    if (out.sessions.back().serial <= before) bad("sessions are not in their order");
    before = out.sessions.back().serial;
  }
  for (const auto router : routers) out.routers.push_back(read(router, sessions.size()));
  // Whoever tells a view is of its router.
  for (std::uint32_t r = 0; r < out.routers.size(); ++r) {
    const auto ours = [&](std::uint32_t session) {
      if (out.sessions[session].router != r) bad("a view is told by another router's session");
    };
    for (const RestartPeer& peer : out.routers[r].peers) {
      for (const RestartView& view : peer.views) {
        if (view.owner != RestartSession::kNone) ours(view.owner);
        for (const std::uint32_t session : view.superseded) ours(session);
      }
    }
  }
  return out;
}

}  // namespace

std::vector<std::byte> encode_restart(const RestartState& state) {
  capnp::MallocMessageBuilder message;
  auto out = message.initRoot<Restart>();
  out.setFormat(kFormat);
  out.setVersion(state.version);
  out.setBootId(state.boot_id);
  out.setShard(state.shard);
  out.setShardCount(state.shard_count);
  out.setWriterId(data_of(state.writer.bytes));
  out.setRingTail(state.ring_tail);
  out.setNextSequence(state.next_sequence);
  out.setNextEventSequence(state.next_event_sequence);
  out.setLastReadNs(state.last_read_ns);
  out.setSessionsClosed(state.sessions_closed);
  auto sessions = out.initSessions(static_cast<unsigned>(state.sessions.size()));
  for (unsigned i = 0; i < sessions.size(); ++i) write(sessions[i], state.sessions[i]);
  auto routers = out.initRouters(static_cast<unsigned>(state.routers.size()));
  for (unsigned i = 0; i < routers.size(); ++i) write(routers[i], state.routers[i]);
  const auto words = capnp::messageToFlatArray(message);
  const auto bytes = words.asBytes();
  std::vector<std::byte> flat(bytes.size());
  std::memcpy(flat.data(), bytes.begin(), bytes.size());
  return flat;
}

Result<RestartState, std::string> decode_restart(std::span<const std::byte> bytes) try {
  if (bytes.empty() || bytes.size() % sizeof(capnp::word) != 0) bad("its size is no message's");
  std::vector<capnp::word> words(bytes.size() / sizeof(capnp::word));
  std::memcpy(words.data(), bytes.data(), bytes.size());
  capnp::ReaderOptions options;
  options.traversalLimitInWords = words.size() * 4 + 1024;  // each part is looked at once or twice
  capnp::FlatArrayMessageReader reader(kj::arrayPtr(words.data(), words.size()), options);
  return read(reader.getRoot<Restart>());
} catch (const kj::Exception& e) {
  return Err{std::string(e.getDescription().begin(), e.getDescription().size())};
} catch (const std::exception& e) {
  return Err{std::string(e.what())};
}

std::string boot_id() {
  std::ifstream in("/proc/sys/kernel/random/boot_id");
  std::string line;
  std::getline(in, line);
  return line;
}

}  // namespace arancini::ingestd
