#include "common/metrics/stats_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#include "common/base/types.h"
#include "common/shm/shared_file.h"

namespace arancini {
namespace {

constexpr std::int64_t kLockByte = 0;
// Rows that a page may have at most: bounds what a reader maps.
constexpr std::uint32_t kMaxRows = 1U << 20;

constexpr std::size_t routers_offset() {
  return sizeof(shm::StatsPage);
}
constexpr std::size_t peers_offset(std::size_t routers) {
  return routers_offset() + routers * sizeof(shm::RouterRow);
}
constexpr std::size_t file_bytes(std::size_t routers, std::size_t peers) {
  return peers_offset(routers) + peers * sizeof(shm::PeerRow);
}
static_assert(sizeof(shm::StatsPage) % alignof(shm::RouterRow) == 0 &&
              alignof(shm::RouterRow) == shm::kLineBytes);

// Length of the UTF-8 sequence at the start of `text` (RFC 3629 4), 0 if there is none.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  const std::size_t n = lead >= 0xc2 && lead <= 0xdf   ? 2
                        : lead >= 0xe0 && lead <= 0xef ? 3
                        : lead >= 0xf0 && lead <= 0xf4 ? 4
                                                       : 0;
  if (n == 0 || text.size() < n) return 0;
  // The second byte excludes overlong forms, surrogates and what lies beyond U+10FFFF.
  const unsigned char low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
  const unsigned char high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  if (byte(1) < low || byte(1) > high) return 0;
  for (std::size_t i = 2; i < n; ++i) {
    if (byte(i) < 0x80 || byte(i) > 0xbf) return 0;
  }
  return n;
}

// How often one walk over the page may sleep for rows whose writer was interrupted in the middle of a change.
constexpr int kWalkSleeps = 50;

// A consistent copy of a row, or false when it kept changing. The row is read in atomic words: the writer may
// be at it.
template <class Row>
bool copy_row(const Row& row, std::array<std::byte, sizeof(Row)>& out, int& sleeps_left) {
  static_assert(sizeof(Row) % sizeof(std::uint64_t) == 0);
  const auto* words = reinterpret_cast<const std::uint64_t*>(&row);
  for (int attempt = 1;; ++attempt) {
    const std::uint32_t before =
        row.guard.load(std::memory_order_acquire);  // pairs with the release in write_row()
    if (before % 2 == 0) {
      for (std::size_t i = 0; i < sizeof(Row) / sizeof(std::uint64_t); ++i) {
        const std::uint64_t word = __atomic_load_n(words + i, __ATOMIC_RELAXED);
        std::memcpy(out.data() + i * sizeof word, &word, sizeof word);
      }
      std::atomic_thread_fence(std::memory_order_acquire);  // pairs with the release fence in write_row()
      if (row.guard.load(std::memory_order_relaxed) == before) return true;
    }
    if (attempt % 64 != 0) continue;
    if (sleeps_left == 0) return false;
    --sleeps_left;
    const timespec pause{0, 50'000};
    ::nanosleep(&pause, nullptr);
  }
}

// One field of a copied row.
template <class T, std::size_t N>
T field(const std::array<std::byte, N>& row, std::size_t offset) {
  static_assert(std::is_trivially_copyable_v<T>);
  T value;
  std::memcpy(&value, row.data() + offset, sizeof value);
  return value;
}
template <std::size_t N>
std::string text_field(const std::array<std::byte, N>& row, std::size_t offset) {
  const auto raw_text = field<std::array<char, shm::kStatsTextBytes>>(row, offset);
  std::array<char, shm::kStatsTextBytes> clean{};
  copy_text(clean, {raw_text.data(), ::strnlen(raw_text.data(), raw_text.size())});
  return clean.data();
}

}  // namespace

void copy_text(std::span<char> field, std::string_view text) {
  if (field.empty()) return;
  std::size_t used = 0;
  while (!text.empty()) {
    const std::size_t n = utf8_length(text);
    const auto lead = static_cast<unsigned char>(text[0]);
    const bool control = n == 0 || (n == 1 && (lead < 0x20 || lead == 0x7f)) ||
                         (n == 2 && lead == 0xc2 && static_cast<unsigned char>(text[1]) < 0xa0);
    const std::size_t put = control ? 1 : n;
    if (used + put + 1 > field.size()) break;
    if (control) {
      field[used] = '?';
    } else {
      std::memcpy(field.data() + used, text.data(), n);
    }
    used += put;
    text.remove_prefix(std::max<std::size_t>(n, 1));
  }
  std::fill(field.begin() + static_cast<std::ptrdiff_t>(used), field.end(), '\0');
}

Result<StatsWriter, std::string> StatsWriter::create(const std::string& path, const Options& options) {
  if (options.routers > kMaxRows || options.peers > kMaxRows)
    return Err{"stats page " + path + ": too many rows"};
  const std::string temporary = path + ".tmp-" + std::to_string(::getpid());
  ::unlink(temporary.c_str());  // of a former process with our pid
  Fd fd(::open(temporary.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0660));
  if (!fd) return Err{errno_text("stats page " + path + ": cannot create " + temporary, errno)};
  const auto failed = [&](const std::string& text) {
    ::unlink(temporary.c_str());
    return Err{"stats page " + path + ": " + text};
  };
  const std::size_t bytes = file_bytes(options.routers, options.peers);
  if (ofd_lock(fd.get(), kLockByte) != LockState::Free) return failed("cannot lock " + temporary);
  if (const int error = ::posix_fallocate(fd.get(), 0, static_cast<off_t>(bytes)); error != 0) {
    return failed(errno_text("cannot reserve " + std::to_string(bytes) + " bytes", error));
  }
  auto mapped = SharedMapping::map(fd.get(), bytes, true);
  if (!mapped) return failed(mapped.error());
  auto mapping = std::make_unique<SharedMapping>(std::move(mapped).value());
  if (std::string error = mapping->prefault(); !error.empty()) return failed(error);
  StatsWriter writer(std::move(mapping), std::move(fd), options);
  if (::rename(temporary.c_str(), path.c_str()) != 0)
    return failed(errno_text("cannot rename " + temporary, errno));
  return writer;
}

StatsWriter::StatsWriter(std::unique_ptr<SharedMapping> mapping, Fd fd, const Options& options)
    : fd_(std::move(fd)),
      mapping_(std::move(mapping)),
      router_capacity_(options.routers),
      peer_capacity_(options.peers) {
  std::byte* base = mapping_->data();
  page_ = new (base) shm::StatsPage{};
  // The file is new, so the rows are zero: free.
  routers_ = reinterpret_cast<shm::RouterRow*>(base + routers_offset());
  peers_ = reinterpret_cast<shm::PeerRow*>(base + peers_offset(options.routers));
  shm::StatsHeader& h = page_->header;
  h.magic = shm::kStatsMagic;
  h.process_kind = static_cast<std::uint32_t>(options.kind);
  h.layout_hash = shm::kStatsLayoutHash;
  h.shard = options.shard;
  h.pid = static_cast<std::uint32_t>(::getpid());
  h.started_realtime_ns = options.now_realtime_ns;
  h.router_capacity = options.routers;
  h.peer_capacity = options.peers;
  copy_text(h.version, ARANCINI_VERSION);
  h.abi_version.store(shm::kStatsAbiVersion,
                      std::memory_order_release);  // pairs with the acquire in StatsReader::open
}

StatsWriter::StatsWriter(StatsWriter&&) noexcept = default;
StatsWriter& StatsWriter::operator=(StatsWriter&&) noexcept = default;
StatsWriter::~StatsWriter() = default;

void StatsWriter::set_state(shm::ProcessState state) {
  page_->header.state.store(static_cast<std::uint32_t>(state), std::memory_order_relaxed);
}

void StatsWriter::heartbeat(std::uint64_t boottime_ns) {
  page_->header.heartbeat_boottime_ns.store(boottime_ns, std::memory_order_relaxed);
}

struct StatsReader::State {
  std::string path;
  Fd fd;
  SharedMapping mapping;
  FileIdentity identity;
  std::uint32_t router_capacity = 0;  // checked against the file's size
  std::uint32_t peer_capacity = 0;

  [[nodiscard]] const shm::StatsPage& page() const {
    return *reinterpret_cast<const shm::StatsPage*>(mapping.data());
  }
  [[nodiscard]] const shm::RouterRow* routers() const {
    return reinterpret_cast<const shm::RouterRow*>(mapping.data() + routers_offset());
  }
  [[nodiscard]] const shm::PeerRow* peers() const {
    return reinterpret_cast<const shm::PeerRow*>(mapping.data() + peers_offset(router_capacity));
  }
};

StatsReader::StatsReader(std::unique_ptr<State> state) : state_(std::move(state)) {}
StatsReader::StatsReader(StatsReader&&) noexcept = default;
StatsReader& StatsReader::operator=(StatsReader&&) noexcept = default;
StatsReader::~StatsReader() = default;

Result<StatsReader, std::string> StatsReader::open(const std::string& path) {
  const auto failed = [&](const std::string& text) { return Err{"stats page " + path + ": " + text}; };
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!fd) return failed(errno_text("cannot open", errno));
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) return failed(errno_text("fstat", errno));
  const auto size = static_cast<std::size_t>(st.st_size);
  if (!S_ISREG(st.st_mode) || size < sizeof(shm::StatsPage) || size > file_bytes(kMaxRows, kMaxRows)) {
    return failed("is not a stats page (" + std::to_string(size) + " bytes)");
  }
  auto mapped = SharedMapping::map(fd.get(), size, false);
  if (!mapped) return failed(mapped.error());
  auto state = std::make_unique<State>();
  state->path = path;
  state->fd = std::move(fd);
  state->mapping = std::move(mapped).value();
  state->identity = {st.st_dev, st.st_ino};
  const shm::StatsHeader& h = state->page().header;
  const std::uint32_t abi =
      h.abi_version.load(std::memory_order_acquire);  // pairs with the release in StatsWriter
  if (h.magic != shm::kStatsMagic) return failed("is not a stats page (magic differs)");
  if (abi != shm::kStatsAbiVersion) {
    return failed("has ABI version " + std::to_string(abi) + ", this program needs " +
                  std::to_string(shm::kStatsAbiVersion));
  }
  if (h.layout_hash != shm::kStatsLayoutHash)
    return failed("has another layout hash with the same ABI version");
  state->router_capacity = h.router_capacity;
  state->peer_capacity = h.peer_capacity;
  if (state->router_capacity > kMaxRows || state->peer_capacity > kMaxRows ||
      size < file_bytes(state->router_capacity, state->peer_capacity)) {
    return failed("is shorter than its rows need");
  }
  return StatsReader(std::move(state));
}

shm::ProcessKind StatsReader::kind() const {
  return static_cast<shm::ProcessKind>(state_->page().header.process_kind);
}
std::uint32_t StatsReader::shard() const {
  return state_->page().header.shard;
}
std::uint32_t StatsReader::pid() const {
  return state_->page().header.pid;
}
std::uint64_t StatsReader::started_realtime_ns() const {
  return state_->page().header.started_realtime_ns;
}
std::uint64_t StatsReader::heartbeat_boottime_ns() const {
  return state_->page().header.heartbeat_boottime_ns.load(std::memory_order_relaxed);
}
shm::ProcessState StatsReader::state() const {
  return static_cast<shm::ProcessState>(state_->page().header.state.load(std::memory_order_relaxed));
}
std::string StatsReader::version() const {
  const char* text = state_->page().header.version;
  std::array<char, sizeof(shm::StatsHeader::version)> clean{};
  copy_text(clean, {text, ::strnlen(text, clean.size())});
  return clean.data();
}
bool StatsReader::writer_alive() const {
  return ofd_test(state_->fd.get(), kLockByte) == LockState::Held;
}
bool StatsReader::replaced() const {
  FileIdentity now;
  return identify(state_->path, now) && now != state_->identity;
}
std::uint64_t StatsReader::value(std::size_t index) const {
  return index < shm::kStatsValues ? state_->page().values[index].load(std::memory_order_relaxed) : 0;
}

std::vector<StatsReader::Router> StatsReader::routers() const {
  using Row = shm::RouterRow;
  std::vector<Router> result;
  int sleeps_left = kWalkSleeps;
  std::array<std::byte, sizeof(Row)> row;
  for (std::uint32_t i = 0; i < state_->router_capacity; ++i) {
    if (!copy_row(state_->routers()[i], row, sleeps_left) ||
        field<std::uint32_t>(row, offsetof(Row, in_use)) == 0)
      continue;
    Router r;
    r.index = i;
    r.address = IpAddress{field<std::array<std::uint8_t, 16>>(row, offsetof(Row, address))}.to_string();
    r.port = field<std::uint16_t>(row, offsetof(Row, port));
    r.sessions = field<std::uint16_t>(row, offsetof(Row, sessions));
    r.state = static_cast<shm::RouterState>(field<std::uint32_t>(row, offsetof(Row, state)));
    r.peers_up = field<std::uint32_t>(row, offsetof(Row, peers_up));
    r.last_error = field<std::uint32_t>(row, offsetof(Row, last_error));
    r.connected_realtime_ns = field<std::uint64_t>(row, offsetof(Row, connected_realtime_ns));
    r.last_message_realtime_ns = field<std::uint64_t>(row, offsetof(Row, last_message_realtime_ns));
    r.messages = field<std::uint64_t>(row, offsetof(Row, messages));
    r.bytes = field<std::uint64_t>(row, offsetof(Row, bytes));
    r.malformed = field<std::uint64_t>(row, offsetof(Row, malformed));
    r.updates_published = field<std::uint64_t>(row, offsetof(Row, updates_published));
    r.updates_suppressed = field<std::uint64_t>(row, offsetof(Row, updates_suppressed));
    r.routes = field<std::uint64_t>(row, offsetof(Row, routes));
    r.routes_untold = field<std::uint32_t>(row, offsetof(Row, routes_untold));
    r.announcements_dropped = field<std::uint64_t>(row, offsetof(Row, announcements_dropped));
    r.withdraws_dropped = field<std::uint64_t>(row, offsetof(Row, withdraws_dropped));
    r.throttled = field<std::uint32_t>(row, offsetof(Row, throttled)) != 0;
    r.name = text_field(row, offsetof(Row, name));
    r.sys_name = text_field(row, offsetof(Row, sys_name));
    r.sys_descr = text_field(row, offsetof(Row, sys_descr));
    r.last_error_text = text_field(row, offsetof(Row, last_error_text));
    result.push_back(std::move(r));
  }
  return result;
}

std::vector<StatsReader::Peer> StatsReader::peers() const {
  using Row = shm::PeerRow;
  std::vector<Peer> result;
  int sleeps_left = kWalkSleeps;
  std::array<std::byte, sizeof(Row)> row;
  for (std::uint32_t i = 0; i < state_->peer_capacity; ++i) {
    if (!copy_row(state_->peers()[i], row, sleeps_left) ||
        field<std::uint32_t>(row, offsetof(Row, in_use)) == 0)
      continue;
    Peer p;
    p.router = field<std::uint32_t>(row, offsetof(Row, router));
    p.peer_type = field<std::uint8_t>(row, offsetof(Row, peer_type));
    p.view = field<std::uint8_t>(row, offsetof(Row, view));
    p.state = static_cast<shm::PeerState>(field<std::uint8_t>(row, offsetof(Row, state)));
    p.address = IpAddress{field<std::array<std::uint8_t, 16>>(row, offsetof(Row, address))}.to_string();
    p.distinguisher = field<std::uint64_t>(row, offsetof(Row, distinguisher));
    p.asn = field<std::uint32_t>(row, offsetof(Row, asn));
    p.bgp_id = field<std::uint32_t>(row, offsetof(Row, bgp_id));
    p.down_reason = field<std::uint32_t>(row, offsetof(Row, down_reason));
    p.changed_realtime_ns = field<std::uint64_t>(row, offsetof(Row, changed_realtime_ns));
    p.routes = field<std::uint64_t>(row, offsetof(Row, routes));
    p.updates_published = field<std::uint64_t>(row, offsetof(Row, updates_published));
    p.updates_suppressed = field<std::uint64_t>(row, offsetof(Row, updates_suppressed));
    p.updates_malformed = field<std::uint64_t>(row, offsetof(Row, updates_malformed));
    p.synthetic_withdraws = field<std::uint64_t>(row, offsetof(Row, synthetic_withdraws));
    result.push_back(std::move(p));
  }
  return result;
}

}  // namespace arancini
